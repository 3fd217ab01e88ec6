"""The report: one self-contained HTML page and its figures, made from a finished study."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
from markupsafe import Markup

from vaehpc.command import UserError
from vaehpc.reporting import answers, courses, crossed, figures, findings, sweeps, tables, words
from vaehpc.reporting.courses import Course
from vaehpc.reporting.figures import ArmRuns, EndedRun
from vaehpc.reporting.page import Drawing, coloured, inline, rendered
from vaehpc.schema.config import ArmConfig, ModelConfig, StudyConfig
from vaehpc.schema.results import RunSummary, StudySummary
from vaehpc.stats.course import ProbeCurve
from vaehpc.stats.radius import ratio_histogram
from vaehpc.stats.runs import FoundRun, MeasuredRun
from vaehpc.study.files import StudyDir, write_text

logger = logging.getLogger(__name__)

MOST_LINES = 100
"""Of a figure of an arm: of more runs those that left are drawn, and some of the others."""


@dataclass(frozen=True)
class Known:
    """What is known of a study's runs beside its summary."""

    found: Sequence[FoundRun]
    """Every run, in the order of the study."""
    causes: Mapping[str, str] = field(default_factory=dict)
    """Why runs left, in a line each."""
    replays: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    """Pages of the replays of runs by their names, relative to the study's directory."""


def write_report(study: StudyDir, summary: StudySummary, known: Known) -> None:
    """Write figures/*.svg, the data behind each as *.csv, report.md, and last report.html of a study with a summary.

    Raises:
        UserError: the folder may not be written, or the disk is full.
    """
    config = study.config()
    runs = ended_runs(study, summary, known.found)
    of_runs, limits = run_courses(summary, known.found), limits_of(config, summary)
    drawings = draw(config, summary, runs, of_runs)
    study.figures.mkdir(exist_ok=True)
    for name, drawing in drawings.items():
        write_text(study.figures / f"{name}.svg", drawing.svg)
        if drawing.data:
            write_text(study.figures / f"{name}.csv", drawing.data)
    if of_runs:
        drawn = courses.figure(of_runs, limits, f"../{study.pages.name}", legend=True)
        write_text(study.figures / "courses.svg", f"{drawn}\n")
        write_text(study.figures / "courses.csv", tables.csv(tables.course_rows(courses.chosen(of_runs)[0])))
    said = contents(study, config, summary, runs, drawings, known)
    write_text(study.report_text, rendered("report.md.j2", **said))
    write_text(study.report, rendered("template.html.j2", **said))


def ended_runs(study: StudyDir, summary: StudySummary, found: Sequence[FoundRun]) -> dict[str, list[EndedRun]]:
    """Runs with results, by arm in the order of the study."""
    measured = [run for run in found if isinstance(run, MeasuredRun)]
    is_wide = any(run.statistics.radius_mu.histogram.overflow for run in measured if not run.is_nonfinite)
    runs: dict[str, list[EndedRun]] = {arm: [] for arm in summary.arms}
    for run in measured:
        name = run.config.name
        of_run = summary.runs[name]
        if of_run.run_class is None:
            continue
        radii = read_radii(study, run) if is_wide and not run.is_nonfinite else None
        runs[of_run.arm].append(
            EndedRun(
                name=name,
                run_class=of_run.run_class,
                summary=of_run,
                statistics=run.statistics,
                history=run.history,
                steps_per_epoch=run.config.steps_per_epoch,
                ratio_counts=None if radii is None else ratio_histogram(radii),
            )
        )
    return runs


def read_radii(study: StudyDir, run: MeasuredRun) -> npt.NDArray[np.float32] | None:
    """R of every image of a run; None if they are gone or damaged."""
    try:
        return study.run(run.config.name).radii(run.statistics.arrays_sha256.get("radius_mu.npy"))
    except UserError as damage:
        logger.warning("%s: its histogram ends where the article's does: %s", run.config.name, damage)
        return None


# The courses of the runs


def run_courses(summary: StudySummary, found: Sequence[FoundRun]) -> list[Course]:
    """R over steps of every run that was seen at all: of its probe, else after each epoch."""
    found_courses = [run_course(run.config.name, summary.runs[run.config.name], seen(run)) for run in found]
    return [course for course in found_courses if len(course.finite().steps)]


