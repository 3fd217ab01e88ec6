"""The quantities of a run: the table of which runs.parquet, the report and the comparison with the article are made.

A new number of the latents is the function that computes it and one entry `of_latents` here; statistics with parts of
their own have a record in vaehpc/schema/results.py besides.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import numpy as np
import numpy.typing as npt

from vaehpc.schema.results import EpochRecord, Head, LatentStatistics
from vaehpc.stats.posterior import kl_slope, signal_to_noise
from vaehpc.stats.runs import MeasuredRun

FloatArray = npt.NDArray[np.floating[Any]]
Of = TypeVar("Of")
Value = float | int | str | None
OfLatents = Callable[[FloatArray, FloatArray | None], float | None]
"""Of mu and log_var, both (num_images, z_dim), finite and perhaps memory-mapped; an AE has no log_var."""


@dataclass(frozen=True)
class Quantity(Generic[Of]):
    """A number or a word that a run which ended has, read from the run or from a part of it."""

    name: str
    """Of its column in runs.parquet, and as `measure` in analysis/reference.toml."""
    words: str
    value: Callable[[Of], Value]
    """None: not measured."""
    unit: str = ""
    kind: type[float] | type[int] | type[str] = float
    shown: bool = False
    """Whether the report's table 'How the latent points lie' has it, and `runs.RUN.cloud` of summary.json; a number."""
    of_end: bool = True
    """Whether it tells of the state at the end, or of the way there: a run that is not finite does not have it."""
    of_latents: OfLatents | None = None
    """How statistics measure it, for `scalars` of statistics.json; None: it is read from what has a record."""

    @property
    def label(self) -> str:
        """'mean duration of an epoch, s'."""
        return f"{self.words}, {self.unit}" if self.unit else self.words


def of_part(part: Callable[[MeasuredRun], Of | None], *quantities: Quantity[Of]) -> tuple[Quantity[MeasuredRun], ...]:
    """Quantities of a part, as such of a run; a run without that part has none of them."""

    def of_run(value: Callable[[Of], Value]) -> Callable[[MeasuredRun], Value]:
        return lambda run: None if (found := part(run)) is None else value(found)

    return tuple(
        Quantity(each.name, each.words, of_run(each.value), each.unit, each.kind, each.shown, each.of_end)
        for each in quantities
    )


def of_latents(
    name: str, words: str, measured: OfLatents, unit: str = "", shown: bool = False
) -> Quantity[MeasuredRun]:
    """A number that statistics measure of the latents, and keep by its name; runs measured before it was have none."""
    return Quantity(name, words, lambda run: run.statistics.scalars.get(name), unit, shown=shown, of_latents=measured)


def scalars(mu: FloatArray, log_var: FloatArray | None) -> dict[str, float]:
    """What the table measures of a run's finite latents, by name; what the run does not have is left out."""
    measured = {each.name: each.of_latents(mu, log_var) for each in QUANTITIES if each.of_latents is not None}
    return {name: value for name, value in measured.items() if value is not None}


def measure(run: MeasuredRun) -> dict[str, Value]:
    """Every quantity of a run, by name; None for those of the end where it is not finite."""
    return {
        quantity.name: None if quantity.of_end and run.is_nonfinite else quantity.value(run) for quantity in QUANTITIES
    }


# What takes more than reading it


def last_epoch(run: MeasuredRun) -> EpochRecord | None:
    """None: the training stopped before the end of the first."""
    return run.history[-1] if run.history else None


def loss_per_pixel(run: MeasuredRun) -> float | None:
    """The total loss of the last epoch by the number of pixels."""
    return last.total_loss / run.config.data.image_size**2 if (last := last_epoch(run)) else None


def head_kernel_ratio(run: MeasuredRun) -> float | None:
    """Frobenius norm of the kernel of log_var by that of mu."""
    heads = run.statistics.heads or {}
    return heads["log_var"].kernel_norm / heads["mu"].kernel_norm if "log_var" in heads else None


def of_head(head: Head) -> tuple[Quantity[MeasuredRun], ...]:
    """Norms of the weights of the dense layer of mu or of log_var."""
    return of_part(
        lambda run: (run.statistics.heads or {}).get(head),
        Quantity(f"{head}_kernel_norm", f"norm of the kernel of the head of {head}", lambda norms: norms.kernel_norm),
        Quantity(f"{head}_bias_norm", f"norm of the bias of the head of {head}", lambda norms: norms.bias_norm),
        Quantity(f"{head}_bias_mean", f"mean bias of the head of {head}", lambda norms: norms.bias_mean),
    )


