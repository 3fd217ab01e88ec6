"""The training itself: compiled blocks of steps, the probe between them, the record of each epoch."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import keras
import numpy as np
import numpy.typing as npt
import tensorflow as tf

from vaehpc.config import RunConfig, TrainConfig
from vaehpc.results import EpochRecord, ProbeRecord
from vaehpc.stats.radius import offset_and_spread, radii
from vaehpc.training.checkpoint import NonFiniteError, Progress
from vaehpc.training.encode import Encoder, compiled_encoder, noise_key, unit_range
from vaehpc.training.losses import kl_divergence, reconstruction_loss
from vaehpc.training.models import Net
from vaehpc.training.pipeline import Images, batches, epoch_order

Block = Callable[[Iterator[tf.Tensor], tf.Tensor, tf.Tensor], tf.Tensor]


def build_optimizer(train: TrainConfig, net: Net) -> keras.optimizers.Optimizer:
    """Adam with its variables made; with loss scaling in float16, whose smallest gradients would vanish otherwise."""
    # Named, because Keras numbers unnamed ones, and checkpoints find the variables by their names.
    optimizer = keras.optimizers.Adam(train.learning_rate, name="adam")
    if train.precision == "mixed_float16":
        optimizer = keras.optimizers.LossScaleOptimizer(optimizer, name="loss_scale")
    optimizer.build(net.trainable_variables)
    return optimizer


def train_blocks(
    run: RunConfig, images: Images, net: Net, optimizer: keras.optimizers.Optimizer, progress: Progress
) -> Iterator[Progress]:
    """Train from `progress` to the end, and hand on the progress after every block of steps.

    Blocks end at multiples of the probe's interval and at the ends of epochs, wherever a training was interrupted, so
    that net and optimizer always agree with the progress that was handed on last.

    Raises:
        NonFiniteError: a loss was NaN or infinite; net and optimizer are spoilt.
    """
    block = _compiled_block(run, net, optimizer)
    encode = compiled_encoder(net, run.arm.train.batch_size)
    while progress.step < run.arm.train.epochs * run.steps_per_epoch:
        epoch, done = divmod(progress.step, run.steps_per_epoch)
        batch_size = run.arm.train.batch_size
        order = epoch_order(run, epoch)[done * batch_size :]
        iterator = iter(batches(images, order, batch_size))
        while done < run.steps_per_epoch:
            until_probe = run.plan.probe.every_steps - progress.step % run.plan.probe.every_steps
            num_steps = min(until_probe, run.steps_per_epoch - done)
            losses = block(iterator, tf.constant(progress.step, tf.int64), tf.constant(num_steps, tf.int64))
            progress = _after_block(run, progress, np.asarray(losses, np.float64))
            done += num_steps
            if progress.step % run.plan.probe.every_steps == 0:
                record = _probe(run, images, encode, progress.step)
                progress = progress.model_copy(update={"probe": (*progress.probe, record)})
            if done == run.steps_per_epoch:
                progress = _after_epoch(run, images, encode, progress)
            yield progress


def _compiled_block(run: RunConfig, net: Net, optimizer: keras.optimizers.Optimizer) -> Block:
    """A function (iterator, first step, number of steps) -> losses (steps, 3): total, reconstruction, weighted KL.

    Losses are means over the batch. Nothing goes to the host between the steps of a block.
    """
    key = noise_key(run)
    variables = net.trainable_variables

    @tf.function(jit_compile=run.arm.train.jit_compile)
    def train_step(pixels: tf.Tensor, epsilon: tf.Tensor) -> tf.Tensor:
        images = unit_range(pixels)
        with tf.GradientTape() as tape:
            mu, log_var = net.encode(images, training=True)
            z = net.sample(mu, log_var, epsilon)
            reconstruction = tf.reduce_mean(reconstruction_loss(images, net.decoder(z, training=True)))
            kl = tf.constant(0.0)
            if net.arm.vae is not None:
                kl = net.arm.vae.kl_weight * tf.reduce_mean(kl_divergence(mu, log_var))
            total = reconstruction + kl
            scaled = optimizer.scale_loss(total)
        optimizer.apply(tape.gradient(scaled, variables), variables)
        return tf.stack([total, reconstruction, kl])

    @tf.function
    def block(iterator: Iterator[tf.Tensor], first_step: tf.Tensor, num_steps: tf.Tensor) -> tf.Tensor:
        losses = tf.TensorArray(tf.float32, size=tf.cast(num_steps, tf.int32), element_shape=(3,))
        for i in tf.range(num_steps):
            pixels = next(iterator)
            # Drawn outside of the step, because XLA makes other numbers of the same key.
            epsilon = net.noise(key, first_step + i, tf.shape(pixels)[0])
            losses = losses.write(tf.cast(i, tf.int32), train_step(pixels, epsilon))
        return losses.stack()

    return block  # type: ignore[no-any-return]


def _after_block(run: RunConfig, progress: Progress, losses: npt.NDArray[np.float64]) -> Progress:
    """Count the steps and add their losses, each weighted with the images of its batch."""
    finite = np.isfinite(losses).all(axis=1)
    if not finite.all():
        raise NonFiniteError(progress.step + int(np.argmin(finite)))
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


def _after_epoch(run: RunConfig, images: Images, encode: Encoder, progress: Progress) -> Progress:
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
    )
    return progress.model_copy(update={"loss_sums": (0.0, 0.0, 0.0), "epochs": (*progress.epochs, record)})
