"""Named arms differ in what they say and nothing else; a file's own arms are checked as strictly as settings are."""

import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from vaehpc.command import UserError
from vaehpc.schema.config import ArmConfig, SpikeConfig, control_of
from vaehpc.schema.frozen import STORED, Frozen
from vaehpc.schema.plan import PlanConfig
from vaehpc.study.presets import ARMS, PRESETS, Settings, analysis_plan, configured_arms, named_arms, overridden
from vaehpc.study.study import differences

ALL = configured_arms(ARMS, Settings())
OWN_AE = [name for name in ARMS if f"ae-{name.removeprefix('vae-')}" in ARMS and name != "vae-clip"]
"""VAEs with an AE of their own, as clipped gradients are a remedy."""


MAP = "{name = 'a', exaggeration = 12, early_iterations = 1, iterations = 1"


def defaults(part: Frozen) -> Iterator[tuple[str, object, object]]:
    """Name, default and value of what may be left out of the plan's file."""
    for name, field in type(part).model_fields.items():
        value = getattr(part, name)
        if isinstance(value, Frozen):
            yield from defaults(value)
        elif not field.is_required():
            yield name, field.default, value


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[radius]\nshells = [[14.0, 12.0]]", "radius.shells.0 = [14.0, 12.0]"),
        ("[census]\nlog_var_interval = [5.0, -3.0]", "census.log_var_interval = [5.0, -3.0]"),
        ("[course]\nbase_rank = 4", "base_rank <= min_base_probes <= base_probes does not hold"),
        ("[course]\nbase_probes = 2", "base_rank <= min_base_probes <= base_probes does not hold"),
        ("[clusters]\nnum_clusters = [2, 8, 4]", "clusters.num_clusters = [2, 8, 4]"),
        ("[contrasts]\nlooks = [8, 8]", "contrasts.looks = [8, 8]"),
        ("[dimension]\nnum_images = 2", "dimension.num_images = 2"),
        ("[attributes]\nnum_images = 3", "attributes.num_images = 3"),
        ("[tsne]\nsizes = [1]", "tsne.sizes.0 = 1"),
        (f"[tsne]\nsettings = [{MAP}, perplexity = 0.5}}]", "tsne.settings.0.perplexity = 0.5"),
        (f"[tsne]\nsettings = [{MAP}, perplexity = 5, pca_components = 1}}]", "tsne.settings.0.pca_components = 1"),
        (f"[tsne]\nsettings = [{MAP}, perplexity = 5}}, {MAP}, perplexity = 9}}]", "their names must differ"),
    ],
)
def test_a_plan_that_no_statistics_could_follow_is_refused(text: str, message: str) -> None:
    """Before anything is trained under it; a study that has it is read."""
    with pytest.raises(UserError, match=r"^--plan mine\.toml: ") as refused:
        overridden(analysis_plan(), tomllib.loads(text), "--plan mine.toml")
    assert message in str(refused.value)
    assert "is not allowed" in str(refused.value)
    values = analysis_plan().model_dump()
    for section, changes in tomllib.loads(text).items():
        values[section] |= changes
    PlanConfig.model_validate(values, context=STORED)


def test_defaults_of_the_plan_are_those_of_its_file() -> None:
    found = list(defaults(analysis_plan()))
    assert "looks" in [name for name, _, _ in found]
    assert [name for name, default, value in found if default != value] == []


def said_of(name: str) -> dict[str, object]:
    """What an arm of the table says about itself, as 'train.epochs': value."""
    arm = ARMS[name]
    sections = {"model": arm.model, "vae": arm.vae, "train": arm.train}
    flat = {f"{section}.{key}": value for section, values in sections.items() for key, value in values.items()}
    spike = {"spike": SpikeConfig.model_validate(arm.spike)} if arm.spike else {}
    return flat | spike | ({"start_from": arm.start_from} if arm.start_from else {})


def found_of(name: str) -> dict[str, object]:
    """In what the configured arm differs from `ae` or `vae-tiny`."""
    base = ALL["ae" if ARMS[name].kind == "ae" else "vae-tiny"]
    return {key: row["arm"] for key, row in differences({"base": base, "arm": ALL[name]}).items()}


