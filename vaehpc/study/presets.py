"""Named arms and studies, and how a study is put together from a preset, a TOML file and the command line."""

from __future__ import annotations

import re
import tomllib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, TypeVar

import pydantic

from vaehpc.command import UserError, nearest
from vaehpc.schema.config import (
    MAX_SEEDS,
    ArmConfig,
    ArmKind,
    ModelConfig,
    Precision,
    SpikeConfig,
    SweptConfig,
    TrainConfig,
    VaeConfig,
)
from vaehpc.schema.frozen import Frozen
from vaehpc.schema.plan import PlanConfig
from vaehpc.study.files import declaration, read_bytes

PresetName = Literal["demo", "article", "article-wide"]
Model = TypeVar("Model", bound=Frozen)


class Settings(Frozen):
    """What every arm of a study starts from."""

    model: ModelConfig = ModelConfig()
    vae: VaeConfig = VaeConfig()
    train: TrainConfig = TrainConfig()


@dataclass(frozen=True)
class Arm:
    """What is special about an arm: AE or VAE, and the settings in which it differs from the study's."""

    kind: ArmKind
    question: str
    model: Mapping[str, Any] = field(default_factory=dict)
    vae: Mapping[str, Any] = field(default_factory=dict)
    train: Mapping[str, Any] = field(default_factory=dict)
    spike: Mapping[str, Any] = field(default_factory=dict)
    start_from: str | None = None
    swept: SweptConfig | None = None

    def configured(self, name: str, settings: Settings) -> ArmConfig:
        """The arm as a study trains it.

        Raises:
            UserError: an unknown key, a value that is not allowed, or something for a VAE in an AE.
        """
        origin = f"arm '{name}'"
        if self.kind == "ae" and (self.vae or self.spike.get("kind") == "log_var"):
            raise UserError(
                f"{origin} is an AE: it has no log_var and none of the settings of [vae]. Take a VAE as its base."
            )
        changes = {"model": dict(self.model), "vae": dict(self.vae), "train": dict(self.train)}
        changed = overridden(settings, changes, origin)
        _require_known(self.spike, SpikeConfig.model_fields, "spike.", origin)
        arm = {
            "name": name,
            "model": changed.model,
            "vae": None if self.kind == "ae" else changed.vae,
            "train": changed.train,
            "start_from": self.start_from,
            "spike": dict(self.spike) or None,
            "swept": self.swept,
        }
        return _validated(ArmConfig, arm, origin)


def _pair(suffix: str, vae: Arm) -> dict[str, Arm]:
    """A VAE, and the AE with the same differences that is its control."""
    return {f"ae-{suffix}": replace(vae, kind="ae", question=f"control of vae-{suffix}"), f"vae-{suffix}": vae}


