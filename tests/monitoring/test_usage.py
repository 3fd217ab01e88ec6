"""Requested against used, and what to ask for next time, from planted attempts and recorded accounts."""

from pathlib import Path

import pytest

from tests import plant
from tests.examples import VAE, study_config
from tests.plant import BEAT, HOUR
from tests.slurm.clients import Clients
from vaehpc.monitoring.usage import of_asked, usage_lines
from vaehpc.study.files import StudyDir

RUNS = ("vae-tiny-seed000", "vae-tiny-seed001")
PEAK = {"peak_memory_gb": 3.0}


@pytest.fixture(autouse=True)
def clients(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Clients:
    found = Clients(tmp_path / "bin")
    found.fails("sacct", "Slurm accounting storage is disabled")
    monkeypatch.setenv("PATH", found.path())
    return found


@pytest.fixture
def study(tmp_path: Path) -> StudyDir:
    return plant.study(tmp_path / "planted", study_config([VAE], 2))


def lines(study: StudyDir) -> list[str]:
    return list(usage_lines(study, 5.0))


def plant_trainings(study: StudyDir) -> None:
    """One run in two starts of an hour each, the first of which was killed; one run of half an hour."""
    first, second = (study.run(name) for name in RUNS)
    plant.start(first, job="4711_0", ago=5 * HOUR, seen_ago=4 * HOUR, beat=BEAT | {"peak_memory_gb": 4.0})
    plant.start(first, job="4711_0", ago=2 * HOUR, seen_ago=HOUR, outcome="done", cpu_seconds=5400.0, **PEAK)
    plant.start(second, job="4711_1", ago=HOUR, seen_ago=HOUR / 2, outcome="done", cpu_seconds=900.0, **PEAK)


def test_of_a_local_study_the_most_that_a_run_used(study: StudyDir) -> None:
    plant_trainings(study)
    assert lines(study) == [
        "train: 2 runs; the most that one used, of what it had asked for",
        "  time    2.0 h",
        "  memory  4.0 GB",
        "  CPUs    1.5",
        "To ask for next time, in the site file (1.3 x the most time and memory of a run; rounded up):",
        "[jobs.train]",
        "hours = 2.75",
        "memory_gb = 6",
        "cpus = 2",
    ]


def test_of_arrays_also_what_was_asked_for_without_accounting(study: StudyDir) -> None:
    plant_trainings(study)
    plant.batch(study, "train-0001", [[name] for name in RUNS])
    assert lines(study)[:6] == [
        "accounting down: told by the runs' own records. sacct: Slurm accounting storage is disabled",
        "train: 2 runs; the most that one used, of what it had asked for",
        "  time    2.0 h of 24.0 h (8%)",
        "  memory  4.0 GB of 16.0 GB (25%)",
        "  CPUs    1.5 of 4.0 (38%)",
        "  GPU     not known",
    ]


def test_accounting_knows_what_the_attempts_do_not(study: StudyDir, clients: Clients) -> None:
    plant.start(study.run(RUNS[0]), job="4711_0", ago=HOUR, seen_ago=HOUR / 2)
    plant.batch(study, "train-0001", [[name] for name in RUNS])
    clients.answers(
        "sacct",
        "4711_0|COMPLETED|0:0|g1|3600|4|03:00:00||\n"
        "4711_0.0|COMPLETED|0:0|g1|3600|4|03:00:00|8388608K|gres/gpuutil=40,mem=1G\n"
        "4711_1|COMPLETED|0:0|g1|3600|4|00:30:00||\n"
        "4711_1.0|COMPLETED|0:0|g1|3600|4|00:30:00|1024K|gres/gpuutil=60,mem=1G\n",
    )
    assert lines(study) == [
        "train: 1 runs; the most that one used, of what it had asked for",
        "  time    60 min of 24.0 h (4%)",
        "  memory  8.0 GB of 16.0 GB (50%)",
        "  CPUs    3.0 of 4.0 (75%)",
        "  GPU     50 % on average",
        "To ask for next time, in the site file (1.3 x the most time and memory of a run; rounded up):",
        "[jobs.train]",
        "hours = 1.5",
        "memory_gb = 11",
        "cpus = 3",
    ]


def test_runs_that_share_a_gpu_share_what_was_asked_for(study: StudyDir, clients: Clients) -> None:
    plant_trainings(study)
    plant.batch(study, "train-0001", [RUNS], memory_gb=32.0)
    clients.answers(  # of the pack as a whole: nothing of it is one run's
        "sacct",
        "4711|COMPLETED|0:0|g1|36000|8|03:00:00||\n4711.0|COMPLETED|0:0|g1|36000|8|03:00:00|25165824K|\n",
    )
    assert lines(study)[1:5] == [
        "  time    2.0 h of 24.0 h (8%)",
        "  memory  4.0 GB of 16.0 GB (25%)",
        "  CPUs    1.5 of 2.0 (75%)",
        "  GPU     not known, 2 runs at once",
    ]


def test_runs_of_an_element_one_after_the_other_share_its_time(study: StudyDir) -> None:
    for name in RUNS:
        plant.start(study.run(name), "statistics", job="4712", ago=HOUR, seen_ago=HOUR / 2, outcome="done", **PEAK)
    plant.batch(study, "statistics-0001", [RUNS], "4712", minutes=240, memory_gb=8.0, gpus=0)
    assert lines(study)[2:5] == [
        "  time    30 min of 2.0 h (25%)",
        "  memory  3.0 GB of 8.0 GB (38%)",
        "  CPUs    not known, of 4.0",
    ]


def test_a_study_that_has_not_started(study: StudyDir) -> None:
    assert lines(study) == ["planted: nothing has been started yet"]


def test_what_is_not_known_is_not_guessed(study: StudyDir) -> None:
    plant.start(study.run(RUNS[0]), ago=HOUR, seen_ago=HOUR / 2, outcome="done")
    assert lines(study)[2:4] == ["  memory  not known", "  CPUs    not known"]
    assert lines(study)[-2:] == ["[jobs.train]", "hours = 0.75"]
    assert of_asked(None, 16.0, str) == "not known, of 16.0"
