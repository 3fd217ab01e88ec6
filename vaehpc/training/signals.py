"""What the flight recorder knows of each training step, computed on the device inside the compiled step."""

from __future__ import annotations

import math
from collections.abc import Sequence

import keras
import tensorflow as tf
from tensorflow.compiler.tf2xla.python import xla

from vaehpc.schema.config import ArmConfig
from vaehpc.training.models import Net

LOSSES = ("total_loss", "reconstruction_loss", "kl_loss")
"""Means over the batch in nats; kl_loss with its weight, 0 for an AE."""

IMAGE_SIGNALS = ("radius_mean", "radius_max", "image_loss_max", "image_loss_row")
"""R = ||mu||_2 over the batch; the largest reconstruction loss of an image that is not NaN and its row in the batch,
NO_ROW where no loss is finite."""

VAE_SIGNALS = (
    "log_var_sum",
    "mu_square_sum",
    "variance_sum",
    "epsilon_max",
    "noise_max",
    "log_var_min",
    "log_var_mean",
    "log_var_max",
    "log_var_row",
)
"""The three sums of the KL loss over z, means over the batch; max|epsilon| and max|sigma epsilon|; log_var over all
components, its maximum over those that are not NaN, and the row of the image with it, NO_ROW where none is finite."""

NO_ROW = -1
"""No image of the batch stands out."""

WEIGHT_SIGNALS = ("gradient_norm", "update_norm", "weight_norm", "gradient_rms", "gradient_peak")
"""L2 norms of the gradient before it is clipped, of Adam's change of the weights, and of the weights after it;
sqrt(mean(g^2 / v)) and max(g^2 / v), v being Adam's mean squared gradient without its bias: 1 is what Adam expects."""

VECTORS = "vectors"
"""Biases, and gamma and beta of BatchNormalization, of all layers together."""


def signal_names(arm: ArmConfig, net: Net) -> tuple[str, ...]:
    """Names of the signals in the order of the compiled step's result: losses, latents, all weights, each layer."""
    vae_signals = () if arm.vae is None else VAE_SIGNALS
    of_layers = [f"{signal}/{layer}" for layer in layer_names(net) for signal in WEIGHT_SIGNALS]
    return (*LOSSES, *IMAGE_SIGNALS, *vae_signals, *WEIGHT_SIGNALS, "loss_scale", *of_layers)


def layer_names(net: Net) -> tuple[str, ...]:
    """Layers whose kernels are watched one by one, and VECTORS."""
    return (*(kernel.path.split("/")[-2] for kernel in net.trainable_variables if _is_kernel(kernel)), VECTORS)


def image_signals(mu: tf.Tensor, image_losses: tf.Tensor) -> list[tf.Tensor]:
    """IMAGE_SIGNALS.

    Args:
        mu: (batch, z_dim).
        image_losses: (batch,) reconstruction losses.
    """
    radius = tf.norm(mu, axis=1)
    return [tf.reduce_mean(radius), tf.reduce_max(radius), *_largest(image_losses)]


def vae_signals(mu: tf.Tensor, log_var: tf.Tensor, epsilon: tf.Tensor) -> list[tf.Tensor]:
    """VAE_SIGNALS; all arguments (batch, z_dim) float32."""
    sums = [tf.reduce_mean(tf.reduce_sum(term, axis=1)) for term in (log_var, tf.square(mu), tf.exp(log_var))]
    max_of_image = tf.reduce_max(_without_nan(log_var), axis=1)
    return [
        *sums,
        tf.reduce_max(tf.abs(epsilon)),
        tf.reduce_max(tf.abs(tf.exp(0.5 * log_var) * epsilon)),
        tf.reduce_min(log_var),
        tf.reduce_mean(log_var),
        *_largest(tf.where(tf.reduce_all(tf.math.is_nan(log_var), axis=1), math.nan, max_of_image)),
    ]


def _without_nan(values: tf.Tensor) -> tf.Tensor:
    """-inf for NaN: what a maximum makes of NaN differs between devices."""
    return tf.where(tf.math.is_nan(values), -math.inf, values)


def _largest(of_images: tf.Tensor) -> list[tf.Tensor]:
    """The largest of the values (batch,) that are not NaN, and its row; NO_ROW where none is finite."""
    row = tf.argmax(_without_nan(of_images))
    has_finite = tf.reduce_any(tf.math.is_finite(of_images))
    return [tf.gather(of_images, row), tf.where(has_finite, tf.cast(row, tf.float32), NO_ROW)]


