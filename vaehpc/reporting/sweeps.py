"""Sweeps: shares of runs that left over the values of a setting, in words, as a figure and as rows."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import cycle
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator, PercentFormatter

from vaehpc.reporting.figures import LOG_RANGE, STYLE, WIDTH
from vaehpc.reporting.findings import ENDPOINTS, NAMES, p_words
from vaehpc.reporting.palette import CLASS_COLOURS, INK, QUIET, RULE
from vaehpc.reporting.tables import setting
from vaehpc.reporting.words import counted, enumeration, of_ended, percent
from vaehpc.schema.results import SweepSummary, SweptBase, SweptPoint

MARKERS = ("o", "s", "D", "^", "v", "P", "X")
STEP = 0.012
"""Of the axis, between the points of two arms at one value."""


def sentences(sweeps: Sequence[SweepSummary]) -> list[str]:
    """Of each arm how many runs left at each value, whether that is a trend, and where half leave."""
    return [_sentence(base, sweep) for sweep in sweeps for base in sweep.bases]


def _sentence(base: SweptBase, sweep: SweepSummary) -> str:
    shares = enumeration([_share(point) for point in base.points])
    said = [f"Of {base.base} over {sweep.setting}, {shares} {ENDPOINTS[sweep.endpoint]}."]
    if missing := sum(point.num_missing for point in base.points):
        said.append(f"{counted(missing, 'run')} {'is' if missing == 1 else 'are'} missing.")
    if base.rises is None:
        return " ".join(said)
    test = f"exact test within seeds, two-sided {p_words(base.trend_p)}, exploratory"
    if not is_shown(base, sweep):
        return " ".join([*said, f"No trend is shown ({test})."])
    return " ".join(
        [*said, f"{'More' if base.rises else 'Fewer'} leave at larger values ({test}).", *half(base, sweep)]
    )


def _share(point: SweptPoint) -> str:
    return f"{of_ended(point.share) if point.share is not None else 'none ended'} at {setting(point.value)}"


def is_shown(base: SweptBase, sweep: SweepSummary) -> bool:
    """Whether the share has a trend."""
    return base.trend_p is not None and base.trend_p <= 1 - sweep.level


def half(base: SweptBase, sweep: SweepSummary) -> list[str]:
    """Where half of the runs leave, as far as the counts say it; nothing without a trend."""
    if base.half_between is None or base.half_within is None or not is_shown(base, sweep):
        return []
    under, beyond = base.half_between
    if under is None or beyond is None:
        which = "less" if beyond is None else "more"
        found = f"At every value that was tried, half of the runs or {which} leave"
    else:
        found = f"Half leave between {_range(under, beyond)}, as the share is fitted to rise or fall alone"
    low, high = base.half_within
    return [f"{found}; {_bounds(low, high, bool(base.rises))} ({percent(sweep.level)})."]


def _range(first: float, second: float) -> str:
    return f"{setting(min(first, second))} and {setting(max(first, second))}"


def _bounds(low: float | None, high: float | None, rises: bool) -> str:
    """What the exact intervals of single values allow."""
    above, below = ("above", "below") if rises else ("below", "above")
    if low is not None and high is not None:
        return f"the intervals allow no value for it but those between {_range(low, high)}"
    known = [f"{side} {setting(end)}" for side, end in ((above, low), (below, high)) if end is not None]
    return f"the intervals say only that it is {known[0]}" if known else "the intervals bound it on neither side"


@mpl.rc_context(STYLE)
def sweep_figure(sweep: SweepSummary) -> Figure:
    """Shares over the swept value with their exact intervals; a pale bar spans what missing runs leave open.

    The axis is that of the numbers, logarithmic if the largest is far from the smallest; words stand side by side.
    """
    figure = Figure(figsize=(1.4 * WIDTH, 2.8), layout="constrained")
    axes = figure.subplots()
    values = list(dict.fromkeys(point.value for base in sweep.bases for point in base.points))
    numbers = [float(value) for value in values if isinstance(value, int | float) and not isinstance(value, bool)]
    places = dict(zip(values, numbers if len(numbers) == len(values) else range(len(values)), strict=True))
    low, high = min(places.values()), max(places.values())
    is_log = low > 0 and high > LOG_RANGE * low
    axes.axhline(0.5, color=QUIET, linewidth=0.7, linestyle=(0, (3, 2)))
    looks = zip(sweep.bases, cycle(CLASS_COLOURS.values()), cycle(MARKERS), strict=False)
    for position, (base, colour, marker) in enumerate(looks):
        shift = (position - (len(sweep.bases) - 1) / 2) * STEP
        drawn = [
            (
                places[point.value] * (high / low) ** shift if is_log else places[point.value] + shift * (high - low),
                point,
            )
            for point in base.points
            if point.share is not None
        ]
        for at, point in drawn:
            assert point.share is not None
            if point.num_missing:
                axes.vlines(at, point.share.if_none_missing, point.share.if_all_missing, color=RULE, linewidth=6)
            axes.vlines(at, point.share.interval.low, point.share.interval.high, color=colour, linewidth=1.2)
        shares = [point.share.rate for _, point in drawn if point.share is not None]
        at_values = [at for at, _ in drawn]
        axes.plot(
            at_values, shares, marker=marker, color=colour, linewidth=0.8, markersize=4, clip_on=False, label=base.base
        )
    if is_log:
        axes.set_xscale("log")
    axes.set_xticks(list(places.values()), [setting(value) for value in values], color=INK)
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set(ylim=(0, 1), xlabel=sweep.setting, ylabel=NAMES[sweep.endpoint])
    axes.yaxis.set_major_formatter(PercentFormatter(1, symbol=" %"))
    figure.legend(loc="outside upper left", ncols=3, fontsize=7)
    return figure


def sweep_rows(sweep: SweepSummary) -> list[dict[str, Any]]:
    """A row per arm of the sweep."""
    return [
        {
            "setting": sweep.setting,
            "value": setting(point.value),
            "base": base.base,
            "arm": point.arm,
            "endpoint": sweep.endpoint,
            "count": point.share and point.share.count,
            "num_ended": point.share.num_ended if point.share else 0,
            "num_missing": point.num_missing,
            "rate": point.share and point.share.rate,
            "low": point.share and point.share.interval.low,
            "high": point.share and point.share.interval.high,
            "level": sweep.level,
        }
        for base in sweep.bases
        for point in base.points
    ]
