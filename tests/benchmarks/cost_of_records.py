"""What signals, probe, epoch-end evaluation and checkpoints cost, as shares of the training step.

`make bench` runs it. CPU seconds of this process, on one thread; what is compared takes turns, and differences are
taken pair by pair, so that a busy machine disturbs both alike. A whole step varies by more than its signals cost; their
share is therefore measured around Adam's step alone, and that of whole steps with and without them is shown beside it.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf
from rich.console import Console
from rich.table import Table
from scipy.stats import binom

from tests.examples import run_config
from vaehpc.config import ModelConfig, RunConfig, TrainConfig
from vaehpc.files import Attempt, RunDir
from vaehpc.tasks.train import configure_tensorflow
from vaehpc.training.checkpoint import Progress, save_checkpoint
from vaehpc.training.encode import compiled_encoder
from vaehpc.training.fit import Block, build_optimizer, compiled_block
from vaehpc.training.models import Net, build_net, layer_seeds
from vaehpc.training.pipeline import batches
from vaehpc.training.recorder import Snapshot
from vaehpc.training.signals import WeightWatcher, image_signals, vae_signals

NUM_IMAGES = 1024
ARTICLE_STEPS = 1329
"""Steps of an epoch of the article, after which 20,000 images are evaluated and a checkpoint is written."""
LIMITS = {"signals": 0.03, "probe": 0.015, "epoch end": 0.025}


@dataclass(frozen=True)
class Share:
    """A cost as a share of the step: median of what was measured, and the median's 95 % interval."""

    name: str
    median: float
    low: float
    high: float


def cpu_seconds(work: Callable[[], object]) -> float:
    """CPU time of this process for one call."""
    begun = time.process_time()
    work()
    return time.process_time() - begun


def median_interval(values: list[float]) -> tuple[float, float, float]:
    """Median and the limits of its 95 % interval, which are two of the values: the sign test's, whatever their law."""
    ordered = sorted(values)
    rank = int(binom.ppf(0.025, len(values), 0.5))
    return statistics.median(values), ordered[rank - 1], ordered[-rank]


def built(run: RunConfig) -> tuple[Net, keras.optimizers.Optimizer]:
    """A net and its optimizer."""
    net = build_net(run.arm, run.data.image_size, layer_seeds(run.key("initialisation")))
    return net, build_optimizer(run.arm.train, net)


def stepper(block: Block, images: np.ndarray, batch_size: int) -> Callable[[int], object]:
    """A function that trains so many more steps."""
    iterator = iter(batches(images, np.tile(np.arange(len(images)), 1000), batch_size))
    done = 0

    def train(num_steps: int) -> object:
        nonlocal done
        results = block(iterator, tf.constant(done, tf.int64), tf.constant(num_steps, tf.int64)).numpy()
        done += num_steps
        return results

    return train


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
        before, loss_scale = watcher.weights() if recorded else [], watcher.loss_scale()
        optimizer.apply(gradients, weights)
        if not recorded:
            return loss_scale
        of_images = image_signals(mu, mu[:, 0]) + vae_signals(mu, log_var, epsilon)
        return tf.stack([*of_images, *watcher.signals(gradients, before, loss_scale)])

    return lambda: step(gradients, mu, log_var, epsilon).numpy()


def differences(
    recorded: Callable[[], object], plain: Callable[[], object], num_pairs: int
) -> tuple[list[float], list[float]]:
    """CPU seconds that the recorded work takes more than the plain, pair by pair; and those of the plain."""
    more, alone = [], []
    for pair in range(num_pairs):
        first, second = (recorded, plain) if pair % 2 else (plain, recorded)
        took = {first: cpu_seconds(first), second: cpu_seconds(second)}
        more.append(took[recorded] - took[plain])
        alone.append(took[plain])
    return more, alone


def measured(run: RunConfig, num_steps: int, num_pairs: int) -> tuple[float, list[Share]]:
    """CPU seconds of a step, and the shares."""
    size, batch_size = run.data.image_size, run.arm.train.batch_size
    images = np.random.default_rng(0).integers(256, size=(NUM_IMAGES, size, size, 3)).astype(np.uint8)
    nets = {recorded: built(run) for recorded in (True, False)}
    trained = {
        recorded: stepper(compiled_block(run, *net, recorded=recorded), images, batch_size)
        for recorded, net in nets.items()
    }
    for train in trained.values():
        train(1)
        train(2)
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
    per_image = [cpu_seconds(lambda: encode(images, 512)) / 512 for _ in range(num_pairs)]
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
    return step, [Share(name, *median_interval(values)) for name, values in scaled.items()]


def main() -> None:
    """Measure, print a table, write a JSON file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer pairs")
    parser.add_argument("--json", type=Path, help="write the figures here too")
    arguments = parser.parse_args()
    configure_tensorflow(1)
    article = run_config("vae", image_size=96, num_train=NUM_IMAGES)
    article = article.model_copy(
        update={"arm": article.arm.model_copy(update={"model": ModelConfig(), "train": TrainConfig()})}
    )
    demo = run_config(
        "vae",
        image_size=48,
        num_train=NUM_IMAGES,
        model={"z_dim": 64, "filters": (8, 16, 32, 64)},
        train={"batch_size": 32},
    )
    pairs = 8 if arguments.quick else 40
    columns = ("net", "cost", "share of the step", "95 % interval", "wanted")
    table = Table(*columns, title="What the record costs, CPU time")
    figures = {}
    for name, run, num_steps in (("article, 96 x 96, batch 128", article, 2), ("demo, 48 x 48, batch 32", demo, 40)):
        step, shares = measured(run, num_steps, pairs)
        figures[name] = {"step_seconds": step} | {share.name: share.median for share in shares}
        table.add_row(name, "a step", f"{1e3 * step:.0f} ms")
        for share in shares:
            wanted = f"at most {LIMITS[share.name]:.1%}" if share.name in LIMITS else ""
            table.add_row("", share.name, f"{share.median:.2%}", f"{share.low:.2%} to {share.high:.2%}", wanted)
    Console().print(table)
    if arguments.json:
        arguments.json.write_text(json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    main()
