"""The article's VAE as a run of this package, for all who train it or count what that takes."""

from __future__ import annotations

from tests.benchmarks.net import SIZE
from tests.examples import run_config
from vaehpc.schema.config import DataConfig, ModelConfig, Precision, RunConfig, TrainConfig

CELEBA_TRAIN = 162_770
"""Images of its training split."""


def article_run(
    num_train: int = CELEBA_TRAIN, data: DataConfig | None = None, precision: Precision = "float32"
) -> RunConfig:
    """A run on so many images that need not exist, or on prepared data."""
    run = run_config("vae", image_size=SIZE, num_train=num_train, data=data)
    arm = run.arm.model_copy(update={"model": ModelConfig(), "train": TrainConfig(precision=precision)})
    return run.model_copy(update={"arm": arm})
