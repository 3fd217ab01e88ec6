import math
import re

import pytest

from tests import plant
from tests.examples import run_summary
from vaehpc.reporting import words
from vaehpc.schema.results import ArmSummary, Comparison, Contrast, DipTest, PlannedLook, RunClass, RunSummary
from vaehpc.stats.contrasts import boschloo
from vaehpc.stats.divergence import Control, ControlScale
from vaehpc.stats.rates import summarise_arm
from vaehpc.study.presets import analysis_plan

AE = Control("ae", ControlScale(centre=16.0, scatter=0.05), num_runs=8)


def plain(text: str) -> str:
    return text.replace(words.NBSP, " ")


def run(run_class: RunClass | None, *steps: int) -> RunSummary:
    triggers = [{"step": step, "signal": "log_var_max"} for step in steps]
    return run_summary(run_class, triggers=triggers, followed_steps=600)


def arm(*classes: RunClass | None, control: Control = AE) -> ArmSummary:
    return summarise_arm([run(run_class) for run_class in classes], control, analysis_plan())


@pytest.mark.parametrize(
    ("share", "text"),
    [
        (0, "0 %"),
        (0.2059, "20.6 %"),
        (0.0063, "0.6 %"),
        (0.00039, "0.04 %"),
        (0.25, "25 %"),
        (0.95, "95 %"),
        (1, "100 %"),
    ],
)
def test_percent(share, text):
    assert plain(words.percent(share)) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "–"),
        (math.nan, "NaN"),
        (math.inf, "∞"),
        (0.0, "0"),
        (16.0, "16"),
        (16.2, "16.20"),
        (17.37412, "17.37"),
        (999.96, "1000"),
        (4555.6641, "4,555.7"),
        (1329, "1,329"),
        (0.0178, "0.01780"),
        (-24.660698, "-24.66"),
        (3.9e-6, "3.900 × 10⁻⁶"),
        (43_520_000, "4.352 × 10⁷"),
    ],
)
def test_number(value, text):
    assert plain(words.number(value)) == text


def test_mode_beyond_the_histogram():
    plan = analysis_plan().radius
    assert [plain(words.mode(mode, plan)) for mode in (16.75, math.inf, None)] == ["16.75", "≥ 35", "–"]


def test_rate_of_the_article():
    said = plain(words.outcome(arm("diverged", "regular", "regular", "regular")))
    assert said == ("1 of 4 ended runs diverged, a rate of 25 % (exact 95 % Clopper-Pearson interval 0.6 % to 80.6 %).")


def test_none_of_16_is_not_never():
    said = plain(words.outcome(arm(*["regular"] * 16)))
    assert said == (
        "0 of 16 ended runs diverged. That is not 'never': the data allow a rate of up to 20.6 % (exact 95 %"
        " Clopper-Pearson interval 0 % to 20.6 %)."
    )


def test_missing_runs_leave_the_denominator_and_give_bounds():
    said = plain(words.outcome(arm("diverged", "diverged", None, None, *["regular"] * 4)))
    assert "2 of 6 ended runs diverged, a rate of 33.3 %" in said
    assert "2 runs missing: the rate would be 25 % had no missing run diverged, and 50 % had every one." in said


def test_nonfinite_runs_stand_beside_the_rate():
    said = plain(words.outcome(arm("diverged", "nonfinite", "regular", "regular")))
    assert "1 of 4 ended runs diverged" in said
    assert "1 run became NaN or infinite; diverged or non-finite together are 2 of 4." in said


def test_runs_that_came_back_are_told():
    came_back = arm("diverged", "regular").model_copy(update={"num_ever_diverged": 2})
    assert "At some time during training 2 were beyond the limit." in words.outcome(came_back)
    assert "At some time" not in words.outcome(arm("diverged", "regular"))


def test_nothing_ended():
    said = plain(words.outcome(arm(None, None)))
    assert said == "none of 2 runs has ended; nothing can be said about the rate."