ARMS: Mapping[str, Arm] = {
    "ae": Arm("ae", "the radii that a net without any noise finds; control of the arms with BatchNormalization"),
    "ae-nobn": Arm("ae", "the article's own AE, without BatchNormalization", model={"batch_norm": False}),
    "vae-tiny": Arm("vae", "the article's VAE with a tiny KL loss: how often does it diverge?"),
    "vae-tiny-nobn": Arm("vae", "the same without BatchNormalization, as `ae-nobn`", model={"batch_norm": False}),
    "vae-eps5": Arm("vae", "the article's remedy: |epsilon| limited to 5", vae={"epsilon_limit": 5.0}),
    "vae-eps2": Arm("vae", "a limit that noise does meet: |epsilon| <= 2", vae={"epsilon_limit": 2.0}),
    "vae-eps1": Arm("vae", "a limit that a third of the noise meets: |epsilon| <= 1", vae={"epsilon_limit": 1.0}),
    "vae-eps0": Arm("vae", "no noise at all: epsilon times 0", vae={"epsilon_factor": 0.0}),
    "vae-eps-anyscale": Arm(
        "vae",
        "the remedy's other reading: one |epsilon| >= 5 turns the whole tensor into +-5",
        vae={"epsilon_limit": 5.0, "epsilon_limit_on": "tensor"},
    ),
    "logvar-clamp": Arm("vae", "log_var clamped to 5 instead: sigma <= 12", vae={"log_var_limit": 5.0}),
    "clipnorm": Arm("vae", "the gradient's global norm limited instead", train={"clipnorm": 2000.0}),
    **_pair("clip", Arm("vae", "the same at 100, as small a norm as the demo's faces need", train={"clipnorm": 100.0})),
    **_pair("he", Arm("vae", "initial kernels from He's normal", model={"initializer": "he"})),
    **_pair("normal", Arm("vae", "initial kernels from N(0, 0.02)", model={"initializer": "normal"})),
    **_pair("mu-tenth", Arm("vae", "the initial kernel of mu times 0.1", model={"mu_scale": 0.1})),
    **_pair("mu-tenfold", Arm("vae", "the initial kernel of mu times 10", model={"mu_scale": 10.0})),
    **_pair("lr-1e-4", Arm("vae", "a smaller learning rate than the article's 5e-4", train={"learning_rate": 1e-4})),
    **_pair("lr-2e-3", Arm("vae", "a greater learning rate than the article's 5e-4", train={"learning_rate": 2e-3})),
    **_pair(
        "beta2-99", Arm("vae", "Adam's squared gradients forgotten in 100 steps, not 1000", train={"beta_2": 0.99})
    ),
    **_pair("beta2-95", Arm("vae", "Adam's squared gradients forgotten in 20 steps, not 1000", train={"beta_2": 0.95})),
    **_pair("beta1-50", Arm("vae", "Adam's gradients averaged over 2 steps, not 10", train={"beta_1": 0.5})),
    **_pair("beta1-0", Arm("vae", "Adam without momentum", train={"beta_1": 0.0})),
    **_pair("adam-eps-1e-3", Arm("vae", "Adam's epsilon 1e-3, not 1e-7", train={"adam_epsilon": 1e-3})),
    **_pair("decay", Arm("vae", "weight decay 0.01 on kernels, as AdamW", train={"weight_decay": 1e-2})),
    **_pair("batch-32", Arm("vae", "batches of 32, not 128", train={"batch_size": 32})),
    **_pair("batch-512", Arm("vae", "batches of 512, not 128", train={"batch_size": 512})),
    **_pair(
        "inference",
        Arm(
            "vae",
            "BatchNormalization as a loop without training=True has it: a scale and a shift",
            model={"batch_norm": "inference"},
        ),
    ),
    **_pair("float32", Arm("vae", "float32 throughout", train={"precision": "float32"})),
    **_pair("bfloat16", Arm("vae", "convolutions in bfloat16", train={"precision": "mixed_bfloat16"})),
    **_pair("float16", Arm("vae", "convolutions in float16, with loss scaling", train={"precision": "mixed_float16"})),
    **_pair("z64", Arm("vae", "64 latent dimensions", model={"z_dim": 64})),
    **_pair("z128", Arm("vae", "128 latent dimensions", model={"z_dim": 128})),
    **_pair("z256", Arm("vae", "256 latent dimensions", model={"z_dim": 256})),
    **_pair("z512", Arm("vae", "512 latent dimensions", model={"z_dim": 512})),
    "vae-fact-0": Arm("vae", "no KL loss at all", vae={"kl_weight": 0.0}),
    "vae-fact-1e-3": Arm("vae", "a small KL loss: weight 1e-3", vae={"kl_weight": 1e-3}),
    "vae-fact-1e-2": Arm("vae", "a KL loss that begins to act: weight 1e-2", vae={"kl_weight": 1e-2}),
    "vae-fact-5": Arm("vae", "the article's working KL loss: weight 5", vae={"kl_weight": 5.0}),
    "spike-gradient": Arm(
        "vae",
        "positive control: one step's gradient times 1000; the detector must fire",
        spike={"kind": "gradient", "strength": 1000.0, "steps_before_end": 150},
    ),
    "spike-logvar": Arm(
        "vae",
        "positive control: 100 added to one component of one image's log_var: an overflow; the detector must fire",
        spike={"kind": "log_var", "strength": 100.0, "steps_before_end": 150},
    ),
    "vae-from-ae": Arm("vae", "a VAE that starts from the trained weights of `ae`", start_from="ae"),
}
"""Arms that a study can name. Their values are absolute: where a study's own are the same, an arm equals its base."""


@dataclass(frozen=True)
class Preset:
    """A named study: settings, arms and changes of the plan, what to expect and how long it takes."""

    settings: Settings
    arms: tuple[str, ...]
    num_seeds: int
    expectation: str
    plan: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """What differs from analysis/plan.toml."""
    in_float32: Mapping[str, int] = field(default_factory=dict)
    """Of these arms, which are of use where the study's precision is another one, at most so many seeds."""

    def arms_in(self, precision: Precision) -> tuple[str, ...]:
        """The arms of a study whose precision is this one."""
        return tuple(arm for arm in self.arms if precision != "float32" or arm not in self.in_float32)


