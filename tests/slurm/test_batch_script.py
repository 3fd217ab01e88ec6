"""What an element's batch script does in each case, with clients of Slurm that only note what they are asked.

Whether Slurm then does so too: tests/cluster.
"""

import os
import shlex
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from vaehpc.schema.site import SiteConfig
from vaehpc.slurm.arrays import Batch, array, claimed
from vaehpc.study.files import BatchDir, StudyDir
from vaehpc.study.sites import resolved

ELEMENT = "4711_1"
RUNS = "JobState=RUNNING Reason=None Restarts=0 "
AWAY = "JobState=PENDING Reason=BeginTime Restarts=1 "
CHECKPOINT = 'mkdir "$RUN/checkpoints/step-$(date +%s%N)"'
WARNED = 'kill -USR2 "$PPID"; until [ -s "$RUN/stop" ]; do sleep 0.05; done'
AT_ONCE = 'kill -STOP "$PPID"; kill -USR2 "$PPID"; (sleep 0.3; kill -CONT "$PPID") &'
"""The script finds at the same time that it was warned and that its task has ended."""
ENDED = 'kill -TERM "$PPID"; until [ -s "$RUN/stop" ]; do sleep 0.05; done'
FINISHED = 'touch "$RUN/trained.json"'


@dataclass
class Node:
    """A node on which an element of two starts."""

    folder: Path
    batch: BatchDir
    script: Path
    run: Path

    def start(self, task: str, shown: str = RUNS, **variables: str) -> int:
        """Run the script; its exit code.

        Args:
            task: in bash, what srun does on the node; RUN is the run's folder.
            shown: what `scontrol show job` prints.
            variables: of the environment.
        """
        (self.folder / "task").write_text(task)
        (self.folder / "shown").write_text(f"   {shown}\n   ExcNodeList=(null)\n")
        environment = {
            "PATH": f"{self.folder}/bin:{os.environ['PATH']}",
            "RUN": str(self.run),
            "SLURM_JOB_ID": "4713",
            "SLURM_ARRAY_JOB_ID": "4711",
            "SLURM_ARRAY_TASK_ID": "1",
            "SLURMD_NODENAME": "g1",
        }
        return subprocess.run(
            ["/bin/bash", self.script], env=environment | variables, check=False, timeout=60
        ).returncode

    def asked(self) -> list[str]:
        """The clients' lines, but for what only looks."""
        lines = (self.folder / "asked").read_text().splitlines() if (self.folder / "asked").exists() else []
        return [line for line in lines if not line.startswith("scontrol show")]

    def notes(self) -> list[str]:
        return [f"{event.kind} {event.detail}".strip() for event in self.batch.events(1) if event.kind != "start"]

    def log(self) -> str:
        return (self.batch.path / f"{ELEMENT}_0_log.err").read_text()


def node(folder: Path, **slurm: Any) -> Node:
    bin_folder = folder / "bin"
    bin_folder.mkdir()
    works: Mapping[str, str] = {
        "srun": f"exec bash {shlex.quote(str(folder / 'task'))}",
        "scontrol": f"case $1 in show) cat {shlex.quote(str(folder / 'shown'))} ;; esac",
        "sbatch": f"[ ! -e {shlex.quote(str(folder / 'no-other-node'))} ]",
    }
    for name, work in works.items():
        noted = "" if name == "srun" else f'echo "{name} $*" >> {shlex.quote(str(folder / "asked"))}\n'
        (bin_folder / name).write_text(f"#!/bin/bash\n{noted}{work}\n")
        (bin_folder / name).chmod(0o755)
    site = resolved(SiteConfig.model_validate({"executor": "slurm", "slurm": {"warn_seconds": 4, **slurm}}))
    study = StudyDir(folder / "study")
    runs = [study.path / name for name in ("ae-seed000", "ae-seed001")]
    for run in runs:
        (run / "checkpoints").mkdir(parents=True)
    batch = Batch("train-0001", "train", tuple((run,) for run in runs))
    made = array(study, batch, site)
    found = claimed(batch, made.asked, site)
    (folder / "script.sh").write_text(made.script())
    return Node(folder, found, folder / "script.sh", runs[1])


REQUEUE = f"scontrol requeue {ELEMENT}"
ELSEWHERE = ["sbatch --test-only --exclude=g1 {script}", REQUEUE, f"scontrol update JobId={ELEMENT} ExcNodeList=g1"]


