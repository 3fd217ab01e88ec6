"""Training steps: what they compute, that they repeat to the bit, and that an interruption changes nothing."""

import dataclasses
import functools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.examples import run_config
from vaehpc.schema.config import RunConfig, TrainConfig
from vaehpc.schema.results import EpochRecord
from vaehpc.training.checkpoint import Arrays, NonFiniteError, Progress, state_arrays, state_hash
from vaehpc.training.device import is_compiled
from vaehpc.training.encode import compiled_encoder
from vaehpc.training.fit import FusedAdam, build_optimizer, train_blocks
from vaehpc.training.losses import kl_divergence, reconstruction_loss
from vaehpc.training.models import Net, build_net, layer_seeds
from vaehpc.training.pipeline import epoch_order

IMAGES = np.random.default_rng(0).integers(256, size=(40, 16, 16, 3)).astype(np.uint8)


@dataclass
class Training:
    """A net on its way."""

    run: RunConfig
    net: Net
    optimizer: keras.optimizers.Optimizer

    def blocks(self, progress: Progress) -> Iterator[Progress]:
        for block in train_blocks(self.run, IMAGES, self.net, self.optimizer, progress):
            yield block.progress

    @property
    def variables(self) -> list[keras.Variable]:
        return [*self.net.variables, *self.optimizer.variables]

    def finished(self, progress: Progress | None = None) -> tuple[Progress, str]:
        *_, last = self.blocks(progress or Progress())
        return last, state_hash(state_arrays(self.variables), last.step)


@dataclass
class Undisturbed:
    """A training that went to its end."""

    blocks: list[Progress]
    """After each block."""
    arrays: list[Arrays]
    """Its variables then."""
    state_sha256: str


@functools.cache  # trained once for all tests that look at it
def undisturbed(kind: str = "vae", **train: object) -> Undisturbed:
    of = training(kind, **train)
    blocks, arrays = [], []
    for progress in of.blocks(Progress()):
        blocks.append(progress)
        arrays.append({name: np.copy(array) for name, array in state_arrays(of.variables).items()})
    return Undisturbed(blocks, arrays, state_hash(arrays[-1], blocks[-1].step))


def training(kind: str = "vae", **train: object) -> Training:
    """Probes every 2 steps, so that the 3 steps of an epoch fall into several blocks."""
    run = run_config(kind, num_train=len(IMAGES), train=train)
    plan = run.plan.model_copy(update={"probe": run.plan.probe.model_copy(update={"every_steps": 2})})
    run = run.model_copy(update={"plan": plan})
    net = build_net(run.arm, 16, layer_seeds(run.key("initialisation")))
    return Training(run, net, build_optimizer(run.arm.train, net))


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"beta_2": 0.9, "global_clipnorm": 0.5},
        {"beta_1": 0.5, "epsilon": 0.1, "weight_decay": 0.2},
        {"beta_1": 0.0},
    ],
)
def test_adam_is_that_of_keras(options: dict[str, Any]) -> None:
    rng = np.random.default_rng(0)
    start = [rng.normal(size=shape).astype(np.float32) for shape in ((30, 20), (7,))]
    gradients = [[tf.constant(rng.normal(size=values.shape), tf.float32) for values in start] for _ in range(20)]
    adams = [cls(0.01, **options) for cls in (FusedAdam, keras.optimizers.Adam)]
    found = []
    for adam in adams:
        weights = [keras.Variable(values) for values in start]
        adam.build(weights)
        for step in gradients:
            adam.apply(step, weights)
        found.append([variable.numpy() for variable in [*weights, *adam.variables]])
    for ours, theirs in zip(*found, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6)
    assert np.abs(found[0][0] - start[0]).max() > 0.05  # that is, it has moved


@pytest.mark.parametrize("option", [{"amsgrad": True}, {"use_ema": True}, {"clipvalue": 1.0}])
def test_adam_refuses_an_option_that_it_does_not_have(option: dict[str, Any]) -> None:
    with pytest.raises(TypeError, match="unexpected keyword"):
        FusedAdam(0.01, **option)


def test_adam_is_made_again_from_its_configuration() -> None:
    options = {"beta_1": 0.75, "beta_2": 0.5, "epsilon": 0.125, "global_clipnorm": 2.0, "weight_decay": 0.0625}
    adam = FusedAdam(0.25, **options)
    scaled = keras.optimizers.LossScaleOptimizer(adam, name="loss_scale")
    with keras.saving.custom_object_scope({"FusedAdam": FusedAdam}):
        again = keras.optimizers.LossScaleOptimizer.from_config(scaled.get_config()).inner_optimizer
    assert isinstance(again, FusedAdam)
    assert again.get_config() == adam.get_config()
    assert {option: getattr(again, option) for option in options} == options
    assert (float(again.learning_rate), again.name) == (0.25, "adam")


def test_weight_decay_takes_its_part_of_kernels_alone() -> None:
    of = training(weight_decay=0.5, learning_rate=0.25)
    of.net.encoder.get_layer("mu").bias.assign(tf.ones(8))
    before = [weight.numpy() for weight in of.net.trainable_variables]
    of.optimizer.apply([tf.zeros(weight.shape) for weight in before], of.net.trainable_variables)
    for weight, value in zip(of.net.trainable_variables, before, strict=True):
        factor = 1 - 0.25 * 0.5 if weight.path.endswith("kernel") else 1
        np.testing.assert_allclose(weight.numpy(), factor * value, rtol=1e-6)


