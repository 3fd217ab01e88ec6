"""Dimensions of clouds whose dimension is known."""

import math

import numpy as np
import pytest

from vaehpc.stats.dimension import neighbour_distances, neighbour_ratio, normal_surrogate, two_nn_dimension
from vaehpc.stats.gaussian import fitted_normal, mean_and_covariance

RNG = np.random.default_rng


def embedded(points, z_dim, seed=0):
    """Points in the first axes of a rotated space."""
    rotation, _ = np.linalg.qr(RNG(seed).standard_normal((z_dim, z_dim)))
    return (points @ rotation[: points.shape[1]]).astype(np.float32)


@pytest.mark.parametrize("dimension", [1, 2, 5])
def test_flat_clouds_have_their_own_dimension_in_any_space(dimension):
    points = embedded(RNG(1).uniform(size=(4000, dimension)), 32)
    # In five dimensions many points lie at the cube's faces, where half of their neighbours are missing.
    assert two_nn_dimension(neighbour_distances(points, 2)) == pytest.approx(dimension, rel=0.12)


def test_the_surface_of_a_ball_has_one_dimension_less():
    points = RNG(2).standard_normal((4000, 3))
    points /= np.linalg.norm(points, axis=1, keepdims=True)
    assert two_nn_dimension(neighbour_distances(points, 2)) == pytest.approx(2, rel=0.07)


def test_agrees_with_the_papers_procedure_step_by_step():
    points = RNG(3).standard_normal((300, 4))
    ratios = []
    for point in points:
        _, first, second = sorted(math.dist(point, other) for other in points)[:3]
        ratios.append(second / first)
    ratios.sort()
    pairs = [(math.log(ratio), -math.log(1 - i / 300)) for i, ratio in enumerate(ratios[:270], start=1)]
    slope = sum(x * y for x, y in pairs) / sum(x * x for x, _ in pairs)
    assert two_nn_dimension(neighbour_distances(points, 2)) == pytest.approx(slope, rel=1e-9)


def test_points_on_top_of_each_other_have_no_ratio():
    points = np.concatenate([RNG(4).uniform(size=(1000, 2))] * 2)
    points[0] += 1e-3
    assert math.isnan(two_nn_dimension(neighbour_distances(np.ones((20, 3)), 2)))
    assert math.isfinite(two_nn_dimension(neighbour_distances(points, 2)))


def test_neighbours_of_a_line_of_points():
    distances = neighbour_distances(np.array([[0.0], [1], [3], [7]]), 2)
    np.testing.assert_allclose(distances, [[1, 3], [1, 2], [2, 3], [4, 6]])


def test_a_normal_is_as_dense_as_its_surrogate_and_the_surrogate_has_its_moments():
    points = (RNG(5).standard_normal((3000, 8)) * np.arange(1, 9) + 4).astype(np.float32)
    mean, covariance = mean_and_covariance(points)
    normal = fitted_normal(mean, covariance)
    surrogate = normal_surrogate(normal, 50_000, np.random.SeedSequence(1))
    found_mean, found_covariance = mean_and_covariance(surrogate)
    np.testing.assert_allclose(found_mean, mean, atol=0.15)
    np.testing.assert_allclose(found_covariance, covariance, atol=1.3)
    distances = [neighbour_distances(cloud, 10) for cloud in (points, surrogate[:3000])]
    assert neighbour_ratio(*distances) == pytest.approx(1, abs=0.03)


def test_clusters_and_curved_surfaces_are_denser_than_their_surrogate():
    clusters = RNG(6).standard_normal((2000, 8)) + 20 * RNG(7).standard_normal((10, 8))[np.arange(2000) % 10]
    angle = RNG(8).uniform(0, 2 * np.pi, 2000)
    circle = np.column_stack([np.cos(angle), np.sin(angle)])
    for points in (clusters, circle):
        normal = fitted_normal(*mean_and_covariance(points))
        surrogate = normal_surrogate(normal, 2000, np.random.SeedSequence(2))
        assert neighbour_ratio(neighbour_distances(points, 10), neighbour_distances(surrogate, 10)) < 0.5


def test_surrogates_depend_on_the_key_alone():
    normal = fitted_normal(np.zeros(3), np.eye(3))
    one, again, other = (normal_surrogate(normal, 20, np.random.SeedSequence(seed)) for seed in (1, 1, 2))
    np.testing.assert_array_equal(one, again)
    assert not np.allclose(one, other)