def scale_slope(run: MeasuredRun) -> float | None:
    """That of the KL loss with its weight: a decoder can undo the scale, and then nothing else changes."""
    found, vae = run.statistics.scalars.get("scale_slope"), run.config.arm.vae
    return None if found is None or vae is None else vae.kl_weight * found


def num_nonfinite(run: MeasuredRun) -> int | None:
    """Components of mu, log_var and z that are NaN or infinite at the end; None if the training stopped before."""
    return run.statistics.num_nonfinite if run.trained.nonfinite_step is None else None


def kl_of_map(settings: str) -> Quantity[MeasuredRun]:
    """KL divergence of the t-SNE map with these settings in the smallest size, which every run has: sizes ascend."""

    def value(run: MeasuredRun) -> float | None:
        return next((found.kl_divergence for found in run.statistics.tsne if found.settings == settings), None)

    return Quantity(f"tsne_{settings}_kl", f"KL divergence of the t-SNE map {settings}", value)


def best_probe(statistics: LatentStatistics) -> tuple[str, float] | None:
    """The attribute whose linear probe has the largest AUC, and that AUC; None where none could be judged."""
    aucs = {name: probe.auc for name, probe in (statistics.probes or {}).items() if not math.isnan(probe.auc)}
    return max(aucs.items(), key=lambda found: found[1]) if aucs else None


def none_if_nan(value: float) -> float | None:
    """The value, unless it is NaN."""
    return None if math.isnan(value) else value


# The table

