import numpy as np
import numpy.typing as npt
import pytest
import tensorflow as tf

from vaehpc.images.preprocess import area_resize, preprocess


@pytest.fixture
def image() -> npt.NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, (218, 178, 3), dtype=np.uint8)


def test_mean_of_whole_pixels_with_halves_rounded_up() -> None:
    image = np.array([[0, 0, 10, 20], [1, 1, 30, 41], [9, 9, 9, 9], [9, 9, 9, 9]], np.uint8)[..., None]
    assert area_resize(image, 2)[..., 0].tolist() == [[1, 25], [9, 9]]


def test_shared_pixel_counts_by_its_parts() -> None:
    # Three pixels into two: the middle one is half of each, so (2 a + b) / 3 and (b + 2 c) / 3.
    image = np.tile(np.array([30, 60, 120], np.uint8)[None, :, None], (3, 1, 1))
    assert area_resize(image, 2)[0, :, 0].tolist() == [40, 100]


def test_constant_image_stays_as_it_is() -> None:
    for value in (0, 1, 254, 255):
        assert (preprocess(np.full((218, 178, 3), value, np.uint8), 96, "area") == value).all()


def test_area_is_exact(image: npt.NDArray[np.uint8]) -> None:
    # Each pixel repeated 32 x 32 times makes 178 a multiple of 32; then the mean is over whole pixels.
    size = 32
    channel = image[20:198, :, 1].astype(np.int64).repeat(size, axis=0).repeat(size, axis=1)
    sums = channel.reshape(size, 178, size, 178).sum(axis=(1, 3))
    expected = np.floor_divide(2 * sums + 178**2, 2 * 178**2)
    np.testing.assert_array_equal(preprocess(image, size, "area")[..., 1], expected)


def test_area_of_a_photograph_is_exact() -> None:
    """Its sums are too large for float32: 24,220,601 is the least that is rounded to 101, and would be 24,220,600."""
    image = np.full((601, 401, 3), 100, np.uint8)
    image[:36, :13] += 1  # 468 pixels that lie within one of 16 x 16, each of 16 x 16 parts
    image[37, 25] = 177  # of which 9 x 1 parts lie in it
    assert area_resize(image, 16)[0, 0].tolist() == [101] * 3
    image[37, 25] = 176
    assert area_resize(image, 16)[0, 0].tolist() == [100] * 3


def test_a_photograph_is_summed_in_pieces() -> None:
    image = np.random.default_rng(0).integers(0, 256, (1600, 3200, 3), dtype=np.uint8)
    sums = image.reshape(16, 100, 16, 200, 3).sum(axis=(1, 3), dtype=np.int64)
    np.testing.assert_array_equal(area_resize(image, 16), (2 * sums + 20_000) // 40_000)


@pytest.mark.parametrize("size", [16, 96, 176])
@pytest.mark.parametrize("resize", ["area", "distort"])
def test_agrees_with_tensorflow(image: npt.NDArray[np.uint8], size: int, resize: str) -> None:
    whole = image[20:198] if resize == "area" else image
    of_tensorflow = tf.image.resize(whole, (size, size), method="area").numpy()
    ours = preprocess(image, size, "area" if resize == "area" else "distort")
    assert ours.shape == (size, size, 3)
    assert ours.dtype == np.uint8
    # 0.5 for the rounding, and what TensorFlow's own float32 sums are off.
    assert np.abs(ours - of_tensorflow).max() < 0.51


def test_crop_leaves_out_twenty_rows_above_and_below(image: npt.NDArray[np.uint8]) -> None:
    changed = image.copy()
    changed[:20] = changed[198:] = 0
    np.testing.assert_array_equal(preprocess(changed, 96, "area"), preprocess(image, 96, "area"))
    changed[20] = changed[197] = 0
    difference = preprocess(changed, 96, "area") != preprocess(image, 96, "area")
    assert difference[0].any()
    assert difference[-1].any()
    assert not difference[1:-1].any()
