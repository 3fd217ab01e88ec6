import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import pytest

from vaehpc.images.workers import ENVIRONMENT, run_in_workers

# Jobs are defined here because spawned workers import them by name.


def double(number: int) -> int:
    return 2 * number


def environment(_: int) -> dict[str, str | None]:
    return {name: os.environ.get(name) for name in ENVIRONMENT}


def fail_or_finish(path: Path | None) -> None:
    if path is None:
        raise LookupError("no path")
    time.sleep(5)
    path.touch()


def kill_itself(_: int) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def leave_pid_and_wait(job: tuple[Path, float]) -> None:
    folder, seconds = job
    (folder / str(os.getpid())).touch()
    time.sleep(seconds)


def fail(_: object) -> None:
    raise AssertionError("no result was expected")


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline, "waited for half a minute in vain"
        time.sleep(0.01)


def is_running(pid: int) -> bool:
    """Whether a process is alive: one that nobody has waited for still has its number."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_every_result_arrives() -> None:
    results: list[int] = []
    run_in_workers(double, range(5), 2, results.append)
    assert sorted(results) == [0, 2, 4, 6, 8]


def test_nothing_to_do_starts_no_worker() -> None:
    run_in_workers(double, [], 2, fail)


def test_workers_compute_with_one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    monkeypatch.delenv("MKL_NUM_THREADS", raising=False)
    results: list[dict[str, str | None]] = []
    run_in_workers(environment, [0], 1, results.append)
    assert results == [ENVIRONMENT]
    assert os.environ["OMP_NUM_THREADS"] == "7"
    assert "MKL_NUM_THREADS" not in os.environ


def test_error_in_a_worker_ends_the_others(tmp_path: Path) -> None:
    with pytest.raises(LookupError, match="no path"):
        run_in_workers(fail_or_finish, [None, tmp_path / "finished"], 2, fail)
    assert multiprocessing.active_children() == []
    assert not (tmp_path / "finished").exists()


def test_killed_worker_is_noticed() -> None:
    with pytest.raises(BrokenProcessPool):
        run_in_workers(kill_itself, [0], 1, fail)


class Parent:
    """A process in a group of its own, with two workers that wait for so many seconds."""

    def __init__(self, folder: Path, *seconds: float) -> None:
        self._pids = folder / "pids"
        self._pids.mkdir()
        self._errors = folder / "errors"
        jobs = ", ".join(f"(pathlib.Path({str(self._pids)!r}), {wait})" for wait in seconds)
        code = f"import pathlib, test_workers as t; t.run_in_workers(t.leave_pid_and_wait, [{jobs}], 2, print)"
        # A file and no pipe, which a worker that lives on would keep open.
        with self._errors.open("w") as errors:
            environment = os.environ | {"PYTHONPATH": str(Path(__file__).parent)}
            self.process = subprocess.Popen(
                [sys.executable, "-c", code], env=environment, start_new_session=True, stderr=errors
            )
        wait_until(lambda: len(self.workers()) == 2)

    def workers(self) -> list[int]:
        return [int(path.name) for path in self._pids.iterdir()]

    def errors(self) -> str:
        return self._errors.read_text()


def test_workers_do_not_outlive_a_killed_parent(tmp_path: Path) -> None:
    parent = Parent(tmp_path, 120, 120)
    assert all(is_running(pid) for pid in parent.workers())
    parent.process.kill()
    parent.process.wait()
    wait_until(lambda: not any(is_running(pid) for pid in parent.workers()))


def test_workers_leave_an_interrupt_to_their_parent(tmp_path: Path) -> None:
    parent = Parent(tmp_path, 2, 2)
    for pid in parent.workers():
        os.kill(pid, signal.SIGINT)
    assert parent.process.wait() == 0


def test_interrupt_at_the_terminal_ends_all(tmp_path: Path) -> None:
    parent = Parent(tmp_path, 120, 120)
    os.killpg(parent.process.pid, signal.SIGINT)
    parent.process.wait()
    assert not any(is_running(pid) for pid in parent.workers())
    assert parent.errors().count("Traceback") == 1
    assert parent.errors().rstrip().endswith("KeyboardInterrupt")
