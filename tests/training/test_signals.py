"""Signals of a step against what a plain eager step computes, and that watching changes no bit of the training."""

import functools
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from tests.examples import run_config
from vaehpc.schema.config import SpikeConfig
from vaehpc.training.checkpoint import state_arrays, state_hash
from vaehpc.training.encode import noise_key, unit_range
from vaehpc.training.fit import build_optimizer
from vaehpc.training.losses import kl_divergence, reconstruction_loss
from vaehpc.training.models import build_net, layer_seeds
from vaehpc.training.signals import (
    LOSSES,
    NO_ROW,
    VECTORS,
    image_signals,
    layer_names,
    signal_names,
    vae_signals,
)
from vaehpc.training.steps import training_block

IMAGES = np.random.default_rng(0).integers(256, size=(48, 16, 16, 3)).astype(np.uint8)
BATCH_SIZE = 16


class Watched:
    """A net, and what its steps were like."""

    def __init__(self, kind: str = "vae", spike: SpikeConfig | None = None, recorded: bool = True, **train: Any):
        run = run_config(kind, num_train=len(IMAGES), train={"epochs": 1, **train})
        self.run = run.model_copy(update={"arm": run.arm.model_copy(update={"spike": spike})})
        self.net = build_net(self.run.arm, 16, layer_seeds(run.key("initialisation")))
        self.optimizer = build_optimizer(self.run.arm.train, self.net)
        self.names = signal_names(self.run.arm, self.net) if recorded else LOSSES
        self._block = training_block(self.run, IMAGES, self.net, self.optimizer, recorded)

    def trained(self, num_steps: int, first_step: int = 0) -> dict[str, np.ndarray]:
        """Signals of some steps, each (num_steps,)."""
        self._block.feed(np.arange(48)[BATCH_SIZE * first_step :])
        return dict(zip(self.names, self._block(first_step, num_steps).T, strict=True))

    @property
    def state(self) -> str:
        return state_hash(state_arrays([*self.net.variables, *self.optimizer.variables]), 0)

    def weights(self) -> list[np.ndarray]:
        return [np.copy(np.asarray(weight)) for weight in self.net.trainable_variables]


@dataclass
class Step:
    """A plain eager step."""

    mu: np.ndarray
    log_var: np.ndarray
    epsilon: np.ndarray
    image_losses: np.ndarray
    gradients: list[np.ndarray]


@dataclass
class ThreeSteps:
    """What three steps were like, and what a plain net would have done at the first two."""

    watched: Watched
    signals: dict[str, np.ndarray]
    plain: list[Step]
    weights: list[list[np.ndarray]]
    """Before the first step, and after each."""


@functools.cache  # compiled once for all tests that look at it
def three_steps(**train: Any) -> ThreeSteps:
    watched = Watched(**train)
    signals, plain, weights = [], [], [watched.weights()]
    for step in range(3):
        plain += [plain_step(watched, step)] if step < 2 else []
        signals.append(watched.trained(1, first_step=step))
        weights.append(watched.weights())
    together = {name: np.concatenate([of_step[name] for of_step in signals]) for name in watched.names}
    return ThreeSteps(watched, together, plain, weights)


def plain_step(of: Watched, step: int) -> Step:
    """With the weights as they are; moving statistics stay."""
    before = [np.copy(np.asarray(variable)) for variable in of.net.variables]
    images = unit_range(tf.constant(IMAGES[BATCH_SIZE * step :][:BATCH_SIZE]))
    epsilon = of.net.noise(noise_key(of.run), tf.constant(step, tf.int64), len(images))
    with tf.GradientTape() as tape:
        mu, log_var = of.net.encode(images, training=True)
        losses = reconstruction_loss(images, of.net.decoder(of.net.sample(mu, log_var, epsilon), training=True))
        total = tf.reduce_mean(losses) + 1e-5 * tf.reduce_mean(kl_divergence(mu, log_var))
    gradients = tape.gradient(total, of.net.trainable_variables)
    for variable, value in zip(of.net.variables, before, strict=True):
        variable.assign(value)
    return Step(*(value.numpy() for value in (mu, log_var, epsilon, losses)), [g.numpy() for g in gradients])


def norm(arrays: list[np.ndarray]) -> float:
    return float(np.sqrt(sum(np.sum(array.astype(np.float64) ** 2) for array in arrays)))


