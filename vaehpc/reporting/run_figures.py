"""Figures of one run: arrays in, matplotlib Figures out; nothing is read or written."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib as mpl
import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, NullFormatter, NullLocator, StrMethodFormatter

from vaehpc.reporting.figures import ROUND, STYLE, WIDTH
from vaehpc.reporting.palette import CLASS_COLOURS, INK, QUIET
from vaehpc.schema.results import InertiaCurve, TriggerMark
from vaehpc.stats.course import ProbeCurve

LINE = CLASS_COLOURS["regular"]
ALARM = CLASS_COLOURS["diverged"]
WITH, WITHOUT = "#e69f00", "#7d8590"
"""Points with an attribute and without it; both can be seen on white and on black."""
DOTS_PER_INCH = 200
"""Of point clouds, which are drawn as pixels: 20,000 points as shapes would be a page of megabytes."""

FloatArray = npt.NDArray[np.floating]


@mpl.rc_context(STYLE)
def probe_curve(probe: ProbeCurve, onset_step: int | None, triggers: Sequence[TriggerMark]) -> Figure:
    """Median R of the probe over training steps; dashed: the recorder fired; triangle: the first jump or growth."""
    figure, axes = _panel("training step", "median R of the probe")
    for trigger in triggers:
        axes.axvline(trigger.step, color=ALARM, linewidth=0.8, linestyle=(0, (3, 2)))
    axes.plot(probe.steps, probe.radius_medians, color=LINE, linewidth=1.0, marker=".", markersize=3)
    if onset_step is not None:
        radius = np.interp(onset_step, probe.steps, probe.radius_medians)
        axes.scatter(onset_step, radius, marker="v", s=32, color=ALARM, zorder=3)
    axes.set_ylim(bottom=0)
    axes.xaxis.set_major_locator(MaxNLocator(5, steps=ROUND))
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:,g}"))
    return figure


@mpl.rc_context(STYLE)
def spectrum(variances: FloatArray) -> Figure:
    """Variances along the principal axes of mu, largest first, (z_dim,)."""
    figure, axes = _panel("principal axis", "variance")
    positive = variances > 0
    axes.plot(np.flatnonzero(positive) + 1, variances[positive], ".-", color=LINE, linewidth=0.8, markersize=3)
    axes.set_yscale("log")
    return figure


@mpl.rc_context(STYLE)
def qq_of_chi2(quantiles: FloatArray) -> Figure:
    """Quantiles (2, num_levels) of chi^2, and of the squared Mahalanobis distances; dashed: equal ones."""
    figure, axes = _panel("quantiles of χ²", "of squared Mahalanobis distances")
    low, high = quantiles.min(), quantiles.max()
    axes.plot([low, high], [low, high], color=QUIET, linewidth=0.9, linestyle="dashed")
    axes.plot(*quantiles, ".", color=LINE, markersize=3)
    return figure


@mpl.rc_context(STYLE)
def inertia(curve: InertiaCurve) -> Figure:
    """Inertia over the number of clusters; dashed: the elbow, where there is one."""
    figure, axes = _panel("number of clusters k", "inertia")
    axes.loglog(curve.num_clusters, curve.inertia, ".-", color=LINE, linewidth=0.8, markersize=4)
    ticks = [k for k in (2, 5, 10, 20, 40, 80) if curve.num_clusters[0] <= k <= curve.num_clusters[-1]]
    axes.set_xticks(ticks, [str(k) for k in ticks])
    axes.xaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.yaxis.set_minor_locator(NullLocator())
    low, high = min(curve.inertia), max(curve.inertia)
    axes.set_yticks([low, (low * high) ** 0.5, high], [f"{value:.3g}" for value in (low, (low * high) ** 0.5, high)])
    if curve.elbow is not None:
        axes.axvline(curve.elbow, color=ALARM, linewidth=0.9, linestyle=(0, (3, 2)))
    return figure


@mpl.rc_context(STYLE)
def embedding(coordinates: FloatArray, has_attribute: npt.NDArray[np.bool_] | None) -> Figure:
    """A t-SNE map (num_points, 2), as pixels; those with an attribute (num_points,) stand out."""
    figure = Figure(figsize=(WIDTH, WIDTH), layout="constrained", dpi=DOTS_PER_INCH)
    axes = figure.subplots()
    axes.set_axis_off()
    axes.set_aspect("equal")
    size = float(np.clip(6000 / len(coordinates), 0.5, 12))
    if has_attribute is None:
        groups = [(coordinates, LINE)]
    else:
        groups = [(coordinates[~has_attribute], WITHOUT), (coordinates[has_attribute], WITH)]
    for points, colour in groups:
        axes.scatter(points[:, 0], points[:, 1], s=size, color=colour, linewidths=0, alpha=0.7, rasterized=True)
    return figure


def _panel(xlabel: str, ylabel: str) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(WIDTH, 2.5), layout="constrained")
    axes = figure.subplots()
    axes.set_xlabel(xlabel, color=INK)
    axes.set_ylabel(ylabel, color=INK)
    return figure, axes
