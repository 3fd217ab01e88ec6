import json
from collections.abc import Mapping

import pytest

from tests import examples, plant
from tests.examples import AE, VAE, Course, study_config
from vaehpc.command import UserError
from vaehpc.schema.config import ArmConfig, ForkConfig, NullWindow, TrainConfig, VaeConfig
from vaehpc.schema.results import ReplayResult
from vaehpc.stats.contrasts import boschloo
from vaehpc.study.files import RunDir, StudyDir, read_model
from vaehpc.tasks import verdict

NULL = NullWindow(step=400, until_step=700, moved=1.05)
REPLAY = examples.REPLAY.model_copy(
    update={"calm_step": 900, "until_step": 1200, "jumped_radius": 81.0, "event_step": 1000, "null": NULL}
)
FORK = ForkConfig(source=REPLAY.source, seed=7, checkpoint="start", step=900, until_step=1200)
NEW_NOISE = FORK.model_copy(update={"renewed": "noise"})
BEFORE = dict.fromkeys(range(50, 901, 50), 16.0)
JUMPED = BEFORE | {950: 16.0, 1000: 60.0, 1050: 81.0, 1100: 64.0, 1150: 60.0, 1200: 60.0}
OF_SOURCE = JUMPED | {1250: 60.0}
CALM = dict.fromkeys(JUMPED, 16.5)
ARMS: Mapping[str, ArmConfig] = {
    "identical": VAE.model_copy(update={"fork": FORK}),
    "noise": VAE.model_copy(update={"fork": NEW_NOISE}),
    "batches": VAE.model_copy(update={"fork": FORK.model_copy(update={"renewed": "shuffling"})}),
    "epsilon5": VAE.model_copy(update={"fork": NEW_NOISE, "vae": VaeConfig(epsilon_limit=5)}),
    "log-var-clamp": VAE.model_copy(update={"fork": NEW_NOISE, "vae": VaeConfig(log_var_limit=5)}),
    "clipped": VAE.model_copy(update={"fork": NEW_NOISE, "train": TrainConfig(clipnorm=1234.5)}),
    "without-image": VAE.model_copy(update={"fork": NEW_NOISE.model_copy(update={"left_out": 11})}),
    "fresh-moments": VAE.model_copy(update={"fork": NEW_NOISE.model_copy(update={"fresh_moments": True})}),
    "null": VAE.model_copy(update={"fork": NEW_NOISE.model_copy(update={"step": 400, "until_step": 700})}),
}
ALL = dict.fromkeys(ARMS, 8) | {"identical": 3}
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
        """Of each variant so many forks jump, of those not named all, of null none; `missing` have not ended."""
        named = [arms[name].model_copy(update={"name": name}) for name in seeds]
        study = plant.study(self._folder / "forks", study_config(named, seeds, replay=replay))
        plant.probe(study.path / "start" / "probe.arrow", OF_SOURCE)
        for run in study.config().runs():
            if run.name not in missing:
                of_all = 0 if run.arm.name == "null" else seeds[run.arm.name]
                jumped = run.seed < (jumps or {}).get(run.arm.name, of_all)
                course = (
                    JUMPED if run.arm.name != "null" else {step - 500: JUMPED[step] for step in JUMPED if step > 500}
                )
                end(study.run(run.name), course if jumped else dict.fromkeys(course, 16.5))
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
        ({"noise": 0, "clipped": 0}, "noise"),
        ({"epsilon5": 0}, "extreme epsilon"),
        ({"batches": 0, "without-image": 0}, "batch content, image ID"),
        ({"batches": 0}, "batch content"),
        ({"log-var-clamp": 0, "clipped": 0}, "logvar explosion"),
        ({"clipped": 0}, "gradient spike"),
        ({"fresh-moments": 0}, "optimizer state"),
        ({"null": 8, "clipped": 0}, "not decided"),
    ],
)
def test_jumps_give_the_verdict(forks, jumps, expected):
    assert forks.judged(jumps=jumps).verdict == expected