@pytest.mark.parametrize("name", ARMS)
def test_an_arm_differs_from_its_base_in_what_it_says_only(name: str) -> None:
    usual = {f"{section}.{key}": value for section, values in Settings() for key, value in values}
    assert found_of(name) == {key: value for key, value in said_of(name).items() if usual.get(key, ...) != value}
    assert (ALL[name].name, ALL[name].kind) == (name, ARMS[name].kind)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("vae-tiny-nobn", {"model.batch_norm": False}),
        ("vae-eps5", {"vae.epsilon_limit": 5.0}),
        ("vae-eps2", {"vae.epsilon_limit": 2.0}),
        ("vae-eps1", {"vae.epsilon_limit": 1.0}),
        ("vae-eps-anyscale", {"vae.epsilon_limit": 5.0, "vae.epsilon_limit_on": "tensor"}),
        ("vae-eps0", {"vae.epsilon_factor": 0.0}),
        ("logvar-clamp", {"vae.log_var_limit": 5.0}),
        ("vae-normal", {"model.initializer": "normal"}),
        ("vae-mu-tenth", {"model.mu_scale": 0.1}),
        ("vae-lr-2e-3", {"train.learning_rate": 0.002}),
        ("vae-beta2-95", {"train.beta_2": 0.95}),
        ("vae-beta1-50", {"train.beta_1": 0.5}),
        ("vae-beta1-0", {"train.beta_1": 0.0}),
        ("ae-adam-eps-1e-3", {"train.adam_epsilon": 0.001}),
        ("vae-decay", {"train.weight_decay": 0.01}),
        ("ae-batch-32", {"train.batch_size": 32}),
        ("vae-batch-512", {"train.batch_size": 512}),
        ("ae-inference", {"model.batch_norm": "inference"}),
        ("ae-float16", {"train.precision": "mixed_float16"}),
        ("ae-z512", {"model.z_dim": 512}),
        ("vae-fact-1e-3", {"vae.kl_weight": 0.001}),
        ("spike-logvar", {"spike": SpikeConfig(kind="log_var", strength=100.0, steps_before_end=150)}),
        ("spike-gradient", {"spike": SpikeConfig(kind="gradient", strength=1000.0, steps_before_end=150)}),
        ("vae-from-ae", {"start_from": "ae"}),
    ],
)
def test_an_arm_is_what_its_name_says(name: str, expected: dict[str, object]) -> None:
    assert found_of(name) == expected


def test_only_names_of_the_articles_own_values_repeat_their_base() -> None:
    same = [name for name in ARMS if name not in ("ae", "vae-tiny") and not found_of(name)]
    assert same == ["ae-float32", "vae-float32", "ae-z256", "vae-z256"]


@pytest.mark.parametrize("preset", PRESETS)
def test_every_arm_has_its_control(preset: str) -> None:
    arms = configured_arms(ARMS, PRESETS[preset].settings)  # type: ignore[index]
    assert [name for name, arm in arms.items() if control_of(arm, arms) is None] == []


def test_an_arm_that_changes_what_an_ae_has_finds_its_own_ae() -> None:
    assert len(OWN_AE) == 22
    alone = [name for name in ARMS if ARMS[name].kind == "vae" and (ARMS[name].model or ARMS[name].train)]
    assert set(alone) - {"vae-tiny-nobn", "clipnorm", "vae-clip"} == set(OWN_AE)
    for vae in OWN_AE:
        ae = f"ae-{vae.removeprefix('vae-')}"
        assert set(differences({ae: ALL[ae], vae: ALL[vae]})) == {"kind"}
        assert ALL[ae].is_control_of(ALL[vae])
        if vae not in ("vae-float32", "vae-z256"):
            assert not ALL["ae"].is_control_of(ALL[vae])
    assert control_of(ALL["vae-tiny-nobn"], ALL) == "ae-nobn"


def test_arms_follow_the_study_in_all_other_settings() -> None:
    settings = PRESETS["demo"].settings
    arm = ARMS["vae-bfloat16"].configured("vae-bfloat16", settings)
    assert arm.model == settings.model
    assert arm.train == settings.train.model_copy(update={"precision": "mixed_bfloat16"})


def test_every_arm_is_in_the_reference() -> None:
    reference = (Path(__file__).parents[2] / "vaehpc/README.md").read_text()
    section = reference.partition("## Arms")[2].partition("\n## ")[0]
    first, last = section.index("`vae-he`"), section.index("`vae-z512`")
    named = set(re.findall(r"`([a-z0-9-]+)`", section))
    assert [name for name in ARMS if name not in named and f"vae-{name.removeprefix('ae-')}" not in OWN_AE] == []
    assert all(first <= section.index(f"`{name}`") <= last for name in OWN_AE)


# Arms of a file


def own_arms(tmp_path: Path, text: str, *names: str) -> dict[str, ArmConfig]:
    """The arms of a file, after those named before it."""
    (tmp_path / "my_arms.toml").write_text(text)
    return configured_arms(named_arms([*names, str(tmp_path / "my_arms.toml")]), Settings())


