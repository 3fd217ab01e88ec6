"""The statistics of one run of the article's size, and what takes longest of them against scikit-learn.

CPU seconds of all threads. Latents are synthetic: off-centre, with a falling spectrum and slightly heavy tails.
"""

from __future__ import annotations

import os
import resource
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import numpy.typing as npt
from openTSNE.affinity import PerplexityBasedNN
from sklearn.cluster import KMeans
from sklearn.manifold import TSNE
from threadpoolctl import threadpool_limits

from tests.benchmarks.measure import Row, cpu_seconds, in_turns, ratio_row
from tests.examples import run_config
from vaehpc.schema.config import RunConfig
from vaehpc.schema.results import ATTRIBUTES
from vaehpc.stats import latents
from vaehpc.stats.embedding import tsne
from vaehpc.stats.gaussian import fitted_normal, mean_and_covariance
from vaehpc.stats.threads import num_threads
from vaehpc.tasks.statistics import latent_statistics

PART = "analysis"
NUM_IMAGES, Z_DIM = 170_000, 256
QUICK_IMAGES, QUICK_CLUSTERS = 10_000, (8, 16, 24)
Float32 = npt.NDArray[np.float32]


def write_latents(folder: Path, num_images: int) -> None:
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
        rows = slice(start, start + 8192)
        shape = mu[rows].shape
        scale = np.exp(0.12 * rng.standard_normal((shape[0], 1), np.float32))
        mu[rows] = offset + (scale * rng.standard_normal(shape, np.float32)) @ axes
        log_var[rows] = -13.7 + 2 * rng.standard_normal(shape, np.float32)
        z[rows] = mu[rows] + np.exp(log_var[rows] / 2) * rng.standard_normal(shape, np.float32)


def article_plan(num_images: int, num_clusters: tuple[int, ...] | None = None) -> RunConfig:
    """A run of a VAE whose plan is the article's without t-SNE, or with other numbers of clusters."""
    config = run_config(num_train=num_images, model={"z_dim": Z_DIM})
    without = {"sizes": (), "large_sizes": (), "large_seeds": ()}
    plan = config.plan.model_copy(update={"tsne": config.plan.tsne.model_copy(update=without)})
    if num_clusters is not None:
        clusters = plan.clusters.model_copy(update={"num_clusters": num_clusters})
        plan = plan.model_copy(update={"clusters": clusters})
    return config.model_copy(update={"plan": plan})


def inertia_row(mu: Float32, num_clusters: tuple[int, ...]) -> Row:
    """The inertia curve against Lloyd's algorithm with scikit-learn's own settings, on one thread.

    Of fewer points than the article's, because theirs take half an hour: ours has 20,000 of them in its subsample
    however many there are, so that the ratio grows with their number.
    """
    config = article_plan(len(mu), num_clusters)
    normal = fitted_normal(*mean_and_covariance(mu))
    found: dict[str, Any] = {}

    def ours() -> None:
        found["ours"] = latents.clusters(mu, normal, config).inertia

    def theirs() -> None:
        found["theirs"] = [KMeans(k, n_init=1, random_state=0).fit(mu).inertia_ for k in num_clusters]

    # Threads that share a cache, or wait for each other, take more CPU seconds in all.
    with threadpool_limits(1), mock.patch.dict(os.environ, OMP_NUM_THREADS="1"):
        pairs = in_turns(theirs, ours, 1)
    excess = np.array(found["ours"]) / found["theirs"] - 1
    monotone = {whose: bool((np.diff(curve) <= 0).all()) for whose, curve in found.items()}
    beside = f"inertia {excess.min():+.2%} to {excess.max():+.2%}, mean {excess.mean():+.3%}"
    beside += f"; monotone: ours {monotone['ours']}, Lloyd's {monotone['theirs']}"
    what = f"inertia of {len(num_clusters)} k to {num_clusters[-1]}, {len(mu):,} points: Lloyd / ours"
    return ratio_row(PART, what, pairs, wanted="2 x, no more inertia, monotone", aim="3 x", beside=beside)


def tsne_row(mu: Float32, size: int, wanted: str, aim: str) -> Row:
    """t-SNE with the article's first setting against scikit-learn's with the same."""
    config = run_config(num_train=len(mu), model={"z_dim": Z_DIM})
    points = np.asarray(mu[latents.sample(len(mu), size, config.key("tsne", 0))])
    settings = config.plan.tsne.settings[0]
    found: dict[str, npt.NDArray[Any]] = {}

    def ours() -> None:
        found["ours"] = tsne(points, settings, 1, num_threads()).coordinates

    def theirs() -> None:
        model = TSNE(perplexity=settings.perplexity, early_exaggeration=settings.exaggeration, random_state=1)
        found["theirs"] = model.fit_transform(points)

    pairs = in_turns(theirs, ours, 1)
    kl = {whose: exact_kl(points, plane, settings.perplexity) for whose, plane in found.items()}
    beside = f"{pairs[0][0]:.0f} and {pairs[0][1]:.0f} CPU s; exact KL {kl['theirs']:.3f} and {kl['ours']:.3f}"
    beside += f" ({kl['ours'] / kl['theirs'] - 1:+.1%})"
    what = f"t-SNE of {size:,} points: scikit-learn / ours"
    return ratio_row(PART, what, pairs, wanted=wanted, aim=aim, beside=beside)


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


def whole_task(folder: Path, config: RunConfig) -> tuple[float, float, float]:
    """Wall seconds, CPU seconds and peak memory (GB) of all statistics of a run but t-SNE, from memory-mapped files."""
    mu, log_var, z = (np.load(folder / f"{name}.npy", mmap_mode="r") for name in ("mu", "log_var", "z"))
    attributes = np.random.default_rng(1).random((len(mu), len(ATTRIBUTES))) < 0.2
    begun = time.perf_counter()
    took = cpu_seconds(lambda: latent_statistics(config, mu, log_var, z, attributes, None))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return time.perf_counter() - begun, took, peak / 1e9


def whole_rows(folder: Path, config: RunConfig) -> Iterator[Row]:
    """The whole task, in a process of its own."""
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        wall, cpu, peak = pool.submit(whole_task, folder, config).result()
    num_images, num_clusters = config.data.num_train, config.plan.clusters.num_clusters
    what = f"statistics of {num_images:,} images without t-SNE, {len(num_clusters)} k to {num_clusters[-1]}"
    beside = f"{wall:.0f} s on {num_threads()} threads"
    of_article = num_images == NUM_IMAGES
    yield Row(PART, what, cpu, cpu, cpu, "CPU s", "120" * of_article, "60" * of_article, beside)
    yield Row(PART, f"{what}: peak memory", peak, peak, peak, "GB", "2" * of_article)


def rows(quick: bool) -> Iterator[Row]:
    """All rows; the quick ones leave out what is measured against others."""
    num_images = QUICK_IMAGES if quick else NUM_IMAGES
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        write_latents(folder, num_images)
        yield from whole_rows(folder, article_plan(num_images, QUICK_CLUSTERS if quick else None))
        if quick:
            return
        mu = np.load(folder / "mu.npy")
    yield inertia_row(mu[:40_000], tuple(range(8, 81, 8)))
    yield tsne_row(mu, 20_000, "3.5 x, ours in 60 CPU s", "5 x, 40 CPU s")
    yield tsne_row(mu, 80_000, "6 x at <= 2.5 % more KL", "8 x at <= 1 %")
