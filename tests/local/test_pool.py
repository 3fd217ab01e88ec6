"""Tasks and slots: how many run at once, what they inherit, and what becomes of those that fail."""

import os
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Sequence
from pathlib import Path

import pytest

from vaehpc.command import HOPELESS, DiskFullError, HopelessError, TaskFailedError, UserError
from vaehpc.local import pool
from vaehpc.local.pool import OnChange, Slot, Task, local_slots, run_debug, run_pack, run_pool
from vaehpc.machine.hardware import NEEDED_GPUS, RUNS_ON_GPU, visible_gpus
from vaehpc.study.attempts import Attempt
from vaehpc.study.files import RunDir
from vaehpc.study.sites import job_config

PROCESSORS = (Slot(""), Slot(""))


def record(directory: str) -> None:
    """A task: notes when it ran and what it saw."""
    started = time.monotonic()
    time.sleep(0.4)
    names = ("THREADS", "CUDA_VISIBLE_DEVICES", NEEDED_GPUS, RUNS_ON_GPU)
    threads, gpus, needed, sharing = (os.environ.get(name) for name in names)
    Path(directory, "seen").write_text(f"{started} {time.monotonic()} {threads} '{gpus}' {needed} {sharing}")


def fail(directory: str) -> None:
    """A task that crashes."""
    raise RuntimeError(f"no result in {directory}")


def refuse(directory: str) -> None:
    """A task that no node could do."""
    raise HopelessError(f"never in {directory}")


def refuse_or_fail(name: str) -> None:
    """The one or the other."""
    {"refuse": refuse, "fail": fail}[name](name)


def die(_: str) -> None:
    """A task that the system kills."""
    os.kill(os.getpid(), signal.SIGKILL)


def meet(directory: str) -> None:
    """A task that ends when another one runs at the same time."""
    own = Path(directory)
    own.touch()
    deadline = time.monotonic() + 60
    while len(list(own.parent.glob("met-*"))) < 2:
        assert time.monotonic() < deadline, "alone"
        time.sleep(0.05)


def wait_to_be_told(directory: str) -> None:
    """A task that says that it runs, and leaves well when it is asked to end."""
    told: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, _: told.append(number))
    Path(directory).write_text(str(os.getpid()))
    while not told:
        time.sleep(0.05)


def note_tensorflow(directory: str) -> None:
    """A task that notes whether TensorFlow is imported."""
    Path(directory).write_text(str("tensorflow" in sys.modules))


def look_at_tensorflow(directory: str) -> None:
    """A task that notes whether TensorFlow is imported, and whether it has looked for devices."""
    imported = "tensorflow" in sys.modules
    from tensorflow.python.eager import context

    Path(directory).write_text(f"{imported} {context.context()._initialized} {context.context()._physical_devices}")


def task(name: str, directory: Path | str) -> Task:
    return Task(f"tests.local.test_pool:{name}", str(directory))


def tasks_in(folder: Path, count: int) -> list[Task]:
    for number in range(count):
        (folder / str(number)).mkdir()
    return [task("record", folder / str(number)) for number in range(count)]


def seen(folder: Path, number: int) -> list[str]:
    return (folder / str(number) / "seen").read_text().split()


def counted(shown: list[int]) -> OnChange:
    def show(running: Sequence[Task]) -> None:
        shown.append(len(running))

    return show


def test_tasks_run_bounded_with_the_sites_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3")
    shown: list[int] = []
    before = dict(os.environ)
    assert run_pool(tasks_in(tmp_path, 4), PROCESSORS, {"THREADS": "1"}, tmp_path, counted(shown)) == {}
    times = [tuple(map(float, seen(tmp_path, number)[:2])) for number in range(4)]
    at_once = [sum(start <= moment < stop for start, stop in times) for moment, _ in times]
    assert max(at_once) <= 2
    assert max(shown) == 2
    assert {tuple(seen(tmp_path, number)[2:]) for number in range(4)} == {("1", "''", "0", "1")}
    assert dict(os.environ) == before


