import math
import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from vaehpc.stats.blocks import ROWS_PER_BLOCK
from vaehpc.stats.radius import (
    common_scale,
    histogram_mode,
    offset_and_spread,
    radii,
    radius_histogram,
    radius_statistics,
)


def radii_by_the_articles_loop(points):
    """Image by image: root of the sum of squares, in float32."""
    radius = np.zeros(len(points), dtype=np.float32)
    for i, point in enumerate(points):
        radius[i] = math.sqrt(np.square(point).sum())
    return radius


def histogram_by_the_articles_loop(radius, bin_width=0.5, num_bins=70):
    """Bin by bin: how many radii are at least the lower edge and less than the upper."""
    return tuple(
        int(np.count_nonzero((radius >= bin_width * i) & (radius < bin_width * (i + 1)))) for i in range(num_bins)
    )


def normal_points(num_images=20_000, z_dim=256, seed=1):
    return np.random.default_rng(seed).standard_normal((num_images, z_dim), dtype=np.float32)


def points_at(radius):
    """Points on the first axis at these distances from the origin."""
    points = np.zeros((len(radius), 3), dtype=np.float32)
    points[:, 0] = radius
    return points


def test_known_radii():
    assert radii(np.array([[3, 4], [0, 0], [-5, 12]], dtype=np.float32)).tolist() == [5, 0, 13]


def test_points_on_a_sphere_have_one_radius():
    points = normal_points(num_images=1000).astype(np.float64)
    points *= 16.75 / np.linalg.norm(points, axis=1, keepdims=True)
    np.testing.assert_allclose(radii(points), 16.75, rtol=1e-14)


def test_radii_and_histogram_agree_with_the_articles_loops(plan):
    points = normal_points(num_images=ROWS_PER_BLOCK + 1000) * np.float32(1.2)
    radius = radii(points)
    by_loop = radii_by_the_articles_loop(points)
    np.testing.assert_allclose(radius, by_loop, rtol=1e-6)
    histogram = radius_statistics(by_loop, plan.radius).histogram
    assert histogram.counts == histogram_by_the_articles_loop(by_loop)
    assert sum(histogram.counts) == len(points)


def test_standard_normal_latents_lie_near_16(plan):
    points = normal_points()
    statistics = radius_statistics(radii(points), plan.radius)
    expected = stats.chi(256)
    assert statistics.mean == pytest.approx(expected.mean(), abs=0.02)
    assert statistics.median == pytest.approx(expected.median(), abs=0.025)
    assert statistics.mode in (15.75, 16.25)
    assert statistics.shell_shares["12-24"] == pytest.approx(1, abs=1e-4)
    assert statistics.shell_shares["14-19"] == pytest.approx(expected.cdf(19) - expected.cdf(14), abs=0.002)
    offset, spread = offset_and_spread(points)
    assert offset == pytest.approx(math.sqrt(256 / len(points)), rel=0.2)
    assert spread == pytest.approx(16, abs=0.03)


near_an_edge = st.builds(
    lambda edge, ulps: float(np.float32(edge * 0.5) + np.float32(ulps) * np.spacing(np.float32(edge * 0.5))),
    st.integers(1, 75),
    st.integers(-2, 2),
)


@given(st.lists(near_an_edge | st.floats(0, 80, width=32), max_size=60))
def test_histogram_is_the_articles_loop_on_every_edge(values):
    for radius in (np.array(values, dtype=np.float32), np.array(values, dtype=np.float64)):
        histogram = radius_histogram(radius, 0.5, 70)
        assert histogram.counts == histogram_by_the_articles_loop(radius)
        assert histogram.overflow == np.count_nonzero(radius >= 35)


@given(st.sampled_from([0.1, 0.3, 0.7, 0.125, 2.0]), st.lists(st.integers(0, 24), max_size=60))
def test_edges_that_are_not_binary_fractions(bin_width, edges):
    radius = np.array([bin_width * edge for edge in edges])
    assert radius_histogram(radius, bin_width, 20).counts == histogram_by_the_articles_loop(radius, bin_width, 20)


