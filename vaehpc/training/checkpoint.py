"""Checkpoints written, and put back into the variables, bitwise what the training continues from."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

import keras
import numpy as np
import numpy.typing as npt

from vaehpc.command import UserError, explained
from vaehpc.schema.results import ProbeRecord
from vaehpc.study.attempts import Attempt
from vaehpc.study.files import RunDir, write_model
from vaehpc.study.states import Arrays, Checkpoint, Progress, checkpoint_name, read_checkpoint, state_hash

NUM_KEPT = 2
"""Newest checkpoints that are kept: the last good one survives damage to the newest."""

logger = logging.getLogger(__name__)


class NonFiniteError(Exception):
    """Loss or weights became NaN or infinite: a result of the run, not a failure.

    `signals` are those of the steps of its block up to this one, `order` the block's images; both empty for weights.
    `probe` holds what was seen before.
    """

    def __init__(
        self,
        step: int,
        signals: Mapping[str, npt.NDArray[np.float32]] | None = None,
        order: npt.NDArray[np.int64] | None = None,
        probe: tuple[ProbeRecord, ...] = (),
    ) -> None:
        super().__init__(f"loss or weights are not finite at step {step}")
        self.step = step
        self.signals = {} if signals is None else signals
        self.order = np.empty(0, np.int64) if order is None else order
        self.probe = probe


def state_arrays(variables: Sequence[keras.Variable]) -> dict[str, npt.NDArray[np.generic]]:
    """Weights, moving statistics and optimizer state by the paths of their variables."""
    arrays = {variable.path: np.asarray(variable) for variable in variables}
    if len(arrays) != len(variables):
        raise ValueError("two variables have the same path: their checkpoint could not be read back")
    return arrays


def save_checkpoint(
    attempt: Attempt, variables: Sequence[keras.Variable], progress: Progress, kept_steps: Collection[int] = ()
) -> str:
    """Write a checkpoint inside the attempt, publish it under checkpoints/, drop those that are too old.

    Args:
        attempt: the start that trains.
        variables: weights, moving statistics and optimizer state.
        progress: how far they are.
        kept_steps: checkpoints after so many steps are never dropped.

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
        raise NonFiniteError(progress.step, probe=progress.probe)
    aside = attempt.path / checkpoint_name(progress.step)
    digest = write_checkpoint(aside, arrays, progress)
    attempt.publish(aside, run.checkpoints / aside.name)
    kept = {checkpoint_name(step) for step in kept_steps}
    for old in run.checkpoint_dirs()[:-NUM_KEPT]:
        if old.name not in kept:
            shutil.rmtree(old)
    return digest


def write_checkpoint(path: Path, arrays: Arrays, progress: Progress) -> str:
    """Write variables.npz and checkpoint.json into the directory `path`, which is made.

    Returns:
        The hash of the state.

    Raises:
        UserError: the disk is full; the directory is gone.
    """
    digest = state_hash(arrays, progress.step)
    try:
        path.mkdir(exist_ok=True)
        with (path / "variables.npz").open("wb") as file:
            # The type stubs take any keyword for the names of the arrays but the one that they know.
            np.savez(file, **dict(arrays))  # type: ignore[arg-type]
        write_model(path / "checkpoint.json", Checkpoint(progress=progress, state_sha256=digest))
    except (OSError, UserError) as error:
        shutil.rmtree(path, ignore_errors=True)  # it takes space that is lacking
        raise (explained(error, path / "variables.npz") if isinstance(error, OSError) else error) from error
    return digest


def restore_newest(run: RunDir, variables: Sequence[keras.Variable], identity: str | None = None) -> Progress | None:
    """Put the newest checkpoint that is whole, and of the run of this identity, into the variables; None without one.

    A damaged checkpoint is said in the log and passed over.
    """
    for path in reversed(run.checkpoint_dirs()):
        try:
            return restore_checkpoint(path, variables, identity)
        except UserError as error:
            logger.warning("checkpoint %s is damaged and passed over: %s", path, error)
    return None


def restore_checkpoint(path: Path, variables: Sequence[keras.Variable], identity: str | None = None) -> Progress:
    """Put a checkpoint into the variables.

    Raises:
        UserError: there is none, it is damaged or of another run, or its variables are not those of this net.
    """
    checkpoint, arrays = read_checkpoint(path, identity)
    own = state_arrays(variables)
    if {name: array.shape for name, array in arrays.items()} != {name: array.shape for name, array in own.items()}:
        raise UserError(f"{path}: its variables are not those of this net")
    for variable in variables:
        variable.assign(arrays[variable.path])
    return checkpoint.progress


def restore_weights(path: Path, variables: Sequence[keras.Variable]) -> None:
    """Put the weights of a checkpoint into those variables that it has; raises as `restore_checkpoint`.

    Of a VAE that starts from an AE, the head log_var is not there and stays as it is.
    """
    _, arrays = read_checkpoint(path)
    for variable in variables:
        if variable.path in arrays:
            variable.assign(arrays[variable.path])
