"""The rate of divergence of an arm: counts, the rate among the runs that ended, its interval, and its bounds."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from vaehpc.schema.plan import PlanConfig
from vaehpc.schema.results import ArmSummary, RunSummary
from vaehpc.stats.divergence import Control, is_exploratory
from vaehpc.stats.intervals import CLOPPER_PEARSON, clopper_pearson, jeffreys, wilson


def summarise_arm(
    runs: Sequence[RunSummary],
    control: Control,
    plan: PlanConfig,
) -> ArmSummary:
    """Counts and rate of an arm.

    The rate is that of the state at the end, num_diverged / (num_runs - num_missing). Had every missing run ended
    regular it would be num_diverged / num_runs, had every one diverged (num_diverged + num_missing) / num_runs.

    Args:
        runs: every run of the arm, with those that are missing.
        control: what their classes are relative to.
        plan: the analysis plan.
    """
    counts = Counter(run.run_class for run in runs)
    num_runs, num_missing, num_diverged = len(runs), counts[None], counts["diverged"]
    num_ended = num_runs - num_missing
    is_classed = num_runs > 0 and counts["unclassified"] == 0
    interval = clopper_pearson(num_diverged, num_ended, plan.level) if is_classed and num_ended else None
    return ArmSummary(
        num_runs=num_runs,
        num_missing=num_missing,
        num_diverged=num_diverged,
        num_ever_diverged=sum(run.ever_diverged is True for run in runs),
        num_diverged_or_nonfinite=num_diverged + counts["nonfinite"],
        num_nonfinite=counts["nonfinite"],
        num_shifted=counts["shifted"],
        num_collapsed=counts["collapsed"],
        num_unclassified=counts["unclassified"],
        rate=num_diverged / num_ended if interval else None,
        low=interval.low if interval else None,
        high=interval.high if interval else None,
        level=plan.level,
        method=CLOPPER_PEARSON,
        other_intervals=tuple(method(num_diverged, num_ended, plan.level) for method in (wilson, jeffreys))
        if interval
        else (),
        rate_if_missing_regular=num_diverged / num_runs if is_classed else None,
        rate_if_missing_diverged=(num_diverged + num_missing) / num_runs if is_classed else None,
        control=control.name,
        provisional=control.num_runs < plan.classes.min_control_runs,
        exploratory=is_exploratory(control.scale, plan.classes),
        control_radius=control.scale and control.scale.centre,
        control_scatter=control.scale and control.scale.scatter,
    )
