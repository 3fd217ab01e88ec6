"""The net: shapes, number of weights, precision, equal starts in every arm."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.examples import arm_config, run_config
from vaehpc.schema.config import ArmConfig
from vaehpc.study.study import num_weights
from vaehpc.training.models import LAYER_NAMES, FusedBatchNormalization, LogitsLayer, Net, build_net, layer_seeds

KEY = np.random.SeedSequence(5)


def net_of(arm: ArmConfig, image_size: int = 16) -> Net:
    return build_net(arm, image_size, layer_seeds(KEY))


def weights(net: Net) -> dict[str, np.ndarray]:
    return {variable.path: np.asarray(variable) for variable in net.variables}


@pytest.mark.parametrize("kind", ["ae", "vae"])
@pytest.mark.parametrize(("batch_norm", "image_size"), [(True, 16), (True, 48), (False, 48), ("inference", 16)])
def test_shapes_and_number_of_weights(kind: str, batch_norm: bool | str, image_size: int) -> None:
    run = run_config(kind, image_size=image_size, model={"batch_norm": batch_norm})
    net = net_of(run.arm, image_size)
    mu, log_var = net.encode(tf.zeros((2, image_size, image_size, 3)), training=False)
    assert mu.shape == (2, run.arm.model.z_dim)
    assert (log_var is None) == (kind == "ae")
    assert net.decoder(mu, training=False).shape == (2, image_size, image_size, 3)
    assert sum(int(np.prod(variable.shape)) for variable in net.trainable_variables) == num_weights(run)


def test_the_articles_net_has_the_weights_that_its_layers_add_up_to() -> None:
    run = run_config("vae", image_size=96, model={"z_dim": 256, "filters": (32, 64, 128, 256)})
    encoder = 9 * 3 * 32 + 9 * 32 * 64 + 9 * 64 * 128 + 9 * 128 * 256 + 2 * 480
    decoder = 9 * 256 * 128 + 9 * 128 * 64 + 9 * 64 * 32 + (9 * 32 * 3 + 3) + 2 * 224
    assert num_weights(run) == encoder + decoder + 2 * (9216 * 256 + 256) + (256 * 9216 + 9216)


def test_same_key_same_weights_and_ae_and_vae_start_equal() -> None:
    ae, vae, again = (weights(net_of(arm_config(kind))) for kind in ("ae", "vae", "vae"))
    assert vae.keys() - ae.keys() == {"log_var/kernel", "log_var/bias"}
    for name, value in ae.items():
        np.testing.assert_array_equal(value, vae[name])
    for name, value in again.items():
        np.testing.assert_array_equal(value, vae[name])


def test_layers_and_keys_have_their_own_seeds() -> None:
    first, second = layer_seeds(np.random.SeedSequence(5)), layer_seeds(np.random.SeedSequence(6))
    seeds = [seed_of(name) for seed_of in (first, second) for name in LAYER_NAMES]
    assert len(set(seeds)) == 2 * len(LAYER_NAMES)


@pytest.mark.parametrize("precision", ["float32", "mixed_bfloat16", "mixed_float16"])
def test_outputs_and_weights_are_float32_in_every_precision(precision: str) -> None:
    net = net_of(arm_config("vae", train={"precision": precision}))
    mu, log_var = net.encode(tf.random.stateless_uniform((2, 16, 16, 3), seed=(1, 2)), training=True)
    logits = net.decoder(mu, training=True)
    assert {mu.dtype, log_var.dtype, logits.dtype} == {tf.float32}
    assert {variable.dtype for variable in net.variables} == {"float32"}
    half = {"float32": "float32", "mixed_bfloat16": "bfloat16", "mixed_float16": "float16"}[precision]
    assert net.encoder.get_layer("encoder_conv_1").compute_dtype == half


def test_noise_moves_z_of_a_vae_and_nothing_of_an_ae() -> None:
    mu, log_var = tf.ones((2, 8)), tf.zeros((2, 8))
    key, step = tf.constant(3, tf.int64), tf.constant(0, tf.int64)
    ae, vae = net_of(arm_config("ae")), net_of(arm_config("vae"))
    np.testing.assert_array_equal(ae.sample(mu, None, ae.noise(key, step, 2)), mu)
    assert not np.array_equal(vae.sample(mu, log_var, vae.noise(key, step, 2)), mu)


def test_image_size_must_be_a_multiple_of_16() -> None:
    with pytest.raises(ValueError, match="not a multiple of 16"):
        net_of(arm_config("ae"), 40)


def test_batch_normalisation_against_numpy() -> None:
    inputs = np.random.default_rng(0).normal(3, 2, size=(8, 4, 4, 5)).astype(np.float32)
    layer = FusedBatchNormalization(momentum=0.9)
    mean, variance = inputs.mean(axis=(0, 1, 2)), inputs.var(axis=(0, 1, 2))
    outputs = layer(inputs, training=True).numpy()
    np.testing.assert_allclose(outputs, (inputs - mean) / np.sqrt(variance + 1e-3), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(np.asarray(layer.moving_mean), 0.1 * mean, rtol=1e-5)
    num_values = inputs.size // 5  # TensorFlow's kernel keeps the unbiased variance
    np.testing.assert_allclose(
        np.asarray(layer.moving_variance), 0.9 + 0.1 * variance * num_values / (num_values - 1), rtol=1e-5
    )
    inference = layer(inputs, training=False).numpy()
    expected = (inputs - np.asarray(layer.moving_mean)) / np.sqrt(np.asarray(layer.moving_variance) + 1e-3)
    np.testing.assert_allclose(inference, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("jit_compile", [False, True])
def test_batch_normalisation_in_inference_mode_is_that_of_a_loop_without_training(jit_compile: bool) -> None:
    """Keras' own layer, called as such a loop calls it, keeps the statistics 0 and 1: a scale and a shift."""
    rng = np.random.default_rng(0)
    inputs = tf.constant(rng.normal(3, 2, size=(8, 4, 4, 5)), tf.float32)
    gamma, beta = rng.normal(size=(2, 5))

    @tf.function(jit_compile=jit_compile)
    def outputs_and_gradients(layer: keras.layers.Layer, **options: bool) -> list[tf.Tensor]:
        with tf.GradientTape() as tape:
            tape.watch(inputs)
            outputs = layer(inputs, **options)
            loss = tf.reduce_sum(tf.sin(outputs))
        return [outputs, *tape.gradient(loss, [inputs, *layer.trainable_weights])]

    found = []
    layers = (FusedBatchNormalization(inference=True), keras.layers.BatchNormalization())
    for layer, options in zip(layers, ({"training": True}, {}), strict=True):
        layer.build(inputs.shape)
        layer.set_weights([gamma, beta, np.zeros(5), np.ones(5)])
        found.append([*outputs_and_gradients(layer, **options), layer.moving_mean, layer.moving_variance])
    for ours, theirs in zip(*found, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(found[0][0], gamma * inputs / np.sqrt(1.001) + beta, rtol=1e-4, atol=1e-5)


def test_the_nets_layers_are_so_in_inference_mode() -> None:
    net = net_of(arm_config("vae", model={"batch_norm": "inference"}))
    before = weights(net)
    images = tf.random.stateless_uniform((8, 16, 16, 3), seed=(1, 2))
    for layer, batch in ((net.encoder, images), (net.decoder, tf.ones((8, 8)))):
        np.testing.assert_array_equal(layer(batch, training=True), layer(batch, training=False))
    assert {name for name, value in weights(net).items() if not np.array_equal(value, before[name])} == set()
    assert sum(name.endswith("moving_mean") for name in before) == 7


@pytest.mark.parametrize("jit_compile", [False, True])
def test_logits_and_their_gradients_are_those_of_a_transposed_convolution(jit_compile: bool) -> None:
    rng = np.random.default_rng(0)
    inputs = tf.constant(rng.normal(size=(2, 6, 6, 5)), tf.float32)
    layers = (LogitsLayer(3), keras.layers.Conv2DTranspose(3, 3, strides=2, padding="same"))
    weights = [rng.normal(size=(3, 3, 3, 5)), rng.normal(size=3)]

    @tf.function(jit_compile=jit_compile)
    def outputs_and_gradients(layer: keras.layers.Layer) -> list[tf.Tensor]:
        with tf.GradientTape() as tape:
            tape.watch(inputs)
            outputs = layer(inputs)
            loss = tf.reduce_sum(tf.sin(outputs))
        return [outputs, *tape.gradient(loss, [inputs, *layer.trainable_weights])]

    found = []
    for layer in layers:
        layer.build(inputs.shape)
        layer.set_weights(weights)
        found.append(outputs_and_gradients(layer))
    for ours, theirs in zip(*found, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-4)


def test_a_bias_before_normalisation_would_change_nothing() -> None:
    images = tf.random.stateless_uniform((8, 16, 16, 3), seed=(1, 2))
    layer, norm = keras.layers.Conv2D(4, 3, strides=2), FusedBatchNormalization()
    without = norm(layer(images), training=True)
    layer.bias.assign([1.0, -2.0, 3.0, 0.5])
    np.testing.assert_allclose(norm(layer(images), training=True), without, atol=2e-5)
    for batch_norm in (True, False, "inference"):
        net = net_of(arm_config("vae", model={"batch_norm": batch_norm}))
        biases = {name for name in weights(net) if name.endswith("bias")}
        assert ("encoder_conv_1/bias" in biases) == (batch_norm is not True)
        assert "logits/bias" in biases


@pytest.mark.parametrize(
    ("initializer", "sd"), [("he", np.sqrt(2 / 72)), ("normal", 0.02), ("glorot", np.sqrt(2 / 144))]
)
def test_initial_kernels_have_the_spread_of_their_initializer(initializer: str, sd: float) -> None:
    net = net_of(arm_config("vae", model={"filters": (4, 4, 8, 8), "initializer": initializer}))
    kernel = np.asarray(net.encoder.get_layer("encoder_conv_4").kernel)
    assert kernel.std() == pytest.approx(sd, rel=0.1)


def test_mu_scale_scales_the_kernel_of_mu_alone() -> None:
    plain = weights(net_of(arm_config("vae")))
    scaled = weights(net_of(arm_config("vae", model={"mu_scale": 10.0})))
    np.testing.assert_array_equal(scaled.pop("mu/kernel"), 10 * plain.pop("mu/kernel"))
    for name, value in plain.items():
        np.testing.assert_array_equal(scaled[name], value)


def test_log_var_is_clamped_from_above_alone() -> None:
    free, arm = net_of(arm_config("vae")), arm_config("vae")
    images = tf.random.stateless_uniform((4, 16, 16, 3), seed=(1, 2))
    _, log_var = free.encode(images, training=False)
    middle = float(np.median(log_var))
    assert arm.vae is not None
    limited = arm.model_copy(update={"vae": arm.vae.model_copy(update={"log_var_limit": 5.0})})
    net = net_of(limited)
    spike = tf.fill(log_var.shape, 5.0 - middle)  # so that half of the components are beyond 5
    _, clamped = net.encode(images, training=False, log_var_spike=spike)
    np.testing.assert_allclose(clamped, np.minimum(log_var + spike, 5.0), rtol=1e-6)
    assert (np.asarray(clamped) == 5.0).any()
    assert (np.asarray(clamped) < 5.0).any()
