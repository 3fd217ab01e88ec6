"""What signals, probe, epoch-end evaluation and checkpoints cost, as shares of the article's training step.

CPU seconds of this process, on one thread.
"""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from tests.benchmarks.article import article_run, built, stepper
from tests.benchmarks.measure import Row, cpu_seconds, in_turns, median_interval
from tests.benchmarks.net import SIZE
from vaehpc.schema.config import TrainConfig
from vaehpc.study.attempts import Attempt
from vaehpc.study.files import RunDir
from vaehpc.tasks.device import configure_tensorflow
from vaehpc.training.checkpoint import Progress, save_checkpoint
from vaehpc.training.encode import compiled_encoder

NUM_IMAGES = 1024
NUM_ENCODED = 256


def rows(quick: bool) -> Iterator[Row]:
    """The shares."""
    num_steps, num_pairs = (1, 3) if quick else (2, 40)
    configure_tensorflow(TrainConfig())
    run = article_run()
    images = np.random.default_rng(0).integers(256, size=(NUM_IMAGES, SIZE, SIZE, 3)).astype(np.uint8)
    recording, plain = built(run), built(run)
    train_recording = stepper(run, recording, images, recorded=True)
    train_plain = stepper(run, plain, images, recorded=False)
    train_recording(num_steps)
    train_plain(num_steps)
    pairs = in_turns(lambda: train_recording(num_steps), lambda: train_plain(num_steps), num_pairs)
    step = statistics.median(without for _, without in pairs) / num_steps

    def share(cost: str, values: list[float], at_most: str, aim: str) -> Row:
        return Row("record", cost, *median_interval(values), "%", at_most, aim, f"step {1e3 * step:.0f} ms")

    yield share("whole steps with and without", [recorded / without - 1 for recorded, without in pairs], "3 %", "1.5 %")
    net, optimizer = recording
    encode = compiled_encoder(net, run.arm.train.batch_size)
    encode(images, run.arm.train.batch_size)
    per_image = [cpu_seconds(lambda: encode(images, NUM_ENCODED)) / NUM_ENCODED for _ in range(num_pairs)]
    probe, epoch = run.plan.probe, run.steps_per_epoch * step
    probed = [probe.num_images * cost / (probe.every_steps * step) for cost in per_image]
    yield share("probe", probed, "1.5 %", "0.75 %")
    yield share("epoch end", [run.arm.train.eval_images * cost / epoch for cost in per_image], "2.5 %", "1.25 %")
    variables = [*net.variables, *optimizer.variables]
    with tempfile.TemporaryDirectory() as folder:
        (path := Path(folder) / run.name).mkdir()
        attempt = Attempt.start(RunDir(path), "train")
        saves = [
            cpu_seconds(lambda number=number: save_checkpoint(attempt, variables, Progress(step=number)))
            for number in range(num_pairs)
        ]
    yield share("checkpoint", [cost / epoch for cost in saves], "3 %", "0")
