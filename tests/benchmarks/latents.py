"""The statistics of one run of the article's size, against the article's loops and scikit-learn.

CPU seconds of all threads. Latents are synthetic: off-centre, with a falling spectrum and slightly heavy tails.
"""

from __future__ import annotations

import argparse
import math
import multiprocessing
import os
import resource
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import numpy.typing as npt
from openTSNE.affinity import PerplexityBasedNN
from sklearn.cluster import KMeans
from sklearn.decomposition import PCA
from sklearn.manifold import TSNE
from threadpoolctl import threadpool_limits

from tests.benchmarks.measure import Row, cpu_seconds, finish, in_turns, median_interval, ratio_row
from tests.examples import run_config
from vaehpc.schema.config import RunConfig
from vaehpc.schema.results import ATTRIBUTES
from vaehpc.stats import latents
from vaehpc.stats.blocks import ROWS_PER_BLOCK
from vaehpc.stats.embedding import Embedding, neighbour_recall, tsne
from vaehpc.stats.gaussian import fitted_normal, mean_and_covariance
from vaehpc.stats.radius import radii, radius_histogram
from vaehpc.stats.threads import num_threads
from vaehpc.tasks.statistics import latent_statistics

PART = "analysis"
NUM_IMAGES, Z_DIM = 170_000, 256
QUICK_IMAGES, QUICK_CLUSTERS = 10_000, (8, 16, 24)
BIN_WIDTH, NUM_BINS = 0.5, 70
HISTOGRAMS = 20
"""In one turn."""
Float32 = npt.NDArray[np.float32]


def write_latents(folder: Path, num_whole: int) -> None:
    """mu.npy, and log_var.npy and z.npy of the first images, written block by block."""
    rng = np.random.default_rng(0)
    variances = np.arange(1, Z_DIM + 1) ** -0.8
    rotation, _ = np.linalg.qr(rng.standard_normal((Z_DIM, Z_DIM)))
    axes = (rotation * np.sqrt(200 * variances / variances.sum())).T.astype(np.float32)
    offset = rng.standard_normal(Z_DIM, np.float32)
    offset *= 8 / np.linalg.norm(offset)
    mu, log_var, z = (
        np.lib.format.open_memmap(folder / f"{name}.npy", "w+", np.float32, (num_images, Z_DIM))
        for name, num_images in (("mu", NUM_IMAGES), ("log_var", num_whole), ("z", num_whole))
    )
    for start in range(0, NUM_IMAGES, 8192):
        rows = slice(start, min(start + 8192, NUM_IMAGES))
        shape = (rows.stop - rows.start, Z_DIM)
        scale = np.exp(0.12 * rng.standard_normal((shape[0], 1), np.float32))
        mu[rows] = offset + (scale * rng.standard_normal(shape, np.float32)) @ axes
        if (num_left := len(log_var[rows])) > 0:
            shape = (num_left, Z_DIM)
            log_var[rows] = -13.7 + 2 * rng.standard_normal(shape, np.float32)
            z[rows] = mu[rows][:num_left] + np.exp(log_var[rows] / 2) * rng.standard_normal(shape, np.float32)


# The article's ways


def articles_radii(z_points: Float32) -> Float32:
    """A loop over the images."""
    radius = np.zeros(len(z_points), np.float32)
    for i in range(len(z_points)):
        radius[i] = math.sqrt(np.square(z_points[i]).sum())
    return radius


def articles_histogram(radius: Float32) -> list[int]:
    """A comparison of all radii with both edges of every bin."""
    edges = [(BIN_WIDTH * i, BIN_WIDTH * (i + 1)) for i in range(NUM_BINS)]
    return [int(np.count_nonzero((radius >= low) & (radius < high))) for low, high in edges]


# The rows


def radius_rows(mu: Float32, num_pairs: int) -> list[Row]:
    """Radii and their histogram."""
    radius = articles_radii(mu)
    ours = radius_histogram(radius, BIN_WIDTH, NUM_BINS)
    if not np.allclose(radius, radii(mu), rtol=1e-5) or list(ours.counts) != articles_histogram(radius):
        raise RuntimeError("the article's loops and ours do not compute the same")
    of_radii = in_turns(lambda: articles_radii(mu), lambda: radii(mu), num_pairs)
    of_reading = in_turns(mu.max, lambda: radii(mu), num_pairs)
    rate = mu.nbytes / median_interval([own for _, own in of_radii])[0]
    share = median_interval([reading / own for reading, own in of_reading])[0]
    beside = f"reads {rate / 1e9:.1f} GB per CPU second; the fastest way to read it all takes {share:.0%} of the time"
    # Many in a turn: one is shorter than what interrupts it.
    of_bins = in_turns(
        lambda: [articles_histogram(radius) for _ in range(HISTOGRAMS)],
        lambda: [radius_histogram(radius, BIN_WIDTH, NUM_BINS) for _ in range(HISTOGRAMS)],
        num_pairs,
    )
    return [
        ratio_row(
            PART, f"radii of {len(mu):,} images: the article's loop / ours", of_radii, wanted="40 x", beside=beside
        ),
        ratio_row(
            PART,
            f"histogram of {len(mu):,} radii: the article's loop / ours",
            of_bins,
            wanted="8 x",
            beside="identical counts",
        ),
    ]


