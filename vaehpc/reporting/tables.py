"""Lines of the report's tables that take more than reading a value."""

from __future__ import annotations

import csv as comma_separated
import io
import math
import os
import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from vaehpc.reporting import findings, words
from vaehpc.reporting.courses import Course
from vaehpc.reporting.figures import EndedRun
from vaehpc.reporting.words import NO_VALUE
from vaehpc.schema.config import ArmConfig, StudyConfig
from vaehpc.schema.plan import PairPlan, PlanConfig
from vaehpc.schema.results import (
    ComparisonRow,
    EventCurves,
    Incidence,
    LikenessToControl,
    MeasuredEvent,
    RunSummary,
    SensitivityRow,
    StudySummary,
)
from vaehpc.stats.quantities import QUANTITIES
from vaehpc.stats.runs import FoundRun, MeasuredRun
from vaehpc.study.attempts import all_attempts
from vaehpc.study.files import StudyDir


@dataclass(frozen=True)
class RunRow:
    """A line of the run table."""

    name: str
    summary: RunSummary
    num_attempts: int
    """Starts of its training; of any task if it is missing, because its records may be damaged."""
    course: str | None
    """Its radius over the steps as the path of a small curve."""


@dataclass(frozen=True)
class Cell:
    """What one arm measured of a quantity, in words."""

    median: str
    spread: str
    page: str | None = None
    """Name of a run whose page shows it."""


@dataclass(frozen=True)
class ComparisonLine:
    """A row of 'article / measured' with one cell per arm."""

    row: ComparisonRow
    cells: list[Cell]


def run_rows(
    study: StudyDir, summary: StudySummary, found: Sequence[FoundRun], courses: Mapping[str, str]
) -> list[RunRow]:
    """Every run of the study, missing ones too."""
    return [
        RunRow(
            run.config.name,
            summary.runs[run.config.name],
            run.trained.num_attempts if isinstance(run, MeasuredRun) else len(all_attempts(study.run(run.config.name))),
            courses.get(run.config.name),
        )
        for run in found
    ]


def settings(arm: ArmConfig) -> dict[str, str]:
    """Settings of an arm in words."""
    return {key: setting(value) for key, value in arm.settings.items()}


