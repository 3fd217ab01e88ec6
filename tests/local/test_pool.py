"""Tasks and slots: what a pickle holds, how many run at once, what they inherit."""

import os
import pickle
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from vaehpc.local import pool
from vaehpc.local.pool import Pack, Task, local_slots, run_debug, run_local, run_pack
from vaehpc.machine.hardware import visible_gpus
from vaehpc.machine.processes import launcher_record, process_start, running_launcher
from vaehpc.schema.site import JobConfig, SiteConfig
from vaehpc.study.sites import built_in_site, job_config

JOBS = ("prepare", "launch", "train", "statistics", "aggregate", "verdict", "probe")


def record(directory: str) -> None:
    """A task: notes when it ran and what it saw."""
    started = time.monotonic()
    time.sleep(0.4)
    threads, gpus = os.environ["OMP_NUM_THREADS"], os.environ["CUDA_VISIBLE_DEVICES"]
    Path(directory, "seen").write_text(f"{started} {time.monotonic()} {threads} '{gpus}'")


def fail(directory: str) -> None:
    """A task that crashes."""
    raise RuntimeError(f"no result in {directory}")


def tasks_in(folder: Path, count: int) -> list[Task]:
    for number in range(count):
        (folder / str(number)).mkdir()
    return [Task("tests.local.test_pool:record", str(folder / str(number))) for number in range(count)]


def seen(folder: Path, number: int) -> list[str]:
    return (folder / str(number) / "seen").read_text().split()


def test_a_pickle_holds_an_import_path_and_a_directory() -> None:
    task = pickle.loads(pickle.dumps(Task("vaehpc.tasks.train:run", "/somewhere")))
    assert vars(task) == {"entry_point": "vaehpc.tasks.train:run", "directory": "/somewhere"}


@pytest.mark.parametrize("name", JOBS)
def test_declarations_are_valid_and_their_entry_points_exist(name: str) -> None:
    module, _, function = job_config(name).entry_point.partition(":")
    source = Path(__file__).parents[2] / f"{module.replace('.', '/')}.py"
    assert f"\ndef {function}(directory: str) -> None:" in source.read_text()


def test_tasks_run_bounded_with_the_sites_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(sys.path))
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1})
    shown: list[int] = []
    run_local(tasks_in(tmp_path, 4), job("statistics"), built_in_site("local"), tmp_path / "jobs", counted(shown))
    times = [tuple(map(float, seen(tmp_path, number)[:2])) for number in range(4)]
    at_once = [sum(start <= moment < stop for start, stop in times) for moment, _ in times]
    assert max(at_once) <= 2
    assert max(shown) == 2
    assert {tuple(seen(tmp_path, number)[2:]) for number in range(4)} == {("1", "''")}


def job(name: str) -> JobConfig:
    return job_config(name)


def counted(shown: list[int]) -> object:
    def show(running: Sequence[Task]) -> None:
        shown.append(len(running))

    return show


def test_each_gpu_takes_one_task(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(sys.path))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,MIG-7a")
    monkeypatch.setenv("OMP_NUM_THREADS", "3")  # what the user has set wins over the site
    run_local(tasks_in(tmp_path, 3), job("train"), built_in_site("local"), tmp_path / "jobs", lambda _: None)
    assert {seen(tmp_path, number)[3] for number in range(3)} == {"'2'", "'MIG-7a'"}
    assert {seen(tmp_path, number)[2] for number in range(3)} == {"3"}


def test_tasks_share_a_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(sys.path))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    shown: list[int] = []
    tasks = tasks_in(tmp_path, 3)
    run_local(tasks, job("train"), built_in_site("local"), tmp_path / "jobs", counted(shown), per_gpu=2)
    assert max(shown) == 2
    assert {seen(tmp_path, number)[3] for number in range(3)} == {"'2'"}


