"""Losses and sampling against float64 NumPy, at the edges, and inside a graph."""

import numpy as np
import pytest
import tensorflow as tf
from scipy import special

from vaehpc.schema.config import VaeConfig
from vaehpc.training.losses import draw_epsilon, kl_divergence, reconstruction_loss, sample_latent

KEY = tf.constant(1234567890123, tf.int64)


def epsilon(shape: tuple[int, int], step: int = 0, key: tf.Tensor = KEY, **vae: float | str) -> np.ndarray:
    return draw_epsilon(key, tf.constant(step, tf.int64), tf.constant(shape), VaeConfig(**vae)).numpy()


def test_reconstruction_loss_has_the_articles_normalisation() -> None:
    # logits of 0 say p = 1/2: ln 2 per pixel, summed over 96 x 96 pixels whatever the image is.
    images = np.random.default_rng(0).uniform(size=(2, 96, 96, 3)).astype(np.float32)
    loss = reconstruction_loss(images, tf.zeros_like(images)).numpy()
    np.testing.assert_allclose(loss, 9216 * np.log(2), rtol=1e-5)


def test_reconstruction_loss_agrees_with_float64() -> None:
    rng = np.random.default_rng(1)
    images = rng.uniform(size=(4, 16, 16, 3))
    logits = rng.normal(scale=4, size=images.shape)
    probability = 1 / (1 + np.exp(-logits))
    cross_entropy = -(images * np.log(probability) + (1 - images) * np.log1p(-probability))
    expected = cross_entropy.mean(axis=-1).sum(axis=(1, 2))
    found = reconstruction_loss(tf.constant(images, tf.float32), tf.constant(logits, tf.float32)).numpy()
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_the_gradient_of_the_reconstruction_loss_is_that_of_float64() -> None:
    rng = np.random.default_rng(4)
    images, logits = (
        rng.uniform(size=(4, 16, 16, 3)),
        tf.Variable(rng.normal(scale=20, size=(4, 16, 16, 3)), tf.float32),
    )
    weights = np.array([1.0, -2.0, 0.5, 0.0])  # of the images
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(weights * reconstruction_loss(tf.constant(images, tf.float32), logits))
    expected = (special.expit(logits.numpy().astype(np.float64)) - images) / 3 * weights[:, None, None, None]
    np.testing.assert_allclose(tape.gradient(loss, logits), expected, rtol=1e-5, atol=1e-7)


def test_reconstruction_loss_is_smallest_at_the_entropy_of_the_image() -> None:
    images = np.random.default_rng(2).integers(1, 255, size=(3, 16, 16, 3)) / 255
    entropy = -(images * np.log(images) + (1 - images) * np.log1p(-images)).mean(axis=-1).sum(axis=(1, 2))
    best = reconstruction_loss(tf.constant(images, tf.float32), tf.constant(np.log(images / (1 - images)), tf.float32))
    np.testing.assert_allclose(best.numpy(), entropy, rtol=1e-5)


def test_reconstruction_loss_stays_finite_in_half_precision() -> None:
    images = tf.cast(tf.reshape(tf.range(2 * 96 * 96 * 3) % 2, (2, 96, 96, 3)), tf.float16)
    loss = reconstruction_loss(images, tf.cast((1.0 - 2.0 * tf.cast(images, tf.float32)) * 20.0, tf.float16))
    assert loss.dtype == tf.float32
    np.testing.assert_allclose(loss.numpy(), 9216 * 20.0, rtol=1e-6)  # beyond float16's 65,504


def test_kl_divergence_of_the_standard_normal_is_zero() -> None:
    np.testing.assert_array_equal(kl_divergence(tf.zeros((3, 256)), tf.zeros((3, 256))).numpy(), 0.0)


def test_kl_divergence_agrees_with_float64() -> None:
    rng = np.random.default_rng(3)
    mu, log_var = rng.normal(size=(8, 64)), rng.normal(scale=3, size=(8, 64))
    expected = -0.5 * (1 + log_var - mu**2 - np.exp(log_var)).sum(axis=1)
    found = kl_divergence(tf.constant(mu, tf.float32), tf.constant(log_var, tf.float32)).numpy()
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_kl_loss_of_the_articles_averages_is_what_it_printed() -> None:
    # 256 axes with log_var -13.6826 and R = 16.284, times 1e-5: 0.01756; the article printed 0.0178.
    mu = np.full((1, 256), 16.284 / 16)
    loss = 1e-5 * kl_divergence(tf.constant(mu, tf.float32), tf.fill((1, 256), -13.6826)).numpy()
    assert loss[0] == pytest.approx(0.01756, abs=5e-6)


def test_epsilon_is_a_pure_function_of_key_and_counter() -> None:
    np.testing.assert_array_equal(epsilon((8, 32), step=7), epsilon((8, 32), step=7))
    assert not np.array_equal(epsilon((8, 32), step=7), epsilon((8, 32), step=8))
    assert not np.array_equal(epsilon((8, 32)), epsilon((8, 32), key=KEY + 1))


def test_epsilon_is_the_same_inside_a_graph() -> None:
    compiled = tf.function(lambda step: draw_epsilon(KEY, step, tf.constant((8, 32)), VaeConfig()))
    np.testing.assert_array_equal(compiled(tf.constant(7, tf.int64)).numpy(), epsilon((8, 32), step=7))


def test_epsilon_is_standard_normal_and_bounded() -> None:
    drawn = epsilon((4096, 256))
    assert abs(drawn.mean()) < 5 / np.sqrt(drawn.size)
    assert drawn.std() == pytest.approx(1, abs=0.005)
    assert np.abs(drawn).max() < np.sqrt(-2 * np.log(1e-7))


def test_epsilon_limit_clips_elementwise_and_changes_nothing_else() -> None:
    free, limited = epsilon((512, 256)), epsilon((512, 256), epsilon_limit=2.0)
    beyond = np.abs(free) > 2
    assert beyond.any()
    np.testing.assert_array_equal(np.abs(limited[beyond]), 2.0)
    np.testing.assert_array_equal(limited[~beyond], free[~beyond])


def test_epsilon_factor_scales_after_the_limit() -> None:
    np.testing.assert_array_equal(
        epsilon((8, 32), epsilon_limit=1.0, epsilon_factor=3.0), 3 * epsilon((8, 32), epsilon_limit=1.0)
    )
    np.testing.assert_array_equal(epsilon((8, 32), epsilon_factor=0.0), 0.0)


@pytest.mark.parametrize(("log_var", "sigma"), [(30.0, np.exp(15.0)), (-40.0, np.exp(-20.0)), (0.0, 1.0)])
def test_sample_latent_at_the_edges(log_var: float, sigma: float) -> None:
    z = sample_latent(tf.constant([[1.0]]), tf.constant([[log_var]]), tf.constant([[2.0]])).numpy()
    assert z[0, 0] == pytest.approx(1 + 2 * sigma, rel=1e-6)


def test_a_limit_on_the_tensor_turns_all_of_it_where_one_component_is_beyond() -> None:
    free = epsilon((64, 32))
    largest = float(np.abs(free).max())
    inside = epsilon((64, 32), epsilon_limit=largest * 1.001, epsilon_limit_on="tensor")
    np.testing.assert_array_equal(inside, free)
    beyond = epsilon((64, 32), epsilon_limit=largest * 0.999, epsilon_limit_on="tensor")
    np.testing.assert_allclose(beyond, largest * 0.999 * np.sign(free), rtol=1e-6)
