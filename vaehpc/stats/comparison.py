"""The table 'article / measured': what a study measured beside the numbers that the article prints."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Literal

from vaehpc.schema.config import ArmConfig, DataConfig
from vaehpc.schema.frozen import Frozen
from vaehpc.schema.results import (
    ArticleValue,
    Comparison,
    ComparisonRow,
    DifferenceCensus,
    EpochRecord,
    LatentStatistics,
    LogVarCensus,
    RunSummary,
)
from vaehpc.stats.runs import MeasuredRun

Kind = Literal["ae", "vae", "any"]
Setting = bool | int | float
NORMS = ("kernel_norm", "bias_norm")
"""Of the heads' weights."""
WORKING_KL_WEIGHT = 5.0
"""The article's 'fact' of a VAE whose KL loss is not tiny."""


class Quantity(Frozen):
    """A number of the article."""

    quantity: str
    formula: str
    of: Kind
    measure: str | None = None
    """Name of the measurement that it is compared with; None if there is none."""
    article: tuple[ArticleValue, ...]
    nan: str = ""
    """What it means that a run measured NaN; else such a run is left out."""
    images: tuple[str, ...] = ()
    """Files under RUN/latents/images that show it, where it is no number."""


class Reference(Frozen):
    """analysis/reference.toml: what the article trained, the numbers that it prints, and what to know about them."""

    trained: dict[Kind, dict[str, tuple[Setting, ...]]]
    """Per kind of net: setting -> the values that it had in the article."""
    quantities: tuple[Quantity, ...]
    footnotes: tuple[str, ...]


def compare(
    reference: Reference,
    data: DataConfig,
    arms: Mapping[str, ArmConfig],
    runs: Sequence[MeasuredRun],
    summaries: Mapping[str, RunSummary],
    rates: Mapping[str, float | None],
) -> Comparison:
    """The article's quantities that a study measured, each from the runs of the same kind of net.

    Args:
        reference: the article.
        data: what the study is trained on.
        arms: of the study, by name.
        runs: those that ended.
        summaries: of these runs, by name: their classes and onsets.
        rates: rate of divergence by arm; None where there is none.
    """
    measured = [
        (name, run.config.arm.kind, measurements(run) | _of_departure(run, summaries[name]))
        for run in runs
        for name in [run.config.name]
    ]
    measured += [(arm, arms[arm].kind, {"diverged_share": rate}) for arm, rate in rates.items() if rate is not None]
    rows = []
    for quantity in reference.quantities:
        values = {
            name: of_name[quantity.measure]
            for name, kind, of_name in measured
            if quantity.of in (kind, "any") and quantity.measure in of_name
        }
        is_shown = bool(quantity.images) and any(quantity.of in (kind, "any") for _, kind, _ in measured)
        if values or is_shown:
            rows.append(
                ComparisonRow(
                    quantity=quantity.quantity,
                    formula=quantity.formula,
                    of=quantity.of,
                    article=quantity.article,
                    measured=values,
                    nan=quantity.nan,
                    images=quantity.images,
                )
            )
    return Comparison(
        rows=tuple(rows),
        differences={name: differences(reference, arm, data) for name, arm in arms.items()},
        footnotes=reference.footnotes,
    )


def differences(reference: Reference, arm: ArmConfig, data: DataConfig) -> tuple[str, ...]:
    """What an arm and its data have otherwise than the article, in words; empty if like is compared with like."""
    found = ["synthetic images, not CelebA"] if data.synthetic else []
    the_articles = reference.trained["any"] | reference.trained[arm.kind]
    for name, value in settings(arm, data).items():
        if name in the_articles and value not in the_articles[name]:
            found.append(f"{name} {value}, in the article {' or '.join(map(str, the_articles[name]))}")
    return tuple(found)


def settings(arm: ArmConfig, data: DataConfig) -> dict[str, Setting]:
    """Settings of an arm and its data by name; no epsilon_limit is an infinite one."""
    of_vae: dict[str, Setting] = {}
    if arm.vae is not None:
        of_vae = {
            "kl_weight": arm.vae.kl_weight,
            "epsilon_limit": math.inf if arm.vae.epsilon_limit is None else arm.vae.epsilon_limit,
            "epsilon_factor": arm.vae.epsilon_factor,
        }
    return {
        "image_size": data.image_size,
        "num_train": data.num_train,
        "z_dim": arm.model.z_dim,
        "batch_norm": arm.model.batch_norm,
        "epochs": arm.train.epochs,
        "batch_size": arm.train.batch_size,
        "learning_rate": arm.train.learning_rate,
        **of_vae,
    }


