"""t-SNE: planted clusters stay apart, its divergence is that of the definition, its neighbours are counted rightly."""

import numpy as np
import pytest
from scipy.spatial.distance import cdist
from sklearn.manifold import trustworthiness

from vaehpc.schema.plan import TsneSettings
from vaehpc.stats.embedding import neighbour_recall, tsne

QUICK = TsneSettings(name="quick", perplexity=15, exaggeration=12, early_iterations=100, iterations=300)


def planted(num_points=300):
    """Three clusters far apart, and which point is in which."""
    rng = np.random.default_rng(0)
    cluster = np.arange(num_points) % 3
    return (20 * np.eye(3, 10)[cluster] + rng.standard_normal((num_points, 10))).astype(np.float32), cluster


def affinities(points, perplexity):
    """Symmetric p_ij of the t-SNE paper with all neighbours, by bisection for each point."""
    squares = cdist(points, points, "sqeuclidean")
    conditional = np.zeros_like(squares)
    for i, row in enumerate(squares):
        low, high = 1e-6, 1e6
        for _ in range(100):
            beta = np.sqrt(low * high)
            weights = np.where(
                np.arange(len(row)) == i, 0, np.exp(-beta * np.maximum(row - np.delete(row, i).min(), 0))
            )
            weights /= weights.sum()
            entropy = -(weights[weights > 0] * np.log(weights[weights > 0])).sum()
            low, high = (beta, high) if entropy > np.log(perplexity) else (low, beta)
        conditional[i] = weights
    return (conditional + conditional.T) / (2 * len(points))


def test_clusters_stay_apart_and_their_neighbours_together():
    points, cluster = planted()
    embedding = tsne(points, QUICK, 1, 1)
    distances = cdist(embedding.coordinates, embedding.coordinates)
    np.fill_diagonal(distances, np.inf)
    assert (cluster[distances.argmin(axis=1)] == cluster).all()
    recall = neighbour_recall(points, embedding.coordinates, 10, np.arange(300))
    assert 0.4 < recall < 1
    assert trustworthiness(points, embedding.coordinates, n_neighbors=10) > 0.9


def test_its_divergence_is_that_of_the_definition():
    points, _ = planted()
    embedding = tsne(points, QUICK, 1, 1)
    p = affinities(points.astype(np.float64), 15)
    q = 1 / (1 + cdist(embedding.coordinates, embedding.coordinates, "sqeuclidean"))
    np.fill_diagonal(q, 0)
    q /= q.sum()
    known = p > 0
    divergence = (p[known] * np.log(p[known] / np.maximum(q[known], 1e-12))).sum()
    assert embedding.kl_divergence == pytest.approx(
        divergence, rel=0.03
    )  # theirs: 45 neighbours, approximate repulsion


def test_equal_seeds_give_equal_coordinates_on_two_threads():
    points = (
        np.random.default_rng(3).standard_normal((1500, 10)).astype(np.float32)
    )  # enough for approximate neighbours
    short = QUICK.model_copy(update={"early_iterations": 20, "iterations": 20})
    one, again, other = (tsne(points, short, seed, 2).coordinates for seed in (1, 1, 2))
    np.testing.assert_array_equal(one, again)
    assert not np.allclose(one, other)


def test_few_points_have_a_smaller_perplexity():
    points, _ = planted(31)
    short = QUICK.model_copy(update={"early_iterations": 5, "iterations": 5})
    assert tsne(points, short, 1, 1).perplexity == 10
    assert tsne(planted(60)[0], short, 1, 1).perplexity == 15


def test_recall_of_the_points_themselves_and_of_noise():
    points, _ = planted()
    assert neighbour_recall(points, points, 10, np.arange(300)) == 1
    strewn = np.random.default_rng(1).standard_normal((300, 2))
    assert neighbour_recall(points, strewn, 10, np.arange(300)) == pytest.approx(10 / 299, abs=0.02)


def test_recall_of_known_neighbours():
    line = np.array([[0.0], [1], [2], [10], [11], [12.5]])
    plane = np.array([[0.0, 0], [1, 0], [5, 0], [10, 0], [11, 0], [2.5, 0]])  # the last point was put beside the first
    assert neighbour_recall(line, plane, 1, np.array([0, 3])) == 1
    assert neighbour_recall(line, plane, 1, np.array([0, 5])) == 0.5
    assert neighbour_recall(line, plane, 2, np.array([0])) == 0.5  # 1 and 2 there, 1 and the last here


def test_recall_of_points_on_top_of_each_other():
    points = np.ones((20, 3))
    assert 0 <= neighbour_recall(points, points[:, :2], 5, np.arange(20)) <= 1
