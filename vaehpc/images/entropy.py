"""The entropy floor of a data set: the reconstruction loss of a net that gives back every pixel."""

from __future__ import annotations

import math
from collections.abc import Sequence


def entropy_floor(pixel_counts: Sequence[int], num_images: int) -> float:
    """H(x), the least binary cross-entropy possible, in nats per image.

    H = mean over images of the sum over pixels of the mean over the 3 channels of -(x ln x + (1 - x) ln(1 - x)),
    x = value / 255. It depends on how often each value occurs only, and is exact and the same in any order of summing.

    Args:
        pixel_counts: how often each of the 256 values occurs in all channels of all images.
        num_images: the number of images.
    """
    terms = (count * _binary_entropy(value / 255) for value, count in enumerate(pixel_counts))
    return math.fsum(terms) / (3 * num_images)


def _binary_entropy(x: float) -> float:
    return 0.0 if x in (0.0, 1.0) else -(x * math.log(x) + (1 - x) * math.log1p(-x))
