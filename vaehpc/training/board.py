"""Scalars, reconstructions and latents for TensorBoard, beside the record; nothing here is ever read back.

The events are built by hand: tf.summary.scalar and tf.summary.image want TensorBoard installed, nothing else does.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import tensorflow as tf
from PIL import Image

from vaehpc.schema.config import RunConfig
from vaehpc.study.attempts import Attempt
from vaehpc.study.files import DataDir
from vaehpc.study.states import Progress
from vaehpc.training.encode import GRID_COLUMNS, decode, save_grid, unit_range
from vaehpc.training.fit import Signals, TrainedBlock
from vaehpc.training.models import Net
from vaehpc.training.pipeline import Images

EVENT_FILES = "events.out.tfevents"
"""TensorBoard knows a file of events by this part of its name."""
FILE_VERSION = "brain.Event:2"
"""What a file of events begins with."""

STEP_TAGS = {
    "total_loss": "loss/total",
    "reconstruction_loss": "loss/reconstruction",
    "kl_loss": "loss/kl",
    "gradient_norm": "gradient/norm",
    "gradient_rms": "gradient/rms",
    "update_norm": "update/norm",
    "log_var_max": "log_var/max",
    "radius_mean": "radius/batch_mean",
}
"""Signals that are shown of a step; an AE lacks some."""
PROBE_TAGS = {
    "radius_median": "radius/probe_median",
    "radius_max": "radius/probe_max",
    "offset": "radius/probe_offset",
    "spread": "radius/probe_spread",
}
EPOCH_TAGS = {
    "total_loss": "loss/epoch_total",
    "reconstruction_loss": "loss/epoch_reconstruction",
    "kl_loss": "loss/epoch_kl",
    "excess_loss": "loss/epoch_excess",
    "radius_median": "radius/epoch_median",
    "radius_mean": "radius/epoch_mean",
    "radius_max": "radius/epoch_max",
    "offset": "radius/epoch_offset",
    "spread": "radius/epoch_spread",
    "log_var_min": "log_var/epoch_min",
    "log_var_mean": "log_var/epoch_mean",
    "log_var_max": "log_var/epoch_max",
}
EVERY_STEPS = 10
"""Steps from one shown step to the next: TensorBoard draws a thousand points of a curve, of tens of thousands."""

NUM_PROJECTED = 2000
"""Latents in the projector, whose t-SNE runs in the browser."""
THUMBNAIL_SIDE = 32
"""Pixels; 45 x 45 of them stay far below the projector's limit of 8192 x 8192."""


class Board:
    """Scalars of a run over its steps, in an event file of this attempt.

    A resumed run still has one curve: its attempt writes everything up to its first step again, and only then do the
    files of earlier attempts go. An orphan goes on writing to a file that has no name any more.
    """

    def __init__(self, attempt: Attempt, progress: Progress, rows: pa.Table) -> None:
        """Write the scalars of the run so far.

        Args:
            attempt: the attempt that goes on.
            progress: where it starts.
            rows: of recorder/steps.arrow before `progress.step`.

        Raises:
            SupersededError: a newer attempt exists; its files are untouched.
        """
        aside = attempt.path / f"{EVENT_FILES}.{attempt.number:04d}"
        self._writer = tf.io.TFRecordWriter(str(aside))
        self._num_epochs = 0
        self._num_probes = 0
        self._writer.write(_event(0, file_version=FILE_VERSION))
        self._write_signals(rows["step"].to_numpy(), {name: rows[name].to_numpy() for name in rows.column_names})
        self._write_records(progress)
        folder = attempt.run.tensorboard
        folder.mkdir(exist_ok=True)
        attempt.publish(aside, folder / aside.name)
        for file in folder.glob(f"{EVENT_FILES}.*"):
            if int(file.suffix[1:]) < attempt.number:
                file.unlink(missing_ok=True)

    def write_block(self, block: TrainedBlock) -> None:
        """Write what a block of steps added."""
        stop = block.progress.step
        self._write_signals(np.arange(stop - len(block.signals["total_loss"]), stop), block.signals)
        self._write_records(block.progress)

    def _write_signals(self, steps: npt.NDArray[np.int64], signals: Signals) -> None:
        """Write every tenth of these steps, counted from 0."""
        for row in np.flatnonzero(steps % EVERY_STEPS == 0):
            values = {tag: float(signals[name][row]) for name, tag in STEP_TAGS.items() if name in signals}
            self._write_scalars(int(steps[row]), values)

    def _write_records(self, progress: Progress) -> None:
        """Write the probes and epochs that are not written yet, and flush."""
        for probe in progress.probe[self._num_probes :]:
            self._write_scalars(probe.step, {tag: getattr(probe, name) for name, tag in PROBE_TAGS.items()})
        for epoch in progress.epochs[self._num_epochs :]:
            self._write_scalars(epoch.step, {tag: getattr(epoch, name) for name, tag in EPOCH_TAGS.items()})
        self._num_probes, self._num_epochs = len(progress.probe), len(progress.epochs)
        self._writer.flush()

    def _write_scalars(self, step: int, values: Mapping[str, float | None]) -> None:
        """Write the values of one step by their tags; those that an AE lacks are None."""
        known = {tag: value for tag, value in values.items() if value is not None}
        scalars = [tf.compat.v1.Summary.Value(tag=tag, simple_value=value) for tag, value in known.items()]
        self._writer.write(_event(step, summary=tf.compat.v1.Summary(value=scalars)))


