"""New processes, forked from one that has TensorFlow imported: they start in a fraction of a second.

No GPU is touched before the fork, and a process that is killed hurts no other.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import multiprocessing
import os
import signal
import sys
from collections.abc import Callable, Iterator, Mapping
from multiprocessing.context import ForkServerContext, SpawnContext
from multiprocessing.process import BaseProcess
from multiprocessing.util import get_temp_dir
from types import ModuleType
from typing import Any

PRELOADED = "vaehpc.local.preloaded"
TRAIN = ("vaehpc.tasks.train", "vaehpc.tasks.proof")
"""Tasks that train, and import Keras for it."""
ANALYSIS = ("vaehpc.tasks.statistics", "vaehpc.tasks.aggregate")
"""Tasks that follow, and need no TensorFlow."""
UNUSED = ("matplotlib", "sklearn")
"""Keras imports these where they are installed, for plots and wrappers that no training uses: 1.4 of the 9 CPU seconds
to the first step. The image that trains has neither. (Pandas, which Keras imports too, pyarrow imports anyway.)"""
LONGEST_FOLDER = 88
"""Characters: a socket's path has at most 107, and its name takes the rest."""


def task_module(name: str) -> ModuleType:
    """The module of a task; one that trains is imported as if UNUSED were not installed, which then are there again.

    Nothing that is imported is garbage: looking for some meanwhile takes half a second of TensorFlow's import; later it
    is passed over.
    """
    if name in sys.modules:
        return sys.modules[name]
    hidden = {unused: None for unused in UNUSED if name in TRAIN and unused not in sys.modules}
    modules: dict[str, ModuleType | None] = sys.modules  # type: ignore[assignment]
    modules.update(hidden)  # None is Python's word for a module that is not there
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        module = importlib.import_module(name)
    finally:
        if was_enabled:
            gc.enable()
        for unused in hidden:
            del modules[unused]
    gc.freeze()
    return module


def fork_server() -> ForkServerContext | SpawnContext:
    """Python's fork server, one for each process; it is started with the first process that is asked of it.

    Where the folder for temporary files cannot hold its socket, processes that import everything anew.
    """
    try:
        holds_socket = len(os.fsencode(get_temp_dir())) <= LONGEST_FOLDER
    except OSError:
        holds_socket = False
    if not holds_socket:
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([PRELOADED])
    return context


def started(target: Callable[..., None], *arguments: Any, environment: Mapping[str, str]) -> BaseProcess:
    """A new process that calls the target.

    Args:
        target: importable by its name, as its arguments are.
        arguments: of the target.
        environment: what is added to the environment of the fork server, if this is its first process: a variable that
            a library reads when it is imported (OMP_NUM_THREADS, TF_CPP_MIN_LOG_LEVEL) is read there.
    """
    process = fork_server().Process(target=_begun, args=(target, *arguments))
    with added(environment), _without_main():
        process.start()
    return process


def _begun(target: Callable[..., None], *arguments: Any) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # which the fork server ignores
    target(*arguments)


@contextlib.contextmanager
def added(values: Mapping[str, str]) -> Iterator[None]:
    """These environment variables meanwhile; those that the user has set win."""
    added = {name: value for name, value in values.items() if name not in os.environ}
    os.environ.update(added)
    try:
        yield
    finally:
        for name in added:
            del os.environ[name]


@contextlib.contextmanager
def _without_main() -> Iterator[None]:
    """multiprocessing would run what was started as __main__, a script or a module, once more in the new process."""
    main, sys.modules["__main__"] = sys.modules["__main__"], ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main
