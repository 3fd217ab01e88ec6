"""The posterior q(z | x) = N(mu, exp(log_var)) of a VAE: how large log_var is, and how far z lies from mu.

Arrays have the shape (num_images, z_dim) and may be memory-mapped: they are read block by block.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from vaehpc.schema.results import DifferenceCensus, LogVarCensus
from vaehpc.stats.blocks import blocks

FloatArray = npt.NDArray[np.floating[Any]]
Float64Array = npt.NDArray[np.float64]


def num_nonfinite(arrays: Sequence[FloatArray]) -> int:
    """Components that are NaN or infinite."""
    return sum(int(np.count_nonzero(~np.isfinite(array[rows]))) for array in arrays for rows in blocks(array.shape[0]))


def log_var_census(log_var: FloatArray, interval: tuple[float, float]) -> LogVarCensus:
    """Extremes and mean of the finite components, and how many lie in the closed interval; NaN if none is finite."""
    low, high = interval
    smallest, largest, total = math.inf, -math.inf, 0.0
    num_finite = num_in_interval = 0
    for rows in blocks(len(log_var)):
        block = log_var[rows]
        finite = block[np.isfinite(block)]
        smallest = min(smallest, float(finite.min(initial=math.inf)))
        largest = max(largest, float(finite.max(initial=-math.inf)))
        total += float(finite.sum(dtype=np.float64))
        num_finite += finite.size
        num_in_interval += int(np.count_nonzero((low <= finite) & (finite <= high)))
    if num_finite == 0:
        return LogVarCensus(min=math.nan, max=math.nan, mean=math.nan, num_in_interval=0)
    return LogVarCensus(min=smallest, max=largest, mean=total / num_finite, num_in_interval=num_in_interval)


def signal_to_noise(mu: FloatArray, log_var: FloatArray | None) -> float | None:
    """Median over the axes of Var(mu) / E(exp(log_var)): mu and sigma scaled together, which changes no loss, keep it.

    Args:
        mu: (num_images, z_dim), finite; variances and means are over the images.
        log_var: the same of the posterior, whatever the arm makes of its noise; None: an AE, which has no noise.

    Returns:
        Infinite where an axis has no noise in float64.
    """
    if log_var is None:
        return None
    mean = mu.mean(axis=0, dtype=np.float64)
    signal, noise = np.zeros_like(mean), np.zeros_like(mean)
    with np.errstate(over="ignore", divide="ignore", invalid="ignore"):
        for rows in blocks(len(mu)):
            signal += ((mu[rows] - mean) ** 2).sum(axis=0)
            noise += np.exp(log_var[rows], dtype=np.float64).sum(axis=0)
        return float(np.median(signal / noise))


def kl_slope(mu: FloatArray, log_var: FloatArray | None) -> float | None:
    """d KL / d ln c of c mu and c sigma at c = 1: mean over the images of sum_z (mu^2 + exp(log_var) - 1), nats.

    With a decoder that undoes the scale this, times the weight of the KL loss, is all that a radius costs.

    Args:
        mu: (num_images, z_dim), finite.
        log_var: the same; None: an AE, which pays nothing.
    """
    if log_var is None:
        return None
    total = 0.0
    with np.errstate(over="ignore"):
        for rows in blocks(len(mu)):
            total += float((np.square(mu[rows], dtype=np.float64) + np.exp(log_var[rows], dtype=np.float64)).sum())
    return total / len(mu) - int(mu.shape[1])


def kl_of_scale(scale: float, mu: FloatArray, log_var: FloatArray | None) -> float:
    """By how much the KL divergence rises where mu and sigma become `scale` times as large, nats, mean over the images.

    Args:
        scale: not 0; its sign changes nothing.
        mu: (num_images, z_dim), finite.
        log_var: the same; None: an AE, which pays nothing.
    """
    slope = kl_slope(mu, log_var)
    if slope is None:
        return 0.0
    z_dim = int(mu.shape[1])
    return (scale * scale - 1) / 2 * (slope + z_dim) - z_dim * math.log(abs(scale))


def difference_census(
    mu: FloatArray, log_var: FloatArray, z: FloatArray, interval: tuple[float, float], epsilon_factor: float
) -> DifferenceCensus:
    """z against mu, by component and by radius, over the images that are finite in all three arrays.

    Args:
        mu: (num_images, z_dim).
        log_var: (num_images, z_dim).
        z: (num_images, z_dim), drawn as mu + epsilon_factor * exp(log_var / 2) * epsilon.
        interval: counts components with low < |z - mu| < high.
        epsilon_factor: scale of the noise in z.

    Returns:
        NaN if no image is finite. Relative differences, and the expected one, are NaN or infinite if a radius is 0.
    """
    low, high = interval
    largest, num_in_interval = -math.inf, 0
    radii_mu, radii_z, radial_noise = [], [], []
    for rows in blocks(len(mu)):
        block_mu, block_log_var, block_z = _finite_images(mu[rows], log_var[rows], z[rows])
        difference = block_z - block_mu
        largest = max(largest, float(difference.max(initial=-math.inf)))
        num_in_interval += int(np.count_nonzero((low < np.abs(difference)) & (np.abs(difference) < high)))
        radii_mu.append(np.linalg.norm(block_mu, axis=1))
        radii_z.append(np.linalg.norm(block_z, axis=1))
        radial_noise.append(_radial_noise(block_mu, block_log_var, epsilon_factor))
    radius_mu, radius_z = np.concatenate(radii_mu), np.concatenate(radii_z)
    absolute = np.abs(radius_z - radius_mu)
    with np.errstate(divide="ignore", invalid="ignore"):
        relative = absolute / radius_mu
    return DifferenceCensus(
        max_component=largest if len(radius_mu) else math.nan,
        num_in_interval=num_in_interval,
        max_abs_radius=_max(absolute),
        mean_abs_radius=_mean(absolute),
        max_rel_radius=_max(relative),
        mean_rel_radius=_mean(relative),
        expected_mean_abs_radius=math.sqrt(2 / math.pi) * _mean(np.concatenate(radial_noise)),
    )


def _finite_images(*arrays: FloatArray) -> list[Float64Array]:
    finite = np.logical_and.reduce([np.isfinite(array).all(axis=1) for array in arrays])
    return [array[finite].astype(np.float64) for array in arrays]


def _radial_noise(mu: Float64Array, log_var: Float64Array, epsilon_factor: float) -> Float64Array:
    """Standard deviation of R_z to first order in the noise: sqrt(sum mu^2 sigma^2) / R_mu, shape (num_images,).

    R_z - R_mu is about mu . (z - mu) / R_mu, which is normal with this deviation.
    """
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        sigma = epsilon_factor * np.exp(log_var / 2)
        noise: Float64Array = np.linalg.norm(mu * sigma, axis=1) / np.linalg.norm(mu, axis=1)
    return noise


def _max(values: Float64Array) -> float:
    return float(values.max()) if len(values) else math.nan


def _mean(values: Float64Array) -> float:
    return float(values.mean()) if len(values) else math.nan
