"""The training task as a process of its own: what it leaves, and that kills, stops and orphans change no bit of it."""

import hashlib
import json
import os
import random
import shutil
import signal
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pytest
from PIL import Image

from tests.examples import run_config
from tests.processes import TIMEOUT, Running
from vaehpc.command import UserError
from vaehpc.machine.hardware import cpu_model
from vaehpc.schema.config import DataConfig, ModelConfig, TrainConfig, levels_of
from vaehpc.schema.results import ProbeRecord
from vaehpc.study import attempts
from vaehpc.study.attempts import all_attempts, made_of, starts_of
from vaehpc.study.files import DataDir, RunDir, StudyDir, write_model
from vaehpc.study.study import data_config
from vaehpc.tasks.device import Device
from vaehpc.tasks.probe import read_probe
from vaehpc.tasks.train import run as run_train
from vaehpc.training.checkpoint import NonFiniteError
from vaehpc.training.encode import UNIFORM_LIMITS

RESULTS = ("history.jsonl", "latents/mu.npy", "latents/log_var.npy", "latents/z.npy")
"""Files whose bytes are compared. Of the recorder's their rows: the files' heads name the run, and an interruption cuts
the rows into other batches."""


def new_run(folder: Path, data: DataConfig, kind: str = "vae", **train: object) -> RunDir:
    config = run_config(kind, data=data, train={"epochs": 40, **train})
    run = RunDir(folder / config.name)
    run.path.mkdir(parents=True)
    write_model(run.config_path, config)
    return run


def crossed(folder: Path, like: RunDir, seed: int) -> RunDir:
    """The same run with the levels that are its seed's digits."""
    config = like.config().model_copy(update={"seed": seed, "levels": levels_of(seed)})
    run = RunDir(folder / config.name)
    run.path.mkdir()
    write_model(run.config_path, config)
    return run


def train_here(path: str) -> None:
    """The training task."""
    from vaehpc.tasks.train import run

    run(path)


def start(run: RunDir) -> Running:
    return Running(train_here, str(run.path))


def train(run: RunDir, seconds: float = TIMEOUT) -> None:
    assert start(run).ended(seconds) == 0, all_attempts(run)[-1].log.read_text()


def start_and_wait(run: RunDir, attempt: int) -> Running:
    """Until the attempt has handed on its first block."""
    process = start(run)
    process.wait_for((run.attempts / f"{attempt:04d}" / "heartbeat.json").exists)
    return process


def digests(run: RunDir) -> dict[str, str]:
    found = {name: hashlib.sha256((run.path / name).read_bytes()).hexdigest() for name in RESULTS}
    return found | {"state": run.trained().state_sha256, "steps": rows_of(run.steps), "probe": rows_of(run.probe)}


def rows_of(path: Path) -> str:
    with path.open("rb") as file:
        rows = pa.ipc.open_stream(file).read_all()
    digest = hashlib.sha256()
    for name in rows.column_names:
        digest.update(rows[name].to_numpy().tobytes())
    return digest.hexdigest()


def outcome(run: RunDir, attempt: int) -> str:
    return str(json.loads((run.attempts / f"{attempt:04d}" / "exit.json").read_text())["outcome"])


def train_beside(path: str, temporary: str) -> None:
    """The training task, which has a folder of its own for temporary files."""
    tempfile.tempdir = temporary
    train_here(path)


