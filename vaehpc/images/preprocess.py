"""From an image to the pixels of the data set: centre crop and area resize, exact to the bit."""

from __future__ import annotations

import functools
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

VERSION = 1
"""Part of a data set's identity: to be raised when the same image gives other pixels."""

MAX_BLOCK = 2**22
"""Values that are summed at once: a photograph in float64 would take gigabytes."""

UInt8 = npt.NDArray[np.uint8]


def preprocess(image: UInt8, size: int, resize: Literal["area", "distort"], crop: int | None = None) -> UInt8:
    """Pixels (size, size, 3) of an image (height, width, 3).

    Args:
        image: of any size.
        size: side of the result.
        resize: 'area' resizes the square in the centre, 'distort' the whole image, which makes faces wider.
        crop: side of that square; None: the image's shorter side.

    Raises:
        ValueError: the image is smaller than its crop, or its crop than the result.
    """
    height, width, _ = image.shape
    if resize == "area":
        side = crop or min(height, width)
        if not size <= side <= min(height, width):
            raise ValueError(
                f"{width} x {height} pixels found, at least {max(side, size)} x {max(side, size)} expected: give a"
                " smaller --size or --crop, or leave the image out"
            )
        top, left = (height - side) // 2, (width - side) // 2
        image = image[top : top + side, left : left + side]
    return area_resize(image, size)


def area_resize(image: UInt8, size: int) -> UInt8:
    """Mean of (height, width, 3) over the area of each of size x size pixels, halves rounded up.

    An input pixel that two output pixels share counts for each by the part that it covers, as in TensorFlow's
    ResizeArea. Weights and sums are whole numbers, below 2**24 in float32 or else below 2**53 in float64, so that they
    are exact in any order of summation: the result does not depend on the processor or its BLAS.
    """
    height, width, channels = image.shape
    exact: type[np.floating[Any]] = np.float32 if height * width * 255 < 2**24 else np.float64
    down, across = (_overlaps(length, size).astype(exact) for length in (height, width))
    at_once = max(1, MAX_BLOCK * size // image.size)
    rows = np.concatenate(
        [
            down[top : top + at_once, first:last] @ image[first:last].reshape(last - first, -1).astype(exact)
            for top in range(0, size, at_once)
            for first, last in [(height * top // size, -(-height * min(top + at_once, size) // size))]
        ]
    )
    # The width comes first for the second product: (width, size * channels).
    columns = rows.reshape(size, width, channels).transpose(1, 0, 2).reshape(width, size * channels)
    sums = (across @ columns).reshape(size, size, channels).transpose(1, 0, 2).astype(np.int64)
    area = height * width
    mean: UInt8 = ((sums + area // 2) // area).astype(np.uint8)
    return mean


@functools.lru_cache(maxsize=16)  # photographs have many sizes
def _overlaps(num_in: int, num_out: int) -> npt.NDArray[np.float32]:
    """Lengths (num_out, num_in) that output and input pixels share, in units of 1 / num_out of an input pixel."""
    out_edges = num_in * np.arange(num_out + 1)
    in_edges = num_out * np.arange(num_in + 1)
    first: npt.NDArray[np.int64] = np.maximum(out_edges[:-1, None], in_edges[None, :-1])
    last = np.minimum(out_edges[1:, None], in_edges[None, 1:])
    return np.clip(last - first, 0, None).astype(np.float32)
