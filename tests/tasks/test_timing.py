"""What a run costs, as it is measured before the runs."""

import numpy as np
import numpy.typing as npt
import pytest

from tests.examples import run_config
from vaehpc.schema.config import DataConfig
from vaehpc.tasks import timing


def test_steps_are_timed_from_when_the_others_are_ready_too(faces: DataConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    run, happened = run_config(data=faces), list[int | str]()

    class Block:
        def feed(self, order: npt.NDArray[np.int64]) -> None:
            happened.append(len(order) // run.arm.train.batch_size)

        def __call__(self, _: int, num_steps: int) -> None:
            assert happened[-1] == num_steps

    monkeypatch.setattr(timing, "training_block", lambda *_, **__: Block())
    timing.timed(run, 0.01, lambda: happened.append("ready"))
    assert happened[:4] == [1, "ready", 2, 4]  # twice as many until they take long enough to be timed