PRESETS: Mapping[PresetName, Preset] = {
    "demo": Preset(
        settings=Settings(
            model=ModelConfig(z_dim=64, filters=(8, 16, 32, 64), batch_norm=False),
            train=TrainConfig(epochs=6, batch_size=8, learning_rate=1.2e-2, eval_images=1200, keep_every_epochs=1),
        ),
        arms=("ae", "ae-clip", "vae-tiny", "vae-clip"),
        num_seeds=6,
        expectation="6 seeds x 4 arms on built-in faces of 48 x 48, at a learning rate at which runs leave unless their"
        " gradients are clipped: a few minutes of two cores",
        plan={
            "classes": {"control": "ae-clip"},
            "course": {"jump_factor": 2.0},
            "sensitivity": {"jump_factors": (1.5, 3.0)},
            "probe": {"num_images": 128, "every_steps": 10, "burn_in_steps": 50, "burn_in_epochs": 0.0},
            "recorder": {"ring_steps": 100, "snapshot_steps": 20},
            "clusters": {"num_clusters": tuple(range(2, 22, 2))},
        },
    ),
    "article": Preset(
        settings=Settings(),
        arms=("ae", "vae-tiny", "vae-eps5", "ae-nobn", "vae-tiny-nobn"),
        num_seeds=16,
        expectation="CelebA at 96 x 96, 24 epochs of 1,329 steps: 48 minutes a run on the article's GPU",
    ),
    "article-wide": Preset(
        settings=Settings(),
        arms=(
            *("ae", "vae-tiny", "ae-inference", "vae-inference"),
            *("vae-eps1", "vae-eps2", "logvar-clamp", "clipnorm", "ae-float32", "vae-float32"),
        ),
        num_seeds=16,
        expectation="other remedies, BatchNormalization as inference has it and true float32 beside the article's AE"
        " and VAE: 48 minutes a run on its GPU",
        in_float32={"ae-float32": 8, "vae-float32": 8},
    ),
}


def default_precision(asks_for_gpus: bool) -> Precision:
    """Of a new study: as its trainings ask for GPUs, or for none."""
    return "mixed_bfloat16" if asks_for_gpus else "float32"


def in_precision(settings: Settings, precision: Precision) -> Settings:
    """These settings in this precision."""
    return settings.model_copy(update={"train": settings.train.model_copy(update={"precision": precision})})


DEMO_IMAGES = 1430
"""Built-in faces of the demo; 1,199 of them train."""
DEMO_IMAGE_SIZE = 48


def analysis_plan() -> PlanConfig:
    """analysis/plan.toml."""
    return PlanConfig.model_validate(tomllib.loads(plan_text()))


def plan_text() -> str:
    """Its text, whose hash is the plan's identity."""
    return declaration("analysis/plan.toml")


def preset_plan(preset: Preset, arms: Mapping[str, ArmConfig]) -> PlanConfig:
    """The analysis plan with the preset's changes; its named control only where another of these arms can have it."""
    usual = analysis_plan()
    plan = overridden(usual, preset.plan, "preset")
    if controlled_by(plan.classes.control, arms):
        return plan
    return overridden(plan, {"classes": {"control": usual.classes.control}}, "preset")


def controlled_by(control: str, arms: Mapping[str, ArmConfig]) -> list[str]:
    """The arms of which this one, or one of its arms in a sweep, can be the control beside itself."""
    named = [arm for arm in arms.values() if control in (arm.name, arm.base)]
    return [name for name, arm in arms.items() if any(each.name != name and each.is_control_of(arm) for each in named)]


def asked_seeds(asked: Sequence[str], origin: str) -> tuple[int, ...]:
    """Seeds in words: one number N is 0 to N - 1, several are themselves, 'A:B' is A to B - 1.

    Raises:
        UserError: something is no such word, a seed is there twice, or there are none or too many.
    """
    found: list[int] = []
    for word in asked:
        if not re.fullmatch(r"[0-9]{1,7}(:[0-9]{1,7})?", word):
            raise UserError(f"{origin} {word}: seeds are numbers or ranges A:B, which is A to B - 1")
        first, *end = map(int, word.split(":"))
        found += range(first, *end) if end else range(first) if len(asked) == 1 else (first,)
    if not found or max(found) >= MAX_SEEDS:
        raise UserError(
            f"{origin} {' '.join(asked)}: 1 to {MAX_SEEDS:,} seeds are possible, 0 to {MAX_SEEDS - 1:,}; 16 means the"
            " seeds 0 to 15, and 5 9 20:30 the seeds 5, 9 and 20 to 29"
        )
    if twice := [seed for seed, count in Counter(found).items() if count > 1]:
        raise UserError(f"{origin} {' '.join(asked)}: seed {twice[0]} is there twice")
    return tuple(sorted(found))


