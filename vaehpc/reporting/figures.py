"""Figures of a study: results in, matplotlib Figures out; nothing is read or written.

Figures of the arms of one study share their axes, so that they can be compared; each arm has its own Figure, so that a
page can set them side by side or one below the other.
"""

from __future__ import annotations

import io
import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from copy import copy
from dataclasses import dataclass
from typing import Any, Literal

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import Locator, LogLocator, MaxNLocator, NullLocator, PercentFormatter, StrMethodFormatter

from vaehpc.reporting import words
from vaehpc.reporting.findings import EVENTS as EVENT_WORDS
from vaehpc.reporting.findings import told
from vaehpc.schema.results import (
    RUN_CLASSES,
    ArmSummary,
    EpochRecord,
    Event,
    EventCurves,
    Histogram,
    LatentStatistics,
    LikenessToControl,
    RunClass,
    RunSummary,
    Share,
)

INK = "#1f2328"
QUIET = "#656d76"
RULE = "#d8dde3"
PAPER = "#ffffff"

# Okabe and Ito's palette, which the colour-blind can tell apart; line styles serve print without colour.
CLASS_COLOURS: dict[RunClass, str] = {
    "regular": "#0072b2",
    "shifted": "#e69f00",
    "diverged": "#d55e00",
    "displaced": "#009e73",
    "collapsed": "#cc79a7",
    "nonfinite": "#3d444d",
    "unclassified": "#7d8590",
}
CLASS_LINES: dict[RunClass, Literal["solid", "dashed", "dashdot", "dotted"]] = {
    "regular": "solid",
    "shifted": "dashed",
    "diverged": "solid",
    "displaced": "dashdot",
    "collapsed": "dashdot",
    "nonfinite": "dotted",
    "unclassified": "solid",
}

STYLE: dict[Any, Any] = {
    "font.size": 8,
    "text.color": INK,
    "axes.edgecolor": QUIET,
    "axes.labelcolor": INK,
    "axes.linewidth": 0.7,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": RULE,
    "grid.linewidth": 0.6,
    "xtick.color": QUIET,
    "ytick.color": QUIET,
    "legend.frameon": False,
    "legend.handlelength": 1.8,
    "figure.facecolor": PAPER,
    "axes.facecolor": PAPER,
}

WIDTH = 3.4
"""Inches; two or three figures side by side fill the page, one fills a phone."""

LOG_RANGE = 5.0
"""Axes whose largest value exceeds the smallest by this factor are logarithmic."""

COURSE_SIZE = (64, 16)
"""Width and height of a run's small curve, px."""

ROUND = (1, 2, 2.5, 5, 10)
"""Steps between ticks that a reader can count in."""


@dataclass(frozen=True)
class EndedRun:
    """A run with results, as the figures need it."""

    name: str
    run_class: RunClass
    summary: RunSummary
    statistics: LatentStatistics
    history: Sequence[EpochRecord]
    steps_per_epoch: int

    def epochs(self) -> np.ndarray:
        """Training time of each history record in epochs."""
        return np.array([record.step for record in self.history]) / self.steps_per_epoch

    def values(self, quantity: str) -> np.ndarray:
        """A quantity of the history, float64 (num_epochs,)."""
        return np.array([getattr(record, quantity) for record in self.history], dtype=np.float64)


ArmRuns = Mapping[str, Sequence[EndedRun]]
"""Ended runs of each arm."""


