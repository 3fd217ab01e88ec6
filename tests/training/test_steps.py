"""A block as one program: the same bits in any length and wherever the images are, and the plain steps' signals."""

import functools
from typing import Any

import numpy as np
import pytest

from tests.examples import run_config
from vaehpc.schema.config import SpikeConfig
from vaehpc.training.checkpoint import state_arrays, state_hash
from vaehpc.training.fit import build_optimizer
from vaehpc.training.models import build_net, layer_seeds
from vaehpc.training.pipeline import epoch_order, resident_images
from vaehpc.training.signals import signal_names
from vaehpc.training.steps import OneProgram, training_block

pytestmark = pytest.mark.slow  # XLA takes seconds for each of seven programs

IMAGES = np.random.default_rng(0).integers(256, size=(404, 16, 16, 3)).astype(np.uint8)
NUM_STEPS = 51
"""Of 8 images, and a last one of 4."""
SPIKED = 49
"""The step that SPIKE disturbs: a whole batch, and one more step follows."""
SPIKE = SpikeConfig(kind="gradient", strength=1000.0, steps_before_end=NUM_STEPS - SPIKED)

Trained = tuple[dict[str, np.ndarray], str]
"""Signals of all steps, each (51,), and the hash of the state after them."""


class Trainings:
    """A run that is trained again and again from its first weights, by programs that are compiled once."""

    def __init__(self, compiled: bool, kind: str, spike: SpikeConfig | None, resident: bool) -> None:
        run = run_config(kind, num_train=len(IMAGES), train={"epochs": 1, "batch_size": 8, "jit_compile": compiled})
        self.run = run.model_copy(update={"arm": run.arm.model_copy(update={"spike": spike})})
        self.net = build_net(self.run.arm, 16, layer_seeds(run.key("initialisation")))
        optimizer = build_optimizer(self.run.arm.train, self.net)
        memory = resident_images(IMAGES, 2 * IMAGES.nbytes) if compiled and resident else None
        self.block = training_block(self.run, IMAGES, self.net, optimizer, resident=memory)
        self.variables = [*self.net.variables, *optimizer.variables]
        self.first = [np.copy(np.asarray(variable)) for variable in self.variables]

    def trained(self, length: int) -> Trained:
        """In blocks of this length."""
        for variable, value in zip(self.variables, self.first, strict=True):
            variable.assign(value)
        self.block.feed(epoch_order(self.run, 0))
        signals = [self.block(step, min(length, NUM_STEPS - step)) for step in range(0, NUM_STEPS, length)]
        state = state_hash(state_arrays(self.variables), NUM_STEPS)
        return dict(zip(signal_names(self.run.arm, self.net), np.concatenate(signals).T, strict=True)), state


@functools.cache
def trainings(
    compiled: bool = True, kind: str = "vae", spike: SpikeConfig | None = None, resident: bool = True
) -> Trainings:
    return Trainings(compiled, kind, spike, resident)


@functools.cache
def trained(length: int = 50, **of: Any) -> Trained:
    return trainings(**of).trained(length)


@pytest.mark.parametrize("length", [1, 7, NUM_STEPS])
def test_blocks_of_any_length_are_the_same_bits(length: int) -> None:
    """Wherever in a block the spiked step is."""
    found, expected = trained(length, spike=SPIKE), trained(spike=SPIKE)
    for name, values in expected[0].items():
        np.testing.assert_array_equal(found[0][name], values, err_msg=name)
    assert found[1] == expected[1]
    block = trainings(spike=SPIKE).block
    assert isinstance(block, OneProgram)
    # Of whole batches, of the spiked one and of the last; one for each length would be other bits on some machines.
    assert block.calls.cache_info().currsize == 3


def test_neither_images_in_the_devices_memory_nor_a_spike_to_come_change_a_bit() -> None:
    found, expected = trained(spike=SPIKE)[0], trained(resident=False)[0]
    for name, values in expected.items():
        np.testing.assert_array_equal(found[name][:SPIKED], values[:SPIKED], err_msg=name)


@pytest.mark.parametrize(("kind", "resident"), [("vae", False), ("ae", True)])
def test_signals_are_those_of_the_plain_steps(kind: str, resident: bool) -> None:
    found, expected = trained(kind=kind, resident=resident)[0], trained(compiled=False, kind=kind)[0]
    assert (found["total_loss"] != expected["total_loss"]).any()  # XLA rounds otherwise: it has compiled them
    for name, values in expected.items():
        np.testing.assert_allclose(found[name], values, rtol=0, atol=5e-6 * np.abs(values).max(), err_msg=name)


def test_a_spiked_step_has_a_program_of_its_own() -> None:
    found, expected = trained(spike=SPIKE)[0]["gradient_norm"], trained(resident=False)[0]["gradient_norm"]
    assert found[SPIKED] == pytest.approx(1000 * expected[SPIKED], rel=1e-5)
