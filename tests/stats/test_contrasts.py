import itertools

import numpy as np
import pytest
from test_rates import CONTROL, runs
from test_summary import AE as AE_BN
from test_summary import VAE, study

from tests.examples import ARTICLE
from vaehpc.schema.config import SpikeConfig
from vaehpc.stats.contrasts import (
    PlannedContrast,
    boschloo,
    boschloo_if_missing,
    contrast,
    contrasts,
    fisher,
    holm,
    planned_contrasts,
    planned_look,
)
from vaehpc.stats.planning import binomial, fisher_greater
from vaehpc.stats.rates import summarise_arm

AE = ARTICLE["ae-nobn"]
EPS5 = VAE.model_copy(update={"name": "vae-eps5", "vae": VAE.vae.model_copy(update={"epsilon_limit": 5.0})})
SPIKE = VAE.model_copy(update={"name": "spike", "spike": SpikeConfig(kind="gradient", strength=10, steps_before_end=5)})
KEY = np.random.SeedSequence(1)


# Tests of two counts


def test_published_values():
    """Satisfied professors against scientists, and a vaccine, as scipy documents them; Fisher's tea."""
    assert boschloo(74, 117, 31, 63, "greater") == pytest.approx(0.0355, abs=1e-4)
    assert fisher(74, 117, 31, 63, "greater") == pytest.approx(0.0483, abs=5e-5)
    assert boschloo(7, 15, 12, 15, "less") == pytest.approx(0.0341, abs=5e-5)
    assert fisher(3, 4, 1, 4, "greater") == pytest.approx(17 / 70)


@pytest.mark.parametrize(("n", "m"), [(5, 5), (8, 6)])
def test_boschloos_p_is_the_worst_case_of_all_tables_that_are_as_extreme(n, m):
    """Maximised here over 20,001 common rates, without scipy's optimiser."""
    rates = np.linspace(0, 1, 20_001)
    of_arm, of_reference, statistic = binomial(n, rates), binomial(m, rates), fisher_greater(n, m)
    for x in range(n + 1):
        for y in range(m + 1):
            if not 0 < x + y < n + m:
                continue
            region = statistic <= statistic[x, y] * (1 + 1e-9)
            worst = ((of_arm @ region.astype(float)) * of_reference).sum(axis=1).max()
            assert boschloo(x, n, y, m, "greater") == pytest.approx(worst, rel=1e-5)


@pytest.mark.parametrize("counts", [(0, 8, 0, 8), (8, 8, 8, 8)])
def test_equal_arms_without_any_contrast_have_p_1(counts):
    for alternative in ("greater", "less", "two-sided"):
        assert boschloo(*counts, alternative) == 1
        assert fisher(*counts, alternative) == 1


def test_two_sided_is_twice_the_smaller_one_sided_p():
    assert boschloo(5, 8, 0, 8, "two-sided") == pytest.approx(2 * boschloo(5, 8, 0, 8, "greater"))
    assert boschloo(0, 8, 5, 8, "two-sided") == pytest.approx(2 * boschloo(0, 8, 5, 8, "less"))


def test_known_adjustment():
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.6, 0.9]) == [1, 1]


# Of a study


def test_each_arm_is_tested_against_its_control_and_the_reference(plan):
    config = study(plan, AE, AE_BN, VAE, EPS5, SPIKE)
    assert planned_contrasts(config) == [
        PlannedContrast("vae-tiny", "ae", True, "greater"),
        PlannedContrast("vae-eps5", "ae", True, "greater"),
        PlannedContrast("vae-eps5", "vae-tiny", False, "two-sided"),
    ]
    assert [each.reference for each in planned_contrasts(study(plan, AE_BN, EPS5))] == ["ae"]
    assert planned_contrasts(study(plan, AE, VAE)) == []


def of_arm(name, classes, plan):
    """Summary of an arm and its runs by name."""
    found = [run.model_copy(update={"arm": name}) for run in runs(*classes)]
    return summarise_arm(found, CONTROL, plan), {f"{name}-seed{run.seed:03d}": run for run in found}


def made(plan, arm_classes, reference_classes, alternative="greater"):
    arm, of_vae = of_arm("vae-tiny", arm_classes, plan)
    reference, of_ae = of_arm("ae", reference_classes, plan)
    planned = PlannedContrast("vae-tiny", "ae", True, alternative)
    return contrast(planned, {"vae-tiny": arm, "ae": reference}, of_vae | of_ae, plan, KEY)


def test_the_articles_one_of_four_shows_nothing(plan):
    found = made(plan, ["diverged", *["regular"] * 3], ["regular"] * 4)
    assert (found.num_diverged, found.num_ended, found.reference_diverged, found.reference_ended) == (1, 4, 0, 4)
    assert found.boschloo == pytest.approx(boschloo(1, 4, 0, 4, "greater"))
    assert found.fisher == pytest.approx(0.5)
    assert found.boschloo > 0.2
    assert found.power < 0.1
    assert found.logrank is None


def test_eight_against_none_is_found(plan):
    found = made(plan, ["diverged"] * 8, ["regular"] * 8)
    assert found.boschloo == found.least_p < 1e-3
    assert (found.only_arm, found.only_reference, found.num_pairs) == (8, 0, 8)
    assert found.mcnemar == pytest.approx(1 / 256)


