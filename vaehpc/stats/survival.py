"""When runs jump, grow or become NaN for the first time, in steps, of runs that may be lost before.

The three exclude each other as a run's first event, so that the share of runs with each by a step is Aalen's and
Johansen's estimate (1978); a run that became NaN is not one that would have gone on as the others. Missing runs, and
those whose probe is cut, are censored where they were last seen.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import stats

from vaehpc.schema.results import Event, EventCurves, Incidence, RunSummary

EVENTS: tuple[Event, ...] = ("jump", "growth", "nonfinite")
LOG_LOG = "log-log, delta method"

IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Followed:
    """Up to which step each run of an arm was seen, and what ended that."""

    steps: IntArray
    """(num_runs,), of the first event, or the last one seen."""
    events: IntArray
    """(num_runs,), 0: none, else 1 + the position in EVENTS."""

    @property
    def has_event(self) -> npt.NDArray[np.bool_]:
        """(num_runs,)."""
        return self.events > 0


def event_of(run: RunSummary) -> tuple[int, Event | None]:
    """The step of a run's first event and its kind, or the step at which it was last seen and None."""
    if (departed := run.course.departed) is not None:
        return departed.step, "jump" if departed.kind == "jump" else "growth"
    if run.run_class == "nonfinite" and run.course.unknown_after is None:
        return run.followed_steps, "nonfinite"
    return run.followed_steps if run.course.unknown_after is None else run.course.unknown_after, None


def is_followed(run: RunSummary) -> bool:
    """Whether a run was seen without an event at all, and not far from its control already."""
    return run.course.far is not True and event_of(run)[0] > 0


def followed(runs: Iterable[RunSummary]) -> Followed:
    """Runs that an event could end."""
    found = [event_of(run) for run in runs if is_followed(run)]
    events = [0 if event is None else 1 + EVENTS.index(event) for _, event in found]
    return Followed(np.array([step for step, _ in found], np.int64), np.array(events, np.int64))


def event_curves(runs: Iterable[RunSummary], level: float) -> EventCurves | None:
    """Cumulative incidence of each kind of event with pointwise intervals; None if no run was followed.

    Args:
        runs: of one arm.
        level: of each interval.
    """
    runs = list(runs)
    of_arm = followed(runs)
    if not len(of_arm.steps):
        return None
    steps = np.unique(of_arm.steps)
    at_risk = np.array([(of_arm.steps >= step).sum() for step in steps])
    counts = np.array(
        [[((of_arm.steps == step) & (of_arm.events == 1 + of)).sum() for step in steps] for of in range(3)]
    )
    censored = [run for run in runs if is_followed(run) and event_of(run)[1] is None]
    num_missing = sum(run.run_class is None for run in censored)
    with_event = int(of_arm.has_event.sum())
    return EventCurves(
        num_runs=len(of_arm.steps),
        num_far=sum(run.course.far is True for run in runs),
        num_missing=num_missing,
        num_unknown=sum(run.run_class is not None and run.course.unknown_after is not None for run in censored),
        steps=_ints(steps),
        at_risk=_ints(at_risk),
        censored=_ints([((of_arm.steps == step) & ~of_arm.has_event).sum() for step in steps]),
        events={
            event: incidence(at_risk, counts.sum(axis=0), counts[of], level)
            for of, event in enumerate(EVENTS)
            if counts[of].any()
        },
        if_none_missing=with_event / len(of_arm.steps),
        if_all_missing=(with_event + num_missing) / len(of_arm.steps),
        level=level,
        method=LOG_LOG,
    )


