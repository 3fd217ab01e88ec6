"""How near a training stood to the edge of stability: curvature of the loss as Adam's step sees it, after the fact.

With P = diag(sqrt(v_hat) + epsilon), Adam on a quadratic loss diverges once the largest eigenvalue of P^-1/2 H P^-1/2
exceeds 2 (1 + beta_1) / ((1 - beta_1) lr), 38 / lr for beta_1 = 0.9 (Cohen et al. 2022, arXiv 2207.14484); a step along
P^-1 g raises the loss once the curvature along it exceeds 2 / lr (Bai et al. 2025, arXiv 2506.04805). Where gradients
are clipped to a norm, steps and so both ratios are smaller by that factor. Weight decay is left out.
"""

from __future__ import annotations

from collections.abc import Callable

import keras
import numpy as np
import numpy.typing as npt
import tensorflow as tf
from scipy.sparse.linalg import ArpackNoConvergence, LinearOperator, eigsh

from vaehpc.schema.config import RunConfig
from vaehpc.schema.results import Stability
from vaehpc.stats.posterior import kl_of_scale
from vaehpc.stats.radius import common_scale, radii
from vaehpc.training.encode import compiled_encoder, noise_key, unit_range
from vaehpc.training.losses import kl_divergence, reconstruction_loss
from vaehpc.training.models import Net
from vaehpc.training.pipeline import Images, batch_of_step

Vector = npt.NDArray[np.float64]

NUM_IMAGES = 64
"""First images of the training split, on which the loss and its Hessian are taken."""
NUM_VECTORS = 20
"""Of Lanczos' method: as many products with the Hessian are enough for the tolerance nearly always."""
MAX_PRODUCTS = 100
TOLERANCE = 0.01


