import math

import numpy as np
import pytest

from vaehpc.stats.blocks import ROWS_PER_BLOCK
from vaehpc.stats.posterior import (
    difference_census,
    kl_of_scale,
    kl_slope,
    log_var_census,
    num_nonfinite,
    signal_to_noise,
)

LOG_VAR_INTERVAL = (-3.0, 5.0)
DIFFERENCE_INTERVAL = (0.05, 2.0)


def latents(num_images, z_dim, log_var, epsilon_factor=1.0, seed=3):
    """mu as wide as a VAE's, one log_var everywhere, and z drawn from them."""
    rng = np.random.default_rng(seed)
    mu = rng.standard_normal((num_images, z_dim), dtype=np.float32)
    epsilon = rng.standard_normal((num_images, z_dim), dtype=np.float32)
    return mu, np.full_like(mu, log_var), mu + np.float32(epsilon_factor * math.exp(log_var / 2)) * epsilon


def census(mu, log_var, z, epsilon_factor=1.0):
    return difference_census(mu, log_var, z, DIFFERENCE_INTERVAL, epsilon_factor)


def test_log_var_of_a_standard_normal_is_zero_everywhere():
    found = log_var_census(np.zeros((10, 256), dtype=np.float32), LOG_VAR_INTERVAL)
    assert (found.min, found.max, found.mean, found.num_in_interval) == (0, 0, 0, 2560)


def test_log_var_census_of_several_blocks():
    log_var = np.random.default_rng(2).normal(-13.7, 4, (ROWS_PER_BLOCK + 500, 8)).astype(np.float32)
    found = log_var_census(log_var, LOG_VAR_INTERVAL)
    assert (found.min, found.max) == (log_var.min(), log_var.max())
    assert found.mean == pytest.approx(log_var.mean(dtype=np.float64), rel=1e-12)
    assert found.num_in_interval == sum(-3 <= value <= 5 for value in log_var.ravel().tolist()) > 0


def test_the_log_var_interval_contains_its_limits():
    assert log_var_census(np.array([[-3.0, 5.0, -3.001, 5.001]]), LOG_VAR_INTERVAL).num_in_interval == 2


def test_signal_to_noise_of_known_variances():
    signs = np.where(np.arange(2 * ROWS_PER_BLOCK + 2) % 2, 1, -1)[:, np.newaxis]
    mu = (5 + signs * np.array([1, 2, 4])).astype(np.float32)
    log_var = np.broadcast_to(np.log([1, 2, 0.5]), mu.shape).astype(np.float32)
    assert signal_to_noise(mu, log_var) == pytest.approx(2, rel=1e-6)  # of 1, 2 and 32
    assert signal_to_noise(mu, None) is None


def test_signal_to_noise_stays_where_mu_and_sigma_are_scaled_together():
    mu, log_var, _ = latents(500, 16, -2)
    scaled = signal_to_noise(10 * mu, log_var + np.float32(2 * math.log(10)))
    assert scaled == pytest.approx(signal_to_noise(mu, log_var), rel=1e-5)


def test_the_slope_of_the_kl_divergence_is_that_of_its_formula():
    mu, log_var, _ = latents(ROWS_PER_BLOCK + 10, 8, -2)
    wide, wide_log_var = mu.astype(np.float64), log_var.astype(np.float64)

    def kl(c):
        per_image = 1 + wide_log_var + 2 * math.log(c) - (c * wide) ** 2 - c**2 * np.exp(wide_log_var)
        return -0.5 * per_image.sum(axis=1).mean()

    step = 1e-4
    assert kl_slope(mu, log_var) == pytest.approx((kl(1 + step) - kl(1 - step)) / (2 * step), rel=1e-6)
    assert kl_slope(mu, None) is None


def test_signal_without_noise_is_infinite():
    mu, log_var, _ = latents(10, 4, -3000)
    assert signal_to_noise(mu, log_var) == math.inf