@mpl.rc_context(STYLE)
def divergence_rates(arms: Mapping[str, ArmSummary]) -> Figure:
    """Shares of each arm's ended runs with their intervals; a pale bar spans what missing runs leave open.

    Diverged, and below it diverged or nonfinite where these are more; of an arm without a rate those that jumped.
    """
    figure = Figure(figsize=(1.4 * WIDTH, 0.65 + 0.3 * len(arms)), layout="constrained")
    axes = figure.subplots()
    for row, arm in enumerate(arms.values()):
        for offset, colour, share in _shares(arm):
            if arm.num_missing:
                axes.hlines(row + offset, share.if_none_missing, share.if_all_missing, color=RULE, linewidth=7)
            axes.hlines(row + offset, share.interval.low, share.interval.high, color=colour, linewidth=1.8)
            axes.plot(share.rate, row + offset, "o", color=colour, clip_on=False, markersize=4)
    axes.set(xlim=(0, 1), ylim=(len(arms) - 0.5, -0.5), xlabel="share of runs among those that ended")
    axes.set_yticks(range(len(arms)), list(arms), color=INK)
    axes.xaxis.set_major_formatter(PercentFormatter(1, symbol=" %"))
    axes.tick_params(axis="y", length=0, pad=8)
    axes.grid(visible=False, axis="y")
    counts = axes.secondary_yaxis("right")
    counts.set_yticks(range(len(arms)), [_counts(arm) for arm in arms.values()], color=INK)
    counts.tick_params(length=0, pad=8)
    counts.spines["right"].set_visible(False)
    return figure


def _shares(arm: ArmSummary) -> list[tuple[float, str, Share]]:
    """Place on the arm's row, colour and share of what is drawn."""
    shares = [arm.endpoints[endpoint] for endpoint in told(arm)]
    colours = (QUIET if arm.unjudged else CLASS_COLOURS["diverged"], CLASS_COLOURS["nonfinite"])
    places = (-0.16, 0.16) if len(shares) > 1 else (0.0,)
    return list(zip(places, colours, shares, strict=False))


@mpl.rc_context(STYLE)
def radius_curves(arms: ArmRuns, article_radius: Mapping[str, float]) -> dict[str, Figure]:
    """The article's histogram of R = ||mu||_2 of each arm's runs: one line per run through the bin centres.

    Images beyond the last bin are drawn as a point at the right edge, or as a triangle where the point would be off the
    scale. `article_radius` is the article's peak for the arms that can be compared with it.
    """
    histograms = [run.statistics.radius_mu.histogram for runs in arms.values() for run in runs]
    top = 1.1 * max(max(*histogram.counts, 1) for histogram in histograms)
    right, overflows = _radius_extent(histograms), any(histogram.overflow for histogram in histograms)
    figures = {}
    for arm, runs in arms.items():
        figure, axes = _panel(runs)
        _draw_histograms(axes, runs, right, top)
        if arm in article_radius:
            _mark_article(axes, article_radius[arm], top)
        axes.set(xlim=(0, 1.1 * right if overflows else right), ylim=(0, top))
        if overflows:
            within = np.linspace(0, right, 8)[:-1]
            axes.set_xticks([*within, 1.05 * right], [*(f"{tick:g}" for tick in within), f"≥ {right:g}"])
        axes.set(xlabel="latent radius R = ‖μ‖₂", ylabel=f"images per bin of {histograms[0].bin_width:g}")
        figures[arm] = figure
    return figures


@mpl.rc_context(STYLE)
def radius_histories(arms: ArmRuns) -> dict[str, Figure]:
    """Median R after each epoch, one line per run; a triangle marks its first jump or growth."""
    scale = _common_scale([run.values("radius_median") for runs in arms.values() for run in runs])
    figures = {}
    for arm, runs in arms.items():
        figure, axes = _panel(runs)
        _draw_histories(axes, runs, "radius_median")
        for run in runs:
            if run.summary.onset_step is not None and run.history:
                onset = run.summary.onset_step / run.steps_per_epoch
                radius = np.interp(onset, run.epochs(), run.values("radius_median"))
                axes.scatter(onset, radius, marker="v", s=32, color=CLASS_COLOURS[run.run_class], zorder=3)
        scale(axes)
        axes.set(xlabel="epoch", ylabel="median of R = ‖μ‖₂")
        figures[arm] = figure
    return figures


