"""Does a VAE with a tiny KL loss behave like an AE? The VAE of each seed beside the AE of that seed.

They share initial weights and batches, so that their differences are paired. The yardstick is how far AEs of different
seeds are apart.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from scipy import stats

from vaehpc.schema.config import StudyConfig, run_name
from vaehpc.schema.plan import PairPlan
from vaehpc.schema.results import LikenessToControl, PairDistances, PairedEffect
from vaehpc.stats.intervals import bootstrap, student
from vaehpc.stats.runs import MeasuredRun

FloatArray = npt.NDArray[np.floating[Any]]
Float64Array = npt.NDArray[np.float64]

SIGNED = ("median_shift", "reconstruction_gap")
"""Quantities of PairDistances that two runs of the same kind have around 0."""
DISTANCES = ("kolmogorov_smirnov", "wasserstein", "procrustes", "cka_distance")
"""Quantities that are 0 only for equal runs; they have no sign."""


# Which runs


def pairs_of(config: StudyConfig, runs: Sequence[MeasuredRun]) -> list[tuple[MeasuredRun, MeasuredRun]]:
    """Each VAE with the AE of its seed in its control, then each of these AEs with that of the next seed.

    Runs that are not finite or lie at R = 0 are left out, and arms with a spike, which are not trained alike.
    """
    finite = {run.config.name: run for run in runs if not run.is_nonfinite and run.statistics.radius_mu.median > 0}
    same_seed, controls = [], dict[str, None]()
    for arm in config.arms.values():
        control = config.control_of(arm.name)
        if arm.vae is None or arm.spike is not None or arm.fork is not None or control is None:
            continue
        controls[control] = None
        for seed in config.seeds[arm.name]:
            names = run_name(arm.name, seed), run_name(control, seed)
            if all(name in finite for name in names):
                same_seed.append((finite[names[0]], finite[names[1]]))
    neighbours = []
    for control in controls:
        of_control = [run for run in finite.values() if run.config.arm.name == control]
        around = [*of_control[1:], of_control[0]] if len(of_control) > 2 else of_control[1:]
        neighbours += list(zip(of_control, around, strict=False))
    return same_seed + neighbours


# Two runs


def distances(
    first: MeasuredRun,
    second: MeasuredRun,
    radii: tuple[FloatArray, FloatArray],
    points: tuple[FloatArray, FloatArray] | None,
    plan: PairPlan,
) -> PairDistances:
    """How far two runs are apart.

    Args:
        first: a run with finite radii.
        second: another one.
        radii: (num_images,) each, R = ||mu||_2 of the same images; images where one is not finite are left out.
        points: (num_points, z_dim) each, mu of the same images; None if a run's latents are not there.
        plan: quantiles.
    """
    both = np.isfinite(radii[0]) & np.isfinite(radii[1])
    of_first, of_second = (np.asarray(radius[both], np.float64) for radius in radii)
    alignment = aligned(*points) if points is not None else None
    losses = [run.history[-1].reconstruction_loss for run in (first, second) if run.history]
    gap = losses[0] - losses[1] if len(losses) == 2 else math.nan
    return PairDistances(
        first=first.config.name,
        second=second.config.name,
        seed=first.config.seed,
        log_radius_shifts=tuple(log_quantile_shift(of_first, of_second, share) for share in plan.quantiles),
        median_shift=log_quantile_shift(of_first, of_second, 0.5),
        kolmogorov_smirnov=float(stats.ks_2samp(of_first, of_second, method="asymp").statistic),
        wasserstein=float(stats.wasserstein_distance(of_first, of_second)),
        reconstruction_gap=gap if math.isfinite(gap) else None,
        procrustes=alignment and alignment[0],
        cka=alignment and alignment[1],
    )


def log_quantile_shift(first: Float64Array, second: Float64Array, share: float) -> float:
    """ln of the quotient of two quantiles of positive values."""
    with np.errstate(divide="ignore", invalid="ignore"):  # a quantile at R = 0
        return float(np.log(np.quantile(first, share) / np.quantile(second, share)))


def aligned(first: FloatArray, second: FloatArray) -> tuple[float, float] | None:
    """Procrustes disparity and linear CKA of two clouds of points, row by row of the same images.

    None where fewer than 2 rows are finite in both or all points of a cloud are equal.
    """
    both = np.isfinite(first).all(axis=1) & np.isfinite(second).all(axis=1)
    x, y = (np.asarray(points[both], np.float64) for points in (first, second))
    if len(x) < 2 or not (np.ptp(x, axis=0).any() and np.ptp(y, axis=0).any()):
        return None
    x, y = x - x.mean(axis=0), y - y.mean(axis=0)
    cross = y.T @ x
    return disparity(cross, x, y), linear_cka(cross, x, y)


def disparity(cross: Float64Array, x: Float64Array, y: Float64Array) -> float:
    """Least squares left of X by the best rotation and scaling of Y, of all: 1 - (||Y' X||_* / (||X|| ||Y||))^2.

    Args:
        cross: Y' X, (z_dim, z_dim); ||.||_* is the sum of its singular values.
        x: centred points.
        y: centred points.
    """
    singular_values = np.linalg.svd(cross, compute_uv=False)
    return float(1 - (singular_values.sum() / (np.linalg.norm(x) * np.linalg.norm(y))) ** 2)


def linear_cka(cross: Float64Array, x: Float64Array, y: Float64Array) -> float:
    """||Y' X||^2 / (||X' X|| ||Y' Y||), Frobenius norms of centred points (Kornblith and others, 2019, equation 4)."""
    return float(np.linalg.norm(cross) ** 2 / (np.linalg.norm(x.T @ x) * np.linalg.norm(y.T @ y)))


# Over seeds


def likeness(
    control: str,
    pairs: Sequence[PairDistances],
    null: Sequence[PairDistances],
    num_regular: int,
    level: float,
    plan: PairPlan,
    key: np.random.SeedSequence,
) -> LikenessToControl:
    """Means over the seeds with intervals, and whether the radii are alike.

    Args:
        control: the AE arm.
        pairs: each VAE with the AE of its seed.
        null: AEs of different seeds.
        num_regular: pairs in which both runs are regular.
        level: of the intervals.
        plan: margin of likeness, number of resamples.
        key: of the bootstrap.
    """
    keys = key.spawn(len(SIGNED + DISTANCES))
    effects = {
        quantity: found
        for quantity, own_key in zip(SIGNED + DISTANCES, keys, strict=True)
        if (found := paired_effect(quantity, pairs, null, level, plan.num_resamples, own_key)) is not None
    }
    return LikenessToControl(
        control=control,
        num_images=plan.num_images,
        num_regular=num_regular,
        level=level,
        radius_margin=plan.radius_margin,
        radii=alike(effects["median_shift"], plan.radius_margin),
        effects=effects,
        pairs=tuple(pairs),
        null=tuple(null),
    )


def alike(shift: PairedEffect, margin: float) -> Literal["alike", "different", "undecided"]:
    """Whether the interval of a shift lies within -margin ... margin, beyond one of them, or across."""
    if shift.low is None or shift.high is None:
        return "undecided"
    if -margin < shift.low and shift.high < margin:
        return "alike"
    return "different" if shift.low > margin or shift.high < -margin else "undecided"


def paired_effect(
    quantity: str,
    pairs: Sequence[PairDistances],
    null: Sequence[PairDistances],
    level: float,
    num_resamples: int,
    key: np.random.SeedSequence,
) -> PairedEffect | None:
    """Mean of a quantity over the pairs that have it, its intervals, and what AEs of different seeds have; or None.

    Each AE is in two pairs of AEs, so that the intervals of the excess are a little too narrow.
    """
    found = {pair.second: value for pair in pairs if (value := getattr(pair, quantity)) is not None}
    if not found:
        return None
    values = np.array(list(found.values()))
    interval, resampled = student(values, level), bootstrap(values, level, num_resamples, key)
    of_null = [(pair, value) for pair in null if (value := getattr(pair, quantity)) is not None]
    excess = np.array([])
    if quantity in DISTANCES and of_null:
        of_control = {name: [v for pair, v in of_null if name in (pair.first, pair.second)] for name in found}
        excess = np.array([found[name] - np.mean(around) for name, around in of_control.items() if around])
    beyond = student(excess, level)
    return PairedEffect(
        num_pairs=len(values),
        mean=float(values.mean()),
        low=interval and interval[0],
        high=interval and interval[1],
        bootstrap_low=resampled and resampled[0],
        bootstrap_high=resampled and resampled[1],
        null_mean=float(np.mean([value for _, value in of_null])) if quantity in DISTANCES and of_null else None,
        excess=float(excess.mean()) if len(excess) else None,
        excess_low=beyond and beyond[0],
        excess_high=beyond and beyond[1],
    )
