"""What the latents of the first images are like while a run is trained: for the probe and an epoch's record."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from vaehpc.stats.radius import offset_and_spread, radii
from vaehpc.training.encode import Float32, compiled_encoder, device_encoder
from vaehpc.training.models import Net
from vaehpc.training.pipeline import Images


@dataclass(frozen=True)
class Latents:
    """Of some images."""

    radius: npt.NDArray[np.float64]
    """R = ||mu||_2, (num_images,)."""
    offset: float
    spread: float
    """Of mu; as `offset_and_spread` has them."""
    log_var: tuple[float, float, float] | None
    """Least, mean and largest over all components; None for an AE."""


Measure = Callable[[int], Latents]
"""Of so many images, the first of the training split."""


def measuring(net: Net, images: Images, batch_size: int, resident: tf.Variable | None) -> Measure:
    """The images encoded, and measured where they are: in the host's memory, or on the device.

    There nothing but the radii leaves it: to copy and to measure the latents takes the host a tenth of a GPU's epoch.
    """
    if resident is None:
        encode = compiled_encoder(net, batch_size)
        return lambda count: _on_host(*encode(images, count))
    encode_there = device_encoder(net, batch_size, resident)

    def measure(count: int) -> Latents:
        radius, offset, spread, log_var = _on_device(*encode_there(count))
        of_log_var = None if log_var is None else (float(log_var[0]), float(log_var[1]), float(log_var[2]))
        return Latents(radius.numpy(), float(offset), float(spread), of_log_var)

    return measure


def _on_host(mu: Float32, log_var: Float32 | None) -> Latents:
    of_log_var = None
    if log_var is not None:
        of_log_var = (float(log_var.min()), float(log_var.mean(dtype=np.float64)), float(log_var.max()))
    return Latents(radii(mu), *offset_and_spread(mu), of_log_var)


@tf.function(jit_compile=True, autograph=False)
def _on_device(
    mu: tf.Tensor, log_var: tf.Tensor | None
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor, tuple[tf.Tensor, tf.Tensor, tf.Tensor] | None]:
    """The same, in float64 too."""
    points = tf.cast(mu, tf.float64)
    squares = tf.reduce_sum(tf.square(points), axis=1)
    is_finite = tf.math.is_finite(squares)[:, tf.newaxis]
    num_points = tf.reduce_sum(tf.cast(is_finite, tf.float64))
    mean = tf.reduce_sum(tf.where(is_finite, points, 0.0), axis=0) / num_points
    deviations = tf.where(is_finite, points - mean, 0.0)
    spread = tf.sqrt(tf.reduce_sum(tf.square(deviations)) / num_points)
    of_log_var = None
    if log_var is not None:
        in_double = tf.cast(log_var, tf.float64)
        of_log_var = (tf.reduce_min(in_double), tf.reduce_mean(in_double), tf.reduce_max(in_double))
    return tf.sqrt(squares), tf.norm(mean), spread, of_log_var
