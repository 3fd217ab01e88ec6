"""What a training's start takes: a process with the imports of a task, made as a task makes them, trains one step."""

from __future__ import annotations

import sys
import time
from pathlib import Path

from vaehpc.local.starting import task_module
from vaehpc.study.files import StudyDir


def main() -> None:
    """Print the time at the first step's signals; XLA's programs are kept in the folder that is named."""
    task_module("vaehpc.tasks.train")
    # After the task's, for these import TensorFlow and Keras, too.
    import numpy as np

    from tests.benchmarks.article import article_run, built, stepper
    from tests.benchmarks.net import BATCH, SIZE
    from vaehpc.schema.config import TrainConfig
    from vaehpc.tasks.device import configure_tensorflow, kept_programs

    with kept_programs(StudyDir(Path(sys.argv[1]))):
        configure_tensorflow(TrainConfig())
        run = article_run(BATCH)
        stepper(run, built(run), np.zeros((BATCH, SIZE, SIZE, 3), np.uint8))(1)
        print(time.time())


if __name__ == "__main__":
    main()
