"""Sum up a study: read every run's results, write summary.json and runs.parquet, pages of runs, figures and report.

May run at any time, also beside trainings: a run without results is missing, and the next aggregate replaces the files.
"""

from __future__ import annotations

import hashlib
import logging
import os
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from vaehpc.command import UserError, explained
from vaehpc.reporting.crate import crate
from vaehpc.reporting.document import write_report
from vaehpc.schema.config import RunConfig, StudyConfig
from vaehpc.schema.results import PairDistances, StudySummary, TriggerMark
from vaehpc.stats.comparison import Reference
from vaehpc.stats.departures import StepRecord
from vaehpc.stats.limits import limits_acted
from vaehpc.stats.pairs import distances, pairs_of
from vaehpc.stats.quantities import QUANTITIES, measure
from vaehpc.stats.runs import FoundRun, MeasuredRun, MissingRun
from vaehpc.stats.summary import summarise
from vaehpc.study.attempts import all_attempts, starts_of, tail
from vaehpc.study.files import RunDir, StudyDir, declaration, write_model, write_text
from vaehpc.tasks.pages import write_pages
from vaehpc.tasks.recorded import read_probe, read_steps
from vaehpc.tasks.verdict import verdicts_of

logger = logging.getLogger(__name__)

NUM_LAST_WORDS = 15
"""Lines of a missing run's log that the summary repeats."""

ARROW = {float: pa.float64(), int: pa.int64(), str: pa.string()}
RUNS_TABLE = pa.schema(
    [
        ("run", pa.string()),
        ("arm", pa.string()),
        ("seed", pa.int64()),
        ("class", pa.string()),
        ("onset_step", pa.int64()),
        ("onset_kind", pa.string()),
        ("ever_diverged", pa.bool_()),
        ("verdict", pa.string()),
        ("missing_stage", pa.string()),
        ("last_words", pa.string()),
        ("followed_steps", pa.int64()),
        *(
            pa.field(quantity.name, ARROW[quantity.kind], metadata={"words": quantity.words, "unit": quantity.unit})
            for quantity in QUANTITIES
        ),
    ]
)
"""Columns of runs.parquet: what a RunSummary tells of every run, then the quantities of one that ended; else null."""


def run(directory: str) -> None:
    """Sum up the study in this directory with the results that it has now.

    Raises:
        UserError: this is not a study, or its files cannot be written.
    """
    study = StudyDir(Path(directory))
    config = study.config()
    runs = [read_run(study.run(run.name), run) for run in config.runs()]
    summary = summarise(config, runs, read_reference(), measure_pairs(study, config, runs))
    summary = judged_again(summary, verdicts_of(study, config.name))
    write_model(study.summary_path, summary)
    write_table(study.runs_table, runs_table(summary, runs))
    write_pages(study, config, summary)
    write_report(study, summary)
    write_text(study.crate, crate(study, config, summary))
    logger.info("%s: %s", config.name, study.report)


def judged_again(summary: StudySummary, verdicts: Mapping[str, str]) -> StudySummary:
    """The summary with what replays found of some of its runs."""
    runs = {name: run.model_copy(update={"verdict": verdicts.get(name)}) for name, run in summary.runs.items()}
    return summary.model_copy(update={"runs": runs})


# Reading


def read_run(run_dir: RunDir, config: RunConfig) -> FoundRun:
    """What a run left. One with a damaged record is missing, so that it hides no other run; its last words say why."""
    if not run_dir.trained_path.exists():
        return MissingRun(config, "train", last_words(run_dir), read_probe(run_dir.probe))
    if not run_dir.statistics_path.exists():
        return MissingRun(config, "statistics", last_words(run_dir), read_probe(run_dir.probe))
    try:
        return MeasuredRun(
            config=config,
            trained=(trained := run_dir.trained()),
            statistics=run_dir.statistics(),
            history=run_dir.history(),
            probe=read_probe(run_dir.probe),
            triggers=[TriggerMark(step=record.step, signal=record.signal) for record in run_dir.trigger_records()],
            limits_acted=limits_acted(config.arm, steps := read_steps(run_dir.steps)),
            num_recorded=len(steps.steps),
            losses_sha256=losses_sha256(steps),
            starts=starts_of(run_dir, trained),
        )
    except UserError as damage:
        return MissingRun(config, "statistics", str(damage), read_probe(run_dir.probe))


def losses_sha256(record: StepRecord) -> str | None:
    """Hash of the recorded total losses; None where there are none."""
    losses = record.signals.get("total_loss")
    return None if losses is None else hashlib.sha256(losses.tobytes()).hexdigest()


def measure_pairs(study: StudyDir, config: StudyConfig, runs: Sequence[FoundRun]) -> list[PairDistances]:
    """How far each VAE is from the AE of its seed, and AEs from each other; two runs in memory at a time."""
    measured = [run for run in runs if isinstance(run, MeasuredRun)]
    num_images, plan = config.data.num_train, config.plan.pairs
    images = np.random.default_rng(config.key("images")).permutation(num_images)[: plan.num_images]
    found = []
    for pair in pairs_of(config, measured):
        first, second = (study.run(run.config.name) for run in pair)
        if (radii := (read_radii(first), read_radii(second))) and radii[0] is not None and radii[1] is not None:
            found.append(distances(*pair, (radii[0], radii[1]), read_points(first, second, np.sort(images)), plan))
    return found


def read_radii(run_dir: RunDir) -> npt.NDArray[np.float32] | None:
    """R = ||mu||_2 of every image; None if the file is gone."""
    path = run_dir.statistics_arrays / "radius_mu.npy"
    return np.load(path) if path.exists() else None


def read_points(
    first: RunDir, second: RunDir, images: npt.NDArray[np.int64]
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]] | None:
    """mu of these images in both runs, float32 (num_images, z_dim); None if either was removed."""
    if not (first.mu.exists() and second.mu.exists()):
        return None
    of_first, of_second = (np.load(run.mu, mmap_mode="r")[images] for run in (first, second))
    return of_first, of_second


def last_words(run_dir: RunDir) -> str | None:
    """The end of the newest attempt's log; None if there is no attempt or it left no log."""
    attempts = all_attempts(run_dir)
    if not attempts:
        return None
    return "\n".join(tail(attempts[-1].log, NUM_LAST_WORDS)) or None


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


def write_table(path: Path, table: pa.Table) -> None:
    """Write aside, then rename: `path` is never seen half-written."""
    aside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        pq.write_table(table, aside)
        aside.replace(path)
    except OSError as error:
        aside.unlink(missing_ok=True)
        raise explained(error, path) from error
