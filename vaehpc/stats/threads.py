"""All processors of a task, without the waiting of libraries' own threads for each other."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from threadpoolctl import threadpool_limits

Item = TypeVar("Item")
Found = TypeVar("Found")


def side_by_side(function: Callable[[Item], Found], items: Iterable[Item]) -> Iterator[Found]:
    """What a function gives for each item, in their order, several at once.

    BLAS and OpenMP keep to one thread meanwhile, so that the results are the same on any number of processors, and a
    busy processor delays its own work only.
    """
    with (
        threadpool_limits(limits=1),
        ThreadPoolExecutor(num_threads(), initializer=threadpool_limits, initargs=(1,)) as pool,
    ):
        yield from pool.map(function, items)


def num_threads() -> int:
    """Threads that this task may use: OMP_NUM_THREADS, else its processors."""
    return int(os.environ.get("OMP_NUM_THREADS") or len(os.sched_getaffinity(0)))
