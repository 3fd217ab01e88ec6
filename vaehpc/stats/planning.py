"""What a number of seeds can show: power of exact tests between two arms, and boundaries for looking before the end.

x of n runs diverged in an arm, y of m in its reference; the question is whether the arm diverges more often. Everything
is enumerated, nothing simulated, and needs NumPy alone: the launcher says it, where SciPy need not be.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

Float64Array = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]

NUM_RATES = 401
"""Rates, from 0 to 1, over which the level of a test is maximised."""
MOST_SEEDS = 1000
"""Per arm; beyond, the ways to choose half of them are no float64."""
EQUAL = 1 + 1e-9
"""Two p values within this factor are those of equal tables."""


# One arm


def highest_rate_of_none(num_runs: int, level: float) -> float:
    """Upper Clopper-Pearson limit of 0 events in num_runs: 1 - (alpha / 2)^(1 / n)."""
    return float(1.0 - ((1.0 - level) / 2.0) ** (1.0 / num_runs))


def runs_for_one_event(rate: float, probability: float) -> int:
    """Runs among which at least one diverges with this probability: the least n with 1 - (1 - rate)^n >= it."""
    if rate >= 1:
        return 1
    return math.ceil(math.log1p(-probability) / math.log1p(-rate))


# Two arms, one look


def binomial(num_runs: int, rates: npt.ArrayLike) -> Float64Array:
    """P(x of num_runs), float64 (num_rates, num_runs + 1); exact at the rates 0 and 1, for at most MOST_SEEDS runs."""
    rate = np.atleast_1d(np.asarray(rates, np.float64))[:, None]
    x = np.arange(num_runs + 1)
    ways: Float64Array = np.exp(_log_choose(num_runs))
    probability: Float64Array = ways * rate**x * (1 - rate) ** (num_runs - x)
    return probability


def fisher_greater(num_runs: int, num_reference: int) -> Float64Array:
    """Fisher's one-sided p = P(X >= x | x + y) of every table, float64 (num_runs + 1, num_reference + 1)."""
    weight = _hypergeometric(num_runs, num_reference)
    p = weight.copy()
    for x in range(num_runs - 1, -1, -1):
        p[x, 1:] += p[x + 1, :-1]
    return np.minimum(p, 1.0)


def fisher_two_sided(num_runs: int, num_reference: int) -> Float64Array:
    """Fisher's two-sided p of every table: all tables with the same x + y that are not more probable."""
    weight = _hypergeometric(num_runs, num_reference)
    p = np.ones_like(weight)
    for total in range(num_runs + num_reference + 1):
        x = np.arange(max(0, total - num_reference), min(num_runs, total) + 1)
        of_total = weight[x, total - x]
        p[x, total - x] = [of_total[of_total <= EQUAL * own].sum() for own in of_total]
    return np.minimum(p, 1.0)


def _hypergeometric(num_runs: int, num_reference: int) -> Float64Array:
    """P(x | x + y) of every table if both arms have the same rate."""
    x, y = np.arange(num_runs + 1)[:, None], np.arange(num_reference + 1)[None, :]
    ways, ways_of_reference = _log_choose(num_runs), _log_choose(num_reference)
    logarithm: Float64Array = ways[x] + ways_of_reference[y] - _log_choose(num_runs + num_reference)[x + y]
    return np.exp(logarithm)


def _log_choose(num_runs: int) -> Float64Array:
    factorials: Float64Array = np.array([math.lgamma(k + 1) for k in range(num_runs + 1)])
    logarithms: Float64Array = factorials[-1] - factorials - factorials[::-1]
    return logarithms


@lru_cache(maxsize=256)
def boschloo_greater(num_runs: int, num_reference: int, alpha: float) -> BoolArray:
    """The tables for which Boschloo's one-sided test finds more divergence in the arm, bool (num_runs + 1, ...).

    Boschloo (1970): reject where Fisher's p is at most c, the largest c for which the probability to reject is at most
    alpha whatever rate the two arms have in common.
    """
    p = fisher_greater(num_runs, num_reference)
    rates = np.linspace(0, 1, NUM_RATES)
    of_arm, of_reference = binomial(num_runs, rates), binomial(num_reference, rates)

    def level(region: BoolArray) -> float:
        return float(((of_arm @ region.astype(np.float64)) * of_reference).sum(axis=1).max())

    return p <= _largest_cutoff(p, lambda cutoff: level(p <= cutoff) <= alpha)


def _largest_cutoff(p: Float64Array, holds: Callable[[float], bool]) -> float:
    """The largest of the p values for which `holds`, which is true up to some value; below all of them if for none."""
    cutoffs = EQUAL * np.unique(p)
    low, high = -1, len(cutoffs)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if holds(float(cutoffs[middle])) else (low, middle)
    return float(cutoffs[low]) if low >= 0 else 0.0


def probability(region: BoolArray, rate: float, versus: float) -> float:
    """Probability of a table in the region where the arm diverges at `rate` and its reference at `versus`."""
    num_runs, num_reference = region.shape[0] - 1, region.shape[1] - 1
    return float((binomial(num_runs, rate) @ region @ binomial(num_reference, versus).T).item())


def power(num_runs: int, num_reference: int, rate: float, versus: float, alpha: float) -> float:
    """Probability that Boschloo's one-sided test finds the difference."""
    return probability(boschloo_greater(num_runs, num_reference, alpha), rate, versus)


