"""Studies with planted results: what training leaves behind, with latents whose radii are chosen."""

import os
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

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
from vaehpc.schema.plan import PlanConfig
from vaehpc.schema.results import EpochRecord, TrainedRecord
from vaehpc.study.files import RunDir, StudyDir, declaration, write_model

NUM_TRAIN = 40
Z_DIM = 4
PROVENANCE = Provenance(code_version="1", image_digest=None, packages={})


def arm(name: str, vae: VaeConfig | None) -> ArmConfig:
    train = TrainConfig(epochs=2, batch_size=8)
    return ArmConfig(name=name, model=ModelConfig(z_dim=Z_DIM), vae=vae, train=train)


AE = arm("ae", None)
VAE = arm("vae-tiny", VaeConfig())


def study_config(arms: Sequence[ArmConfig], seeds: Mapping[str, int]) -> StudyConfig:
    """Arms with this many seeds each."""
    plan = quick(PlanConfig.model_validate(tomllib.loads(declaration("analysis/plan.toml"))))
    data = DataConfig(
        path="/nowhere",
        name="built-in faces",
        sha256="0",
        synthetic=True,
        image_size=48,
        num_train=NUM_TRAIN,
        entropy_floor=100.0,
    )
    return StudyConfig(
        name="planted",
        preset="demo",
        root_seed=7,
        data=data,
        plan=plan,
        plan_sha256=plan.sha256,
        arms={arm.name: arm for arm in arms},
        seeds={name: tuple(range(count)) for name, count in seeds.items()},
        provenance=PROVENANCE,
    )


def quick(plan: PlanConfig) -> PlanConfig:
    """The plan with a short inertia curve and hardly any iterations of t-SNE."""
    settings = [one.model_copy(update={"early_iterations": 5, "iterations": 5}) for one in plan.tsne.settings]
    tsne = plan.tsne.model_copy(update={"sizes": (30,), "large_sizes": (35,), "settings": tuple(settings)})
    clusters = plan.clusters.model_copy(update={"num_clusters": (2, 4, 6), "elbow_window": 1})
    return plan.model_copy(update={"tsne": tsne, "clusters": clusters})


def write_study(path: Path, config: StudyConfig) -> StudyDir:
    """A launched study: nothing but its settings."""
    study = StudyDir(path)
    study.path.mkdir()
    write_model(study.config_path, config)
    for run in config.runs():
        study.run(run.name).path.mkdir()
        write_model(study.run(run.name).config_path, run)
    return study


def points_on_a_sphere(radius: float, num_points: int = NUM_TRAIN) -> np.ndarray:
    """Float32 (num_points, z_dim), each at this distance from the origin."""
    points = np.random.default_rng(5).standard_normal((num_points, Z_DIM))
    return (radius * points / np.linalg.norm(points, axis=1, keepdims=True)).astype(np.float32)


def train(
    run_dir: RunDir,
    config: RunConfig,
    mu: np.ndarray,
    nonfinite_step: int | None = None,
    probe: Mapping[int, float] | None = None,
) -> None:
    """What a training leaves: latents, history, the probe's medians by step, and the marker."""
    run_dir.latents.mkdir()
    np.save(run_dir.mu, mu)
    if config.arm.vae is None:
        os.link(run_dir.mu, run_dir.z)
    else:
        np.save(run_dir.log_var, np.full_like(mu, -14))
        np.save(run_dir.z, mu + np.float32(0.001))
    run_dir.history_path.write_text("".join(epoch(n).model_dump_json() + "\n" for n in (1, 2)))
    write_probe(run_dir.probe, probe or {})
    write_marker(run_dir, nonfinite_step=nonfinite_step)


def write_marker(run_dir: RunDir, **changes: Any) -> None:
    """The marker of a finished training of two epochs, with these fields changed."""
    fields: dict[str, Any] = {
        "run": run_dir.name,
        "step": 10,
        "epochs": 2,
        "state_sha256": "0",
        "latents_sha256": {},
        "nonfinite_step": None,
        "num_attempts": 1,
        "seconds": 4.0,
        "seconds_per_epoch": 2.0,
        "device": "cpu",
        "threads": 1,
        "provenance": PROVENANCE,
    }
    write_model(run_dir.trained_path, TrainedRecord(**fields | changes))


def epoch(number: int) -> EpochRecord:
    return EpochRecord(
        epoch=number,
        step=5 * number,
        total_loss=1000.0 / number,
        reconstruction_loss=1000.0 / number,
        kl_loss=0.5,
        excess_loss=900.0,
        radius_median=16.0,
        radius_mean=16.0,
        radius_max=17.0,
        offset=3.0,
        spread=15.7,
        log_var_min=None,
        log_var_mean=None,
        log_var_max=None,
        state_sha256="0",
    )


def write_probe(path: Path, medians: Mapping[int, float]) -> None:
    """recorder/probe.arrow, one batch per record, as a recorder that writes while training goes on."""
    path.parent.mkdir(exist_ok=True)
    columns = ["step", "radius_median", "radius_max", "offset", "spread"]
    schema = pa.schema([(name, pa.int64() if name == "step" else pa.float64()) for name in columns])
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_stream(file, schema) as stream:
        for step, median in medians.items():
            row = {"step": step, "radius_median": median, "radius_max": median, "offset": 0.0, "spread": median}
            stream.write_batch(pa.RecordBatch.from_pylist([row], schema=schema))
