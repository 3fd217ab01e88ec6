"""Read what the flight recorder of a run holds: steps, probe, and what happened around its triggers."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from vaehpc.reporting.explanation import Explained
from vaehpc.stats.departures import NOT_SIGNALS, StepRecord, event
from vaehpc.study.files import RunDir
from vaehpc.study.streams import read_stream
from vaehpc.tasks.probe import are_numbers, ascend, known_sha256, read_curve


def read_recorded(run_dir: RunDir) -> Explained | None:
    """What the recorder of a run holds, and what happened around its triggers; None if it holds no steps.

    Raises:
        UserError: the run's configuration or a trigger's record is damaged.
    """
    config, record = run_dir.config(), read_record(run_dir)
    if not len(record.steps):
        return None
    events = [
        event(number, trigger, record, config.plan) for number, trigger in enumerate(run_dir.trigger_records(), start=1)
    ]
    return Explained(config, record, read_curve(run_dir), events)


def read_record(run_dir: RunDir) -> StepRecord:
    """The recorded steps of a run; what its file lost, from the rings of its triggers."""
    record = read_steps(run_dir.steps, known_sha256(run_dir, run_dir.steps))
    for folder, trigger in zip(run_dir.trigger_dirs(), run_dir.trigger_records(), strict=True):
        record = record.joined(read_steps(folder / "ring.arrow", trigger.ring_sha256))
    return record


def read_steps(path: Path, sha256: str | None = None) -> StepRecord:
    """The steps up to the last batch of records that is whole; empty if there is none, or it is not of this SHA-256."""
    table = read_stream(path, sha256)
    if table is None or not are_numbers(table) or not ascend(steps := table["step"].to_numpy()):
        return StepRecord(np.array([], np.int64), {})
    signals = [name for name in table.column_names if name not in NOT_SIGNALS]
    return StepRecord(steps, {name: np.asarray(table[name].to_numpy(), np.float64) for name in signals})
