"""Which arrays a launch submits to Slurm, and what their scripts say. What Slurm makes of them: tests/cluster."""

import io
import os
import re
import socket
import subprocess
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from tests import plant
from tests.examples import AE, VAE, arm_config, study_config
from tests.slurm.clients import Clients
from vaehpc.command import UserError
from vaehpc.machine.processes import process_start
from vaehpc.schema.config import StudyConfig
from vaehpc.schema.site import Device, ResourcesConfig, SiteConfig
from vaehpc.slurm import queueing, sbatch
from vaehpc.slurm.arrays import (
    Batch,
    Limit,
    Limits,
    Names,
    Queue,
    arranged,
    array,
    claimed,
    preparation,
    require_accepted,
    require_only_submission,
    script,
    study_queue,
    submit,
    write_batches,
)
from vaehpc.slurm.client import QueuedElement, SlurmError
from vaehpc.slurm.queueing import queue_study, write_scripts
from vaehpc.study.files import DataDir, StudyDir
from vaehpc.study.sites import resolved

CONFIG = SiteConfig.model_validate({"executor": "slurm", "slurm": {"gpu_partition": "gpu", "cpu_partition": "cpu"}})
SITE = resolved(CONFIG)
NO_LIMITS = Limits(array_size=1000, submitted=1000)
EMPTY = Queue({}, {})


@pytest.fixture
def config() -> StudyConfig:
    """Two arms with three seeds each."""
    return study_config([AE, VAE], 3)


