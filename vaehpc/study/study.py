"""A study on disk: planned, widened by a later launch, refused where anything else differs, and what it still lacks."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

from vaehpc.command import UserError, nearest
from vaehpc.schema.config import (
    ArmConfig,
    DataConfig,
    Precision,
    RunConfig,
    Stream,
    StudyConfig,
    cells,
    run_name,
)
from vaehpc.schema.data import LEAST_TRAINED
from vaehpc.schema.frozen import STORED, Frozen
from vaehpc.schema.plan import MAX_TRIGGERS, PlanConfig, text_sha256
from vaehpc.study.files import DataDir, RunDir, StudyDir, require_space, write_model
from vaehpc.study.presets import analysis_plan, plan_text
from vaehpc.study.provenance import provenance

ROOT_SEED = 20221127
"""Root of every random stream; a study keeps its own."""
BYTES_OF_STEP = 470
"""In recorder/steps.arrow, of a VAE."""


def found_study(asked: Path | None) -> StudyDir:
    """The study in this folder, or of this name under 'runs'; None: the only one there.

    Raises:
        UserError: there is none, or it is not said which.
    """
    present = sorted(path.parent.name for path in Path("runs").glob("*/study.json"))
    under = f"Studies under runs: {', '.join(present)}" if present else "There is no study under runs"
    if asked is None:
        if len(present) != 1:
            raise UserError(f"say which study, by its folder or name. {under}.")
        asked = Path(present[0])
    for path in (asked, Path("runs") / asked):
        if (study := StudyDir(path)).config_path.exists():
            return study
    raise UserError(
        f"'{asked}' is neither a study's folder nor a name under runs{nearest(asked.name, present)}. {under}."
    )


def found_run(study: StudyDir, name: str) -> RunDir:
    """A run of the study by its name.

    Raises:
        UserError: the study has no such run; says which it has.
    """
    known = [run.name for run in study.config().runs()]
    if name not in known:
        raise UserError(f"study {study.path.name} has no run '{name}'{nearest(name, known)}. Runs: {', '.join(known)}")
    return study.run(name)


def seeds_of_arms(
    arms: Mapping[str, ArmConfig], seeds: Iterable[int], fewer_seeds: Mapping[str, int], cross: Mapping[Stream, int]
) -> dict[str, tuple[int, ...]]:
    """The seeds of each arm, ascending: of some the first few; where streams are crossed, every combination."""
    ascending = tuple(sorted(seeds))
    return {name: cells(cross, arm) if cross else ascending[: fewer_seeds.get(name)] for name, arm in arms.items()}


def planned_study(
    name: str,
    preset: str,
    data: DataConfig,
    arms: Mapping[str, ArmConfig],
    seeds: Iterable[int],
    plan: PlanConfig | None = None,
    root_seed: int = ROOT_SEED,
    precision: Precision | None = None,
    fewer_seeds: Mapping[str, int] | None = None,
    cross: Mapping[Stream, int] | None = None,
) -> StudyConfig:
    """Arms x seeds under a plan; None: analysis/plan.toml, whose text the study then keeps.

    Args:
        name: of the study.
        preset: that it is made of.
        data: that it trains on.
        arms: by name.
        seeds: of each arm.
        plan: of the analysis.
        root_seed: of every random stream.
        precision: of arms that say no other.
        fewer_seeds: of these arms at most so many, the first ones.
        cross: streams that are crossed, with so many levels; in place of the seeds.
    """
    of_arms = seeds_of_arms(arms, seeds, fewer_seeds or {}, cross or {})
    usual = analysis_plan()
    text = plan_text() if plan in (None, usual) else plan.text
    return StudyConfig(
        name=name,
        preset=preset,
        root_seed=root_seed,
        data=data,
        plan=plan or usual,
        plan_text=text,
        plan_sha256=text_sha256(text),
        arms=dict(arms),
        seeds=of_arms,
        first_seeds=of_arms,
        precision=precision,
        cross=dict(cross or {}),
        provenance=provenance(),
    )


def in_image(config: StudyConfig, digest: str | None) -> StudyConfig:
    """The study as it is trained in the image of this digest; None: that is not known, or in none."""
    if digest is None:
        return config
    return config.model_copy(update={"provenance": config.provenance.model_copy(update={"image_digest": digest})})


def data_config(data: DataDir) -> DataConfig:
    """A prepared data set as a study refers to it.

    Raises:
        UserError: there is none, or it has too few images to train on.
    """
    manifest = data.manifest()
    train = manifest.splits.get("train")
    if train is None or train.num_images < LEAST_TRAINED:
        raise UserError(
            f"{data.path} has fewer than {LEAST_TRAINED} training images: prepare it again with a larger --num-train"
        )
    return DataConfig(
        path=str(data.path),
        name=manifest.name,
        sha256=manifest.sha256,
        synthetic=manifest.synthetic,
        image_size=manifest.preprocessing.size,
        num_train=train.num_images,
        entropy_floor=train.entropy_floor,
        has_attributes=bool(manifest.attributes),
        photographs=manifest.photographs,
    )


def widened(existing: StudyConfig, asked: StudyConfig) -> StudyConfig:
    """The existing study with the arms and seeds that are asked for and new. It keeps its own analysis plan.

    Raises:
        UserError: anything else differs; shows what.
    """
    common = set(existing.arms) & set(asked.arms)
    own = {"arms", "seeds", "first_seeds", "provenance", "plan", "plan_text", "plan_sha256"}
    if existing.precision is None:
        own.add("precision")
    if {existing.preset, asked.preset} <= {"article", "article-wide"}:  # which differ in arms alone
        own.add("preset")
    _require_equal(
        f"study '{existing.name}'",
        {"study": existing.model_dump(exclude=own)} | {arm: existing.arms[arm].model_dump() for arm in common},
        {"study": asked.model_dump(exclude=own)} | {arm: asked.arms[arm].model_dump() for arm in common},
        "Give the settings that it has, or start another study with --study NAME. Only its seeds and arms can grow.",
    )
    arms = existing.arms | asked.arms
    seeds = {arm: (*existing.seeds.get(arm, ()), *asked.seeds.get(arm, ())) for arm in arms}
    return StudyConfig.model_validate(
        existing.model_dump() | {"data": asked.data, "arms": arms, "seeds": seeds}, context=STORED
    )


def differing_values(settings: Frozen, other: Frozen) -> dict[str, tuple[Any, Any]]:
    """What differs in two plans or in two settings: 'probe.every_steps' -> (of the first, of the other)."""
    found, others = _flat(settings.model_dump()), _flat(other.model_dump())
    return {key: (value, others[key]) for key, value in found.items() if value != others[key]}


def differences(arms: Mapping[str, ArmConfig]) -> dict[str, dict[str, Any]]:
    """The settings in which the arms differ, as setting -> arm -> value.

    What only a VAE has is compared between the VAEs; an AE has no value of it.
    """
    of_arms = {name: arm.settings for name, arm in arms.items()}
    keys = dict.fromkeys(key for of_arm in of_arms.values() for key in of_arm)
    rows = {key: {name: of_arm[key] for name, of_arm in of_arms.items() if key in of_arm} for key in keys}
    return {key: row for key, row in rows.items() if len(set(row.values())) > 1}


def require_sources(arms: Mapping[str, ArmConfig]) -> None:
    """UserError if an arm starts from the weights of an arm that is not in the study, or not its AE."""
    for arm in arms.values():
        if arm.start_from is None or arm.fork is not None:
            continue
        if (source := arms.get(arm.start_from)) is None:
            raise UserError(
                f"arm '{arm.name}' starts from the trained weights of '{arm.start_from}', which is not in the study:"
                " add it to --arms"
            )
        if source.vae is not None or source.start_from is not None or source.model != arm.model:
            raise UserError(
                f"arm '{arm.name}' cannot start from the trained weights of '{source.name}': that takes an AE with the"
                " same [model] that itself starts from nothing"
            )


def _require_possible(config: StudyConfig) -> None:
    """UserError if a run has no source for its first weights, or ends before its spike."""
    require_sources(config.arms)
    names = {run.name for run in config.runs()}
    for run in config.runs():
        if (source := source_of(run)) is not None and source not in names:
            raise UserError(
                f"run {run.name} starts from the trained weights of {source}, which is not in the study:"
                f" add '{run.arm.start_from}' to --arms"
            )
        if run.arm.spike is not None and run.spike_step is not None and run.spike_step < 0:
            raise UserError(
                f"arm '{run.arm.name}' has its spike {run.arm.spike.steps_before_end} steps before the end, but trains"
                f" only {run.num_steps}: give more --train.epochs, or a smaller spike.steps_before_end in an arm of"
                " your own"
            )


def source_of(run: RunConfig) -> str | None:
    """The run whose trained weights this run starts from; a fork starts from a checkpoint instead."""
    if run.arm.start_from is None or run.arm.fork is not None:
        return None
    return run_name(run.arm.start_from, run.seed)


def _require_equal(what: str, found: dict[str, Any], asked: dict[str, Any], remedy: str) -> None:
    """UserError that lists the settings in which two trees of settings differ."""
    has, wanted = _flat(found), _flat(asked)
    lines = [
        f"\n  {key}: it has {has.get(key)}, asked for {wanted.get(key)}"
        for key in sorted(has.keys() | wanted.keys())
        if has.get(key) != wanted.get(key) and not key.endswith("data.path")  # the same data may lie elsewhere
    ]
    if lines:
        raise UserError(f"{what} was made with other settings:{''.join(lines)}\n{remedy}")


def _flat(settings: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings as 'ae.train.epochs': value."""
    flat: dict[str, Any] = {}
    for key, value in settings.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return flat


