"""A study on a real Slurm, in a shell and on a cluster that would turn it round."""

from __future__ import annotations

import pytest

from tests.cluster.cluster import Cluster
from tests.cluster.studies import Place, new_place
from vaehpc.schema.config import DataConfig

HOSTILE = {
    "SBATCH_EXPORT": "NONE",
    "SBATCH_MEM_PER_NODE": "7",
    "SBATCH_TIMELIMIT": "1",
    "SBATCH_PARTITION": "gpu-high",
    "SBATCH_ACCOUNT": "small",
    "SBATCH_ARRAY_INX": "0-3",
    "SBATCH_WAIT": "1",
    "SBATCH_NO_REQUEUE": "1",
    "SQUEUE_STATES": "COMPLETING",
    "SQUEUE_PARTITION": "gpu-high",
    "SQUEUE_FORMAT": "%i",
    "SACCT_FORMAT": "State",
    "SINFO_PARTITION": "gpu-high",
    "SINFO_FORMAT": "%n",
    "SCANCEL_STATE": "RUNNING",
    "SLURM_EXPORT_ENV": "NONE",
    "SLURM_CLUSTERS": "elsewhere",
    "SLURM_TIME_FORMAT": "relative",
    "SLURM_JOB_ID": "1",
}


@pytest.fixture
def place(cluster: Cluster, faces: DataConfig) -> Place:
    found = new_place(cluster, faces.path)
    found.settings(epochs=2)
    return found


def hostile(place: Place) -> dict[str, str]:
    """A shell's variables, and folders of PATH that may not be read. On a node its settings leave a file `leaked`."""
    leak = f'[ -z "${{SLURMD_NODENAME:-}}" ] || touch {place.folder}/leaked'
    place.write("bash_env", f"{leak}\nset -efu\nIFS=,\nexport OMP_NUM_THREADS=7\nsrun() {{ false; }}\n")
    closed = place.folder / "closed"
    closed.mkdir(mode=0o700)  # root's
    path = f"{closed}:{place.cluster.folder}/python/bin:/usr/bin:/bin"
    return {**HOSTILE, "BASH_ENV": str(place.folder / "bash_env"), "PATH": path}


def test_a_hostile_shell_changes_nothing(place: Place) -> None:
    """The same jobs in the same queue, with the same results; by scripts that somebody submits by hand, too."""
    shell, cluster, line = hostile(place), place.cluster, place.line(seeds=2)

    def said(command: str, variables: dict[str, str] | None = shell) -> str:
        return cluster.user(command, cwd=place.folder, seconds=120, variables=variables).stdout

    cluster.root("scontrol update PartitionName=gpu State=DOWN")
    said(line)
    said("python -m vaehpc.status study --cancel")
    assert cluster.root("squeue --noheader") == ""
    said(line)
    assert "train-0002: 2 elements are in the queue already" in said(line)
    assert "2 waiting" in said("python -m vaehpc.status study")
    by_hand = new_place(cluster, str(place.folder / "faces"))
    by_hand.settings(epochs=2)
    cluster.user(by_hand.line("--write scripts"), cwd=by_hand.folder, seconds=120)
    cluster.user("sh scripts/submit.sh", cwd=by_hand.folder, variables=shell)
    for where, batch, names in ((place, "train-0002", ("{}_0", "{}_1")), (by_hand, "train-0001", ("{}",))):
        job = where.batch(batch).job()
        shown = cluster.root(f"squeue --noheader --array --jobs={job} --format=%i|%P|%l|%m|%a").split()
        assert shown == [f"{name.format(job)}|gpu|12:00|1.50G|faces" for name in names]
        assert "Requeue=1" in cluster.root(f"scontrol show job {job}").split()
    cluster.root("scontrol update PartitionName=gpu State=UP")
    place.wait_until_ended(420)
    assert place.summary()["arms"]["vae-tiny"]["num_missing"] == 0
    stages = ("train", "statistics", "aggregate")
    assert {batch.name for batch in place.study.batches()} == {f"{stage}-000{n}" for stage in stages for n in (1, 2)}
    assert by_hand.results("vae-tiny-seed000") == place.results("vae-tiny-seed000")
    assert not (place.folder / "leaked").exists()
    usage = "python -m vaehpc.status study --usage"
    assert said(usage) == said(usage, None)


