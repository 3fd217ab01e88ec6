"""Train an arm for a short time, and say what one of its runs costs on this device. Nothing is kept."""

from __future__ import annotations

import re
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from vaehpc.schema.config import RunConfig
from vaehpc.schema.results import Timing
from vaehpc.study.attempts import Attempt
from vaehpc.study.files import RunDir
from vaehpc.study.states import Progress
from vaehpc.tasks.device import configure_tensorflow
from vaehpc.training.checkpoint import save_checkpoint
from vaehpc.training.device import is_compiled, memory_of_gpu
from vaehpc.training.encode import compiled_encoder, write_latents
from vaehpc.training.fit import build_optimizer
from vaehpc.training.models import build_net, layer_seeds
from vaehpc.training.pipeline import epoch_order, load_training_images, resident_images
from vaehpc.training.steps import training_block

NUM_ENCODED = 512
"""Images whose latents are timed."""


SHORT = 1 / 16
"""Blocks that take less of the time become longer, so that few are over when other runs have ended already."""


def timed(run: RunConfig, seconds: float, others: Callable[[], object] = lambda: None) -> Timing:
    """Time the parts of a training: the start, steps as they are recorded, latents, a checkpoint, pictures.

    Args:
        run: its data must be there.
        seconds: how long to train, after the start.
        others: waits for the runs that are measured at the same time, after the start.

    Raises:
        UserError: the data set is missing, damaged, or another one.
    """
    begun = time.perf_counter()
    device = configure_tensorflow(run.arm.train)
    images = load_training_images(run)
    net = build_net(run.arm, run.data.image_size, layer_seeds(run.key("initialisation")))
    optimizer = build_optimizer(run.arm.train, net)
    resident = resident_images(images, memory_of_gpu()) if is_compiled(run.arm.train) else None
    block = training_block(run, images, net, optimizer, resident=resident)
    batch_size = min(run.arm.train.batch_size, len(images))
    encode = compiled_encoder(net, batch_size)
    order = epoch_order(run, 0)

    def seconds_of(num_steps: int) -> float:
        block.feed(np.resize(order, num_steps * batch_size))
        return _seconds(lambda: block(0, num_steps))

    seconds_of(1)
    encode(images, min(batch_size, len(images)))
    started = time.perf_counter() - begun
    others()
    num_steps, took, until = 1, [0.0], time.perf_counter() + seconds
    while time.perf_counter() < until:
        if took[-1] < SHORT * seconds:
            num_steps, took = 2 * num_steps, []
        took.append(seconds_of(num_steps))
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
        step_seconds=sum(took) / len(took) / num_steps,
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
