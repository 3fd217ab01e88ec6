"""Confidence intervals of a proportion, and of a mean."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy import stats

from vaehpc.schema.results import Interval

CLOPPER_PEARSON = "Clopper-Pearson"
WILSON = "Wilson"
JEFFREYS = "Jeffreys"


def clopper_pearson(successes: int, trials: int, level: float) -> Interval:
    """Exact two-sided interval of a binomial proportion; it covers at least `level`, whatever the proportion.

    Raises:
        ValueError: no trials, or not 0 <= successes <= trials.
    """
    return _interval(successes, trials, level, CLOPPER_PEARSON)


def wilson(successes: int, trials: int, level: float) -> Interval:
    """Wilson's score interval: covers `level` on average over the proportions; raises as clopper_pearson does."""
    return _interval(successes, trials, level, WILSON)


def jeffreys(successes: int, trials: int, level: float) -> Interval:
    """Quantiles of Beta(k + 1/2, n - k + 1/2), with the end at 0 for k = 0 and at 1 for k = n.

    Brown, Cai and DasGupta (2001), equations 6 and 7. Raises as clopper_pearson does.
    """
    _require_trials(successes, trials)
    tail = (1 - level) / 2
    posterior = stats.beta(successes + 0.5, trials - successes + 0.5)
    low = 0.0 if successes == 0 else float(posterior.ppf(tail))
    high = 1.0 if successes == trials else float(posterior.ppf(1 - tail))
    return Interval(low=low, high=high, level=level, method=JEFFREYS)


def _interval(successes: int, trials: int, level: float, method: str) -> Interval:
    _require_trials(successes, trials)
    test = stats.binomtest(successes, trials)
    found = test.proportion_ci(level, method="wilson" if method == WILSON else "exact")
    return Interval(low=float(found.low), high=float(found.high), level=level, method=method)


def _require_trials(successes: int, trials: int) -> None:
    if trials < 1:
        raise ValueError("no trials, no interval")
    if not 0 <= successes <= trials:
        raise ValueError(f"{successes} of {trials}: the successes must be among the trials")


def student(values: npt.NDArray[np.float64], level: float) -> tuple[float, float] | None:
    """Student's t interval of the mean; None with fewer than 2 values.

    Args:
        values: (num_values,), independent.
        level: of confidence.
    """
    if len(values) < 2:
        return None
    half = float(stats.t.ppf((1 + level) / 2, len(values) - 1) * values.std(ddof=1) / np.sqrt(len(values)))
    mean = float(values.mean())
    return mean - half, mean + half


def bootstrap(
    values: npt.NDArray[np.float64], level: float, num_resamples: int, key: np.random.SeedSequence
) -> tuple[float, float] | None:
    """BCa bootstrap interval of the mean (Efron, 1987); None with fewer than 3 values or where all are equal."""
    if len(values) < 3 or np.ptp(values) == 0:
        return None
    found = stats.bootstrap(
        (values,), np.mean, n_resamples=num_resamples, confidence_level=level, rng=np.random.default_rng(key)
    ).confidence_interval
    return float(found.low), float(found.high)
