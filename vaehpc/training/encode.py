"""After training: latents of the whole training split, reconstructions, and images from random or changed z."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import tensorflow as tf
from PIL import Image

from vaehpc.schema.config import RunConfig
from vaehpc.study.files import sha256_of_file
from vaehpc.training.device import is_compiled
from vaehpc.training.models import Net
from vaehpc.training.pipeline import Images, batches

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]
Encoder = Callable[[Images, int], "tuple[Float32, Float32 | None]"]
DeviceEncoder = Callable[[int], "tuple[tf.Tensor, tf.Tensor | None]"]

UNIFORM_LIMITS = (2, 3, 8, 10, 16)
"""b of the article's 'equidistant' z in [-b, b]; text and captions of the article differ, all are shown."""
GRID_COLUMNS = 10
GRID_ROWS = 2
PERTURBATIONS = (0, 1 / 64, 1 / 32, 1 / 16, 1 / 8, 1 / 4, 1 / 2, 1, 2, 4)
"""Steps away from a good z, in units of its own length: from its neighbourhood to far outside the region of good z."""


def compiled_encoder(net: Net, batch_size: int, on_batch: Callable[[], None] = lambda: None) -> Encoder:
    """A function (images, count) -> mu, log_var of the first `count` images, in order; log_var is None for an AE.

    Moving statistics of BatchNormalization, no noise. Arrays are float32 (count, z_dim). `on_batch` is called after
    each batch.
    """
    encode_batch = _batch_encoder(net)

    def encode(images: Images, count: int) -> tuple[Float32, Float32 | None]:
        shape = (count, net.arm.model.z_dim)
        mu = np.empty(shape, np.float32)
        log_var = None if net.arm.vae is None else np.empty(shape, np.float32)
        start = 0
        for pixels in batches(images, np.arange(count), batch_size):
            batch_mu, batch_log_var = encode_batch(pixels)
            stop = start + len(batch_mu)
            mu[start:stop] = batch_mu
            if log_var is not None:
                log_var[start:stop] = batch_log_var
            start = stop
            on_batch()
        return mu, log_var

    return encode


def device_encoder(net: Net, batch_size: int, resident: tf.Variable) -> DeviceEncoder:
    """The same of the first images in the device's memory; what it returns stays there."""
    encode_batch = _batch_encoder(net)

    def encode(count: int) -> tuple[tf.Tensor, tf.Tensor | None]:
        # The last batch may hold more images than are asked for: a smaller one would need a program of its own.
        found = [encode_batch(resident[start : start + batch_size]) for start in range(0, count, batch_size)]
        mu, log_var = zip(*found, strict=True)
        return tf.concat(mu, 0)[:count], None if net.arm.vae is None else tf.concat(log_var, 0)[:count]

    return encode


def _batch_encoder(net: Net) -> Callable[[tf.Tensor], tuple[tf.Tensor, tf.Tensor | None]]:
    # One trace for every size of batch.
    @tf.function(
        input_signature=[tf.TensorSpec((None, *net.encoder.input_shape[1:]), tf.uint8)],
        jit_compile=is_compiled(net.arm.train) or None,
        autograph=False,
    )
    def encode_batch(pixels: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor | None]:
        return net.encode(unit_range(pixels), training=False)

    return encode_batch  # type: ignore[no-any-return]


def unit_range(pixels: tf.Tensor) -> tf.Tensor:
    """uint8 pixels as float32 in [0, 1]."""
    return tf.cast(pixels, tf.float32) / 255.0


def write_latents(
    folder: Path, run: RunConfig, net: Net, images: Images, on_batch: Callable[[], None]
) -> dict[str, str]:
    """Write mu.npy, log_var.npy, z.npy, each float32 (num_train, z_dim) in image order, and images/*.png.

    An AE has no log_var.npy, and its z.npy is a hard link to mu.npy. `on_batch` is called after each batch of images.

    Returns:
        SHA-256 of the files by their names in the folder.
    """
    folder.mkdir()
    mu, log_var = compiled_encoder(net, run.arm.train.batch_size, on_batch)(images, len(images))
    np.save(folder / "mu.npy", mu)
    if log_var is None:
        os.link(folder / "mu.npy", folder / "z.npy")
    else:
        np.save(folder / "log_var.npy", log_var)
        np.save(folder / "z.npy", _sampled(run, net, mu, log_var))
    _write_images(folder / "images", run, net, images, mu)
    files = sorted((*folder.glob("*.npy"), *folder.glob("images/*.png")))
    return {str(path.relative_to(folder)): sha256_of_file(path) for path in files}


