"""Whether the forks of a run jump as it did, how often, and what that says about the cause.

R is the median ||mu||_2 of the probe. The run that is replayed went from R0, at the last probe before the jump, to R1,
the farthest from it in ln R of the later probes up to the step where its forks end: some jumps come back. It jumped if
|ln(R1 / R0)| >= ln 1.14. A fork jumps if it is not finite by then, or if |ln(R / R0)| at any of these probes is at
least half of |ln(R1 / R0)|: whether it is thrown up or down is a matter of chance. Where the run itself was not finite
by then, only a fork that is not finite either jumps.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from vaehpc.schema.config import ReplayConfig
from vaehpc.schema.plan import ProbePlan
from vaehpc.schema.results import Outcome, Variant, Verdict
from vaehpc.stats.divergence import ProbeCurve, onset
from vaehpc.stats.intervals import clopper_pearson

JUMP_FACTOR = 1.14
"""R that grows or shrinks by less did not jump."""
SHARE_OF_JUMP = 0.5
"""A fork jumps if ln R changed by at least this share of what it did in the source run."""
STEPS_AFTER = 100
"""How long R is followed after what made the run jump: it peaks 10 to 15 steps later, and the probe comes every 50."""


# When the source run jumped


@dataclass(frozen=True)
class Window:
    """The steps over which R is compared."""

    calm_step: int
    """Steps done at the last probe at which R was undisturbed."""
    calm_radius: float
    """R there."""
    until_step: int
    """Steps done at the last probe that is looked at."""


def first_jump(curve: ProbeCurve, step: int, steps_per_epoch: int, plan: ProbePlan) -> int | None:
    """The last step, counted from 0, before the first abrupt onset after `step` steps; None if there is none."""
    since = curve.steps >= _last_probe(curve, step)
    found = onset(ProbeCurve(curve.steps[since], curve.radius_medians[since]), None, steps_per_epoch, plan)
    return None if found is None else found[0] - 1


def window(curve: ProbeCurve, start: int, cause: int | None, num_steps: int, plan: ProbePlan) -> Window | None:
    """From the last calm probe to the first one at least STEPS_AFTER steps after the cause, or to the last one.

    Args:
        curve: of the source run.
        start: steps done where the forks start.
        cause: step, counted from 0, that made the run jump; None: unknown, and all steps after `start` are looked at.
        num_steps: of the whole training.
        plan: the probe's interval.

    Returns:
        None if no probe is calm, or none follows it.
    """
    calm_step = _last_probe(curve, start if cause is None else cause)
    last = num_steps // plan.every_steps
    after = last if cause is None else math.ceil((cause + STEPS_AFTER) / plan.every_steps)
    until_step = min(after, last) * plan.every_steps
    if not (0 < calm_step < until_step and start < until_step):
        return None
    return Window(calm_step, float(curve.radius_medians[curve.steps == calm_step][0]), until_step)


def _last_probe(curve: ProbeCurve, step: int) -> int:
    """Steps done at the last probe that is not later; 0 if there is none."""
    return int(curve.steps[curve.steps <= step].max(initial=0))


# Jumps


def farthest_radius(curve: ProbeCurve, calm_step: int, calm_radius: float, until_step: int) -> float:
    """R of the probe after the calm one, up to the last, whose ln R is farthest from it."""
    radii = curve.radius_medians[(curve.steps > calm_step) & (curve.steps <= until_step)]
    return max((float(radii.max()), float(radii.min())), key=lambda radius: factor(calm_radius, radius))


def factor(calm_radius: float, radius: float) -> float:
    """exp |ln(radius / calm_radius)|: how many times larger or smaller a radius became."""
    smaller, larger = sorted((calm_radius, radius))
    return larger / smaller if smaller > 0 else math.inf


def is_jump(calm_radius: float, jumped_radius: float) -> bool:
    """Whether a run that went from one radius to the other jumped, up or down."""
    return factor(calm_radius, jumped_radius) >= JUMP_FACTOR


def fork_jumped(radius: float | None, replay: ReplayConfig) -> bool:
    """Whether a fork jumped as the source run did; its radius is None if it was not finite."""
    if radius is None or replay.jumped_radius is None:
        return radius is None
    return factor(replay.calm_radius, radius) >= factor_limit(replay.calm_radius, replay.jumped_radius)


def factor_limit(calm_radius: float, jumped_radius: float) -> float:
    """From which factor on a fork jumped: SHARE_OF_JUMP of the source run's way, in logarithms."""
    return float(factor(calm_radius, jumped_radius) ** SHARE_OF_JUMP)


