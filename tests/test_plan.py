import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests import plant
from tests.examples import arm_config, data_config, study_config
from vaehpc.command import gigabytes
from vaehpc.local.forecast import (
    ARTICLE_PRODUCTS,
    ARTICLE_RATE,
    CORE_RATE,
    STEP_SECONDS,
    expectation,
    forecast,
    guessed_timing,
    products_per_image,
    run_seconds,
    timed_arms,
)
from vaehpc.local.pool import Slot
from vaehpc.local.sharing import timed_together
from vaehpc.plan import main
from vaehpc.schema.config import ForkConfig, StudyConfig
from vaehpc.schema.results import Timing
from vaehpc.study.files import StudyDir
from vaehpc.study.presets import PRESETS, analysis_plan, configured_arms, named_arms
from vaehpc.study.study import most_bytes_of_triggers, num_weights, planned_study


def said(capsys, *arguments):
    assert main([*arguments]) == 0
    return " ".join(capsys.readouterr().out.split())


def test_says_how_many_seeds_find_the_plans_rate(capsys):
    assert said(capsys) == said(capsys, "--rate", "0.25", "--versus", "0", "--power", "0.8")
    text = said(capsys)
    assert text.startswith(
        "26 seeds per arm: 0.25 against 0, alpha 0.025 alpha: the first of Holm's thresholds for 2 tests at 0.05 found"
        " with probability 81.6% by Boschloo's"
    )
    assert "95 % takes 11 seeds" in text
    assert "hours: unknown" in text


@pytest.mark.parametrize(("seeds", "found"), [(20, "58.5%"), (24, "75.3%")])
def test_judges_a_number_that_was_chosen(seeds, found, capsys):
    text = said(capsys, "--seeds", str(seeds))
    assert f"{seeds} seeds per arm" in text
    assert f"found with probability {found} by Boschloo's one-sided test (wanted: 80%)" in text


def test_says_what_16_seeds_cannot_show(capsys):
    text = said(capsys, "--seeds", "16")
    assert "0 diverged of 16 would still allow a rate up to 20.6%" in text
    assert "a rate below 17.1% may show no diverged run at all" in text  # 0.829^16 = 5 %
    assert "a rate below 38.5% is told from 0 with a power of less than 80%" in text