def seen(run: FoundRun) -> ProbeCurve:
    """R over the steps of a run, of a missing one as far as it came."""
    if run.probe is not None and len(run.probe.steps):
        return run.probe
    history = run.history if isinstance(run, MeasuredRun) else []
    steps, radii = [record.step for record in history], [record.radius_median for record in history]
    return ProbeCurve(np.array(steps, np.int64), np.array(radii, np.float64))


def run_course(name: str, run: RunSummary, curve: ProbeCurve) -> Course:
    """The course of a run with what the summary says of it."""
    return Course(
        name=name,
        run_class=run.run_class,
        steps=curve.steps,
        radii=curve.radius_medians,
        said="; ".join([words.class_of(run), findings.course(run) or "no jump or growth was seen"]),
        has_left=run.run_class in ("diverged", "nonfinite", "displaced", "collapsed")
        or any(mark.kind != "excursion" for mark in run.course.marks),
        onset_step=run.onset_step,
    )


def limits_of(config: StudyConfig, summary: StudySummary) -> dict[str, float]:
    """Radius beyond which a run has diverged, by its control."""
    return {
        arm.control: config.plan.classes.diverged_factor * arm.control_radius
        for arm in summary.arms.values()
        if arm.control is not None and arm.control_radius is not None
    }


def draw(config: StudyConfig, summary: StudySummary, runs: ArmRuns, of_runs: Sequence[Course]) -> dict[str, Drawing]:
    """Every figure for which there are results, by the name of its file."""
    drawn = {}
    if any(arm.endpoints for arm in summary.arms.values()):
        outcomes = " ".join(f"{arm}: {findings.outcome(found)}" for arm, found in summary.arms.items())
        drawn["divergence-rates"] = Drawing(
            figures.svg(figures.divergence_rates(summary.arms)), outcomes, tables.csv(tables.rate_rows(summary))
        )
    for sweep in summary.sweeps:
        drawn[f"sweep-{sweep.setting}"] = Drawing(
            figures.svg(sweeps.sweep_figure(sweep)),
            " ".join(sweeps.sentences([sweep])),
            tables.csv(sweeps.sweep_rows(sweep)),
        )
    for name, of_streams in summary.crossed.items():
        if len(of_streams.levels) > 1:
            crossed_runs = {run: found for run, found in summary.runs.items() if found.arm == name}
            drawn[f"crossed-{name}"] = Drawing(
                figures.svg(crossed.crossed_figure(of_streams, {run.seed: run for run in crossed_runs.values()})),
                f"{name}: class of each run over the levels of its streams, {crossed.design(of_streams.levels)}.",
                tables.csv(crossed.crossed_rows(crossed_runs)),
            )
    if summary.events:
        for arm, figure in figures.event_curves(summary.events, summary.control).items():
            of_arm = summary.events[arm]
            drawn[f"events-{arm}"] = Drawing(
                figures.svg(figure),
                f"Aalen-Johansen curves over training steps. {findings.events(arm, of_arm)}",
                tables.csv(tables.event_rows(of_arm)),
            )
    for arm, found in summary.likeness.items():
        drawn[f"likeness-{arm}"] = Drawing(
            figures.svg(figures.likeness_strips(found)),
            words.likeness(arm, found),
            tables.csv(tables.pair_rows(found, config.plan.pairs)),
        )
    ended: ArmRuns = {arm: with_lines(of_arm) for arm, of_arm in runs.items() if of_arm}
    if not ended:
        return drawn
    comparable = {arm: config.plan.classes.article_radius for arm in ended if is_comparable(config, config.arms[arm])}
    finite: ArmRuns = {arm: lines for arm, of_arm in ended.items() if (lines := with_end(of_arm))}
    curves = figures.radius_curves(finite, comparable) if finite else {}
    chosen = {course.name for course in courses.chosen(of_runs)[0]}
    if shown := [run for of_arm in runs.values() for run in with_end(of_arm) if run.name in chosen]:
        drawn["radius-all"] = Drawing(
            figures.svg(figures.radius_curves({"all": shown}, {})["all"]),
            f"Number of images over latent radius, {words.counted(len(shown), 'line')}, one per finite run whose course"
            f" has one. {final_radii(shown)}",
            tables.csv(tables.radius_rows(shown)),
        )
    histories, losses = figures.radius_histories(ended), figures.loss_histories(ended)
    kinds = {
        "radius-curves": ("number of images over latent radius", curves, finite, tables.radius_rows),
        "radius-history": ("median latent radius over epochs", histories, ended, tables.history_rows),
        "losses": ("reconstruction loss, and its excess over H(x), over epochs", losses, ended, tables.history_rows),
    }
    for kind, (what, of_arms, drawn_runs, rows) in kinds.items():
        for arm, figure in of_arms.items():
            which = "finite run" if drawn_runs is finite else "ended run"
            count = words.counted(len(drawn_runs[arm]), "line")
            alt = f"{arm}: {what}, {count}, one per {which}. {final_radii(drawn_runs[arm])}"
            drawn[f"{kind}-{arm}"] = Drawing(figures.svg(figure), alt, tables.csv(rows(drawn_runs[arm])))
    return drawn


