import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests import plant
from tests.examples import AE, VAE, quick_plan, run_config, study_config
from vaehpc.command import UserError
from vaehpc.schema.config import RunConfig
from vaehpc.schema.plan import AttributePlan
from vaehpc.schema.results import ATTRIBUTES, Manifest, Preprocessing, Split
from vaehpc.stats import latents
from vaehpc.study.attempts import Attempt, all_attempts
from vaehpc.study.files import RunDir, write_model
from vaehpc.tasks import statistics

NUM_TRAIN, Z_DIM = 40, VAE.model.z_dim


@pytest.fixture
def make_run(tmp_path) -> Callable[..., RunDir]:
    """A trained run of an arm, with these mu or those on a sphere of R = 16."""

    def make(arm=VAE, mu=None, seed=0) -> RunDir:
        run_dir = plant.run(tmp_path / f"{arm.name}-seed{seed:03d}", run_config(arm=arm, seed=seed, plan=quick_plan()))
        plant.trained(run_dir, mu=plant.sphere(16) if mu is None else mu)
        return run_dir

    return make


def outcomes(run_dir: RunDir) -> list[str]:
    return [json.loads(attempt.exit_path.read_text())["outcome"] for attempt in all_attempts(run_dir)]


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
    assert measured.scalars == {
        "scale_slope": pytest.approx(256 + Z_DIM * (np.exp(-14) - 1), rel=1e-5),
        "signal_to_noise": pytest.approx(np.median(mu.var(axis=0, dtype=np.float64)) / np.exp(-14), rel=1e-5),
    }
    assert measured.plan_sha256 == run_dir.config().plan_sha256
    assert outcomes(run_dir) == ["done"]
    beat = json.loads(all_attempts(run_dir)[0].heartbeat_path.read_text())
    assert (beat["part"], beat["part_number"], beat["num_parts"]) == ("t-SNE", 6, 6)


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
    assert (measured.log_var, measured.difference, measured.scalars) == (None, None, {})
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
    assert len(all_attempts(run_dir)) == 1


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
    assert all_attempts(run_dir) == []


def test_components_that_are_not_finite_are_counted(make_run):
    mu = plant.sphere(16)
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


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-5] ^= 1
    path.write_bytes(content)


DAMAGES = {
    "flipped": (flip, "it is not what was written"),
    "a folder": (lambda path: (path.unlink(), path.mkdir()), "it is a folder"),
    "a pipe": (lambda path: (path.unlink(), os.mkfifo(path)), "it is a pipe or device"),
    "truncated": (truncate, "cannot be read"),
    "missing": (Path.unlink, "cannot be read"),
    "empty": (lambda path: path.write_bytes(b""), "cannot be read"),
    "a web page": (lambda path: path.write_text("<html>not found</html>" * 20), "cannot be read"),
    "a zip": (lambda path: path.write_bytes(b"PK\x03\x04" * 50), "cannot be read"),
    "too few images": (save(plant.sphere(16, NUM_TRAIN - 1)), r"\(39, 4\), not the run's float32 \(40, 4\)"),
    "another z_dim": (save(np.zeros((NUM_TRAIN, 3), np.float32)), r"\(40, 3\)"),
    "another type": (save(np.zeros((NUM_TRAIN, Z_DIM))), "float64"),
}


@pytest.mark.parametrize("array", ["mu", "log_var", "z"])
@pytest.mark.parametrize(("damage", "message"), DAMAGES.values(), ids=DAMAGES.keys())
def test_a_damaged_array_is_named(make_run, array, damage, message):
    run_dir = make_run()
    if message == "it is not what was written":
        plant.sealed(run_dir)
    path = getattr(run_dir, array)
    damage(path)
    with pytest.raises(UserError, match=message) as raised:
        statistics.run(str(run_dir.path))
    assert str(raised.value).startswith(str(path))
    assert "launch its study again" in str(raised.value)
    assert not run_dir.statistics_path.exists()
    assert not run_dir.statistics_arrays.exists()
    assert outcomes(run_dir) == ["failed"]


def test_measures_the_cloud_and_keeps_its_arrays(make_run):
    run_dir = make_run(mu=cloud())
    statistics.run(str(run_dir.path))
    measured, plan = run_dir.statistics(), run_dir.config().plan
    arrays = {path.stem: np.load(path) for path in run_dir.statistics_arrays.glob("*.npy")}
    assert measured.gaussian is not None and measured.dimension is not None and measured.inertia is not None
    assert measured.gaussian.num_images == NUM_TRAIN
    assert measured.gaussian.sd.max == arrays["axis_sd"].max() == pytest.approx(cloud().std(axis=0).max(), rel=1e-5)
    assert arrays["principal_variances"].sum() == pytest.approx(measured.spread**2)
    assert arrays["principal_components"].shape == (Z_DIM, Z_DIM)
    assert measured.gaussian.radius_sd == pytest.approx(np.linalg.norm(cloud(), axis=1).std(), rel=1e-5)
    assert measured.gaussian.radius_mean_expected == pytest.approx(measured.gaussian.radius_mean, rel=0.05)
    assert measured.dimension.num_neighbours == plan.dimension.num_neighbours
    assert measured.inertia.num_clusters == (2, 4, 6)
    assert list(measured.inertia.inertia) == sorted(measured.inertia.inertia, reverse=True)
    names = [settings.name for settings in plan.tsne.settings]
    assert [(found.num_images, found.settings) for found in measured.tsne] == [
        (size, name) for size in (30, 35) for name in names
    ]
    for size in (30, 35):
        assert arrays[f"tsne_{size}_images"].tolist() == sorted(set(arrays[f"tsne_{size}_images"].tolist()))
        assert all(arrays[f"tsne_{size}_{name}"].shape == (size, 2) for name in names)
    assert set(arrays["tsne_30_images"]) < set(arrays["tsne_35_images"]) < set(range(NUM_TRAIN))
    assert len({found.seed for found in measured.tsne}) == len(names)


