"""Checkpoints: complete or absent, checked when read, exactly what was saved."""

import errno
import json
import os
import threading
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from tests.examples import run_config, trained_record
from vaehpc.command import DiskFullError
from vaehpc.study.attempts import Attempt, SupersededError
from vaehpc.study.files import RunDir
from vaehpc.study.states import Arrays
from vaehpc.training import checkpoint
from vaehpc.training.checkpoint import (
    NUM_KEPT,
    CheckpointWriter,
    NonFiniteError,
    Progress,
    restore_newest,
    save_checkpoint,
    state_arrays,
    state_hash,
)


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    (tmp_path / "vae-seed003").mkdir()
    return RunDir(tmp_path / "vae-seed003")


def variables(value: float) -> list[keras.Variable]:
    return [
        keras.Variable(np.full((3, 2), value, np.float32), name="kernel"),
        keras.Variable(np.array(int(value)), name="steps", dtype="int64"),
    ]


def save(run: RunDir, value: float, step: int) -> str:
    return save_checkpoint(Attempt.start(run, "train"), variables(value), Progress(step=step))


def test_what_was_saved_comes_back(run: RunDir) -> None:
    digest = save(run, 1.25, step=7)
    restored = variables(0.0)
    assert restore_newest(run, restored) == Progress(step=7)
    np.testing.assert_array_equal(restored[0], np.full((3, 2), 1.25))
    assert digest == state_hash(state_arrays(restored), 7)


def test_hash_depends_on_every_bit_and_on_the_step() -> None:
    arrays = state_arrays(variables(1.0))
    nudged = {**arrays, "kernel": np.nextafter(arrays["kernel"], 2, dtype=np.float32)}
    assert len({state_hash(arrays, 1), state_hash(arrays, 2), state_hash(nudged, 1)}) == 3


def test_without_a_checkpoint_nothing_is_restored(run: RunDir) -> None:
    untouched = variables(2.0)
    assert restore_newest(run, untouched) is None
    np.testing.assert_array_equal(untouched[0], 2.0)


def test_only_the_newest_are_kept(run: RunDir) -> None:
    for step in range(1, 6):
        save(run, step, step)
    assert [path.name for path in sorted(run.checkpoints.iterdir())] == [
        f"step-{step:09d}" for step in range(6 - NUM_KEPT, 6)
    ]


