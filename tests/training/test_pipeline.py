"""Feeding: an order that depends on (shuffle key, epoch) only, the pixels that the shards hold."""

import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from tests.examples import data_config, run_config
from tests.shard_reader import read_shard
from vaehpc.command import UserError
from vaehpc.machine.hardware import RUNS_ON_GPU
from vaehpc.schema.config import DataConfig, RunConfig
from vaehpc.study.files import DataDir
from vaehpc.training.device import memory_of_gpu
from vaehpc.training.pipeline import ShardedImages, batches, epoch_order, load_training_images, resident_images


def run_on(data: DataConfig) -> RunConfig:
    return run_config(data=data)


def test_order_is_a_permutation_that_depends_on_seed_and_epoch_only() -> None:
    run = run_config(seed=0, num_train=1000)
    order = epoch_order(run, 4)
    assert sorted(order) == list(range(1000))
    np.testing.assert_array_equal(order, epoch_order(run_config("ae", seed=0, num_train=1000), 4))
    assert not np.array_equal(order, epoch_order(run, 5))
    assert not np.array_equal(order, epoch_order(run_config(seed=1, num_train=1000), 4))


def test_streams_of_neighbouring_seeds_do_not_overlap() -> None:
    streams = [
        np.random.default_rng(run_config(seed=seed).key("noise")).integers(2**32, size=4096) for seed in range(8)
    ]
    windows = [set(zip(*(stream[i : len(stream) - 3 + i] for i in range(4)), strict=True)) for stream in streams]
    assert all(len(stream) == 4093 for stream in windows)
    assert all(not (before & after) for before, after in pairwise(windows))


def test_batches_keep_the_order_and_the_last_smaller_batch() -> None:
    images = np.arange(10, dtype=np.uint8).reshape(10, 1, 1, 1) * np.ones((1, 2, 2, 3), np.uint8)
    order = np.array([9, 1, 8, 2, 7, 3, 6, 4, 5, 0])
    found = [batch.numpy() for batch in batches(images, order, 4)]
    assert [len(batch) for batch in found] == [4, 4, 2]
    np.testing.assert_array_equal(np.concatenate(found), images[order])


def test_resident_images_are_those_of_the_host_piece_by_piece(monkeypatch: pytest.MonkeyPatch) -> None:
    images = np.random.default_rng(0).integers(256, size=(10, 2, 2, 3)).astype(np.uint8)
    order = np.array([9, 1, 8, 2, 7, 3, 6, 4, 5, 0])
    monkeypatch.setattr("vaehpc.training.pipeline.PIECE", 4)
    resident = resident_images(images, memory=2 * images.nbytes)
    assert resident is not None
    np.testing.assert_array_equal(tf.gather(resident.read_value(), order), images[order])


MEMORY = """
import os
import numpy as np
from vaehpc.training import pipeline

def used():
    return int(open("/proc/self/statm").read().split()[1]) * os.sysconf("SC_PAGE_SIZE")

images = np.ones((7200, 96, 96, 3), np.uint8)
pipeline.PIECE = 720
pipeline.resident_images(images[:16], images.nbytes)
before = used()
kept = pipeline.resident_images(images, 2 * images.nbytes)
print((used() - before) / images.nbytes)
"""


@pytest.mark.slow
def test_images_are_once_in_the_devices_memory() -> None:
    """And a tenth of them is on its way."""
    found = subprocess.run([sys.executable, "-c", MEMORY], stdout=subprocess.PIPE, text=True, check=True).stdout
    assert 1 <= float(found) < 1.5


def test_images_stay_on_the_host_where_the_gpu_is_too_small_or_missing() -> None:
    images = np.zeros((10, 2, 2, 3), np.uint8)
    assert resident_images(images, memory=2 * images.nbytes - 1) is None
    assert resident_images(images, memory=0) is None


def test_runs_that_share_a_gpu_share_its_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vaehpc.training.device.gpu_memory", lambda: 80 * 2**30)
    monkeypatch.setenv(RUNS_ON_GPU, "8")
    assert memory_of_gpu() == 0  # TensorFlow sees none
    monkeypatch.setattr("vaehpc.training.device.tf.config.list_logical_devices", lambda _: ["GPU"])
    assert memory_of_gpu() == 10 * 2**30
    monkeypatch.delenv(RUNS_ON_GPU)
    assert memory_of_gpu() == 80 * 2**30


def test_a_gpu_that_gathers_wrong_images_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    images = np.random.default_rng(0).integers(256, size=(40, 2, 2, 3)).astype(np.uint8)
    monkeypatch.setattr("vaehpc.training.pipeline._gathered", lambda resident, rows: resident[: len(rows)])
    assert resident_images(images, memory=10**9) is None


def test_sharded_images_are_those_of_one_array() -> None:
    whole = np.random.default_rng(0).integers(256, size=(11, 2, 2, 3)).astype(np.uint8)
    sharded = ShardedImages([whole[:5], whole[5:6], whole[6:]])
    assert len(sharded) == 11
    order = np.random.default_rng(1).permutation(11)
    np.testing.assert_array_equal(sharded[order], whole[order])
    np.testing.assert_array_equal(sharded[:7], whole[:7])


def test_images_are_those_of_the_shards(faces: DataConfig) -> None:
    images = load_training_images(run_on(faces))
    shards = sorted(Path(faces.path).glob("train-*.tfrecord"))
    held = np.concatenate([read_shard(shard)[0] for shard in shards])
    assert len(shards) == 2
    assert len(images) == len(held) == faces.num_train
    order = epoch_order(run_on(faces), 0)
    np.testing.assert_array_equal(images[order], held[order])


def test_tensorflow_takes_batches_without_a_copy(faces: DataConfig) -> None:
    """It does so at multiples of 64 bytes."""
    images = load_training_images(run_on(faces))
    assert {images[np.arange(first, 20)].ctypes.data % 64 for first in range(20)} == {0}


def test_a_flipped_byte_is_named(own_faces: DataConfig) -> None:
    shard = next(Path(own_faces.path).glob("train-*.tfrecord"))
    content = bytearray(shard.read_bytes())
    content[len(content) // 2] ^= 1
    shard.write_bytes(content)
    with pytest.raises(UserError, match=rf"{shard.name}, record \d+"):
        load_training_images(run_on(own_faces))


def test_a_shard_cut_off_between_two_records_is_named(own_faces: DataConfig) -> None:
    shard = next(Path(own_faces.path).glob("train-*.tfrecord"))
    num_images = next(item.num_images for item in DataDir(shard.parent).manifest().shards if item.file == shard.name)
    content = shard.read_bytes()
    shard.write_bytes(content[: len(content) // num_images * (num_images - 1)])
    with pytest.raises(UserError, match=shard.name):
        load_training_images(run_on(own_faces))


def test_another_data_set_is_refused(faces: DataConfig) -> None:
    with pytest.raises(UserError, match="not the data set that this run was planned with"):
        load_training_images(run_on(faces.model_copy(update={"sha256": "1" * 64})))


def test_a_missing_data_set_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"vaehpc\.prepare"):
        load_training_images(run_on(data_config(tmp_path / "none")))