@mpl.rc_context(STYLE)
def loss_histories(arms: ArmRuns) -> dict[str, Figure]:
    """Reconstruction loss, and its excess over the data's entropy H(x), after each epoch: one line per run."""
    quantities = {"reconstruction_loss": "reconstruction loss", "excess_loss": "excess over H(x)"}
    curves = {name: [run.values(name) for runs in arms.values() for run in runs] for name in quantities}
    # The excess falls ever more slowly: only a logarithmic axis shows its last epochs.
    scales = {name: _common_scale(curves[name], logarithmic=name == "excess_loss") for name in quantities}
    figures = {}
    for arm, runs in arms.items():
        figure = Figure(figsize=(WIDTH, 3.8), layout="constrained")
        panels = figure.subplots(2, 1, sharex=True)
        for axes, (quantity, label) in zip(panels, quantities.items(), strict=True):
            _draw_histories(axes, runs, quantity)
            scales[quantity](axes)
            axes.set_ylabel(label)
        panels[-1].set_xlabel("epoch")
        _add_legend(figure, runs)
        figures[arm] = figure
    return figures


EVENT_COLOURS: dict[Event, str] = {
    "jump": CLASS_COLOURS["diverged"],
    "growth": CLASS_COLOURS["shifted"],
    "nonfinite": CLASS_COLOURS["nonfinite"],
}


@mpl.rc_context(STYLE)
def event_curves(arms: Mapping[str, EventCurves], controls: Mapping[str, str | None]) -> dict[str, Figure]:
    """Aalen-Johansen curve of each kind of first event with its interval; ticks: runs were censored.

    Dashed: events of any kind of its control.
    """
    last = max(curves.steps[-1] for curves in arms.values())
    figures = {}
    for arm, curves in arms.items():
        figure = Figure(figsize=(WIDTH, 2.3), layout="constrained")
        axes = figure.subplots()
        control = controls[arm]
        if control is not None and control != arm and control in arms:
            steps, shares = _staircase(arms[control], any_event(arms[control]), last)
            label = f"any event of {control}"
            axes.step(steps, shares, where="post", color=QUIET, linewidth=1.0, linestyle="dashed", label=label)
        if not curves.events:
            axes.plot((0, last), (0, 0), color=CLASS_COLOURS["regular"], linewidth=1.6, label="no event")
        for event, of_kind in curves.events.items():
            steps, shares = _staircase(curves, of_kind.share, last)
            colour, ends = EVENT_COLOURS[event], (of_kind.low, of_kind.high)
            axes.step(steps, shares, where="post", color=colour, linewidth=1.6, label=EVENT_WORDS[event])
            low, high = ([math.nan if value is None else value for value in end] for end in ends)
            axes.fill_between(curves.steps, low, high, step="post", color=colour, alpha=0.18, linewidth=0)
        censored = [step for step, count in zip(curves.steps, curves.censored, strict=True) if count and step < last]
        axes.plot(censored, [0.0] * len(censored), "|", color=INK, markersize=7, clip_on=False)
        axes.set(xlim=(0, last), ylim=(0, 1.04), xlabel="training step", ylabel="share of runs, by first event")
        axes.xaxis.set_major_locator(MaxNLocator(5, steps=ROUND))
        axes.xaxis.set_major_formatter(StrMethodFormatter("{x:,g}"))
        axes.yaxis.set_major_formatter(PercentFormatter(1, symbol=" %"))
        figure.legend(loc="outside upper left", ncols=2, fontsize=7)
        figures[arm] = figure
    return figures


def any_event(curves: EventCurves) -> list[float]:
    """Share of runs with an event of any kind, by each step."""
    shares = [of_kind.share for of_kind in curves.events.values()]
    return [sum(values) for values in zip(*shares, strict=True)] if shares else [0.0] * len(curves.steps)


def _staircase(curves: EventCurves, share: Sequence[float], last: int) -> tuple[list[int], list[float]]:
    return [0, *curves.steps, last], [0.0, *share, share[-1]]


