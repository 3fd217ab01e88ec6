"""Worker processes that compute with one thread each and never outlive the process that started them."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from typing import TypeVar

Job = TypeVar("Job")
Result = TypeVar("Result")

# Read when NumPy and TensorFlow are loaded: one thread per process, because there is one process per core; no greeting
# by each; and not Keras 3, which workers do not need, and which takes a third of the time to load TensorFlow.
ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "TF_CPP_MIN_LOG_LEVEL": "3",
    "TF_USE_LEGACY_KERAS": "1",
}


def run_in_workers(
    function: Callable[[Job], Result], jobs: Sequence[Job], num_workers: int, on_done: Callable[[Result], None]
) -> None:
    """Call `function` on each job in worker processes, and `on_done` here with each result as it comes.

    Whatever is raised, here or in a worker, ends all workers at once and is raised again.

    Raises:
        BrokenProcessPool: a worker was killed.
    """
    if not jobs:
        return
    others = multiprocessing.active_children()
    # Not forked: a child of a process with threads, such as TensorFlow's, may hang.
    context = multiprocessing.get_context("spawn")
    num_workers = min(num_workers, len(jobs))
    with ProcessPoolExecutor(num_workers, mp_context=context, initializer=end_with_parent) as pool:
        try:
            with inherited_by_workers():
                futures = [pool.submit(function, job) for job in jobs]
            for future in as_completed(futures):
                on_done(future.result())
        except BaseException:
            for process in multiprocessing.active_children():
                if process not in others:
                    process.terminate()
            raise


def end_with_parent() -> None:
    """Leave as soon as the parent is gone, even if it was killed and could not say so."""
    parent = multiprocessing.parent_process()
    assert parent is not None

    def wait_for_end() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=wait_for_end, daemon=True).start()


@contextlib.contextmanager
def inherited_by_workers() -> Iterator[None]:
    """What workers that start now begin with: their environment, and no Ctrl-C, which is for the parent to handle.

    A Ctrl-C that comes meanwhile is only delayed.
    """
    outside = {name: os.environ.get(name) for name in ENVIRONMENT}
    os.environ.update(ENVIRONMENT)
    signals = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, signals)
        for name, value in outside.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
