"""Every run of a study judged: its course, its class, and whether the control that both are relative to is sound."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from vaehpc.schema.config import StudyConfig
from vaehpc.schema.plan import PlanConfig
from vaehpc.schema.results import RunClass, RunCourse
from vaehpc.stats.course import NOTHING_SHARED, TIE, SharedCourse, follow, num_finite
from vaehpc.stats.divergence import (
    ArmEnds,
    Control,
    arm_ends,
    article_scale,
    classify,
    control_scale,
    is_displaced,
    log_median,
)
from vaehpc.stats.runs import FoundRun, MeasuredRun


@dataclass(frozen=True)
class Judgement:
    """A study's runs under one plan."""

    controls: Mapping[str, Control]
    """By arm."""
    classes: Mapping[str, RunClass | None]
    """By name of the run; None: missing."""
    courses: Mapping[str, RunCourse]
    """By name of the run."""


def judge(config: StudyConfig, runs: Sequence[FoundRun], plan: PlanConfig) -> Judgement:
    """Controls, courses and classes of all runs.

    Args:
        config: the study; its own plan does not matter here.
        runs: every run of it.
        plan: by which they are judged.
    """
    of_arms = {name: [run for run in runs if run.config.arm.name == name] for name in config.arms}
    names = {name: config.control_of(name) for name in config.arms}
    found = {name: arm_as_control(name, of_arms[name], plan) for name in dict.fromkeys(names.values()) if name}
    controls, classes, courses = dict[str, Control](), dict[str, RunClass | None](), dict[str, RunCourse]()
    for arm, of_arm in of_arms.items():
        name = names[arm]
        control = _by_article(config, arm, plan) if name is None else found[name]
        controls[arm] = control
        of_runs = followed(of_arm, control, control.taken_away, plan)
        courses |= of_runs
        ends = ends_of(of_arm, of_runs)
        classes |= {run.config.name: class_of(run, of_runs[run.config.name], ends, control, plan) for run in of_arm}
    return Judgement(controls, classes, courses)


def class_of(run: FoundRun, course: RunCourse, ends: ArmEnds, control: Control, plan: PlanConfig) -> RunClass | None:
    """Class of a run; None if it is missing."""
    if not isinstance(run, MeasuredRun):
        return None
    radius = run.statistics.radius_mu.median
    displaced = not run.is_nonfinite and is_displaced(radius, course, ends, plan.classes)
    return classify(radius, run.is_nonfinite, control.scale, plan.classes, displaced)


def ends_of(runs: Sequence[FoundRun], courses: Mapping[str, RunCourse]) -> ArmEnds:
    """Where the finite runs of an arm lie."""
    finite = finite_runs(runs)
    radii = [run.statistics.radius_mu.median for run in finite]
    return arm_ends(radii, [courses[run.config.name].far is True for run in finite])


def finite_runs(runs: Sequence[FoundRun]) -> list[MeasuredRun]:
    """Runs that ended with finite latents and a radius that has a logarithm."""
    measured = [run for run in runs if isinstance(run, MeasuredRun) and not run.is_nonfinite]
    return [run for run in measured if run.statistics.radius_mu.median > 0]


# Courses


def followed(
    runs: Sequence[FoundRun], control: Control, shared: SharedCourse, plan: PlanConfig
) -> dict[str, RunCourse]:
    """The course of each run of an arm, by its name."""
    starts = {run.config.name: _start(run) for run in runs}
    known = [start[1] for start in starts.values() if start is not None]
    of_arm = math.log(log_median(known)) if known else math.nan
    return {
        run.config.name: course_of(run, control, shared, _is_far(starts[run.config.name], control, of_arm, plan), plan)
        for run in runs
    }


