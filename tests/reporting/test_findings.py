"""What the report says of counts: each sentence from counts that carry it, and none from counts that do not."""

import re
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import pytest

from tests import plant
from tests.examples import AE, VAE, run_summary, stability, study_config
from vaehpc.reporting import answers, findings, words
from vaehpc.schema.config import StudyConfig, control_of
from vaehpc.schema.plan import Endpoint
from vaehpc.schema.results import (
    ArmSummary,
    Contrast,
    CourseMark,
    EndpointTest,
    PlannedLook,
    RunClass,
    RunCourse,
    RunSummary,
)
from vaehpc.stats.contrasts import boschloo, holm
from vaehpc.stats.divergence import Control, ControlScale
from vaehpc.stats.edge import edge_summary
from vaehpc.stats.rates import summarise_arm
from vaehpc.stats.survival import event_curves
from vaehpc.study.presets import PRESETS, analysis_plan, configured_arms, named_arms
from vaehpc.study.sweep import asked_sweep

CONTROL = Control("ae", ControlScale(centre=16.0, scatter=0.05), num_runs=8)
UNSOUND = Control("ae", ControlScale(centre=16.0, scatter=0.05), num_runs=8, faults={"ae-seed003": "diverged"})
CLASSED: tuple[Endpoint, Endpoint] = ("diverged", "diverged or nonfinite")
FOLLOWED: tuple[Endpoint, Endpoint] = ("jumped", "jumped or nonfinite")


def plain(text: str) -> str:
    return text.replace(words.NBSP, " ")


def marked(kind: str, step: int = 400, **changes: Any) -> CourseMark:
    return CourseMark.model_validate({"kind": kind, "step": step, "after": step - 50, "factor": 2.5} | changes)


def run(run_class: RunClass | None, *marks: str, far: bool = False, **changes: Any) -> RunSummary:
    """A run whose radius left at step 400, by what these marks are."""
    course = RunCourse(first_step=350, far=far, marks=tuple(map(marked, marks)))
    return run_summary(run_class, course=course, **{"followed_steps": 600} | changes)


def arm(*runs: RunClass | RunSummary | None, control: Control = CONTROL) -> ArmSummary:
    found = [each if isinstance(each, RunSummary) else run(each) for each in runs]
    return summarise_arm(found, control, analysis_plan())


def outcome(*runs: RunClass | RunSummary | None, control: Control = CONTROL) -> str:
    return plain(findings.outcome(arm(*runs, control=control)))


JUMPED = run("diverged", "jump")
FAR = run("displaced", far=True, radius_median=34.0)


# What was done


def test_seeds_that_arms_share_are_told():
    same = study_config((AE, VAE), 4)
    assert plain(findings.shared_seeds(same)) == "; the same 4 seeds in each arm"
    fewer = same.model_copy(update={"seeds": {"ae": (0, 1, 2, 3), "vae-tiny": (3, 4)}})
    assert plain(findings.shared_seeds(fewer)) == "; 1 seed is in all arms"
    others = same.model_copy(update={"seeds": {"ae": (0, 1), "vae-tiny": (2, 3)}})
    assert findings.shared_seeds(others) == "; no seed is in all arms"
    assert findings.shared_seeds(study_config((AE,), 4)) == ""


@pytest.mark.parametrize(
    ("num_runs", "num_missing", "text"),
    [
        (4, 0, "All of them ended."),
        (4, 1, "3 ended; 1 is missing and counts as neither diverged nor regular."),
        (4, 2, "2 ended; 2 are missing and count as neither diverged nor regular."),
        (4, 4, "None of them has ended, so that the study says nothing yet."),
    ],
)
def test_ended(num_runs, num_missing, text):
    assert findings.ended(num_runs, num_missing) == text


def test_every_number_of_the_abstract_comes_from_the_summary(mixed):
    study, summary = mixed
    config = study.config()
    said = [findings.overview(config, summary), *map(findings.outcome, summary.arms.values())]
    said = plain(" ".join([*said, *findings.tested(config, summary)]))
    for name in sorted(summary.arms, key=len, reverse=True):  # 'ae' is a part of 'vae-eps5'
        said = said.replace(name, "")
    plan, arms = config.plan, summary.arms.values()
    counts = [value for arm in arms for value in arm.model_dump().values() if type(value) is int]
    counts += [count for arm in arms for count in (*arm.diverged_how.values(), *arm.returned_how.values())]
    counts += [arm.num_runs - arm.num_missing for arm in arms]
    counts += [summary.data.num_train, summary.data.image_size]
    counts += [sum(column) for column in zip(*((a.num_runs, a.num_missing) for a in arms), strict=True)]
    counts += [counts[-2] - counts[-1], len(set.intersection(*map(set, config.seeds.values())))]
    of_arms = [share for arm in arms for share in arm.endpoints.values()]
    counts += [share.count + extra for share in of_arms for extra in (0, 1)]  # one run is missing
    shares = [end for share in of_arms for end in (share.interval.low, share.interval.high, share.interval.level)]
    shares += [value for share in of_arms for value in (share.rate, share.if_none_missing, share.if_all_missing)]
    shares += [contrast.power for contrast in summary.contrasts] + [plan.contrasts.rate, plan.contrasts.versus]
    tests = [test for contrast in summary.contrasts for test in contrast.tests.values()]
    p = [p for test in tests for p in (test.boschloo, test.two_sided, test.holm, *test.boschloo_if_missing)]
    known = {f"{count:,}" for count in counts} | {f"{plan.classes.diverged_factor:g}", f"{plan.course.jump_factor:g}"}
    known |= {f"{plan.probe.burn_in_steps}", f"{plan.probe.every_steps}"}
    known |= {plain(words.percent(share)).removesuffix(" %") for share in shares} | set(map(words.p_value, p))
    assert set(re.findall(r"\d[\d,.]*\d|\d", said)) <= known


