"""Studies on a real Slurm, while it fails: every one ends with the results of one that nobody disturbed."""

from __future__ import annotations

import fcntl
import json
import os
import pickle
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.celeba_files import write_celeba
from tests.cluster.cluster import Cluster
from tests.cluster.studies import Place, new_place
from vaehpc.schema.config import DataConfig
from vaehpc.study.attempts import all_attempts

RUN = "vae-tiny-seed000"
Results = dict[str, Any]


@pytest.fixture
def place(cluster: Cluster, faces: DataConfig) -> Place:
    return new_place(cluster, faces.path)


@pytest.fixture(scope="session")
def undisturbed(
    shared_cluster: Cluster, faces: DataConfig, tmp_path_factory: pytest.TempPathFactory, testrun_uid: str
) -> Results:
    """Results of RUN in a study that ran on one machine, outside of Slurm; made once for all processes of the tests."""
    kept = tmp_path_factory.getbasetemp().parent / f"undisturbed-{testrun_uid}"
    with kept.open("a+b") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        if not kept.stat().st_size:
            place = new_place(shared_cluster, faces.path)
            place.launch_here()
            file.write(pickle.dumps(place.results(RUN)))
    results: Results = pickle.loads(kept.read_bytes())
    return results


def test_end_to_end(place: Place) -> None:
    """3 x 2 crossed streams: more runs than an array may have elements (4)."""
    place.settings(epochs=2)
    design = "--cross initialisation=3 noise=2"
    assert "train-0002: 2 elements" in place.launch(design, seeds=None).stdout
    place.wait_until_ended(420)
    summary = place.summary()
    assert set(summary["runs"]) == {f"vae-tiny-seed{cell:03d}" for cell in (0, 1, 100, 101, 200, 201)}
    assert summary["arms"]["vae-tiny"]["num_missing"] == 0
    assert len({place.run(name).trained().state_sha256 for name in summary["runs"]}) == 6
    assert summary["crossed"].keys() == {"vae-tiny"}
    assert place.study.report.exists()
    for chunk, size in (("0001", 4), ("0002", 2)):
        for number in range(size):
            assert place.nodes(f"train-{chunk}", number)[0] in ("g1", "g2")
            assert place.nodes(f"statistics-{chunk}", number)[0] in ("c1", "c2")
    gpus = {started_with(place, run.name) for run in place.study.config().runs()}
    assert {"0", "1"} <= gpus <= {"0", "1", "2", "3"}  # a node's four, as Slurm hands them out
    again = place.launch(design, seeds=None).stdout
    assert "nothing left to do" in again
    assert str(place.study.report) in again
    assert len(place.study.batches()) == 5


def started_with(place: Place, run: str) -> str | None:
    """CUDA_VISIBLE_DEVICES of a run's training."""
    return json.loads(all_attempts(place.run(run))[0].start_path.read_text())["cuda_visible_devices"]


def test_time_limit(place: Place, undisturbed: Results) -> None:
    """The task stands still until Slurm warns it: however fast this machine is, its time is up in the middle.

    Once more the same signal comes by hand.
    """
    place.launch()
    element = place.element("train-0001")
    with place.held(RUN, 60):
        assert place.cluster.root(f"squeue --noheader --jobs={element} --format=%l").strip() == "12:00"
        place.end_its_time(element, RUN)
    with place.held(RUN, 120, attempt=2):
        place.shell(f"scancel --batch --signal=USR2 {element}")
    with place.held(RUN, 180, attempt=3):
        status = place.status()
    assert "requeued x2" in status
    assert "hash of the state matches" in status
    assert [place.first_step(RUN, attempt) >= least for attempt, least in ((2, 60), (3, 120))] == [True, True]
    place.wait_until_ended()
    assert place.kinds("train-0001") == ["start", "requeue"] * 2 + ["start", "done"]
    assert place.results(RUN) == undisturbed


