"""Runs of a study as their results say, without files: the article's numbers where nothing else is asked for."""

import numpy as np

from vaehpc.schema.config import ArmConfig, DataConfig, ModelConfig, Provenance, RunConfig, TrainConfig, VaeConfig
from vaehpc.schema.plan import PlanConfig
from vaehpc.schema.results import (
    DifferenceCensus,
    EpochRecord,
    HeadNorms,
    Histogram,
    InertiaCurve,
    LatentStatistics,
    LogVarCensus,
    RadiusStatistics,
    TrainedRecord,
    TsneResult,
)
from vaehpc.stats.divergence import ProbeCurve
from vaehpc.stats.runs import MeasuredRun

PROVENANCE = Provenance(code_version="1", image_digest=None, packages={})
CELEBA = DataConfig(
    path="celeba", name="celeba", sha256="0", synthetic=False, image_size=96, num_train=170_000, entropy_floor=4000
)
AE = ArmConfig(name="ae-nobn", model=ModelConfig(batch_norm=False), vae=None, train=TrainConfig())
VAE = ArmConfig(name="vae-tiny", model=ModelConfig(), vae=VaeConfig(), train=TrainConfig())
ARMS = {"ae-nobn": AE, "vae-tiny": VAE}


LOG_VAR = LogVarCensus(min=-24.660698, max=-2.0205276, mean=-13.682616, num_in_interval=2)
DIFFERENCE = DifferenceCensus(
    max_component=0.26,
    num_in_interval=5,
    max_abs_radius=0.018045425,
    mean_abs_radius=0.00094899256,
    max_rel_radius=0.00072147313,
    mean_rel_radius=6.1240215e-05,
    expected_mean_abs_radius=0.00095,
)
INERTIA = InertiaCurve(
    method="subsampled", num_clusters=(2, 4), inertia=(2.0, 1.0), seeds=(1, 2), elbow=None, elbow_factor=1.2
)
TSNE = TsneResult(
    settings="30-12",
    num_images=20_000,
    perplexity=30.0,
    kl_divergence=3.0,
    neighbour_recall=0.2,
    neighbour_recall_expected=0.0005,
    seed=1,
)
HEAD = HeadNorms(kernel_norm=4.0, kernel_rms=0.1, bias_norm=16.0, bias_mean=-1.0)


def measured(
    arm: ArmConfig,
    seed: int,
    plan: PlanConfig,
    total_loss: float = 4555.6604,
    epochs: int = 1,
    radius_median: float = 16.1,
    nonfinite_step: int | None = None,
) -> MeasuredRun:
    """A run with the article's latents; before the last epoch its losses were far larger."""
    config = RunConfig(study="s", arm=arm, seed=seed, root_seed=0, data=CELEBA, plan=plan, provenance=PROVENANCE)
    kl_loss = 0.0 if arm.vae is None else 0.0178
    losses = [9999.0] * (epochs - 1) + [total_loss] * min(epochs, 1)
    return MeasuredRun(
        config=config,
        trained=trained(config.name, nonfinite_step),
        statistics=LatentStatistics(
            run=config.name,
            num_images=170_000,
            z_dim=256,
            num_nonfinite=0,
            radius_mu=radius(median=radius_median, mean=16.283972),
            radius_z=radius(median=radius_median, mean=16.283989),
            offset=5.0,
            spread=15.5,
            log_var=None if arm.vae is None else LOG_VAR,
            difference=None if arm.vae is None else DIFFERENCE,
            inertia=INERTIA,
            tsne=tuple(TSNE.model_copy(update={"settings": name}) for name in ("30-12", "10-16", "30-12-pca")),
            heads={"mu": HEAD} if arm.vae is None else {"mu": HEAD, "log_var": HEAD},
            plan_sha256=plan.sha256,
        ),
        history=[epoch(number, loss, kl_loss) for number, loss in enumerate(losses, start=1)],
        probe=ProbeCurve(np.array([], np.int64), np.array([], np.float64)),
    )


def radius(median: float, mean: float) -> RadiusStatistics:
    return RadiusStatistics(
        median=median,
        mean=mean,
        min=6.4961233,
        max=33.10274,
        mode=16.25,
        histogram=Histogram(bin_width=0.5, counts=(0,) * 70, overflow=0),
        shell_shares={"12-24": 0.98, "14-19": 0.7},
    )


def epoch(number: int, total_loss: float, kl_loss: float) -> EpochRecord:
    return EpochRecord(
        epoch=number,
        step=1329 * number,
        total_loss=total_loss,
        reconstruction_loss=total_loss - kl_loss,
        kl_loss=kl_loss,
        excess_loss=500.0,
        radius_median=16.1,
        radius_mean=16.3,
        radius_max=33.0,
        offset=5.0,
        spread=15.5,
        log_var_min=None,
        log_var_mean=None,
        log_var_max=None,
        state_sha256="0",
    )


def trained(run: str, nonfinite_step: int | None) -> TrainedRecord:
    return TrainedRecord(
        run=run,
        step=31_896,
        epochs=24,
        state_sha256="0",
        latents_sha256={},
        nonfinite_step=nonfinite_step,
        num_attempts=1,
        seconds=24 * 119.0,
        seconds_per_epoch=119.0,
        device="gpu",
        threads=1,
        provenance=PROVENANCE,
    )
