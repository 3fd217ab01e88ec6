"""What half precision could lose: the gradient of a tiny KL loss, large sums, logits and log_var at their edges."""

import numpy as np
import pytest
import tensorflow as tf

from tests.examples import run_config
from vaehpc.training.fit import build_optimizer
from vaehpc.training.losses import kl_divergence, reconstruction_loss, sample_latent
from vaehpc.training.models import Net, build_net, layer_seeds

IMAGES = tf.constant(np.random.default_rng(0).uniform(size=(16, 16, 16, 3)), tf.float32)
HALF = ["mixed_bfloat16", "mixed_float16"]


def net_in(precision: str) -> Net:
    run = run_config("vae", train={"precision": precision})
    return build_net(run.arm, 16, layer_seeds(run.key("initialisation")))


def kl_gradients(precision: str) -> dict[str, np.ndarray]:
    """Gradients of the KL loss alone, with the article's weight of 1e-5 and without loss scaling."""
    net = net_in(precision)
    variables = net.encoder.trainable_variables
    with tf.GradientTape() as tape:
        mu, log_var = net.encode(IMAGES, training=True)
        loss = 1e-5 * tf.reduce_mean(kl_divergence(mu, log_var))
    gradients = tape.gradient(loss, variables)
    return {variable.path: gradient.numpy() for variable, gradient in zip(variables, gradients, strict=True)}


@pytest.mark.parametrize("precision", HALF)
def test_the_gradient_of_a_tiny_kl_loss_does_not_vanish_in_the_heads(precision: str) -> None:
    exact, found = kl_gradients("float32"), kl_gradients(precision)
    for head in ("mu/kernel", "log_var/kernel", "mu/bias", "log_var/bias"):
        scale = np.abs(exact[head]).max()
        assert 0 < scale < 1e-4  # float16 alone would round most of it to multiples of 6e-8
        np.testing.assert_allclose(found[head], exact[head], atol=0.05 * scale, err_msg=head)


def test_loss_scaling_carries_it_through_float16_convolutions() -> None:
    net = net_in("mixed_float16")
    optimizer = build_optimizer(net.arm.train, net)
    kernel = net.encoder.get_layer("encoder_conv_1").kernel
    with tf.GradientTape(persistent=True) as tape:
        mu, log_var = net.encode(IMAGES, training=True)
        loss = 1e-5 * tf.reduce_mean(kl_divergence(mu, log_var))
        scaled = optimizer.scale_loss(loss)
    bare, whole = tape.gradient(loss, kernel).numpy(), tape.gradient(scaled, kernel).numpy()
    whole = whole / float(np.asarray(optimizer.dynamic_scale))
    exact = kl_gradients("float32")["encoder_conv_1/kernel"]

    def error(found: np.ndarray) -> float:
        return float(np.linalg.norm(found - exact) / np.linalg.norm(exact))

    assert error(whole) < 0.1
    assert error(bare) > 2 * error(whole)


@pytest.mark.parametrize("sign", [-20.0, 20.0])
def test_logits_of_20_keep_their_gradient(sign: float) -> None:
    logits = tf.fill((2, 16, 16, 3), tf.constant(sign, tf.float16))
    images = tf.fill((2, 16, 16, 3), 1.0 if sign < 0 else 0.0)
    with tf.GradientTape() as tape:
        tape.watch(logits)
        loss = tf.reduce_sum(reconstruction_loss(images, logits))
    np.testing.assert_allclose(loss.numpy(), 2 * 256 * 20.0, rtol=1e-5)
    np.testing.assert_allclose(tape.gradient(loss, logits).numpy(), np.sign(sign) / 3, rtol=1e-3)


@pytest.mark.parametrize("log_var", [30.0, -40.0])
def test_log_var_at_its_edges_keeps_values_and_gradients(log_var: float) -> None:
    head = tf.constant([[log_var]])
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(head)
        z = sample_latent(tf.constant([[1.0]]), head, tf.constant([[0.5]]))
        kl = kl_divergence(tf.constant([[1.0]]), head)
    sigma = np.exp(log_var / 2)
    assert tape.gradient(z, head).numpy()[0, 0] == pytest.approx(0.25 * sigma, rel=1e-5)
    assert kl.numpy()[0] == pytest.approx(-0.5 * (log_var - np.exp(log_var)), rel=1e-5)
    assert tape.gradient(kl, head).numpy()[0, 0] == pytest.approx(-0.5 * (1 - np.exp(log_var)), rel=1e-5)


@pytest.mark.parametrize("precision", HALF)
def test_a_batch_sum_beyond_float16_is_exact(precision: str) -> None:
    # 128 images of 4,600 nats are 588,800: nine times float16's largest number.
    half = tf.as_dtype(precision.removeprefix("mixed_"))
    images = tf.cast(tf.ones((128, 96, 96, 3)), half)
    losses = reconstruction_loss(images, tf.cast(tf.fill((128, 96, 96, 3), -0.0), half))
    assert float(tf.reduce_sum(losses)) == pytest.approx(128 * 9216 * np.log(2), rel=1e-5)
