import pytest

from tests.examples import run_summary
from vaehpc.schema.results import CourseMark, RunCourse
from vaehpc.stats.divergence import Control, ControlScale
from vaehpc.stats.rates import summarise_arm

CONTROL = Control("ae", ControlScale(centre=16.0, scatter=0.05), num_runs=8)


def runs(*classes, ever=()):
    """One run per class; None is missing; those with an index in `ever` were beyond the limit at some time."""
    return [
        run_summary(run_class, seed, ever_diverged=seed in ever, missing_stage="train" if run_class is None else None)
        for seed, run_class in enumerate(classes)
    ]


def test_the_articles_four_runs(plan):
    arm = summarise_arm(runs("regular", "regular", "regular", "diverged", ever=[3]), CONTROL, plan)
    assert (arm.num_runs, arm.num_missing, arm.num_diverged, arm.num_ever_diverged) == (4, 0, 1, 1)
    assert arm.rate == 0.25
    assert (arm.low, arm.high) == (pytest.approx(0.0063, abs=5e-5), pytest.approx(0.8059, abs=5e-5))
    share = arm.endpoints["diverged"]
    assert (share.count, share.num_ended, share.rate, share.interval.low) == (1, 4, 0.25, arm.low)
    assert (share.if_none_missing, share.if_all_missing) == (0.25, 0.25)
    assert (arm.control, arm.level, arm.method) == ("ae", 0.95, "Clopper-Pearson")


def test_missing_runs_are_in_no_denominator_but_the_bounds(plan):
    arm = summarise_arm(runs("diverged", "regular", None, None, None), CONTROL, plan)
    assert (arm.num_runs, arm.num_missing, arm.rate) == (5, 3, 0.5)
    assert (arm.low, arm.high) == (pytest.approx(0.0126, abs=5e-5), pytest.approx(0.9874, abs=5e-5))  # 1 of 2
    for endpoint, none, every in (("diverged", 0.2, 0.8), ("diverged or nonfinite", 0.2, 0.8), ("jumped", 0.0, 0.6)):
        share = arm.endpoints[endpoint]
        assert (share.if_none_missing, share.if_all_missing) == (none, every)


def test_a_run_whose_course_is_unknown_is_in_no_rate_of_jumps(plan):
    """Unless it jumped before its probe was cut; of all of them nothing is known, and no rate is told."""
    cut, jumped = RunCourse(first_step=350, unknown_after=400), CourseMark(kind="jump", step=400, after=350, factor=3.0)
    seen = [run_summary("diverged", 0, course=cut.model_copy(update={"marks": (jumped,)})), *runs("regular", None)]
    arm = summarise_arm(
        [*seen, run_summary("regular", 3, course=cut), run_summary("nonfinite", 4, course=cut)], CONTROL, plan
    )
    counts = {name: (share.count, share.num_ended, share.if_all_missing) for name, share in arm.endpoints.items()}
    assert counts["jumped"] == (1, 2, 4 / 5)
    assert counts["jumped or nonfinite"] == (2, 3, 4 / 5)
    assert counts["diverged"] == (1, 4, 2 / 5)
    assert "jumped" not in summarise_arm([run_summary("regular", course=cut)], CONTROL, plan).endpoints


def test_every_class_is_counted_once(plan):
    classes = ["diverged", "nonfinite", "nonfinite", "collapsed", "shifted", "shifted", "shifted", "regular"]
    arm = summarise_arm(runs(*classes, ever=[0, 4]), CONTROL, plan)
    assert (arm.num_diverged, arm.num_nonfinite, arm.num_diverged_or_nonfinite) == (1, 2, 3)
    assert (arm.num_collapsed, arm.num_shifted, arm.num_unclassified) == (1, 3, 0)
    assert arm.num_ever_diverged == 2
    assert arm.rate == 1 / 8
    assert arm.endpoints["diverged or nonfinite"].rate == 3 / 8


def test_unclassified_runs_have_no_rate(plan):
    arm = summarise_arm(runs("unclassified", "unclassified", None), Control(None, None, 0), plan)
    assert (arm.num_unclassified, arm.rate, arm.low, arm.high) == (2, None, None, None)
    assert (arm.unjudged, [*arm.endpoints]) == ("unclassed", ["jumped", "jumped or nonfinite"])
    assert arm.provisional


