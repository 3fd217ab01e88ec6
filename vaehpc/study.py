"""A study on disk: planned, widened by a later launch, refused where anything else differs, and what it still lacks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from vaehpc.config import DataConfig, RunConfig, StudyConfig
from vaehpc.files import DataDir, RunDir, StudyDir, UserError, require_space, write_model
from vaehpc.presets import Settings, analysis_plan, configured_arms
from vaehpc.provenance import provenance

ROOT_SEED = 20221127
"""Root of every random stream; a study keeps its own."""


def planned_study(
    name: str, preset: str, data: DataConfig, settings: Settings, arms: Sequence[str], num_seeds: int
) -> StudyConfig:
    """Arms x seeds 0 ... num_seeds - 1 under the analysis plan.

    Raises:
        UserError: an unknown arm, or no seed.
    """
    if num_seeds < 1:
        raise UserError(f"--seeds {num_seeds}: at least 1 seed is needed; 16 means the seeds 0 to 15")
    plan = analysis_plan()
    return StudyConfig(
        name=name,
        preset=preset,
        root_seed=ROOT_SEED,
        data=data,
        plan=plan,
        plan_sha256=plan.sha256,
        arms=configured_arms(arms, settings),
        seeds={arm: tuple(range(num_seeds)) for arm in arms},
        provenance=provenance(),
    )


def data_config(data: DataDir) -> DataConfig:
    """A prepared data set as a study refers to it.

    Raises:
        UserError: there is none, or it has no images to train on.
    """
    manifest = data.manifest()
    train = manifest.splits.get("train")
    if train is None or train.num_images == 0:
        raise UserError(f"{data.path} has no training images: prepare it again with a larger --num-train")
    return DataConfig(
        path=str(data.path),
        name=manifest.name,
        sha256=manifest.sha256,
        synthetic=manifest.synthetic,
        image_size=manifest.preprocessing.size,
        num_train=train.num_images,
        entropy_floor=train.entropy_floor,
    )


def widened(existing: StudyConfig, asked: StudyConfig) -> StudyConfig:
    """The existing study with the arms and seeds that are asked for and new.

    Raises:
        UserError: anything else differs; shows what.
    """
    common = set(existing.arms) & set(asked.arms)
    free = {"arms", "seeds", "provenance"}
    found = _values(existing.model_dump(exclude=free), "")
    found |= {key: value for arm in common for key, value in _values(existing.arms[arm].model_dump(), arm).items()}
    wanted = _values(asked.model_dump(exclude=free), "")
    wanted |= {key: value for arm in common for key, value in _values(asked.arms[arm].model_dump(), arm).items()}
    differing = [key for key in sorted(found.keys() | wanted.keys()) if found.get(key) != wanted.get(key)]
    differing = [key for key in differing if key != "data.path"]  # the same data may lie elsewhere
    if differing:
        shown = "".join(f"\n  {key}: the study has {found.get(key)}, asked for {wanted.get(key)}" for key in differing)
        raise UserError(
            f"study '{existing.name}' was started with other settings:{shown}\nGive the settings that it has,"
            " or start another study with --study NAME. Only its seeds and arms can grow."
        )
    arms = existing.arms | asked.arms
    seeds = {arm: (*existing.seeds.get(arm, ()), *asked.seeds.get(arm, ())) for arm in arms}
    return StudyConfig.model_validate(existing.model_dump() | {"data": asked.data, "arms": arms, "seeds": seeds})


def _values(settings: dict[str, Any], prefix: str) -> dict[str, Any]:
    """Nested settings as 'arm.train.epochs': value."""
    flat: dict[str, Any] = {}
    for key, value in settings.items():
        name = f"{prefix}.{key}" if prefix else key
        flat |= _values(value, name) if isinstance(value, dict) else {name: value}
    return flat


def create_study(study: StudyDir, config: StudyConfig) -> None:
    """Write study.json, then a directory with run.json for every run that has none.

    Raises:
        UserError: a run's directory was made with other settings, or the disk will not hold the study.
    """
    new_runs = [run for run in config.runs() if not study.run(run.name).config_path.exists()]
    require_space(study.path, sum(expected_bytes(run) for run in new_runs), 30 * len(new_runs))
    for run in config.runs():
        if study.run(run.name).config_path.exists():
            _require_same(study.run(run.name), run)
    study.path.mkdir(parents=True, exist_ok=True)
    write_model(study.config_path, config)
    for run in new_runs:
        study.run(run.name).path.mkdir(exist_ok=True)
        write_model(study.run(run.name).config_path, run)


def _require_same(run_dir: RunDir, asked: RunConfig) -> None:
    found = _values(run_dir.config().model_dump(exclude={"provenance"}), "")
    wanted = _values(asked.model_dump(exclude={"provenance"}), "")
    differing = [key for key in sorted(found.keys() | wanted.keys()) if found.get(key) != wanted.get(key)]
    differing = [key for key in differing if key != "data.path"]
    if differing:
        shown = "".join(f"\n  {key}: it has {found.get(key)}, asked for {wanted.get(key)}" for key in differing)
        raise UserError(f"{run_dir.path} was made with other settings:{shown}\nMove it away, or use another --study.")


def missing_runs(study: StudyDir, config: StudyConfig, marker: str) -> Iterator[RunDir]:
    """Runs of the study without this marker, seeds first so that every arm gets its first seeds early."""
    for run in sorted(config.runs(), key=lambda run: run.seed):
        if not (study.path / run.name / marker).exists():
            yield study.run(run.name)


def expected_bytes(run: RunConfig) -> int:
    """Disk that a run fills, roughly: latents in float32, and two checkpoints and a half-written third."""
    latents = (1 if run.arm.vae is None else 3) * 4 * run.data.num_train * run.arm.model.z_dim
    checkpoints = 3 * 3 * 4 * num_weights(run)  # weights and Adam's two moments
    return latents + checkpoints + 2_000_000


def num_weights(run: RunConfig) -> int:
    """Trainable weights of a run's net, known without TensorFlow."""
    filters, z_dim = run.arm.model.filters, run.arm.model.z_dim
    flat = (run.data.image_size // 16) ** 2 * filters[-1]
    heads = 1 if run.arm.vae is None else 2
    pairs = list(zip((3, *filters), (*filters, 3), strict=False))[:4]
    convolutions = sum(9 * before * after + after for before, after in pairs)
    transposed = sum(9 * before * after + before for before, after in pairs)
    norms = 2 * (sum(filters) + sum(filters[:-1])) if run.arm.model.batch_norm else 0
    return convolutions + transposed + norms + heads * (flat + 1) * z_dim + (z_dim + 1) * flat


def study_path(out: Path, name: str) -> StudyDir:
    """Where a study lies."""
    return StudyDir(out / name)
