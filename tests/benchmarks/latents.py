"""The statistics of one run of the article's size, against the article's loops and scikit-learn.

CPU seconds of all threads. Latents are synthetic: off-centre, with a falling spectrum and slightly heavy tails.
"""

from __future__ import annotations

import argparse
import itertools
import math
import multiprocessing
import resource
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from openTSNE.affinity import PerplexityBasedNN
from sklearn.cluster import KMeans
from sklearn.decomposition import PCA
from sklearn.manifold import TSNE

from tests.benchmarks.measure import Row, copy_rate, cpu_seconds, finish, in_turns, median_interval, ratio_row
from tests.examples import run_config
from vaehpc.config import RunConfig
from vaehpc.results import ATTRIBUTES, InertiaCurve
from vaehpc.stats import latents
from vaehpc.stats.embedding import Embedding, neighbour_recall, tsne
from vaehpc.stats.gaussian import Normal, fitted_normal, mean_and_covariance
from vaehpc.stats.radius import radii, radius_histogram
from vaehpc.stats.threads import num_threads
from vaehpc.tasks.statistics import latent_statistics

PART = "analysis"
NUM_IMAGES, Z_DIM = 170_000, 256
BIN_WIDTH, NUM_BINS = 0.5, 70
Float32 = npt.NDArray[np.float32]


def write_latents(folder: Path, num_images: int = NUM_IMAGES) -> None:
    """mu.npy, log_var.npy and z.npy, written block by block."""
    rng = np.random.default_rng(0)
    variances = np.arange(1, Z_DIM + 1) ** -0.8
    rotation, _ = np.linalg.qr(rng.standard_normal((Z_DIM, Z_DIM)))
    axes = (rotation * np.sqrt(200 * variances / variances.sum())).T.astype(np.float32)
    offset = rng.standard_normal(Z_DIM, np.float32)
    offset *= 8 / np.linalg.norm(offset)
    mu, log_var, z = (
        np.lib.format.open_memmap(folder / f"{name}.npy", "w+", np.float32, (num_images, Z_DIM))
        for name in ("mu", "log_var", "z")
    )
    for start in range(0, num_images, 8192):
        rows = slice(start, min(start + 8192, num_images))
        shape = (rows.stop - rows.start, Z_DIM)
        scale = np.exp(0.12 * rng.standard_normal((shape[0], 1), np.float32))
        mu[rows] = offset + (scale * rng.standard_normal(shape, np.float32)) @ axes
        log_var[rows] = -13.7 + 2 * rng.standard_normal(shape, np.float32)
        z[rows] = mu[rows] + np.exp(log_var[rows] / 2) * rng.standard_normal(shape, np.float32)


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
    rate = mu.nbytes / median_interval([own for _, own in of_radii])[0]
    beside = f"reads {rate / 1e9:.1f} GB per CPU second, {rate / copy_rate():.0%} of what a copy reads"
    of_bins = in_turns(
        lambda: articles_histogram(radius), lambda: radius_histogram(radius, BIN_WIDTH, NUM_BINS), 2 * num_pairs
    )
    return [
        ratio_row(PART, "radii: the article's loop / ours", of_radii, wanted="40 x", beside=beside),
        ratio_row(PART, "histogram: the article's loop / ours", of_bins, wanted="8 x", beside="identical counts"),
    ]


def pca_row(mu: Float32, num_pairs: int) -> Row:
    """PCA by the covariance against the full singular value decomposition."""
    found: dict[str, Any] = {}

    def theirs() -> None:
        found["theirs"] = PCA(svd_solver="full").fit(mu).explained_variance_

    def ours() -> None:
        found["ours"] = fitted_normal(*mean_and_covariance(mu)).variances

    pairs = in_turns(theirs, ours, num_pairs)
    error = float(np.abs(found["theirs"] * (len(mu) - 1) / len(mu) / found["ours"] - 1).max())
    beside = f"variances equal within {error:.0e}"
    return ratio_row(PART, "PCA: scikit-learn's full SVD / ours", pairs, wanted="15 x", beside=beside)