def write_reconstructions(attempt: Attempt, net: Net, images: Images, step: int) -> None:
    """Write the first training images above their reconstructions from mu, after `step` steps.

    A file for each step, which every attempt writes alike: the pictures of finished epochs stay when a run resumes.
    They stand in a folder of their own, because TensorBoard reads on in the folder's last file only.

    Raises:
        SupersededError: a newer attempt exists; nothing was published.
    """
    originals = images[:GRID_COLUMNS]
    mu, _ = net.encode(unit_range(tf.constant(originals)), training=False)
    grid = attempt.path / "reconstructions.png"
    save_grid(grid, np.concatenate([originals, decode(net, np.asarray(mu))]), len(originals))
    picture = tf.compat.v1.Summary.Image(
        width=len(originals) * originals.shape[2],
        height=2 * originals.shape[1],
        colorspace=3,
        encoded_image_string=grid.read_bytes(),
    )
    value = tf.compat.v1.Summary.Value(tag="reconstructions", image=picture)
    aside = attempt.path / f"{EVENT_FILES}.{step:09d}"
    with tf.io.TFRecordWriter(str(aside)) as writer:
        writer.write(_event(step, file_version=FILE_VERSION))
        writer.write(_event(step, summary=tf.compat.v1.Summary(value=[value])))
    folder = attempt.run.tensorboard / "images"
    folder.mkdir(parents=True, exist_ok=True)
    attempt.publish(aside, folder / aside.name)


def write_projector(attempt: Attempt, run: RunConfig, images: Images) -> None:
    """Write latents/mu.npy of the first training images for the projector, with their attributes and thumbnails.

    Raises:
        SupersededError: a newer attempt exists; nothing was published.
    """
    count = min(NUM_PROJECTED, run.arm.train.eval_images, len(images))
    side = min(THUMBNAIL_SIDE, run.data.image_size)
    folder = attempt.path / "projector"
    folder.mkdir()
    # As text: TensorBoard tells binary latents only by bytes that are no UTF-8.
    np.savetxt(folder / "mu.tsv", np.load(attempt.run.mu, mmap_mode="r")[:count], fmt="%.6g", delimiter="\t")
    _write_attributes(folder / "metadata.tsv", DataDir(Path(run.data.path)), count)
    _write_thumbnails(folder / "sprite.png", images[:count], side)
    attempt.run.tensorboard.mkdir(exist_ok=True)
    attempt.publish(folder, attempt.run.tensorboard / folder.name)
    attempt.publish_text(_projector_config(side), attempt.run.tensorboard / "projector_config.pbtxt")


def _event(step: int, **what: Any) -> bytes:
    serialised: bytes = tf.compat.v1.Event(wall_time=time.time(), step=step, **what).SerializeToString()
    return serialised


def _write_attributes(path: Path, data: DataDir, count: int) -> None:
    """A line per image: its number and its attributes as 0 or 1."""
    manifest = data.manifest()
    first = manifest.splits["train"].first_image
    shown = slice(first, first + count)
    columns = [np.load(file, mmap_mode="r")[shown] for file in (data.image_numbers, data.attributes)]
    # TensorBoard takes the header of a single column for a label.
    header = "\t".join(("image", *manifest.attributes)) if manifest.attributes else ""
    np.savetxt(path, np.column_stack(columns), fmt="%d", delimiter="\t", header=header, comments="")


def _write_thumbnails(path: Path, images: npt.NDArray[np.uint8], side: int) -> None:
    """All images (n, size, size, 3) in one square picture, row by row, each `side` pixels wide."""
    columns = int(np.ceil(np.sqrt(len(images))))
    thumbnails = np.zeros((columns**2, side, side, 3), np.uint8)
    for thumbnail, image in zip(thumbnails, images, strict=False):
        thumbnail[:] = np.asarray(Image.fromarray(image).resize((side, side), Image.Resampling.BOX))
    save_grid(path, thumbnails, columns)


def _projector_config(side: int) -> str:
    """projector_config.pbtxt; paths are relative to it."""
    return f"""\
embeddings {{
  tensor_name: "mu"
  tensor_path: "projector/mu.tsv"
  metadata_path: "projector/metadata.tsv"
  sprite {{
    image_path: "projector/sprite.png"
    single_image_dim: {side}
    single_image_dim: {side}
  }}
}}
"""
