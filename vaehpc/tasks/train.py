"""Train one run: read run.json and the data set it names, write checkpoints, history and latents, then trained.json."""

from __future__ import annotations

import logging
import platform
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import keras
import tensorflow as tf

from vaehpc.config import RunConfig
from vaehpc.files import Attempt, RunDir, StoppedError
from vaehpc.provenance import provenance
from vaehpc.results import TrainedRecord
from vaehpc.training.checkpoint import (
    NonFiniteError,
    Progress,
    restore_checkpoint,
    save_checkpoint,
    state_arrays,
    state_hash,
)
from vaehpc.training.encode import write_latents
from vaehpc.training.fit import build_optimizer, train_blocks
from vaehpc.training.models import build_net, layer_seeds
from vaehpc.training.pipeline import load_training_images
from vaehpc.training.recorder import publish_record

logger = logging.getLogger(__name__)


def run(directory: str) -> None:
    """Train the run in this directory from its newest checkpoint, unless it is trained already.

    Leaves without publishing where a newer attempt exists, and after a checkpoint where the file `stop` appears.

    Raises:
        UserError: the data set is missing, damaged or another one, or the disk is full.
    """
    run_dir = RunDir(Path(directory))
    if run_dir.trained_path.exists():
        logger.info("%s is trained already", run_dir.name)
        return
    config = run_dir.config()
    with Attempt.start(run_dir, "train") as attempt:
        _train(config, attempt)


def _train(run: RunConfig, attempt: Attempt) -> None:
    started = time.monotonic()
    device = configure_tensorflow(run.arm.train.threads)
    images = load_training_images(run)
    net = build_net(run.arm, run.data.image_size, layer_seeds(run.key("initialisation")))
    optimizer = build_optimizer(run.arm.train, net)
    variables = [*net.variables, *optimizer.variables]
    first = restore_checkpoint(attempt.run, variables)
    logger.info("%s starts at step %d on %s", run.name, first.step, device)
    if first.step == 0:
        save_checkpoint(attempt, variables, first)  # so that there is a last good state whatever happens
    nonfinite_step = None
    begun = time.monotonic()
    try:
        progress = _fit(run, attempt, train_blocks(run, images, net, optimizer, first), variables, first)
    except NonFiniteError as error:
        logger.warning("%s: %s; the last good state is kept", run.name, error)
        nonfinite_step = error.step
        progress = restore_checkpoint(attempt.run, variables)
    seconds_of_epochs = time.monotonic() - begun
    publish_record(attempt, progress)
    latents_sha256 = write_latents(attempt.path / "latents", run, net, images)
    attempt.publish(attempt.path / "latents", attempt.run.latents)
    epochs_here = (progress.step - first.step) / run.steps_per_epoch
    record = TrainedRecord(
        run=run.name,
        step=progress.step,
        epochs=len(progress.epochs),
        state_sha256=state_hash(state_arrays(variables), progress.step),
        latents_sha256=latents_sha256,
        nonfinite_step=nonfinite_step,
        num_attempts=attempt.number,
        seconds=time.monotonic() - started,
        seconds_per_epoch=seconds_of_epochs / epochs_here if epochs_here else float("nan"),
        device=device,
        threads=run.arm.train.threads,
        provenance=provenance(),
    )
    attempt.publish_model(record, attempt.run.trained_path)


def _fit(
    run: RunConfig,
    attempt: Attempt,
    blocks: Iterator[Progress],
    variables: Sequence[keras.Variable],
    progress: Progress,
) -> Progress:
    """Go through the blocks: say how far the run is, checkpoint when due, leave when asked to."""
    num_steps = run.arm.train.epochs * run.steps_per_epoch
    begun, saved = time.monotonic(), time.monotonic()
    first_step = progress.step
    for progress in blocks:
        attempt.require_newest()
        stopping = attempt.run.stop.exists()
        epoch_ended = progress.step % run.steps_per_epoch == 0
        if epoch_ended or stopping or time.monotonic() - saved > 60 * run.arm.train.checkpoint_minutes:
            save_checkpoint(attempt, variables, progress)
            publish_record(attempt, progress)
            saved = time.monotonic()
        attempt.beat(
            step=progress.step,
            num_steps=num_steps,
            epoch=len(progress.epochs),
            steps_per_second=(progress.step - first_step) / (time.monotonic() - begun),
            reconstruction_loss=progress.epochs[-1].reconstruction_loss if progress.epochs else None,
            radius_median=progress.probe[-1].radius_median if progress.probe else None,
        )
        if epoch_ended:
            logger.info("%s epoch %d: %s", run.name, len(progress.epochs), progress.epochs[-1].model_dump_json())
        if stopping:
            raise StoppedError(f"{run.name} was asked to stop and left at step {progress.step}")
    return progress


def configure_tensorflow(threads: int) -> str:
    """Thread counts, GPU memory growth and determinism of this process; its device in words.

    On a CPU only one thread repeats to the bit, whatever TensorFlow's determinism switch says.
    """
    if gpus := tf.config.list_physical_devices("GPU"):
        for gpu in gpus:
            tf.config.experimental.set_memory_growth(gpu, True)
        tf.config.experimental.enable_op_determinism()
        return str(tf.config.experimental.get_device_details(gpus[0])["device_name"])
    if tf.config.threading.get_intra_op_parallelism_threads() != threads:  # refused once TensorFlow has started
        tf.config.threading.set_intra_op_parallelism_threads(threads)
        tf.config.threading.set_inter_op_parallelism_threads(threads)
    return cpu_model()


def cpu_model() -> str:
    """The processor's name, which bitwise equality depends on."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()