def inertia_row(mu: Float32, normal: Normal, config: RunConfig) -> Row:
    """The inertia curve against Lloyd's algorithm with scikit-learn's own settings at each number of clusters."""
    found: dict[str, Any] = {}

    def ours() -> None:
        found["ours"] = latents.clusters(mu, normal, config)

    def theirs() -> None:
        models = [KMeans(k, n_init=1, random_state=0).fit(mu) for k in config.plan.clusters.num_clusters]
        found["theirs"] = [model.inertia_ for model in models]

    pairs = in_turns(theirs, ours, 1)
    curve: InertiaCurve = found["ours"]
    excess = [own / other - 1 for own, other in zip(curve.inertia, found["theirs"], strict=True)]
    monotone = [all(a >= b for a, b in itertools.pairwise(of)) for of in (curve.inertia, found["theirs"])]
    beside = f"inertia {min(excess):+.2%} to {max(excess):+.2%}; monotone: ours {monotone[0]}, Lloyd's {monotone[1]}"
    what = f"inertia of k = 2 ... {curve.num_clusters[-1]}, {len(mu):,} points: Lloyd / ours"
    return ratio_row(PART, what, pairs, wanted="2 x, monotone", aim="3 x", beside=beside)


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


def whole_task(folder: Path) -> tuple[float, float, float]:
    """Wall seconds, CPU seconds and peak memory (GB) of all statistics of a run but t-SNE, from memory-mapped files."""
    mu, log_var, z = (np.load(folder / f"{name}.npy", mmap_mode="r") for name in ("mu", "log_var", "z"))
    attributes = np.random.default_rng(1).random((len(mu), len(ATTRIBUTES))) < 0.2
    begun = time.perf_counter()
    took = cpu_seconds(lambda: latent_statistics(without_tsne(len(mu)), mu, log_var, z, attributes, None))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return time.perf_counter() - begun, took, peak / 1e9


def whole_rows(folder: Path, num_images: int) -> list[Row]:
    """The whole task, in a process of its own."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        wall, cpu, peak = pool.submit(whole_task, folder).result()
    what = f"statistics of {num_images:,} images without t-SNE"
    of_article = num_images == NUM_IMAGES
    beside = f"{cpu:.0f} CPU s on {num_threads()} threads"
    return [
        Row(PART, what, wall, wall, wall, "s", "120" * of_article, "60" * of_article, beside),
        Row(PART, f"{what}: peak memory", peak, peak, peak, "GB", "2" * of_article),
    ]


def measured(num_images: int, quick: bool, with_inertia: bool) -> Iterator[Row]:
    """All rows; Lloyd's algorithm on all images takes longest."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        write_latents(folder, num_images)
        yield from whole_rows(folder, num_images)
        mu = np.load(folder / "mu.npy")
    config = run_config(num_train=num_images, model={"z_dim": Z_DIM})
    if quick:
        clusters = config.plan.clusters.model_copy(update={"num_clusters": tuple(range(2, 21, 2))})
        config = config.model_copy(update={"plan": config.plan.model_copy(update={"clusters": clusters})})
    yield from radius_rows(mu, 3 if quick else 9)
    yield pca_row(mu, 1 if quick else 3)
    if quick:
        yield tsne_row(mu, 5_000, config)
    else:
        yield tsne_row(mu, 20_000, config, "3.5 x at <= 2.5 % more KL", "4 x at <= 1 %")
        yield large_tsne_row(mu, 140_000, config)
    if with_inertia:
        yield inertia_row(mu, fitted_normal(*mean_and_covariance(mu)), config)
    if not quick:
        yield tsne_row(mu, 80_000, config, "6 x")


def main() -> None:
    """Measure and show."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer points and clusters")
    parser.add_argument("--no-inertia", action="store_true", help="without the inertia curve, which takes half an hour")
    parser.add_argument("json", nargs="?", help="leave the rows here too")
    asked = parser.parse_args()
    num_images = 40_000 if asked.quick else NUM_IMAGES
    finish(measured(num_images, asked.quick, not asked.no_inertia), "Statistics of latents")


if __name__ == "__main__":
    main()
