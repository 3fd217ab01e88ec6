"""Crossed streams: what initialises a run, orders its images and makes its noise, in every combination."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from vaehpc.command import UserError, nearest
from vaehpc.schema.config import CROSSED, MOST_LEVELS, ArmConfig, Stream


def asked_cross(asked: Sequence[str]) -> dict[Stream, int]:
    """Numbers of levels in words: ['initialisation=4', 'noise=4']; empty: nothing is crossed.

    Raises:
        UserError: something is no such word, or fewer than two streams are named.
    """
    origin, found = f"--cross {' '.join(asked)}", dict[Stream, int]()
    for each in asked:
        name, _, number = each.partition("=")
        stream = next((known for known in CROSSED if known == name), None)
        if stream is None:
            raise UserError(f"{origin}: unknown stream '{name}'{nearest(name, CROSSED)}. Streams: {', '.join(CROSSED)}")
        if not number.isdecimal() or not 2 <= int(number) <= MOST_LEVELS:
            raise UserError(f"{origin}: {stream} takes a number from 2 to {MOST_LEVELS}, {stream}=4")
        if stream in found:
            raise UserError(f"{origin}: {stream} is there twice")
        found[stream] = int(number)
    if len(found) == 1:
        raise UserError(f"{origin}: at least two streams are crossed, initialisation=4 noise=4")
    return {stream: found[stream] for stream in CROSSED if stream in found}


def least_p(levels: Mapping[Stream, int]) -> float:
    """The least Holm-adjusted p that any stream alone can reach: one relabelling of all, as in `stats.crossed`.

    Args:
        levels: of the crossed streams that an arm has, at least two.
    """
    ways = [
        min(math.factorial(count) ** (other - 1) for of, other in levels.items() if of != stream)
        for stream, count in levels.items()
    ]
    return float(min(1.0, len(levels) / max(ways)))


def require_crossable(cross: Mapping[Stream, int], arms: Mapping[str, ArmConfig]) -> None:
    """UserError if an arm starts from the weights of a run that is not the same combination."""
    if started := [name for name, arm in arms.items() if arm.start_from is not None and cross]:
        raise UserError(f"--cross: arm '{started[0]}' starts from trained weights, which no stream makes: leave it out")
