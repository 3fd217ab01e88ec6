"""Sharpness and curvature against dense Hessians, and their limit against Adam itself."""

import numpy as np
import pytest
import tensorflow as tf

from tests.examples import run_config
from vaehpc.schema.config import RunConfig
from vaehpc.training.checkpoint import Progress
from vaehpc.training.encode import noise_key
from vaehpc.training.fit import build_optimizer, train_blocks
from vaehpc.training.losses import kl_divergence
from vaehpc.training.models import build_net, layer_seeds
from vaehpc.training.stability import largest_eigenvalue, measured_stability, sharpness_limit

IMAGES = np.random.default_rng(0).integers(256, size=(40, 16, 16, 3)).astype(np.uint8)


def test_the_largest_eigenvalue_is_that_of_the_preconditioned_hessian() -> None:
    rng = np.random.default_rng(1)
    basis, _ = np.linalg.qr(rng.standard_normal((60, 60)))
    hessian = basis @ np.diag(np.r_[-500.0, rng.uniform(0, 10, 58), 40.0]) @ basis.T
    preconditioner = rng.uniform(0.1, 5, 60)
    root = np.sqrt(preconditioner)
    expected = np.linalg.eigvalsh(hessian / root[:, np.newaxis] / root)[-1]
    assert largest_eigenvalue(lambda vector: hessian @ vector, preconditioner) == pytest.approx(expected, rel=0.01)


def test_a_hessian_that_is_not_finite_has_none() -> None:
    assert largest_eigenvalue(lambda vector: np.nan * vector, np.ones(30)) is None


@pytest.mark.parametrize("beta_1", [0.9, 0.5])
@pytest.mark.parametrize(("ratio", "leaves"), [(0.99, False), (1.01, True)])
def test_beyond_the_limit_momentum_leaves_the_minimum_of_a_quadratic(beta_1: float, ratio: float, leaves: bool) -> None:
    rate, weight, momentum = 0.01, 1.0, 0.0
    sharpness = ratio * sharpness_limit(rate, beta_1)
    for _ in range(20_000):
        momentum = beta_1 * momentum + (1 - beta_1) * sharpness * weight
        weight -= rate * momentum
        if abs(weight) > 1e6:
            break
    assert (abs(weight) > 1e6) == leaves


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "train"), [("ae", {}), ("vae", {"clipnorm": 1.0}), ("vae", {"precision": "mixed_float16"})]
)
def test_a_small_net_agrees_with_its_dense_hessian(kind: str, train: dict[str, object]) -> None:
    """The Hessian column by column, from a loss written down anew."""
    train = {"learning_rate": 0.01, "batch_size": 8, **train}
    run = run_config(kind, num_train=len(IMAGES), train=train, model={"z_dim": 2, "filters": (2, 2, 2, 2)})
    net = build_net(
        run.arm.model_copy(update={"train": run.arm.train.model_copy(update={"precision": "float32"})}),
        16,
        layer_seeds(run.key("initialisation")),
    )
    optimizer = build_optimizer(run.arm.train, net)
    measured = measured_stability(run, IMAGES, net, optimizer)
    assert measured(0, "checkpoint") is None
    *_, last = train_blocks(run, IMAGES, net, optimizer, Progress())
    step = last.progress.step - 1
    found = measured(step, "checkpoint")
    assert found is not None

    weights = [variable.value for variable in net.trainable_variables]

    @tf.function(autograph=False)
    def gradient(pixels: np.ndarray, counter: int) -> tf.Tensor:
        images = tf.cast(pixels, tf.float32) / 255
        with tf.GradientTape() as tape:
            mu, log_var = net.encode(images, training=True)
            z = mu
            if log_var is not None:
                epsilon = net.noise(noise_key(run), tf.constant(counter, tf.int64), tf.shape(images)[0])
                z = mu + tf.exp(log_var / 2) * epsilon
            entropy = tf.nn.sigmoid_cross_entropy_with_logits(images, net.decoder(z, training=True))
            loss = tf.reduce_mean(tf.reduce_sum(tf.reduce_mean(entropy, axis=3), axis=(1, 2)))
            if run.arm.vae is not None:
                loss += run.arm.vae.kl_weight * tf.reduce_mean(kl_divergence(mu, log_var))
        return tf.concat([tf.reshape(part, (-1,)) for part in tape.gradient(loss, weights)], axis=0)

    @tf.function(autograph=False)
    def columns() -> list[tf.Tensor]:
        with tf.GradientTape() as tape:
            whole = gradient(IMAGES, 0)
        return tape.jacobian(whole, weights, experimental_use_pfor=False)

    of_fixed = gradient(IMAGES, 0).numpy()
    hessian = np.concatenate([column.numpy().reshape(len(of_fixed), -1) for column in columns()], axis=1)
    state = {variable.path: np.asarray(variable) for variable in optimizer.variables}
    squares = np.concatenate([state[path].ravel() for path in state if path.endswith("_velocity")]).astype(np.float64)
    count = next(int(value) for path, value in state.items() if path.endswith("adam/iteration"))
    correction = 1 - 0.999**count
    preconditioner = (np.sqrt(squares) + 1e-7) / np.sqrt(correction)
    root = np.sqrt(preconditioner)
    sharpness = np.linalg.eigvalsh((hessian + hessian.T) / 2 / root[:, np.newaxis] / root)[-1]
    assert found.sharpness == pytest.approx(sharpness, rel=0.02)
    direction = of_fixed / preconditioner
    assert found.curvature == pytest.approx(direction @ hessian @ direction / (of_fixed @ direction), rel=1e-2)

    of_batch = gradient(IMAGES[run_batch(run, step)], step).numpy()
    norm = np.linalg.norm(of_batch)
    clip = min(1, run.arm.train.clipnorm / norm) if run.arm.train.clipnorm else 1
    assert found.gradient_norm == pytest.approx(norm, rel=1e-3)
    assert found.clip == pytest.approx(clip, rel=1e-3)
    assert (clip < 1) == (run.arm.train.clipnorm is not None)
    assert found.sharpness_ratio == pytest.approx(sharpness * clip * 0.01 / 38, rel=0.02)
    assert found.curvature_ratio == pytest.approx(found.curvature * clip * 0.01 / 2)
    with np.errstate(invalid="ignore"):
        by_v = (clip * of_batch) ** 2 / (squares / correction)
    assert found.squares_by_v == pytest.approx(np.median(by_v[np.isfinite(by_v)]), rel=0.01)