def test_each_gpu_takes_one_task(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vaehpc.study.sites.tensorflow_uses_gpus", lambda: True)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,MIG-7a")
    monkeypatch.setenv("THREADS", "3")  # what the user has set wins over the site
    slots = local_slots(job_config("train"))
    run_pool(tasks_in(tmp_path, 3), slots, {"THREADS": "1"}, tmp_path)
    assert {tuple(seen(tmp_path, number)[3:]) for number in range(3)} == {("'2'", "1", "1"), ("'MIG-7a'", "1", "1")}
    assert {seen(tmp_path, number)[2] for number in range(3)} == {"3"}


def test_slots_are_gpus_for_jobs_that_use_them_and_processors_else(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,3, GPU-8f")
    assert {slot.gpu for slot in local_slots(job_config("train"))} == {""}, "tensorflow-cpu uses none"
    monkeypatch.setattr("vaehpc.study.sites.tensorflow_uses_gpus", lambda: True)
    assert [slot.gpu for slot in local_slots(job_config("train"))] == ["2", "3", "GPU-8f"]
    assert {slot.gpu for slot in local_slots(job_config("statistics"))} == {""}
    assert {slot.gpu for slot in local_slots(job_config("train", "cpu"))} == {""}
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert visible_gpus() == []
    monkeypatch.setattr(pool, "processors", lambda: 6)
    monkeypatch.setattr(pool, "available_memory", lambda: 64 * 2**30)
    assert local_slots(job_config("train")) == [Slot("")] * 6
    monkeypatch.setattr(pool, "available_memory", lambda: 4 * 2**30 + 2**20)
    assert len(local_slots(job_config("train"))) == 4
    monkeypatch.setattr(pool, "available_memory", lambda: 2**20)
    assert len(local_slots(job_config("train"))) == 1
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    monkeypatch.setenv("ROCR_VISIBLE_DEVICES", "0,1")
    assert local_slots(job_config("train")) == [Slot("0"), Slot("1")]


def test_a_slot_of_no_known_gpu_hides_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As of a pack in a container without nvidia-smi, to which Slurm gave the whole node."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3")
    run_pool(tasks_in(tmp_path, 1), [Slot(None, 4)], {"THREADS": "1"}, tmp_path)
    assert seen(tmp_path, 0)[3:] == ["'3'", "None", "4"]


def fail_in_an_attempt(directory: str) -> None:
    """A task whose attempt keeps a log of how it crashed."""

    def train(radius: float) -> None:
        raise RuntimeError(f"no result at {radius}")

    with Attempt.start(RunDir(Path(directory)), "train"):
        train(16.5)


