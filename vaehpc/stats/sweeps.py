"""Shares of runs that left over the values of a swept setting: their trend, and the value at which half leave."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import takewhile

import numpy as np
from scipy import optimize

from vaehpc.schema.config import StudyConfig
from vaehpc.schema.plan import Endpoint
from vaehpc.schema.results import ArmSummary, Interval, RunSummary, SweepSummary, SweptBase, SweptPoint
from vaehpc.stats.intervals import clopper_pearson
from vaehpc.stats.rates import COUNTS, is_known


def sweeps(config: StudyConfig, arms: Mapping[str, ArmSummary], runs: Mapping[str, RunSummary]) -> list[SweepSummary]:
    """Every setting that the study sweeps.

    Args:
        config: the study.
        arms: its arms' counts.
        runs: its runs, by name.
    """
    settings = dict.fromkeys(arm.swept.setting for arm in config.arms.values() if arm.swept is not None)
    return [_sweep(setting, config, arms, runs) for setting in settings]


def _sweep(
    setting: str, config: StudyConfig, arms: Mapping[str, ArmSummary], runs: Mapping[str, RunSummary]
) -> SweepSummary:
    swept = {name: arm for name, arm in config.arms.items() if arm.swept is not None and arm.swept.setting == setting}
    endpoint = common_endpoint([arms[name] for name in swept])
    bases = []
    for base in dict.fromkeys(arm.base for arm in swept.values()):
        points = [
            SweptPoint(
                arm=name,
                value=arm.settings[setting],
                share=(share := arms[name].endpoints.get(endpoint)),
                num_missing=arms[name].num_runs - (0 if share is None else share.num_ended),
            )
            for name, arm in swept.items()
            if arm.base == base
        ]
        bases.append(_base(base, points, endpoint, runs, config.plan.level))
    return SweepSummary(setting=setting, endpoint=endpoint, level=config.plan.level, bases=tuple(bases))


def common_endpoint(arms: Sequence[ArmSummary]) -> Endpoint:
    """Left by class or NaN, where the classes of all arms are judged; else by course or NaN."""
    of_class: Endpoint = "diverged or nonfinite"
    return of_class if all(of_class in arm.endpoints for arm in arms if arm.endpoints) else "jumped or nonfinite"


def _base(
    base: str, points: Sequence[SweptPoint], endpoint: Endpoint, runs: Mapping[str, RunSummary], level: float
) -> SweptBase:
    if any(isinstance(point.value, bool) or not isinstance(point.value, int | float) for point in points):
        return SweptBase(base=base, points=tuple(points), trend_p=None, rises=None)
    ascending = sorted(points, key=_number)
    places = {point.arm: place for place, point in enumerate(ascending)}
    of_seeds: dict[int, dict[int, bool]] = {}
    for run in runs.values():
        if run.arm in places and is_known(run, endpoint):
            of_seeds.setdefault(run.seed, {})[places[run.arm]] = COUNTS[endpoint](run)
    excess, p = trend([of_seeds[seed] for seed in sorted(of_seeds)])
    if not excess:
        return SweptBase(base=base, points=tuple(ascending), trend_p=p, rises=None)
    towards = ascending if excess > 0 else ascending[::-1]
    return SweptBase(
        base=base,
        points=tuple(ascending),
        trend_p=p,
        rises=excess > 0,
        half_between=half_between(towards),
        half_within=half_within(towards, level),
    )


def trend(of_seeds: Sequence[Mapping[int, bool]]) -> tuple[float, float | None]:
    """Exact test of a trend over the values, within seeds: the stratified test of Cochran and Armitage.

    T is the sum of the ranks of the values at which a run left. If the value decides nothing, each seed's runs that
    left may as well be any of its runs, whatever the seeds themselves decide: all such choices are enumerated.

    Args:
        of_seeds: of each seed whether its run left, by the rank of the value; of those that ended.

    Returns:
        T less its expectation, and the two-sided p, twice the smaller one-sided; None where no seed's runs differ.
    """
    chances, observed, least = np.ones(1), 0, 0
    for left in of_seeds:
        ranks, count = sorted(left), sum(left.values())
        if not 0 < count < len(ranks):
            continue
        of_seed = subsets(ranks, count)
        observed += sum(rank for rank in ranks if left[rank])
        least += min(of_seed)
        chance = np.array([of_seed.get(total, 0) for total in range(min(of_seed), max(of_seed) + 1)], np.float64)
        chances = np.convolve(chances, chance / chance.sum())
    if len(chances) == 1:
        return 0.0, None
    totals, at = least + np.arange(len(chances)), observed - least
    p = min(1.0, 2 * min(chances[: at + 1].sum(), chances[at:].sum()))
    return float(observed - totals @ chances), float(p)


def subsets(numbers: Sequence[int], size: int) -> dict[int, int]:
    """How many subsets of this size have each sum."""
    found: list[dict[int, int]] = [{0: 1}, *({} for _ in range(size))]
    for number in numbers:
        for smaller, larger in zip(found[-2::-1], found[:0:-1], strict=True):  # the largest first: each number once
            for total, count in smaller.items():
                larger[total + number] = larger.get(total + number, 0) + count
    return found[size]


def half_between(points: Sequence[SweptPoint]) -> tuple[float | None, float | None]:
    """The values next to where the share of runs that left crosses a half, where it is fitted to be monotone.

    Args:
        points: in the order in which the share rises.
    """
    known = [point for point in points if point.share is not None]
    counts = np.array([point.share.count for point in known if point.share is not None])
    ended = np.array([point.share.num_ended for point in known if point.share is not None])
    fitted = optimize.isotonic_regression(counts / ended, weights=ended).x.round(9)
    under = [point for point, share in zip(known, fitted, strict=True) if share < 0.5]
    beyond = [point for point, share in zip(known, fitted, strict=True) if share > 0.5]
    return _last(under), _last(reversed(beyond))


def half_within(points: Sequence[SweptPoint], level: float) -> tuple[float | None, float | None]:
    """Bounds of the value at which half leave, however the missing runs end.

    From the low end, values count as below as long as the exact interval of the share lies under a half; from the high
    end as above. As the order is fixed and the share monotone, only the first wrong step of either end can be an error:
    each has the probability of half of 1 - level, whatever the number of values.

    Args:
        points: in the order in which the share rises.
        level: of the two bounds together.
    """
    under = takewhile(lambda point: _interval(point, level, is_worst=True).high < 0.5, points)
    beyond = takewhile(lambda point: _interval(point, level, is_worst=False).low > 0.5, reversed(points))
    return _last(under), _last(beyond)


def _interval(point: SweptPoint, level: float, is_worst: bool) -> Interval:
    """Of a value's share, had all of its missing runs left, or none."""
    count, ended = (point.share.count, point.share.num_ended) if point.share is not None else (0, 0)
    return clopper_pearson(count + is_worst * point.num_missing, ended + point.num_missing, level)


def _last(points: Iterable[SweptPoint]) -> float | None:
    numbers = [_number(point) for point in points]
    return numbers[-1] if numbers else None


def _number(point: SweptPoint) -> float:
    assert isinstance(point.value, int | float)
    return point.value