@pytest.mark.parametrize("precision", ["float32", "mixed_bfloat16", "mixed_float16"])
def test_an_interruption_between_blocks_changes_no_bit(precision: str) -> None:
    whole = undisturbed(precision=precision)
    progress, stored = whole.blocks[3], whole.arrays[3]
    assert progress.step == 4  # inside the second epoch of 3 steps
    second = training(precision=precision)
    for variable in second.variables:
        variable.assign(stored[variable.path])
    progress = Progress.model_validate_json(progress.model_dump_json())  # as a checkpoint keeps it
    assert second.finished(progress) == (whole.blocks[-1], whole.state_sha256)


@pytest.mark.slow
def test_images_in_the_devices_memory_change_no_bit_of_the_training(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is measured of the latents there is added up in another order."""
    from_host = undisturbed(jit_compile=True)
    monkeypatch.setattr("vaehpc.training.fit.memory_of_gpu", lambda: 2 * IMAGES.nbytes)
    # The host's images are not asked for by a batch of training any more.
    monkeypatch.setattr("vaehpc.training.steps.batches", None)
    progress, state = training(jit_compile=True).finished()
    assert state == from_host.state_sha256
    expected = from_host.blocks[-1]
    for records, others in ((progress.probe, expected.probe), (progress.epochs, expected.epochs)):
        of_each = zip(records, others, strict=True)
        assert all(found.model_dump() == pytest.approx(other.model_dump(), rel=1e-12) for found, other in of_each)
        assert [found.radius_median for found in records] == [other.radius_median for other in others]


@pytest.mark.parametrize(("asked", "gpus", "compiled"), [(None, 1, True), (None, 0, False), (False, 1, False)])
def test_xla_compiles_where_a_gpu_is(
    monkeypatch: pytest.MonkeyPatch, asked: bool | None, gpus: int, compiled: bool
) -> None:
    monkeypatch.setattr("vaehpc.training.device.tf.config.list_logical_devices", lambda _: ["GPU"] * gpus)
    assert is_compiled(TrainConfig(jit_compile=asked)) is compiled


def test_blocks_end_at_probes_and_epochs() -> None:
    blocks = undisturbed(precision="float32").blocks
    assert [progress.step for progress in blocks] == [1, 2, 3, 4, 6]  # the first two only tell how long a step takes
    assert [record.step for record in blocks[-1].probe] == [2, 4, 6]
    assert [(record.epoch, record.step) for record in blocks[-1].epochs] == [(1, 3), (2, 6)]


@functools.cache
def still() -> tuple[Training, EpochRecord]:
    """An epoch with a learning rate too small to change a weight, so that each loss can be computed again."""
    of = training(learning_rate=1e-30, epochs=1, eval_images=20)
    return of, of.finished()[0].epochs[0]


def test_epoch_losses_are_means_over_the_images() -> None:
    again = training()
    key = tf.constant(int(again.run.key("noise").generate_state(1, np.uint64)[0] >> np.uint64(1)), tf.int64)
    sums = np.zeros(2)
    order = epoch_order(again.run, 0)
    for step in range(3):
        batch = tf.constant(IMAGES[order[16 * step : 16 * step + 16]] / 255, tf.float32)
        mu, log_var = again.net.encode(batch, training=True)
        epsilon = again.net.noise(key, tf.constant(step, tf.int64), len(batch))
        logits = again.net.decoder(again.net.sample(mu, log_var, epsilon), training=True)
        sums += [reconstruction_loss(batch, logits).numpy().sum(), kl_divergence(mu, log_var).numpy().sum()]
    _, record = still()
    assert record.reconstruction_loss == pytest.approx(sums[0] / 40, rel=1e-5)
    assert record.kl_loss == pytest.approx(1e-5 * sums[1] / 40, rel=1e-4)
    assert record.total_loss == pytest.approx(record.reconstruction_loss + record.kl_loss, rel=1e-6)
    assert record.excess_loss == pytest.approx(record.reconstruction_loss - again.run.data.entropy_floor)


def test_epoch_record_measures_the_latents_at_its_end() -> None:
    of, record = still()
    mu, log_var = compiled_encoder(of.net, 16)(IMAGES, 20)
    assert log_var is not None
    radius = np.linalg.norm(mu.astype(np.float64), axis=1)
    assert record.radius_median == pytest.approx(np.median(radius))
    assert record.radius_max == pytest.approx(radius.max())
    assert record.offset**2 + record.spread**2 == pytest.approx((radius**2).mean())
    assert (record.log_var_min, record.log_var_max) == (log_var.min(), log_var.max())


def test_an_ae_has_no_kl_loss_and_no_log_var() -> None:
    record = undisturbed("ae").blocks[-1].epochs[0]
    assert (record.kl_loss, record.log_var_min, record.log_var_mean, record.log_var_max) == (0.0, None, None, None)
    assert record.total_loss == record.reconstruction_loss


def test_ae_and_vae_without_noise_and_kl_are_the_same_net() -> None:
    vae = training("vae")
    silent = vae.run.arm.vae.model_copy(update={"epsilon_factor": 0.0, "kl_weight": 0.0})
    arm = vae.run.arm.model_copy(update={"vae": silent})
    vae.run = vae.run.model_copy(update={"arm": arm})
    vae.net = dataclasses.replace(vae.net, arm=arm)
    found, expected = vae.finished()[0], undisturbed("ae").blocks[-1]
    assert [record.radius_median for record in found.epochs] == [record.radius_median for record in expected.epochs]


def test_a_loss_that_is_not_finite_names_its_step() -> None:
    spoilt = training()
    blocks = spoilt.blocks(Progress())
    assert next(blocks).step == 1
    assert next(blocks).step == 2
    spoilt.net.decoder.get_layer("logits").bias.assign([np.nan, 0.0, 0.0])
    with pytest.raises(NonFiniteError, match="step 2") as caught:
        next(blocks)
    assert [record.step for record in caught.value.probe] == [2]
