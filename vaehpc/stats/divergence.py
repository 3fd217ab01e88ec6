"""Which runs diverged: a run's median radius against those of its control, the AE arm that is equal otherwise.

With m = median of ln R over the control's runs, R = median ||mu||_2 over the images of a run, and d = ln R - m.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from vaehpc.schema.config import ArmConfig, DataConfig, ModelConfig
from vaehpc.schema.plan import ClassPlan, ProbePlan
from vaehpc.schema.results import RunClass

MAD_TO_SIGMA = 1.4826
"""The median absolute deviation times this estimates the standard deviation of a normal distribution."""


@dataclass(frozen=True)
class ControlScale:
    """What a run's radius is measured against.

    `centre` is exp(m), a radius: d = ln(R / centre) is exact where R is twice the centre, ln R - m rounds beyond ln 2.
    """

    centre: float
    scatter: float
    """s = max(1.4826 MAD, min_scatter) of ln R."""


@dataclass(frozen=True)
class Control:
    """What the classes of an arm are relative to."""

    name: str | None
    """The AE arm, 'article', or None."""
    scale: ControlScale | None
    """None where there is no control, or none of its runs is finite."""
    num_runs: int
    """Finite runs of the AE arm."""


def control_scale(radius_medians: Sequence[float], plan: ClassPlan) -> ControlScale | None:
    """Centre and scatter of the control's finite runs, without any at R = 0 (no logarithm); None if there is none."""
    logarithms = np.log([radius for radius in radius_medians if radius > 0])
    if not len(logarithms):
        return None
    m = np.median(logarithms)
    scatter = MAD_TO_SIGMA * float(np.median(np.abs(logarithms - m)))
    return ControlScale(centre=float(np.exp(m)), scatter=max(scatter, plan.min_scatter))


def article_scale(arm: ArmConfig, data: DataConfig, plan: ClassPlan) -> ControlScale | None:
    """The article's own radius, for a study without a control; None unless data, size and net are the article's."""
    is_the_articles = (
        not data.synthetic
        and data.image_size == plan.article_image_size
        and data.num_train == plan.article_num_train
        and arm.model == ModelConfig()
    )
    return ControlScale(centre=plan.article_radius, scatter=plan.min_scatter) if is_the_articles else None


def classify(radius_median: float, nonfinite: bool, scale: ControlScale | None, plan: ClassPlan) -> RunClass:
    """Class of a run that ended, by the first limit that applies.

    Args:
        radius_median: median ||mu||_2 over the training images at the end.
        nonfinite: whether a loss, weight or latent was NaN or infinite.
        scale: of the control, or the article's; None if there is neither.
        plan: limits.
    """
    if nonfinite:
        return "nonfinite"
    if scale is None:
        return "unclassified"
    ratio = radius_median / scale.centre
    if ratio > plan.diverged_factor:
        return "diverged"
    if ratio < 1 / plan.diverged_factor:
        return "collapsed"
    if abs(math.log(ratio)) > max(plan.shifted_limit, plan.shifted_scatter * scale.scatter):
        return "shifted"
    return "regular"


def is_exploratory(scale: ControlScale | None, plan: ClassPlan) -> bool:
    """Whether the controls scatter too much to tell 'shifted' from 'regular'."""
    return scale is not None and scale.scatter > plan.exploratory_scatter


def divergence_limit(scale: ControlScale | None, plan: ClassPlan) -> float | None:
    """The radius beyond which a run counts as diverged; None without a scale."""
    return None if scale is None else plan.diverged_factor * scale.centre


@dataclass(frozen=True)
class ProbeCurve:
    """Median ||mu||_2 of the probe images during training."""

    steps: npt.NDArray[np.int64]
    """(num_probes,), ascending, the plan's `every_steps` apart."""
    radius_medians: npt.NDArray[np.float64]
    """(num_probes,)."""

    def after_burn_in(self, plan: ProbePlan, steps_per_epoch: int) -> npt.NDArray[np.bool_]:
        """Which probes are later than burn_in_steps and than one epoch: before, a radius is still finding its place."""
        return self.steps > max(plan.burn_in_steps, steps_per_epoch)


def onset(
    curve: ProbeCurve, limit: float | None, steps_per_epoch: int, plan: ProbePlan
) -> tuple[int, Literal["abrupt", "drift"]] | None:
    """First probe after the burn-in at which a run left its radius, and how; None if it never did.

    'abrupt' if the median radius exceeds abrupt_factor times its value one probe earlier, else 'drift' if it exceeds
    the limit of divergence. Without a limit only a jump is seen.
    """
    earlier = np.concatenate([[np.nan], curve.radius_medians[:-1]])
    abrupt = curve.radius_medians > plan.abrupt_factor * earlier
    beyond = curve.radius_medians > (math.inf if limit is None else limit)
    left = (abrupt | beyond) & curve.after_burn_in(plan, steps_per_epoch)
    if not left.any():
        return None
    first = int(np.argmax(left))
    return int(curve.steps[first]), "abrupt" if abrupt[first] else "drift"


def ever_diverged(
    curve: ProbeCurve, final_radius: float, limit: float | None, steps_per_epoch: int, plan: ProbePlan
) -> bool | None:
    """Whether a probe after the burn-in, or the radius at the end, lies beyond the limit; None without a limit."""
    if limit is None:
        return None
    settled = curve.radius_medians[curve.after_burn_in(plan, steps_per_epoch)]
    return bool((settled > limit).any()) or final_radius > limit
