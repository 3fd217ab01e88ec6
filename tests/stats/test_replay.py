import math

import numpy as np
import pytest
from scipy import stats

from tests.examples import REPLAY, probe_curve
from vaehpc.schema.config import NullWindow
from vaehpc.schema.plan import ReplayPlan
from vaehpc.schema.results import VARIANTS, Interval, ReplayResult, VariantResult
from vaehpc.stats.contrasts import boschloo
from vaehpc.stats.intervals import clopper_pearson
from vaehpc.stats.replay import (
    NO_FORKS,
    RunEvent,
    Tally,
    decide,
    farthest_radius,
    fork_ending,
    least_repeats,
    null_window,
    outcome_of_equals,
    outcome_of_treated,
    outcome_of_untreated,
    run_events,
    times_to_decide,
    until_step,
    verdict_line,
)

LEVEL = 0.95
NUM_STEPS = 2030
BURN_IN = 300
PLAN = ReplayPlan()
WINDOW = REPLAY.model_copy(update={"step": 900, "calm_step": 1000, "until_step": 1250})


def curve(jumps_at=math.inf, to=66.0, until=2000):
    """Probes at 50, 100, ...: R = 16, and from one step on another radius."""
    return probe_curve({step: to if step >= jumps_at else 16.0 for step in range(50, until + 1, 50)})


# Events of a run


def test_a_run_jumps_by_the_rule_of_its_course(plan):
    assert run_events(curve(1000), None, BURN_IN, plan) == [RunEvent("jump", 1000, 950)]
    assert run_events(curve(1000, to=23.9), None, BURN_IN, plan) == []  # less than 1.5 times
    assert run_events(curve(1000, to=8.0), None, BURN_IN, plan) == []


def test_what_comes_back_is_no_event_and_the_burn_in_has_no_jumps(plan):
    back = probe_curve({step: 66.0 if step == 1000 else 16.0 for step in range(50, 2001, 50)})
    assert run_events(back, None, BURN_IN, plan) == []
    assert run_events(curve(100), None, BURN_IN, plan) == []


def test_a_jump_that_the_last_probe_alone_saw_is_an_event(plan):
    assert run_events(curve(2000), None, BURN_IN, plan) == [RunEvent("jump", 2000, 1950)]


def test_a_step_that_is_not_finite_is_an_event_with_and_without_a_probe_before(plan):
    assert run_events(probe_curve({}), 19, BURN_IN, plan) == [RunEvent("nonfinite", 19, 0)]
    both = run_events(curve(1000, until=1050), 1060, BURN_IN, plan)
    assert both == [RunEvent("jump", 1000, 950), RunEvent("nonfinite", 1060, 1000)]


def test_a_run_was_calm_before_it_left_though_that_was_in_the_burn_in(plan):
    assert run_events(curve(250), None, 250, plan) == [RunEvent("jump", 300, 200)]


@pytest.mark.parametrize("to", [4.0, 13.0, 19.0, 23.9])
def test_a_fork_whose_radius_moves_by_less_than_a_jump_stayed(plan, to):
    assert ending(curve(1050, to=to, until=1250), plan=plan) == "stayed"


def test_a_fork_that_grows_on_as_the_run_grew_stayed(plan):
    growing = probe_curve({step: 5.0 * 1.08 ** (step / 50) for step in range(50, 1251, 50)})
    assert ending(growing, plan=plan) == "stayed"


def test_a_probe_that_is_not_finite_or_0_hides_no_event(plan):
    radii = dict.fromkeys(range(50, 1001, 50), 16.0) | {950: math.nan, 1000: 0.0}
    assert run_events(probe_curve(radii), 1010, BURN_IN, plan) == [RunEvent("nonfinite", 1010, 900)]


def test_a_fork_is_followed_as_long_as_a_jump_has_to_last(plan):
    assert until_step(RunEvent("jump", 1000, 950), NUM_STEPS, plan) == 1200
    assert until_step(RunEvent("jump", 1950, 1900), NUM_STEPS, plan) == 2000
    assert until_step(RunEvent("nonfinite", 19, 0), NUM_STEPS, plan) == 250
    assert until_step(RunEvent("nonfinite", 49, 0), NUM_STEPS, plan) == 250
    assert until_step(RunEvent("nonfinite", 50, 50), NUM_STEPS, plan) == 300
    assert until_step(RunEvent("nonfinite", 2010, 2000), NUM_STEPS, plan) == 2011  # behind the last probe


