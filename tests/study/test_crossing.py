"""Crossed streams: which runs there are, what they draw, and what is refused."""

import pytest

from tests.examples import AE, VAE, arm_config, data_config, run_config
from vaehpc.command import UserError
from vaehpc.schema.config import CROSSED, ForkConfig, RunConfig, Stream, StudyConfig, VaeConfig, cells, levels_of
from vaehpc.study.crossing import asked_cross, least_p, require_crossable
from vaehpc.study.study import planned_study, widened

CROSS: dict[Stream, int] = {"initialisation": 2, "shuffling": 3, "noise": 2}


def crossed(cross: dict[Stream, int] | None = CROSS) -> StudyConfig:
    arms = {"ae": AE, "vae-tiny": VAE}
    return planned_study("c", "demo", data_config(), arms, (0, 1), cross=cross)


def drawn(run: RunConfig) -> dict[Stream, tuple[int, ...]]:
    return {stream: tuple(run.key(stream, 7).generate_state(2).tolist()) for stream in CROSSED}


def test_every_combination_is_a_run_and_an_ae_has_one_noise() -> None:
    config = crossed()
    assert config.seeds["vae-tiny"] == (0, 1, 10, 11, 20, 21, 100, 101, 110, 111, 120, 121)
    assert config.seeds["ae"] == (0, 10, 20, 100, 110, 120)
    silent = arm_config("vae", vae=VaeConfig(epsilon_factor=0.0))
    assert cells(CROSS, silent) == config.seeds["ae"]
    assert [run.name for run in config.runs()][-1] == "vae-tiny-seed121"
    assert levels_of(121) == {"initialisation": 1, "shuffling": 2, "noise": 1}
    assert cells({"shuffling": 2, "noise": 2}, VAE) == (0, 1, 10, 11)


def test_each_stream_is_drawn_by_its_own_level_as_an_ordinary_seed_draws_it() -> None:
    for run in crossed().runs():
        found = drawn(run)
        for stream in CROSSED:
            ordinary = run.model_copy(update={"seed": run.levels[stream], "levels": {}})
            assert found[stream] == drawn(ordinary)[stream]
    of_121 = next(run for run in crossed().runs() if run.seed == 121)
    other = of_121.model_copy(update={"seed": 111, "levels": levels_of(111)})
    assert [stream for stream in CROSSED if drawn(of_121)[stream] != drawn(other)[stream]] == ["shuffling"]
    assert of_121.key("kmeans").spawn_key == (121, 4)


def test_a_fork_draws_as_the_run_that_it_replays() -> None:
    source = next(run for run in crossed().runs() if run.seed == 121)
    fork = ForkConfig(source="c/r", seed=121, checkpoint=None, step=0, until_step=5, levels=source.levels)
    forked = source.model_copy(update={"seed": 3, "levels": {}, "arm": VAE.model_copy(update={"fork": fork})})
    assert drawn(forked) == drawn(source)
    renewed = forked.arm.model_copy(update={"fork": fork.model_copy(update={"renewed": "noise"})})
    anew = drawn(forked.model_copy(update={"arm": renewed}))
    assert [stream for stream in CROSSED if anew[stream] != drawn(source)[stream]] == ["noise"]


def test_an_ordinary_run_has_the_keys_and_the_identity_that_it_had_before_streams_could_be_crossed() -> None:
    run = run_config(seed=3)
    assert [run.key(stream, 2).spawn_key for stream in CROSSED] == [(3, 0, 2), (3, 1, 2), (3, 2, 2)]
    assert run.identity == "dee2e8ec7fb26c93cb928a2ffc8147418a0e8a38230414cf10171384551b0ca4"
    assert run.identity != run.model_copy(update={"levels": levels_of(3)}).identity


def test_ordinary_seeds_are_not_put_beside_crossed_ones() -> None:
    for existing, asked in ((crossed(), crossed(None)), (crossed(None), crossed())):
        with pytest.raises(UserError, match=r"study.cross.* it has"):
            widened(existing, asked)


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        (["initialization=4", "noise=4"], "unknown stream 'initialization', did you mean|unknown stream"),
        (["kmeans=4", "noise=4"], "Streams: initialisation, shuffling, noise"),
        (["initialisation=4"], "at least two streams"),
        (["initialisation", "noise=4"], "initialisation takes a number from 2 to 10"),
        (["initialisation=1", "noise=4"], "initialisation takes a number from 2 to 10"),
        (["initialisation=4", "noise=11"], "noise takes a number from 2 to 10"),
        (["noise=4", "noise=4"], "noise is there twice"),
    ],
)
def test_what_cannot_be_crossed_is_refused(asked: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        asked_cross(asked)


def test_few_levels_can_show_no_stream_alone() -> None:
    streams: tuple[Stream, ...] = ("initialisation", "noise")
    found = [least_p(dict(zip(streams, levels, strict=True))) for levels in ((2, 2), (3, 3), (2, 4), (4, 4))]
    assert found == [1, 2 / 36, 2 / 24, 2 / 24**3]
    assert least_p(dict.fromkeys(CROSSED, 4)) == 3 / 24**3


def test_levels_are_asked_in_any_order_and_trained_weights_are_no_stream() -> None:
    assert list(asked_cross(["noise=2", "initialisation=4"]).items()) == [("initialisation", 4), ("noise", 2)]
    assert asked_cross([]) == {}
    with pytest.raises(UserError, match="starts from trained weights"):
        require_crossable(CROSS, {"vae": arm_config("vae", start_from="ae")})
    require_crossable({}, {"vae": arm_config("vae", start_from="ae")})
