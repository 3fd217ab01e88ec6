import math

import numpy as np
import pytest

from vaehpc.images.entropy import entropy_floor


def counts(images: np.ndarray) -> list[int]:
    return np.bincount(images.reshape(-1), minlength=256).tolist()


def test_black_and_white_have_none() -> None:
    images = np.random.default_rng(0).choice(np.array([0, 255], np.uint8), (5, 16, 16, 3))
    assert entropy_floor(counts(images), 5) == 0


def test_grey_has_almost_one_bit_per_pixel() -> None:
    # Values 127 and 128 are x = 1/2 -+ d with d = 0.5 / 255, where the entropy is ln 2 - 2 d**2 + O(d**4).
    images = np.full((2, 96, 96, 3), 127, np.uint8)
    images[1] = 128
    expected = (math.log(2) - 2 * (0.5 / 255) ** 2) * 96 * 96
    assert entropy_floor(counts(images), 2) == pytest.approx(expected, rel=1e-9)


def test_equals_the_loss_of_a_perfect_reconstruction() -> None:
    images = np.random.default_rng(0).integers(0, 256, (4, 16, 16, 3), dtype=np.uint8)
    x = images.astype(np.float64) / 255
    with np.errstate(divide="ignore", invalid="ignore"):
        bce = np.nan_to_num(-(x * np.log(x) + (1 - x) * np.log(1 - x)))
    expected = bce.mean(axis=3).sum(axis=(1, 2)).mean()
    assert entropy_floor(counts(images), 4) == pytest.approx(expected, rel=1e-12)
