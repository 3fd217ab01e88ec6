import math
from dataclasses import replace

import pytest
from test_summary import AE, VAE, measured, study

from tests.examples import probe_curve
from vaehpc.stats.judging import judge
from vaehpc.stats.runs import MissingRun

CLIPPED = AE.model_copy(update={"name": "ae-clip", "train": AE.train.model_copy(update={"clipnorm": 100.0})})
FIRST = 1350
"""Steps done at the first probe after the burn-in, one epoch of the article's 1,329 steps."""


def run(arm, seed, plan, radius=16.0, course=None, **given):
    """A run whose probe, every 50 steps up to 2,000, is at R = 16 and ends at `radius`, or follows `course` by step."""
    radii = dict.fromkeys(range(50, 2001, 50), 16.0) | dict.fromkeys(range(1700, 2001, 50), radius)
    radii = {step: (course or {}).get(step, value) for step, value in radii.items()}
    return replace(measured(arm, seed, plan, radius, step=2000, **given), probe=probe_curve(radii))


def from_start(radius):
    return dict.fromkeys(range(50, 2001, 50), radius)


def judged(plan, runs, *arms, **changes):
    config = study(plan, *(arms or (AE, VAE)), num_seeds=16)
    return judge(config, runs, plan.model_copy(update=changes))


def controls(plan, num_runs=8, arm=AE):
    return [run(arm, seed, plan) for seed in range(num_runs)]


def classes(judgement, arm="vae-tiny"):
    return [run_class for name, run_class in judgement.classes.items() if name.startswith(f"{arm}-seed")]


def faults(plan, *odd, num_sound=6):
    found = judged(plan, [*controls(plan, num_sound), *odd])
    return found.controls["vae-tiny"].faults


# Sound controls


def test_a_control_whose_runs_stay_is_sound(plan):
    control = judged(plan, controls(plan)).controls["vae-tiny"]
    assert (control.name, control.is_sound, control.num_runs) == ("ae", True, 8)
    assert control.taken_away is control.shared


def test_a_control_that_ends_beyond_its_limits_or_grows_is_not(plan):
    slow = {step: min(16 * 1.1 ** ((step - 1350) / 50), 33.0) for step in range(1400, 2001, 50)}
    assert faults(plan, run(AE, 6, plan, 40.0)) == {"ae-seed006": "diverged"}
    assert faults(plan, run(AE, 6, plan, 7.0)) == {"ae-seed006": "collapsed"}
    assert faults(plan, run(AE, 6, plan, 31.0, slow)) == {"ae-seed006": "grew"}


def test_few_that_jumped_and_came_back_or_became_nan_move_no_median(plan):
    there_and_back = dict.fromkeys(range(1500, 1700, 50), 30.0)
    assert faults(plan, run(AE, 6, plan, course=there_and_back), num_sound=6) == {"ae-seed006": "jumped"}  # of 7
    assert faults(plan, run(AE, 7, plan, course=there_and_back), num_sound=7) == {}  # of 8
    two = [run(AE, seed, plan, nonfinite_step=1600) for seed in (7, 8)]
    assert faults(plan, two[0], num_sound=7) == {}
    assert faults(plan, *two, num_sound=7) == {"ae-seed007": "nonfinite", "ae-seed008": "nonfinite"}


def test_bimodal_controls_are_not_sound(plan):
    runs = [run(AE, seed, plan, course=from_start(radius), radius=radius) for seed, radius in enumerate([8, 40] * 4)]
    control = judged(plan, runs).controls["vae-tiny"]
    assert not control.is_sound
    assert len(control.taken_away.steps) == 0


def test_without_a_sound_control_nothing_is_taken_away(plan):
    growing = {step: 4.0 * (1 if step < 1500 else 1.3 ** min((step - 1450) / 50, 4)) for step in range(50, 2001, 50)}
    vae = run(VAE, 0, plan, growing[2000], growing)
    of_sound = judged(plan, [run(AE, seed, plan, growing[2000], growing) for seed in range(8)] + [vae])
    of_none = judged(plan, [vae])
    assert of_sound.courses["vae-tiny-seed000"].marks == ()
    assert [mark.kind for mark in of_none.courses["vae-tiny-seed000"].marks] == ["jump"]


def test_a_single_control_is_not_hidden_by_itself(plan):
    """Less itself nothing would be left of any jump."""
    alone = judged(plan, [run(AE, 0, plan, 40.0)])
    assert alone.controls["ae"].faults == {"ae-seed000": "jumped"}
    assert [mark.kind for mark in alone.courses["ae-seed000"].marks] == ["jump"]


def test_nor_by_runs_that_never_began(plan):
    begins = [run.config for run in controls(plan, 4)]
    waiting = [MissingRun(config, "train", None, probe_curve({})) for config in begins[1:]]
    assert judged(plan, [run(AE, 0, plan, 40.0), *waiting]).controls["ae"].faults == {"ae-seed000": "jumped"}


# Far from the start


@pytest.mark.parametrize(("radius", "is_far"), [(33.0, True), (32.0, False), (20.0, False)])
def test_far_is_beyond_twice_the_control(radius, is_far, plan):
    runs = [*controls(plan), run(VAE, 0, plan, radius, from_start(radius)), *(run(VAE, seed, plan) for seed in (1, 2))]
    assert judged(plan, runs).courses["vae-tiny-seed000"].far is is_far


def test_or_beyond_one_and_a_half_times_it_as_its_arm(plan):
    runs = [*controls(plan), *(run(VAE, seed, plan, 25.0, from_start(25.0)) for seed in range(3))]
    assert [judged(plan, runs).courses[f"vae-tiny-seed00{seed}"].far for seed in range(3)] == [True] * 3


