import re
import shlex

import pytest

from tests import plant
from tests.examples import arm_config, study_config
from vaehpc.launch import _wanted, parsed
from vaehpc.reporting import answers, findings, words
from vaehpc.schema.results import StudySummary
from vaehpc.stats.planning import power
from vaehpc.study.files import StudyDir
from vaehpc.study.presets import PRESETS, asked_seeds, configured_arms, named_arms, preset_plan


def plain(sentences) -> str:
    return " ".join(sentences).replace(words.NBSP, " ")


def test_how_often_has_the_counts_of_the_summary(mixed):
    study, summary = mixed
    found = {line.arm: line for line in answers.how_often(study.config(), summary)}
    assert list(found) == ["ae", "vae-tiny", "vae-eps5"]
    line = found["vae-tiny"]
    share = summary.arms["vae-tiny"].endpoints["diverged or nonfinite"]
    assert (line.counts, line.did, line.middle) == ("2 of 7", "diverged or NaN", 2 / 7)
    assert (line.low, line.high) == (share.interval.low, share.interval.high)
    assert line.kinds == "2 diverged; not counted: 1 collapsed, 1 missing"
    # None diverged and one of two is NaN: that is no rate of 0 %.
    assert (found["vae-eps5"].counts, found["vae-eps5"].kinds) == ("1 of 2", "1 NaN")


@pytest.mark.parametrize(
    ("declared", "named"),
    [("diverged or nonfinite", "diverged or NaN"), ("jumped", "jumped or NaN"), ("diverged", "diverged or NaN")],
)
def test_one_endpoint_is_counted_of_every_arm(mixed, declared, named):
    """The plan's kind with NaN; where one arm has no rate of it, that of courses for all of them, and that is said."""
    study, summary = mixed
    config = study.config()
    contrasts = config.plan.contrasts.model_copy(update={"primary_endpoint": declared})
    config = config.model_copy(update={"plan": config.plan.model_copy(update={"contrasts": contrasts})})
    assert {line.did for line in answers.how_often(config, summary)} == {named}
    assert answers.in_its_stead(config, summary) == ""
    courses = {key: share for key, share in summary.arms["vae-tiny"].endpoints.items() if key.startswith("jumped")}
    displaced = summary.arms["vae-tiny"].model_copy(update={"endpoints": courses, "unjudged": "displaced"})
    summary = summary.model_copy(update={"arms": summary.arms | {"vae-tiny": displaced}})
    stead = named.replace("diverged", "jumped")
    assert {line.did for line in answers.how_often(config, summary)} == {stead}
    why = f"{stead} stands for {named}, of which vae-tiny can have no rate."
    assert answers.in_its_stead(config, summary) == (why if stead != named else "")


def test_each_run_of_an_arm_is_told_once_inside_the_count_or_outside(mixed):
    """Of seven that ended two jumped, of which one came back and one is NaN, and another is NaN."""
    _, summary = mixed
    classes = ("nonfinite", "nonfinite", None, "shifted", "diverged", "regular", "collapsed", "regular")
    names = [name for name in summary.runs if name.startswith("vae-tiny")]
    runs = {
        name: summary.runs[name].model_copy(update={"run_class": of}) for name, of in zip(names, classes, strict=True)
    }
    share = summary.arms["vae-tiny"].endpoints["jumped"].model_copy(update={"count": 3})
    arm = summary.arms["vae-tiny"].model_copy(update={"endpoints": {"jumped or nonfinite": share, "jumped": share}})
    of = summary.model_copy(update={"runs": runs, "arms": {"vae-tiny": arm}})
    line = answers.often("vae-tiny", of, "jumped or nonfinite")
    assert (line.counts, line.did) == ("3 of 7", "jumped or NaN")
    outside = "not counted: 1 beyond the limit without a jump, 1 collapsed, 1 missing"
    assert line.kinds == f"2 jumped (1 of them came back), 2 NaN (1 both); {outside}"
    judged = arm.model_copy(update={"endpoints": {"diverged or nonfinite": share}})
    line = answers.often("vae-tiny", of.model_copy(update={"arms": {"vae-tiny": judged}}), "diverged or nonfinite")
    assert line.kinds == "1 diverged, 2 NaN; not counted: 1 came back, 1 collapsed, 1 missing"