def named_arms(asked: Sequence[str]) -> dict[str, Arm]:
    """Arms by name, and all arms of the TOML files among the names, in the order asked for.

    Raises:
        UserError: no arm has that name, or a file is not there or says something wrong.
    """
    known, arms = dict(ARMS), dict[str, Arm]()
    for name in asked:
        found = _arms_of_file(Path(name), known) if name.endswith(".toml") else {name: _arm(name, known)}
        known |= found
        arms |= found
    return arms


def configured_arms(arms: Mapping[str, Arm], settings: Settings) -> dict[str, ArmConfig]:
    """Arms as a study with these settings trains them."""
    return {name: arm.configured(name, settings) for name, arm in arms.items()}


def _arm(name: str, known: Mapping[str, Arm]) -> Arm:
    if name not in known:
        raise UserError(f"unknown arm '{name}'{nearest(name, known)}. Arms: {', '.join(known)}")
    return known[name]


class _ArmTable(Frozen):
    """[my-arm] of a TOML file: an arm known before, and what differs from it."""

    base: str
    question: str | None = None
    model: dict[str, Any] = pydantic.Field(default_factory=dict)
    vae: dict[str, Any] = pydantic.Field(default_factory=dict)
    train: dict[str, Any] = pydantic.Field(default_factory=dict)
    spike: dict[str, Any] = pydantic.Field(default_factory=dict)


def _arms_of_file(path: Path, known: Mapping[str, Arm]) -> dict[str, Arm]:
    """The arms that a TOML file adds to those that are known."""
    arms: dict[str, Arm] = {}
    for name, table in read_toml(path, "--arms").items():
        try:
            arms[name] = _arm_of_table(name, table, {**known, **arms})
            arms[name].configured(name, Settings())
        except UserError as error:
            raise UserError(f"{path}: {error}") from None
    if not arms:
        raise UserError(f'{path} holds no arm. An arm is a table: [my-arm] with base = "vae-tiny"')
    return arms


def _arm_of_table(name: str, values: Any, known: Mapping[str, Arm]) -> Arm:
    origin = f"arm '{name}'"
    if not isinstance(values, dict):
        raise UserError(f"'{name}' is not an arm. An arm is a table: [{name}] with base = \"vae-tiny\"")
    if name in known:
        raise UserError(f"{origin} is there already: give yours another name")
    _require_known(values, _ArmTable.model_fields, "", origin)
    table = _validated(_ArmTable, values, origin)
    base = _arm(table.base, known)
    return replace(
        base,
        question=table.question or f"`{table.base}` with changes of one's own",
        model={**base.model, **table.model},
        vae={**base.vae, **table.vae},
        train={**base.train, **table.train},
        spike={**base.spike, **table.spike},
    )


def read_toml(path: Path, option: str) -> dict[str, Any]:
    """A TOML file that the command line names with `option`.

    Raises:
        UserError: it cannot be read, or is not TOML.
    """
    try:
        return tomllib.loads(read_bytes(path).decode("utf-8-sig").replace("\r\n", "\n"))
    except OSError as error:
        raise UserError(f"{option} {path}: {error.strerror}") from None
    except (ValueError, RecursionError) as error:  # a number of 5,000 digits, 1,000 brackets
        raise UserError(f"{option} {path} is not TOML: {error}") from None


def overridden(settings: Model, changes: Mapping[str, Any], origin: str) -> Model:
    """Settings, or an analysis plan, with the tables of a TOML file laid over them.

    Raises:
        UserError: an unknown key, or a value that is not allowed; says which and where it comes from.
    """
    merged = settings.model_dump()
    _require_known(changes, merged, "", origin)
    for section, values in changes.items():
        if isinstance(values, Mapping) and isinstance(merged[section], dict):
            _require_known(values, merged[section], f"{section}.", origin)
            merged[section] |= values
        else:
            merged[section] = values
    return _validated(type(settings), merged, origin)


def _require_known(asked: Iterable[str], known: Iterable[str], prefix: str, origin: str) -> None:
    """UserError that names the first key which is not known, and the nearest one that is."""
    names = [f"{prefix}{key}" for key in known]
    for name in (f"{prefix}{key}" for key in asked):
        if name not in names:
            raise UserError(f"{origin}: unknown setting '{name}'{nearest(name, names)}. Known: {', '.join(names)}")


def _validated(model: type[Model], values: Mapping[str, Any], origin: str) -> Model:
    """A configuration made of these values; UserError that names the first one that is not allowed."""
    try:
        return model.model_validate(values)
    except pydantic.ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        if first["type"] == "missing":
            raise UserError(f"{origin}: {where} is missing") from None
        raise UserError(f"{origin}: {where} = {first['input']!r} is not allowed: {first['msg']}") from None
