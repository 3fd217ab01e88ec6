"""The article's run as this package trains it, whole or a few steps at a time, for all who measure it."""

from __future__ import annotations

import vaehpc  # isort: skip  # noqa: F401  # before TensorFlow, so that oneDNN is on

from collections.abc import Callable

import keras
import numpy as np

from tests.benchmarks.net import SIZE
from tests.examples import run_config
from vaehpc.schema.config import DataConfig, ModelConfig, Precision, RunConfig, TrainConfig
from vaehpc.training.fit import build_optimizer
from vaehpc.training.models import Net, build_net, layer_seeds
from vaehpc.training.pipeline import Images
from vaehpc.training.steps import training_block

NUM_TRAIN = 162_770
"""Images of CelebA's training split."""
Trainable = tuple[Net, keras.optimizers.Optimizer]


def article_run(
    num_train: int = NUM_TRAIN, data: DataConfig | None = None, precision: Precision = "float32"
) -> RunConfig:
    """A run on so many images that need not exist, or on prepared data."""
    run = run_config("vae", image_size=SIZE, num_train=num_train, data=data)
    arm = run.arm.model_copy(update={"model": ModelConfig(), "train": TrainConfig(precision=precision)})
    return run.model_copy(update={"arm": arm})


def built(run: RunConfig) -> Trainable:
    """A net and its optimizer as a run starts with them."""
    net = build_net(run.arm, run.data.image_size, layer_seeds(run.key("initialisation")))
    return net, build_optimizer(run.arm.train, net)


def stepper(run: RunConfig, net: Trainable, images: Images, recorded: bool = True) -> Callable[[int], np.ndarray]:
    """A function that trains so many more steps, from images in memory, and returns their signals (steps, signals)."""
    block = training_block(run, images, *net, recorded)
    block.feed(np.tile(np.arange(len(images)), 1000))  # more epochs than anybody trains
    done = 0

    def train(num_steps: int) -> np.ndarray:
        nonlocal done
        signals = block(done, num_steps)
        done += num_steps
        return signals

    return train
