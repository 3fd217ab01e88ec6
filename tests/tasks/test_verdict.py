import json
from collections.abc import Mapping

import pytest

from tests import examples, plant
from tests.examples import AE, VAE, Course, study_config
from vaehpc.command import UserError
from vaehpc.schema.config import ArmConfig, ForkConfig, TrainConfig, VaeConfig
from vaehpc.schema.results import ReplayResult
from vaehpc.study.files import RunDir, StudyDir
from vaehpc.tasks import verdict

REPLAY = examples.REPLAY.model_copy(update={"jumped_radius": 81.0})
FORK = ForkConfig(source=REPLAY.source, seed=7, checkpoint="start", step=900, until_step=1100)
OF_SOURCE = {900: 16.0, 950: 16.0, 1000: 20.0, 1050: 81.0, 1100: 64.0, 1150: 60.0}
JUMPED = {step: OF_SOURCE[step] for step in (900, 950, 1000, 1050, 1100)}
CALM = dict.fromkeys(JUMPED, 16.5)
ARMS: Mapping[str, ArmConfig] = {
    "identical": VAE.model_copy(update={"fork": FORK}),
    "noise": VAE.model_copy(update={"fork": FORK.model_copy(update={"renewed": "noise"})}),
    "batches": VAE.model_copy(update={"fork": FORK.model_copy(update={"renewed": "shuffling"})}),
    "epsilon5": VAE.model_copy(update={"fork": FORK, "vae": VaeConfig(epsilon_limit=5)}),
    "log-var-clamp": VAE.model_copy(update={"fork": FORK, "vae": VaeConfig(log_var_limit=5)}),
    "clipped": VAE.model_copy(update={"fork": FORK, "train": TrainConfig(clipnorm=1234.5)}),
    "without-image": VAE.model_copy(update={"fork": FORK.model_copy(update={"left_out": 11})}),
    "fresh-moments": VAE.model_copy(update={"fork": FORK.model_copy(update={"fresh_moments": True})}),
}
ALL = dict.fromkeys(ARMS, 1) | {"identical": 3, "noise": 8, "batches": 8}
"""Forks of each variant."""


@pytest.fixture
def forks(tmp_path) -> "Forks":
    """A study of forks of which none has ended."""
    return Forks(tmp_path)


class Forks:
    """A study of forks that ended in one way or another."""

    def __init__(self, folder) -> None:
        self._folder = folder

    def plant(self, jumps=None, missing=(), seeds=ALL, replay=REPLAY, arms=ARMS) -> StudyDir:
        """Of each variant so many forks jump, every one of those that are not named; these runs have not ended."""
        named = [arms[name].model_copy(update={"name": name}) for name in seeds]
        study = plant.study(self._folder / "forks", study_config(named, seeds, replay=replay))
        plant.probe(study.path / "start" / "probe.arrow", OF_SOURCE)
        for run in study.config().runs():
            if run.name not in missing:
                jumped = run.seed < (jumps or {}).get(run.arm.name, seeds[run.arm.name])
                end(study.run(run.name), JUMPED if jumped else CALM)
        return study

    def judged(self, **given) -> ReplayResult:
        return verdict.judged(self.plant(**given))


def end(run_dir: RunDir, probe: Course, state: str = "0", nonfinite_step: int | None = None) -> None:
    """What a fork leaves: the marker, and the probe with the source run's records before its start."""
    plant.trained(run_dir, course=probe, state_sha256=state, nonfinite_step=nonfinite_step)


def outcomes(result: ReplayResult) -> dict[str, str]:
    return {of.variant: of.outcome for of in result.variants}


@pytest.mark.parametrize(
    ("jumps", "expected"),
    [
        ({}, "the weights themselves"),
        ({"identical": 2}, "not reproducible"),
        ({"noise": 0, "epsilon5": 0}, "extreme epsilon"),
        ({"noise": 0}, "noise, not its extremes"),
        ({"batches": 0, "without-image": 0}, "batch content, image ID"),
        ({"batches": 0}, "batch content"),
        ({"log-var-clamp": 0, "clipped": 0}, "logvar explosion"),
        ({"clipped": 0}, "gradient spike"),
        ({"fresh-moments": 0}, "optimizer state"),
        ({"noise": 4}, "not decided"),
    ],
)
def test_jumps_give_the_verdict(forks, jumps, expected):
    assert forks.judged(jumps=jumps).verdict == expected


