import math

import pytest

from tests.examples import REPLAY, probe_curve
from vaehpc.schema.results import VARIANTS
from vaehpc.stats.intervals import clopper_pearson
from vaehpc.stats.replay import (
    CAUSES,
    Window,
    decide,
    factor_limit,
    farthest_radius,
    first_jump,
    fork_jumped,
    is_jump,
    least_repeats,
    outcome_of_draws,
    outcome_of_equals,
    repeats_to_decide,
    window,
)

LEVEL = 0.95
NUM_STEPS = 2030
STEPS_PER_EPOCH = 100


def curve(jumps_at=None, to=66.0, num_probes=40):
    """Probes at 50, 100, ...: R = 16, and from one step on another radius."""
    return probe_curve(
        {step: to if step >= (jumps_at or math.inf) else 16.0 for step in range(50, 50 * num_probes + 1, 50)}
    )


def replay(calm=16.0, jumped=64.0):
    return REPLAY.model_copy(update={"calm_radius": calm, "jumped_radius": jumped})


# When the source run jumped


def test_a_trigger_is_followed_for_a_hundred_steps_to_the_next_probe(plan):
    assert window(curve(), 900, 1000, NUM_STEPS, plan.probe) == Window(
        calm_step=1000, calm_radius=16.0, until_step=1100
    )
    assert window(curve(), 900, 1001, NUM_STEPS, plan.probe) == Window(
        calm_step=1000, calm_radius=16.0, until_step=1150
    )
    assert window(curve(), 900, 999, NUM_STEPS, plan.probe) == Window(calm_step=950, calm_radius=16.0, until_step=1100)


def test_no_probe_is_awaited_beyond_the_end(plan):
    assert window(curve(), 1900, 1960, NUM_STEPS, plan.probe) == Window(
        calm_step=1950, calm_radius=16.0, until_step=2000
    )
    assert window(curve(), 1900, 2010, NUM_STEPS, plan.probe) is None


def test_without_a_cause_the_rest_of_the_training_is_looked_at(plan):
    assert window(curve(), 920, None, NUM_STEPS, plan.probe) == Window(calm_step=900, calm_radius=16.0, until_step=2000)
    assert window(curve(), 2000, None, NUM_STEPS, plan.probe) is None


def test_a_start_before_the_first_probe_has_no_calm_radius(plan):
    assert window(curve(), 0, None, NUM_STEPS, plan.probe) is None
    assert window(curve(), 50, None, NUM_STEPS, plan.probe) == Window(calm_step=50, calm_radius=16.0, until_step=2000)


def test_an_onset_is_found_after_the_start_only(plan):
    assert first_jump(curve(jumps_at=1000), 900, STEPS_PER_EPOCH, plan.probe) == 999
    assert first_jump(curve(jumps_at=1000), 975, STEPS_PER_EPOCH, plan.probe) == 999
    assert first_jump(curve(jumps_at=1000), 1000, STEPS_PER_EPOCH, plan.probe) is None
    assert first_jump(curve(), 900, STEPS_PER_EPOCH, plan.probe) is None


def test_the_probe_before_an_onset_is_calm_and_it_is_followed_for_a_hundred_steps(plan):
    jumping = curve(jumps_at=1000)
    cause = first_jump(jumping, 900, STEPS_PER_EPOCH, plan.probe)
    assert window(jumping, 900, cause, NUM_STEPS, plan.probe) == Window(
        calm_step=950, calm_radius=16.0, until_step=1100
    )


# Jumps


AROUND = Window(calm_step=950, calm_radius=16.0, until_step=1100)