def setting(value: Any) -> str:
    """'none', 'yes', '32, 64, 128, 256', '1e-05'."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, Sequence) and not isinstance(value, str):
        return ", ".join(map(str, value))
    return "none" if value is None else str(value)


def differing_settings(arms: Mapping[str, ArmConfig]) -> dict[str, list[str]]:
    """Settings in which the arms differ: one value per arm."""
    of_arms = [settings(arm) for arm in arms.values()]
    keys = dict.fromkeys(key for of_arm in of_arms for key in of_arm)
    values = {key: [of_arm.get(key, NO_VALUE) for of_arm in of_arms] for key in keys}
    return {key: of_key for key, of_key in values.items() if len(set(of_key)) > 1}


def shared_settings(arms: Mapping[str, ArmConfig]) -> dict[str, str]:
    """Settings that all arms share."""
    differing = differing_settings(arms)
    return {key: value for arm in arms.values() for key, value in settings(arm).items() if key not in differing}


def machines(found: Sequence[FoundRun]) -> Counter[tuple[str, str, int, str]]:
    """(device, precision, threads, code version) of the trainings, and how many runs had each."""
    trained = [(run.config.arm.train.precision, run.trained) for run in found if isinstance(run, MeasuredRun)]
    return Counter(
        (of.device, words.precision(precision, of.tensor_float_32), of.threads, of.provenance.code_version)
        for precision, of in trained
    )


def comparison_lines(study: StudyDir, config: StudyConfig, summary: StudySummary) -> list[ComparisonLine]:
    """The rows of 'article / measured' with one cell per arm."""
    rows = summary.comparison.rows if summary.comparison else ()
    return [ComparisonLine(row, [cell(row, arm, study, config, summary) for arm in summary.arms]) for row in rows]


def cell(row: ComparisonRow, arm: str, study: StudyDir, config: StudyConfig, summary: StudySummary) -> Cell:
    """What the runs of an arm, or the arm itself, measured of a quantity of the article."""
    if arm in row.measured:  # a share of runs: never without its counts
        share = summary.arms[arm].endpoints["diverged"]
        return Cell(words.of_ended(share), words.interval(share))
    names = [name for name, run in summary.runs.items() if run.arm == arm]
    if row.images:
        return (
            image_cell(row, names, study, summary) if row.of in (config.arms[arm].kind, "any") else Cell(NO_VALUE, "")
        )
    values = [row.measured[name] for name in names if name in row.measured]
    return spread_cell(values, row.nan, words.mode(math.inf, config.plan.radius))


def image_cell(row: ComparisonRow, names: Sequence[str], study: StudyDir, summary: StudySummary) -> Cell:
    """A link to the first run that has such an image of its end."""
    finite = [name for name in names if summary.runs[name].run_class != "nonfinite"]
    pictured = [name for name in finite if os.access(study.run(name).images / row.images[0], os.R_OK)]
    return Cell("images", pictured[0], pictured[0]) if pictured else Cell(words.NOT_MEASURED, "")


def spread_cell(values: Sequence[float], nan: str = "", beyond: str = "∞") -> Cell:
    """Median and range; how many are NaN, where that has a meaning. `beyond` stands for infinity."""

    def said(value: float) -> str:
        return beyond if value == math.inf else words.number(value)

    known = [value for value in values if not math.isnan(value)]
    lost = len(values) - len(known)
    without = f"{nan} in {lost} of {len(values)}" if nan and lost else ""
    if not known:
        return Cell(without or NO_VALUE, "")
    low, high = said(min(known)), said(max(known))
    spread = f"{low} to {high}" if low != high else ""
    return Cell(said(statistics.median(known)), "; ".join(part for part in (spread, without) if part))


def cloud_lines(summary: StudySummary) -> list[tuple[str, list[Cell]]]:
    """How the latent points lie: a quantity, and its median and range over the runs of each arm."""
    lines = []
    for quantity in QUANTITIES:
        of_runs = [(run.arm, run.cloud.get(quantity.name)) for run in summary.runs.values()]
        of_arms = [[value for arm, value in of_runs if arm == asked and value is not None] for asked in summary.arms]
        if any(of_arms):
            lines.append((quantity.label, [spread_cell(values) for values in of_arms]))
    return lines


@dataclass(frozen=True)
class SensitivityLine:
    """One arm with one limit of divergence or rule of a jump: its counts, and the shifted with each other limit."""

    arm: str
    rule: str
    row: SensitivityRow
    shifted: list[int]


def sensitivity_lines(summary: StudySummary, plan: PlanConfig) -> list[SensitivityLine]:
    """A line for each arm and limit of divergence, then for each rule of a jump."""
    lines = []
    for arm, rows in summary.sensitivity.items():
        rules: dict[str, list[SensitivityRow]] = {}
        for row in rows:
            rules.setdefault(rule(row, plan), []).append(row)
        lines += [
            SensitivityLine(arm, words, found[0], [row.num_shifted for row in found]) for words, found in rules.items()
        ]
    return lines


def rule(row: SensitivityRow, plan: PlanConfig) -> str:
    """'R × 2 (planned)', 'jump × 1.3', 'jump need not last'."""
    if row.jump_factor != plan.course.jump_factor:
        return f"jump × {row.jump_factor:g}"
    if row.lasting_probes != plan.course.lasting_probes:
        return "jump need not last" if row.lasting_probes == 1 else f"jump lasts {row.lasting_probes} probes"
    planned = " (planned)" if row.diverged_factor == plan.classes.diverged_factor else ""
    return f"R × {row.diverged_factor:g}{planned}"


# What is behind a figure


def csv(rows: Sequence[Mapping[str, Any]]) -> str:
    """Rows with the same keys as a CSV file, '' if there are none; None is an empty cell."""
    if not rows:
        return ""
    text = io.StringIO()
    writer = comma_separated.DictWriter(text, fieldnames=list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def course_rows(courses: Sequence[Course]) -> list[dict[str, Any]]:
    """R over the steps of every run: a row per run and probe."""
    return [
        {"run": course.name, "class": course.kind, "step": step, "radius_median": radius}
        for course in courses
        for step, radius in zip(course.steps.tolist(), course.radii.tolist(), strict=True)
    ]


def event_rows(curves: EventCurves) -> list[dict[str, Any]]:
    """Aalen-Johansen estimates, a row per kind of event and step at which one or the number at risk changes.

    Without any event, 'none' with a share of 0.
    """
    nothing = (None,) * len(curves.steps)
    never = Incidence(count=0, share=(0.0,) * len(curves.steps), low=nothing, high=nothing)
    found: list[tuple[str, Incidence]] = [*curves.events.items()] or [("none", never)]
    rows = []
    for event, of_kind in found:
        columns = (curves.steps, curves.at_risk, curves.censored, of_kind.share, of_kind.low, of_kind.high)
        names = ("step", "at_risk", "censored", "share", "low", "high")
        rows += [{"event": event} | dict(zip(names, row, strict=True)) for row in zip(*columns, strict=True)]
    return rows


def rate_rows(summary: StudySummary) -> list[dict[str, Any]]:
    """A row per arm and endpoint."""
    return [
        {
            "arm": name,
            "endpoint": endpoint,
            "num_runs": arm.num_runs,
            "num_missing": arm.num_missing,
            "count": share.count,
            "rate": share.rate,
            "low": share.interval.low,
            "high": share.interval.high,
            "level": share.interval.level,
            "method": share.interval.method,
            "rate_if_none_missing": share.if_none_missing,
            "rate_if_all_missing": share.if_all_missing,
        }
        for name, arm in summary.arms.items()
        for endpoint, share in arm.endpoints.items()
    ]


def radius_rows(runs: Sequence[EndedRun]) -> list[dict[str, Any]]:
    """Histograms of R = ||mu||_2: a row per run and bin, the last without an upper end."""
    rows = []
    for run in runs:
        histogram = run.statistics.radius_mu.histogram
        counts = [*histogram.counts, histogram.overflow]
        for position, count in enumerate(counts):
            low = position * histogram.bin_width
            high = low + histogram.bin_width if position < len(histogram.counts) else None
            rows.append({"run": run.name, "class": run.run_class, "low": low, "high": high, "images": count})
    return rows


def history_rows(runs: Sequence[EndedRun]) -> list[dict[str, Any]]:
    """Losses and radii after each epoch: a row per run and epoch."""
    columns = ("epoch", "step", "reconstruction_loss", "excess_loss", "kl_loss", "radius_median")
    return [
        {"run": run.name, "class": run.run_class, **{column: getattr(record, column) for column in columns}}
        for run in runs
        for record in run.history
    ]


def pair_rows(found: LikenessToControl, plan: PairPlan) -> list[dict[str, Any]]:
    """A row per pair of runs, VAE and AE first, then AEs of different seeds."""
    rows = []
    for pair in (*found.pairs, *found.null):
        values = pair.model_dump()
        shifts = values.pop("log_radius_shifts")
        quantiles = {f"log_radius_shift_{share:g}": value for share, value in zip(plan.quantiles, shifts, strict=True)}
        rows.append(values | quantiles)
    return rows


# Events whose runs' kept states were measured


@dataclass(frozen=True)
class JumpRow:
    """A change across an event, or the event alone where none was measured."""

    run: str
    event: str
    sharpness: str
    """By its limit, of the last state before the event."""
    steps: str
    """Between which the change was measured; or why none was."""
    radii: str = ""
    decoder_radii: str = ""
    scale: str = ""
    scale_share: str = ""
    loss_paid: str = ""


def jump_rows(runs: Mapping[str, RunSummary]) -> list[JumpRow]:
    """The events of all runs that were measured, in the order of the study."""
    return [row for name, run in runs.items() if run.edge for event in run.edge.events for row in _rows_of(name, event)]


def num_unmeasured(runs: Mapping[str, RunSummary]) -> int:
    """Runs that ended, with an event, whose kept states were not measured."""
    ended = [run for run in runs.values() if run.run_class is not None]
    return sum(run.edge is None and bool(run.course.marks or run.nonfinite_step is not None) for run in ended)


def _rows_of(name: str, event: MeasuredEvent) -> list[JumpRow]:
    said = findings.seen(event.kind, event.step)
    sharpness = NO_VALUE
    if event.state_step is not None:
        ratio = "not found" if event.sharpness_ratio is None else words.number(event.sharpness_ratio)
        sharpness = f"{ratio} (after {event.state_step:,})"
    if not event.changes:
        missing = "after" if event.state_step is not None else "before"
        why = "nothing is finite after it" if event.kind == "nonfinite" else f"no state {missing} it was measured"
        return [JumpRow(name, said, sharpness, why)]
    return [
        JumpRow(
            name,
            said,
            sharpness,
            _arrow(*(f"{step:,}" for step in change.steps)),
            _arrow(*map(words.number, change.radii)),
            "not defined" if change.decoder_radii is None else _arrow(*map(words.number, change.decoder_radii)),
            words.signed(change.scale),
            NO_VALUE if change.scale_share is None else words.percent(change.scale_share),
            words.signed(change.loss_paid),
        )
        for change in event.changes
    ]


def _arrow(before: str, after: str) -> str:
    return f"{before} → {after}"
