"""Sum up a study: read every run's results, write summary.json, tables of runs, pages of runs, figures and report.

May run at any time, also beside trainings: a run without results is missing, and the next aggregate replaces the files.
"""

from __future__ import annotations

import logging
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import csv

from vaehpc.command import UserError
from vaehpc.reporting.answers import shown_runs
from vaehpc.reporting.crate import crate
from vaehpc.reporting.document import Known, write_report
from vaehpc.reporting.explanation import first_departure
from vaehpc.schema.config import StudyConfig
from vaehpc.schema.results import PairDistances, Stability, StudySummary
from vaehpc.stats.comparison import Reference
from vaehpc.stats.edge import edge_summary
from vaehpc.stats.pairs import distances, pairs_of
from vaehpc.stats.quantities import QUANTITIES, measure
from vaehpc.stats.runs import FoundRun, MeasuredRun
from vaehpc.stats.summary import summarise
from vaehpc.study.attempts import write_record
from vaehpc.study.files import StudyDir, declaration, is_there, read_array, write_model, write_text, written_aside
from vaehpc.study.tables import dictionary
from vaehpc.tasks.explanation import read_stability
from vaehpc.tasks.found import read_run
from vaehpc.tasks.pages import recorded, write_pages
from vaehpc.tasks.verdict import lines, links, replays_of

logger = logging.getLogger(__name__)

SAME_RADIUS = 1e-5
"""Relative: a radius is kept in float32."""

ARROW = {float: pa.float64(), int: pa.int64(), str: pa.string()}


def column(name: str, kind: pa.DataType, words: str, unit: str = "") -> pa.Field:
    """A column that says what it means."""
    return pa.field(name, kind, metadata={"words": words, "unit": unit})


RUNS_TABLE = pa.schema(
    [
        column("run", pa.string(), "name: ARM-seedNNN"),
        column("arm", pa.string(), "arm of the study"),
        column("seed", pa.int64(), "runs of equal seeds share initial weights and batches"),
        column("class", pa.string(), "class at the end; null: missing"),
        column(
            "onset_step", pa.int64(), "steps done at the probe that saw the first jump or growth; null: none", "steps"
        ),
        column("onset_kind", pa.string(), "jump or growth"),
        column("ever_diverged", pa.bool_(), "jumped, grew, or ended beyond the limit; null: that is not judged"),
        column("verdict", pa.string(), "of the replays beside the study"),
        column("missing_stage", pa.string(), "stage without a result; null: the run ended"),
        column("last_words", pa.string(), "end of the log of a missing run"),
        column("followed_steps", pa.int64(), "steps up to which its radius was seen", "steps"),
        *(column(quantity.name, ARROW[quantity.kind], quantity.words, quantity.unit) for quantity in QUANTITIES),
    ]
)
"""Columns of runs.parquet: what a RunSummary tells of every run, then the quantities of one that ended; else null."""


PARTS = ("results of runs", "tests", "pages of runs", "report")
"""Of the work, in this order."""


def run(directory: str) -> None:
    """Sum up the study in this directory with the results that it has now.

    Raises:
        UserError: this is not a study, or its files cannot be written.
    """
    study = StudyDir(Path(directory))
    config = study.config()

    def begin(part: str) -> None:
        beat = {"part": part, "part_number": 1 + PARTS.index(part), "num_parts": len(PARTS)}
        write_record(study.heartbeat("aggregate"), beat)

    study.make_jobs()
    begin("results of runs")
    runs = [read_run(study.run(run.name), run) for run in config.runs()]
    begin("tests")
    summary = summarise(config, runs, read_reference(), measure_pairs(study, config, runs))
    replays = replays_of(study, config.name)
    summary = judged_again(
        summary, {run: lines(of_run) for run, of_run in replays.items()}, stabilities_of(study, summary)
    )
    write_model(study.summary_path, summary)
    write_tables(study, runs_table(summary, runs))
    begin("pages of runs")
    pages = {run: links(of_run) for run, of_run in replays.items()}
    write_pages(study, config, summary, pages)
    begin("report")
    write_report(study, summary, Known(runs, causes_of(study, summary), pages))
    write_text(study.crate, crate(study, config, summary))
    logger.info("%s: %s", config.name, study.report)


def judged_again(
    summary: StudySummary, verdicts: Mapping[str, str], stabilities: Mapping[str, Sequence[Stability]]
) -> StudySummary:
    """The summary with what replays and measurements of stability found of some of its runs."""
    runs = {}
    for name, run in summary.runs.items():
        edge = edge_summary(run.course, run.nonfinite_step, states) if (states := stabilities.get(name)) else None
        runs[name] = run.model_copy(update={"verdict": verdicts.get(name), "edge": edge})
    return summary.model_copy(update={"runs": runs})


# Reading


