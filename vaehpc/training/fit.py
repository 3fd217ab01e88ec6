"""The training itself: compiled blocks of steps, the probe between them, the record of each epoch."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
import tensorflow as tf

from vaehpc.schema.config import RunConfig, TrainConfig
from vaehpc.schema.results import EpochRecord, ProbeRecord
from vaehpc.study.states import Progress
from vaehpc.training.checkpoint import NonFiniteError
from vaehpc.training.device import is_compiled, memory_of_gpu
from vaehpc.training.latents import Measure, measuring
from vaehpc.training.models import Net
from vaehpc.training.pipeline import Images, epoch_order, resident_images
from vaehpc.training.signals import LOSSES, signal_names
from vaehpc.training.steps import training_block

Signals = Mapping[str, npt.NDArray[np.float32]]
"""Signals of consecutive steps by name, each (num_steps,)."""

MAX_BLOCK_SECONDS = 10.0
"""A stop file is seen at the end of a block; there, too, a heartbeat is given and a newer attempt looked for, if the
last time was a while ago."""
NUM_FIRST_BLOCKS = 2
"""Blocks of one step: the first compiles, the second says how long a step takes."""


@dataclass(frozen=True)
class TrainedBlock:
    """A block of steps: how far the training is after it, and what its steps were like."""

    progress: Progress
    signals: Signals
    order: npt.NDArray[np.int64]
    """Positions in the training split of the block's images, batch after batch."""


OPTIONS = ("learning_rate", "beta_1", "beta_2", "epsilon", "global_clipnorm", "weight_decay", "name")


class FusedAdam(keras.optimizers.Adam):  # type: ignore[misc]
    """Adam by TensorFlow's own kernel: one pass over weights, moments and gradients in place of Keras' twelve.

    It has no other option than these, above all none that the kernel would pass over, such as amsgrad.
    """

    def __init__(
        self,
        learning_rate: float,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-7,
        global_clipnorm: float | None = None,
        weight_decay: float | None = None,
        # Keras numbers unnamed ones, and checkpoints find the variables by their names.
        name: str = "adam",
    ) -> None:
        super().__init__(
            learning_rate,
            beta_1=beta_1,
            beta_2=beta_2,
            epsilon=epsilon,
            global_clipnorm=global_clipnorm,
            weight_decay=weight_decay,
            name=name,
        )

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        config = super().get_config()
        return {option: config[option] for option in OPTIONS}

    def update_step(self, gradient: tf.Tensor, variable: tf.Variable, learning_rate: tf.Tensor) -> None:
        """Change one variable and its moments."""
        index = self._get_variable_index(variable)
        step = tf.cast(self.iterations + 1, tf.float32)
        tf.raw_ops.ResourceApplyAdam(
            var=variable.handle,
            m=self._momentums[index].value.handle,
            v=self._velocities[index].value.handle,
            beta1_power=tf.pow(self.beta_1, step),
            beta2_power=tf.pow(self.beta_2, step),
            lr=learning_rate,
            beta1=self.beta_1,
            beta2=self.beta_2,
            epsilon=self.epsilon,
            grad=gradient,
        )


def build_optimizer(train: TrainConfig, net: Net) -> keras.optimizers.Optimizer:
    """Adam with its variables made; with loss scaling in float16, whose smallest gradients would vanish otherwise.

    Weight decay is decoupled (Loshchilov and Hutter 2019, arXiv:1711.05101): before Adam's step a kernel w loses
    learning_rate weight_decay w, and nothing else loses anything.
    """
    optimizer = FusedAdam(
        train.learning_rate,
        beta_1=train.beta_1,
        beta_2=train.beta_2,
        epsilon=train.adam_epsilon,
        global_clipnorm=train.clipnorm,
        weight_decay=train.weight_decay,
    )
    optimizer.exclude_from_weight_decay([weight for weight in net.trainable_variables if len(weight.shape) < 2])
    if train.precision == "mixed_float16":
        optimizer = keras.optimizers.LossScaleOptimizer(optimizer, name="loss_scale")
    optimizer.build(net.trainable_variables)
    return optimizer


def forget_moments(optimizer: keras.optimizers.Optimizer) -> None:
    """Set Adam's moments and its count of steps to zero, as before the first step."""
    for variable in optimizer.variables:
        if variable.path.endswith(("_momentum", "_velocity", "/iteration")):
            variable.assign(tf.zeros_like(variable.value))


