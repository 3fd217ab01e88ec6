"""The flight recorder: the signals of every step on disk, and what led to a jump when a signal leaves its limit."""

from __future__ import annotations

import contextlib
import logging
import time
import zlib
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

import keras
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from vaehpc.schema.config import RunConfig
from vaehpc.schema.plan import MAX_TRIGGERS
from vaehpc.schema.results import ProbeRecord, TriggerRecord
from vaehpc.stats.triggers import (
    FloatArray,
    Trigger,
    first_trigger,
    nonfinite_trigger,
    probe_trigger,
    without_overflows,
)
from vaehpc.study.attempts import Attempt
from vaehpc.study.files import record_text, sha256_of_file, write_model
from vaehpc.study.states import Arrays, Progress, checkpoint_name
from vaehpc.study.streams import IDENTITY, read_stream, write_rows
from vaehpc.training.checkpoint import NonFiniteError, state_arrays, write_checkpoint
from vaehpc.training.encode import noise_key
from vaehpc.training.fit import Signals, TrainedBlock
from vaehpc.training.pipeline import batch_of_step
from vaehpc.training.signals import NO_ROW

PROBE_SCHEMA = pa.schema(
    [
        ("step", pa.int64()),
        ("radius_median", pa.float64()),
        ("radius_max", pa.float64()),
        ("offset", pa.float64()),
        ("spread", pa.float64()),
    ]
)
COPIES_PER_TIME = 100
"""A snapshot is taken at the earliest after so many times as long as copying the last one took."""

logger = logging.getLogger(__name__)


def publish_record(attempt: Attempt, progress: Progress) -> None:
    """Replace history and probe by those of `progress`, which holds them from the first step on.

    Raises:
        SupersededError: a newer attempt exists; nothing was published.
    """
    lines = "".join(record_text(epoch) + "\n" for epoch in progress.epochs)
    attempt.publish_text(lines, attempt.run.history_path)
    aside = attempt.path / attempt.run.probe.name
    schema = PROBE_SCHEMA.with_metadata({IDENTITY: progress.identity}) if progress.identity else PROBE_SCHEMA
    with pa.OSFile(str(aside), "wb") as file, pa.ipc.new_stream(file, schema) as stream:
        write_rows(stream, probe_table(progress.probe))
    attempt.publish(aside, attempt.run.probe)


def probe_table(records: Sequence[ProbeRecord]) -> pa.Table:
    """The probe as columns."""
    return pa.Table.from_pylist([record.model_dump() for record in records], schema=PROBE_SCHEMA)


class Snapshot:
    """The state after some step, held in memory."""

    def __init__(self, variables: Sequence[keras.Variable], progress: Progress) -> None:
        begun = time.monotonic()
        self.arrays: Arrays = state_arrays(variables)
        self.progress = progress
        self.taken = time.monotonic()
        self.seconds = self.taken - begun