def test_files_say_the_same_to_programs_and_people(forks):
    study = forks.plant(jumps={"noise": 8, "clipped": 0})
    verdict.run(str(study.path))
    found = json.loads((study.path / "replay.json").read_text())
    assert (found["verdict"], found["factor_limit"], found["replay"]["jumped_radius"]) == ("gradient spike", 2.25, 81.0)
    noise = next(of for of in found["variants"] if of["variant"] == "noise")
    assert (noise["num_jumps"], noise["num_repeats"], noise["outcome"]) == (8, 8, "persists")
    assert noise["interval"] == {"low": pytest.approx(0.6306, abs=5e-5), "high": 1.0, "level": 0.95} | {
        "method": "Clopper-Pearson"
    }
    assert [fork["radius"] for fork in noise["forks"]] == [81.0] * 8
    page = (study.path / "replay.md").read_text()
    assert "**Verdict: gradient spike.**" in page
    assert "| clipped | gradient norm limited to 1234.5 | 1 | 0 of 1 jump | gone |" in page
    assert "| noise | new noise | 8 | 8 of 8 jump (63.1% to 100.0%) | persists |" in page
    assert "R of the probe was 16.00 at step 950 and went to 81.00 by step 1100" in page
    assert "if its R grows or shrinks by a factor of 2.25, 50% of the run's in ln R" in page
    assert "The identical forks are bitwise the run again" in page


def test_what_was_changed_is_said_of_each_variant(forks):
    assert {of.variant: of.changed for of in forks.judged().variants} == {
        "identical": "nothing",
        "noise": "new noise",
        "batches": "new batches",
        "epsilon5": "abs(epsilon) limited to 5.0",
        "log-var-clamp": "log_var limited to 5.0",
        "clipped": "gradient norm limited to 1234.5",
        "without-image": "image 11 left out",
        "fresh-moments": "Adam's moments at zero",
    }


def test_forks_that_repeat_to_the_bit_have_no_interval(forks):
    with_interval = {of.variant for of in forks.judged().variants if of.interval is not None}
    assert with_interval == {"noise", "batches"}


def test_where_nothing_repeats_to_the_bit_every_variant_is_a_frequency(forks):
    seeds = dict.fromkeys(ARMS, 8) | {"identical": 3}
    replay = REPLAY.model_copy(update={"deterministic": False})
    found = forks.judged(jumps={"clipped": 4}, seeds=seeds, replay=replay)
    assert outcomes(found)["clipped"] == "undecided"
    assert outcomes(found)["log-var-clamp"] == "persists"
    assert found.verdict == "not decided"
    assert {of.variant for of in found.variants if of.interval is None} == {"identical"}


def test_identical_forks_with_other_bits_are_not_reproducible(forks):
    study = forks.plant()
    end(study.run("identical-seed001"), JUMPED, state="1")
    found = verdict.judged(study)
    assert (found.verdict, found.repeats_source) == ("not reproducible", False)
    assert "not bitwise the run" in found.explanation


@pytest.mark.parametrize(("radius", "is_the_same"), [(20.00001, False), (20.000002, True)])
def test_identical_forks_with_another_radius_than_the_run_are_not_reproducible(forks, radius, is_the_same):
    study = forks.plant()
    for seed in range(3):
        end(study.run(f"identical-seed{seed:03d}"), JUMPED | {1000: radius})
    assert verdict.judged(study).repeats_source is is_the_same
    assert (verdict.judged(study).verdict == "not reproducible") is not is_the_same


def test_bits_are_not_asked_where_none_are_promised(forks):
    seeds = dict.fromkeys(ARMS, 8) | {"identical": 3}
    study = forks.plant(seeds=seeds, replay=REPLAY.model_copy(update={"deterministic": False}))
    end(study.run("identical-seed001"), JUMPED | {1000: 21.0}, state="1")
    found = verdict.judged(study)
    assert (found.verdict, found.repeats_source) == ("the weights themselves", False)


