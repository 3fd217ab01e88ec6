import math

import numpy as np
import pytest
from scipy import spatial, stats
from test_summary import AE, VAE, measured, study

from vaehpc.schema.config import SpikeConfig
from vaehpc.schema.results import PairDistances
from vaehpc.stats.pairs import aligned, distances, likeness, pairs_of

KEY = np.random.SeedSequence(3)


def names(pairs):
    return [(first.config.name, second.config.name) for first, second in pairs]


# Which runs


def test_pairs_share_a_seed_and_neighbours_are_the_yardstick(plan):
    config = study(plan, AE, VAE, num_seeds=3)
    runs = [measured(AE, seed, plan) for seed in range(3)] + [measured(VAE, seed, plan) for seed in (0, 2)]
    assert names(pairs_of(config, runs)) == [
        ("vae-tiny-seed000", "ae-seed000"),
        ("vae-tiny-seed002", "ae-seed002"),
        ("ae-seed000", "ae-seed001"),
        ("ae-seed001", "ae-seed002"),
        ("ae-seed002", "ae-seed000"),
    ]
    assert names(pairs_of(config, runs[:2])) == [("ae-seed000", "ae-seed001")]


def test_runs_without_finite_radii_and_arms_with_a_spike_are_left_out(plan):
    spike = VAE.model_copy(
        update={"name": "spike", "spike": SpikeConfig(kind="gradient", strength=9, steps_before_end=5)}
    )
    config = study(plan, AE, VAE, spike, num_seeds=1)
    ae = measured(AE, 0, plan)
    assert pairs_of(config, [ae, measured(VAE, 0, plan, nonfinite_step=7), measured(spike, 0, plan)]) == []
    assert pairs_of(config, [ae, measured(VAE, 0, plan, radius_median=0.0)]) == []
    assert len(pairs_of(config, [ae, measured(VAE, 0, plan)])) == 1


# Two runs


def compared(plan, radii, points=None, losses=(4555.0, 4555.0)):
    first, second = measured(VAE, 0, plan, total_loss=losses[0]), measured(AE, 0, plan, total_loss=losses[1])
    return distances(first, second, radii, points, plan.pairs)


def test_equal_runs_are_nowhere_apart(plan):
    numbers = np.random.default_rng(1)
    radii, points = numbers.normal(16, 2, 999).astype(np.float32), numbers.standard_normal((200, 8))
    found = compared(plan, (radii, radii), (points, points))
    assert found.log_radius_shifts == (0,) * 5
    assert (found.median_shift, found.kolmogorov_smirnov, found.wasserstein) == (0, 0, 0)
    assert (found.procrustes, found.cka) == (pytest.approx(0, abs=1e-12), pytest.approx(1))


def test_radii_a_tenth_larger_are_shifted_by_its_logarithm_at_every_quantile(plan):
    radii = np.random.default_rng(2).normal(16, 2, 5000)
    found = compared(plan, (1.1 * radii, radii))
    assert found.log_radius_shifts == pytest.approx((math.log(1.1),) * 5)
    assert found.wasserstein == pytest.approx(0.1 * radii.mean())
    assert found.kolmogorov_smirnov == pytest.approx(2 * stats.norm.cdf(0.05 * 16 / 1.05 / 2) - 1, abs=0.03)
    assert (found.procrustes, found.cka) == (None, None)


def test_distributions_that_do_not_overlap_are_as_far_apart_as_can_be(plan):
    found = compared(plan, (np.linspace(60, 70, 50), np.linspace(14, 18, 50)), losses=(4560.0, 4555.5))
    assert found.kolmogorov_smirnov == 1
    assert found.wasserstein == pytest.approx(65 - 16)
    assert found.reconstruction_gap == pytest.approx(4560 - 0.0178 - 4555.5)


def test_images_without_a_radius_are_left_out(plan):
    radii = np.linspace(14, 18, 50)
    broken = radii.copy()
    broken[7] = np.nan
    assert compared(plan, (broken, radii)).wasserstein == 0


def test_rotated_and_scaled_clouds_are_the_same():
    numbers = np.random.default_rng(4)
    points = numbers.standard_normal((500, 6)) * [5, 3, 2, 1, 1, 1]
    rotation = np.linalg.qr(numbers.standard_normal((6, 6)))[0]
    assert aligned(points, 3 * points @ rotation + 7) == (pytest.approx(0, abs=1e-9), pytest.approx(1))


