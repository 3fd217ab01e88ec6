"""Records that tests share: settings and results whose defaults fit together, with any field otherwise by its name."""

import hashlib
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from vaehpc.schema.config import (
    ArmConfig,
    DataConfig,
    ModelConfig,
    Provenance,
    ReplayConfig,
    RunConfig,
    SpikeConfig,
    StudyConfig,
    TrainConfig,
    VaeConfig,
)
from vaehpc.schema.plan import PlanConfig, text_sha256
from vaehpc.schema.results import (
    EpochRecord,
    LatentStatistics,
    LogVarCensus,
    RunClass,
    RunSummary,
    Stability,
    TrainedRecord,
    TriggerMark,
    TriggerRecord,
)
from vaehpc.stats.course import ProbeCurve
from vaehpc.stats.departures import StepRecord
from vaehpc.stats.radius import radius_statistics
from vaehpc.stats.runs import MeasuredRun
from vaehpc.study.presets import Settings, analysis_plan, configured_arms, named_arms

# Settings

SMALL_MODEL: dict[str, Any] = {"z_dim": 8, "filters": (4, 4, 8, 8)}
SMALL_TRAIN: dict[str, Any] = {"epochs": 2, "batch_size": 16, "eval_images": 32}
PROVENANCE = Provenance(code_version="0.1.0+abc1234", image_digest=None, packages={"numpy": "2.4.1", "keras": "3.15.0"})


def arm_config(
    kind: str,
    name: str | None = None,
    model: dict[str, Any] | None = None,
    train: dict[str, Any] | None = None,
    **changes: Any,
) -> ArmConfig:
    """A small AE or VAE arm."""
    fields = {
        "name": name or kind,
        "model": ModelConfig(**SMALL_MODEL | (model or {})),
        "vae": None if kind == "ae" else VaeConfig(),
        "train": TrainConfig(**SMALL_TRAIN | (train or {})),
    }
    return ArmConfig(**fields | changes)


def data_config(path: Path = Path("/nowhere"), num_train: int = 40, image_size: int = 16, **changes: Any) -> DataConfig:
    """A data set that need not exist."""
    fields = {"name": "built-in faces", "sha256": "0" * 64, "synthetic": True, "entropy_floor": 100.0}
    return DataConfig(path=str(path), num_train=num_train, image_size=image_size, **fields | changes)


AE = arm_config("ae", model={"z_dim": 4}, train={"batch_size": 8})
VAE = arm_config("vae", "vae-tiny", model={"z_dim": 4}, train={"batch_size": 8})
"""On data_config()'s images 5 steps an epoch, 10 in all."""
ARTICLE = configured_arms(named_arms(("ae-nobn", "vae-tiny")), Settings())
"""The article's own arms."""
CELEBA = data_config(num_train=170_000, image_size=96, name="CelebA", synthetic=False, entropy_floor=4400.0)


def run_config(
    kind: str = "vae",
    seed: int = 3,
    image_size: int = 16,
    num_train: int = 40,
    data: DataConfig | None = None,
    model: dict[str, Any] | None = None,
    train: dict[str, Any] | None = None,
    **changes: Any,
) -> RunConfig:
    """A run of a small arm."""
    fields = {
        "study": "small",
        "arm": arm_config(kind, model=model, train=train),
        "root_seed": 1,
        "data": data or data_config(num_train=num_train, image_size=image_size),
        "plan": analysis_plan(),
        "provenance": PROVENANCE,
    }
    fields |= changes
    return RunConfig(seed=seed, **{"plan_sha256": text_sha256(fields["plan"].text)} | fields)


REPLAY = ReplayConfig(
    source="demo/vae-tiny-seed007",
    started_from="trigger 1",
    step=900,
    until_step=1100,
    calm_step=950,
    calm_radius=16.0,
    jumped_radius=64.0,
    deterministic=True,
)


