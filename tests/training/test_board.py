"""Events for TensorBoard, read back with TensorFlow's own reader; no bit of the training depends on them."""

import dataclasses
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import tensorflow as tf
from PIL import Image

from tests.examples import run_config
from vaehpc.schema.config import DataConfig, RunConfig
from vaehpc.schema.results import ATTRIBUTES, EpochRecord, ProbeRecord
from vaehpc.study.attempts import Attempt, SupersededError
from vaehpc.study.files import DataDir, RunDir
from vaehpc.training.board import STEP_TAGS, Board, write_projector, write_reconstructions
from vaehpc.training.checkpoint import Progress, state_arrays, state_hash
from vaehpc.training.fit import Signals, TrainedBlock
from vaehpc.training.models import Net, build_net, layer_seeds
from vaehpc.training.signals import signal_names

STEPS_PER_EPOCH = 20
IMAGES = np.random.default_rng(0).integers(256, size=(40, 16, 16, 3)).astype(np.uint8)
Points = dict[str, list[tuple[int, float]]]


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    (tmp_path / "vae-seed003").mkdir()
    return RunDir(tmp_path / "vae-seed003")


def rows(stop: int) -> pa.Table:
    """Steps 0 ... stop - 1 as in recorder/steps.arrow."""
    return pa.table({"step": np.arange(stop), "batch_hash": np.arange(stop)} | signals(0, stop))


def signals(first: int, stop: int) -> Signals:
    """Of steps first ... stop - 1: every signal is the step itself."""
    return {name: np.arange(first, stop).astype(np.float32) for name in (*STEP_TAGS, "weight_norm")}


def block(first: int, stop: int) -> TrainedBlock:
    return TrainedBlock(progress(stop), signals(first, stop), np.empty(0, np.int64))