def test_what_a_control_has_otherwise_is_said(mixed):
    study, summary = mixed
    config = study.config()
    alike = "the runs of its control ae, an autoencoder with the same net, training and data"
    assert findings.controls(config, summary) == alike
    clipped = config.arms["ae"].model_copy(
        update={"train": config.arms["ae"].train.model_copy(update={"clipnorm": 100.0})}
    )
    with_clip = config.model_copy(update={"arms": config.arms | {"ae": clipped}})
    said = f"{alike} (ae has its gradient clipped to 100, unlike vae-tiny and vae-eps5)"
    assert findings.controls(with_clip, summary) == said


def test_the_arms_of_a_sweep_are_told_together():
    named = asked_sweep("train.learning_rate=6e-3,1e-2", "--sweep").arms(named_arms(("ae", "ae-clip", "vae-tiny")))
    config = SimpleNamespace(arms=configured_arms(named, PRESETS["demo"].settings))
    counted = {
        arm: SimpleNamespace(num_runs=12, control=control_of(each, config.arms, "ae-clip"))
        for arm, each in config.arms.items()
    }
    summary = SimpleNamespace(arms=counted)
    said = "12 of each of ae, ae-clip and vae-tiny at each of 2 values of train.learning_rate"
    assert findings.of_each(config, summary) == said
    assert findings.controls(config, summary) == (
        "the runs of its control ae-clip, an autoencoder with the same net, training and data"
        " (ae-clip has its gradient clipped to 100, unlike ae and vae-tiny)"
    )
    counted["ae-lr6e-3"].num_runs = 11
    assert findings.of_each(config, summary).startswith("11 of ae-lr6e-3, 12 of ae-lr1e-2, 12 of ae-clip-lr6e-3")


# An arm


def test_rate_of_the_article():
    assert outcome(JUMPED, "regular", "regular", "regular") == (
        "1 of 4 ended runs diverged (1 jumped). Diverged: a rate of 25 % (exact 95 % Clopper-Pearson interval"
        " 0.6 % to 80.6 %)."
    )


def test_none_of_16_is_not_never():
    assert outcome(*["regular"] * 16) == (
        "0 of 16 ended runs diverged. Diverged: not 'never', for the data allow a rate of up to 20.6 %"
        " (exact 95 % Clopper-Pearson interval 0 % to 20.6 %)."
    )


def test_missing_runs_leave_the_denominator_and_give_bounds():
    said = outcome("diverged", "diverged", None, None, *["regular"] * 4)
    assert "2 of 6 ended runs diverged" in said
    assert "; 2 of 8 are missing." in said
    assert "Diverged: a rate of 33.3 %" in said
    assert said.endswith(
        "Had none of the missing diverged, the rate would be 25 % (2 of 8), had every one, 50 % (4 of 8)."
    )
    assert "; 1 of 2 is missing." in outcome("regular", None)


def test_nonfinite_runs_are_an_endpoint_with_a_rate_of_its_own():
    said = outcome("diverged", "nonfinite", "regular", "regular")
    assert "1 of 4 ended runs diverged" in said
    assert "; 1 became NaN. Diverged or NaN: 2 of 4, a rate of 50 % (exact 95 %" in said
    assert " Diverged: a rate of 25 %" in said
    assert "Diverged or NaN" not in outcome("diverged", "regular")


def test_the_headline_counts_each_run_once():
    early, grew = run("diverged", far=True), run("diverged", "growth")
    nan = run("nonfinite", "jump", nonfinite_step=580)
    runs = [*[JUMPED] * 3, grew, early, run("regular", "jump"), nan, "nonfinite", None, *["regular"] * 7]
    assert outcome(*runs).startswith(
        "5 of 15 ended runs diverged (3 jumped, 1 grew, 1 before step 350); 1 more jumped and came back; 2 became NaN,"
        " 1 of them after a jump or growth; 1 of 16 is missing."
    )
    rarer = [run("diverged", "unconfirmed"), "diverged", "collapsed", "shifted", run("regular", "excursion")]
    assert outcome(*rarer).startswith(
        "2 of 5 ended runs diverged (1 at the last probe, 1 unseen by the probe); 1 collapsed; 1 shifted; 1 run had an"
        " excursion that did not last."
    )


def test_runs_that_came_back_are_told():
    came_back = outcome(run("regular", "jump"), run("shifted", "growth"), "regular")
    assert came_back.startswith(
        "0 of 3 ended runs diverged; 1 jumped and came back; 1 grew and came back; at the end 2 regular and 1 shifted,"
        " of the 3 that neither diverged nor became NaN, those that came back among them."
    )
    assert "; 1 jumped and came back; at the end 1 shifted, the one that came back." in outcome(run("shifted", "jump"))
    assert "came back" not in outcome(JUMPED, "regular")


@pytest.mark.parametrize(
    ("num_after", "num_before", "text"),
    [(0, 2, "2 became NaN."), (1, 1, "2 became NaN, 1 of them after a jump or growth."),
     (1, 0, "1 became NaN, after a jump or growth."),
     (2, 0, "2 became NaN, all of them after a jump or growth.")],
)  # fmt: skip
def test_nan_after_a_jump(num_after, num_before, text):
    runs = [*[run("nonfinite", "jump")] * num_after, *[run("nonfinite")] * num_before, "regular"]
    assert f"ended runs diverged; {text}" in outcome(*runs)