@pytest.mark.parametrize(
    ("control", "reason"),
    [
        (Control(None, None, 0), "the study has no control arm for them"),
        (Control("ae", None, 0), "no run of their control arm ae ended with finite radii"),
    ],
)
def test_unclassified_runs_have_no_rate_and_the_reason_is_given(control, reason):
    said = plain(words.outcome(arm("unclassified", "unclassified", "nonfinite", None, control=control)))
    assert said.startswith("no rate. 2 of 3 ended runs could not be classed: " + reason)
    assert said.endswith("1 run became NaN or infinite.")
    assert "%" not in said


def test_synthetic_demo_says_what_it_is(tmp_path):
    study, summary = plant.classed(tmp_path / "demo", {"ae": ["regular"] * 4, "vae-tiny": ["regular"] * 4})
    assert words.caveats(study.config(), summary) == [
        "Built-in synthetic faces: the study shows the machinery and says nothing about CelebA.",
        "The demo preset shows the machinery, not science: a small net, few and small images, few steps.",
        "The classes of ae and vae-tiny are provisional: the plan asks for at least 8\N{NO-BREAK SPACE}control runs,"
        " and there are fewer.",
    ]


def test_a_study_of_the_articles_data_with_enough_controls_has_no_caveat(tmp_path):
    classes = {"ae": ["regular"] * 8, "vae-tiny": ["regular", "diverged"]}
    study, summary = plant.classed(tmp_path / "full", classes, synthetic=False, preset="article")
    assert words.caveats(study.config(), summary) == []


def test_rates_that_were_not_tested_are_not_compared(mixed):
    study, summary = mixed
    untested = words.caveats(study.config(), summary.model_copy(update={"contrasts": ()}))
    assert untested[-1] == "Rates of different arms were not tested against each other: no difference is claimed."
    assert not any("not tested" in caveat for caveat in words.caveats(study.config(), summary))


def test_what_came_after_the_launch_is_exploratory(mixed):
    study, summary = mixed
    later = summary.model_copy(update={"deviations": ("the arm ae was added after the first launch",)})
    assert words.caveats(study.config(), later)[-1] == (
        "Not as planned before the first launch, so that every test is exploratory: the arm ae was added after the"
        " first launch."
    )
    assert not any("exploratory" in caveat for caveat in words.caveats(study.config(), summary))


def test_a_single_arm_classed_by_the_articles_radius(tmp_path):
    study, summary = plant.classed(tmp_path / "alone", {"vae-tiny": ["regular"] * 9}, synthetic=False, preset="article")
    caveats = words.caveats(study.config(), summary)
    assert any("has no control arm in this study and is classed by the article's radius of 16.75" in c for c in caveats)
    assert not any("difference" in caveat for caveat in caveats)


def test_scattered_controls_are_exploratory(mixed):
    study, summary = mixed
    arms = {name: found.model_copy(update={"exploratory": True}) for name, found in summary.arms.items()}
    scattered = words.caveats(study.config(), summary.model_copy(update={"arms": arms}))
    assert any(caveat.startswith("For ae, vae-tiny and vae-eps5 'shifted' and 'regular' are") for caveat in scattered)
    assert not any("exploratory" in caveat for caveat in words.caveats(study.config(), summary))


@pytest.mark.parametrize(
    ("num_runs", "num_missing", "text"),
    [
        (4, 0, "All of them ended."),
        (4, 1, "3 ended; 1 is missing and counts as neither diverged nor regular."),
        (4, 2, "2 ended; 2 are missing and count as neither diverged nor regular."),
        (4, 4, "None of them has ended, so that the study says nothing yet."),
    ],
)
def test_ended(num_runs, num_missing, text):
    assert words.ended(num_runs, num_missing) == text


