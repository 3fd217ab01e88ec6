"""How many clusters latent points have: the inertia of k-means over k, and whether that curve has an elbow.

Arrays of points have the shape (num_images, z_dim) and are finite.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.cluster import KMeans, MiniBatchKMeans
from sklearn.metrics import euclidean_distances, pairwise_distances_argmin_min

from vaehpc.schema.plan import ClusterPlan
from vaehpc.schema.results import InertiaCurve
from vaehpc.stats.gaussian import Normal, principal_coordinates
from vaehpc.stats.threads import side_by_side

FloatArray = npt.NDArray[np.floating[Any]]
Float32Array = npt.NDArray[np.float32]
Positions = npt.NDArray[np.integer[Any]]


def inertia_curve(
    points: FloatArray, normal: Normal, subsample: Positions, plan: ClusterPlan, seeds: Sequence[int]
) -> InertiaCurve:
    """Inertia, the sum of squared distances to the nearest centroid, over the plan's numbers of clusters.

    The same on any number of threads.

    Args:
        points: (num_images, z_dim).
        normal: with the points' mean and principal axes.
        subsample: positions of the images on which centroids are first looked for.
        plan: method, numbers of clusters and iterations. Numbers for which the points are too few are left out.
        seeds: scikit-learn's random_state for each number of clusters.
    """
    coordinates = principal_coordinates(points, normal, points.shape[1])
    num_different = len(np.unique(coordinates[subsample, 0]))  # at least so many points are
    num_clusters = [k for k in plan.num_clusters if k + max(plan.breaths, default=0) <= num_different]
    inertia_of = _minibatch if plan.method == "minibatch" else _subsampled
    inertia = inertia_of(coordinates, subsample, num_clusters, plan, seeds)
    elbow, factor = find_elbow(num_clusters, inertia, plan.elbow_window, plan.elbow_factor)
    return InertiaCurve(
        method=plan.method,
        num_clusters=tuple(num_clusters),
        inertia=tuple(inertia),
        seeds=tuple(seeds[: len(num_clusters)]),
        elbow=elbow,
        elbow_factor=factor,
    )


def _minibatch(
    points: Float32Array, _: Positions, num_clusters: Sequence[int], plan: ClusterPlan, seeds: Sequence[int]
) -> list[float]:
    """The article's way. Its curve is not monotone: the spikes are noise."""
    return [
        MiniBatchKMeans(k, batch_size=plan.batch_size, n_init=1, random_state=seed).fit(points).inertia_
        for k, seed in zip(num_clusters, seeds, strict=False)
    ]


def _subsampled(
    points: Float32Array, subsample: Positions, num_clusters: Sequence[int], plan: ClusterPlan, seeds: Sequence[int]
) -> list[float]:
    """Lloyd's iterations, most of them where they are cheap: on few points and along the axes with the most variance.

    No iteration with all points and axes raises the inertia, and no curve made here rises: where more clusters end with
    more inertia, they are made from the fewer.
    """
    leading = np.ascontiguousarray(points[:, : plan.leading_axes])

    def refined(centroids: Float32Array) -> tuple[float, Float32Array]:
        labels = _lloyd(leading, centroids, plan.leading_iterations).labels_
        means = np.stack([points[labels == cluster].mean(axis=0) for cluster in range(len(centroids))])
        found = _lloyd(points, means, plan.full_iterations)
        return float(found.inertia_), found.cluster_centers_

    curve: list[float] = []
    before = points[:0]
    for inertia, centroids in side_by_side(refined, _starts(leading[subsample], num_clusters, plan, seeds)):
        if curve and inertia > curve[-1]:
            rng = np.random.default_rng(seeds[len(curve)])
            found = _lloyd(points, _grown(points, before, len(centroids), rng), plan.full_iterations)
            inertia, centroids = float(found.inertia_), found.cluster_centers_
        before = centroids
        curve.append(inertia)
    return curve


