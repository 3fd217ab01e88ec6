"""The same VAE as others would write it: the article's way with Keras' own layers and fit.

`python -m tests.benchmarks.rivals WAY JPEGS` trains in turns of one step. It does not import vaehpc, which would switch
oneDNN on.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import keras
import numpy as np
import tensorflow as tf
from keras.src.legacy.preprocessing.image import ImageDataGenerator

from tests.benchmarks.measure import Turns
from tests.benchmarks.net import BATCH, FILTERS, KL_WEIGHT, LEARNING_RATE, SIZE, Z_DIM

if TYPE_CHECKING:
    from vaehpc.training.models import Net


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
    """Give the rival the net's weights; its biases before BatchNormalization, which ours lacks, stay 0.

    Raises:
        ValueError: they have other layers.
    """
    for theirs, ours in ((rival.encoder, net.encoder), (rival.decoder, net.decoder)):
        having_weights = ([layer for layer in part.layers if layer.weights] for part in (theirs, ours))
        for layer, own in zip(*having_weights, strict=True):
            biases = [np.zeros(weight.shape) for weight in layer.weights[len(own.weights) :]]
            layer.set_weights([*own.get_weights(), *biases])


def generated(jpegs: Path) -> Iterator[np.ndarray]:
    """The article's feeding: a folder of JPEGs, resized and divided by 255."""
    return ImageDataGenerator(rescale=1 / 255).flow_from_directory(
        jpegs, target_size=(SIZE, SIZE), batch_size=BATCH, class_mode=None, shuffle=True, follow_links=True
    )


def jpeg_records(jpegs: Path) -> tf.data.Dataset:
    """TFRecords of JPEGs, left beside them; decoded, cropped, resized and divided by 255, in batches."""
    files = sorted(jpegs.rglob("*.jpg"))
    path = str(jpegs.with_suffix(".tfrecord"))
    with tf.io.TFRecordWriter(path) as writer:
        for jpeg in files:
            writer.write(jpeg.read_bytes())

    def decoded(record: tf.Tensor) -> tf.Tensor:
        image = tf.image.resize(tf.io.decode_jpeg(record, channels=3)[20:198], (SIZE, SIZE), method="area")
        return tf.ensure_shape(image / 255.0, (SIZE, SIZE, 3))

    records = tf.data.TFRecordDataset(path).repeat().shuffle(len(files))
    return records.map(decoded, num_parallel_calls=1).batch(BATCH, drop_remainder=True).prefetch(2)


WAYS: dict[str, Callable[[Path], Any]] = {"article": generated, "records": jpeg_records}
"""What feeds fit."""


def main() -> None:
    """Train in turns, until nobody asks."""
    way, jpegs = sys.argv[1:]
    turns = Turns()
    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    model = ArticleVae(SIZE, Z_DIM)
    model.compile(optimizer=keras.optimizers.Adam(LEARNING_RATE))
    counted = keras.callbacks.LambdaCallback(on_train_batch_end=turns.step_done)
    model.fit(WAYS[way](Path(jpegs)), steps_per_epoch=1_000_000, epochs=1, verbose=0, callbacks=[counted])


if __name__ == "__main__":
    main()