def test_every_number_of_the_abstract_comes_from_the_summary(mixed):
    study, summary = mixed
    said = [words.overview(study.config(), summary), *map(words.outcome, summary.arms.values())]
    said = plain(" ".join([*said, *words.tested(study.config(), summary)]))
    plan = study.config().plan
    for name in sorted(summary.arms, key=len, reverse=True):  # 'ae' is a part of 'vae-eps5'
        said = said.replace(name, "")
    arms = summary.arms.values()
    counts = [value for arm in arms for value in arm.model_dump().values() if type(value) is int]
    ended = [arm.num_runs - arm.num_missing for arm in arms]
    data = [summary.data.num_train, summary.data.image_size]
    totals = [sum(arm.num_runs for arm in arms), sum(ended), sum(arm.num_missing for arm in arms)]
    shares = [value for arm in arms for value in arm.model_dump().values() if type(value) is float]
    factor = analysis_plan().classes.diverged_factor
    pairs = {plain(words.percent(contrast.power)) for contrast in summary.contrasts}
    known = {plain(words.percent(plan.contrasts.rate)), plain(words.percent(plan.contrasts.versus))} | pairs
    known = {share.removesuffix(" %") for share in known}
    known |= {f"{count:,}" for count in counts + ended + data + totals} | {f"{factor:g}"}
    known |= {plain(words.percent(share)).removesuffix(" %") for share in shares}
    assert set(re.findall(r"\d[\d,.]*\d|\d", said)) <= known


def test_arms_that_differ_alike_from_the_article_are_told_once():
    differences = {"ae": ("epochs 6",), "vae-tiny": (), "vae-eps5": ("epochs 6",), "vae-eps2": ("epochs 6", "z_dim 8")}
    comparison = Comparison(rows=(), differences=differences, footnotes=())
    assert words.differences(comparison) == ["ae and vae-eps5: epochs 6.", "vae-eps2: epochs 6; z_dim 8."]


def test_enumeration():
    assert [words.enumeration(list(letters)) for letters in ("a", "ab", "abc")] == ["a", "a and b", "a, b and c"]


@pytest.mark.parametrize(
    ("steps", "text"),
    [((), "–"), ((27_874,), "log_var_max at 27,874"), ((300, 600, 900), "log_var_max at 300, 2 more")],
)
def test_triggers_of_a_run(steps, text):
    assert words.triggers(run("regular", *steps)) == text


def test_where_the_recorder_fired_is_told_by_arm(tmp_path):
    _, summary = plant.classed(
        tmp_path / "fired", {"ae": ["regular", "regular"], "vae-tiny": ["diverged", "regular", None]}
    )
    assert plain(words.recorded(summary)).startswith("The flight recorder fired in 1 of 4 ended runs: 1 of vae-tiny.")
    calm = summary.model_copy(update={"runs": {"ae-seed000": run("regular")}})
    assert plain(words.recorded(calm)) == "The flight recorder fired in none of 1 ended run."


# Tests between arms


def contrast(x: int, n: int, y: int, m: int, holm: float | None = None, **changes) -> Contrast:
    p = boschloo(x, n, y, m, "greater")
    fields = {
        "arm": "vae-tiny", "reference": "ae", "is_control": True, "alternative": "greater", "num_diverged": x,
        "num_ended": n, "reference_diverged": y, "reference_ended": m, "boschloo": p, "fisher": p,
        "holm": p if holm is None else holm, "boschloo_if_missing": (p, p), "num_pairs": min(n, m), "only_arm": x,
        "only_reference": y, "mcnemar": None, "power": 0.331, "least_p": boschloo(n, n, 0, m, "greater"),
        "logrank": None, "logrank_p": None, "num_permutations": 0,
    }  # fmt: skip
    return Contrast.model_validate(fields | changes)


def said_of(mixed, *contrasts: Contrast) -> list[str]:
    study, summary = mixed
    return [plain(said) for said in words.tested(study.config(), summary.model_copy(update={"contrasts": contrasts}))]


def test_a_difference_is_told_with_its_counts_and_p(mixed):
    (said,) = said_of(mixed, contrast(6, 8, 0, 8, holm=0.0123))
    assert said == (
        "vae-tiny diverged more often than its control ae: 6 of 8 against 0 of 8 (Boschloo's exact test, one-sided,"
        f" p = {words.p_value(boschloo(6, 8, 0, 8, 'greater'))}; after Holm's adjustment p = 0.0123)."
    )
    (less,) = said_of(mixed, contrast(0, 30, 28, 30, 1e-6, is_control=False, alternative="two-sided", boschloo=1e-9))
    assert less.startswith("vae-tiny diverged less often than ae: 0 of 30 against 28 of 30")
    assert "two-sided, p < 0.0001; after Holm's adjustment p < 0.0001" in less


