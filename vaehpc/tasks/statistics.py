"""Measure one trained run: read run.json and latents/, write statistics/ and, last, statistics.json."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from vaehpc.config import RunConfig
from vaehpc.files import Attempt, RunDir, UserError, explained
from vaehpc.results import LatentStatistics
from vaehpc.stats.posterior import difference_census, log_var_census, num_nonfinite
from vaehpc.stats.radius import offset_and_spread, radii, radius_statistics

logger = logging.getLogger(__name__)

FloatArray = npt.NDArray[np.floating[Any]]


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
    mu, z = load_latents(run_dir.mu, config), load_latents(run_dir.z, config)
    log_var = None if config.arm.vae is None else load_latents(run_dir.log_var, config)
    radius_mu, radius_z = radii(mu), radii(z)
    statistics = latent_statistics(config, mu, log_var, z, radius_mu, radius_z)
    arrays = attempt.path / run_dir.statistics_arrays.name
    arrays.mkdir()
    save(arrays / "radius_mu.npy", radius_mu)
    save(arrays / "radius_z.npy", radius_z)
    attempt.publish(arrays, run_dir.statistics_arrays)
    attempt.publish_model(statistics, run_dir.statistics_path)
    logger.info("%s: median R = %.2f", run_dir.name, statistics.radius_mu.median)


def load_latents(path: Path, config: RunConfig) -> npt.NDArray[np.float32]:
    """Memory-map an array of latents; UserError if it is not whole, or not float32 (num_train, z_dim)."""
    shape = (config.data.num_train, config.arm.model.z_dim)
    remedy = f"Restore it, or delete {path.parent.parent} and launch its study again."
    try:
        latents = np.lib.format.open_memmap(path, mode="r")
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read: {error}. {remedy}") from error
    if latents.shape != shape or latents.dtype != np.float32:
        raise UserError(f"{path} holds {latents.dtype} {latents.shape}, not the run's float32 {shape}. {remedy}")
    return latents


def latent_statistics(
    config: RunConfig,
    mu: FloatArray,
    log_var: FloatArray | None,
    z: FloatArray,
    radius_mu: FloatArray,
    radius_z: FloatArray,
) -> LatentStatistics:
    """Statistics of latents (num_images, z_dim) and their radii (num_images,). An AE has no log_var, and z is mu."""
    plan = config.plan
    census, difference = None, None
    if config.arm.vae is not None and log_var is not None:
        census = log_var_census(log_var, plan.census.log_var_interval)
        difference = difference_census(mu, log_var, z, plan.census.difference_interval, config.arm.vae.epsilon_factor)
    offset, spread = offset_and_spread(mu)
    return LatentStatistics(
        run=config.name,
        num_images=mu.shape[0],
        z_dim=mu.shape[1],
        num_nonfinite=num_nonfinite([mu] if log_var is None else [mu, log_var, z]),
        radius_mu=radius_statistics(radius_mu, plan.radius),
        radius_z=radius_statistics(radius_z, plan.radius),
        offset=offset,
        spread=spread,
        log_var=census,
        difference=difference,
        plan_sha256=plan.sha256,
    )


def save(path: Path, radius: FloatArray) -> None:
    """Save radii (num_images,) as float32 in image order; UserError if the disk is full."""
    try:
        np.save(path, radius.astype(np.float32))
    except OSError as error:
        raise explained(error, path) from error
