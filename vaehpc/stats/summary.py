"""A study summed up: classes of runs, rates of arms and tests between them, the comparison with the article."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Literal

import numpy as np
import numpy.typing as npt

from vaehpc.schema.config import DataConfig, StudyConfig
from vaehpc.schema.plan import agrees, defaults_of, text_sha256, values_of
from vaehpc.schema.results import (
    DataSummary,
    LikenessToControl,
    PairDistances,
    RunClass,
    RunCourse,
    RunSummary,
    StudySummary,
)
from vaehpc.stats.comparison import Reference, compare
from vaehpc.stats.contrasts import contrasts, planned_look
from vaehpc.stats.course import ProbeCurve
from vaehpc.stats.crossed import crossed
from vaehpc.stats.divergence import Control
from vaehpc.stats.judging import judge
from vaehpc.stats.making import mixed
from vaehpc.stats.modes import dip_tests
from vaehpc.stats.pairs import likeness
from vaehpc.stats.quantities import QUANTITIES, measure
from vaehpc.stats.rates import summarise_arm
from vaehpc.stats.reclassed import reclassed
from vaehpc.stats.runs import FoundRun, MeasuredRun, MissingRun
from vaehpc.stats.sensitivity import sensitivity
from vaehpc.stats.survival import event_curves
from vaehpc.stats.sweeps import sweeps


def summarise(
    config: StudyConfig, runs: Sequence[FoundRun], reference: Reference, distances: Sequence[PairDistances] = ()
) -> StudySummary:
    """Everything that a study says.

    Args:
        config: the study.
        runs: every run of it, also those that are missing.
        reference: the article's numbers.
        distances: of the runs that vaehpc.stats.pairs.pairs_of names.
    """
    measured = [run for run in runs if isinstance(run, MeasuredRun)]
    judgement = judge(config, runs, config.plan)
    controls = judgement.controls
    displaced = {run.config.arm.name for run in measured if judgement.classes[run.config.name] == "displaced"}
    summaries = {
        (name := run.config.name): summarise_run(
            run, judgement.classes[name], judgement.courses[name], may_have_diverged(run, controls, displaced)
        )
        for run in runs
    }
    of_arms = {name: [run for run in summaries.values() if run.arm == name] for name in config.arms}
    arms = {name: summarise_arm(of_arms[name], control, config.plan) for name, control in controls.items()}
    curves = {name: event_curves(of_arm, config.plan.level) for name, of_arm in of_arms.items()}
    rates = {name: arm.rate for name, arm in arms.items()}
    not_as_planned = tuple(deviations(config, measured))
    look = None if config.cross else planned_look(config, arms)
    return StudySummary(
        study=config.name,
        data=summarise_data(config.data),
        arms=arms,
        runs=summaries,
        provisional=any(arm.provisional for arm in arms.values()),
        control={name: control.name for name, control in controls.items()},
        plan_sha256=config.plan_sha256,
        provenance=config.provenance,
        comparison=None
        if config.data.photographs
        else compare(reference, config.data, config.arms, measured, summaries, rates),
        contrasts=tuple(contrasts(config, arms, summaries, look, is_as_planned=not (not_as_planned or config.cross))),
        look=look,
        events={name: curve for name, curve in curves.items() if curve is not None},
        sensitivity=sensitivity(config, runs),
        modes=dip_tests(
            {name: log_radii(of_arm) for name, of_arm in of_arms.items()},
            config.plan.modes,
            lambda size: config.key("modes", size),
        ),
        likeness=likenesses(config, summaries, distances),
        sweeps=tuple(sweeps(config, arms, summaries)),
        crossed=crossed(config, arms, summaries),
        deviations=not_as_planned,
        reclassed=reclassed(config, runs, judgement),
        plan_defaults=tuple(defaults_of(values_of(config.plan_text), config.plan)),
    )


def log_radii(runs: Sequence[RunSummary]) -> npt.NDArray[np.float64]:
    """ln of the median radii of the finite runs."""
    finite = [run for run in runs if run.run_class not in (None, "nonfinite") and run.radius_median]
    return np.log([run.radius_median for run in finite if run.radius_median is not None])


def likenesses(
    config: StudyConfig, runs: Mapping[str, RunSummary], distances: Sequence[PairDistances]
) -> dict[str, LikenessToControl]:
    """Each VAE arm of which a pair was measured, beside its AE."""
    found = {}
    for position, name in enumerate(config.arms):
        control = config.control_of(name)
        pairs = [pair for pair in distances if runs[pair.first].arm == name and runs[pair.second].arm == control]
        if control is None or control == name or not pairs:
            continue
        found[name] = likeness(
            control,
            pairs,
            [pair for pair in distances if runs[pair.first].arm == runs[pair.second].arm == control],
            sum(runs[pair.first].run_class == runs[pair.second].run_class == "regular" for pair in pairs),
            config.plan.level,
            config.plan.pairs,
            config.key("bootstrap", position),
        )
    return found


def deviations(config: StudyConfig, runs: Sequence[MeasuredRun]) -> list[str]:
    """What was not decided before the first launch, in words."""
    found = []
    said = values_of(config.plan_text)
    if text_sha256(config.plan_text) != config.plan_sha256 or not agrees(said, config.plan.model_dump(mode="json")):
        found.append("the analysis plan in study.json is not the one that was hashed at the launch")
    elsewise = [run.config.name for run in runs if run.statistics.plan_sha256 != config.plan_sha256]
    if elsewise:
        found.append(f"measured under another analysis plan: {', '.join(elsewise)}")
    found += mixed(runs)
    if config.first_seeds is None:
        return found
    looks = config.plan.contrasts.looks
    for arm, seeds in config.seeds.items():
        if (first := config.first_seeds.get(arm)) is None:
            found.append(f"the arm {arm} was added after the first launch")
        elif (later := len(set(seeds) - set(first))) and not {len(first), len(seeds)} <= set(looks):
            found.append(f"{later} of {len(seeds)} seeds of {arm} were added after the first launch")
    return found


def summarise_data(data: DataConfig) -> DataSummary:
    """What the study was trained on, without where it lies."""
    return DataSummary(
        name=data.name,
        sha256=data.sha256,
        synthetic=data.synthetic,
        image_size=data.image_size,
        num_train=data.num_train,
    )


def may_have_diverged(run: FoundRun, controls: Mapping[str, Control], displaced: Collection[str]) -> bool:
    """Whether it can be said of a run if it ever diverged: it has a control, and its arm does not lie elsewhere."""
    arm = run.config.arm.name
    return controls[arm].scale is not None and arm not in displaced


def summarise_run(run: FoundRun, run_class: RunClass | None, course: RunCourse, is_judged: bool) -> RunSummary:
    """Class, course and main numbers of a run; `is_judged`: whether it may be said if it ever diverged."""
    departed = course.departed
    onset_kind: Literal["jump", "growth"] | None = None
    if departed is not None:
        onset_kind = "jump" if departed.kind == "jump" else "growth"
    onset_step = departed and departed.step
    if isinstance(run, MissingRun):
        return RunSummary(
            arm=run.config.arm.name,
            seed=run.config.seed,
            run_class=None,
            radius_median=None,
            radius_mode=None,
            course=course,
            onset_step=onset_step,
            onset_kind=onset_kind,
            ever_diverged=None,
            reconstruction_loss=None,
            kl_loss=None,
            missing_stage=run.stage,
            last_words=run.last_words,
            followed_steps=last_step(run.probe),
        )
    measured = measure(run)
    return RunSummary(
        arm=run.config.arm.name,
        seed=run.config.seed,
        run_class=run_class,
        radius_median=measured["radius_median"],
        radius_mode=measured["radius_mode"],
        course=course,
        onset_step=onset_step,
        onset_kind=onset_kind,
        ever_diverged=(departed is not None or run_class == "diverged") if is_judged else None,
        state_sha256=run.trained.state_sha256,
        losses_sha256=run.losses_sha256,
        limits_acted=dict(run.limits_acted),
        num_recorded=run.num_recorded,
        reconstruction_loss=measured["reconstruction_loss"],
        kl_loss=measured["kl_loss"],
        nonfinite_step=run.trained.nonfinite_step,
        triggers=tuple(run.triggers),
        missing_stage=None,
        last_words=None,
        followed_steps=max(run.trained.step, last_step(run.probe))
        if run.trained.nonfinite_step is None
        else run.trained.nonfinite_step,
        cloud={quantity.name: measured[quantity.name] for quantity in QUANTITIES if quantity.shown},
    )


def last_step(probe: ProbeCurve | None) -> int:
    """Of the last probe; 0 without one."""
    return int(probe.steps[-1]) if probe is not None and len(probe.steps) else 0
