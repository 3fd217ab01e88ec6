"""A finished study as tables: pandas' where it is installed, else Arrow's."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from vaehpc.command import UserError
from vaehpc.schema.config import StudyConfig
from vaehpc.schema.results import EpochRecord, StudySummary
from vaehpc.study.files import RunDir, StudyDir, opened
from vaehpc.study.streams import read_stream
from vaehpc.study.study import found_run, found_study

Table = Any
"""A pandas.DataFrame where pandas is installed, else a pyarrow.Table."""


class StudyTables:
    """What a study measured; each table is read when it is first asked for."""

    def __init__(self, study: StudyDir) -> None:
        self.study = study

    @cached_property
    def config(self) -> StudyConfig:
        """What the study was asked to be."""
        return self.study.config()

    @cached_property
    def summary(self) -> StudySummary:
        """Every count, rate, class and test."""
        return self.study.summary()

    @cached_property
    def runs(self) -> Table:
        """A row per run, missing ones too; `columns` says what each column means."""
        return shown(self._runs)

    @cached_property
    def columns(self) -> Table:
        """A row per column of `runs`: name, type, unit, meaning."""
        return shown(dictionary(self._runs.schema))

    @cached_property
    def epochs(self) -> Table:
        """A row per run and epoch: losses in nats per image, radii; up to the NaN of a run that became NaN."""
        rows = [self._named(run) | record.model_dump() for run in self._run_dirs for record in run.history()]
        return shown(pa.Table.from_pylist(rows) if rows else _empty(EpochRecord))

    @cached_property
    def probe(self) -> Table:
        """A row per run and probe: step, radius_median, radius_max, offset, spread."""
        found = []
        for run in self._run_dirs:
            if (table := read_stream(run.probe)) is not None:
                names = {name: pa.array([value] * len(table)) for name, value in self._named(run).items()}
                found.append(pa.table({**names, **{name: table[name] for name in table.column_names}}))
        if not found:
            raise UserError(f"no run of {self.study.path} has a probe any more")
        return shown(pa.concat_tables(found))

    def steps(self, run: str) -> Table:
        """A row per step that the flight recorder of a run holds; UserError if there is none."""
        if (table := read_stream(found_run(self.study, run).steps)) is None:
            raise UserError(f"run {run} has no recorded steps any more")
        return shown(table)

    def radii(self, run: str) -> npt.NDArray[np.float32]:
        """R = ||mu||_2 of every image of a run at its end, float32 (num_images,); UserError if they are gone."""
        if (radii := found_run(self.study, run).radii()) is None:
            raise UserError(f"run {run} has no radii: it has no statistics, or they were removed")
        return radii

    @cached_property
    def _runs(self) -> pa.Table:
        try:
            with opened(self.study.runs_table) as file:
                return pq.read_table(file)
        except FileNotFoundError:
            found = f"{self.study.path} has no runs.parquet yet"
        except (OSError, pa.ArrowException) as error:
            found = f"{self.study.runs_table} cannot be read: {getattr(error, 'strerror', None) or error}"
        raise UserError(f"{found}: `vaehpc report {self.study.path}` makes it")

    @cached_property
    def _run_dirs(self) -> Sequence[RunDir]:
        return [self.study.run(run.name) for run in self.config.runs()]

    def _named(self, run: RunDir) -> dict[str, str | int]:
        arm, _, seed = run.name.rpartition("-seed")
        return {"run": run.name, "arm": arm, "seed": int(seed)}


def load(study: str | Path) -> StudyTables:
    """A study by its folder, or by its name under 'runs'.

    Raises:
        UserError: there is none.
    """
    return StudyTables(found_study(Path(study)))


def dictionary(schema: pa.Schema) -> pa.Table:
    """What the columns of runs.parquet mean: name, type, unit, meaning."""
    metadata = [{key.decode(): value.decode() for key, value in (of.metadata or {}).items()} for of in schema]
    return pa.table(
        {
            "name": schema.names,
            "type": [str(of.type) for of in schema],
            "unit": [of.get("unit", "") for of in metadata],
            "meaning": [of.get("words", "") for of in metadata],
        }
    )


def shown(table: pa.Table) -> Table:
    """For pandas where it is installed."""
    return table.to_pandas() if find_spec("pandas") else table


def _empty(record: type[EpochRecord]) -> pa.Table:
    return pa.table({name: pa.array([], pa.float64()) for name in ("run", "arm", "seed", *record.model_fields)})
