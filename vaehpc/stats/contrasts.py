"""Rates of two arms, tested: x of n runs counted in the arm, y of m in its reference, for each of two endpoints.

Holm's adjustment goes over both endpoints of all confirmatory contrasts; everything else is exploratory. A difference
is shown if its adjusted p is at most alpha however the missing runs of all arms end.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from functools import cache, partial

import numpy as np
import numpy.typing as npt
from scipy import stats

from vaehpc.schema.config import StudyConfig
from vaehpc.schema.plan import Alternative, Endpoint, PlanConfig
from vaehpc.schema.results import ArmSummary, Contrast, EndpointTest, PlannedLook, RunSummary
from vaehpc.stats import planning
from vaehpc.stats.planned import PlannedContrast, planned_contrasts, power
from vaehpc.stats.rates import COUNTS, OF_CLASS, OF_COURSE, is_known
from vaehpc.stats.survival import followed, logrank


def contrasts(
    config: StudyConfig,
    arms: Mapping[str, ArmSummary],
    runs: Mapping[str, RunSummary],
    look: PlannedLook | None,
    is_as_planned: bool,
) -> list[Contrast]:
    """Every planned contrast whose arms both have ended runs.

    Args:
        config: the study.
        arms: its arms' counts.
        runs: its runs, by name.
        look: which judges its own two arms, if the plan has looks; the others follow once it has found a difference.
        is_as_planned: whether anything of the study may be confirmatory.
    """
    planned = [
        each
        for each in planned_contrasts(config.arms, config.plan)
        if arms[each.arm].endpoints and arms[each.reference].endpoints
    ]
    positions = {name: position for position, name in enumerate(config.arms)}  # which later arms do not change
    tests = [endpoint_tests(each, arms, runs) for each in planned]
    open_to_all = is_as_planned and (not config.plan.contrasts.looks or (look is not None and look.stops))
    family = [
        (number, endpoint)
        for number, each in enumerate(planned)
        for endpoint in tests[number]
        if open_to_all and not each.exploratory and not _is_of(look, each, endpoint, config)
    ]
    of_found = holm([tests[number][endpoint].boschloo for number, endpoint in family])
    of_worst = holm([tests[number][endpoint].boschloo_if_missing[1] for number, endpoint in family])
    for (number, endpoint), found, worst in zip(family, of_found, of_worst, strict=True):
        adjusted = {"holm": found, "holm_if_missing": worst}
        tests[number][endpoint] = tests[number][endpoint].model_copy(update=adjusted)
    size = max(len(family), 1)
    return [
        contrast(
            each,
            of_each,
            arms,
            runs,
            config.plan,
            size,
            config.key("logrank", positions[each.arm], positions[each.reference]),
        )
        for each, of_each in zip(planned, tests, strict=True)
    ]


def _is_of(look: PlannedLook | None, planned: PlannedContrast, endpoint: Endpoint, config: StudyConfig) -> bool:
    """Whether a test is the one that the looks decide."""
    if look is None:
        return False
    is_its_pair = (planned.arm, planned.reference) == (look.arm, look.reference)
    return is_its_pair and endpoint == config.plan.contrasts.primary_endpoint


def endpoint_tests(
    planned: PlannedContrast, arms: Mapping[str, ArmSummary], runs: Mapping[str, RunSummary]
) -> dict[Endpoint, EndpointTest]:
    """Both endpoints of a contrast, not adjusted; none where each run has its equal to the bit in the other arm.

    They are those of the class, and of the course alone where the classes of either arm are not judged.
    """
    arm, reference = arms[planned.arm], arms[planned.reference]
    pairs = paired(planned, runs)
    if pairs and all(_are_equal(pair) for pair in pairs) and arm.num_runs == reference.num_runs == len(pairs):
        return {}
    are_judged = all(OF_CLASS[0] in each.endpoints for each in (arm, reference))
    return {
        endpoint: endpoint_test(planned, endpoint, arm, reference, pairs)
        for endpoint in (OF_CLASS if are_judged else OF_COURSE)
        if endpoint in arm.endpoints and endpoint in reference.endpoints
    }


Pair = tuple[RunSummary, RunSummary]


def paired(planned: PlannedContrast, runs: Mapping[str, RunSummary]) -> list[Pair]:
    """Runs of equal seeds that ended in both arms."""
    of_arm, of_reference = (
        {run.seed: run for run in runs.values() if run.arm == name and run.run_class is not None}
        for name in (planned.arm, planned.reference)
    )
    return [(of_arm[seed], of_reference[seed]) for seed in sorted(of_arm.keys() & of_reference)]


def _are_equal(pair: Pair) -> bool:
    """Whether two runs did the same to the bit: they ended in the same weights, or became NaN by the same losses.

    The weights that are kept of a run which became NaN are earlier ones, at times the initial, which all arms share.
    """
    first, second = pair
    if "nonfinite" not in (first.run_class, second.run_class):
        return first.state_sha256 is not None and first.state_sha256 == second.state_sha256
    return first.losses_sha256 is not None and first.losses_sha256 == second.losses_sha256


def endpoint_test(
    planned: PlannedContrast, endpoint: Endpoint, arm: ArmSummary, reference: ArmSummary, pairs: Sequence[Pair]
) -> EndpointTest:
    """Counts and exact tests of one endpoint."""
    alternative, of_arm, of_reference = planned.alternative, arm.endpoints[endpoint], reference.endpoints[endpoint]
    x, n, y, m = of_arm.count, of_arm.num_ended, of_reference.count, of_reference.num_ended
    known = [pair for pair in pairs if all(is_known(run, endpoint) for run in pair)]
    counted = [tuple(map(COUNTS[endpoint], pair)) for pair in known]
    only_arm, only_reference = counted.count((True, False)), counted.count((False, True))
    return EndpointTest(
        count=x,
        num_ended=n,
        reference_count=y,
        reference_ended=m,
        boschloo=boschloo(x, n, y, m, alternative),
        two_sided=boschloo(x, n, y, m, "two-sided"),
        holm=None,
        holm_if_missing=None,
        boschloo_if_missing=boschloo_if_missing((x, n, arm.num_runs - n), (y, m, reference.num_runs - m), alternative),
        fisher=fisher(x, n, y, m, alternative),
        only_arm=only_arm,
        only_reference=only_reference,
        mcnemar=mcnemar(only_arm, only_reference, alternative),
    )


def contrast(
    planned: PlannedContrast,
    tests: Mapping[Endpoint, EndpointTest],
    arms: Mapping[str, ArmSummary],
    runs: Mapping[str, RunSummary],
    plan: PlanConfig,
    family: int,
    key: np.random.SeedSequence,
) -> Contrast:
    """A contrast with its tests, what they could have shown, and when the runs' events came."""
    alternative = planned.alternative
    n, m = (arms[name].num_runs - arms[name].num_missing for name in (planned.arm, planned.reference))
    of_arm, of_reference = (
        followed(run for run in runs.values() if run.arm == name) for name in (planned.arm, planned.reference)
    )
    events = logrank(of_arm, of_reference, plan.contrasts.num_permutations, key)
    pairs = paired(planned, runs)
    return Contrast(
        arm=planned.arm,
        reference=planned.reference,
        is_control=planned.is_control,
        alternative=alternative,
        tests=dict(tests),
        exploratory=planned.exploratory,
        num_pairs=len(pairs),
        num_equal=sum(map(_are_equal, pairs)),
        family=family,
        power=power(n, m, alternative, plan.contrasts, (1 - plan.level) / family),
        least_p=boschloo(0, n, m, m, alternative) if alternative == "less" else boschloo(n, n, 0, m, alternative),
        logrank=events and events.statistic,
        logrank_p=events and events.p,
        num_permutations=events.num_permutations if events else 0,
    )