def test_if_nothing_ended_anything_is_possible(plan):
    arm = summarise_arm(runs(None, None), CONTROL, plan)
    assert (arm.rate, arm.low, arm.high) == (None, None, None)
    assert arm.endpoints == {}


def test_an_arm_without_runs_says_nothing(plan):
    arm = summarise_arm([], CONTROL, plan)
    assert (arm.num_runs, arm.rate, arm.endpoints) == (0, None, {})


@pytest.mark.parametrize(("num_runs", "provisional"), [(7, True), (8, False)])
def test_few_controls_make_classes_provisional(num_runs, provisional, plan):
    control = Control("ae", CONTROL.scale, num_runs)
    assert summarise_arm(runs("regular"), control, plan).provisional is provisional


def test_scattered_controls_make_classes_exploratory(plan):
    control = Control("ae", ControlScale(16.0, 0.2), num_runs=8)
    assert summarise_arm(runs("regular"), control, plan).exploratory
    assert not summarise_arm(runs("regular"), CONTROL, plan).exploratory


# How runs left


def left(run_class, *kinds, seed=0, far=None):
    """A run with a mark of each kind at 400, 500, ..."""
    marks = [CourseMark(kind=kind, step=400 + 100 * i, after=350 + 100 * i, factor=2) for i, kind in enumerate(kinds)]
    course = RunCourse(first_step=350, far=far, marks=tuple(marks))
    return run_summary(run_class, seed, course=course, radius_median=None if run_class == "nonfinite" else 40.0)


def test_diverged_runs_by_how_they_left(plan):
    found = [
        left("diverged", "jump"),
        left("diverged", "jump", "jump"),
        left("diverged", "excursion", "growth"),
        left("diverged", far=True),
        left("diverged", "unconfirmed"),
        left("diverged", "excursion"),
        left("regular", "jump"),
        left("shifted", "growth"),
        left("nonfinite", "jump"),
        left("nonfinite"),
        left("regular", "excursion", "excursion"),
        left("regular"),
    ]
    arm = summarise_arm(found, CONTROL, plan)
    assert arm.diverged_how == {"jumped": 2, "grew": 1, "early": 1, "unconfirmed": 1, "unseen": 1}
    assert sum(arm.diverged_how.values()) == arm.num_diverged
    assert arm.returned_how == {"jumped": 1, "grew": 1}
    assert (arm.num_nonfinite, arm.num_nonfinite_after) == (2, 1)
    assert (arm.num_jumped, arm.num_excursions, arm.num_far, arm.first_step) == (4, 3, 1, 350)
    assert (arm.endpoints["jumped"].count, arm.endpoints["jumped or nonfinite"].count) == (4, 5)


def test_displaced_runs_leave_no_rate_by_class(plan):
    displaced = [left("displaced", far=True, seed=seed) for seed in range(4)]
    arm = summarise_arm([*displaced, left("nonfinite")], CONTROL, plan)
    assert (arm.unjudged, arm.rate, [*arm.endpoints]) == ("displaced", None, ["jumped", "jumped or nonfinite"])
    assert arm.regular_factor == pytest.approx(40 / 16)
    scattered = [run.model_copy(update={"radius_median": 40.0 * 1.2**run.seed}) for run in displaced]
    assert summarise_arm(scattered, CONTROL, plan).regular_factor is None


def test_an_unsound_control_leaves_no_rate_by_class(plan):
    unsound = Control("ae", CONTROL.scale, 8, faults={"ae-seed003": "jumped"})
    arm = summarise_arm([left("diverged", "jump")], unsound, plan)
    assert (arm.unjudged, arm.rate, arm.control_faults) == ("unsound control", None, {"ae-seed003": "jumped"})
    assert arm.endpoints["jumped"].rate == 1


def test_few_runs_that_were_far_from_the_start_are_too_few_to_tell(plan):
    far = [left("diverged", far=True), left("regular"), left("regular")]
    assert summarise_arm(far, CONTROL, plan).unjudged == "too few"
    assert summarise_arm([*far, left("regular")], CONTROL, plan).unjudged is None
    assert summarise_arm([left("diverged", "jump"), *far[1:]], CONTROL, plan).unjudged is None