def create_study(study: StudyDir, config: StudyConfig) -> None:
    """Write study.json, then a directory with run.json for every run.

    Raises:
        UserError: an arm cannot be trained as it is, a run's directory was made with other settings, or the disk will
            not hold the study.
    """
    _require_possible(config)
    present = {run.name: study.run(run.name).config() for run in config.runs() if _has_config(study, run)}
    missing = [run for run in config.runs() if run.name not in present]
    require_space(study.path, sum(expected_bytes(run) for run in missing), 30 * len(missing))
    for run in config.runs():
        if run.name in present:
            has, asked = (settings.model_dump(exclude={"provenance", "plan"}) for settings in (present[run.name], run))
            _require_equal(str(study.path / run.name), has, asked, "Move it away, or use another --study.")
    study.path.mkdir(parents=True, exist_ok=True)
    write_model(study.config_path, config)
    for run in config.runs():
        study.run(run.name).path.mkdir(exist_ok=True)
        if run.name not in present or present[run.name].data != run.data:  # the data set was moved
            write_model(study.run(run.name).config_path, run)


def _has_config(study: StudyDir, run: RunConfig) -> bool:
    return study.run(run.name).config_path.exists()


def missing_runs(study: StudyDir, config: StudyConfig, marker: str) -> Iterator[RunDir]:
    """Runs of the study without this marker, seeds first so that every arm gets its first seeds early."""
    for run in sorted(config.runs(), key=lambda run: run.seed):
        if not (study.path / run.name / marker).exists():
            yield study.run(run.name)


