"""`python -m vaehpc.explain STUDY --run RUN`: what happened around each trigger of a run."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from vaehpc.command import UserError, exit_code
from vaehpc.reporting.explanation import Explained, coverage, event_figure, event_words, overview_figure, page
from vaehpc.reporting.figures import svg
from vaehpc.reporting.words import NBSP
from vaehpc.study.files import RunDir, write_text
from vaehpc.study.study import found_run, found_study
from vaehpc.tasks.recorded import read_recorded


@dataclass(frozen=True)
class Arguments:
    """Say what happened around each trigger of a run: which signal left its band first, at which step.

    Writes RUN/explanation/: explanation.md, overview.svg of the whole run, and trigger-N.svg around each trigger.
    """

    study: Annotated[Path, tyro.conf.Positional]
    """The study's folder, or its name under 'runs'."""
    run: str
    """A run of it, such as vae-tiny-seed007."""


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
    print(words_of(explained))
    for path in write_explanation(run_dir, explained):
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


# Saying and writing


def words_of(explained: Explained) -> str:
    """The text of every trigger, for a terminal."""
    said = [coverage(explained)]
    for found in explained.events:
        said += ["", f"Trigger {found.number}", *event_words(found, explained)]
    return "\n".join(said).replace(NBSP, " ")


def write_explanation(run_dir: RunDir, explained: Explained) -> Iterable[Path]:
    """Draw the figures and write the page; yields each file when it is there."""
    run_dir.explanation.mkdir(exist_ok=True)
    figures = {"overview.svg": overview_figure(explained)}
    figures |= {f"trigger-{found.number}.svg": event_figure(found, explained.probe) for found in explained.events}
    for name, figure in figures.items():
        write_text(run_dir.explanation / name, svg(figure))
        yield run_dir.explanation / name
    write_text(run_dir.explanation / "explanation.md", page(explained))
    yield run_dir.explanation / "explanation.md"


if __name__ == "__main__":
    sys.exit(main())
