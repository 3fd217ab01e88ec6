"""What signals, probe, epoch-end evaluation and checkpoints cost, as shares of the training step.

CPU seconds of this process, on one thread. A whole step varies by more than its signals cost; their
share is therefore measured around Adam's step alone, and that of whole steps with and without them is shown beside it.
"""

from __future__ import annotations

import vaehpc  # isort: skip  # noqa: F401  # before TensorFlow, so that oneDNN is on

import argparse
import statistics
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import tensorflow as tf

from tests.benchmarks.article import article_run
from tests.benchmarks.measure import Row, Work, cpu_seconds, finish, in_turns, median_interval
from tests.benchmarks.stepping import built, stepper
from tests.examples import run_config
from vaehpc.schema.config import RunConfig
from vaehpc.study.attempts import Attempt
from vaehpc.study.files import RunDir
from vaehpc.tasks.train import configure_tensorflow
from vaehpc.training.checkpoint import Progress, save_checkpoint
from vaehpc.training.encode import compiled_encoder
from vaehpc.training.recorder import Snapshot
from vaehpc.training.signals import WeightWatcher, image_signals, vae_signals

ARTICLE = "article, 96 x 96, batch 128"
NUM_IMAGES = 1024
ARTICLE_STEPS = 1329
"""Steps of an epoch of the article, after which 20,000 images are evaluated and a checkpoint is written."""
LIMITS = {"signals": ("3 %", "1.5 %"), "probe": ("1.5 %", "0.75 %"), "epoch end": ("2.5 %", "1.25 %")}
"""At most, and what is aimed at."""


def adam_step(run: RunConfig, recorded: bool) -> Callable[[], object]:
    """A function that does one step of Adam with gradients of no meaning, and the signals around it or not."""
    net, optimizer = built(run)
    watcher, random = WeightWatcher(net, optimizer), np.random.default_rng(0)
    weights = net.trainable_variables
    gradients = [tf.constant(random.normal(size=weight.shape).astype(np.float32)) for weight in weights]
    shape = (run.arm.train.batch_size, run.arm.model.z_dim)
    mu, log_var, epsilon = (tf.constant(random.normal(size=shape).astype(np.float32)) for _ in range(3))

    @tf.function
    def step(gradients: list[tf.Tensor], mu: tf.Tensor, log_var: tf.Tensor, epsilon: tf.Tensor) -> tf.Tensor:
        loss_scale = watcher.loss_scale()
        optimizer.apply(gradients, weights)
        if not recorded:
            return loss_scale
        of_images = image_signals(mu, mu[:, 0]) + vae_signals(mu, log_var, epsilon)
        return tf.stack([*of_images, *watcher.signals(gradients, loss_scale)])

    return lambda: step(gradients, mu, log_var, epsilon).numpy()


def differences(recorded: Work, plain: Work, num_pairs: int) -> tuple[list[float], list[float]]:
    """CPU seconds that the recorded work takes more than the plain, pair by pair; and those of the plain."""
    pairs = in_turns(recorded, plain, num_pairs)
    return [more - alone for more, alone in pairs], [alone for _, alone in pairs]


def measured(name: str, run: RunConfig, num_steps: int, num_pairs: int) -> list[Row]:
    """The shares."""
    size, batch_size = run.data.image_size, run.arm.train.batch_size
    images = np.random.default_rng(0).integers(256, size=(NUM_IMAGES, size, size, 3)).astype(np.uint8)
    nets = {recorded: built(run) for recorded in (True, False)}
    trained = {recorded: stepper(run, net, images, recorded) for recorded, net in nets.items()}
    for train in trained.values():
        train(num_steps)
    more, plain = differences(lambda: trained[True](num_steps), lambda: trained[False](num_steps), num_pairs)
    step = statistics.median(plain) / num_steps
    adam = {recorded: adam_step(run, recorded) for recorded in (True, False)}
    for work in adam.values():
        work()
        work()
    signals, _ = differences(adam[True], adam[False], 4 * num_pairs)
    net, optimizer = nets[True]
    encode = compiled_encoder(net, batch_size)
    encode(images, batch_size)
    per_image = [cpu_seconds(lambda: encode(images, 256)) / 256 for _ in range(num_pairs)]
    variables = [*net.variables, *optimizer.variables]
    with tempfile.TemporaryDirectory() as folder:
        (path := Path(folder) / run.name).mkdir()
        attempt = Attempt.start(RunDir(path), "train")
        saves = [
            cpu_seconds(lambda number=number: save_checkpoint(attempt, variables, Progress(step=number)))
            for number in range(num_pairs)
        ]
    copies = [cpu_seconds(lambda: Snapshot(variables, Progress())) for _ in range(num_pairs)]
    scaled = {
        "signals": [cost / step for cost in signals],
        "whole steps with and without": [cost / alone for cost, alone in zip(more, plain, strict=True)],
        "probe": [512 * cost / (50 * step) for cost in per_image],
        "epoch end": [20_000 * cost / (ARTICLE_STEPS * step) for cost in per_image],
        "checkpoint": [cost / (ARTICLE_STEPS * step) for cost in saves],
        "snapshot": [cost / (100 * step) for cost in copies],
    }
    rows = []
    for cost, values in scaled.items():
        at_most, aim = LIMITS.get(cost, ("", "")) if name == ARTICLE else ("", "")
        rows.append(
            Row(f"record, {name}", cost, *median_interval(values), "%", at_most, aim, f"step {1e3 * step:.0f} ms")
        )
    return rows


def main() -> None:
    """Measure and show."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer and shorter pairs, and the article alone")
    parser.add_argument("json", nargs="?", help="leave the rows here too")
    quick = parser.parse_args().quick
    pairs = 3 if quick else 40
    configure_tensorflow(1)
    demo = run_config(
        "vae",
        image_size=48,
        num_train=NUM_IMAGES,
        model={"z_dim": 64, "filters": (8, 16, 32, 64)},
        train={"batch_size": 32},
    )
    rows = measured(ARTICLE, article_run(NUM_IMAGES), 1 if quick else 2, pairs)
    if not quick:
        rows += measured("demo, 48 x 48, batch 32", demo, 40, pairs)
    finish(rows, "What the record costs, shares of the training step's CPU time")


if __name__ == "__main__":
    main()