def test_debug_stops_at_the_first_task_that_raises(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the variables of its frames, which the log of its attempt does not keep; the next task is not run."""
    monkeypatch.setenv("THREADS", "1")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    first, last = tasks_in(tmp_path, 2)
    (tmp_path / "run").mkdir()
    with pytest.raises(TaskFailedError, match=r"/run failed in tests.local.test_pool:fail_in_an_attempt") as failed:
        run_debug([first, task("fail_in_an_attempt", tmp_path / "run"), last], lambda _: None)
    frames = [frame for frame, _ in traceback.walk_tb(failed.value.__cause__.__traceback__)]  # type: ignore[union-attr]
    assert frames[-1].f_locals["radius"] == 16.5
    assert [(tmp_path / number / "seen").exists() for number in ("0", "1")] == [True, False]
    assert "RuntimeError: no result at 16.5" in (tmp_path / "run/attempts/0001/log").read_text()


def test_what_a_library_says_while_it_starts_is_not_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "greeting.py").write_text("import os\nos.write(2, b'hello')\ndef run(_): os.write(2, b'at work')\n")
    monkeypatch.syspath_prepend(tmp_path)
    run_debug([Task("greeting:run", str(tmp_path))], lambda _: None)
    assert capfd.readouterr().err == "at work"


def test_a_task_that_is_killed_hurts_no_other(tmp_path: Path) -> None:
    """Its log is kept, the tasks before and after it run, and the two that failed are named."""
    tasks = tasks_in(tmp_path, 4)
    bad = [task("die", tmp_path / "killed"), task("fail", tmp_path / "crashed")]
    failed = run_pool([tasks[0], *bad, *tasks[1:]], PROCESSORS, {"THREADS": "1"}, tmp_path)
    assert failed == {str(tmp_path / "crashed"): 1, str(tmp_path / "killed"): -9}
    assert all((tmp_path / str(number) / "seen").exists() for number in range(4))
    assert f"RuntimeError: no result in {tmp_path / 'crashed'}" in (tmp_path / "test_pool-crashed.log").read_text()


def test_new_processes_have_tensorflow_and_have_touched_no_device(tmp_path: Path) -> None:
    """A GPU that is touched before the fork cannot be used after it."""
    run_pool([task("look_at_tensorflow", tmp_path / "found")], PROCESSORS, {}, tmp_path)
    assert (tmp_path / "found").read_text() == "True False None"


def test_tasks_start_where_a_socket_has_no_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The folder for temporary files of a cluster's job may be deep, or closed."""
    monkeypatch.setattr("vaehpc.local.starting.get_temp_dir", lambda: f"/{100 * 'x'}")
    assert run_pool(tasks_in(tmp_path, 1), PROCESSORS, {"THREADS": "1"}, tmp_path) == {}
    assert (tmp_path / "0" / "seen").exists()


def test_an_interrupted_pool_leaves_no_task(tmp_path: Path) -> None:
    started = tmp_path / "started"

    def interrupt(_: Sequence[Task]) -> None:
        if started.exists() and started.read_text():
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_pool([task("wait_to_be_told", started)], PROCESSORS, {}, tmp_path, interrupt)
    deadline = time.monotonic() + 60
    while Path(f"/proc/{started.read_text()}").exists():
        assert time.monotonic() < deadline, "the task still runs"
        time.sleep(0.05)


def test_a_killed_launcher_leaves_no_task(tmp_path: Path) -> None:
    """It cannot say so any more: its tasks, in groups of their own, see that it is gone."""
    started = tmp_path / "started"
    code = (
        "from vaehpc.local.pool import Slot, Task, run_pool;"
        f" run_pool([Task('tests.local.test_pool:wait_to_be_told', {str(started)!r})], [Slot('')], {{}}, None)"
    )
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "VAEHPC_PRELOADED": "os"}
    launcher = subprocess.Popen([sys.executable, "-c", code], env=environment)
    deadline = time.monotonic() + 60
    while not (started.exists() and started.read_text()):
        assert time.monotonic() < deadline, "no task began"
        time.sleep(0.05)
    launcher.kill()
    launcher.wait()
    while Path(f"/proc/{started.read_text()}").exists():
        assert time.monotonic() < deadline, "the task still runs"
        time.sleep(0.05)


def ask_wrongly(_: str) -> None:
    """A task that says what was asked of it wrongly."""
    raise UserError("the data are not there")


def fill_the_disk(_: str) -> None:
    """A task for which there is no space."""
    raise DiskFullError("no space left")


def test_a_task_says_in_one_line_what_was_asked_wrongly(tmp_path: Path) -> None:
    tasks = [task("ask_wrongly", tmp_path / "a"), task("fill_the_disk", tmp_path / "b")]
    failed = run_pool(tasks, PROCESSORS, {}, tmp_path)
    assert failed == {str(tmp_path / "a"): 2, str(tmp_path / "b"): 3}
    assert (tmp_path / "test_pool-a.log").read_text() == "vaehpc: the data are not there\n"


# Packs of an array element


@pytest.mark.parametrize(
    ("gpus", "needed", "num_gpus", "asked", "slots"),
    [
        ("0", "1", 1, 4, ["0", "0"]),
        ("", "1", 1, 4, [None] * 4),
        ("0", "1", 1, 1, ["0"]),
        ("0", "0", 1, 4, ["0"] * 4),  # the CPU is meant: nothing is measured
        ("0,1", "0", 0, 3, [None] * 3),  # statistics side by side
        ("GPU-8f,MIG-7a", "2", 2, 8, ["GPU-8f", "MIG-7a"] * 2),
        ("0,1,2,3", "4", 4, 4, ["0", "1", "2", "3"]),  # nothing is shared, and nothing measured
    ],
)
def test_runs_of_a_pack_share_gpus_as_was_measured(
    monkeypatch: pytest.MonkeyPatch, gpus: str, needed: str, num_gpus: int, asked: int, slots: list[str | None]
) -> None:
    monkeypatch.setenv("VAEHPC_GPUS", needed)
    packs: list[list[str | None]] = []
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", gpus)
    monkeypatch.setattr(pool, "runs_at_once", lambda *found: {("a", 4, "0"): 2, ("a", 2, "GPU-8f"): 2}[found])
    monkeypatch.setattr(pool, "run_pool", lambda _, slots, *__: packs.append([slot.gpu for slot in slots]))
    run_pack("vaehpc.tasks.train:run", asked, list("abcd"), num_gpus)
    assert packs == [slots]