def fisher_power(num_runs: int, num_reference: int, rate: float, versus: float, alpha: float) -> float:
    """The same for Fisher's two-sided test."""
    return probability(fisher_two_sided(num_runs, num_reference) <= alpha, rate, versus)


def seeds_needed(rate: float, versus: float, wanted: float, alpha: float) -> int | None:
    """The least number of seeds per arm whose power is as wanted; None if even MOST_SEEDS are too few.

    The search begins at three quarters of what the normal approximation asks for, in steps of 5 % of that, and goes
    back by single seeds. Power rises in a saw-tooth, so that one seed more than this may have a little less.
    """
    normal = NormalDist()
    quantiles = normal.inv_cdf(1 - alpha) + normal.inv_cdf(wanted)
    variance = rate * (1 - rate) + versus * (1 - versus)
    start = max(1, int(0.75 * quantiles**2 * variance / (rate - versus) ** 2))
    step = max(1, start // 20)
    for last in range(start, MOST_SEEDS + 1, step):
        if power(last, last, rate, versus, alpha) >= wanted:
            between = range(max(1, last - step + 1), last)
            return next((n for n in between if power(n, n, rate, versus, alpha) >= wanted), last)
    return None


def detectable_rate(num_seeds: int, versus: float, wanted: float, alpha: float) -> float | None:
    """The least rate, to 0.1 %, that this many seeds per arm find with the wanted power; None if they find none."""
    region = boschloo_greater(num_seeds, num_seeds, alpha)
    rates = np.arange(math.ceil(1000 * versus), 1001) / 1000
    found = binomial(num_seeds, rates) @ region @ binomial(num_seeds, versus).T[:, 0]
    enough = np.flatnonzero(found >= wanted)
    return float(rates[enough[0]]) if len(enough) else None


# Two arms, several looks


@dataclass(frozen=True)
class Look:
    """One look at the counts, after the same number of seeds in both arms."""

    num_seeds: int
    spent: float
    """Probability, at most, to have found a difference by now that is not there."""
    region: BoolArray
    """(num_seeds + 1, num_seeds + 1): the counts at which to stop."""

    def least_diverged(self, diverged_of_reference: int) -> int | None:
        """How many runs must have diverged in the arm to stop; None if no number is enough."""
        enough = np.flatnonzero(self.region[:, diverged_of_reference])
        return int(enough[0]) if len(enough) else None


def obrien_fleming(share: float, alpha: float) -> float:
    """How much of alpha is spent when this share of the seeds has ended: 2 - 2 Phi(z(1 - alpha / 2) / sqrt(share)).

    Lan and DeMets (1983): little at first, so that the last look is nearly a test at alpha.
    """
    normal = NormalDist()
    return 2 - 2 * normal.cdf(normal.inv_cdf(1 - alpha / 2) / math.sqrt(share))


def boundaries(num_seeds: Sequence[int], alpha: float) -> list[Look]:
    """At which counts to stop at each look, so that a difference that is not there is found with at most alpha.

    At each look a table is judged by Fisher's one-sided p; its limit is the largest for which the probability to have
    stopped by then, exact over all paths that the counts can take, is at most what may be spent, whatever common rate.

    Args:
        num_seeds: of each arm at each look, ascending.
        alpha: one-sided level of all looks together.
    """
    rates = np.linspace(0, 1, 1 + (NUM_RATES - 1) // 2)
    reached = np.ones((len(rates), 1, 1))
    stopped = np.zeros(len(rates))
    looks = []
    for before, now in zip((0, *num_seeds[:-1]), num_seeds, strict=True):
        reached = _after(reached, binomial(now - before, rates), binomial(now - before, rates))
        spent = obrien_fleming(now / num_seeds[-1], alpha)
        p = fisher_greater(now, now)

        cutoff = _largest_cutoff(p, partial(_spends_at_most, spent, p, reached, stopped))
        region = p <= cutoff
        stopped = stopped + reached[:, region].sum(axis=1)
        reached = np.where(region, 0.0, reached)
        looks.append(Look(now, spent, region))
    return looks


def _spends_at_most(spent: float, p: Float64Array, reached: Float64Array, stopped: Float64Array, cutoff: float) -> bool:
    """Whether, at every common rate, no more than `spent` has stopped by now if p up to the cutoff stop."""
    return bool((stopped + reached[:, p <= cutoff].sum(axis=1)).max() <= spent)


def _after(reached: Float64Array, of_arm: Float64Array, of_reference: Float64Array) -> Float64Array:
    """Probabilities of the counts (num_rates, x, y) when more runs have ended, of which so many diverge."""
    num_rates, rows, columns = reached.shape
    num_more = of_arm.shape[1]
    of_x = np.zeros((num_rates, rows + num_more - 1, columns))
    for x in range(num_more):
        of_x[:, x : x + rows] += of_arm[:, x, None, None] * reached
    of_xy = np.zeros((num_rates, rows + num_more - 1, columns + num_more - 1))
    for y in range(num_more):
        of_xy[:, :, y : y + columns] += of_reference[:, y, None, None] * of_x
    return of_xy


def stopping(looks: Sequence[Look], rate: float, versus: float) -> list[float]:
    """Probability to stop at each look; their sum is the power of all looks together."""
    reached = np.ones((1, 1, 1))
    found, before = [], 0
    for look in looks:
        more = look.num_seeds - before
        reached = _after(reached, binomial(more, rate), binomial(more, versus))
        found.append(float(reached[:, look.region].sum()))
        reached = np.where(look.region, 0.0, reached)
        before = look.num_seeds
    return found