@pytest.mark.parametrize(
    ("task", "shown", "code", "notes", "asked"),
    [
        (FINISHED, RUNS, 0, ["done"], []),
        (f"{ENDED}; exit 1", RUNS, 1, ["ended"], []),
        (f"{WARNED}; {ENDED}; exit 1", RUNS, 1, ["ended after its time limit"], []),
        ("exit 1", AWAY, 1, [], []),
        (f"{CHECKPOINT}; kill -TERM $$", RUNS, 0, ["requeue asked to leave"], [REQUEUE]),
        ("exit 3", RUNS, 0, ["crash 3", "requeue crash, not again on g1"], ELSEWHERE),
        ("exit 78", RUNS, 1, ["crash 78", "given-up no other try would do better"], []),
        (f"{CHECKPOINT}; touch $RUN/stop", RUNS, 1, ["left"], []),
        ("exit 0", RUNS, 1, ["given-up no new checkpoint"], []),
        (f"{WARNED}; {CHECKPOINT}", RUNS, 0, ["requeue time limit"], [REQUEUE]),
        (f"{AT_ONCE} {CHECKPOINT}", RUNS, 0, ["requeue time limit"], [REQUEUE]),
    ],
    ids=[
        "done",
        "ended",
        "ended late",
        "put back",
        "told to leave",
        "crash",
        "hopeless",
        "by hand",
        "no progress",
        "time limit",
        "time limit as it ends",
    ],
)
def test_branches(tmp_path: Path, task: str, shown: str, code: int, notes: list[str], asked: list[str]) -> None:
    """Each line of the table in jobs/README.md."""
    found = node(tmp_path)
    assert found.start(task, shown) == code, found.log()
    assert found.notes() == notes
    assert found.asked() == [line.format(script=found.script) for line in asked]


def test_bounds(tmp_path: Path) -> None:
    found = node(tmp_path, max_crashes=0, max_restarts=1)
    assert found.start("exit 3") == 1
    assert found.notes() == ["crash 3", "given-up max_crashes = 0"]
    assert found.start(f"{WARNED}; {CHECKPOINT}") == 0
    assert found.start(f"{WARNED}; {CHECKPOINT}", "JobState=RUNNING Restarts=1 ", SLURM_RESTART_COUNT="1") == 1
    assert found.notes()[2:] == ["requeue time limit", "given-up max_restarts = 1"]
    assert found.asked() == [REQUEUE]


def test_a_crash_where_there_is_no_other_node(tmp_path: Path) -> None:
    found = node(tmp_path)
    (tmp_path / "no-other-node").touch()
    assert found.start("exit 3") == 0
    assert found.notes() == ["crash 3", "requeue crash"]
    assert found.asked()[1:] == [REQUEUE]


def test_elements_that_were_warned_together_do_not_ask_all_at_once(tmp_path: Path) -> None:
    """With 1000 s from the warning to the time limit an element waits for up to 100 of them, by chance."""
    found = node(tmp_path, warn_seconds=1000)
    (tmp_path / "bin/sleep").write_text(
        "#!/bin/bash\n"
        # The task's and the script's own; the clock's.
        "case $1 in 0.05 | 0.5) exec /bin/sleep $1 ;; 750) exec tail -f --pid=$PPID /dev/null ;; esac\n"
        f"echo sleep $1 >> {shlex.quote(str(tmp_path / 'asked'))}\n"
    )
    (tmp_path / "bin/sleep").chmod(0o755)
    assert found.start(f"{WARNED}; {CHECKPOINT}") == 0
    slept, asked = found.asked()
    assert int(slept.removeprefix("sleep ")) in range(101)
    assert asked == REQUEUE


def test_what_is_finished_is_not_started_again(tmp_path: Path) -> None:
    """As where Slurm starts an element once more that was put back by its own script."""
    found = node(tmp_path)
    (found.run / "trained.json").touch()
    assert found.start("exit 3") == 0
    assert found.notes() == ["done"]


def test_a_node_that_does_not_see_the_folder_is_left_out(tmp_path: Path) -> None:
    """Slurm itself ends an element there whose log it cannot open, 0:53, without a word."""
    found = node(tmp_path, exclude="c[1-2]")
    assert "#SBATCH --output=/dev/null" in found.script.read_text()
    moved = found.batch.path.rename(tmp_path / "unseen")
    assert found.start("exit 3") == 53
    assert found.asked() == [
        f"sbatch --test-only --exclude=c[1-2],g1 {found.script}",
        REQUEUE,
        f"scontrol update JobId={ELEMENT} ExcNodeList=c[1-2],g1",
    ]
    (tmp_path / "no-other-node").touch()
    assert found.start("exit 3") == 53
    assert found.asked()[3:] == [f"sbatch --test-only --exclude=c[1-2],g1 {found.script}"]
    assert not list(moved.glob("*.events"))


def test_tasks_have_the_sites_environment_whatever_the_shell_was(tmp_path: Path) -> None:
    """A shell's settings, a center's --export=NONE; and `setup` comes before what the site's file sets."""
    found = node(tmp_path, setup=["export OMP_NUM_THREADS=7 LOADED=yes", "echo loaded"])
    hostile = tmp_path / "bash_env"
    hostile.write_text("set -eufo pipefail\nIFS=,\nsrun() { echo of the shell; }\n")
    task = f'echo "$OMP_NUM_THREADS $LOADED $SLURM_EXPORT_ENV" > {tmp_path}/seen; {FINISHED}'
    text = found.script.read_text()
    assert text.index("echo loaded") < text.index("\nsrun ")
    assert found.start(task, BASH_ENV=str(hostile), SLURM_EXPORT_ENV="NONE") == 0, found.log()
    assert (tmp_path / "seen").read_text() == "7 yes ALL\n"
    assert (found.batch.path / f"{ELEMENT}_0_log.out").read_text() == "loaded\n"
    (found.run / "trained.json").unlink()
    assert found.start("exit 3", BASH_ENV=str(hostile)) == 0
    assert found.notes() == ["done", "crash 3", "requeue crash, not again on g1"]
