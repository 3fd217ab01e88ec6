"""A process that imports what a training imports, builds the article's VAE, trains one step, and ends."""

from __future__ import annotations

import vaehpc  # isort: skip  # noqa: F401  # before TensorFlow, so that oneDNN is on

import numpy as np

from tests.benchmarks.article import article_run
from tests.benchmarks.net import BATCH, SIZE
from tests.benchmarks.stepping import built, stepper
from vaehpc.tasks.train import configure_tensorflow


def main() -> None:
    """From the start to the first step's signals."""
    configure_tensorflow(1)
    run = article_run(BATCH)
    stepper(run, built(run), np.zeros((BATCH, SIZE, SIZE, 3), np.uint8))(1)


if __name__ == "__main__":
    main()
