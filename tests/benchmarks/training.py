"""The training step and its feeding against the ways of others, and against what this machine can do.

CPU seconds per image on one thread: of all these ways, one thread per process is no slower on a CPU, and comparable.
The article's net, 96 x 96, z 256, batch 128. Ours is the step as it is trained, with the recorder's signals in it.
"""

from __future__ import annotations

import argparse
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf
from keras.src.legacy.preprocessing.image import ImageDataGenerator

from tests.benchmarks.measure import Row, Work, copy_rate, cpu_seconds, finish, in_turns, median_interval, ratio_row
from tests.benchmarks.rivals import ArticleVae, same_weights, torch_step
from tests.examples import run_config
from vaehpc.config import ModelConfig, Precision, RunConfig, TrainConfig
from vaehpc.files import DataDir
from vaehpc.images.synthetic import write_celeba
from vaehpc.study import data_config
from vaehpc.tasks.prepare import Request, prepare
from vaehpc.tasks.train import configure_tensorflow
from vaehpc.training.fit import build_optimizer, compiled_block
from vaehpc.training.models import build_net, layer_seeds
from vaehpc.training.pipeline import Images, batches, load_training_images

SIZE, BATCH, Z_DIM = 96, 128, 256
NUM_IMAGES = 512
NUM_EPOCHS = 20
"""Of ours for each of the article's, which takes so much longer."""
PART = "training step"
FLOP_PER_IMAGE = 445e6
"""Of a training step of the VAE at 96 x 96: multiplications and additions of its convolutions and dense layers."""


def article_run(precision: Precision, data: Path) -> RunConfig:
    """A run of the article's VAE on prepared data."""
    run = run_config("vae", data=data_config(DataDir(data)))
    train = TrainConfig(precision=precision)
    return run.model_copy(update={"arm": run.arm.model_copy(update={"model": ModelConfig(), "train": train})})


def our_steps(run: RunConfig, images: Images, num_steps: int) -> Work:
    """So many steps, from images in memory."""
    net = build_net(run.arm, SIZE, layer_seeds(run.key("initialisation")))
    block = compiled_block(run, net, build_optimizer(run.arm.train, net))
    iterator = iter(batches(images, np.tile(np.arange(len(images)), 10_000), BATCH))
    return lambda: block(iterator, tf.constant(0, tf.int64), tf.constant(num_steps, tf.int64)).numpy()


def generated(jpegs: Path) -> Iterator[np.ndarray]:
    """The article's feeding: a folder of JPEGs, resized and divided by 255."""
    return ImageDataGenerator(rescale=1 / 255).flow_from_directory(
        jpegs, target_size=(SIZE, SIZE), batch_size=BATCH, class_mode=None, shuffle=True
    )


def fitted(rival: ArticleVae, feeding: object, num_steps: int) -> Work:
    """So many steps of Keras' fit."""
    rival.compile(optimizer=keras.optimizers.Adam(5e-4))
    return lambda: rival.fit(feeding, steps_per_epoch=num_steps, epochs=1, verbose=0)


def jpeg_records(jpegs: Path, path: Path) -> tf.data.Dataset:
    """TFRecords of JPEGs, decoded, cropped, resized and divided by 255, in batches."""
    with tf.io.TFRecordWriter(str(path)) as writer:
        for jpeg in sorted(jpegs.rglob("*.jpg")):
            writer.write(jpeg.read_bytes())

    def decoded(record: tf.Tensor) -> tf.Tensor:
        image = tf.image.resize(tf.io.decode_jpeg(record, channels=3)[20:198], (SIZE, SIZE), method="area")
        return tf.ensure_shape(image / 255.0, (SIZE, SIZE, 3))

    records = tf.data.TFRecordDataset(str(path)).repeat().shuffle(NUM_IMAGES)
    return records.map(decoded, num_parallel_calls=1).batch(BATCH, drop_remainder=True).prefetch(2)


def require_equal_losses(rival: ArticleVae, run: RunConfig, images: Images) -> None:
    """The rival computes the same loss of the same weights, images and noise; else RuntimeError."""
    net = build_net(run.arm, SIZE, layer_seeds(run.key("initialisation")))
    same_weights(rival, net)
    pixels = images[:BATCH]
    epsilon = net.noise(tf.constant(1, tf.int64), tf.constant(0, tf.int64), tf.constant(BATCH))
    theirs = float(rival.losses_of(tf.constant(pixels, tf.float32) / 255.0, epsilon))
    mu, log_var = net.encode(tf.constant(pixels, tf.float32) / 255.0, training=True)
    logits = net.decoder(net.sample(mu, log_var, epsilon), training=True)
    cross_entropy = tf.nn.sigmoid_cross_entropy_with_logits(tf.constant(pixels, tf.float32) / 255.0, logits)
    ours = float(tf.reduce_mean(tf.reduce_sum(tf.reduce_mean(cross_entropy, axis=-1), axis=(1, 2))))
    if abs(theirs - ours) > 1e-3 * ours:
        raise RuntimeError(f"the rival's loss is {theirs}, ours {ours}: they do not compute the same")