@pytest.mark.parametrize(
    ("radii", "expected"),
    [((20.0, 66.0, 14.0), 66.0), ((17.0, 8.0, 16.0), 8.0), ((32.1, 8.0, 16.0), 32.1), ((17.0, 0.0, 40.0), 0.0)],
)
def test_the_farthest_radius_lies_between_the_calm_probe_and_the_end(radii, expected):
    first, second, third = radii
    found = probe_curve({900: 99.0, 950: 16.0, 1000: first, 1050: second, 1100: third, 1150: 99.0})
    assert farthest_radius(found, 950, 1100) == expected


# Null windows


def test_null_forks_start_at_the_last_state_that_was_calm_for_as_long(plan):
    found = null_window(curve(1000), [0, 200, 400, 600, 800], 300, 950, plan)
    assert found == NullWindow(step=600, until_step=900, moved=1.0)


def test_a_window_that_moved_by_the_factor_or_begins_before_the_first_probes_is_no_null(plan):
    growing = probe_curve({step: 10.0 * 1.141 ** (step / 300) for step in range(50, 2001, 50)})
    assert null_window(growing, [200, 600], 300, 950, plan) is None
    slower = probe_curve({step: 10.0 * 1.13 ** (step / 300) for step in range(50, 2001, 50)})
    found = null_window(slower, [200, 600], 300, 950, plan)
    assert found is not None
    assert (found.step, found.moved) == (600, pytest.approx(1.13))
    assert null_window(curve(1000), [0, 100], 300, 950, plan) is None
    assert null_window(curve(1000), [150], 300, 950, plan) is not None


# Forks


def ending(probe, nonfinite_step=None, variant="clipped", replay=WINDOW, plan=None):
    return fork_ending(probe, nonfinite_step, replay, variant, BURN_IN, plan)


def test_a_fork_stays_jumps_or_is_not_finite(plan):
    assert ending(curve(until=1250), plan=plan) == "stayed"
    assert ending(curve(1050, until=1250), plan=plan) == "jump"
    assert ending(curve(until=1050), 1060, plan=plan) == "nonfinite"
    assert ending(curve(1050, until=1100), 1110, plan=plan) == "nonfinite"  # what it came to
    assert ending(curve(1000, until=1100), 1110, plan=plan) == "thrown"  # by what came first


def test_a_fork_is_compared_with_itself_and_not_with_the_run_that_dipped(plan):
    dipped = dict.fromkeys(range(50, 951, 50), 12.0)
    own = probe_curve(dipped | dict.fromkeys(range(1000, 1251, 50), 17.5))
    assert ending(own, plan=plan, replay=WINDOW.model_copy(update={"calm_radius": 10.5})) == "stayed"


def test_a_treated_fork_that_left_before_the_run_was_last_calm_was_thrown(plan):
    assert ending(curve(950, until=1250), plan=plan) == "thrown"
    assert ending(curve(1000, until=1250), plan=plan) == "thrown"
    assert ending(curve(until=950), 970, plan=plan) == "thrown"
    for variant in ("identical", "noise", "batches"):
        assert ending(curve(950, until=1250), variant=variant, plan=plan) == "jump"


def test_where_the_calm_probe_is_not_later_than_the_start_nothing_is_thrown(plan):
    early = WINDOW.model_copy(update={"calm_step": 900})
    assert ending(curve(950, until=1250), replay=early, plan=plan) == "jump"
    none = WINDOW.model_copy(update={"step": 0, "calm_step": None, "calm_radius": None, "jumped_radius": None})
    assert ending(probe_curve({}), 19, replay=none, plan=plan) == "nonfinite"
    assert ending(curve(until=250), replay=none, plan=plan) == "stayed"


def test_a_fork_without_the_calm_probe_cannot_be_compared(plan):
    probe = probe_curve({step: 16.0 for step in range(50, 1251, 50) if step != 1000})
    assert ending(probe, plan=plan) == "not comparable"


def test_what_the_run_did_before_the_start_is_no_event_of_a_fork(plan):
    assert ending(curve(600, until=1250), plan=plan) == "stayed"


def test_null_forks_are_followed_over_their_own_window(plan):
    replay = WINDOW.model_copy(update={"null": NullWindow(step=500, until_step=850, moved=1.0)})
    assert ending(curve(600, until=850), variant="null", replay=replay, plan=plan) == "jump"
    assert ending(curve(until=850), variant="null", replay=replay, plan=plan) == "stayed"


# Outcomes