NATS = "nats per image"
QUANTITIES: tuple[Quantity[MeasuredRun], ...] = (
    # Training
    Quantity("steps_per_epoch", "steps of an epoch", lambda run: run.config.steps_per_epoch, kind=int, of_end=False),
    Quantity(
        "milliseconds_per_step",
        "mean duration of an epoch by its steps",
        lambda run: 1000 * run.trained.seconds_per_epoch / run.config.steps_per_epoch,
        unit="ms",
    ),
    Quantity(
        "num_triggers", "how often the flight recorder fired", lambda run: len(run.triggers), kind=int, of_end=False
    ),
    *of_part(
        lambda run: run.trained,
        Quantity("steps", "steps trained", lambda trained: trained.step, kind=int),
        Quantity("seconds_per_epoch", "mean duration of an epoch", lambda trained: trained.seconds_per_epoch, unit="s"),
        Quantity(
            "nonfinite_step",
            "first step with a NaN or ∞",
            lambda trained: trained.nonfinite_step,
            kind=int,
            of_end=False,
        ),
        Quantity("device", "device", lambda trained: trained.device, kind=str, of_end=False),
    ),
    # Losses
    *of_part(
        last_epoch,
        Quantity("total_loss", "total loss of the last epoch", lambda last: last.total_loss, NATS),
        Quantity(
            "reconstruction_loss",
            "reconstruction loss of the last epoch",
            lambda last: none_if_nan(last.reconstruction_loss),
            NATS,
        ),
        Quantity("kl_loss", "weighted KL loss of the last epoch", lambda last: none_if_nan(last.kl_loss), NATS),
        Quantity("kl_share", "KL loss by reconstruction loss", lambda last: last.kl_loss / last.reconstruction_loss),
    ),
    Quantity("loss_per_pixel", "total loss by the number of pixels", loss_per_pixel, unit="nats"),
    # Radii
    *of_part(
        lambda run: run.statistics.radius_mu,
        Quantity("radius_median", "median of R = ‖μ‖₂", lambda radius: none_if_nan(radius.median)),
        Quantity("radius_mode", "centre of the fullest bin of R", lambda radius: none_if_nan(radius.mode)),
        Quantity("radius_mean", "mean of R", lambda radius: radius.mean),
        Quantity("radius_min", "smallest R", lambda radius: radius.min),
        Quantity("radius_max", "largest R", lambda radius: radius.max),
    ),
    *of_part(
        lambda run: run.statistics.radius_z,
        Quantity("radius_z_mode", "centre of the fullest bin of ‖z‖₂", lambda radius: radius.mode),
        Quantity("radius_z_mean", "mean of ‖z‖₂", lambda radius: radius.mean),
        Quantity("radius_z_min", "smallest ‖z‖₂", lambda radius: radius.min),
        Quantity("radius_z_max", "largest ‖z‖₂", lambda radius: radius.max),
        Quantity("shell_12-24", "share with 12 < ‖z‖₂ < 24", lambda radius: radius.shell_shares.get("12-24")),
        Quantity("shell_14-19", "share with 14 < ‖z‖₂ < 19", lambda radius: radius.shell_shares.get("14-19")),
    ),
    *of_part(
        lambda run: run.statistics,
        Quantity("offset", "length of the mean of μ", lambda found: found.offset),
        Quantity("spread", "√ of the sum of the variances of μ", lambda found: found.spread),
    ),
    Quantity("num_nonfinite", "latent components not finite", num_nonfinite, kind=int, of_end=False),
    # log_var, and z beside mu
    *of_part(
        lambda run: run.statistics.log_var,
        Quantity("log_var_min", "smallest log_var", lambda log_var: log_var.min),
        Quantity("log_var_mean", "mean log_var", lambda log_var: log_var.mean),
        Quantity("log_var_max", "largest log_var", lambda log_var: log_var.max),
        Quantity("log_var_count", "components with log_var in [−3, 5]", lambda found: found.num_in_interval, kind=int),
    ),
    Quantity("scale_slope", "slope of the loss in ln c of c·μ and c·σ", scale_slope, NATS, of_latents=kl_slope),
    of_latents("signal_to_noise", "median over the axes of Var(μ) / E(σ²)", signal_to_noise),
    *of_part(
        lambda run: run.statistics.difference,
        Quantity("max_difference", "largest z − μ", lambda found: found.max_component),
        Quantity(
            "difference_count", "components with 0.05 < |z − μ| < 2", lambda found: found.num_in_interval, kind=int
        ),
        Quantity("max_abs_radius_difference", "largest |‖z‖₂ − R|", lambda found: found.max_abs_radius),
        Quantity("mean_abs_radius_difference", "mean of |‖z‖₂ − R|", lambda found: found.mean_abs_radius),
        Quantity("max_rel_radius_difference", "largest |‖z‖₂ − R| / R", lambda found: found.max_rel_radius),
        Quantity("mean_rel_radius_difference", "mean of |‖z‖₂ − R| / R", lambda found: found.mean_rel_radius),
    ),
    # Weights
    *of_head("mu"),
    *of_head("log_var"),
    Quantity("head_kernel_ratio", "norm of the kernel of log_var by that of mu", head_kernel_ratio),
    # How the latent points lie
    *of_part(
        lambda run: run.statistics.gaussian,
        Quantity(
            "participation_ratio",
            "participation ratio of the spectrum of μ",
            lambda found: found.participation_ratio,
            shown=True,
        ),
        Quantity("num_active", "active axes", lambda found: found.num_active, kind=int, shown=True),
        Quantity(
            "mahalanobis_ks",
            "largest distance of the squared Mahalanobis distances from χ²",
            lambda found: found.mahalanobis_ks,
            shown=True,
        ),
        Quantity("radius_sd", "standard deviation of R", lambda found: found.radius_sd, shown=True),
        Quantity(
            "radius_sd_expected",
            "the same, of a normal distribution with the mean and covariance of μ",
            lambda found: found.radius_sd_expected,
            shown=True,
        ),
    ),
    *of_part(
        lambda run: run.statistics.dimension,
        Quantity("two_nn", "intrinsic dimension (TwoNN)", lambda found: found.two_nn, shown=True),
        Quantity(
            "two_nn_surrogate",
            "the same, of points of that normal distribution",
            lambda found: found.two_nn_surrogate,
            shown=True,
        ),
        Quantity(
            "distance_ratio",
            "distance to near neighbours, relative to that in the normal distribution",
            lambda found: found.distance_ratio,
            shown=True,
        ),
    ),
    *of_part(
        lambda run: run.statistics.inertia,
        Quantity(
            "elbow",
            "elbow of the inertia, clusters (runs that have one)",
            lambda curve: curve.elbow,
            kind=int,
            shown=True,
        ),
    ),
    *of_part(
        lambda run: next(iter(run.statistics.tsne), None),  # the plan's first settings in the smallest size
        Quantity("tsne_kl", "KL divergence of the t-SNE map", lambda found: found.kl_divergence, shown=True),
        Quantity(
            "tsne_recall",
            "share of near neighbours kept in the t-SNE map",
            lambda found: found.neighbour_recall,
            shown=True,
        ),
    ),
    kl_of_map("30-12"),
    kl_of_map("10-16"),
    kl_of_map("30-12-pca"),
    *of_part(
        lambda run: best_probe(run.statistics),
        Quantity("best_attribute", "attribute that a linear probe reads best", lambda best: best[0], kind=str),
        Quantity("best_auc", "AUC of the best linear probe of an attribute", lambda best: best[1], shown=True),
    ),
)