def test_a_dry_run_shows_one_script_of_each_stage(
    tmp_path: Path, config: StudyConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    def silent(*_: object) -> None:
        raise UserError("Slurm does not answer.")

    monkeypatch.setattr(queueing, "_asked_of_slurm", silent)
    monkeypatch.setattr(queueing, "DEFAULT_ARRAY_SIZE", 4)  # six runs take two arrays
    console = Console(file=io.StringIO(), width=200)
    assert write_scripts(StudyDir(tmp_path / "study"), config, SITE, None, console) == 0
    said = console.file.getvalue()  # type: ignore[attr-defined]
    assert said.count("#!/bin/bash") == 3
    assert re.findall("^# (train|statistics|aggregate)-.*?(a script like it)?$", said, re.MULTILINE) == [
        ("train", ""), ("train", "a script like it"), ("statistics", ""), ("statistics", "a script like it"),
        ("aggregate", ""),
    ]  # fmt: skip
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def study(tmp_path: Path, config: StudyConfig) -> StudyDir:
    """The study as it was launched."""
    return plant.study(tmp_path / "study", config)


def runs_of(batch: Batch) -> list[str]:
    """Names of a batch's runs, or of the study."""
    return [directory.name for element in batch.elements for directory in element]


def mark(study: StudyDir, name: str, *markers: str) -> None:
    """A run has done these stages."""
    for marker in markers:
        (study.path / name / marker).write_text("{}")


def in_queue(study: StudyDir, batch: str, job: str, numbers: range, state: str = "RUNNING") -> list[QueuedElement]:
    """Elements of a batch as squeue shows them."""
    comment = str(study.jobs / batch)
    return [QueuedElement(f"{job}_{number}", state, "g1", "None", None, comment) for number in numbers]


def test_new_study(study: StudyDir, config: StudyConfig) -> None:
    (train, statistics, aggregate), num_left = arranged(study, config, SITE, EMPTY, NO_LIMITS, Names(study))
    names = [f"{arm}-seed{seed:03d}" for seed in range(3) for arm in ("ae", "vae-tiny")]
    assert (train.name, runs_of(train), train.of, train.after) == ("train-0001", names, None, ())
    assert (statistics.name, runs_of(statistics), statistics.of) == ("statistics-0001", names, "train-0001")
    assert (aggregate.name, runs_of(aggregate), aggregate.after) == ("aggregate-0001", ["study"], ("statistics-0001",))
    assert num_left == 0


def test_only_what_is_missing(study: StudyDir, config: StudyConfig) -> None:
    for run in config.runs():
        mark(study, run.name, "trained.json", "statistics.json")
    mark(study, "ae-seed001", "trained.json")
    (study.path / "ae-seed001" / "statistics.json").unlink()
    (study.path / "vae-tiny-seed002" / "trained.json").unlink()
    (study.path / "vae-tiny-seed002" / "statistics.json").unlink()
    batches, _ = arranged(study, config, SITE, EMPTY, NO_LIMITS, Names(study))
    assert [(batch.stage, runs_of(batch), batch.of) for batch in batches] == [
        ("train", ["vae-tiny-seed002"], None),
        ("statistics", ["vae-tiny-seed002"], "train-0001"),
        ("statistics", ["ae-seed001"], None),
        ("aggregate", ["study"], None),
    ]
    assert batches[-1].after == ("statistics-0001", "statistics-0002")


def test_what_is_queued_is_left_alone(study: StudyDir, config: StudyConfig) -> None:
    names = [run.name for run in config.runs()]
    plant.batch(study, "train-0001", [[name] for name in names], job="11")
    plant.batch(study, "statistics-0001", [[name] for name in names], job="12")
    plant.batch(study, "aggregate-0001", [[""]], job="13")
    # Elements 2 to 5 still wait or run; those of the first two failed, and their statistics were cancelled.
    elements = in_queue(study, "train-0001", "11", range(2, 6)) + in_queue(study, "statistics-0001", "12", range(2, 6))
    queue = study_queue(study, elements)
    batches, _ = arranged(study, config, SITE, queue, NO_LIMITS, Names(study))
    assert [(batch.name, runs_of(batch)) for batch in batches] == [
        ("train-0002", names[:2]),
        ("statistics-0002", names[:2]),
        ("aggregate-0002", ["study"]),
    ]
    assert set(batches[-1].after) == {"statistics-0001", "statistics-0002"}


def test_launcher_killed_between_two_submissions(study: StudyDir, config: StudyConfig) -> None:
    names = [run.name for run in config.runs()]
    train = plant.batch(study, "train-0001", [[name] for name in names], job=None)  # killed before it noted the number
    queue = study_queue(study, in_queue(study, "train-0001", "11", range(6)))
    assert train.job() == "11"
    (statistics, aggregate), _ = arranged(study, config, SITE, queue, NO_LIMITS, Names(study))
    assert (statistics.stage, runs_of(statistics), statistics.of) == ("statistics", names, "train-0001")
    # Meanwhile the first has been trained and the second has failed:
    mark(study, names[0], "trained.json")
    queue = study_queue(study, in_queue(study, "train-0001", "11", range(2, 6)))
    batches, _ = arranged(study, config, SITE, queue, NO_LIMITS, Names(study))
    assert [(batch.name, runs_of(batch), batch.of) for batch in batches] == [
        ("train-0002", names[1:2], None),
        ("statistics-0001", names[2:], "train-0001"),
        ("statistics-0002", names[1:2], "train-0002"),
        ("statistics-0003", names[:1], None),
        ("aggregate-0001", ["study"], None),
    ]
    assert "#SBATCH --array=2,3,4,5%256" in script(study, batches[1], SITE)
    (study.path / names[0] / "trained.json").unlink()

    plant.batch(study, "statistics-0001", [[name] for name in names], job="12")
    elements = in_queue(study, "train-0001", "11", range(6)) + in_queue(study, "statistics-0001", "12", range(6))
    (aggregate,), _ = arranged(study, config, SITE, study_queue(study, elements), NO_LIMITS, Names(study))
    assert (aggregate.stage, aggregate.after) == ("aggregate", ("statistics-0001",))


def test_a_study_is_known_by_whatever_path(study: StudyDir, config: StudyConfig, tmp_path: Path) -> None:
    """Home folders are often links: what was queued through one is found through another."""
    names = [run.name for run in config.runs()]
    plant.batch(study, "train-0001", [[name] for name in names], job="11")
    (tmp_path / "link").symlink_to(tmp_path)
    linked = StudyDir(tmp_path / "link" / "study")
    assert study_queue(linked, in_queue(study, "train-0001", "11", range(6))).numbers == {"train-0001": set(range(6))}
    other = plant.study(tmp_path / "other", config)
    assert study_queue(other, in_queue(study, "train-0001", "11", range(6))) == EMPTY


PARENT = os.getppid()
BY_PARENT = f"{socket.gethostname()} {PARENT} {process_start(PARENT)}"


@pytest.mark.parametrize(
    ("launcher", "ago", "job", "is_refused"),
    [
        ("login2 17 4711", 5.0, None, True),
        ("login2 17 4711", 300.0, None, False),  # killed long ago
        ("login2 17 4711", -86400.0, None, False),  # likewise, before the clock was set back
        ("login2 17 4711", 5.0, "11", False),  # accepted
        (BY_PARENT, 300.0, None, True),
        (f"{socket.gethostname()} {PARENT} 0", 5.0, None, False),  # another process had this number
    ],
)
def test_another_launcher_is_not_disturbed(
    study: StudyDir, config: StudyConfig, launcher: str, ago: float, job: str | None, is_refused: bool
) -> None:
    """One that has claimed an array, and that Slurm has not answered yet."""
    plant.batch(study, "train-0001", [[run.name] for run in config.runs()], job=job, ago=ago, launcher=launcher)
    if not is_refused:
        require_only_submission(study, EMPTY)
        return
    with pytest.raises(UserError, match=r"is submitting train-0001.*Nothing was submitted"):
        require_only_submission(study, EMPTY)
    queue = study_queue(study, in_queue(study, "train-0001", "11", range(6)))
    require_only_submission(study, queue)


def test_of_two_launchers_that_see_the_same_queue_one_gets_a_name(study: StudyDir, config: StudyConfig) -> None:
    """Both have listed the names before they asked Slurm."""
    first, second = Names(study), Names(study)
    (train, *_), _ = arranged(study, config, SITE, EMPTY, NO_LIMITS, first)
    (same, *_), _ = arranged(study, config, SITE, EMPTY, NO_LIMITS, second)
    claimed(train, array(study, train, SITE).asked, SITE)
    with pytest.raises(UserError, match="another launcher is submitting"):
        claimed(same, array(study, same, SITE).asked, SITE)


def test_finished_study_is_left_alone(study: StudyDir, config: StudyConfig) -> None:
    for run in config.runs():
        mark(study, run.name, "trained.json", "statistics.json")
    assert [batch.stage for batch in arranged(study, config, SITE, EMPTY, NO_LIMITS, Names(study))[0]] == ["aggregate"]
    study.report.write_text("")
    assert arranged(study, config, SITE, EMPTY, NO_LIMITS, Names(study)) == ([], 0)


def test_chunks_and_limits(study: StudyDir, config: StudyConfig) -> None:
    batches, num_left = arranged(study, config, SITE, EMPTY, Limits(array_size=4, submitted=1000), Names(study))
    assert [(batch.name, len(batch.elements), batch.of) for batch in batches] == [
        ("train-0001", 4, None),
        ("train-0002", 2, None),
        ("statistics-0001", 4, "train-0001"),
        ("statistics-0002", 2, "train-0002"),
        ("aggregate-0001", 1, None),
    ]
    batches, num_left = arranged(study, config, SITE, EMPTY, Limits(array_size=1000, submitted=10), Names(study))
    assert sum(len(batch.elements) for batch in batches) == 9  # 4 trainings, 4 statistics, the aggregate
    assert num_left == 2
    assert arranged(study, config, SITE, EMPTY, Limits(array_size=1000, submitted=0), Names(study))[1] == 6


def test_what_is_trained_is_measured_as_far_as_there_is_room(study: StudyDir, config: StudyConfig) -> None:
    for run in config.runs():
        mark(study, run.name, "trained.json")
    (statistics, _), num_left = arranged(study, config, SITE, EMPTY, Limits(array_size=1000, submitted=4), Names(study))
    assert (len(statistics.elements), num_left) == (3, 3)


def test_several_trainings_on_a_gpu(study: StudyDir, config: StudyConfig) -> None:
    site = replace(SITE, slurm=SITE.slurm.model_copy(update={"tasks_per_gpu": 4}))
    (train, statistics, _), _ = arranged(study, config, site, EMPTY, NO_LIMITS, Names(study))
    assert [len(element) for element in train.elements] == [4, 2]
    assert statistics.elements == train.elements
    assert "--cpus-per-task=16" in script(study, train, site)  # 4 x jobs/train.toml's
    assert "--mem=65536M" in script(study, train, site)
    assert "--gres=gpu:1" in script(study, train, site)
    assert "--time=1440" in script(study, train, site)
    assert "--time=480" in script(study, statistics, site)  # one after the other: 4 x 2 hours


def test_runs_that_start_from_others_wait(tmp_path: Path) -> None:
    config = study_config([AE, arm_config("vae", "vae-from-ae", start_from="ae")], 2)
    study = plant.study(tmp_path / "study", config)
    (first, second, *_), _ = arranged(study, config, SITE, EMPTY, NO_LIMITS, Names(study))
    assert runs_of(first) == ["ae-seed000", "ae-seed001"]
    assert (runs_of(second), second.after) == (["vae-from-ae-seed000", "vae-from-ae-seed001"], ("train-0001",))
    assert "#SBATCH --dependency='afterany:<train-0001>'" in script(study, second, SITE).splitlines()


def test_forks_of_a_replay_are_judged_without_statistics(study: StudyDir, config: StudyConfig) -> None:
    forks = config.model_copy(update={"replay": "of something"})
    mark(study, "ae-seed000", "trained.json")
    (train, verdict), _ = arranged(study, forks, SITE, EMPTY, NO_LIMITS, Names(study))
    assert (train.stage, len(train.elements)) == ("train", 5)
    assert (verdict.stage, runs_of(verdict), verdict.after) == ("verdict", ["study"], ("train-0001",))
    for run in config.runs():
        mark(study, run.name, "trained.json")
    assert [batch.stage for batch in arranged(study, forks, SITE, EMPTY, NO_LIMITS, Names(study))[0]] == ["verdict"]
    study.replay_path.write_text("")
    assert arranged(study, forks, SITE, EMPTY, NO_LIMITS, Names(study)) == ([], 0)


def test_preparation_comes_before_the_launch(study: StudyDir, tmp_path: Path) -> None:
    prepare, launch = preparation(study, DataDir(tmp_path / "faces"))
    assert prepare.elements == ((tmp_path / "faces",),)
    assert launch.of == "prepare-0001"
    assert "afterok:<prepare-0001>" in script(study, launch, SITE)


def test_script_says_what_the_site_says(study: StudyDir, config: StudyConfig) -> None:
    chosen = SiteConfig.model_validate(
        {
            "executor": "slurm",
            "environment": {"GREETING": "two words"},
            "slurm": {
                "gpu_partition": "gpu",
                "account": "faces",
                "qos": "long",
                "constraint": "a100",
                "exclude": "node[3-5]",
                "mail_user": "me@example.org",
                "mail_type": "FAIL",
                "gpu_request": "gpus",
                "gpu_type": "h100",
                "warn_seconds": 77,
                "at_once": 3,
                "python": "/shared/env/bin/python",
                "options": ["--nice=100", "--exclusive"],
            },
            "jobs": {"train": {"hours": 0.5, "memory_gb": 1.5}},
        }
    )
    site = resolved(chosen)
    (train, *_), _ = arranged(study, config, site, EMPTY, NO_LIMITS, Names(study))
    text = script(study, train, site)
    for line in (
        "#SBATCH --account=faces",
        "#SBATCH --array=0-5%3",
        "#SBATCH --constraint=a100",
        "#SBATCH --exclude='node[3-5]'",
        "#SBATCH --exclusive",
        "#SBATCH --gpus-per-node=h100:1",
        "#SBATCH --mail-type=FAIL",
        "#SBATCH --mail-user=me@example.org",
        "#SBATCH --mem=1536M",
        "#SBATCH --nice=100",
        "#SBATCH --partition=gpu",
        "#SBATCH --qos=long",
        "#SBATCH --signal=B:USR2@77",
        "#SBATCH --time=30",
        "export GREETING='two words'",
        "warn_seconds=77",
    ):
        assert line in text.splitlines()
    assert "--gres" not in text
    assert "wckey" not in text  # submitit's own habit
    assert "/shared/env/bin/python -u -c" in text


@pytest.mark.parametrize(
    ("lines", "device", "needed"),
    [({}, None, 1), ({"gpus": 2}, None, 2), ({"device": "cpu"}, None, 0), ({}, "cpu", 0), ({"gpus": 0}, None, 0)],
)
def test_a_task_is_told_how_many_gpus_it_must_see(
    study: StudyDir, config: StudyConfig, lines: dict[str, object], device: Device | None, needed: int
) -> None:
    """A GPU is given all the same where the CPU is meant."""
    chosen = CONFIG.model_copy(update={"jobs": {"train": ResourcesConfig.model_validate(lines)}})
    site = resolved(chosen, device=device)
    (train, *_), _ = arranged(study, config, site, EMPTY, NO_LIMITS, Names(study))
    text = script(study, train, site)
    assert f"export VAEHPC_GPUS={needed}" in text.splitlines()
    assert (f"--gres=gpu:{lines.get('gpus', 1)}" in text) is (lines.get("gpus") != 0)


def test_written_scripts_chain_and_need_no_launcher(study: StudyDir, config: StudyConfig, tmp_path: Path) -> None:
    batches, _ = arranged(study, config, SITE, EMPTY, NO_LIMITS, Names(study))
    write_batches(study, batches, SITE, tmp_path / "scripts")
    fake = tmp_path / "bin" / "sbatch"
    fake.parent.mkdir()
    # Stands for sbatch: notes what it was asked, and says a number.
    fake.write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/asked\nwc -l < {tmp_path}/asked\n')
    fake.chmod(0o755)
    for _ in range(2):  # the second time there is nothing left to submit
        subprocess.run(["sh", tmp_path / "scripts/submit.sh"], check=True, env={"PATH": f"{fake.parent}:/usr/bin:/bin"})
    scripts = tmp_path / "scripts"
    assert (tmp_path / "asked").read_text().splitlines() == [
        f"--parsable {scripts}/train-0001.sh",
        f"--parsable --dependency=aftercorr:1 {scripts}/statistics-0001.sh",
        f"--parsable --dependency=afterany:2 {scripts}/aggregate-0001.sh",
    ]
    assert [batch.job() for batch in study.batches()] == ["1", "2", "3"]
    for path in scripts.glob("*-0001.sh"):
        subprocess.run(["bash", "-n", path], check=True)
    with pytest.raises(UserError, match="not empty"):
        write_batches(study, batches, SITE, scripts)


SBATCH = """#!/bin/sh
case $1 in --test-only) text=$(cat) ;; *) text=$(cat "$2") ;; esac
name=$(echo "$text" | sed -n 's/.*--job-name=study[.]//p')
case $1 in --test-only) asked="test $name" ;; *) asked="submit $name" ;; esac
echo $asked $(echo "$text" | sed -n 's/.*--dependency=/after /p'): $(ls {jobs}) >> {noted}
[ "$asked" != "{refused}" ] || exit 1
echo "11;cluster"
"""
TESTED = ["test aggregate-0001 :", "test train-0001 :", "test statistics-0001 :"]
SUBMITTED = [
    "submit train-0001 : train-0001",
    "submit statistics-0001 after aftercorr:11: statistics-0001 train-0001",
    "submit aggregate-0001 after afterany:11: aggregate-0001 statistics-0001 train-0001",
]


@pytest.mark.parametrize(
    ("refused", "asked", "left", "message"),
    [
        ("nothing", [*TESTED, *SUBMITTED], {"train-0001", "statistics-0001", "aggregate-0001"}, ""),
        ("test statistics-0001", TESTED, set(), "refuses statistics-0001: .*\nNothing was submitted"),
        ("submit train-0001", [*TESTED, *SUBMITTED[:1]], set(), "refused train-0001: .*\nNothing was submitted"),
        (
            "submit statistics-0001",
            [*TESTED, *SUBMITTED[:2]],
            {"train-0001"},
            r"refused statistics-0001: .*\nIn the queue: train-0001 as 11\. The same line again submits the rest",
        ),
    ],
)
def test_slurm_is_asked_about_all_before_one_is_claimed_and_each_is_claimed_before_it_is_submitted(
    study: StudyDir,
    config: StudyConfig,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    refused: str,
    asked: list[str],
    left: set[str],
    message: str,
) -> None:
    """What sbatch sees of the study's folder each time that it is asked, and what a refusal leaves behind."""
    clients, noted = Clients(tmp_path / "bin"), tmp_path / "noted"
    clients.answers("sinfo", "gpu|infinite\ncpu*|infinite\n")
    sbatch = clients.folder / "sbatch"
    sbatch.write_text(SBATCH.format(jobs=study.jobs, noted=noted, refused=refused))
    sbatch.chmod(0o755)
    monkeypatch.setenv("PATH", clients.path())
    study.jobs.mkdir()
    batches, _ = arranged(study, config, SITE, EMPTY, NO_LIMITS, Names(study))
    with pytest.raises(UserError, match=f"(?s){message}") if message else nullcontext():
        require_accepted(study, batches, SITE)
        submit(study, batches, SITE, lambda *_: None)
    assert noted.read_text().splitlines() == asked
    assert {path.name for path in study.jobs.iterdir()} == left
    assert {batch.name for batch in study.batches() if batch.job() == "11"} == left


def hostile(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    """As where a cluster's modules, or a user, set what outranks the lines of a script, and where a job launches."""
    (folder / "bash_env").write_text("set -eu\nIFS=,\nsrun() { echo of the shell; }\n")
    for name in (
        "SBATCH_OUTPUT",
        "SBATCH_MEM_PER_NODE",
        "SBATCH_EXPORT",
        "SBATCH_WAIT",
        "SLURM_JOB_ID",
        "SLURM_EXPORT_ENV",
    ):
        monkeypatch.setenv(name, "of the shell")
    monkeypatch.setenv("BASH_ENV", str(folder / "bash_env"))
    monkeypatch.setenv("SLURM_CONF", "/etc/slurm.conf")
    monkeypatch.setenv("OUTPUT", "of the shell")


def seen(file: Path) -> set[str]:
    """Of the variables of a hostile shell and their like, those that got there."""
    names = {line.partition("=")[0] for line in file.read_text().splitlines()}
    return {name for name in names if name.startswith(("SBATCH_", "SLURM_", "BASH_ENV", "OUTPUT"))}


def test_sbatch_sees_nothing_that_would_win_over_the_scripts_lines(
    study: StudyDir, config: StudyConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clients = Clients(tmp_path / "bin")
    clients.answers("sbatch", "11")
    (clients.folder / "sbatch").write_text(f"#!/bin/sh\nenv > {tmp_path}/seen\necho Welcome\necho 11\n")
    monkeypatch.setenv("PATH", clients.path())
    hostile(monkeypatch, tmp_path)
    batches, _ = arranged(study, config, SITE, EMPTY, NO_LIMITS, Names(study))
    (study.jobs / batches[0].name).mkdir(parents=True)
    asked = array(study, batches[0], SITE)
    assert asked.submitted() == "11"
    assert seen(tmp_path / "seen") == {"SLURM_CONF", "OUTPUT"}
    assert (study.jobs / "train-0001/script.sh").read_text() == asked.script()
    write_batches(study, [Batch("aggregate-0001", "aggregate", ((study.path,),))], SITE, tmp_path / "scripts")
    subprocess.run(["sh", tmp_path / "scripts/submit.sh"], check=True)
    assert seen(tmp_path / "seen") == {"SLURM_CONF", "OUTPUT"}
    assert os.environ["SBATCH_OUTPUT"] == "of the shell"


def test_a_script_without_the_suites_own_command_is_not_submitted(
    study: StudyDir, config: StudyConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    (train, *_), _ = arranged(study, config, SITE, EMPTY, NO_LIMITS, Names(study))
    monkeypatch.setattr(sbatch, "_make_sbatch_string", lambda *_, **__: "#!/bin/bash\nsrun something else\n")
    with pytest.raises(SlurmError, match=r"submitit 1\..* without the suite's own command"):
        array(study, train, SITE).submitted()


# Limits that Slurm sets


def test_each_stage_has_its_own_room(study: StudyDir, config: StudyConfig) -> None:
    """A partition's QOS counts what is queued there: 4 trainings fit, and all else is not its business."""
    of_partition = Limits(1000, 1000, (Limit(4, frozenset(["train"])),))
    batches, num_left = arranged(study, config, SITE, EMPTY, of_partition, Names(study))
    assert ([(batch.stage, len(batch.elements)) for batch in batches], num_left) == (
        [("train", 4), ("statistics", 4), ("aggregate", 1)],
        2,
    )
    together = Limits(1000, 1000, (Limit(4, frozenset(["train", "statistics", "aggregate"])),))
    assert arranged(study, config, SITE, EMPTY, together, Names(study))[1] == 5


def refusing(folder: Path, most: int, words: str) -> Clients:
    """Clients of a Slurm that takes arrays of so many elements at most."""
    clients = Clients(folder / "bin")
    clients.answers("sinfo", "gpu|idle\ncpu*|idle\n")
    clients.answers("scontrol", "MaxArraySize = 1001\n")
    (clients.folder / "sbatch").write_text(
        "#!/bin/sh\n"
        'case $1 in --test-only) text=$(cat) ;; *) text=$(cat "$2") ;; esac\n'
        f"""echo "$1 $(echo "$text" | sed -n 's/.*--job-name=study[.]//p')" >> {clients.asked}\n"""
        "last=$(echo \"$text\" | sed -nE 's/.*--array=0-([0-9]+)%.*/\\1/p')\n"
        f'[ "${{last:-0}}" -lt {most} ] || {{ echo "{words}" >&2; exit 1; }}\n'
        "echo 11\n"
    )
    (clients.folder / "sbatch").chmod(0o755)
    return clients


SUBMIT_LIMIT = (
    "allocation failure: Job violates accounting/QOS policy (job submit limit, user's size and/or time limits)"
)


def test_as_many_as_slurm_takes_where_it_does_not_say_how_many(
    study: StudyDir, config: StudyConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", refusing(tmp_path, 2, SUBMIT_LIMIT).path())
    said, begun = Console(record=True, width=200), list[int]()
    assert queue_study(study, config, SITE, False, said, lambda *_: 1, lambda: begun.append(1)) == 0
    sizes = {batch.name: len(batch.record().elements) for batch in study.batches()}
    assert sizes == {"train-0001": 1, "statistics-0001": 1, "aggregate-0001": 1}
    assert "5 runs do not fit" in said.export_text()
    assert begun == [1]


def test_what_cannot_be_less_is_refused(
    study: StudyDir, config: StudyConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A launcher was killed before it submitted the statistics of these trainings."""
    clients = refusing(tmp_path, 2, SUBMIT_LIMIT)
    monkeypatch.setenv("PATH", clients.path())
    batch = plant.batch(study, "train-0001", [[run.name] for run in config.runs()], job="11")
    clients.answers("squeue", "".join(f"11_{number}|RUNNING|g1|None|1:00|gpu|{batch.path}\n" for number in range(6)))
    tries: list[int] = []

    def counted(*asked: Any) -> list[str]:
        tries.append(1)
        assert len(tries) < 9, "for ever"
        return require_accepted(*asked)

    monkeypatch.setattr(queueing, "require_accepted", counted)
    with pytest.raises(UserError, match="refuses statistics-0001"):
        queue_study(study, config, SITE, False, Console(), lambda *_: 1, lambda: None)


def test_a_study_that_slurm_refuses_is_not_begun(
    study: StudyDir, config: StudyConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else the same line with fewer seeds would still mean all of them."""
    monkeypatch.setenv("PATH", refusing(tmp_path, 0, SUBMIT_LIMIT).path())
    with pytest.raises(UserError, match=r"(?s)submit limit.*Nothing was submitted"):
        queue_study(study, config, SITE, False, Console(), lambda *_: 1, lambda: pytest.fail("begun"))
    assert study.batches() == []


def test_where_all_nodes_are_drained_arrays_wait(
    study: StudyDir, config: StudyConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """--test-only asks when an element would start; sbatch itself queues it."""
    unusable = "allocation failure: Requested node configuration is not available"
    clients = refusing(tmp_path, 0, unusable)
    monkeypatch.setenv("PATH", clients.path())
    batches, _ = arranged(study, config, SITE, EMPTY, NO_LIMITS, Names(study))
    with pytest.raises(UserError, match="configuration is not available"):
        require_accepted(study, batches, SITE)
    clients.answers("sinfo", "gpu|drained\ncpu*|down*\n")
    said = require_accepted(study, batches, SITE)
    assert "No node of partition gpu takes jobs now (drained or down): train-0001 waits until one does" in said
