"""What a plan has tested: known from the arms alone."""

import pytest

from tests.examples import ARTICLE
from vaehpc.schema.config import SpikeConfig
from vaehpc.stats.planned import PlannedContrast, family_size, planned_contrasts

AE, VAE = ARTICLE["ae-nobn"], ARTICLE["vae-tiny"]
AE_BN = VAE.model_copy(update={"name": "ae", "vae": None})
EPS5 = VAE.model_copy(update={"name": "vae-eps5", "vae": VAE.vae.model_copy(update={"epsilon_limit": 5.0})})
SPIKE = VAE.model_copy(update={"name": "spike", "spike": SpikeConfig(kind="gradient", strength=10, steps_before_end=5)})
FROM_AE = VAE.model_copy(update={"name": "vae-from-ae", "start_from": "ae"})


def by_name(*arms):
    return {arm.name: arm for arm in arms}


def with_contrasts(plan, **changes):
    return plan.model_copy(update={"contrasts": plan.contrasts.model_copy(update=changes)})


def test_each_arm_is_tested_against_its_control_and_the_reference(plan):
    assert planned_contrasts(by_name(AE, AE_BN, VAE, EPS5, SPIKE), plan) == [
        PlannedContrast("vae-tiny", "ae", True, "greater"),
        PlannedContrast("vae-eps5", "ae", True, "greater"),
        PlannedContrast("vae-eps5", "vae-tiny", False, "two-sided"),
    ]
    assert [each.reference for each in planned_contrasts(by_name(AE_BN, EPS5), plan)] == ["ae"]
    assert planned_contrasts(by_name(AE, VAE), plan) == []


def test_a_named_control_is_that_of_every_arm_that_differs_in_clipped_gradients(plan):
    clipped = AE_BN.model_copy(update={"name": "ae-clip", "train": AE_BN.train.model_copy(update={"clipnorm": 100.0})})
    named = plan.model_copy(update={"classes": plan.classes.model_copy(update={"control": "ae-clip"})})
    found = [each.name for each in planned_contrasts(by_name(AE_BN, clipped, VAE), named) if each.is_control]
    assert found == ["ae, ae-clip", "vae-tiny, ae-clip"]


def test_a_plan_may_name_two_arms_that_are_not_compared_by_themselves(plan):
    named = with_contrasts(plan, primary=("vae-eps5, vae-tiny", "ae, ae-nobn", "ae-nobn, ae-nobn"))
    other = AE_BN.model_copy(update={"name": "ae-nobn", "model": AE_BN.model.model_copy(update={"batch_norm": False})})
    found = planned_contrasts(by_name(AE_BN, other, VAE, EPS5), named)
    assert [each.name for each in found if not each.exploratory] == ["vae-eps5, vae-tiny", "ae, ae-nobn"]
    assert found[-1] == PlannedContrast("ae", "ae-nobn", False, "two-sided")
    turned = with_contrasts(plan, primary=("ae, vae-tiny",))
    assert all(each.exploratory for each in planned_contrasts(by_name(AE_BN, VAE), turned))


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, 6),
        ({"primary": ("vae-tiny, ae",)}, 2),
        ({"looks": (8, 16)}, 5),  # the looks decide one of the six
        ({"primary": ("vae-eps5, ae",), "looks": (8, 16)}, 2),
    ],
)
def test_holms_family_is_both_endpoints_of_what_is_confirmatory(plan, changes, expected):
    assert family_size(by_name(AE_BN, VAE, EPS5, SPIKE), with_contrasts(plan, **changes)) == expected


def test_a_vae_that_starts_from_an_ae_is_exploratory(plan):
    arms = by_name(AE_BN, VAE, FROM_AE)
    assert [bool(each.exploratory) for each in planned_contrasts(arms, plan)] == [False, True, True]
    assert family_size(arms, plan) == 2
