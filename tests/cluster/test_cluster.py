"""The test cluster itself: does it do what Slurm does elsewhere, and leave nothing behind?"""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cluster import processes, users
from tests.cluster.cluster import SMALL_ACCOUNT, SMALL_LIMIT, Cluster


def lines(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.exists() else []


@pytest.mark.parametrize(
    ("options", "seen"),
    [
        ("cpu --nodelist=c1", "c1 GPUs:"),
        ("gpu --nodelist=g1 --gres=gpu:1", "g1 GPUs: 0"),
        ("gpu-high --nodelist=g2 --gpus-per-node=2", "g2 GPUs: 0,1"),
    ],
)
def test_jobs_run_as_the_user_on_the_nodes_of_their_partition(cluster: Cluster, options: str, seen: str) -> None:
    show = "'echo $(id -un) $SLURMD_NODENAME GPUs: $CUDA_VISIBLE_DEVICES'"
    assert cluster.user(f"srun --partition={options} bash -c {show}").stdout == f"{users.USER} {seen}\n"


def test_the_users_python_has_the_packages_of_this_one(cluster: Cluster) -> None:
    line = "import numpy, vaehpc; print(numpy.__version__, vaehpc.__version__)"
    own = subprocess.run([sys.executable, "-c", line], capture_output=True, text=True, check=True).stdout
    assert cluster.user(f"srun python -c '{line}'").stdout == own


def test_squeue_and_sacct_know_the_users_jobs(cluster: Cluster) -> None:
    job = cluster.submit("sleep 60", "--array=0-1 --comment=/some/folder")
    cluster.wait(lambda: cluster.state(f"{job}_1") == "RUNNING", "both elements run")
    queue = cluster.user("squeue --me --array --noheader --sort=i --format=%i:%k").stdout.split()
    assert queue == [f"{job}_0:/some/folder", f"{job}_1:/some/folder"]
    cluster.user(f"scancel {job}_0")
    states = f"sacct --allocations --noheader --parsable2 --format=state --jobs={job}_0"
    cluster.wait(lambda: "CANCELLED by" in cluster.user(states).stdout, "sacct says that the element is cancelled")


@pytest.mark.parametrize(
    ("options", "answer"),
    [
        ("--account=unknown", "Invalid account"),
        ("--partition=unknown", "invalid partition specified: unknown"),
        ("--array=0-9", "Invalid job array specification"),
        (f"--account={SMALL_ACCOUNT} --array=0-{SMALL_LIMIT}", "AssocMaxSubmitJobLimit"),
    ],
)
def test_what_is_not_allowed_is_refused(cluster: Cluster, options: str, answer: str) -> None:
    done = cluster.user(f"sbatch {options} --wrap=true", check=False)
    assert done.returncode == 1
    assert answer in done.stderr


def test_a_step_above_its_memory_limit_is_killed(cluster: Cluster) -> None:
    line = "import time; block = bytearray(300 << 20); time.sleep(60)"
    done = cluster.user(f"srun --mem=100 python -c '{line}'", check=False)
    assert done.returncode == 128 + signal.SIGKILL
    assert "exceeded memory limit" in done.stderr


@pytest.mark.parametrize("told", [True, pytest.param(False, marks=pytest.mark.long)])
def test_a_lost_nodes_job_starts_elsewhere_while_its_orphan_goes_on(cluster: Cluster, told: bool) -> None:
    folder = cluster.new_folder()
    step = "for i in $(seq 600); do sleep 0.1; echo $i >> $SLURMD_NODENAME; done"
    job = cluster.submit(f"cd {folder}; srun bash -c '{step}'", "--partition=gpu")
    cluster.wait(lambda: lines(folder / "g1"), "the job runs on g1")
    if told:
        cluster.lose_node("g1")
    else:
        cluster.kill_node("g1")
    cluster.wait(lambda: lines(folder / "g2"), "the job runs on g2")
    assert cluster.nodes("down") == {"g1"}
    assert cluster.state(job) == "RUNNING"
    seen = len(lines(folder / "g1"))
    cluster.wait(lambda: len(lines(folder / "g1")) > seen, "the orphan goes on")
    cluster.start_node("g1")
    assert cluster.state(job) == "RUNNING"


@pytest.mark.parametrize(
    ("settings", "signals"), [("", "TERM"), ("SlurmctldParameters=preempt_send_user_signal", "USR2 TERM")]
)
def test_a_preempted_job_is_signalled_and_requeued(cluster: Cluster, settings: str, signals: str) -> None:
    folder = cluster.new_folder()
    cluster.change(settings)
    traps = "trap 'echo USR2 >> signals' USR2; trap 'echo TERM >> signals; exit' TERM"
    script = f"cd {folder}; {traps}; echo start $SLURM_RESTART_COUNT >> starts; for i in $(seq 600); do sleep 0.1; done"
    job = cluster.submit(script, "--partition=gpu --nodelist=g1 --exclusive --signal=B:USR2@60")
    cluster.wait(lambda: lines(folder / "starts"), "the job runs")
    cluster.submit("true", "--partition=gpu-high --nodelist=g1 --exclusive")
    cluster.wait(lambda: cluster.state(job) in ("COMPLETING", "PENDING"), "it is preempted")
    cluster.wait(lambda: lines(folder / "signals") == signals.split(), f"signals {signals}")
    cluster.wait(lambda: lines(folder / "starts") == ["start", "start 1"], "it runs again")


def test_the_controller_comes_back_with_its_queue(cluster: Cluster) -> None:
    job = cluster.submit("sleep 60")
    cluster.stop_controller()
    assert cluster.user("scontrol ping", check=False).returncode == 1
    cluster.start_controller()
    cluster.wait(lambda: cluster.state(job) == "RUNNING", "the job runs on")


def test_without_its_database_slurm_runs_on(cluster: Cluster) -> None:
    cluster.stop_database()
    assert cluster.user("sacct", check=False).returncode == 1
    cluster.user("srun true")


def test_mending_brings_everything_back(cluster: Cluster) -> None:
    job = cluster.submit("trap '' TERM; sleep 60; sleep 60", "--partition=gpu")
    cluster.wait(lambda: cluster.state(job) == "RUNNING", "the job runs")
    cluster.root("scontrol update NodeName=c2 State=DRAIN Reason=maintenance")
    cluster.lose_node("c1")
    cluster.change("EnforcePartLimits=ALL")
    cluster.stop_controller()
    cluster.stop_database()
    cluster.mend()
    assert cluster.nodes("idle") == {"g1", "g2", "c1", "c2"}
    assert cluster.user("squeue --noheader").stdout == ""
    cluster.user("sacct")
    assert "EnforcePartLimits       = NO" in cluster.user("scontrol show config").stdout


def test_without_accounting_there_are_no_accounts(cluster_without_accounting: Cluster) -> None:
    cluster_without_accounting.user("srun --account=unknown true")
    assert cluster_without_accounting.user("sacct", check=False).returncode == 1


@pytest.mark.usefixtures("cluster_without_accounting")
def test_nothing_is_left_when_the_tests_are_killed() -> None:
    program = """
from tests.cluster.cluster import Cluster
with Cluster(accounting=False) as cluster:
    cluster.submit("srun sleep 60")
    cluster.wait(lambda: cluster.root("squeue --noheader --states=RUNNING"), "the job runs")
    print(cluster.folder, flush=True)
    cluster.guard.wait()
"""
    # The guard holds the other end of the pipe too: it has come to its end when the pipe has.
    with subprocess.Popen(
        [sys.executable, "-c", program], cwd=users.REPOSITORY, stdout=subprocess.PIPE, text=True, start_new_session=True
    ) as tests:
        assert tests.stdout
        folder = Path(tests.stdout.readline().strip())
        assert processes.belonging_to(folder)
        os.kill(tests.pid, signal.SIGKILL)
        assert tests.stdout.read() == ""
    assert not processes.belonging_to(folder)
    assert not folder.exists()
