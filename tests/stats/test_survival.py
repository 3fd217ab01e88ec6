import math

import numpy as np
import pytest
from scipy import stats

from tests.examples import run_summary
from vaehpc.schema.results import CourseMark, RunCourse
from vaehpc.stats.survival import Followed, event_curves, logrank, logrank_scores

KEY = np.random.SeedSequence(2)
# Freireich and others (1963), remission of leukemia in weeks, as R's survival documents print it.
TREATED = [6, 6, 6, 7, 10, 13, 16, 22, 23], [6, 9, 10, 11, 17, 19, 20, 25, 32, 32, 34, 35]
PLACEBO = [1, 1, 2, 2, 3, 4, 4, 5, 5, 8, 8, 8, 8, 11, 11, 12, 12, 15, 17, 22, 23], []


def followed(onsets, censored):
    return Followed(np.array([*onsets, *censored]), np.array([1] * len(onsets) + [0] * len(censored)))


def summary(step, event=None, run_class="regular", **course):
    """A run with its first event at a step, or followed up to it."""
    if event == "nonfinite":
        return run_summary("nonfinite", followed_steps=step, nonfinite_step=step)
    marks = () if event is None else (CourseMark(kind=event, step=step, after=step - 1, factor=2),)
    return run_summary(
        run_class, followed_steps=max(step, 40) if event else step, course=RunCourse(marks=marks, **course)
    )


def summaries(onsets, censored):
    """Runs that jumped, then runs that were followed up to these steps."""
    return [*(summary(step, "jump") for step in onsets), *(summary(step) for step in censored)]


def test_published_survival():
    """R: summary(survfit(Surv(weeks, relapse) ~ treated)); with one kind of event 1 - F is Kaplan-Meier's."""
    curves = event_curves(summaries(*TREATED), 0.95)
    jumps = curves.events["jump"]
    assert (curves.num_runs, jumps.count, [*curves.events]) == (21, 9, ["jump"])
    printed = {6: (21, 0.857), 13: (12, 0.690), 23: (6, 0.448)}
    for step, expected in printed.items():
        i = curves.steps.index(step)
        assert (curves.at_risk[i], 1 - jumps.share[i]) == pytest.approx(expected, abs=6e-4)


def test_incidence_by_hand():
    """Four runs: a jump at 1, NaN at 2, one lost at 3, a jump at 4: 1/4, then 1/4 + 1/2 x 1; NaN 3/4 x 1/3."""
    runs = [summary(1, "jump"), summary(2, "nonfinite"), summary(3), summary(4, "jump")]
    curves = event_curves(runs, 0.95)
    assert (curves.steps, curves.at_risk, curves.censored) == ((1, 2, 3, 4), (4, 3, 2, 1), (0, 0, 1, 0))
    assert curves.events["jump"].share == pytest.approx((0.25, 0.25, 0.25, 0.75))
    assert curves.events["nonfinite"].share == pytest.approx((0, 0.25, 0.25, 0.25))
    # Of 1 in 4 the delta method's variance is that of a binomial share.
    z, sd = stats.norm.ppf(0.975), math.sqrt(0.25 * 0.75 / 4)
    low = 0.25 ** math.exp(z * sd / (0.25 * math.log(4)))
    assert curves.events["jump"].low[0] == pytest.approx(low)
    assert curves.events["nonfinite"].low[0] is None


def test_kinds_of_events_and_who_is_left_out():
    runs = [
        summary(400, "growth"),
        summary(500, "jump", "nonfinite"),  # the first event counts
        summary(900),
        summary(250, run_class=None),
        summary(600, unknown_after=450),
        summary(900, far=True),
        summary(0, run_class=None),
    ]
    curves = event_curves(runs, 0.95)
    assert (curves.num_runs, curves.num_far, curves.num_missing, curves.num_unknown) == (5, 1, 1, 1)
    assert {event: of.count for event, of in curves.events.items()} == {"jump": 1, "growth": 1}
    assert dict(zip(curves.steps, curves.censored, strict=True)) == {250: 1, 400: 0, 450: 1, 500: 0, 900: 1}
    assert (curves.if_none_missing, curves.if_all_missing) == (2 / 5, 3 / 5)
    assert event_curves([summary(0)], 0.95) is None


def test_published_logrank():
    """Chi^2 = 16.79 on 1 degree of freedom (R: survdiff)."""
    found = logrank(followed(*PLACEBO), followed(*TREATED), 999, KEY)
    assert found.statistic**2 == pytest.approx(16.79, abs=5e-3)
    assert found.statistic > 0
    assert (found.p, found.num_permutations) == (pytest.approx(0.002, abs=5e-4), 999)  # none of 999 was as large


def test_scores_sum_to_observed_less_expected():
    times = np.r_[PLACEBO[0], TREATED[0], TREATED[1]]
    has_onset = np.r_[[True] * 30, [False] * 12]
    scores = logrank_scores(times, has_onset)
    assert scores.sum() == pytest.approx(0, abs=1e-12)
    assert scores[:21].sum() == pytest.approx(21 - 10.75, abs=5e-3)  # R: 21 observed, 10.7 expected


def test_few_runs_are_enumerated():
    """All of 4 sooner than all of 4: 1 of 70 ways on either side."""
    found = logrank(followed([1, 2, 3, 4], []), followed([], [9, 9, 9, 9]), 9999, KEY)
    assert (found.p, found.num_permutations) == (pytest.approx(2 / 70), 0)


def test_drawn_permutations_agree_with_the_normal_limit_and_repeat():
    numbers = np.random.default_rng(5)
    of_arms = [followed(steps[:30], steps[30:]) for steps in numbers.integers(1, 400, (2, 50))]
    found = logrank(*of_arms, 9999, KEY)
    assert found.num_permutations == 9999
    assert found.p == pytest.approx(2 * stats.norm.sf(abs(found.statistic)), abs=0.02)
    assert logrank(*of_arms, 9999, KEY) == found
    assert logrank(*of_arms, 9999, np.random.SeedSequence(3)).p != found.p


def test_p_of_equal_arms_is_uniform():
    numbers = np.random.default_rng(11)
    p = []
    for _ in range(150):
        onsets = numbers.integers(1, 1000, 10)
        p.append(logrank(followed(onsets[:5], []), followed(onsets[5:], []), 999, KEY).p)
    assert np.mean(np.array(p) <= 0.2) == pytest.approx(0.2, abs=3 * math.sqrt(0.16 / 150))


def test_without_an_event_there_is_no_test_and_no_curve():
    nobody = followed([], [100, 100])
    assert logrank(nobody, nobody, 99, KEY) is None
    assert logrank(followed([5], []), followed([5, 7], []), 99, KEY) is None
    assert logrank(followed([7, 7], []), followed([], [5, 5]), 99, KEY) is None  # nobody was left to compare with
    curves = event_curves(summaries([], [100, 100]), 0.95)
    assert (curves.events, curves.steps, curves.at_risk) == ({}, (100,), (2,))
