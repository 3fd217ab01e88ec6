"""States of a training on disk, checkpoints and snapshots: complete or absent, checked when they are read."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt

from vaehpc.command import UserError
from vaehpc.schema.frozen import Result
from vaehpc.schema.results import EpochRecord, ProbeRecord
from vaehpc.study.files import opened, read_model

Arrays = Mapping[str, npt.NDArray[np.generic]]


class Progress(Result):
    """How far a training is, beside its variables: everything that the rest of the run depends on."""

    step: int = 0
    """Steps done."""
    loss_sums: tuple[float, float, float] = (0.0, 0.0, 0.0)
    """Sums over the images of the unfinished epoch: total, reconstruction and weighted KL loss."""
    epochs: tuple[EpochRecord, ...] = ()
    probe: tuple[ProbeRecord, ...] = ()
    identity: str | None = None
    """Of the run; None: written by a release before 0.3.0."""


class Checkpoint(Result):
    """checkpoint.json beside variables.npz."""

    progress: Progress
    state_sha256: str


def state_hash(arrays: Arrays, step: int) -> str:
    """SHA-256 over names, types, shapes and bytes of the variables and the step counter."""
    digest = hashlib.sha256(f"step {step}".encode())
    for name in sorted(arrays):
        array = arrays[name]
        digest.update(f"{name} {array.dtype} {array.shape}".encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def checkpoint_name(step: int) -> str:
    """Name of the directory of the checkpoint after so many steps: in the order of the steps."""
    return f"step-{step:09d}"


def read_checkpoint(path: Path, identity: str | None = None) -> tuple[Checkpoint, Arrays]:
    """A checkpoint's description and its variables by their paths.

    Args:
        path: its directory.
        identity: of the run that it must be of; None: of any.

    Raises:
        UserError: it is missing or damaged, or of another run.
    """
    checkpoint = read_model(path / "checkpoint.json", Checkpoint)
    if identity is not None and checkpoint.progress.identity not in (None, identity):
        raise UserError(f"{path} is a checkpoint of another run, or of other settings")
    try:
        # Opened here, because np.load leaves a file that is no zip archive open.
        with opened(path / "variables.npz") as file, np.load(file) as stored:
            arrays = {name: stored[name] for name in stored.files}
    except Exception as error:  # a damaged archive raises nearly everything
        raise UserError(f"{path / 'variables.npz'} cannot be read: {error}") from error
    found = state_hash(arrays, checkpoint.progress.step)
    if found != checkpoint.state_sha256:
        raise UserError(f"{path}: its variables hash to {found}, it was written with {checkpoint.state_sha256}")
    return checkpoint, arrays
