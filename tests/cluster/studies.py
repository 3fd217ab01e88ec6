"""Small studies on a cluster: launched by its ordinary user, watched, and compared with one that nobody disturbed."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.cluster import users
from tests.cluster.cluster import Cluster
from vaehpc.study.attempts import Attempt, all_attempts
from vaehpc.study.files import BatchDir, RunDir, StudyDir

SITE = """
executor = "slurm"
[environment]
OMP_NUM_THREADS = "1"
OPENBLAS_NUM_THREADS = "1"
TF_CPP_MIN_LOG_LEVEL = "1"
{environment}
[slurm]
gpu_partition = "gpu"
cpu_partition = "cpu"
warn_seconds = 20
{slurm}
[jobs.prepare]
cpus = 1
memory_gb = 1.5
hours = 0.2
[jobs.launch]
memory_gb = 0.5
[jobs.train]
{device}
cpus = 1
memory_gb = {memory_gb}
hours = {hours}
{train}
[jobs.statistics]
cpus = 1
{statistics}
memory_gb = 0.8
hours = 0.2
[jobs.aggregate]
memory_gb = 0.8
hours = 0.2
"""

SETTINGS = """
[model]
z_dim = 8
filters = [8, 8, 16, 16]
[train]
batch_size = 8
learning_rate = 0.002
epochs = {epochs}
eval_images = 40
keep_every_epochs = 50
"""

ON_CPU = 'device = "cpu"'
"""The cluster's GPUs are fakes."""
LONG = 60
"""Epochs of five steps: a training that can be caught, and held, in the middle."""


