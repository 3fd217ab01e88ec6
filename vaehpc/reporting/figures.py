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
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import Locator, LogLocator, MaxNLocator, NullLocator, PercentFormatter, StrMethodFormatter

from vaehpc.reporting import words
from vaehpc.reporting.findings import EVENTS as EVENT_WORDS
from vaehpc.reporting.findings import told
from vaehpc.reporting.palette import CLASS_COLOURS, CLASS_LINES, INK, PAPER, QUIET, RULE
from vaehpc.schema.results import (
    RUN_CLASSES,
    ArmSummary,
    EpochRecord,
    Event,
    EventCurves,
    LatentStatistics,
    LikenessToControl,
    RunClass,
    RunSummary,
    Share,
)
from vaehpc.stats.radius import RATIO

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
SVG_DPI = 72
"""Points to an inch: what matplotlib's SVG is drawn in."""

LOG_RANGE = 5.0
"""Axes whose largest value exceeds the smallest by this factor are logarithmic."""

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
    ratio_counts: Mapping[int, int] | None = None
    """Images in bins of equal ratio (vaehpc.stats.radius.ratio_histogram); None: none lies beyond the histogram of any
    run of the study, or the radii are gone."""

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
            if share.num_ended < arm.num_runs:
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

    Where images lie beyond its last bin the axis is logarithmic, up to the farthest, with bins of equal ratio; of a run
    whose radii are gone these are a point there. `article_radius` is the article's peak for the arms that can be
    compared with it.
    """
    runs = [run for of_arm in arms.values() for run in of_arm]
    is_wide = any(run.statistics.radius_mu.histogram.overflow for run in runs)
    curves = {run.name: (_ratio_curve if is_wide else _article_curve)(run) for run in runs}
    top = 1.1 * max(max(counts.max(initial=1) for _, counts in curves.values()), 1)
    low, high = _radius_extent(runs, is_wide)
    figures = {}
    for arm, of_arm in arms.items():
        figure, axes = _panel(of_arm)
        for run in _regular_first(of_arm):
            axes.plot(*curves[run.name], **_line(run))
            if is_wide and run.ratio_counts is None and (beyond := run.statistics.radius_mu.histogram.overflow):
                radius = max(run.statistics.radius_mu.median, _last_edge(run))
                height, marker = min(beyond, 0.96 * top), "o" if beyond < top else "^"
                axes.scatter(radius, height, s=18, marker=marker, color=CLASS_COLOURS[run.run_class], zorder=3)
        if arm in article_radius:
            _mark_article(axes, article_radius[arm], top)
        label = f"images per {100 * (RATIO - 1):.0f} % of R"
        if is_wide:
            axes.set_xscale("log")
            ticks = LogLocator(subs=(1, 2, 5) if high < 30 * low else (1, 3) if high < 1000 * low else (1,))
            axes.xaxis.set_major_locator(ticks)
            axes.xaxis.set_major_formatter(StrMethodFormatter("{x:,g}"))
            axes.xaxis.set_minor_locator(NullLocator())
        else:
            label = f"images per bin of {of_arm[0].statistics.radius_mu.histogram.bin_width:g}"
        axes.set(xlim=(low, high), ylim=(0, top), xlabel="latent radius R = ‖μ‖₂", ylabel=label)
        figures[arm] = figure
    return figures


Curve = tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]


def _article_curve(run: EndedRun) -> Curve:
    """Centres of the article's bins, and the images in each."""
    histogram = run.statistics.radius_mu.histogram
    return np.array(histogram.centres), np.array(histogram.counts, np.float64)


def _ratio_curve(run: EndedRun) -> Curve:
    """Centres of bins of equal ratio, and the images in each; empty bins lie between and around them."""
    if run.ratio_counts is None:  # of the article's bins, as if each had that ratio
        centres, counts = _article_curve(run)
        used = slice(0, 1 + max(np.flatnonzero(counts), default=0))
        return centres[used], (counts * (RATIO - 1) * centres / run.statistics.radius_mu.histogram.bin_width)[used]
    if not run.ratio_counts:
        return np.array([]), np.array([])
    bins = np.arange(min(run.ratio_counts) - 1, max(run.ratio_counts) + 2)
    counts = np.array([run.ratio_counts.get(int(at), 0) for at in bins], np.float64)
    return np.exp(math.log(RATIO) * (bins + 0.5)), counts


def _last_edge(run: EndedRun) -> float:
    histogram = run.statistics.radius_mu.histogram
    return histogram.bin_width * len(histogram.counts)


def _radius_extent(runs: Sequence[EndedRun], is_wide: bool) -> tuple[float, float]:
    """Ends of the axis of radii: in whole tens of bins, as far as images lie; else from the least to the largest."""
    if is_wide:
        ends = [end for run in runs for end in (run.statistics.radius_mu.min, run.statistics.radius_mu.max)]
        positive = [end for end in ends if math.isfinite(end) and end > 0]
        return min(positive) / RATIO**2, max(positive) * RATIO**2
    histogram = runs[0].statistics.radius_mu.histogram
    used = np.flatnonzero(np.sum([run.statistics.radius_mu.histogram.counts for run in runs], axis=0))
    bins = used[-1] + 1 if used.size else len(histogram.counts)
    return 0.0, histogram.bin_width * min(len(histogram.counts), 10 * math.ceil(bins / 10))


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


def svg(figure: Figure) -> str:
    """The figure as an SVG document with real text; equal figures give equal bytes."""
    text = io.StringIO()
    # No metadata: it would hold the date and the matplotlib version.
    metadata = dict.fromkeys(("Date", "Creator", "Format", "Type"))
    with mpl.rc_context(STYLE | {"svg.fonttype": "none", "svg.hashsalt": "vaehpc"}):
        _lay_out(figure)
        figure.savefig(text, format="svg", metadata=metadata)
    return text.getvalue()


def _lay_out(figure: Figure) -> None:
    """Place axes and legends as savefig would, which for that draws everything once more."""
    if (engine := figure.get_layout_engine()) is None:
        return
    FigureCanvasSVG(figure)  # which measures texts
    dpi, figure.dpi = figure.dpi, SVG_DPI
    engine.execute(figure)
    figure.dpi = dpi
    figure.set_layout_engine(None)


def _panel(runs: Sequence[EndedRun]) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(WIDTH, 2.5), layout="constrained")
    axes = figure.subplots()
    _add_legend(figure, runs)
    return figure, axes


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
            label = f"{words.class_name(run_class)} ({counts[run_class]})"
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
