"""How normal a cloud of latent points is: moments of its axes, its principal axes, the fit of a normal distribution.

Arrays of points have the shape (num_images, z_dim), are finite and may be memory-mapped: they are read block by block.
Sums are float64; covariances and variances are those of the population (1/N).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import special, stats

from vaehpc.stats.blocks import blocks
from vaehpc.stats.threads import side_by_side

FloatArray = npt.NDArray[np.floating[Any]]
Float64Array = npt.NDArray[np.float64]

COLUMNS_PER_BLOCK = 32
"""Axes that are copied at once: 44 MB in float64 for 170,000 images."""

PAIRS_PER_BLOCK = 1000
"""Points of which all pairs with others are in memory: 80 MB in float32 for 20,000 others."""

SAFE_VARIANCES = (1e-26, 1e32)
"""Variances of axes whose float32 products neither vanish nor overflow, in sums over ROWS_PER_BLOCK images."""

SAFE_EIGENVALUE = 0.01
"""Smallest eigenvalue of the correlations. In them the products' errors have a norm of 1e-7, for 40,000 normal points,
to 1e-6, for 3,000 with heavy tails: each principal variance is within 1e-4 of itself, within 1e-5 in all that were
tried."""

RANK_TOLERANCE = 1e-12
"""Principal variances below this share of the largest are rounding errors of float32 latents."""

QQ_LEVELS = np.arange(1, 1000) / 1000
"""Probabilities whose quantiles are compared."""


@dataclass(frozen=True)
class AxisStatistics:
    """Distribution of each latent axis over the images, float64 (z_dim,) each; a constant axis has only mean and sd."""

    mean: Float64Array
    sd: Float64Array
    skewness: Float64Array
    """m3 / m2^1.5; 0 for a normal."""
    kurtosis: Float64Array
    """m4 / m2^2 - 3, the excess; 0 for a normal."""
    ks: Float64Array
    """Kolmogorov-Smirnov distance to the normal of the same mean and sd, which is Lilliefors' statistic."""


@dataclass(frozen=True)
class Normal:
    """A normal distribution by its principal axes: x = mean + sum_i sqrt(variances_i) g_i components_i."""

    mean: Float64Array
    """(z_dim,)."""
    variances: Float64Array
    """(z_dim,), eigenvalues of the covariance, largest first."""
    components: Float64Array
    """(z_dim, z_dim): row i is the unit vector of variances[i]."""

    @property
    def rank(self) -> int:
        """Principal axes along which there is any variance."""
        return int(np.count_nonzero(self.variances > RANK_TOLERANCE * self.variances[0]))


def axis_statistics(points: FloatArray) -> AxisStatistics:
    """Moments of each axis, and its distance from a normal."""
    found: list[tuple[Float64Array, ...]] = []
    for columns in _column_blocks(points.shape[1]):
        of_axes = np.ascontiguousarray(points[:, columns].T, dtype=np.float64)
        found += [_axis_moments(axis) for axis in of_axes]
    return AxisStatistics(*(np.array(values) for values in zip(*found, strict=True)))


def _column_blocks(num_columns: int) -> Iterator[slice]:
    for start in range(0, num_columns, COLUMNS_PER_BLOCK):
        yield slice(start, min(start + COLUMNS_PER_BLOCK, num_columns))


def _axis_moments(axis: Float64Array) -> tuple[Any, ...]:
    mean = axis.mean()
    if axis.min() == axis.max():
        return mean, 0.0, math.nan, math.nan, math.nan
    deviation = axis - mean
    squares = deviation * deviation
    variance = squares.mean()
    sd = math.sqrt(variance)
    third, fourth = np.dot(squares, deviation) / len(axis), np.dot(squares, squares) / len(axis)
    return mean, sd, third / sd**3, fourth / variance**2 - 3, ks_distance(special.ndtr(np.sort(deviation) / sd))


def ks_distance(probabilities: Float64Array) -> float:
    """Largest distance of the empirical distribution from a continuous one.

    Args:
        probabilities: (n,), ascending: the distribution function at the sorted values.
    """
    steps = np.arange(len(probabilities) + 1) / len(probabilities)
    return float(max((steps[1:] - probabilities).max(), (probabilities - steps[:-1]).max()))