def test_nothing_ended():
    assert (
        outcome(None, None) == "none of 2 runs has ended: 2 of 2 are missing, and nothing can be said about the rate."
    )


def test_a_displaced_arm_has_no_rate_and_its_jumps_have():
    said = outcome(*[FAR] * 12, *[run("diverged", "jump", far=True, radius_median=140.0)] * 3, run("nonfinite"))
    assert said.startswith(
        "of 16 ended runs 3 jumped; 1 became NaN. 12 of 16 ended beyond the limit, as their arm, and lay far from the"
        " control at the first probe after the burn-in (step 350) already: what happened before is not judged, and"
        " there is no rate of divergence. Its regular radius is 2.1 times the control's. Jumped or NaN: 4 of 16, a"
        " rate of 25 %"
    )
    assert "of 16 ended runs 3 jumped" in said and "Jumped: 3 of 16, a rate of 18.8 %" in said
    assert "diverged" not in said


def test_a_displaced_arm_that_scatters_has_no_regular_radius():
    said = outcome(*[run("displaced", far=True, radius_median=34.0 + 6 * place) for place in range(4)])
    assert "4 of 4 ended beyond the limit, as their arm" in said
    assert "regular radius" not in said


def test_few_runs_far_from_the_start_are_too_few_to_tell():
    far = run("diverged", far=True)
    said = outcome(far, far, "regular", "nonfinite")
    assert said.startswith(
        "of 4 ended runs none jumped; 1 became NaN. 2 of 4 ended beyond the limit and lay far from the control at the"
        " first probe after the burn-in (step 350) already: 3 finite runs are too few to tell whether they diverged or"
        " their arm lies there."
    )
    assert "Diverged" not in said
    assert "1 finite run is too few to tell" in outcome(far)
    assert words.standing(arm(far)) == "too few to tell"
    assert "too few" not in outcome(far, *["regular"] * 3)


def test_beside_an_unsound_control_jumps_have_the_rate():
    said = outcome(JUMPED, JUMPED, "regular", "nonfinite", control=UNSOUND)
    assert said.startswith(
        "of 4 ended runs 2 jumped; 2 ended beyond the limit of a control that is not sound; 1 became NaN. The control"
        " ae is not sound: classes are exploratory, and there is no rate of divergence. Jumped or NaN: 3 of 4, a"
        " rate of 75 %"
    )
    assert "Jumped: 2 of 4, a rate of 50 %" in said
    assert "Diverged" not in said
    assert words.standing(arm("regular", control=UNSOUND)) == "exploratory"


@pytest.mark.parametrize(
    ("control", "reason"),
    [
        (Control(None, None, 0), "the study has no control arm for them"),
        (Control("ae", None, 0), "no run of their control arm ae ended with finite radii"),
    ],
)
def test_unclassified_runs_have_no_rate_of_divergence_and_the_reason_is_given(control, reason):
    said = outcome(run("unclassified", "jump"), "unclassified", "nonfinite", None, control=control)
    assert said.startswith(
        "of 3 ended runs 1 jumped; 1 became NaN; 1 of 4 is missing. 2 of 3 ended runs could not be classed: " + reason
    )
    assert "iverged" not in said


# At the edge of stability


def of_edge(*marks: CourseMark, nonfinite_step: int | None = None, ratio: float | None = 4.5) -> str:
    states = [stability(100), stability(300, ratio), stability(500, 0.5), stability(900, 0.1)]
    return findings.edge(edge_summary(RunCourse(marks=marks), nonfinite_step, states))


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        (of_edge(), "sharpness by its limit: 0.1000 to 4.500 × in 4 calm states"),
        (
            of_edge(marked("excursion", 200), marked("jump"), ratio=None),
            "sharpness not found after 300 steps, before the jump seen at step 400; 0.1000 × in 1 calm state",
        ),
        (
            of_edge(nonfinite_step=50, ratio=9.0),
            "sharpness by its limit: no state before the NaN at step 50 was measured; 0.1000 to 9 × in 3 calm states",
        ),
        (
            of_edge(*(marked("growth", step) for step in (60, 200, 400, 800, 1000))),
            "sharpness by its limit: no state before the growth seen at step 60 was measured;"
            " no calm state was measured",
        ),
    ],
)
def test_the_edge_of_stability_is_told_before_the_first_event_and_where_it_is_calm(said, expected):
    assert plain(said) == expected


# Which runs


def test_runs_are_named_by_what_they_did_and_when(mixed):
    _, summary = mixed
    runs = {
        "a": run("diverged", "jump").model_copy(update={"verdict": "(the batch)"}),
        "b": run("regular", "jump"),
        "c": run("nonfinite", nonfinite_step=1019),
        "d": run("regular"),
        "e": run(None),
        "f": run("collapsed"),
    }
    asked = summary.model_copy(update={"runs": runs})
    named = {kind.what: list(kind.runs) for kind in findings.named_runs("vae-tiny", asked)}
    assert named == {
        "diverged": [("a", "jump seen at step 400 (R × 2.500); (the batch)")],
        "NaN": [("c", "at step 1,019")],
        "came back": [("b", "jump seen at step 400 (R × 2.500)")],
        "collapsed": [("f", "")],
        "missing": [("e", "")],
    }
    many = summary.model_copy(update={"runs": {str(number): run("diverged") for number in range(10)}})
    (kind,) = findings.named_runs("vae-tiny", many)
    assert (len(kind.runs), kind.num_more) == (8, 2)