def test_put_back_and_cancelled_by_hand(place: Place, undisturbed: Results) -> None:
    """Two elements, of which one is put back, and only that one is started again; then it is cancelled."""
    place.launch(seeds=2)
    element = place.element("train-0001", 0)
    with place.held(RUN, 50):
        place.shell(f"scontrol requeue {element}")
    with place.held(RUN, 100, attempt=2):
        assert "hash of the state matches" in place.status()
        place.shell(f"scancel {element}")
    place.wait_until_ended()
    assert place.kinds("train-0001", 0).count("start") == 2
    assert place.kinds("train-0001", 1) == ["start", "done"]
    assert place.first_step(RUN, 2) > 0
    missing = place.summary()["runs"][RUN]
    assert missing["missing_stage"] == "train"
    assert "1 MISSING" in place.status()
    assert "cancelled" in place.status()
    assert place.summary()["arms"]["vae-tiny"]["num_missing"] == 1
    place.launch(seeds=2)
    place.wait_until_ended()
    assert place.results(RUN) == undisturbed
    assert place.summary()["arms"]["vae-tiny"]["num_missing"] == 0


def test_preempted(place: Place, undisturbed: Results) -> None:
    place.launch()
    with place.held(RUN, 50):
        place.cluster.submit("sleep 3", "--partition=gpu-high --nodes=2 --exclusive --time=1")
    with place.held(RUN, 50, attempt=2):
        status = place.status()
    assert "requeued x1" in status
    assert "hash of the state matches" in status
    place.wait_until_ended()
    # Slurm 24 puts an element back once more that was preempted with a time of grace: it finds nothing left to do.
    noted = place.kinds("train-0001")
    assert noted.count("start") == 2 + (noted[-3:] == ["done", "start", "done"])
    assert len(all_attempts(place.run(RUN))) == 3  # two trainings, and the statistics
    assert place.first_step(RUN, 2) > 0
    assert place.results(RUN) == undisturbed


def test_killed_task_is_tried_on_another_node_and_statistics_are_put_back(place: Place, undisturbed: Results) -> None:
    """Statistics as after a preemption: they have no checkpoints and are made anew."""
    place.cluster.root("scontrol update PartitionName=cpu State=DOWN")
    place.launch()
    with place.held(RUN, 50):
        place.signal_task(RUN, signal.SIGKILL)
    with place.held(RUN, 50, attempt=2):
        assert "crashed x1" in place.status()
    place.cluster.wait(lambda: "done" in place.kinds("train-0001"), "a training", 200)
    assert place.kinds("train-0001") == ["start", "crash", "requeue", "start", "done"]
    assert len(set(place.nodes("train-0001"))) == 2
    place.cluster.root("scontrol update PartitionName=cpu State=UP")
    place.cluster.wait(lambda: "start" in place.kinds("statistics-0001"), "the start of the statistics", 60)
    place.shell(f"scontrol requeue {place.element('statistics-0001')}")
    place.wait_until_ended()
    assert place.kinds("statistics-0001").count("start") == 2
    assert place.results(RUN) == undisturbed


def test_a_gpu_that_tensorflow_cannot_use(place: Place) -> None:
    """As on a broken node: the run fails before a step, is tried on another node, and is listed with the reason."""
    place.site(device="")
    assert "precision mixed_bfloat16, for its trainings ask for GPUs." in place.launch().stdout
    place.wait_until_ended()
    assert place.kinds("train-0001") == ["start", "crash", "requeue", "start", "crash", "given-up"]
    assert set(place.nodes("train-0001")) == {"g1", "g2"}
    assert not place.run(RUN).checkpoints.exists()
    assert place.summary()["runs"][RUN]["missing_stage"] == "train"
    failures = place.status("--failures")
    assert "TensorFlow sees 0 of 1 GPUs on g" in failures
    assert "tensorflow-cpu is installed, which never uses one" in failures


