"""The training itself: compiled blocks of steps, the probe between them, the record of each epoch."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
import tensorflow as tf

from vaehpc.schema.config import RunConfig, SpikeConfig, TrainConfig
from vaehpc.schema.results import EpochRecord, ProbeRecord
from vaehpc.stats.radius import offset_and_spread, radii
from vaehpc.study.states import Progress, state_hash
from vaehpc.training.checkpoint import NonFiniteError, state_arrays
from vaehpc.training.encode import Encoder, compiled_encoder, noise_key, unit_range
from vaehpc.training.losses import kl_divergence, reconstruction_loss
from vaehpc.training.models import Net
from vaehpc.training.pipeline import Images, epoch_order, feeding, memory_of_gpu, resident_images
from vaehpc.training.signals import LOSSES, WeightWatcher, image_signals, signal_names, vae_signals

Block = Callable[[Iterator[tf.Tensor], tf.Tensor, tf.Tensor], tf.Tensor]
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


class FusedAdam(keras.optimizers.Adam):  # type: ignore[misc]
    """Adam by TensorFlow's own kernel: one pass over weights, moments and gradients in place of Keras' twelve.

    It has no other option than these, above all none that the kernel would pass over, such as amsgrad.
    """

    def __init__(
        self,
        learning_rate: float,
        beta_2: float = 0.999,
        global_clipnorm: float | None = None,
        # Keras numbers unnamed ones, and checkpoints find the variables by their names.
        name: str = "adam",
    ) -> None:
        super().__init__(learning_rate, beta_2=beta_2, global_clipnorm=global_clipnorm, name=name)

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        config = super().get_config()
        return {option: config[option] for option in ("learning_rate", "beta_2", "global_clipnorm", "name")}

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
    """Adam with its variables made; with loss scaling in float16, whose smallest gradients would vanish otherwise."""
    optimizer = FusedAdam(train.learning_rate, beta_2=train.beta_2, global_clipnorm=train.clipnorm)
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
    resident = resident_images(images, memory_of_gpu())
    block = compiled_block(run, net, optimizer, resident=resident)
    names = signal_names(run.arm, net)
    encode = compiled_encoder(net, run.arm.train.batch_size)
    batch_size, every_steps = run.arm.train.batch_size, run.plan.probe.every_steps
    num_blocks, max_steps = 0, 1
    while progress.step < run.num_steps:
        epoch, done = divmod(progress.step, run.steps_per_epoch)
        order = epoch_order(run, epoch)
        iterator = iter(feeding(images, resident, order[done * batch_size :], batch_size))
        while done < run.steps_per_epoch and progress.step < run.num_steps:
            ends = (every_steps - progress.step % every_steps, run.steps_per_epoch - done)
            num_steps = min(*ends, run.num_steps - progress.step, max_steps)
            begun = time.monotonic()
            first_step = tf.constant(progress.step, tf.int64)
            results = np.asarray(block(iterator, first_step, tf.constant(num_steps, tf.int64)))
            num_blocks += 1
            if num_blocks >= NUM_FIRST_BLOCKS:
                max_steps = max(1, int(MAX_BLOCK_SECONDS * num_steps / (time.monotonic() - begun)))
            signals = dict(zip(names, results.T, strict=True))
            images_of_block = order[done * batch_size : (done + num_steps) * batch_size]
            progress = _after_block(run, progress, signals, images_of_block)
            done += num_steps
            if progress.step % every_steps == 0:
                record = _probe(run, images, encode, progress.step)
                progress = progress.model_copy(update={"probe": (*progress.probe, record)})
            if done == run.steps_per_epoch:
                state = state_hash(state_arrays([*net.variables, *optimizer.variables]), progress.step)
                progress = _after_epoch(run, images, encode, progress, state)
            yield TrainedBlock(progress, signals, images_of_block)


def compiled_block(
    run: RunConfig,
    net: Net,
    optimizer: keras.optimizers.Optimizer,
    recorded: bool = True,
    resident: tf.Tensor | None = None,
) -> Block:
    """A function (iterator, first step, number of steps) -> signals (steps, len(signal_names)) of each step.

    Nothing goes to the host between the steps of a block. Not `recorded`, to measure what the record costs, the
    result holds the losses alone. The iterator is of `feeding` with the same `resident` images.
    """
    key = noise_key(run)
    width = len(signal_names(run.arm, net)) if recorded else len(LOSSES)
    plain_step = _compiled_step(net, optimizer, recorded, None)
    spiked_step = _compiled_step(net, optimizer, recorded, run.arm.spike)

    def train_step(pixels: tf.Tensor, epsilon: tf.Tensor, step: tf.Tensor) -> tf.Tensor:
        if run.arm.spike is None:
            return plain_step(pixels, epsilon)
        # Two functions: one that could do both would round otherwise in every step.
        return tf.cond(
            step == run.spike_step, lambda: spiked_step(pixels, epsilon), lambda: plain_step(pixels, epsilon)
        )

    @tf.function
    def block(iterator: Iterator[tf.Tensor], first_step: tf.Tensor, num_steps: tf.Tensor) -> tf.Tensor:
        signals = tf.TensorArray(tf.float32, size=tf.cast(num_steps, tf.int32), element_shape=(width,))
        for i in tf.range(num_steps):
            pixels = next(iterator) if resident is None else tf.gather(resident, next(iterator))
            # Drawn outside of the step, because XLA makes other numbers of the same key.
            epsilon = net.noise(key, first_step + i, tf.shape(pixels)[0])
            signals = signals.write(tf.cast(i, tf.int32), train_step(pixels, epsilon, first_step + i))
        return signals.stack()

    return block  # type: ignore[no-any-return]


def _compiled_step(
    net: Net, optimizer: keras.optimizers.Optimizer, recorded: bool, spike: SpikeConfig | None
) -> Callable[[tf.Tensor, tf.Tensor], tf.Tensor]:
    """A function (uint8 pixels, epsilon) -> signals of one step of Adam, with the arm's spike in it or without."""
    variables = net.trainable_variables
    watcher = WeightWatcher(net, optimizer)

    # Without autograph, which would translate everything that is called: two seconds of each start.
    @tf.function(jit_compile=is_compiled(net.arm.train), autograph=False)
    def train_step(pixels: tf.Tensor, epsilon: tf.Tensor) -> tf.Tensor:
        images = unit_range(pixels)
        loss_scale = watcher.loss_scale()
        with tf.GradientTape() as tape:
            mu, log_var = net.encode(images, training=True, log_var_spike=_log_var_spike(spike, epsilon))
            z = net.sample(mu, log_var, epsilon)
            image_losses = reconstruction_loss(images, net.decoder(z, training=True))
            reconstruction = tf.reduce_mean(image_losses)
            kl = tf.constant(0.0)
            if net.arm.vae is not None:
                kl = net.arm.vae.kl_weight * tf.reduce_mean(kl_divergence(mu, log_var))
            total = reconstruction + kl
            scaled = optimizer.scale_loss(total)
        gradients = tape.gradient(scaled, variables)
        if spike is not None and spike.kind == "gradient":
            gradients = [spike.strength * gradient for gradient in gradients]
        optimizer.apply(gradients, variables)
        losses = [total, reconstruction, kl]
        if not recorded:
            return tf.stack(losses)
        of_images = image_signals(mu, image_losses) + ([] if log_var is None else vae_signals(mu, log_var, epsilon))
        return tf.stack([*losses, *of_images, *watcher.signals(gradients, loss_scale)])

    return train_step  # type: ignore[no-any-return]


