"""How `launch --wait` waits for a study in the queue: what it asks of Slurm, when, and how it ends."""

from pathlib import Path

import pytest
from rich.console import Console

from tests import plant
from tests.examples import AE, study_config
from tests.slurm.clients import Clients
from vaehpc.slurm import queueing
from vaehpc.study.files import BatchDir, StudyDir


@pytest.fixture
def clients(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Clients:
    found = Clients(tmp_path / "bin")
    monkeypatch.setenv("PATH", found.path())
    return found


@pytest.fixture
def study(tmp_path: Path) -> StudyDir:
    found = plant.study(tmp_path / "study", study_config([AE]))
    plant.batch(found, "train-0001", [["ae-seed000"]], job="11")
    plant.batch(found, "aggregate-0001", [[""]], job="12")
    return found


def element(study: StudyDir, batch: str, job: str, state: str = "PENDING", reason: str = "Dependency") -> str:
    return f"{job}|{state}||{reason}|1:00|gpu|{study.jobs / batch}\n"


def waited(study: StudyDir, said: Console | None = None) -> int:
    return queueing._waited(study, study.report, said or Console(), lambda *_: 0)


def test_slurm_is_asked_once_a_minute(study: StudyDir, clients: Clients, monkeypatch: pytest.MonkeyPatch) -> None:
    study.report.touch()
    clients.answers("squeue", element(study, "train-0001", "11", "RUNNING", "None"))
    slept: list[float] = []

    def sleep(seconds: float) -> None:
        if seconds < 1:  # subprocess's, for a client's end
            return
        slept.append(seconds)
        if sum(slept) == 180:
            clients.answers("squeue", "")

    monkeypatch.setattr(queueing.time, "sleep", sleep)
    assert waited(study) == 0
    assert (sum(slept), len(clients.lines())) == (180, 4)


def test_it_ends_when_the_last_job_says_so(study: StudyDir, clients: Clients, monkeypatch: pytest.MonkeyPatch) -> None:
    study.report.touch()
    clients.answers("squeue", element(study, "aggregate-0001", "12", "RUNNING", "None"))
    slept: list[float] = []

    def sleep(seconds: float) -> None:
        if seconds < 1:  # subprocess's, for a client's end
            return
        slept.append(seconds)
        if len(slept) == 2:
            clients.answers("squeue", "")
            plant.note(BatchDir(study.jobs / "aggregate-0001"), 0, ("start", ""), ("done", ""))

    monkeypatch.setattr(queueing.time, "sleep", sleep)
    assert waited(study) == 0
    assert len(slept) == 2


def test_nobody_waits_for_what_will_not_start(
    study: StudyDir, clients: Clients, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(queueing, "_sleep", lambda _: pytest.fail("it waits"))
    held = element(study, "train-0001", "11", reason="launch failed requeued held")
    clients.answers("squeue", held + element(study, "aggregate-0001", "12"))
    said = Console(record=True, width=200)
    assert waited(study, said) == 3
    assert "`scontrol release 11`" in said.export_text()
