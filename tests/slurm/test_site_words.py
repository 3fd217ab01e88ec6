"""What a site's file may say, what becomes of it in a batch script, and the examples in jobs/sites."""

import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest

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
    """One that has not begun."""
    return StudyDir(tmp_path / "study")


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


MY = "account=my-project"
ROCM = {"gpu": "rocm"}
CENTRES: dict[str, tuple[str, dict[str, Any], str, str]] = {
    "Perlmutter, shared": (
        "two-accounts", {},
        "account=m1234_g array=0-15%16 constraint=gpu cpus-per-task=32 gpus-per-node=1 mem=57344M qos=shared time=1440",
        "account=m1234 array=0-15%16 constraint=cpu cpus-per-task=2 mem=8192M qos=shared time=120",
    ),
    "Perlmutter, regular": (
        "two-accounts",
        {"slurm": {"qos": "regular"}, "train": {"gpus": 4, "tasks_per_gpu": 2, "cpus": 16, "memory_gb": 28}},
        "account=m1234_g array=0-1%2 constraint=gpu cpus-per-task=128 gpus-per-node=4 mem=229376M qos=regular"
        " time=1440",
        "account=m1234 array=0-1%2 constraint=cpu cpus-per-task=2 mem=8192M qos=regular time=960",
    ),
    "JUWELS Booster": (
        "whole-node", {},
        f"{MY} array=0-1%2 cpus-per-task=48 exclusive gres=gpu:4 partition=booster time=1440",
        f"{MY} array=0-1%2 cpus-per-task=32 exclusive partition=batch time=120",
    ),
    "LUMI, standard-g": (
        "whole-node",
        {"slurm": {"gpu_partition": "standard-g", "cpu_partition": "standard", "at_once": 200, "max_queued": 210},
         "container": ROCM, "train": {"gpus": 8, "cpus": 3}},
        f"{MY} cpus-per-task=48 exclusive gres=gpu:8 partition=standard-g time=1440",
        f"{MY} cpus-per-task=32 exclusive partition=standard time=240",
    ),
    "LUMI, small-g": (
        "shared-gpu",
        {"slurm": {"gpu_partition": "small-g", "cpu_partition": "small", "gpu_type": None}, "container": ROCM,
         "train": {"cpus": 3, "memory_gb": 30}},
        f"{MY} array=0-7%8 cpus-per-task=6 gpus-per-node=1 mem=61440M partition=small-g time=1440",
        f"{MY} array=0-7%8 cpus-per-task=4 mem=6144M partition=small time=120",
    ),
    "Mahti, gpusmall": (
        "fixed-memory", {},
        f"{MY} array=0-15%16 cpus-per-task=32 gres=gpu:a100:1,nvme:100 partition=gpusmall time=1440",
        f"{MY} array=0-15%16 cpus-per-task=2 partition=small time=120",
    ),
    "Mahti, a slice": (
        "fixed-memory", {"slurm": {"gpu_type": "a100_1g.5gb"}, "train": {"cpus": 4, "options": None}},
        f"{MY} array=0-15%16 cpus-per-task=4 gres=gpu:a100_1g.5gb:1 partition=gpusmall time=1440",
        f"{MY} array=0-15%16 cpus-per-task=2 partition=small time=120",
    ),
    "Mahti, gpularge": (
        "whole-node",
        {"slurm": {"gpu_partition": "gpularge", "cpu_partition": "small", "gpu_type": "a100", "options": None},
         "train": {"cpus": 16}},
        f"{MY} array=0-1%2 cpus-per-task=128 gres=gpu:a100:4 partition=gpularge time=1440",
        f"{MY} array=0-1%2 cpus-per-task=32 partition=small time=120",
    ),
    "Snellius": (
        "shared-gpu", {"slurm": {"tasks_per_gpu": 8}, "train": {"cpus": 2, "memory_gb": 15}},
        f"{MY} array=0-1%2 cpus-per-task=16 gpus-per-node=a100:1 mem=122880M partition=gpu_a100 time=1440",
        f"{MY} array=0-1%2 cpus-per-task=16 mem=24576M partition=rome time=120",
    ),
    "Leonardo": (
        "two-accounts",
        {"slurm": {"account": "dcgp", "cpu_partition": "dcgp_usr_prod", "gpu_request": "gres", "qos": None,
                   "constraint": None},
         "train": {"account": "boost", "partition": "boost_usr_prod", "constraint": None, "cpus": 8, "memory_gb": 120}},
        "account=boost array=0-15%16 cpus-per-task=8 gres=gpu:1 mem=122880M partition=boost_usr_prod time=1440",
        "account=dcgp array=0-15%16 cpus-per-task=2 mem=8192M partition=dcgp_usr_prod time=120",
    ),
    "MareNostrum 5": (
        "two-accounts",
        {"slurm": {"account": "bsc1", "qos": "gp_bscls", "gpu_request": "gres", "memory": "none", "constraint": None},
         "train": {"account": None, "qos": "acc_bscls", "constraint": None, "cpus": 20}},
        "account=bsc1 array=0-15%16 cpus-per-task=20 gres=gpu:1 qos=acc_bscls time=1440",
        "account=bsc1 array=0-15%16 cpus-per-task=2 qos=gp_bscls time=120",
    ),
    "the Alliance": (
        "shared-gpu", {"slurm": {"gpu_partition": None, "cpu_partition": None, "gpu_type": "h100"}},
        f"{MY} array=0-7%8 cpus-per-task=18 gpus-per-node=h100:1 mem=122880M time=1440",
        f"{MY} array=0-7%8 cpus-per-task=4 mem=6144M time=120",
    ),
    "Vista": (
        "no-gres", {},
        f"{MY} array=0-3%4 cpus-per-task=72 partition=gh time=1440",
        f"{MY} array=0-3%4 cpus-per-task=32 partition=gg time=120",
    ),
    "Lonestar6": (
        "no-gres",
        {"slurm": {"gpu_partition": "gpu-a100", "cpu_partition": "normal"}, "train": {"gpus": 3, "cpus": 10}},
        f"{MY} array=0-1%2 cpus-per-task=120 partition=gpu-a100 time=1440",
        f"{MY} array=0-1%2 cpus-per-task=32 partition=normal time=360",
    ),
    "Frontier": (
        "whole-node",
        {"slurm": {"gpu_partition": "batch", "constraint": "nvme", "options": None, "max_queued": 100},
         "container": ROCM, "train": {"gpus": 8, "cpus": 3, "hours": 2}},
        f"{MY} constraint=nvme cpus-per-task=48 gres=gpu:8 partition=batch time=120",
        f"{MY} constraint=nvme cpus-per-task=32 partition=batch time=240",
    ),
    "Alps": (
        "whole-node",
        {"slurm": {"gpu_partition": "normal", "cpu_partition": "normal"}, "train": {"cpus": 36},
         "container": {"runtime": "pyxis", "image": "/shared/train.toml", "analysis_image": "/shared/analysis.toml"}},
        f"{MY} array=0-1%2 cpus-per-task=288 exclusive gres=gpu:4 partition=normal time=1440",
        f"{MY} array=0-1%2 cpus-per-task=32 exclusive partition=normal time=120",
    ),
    "TU Dresden's Alpha": (
        "shared-gpu",
        {"slurm": {"gpu_partition": "alpha", "cpu_partition": "alpha", "gpu_request": "gres", "gpu_type": None},
         "train": {"cpus": 3, "memory_gb": 45}},
        f"{MY} array=0-7%8 cpus-per-task=6 gres=gpu:1 mem=92160M partition=alpha time=1440",
        f"{MY} array=0-7%8 cpus-per-task=4 mem=6144M partition=alpha time=120",
    ),
    "NHR@FAU": (
        "slurm",
        {"slurm": {"gpu_partition": "a100", "gpu_type": "a100", "memory": "none", "options": ["--export=NONE"]},
         "train": {"cpus": 16}},
        "array=0-15%16 cpus-per-task=16 export=NONE gres=gpu:a100:1 partition=a100 time=1440",
        "array=0-15%16 cpus-per-task=2 export=NONE time=120",
    ),
}  # fmt: skip
"""Of each centre an example of jobs/sites, what is edited in it, None being left out, and what the scripts then say."""
OF_CENTRES = {
    *("account", "array", "constraint", "cpus-per-task", "exclusive", "export", "gres", "gpus-per-node", "mem"),
    *("mem-per-cpu", "partition", "qos", "time"),
}


@pytest.mark.parametrize("centre", CENTRES)
def test_what_centres_ask_for_can_be_said(study: StudyDir, centre: str) -> None:
    """Each in the words of its own documentation, and none of those that it refuses."""
    example, edits, *wanted = CENTRES[centre]
    chosen = tomllib.loads((SITES / f"{example}.toml").read_text())
    tables = {**chosen, "train": chosen.setdefault("jobs", {}).setdefault("train", {})}
    for name, edited in edits.items():
        for key, value in edited.items():
            tables[name][key] = value
            if value is None:
                del tables[name][key]
    found = options(study, resolved(SiteConfig.model_validate(chosen)))
    for stage, words in zip(("train", "statistics"), wanted, strict=True):
        assert {word for word in found[stage] if word.partition("=")[0] in OF_CENTRES} == set(words.split())


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
