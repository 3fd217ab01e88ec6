"""Train one run: read run.json and the data set it names, write checkpoints, history and latents, then trained.json."""

from __future__ import annotations

import contextlib
import functools
import logging
import signal
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import keras

from vaehpc.command import UserError
from vaehpc.schema.config import RunConfig, run_name
from vaehpc.schema.results import TrainedRecord
from vaehpc.study.attempts import Attempt, StoppedError
from vaehpc.study.files import RunDir, StudyDir, read_model
from vaehpc.study.provenance import provenance
from vaehpc.study.states import Checkpoint, Progress, state_hash
from vaehpc.tasks.device import Device, configure_tensorflow, kept_programs
from vaehpc.training.board import Board, write_projector, write_reconstructions
from vaehpc.training.checkpoint import (
    CheckpointWriter,
    NonFiniteError,
    require_finite,
    restore_checkpoint,
    restore_newest,
    restore_weights,
    save_checkpoint,
    state_arrays,
)
from vaehpc.training.encode import write_latents
from vaehpc.training.fit import build_optimizer, forget_moments, train_blocks
from vaehpc.training.models import Net, build_net, layer_seeds
from vaehpc.training.pipeline import Images, load_training_images
from vaehpc.training.recorder import FlightRecorder, publish_record, read_steps, steps_schema
from vaehpc.training.signals import signal_names

logger = logging.getLogger(__name__)


def run(directory: str) -> None:
    """Train the run in this directory from its newest checkpoint, unless it is trained already.

    Leaves without publishing where a newer attempt exists, and after a checkpoint where the file `stop` appears or the
    process is asked to end (SIGUSR1, SIGUSR2, SIGTERM).

    Raises:
        UserError: the data set is missing, damaged or another one, the disk is full, or the GPU that the job asked for
            is not there; a HopelessError if no other node would do.
    """
    run_dir = RunDir(Path(directory))
    if run_dir.trained_path.exists():
        logger.info("%s is trained already", run_dir.name)
        return
    config = run_dir.config()
    study = StudyDir(run_dir.path.parent)
    programs = kept_programs(study)
    with Attempt.start(run_dir, "train") as attempt, stop_asked_by_signal() as asked, programs:
        _train(config, attempt, asked)


def _train(run: RunConfig, attempt: Attempt, stop_asked: threading.Event) -> None:
    started = time.monotonic()
    device = configure_tensorflow(run.arm.train)
    images = load_training_images(run, StudyDir(attempt.run.path.parent).checked(socket.gethostname()))
    net = build_net(run.arm, run.data.image_size, layer_seeds(run.key("initialisation")))
    optimizer = build_optimizer(run.arm.train, net)
    variables = [*net.variables, *optimizer.variables]
    first = restore_newest(attempt.run, variables, run.identity)
    if first is None:
        first = first_state(run, attempt.run, net, optimizer)
        if run.arm.fork is None:  # so that there is a last good state whatever happens; a fork's is its start
            save_checkpoint(attempt, variables, first)
    logger.info("%s starts at step %d on %s", run.name, first.step, device.name)
    nonfinite_step = None
    begun = time.monotonic()
    try:
        progress = _fit(run, attempt, stop_asked, device, images, net, optimizer, first)
    except NonFiniteError as error:
        logger.warning("%s: %s; the last good state is kept", run.name, error)
        nonfinite_step = error.step
        # The state is that of the checkpoint, but what the radius did until then is known.
        progress = (restore_newest(attempt.run, variables, run.identity) or first).model_copy(
            update={"probe": error.probe}
        )
    seconds_of_epochs = time.monotonic() - begun
    publish_record(attempt, progress)
    latents_sha256 = {}
    if run.arm.fork is None:  # what becomes of a fork is told by its probe
        latents_sha256 = write_latents(attempt.path / "latents", run, net, images, attempt.still_alive)
        attempt.publish(attempt.path / "latents", attempt.run.latents)
        if run.arm.train.tensorboard:
            write_projector(attempt, run, images)
    epochs_here = (progress.step - first.step) / run.steps_per_epoch
    record = TrainedRecord(
        run=run.name,
        step=progress.step,
        epochs=len(progress.epochs),
        state_sha256=state_hash(state_arrays(variables), progress.step),
        latents_sha256=latents_sha256,
        files_sha256=attempt.run.hashes_of_record(),
        identity=run.identity,
        nonfinite_step=nonfinite_step,
        num_attempts=attempt.number,
        seconds=time.monotonic() - started,
        seconds_per_epoch=seconds_of_epochs / epochs_here if epochs_here else float("nan"),
        device=device.name,
        device_kind=device.kind,
        driver=device.driver,
        capability=device.capability,
        precision=run.arm.train.precision,
        tensor_float_32=device.tensor_float_32,
        threads=run.arm.train.threads,
        provenance=provenance(),
    )
    attempt.publish_model(record, attempt.run.trained_path)