def test_files_say_the_same_to_programs_and_people(forks):
    study = forks.plant(jumps={"noise": 7, "clipped": 0})
    verdict.run(str(study.path))
    found = json.loads((study.path / "replay.json").read_text())
    assert (found["schema"], found["verdict"], found["rests_on"]) == (2, "gradient spike", "clipped")
    noise = next(of for of in found["variants"] if of["variant"] == "noise")
    assert (noise["num_jumps"], noise["num_repeats"], noise["outcome"]) == (7, 8, "persists")
    assert noise["interval"] == {"low": pytest.approx(0.4735, abs=5e-5), "high": pytest.approx(0.9968, abs=5e-5)} | {
        "level": 0.95,
        "method": "Clopper-Pearson",
    }
    assert noise["p"] == pytest.approx(boschloo(7, 8, 0, 8, "greater"))
    assert [fork["radius"] for fork in noise["forks"]] == [60.0] * 7 + [16.5]
    page = (study.path / "replay.md").read_text()
    assert "**Verdict: gradient spike.**" in page
    assert f"| noise | new noise | 8 | 8 | 7 | 0 | 47.3% to 99.7% | {noise['p']:.2g} | persists |" in page
    clipped = boschloo(0, 8, 7, 8, "less")
    assert (
        f"| clipped | new noise, gradient norm limited to 1234.5 | 8 | 8 | 0 | 0 | 0.0% to 36.9% | {clipped:.2g} |"
        in page
    )
    assert "| null | new noise, steps 400 to 700 | 8 | 8 | 0 | 0 | 0.0% to 36.9% |  | gone |" in page
    assert "Null forks, over new noise, steps 400 to 700, where R moved by a factor of 1.05: 0 of 8 jump" in page
    assert "R of the probe was 16.00 at step 900 and went to 81.00 by step 1200" in page
    assert "The identical forks are bitwise the run again" in page


def test_what_was_changed_is_said_of_each_variant(forks):
    assert {of.variant: of.changed for of in forks.judged().variants} == {
        "identical": "nothing",
        "noise": "new noise",
        "batches": "new batches",
        "epsilon5": "new noise, abs(epsilon) limited to 5.0",
        "log-var-clamp": "new noise, log_var limited to 5.0",
        "clipped": "new noise, gradient norm limited to 1234.5",
        "without-image": "new noise, image 11 left out",
        "fresh-moments": "new noise, Adam's moments at zero",
        "null": "new noise, steps 400 to 700",
    }


def test_every_variant_but_the_identical_has_an_interval_whatever_the_device(forks):
    found = forks.judged()
    assert {of.variant for of in found.variants if of.interval is None} == {"identical"}
    assert {of.variant for of in found.variants if of.p is None} == {"identical", "null"}


def test_the_null_is_said_or_why_there_is_none(forks, tmp_path):
    seeds = {name: ALL[name] for name in ALL if name != "null"}
    found = forks.judged(jumps={"clipped": 0}, seeds=seeds)
    assert found.verdict == "gradient spike"
    assert "Without a null: null forks were not run." in found.explanation
    other = Forks(tmp_path / "other").judged(seeds=seeds, replay=REPLAY.model_copy(update={"null": None}))
    assert "Without a null: null forks have no checkpoint from which" in other.explanation
    assert "null" not in outcomes(other)


def test_an_untreated_fork_that_leaves_no_more_often_than_null_forks_decides_nothing(forks):
    found = forks.judged(jumps={"null": 4, "clipped": 0})
    assert (outcomes(found)["noise"], found.verdict, found.rests_on) == ("undecided", "not decided", "noise")
    assert "forks decide nothing, of noise: null forks do it, too." in found.explanation


def test_a_fork_that_the_treatment_threw_is_told_apart(forks):
    later = REPLAY.model_copy(update={"calm_step": 950})
    study = forks.plant(jumps={"clipped": 0}, replay=later)
    for seed in (0, 1):
        end(study.run(f"fresh-moments-seed{seed:03d}"), JUMPED | {950: 40.0})
    found = verdict.judged(study)
    fresh = next(of for of in found.variants if of.variant == "fresh-moments")
    assert (fresh.num_jumps, fresh.num_thrown, fresh.num_compared) == (6, 2, 6)
    assert "2 thrown |" in verdict.page(found)
    assert "One that a treatment had thrown by step 950 is not compared." in verdict.page(found)


