"""Rates of divergence of two arms, tested: x of n runs diverged in the arm, y of m in its reference."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
import numpy.typing as npt
from scipy import stats

from vaehpc.schema.config import StudyConfig, control_of
from vaehpc.schema.plan import Alternative, ContrastPlan, PlanConfig
from vaehpc.schema.results import ArmSummary, Contrast, PlannedLook, RunSummary
from vaehpc.stats import planning
from vaehpc.stats.survival import Followed, logrank


@dataclass(frozen=True)
class PlannedContrast:
    """Two arms that the plan has tested."""

    arm: str
    reference: str
    is_control: bool
    alternative: Alternative


def planned_contrasts(config: StudyConfig) -> list[PlannedContrast]:
    """Each arm against its control, then each other VAE against the plan's reference arm, if the study has it.

    Neither arms with a spike, which diverge because they are made to, nor the forks of a replay are tested.
    """
    plan = config.plan.contrasts
    arms = {name: arm for name, arm in config.arms.items() if arm.spike is None and arm.fork is None}
    controls = {name: control_of(arm, config.arms) for name, arm in arms.items()}
    found = [
        PlannedContrast(name, control, True, plan.against_control)
        for name, control in controls.items()
        if control not in (None, name)
    ]
    if plan.reference in arms:
        others = [name for name, arm in arms.items() if arm.vae is not None and name != plan.reference]
        found += [PlannedContrast(name, plan.reference, False, plan.against_reference) for name in others]
    return found


def contrasts(config: StudyConfig, arms: Mapping[str, ArmSummary], runs: Mapping[str, RunSummary]) -> list[Contrast]:
    """Every planned contrast whose arms both have a rate, with Holm's adjustment over these."""
    positions = {name: position for position, name in enumerate(config.arms)}  # which later arms do not change
    made = [
        contrast(
            planned,
            arms,
            runs,
            config.plan,
            config.key("logrank", positions[planned.arm], positions[planned.reference]),
        )
        for planned in planned_contrasts(config)
        if arms[planned.arm].rate is not None and arms[planned.reference].rate is not None
    ]
    adjusted = holm([each.boschloo for each in made])
    return [each.model_copy(update={"holm": p}) for each, p in zip(made, adjusted, strict=True)]


def contrast(
    planned: PlannedContrast,
    arms: Mapping[str, ArmSummary],
    runs: Mapping[str, RunSummary],
    plan: PlanConfig,
    key: np.random.SeedSequence,
) -> Contrast:
    """Counts and tests of two arms that have a rate; Holm's p is not adjusted yet."""
    arm, reference, alternative = arms[planned.arm], arms[planned.reference], planned.alternative
    x, n = arm.num_diverged, arm.num_runs - arm.num_missing
    y, m = reference.num_diverged, reference.num_runs - reference.num_missing
    classes = [
        {run.seed: run.run_class for run in runs.values() if run.arm == name and run.run_class is not None}
        for name in (planned.arm, planned.reference)
    ]
    pairs = [tuple(of_arm[seed] == "diverged" for of_arm in classes) for seed in sorted(classes[0].keys() & classes[1])]
    only_arm, only_reference = pairs.count((True, False)), pairs.count((False, True))
    followed, of_reference = (
        Followed.of(run for run in runs.values() if run.arm == name) for name in (planned.arm, planned.reference)
    )
    onsets = logrank(followed, of_reference, plan.contrasts.num_permutations, key)
    p = boschloo(x, n, y, m, alternative)
    return Contrast(
        arm=planned.arm,
        reference=planned.reference,
        is_control=planned.is_control,
        alternative=alternative,
        num_diverged=x,
        num_ended=n,
        reference_diverged=y,
        reference_ended=m,
        boschloo=p,
        holm=p,
        fisher=fisher(x, n, y, m, alternative),
        boschloo_if_missing=boschloo_if_missing(arm, reference, alternative),
        num_pairs=len(pairs),
        only_arm=only_arm,
        only_reference=only_reference,
        mcnemar=mcnemar(only_arm, only_reference, alternative),
        power=power(n, m, alternative, plan.contrasts, 1 - plan.level),
        least_p=boschloo(0, n, m, m, alternative) if alternative == "less" else boschloo(n, n, 0, m, alternative),
        logrank=onsets and onsets.statistic,
        logrank_p=onsets and onsets.p,
        num_permutations=onsets.num_permutations if onsets else 0,
    )


