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

FloatArray = npt.NDArray[np.floating[Any]]
Float64Array = npt.NDArray[np.float64]


RADII_PER_BLOCK = 32768
"""Few enough to stay in the cache."""

SAFE_SQUARES = (1e-26, 1e38)
"""Sums of squares that float32 holds: no square has overflowed, and those that have vanished are below 1e-7 of the sum,
of up to 10,000 components."""


def radii(points: FloatArray) -> Float64Array:
    """R = ||point||_2, shape (num_images,), not finite exactly where a float32 component is not finite.

    Squares of float32 points are summed in float32, as the article does it, unless they overflow or vanish there. R is
    then within 2e-7 of R, about what it loses when it is saved in float32; the mean over many images is much closer. A
    difference between the radii of z and of mu needs more: `difference_census` takes it in float64.
    """
    squares = np.empty(len(points))
    for rows in blocks(len(points)):
        block = np.asarray(points[rows])
        with np.errstate(over="ignore", invalid="ignore"):
            of_block = np.vecdot(block, block)
        squares[rows] = of_block
        safe = (SAFE_SQUARES[0] < of_block) & (of_block < SAFE_SQUARES[1])
        if not safe.all():
            wide = block[~safe].astype(np.float64)
            squares[rows][~safe] = np.vecdot(wide, wide)
    return np.sqrt(squares, out=squares)


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
    for rows in blocks(len(points)):
        block = np.asarray(points[rows], dtype=np.float64)
        yield block[np.isfinite(block).all(axis=1)]


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
    size = num_bins + 1
    pairs, rest = np.zeros((size, size), np.int64), np.zeros(size, np.int64)
    for rows in blocks(len(radius), RADII_PER_BLOCK):
        bins = _bins(radius[rows], bin_width, num_bins)
        half = len(bins) // 2
        # Two radii at a time: most lie in a few bins, and a count waits for the one before it in the same bin.
        pairs += np.bincount(size * bins[:half] + bins[half : 2 * half], minlength=size**2).reshape(size, size)
        rest += np.bincount(bins[2 * half :], minlength=size)
    counts = pairs.sum(axis=0) + pairs.sum(axis=1) + rest
    *within, overflow = counts.tolist()
    return Histogram(bin_width=bin_width, counts=tuple(within), overflow=overflow)


def _bins(radius: FloatArray, bin_width: float, num_bins: int) -> npt.NDArray[np.signedinteger[Any]]:
    """Each radius's bin; `num_bins` beyond the last.

    Dividing by a power of two, such as the article's 0.5, is exact: the whole part is the bin. Other divisions round
    across edges, and numpy.histogram closes the last bin.
    """
    if math.frexp(bin_width)[0] != 0.5:
        return np.searchsorted(bin_width * np.arange(num_bins + 1), radius, side="right") - 1
    end = bin_width * num_bins
    if radius.max(initial=0) > end:
        radius = np.minimum(radius, end)
    return (radius / bin_width).astype(np.int32)


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
