"""Which runs diverged: a run's median radius against those of its control, the AE arm that is equal otherwise.

With m = median of ln R over the control's runs, R = median ||mu||_2 over the images of a run, and d = ln R - m.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from vaehpc.schema.config import ArmConfig, DataConfig, ModelConfig, TrainConfig, VaeConfig
from vaehpc.schema.plan import ClassPlan
from vaehpc.schema.results import RunClass, RunCourse
from vaehpc.stats.course import NOTHING_SHARED, SharedCourse

FloatArray = npt.NDArray[np.float64]

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
    """What the classes and courses of an arm are relative to."""

    name: str | None
    """The AE arm, 'article', or None."""
    scale: ControlScale | None
    """None where there is no control, or none of its runs is finite."""
    num_runs: int
    """Finite runs of the AE arm."""
    shared: SharedCourse = NOTHING_SHARED
    """The course of its runs, sound or not."""
    faults: Mapping[str, str] = field(default_factory=dict)
    """Runs for which it is not sound, and what each did."""

    @property
    def is_sound(self) -> bool:
        """Whether its runs' ends and courses say what a run does that does not leave."""
        return self.scale is not None and not self.faults

    @property
    def taken_away(self) -> SharedCourse:
        """m_t of a run's course: nothing without a sound control."""
        return self.shared if self.is_sound else NOTHING_SHARED


def control_scale(radius_medians: Sequence[float], plan: ClassPlan) -> ControlScale | None:
    """Centre and scatter of the control's finite runs, without any at R = 0 (no logarithm); None if there is none."""
    radii = np.array([radius for radius in radius_medians if radius > 0])
    if not len(radii):
        return None
    centre = log_median(radii)
    scatter = MAD_TO_SIGMA * float(np.median(np.abs(np.log(radii / centre))))
    return ControlScale(centre=centre, scatter=max(scatter, plan.min_scatter))


def log_median(radii: Sequence[float] | FloatArray) -> float:
    """exp of the median of ln R, and exactly R where the two in the middle are equal: a tie is no departure."""
    ordered = np.sort(radii)
    return math.sqrt(ordered[(len(ordered) - 1) // 2] * ordered[len(ordered) // 2])


ARTICLES_TRAINING = ("learning_rate", "epochs", "batch_size", "beta_1", "beta_2", "adam_epsilon", "weight_decay")
"""Settings of a training in which one with the article's radius is the article's."""


def article_scale(arm: ArmConfig, data: DataConfig, plan: ClassPlan) -> ControlScale | None:
    """The article's own radius, for a study without a control; None unless data, net and training are the article's.

    Of what its text names: learning rate, epochs, batch size and the weight of the KL loss; Adam as Keras has it.
    """
    articles, own = TrainConfig(), arm.train
    is_the_articles = (
        not (data.synthetic or data.photographs)
        and data.image_size == plan.article_image_size
        and data.num_train == plan.article_num_train
        and arm.model == ModelConfig()
        and all(getattr(own, name) == getattr(articles, name) for name in ARTICLES_TRAINING)
        and (arm.vae is None or arm.vae.kl_weight == VaeConfig().kl_weight)
    )
    return ControlScale(centre=plan.article_radius, scatter=plan.min_scatter) if is_the_articles else None


@dataclass(frozen=True)
class ArmEnds:
    """Where the finite runs of an arm lie in the end."""

    centre: float
    """Median of their median radii."""
    num_finite: int
    share_far: float
    """Of them, far from the control at the first probe after the burn-in."""


def arm_ends(radii: Sequence[float], far: Sequence[bool]) -> ArmEnds:
    """Of an arm's finite runs: median radius at the end, and whether each was far from the start."""
    if not radii:
        return ArmEnds(math.nan, 0, 0.0)
    return ArmEnds(log_median(radii), len(radii), sum(far) / len(far))


def is_displaced(radius_median: float, course: RunCourse, ends: ArmEnds, plan: ClassPlan) -> bool:
    """Whether a run beyond the limit lies where its arm does from the start, and so has not left anything."""
    return (
        course.far is True
        and course.departed is None
        and ends.num_finite >= plan.min_arm_runs
        and ends.share_far >= plan.displaced_share
        and abs(math.log(radius_median / ends.centre)) <= math.log(plan.displaced_factor)
    )


def classify(
    radius_median: float,
    nonfinite: bool,
    scale: ControlScale | None,
    plan: ClassPlan,
    displaced: bool = False,
) -> RunClass:
    """Class of a run that ended, by the first limit that applies.

    Args:
        radius_median: median ||mu||_2 over the training images at the end.
        nonfinite: whether a loss, weight or latent was NaN or infinite.
        scale: of the control, or the article's; None if there is neither.
        plan: limits.
        displaced: whether a run beyond the limit would be so from the start, as its arm.
    """
    if nonfinite:
        return "nonfinite"
    if scale is None:
        return "unclassified"
    ratio = radius_median / scale.centre
    if ratio > plan.diverged_factor:
        return "displaced" if displaced else "diverged"
    if ratio < 1 / plan.diverged_factor:
        return "collapsed"
    if abs(math.log(ratio)) > max(plan.shifted_limit, plan.shifted_scatter * scale.scatter):
        return "shifted"
    return "regular"


def is_exploratory(scale: ControlScale | None, plan: ClassPlan) -> bool:
    """Whether the controls scatter too much to tell 'shifted' from 'regular'."""
    return scale is not None and scale.scatter > plan.exploratory_scatter
