"""The record of a training as files that others read: history.jsonl and recorder/probe.arrow."""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa

from vaehpc.files import Attempt
from vaehpc.results import ProbeRecord
from vaehpc.training.checkpoint import Progress

PROBE_SCHEMA = pa.schema(
    [
        ("step", pa.int64()),
        ("radius_median", pa.float64()),
        ("radius_max", pa.float64()),
        ("offset", pa.float64()),
        ("spread", pa.float64()),
    ]
)


def publish_record(attempt: Attempt, progress: Progress) -> None:
    """Replace history and probe by those of `progress`, which holds them from the first step on.

    Raises:
        SupersededError: a newer attempt exists; nothing was published.
    """
    lines = "".join(epoch.model_dump_json() + "\n" for epoch in progress.epochs)
    attempt.publish_text(lines, attempt.run.history_path)
    attempt.run.recorder.mkdir(exist_ok=True)
    aside = attempt.path / attempt.run.probe.name
    with pa.OSFile(str(aside), "wb") as file, pa.ipc.new_stream(file, PROBE_SCHEMA) as stream:
        stream.write_table(probe_table(progress.probe))
    attempt.publish(aside, attempt.run.probe)


def probe_table(records: Sequence[ProbeRecord]) -> pa.Table:
    """The probe as columns."""
    return pa.Table.from_pylist([record.model_dump() for record in records], schema=PROBE_SCHEMA)