def planned_look(config: StudyConfig, arms: Mapping[str, ArmSummary]) -> PlannedLook | None:
    """The plan's look at its reference arm; None if there is none after so many seeds, or not all runs have a class."""
    plan = config.plan.contrasts
    control = control_of(config.arms[plan.reference], config.arms) if plan.reference in config.arms else None
    if control in (None, plan.reference):
        return None
    arm, reference = arms[plan.reference], arms[control]
    num_seeds = arm.num_runs
    whole = all(each.rate is not None and each.num_missing == 0 for each in (arm, reference))
    if not whole or num_seeds != reference.num_runs or num_seeds not in plan.looks:
        return None
    number = plan.looks.index(num_seeds)
    look = planning.boundaries(plan.looks, 1 - config.plan.level)[number]
    least = look.least_diverged(reference.num_diverged)
    return PlannedLook(
        arm=plan.reference,
        reference=control,
        looks=plan.looks,
        number=number + 1,
        spent=look.spent,
        num_diverged=arm.num_diverged,
        reference_diverged=reference.num_diverged,
        least_diverged=least,
        stops=least is not None and arm.num_diverged >= least,
    )


@cache
def boschloo(x: int, n: int, y: int, m: int, alternative: Alternative) -> float:
    """p of Boschloo's exact test (1970): Fisher's p as the statistic, its worst case over the common rate.

    Two-sided it is twice the smaller one-sided p. Equal tables are tested once.
    """
    if x + y in (0, n + m):
        return 1.0
    return float(min(1.0, stats.boschloo_exact([[x, y], [n - x, m - y]], alternative=alternative).pvalue))


def fisher(x: int, n: int, y: int, m: int, alternative: Alternative) -> float:
    """p of Fisher's exact test, conditional on x + y."""
    return float(stats.fisher_exact(np.array([[x, y], [n - x, m - y]]), alternative=alternative).pvalue)


def mcnemar(only_arm: int, only_reference: int, alternative: Alternative) -> float | None:
    """p of McNemar's exact test: the discordant pairs are heads and tails of a fair coin; None if there are none."""
    if only_arm + only_reference == 0:
        return None
    return float(stats.binomtest(only_arm, only_arm + only_reference, alternative=alternative).pvalue)


def boschloo_if_missing(arm: ArmSummary, reference: ArmSummary, alternative: Alternative) -> tuple[float, float]:
    """Least and largest p over the ways in which the missing runs can end.

    The extremes are all missing runs of the one arm diverged and none of the other; a two-sided p is largest where the
    rates come nearest to each other.
    """
    n, m = arm.num_runs, reference.num_runs
    most = [(arm.num_diverged + arm.num_missing, reference.num_diverged)]
    most += [(arm.num_diverged, reference.num_diverged + reference.num_missing)]
    between = (
        (x, y)
        for x in range(arm.num_diverged, arm.num_diverged + arm.num_missing + 1)
        for y in range(reference.num_diverged, reference.num_diverged + reference.num_missing + 1)
    )
    nearest = min(between, key=lambda counts: abs(counts[0] / n - counts[1] / m))
    p = [boschloo(x, n, y, m, alternative) for x, y in (*most, nearest)]
    return min(p), max(p)


def power(n: int, m: int, alternative: Alternative, plan: ContrastPlan, alpha: float) -> float:
    """Probability to find the plan's rate in the arm against its `versus` in the reference, or the other way round.

    Of the first MOST_SEEDS runs, where there are more.
    """
    n, m = min(n, planning.MOST_SEEDS), min(m, planning.MOST_SEEDS)
    if alternative == "less":
        return planning.power(m, n, plan.rate, plan.versus, alpha)
    return planning.power(n, m, plan.rate, plan.versus, alpha if alternative == "greater" else alpha / 2)


def holm(p: Sequence[float]) -> list[float]:
    """Holm's step-down adjustment (1979): the i-th smallest of k times k - i + 1, never below the ones before it."""
    if not p:
        return []
    values = np.asarray(p, np.float64)
    order = np.argsort(values, kind="stable")
    factors = np.arange(len(values), 0, -1)
    adjusted: npt.NDArray[np.float64] = np.empty_like(values)
    adjusted[order] = np.minimum(1.0, np.maximum.accumulate(factors * values[order]))
    return [float(value) for value in adjusted]