def test_a_gpu_that_no_lock_serves_is_not_tried_again(place: Place) -> None:
    """Here by the version of its driver: it would be the same on every node."""
    folder = place.folder / "bin"
    folder.mkdir()
    (folder / "nvidia-smi").write_text("#!/bin/sh\necho 470.82.01\n")
    (folder / "nvidia-smi").chmod(0o755)
    place.site(device="", environment=f'PATH = "{folder}:{os.environ["PATH"]}"')
    place.launch()
    place.wait_until_ended()
    assert place.kinds("train-0001") == ["start", "crash", "given-up"]
    assert "driver 470.82.01" in place.status("--failures")


def test_too_little_memory(place: Place, undisturbed: Results) -> None:
    place.site(memory_gb=0.2)
    place.launch()
    place.wait_until_ended()
    assert place.kinds("train-0001") == ["start", "crash", "requeue", "start", "crash", "given-up"]
    assert place.summary()["arms"]["vae-tiny"]["num_missing"] == 1
    assert place.kinds("statistics-0001") == []  # cancelled, not left pending
    failures = place.status("--failures")
    assert "out of memory" in failures
    assert "limit 0.2 GB" in failures
    assert "memory_gb" in failures
    place.site()
    place.launch()
    place.wait_until_ended()
    assert place.summary()["arms"]["vae-tiny"]["num_missing"] == 0
    assert place.results(RUN) == undisturbed


def test_node_lost_while_its_orphan_goes_on(place: Place, undisturbed: Results) -> None:
    place.launch()
    with place.held(RUN, 50):
        (node,) = place.nodes("train-0001")
        place.cluster.lose_node(node)
        with place.held(RUN, 50, attempt=2):
            assert "resumed at step" in place.status()
    place.wait_until_ended()
    assert place.nodes("train-0001")[0] == node
    assert place.nodes("train-0001")[1] != node
    assert place.results(RUN) == undisturbed
    assert place.kinds("train-0001").count("requeue") == 0  # the orphan's script must not stop the new start


def test_one_of_a_pack_fails(place: Place, undisturbed: Results) -> None:
    """It is missing; the other one of its element is measured all the same."""
    place.site(slurm="tasks_per_gpu = 2\nmax_crashes = 0")
    place.launch(seeds=2)
    other = "vae-tiny-seed001"
    with place.held(other, 50):
        place.signal_task(other, signal.SIGKILL)
    place.wait_until_ended()
    assert place.kinds("train-0001") == ["start", "crash", "given-up"]
    assert place.kinds("statistics-0001") == ["start", "done"]
    assert place.results(RUN) == undisturbed
    assert place.summary()["runs"][other]["missing_stage"] == "train"
    assert "killed (SIGKILL)" in place.status("--failures")
    place.launch(seeds=2)
    place.wait_until_ended()
    assert place.summary()["arms"]["vae-tiny"]["num_missing"] == 0


def test_cancelled_and_waited_for(place: Place, undisturbed: Results) -> None:
    """The whole study is cancelled; the same line, told to wait, then leaves with its results."""
    place.launch()
    with place.held(RUN, 50):
        said = place.status("--cancel")
    assert "(train-0001): 1 running" in said
    assert "(aggregate-0001): 1 pending" in said
    place.wait_until_ended()
    assert not place.study.report.exists()
    assert "cancelled" in place.status("--failures")
    waited = place.launch("--wait").stdout
    assert f"Report: {place.study.report}" in waited
    assert place.results(RUN) == undisturbed


def test_waiting_for_a_study_without_result(place: Place) -> None:
    """Its last job fails: exit code 3, and where to look."""
    place.settings(epochs=2)
    place.study.path.mkdir(parents=True)
    (place.study.path / "figures").touch()
    for path in (place.folder / "runs", *(place.folder / "runs").rglob("*")):
        os.chown(path, place.folder.stat().st_uid, place.folder.stat().st_gid)
    done = place.launch("--wait", check=False)
    assert done.returncode == 3, done.stdout + done.stderr
    assert f"there is no {place.study.report}" in done.stdout