def incidence(at_risk: IntArray, events: IntArray, of_kind: IntArray, level: float) -> Incidence:
    """Aalen-Johansen estimate for one kind of event: the sum of S(t-) d_k / n over its times, S of Kaplan and Meier.

    Its variance is the delta method's (Dinse and Larson, 1986; Marubini and Valsecchi, 1995, equation 10.12), its
    interval is symmetric in ln(-ln F).

    Args:
        at_risk: (num_steps,), n before each step.
        events: (num_steps,), of all kinds.
        of_kind: (num_steps,), of this one.
        level: of each interval.
    """
    n, d, d_k = (values.astype(np.float64) for values in (at_risk, events, of_kind))
    survival = np.cumprod(1 - d / n)
    before = np.r_[1.0, survival[:-1]]
    share = np.cumsum(before * d_k / n)
    with np.errstate(divide="ignore", invalid="ignore"):
        greenwood = np.where(n > d, d / (n * (n - d)), 0.0)
    binomial = before**2 * d_k * (n - d_k) / n**3
    crossed = before * d_k / n**2
    variance = np.array(
        [
            ((share[t] - share[: t + 1]) ** 2 * greenwood[: t + 1]).sum()
            + binomial[: t + 1].sum()
            - 2 * ((share[t] - share[: t + 1]) * crossed[: t + 1]).sum()
            for t in range(len(share))
        ]
    )
    low, high = _log_log(share, variance, level)
    return Incidence(count=int(d_k.sum()), share=tuple(map(float, share)), low=low, high=high)


def _log_log(
    share: FloatArray, variance: FloatArray, level: float
) -> tuple[tuple[float | None, ...], tuple[float | None, ...]]:
    """F^exp(+-z sd / (F ln F)); None where F is 0 or 1."""
    z = float(stats.norm.ppf((1 + level) / 2))
    ends = []
    for sign in (1, -1):
        with np.errstate(divide="ignore", invalid="ignore"):
            values = share ** np.exp(sign * z * np.sqrt(variance) / (share * np.abs(np.log(share))))
        defined = (share > 0) & (share < 1)
        ends.append(tuple(float(value) if known else None for value, known in zip(values, defined, strict=True)))
    return ends[0], ends[1]


def _ints(values: Iterable[Any]) -> tuple[int, ...]:
    return tuple(int(value) for value in values)


@dataclass(frozen=True)
class LogRank:
    """Whether first events come sooner in one arm than in another."""

    statistic: float
    """(observed - expected) / its standard deviation, of the first arm."""
    p: float
    """Two-sided."""
    num_permutations: int
    """That were drawn; 0: all were enumerated."""


def logrank(first: Followed, second: Followed, num_permutations: int, key: np.random.SeedSequence) -> LogRank | None:
    """Log-rank test of events of any kind, its p that of permuting the arms; None if there is nothing to compare.

    That is without an event, with fewer than 2 runs of an arm, or if only one arm was still seen at each event. The
    permutation presumes that runs are lost alike in both arms.

    Observed less expected events of an arm are the sum of its runs' scores: 1 for an event less the Nelson-Aalen
    estimate, over both arms, at the run's last step (Peto and Peto, 1972). Permuting the arms permutes the scores.
    """
    if min(len(first.steps), len(second.steps)) < 2 or not (first.has_event.any() or second.has_event.any()):
        return None
    with np.errstate(invalid="ignore"):
        statistic = float(stats.logrank(_censored(first), _censored(second)).statistic)
    if not np.isfinite(statistic):  # at each event the runs of one arm alone were still seen
        return None
    scores = logrank_scores(np.r_[first.steps, second.steps], np.r_[first.has_event, second.has_event])
    test = stats.permutation_test(
        np.split(scores, [len(first.steps)]),
        lambda of_first, _, axis: of_first.sum(axis=axis),
        vectorized=True,
        n_resamples=num_permutations,
        rng=np.random.default_rng(key),
    )
    is_exact = math.comb(len(scores), len(first.steps)) <= num_permutations
    return LogRank(statistic, float(test.pvalue), 0 if is_exact else num_permutations)


def logrank_scores(steps: IntArray, has_event: npt.NDArray[np.bool_]) -> FloatArray:
    """Event (1 or 0) less the sum over the steps up to a run's last of events / runs at risk; their sum is 0."""
    times = np.unique(steps[has_event])
    hazard = np.array([(has_event & (steps == time)).sum() / (steps >= time).sum() for time in times])
    scores: FloatArray = has_event - (hazard * (times <= steps[:, None])).sum(axis=1)
    return scores


def _censored(followed: Followed) -> stats.CensoredData:
    return stats.CensoredData.right_censored(followed.steps, ~followed.has_event)
