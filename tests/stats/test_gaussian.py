"""Normality: known moments, scipy, scikit-learn and Mardia's own double sum."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from sklearn.decomposition import PCA

from vaehpc.stats import gaussian
from vaehpc.stats.blocks import ROWS_PER_BLOCK
from vaehpc.stats.gaussian import Normal


def fitted(points):
    return gaussian.fitted_normal(*gaussian.mean_and_covariance(points))


def standard_normal(num_points, z_dim, seed=0):
    return np.random.default_rng(seed).standard_normal((num_points, z_dim)).astype(np.float32)


def skewed(num_points, z_dim, seed=0):
    return np.random.default_rng(seed).exponential(size=(num_points, z_dim)).astype(np.float32)


def test_axes_of_a_standard_normal():
    axes = gaussian.axis_statistics(standard_normal(40_000, 40))  # more than a block of columns
    for found, expected, error in [
        (axes.mean, 0, 1),
        (axes.sd, 1, math.sqrt(1 / 2)),
        (axes.skewness, 0, math.sqrt(6)),
        (axes.kurtosis, 0, math.sqrt(24)),
    ]:
        assert found.shape == (40,)
        assert np.abs(found - expected).max() < 4.5 * error / math.sqrt(40_000)
    assert axes.ks.max() < 1.035 / math.sqrt(40_000) * 1.3  # Lilliefors' 1 % point


def test_axes_of_exponentials_are_far_from_normal():
    axes = gaussian.axis_statistics(skewed(200_000, 2))
    assert axes.skewness == pytest.approx(2, abs=0.1)
    assert axes.kurtosis == pytest.approx(6, abs=1)
    assert axes.ks == pytest.approx(stats.norm.cdf(-1), abs=0.005)  # at 0, where the exponential begins


def test_axes_agree_with_scipy():
    points = skewed(500, 3)
    axes, wide = gaussian.axis_statistics(points), points.astype(np.float64)
    np.testing.assert_allclose(axes.mean, wide.mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(axes.sd, wide.std(axis=0), rtol=1e-12)
    np.testing.assert_allclose(axes.skewness, stats.skew(wide), rtol=1e-9)
    np.testing.assert_allclose(axes.kurtosis, stats.kurtosis(wide), rtol=1e-9)
    for column in range(3):
        args = (axes.mean[column], axes.sd[column])
        assert axes.ks[column] == pytest.approx(stats.kstest(wide[:, column], "norm", args=args).statistic, rel=1e-9)


def test_the_distance_is_the_largest_on_either_side():
    assert gaussian.ks_distance(np.array([0.1, 0.2])) == pytest.approx(0.8)
    assert gaussian.ks_distance(np.array([0.8, 0.9])) == pytest.approx(0.8)
    assert gaussian.ks_distance(np.array([0.25, 0.75])) == pytest.approx(0.25)


def test_a_constant_axis_has_a_mean_and_no_shape():
    points = standard_normal(100, 2)
    points[:, 1] = 0.1
    axes = gaussian.axis_statistics(points)
    assert axes.mean[1] == pytest.approx(0.1)
    assert axes.sd[1] == 0
    assert np.isnan([axes.skewness[1], axes.kurtosis[1], axes.ks[1]]).all()
    assert np.isfinite([axes.skewness[0], axes.kurtosis[0], axes.ks[0]]).all()


def test_moments_of_several_blocks_far_from_the_origin():
    points = standard_normal(ROWS_PER_BLOCK + 700, 5) + np.float32(1000)
    mean, covariance = gaussian.mean_and_covariance(points)
    np.testing.assert_allclose(mean, points.mean(axis=0, dtype=np.float64), atol=1e-6)
    np.testing.assert_allclose(covariance, np.cov(points.astype(np.float64), rowvar=False, bias=True), atol=1e-6)


def spread_over_orders(points):
    return points * np.logspace(0, -5, points.shape[1])


@pytest.mark.parametrize("change", [np.asarray, np.expm1, spread_over_orders], ids=["normal", "skewed", "orders"])
def test_each_principal_variance_is_right_in_float32_products(change):
    points = change(standard_normal(20_000, 60)).astype(np.float32)
    found, exact = fitted(points).variances, fitted(points.astype(np.float64)).variances
    np.testing.assert_allclose(found, exact, rtol=1e-6)
    assert (found != exact).any()  # that is, the products were not float64


def one_hidden_by_another(points):
    return np.column_stack([points[:, :3], points[:, 0] + 1e-3 * points[:, 3]])


def drifting(points):
    return points + np.linspace(-1e3, 1e3, len(points))[:, np.newaxis]


@pytest.mark.parametrize(
    "change",
    [one_hidden_by_another, drifting, lambda points: 1e20 * points, lambda points: 2e-23 * points],
    ids=["hidden", "drift", "overflow", "underflow"],
)
def test_principal_variances_are_float64_where_float32_would_lose_them(change):
    points = change(standard_normal(20_000, 4)).astype(np.float32)
    exact = np.linalg.svd(points - points.mean(axis=0, dtype=np.float64), compute_uv=False) ** 2 / len(points)
    np.testing.assert_allclose(fitted(points).variances, exact, rtol=1e-4)


def test_principal_axes_agree_with_the_full_singular_value_decomposition():
    points = (standard_normal(3000, 6) * [1, 2, 3, 4, 5, 6]) @ np.linalg.qr(standard_normal(6, 6))[0]
    normal, full = fitted(points), PCA(svd_solver="full").fit(points.astype(np.float64))
    np.testing.assert_allclose(normal.variances, full.explained_variance_ * 2999 / 3000, rtol=1e-9)
    np.testing.assert_allclose(np.abs(normal.components @ full.components_.T), np.eye(6), atol=1e-6)
    coordinates = gaussian.principal_coordinates(points, normal, 3)
    np.testing.assert_allclose(np.abs(coordinates), np.abs(full.transform(points)[:, :3]), atol=1e-4)


@given(st.integers(1, 20), st.floats(0.01, 100))
@settings(max_examples=30, deadline=None)
def test_equal_variances_participate_all(number, variance):
    variances = np.concatenate([np.full(number, variance), np.zeros(7)])
    assert gaussian.participation_ratio(variances) == pytest.approx(number)
    assert math.isnan(gaussian.participation_ratio(np.zeros(3)))


def test_correlations():
    points = standard_normal(1000, 2)
    points = np.column_stack([points[:, 0], points[:, 1], -points[:, 0], np.ones(1000)])
    _, covariance = gaussian.mean_and_covariance(points)
    found = gaussian.correlations(covariance)
    expected = stats.pearsonr(points[:, 0], points[:, 1]).statistic
    np.testing.assert_allclose(found, [expected, -1, -expected], atol=1e-6)  # none with the constant axis
    assert gaussian.correlations(np.eye(1)).tolist() == []


def test_active_axes_are_those_that_vary():
    assert gaussian.num_active_axes(np.array([1, 0.011, 0.01, 0.001]), 0.01) == 2


def test_mahalanobis_distances_of_a_normal_follow_chi_squared():
    points = standard_normal(50_000, 10) * np.arange(1, 11) + np.float32(3)
    squares = gaussian.squared_mahalanobis(points, fitted(points))
    assert squares.mean() == pytest.approx(10, rel=1e-6)  # always, because mean and covariance are the points' own
    assert gaussian.ks_distance(stats.chi2.cdf(np.sort(squares), 10)) < 0.008
    theory, measured = gaussian.qq_of_chi2(squares, 10)
    np.testing.assert_allclose(measured, theory, rtol=0.05)
    heavy = points * np.random.default_rng(3).choice([0.5, 2], (50_000, 1))
    theory, measured = gaussian.qq_of_chi2(gaussian.squared_mahalanobis(heavy, fitted(heavy)), 10)
    assert measured[-10] > 1.5 * theory[-10]


def test_mahalanobis_distances_of_a_flat_cloud_stay_in_its_plane():
    points = standard_normal(2000, 3)
    points = np.column_stack([points, points[:, 0] + points[:, 1], np.full(2000, 5.0)])
    normal = fitted(points)
    assert normal.rank == 3
    assert gaussian.squared_mahalanobis(points, normal).mean() == pytest.approx(3, rel=1e-6)
    assert fitted(np.ones((10, 4))).rank == 0


def test_mardia_agrees_with_its_double_sum():
    points = skewed(1700, 5)  # more than one block of pairs
    centred = points - points.mean(axis=0, dtype=np.float64)
    products = centred @ np.linalg.inv(np.cov(centred, rowvar=False, bias=True)) @ centred.T
    skewness, expected = gaussian.mardia_skewness(points)
    assert skewness == pytest.approx(np.mean(products**3), rel=1e-5)
    assert expected == pytest.approx(5 * 6 * 7 / 1700)
    squares = gaussian.squared_mahalanobis(points, fitted(points))
    kurtosis = gaussian.mardia_kurtosis(squares)
    assert kurtosis == pytest.approx(np.mean(np.diag(products) ** 2), rel=1e-6)
    assert kurtosis > 35 + 20 * math.sqrt(8 * 35 / 1700) and skewness > 10 * expected


def test_mardia_of_a_normal_is_what_is_expected():
    points = standard_normal(20_000, 8) * np.arange(1, 9)
    skewness, expected = gaussian.mardia_skewness(points)
    assert skewness == pytest.approx(expected, rel=0.5)  # 120 degrees of freedom: sd 13 %
    kurtosis = gaussian.mardia_kurtosis(gaussian.squared_mahalanobis(points, fitted(points)))
    assert kurtosis == pytest.approx(80, abs=4 * math.sqrt(8 * 80 / 20_000))


@pytest.mark.parametrize("z_dim", [1, 2, 64, 256])
def test_radius_of_a_standard_normal_is_chi(z_dim):
    mean, sd = gaussian.radius_moments(Normal(np.zeros(z_dim), np.ones(z_dim), np.eye(z_dim)))
    assert mean == pytest.approx(stats.chi.mean(z_dim), rel=1e-11)
    assert sd == pytest.approx(stats.chi.std(z_dim), rel=1e-8)


def test_radius_of_an_offset_normal_is_that_of_rice():
    mean, sd = gaussian.radius_moments(Normal(np.array([3.0, 4.0]), np.full(2, 4.0), np.eye(2)))
    rice = stats.rice(2.5, scale=2)
    assert (mean, sd) == pytest.approx((rice.mean(), rice.std()), rel=1e-9)


def test_radius_of_any_normal_agrees_with_draws():
    normal = fitted(standard_normal(500, 12) * np.linspace(0, 4, 12) + np.linspace(-2, 3, 12))
    draws = np.random.default_rng(1).multivariate_normal(
        normal.mean, normal.components.T * normal.variances @ normal.components, 400_000
    )
    radius = np.linalg.norm(draws, axis=1)
    mean, sd = gaussian.radius_moments(normal)
    assert mean == pytest.approx(radius.mean(), abs=4 * radius.std() / math.sqrt(400_000))
    assert sd == pytest.approx(radius.std(), rel=0.01)


def test_radius_of_a_point():
    assert gaussian.radius_moments(Normal(np.zeros(3), np.zeros(3), np.eye(3))) == (0, 0)
    mean, sd = gaussian.radius_moments(Normal(np.array([3.0, 4.0]), np.zeros(2), np.eye(2)))
    assert mean == pytest.approx(5, rel=1e-12)
    assert sd < 1e-5