@pytest.mark.parametrize("damage", ["flip", "truncate", "meta", "missing"])
def test_a_damaged_checkpoint_is_passed_over(run: RunDir, damage: str, caplog: pytest.LogCaptureFixture) -> None:
    save(run, 1.0, step=10)
    save(run, 2.0, step=20)
    newest = run.checkpoints / "step-000000020"
    content = (newest / "variables.npz").read_bytes()
    if damage == "flip":
        where = content.index(np.float32(2.0).tobytes() * 3)
        (newest / "variables.npz").write_bytes(content[:where] + b"\1" + content[where + 1 :])
    elif damage == "truncate":
        (newest / "variables.npz").write_bytes(content[: len(content) // 2])
    elif damage == "meta":
        meta = json.loads((newest / "checkpoint.json").read_text())
        meta["progress"]["step"] = 30
        (newest / "checkpoint.json").write_text(json.dumps(meta))
    else:
        (newest / "variables.npz").unlink()
    restored = variables(0.0)
    assert restore_newest(run, restored).step == 10
    np.testing.assert_array_equal(restored[0], 1.0)
    assert "damaged and passed over" in caplog.text


@pytest.mark.parametrize("name", ["variables.npz", "checkpoint.json"])
def test_what_is_no_file_is_passed_over(run: RunDir, name: str) -> None:
    save(run, 1.0, step=10)
    save(run, 2.0, step=20)
    path = run.checkpoints / "step-000000020" / name
    for damage in (path.mkdir, lambda: os.mkfifo(path), lambda: path.symlink_to(path), lambda: path.write_bytes(b"")):
        if path.is_dir() and not path.is_symlink():
            path.rmdir()
        else:
            path.unlink()
        damage()
        assert restore_newest(run, variables(0.0)).step == 10


def test_a_checkpoint_of_another_run_is_passed_over(run: RunDir) -> None:
    attempt = Attempt.start(run, "train")
    save_checkpoint(attempt, variables(1.0), Progress(step=10, identity="own"))
    save_checkpoint(attempt, variables(2.0), Progress(step=20, identity="other"))
    restored = variables(0.0)
    assert restore_newest(run, restored, "own").step == 10
    np.testing.assert_array_equal(restored[0], 1.0)


@pytest.mark.parametrize(("where", "what"), [(np, "savez"), (os, "fsync"), (Path, "mkdir"), (Path, "replace")])
def test_a_full_disk_leaves_the_last_checkpoint(
    run: RunDir, monkeypatch: pytest.MonkeyPatch, where: object, what: str
) -> None:
    """At each place where the file system can say so; afterwards the same goes well."""
    save(run, 1.0, step=10)
    attempt = Attempt.start(run, "train")
    monkeypatch.setattr(where, what, no_space)
    with pytest.raises(DiskFullError, match="no space left on the disk"):
        save_checkpoint(attempt, variables(2.0), Progress(step=20))
    monkeypatch.undo()
    restored = variables(0.0)
    assert restore_newest(run, restored).step == 10
    np.testing.assert_array_equal(restored[0], 1.0)
    assert not (attempt.path / "step-000000020").exists() or what == "replace"
    save_checkpoint(attempt, variables(2.0), Progress(step=20))
    assert restore_newest(run, variables(0.0)).step == 20


@pytest.mark.parametrize(("where", "what"), [(Path, "write_text"), (os, "fsync"), (Path, "replace")])
def test_a_full_disk_leaves_no_marker(run: RunDir, monkeypatch: pytest.MonkeyPatch, where: object, what: str) -> None:
    attempt, record = Attempt.start(run, "train"), trained_record(run_config())
    monkeypatch.setattr(where, what, no_space)
    with pytest.raises(DiskFullError, match="no space left on the disk"):
        attempt.publish_model(record, run.trained_path)
    monkeypatch.undo()
    assert not run.trained_path.exists()
    assert not list(attempt.path.glob(".*"))
    attempt.publish_model(record, run.trained_path)
    assert run.trained() == record


def no_space(*_: object, **__: object) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_state_that_is_not_finite_is_not_kept(run: RunDir) -> None:
    save(run, 1.0, step=10)
    spoilt = [keras.Variable(np.array([1.0, np.nan], np.float32), name="kernel")]
    with pytest.raises(NonFiniteError, match="step 20"):
        save_checkpoint(Attempt.start(run, "train"), spoilt, Progress(step=20))
    assert [path.name for path in run.checkpoints.iterdir()] == ["step-000000010"]


class Writing:
    """A writer beside the training, which waits until it is let go on."""

    def __init__(self, run: RunDir, monkeypatch: pytest.MonkeyPatch) -> None:
        self.variables, self.go_on = variables(1.0), threading.Event()
        self.writer = CheckpointWriter(Attempt.start(run, "train"), self.variables, (), True, lambda _: None)
        write = checkpoint.write_checkpoint

        def write_later(*arguments: Any) -> str:
            assert self.go_on.wait(60)
            return write(*arguments)

        monkeypatch.setattr(checkpoint, "write_checkpoint", write_later)


def test_a_training_that_goes_on_meanwhile_changes_no_bit_of_a_checkpoint(
    run: RunDir, monkeypatch: pytest.MonkeyPatch
) -> None:
    writing = Writing(run, monkeypatch)
    with writing.writer as writer:
        writer._thread.submit(writing.go_on.wait, 60)  # so that it does not even begin before
        writer.save(Progress(step=7))
        for variable in writing.variables:
            variable.assign(variable + 1)
        assert not run.checkpoint_dirs()
        assert writer.newest == {}
        writing.go_on.set()
        writer.finish()
        digest = state_hash(state_arrays(variables(1.0)), 7)
        assert writer.newest == {"checkpoint_step": 7, "checkpoint_sha256": digest}
    restored = variables(0.0)
    assert restore_newest(run, restored) == Progress(step=7)
    np.testing.assert_array_equal(restored[0], 1.0)


def test_a_checkpoint_that_nobody_waited_for_is_there_in_the_end(run: RunDir, monkeypatch: pytest.MonkeyPatch) -> None:
    writing = Writing(run, monkeypatch)
    with writing.writer as writer:
        writer.save(Progress(step=7))
        writing.go_on.set()
    assert [path.name for path in run.checkpoints.iterdir()] == ["step-000000007"]


def test_a_state_is_hashed_once(run: RunDir, monkeypatch: pytest.MonkeyPatch) -> None:
    """94 MB of the article's net: a quarter of an H100's epoch on CelebA."""
    hashed = list[int]()

    def counted(arrays: Arrays, step: int) -> str:
        hashed.append(step)
        return state_hash(arrays, step)

    monkeypatch.setattr(checkpoint, "state_hash", counted)
    with CheckpointWriter(Attempt.start(run, "train"), variables(1.0), (), False, lambda _: None) as writer:
        writer.save(Progress(step=7))
    assert hashed == [7]


def test_what_went_wrong_beside_the_training_is_raised(run: RunDir, monkeypatch: pytest.MonkeyPatch) -> None:
    writing = Writing(run, monkeypatch)
    Attempt.start(run, "train")
    writing.go_on.set()
    with writing.writer as writer:
        writer.save(Progress(step=7))
        with pytest.raises(SupersededError):
            writer.save(Progress(step=8))
    assert not run.checkpoint_dirs()


def test_short_epochs_share_a_checkpoint(run: RunDir, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr(checkpoint.time, "monotonic", lambda: now)

    def takes_a_second(_: Progress) -> None:
        nonlocal now
        now += 1

    writer = CheckpointWriter(Attempt.start(run, "train"), variables(1.0), (), False, takes_a_second)
    with writer:
        assert writer.is_due(epoch_ended=True, longest=600)
        writer.save(Progress(step=1))
        due = {}
        for now in (19, 20, 600, 601):
            due[now] = [writer.is_due(epoch_ended, longest=600) for epoch_ended in (True, False)]
    assert due == {19: [False, False], 20: [True, False], 600: [True, False], 601: [True, True]}


def test_an_attempt_that_was_replaced_publishes_nothing(run: RunDir) -> None:
    orphan = Attempt.start(run, "train")
    Attempt.start(run, "train")
    with pytest.raises(SupersededError):
        save_checkpoint(orphan, variables(1.0), Progress(step=1))
    assert not run.checkpoint_dirs()
