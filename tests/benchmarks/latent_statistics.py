"""Time and memory of the statistics of one run of the article's size, and of t-SNE beside scikit-learn's.

    python -m tests.benchmarks.latent_statistics             parts of the statistics without t-SNE
    python -m tests.benchmarks.latent_statistics pca         PCA beside the full singular value decomposition
    python -m tests.benchmarks.latent_statistics lloyd       inertia beside Lloyd's at some numbers of clusters
    python -m tests.benchmarks.latent_statistics tsne 20000 [sklearn]

Latents are synthetic: 170,000 x 256, off-centre, with a falling spectrum and slightly heavy tails.
"""

import argparse
import resource
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from openTSNE.affinity import PerplexityBasedNN
from sklearn.cluster import KMeans
from sklearn.decomposition import PCA
from sklearn.manifold import TSNE

from tests.examples import run_config
from vaehpc.config import RunConfig
from vaehpc.results import ATTRIBUTES
from vaehpc.stats import latents
from vaehpc.stats.embedding import neighbour_recall, tsne
from vaehpc.stats.gaussian import fitted_normal, mean_and_covariance
from vaehpc.stats.posterior import difference_census, log_var_census, num_nonfinite
from vaehpc.stats.radius import offset_and_spread, radii, radius_statistics
from vaehpc.tasks.statistics import num_threads

NUM_IMAGES, Z_DIM = 170_000, 256
Float32 = npt.NDArray[np.float32]


def synthetic_latents(folder: Path) -> dict[str, Float32]:
    """mu, log_var and z, memory-mapped."""
    rng = np.random.default_rng(0)
    variances = np.arange(1, Z_DIM + 1) ** -0.8
    rotation, _ = np.linalg.qr(rng.standard_normal((Z_DIM, Z_DIM)))
    axes = (rotation * np.sqrt(200 * variances / variances.sum())).T.astype(np.float32)
    offset = rng.standard_normal(Z_DIM, np.float32)
    offset *= 8 / np.linalg.norm(offset)
    names = ("mu", "log_var", "z")
    arrays = {
        name: np.lib.format.open_memmap(folder / f"{name}.npy", "w+", np.float32, (NUM_IMAGES, Z_DIM)) for name in names
    }
    for start in range(0, NUM_IMAGES, 8192):
        rows = slice(start, min(start + 8192, NUM_IMAGES))
        shape = (rows.stop - rows.start, Z_DIM)
        scale = np.exp(0.12 * rng.standard_normal((shape[0], 1), np.float32))
        arrays["mu"][rows] = offset + (scale * rng.standard_normal(shape, np.float32)) @ axes
        arrays["log_var"][rows] = -13.7 + 2 * rng.standard_normal(shape, np.float32)
        arrays["z"][rows] = arrays["mu"][rows] + np.exp(arrays["log_var"][rows] / 2) * rng.standard_normal(
            shape, np.float32
        )
        for array in arrays.values():
            array.flush()
    del arrays
    return {name: np.load(folder / f"{name}.npy", mmap_mode="r") for name in names}


def timed(name: str, work: Callable[[], Any]) -> Any:
    """Say how long it takes and how far the process's memory has grown."""
    wall, cpu = time.perf_counter(), time.process_time()
    found = work()
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"{name:<44} {wall:8.1f} s   {cpu:8.1f} CPU s   peak so far {peak:5.2f} GiB", flush=True)
    return found