def test_an_environment_that_a_site_does_not_hand_on(place: Place) -> None:
    """Each stage's task has it all the same."""
    python = place.folder / "python"
    python.write_text(
        "#!/bin/sh\n"
        f'[ -z "${{SLURM_STEP_ID:-}}" ] || env > "{place.folder}/seen-$SLURM_JOB_NAME"\n'
        f'exec {place.cluster.folder}/python/bin/python "$@"\n'
    )
    python.chmod(0o755)
    place.site(slurm=f'options = ["--export=NONE"]\npython = "{python}"', environment='GREETING = "two words"')
    place.launch()
    place.wait_until_ended()
    assert place.summary()["arms"]["vae-tiny"]["num_missing"] == 0
    seen = [path.read_text().splitlines() for path in place.folder.glob("seen-study.*-0001")]
    assert len(seen) == 3
    for lines in seen:
        assert {"GREETING=two words", "OMP_NUM_THREADS=1"} <= {*lines}
        assert {"PATH", "HOME"} <= {line.partition("=")[0] for line in lines}


def test_a_partition_with_a_qos_of_its_own(place: Place) -> None:
    """Two trainings fit there; what is queued elsewhere does not count."""
    cluster = place.cluster
    cluster.root("sacctmgr --immediate add qos gpu_part MaxSubmitJobsPerUser=2")
    cluster.root("scontrol update PartitionName=gpu QOS=gpu_part State=DOWN")
    try:
        assert "2 runs do not fit" in place.launch(seeds=4).stdout
        assert sorted(len(batch.record().elements) for batch in place.study.batches()) == [1, 2, 2]
        assert "2 runs do not fit" in place.launch(seeds=4).stdout
    finally:
        cluster.root("scontrol update PartitionName=gpu QOS= State=UP")


def test_all_nodes_are_drained(place: Place) -> None:
    """sbatch queues what its --test-only refuses."""
    place.cluster.root("scontrol update NodeName=g[1-2] State=DRAIN Reason=tests")
    said = place.launch().stdout
    assert "No node of partition gpu takes jobs now (drained or down): train-0001 waits until one does" in said
    assert place.cluster.state(place.element("train-0001")) == "PENDING"


def test_a_prolog_that_fails(place: Place) -> None:
    """Slurm holds the element for ever: nobody is left to wait for that."""
    cluster = place.cluster
    fail = cluster.folder / "fail"
    fail.write_text("#!/bin/sh\nexit 1\n")
    fail.chmod(0o755)
    cluster.change(f"Prolog={fail}")
    place.launch()
    element = place.element("train-0001")
    shown = f"squeue --noheader --jobs={element} --format=%r"
    cluster.wait(lambda: "held" in cluster.root(shown), "a held element")
    line = f"1 element will not start by itself (launch failed requeued held): `scontrol release {element}`"
    for command in ("status study", "status study --watch"):
        done = place.shell(f"python -m vaehpc.{command}", check=False)
        assert (done.returncode, line in done.stdout) == (3, True), done.stdout
    waited = place.launch("--wait", check=False)
    assert (waited.returncode, line in waited.stdout) == (3, True), waited.stdout
    cluster.change("")
    cluster.resume_nodes()
    place.shell(f"scontrol release {element}")
    place.wait_until_ended()
    assert place.summary()["arms"]["vae-tiny"]["num_missing"] == 0


def test_a_node_that_does_not_see_the_study(place: Place) -> None:
    """Slurm alone would end every element there in seconds, 0:53, without a log."""
    place.cluster.start_blind_node("g1", place.folder)
    place.launch(seeds=2)
    place.wait_until_ended()
    assert place.summary()["arms"]["vae-tiny"]["num_missing"] == 0
    assert [place.nodes("train-0001", number) for number in (0, 1)] == [["g2"], ["g2"]]
    place.cluster.kill_node("g1")  # it sees again when it is mended
