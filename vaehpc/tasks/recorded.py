"""Read what the flight recorder of a run holds: steps, probe, and what happened around its triggers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from vaehpc.command import UserError
from vaehpc.reporting.explanation import Explained
from vaehpc.schema.results import TrainedRecord
from vaehpc.stats.course import ProbeCurve
from vaehpc.stats.departures import NOT_SIGNALS, StepRecord, event
from vaehpc.study.files import RunDir
from vaehpc.study.streams import read_stream

NO_CURVE = ProbeCurve(np.array([], np.int64), np.array([], np.float64))


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
    record = read_steps(run_dir.steps, _sha256(run_dir, run_dir.steps))
    for folder, trigger in zip(run_dir.trigger_dirs(), run_dir.trigger_records(), strict=True):
        record = record.joined(read_steps(folder / "ring.arrow", trigger.ring_sha256))
    return record


def read_curve(run_dir: RunDir) -> ProbeCurve:
    """The probe's curve of a run, as far as it is sound."""
    return read_probe(run_dir.probe, _sha256(run_dir, run_dir.probe))


def _sha256(run_dir: RunDir, path: Path) -> str | None:
    """Of a file of the recorder as the run's marker says it; None where it does not say."""
    try:
        return sha256_of(run_dir, run_dir.trained(), path)
    except UserError:  # it is not trained yet, or its marker is damaged
        return None


def sha256_of(run_dir: RunDir, trained: TrainedRecord, path: Path) -> str | None:
    """Of a file of history or recorder as this marker says it; None where it does not say."""
    return trained.files_sha256.get(run_dir.name_of(path))


def read_steps(path: Path, sha256: str | None = None) -> StepRecord:
    """The steps up to the last batch of records that is whole; empty if there is none, or it is not of this SHA-256."""
    table = read_stream(path, sha256)
    if table is None or not _are_numbers(table) or not _ascend(steps := table["step"].to_numpy()):
        return StepRecord(np.array([], np.int64), {})
    signals = [name for name in table.column_names if name not in NOT_SIGNALS]
    return StepRecord(steps, {name: np.asarray(table[name].to_numpy(), np.float64) for name in signals})


def read_probe(path: Path, sha256: str | None = None) -> ProbeCurve:
    """The probe's curve up to the last batch of records that is whole; empty if there is none, or as above."""
    rows = read_stream(path, sha256)
    if rows is not None and _are_numbers(rows) and "radius_median" in rows.column_names:
        steps, radii = rows["step"].to_numpy(), rows["radius_median"].to_numpy()
        if _ascend(steps) and not (radii < 0).any():  # NaN is not
            return ProbeCurve(steps, radii)
    return NO_CURVE


def _are_numbers(table: pa.Table) -> bool:
    """Whether it has steps, and what else is in it are numbers."""
    kinds = {name: table.schema.field(name).type for name in table.column_names}
    is_whole = kinds.get("step") == pa.int64() and not table["step"].null_count
    return is_whole and all(pa.types.is_integer(kind) or pa.types.is_floating(kind) for kind in kinds.values())


def _ascend(steps: npt.NDArray[np.int64]) -> bool:
    """Whether these are numbers of steps in their order."""
    return bool(steps[0] >= 0 and (np.diff(steps) > 0).all()) if len(steps) else True
