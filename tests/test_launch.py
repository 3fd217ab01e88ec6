"""The launch command's arguments: what is wrong is said at once, with exit code 2, and nothing is written."""

import io
import json
import os
import re
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console

import vaehpc.launch
from tests.examples import arm_config, data_config
from tests.slurm.clients import Clients
from vaehpc.command import UserError
from vaehpc.launch import made_on_nodes, main, parsed, say_what_it_can_show, show_arms, wanted_data
from vaehpc.schema.config import MAX_SEEDS, DataConfig, StudyConfig, control_of
from vaehpc.schema.data import Request
from vaehpc.schema.plan import PlanConfig, text_sha256, values_of
from vaehpc.schema.site import SiteConfig
from vaehpc.study.files import StudyDir, write_model
from vaehpc.study.presets import (
    ARMS,
    PRESETS,
    Settings,
    analysis_plan,
    asked_seeds,
    configured_arms,
    named_arms,
    plan_text,
    preset_plan,
)
from vaehpc.study.provenance import code_version, sources
from vaehpc.study.sites import resolved
from vaehpc.study.study import in_image, planned_study


@pytest.fixture(autouse=True)
def empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A new user's folder, without settings of this machine."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("VAEHPC_DATA", raising=False)
    monkeypatch.setenv("PATH", "")  # no Slurm, whatever this machine has
    return tmp_path


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """The message of a launch that exits with 2."""
    try:
        code = main(arguments)
    except SystemExit as exit_:  # the argument parser's own
        code = exit_.code
    message = capsys.readouterr().err
    assert code == 2
    assert "Traceback" not in message
    assert not Path("runs").exists()
    return " ".join(message.replace("│", " ").split())


