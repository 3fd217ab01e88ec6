"""Time to the onset of a departure, in steps, of runs that may end without one or be lost before."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import stats

from vaehpc.schema.results import OnsetCurve, RunSummary

LOG_LOG = "log-log Greenwood"


@dataclass(frozen=True)
class Followed:
    """Up to which step each run of an arm was seen, and whether its onset ended that."""

    steps: npt.NDArray[np.int64]
    """(num_runs,), of the onset, or the last one seen."""
    has_onset: npt.NDArray[np.bool_]
    """(num_runs,)."""

    @classmethod
    def of(cls, runs: Iterable[RunSummary]) -> Followed:
        """Runs of which anything was seen."""
        seen = [run for run in runs if run.onset_step is not None or run.followed_steps > 0]
        steps = [run.followed_steps if run.onset_step is None else run.onset_step for run in seen]
        return cls(np.array(steps, np.int64), np.array([run.onset_step is not None for run in seen], np.bool_))


def onset_curve(runs: Iterable[RunSummary], level: float) -> OnsetCurve | None:
    """Kaplan-Meier estimate with pointwise intervals; None if nothing was seen of any run.

    Args:
        runs: of one arm.
        level: of each interval.
    """
    runs = list(runs)
    followed = Followed.of(runs)
    if not len(followed.steps):
        return None
    share = stats.ecdf(_censored(followed)).sf
    with warnings.catch_warnings():  # where the formula gives no interval there is NaN
        warnings.simplefilter("ignore", RuntimeWarning)
        interval: Any = share.confidence_interval(level, method="log-log")  # whose types are wrong in the stubs
    steps = np.unique(followed.steps)
    censored = [run for run in runs if run.onset_step is None and run.followed_steps > 0]
    return OnsetCurve(
        num_runs=len(followed.steps),
        num_onsets=int(followed.has_onset.sum()),
        num_missing=sum(run.run_class is None for run in censored),
        num_nonfinite=sum(run.run_class == "nonfinite" for run in censored),
        steps=tuple(int(step) for step in steps),
        at_risk=tuple(int((followed.steps >= step).sum()) for step in steps),
        onsets=tuple(int(followed.has_onset[followed.steps == step].sum()) for step in steps),
        share=tuple(float(value) for value in share.probabilities),
        low=tuple(_none_if_nan(value) for value in interval.low.probabilities),
        high=tuple(_none_if_nan(value) for value in interval.high.probabilities),
        level=level,
        method=LOG_LOG,
    )


@dataclass(frozen=True)
class LogRank:
    """Whether onsets come sooner in one arm than in another."""

    statistic: float
    """(observed - expected) / its standard deviation, of the first arm."""
    p: float
    """Two-sided."""
    num_permutations: int
    """That were drawn; 0: all were enumerated."""


def logrank(first: Followed, second: Followed, num_permutations: int, key: np.random.SeedSequence) -> LogRank | None:
    """Log-rank test whose p is that of the permutations of the arms; None if there is nothing to compare.

    That is without an onset, with fewer than 2 runs of an arm, or if only one arm was still seen at each onset.

    Observed less expected onsets of an arm are the sum of its runs' scores: 1 for an onset less the Nelson-Aalen
    estimate, over both arms, at the run's last step (Peto and Peto, 1972). Permuting the arms permutes the scores.
    """
    if min(len(first.steps), len(second.steps)) < 2 or not (first.has_onset.any() or second.has_onset.any()):
        return None
    with np.errstate(invalid="ignore"):
        statistic = float(stats.logrank(_censored(first), _censored(second)).statistic)
    if not np.isfinite(statistic):  # at each onset the runs of one arm alone were still seen
        return None
    scores = logrank_scores(np.r_[first.steps, second.steps], np.r_[first.has_onset, second.has_onset])
    test = stats.permutation_test(
        np.split(scores, [len(first.steps)]),
        lambda of_first, _, axis: of_first.sum(axis=axis),
        vectorized=True,
        n_resamples=num_permutations,
        rng=np.random.default_rng(key),
    )
    is_exact = math.comb(len(scores), len(first.steps)) <= num_permutations
    return LogRank(statistic, float(test.pvalue), 0 if is_exact else num_permutations)


def logrank_scores(steps: npt.NDArray[np.int64], has_onset: npt.NDArray[np.bool_]) -> npt.NDArray[np.float64]:
    """Onset (1 or 0) less the sum over the steps up to a run's last of onsets / runs at risk; their sum is 0."""
    times = np.unique(steps[has_onset])
    hazard = np.array([(has_onset & (steps == time)).sum() / (steps >= time).sum() for time in times])
    scores: npt.NDArray[np.float64] = has_onset - (hazard * (times <= steps[:, None])).sum(axis=1)
    return scores


def _censored(followed: Followed) -> stats.CensoredData:
    return stats.CensoredData.right_censored(followed.steps, ~followed.has_onset)


def _none_if_nan(value: float) -> float | None:
    return None if math.isnan(value) else float(value)