def course_of(
    run: FoundRun, control: Control, shared: SharedCourse, is_far: bool | None, plan: PlanConfig
) -> RunCourse:
    """What the radius of a run did, and from where on nobody knows."""
    if run.probe is None:
        return RunCourse()
    limits = None
    if control.scale is not None:
        of_control = np.full(len(run.probe.steps), control.scale.centre)
        if len(shared.steps):
            of_control = np.maximum(of_control, np.exp(shared.at(run.probe.steps)))
        limits = plan.classes.diverged_factor * of_control
    course = follow(run.probe, shared, limits, is_far, run.config.burn_in, plan)
    last = int(run.probe.steps[-1]) if len(run.probe.steps) else 0
    if isinstance(run, MeasuredRun) and last_finite_step(run) - last >= plan.probe.every_steps:
        return course.model_copy(update={"unknown_after": last})
    return course


def last_finite_step(run: MeasuredRun) -> int:
    """Steps up to which a run was finite."""
    return run.trained.step if run.trained.nonfinite_step is None else run.trained.nonfinite_step


def _start(run: FoundRun) -> tuple[int, float] | None:
    """Step and radius of the first probe after the burn-in; None if there is none."""
    if run.probe is None:
        return None
    after = run.probe.steps[: num_finite(run.probe)] > run.config.burn_in
    if not after.any():
        return None
    at = int(np.argmax(after))
    return int(run.probe.steps[at]), float(run.probe.radius_medians[at])


def _is_far(start: tuple[int, float] | None, control: Control, of_arm: float, plan: PlanConfig) -> bool | None:
    """Whether a run lies far from its control at its first probe after the burn-in, where the arm's others may be too.

    The article gives no course: there it is the radius at the end.
    """
    if start is None or control.scale is None:
        return None
    step, log_radius = start[0], math.log(start[1])
    of_control = math.log(control.scale.centre)
    if len(control.shared.steps):
        of_control = float(control.shared.at(np.array([step]))[0])
    d, limits = log_radius - of_control - TIE, plan.classes
    is_near_arm = abs(log_radius - of_arm) <= math.log(limits.displaced_factor)
    return d > math.log(limits.diverged_factor) or (d > math.log(limits.far_factor) and is_near_arm)


# Controls


def _by_article(config: StudyConfig, arm: str, plan: PlanConfig) -> Control:
    scale = article_scale(config.arms[arm], config.data, plan.classes)
    return Control(None if scale is None else "article", scale, num_runs=0)


def arm_as_control(name: str, runs: Sequence[FoundRun], plan: PlanConfig) -> Control:
    """An AE arm as the control of others, and what makes it unsound.

    Where it has few runs their median is too much each run's own to be taken away from it.
    """
    finite = finite_runs(runs)
    scale = control_scale([run.statistics.radius_mu.median for run in finite], plan.classes)
    curves = [run.probe for run in runs if run.probe is not None and len(run.probe.steps)]
    control = Control(name, scale, len(finite), SharedCourse.of(curves))
    if scale is None:
        return control
    own = control.shared if len(curves) >= plan.classes.min_arm_runs else NOTHING_SHARED
    return replace(control, faults=faults(runs, followed(runs, control, own, plan), control, plan))


def faults(
    runs: Sequence[FoundRun], courses: Mapping[str, RunCourse], control: Control, plan: PlanConfig
) -> dict[str, str]:
    """Runs for which a control is not sound, and what each did.

    None may end beyond the limits of divergence or collapse, or grow. Of those that are not finite, or jumped and came
    back, few move no median: they are faults where they are more than the plan allows.
    """
    assert control.scale is not None
    found, few = dict[str, str](), dict[str, str]()
    for run in runs:
        name, departed = run.config.name, courses[run.config.name].departed
        if isinstance(run, MeasuredRun):
            ended = classify(run.statistics.radius_mu.median, run.is_nonfinite, control.scale, plan.classes)
            if ended in ("diverged", "collapsed"):
                found[name] = ended
            elif ended == "nonfinite":
                few[name] = ended
        if name not in found and name not in few and departed is not None:
            (found if departed.kind == "growth" else few)[name] = "grew" if departed.kind == "growth" else "jumped"
    num_ended = sum(isinstance(run, MeasuredRun) for run in runs)
    allowed = plan.classes.most_departed * num_ended
    kinds = Counter(few.values())
    return found | {name: what for name, what in few.items() if kinds[what] > allowed}
