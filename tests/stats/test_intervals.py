import numpy as np
import pytest
from scipy import stats

from vaehpc.stats.intervals import bootstrap, clopper_pearson, jeffreys, student, wilson


def test_known_intervals():
    one_of_four = clopper_pearson(1, 4, 0.95)
    assert (one_of_four.low, one_of_four.high) == (pytest.approx(0.0063, abs=5e-5), pytest.approx(0.8059, abs=5e-5))
    none_of_16 = clopper_pearson(0, 16, 0.95)
    assert (none_of_16.low, none_of_16.high) == (0, pytest.approx(0.2059, abs=5e-5))
    four_of_16 = clopper_pearson(4, 16, 0.95)
    assert (four_of_16.low, four_of_16.high) == (pytest.approx(0.0727, abs=5e-5), pytest.approx(0.5238, abs=5e-5))


@pytest.mark.parametrize("level", [0.9, 0.95, 0.99])
@pytest.mark.parametrize(("k", "n"), [(0, 1), (1, 1), (1, 4), (4, 16), (16, 16), (7, 64)])
def test_limits_are_quantiles_of_beta_distributions(k, n, level):
    interval = clopper_pearson(k, n, level)
    tail = (1 - level) / 2
    low = 0 if k == 0 else stats.beta.ppf(tail, k, n - k + 1)
    high = 1 if k == n else stats.beta.ppf(1 - tail, k + 1, n - k)
    assert (interval.low, interval.high) == (pytest.approx(low, rel=1e-9), pytest.approx(high, rel=1e-9))
    assert (interval.level, interval.method) == (level, "Clopper-Pearson")


def test_no_trials_have_no_interval():
    with pytest.raises(ValueError, match="no trials"):
        clopper_pearson(0, 0, 0.95)


@pytest.mark.parametrize("successes", [-1, 5])
def test_impossible_counts_are_refused(successes):
    with pytest.raises(ValueError, match="must"):
        clopper_pearson(successes, 4, 0.95)


@pytest.mark.parametrize("method", [clopper_pearson, wilson, jeffreys])
def test_every_method_refuses_impossible_counts(method):
    with pytest.raises(ValueError, match="no trials"):
        method(0, 0, 0.95)
    with pytest.raises(ValueError, match="must"):
        method(5, 4, 0.95)


def test_students_interval_is_that_of_scipy():
    values = np.array([1.0, 2.0, 4.0, 8.0])
    expected = stats.ttest_1samp(values, 0).confidence_interval(0.9)
    assert student(values, 0.9) == (pytest.approx(expected.low), pytest.approx(expected.high))
    assert student(values[:1], 0.9) is None
    assert student(np.array([2.0, 2.0]), 0.9) == (2, 2)


def test_bootstrap_repeats_with_its_key_and_holds_the_mean():
    values, key = np.random.default_rng(3).normal(5, 1, 40), np.random.SeedSequence(1)
    low, high = bootstrap(values, 0.95, 2000, key)
    t_low, t_high = student(values, 0.95)
    assert (low, high) == (pytest.approx(t_low, abs=0.05), pytest.approx(t_high, abs=0.05))
    assert bootstrap(values, 0.95, 2000, key) == (low, high)
    assert bootstrap(values, 0.95, 2000, np.random.SeedSequence(2)) != (low, high)
    assert bootstrap(values[:2], 0.95, 2000, key) is None
    assert bootstrap(np.ones(9), 0.95, 2000, key) is None
