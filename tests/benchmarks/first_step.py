"""A process that imports what a training imports, builds the article's VAE, trains one step, and ends."""

from __future__ import annotations

import vaehpc  # isort: skip  # noqa: F401  # before TensorFlow, so that oneDNN is on

import numpy as np
import tensorflow as tf

from tests.benchmarks.net import BATCH, SIZE
from tests.examples import run_config
from vaehpc.config import ModelConfig, TrainConfig
from vaehpc.tasks.train import configure_tensorflow
from vaehpc.training.fit import build_optimizer, compiled_block
from vaehpc.training.models import build_net, layer_seeds
from vaehpc.training.pipeline import batches


def main() -> None:
    """From the start to the first step's signals."""
    configure_tensorflow(1)
    run = run_config("vae", image_size=SIZE, num_train=BATCH)
    run = run.model_copy(update={"arm": run.arm.model_copy(update={"model": ModelConfig(), "train": TrainConfig()})})
    net = build_net(run.arm, SIZE, layer_seeds(run.key("initialisation")))
    block = compiled_block(run, net, build_optimizer(run.arm.train, net))
    images = np.zeros((BATCH, SIZE, SIZE, 3), np.uint8)
    block(iter(batches(images, np.arange(BATCH), BATCH)), tf.constant(0, tf.int64), tf.constant(1, tf.int64)).numpy()


if __name__ == "__main__":
    main()
