"""What a plan has tested, which is known before any run has ended. It needs no SciPy: the launcher says it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import permutations

from vaehpc.schema.config import ArmConfig, control_of
from vaehpc.schema.plan import Alternative, ContrastPlan, PlanConfig
from vaehpc.stats import planning

NUM_ENDPOINTS = 2
"""Diverged, and diverged or nonfinite: each confirmatory contrast is tested for both."""
NO_TRAINING_ALIKE = "it starts from a trained AE, and its control has only half its training"


@dataclass(frozen=True)
class PlannedContrast:
    """Two arms that the plan has tested."""

    arm: str
    reference: str
    is_control: bool
    alternative: Alternative
    exploratory: tuple[str, ...] = ()
    """Why it is not confirmatory."""

    @property
    def name(self) -> str:
        """As the plan's `primary` has it."""
        return f"{self.arm}, {self.reference}"


def planned_contrasts(arms: Mapping[str, ArmConfig], plan: PlanConfig) -> list[PlannedContrast]:
    """Each arm against its control, then each other VAE against the plan's reference arm, if it is among them.

    In a sweep that is the reference's arm of the same value. Then what the plan names beyond these.

    Neither arms with a spike, which diverge because they are made to, nor the forks of a replay are tested.
    """
    tested = {name: arm for name, arm in arms.items() if arm.spike is None and arm.fork is None}
    controls = {name: control_of(arm, arms, plan.classes.control) for name, arm in tested.items()}
    pairs = [(name, control, True) for name, control in controls.items() if control is not None and control != name]
    references = {arm.place: name for name, arm in tested.items() if arm.base == plan.contrasts.reference}
    pairs += [
        (name, references[arm.place], False)
        for name, arm in tested.items()
        if arm.vae is not None and references.get(arm.place, name) != name
    ]
    paired = [{arm, reference} for arm, reference, _ in pairs]
    pairs += [
        (arm, reference, False)
        for arm, reference in permutations(tested, 2)
        if f"{arm}, {reference}" in plan.contrasts.primary and {arm, reference} not in paired
    ]
    return [_planned(tested[arm], other, is_control, plan.contrasts) for arm, other, is_control in pairs]


def _planned(arm: ArmConfig, reference: str, is_control: bool, plan: ContrastPlan) -> PlannedContrast:
    alternative = plan.against_control if is_control else plan.against_reference
    found = PlannedContrast(arm.name, reference, is_control, alternative)
    reasons = [] if not plan.primary or found.name in plan.primary else ["the plan does not name it"]
    if arm.start_from is not None:
        reasons.append(NO_TRAINING_ALIKE)
    return PlannedContrast(arm.name, reference, is_control, alternative, tuple(reasons))


def family_size(arms: Mapping[str, ArmConfig], plan: PlanConfig) -> int:
    """Tests over which Holm's adjustment goes, if every run ends; the one that planned looks decide is not of them."""
    confirmatory = [each for each in planned_contrasts(arms, plan) if not each.exploratory]
    of_looks = sum(is_of_looks(each, plan.contrasts) for each in confirmatory)
    return NUM_ENDPOINTS * len(confirmatory) - of_looks


def is_of_looks(contrast: PlannedContrast, plan: ContrastPlan) -> bool:
    """Whether planned looks decide this contrast's primary endpoint, at the whole alpha."""
    return bool(plan.looks) and contrast.is_control and contrast.arm == plan.reference


def power(n: int, m: int, alternative: Alternative, plan: ContrastPlan, alpha: float) -> float:
    """Probability to find the plan's rate in the arm against its `versus` in the reference, or the other way round.

    Of the first MOST_SEEDS runs, where there are more.
    """
    n, m = min(n, planning.MOST_SEEDS), min(m, planning.MOST_SEEDS)
    if alternative == "less":
        return planning.power(m, n, plan.rate, plan.versus, alpha)
    return planning.power(n, m, plan.rate, plan.versus, alpha if alternative == "greater" else alpha / 2)
