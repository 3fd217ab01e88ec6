import pytest
from test_rates import CONTROL, runs

from vaehpc.stats.rates import summarise_arm
from vaehpc.stats.sensitivity import sensitivity


def at(*radii):
    """One run per radius, with control runs at R = 16; None is missing."""
    classes = [None if radius is None else "regular" for radius in radii]
    return [run.model_copy(update={"radius_median": radius}) for run, radius in zip(runs(*classes), radii, strict=True)]


def test_counts_move_with_the_limits(plan):
    """R / 16 of 1.1, 1.17, 1.7, 2.2, 3.5 and 0.6, and a missing run."""
    rows = sensitivity(at(17.6, 18.7, 27.2, 35.2, 56.0, 9.6, None), CONTROL.scale, plan)
    counted = {
        (row.diverged_factor, row.shifted_limit): (
            row.num_diverged, row.num_collapsed, row.num_shifted, row.num_regular
        )
        for row in rows
    }  # fmt: skip
    # The limit of 0.10 is never below 3 s = 0.15.
    assert counted == {
        (1.5, 0.10): (3, 1, 1, 1), (1.5, 0.14): (3, 1, 1, 1), (1.5, 0.20): (3, 1, 0, 2),
        (2.0, 0.10): (2, 0, 3, 1), (2.0, 0.14): (2, 0, 3, 1), (2.0, 0.20): (2, 0, 2, 2),
        (3.0, 0.10): (1, 0, 4, 1), (3.0, 0.14): (1, 0, 4, 1), (3.0, 0.20): (1, 0, 3, 2),
    }  # fmt: skip
    assert [(row.diverged_factor, row.shifted_limit) for row in rows if row.is_planned] == [(2.0, 0.14)]


def test_the_planned_row_is_the_headline(plan):
    of_arm = runs("diverged", "diverged", "nonfinite", "regular", None)
    radii = {"diverged": 66.0, "regular": 16.0, "nonfinite": None, None: None}
    of_arm = [run.model_copy(update={"radius_median": radii[run.run_class]}) for run in of_arm]
    arm = summarise_arm(of_arm, CONTROL, plan)
    (row,) = [row for row in sensitivity(of_arm, CONTROL.scale, plan) if row.is_planned]
    assert (row.num_diverged, row.interval.low, row.interval.high) == (arm.num_diverged, arm.low, arm.high)
    assert (row.num_collapsed, row.num_regular) == (0, 1)


@pytest.mark.parametrize("scale", [None, CONTROL.scale])
def test_nothing_is_counted_without_a_scale_or_a_run(scale, plan):
    assert sensitivity(runs(None), CONTROL.scale, plan) == ()
    assert bool(sensitivity(at(16.0), scale, plan)) == (scale is not None)
