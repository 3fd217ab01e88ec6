"""Checkpoints: complete or absent, checked when read, exactly what was saved."""

import json
from pathlib import Path

import keras
import numpy as np
import pytest

from vaehpc.study.attempts import Attempt, SupersededError
from vaehpc.study.files import RunDir
from vaehpc.training.checkpoint import (
    NUM_KEPT,
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


def test_a_state_that_is_not_finite_is_not_kept(run: RunDir) -> None:
    save(run, 1.0, step=10)
    spoilt = [keras.Variable(np.array([1.0, np.nan], np.float32), name="kernel")]
    with pytest.raises(NonFiniteError, match="step 20"):
        save_checkpoint(Attempt.start(run, "train"), spoilt, Progress(step=20))
    assert [path.name for path in run.checkpoints.iterdir()] == ["step-000000010"]


def test_an_attempt_that_was_replaced_publishes_nothing(run: RunDir) -> None:
    orphan = Attempt.start(run, "train")
    Attempt.start(run, "train")
    with pytest.raises(SupersededError):
        save_checkpoint(orphan, variables(1.0), Progress(step=1))
    assert not run.checkpoint_dirs()
