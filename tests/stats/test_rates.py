import pytest

from tests.examples import run_summary
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
    assert (arm.rate_if_missing_regular, arm.rate_if_missing_diverged) == (0.25, 0.25)
    assert (arm.control, arm.level, arm.method) == ("ae", 0.95, "Clopper-Pearson")


def test_missing_runs_are_in_no_denominator_but_the_bounds(plan):
    arm = summarise_arm(runs("diverged", "regular", None, None, None), CONTROL, plan)
    assert (arm.num_runs, arm.num_missing, arm.rate) == (5, 3, 0.5)
    assert (arm.low, arm.high) == (pytest.approx(0.0126, abs=5e-5), pytest.approx(0.9874, abs=5e-5))  # 1 of 2
    assert (arm.rate_if_missing_regular, arm.rate_if_missing_diverged) == (0.2, 0.8)


def test_every_class_is_counted_once(plan):
    classes = ["diverged", "nonfinite", "nonfinite", "collapsed", "shifted", "shifted", "shifted", "regular"]
    arm = summarise_arm(runs(*classes, ever=[0, 4]), CONTROL, plan)
    assert (arm.num_diverged, arm.num_nonfinite, arm.num_diverged_or_nonfinite) == (1, 2, 3)
    assert (arm.num_collapsed, arm.num_shifted, arm.num_unclassified) == (1, 3, 0)
    assert arm.num_ever_diverged == 2
    assert arm.rate == 1 / 8


def test_unclassified_runs_have_no_rate(plan):
    arm = summarise_arm(runs("unclassified", "unclassified", None), Control(None, None, 0), plan)
    assert (arm.num_unclassified, arm.rate, arm.low, arm.high) == (2, None, None, None)
    assert (arm.rate_if_missing_regular, arm.rate_if_missing_diverged) == (None, None)
    assert arm.provisional


def test_if_nothing_ended_anything_is_possible(plan):
    arm = summarise_arm(runs(None, None), CONTROL, plan)
    assert (arm.rate, arm.low, arm.high) == (None, None, None)
    assert (arm.rate_if_missing_regular, arm.rate_if_missing_diverged) == (0, 1)


def test_an_arm_without_runs_says_nothing(plan):
    arm = summarise_arm([], CONTROL, plan)
    assert (arm.num_runs, arm.rate, arm.rate_if_missing_diverged) == (0, None, None)


@pytest.mark.parametrize(("num_runs", "provisional"), [(7, True), (8, False)])
def test_few_controls_make_classes_provisional(num_runs, provisional, plan):
    control = Control("ae", CONTROL.scale, num_runs)
    assert summarise_arm(runs("regular"), control, plan).provisional is provisional


def test_scattered_controls_make_classes_exploratory(plan):
    control = Control("ae", ControlScale(16.0, 0.2), num_runs=8)
    assert summarise_arm(runs("regular"), control, plan).exploratory
    assert not summarise_arm(runs("regular"), CONTROL, plan).exploratory
