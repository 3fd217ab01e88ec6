"""Radii R of latent points, their distribution, and their split: R_rms^2 = offset^2 + spread^2.

Arrays of points have the shape (num_images, z_dim) and may be memory-mapped: they are read block by block.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from vaehpc.schema.plan import RadiusPlan
from vaehpc.schema.results import Histogram, RadiusStatistics
from vaehpc.stats.blocks import blocks

ROWS_IN_CACHE = 512
"""A block of 256 components in float64 is a mebibyte."""

FloatArray = npt.NDArray[np.floating[Any]]
Float64Array = npt.NDArray[np.float64]


def radii(points: FloatArray) -> Float64Array:
    """R = ||point||_2, shape (num_images,), not finite exactly where a float32 component is not finite."""
    squares: Float64Array = np.einsum("ij,ij->i", points, points, dtype=np.float64)
    return np.sqrt(squares)


def offset_and_spread(points: FloatArray) -> tuple[float, float]:
    """|mean point| and sqrt(tr Cov) (population covariance) over the finite points; NaN if there is none.

    The mean is taken first, in a pass of its own: mean R^2 - |mean|^2 would lose the digits of a small spread.
    """
    num_points = 0
    total = np.zeros(points.shape[1])
    for block in _finite_blocks(points):
        num_points += len(block)
        total += block.sum(axis=0)
    if num_points == 0:
        return math.nan, math.nan
    mean = total / num_points
    squares = sum(float(np.square(block - mean).sum()) for block in _finite_blocks(points))
    return float(np.linalg.norm(mean)), math.sqrt(squares / num_points)


def _finite_blocks(points: FloatArray) -> Iterator[Float64Array]:
    for rows in blocks(len(points), ROWS_IN_CACHE):
        block = np.asarray(points[rows], dtype=np.float64)
        is_finite = np.isfinite(block).all(axis=1)
        yield block if is_finite.all() else block[is_finite]


def radius_statistics(radius: FloatArray, plan: RadiusPlan) -> RadiusStatistics:
    """Distribution of the finite radii; every statistic is NaN if there is none."""
    finite = radius[np.isfinite(radius)]
    histogram = radius_histogram(finite, plan.bin_width, plan.num_bins)
    median, mean, smallest, largest = math.nan, math.nan, math.nan, math.nan
    if len(finite):
        median, mean = float(np.median(finite)), float(finite.mean())
        smallest, largest = float(finite.min()), float(finite.max())
    return RadiusStatistics(
        median=median,
        mean=mean,
        min=smallest,
        max=largest,
        mode=histogram_mode(histogram),
        histogram=histogram,
        shell_shares={f"{low:g}-{high:g}": shell_share(finite, low, high) for low, high in plan.shells},
    )


def radius_histogram(radius: FloatArray, bin_width: float, num_bins: int) -> Histogram:
    """Counts of finite radii with bin_width * i <= R < bin_width * (i + 1), as in the article's loop, and beyond."""
    edges = bin_width * np.arange(num_bins + 1)
    bins = np.searchsorted(edges, radius, side="right") - 1
    *within, overflow = np.bincount(bins, minlength=num_bins + 1).tolist()
    return Histogram(bin_width=bin_width, counts=tuple(within), overflow=overflow)


RATIO = 1.03
"""Of the ends of a bin; near R = 16.5 it is as wide as one of the article's."""


def ratio_histogram(radius: FloatArray) -> dict[int, int]:
    """Counts of finite radii with RATIO^k <= R < RATIO^(k + 1), by k: every radius has a bin; empty ones are left out.

    At R = 0, which has none, an image is left out.
    """
    positive = np.asarray(radius, np.float64)[np.isfinite(radius) & (radius > 0)]
    bins, counts = np.unique(np.floor(np.log(positive) / math.log(RATIO)).astype(np.int64), return_counts=True)
    return dict(zip(bins.tolist(), counts.tolist(), strict=True))


def histogram_mode(histogram: Histogram) -> float:
    """Centre of the fullest bin, the lowest of equals; infinity for the overflow bin, NaN if nothing was counted."""
    fullest = max(*histogram.counts, histogram.overflow)
    if fullest == 0:
        return math.nan
    return [*histogram.centres, math.inf][[*histogram.counts, histogram.overflow].index(fullest)]


def shell_share(radius: FloatArray, low: float, high: float) -> float:
    """Share of the radii with low < R < high; NaN if there are none."""
    if not len(radius):
        return math.nan
    return float(np.mean((low < radius) & (radius < high)))


def common_scale(mu: FloatArray, before: FloatArray) -> tuple[float, float]:
    """How much of a change of latents is one of scale alone, which a decoder can undo.

    Args:
        mu: (num_images, z_dim).
        before: the same images' earlier, not all zero.

    Returns:
        c with the least |mu - c before|^2, and 1 - |mu - c before|^2 / |mu - before|^2; NaN where nothing changed.
    """
    wide, earlier = mu.astype(np.float64).ravel(), before.astype(np.float64).ravel()
    scale = float(wide @ earlier / (earlier @ earlier))
    changed = float(((wide - earlier) ** 2).sum())
    rest = float(((wide - scale * earlier) ** 2).sum())
    return scale, 1 - rest / changed if changed else float("nan")
