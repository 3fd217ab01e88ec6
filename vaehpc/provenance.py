"""What code and packages this process runs with."""

from __future__ import annotations

import importlib.metadata
import platform
import subprocess
from functools import cache
from pathlib import Path

from vaehpc import __version__
from vaehpc.config import Provenance

PACKAGES = (
    "tensorflow",
    "tensorflow-cpu",
    "keras",
    "numpy",
    "scipy",
    "scikit-learn",
    "matplotlib",
    "submitit",
    "pyarrow",
)


@cache
def provenance() -> Provenance:
    """Code version, Python and package versions; no image digest outside a container."""
    packages = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            packages[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return Provenance(code_version=code_version(), image_digest=None, packages=packages)


def code_version() -> str:
    """'0.1.0', and in a git checkout the commit: '0.1.0+g1a2b3c4', with '.dirty' where files were changed."""
    checkout = Path(__file__).parent.parent
    if not (checkout / ".git").exists():
        return __version__
    command = ["git", "-C", str(checkout), "describe", "--always", "--dirty=.dirty", "--exclude=*", "--abbrev=12"]
    try:
        commit = subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return __version__
    return f"{__version__}+g{commit}"