def test_signals_of_images_and_latents() -> None:
    expected, found = three_steps().plain[0], three_steps().signals
    radius = np.linalg.norm(expected.mu, axis=1)
    of_image = {
        "radius_mean": radius.mean(),
        "radius_max": radius.max(),
        "image_loss_max": expected.image_losses.max(),
        "image_loss_row": expected.image_losses.argmax(),
        "log_var_sum": expected.log_var.sum(axis=1).mean(),
        "mu_square_sum": (expected.mu**2).sum(axis=1).mean(),
        "variance_sum": np.exp(expected.log_var).sum(axis=1).mean(),
        "epsilon_max": np.abs(expected.epsilon).max(),
        "noise_max": np.abs(np.exp(expected.log_var / 2) * expected.epsilon).max(),
        "log_var_min": expected.log_var.min(),
        "log_var_mean": expected.log_var.mean(),
        "log_var_max": expected.log_var.max(),
        "log_var_row": expected.log_var.max(axis=1).argmax(),
        "loss_scale": 1.0,
    }
    for name, value in of_image.items():
        assert found[name][0] == pytest.approx(value, rel=1e-4, abs=1e-5), name
    sums = -0.5 * (8 + found["log_var_sum"] - found["mu_square_sum"] - found["variance_sum"])
    assert found["kl_loss"][0] == pytest.approx(1e-5 * sums[0], rel=1e-4)


@pytest.mark.parametrize("train", [{}, {"clipnorm": 0.5}, {"precision": "mixed_float16"}], ids=str)
def test_signals_of_gradients_and_weights(train: dict[str, Any]) -> None:
    # The second step: at the first one Adam's v is g^2 itself.
    of = three_steps(**train)
    found = {name: values[1] for name, values in of.signals.items()}
    first_gradients, second_gradients = (step.gradients for step in of.plain)
    before, after = of.weights[1:3]
    rel = 0.02 if "precision" in train else 1e-4
    assert found["gradient_norm"] == pytest.approx(norm(second_gradients), rel=rel)
    assert found["weight_norm"] == pytest.approx(norm(after), rel=1e-5)
    assert found["update_norm"] == pytest.approx(norm([a - b for a, b in zip(after, before, strict=True)]), rel=1e-3)
    limit = train.get("clipnorm", np.inf)
    clipped = [
        [gradient * min(1.0, limit / norm(gradients)) for gradient in gradients]
        for gradients in (first_gradients, second_gradients)
    ]
    assert (norm(second_gradients) > limit) == ("clipnorm" in train)  # so that it is clipped at all
    ratios = [
        second**2 / ((0.999 * 0.001 * first**2 + 0.001 * second**2) / (1 - 0.999**2) + 1e-37)
        for first, second in zip(*clipped, strict=True)
    ]
    together = np.concatenate([ratio.ravel() for ratio in ratios])
    if "precision" not in train:  # where half a gradient of 1e-6 is rounded, its quotient is anything
        assert found["gradient_rms"] == pytest.approx(np.sqrt(together.mean()), rel=5e-3)
        assert found["gradient_peak"] == pytest.approx(together.max(), rel=5e-3)
    kernels = [i for i, weight in enumerate(of.watched.net.trainable_variables) if len(weight.shape) > 1]
    for layer, i in zip(layer_names(of.watched.net), kernels, strict=False):
        assert found[f"gradient_norm/{layer}"] == pytest.approx(norm([second_gradients[i]]), rel=rel), layer
        assert found[f"weight_norm/{layer}"] == pytest.approx(norm([after[i]]), rel=1e-5), layer
    vectors = [gradient for i, gradient in enumerate(second_gradients) if i not in kernels]
    assert found[f"gradient_norm/{VECTORS}"] == pytest.approx(norm(vectors), rel=rel)


