"""The doctor on a real Slurm: what is right, each wrong name, visits that run, wait, fail and are interrupted."""

import signal
from pathlib import Path

import pytest

from tests.cluster import users
from tests.cluster.cluster import SMALL_ACCOUNT, Cluster

SITE = """
executor = "slurm"
[environment]
OMP_NUM_THREADS = "1"
[slurm]
gpu_partition = "{gpu_partition}"
cpu_partition = "cpu"
{slurm}
[jobs.prepare]
cpus = 2
memory_gb = 1
[jobs.train]
memory_gb = 2
hours = {hours}
[jobs.statistics]
memory_gb = 1
hours = 1
[jobs.aggregate]
memory_gb = 1
"""


def site(cluster: Cluster, slurm: str = "", hours: float = 1, gpu_partition: str = "gpu") -> Path:
    """A folder of the user's with site.toml."""
    folder = cluster.new_folder()
    (folder / "site.toml").write_text(SITE.format(slurm=slurm, hours=hours, gpu_partition=gpu_partition))
    return folder


def examine(cluster: Cluster, folder: Path, options: str = "") -> tuple[int, dict[str, str]]:
    """Exit code, and what the doctor says, by the name of the check."""
    done = cluster.user(f"python -m vaehpc.doctor --site site.toml {options}", cwd=folder, seconds=300, check=False)
    said = [line for line in done.stdout.splitlines()[:-1] if not line.startswith("Visits: ")]
    parts = [(line[:11].strip(), *line[13:].split(": ", 1)) for line in said]
    assert [path.name for path in folder.iterdir()] == ["site.toml"]
    return done.returncode, {name: f"{state}: {found}" for state, name, found in parts}


def wrong_ones(found: dict[str, str]) -> set[str]:
    return {name for name, text in found.items() if text.startswith("WRONG")}


def test_visits_see_the_nodes_and_the_missing_gpu(cluster: Cluster) -> None:
    folder = site(cluster)
    code, found = examine(cluster, folder, "--probe")
    assert code == 3
    assert wrong_ones(found) == {"GPU on g1"}  # the cluster's GPUs are fakes
    assert "TensorFlow sees 0 of 1; CUDA_VISIBLE_DEVICES = 0; " in found["GPU on g1"]
    assert "tensorflow-cpu is installed, which never uses one" in found["GPU on g1"]
    assert found["account"] == "ok: faces, the default; this user's: faces, small"
    assert found["sbatch of train"] == "ok: sbatch --test-only takes its script"
    for node in ("g1", "c1"):
        assert found[f"shared folder on {node}"].startswith("ok: seen both ways")
        assert found[f"versions on {node}"].startswith("ok: ")
        assert found[f"environment on {node}"].startswith("ok: ")
    assert found["TensorFlow on g1"].startswith("ok: ")
    assert cluster.user("squeue --noheader").stdout == ""


def test_wrong_names_are_answered_with_the_right_ones(cluster: Cluster) -> None:
    folder = site(cluster, f'account = "{SMALL_ACCOUNT}s"', gpu_partition="gpuu")
    code, found = examine(cluster, folder)
    assert code == 3
    assert wrong_ones(found) == {"gpu_partition", "account", "sbatch of train", "sbatch of statistics"}
    assert "did you mean 'gpu'?" in found["gpu_partition"]
    assert "did you mean 'small'?" in found["account"]
    assert "Invalid partition name specified" in found["sbatch of train"]
    assert cluster.user("squeue --noheader").stdout == ""


@pytest.mark.parametrize(
    ("slurm", "hours", "wrong"),
    [
        ("", 72, {"resources of train": "gpu allows 48 h, and Slurm would let it wait for ever"}),
        ('qos = "high"', 1, {"QOS": "'high' is not allowed", "sbatch of train": "Invalid qos specification"}),
        ('exclude = "g7"', 1, {"sbatch of train": "Invalid node name specified"}),
        ("constraint = 'a100'", 1, {"resources of train": "no node of gpu has the feature 'a100'"}),
        ('gpu_type = "h100"', 1, {"resources of train": "1 h100 GPU", "sbatch of train": "not available"}),
    ],
)
def test_each_wrong_setting(cluster: Cluster, slurm: str, hours: float, wrong: dict[str, str]) -> None:
    code, found = examine(cluster, site(cluster, slurm, hours))
    assert code == 3
    for name, words in wrong.items():
        assert name in wrong_ones(found)
        assert words in found[name]


def test_a_visit_whose_python_is_not_there(cluster: Cluster) -> None:
    code, found = examine(cluster, site(cluster, 'python = "/nowhere/python"'), "--probe")
    assert code == 3
    assert wrong_ones(found) == {"visit of train", "visit of statistics"}
    assert "/nowhere/python: No such file or directory" in found["visit of train"]
    assert "'python' in [slurm]" in found["visit of train"]


def test_a_visit_that_only_waits_is_cancelled_and_not_wrong(cluster: Cluster) -> None:
    code, found = examine(cluster, site(cluster, 'options = ["--begin=now+1hour"]'), "--probe --minutes 0.1")
    assert code == 0
    assert "train is PENDING (BeginTime). It was cancelled" in found["visit of train"]
    assert cluster.user("squeue --noheader").stdout == ""


def test_an_interrupted_visit_leaves_nothing(cluster: Cluster) -> None:
    folder = site(cluster, 'options = ["--begin=now+1hour"]')
    process = cluster.begin("exec python -m vaehpc.doctor --site site.toml --probe", cwd=folder)
    cluster.wait(lambda: len(cluster.user("squeue --noheader").stdout.splitlines()) == 2, "two visits are queued")
    process.send_signal(signal.SIGTERM)
    done = users.finish(process, 60)
    assert (done.returncode, "interrupted" in done.stderr) == (130, True)
    assert cluster.user("squeue --noheader").stdout == ""
    assert [path.name for path in folder.iterdir()] == ["site.toml"]


def test_accounting_that_is_down_is_said(cluster: Cluster) -> None:
    cluster.stop_database()
    code, found = examine(cluster, site(cluster))
    assert code == 3
    assert wrong_ones(found) == {"accounting"}
    assert "Connection refused" in found["accounting"]


def test_a_controller_that_is_down_is_said(cluster: Cluster) -> None:
    cluster.stop_controller()
    code, found = examine(cluster, site(cluster), "--probe")
    assert code == 3
    assert wrong_ones(found) == {"Slurm"}
    assert "is DOWN" in found["Slurm"]
    assert found["visit"] == "not checked: nothing can be submitted"


def test_a_cluster_without_accounting_is_right(cluster_without_accounting: Cluster) -> None:
    code, found = examine(cluster_without_accounting, site(cluster_without_accounting))
    assert code == 0
    assert found["accounting"].startswith("ok: off: states come from squeue and heartbeats")
    assert "account" not in found


def test_a_client_with_a_wrong_configuration_is_wrong(cluster: Cluster) -> None:
    folder = site(cluster)
    configuration = cluster.new_folder() / "slurm.conf"
    configuration.write_text("Nonsense=1\n")
    line = f"SLURM_CONF={configuration} python -m vaehpc.doctor --site site.toml"
    done = cluster.user(line, cwd=folder, seconds=120, check=False)
    assert done.returncode == 3
    assert [line for line in done.stdout.splitlines() if line.startswith("WRONG        Slurm: sinfo")]