def mean_and_covariance(points: FloatArray) -> tuple[Float64Array, Float64Array]:
    """Mean (z_dim,) and covariance (z_dim, z_dim) of at least one point.

    Products of float32 points are float32, in sums over ROWS_PER_BLOCK images, where that leaves every principal
    variance within about 1e-5 of itself; float64 where axes depend on each other so much, or differ so little from a
    constant, that it would not. The first is twice as fast.
    """
    near = points[next(blocks(len(points)))].mean(axis=0, dtype=np.float64)
    if points.dtype == np.float32:
        near_float32 = near.astype(np.float32)
        rest, covariance = _moments_near(points, near_float32)
        if _holds_in_float32(covariance):
            return near_float32 + rest, covariance
    rest, covariance = _moments_near(points, near)
    return near + rest, covariance


def _moments_near(points: FloatArray, near: FloatArray) -> tuple[Float64Array, Float64Array]:
    """Mean deviation from a point, and the covariance; products have the wider type of the two.

    One pass over deviations from a point nearby: mean x x^T - mean mean^T loses the digits of a small spread.
    """
    z_dim = points.shape[1]

    def sums(rows: slice) -> tuple[FloatArray, FloatArray]:
        with np.errstate(over="ignore", invalid="ignore"):
            deviation = points[rows] - near
            return np.ones(len(deviation), near.dtype) @ deviation, deviation.T @ deviation

    total, products = np.zeros(z_dim), np.zeros((z_dim, z_dim))
    for of_deviation, of_products in side_by_side(sums, blocks(len(points))):
        total += of_deviation
        products += of_products
    rest = total / len(points)
    return rest, products / len(points) - np.outer(rest, rest)


def _holds_in_float32(covariance: Float64Array) -> bool:
    """Whether float32 products hold every principal variance, and neither overflow nor vanish.

    The error of each is small beside its two axes' standard deviations, not only beside the largest variance. Each
    principal variance is then within the norm of the correlations' errors, over their smallest eigenvalue, of itself
    (Demmel and Veselic 1992, SIAM J. Matrix Anal. Appl. 13, 1204, theorem 2.3).
    """
    variances = np.diag(covariance)
    if not (variances.min() > SAFE_VARIANCES[0] and variances.max() < SAFE_VARIANCES[1]):
        return False
    sd = np.sqrt(variances)
    return bool(np.linalg.eigvalsh(covariance / np.outer(sd, sd))[0] > SAFE_EIGENVALUE)


def fitted_normal(mean: Float64Array, covariance: Float64Array) -> Normal:
    """The normal distribution with these moments; a PCA, because its axes are the covariance's eigenvectors."""
    variances, vectors = np.linalg.eigh(covariance)
    return Normal(mean=mean, variances=np.maximum(variances[::-1], 0), components=vectors[:, ::-1].T.copy())


def participation_ratio(variances: Float64Array) -> float:
    """(sum v)^2 / sum v^2: how many equal principal variances would be as spread out; NaN if all are 0."""
    squares = float(np.square(variances).sum())
    return float(variances.sum()) ** 2 / squares if squares > 0 else math.nan


def correlations(covariance: Float64Array) -> Float64Array:
    """Correlation coefficients of all pairs of axes that are not constant, (num_pairs,)."""
    sd = np.sqrt(np.diag(covariance))
    varied = np.flatnonzero(sd > 0)
    scaled = covariance[np.ix_(varied, varied)] / np.outer(sd[varied], sd[varied])
    pairs: Float64Array = scaled[np.triu_indices(len(varied), 1)]
    return pairs


def num_active_axes(variances: FloatArray, limit: float) -> int:
    """Axes whose mu varies over the images by more than `limit` (Burda et al. 2016, arXiv:1509.00519, take 0.01)."""
    return int(np.count_nonzero(variances > limit))


def principal_coordinates(points: FloatArray, normal: Normal, num_axes: int) -> npt.NDArray[np.float32]:
    """Coordinates (num_images, num_axes) along the first principal axes, with the mean at the origin."""
    axes = normal.components[:num_axes].T
    coordinates = np.empty((len(points), axes.shape[1]), np.float32)
    for rows in blocks(len(points)):
        coordinates[rows] = (points[rows] - normal.mean) @ axes
    return coordinates