def measured_stability(
    run: RunConfig, images: Images, net: Net, optimizer: keras.optimizers.Optimizer
) -> Callable[[int, str], Stability | None]:
    """A function (steps done, words for the state) -> stability of the state that net and optimizer hold then.

    It is None before the first step: there are no moments yet. Latents are held against those of the state before. The
    net's statistics of BatchNormalization move.
    """
    adam = getattr(optimizer, "inner_optimizer", optimizer)
    weights = [variable.value for variable in net.trainable_variables]
    decoder = net.decoder.get_layer("decoder_dense")
    batches = tf.TensorSpec((None, *images[:1].shape[1:]), tf.uint8)
    key, fixed = noise_key(run), images[:NUM_IMAGES]
    encode, num_probed = compiled_encoder(net, run.arm.train.batch_size), min(run.plan.probe.num_images, len(images))
    before: tuple[npt.NDArray[np.float32], npt.NDArray[np.float32] | None, float] | None = None

    def loss(pixels: tf.Tensor, counter: tf.Tensor) -> tf.Tensor:
        shown = unit_range(pixels)
        mu, log_var = net.encode(shown, training=True)
        z = net.sample(mu, log_var, net.noise(key, counter, tf.shape(pixels)[0]))
        total = tf.reduce_mean(reconstruction_loss(shown, net.decoder(z, training=True)))
        if net.arm.vae is not None:
            total += net.arm.vae.kl_weight * tf.reduce_mean(kl_divergence(mu, log_var))
        return total

    @tf.function(input_signature=[batches, tf.TensorSpec((), tf.int64)], autograph=False)
    def loss_and_gradient(pixels: tf.Tensor, counter: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        with tf.GradientTape() as tape:
            value = loss(pixels, counter)
        return value, _flat(tape.gradient(value, weights))

    def gradient(pixels: npt.NDArray[np.uint8], counter: int) -> tuple[float, Vector]:
        value, found = loss_and_gradient(pixels, tf.constant(counter, tf.int64))
        return float(value), found.numpy().astype(np.float64)

    @tf.function(input_signature=[tf.TensorSpec((None,), tf.float32)], autograph=False)
    def hessian_product(direction: tf.Tensor) -> tf.Tensor:
        with tf.GradientTape() as outer:
            with tf.GradientTape() as tape:
                value = loss(tf.constant(fixed), tf.constant(0, tf.int64))
            along = tf.tensordot(_flat(tape.gradient(value, weights)), direction, 1)
        return _flat(outer.gradient(along, weights))

    def measured(step: int, state: str) -> Stability | None:
        nonlocal before
        count = int(adam.iterations.numpy())
        if not count:
            return None
        correction = 1 - adam.beta_2**count
        squares = _flat([moment.value for moment in adam._velocities]).numpy().astype(np.float64) / correction
        # TensorFlow's kernel adds epsilon to sqrt(v), before v is corrected.
        preconditioner = np.sqrt(squares) + adam.epsilon / np.sqrt(correction)
        mu, log_var = encode(images, num_probed)  # first: what follows moves the statistics of BatchNormalization
        radius = float(np.median(radii(mu)))
        _, of_batch = gradient(images[batch_of_step(run, step)], step)
        norm = float(np.linalg.norm(of_batch))
        clip = 1.0 if run.arm.train.clipnorm is None else min(1.0, run.arm.train.clipnorm / norm)

        def product(vector: Vector) -> Vector:
            found: Vector = hessian_product(tf.constant(vector, tf.float32)).numpy().astype(np.float64)
            return found

        sharpness = largest_eigenvalue(product, preconditioner)
        value, of_fixed = gradient(fixed, 0)
        scale, scale_share, loss_paid = None, None, None
        if before is not None:
            mu_then, log_var_then, loss_then = before
            scale, scale_share = common_scale(mu, mu_then)
            loss_paid = value - loss_then
            if net.arm.vae is not None:
                loss_paid -= net.arm.vae.kl_weight * kl_of_scale(scale, mu_then, log_var_then)
        before = mu, log_var, value
        direction = of_fixed / preconditioner
        curvature = float(direction @ product(direction) / (of_fixed @ direction))
        rate, moved = run.arm.train.learning_rate * clip, squares > 0
        return Stability(
            state=state,
            step=step,
            sharpness=sharpness,
            sharpness_ratio=None if sharpness is None else sharpness / sharpness_limit(rate, adam.beta_1),
            curvature=curvature,
            curvature_ratio=curvature * rate / 2,
            gradient_norm=norm,
            clip=clip,
            squares_by_v=float(np.median((clip * of_batch[moved]) ** 2 / squares[moved])),
            loss=value,
            radius_median=radius,
            decoder_radius=None if run.arm.model.batch_norm is True else radius * float(np.linalg.norm(decoder.kernel)),
            scale=scale,
            scale_share=scale_share,
            loss_paid=loss_paid,
        )

    return measured


def largest_eigenvalue(product: Callable[[Vector], Vector], preconditioner: Vector) -> float | None:
    """The largest eigenvalue of P^-1/2 H P^-1/2 by Lanczos' method (ARPACK), to 1 %.

    Args:
        product: a vector (num_weights,) -> H times it.
        preconditioner: diagonal of P, positive (num_weights,).

    Returns:
        None if it was not found within MAX_PRODUCTS products, or H is not finite.
    """
    root = np.sqrt(preconditioner)
    start = np.random.default_rng(0).standard_normal(len(root))

    def preconditioned(vector: Vector) -> Vector:
        return product(vector.ravel() / root) / root

    if not np.isfinite(preconditioned(start)).all():
        return None
    operator = LinearOperator((len(root), len(root)), matvec=preconditioned, dtype=np.float64)
    try:
        (found,) = eigsh(
            operator,
            k=1,
            which="LA",
            v0=start,
            ncv=min(NUM_VECTORS, len(root)),
            maxiter=MAX_PRODUCTS // NUM_VECTORS,
            tol=TOLERANCE,
            return_eigenvectors=False,
        )
    except ArpackNoConvergence:
        return None
    return float(found)


def sharpness_limit(learning_rate: float, beta_1: float) -> float:
    """2 (1 + beta_1) / ((1 - beta_1) lr): beyond it Adam with a fixed P leaves the minimum of a quadratic loss."""
    return 2 * (1 + beta_1) / ((1 - beta_1) * learning_rate)


def _flat(parts: list[tf.Tensor]) -> tf.Tensor:
    return tf.concat([tf.reshape(part, (-1,)) for part in parts], axis=0)
