import itertools

import numpy as np
import pytest
from test_rates import CONTROL, runs
from test_summary import AE as AE_BN
from test_summary import VAE, study

from tests.examples import ARTICLE
from vaehpc.stats.contrasts import (
    boschloo,
    boschloo_if_missing,
    contrasts,
    endpoint_tests,
    fisher,
    holm,
    planned_look,
)
from vaehpc.stats.divergence import Control
from vaehpc.stats.planned import PlannedContrast
from vaehpc.stats.planning import binomial, fisher_greater, power
from vaehpc.stats.rates import summarise_arm

AE = ARTICLE["ae-nobn"]
EPS5 = VAE.model_copy(update={"name": "vae-eps5", "vae": VAE.vae.model_copy(update={"epsilon_limit": 5.0})})
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


def of_arm(name, classes, plan, control=CONTROL):
    """Summary of an arm and its runs by name."""
    found = [run.model_copy(update={"arm": name}) for run in runs(*classes)]
    return summarise_arm(found, control, plan), {f"{name}-seed{run.seed:03d}": run for run in found}


def made(plan, arm_classes, reference_classes, alternative="greater"):
    """The tests of vae-tiny against ae."""
    arm, of_vae = of_arm("vae-tiny", arm_classes, plan)
    reference, of_ae = of_arm("ae", reference_classes, plan)
    planned = PlannedContrast("vae-tiny", "ae", True, alternative)
    return endpoint_tests(planned, {"vae-tiny": arm, "ae": reference}, of_vae | of_ae)


def of_study(plan, arms, *configured, look=None, is_as_planned=True, num_seeds=8):
    """Contrasts of a study with these classes of the runs of each arm."""
    summaries, found = {}, {}
    for name, classes in arms.items():
        summaries[name], of_name = of_arm(name, classes, plan)
        found |= of_name
    config = study(plan, *(configured or (AE_BN, VAE)), num_seeds=num_seeds)
    return contrasts(config, summaries, found, look, is_as_planned)


def test_the_articles_one_of_four_shows_nothing(plan):
    (found,) = of_study(plan, {"ae": ["regular"] * 4, "vae-tiny": ["diverged", *["regular"] * 3]}, num_seeds=4)
    test = found.tests["diverged"]
    assert (test.count, test.num_ended, test.reference_count, test.reference_ended) == (1, 4, 0, 4)
    assert test.boschloo == pytest.approx(boschloo(1, 4, 0, 4, "greater"))
    assert test.fisher == pytest.approx(0.5)
    assert test.boschloo > 0.2
    assert found.power < 0.1
    assert found.logrank is None


def test_eight_against_none_is_found(plan):
    (found,) = of_study(plan, {"ae": ["regular"] * 8, "vae-tiny": ["diverged"] * 8})
    test = found.tests["diverged"]
    assert test.boschloo == found.least_p < 1e-3
    assert (test.only_arm, test.only_reference, found.num_pairs) == (8, 0, 8)
    assert test.mcnemar == pytest.approx(1 / 256)


def test_nan_counts_for_the_second_endpoint_alone(plan):
    """Three of three NaN against none: p = 1 and 1 / 64."""
    (found,) = of_study(plan, {"ae": ["regular"] * 3, "vae-tiny": ["nonfinite"] * 3}, num_seeds=3)
    first, second = found.tests["diverged"], found.tests["diverged or nonfinite"]
    assert (first.count, first.boschloo, first.holm) == (0, 1, 1)
    assert (second.count, second.boschloo) == (3, pytest.approx(1 / 64))
    assert second.holm == second.holm_if_missing == pytest.approx(2 / 64)
    assert (second.only_arm, first.only_arm) == (3, 0)


def test_pairs_are_seeds_that_ended_in_both_arms(plan):
    test = made(plan, ["diverged", None, "regular", "diverged"], ["diverged", "regular", "diverged"])["diverged"]
    assert (test.only_arm, test.only_reference, test.mcnemar) == (0, 1, 1.0)


@pytest.mark.parametrize("alternative", ["greater", "less", "two-sided"])
@pytest.mark.parametrize(
    ("arm", "reference"),
    [
        ((2, 3, 2), (1, 4, 1)),
        ((0, 4, 5), (3, 4, 5)),
        ((5, 9, 4), (4, 6, 3)),
        ((3, 3, 0), (0, 2, 6)),
        ((1, 7, 9), (2, 5, 8)),
    ],
)
def test_missing_runs_leave_a_range_of_p(arm, reference, alternative):
    (x, n, missing), (y, m, of_reference) = arm, reference
    every = [
        boschloo(x + a, n + missing, y + b, m + of_reference, alternative)
        for a in range(missing + 1)
        for b in range(of_reference + 1)
    ]
    assert boschloo_if_missing(arm, reference, alternative) == pytest.approx((min(every), max(every)), rel=1e-6)


def test_without_missing_runs_p_is_what_it_is(plan):
    test = made(plan, ["diverged"] * 3 + ["regular"], ["regular"] * 4)["diverged"]
    assert test.boschloo_if_missing == (test.boschloo, test.boschloo)


THREE_ARMS = {
    "ae": ["regular"] * 8,
    "vae-tiny": ["diverged"] * 5 + ["nonfinite"] + ["regular"] * 2,
    "vae-eps5": ["diverged"] * 2 + ["regular"] * 6,
}