@dataclass(frozen=True)
class Place:
    """A folder of the cluster's user with a study in it."""

    cluster: Cluster
    folder: Path

    @property
    def study(self) -> StudyDir:
        return StudyDir(self.folder / "runs/study")

    def run(self, name: str) -> RunDir:
        return self.study.run(name)

    # Launching

    def site(
        self,
        *,
        slurm: str = "",
        memory_gb: float = 1.5,
        hours: float = 0.2,
        device: str = ON_CPU,
        environment: str = "",
        train: str = "",
        statistics: str = "",
    ) -> None:
        """Writes the site's file, with more lines of some of its tables."""
        given = {"slurm": slurm, "memory_gb": memory_gb, "hours": hours, "device": device, "environment": environment}
        given |= {"train": train, "statistics": statistics}
        self.write("site.toml", SITE.format(**given))

    def settings(self, epochs: int) -> None:
        """Writes the study's settings."""
        self.write("settings.toml", SETTINGS.format(epochs=epochs))

    def write(self, name: str, text: str) -> None:
        (self.folder / name).write_text(text)

    def write_as_user(self, name: str, text: str) -> None:
        self.write(name, text)
        shutil.chown(self.folder / name, users.USER, users.USER)

    def line(
        self, *more: str, seeds: int | None = 1, arms: Sequence[str] = ("vae-tiny",), data: str = "--data faces"
    ) -> str:
        """With None as seeds `more` says what is crossed."""
        launch = "python -m vaehpc.launch --config settings.toml --site site.toml --study study"
        asked = () if seeds is None else (f"--seeds {seeds}",)
        return " ".join((launch, data, f"--arms {' '.join(arms)}", *asked, *more))

    def launch(
        self,
        *more: str,
        seeds: int | None = 1,
        arms: Sequence[str] = ("vae-tiny",),
        check: bool = True,
        data: str = "--data faces",
    ) -> subprocess.CompletedProcess[str]:
        line = self.line(*more, seeds=seeds, arms=arms, data=data)
        return self.cluster.user(line, cwd=self.folder, seconds=240, check=check)

    def launch_here(self, seeds: int = 1) -> None:
        """Runs the study on this machine, outside of Slurm: each run is a process of its own, which nobody disturbs."""
        line = self.line(seeds=seeds).replace("--site site.toml", "--executor local")
        self.cluster.user(line, cwd=self.folder, seconds=300 + 120 * seeds)

    def shell(self, command: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        return self.cluster.user(command, cwd=self.folder, seconds=120, check=check)

    def status(self, *more: str) -> str:
        """What the status command says of the study, whatever its exit code."""
        done = self.cluster.user(f"python -m vaehpc.status study {' '.join(more)}", cwd=self.folder, check=False)
        assert done.returncode in (0, 3), done.stderr
        return done.stdout

    # Watching

    def batch(self, name: str) -> BatchDir:
        return BatchDir(self.study.jobs / name)

    def element(self, name: str, number: int = 0) -> str:
        """Slurm's name of an element."""
        batch = self.batch(name)
        return f"{batch.job()}_{number}" if len(batch.record().elements) > 1 else str(batch.job())

    def kinds(self, name: str, number: int = 0) -> list[str]:
        """What an element's script noted."""
        return [event.kind for event in self.batch(name).events(number)]

    def nodes(self, name: str, number: int = 0) -> list[str]:
        """Where an element was started, one start after the other."""
        return [event.node for event in self.batch(name).events(number) if event.kind == "start"]

    def wait_for_step(self, run: str, step: int, attempt: int = 1) -> None:
        """Waits until this attempt has trained so many steps."""

        def beats() -> bool:
            found = [found for found in all_attempts(self.run(run)) if found.number == attempt]
            return bool(found) and _record(found[0].heartbeat_path).get("step", 0) >= step

        # Where runs share a GPU, how many is measured first: for a minute, on a busy machine for two.
        self.cluster.wait(beats, f"step {step} of {run}", 300)
        assert not self.run(run).trained_path.exists(), "too late to disturb it"

    @contextlib.contextmanager
    def held(self, run: str, step: int, attempt: int = 1) -> Iterator[None]:
        """An attempt that has trained so many steps stands still meanwhile, however fast this machine is."""
        self.wait_for_step(run, step, attempt)
        pid = _record(Attempt(self.run(run), self.run(run).attempts / f"{attempt:04d}").start_path)["pid"]
        self.cluster.root(f"kill -{signal.SIGSTOP:d} {pid}")
        assert not self.run(run).trained_path.exists(), "too late to hold it"
        try:
            yield
        finally:
            with contextlib.suppress(ProcessLookupError):  # killed meanwhile
                os.kill(pid, signal.SIGCONT)

    def wait_until_ended(self, seconds: float = 300) -> None:
        """Waits until nothing of the user's is queued."""
        # Rarely: the processors are the trainings', and each squeue is a process.
        self.cluster.wait(lambda: not self.cluster.root("squeue --noheader"), "an empty queue", seconds, every=0.5)

    def end_its_time(self, element: str, run: str) -> None:
        """Has Slurm warn a held element of its time limit. The site's limit is of minutes: so much is left at once that
        Slurm warns at its next look, within half a minute, and then as much as before."""
        self.cluster.root(f"scontrol update JobId={element} EndTime=now+50")
        self.cluster.wait(self.run(run).stop.exists, "a warning", 60)
        self.cluster.root(f"scontrol update JobId={element} TimeLimit=12")

    def first_step(self, run: str, attempt: int) -> int:
        """Where an attempt began to train, by its log."""
        words = Attempt(self.run(run), self.run(run).attempts / f"{attempt:04d}").log.read_text()
        return int(words.partition("starts at step ")[2].split()[0])

    def results(self, run: str) -> dict[str, Any]:
        """Everything of a run that must not depend on what happened to it."""
        trained, folder = self.run(run).trained(), self.run(run)
        return {
            "state": trained.state_sha256,
            "latents": trained.latents_sha256,
            "history": folder.history_path.read_text(),
            "probe": folder.probe.read_bytes(),
            "statistics": folder.statistics_path.read_text(),
        }

    def summary(self) -> dict[str, Any]:
        return _record(self.study.summary_path)

    def signal_task(self, run: str, number: signal.Signals) -> None:
        """Sends a signal to the newest attempt's process."""
        pid = _record(all_attempts(self.run(run))[-1].start_path)["pid"]
        self.cluster.root(f"kill -{number:d} {pid}")


def _record(path: Path) -> dict[str, Any]:
    """A JSON file, or nothing if it is not there."""
    found: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    return found


def new_place(cluster: Cluster, faces: str) -> Place:
    """A folder of the user's with data, a site's file and settings."""
    folder = cluster.new_folder()
    shutil.copytree(faces, folder / "faces")
    for path in (folder / "faces", *(folder / "faces").rglob("*")):
        shutil.chown(path, users.USER, users.USER)
    place = Place(cluster, folder)
    place.site()
    place.settings(LONG)
    return place
