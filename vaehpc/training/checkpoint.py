"""Checkpoints written, and put back into the variables, bitwise what the training continues from."""

from __future__ import annotations

import logging
import shutil
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import keras
import numpy as np
import numpy.typing as npt
import tensorflow as tf

from vaehpc.command import UserError, explained
from vaehpc.schema.results import ProbeRecord
from vaehpc.study.attempts import Attempt
from vaehpc.study.files import RunDir, write_model
from vaehpc.study.states import Arrays, Checkpoint, Progress, checkpoint_name, read_checkpoint, state_hash

NUM_KEPT = 2
"""Newest checkpoints that are kept: the last good one survives damage to the newest."""
SAVES_PER_TIME = 20
"""At the end of an epoch one is saved after so many times as long as the last took: on a GPU an epoch may take less."""

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
    """Copies of weights, moving statistics and optimizer state by the paths of their variables."""
    arrays = {variable.path: np.asarray(variable) for variable in variables}
    if len(arrays) != len(variables):
        raise ValueError("two variables have the same path: their checkpoint could not be read back")
    return arrays


@tf.function(autograph=False)
def _are_finite(variables: Sequence[tf.Variable]) -> tf.Tensor:
    """On the device, so that no more than the answer leaves it."""
    return tf.reduce_all([tf.reduce_all(tf.math.is_finite(variable)) for variable in variables])


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
    require_finite(variables, progress)
    return _saved(attempt, state_arrays(variables), progress, kept_steps)


def require_finite(variables: Sequence[keras.Variable], progress: Progress) -> None:
    """NonFiniteError if a variable holds NaN or infinity."""
    if not _are_finite([variable.value for variable in variables if variable.dtype == "float32"]):
        raise NonFiniteError(progress.step, probe=progress.probe)


def _saved(attempt: Attempt, arrays: Arrays, progress: Progress, kept_steps: Collection[int]) -> str:
    run = attempt.run
    aside = attempt.path / checkpoint_name(progress.step)
    digest = write_checkpoint(aside, arrays, progress)
    attempt.publish(aside, run.checkpoints / aside.name)
    kept = {checkpoint_name(step) for step in kept_steps}
    for old in run.checkpoint_dirs()[:-NUM_KEPT]:
        if old.name not in kept:
            shutil.rmtree(old)
    return digest


class CheckpointWriter:
    """Saves the checkpoints of a training, at the latest by the time when the next one is due.

    Beside the training if asked to, which then only waits until the variables are copied. As a context, it is left when
    the last checkpoint is saved.
    """

    def __init__(
        self,
        attempt: Attempt,
        variables: Sequence[keras.Variable],
        kept_steps: Collection[int],
        beside: bool,
        on_saved: Callable[[Progress], None],
    ) -> None:
        """Of arguments that `save_checkpoint` has not: what is done after each, in the same thread."""
        self._attempt, self._variables, self._kept_steps = attempt, variables, kept_steps
        self._beside, self._on_saved = beside, on_saved
        self._begun, self._seconds = time.monotonic(), 0.0
        self._saving: Future[None] | None = None
        self.newest: dict[str, object] = {}
        """Step and hash of the state of the newest one, as a heartbeat says them."""

    def __enter__(self) -> CheckpointWriter:
        self._thread = ThreadPoolExecutor(1)
        return self

    def __exit__(self, *_: object) -> None:
        self._thread.shutdown()

    def is_due(self, epoch_ended: bool, longest: float) -> bool:
        """Whether the newest is older than so many seconds; at the end of an epoch, whether one pays by now."""
        seconds = time.monotonic() - self._begun
        return seconds > longest or (epoch_ended and seconds >= SAVES_PER_TIME * self._seconds)

    def save(self, progress: Progress) -> None:
        """Raises as `save_checkpoint`, perhaps for the one before."""
        self.finish()
        self._begun = time.monotonic()
        require_finite(self._variables, progress)
        self._saving = self._thread.submit(self._save, state_arrays(self._variables), progress)
        if not self._beside:
            self.finish()

    def finish(self) -> None:
        """Wait until the last one is saved."""
        if self._saving is not None:
            saving, self._saving = self._saving, None
            saving.result()

    def _save(self, arrays: Arrays, progress: Progress) -> None:
        digest = _saved(self._attempt, arrays, progress, self._kept_steps)
        self._on_saved(progress)
        self.newest = {"checkpoint_step": progress.step, "checkpoint_sha256": digest}
        self._seconds = time.monotonic() - self._begun


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
