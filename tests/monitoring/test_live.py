import os
import sys
import time

import pytest
from rich.console import Console

from tests import plant
from tests.reporting.page import Page, no_requests
from vaehpc.command import UserError
from vaehpc.local import stages
from vaehpc.monitoring import live
from vaehpc.monitoring.live import LivePage
from vaehpc.study.files import StudyDir, write_text


@pytest.fixture
def running(tmp_path) -> StudyDir:
    """Of 4 AEs 3 are done, one trains; of 4 VAEs one jumped and is done, one became NaN, one crashed, one waits."""
    classes: plant.Classes = {"ae": ["regular"] * 4, "vae-tiny": ["diverged", "nonfinite", None, None]}
    study = plant.study(tmp_path / "running", plant.classed_config("running", classes))
    for name in ("ae-seed000", "ae-seed001", "ae-seed002"):
        plant.ended(study.run(name))
    plant.ended(study.run("vae-tiny-seed000"), "diverged")
    plant.ended(study.run("vae-tiny-seed001"), "nonfinite")
    plant.start(study.run("ae-seed003"), beat=plant.BEAT)
    plant.probe(study.run("ae-seed003").probe, {50: 12.0, 100: 16.0})
    plant.start(study.run("vae-tiny-seed002"), outcome="failed", error="MemoryError: <3 GB>")
    plant.start(study.run("vae-tiny-seed003"), beat=plant.BEAT)
    return study


def page_of(study: StudyDir, goes_on: bool = True) -> Page:
    LivePage(study, study.config()).write(goes_on=goes_on)
    return Page(study.report.read_text())


def test_counts_courses_and_what_is_missing_and_nothing_tested(running):
    page = page_of(running)
    rows = page.table("arm", "runs", "trained", "done", "missing")
    assert rows["ae"] == ["4", "3", "3", "0", "0", "0", "0"]
    assert rows["vae-tiny"] == ["4", "2", "2", "1", "1", "1", "1"]
    assert "vae-tiny-seed002 , train: " in page.text
    assert "MemoryError: <3 GB>" in page.text
    assert page.table("run", "state")["ae-seed003"][0] == "training"
    (drawing,) = page.of("svg")
    assert (drawing["aria-label"] or "").startswith("Median radius R over training steps")
    for word in ("Holm", "Boschloo", "p =", "p <", "more often", "No difference", "interval"):
        assert word not in page.text


def test_to_the_launcher_that_writes_the_page_what_has_not_begun_is_waiting(tmp_path):
    study = plant.study(tmp_path / "begun", plant.classed_config("begun", {"ae": ["regular"] * 3}))
    stages.claim(study)
    plant.start(study.run("ae-seed000"), beat=plant.BEAT)
    page = page_of(study)
    assert [row[0] for row in page.table("run", "state").values()] == ["training", "waiting", "waiting"]
    assert "Missing, and why" not in page.text


def test_the_page_loads_itself_again_from_its_file_while_the_study_runs(running):
    page = page_of(running)
    (refresh,) = [meta for meta in page.of("meta") if meta.get("http-equiv") == "refresh"]
    assert float(refresh["content"] or "") == live.PAUSE  # without a url: its own file
    no_requests(page)
    assert not page.of("script")
    stopped = page_of(running, goes_on=False)
    assert not [meta for meta in stopped.of("meta") if meta.get("http-equiv") == "refresh"]
    assert "Stopped" in stopped.text


def test_a_page_is_renewed_as_often_as_it_may_and_left_as_stopped(running, monkeypatch):
    now = [1000.0]
    monkeypatch.setattr(live.time, "monotonic", lambda: now[0])
    with LivePage(running, running.config()) as page:
        page.renew()
        first = running.report.stat().st_ino
        page.renew()
        assert running.report.stat().st_ino == first
        now[0] += live.PAUSE
        page.renew()
        assert running.report.stat().st_ino != first
        assert "Running" in running.report.read_text()
    assert "Stopped" in running.report.read_text()


@pytest.mark.parametrize("seconds", [60, -3600])
def test_a_report_that_was_written_meanwhile_stays(running, seconds):
    """Though the clock was set back, or that of another machine is behind."""
    write_text(running.report, "<!doctype html><title>an older report</title>")
    with LivePage(running, running.config()) as page:
        page.renew()
        write_text(running.report, "<!doctype html><title>the report</title>")
        os.utime(running.report, (time.time() + seconds,) * 2)
        page._next = 0.0
        page.renew()
    assert "the report" in running.report.read_text()


def test_what_fails_is_told_once_and_ends_nothing(running, monkeypatch, caplog):
    page = LivePage(running, running.config())
    monkeypatch.setattr(live, "write_text", lambda *_: 1 / 0)
    for _ in range(3):
        page.renew()
    assert [record.message.endswith("division by zero") for record in caplog.records] == [True]


def test_what_this_python_lacks_is_said(running, monkeypatch):
    monkeypatch.setitem(sys.modules, "vaehpc.monitoring.live_page", None)
    with pytest.raises(UserError, match=r"this Python lacks .*: pip install \"vaehpc\[analysis\]\""):
        LivePage(running, running.config()).write()


def test_a_study_without_any_probe_has_a_page(tmp_path):
    config = plant.classed_config("new", {"ae": ["regular"] * 2})
    study = plant.study(tmp_path / "new", config)
    assert "No run has been probed yet." in page_of(study).text


def test_a_stage_renews_the_page_whenever_it_looks_at_its_tasks(running, monkeypatch):
    looked = []
    monkeypatch.setattr(stages, "_run_tasks", lambda tasks, *others: others[-1](tasks[:1]))
    stages.run_stage("train", running, running.config(), "local", Console(quiet=True), lambda: looked.append("now"))
    assert looked == ["now"]