@contextmanager
def on_one_thread() -> Iterator[None]:
    """Ours and the libraries'. Threads that share a cache, or wait for each other, take more CPU seconds in all."""
    with threadpool_limits(1), mock.patch.dict(os.environ, OMP_NUM_THREADS="1"):
        yield


def pca_row(mu: Float32, num_pairs: int) -> Row:
    """PCA by the covariance against the full singular value decomposition, on one thread."""
    found: dict[str, Any] = {}

    def theirs() -> None:
        found["theirs"] = PCA(svd_solver="full").fit(mu).explained_variance_

    def ours() -> None:
        found["ours"] = fitted_normal(*mean_and_covariance(mu)).variances

    block = np.ones((ROWS_PER_BLOCK, Z_DIM), np.float32)
    with on_one_thread():
        pairs = in_turns(theirs, ours, num_pairs)
        product = min(cpu_seconds(lambda: block.T @ block) for _ in range(20)) * len(mu) / len(block)
    error = float(np.abs(found["theirs"] * (len(mu) - 1) / len(mu) / found["ours"] - 1).max())
    share = product / median_interval([own for _, own in pairs])[0]
    beside = f"variances equal within {error:.0e}; {share:.0%} of our time is the product alone"
    return ratio_row(
        PART, f"PCA of {len(mu):,} images: scikit-learn's full SVD / ours", pairs, wanted="15 x", beside=beside
    )


def inertia_row(mu: Float32, num_clusters: tuple[int, ...], **words: str) -> Row:
    """The inertia curve against Lloyd's algorithm with scikit-learn's own settings, on one thread.

    Of fewer points than the article's, because theirs take half an hour: ours has 20,000 of them in its subsample
    however many there are, so that the ratio grows with their number.
    """
    config = _with_clusters(run_config(num_train=len(mu), model={"z_dim": Z_DIM}), num_clusters)
    normal = fitted_normal(*mean_and_covariance(mu))
    found: dict[str, Any] = {}

    def ours() -> None:
        found["ours"] = latents.clusters(mu, normal, config).inertia

    def theirs() -> None:
        found["theirs"] = [KMeans(k, n_init=1, random_state=0).fit(mu).inertia_ for k in num_clusters]

    with on_one_thread():
        pairs = in_turns(theirs, ours, 1)
    excess = np.array(found["ours"]) / found["theirs"] - 1
    monotone = {whose: bool((np.diff(curve) <= 0).all()) for whose, curve in found.items()}
    beside = f"inertia {excess.min():+.2%} to {excess.max():+.2%}, mean {excess.mean():+.3%}"
    beside += f"; monotone: ours {monotone['ours']}, Lloyd's {monotone['theirs']}"
    what = f"inertia of {len(num_clusters)} k to {num_clusters[-1]}, {len(mu):,} points: Lloyd / ours"
    return ratio_row(PART, what, pairs, beside=beside, **words)


def _with_clusters(config: RunConfig, num_clusters: tuple[int, ...]) -> RunConfig:
    clusters = config.plan.clusters.model_copy(update={"num_clusters": num_clusters})
    return config.model_copy(update={"plan": config.plan.model_copy(update={"clusters": clusters})})


def tsne_row(mu: Float32, size: int, config: RunConfig, wanted: str = "", aim: str = "") -> Row:
    """t-SNE with the article's first setting against scikit-learn's with the same."""
    points = np.asarray(mu[latents.sample(len(mu), size, config.key("tsne", 0))])
    settings = config.plan.tsne.settings[0]
    found: dict[str, npt.NDArray[Any]] = {}

    def ours() -> None:
        embedding: Embedding = tsne(points, settings, 1, num_threads())
        found["ours"] = embedding.coordinates

    def theirs() -> None:
        model = TSNE(perplexity=settings.perplexity, early_exaggeration=settings.exaggeration, random_state=1)
        found["theirs"] = model.fit_transform(points)

    pairs = in_turns(theirs, ours, 1)
    kl = {whose: exact_kl(points, plane, settings.perplexity) for whose, plane in found.items()}
    queries = latents.sample(size, 1000, config.key("tsne", 2))
    recall = {whose: neighbour_recall(points, plane, 10, queries) for whose, plane in found.items()}
    beside = f"{pairs[0][0]:.0f} and {pairs[0][1]:.0f} CPU s; exact KL {kl['theirs']:.3f} and {kl['ours']:.3f}"
    beside += f" ({kl['ours'] / kl['theirs'] - 1:+.1%}); recall {recall['theirs']:.3f} and {recall['ours']:.3f}"
    return ratio_row(
        PART, f"t-SNE of {size:,} points: scikit-learn / ours", pairs, wanted=wanted, aim=aim, beside=beside
    )