def test_a_treatment_that_threw_all_its_forks_decides_nothing(forks):
    study = forks.plant(replay=REPLAY.model_copy(update={"calm_step": 950}))
    for seed in range(8):
        end(study.run(f"fresh-moments-seed{seed:03d}"), JUMPED | {950: 40.0})
    found = verdict.judged(study)
    assert (found.verdict, found.rests_on) == ("not decided", "fresh-moments")
    assert "8 times as many forks decide nothing, of fresh-moments: none can be compared." in found.explanation


def test_identical_forks_with_other_bits_are_not_reproducible(forks):
    study = forks.plant()
    end(study.run("identical-seed001"), JUMPED, state="1")
    found = verdict.judged(study)
    assert (found.verdict, found.repeats_source) == ("not reproducible", False)
    assert "not bitwise the run" in found.explanation
    assert "Only the other kind" not in found.explanation


@pytest.mark.parametrize(("radius", "is_the_same"), [(60.00003, False), (60.000006, True)])
def test_identical_forks_with_another_radius_than_the_run_are_not_reproducible(forks, radius, is_the_same):
    study = forks.plant()
    for seed in range(3):
        end(study.run(f"identical-seed{seed:03d}"), JUMPED | {1000: radius})
    assert verdict.judged(study).repeats_source is is_the_same
    assert (verdict.judged(study).verdict == "not reproducible") is not is_the_same


def test_bits_are_not_asked_where_none_are_promised(forks):
    study = forks.plant(replay=REPLAY.model_copy(update={"deterministic": False}))
    end(study.run("identical-seed001"), JUMPED | {1000: 61.0}, state="1")
    found = verdict.judged(study)
    assert (found.verdict, found.repeats_source) == ("the weights themselves", False)


def test_a_fork_that_is_not_finite_has_the_event_and_is_told_apart(forks):
    study = forks.plant(jumps={"clipped": 2})
    end(study.run("clipped-seed005"), BEFORE, nonfinite_step=1010)
    found = verdict.judged(study)
    clipped = next(of for of in found.variants if of.variant == "clipped")
    assert (clipped.num_jumps, clipped.num_nonfinite, clipped.num_events) == (2, 1, 3)
    assert (clipped.forks[5].radius, clipped.forks[5].nonfinite_step, clipped.forks[5].ending) == (
        None,
        1010,
        "nonfinite",
    )
    assert verdict.counts(clipped, REPLAY).startswith("2 of 8 jump, 1 become NaN (8.5% to 75.5%), p = ")


def test_a_run_that_was_not_finite_is_repeated_by_forks_that_end_at_the_same_step(forks):
    early = {"calm_step": None, "calm_radius": None, "jumped_radius": None, "event_step": 19, "null": None}
    seeds = {name: ALL[name] for name in ALL if name != "null"}
    study = forks.plant(
        seeds=seeds, jumps=dict.fromkeys(seeds, 0), replay=REPLAY.model_copy(update=early | {"step": 0})
    )
    for variant in ("identical", "noise"):
        for seed in range(seeds[variant]):  # last checkpoints made at other times
            end(study.run(f"{variant}-seed{seed:03d}"), {}, state=str(seed), nonfinite_step=1010)
    found = verdict.judged(study)
    assert (found.repeats_source, outcomes(found)["identical"], found.verdict) == (True, "persists", "extreme epsilon")
    assert "fresh-moments" not in outcomes(found)  # as they are at the start
    assert "In step 19 the run was not finite; no probe was taken before." in verdict.page(found)
    assert "noise (new noise): 8 of 8 become NaN" in found.explanation


def test_missing_forks_are_shown_and_leave_open_what_they_could_change(forks):
    found = forks.judged(missing=("noise-seed000", *(f"clipped-seed{n:03d}" for n in range(6))), jumps={"clipped": 0})
    assert outcomes(found)["clipped"] == "missing"
    noise = next(of for of in found.variants if of.variant == "noise")
    assert (noise.num_missing, noise.num_jumps) == (1, 7)
    assert found.verdict == "not decided"
    assert found.explanation.endswith("give the same line again; missing of clipped: 6.")
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
    assert (clipped.num_missing, clipped.num_jumps) == (1, 7)