# Outcomes


def least_repeats(level: float) -> int:
    """Fewest repeats that can decide: 0 of n lies below 0.5 if 1 - (alpha / 2)^(1 / n) < 0.5."""
    return math.floor(math.log2(2 / (1 - level))) + 1


def outcome_of_draws(num_jumps: int, num_repeats: int, num_missing: int, level: float) -> Outcome:
    """Whether the interval of the frequency of jumps lies above 0.5 or below, wherever the missing forks had ended."""
    possible = {_frequency(num_jumps + added, num_repeats, level) for added in (0, num_missing)}
    return possible.pop() if len(possible) == 1 else "undecided"


def _frequency(num_jumps: int, num_repeats: int, level: float) -> Outcome:
    interval = clopper_pearson(num_jumps, num_repeats, level)
    if interval.low > 0.5:
        return "persists"
    return "gone" if interval.high < 0.5 else "undecided"


def outcome_of_equals(num_jumps: int, num_repeats: int, num_missing: int) -> Outcome:
    """Of forks that do all the same: 'persists' if every one jumps, 'gone' as soon as one does not."""
    if num_jumps + num_missing < num_repeats:
        return "gone"
    return "undecided" if num_missing else "persists"


def repeats_to_decide(num_jumps: int, num_repeats: int, level: float) -> int:
    """Fewest repeats in all that decide, if every further fork does as most did.

    Args:
        num_jumps: of the forks so far.
        num_repeats: forks so far, too few to decide.
        level: of the interval.
    """
    mostly_jump = 2 * num_jumps >= num_repeats
    total = num_repeats
    while _frequency(num_jumps + (total - num_repeats if mostly_jump else 0), total, level) == "undecided":
        total += 1
    return total


# The verdict


class Cause(NamedTuple):
    """A cause to ask for: if this variant's forks no longer jump, then the follow-up's say which of two it was."""

    variant: Variant
    if_gone: Verdict
    follow_up: Variant | None = None
    if_follow_up_gone: Verdict = "not decided"


CAUSES: Sequence[Cause] = (
    Cause("noise", "noise, not its extremes", "epsilon5", "extreme epsilon"),
    Cause("batches", "batch content", "without-image", "batch content, image ID"),
    Cause("log-var-clamp", "logvar explosion"),
    Cause("clipped", "gradient spike"),
    Cause("fresh-moments", "optimizer state"),
)
"""In this order: the first whose variant is gone is the verdict."""


@dataclass(frozen=True)
class Decision:
    """A verdict and the variants that it rests on, in the order in which they were asked."""

    verdict: Verdict
    asked: tuple[Variant, ...]
    """The last one is the undecided one if the verdict is 'not decided'."""


def decide(outcomes: Mapping[Variant, Outcome]) -> Decision:
    """The first verdict that applies; 'not decided' where an outcome on the way to it is not known.

    Args:
        outcomes: of every variant that the source run can have: an AE has no noise and no log_var.
    """
    asked: list[Variant] = ["identical"]
    if outcomes["identical"] == "gone":
        return Decision("not reproducible", tuple(asked))
    if outcomes["identical"] != "persists":
        return Decision("not decided", tuple(asked))
    for cause in CAUSES:
        if cause.variant not in outcomes:
            continue
        asked.append(cause.variant)
        if outcomes[cause.variant] == "gone":
            return _cause_found(cause, outcomes, asked)
        if outcomes[cause.variant] != "persists":
            return Decision("not decided", tuple(asked))
    return Decision("the weights themselves", tuple(asked))


def _cause_found(cause: Cause, outcomes: Mapping[Variant, Outcome], asked: Sequence[Variant]) -> Decision:
    if cause.follow_up is None:
        return Decision(cause.if_gone, tuple(asked))
    verdicts: Mapping[Outcome, Verdict] = {"gone": cause.if_follow_up_gone, "persists": cause.if_gone}
    return Decision(verdicts.get(outcomes[cause.follow_up], "not decided"), (*asked, cause.follow_up))
