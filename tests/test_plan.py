import subprocess
import sys

import pytest

from vaehpc.config import StudyConfig
from vaehpc.files import StudyDir, write_model
from vaehpc.plan import main
from vaehpc.presets import PRESETS, analysis_plan, configured_arms, named_arms
from vaehpc.results import TrainedRecord
from vaehpc.study import planned_study


def said(capsys, *arguments):
    assert main([*arguments]) == 0
    return " ".join(capsys.readouterr().out.split())


def test_says_how_many_seeds_find_the_plans_rate(capsys):
    assert said(capsys) == said(capsys, "--rate", "0.25", "--versus", "0", "--power", "0.8")
    text = said(capsys)
    assert text.startswith("21 seeds per arm: 0.25 against 0, alpha 0.05 found with probability 80.8% by Boschloo's")
    assert "95 % takes 11 seeds" in text
    assert "hours: unknown" in text


@pytest.mark.parametrize(("seeds", "found"), [(20, "77.5%"), (24, "88.5%")])
def test_judges_a_number_that_was_chosen(seeds, found, capsys):
    text = said(capsys, "--seeds", str(seeds))
    assert f"{seeds} seeds per arm" in text
    assert f"found with probability {found} by Boschloo's one-sided test (wanted: 80%)" in text


def test_says_what_16_seeds_cannot_show(capsys):
    text = said(capsys, "--seeds", "16")
    assert "0 diverged of 16 would still allow a rate up to 20.6%" in text
    assert "a rate below 17.1% may show no diverged run at all" in text  # 0.829^16 = 5 %
    assert "a rate below 31.9% is told from 0 with a power of less than 80%" in text


def test_two_seeds_show_nothing(capsys):
    assert "no rate at all is told from 0" in said(capsys, "--seeds", "2")


def test_looks_have_boundaries(capsys):
    text = said(capsys, "--seeds", "24", "--looks", "3")
    assert "│ 8 │ 0.00069 │ 7 │ 8 │ - │ - │ - │ - │ 0.0% │" in text
    assert "│ 24 │ 0.05000 │ 4 │ 6 │ 7 │ 9 │ 10 │ 11 │" in text
    assert "found with probability 88.5%, after 21.0 seeds per arm on average" in text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--rate", "0.1", "--versus", "0.2"], "0 <= VERSUS < RATE <= 1"),
        (["--rate", "1.5"], "0 <= VERSUS < RATE <= 1"),
        (["--power", "1"], "a probability between 0 and 1"),
        (["--seeds", "0"], "1 to 1,000 seeds"),
        (["--seeds", "4", "--looks", "9"], "--looks 9"),
        (["--seeds", "900", "--looks", "3"], "boundaries are worked out for 3 to 200 seeds"),
        (["--arms", "0"], "at least 1 arm"),
        (["--rate", "0.2", "--versus", "0.199"], "even 1,000 seeds per arm do not find"),
        (["--study", "nowhere"], "neither a study's folder nor a name"),
    ],
)
def test_what_makes_no_sense_is_refused(arguments, message, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 2
    assert message in capsys.readouterr().err


@pytest.fixture
def study(tmp_path):
    """Two finished runs of 2 and 4 hours, one unfinished."""
    preset = PRESETS["demo"]
    arms = configured_arms(named_arms(("ae",)), preset.settings)
    data = {"path": "d", "name": "d", "sha256": "0", "synthetic": True, "image_size": 48, "num_train": 40}
    config = planned_study("speed", "demo", {**data, "entropy_floor": 1.0}, arms, 3)  # type: ignore[arg-type]
    found = StudyDir(tmp_path / "speed")
    found.path.mkdir()
    write_model(found.config_path, StudyConfig.model_validate(config.model_dump()))
    for run, hours in zip(config.runs(), (2, 4), strict=False):
        found.run(run.name).path.mkdir()
        record = {"run": run.name, "step": 10, "epochs": 8, "state_sha256": "0", "latents_sha256": {}, "threads": 1}
        record |= {"nonfinite_step": None, "num_attempts": 1, "seconds": 1.0, "device": "CPU"}
        trained = {**record, "seconds_per_epoch": hours * 450, "provenance": config.provenance}
        write_model(found.run(run.name).trained_path, TrainedRecord.model_validate(trained))
    return found


def test_cost_is_that_of_the_studys_runs(study, capsys):
    text = said(capsys, "--seeds", "16", "--arms", "3", "--study", str(study.path))
    assert "3 arms x 16 seeds = 48 runs; 144 hours on CPU: 3 h per run, median of 2 of speed" in text


def test_a_study_without_a_finished_run_has_no_speed(study, capsys):
    for run in study.config().runs():
        study.run(run.name).trained_path.unlink(missing_ok=True)
    assert main(["--study", str(study.path)]) == 2
    assert "no training has finished there" in capsys.readouterr().err


def test_the_plan_says_what_the_command_asks_by_default():
    plan = analysis_plan().contrasts
    assert (plan.rate, plan.versus, plan.power) == (0.25, 0, 0.8)


def test_the_command_imports_no_tensorflow_and_no_scipy() -> None:
    code = "import sys, vaehpc.plan; print(*{'tensorflow', 'scipy', 'matplotlib'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split() == []