@pytest.mark.parametrize(
    ("radii", "expected"),
    [
        ((20.0, 66.0, 14.0), 66.0),
        ((66.0, 20.0, 15.9), 66.0),
        ((17.0, 8.0, 16.0), 8.0),
        ((31.9, 8.0, 16.0), 8.0),
        ((32.1, 8.0, 16.0), 32.1),
        ((17.0, 18.0, 18.5), 18.5),
        ((15.0, 14.0, 14.5), 14.0),
        ((17.0, 0.0, 40.0), 0.0),
    ],
)
def test_a_jump_goes_as_far_as_the_farthest_probe(radii, expected):
    first, second, third = radii
    found = probe_curve({900: 99.0, 950: 16.0, 1000: first, 1050: second, 1100: third, 1150: 99.0})
    assert farthest_radius(found, AROUND.calm_step, AROUND.calm_radius, AROUND.until_step) == expected


@pytest.mark.parametrize(
    ("radius", "expected"), [(11.4, True), (11.3, False), (10.0, False), (8.78, False), (8.77, True)]
)
def test_a_run_jumps_up_or_down_by_14_percent(radius, expected):
    assert is_jump(10.0, radius) is expected


def test_the_limit_itself_is_a_jump():
    assert is_jump(1.0, 1.14)
    assert is_jump(1.14, 1.0)


def test_a_fork_jumps_from_half_the_way_on_in_logarithms_up_or_down():
    assert factor_limit(16.0, 64.0) == pytest.approx(2.0)
    assert fork_jumped(32.0, replay())
    assert not fork_jumped(math.nextafter(32.0, 0), replay())
    assert fork_jumped(8.0, replay())
    assert not fork_jumped(8.1, replay())
    assert fork_jumped(0.0, replay())


def test_a_fork_of_a_run_that_collapsed_jumps_as_far():
    for radius in (7.9, 32.1):
        assert fork_jumped(radius, replay(jumped=4.0))
    for radius in (8.1, 31.9):
        assert not fork_jumped(radius, replay(jumped=4.0))


def test_a_fork_that_is_not_finite_jumps():
    assert fork_jumped(None, replay())
    assert fork_jumped(None, replay(jumped=None))


def test_of_a_run_that_was_not_finite_only_such_forks_jump():
    assert not fork_jumped(66.0, replay(jumped=None))


# Outcomes


@pytest.mark.parametrize(
    ("jumps", "repeats", "expected"),
    [
        (0, 5, "undecided"),
        (5, 5, "undecided"),
        (0, 6, "gone"),
        (6, 6, "persists"),
        (5, 20, "gone"),
        (6, 20, "undecided"),
        (10, 20, "undecided"),
        (14, 20, "undecided"),
        (15, 20, "persists"),
    ],
)
def test_the_whole_interval_must_lie_on_one_side(jumps, repeats, expected):
    assert outcome_of_draws(jumps, repeats, num_missing=0, level=LEVEL) == expected


def test_missing_forks_count_where_they_could_change_the_outcome():
    assert outcome_of_draws(0, 20, num_missing=5, level=LEVEL) == "gone"
    assert outcome_of_draws(0, 20, num_missing=6, level=LEVEL) == "undecided"
    assert outcome_of_draws(15, 20, num_missing=5, level=LEVEL) == "persists"
    assert outcome_of_draws(14, 20, num_missing=6, level=LEVEL) == "undecided"
    assert outcome_of_draws(0, 20, num_missing=20, level=LEVEL) == "undecided"


@pytest.mark.parametrize("level", [0.5, 0.9, 0.95, 0.99])
def test_fewest_repeats_that_can_decide(level):
    fewest = least_repeats(level)
    assert clopper_pearson(0, fewest, level).high < 0.5
    assert clopper_pearson(0, fewest - 1, level).high >= 0.5 - 1e-12


def test_six_repeats_are_the_fewest_of_the_plan(plan):
    assert least_repeats(plan.level) == 6


def test_forks_that_do_all_the_same_are_told_by_one():
    assert outcome_of_equals(1, 1, num_missing=0) == "persists"
    assert outcome_of_equals(0, 1, num_missing=0) == "gone"
    assert outcome_of_equals(0, 1, num_missing=1) == "undecided"


def test_three_identical_forks_must_all_jump():
    assert outcome_of_equals(3, 3, num_missing=0) == "persists"
    assert outcome_of_equals(2, 3, num_missing=0) == "gone"
    assert outcome_of_equals(2, 3, num_missing=1) == "undecided"
    assert outcome_of_equals(1, 3, num_missing=1) == "gone"