def test_of_many_arms_those_with_most_events_are_first(mixed):
    study, summary = mixed
    arms = {f"arm-{at}": summary.arms["ae"] for at in range(20)} | {"left": summary.arms["vae-tiny"]}
    found = answers.how_often(study.config(), summary.model_copy(update={"arms": arms}))
    assert found[0].arm == "left"
    assert len(found) == answers.MOST_ARMS


def test_how_sure_says_what_so_many_seeds_cannot_show(mixed):
    study, summary = mixed
    config = study.config()
    said = plain(answers.how_sure(config, summary))
    least = min(test.holm for each in summary.contrasts for test in each.tests.values())
    assert (
        "No difference is shown: vae-tiny and vae-eps5 against ae; vae-eps5 against vae-tiny (6 planned tests, least"
        f" Holm-adjusted p = {words.p_value(least)} of the runs that ended). That is no proof of equal rates." in said
    )
    assert "0 of 8 diverged or NaN would still allow a rate of up to 36.9 % (ae)." in said
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


def of_tests(summary: StudySummary, *found: tuple[str, str, tuple[int, int], float]) -> StudySummary:
    """With planned contrasts of 8 runs each: arm, reference, counts, Holm-adjusted p; that of jumps alone is 1."""
    like = summary.contrasts[0]
    contrasts = []
    for arm, reference, (count, of_reference), p in found:
        counts = {"count": count, "reference_count": of_reference, "num_ended": 8, "reference_ended": 8}
        given = {**counts, "boschloo": p, "boschloo_if_missing": (p, p), "holm": p, "holm_if_missing": p}
        test = like.tests["diverged"].model_copy(update=given)
        alone = test.model_copy(update={"count": of_reference, "holm": 1.0, "holm_if_missing": 1.0})
        names = {"arm": arm, "reference": reference, "tests": {"jumped": alone, "jumped or nonfinite": test}}
        contrasts.append(like.model_copy(update=names))
    return summary.model_copy(update={"contrasts": tuple(contrasts)})


@pytest.mark.parametrize(("alternative", "least"), [("greater", "(one-sided, "), ("two-sided", "(")])
def test_counts_that_would_do_say_by_which_test(mixed, alternative, least):
    """Of 8 and 8 at 0.05 / 6: one-sided fewer are enough."""
    study, summary = mixed
    found = of_tests(summary, ("a", "ae", (2, 0), 0.9))
    contrast = found.contrasts[0].model_copy(update={"alternative": alternative})
    said = plain(answers.what_it_takes(study.config(), found.model_copy(update={"contrasts": (contrast,)})))
    assert re.search(re.escape(least) + r"\d of 8 against 0 of 8 would do\)", said), said


def test_what_is_not_shown_is_named_beside_what_is(mixed):
    study, summary = mixed
    found = of_tests(
        summary,
        ("a", "ae", (8, 0), 0.001),
        ("b", "ae", (2, 1), 0.9),
        ("a", "b", (8, 2), 0.07),
        ("c", "ae", (0, 4), 1.0),
    )
    exploratory = found.contrasts[0].model_copy(
        update={
            "tests": {key: test.model_copy(update={"holm": None}) for key, test in found.contrasts[0].tests.items()}
        }
    )
    found = found.model_copy(update={"contrasts": (*found.contrasts, exploratory)})
    assert answers.what_is_shown(study.config(), found) == [
        "a jumped or became NaN more often than ae: 8 of 8 against 0 of 8, Holm-adjusted p = 0.001; jumped alone:"
        " 0 of 8 against 0 of 8, Holm-adjusted p = 1, not shown.",
        "No other difference is shown: b against ae; a against b (4 planned tests, least Holm-adjusted"
        " p = 0.07). That is no proof of equal rates. Not tested in the direction in which they differ: c against ae."
        " 1 more pair is exploratory and confirms nothing.",
    ]
    many = of_tests(summary, *((f"arm-{at}", "ae", (1, 0), 0.5 - at / 100) for at in range(12)))
    (said,) = answers.what_is_shown(study.config(), many)
    assert "arm-4, arm-5, arm-6, arm-7, arm-8, arm-9, arm-10 and arm-11 against ae; and 4 more pairs (" in said


