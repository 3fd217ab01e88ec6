"""What happened around each trigger of a run: read from its record, said, and left as a page with figures."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from vaehpc.command import UserError
from vaehpc.reporting.explanation import Explained, coverage, event_figure, event_words, overview_figure, page
from vaehpc.reporting.figures import svg
from vaehpc.reporting.stability import stability_figure, stability_section, stability_words
from vaehpc.reporting.words import NBSP
from vaehpc.schema.results import RunStability, Stability
from vaehpc.study.files import RunDir, is_there, read_model, write_text
from vaehpc.tasks.recorded import read_recorded


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


def read_stability(run_dir: RunDir) -> Sequence[Stability]:
    """What was measured of the stability of a run; nothing if it was not asked for.

    Raises:
        UserError: the file is damaged.
    """
    return read_model(run_dir.stability_path, RunStability).states if is_there(run_dir.stability_path) else ()


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
