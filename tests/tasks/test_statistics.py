import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from planted import AE, NUM_TRAIN, VAE, Z_DIM, points_on_a_sphere, study_config, train, write_study

from vaehpc.files import Attempt, RunDir, UserError
from vaehpc.tasks import statistics


@pytest.fixture
def make_run(tmp_path) -> Callable[..., RunDir]:
    """A trained run of an arm, with these mu or those on a sphere of R = 16."""

    def make(arm=VAE, mu=None) -> RunDir:
        config = study_config([arm], {arm.name: 1})
        run_dir = write_study(tmp_path / "study", config).run(f"{arm.name}-seed000")
        train(run_dir, config.runs()[0], points_on_a_sphere(16) if mu is None else mu)
        return run_dir

    return make


def outcomes(run_dir: RunDir) -> list[str]:
    return [json.loads(attempt.exit_path.read_text())["outcome"] for attempt in run_dir.all_attempts()]


def test_measures_what_training_left(make_run):
    run_dir = make_run()
    statistics.run(str(run_dir.path))
    measured = run_dir.statistics()
    mu, z = np.load(run_dir.mu), np.load(run_dir.z)
    assert (measured.run, measured.num_images, measured.z_dim) == ("vae-tiny-seed000", NUM_TRAIN, Z_DIM)
    assert measured.num_nonfinite == 0
    assert measured.radius_mu.median == pytest.approx(16, rel=1e-6)
    assert measured.radius_z.mean == pytest.approx(np.linalg.norm(z, axis=1).mean(), rel=1e-6)
    assert measured.offset == pytest.approx(np.linalg.norm(mu.mean(axis=0)), rel=1e-5)
    assert measured.offset**2 + measured.spread**2 == pytest.approx(256, rel=1e-6)
    assert measured.log_var is not None
    assert (measured.log_var.min, measured.log_var.max) == (-14, -14)
    assert measured.difference is not None
    assert measured.difference.max_component == pytest.approx(0.001, rel=1e-2)
    assert measured.plan_sha256 == run_dir.config().plan.sha256
    assert outcomes(run_dir) == ["done"]


def test_writes_radii_in_image_order(make_run):
    run_dir = make_run(mu=np.arange(NUM_TRAIN, dtype=np.float32)[:, np.newaxis] * np.eye(1, Z_DIM, dtype=np.float32))
    statistics.run(str(run_dir.path))
    radius_mu, radius_z = (np.load(run_dir.statistics_arrays / f"radius_{name}.npy") for name in ("mu", "z"))
    assert radius_mu.dtype == radius_z.dtype == np.float32
    assert radius_mu.tolist() == list(range(NUM_TRAIN))
    np.testing.assert_allclose(radius_z, np.linalg.norm(np.load(run_dir.z), axis=1), rtol=1e-6)


def test_an_ae_has_no_posterior(make_run):
    run_dir = make_run(arm=AE)
    statistics.run(str(run_dir.path))
    measured = run_dir.statistics()
    assert (measured.log_var, measured.difference) == (None, None)
    assert measured.radius_z == measured.radius_mu


def test_noise_is_expected_with_the_arms_factor(make_run):
    assert VAE.vae is not None
    halved = VAE.model_copy(update={"vae": VAE.vae.model_copy(update={"epsilon_factor": 0.5})})
    run_dir = make_run(arm=halved)
    statistics.run(str(run_dir.path))
    difference = run_dir.statistics().difference
    assert difference is not None
    assert difference.expected_mean_abs_radius == pytest.approx(np.sqrt(2 / np.pi) * 0.5 * np.exp(-7), rel=1e-5)


def test_nothing_is_done_twice(make_run):
    run_dir = make_run()
    statistics.run(str(run_dir.path))
    written = run_dir.statistics_path.stat().st_mtime_ns
    statistics.run(str(run_dir.path))
    assert run_dir.statistics_path.stat().st_mtime_ns == written
    assert len(run_dir.all_attempts()) == 1


def test_arrays_without_their_marker_are_replaced(make_run):
    run_dir = make_run()
    run_dir.statistics_arrays.mkdir()
    (run_dir.statistics_arrays / "radius_mu.npy").write_text("of an attempt that was killed")
    statistics.run(str(run_dir.path))
    assert np.load(run_dir.statistics_arrays / "radius_mu.npy").shape == (NUM_TRAIN,)