class FlightRecorder:
    """Writes recorder/steps.arrow while the training goes on, and a folder under triggers/ for each trigger.

    As a context it keeps the file open. A resumed training goes on behind the rows up to its checkpoint. The file is
    opened inside the attempt and renamed into place, so that an attempt that was replaced goes on writing to a file
    that nobody sees.
    """

    def __init__(
        self,
        attempt: Attempt,
        run: RunConfig,
        variables: Sequence[keras.Variable],
        names: Sequence[str],
        start: Progress,
    ) -> None:
        self._attempt = attempt
        self._run = run
        self._variables = variables
        self._schema = steps_schema(run, names)
        self._ring = _rows_before(read_steps(attempt.run.steps, self._schema), start.step)
        self._snapshots = deque([Snapshot(variables, start)], maxlen=2)
        records = attempt.run.trigger_records()
        self._dumped = [record.step for record in records if record.signal != "nonfinite"]
        self._lost = [record.step for record in records if record.signal == "nonfinite"]
        self._burn_in = run.burn_in
        self._open = contextlib.ExitStack()

    def __enter__(self) -> FlightRecorder:
        aside = self._attempt.path / self._attempt.run.steps.name
        file = self._open.enter_context(pa.OSFile(str(aside), "wb"))
        self._stream = self._open.enter_context(pa.ipc.new_stream(file, self._schema))
        write_rows(self._stream, self._ring)
        self._attempt.publish(aside, self._attempt.run.steps)
        self._ring = self._newest(self._ring)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if isinstance(error, NonFiniteError) and error.signals:
            first = error.step + 1 - len(error.signals["total_loss"])
            self._append(first, error.signals, error.order)
            trigger = self._nonfinite_trigger(len(error.signals["total_loss"]))
            if trigger is not None:
                self._dump(trigger)
        self._open.close()

    def record(self, block: TrainedBlock) -> None:
        """Append the block's steps, dump what led to a trigger among them, take a snapshot when it is time."""
        num_new = len(block.signals["total_loss"])
        self._append(block.progress.step - num_new, block.signals, block.order)
        trigger = self._trigger(block.progress, num_new)
        if trigger is not None:
            self._dump(trigger)
        newest = self._snapshots[-1]
        is_far = block.progress.step - newest.progress.step >= self._run.plan.recorder.snapshot_steps
        if is_far and time.monotonic() - newest.taken >= COPIES_PER_TIME * newest.seconds:
            self._snapshots.append(Snapshot(self._variables, block.progress))

    def _append(self, first_step: int, signals: Signals, order: npt.NDArray[np.int64]) -> None:
        batch = steps_batch(self._schema, first_step, signals, order, self._run.arm.train.batch_size)
        rows = pa.Table.from_batches([batch])
        write_rows(self._stream, rows)
        self._ring = self._newest(pa.concat_tables([self._ring, rows]))

    def _newest(self, rows: pa.Table) -> pa.Table:
        # The oldest row of the newest block still looks back over a whole ring.
        num_kept = self._run.plan.recorder.ring_steps + self._run.plan.probe.every_steps
        return rows.slice(max(len(rows) - num_kept, 0))

    def _trigger(self, progress: Progress, num_new: int) -> Trigger | None:
        """The block's trigger that is to be dumped: what is not finite, or the first after the burn-in.

        The latter lies in no earlier one's ring.
        """
        if (lost := self._nonfinite_trigger(num_new)) is not None:
            return lost
        plan = self._run.plan.recorder
        earliest = max([self._burn_in, *(step + plan.ring_steps for step in self._dumped)])
        num_watched = min(num_new, progress.step - earliest)
        if num_watched <= 0 or len(self._dumped) >= MAX_TRIGGERS or self._run.arm.fork is not None:
            return None
        trigger = first_trigger(
            self._watched("step", "gradient_norm", "gradient_rms", "log_var_max"), num_watched, plan
        )
        probes = progress.probe[-2:]
        if trigger is None and len(probes) == 2 and probes[1].step == progress.step:
            before, now = (probe.radius_median for probe in probes)
            trigger = probe_trigger(before, now, progress.step - 1, plan)
        return trigger

    def _nonfinite_trigger(self, num_new: int) -> Trigger | None:
        """The first of the newest steps that is not finite, whatever triggered before; None in the ring of such a one.

        The gradient may be infinite steps before the loss, and both are one event.
        """
        trigger = nonfinite_trigger(self._watched("step", "total_loss", "gradient_norm"), num_new)
        if trigger is None or self._run.arm.fork is not None:
            return None
        ring_steps = self._run.plan.recorder.ring_steps
        return None if any(trigger.step < step + ring_steps for step in self._lost) else trigger

    def _watched(self, *names: str) -> dict[str, FloatArray]:
        """These columns of the ring, of those that it has; in float16 without the steps that were left out."""
        ring = {name: self._ring[name].to_numpy() for name in names if name in self._ring.column_names}
        if self._run.arm.train.precision != "mixed_float16":
            return ring
        return without_overflows(ring)

    def _dump(self, trigger: Trigger) -> None:
        """Write triggers/STEP."""
        run, plan = self._attempt.run, self._run.plan.recorder
        facts = (trigger.signal, trigger.value, trigger.step, trigger.limit)
        logger.warning("%s: %s = %g at step %d, limit %g", run.name, *facts)
        aside = self._attempt.path / f"trigger-{trigger.step:09d}"
        aside.mkdir()
        with pa.OSFile(str(aside / "ring.arrow"), "wb") as file, pa.ipc.new_stream(file, self._schema) as stream:
            write_rows(stream, self._ring.slice(max(len(self._ring) - plan.ring_steps, 0)))
        snapshot = next(held for held in self._snapshots if held.progress.step <= trigger.step)
        write_checkpoint(aside / "snapshot", snapshot.arrays, snapshot.progress)
        record = self._record(trigger, snapshot)
        ring_sha256 = sha256_of_file(aside / "ring.arrow")
        write_model(
            aside / "trigger.json",
            record.model_copy(update={"ring_sha256": ring_sha256, "identity": self._run.identity}),
        )
        self._attempt.publish(aside, run.triggers / checkpoint_name(trigger.step))
        (self._lost if trigger.signal == "nonfinite" else self._dumped).append(trigger.step)

    def _record(self, trigger: Trigger, snapshot: Snapshot) -> TriggerRecord:
        row = self._ring.slice(trigger.step - self._ring["step"][0].as_py(), 1).to_pylist()[0]
        return TriggerRecord(
            step=trigger.step,
            signal=trigger.signal,
            value=trigger.value,
            limit=trigger.limit,
            snapshot_step=snapshot.progress.step,
            images=tuple(batch_of_step(self._run, trigger.step).tolist()),
            largest_loss_image=row["image_loss_image"],
            largest_log_var_image=row.get("log_var_image"),
        )


