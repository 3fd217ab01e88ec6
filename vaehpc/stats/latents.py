"""One run's latents measured part by part: on which images, with which random keys, and what is kept of it.

Each part gives what stands in statistics.json and the arrays that lie beside it, by name. `points` are mu
(num_images, z_dim), finite and perhaps memory-mapped.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import stats

from vaehpc.schema.config import RunConfig
from vaehpc.schema.plan import TsneSettings
from vaehpc.schema.results import (
    AttributeProbe,
    DimensionStatistics,
    GaussianStatistics,
    InertiaCurve,
    MardiaStatistics,
    Spread,
    TsneResult,
)
from vaehpc.stats.attributes import attribute_probes
from vaehpc.stats.clustering import inertia_curve
from vaehpc.stats.dimension import neighbour_distances, neighbour_ratio, normal_surrogate, two_nn_dimension
from vaehpc.stats.embedding import neighbour_recall, tsne
from vaehpc.stats.gaussian import (
    Normal,
    axis_statistics,
    correlations,
    ks_distance,
    mardia_kurtosis,
    mardia_skewness,
    num_active_axes,
    participation_ratio,
    principal_coordinates,
    qq_of_chi2,
    radius_moments,
    squared_mahalanobis,
)
from vaehpc.stats.radius import radii

FloatArray = npt.NDArray[np.floating[Any]]
Float64Array = npt.NDArray[np.float64]
Positions = npt.NDArray[np.int64]
Arrays = Mapping[str, npt.NDArray[Any]]


def sample(num_images: int, size: int, key: np.random.SeedSequence) -> Positions:
    """Positions of `size` of the images, or of all if there are fewer, ascending; a larger sample holds the smaller."""
    return np.sort(np.random.default_rng(key).permutation(num_images)[:size])


def gaussian_statistics(
    points: FloatArray, normal: Normal, covariance: Float64Array, config: RunConfig
) -> tuple[GaussianStatistics, Arrays]:
    """mu beside the normal distribution with its mean and covariance."""
    plan = config.plan.gaussian
    axes = axis_statistics(points)
    of_pairs = correlations(covariance)
    squares = squared_mahalanobis(points, normal)
    images = sample(len(points), plan.skewness_images, config.key("gaussian"))
    skewness, skewness_expected = mardia_skewness(points[images])
    radius = radii(points)
    radius_mean_expected, radius_sd_expected = radius_moments(normal)
    found = GaussianStatistics(
        num_images=len(points),
        sd=spread(axes.sd),
        skewness=spread(axes.skewness),
        kurtosis=spread(axes.kurtosis),
        ks=spread(axes.ks),
        correlation_max=float(np.abs(of_pairs).max(initial=0)),
        rank=normal.rank,
        participation_ratio=participation_ratio(normal.variances),
        num_active=num_active_axes(np.diag(covariance), plan.active_variance),
        mahalanobis_ks=ks_distance(stats.chi2.cdf(np.sort(squares), normal.rank)),
        mardia=MardiaStatistics(
            skewness=skewness,
            skewness_expected=skewness_expected,
            skewness_images=len(images),
            kurtosis=mardia_kurtosis(squares),
            kurtosis_expected=normal.rank * (normal.rank + 2),
        ),
        radius_mean=float(radius.mean()),
        radius_mean_expected=radius_mean_expected,
        radius_sd=float(radius.std()),
        radius_sd_expected=radius_sd_expected,
    )
    return found, {
        "axis_mean": axes.mean,
        "axis_sd": axes.sd,
        "axis_skewness": axes.skewness,
        "axis_kurtosis": axes.kurtosis,
        "axis_ks": axes.ks,
        "principal_variances": normal.variances,
        "principal_components": normal.components,
        "mahalanobis_qq": qq_of_chi2(squares, normal.rank),
    }


def spread(values: FloatArray) -> Spread:
    """Of the values that are not NaN."""
    known = values[~np.isnan(values)]
    if not len(known):
        return Spread(min=np.nan, median=np.nan, max=np.nan)
    return Spread(min=float(known.min()), median=float(np.median(known)), max=float(known.max()))


def dimension_statistics(points: FloatArray, normal: Normal, config: RunConfig) -> DimensionStatistics:
    """Nearest neighbours among a sample of the images, and among as many points of the normal."""
    plan = config.plan.dimension
    images = sample(len(points), plan.num_images, config.key("dimension", 0))
    num_neighbours = min(plan.num_neighbours, len(images) - 1)
    distances = neighbour_distances(points[images], num_neighbours)
    surrogate = normal_surrogate(normal, len(images), config.key("dimension", 1))
    of_surrogate = neighbour_distances(surrogate, num_neighbours)
    return DimensionStatistics(
        num_images=len(images),
        num_neighbours=num_neighbours,
        two_nn=two_nn_dimension(distances),
        two_nn_surrogate=two_nn_dimension(of_surrogate),
        distance_ratio=neighbour_ratio(distances, of_surrogate),
    )


def clusters(points: FloatArray, normal: Normal, config: RunConfig) -> InertiaCurve:
    """The inertia curve."""
    plan = config.plan.clusters
    subsample = sample(len(points), plan.subsample, config.key("kmeans", 0))
    seeds = config.key("kmeans", 1).generate_state(len(plan.num_clusters)).tolist()
    return inertia_curve(points, normal, subsample, plan, seeds)


def embeddings(
    points: FloatArray, normal: Normal, config: RunConfig, num_threads: int
) -> tuple[tuple[TsneResult, ...], Arrays]:
    """t-SNE in every size and with every setting that the plan asks of this run; positions are those in `points`."""
    plan = config.plan.tsne
    sizes = [size for size in plan.sizes if size <= len(points)]
    if config.seed in plan.large_seeds:
        sizes += [min(size, len(points)) for size in (*plan.sizes, *plan.large_sizes)]
    found: list[TsneResult] = []
    arrays: dict[str, npt.NDArray[Any]] = {}
    for size in sorted(set(sizes)):
        images = sample(len(points), size, config.key("tsne", 0))
        arrays[f"tsne_{size}_images"] = images
        for number, settings in enumerate(plan.settings):
            name = f"tsne_{size}_{settings.name}"
            seed = int(config.key("tsne", 1, number).generate_state(1)[0])
            result, arrays[name] = _embedded(points[images], normal, settings, seed, config, num_threads)
            found.append(result)
    return tuple(found), arrays


def _embedded(
    points: FloatArray, normal: Normal, settings: TsneSettings, seed: int, config: RunConfig, num_threads: int
) -> tuple[TsneResult, npt.NDArray[np.float32]]:
    plan = config.plan.tsne
    if settings.pca_components is not None:
        points = principal_coordinates(points, normal, settings.pca_components)
    embedding = tsne(points, settings, seed, num_threads)
    num_neighbours = min(plan.recall_neighbours, len(points) - 1)
    queries = sample(len(points), plan.recall_images, config.key("tsne", 2))
    result = TsneResult(
        settings=settings.name,
        num_images=len(points),
        perplexity=embedding.perplexity,
        kl_divergence=embedding.kl_divergence,
        neighbour_recall=neighbour_recall(points, embedding.coordinates, num_neighbours, queries),
        neighbour_recall_expected=num_neighbours / (len(points) - 1),
        seed=seed,
    )
    return result, embedding.coordinates


def probes(
    points: FloatArray, attributes: Mapping[str, npt.NDArray[np.bool_]], config: RunConfig
) -> dict[str, AttributeProbe]:
    """Linear probes of attributes (num_images,): fitted on one random part of a sample, judged on the other."""
    plan = config.plan.attributes
    images = np.random.default_rng(config.key("probes")).permutation(len(points))[: plan.num_images]
    num_judging = min(max(1, round(plan.test_share * len(images))), len(images) - 2)
    test, train = np.split(images, [num_judging])
    values = np.column_stack(list(attributes.values()))
    fitted, judging = (points[train], values[train]), (points[test], values[test])
    return attribute_probes(fitted, judging, list(attributes), plan.penalty)
