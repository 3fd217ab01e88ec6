"""Inertia curves: planted clusters have their elbow, clouds without clusters none."""

import math

import numpy as np
import pytest
from sklearn.cluster import KMeans, MiniBatchKMeans

from vaehpc.stats import clustering
from vaehpc.stats.clustering import find_elbow, inertia_curve
from vaehpc.stats.gaussian import fitted_normal, mean_and_covariance

SEEDS = list(range(100, 140))
EVEN = tuple(range(2, 41, 2))


@pytest.fixture
def clusters(plan):
    return plan.clusters.model_copy(update={"num_clusters": EVEN})


def curve(points, plan, subsample=None):
    normal = fitted_normal(*mean_and_covariance(points))
    subsample = (
        np.random.default_rng(2).permutation(len(points))[: len(points) // 2] if subsample is None else subsample
    )
    return inertia_curve(points, normal, subsample, plan, SEEDS)


def cloud(num_points=1200, z_dim=8, seed=0):
    scales = np.arange(1, z_dim + 1) ** -0.5
    return (np.random.default_rng(seed).standard_normal((num_points, z_dim)) * scales + 2).astype(np.float32)


def planted(num_clusters, distance, seed=0):
    rng = np.random.default_rng(seed)
    centres = distance * rng.standard_normal((num_clusters, 8))
    return (centres[np.arange(1200) % num_clusters] + rng.standard_normal((1200, 8))).astype(np.float32)


@pytest.mark.parametrize("num_clusters", [4, 10, 20])
def test_planted_clusters_are_the_elbow(clusters, num_clusters):
    points = planted(num_clusters, 10)
    found = curve(points, clusters)
    assert found.elbow == num_clusters
    assert found.elbow_factor > 10
    within = found.inertia[found.num_clusters.index(num_clusters)]
    assert within == pytest.approx(8 * 1200, rel=0.05)  # one variance of 1 for each axis


@pytest.mark.parametrize(
    "points", [cloud(), np.random.default_rng(1).uniform(size=(1200, 3))], ids=["normal", "uniform"]
)
def test_clouds_without_clusters_have_no_elbow(clusters, points):
    found = curve(points, clusters)
    assert found.elbow is None
    assert 1 < found.elbow_factor < clusters.elbow_factor


def test_inertia_is_no_more_than_lloyds_and_falls(clusters):
    points = cloud()
    found = curve(points, clusters)
    lloyd = [KMeans(k, n_init=1, random_state=0).fit(points).inertia_ for k in EVEN]
    assert np.mean(np.array(found.inertia) / lloyd) < 1.002
    assert (np.diff(found.inertia) < 0).all()


def test_inertia_is_that_of_the_definition(clusters, monkeypatch):
    points, models = cloud(300), []
    lloyd = clustering._lloyd
    monkeypatch.setattr(clustering, "_lloyd", lambda *of: models.append(lloyd(*of)) or models[-1])
    found = curve(points, clusters.model_copy(update={"num_clusters": (5,)}))
    centred = points - points.mean(axis=0)
    in_own_axes = models[-1].cluster_centers_ @ fitted_normal(*mean_and_covariance(points)).components
    expected = sum(min(((point - centre) ** 2).sum() for centre in in_own_axes) for point in centred)
    assert found.inertia[0] == pytest.approx(expected, rel=1e-4)


def test_a_curve_never_rises_even_where_starts_are_bad(clusters, monkeypatch):
    grown = clustering._grown

    def only_when_all_points_are_there(points, *rest):
        return grown(points, *rest) if len(points) == 1200 else np.repeat(points[:1], rest[1], axis=0) + 1e-3 * SEEDS[0]

    monkeypatch.setattr(clustering, "_grown", only_when_all_points_are_there)
    hopeless = {
        "num_starts": 1,
        "subsample_iterations": 1,
        "leading_axes": 1,
        "leading_iterations": 1,
        "full_iterations": 1,
    }
    found = curve(cloud(), clusters.model_copy(update=hopeless), subsample=np.arange(60))
    assert (np.diff(found.inertia) <= 0).all()


def test_minibatch_is_the_articles(clusters):
    points = cloud()
    found = curve(points, clusters.model_copy(update={"method": "minibatch"}))
    articles = [
        MiniBatchKMeans(k, n_init=1, random_state=seed).fit(points) for k, seed in zip(EVEN, SEEDS, strict=False)
    ]
    assert found.method == "minibatch"
    assert found.inertia == pytest.approx([model.inertia_ for model in articles], rel=0.03)
    assert found.inertia[0] > found.inertia[-1]


def test_equal_seeds_give_equal_curves(clusters):
    points = cloud()
    few = clusters.model_copy(update={"num_clusters": (6, 12), "subsample_iterations": 2, "leading_iterations": 2})
    normal = fitted_normal(*mean_and_covariance(points))
    one, again, other = (
        inertia_curve(points, normal, np.arange(200), few, seeds).inertia for seeds in ([1, 2], [1, 2], [3, 4])
    )
    assert one == again != other


def test_more_clusters_than_different_points_are_left_out(clusters):
    found = curve(np.repeat(cloud(12), 20, axis=0), clusters)
    assert found.num_clusters == (2, 4, 6, 8)  # breathing takes four more for a while
    assert len(found.seeds) == 4
    constant = curve(np.ones((50, 3), np.float32), clusters)
    assert (constant.num_clusters, constant.inertia, constant.elbow) == ((), (), None)
    assert math.isnan(constant.elbow_factor)


@pytest.mark.parametrize("dimension", [1, 2, 8, 256])
def test_a_power_law_is_straight(dimension):
    ks = np.arange(2, 81, 2)
    elbow, factor = find_elbow(ks.tolist(), (1e5 * ks ** (-2 / dimension)).tolist(), 4, 3.0)
    assert elbow is None
    assert factor == pytest.approx(1, rel=1e-6)


def test_a_kink_is_the_elbow_where_it_is_sharp_enough():
    ks = np.arange(2, 81, 2)
    kinked = np.where(ks <= 30, ks**-2.0, 30**-2.0 * (ks / 30) ** -0.4)
    elbow, factor = find_elbow(ks.tolist(), kinked.tolist(), 4, 3.0)
    assert (elbow, factor) == (30, pytest.approx(5))
    assert find_elbow(ks.tolist(), kinked.tolist(), 4, 5.1) == (None, pytest.approx(5))


def test_added_centroids_lie_where_none_is_and_the_least_useful_shares_its_cluster():
    points = np.concatenate([np.zeros((1000, 2)), [[10, 0]], np.full((2, 2), 0.01)]).astype(np.float32)
    grown = clustering._grown(points, points[:1], 2, np.random.default_rng(0))
    assert grown.tolist() == [[0, 0], [10, 0]]
    shared = np.concatenate([grown, [[0.01, 0.01]]]).astype(np.float32)
    assert clustering._without_least_useful(points, shared, 1).tolist() == grown.tolist()
