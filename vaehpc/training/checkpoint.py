"""Checkpoints: complete or absent, checked when read, bitwise what the training continues from."""

from __future__ import annotations

import hashlib
import logging
import shutil
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import keras
import numpy as np
import numpy.typing as npt

from vaehpc.config import Frozen
from vaehpc.files import Attempt, RunDir, UserError, explained, read_model, write_model
from vaehpc.results import EpochRecord, ProbeRecord

Arrays = Mapping[str, npt.NDArray[np.generic]]

NUM_KEPT = 2
"""Newest checkpoints that are kept: the last good one survives damage to the newest."""

logger = logging.getLogger(__name__)


class NonFiniteError(Exception):
    """Loss or weights became NaN or infinite: a result of the run, not a failure."""

    def __init__(self, step: int) -> None:
        super().__init__(f"loss or weights are not finite at step {step}")
        self.step = step


class Progress(Frozen):
    """How far a training is, beside its variables: everything that the rest of the run depends on."""

    step: int = 0
    """Steps done."""
    loss_sums: tuple[float, float, float] = (0.0, 0.0, 0.0)
    """Sums over the images of the unfinished epoch: total, reconstruction and weighted KL loss."""
    epochs: tuple[EpochRecord, ...] = ()
    probe: tuple[ProbeRecord, ...] = ()


class Checkpoint(Frozen):
    """checkpoint.json beside variables.npz."""

    progress: Progress
    state_sha256: str


def state_arrays(variables: Sequence[keras.Variable]) -> dict[str, npt.NDArray[np.generic]]:
    """Weights, moving statistics and optimizer state by the paths of their variables."""
    arrays = {variable.path: np.asarray(variable) for variable in variables}
    if len(arrays) != len(variables):
        raise ValueError("two variables have the same path: their checkpoint could not be read back")
    return arrays


def state_hash(arrays: Arrays, step: int) -> str:
    """SHA-256 over names, types, shapes and bytes of the variables and the step counter."""
    digest = hashlib.sha256(f"step {step}".encode())
    for name in sorted(arrays):
        array = arrays[name]
        digest.update(f"{name} {array.dtype} {array.shape}".encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def save_checkpoint(attempt: Attempt, variables: Sequence[keras.Variable], progress: Progress) -> str:
    """Write a checkpoint inside the attempt, publish it under checkpoints/, drop those that are too old.

    Returns:
        The hash of the state.

    Raises:
        NonFiniteError: a variable holds NaN or infinity: such a state is not kept.
        SupersededError: a newer attempt exists; nothing was published.
        UserError: the disk is full.
    """
    run = attempt.run
    arrays = state_arrays(variables)
    if not all(np.isfinite(array).all() for array in arrays.values()):
        raise NonFiniteError(progress.step)
    digest = state_hash(arrays, progress.step)
    aside = attempt.path / f"step-{progress.step:09d}"
    aside.mkdir(exist_ok=True)
    try:
        with (aside / "variables.npz").open("wb") as file:
            # The type stubs take any keyword for the names of the arrays but the one that they know.
            np.savez(file, **dict(arrays))  # type: ignore[arg-type]
    except OSError as error:
        shutil.rmtree(aside)
        raise explained(error, aside / "variables.npz") from error
    write_model(aside / "checkpoint.json", Checkpoint(progress=progress, state_sha256=digest))
    run.checkpoints.mkdir(exist_ok=True)
    attempt.publish(aside, run.checkpoints / aside.name)
    for old in _checkpoint_dirs(run)[:-NUM_KEPT]:
        shutil.rmtree(old)
    return digest


def restore_checkpoint(run: RunDir, variables: Sequence[keras.Variable]) -> Progress:
    """Put the newest checkpoint that is whole into the variables; a fresh Progress if there is none.

    A damaged checkpoint is said in the log and passed over.
    """
    for path in reversed(_checkpoint_dirs(run)):
        try:
            return _restore(path, variables)
        except (UserError, OSError, ValueError, zipfile.BadZipFile) as error:
            logger.warning("checkpoint %s is damaged and passed over: %s", path, error)
    return Progress()


def _restore(path: Path, variables: Sequence[keras.Variable]) -> Progress:
    checkpoint = read_model(path / "checkpoint.json", Checkpoint)
    # Opened here, because np.load leaves a file that is no zip archive open.
    with (path / "variables.npz").open("rb") as file, np.load(file) as stored:
        arrays = {name: stored[name] for name in stored.files}
    found = state_hash(arrays, checkpoint.progress.step)
    if found != checkpoint.state_sha256:
        raise ValueError(f"its variables hash to {found}, it was written with {checkpoint.state_sha256}")
    if arrays.keys() != state_arrays(variables).keys():
        raise ValueError("its variables are not those of this net")
    for variable in variables:
        variable.assign(arrays[variable.path])
    return checkpoint.progress


def _checkpoint_dirs(run: RunDir) -> list[Path]:
    return sorted(run.checkpoints.glob("step-*"))
