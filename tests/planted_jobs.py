"""Studies as a cluster leaves them: attempts, batches, events; and clients of Slurm that give recorded answers."""

import json
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from vaehpc.schema.results import BatchRecord
from vaehpc.study.files import BatchDir, RunDir, StudyDir, write_model

BEAT: dict[str, Any] = {
    "step": 4,
    "num_steps": 10,
    "epoch": 0,
    "steps_per_second": 2.0,
    "reconstruction_loss": 812.4,
    "radius_median": 16.25,
}
HOUR = 3600.0


def plant_start(
    run: RunDir,
    stage: str = "train",
    host: str = "node1",
    job: str | None = "4711_0",
    ago: float = 60.0,
    beat: Mapping[str, Any] | None = None,
    seen_ago: float = 5.0,
    outcome: str | None = None,
    error: str | None = None,
    pid: int = 1,
    log: str = "",
    **ended: Any,
) -> Path:
    """A start of a task: `ago` seconds ago, with its last sign of life `seen_ago` seconds ago."""
    number = len(list(run.attempts.glob("*"))) + 1
    folder = run.attempts / f"{number:04d}"
    folder.mkdir(parents=True)
    now = time.time()
    began = {"time": now - ago, "stage": stage, "host": host, "pid": pid, "job": job}
    (folder / "start.json").write_text(json.dumps(began))
    if beat is not None:
        (folder / "heartbeat.json").write_text(json.dumps({"time": now - seen_ago, **beat}))
    if outcome is not None:
        record = {"time": now - seen_ago, "outcome": outcome, "error": error, **ended}
        (folder / "exit.json").write_text(json.dumps(record))
    (folder / "log").write_text(log)
    return folder


def plant_batch(
    study: StudyDir,
    name: str,
    elements: Sequence[Sequence[str]],
    job: str | None = "4711",
    ago: float = 120.0,
    memory_gb: float = 16.0,
    minutes: int = 1440,
    gpus: int = 1,
    launcher: str = "login 1 1",
) -> BatchDir:
    """An array of a stage; its elements are names of runs, or '' for the study."""
    folder = BatchDir(study.jobs / name)
    folder.path.mkdir(parents=True)
    record = BatchRecord(
        stage=name.rpartition("-")[0],
        elements=tuple(tuple(str(study.path / run) for run in element) for element in elements),
        after=(),
        created=time.time() - ago,
        launcher=launcher,
        cpus=4,
        gpus=gpus,
        memory_gb=memory_gb,
        minutes=minutes,
        partition=None,
    )
    write_model(folder.record_path, record)
    if job is not None:
        folder.job_path.write_text(f"{job}\n")
    return folder


def note(batch: BatchDir, number: int, *events: tuple[str, str], ago: float = 100.0, node: str = "node1") -> None:
    """What the batch script of an element notes: kinds with their details, a second apart, the last `ago` s ago."""
    last = int(time.time() - ago)
    with (batch.path / f"{number}.events").open("a") as file:
        for position, (kind, detail) in enumerate(events, start=1):
            file.write(f"{last - len(events) + position}\t{node}\t{kind}\t{detail}\n")


class Clients:
    """A folder of PATH whose clients of Slurm give recorded answers, and note what they were asked."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()
        self.asked = folder / "asked"
        for name in ("squeue", "sacct", "scancel", "sacctmgr"):
            self.answers(name, "")

    def answers(self, name: str, text: str) -> None:
        """It prints this."""
        (self.folder / f"{name}.answer").write_text(text)
        self._script(name, f'cat "{self.folder}/{name}.answer"')

    def answers_to(self, name: str, word: str, text: str) -> None:
        """It prints this where the word is among what it is asked; elsewhere what it printed before."""
        (self.folder / f"{name}.{word}").write_text(text)
        before = (self.folder / name).read_text().splitlines()[-1]
        self._script(name, f'case " $* " in *" {word} "*) exec cat "{self.folder}/{name}.{word}";; esac; {before}')

    def fails(self, name: str, message: str) -> None:
        """It complains and ends with 1."""
        self._script(name, f'echo "{message}" >&2; exit 1')

    def hangs(self, name: str) -> None:
        """It never answers."""
        self._script(name, "exec sleep 60")

    def _script(self, name: str, work: str) -> None:
        script = self.folder / name
        script.write_text(f'#!/bin/sh\necho "{name} $*" >> "{self.asked}"\n{work}\n')
        script.chmod(0o755)

    def lines(self) -> list[str]:
        """The commands so far."""
        return self.asked.read_text().splitlines() if self.asked.exists() else []

    def path(self) -> str:
        """PATH with these in front."""
        return f"{self.folder}{os.pathsep}{os.environ['PATH']}"
