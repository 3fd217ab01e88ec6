"""The packages that this one asks for: what is installed, what is missing or old, and which line mends it."""

from __future__ import annotations

import importlib.metadata
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Literal

from vaehpc.command import UserError
from vaehpc.machine.hardware import gpu_driver

TRAIN_EXTRAS = ("train-gpu", "train-cpu")
ANALYSIS_EXTRAS = ("analysis",)
Part = Literal["train", "analysis"]


def require_installed(*parts: Part, is_cpu_meant: bool = False) -> None:
    """Say what this Python lacks of these parts before anything is made; versions are the doctor's business.

    Raises:
        UserError: something is not installed, or TensorFlow has no CUDA although there is a GPU.
    """
    installed, has_gpu = installed_versions(), not is_cpu_meant and gpu_driver() is not None
    extras = {"train": TRAIN_EXTRAS, "analysis": ANALYSIS_EXTRAS}
    own = {"train": "train-gpu" if has_gpu else "train-cpu", "analysis": "analysis"}
    line = f'pip install "vaehpc[{",".join(own[part] for part in parts)}]"'
    absent = [name for part in parts for name in _absent(installed, extras[part])]
    if absent:
        raise UserError(f"this Python lacks {', '.join(dict.fromkeys(absent))}: {line}")
    if "train" in parts and has_gpu and "tensorflow" not in installed and "tensorflow-cpu" in installed:
        raise UserError(
            "this machine has a GPU, but tensorflow-cpu, which never uses one: pip uninstall tensorflow-cpu, then"
            f" {line}. To train on processors all the same: launch --device cpu"
        )


def _absent(installed: Mapping[str, str], extras: Iterable[str]) -> list[str]:
    """Names of what is not installed; of several extras, of the one which lacks least."""
    needed, suffix = requirements(), " is not installed"
    found = [
        [_name_and_limits(said.removesuffix(suffix))[0] for said in _unmet(needed, installed, extra) if suffix in said]
        for extra in extras
    ]
    names = ["TensorFlow" if name.startswith("tensorflow") else name for name in min(found, key=len)]
    return sorted(names, key=lambda name: name != "TensorFlow")


def install_line(python: str, lock: str) -> str:
    """What installs a lock's packages into this Python: hash-pinned in a checkout, else by the extra of its name."""
    if (Path(__file__).parents[2] / "containers/locks").exists():
        return f"{python} -m pip install --require-hashes -r containers/locks/{lock}.txt"
    extra = "" if lock == "launcher" else f"[{lock}]"
    return f'{python} -m pip install "vaehpc{extra}"'


def requirements() -> list[str]:
    """What this package needs: 'numpy>=2.1', 'scipy>=1.15; extra == "analysis"'; nothing where it is not installed."""
    try:
        return importlib.metadata.requires("vaehpc") or []
    except importlib.metadata.PackageNotFoundError:
        return []


def installed_versions() -> dict[str, str]:
    """Version of each package that this Python finds first."""
    versions: dict[str, str] = {}
    for found in importlib.metadata.distributions():
        versions.setdefault(_normal(found.name), found.version)
    return versions


def unmet_requirements(needed: Iterable[str], installed: Mapping[str, str], extras: Iterable[str]) -> list[str]:
    """What is missing or of another version; of several extras, that of the one which lacks least."""
    needed = list(needed)
    always = _unmet(needed, installed, None)
    of_extras = [_unmet(needed, installed, extra) for extra in extras]
    return always + min(of_extras, key=len, default=[])


def _unmet(needed: Iterable[str], installed: Mapping[str, str], extra: str | None) -> list[str]:
    problems = []
    for requirement in needed:
        specification, _, marker = requirement.partition(";")
        found_extra = re.search(r"extra == ['\"]([^'\"]+)", marker)
        if (found_extra[1] if found_extra else None) != extra:
            continue
        name, limits = _name_and_limits(specification)
        version = installed.get(_normal(name))
        if version is None:
            problems.append(f"{specification.strip()} is not installed")
        elif not all(is_met(version, limit) for limit in limits):
            problems.append(f"{specification.strip()} is needed, {version} is installed")
    return problems


def _name_and_limits(specification: str) -> tuple[str, list[str]]:
    parts = re.fullmatch(r"\s*([\w.-]+)(?:\[[^]]*])?\s*(.*?)\s*", specification)
    assert parts is not None
    return parts[1], [limit.strip() for limit in parts[2].split(",") if limit]


def released(code_version: str) -> str:
    """'0.1.0' of '0.1.0+g1a2b3c4'."""
    return code_version.partition("+")[0]


def is_met(version: str, limit: str) -> bool:
    """Whether '2.4.6' is within '>=2.1', '<3', '==2.21.*' or '==2.21.0'."""
    parts = re.fullmatch(r"(>=|<|==)([\d.]+?)(\.\*)?", limit)
    assert parts is not None, limit
    found, asked = _numbers(version), _numbers(parts[2])
    if parts[1] == "==":
        return found[: len(asked)] == asked if parts[3] else found == asked
    return found >= asked if parts[1] == ">=" else found < asked


def _numbers(version: str) -> tuple[int, ...]:
    leading = re.match(r"\d+(\.\d+)*", version)
    return tuple(map(int, leading[0].split("."))) if leading else ()


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()
