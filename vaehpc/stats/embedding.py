"""t-SNE of latent points in the plane, and how much of their neighbourhoods it keeps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from openTSNE import TSNE
from sklearn.neighbors import NearestNeighbors

from vaehpc.schema.plan import TsneSettings

FloatArray = npt.NDArray[np.floating[Any]]
Float32Array = npt.NDArray[np.float32]
Positions = npt.NDArray[np.integer[Any]]


@dataclass(frozen=True)
class Embedding:
    """Points in the plane, and what t-SNE minimised."""

    coordinates: Float32Array
    """(num_points, 2)."""
    perplexity: float
    kl_divergence: float
    """Of the affinities in the plane from those in latent space, in nats, with openTSNE's sparse affinities
    (3 x perplexity neighbours) and its approximate repulsion."""


def tsne(points: FloatArray, settings: TsneSettings, seed: int, num_threads: int) -> Embedding:
    """t-SNE of points (num_points, z_dim) from their two first principal coordinates.

    Few points have too few neighbours for a large perplexity: it is at most (num_points - 1) / 3. Neighbours are
    approximate beyond 1000 points, the repulsion is interpolated beyond 10,000.

    Source: openTSNE, Poličar et al. (2024), Journal of Statistical Software 109(3).
    """
    perplexity = min(settings.perplexity, (len(points) - 1) / 3)
    embedding = TSNE(
        perplexity=perplexity,
        early_exaggeration=settings.exaggeration,
        early_exaggeration_iter=settings.early_iterations,
        n_iter=settings.iterations,
        random_state=seed,
        n_jobs=num_threads,
    ).fit(np.asarray(points))
    return Embedding(np.asarray(embedding, np.float32), perplexity, float(embedding.kl_divergence))


def neighbour_recall(points: FloatArray, coordinates: FloatArray, num_neighbours: int, queries: Positions) -> float:
    """Share of the nearest neighbours in latent space that are among as many nearest ones in the plane.

    Args:
        points: (num_points, z_dim).
        coordinates: (num_points, 2) of the same points.
        num_neighbours: fewer than num_points.
        queries: positions (num_queries,) of the points whose neighbours are looked up.
    """
    in_space, in_plane = (_neighbours(array, num_neighbours, queries) for array in (points, coordinates))
    kept = [len(np.intersect1d(near, there)) for near, there in zip(in_space, in_plane, strict=True)]
    return float(np.mean(kept)) / num_neighbours


def _neighbours(points: FloatArray, num_neighbours: int, queries: Positions) -> npt.NDArray[np.int64]:
    """(num_queries, num_neighbours): the nearest other points."""
    search = NearestNeighbors(n_neighbors=num_neighbours + 1, algorithm="brute").fit(points)
    found = search.kneighbors(points[queries], return_distance=False)
    others = found != queries[:, np.newaxis]
    others[others.all(axis=1), -1] = False  # among points on top of each other the query itself need not be found
    nearest: npt.NDArray[np.int64] = found[others].reshape(len(queries), num_neighbours)
    return nearest
