"""What is read of the processor, and what a launch says of it."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from rich.console import Console

from tests.examples import data_config
from vaehpc import launch, processor
from vaehpc.config import StudyConfig
from vaehpc.presets import Settings, configured_arms, named_arms
from vaehpc.study import planned_study

GENOA = "processor\t: 0\nmodel name\t: AMD EPYC 9654\nflags\t\t: fpu sse2 avx2 avx512_bf16 vaes\n\n"
MILAN = "processor\t: 0\nmodel name\t: AMD EPYC 7763\nflags\t\t: fpu sse2 avx2 vaes\n\n"
GRACE = "processor\t: 0\nFeatures\t: fp asimd bf16 sve2\nCPU part\t: 0xd4f\n\n"


@pytest.mark.parametrize(("cpuinfo", "computes"), [(GENOA, True), (MILAN, False), (GRACE, True), ("", False)])
def test_bfloat16_units_are_seen_in_the_flags(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cpuinfo: str, computes: bool
) -> None:
    monkeypatch.setattr(processor, "CPUINFO", tmp_path / "cpuinfo")
    processor.CPUINFO.write_text(2 * cpuinfo)
    assert processor.computes_bfloat16() is computes


def test_the_model_is_named_where_linux_names_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processor, "CPUINFO", tmp_path / "cpuinfo")
    assert processor.cpu_model()  # the architecture
    processor.CPUINFO.write_text(2 * MILAN)
    assert processor.cpu_model() == "AMD EPYC 7763"


@pytest.mark.parametrize(
    ("units", "gpus", "precision", "warned"),
    [
        (False, 0, "mixed_bfloat16", True),
        (True, 0, "mixed_bfloat16", False),
        (False, 1, "mixed_bfloat16", False),
        (False, 0, "float32", False),
    ],
)
def test_a_launch_warns_of_emulated_bfloat16(
    monkeypatch: pytest.MonkeyPatch, units: bool, gpus: int, precision: str, warned: bool
) -> None:
    monkeypatch.setattr(launch, "computes_bfloat16", lambda: units)
    monkeypatch.setattr(launch, "count_gpus", lambda: gpus)
    console = Console(file=io.StringIO(), width=200)
    launch.say_what_is_emulated(in_precision(precision), console)
    said = console.file.getvalue()  # type: ignore[attr-defined]
    assert ("no units for bfloat16: vae-tiny will train" in said) is warned
    assert bool(said) is warned


def in_precision(precision: str) -> StudyConfig:
    settings = Settings.model_validate({"train": {"precision": precision}})
    return planned_study("one", "demo", data_config(), configured_arms(named_arms(["vae-tiny"]), settings), 1)
