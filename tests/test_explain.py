"""The command: a run's files in, words and figures out."""

import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from tests.examples import arm_config, data_config
from tests.reporting.recorded import NUM_STEPS, SPIKE, planted_probe, planted_record, planted_trigger
from vaehpc.explain import main, read_explained
from vaehpc.stats.departures import NOT_SIGNALS, StepRecord
from vaehpc.study.files import StudyDir, write_model
from vaehpc.study.study import create_study, planned_study
from vaehpc.tasks.recorded import read_steps

ROWS_PER_BLOCK = 50


def write_stream(path: Path, table: pa.Table) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_stream(file, table.schema) as stream:
        stream.write_table(table, max_chunksize=ROWS_PER_BLOCK)


def steps_table(record: StepRecord) -> pa.Table:
    """As the recorder writes it: float32, and the columns that are no signals."""
    names = {name: np.arange(len(record.steps)) for name in NOT_SIGNALS if name != "step"}
    signals = {name: values.astype(np.float32) for name, values in record.signals.items()}
    return pa.table({"step": record.steps, **names, **signals})


def write_trigger(run: Path, record: StepRecord, step: int = SPIKE) -> None:
    folder = run / "triggers" / f"step-{step:09d}"
    write_stream(folder / "ring.arrow", steps_table(record.between(step - 180, step + 19)))
    write_model(folder / "trigger.json", planted_trigger(step=step))


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study of two runs: vae-seed000 has a trigger, vae-seed001 has none; not to be changed."""
    study = StudyDir(tmp_path_factory.mktemp("runs") / "small")
    arm = arm_config("vae", train={"epochs": 60})
    create_study(study, planned_study("small", "demo", data_config(num_train=400), {"vae": arm}, 2))
    for run, jumps in (("vae-seed000", True), ("vae-seed001", False)):
        record, probe = planted_record(jumps=jumps), planted_probe(jumps)
        write_stream(study.run(run).steps, steps_table(record))
        write_stream(study.run(run).probe, pa.table({"step": probe.steps, "radius_median": probe.radius_medians}))
        if jumps:
            write_trigger(study.run(run).path, record)
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
    assert set(whole.signals) == set(planted_record().signals)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    cut = read_steps(path)
    assert 0 < len(cut.steps) < NUM_STEPS
    assert len(cut.steps) % ROWS_PER_BLOCK == 0
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
    write_trigger(run.path, planted_record(), step=900)
    assert [(found.number, found.trigger.step) for found in read_explained(run).events] == [(1, 900), (2, SPIKE)]
