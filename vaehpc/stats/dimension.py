"""How many dimensions latent points fill, and how close they lie together: distances to their nearest neighbours.

Both depend on how many points there are and, in many dimensions, are far from asymptotic: TwoNN finds far fewer
dimensions than 256 in some thousands of points of a 256-dimensional normal. They are therefore measured beside those of
a surrogate: as many points of the normal distribution with the same mean and covariance.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.neighbors import NearestNeighbors

from vaehpc.stats.gaussian import Normal

FloatArray = npt.NDArray[np.floating[Any]]
Float64Array = npt.NDArray[np.float64]

TWO_NN_SHARE = 0.9
"""Facco et al. leave out the tenth of the points with the largest ratios: there, the density is least constant."""


def neighbour_distances(points: FloatArray, num_neighbours: int) -> Float64Array:
    """Euclidean distances (num_points, num_neighbours) of each point to its nearest others, ascending."""
    search = NearestNeighbors(n_neighbors=num_neighbours, algorithm="brute").fit(points)
    distances: Float64Array = search.kneighbors()[0].astype(np.float64)
    return distances


def two_nn_dimension(distances: Float64Array) -> float:
    """Intrinsic dimension by the ratios of the second to the first neighbour's distance, which are Pareto in it.

    The slope of -ln(1 - i / n) over ln ratio through the origin, without the last tenth. Points on top of each other
    have no ratio and are left out; NaN if there are fewer than two ratios or all are 1.

    Source: Facco et al. (2017), Scientific Reports 7, 12140, doi:10.1038/s41598-017-11873-y.

    Args:
        distances: (num_points, 2 or more), as `neighbour_distances` gives them.
    """
    first, second = distances[:, 0], distances[:, 1]
    ratios = np.sort(second[first > 0] / first[first > 0])
    used = int(TWO_NN_SHARE * len(ratios))
    x, y = np.log(ratios[:used]), -np.log1p(-np.arange(1, used + 1) / len(ratios))
    squares = float(x @ x)
    return float(x @ y) / squares if squares > 0 else math.nan


def normal_surrogate(normal: Normal, num_points: int, key: np.random.SeedSequence) -> npt.NDArray[np.float32]:
    """Points (num_points, z_dim) of a normal distribution."""
    deviates = np.random.default_rng(key).standard_normal((num_points, len(normal.mean)))
    points = normal.mean + (deviates * np.sqrt(normal.variances)) @ normal.components
    return points.astype(np.float32)


def neighbour_ratio(distances: Float64Array, of_surrogate: Float64Array) -> float:
    """Median distance to the last of the neighbours, relative to the surrogate's.

    Below 1 the points lie closer together than normal ones: on a surface of fewer dimensions, or in clusters.
    """
    median = float(np.median(of_surrogate[:, -1]))
    return float(np.median(distances[:, -1])) / median if median > 0 else math.nan
