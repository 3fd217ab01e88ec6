import math

import numpy as np
import pytest
from scipy import stats

from vaehpc.stats.planning import (
    MOST_SEEDS,
    binomial,
    boschloo_greater,
    boundaries,
    detectable_rate,
    fisher_greater,
    fisher_power,
    fisher_two_sided,
    highest_rate_of_none,
    obrien_fleming,
    power,
    runs_for_one_event,
    seeds_needed,
    stopping,
)


@pytest.mark.parametrize(("num_seeds", "expected"), [(20, 0.775), (24, 0.885)])
def test_known_power_of_boschloos_test(num_seeds, expected):
    assert power(num_seeds, num_seeds, 0.25, 0, 0.05) == pytest.approx(expected, abs=5e-4)


def test_known_power_of_fishers_test():
    assert fisher_power(32, 32, 0.25, 0, 0.05) == pytest.approx(0.847, abs=5e-4)


@pytest.mark.parametrize(("rate", "num_runs"), [(0.25, 11), (0.1, 29), (0.05, 59), (1.0, 1)])
def test_runs_that_show_one_event(rate, num_runs):
    assert runs_for_one_event(rate, 0.95) == num_runs
    assert 1 - (1 - rate) ** num_runs >= 0.95 > 1 - (1 - rate) ** (num_runs - 1)


def test_none_of_16_still_allows_a_fifth():
    assert highest_rate_of_none(16, 0.95) == pytest.approx(0.2059, abs=5e-5)


@pytest.mark.parametrize("num_runs", [1, 7, 200, MOST_SEEDS])
def test_binomial_probabilities_are_scipys(num_runs):
    rates = np.array([0, 1e-3, 0.25, 0.5, 1])
    expected = stats.binom.pmf(np.arange(num_runs + 1), num_runs, rates[:, None])
    np.testing.assert_allclose(binomial(num_runs, rates), expected, rtol=1e-9, atol=1e-60)


@pytest.mark.parametrize(("n", "m"), [(1, 1), (5, 8), (12, 9)])
def test_fishers_p_of_every_table_is_scipys(n, m):
    greater, two_sided = fisher_greater(n, m), fisher_two_sided(n, m)
    for x in range(n + 1):
        for y in range(m + 1):
            table = [[x, y], [n - x, m - y]]
            assert greater[x, y] == pytest.approx(stats.fisher_exact(table, alternative="greater").pvalue, rel=1e-9)
            assert two_sided[x, y] == pytest.approx(stats.fisher_exact(table).pvalue, rel=1e-9)


@pytest.mark.parametrize(("n", "m"), [(6, 6), (8, 5)])
def test_boschloos_region_is_where_scipys_p_is_small(n, m):
    region = boschloo_greater(n, m, 0.05)
    for x in range(n + 1):
        for y in range(m + 1):
            if 0 < x + y < n + m:
                p = stats.boschloo_exact([[x, y], [n - x, m - y]], alternative="greater", n=128).pvalue
                assert region[x, y] == (p <= 0.05), (x, y, p)
    assert not region[0, 0]
    assert not region[n, m]


@pytest.mark.parametrize("num_seeds", [3, 16, 40])
def test_the_level_is_kept_whatever_the_common_rate(num_seeds):
    rates = np.linspace(0.0007, 0.9993, 997)
    found = [power(num_seeds, num_seeds, rate, rate, 0.05) for rate in rates]
    assert max(found) <= 0.05 + 1e-5
    larger_than_fishers = boschloo_greater(num_seeds, num_seeds, 0.05) & (fisher_greater(num_seeds, num_seeds) > 0.05)
    assert larger_than_fishers.any() == (num_seeds > 3)


def test_too_few_seeds_find_nothing():
    assert power(2, 2, 1, 0, 0.05) == 0
    assert detectable_rate(2, 0, 0.8, 0.05) is None


@pytest.mark.parametrize(("rate", "versus", "num_seeds"), [(0.25, 0, 21), (0.25, 0.05, 40), (1.0, 0, 3)])
def test_seeds_needed_are_the_first_that_have_the_power(rate, versus, num_seeds):
    assert seeds_needed(rate, versus, 0.8, 0.05) == num_seeds
    assert power(num_seeds, num_seeds, rate, versus, 0.05) >= 0.8
    assert power(num_seeds - 1, num_seeds - 1, rate, versus, 0.05) < 0.8


def test_a_detectable_rate_is_the_least_that_has_the_power():
    rate = detectable_rate(20, 0, 0.8, 0.05)
    assert rate == pytest.approx(0.259)
    assert power(20, 20, rate, 0, 0.05) >= 0.8 > power(20, 20, rate - 0.001, 0, 0.05)


def test_almost_all_of_alpha_is_left_for_the_last_look():
    """Lan and DeMets' O'Brien-Fleming-like spending; one look at half of the seeds spends 0.0056 of 0.05 one-sided."""
    assert obrien_fleming(0.5, 0.05) == pytest.approx(0.00557, abs=5e-6)
    assert obrien_fleming(1, 0.05) == pytest.approx(0.05)
    assert [round(obrien_fleming(share, 0.025), 5) for share in (0.2, 0.6)] == [0.0, 0.00381]


def test_one_look_is_boschloos_test():
    (look,) = boundaries([20], 0.05)
    np.testing.assert_array_equal(look.region, boschloo_greater(20, 20, 0.05))
    assert stopping([look], 0.25, 0) == [pytest.approx(0.7748, abs=5e-5)]
    assert (look.least_diverged(0), look.least_diverged(1)) == (4, 6)


def test_looks_together_keep_the_level_and_stop_as_simulated():
    looks = boundaries((6, 12, 18), 0.05)
    assert max(sum(stopping(looks, rate, rate)) for rate in np.linspace(0.003, 0.997, 143)) <= 0.05 + 1e-4
    for rate, versus in ((0.4, 0.05), (0.2, 0.2)):
        simulated = simulated_stopping(looks, rate, versus, 40_000)
        np.testing.assert_allclose(stopping(looks, rate, versus), simulated, atol=4 * math.sqrt(0.25 / 40_000))


def simulated_stopping(looks, rate, versus, num_studies):
    numbers = np.random.default_rng(3)
    arm, reference = (numbers.random((num_studies, looks[-1].num_seeds)) < r for r in (rate, versus))
    going, shares = np.ones(num_studies, bool), []
    for look in looks:
        x, y = (of_arm[:, : look.num_seeds].sum(axis=1) for of_arm in (arm, reference))
        stops = going & look.region[x, y]
        shares.append(stops.mean())
        going &= ~stops
    return shares


def test_no_number_of_events_stops_a_study_at_its_first_seed():
    first = boundaries((1, 12), 0.05)[0]
    assert [first.least_diverged(y) for y in (0, 1)] == [None, None]
