"""The training step and its feeding against the ways of others, and against what this machine can do.

CPU seconds per image on one thread: of all these ways, one thread per process is no slower on a CPU, and comparable.
The article's net, 96 x 96, z 256, batch 128. Ours is the step as it is trained, with the recorder's signals in it.
"""

from __future__ import annotations

import vaehpc  # isort: skip  # noqa: F401  # before TensorFlow, so that oneDNN is on

import importlib.util
import os
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
import tensorflow as tf

from tests.benchmarks.article import article_run, built, stepper
from tests.benchmarks.feeding import feeding_rows
from tests.benchmarks.measure import Elsewhere, Row, Work, cpu_seconds, in_turns, median_interval, ratio_row
from tests.benchmarks.net import BATCH, NUM_CHECKED, SIZE, TOLERANCE, Z_DIM
from tests.benchmarks.rivals import ArticleVae, same_weights
from vaehpc.images.synthetic import write_celeba
from vaehpc.machine.hardware import computes_bfloat16
from vaehpc.schema.config import DataConfig, RunConfig, TrainConfig
from vaehpc.study.files import DataDir
from vaehpc.study.study import data_config
from vaehpc.tasks.device import configure_tensorflow
from vaehpc.tasks.prepare import Request, prepare
from vaehpc.training.encode import noise_key
from vaehpc.training.pipeline import Images, load_training_images
from vaehpc.training.signals import LOSSES

NUM_IMAGES = 256
NUM_COPIES = 100
PART = "training step"
ARTICLE = "the article's way: fit, ImageDataGenerator"
RECORDS = "fit on a JPEG tf.data pipeline"
TORCH = "torch.compile, images in memory"
WANTED = {ARTICLE: ("2.2 x", "2.5 x"), RECORDS: ("1.8 x", "2.2 x"), TORCH: ("1.8 x", "2.5 x")}
"""In bfloat16, on a processor that has units for it."""
FLOP_PER_IMAGE = 445e6
"""Of a training step of the VAE at 96 x 96: multiplications and additions of its convolutions and dense layers."""


def write_first_steps(run: RunConfig, images: Images, path: Path) -> None:
    """What a rival needs to show that it computes the same, of our first NUM_CHECKED steps.

    Its weights before them in Keras' order, the encoder's, then the decoder's; pixels (steps, batch, height, width, 3)
    uint8, epsilon (steps, batch, z_dim), total losses (steps,).

    Raises:
        RuntimeError: Keras' own layers give another loss of the same weights, images and noise.
    """
    net, optimizer = built(run)
    plain = ArticleVae(SIZE, Z_DIM)
    same_weights(plain, net)
    weights = [weight.numpy() for part in (plain.encoder, plain.decoder) for weight in part.weights]
    train = stepper(run, (net, optimizer), images)
    losses = [train(1)[0, LOSSES.index("total_loss")] for _ in range(NUM_CHECKED)]
    pixels = images[np.arange(NUM_CHECKED * BATCH) % len(images)].reshape(NUM_CHECKED, BATCH, SIZE, SIZE, 3)
    steps = (tf.constant(step, tf.int64) for step in range(NUM_CHECKED))
    epsilon = [net.noise(noise_key(run), step, tf.constant(BATCH)).numpy() for step in steps]
    theirs = float(plain.losses_of(tf.constant(pixels[0], tf.float32) / 255.0, epsilon[0]))
    if abs(theirs - losses[0]) > TOLERANCE * losses[0]:
        raise RuntimeError(f"the plain net's loss is {theirs}, ours {losses[0]}: they do not compute the same")
    np.savez(path, *weights, pixels=pixels, epsilon=np.array(epsilon), losses=np.array(losses))


def rival(module: str, *arguments: str | Path) -> Elsewhere:
    """Another way, in a process of its own; it uses oneDNN where TensorFlow would by itself."""
    of_users = {name: value for name, value in os.environ.items() if name != "TF_ENABLE_ONEDNN_OPTS"}
    return Elsewhere([sys.executable, "-m", f"tests.benchmarks.{module}", *arguments], of_users)


def training_rows(jpegs: Path, data: DataConfig, images: Images, num_pairs: int, quick: bool) -> Iterator[Row]:
    """Our step against those of others."""
    runs = {precision: article_run(data=data, precision=precision) for precision in ("float32", "mixed_bfloat16")}
    first_steps = jpegs.with_name("first_steps.npz")
    write_first_steps(runs["float32"], images, first_steps)
    theirs = {ARTICLE: rival("rivals", "article", jpegs), RECORDS: rival("rivals", "records", jpegs)}
    if importlib.util.find_spec("torch") is not None:
        theirs[TORCH] = rival("torch_rival", first_steps)
    if quick and not computes_bfloat16():
        del runs["mixed_bfloat16"]
    steps = dict[str, Work]()
    for precision, run in runs.items():
        train = stepper(run, built(run), images)
        steps[precision] = ours = partial(train, 1)
        ours()
        for way, work in theirs.items():
            pairs = in_turns(work, ours, num_pairs)
            at_least, aim = WANTED[way] if precision == "mixed_bfloat16" else ("", "")
            medians = [1e3 / BATCH * median_interval(values)[0] for values in zip(*pairs, strict=True)]
            beside = f"{medians[0]:.1f} and {medians[1]:.1f} CPU ms/image"
            if precision != "float32" and not computes_bfloat16():
                beside += "; emulated, for this processor has no units for it"
            yield ratio_row(PART, f"{way} / ours, {precision}", pairs, wanted=at_least, aim=aim, beside=beside)
    yield share_of_sgemm(steps["float32"], num_pairs)


def share_of_sgemm(step: Work, num_repeats: int) -> Row:
    """How near the step comes to the rate of one large matrix product in float32, which takes turns with it."""
    side = 1024
    factors = [tf.constant(np.random.default_rng(seed).normal(size=(side, side)), tf.float32) for seed in (0, 1)]
    matmul = tf.function(lambda a, b: tf.matmul(a, b))
    shares, rates = [], []
    for _ in range(num_repeats):
        rates.append(2 * side**3 / min(cpu_seconds(lambda: matmul(*factors).numpy()) for _ in range(8)))
        shares.append(FLOP_PER_IMAGE * BATCH / cpu_seconds(step) / rates[-1])
    beside = f"sgemm {np.median(rates) / 1e9:.0f} GFLOP/s on one thread"
    return Row(PART, "share of sgemm's rate, float32", *median_interval(shares), unit="", beside=beside)


def rows(quick: bool) -> Iterator[Row]:
    """All rows."""
    configure_tensorflow(TrainConfig())
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        archive = write_celeba(folder / "celeba", NUM_IMAGES, seed=0, workers=2)
        with zipfile.ZipFile(archive) as zipped:
            zipped.extractall(folder / "jpegs" / "once")
        for again in range(1, NUM_COPIES):  # epochs of some length: at each end Keras empties its queue
            (folder / "jpegs" / f"{again}").symlink_to(folder / "jpegs" / "once")
        prepare(Request(celeba=str(archive), size=SIZE, num_train=NUM_IMAGES, workers=2), folder / "data")
        data = data_config(DataDir(folder / "data"))
        images = load_training_images(article_run(data=data))
        yield from feeding_rows(folder / "jpegs", folder, 3 if quick else 20)
        yield from training_rows(folder / "jpegs", data, images, 3 if quick else 15, quick)
