"""The same VAE as others would write it: the article's way with Keras' own layers and fit, and PyTorch's compiler."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from vaehpc.training.models import Net

KL_WEIGHT = 1e-5
FILTERS = (32, 64, 128, 256)


class ArticleVae(keras.Model):  # type: ignore[misc]
    """Keras' layers, a GradientTape in train_step, the loss as the article writes it."""

    def __init__(self, size: int, z_dim: int) -> None:
        super().__init__()
        inputs = x = keras.Input((size, size, 3))
        for filters in FILTERS:
            x = keras.layers.Conv2D(filters, 3, strides=2, padding="same")(x)
            x = keras.layers.LeakyReLU(negative_slope=0.3)(keras.layers.BatchNormalization()(x))
        x = keras.layers.Flatten()(x)
        self.encoder = keras.Model(inputs, [keras.layers.Dense(z_dim)(x), keras.layers.Dense(z_dim)(x)])
        z = keras.Input((z_dim,))
        x = keras.layers.Dense((size // 16) ** 2 * FILTERS[-1])(z)
        x = keras.layers.Reshape((size // 16, size // 16, FILTERS[-1]))(x)
        for filters in reversed(FILTERS[:-1]):
            x = keras.layers.Conv2DTranspose(filters, 3, strides=2, padding="same")(x)
            x = keras.layers.LeakyReLU(negative_slope=0.3)(keras.layers.BatchNormalization()(x))
        x = keras.layers.Conv2DTranspose(3, 3, strides=2, padding="same", activation="sigmoid", dtype="float32")(x)
        self.decoder = keras.Model(z, x)
        self.total = keras.metrics.Mean(name="total")

    def losses_of(self, images: tf.Tensor, epsilon: tf.Tensor) -> tf.Tensor:
        """Total loss of a batch of images in [0, 1]."""
        mu, log_var = (tf.cast(head, tf.float32) for head in self.encoder(images, training=True))
        decoded = self.decoder(mu + tf.exp(0.5 * log_var) * epsilon, training=True)
        pixels = keras.losses.binary_crossentropy(images, decoded)
        reconstruction = tf.reduce_mean(tf.reduce_sum(pixels, axis=(1, 2)))
        kl = -0.5 * tf.reduce_sum(1 + log_var - tf.square(mu) - tf.exp(log_var), axis=1)
        return reconstruction + KL_WEIGHT * tf.reduce_mean(kl)

    def train_step(self, data: Any) -> dict[str, Any]:
        """One step of fit."""
        images, _, _ = keras.utils.unpack_x_y_sample_weight(data)
        epsilon = tf.random.normal((tf.shape(images)[0], self.encoder.outputs[0].shape[-1]))
        with tf.GradientTape() as tape:
            total = self.losses_of(images, epsilon)
        self.optimizer.apply(tape.gradient(total, self.trainable_weights), self.trainable_weights)
        self.total.update_state(total)
        return {"total": self.total.result()}


def same_weights(rival: ArticleVae, net: Net) -> None:
    """Give the rival the net's weights; both have the same layers in the same order.

    Raises:
        ValueError: they have not.
    """
    for theirs, ours in ((rival.encoder, net.encoder), (rival.decoder, net.decoder)):
        by_shape = [value.numpy() for value in ours.weights]
        theirs.set_weights(by_shape)


def torch_step(size: int, z_dim: int, learning_rate: float) -> Callable[[np.ndarray], float] | None:
    """A compiled training step of the same net in PyTorch, on uint8 images; None where PyTorch is not installed."""
    try:
        import torch
    except ImportError:
        return None
    torch.set_num_threads(1)
    layers: list[Any] = []
    for before, after in zip((3, *FILTERS[:-1]), FILTERS, strict=True):
        convolution = torch.nn.Conv2d(before, after, 3, stride=2, padding=1)
        layers += [convolution, torch.nn.BatchNorm2d(after), torch.nn.LeakyReLU(0.3)]
    side, depth = size // 16, FILTERS[-1]
    encoder = torch.nn.Sequential(*layers, torch.nn.Flatten())
    heads = torch.nn.Linear(side**2 * depth, 2 * z_dim)
    layers = [torch.nn.Linear(z_dim, side**2 * depth), torch.nn.Unflatten(1, (depth, side, side))]
    for before, after in zip(FILTERS[::-1], (*FILTERS[:-1][::-1], 3), strict=True):
        layers += [torch.nn.ConvTranspose2d(before, after, 3, stride=2, padding=1, output_padding=1)]
        layers += [torch.nn.BatchNorm2d(after), torch.nn.LeakyReLU(0.3)] if after != 3 else []
    decoder = torch.nn.Sequential(*layers)
    weights = [weight for part in (encoder, heads, decoder) for weight in part.parameters()]
    adam = torch.optim.Adam(weights, lr=learning_rate, eps=1e-7)

    def total_loss(images: Any) -> Any:
        mu, log_var = heads(encoder(images)).chunk(2, dim=1)
        logits = decoder(mu + torch.exp(0.5 * log_var) * torch.randn_like(mu))
        pixels = torch.nn.functional.binary_cross_entropy_with_logits(logits, images, reduction="none")
        kl = -0.5 * (1 + log_var - mu**2 - log_var.exp()).sum(dim=1)
        return pixels.mean(dim=1).sum(dim=(1, 2)).mean() + KL_WEIGHT * kl.mean()

    compiled = torch.compile(total_loss)

    def step(pixels: np.ndarray) -> float:
        images = torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255
        adam.zero_grad()
        loss = compiled(images)
        loss.backward()
        adam.step()
        return float(loss)

    return step