def test_where_classes_are_not_judged_no_run_is_named_diverged(mixed):
    _, summary = mixed
    unsound = {"vae-tiny": arm(JUMPED, control=UNSOUND)}
    (kind,) = findings.named_runs("vae-tiny", summary.model_copy(update={"runs": {"a": JUMPED}, "arms": unsound}))
    assert kind.what == "beyond the limit"


@pytest.mark.parametrize(
    ("found", "text"),
    [
        (marked("jump"), "jump seen at step 400 (R × 2.500)"),
        (marked("growth", 1500, factor=1.04), "growth seen at step 1,500 (limit × 1.040)"),
        (marked("excursion"), "excursion seen at step 400 (R × 2.500)"),
        (marked("unconfirmed"), "unconfirmed jump seen at step 400 (R × 2.500)"),
        (marked("jump", after=250, gap=True), "jump, left between steps 250 and 400 (R × 2.500)"),
    ],
)
def test_marks_of_a_course(found, text):
    assert findings.mark(found) == text


def test_the_course_of_a_run_in_its_order():
    both = run("nonfinite", "jump", "excursion", nonfinite_step=519)
    assert findings.course(both) == "jump seen at step 400 (R × 2.500); excursion seen at step 400 (R × 2.500)"
    assert findings.course(run("displaced", far=True)) == "far from the control already at step 350"
    both = "far from the control already at step 350; jump seen at step 400 (R × 2.500)"
    assert findings.course(run("diverged", "jump", far=True)) == both
    cut = run_summary("diverged", course=RunCourse(first_step=350, unknown_after=400))
    assert findings.course(cut) == "course unknown after step 400"
    assert findings.course(run("regular")) == ""


def test_an_event_is_said_once_in_a_line():
    judged = run("nonfinite", "jump", nonfinite_step=1519)
    for verdict, said in (
        ("(NaN at step 1,519: gradient spike)", "(gradient spike)"),
        ("(jump seen at step 400, forked from step 5: noise) (x: y)", "(forked from step 5: noise) (x: y)"),
        ("(jump seen at step 40: noise)", "(jump seen at step 40: noise)"),
    ):
        line = findings.course(judged.model_copy(update={"verdict": verdict}))
        assert line == f"jump seen at step 400 (R × 2.500); {said}"


def test_how_often_limits_acted(mixed):
    _, summary = mixed

    def said(*acted: int, setting: str = "train.clipnorm") -> str:
        runs = [run("regular", num_recorded=1500, limits_acted={setting: count}) for count in acted]
        return plain(
            findings.acted("vae-tiny", summary.model_copy(update={"runs": dict(zip("ab", runs, strict=True))}))
        )

    assert said(0, 12) == "The clip of the gradient acted in 12 of 3,000 recorded steps, in 1 of 2 runs."
    assert said(0, 0) == "The clip of the gradient never acted in 3,000 recorded steps."
    assert said(0, 0, setting="vae.epsilon_limit").startswith("The limit of ε never acted")
    assert said(1, 0, setting="vae.log_var_limit").startswith("The clamp of log σ² acted in 1 of")
    assert findings.acted("vae-tiny", summary) == ""


# Tests between arms


def of_counts(x: int, n: int, y: int, m: int, alternative: str = "greater", **changes: Any) -> EndpointTest:
    """x of n against y of m, without an adjustment and with no run missing."""
    p = boschloo(x, n, y, m, alternative)
    fields = {
        "count": x, "num_ended": n, "reference_count": y, "reference_ended": m, "boschloo": p,
        "two_sided": boschloo(x, n, y, m, "two-sided"), "holm": p, "holm_if_missing": p, "boschloo_if_missing": (p, p),
        "fisher": p, "only_arm": x, "only_reference": 0, "mcnemar": 0.25,
    }  # fmt: skip
    return EndpointTest.model_validate(fields | changes)


def contrast(
    *tests: EndpointTest, adjusts: bool = False, endpoints: Sequence[Endpoint] = CLASSED, **changes: Any
) -> Contrast:
    """vae-tiny against its control, for these endpoints; one test stands for both."""
    first, second = tests if len(tests) == 2 else tests * 2
    if adjusts:
        found = [test.model_copy(update={"holm": p, "holm_if_missing": p})
                 for test, p in zip((first, second), holm([first.boschloo, second.boschloo]), strict=True)]  # fmt: skip
        first, second = found
    n, m = first.num_ended, first.reference_ended
    fields = {
        "arm": "vae-tiny", "reference": "ae", "is_control": True, "alternative": "greater",
        "tests": dict(zip(endpoints, (first, second), strict=True)), "num_pairs": min(n, m), "num_equal": 0,
        "family": 2, "power": 0.331, "least_p": boschloo(n, n, 0, m, "greater"), "logrank": None, "logrank_p": None,
        "num_permutations": 0,
    }  # fmt: skip
    return Contrast.model_validate(fields | changes)


def said_of(mixed, *contrasts: Contrast) -> list[str]:
    study, summary = mixed
    asked = summary.model_copy(update={"contrasts": contrasts})
    return [plain(said) for said in findings.tested(study.config(), asked)]


def p_of(*counts: Any) -> str:
    return plain(words.p_value(boschloo(*counts)))