def study_config(
    arms: Sequence[ArmConfig], seeds: int | Mapping[str, int] = 1, plan: PlanConfig | None = None, **changes: Any
) -> StudyConfig:
    """Arms with this many seeds each."""
    plan = plan or analysis_plan()
    num_seeds = dict.fromkeys((arm.name for arm in arms), seeds) if isinstance(seeds, int) else seeds
    fields = {
        "name": "planted",
        "preset": "demo",
        "root_seed": 7,
        "data": data_config(),
        "arms": {arm.name: arm for arm in arms},
        "seeds": {name: tuple(range(count)) for name, count in num_seeds.items()},
        "provenance": PROVENANCE,
    }
    return StudyConfig(plan=plan, plan_text=plan.text, plan_sha256=text_sha256(plan.text), **fields | changes)


def quick_plan() -> PlanConfig:
    """The plan with a short inertia curve and hardly any iterations of t-SNE."""
    plan = analysis_plan()
    settings = [one.model_copy(update={"early_iterations": 5, "iterations": 5}) for one in plan.tsne.settings]
    tsne = plan.tsne.model_copy(update={"sizes": (30,), "large_sizes": (35,), "settings": tuple(settings)})
    clusters = plan.clusters.model_copy(update={"num_clusters": (2, 4, 6), "elbow_window": 1})
    return plan.model_copy(update={"tsne": tsne, "clusters": clusters})


# Results of a run

RADII: Mapping[RunClass, float] = {
    "regular": 16.0,
    "unclassified": 16.0,
    "shifted": 19.75,
    "diverged": 66.0,
    "collapsed": 6.0,
    "nonfinite": math.nan,
}
"""Median R at the end of a run of each class, beside regular AEs."""
ONSET_EPOCH = 4
"""With 100 steps an epoch or more it is after the burn-in."""
SHA256 = "e" * 64

Course = Mapping[int, float]
"""Median R of the probe images after so many steps."""


def measured_run(
    run: RunConfig,
    run_class: RunClass = "regular",
    *,
    radius: float | None = None,
    course: Course | None = None,
    history: Sequence[EpochRecord] | None = None,
    triggers: Sequence[TriggerRecord] = (),
    statistics: Mapping[str, Any] | None = None,
    **trained: Any,
) -> MeasuredRun:
    """A run that ended, as what it is beside regular AEs.

    By default the median R at the end, `radius`, is the class's and a tenth more with each seed; the course settles and
    goes to it at ONSET_EPOCH, or in the last epoch; the history follows the course. `statistics` and `trained` are
    fields of its statistics and of its marker that are otherwise.
    """
    radius = RADII[run_class] + 0.1 * run.seed if radius is None else radius
    course = settling(run, radius) if course is None else course
    if history is not None:
        trained = {"epochs": len(history)} | trained
    if run_class == "nonfinite":
        trained = {"nonfinite_step": run.steps_per_epoch} | trained
    return MeasuredRun(
        config=run,
        trained=trained_record(run, **trained),
        statistics=latent_statistics(run, radius, **statistics or {}),
        history=followed(run, course) if history is None else history,
        probe=probe_curve(course),
        triggers=[TriggerMark(step=trigger.step, signal=trigger.signal) for trigger in triggers],
    )


def settling(run: RunConfig, radius: float) -> Course:
    """At the end of every epoch: on its way to the regular radius before the onset, this one from there on."""
    epochs = run.arm.train.epochs
    before = range(1, min(ONSET_EPOCH, epochs))
    regular = {epoch: RADII["regular"] * (1 - math.exp(-epoch)) + 0.1 * run.seed for epoch in before}
    return {epoch * run.steps_per_epoch: regular.get(epoch, radius) for epoch in range(1, epochs + 1)}


def followed(run: RunConfig, course: Course) -> list[EpochRecord]:
    """A record of every epoch, with R of the last probe before its end."""
    found = []
    for epoch in range(1, run.arm.train.epochs + 1):
        radii = [radius for step, radius in course.items() if step <= epoch * run.steps_per_epoch]
        found.append(epoch_record(run, epoch, radii[-1] if radii else RADII["regular"]))
    return found