def test_the_last_bin_is_open_and_the_rest_overflows():
    histogram = radius_histogram(np.array([34.99, 35.0, 66.0]), 0.5, 70)
    assert (histogram.counts[69], histogram.overflow) == (1, 2)


def test_mode_is_a_bin_centre_the_lowest_of_equals():
    assert histogram_mode(radius_histogram(np.array([16.5, 16.9, 20.0]), 0.5, 70)) == 16.75
    assert histogram_mode(radius_histogram(np.array([20.0, 16.5]), 0.5, 70)) == 16.75
    assert histogram_mode(radius_histogram(np.array([20.0, 66.0, 67.0]), 0.5, 70)) == math.inf


def test_shells_do_not_contain_their_limits(plan):
    statistics = radius_statistics(np.array([12.0, 14.0, 14.5, 19.0, 24.0]), plan.radius)
    assert statistics.shell_shares == {"12-24": 0.6, "14-19": 0.2}


def test_offset_and_spread_of_known_points():
    points = np.array([[1, 4], [5, 4]], dtype=np.float32)
    assert offset_and_spread(points) == (5, 2)


@pytest.mark.parametrize("shift", [0, 67, 1000])
def test_mean_square_radius_is_offset_squared_plus_spread_squared(shift):
    points = normal_points(num_images=ROWS_PER_BLOCK + 3)
    points[:, 0] += shift
    offset, spread = offset_and_spread(points)
    assert offset**2 + spread**2 == pytest.approx(np.mean(radii(points) ** 2), rel=1e-8)
    assert spread == pytest.approx(math.sqrt(np.trace(np.cov(points.astype(float), rowvar=False, bias=True))), rel=1e-9)


def test_equal_points_far_from_the_origin_have_no_spread():
    assert offset_and_spread(np.full((1000, 3), 1e4, dtype=np.float32))[1] == 0


def test_images_that_are_not_finite_are_left_out(plan):
    points = points_at([16, 17, 18, 16, 17])
    points[0, 1], points[3, 2] = np.nan, -np.inf
    radius = radii(points)
    assert np.isfinite(radius).tolist() == [False, True, True, False, True]
    statistics = radius_statistics(radius, plan.radius)
    assert (statistics.median, statistics.max, sum(statistics.histogram.counts)) == (17, 18, 3)
    assert offset_and_spread(points) == offset_and_spread(points_at([17, 18, 17]))


def test_without_a_finite_image_everything_is_nan(plan):
    points = np.full((4, 3), np.nan, dtype=np.float32)
    statistics = radius_statistics(radii(points), plan.radius)
    numbers = [statistics.median, statistics.mean, statistics.min, statistics.max, statistics.mode]
    assert np.isnan([*numbers, *statistics.shell_shares.values(), *offset_and_spread(points)]).all()
    assert (sum(statistics.histogram.counts), statistics.histogram.overflow) == (0, 0)


@pytest.mark.parametrize("component", [3e38, 1e19, 1e-14, 3e-23, 1e-45])
def test_squares_neither_overflow_nor_vanish(component):
    points = np.array([[1] * 64, [component] * 64], dtype=np.float32)
    assert radii(points).tolist() == pytest.approx([8, 8 * float(np.float32(component))], rel=1e-14, abs=0)


def test_memory_mapped_points_are_read_in_blocks(tmp_path):
    np.save(tmp_path / "mu.npy", normal_points(num_images=100_000, z_dim=64))
    points = np.load(tmp_path / "mu.npy", mmap_mode="r")
    tracemalloc.start()
    radius, (offset, spread) = radii(points), offset_and_spread(points)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 20e6 < points.nbytes
    assert np.mean(radius**2) == pytest.approx(offset**2 + spread**2)


def test_a_change_of_scale_alone_and_one_without_any():
    before = np.array([[3, 0], [0, 4]], dtype=np.float32)
    assert common_scale(-2 * before, before) == (-2, 1)
    turned = before + np.array([[0, 5], [0, 0]], dtype=np.float32)
    assert common_scale(turned, before) == (1, 0)
    assert common_scale(2 * turned, before) == (
        2,
        pytest.approx(25 / 125),
    )  # 125, of which 100 remain
    assert np.isnan(common_scale(before, before)[1])
