"""What a launcher shows of a stage: how far, how long yet, of each run which part, in any width."""

import io
from pathlib import Path

import pytest
from rich.console import Console

from tests import plant
from tests.examples import AE, VAE, study_config
from tests.plant import BEAT
from vaehpc.local import progress
from vaehpc.local.progress import StageView, expected, stage_view
from vaehpc.study.attempts import write_record
from vaehpc.study.files import RunDir


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[RunDir]:
    """Of three runs one trains, one is measured, one has not said anything; a minute has passed."""
    clock = iter([0.0, *[60.0] * 100])
    monkeypatch.setattr(progress, "now", lambda: next(clock))
    found = plant.study(tmp_path / "planted", study_config([AE, VAE], 2))
    runs = [found.run(name) for name in ("vae-tiny-seed000", "ae-seed000", "ae-seed001")]
    plant.start(runs[0], beat={**BEAT, "steps_per_second": 0.05})
    plant.start(runs[1], "statistics", beat={"part": "t-SNE", "part_number": 6, "num_parts": 6})
    return runs


def shown(view: StageView, width: int, height: int = 24) -> list[str]:
    """The lines in a terminal of this size."""
    view.console = Console(file=io.StringIO(), force_terminal=True, color_system=None, width=width, height=height)
    view.console.print(view.render())
    return [line.rstrip() for line in said_in(view.console).splitlines()]


def said_in(console: Console) -> str:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_a_stage_tells_what_is_done_and_left_of_runs_and_study(runs: list[RunDir]) -> None:
    view = StageView("train", 6, Console(), seconds_after=600)
    view.update(runs)
    stage, first, second, third = shown(view, 200)
    # 0.4 + 5/6 of 6 runs in a minute: 232 s for the rest; the run in training has 6 steps and 120 s.
    assert stage.endswith("0 of 6, 60 s, 4 min left, study 14 min")
    assert first.startswith("vae-tiny-seed000 ")
    assert first.endswith("epoch 0  0.1 steps/s  loss 812.4  probe R 16.25  2 min left")
    assert second.startswith("ae-seed000 ")
    assert second.endswith("t-SNE (6 of 6)")
    assert third.endswith("starting")
    view.update(runs[:1])
    assert shown(view, 200)[0].partition(",")[0].endswith("2 of 6")


def test_lines_fit_into_any_terminal(runs: list[RunDir]) -> None:
    view = StageView("train from trained weights", 6, Console(), seconds_after=600)
    view.update(runs)
    for width in (60, 80, 200):
        lines = shown(view, width)
        assert len(lines) == 4
        assert all(len(line) <= width for line in lines)
        assert lines[1].endswith("2 min left")
    assert "loss" not in shown(view, 80)[1]
    assert "probe R" in shown(view, 80)[1]
    assert shown(view, 80, height=6)[-1] == "and 1 more at once"


def test_the_first_steps_tell_no_speed(runs: list[RunDir]) -> None:
    """They have been compiled."""
    plant.start(runs[0], beat={**BEAT, "step": 1, "num_steps": 900, "steps_per_second": 0.2})
    view = StageView("train", 6, Console())
    view.update(runs[:1])
    stage, run = shown(view, 80)
    assert "left" not in stage + run


def test_without_a_terminal_a_line_for_each_run(runs: list[RunDir]) -> None:
    console = Console(file=io.StringIO(), width=80)
    with stage_view("train", 3, console) as view:
        view.update(runs)
        view.look()
        view.update(runs[1:])
    first, *others = said_in(console).splitlines()
    # 1 + 5/6 of 3 runs in a minute.
    assert first == "train 1/3: vae-tiny-seed000 ended, about 38 s left"
    assert others[-1].startswith("train 3/3: ")


def test_what_takes_a_known_time_has_a_bar(tmp_path: Path) -> None:
    terminal, pipe = Console(file=io.StringIO(), force_terminal=True, width=80), Console(file=io.StringIO())
    for console in (terminal, pipe):
        write_record(tmp_path / "beat.json", {"part": "tests", "part_number": 2, "num_parts": 4})
        with expected("Training ae", 50, console, tmp_path / "beat.json"):
            pass
    assert "of about 50 s  tests (2 of 4)" in said_in(terminal)
    assert said_in(pipe) == "Training ae: about 50 s\n"


def test_a_damaged_heartbeat_is_none(runs: list[RunDir]) -> None:
    (runs[0].attempts / "0001/heartbeat.json").write_text("{")
    assert progress.beat_of(runs[0]) is None
