from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import tensorflow as tf

from tests.shard_reader import read_shard
from vaehpc.command import UserError
from vaehpc.images.tfrecord import check_shard, memory_mapped_images, write_shard

NUM_IMAGES = 70
SIZE = 16


@pytest.fixture
def images() -> npt.NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, (NUM_IMAGES, SIZE, SIZE, 3), dtype=np.uint8)


@pytest.fixture
def numbers() -> npt.NDArray[np.int64]:
    """Numbers whose varints would have one, two and three bytes."""
    return np.linspace(1, 202_599, NUM_IMAGES).astype(np.int64)


@pytest.fixture
def attributes() -> npt.NDArray[np.bool_]:
    return np.random.default_rng(1).random((NUM_IMAGES, 40)) < 0.5


@pytest.fixture
def shard(
    tmp_path: Path,
    images: npt.NDArray[np.uint8],
    numbers: npt.NDArray[np.int64],
    attributes: npt.NDArray[np.bool_],
) -> Path:
    path = tmp_path / "train-00000-of-00001.tfrecord"
    write_shard(path, images, numbers, attributes)
    return path


def test_what_is_written_is_read(
    shard: Path, images: npt.NDArray[np.uint8], numbers: npt.NDArray[np.int64], attributes: npt.NDArray[np.bool_]
) -> None:
    read_images, read_numbers, read_attributes = read_shard(shard)
    np.testing.assert_array_equal(read_images, images)
    np.testing.assert_array_equal(read_numbers, numbers)
    np.testing.assert_array_equal(read_attributes, attributes)
    assert check_shard(shard) == NUM_IMAGES


def test_images_are_where_the_map_says(shard: Path, images: npt.NDArray[np.uint8]) -> None:
    mapped = memory_mapped_images(shard, NUM_IMAGES, SIZE, 40)
    np.testing.assert_array_equal(mapped, images)
    with pytest.raises(ValueError, match="read-only"):
        mapped[0] = 0


def test_record_is_a_plain_example(shard: Path, images: npt.NDArray[np.uint8]) -> None:
    record = next(iter(tf.data.TFRecordDataset(str(shard)))).numpy()
    features = tf.train.Example.FromString(record).features.feature
    assert sorted(features) == ["attributes", "image", "number"]
    assert features["image"].bytes_list.value[0] == images[0].tobytes()
    assert int.from_bytes(features["number"].bytes_list.value[0], "little") == 1


def test_same_images_make_the_same_file(tmp_path: Path, shard: Path) -> None:
    again = tmp_path / "again.tfrecord"
    write_shard(again, *read_shard(shard))
    assert again.read_bytes() == shard.read_bytes()


def test_nothing_stays_of_a_shard_that_was_not_finished(
    tmp_path: Path, images: npt.NDArray[np.uint8], numbers: npt.NDArray[np.int64], attributes: npt.NDArray[np.bool_]
) -> None:
    with pytest.raises(ValueError, match="shorter"):
        write_shard(tmp_path / "some.tfrecord", images, numbers[:-1], attributes)
    assert list(tmp_path.iterdir()) == []


# Damage


@pytest.mark.parametrize("record", [0, 3, 65, NUM_IMAGES - 1])
def test_flipped_byte_is_found_in_its_record(shard: Path, record: int) -> None:
    content = bytearray(shard.read_bytes())
    content[record * len(content) // NUM_IMAGES + 300] ^= 1
    shard.write_bytes(content)
    with pytest.raises(UserError, match=rf"train-00000-of-00001\.tfrecord, record {record}: damaged"):
        check_shard(shard)


def test_flipped_length_is_found(shard: Path) -> None:
    content = bytearray(shard.read_bytes())
    content[5 * len(content) // NUM_IMAGES] ^= 1
    shard.write_bytes(content)
    with pytest.raises(UserError, match=r"tfrecord, record 5: damaged"):
        check_shard(shard)
    with pytest.raises(UserError, match=r"tfrecord, record 5: its length is damaged"):
        memory_mapped_images(shard, NUM_IMAGES, SIZE, 40)


def test_truncation_is_found(shard: Path) -> None:
    content = shard.read_bytes()
    shard.write_bytes(content[: len(content) * 3 // 4])
    with pytest.raises(UserError, match=r"tfrecord, record 52: damaged or cut off"):
        check_shard(shard)
    with pytest.raises(UserError, match=r"bytes, 70 images of 16 x 16 take 62,300"):
        memory_mapped_images(shard, NUM_IMAGES, SIZE, 40)


def test_truncation_between_records_shows_in_their_number(shard: Path) -> None:
    content = shard.read_bytes()
    shard.write_bytes(content[: len(content) // 2])
    assert check_shard(shard) == NUM_IMAGES // 2


@pytest.mark.parametrize("content", [None, b""])
def test_missing_or_empty_shard(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "some.tfrecord"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError, match=r"some\.tfrecord is missing or empty"):
        check_shard(path)
    with pytest.raises(UserError, match=r"some\.tfrecord has 0 bytes"):
        memory_mapped_images(path, 1, SIZE, 40)