# Rows


def steps_schema(run: RunConfig, names: Sequence[str]) -> pa.Schema:
    """Columns of steps.arrow: the signals, with images' positions in the training split where the step has rows.

    A position is null where no image stands out. A step's noise is a function of the noise key, in the schema's
    metadata, and of the step as its counter.
    """
    columns = [(_column(name), pa.int64() if name.endswith("_row") else pa.float32()) for name in names]
    metadata = {"run": run.name, "noise_key": str(int(noise_key(run))), IDENTITY: run.identity}
    return pa.schema([("step", pa.int64()), ("batch_hash", pa.int64()), *columns], metadata=metadata)


def _column(signal: str) -> str:
    """An image is known by its row on the device, and by its position in the training split on disk."""
    return signal.removesuffix("_row") + "_image" if signal.endswith("_row") else signal


def steps_batch(
    schema: pa.Schema, first_step: int, signals: Signals, order: npt.NDArray[np.int64], batch_size: int
) -> pa.RecordBatch:
    """Rows of consecutive steps.

    Args:
        schema: of steps.arrow.
        first_step: the first one, counted from 0.
        signals: of the steps by name, each (num_steps,).
        order: positions of the images of these steps, batch after batch.
        batch_size: images of a step; the last may have fewer.
    """
    num_steps = len(signals["total_loss"])
    batches = [order[i * batch_size : (i + 1) * batch_size] for i in range(num_steps)]
    columns: dict[str, npt.NDArray[np.generic] | pa.Array] = {
        "step": np.arange(first_step, first_step + num_steps),
        "batch_hash": np.array([zlib.crc32(batch.tobytes()) for batch in batches], np.int64),
    }
    for name, values in signals.items():
        columns[_column(name)] = np.ascontiguousarray(values)
        if name.endswith("_row"):
            rows = zip(batches, values.astype(int).tolist(), strict=True)
            images = [None if row == NO_ROW else batch[row] for batch, row in rows]
            columns[_column(name)] = pa.array(images, pa.int64())
    return pa.RecordBatch.from_arrays([pa.array(columns[name]) for name in schema.names], schema=schema)


def read_steps(path: Path, schema: pa.Schema) -> pa.Table:
    """The rows of steps.arrow up to its last whole batch; none where it is missing, or has other columns or run."""
    rows = read_stream(path, identity=schema.metadata[IDENTITY].decode())
    return schema.empty_table() if rows is None or rows.schema != schema else rows


def _rows_before(rows: pa.Table, step: int) -> pa.Table:
    return rows.filter(pc.field("step") < step)
