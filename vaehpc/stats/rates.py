"""How many runs of an arm diverged, how each left, and the rates of its endpoints with their intervals and bounds."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Literal

import numpy as np

from vaehpc.schema.plan import Endpoint, PlanConfig
from vaehpc.schema.results import ArmSummary, How, RunSummary, Share
from vaehpc.stats.divergence import Control, control_scale, is_exploratory
from vaehpc.stats.intervals import CLOPPER_PEARSON, clopper_pearson, jeffreys, wilson

COUNTS: Mapping[Endpoint, Callable[[RunSummary], bool]] = {
    "diverged": lambda run: run.run_class == "diverged",
    "diverged or nonfinite": lambda run: run.run_class in ("diverged", "nonfinite"),
    "jumped": lambda run: run.course.first("jump") is not None,
    "jumped or nonfinite": lambda run: run.course.first("jump") is not None or run.run_class == "nonfinite",
}
"""Whether a run that ended counts for an endpoint."""
OF_CLASS: tuple[Endpoint, Endpoint] = ("diverged", "diverged or nonfinite")
OF_COURSE: tuple[Endpoint, Endpoint] = ("jumped", "jumped or nonfinite")


def is_known(run: RunSummary, endpoint: Endpoint) -> bool:
    """Whether a run ended and its outcome is known: behind a probe that was cut there may be a jump."""
    is_seen = endpoint in OF_CLASS or run.course.unknown_after is None or COUNTS[endpoint](run)
    return run.run_class is not None and is_seen


def summarise_arm(runs: Sequence[RunSummary], control: Control, plan: PlanConfig) -> ArmSummary:
    """Counts and rates of an arm.

    A rate is that of the runs that ended, and whose course is known where it is of jumps: count / num_ended. Had no
    other run counted it would be count / num_runs, had every one (count + num_runs - num_ended) / num_runs.

    Args:
        runs: every run of the arm, with those that are missing.
        control: what their classes are relative to.
        plan: the analysis plan.
    """
    ended = [run for run in runs if run.run_class is not None]
    classes = Counter(run.run_class for run in ended)
    reason = unjudged(ended, control, plan)
    endpoints = (*(OF_CLASS if reason is None else ()), *OF_COURSE)
    known = {endpoint: [run for run in ended if is_known(run, endpoint)] for endpoint in endpoints}
    shares = {endpoint: share(of, len(runs), endpoint, plan.level) for endpoint, of in known.items() if of}
    headline = shares.get("diverged")
    first_steps = [run.course.first_step for run in runs if run.course.first_step is not None]
    return ArmSummary(
        num_runs=len(runs),
        num_missing=len(runs) - len(ended),
        num_diverged=classes["diverged"],
        num_ever_diverged=sum(run.ever_diverged is True for run in ended),
        num_diverged_or_nonfinite=classes["diverged"] + classes["nonfinite"],
        num_nonfinite=classes["nonfinite"],
        num_shifted=classes["shifted"],
        num_collapsed=classes["collapsed"],
        num_displaced=classes["displaced"],
        num_unclassified=classes["unclassified"],
        diverged_how=dict(Counter(how(run) for run in ended if run.run_class == "diverged")),
        returned_how=dict(Counter(how(run) for run in ended if came_back(run))),
        num_nonfinite_after=sum(run.run_class == "nonfinite" and run.course.departed is not None for run in ended),
        num_jumped=sum(COUNTS["jumped"](run) for run in ended),
        num_excursions=sum(run.course.first("excursion") is not None for run in ended),
        num_far=sum(run.course.far is True for run in ended),
        first_step=min(first_steps, default=None),
        endpoints=shares,
        unjudged=reason,
        regular_factor=regular_factor(ended, control, plan) if classes["displaced"] else None,
        rate=headline and headline.rate,
        low=headline and headline.interval.low,
        high=headline and headline.interval.high,
        level=plan.level,
        method=CLOPPER_PEARSON,
        control=control.name,
        control_faults=dict(control.faults),
        provisional=control.num_runs < plan.classes.min_control_runs,
        exploratory=is_exploratory(control.scale, plan.classes),
        control_radius=control.scale and control.scale.centre,
        control_scatter=control.scale and control.scale.scatter,
    )


def unjudged(
    ended: Sequence[RunSummary], control: Control, plan: PlanConfig
) -> Literal["displaced", "too few", "unsound control", "unclassed"] | None:
    """Why the runs of an arm have no rate by their classes; None: they have, as soon as one has ended."""
    classes = Counter(run.run_class for run in ended)
    if control.scale is None:
        return "unclassed"
    if control.faults:
        return "unsound control"
    if classes["displaced"]:
        return "displaced"
    num_finite = len(ended) - classes["nonfinite"]
    early = any(run.run_class == "diverged" and how(run) == "early" for run in ended)
    return "too few" if early and num_finite < plan.classes.min_arm_runs else None


def came_back(run: RunSummary) -> bool:
    """Whether a run jumped or grew, and lies within the limits of divergence in the end."""
    within = ("collapsed", "shifted", "regular")
    return run.course.departed is not None and run.run_class in within


def how(run: RunSummary) -> How:
    """How a run left its control's radius."""
    if (departed := run.course.departed) is not None:
        return "jumped" if departed.kind == "jump" else "grew"
    if run.course.far:
        return "early"
    return "unconfirmed" if run.course.first("unconfirmed") is not None else "unseen"


def share(known: Sequence[RunSummary], num_runs: int, endpoint: Endpoint, level: float) -> Share:
    """Count, rate and intervals of one endpoint over runs whose outcome is known, at least one."""
    count, num_ended = sum(map(COUNTS[endpoint], known)), len(known)
    return Share(
        count=count,
        num_ended=num_ended,
        interval=clopper_pearson(count, num_ended, level),
        other_intervals=tuple(method(count, num_ended, level) for method in (wilson, jeffreys)),
        if_none_missing=count / num_runs,
        if_all_missing=(count + num_runs - num_ended) / num_runs,
    )


def regular_factor(ended: Sequence[RunSummary], control: Control, plan: PlanConfig) -> float | None:
    """How many times its control's radius an arm's own is; None where its runs scatter too much to have one."""
    radii = [run.radius_median for run in ended if run.radius_median is not None and math.isfinite(run.radius_median)]
    own = control_scale(radii, plan.classes)
    if own is None or control.scale is None or is_exploratory(own, plan.classes):
        return None
    return float(np.divide(own.centre, control.scale.centre))