def test_an_arm_that_lies_elsewhere_has_displaced_runs(plan):
    radii = [38, 40, 41, 43, 30]  # the last one is shifted
    runs = [*controls(plan), *(run(VAE, seed, plan, radius, from_start(radius)) for seed, radius in enumerate(radii))]
    assert classes(judged(plan, runs)) == ["displaced"] * 4 + ["shifted"]


def test_early_and_scattered_runs_have_diverged(plan):
    radii = [34, 80, 200, 500, 1200, 16, 16, 16]
    runs = [*controls(plan), *(run(VAE, seed, plan, radius, from_start(radius)) for seed, radius in enumerate(radii))]
    assert classes(judged(plan, runs))[:5] == ["diverged"] * 5


def test_three_runs_are_too_few_to_lie_elsewhere(plan):
    runs = [*controls(plan), *(run(VAE, seed, plan, 40.0, from_start(40.0)) for seed in range(3))]
    assert classes(judged(plan, runs)) == ["diverged"] * 3


def test_a_run_without_a_radius_after_the_burn_in_is_not_far(plan):
    lost = {FIRST: math.inf} | dict.fromkeys(range(FIRST + 50, 2001, 50), math.nan)
    blank = {FIRST: math.nan}
    odd = [run(VAE, 0, plan, nonfinite_step=FIRST, course=lost), run(VAE, 1, plan, 66.0, course=blank)]
    courses = judged(plan, [*controls(plan), *odd]).courses
    assert [courses[f"vae-tiny-seed00{seed}"].far for seed in (0, 1)] == [None, None]


def test_without_a_control_nobody_knows(plan):
    found = judged(
        plan, [run(VAE, 0, plan, 40.0)], VAE.model_copy(update={"model": VAE.model.model_copy(update={"z_dim": 8})})
    )
    assert found.courses["vae-tiny-seed000"].far is None
    assert classes(found) == ["unclassified"]


# Courses that are cut


def test_a_cut_probe_leaves_the_class_and_hides_the_course(plan):
    whole = run(VAE, 0, plan, 40.0)
    cut = whole.__class__(
        **{**vars(whole), "probe": probe_curve(from_start(16.0) and {50: 16.0, 100: 16.0, 150: 16.0})}
    )
    found = judged(plan, [*controls(plan), cut])
    assert found.courses["vae-tiny-seed000"].unknown_after == 150
    assert classes(found) == ["diverged"]
    assert judged(plan, [*controls(plan), whole]).courses["vae-tiny-seed000"].unknown_after is None


def test_a_run_that_became_nan_was_seen_to_its_end(plan):
    lost = run(VAE, 0, plan, nonfinite_step=163)
    seen = replace(lost, probe=probe_curve({50: 16.0, 100: 16.0, 150: 16.0}))
    found = judged(plan, [*controls(plan), seen])
    assert found.courses["vae-tiny-seed000"].unknown_after is None
    assert classes(found) == ["nonfinite"]


def test_a_missing_run_has_a_course_and_no_class(plan):
    config = study(plan, AE, VAE, num_seeds=16)
    lost = next(each for each in config.runs() if each.name == "vae-tiny-seed003")
    jumped = probe_curve({step: 16.0 if step < 1500 else 66.0 for step in range(50, 1801, 50)})
    found = judged(plan, [*controls(plan), MissingRun(lost, "train", None, jumped)])
    assert found.classes["vae-tiny-seed003"] is None
    assert [mark.step for mark in found.courses["vae-tiny-seed003"].marks] == [1500]
    assert judged(plan, [MissingRun(lost, "train", None)]).courses["vae-tiny-seed003"].marks == ()


# A control that the plan names


def test_the_plan_may_name_a_control_that_clips(plan):
    runs = [*controls(plan, arm=CLIPPED), *(run(AE, seed, plan, 60.0) for seed in range(4)), run(VAE, 0, plan, 60.0)]
    named = plan.model_copy(update={"classes": plan.classes.model_copy(update={"control": "ae-clip"})})
    config = study(named, AE, CLIPPED, VAE, num_seeds=16)
    found = judge(config, runs, named)
    assert {arm: control.name for arm, control in found.controls.items()} == dict.fromkeys(config.arms, "ae-clip")
    assert found.controls["vae-tiny"].is_sound
    assert [found.classes[f"ae-seed00{seed}"] for seed in range(4)] == ["diverged"] * 4
    assert study(plan, AE, CLIPPED, VAE).control_of("vae-tiny") == "ae"
    assert study(plan, CLIPPED, VAE).control_of("vae-tiny") is None


def test_nan_at_the_end_is_of_no_control(plan):
    runs = [run(AE, 0, plan), run(AE, 1, plan, math.nan, statistics={"num_nonfinite": 3})]
    assert judged(plan, runs).controls["ae"].num_runs == 1


def test_the_burn_in_is_the_longer_of_steps_and_epochs(plan):
    (of_run, *_) = study(plan, AE).runs()  # 1,329 steps an epoch

    def burn_in(**changes):
        probe = plan.probe.model_copy(update=changes)
        return of_run.model_copy(update={"plan": plan.model_copy(update={"probe": probe})}).burn_in

    assert burn_in() == 1329
    assert burn_in(burn_in_steps=2000) == 2000
    assert burn_in(burn_in_epochs=0.0) == 300
    assert burn_in(burn_in_epochs=0.5) == 665