def train_blocks(
    run: RunConfig, images: Images, net: Net, optimizer: keras.optimizers.Optimizer, progress: Progress
) -> Iterator[TrainedBlock]:
    """Train from `progress` to the end, and hand on every block of steps when it is done.

    Blocks end at the latest at multiples of the probe's interval and at the ends of epochs, wherever a training was
    interrupted; how long they are changes no bit. Net and optimizer always agree with the progress handed on last.

    Raises:
        NonFiniteError: a loss was NaN or infinite; net and optimizer are spoilt. Holds the signals up to that step.
    """
    resident = resident_images(images, memory_of_gpu()) if is_compiled(run.arm.train) else None
    block = training_block(run, images, net, optimizer, resident=resident)
    names = signal_names(run.arm, net)
    measure = measuring(net, images, run.arm.train.batch_size, resident)
    batch_size, every_steps = run.arm.train.batch_size, run.plan.probe.every_steps
    num_blocks, max_steps = 0, 1
    while progress.step < run.num_steps:
        epoch, done = divmod(progress.step, run.steps_per_epoch)
        order = epoch_order(run, epoch)
        block.feed(order[done * batch_size :])
        while done < run.steps_per_epoch and progress.step < run.num_steps:
            ends = (every_steps - progress.step % every_steps, run.steps_per_epoch - done)
            num_steps = min(*ends, run.num_steps - progress.step, max_steps)
            begun = time.monotonic()
            results = block(progress.step, num_steps)
            num_blocks += 1
            if num_blocks >= NUM_FIRST_BLOCKS:
                max_steps = max(1, int(MAX_BLOCK_SECONDS * num_steps / (time.monotonic() - begun)))
            signals = dict(zip(names, results.T, strict=True))
            images_of_block = order[done * batch_size : (done + num_steps) * batch_size]
            progress = _after_block(run, progress, signals, images_of_block)
            done += num_steps
            if progress.step % every_steps == 0:
                record = _probe(run, measure, progress.step)
                progress = progress.model_copy(update={"probe": (*progress.probe, record)})
            if done == run.steps_per_epoch:
                progress = _after_epoch(run, measure, progress)
            yield TrainedBlock(progress, signals, images_of_block)


def _after_block(run: RunConfig, progress: Progress, signals: Signals, order: npt.NDArray[np.int64]) -> Progress:
    """Count the steps and add their losses, each weighted with the images of its batch."""
    losses = np.stack([signals[name] for name in LOSSES], axis=1).astype(np.float64)
    finite = np.isfinite(losses).all(axis=1)
    if not finite.all():
        num_good = int(np.argmin(finite))
        until = {name: values[: num_good + 1] for name, values in signals.items()}
        raise NonFiniteError(progress.step + num_good, until, order, progress.probe)
    batch_size = run.arm.train.batch_size
    starts = (progress.step + np.arange(len(losses))) % run.steps_per_epoch * batch_size
    num_images = np.minimum(batch_size, run.data.num_train - starts)
    sums = np.asarray(progress.loss_sums)
    for weighted in losses * num_images[:, np.newaxis]:  # one by one: the sum must not depend on the blocks
        sums = sums + weighted
    return progress.model_copy(update={"step": progress.step + len(losses), "loss_sums": tuple(sums.tolist())})


def _probe(run: RunConfig, measure: Measure, step: int) -> ProbeRecord:
    """Radii of the probe: the first images of the training split, without noise."""
    found = measure(min(run.plan.probe.num_images, run.data.num_train))
    return ProbeRecord(
        step=step,
        radius_median=float(np.median(found.radius)),
        radius_max=float(found.radius.max()),
        offset=found.offset,
        spread=found.spread,
    )


def _after_epoch(run: RunConfig, measure: Measure, progress: Progress) -> Progress:
    """Measure the latents, add the epoch's record, and start new sums."""
    found = measure(min(run.arm.train.eval_images, run.data.num_train))
    total, reconstruction, kl = (loss / run.data.num_train for loss in progress.loss_sums)
    least, mean, largest = (None, None, None) if found.log_var is None else found.log_var
    record = EpochRecord(
        epoch=progress.step // run.steps_per_epoch,
        step=progress.step,
        total_loss=total,
        reconstruction_loss=reconstruction,
        kl_loss=kl,
        excess_loss=reconstruction - run.data.entropy_floor,
        radius_median=float(np.median(found.radius)),
        radius_mean=float(found.radius.mean()),
        radius_max=float(found.radius.max()),
        offset=found.offset,
        spread=found.spread,
        log_var_min=least,
        log_var_mean=mean,
        log_var_max=largest,
    )
    return progress.model_copy(update={"loss_sums": (0.0, 0.0, 0.0), "epochs": (*progress.epochs, record)})
