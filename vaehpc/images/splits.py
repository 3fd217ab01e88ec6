"""Which image of a set belongs to which split, and which to which shard."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

HELD_OUT_SPLITS = ("train", "heldout")
OFFICIAL_SPLITS = ("train", "validation", "test")
"""In the order of a partition's codes 0, 1, 2."""


@dataclass(frozen=True)
class ShardImages:
    """The images first_image ... first_image + num_images - 1 of the set, which go to one file."""

    file: str
    split: str
    first_image: int
    num_images: int


def first_codes(num_images: int, num_train: int) -> npt.NDArray[np.uint8]:
    """Index into HELD_OUT_SPLITS of each image in the order of the names: the first `num_train` are trained on."""
    return (np.arange(num_images) >= num_train).astype(np.uint8)


def spread_codes(num_images: int, num_train: int) -> npt.NDArray[np.uint8]:
    """As `first_codes`, but those held out lie evenly among the others: names may begin with what is shown."""
    held_out = np.arange(num_images + 1) * (num_images - num_train) // num_images
    return np.diff(held_out).astype(np.uint8)


def split_shards(num_images: Mapping[str, int], images_per_shard: int) -> tuple[ShardImages, ...]:
    """The shards of a set that holds one split after the other; none reaches across two splits.

    Args:
        num_images: images of each split, in the set's order.
        images_per_shard: images of each shard; the last one of a split may have fewer.
    """
    shards = []
    first_of_split = 0
    for split, in_split in num_images.items():
        starts = range(0, in_split, images_per_shard)
        for number, start in enumerate(starts):
            file = f"{split}-{number:05d}-of-{len(starts):05d}.tfrecord"
            shards.append(ShardImages(file, split, first_of_split + start, min(images_per_shard, in_split - start)))
        first_of_split += in_split
    return tuple(shards)
