"""What a site's file may say, what becomes of it in a batch script, and the examples in jobs/sites."""

import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests import plant
from tests.examples import AE, VAE, study_config
from tests.slurm.clients import Clients
from vaehpc.command import UserError
from vaehpc.schema.site import OWN_OPTIONS, SiteConfig
from vaehpc.slurm.arrays import Limit, Limits, Names, Queue, arranged, script
from vaehpc.slurm.queueing import _asked_of_slurm
from vaehpc.study.files import StudyDir
from vaehpc.study.sites import Site, read_site, resolved

SITES = Path(__file__).parents[2] / "jobs/sites"
EXAMPLES = sorted(path.name for path in SITES.glob("*.toml") if path.name not in ("local.toml", "slurm.toml"))
CONFIG = study_config([AE, VAE], 8)


@pytest.fixture
def study(tmp_path: Path) -> StudyDir:
    return plant.study(tmp_path / "study", CONFIG)


def options(study: StudyDir, site: Site) -> dict[str, set[str]]:
    """What the script of the first array of each stage tells Slurm."""
    batches, _ = arranged(study, CONFIG, site, Queue({}, {}), Limits(1000, 1000), Names(study))
    found = {}
    for batch in reversed(batches):
        lines = script(study, batch, site).splitlines()
        found[batch.stage] = {line.removeprefix("#SBATCH --") for line in lines if line.startswith("#SBATCH")}
    return found


def site(slurm: dict[str, Any] | None = None, **jobs: Any) -> Site:
    return resolved(SiteConfig.model_validate({"executor": "slurm", "slurm": slurm or {}, "jobs": jobs}))


def test_words_of_a_stage_win_over_those_of_all(study: StudyDir) -> None:
    words = {"account": "cpu", "qos": "short", "constraint": "cpu", "reservation": "course", "options": ["--nice=1"]}
    own = {"partition": "gpus", "account": "gpu", "qos": "long", "constraint": "gpu", "exclude": "g1", "options": []}
    found = options(study, site(words, train=own))
    assert found["train"] >= {"partition=gpus", "account=gpu", "qos=long", "constraint=gpu", "exclude=g1"}
    assert found["train"] >= {"reservation=course"}
    assert "nice=1" not in found["train"]
    assert found["statistics"] >= {"account=cpu", "qos=short", "constraint=cpu", "reservation=course", "nice=1"}
    assert not any(word.startswith(("partition", "exclude")) for word in found["statistics"])


@pytest.mark.parametrize(
    ("slurm", "said", "unsaid"),
    [
        ({}, {"gres=gpu:4", "mem=65536M"}, ()),
        ({"gpu_request": "gpus", "gpu_type": "h100"}, {"gpus-per-node=h100:4"}, ("gres",)),
        ({"gpu_request": "none", "memory": "none"}, set(), ("gres", "gpus", "mem")),
        ({"memory": "per-cpu"}, {"mem-per-cpu=4096M"}, ("mem=",)),
        ({"options": ["--gres=nvme:100"]}, {"gres=gpu:4,nvme:100"}, ()),
    ],
)
def test_gpus_and_memory_in_the_words_of_a_centre(
    study: StudyDir, slurm: dict[str, Any], said: set[str], unsaid: tuple[str, ...]
) -> None:
    found = options(study, site(slurm, train={"gpus": 4}))["train"]
    assert found >= said | {"cpus-per-task=16"}
    assert not [word for word in found if unsaid and word.startswith(unsaid)]
    if "options" in slurm:
        assert "gres=nvme:100" in options(study, site(slurm))["statistics"]


def test_a_whole_node_is_one_element(study: StudyDir) -> None:
    """8 runs on its 4 GPUs; their statistics side by side, in as many rounds as there must be."""
    whole = site({}, train={"gpus": 4, "tasks_per_gpu": 2, "hours": 3}, statistics={"tasks_at_once": 3, "hours": 1})
    batches, _ = arranged(study, CONFIG, whole, Queue({}, {}), Limits(1000, 1000), Names(study))
    assert [len(element) for element in batches[0].elements] == [8, 8]
    text = script(study, batches[0], whole)
    assert "run_pack('\"'\"'vaehpc.tasks.train:run'\"'\"', 8, sys.argv[1:], 4)" in text
    found = options(study, whole)
    assert found["train"] >= {"array=0-1%2", "gres=gpu:4", "cpus-per-task=32", "mem=131072M", "time=180"}
    assert found["statistics"] >= {"array=0-1%2", "cpus-per-task=6", "mem=24576M", "time=180"}