def measurements(run: MeasuredRun) -> dict[str, float]:
    """What a run gives of the article's quantities. Losses are those of the last epoch, lengths of time wall time."""
    steps_per_epoch = run.config.steps_per_epoch
    measured = {
        "steps_per_epoch": float(steps_per_epoch),
        "seconds_per_epoch": run.trained.seconds_per_epoch,
        "milliseconds_per_step": 1000 * run.trained.seconds_per_epoch / steps_per_epoch,
        **_of_radii(run.statistics),
        **_of_structure(run.statistics),
    }
    if run.history:
        measured |= _of_epoch(run.history[-1], num_pixels=run.config.data.image_size**2)
        if run.config.arm.vae is not None and run.config.arm.vae.kl_weight == WORKING_KL_WEIGHT:
            measured["working_kl_total_loss"] = measured["total_loss"]
    if run.statistics.log_var is not None:
        measured |= _of_log_var(run.statistics.log_var)
    if run.statistics.difference is not None:
        measured |= _of_difference(run.statistics.difference)
    return measured


def _of_epoch(epoch: EpochRecord, num_pixels: int) -> dict[str, float]:
    return {
        "total_loss": epoch.total_loss,
        "loss_per_pixel": epoch.total_loss / num_pixels,
        "reconstruction_loss": epoch.reconstruction_loss,
        "kl_loss": epoch.kl_loss,
        "kl_share": epoch.kl_loss / epoch.reconstruction_loss,
    }


def _of_radii(statistics: LatentStatistics) -> dict[str, float]:
    mu, z = statistics.radius_mu, statistics.radius_z
    shells = {f"shell_{shell}": share for shell, share in z.shell_shares.items()}
    return {
        "radius_mode": z.mode,
        **shells,
        "radius_z_max": z.max,
        "radius_z_min": z.min,
        "radius_z_mean": z.mean,
        "radius_mu_max": mu.max,
        "radius_mu_min": mu.min,
        "radius_mu_mean": mu.mean,
    }


def _of_structure(statistics: LatentStatistics) -> dict[str, float]:
    """Clusters, embeddings and heads, as far as they were measured; no elbow is NaN."""
    heads = (statistics.heads or {}).items()
    measured = {f"{head}_{norm}": getattr(norms, norm) for head, norms in heads for norm in NORMS}
    if statistics.inertia is not None:
        measured["elbow"] = math.nan if statistics.inertia.elbow is None else float(statistics.inertia.elbow)
    if statistics.tsne:
        measured["neighbour_recall"] = statistics.tsne[0].neighbour_recall
    for embedding in statistics.tsne:  # by size: the smallest, which every run has, is the one that counts
        measured.setdefault(f"tsne_{embedding.settings}_kl", embedding.kl_divergence)
    if statistics.heads is not None and "log_var" in statistics.heads:
        mu, log_var = statistics.heads["mu"], statistics.heads["log_var"]
        measured["head_kernel_ratio"] = log_var.kernel_norm / mu.kernel_norm
        measured["log_var_bias_mean"] = log_var.bias_mean
    return measured


def _of_departure(run: MeasuredRun, summary: RunSummary) -> dict[str, float]:
    """Where a run that went elsewhere ended, and the KL loss of the epoch in which it left."""
    measured = {}
    if summary.run_class in ("shifted", "diverged"):
        measured["elsewhere_radius"] = run.statistics.radius_mu.median
    if summary.onset_step is not None:
        from_then_on = [epoch.kl_loss for epoch in run.history if epoch.step >= summary.onset_step]
        if from_then_on:
            measured["onset_kl_loss"] = from_then_on[0]
    return measured


def _of_log_var(census: LogVarCensus) -> dict[str, float]:
    return {
        "log_var_max": census.max,
        "log_var_min": census.min,
        "log_var_mean": census.mean,
        "log_var_count": float(census.num_in_interval),
    }


def _of_difference(census: DifferenceCensus) -> dict[str, float]:
    return {
        "difference_max": census.max_component,
        "difference_count": float(census.num_in_interval),
        "radius_difference_max": census.max_abs_radius,
        "radius_difference_mean": census.mean_abs_radius,
        "radius_relative_difference_max": census.max_rel_radius,
        "radius_relative_difference_mean": census.mean_rel_radius,
    }
