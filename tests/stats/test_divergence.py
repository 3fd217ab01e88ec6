import math

import pytest

from tests.examples import ARTICLE, CELEBA
from vaehpc.schema.config import ModelConfig
from vaehpc.schema.results import CourseMark, RunCourse
from vaehpc.stats.divergence import (
    ArmEnds,
    ControlScale,
    article_scale,
    classify,
    control_scale,
    is_displaced,
    is_exploratory,
)

VAE = ARTICLE["vae-tiny"]
SCALE = ControlScale(centre=16.75, scatter=0.05)


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


@pytest.mark.parametrize(
    "changes", [{"synthetic": True}, {"photographs": True}, {"image_size": 64}, {"num_train": 20_000}]
)
def test_the_articles_radius_serves_no_other_data(changes, plan):
    assert article_scale(VAE, CELEBA.model_copy(update=changes), plan.classes) is None


def test_the_articles_radius_serves_no_other_net(plan):
    narrow = VAE.model_copy(update={"model": ModelConfig(z_dim=128)})
    assert article_scale(narrow, CELEBA, plan.classes) is None


@pytest.mark.parametrize(
    "train",
    [
        *({"learning_rate": 1e-3}, {"epochs": 6}, {"batch_size": 64}, {"beta_1": 0.5}, {"beta_2": 0.99}),
        *({"adam_epsilon": 1e-3}, {"weight_decay": 0.01}),
    ],
    ids=" ".join,
)
def test_the_articles_radius_serves_no_other_training(train, plan):
    other = VAE.model_copy(update={"train": VAE.train.model_copy(update=train)})
    assert article_scale(other, CELEBA, plan.classes) is None


def test_the_articles_radius_serves_no_other_kl_loss_but_the_ae(plan):
    other = VAE.model_copy(update={"vae": VAE.vae.model_copy(update={"kl_weight": 5.0})})
    assert article_scale(other, CELEBA, plan.classes) is None
    assert article_scale(VAE.model_copy(update={"vae": None}), CELEBA, plan.classes) == SCALE


def ends(radius=40.0, num_finite=8, share_far=1.0):
    return ArmEnds(radius, num_finite, share_far)


FAR = RunCourse(first_step=350, far=True)


def test_a_run_beyond_the_limit_from_the_start_with_its_arm_is_displaced(plan):
    assert is_displaced(40.0, FAR, ends(), plan.classes)
    assert classify(40.0, False, SCALE, plan.classes, displaced=True) == "displaced"
    assert classify(20.0, False, SCALE, plan.classes, displaced=True) == "shifted"


@pytest.mark.parametrize(
    ("course", "of_arm"),
    [
        (RunCourse(first_step=350, far=False), ends()),
        (RunCourse(first_step=350, far=None), ends()),
        (RunCourse(far=True, marks=(CourseMark(kind="jump", step=400, after=350, factor=2),)), ends()),
        (FAR, ends(num_finite=3)),
        (FAR, ends(share_far=0.49)),
        (FAR, ends(radius=61.0)),
        (FAR, ends(radius=26.0)),
    ],
    ids=["near", "unknown", "jumped", "few", "alone", "far below its arm", "far above its arm"],
)
def test_else_it_has_diverged(course, of_arm, plan):
    assert not is_displaced(40.0, course, of_arm, plan.classes)


def test_an_excursion_does_not_make_it_diverged(plan):
    marks = (CourseMark(kind="excursion", step=400, after=350, factor=2),)
    assert is_displaced(40.0, RunCourse(far=True, marks=marks), ends(share_far=0.5), plan.classes)