def progress(step: int) -> Progress:
    """A probe every 10 steps and an epoch every 20; each radius is the step."""
    radii = {"radius_median": 1.0, "radius_max": 2.0, "offset": 3.0, "spread": 4.0}
    losses = {"total_loss": 7.0, "reconstruction_loss": 6.0, "kl_loss": 1.0, "excess_loss": 5.0, "radius_mean": 1.5}
    rest = {"log_var_min": None, "log_var_mean": None, "log_var_max": None}
    probes = [ProbeRecord(step=at, **radii | {"radius_median": at}) for at in range(10, step + 1, 10)]
    epochs = [
        EpochRecord(epoch=at // STEPS_PER_EPOCH, step=at, **radii | losses | rest | {"radius_median": at})
        for at in range(STEPS_PER_EPOCH, step + 1, STEPS_PER_EPOCH)
    ]
    return Progress(step=step, probe=tuple(probes), epochs=tuple(epochs))


def events(folder: Path) -> list[tf.compat.v1.Event]:
    """Every event of the folder, file by file in the order in which TensorBoard reads them."""
    files = sorted(folder.glob("*tfevents*"))
    records = [record for file in files for record in tf.data.TFRecordDataset(str(file)).as_numpy_iterator()]
    return [tf.compat.v1.Event.FromString(record) for record in records]


def points(run: RunDir) -> Points:
    found: Points = {}
    for event in events(run.tensorboard):
        for value in event.summary.value:
            found.setdefault(value.tag, []).append((event.step, value.simple_value))
    return found


def trained(run: RunDir, stops: tuple[int, ...]) -> None:
    """Attempts that go on where the last one stopped, in blocks of 10 steps."""
    for start, stop in zip((0, *stops), stops, strict=False):
        board = Board(Attempt.start(run, "train"), progress(start), rows(start))
        for step in range(start, stop, 10):
            board.write_block(block(step, step + 10))


def test_scalars_stand_at_their_steps(run: RunDir) -> None:
    trained(run, (60,))
    found = points(run)
    for tag in STEP_TAGS.values():
        assert found[tag] == [(step, step) for step in range(0, 60, 10)]
    assert found["radius/probe_median"] == [(step, step) for step in range(10, 61, 10)]
    assert found["radius/epoch_median"] == [(20, 20.0), (40, 40.0), (60, 60.0)]
    assert found["loss/epoch_total"] == [(20, 7.0), (40, 7.0), (60, 7.0)]


def test_a_resumed_run_has_the_curves_of_an_undisturbed_one(run: RunDir, tmp_path: Path) -> None:
    trained(run, (20, 40, 60))
    (tmp_path / "undisturbed").mkdir()
    undisturbed = RunDir(tmp_path / "undisturbed")
    trained(undisturbed, (60,))
    assert points(run) == points(undisturbed)


def test_steps_that_a_kill_took_back_are_there_once(run: RunDir) -> None:
    board = Board(Attempt.start(run, "train"), progress(0), rows(0))
    board.write_block(block(0, 30))  # killed here; the last checkpoint is of step 20
    again = Board(Attempt.start(run, "train"), progress(20), rows(20))
    again.write_block(block(20, 30))
    assert points(run)["loss/total"] == [(0, 0.0), (10, 10.0), (20, 20.0)]
    assert points(run)["radius/probe_median"] == [(10, 10.0), (20, 20.0), (30, 30.0)]


def test_an_orphan_disturbs_nothing(run: RunDir) -> None:
    orphan = Board(Attempt.start(run, "train"), progress(0), rows(0))
    late = Attempt.start(run, "train")
    newest = Board(Attempt.start(run, "train"), progress(0), rows(0))
    newest.write_block(block(0, 10))
    expected = points(run)
    orphan.write_block(block(0, 20))
    with pytest.raises(SupersededError):
        Board(late, progress(0), rows(0))
    assert points(run) == expected


def test_earlier_curves_stay_until_the_new_file_is_complete(run: RunDir, monkeypatch: pytest.MonkeyPatch) -> None:
    trained(run, (40,))
    expected = points(run)
    monkeypatch.setattr(Attempt, "publish", lambda *_: pytest.fail("killed"))
    with pytest.raises(pytest.fail.Exception, match="killed"):
        Board(Attempt.start(run, "train"), progress(40), rows(40))
    assert points(run) == expected


def test_an_ae_shows_what_it_has(run: RunDir) -> None:
    board = Board(Attempt.start(run, "train"), progress(0), rows(0))
    of_ae = {name: values for name, values in signals(0, 20).items() if name != "log_var_max"}
    board.write_block(dataclasses.replace(block(0, 20), signals=of_ae))
    tags = points(run).keys()
    assert {"gradient/norm", "loss/epoch_total"} <= tags
    assert not [tag for tag in tags if tag.startswith("log_var/")]


@pytest.fixture(scope="module")
def net() -> Net:
    config = run_config()
    return build_net(config.arm, 16, layer_seeds(config.key("initialisation")))


def pictures(run: RunDir) -> dict[int, np.ndarray]:
    """The grids by step, as pixels."""
    return {
        event.step: tf.io.decode_png(value.image.encoded_image_string).numpy()
        for event in events(run.tensorboard / "images")
        for value in event.summary.value
    }


def test_originals_stand_above_their_reconstructions(run: RunDir, net: Net) -> None:
    write_reconstructions(Attempt.start(run, "train"), net, IMAGES, step=20)
    (picture,) = pictures(run).values()
    assert picture.shape == (2 * 16, 10 * 16, 3)
    np.testing.assert_array_equal(picture[:16], np.concatenate(IMAGES[:10], axis=1))
    mu, _ = net.encode(tf.constant(IMAGES[:10] / 255, tf.float32), training=False)
    expected = 255 * tf.sigmoid(net.decoder(mu, training=False)).numpy()
    np.testing.assert_allclose(picture[16:], np.concatenate(expected, axis=1), atol=0.51)


def test_pictures_of_earlier_epochs_stay_and_none_is_there_twice(run: RunDir, net: Net) -> None:
    for steps in ((20, 40), (40, 60)):
        attempt = Attempt.start(run, "train")
        Board(attempt, progress(steps[0]), rows(steps[0]))
        for step in steps:
            write_reconstructions(attempt, net, IMAGES, step)
    assert [event.step for event in events(run.tensorboard / "images") if event.summary.value] == [20, 40, 60]


def test_pictures_change_no_bit_of_the_net(run: RunDir, net: Net) -> None:
    before = state_hash(state_arrays(net.variables), 0)
    write_reconstructions(Attempt.start(run, "train"), net, IMAGES, step=20)
    assert state_hash(state_arrays(net.variables), 0) == before


def test_every_shown_signal_is_one_of_a_vaes_steps(net: Net) -> None:
    assert STEP_TAGS.keys() <= set(signal_names(net.arm, net))


@pytest.fixture
def projected(run: RunDir, faces: DataConfig) -> RunConfig:
    """The projector of a run of 40 faces of which it evaluates 30."""
    config = run_config(data=faces, train={"eval_images": 30})
    run.latents.mkdir()
    np.save(run.mu, np.random.default_rng(1).normal(size=(40, 8)).astype(np.float32))
    write_projector(Attempt.start(run, "train"), config, IMAGES)
    return config


def assets(run: RunDir) -> dict[str, str]:
    """Values of the projector's configuration by their names."""
    lines = (run.tensorboard / "projector_config.pbtxt").read_text().splitlines()
    values = [line.strip().split(": ") for line in lines if ": " in line]
    return {name: value.strip('"') for name, value in values}


def test_projector_has_the_latents_of_the_first_images(run: RunDir, projected: RunConfig) -> None:
    found = np.loadtxt(run.tensorboard / assets(run)["tensor_path"], delimiter="\t")
    np.testing.assert_allclose(found, np.load(run.mu)[: projected.arm.train.eval_images], rtol=1e-5)


def test_projector_has_their_attributes(run: RunDir, projected: RunConfig) -> None:
    header, *lines = (run.tensorboard / assets(run)["metadata_path"]).read_text().splitlines()
    assert header.split("\t") == ["image", *ATTRIBUTES]
    found = np.array([line.split("\t") for line in lines], np.int64)
    data = DataDir(Path(projected.data.path))
    np.testing.assert_array_equal(found[:, 0], np.load(data.image_numbers)[:30])
    np.testing.assert_array_equal(found[:, 1:], np.load(data.attributes)[:30])


def test_projector_has_a_thumbnail_of_each(run: RunDir, projected: RunConfig) -> None:
    side = int(assets(run)["single_image_dim"])
    sprite = np.asarray(Image.open(run.tensorboard / assets(run)["image_path"]))
    assert side == projected.data.image_size
    assert sprite.shape == (6 * side, 6 * side, 3)  # 30 of 6 x 6
    np.testing.assert_array_equal(sprite[side : 2 * side, :side], IMAGES[6])
    np.testing.assert_array_equal(sprite[5 * side :], 0)


def test_projector_replaces_that_of_an_attempt_that_did_not_finish(run: RunDir, projected: RunConfig) -> None:
    np.save(run.mu, np.zeros((40, 8), np.float32))
    write_projector(Attempt.start(run, "train"), projected, IMAGES)
    found = np.loadtxt(run.tensorboard / assets(run)["tensor_path"], delimiter="\t")
    assert not found.any()
    assert sorted(path.name for path in run.tensorboard.iterdir()) == ["projector", "projector_config.pbtxt"]