def test_controller_restarted(place: Place, undisturbed: Results) -> None:
    """The training is held while the launch waits in vain, and ends while there is no controller."""
    place.launch()
    with place.held(RUN, 50):
        place.cluster.stop_controller()
        refused = place.launch(check=False)
        assert refused.returncode == 2
        assert "Slurm does not answer" in refused.stderr
        assert "training" in place.status()  # from its heartbeat
    place.cluster.wait(place.run(RUN).trained_path.exists, "the training's end", 200)
    place.cluster.start_controller()
    place.wait_until_ended()
    assert place.results(RUN) == undisturbed


def test_database_down(place: Place, undisturbed: Results) -> None:
    place.cluster.stop_database()
    place.launch()
    with place.held(RUN, 50):
        assert "accounting" not in place.status()  # not asked while everything is in the queue
        place.shell(f"scancel {place.element('train-0001')}")
    place.wait_until_ended()
    status = place.status()
    assert "accounting down: states from squeue and heartbeats" in status
    assert "1 MISSING" in status
    place.launch()
    place.wait_until_ended()
    assert "1 done" in place.status()
    assert place.results(RUN) == undisturbed


def test_launcher_killed_between_two_submissions(place: Place, undisturbed: Results) -> None:
    """The second sbatch kills the launcher; the same line again submits the rest, and nothing twice."""
    wrapper = place.folder / "bin/sbatch"
    wrapper.parent.mkdir()
    wrapper.write_text(
        "#!/bin/sh\n"
        'case "$*" in *--test-only*) ;; *)\n'
        f"  echo call >> {place.folder}/calls\n"
        f"  [ $(wc -l < {place.folder}/calls) != 2 ] || kill -9 $PPID;;\n"
        "esac\n"
        'exec /usr/bin/sbatch "$@"\n'
    )
    wrapper.chmod(0o755)
    place.write("calls", "")
    (place.folder / "calls").chmod(0o666)
    line = f"PATH={wrapper.parent}:$PATH {place.line(seeds=2)}"
    killed = place.cluster.user(line, cwd=place.folder, seconds=120, check=False)
    assert killed.returncode in (-signal.SIGKILL, 128 + signal.SIGKILL)
    with place.held(RUN, 1), place.held("vae-tiny-seed001", 1):
        assert "2 training" in place.status()
        place.launch(seeds=2)
    place.wait_until_ended()
    assert [len(batch.record().elements) for batch in place.study.batches() if batch.record().stage == "train"] == [2]
    assert all(place.kinds("train-0001", number) == ["start", "done"] for number in (0, 1))
    assert place.summary()["arms"]["vae-tiny"]["num_missing"] == 0
    assert place.results(RUN) == undisturbed


@pytest.fixture
def small_disk(cluster: Cluster) -> Iterator[Path]:
    """A folder of the user's on a file system of 24 MB."""
    folder = cluster.new_folder()
    owner = folder.stat()
    subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size=24m,uid={owner.st_uid},gid={owner.st_gid}", "vaehpc", folder], check=True
    )
    yield folder
    subprocess.run(["umount", "--lazy", folder], check=True)


def test_full_disk(place: Place, small_disk: Path, undisturbed: Results) -> None:
    (place.folder / "runs").symlink_to(small_disk)
    place.site(slurm="max_crashes = 0")
    place.launch()
    filler = small_disk / "filler"
    with place.held(RUN, 50):
        place.shell(f"dd if=/dev/zero of={filler} bs=64k", check=False)
    place.wait_until_ended()
    assert not place.run(RUN).trained_path.exists()
    assert "no space left on the disk" in place.status("--failures")
    filler.unlink()
    place.launch()
    place.wait_until_ended()
    assert place.results(RUN) == undisturbed