def untreated(events, compared, null=None, missing=0, null_missing=0):
    of_null = NO_FORKS if null is None else Tally(*null, null_missing)
    return outcome_of_untreated(Tally(events, compared, missing), of_null, LEVEL, PLAN)


@pytest.mark.parametrize(
    ("events", "compared", "expected"),
    [
        (0, 5, "undecided"),
        (0, 6, "gone"),
        (6, 6, "persists"),
        (5, 20, "gone"),
        (6, 20, "undecided"),
        (15, 20, "persists"),
    ],
)
def test_without_null_forks_the_interval_must_lie_on_one_side_of_a_half(events, compared, expected):
    assert untreated(events, compared) == expected


@pytest.mark.parametrize(
    ("events", "null", "expected"),
    [
        (12, (0, 12), "persists"),
        (5, (0, 12), "persists"),  # p = 0.016: rare, but not by chance
        (3, (0, 12), "undecided"),  # p = 0.07
        (12, (12, 12), "undecided"),  # leaves anywhere
        (12, (6, 12), "undecided"),  # p = 0.002, but the null's interval holds a half
        (2, (0, 12), "gone"),
    ],
)
def test_with_null_forks_events_must_be_more_frequent_than_theirs(events, null, expected):
    assert untreated(events, 12, null) == expected


def treated(events, compared, of_untreated, missing=0, num_treatments=5):
    """All events of the run's own kind."""
    forks, others = Tally(events, compared, missing, events), Tally(*of_untreated, own=of_untreated[0])
    return outcome_of_treated(forks, others, num_treatments, LEVEL, PLAN)


def test_a_treatment_removes_the_runs_own_kind():
    def outcome(own, own_untreated, missing=0):
        return outcome_of_treated(Tally(2, 12, missing, own), Tally(12, 12, own=own_untreated), 5, LEVEL, PLAN)

    assert outcome(0, 0) == "gone"
    assert outcome(2, 3) == "gone"
    assert outcome(2, 2) == "other kind"
    assert outcome(2, 0) == "other kind"
    assert outcome(2, 3, missing=2) == "missing"


@pytest.mark.parametrize(
    ("events", "of_untreated", "expected"),
    [
        (0, (12, 12), "gone"),
        (0, (6, 12), "gone"),  # p = 0.005
        (0, (4, 12), "undecided"),  # p = 0.03, of five
        (5, (12, 12), "gone"),  # though their interval holds a half
        (6, (12, 12), "undecided"),  # fewer, but half of them
        (2, (7, 12), "undecided"),  # p = 0.02, of five
        (11, (12, 12), "persists"),
        (10, (12, 12), "persists"),
        (6, (6, 12), "undecided"),
    ],
)
def test_a_treatment_removes_what_untreated_forks_do(events, of_untreated, expected):
    assert treated(events, 12, of_untreated) == expected


