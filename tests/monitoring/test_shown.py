"""What a study found, as its launch ends: for people, for programs, and the line to type next."""

import io
import json
import sys
from pathlib import Path

import pytest
from rich.console import Console

from tests import plant
from tests.examples import AE, VAE, measured_run, study_config
from vaehpc.monitoring.shown import print_results, show_results
from vaehpc.stats.runs import FoundRun, MissingRun
from vaehpc.stats.summary import summarise
from vaehpc.study.files import StudyDir, write_model
from vaehpc.tasks.aggregate import read_reference


def ended(path: Path, run_class: str | None) -> StudyDir:
    """A study whose VAE ended as this; None: it is missing."""
    study = plant.study(path, study_config([AE, VAE]))
    ae, vae = study.config().runs()
    found: FoundRun = MissingRun(vae, "train", "no image") if run_class is None else measured_run(vae, run_class)  # type: ignore[arg-type]
    write_model(study.summary_path, summarise(study.config(), [measured_run(ae), found], read_reference()))
    return study


@pytest.mark.parametrize(
    ("run_class", "code", "next_line"),
    [
        (None, 3, "vaehpc.status runs/s --failures"),
        ("nonfinite", 0, "vaehpc.explain runs/s --run vae-tiny-seed000"),
        ("regular", 0, "vaehpc.plan --study runs/s"),
    ],
)
def test_the_last_line_is_the_one_to_type_next(
    run_class: str | None,
    code: int,
    next_line: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", str(Path(sys.executable).parent))
    study, console = ended(tmp_path / "runs/s", run_class), Console(file=io.StringIO(), width=200)
    assert show_results(study, console) == code
    assert isinstance(console.file, io.StringIO)
    lines = console.file.getvalue().splitlines()
    rate = {None: "", "nonfinite": "100.0%", "regular": "0.0%"}[run_class]  # no rate of 0 % where all are NaN
    (cells,) = ([cell.strip() for cell in line.split("│")] for line in lines if "│ vae-tiny " in line)
    assert cells[6] == rate
    assert lines[-2:] == [f"Report: {study.report}", f"Next: python -m {next_line}"]
    assert print_results(study, console) == code
    found = json.loads(capsys.readouterr().out)
    assert found["missing"] == (["vae-tiny-seed000"] if code else [])
    assert (found["arms"]["vae-tiny"]["num_runs"], found["report"]) == (1, str(study.report))


def test_a_python_that_is_not_on_the_path_is_named_as_it_lies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As after `make demo`, in whose folder .venv was not activated."""
    study, console = ended(tmp_path / "runs/s", "regular"), Console(file=io.StringIO(), width=200)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", "")
    monkeypatch.setattr(sys, "executable", str(tmp_path / ".venv/bin/python"))
    show_results(study, console)
    assert isinstance(console.file, io.StringIO)
    assert console.file.getvalue().endswith("\nNext: .venv/bin/python -m vaehpc.plan --study runs/s\n")