def cloud() -> np.ndarray:
    return (np.random.default_rng(8).standard_normal((NUM_TRAIN, Z_DIM)) * [1, 2, 3, 4] + 3).astype(np.float32)


def test_only_the_plans_seeds_are_embedded_in_large_sizes(make_run):
    sizes = []
    for seed in (0, 1):
        run_dir = make_run(mu=cloud(), seed=seed)
        statistics.run(str(run_dir.path))
        sizes.append(sorted({found.num_images for found in run_dir.statistics().tsne}))
    assert sizes == [[30, 35], [30]]


def test_a_second_measurement_is_equal_and_another_seed_is_not(tmp_path):
    first, second = study_config([VAE], 2, quick_plan()).runs()
    found = []
    for folder, run in [("one", first), ("again", first), ("other", second)]:
        fields, arrays = statistics.cloud_statistics(run, cloud(), None, 1)
        found.append((fields["inertia"].seeds, fields["dimension"].two_nn_surrogate, arrays["tsne_30_images"].tolist()))
        coordinates = arrays["tsne_30_10-16"]
        np.save(tmp_path / folder, coordinates)
    assert found[0] == found[1]
    assert all(one != other for one, other in zip(found[0], found[2], strict=True))
    assert (tmp_path / "one.npy").read_bytes() == (tmp_path / "again.npy").read_bytes()


def test_images_that_are_too_far_out_are_left_out_of_the_cloud(make_run):
    mu = cloud()
    mu[[0, 3], 0] = -1e30, 1e30
    run_dir = make_run(mu=mu)
    statistics.run(str(run_dir.path))
    measured = run_dir.statistics()
    assert measured.gaussian is not None
    assert measured.gaussian.num_images == NUM_TRAIN - 2
    images = np.load(run_dir.statistics_arrays / "tsne_35_images.npy")
    assert images.max() >= NUM_TRAIN - 3  # positions in the training split, not among the finite images
    assert not {0, 3} & set(images.tolist())


@pytest.mark.parametrize("where", ["training", "latents"])
def test_of_a_run_that_is_not_finite_only_what_its_own_page_shows_is_measured(make_run, where):
    mu = cloud()
    if where == "latents":
        mu[0, 0] = np.nan
    run_dir = make_run(mu=mu)
    plant.marker(run_dir, nonfinite_step=7 if where == "training" else None)
    plant_heads(run_dir, 10, {"mu": 2, "log_var": 1})
    statistics.run(str(run_dir.path))
    measured = run_dir.statistics()
    assert measured.gaussian is not None and measured.heads is not None
    assert measured.gaussian.num_images == NUM_TRAIN - (where == "latents")
    assert (measured.log_var, measured.difference, measured.dimension, measured.inertia) == (None,) * 4
    assert (measured.tsne, measured.probes) == ((), None)
    arrays = {path.stem for path in run_dir.statistics_arrays.iterdir()}
    assert {"radius_mu", "mahalanobis_qq"} < arrays
    assert not [name for name in arrays if name.startswith("tsne")]


@pytest.mark.parametrize(
    "mu", [np.full((NUM_TRAIN, Z_DIM), 0.5), np.full((NUM_TRAIN, Z_DIM), np.nan)], ids=["same", "nan"]
)
def test_points_without_a_cloud_are_a_result(make_run, mu):
    run_dir = make_run(mu=mu.astype(np.float32))
    statistics.run(str(run_dir.path))
    measured = run_dir.statistics()
    assert (measured.gaussian, measured.dimension, measured.inertia, measured.tsne) == (None, None, None, ())
    assert sorted(path.stem for path in run_dir.statistics_arrays.iterdir()) == ["radius_mu", "radius_z"]


def test_a_flat_or_collapsed_cloud_is_measured(make_run):
    mu = cloud()
    mu[:, 2:] = 1.5
    run_dir = make_run(mu=mu)
    statistics.run(str(run_dir.path))
    gaussian = run_dir.statistics().gaussian
    assert gaussian is not None
    assert (gaussian.rank, gaussian.num_active) == (2, 2)


