"""`python -m vaehpc.explain STUDY --run RUN`: what happened around each trigger of a run."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from vaehpc.command import UserError, exit_code
from vaehpc.reporting.explanation import Explained, coverage, event_figure, event_words, overview_figure, page
from vaehpc.reporting.figures import svg
from vaehpc.reporting.stability import stability_figure, stability_section, stability_words
from vaehpc.reporting.words import NBSP
from vaehpc.schema.results import RunStability, Stability
from vaehpc.study.files import RunDir, read_model, write_text
from vaehpc.study.study import found_run, found_study
from vaehpc.tasks.recorded import read_recorded


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
    return exit_code(lambda: explain(tyro.cli(Arguments, args=argv, prog="vaehpc explain")), "interrupted")


def explain(asked: Arguments) -> int:
    """Read, say and draw what happened.

    Returns:
        The exit code.
    """
    run_dir = found_run(found_study(asked.study), asked.run)
    explained = read_explained(run_dir)
    if asked.stability and (failed := measure_stability(run_dir)):
        return failed
    states = read_stability(run_dir)
    print(words_of(explained, states))
    for path in write_explanation(run_dir, explained, states):
        print(path)
    return 0


# Reading


def read_explained(run_dir: RunDir) -> Explained:
    """What the recorder of a run holds, and what happened around its triggers.

    Raises:
        UserError: it holds no steps, or a trigger's record is damaged.
    """
    explained = read_recorded(run_dir)
    if explained is None:
        raise UserError(
            f"run {run_dir.name} has no recorded steps in {run_dir.steps}: it has not begun to train, or the file was"
            " removed. `vaehpc launch` trains what is missing."
        )
    return explained


def measure_stability(run_dir: RunDir) -> int:
    """Measure the kept states of a run in a process of its own, with TensorFlow; its exit code."""
    command = [sys.executable, "-m", "vaehpc.tasks.stability", str(run_dir.path)]
    return subprocess.run(command, env={"TF_CPP_MIN_LOG_LEVEL": "3", **os.environ}, check=False).returncode


def read_stability(run_dir: RunDir) -> Sequence[Stability]:
    """What was measured of the stability of a run; nothing if it was not asked for.

    Raises:
        UserError: the file is damaged.
    """
    return read_model(run_dir.stability_path, RunStability).states if run_dir.stability_path.exists() else ()


# Saying and writing


def words_of(explained: Explained, states: Sequence[Stability] = ()) -> str:
    """The text of every trigger, for a terminal."""
    said = [coverage(explained)]
    for found in explained.events:
        said += ["", f"Trigger {found.number}", *event_words(found, explained)]
    if states:
        said += ["", "Stability", stability_words(states, explained.events)]
    return "\n".join(said).replace(NBSP, " ")


def write_explanation(run_dir: RunDir, explained: Explained, states: Sequence[Stability] = ()) -> Iterable[Path]:
    """Draw the figures and write the page; yields each file when it is there."""
    run_dir.explanation.mkdir(exist_ok=True)
    figures = {"overview.svg": overview_figure(explained)}
    figures |= {f"trigger-{found.number}.svg": event_figure(found, explained.probe) for found in explained.events}
    if states:
        figures["stability.svg"] = stability_figure(states, explained.events)
    for name, figure in figures.items():
        write_text(run_dir.explanation / name, svg(figure))
        yield run_dir.explanation / name
    stability = f"\n{stability_section(states, explained.events)}" if states else ""
    write_text(run_dir.explanation / "explanation.md", page(explained) + stability)
    yield run_dir.explanation / "explanation.md"


if __name__ == "__main__":
    sys.exit(main())