def sgemm_rate(size: int = 1024) -> float:
    """Floating-point operations per CPU second of TensorFlow's own matrix product in float32, on one thread."""
    factors = [tf.constant(np.random.default_rng(seed).normal(size=(size, size)), tf.float32) for seed in (0, 1)]
    product = tf.function(lambda a, b: tf.matmul(a, b))
    product(*factors).numpy()
    seconds = min(cpu_seconds(lambda: product(*factors).numpy()) for _ in range(8))
    return 2 * size**3 / seconds


def training_rows(jpegs: Path, prepared: Path, num_pairs: int, num_steps: int) -> Iterator[Row]:
    """Our step against those of others."""
    runs: dict[str, RunConfig] = {
        name: article_run(precision, prepared)
        for name, precision in (("bfloat16", "mixed_bfloat16"), ("float32", "float32"))
    }
    images = load_training_images(runs["float32"])
    ours = {name: our_steps(run, images, num_steps) for name, run in runs.items()}
    article, records = ArticleVae(SIZE, Z_DIM), ArticleVae(SIZE, Z_DIM)
    require_equal_losses(article, runs["float32"], images)
    theirs = {
        "the article's way: fit, ImageDataGenerator": fitted(article, generated(jpegs), num_steps),
        "fit on a JPEG tf.data pipeline": fitted(records, jpeg_records(jpegs, prepared / "jpegs"), num_steps),
    }
    if (step := torch_step(SIZE, Z_DIM, 5e-4)) is not None:
        theirs["torch.compile, images in memory"] = lambda: [step(images[:BATCH]) for _ in range(num_steps)]
    for work in (*ours.values(), *theirs.values()):
        work()
        work()
    wanted = {"the article's way: fit, ImageDataGenerator": ("2.2 x", "2.5 x")}
    per_image = 1e3 / (num_steps * BATCH)
    for rival, work in theirs.items():
        for precision, own in ours.items():
            pairs = in_turns(work, own, num_pairs)
            at_least, aim = wanted.get(rival, ("1.8 x", "2.2 x")) if precision == "bfloat16" else ("", "")
            medians = [per_image * median_interval(values)[0] for values in zip(*pairs, strict=True)]
            beside = f"{medians[0]:.1f} and {medians[1]:.1f} CPU ms/image"
            yield ratio_row(PART, f"{rival} / ours, {precision}", pairs, wanted=at_least, aim=aim, beside=beside)
    rate = sgemm_rate()
    seconds = [cpu_seconds(ours["float32"]) / (num_steps * BATCH) for _ in range(2 * num_pairs)]
    shares = [FLOP_PER_IMAGE / value / rate for value in seconds]
    beside = f"sgemm {rate / 1e9:.0f} GFLOP/s on one thread"
    yield Row(PART, "share of sgemm's rate, float32", *median_interval(shares), "", "0.75", "0.85", beside)


def feeding_row(jpegs: Path, prepared: Path, num_pairs: int) -> Row:
    """Batches alone, without training."""
    article = generated(jpegs)
    images = load_training_images(article_run("float32", prepared))
    order = np.random.default_rng(0).permutation(np.arange(NUM_EPOCHS * len(images)) % len(images))

    def fed() -> None:
        for _ in batches(images, order, BATCH):
            pass

    fed()
    pairs = in_turns(lambda: [next(article) for _ in range(len(images) // BATCH)], fed, num_pairs)
    speed = len(order) / median_interval([own for _, own in pairs])[0]
    share = speed * images[:1].nbytes / copy_rate()
    return ratio_row(
        "feeding",
        "ImageDataGenerator / ours",
        [(NUM_EPOCHS * theirs, own) for theirs, own in pairs],
        wanted="20 x",
        aim="90 x",
        beside=f"{speed / 1e3:.0f}k images per CPU second, {share:.0%} of what a copy reads",
    )


def measured(quick: bool) -> Iterator[Row]:
    """All rows."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        archive = write_celeba(folder / "celeba", NUM_IMAGES, seed=0, workers=2)
        with zipfile.ZipFile(archive) as zipped:
            zipped.extractall(folder / "jpegs")
        prepare(Request(celeba=str(archive), size=SIZE, num_train=NUM_IMAGES, workers=2), folder / "data")
        yield feeding_row(folder / "jpegs", folder / "data", 5 if quick else 20)
        yield from training_rows(folder / "jpegs", folder / "data", 3 if quick else 15, 2)


def main() -> None:
    """Measure and show."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer pairs")
    parser.add_argument("json", nargs="?", help="leave the rows here too")
    quick = parser.parse_args().quick
    configure_tensorflow(1)
    finish(measured(quick), "Training and feeding, CPU seconds")


if __name__ == "__main__":
    main()
