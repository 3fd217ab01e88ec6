"""What the flight recorder knows of each training step, computed on the device inside the compiled step."""

from __future__ import annotations

from collections.abc import Sequence

import keras
import tensorflow as tf

from vaehpc.config import ArmConfig
from vaehpc.training.models import Net

LOSSES = ("total_loss", "reconstruction_loss", "kl_loss")
"""Means over the batch in nats; kl_loss with its weight, 0 for an AE."""

IMAGE_SIGNALS = ("radius_mean", "radius_max", "image_loss_max", "image_loss_row")
"""R = ||mu||_2 over the batch; the largest reconstruction loss of an image and its row in the batch."""

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
components, and the row of the image with its maximum."""

WEIGHT_SIGNALS = ("gradient_norm", "update_norm", "weight_norm", "gradient_rms", "gradient_peak")
"""L2 norms of the gradient before it is clipped, of the step's change of the weights, and of the weights after it;
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
    largest = tf.argmax(image_losses)
    return [
        tf.reduce_mean(radius),
        tf.reduce_max(radius),
        tf.gather(image_losses, largest),
        tf.cast(largest, tf.float32),
    ]


def vae_signals(mu: tf.Tensor, log_var: tf.Tensor, epsilon: tf.Tensor) -> list[tf.Tensor]:
    """VAE_SIGNALS; all arguments (batch, z_dim) float32."""
    sums = [tf.reduce_mean(tf.reduce_sum(term, axis=1)) for term in (log_var, tf.square(mu), tf.exp(log_var))]
    max_of_image = tf.reduce_max(log_var, axis=1)
    return [
        *sums,
        tf.reduce_max(tf.abs(epsilon)),
        tf.reduce_max(tf.abs(tf.exp(0.5 * log_var) * epsilon)),
        tf.reduce_min(log_var),
        tf.reduce_mean(log_var),
        tf.reduce_max(max_of_image),
        tf.cast(tf.argmax(max_of_image), tf.float32),
    ]


class WeightWatcher:
    """Norms of gradients, updates and weights around one step of Adam."""

    def __init__(self, net: Net, optimizer: keras.optimizers.Optimizer) -> None:
        self._weights = net.trainable_variables
        self._scaled = isinstance(optimizer, keras.optimizers.LossScaleOptimizer)
        self._optimizer = optimizer
        adam = optimizer.inner_optimizer if self._scaled else optimizer
        self._adam = adam
        self._mean_squares = [variable for variable in adam.variables if variable.path.endswith("_velocity")]
        if len(self._mean_squares) != len(self._weights):
            raise ValueError(f"{len(self._mean_squares)} mean squared gradients of {len(self._weights)} weights")

    def weights(self) -> list[tf.Tensor]:
        """Copies of the weights, to be taken before the step."""
        return [tf.identity(weight.value) for weight in self._weights]

    def loss_scale(self) -> tf.Tensor:
        """What the loss is multiplied with, to be taken before the step; 1 without loss scaling."""
        return tf.convert_to_tensor(self._optimizer.dynamic_scale) if self._scaled else tf.constant(1.0)

    def signals(
        self, gradients: Sequence[tf.Tensor], weights_before: Sequence[tf.Tensor], loss_scale: tf.Tensor
    ) -> list[tf.Tensor]:
        """WEIGHT_SIGNALS of all weights, loss_scale, then WEIGHT_SIGNALS of each layer, to be taken after the step.

        Args:
            gradients: as the tape gave them, times the loss scale.
            weights_before: what `weights` returned.
            loss_scale: what `loss_scale` returned.
        """
        mean_squares = [variable.value for variable in self._mean_squares]
        after = [weight.value for weight in self._weights]
        # (squared gradient, squared update, squared weight, sum of g^2 / v, max of g^2 / v) of each layer
        layers = [
            _moments(*group)
            for group in zip(
                *(self._by_layer(values) for values in (gradients, mean_squares, weights_before, after)), strict=True
            )
        ]
        sizes = [tf.cast(tf.size(group), tf.float32) for group in self._by_layer(after)]
        total = [tf.add_n(column) for column in list(zip(*layers, strict=True))[:4]]
        total.append(tf.reduce_max([layer[4] for layer in layers]))
        norm = tf.sqrt(total[0]) / loss_scale
        # v is of the clipped gradients and still biased towards its start at zero.
        ratio = (1.0 - tf.pow(self._adam.beta_2, tf.cast(self._adam.iterations.value, tf.float32))) / loss_scale**2
        if self._adam.global_clipnorm is not None:
            ratio *= tf.square(tf.minimum(1.0, self._adam.global_clipnorm / norm))
        results = [*_named(total, tf.add_n(sizes), loss_scale, ratio), loss_scale]
        for layer, size in zip(layers, sizes, strict=True):
            results += _named(layer, size, loss_scale, ratio)
        return results

    def _by_layer(self, values: Sequence[tf.Tensor]) -> list[tf.Tensor]:
        """One tensor per kernel, then all vectors as one."""
        is_kernel = [_is_kernel(weight) for weight in self._weights]
        kernels = [value for value, kernel in zip(values, is_kernel, strict=True) if kernel]
        vectors = [value for value, kernel in zip(values, is_kernel, strict=True) if not kernel]
        return [*kernels, tf.concat(vectors, axis=0)]


def _is_kernel(weight: keras.Variable) -> bool:
    return len(weight.shape) > 1


def _moments(gradient: tf.Tensor, mean_square: tf.Tensor, before: tf.Tensor, after: tf.Tensor) -> list[tf.Tensor]:
    # The least float keeps 0 / 0 at 0: v includes this gradient's square, so that it is 0 only where g is.
    surprise = tf.square(gradient) / (mean_square + 1e-37)
    return [
        2.0 * tf.nn.l2_loss(gradient),
        2.0 * tf.nn.l2_loss(after - before),
        2.0 * tf.nn.l2_loss(after),
        tf.reduce_sum(surprise),
        tf.reduce_max(surprise),
    ]


def _named(moments: Sequence[tf.Tensor], size: tf.Tensor, loss_scale: tf.Tensor, ratio: tf.Tensor) -> list[tf.Tensor]:
    gradient, update, weight, surprise_sum, surprise_max = moments
    return [
        tf.sqrt(gradient) / loss_scale,
        tf.sqrt(update),
        tf.sqrt(weight),
        tf.sqrt(surprise_sum / size * ratio),
        surprise_max * ratio,
    ]