def test_a_difference_is_told_with_both_endpoints_in_one_clause(mixed):
    (said,) = said_of(mixed, contrast(of_counts(1, 16, 0, 16), of_counts(8, 16, 0, 16), adjusts=True))
    least, other = boschloo(8, 16, 0, 16, "greater"), p_of(1, 16, 0, 16, "greater")
    assert said == (
        "vae-tiny diverged or became NaN more often than its control ae: 8 of 16 against 0 of 16"
        f" (p = {words.p_value(least)}, Holm-adjusted {words.p_value(2 * least)}); diverged 1 of 16 against 0 of 16"
        f" (p = {other}), not shown. Boschloo's exact test, one-sided; of 16 pairs of equal seeds the arm's run alone"
        " did in 8, the other's in 0 (McNemar p = 0.25)."
    )


def test_a_difference_of_both_endpoints_is_said_of_both(mixed):
    (said,) = said_of(mixed, contrast(of_counts(6, 8, 0, 8, mcnemar=None), of_counts(7, 8, 0, 8)))
    assert said.startswith("vae-tiny diverged more often than its control ae: 6 of 8 against 0 of 8 (p = ")
    assert "; diverged or NaN 7 of 8 against 0 of 8 (p = " in said
    assert said.endswith("), shown too. Boschloo's exact test, one-sided; no pair of equal seeds differs of 8.")


def test_a_difference_may_be_less_often(mixed):
    less = of_counts(0, 30, 28, 30, "two-sided", holm=1e-6, holm_if_missing=1e-6)
    (said,) = said_of(mixed, contrast(less, is_control=False, alternative="two-sided"))
    assert said.startswith("vae-tiny diverged less often than ae: 0 of 30 against 28 of 30 (p < 0.0001)")
    assert "Boschloo's exact test, two-sided" in said


def test_a_difference_of_jumps_is_called_so(mixed):
    (said,) = said_of(mixed, contrast(of_counts(6, 8, 0, 8), endpoints=FOLLOWED))
    assert said.startswith("vae-tiny jumped more often than its control ae: 6 of 8 against 0 of 8")
    assert "diverged" not in said
    (nothing,) = said_of(mixed, contrast(of_counts(2, 8, 0, 8), endpoints=FOLLOWED))
    assert nothing.startswith("No difference in jumps or NaN was shown between vae-tiny and ae: jumped 2 of 8")


def test_a_difference_that_depends_on_missing_runs_is_not_shown(mixed):
    depends = of_counts(5, 10, 0, 10, holm=0.0335, holm_if_missing=1.0, boschloo_if_missing=(0.0004, 0.94))
    (said,) = said_of(mixed, contrast(depends))
    assert said.startswith("No difference was shown between vae-tiny and ae: diverged 5 of 10 against 0 of 10 (p = ")
    assert "Holm-adjusted 0.0335, 0.0004 to 0.94 by how the missing runs end)" in said
    stands = depends.model_copy(update={"holm_if_missing": 0.05, "boschloo_if_missing": (0.0004, 0.025)})
    (said,) = said_of(mixed, contrast(stands))
    assert said.startswith("vae-tiny diverged more often than its control ae")
    assert "0.0004 to 0.025 by how the missing runs end" in said


def test_without_a_difference_the_text_says_how_little_that_means(mixed):
    second = contrast(of_counts(4, 8, 0, 8, holm=0.06, holm_if_missing=0.06), arm="vae-eps5", power=0.5)
    first, said = said_of(mixed, contrast(of_counts(2, 8, 0, 8)), second)
    p, other = p_of(2, 8, 0, 8, "greater"), p_of(4, 8, 0, 8, "greater")
    assert first == (
        f"No difference was shown between vae-tiny and ae: diverged 2 of 8 against 0 of 8 (p = {p}), diverged or NaN"
        f" 2 of 8 against 0 of 8 (p = {p})."
    )
    assert said == (
        f"No difference was shown between vae-eps5 and ae: diverged 4 of 8 against 0 of 8 (p = {other},"
        f" Holm-adjusted 0.06), diverged or NaN 4 of 8 against 0 of 8 (p = {other}, Holm-adjusted 0.06). That is no"
        " proof of equal rates: with so many runs, 25 % against 0 % is found with a probability of 33.1 % to 50 % at"
        " the first of Holm's thresholds."
    )


def test_many_pairs_without_a_difference_are_one_sentence(mixed):
    adjusted = enumerate((1.0, 0.5, 0.25, 0.125))
    found = [contrast(of_counts(x, 8, 0, 8, holm=p, holm_if_missing=p), arm=f"arm-{x}") for x, p in adjusted]
    said, _ = said_of(mixed, *found)
    assert said.startswith(
        "No difference was shown in 4 pairs of arms (arm-0 and ae; arm-1 and ae; arm-2 and ae; arm-3 and ae): the least"
        " Holm-adjusted p is 0.12; the table of tests has their counts. That is no proof of equal rates: "
    )
    missing = contrast(of_counts(5, 8, 0, 8, holm=0.03, holm_if_missing=1.0, boschloo_if_missing=(0.01, 0.9)))
    assert "the least Holm-adjusted p of the runs that ended is 0.03;" in said_of(mixed, *found, missing)[0]


