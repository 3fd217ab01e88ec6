"""A study directory with planted results, as training, statistics and aggregate leave it."""

import math
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from vaehpc.schema.config import (
    ArmConfig,
    DataConfig,
    ModelConfig,
    Provenance,
    RunConfig,
    StudyConfig,
    TrainConfig,
    VaeConfig,
)
from vaehpc.schema.results import (
    EpochRecord,
    LatentStatistics,
    LogVarCensus,
    PairDistances,
    RunClass,
    StudySummary,
    TrainedRecord,
    TriggerMark,
)
from vaehpc.stats.comparison import Reference
from vaehpc.stats.divergence import ProbeCurve
from vaehpc.stats.pairs import distances, pairs_of
from vaehpc.stats.radius import radius_statistics
from vaehpc.stats.runs import FoundRun, MeasuredRun, MissingRun
from vaehpc.stats.summary import summarise
from vaehpc.study.files import StudyDir, declaration, write_model, write_text
from vaehpc.study.presets import PresetName, analysis_plan

PROVENANCE = Provenance(code_version="0.1.0+abc1234", image_digest=None, packages={"numpy": "2.4.1", "keras": "3.15.0"})
RADII: dict[RunClass, float] = {
    "regular": 16.0,
    "unclassified": 16.0,
    "shifted": 19.75,
    "diverged": 66.0,
    "collapsed": 6.0,
    "nonfinite": math.nan,
}
"""Median R at the end of a run of each class, beside regular AEs."""
EPOCHS = 6
ONSET_EPOCH = 4
"""After the burn-in, which is 300 steps: an epoch has 100 at least."""
ENTROPY_FLOOR = 4400.0

Classes = Mapping[str, Sequence[RunClass | None]]
"""Class of each run of each arm, seed by seed; None: missing. Arms whose name begins with 'ae' are AEs."""

MIXED: Classes = {
    "ae": ["regular"] * 8,
    "vae-tiny": ["regular", "diverged", None, "shifted", "regular", "diverged", "collapsed", "regular"],
    "vae-eps5": ["regular", "nonfinite"],
}
"""Every class but 'unclassified', and a missing run."""


def make_study(
    root: Path, classes: Classes, synthetic: bool = True, preset: PresetName = "demo"
) -> tuple[StudyDir, StudySummary]:
    """Write the study, but neither its figures nor its report."""
    config = study_config(root.name, classes, synthetic, preset)
    study = StudyDir(root)
    root.mkdir()
    write_model(study.config_path, config)
    runs = [write_run(study, run, classes[run.arm.name][run.seed]) for run in config.runs()]
    reference = Reference.model_validate(tomllib.loads(declaration("analysis/reference.toml")))
    summary = summarise(config, runs, reference, pair_distances(config, runs))
    write_model(study.summary_path, summary)
    return study, summary


def study_config(name: str, classes: Classes, synthetic: bool, preset: PresetName) -> StudyConfig:
    plan = analysis_plan()
    return StudyConfig(
        name=name,
        preset=preset,
        root_seed=1,
        data=DataConfig(
            path="/data/faces",
            name="built-in faces" if synthetic else "CelebA",
            sha256="d" * 64,
            synthetic=synthetic,
            image_size=48 if synthetic else 96,
            num_train=12_800 if synthetic else 170_000,
            entropy_floor=ENTROPY_FLOOR,
        ),
        plan=plan,
        plan_sha256=plan.sha256,
        arms={arm: arm_config(arm) for arm in classes},
        seeds={arm: tuple(range(len(of_arm))) for arm, of_arm in classes.items()},
        provenance=PROVENANCE,
    )


def arm_config(name: str) -> ArmConfig:
    vae = None if name.startswith("ae") else VaeConfig(epsilon_limit=5 if "eps5" in name else None)
    return ArmConfig(name=name, model=ModelConfig(), vae=vae, train=TrainConfig(epochs=EPOCHS))


def write_run(study: StudyDir, run: RunConfig, run_class: RunClass | None) -> FoundRun:
    """What the run's tasks left: settings and one attempt at least."""
    directory = study.run(run.name)
    (directory.attempts / "0001").mkdir(parents=True)
    write_model(directory.config_path, run)
    if run_class is None:
        return MissingRun(run, "train", "MemoryError: <could not allocate 3 GB>")
    found = MeasuredRun(
        config=run,
        trained=trained_record(run, run_class),
        statistics=latent_statistics(run, run_class),
        history=history(run, run_class),
        probe=probe(run, run_class),
        triggers=[TriggerMark(step=396, signal="gradient_norm")] if run_class == "diverged" else [],
    )
    write_text(directory.history_path, "".join(f"{record.model_dump_json()}\n" for record in found.history))
    write_model(directory.trained_path, found.trained)
    write_model(directory.statistics_path, found.statistics)
    write_images(directory.images, run.seed)
    return found


