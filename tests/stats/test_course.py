import math
from dataclasses import replace

import numpy as np
import pytest
from courses import COURSES, EVERY

from tests.examples import ARTICLE, CELEBA, measured_run, probe_curve, run_config
from vaehpc.stats.course import NOTHING_SHARED, SharedCourse, follow
from vaehpc.stats.divergence import Control, ControlScale
from vaehpc.stats.judging import followed as followed_arm

BURN_IN = 300
KINDS = ("jump", "growth", "excursion", "unconfirmed")
LIMIT = 32.0


def curve(*radii, start=50):
    """Every 50 steps."""
    return probe_curve({start + 50 * number: radius for number, radius in enumerate(radii)})


def settled(*radii):
    """Six probes at R = 16 within the burn-in, then these at 350, 400, ..."""
    return curve(*[16] * 6, *radii)


def followed(plan, found, shared=NOTHING_SHARED, limit=LIMIT, is_far=False, burn_in=BURN_IN):
    limits = None if limit is None else np.full(len(found.steps), limit)
    return follow(found, shared, limits, is_far, burn_in, plan)


def marks(plan, found, **given):
    return [(mark.kind, mark.step) for mark in followed(plan, found, **given).marks]


def with_course(plan, **changes):
    return plan.model_copy(update={"course": plan.course.model_copy(update=changes)})


@pytest.mark.parametrize(
    ("radii", "expected"),
    [
        ([16, 16, 24.5, 66, 66, 66, 66], [("jump", 450)]),
        ([66, 66, 66, 66, 66], [("jump", 350)]),
        ([16, 24, 24, 24, 24, 24], []),  # a tie is none
        ([16, 24.1, 24.1, 24.1, 24.1, 24.1], [("jump", 400)]),
        ([17, 19, 21, 23, 25, 27, 29, 31], []),  # as slow as that nothing leaves
        ([8, 16, 16, 16, 16, 16, 16], []),  # a dip of one probe
        ([66, 16, 16, 16, 16, 16], [("excursion", 350)]),
        ([66, 60, 16, 16, 16, 16], [("excursion", 350)]),
        ([66, 16, 16, 16, 70, 16, 16, 16, 16], [("excursion", 350), ("excursion", 550)]),
        ([40, 40, 40, 16, 16, 16, 16, 16], [("jump", 350)]),  # three of five: it came back
        ([16, 40, 40, 40, 40, 40, 90, 90, 90, 90, 90], [("jump", 400), ("jump", 650)]),
        ([16, 16, 16, 16, 66], [("unconfirmed", 550)]),
        ([16, 16, 16, 66, 66], [("jump", 500)]),  # of all that are left
        ([16, 16, 16, 66, 16], [("excursion", 500)]),  # more than half of them
        ([70, 12, 16, 16, 30, 31, 30, 31], [("excursion", 350), ("jump", 550)]),
    ],
)
def test_jumps_and_excursions(radii, expected, plan):
    assert marks(plan, settled(*radii), limit=None) == expected


def test_the_factor_is_that_of_the_base(plan):
    (mark,) = followed(plan, settled(16, 48, 48, 48, 48, 48), limit=None).marks
    assert (mark.factor, mark.after, mark.gap) == (pytest.approx(3.0), 350, False)


def test_nothing_counts_within_the_burn_in(plan):
    early = curve(5, 66, 16, 16, 16, 70, 16, 16)  # 70 at step 300, the last of the burn-in
    assert followed(plan, early).marks == ()
    assert followed(plan, early).first_step == 350
    assert followed(plan, early, burn_in=400).first_step is None
    assert marks(plan, curve(16, 16, 16, 48, 48, 48, 48, 48), limit=None, burn_in=150) == [("jump", 200)]


def test_a_base_needs_three_probes_that_are_not_too_old(plan):
    assert marks(plan, curve(16, 16, 48, 48, 48, 48, 48), limit=None, burn_in=200) == []
    late = probe_curve({50: 16, 100: 16, 150: 16, 700: 48, 750: 48, 800: 48, 850: 48, 900: 48})
    assert marks(plan, late, limit=None) == []
    gap = probe_curve({50: 16, 100: 16, 150: 16, 550: 48, 600: 48, 650: 48, 700: 48, 750: 48})
    (mark,) = followed(plan, gap, limit=None).marks
    assert (mark.kind, mark.after, mark.step, mark.gap) == ("jump", 150, 550, True)


def test_growth_that_the_control_shares_is_none(plan):
    growing = curve(*(4 * 1.3**number for number in range(14)))
    assert [kind for kind, _ in marks(plan, growing, limit=None)] == ["jump"]
    shared = SharedCourse.of([curve(*(5 * 1.3**number for number in range(14)))] * 3)
    assert marks(plan, growing, shared=shared, limit=None) == []