def stabilities_of(study: StudyDir, summary: StudySummary) -> dict[str, Sequence[Stability]]:
    """What was measured of the kept states of the runs that ended; a damaged file is said and left out."""
    found = {}
    for name, run in summary.runs.items():
        try:
            if run.run_class is not None and (states := read_stability(study.run(name))):
                found[name] = states
        except UserError as damage:
            logger.warning("the stability of %s is left out: %s", name, damage)
    return found


def measure_pairs(study: StudyDir, config: StudyConfig, runs: Sequence[FoundRun]) -> list[PairDistances]:
    """How far each VAE is from the AE of its seed, and AEs from each other; two runs in memory at a time."""
    measured = [run for run in runs if isinstance(run, MeasuredRun)]
    num_images, plan = config.data.num_train, config.plan.pairs
    images = np.random.default_rng(config.key("images")).permutation(num_images)[: plan.num_images]
    found, compared = [], set[str]()
    for pair in pairs_of(config, measured):
        try:
            radii = [read_radii(study, run) for run in pair]
            points = [
                read_points(study, run, of_run, np.sort(images), run.config.name in compared)
                for run, of_run in zip(pair, radii, strict=True)
            ]
            compared |= {run.config.name for run in pair}
        except FileNotFoundError:  # somebody made room
            continue
        except UserError as damage:
            logger.warning("%s and %s are not compared: %s", *(run.config.name for run in pair), damage)
            continue
        together = None if points[0] is None or points[1] is None else (points[0], points[1])
        found.append(distances(*pair, (radii[0], radii[1]), together, plan))
    return found


def read_radii(study: StudyDir, run: MeasuredRun) -> npt.NDArray[np.float32]:
    """R = ||mu||_2 of every image.

    Raises:
        FileNotFoundError: the file is gone.
        UserError: it is damaged.
    """
    path = study.run(run.config.name).statistics_arrays / "radius_mu.npy"
    if not is_there(path):
        raise FileNotFoundError(path)
    radii = read_array(path, run.statistics.arrays_sha256.get(path.name))
    if radii.shape != (run.config.data.num_train,) or radii.dtype != np.float32:
        raise UserError(f"{path} holds {radii.dtype} {radii.shape}, not a radius of every image")
    return radii


def read_points(
    study: StudyDir, run: MeasuredRun, radii: npt.NDArray[np.float32], images: npt.NDArray[np.int64], is_whole: bool
) -> npt.NDArray[np.float32] | None:
    """mu of these images, float32 (num_images, z_dim); None if it was removed.

    Args:
        study: of the run.
        run: whose latents they are.
        radii: (num_train,), of its statistics.
        images: their positions.
        is_whole: the file was compared with its SHA-256 before.

    Raises:
        UserError: it is damaged, or its points do not lie at these radii.
    """
    path = study.run(run.config.name).mu
    if not is_there(path):
        return None
    mu = read_array(path, None if is_whole else run.trained.latents_sha256.get(path.name))
    if mu.shape != (len(radii), run.config.arm.model.z_dim) or mu.dtype != np.float32:
        raise UserError(f"{path} holds {mu.dtype} {mu.shape}, not the latents of the run")
    points = np.asarray(mu[images])
    with np.errstate(over="ignore", invalid="ignore"):
        found = np.linalg.norm(points.astype(np.float64), axis=1)
    if not np.allclose(found, radii[images], rtol=SAME_RADIUS, equal_nan=True):
        raise UserError(f"{path} is not what the statistics were made of: its points lie elsewhere")
    return points


def read_reference() -> Reference:
    """The article's numbers."""
    return Reference.model_validate(tomllib.loads(declaration("analysis/reference.toml")))


# Writing


def runs_table(summary: StudySummary, runs: Sequence[FoundRun]) -> pa.Table:
    """One row per run, in the order of the study."""
    rows = [
        {
            "run": run.config.name,
            **summary.runs[run.config.name].model_dump(by_alias=True),
            **(measure(run) if isinstance(run, MeasuredRun) else {}),
        }
        for run in runs
    ]
    return pa.Table.from_pylist(rows, schema=RUNS_TABLE)


def write_tables(study: StudyDir, table: pa.Table) -> None:
    """runs.parquet, the same as CSV, and what its columns mean.

    Raises:
        UserError: the disk is full, or the folder may not be written.
    """
    with written_aside(study.runs_table) as aside:
        pq.write_table(table, aside)
    for path, content in ((study.runs_csv, table), (study.columns_csv, dictionary(table.schema))):
        with written_aside(path) as aside:
            csv.write_csv(content, aside)


def causes_of(study: StudyDir, summary: StudySummary) -> dict[str, str]:
    """What left its band first in each run that the report names at its beginning, as far as its recorder knows."""
    found = {}
    for name in shown_runs(summary):
        if summary.runs[name].run_class is not None and (record := recorded(study.run(name))) is not None:
            found[name] = first_departure(record, summary.runs[name])
    return found