def planned_look(config: StudyConfig, arms: Mapping[str, ArmSummary]) -> PlannedLook | None:
    """The plan's look at its reference arm; None if there is none after so many seeds, or not all runs have a class."""
    plan = config.plan.contrasts
    control = config.control_of(plan.reference) if plan.reference in config.arms else None
    if control is None or control == plan.reference:
        return None
    arm, reference, endpoint = arms[plan.reference], arms[control], plan.primary_endpoint
    num_seeds = arm.num_runs
    whole = all(endpoint in each.endpoints and each.num_missing == 0 for each in (arm, reference))
    if not whole or num_seeds != reference.num_runs or num_seeds not in plan.looks:
        return None
    number = plan.looks.index(num_seeds)
    look = planning.boundaries(plan.looks, 1 - config.plan.level)[number]
    count, of_reference = arm.endpoints[endpoint].count, reference.endpoints[endpoint].count
    least = look.least_diverged(of_reference)
    return PlannedLook(
        arm=plan.reference,
        reference=control,
        looks=plan.looks,
        number=number + 1,
        spent=look.spent,
        num_diverged=count,
        reference_diverged=of_reference,
        least_diverged=least,
        stops=least is not None and count >= least,
    )


@cache
def boschloo(x: int, n: int, y: int, m: int, alternative: Alternative) -> float:
    """p of Boschloo's exact test (1970): Fisher's p as the statistic, its worst case over the common rate.

    Two-sided it is twice the smaller one-sided p. Equal tables are tested once.
    """
    if x + y in (0, n + m):
        return 1.0
    return float(min(1.0, stats.boschloo_exact([[x, y], [n - x, m - y]], alternative=alternative).pvalue))