class WeightWatcher:
    """Norms of gradients, updates and weights around one step of Adam."""

    def __init__(self, net: Net, optimizer: keras.optimizers.Optimizer) -> None:
        self._weights = net.trainable_variables
        self._scaled = isinstance(optimizer, keras.optimizers.LossScaleOptimizer)
        self._optimizer = optimizer
        adam = optimizer.inner_optimizer if self._scaled else optimizer
        self._adam = adam
        self._means, self._mean_squares = (
            [variable for variable in adam.variables if variable.path.endswith(ending)]
            for ending in ("_momentum", "_velocity")
        )
        if len(self._mean_squares) != len(self._weights):
            raise ValueError(f"{len(self._mean_squares)} mean squared gradients of {len(self._weights)} weights")

    def loss_scale(self) -> tf.Tensor:
        """What the loss is multiplied with, to be taken before the step; 1 without loss scaling."""
        return tf.convert_to_tensor(self._optimizer.dynamic_scale) if self._scaled else tf.constant(1.0)

    def signals(self, gradients: Sequence[tf.Tensor], loss_scale: tf.Tensor) -> list[tf.Tensor]:
        """WEIGHT_SIGNALS of all weights, loss_scale, then WEIGHT_SIGNALS of each layer, to be taken after the step.

        Adam's change of the weights, weight decay aside, is alpha m / (sqrt(v) + epsilon), alpha = learning_rate sqrt(1
        - beta_2^t) / (1 - beta_1^t) (Kingma and Ba 2015, arXiv:1412.6980, section 2): to keep the weights from before
        would copy them all.

        Args:
            gradients: as the tape gave them, times the loss scale.
            loss_scale: what `loss_scale` returned.
        """
        states = ([variable.value for variable in each] for each in (self._means, self._mean_squares, self._weights))
        groups = [self._by_layer(values) for values in (gradients, *states)]
        # One by one, so that each is read while Adam's step has its arrays at hand, and its gradient can go then.
        layers = [_moments(*layer, self._adam.epsilon) for layer in zip(*groups, strict=True)]
        sizes = [tf.cast(tf.size(group), tf.float32) for group in groups[0]]
        # Not by add_n, which begins with any term whose memory is free by then: in another order, other last bits.
        total = [tf.reduce_sum(column) for column in list(zip(*layers, strict=True))[:4]]
        total.append(tf.reduce_max([layer[4] for layer in layers]))
        norm = tf.sqrt(total[0]) / loss_scale
        step = tf.cast(self._adam.iterations.value, tf.float32)
        unbiased = 1.0 - tf.pow(self._adam.beta_2, step)
        alpha = self._adam.learning_rate * tf.sqrt(unbiased) / (1.0 - tf.pow(self._adam.beta_1, step))
        if self._scaled:  # a step whose scaled gradients have overflowed is left out
            alpha = tf.where(tf.math.is_finite(norm), alpha, 0.0)
        # v is of the clipped gradients and still biased towards its start at zero.
        ratio = unbiased / loss_scale**2
        if self._adam.global_clipnorm is not None:
            ratio *= tf.square(tf.minimum(1.0, self._adam.global_clipnorm / norm))
        results = [*_named(total, tf.reduce_sum(sizes), loss_scale, alpha, ratio), loss_scale]
        for layer, size in zip(layers, sizes, strict=True):
            results += _named(layer, size, loss_scale, alpha, ratio)
        return results

    def _by_layer(self, values: Sequence[tf.Tensor]) -> list[tf.Tensor]:
        """One tensor per kernel, then all vectors as one."""
        is_kernel = [_is_kernel(weight) for weight in self._weights]
        kernels = [value for value, kernel in zip(values, is_kernel, strict=True) if kernel]
        vectors = [value for value, kernel in zip(values, is_kernel, strict=True) if not kernel]
        return [*kernels, tf.concat(vectors, axis=0)]


def _is_kernel(weight: keras.Variable) -> bool:
    return len(weight.shape) > 1


@tf.function(jit_compile=True, autograph=False)
def _moments(
    gradient: tf.Tensor, mean: tf.Tensor, mean_square: tf.Tensor, weight: tf.Tensor, epsilon: float
) -> list[tf.Tensor]:
    """Sums of g^2, (m / (sqrt(v) + epsilon))^2, w^2 and g^2 / v of a layer, and its largest g^2 / v.

    By XLA, in one pass over the four arrays: TensorFlow's operations would take sixteen, 5 % of a step on a CPU.
    """
    # The least float keeps 0 / 0 at 0: v includes this gradient's square, so that it is 0 only where g is.
    surprise = tf.square(gradient) / (mean_square + 1e-37)
    direction = mean / (tf.sqrt(mean_square) + epsilon)
    terms = [tf.square(gradient), tf.square(direction), tf.square(weight), surprise, surprise]
    # Eight parts are added up as vectors, then each row of the sum, then the rows: XLA adds one value after the other,
    # and of all at once float32 would lose digits.
    size, width = gradient.shape.num_elements(), gradient.shape[-1]
    parts = math.gcd(8, size // width)
    pair = [tf.TensorSpec((), tf.float32)] * 2 * len(terms)
    *sums, peaks = xla.variadic_reduce(
        [tf.reshape(term, (parts, -1, width)) for term in terms],
        [0.0] * len(terms),
        dimensions_to_reduce=[0],
        reducer=_sums_and_peak.get_concrete_function(*pair),
    )
    return [*(width * tf.reduce_sum(tf.reduce_mean(of_rows, axis=1)) for of_rows in sums), tf.reduce_max(peaks)]


@tf.function(autograph=False)
def _sums_and_peak(*values: tf.Tensor) -> list[tf.Tensor]:
    """Of two times as many: sums of all but the last, of which the larger one."""
    *pairs, last = zip(values[: len(values) // 2], values[len(values) // 2 :], strict=True)
    return [*(first + second for first, second in pairs), tf.maximum(*last)]


def _named(
    moments: Sequence[tf.Tensor], size: tf.Tensor, loss_scale: tf.Tensor, alpha: tf.Tensor, ratio: tf.Tensor
) -> list[tf.Tensor]:
    gradient, direction, weight, surprise_sum, surprise_max = moments
    return [
        tf.sqrt(gradient) / loss_scale,
        alpha * tf.sqrt(direction),
        tf.sqrt(weight),
        tf.sqrt(surprise_sum / size * ratio),
        surprise_max * ratio,
    ]
