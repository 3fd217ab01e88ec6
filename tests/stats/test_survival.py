import math

import numpy as np
import pytest
from scipy import stats
from test_rates import runs

from vaehpc.stats.survival import Followed, logrank, logrank_scores, onset_curve

KEY = np.random.SeedSequence(2)
# Freireich and others (1963), remission of leukemia in weeks, as R's survival documents print it.
TREATED = [6, 6, 6, 7, 10, 13, 16, 22, 23], [6, 9, 10, 11, 17, 19, 20, 25, 32, 32, 34, 35]
PLACEBO = [1, 1, 2, 2, 3, 4, 4, 5, 5, 8, 8, 8, 8, 11, 11, 12, 12, 15, 17, 22, 23], []


def followed(onsets, censored):
    return Followed(np.array([*onsets, *censored]), np.array([True] * len(onsets) + [False] * len(censored)))


def summaries(onsets, censored, classes=()):
    """Runs with an onset, then runs without one that were followed up to these steps."""
    found = runs(*(["regular"] * len(onsets) + list(classes or ["regular"] * len(censored))))
    steps = [*onsets, *censored]
    return [
        run.model_copy(update={"onset_step": step if i < len(onsets) else None, "followed_steps": max(step, 40)})
        if i < len(onsets)
        else run.model_copy(update={"followed_steps": step})
        for i, (run, step) in enumerate(zip(found, steps, strict=True))
    ]


def test_published_survival():
    """R: summary(survfit(Surv(weeks, relapse) ~ treated)) prints these; its conf.type is log-log."""
    curve = onset_curve(summaries(*TREATED), 0.95)
    assert (curve.num_runs, curve.num_onsets) == (21, 9)
    printed = {6: (21, 3, 0.857, 0.620, 0.952), 13: (12, 1, 0.690, 0.432, 0.849), 23: (6, 1, 0.448, 0.188, 0.680)}
    for step, expected in printed.items():
        i = curve.steps.index(step)
        found = (curve.at_risk[i], curve.onsets[i], curve.share[i], curve.low[i], curve.high[i])
        assert found == pytest.approx(expected, abs=6e-4)


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


def test_without_an_onset_there_is_no_test_and_no_interval():
    nobody = followed([], [100, 100])
    assert logrank(nobody, nobody, 99, KEY) is None
    assert logrank(followed([5], []), followed([5, 7], []), 99, KEY) is None
    assert logrank(followed([7, 7], []), followed([], [5, 5]), 99, KEY) is None  # nobody was left to compare with
    curve = onset_curve(summaries([], [100, 100]), 0.95)
    assert (curve.num_onsets, curve.share, curve.low, curve.high) == (0, (1.0,), (None,), (None,))


def test_lost_runs_are_censored_where_they_were_last_seen():
    curve = onset_curve(summaries([400], [900, 250, 300, 0], ["regular", None, "nonfinite", None]), 0.95)
    assert (curve.num_runs, curve.num_onsets, curve.num_missing, curve.num_nonfinite) == (4, 1, 1, 1)
    assert dict(zip(curve.steps, curve.at_risk, strict=True)) == {250: 4, 300: 3, 400: 2, 900: 1}
    assert curve.share == (1, 1, 0.5, 0.5)
    assert onset_curve(summaries([], [0]), 0.95) is None
