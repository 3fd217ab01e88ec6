"""`python -m vaehpc.explain STUDY --run RUN`: what happened around each trigger of a run."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from vaehpc.command import asked_by, exit_code
from vaehpc.study.files import RunDir
from vaehpc.study.packages import require_installed
from vaehpc.study.study import found_run, found_study

STABILITY = """
import sys
from vaehpc.command import silenced
with silenced():  # TensorFlow greets whatever TF_CPP_MIN_LOG_LEVEL says
    from vaehpc.tasks.stability import main
sys.exit(main())
"""


@dataclass(frozen=True)
class Arguments:
    """Say what happened around each trigger of a run: which signal left its band first, at which step.

    Writes RUN/explanation/: explanation.md, overview.svg of the whole run, trigger-N.svg around each trigger, and the
    stability of the kept states once it was measured.
    """

    study: Annotated[Path, tyro.conf.Positional]
    """The study's folder, or its name under 'runs'."""
    run: str
    """A run of it, such as vae-tiny-seed007."""
    stability: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Measure how near its checkpoints and snapshots stood to the edge of stability: seconds each; takes the data."""


def main(argv: Sequence[str] | None = None) -> int:
    """Exit code 0: explained; 2: asked wrongly; 130: Ctrl-C."""
    return exit_code(lambda: explain(asked_by(Arguments, argv, "vaehpc explain")), "interrupted")


def explain(asked: Arguments) -> int:
    """Read, say and draw what happened.

    Returns:
        The exit code.
    """
    require_installed(*(("train",) if asked.stability else ()), "analysis")
    # Imported here: what is not installed is said first.
    from vaehpc.tasks.explanation import read_explained, read_stability, words_of, write_explanation

    run_dir = found_run(found_study(asked.study), asked.run)
    explained = read_explained(run_dir)
    if asked.stability and (failed := measure_stability(run_dir)):
        return failed
    states = read_stability(run_dir)
    print(words_of(explained, states))
    for path in write_explanation(run_dir, explained, states):
        print(path)
    if asked.stability:
        print(f"`vaehpc report {asked.study}` takes it into the report.")
    return 0


def measure_stability(run_dir: RunDir) -> int:
    """Measure the kept states of a run in a process of its own, with TensorFlow; its exit code."""
    command = [sys.executable, "-c", STABILITY, str(run_dir.path)]
    return subprocess.run(command, env={"TF_CPP_MIN_LOG_LEVEL": "3", **os.environ}, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
