"""Confidence intervals of a proportion."""

from __future__ import annotations

from scipy import stats

from vaehpc.results import Interval

CLOPPER_PEARSON = "Clopper-Pearson"


def clopper_pearson(successes: int, trials: int, level: float) -> Interval:
    """Exact two-sided interval of a binomial proportion; it covers at least `level`, whatever the proportion.

    Raises:
        ValueError: no trials, or not 0 <= successes <= trials.
    """
    if trials < 1:
        raise ValueError("no trials, no interval")
    exact = stats.binomtest(successes, trials).proportion_ci(confidence_level=level, method="exact")
    return Interval(low=float(exact.low), high=float(exact.high), level=level, method=CLOPPER_PEARSON)
