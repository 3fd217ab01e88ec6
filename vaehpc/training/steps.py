"""Steps of the training: one after the other on a processor, a block of them as one program on a GPU."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, Protocol

import keras
import numpy as np
import numpy.typing as npt
import tensorflow as tf
from tensorflow.compiler.tf2xla.python import xla

from vaehpc.schema.config import RunConfig, SpikeConfig
from vaehpc.training.device import is_compiled
from vaehpc.training.encode import noise_key, unit_range
from vaehpc.training.losses import kl_divergence, reconstruction_loss
from vaehpc.training.models import Net
from vaehpc.training.pipeline import Images, batches, device_memory, put_images
from vaehpc.training.signals import LOSSES, WeightWatcher, image_signals, signal_names, vae_signals

Float32 = npt.NDArray[np.float32]
Step = Callable[[tf.Tensor, tf.Tensor], tf.Tensor]
"""(uint8 pixels (batch, size, size, 3), epsilon (batch, z_dim)) -> signals of one step."""
Noise = Callable[[tf.Tensor], tf.Tensor]
Program = Callable[[tf.Tensor, tf.Tensor, tf.Tensor], tf.Tensor]

WINDOW_STEPS = 10
"""Batches that go to a GPU in one piece where not all images have room there."""


class Block(Protocol):
    """Consecutive steps, between which nothing goes to the host."""

    def feed(self, order: npt.NDArray[np.int64]) -> None:
        """Take the images of the next steps from these positions in the training split, batch after batch."""

    def __call__(self, first_step: int, num_steps: int) -> Float32:
        """Train so many steps, the first of this number; the signals (num_steps, len(signal_names)) of each."""
        ...


def training_block(
    run: RunConfig,
    images: Images,
    net: Net,
    optimizer: keras.optimizers.Optimizer,
    recorded: bool = True,
    resident: tf.Variable | None = None,
) -> Block:
    """The run's steps, as they are computed here.

    Args:
        run: its arm, and the keys of its noise.
        images: the training split.
        net: as it is trained.
        optimizer: of its weights.
        recorded: whether the signals are more than the losses; not, to measure what the record costs.
        resident: all images in the GPU's memory, where they have room.
    """
    if is_compiled(run.arm.train):
        return OneProgram(run, images, net, optimizer, recorded, resident)
    return StepByStep(run, images, net, optimizer, recorded)


class StepByStep:
    """Steps in a loop of TensorFlow's, the next images gathered meanwhile."""

    def __init__(
        self, run: RunConfig, images: Images, net: Net, optimizer: keras.optimizers.Optimizer, recorded: bool
    ) -> None:
        self._images, self._batch_size = images, run.arm.train.batch_size
        key = noise_key(run)
        width = _width(run, net, recorded)
        plain_step, spiked_step = (
            # Without autograph, here and below: it would translate everything that is called, two seconds of each
            # start, and leave a temporary file of each function.
            tf.function(_step(net, optimizer, recorded, spike), jit_compile=False, autograph=False)
            for spike in (None, run.arm.spike)
        )

        def train_step(pixels: tf.Tensor, epsilon: tf.Tensor, step: tf.Tensor) -> tf.Tensor:
            if run.arm.spike is None:
                return plain_step(pixels, epsilon)
            # Two functions: one that could do both would round otherwise in every step.
            return tf.cond(
                step == run.spike_step, lambda: spiked_step(pixels, epsilon), lambda: plain_step(pixels, epsilon)
            )

        @tf.function(autograph=False)
        def block(iterator: Any, first_step: tf.Tensor, num_steps: tf.Tensor) -> tf.Tensor:
            def one(i: tf.Tensor, signals: tf.TensorArray) -> tuple[tf.Tensor, tf.TensorArray]:
                pixels = iterator.get_next()
                epsilon = net.noise(key, first_step + i, tf.shape(pixels)[0])
                return i + 1, signals.write(tf.cast(i, tf.int32), train_step(pixels, epsilon, first_step + i))

            none_yet = tf.TensorArray(tf.float32, size=tf.cast(num_steps, tf.int32), element_shape=(width,))
            start = (tf.constant(0, tf.int64), none_yet)
            _, signals = tf.while_loop(lambda i, _: i < num_steps, one, start)
            return signals.stack()

        self._block = block

    def feed(self, order: npt.NDArray[np.int64]) -> None:
        """See Block."""
        self._iterator = iter(batches(self._images, order, self._batch_size))

    def __call__(self, first_step: int, num_steps: int) -> Float32:
        """See Block."""
        numbers = (tf.constant(number, tf.int64) for number in (first_step, num_steps))
        signals: Float32 = self._block(self._iterator, *numbers).numpy()
        return signals