def fisher(x: int, n: int, y: int, m: int, alternative: Alternative) -> float:
    """p of Fisher's exact test, conditional on x + y."""
    return float(stats.fisher_exact(np.array([[x, y], [n - x, m - y]]), alternative=alternative).pvalue)


def mcnemar(only_arm: int, only_reference: int, alternative: Alternative) -> float | None:
    """p of McNemar's exact test: the discordant pairs are heads and tails of a fair coin; None if there are none."""
    if only_arm + only_reference == 0:
        return None
    return float(stats.binomtest(only_arm, only_arm + only_reference, alternative=alternative).pvalue)


def boschloo_if_missing(
    arm: tuple[int, int, int], reference: tuple[int, int, int], alternative: Alternative
) -> tuple[float, float]:
    """Least and largest p over all ways in which the missing runs of both arms can end.

    Args:
        arm: runs that count, that ended, that are missing.
        reference: the same of it.
        alternative: of the test.

    One-sided, p falls with one count and grows with the other, so that the extremes are corners. Two-sided it is twice
    the smaller of the two: for each count of the reference it is largest where they cross.
    """
    (x, n, missing), (y, m, of_reference) = arm, reference
    n, m, last = n + missing, m + of_reference, x + missing
    tables = {(at, of) for at in (x, last) for of in (y, y + of_reference)}
    if alternative == "two-sided":
        for of in range(y, y + of_reference + 1):
            crossing = bisect_left(range(x, last + 1), True, key=partial(_is_more, n, of, m))
            tables |= {(at, of) for at in (x + crossing - 1, x + crossing) if x <= at <= last}
    p = [boschloo(at, n, of, m, alternative) for at, of in tables]
    return min(p), max(p)


def _is_more(n: int, y: int, m: int, x: int) -> bool:
    """Whether x of n are rather more than y of m than less, by the one-sided tests."""
    return boschloo(x, n, y, m, "greater") <= boschloo(x, n, y, m, "less")


def holm(p: Sequence[float]) -> list[float]:
    """Holm's step-down adjustment (1979): the i-th smallest of k times k - i + 1, never below the ones before it."""
    if not p:
        return []
    values = np.asarray(p, np.float64)
    order = np.argsort(values, kind="stable")
    factors = np.arange(len(values), 0, -1)
    adjusted: npt.NDArray[np.float64] = np.empty_like(values)
    adjusted[order] = np.minimum(1.0, np.maximum.accumulate(factors * values[order]))
    return [float(value) for value in adjusted]
