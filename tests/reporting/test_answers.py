import re

import pytest

from tests import plant
from tests.examples import arm_config, study_config
from vaehpc.launch import parsed
from vaehpc.reporting import answers, words
from vaehpc.stats.planning import power
from vaehpc.study.files import StudyDir
from vaehpc.study.presets import asked_seeds, configured_arms, named_arms


def plain(sentences) -> str:
    return " ".join(sentences).replace(words.NBSP, " ")


def test_how_often_has_the_counts_of_the_summary(mixed):
    _, summary = mixed
    found = {line.arm: line for line in answers.how_often(summary)}
    assert list(found) == ["ae", "vae-tiny", "vae-eps5"]
    line = found["vae-tiny"]
    share = summary.arms["vae-tiny"].endpoints["diverged or nonfinite"]
    assert (line.counts, line.did, line.middle) == ("2 of 7", "diverged or NaN", 2 / 7)
    assert (line.low, line.high) == (share.interval.low, share.interval.high)
    assert line.kinds == "2 diverged; 1 collapsed, 1 missing"
    # None diverged and one of two is NaN: that is no rate of 0 %.
    assert (found["vae-eps5"].counts, found["vae-eps5"].kinds) == ("1 of 2", "1 NaN")
    assert "vae-eps5" not in plain(answers.none_is_not_never(summary))


def test_where_classes_are_not_judged_a_run_that_jumped_and_is_nan_counts_once(mixed):
    _, summary = mixed
    share = summary.arms["vae-tiny"].endpoints["jumped"].model_copy(update={"count": 4})
    endpoints = {"jumped or nonfinite": share}
    unjudged = {"endpoints": endpoints, "num_jumped": 3, "num_nonfinite": 2, "num_collapsed": 0, "returned_how": {}}
    line = answers.often("arm", summary.arms["vae-tiny"].model_copy(update=unjudged))
    assert (line.counts, line.did) == ("4 of 7", "jumped or NaN")
    assert line.kinds == "3 jumped, 2 NaN (1 both); 1 missing"


def test_of_many_arms_those_with_most_events_are_first(mixed):
    _, summary = mixed
    arms = {f"arm-{at}": summary.arms["ae"] for at in range(20)} | {"left": summary.arms["vae-tiny"]}
    found = answers.how_often(summary.model_copy(update={"arms": arms}))
    assert found[0].arm == "left"
    assert len(found) == answers.MOST_ARMS


def test_how_sure_says_what_so_many_seeds_cannot_show(mixed):
    study, summary = mixed
    config = study.config()
    said = plain(answers.how_sure(config, summary))
    assert (
        "No difference between arms is shown (6 planned tests, adjusted by Holm). That is no proof of equal rates."
        in said
    )
    assert "0 of 8 would still allow a rate of up to 36.9 % (ae)." in said
    pattern = (
        r"2 to 8 runs per arm find 25 % against 0 % with a probability of .* at 0.00833, Holm's first threshold of"
    )
    (needed,) = re.findall(pattern + r" 6 tests; 80 % takes (\d+) seeds per arm", said)
    plan, seeds = config.plan.contrasts, int(needed)
    alpha = (1 - config.plan.level) / max(each.family for each in answers.confirmatory(summary)) / 2
    assert power(seeds, seeds, plan.rate, plan.versus, alpha) >= plan.power
    assert power(seeds - 1, seeds - 1, plan.rate, plan.versus, alpha) < plan.power


def test_a_difference_that_holds_is_told_with_its_counts(tmp_path):
    classes = {"ae": ["regular"] * 16, "vae-tiny": ["diverged"] * 12 + ["regular"] * 4}
    study, summary = plant.classed(tmp_path / "shown", classes)
    said = plain(answers.how_sure(study.config(), summary))
    assert "vae-tiny diverged more often than ae: 12 of 16 against 0 of 16, Holm-adjusted p < 0.0001." in said
    assert "No difference" not in said
    assert "launch" not in plain(step.line for step in answers.what_next(study, study.config(), summary))


def test_an_unsound_control_comes_first(mixed):
    study, summary = mixed
    faulty = summary.arms["ae"].model_copy(update={"control_faults": {"ae-seed000": "diverged"}})
    said = answers.how_sure(study.config(), summary.model_copy(update={"arms": summary.arms | {"ae": faulty}}))
    assert said[0] == "The control ae is not sound: classes judged by it are exploratory."


def test_which_runs_are_named_with_their_cause(mixed):
    _, summary = mixed
    found = answers.which_runs(summary, {"vae-tiny-seed001": "log_var_max left its band first, at step 109"})
    assert [run.name for run in found] == [
        "vae-tiny-seed001",
        "vae-tiny-seed005",
        "vae-eps5-seed001",
        "vae-tiny-seed006",
        "vae-tiny-seed002",
    ]
    assert found[0].did == "diverged, R = 66.10; jump, left between steps 300 and 400 (R × 4.115)"
    assert found[0].cause == "log_var_max left its band first, at step 109"
    assert found[2].did == "NaN at step 100"
    assert found[-1].did == "missing: no result of train"


def test_of_many_runs_each_kind_and_arm_is_named(mixed):
    _, summary = mixed
    of = {name: summary.runs[name] for name in ("vae-tiny-seed001", "vae-eps5-seed001", "vae-tiny-seed002")}
    diverged, nan, missing = of.values()
    runs = {f"a-{at}": diverged.model_copy(update={"radius_median": 50.0 + at}) for at in range(9)}
    runs |= {"judged": diverged.model_copy(update={"verdict": "(the batch)"})}
    runs |= {"b": diverged.model_copy(update={"arm": "vae-eps5"}), "nan": nan, "missing": missing}
    many = summary.model_copy(update={"runs": runs})
    assert answers.shown_runs(many) == ["a-7", "a-8", "judged", "b", "nan", "missing"]
    assert answers.more_left(many) == "7 more: 7 diverged"
    assert answers.more_left(summary) == ""


