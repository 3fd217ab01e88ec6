"""The article's convolutional encoder and decoder, for AE and VAE alike."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from vaehpc.schema.config import ArmConfig, ModelConfig
from vaehpc.training.losses import draw_epsilon, sample_latent

SeedOf = Callable[[str], int]
"""Seed of the initial weights of the layer with this name."""
InitializerOf = Callable[[str], keras.initializers.Initializer]


@dataclass(frozen=True)
class Net:
    """An encoder and a decoder.

    `encoder` maps float images (batch, size, size, 3) in [0, 1] to mu (batch, z_dim), and for a VAE to [mu, log_var];
    `decoder` maps z (batch, z_dim) to logits (batch, size, size, 3). Inputs and outputs are float32.
    """

    encoder: keras.Model
    decoder: keras.Model
    arm: ArmConfig

    @property
    def trainable_variables(self) -> list[keras.Variable]:
        """What the optimizer changes."""
        return [*self.encoder.trainable_variables, *self.decoder.trainable_variables]

    @property
    def variables(self) -> list[keras.Variable]:
        """Trainable variables and the moving statistics of BatchNormalization."""
        return [*self.encoder.variables, *self.decoder.variables]

    def encode(
        self, images: tf.Tensor, training: bool, log_var_spike: tf.Tensor | None = None
    ) -> tuple[tf.Tensor, tf.Tensor | None]:
        """mu and log_var (batch, z_dim) of images in [0, 1]; log_var is None for an AE.

        Args:
            images: (batch, size, size, 3).
            training: whether BatchNormalization takes the batch's statistics.
            log_var_spike: (batch, z_dim), added to log_var before it is clamped.
        """
        if self.arm.vae is None:
            return self.encoder(images, training=training), None
        mu, log_var = self.encoder(images, training=training)
        if log_var_spike is not None:
            log_var += log_var_spike
        limit = self.arm.vae.log_var_limit
        return mu, log_var if limit is None else tf.minimum(log_var, limit)

    def noise(self, key: tf.Tensor, counter: tf.Tensor, num_images: tf.Tensor) -> tf.Tensor:
        """Epsilon (num_images, z_dim) of (key, counter); zeros for an AE."""
        shape = (num_images, self.arm.model.z_dim)
        return tf.zeros(shape) if self.arm.vae is None else draw_epsilon(key, counter, shape, self.arm.vae)

    def sample(self, mu: tf.Tensor, log_var: tf.Tensor | None, epsilon: tf.Tensor) -> tf.Tensor:
        """z of a VAE; mu itself for an AE."""
        return mu if log_var is None else sample_latent(mu, log_var, epsilon)


class FusedBatchNormalization(keras.layers.Layer):  # type: ignore[misc]
    """Batch normalisation over (batch, height, width) by TensorFlow's fused kernel; scale and statistics are float32.

    Keras 3's own layer is a chain of elementwise operations, which costs a third of the training step on a CPU.
    """

    def __init__(self, momentum: float = 0.99, epsilon: float = 1e-3, inference: bool = False, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.momentum = momentum
        self.epsilon = epsilon
        self.inference = inference
        """Whether a training, too, normalises by the moving statistics, which stay what they are."""

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """One gamma, beta, moving mean and moving variance per channel."""

        def weight(name: str, initializer: str, trainable: bool) -> keras.Variable:
            # autocast=False: the kernel wants float32 parameters beside half-precision images.
            return self.add_weight(
                name=name,
                shape=(input_shape[-1],),
                initializer=initializer,
                trainable=trainable,
                dtype="float32",
                autocast=False,
            )

        self.gamma = weight("gamma", "ones", True)
        self.beta = weight("beta", "zeros", True)
        self.moving_mean = weight("moving_mean", "zeros", False)
        self.moving_variance = weight("moving_variance", "ones", False)

    def call(self, inputs: tf.Tensor, training: bool = False) -> tf.Tensor:
        """Normalise by the batch's statistics when training, by the moving ones otherwise."""
        if self.inference or not training:
            outputs, _, _ = self._fused(inputs, self.moving_mean.value, self.moving_variance.value, training=False)
            return outputs
        outputs, mean, variance = self._fused(inputs, None, None, training=True)
        for moving, batch in ((self.moving_mean, mean), (self.moving_variance, variance)):
            moving.assign(moving.value * self.momentum + batch * (1.0 - self.momentum))
        return outputs

    def _fused(self, inputs: tf.Tensor, mean: tf.Tensor | None, variance: tf.Tensor | None, training: bool) -> Any:
        return tf.compat.v1.nn.fused_batch_norm(
            inputs, self.gamma.value, self.beta.value, mean, variance, epsilon=self.epsilon, is_training=training
        )


