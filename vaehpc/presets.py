"""Named arms and studies, and how a study is put together from a preset, a TOML file and the command line."""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import pydantic

from vaehpc.config import ArmConfig, ArmKind, Frozen, ModelConfig, PlanConfig, TrainConfig, VaeConfig
from vaehpc.files import UserError, declaration

PresetName = Literal["demo", "article"]


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

    def configured(self, name: str, settings: Settings) -> ArmConfig:
        """The arm as a study trains it."""
        return ArmConfig(
            name=name,
            model=settings.model.model_copy(update=dict(self.model)),
            vae=None if self.kind == "ae" else settings.vae.model_copy(update=dict(self.vae)),
            train=settings.train,
        )


ARMS: Mapping[str, Arm] = {
    "ae": Arm("ae", "the radii that a net without any noise finds; control of the arms with BatchNormalization"),
    "ae-nobn": Arm("ae", "the article's own AE, without BatchNormalization", model={"batch_norm": False}),
    "vae-tiny": Arm("vae", "the article's VAE with a tiny KL loss: how often does it diverge?"),
    "vae-tiny-nobn": Arm("vae", "the same without BatchNormalization, as `ae-nobn`", model={"batch_norm": False}),
    "vae-eps5": Arm("vae", "the article's remedy: |epsilon| limited to 5", vae={"epsilon_limit": 5.0}),
    "vae-eps2": Arm("vae", "a limit that noise does meet: |epsilon| <= 2", vae={"epsilon_limit": 2.0}),
    "vae-eps0": Arm("vae", "no noise at all: epsilon times 0", vae={"epsilon_factor": 0.0}),
}
"""Arms that a study can name."""


@dataclass(frozen=True)
class Preset:
    """A named study: `settings` and arms, what to expect and how long it takes."""

    settings: Settings
    arms: tuple[str, ...]
    num_seeds: int
    expectation: str


PRESETS: Mapping[PresetName, Preset] = {
    "demo": Preset(
        settings=Settings(
            model=ModelConfig(z_dim=64, filters=(8, 16, 32, 64)),
            train=TrainConfig(epochs=8, batch_size=32, learning_rate=2e-3, eval_images=1200),
        ),
        arms=("ae", "vae-tiny", "vae-eps5"),
        num_seeds=4,
        expectation="4 seeds x 3 arms on built-in faces of 48 x 48: the machinery, in a few minutes of two cores",
    ),
    "article": Preset(
        settings=Settings(),
        arms=("ae", "vae-tiny", "vae-eps5", "ae-nobn"),
        num_seeds=16,
        expectation="CelebA at 96 x 96, 24 epochs of 1,329 steps: 48 minutes a run on the article's GPU",
    ),
}

DEMO_IMAGES = 1430
"""Built-in faces of the demo; 1,199 of them train."""
DEMO_IMAGE_SIZE = 48


def analysis_plan() -> PlanConfig:
    """analysis/plan.toml."""
    return PlanConfig.model_validate(tomllib.loads(declaration("analysis/plan.toml")))


def configured_arms(names: Sequence[str], settings: Settings) -> dict[str, ArmConfig]:
    """Arms by name, in the order asked for.

    Raises:
        UserError: no arm has that name.
    """
    return {name: _arm(name).configured(name, settings) for name in names}


def _arm(name: str) -> Arm:
    if name not in ARMS:
        raise UserError(f"unknown arm '{name}'{nearest(name, ARMS)}. Arms: {', '.join(ARMS)}")
    return ARMS[name]


def overridden(settings: Settings, changes: Mapping[str, Any], origin: str) -> Settings:
    """Settings with the tables of a TOML file laid over them.

    Raises:
        UserError: an unknown key, or a value that is not allowed; says which and where it comes from.
    """
    merged = settings.model_dump()
    for section, values in changes.items():
        if section not in merged or not isinstance(values, dict):
            raise UserError(
                f"{origin}: unknown setting '{section}'{nearest(section, merged)}. Tables: {', '.join(merged)}"
            )
        for key, value in values.items():
            if key not in merged[section]:
                known = [f"{section}.{name}" for name in merged[section]]
                asked = f"{section}.{key}"
                raise UserError(
                    f"{origin}: unknown setting '{asked}'{nearest(asked, known)}. Known: {', '.join(known)}"
                )
            merged[section][key] = value
    try:
        return Settings.model_validate(merged)
    except pydantic.ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise UserError(f"{origin}: {where} = {first['input']!r} is not allowed: {first['msg']}") from None


def nearest(asked: str, known: Iterable[str]) -> str:
    """' (did you mean ...?)' where something known is spelled nearly so, else nothing."""
    found = difflib.get_close_matches(asked, list(known), n=1)
    return f" (did you mean '{found[0]}'?)" if found else ""
