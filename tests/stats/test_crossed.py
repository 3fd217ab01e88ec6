"""Crossed streams: components of variance and tests of agreement, on planted outcomes."""

from itertools import permutations, product

import numpy as np
import pytest

from vaehpc.schema.config import Stream
from vaehpc.stats.crossed import agreement, components, mean_square, outcome
from vaehpc.study.crossing import least_p

STREAMS: tuple[Stream, ...] = ("initialisation", "shuffling", "noise")
KEY = np.random.SeedSequence(5)
COIN = np.array([1.0, 0, 1, 0])


def shares(values: np.ndarray) -> dict[str, float]:
    found = outcome(values.astype(float), STREAMS[: values.ndim], 199, KEY)
    return {"+".join(stream[0] for stream in part.streams): round(part.share, 6) for part in found.parts}


def test_what_decides_alone_or_together_has_the_whole_variance() -> None:
    first, second, third = np.ix_(COIN, COIN, COIN)
    whole = np.ones((4, 4, 4))
    assert shares(first * whole) == {"i": 1, "s": 0, "n": 0, "i+s": 0, "i+n": 0, "s+n": 0, "i+s+n": 0}
    assert shares((first != third) * whole)["i+n"] == 1
    assert shares((first != third) != second)["i+s+n"] == 1
    assert outcome(whole, STREAMS, 199, KEY).parts == ()


def test_mean_squares_share_out_the_whole_sum_of_squares() -> None:
    values = np.random.default_rng(1).standard_normal((3, 4, 2))
    every = [(0,), (1,), (2,), (0, 1), (0, 2), (1, 2), (0, 1, 2)]
    freedom = [np.prod([values.shape[axis] - 1 for axis in axes]) for axes in every]
    found = sum(number * mean_square(values, axes) for number, axes in zip(freedom, every, strict=True))
    assert found == pytest.approx(((values - values.mean()) ** 2).sum())


def test_components_are_those_that_were_drawn() -> None:
    """Variances 4 of the first axis, 1 of the first two together, 2 of all three; averaged over 300 designs."""
    numbers = np.random.default_rng(2)
    found = []
    for _ in range(300):
        first, pair = numbers.normal(0, 2, (6, 1, 1)), numbers.normal(0, 1, (6, 5, 1))
        found.append(components(first + pair + numbers.normal(0, np.sqrt(2), (6, 5, 4))))
    means = {axes: np.mean([each[axes] for each in found]) for axes in found[0]}
    assert means[(0,)] == pytest.approx(4, abs=0.5)
    assert means[(0, 1)] == pytest.approx(1, abs=0.15)
    assert means[(0, 1, 2)] == pytest.approx(2, abs=0.15)
    assert max(means[axes] for axes in ((1,), (2,), (0, 2), (1, 2))) < 0.1


def test_two_streams_are_tested_as_all_orders_within_each_row() -> None:
    values = np.random.default_rng(3).integers(0, 2, (3, 3)).astype(float)
    # Columns: their labels in any order in every row.
    sums = [
        sum(values[row][list(order)] for row, order in enumerate(orders))
        for orders in product(*[list(permutations(range(3)))] * 3)
    ]
    expected = np.mean([(total**2).sum() >= (values.sum(axis=0) ** 2).sum() for total in sums])
    assert agreement(values, (1,), 99, KEY) == (pytest.approx(expected), 0)


def test_the_least_p_is_that_of_an_outcome_which_one_stream_decides() -> None:
    for shape in ((3, 3), (2, 4), (4, 3), (3, 2, 3)):
        levels = dict(zip(STREAMS, shape, strict=False))
        found = []
        for axis, count in enumerate(shape):
            distinct = np.moveaxis(
                np.broadcast_to(np.arange(count) ** 2.0, (*shape[:axis], *shape[axis + 1 :], count)), -1, axis
            )
            found.append(agreement(distinct, (axis,), 99, KEY)[0])
        assert least_p(levels) == pytest.approx(min(1, len(shape) * min(found)))


def test_drawn_relabellings_agree_with_all() -> None:
    values = np.random.default_rng(4).random((4, 4)) < 0.5 + 0.4 * COIN
    enumerated, none = agreement(values.astype(float), (1,), 99, KEY)
    doubled = np.concatenate([values, values[:1] * 0]).astype(float)  # a constant row, with which there are too many
    drawn, number = agreement(doubled, (1,), 9999, KEY)
    assert (none, number) == (0, 9999)
    assert drawn == pytest.approx(enumerated, abs=0.02)


def test_a_stream_that_decides_alone_is_seen_in_every_set_that_holds_it() -> None:
    values = np.broadcast_to(COIN[:, np.newaxis], (4, 4, 4)).copy()  # the second
    p = {axes: agreement(values, axes, 999, KEY)[0] for axes in ((0,), (1,), (2,), (0, 1), (1, 2), (0, 2))}
    assert {axes for axes in p if p[axes] < 0.05} == {(1,), (0, 1), (1, 2)}
    assert p[(1,)] == pytest.approx(1 / 216)


@pytest.mark.parametrize("axes", [(0,), (0, 1)])
def test_the_test_keeps_its_level_where_a_stream_matters_only_together_with_another(axes: tuple[int, ...]) -> None:
    """Outcomes that the first and the third stream draw together, whatever the second is."""
    numbers = np.random.default_rng(7)
    tables = [np.repeat(numbers.integers(0, 2, (4, 1, 4)), 4, axis=1).astype(float) for _ in range(200)]
    p = np.array([agreement(table, axes, 99, KEY)[0] for table in tables if np.ptp(table)])
    assert (p <= 0.05).mean() <= 0.08
    assert agreement(tables[0], (0, 2), 999, KEY)[0] <= 0.01
