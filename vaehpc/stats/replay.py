"""Whether the forks of a run leave as it did, how often, and what that says about the cause.

An event is a jump of R, the probe's median ||mu||_2, by the course's rule (vaehpc.stats.course, with nothing taken
away: forks have no control), or a loss that is not finite. A fork has an event if it shows either kind between its
start and its end; the two are counted apart, one that shows both as not finite. It is compared with itself: its base
b_t is made of its own probes since it started, and of the source run's before. A treated fork that left before the run
was calm for the last time was thrown by the treatment and is not counted.

Every variant has K forks, each with new noise, or without any new batches; `batches` of a VAE has new batches and the
run's own noise. Those with nothing else changed are the untreated ones. Fork k has the same new noise in every
variant. Two comparisons are asked in this order:

1. *The untreated forks against a half, and against null forks*, which start where the run was calm. Event gone: the
   interval of their share lies under a half, so the run needed the noise that it had. Event persists: they have it more
   often than the null forks (Boschloo, one-sided, p < alpha), whose interval lies under a half; without null forks,
   their interval lies above a half. Otherwise nothing is known of the state that they start from: with null forks no
   treatment is judged then, for it could only remove what happens anywhere.
2. *Each treatment against the untreated forks*, whatever their own share. Event gone: fewer (Boschloo, one-sided, p <
   alpha over the number of treatments), and fewer than half of the treated forks have it: what merely makes events
   rarer is not the cause. Of treatments that do nothing one is so called a cause with a chance of alpha at most.
   Persists: the interval lies above a half.

The first cause in the order of a step's computation whose treatment removes the event is the verdict. A treatment that
is undecided or was not run hides no later one that is decided, but one with missing forks does.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Literal, NamedTuple

import numpy as np

from vaehpc.schema.config import NullWindow, ReplayConfig
from vaehpc.schema.plan import PlanConfig, ReplayPlan
from vaehpc.schema.results import CourseMark, Ending, Outcome, ReplayResult, Variant, VariantResult, Verdict
from vaehpc.stats.contrasts import boschloo
from vaehpc.stats.course import ProbeCurve, departures
from vaehpc.stats.intervals import clopper_pearson

LIMIT = 5.0
"""Of |epsilon|, the article's remedy, and of log_var."""


BUILD_UP = 50
"""Steps before one that is not finite in which the run may be leaving already: those seen took some twenty."""


# Events


@dataclass(frozen=True)
class RunEvent:
    """A run left where it was."""

    kind: Literal["jump", "nonfinite"]
    step: int
    """Steps done at the first probe that saw the jump; the first step, counted from 0, that was not finite."""
    after: int
    """Steps done at the last probe before that is not beyond the jump's limit; of nonfinite, at the last BUILD_UP steps
    before; 0: there was none."""


def run_events(curve: ProbeCurve, nonfinite_step: int | None, burn_in: int, plan: PlanConfig) -> list[RunEvent]:
    """Jumps after the burn-in, one that the last probe alone saw among them, and the step that was not finite."""
    usable = np.isfinite(curve.radius_medians) & (curve.radius_medians > 0)
    usual = ProbeCurve(curve.steps[usable], curve.radius_medians[usable])
    marks = departures(usual.steps, np.log(usual.radius_medians), usual.steps > burn_in, plan)
    jumps = [mark for mark in marks if mark.kind in ("jump", "unconfirmed")]
    found = [RunEvent("jump", mark.step, _last_within(usual, mark, plan)) for mark in jumps]
    if nonfinite_step is not None:
        found.append(RunEvent("nonfinite", nonfinite_step, last_probe(usual, nonfinite_step - BUILD_UP)))
    return sorted(found, key=lambda event: event.step)


def _last_within(curve: ProbeCurve, jump: CourseMark, plan: PlanConfig) -> int:
    """Steps done at the last probe before whose R is no jump from the same base: a run may have left in the burn-in."""
    limit = curve.radius_medians[curve.steps == jump.step][0] / jump.factor * plan.course.jump_factor
    within = (curve.steps < jump.step) & (curve.radius_medians <= limit)
    return int(curve.steps[within].max())