def test_wrong_arguments_name_what_is_right(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert "--train.epochs" in refused(capsys, "--train.epoch", "3")
    assert "greater than 0" in refused(capsys, "--train.epochs", "0")
    assert "did you mean 'vae-tiny'?" in refused(capsys, "--arms", "vae-tinny", "--dry-run")
    assert "1 to 1,000,000 seeds are possible" in refused(capsys, "--seeds", "0", "--dry-run")
    assert "a name takes letters" in refused(capsys, "--study", "../demo", "--dry-run")
    assert "demo" in refused(capsys, "--preset", "dmeo")
    assert "needs data" in refused(capsys, "--preset", "article")
    assert "on Slurm a study needs data" in refused(capsys, "--executor", "slurm")
    (tmp_path / "site.toml").write_text('executor = "slurm"')
    site = ("--site", str(tmp_path / "site.toml"))
    assert "is for executor slurm, not for --executor local" in refused(capsys, *site, "--executor", "local")
    assert f"{tmp_path / 'none'} holds no data set" in refused(capsys, "--data", str(tmp_path / "none"))
    for where in ((), site):
        assert "celeba.zip does not exist" in refused(capsys, *where, "--celeba", str(tmp_path / "celeba.zip"))


@pytest.mark.parametrize(
    ("seeds", "found"),
    [
        (["3"], (0, 1, 2)),
        (["5", "9", "20:23"], (5, 9, 20, 21, 22)),
        (["20:22", "5"], (5, 20, 21)),
        (["7:8"], (7,)),
        ([str(MAX_SEEDS - 1), "0"], (0, MAX_SEEDS - 1)),
    ],
)
def test_seeds_of_ones_own(seeds: list[str], found: tuple[int, ...]) -> None:
    assert asked_seeds(seeds, "--seeds") == found
    config = planned_study("s", "demo", data_config(), {"ae": arm_config("ae")}, found, root_seed=3)
    assert config.seeds == config.first_seeds == {"ae": found}
    assert {run.root_seed for run in config.runs()} == {3}


@pytest.mark.parametrize(
    ("seeds", "message"),
    [
        (["0"], "1 to 1,000,000 seeds are possible"),
        (["5:5"], "1 to 1,000,000 seeds are possible"),
        (["9:5", "3:3"], "1 to 1,000,000 seeds are possible"),
        (["1000000", "3"], "1 to 1,000,000 seeds are possible, 0 to 999,999"),
        (["5", "9", "3:6"], "--seeds 5 9 3:6: seed 5 is there twice"),
        (["-3"], "seeds are numbers or ranges A:B"),
        (["1e3"], "--seeds 1e3: seeds are numbers or ranges A:B, which is A to B - 1"),
        (["1:2:3"], "seeds are numbers or ranges A:B"),
        (["1" + "0" * 30], "seeds are numbers or ranges A:B"),
    ],
)
def test_wrong_seeds_are_refused(seeds: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        asked_seeds(seeds, "--seeds")


def test_a_dry_run_names_seeds_and_root(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--arms", "ae", "--seeds", "5", "9", "20:30", "--root-seed", "7", "--dry-run"]) == 0
    said = capsys.readouterr().out
    assert "1 arms x 12 seeds = 12 runs" in said
    assert "Seeds 5, 9, 20 to 29 of root seed 7." in said
    Path("study.toml").write_text("seeds = [5, '20:22']\nroot_seed = 8")
    assert main(["--arms", "ae", "--config", "study.toml", "--dry-run"]) == 0
    assert "Seeds 5, 20, 21 of root seed 8." in capsys.readouterr().out
    assert "--root-seed -1: it is a number from 0" in refused(capsys, "--root-seed", "-1", "--dry-run")


def test_a_sweep_multiplies_the_arms(capsys: pytest.CaptureFixture[str]) -> None:
    asked = ["--arms", "ae", "vae-tiny", "--seeds", "2", "--dry-run"]
    assert main([*asked, "--sweep", "train.learning_rate=6e-3,1.2e-2"]) == 0
    said = capsys.readouterr().out
    assert "4 arms x 2 seeds = 8 runs" in said
    assert "vae-tiny-lr12e-3" in said
    Path("study.toml").write_text("[sweep]\ntrain.learning_rate = [6e-3, 1.2e-2]\n[train]\nbatch_size = 16")
    assert main([*asked, "--config", "study.toml"]) == 0
    assert "4 arms x 2 seeds = 8 runs" in capsys.readouterr().out
    assert "--sweep: unknown setting 'learning'" in refused(capsys, *asked, "--sweep", "learning=1,2")
    Path("study.toml").write_text("[sweep]\ntrain.learning_rate = 6e-3")
    assert "[sweep] takes one setting and a list" in refused(capsys, *asked, "--config", "study.toml")


def test_crossed_streams_are_every_combination(capsys: pytest.CaptureFixture[str]) -> None:
    asked = ["--arms", "ae", "vae-tiny", "--dry-run", "--cross", "initialisation=4", "noise=2", "shuffling=3"]
    assert main(asked) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "1 arms x 12 seeds + 1 arms x 24 seeds = 36 runs" in said
    assert "--seeds and --cross given" in refused(capsys, *asked, "--seeds", "3")
    assert "unknown stream 'tsne'" in refused(capsys, "--cross", "tsne=4", "noise=2")


@pytest.mark.usefixtures("untrained")
def test_a_crossed_study_says_its_design(capsys: pytest.CaptureFixture[str], faces: DataConfig) -> None:
    asked = ["--data", faces.path, "--executor", "debug", "--arms", "ae", "vae-tiny"]
    assert main([*asked, "--cross", "initialisation=2", "noise=2"]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "2 x initialisation, 2 x noise: a run's seed has its level of" in said
    assert "so few levels can show no stream alone: p would be at least 1;" in said
    config = StudyDir(Path("runs/article")).config()
    assert config.cross == {"initialisation": 2, "noise": 2}
    assert config.seeds == {"ae": (0, 100), "vae-tiny": (0, 1, 100, 101)}
    run = StudyDir(Path("runs/article")).run("vae-tiny-seed101").config()
    assert run.levels == {"initialisation": 1, "shuffling": 0, "noise": 1}
    assert main([*asked, "--seeds", "2"]) == 2
    assert "study.cross" in capsys.readouterr().err


@pytest.mark.usefixtures("untrained")
def test_a_sweep_grows_by_a_value(faces: DataConfig) -> None:
    asked = ["--data", faces.path, "--executor", "debug", "--arms", "ae", "vae-tiny", "--seeds", "1", "--sweep"]
    assert main([*asked, "train.learning_rate=1e-3"]) == 0
    assert main([*asked, "train.learning_rate=1e-3,2e-3"]) == 0
    config = StudyDir(Path("runs/article")).config()
    assert list(config.arms) == ["ae-lr1e-3", "vae-tiny-lr1e-3", "ae-lr2e-3", "vae-tiny-lr2e-3"]
    assert [config.control_of(arm) for arm in config.arms] == ["ae-lr1e-3"] * 2 + ["ae-lr2e-3"] * 2


@pytest.mark.usefixtures("untrained")
def test_a_study_keeps_its_root_seed(capsys: pytest.CaptureFixture[str], faces: DataConfig) -> None:
    asked = ["--data", faces.path, "--executor", "debug", "--arms", "ae", "--seeds"]
    assert main([*asked, "4:5", "--root-seed", "7"]) == 0
    assert main([*asked, "2"]) == 0
    run = StudyDir(Path("runs/article")).run("ae-seed004").config()
    assert (run.seed, run.root_seed) == (4, 7)
    assert StudyDir(Path("runs/article")).config().seeds == {"ae": (0, 1, 4)}
    assert main([*asked, "2", "--root-seed", "8"]) == 2
    assert "study.root_seed: it has 7, asked for 8" in capsys.readouterr().err


def test_options_of_data_are_those_of_prepare() -> None:
    """Whatever the text of a refused preparation advises can be given to a launch."""
    options = "--celeba a.zip --first 5 --only-present --attributes a.csv --partition p.csv --split official --crop 140"
    asked = parsed([*options.split(), "--size", "64"])
    assert asked.preset == "article"
    data, request = wanted_data(asked)
    assert data.path == Path("data/celeba-64").absolute()
    assert request == Request(
        celeba=Path("a.zip").absolute(),
        first=5,
        only_present=True,
        attributes=Path("a.csv").absolute(),
        partition=Path("p.csv").absolute(),
        split="official",
        crop=140,
        size=64,
    )
    data, request = wanted_data(parsed(["--images", "my flowers.zip", "--out", "there/runs"]))
    assert (data.path, request) == (
        Path("there/data/my_flowers-96").absolute(),
        Request(images=Path("my flowers.zip").absolute()),
    )


def test_options_of_data_without_images_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert "goes with --celeba, --images or --synthetic" in refused(capsys, "--first", "5")
    assert "--first 0: Input should be greater than 0" in refused(capsys, "--first", "0", "--images", "none.zip")
    assert "none.zip does not exist" in refused(capsys, "--images", "none.zip")
    assert "--celeba and --images given" in refused(capsys, "--images", "none.zip", "--celeba", "none.zip")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("seeds = [5, 5]", "--config study.toml: seeds 5:6 5:6: seed 5 is there twice"),
        ("seeds = true", "seeds = True is not allowed; it takes a number or list"),
        ("seeds = [5.5]", "--config study.toml: seeds 5.5: seeds are numbers"),
        ("root_seed = 'a'", "root_seed = 'a' is not allowed; it takes a int"),
        ("[train]\nepoch = 3", "unknown setting 'train.epoch' (did you mean 'train.epochs'?)"),
        ("[train]\nepochs = 'many'", "train.epochs = 'many' is not allowed"),
        ("[trian]\nepochs = 3", "unknown setting 'trian' (did you mean 'train'?)"),
        ("seeds = 'four'", "seeds = 'four' is not allowed"),
        ("vae = 3", "vae = 3 is not allowed; it is a table: [vae]"),
        ("sweep = 'x'", "sweep = 'x' is not allowed; it is a table: [sweep]"),
        ("sseds = 4", "unknown setting 'sseds' (did you mean 'seeds'?)"),
        ("preset = 'dmeo'", "unknown preset 'dmeo' (did you mean 'demo'?)"),
        ("seeds 4", "is not TOML"),
        ("x = " + "[" * 10_000, "is not TOML"),
        ("seeds = " + "9" * 5_000, "is not TOML"),
        ("\ufeffseeds = 'four'", "seeds = 'four' is not allowed"),
        ("arms = [3]", "arms = [3] is not allowed; it takes names of arms"),
    ],
)
def test_a_wrong_toml_file_names_the_key(capsys: pytest.CaptureFixture[str], text: str, message: str) -> None:
    Path("study.toml").write_text(text)
    found = refused(capsys, "--config", "study.toml")
    assert message in found
    assert "study.toml" in found


def test_a_missing_toml_file_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert "none.toml" in refused(capsys, "--config", "none.toml")
    os.mkfifo("pipe.toml")
    assert "pipe.toml: it is a pipe or device" in refused(capsys, "--config", "pipe.toml")


def test_command_line_wins_over_file_and_file_over_preset() -> None:
    Path("study.toml").write_text("seeds = 7\narms = ['ae']\n[train]\nepochs = 5\nbatch_size = 8\n")
    asked = parsed(["--config", "study.toml", "--train.epochs", "6"])
    assert (asked.preset, asked.seeds, asked.arms) == ("demo", ("7",), ("ae",))
    assert (asked.settings.train.epochs, asked.settings.train.batch_size) == (6, 8)
    assert asked.settings.model == PRESETS["demo"].settings.model


def test_help_shows_the_defaults_that_data_take(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments, epochs in (("--help",), 24), (("--preset", "demo", "--help"), 6):
        with pytest.raises(SystemExit, match="0"):
            parsed(arguments)
        said = " ".join(capsys.readouterr().out.replace("│", " ").split())
        assert f"Passes over the training images. (default: {epochs})" in said


def test_preset_is_article_if_data_are_given(monkeypatch: pytest.MonkeyPatch) -> None:
    assert parsed([]).preset == "demo"
    assert parsed(["--data", "somewhere"]).preset == "article"
    assert parsed(["--preset", "demo", "--celeba", "somewhere"]).preset == "demo"
    monkeypatch.setenv("VAEHPC_DATA", "elsewhere")
    asked = parsed([])
    assert (asked.preset, asked.data) == ("article", Path("elsewhere"))


def test_dry_run_tells_the_plan_and_writes_nothing(
    capsys: pytest.CaptureFixture[str], faces: DataConfig, tmp_path: Path
) -> None:
    arguments = ["--data", faces.path, "--seeds", "3", "--arms", "ae", "vae-eps5", "--train.epochs", "5", "--dry-run"]
    assert main(arguments) == 0
    said = capsys.readouterr().out
    assert "2 arms x 3 seeds = 6 runs" in said
    assert "24 epochs of 1,329 steps" in said  # what the preset is without the changes
    assert "train: 6 of 6 runs" in said
    assert re.search(r"│ train.epochs\s+│ 5\s+│ 24\s+│", said)
    assert re.search(r"│ seeds\s+│ 0 to 2\s+│ 0 to 15\s+│", said)
    assert "To be trained: 6 runs, about " in said
    assert "Known from the article's 1,422 images/s on its GPU, of which a processor's core reaches an eighth" in said
    assert list(tmp_path.iterdir()) == []


# The plan


@pytest.fixture
def untrained(monkeypatch: pytest.MonkeyPatch) -> None:
    """Launches end where the training would begin."""
    monkeypatch.setattr(vaehpc.launch, "run_stage", lambda *_: None)
    monkeypatch.setattr(vaehpc.launch, "end_study", lambda *_: 0)


@pytest.mark.usefixtures("untrained")
@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[clases]\ncontrol = 'ae'", "unknown setting 'clases' (did you mean 'classes'?)"),
        ("[probe]\nevery_step = 10", "unknown setting 'probe.every_step' (did you mean 'probe.every_steps'?)"),
        ("[probe]\nevery_steps = 0", "probe.every_steps = 0 is not allowed: Input should be greater than 0"),
        ("probe = 3", "probe = 3 is not allowed"),
        ("level = 'high'", "level = 'high' is not allowed"),
        ("[classes]\ncontrol = 'ae-nbn'", "'ae-nbn' is no AE arm of the study (did you mean 'ae-nobn'?). AE arms: ae,"),
        ("[classes]\ncontrol = 'vae-tiny'", "classes.control = 'vae-tiny' is no AE arm of the study"),
        ("[classes]\ncontrol = 'ae-nobn'", "classes.control = 'ae-nobn' can be the control of no other arm"),
        (
            "[contrasts]\nreference = 'vae-eps'",
            "reference = 'vae-eps' is no arm of the study (did you mean 'vae-eps5'?). Arms: ae, ae-nobn",
        ),
        (
            "[contrasts]\nprimary = ['vae-tiny, ae', 'vae-eps, ae']",
            "names 'vae-eps, ae', which are not two arms of the study, or turned round (did you mean"
            " 'vae-eps5, ae'?). Contrasts: vae-tiny, ae; vae-eps5, ae; vae-eps5, vae-tiny; or two other arms",
        ),
        (
            "[contrasts]\nprimary = ['ae, vae-tiny']",
            "names 'ae, vae-tiny', which are not two arms of the study, or turned",
        ),
        ("[probe", "is not TOML"),
    ],
)
def test_a_wrong_plan_names_file_and_key(
    capsys: pytest.CaptureFixture[str], faces: DataConfig, text: str, message: str
) -> None:
    Path("mine.toml").write_text(text)
    asked = ("--data", faces.path, "--arms", "ae", "ae-nobn", "vae-tiny", "vae-eps5", "--plan", "mine.toml")
    for more in ((), ("--dry-run",)):
        found = refused(capsys, *asked, *more)
        assert message in found
        assert "--plan mine.toml" in found


@pytest.mark.usefixtures("untrained")
def test_a_study_keeps_the_plan_that_its_first_launch_gave(
    capsys: pytest.CaptureFixture[str], faces: DataConfig
) -> None:
    Path("mine.toml").write_text("[classes]\ncontrol = 'ae-clip'\n[probe]\nevery_steps = 10\n")
    asked = ["--data", faces.path, "--executor", "debug", "--arms", "ae", "ae-clip", "vae-tiny"]
    assert main([*asked, "--plan", "mine.toml", "--dry-run"]) == 0
    said = capsys.readouterr().out
    assert "Analysis plan: analysis/plan.toml, but for\n  classes.control = 'ae-clip' instead of ''\n" in said
    assert re.search(r"│ vae-tiny\s+│ ae-clip ", said)
    assert main([*asked, "--plan", "mine.toml"]) == 0
    config = StudyDir(Path("runs/article")).config()
    assert (config.plan.probe.every_steps, config.control_of("vae-tiny")) == (10, "ae-clip")
    assert config.plan == PlanConfig.model_validate(values_of(config.plan_text))
    assert config.plan_sha256 == text_sha256(config.plan_text)
    for plan in ((), ("--plan", "mine.toml")):
        assert main([*asked, "--seeds", "17", *plan]) == 0
        assert StudyDir(Path("runs/article")).config().plan_text == config.plan_text
        assert "keeps the analysis plan of its first launch: analysis/plan.toml, but for" in capsys.readouterr().out
    Path("mine.toml").write_text("[probe]\nevery_steps = 20\n")
    assert main([*asked, "--plan", "mine.toml"]) == 2
    message = capsys.readouterr().err
    assert "keeps the analysis plan of its first launch:\n  probe.every_steps: it has 10, the file says 20\n" in message


@pytest.mark.usefixtures("untrained")
def test_a_study_grows_under_a_plan_that_could_not_be_asked_for_any_more(faces: DataConfig) -> None:
    asked, study = ["--data", faces.path, "--executor", "debug", "--arms", "ae"], StudyDir(Path("runs/article"))
    assert main(asked) == 0
    plan = study.config().plan
    turned = plan.radius.model_copy(update={"shells": ((14.0, 12.0),)})
    write_model(
        study.config_path, study.config().model_copy(update={"plan": plan.model_copy(update={"radius": turned})})
    )
    assert main([*asked, "--seeds", "17"]) == 0
    assert study.config().plan.radius == turned


@pytest.mark.usefixtures("untrained")
@pytest.mark.parametrize("text", ["", "[probe]\nevery_steps = 50\n"])
def test_a_plan_that_changes_nothing_is_that_of_the_file(
    capsys: pytest.CaptureFixture[str], faces: DataConfig, text: str
) -> None:
    Path("mine.toml").write_text(text)
    assert main(["--data", faces.path, "--executor", "debug", "--arms", "ae", "--plan", "mine.toml"]) == 0
    assert StudyDir(Path("runs/article")).config().plan_text == plan_text()
    assert "but for" not in capsys.readouterr().out


def test_the_demos_control_is_taken_where_it_can_be_one(capsys: pytest.CaptureFixture[str]) -> None:
    demo = PRESETS["demo"]
    for names, expected in (
        (demo.arms, "ae-clip"),
        (("ae", "vae-tiny"), ""),
        (("ae-clip",), ""),
        (("vae-tiny", "ae-clip"), "ae-clip"),
    ):
        plan = preset_plan(demo, configured_arms(named_arms(names), demo.settings))
        assert (plan.classes.control, plan.probe.every_steps) == (expected, 10)
    assert main(["--preset", "demo", "--arms", "ae", "vae-tiny", "--dry-run"]) == 0
    assert "classes.control" not in capsys.readouterr().out
    assert preset_plan(PRESETS["article"], {}) == analysis_plan()


# Arms


def table_of(*arms: str, width: int) -> str:
    """The table of these arms in a terminal of this width, without its lines."""
    console = Console(width=width, record=True, quiet=False, file=io.StringIO())
    configured = configured_arms(named_arms(arms), Settings())
    show_arms(configured, {name: control_of(arm, configured) for name, arm in configured.items()}, console)
    return re.sub(r"[│┃ ]+", " ", console.export_text())


def test_a_table_shows_how_arms_differ_and_which_is_whose_control() -> None:
    said = table_of("ae", "vae-tiny", "vae-eps5", "ae-nobn", "vae-bfloat16", width=110)
    assert " arm control kind model.batch_norm train.precision vae.epsilon_limit " in said
    assert " ae itself ae True float32 \n" in said
    assert " vae-tiny ae vae True float32 none \n" in said
    assert " vae-eps5 ae vae True float32 5 \n" in said
    assert " ae-nobn itself ae False float32 \n" in said
    assert " vae-bfloat16 none vae True mixed_bfloat16 none \n" in said
    assert "Without control: vae-bfloat16." in said


def test_where_the_settings_do_not_fit_each_arm_says_what_is_special() -> None:
    said = table_of("ae", "vae-tiny", "vae-eps5", "clipnorm", "spike-logvar", "vae-from-ae", width=90)
    assert " arm control what is special " in said
    assert " vae-tiny ae \n" in said
    assert " vae-eps5 ae vae.epsilon_limit 5 \n" in said
    assert " clipnorm ae train.clipnorm 2000 \n" in said
    assert " spike-logvar ae spike log_var + 100, 150 steps before the end \n" in said
    assert " vae-from-ae ae start_from ae \n" in said
    assert "Without control" not in said


def test_a_table_of_all_arms_is_whole_in_a_small_terminal() -> None:
    said = table_of(*ARMS, width=80)
    assert all(f" {arm} " in said for arm in ARMS)
    assert "…" not in said


def test_arms_of_a_file_join_the_study(capsys: pytest.CaptureFixture[str]) -> None:
    Path("my_arms.toml").write_text("[mine]\nbase = 'vae-tiny'\nquestion = 'is it mine?'\n[mine.train]\nbeta_2 = 0.9\n")
    Path("study.toml").write_text("arms = ['ae', 'my_arms.toml']")
    assert main(["--config", "study.toml", "--dry-run"]) == 0
    said = capsys.readouterr().out
    assert "2 arms x 6 seeds = 12 runs" in said
    assert "mine: is it mine?" in said
    assert "train.beta_2" in said
    assert "Without control: mine." in said
    assert main(["--arms", "ae", "my_arms.toml", "--dry-run"]) == 0
    assert capsys.readouterr().out == said


@pytest.mark.usefixtures("untrained")
def test_a_launch_shows_all_arms_of_the_study(capsys: pytest.CaptureFixture[str], faces: DataConfig) -> None:
    for arms, rows in ((("vae-tiny",), 1), (("ae", "vae-eps5"), 3)):
        assert main(["--data", faces.path, "--executor", "debug", "--arms", *arms]) == 0
        said = capsys.readouterr().out
        assert ("Without control: vae-tiny." in said) == (rows == 1)
        assert len(re.findall(r"^│ (ae|vae-tiny|vae-eps5) ", said, re.M)) == rows


def test_arms_that_cannot_be_are_refused(capsys: pytest.CaptureFixture[str], faces: DataConfig) -> None:
    assert "'ae', which is not in the study" in refused(capsys, "--arms", "vae-from-ae", "--dry-run")
    assert "'ae', which is not in the study" in refused(capsys, "--arms", "vae-from-ae", "--data", faces.path)
    short = ["--data", faces.path, "--arms", "spike-gradient", "--train.epochs", "2"]
    assert "150 steps before the end, but trains only 2:" in refused(capsys, *short)
    Path("my_arms.toml").write_text("[mine]\nbase = 'vae-tinny'")
    assert "my_arms.toml: unknown arm 'vae-tinny'" in refused(capsys, "--arms", "my_arms.toml", "--dry-run")


def test_an_impossible_out_is_named(capsys: pytest.CaptureFixture[str], faces: DataConfig) -> None:
    Path("file").touch()
    said = refused(capsys, "--data", faces.path, "--out", "file")
    assert f"cannot be written: Not a directory; move away {Path('file').resolve()}" in said


# Slurm that accepts nothing


SBATCH = """#!/bin/sh
case $1 in --test-only) [ "$ACCEPTS" = test ] || exit 1 ;; *) exit 1 ;; esac
"""


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A launch line for a Slurm that refuses, at the latest, the first array."""
    clients = Clients(tmp_path / "bin")
    clients.answers("scontrol", "MaxArraySize = 1001\n")
    clients.answers("sinfo", "cpu*|infinite\n")
    (clients.folder / "sbatch").write_text(SBATCH)
    (clients.folder / "sbatch").chmod(0o755)
    monkeypatch.setenv("PATH", f"{clients.folder}:/usr/bin:/bin")
    (tmp_path / "site.toml").write_text(f'executor = "slurm"\n[slurm]\npython = "{sys.executable}"\n')
    return ["--seeds", "1", "--arms", "ae", "--site", "site.toml"]


@pytest.mark.parametrize("accepts", ["nothing", "test"])
@pytest.mark.parametrize("is_prepared", [True, False])
def test_what_slurm_refuses_leaves_no_study(
    capsys: pytest.CaptureFixture[str],
    faces: DataConfig,
    cluster: list[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    accepts: str,
    is_prepared: bool,
) -> None:
    monkeypatch.setenv("ACCEPTS", accepts)
    before = {path.name for path in tmp_path.iterdir()}
    data = ["--data", faces.path] if is_prepared else ["--preset", "demo"]
    assert "Nothing was submitted." in refused(capsys, *cluster, *data)
    assert {path.name for path in tmp_path.iterdir()} == before | {"bin"}


def test_scripts_for_a_full_folder_leave_no_study(
    capsys: pytest.CaptureFixture[str], faces: DataConfig, cluster: list[str]
) -> None:
    assert "the folder is not empty" in refused(capsys, *cluster, "--data", faces.path, "--write", "bin")


def test_a_crossed_sweep_is_an_array_as_any_study(faces: DataConfig, cluster: list[str], tmp_path: Path) -> None:
    streams = ["--cross", "initialisation=2", "noise=2", "--sweep", "train.learning_rate=1e-3,2e-3"]
    assert main(["--arms", "ae", "vae-tiny", *cluster[4:], *streams, "--data", faces.path, "--write", "scripts"]) == 0
    (record,) = (tmp_path / "runs" / "article" / "jobs").glob("train-*/batch.json")
    runs = {Path(run).name for element in json.loads(record.read_text())["elements"] for run in element}
    cells = {"ae": (0, 100), "vae-tiny": (0, 1, 100, 101)}
    assert runs == {f"{arm}-lr{rate}e-3-seed{cell:03d}" for arm in cells for rate in (1, 2) for cell in cells[arm]}


def test_jobs_are_for_others_to_read_and_for_nobody_else_to_write(
    faces: DataConfig, cluster: list[str], tmp_path: Path
) -> None:
    """Whatever the umask; scripts in them are run."""
    before = os.umask(0)
    try:
        assert main([*cluster, "--data", faces.path, "--write", "scripts"]) == 0
    finally:
        os.umask(before)
    jobs = tmp_path / "runs" / "article" / "jobs"
    modes = {path.relative_to(jobs).as_posix(): stat.S_IMODE(path.stat().st_mode) for path in [jobs, *jobs.rglob("*")]}
    assert {oct(mode) for mode in modes.values()} == {"0o755", "0o644"}, modes


def test_first_line_says_preset_and_data(capsys: pytest.CaptureFixture[str]) -> None:
    main(["--dry-run"])
    first = capsys.readouterr().out.splitlines()[0]
    assert first == (
        "Preset demo on built-in faces, because no data are given, executor local: no sbatch on this machine; precision"
        " float32, for its trainings ask for no GPU."
    )


def first_line(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert main([*arguments, "--preset", "demo", "--dry-run"]) == 0
    return capsys.readouterr().out.splitlines()[0].partition("; ")[2]


def test_precision_follows_the_device_and_is_said_first(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    assert first_line(capsys) == "precision float32, for its trainings ask for no GPU."  # by tensorflow-cpu
    monkeypatch.setattr("vaehpc.study.sites.tensorflow_uses_gpus", lambda: True)
    assert first_line(capsys) == "precision mixed_bfloat16, for its trainings ask for GPUs."
    assert first_line(capsys, "--device", "cpu") == "precision float32, for its trainings ask for no GPU."
    assert first_line(capsys, "--train.precision", "tf32") == "precision tf32, as asked."
    assert parsed(["--preset", "demo"]).settings.train.precision == "mixed_bfloat16"
    Path("study.toml").write_text("[train]\nprecision = 'float32'\n")
    assert parsed(["--config", "study.toml"]).settings.train.precision == "float32"


def test_precision_on_slurm_is_that_of_the_sites_trainings() -> None:
    for lines, precision in (("", "mixed_bfloat16"), ("device = 'cpu'", "float32"), ("gpus = 0", "float32")):
        Path("site.toml").write_text(f"executor = 'slurm'\n[jobs.train]\n{lines}\n")
        assert parsed(["--preset", "demo", "--site", "site.toml"]).settings.train.precision == precision


@pytest.mark.usefixtures("untrained")
def test_a_study_keeps_the_precision_of_its_first_launch(
    capsys: pytest.CaptureFixture[str], faces: DataConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    line = ["--data", faces.path, "--preset", "demo", "--arms", "ae", "--seeds", "1"]
    monkeypatch.setattr("vaehpc.study.sites.tensorflow_uses_gpus", lambda: True)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    main(line)
    assert StudyDir(Path("runs/demo")).config().precision == "mixed_bfloat16"
    capsys.readouterr()
    main([*line, "--arms", "ae", "vae-tiny", "--device", "cpu"])
    assert "precision mixed_bfloat16, as at the study's first launch." in capsys.readouterr().out
    config = StudyDir(Path("runs/demo")).config()
    assert {arm.train.precision for arm in config.arms.values()} == {"mixed_bfloat16"}
    assert main([*line, "--arms", "vae-eps5", "--train.precision", "float32"]) == 2
    assert "study.precision: it has mixed_bfloat16, asked for float32" in " ".join(capsys.readouterr().err.split())


@pytest.mark.usefixtures("untrained")
def test_the_wide_preset_has_true_float32_beside_half_precision_and_widens_the_articles_study(
    faces: DataConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    line = ["--data", faces.path, "--study", "s", "--executor", "local"]
    monkeypatch.setattr("vaehpc.study.sites.tensorflow_uses_gpus", lambda: True)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    main([*line, "--preset", "article"])
    main([*line, "--preset", "article-wide"])
    config = StudyDir(Path("runs/s")).config()
    assert config.preset == "article"
    assert {name: len(seeds) for name, seeds in config.seeds.items()} == {
        **dict.fromkeys(("ae", "vae-tiny", "vae-eps5", "ae-nobn", "vae-tiny-nobn"), 16),
        **dict.fromkeys(("ae-inference", "vae-inference", "vae-eps1", "vae-eps2", "logvar-clamp", "clipnorm"), 16),
        **dict.fromkeys(("ae-float32", "vae-float32"), 8),
    }
    assert "ae-float32" not in PRESETS["article-wide"].arms_in("float32")


def test_nodes_that_no_tensorflow_serves_are_refused_by_name(
    capsys: pytest.CaptureFixture[str], faces: DataConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = "executor = 'slurm'\n[container]\ngpu = 'rocm'\nruntime = 'pyxis'\nimage = 'train'\n"
    Path("site.toml").write_text(site)
    arguments = ("--data", faces.path, "--preset", "demo", "--site", "site.toml", "--dry-run")
    assert "gpu = 'rocm' in [container] needs an image that has tensorflow-rocm" in refused(capsys, *arguments)
    assert main([*arguments, "--device", "cpu"]) == 0
    capsys.readouterr()
    monkeypatch.setattr("vaehpc.machine.served.platform.machine", lambda: "aarch64")
    Path("site.toml").write_text("executor = 'slurm'\n")
    assert "this is an Arm node (aarch64)" in refused(capsys, *arguments)
    monkeypatch.setattr("vaehpc.study.sites.tensorflow_uses_gpus", lambda: True)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    assert "this is an Arm node (aarch64)" in refused(capsys, "--preset", "demo", "--dry-run")
    assert main(["--preset", "demo", "--dry-run", "--device", "cpu"]) == 0


def test_a_launch_says_what_so_many_seeds_can_show(faces: DataConfig) -> None:
    arms = configured_arms(named_arms(("ae", "vae-tiny")), PRESETS["demo"].settings)
    console = Console(file=io.StringIO())
    config = planned_study("s", "demo", faces, arms, range(16))
    say_what_it_can_show(config, console)
    ae, vae, threshold = console.file.getvalue().splitlines()  # type: ignore[attr-defined]
    assert ae == "  ae: 16 seeds; 0 diverged of 16 would still allow a rate up to 20.6%"
    assert vae == (
        "  vae-tiny: 16 seeds; 0 diverged of 16 would still allow a rate up to 20.6%; 25% against 0% of ae would be"
        " found with probability 37%"
    )
    assert threshold == "  found: at 0.025, the first of Holm's thresholds for 2 tests at 0.05"
    said = shown(config, against_control="less")
    assert "0% against 25% of ae would be found with probability 37%\n" in said
    three = configured_arms(named_arms(("ae", "vae-tiny", "vae-eps5")), PRESETS["demo"].settings)
    said = shown(planned_study("s", "demo", faces, three, range(16)), looks=(8, 16))
    assert re.findall(r"(vae-\S+): .* with probability (\d+%)", said) == [("vae-tiny", "60%"), ("vae-eps5", "19%")]
    assert "found: at 0.01, the first of Holm's thresholds for 5 tests at 0.05\n" in said
    said = shown(planned_study("s", "demo", faces, three, range(16)), primary=("vae-eps5, vae-tiny",))
    assert re.findall(r"(vae-\S+): .* against 0% of (\S+) would", said) == [("vae-eps5", "vae-tiny")]


def shown(config: StudyConfig, **changes: object) -> str:
    """What a study can show with these changes of its plan's [contrasts]."""
    contrasts = config.plan.contrasts.model_copy(update=changes)
    changed = config.model_copy(update={"plan": config.plan.model_copy(update={"contrasts": contrasts})})
    file = io.StringIO()
    say_what_it_can_show(changed, Console(file=file, width=200))
    return file.getvalue()


def test_presets_name_arms_that_exist() -> None:
    assert all(arm in ARMS for preset in PRESETS.values() for arm in preset.arms)


@pytest.mark.parametrize(("before", "ignored_after"), [("signal.SIG_IGN", True), ("signal.SIG_DFL", False)])
def test_nohup_is_respected(before: str, ignored_after: bool) -> None:
    code = f"import signal; signal.signal(signal.SIGHUP, {before}); from vaehpc.launch import main; main(['--dry-run'])"
    code += "; print(signal.getsignal(signal.SIGHUP) == signal.SIG_IGN)"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.splitlines()[-1] == str(ignored_after)


def test_the_launcher_imports_no_tensorflow_and_no_scipy() -> None:
    code = (
        "import sys, vaehpc.launch; print([m for m in ('tensorflow', 'keras', 'scipy', 'sklearn') if m in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


def test_of_nodes_the_launcher_knows_the_code_or_else_the_image(faces: DataConfig) -> None:
    config = planned_study("s", "demo", faces, configured_arms(named_arms(("ae",)), Settings()), range(1))
    bare = resolved(SiteConfig.model_validate({"executor": "slurm"}))
    (code,) = made_on_nodes(config, bare).values()
    assert [key for key, _ in code] == [sources()] and code_version() in code[0][1]
    image = {"runtime": "podman", "image": "train"}
    with_image = resolved(SiteConfig.model_validate({"executor": "slurm", "container": image}))
    assert made_on_nodes(config, with_image) == {}  # it could not be looked into
    assert made_on_nodes(in_image(config, "sha256:1"), with_image) == {"image": (("sha256:1", "in sha256:1"),)}