def test_an_undecided_frequency_says_how_many_repeats_could_decide(forks):
    seeds = {name: ALL[name] for name in ALL if name != "null"}
    found = forks.judged(jumps={"noise": 1}, seeds=seeds)
    assert "noise (new noise): 1 of 8 jump (0.3% to 52.7%), undecided." in found.explanation
    assert found.explanation.endswith("give the same line with --repeats 16: enough of noise if the shares stay.")


@pytest.mark.parametrize(
    ("jumps", "has_null", "variant", "why"),
    [
        ({"noise": 4}, False, "noise", "about as many do it as not, by what is drawn"),
        ({"noise": 5, "null": 5}, True, "noise", "null forks do it, too"),
        ({"clipped": 4}, True, "clipped", "it makes the event rarer at most"),
    ],
)
def test_where_more_repeats_would_not_decide_it_is_said_why(forks, jumps, has_null, variant, why):
    seeds = {name: ALL[name] for name in ALL if name != "null"}
    found = forks.judged(jumps=jumps, seeds=ALL if has_null else seeds)
    assert f"8 times as many forks decide nothing, of {variant}: {why}." in found.explanation


def test_what_is_open_is_run_next_and_what_needs_least_is_repeated(forks):
    seeds = dict.fromkeys(("noise", "log-var-clamp", "clipped"), 16) | {"identical": 3}
    found = forks.judged(jumps={"noise": 10, "log-var-clamp": 8, "clipped": 5}, seeds=seeds)
    ways = "run batches, epsilon5, fresh-moments too, or give the same line with --repeats 32: enough of clipped"
    assert found.explanation.endswith(f"To decide, {ways} if the shares stay.")


def test_a_cause_is_named_though_an_earlier_variant_was_not_run(forks):
    seeds = {name: ALL[name] for name in ("identical", "noise", "log-var-clamp", "clipped", "null")}
    found = forks.judged(jumps={"clipped": 2}, seeds=seeds)
    assert (found.verdict, found.rests_on) == ("gradient spike", "clipped")
    assert "epsilon5: not run." in found.explanation
    assert found.explanation.endswith("The first cause in a step may come before it: epsilon5, batches were not run.")


def test_a_treatment_that_turns_nan_into_jumps_is_told(forks):
    study = forks.plant(jumps={"log-var-clamp": 2, "clipped": 0})
    for seed in range(1, 8):
        end(study.run(f"noise-seed{seed:03d}"), BEFORE, nonfinite_step=1010)
    told = "other kind. Only the other kind becomes rarer: jump, as the run did, 2 of 8 against 1 of 8."
    found = verdict.judged(study)
    assert found.verdict == "gradient spike"
    assert told in found.explanation
    study.run("clipped-seed000").trained_path.unlink()
    for seed in range(8):
        end(study.run(f"clipped-seed{seed:03d}"), JUMPED)
    found = verdict.judged(study)
    assert found.verdict == "not decided"
    assert told in found.explanation
    assert "decide nothing, of log-var-clamp: the run's own kind is no rarer" in found.explanation
    study.run("log-var-clamp-seed001").trained_path.unlink()
    end(study.run("log-var-clamp-seed001"), CALM)
    study.run("noise-seed001").trained_path.unlink()
    end(study.run("noise-seed001"), JUMPED)
    found = verdict.judged(study)
    assert found.verdict == "logvar explosion"
    assert "other kind" not in found.explanation


def test_a_run_without_noise_is_judged_by_its_batches(forks):
    names = ("identical", "batches", "log-var-clamp", "clipped", "without-image", "fresh-moments", "null")
    silent = {
        name: ARMS[name].model_copy(update={"vae": ARMS[name].vae.model_copy(update={"epsilon_factor": 0.0})})
        for name in names
    }
    found = forks.judged(jumps={"batches": 0}, seeds={name: ALL[name] for name in names}, arms=silent)
    assert (found.verdict, set(outcomes(found))) == ("batch content", set(names))


