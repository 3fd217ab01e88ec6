"""Sweeps: the exact trend within seeds, and the value at which half leave, on planted counts."""

from collections.abc import Sequence
from functools import cache
from itertools import combinations, product

import numpy as np
import pytest

from vaehpc.schema.results import Share, SweptPoint
from vaehpc.stats import sweeps
from vaehpc.stats.intervals import clopper_pearson
from vaehpc.stats.sweeps import half_between, half_within, subsets, trend

exact = cache(clopper_pearson)


def point(value: float, count: int, ended: int = 12, num_missing: int = 0) -> SweptPoint:
    share = Share(
        count=count,
        num_ended=ended,
        interval=exact(count, ended, 0.95),
        other_intervals=(),
        if_none_missing=0.0,
        if_all_missing=1.0,
    )
    return SweptPoint(arm=f"ae-{value}", value=value, share=share, num_missing=num_missing)


def points(*counts: int, num_missing: int = 0) -> list[SweptPoint]:
    return [point(value, count, num_missing=num_missing) for value, count in enumerate(counts, start=1)]


def enumerated(of_seeds: Sequence[dict[int, bool]]) -> float:
    """Two-sided p over all choices of as many runs of each seed."""
    choices = [list(combinations(left, sum(left.values()))) for left in of_seeds]
    totals = np.array([sum(map(sum, choice)) for choice in product(*choices)])
    observed = sum(rank for left in of_seeds for rank, has_left in left.items() if has_left)
    return float(min(1, 2 * min((totals <= observed).mean(), (totals >= observed).mean())))


def test_the_trend_is_that_of_all_choices_within_seeds() -> None:
    numbers = np.random.default_rng(3)
    for _ in range(20):
        of_seeds = [
            {rank: bool(numbers.random() < 0.2 + 0.2 * rank) for rank in range(4) if numbers.random() < 0.9}
            for _ in range(5)
        ]
        _, p = trend(of_seeds)
        assert (1.0 if p is None else p) == pytest.approx(enumerated(of_seeds))


def test_known_trends() -> None:
    rising = [{0: False, 1: True}] * 5
    assert trend(rising) == (2.5, pytest.approx(2 / 32))
    assert trend([{0: True, 1: False}] * 5) == (-2.5, pytest.approx(2 / 32))
    # Seeds that decide alone, whatever the value, tell nothing.
    assert trend([{0: True, 1: True}] * 5 + [{0: False, 1: False}] * 5) == (0, None)
    assert trend([{0: True, 1: True}] * 9 + rising)[1] == pytest.approx(2 / 32)
    assert subsets((0, 1, 2, 3), 2) == {1: 1, 2: 1, 3: 2, 4: 1, 5: 1}


@pytest.mark.parametrize(
    ("counts", "between", "within"),
    [
        ((0, 0, 12, 12), (2, 3), (2, 3)),
        ((0, 3, 5, 8, 12), (3, 4), (1, 5)),
        ((0, 6, 12), (1, 3), (1, 3)),
        ((5, 8, 3, 12), (3, 4), (None, 4)),  # pooled: 5, 5.5, 5.5
        ((0, 1, 2), (3, None), (3, None)),
        ((10, 11, 12), (None, 1), (None, 1)),
        ((6, 6), (None, None), (None, None)),
    ],
)
def test_where_half_leave(
    counts: tuple[int, ...], between: tuple[float | None, ...], within: tuple[float | None, ...]
) -> None:
    assert half_between(points(*counts)) == between
    assert half_within(points(*counts), 0.95) == within


def test_missing_runs_widen_the_bounds_and_not_the_fit() -> None:
    found = points(0, 0, 12, 12, num_missing=12)
    assert half_between(found) == (2, 3)
    assert half_within(found, 0.95) == (None, None)


def test_the_bounds_hold_the_true_value_as_often_as_they_say(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 400 studies with shares of 0.1, 0.3, 0.48, 0.7, 0.9, half leave between the third and the fourth value."""
    monkeypatch.setattr(sweeps, "clopper_pearson", exact)
    numbers = np.random.default_rng(6)
    wrong = 0
    for counts in numbers.binomial(12, (0.1, 0.3, 0.48, 0.7, 0.9), (400, 5)):
        low, high = half_within(points(*counts.tolist()), 0.95)
        wrong += (low is not None and low > 3) or (high is not None and high < 4)
    assert wrong <= 20
