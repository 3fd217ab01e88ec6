"""Attempts and files: claimed once, whole or absent, only the newest may publish."""

import errno
import json
import logging
import os
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from tests.examples import run_config
from vaehpc.command import DiskFullError, UserError
from vaehpc.schema.config import RunConfig
from vaehpc.study.attempts import Attempt, StoppedError, SupersededError, all_attempts, output_to, tail
from vaehpc.study.files import (
    RunDir,
    StudyDir,
    declaration,
    entries,
    gigabytes,
    read_model,
    require_space,
    write_array,
    write_model,
    write_text,
)


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    (tmp_path / "ae-seed000").mkdir()
    return RunDir(tmp_path / "ae-seed000")


def outcome(attempt: Attempt) -> dict[str, str]:
    record: dict[str, str] = json.loads(attempt.exit_path.read_text())
    return record


def test_attempts_that_start_together_get_numbers_of_their_own(run: RunDir) -> None:
    with ThreadPoolExecutor(8) as pool:
        attempts = list(pool.map(lambda _: Attempt.start(run, "train"), range(24)))
    assert sorted(attempt.number for attempt in attempts) == list(range(1, 25))
    assert [attempt.number for attempt in all_attempts(run)] == list(range(1, 25))


def test_attempts_beyond_9999_stay_in_order(run: RunDir) -> None:
    for number in (9999, 10000):
        (run.attempts / f"{number:04d}").mkdir(parents=True)
    Attempt.start(run, "train")
    assert [attempt.number for attempt in all_attempts(run)] == [9999, 10000, 10001]


def test_only_the_newest_attempt_publishes(run: RunDir) -> None:
    old = Attempt.start(run, "train")
    old.publish_text("old", run.path / "result")
    new = Attempt.start(run, "train")
    with pytest.raises(SupersededError, match="attempt 1 of ae-seed000 was replaced"):
        old.publish_text("late", run.path / "result")
    assert (run.path / "result").read_text() == "old"
    new.publish_text("new", run.path / "result")
    assert (run.path / "result").read_text() == "new"


def test_a_sign_of_life_finds_a_newer_attempt(run: RunDir) -> None:
    old = Attempt.start(run, "train")
    assert old.is_silent
    old.beat(step=1)
    assert not old.is_silent
    Attempt.start(run, "train")
    with pytest.raises(SupersededError):
        old.beat(step=2)
    assert json.loads(old.heartbeat_path.read_text())["step"] == 1


def test_a_listing_is_in_order_and_of_a_missing_folder_empty(tmp_path: Path) -> None:
    for name in ("step-2", "step-1", ".step-3.tmp"):
        (tmp_path / name).touch()
    assert [path.name for path in entries(tmp_path, "step-")] == ["step-1", "step-2"]
    assert entries(tmp_path / "missing") == []


def test_a_folder_left_without_its_marker_is_replaced(run: RunDir) -> None:
    for text in ("killed", "finished"):
        attempt = Attempt.start(run, "train")
        (attempt.path / "latents").mkdir()
        (attempt.path / "latents" / "mu").write_text(text)
        attempt.publish(attempt.path / "latents", run.latents)
    assert (run.latents / "mu").read_text() == "finished"


@pytest.mark.parametrize(
    ("error", "expected"), [(SupersededError("replaced"), "superseded"), (StoppedError("asked to"), "stopped")]
)
def test_leaving_in_order_is_no_failure(run: RunDir, error: Exception, expected: str) -> None:
    with Attempt.start(run, "train") as attempt:
        raise error
    assert (outcome(attempt)["outcome"], outcome(attempt)["error"]) == (expected, str(error))


def test_a_failure_goes_on_and_leaves_its_trace_in_the_log(run: RunDir) -> None:
    with pytest.raises(ZeroDivisionError), Attempt.start(run, "train") as attempt:
        1 / 0  # noqa: B018
    assert outcome(attempt)["outcome"] == "failed"
    assert tail(attempt.log, 1) == ["ZeroDivisionError: division by zero"]


def test_a_full_disk_is_one_whichever_library_wrote(run: RunDir) -> None:
    """Arrow's file is flushed when it is closed, and does not name itself."""
    attempt = Attempt.start(run, "train")
    with pytest.raises(DiskFullError, match="no space left on the disk"), attempt, pa.OSFile("/dev/full", "wb") as file:
        file.write(b"rows")
    assert json.loads(attempt.exit_path.read_text())["outcome"] == "failed"


def test_a_log_that_cannot_be_written_is_a_full_disk(run: RunDir, capfd: pytest.CaptureFixture[str]) -> None:
    attempt = Attempt.start(run, "train")
    attempt.log.symlink_to("/dev/full")
    with pytest.raises(DiskFullError, match="no space left on the disk"), attempt:
        raise RuntimeError("what went wrong")
    os.write(1, b"said again")
    assert capfd.readouterr().out == "said again"