def plant_heads(run_dir: RunDir, step: int, heads: dict[str, float]) -> Path:
    """A checkpoint with heads whose kernels hold this value each."""
    weights = {f"{head}/kernel": np.full((2, Z_DIM), size, np.float32) for head, size in heads.items()}
    biases = {f"{head}/bias": np.full(Z_DIM, -1.0) for head in heads}
    path = plant.checkpoint(run_dir, step, **weights, **biases)
    plant.at_checkpoint(run_dir, path)
    return path


def test_heads_are_those_of_the_newest_checkpoint(make_run):
    run_dir = make_run()
    plant_heads(run_dir, 5, {"mu": 9, "log_var": 9})
    plant_heads(run_dir, 10, {"mu": 2, "log_var": 1})
    statistics.run(str(run_dir.path))
    heads = run_dir.statistics().heads
    assert heads is not None
    assert heads["mu"].kernel_norm == pytest.approx(2 * np.sqrt(8))
    assert heads["log_var"].kernel_norm == pytest.approx(np.sqrt(8))
    assert heads["log_var"].bias_mean == -1


def test_without_a_checkpoint_there_are_no_heads_and_an_ae_has_one(make_run):
    run_dir = make_run(arm=AE)
    assert statistics.load_heads(run_dir, run_dir.config(), run_dir.trained()) is None
    plant_heads(run_dir, 10, {"mu": 2})
    assert (statistics.load_heads(run_dir, run_dir.config(), run_dir.trained()) or {}).keys() == {"mu"}
    plant.marker(run_dir)
    with pytest.raises(UserError, match=r"step-000000010 is not the state that trained\.json names"):
        statistics.load_heads(run_dir, run_dir.config(), run_dir.trained())


@pytest.mark.parametrize("damage", [truncate, lambda path: path.write_text("no zip"), Path.unlink])
def test_a_damaged_checkpoint_is_named(make_run, damage):
    run_dir = make_run()
    damage(path := plant_heads(run_dir, 10, {"mu": 2, "log_var": 1}))
    with pytest.raises(UserError, match="go without its norms") as raised:
        statistics.run(str(run_dir.path))
    assert str(raised.value).startswith(str(path))


def test_probes_are_of_the_training_images(make_run, tmp_path):
    config = run_on_data(make_run(mu=cloud()).config(), tmp_path / "data", attributes(cloud()))
    found = statistics.load_attributes(config)
    assert found is not None and {len(values) for values in found.values()} == {NUM_TRAIN}
    probes = latents.probes(cloud(), found, config)
    assert probes["Smiling"].auc == 1
    assert probes["Young"].share == 1
    assert len(probes) == 40


def test_probes_are_fitted_on_two_images_at_least(make_run, tmp_path):
    config = run_on_data(make_run(mu=cloud()).config(), tmp_path / "data", attributes(cloud()))
    plan = config.plan.model_copy(update={"attributes": AttributePlan(num_images=4, test_share=0.99, penalty=0.1)})
    found = latents.probes(cloud(), statistics.load_attributes(config) or {}, config.model_copy(update={"plan": plan}))
    assert {probe.share for probe in found.values()} <= {0, 1}


def attributes(mu: np.ndarray) -> np.ndarray:
    """Smiling is on one side of the last axis, all are young; three images of another split follow."""
    held = np.zeros((len(mu) + 3, 40), np.bool_)
    held[: len(mu), ATTRIBUTES.index("Smiling")] = mu[:, 3] > 3
    held[:, ATTRIBUTES.index("Young")] = True
    return held


def run_on_data(config: RunConfig, path: Path, held: np.ndarray) -> RunConfig:
    path.mkdir()
    np.save(path / "attributes.npy", held)
    made = {"version": 1, "size": 48, "crop": 178, "resize": "area", "split": "article", "num_train": NUM_TRAIN}
    manifest = Manifest(
        name="faces",
        synthetic=True,
        num_images=len(held),
        preprocessing=Preprocessing(**made, images_per_shard=100),
        splits={"train": Split(first_image=0, num_images=NUM_TRAIN, entropy_floor=1.0)},
        shards=(),
        sidecars={},
        sha256=config.data.sha256,
    )
    write_model(path / "manifest.json", manifest)
    return config.model_copy(update={"data": config.data.model_copy(update={"path": str(path)})})


def test_another_data_set_and_damaged_attributes_are_refused(make_run, tmp_path):
    config = make_run().config()
    assert statistics.load_attributes(config) is None  # the data set is gone
    config = run_on_data(config, tmp_path / "data", attributes(cloud()))
    other = config.model_copy(update={"data": config.data.model_copy(update={"sha256": "1"})})
    with pytest.raises(UserError, match="was trained on 1"):
        statistics.load_attributes(other)
    np.save(tmp_path / "data" / "attributes.npy", np.zeros((NUM_TRAIN - 1, 40), np.bool_))
    with pytest.raises(UserError, match=r"holds \(39, 40\)"):
        statistics.load_attributes(config)
    (tmp_path / "data" / "attributes.npy").write_text("damaged")
    with pytest.raises(UserError, match="cannot be read"):
        statistics.load_attributes(config)


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
    assert json.loads(all_attempts(run_dir)[0].exit_path.read_text())["outcome"] == "superseded"


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