def epoch_record(run: RunConfig, epoch: int, radius: float = RADII["regular"], **changes: Any) -> EpochRecord:
    """Losses fall from epoch to epoch, and are a little larger with each seed."""
    excess = 120 + 400 / epoch + run.seed / 4
    kl_loss = 0.0 if run.arm.vae is None else 0.0178
    fields = {
        "total_loss": run.data.entropy_floor + excess + kl_loss,
        "reconstruction_loss": run.data.entropy_floor + excess,
        "kl_loss": kl_loss,
        "excess_loss": excess,
        "radius_median": radius,
        "radius_mean": 1.01 * radius,
        "radius_max": 2 * radius,
        "offset": 0.7 * radius,
        "spread": 0.7 * radius,
    }
    fields |= dict.fromkeys(("log_var_min", "log_var_mean", "log_var_max"))
    return EpochRecord(epoch=epoch, step=epoch * run.steps_per_epoch, **fields | changes)


def trained_record(run: RunConfig, **changes: Any) -> TrainedRecord:
    """The marker of a training that came to its end."""
    fields = {
        "step": run.num_steps,
        "epochs": run.arm.train.epochs,
        "state_sha256": hashlib.sha256(run.name.encode()).hexdigest(),
        "latents_sha256": {},
        "nonfinite_step": None,
        "num_attempts": 1,
        "seconds": 60.0,
        "seconds_per_epoch": 10.0,
        "device": "CPU",
        "device_kind": "cpu",
        "precision": run.arm.train.precision,
        "tensor_float_32": False,
        "threads": 1,
        "provenance": PROVENANCE,
    }
    return TrainedRecord(run=run.name, **fields | changes)


def latent_statistics(run: RunConfig, radius: float = RADII["regular"], **changes: Any) -> LatentStatistics:
    """Radii of 4001 images with exactly this median, scattered more below than above it; log_var as the article's."""
    scatter = abs(np.random.default_rng(run.seed).normal(0, 0.13, 2000))
    found = radius_statistics(radius * (1 + np.concatenate([-scatter, [0], 0.8 * scatter])), run.plan.radius)
    fields = {
        "num_images": 4001,
        "z_dim": run.arm.model.z_dim,
        "num_nonfinite": 4001 if math.isnan(radius) else 0,
        "radius_mu": found,
        "radius_z": found,
        "offset": 0.7 * radius,
        "spread": 0.7 * radius,
        "log_var": run.arm.vae and LogVarCensus(min=-24.660698, max=-2.0205276, mean=-13.682616, num_in_interval=2),
        "difference": None,
    }
    return LatentStatistics(run=run.name, plan_sha256=run.plan_sha256, **fields | changes)


def run_summary(run_class: RunClass | None, seed: int = 0, **changes: Any) -> RunSummary:
    """A run of vae-tiny in the summary; None is missing."""
    fields = {name: None for name, field in RunSummary.model_fields.items() if field.is_required()}
    fields |= {"arm": "vae-tiny", "ever_diverged": run_class == "diverged"}
    return RunSummary(**fields | {"seed": seed, "run_class": run_class} | changes)


def stability(step: int, ratio: float | None = 0.25, **changes: Any) -> Stability:
    """A measured state after so many steps, with a sharpness of `ratio` times its limit."""
    fields = {
        "state": "checkpoint",
        "sharpness": None if ratio is None else 100 * ratio,
        "curvature": 50.0,
        "curvature_ratio": 2.0,
        "gradient_norm": 4.0,
        "clip": 0.5,
        "squares_by_v": 0.1,
        "loss": 1200.0,
        "radius_median": 16.0,
        "decoder_radius": 80.0,
        "scale": 2.0,
        "scale_share": 0.75,
        "loss_paid": -1.5,
    }
    return Stability(step=step, sharpness_ratio=ratio, **fields | changes)


def probe_curve(course: Course) -> ProbeCurve:
    """The course as it is read."""
    return ProbeCurve(np.array(list(course), np.int64), np.array(list(course.values()), np.float64))


# What a flight recorder holds of a run whose gradient had a spike