def test_a_file_adds_its_arms_in_order_and_one_may_be_the_base_of_a_later_one(tmp_path: Path) -> None:
    arms = own_arms(
        tmp_path,
        """
        [half]
        base = "vae-eps5"
        question = "is half enough?"
        [half.model]
        filters = [4, 4, 8, 8]
        [half.train]
        precision = "mixed_bfloat16"
        [half-clipped]
        base = "half"
        [half-clipped.vae]
        epsilon_limit = 2
        [half-clipped.train]
        clipnorm = 500
        [late-spike]
        base = "spike-gradient"
        [late-spike.spike]
        steps_before_end = 20
        """,
        "ae",
    )
    assert list(arms) == ["ae", "half", "half-clipped", "late-spike"]
    base = ALL["vae-eps5"]
    half = {"half": arms["half"], "base": base}
    assert {key: row["half"] for key, row in differences(half).items()} == {
        "model.filters": (4, 4, 8, 8),
        "train.precision": "mixed_bfloat16",
    }
    clipped = {"clipped": arms["half-clipped"], "half": arms["half"]}
    assert {key: row["clipped"] for key, row in differences(clipped).items()} == {
        "vae.epsilon_limit": 2.0,
        "train.clipnorm": 500.0,
    }
    assert arms["late-spike"].spike == SpikeConfig(kind="gradient", strength=1000.0, steps_before_end=20)
    assert named_arms([str(tmp_path / "my_arms.toml")])["half"].question == "is half enough?"


def test_a_files_arm_may_start_from_an_ae(tmp_path: Path) -> None:
    arms = own_arms(tmp_path, '[warm]\nbase = "vae-from-ae"\n[warm.train]\nlearning_rate = 1e-4')
    assert arms["warm"].start_from == "ae"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[mine]", "arm 'mine': base is missing"),
        ("[mine]\nbase = 'vae-tinny'", "unknown arm 'vae-tinny' (did you mean 'vae-tiny'?)"),
        ("[mine]\nbase = 'other'\n[other]\nbase = 'ae'", "unknown arm 'other'"),
        (
            "[mine]\nbase = 'ae'\n[mine.trian]\nepochs = 3",
            "mine': unknown setting 'trian' (did you mean 'train'?)",
        ),
        (
            "[mine]\nbase = 'ae'\n[mine.train]\nepoch = 3",
            "setting 'train.epoch' (did you mean 'train.epochs'?)",
        ),
        ("[mine]\nbase = 'ae'\n[mine.train]\nepochs = 0", "arm 'mine': train.epochs = 0 is not allowed"),
        ("[mine]\nbase = 'ae'\n[mine.model]\nz_dim = 1", "arm 'mine': model.z_dim = 1 is not allowed"),
        ("[mine]\nbase = 'ae'\ntrain = 3", "arm 'mine': train = 3 is not allowed"),
        ("[mine]\nbase = 'ae'\n[mine.vae]\nepsilon_limit = 5", "arm 'mine' is an AE"),
        ("[mine]\nbase = 'ae'\n[mine.spike]\nkind = 'log_var'", "arm 'mine' is an AE"),
        ("[mine]\nbase = 'ae'\n[mine.spike]\nkind = 'gradient'", "arm 'mine': spike.strength is missing"),
        (
            "[mine]\nbase = 'spike-logvar'\n[mine.spike]\nstrenght = 3",
            "unknown setting 'spike.strenght' (did you mean 'spike.strength'?)",
        ),
        (
            "[mine]\nbase = 'spike-logvar'\n[mine.spike]\nkind = 'loss'",
            "mine': spike.kind = 'loss' is not allowed",
        ),
        ("[vae-eps5]\nbase = 'ae'", "arm 'vae-eps5' is there already"),
        ("[My_Arm]\nbase = 'ae'", "name = 'My_Arm' is not allowed"),
        ("mine = 'ae'", "'mine' is not an arm"),
        ("", "holds no arm"),
        ("[mine", "is not TOML"),
    ],
)
def test_a_wrong_file_names_arm_and_key(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(UserError) as refused:
        own_arms(tmp_path, text)
    assert message in str(refused.value)
    assert "my_arms.toml" in str(refused.value)


def test_two_files_cannot_define_the_same_arm(tmp_path: Path) -> None:
    for name in ("one.toml", "two.toml"):
        (tmp_path / name).write_text("[mine]\nbase = 'ae'")
    with pytest.raises(UserError, match=r"two\.toml: arm 'mine' is there already"):
        named_arms([str(tmp_path / "one.toml"), str(tmp_path / "two.toml")])


def test_a_missing_file_is_named() -> None:
    with pytest.raises(UserError, match=r"--arms none\.toml: No such file"):
        named_arms(["ae", "none.toml"])
