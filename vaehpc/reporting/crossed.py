"""Crossed streams: which of them decides how a run ends, in words, as a figure, as a table and as rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from vaehpc.reporting.figures import STYLE, WIDTH
from vaehpc.reporting.findings import ENDPOINTS, p_words
from vaehpc.reporting.palette import CLASS_COLOURS, INK, QUIET
from vaehpc.reporting.words import NO_VALUE, class_name, counted, enumeration, p_value, percent
from vaehpc.schema.config import CROSSED, Stream, levels_of
from vaehpc.schema.results import RUN_CLASSES, CrossedArm, CrossedOutcome, CrossedPart, RunSummary, StudySummary
from vaehpc.study.crossing import least_p

STREAMS: Mapping[Stream, str] = {
    "initialisation": "initial weights",
    "shuffling": "order of images",
    "noise": "noise",
}
NOT_INDEPENDENT = (
    "Runs of a crossed study share streams and are not independent: the intervals and tests of its arms, which take"
    " them as such, are exploratory."
)


LEVELS: Mapping[Stream, str] = {
    "initialisation": "initial weights",
    "shuffling": "orders of images",
    "noise": "noises",
}


def together(streams: Sequence[Stream]) -> str:
    """'initial weights and noise'."""
    return enumeration([STREAMS[stream] for stream in streams])


def design(levels: Mapping[Stream, int]) -> str:
    """'4 initial weights × 4 noises'."""
    return " × ".join(f"{count} {LEVELS[stream]}" for stream, count in levels.items())


def sentences(summary: StudySummary, level: float) -> list[str]:
    """Which stream decides in each arm, as far as the runs show it."""
    said = [_sentence(name, arm, 1 - level) for name, arm in summary.crossed.items()]
    return [*said, NOT_INDEPENDENT] if said else []


def _sentence(name: str, arm: CrossedArm, alpha: float) -> str:
    said = [
        f"Streams of {name} crossed, {design(arm.levels) or 'none that it has'}: {arm.num_left} of {arm.num_ended}"
        f" {ENDPOINTS[arm.endpoint]}."
    ]
    if len(arm.levels) < 2:
        said.append("That takes two streams to tell apart.")
    elif arm.num_missing:
        are = "is" if arm.num_missing == 1 else "are"
        said.append(
            f"{counted(arm.num_missing, 'run')} {are} missing: which stream decides is told when all have ended."
        )
    elif arm.left is not None and not arm.left.parts:
        said.append("All runs did the same, so that no stream decides it.")
    elif arm.left is not None:
        said.append(f"Whether a run leaves: {decides(arm.left, alpha)}.")
        if (least := least_p(arm.levels)) > alpha:
            said.append(f"So few levels can show no stream alone: p is at least {p_value(least)}.")
    if arm.log_radius is not None and arm.log_radius.parts:
        said.append(f"Its R at the end: {decides(arm.log_radius, alpha)}.")
    return " ".join(said)


def decides(outcome: CrossedOutcome, alpha: float) -> str:
    """The sets of streams that matter, without those of which a part is shown to already."""
    shown: list[CrossedPart] = []
    for part in outcome.parts:
        if (
            part.holm is not None
            and part.holm <= alpha
            and not any(set(of.streams) < set(part.streams) for of in shown)
        ):
            shown.append(part)
    whole = outcome.parts[-1]
    if not shown:
        tested = [part for part in outcome.parts if part.p is not None]
        least = min(part.holm for part in tested if part.holm is not None)
        which = "no stream alone, nor two together," if len(whole.streams) > 2 else "no stream alone"
        return (
            f"{which} is shown to decide it: runs that share them agree no more than chance allows (least"
            f" {p_words(least)}, Holm-adjusted); {percent(whole.share)} of the variance comes of all"
            f" {len(whole.streams)} together"
        )
    said = [
        f"{together(part.streams)}{' together' if len(part.streams) > 1 else ''}"
        f" ({p_words(part.holm)}, Holm-adjusted; {percent(part.common)} of the variance)"
        for part in shown
    ]
    everything = f"{percent(whole.share)} of it comes of all {len(whole.streams)} together"
    return f"shown to matter: {enumeration(said)}; {everything}"


@dataclass(frozen=True)
class Line:
    """A row of the table."""

    arm: str
    of: str
    streams: str
    share: str
    common: str
    p: str
    holm: str


def lines(summary: StudySummary) -> list[Line]:
    """Each set of streams of each arm, for both outcomes."""
    return [
        Line(
            name,
            of,
            together(part.streams),
            percent(part.share),
            percent(part.common),
            NO_VALUE if part.p is None else p_value(part.p),
            NO_VALUE if part.holm is None else p_value(part.holm),
        )
        for name, arm in summary.crossed.items()
        for of, found in (("left", arm.left), ("ln R", arm.log_radius))
        if found is not None
        for part in found.parts
    ]


@mpl.rc_context(STYLE)
def crossed_figure(arm: CrossedArm, runs: Mapping[int, RunSummary]) -> Figure:
    """Class of every run over the levels of the first two streams, a panel for each level of the third.

    Args:
        arm: with at least two streams.
        runs: of the arm, by seed.
    """
    (first, rows), (second, columns), *third = arm.levels.items()
    panels = third[0][1] if third else 1
    width = min(2.2 * WIDTH, 1.5 + 1.5 * panels)
    size = min(11, 72 * (width - 0.7) / panels / (1.6 * max(rows, columns)))  # points
    figure = Figure(figsize=(width, 2.8), layout="constrained")
    drawn = figure.subplots(1, panels, sharey=True, squeeze=False)[0]
    for level, axes in enumerate(drawn):
        for row, column in product(range(rows), range(columns)):
            levels = {first: row, second: column} | ({third[0][0]: level} if third else {})
            run_class = runs[_seed(levels)].run_class
            if run_class is None:
                axes.plot(column, row, "x", color=QUIET, markersize=4)
            else:
                axes.plot(column, row, "s", color=CLASS_COLOURS[run_class], markersize=size)
        axes.set(xlim=(-0.6, columns - 0.4), ylim=(rows - 0.4, -0.6), aspect="equal")
        axes.set_xticks(range(columns))
        axes.set_yticks(range(rows))
        axes.grid(visible=False)
        axes.set_xlabel(STREAMS[second])
        if third:
            axes.set_title(f"{STREAMS[third[0][0]]} {level}", fontsize=8, color=INK)
    drawn[0].set_ylabel(STREAMS[first])
    classes = {run.run_class for run in runs.values()}
    handles = [
        Line2D([], [], marker="s", linestyle="", color=CLASS_COLOURS[each], label=class_name(each))
        for each in RUN_CLASSES
        if each in classes
    ]
    if None in classes:
        handles.append(Line2D([], [], marker="x", linestyle="", color=QUIET, label="missing"))
    figure.legend(handles=handles, loc="outside upper left", ncols=4, fontsize=7)
    return figure


def _seed(levels: Mapping[Stream, int]) -> int:
    """The run with these levels; a stream that is not crossed has one."""
    return int("".join(str(levels.get(stream, 0)) for stream in CROSSED))


def crossed_rows(runs: Mapping[str, RunSummary]) -> list[dict[str, Any]]:
    """A row per run of an arm."""
    rows = []
    for name, run in runs.items():
        row: dict[str, Any] = {"run": name, "class": run.run_class, "radius_median": run.radius_median}
        row.update((stream, level) for stream, level in levels_of(run.seed).items())
        rows.append(row)
    return rows