def test_the_end_of_a_log_without_what_tensorflow_says_of_itself(tmp_path: Path) -> None:
    log, own = tmp_path / "log", ["2026-01-02 03:04:05 starts at step 0", "ValueError: no images"]
    said = [
        "2026-01-02 03:04:05.123456: I tensorflow/core/platform/cpu_feature_guard.cc:210] This TensorFlow binary is",
        "To enable the following instructions: AVX2, in other operations, rebuild TensorFlow",
        "WARNING: All log messages before absl::InitializeLog() is called are written to STDERR",
        "I0000 00:00:1732900000.123456  4711 service.cc:148] XLA service 0x7f initialized",
        "E0000 00:00:1732900000.123456  4711 cuda_blas.cc:1418] Unable to register cuBLAS factory",
    ]
    failed = "E0000 00:00:1732900000.123456  4711 cuda_executor.cc:1228] failed call to cuInit: UNKNOWN ERROR (303)"
    log.write_text("\n".join([own[0], *said, failed, own[1], *said]))
    assert tail(log, 3) == [own[0], failed, own[1]]
    log.write_text("\n".join(said))  # where nothing else was said
    assert tail(log, 2) == said[-2:]


def test_output_of_python_logging_and_of_child_processes_is_kept(
    run: RunDir, capfd: pytest.CaptureFixture[str]
) -> None:
    logger = logging.getLogger("vaehpc.tests")
    with output_to(run.path / "log"):
        print("printed", flush=True)
        logger.info("logged")
        subprocess.run([sys.executable, "-c", "print('by a child')"], check=True)
    print("outside")
    kept = (run.path / "log").read_text()
    assert [word in kept for word in ("printed", "logged", "by a child", "outside")] == [True, True, True, False]
    assert capfd.readouterr().out == "outside\n"


def test_models_come_back_equal(tmp_path: Path) -> None:
    config = run_config()
    write_model(tmp_path / "run.json", config)
    assert read_model(tmp_path / "run.json", RunConfig) == config


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "is not a valid RunConfig"),
        ('{"study": 1}', "is not a valid RunConfig: "),
        ('{"extra": 1}', "is not a valid RunConfig: "),
    ],
)
def test_a_damaged_file_is_named(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "run.json").write_text(text)
    with pytest.raises(UserError, match=message) as caught:
        read_model(tmp_path / "run.json", RunConfig)
    assert str(tmp_path / "run.json") in str(caught.value)


def test_a_folder_that_is_no_study_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is not a study"):
        StudyDir(tmp_path).config()


def test_writing_leaves_nothing_else_behind(tmp_path: Path) -> None:
    write_text(tmp_path / "a", "one")
    write_text(tmp_path / "a", "two")
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("a", "two")]


@pytest.mark.parametrize(
    ("write", "new"), [(write_text, "\ud800"), (write_array, np.array([object()]))], ids=["text", "array"]
)
def test_writing_that_fails_leaves_what_was_there(
    tmp_path: Path, write: Callable[[Path, object], None], new: object
) -> None:
    """Half a surrogate is no text, and an object no number: both are found out after the file was opened."""
    write_text(tmp_path / "a", "whole")
    with pytest.raises(ValueError, match=r"surrogates not allowed|Object arrays cannot be saved"):
        write(tmp_path / "a", new)
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("a", "whole")]


def test_a_read_only_file_system_is_said_of_what_was_to_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Which says so also where what does not exist is to be removed."""

    def refused(*_: object, **__: object) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(Path, "open", refused)
    monkeypatch.setattr(Path, "unlink", refused)
    with pytest.raises(UserError, match=f"no access to {tmp_path / 'a'}: Read-only"):
        write_array(tmp_path / "a", np.zeros(1))


@pytest.mark.parametrize(("name", "stands"), [("folder", "folder"), ("file/a", "file"), ("loop/a", "loop")])
def test_what_stands_in_the_way_is_named(tmp_path: Path, name: str, stands: str) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").touch()
    (tmp_path / "loop").symlink_to("loop")
    before = sorted(tmp_path.iterdir())
    with pytest.raises(UserError, match=f"^{tmp_path / name} cannot be written: .*; move away {tmp_path / stands}$"):
        write_text(tmp_path / name, "text")
    assert sorted(tmp_path.iterdir()) == before


def test_too_little_space_says_how_much_is_needed(tmp_path: Path) -> None:
    require_space(tmp_path / "not" / "there", 1000, 1)
    with pytest.raises(UserError, match=r"needs 1000000000\.0 GB in 410 files, .* GB free"):
        require_space(tmp_path, 10**18, 410)


def test_sizes_are_readable() -> None:
    assert [gigabytes(size) for size in (12_340_000, 5_700_000_000)] == ["12.3 MB", "5.7 GB"]


def test_declarations_ship_with_the_package() -> None:
    assert "entry_point" in declaration("jobs/train.toml")
    with pytest.raises(FileNotFoundError, match="not part of this installation"):
        declaration("jobs/none.toml")