def test_far_from_the_start_stands_before_an_excursion(mixed):
    _, summary = mixed
    run = summary.runs["vae-tiny-seed001"]
    course = run.course.model_copy(update={"far": True, "first_step": 350, "marks": ()})
    far = summary.model_copy(update={"runs": {"a": run.model_copy(update={"course": course})}})
    assert answers.what_it_did(far, "a") == "diverged, R = 66.10; far from the control already at step 350"
    jumped = course.model_copy(update={"marks": run.course.marks})
    far = summary.model_copy(update={"runs": {"a": run.model_copy(update={"course": jumped})}})
    assert answers.what_it_did(far, "a").startswith(
        "diverged, R = 66.10; far from the control already at step 350; jump, left between"
    )


def test_a_verdict_is_the_cause(mixed):
    _, summary = mixed
    judged = summary.runs["vae-tiny-seed001"].model_copy(update={"verdict": "(gradient spike)"})
    runs = summary.runs | {"vae-tiny-seed001": judged}
    found = answers.which_runs(summary.model_copy(update={"runs": runs}), {"vae-tiny-seed001": "a signal"})
    assert found[0].cause == "(gradient spike)"


def test_what_next_are_lines_that_the_commands_take(tmp_path):
    """As they stand, from the folder that holds 'runs'; what is to be launched is the study itself, with more seeds."""
    classes = {"ae": ["regular"] * 3, "vae-tiny": ["diverged", "regular", None]}
    study, summary = plant.classed(tmp_path / "runs" / "named", classes)
    steps = answers.what_next(study, study.config(), summary)
    assert [step.line for step in steps[:3]] == [
        "vaehpc status named --failures",
        "vaehpc explain named --run vae-tiny-seed000",
        "vaehpc replay named --run vae-tiny-seed000",
    ]
    fresh, more = (parsed(plain_line(step.line)) for step in steps[3:5])
    seed = study.config().root_seed + 1
    assert (fresh.preset, fresh.study, fresh.arms) == ("demo", f"named-{seed}", ("ae", "vae-tiny"))
    assert (fresh.root_seed, str(fresh.data)) == (seed, study.config().data.path)
    (num_seeds,) = fresh.seeds
    assert int(num_seeds) > 3
    assert (more.study, more.root_seed, more.seeds) == ("named", None, fresh.seeds)


def test_a_launch_line_has_the_settings_that_are_not_the_presets(tmp_path):
    """What it launches has these very arms; 'the settings of the first launch' stands where options cannot say them."""
    arms = ["ae", "vae-eps2", "ae-clip"]
    asked = parsed(f"--preset demo --arms {' '.join(arms)} --train.learning-rate 0.01 --model.filters 4 8 8 8".split())
    config = study_config(configured_arms(named_arms(arms), asked.settings).values(), 2)
    line = answers.launch_line(StudyDir(tmp_path / "runs" / "s"), config, 8)
    again = parsed(plain_line(line))
    assert again.settings == asked.settings and again.arms == tuple(arms)
    assert "--train.learning-rate 0.01" in line and "--model.filters 4 8 8 8" in line and "[" not in line
    odd = config.arms["ae"].model_copy(update={"name": "mine"})
    of_a_file = config.model_copy(update={"arms": {**config.arms, "mine": odd}})
    assert answers.settings_asked(of_a_file) is None


def plain_line(line: str) -> list[str]:
    """What `vaehpc launch` is given, without what the reader has to fill in."""
    verb, *asked = re.sub(r"\[[^]]*\] ", "", line.removeprefix("vaehpc ")).split()
    assert verb == "launch"
    return asked


def test_one_run_of_each_kind_is_to_be_replayed_until_the_kind_has_a_verdict(mixed):
    _, summary = mixed
    diverged, nan = "vae-tiny-seed001", "vae-eps5-seed001"
    assert answers.to_replay(summary) == [diverged, nan]
    judged = {name: summary.runs[name].model_copy(update={"verdict": "(the batch)"}) for name in (diverged, nan)}
    assert answers.to_replay(summary.model_copy(update={"runs": summary.runs | {nan: judged[nan]}})) == [diverged]
    assert answers.to_replay(summary.model_copy(update={"runs": summary.runs | {diverged: judged[diverged]}})) == [nan]
    both = summary.model_copy(update={"runs": summary.runs | judged})
    assert answers.to_replay(both) == ["vae-tiny-seed005"]  # of a kind that has a verdict, and none of its own


@pytest.mark.parametrize(
    ("seeds", "asked"), [((0, 1, 2), "8"), ((7, 9, 10), "11:16"), ((1, 2), "3:9"), ((0, 1, 5), "6:11")]
)
def test_more_seeds_are_none_that_a_study_has(seeds, asked):
    """So that each arm has eight."""
    config = study_config([arm_config("ae")], 1).model_copy(update={"seeds": {"ae": seeds}})
    assert answers.seeds_to_ask(config, 8) == asked
    assert len({*seeds, *asked_seeds([asked], "--seeds")}) == 8


@pytest.mark.parametrize(("folder", "named"), [("runs", "small"), ("other runs", "'other runs/small'")])
def test_a_study_is_named_as_a_command_takes_it(tmp_path, folder, named):
    assert answers.named(StudyDir(tmp_path / folder / "small")) == named
