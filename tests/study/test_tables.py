import csv
import os
import runpy
import sys
from pathlib import Path

import pyarrow as pa
import pytest

import vaehpc
from tests import plant
from vaehpc.command import UserError
from vaehpc.stats.quantities import QUANTITIES
from vaehpc.study import tables
from vaehpc.tasks import aggregate

CLASSES: plant.Classes = {"ae": ["regular"] * 3, "vae-tiny": ["diverged", "nonfinite", None, "regular"]}
EXAMPLE = Path(__file__).parents[2] / "analysis" / "own_question.py"


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    study, _ = plant.classed(tmp_path_factory.mktemp("tables") / "small", CLASSES)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(aggregate, "write_pages", lambda *_: None)
        aggregate.run(str(study.path))
    return study


@pytest.fixture(params=["pandas", "arrow"])
def kind(request, monkeypatch):
    if request.param == "pandas":
        pytest.importorskip("pandas", reason="pandas comes with statsmodels, which `make lint` installs")
    else:
        monkeypatch.setattr(tables, "find_spec", lambda _: None)
    return request.param


def test_tables_are_pandas_where_it_is_installed_else_arrow(study, kind):
    loaded = vaehpc.load(study.path)
    for table in (loaded.runs, loaded.columns, loaded.epochs, loaded.probe):
        assert isinstance(table, pa.Table) == (kind == "arrow")
    assert list(loaded.runs["run"].tolist() if kind == "pandas" else loaded.runs["run"].to_pylist()) == list(
        study.summary().runs
    )


def test_epochs_and_probes_are_those_of_the_runs(study, monkeypatch):
    monkeypatch.setattr(tables, "find_spec", lambda _: None)
    loaded = vaehpc.load(study.path)
    rows = [row for row in loaded.epochs.to_pylist() if row["run"] == "vae-tiny-seed000"]
    assert [row["radius_median"] for row in rows] == [
        record.radius_median for record in study.run("vae-tiny-seed000").history()
    ]
    assert {(row["arm"], row["seed"]) for row in rows} == {("vae-tiny", 0)}
    probed = [row for row in loaded.probe.to_pylist() if row["run"] == "ae-seed002"]
    assert [row["step"] for row in probed] == [100, 200, 300, 400, 500, 600]
    with pytest.raises(UserError, match="has no radii"):
        loaded.radii("ae-seed000")
    with pytest.raises(UserError, match="no recorded steps"):
        loaded.steps("ae-seed000")
    with pytest.raises(UserError, match="has no run 'ae-seed009'"):
        loaded.radii("ae-seed009")


def test_every_column_has_a_meaning_and_csv_says_the_same(study, monkeypatch):
    monkeypatch.setattr(tables, "find_spec", lambda _: None)
    loaded = vaehpc.load(study.path)
    assert loaded.columns.column_names == ["name", "type", "unit", "meaning"]
    assert all(loaded.columns["meaning"].to_pylist())
    assert {quantity.name for quantity in QUANTITIES} < set(loaded.columns["name"].to_pylist())
    with study.columns_csv.open() as file:
        assert [row["name"] for row in csv.DictReader(file)] == loaded.runs.column_names
    with study.runs_csv.open() as file:
        rows = list(csv.DictReader(file))
    assert [row["class"] for row in rows] == [name or "" for name in loaded.runs["class"].to_pylist()]


def test_a_study_without_a_report_says_how_to_make_it(tmp_path):
    study = plant.study(tmp_path / "new", plant.classed_config("new", {"ae": ["regular"]}))
    with pytest.raises(UserError, match=r"no runs\.parquet yet: `vaehpc report"):
        _ = vaehpc.load(study.path).runs
    assert len(vaehpc.load(study.path).epochs) == 0


@pytest.mark.parametrize("damage", [lambda path: path.write_bytes(b"PAR1"), os.mkfifo])
def test_a_damaged_table_is_named(tmp_path, damage):
    study = plant.study(tmp_path / "new", plant.classed_config("new", {"ae": ["regular"]}))
    damage(study.runs_table)
    with pytest.raises(UserError, match=r"runs\.parquet cannot be read: .*`vaehpc report"):
        _ = vaehpc.load(study.path).runs


def test_the_worked_example_answers_its_question(study, kind, monkeypatch, capsys):
    """Early all are alike: of 5 runs with an end or a NaN, two left."""
    del kind
    monkeypatch.setattr(sys, "argv", [str(EXAMPLE), str(study.path)])
    runpy.run_path(str(EXAMPLE), run_name="__main__")
    said = capsys.readouterr().out
    assert (study.figures / "early-radii.svg").exists()
    assert "of 2 that left" in said
    assert "of 4 that stayed" in said
    assert "exploratory" in said