def test_the_only_run_of_a_whole_node_sees_one_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("THREADS", "1")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1,2,3")
    tasks_in(tmp_path, 1)
    run_pack("tests.local.test_pool:record", 1, [str(tmp_path / "0")], 4)
    assert seen(tmp_path, 0)[3] == "'0'"


def test_a_pack_runs_all_its_tasks_whatever_becomes_of_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    for name in ("met-0", "met-1"):
        (tmp_path / name).touch()
    directories = [str(tmp_path / "met-0"), "/nowhere/at/all", str(tmp_path / "met-1")]
    with pytest.raises(RuntimeError, match=r"^1 of 3 tasks failed: /nowhere/at/all \(exit status 1\)$"):
        run_pack("tests.local.test_pool:meet", 1, directories)


def test_tasks_of_a_pack_run_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    run_pack("tests.local.test_pool:meet", 2, [str(tmp_path / "met-0"), str(tmp_path / "met-1")])


def test_a_pack_has_loaded_what_its_own_tasks_need(tmp_path: Path) -> None:
    """An element of statistics asks for little memory, and TensorFlow holds much of it."""
    files = [str(tmp_path / "a"), str(tmp_path / "b")]
    code = f"from vaehpc.local.pool import run_pack; run_pack('tests.local.test_pool:note_tensorflow', 1, {files})"
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    subprocess.run([sys.executable, "-c", code], env=environment, check=True)
    assert [Path(file).read_text() for file in files] == ["False", "False"]


def test_a_pack_waits_for_tasks_that_are_told_to_leave(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Slurm sends SIGTERM to every process of a job, this one and the fork server too."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    files, told = [tmp_path / "a", tmp_path / "b"], list[int]()

    def tell(_: Sequence[Task]) -> None:
        if not told and all(file.exists() and file.read_text() for file in files):
            told.append(1)
            for pid in [os.getpid(), *children(os.getpid()), *(int(file.read_text()) for file in files)]:
                os.kill(pid, signal.SIGTERM)

    run = pool.run_pool
    monkeypatch.setattr(pool, "run_pool", lambda *asked: run(*asked, tell))
    run_pack("tests.local.test_pool:wait_to_be_told", 2, [str(file) for file in files])


def children(parent: int) -> list[int]:
    """Every process that this one has started, the fork server among them."""
    return [int(pid) for pid in Path(f"/proc/{parent}/task/{parent}/children").read_text().split()]


def test_a_single_task_fails_as_it_does() -> None:
    with pytest.raises(RuntimeError, match="no result in here"):
        run_pack("tests.local.test_pool:fail", 1, ["here"])


@pytest.mark.parametrize("directories", [["here"], ["here", "there"]])
def test_what_no_node_could_do_has_an_exit_status_of_its_own(
    directories: list[str], capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        run_pack("tests.local.test_pool:refuse", 1, directories)
    assert ended.value.code == HOPELESS
    said = {1: "vaehpc: never in here", 2: "2 of 2 tasks failed: here (exit status 78), there (exit status 78)"}
    assert said[len(directories)] in capfd.readouterr().err


def test_a_pack_is_tried_again_if_one_of_its_tasks_could_do_elsewhere() -> None:
    with pytest.raises(RuntimeError, match=r"^2 of 2 tasks failed: refuse .*78.*, fail .*1\)$"):
        run_pack("tests.local.test_pool:refuse_or_fail", 1, ["refuse", "fail"])


def test_names_that_scripts_queued_by_0_1_0_use() -> None:
    """Elements that were submitted before an update of the code are started after it."""
    from vaehpc import launch, submit

    assert submit.run_pack is run_pack
    assert callable(launch.again)