def first_state(run: RunConfig, run_dir: RunDir, net: Net, optimizer: keras.optimizers.Optimizer) -> Progress:
    """The state that a run without a checkpoint of its own starts from: its seed's weights, an AE's, or a fork's.

    Raises:
        UserError: what it starts from is missing, damaged, or of another net.
    """
    variables = [*net.variables, *optimizer.variables]
    fork, arm = run.arm.fork, run.arm.start_from
    source = Path(fork.checkpoint) if fork is not None and fork.checkpoint is not None else None
    if arm is not None and fork is None:
        source_run = RunDir(run_dir.path.parent / run_name(arm, run.seed))
        if not source_run.trained_path.exists():
            raise UserError(f"{run.name} starts from the weights of {source_run.name}, which is not trained yet")
        source = trained_checkpoint(source_run)
    start = Progress(identity=run.identity)
    if source is None:  # a fork of the start, too: its keys are those of the run that it replays
        return start
    try:
        if fork is None:
            restore_weights(source, net.variables)
            return start
        progress = restore_checkpoint(source, variables)
    except UserError as error:
        raise UserError(f"{run.name} cannot start from {source}: {error}") from error
    if progress.step != fork.step:
        raise UserError(f"{run.name} starts after {fork.step} steps, and {source} is a state after {progress.step}")
    if fork.fresh_moments:
        forget_moments(optimizer)
    return progress.model_copy(update={"identity": run.identity})


def trained_checkpoint(run: RunDir) -> Path:
    """The checkpoint with the weights that a training ended with; UserError if it is not there any more."""
    checkpoints, wanted = run.checkpoint_dirs(), run.trained().state_sha256
    for path in reversed(checkpoints):
        if read_model(path / "checkpoint.json", Checkpoint).state_sha256 == wanted:
            return path
    raise UserError(f"{run.path} has no checkpoint of its trained weights any more, from which others start")


def _fit(
    run: RunConfig,
    attempt: Attempt,
    stop_asked: threading.Event,
    device: Device,
    images: Images,
    net: Net,
    optimizer: keras.optimizers.Optimizer,
    first: Progress,
) -> Progress:
    """Go through the blocks: record them, say how far the run is, checkpoint when due, leave when asked to."""
    progress = first
    variables = [*net.variables, *optimizer.variables]
    states: dict[str, object] = {"device": device.name, "driver": device.driver, "start_step": first.step}
    states |= {"tensor_float_32": device.tensor_float_32}
    states |= {"start_sha256": state_hash(state_arrays(variables), first.step)}
    begun = time.monotonic()
    kept_epochs = range(0, run.arm.train.epochs + 1, run.arm.train.keep_every_epochs)
    kept_steps = [] if run.arm.fork else [epoch * run.steps_per_epoch for epoch in kept_epochs]
    names = signal_names(run.arm, net)
    with (
        FlightRecorder(attempt, run, variables, names, first) as recorder,
        CheckpointWriter(
            attempt, variables, kept_steps, device.kind == "gpu", functools.partial(publish_record, attempt)
        ) as writer,
    ):
        rows = read_steps(attempt.run.steps, steps_schema(run, names))
        board = Board(attempt, first, rows) if run.arm.train.tensorboard else None
        for block in train_blocks(run, images, net, optimizer, first):
            progress = block.progress
            recorder.record(block)
            stopping = attempt.run.stop.exists() or stop_asked.is_set()
            epoch_ended = progress.step % run.steps_per_epoch == 0
            leaving = stopping or progress.step == run.num_steps
            if epoch_ended:
                require_finite(variables, progress)
            if leaving or progress.step in kept_steps or writer.is_due(epoch_ended, run.arm.train.checkpoint_seconds):
                writer.save(progress)
            if leaving:
                writer.finish()
            newest = writer.newest
            if attempt.is_silent or newest.get("checkpoint_step") != states.get("checkpoint_step"):
                states |= newest
                attempt.beat(
                    step=progress.step,
                    num_steps=run.num_steps,
                    epoch=len(progress.epochs),
                    steps_per_second=(progress.step - first.step) / (time.monotonic() - begun),
                    reconstruction_loss=progress.epochs[-1].reconstruction_loss if progress.epochs else None,
                    radius_median=progress.probe[-1].radius_median if progress.probe else None,
                    **states,
                )
            if board is not None:
                board.write_block(block)
                if epoch_ended:
                    write_reconstructions(attempt, net, images, progress.step)
            if epoch_ended:
                logger.info("%s epoch %d: %s", run.name, len(progress.epochs), progress.epochs[-1].model_dump_json())
            if stopping and progress.step < run.num_steps:
                raise StoppedError(f"{run.name} was asked to stop and left at step {progress.step}")
    return progress


@contextlib.contextmanager
def stop_asked_by_signal() -> Iterator[threading.Event]:
    """An event that SIGUSR1 and SIGUSR2 set, and SIGTERM where nobody else listens to it."""
    asked = threading.Event()
    numbers = [signal.SIGUSR1, signal.SIGUSR2]
    if signal.getsignal(signal.SIGTERM) == signal.SIG_DFL:
        numbers.append(signal.SIGTERM)
    before = {number: signal.signal(number, lambda *_: asked.set()) for number in numbers}
    try:
        yield asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