@pytest.mark.parametrize("name", [*OWN_OPTIONS, "part", "gpu"])
def test_an_option_that_the_suite_says_itself_is_refused_with_the_key(name: str, tmp_path: Path) -> None:
    """In its shortened forms, too; in [slurm] and for a stage."""
    for table in ("slurm", "jobs.train"):
        path = tmp_path / "site.toml"
        path.write_text(f'executor = "slurm"\n[{table}]\noptions = ["--{name}=1"]\n')
        with pytest.raises(UserError, match=rf"{table}.options .*--{name} is (said by|not possible|the suite)"):
            read_site(path)


def test_gpus_among_free_gres_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "site.toml"
    path.write_text('executor = "slurm"\n[slurm]\noptions = ["--gres=nvme:1,gpu:2"]\n')
    with pytest.raises(UserError, match=r"--gres is said by gpus in \[jobs.STAGE\]"):
        read_site(path)


@pytest.mark.parametrize("name", EXAMPLES)
def test_examples(study: StudyDir, name: str, tmp_path: Path) -> None:
    """Each can be read, and its scripts are bash."""
    chosen = resolved(read_site(SITES / name))
    batches, num_left = arranged(study, CONFIG, chosen, Queue({}, {}), Limits(1000, 1000), Names(study))
    assert num_left == 0
    for batch in batches:
        (tmp_path / "script.sh").write_text(script(study, batch, chosen))
        subprocess.run(["bash", "-n", tmp_path / "script.sh"], check=True)


def test_what_the_examples_say(study: StudyDir) -> None:
    said = {name: options(study, resolved(read_site(SITES / name))) for name in EXAMPLES}
    assert said["shared-gpu.toml"]["train"] >= {"gpus-per-node=a100:1", "cpus-per-task=18", "mem=122880M"}
    assert said["shared-gpu.toml"]["statistics"] >= {"partition=rome", "cpus-per-task=4"}  # of packs of two
    assert said["whole-node.toml"]["train"] >= {"gres=gpu:4", "exclusive", "cpus-per-task=48", "array=0-1%2"}
    assert said["fixed-memory.toml"]["train"] >= {"gres=gpu:a100:1,nvme:100"}
    assert not [word for word in said["no-gres.toml"]["train"] if word.startswith(("gres", "gpus", "mem"))]
    assert said["two-accounts.toml"]["train"] >= {"account=m1234_g", "constraint=gpu"}
    assert said["two-accounts.toml"]["statistics"] >= {"account=m1234", "constraint=cpu"}


def test_every_key_is_in_the_file_that_is_copied() -> None:
    text = (SITES / "slurm.toml").read_text()
    for table in (SiteConfig, *(SiteConfig.model_fields[name].annotation for name in ("slurm", "container"))):
        assert table is not None
        missing = [key for key in table.model_fields if key not in text]
        assert missing == []


def test_options_of_srun_are_said_to_srun(study: StudyDir) -> None:
    chosen = site({"srun_options": ["--environment=/shared/x.toml"]})
    batches, _ = arranged(study, CONFIG, chosen, Queue({}, {}), Limits(1000, 1000), Names(study))
    (line,) = (line for line in script(study, batches[0], chosen).splitlines() if line.startswith("srun "))
    assert "--environment=/shared/x.toml" in line.split()


def test_limits_are_asked_of_each_partition_and_account(
    study: StudyDir, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And a rule of the house, max_queued, counts all that is queued."""
    clients = Clients(tmp_path / "bin")
    monkeypatch.setenv("PATH", clients.path())
    clients.answers("scontrol", "MaxArraySize = 1001\n")
    clients.answers_to("scontrol", "partition", "PartitionName=gpu Default=NO QoS=of_gpu\nPartitionName=cpu QoS=N/A\n")
    clients.answers(
        "squeue", "".join(f"9_{number}|RUNNING|g|None|1:00|{p}|/x\n" for number, p in enumerate(("gpu", "cpu")))
    )
    clients.answers_to("sacctmgr", "user", "a|a|normal|||\na|b|normal||30|\n")
    clients.answers_to("sacctmgr", "of_gpu", "8||\n")
    chosen = site(
        {"gpu_partition": "gpu", "cpu_partition": "cpu", "account": "a", "max_queued": 40}, train={"account": "b"}
    )
    _, limits = _asked_of_slurm(study, chosen)
    assert limits.submitted == 38
    assert set(limits.of_stages) == {Limit(28, frozenset(["train"])), Limit(7, frozenset(["train"]))}