def is_compiled(train: TrainConfig) -> bool:
    """Whether XLA compiles the training step, here."""
    return bool(tf.config.list_logical_devices("GPU")) if train.jit_compile is None else train.jit_compile


def _log_var_spike(spike: SpikeConfig | None, epsilon: tf.Tensor) -> tf.Tensor | None:
    """What is added to log_var (batch, z_dim): the spike on one component of the first image.

    It is the component with the largest |epsilon|, so that its effect is not left to a draw near zero.
    """
    if spike is None or spike.kind != "log_var":
        return None
    component = tf.argmax(tf.abs(epsilon[0]))
    return tf.scatter_nd([[0, component]], [spike.strength], tf.shape(epsilon, tf.int64))


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


def _probe(run: RunConfig, images: Images, encode: Encoder, step: int) -> ProbeRecord:
    """Radii of the probe: the first images of the training split, without noise."""
    mu, _ = encode(images, min(run.plan.probe.num_images, len(images)))
    radius = radii(mu)
    offset, spread = offset_and_spread(mu)
    return ProbeRecord(
        step=step,
        radius_median=float(np.median(radius)),
        radius_max=float(radius.max()),
        offset=offset,
        spread=spread,
    )


def _after_epoch(run: RunConfig, images: Images, encode: Encoder, progress: Progress, state_sha256: str) -> Progress:
    """Measure the latents, add the epoch's record, and start new sums."""
    mu, log_var = encode(images, min(run.arm.train.eval_images, len(images)))
    radius = radii(mu)
    offset, spread = offset_and_spread(mu)
    total, reconstruction, kl = (loss / run.data.num_train for loss in progress.loss_sums)
    record = EpochRecord(
        epoch=progress.step // run.steps_per_epoch,
        step=progress.step,
        total_loss=total,
        reconstruction_loss=reconstruction,
        kl_loss=kl,
        excess_loss=reconstruction - run.data.entropy_floor,
        radius_median=float(np.median(radius)),
        radius_mean=float(radius.mean()),
        radius_max=float(radius.max()),
        offset=offset,
        spread=spread,
        log_var_min=None if log_var is None else float(log_var.min()),
        log_var_mean=None if log_var is None else float(log_var.mean(dtype=np.float64)),
        log_var_max=None if log_var is None else float(log_var.max()),
        state_sha256=state_sha256,
    )
    return progress.model_copy(update={"loss_sums": (0.0, 0.0, 0.0), "epochs": (*progress.epochs, record)})