@pytest.mark.parametrize(
    ("gpus", "asked", "directories", "at_once"),
    [("0", 4, "abcd", 2), ("", 4, "abcd", 4), ("0", 1, "abcd", 1)],  # statistics run one after the other
)
def test_runs_of_a_pack_share_a_gpu_as_was_measured(
    monkeypatch: pytest.MonkeyPatch, gpus: str, asked: int, directories: str, at_once: int
) -> None:
    packs: list[tuple[int, int]] = []
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", gpus)
    monkeypatch.setattr(pool, "runs_at_once", lambda directory, most: {("a", 4): 2}[directory, most])
    monkeypatch.setattr(pool, "Pack", lambda tasks, at_once: lambda: packs.append((len(tasks), at_once)))
    run_pack("vaehpc.tasks.train:run", asked, list(directories))
    assert packs == [(4, at_once)]


def test_slots_are_gpus_for_jobs_that_use_them_and_processors_else(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,3, GPU-8f")
    assert [slot.gpu for slot in local_slots(job("train"))] == ["2", "3", "GPU-8f"]
    assert {slot.gpu for slot in local_slots(job("statistics"))} == {None}
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert visible_gpus() == []
    assert len(local_slots(job("train"))) == len(os.sched_getaffinity(0))


def test_a_task_that_fails_stops_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    (good,) = tasks_in(tmp_path, 1)
    run_debug([Task("tests.local.test_pool:fail", str(tmp_path)), good], lambda _: None)
    assert (tmp_path / "0" / "seen").exists()


def in_new_process(callable_: object) -> subprocess.CompletedProcess[bytes]:
    """Runs a pickled task as submitit does: in a process of its own."""
    code = "import pickle, sys; pickle.load(sys.stdin.buffer)()"
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    return subprocess.run(
        [sys.executable, "-c", code], input=pickle.dumps(callable_), capture_output=True, env=environment, check=False
    )


def test_a_pack_runs_all_its_tasks_whatever_becomes_of_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    good = tasks_in(tmp_path, 4)
    done = in_new_process(Pack((good[0], Task("tests.local.test_pool:fail", "nowhere"), *good[1:]), at_once=2))
    assert done.returncode != 0
    assert b"RuntimeError: 1 of 5 tasks failed: nowhere (exit status 1)" in done.stderr
    times = [tuple(map(float, seen(tmp_path, number)[:2])) for number in range(4)]
    at_once = [sum(start <= moment < stop for start, stop in times) for moment, _ in times]
    assert max(at_once) <= 2
    assert {seen(tmp_path, number)[3] for number in range(4)} == {"'0'"}  # they share the GPU


def meet(directory: str) -> None:
    """A task that ends when another one runs at the same time."""
    own = Path(directory)
    own.touch()
    deadline = time.monotonic() + 60
    while len(list(own.parent.glob("met-*"))) < 2:
        assert time.monotonic() < deadline, "alone"
        time.sleep(0.05)


def test_tasks_of_a_pack_run_at_once(tmp_path: Path) -> None:
    tasks = tuple(Task("tests.local.test_pool:meet", str(tmp_path / f"met-{number}")) for number in range(2))
    assert in_new_process(Pack(tasks, at_once=2)).returncode == 0


def test_environment_of_the_launcher_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(sys.path))
    before = dict(os.environ)
    site = SiteConfig(executor="local", environment={"OMP_NUM_THREADS": "1", "NEW": "1"})
    run_local(tasks_in(tmp_path, 1), job("statistics"), site, tmp_path / "jobs", lambda _: None)
    assert dict(os.environ) == before


def test_a_launcher_that_is_gone_does_not_count(tmp_path: Path) -> None:
    record_path = tmp_path / "launcher"
    assert running_launcher(record_path) is None
    record_path.write_text(launcher_record())
    assert running_launcher(record_path) is None  # this very process
    host, _, _ = launcher_record().split()
    record_path.write_text(f"{host} {os.getppid()} {process_start(os.getppid())}\n")
    assert running_launcher(record_path) == f"process {os.getppid()} on {host}"
    record_path.write_text(f"{host} {os.getppid()} 1\n")  # its number was given to another process
    assert running_launcher(record_path) is None
