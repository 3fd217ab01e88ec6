"""10,000 runs of the article's size on 500 nodes, simulated: what they ask of their shared file system, and when.

Every node takes the next array element when one has ended. Nodes differ a little in speed, and so fall out of step.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from vaehpc.schema.config import RunConfig
from vaehpc.study.attempts import BEAT_SECONDS
from vaehpc.study.study import num_weights

NUM_RUNS, NUM_NODES = 10_000, 500
STARTS_PER_SECOND = 75.0
"""Of array elements, by a Slurm that has nothing else to do (assumption, as are the others)."""
SECONDS_BETWEEN = (2.0, 10.0)
"""From an element's end to the start of the next one."""
IMPORT_SECONDS, COMPILE_SECONDS, STATISTICS_SECONDS = (10.0, 20.0), (20.0, 40.0), (60.0, 120.0)
READ_RATE = 1e9
"""Bytes per second of one node from the shared file system."""
ENCODING_SPEEDUP = 3.0
"""Of images encoded over images trained."""
SPEED_SPREAD = 0.05
IMAGE_OPERATIONS = 20
"""Of a container's start: the image is one file."""

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Costs:
    """Metadata operations of a run of a VAE by what they belong to, and bytes of the files that its imports open."""

    environment: float
    environment_of_statistics: float
    start: float
    block: float
    """One that does not end an epoch."""
    epoch_end: float
    """A block, a checkpoint and a heartbeat."""
    heartbeat: float
    end: float
    statistics: float
    environment_bytes: float

    def per_run(self, run: RunConfig) -> float:
        """In the study and the data, without the heartbeats between checkpoints."""
        num_epochs = run.arm.train.epochs
        blocks = num_epochs * (blocks_per_epoch(run) - 1) * self.block
        return self.start + blocks + num_epochs * self.epoch_end + self.end + self.statistics


@dataclass(frozen=True)
class Fleet:
    """How the runs are sent."""

    name: str
    images_per_second: float = 50_000.0
    """Trained by a node, by all of its runs together."""
    runs_at_once: int = 1
    """On a node: of one array element."""
    in_image: bool = False
    staged: bool = False
    """Shards are copied to the nodes' own disks. Else each element reads them anew: nothing is taken to be cached."""


@dataclass(frozen=True)
class Load:
    """What the shared file system is asked for in each second."""

    operations: Floats
    read: Floats
    written: Floats