def last_probe(curve: ProbeCurve, step: int) -> int:
    """Steps done at the last probe that is not later; 0 if there is none."""
    return int(curve.steps[curve.steps <= step].max(initial=0))


def until_step(event: RunEvent, num_steps: int, plan: PlanConfig) -> int:
    """Where the forks end: so many probes after the one that saw the event as a jump has to last, or the run's last."""
    every = plan.probe.every_steps
    seen = event.step if event.kind == "jump" else -(-(event.step + 1) // every) * every
    until = min(seen + (plan.course.lasting_probes - 1) * every, num_steps // every * every)
    return until if event.kind == "jump" else max(until, event.step + 1)


def farthest_radius(curve: ProbeCurve, calm_step: int, until_step: int) -> float:
    """R of the probe after the calm one, up to the last, whose ln R is farthest from R there."""
    calm = float(curve.radius_medians[curve.steps == calm_step][0])
    radii = curve.radius_medians[(curve.steps > calm_step) & (curve.steps <= until_step)]
    return max((float(radii.max()), float(radii.min())), key=lambda radius: _factor(calm, radius))


def _factor(calm: float, radius: float) -> float:
    smaller, larger = sorted((calm, radius))
    return larger / smaller if smaller > 0 else math.inf


def null_window(
    curve: ProbeCurve, kept: Sequence[int], length: int, before: int, plan: PlanConfig
) -> NullWindow | None:
    """The window of the null forks: from the last kept state on whose next `length` steps were calm.

    Args:
        curve: of the source run.
        kept: steps done at the checkpoints that there are.
        length: of the forks, in steps.
        before: steps done at the last calm probe, or where the forks start if that is later: it ends there at last.
        plan: how calm it must be. Fewer probes before a state than a jump's base needs could show no jump.
    """
    for step in sorted(kept, reverse=True):
        within = (curve.steps >= last_probe(curve, step)) & (curve.steps <= step + length)
        radii = curve.radius_medians[within]
        has_base = (curve.steps <= step).sum() >= plan.course.min_base_probes
        if step + length > before or not has_base or len(radii) < 2:
            continue
        if (moved := _factor(float(radii.max()), float(radii.min()))) < plan.replay.calm_factor:
            return NullWindow(step=step, until_step=step + length, moved=moved)
    return None


def fork_ending(
    curve: ProbeCurve,
    nonfinite_step: int | None,
    replay: ReplayConfig,
    variant: Variant,
    burn_in: int,
    plan: PlanConfig,
) -> Ending:
    """What became of a fork.

    Args:
        curve: of the fork, with the source run's probes before its start.
        nonfinite_step: its first step whose loss was not finite, or None.
        replay: what is replayed.
        variant: of the fork.
        burn_in: steps in which a radius is still finding its place.
        plan: the analysis plan.
    """
    window = replay if variant != "null" or replay.null is None else replay.null
    events = run_events(curve, nonfinite_step, burn_in, plan)
    after = [event for event in events if window.step < event.step + (event.kind == "nonfinite")]
    calm = None if variant == "null" or (replay.calm_step or 0) <= replay.step else replay.calm_step
    if not after:
        return "stayed" if calm is None or calm in curve.steps else "not comparable"
    if calm is not None and variant not in UNTREATED and after[0].step <= calm:
        return "thrown"
    return "jump" if nonfinite_step is None else "nonfinite"


# Outcomes


UNTREATED: Collection[Variant] = ("identical", "noise", "batches", "null")
"""Variants that change no more than what is drawn."""


class Tally(NamedTuple):
    """Forks of a variant."""

    events: int
    compared: int
    missing: int = 0
    own: int = 0
    """Events of the source run's own kind, a jump or NaN."""


NO_FORKS = Tally(0, 0)


def least_repeats(level: float) -> int:
    """Fewest repeats that can decide: 0 of n lies below 0.5 if 1 - (alpha / 2)^(1 / n) < 0.5."""
    return math.floor(math.log2(2 / (1 - level))) + 1


def outcome_of_untreated(forks: Tally, null: Tally, level: float, plan: ReplayPlan) -> Outcome:
    """Whether the run leaves whatever is drawn, and more often from there than from where it was calm."""

    def outcome(of: Tally, of_null: Tally) -> Outcome:
        share = share_outcome(of, level)
        if share == "gone" or not of_null.compared:
            return share
        return "persists" if is_specific(of, of_null, level, plan) else "undecided"

    return _wherever_missing(outcome, forks, null)


def is_specific(forks: Tally, null: Tally, level: float, plan: ReplayPlan) -> bool:
    """Whether forks have the event more often than null forks, of which fewer than half have it."""
    is_rare = share_outcome(null, level) == "gone"
    return is_rare and boschloo(*forks[:2], *null[:2], "greater") < plan.alpha


def outcome_of_treated(forks: Tally, untreated: Tally, num_treatments: int, level: float, plan: ReplayPlan) -> Outcome:
    """Whether a treatment, one of so many, removes the event that untreated forks have."""
    alpha = plan.alpha / num_treatments

    def outcome(of: Tally, of_untreated: Tally) -> Outcome:
        if share_outcome(of, level) == "persists":
            return "persists"
        fewer = of_untreated.compared > 0 and boschloo(*of[:2], *of_untreated[:2], "less") < alpha
        if not fewer or 2 * of.events >= of.compared:
            return "undecided"
        # As a clamp that turns NaN into jumps, of a run that jumped.
        is_own_rarer = not of.own or of.own * of_untreated.compared < of_untreated.own * of.compared
        return "gone" if is_own_rarer else "other kind"

    return _wherever_missing(outcome, forks, untreated)


def share_outcome(forks: Tally, level: float) -> Outcome:
    """Whether the interval of a share lies above a half, below, or on both sides."""
    if not forks.compared:
        return "undecided"
    interval = clopper_pearson(forks.events, forks.compared, level)
    if interval.low > 0.5:
        return "persists"
    return "gone" if interval.high < 0.5 else "undecided"


def _wherever_missing(outcome: Callable[[Tally, Tally], Outcome], forks: Tally, others: Tally) -> Outcome:
    """The outcome if it is the same whether none or all of the missing forks have the event; else 'missing'."""
    possible = {outcome(*corner) for corner in product(_corners(forks), _corners(others))}
    return possible.pop() if len(possible) == 1 else "missing"


def _corners(tally: Tally) -> list[Tally]:
    total = tally.compared + tally.missing
    possible = {(0, 0), (tally.missing, 0), (tally.missing, tally.missing)}
    return [Tally(tally.events + added, total, own=tally.own + own) for added, own in possible]


def outcome_of_equals(num_events: int, num_repeats: int, num_missing: int) -> Outcome:
    """Of identical forks: 'persists' if every one has the event, 'gone' as soon as one has not."""
    if num_events + num_missing < num_repeats:
        return "gone"
    return "missing" if num_missing else "persists"


MOST_TIMES = 8
"""As many forks as there are: beyond it, more of them are no advice."""


def times_to_decide(outcome: Callable[[Tally, Tally], Outcome], forks: Tally, others: Tally) -> int | None:
    """How many times as many forks decide if the shares stay as they are; None: MOST_TIMES do not.

    Those that they are compared with are as many then, or as many as there are.
    """

    def grown(tally: Tally, total: int) -> Tally:
        if tally.compared >= total or not tally.compared:
            return tally
        events, own = (round(of * total / tally.compared) for of in (tally.events, tally.own))
        return Tally(events, total, own=own)

    for times in range(2, MOST_TIMES + 1):
        total = times * forks.compared
        if outcome(grown(forks, total), grown(others, total)) != "undecided":
            return times
    return None


# The verdict


CAUSES: Sequence[tuple[Variant, Verdict]] = (
    ("epsilon5", "extreme epsilon"),
    ("without-image", "batch content, image ID"),
    ("batches", "batch content"),
    ("log-var-clamp", "logvar explosion"),
    ("clipped", "gradient spike"),
    ("fresh-moments", "optimizer state"),
)
"""In this order: the first whose variant is gone is the verdict."""


@dataclass(frozen=True)
class Decision:
    """A verdict and the variants that it rests on, in the order in which they were asked."""

    verdict: Verdict
    asked: tuple[Variant, ...]
    """The last one gave the verdict; of 'not decided', it is the one that is open."""


def untreated_variant(variants: Collection[Variant]) -> Variant:
    """The variant in which only what is drawn is new: noise, without any batches."""
    return "noise" if "noise" in variants else "batches"


def decide(outcomes: Mapping[Variant, Outcome], has_null: bool, epsilon_max: float | None = None) -> Decision:
    """The first verdict that applies.

    Args:
        outcomes: of every variant that the source run can have: an AE has no noise and no log_var.
        has_null: whether the untreated forks were compared with null forks.
        epsilon_max: largest |epsilon| of the run up to the event; None: not known.
    """
    asked: list[Variant] = ["identical"]
    if outcomes["identical"] != "persists":
        return Decision("not reproducible" if outcomes["identical"] == "gone" else "not decided", tuple(asked))
    untreated = untreated_variant(outcomes)
    asked.append(untreated)
    if outcomes[untreated] == "gone":
        if untreated == "batches":
            return Decision("batch content", tuple(asked))
        within = epsilon_max is not None and epsilon_max <= LIMIT
        return Decision("noise, not its extremes" if within else "noise", tuple(asked))
    if outcomes[untreated] in OPEN or (has_null and outcomes[untreated] == "undecided"):
        return Decision("not decided", tuple(asked))
    open_ = [untreated] if outcomes[untreated] == "undecided" else []
    for variant, verdict in CAUSES:
        outcome = outcomes.get(variant)
        # Of some events nobody knows an image to leave out.
        if outcome is None or variant == untreated or (variant == "without-image" and outcome == "not run"):
            continue
        asked.append(variant)
        if outcome == "gone":
            return Decision(verdict, tuple(asked))
        if outcome == "missing":
            return Decision("not decided", tuple(asked))
        if outcome in ("undecided", "not run", "other kind"):
            open_.append(variant)
    if open_:
        last = min(open_, key=lambda variant: outcomes[variant] == "not run")
        return Decision("not decided", (*(variant for variant in asked if variant != last), last))
    return Decision("the weights themselves", tuple(asked))


OPEN: Collection[Outcome] = ("not run", "missing")


# Words


def event_counts(of: VariantResult, was_nonfinite: bool) -> str:
    """'3 of 12 jump', '2 of 12 become NaN', '3 of 12 jump, 2 become NaN'; of none, the kind of the run's own event."""
    both = [(of.num_jumps, "jump"), (of.num_nonfinite, "become NaN")]
    said = [(count, verb) for count, verb in both if count] or [(0, both[was_nonfinite][1])]
    (first, verb), *more = said
    return ", ".join([f"{first} of {of.num_compared} {verb}", *(f"{count} {verb}" for count, verb in more)])


def verdict_line(result: ReplayResult, says_start: bool = False) -> str:
    """'(NaN at step 85: gradient spike; forks with new noise, gradient norm limited to 4.1: 0 of 12 become NaN; with
    new noise: 3 of 12 jump, 8 become NaN)': the event, and treated and untreated forks by what was changed in them.

    Of one of several replays of a run, with the step from which it was forked.
    """
    replay = result.replay
    of_event = [] if replay.event_step is None else [event_words(replay)]
    start = [f"forked from step {replay.step:,}"] if says_start or not of_event else []
    verdict = f"{', '.join([*of_event, *start])}: {result.verdict}"
    by_name = {of.variant: of for of in result.variants}
    found = by_name.get(result.rests_on) if result.rests_on else None
    if found is None or not found.num_repeats:
        return f"({verdict})"
    told, untreated = [found], by_name.get(untreated_variant(by_name))
    if untreated is not None and untreated.num_repeats and found.variant not in ("identical", untreated.variant):
        told.append(untreated)
    was_nonfinite = replay.jumped_radius is None
    counts = [f"with {_changed(of)}: {event_counts(of, was_nonfinite)}" for of in told]
    return f"({verdict}; forks {'; '.join(counts)})"


def _changed(of: VariantResult) -> str:
    return "nothing changed" if of.variant == "identical" else of.changed or of.variant


def event_words(replay: ReplayConfig) -> str:
    """'jump seen at step 60', 'NaN at step 85': which of a run's events is replayed."""
    return f"{'NaN' if replay.jumped_radius is None else 'jump seen'} at step {replay.event_step:,}"