NUM_STEPS = 1500
SPIKE = 1234
LAYERS = ("conv_1", "conv_2", "mu", "log_var", "decoder")
VAE_ONLY = ("kl_loss", "log_var_min", "log_var_mean", "log_var_max", "epsilon_max", "noise_max")


def spiked_run(kind: str = "vae", on_purpose: bool = False) -> RunConfig:
    """60 epochs of 25 steps."""
    spike = SpikeConfig(kind="gradient", strength=1000.0, steps_before_end=NUM_STEPS - SPIKE)
    arm = arm_config(kind, train={"epochs": 60}, spike=spike if on_purpose else None)
    return run_config(num_train=400, arm=arm)


def spiked_course(jumps: bool = True) -> Course:
    """Every 50 steps; R goes from 16.2 to 68 between 1,200 and 1,250."""
    return {step: 68.0 if step > SPIKE and jumps else 16.2 for step in range(50, NUM_STEPS + 1, 50)}


def trigger_record(**changes: Any) -> TriggerRecord:
    """At SPIKE, by the gradient's norm."""
    fields = {
        "step": SPIKE,
        "signal": "gradient_norm",
        "value": 31_000.0,
        "limit": 300.0,
        "snapshot_step": 1100,
        "images": (311, 4, 71, 12),
        "largest_loss_image": 71,
        "largest_log_var_image": 12,
    }
    return TriggerRecord(**fields | changes)


def spiked_record(kind: str = "vae", jumps: bool = True) -> StepRecord:
    """At SPIKE the gradient x 1000 and, one step later, the update; two steps later R begins to rise from 16 to 68."""
    numbers = np.random.default_rng(7)
    steps = np.arange(NUM_STEPS)
    later = np.clip((steps - SPIKE - 1) / 12, 0, 1) * jumps

    def noisy(level: Any, scatter: float) -> np.ndarray:
        return np.asarray(level * np.exp(scatter * numbers.standard_normal(NUM_STEPS)))

    signals = {
        "total_loss": noisy(150 + 300 * np.exp(-steps / 200) + 60 * later, 0.03),
        "reconstruction_loss": noisy(150 + 300 * np.exp(-steps / 200) + 60 * later, 0.03),
        "kl_loss": noisy(0.018 * (1 + 4 * later), 0.02),
        "log_var_min": noisy(-20 * np.ones(NUM_STEPS), 0.02),
        "log_var_mean": noisy(-13 * np.ones(NUM_STEPS), 0.01),
        "log_var_max": -5 + numbers.standard_normal(NUM_STEPS) + 4 * later,
        "epsilon_max": np.sqrt(2 * (np.log(4096) + numbers.gumbel(size=NUM_STEPS))),
        "noise_max": noisy(0.01, 0.3),
        "radius_mean": noisy(16 * (68 / 16) ** later, 0.01),
        "radius_max": noisy(30 * (68 / 16) ** later, 0.05),
        "image_loss_max": noisy(260 + 80 * later, 0.1),
    }
    for layer in ("", *(f"/{layer}" for layer in LAYERS)):
        signals |= {
            f"gradient_norm{layer}": noisy(30, 0.25),
            f"gradient_rms{layer}": noisy(1, 0.2),
            f"gradient_peak{layer}": 1 + np.minimum(numbers.pareto(1.0, NUM_STEPS) * 30, 999),
            f"update_norm{layer}": noisy(0.05, 0.1),
            f"weight_norm{layer}": 20 + steps / 500,
        }
        if jumps:
            signals[f"gradient_norm{layer}"][SPIKE] *= 1000
            signals[f"gradient_rms{layer}"][SPIKE] = 31.6
            signals[f"gradient_peak{layer}"][SPIKE] = 1000
            signals[f"update_norm{layer}"][SPIKE + 1 : SPIKE + 40] *= 30 * np.exp(-np.arange(39) / 10)
    return StepRecord(
        steps, {name: values for name, values in signals.items() if kind == "vae" or name not in VAE_ONLY}
    )
