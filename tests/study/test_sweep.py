"""Arms multiplied by the values of a setting: their names, what differs in them, their controls and contrasts."""

from pathlib import Path

import pytest

from tests.examples import data_config
from vaehpc.command import UserError
from vaehpc.schema.config import ArmConfig, RunConfig, control_of
from vaehpc.stats.planned import planned_contrasts
from vaehpc.study.presets import (
    PRESETS,
    Settings,
    analysis_plan,
    configured_arms,
    named_arms,
    preset_plan,
)
from vaehpc.study.study import planned_study, require_sources
from vaehpc.study.sweep import asked_sweep, sweep_of, sweep_of_table, word


def swept(asked: str, *bases: str) -> dict[str, ArmConfig]:
    return configured_arms(asked_sweep(asked, "--sweep").arms(named_arms(bases)), PRESETS["demo"].settings)


@pytest.mark.parametrize(
    ("value", "name"),
    [
        (0.01, "1e-2"),
        (0.012, "12e-3"),
        (5e-05, "5e-5"),
        (0.5, "5e-1"),
        (64, "64"),
        (2000.0, "2000"),
        (0, "0"),
        (None, "none"),
        (True, "true"),
        ("mixed_bfloat16", "mixed-bfloat16"),
    ],
)
def test_a_value_in_a_name_has_no_point(value: bool | int | float | str | None, name: str) -> None:
    assert word(value) == name


def test_each_arm_stands_once_for_each_value_and_differs_in_nothing_else() -> None:
    arms = swept("train.learning_rate=6e-3,0.012", "ae", "vae-tiny")
    assert list(arms) == ["ae-lr6e-3", "ae-lr12e-3", "vae-tiny-lr6e-3", "vae-tiny-lr12e-3"]
    plain = configured_arms(named_arms(("ae", "vae-tiny")), PRESETS["demo"].settings)
    for name, arm in arms.items():
        rate = 6e-3 if name.endswith("6e-3") else 0.012
        base = plain[arm.base]
        assert arm.place == ("train.learning_rate", rate)
        assert arm.settings == base.settings | {"train.learning_rate": rate}
    assert str(sweep_of(arms)) == "train.learning_rate=0.006,0.012"
    assert sweep_of(plain) is None


def test_each_value_keeps_its_own_control_also_where_the_plan_names_one() -> None:
    arms = swept("train.learning_rate=6e-3,0.012", "ae", "ae-clip", "vae-tiny", "vae-clip")
    for rate in ("6e-3", "12e-3"):
        assert control_of(arms[f"vae-tiny-lr{rate}"], arms) == f"ae-lr{rate}"
        for base in ("ae", "ae-clip", "vae-tiny", "vae-clip"):
            assert control_of(arms[f"{base}-lr{rate}"], arms, "ae-clip") == f"ae-clip-lr{rate}"
    assert preset_plan(PRESETS["demo"], arms).classes.control == "ae-clip"
    pairs = swept("train.learning_rate=6e-3,0.012", "ae", "vae-tiny")
    assert preset_plan(PRESETS["demo"], pairs).classes.control == ""


def test_the_plans_reference_is_that_of_the_same_value() -> None:
    arms = swept("train.learning_rate=6e-3,0.012", "ae", "vae-tiny", "vae-eps2")
    found = [each.name for each in planned_contrasts(arms, analysis_plan())]
    assert found == [
        "vae-tiny-lr6e-3, ae-lr6e-3",
        "vae-tiny-lr12e-3, ae-lr12e-3",
        "vae-eps2-lr6e-3, ae-lr6e-3",
        "vae-eps2-lr12e-3, ae-lr12e-3",
        "vae-eps2-lr6e-3, vae-tiny-lr6e-3",
        "vae-eps2-lr12e-3, vae-tiny-lr12e-3",
    ]


def test_an_ae_stands_once_beside_a_sweep_of_what_only_a_vae_has() -> None:
    arms = swept("vae.epsilon_limit=1,2,none", "ae", "vae-tiny")
    assert list(arms) == ["ae", "vae-tiny-epsilonlimit1", "vae-tiny-epsilonlimit2", "vae-tiny-epsilonlimitnone"]
    assert [control_of(arm, arms) for arm in arms.values()] == ["ae"] * 4
    limits = [arm.vae.epsilon_limit for arm in arms.values() if arm.vae is not None]
    assert limits == [1, 2, None]