def test_a_power_is_told_of_pairs_that_are_open_and_can_be_the_case(mixed):
    """25 % against 0 %: not of a pair that is decided, nor of one in which runs of both arms left."""
    study, summary = mixed
    decided, open_, both = ("a", "ae", (8, 0), 0.001), ("b", "ae", (2, 0), 0.9), ("c", "ae", (5, 3), 0.9)
    config = study.config()
    (said,) = answers.what_it_takes(config, of_tests(summary, decided, open_, both))
    assert said.startswith("Of b against ae: 8 runs per arm find 25")
    assert (
        len([step for step in answers.what_next(study, config, of_tests(summary, open_)) if "launch" in step.line]) == 2
    )
    never = of_tests(summary, decided, ("c", "ae", (5, 3), 0.9))
    alone = {key: test for key, test in never.contrasts[1].tests.items() if key != "jumped"}
    never = never.model_copy(
        update={"contrasts": (never.contrasts[0], never.contrasts[1].model_copy(update={"tests": alone}))}
    )
    assert answers.what_it_takes(config, never) == []
    assert not [step for step in answers.what_next(study, config, never) if "launch" in step.line]
    assert "is found with" not in plain(findings.tested(config, never))


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


def test_what_next_are_lines_that_the_commands_take(tmp_path, monkeypatch):
    """As they stand, from the folder that holds 'runs'; what is to be launched is the study itself, with more seeds."""
    classes = {"ae": ["regular"] * 3, "vae-tiny": ["diverged", "regular", None]}
    study, summary = plant.classed(tmp_path / "runs" / "named", classes)
    steps = answers.what_next(study, study.config(), summary)
    assert [step.line for step in steps[:3]] == [
        "vaehpc status named --failures",
        "vaehpc explain named --run vae-tiny-seed000",
        "vaehpc replay named --run vae-tiny-seed000",
    ]
    fresh, more = (parsed(asked_of(step.line)) for step in steps[3:5])
    seed, plan = study.config().root_seed + 1, study.config().plan
    assert (fresh.preset, fresh.study, fresh.arms) == ("demo", f"named-{seed}", ("ae", "vae-tiny"))
    assert (fresh.root_seed, str(fresh.data)) == (seed, study.config().data.path)
    (num_seeds,) = fresh.seeds
    assert int(num_seeds) > 3
    assert (more.study, more.root_seed, more.seeds) == ("named", None, fresh.seeds)
    # The plan is not the preset's: a fresh study takes it from this one.
    monkeypatch.chdir(tmp_path)
    assert preset_plan(PRESETS["demo"], study.config().arms) != plan
    for asked in (fresh, more):
        assert _wanted(asked, StudyDir(asked.out / asked.name)).plan == plan


def test_a_launch_line_has_the_settings_that_are_not_the_presets(tmp_path):
    """What it launches has these very arms; where options cannot say them, there is no line to copy."""
    arms = ["ae", "vae-eps2", "ae-clip"]
    asked = parsed(f"--preset demo --arms {' '.join(arms)} --train.learning-rate 0.01 --model.filters 4 8 8 8".split())
    config = study_config(configured_arms(named_arms(arms), asked.settings).values(), 2)
    line = answers.launch_step("more", StudyDir(tmp_path / "runs" / "s"), config, 8).line
    again = parsed(asked_of(line))
    assert again.settings == asked.settings and again.arms == tuple(arms)
    assert "--train.learning-rate 0.01" in line and "--model.filters 4 8 8 8" in line and "[" not in line
    odd = config.arms["ae"].model_copy(update={"name": "mine"})
    of_a_file = config.model_copy(update={"arms": {**config.arms, "mine": odd}})
    assert answers.settings_asked(of_a_file) is None
    step = answers.launch_step("More", StudyDir(tmp_path / "runs" / "s"), of_a_file, 8)
    assert step.line == "" and step.what.startswith("More, by the line of its first launch with --study ")


def asked_of(line: str) -> list[str]:
    """What `vaehpc launch` is given, word by word as a shell hands it on."""
    program, verb, *asked = shlex.split(line)
    assert (program, verb) == ("vaehpc", "launch")
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