@pytest.mark.parametrize(("jumps", "repeats"), [(3, 6), (2, 6), (6, 20), (8, 16), (14, 20), (1, 7)])
def test_so_many_repeats_would_decide_and_no_fewer(jumps, repeats):
    total = repeats_to_decide(jumps, repeats, LEVEL)
    added = 1 if 2 * jumps >= repeats else 0
    expected = "persists" if added else "gone"
    assert outcome_of_draws(jumps + added * (total - repeats), total, 0, LEVEL) == expected
    assert outcome_of_draws(jumps + added * (total - 1 - repeats), total - 1, 0, LEVEL) == "undecided"


# The verdict


def outcomes(**changed):
    """Every variant persists but these, whose names are written with underscores."""
    return dict.fromkeys(VARIANTS, "persists") | {name.replace("_", "-"): found for name, found in changed.items()}


@pytest.mark.parametrize(
    ("changed", "verdict"),
    [
        ({"identical": "gone", "noise": "gone"}, "not reproducible"),
        ({"noise": "gone", "epsilon5": "gone"}, "extreme epsilon"),
        ({"noise": "gone"}, "noise, not its extremes"),
        ({"noise": "gone", "epsilon5": "gone", "batches": "gone", "clipped": "gone"}, "extreme epsilon"),
        ({"epsilon5": "gone"}, "the weights themselves"),
        ({"batches": "gone", "without_image": "gone"}, "batch content, image ID"),
        ({"batches": "gone"}, "batch content"),
        ({"without_image": "gone", "clipped": "gone"}, "gradient spike"),
        ({"log_var_clamp": "gone", "clipped": "gone", "fresh_moments": "gone"}, "logvar explosion"),
        ({"clipped": "gone", "fresh_moments": "gone"}, "gradient spike"),
        ({"fresh_moments": "gone"}, "optimizer state"),
        ({}, "the weights themselves"),
    ],
)
def test_the_first_rule_that_applies(changed, verdict):
    assert decide(outcomes(**changed)).verdict == verdict


@pytest.mark.parametrize("open_", ["undecided", "not run"])
@pytest.mark.parametrize(
    ("changed", "at"),
    [
        ({"identical": "?"}, "identical"),
        ({"noise": "?", "clipped": "gone"}, "noise"),
        ({"noise": "gone", "epsilon5": "?"}, "epsilon5"),
        ({"batches": "?"}, "batches"),
        ({"batches": "gone", "without_image": "?"}, "without-image"),
        ({"log_var_clamp": "?", "clipped": "gone"}, "log-var-clamp"),
        ({"clipped": "?"}, "clipped"),
        ({"fresh_moments": "?"}, "fresh-moments"),
    ],
)
def test_an_open_outcome_on_the_way_leaves_it_undecided(changed, at, open_):
    found = decide(outcomes(**{name: open_ if outcome == "?" else outcome for name, outcome in changed.items()}))
    assert (found.verdict, found.asked[-1]) == ("not decided", at)


def test_an_open_outcome_off_the_way_does_not_matter():
    assert decide(outcomes(epsilon5="not run", without_image="not run")).verdict == "the weights themselves"
    assert decide(outcomes(log_var_clamp="gone", clipped="undecided")).verdict == "logvar explosion"


def test_variants_are_asked_in_order():
    assert decide(outcomes(batches="gone")).asked == ("identical", "noise", "batches", "without-image")
    assert decide(outcomes()).asked == ("identical", *(cause.variant for cause in CAUSES))


def test_an_ae_has_neither_noise_nor_log_var():
    of_ae = outcomes(clipped="gone")
    for variant in ("noise", "epsilon5", "log-var-clamp"):
        del of_ae[variant]
    assert decide(of_ae).verdict == "gradient spike"
    assert decide(of_ae).asked == ("identical", "batches", "clipped")