def test_without_a_difference_the_text_says_how_little_that_means(mixed):
    (said,) = said_of(mixed, contrast(2, 8, 0, 8), contrast(6, 8, 0, 8, holm=0.06, arm="vae-eps5", power=0.5))
    assert said == (
        "No difference was shown between vae-tiny and ae (2 of 8 against 0 of 8) and vae-eps5 and ae (6 of 8 against 0"
        " of 8). That is no proof of equal rates: with so many runs, 25 % against 0 % is found with a probability of"
        " 33.1 % to 50 % before Holm's adjustment."
    )


def test_so_few_runs_that_nothing_can_be_shown_are_named(mixed):
    (said,) = said_of(mixed, contrast(2, 2, 0, 2))
    assert said.endswith("For vae-tiny and ae there are so few runs that no outcome could have shown one.")


def look(number: int, num_diverged: int, least: int | None) -> PlannedLook:
    return PlannedLook(
        arm="vae-tiny", reference="ae", looks=(8, 16), number=number, spent=0.0056, num_diverged=num_diverged,
        reference_diverged=0, least_diverged=least, stops=least is not None and num_diverged >= least,
    )  # fmt: skip


def looked(mixed, of: PlannedLook | None, *contrasts: Contrast) -> list[str]:
    study, summary = mixed
    config = study.config()
    plan = config.plan.contrasts.model_copy(update={"looks": (8, 16)})
    config = config.model_copy(update={"plan": config.plan.model_copy(update={"contrasts": plan})})
    summary = summary.model_copy(update={"contrasts": contrasts, "look": of})
    return [plain(said) for said in words.tested(config, summary)]


def test_before_the_last_look_nothing_else_is_tested(mixed):
    found = contrast(6, 8, 0, 8, holm=0.001, arm="vae-eps5")
    assert looked(mixed, look(1, 4, 6), found) == [
        "Look 1 of 2, after 8 seeds per arm: 4 runs of vae-tiny diverged and 0 of ae, beside which 6 are needed to stop"
        " (O'Brien-Fleming-like spending; 0.6 % of a false alarm until now). The plan goes on to 16 seeds; nothing else"
        " is tested before the last look."
    ]
    (stopped,) = looked(mixed, look(1, 6, 6), found)
    assert stopped.endswith("vae-tiny diverged more often than ae: the plan stops here.")
    (hopeless,) = looked(mixed, look(1, 8, None), found)
    assert "no number would be enough to stop" in hopeless


def test_the_last_look_judges_its_arms_and_the_tests_the_others(mixed):
    found = contrast(6, 16, 0, 16, holm=0.001)
    other = contrast(7, 16, 0, 16, holm=0.002, arm="vae-eps5")
    last, tested = looked(mixed, look(2, 3, 5), found, other)
    assert last.endswith("No difference was shown, which is no proof of equal rates.")
    assert tested.startswith("vae-eps5 diverged more often than its control ae")


def test_between_looks_nothing_is_tested(mixed):
    (said,) = looked(mixed, None, contrast(6, 8, 0, 8, holm=0.001))
    assert said == (
        "The plan judges the counts after 8 and 16 seeds of each arm. This is none of these looks, or runs are missing:"
        " nothing is tested."
    )


@pytest.mark.parametrize(
    ("p", "text"),
    [(None, "–"), (1.0, "1"), (0.123, "0.12"), (0.0341, "0.0341"), (0.00012, "0.0001"), (1e-7, "< 0.0001")],
)
def test_p_values(p, text):
    assert plain(words.p_value(p)) == text


def test_missing_runs_leave_p_open():
    assert plain(words.range_of_p(contrast(2, 8, 0, 8, boschloo_if_missing=(0.01, 0.3)))) == "0.01 to 0.3"
    assert words.range_of_p(contrast(2, 8, 0, 8)) == words.NO_VALUE