@mpl.rc_context(STYLE)
def likeness_strips(found: LikenessToControl) -> Figure:
    """Every pair of runs as a dot: a VAE and the AE of its seed, and AEs of different seeds; means with t intervals."""
    quantities = list(found.effects)
    figure = Figure(figsize=(WIDTH, 0.4 + 0.72 * len(quantities)), layout="constrained")
    panels = np.atleast_1d(figure.subplots(len(quantities), 1))
    for axes, quantity in zip(panels, quantities, strict=True):
        effect = found.effects[quantity]
        rows = {"VAE, AE": found.pairs, "AE, AE": found.null if effect.null_mean is not None else ()}
        rows = {row: pairs for row, pairs in rows.items() if pairs}
        for height, (row, pairs) in enumerate(rows.items()):
            values = [value for pair in pairs if (value := getattr(pair, quantity)) is not None]
            colour = CLASS_COLOURS["regular"] if row == "VAE, AE" else QUIET
            axes.plot(values, [height] * len(values), "o", color=colour, markersize=3.5, alpha=0.6, clip_on=False)
        if quantity == "median_shift":
            axes.axvspan(-found.radius_margin, found.radius_margin, color=RULE, linewidth=0, zorder=0)
        if effect.low is not None and effect.high is not None:
            axes.hlines(-0.35, effect.low, effect.high, color=CLASS_COLOURS["diverged"], linewidth=1.8)
        axes.plot(effect.mean, -0.35, "d", color=CLASS_COLOURS["diverged"], markersize=4)
        axes.set_ylim(len(rows) - 0.5, -0.7)
        axes.set_yticks(range(len(rows)), list(rows), color=INK)
        axes.tick_params(axis="y", length=0)
        axes.grid(visible=False, axis="y")
        axes.xaxis.set_major_locator(MaxNLocator(5, steps=ROUND))
        axes.set_title(words.QUANTITIES[quantity], loc="left", fontsize=7, pad=3)
    return figure


def courses(arms: ArmRuns) -> dict[str, str]:
    """Median R over the epochs of each run as an SVG path in COURSE_SIZE, on one logarithmic scale for all runs."""
    runs = [run for of_arm in arms.values() for run in of_arm]
    curves = {run.name: run.values("radius_median") for run in runs}
    positive = np.concatenate([np.empty(0), *(curve[np.isfinite(curve) & (curve > 0)] for curve in curves.values())])
    if not positive.size:
        return {}
    low, high = np.log(positive.min()), np.log(positive.max())
    width, height = COURSE_SIZE
    drawn = {}
    for name, curve in curves.items():
        shown = np.flatnonzero(np.isfinite(curve) & (curve > 0))
        if shown.size:
            x = width * (shown + 1) / max(len(curve), 1)
            y = height - 1 - (height - 2) * (np.log(curve[shown]) - low) / ((high - low) or 1)
            points = [f"{a:.1f} {b:.1f}" for a, b in zip(x, y, strict=True)]
            drawn[name] = f"M{'L'.join([points[0], *points])}"  # a single epoch is a dot
    return drawn


def svg(figure: Figure) -> str:
    """The figure as an SVG document with real text; equal figures give equal bytes."""
    text = io.StringIO()
    # No metadata: it would hold the date and the matplotlib version.
    metadata = dict.fromkeys(("Date", "Creator", "Format", "Type"))
    with mpl.rc_context(STYLE | {"svg.fonttype": "none", "svg.hashsalt": "vaehpc"}):
        figure.savefig(text, format="svg", metadata=metadata)
    return text.getvalue()


def _panel(runs: Sequence[EndedRun]) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(WIDTH, 2.5), layout="constrained")
    axes = figure.subplots()
    _add_legend(figure, runs)
    return figure, axes


def _draw_histograms(axes: Axes, runs: Sequence[EndedRun], right: float, top: float) -> None:
    for run in _regular_first(runs):
        histogram = run.statistics.radius_mu.histogram
        axes.plot(histogram.centres, histogram.counts, **_line(run))
        if histogram.overflow:
            marker, height = ("o", histogram.overflow) if histogram.overflow < top else ("^", 0.96 * top)
            axes.scatter(1.05 * right, height, s=18, marker=marker, color=CLASS_COLOURS[run.run_class], zorder=3)


def _mark_article(axes: Axes, radius: float, top: float) -> None:
    axes.axvline(radius, color=QUIET, linewidth=0.9, linestyle=(0, (2, 2)))
    axes.annotate(
        f"article {radius:g}",
        (radius, 0.99 * top),
        (4, 0),
        textcoords="offset points",
        va="top",
        color=QUIET,
        fontsize=7,
    )