def test_a_variant_that_was_not_run_is_named(forks):
    seeds = {name: ALL[name] for name in ("identical", "noise", "epsilon5", "batches")}
    found = forks.judged(seeds=seeds)
    assert outcomes(found)["log-var-clamp"] == "not run"
    assert found.verdict == "not decided"
    assert "log-var-clamp: not run." in found.explanation
    assert found.explanation.endswith("To decide, run log-var-clamp, clipped, fresh-moments too.")


def test_an_ae_is_judged_by_what_it_has(forks):
    seeds = {name: ALL[name] for name in ("identical", "batches", "clipped", "without-image", "fresh-moments", "null")}
    arms = {name: AE.model_copy(update={"fork": ARMS[name].fork, "train": ARMS[name].train}) for name in seeds}
    found = forks.judged(jumps={"clipped": 0}, seeds=seeds, arms=arms)
    assert set(outcomes(found)) == set(seeds)
    assert found.verdict == "gradient spike"


def test_another_study_is_refused(tmp_path):
    study = plant.study(tmp_path / "plain", study_config([AE]))
    with pytest.raises(UserError, match="is no replay"):
        verdict.run(str(study.path))


# Verdicts of a study's runs


def verdicts(folder) -> dict[str, str]:
    replays = verdict.replays_of(StudyDir(folder / "demo"), "demo")
    return {run: verdict.lines(of_run) for run, of_run in replays.items()}


def test_the_replays_beside_a_study_give_its_runs_their_verdicts(forks, tmp_path, caplog):
    study = forks.plant(jumps={"clipped": 0})
    verdict.run(str(study.path))
    for name, start in (("later", 1500), ("of-another", 900)):
        record = json.loads(study.replay_path.read_text())
        del record["crc32"]
        record["replay"] |= {"step": start, "source": REPLAY.source if name == "later" else "other/vae-tiny-seed007"}
        (tmp_path / name).mkdir()
        (tmp_path / name / "replay.json").write_text(json.dumps(record))
    event, run = "(jump seen at step 1,000", "vae-tiny-seed007"
    line = (
        "gradient spike; forks with new noise, gradient norm limited to 1234.5: 0 of 8 jump;"
        " with new noise: 8 of 8 jump)"
    )
    found = verdicts(tmp_path)
    assert found == {run: f"{event}, forked from step 900: {line} {event}, forked from step 1,500: {line}"}
    replays = verdict.replays_of(StudyDir(tmp_path / "demo"), "demo")[run]
    assert verdict.links(replays) == {
        "replay from step 900": "../forks/replay.html",
        "replay from step 1,500": "../later/replay.md",
    }
    assert list(verdict.links([*replays, *replays[:1]])) == [
        "replay from step 900", "replay from step 1,500", f"replay from step 900, {replays[0].result.study}"
    ]  # fmt: skip
    (tmp_path / "later" / "replay.json").write_text("{}")
    assert verdicts(tmp_path) == {run: f"{event}: {line}"}
    assert "is passed over" in caplog.text


def test_a_replay_with_missing_forks_has_no_verdict_for_its_run(forks, tmp_path, caplog):
    verdict.run(str(forks.plant(missing=("noise-seed000",)).path))
    assert verdicts(tmp_path) == {}
    assert "forks are missing" in caplog.text


def test_a_replay_of_an_older_release_is_read(forks):
    study = forks.plant(jumps={"clipped": 0})
    verdict.run(str(study.path))
    record = json.loads(study.replay_path.read_text())
    del record["schema"], record["crc32"], record["rests_on"]
    for of in record["variants"]:
        of["num_jumps"] = of.pop("num_jumps") + of.pop("num_nonfinite")
        for fork in of["forks"]:
            fork["jumped"] = fork.pop("ending") != "stayed"
    record["variants"][1]["forks"][0]["nonfinite_step"] = 1010
    study.replay_path.write_text(json.dumps(record))
    noise = read_model(study.replay_path, ReplayResult).variants[1]
    assert (noise.num_jumps, noise.num_nonfinite) == (7, 1)
    assert [fork.ending for fork in noise.forks] == ["nonfinite"] + ["jump"] * 7
