"""How many runs of each arm diverge, collapse, shift or jump if limits are set otherwise than planned."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from vaehpc.schema.config import StudyConfig
from vaehpc.schema.plan import PlanConfig
from vaehpc.schema.results import SensitivityRow
from vaehpc.stats.intervals import clopper_pearson
from vaehpc.stats.judging import judge
from vaehpc.stats.runs import FoundRun, MeasuredRun


def sensitivity(config: StudyConfig, runs: Sequence[FoundRun]) -> dict[str, tuple[SensitivityRow, ...]]:
    """Counts by arm under each other limit of the plan, all runs judged anew; no arm without a scale or an ended run.

    Args:
        config: the study.
        runs: every run of it; missing ones are in no count.
    """
    rows: dict[str, list[SensitivityRow]] = {}
    for plan in other_plans(config.plan):
        judgement = judge(config, runs, plan)
        for arm, control in judgement.controls.items():
            names = [run.config.name for run in runs if run.config.arm.name == arm and isinstance(run, MeasuredRun)]
            if control.scale is None or not names:
                continue
            counts = Counter(judgement.classes[name] for name in names)
            rows.setdefault(arm, []).append(
                SensitivityRow(
                    diverged_factor=plan.classes.diverged_factor,
                    shifted_limit=plan.classes.shifted_limit,
                    jump_factor=plan.course.jump_factor,
                    lasting_probes=plan.course.lasting_probes,
                    is_planned=(plan.classes, plan.course) == (config.plan.classes, config.plan.course),
                    num_diverged=counts["diverged"],
                    num_collapsed=counts["collapsed"],
                    num_displaced=counts["displaced"],
                    num_shifted=counts["shifted"],
                    num_regular=counts["regular"],
                    num_jumped=sum(judgement.courses[name].first("jump") is not None for name in names),
                    interval=clopper_pearson(counts["diverged"], len(names), plan.level),
                )
            )
    return {arm: tuple(of_arm) for arm, of_arm in rows.items()}


def other_plans(plan: PlanConfig) -> Iterator[PlanConfig]:
    """The plan with each pair of other limits of the classes, then with each other rule of a jump."""
    for factor in plan.sensitivity.diverged_factors:
        for limit in plan.sensitivity.shifted_limits:
            changes = {"diverged_factor": factor, "shifted_limit": limit}
            yield plan.model_copy(update={"classes": plan.classes.model_copy(update=changes)})
    rules = [{"jump_factor": factor} for factor in plan.sensitivity.jump_factors]
    rules += [{"lasting_probes": number} for number in plan.sensitivity.lasting_probes]
    for rule in rules:
        yield plan.model_copy(update={"course": plan.course.model_copy(update=rule)})
