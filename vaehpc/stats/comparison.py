"""The table 'article / measured': what a study measured beside the numbers that the article prints."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Literal

from pydantic import ConfigDict

from vaehpc.schema.config import ArmConfig, DataConfig
from vaehpc.schema.frozen import Frozen
from vaehpc.schema.results import (
    ArticleValue,
    Comparison,
    ComparisonRow,
    RunSummary,
)
from vaehpc.stats.quantities import measure
from vaehpc.stats.runs import MeasuredRun

Kind = Literal["ae", "vae", "any"]
Setting = bool | int | float | str
WORKING_KL_WEIGHT = 5.0
"""The article's 'fact' of a VAE whose KL loss is not tiny."""


class ArticleQuantity(Frozen):
    """A number of the article."""

    quantity: str
    formula: str
    of: Kind
    measure: str | None = None
    """Name in vaehpc/stats/quantities.py, or in `measurements` below; None: it is not compared with a number."""
    article: tuple[ArticleValue, ...]
    nan: str = ""
    """What it means that a run measured NaN; else such a run is left out."""
    images: tuple[str, ...] = ()
    """Files under RUN/latents/images that show it, where it is no number."""


class Reference(Frozen):
    """analysis/reference.toml: what the article trained, the numbers that it prints, and what to know about them."""

    model_config = ConfigDict(allow_inf_nan=True)  # 'no limit' is an infinite one

    trained: dict[Kind, dict[str, tuple[Setting, ...]]]
    """Per kind of net: setting -> the values that it had in the article."""
    quantities: tuple[ArticleQuantity, ...]
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
        (name, run.config.arm.kind, measurements(run, summaries[name])) for run in runs for name in [run.config.name]
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
    """What an arm and its data have otherwise than the article, in words.

    Two deviations from its code are deliberate: what Keras' BatchNormalization takes away is not there, and a smaller
    last batch weighs less.
    """
    found = ["synthetic images, not CelebA"] if data.synthetic else []
    the_articles = reference.trained["any"] | reference.trained[arm.kind]
    for name, value in settings(arm, data).items():
        if name in the_articles and value not in the_articles[name]:
            found.append(f"{name} {value}, in the article {' or '.join(map(str, the_articles[name]))}")
    if arm.model.batch_norm is True:
        found.append("no bias before BatchNormalization, which takes it away; Keras' default has one")
    if rest := data.num_train % arm.train.batch_size:
        found.append(f"epoch means of losses weigh images alike; Keras' weigh the last batch, of {rest}, as any other")
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
        "beta_1": arm.train.beta_1,
        "beta_2": arm.train.beta_2,
        "adam_epsilon": arm.train.adam_epsilon,
        "weight_decay": arm.train.weight_decay or 0.0,
        **of_vae,
    }


def measurements(run: MeasuredRun, summary: RunSummary) -> dict[str, float]:
    """What a run gives of the article's quantities: the table's numbers, and what only some runs are asked for.

    Where it went if it went elsewhere, and the KL loss of the epoch in which it left; the total loss with the article's
    working weight of the KL loss; no elbow is NaN. A run that is not finite gives nothing of its end.
    """
    measured = {name: value for name, value in measure(run).items() if isinstance(value, float | int)}
    if run.statistics.inertia is not None and not run.is_nonfinite:
        measured.setdefault("elbow", math.nan)
    vae = run.config.arm.vae
    if vae is not None and vae.kl_weight == WORKING_KL_WEIGHT and "total_loss" in measured:
        measured["working_kl_total_loss"] = measured["total_loss"]
    if summary.run_class in ("shifted", "diverged"):
        measured["elsewhere_radius"] = run.statistics.radius_mu.median
    if summary.onset_step is not None:
        from_then_on = [epoch.kl_loss for epoch in run.history if epoch.step >= summary.onset_step]
        if from_then_on:
            measured["onset_kl_loss"] = from_then_on[0]
    return measured