def test_holm_runs_over_both_endpoints_of_all_contrasts(plan):
    found = of_study(plan, THREE_ARMS, AE_BN, VAE, EPS5)
    assert [(each.arm, each.reference) for each in found] == [
        ("vae-tiny", "ae"),
        ("vae-eps5", "ae"),
        ("vae-eps5", "vae-tiny"),
    ]
    tests = [test for each in found for test in each.tests.values()]
    assert {each.family for each in found} == {6} == {len(tests)}
    assert [test.holm for test in tests] == holm([test.boschloo for test in tests])
    assert found[0].power == pytest.approx(power(8, 8, 0.25, 0, 0.05 / 6))


def test_what_is_not_confirmatory_is_in_no_family(plan):
    named = plan.model_copy(update={"contrasts": plan.contrasts.model_copy(update={"primary": ("vae-tiny, ae",)})})
    first, *others = of_study(named, THREE_ARMS, AE_BN, VAE, EPS5)
    assert (first.family, first.exploratory) == (2, ())
    assert {each.exploratory for each in others} == {("the plan does not name it",)}
    assert all(test.holm is None for each in others for test in each.tests.values())
    assert all(
        test.holm is None
        for each in of_study(plan, THREE_ARMS, AE_BN, VAE, EPS5, is_as_planned=False)
        for test in each.tests.values()
    )


def test_shown_is_judged_by_the_worst_of_all_missing_runs(plan):
    of_tiny = ["diverged"] * 6 + ["regular"] * 2
    for of_ae, worst in ((["regular"] * 8, (6, 8, 0, 8)), (["regular"] * 7 + [None], (6, 8, 1, 8))):
        (found,) = of_study(plan, {"ae": of_ae, "vae-tiny": of_tiny})
        assert found.tests["diverged"].holm_if_missing == pytest.approx(2 * boschloo(*worst, "greater"))
    assert found.tests["diverged"].holm < 0.01 < found.tests["diverged"].holm_if_missing


def test_where_classes_are_not_judged_jumps_are_tested(plan):
    unsound = Control("ae", CONTROL.scale, 8, faults={"ae-seed001": "jumped"})
    summaries, found = {}, {}
    for name, classes, control in (("ae", ["regular"] * 8, CONTROL), ("vae-tiny", ["nonfinite"] * 8, unsound)):
        summaries[name], of_name = of_arm(name, classes, plan, control)
        found |= of_name
    (of_tiny,) = contrasts(study(plan, AE_BN, VAE, num_seeds=8), summaries, found, None, True)
    assert [*of_tiny.tests] == ["jumped", "jumped or nonfinite"]
    assert [test.count for test in of_tiny.tests.values()] == [0, 8]


def test_runs_that_are_equal_to_the_bit_make_no_test(plan):
    def hashed(runs_by_name, hashes):
        return {name: run.model_copy(update={"state_sha256": hashes[run.seed]}) for name, run in runs_by_name.items()}

    summaries, of_vae = {}, {}
    for name in ("vae-tiny", "vae-eps5"):
        summaries[name], of_vae[name] = of_arm(name, ["diverged", *["regular"] * 3], plan)
    config = study(plan, VAE, EPS5, num_seeds=4)
    for other, num_equal, is_tested in (("abcd", 4, False), ("abcx", 3, True)):
        found = hashed(of_vae["vae-tiny"], "abcd") | hashed(of_vae["vae-eps5"], other)
        (pair,) = contrasts(config, summaries, found, None, True)
        assert (pair.num_pairs, pair.num_equal, bool(pair.tests)) == (4, num_equal, is_tested)
    lost = {name: run.model_copy(update={"run_class": "nonfinite"}) for name, run in found.items()}  # one kept state
    assert contrasts(config, summaries, lost, None, True)[0].num_equal == 0
    lost = {name: run.model_copy(update={"losses_sha256": "abcd"[run.seed]}) for name, run in lost.items()}
    assert contrasts(config, summaries, lost, None, True)[0].num_equal == 4
    found = of_vae["vae-tiny"] | of_vae["vae-eps5"]  # of an older release: not known
    assert contrasts(config, summaries, found, None, True)[0].num_equal == 0


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


def test_the_rest_is_tested_once_a_look_has_found_a_difference(plan):
    planned = with_looks(plan, 8, 16)
    for diverged, is_open in ((8, True), (1, False)):
        arms = THREE_ARMS | {"vae-tiny": ["diverged"] * diverged + ["regular"] * (8 - diverged)}
        look = look_at(planned, diverged, 0, 8)
        found = of_study(planned, arms, AE_BN, VAE, EPS5, look=look)
        adjusted = {
            (each.arm, each.reference, name) for each in found for name, test in each.tests.items() if test.holm
        }
        assert (len(adjusted), look.stops) == ((5, True) if is_open else (0, False))
        assert ("vae-tiny", "ae", "diverged") not in adjusted  # that one the look has decided


def test_a_look_judges_the_plans_endpoint(plan):
    planned = with_looks(plan, 8, 16)
    other = planned.contrasts.model_copy(update={"primary_endpoint": "diverged or nonfinite"})
    planned = planned.model_copy(update={"contrasts": other})
    arms = {
        name: of_arm(name, classes, plan)[0]
        for name, classes in (("vae-tiny", ["nonfinite"] * 8), ("ae", ["regular"] * 8))
    }
    look = planned_look(study(planned, AE_BN, VAE, num_seeds=8), arms)
    assert (look.num_diverged, look.reference_diverged, look.stops) == (8, 0, True)


def test_looks_ascend(plan):
    with pytest.raises(ValueError, match="must ascend"):
        type(plan.contrasts).model_validate(plan.contrasts.model_dump() | {"looks": (8, 8)})
