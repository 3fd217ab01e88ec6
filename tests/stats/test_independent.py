"""The statistics against independent implementations: statsmodels, and diptest, Hartigan's own."""

import diptest
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import norm
from statsmodels.duration.survfunc import CumIncidenceRight, survdiff
from statsmodels.stats.contingency_tables import mcnemar as statsmodels_mcnemar
from statsmodels.stats.diagnostic import lilliefors
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.proportion import proportion_confint
from test_modes import PLAN, key
from test_survival import KEY, PLACEBO, TREATED, followed, summary

from vaehpc.stats import gaussian
from vaehpc.stats.contrasts import holm, mcnemar
from vaehpc.stats.intervals import jeffreys, wilson
from vaehpc.stats.modes import dip, dip_tests
from vaehpc.stats.survival import event_curves, logrank

pytestmark = pytest.mark.slow


def test_incidences_are_those_of_statsmodels():
    """With ties, three kinds of events and lost runs; its standard errors are the delta method's too."""
    numbers = np.random.default_rng(7)
    steps, events = 50 * numbers.integers(1, 30, 80), numbers.integers(0, 4, 80)
    kinds = (None, "jump", "growth", "nonfinite")
    curves = event_curves([summary(step, kinds[event]) for step, event in zip(steps, events, strict=True)], 0.95)
    expected = CumIncidenceRight(steps, events)
    at = [curves.steps.index(step) for step in expected.times]
    for position, event in enumerate(kinds[1:]):
        found = curves.events[event]
        assert [found.share[i] for i in at] == pytest.approx(expected.cinc[position].tolist())
        sd, share = expected.cinc_se[position], expected.cinc[position]
        defined = share > 0
        z = norm.ppf(0.975) * sd[defined] / (share[defined] * -np.log(share[defined]))
        lows = [found.low[i] for i, known in zip(at, defined, strict=True) if known]
        assert lows == pytest.approx((share[defined] ** np.exp(z)).tolist(), abs=2e-3)


def test_logrank_is_that_of_statsmodels():
    times = np.r_[PLACEBO[0], TREATED[0], TREATED[1]]
    has_onset = np.r_[[True] * 30, [False] * 12]
    chi2, _ = survdiff(times, has_onset.astype(int), np.r_[[0] * 21, [1] * 21])
    assert logrank(followed(*PLACEBO), followed(*TREATED), 99, KEY).statistic ** 2 == pytest.approx(chi2)


def test_distances_from_normality_are_those_of_statsmodels():
    points = np.random.default_rng(0).exponential(size=(500, 3)).astype(np.float32)
    axes, wide = gaussian.axis_statistics(points), points.astype(np.float64)
    for column in range(3):  # it takes the sample's deviation, with 1 / (N - 1)
        assert axes.ks[column] == pytest.approx(lilliefors(wide[:, column], pvalmethod="table")[0], abs=1e-3)


@given(st.integers(4, 90), st.integers(0, 2**32 - 1), st.sampled_from(["normal", "uniform", "two", "ties"]))
def test_dip_is_that_of_the_independent_implementation(size, seed, kind):
    numbers = np.random.default_rng(seed)
    values = {
        "normal": numbers.normal(size=size),
        "uniform": numbers.random(size),
        "two": np.r_[numbers.normal(size=size // 2), numbers.normal(5, 1, size - size // 2)],
        "ties": numbers.integers(0, 6, size).astype(float),
    }[kind]
    expected = max(diptest.dipstat(values), 1 / (2 * size))  # it has 0 where all steps are equal
    assert dip(values) == pytest.approx(expected, abs=1e-12)


def test_p_of_the_dip_is_that_of_diptest():
    numbers = np.random.default_rng(6)
    one, two = numbers.normal(2.8, 0.03, 24), np.r_[numbers.normal(2.8, 0.03, 12), numbers.normal(3.0, 0.03, 12)]
    tests = dip_tests({"one": one, "two": two}, PLAN, key)
    for name, values in (("one", one), ("two", two)):
        assert tests[name].p == pytest.approx(diptest.diptest(values)[1], abs=0.05)
        assert tests[name].dip == pytest.approx(diptest.dipstat(values))


@given(st.integers(0, 30), st.integers(0, 30))
def test_mcnemar_is_that_of_statsmodels(only_arm, only_reference):
    found = mcnemar(only_arm, only_reference, "two-sided")
    if only_arm + only_reference == 0:
        assert found is None
    else:
        expected = statsmodels_mcnemar([[3, only_arm], [only_reference, 4]], exact=True).pvalue
        assert found == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("count", range(13))
def test_holm_is_that_of_statsmodels(count):
    p = np.round(np.random.default_rng(count).random(count) ** 3, 2).tolist()  # small ones, and some that are equal
    expected = multipletests(p, method="holm")[1] if p else []
    np.testing.assert_allclose(holm(p), expected, atol=1e-15)


@pytest.mark.parametrize(("k", "n"), [(1, 4), (4, 16), (7, 64), (3, 3), (0, 5)])
def test_intervals_beside_the_headline_are_those_of_statsmodels(k, n):
    for method, name in ((wilson, "wilson"), (jeffreys, "jeffreys")):
        low, high = proportion_confint(k, n, 0.05, name)
        interval = method(k, n, 0.95)
        if name == "jeffreys":  # there it keeps both tails where k is 0 or n
            low, high = (0 if k == 0 else low), (1 if k == n else high)
        assert (interval.low, interval.high) == (pytest.approx(low, abs=1e-12), pytest.approx(high, abs=1e-12))
        assert interval.method.lower() == name