def test_the_reference_beside_an_ae_that_is_its_like_is_told_where_it_is_not_tested(mixed):
    study, summary = mixed
    config = study.config()
    assert findings.untested(config, summary) == []
    others = [each for each in summary.contrasts if (each.arm, each.reference) != ("vae-tiny", "ae")]
    without = summary.model_copy(update={"contrasts": tuple(others)})
    (said,) = findings.untested(config, without)
    assert said == (
        "Alike but for the VAE, and not among the planned tests: vae-tiny against ae (diverged or NaN 2 of 7 against"
        " 0 of 8)."
    )
    assert said in answers.how_sure(config, without)
    assert findings.tested(config, without)[-1] == said
    clipped = config.arms["ae"].model_copy(
        update={"train": config.arms["ae"].train.model_copy(update={"clipnorm": 100.0})}
    )
    assert findings.untested(config.model_copy(update={"arms": config.arms | {"ae": clipped}}), without) == []


def test_so_few_runs_that_nothing_can_be_shown_are_named(mixed):
    (said,) = said_of(mixed, contrast(of_counts(2, 2, 0, 2)))
    assert said.endswith("For vae-tiny and ae there are so few runs that no outcome could have shown one.")
    few = contrast(of_counts(0, 3, 0, 3))
    assert few.least_p == pytest.approx(1 / 64)
    assert "no outcome" not in said_of(mixed, few)[0]
    # both endpoints are in the family, so that half of alpha is the most that the lesser p may be
    assert "no outcome" in said_of(mixed, few.model_copy(update={"least_p": 0.026}))[0]


def test_the_opposite_of_what_is_tested_is_told_as_not_tested(mixed):
    (said,) = said_of(mixed, contrast(of_counts(0, 16, 7, 16)))
    clause = f"0 of 16 against 7 of 16 (not tested in that direction; two-sided p = {p_of(0, 16, 7, 16, 'two-sided')})"
    assert said == (
        f"vae-tiny against its control ae: diverged {clause}, diverged or NaN {clause}. The plan asks only if it is"
        " more often."
    )
    (less,) = said_of(mixed, contrast(of_counts(7, 16, 0, 16, "less"), alternative="less"))
    assert "not tested in that direction" in less
    assert less.endswith("The plan asks only if it is less often.")
    (both,) = said_of(mixed, contrast(of_counts(0, 8, 3, 8, "two-sided"), alternative="two-sided"))
    assert both.startswith("No difference was shown")


def test_one_endpoint_may_be_opposite_beside_another(mixed):
    (said,) = said_of(mixed, contrast(of_counts(0, 16, 2, 16), of_counts(4, 16, 2, 16)))
    assert said.startswith("No difference was shown between vae-tiny and ae: diverged 0 of 16 against 2 of 16 (not")
    (shown,) = said_of(mixed, contrast(of_counts(0, 16, 2, 16), of_counts(15, 16, 2, 16)))
    assert shown.startswith("vae-tiny diverged or became NaN more often than its control ae: 15 of 16 against 2 of 16")
    assert "; diverged 0 of 16 against 2 of 16 (not tested in that direction; two-sided p = " in shown


def test_exploratory_contrasts_confirm_nothing(mixed):
    open_ = of_counts(8, 8, 0, 8, holm=None, holm_if_missing=None)
    unnamed = contrast(open_, exploratory=("the plan does not name it",), arm="vae-eps5")
    shown, said = said_of(mixed, contrast(of_counts(6, 8, 0, 8)), unnamed)
    assert shown.startswith("vae-tiny diverged more often")
    p = plain(findings.p_words(boschloo(8, 8, 0, 8, "greater")))
    assert said == (
        "Exploratory, with p values that are not adjusted and confirm nothing: vae-eps5 against ae (the plan does not"
        f" name it): diverged 8 of 8 against 0 of 8 ({p}), diverged or NaN 8 of 8 against 0 of 8 ({p})."
    )


def test_pairs_that_are_equal_to_the_bit_are_told(mixed):
    some, nothing = said_of(mixed, contrast(of_counts(0, 8, 0, 8), num_equal=5))
    assert some == "3 of 8 pairs of vae-tiny and ae differ at all; the others are equal to the bit."
    assert nothing.startswith("No difference was shown between vae-tiny and ae")
    (all_equal,) = said_of(mixed, contrast(of_counts(0, 8, 0, 8), num_equal=8).model_copy(update={"tests": {}}))
    assert all_equal == (
        "0 of 8 pairs of vae-tiny and ae differ at all; all are equal to the bit, and there is nothing to test."
    )
    (one, _) = said_of(mixed, contrast(of_counts(0, 8, 0, 8), num_equal=7))
    assert one.startswith("1 of 8 pairs of vae-tiny and ae differs at all")


def test_missing_runs_leave_p_open():
    assert findings.range_of_p(of_counts(2, 8, 0, 8, boschloo_if_missing=(0.01, 0.3))) == "0.01 to 0.3"
    assert findings.range_of_p(of_counts(2, 8, 0, 8)) == ""


def look(number: int, num_diverged: int, least: int | None) -> PlannedLook:
    return PlannedLook(
        arm="vae-tiny", reference="ae", looks=(8, 16), number=number, spent=0.0056, num_diverged=num_diverged,
        reference_diverged=0, least_diverged=least, stops=least is not None and num_diverged >= least,
    )  # fmt: skip


def with_looks(mixed) -> StudyConfig:
    config = mixed[0].config()
    plan = config.plan.contrasts.model_copy(update={"looks": (8, 16)})
    return config.model_copy(update={"plan": config.plan.model_copy(update={"contrasts": plan})})


def looked(mixed, of: PlannedLook | None, *contrasts: Contrast) -> list[str]:
    summary = mixed[1].model_copy(update={"contrasts": contrasts, "look": of})
    return [plain(said) for said in findings.tested(with_looks(mixed), summary)]


OTHER = contrast(of_counts(7, 8, 0, 8), arm="vae-eps5")