@pytest.mark.parametrize("repeats", [6, 8, 16])
def test_a_treatment_that_does_nothing_is_rarely_a_cause(repeats):
    num_treatments, few = 5, range(repeats // 2)  # events of a treatment that may be gone
    is_gone = [[treated(x, repeats, (y, repeats)) == "gone" for x in few] for y in range(repeats + 1)]
    for rate in np.linspace(0.05, 0.95, 19):
        weights = stats.binom.pmf(range(repeats + 1), repeats, rate)
        of_each = np.array(is_gone) @ weights[: len(few)]  # by events of the untreated
        assert weights @ (1 - (1 - of_each) ** num_treatments) < PLAN.alpha


def test_of_one_treatment_less_is_asked_than_of_five():
    assert treated(0, 12, (4, 12), num_treatments=1) == "gone"


def test_missing_forks_count_where_they_could_change_the_outcome():
    assert untreated(0, 15, missing=5) == "gone"
    assert untreated(0, 14, missing=6) == "missing"
    assert untreated(12, 12, (0, 10), null_missing=2) == "persists"
    assert untreated(5, 12, (0, 6), null_missing=6) == "missing"
    assert treated(0, 11, (12, 12), missing=1) == "gone"
    assert treated(5, 11, (12, 12), missing=1) == "missing"
    assert treated(0, 12, (6, 6, 6)) == "gone"
    assert treated(0, 12, (3, 6, 6)) == "missing"
    assert treated(0, 0, (12, 12), missing=12) == "missing"


def test_forks_that_cannot_be_compared_leave_it_undecided():
    assert treated(0, 0, (12, 12)) == "undecided"
    assert treated(0, 12, (0, 0)) == "undecided"
    assert untreated(0, 0) == "undecided"


@pytest.mark.parametrize("level", [0.5, 0.9, 0.95, 0.99])
def test_fewest_repeats_that_can_decide(level):
    fewest = least_repeats(level)
    assert clopper_pearson(0, fewest, level).high < 0.5
    assert clopper_pearson(0, fewest - 1, level).high >= 0.5 - 1e-12


def test_six_repeats_are_the_fewest_of_the_plan_and_can_decide_all(plan):
    assert least_repeats(plan.level) == 6
    assert boschloo(0, 6, 6, 6, "less") < plan.replay.alpha


def test_three_identical_forks_must_all_have_the_event():
    assert outcome_of_equals(3, 3, num_missing=0) == "persists"
    assert outcome_of_equals(2, 3, num_missing=0) == "gone"
    assert outcome_of_equals(2, 3, num_missing=1) == "missing"
    assert outcome_of_equals(1, 3, num_missing=1) == "gone"


@pytest.mark.parametrize(("events", "compared", "times"), [(2, 8, 3), (10, 16, 5), (1, 8, 2), (6, 8, 3), (4, 8, None)])
def test_so_many_times_as_many_forks_would_decide_and_no_fewer(events, compared, times):
    found = times_to_decide(lambda forks, _: untreated(*forks[:2]), Tally(events, compared), NO_FORKS)
    assert found == times
    decided = [n for n in range(1, 9) if untreated(events * n, compared * n) != "undecided"]
    assert min(decided, default=None) == times


def test_forks_of_a_treatment_and_those_that_it_is_compared_with_grow_together():
    assert times_to_decide(lambda *of: treated(*of[0][:2], of[1][:2]), Tally(3, 12), Tally(7, 12)) == 3
    assert times_to_decide(lambda *of: treated(*of[0][:2], of[1][:2]), Tally(2, 8), Tally(14, 24)) == 4
    assert times_to_decide(lambda *of: treated(*of[0][:2], of[1][:2]), Tally(6, 12), Tally(12, 12)) is None


# The verdict


def outcomes(**changed):
    """Every variant persists but these, whose names are written with underscores."""
    every = {variant: "persists" for variant in VARIANTS if variant != "null"}
    return every | {name.replace("_", "-"): found for name, found in changed.items()}


@pytest.mark.parametrize(
    ("changed", "verdict"),
    [
        ({"identical": "gone", "noise": "gone"}, "not reproducible"),
        ({"noise": "gone", "epsilon5": "gone", "clipped": "gone"}, "noise"),
        ({"epsilon5": "gone", "clipped": "gone"}, "extreme epsilon"),
        ({"batches": "gone", "without_image": "gone"}, "batch content, image ID"),
        ({"batches": "gone", "clipped": "gone"}, "batch content"),
        ({"log_var_clamp": "gone", "clipped": "gone", "fresh_moments": "gone"}, "logvar explosion"),
        ({"clipped": "gone", "fresh_moments": "gone"}, "gradient spike"),
        ({"fresh_moments": "gone"}, "optimizer state"),
        ({"without_image": "not run", "clipped": "gone"}, "gradient spike"),
        ({"log_var_clamp": "undecided", "clipped": "gone"}, "gradient spike"),
        ({"epsilon5": "not run", "batches": "not run", "clipped": "gone"}, "gradient spike"),
        ({}, "the weights themselves"),
    ],
)
def test_the_first_rule_that_applies(changed, verdict):
    assert decide(outcomes(**changed), has_null=True).verdict == verdict


def test_noise_that_had_no_extremes_is_told_apart():
    assert decide(outcomes(noise="gone"), True, epsilon_max=4.9).verdict == "noise, not its extremes"
    assert decide(outcomes(noise="gone"), True, epsilon_max=5.1).verdict == "noise"


def test_without_null_forks_an_undecided_frequency_stops_no_treatment():
    changed = outcomes(noise="undecided", clipped="gone")
    assert decide(changed, has_null=False).verdict == "gradient spike"
    assert decide(changed, has_null=True).verdict == "not decided"
    assert decide(changed, has_null=True).asked == ("identical", "noise")


@pytest.mark.parametrize(
    ("changed", "at"),
    [
        ({"identical": "?"}, "identical"),
        ({"noise": "?", "clipped": "gone"}, "noise"),
        ({"clipped": "?"}, "clipped"),
        ({"fresh_moments": "?"}, "fresh-moments"),
    ],
)
@pytest.mark.parametrize("open_", ["missing", "not run"])
def test_an_open_outcome_on_the_way_leaves_it_undecided(changed, at, open_):
    found = decide(outcomes(**{name: open_ if of == "?" else of for name, of in changed.items()}), has_null=True)
    assert (found.verdict, found.asked[-1]) == ("not decided", at)


@pytest.mark.parametrize("at", ["epsilon5", "batches", "log-var-clamp"])
def test_missing_forks_can_hide_an_earlier_cause(at):
    found = decide(outcomes(clipped="gone") | {at: "missing"}, has_null=True)
    assert (found.verdict, found.asked[-1]) == ("not decided", at)


def test_what_is_not_decided_rests_on_forks_rather_than_on_what_was_not_run():
    found = decide(outcomes(epsilon5="not run", clipped="undecided"), has_null=False)
    assert (found.verdict, found.asked[-1]) == ("not decided", "clipped")


@pytest.mark.parametrize("variant", ["noise", "epsilon5", "clipped"])
def test_where_nothing_removes_it_an_undecided_outcome_keeps_the_weights_from_being_the_cause(variant):
    found = decide(outcomes() | {variant: "undecided"}, has_null=False)
    assert (found.verdict, found.asked[-1]) == ("not decided", variant)


def test_an_ae_is_asked_for_what_it_has():
    of_ae = {name: of for name, of in outcomes().items() if name not in ("noise", "epsilon5", "log-var-clamp")}
    found = decide(of_ae, has_null=True)
    assert found.asked == ("identical", "batches", "without-image", "clipped", "fresh-moments")
    assert found.verdict == "the weights themselves"
    assert decide(of_ae | {"batches": "gone"}, has_null=True).verdict == "batch content"
    assert decide(of_ae | {"without-image": "gone"}, has_null=True).verdict == "batch content, image ID"


# In one line


def result(verdict, rests_on, of_run=64.0, **counts):
    interval = Interval(low=0, high=1, level=LEVEL, method="")
    of = {"variant": "clipped", "changed": "new noise, clip", "num_repeats": 12, "num_missing": 0, "outcome": "gone"}
    found = VariantResult(**{**of, "num_jumps": 0, "interval": interval, "forks": (), **counts})
    untreated = {"variant": "noise", "changed": "new noise", "num_jumps": 9, "num_nonfinite": 2}
    return ReplayResult(
        study="forks",
        replay=REPLAY.model_copy(update={"jumped_radius": of_run, "event_step": 1000}),
        level=LEVEL,
        variants=(found.model_copy(update=untreated), found),
        repeats_source=True,
        verdict=verdict,
        rests_on=rests_on,
        explanation="",
        provenance={"code_version": "", "image_digest": None, "packages": {}},
    )


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, "0 of 12 jump; with new noise: 9 of 12 jump, 2 become NaN)"),
        ({"of_run": None}, "0 of 12 become NaN; with new noise: 9 of 12 jump, 2 become NaN)"),
        (
            {"num_jumps": 1, "num_nonfinite": 1, "num_thrown": 2},
            "1 of 10 jump, 1 become NaN; with new noise: 9 of 10 jump, 2 become NaN)",
        ),
        ({"num_nonfinite": 2}, "2 of 12 become NaN; with new noise: 9 of 12 jump, 2 become NaN)"),
    ],
)
def test_a_verdict_in_one_line_names_the_event_and_what_was_changed(given, expected):
    event = "NaN" if "of_run" in given else "jump seen"
    said = f"({event} at step 1,000: gradient spike; forks with new noise, clip: {expected}"
    assert verdict_line(result("gradient spike", "clipped", **given)) == said


def test_a_verdict_on_the_untreated_forks_names_them_alone():
    said = "(jump seen at step 1,000: noise; forks with new noise: 9 of 12 jump, 2 become NaN)"
    assert verdict_line(result("noise", "noise")) == said
    equals = result("not reproducible", "identical", variant="identical", changed="nothing")
    assert verdict_line(equals).endswith(": not reproducible; forks with nothing changed: 0 of 12 jump)")


def test_a_verdict_of_an_older_release_has_neither_event_nor_variant():
    older = result("gradient spike", None)
    older = older.model_copy(update={"replay": older.replay.model_copy(update={"event_step": None})})
    assert verdict_line(older) == "(forked from step 900: gradient spike)"


def test_of_several_verdicts_each_says_from_which_step():
    said = verdict_line(result("noise", "noise"), says_start=True)
    assert said.startswith("(jump seen at step 1,000, forked from step 900: noise; forks with new noise: 9 of 12 jump")
