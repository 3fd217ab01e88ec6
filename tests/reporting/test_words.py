import math

import pytest

from tests import plant
from tests.examples import run_summary
from vaehpc.reporting import words
from vaehpc.schema.results import Comparison, DipTest, RunClass, RunSummary
from vaehpc.study.presets import analysis_plan


def plain(text: str) -> str:
    return text.replace(words.NBSP, " ")


def run(run_class: RunClass | None, *steps: int) -> RunSummary:
    triggers = [{"step": step, "signal": "log_var_max"} for step in steps]
    return run_summary(run_class, triggers=triggers, followed_steps=600)


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
    assert plain(words.recorded(summary)).startswith(
        "The flight recorder fired in 1 of 4 ended runs (0 of the 3 that stayed): 1 of vae-tiny. That is a recording,"
        " not a cause:"
    )
    calm = summary.model_copy(update={"runs": {"ae-seed000": run("regular")}})
    assert plain(words.recorded(calm)) == "The flight recorder fired in none of 1 ended run."


# p values


@pytest.mark.parametrize(
    ("p", "text"),
    [(None, "–"), (1.0, "1"), (0.123, "0.12"), (0.0341, "0.0341"), (0.00012, "0.0001"), (1e-7, "< 0.0001")],
)
def test_p_values(p, text):
    assert plain(words.p_value(p)) == text


# Modes, pairs


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
    assert alike.startswith(
        "vae-tiny: over 7 pairs of equal seeds, both finite, its median radius is 1.000 times that of ae"
    )
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


# Words of a report


def test_the_words_of_a_report_are_the_plans():
    plan = analysis_plan()
    plan = plan.model_copy(
        update={
            "probe": plan.probe.model_copy(update={"every_steps": 7, "burn_in_steps": 31, "burn_in_epochs": 0.0}),
            "course": plan.course.model_copy(update={"jump_factor": 3.5}),
        }
    )
    found = {term: plain(meaning) for term, meaning in words.terms(plan).items()}
    assert found["probe"].startswith("R of 512 images, every 7 steps")
    assert found["burn-in"].startswith("the first 31 steps, in which")
    assert "by more than a factor 3.5" in found["jump"]
    assert words.class_name("nonfinite") == "NaN"


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
