"""Random streams: those of two seeds, two purposes or a fork share no stretch, and no arm changes them."""

import itertools
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
import pytest
import tensorflow as tf

from tests.examples import run_config
from vaehpc.schema.config import STREAMS, ForkConfig, RunConfig, Stream, VaeConfig
from vaehpc.study.presets import ARMS, Settings, configured_arms
from vaehpc.training.encode import noise_key
from vaehpc.training.losses import draw_epsilon
from vaehpc.training.models import LAYER_NAMES, build_net, layer_seeds
from vaehpc.training.pipeline import epoch_order

RUNS = [run_config(seed=0).model_copy(update={"seed": seed}) for seed in range(64)]
WINDOW = 4
"""Values that count as a stretch: what one turn of Philox makes, by which neighbouring counters are shifted."""

Float32 = npt.NDArray[np.float32]


def num_repeated(streams: Iterable[Float32]) -> int:
    """How many windows of 4 consecutive values, at any place of any of these streams, were there before."""
    windows = np.concatenate([np.lib.stride_tricks.sliding_window_view(stream.ravel(), WINDOW) for stream in streams])
    halves = windows.view(np.uint64)
    # One number for each window: to sort pairs takes ten times as long. By chance two agree once in a million tests.
    hashes = np.sort(halves[:, 0] * np.uint64(0x9E3779B97F4A7C15) + halves[:, 1])
    return int((hashes[1:] == hashes[:-1]).sum())


@pytest.mark.parametrize("place", [0, 1, 4, 500])
def test_one_shared_window_is_seen(place: int) -> None:
    one, other = np.random.default_rng(0).normal(size=(2, 1000)).astype(np.float32)
    assert num_repeated([one, other]) == 0
    other[place : place + WINDOW] = one[77 : 77 + WINDOW]
    assert num_repeated([one, other]) == 1


def test_neighbouring_counters_of_tensorflow_share_almost_everything() -> None:
    # What the runs' seeds would do as TensorFlow's own: seed s + 1 is seed s from its fifth value on.
    streams = [tf.random.Generator.from_seed(seed).normal((1000,)).numpy() for seed in (5, 6)]
    assert num_repeated(streams) == 1000 - WINDOW - (WINDOW - 1)


def test_noise_of_no_two_seeds_and_steps_shares_a_window() -> None:
    # The first two steps and the last of the article, each with its batch of 128 and 256 latent dimensions.
    def noise() -> Iterator[Float32]:
        for run, step in itertools.product(RUNS, (0, 1, 31_895)):
            yield draw_epsilon(noise_key(run), tf.constant(step, tf.int64), (128, 256), VaeConfig()).numpy()

    assert num_repeated(noise()) == 0


def test_initial_weights_of_no_two_seeds_and_layers_share_a_window() -> None:
    # Of one shape, because the shape scales the weights and would hide that they are the same.
    def kernels() -> Iterator[Float32]:
        for run in RUNS:
            seed_of = layer_seeds(run.key("initialisation"))
            for layer in LAYER_NAMES:
                yield np.asarray(keras.initializers.GlorotUniform(seed=seed_of(layer))((32, 32)))

    assert num_repeated(kernels()) == 0


def test_these_are_the_weights_that_a_net_starts_from() -> None:
    run = RUNS[5]
    seed_of = layer_seeds(run.key("initialisation"))
    kernel = build_net(run.arm, 16, seed_of).encoder.get_layer("encoder_conv_1").kernel
    expected = keras.initializers.GlorotUniform(seed=seed_of("encoder_conv_1"))(kernel.shape)
    np.testing.assert_array_equal(kernel, expected)


def test_no_two_seeds_and_epochs_have_the_same_order() -> None:
    orders = [epoch_order(run, epoch).tobytes() for run in RUNS for epoch in range(24)]
    assert len(set(orders)) == len(orders)


# Keys


def words(run: RunConfig, stream: Stream, *counters: int) -> bytes:
    """The first 256 bits of a key."""
    return run.key(stream, *counters).generate_state(8).tobytes()


def all_words(run: RunConfig, streams: Sequence[Stream] = STREAMS) -> set[bytes]:
    """Of each stream, bare and with the counters that tasks give it."""
    counters: list[tuple[int, ...]] = [(), *((i,) for i in range(24))]
    return {words(run, stream, *of_key) for stream in streams for of_key in counters}


def fork(run: RunConfig, seed: int, **changes: Any) -> RunConfig:
    """A fork of a run: the repeat with this seed."""
    config = ForkConfig(
        source=f"small/{run.name}", seed=run.seed, checkpoint="/nowhere", step=1, until_step=2, **changes
    )
    return run.model_copy(update={"seed": seed, "arm": run.arm.model_copy(update={"fork": config})})


def test_no_two_seeds_and_streams_have_the_same_key() -> None:
    keys = set().union(*(all_words(run) for run in RUNS))
    assert len(keys) == len(RUNS) * len(STREAMS) * 25


def test_another_root_seed_has_other_keys() -> None:
    other = RUNS[0].model_copy(update={"root_seed": RUNS[0].root_seed + 1})
    assert all_words(RUNS[0]).isdisjoint(all_words(other))


def test_no_arm_changes_a_key() -> None:
    arms = configured_arms(ARMS, Settings())
    keys = [all_words(RUNS[0].model_copy(update={"arm": arm})) for arm in arms.values()]
    assert all(of_arm == keys[0] for of_arm in keys)


def test_a_fork_has_the_streams_of_its_source() -> None:
    assert all_words(fork(RUNS[3], seed=11)) == all_words(RUNS[3])


@pytest.mark.parametrize("renewed", ["noise", "shuffling"])
def test_a_renewed_stream_is_new_in_each_repeat_and_of_no_run(renewed: Stream) -> None:
    forks = [*(fork(RUNS[3], seed, renewed=renewed) for seed in range(20)), fork(RUNS[4], seed=0, renewed=renewed)]
    found = set().union(*(all_words(repeat, [renewed]) for repeat in forks))
    assert len(found) == len(forks) * 25
    assert found.isdisjoint(set().union(*(all_words(run) for run in RUNS)))


@pytest.mark.parametrize("renewed", ["noise", "shuffling"])
def test_the_other_streams_of_such_a_fork_are_its_source_s(renewed: Stream) -> None:
    others = [stream for stream in STREAMS if stream != renewed]
    assert all_words(fork(RUNS[3], seed=7, renewed=renewed), others) == all_words(RUNS[3], others)


def test_renewed_noise_shares_no_window_with_that_of_any_run() -> None:
    runs = [*RUNS, *(fork(RUNS[3], seed, renewed="noise") for seed in range(20))]
    noise = (draw_epsilon(noise_key(run), tf.constant(7, tf.int64), (16, 256), VaeConfig()).numpy() for run in runs)
    assert num_repeated(noise) == 0