def noise_key(run: RunConfig) -> tf.Tensor:
    """The run's noise key: drawn with it and a counter, noise is a pure function."""
    with tf.device("CPU"):
        return tf.constant(_int63(run.key("noise")), tf.int64)


def _int63(key: np.random.SeedSequence) -> int:
    return int(key.generate_state(1, np.uint64)[0] >> np.uint64(1))


def _sampled(run: RunConfig, net: Net, mu: Float32, log_var: Float32) -> Float32:
    """One z of each image, from a stream of its own: training noise never repeats in the latents."""
    key = tf.constant(_int63(run.key("generation", 0)), tf.int64)
    z = np.empty_like(mu)
    batch_size = run.arm.train.batch_size  # as in training, because a limit of epsilon may act on a whole batch
    for counter, start in enumerate(range(0, len(mu), batch_size)):
        part = slice(start, start + batch_size)
        epsilon = net.noise(key, tf.constant(counter, tf.int64), len(mu[part]))
        z[part] = net.sample(mu[part], log_var[part], epsilon)
    return z


def _write_images(folder: Path, run: RunConfig, net: Net, images: Images, mu: Float32) -> None:
    folder.mkdir()
    originals = images[:GRID_COLUMNS]
    decoded = decode(net, mu[:GRID_COLUMNS])
    save_grid(folder / "reconstructions.png", np.concatenate([originals, decoded]), len(originals))
    rng = np.random.default_rng(run.key("generation", 1))
    shape = (GRID_ROWS * GRID_COLUMNS, run.arm.model.z_dim)
    random_z = {"random_normal": rng.standard_normal(shape)}
    random_z |= {f"random_uniform_{b}": rng.uniform(-b, b, shape) for b in UNIFORM_LIMITS}
    mean, covariance = mu.mean(axis=0, dtype=np.float64), np.cov(mu, rowvar=False, dtype=np.float64)
    random_z["random_fitted"] = rng.multivariate_normal(mean, covariance, shape[0], method="eigh")
    ends = mu[np.arange(2 * GRID_ROWS) % len(mu)].astype(np.float64)
    random_z["perturbations"] = perturbed(ends[:GRID_ROWS], rng)
    random_z["paths"] = interpolated(ends[::2], ends[1::2])
    for name, z in random_z.items():
        save_grid(folder / f"{name}.png", decode(net, z.astype(np.float32)), GRID_COLUMNS)


def perturbed(z: Float64, rng: np.random.Generator) -> Float64:
    """For each z (n, z_dim), points at PERTURBATIONS times its length in one random direction, point by point."""
    directions = rng.standard_normal(z.shape)
    directions *= np.linalg.norm(z, axis=1, keepdims=True) / np.linalg.norm(directions, axis=1, keepdims=True)
    return (z[:, np.newaxis] + np.array(PERTURBATIONS)[:, np.newaxis] * directions[:, np.newaxis]).reshape(
        -1, z.shape[1]
    )


def interpolated(start: Float64, end: Float64) -> Float64:
    """For each pair of points (n, z_dim), GRID_COLUMNS points on the straight line between them, ends included."""
    shares = np.linspace(0, 1, GRID_COLUMNS)[:, np.newaxis]
    return (start[:, np.newaxis] * (1 - shares) + end[:, np.newaxis] * shares).reshape(-1, start.shape[1])


def decode(net: Net, z: Float32) -> npt.NDArray[np.uint8]:
    """uint8 images (n, size, size, 3) of latents (n, z_dim)."""
    images = tf.sigmoid(net.decoder(tf.constant(z), training=False))
    return np.rint(255.0 * np.asarray(images)).astype(np.uint8)


def save_grid(path: Path, images: npt.NDArray[np.uint8], columns: int) -> None:
    """Images (rows * columns, size, size, 3) row by row as one PNG."""
    rows = len(images) // columns
    size = images.shape[1]
    grid = images.reshape(rows, columns, size, size, 3).swapaxes(1, 2).reshape(rows * size, columns * size, 3)
    Image.fromarray(grid).save(path, optimize=True)