def test_pairs_are_seeds_that_ended_in_both_arms(plan):
    found = made(plan, ["diverged", None, "regular", "diverged"], ["diverged", "regular", "diverged"])
    assert (found.num_pairs, found.only_arm, found.only_reference, found.mcnemar) == (2, 0, 1, 1.0)


@pytest.mark.parametrize("alternative", ["greater", "less", "two-sided"])
def test_missing_runs_leave_a_range_of_p(alternative, plan):
    arm, _ = of_arm("vae-tiny", ["diverged", "diverged", "regular", None, None], plan)
    reference, _ = of_arm("ae", ["regular", "regular", "regular", "diverged", None], plan)
    every = [boschloo(2 + a, 5, 1 + b, 5, alternative) for a in range(3) for b in range(2)]
    assert boschloo_if_missing(arm, reference, alternative) == (min(every), max(every))


def test_without_missing_runs_p_is_what_it_is(plan):
    found = made(plan, ["diverged"] * 3 + ["regular"], ["regular"] * 4)
    assert found.boschloo_if_missing == (found.boschloo, found.boschloo)


def test_holm_runs_over_all_contrasts_and_arms_without_a_rate_are_left_out(plan):
    config = study(plan, AE_BN, VAE, EPS5, num_seeds=8)
    arms, found = {}, {}
    for name, classes in (
        ("ae", ["regular"] * 8),
        ("vae-tiny", ["diverged"] * 5 + ["regular"] * 3),
        ("vae-eps5", ["diverged"] * 2 + ["regular"] * 6),
    ):
        arms[name], of_name = of_arm(name, classes, plan)
        found |= of_name
    tested = contrasts(config, arms, found)
    assert [(each.arm, each.reference) for each in tested] == [
        ("vae-tiny", "ae"),
        ("vae-eps5", "ae"),
        ("vae-eps5", "vae-tiny"),
    ]
    assert [each.holm for each in tested] == holm([each.boschloo for each in tested])
    arms["vae-eps5"] = arms["vae-eps5"].model_copy(update={"rate": None})
    (alone,) = contrasts(config, arms, found)
    assert alone.holm == alone.boschloo


# Planned looks


def with_looks(plan, *looks, **changes):
    contrast_plan = plan.contrasts.model_copy(update={"looks": looks})
    return plan.model_copy(update={"contrasts": contrast_plan} | changes)


def look_at(plan, diverged, of_reference, num_seeds):
    arms = {
        name: of_arm(name, ["diverged"] * count + ["regular"] * (num_seeds - count), plan)[0]
        for name, count in (("vae-tiny", diverged), ("ae", of_reference))
    }
    return planned_look(study(plan, AE_BN, VAE, num_seeds=num_seeds), arms)


def test_looks_raise_no_more_false_alarms_than_planned(plan):
    """Every one of the 4096 courses that two arms of six seeds can take, judged from the second on.

    Judged each time by a single look's test they would raise 26.7 %.
    """
    looks = (2, 3, 4, 5, 6)
    planned = with_looks(plan, *looks, level=0.75)
    judged = {(n, x, y): look_at(planned, x, y, n).stops for n in looks for x in range(n + 1) for y in range(n + 1)}
    alarms = np.zeros(13)  # by the number of runs that diverged
    for course in itertools.product((0, 1), repeat=12):
        arm, reference = course[:6], course[6:]
        alarms[sum(course)] += any(judged[n, sum(arm[:n]), sum(reference[:n])] for n in looks)
    rates, diverged = np.linspace(0, 1, 101)[:, np.newaxis], np.arange(13)
    false_alarms = (alarms * rates**diverged * (1 - rates) ** (12 - diverged)).sum(axis=1)
    assert 0.2 < false_alarms.max() <= 0.25


def test_a_look_says_what_it_needs_and_which_it_is(plan):
    first, last = look_at(with_looks(plan, 8, 16), 8, 0, 8), look_at(with_looks(plan, 8, 16), 1, 0, 16)
    assert (first.number, first.is_last, first.stops) == (1, False, True)
    assert (last.number, last.is_last, last.stops) == (2, True, False)
    assert boschloo(first.least_diverged - 1, 8, 0, 8, "greater") < 0.05  # enough for a single look, not for this one
    assert 0 < first.spent < last.spent == pytest.approx(0.05)


def test_other_numbers_of_seeds_and_missing_runs_are_not_judged(plan):
    assert look_at(with_looks(plan, 8, 16), 5, 0, 9) is None
    assert look_at(plan, 5, 0, 8) is None
    planned = with_looks(plan, 8, 16)
    arms = {"ae": of_arm("ae", ["regular"] * 8, planned)[0]}
    arms["vae-tiny"] = of_arm("vae-tiny", [*["diverged"] * 7, None], planned)[0]
    assert planned_look(study(planned, AE_BN, VAE, num_seeds=8), arms) is None
    assert planned_look(study(planned, AE_BN, num_seeds=8), arms) is None
    of_ae = planned.model_copy(update={"contrasts": planned.contrasts.model_copy(update={"reference": "ae"})})
    assert planned_look(study(of_ae, AE_BN, num_seeds=8), arms) is None  # its control is itself


def test_looks_ascend(plan):
    with pytest.raises(ValueError, match="must ascend"):
        type(plan.contrasts).model_validate(plan.contrasts.model_dump() | {"looks": (8, 8)})
