"""From an aligned CelebA image to the pixels of the data set: centre crop and area resize, exact to the bit."""

from __future__ import annotations

import functools
from typing import Literal

import numpy as np
import numpy.typing as npt

from vaehpc.images.celeba import IMAGE_SHAPE

VERSION = 1
"""Part of a data set's identity: to be raised when the same image gives other pixels."""

CROP = 178
"""Side of the centre crop: the whole width of an aligned image."""

UInt8 = npt.NDArray[np.uint8]


def preprocess(image: UInt8, size: int, resize: Literal["area", "distort"]) -> UInt8:
    """Pixels (size, size, 3) of an aligned image (218, 178, 3).

    'area' resizes the centre crop of 178 x 178 (rows 20 to 197), 'distort' the whole image, which makes faces wider.
    """
    if resize == "area":
        top = (IMAGE_SHAPE[0] - CROP) // 2
        image = image[top : top + CROP]
    return area_resize(image, size)


def area_resize(image: UInt8, size: int) -> UInt8:
    """Mean of (height, width, 3) over the area of each of size x size pixels, halves rounded up.

    An input pixel that two output pixels share counts for each by the part that it covers, as in TensorFlow's
    ResizeArea. Weights are whole numbers and every sum stays below 218 * 178 * 255 < 2**24, so float32 products are
    exact in any order of summation: the result does not depend on the processor or its BLAS.
    """
    height, width, channels = image.shape
    rows = _overlaps(height, size) @ image.reshape(height, width * channels).astype(np.float32)
    # The width comes first for the second product: (width, size * channels).
    columns = rows.reshape(size, width, channels).transpose(1, 0, 2).reshape(width, size * channels)
    sums = (_overlaps(width, size) @ columns).reshape(size, size, channels).transpose(1, 0, 2).astype(np.int32)
    area = height * width
    mean: npt.NDArray[np.int32] = (sums + area // 2) // area
    return mean.astype(np.uint8)


@functools.cache
def _overlaps(num_in: int, num_out: int) -> npt.NDArray[np.float32]:
    """Lengths (num_out, num_in) that output and input pixels share, in units of 1 / num_out of an input pixel."""
    out_edges = num_in * np.arange(num_out + 1)
    in_edges = num_out * np.arange(num_in + 1)
    first: npt.NDArray[np.int64] = np.maximum(out_edges[:-1, None], in_edges[None, :-1])
    last = np.minimum(out_edges[1:, None], in_edges[None, 1:])
    return np.clip(last - first, 0, None).astype(np.float32)