def test_before_a_look_stops_nothing_else_is_tested(mixed):
    assert looked(mixed, look(1, 4, 6), OTHER) == [
        "Look 1 of 2, after 8 seeds per arm: 4 runs of vae-tiny diverged and 0 of ae, beside which 6 are needed to stop"
        " (O'Brien-Fleming-like spending; 0.6 % of a false alarm until now). The plan goes on to 16 seeds; nothing else"
        " is tested before."
    ]
    (hopeless,) = looked(mixed, look(1, 8, None), OTHER)
    assert "no number would be enough to stop" in hopeless
    (last,) = looked(mixed, look(2, 3, 5), OTHER)
    assert last.endswith(
        "No difference was shown, which is no proof of equal rates; as the plan's first question is open, nothing else"
        " is tested."
    )


def test_once_a_look_stops_the_rest_is_tested_with_its_other_endpoint(mixed):
    unadjusted = of_counts(6, 8, 0, 8, holm=None, holm_if_missing=None)
    stopped, own, other = looked(mixed, look(1, 6, 6), contrast(unadjusted, of_counts(7, 8, 0, 8)), OTHER)
    assert stopped.endswith("vae-tiny diverged more often than ae: the plan stops here.")
    assert own.startswith("vae-tiny diverged or became NaN more often than its control ae: 7 of 8 against 0 of 8")
    assert "6 of 8" not in own
    assert other.startswith("vae-eps5 diverged more often than its control ae: 7 of 8 against 0 of 8")


def test_between_looks_nothing_is_tested(mixed):
    assert looked(mixed, None, OTHER) == [
        "The plan judges the counts after 8 and 16 seeds of each arm. This is none of these looks, or runs are missing:"
        " nothing is tested."
    ]


# When


def events(*runs: RunSummary) -> str:
    curves = event_curves(runs, 0.95)
    assert curves is not None
    return plain(findings.events("vae-tiny", curves))


def test_first_events_and_what_became_of_the_other_runs():
    lost = run(None, followed_steps=250)
    nan = run("nonfinite", nonfinite_step=519, followed_steps=519)
    cut = run_summary("diverged", course=RunCourse(first_step=350, unknown_after=400), followed_steps=600)
    left = [run("diverged", "jump"), run("regular", "jump"), run("diverged", "growth"), nan]
    assert events(*left, lost, cut, FAR, run("regular"), run("regular")) == (
        "vae-tiny: of 8 followed runs 2 jumped, 1 grew and 1 became NaN; censored: 1 missing and 1 with a cut probe;"
        " however the missing ended, 50 % to 62.5 % left; left out: 1 far from the control before, whatever"
        " they did later."
    )
    assert events(run("regular")) == "vae-tiny: of 1 followed run none left."


def test_an_arm_whose_runs_were_all_far_before_is_not_passed_over(mixed):
    _, summary = mixed
    far = {"vae-tiny": summary.arms["vae-tiny"].model_copy(update={"num_far": 7})}
    without = summary.model_copy(update={"events": {}, "arms": summary.arms | far})
    assert findings.not_followed(without) == ["vae-tiny: no run is followed; left out: 7 far from the control before."]
    assert findings.not_followed(summary.model_copy(update={"arms": summary.arms | far})) == []


def test_a_logrank_test_says_how_it_was_permuted(mixed):
    _, summary = mixed
    drawn = contrast(of_counts(2, 8, 0, 8), logrank=-1.5, logrank_p=0.2, num_permutations=9999)
    assert plain(findings.sooner(drawn, summary)).endswith(
        "z = −1.500 of any first event, two-sided p = 0.2 (9,999 permutations of the arms; not adjusted; exploratory,"
        " as more runs are missing in one arm)."
    )
    alike = summary.model_copy(update={"arms": dict.fromkeys(("ae", "vae-tiny"), summary.arms["vae-tiny"])})
    every = findings.sooner(drawn.model_copy(update={"num_permutations": 0}), alike)
    assert every.endswith("(all permutations of the arms; not adjusted).")


# What the reader must know


def test_synthetic_demo_says_what_it_is(tmp_path):
    study, summary = plant.classed(tmp_path / "demo", {"ae": ["regular"] * 4, "vae-tiny": ["regular"] * 4})
    assert findings.caveats(study.config(), summary) == [
        "Built-in synthetic faces: the study shows the machinery and says nothing about CelebA.",
        "The demo preset shows the machinery, not science: a small net, few and small images, few steps.",
        "The classes of ae and vae-tiny are provisional: the plan asks for at least 8\N{NO-BREAK SPACE}control runs,"
        " and there are fewer.",
    ]


def test_a_study_of_the_articles_data_with_enough_controls_has_no_caveat(tmp_path):
    classes = {"ae": ["regular"] * 8, "vae-tiny": ["regular", "diverged"]}
    study, summary = plant.classed(tmp_path / "full", classes, synthetic=False, preset="article")
    assert findings.caveats(study.config(), summary) == []
    flowers = study.config().data.model_copy(update={"photographs": True, "has_attributes": False})
    assert findings.caveats(study.config().model_copy(update={"data": flowers}), summary) == [
        "These images are not CelebA's: nothing is compared with what the article says of those.",
        "The data set has no attributes: their linear probes are left out.",
    ]