def expected_bytes(run: RunConfig) -> int:
    """Disk that a run fills, roughly: latents in float32, checkpoints, the record of its steps."""
    latents = (1 if run.arm.vae is None else 3) * 4 * run.data.num_train * run.arm.model.z_dim
    kept = run.arm.train.epochs // run.arm.train.keep_every_epochs + 1
    if run.arm.fork is not None:
        latents, kept = 0, 0
    return latents + (kept + 3) * _state_bytes(run) + BYTES_OF_STEP * run.num_steps + 2_000_000


def most_bytes_of_triggers(run: RunConfig) -> int:
    """Disk that it fills besides where its recorder dumps as often as it may: the state before, and the last steps."""
    if run.arm.fork is not None:
        return 0
    return MAX_TRIGGERS * (_state_bytes(run) + BYTES_OF_STEP * run.plan.recorder.ring_steps)


def _state_bytes(run: RunConfig) -> int:
    """Of a checkpoint: weights and Adam's two moments."""
    return 3 * 4 * num_weights(run)


def num_weights(run: RunConfig) -> int:
    """Trainable weights of a run's net, known without TensorFlow."""
    filters, z_dim = run.arm.model.filters, run.arm.model.z_dim
    flat = (run.data.image_size // 16) ** 2 * filters[-1]
    heads = 1 if run.arm.vae is None else 2
    pairs = pairwise((3, *filters))
    kernels = 2 * sum(9 * before * after for before, after in pairs)
    # Each channel has gamma and beta, or a bias, or all three; those of the logits have a bias.
    of_channel = {True: 2, False: 1, "inference": 3}[run.arm.model.batch_norm]
    vectors = of_channel * (sum(filters) + sum(filters[:-1])) + 3
    return kernels + vectors + heads * (flat + 1) * z_dim + (z_dim + 1) * flat
