"""Losses and sampling, in float32 whatever the precision of the net: half precision loses or overflows these sums."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import tensorflow as tf

from vaehpc.schema.config import VaeConfig


def reconstruction_loss(images: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
    """Binary cross-entropy in nats, mean over the channels, sum over the pixels, of each image.

    The article's normalisation: 0.49 per pixel x 9216 pixels = 4516. From logits, because log(1 - sigmoid) is -inf in
    half precision from a logit of 8.

    Args:
        images: (batch, height, width, channels) in [0, 1].
        logits: the decoder's output before the sigmoid, same shape.

    Returns:
        (batch,) float32.
    """
    loss: tf.Tensor = _cross_entropy(tf.cast(images, tf.float32), tf.cast(logits, tf.float32))
    return loss


@tf.custom_gradient
def _cross_entropy(images: tf.Tensor, logits: tf.Tensor) -> tuple[tf.Tensor, Callable[[tf.Tensor], Any]]:
    # Each direction compiled to one pass over the pixels: a quarter of the time of TensorFlow's twenty passes. With a
    # gradient of its own, because XLA would else write down every value on the way for it.
    return _summed_cross_entropy(images, logits), lambda upstream: (None, _logits_gradient(images, logits, upstream))


@tf.function(jit_compile=True, autograph=False)
def _summed_cross_entropy(images: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
    cross_entropy = tf.nn.softplus(logits) - images * logits
    # By rows, because XLA adds one value after the other: of all at once, float32 would lose a digit.
    return logits.shape[2] * tf.reduce_sum(tf.reduce_mean(cross_entropy, axis=(2, 3)), axis=1)


@tf.function(jit_compile=True, autograph=False)
def _logits_gradient(images: tf.Tensor, logits: tf.Tensor, upstream: tf.Tensor) -> tf.Tensor:
    """d softplus(l) / dl = sigmoid(l)."""
    return (tf.sigmoid(logits) - images) * (upstream / logits.shape[3])[:, tf.newaxis, tf.newaxis, tf.newaxis]


def kl_divergence(mu: tf.Tensor, log_var: tf.Tensor) -> tf.Tensor:
    """KL(N(mu, exp(log_var)) || N(0, 1)) = -0.5 sum_z (1 + log_var - mu^2 - exp(log_var)) of each image, in nats.

    Args:
        mu: (batch, z_dim).
        log_var: (batch, z_dim).

    Returns:
        (batch,) float32.
    """
    mu, log_var = tf.cast(mu, tf.float32), tf.cast(log_var, tf.float32)
    return -0.5 * tf.reduce_sum(1.0 + log_var - tf.square(mu) - tf.exp(log_var), axis=-1)


def draw_epsilon(key: tf.Tensor, counter: tf.Tensor, shape: tf.Tensor, vae: VaeConfig) -> tf.Tensor:
    """Standard normal noise, limited and scaled as the arm asks; a pure function of (key, counter).

    The article's `if abs(epsilon) >= 5: epsilon *= 5 / abs(epsilon)` cannot run on a tensor; clip(epsilon, -5, 5) is
    what it means for each component. Read as one condition on the whole tensor it would turn all of it into +-5.
    TensorFlow's float32 normal never exceeds sqrt(-2 ln 1e-7) = 5.678.

    Args:
        key: int64 scalar, the run's noise key.
        counter: int64 scalar, the step.
        shape: of the result, (batch, z_dim).
        vae: epsilon_limit, what it acts on, and epsilon_factor.

    Returns:
        float32 tensor of that shape.
    """
    # The numbers of tf.random.stateless_normal with alg="philox". This kernel scrambles the seed by itself, and takes
    # it from the host; that one leaves it to twenty more operations, each of which a GPU would be asked for.
    with tf.device("CPU"):
        seed = tf.stack([key, counter])
    epsilon = tf.raw_ops.StatelessRandomNormal(shape=shape, seed=seed, dtype=tf.float32)
    if vae.epsilon_limit is not None:
        epsilon = _limited(epsilon, vae.epsilon_limit, whole=vae.epsilon_limit_on == "tensor")
    return epsilon * vae.epsilon_factor


def _limited(epsilon: tf.Tensor, limit: float, whole: bool) -> tf.Tensor:
    if not whole:
        return tf.clip_by_value(epsilon, -limit, limit)
    return tf.where(tf.reduce_any(tf.abs(epsilon) >= limit), limit * tf.sign(epsilon), epsilon)


def sample_latent(mu: tf.Tensor, log_var: tf.Tensor, epsilon: tf.Tensor) -> tf.Tensor:
    """z = mu + exp(log_var / 2) epsilon, float32 (batch, z_dim)."""
    return mu + tf.exp(0.5 * log_var) * epsilon