class LogitsLayer(keras.layers.Conv2DTranspose):  # type: ignore[misc]
    """Transposed convolution, kernel 3, stride 2, 'same': (batch, n, n, depth) to (batch, 2 n, 2 n, filters).

    Computed as a convolution whose channels are the 2 x 2 pixels that lie at each place: oneDNN does a transposed one
    to so few channels at a sixth of sgemm's rate. The gradients are those of the transposed one, which it does well.
    """

    def __init__(self, filters: int, **kwargs: Any) -> None:
        super().__init__(filters, 3, strides=2, padding="same", **kwargs)

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        """The transposed convolution and its bias."""
        return _transposed_convolution(inputs, *(tf.convert_to_tensor(weight) for weight in (self.kernel, self.bias)))


@tf.custom_gradient
def _transposed_convolution(
    inputs: tf.Tensor, kernel: tf.Tensor, bias: tf.Tensor
) -> tuple[tf.Tensor, Callable[[tf.Tensor], tuple[tf.Tensor, tf.Tensor, tf.Tensor]]]:
    filters, side = bias.shape[0], inputs.shape[1]
    blocks = tf.nn.conv2d(inputs, _kernel_of_blocks(kernel), 1, [[0, 0], [1, 0], [1, 0], [0, 0]])
    blocks = tf.nn.bias_add(blocks, tf.tile(bias, [4]))
    # (row, column, row and column in the block) to (row, row in the block, column, column in the block).
    rows = tf.transpose(tf.reshape(blocks, (-1, side, side, 2, 2 * filters)), (0, 1, 3, 2, 4))
    outputs = tf.reshape(rows, (-1, 2 * side, 2 * side, filters))

    def gradients(upstream: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        of_kernel = tf.raw_ops.Conv2DBackpropFilter(
            input=upstream, filter_sizes=kernel.shape, out_backprop=inputs, strides=(1, 2, 2, 1), padding="SAME"
        )
        # First over images and rows, in long vectors.
        of_bias = tf.reduce_sum(tf.reshape(tf.reduce_sum(upstream, axis=(0, 1)), (-1, filters)), axis=0)
        return tf.nn.conv2d(upstream, kernel, 2, "SAME"), of_kernel, of_bias

    return outputs, gradients


def _kernel_of_blocks(kernel: tf.Tensor) -> tf.Tensor:
    """The kernel (3, 3, filters, depth) of the transposed convolution as one (2, 2, depth, 4 filters) of a plain one.

    Along an axis, place i gives pixels 2 i and 2 i + 1: x_i w_0 + x_(i-1) w_2 and x_i w_1.
    """
    filters, depth = kernel.shape[2:]
    padded = tf.reshape(tf.pad(kernel, [[0, 1], [0, 1], [0, 0], [0, 0]]), (2, 2, 2, 2, filters, depth))
    return tf.reshape(tf.transpose(tf.reverse(padded, (0, 2)), (0, 2, 5, 1, 3, 4)), (2, 2, depth, 4 * filters))


def build_net(arm: ArmConfig, image_size: int, seed_of: SeedOf) -> Net:
    """The net of an arm with its initial weights, one seed per layer.

    Layers of the same name start from the same weights in every arm with the same initializer: the AE's latent layer is
    the VAE's `mu`.
    """
    if image_size % 16:
        raise ValueError(f"image_size {image_size} is not a multiple of 16, which four layers of stride 2 need")
    policy = arm.train.policy
    encoder = _encoder(arm.model, arm.vae is not None, image_size, policy, seed_of)
    kernel = encoder.get_layer("mu").kernel
    kernel.assign(kernel * arm.model.mu_scale)
    return Net(encoder=encoder, decoder=_decoder(arm.model, image_size, policy, seed_of), arm=arm)


def _encoder(model: ModelConfig, has_log_var: bool, image_size: int, policy: str, seed_of: SeedOf) -> keras.Model:
    initial = _initializers(model, seed_of)
    images = keras.Input((image_size, image_size, 3), name="images")
    x = images
    for i, filters in enumerate(model.filters, start=1):
        name = f"encoder_conv_{i}"
        x = _convolution(keras.layers.Conv2D, filters, model, policy, name, initial)(x)
        x = _normalised(x, model, policy, f"encoder_{i}")
    x = keras.layers.Flatten(dtype="float32", name="flatten")(x)
    mu = _latent_head("mu", model.z_dim, initial)(x)
    outputs = [mu, _latent_head("log_var", model.z_dim, initial)(x)] if has_log_var else mu
    return keras.Model(images, outputs, name="encoder")


def _decoder(model: ModelConfig, image_size: int, policy: str, seed_of: SeedOf) -> keras.Model:
    initial = _initializers(model, seed_of)
    side, depth = image_size // 16, model.filters[-1]
    z = keras.Input((model.z_dim,), name="z")
    x = keras.layers.Dense(
        side * side * depth,
        dtype=policy,
        name="decoder_dense",
        kernel_initializer=initial("decoder_dense"),
    )(z)
    x = keras.layers.Reshape((side, side, depth), dtype=policy, name="decoder_reshape")(x)
    for i, filters in enumerate(reversed(model.filters[:-1]), start=1):
        name = f"decoder_conv_{i}"
        x = _convolution(keras.layers.Conv2DTranspose, filters, model, policy, name, initial)(x)
        x = _normalised(x, model, policy, f"decoder_{i}")
    # The logits stay float32: the loss is a sum over tens of thousands of them.
    logits = LogitsLayer(3, dtype="float32", name="logits", kernel_initializer=initial("logits"))
    return keras.Model(z, logits(x), name="decoder")


def _convolution(
    kind: type[keras.layers.Layer], filters: int, model: ModelConfig, policy: str, name: str, initial: InitializerOf
) -> keras.layers.Layer:
    # Normalisation by the batch takes its mean away, and any bias with it: all it would learn is what rounding leaves
    # of its gradient, and to add it up takes 4 to 8 % of a step.
    return kind(
        filters,
        3,
        strides=2,
        padding="same",
        use_bias=model.batch_norm is not True,
        dtype=policy,
        name=name,
        kernel_initializer=initial(name),
    )


def _normalised(x: Any, model: ModelConfig, policy: str, name: str) -> Any:
    if model.batch_norm:
        inference = model.batch_norm == "inference"
        x = FusedBatchNormalization(inference=inference, dtype=policy, name=f"{name}_norm")(x)
    return keras.layers.LeakyReLU(negative_slope=model.leaky_slope, dtype=policy, name=f"{name}_relu")(x)


def _latent_head(name: str, z_dim: int, initial: InitializerOf) -> keras.layers.Dense:
    return keras.layers.Dense(z_dim, dtype="float32", name=name, kernel_initializer=initial(name))


def _initializers(model: ModelConfig, seed_of: SeedOf) -> InitializerOf:
    """Initializer of the kernel of the layer with a name."""
    kinds: dict[str, Callable[[int], keras.initializers.Initializer]] = {
        "glorot": lambda seed: keras.initializers.GlorotUniform(seed=seed),
        "he": lambda seed: keras.initializers.HeNormal(seed=seed),
        "normal": lambda seed: keras.initializers.RandomNormal(stddev=0.02, seed=seed),
    }
    return lambda name: kinds[model.initializer](seed_of(name))


LAYER_NAMES = (
    *(f"encoder_conv_{i}" for i in range(1, 5)),
    "mu",
    "log_var",
    "decoder_dense",
    *(f"decoder_conv_{i}" for i in range(1, 4)),
    "logits",
)
"""Layers with random initial weights. The position is part of the seed: append only."""


def layer_seeds(key: np.random.SeedSequence) -> SeedOf:
    """Independent seeds of the layers from one key."""
    seeds = dict(zip(LAYER_NAMES, (int(seed) >> 1 for seed in key.generate_state(len(LAYER_NAMES))), strict=True))
    return seeds.__getitem__