def test_arms_that_differ_in_precision_are_named(mixed):
    study, summary = mixed
    config = study.config()
    half = config.arms["ae"].train.model_copy(update={"precision": "mixed_bfloat16"})
    arms = config.arms | {"ae": config.arms["ae"].model_copy(update={"train": half})}
    others = findings.enumeration([name for name in arms if name != "ae"])
    said = f"Arms differ in precision: ae in mixed_bfloat16; {others} in float32."
    assert said in findings.caveats(config.model_copy(update={"arms": arms}), summary)


def test_rates_that_were_not_tested_are_not_compared(mixed):
    study, summary = mixed
    untested = findings.caveats(study.config(), summary.model_copy(update={"contrasts": ()}))
    assert untested[-1] == "Rates of different arms were not tested against each other: no difference is claimed."
    assert not any("not tested" in caveat for caveat in findings.caveats(study.config(), summary))


def test_what_came_after_the_launch_is_exploratory(mixed):
    study, summary = mixed
    later = summary.model_copy(update={"deviations": ("the arm ae was added after the first launch",)})
    assert findings.caveats(study.config(), later)[-1] == (
        "Not as planned before the first launch, so that every test is exploratory: the arm ae was added after the"
        " first launch."
    )
    assert not any("exploratory" in caveat for caveat in findings.caveats(study.config(), summary))


def test_a_single_arm_classed_by_the_articles_radius(tmp_path):
    classes = {"vae-tiny": ["regular"] * 9}
    study, summary = plant.classed(tmp_path / "alone", classes, synthetic=False, preset="article", epochs=24)
    caveats = findings.caveats(study.config(), summary)
    assert any("has no control arm in this study and is classed by the article's radius of 16.75" in c for c in caveats)
    assert not any("difference" in caveat for caveat in caveats)


def test_scattered_controls_are_exploratory(mixed):
    study, summary = mixed
    arms = {name: found.model_copy(update={"exploratory": True}) for name, found in summary.arms.items()}
    scattered = findings.caveats(study.config(), summary.model_copy(update={"arms": arms}))
    assert any(caveat.startswith("For ae, vae-tiny and vae-eps5 'shifted' and 'regular' are") for caveat in scattered)
    assert not any("exploratory" in caveat for caveat in findings.caveats(study.config(), summary))


def test_runs_that_make_a_control_unsound_are_named(mixed):
    study, summary = mixed
    faults = {"ae-seed000": "nonfinite", "ae-seed001": "grew"}
    arms = {name: found.model_copy(update={"control_faults": faults}) for name, found in summary.arms.items()}
    unsound = findings.caveats(study.config(), summary.model_copy(update={"arms": arms}))
    said = (
        "The control ae is not sound (ae-seed000 became NaN and ae-seed001 grew): classes of arms that are judged by it"
        " are exploratory; jumps, excursions and NaN need no control and are counted and tested."
    )
    assert unsound.count(said) == 1  # not once for each arm
    many = dict.fromkeys(map(str, range(10)), "diverged")
    arms["ae"] = arms["ae"].model_copy(update={"control_faults": many, "control": "other"})
    more = findings.caveats(study.config(), summary.model_copy(update={"arms": arms}))
    assert sum(caveat.startswith("The control") for caveat in more) == 2
    assert any("6 diverged, 7 diverged and 2 more)" in caveat for caveat in more)


@pytest.mark.parametrize(
    ("epochs", "text"),
    [
        (3, "Too short for jumps: ae and vae-tiny end at step 300 without a probe after the burn-in of 300 steps, so"
            " that none could be seen."),
        (4, None),
    ],
)  # fmt: skip
def test_a_study_too_short_for_jumps_says_so(epochs, text):
    config = plant.classed_config("short", {"ae": ["regular"], "vae-tiny": ["regular"]}, epochs=epochs)
    assert findings.too_short(config) == ([] if text is None else [text])


def test_a_jump_that_nothing_could_confirm():
    """7 steps an epoch: 350 in all, of which the last alone is probed after the burn-in; and one arm with fewer."""
    config = plant.classed_config("last", {"ae": ["regular"], "vae-tiny": ["regular"]}, epochs=50)
    config = config.model_copy(update={"data": config.data.model_copy(update={"num_train": 896})})
    assert findings.too_short(config) == [
        "Only the last probe of ae and vae-tiny lies after the burn-in: no jump could be confirmed."
    ]
    train = config.arms["ae"].train.model_copy(update={"epochs": 40})
    arms = config.arms | {"ae": config.arms["ae"].model_copy(update={"train": train})}
    short, last = findings.too_short(config.model_copy(update={"arms": arms}))
    assert short.startswith("Too short for jumps: ae ends at step 280 without")
    assert last.startswith("Only the last probe of vae-tiny lies")


def test_several_looks_are_a_caveat_of_the_tables(mixed):
    said = "The plan has several looks: the p values in tables are each of a single look."
    assert said in findings.caveats(with_looks(mixed), mixed[1])
    assert said not in findings.caveats(mixed[0].config(), mixed[1])


def test_runs_that_other_rules_judge_otherwise_are_named(mixed):
    study, summary = mixed
    one = summary.model_copy(update={"reclassed": ("vae-tiny-seed001 (diverged, now displaced)",)})
    planned = "Planned by the rules of a release before 0.3.0; classes and onsets are by today's."
    assert findings.caveats(study.config(), one)[-1] == (
        f"{planned} Otherwise than by those: vae-tiny-seed001 (diverged, now displaced)."
    )
    none = summary.model_copy(update={"reclassed": ()})
    assert findings.caveats(study.config(), none)[-1] == f"{planned} No run differs."
    assert not any("0.3.0" in caveat for caveat in findings.caveats(study.config(), summary))