@pytest.mark.parametrize(("arms", "tests"), [("2", 2), ("3", 6), ("4", 10)])
def test_more_arms_are_more_tests(arms, tests, capsys):
    text = said(capsys, "--seeds", "16", "--arms", arms)
    assert f"alpha {0.05 / tests:.2g} alpha: the first of Holm's thresholds for {tests} tests at 0.05" in text


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
        (["--arms", "0"], "--arms 0: a study has 1 to 10,000 arms"),
        (["--rate", "0.2", "--versus", "0.199"], "even 1,000 seeds per arm do not find"),
        (["--study", "nowhere"], "neither a study's folder nor a name"),
        (["--json", "--looks", "2"], "leave out --looks and --measure"),
        (["--measure", "demo"], "--measure demo: it trains for a short time, on the data of --data DIR"),
        (["--measure", "demo", "--data", "nowhere"], "vaehpc.prepare"),
        (["--measure", "demo", "--data", "d", "--measure-seconds", "0"], "--measure-seconds 0: more than 0"),
    ],
)
def test_what_makes_no_sense_is_refused(arguments, message, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 2
    assert message in capsys.readouterr().err


@pytest.fixture
def study(tmp_path):
    """Two finished runs of 2 and 4 hours, one unfinished."""
    found = plant.study(tmp_path / "speed", study_config([arm_config("ae", train={"epochs": 8})], 3, name="speed"))
    for seed, hours in enumerate((2, 4)):
        plant.marker(found.run(f"ae-seed{seed:03d}"), seconds_per_epoch=hours * 450)
    return found


def test_cost_is_that_of_the_studys_runs(study, capsys):
    text = said(capsys, "--seeds", "16", "--arms", "3", "--study", str(study.path))
    assert "3 arms x 16 seeds = 48 runs; 144 hours on CPU: 3 h per run, median of 2 of speed" in text


def test_a_study_without_a_finished_run_has_no_speed(study, capsys):
    for run in study.config().runs():
        study.run(run.name).trained_path.unlink(missing_ok=True)
    assert main(["--study", str(study.path)]) == 2
    assert "no training has finished there" in capsys.readouterr().err


SPEED = Timing(
    run="ae-seed000", device="CPU", start_seconds=10, step_seconds=0.1, image_seconds=0.001, checkpoint_seconds=0.5,
    end_seconds=3, memory_bytes=2 * 10**9,
)  # fmt: skip


def forecast_study(**train) -> StudyConfig:
    """Two arms of three seeds; 1000 images are 10 steps of 100, 20 of which are evaluated at the end of an epoch."""
    overridden = {"batch_size": 100, "epochs": 50, "eval_images": 20, "checkpoint_seconds": 200.0} | train
    arms = {kind: arm_config(kind, train=overridden) for kind in ("ae", "vae")}
    return planned_study("f", "demo", data_config(num_train=1000), arms, range(3))


def test_a_run_takes_the_sum_of_its_parts():
    run = next(iter(forecast_study().runs()))
    steps, encoded = 500 * 0.1, (10 * 512 + 50 * 20 + 1000) * 0.001
    checkpoints = (50 + (steps + encoded) / 200) * 0.5
    assert run_seconds(run, SPEED) == pytest.approx(10 + steps + encoded + checkpoints + 3)


def test_a_forecast_adds_up(monkeypatch):
    monkeypatch.setattr("vaehpc.local.forecast.local_slots", lambda _: [Slot("")] * 2)
    config = forecast_study(epochs=5000)
    slow = SPEED.model_copy(update={"step_seconds": 0.2})
    of_ae, of_vae = (run_seconds(config.runs()[0], speed) / 3600 for speed in (SPEED, slow))
    lines = list(forecast(config, {"ae": SPEED, "vae": slow}))
    assert lines[0].startswith(f"ae: {of_ae:.1f} h per run on CPU (1,000 images/s in training), 2.0 GB of memory")
    assert lines[1].startswith(f"vae: {of_vae:.1f} h per run on CPU (500 images/s")
    assert lines[2].startswith(f"6 runs: {3 * (of_ae + of_vae):.3g} processor hours")
    assert lines[3] == f"{1.5 * (of_ae + of_vae):.1f} h on the 2 of this machine, {of_vae:.1f} h where all run at once"


@pytest.mark.slow
def test_an_arm_is_measured_on_this_machine_in_as_many_processes_as_would_train(faces, monkeypatch, capfd):
    found = []

    def together(*asked, **more):
        found.extend(timed_together(*asked, **more))
        return found

    monkeypatch.setattr("vaehpc.local.forecast.timed_together", together)
    monkeypatch.setattr("vaehpc.local.forecast.local_slots", lambda _: [Slot(""), Slot("")])
    config = planned_study("m", "demo", faces, {"vae": arm_config("vae")}, range(2))
    (speed,) = timed_arms(config, 0.2).values()
    assert [each.run for each in found] == ["vae-seed000"] * 2
    assert all(each.step_seconds > 0 for each in found)
    assert speed.run == "vae-seed000"
    assert min(speed.start_seconds, speed.step_seconds, speed.image_seconds, speed.checkpoint_seconds) > 0
    assert speed.end_seconds > 0
    assert speed.memory_bytes > 10**7
    assert capfd.readouterr() == ("", "")  # no greeting of TensorFlow


def test_the_command_measures_the_presets_arms_with_the_settings_asked_for(faces, monkeypatch, capsys, tmp_path):
    asked = []

    def measured(config, seconds, shown):
        with shown("ae"):
            asked.append((config, seconds))
        return dict.fromkeys(config.arms, SPEED)

    monkeypatch.setattr("vaehpc.plan.timed_arms", measured)
    out = ("--out", str(tmp_path / "runs"))
    text = said(capsys, "--seeds", "2", "--measure", "demo", "--data", faces.path, "--train.epochs", "3", *out)
    ((config, seconds),) = asked
    assert (list(config.arms), seconds) == (list(PRESETS["demo"].arms), 30)
    assert {arm.train.epochs for arm in config.arms.values()} == {3}
    assert config.arms["ae"].model == configured_arms(named_arms(("ae",)), PRESETS["demo"].settings)["ae"].model
    assert "8 runs: " in text
    assert "hours: unknown" not in text
    # A launch knows it from there, whatever its epochs are.
    ae = config.arms["ae"].model_copy(update={"train": config.arms["ae"].train.model_copy(update={"epochs": 9})})
    again = planned_study("d", "demo", config.data, {"ae": ae}, range(2))
    known = expectation(StudyDir(tmp_path / "runs/d"), again, SPEED.device, False, 2)
    assert known[1] == f"  Known from `vaehpc plan --measure` on {SPEED.device}."
    other = expectation(StudyDir(tmp_path / "runs/d"), again, "another processor", False, 2)
    assert "nothing was measured here" in other[1]


def test_finished_runs_tell_best_how_long_a_study_takes(study):
    config = study.config()
    (words, origin) = expectation(study, config, "CPU", False, 2)
    # Two of three runs are trained, in 2 and 4 hours.
    assert words.startswith("To be trained: 1 run, about 3.0 h here, 2 at once; 3.0 h of processor time, ")
    assert origin == "  Known from finished runs of this study."
    for run in config.runs():
        plant.marker(study.run(run.name))
    assert expectation(study, config, "CPU", False, 2) == []


def test_the_articles_speed_is_scaled_by_the_nets_arithmetic():
    data = data_config(num_train=170_000).model_copy(update={"image_size": 96})
    arms = configured_arms(named_arms(("vae-tiny",)), PRESETS["article"].settings)
    config = planned_study("a", "article", data, arms, range(1))
    (run,) = config.runs()
    assert products_per_image(run) == ARTICLE_PRODUCTS
    for is_gpu, rate in ((True, ARTICLE_RATE), (False, CORE_RATE)):
        assert 128 / (guessed_timing(run, is_gpu).step_seconds - STEP_SECONDS) == pytest.approx(rate)
    words, _ = expectation(StudyDir(Path("none/a")), config, "of the nodes", True, None)
    assert re.match("To be trained: 1 run, [0-9]+ min where all run at once; [0-9]+ min of GPU time, ", words)
    # Eight snapshots of weights and Adam's two moments, 4 bytes each.
    assert f"GB of disk, up to {gigabytes(8 * 3 * 4 * num_weights(run))} more where trainings jump; " in words
    fork = ForkConfig(source="s/r", seed=3, checkpoint="", step=0, until_step=9)
    forked = run.model_copy(update={"arm": run.arm.model_copy(update={"fork": fork})})
    assert most_bytes_of_triggers(forked) == 0


def test_numbers_for_a_program(capsys):
    found = json.loads(said(capsys, "--seeds", "16", "--json"))
    assert (found["seeds"], found["alpha"], found["hours"]) == (16, pytest.approx(0.025), None)
    assert found["highest_rate_of_none"] == pytest.approx(0.206, abs=5e-4)
    assert found["detectable_rate"] == pytest.approx(0.385, abs=5e-4)


def test_the_plan_says_what_the_command_asks_by_default():
    plan = analysis_plan().contrasts
    assert (plan.rate, plan.versus, plan.power) == (0.25, 0, 0.8)


def test_the_command_imports_no_tensorflow_and_no_scipy() -> None:
    code = "import sys, vaehpc.plan; print(*{'tensorflow', 'scipy', 'matplotlib'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split() == []
