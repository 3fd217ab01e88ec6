"""Read the probe of a run; it takes no figures, which what reads the recorder's steps is there for."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from vaehpc.command import UserError
from vaehpc.schema.results import TrainedRecord
from vaehpc.stats.course import ProbeCurve
from vaehpc.study.files import RunDir
from vaehpc.study.streams import read_stream

NO_CURVE = ProbeCurve(np.array([], np.int64), np.array([], np.float64))


def read_curve(run_dir: RunDir) -> ProbeCurve:
    """The probe's curve of a run, as far as it is sound."""
    sha256 = known_sha256(run_dir, run_dir.probe)
    return read_probe(run_dir.probe, sha256, None if sha256 else run_dir.config().identity)


def read_probe(path: Path, sha256: str | None = None, identity: str | None = None) -> ProbeCurve:
    """The curve up to the last batch of records that is whole; empty if there is none, or of another hash or run."""
    rows = read_stream(path, sha256, identity)
    if rows is not None and are_numbers(rows) and "radius_median" in rows.column_names:
        steps, radii = rows["step"].to_numpy(), rows["radius_median"].to_numpy()
        if ascend(steps) and not (radii < 0).any():  # NaN is not
            return ProbeCurve(steps, radii)
    return NO_CURVE


def known_sha256(run_dir: RunDir, path: Path) -> str | None:
    """Of a file of the recorder as the run's marker says it; None where it does not say."""
    try:
        return sha256_of(run_dir, run_dir.trained(), path)
    except UserError:  # it is not trained yet, or its marker is damaged
        return None


def sha256_of(run_dir: RunDir, trained: TrainedRecord, path: Path) -> str | None:
    """Of a file of history or recorder as this marker says it; None where it does not say."""
    return trained.files_sha256.get(run_dir.name_of(path))


def are_numbers(table: pa.Table) -> bool:
    """Whether it has steps, and what else is in it are numbers."""
    kinds = {name: table.schema.field(name).type for name in table.column_names}
    is_whole = kinds.get("step") == pa.int64() and not table["step"].null_count
    return is_whole and all(pa.types.is_integer(kind) or pa.types.is_floating(kind) for kind in kinds.values())


def ascend(steps: npt.NDArray[np.int64]) -> bool:
    """Whether these are numbers of steps in their order."""
    return bool(steps[0] >= 0 and (np.diff(steps) > 0).all()) if len(steps) else True
