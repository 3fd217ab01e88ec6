"""Tasks in processes of their own, forked from one that has TensorFlow imported, and what of them is alive."""

from __future__ import annotations

import json
import os
import pickle
import signal
import time
from collections.abc import Callable, Sequence
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import pytest

from vaehpc.local.starting import started
from vaehpc.machine.processes import process_stat

THREADS = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
TIMEOUT = 120.0


class Running:
    """A call in a process of its own; what it says is dropped, as attempts keep logs of their own."""

    def __init__(self, work: Callable[..., None], *arguments: object) -> None:
        self.process: BaseProcess = started(_silently, work, *arguments, environment=THREADS)

    def signal(self, number: signal.Signals) -> None:
        assert self.process.pid is not None
        os.kill(self.process.pid, number)

    def wait_for(self, found: Callable[[], object], seconds: float = TIMEOUT) -> None:
        """Until it is found; it must not have ended before."""
        give_up = time.monotonic() + seconds
        while not found():
            assert self.process.exitcode is None, f"ended with {self.process.exitcode}"
            assert time.monotonic() < give_up, "not found in time"
            time.sleep(0.005)

    def ended(self, seconds: float = TIMEOUT) -> int:
        """Its exit status; negative: the signal that ended it. After the time limit it is killed."""
        self.process.join(seconds)
        if self.process.exitcode is None:
            self.process.kill()
            raise AssertionError(f"not ended within {seconds:g} s")
        return self.process.exitcode


def _silently(work: Callable[..., None], *arguments: object) -> None:
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.dup2(nowhere, 2)
    work(*arguments)


def without_workers(patch: pytest.MonkeyPatch) -> None:
    """Shards are made in this process, which has TensorFlow imported; each worker would import it anew."""

    def in_turn(function: Callable[[Any], Any], jobs: Sequence[Any], _: int, on_done: Callable[[Any], None]) -> None:
        for job in jobs:
            on_done(function(pickle.loads(pickle.dumps(job))))

    patch.setattr("vaehpc.tasks.shards.run_in_workers", in_turn)


def pid_of(record: Path) -> int:
    """The process of an attempt's start.json."""
    return int(json.loads(record.read_text())["pid"])


def is_alive(pid: int) -> bool:
    """Whether there is such a process, and it is no zombie."""
    stat = process_stat(pid)
    return stat is not None and stat[0] != "Z"