def parts(config: RunConfig, arrays: dict[str, Float32]) -> None:
    """Every part of the statistics but t-SNE."""
    mu, log_var, z = arrays["mu"], arrays["log_var"], arrays["z"]
    plan = config.plan
    attributes = np.random.default_rng(1).random((NUM_IMAGES, len(ATTRIBUTES))) < 0.2
    wall, cpu = time.perf_counter(), time.process_time()
    timed("not finite", lambda: num_nonfinite([mu, log_var, z]))
    timed("radii", lambda: [radius_statistics(radii(points), plan.radius) for points in (mu, z)])
    timed("offset and spread", lambda: offset_and_spread(mu))
    timed("log_var", lambda: log_var_census(log_var, plan.census.log_var_interval))
    timed("z against mu", lambda: difference_census(mu, log_var, z, plan.census.difference_interval, 1.0))
    mean, covariance = timed("covariance", lambda: mean_and_covariance(mu))
    normal = fitted_normal(mean, covariance)
    timed("normality", lambda: latents.gaussian_statistics(mu, normal, covariance, config))
    timed("dimension", lambda: latents.dimension_statistics(mu, normal, config))
    timed("attribute probes", lambda: latents.probes(mu, attributes, config))
    curve = timed("inertia curve", lambda: latents.clusters(mu, normal, config))
    print(f"{'all':<44} {time.perf_counter() - wall:8.1f} s   {time.process_time() - cpu:8.1f} CPU s")
    falling = all(before >= after for before, after in zip(curve.inertia, curve.inertia[1:], strict=False))
    print(f"monotone: {falling}; elbow: {curve.elbow} ({curve.elbow_factor:.2f})")


def beside_full_svd(mu: Float32) -> None:
    """Twice each, in turn."""
    for _ in range(2):
        timed("PCA by the covariance", lambda: fitted_normal(*mean_and_covariance(mu)))
        timed("PCA by the full SVD (scikit-learn)", lambda: PCA(svd_solver="full").fit(mu))


def beside_lloyd(config: RunConfig, mu: Float32) -> None:
    """scikit-learn's Lloyd with its own defaults at every tenth number of clusters, on the same points."""
    normal = fitted_normal(*mean_and_covariance(mu))
    curve = timed("inertia curve", lambda: latents.clusters(mu, normal, config))
    inertia = dict(zip(curve.num_clusters, curve.inertia, strict=True))
    for k in (10, 20, 40, 60, 80):
        found = timed(f"Lloyd, k = {k}", lambda k=k: KMeans(k, n_init=1, random_state=0).fit(mu))
        print(f"  inertia relative to Lloyd's: {inertia[k] / found.inertia_ - 1:+.2e}", flush=True)


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


def beside_sklearn(config: RunConfig, mu: Float32, size: int, with_sklearn: bool) -> None:
    """t-SNE with the article's first setting."""
    points = np.asarray(mu[latents.sample(len(mu), size, config.key("tsne", 0))])
    queries = latents.sample(size, 1000, config.key("tsne", 2))
    settings = config.plan.tsne.settings[0]
    ours = timed(f"openTSNE, {size} points", lambda: tsne(points, settings, 1, num_threads()))
    print(f"  its own KL {ours.kl_divergence:.4f}", flush=True)
    found = {"openTSNE": ours.coordinates}
    if with_sklearn:
        model = TSNE(perplexity=settings.perplexity, early_exaggeration=settings.exaggeration, random_state=1)
        found["scikit-learn"] = timed(f"scikit-learn, {size} points", lambda: model.fit_transform(points))
    for name, coordinates in found.items():
        recall = neighbour_recall(points, coordinates, 10, queries)
        kl = timed("  exact KL", lambda plane=coordinates: exact_kl(points, plane, settings.perplexity))
        print(f"  {name}: exact KL {kl:.4f}, neighbour recall {recall:.4f}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="?", choices=["parts", "pca", "lloyd", "tsne"], default="parts")
    parser.add_argument("size", nargs="?", type=int, default=20_000)
    parser.add_argument("with_sklearn", nargs="?", choices=["sklearn"])
    arguments = parser.parse_args()
    config = run_config(num_train=NUM_IMAGES, model={"z_dim": Z_DIM})
    print(f"{num_threads()} threads")
    with tempfile.TemporaryDirectory() as folder:
        arrays = synthetic_latents(Path(folder))
        if arguments.what == "parts":
            parts(config, arrays)
        elif arguments.what == "pca":
            beside_full_svd(arrays["mu"])
        elif arguments.what == "lloyd":
            beside_lloyd(config, arrays["mu"])
        else:
            beside_sklearn(config, arrays["mu"], arguments.size, arguments.with_sklearn is not None)


if __name__ == "__main__":
    main()
