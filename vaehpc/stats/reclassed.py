"""Runs that releases before 0.3.0 judged otherwise: for studies that were planned by their rules.

They called a run diverged wherever it ended beyond the limit, and an onset the first probe after the burn-in above 1.5
times the one before ('abrupt') or beyond the limit ('drift').
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from vaehpc.schema.config import StudyConfig
from vaehpc.schema.plan import PlanConfig, values_of
from vaehpc.schema.results import RunClass, RunCourse
from vaehpc.stats.course import ProbeCurve
from vaehpc.stats.judging import Judgement
from vaehpc.stats.runs import FoundRun

NO_ONSET = "no onset"


def reclassed(config: StudyConfig, runs: Sequence[FoundRun], judgement: Judgement) -> tuple[str, ...] | None:
    """Each run whose class or onset differs, in words; None if the study was planned by today's rules."""
    if "course" in values_of(config.plan_text):
        return None
    found = []
    for run in runs:
        name, scale = run.config.name, judgement.controls[run.config.arm.name].scale
        limit = None if scale is None else config.plan.classes.diverged_factor * scale.centre
        before = (class_before(judgement.classes[name]), onset_before(run, limit, config.plan))
        now = (judgement.classes[name], onset_now(judgement.courses[name]))
        changes = [
            f"{old or 'missing'}, now {new or 'missing'}" for old, new in zip(before, now, strict=True) if old != new
        ]
        if changes:
            found.append(f"{name} ({'; '.join(changes)})")
    return tuple(found)


def class_before(run_class: RunClass | None) -> RunClass | None:
    """The class that it had."""
    return "diverged" if run_class == "displaced" else run_class


def onset_now(course: RunCourse) -> str:
    """'onset at step 400'."""
    return NO_ONSET if course.departed is None else f"onset at step {course.departed.step:,}"


def onset_before(run: FoundRun, limit: float | None, plan: PlanConfig) -> str:
    """'onset at step 400', by the rule of then."""
    curve = ProbeCurve(np.array([], np.int64), np.array([])) if run.probe is None else run.probe
    earlier = np.concatenate([[np.nan], curve.radius_medians[:-1]])
    left = curve.radius_medians > plan.probe.abrupt_factor * earlier
    if limit is not None:
        left |= curve.radius_medians > limit
    left &= curve.steps > run.config.burn_in
    return f"onset at step {curve.steps[np.argmax(left)]:,}" if left.any() else NO_ONSET