def _line(run: EndedRun) -> dict[str, Any]:
    # The many runs of the common classes must not hide each other.
    width, alpha = (0.8, 0.7) if run.run_class in ("regular", "unclassified") else (1.4, 1.0)
    return {
        "color": CLASS_COLOURS[run.run_class],
        "linestyle": CLASS_LINES[run.run_class],
        "linewidth": width,
        "alpha": alpha,
    }


def _draw_histories(axes: Axes, runs: Sequence[EndedRun], quantity: str) -> None:
    for run in _regular_first(runs):
        # The dot shows where a run ended; it is all that can be seen of a run of one epoch.
        axes.plot(run.epochs(), run.values(quantity), marker=".", markersize=4, markevery=[-1], **_line(run))
    axes.xaxis.set_major_locator(MaxNLocator(7, integer=True))


def _regular_first(runs: Sequence[EndedRun]) -> list[EndedRun]:
    """So that the lines of the rarer classes lie on top."""
    return sorted(runs, key=lambda run: RUN_CLASSES.index(run.run_class), reverse=True)


def _add_legend(figure: Figure, runs: Sequence[EndedRun]) -> None:
    """The classes that occur, with their counts."""
    counts = Counter(run.run_class for run in runs)
    handles = []
    for run_class in RUN_CLASSES:
        if counts[run_class]:
            label = f"{run_class} ({counts[run_class]})"
            handles.append(
                Line2D([], [], color=CLASS_COLOURS[run_class], linestyle=CLASS_LINES[run_class], label=label)
            )
    figure.legend(handles=handles, loc="outside upper left", ncols=3, fontsize=7)


def _counts(arm: ArmSummary) -> str:
    shares = _shares(arm)
    counts = words.of_ended(shares[0][2]) if shares else "no rate"
    counts += " jumped" if shares and arm.unjudged else ""
    counts += f", {shares[1][2].count} with NaN" if len(shares) > 1 else ""
    return f"{counts}, {arm.num_missing} missing" if arm.num_missing else counts


def _radius_extent(histograms: Sequence[Histogram]) -> float:
    """Right end of the radius axis in whole tens of bins: all of them if any image lies beyond, else those in use."""
    counts = np.sum([histogram.counts for histogram in histograms], axis=0)
    used = np.flatnonzero(counts)
    bins = len(counts) if any(histogram.overflow for histogram in histograms) or not used.size else used[-1] + 1
    return histograms[0].bin_width * min(len(counts), 10 * math.ceil(bins / 10))


def _common_scale(curves: Sequence[np.ndarray], logarithmic: bool = False) -> Callable[[Axes], None]:
    """Give an axis limits that hold all finite values of all curves; beyond LOG_RANGE it is logarithmic in any case."""
    values = np.concatenate(curves)
    values = values[np.isfinite(values)]
    low, high = (values.min(), values.max()) if values.size else (0.0, 1.0)
    is_wide = high > LOG_RANGE * low
    if low <= 0 or not (logarithmic or is_wide):
        margin = max(0.05 * (high - low), 0.01 * abs(high)) or 1.0  # equal values need an axis, too
        return lambda axes: _set_scale(axes, "linear", low - margin, high + margin, MaxNLocator(6, steps=ROUND))
    margin = max((high / low) ** 0.05, 1.01)
    locator = LogLocator(subs=(1, 2, 5)) if is_wide else MaxNLocator(5, steps=ROUND)
    return lambda axes: _set_scale(axes, "log", low / margin, high * margin, locator)


def _set_scale(axes: Axes, scale: Literal["linear", "log"], low: float, high: float, locator: Locator) -> None:
    axes.set(yscale=scale, ylim=(low, high))
    axes.yaxis.set_major_locator(copy(locator))  # a locator belongs to one axis
    axes.yaxis.set_major_formatter(StrMethodFormatter("{x:,g}"))
    axes.yaxis.set_minor_locator(NullLocator())