def pair_distances(config: StudyConfig, runs: Sequence[FoundRun]) -> list[PairDistances]:
    """Of radii around the planted medians, and of points that a VAE has rotated and nearly shares with its AE."""
    found = []
    for pair in pairs_of(config, [run for run in runs if isinstance(run, MeasuredRun)]):
        (radii, points), (of_control, points_of_control) = map(latents, pair)
        found.append(distances(*pair, (radii, of_control), (points, points_of_control), config.plan.pairs))
    return found


def latents(run: MeasuredRun) -> tuple[np.ndarray, np.ndarray]:
    """Radii (300,) and points (60, 4)."""
    numbers = np.random.default_rng(run.config.seed)
    radius = run.statistics.radius_mu.median * numbers.normal(1, 0.1, 300)
    points = numbers.standard_normal((60, 4))
    is_vae = run.config.arm.vae is not None
    return radius, points[:, ::-1] + 0.1 * numbers.standard_normal((60, 4)) if is_vae else points


def radius_at(run: RunConfig, run_class: RunClass, epoch: int) -> float:
    """Median R after an epoch: the regular one before ONSET_EPOCH, that of the class from there on."""
    radius = RADII["regular"] * (1 - math.exp(-epoch)) if epoch < ONSET_EPOCH else RADII[run_class]
    return radius + 0.1 * run.seed


def history(run: RunConfig, run_class: RunClass) -> list[EpochRecord]:
    return [epoch_record(run, run_class, epoch) for epoch in range(1, EPOCHS + 1)]


def epoch_record(run: RunConfig, run_class: RunClass, epoch: int) -> EpochRecord:
    radius = radius_at(run, run_class, epoch)
    jump = 300 if run_class == "diverged" and epoch == ONSET_EPOCH else 0
    excess = 120 + 400 / epoch + run.seed / 4 + jump
    kl_loss = 0.0 if run.arm.vae is None else 0.0178
    return EpochRecord(
        epoch=epoch,
        step=epoch * run.steps_per_epoch,
        total_loss=ENTROPY_FLOOR + excess + kl_loss,
        reconstruction_loss=ENTROPY_FLOOR + excess,
        kl_loss=kl_loss,
        excess_loss=excess,
        radius_median=radius,
        radius_mean=radius,
        radius_max=2 * radius,
        offset=0.7 * radius,
        spread=0.7 * radius,
        log_var_min=None,
        log_var_mean=None,
        log_var_max=None,
        state_sha256="0",
    )


def probe(run: RunConfig, run_class: RunClass) -> ProbeCurve:
    """The radius at every epoch end, so that a divergence sets in at the end of ONSET_EPOCH."""
    epochs = np.arange(1, EPOCHS + 1)
    return ProbeCurve(
        epochs * run.steps_per_epoch, np.array([radius_at(run, run_class, int(epoch)) for epoch in epochs])
    )


def trained_record(run: RunConfig, run_class: RunClass) -> TrainedRecord:
    return TrainedRecord(
        run=run.name,
        step=EPOCHS * run.steps_per_epoch,
        epochs=EPOCHS,
        state_sha256="e" * 64,
        latents_sha256={"mu.npy": "f" * 64},
        nonfinite_step=100 if run_class == "nonfinite" else None,
        num_attempts=3 if run.seed == 1 else 1,
        seconds=60.0,
        seconds_per_epoch=10.0,
        device="CPU",
        threads=1,
        provenance=PROVENANCE,
    )


def latent_statistics(run: RunConfig, run_class: RunClass) -> LatentStatistics:
    median = radius_at(run, run_class, EPOCHS)
    radius = median * np.random.default_rng(run.seed).normal(1, 0.13, 4001)
    distribution = radius_statistics(radius, run.plan.radius)
    return LatentStatistics(
        run=run.name,
        num_images=len(radius),
        z_dim=run.arm.model.z_dim,
        num_nonfinite=len(radius) if run_class == "nonfinite" else 0,
        radius_mu=distribution,
        radius_z=distribution,
        offset=0.7 * median,
        spread=0.7 * median,
        log_var=None if run.arm.vae is None else LogVarCensus(min=-24.7, max=-2.02, mean=-13.7, num_in_interval=2),
        difference=None,
        plan_sha256=run.plan.sha256,
    )


def write_images(folder: Path, seed: int) -> None:
    """Every sample image that training writes, in noise of 16 x 8 pixels."""
    folder.mkdir(parents=True)
    names = ["reconstructions", "random_normal", "random_fitted", *(f"random_uniform_{b}" for b in (2, 3, 8, 10, 16))]
    for position, name in enumerate(names):
        pixels = np.random.default_rng([seed, position]).integers(0, 256, (8, 16, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{name}.png")