class OneProgram:
    """Steps in one program of XLA's, which takes how many there are as an argument: another number, the same bits.

    The images are its argument too, all of them or those of the next WINDOW_STEPS steps. The smaller batch that ends an
    epoch, and a spiked step, have programs of their own.
    """

    def __init__(
        self,
        run: RunConfig,
        images: Images,
        net: Net,
        optimizer: keras.optimizers.Optimizer,
        recorded: bool,
        resident: tf.Variable | None,
    ) -> None:
        self._run, self._images, self._is_resident = run, images, resident is not None
        self._batch_size, self._max_steps = run.arm.train.batch_size, run.plan.probe.every_steps
        self._window = min(len(images), WINDOW_STEPS * self._batch_size)
        self._pixels = device_memory(images, self._window) if resident is None else resident

        def calls(max_steps: int, num_images: int, is_spiked: bool) -> tuple[Noise, Program]:
            step = _step(net, optimizer, recorded, run.arm.spike if is_spiked else None)
            width = _width(run, net, recorded)
            return _noise(run, net, max_steps, num_images), _program(step, self._pixels, max_steps, width)

        self.calls = functools.cache(calls)
        """Noise and program of at most so many steps of so many images, with the spike or without."""

    def feed(self, order: npt.NDArray[np.int64]) -> None:
        """See Block."""
        self._rows = order.astype(np.int32) if self._is_resident else np.empty(0, np.int32)
        self._windows = iter(()) if self._is_resident else iter(batches(self._images, order, self._window))

    def __call__(self, first_step: int, num_steps: int) -> Float32:
        """See Block."""
        found, step, end = list[Float32](), first_step, first_step + num_steps
        while step < end:
            rows = self._next_rows(step, end)
            is_spiked = step == self._run.spike_step
            max_steps = 1 if is_spiked or rows.shape[1] < self._batch_size else self._max_steps
            noise, program = self.calls(max_steps, rows.shape[1], is_spiked)
            padded = np.zeros((max_steps, rows.shape[1]), np.int32)
            padded[: len(rows)] = rows
            signals = program(tf.constant(padded), noise(_on_host(step)), tf.constant(len(rows)))
            found.append(signals.numpy()[: len(rows)])
            step += len(rows)
        return np.concatenate(found)

    def _next_rows(self, step: int, end: int) -> npt.NDArray[np.int32]:
        """Rows (steps, batch) in the device's memory of the images of the steps that one call can do."""
        if not len(self._rows):
            window = next(self._windows)
            put_images(self._pixels, 0, window)
            self._rows = np.arange(len(window), dtype=np.int32)
        spike, batch_size = self._run.spike_step, self._batch_size
        if spike is not None and step <= spike < end:
            end = max(spike, step + 1)
        num_steps = max(1, min(end - step, self._max_steps, len(self._rows) // batch_size))
        rows, self._rows = np.split(self._rows, [num_steps * batch_size])
        return rows.reshape(num_steps, -1)


def _noise(run: RunConfig, net: Net, max_steps: int, num_images: int) -> Noise:
    """A function first step -> epsilon (max_steps, num_images, z_dim) of the steps from there on.

    Not a part of the program, because XLA makes other numbers of the same key.
    """
    key = noise_key(run)

    @tf.function(autograph=False)
    def noise(first_step: tf.Tensor) -> tf.Tensor:
        with tf.device("CPU"):
            steps = [first_step + i for i in range(max_steps)]
        return tf.stack([net.noise(key, step, tf.constant(num_images)) for step in steps])

    return noise  # type: ignore[no-any-return]


def _program(step: Step, images: tf.Variable, max_steps: int, width: int) -> Program:
    """A function (rows (max_steps, batch) int32, epsilon (max_steps, batch, z_dim), number of steps int32) -> signals.

    The signals are (max_steps, width); beyond the number of steps they are zeros.
    """

    @tf.function(jit_compile=True, autograph=False)
    def program(rows: tf.Tensor, epsilon: tf.Tensor, num_steps: tf.Tensor) -> tf.Tensor:
        pixels = images.read_value()

        def one(i: tf.Tensor, signals: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            found = step(tf.gather(pixels, rows[i]), epsilon[i])
            return i + 1, xla.dynamic_update_slice(signals, found[tf.newaxis], tf.stack([i, 0]))

        start = (tf.constant(0), tf.zeros((max_steps, width)))
        _, signals = tf.while_loop(lambda i, _: i < num_steps, one, start)
        return signals

    return program  # type: ignore[no-any-return]


def _on_host(number: int) -> tf.Tensor:
    """An int64 where a GPU's kernels take their seeds from."""
    with tf.device("CPU"):
        return tf.constant(number, tf.int64)


def _width(run: RunConfig, net: Net, recorded: bool) -> int:
    """Signals of a step."""
    return len(signal_names(run.arm, net)) if recorded else len(LOSSES)


def _step(net: Net, optimizer: keras.optimizers.Optimizer, recorded: bool, spike: SpikeConfig | None) -> Step:
    """One step of Adam, with the arm's spike in it or without."""
    variables = net.trainable_variables
    watcher = WeightWatcher(net, optimizer)

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

    return train_step


def _log_var_spike(spike: SpikeConfig | None, epsilon: tf.Tensor) -> tf.Tensor | None:
    """What is added to log_var (batch, z_dim): the spike on one component of the first image.

    It is the component with the largest |epsilon|, so that its effect is not left to a draw near zero.
    """
    if spike is None or spike.kind != "log_var":
        return None
    component = tf.argmax(tf.abs(epsilon[0]))
    return tf.scatter_nd([[0, component]], [spike.strength], tf.shape(epsilon, tf.int64))