def test_independent_clouds_are_not():
    """Linear CKA of independent normal points is about D / N, and nothing is explained by rotating them."""
    numbers = np.random.default_rng(5)
    disparity, cka = aligned(*numbers.standard_normal((2, 4000, 8)))
    assert cka == pytest.approx(8 / 4000, rel=0.5)
    assert disparity > 0.99


def test_alignment_is_that_of_the_gram_matrices_and_of_scipys_procrustes():
    """Kornblith and others (2019), equation 3: HSIC(K, L) / sqrt(HSIC(K, K) HSIC(L, L)) with K = XX', L = YY'."""
    numbers = np.random.default_rng(6)
    x = numbers.standard_normal((60, 5))
    y = x[:, :3] + 0.5 * numbers.standard_normal((60, 3))
    centring = np.eye(60) - 1 / 60
    k, of_y = (centring @ (points @ points.T) @ centring for points in (x, y))
    expected = np.trace(k @ of_y) / math.sqrt(np.trace(k @ k) * np.trace(of_y @ of_y))
    disparity, cka = aligned(x, np.c_[y, np.zeros((60, 2))])  # columns of zeros change neither
    assert cka == pytest.approx(expected)
    assert disparity == pytest.approx(spatial.procrustes(x, np.c_[y, np.zeros((60, 2))])[2])


def test_clouds_without_extent_or_points_have_no_alignment():
    assert aligned(np.ones((9, 3)), np.ones((9, 3))) is None
    assert aligned(np.full((9, 3), np.nan), np.ones((9, 3))) is None


# Over seeds


def pair(seed, shift, cka=0.9, first="vae-tiny", of_second=None):
    return PairDistances(
        first=f"{first}-{seed}",
        second=f"ae-{seed if of_second is None else of_second}",
        seed=seed,
        log_radius_shifts=(shift,),
        median_shift=shift,
        kolmogorov_smirnov=0.1 + abs(shift),
        wasserstein=1.0 + abs(shift),
        reconstruction_gap=None,
        procrustes=None,
        cka=cka,
    )


def of_pairs(plan, shifts, null=()):
    pairs = [pair(seed, shift) for seed, shift in enumerate(shifts)]
    return likeness("ae", pairs, null, len(pairs), 0.95, plan.pairs, KEY)


@pytest.mark.parametrize(
    ("shifts", "radii"),
    [
        ((0.01, -0.02, 0.0, 0.015), "alike"),
        ((1.4, 1.3, 1.45, 1.38), "different"),
        ((-1.4, -1.3, -1.45, -1.38), "different"),
        ((0.0, 0.01, 1.4, -0.02), "undecided"),
        ((0.3, -0.3, 0.25, -0.2), "undecided"),
        ((0.01,), "undecided"),
    ],
)
def test_radii_are_alike_if_the_interval_lies_within_the_margin(shifts, radii, plan):
    assert of_pairs(plan, shifts).radii == radii


def test_the_interval_is_that_of_the_paired_t_test(plan):
    shifts = np.array([0.01, -0.02, 0.03, 0.015, 0.02])
    effect = of_pairs(plan, shifts).effects["median_shift"]
    expected = stats.ttest_rel(shifts + 2, np.full(5, 2.0)).confidence_interval(0.95)
    assert (effect.num_pairs, effect.mean) == (5, pytest.approx(0.011))
    assert (effect.low, effect.high) == (pytest.approx(expected.low), pytest.approx(expected.high))
    assert effect.bootstrap_low < effect.mean < effect.bootstrap_high
    assert (effect.null_mean, effect.excess) == (None, None)


def test_excess_is_over_what_aes_of_other_seeds_have(plan):
    null = [pair(seed, 0.0, first="ae", of_second=(seed + 1) % 4, cka=0.5) for seed in range(4)]
    effects = of_pairs(plan, (0.1, 0.2, 0.3, 0.4), null).effects
    ks = effects["kolmogorov_smirnov"]
    assert (ks.mean, ks.null_mean, ks.excess) == (pytest.approx(0.35), pytest.approx(0.1), pytest.approx(0.25))
    assert ks.excess_low > 0
    assert effects["cka_distance"].excess == pytest.approx(0.1 - 0.5)
    assert "procrustes" not in effects
    assert "reconstruction_gap" not in effects
