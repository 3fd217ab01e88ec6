"""What is done while strace looks on. The phases are marked by asking for paths that nobody has."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from vaehpc.study.attempts import Attempt, all_attempts
from vaehpc.study.files import RunDir

MARKS = Path("/benchmark-phase")


def mark(phase: str) -> None:
    """What follows, up to the next mark, belongs to this phase."""
    os.path.lexists(MARKS / phase)


def trained(directory: str) -> None:
    """Train a run, then give one more sign of life."""
    from vaehpc.tasks import train

    unmarked = train.train_blocks

    def marked(run: Any, *others: Any) -> Iterator[Any]:
        for block in unmarked(run, *others):
            # The caller writes what the block added, then comes back for the next one.
            mark("block" if block.progress.step % run.steps_per_epoch else "epoch end")
            yield block
        mark("end")

    train.train_blocks = marked  # type: ignore[assignment]
    mark("start")
    train.run(directory)
    mark("between")
    attempt: Attempt = all_attempts(RunDir(Path(directory)))[-1]
    mark("heartbeat")
    attempt.beat(step=1)
    mark("between")


def measured(directory: str) -> None:
    """Measure the latents of a run."""
    from vaehpc.tasks import statistics

    mark("statistics")
    statistics.run(directory)