def exact_kl(points: Float32, coordinates: npt.NDArray[Any], perplexity: float) -> float:
    """KL divergence with exact neighbours, the nearest 3 x perplexity, and an exact sum over all pairs in the plane."""
    affinities = PerplexityBasedNN(points, perplexity=perplexity, method="exact", n_jobs=num_threads()).P.tocoo()
    plane = coordinates.astype(np.float64)
    total = 0.0
    for start in range(0, len(plane), 500):
        block = plane[start : start + 500]
        squares = np.square(block[:, :1] - plane[:, 0]) + np.square(block[:, 1:] - plane[:, 1])
        total += float((1 / (1 + squares)).sum())
    total -= len(plane)
    near = 1 / (1 + np.square(plane[affinities.row] - plane[affinities.col]).sum(axis=1))
    p = affinities.data / affinities.data.sum()
    return float((p * np.log(p / (near / total))).sum())


def large_tsne_row(mu: Float32, size: int, config: RunConfig) -> Row:
    """t-SNE of many points, alone."""
    points = np.asarray(mu[latents.sample(len(mu), size, config.key("tsne", 0))])
    settings = config.plan.tsne.settings[0]
    begun = time.perf_counter()
    took = cpu_seconds(lambda: tsne(points, settings, 1, num_threads()))
    beside = f"{took:.0f} CPU s on {num_threads()} threads"
    return Row(PART, f"t-SNE of {size:,} points", *median_interval([time.perf_counter() - begun]), "s", beside=beside)


def without_tsne(num_images: int) -> RunConfig:
    """A run of a VAE whose plan asks for no t-SNE."""
    config = run_config(num_train=num_images, model={"z_dim": Z_DIM})
    tsne_plan = config.plan.tsne.model_copy(update={"sizes": (), "large_sizes": (), "large_seeds": ()})
    return config.model_copy(update={"plan": config.plan.model_copy(update={"tsne": tsne_plan})})


def whole_task(folder: Path, config: RunConfig) -> tuple[float, float, float]:
    """Wall seconds, CPU seconds and peak memory (GB) of all statistics of a run but t-SNE, from memory-mapped files."""
    mu, log_var, z = (
        np.load(folder / f"{name}.npy", mmap_mode="r")[: config.data.num_train] for name in ("mu", "log_var", "z")
    )
    attributes = np.random.default_rng(1).random((len(mu), len(ATTRIBUTES))) < 0.2
    begun = time.perf_counter()
    took = cpu_seconds(lambda: latent_statistics(config, mu, log_var, z, attributes, None))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return time.perf_counter() - begun, took, peak / 1e9


def whole_rows(folder: Path, config: RunConfig) -> list[Row]:
    """The whole task, in a process of its own."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        wall, cpu, peak = pool.submit(whole_task, folder, config).result()
    num_images, num_clusters = config.data.num_train, config.plan.clusters.num_clusters
    what = f"statistics of {num_images:,} images without t-SNE, {len(num_clusters)} k to {num_clusters[-1]}"
    of_article = num_images == NUM_IMAGES
    beside = f"{cpu:.0f} CPU s on {num_threads()} threads"
    return [
        Row(PART, what, wall, wall, wall, "s", "120" * of_article, "60" * of_article, beside),
        Row(PART, f"{what}: peak memory", peak, peak, peak, "GB", "2" * of_article),
    ]


def measured(quick: bool) -> Iterator[Row]:
    """All rows. The quick ones are of the article's size where that takes seconds."""
    config = run_config(num_train=NUM_IMAGES, model={"z_dim": Z_DIM})
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        whole = without_tsne(QUICK_IMAGES if quick else NUM_IMAGES)
        write_latents(folder, whole.data.num_train)
        yield from whole_rows(folder, _with_clusters(whole, QUICK_CLUSTERS) if quick else whole)
        mu = np.load(folder / "mu.npy")
    yield from radius_rows(mu, 3 if quick else 9)
    yield pca_row(mu, 3 if quick else 5)
    if quick:
        return
    yield inertia_row(mu[:40_000], tuple(range(8, 81, 8)), wanted="2 x, no more inertia, monotone", aim="3 x")
    yield tsne_row(mu, 20_000, config, "3.5 x at <= 2.5 % more KL", "4 x at <= 1 %")
    yield large_tsne_row(mu, 140_000, config)
    yield tsne_row(mu, 80_000, config, "6 x")


def main() -> None:
    """Measure and show."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer images; neither clusters nor t-SNE against others")
    parser.add_argument("json", nargs="?", help="leave the rows here too")
    asked = parser.parse_args()
    finish(measured(asked.quick), "Statistics of latents")


if __name__ == "__main__":
    main()