def _starts(
    points: Float32Array, num_clusters: Sequence[int], plan: ClusterPlan, seeds: Sequence[int]
) -> Iterator[Float32Array]:
    """Centroids (k, num_axes) of k clusters of few points.

    A start is k-means++, or the clusters found for the number before with as many more points; the better one breathes
    and goes on.
    """
    before = points[:0]
    for k, seed in zip(num_clusters, seeds, strict=False):
        rng = np.random.default_rng(seed)
        found = KMeans(k, n_init=plan.num_starts, max_iter=plan.subsample_iterations, random_state=seed).fit(points)
        if len(before):
            grown = _lloyd(points, _grown(points, before, k, rng), plan.subsample_iterations)
            found = min(found, grown, key=lambda model: model.inertia_)
        before = _breathed(points, found, plan, rng).cluster_centers_
        yield before


def _breathed(points: Float32Array, found: KMeans, plan: ClusterPlan, rng: np.random.Generator) -> KMeans:
    """Clusters after centroids were added and as many taken away again, wherever that left less inertia.

    So a centroid comes from where two share a cluster to where two clusters share one, which Lloyd's iterations alone
    cannot do. Source: breathing k-means, Fritzke (2020), arXiv:2006.15666.
    """
    num_clusters = len(found.cluster_centers_)
    for extra in plan.breaths:
        more = _grown(points, found.cluster_centers_, num_clusters + extra, rng)
        centroids = _lloyd(points, more, plan.subsample_iterations).cluster_centers_
        fewer = _lloyd(points, _without_least_useful(points, centroids, extra), plan.subsample_iterations)
        found = min(found, fewer, key=lambda model: model.inertia_)
    return found


def _without_least_useful(points: Float32Array, centroids: Float32Array, num_fewer: int) -> Float32Array:
    """Centroids without those, one after the other, without which the inertia grows least."""
    squares = euclidean_distances(points, centroids, squared=True)
    for _ in range(num_fewer):
        nearest = squares.argmin(axis=1)
        first, second = np.partition(squares, 1, axis=1)[:, :2].T
        least_useful = np.bincount(nearest, second - first, minlength=len(centroids)).argmin()
        squares, centroids = (np.delete(array, least_useful, axis) for array, axis in ((squares, 1), (centroids, 0)))
    return centroids


def _lloyd(points: Float32Array, centroids: Float32Array, iterations: int) -> KMeans:
    return KMeans(len(centroids), init=centroids, n_init=1, max_iter=iterations, tol=0).fit(points)


def _grown(points: Float32Array, centroids: Float32Array, num_clusters: int, rng: np.random.Generator) -> Float32Array:
    """Centroids and more of them: points drawn as k-means++ does, by the squared distance from the nearest centroid."""
    squares = np.square(pairwise_distances_argmin_min(points, centroids)[1], dtype=np.float64)
    while len(centroids) < num_clusters:
        added = points[rng.choice(len(points), p=squares / squares.sum())]
        squares = np.minimum(squares, np.square(points - added).sum(axis=1, dtype=np.float64))
        centroids = np.vstack([centroids, added])
    return centroids


def find_elbow(
    num_clusters: Sequence[int], inertia: Sequence[float], window: int, factor: float
) -> tuple[int | None, float]:
    """The number of clusters k after which the inertia falls most abruptly less, and the ratio of the slopes there.

    The slope of ln inertia over ln k in the half `window` of intervals left of k (or as many as there are), divided by
    that in the `window` intervals right of k. A power law k^(-2/d), which evenly spread points in d dimensions follow,
    has the ratio 1 everywhere; its distance from the chord, which is Kneedle's measure, has a large maximum.

    Returns:
        No elbow, None, if no ratio reaches `factor`. The ratio is NaN if the curve is too short.
    """
    x, y = np.log(num_clusters), np.log(np.maximum(inertia, np.finfo(np.float64).tiny))
    ratios = {}
    for i in range(1, len(x) - window):
        left, right = max(i - (window + 1) // 2, 0), i + window
        slope_right = (y[i] - y[right]) / (x[right] - x[i])
        slope_left = (y[left] - y[i]) / (x[i] - x[left])
        ratios[num_clusters[i]] = float(slope_left / slope_right) if slope_right > 0 else math.inf
    if not ratios:
        return None, math.nan
    sharpest = max(ratios, key=lambda k: ratios[k])
    return (sharpest if ratios[sharpest] >= factor else None), ratios[sharpest]
