"""How often Slurm's clients are started: its controller serves others too, whatever the number of elements is."""

import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from rich.console import Console

from tests import plant
from tests.examples import AE, study_config
from tests.slurm.clients import Clients
from vaehpc import status
from vaehpc.monitoring import states
from vaehpc.schema.site import SiteConfig
from vaehpc.slurm import queueing
from vaehpc.study.files import StudyDir, write_model
from vaehpc.study.sites import resolved

MINUTES = 2


def counts(clients: Clients) -> dict[str, int]:
    return dict(Counter(line.split()[0] for line in clients.lines()))


def some_minutes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Time goes on by what is slept, until Ctrl-C."""
    began, slept = time.monotonic(), 0.0

    def sleep(seconds: float) -> None:
        nonlocal slept
        slept += seconds if seconds >= 1 else 0  # less is subprocess's, for a client's end
        if slept > 60 * MINUTES - 1:
            raise KeyboardInterrupt

    monkeypatch.setattr(queueing.time, "sleep", sleep)
    monkeypatch.setattr(states.time, "monotonic", lambda: began + slept)


def launched(study: StudyDir, console: Console) -> None:
    site = resolved(SiteConfig.model_validate({"executor": "slurm", "slurm": {"gpu_partition": "gpu"}}))
    queueing.queue_study(study, study.config(), site, False, console, lambda *_: 0, lambda: None)


def waited(study: StudyDir, console: Console) -> None:
    with pytest.raises(KeyboardInterrupt):
        queueing._waited(study, study.report, console, lambda *_: 0)


def watched(study: StudyDir, console: Console) -> None:
    with pytest.raises(KeyboardInterrupt):
        status.watch(study, status.Arguments(), console)


def planted(folder: Path, clients: Clients, num_elements: int, *, are_queued: bool) -> StudyDir:
    """A study; where its elements are queued, all but one, which has ended without a word."""
    study, config = StudyDir(folder / "study"), study_config([AE], num_elements)
    study.path.mkdir()
    write_model(study.config_path, config)  # runs without a folder will do
    if are_queued:
        plant.batch(study, "train-0001", [[run.name] for run in config.runs()], job="11")
        line = f"|PENDING||Resources|1:00|gpu|{study.jobs / 'train-0001'}\n"
        clients.answers("squeue", "".join(f"11_{number}{line}" for number in range(1, num_elements)))
    return study


@pytest.mark.parametrize(
    ("command", "asked"),
    [
        # Trainings, statistics and the aggregate.
        (launched, {"squeue": 1, "scontrol": 2, "sacctmgr": 2, "sbatch": 3 + 3, "sinfo": 3}),
        (waited, {"squeue": MINUTES}),
        (watched, {"squeue": MINUTES, "sacct": MINUTES}),
    ],
)
def test_as_often_for_a_thousand_elements_as_for_ten(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    command: Callable[[StudyDir, Console], None],
    asked: dict[str, int],
) -> None:
    for num_elements in (10, 1000):
        folder = tmp_path / str(num_elements)
        folder.mkdir()
        clients = Clients(folder / "bin")
        clients.answers("scontrol", "MaxArraySize = 1001\n")
        clients.answers("sinfo", "gpu*|1-00:00:00\n")
        clients.answers("sbatch", "4711\n")
        study = planted(folder, clients, num_elements, are_queued=command is not launched)
        with monkeypatch.context() as patched:
            patched.setenv("PATH", clients.path())
            if command is not launched:
                some_minutes(patched)
            command(study, Console(quiet=True))
        assert counts(clients) == asked
