"""The course of a run's radius during training: where it began, and when it left.

R_t is the median ||mu||_2 of the probe at step t, m_t the median of ln R_t over the control's runs, d_t = ln R_t - m_t:
growth that the control shares is none of the run's own. b_t is the second largest d of the last probes before t. After
the burn-in a run *jumps* at t if d_t > b_t + ln 1.5 and so does the median of the five d from t on, or of all that are
left (of an even number the lower middle one, so that most of them do). What does not last is an *excursion*. Without a
sound control m_t = 0, and ln R_t is compared with itself.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np
import numpy.typing as npt

from vaehpc.schema.plan import PlanConfig
from vaehpc.schema.results import CourseMark, RunCourse

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True)
class ProbeCurve:
    """Median ||mu||_2 of the probe images during training."""

    steps: npt.NDArray[np.int64]
    """(num_probes,), ascending, the plan's `every_steps` apart."""
    radius_medians: FloatArray
    """(num_probes,)."""


@dataclass(frozen=True)
class SharedCourse:
    """m_t: what the control's runs have in common."""

    steps: npt.NDArray[np.int64]
    """(num_steps,), ascending, at which any of them was probed."""
    log_radii: FloatArray
    """(num_steps,), median over those that were."""

    @classmethod
    def of(cls, curves: Sequence[ProbeCurve]) -> SharedCourse:
        """The median of ln R over these runs, probe by probe; empty without any."""
        known: dict[int, list[float]] = {}
        for curve in curves:
            for step, radius in zip(curve.steps.tolist(), curve.radius_medians.tolist(), strict=True):
                if radius > 0 and math.isfinite(radius):
                    known.setdefault(step, []).append(math.log(radius))
        steps = sorted(known)
        medians = [float(np.median(known[step])) for step in steps]
        return cls(np.array(steps, np.int64), np.array(medians, np.float64))

    def at(self, steps: npt.NDArray[np.int64]) -> FloatArray:
        """m_t at these steps: of the last probe not later, of the first one before it; 0 where there is none."""
        if not len(self.steps):
            return np.zeros(len(steps))
        return self.log_radii[np.maximum(np.searchsorted(self.steps, steps, side="right") - 1, 0)]


TIE = 1e-9
"""Of logarithms that are equal but for rounding: a radius of exactly 1.5 times another is no jump."""

NOTHING_SHARED = SharedCourse(np.array([], np.int64), np.array([], np.float64))
"""m_t = 0."""


def follow(
    curve: ProbeCurve,
    shared: SharedCourse,
    limits: FloatArray | None,
    is_far: bool | None,
    burn_in: int,
    plan: PlanConfig,
) -> RunCourse:
    """What a run's radius did after the burn-in.

    Args:
        curve: of the run; a probe that is not finite ends it.
        shared: what is no growth of its own.
        limits: (num_probes,), the radius beyond which it grew, at each probe; None without a control.
        is_far: whether it was far from its control at the first probe, and so cannot grow away; None: not known.
        burn_in: steps that are not looked at.
        plan: the analysis plan.
    """
    radii = curve.radius_medians[: num_finite(curve)]
    steps = curve.steps[: len(radii)]
    after = steps > burn_in
    if not after.any():
        return RunCourse(far=is_far)
    first = int(np.argmax(after))
    marks = departures(steps, np.log(radii) - shared.at(steps), after, plan)
    if limits is not None and not is_far:
        marks += _growth(steps, radii / limits[: len(radii)], first, marks, plan)
    if any(mark.kind == "jump" and mark.step == steps[first] for mark in marks):
        is_far = None if is_far is None else False  # it came there by that jump
    return RunCourse(first_step=int(steps[first]), far=is_far, marks=tuple(sorted(marks, key=lambda mark: mark.step)))


def departures(
    steps: npt.NDArray[np.int64], d: FloatArray, searched: npt.NDArray[np.bool_], plan: PlanConfig
) -> list[CourseMark]:
    """Jumps and excursions of d among the searched probes, each (num_probes,)."""
    course = plan.course
    base = np.array([_base(steps, d, at, plan) for at in range(len(d))])
    limit = base + math.log(course.jump_factor) + TIE
    beyond = searched & (d > limit)  # a comparison with NaN is false
    marks = []
    for is_beyond, group in groupby(range(len(d)), key=lambda at: bool(beyond[at])):
        if not is_beyond:
            continue
        places = list(group)
        lasting = [at for at in places if lower_median(d[at : at + course.lasting_probes]) > limit[at]]
        at = lasting[0] if lasting else places[0]
        kind = "excursion" if not lasting else "unconfirmed" if at == len(d) - 1 else "jump"
        marks.append(
            CourseMark(
                kind=kind,
                step=int(steps[at]),
                after=int(steps[at - 1]),
                factor=math.exp(d[at] - base[at]),
                gap=bool(steps[at] - steps[at - 1] > plan.probe.every_steps),
            )
        )
    return marks


def lower_median(values: FloatArray) -> float:
    """The median, of an even number the lower of the two: more than half of them are not below."""
    return float(np.sort(values)[(len(values) - 1) // 2])


def num_finite(curve: ProbeCurve) -> int:
    """Probes before the first that has no logarithm."""
    lost = ~(np.isfinite(curve.radius_medians) & (curve.radius_medians > 0))
    return int(np.argmax(lost)) if lost.any() else len(lost)


def _base(steps: npt.NDArray[np.int64], d: FloatArray, at: int, plan: PlanConfig) -> float:
    """b_t: from where a run may jump; NaN where too few probes are near enough."""
    course = plan.course
    oldest = steps[at] - course.base_intervals * plan.probe.every_steps
    earlier = slice(max(at - course.base_probes, 0), at)
    near = np.sort(d[earlier][steps[earlier] >= oldest])
    return float(near[-course.base_rank]) if len(near) >= course.min_base_probes else math.nan


def _growth(
    steps: npt.NDArray[np.int64], ratios: FloatArray, first: int, marks: Sequence[CourseMark], plan: PlanConfig
) -> list[CourseMark]:
    """The first of several probes running beyond the limit, before any jump, confirmed or not; none, or one."""
    until = min((mark.step for mark in marks if mark.kind in ("jump", "unconfirmed")), default=math.inf)
    for at in range(first, len(steps)):
        if steps[at] < until and (ratios[at : at + plan.course.growth_probes] > 1 + TIE).all():
            step, after = int(steps[at]), int(steps[max(at - 1, 0)])
            gap = step - after > plan.probe.every_steps
            return [CourseMark(kind="growth", step=step, after=after, factor=float(ratios[at]), gap=gap)]
    return []