def squared_mahalanobis(points: FloatArray, normal: Normal) -> Float64Array:
    """Squared distances (num_images,) from the mean in units of the standard deviation, within the normal's rank.

    Of normal points their distribution is near chi^2 with `rank` degrees of freedom as long as there are many more
    images than axes. Exactly they are N - 1 times a Beta(rank / 2, (N - rank - 1) / 2), because mean and covariance are
    the points' own (Gnanadesikan and Kettenring 1972, Biometrics 28, 81).
    """
    rank = normal.rank
    whitening = normal.components[:rank].T / np.sqrt(normal.variances[:rank])
    squares = np.empty(len(points))
    for rows in blocks(len(points)):
        whitened = (points[rows] - normal.mean) @ whitening
        squares[rows] = np.einsum("ij,ij->i", whitened, whitened)
    return squares


def qq_of_chi2(squares: Float64Array, degrees: int) -> Float64Array:
    """Quantiles of chi^2 and of the squared distances at QQ_LEVELS, (2, num_levels)."""
    return np.array([stats.chi2.ppf(QQ_LEVELS, degrees), np.quantile(squares, QQ_LEVELS)])


def mardia_kurtosis(squares: Float64Array) -> float:
    """Mardia's kurtosis, the mean of the fourth powers of the Mahalanobis distances.

    Source: Mardia (1970), Biometrika 57, 519: under normality mean p (p + 2), variance 8 p (p + 2) / N.
    """
    return float(np.square(squares).mean())


def mardia_skewness(points: FloatArray) -> tuple[float, float]:
    """Mardia's skewness, and what is expected of it under normality: p (p + 1) (p + 2) / N.

    The mean of (y_i . y_j)^3 over all pairs of whitened points. That takes N^2 p multiplications: of many points, a
    sample has to do. Of a normal sample, N b / 6 is near chi^2 with p (p + 1) (p + 2) / 6 degrees of freedom.

    Source: Mardia (1970), Biometrika 57, 519.
    """
    normal = fitted_normal(*mean_and_covariance(points))
    rank, num_points = normal.rank, len(points)
    whitened = principal_coordinates(points, normal, rank)
    whitened /= np.sqrt(normal.variances[:rank])
    total = 0.0
    for start in range(0, num_points, PAIRS_PER_BLOCK):
        block, later = whitened[start : start + PAIRS_PER_BLOCK], whitened[start + PAIRS_PER_BLOCK :]
        total += _sum_of_cubes(block @ block.T) + 2 * _sum_of_cubes(block @ later.T)
    return total / num_points**2, rank * (rank + 1) * (rank + 2) / num_points


def _sum_of_cubes(products: npt.NDArray[np.float32]) -> float:
    return float((products * products * products).sum(dtype=np.float64))


def radius_moments(normal: Normal) -> tuple[float, float]:
    """Mean and standard deviation of R = ||x|| of a normal x.

    E R^2 = |mean|^2 + sum v. E R = (4 pi)^(-1/2) int_0^inf (1 - E exp(-t R^2)) t^(-3/2) dt, where
    E exp(-t R^2) = prod_i (1 + 2 v_i t)^(-1/2) exp(-t m_i^2 / (1 + 2 v_i t)), m the mean along the principal axes.
    With t = exp(u) the trapezoidal rule is exact to rounding: the integrand is analytic and falls like exp(-|u| / 2).
    """
    mean_square = float(np.square(normal.mean).sum() + normal.variances.sum())
    if mean_square == 0:
        return 0.0, 0.0
    variances = normal.variances[:, np.newaxis] / mean_square
    offsets = np.square(normal.components @ normal.mean)[:, np.newaxis] / mean_square
    step = 0.25
    u = np.arange(-80, 80, step)
    spread = 2 * variances * np.exp(u)
    log_transform = -0.5 * np.log1p(spread).sum(axis=0) - (offsets * np.exp(u) / (1 + spread)).sum(axis=0)
    integral = step * float((-np.expm1(log_transform) * np.exp(-u / 2)).sum())
    mean = integral / math.sqrt(4 * math.pi)
    return mean * math.sqrt(mean_square), math.sqrt(max(1 - mean**2, 0.0) * mean_square)
