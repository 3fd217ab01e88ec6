"""Which GPUs can be used: by compute capability, driver and precision, and by the machine they are in."""

from __future__ import annotations

import platform

import pytest

from vaehpc.machine.served import unserved_machine, unusable


@pytest.mark.parametrize(
    ("capability", "driver", "precision", "why"),
    [
        ("9.0", "555.42.06", "mixed_bfloat16", None),
        ("9.0", "550.54.15", "mixed_bfloat16", "driver 550.54.15 of GPU (compute capability 9.0) is too old"),
        ("8.0", "525.60.13", "tf32", None),
        ("8.0", "525.60.11", "float32", "needs 525.60.13 or newer there"),
        ("7.0", "525.60.13", "mixed_float16", None),
        ("7.5", "550.54.15", "mixed_bfloat16", "--train.precision mixed_float16 or float32 and another --study"),
        ("7.5", None, "tf32", "--train.precision float32 and"),
        ("6.1", "550.54.15", "float32", "is older than what the lock train-gpu has code for"),
        ("10.0", "570.00", "mixed_bfloat16", "is newer than what the lock train-gpu has code for"),
        (None, None, "mixed_bfloat16", None),  # nothing is known: TensorFlow will say
        (None, "470.82.01", "float32", "driver 470.82.01"),
    ],
)
def test_what_cannot_train_is_refused_by_name(
    capability: str | None, driver: str | None, precision: str, why: str | None
) -> None:
    found = unusable("GPU", capability, driver, precision)
    assert (found is None) if why is None else (found is not None and why in found)


@pytest.mark.parametrize(("machine", "served"), [("x86_64", True), ("aarch64", False), ("ppc64le", False)])
def test_a_processor_for_which_there_are_no_wheels(machine: str, served: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "machine", lambda: machine)
    assert (unserved_machine() is None) is served
    assert served or machine in str(unserved_machine())
