"""What code and packages this process runs with."""

from __future__ import annotations

import hashlib
import importlib.metadata
import platform
import subprocess
import sys
from functools import cache
from pathlib import Path

from vaehpc import __version__
from vaehpc.schema.config import ImageRecord, Provenance
from vaehpc.study.files import read_model

PACKAGES = (
    "tensorflow",
    "tensorflow-cpu",
    "tensorflow-rocm",
    "keras",
    "numpy",
    "scipy",
    "scikit-learn",
    "matplotlib",
    "submitit",
    "pyarrow",
    "nvidia-cuda-runtime-cu12",
    "nvidia-cudnn-cu12",
)


@cache
def provenance() -> Provenance:
    """Code version, Python and package versions; no image digest outside an image."""
    packages = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            packages[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    image = own_image()
    return Provenance(
        code_version=code_version(),
        sources=sources(),
        image_digest=None if image is None else image.digest,
        packages=packages,
    )


@cache
def own_image() -> ImageRecord | None:
    """The image that this process runs in; None outside of one."""
    path = Path(sys.prefix, "image.json")
    return read_model(path, ImageRecord) if path.exists() else None


@cache
def sources() -> str:
    """SHA-256 of this package's Python files and their names: the same for a checkout, a wheel and an image."""
    package = Path(__file__).parents[1]
    digest = hashlib.sha256()
    for path in sorted(package.rglob("*.py")):
        digest.update(f"{path.relative_to(package)}\0".encode() + hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


@cache
def code_version() -> str:
    """'0.2.0', in a checkout or an image with the commit: '0.2.0+g1a2b3c4'.

    Where files were changed since, with the start of `sources`: '0.2.0+g1a2b3c4.dirty.5d6e7f8a'.
    """
    if (image := own_image()) is not None:
        return f"{__version__}+g{image.revision}" if image.revision else __version__
    checkout = Path(__file__).parents[2]
    if not (checkout / ".git").exists():
        return __version__
    command = ["git", "-C", str(checkout), "describe", "--always", "--dirty=.dirty", "--exclude=*", "--abbrev=12"]
    try:
        commit = subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return __version__
    return f"{__version__}+g{commit}" + (f".{sources()[:8]}" if commit.endswith(".dirty") else "")