def test_known_differences():
    mu = np.array([[3, 4], [6, 8]], dtype=np.float32)
    z = np.array([[6, 8], [6, 7.75]], dtype=np.float32)
    found = census(mu, np.full_like(mu, -20), z)
    assert found.max_component == 4
    assert found.num_in_interval == 1
    radius_difference = 10 - math.hypot(6, 7.75)
    assert found.max_abs_radius == 5
    assert found.mean_abs_radius == pytest.approx((5 + radius_difference) / 2)
    assert found.max_rel_radius == 1
    assert found.mean_rel_radius == pytest.approx((1 + radius_difference / 10) / 2)


def test_largest_difference_is_signed_and_its_interval_open():
    mu = np.ones((1, 4))
    found = census(mu, np.zeros((1, 4)), mu + np.array([[-8, 0.25, 2, 0]]))
    assert (found.max_component, found.num_in_interval) == (2, 1)
    assert difference_census(mu, np.zeros((1, 4)), mu + 0.25, (0.25, 2.0), 1.0).num_in_interval == 0


@pytest.mark.parametrize("epsilon_factor", [1.0, 0.25])
def test_gaussian_noise_moves_the_radius_as_expected(epsilon_factor):
    found = census(*latents(ROWS_PER_BLOCK + 2000, 64, log_var=-9, epsilon_factor=epsilon_factor), epsilon_factor)
    sigma = epsilon_factor * math.exp(-4.5)
    assert found.expected_mean_abs_radius == pytest.approx(math.sqrt(2 / math.pi) * sigma, rel=1e-6)
    assert found.mean_abs_radius == pytest.approx(found.expected_mean_abs_radius, rel=0.03)


def test_expected_difference_of_one_image():
    mu, log_var = np.array([[3.0, 4.0]]), np.log([[0.04, 0.09]])
    expected = math.sqrt(2 / math.pi) * math.sqrt(9 * 0.04 + 16 * 0.09) / 5
    assert census(mu, log_var, mu).expected_mean_abs_radius == pytest.approx(expected)


def test_images_that_are_not_finite_are_counted_and_left_out():
    mu, log_var, z = latents(20, 8, log_var=-4)
    whole = census(mu[3:], log_var[3:], z[3:])
    mu[0, 0], log_var[1, :2], z[2, 5] = np.nan, np.inf, -np.inf
    assert num_nonfinite([mu, log_var, z]) == 4
    assert census(mu, log_var, z) == whole
    assert log_var_census(log_var, LOG_VAR_INTERVAL).max == -4


def test_without_a_finite_image_everything_is_nan():
    nothing = np.full((5, 3), np.nan, dtype=np.float32)
    found = census(nothing, nothing, nothing)
    assert found.num_in_interval == 0
    assert all(math.isnan(value) for name, value in found if name != "num_in_interval")
    of_log_var = log_var_census(nothing, LOG_VAR_INTERVAL)
    assert math.isnan(of_log_var.min) and math.isnan(of_log_var.max) and math.isnan(of_log_var.mean)


def test_a_radius_of_zero_and_a_huge_log_var_are_no_error():
    mu = np.array([[0, 0], [3, 4]], dtype=np.float32)
    found = census(mu, np.array([[0, 0], [2000, 0]], dtype=np.float32), mu)
    assert found.max_abs_radius == 0
    assert not math.isfinite(found.mean_rel_radius)
    assert not math.isfinite(found.expected_mean_abs_radius)


@pytest.mark.parametrize("scale", [8.0, 0.25, -2.0])
def test_what_a_scale_costs_is_the_rise_of_the_kl_divergence(scale):
    rng = np.random.default_rng(3)
    mu, log_var = (rng.normal(size=(50, 6)).astype(np.float32) for _ in range(2))

    def kl(mu, log_var):
        return float((np.exp(log_var) + mu**2 - 1 - log_var).sum(axis=1, dtype=np.float64).mean() / 2)

    expected = kl(scale * mu, log_var + 2 * math.log(abs(scale))) - kl(mu, log_var)
    assert kl_of_scale(scale, mu, log_var) == pytest.approx(expected, rel=1e-5)
    assert kl_of_scale(scale, mu, None) == 0
