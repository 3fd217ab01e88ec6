"""Read what the flight recorder of a run holds: steps, probe, and what happened around its triggers."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from vaehpc.reporting.explanation import Explained
from vaehpc.stats.course import ProbeCurve
from vaehpc.stats.departures import NOT_SIGNALS, StepRecord, event
from vaehpc.study.files import RunDir
from vaehpc.study.streams import read_stream


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
    return Explained(config, record, read_probe(run_dir.probe), events)


def read_record(run_dir: RunDir) -> StepRecord:
    """The recorded steps of a run; what its file lost, from the rings of its triggers."""
    record = read_steps(run_dir.steps)
    for folder in run_dir.trigger_dirs():
        record = record.joined(read_steps(folder / "ring.arrow"))
    return record


def read_steps(path: Path) -> StepRecord:
    """The steps up to the last batch of records that is whole; empty if there is none."""
    table = read_stream(path)
    if table is None:
        return StepRecord(np.array([], np.int64), {})
    signals = [name for name in table.column_names if name not in NOT_SIGNALS]
    return StepRecord(
        table["step"].to_numpy(), {name: np.asarray(table[name].to_numpy(), np.float64) for name in signals}
    )


def read_probe(path: Path) -> ProbeCurve:
    """The probe's curve up to the last batch of records that is whole; empty if there is none."""
    rows = read_stream(path)
    if rows is None:
        return ProbeCurve(np.array([], np.int64), np.array([], np.float64))
    return ProbeCurve(rows["step"].to_numpy(), rows["radius_median"].to_numpy())
