"""What a run of a study left: read, and compared with what it must hold, so that damage never becomes a number."""

from __future__ import annotations

import hashlib
import logging
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from vaehpc.command import UserError
from vaehpc.schema.config import RunConfig
from vaehpc.schema.results import EpochRecord, LatentStatistics, TrainedRecord, TriggerMark
from vaehpc.stats.course import ProbeCurve
from vaehpc.stats.departures import StepRecord
from vaehpc.stats.limits import limits_acted
from vaehpc.stats.runs import FoundRun, MeasuredRun, MissingRun
from vaehpc.study.attempts import all_attempts, starts_of, tail
from vaehpc.study.files import RunDir, is_there, step_of
from vaehpc.tasks.probe import read_curve, read_probe, sha256_of
from vaehpc.tasks.recorded import read_steps

logger = logging.getLogger(__name__)

NUM_LAST_WORDS = 15
"""Lines of a missing run's log that the summary repeats."""
LONGEST = 1e12
"""Seconds that no training takes."""


def read_run(run_dir: RunDir, config: RunConfig) -> FoundRun:
    """What a run left. Whatever its folder holds, it hides no other run.

    One with damaged settings, marker, history, triggers or statistics is missing, and its last words say why. Damage to
    its recorder costs the course alone.
    """
    stage: Literal["train", "statistics"] = "train"
    try:
        require_own_settings(run_dir, config)
        if not is_there(run_dir.trained_path):
            return MissingRun(config, stage, last_words(run_dir), read_curve(run_dir))
        stage = "statistics"
        if not is_there(run_dir.statistics_path):
            return MissingRun(config, stage, last_words(run_dir), read_curve(run_dir))
        return measured_run(run_dir, config)
    except UserError as damage:
        return MissingRun(config, stage, str(damage), curve_of(run_dir))
    except OSError as error:
        return MissingRun(config, stage, f"{error.filename} cannot be read: {error.strerror}", curve_of(run_dir))
    except Exception as error:  # what no check foresaw hides no other run either
        logger.exception("%s", run_dir.name)
        return MissingRun(config, stage, f"{run_dir.path} cannot be read: {error!r}", curve_of(run_dir))


def measured_run(run_dir: RunDir, config: RunConfig) -> MeasuredRun:
    """A run with all its results.

    Raises:
        UserError: one of them is damaged, or not of this run.
    """
    trained, statistics = run_dir.trained(), run_dir.statistics()
    require_trained(trained, config, run_dir.trained_path)
    history = run_dir.history(sha256_of(run_dir, trained, run_dir.history_path))
    require_measured(statistics, trained, run_dir.statistics_path)
    require_history(history, trained, config, run_dir.history_path)
    probe = read_probe(run_dir.probe, sha256_of(run_dir, trained, run_dir.probe))
    steps = read_steps(run_dir.steps, sha256_of(run_dir, trained, run_dir.steps))
    return MeasuredRun(
        config=config,
        trained=trained,
        statistics=statistics,
        history=history,
        probe=probe,
        triggers=read_triggers(run_dir, config, trained),
        limits_acted=limits_acted(config.arm, steps),
        num_recorded=len(steps.steps),
        losses_sha256=losses_sha256(steps),
        starts=starts_of(run_dir, trained),
    )


def read_triggers(run_dir: RunDir, config: RunConfig, trained: TrainedRecord) -> list[TriggerMark]:
    """Its triggers in the order of their steps; UserError if the record of one is damaged, or of another run."""
    records = run_dir.trigger_records()
    for name in trained.files_sha256:
        if name.startswith("triggers/") and not is_there(run_dir.path / name):
            logger.warning("%s is not there any more", run_dir.path / name)
    for folder, record in zip(run_dir.trigger_dirs(), records, strict=True):
        path = folder / "trigger.json"
        if record.identity not in (None, config.identity):
            raise UserError(f"{path} is of another run, or of other settings")
        _require(path, "step", record.step, record.step == step_of(folder))
    return [TriggerMark(step=record.step, signal=record.signal) for record in records]


