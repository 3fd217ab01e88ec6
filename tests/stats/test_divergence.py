import math

import pytest

from tests.examples import ARTICLE, CELEBA, probe_curve
from vaehpc.schema.config import ModelConfig
from vaehpc.stats.divergence import (
    ControlScale,
    article_scale,
    classify,
    control_scale,
    divergence_limit,
    ever_diverged,
    is_exploratory,
    onset,
)

VAE = ARTICLE["vae-tiny"]
SCALE = ControlScale(centre=16.75, scatter=0.05)
STEPS_PER_EPOCH = 100
LIMIT = 33.5


def curve(*radius_medians):
    return probe_curve({50 * number: radius for number, radius in enumerate(radius_medians, start=1)})


def settled_curve(*radius_medians):
    """Six probes at R = 16 within the burn-in of 300 steps, then these at 350, 400, ..."""
    return curve(*[16] * 6, *radius_medians)


@pytest.mark.parametrize(
    ("radius", "expected"),
    [
        (16.0, "regular"),
        (17.37, "regular"),
        (19.75, "shifted"),
        (33.5, "shifted"),
        (math.nextafter(33.5, 34), "diverged"),
        (66.0, "diverged"),
        (14.0, "shifted"),
        (8.375, "shifted"),
        (math.nextafter(8.375, 8), "collapsed"),
        (0.0, "collapsed"),
    ],
)
def test_the_articles_radii(radius, expected, plan):
    assert classify(radius, nonfinite=False, scale=SCALE, plan=plan.classes) == expected


def test_nonfinite_comes_first_and_no_scale_next(plan):
    assert classify(66.0, nonfinite=True, scale=SCALE, plan=plan.classes) == "nonfinite"
    assert classify(math.nan, nonfinite=True, scale=None, plan=plan.classes) == "nonfinite"
    assert classify(66.0, nonfinite=False, scale=None, plan=plan.classes) == "unclassified"


def test_scattered_controls_widen_the_limit_of_shifted(plan):
    radius = 16.75 * math.exp(0.2)
    assert classify(radius, False, ControlScale(16.75, 0.06), plan.classes) == "shifted"
    assert classify(radius, False, ControlScale(16.75, 0.07), plan.classes) == "regular"
    assert classify(radius, False, ControlScale(16.75, 0.01), plan.classes) == "shifted"
    assert classify(16.75 * math.exp(0.13), False, ControlScale(16.75, 0.01), plan.classes) == "regular"


def test_scale_of_controls(plan):
    scale = control_scale([16.0 * math.exp(d) for d in (-0.3, -0.1, 0.0, 0.1, 5.0)], plan.classes)
    assert scale is not None
    assert scale.centre == pytest.approx(16.0)
    assert scale.scatter == pytest.approx(1.4826 * 0.1)


def test_equal_controls_have_the_least_scatter_allowed(plan):
    assert control_scale([16.0] * 8, plan.classes) == ControlScale(centre=pytest.approx(16.0), scatter=0.05)


def test_an_even_number_of_controls_is_centred_on_the_geometric_mean(plan):
    scale = control_scale([10.0, 40.0], plan.classes)
    assert scale is not None
    assert scale.centre == pytest.approx(20.0)


@pytest.mark.parametrize("radii", [[], [0.0]])
def test_no_usable_control(radii, plan):
    assert control_scale(radii, plan.classes) is None


def test_exploratory_beyond_the_plans_scatter(plan):
    assert not is_exploratory(ControlScale(16.0, 0.115), plan.classes)
    assert is_exploratory(ControlScale(16.0, 0.116), plan.classes)
    assert not is_exploratory(None, plan.classes)


def test_the_articles_radius_serves_its_own_data_and_net(plan):
    assert article_scale(VAE, CELEBA, plan.classes) == SCALE


@pytest.mark.parametrize("changes", [{"synthetic": True}, {"image_size": 64}, {"num_train": 20_000}])
def test_the_articles_radius_serves_no_other_data(changes, plan):
    assert article_scale(VAE, CELEBA.model_copy(update=changes), plan.classes) is None


def test_the_articles_radius_serves_no_other_net(plan):
    narrow = VAE.model_copy(update={"model": ModelConfig(z_dim=128)})
    assert article_scale(narrow, CELEBA, plan.classes) is None


def test_limit_is_twice_the_centre(plan):
    assert divergence_limit(SCALE, plan.classes) == LIMIT
    assert divergence_limit(None, plan.classes) is None


def test_a_jump_is_abrupt(plan):
    assert onset(settled_curve(16, 16, 24.5, 66), LIMIT, STEPS_PER_EPOCH, plan.probe) == (450, "abrupt")


def test_a_slow_growth_is_a_drift(plan):
    assert onset(settled_curve(18, 22, 27, 33.5, 34, 40), LIMIT, STEPS_PER_EPOCH, plan.probe) == (550, "drift")


def test_a_jump_beyond_the_limit_is_abrupt(plan):
    assert onset(settled_curve(16, 66), LIMIT, STEPS_PER_EPOCH, plan.probe) == (400, "abrupt")


def test_one_and_a_half_times_is_not_yet_a_jump(plan):
    assert onset(settled_curve(16, 24, 24), LIMIT, STEPS_PER_EPOCH, plan.probe) is None


def test_without_a_limit_only_jumps_are_seen(plan):
    assert onset(settled_curve(20, 25, 30, 40), None, STEPS_PER_EPOCH, plan.probe) is None
    assert onset(settled_curve(16, 30), None, STEPS_PER_EPOCH, plan.probe) == (400, "abrupt")


def test_nothing_counts_within_the_burn_in(plan):
    early = curve(5, 66, 16, 16, 16, 70, 16, 16)  # 70 at step 300, the last of the burn-in
    assert onset(early, LIMIT, STEPS_PER_EPOCH, plan.probe) is None
    assert ever_diverged(early, 16.0, LIMIT, STEPS_PER_EPOCH, plan.probe) is False


def test_a_long_epoch_prolongs_the_burn_in(plan):
    late = settled_curve(16, 66, 66)
    assert onset(late, LIMIT, 400, plan.probe) == (450, "drift")
    assert onset(late, LIMIT, 450, plan.probe) is None


def test_a_run_that_came_back_has_diverged_once(plan):
    assert ever_diverged(settled_curve(16, 66, 16), 16.0, LIMIT, STEPS_PER_EPOCH, plan.probe) is True
    assert ever_diverged(settled_curve(16, 33.5, 16), 16.0, LIMIT, STEPS_PER_EPOCH, plan.probe) is False


def test_the_end_counts_too(plan):
    assert ever_diverged(settled_curve(), 66.0, LIMIT, STEPS_PER_EPOCH, plan.probe) is True
    assert ever_diverged(settled_curve(), math.nan, LIMIT, STEPS_PER_EPOCH, plan.probe) is False


def test_without_a_limit_nobody_knows(plan):
    assert ever_diverged(settled_curve(66), 66.0, None, STEPS_PER_EPOCH, plan.probe) is None


def test_no_probe_no_onset(plan):
    assert onset(curve(), LIMIT, STEPS_PER_EPOCH, plan.probe) is None


def test_nan_is_no_onset(plan):
    assert onset(settled_curve(16, math.nan, math.nan), LIMIT, STEPS_PER_EPOCH, plan.probe) is None