def test_scripts_by_hand(place: Place) -> None:
    """A sweep, whose runs are packed two and two, of whatever value."""
    place.settings(epochs=2)
    place.site(slurm="tasks_per_gpu = 2")
    sweep = "--sweep train.learning_rate=1e-3,2e-3,4e-3"
    place.launch(f"{sweep} --write scripts")
    assert place.cluster.root("squeue --noheader") == ""
    place.shell("sh scripts/submit.sh")
    place.wait_until_ended()
    summary = place.summary()
    assert {name: arm["num_missing"] for name, arm in summary["arms"].items()} == dict.fromkeys(
        ("vae-tiny-lr1e-3", "vae-tiny-lr2e-3", "vae-tiny-lr4e-3"), 0
    )
    assert [point["value"] for point in summary["sweeps"][0]["bases"][0]["points"]] == [1e-3, 2e-3, 4e-3]
    assert [len(element) for element in place.batch("train-0001").record().elements] == [2, 1]
    assert "nothing left to do" in place.launch(sweep).stdout


def test_preparation_comes_first(place: Place) -> None:
    place.settings(epochs=2)
    celeba = write_celeba(place.folder / "celeba", 60)
    for path in (place.folder / "celeba", *(place.folder / "celeba").rglob("*")):
        os.chown(path, place.folder.stat().st_uid, place.folder.stat().st_gid)
    data = f"--celeba {celeba} --data data"
    assert "prepared first" in place.launch(data=data).stdout
    assert "are in the queue already" in place.launch(data=data).stdout
    place.wait_until_ended()
    assert place.summary()["arms"]["vae-tiny"]["num_missing"] == 0


def test_without_accounting(cluster_without_accounting: Cluster, faces: DataConfig, undisturbed: Results) -> None:
    place = new_place(cluster_without_accounting, faces.path)
    place.launch()
    with place.held(RUN, 50):
        place.signal_task(RUN, signal.SIGKILL)
    with place.held(RUN, 50, attempt=2):
        assert "crashed x1" in place.status()
        place.shell(f"scancel {place.element('train-0001')}")
    place.wait_until_ended()
    assert "accounting down: states from squeue and heartbeats" in place.status()
    place.launch()
    place.wait_until_ended()
    assert place.results(RUN) == undisturbed


ARMS = """
[control]
base = "spike-gradient"
[control.spike]
steps_before_end = 100
"""


@pytest.mark.long
def test_whole_node(place: Place) -> None:
    """Eight runs on the four GPUs of one element, whose time ends, which is put back, and loses a task.

    All eight end as the same runs alone.
    """
    runs = [f"vae-tiny-seed{seed:03d}" for seed in range(8)]
    place.site(train="gpus = 4\ntasks_per_gpu = 2", statistics="tasks_at_once = 4")
    place.launch(seeds=8)
    element = place.element("train-0001")
    with place.held(RUN, 50):
        shown = place.cluster.root(f"squeue --noheader --jobs={element} --format=%b|%C").strip()
        assert shown in ("gres:gpu:4|8", "gres/gpu:4|8")  # Slurm 22, 24
        place.end_its_time(element, RUN)
    with place.held(RUN, 60, attempt=2):
        place.shell(f"scontrol requeue {element}")
    with place.held(RUN, 70, attempt=3):
        place.signal_task(RUN, signal.SIGKILL)
    place.wait_until_ended(900)
    noted = [kind for kind in place.kinds("train-0001") if kind != "ended"]  # no time is left to note that
    assert noted == ["start", "requeue", "start", "start", "crash", "requeue", "start", "done"]
    seen = [started_with(place, run) for run in runs]
    assert sorted(map(str, seen)) == ["0", "0", "1", "1", "2", "2", "3", "3"]
    starts = [json.loads(attempt.start_path.read_text()) for run in runs for attempt in all_attempts(place.run(run))]
    later = {start["cuda_visible_devices"] for start in starts if start["stage"] == "train"}
    assert later == {"0", "1", "2", "3"}  # at no start two
    assert place.summary()["arms"]["vae-tiny"]["num_missing"] == 0
    assert place.kinds("statistics-0001") == ["start", "done"]
    alone = new_place(place.cluster, str(place.folder / "faces"))
    alone.launch_here(seeds=8)
    assert [run for run in runs if place.results(run) != alone.results(run)] == []


