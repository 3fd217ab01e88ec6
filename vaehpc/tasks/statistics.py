"""Measure one trained run: read run.json and latents/, write statistics/ and, last, statistics.json."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt
from threadpoolctl import threadpool_limits

from vaehpc.command import UserError, explained
from vaehpc.schema.config import RunConfig, StudyConfig
from vaehpc.schema.results import Head, HeadNorms, LatentStatistics, TrainedRecord
from vaehpc.stats import latents
from vaehpc.stats.gaussian import fitted_normal, mean_and_covariance
from vaehpc.stats.heads import head_norms
from vaehpc.stats.posterior import difference_census, log_var_census, num_nonfinite
from vaehpc.stats.quantities import scalars
from vaehpc.stats.radius import offset_and_spread, radii, radius_statistics
from vaehpc.stats.threads import num_threads
from vaehpc.study.attempts import Attempt
from vaehpc.study.files import DataDir, RunDir, entries, read_array, sha256_of_file
from vaehpc.study.states import read_checkpoint
from vaehpc.tasks.found import require_trained

logger = logging.getLogger(__name__)

Bool = npt.NDArray[np.bool_]
FloatArray = npt.NDArray[np.floating[Any]]

LARGEST_RADIUS = 1e15
SMALLEST_SPREAD = 1e-15
"""Beyond these, squared distances of float32 points overflow or vanish."""
MIN_IMAGES = 4
"""Fewer have no t-SNE."""
Part = Literal["radii", "axes", "neighbours", "clusters", "attributes", "t-SNE"]
PARTS: tuple[Part, ...] = get_args(Part)
OnPart = Callable[[Part], None]
"""Called when a part begins."""


def run(directory: str) -> None:
    """Measure the latents of the run in this directory, unless they are measured already.

    Leaves without publishing where a newer attempt exists.

    Raises:
        UserError: the run is not trained, or an array is missing or damaged, or the disk is full.
    """
    run_dir = RunDir(Path(directory))
    if run_dir.statistics_path.exists():
        logger.info("%s has its statistics already", run_dir.name)
        return
    if not run_dir.trained_path.exists():
        raise UserError(f"{run_dir.path} is not trained: it has no trained.json. Launch its study again to train it.")
    config = run_dir.config()
    with Attempt.start(run_dir, "statistics") as attempt:
        _measure(config, attempt)


def _measure(config: RunConfig, attempt: Attempt) -> None:
    run_dir = attempt.run
    trained = run_dir.trained()
    require_trained(trained, config, run_dir.trained_path)
    mu, z = load_latents(run_dir.mu, config, trained), load_latents(run_dir.z, config, trained)
    log_var = None if config.arm.vae is None else load_latents(run_dir.log_var, config, trained)
    attributes, heads = load_attributes(config), load_heads(run_dir, config, trained)
    met_nonfinite = trained.nonfinite_step is not None

    def on_part(name: Part) -> None:
        attempt.beat(part=name, part_number=1 + PARTS.index(name), num_parts=len(PARTS))

    statistics, arrays = latent_statistics(config, mu, log_var, z, attributes, heads, met_nonfinite, on_part)
    folder = attempt.path / run_dir.statistics_arrays.name
    folder.mkdir()
    for name, array in arrays.items():
        save(folder / f"{name}.npy", array)
    sha256 = {path.name: sha256_of_file(path) for path in entries(folder)}
    statistics = statistics.model_copy(update={"state_sha256": trained.state_sha256, "arrays_sha256": sha256})
    attempt.publish(folder, run_dir.statistics_arrays)
    attempt.publish_model(statistics, run_dir.statistics_path)
    logger.info("%s: median R = %.2f", run_dir.name, statistics.radius_mu.median)


def load_latents(path: Path, config: RunConfig, trained: TrainedRecord) -> npt.NDArray[np.float32]:
    """Memory-map an array of latents; UserError if it is not what training wrote, float32 (num_train, z_dim)."""
    shape = (config.data.num_train, config.arm.model.z_dim)
    remedy = f"Restore it, or delete {path.parent.parent} and launch its study again."
    try:
        latents = read_array(path, trained.latents_sha256.get(path.name))
    except UserError as error:
        raise UserError(f"{error}. {remedy}") from error
    if latents.shape != shape or latents.dtype != np.float32:
        raise UserError(f"{path} holds {latents.dtype} {latents.shape}, not the run's float32 {shape}. {remedy}")
    return latents


def load_attributes(config: RunConfig | StudyConfig) -> Mapping[str, Bool] | None:
    """Attributes (num_train,) of the training images by name; None if the data set has none, or is not there any more.

    Raises:
        UserError: another data set lies there, or the array is damaged.
    """
    data = DataDir(Path(config.data.path))
    if not data.manifest_path.exists():
        logger.warning("%s: no attribute probes, because %s is gone", config.name, data.path)
        return None
    manifest = data.manifest()
    if manifest.sha256 != config.data.sha256:
        raise UserError(
            f"{data.path} holds data set {manifest.sha256[:12]}; {config.name} was trained on"
            f" {config.data.sha256[:12]}. Restore that one, or move this one away to go without attribute probes."
        )
    first = manifest.splits["train"].first_image
    try:
        attributes: Bool = read_array(data.attributes, manifest.sidecars.get(data.attributes.name))
    except UserError as error:
        raise UserError(f"{error}. Prepare the data set again.") from error
    attributes = attributes[first : first + config.data.num_train]
    if attributes.shape != (config.data.num_train, len(manifest.attributes)):
        raise UserError(
            f"{data.attributes} holds {attributes.shape} for the training images, not"
            f" {(config.data.num_train, len(manifest.attributes))}. Prepare the data set again."
        )
    return dict(zip(manifest.attributes, attributes.T, strict=True)) or None


def load_heads(run_dir: RunDir, config: RunConfig, trained: TrainedRecord) -> dict[Head, HeadNorms] | None:
    """Norms of the heads' weights in the newest checkpoint; None if there is none any more.

    Raises:
        UserError: it is damaged, or not that of the trained state.
    """
    checkpoints = run_dir.checkpoint_dirs()
    if not checkpoints:
        logger.warning("%s: no norms of the heads, because its checkpoints are gone", config.name)
        return None
    path = checkpoints[-1]
    heads: tuple[Head, ...] = ("mu",) if config.arm.vae is None else ("mu", "log_var")
    try:
        checkpoint, variables = read_checkpoint(path)
        if checkpoint.state_sha256 != trained.state_sha256:
            raise UserError(f"{path} is not the state that trained.json names")
        weights: Mapping[str, npt.NDArray[Any]] = variables
        return {head: head_norms(weights[f"{head}/kernel"], weights[f"{head}/bias"]) for head in heads}
    except (UserError, KeyError) as error:
        raise UserError(f"{error}. Restore it, or remove {path} to go without its norms.") from error


def latent_statistics(
    config: RunConfig,
    mu: FloatArray,
    log_var: FloatArray | None,
    z: FloatArray,
    attributes: Mapping[str, Bool] | None,
    heads: dict[Head, HeadNorms] | None,
    met_nonfinite: bool = False,
    on_part: OnPart = lambda _: None,
) -> tuple[LatentStatistics, dict[str, npt.NDArray[Any]]]:
    """Statistics of latents (num_images, z_dim), and their arrays by name. An AE has no log_var, and z is mu.

    Of a run that is not finite, because its training `met_nonfinite` or its latents hold a NaN or infinity, only what
    its own page shows: no end of it is compared with that of another run.
    """
    plan = config.plan
    on_part("radii")
    radius_mu, radius_z = radii(mu), radii(z)
    components = num_nonfinite([mu] if log_var is None else [mu, log_var, z])
    is_compared = not (met_nonfinite or components)
    census, difference = None, None
    if is_compared and config.arm.vae is not None and log_var is not None:
        census = log_var_census(log_var, plan.census.log_var_interval)
        difference = difference_census(mu, log_var, z, plan.census.difference_interval, config.arm.vae.epsilon_factor)
    offset, spread = offset_and_spread(mu)
    statistics = LatentStatistics(
        run=config.name,
        num_images=mu.shape[0],
        z_dim=mu.shape[1],
        num_nonfinite=components,
        radius_mu=radius_statistics(radius_mu, plan.radius),
        radius_z=radius_statistics(radius_z, plan.radius),
        offset=offset,
        spread=spread,
        log_var=census,
        difference=difference,
        heads=heads,
        scalars=scalars(mu, log_var) if is_compared else {},
        plan_sha256=config.plan_sha256,
    )
    arrays = {"radius_mu": radius_mu.astype(np.float32), "radius_z": radius_z.astype(np.float32)}
    measurable = np.flatnonzero(radius_mu < LARGEST_RADIUS)
    if len(measurable) < MIN_IMAGES or not spread > SMALLEST_SPREAD:
        logger.warning("%s: its latents are not finite, or all the same: there is no cloud to measure", config.name)
        return statistics, arrays
    points = mu if len(measurable) == len(mu) else mu[measurable]
    of_points = attributes and {name: values[measurable] for name, values in attributes.items()}
    with threadpool_limits(1, user_api="blas"):  # its threads would wait for each other wherever a processor is busy
        of_cloud, cloud_arrays = cloud_statistics(config, points, of_points, num_threads(), is_compared, on_part)
    for name in cloud_arrays:
        if name.endswith("_images"):
            cloud_arrays[name] = measurable[cloud_arrays[name]]
    return statistics.model_copy(update=of_cloud), arrays | cloud_arrays


def cloud_statistics(
    config: RunConfig,
    points: FloatArray,
    attributes: Mapping[str, Bool] | None,
    threads: int,
    is_compared: bool = True,
    on_part: OnPart = lambda _: None,
) -> tuple[dict[str, Any], dict[str, npt.NDArray[Any]]]:
    """The fields of LatentStatistics that tell how finite points (num_images, z_dim) lie, and their arrays by name.

    Of a run that is not compared with others the Gaussian ones alone: the others take long.
    """
    on_part("axes")
    mean, covariance = mean_and_covariance(points)
    normal = fitted_normal(mean, covariance)
    gaussian, gaussian_arrays = latents.gaussian_statistics(points, normal, covariance, config)
    logger.info("%s: participation ratio %.1f", config.name, gaussian.participation_ratio)
    if not is_compared:
        return {"gaussian": gaussian}, dict(gaussian_arrays)
    on_part("neighbours")
    dimension = latents.dimension_statistics(points, normal, config)
    on_part("clusters")
    inertia = latents.clusters(points, normal, config)
    logger.info("%s: inertia over %d numbers of clusters", config.name, len(inertia.num_clusters))
    on_part("attributes")
    probes = None if attributes is None else latents.probes(points, attributes, config)
    on_part("t-SNE")
    tsne, tsne_arrays = latents.embeddings(points, normal, config, threads)
    fields = {"gaussian": gaussian, "dimension": dimension, "inertia": inertia, "probes": probes, "tsne": tsne}
    return fields, {**gaussian_arrays, **tsne_arrays}


def save(path: Path, array: npt.NDArray[Any]) -> None:
    """Save an array; UserError if the disk is full."""
    try:
        np.save(path, array)
    except OSError as error:
        raise explained(error, path) from error