def with_lines(runs: Sequence[EndedRun]) -> Sequence[EndedRun]:
    """All of them; of many those that left, and others evenly from first to last."""
    if len(runs) <= MOST_LINES:
        return runs
    stayed = [run.name for run in runs if run.run_class in ("regular", "shifted") and run.summary.onset_step is None]
    left_out = set(stayed) - set(stayed[:: math.ceil(len(stayed) / courses.NUM_OTHERS)])
    return [run for run in runs if run.name not in left_out]


def with_end(runs: Sequence[EndedRun]) -> list[EndedRun]:
    """Those that are finite: what another has left is of a state before its NaN."""
    return [run for run in runs if run.run_class != "nonfinite"]


def final_radii(runs: Sequence[EndedRun]) -> str:
    """Range of the median radii at the end, for those who cannot see the curves."""
    radii = [run.summary.radius_median for run in runs if run.summary.radius_median is not None]
    if not radii:
        return "No run ended with finite radii."
    return f"Median radii at the end: {words.number(min(radii))} to {words.number(max(radii))}."


def is_comparable(config: StudyConfig, arm: ArmConfig) -> bool:
    """Whether the article's radii mean anything for this arm: real images of its size, and its latent dimension."""
    data, z_dim = config.data, ModelConfig().z_dim
    is_celeba = not (data.synthetic or data.photographs)
    return is_celeba and data.image_size == config.plan.classes.article_image_size and arm.model.z_dim == z_dim


def contents(
    study: StudyDir,
    config: StudyConfig,
    summary: StudySummary,
    runs: ArmRuns,
    drawings: Mapping[str, Drawing],
    known: Known,
) -> dict[str, object]:
    """What the report says, for its page and for report.md."""
    of_runs, limits = run_courses(summary, known.found), limits_of(config, summary)
    return {
        "config": config,
        "summary": summary,
        "words": words,
        "findings": findings,
        "question": answers.question(config),
        "often": answers.how_often(config, summary),
        "in_its_stead": answers.in_its_stead(config, summary),
        "sure": answers.how_sure(config, summary),
        "sweep_sentences": sweeps.sentences(summary.sweeps),
        "crossed_sentences": crossed.sentences(summary, config.plan.level),
        "crossed_lines": crossed.lines(summary),
        "which": answers.which_runs(summary, known.causes),
        "more_left": answers.more_left(summary),
        "next_steps": answers.what_next(study, config, summary),
        "replays": known.replays,
        "courses": Markup(coloured(courses.figure(of_runs, limits, study.pages.name))) if of_runs else None,
        "course_kinds": courses.kinds(of_runs),
        "has_band": bool(courses.chosen(of_runs)[1]),
        "runs": runs,
        "without_lines": sum(len(of_arm) - len(with_lines(of_arm)) for of_arm in runs.values()),
        "run_rows": tables.run_rows(study, summary, known.found, courses.sparklines(of_runs)),
        "course_size": courses.SPARK_SIZE,
        "num_sparks": courses.MOST_SPARKS,
        "drawings": {name: inline(drawing, name) for name, drawing in drawings.items()},
        "data": {name: f"{study.figures.name}/{name}.csv" for name, drawing in drawings.items() if drawing.data},
        "pages": study.pages.name,
        "infinity": math.inf,
        "study_name": answers.named(study),
        "differing": tables.differing_settings(config.arms),
        "shared": tables.shared_settings(config.arms),
        "machines": tables.machines(known.found),
        "jump_rows": tables.jump_rows(summary.runs),
        "num_unmeasured": tables.num_unmeasured(summary.runs),
        "comparison_lines": tables.comparison_lines(study, config, summary),
        "sensitivity_lines": tables.sensitivity_lines(summary, config.plan),
        "cloud_lines": tables.cloud_lines(summary),
    }
