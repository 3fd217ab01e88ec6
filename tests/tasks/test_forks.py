"""Runs that start from another run's state: forks with one thing changed, and a VAE that starts from an AE."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from tests import plant
from tests.examples import arm_config, run_config
from vaehpc.command import UserError
from vaehpc.schema.config import DataConfig, ForkConfig
from vaehpc.study.files import RunDir
from vaehpc.tasks.train import run as train
from vaehpc.training.checkpoint import read_checkpoint

START, END = 6, 10  # the state after 2 epochs of 3 steps, and where forks end inside the fourth


@pytest.fixture(scope="module")
def source(faces: DataConfig, tmp_path_factory: pytest.TempPathFactory) -> RunDir:
    """A VAE of 5 epochs that keeps all its checkpoints."""
    config = run_config("vae", data=faces, train={"epochs": 5, "keep_every_epochs": 1})
    folder = plant.run(tmp_path_factory.mktemp("study") / config.name, config)
    train(str(folder.path))
    return folder


def new_fork(source: RunDir, path: Path, seed: int = 0, **fork: Any) -> RunDir:
    config = source.config()
    start = {"checkpoint": str(source.checkpoints / f"step-{START:09d}"), "step": START, "until_step": END}
    found = ForkConfig(source="s/r", seed=config.seed, **{**start, **fork})
    arm = config.arm.model_copy(update={"name": "fork", "fork": found})
    return plant.run(path / f"fork-seed{seed:03d}", config.model_copy(update={"arm": arm, "seed": seed}))


def forked(source: RunDir, path: Path, seed: int = 0, **fork: Any) -> RunDir:
    folder = new_fork(source, path, seed, **fork)
    train(str(folder.path))
    return folder


def rows(run: RunDir) -> dict[str, np.ndarray]:
    """Steps START ... END - 1."""
    with run.steps.open("rb") as file:
        table = pa.ipc.open_stream(file).read_all()
    steps = table["step"].to_numpy()
    return {name: table[name].to_numpy()[(steps >= START) & (steps < END)] for name in table.column_names}


def test_a_fork_that_changes_nothing_repeats_its_source_to_the_bit(source: RunDir, tmp_path: Path) -> None:
    fork = forked(source, tmp_path, seed=7)
    original = rows(source)
    for name, values in rows(fork).items():
        np.testing.assert_array_equal(values, original[name], err_msg=name)
    assert fork.trained().step == END
    assert not fork.latents.exists()
    assert [epoch.epoch for epoch in fork.history()] == [1, 2, 3]  # those of its source, and its own
    assert fork.history() == source.history()[:3]


def test_a_fork_of_the_start_needs_no_checkpoint(source: RunDir, tmp_path: Path) -> None:
    fork = forked(source, tmp_path, seed=7, checkpoint=None, step=0)
    original = rows(source)
    for name, values in rows(fork).items():
        np.testing.assert_array_equal(values, original[name], err_msg=name)
    assert fork.history() == source.history()[:3]


def test_new_noise_leaves_the_batches(source: RunDir, tmp_path: Path) -> None:
    original = rows(source)
    first, second = (rows(forked(source, tmp_path, seed, renewed="noise")) for seed in (0, 1))
    np.testing.assert_array_equal(first["batch_hash"], original["batch_hash"])
    for one, other in ((first, original), (first, second), (second, original)):
        assert not (one["epsilon_max"] == other["epsilon_max"]).any()


def test_new_batches_leave_the_noise(source: RunDir, tmp_path: Path) -> None:
    original, renewed = rows(source), rows(forked(source, tmp_path, renewed="shuffling"))
    assert not (renewed["batch_hash"] == original["batch_hash"]).any()
    np.testing.assert_array_equal(renewed["epsilon_max"], original["epsilon_max"])


def test_an_image_left_out_changes_its_batch_alone(source: RunDir, tmp_path: Path) -> None:
    original = rows(source)
    suspect = int(original["image_loss_image"][1])
    without = rows(forked(source, tmp_path, left_out=suspect))
    # It comes once an epoch: in the step that named it, and nowhere else before the next epoch's end.
    assert list(without["batch_hash"] != original["batch_hash"])[:3] == [False, True, False]
    assert suspect not in without["image_loss_image"]
    assert without["total_loss"][0] == original["total_loss"][0]
    assert without["total_loss"][1] != original["total_loss"][1]


def test_fresh_moments_start_adam_anew(source: RunDir, tmp_path: Path) -> None:
    original, fresh = rows(source), rows(forked(source, tmp_path, fresh_moments=True))
    assert fresh["gradient_norm"][0] == original["gradient_norm"][0]
    # Without its bias v is g^2 at Adam's first step: the RMS of g / sqrt(v) is 1 but for weights without a gradient.
    assert fresh["gradient_peak"][0] == pytest.approx(1, rel=1e-3)
    assert original["gradient_peak"][0] > 1.5


def test_a_fork_without_its_start_says_so(source: RunDir, tmp_path: Path) -> None:
    fork = new_fork(source, tmp_path, checkpoint=str(tmp_path / "gone"))
    with pytest.raises(UserError, match=r"gone/checkpoint\.json does not exist"):
        train(str(fork.path))


def test_a_vae_starts_from_the_weights_of_its_ae(faces: DataConfig, tmp_path: Path) -> None:
    ae = run_config("ae", data=faces, train={"epochs": 1})
    arm = arm_config("vae", "vae-from-ae", train={"epochs": 1}, start_from="ae")
    vae = run_config(data=faces, arm=arm)
    folder = plant.run(tmp_path / vae.name, vae)
    with pytest.raises(UserError, match="starts from the weights of ae-seed003, which is not trained yet"):
        train(str(folder.path))
    of_ae = plant.run(tmp_path / ae.name, ae)
    train(str(of_ae.path))
    train(str(folder.path))
    _, trained = read_checkpoint(of_ae.checkpoints / "step-000000003")
    _, started = read_checkpoint(folder.checkpoints / "step-000000000")
    weights = {name: array for name, array in trained.items() if not name.startswith("adam")}
    for name, array in weights.items():
        np.testing.assert_array_equal(started[name], array)
    assert {"log_var/kernel", "log_var/bias"} == {
        name for name in started.keys() - weights.keys() if not name.startswith("adam")
    }
    assert not started["adam/mu_kernel_momentum"].any()