NAN, INF = np.nan, np.inf


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize(
    ("values", "largest", "row"),
    [
        ([1.0, NAN, 5.0, 2.0], 5.0, 2),
        ([NAN, 1.0, -5.0, NAN], 1.0, 1),
        ([1.0, NAN, INF, 2.0], INF, 2),
        ([NAN] * 4, NAN, NO_ROW),
        ([NAN, INF, NAN, NAN], INF, NO_ROW),
    ],
    ids=str,
)
def test_the_image_with_the_largest_value_has_a_number(
    values: list[float], largest: float, row: int, compiled: bool
) -> None:
    """The second axis of log_var is smaller, and NaN in the image after each that is."""
    of_image = np.array(values, np.float32)
    log_var = np.stack([of_image, np.where(np.isnan(np.roll(of_image, 1)), NAN, of_image - 1)], axis=1)

    def signals() -> list[tf.Tensor]:
        losses = image_signals(tf.zeros((4, 2)), tf.constant(of_image))
        return [*losses[2:], *vae_signals(tf.zeros((4, 2)), tf.constant(log_var), tf.zeros((4, 2)))[-2:]]

    found = tf.function(signals, jit_compile=True, autograph=False)() if compiled else signals()
    np.testing.assert_array_equal([float(value) for value in found], [largest, row, largest, row])


def test_loss_scaling_is_told_and_taken_out() -> None:
    of = three_steps(precision="mixed_float16")
    scale = float(np.asarray(of.watched.optimizer.dynamic_scale))
    assert of.signals["loss_scale"][0] == scale > 1


def test_a_step_left_out_for_an_overflow_changes_no_weights() -> None:
    one = three_steps(precision="mixed_float16").watched
    scale, before = float(np.asarray(one.optimizer.dynamic_scale)), one.weights()
    one.optimizer.dynamic_scale.assign(3e38)
    found = one.trained(2)
    one.optimizer.dynamic_scale.assign(scale)
    assert not np.isfinite(found["gradient_norm"]).any()
    assert (found["update_norm"] == 0).all()
    np.testing.assert_array_equal(one.weights()[0], before[0])


@pytest.mark.parametrize("train", [{}, {"precision": "mixed_bfloat16"}], ids=str)
def test_watching_changes_no_bit(train: dict[str, Any]) -> None:
    plain, recorded = Watched(recorded=False, **train), three_steps(**train)
    losses = plain.trained(3)
    for name in LOSSES:
        np.testing.assert_array_equal(losses[name], recorded.signals[name])
    assert plain.state == recorded.watched.state


def test_losses_of_steps_that_xla_compiles_are_those_of_the_plain_ones() -> None:
    found, expected = Watched(recorded=False, jit_compile=True).trained(3), three_steps().signals
    assert (found["total_loss"] != expected["total_loss"]).any()  # XLA rounds otherwise: it has compiled them
    for name, rel in zip(LOSSES, (1e-5, 1e-5, 1e-4), strict=True):
        assert found[name] == pytest.approx(expected[name], rel=rel), name


def test_an_ae_has_no_signals_of_noise() -> None:
    names = Watched("ae").names
    assert not {"log_var_max", "epsilon_max", "noise_max", "gradient_norm/log_var"} & set(names)
    assert "gradient_norm/mu" in names


def test_a_spiked_gradient_is_a_thousand_times_its_size_in_one_step() -> None:
    spiked = Watched(spike=SpikeConfig(kind="gradient", strength=1000, steps_before_end=2)).trained(3)
    plain = three_steps().signals
    assert spiked["gradient_norm"][0] == plain["gradient_norm"][0]
    assert spiked["gradient_norm"][1] == pytest.approx(1000 * plain["gradient_norm"][1], rel=1e-5)
    assert spiked["total_loss"][1] == plain["total_loss"][1]
    assert spiked["total_loss"][2] != plain["total_loss"][2]
    assert spiked["gradient_norm"][2] < 100 * plain["gradient_norm"][2]


def test_a_spiked_log_var_is_one_component_of_one_image_in_one_step() -> None:
    spiked = Watched(spike=SpikeConfig(kind="log_var", strength=30, steps_before_end=2)).trained(3)
    plain = three_steps().signals
    for name, values in plain.items():
        assert values[0] == spiked[name][0], name
    assert spiked["log_var_sum"][1] - plain["log_var_sum"][1] == pytest.approx(30 / BATCH_SIZE, abs=1e-3)
    assert spiked["log_var_row"][1] == 0
    assert spiked["log_var_max"][2] < spiked["log_var_max"][1] - 20
    # The component with the image's largest |epsilon|, which is above 1 in all but one of 20 images.
    sigma = np.exp(spiked["log_var_max"][1] / 2)
    epsilon = three_steps().plain[1].epsilon[0]
    assert spiked["noise_max"][1] == pytest.approx(sigma * np.abs(epsilon).max(), rel=1e-3)
