"""Nets as a run starts with them, trained a few steps at a time."""

from __future__ import annotations

import vaehpc  # isort: skip  # noqa: F401  # before TensorFlow, so that oneDNN is on

from collections.abc import Callable

import keras
import numpy as np
import tensorflow as tf

from vaehpc.schema.config import RunConfig
from vaehpc.training.fit import build_optimizer, compiled_block
from vaehpc.training.models import Net, build_net, layer_seeds
from vaehpc.training.pipeline import Images, batches

Trainable = tuple[Net, keras.optimizers.Optimizer]
NUM_EPOCHS = 1000
"""More than anybody trains."""


def built(run: RunConfig) -> Trainable:
    """A net and its optimizer."""
    net = build_net(run.arm, run.data.image_size, layer_seeds(run.key("initialisation")))
    return net, build_optimizer(run.arm.train, net)


def stepper(run: RunConfig, net: Trainable, images: Images, recorded: bool = True) -> Callable[[int], np.ndarray]:
    """A function that trains so many more steps, from images in memory, and returns their signals (steps, signals)."""
    block = compiled_block(run, *net, recorded)
    iterator = iter(batches(images, np.tile(np.arange(len(images)), NUM_EPOCHS), run.arm.train.batch_size))
    done = 0

    def train(num_steps: int) -> np.ndarray:
        nonlocal done
        signals: np.ndarray = block(iterator, tf.constant(done, tf.int64), tf.constant(num_steps, tf.int64)).numpy()
        done += num_steps
        return signals

    return train