@pytest.mark.long
def test_replay(cluster: Cluster) -> None:
    """A positive control, and its forks, as arrays."""
    place = Place(cluster, cluster.new_folder())
    place.site()
    place.write("arms.toml", ARMS)
    place.shell("python -m vaehpc.prepare --synthetic 380 --size 32 --num-train 320 --workers 1 --out faces")
    net = (
        "--model.filters 8 8 16 16 --model.z-dim 16 --train.batch-size 16 --train.epochs 24 --train.learning-rate 0.002"
    )
    place.shell(f"python -m vaehpc.launch --study study --data faces --seeds 1 --arms arms.toml --site site.toml {net}")
    place.wait_until_ended()
    line = (
        "python -m vaehpc.replay study --run control-seed000 --trigger 1 --variants identical clipped --site site.toml"
        " --study forks"
    )
    place.shell(line)
    place.wait_until_ended(400)
    told = place.shell(line).stdout
    assert "nothing left to do" in told
    assert "identical (nothing): 3 of 3 jump" in told
    assert "done" in place.shell("python -m vaehpc.status forks").stdout


def refused(place: Place, *more: str, slurm: str = "", hours: float = 0.2) -> str:
    """The message of a launch that exits with 2 and queues nothing."""
    place.site(slurm=slurm, hours=hours)
    done = place.launch(*more, check=False)
    assert done.returncode == 2, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    assert place.cluster.root("squeue --noheader") == ""
    return done.stderr


def test_what_slurm_refuses_is_said_before_anything_is_queued(place: Place) -> None:
    place.settings(epochs=2)
    message = refused(place, slurm='account = "facse"')
    assert "Invalid account" in message
    assert "faces" in message
    message = refused(place, slurm='constraint = "a100"')
    assert "Invalid feature" in message
    message = refused(place, hours=72)
    assert "4320 minutes, and its partition allows 2880" in message
    assert "hours = 48 in [jobs.train]" in message
    place.site()
    site = (place.folder / "site.toml").read_text()
    place.write("site.toml", site.replace('"gpu"', '"gup"'))
    done = place.launch(check=False)
    assert done.returncode == 2
    assert "invalid partition" in done.stderr
    assert "Valid partitions: cpu, gpu, gpu-high" in done.stderr
    assert "no usable vaehpc" in refused(place, slurm='python = "/usr/bin/python3 -S"')
    assert "no access to" in refused(place, "--out /usr/runs")


def test_submit_limit_of_an_account(place: Place) -> None:
    """3 elements in the queue are a training, its statistics, the aggregate."""
    place.settings(epochs=2)
    place.site(slurm='account = "small"')
    for left in (2, 1):
        assert f"{left} runs do not fit" in place.launch(seeds=3).stdout
        place.wait_until_ended()
        assert place.summary()["arms"]["vae-tiny"]["num_missing"] == left


def test_submit_limit_of_a_qos(place: Place) -> None:
    """5 elements in the queue are two runs; while they are there, nothing more fits."""
    place.site(slurm='qos = "few"')
    place.cluster.root("scontrol update PartitionName=gpu State=DOWN")
    try:
        for _ in range(2):
            assert "1 runs do not fit" in place.launch(seeds=3).stdout
            assert sorted(len(batch.record().elements) for batch in place.study.batches()) == [1, 2, 2]
    finally:
        place.cluster.root("scontrol update PartitionName=gpu State=UP")
