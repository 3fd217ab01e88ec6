"""The same seed in `vae-tiny` and `vae-eps5`: one training to the bit, until noise first exceeds the limit."""

from dataclasses import dataclass

import numpy as np
import pytest
import tensorflow as tf

from tests.examples import run_config
from vaehpc.schema.config import ModelConfig, RunConfig, TrainConfig
from vaehpc.study.presets import Settings, configured_arms, named_arms
from vaehpc.training.checkpoint import state_arrays, state_hash
from vaehpc.training.encode import noise_key
from vaehpc.training.fit import build_optimizer
from vaehpc.training.losses import draw_epsilon
from vaehpc.training.models import build_net, layer_seeds
from vaehpc.training.pipeline import batch_of_step
from vaehpc.training.signals import signal_names
from vaehpc.training.steps import training_block

LIMIT = 5.0
BATCH_SIZE, Z_DIM = 128, 256
"""The article's: one step in fifty has an |epsilon| of 5."""
SOUGHT_STEPS = range(5, 13)
IMAGES = np.random.default_rng(0).integers(256, size=(4 * BATCH_SIZE, 16, 16, 3)).astype(np.uint8)


@dataclass(frozen=True)
class Step:
    """A step, and the state after it."""

    signals: dict[str, np.float32]
    epsilon_max: float
    state_sha256: str


Pair = tuple[list[Step], list[Step]]


def paired_run(arm: str, seed: int) -> RunConfig:
    """A run of an arm as presets name it, on a small net."""
    settings = Settings(
        model=ModelConfig(z_dim=Z_DIM, filters=(4, 4, 8, 8)),
        train=TrainConfig(epochs=4, batch_size=BATCH_SIZE),
    )
    run = run_config(seed=seed, num_train=len(IMAGES))
    return run.model_copy(update={"arm": configured_arms(named_arms([arm]), settings)[arm]})


def epsilon_max(run: RunConfig, step: int) -> float:
    """Largest |epsilon| of a step of `vae-tiny`, drawn by itself."""
    assert run.arm.vae is not None
    drawn = draw_epsilon(noise_key(run), tf.constant(step, tf.int64), (BATCH_SIZE, Z_DIM), run.arm.vae)
    return float(np.abs(drawn).max())


def first_beyond(run: RunConfig) -> int | None:
    """The first step with an |epsilon| of at least LIMIT, if it is not later than those sought."""
    return next((step for step in range(SOUGHT_STEPS.stop) if epsilon_max(run, step) >= LIMIT), None)


@pytest.fixture(scope="module")
def seed_and_step() -> tuple[int, int]:
    """The first seed whose noise is within the limit for some steps and soon beyond, and that step."""
    firsts = ((seed, first_beyond(paired_run("vae-tiny", seed))) for seed in range(100))
    return next((seed, step) for seed, step in firsts if step in SOUGHT_STEPS)


def trained(arm: str, seed: int, last_step: int) -> list[Step]:
    run = paired_run(arm, seed)
    net = build_net(run.arm, 16, layer_seeds(run.key("initialisation")))
    optimizer = build_optimizer(run.arm.train, net)
    block, names = training_block(run, IMAGES, net, optimizer), signal_names(run.arm, net)
    steps = []
    for step in range(last_step + 1):
        block.feed(batch_of_step(run, step))
        (values,) = block(step, 1)
        signals = dict(zip(names, values, strict=True))
        state = state_hash(state_arrays([*net.variables, *optimizer.variables]), step)
        steps.append(Step(signals, epsilon_max=float(signals["epsilon_max"]), state_sha256=state))
    return steps


@pytest.fixture(scope="module")
def pair(seed_and_step: tuple[int, int]) -> Pair:
    """`vae-tiny` and `vae-eps5` up to the step at which they must part."""
    return trained("vae-tiny", *seed_and_step), trained("vae-eps5", *seed_and_step)


def test_the_steps_before_are_the_same_to_the_bit(pair: Pair) -> None:
    free, limited = (steps[:-1] for steps in pair)
    assert len(free) in SOUGHT_STEPS
    assert [step.signals for step in free] == [step.signals for step in limited]
    assert [step.state_sha256 for step in free] == [step.state_sha256 for step in limited]
    assert max(step.epsilon_max for step in free) < LIMIT


def test_they_part_at_the_first_epsilon_beyond_the_limit(pair: Pair, seed_and_step: tuple[int, int]) -> None:
    assert len(pair[0]) == len(pair[1]) == seed_and_step[1] + 1
    free, limited = (steps[-1] for steps in pair)
    assert free.epsilon_max > limited.epsilon_max == LIMIT
    # Not the loss: a component of 32,768 that is 5 instead of 5.02 is lost in its last bit.
    assert free.signals["gradient_norm"] != limited.signals["gradient_norm"]
    assert free.state_sha256 != limited.state_sha256


def test_the_training_draws_the_noise_that_was_drawn_alone(pair: Pair, seed_and_step: tuple[int, int]) -> None:
    run = paired_run("vae-tiny", seed_and_step[0])
    expected = [epsilon_max(run, step) for step in range(len(pair[0]))]
    assert [step.epsilon_max for step in pair[0]] == expected
