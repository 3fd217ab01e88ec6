import numpy as np
import pytest

from vaehpc.images.celeba import default_num_train
from vaehpc.images.splits import ShardImages, first_codes, split_shards, spread_codes


@pytest.mark.parametrize(
    ("num_images", "num_train"),
    [(202_599, 170_000), (170_001, 170_000), (170_000, 142_646), (20_000, 16_781), (2, 1), (1, 0)],
)
def test_default_is_the_articles_number_or_its_share(num_images: int, num_train: int) -> None:
    assert default_num_train(num_images) == num_train


def test_first_images_are_trained_on() -> None:
    assert first_codes(5, 3).tolist() == [0, 0, 0, 1, 1]


@pytest.mark.parametrize("num_train", range(1, 13))
def test_those_held_out_lie_evenly_among_the_others(num_train: int) -> None:
    codes = spread_codes(12, num_train)
    gaps = np.diff(np.flatnonzero(codes))
    assert (codes.dtype, codes.sum()) == (np.uint8, 12 - num_train)
    assert not len(gaps) or gaps.max() - gaps.min() <= 1


def test_no_shard_reaches_across_two_splits() -> None:
    assert split_shards({"train": 5, "validation": 2, "test": 1}, images_per_shard=2) == (
        ShardImages("train-00000-of-00003.tfrecord", "train", 0, 2),
        ShardImages("train-00001-of-00003.tfrecord", "train", 2, 2),
        ShardImages("train-00002-of-00003.tfrecord", "train", 4, 1),
        ShardImages("validation-00000-of-00001.tfrecord", "validation", 5, 2),
        ShardImages("test-00000-of-00001.tfrecord", "test", 7, 1),
    )


def test_split_without_images_has_no_shard() -> None:
    assert [shard.split for shard in split_shards({"train": 4, "heldout": 0}, images_per_shard=4)] == ["train"]