def test_a_fork_that_is_not_finite_jumped(forks):
    study = forks.plant(jumps={"clipped": 0})
    end(study.run("clipped-seed000"), {900: 16.0}, nonfinite_step=1010)
    clipped = next(of for of in verdict.judged(study).variants if of.variant == "clipped")
    assert (clipped.num_jumps, clipped.forks[0].radius, clipped.forks[0].nonfinite_step) == (1, None, 1010)


def test_a_run_that_was_not_finite_is_repeated_by_forks_that_end_at_the_same_step(forks):
    study = forks.plant(replay=REPLAY.model_copy(update={"jumped_radius": None}))
    for seed, state in enumerate("012"):  # last checkpoints made at other times
        end(study.run(f"identical-seed{seed:03d}"), {900: 16.0}, state=state, nonfinite_step=1010)
    found = verdict.judged(study)
    assert (found.repeats_source, found.factor_limit, outcomes(found)["identical"]) == (True, None, "persists")
    assert outcomes(found)["clipped"] == "gone"
    assert "by step 1100 the run was not finite" in verdict.page(found)


def test_missing_forks_are_shown_and_leave_open_what_they_could_change(forks):
    found = forks.judged(missing=("noise-seed000", "clipped-seed000"))
    assert outcomes(found)["noise"] == "undecided"
    noise = next(of for of in found.variants if of.variant == "noise")
    assert (noise.num_missing, noise.num_jumps) == (1, 7)
    assert found.verdict == "not decided"
    assert found.explanation.endswith("give the same line again; missing of noise: 1.")
    assert "1 missing" in verdict.page(found)


def test_missing_forks_that_could_change_nothing_leave_the_verdict(forks):
    seeds = ALL | {"noise": 20}
    found = forks.judged(seeds=seeds, missing=("noise-seed000", "noise-seed001"), jumps={"clipped": 0})
    assert (outcomes(found)["noise"], found.verdict) == ("persists", "gradient spike")


@pytest.mark.parametrize("damage", ["marker", "probe"])
def test_a_damaged_fork_is_missing(forks, damage):
    study = forks.plant()
    run_dir = study.run("clipped-seed000")
    if damage == "marker":
        run_dir.trained_path.write_text("{}")
    else:
        plant.probe(run_dir.probe, {900: 16.0, 1050: 70.0})
    clipped = next(of for of in verdict.judged(study).variants if of.variant == "clipped")
    assert (clipped.num_missing, clipped.outcome) == (1, "undecided")


def test_an_undecided_frequency_says_how_many_repeats_could_decide(forks):
    found = forks.judged(jumps={"noise": 1})
    assert "noise (new noise): 1 of 8 jump (0.3% to 52.7%), undecided." in found.explanation
    assert "--repeats 9 or more" in found.explanation


def test_a_variant_that_was_not_run_is_named(forks):
    seeds = {name: ALL[name] for name in ("identical", "noise", "batches")}
    found = forks.judged(seeds=seeds)
    assert outcomes(found)["log-var-clamp"] == "not run"
    assert found.verdict == "not decided"
    assert "log-var-clamp: not run." in found.explanation
    assert found.explanation.endswith("To decide, run the variant log-var-clamp too.")


def test_an_ae_is_judged_by_what_it_has(forks):
    seeds = {name: ALL[name] for name in ("identical", "batches", "clipped", "without-image", "fresh-moments")}
    arms = {name: AE.model_copy(update={"fork": ARMS[name].fork, "train": ARMS[name].train}) for name in seeds}
    found = forks.judged(jumps={"clipped": 0}, seeds=seeds, arms=arms)
    assert list(outcomes(found)) == list(seeds)
    assert found.verdict == "gradient spike"


def test_another_study_is_refused(tmp_path):
    study = plant.study(tmp_path / "plain", study_config([AE]))
    with pytest.raises(UserError, match="is no replay"):
        verdict.run(str(study.path))
