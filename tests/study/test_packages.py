"""What is installed, what is missing or old, and the line that mends it."""

from pathlib import Path

import pytest

from vaehpc.command import UserError
from vaehpc.study import packages
from vaehpc.study.packages import (
    install_line,
    installed_versions,
    is_met,
    require_installed,
    requirements,
    unmet_requirements,
)


def test_this_environment_has_what_the_package_asks_for() -> None:
    for extras in ((), ("train-cpu", "train-gpu"), ("analysis",)):
        assert unmet_requirements(requirements(), installed_versions(), extras) == []


NEEDED = [
    "numpy>=2.1",
    'scipy>=1.15; extra == "analysis"',
    "tensorflow-cpu==2.21.*; extra == 'train-cpu'",
    "keras==3.15.*; extra == 'train-cpu'",
    "tensorflow[and-cuda]==2.21.*; extra == 'train-gpu'",
    "keras==3.15.*; extra == 'train-gpu'",
]


@pytest.mark.parametrize(
    ("installed", "extras", "problems"),
    [
        ({"numpy": "2.4.6"}, (), []),
        ({"numpy": "1.26.4"}, (), ["numpy>=2.1 is needed, 1.26.4 is installed"]),
        ({}, (), ["numpy>=2.1 is not installed"]),
        ({"numpy": "2.4.6"}, ("analysis",), ["scipy>=1.15 is not installed"]),
        ({"numpy": "2.4.6", "tensorflow": "2.21.0", "keras": "3.15.1"}, ("train-cpu", "train-gpu"), []),
        ({"numpy": "2.4.6", "tensorflow-cpu": "2.21.0", "keras": "3.15.1"}, ("train-cpu", "train-gpu"), []),
        (
            {"numpy": "2.4.6", "tensorflow": "2.20.0", "keras": "3.15.1"},
            ("train-cpu", "train-gpu"),
            ["tensorflow-cpu==2.21.* is not installed"],
        ),
    ],
)
def test_packages_that_are_missing_or_old_are_named(
    installed: dict[str, str], extras: tuple[str, ...], problems: list[str]
) -> None:
    assert unmet_requirements(NEEDED, installed, extras) == problems


@pytest.mark.parametrize(
    ("version", "limit", "met"),
    [
        ("2.10", ">=2.9", True),
        ("2.8.1", ">=2.9", False),
        ("3.15.1", "==3.15.*", True),
        ("3.16.0", "==3.15.*", False),
        ("2.21.0", "==2.21.0", True),
        ("2.0rc1", ">=2", True),
        ("3.14", "<3.14", False),
    ],
)
def test_versions_are_compared_as_numbers(version: str, limit: str, met: bool) -> None:
    assert is_met(version, limit) is met


@pytest.mark.parametrize(
    ("installed", "driver", "parts", "said"),
    [
        ({}, None, ("train", "analysis"), 'lacks TensorFlow, keras, scipy: pip install "vaehpc[train-cpu,analysis]"'),
        ({}, "550.54", ("train",), 'lacks TensorFlow, keras: pip install "vaehpc[train-gpu]"'),
        ({"tensorflow": "2.20.0", "keras": "3"}, None, ("analysis",), 'lacks scipy: pip install "vaehpc[analysis]"'),
        (
            {"tensorflow-cpu": "2.21.0", "keras": "3"},
            "550.54",
            ("train",),
            'never uses one: pip uninstall tensorflow-cpu, then pip install "vaehpc[train-gpu]"',
        ),
    ],
)
def test_what_is_not_installed_is_named_with_the_line_that_mends_it(
    monkeypatch: pytest.MonkeyPatch,
    installed: dict[str, str],
    driver: str | None,
    parts: tuple[packages.Part, ...],
    said: str,
) -> None:
    monkeypatch.setattr(packages, "requirements", lambda: NEEDED)
    monkeypatch.setattr(packages, "installed_versions", lambda: installed)
    monkeypatch.setattr(packages, "gpu_driver", lambda: driver)
    with pytest.raises(UserError) as refused:
        require_installed(*parts)
    assert said in str(refused.value)


@pytest.mark.parametrize(
    ("installed", "driver"),
    [({"tensorflow": "2.21.0", "keras": "3"}, "550.54"), ({"tensorflow-cpu": "2.20.0", "keras": "3"}, None)],
)
def test_what_is_there_is_not_refused(
    monkeypatch: pytest.MonkeyPatch, installed: dict[str, str], driver: str | None
) -> None:
    monkeypatch.setattr(packages, "requirements", lambda: NEEDED)
    monkeypatch.setattr(packages, "installed_versions", lambda: installed)
    monkeypatch.setattr(packages, "gpu_driver", lambda: driver)
    require_installed("train")


def test_a_wheel_is_completed_by_its_extras_and_a_checkout_by_its_locks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert install_line("python3", "train-cpu") == (
        "python3 -m pip install --require-hashes -r containers/locks/train-cpu.txt"
    )
    monkeypatch.setattr(packages, "__file__", str(tmp_path / "vaehpc/study/packages.py"))
    assert install_line("python3", "train-cpu") == 'python3 -m pip install "vaehpc[train-cpu]"'
    assert install_line("python3", "launcher") == 'python3 -m pip install "vaehpc"'