@pytest.mark.parametrize(
    ("radii", "expected"),
    [
        ([20, 24, 28, 31, 33, 35, 37], [("growth", 550)]),
        ([20, 24, 28, 32, 32, 32, 32], []),
        ([20, 24, 28, 31, 33, 35, 31], []),  # two running
        ([20, 24, 28, 31, 35], [("growth", 550)]),  # all that are left
        ([20, 24, 40, 40, 40, 40, 40], [("jump", 450)]),  # a jump comes first
        ([16, 16, 16, 66], [("unconfirmed", 500)]),  # and one that the last probe alone saw is no growth
    ],
)
def test_growth_beyond_the_limit(radii, expected, plan):
    assert marks(plan, settled(*radii)) == expected


def test_a_run_that_was_far_from_the_start_does_not_grow_but_may_jump(plan):
    far = followed(plan, curve(*[40] * 12), is_far=True)
    assert (far.far, far.marks) == (True, ())
    assert marks(plan, curve(*[40] * 8, *[90] * 5), is_far=True) == [("jump", 450)]


def test_a_jump_at_the_first_probe_is_no_start(plan):
    assert followed(plan, settled(*[66] * 6), is_far=True).far is False


def test_what_is_not_finite_ends_the_course(plan):
    assert marks(plan, settled(16, math.nan, 66, 66, 66, 66), limit=None) == []
    assert marks(plan, settled(16, 0.0, 66, 66, 66, 66), limit=None) == []
    assert followed(plan, curve()).marks == ()
    assert followed(plan, curve(math.nan)).first_step is None


def test_every_number_is_the_plans(plan):
    found = settled(16, 23, 23, 23, 23, 23)
    assert marks(with_course(plan, jump_factor=1.4), found, limit=None) == [("jump", 400)]
    assert marks(with_course(plan, lasting_probes=1), settled(66, 16, 16, 16, 16), limit=None) == [("jump", 350)]
    dip = settled(8, 8, 8, 8, 16, 16, 16, 16, 16)
    assert marks(plan, dip, limit=None) == [("jump", 550)]
    assert marks(with_course(plan, base_rank=1), dip, limit=None) == []
    assert marks(with_course(plan, base_probes=6), dip, limit=None) == []
    assert marks(with_course(plan, min_base_probes=6), settled(66, 66, 66, 66, 66), limit=None) == []
    assert marks(with_course(plan, base_intervals=2), settled(66, 66, 66, 66, 66), limit=None) == []
    assert marks(with_course(plan, growth_probes=1), settled(20, 24, 28, 31, 33, 31)) == [("growth", 550)]


# What the control's runs share


def test_the_shared_course_is_the_median_of_those_that_were_probed():
    shared = SharedCourse.of([curve(4, 8), curve(16, 8), curve(1, 8, 9), curve(math.nan, 0.0)])
    assert shared.steps.tolist() == [50, 100, 150]
    assert np.exp(shared.log_radii) == pytest.approx([4, 8, 9])


def test_between_its_probes_it_is_that_of_the_last_one():
    shared = SharedCourse.of([probe_curve({100: 4, 200: 8})])
    assert np.exp(shared.at(np.array([50, 100, 150, 200, 900]))) == pytest.approx([4, 4, 4, 8, 8])
    assert NOTHING_SHARED.at(np.array([50, 100])).tolist() == [0, 0]


# Courses that were written down from the rules alone


@pytest.mark.parametrize("told", COURSES, ids=lambda told: told.name)
def test_a_course_is_told_as_the_rules_say(told, plan):
    """But that a run which jumped at its first probe was not far before."""
    found = probe_curve({EVERY * i: radius for i, radius in enumerate(told.radii, start=1) if radius is not None})
    control = Control(None, None, 0)
    if told.control is not None:
        shared = SharedCourse.of([probe_curve({EVERY * i: radius for i, radius in enumerate(told.control, start=1)})])
        control = Control("ae", ControlScale(told.control[-1], 0.05), 8, shared)
    of_plan = plan.probe.model_copy(update={"burn_in_steps": told.burn_in, "burn_in_epochs": 0.0})
    planned = plan.model_copy(update={"probe": of_plan})
    run = run_config(arm=ARTICLE["vae-tiny"], data=CELEBA, plan=planned)
    num_steps = EVERY * len(told.radii)
    ended = replace(measured_run(run, step=num_steps, nonfinite_step=told.nonfinite_step), probe=found)
    other = replace(ended, config=run.model_copy(update={"seed": 4}), probe=curve(*[told.arm or 16.0] * 12))
    others = [] if told.arm is None else [other, replace(other, config=run.model_copy(update={"seed": 5}))]
    course = followed_arm([ended, *others], control, control.taken_away, planned)[run.name]
    steps = {kind: [mark.step for mark in course.marks if mark.kind == kind] for kind in KINDS}
    assert tuple(steps["excursion"]) == told.excursions
    assert [next(iter(steps[kind]), None) for kind in ("jump", "growth", "unconfirmed")] == [
        told.jump,
        told.growth,
        told.unconfirmed,
    ]
    assert (course.far is True) == (told.far and told.jump != course.first_step)
    assert course.unknown_after == told.unknown_after
    gaps = [(mark.after, mark.step) for mark in course.marks if mark.gap and mark.kind in ("jump", "growth")]
    assert next(iter(gaps), None) == told.left_between
