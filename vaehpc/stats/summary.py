"""A study summed up: the class of each run, the rate of each arm, the comparison with the article."""

from __future__ import annotations

import math
from collections.abc import Sequence

from vaehpc.config import ArmConfig, DataConfig, StudyConfig, control_of
from vaehpc.results import DataSummary, RunSummary, StudySummary
from vaehpc.stats.comparison import Reference, compare
from vaehpc.stats.divergence import (
    Control,
    article_scale,
    classify,
    control_scale,
    divergence_limit,
    ever_diverged,
    onset,
)
from vaehpc.stats.rates import summarise_arm
from vaehpc.stats.runs import FoundRun, MeasuredRun, MissingRun


def summarise(config: StudyConfig, runs: Sequence[FoundRun], reference: Reference) -> StudySummary:
    """Everything that a study says.

    Args:
        config: the study.
        runs: every run of it, also those that are missing.
        reference: the article's numbers.
    """
    measured = [run for run in runs if isinstance(run, MeasuredRun)]
    controls = {name: find_control(arm, config, measured) for name, arm in config.arms.items()}
    summaries = {run.config.name: summarise_run(run, controls[run.config.arm.name]) for run in runs}
    arms = {
        name: summarise_arm([run for run in summaries.values() if run.arm == name], control, config.plan)
        for name, control in controls.items()
    }
    rates = {name: arm.rate for name, arm in arms.items()}
    return StudySummary(
        study=config.name,
        data=summarise_data(config.data),
        arms=arms,
        runs=summaries,
        provisional=any(arm.provisional for arm in arms.values()),
        control={name: control.name for name, control in controls.items()},
        plan_sha256=config.plan_sha256,
        provenance=config.provenance,
        comparison=compare(reference, config.data, config.arms, measured, rates),
    )


def summarise_data(data: DataConfig) -> DataSummary:
    """What the study was trained on, without where it lies."""
    return DataSummary(
        name=data.name,
        sha256=data.sha256,
        synthetic=data.synthetic,
        image_size=data.image_size,
        num_train=data.num_train,
    )


def find_control(arm: ArmConfig, config: StudyConfig, runs: Sequence[MeasuredRun]) -> Control:
    """The control of an arm and its scale; without one in the study the article's, where that applies."""
    name = control_of(arm, config.arms)
    if name is None:
        scale = article_scale(arm, config.data, config.plan.classes)
        return Control(None if scale is None else "article", scale, num_runs=0)
    finite = [run for run in runs if run.config.arm.name == name and not run.is_nonfinite]
    medians = [run.statistics.radius_mu.median for run in finite]
    return Control(name, control_scale(medians, config.plan.classes), num_runs=len(finite))


def summarise_run(run: FoundRun, control: Control) -> RunSummary:
    """Class, onset and main numbers of a run."""
    if isinstance(run, MissingRun):
        return RunSummary(
            arm=run.config.arm.name,
            seed=run.config.seed,
            run_class=None,
            radius_median=None,
            radius_mode=None,
            onset_step=None,
            onset_kind=None,
            ever_diverged=None,
            reconstruction_loss=None,
            kl_loss=None,
            missing_stage=run.stage,
            last_words=run.last_words,
        )
    plan, steps_per_epoch = run.config.plan, run.config.steps_per_epoch
    radius = run.statistics.radius_mu
    limit = divergence_limit(control.scale, plan.classes)
    onset_step, onset_kind = onset(run.probe, limit, steps_per_epoch, plan.probe) or (None, None)
    last_epoch = run.history[-1] if run.history else None
    return RunSummary(
        arm=run.config.arm.name,
        seed=run.config.seed,
        run_class=classify(radius.median, run.is_nonfinite, control.scale, plan.classes),
        radius_median=_none_if_nan(radius.median),
        radius_mode=_none_if_nan(radius.mode),
        onset_step=onset_step,
        onset_kind=onset_kind,
        ever_diverged=ever_diverged(run.probe, radius.median, limit, steps_per_epoch, plan.probe),
        reconstruction_loss=last_epoch and _none_if_nan(last_epoch.reconstruction_loss),
        kl_loss=last_epoch and _none_if_nan(last_epoch.kl_loss),
        triggers=tuple(run.triggers),
        missing_stage=None,
        last_words=None,
    )


def _none_if_nan(value: float) -> float | None:
    return None if math.isnan(value) else value
