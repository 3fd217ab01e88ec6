"""The fast training step against the plain one: Keras' own layers and Adam, a GradientTape, batch by batch."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.benchmarks.net import FILTERS
from tests.benchmarks.rivals import ArticleVae, same_weights
from tests.examples import run_config
from vaehpc.schema.config import RunConfig
from vaehpc.training.encode import noise_key
from vaehpc.training.fit import build_optimizer, forget_moments
from vaehpc.training.models import Net, build_net, layer_seeds
from vaehpc.training.pipeline import epoch_order
from vaehpc.training.steps import training_block

SIZE, Z_DIM = 16, 8
SEEDS = (0, 1, 2)
BATCH_SIZE, EPOCHS = 16, 5
IMAGES = np.random.default_rng(0).integers(256, size=(48, SIZE, SIZE, 3)).astype(np.uint8)


def article_run(seed: int, precision: str = "float32") -> RunConfig:
    train = {"epochs": EPOCHS, "batch_size": BATCH_SIZE, "precision": precision}
    return run_config("vae", seed=seed, num_train=len(IMAGES), model={"filters": FILTERS, "z_dim": Z_DIM}, train=train)


def fresh_net(run: RunConfig) -> Net:
    return build_net(run.arm, SIZE, layer_seeds(run.key("initialisation")))


def order_of(run: RunConfig) -> np.ndarray:
    """Positions of the images of all steps."""
    return np.concatenate([epoch_order(run, epoch) for epoch in range(EPOCHS)])


def our_losses(precision: str) -> list[np.ndarray]:
    """Total loss of each step with each seed's initial weights and batches, and the first one's noise.

    It is a constant of the compiled step, which is the same for all of them.
    """
    first = article_run(SEEDS[0], precision)
    net = fresh_net(first)
    optimizer = build_optimizer(first.arm.train, net)
    block = training_block(first, IMAGES, net, optimizer, recorded=False)
    losses = []
    for run in (article_run(seed, precision) for seed in SEEDS):
        for variable, initial in zip(net.variables, fresh_net(run).variables, strict=True):
            variable.assign(initial)
        forget_moments(optimizer)
        block.feed(order_of(run))
        losses.append(block(0, run.num_steps)[:, 0])
    return losses


def plain_losses() -> list[np.ndarray]:
    """The same, with the same initial weights, batches and noise."""
    first = article_run(SEEDS[0])
    plain = ArticleVae(SIZE, Z_DIM)
    adam = keras.optimizers.Adam(first.arm.train.learning_rate)
    adam.build(plain.trainable_variables)

    @tf.function
    def step(images: tf.Tensor, epsilon: tf.Tensor) -> tf.Tensor:
        with tf.GradientTape() as tape:
            loss = plain.losses_of(images, epsilon)
        adam.apply(tape.gradient(loss, plain.trainable_weights), plain.trainable_weights)
        return loss

    losses = []
    for run in (article_run(seed) for seed in SEEDS):
        net = fresh_net(run)
        same_weights(plain, net)
        forget_moments(adam)
        of_run = []
        for number, batch in enumerate(np.split(order_of(run), run.num_steps)):
            epsilon = net.noise(noise_key(first), tf.constant(number, tf.int64), tf.constant(len(batch)))
            of_run.append(float(step(tf.constant(IMAGES[batch] / 255, tf.float32), epsilon)))
        losses.append(np.array(of_run))
    return losses


@pytest.fixture(scope="module")
def plain() -> list[np.ndarray]:
    return plain_losses()


@pytest.fixture(scope="module")
def ours() -> list[np.ndarray]:
    return our_losses("float32")


def test_each_step_is_that_of_the_plain_net(ours: list[np.ndarray], plain: list[np.ndarray]) -> None:
    for found, expected in zip(ours, plain, strict=True):
        assert found[0] == pytest.approx(expected[0], rel=1e-6)
        np.testing.assert_allclose(found, expected, rtol=5e-5)  # what rounds otherwise grows from step to step
        assert found[-1] < 0.97 * found[0]


def test_the_final_loss_over_seeds_is_that_of_the_plain_net(ours: list[np.ndarray], plain: list[np.ndarray]) -> None:
    assert share_of_spread(ours, plain) < 0.001


def test_the_final_loss_in_half_precision_is_that_of_the_plain_net(plain: list[np.ndarray]) -> None:
    assert share_of_spread(our_losses("mixed_bfloat16"), plain) < 0.2


def share_of_spread(found: list[np.ndarray], expected: list[np.ndarray]) -> float:
    """Mean difference of the final losses, in standard deviations over the seeds."""
    finals = np.array([final(losses) for losses in expected])
    return float(abs((np.array([final(losses) for losses in found]) - finals).mean()) / finals.std(ddof=1))


def final(losses: np.ndarray) -> float:
    """Mean over the last epoch."""
    return float(losses[-3:].mean())