def blocks_per_epoch(run: RunConfig) -> int:
    """They end at the probes and at the epoch's end."""
    return -(-run.steps_per_epoch // run.plan.probe.every_steps)


def data_bytes(run: RunConfig) -> int:
    """Pixels of the training split."""
    return run.data.num_train * run.data.image_size**2 * 3


def latents_bytes(run: RunConfig) -> int:
    """mu, log_var and z."""
    return 3 * 4 * run.data.num_train * run.arm.model.z_dim


def checkpoint_bytes(run: RunConfig) -> int:
    """Weights and Adam's two moments."""
    return 3 * 4 * num_weights(run)


def written_bytes(run: RunConfig) -> int:
    """By a run until its end; the most of it in checkpoints that are dropped again."""
    return (run.arm.train.epochs + 1) * checkpoint_bytes(run) + latents_bytes(run)


class _Seconds:
    """Sums by the second."""

    def __init__(self) -> None:
        self._sums = np.zeros(0)

    def add(self, times: Floats, amount: float) -> None:
        """At each of these times."""
        sums = np.bincount(times.astype(np.int64).ravel(), minlength=len(self._sums)) * float(amount)
        sums[: len(self._sums)] += self._sums
        self._sums = sums

    def spread(self, starts: Floats, seconds: Floats | float, amount: float) -> None:
        """Evenly, from each start on for so many seconds."""
        for share in (np.arange(16) + 0.5) / 16:
            self.add(starts + seconds * share, amount / 16)

    def until(self, end: int) -> Floats:
        """Of each second up to this one."""
        return np.pad(self._sums, (0, end - len(self._sums)))


def simulated(fleet: Fleet, costs: Costs, run: RunConfig, seed: int = 0) -> Load:
    """The load of all trainings and statistics, from the first element's start to the last one's end."""
    rng = np.random.default_rng(seed)
    operations, read, written = _Seconds(), _Seconds(), _Seconds()
    starts = np.arange(NUM_NODES) / STARTS_PER_SECOND
    for wave in range(NUM_RUNS // (NUM_NODES * fleet.runs_at_once)):
        is_first = wave == 0
        environment = IMAGE_OPERATIONS if fleet.in_image else costs.environment
        imported = rng.uniform(*IMPORT_SECONDS, NUM_NODES)
        operations.spread(starts, imported, fleet.runs_at_once * environment)
        if is_first:  # later the node has it in memory
            read.spread(starts, imported, costs.environment_bytes)
        loaded = data_bytes(run) / READ_RATE if is_first or not fleet.staged else 0.0
        if loaded:
            read.spread(starts + imported, loaded, data_bytes(run))
        operations.add(starts + imported, fleet.runs_at_once * costs.start)
        speed = fleet.images_per_second / fleet.runs_at_once * rng.lognormal(0.0, SPEED_SPREAD, NUM_NODES)
        begun = starts + imported + loaded + rng.uniform(*COMPILE_SECONDS, NUM_NODES)
        trained = [
            _trained(begun + rng.uniform(0, 1, NUM_NODES), speed, costs, run, (operations, written))
            for _ in range(fleet.runs_at_once)
        ]
        starts = np.max(trained, axis=0) + rng.uniform(*SECONDS_BETWEEN, NUM_NODES)
        for ended in trained:
            begun = ended + rng.uniform(*SECONDS_BETWEEN, NUM_NODES)
            imported = rng.uniform(*IMPORT_SECONDS, NUM_NODES)
            environment = IMAGE_OPERATIONS if fleet.in_image else costs.environment_of_statistics
            operations.spread(begun, imported, environment)
            read.spread(begun + imported, latents_bytes(run) / READ_RATE, latents_bytes(run))
            operations.add(begun + imported + rng.uniform(*STATISTICS_SECONDS, NUM_NODES), costs.statistics)
    end = int(starts.max() + SECONDS_BETWEEN[1] + IMPORT_SECONDS[1] + STATISTICS_SECONDS[1]) + 1
    return Load(*(of.until(end) for of in (operations, read, written)))


def _trained(begun: Floats, speed: Floats, costs: Costs, run: RunConfig, sums: tuple[_Seconds, _Seconds]) -> Floats:
    """Add the load of a training on each node, from its first step on; when they end."""
    operations, written = sums
    train, num_blocks = run.arm.train, blocks_per_epoch(run)
    evaluated = min(train.eval_images, run.data.num_train) / ENCODING_SPEEDUP
    epoch_seconds = (run.data.num_train + evaluated) / speed
    epochs = begun[:, np.newaxis] + np.multiply.outer(epoch_seconds, np.arange(train.epochs))
    operations.spread(epochs, epoch_seconds[:, np.newaxis], (num_blocks - 1) * costs.block)
    for beat in range(1, int(epoch_seconds.max() / BEAT_SECONDS) + 1):
        due = epochs[epoch_seconds > beat * BEAT_SECONDS] + beat * BEAT_SECONDS
        operations.add(due, costs.heartbeat)
    written.add(begun, checkpoint_bytes(run))
    ends = epochs + epoch_seconds[:, np.newaxis]
    operations.add(ends, costs.epoch_end)
    written.add(ends, checkpoint_bytes(run))
    encoded = ends[:, -1] + run.data.num_train / (ENCODING_SPEEDUP * speed)
    operations.add(encoded, costs.end)
    written.add(encoded, latents_bytes(run))
    return encoded


def peak(sums: Floats, seconds: int) -> float:
    """The largest mean per second over so many seconds."""
    whole = sums[: len(sums) // seconds * seconds].reshape(-1, seconds)
    return float(whole.mean(axis=1).max())