def test_an_untrained_run_is_refused(make_run):
    run_dir = make_run()
    run_dir.trained_path.unlink()
    with pytest.raises(UserError, match=r"no trained\.json"):
        statistics.run(str(run_dir.path))
    assert run_dir.all_attempts() == []


def test_components_that_are_not_finite_are_counted(make_run):
    mu = points_on_a_sphere(16)
    mu[0, 0], mu[1] = np.nan, np.inf
    run_dir = make_run(mu=mu)
    statistics.run(str(run_dir.path))
    measured = run_dir.statistics()
    assert measured.num_nonfinite == 2 * (1 + Z_DIM)  # in mu, and in z made from it
    assert measured.radius_mu.median == pytest.approx(16, rel=1e-6)
    assert np.isnan(np.load(run_dir.statistics_arrays / "radius_mu.npy")).tolist()[:3] == [True, False, False]


def test_latents_that_are_all_nan_are_a_result(make_run):
    run_dir = make_run(mu=np.full((NUM_TRAIN, Z_DIM), np.nan, dtype=np.float32))
    statistics.run(str(run_dir.path))
    measured = run_dir.statistics()
    assert measured.num_nonfinite == 2 * NUM_TRAIN * Z_DIM
    assert np.isnan([measured.radius_mu.median, measured.offset, measured.spread]).all()


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def save(array: np.ndarray) -> Callable[[Path], None]:
    return lambda path: np.save(path, array)


DAMAGES = {
    "truncated": (truncate, "cannot be read"),
    "missing": (Path.unlink, "cannot be read"),
    "empty": (lambda path: path.write_bytes(b""), "cannot be read"),
    "a web page": (lambda path: path.write_text("<html>not found</html>" * 20), "cannot be read"),
    "a zip": (lambda path: path.write_bytes(b"PK\x03\x04" * 50), "cannot be read"),
    "too few images": (save(points_on_a_sphere(16, NUM_TRAIN - 1)), r"\(39, 4\), not the run's float32 \(40, 4\)"),
    "another z_dim": (save(np.zeros((NUM_TRAIN, 3), np.float32)), r"\(40, 3\)"),
    "another type": (save(np.zeros((NUM_TRAIN, Z_DIM))), "float64"),
}


@pytest.mark.parametrize("array", ["mu", "log_var", "z"])
@pytest.mark.parametrize(("damage", "message"), DAMAGES.values(), ids=DAMAGES.keys())
def test_a_damaged_array_is_named(make_run, array, damage, message):
    run_dir = make_run()
    path = getattr(run_dir, array)
    damage(path)
    with pytest.raises(UserError, match=message) as raised:
        statistics.run(str(run_dir.path))
    assert str(raised.value).startswith(str(path))
    assert "launch its study again" in str(raised.value)
    assert not run_dir.statistics_path.exists()
    assert not run_dir.statistics_arrays.exists()
    assert outcomes(run_dir) == ["failed"]


def test_a_superseded_attempt_publishes_nothing(make_run, monkeypatch):
    run_dir = make_run()

    def restarted_elsewhere(*arguments):
        Attempt.start(run_dir, "statistics")
        return measure(*arguments)

    measure = statistics.latent_statistics
    monkeypatch.setattr(statistics, "latent_statistics", restarted_elsewhere)
    statistics.run(str(run_dir.path))
    assert not run_dir.statistics_path.exists()
    assert not run_dir.statistics_arrays.exists()
    assert json.loads(run_dir.all_attempts()[0].exit_path.read_text())["outcome"] == "superseded"


def test_a_full_disk_is_said(make_run, monkeypatch):
    run_dir = make_run()

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "save", full)
    with pytest.raises(UserError, match="no space left"):
        statistics.run(str(run_dir.path))
    assert not run_dir.statistics_path.exists()


@pytest.mark.parametrize("task", ["statistics", "aggregate"])
def test_needs_no_tensorflow(task):
    code = f"import sys, vaehpc.tasks.{task}; sys.exit('tensorflow' in sys.modules or 'keras' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
