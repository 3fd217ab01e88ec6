"""The command: a run's files in, words and figures out."""

import shutil
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests import plant
from tests.examples import (
    NUM_STEPS,
    SPIKE,
    arm_config,
    spiked_course,
    spiked_record,
    spiked_run,
    stability,
    study_config,
    trigger_record,
)
from tests.processes import Running
from vaehpc.explain import main
from vaehpc.schema.config import DataConfig
from vaehpc.schema.results import RunStability
from vaehpc.study.files import StudyDir, write_model
from vaehpc.tasks.explanation import read_explained, read_stability
from vaehpc.tasks.recorded import read_steps


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study of two runs: vae-seed000 has a trigger, vae-seed001 has none; not to be changed."""
    run = spiked_run()
    config = study_config([run.arm], 2, name="small", data=run.data)
    study = plant.study(tmp_path_factory.mktemp("runs") / "small", config)
    for name, jumps in (("vae-seed000", True), ("vae-seed001", False)):
        triggers = [trigger_record()] if jumps else []
        plant.trained(study.run(name), course=spiked_course(jumps), steps=spiked_record(jumps=jumps), triggers=triggers)
    return study.path


@pytest.fixture
def own(recorded: Path, tmp_path: Path) -> Path:
    """A copy that a test may change."""
    return Path(shutil.copytree(recorded, tmp_path / "runs" / "small"))


def refused(arguments: Sequence[str], capsys: pytest.CaptureFixture[str]) -> str:
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert "Traceback" not in error
    return error


def test_a_trigger_is_told_drawn_and_written(own: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(own), "--run", "vae-seed000"]) == 0
    folder = own / "vae-seed000" / "explanation"
    *said, overview, figure, page = capsys.readouterr().out.splitlines()
    assert [overview, figure, page] == [
        str(folder / name) for name in ("overview.svg", "trigger-1.svg", "explanation.md")
    ]
    assert said[0].startswith("vae-seed000: 1 trigger in the 1,500 steps from 0 to 1,499")
    assert "at step 1,234, the step of the trigger, gradient_norm 41,600 (band 2.75 to 314)" in "\n".join(said)
    assert all(
        line in (folder / "explanation.md").read_text() for line in said if line.startswith(("Step", "First", "R"))
    )
    assert "left its band at step 1,234" in (folder / "trigger-1.svg").read_text()
    assert sorted(path.name for path in folder.iterdir()) == ["explanation.md", "overview.svg", "trigger-1.svg"]


def test_a_run_without_triggers_is_drawn_whole(own: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(own), "--run", "vae-seed001"]) == 0
    assert "no trigger in the 1,500 steps from 0 to 1,499" in capsys.readouterr().out
    folder = own / "vae-seed001" / "explanation"
    assert sorted(path.name for path in folder.iterdir()) == ["explanation.md", "overview.svg"]


def test_a_study_is_found_by_its_name_under_runs(
    own: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(own.parent.parent)
    assert "study small has no run" in refused(["small", "--run", "vae-seed009"], capsys)
    error = refused(["smal", "--run", "vae-seed000"], capsys)
    assert error == (
        "vaehpc: 'smal' is neither a study's folder nor a name under runs (did you mean 'small'?). Studies under runs:"
        " small.\n"
    )
    monkeypatch.chdir(own)
    assert "There is no study under runs." in refused(["small", "--run", "vae-seed000"], capsys)


def test_an_unknown_run_is_refused_with_the_nearest(recorded: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert refused([str(recorded), "--run", "vae-seed00"], capsys) == (
        "vaehpc: study small has no run 'vae-seed00' (did you mean 'vae-seed001'?). Runs: vae-seed000, vae-seed001\n"
    )


def test_a_run_without_steps_is_refused(own: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (own / "vae-seed001" / "recorder" / "steps.arrow").unlink()
    error = refused([str(own), "--run", "vae-seed001"], capsys)
    assert "run vae-seed001 has no recorded steps in" in error
    assert "`vaehpc launch` trains what is missing" in error
    assert not (own / "vae-seed001" / "explanation").exists()


def test_a_damaged_trigger_is_refused(own: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (own / "vae-seed000" / "triggers" / f"step-{SPIKE:09d}" / "trigger.json").write_text("{}")
    assert "trigger.json is not a valid TriggerRecord" in refused([str(own), "--run", "vae-seed000"], capsys)


def test_steps_are_read_up_to_the_last_whole_batch(own: Path) -> None:
    path = own / "vae-seed001" / "recorder" / "steps.arrow"
    whole = read_steps(path)
    assert whole.steps.tolist() == list(range(NUM_STEPS))
    assert set(whole.signals) == set(spiked_record().signals)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    cut = read_steps(path)
    assert 0 < len(cut.steps) < NUM_STEPS
    assert len(cut.steps) % plant.ROWS_PER_BLOCK == 0
    assert cut.signals["update_norm"].tolist() == whole.signals["update_norm"][: len(cut.steps)].tolist()


def test_the_ring_gives_what_the_record_lost(own: Path) -> None:
    run = StudyDir(own).run("vae-seed000")
    whole = read_explained(run).events[0]
    run.steps.unlink()
    (alone,) = read_explained(run).events
    assert alone.record.steps[[0, -1]].tolist() == [SPIKE - 180, SPIKE + 19]
    assert alone.departures[0].signal.startswith("gradient_norm")
    assert alone.departures[0].step == whole.departures[0].step == SPIKE


def test_triggers_are_numbered_by_step(own: Path) -> None:
    run = StudyDir(own).run("vae-seed000")
    plant.trigger(run, trigger_record(step=900), spiked_record())
    assert [(found.number, found.trigger.step) for found in read_explained(run).events] == [(1, 900), (2, SPIKE)]


def trained_here(path: str) -> None:
    """The training task."""
    from vaehpc.tasks.train import run

    run(path)


@pytest.mark.slow
def test_stability_is_measured_of_every_kept_state_told_and_drawn(
    faces: DataConfig, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = study_config([arm_config("vae", train={"keep_every_epochs": 1})], 1, name="small", data=faces)
    study = plant.study(tmp_path / "small", config)
    run_dir = study.run("vae-seed000")
    assert Running(trained_here, str(run_dir.path)).ended() == 0
    damaged, *_ = [path for path in run_dir.checkpoint_dirs() if path.name.endswith("3")]
    assert main([str(study.path), "--run", "vae-seed000", "--stability"]) == 0
    (state,) = read_stability(run_dir)
    assert (state.step, state.state) == (3, "checkpoint")  # not of the start, nor of the end
    told = f"Of 1 kept state {int(state.sharpness_ratio > 1)} had a sharpness beyond its limit"
    assert told in capsys.readouterr().out
    page = (run_dir.explanation / "explanation.md").read_text()
    assert told in page
    assert "![sharpness and curvature by their limits](stability.svg)" in page
    assert "sharpness" in (run_dir.explanation / "stability.svg").read_text()
    (damaged / "variables.npz").write_bytes(b"damaged")
    assert main([str(study.path), "--run", "vae-seed000", "--stability"]) == 2
    error = capsys.readouterr().err
    assert "Traceback" not in error


def test_stability_that_was_measured_is_told_before_each_trigger(own: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run_dir = StudyDir(own).run("vae-seed000")
    run_dir.explanation.mkdir()
    states = (stability(300), stability(600, None), stability(1200, 3.17), stability(1500, 1.5))
    write_model(run_dir.stability_path, RunStability(run="vae-seed000", states=states))
    assert main([str(own), "--run", "vae-seed000"]) == 0
    told = (
        "Of 4 kept states 2 had a sharpness beyond its limit, after 1,200 and 1,500 steps. Before trigger 1, at step"
        " 1,234, the last is that after 1,200 steps: 3.17 of the limit."
    )
    assert told in capsys.readouterr().out
    page = (run_dir.explanation / "explanation.md").read_text()
    row = "| 600 | checkpoint | not found | not found | 50 | 2 | 4 | 2 | 0.1 | 1,200 | 16 | 80 | 2 | 75 % | -1.5 |"
    assert row in page
    assert (run_dir.explanation / "stability.svg").exists()