# Onsets, modes, pairs


def test_onsets_and_what_became_of_the_other_runs(mixed):
    _, summary = mixed
    curve = summary.onsets["vae-tiny"]
    assert plain(words.onsets("vae-tiny", curve)) == "vae-tiny: 2 of 7 runs had an onset."
    lost = curve.model_copy(update={"num_missing": 2, "num_nonfinite": 1})
    assert words.onsets("vae-tiny", lost).endswith(
        "had an onset; seen to their end but for 2 missing and 1 not finite."
    )


def test_a_logrank_test_says_how_it_was_permuted():
    drawn = contrast(2, 8, 0, 8, logrank=-1.5, logrank_p=0.2, num_permutations=9999)
    assert plain(words.sooner(drawn)).endswith(
        "z = −1.500, two-sided p = 0.2 (9,999 permutations of the arms; not adjusted)."
    )
    assert "(all permutations of the arms" in words.sooner(drawn.model_copy(update={"num_permutations": 0}))


def test_a_second_peak_is_only_named_where_the_dip_shows_it():
    assert "have more than one peak" in words.modes("vae-tiny", DipTest(num_runs=12, dip=0.2, p=0.01), 0.95)
    assert "no second peak of its runs' radii is shown" in words.modes(
        "ae", DipTest(num_runs=12, dip=0.1, p=0.06), 0.95
    )


def test_likeness_is_said_as_far_as_its_interval_goes(mixed):
    _, summary = mixed
    found = summary.likeness["vae-tiny"]
    shift = found.effects["median_shift"]

    def said(low: float | None, high: float | None, radii: str) -> str:
        effects = found.effects | {"median_shift": shift.model_copy(update={"mean": 0.0, "low": low, "high": high})}
        return plain(words.likeness("vae-tiny", found.model_copy(update={"effects": effects, "radii": radii})))

    alike = said(-0.02, 0.02, "alike")
    assert alike.startswith("vae-tiny: over 7 pairs of equal seeds its median radius is 1.000 times that of ae")
    assert "95 % interval 0.980 to 1.020). In 4 pairs a run is not regular." in alike
    assert "Within the margin of 15 % set in the plan its radii are an AE's." in alike
    assert "differ by more than the margin" in said(0.5, 0.7, "different")
    assert "is not decided" in said(-0.1, 0.7, "undecided")
    alone = said(None, None, "undecided")
    assert alone.endswith("One pair has no interval: whether they are alike cannot be said.")


def test_nearness_needs_an_interval_that_leaves_zero(mixed):
    _, summary = mixed
    found = summary.likeness["vae-tiny"]
    effect = found.effects["procrustes"]

    def said(**changes: float | None) -> str:
        effects = found.effects | {"procrustes": effect.model_copy(update=changes)}
        return words.likeness("vae-tiny", found.model_copy(update={"effects": effects}))

    assert "are nearer to the AE's than" in said(excess_low=-0.5, excess_high=-0.1)
    assert "are farther from the AE's than" in said(excess_low=0.1, excess_high=0.5)
    assert "Whether its latent points are farther" in said(excess_low=-0.1, excess_high=0.1)
    assert "latent points" not in said(excess_low=None, excess_high=None)


# One run


def test_seeds_in_a_row_are_not_listed():
    assert words.seeds(range(16)) == "0 to 15"
    assert words.seeds((0, 3, 7)) == "0, 3 and 7"
    assert words.seeds((4, 5)) == "4 and 5"


@pytest.mark.parametrize(("count", "said"), [(0, "never"), (1, "once"), (3, "3 times")])
def test_how_often_the_recorder_fired(count, said):
    assert words.times(count) == said


def test_a_run_without_results_has_no_finding():
    assert words.run_findings(run(None), None) == []


def test_a_bar_does_not_end_a_cell():
    assert words.in_cell("max |R_z - R_mu|") == r"max \|R_z - R_mu\|"
