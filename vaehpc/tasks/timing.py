"""Train an arm for a short time, and say what one of its runs costs on this device. Nothing is kept."""

from __future__ import annotations

import re
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import tensorflow as tf

from vaehpc.schema.config import RunConfig
from vaehpc.schema.results import Timing
from vaehpc.study.attempts import Attempt
from vaehpc.study.files import RunDir
from vaehpc.study.states import Progress
from vaehpc.tasks.train import configure_tensorflow
from vaehpc.training.checkpoint import save_checkpoint
from vaehpc.training.encode import compiled_encoder, write_latents
from vaehpc.training.fit import build_optimizer, compiled_block
from vaehpc.training.models import build_net, layer_seeds
from vaehpc.training.pipeline import epoch_order, feeding, load_training_images, memory_of_gpu, resident_images

NUM_ENCODED = 512
"""Images whose latents are timed."""


def timed(run: RunConfig, seconds: float) -> Timing:
    """Time the parts of a training: the start, steps as they are recorded, latents, a checkpoint, pictures.

    Args:
        run: its data must be there.
        seconds: how long to train, after the start.

    Raises:
        UserError: the data set is missing, damaged, or another one.
    """
    begun = time.perf_counter()
    device = configure_tensorflow(run.arm.train.threads)
    images = load_training_images(run)
    net = build_net(run.arm, run.data.image_size, layer_seeds(run.key("initialisation")))
    optimizer = build_optimizer(run.arm.train, net)
    resident = resident_images(images, memory_of_gpu())
    block = compiled_block(run, net, optimizer, resident=resident)
    batch_size = run.arm.train.batch_size
    encode = compiled_encoder(net, batch_size)
    iterator = iter(feeding(images, resident, epoch_order(run, 0), batch_size).repeat())

    def seconds_of(num_steps: int) -> float:
        return _seconds(lambda: np.asarray(block(iterator, tf.constant(0, tf.int64), tf.constant(num_steps, tf.int64))))

    seconds_of(1)
    encode(images, min(batch_size, len(images)))
    started = time.perf_counter() - begun
    num_steps, took = 1, 0.0
    while took < seconds / 2:
        num_steps *= 2
        took = seconds_of(num_steps)
    num_encoded = min(NUM_ENCODED, len(images))
    with tempfile.TemporaryDirectory() as folder:
        (path := Path(folder) / run.name).mkdir()
        attempt = Attempt.start(RunDir(path), "train")
        checkpoint = _seconds(lambda: save_checkpoint(attempt, [*net.variables, *optimizer.variables], Progress()))
        first = images[:num_encoded]
        of_image = _seconds(lambda: encode(first, len(first))) / len(first)
        latents = _seconds(lambda: write_latents(attempt.path / "latents", run, net, first, attempt.still_alive))
    return Timing(
        run=run.name,
        device=device.name,
        start_seconds=started,
        step_seconds=took / num_steps,
        image_seconds=of_image,
        checkpoint_seconds=checkpoint,
        end_seconds=max(0.0, latents - len(first) * of_image),
        memory_bytes=own_memory(),
    )


def _seconds(work: Callable[[], object]) -> float:
    begun = time.perf_counter()
    work()
    return time.perf_counter() - begun


def own_memory() -> int:
    """Bytes that this process holds for itself, without files that it has mapped."""
    status = Path("/proc/self/status").read_text()
    found = re.search(r"^RssAnon:\s+(\d+) kB", status, re.MULTILINE)
    assert found is not None
    return 1024 * int(found.group(1))
