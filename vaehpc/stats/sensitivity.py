"""How many runs of an arm diverge, collapse or shift if the limits of the classes are set otherwise than planned."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from vaehpc.schema.plan import PlanConfig
from vaehpc.schema.results import RunSummary, SensitivityRow
from vaehpc.stats.divergence import ControlScale, classify
from vaehpc.stats.intervals import clopper_pearson


def sensitivity(runs: Sequence[RunSummary], scale: ControlScale | None, plan: PlanConfig) -> tuple[SensitivityRow, ...]:
    """Counts under each pair of the plan's other limits; none without a scale or an ended run.

    Args:
        runs: of one arm; missing ones are in no count.
        scale: of its control, which no limit changes.
        plan: the limits.
    """
    ended = [run for run in runs if run.run_class is not None]
    if scale is None or not ended:
        return ()
    rows = []
    for factor in plan.sensitivity.diverged_factors:
        for limit in plan.sensitivity.shifted_limits:
            planned = (factor, limit) == (plan.classes.diverged_factor, plan.classes.shifted_limit)
            limits = plan.classes.model_copy(update={"diverged_factor": factor, "shifted_limit": limit})
            counts = Counter(
                classify(run.radius_median or 0.0, run.run_class == "nonfinite", scale, limits) for run in ended
            )
            rows.append(
                SensitivityRow(
                    diverged_factor=factor,
                    shifted_limit=limit,
                    is_planned=planned,
                    num_diverged=counts["diverged"],
                    num_collapsed=counts["collapsed"],
                    num_shifted=counts["shifted"],
                    num_regular=counts["regular"],
                    interval=clopper_pearson(counts["diverged"], len(ended), plan.level),
                )
            )
    return tuple(rows)