def test_a_net_rescaled_by_hand_computes_the_same_and_is_told_so() -> None:
    """mu and sigma times 8, what the decoder makes of them by 8: R alone changes."""
    run = run_config("vae", num_train=len(IMAGES), model={"z_dim": 2, "filters": (2, 2, 2, 2), "batch_norm": False})
    net = build_net(run.arm, 16, layer_seeds(run.key("initialisation")))
    optimizer = build_optimizer(run.arm.train, net)
    *_, last = train_blocks(run, IMAGES, net, optimizer, Progress())
    measured = measured_stability(run, IMAGES, net, optimizer)
    plain = measured(last.progress.step - 1, "checkpoint")
    mu, log_var = (net.encoder.get_layer(head) for head in ("mu", "log_var"))
    decoder = net.decoder.get_layer("decoder_dense")
    for variable, factor in ((mu.kernel, 8), (mu.bias, 8), (decoder.kernel, 1 / 8)):
        variable.assign(factor * variable)
    log_var.bias.assign(log_var.bias + 2 * np.log(8))
    rescaled = measured(last.progress.step - 1, "checkpoint")
    assert plain is not None and rescaled is not None
    assert (plain.scale, plain.scale_share) == (None, None)
    assert rescaled.radius_median == pytest.approx(8 * plain.radius_median, rel=1e-5)
    assert rescaled.decoder_radius == pytest.approx(plain.decoder_radius, rel=1e-5)
    assert (rescaled.scale, rescaled.scale_share) == (pytest.approx(8, rel=1e-5), pytest.approx(1))
    kl = 1e-4 * abs(plain.loss)  # but for the tiny KL loss
    assert rescaled.loss == pytest.approx(plain.loss, abs=kl)
    assert plain.loss_paid is None
    assert rescaled.loss_paid == pytest.approx(0, abs=1e-6 * plain.loss)  # what the KL loss rose, c alone costs
    assert rescaled.loss - plain.loss > 0.5e-5 * 63 * np.square(plain.radius_median) / 2


def run_batch(run: RunConfig, step: int) -> np.ndarray:
    """The step's images: the batches of an epoch follow one another in its order."""
    order = np.random.default_rng(run.key("shuffling", step // run.steps_per_epoch)).permutation(len(IMAGES))
    start = step % run.steps_per_epoch * run.arm.train.batch_size
    return order[start : start + run.arm.train.batch_size]