def curve_of(run_dir: RunDir) -> ProbeCurve | None:
    """The probe of a damaged run; None where even that cannot be read."""
    try:
        return read_curve(run_dir)
    except Exception as error:  # as above
        logger.warning("%s: %r", run_dir.probe, error)
        return None


# What must hold


def require_own_settings(run_dir: RunDir, config: RunConfig) -> None:
    """UserError if run.json is damaged, or says something else than the study."""
    if run_dir.config().identity != config.identity:
        raise UserError(f"{run_dir.config_path} says other settings than study.json: one of them was changed")


def require_trained(trained: TrainedRecord, config: RunConfig, path: Path) -> None:
    """UserError if a training of this run cannot have ended so."""
    lost, num_steps = trained.nonfinite_step, config.num_steps
    if trained.run != config.name or trained.identity not in (None, config.identity):
        raise UserError(f"{path} is of another run: {trained.run}, or of other settings")
    _require(path, "nonfinite_step", lost, lost is None or 0 <= lost < num_steps)
    _require(path, "step", trained.step, trained.step == num_steps if lost is None else 0 <= trained.step <= num_steps)
    _require(path, "epochs", trained.epochs, 0 <= trained.epochs <= config.arm.train.epochs)
    _require(path, "threads", trained.threads, trained.threads > 0)
    _require(path, "num_attempts", trained.num_attempts, trained.num_attempts > 0)
    _require(path, "seconds", trained.seconds, 0 <= trained.seconds < LONGEST)
    each = trained.seconds_per_epoch
    _require(path, "seconds_per_epoch", each, math.isnan(each) or 0 <= each < LONGEST)


def require_measured(statistics: LatentStatistics, trained: TrainedRecord, path: Path) -> None:
    """UserError if these are not the statistics of this training."""
    if statistics.run != trained.run or statistics.state_sha256 not in (None, trained.state_sha256):
        raise UserError(f"{path} is not of this training: {statistics.run} was measured, or another state of it")
    for name, radii in (("radius_mu", statistics.radius_mu), ("radius_z", statistics.radius_z)):
        is_finite = 0 <= radii.min <= radii.median <= radii.max < math.inf
        _require(path, f"{name}.median", radii.median, is_finite or statistics.num_nonfinite > 0)


def require_history(history: Sequence[EpochRecord], trained: TrainedRecord, config: RunConfig, path: Path) -> None:
    """UserError if these are not all epochs of a training, one after the other, with numbers."""
    if len(history) != trained.epochs:
        raise UserError(f"{path} has {len(history)} epochs, and trained.json says {trained.epochs}: it was cut off")
    for epoch, record in enumerate(history, start=1):
        _require(path, "epoch", record.epoch, record.epoch == epoch)
        _require(path, "step", record.step, record.step == epoch * config.steps_per_epoch)
        loss = record.reconstruction_loss
        _require(path, "reconstruction_loss", loss, math.isfinite(loss) or trained.nonfinite_step is not None)


def _require(path: Path, name: str, value: object, holds: bool) -> None:
    if not holds:
        raise UserError(f"{path}: {name} cannot be {value}. It was damaged or edited: restore it.")


# What else it left


def losses_sha256(record: StepRecord) -> str | None:
    """Hash of the recorded total losses; None where there are none."""
    losses = record.signals.get("total_loss")
    return None if losses is None else hashlib.sha256(losses.tobytes()).hexdigest()


def last_words(run_dir: RunDir) -> str | None:
    """The end of the newest attempt's log; None if there is no attempt or it left no log."""
    attempts = all_attempts(run_dir)
    if not attempts:
        return None
    return "\n".join(tail(attempts[-1].log, NUM_LAST_WORDS)) or None