def test_an_arm_starts_from_the_source_of_its_own_value() -> None:
    arms = swept("model.z_dim=8,16", "ae", "vae-from-ae")
    require_sources(arms)
    assert arms["vae-from-ae-zdim16"].start_from == "ae-zdim16"


def test_runs_of_a_sweep_draw_the_streams_of_their_seeds() -> None:
    def runs(arms: dict[str, ArmConfig]) -> list[RunConfig]:
        return planned_study("s", "demo", data_config(), arms, (3,)).runs()

    (one, other), (plain,) = (
        runs(swept("train.learning_rate=6e-3,0.012", "ae")),
        runs(configured_arms(named_arms(("ae",)), Settings())),
    )
    for stream in ("initialisation", "shuffling", "noise"):
        keys = {tuple(run.key(stream, 5).generate_state(2)) for run in (one, other, plain)}
        assert len(keys) == 1
    assert one.identity != other.identity
    alone = one.model_copy(update={"arm": one.arm.model_copy(update={"swept": None})})
    assert one.identity == alone.identity


def test_any_setting_that_an_arm_has_can_be_swept() -> None:
    for setting, values in (
        ("train.beta_1", (0.8, 0.95)),
        ("train.adam_epsilon", (1e-4, 1e-3)),
        ("train.weight_decay", (1e-3, 0.01)),
        ("train.batch_size", (4, 16)),
        ("model.batch_norm", (True, "inference")),
    ):
        arms = swept(f"{setting}={','.join(str(value).lower() for value in values)}", "ae", "vae-tiny")
        assert [arm.settings[setting] for arm in arms.values()] == [*values] * 2
        assert [control_of(arm, arms) for arm in arms.values()] == [*list(arms)[:2]] * 2


@pytest.mark.parametrize(
    ("asked", "bases", "message"),
    [
        ("train.learning_rat=1,2", ("ae",), "did you mean 'train.learning_rate'"),
        ("learning_rate=1,2", ("ae",), "unknown setting 'learning_rate'"),
        ("train.learning_rate", ("ae",), "a sweep is a setting and its values"),
        ("train.learning_rate=1,,2", ("ae",), "a sweep is a setting and its values"),
        ("train.learning_rate=1e-2,0.01", ("ae",), "0.01 is there twice"),
        ("train.learning_rate=1e-2,inf", ("ae",), "inf is no value of a setting"),
        (f"train.learning_rate={'9' * 5000}", ("ae",), "train.learning_rate"),
        (f"train.learning_rate={'[' * 5000}", ("ae",), "train.learning_rate"),
        ("train.learning_rate=0.01,0", ("ae",), "train.learning_rate = 0 is not allowed"),
        ("train.learning_rate=0.01,fast", ("ae",), "train.learning_rate = 'fast' is not allowed"),
        ("train.clipnorm=1,2", ("ae", "ae-clip"), "arm 'ae-clip' has a train.clipnorm of its own, 100.0"),
        ("vae.epsilon_limit=1,2", ("ae", "ae-clip"), "is a VAE's, and the arms are AEs: ae, ae-clip"),
    ],
)
def test_what_is_no_sweep_is_refused(asked: str, bases: tuple[str, ...], message: str) -> None:
    with pytest.raises(UserError, match=message):
        swept(asked, *bases)


def test_a_table_of_toml_says_the_same() -> None:
    table = {"train": {"learning_rate": [6e-3, 0.012]}}
    assert sweep_of_table(table, "f") == sweep_of_table({"train.learning_rate": [6e-3, 0.012]}, "f")
    assert sweep_of_table(table, "f") == "train.learning_rate=0.006,0.012"
    assert sweep_of_table({"train.epochs": [10**400]}, "f") == f"train.epochs={10**400}"
    for wrong in ({}, {"train": {"learning_rate": 1}}, {"train": {"beta_2": [0.9], "epochs": [1]}}, {"a": [[1]]}):
        with pytest.raises(UserError, match=r"\[sweep\] takes one setting and a list of its values"):
            sweep_of_table(wrong, str(Path("f")))
