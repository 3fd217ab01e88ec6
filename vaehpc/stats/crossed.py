"""Crossed streams: which of them, alone or together, decide how a run ends."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations, permutations, product

import numpy as np
import numpy.typing as npt

from vaehpc.schema.config import CROSSED, Stream, StudyConfig, cells, levels_of
from vaehpc.schema.results import ArmSummary, CrossedArm, CrossedOutcome, CrossedPart, RunSummary
from vaehpc.stats.contrasts import holm
from vaehpc.stats.rates import COUNTS, is_known
from vaehpc.stats.sweeps import common_endpoint

FloatArray = npt.NDArray[np.float64]
Axes = tuple[int, ...]
MOST_ENUMERATED = 50_000
"""Of more relabellings, as many as the plan says are drawn."""
TIE = 1e-9
"""Relative: sums that differ by less are equal."""


def crossed(
    config: StudyConfig, arms: Mapping[str, ArmSummary], runs: Mapping[str, RunSummary]
) -> dict[str, CrossedArm]:
    """Every arm of a study that crosses streams; none of another study."""
    if not config.cross:
        return {}
    endpoint = common_endpoint(list(arms.values()))
    found = {}
    for number, (name, arm) in enumerate(config.arms.items()):
        seeds = cells(config.cross, arm)
        of_seeds = {run.seed: run for run in runs.values() if run.arm == name and is_known(run, endpoint)}
        every = [levels_of(seed) for seed in seeds]
        counts = {stream: 1 + max(levels[stream] for levels in every) for stream in CROSSED}
        levels = {stream: count for stream, count in counts.items() if count > 1}
        ended = [of_seeds[seed] for seed in seeds if seed in of_seeds]
        left, log_radius = None, None
        if len(ended) == len(seeds) and len(levels) > 1:
            shape, streams = tuple(levels.values()), tuple(levels)
            draws, key = config.plan.contrasts.num_permutations, config.key("crossed", number)
            has_left = np.array([COUNTS[endpoint](run) for run in ended], np.float64)
            left = outcome(has_left.reshape(shape), streams, draws, key)
            radii = [run.radius_median for run in ended if run.radius_median]
            if len(radii) == len(ended):
                log_radius = outcome(np.log(radii).reshape(shape), streams, draws, key)
        found[name] = CrossedArm(
            levels=levels,
            endpoint=endpoint,
            num_left=sum(map(COUNTS[endpoint], ended)),
            num_ended=len(ended),
            num_missing=len(seeds) - len(ended),
            left=left,
            log_radius=log_radius,
        )
    return found


def outcome(
    values: FloatArray, streams: Sequence[Stream], num_permutations: int, key: np.random.SeedSequence
) -> CrossedOutcome:
    """Shares of the variance of a run's outcome, and tests, for each set of streams.

    Args:
        values: an axis per stream, a run per combination.
        streams: names of the axes.
        num_permutations: to draw where all are too many.
        key: of these draws.
    """
    if np.ptp(values) <= TIE * np.abs(values).max():
        return CrossedOutcome(parts=())
    found = components(values)
    total = sum(found.values())
    parts = []
    for size in range(1, values.ndim + 1):
        sets = [axes for axes in found if len(axes) == size]
        tests = [agreement(values, axes, num_permutations, key) for axes in sets] if size < values.ndim else []
        adjusted = holm([p for p, _ in tests])
        for position, axes in enumerate(sets):
            parts.append(
                CrossedPart(
                    streams=tuple(streams[axis] for axis in axes),
                    share=found[axes] / total,
                    common=sum(value for of, value in found.items() if set(of) <= set(axes)) / total,
                    p=tests[position][0] if tests else None,
                    holm=adjusted[position] if tests else None,
                    num_permutations=tests[position][1] if tests else 0,
                )
            )
    return CrossedOutcome(parts=tuple(parts))


def components(values: FloatArray) -> dict[Axes, float]:
    """Variance components of a random-effects model without replication, for each set of axes, by the mean squares.

    E[MS_A] = sum over the sets B that contain A of m_B var_B, m_B = runs that share a level of all of B (Searle,
    Casella and McCulloch, 1992): var_A of all axes together first, then of ever fewer, each by those found before. What
    comes out negative is 0.

    Args:
        values: (n_1, ..., n_k), one for each combination of levels, each n at least 2.
    """
    found: dict[Axes, float] = {}
    sharing = {}
    for size in range(values.ndim, 0, -1):
        for axes in combinations(range(values.ndim), size):
            sharing[axes] = values.size / math.prod(values.shape[axis] for axis in axes)
            larger = sum(sharing[of] * component for of, component in found.items() if set(axes) < set(of))
            found[axes] = max(0.0, (mean_square(values, axes) - larger) / sharing[axes])
    return {axes: found[axes] for axes in sorted(found, key=lambda axes: (len(axes), axes))}


def mean_square(values: FloatArray, axes: Axes) -> float:
    """Sum of squares of the interaction of these axes, or of the effect of one, by its degrees of freedom."""
    others = tuple(axis for axis in range(values.ndim) if axis not in axes)
    effect: FloatArray = values.mean(axis=others, keepdims=True)
    for axis in axes:
        effect = effect - effect.mean(axis=axis, keepdims=True)
    freedom = math.prod(values.shape[axis] - 1 for axis in axes)
    return float((effect**2).sum() * math.prod(values.shape[axis] for axis in others) / freedom)


def agreement(values: FloatArray, axes: Axes, num_permutations: int, key: np.random.SeedSequence) -> tuple[float, int]:
    """p that runs which share the levels of these axes agree no more than others, and how many relabellings were drawn.

    The statistic is the sum of squares between these levels. Under the null hypothesis there is another stream at each
    level of which the levels of these mean something else: they matter at most together with it. Then they may be
    relabelled anew at each of its levels, the rest as it is, which is exact: all ways are enumerated, or some drawn.
    p is the largest over that other stream, so that whichever it is, the test keeps its level.

    Args:
        values: an axis per stream.
        axes: some of them, not all.
        num_permutations: to draw where all are too many.
        key: of these draws.
    """
    found = []
    for other in (axis for axis in range(values.ndim) if axis not in axes):
        rest = tuple(axis for axis in range(values.ndim) if axis not in axes and axis != other)
        of_levels = np.moveaxis(values.sum(axis=rest, keepdims=True), other, 0)
        slabs = of_levels.reshape(values.shape[other], *(values.shape[axis] for axis in axes))
        found.append(_relabelled(slabs - slabs.mean(), num_permutations, np.random.default_rng(key)))
    return max(found)


def _relabelled(slabs: FloatArray, num_permutations: int, rng: np.random.Generator) -> tuple[float, int]:
    """Share of relabellings of each slab's axes with as large a sum of squares of the slabs' sum."""
    observed = (slabs.sum(axis=0) ** 2).sum() * (1 - TIE)
    if math.prod(map(math.factorial, slabs.shape[1:])) ** (len(slabs) - 1) <= MOST_ENUMERATED:
        ways = [np.array(list(_all(slab))) for slab in slabs[1:]]
        sums = slabs[0][np.newaxis]
        for of_slab in ways:
            sums = (sums[:, np.newaxis] + of_slab).reshape(-1, *slabs.shape[1:])
        return float(((sums**2).reshape(len(sums), -1).sum(axis=1) >= observed).mean()), 0
    sums = np.zeros((num_permutations, *slabs.shape[1:]))
    for slab in slabs:
        drawn = np.broadcast_to(slab, sums.shape).copy()
        for axis in range(1, drawn.ndim):
            order = rng.random((num_permutations, drawn.shape[axis])).argsort(axis=1)
            shape = [1] * drawn.ndim
            shape[0], shape[axis] = order.shape
            drawn = np.take_along_axis(drawn, order.reshape(shape), axis=axis)
        sums += drawn
    as_large = ((sums**2).reshape(num_permutations, -1).sum(axis=1) >= observed).sum()
    return float((1 + as_large) / (1 + num_permutations)), num_permutations


def _all(slab: FloatArray) -> Iterator[FloatArray]:
    """The slab with each of its axes in every order."""
    for orders in product(*(permutations(range(count)) for count in slab.shape)):
        yield slab[np.ix_(*orders)]
