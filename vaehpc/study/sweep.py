"""Sweeps: the arms of a study multiplied by values of one setting."""

from __future__ import annotations

import math
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Any

from vaehpc.command import UserError, nearest
from vaehpc.schema.config import ArmConfig, SweptConfig
from vaehpc.study.presets import Arm, Settings

Value = bool | int | float | str | None

SETTINGS = [f"{section}.{key}" for section, values in Settings() for key in type(values).model_fields]
SHORT = {"learning_rate": "lr", "batch_size": "batch", "kl_weight": "fact"}
"""How names of arms have a setting; others as they are, without '_'."""


@dataclass(frozen=True)
class Sweep:
    """One setting and the values that it takes."""

    setting: str
    """Such as 'train.learning_rate'."""
    values: tuple[Value, ...]
    origin: str
    """What asked for it, for messages."""

    def arms(self, bases: Mapping[str, Arm]) -> dict[str, Arm]:
        """Each arm once for each value; an AE is one for all values of what only a VAE has.

        Raises:
            UserError: an arm says the setting itself, or none has it.
        """
        section, key = self.setting.split(".")
        multiplied = {name for name, arm in bases.items() if arm.kind == "vae" or section != "vae"}
        if not multiplied:
            raise UserError(f"{self.origin}: {self.setting} is a VAE's, and the arms are AEs: {', '.join(bases)}")
        arms: dict[str, Arm] = {}
        for name, arm in bases.items():
            if name not in multiplied:
                arms[name] = arm
                continue
            if key in (own := getattr(arm, section)):
                raise UserError(
                    f"{self.origin}: arm '{name}' has a {self.setting} of its own, {own[key]}: leave it out, or sweep"
                    " the arm that it is made of"
                )
            for value in self.values:
                changes: dict[str, Any] = {
                    section: {**own, key: value},
                    "question": f"{arm.question}; {self.setting} {_shown(value)}",
                    "start_from": self.name(arm.start_from, value) if arm.start_from in multiplied else arm.start_from,
                    "swept": SweptConfig(base=name, setting=self.setting),
                }
                arms[self.name(name, value)] = replace(arm, **changes)
        return arms

    def __str__(self) -> str:
        """As the command line has it."""
        return f"{self.setting}={','.join(map(_shown, self.values))}"

    def name(self, base: str | None, value: Value) -> str:
        """'ae-lr12e-3', of ae at a learning rate of 0.012."""
        key = self.setting.split(".")[1]
        return f"{base}-{SHORT.get(key, key.replace('_', ''))}{word(value)}"


def asked_sweep(asked: str, origin: str) -> Sweep:
    """A sweep in words: 'train.learning_rate=6e-3,1e-2'.

    Raises:
        UserError: it is none, no arm has such a setting, or a value is there twice.
    """
    setting, _, words = (part.strip() for part in asked.partition("="))
    if setting not in SETTINGS:
        raise UserError(
            f"{origin}: unknown setting '{setting}'{nearest(setting, SETTINGS)}. Known: {', '.join(SETTINGS)}"
        )
    values = tuple(_value(each.strip()) for each in words.split(","))
    if infinite := [value for value in values if isinstance(value, float) and not math.isfinite(value)]:
        raise UserError(f"{origin} {asked}: {infinite[0]} is no value of a setting; give finite numbers")
    if "" in values:
        raise UserError(f"{origin} {asked}: a sweep is a setting and its values, train.learning_rate=6e-3,1e-2,2e-2")
    names = [word(value) for value in values]
    if twice := [value for value, name in zip(values, names, strict=True) if names.count(name) > 1]:
        raise UserError(f"{origin} {asked}: {_shown(twice[0])} is there twice")
    return Sweep(setting, values, origin)


def sweep_of(arms: Mapping[str, ArmConfig]) -> Sweep | None:
    """The sweep that the arms of a study come from; None: from none, or from several."""
    places = [arm.place for arm in arms.values() if arm.place is not None]
    settings = {setting for setting, _ in places}
    values = tuple(dict.fromkeys(value for _, value in places))
    return Sweep(settings.pop(), values, "study") if len(settings) == 1 else None


def sweep_of_table(table: Mapping[str, Any], origin: str) -> str:
    """[sweep] of a TOML file as the command line has it: one setting, its name dotted or quoted, and a list of values.

    Raises:
        UserError: it is something else.
    """
    flat: dict[str, Any] = {}
    for key, value in table.items():
        flat |= (
            {f"{key}.{name}": of_name for name, of_name in value.items()} if isinstance(value, dict) else {key: value}
        )
    (setting, values), *more = flat.items() if flat else (("", None),)
    if (
        more
        or not isinstance(values, list)
        or not all(isinstance(value, Value) and "," not in str(value) for value in values)
    ):
        raise UserError(
            f"{origin}: [sweep] takes one setting and a list of its values, train.learning_rate = [6e-3, 1e-2]; it has"
            f" {', '.join(f'{name} = {value!r}' for name, value in flat.items()) or 'none'}"
        )
    return str(Sweep(setting, tuple(values), origin))


def word(value: Value) -> str:
    """A value in the name of an arm, without a point: 0.012 is '12e-3', 0.01 '1e-2', 64 '64'."""
    if isinstance(value, bool) or value is None or isinstance(value, str):
        return re.sub("[^a-z0-9]+", "-", _shown(value).lower())
    _, digits, exponent = Decimal(str(value)).normalize().as_tuple()
    mantissa = int("".join(map(str, digits)))
    return f"{mantissa}e{exponent}" if int(exponent) < 0 else str(mantissa * 10 ** int(exponent))


def _shown(value: Value) -> str:
    """As the command line has it."""
    if isinstance(value, bool) or value is None:
        return str(value).lower()
    return f"{value:g}" if isinstance(value, float) and float(f"{value:g}") == value else str(value)


def _value(said: str) -> Value:
    """A number or a truth value as TOML has them, 'none', or a word."""
    if said == "none":
        return None
    try:
        value = tomllib.loads(f"value = {said}")["value"]
    except (ValueError, RecursionError):  # also of thousands of digits or brackets
        return said
    return value if isinstance(value, Value) else said