@pytest.fixture(scope="module")
def temporary(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of the undisturbed training."""
    return tmp_path_factory.mktemp("temporary")


@pytest.fixture(scope="module")
def undisturbed(faces: DataConfig, temporary: Path, tmp_path_factory: pytest.TempPathFactory) -> RunDir:
    run = new_run(tmp_path_factory.mktemp("undisturbed"), faces)
    assert Running(train_beside, str(run.path), str(temporary)).ended() == 0, all_attempts(run)[-1].log.read_text()
    return run


@pytest.fixture
def interrupted(faces: DataConfig, tmp_path: Path) -> Iterator[RunDir]:
    run = new_run(tmp_path, faces)
    yield run
    for record in run.attempts.glob("*/start.json"):  # a failed test leaves no process behind
        try:
            os.kill(json.loads(record.read_text())["pid"], signal.SIGKILL)
        except ProcessLookupError:
            continue


@pytest.mark.slow
def test_a_crossed_run_whose_levels_are_one_seed_is_that_seeds_run(undisturbed: RunDir, tmp_path: Path) -> None:
    same, other = crossed(tmp_path, undisturbed, 333), crossed(tmp_path, undisturbed, 331)
    for run in (same, other):
        train(run)
    # z of the end is drawn from the stream 'generation', which is the run's own.
    assert {name for name, digest in digests(same).items() if digest != digests(undisturbed)[name]} == {"latents/z.npy"}
    assert same.config().identity != undisturbed.config().identity
    assert digests(other)["state"] != digests(undisturbed)["state"]


def test_a_vae_leaves_what_the_next_stages_read(undisturbed: RunDir) -> None:
    config, record = undisturbed.config(), undisturbed.trained()
    assert (record.step, record.epochs, record.nonfinite_step, record.num_attempts) == (120, 40, None, 1)
    assert (record.device, record.device_kind, record.device_kind_is_guessed) == (cpu_model(), "cpu", False)
    assert (record.driver, record.capability, record.tensor_float_32) == (None, None, False)
    assert record.precision == "float32"
    assert starts_of(undisturbed, None) == [made_of(record)]
    shape = (config.data.num_train, config.arm.model.z_dim)
    mu, log_var, z = (np.load(path) for path in (undisturbed.mu, undisturbed.log_var, undisturbed.z))
    assert {(array.shape, str(array.dtype)) for array in (mu, log_var, z)} == {(shape, "float32")}
    deviations = (z - mu) / np.exp(log_var / 2)
    assert abs(deviations.mean()) < 0.2
    assert deviations.std() == pytest.approx(1, abs=0.15)
    assert record.latents_sha256 == {
        path.relative_to(undisturbed.latents).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in undisturbed.latents.rglob("*.*")
    }
    assert record.files_sha256 == undisturbed.hashes_of_record()
    assert set(record.files_sha256) == {"history.jsonl", "recorder/probe.arrow", "recorder/steps.arrow"}
    assert record.identity == config.identity
    assert [epoch.step for epoch in undisturbed.history()] == list(range(3, 121, 3))
    with pa.OSFile(str(undisturbed.probe)) as file:
        assert pa.ipc.open_stream(file).read_all()["step"].to_pylist() == [50, 100]
    assert outcome(undisturbed, 1) == "done"
    assert "starts at step 0" in all_attempts(undisturbed)[0].log.read_text()


@pytest.mark.usefixtures("undisturbed")
def test_a_training_leaves_no_temporary_file(temporary: Path) -> None:
    """TensorFlow's autograph writes one for each function that it translates, and a task's process removes none."""
    assert list(temporary.iterdir()) == []


def size_of(picture: Path) -> tuple[int, int]:
    with Image.open(picture) as image:
        return image.size


def test_images_show_originals_reconstructions_and_every_kind_of_random_and_changed_z(undisturbed: RunDir) -> None:
    sizes = {path.stem: size_of(path) for path in undisturbed.images.glob("*.png")}
    random_z = {"random_normal", "random_fitted", *(f"random_uniform_{b}" for b in UNIFORM_LIMITS)}
    assert sizes == dict.fromkeys({"reconstructions", *random_z, "perturbations", "paths"}, (160, 32))


@pytest.mark.slow
def test_tensorboard_changes_no_bit(undisturbed: RunDir, faces: DataConfig, tmp_path: Path) -> None:
    run = new_run(tmp_path, faces, tensorboard=True)
    train(run)
    assert digests(run) == digests(undisturbed)
    found = {str(path.relative_to(run.tensorboard)) for path in run.tensorboard.rglob("*") if path.is_file()}
    assert {"events.out.tfevents.0001", "projector_config.pbtxt", "projector/mu.tsv", "projector/sprite.png"} <= found
    assert len([name for name in found if name.startswith("images/")]) == 40


def test_a_trained_run_is_left_alone(undisturbed: RunDir) -> None:
    before = digests(undisturbed)
    train(undisturbed)
    assert digests(undisturbed) == before
    assert len(all_attempts(undisturbed)) == 1


def kill_and_finish(run: RunDir, num_kills: int, moment: Callable[[], float]) -> None:
    """Kill a run so many times, each time so many seconds after its first block, and finish it."""
    for attempt in range(1, num_kills + 1):
        process = start_and_wait(run, attempt)
        time.sleep(moment())
        process.signal(signal.SIGKILL)
        killed = process.ended() == -signal.SIGKILL
        assert killed, f"the run had ended before kill {attempt}: it proves less than it says"
    train(run, 600)


@pytest.mark.slow
def test_kill_9_at_random_moments_changes_nothing(undisturbed: RunDir, interrupted: RunDir) -> None:
    kill_and_finish(interrupted, 2, lambda: random.uniform(0, 0.1))
    assert digests(interrupted) == digests(undisturbed)


@pytest.mark.long
@pytest.mark.parametrize("precision", ["float32", "mixed_bfloat16", "mixed_float16"])
def test_twenty_kills_change_nothing(faces: DataConfig, tmp_path: Path, precision: str) -> None:
    asked = {"epochs": 40, "batch_size": 2, "checkpoint_seconds": 0.05, "precision": precision}
    whole, killed = (new_run(tmp_path / name, faces, **asked) for name in ("whole", "killed"))
    train(whole, 600)
    kill_and_finish(killed, 20, lambda: random.choice((0.2, 1.0)) * random.random())
    logs = [attempt.log.read_text() for attempt in all_attempts(killed)]
    first_steps = [int(log.partition("starts at step ")[2].split()[0]) for log in logs]
    assert digests(killed) == digests(whole)
    print(f"\n{precision}: {whole.trained().state_sha256}, {whole.trained().step} steps, starts at {first_steps}")


@pytest.mark.long
def test_three_kills_of_the_full_net_change_nothing(tmp_path: Path) -> None:
    from vaehpc.tasks.prepare import Request, prepare

    prepare(Request(synthetic=450, size=96, num_train=380, workers=1), tmp_path / "faces")
    large = data_config(DataDir(tmp_path / "faces"))
    runs = []
    for name in ("whole", "killed"):
        config = run_config("vae", data=large)
        arm = config.arm.model_copy(
            update={"model": ModelConfig(), "train": TrainConfig(epochs=6, checkpoint_seconds=1, eval_images=100)}
        )
        run = RunDir(tmp_path / name / config.name)
        run.path.mkdir(parents=True)
        write_model(run.config_path, config.model_copy(update={"arm": arm}))
        runs.append(run)
    train(runs[0], 600)
    kill_and_finish(runs[1], 3, lambda: random.uniform(0, 3))
    assert digests(runs[1]) == digests(runs[0])
    print(f"\nfull net: {runs[0].trained().state_sha256} after {runs[0].trained().step} steps and 3 kills")


def test_a_stop_file_ends_the_run_at_a_checkpoint(undisturbed: RunDir, interrupted: RunDir) -> None:
    interrupted.stop.touch()
    train(interrupted)
    assert outcome(interrupted, 1) == "stopped"
    assert not interrupted.trained_path.exists()
    assert sorted(path.name for path in interrupted.checkpoints.iterdir()) == ["step-000000000", "step-000000001"]
    interrupted.stop.unlink()
    train(interrupted)
    assert digests(interrupted) == digests(undisturbed)


@pytest.mark.slow
def test_a_signal_ends_the_run_at_a_checkpoint(undisturbed: RunDir, interrupted: RunDir) -> None:
    for attempt, number in enumerate((signal.SIGUSR1, signal.SIGTERM), start=1):
        process = start_and_wait(interrupted, attempt)
        process.signal(number)
        assert process.ended() == 0
        assert outcome(interrupted, attempt) == "stopped"
        assert not interrupted.trained_path.exists()
    train(interrupted)
    assert digests(interrupted) == digests(undisturbed)


@pytest.mark.slow
def test_an_orphan_that_wakes_up_leaves_and_changes_nothing(undisturbed: RunDir, interrupted: RunDir) -> None:
    orphan = start_and_wait(interrupted, 1)
    orphan.signal(signal.SIGSTOP)
    train(interrupted)
    finished = digests(interrupted)
    orphan.signal(signal.SIGCONT)
    assert orphan.ended() == 0
    assert outcome(interrupted, 1) == "superseded"
    assert digests(interrupted) == finished == digests(undisturbed)


def note_beats(path: str, seconds: float) -> None:
    """The training task, which leaves the steps at which it beat."""
    beat, steps = attempts.Attempt.beat, set[int]()

    def noted(attempt: attempts.Attempt, **state: Any) -> None:
        steps.add(state["step"])
        beat(attempt, **state)

    attempts.BEAT_SECONDS, attempts.Attempt.beat = seconds, noted  # type: ignore[method-assign]
    train_here(path)
    Path(path, "beats").write_text(str(sorted(steps)))


@pytest.mark.slow
@pytest.mark.parametrize(("seconds", "steps"), [(0, "[1, 2, 3, 6]"), (1000, "[1, 3, 6]")])
def test_short_blocks_share_a_heartbeat(faces: DataConfig, tmp_path: Path, seconds: float, steps: str) -> None:
    """Blocks end after 1, 2, 3 and 6 steps, epochs after 3 and 6."""
    run = new_run(tmp_path, faces, epochs=2, keep_every_epochs=1)
    assert Running(note_beats, str(run.path), seconds).ended() == 0
    assert (run.path / "beats").read_text() == steps


def test_a_run_that_is_not_finite_is_a_result(faces: DataConfig, tmp_path: Path) -> None:
    run = new_run(tmp_path, faces, learning_rate=1e12)
    train(run)
    record = run.trained()
    assert record.nonfinite_step is not None
    assert record.nonfinite_step <= 3
    assert record.step == 0
    assert np.isfinite(np.load(run.mu)).all()
    assert "last good state is kept" in all_attempts(run)[0].log.read_text()


def test_what_the_radius_did_before_a_run_was_not_finite_is_kept(
    faces: DataConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = new_run(tmp_path, faces, epochs=2)
    seen = ProbeRecord(step=2, radius_median=20.0, radius_max=30.0, offset=1.0, spread=20.0)

    def lost(*_: object) -> None:
        raise NonFiniteError(2, probe=(seen,))

    monkeypatch.setattr("vaehpc.tasks.train._fit", lost)
    # In this process TensorFlow may have computed already, and then its threads can no longer be set.
    monkeypatch.setattr("vaehpc.tasks.train.configure_tensorflow", lambda _: Device(cpu_model(), "cpu"))
    run_train(str(run.path))
    assert run.trained().nonfinite_step == 2
    assert read_probe(run.probe).steps.tolist() == [2]


def test_a_missing_data_set_fails_with_its_reason_in_the_log(faces: DataConfig, tmp_path: Path) -> None:
    run = new_run(tmp_path, faces.model_copy(update={"path": str(tmp_path / "gone")}))
    assert start(run).ended() == 1
    assert outcome(run, 1) == "failed"
    assert "holds no data set" in all_attempts(run)[0].log.read_text()
    assert not run.trained_path.exists()


def test_a_training_whose_gpu_is_not_there_fails_before_it_reads_anything(
    faces: DataConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VAEHPC_GPUS", "1")
    run = new_run(tmp_path, faces.model_copy(update={"path": str(tmp_path / "gone")}))
    with pytest.raises(UserError, match="TensorFlow sees 0 of 1 GPUs"):
        run_train(str(run.path))
    assert outcome(run, 1) == "failed"
    assert not run.checkpoints.exists() or not list(run.checkpoints.iterdir())


def fail_while_images_are_read(path: str) -> None:
    """A training that fails while the next images are still read, from a slow file system."""
    from vaehpc.training import fit, pipeline

    quickly, copied = pipeline.ShardedImages.__getitem__, np.ones(100_000)

    def fail(*_: object) -> None:
        raise LookupError("planted after a block")

    def slowly(images: pipeline.ShardedImages, indices: npt.NDArray[np.int64]) -> npt.NDArray[np.uint8]:
        until = time.monotonic() + 1
        while time.monotonic() < until:
            copied[...] = np.ones(100_000)
        return quickly(images, indices)

    fit._after_block, pipeline.ShardedImages.__getitem__ = fail, slowly  # type: ignore[assignment, method-assign]
    train_here(path)


@pytest.mark.slow
def test_a_training_that_fails_ends_while_images_are_read(faces: DataConfig, tmp_path: Path) -> None:
    run = new_run(tmp_path, faces)
    assert Running(fail_while_images_are_read, str(run.path)).ended() == 1
    assert outcome(run, 1) == "failed"
    assert "planted after a block" in all_attempts(run)[0].log.read_text()


@pytest.mark.slow
def test_xla_takes_its_programs_from_the_study(faces: DataConfig, tmp_path: Path) -> None:
    study = StudyDir(tmp_path / "a study")

    def trained(exit_code: int) -> RunDir:
        run = new_run(study.path, faces, epochs=1, batch_size=faces.num_train, jit_compile=True)
        assert start(run).ended() == exit_code
        return run

    found = digests(run := trained(0))
    programs = set(study.jobs.glob("programs-*/*.pb"))
    assert programs
    shutil.rmtree(run.path)
    assert digests(trained(0)) == found
    assert set(study.jobs.glob("programs-*/*.pb")) == programs
    for program in programs:
        program.write_bytes(program.read_bytes()[:1000])
    shutil.rmtree(run.path)
    trained(1)  # because it is read
    assert not list(study.jobs.glob("programs-*"))
