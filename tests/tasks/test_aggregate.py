import copy
import json
import math
import os
import shutil
import tempfile
from collections.abc import Iterator
from functools import reduce
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from readers_check import differences, recompute, unexplained, unfounded, untrue
from scipy import stats

from tests import plant
from tests.examples import AE, VAE, Course, quick_plan, spiked_record, study_config, trigger_record
from tests.reporting import planted as planting
from tests.reporting.planted import Arms, Run, regular
from vaehpc.command import UserError
from vaehpc.stats.quantities import QUANTITIES
from vaehpc.stats.quantities import measure as of_quantities
from vaehpc.stats.runs import MeasuredRun
from vaehpc.study.attempts import part_of, read_json
from vaehpc.study.files import RunDir, StudyDir, record_text, write_model
from vaehpc.tasks import aggregate, statistics
from vaehpc.tasks.probe import read_probe

ORDINARY_USER = 65534
CONTROL_RADII = (15.0, 15.5, 16.0, 16.0, 16.0, 16.5, 16.5, 17.0)
VAE_RADII = {
    "regular": 16.5,
    "shifted": 19.5,
    "diverged": 66.0,
    "collapsed": 7.0,
    "diverged too": 40.0,
    "came back": 16.0,
    "nonfinite in training": 16.0,
    "nonfinite latents": None,
    "untrained": None,
    "unmeasured": 16.0,
}
"""What is planted in vae-tiny-seed000, 001, ...; every point of a run lies on a sphere of this radius."""
SEEDS = {what: f"vae-tiny-seed{seed:03d}" for seed, what in enumerate(VAE_RADII)}


@pytest.fixture(scope="module")
def planted(tmp_path_factory) -> StudyDir:
    """An AE arm of eight runs around R = 16, and a VAE arm with one run of each kind."""
    config = study_config([AE, VAE], {"ae": len(CONTROL_RADII), "vae-tiny": len(VAE_RADII)}, quick_plan())
    study = plant.study(tmp_path_factory.mktemp("studies") / "planted", config)
    for seed, radius in enumerate(CONTROL_RADII):
        measure(study.run(f"ae-seed{seed:03d}"), radius)
    for what, radius in VAE_RADII.items():
        if what == "untrained":
            crash(study.run(SEEDS[what]))
        elif what == "unmeasured":
            plant.trained(study.run(SEEDS[what]), course={}, mu=plant.sphere(radius))
        else:
            measure(study.run(SEEDS[what]), radius, course=PROBES.get(what, {}), **GIVEN.get(what, {}))
    plant.probe(study.run(SEEDS["untrained"]).probe, settled(16, 16))
    return study


GIVEN = {
    "nonfinite in training": {"nonfinite_step": 7},
    "diverged": {"triggers": [trigger_record(step=step) for step in (701, 349)]},
}


def measure(run_dir: RunDir, radius: float, **given: Any) -> None:
    """A run with all its points at this radius, measured."""
    plant.trained(run_dir, mu=plant.sphere(math.nan if radius is None else radius), **{"course": {}} | given)
    statistics.run(str(run_dir.path))


def settled(*medians: float) -> Course:
    """Probes at R = 16 for 300 steps, then these at 350, 400, ..."""
    return dict(zip(range(50, 10_000, 50), [16.0] * 6 + list(medians), strict=False))


PROBES = {
    "regular": settled(16, 50, 16, 16),
    "diverged": settled(16, 16, 66, 66),
    "diverged too": settled(19, 22.5, 27, 32.4, 39, 40),
    "came back": settled(16, 50, 50, 50, 16, 16),
}


def crash(run_dir: RunDir) -> None:
    """Two attempts at a training, the last with a long log."""
    plant.start(run_dir, log="an older attempt\n")
    plant.start(run_dir, log="".join(f"line {n}\n" for n in range(40)) + "MemoryError\n")


@pytest.fixture(scope="module")
def summary(planted):
    """summary.json as others read it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", "1")  # pages are drawn here: processes for them would import all of this anew
        aggregate.run(str(planted.path))
    return json.loads(planted.summary_path.read_text())


def share(count: int, *intervals: tuple[float, float]) -> dict[str, Any]:
    """Of 8 ended runs and 2 missing ones: Clopper and Pearson's interval, Wilson's, Jeffreys'."""
    exact, *others = (
        {"low": pytest.approx(low, abs=5e-5), "high": pytest.approx(high, abs=5e-5), "level": 0.95, "method": method}
        for method, (low, high) in zip(("Clopper-Pearson", "Wilson", "Jeffreys"), intervals, strict=True)
    )
    bounds = {"if_none_missing": count / 10, "if_all_missing": (count + 2) / 10}
    return {"count": count, "num_ended": 8, "interval": exact, "other_intervals": others, **bounds}


def test_counts_are_the_planted_ones(summary):
    assert summary["arms"]["vae-tiny"] == {
        "num_runs": 10,
        "num_missing": 2,
        "num_diverged": 2,
        "num_ever_diverged": 3,
        "num_diverged_or_nonfinite": 4,
        "num_nonfinite": 2,
        "num_shifted": 1,
        "num_collapsed": 1,
        "num_displaced": 0,
        "num_unclassified": 0,
        "diverged_how": {"jumped": 1, "grew": 1},
        "returned_how": {"jumped": 1},
        "num_nonfinite_after": 0,
        "num_jumped": 2,
        "num_excursions": 1,
        "num_far": 0,
        "first_step": 350,
        "endpoints": {
            "diverged": share(2, (0.0319, 0.6509), (0.0715, 0.5907), (0.0560, 0.5916)),
            "diverged or nonfinite": share(4, (0.1570, 0.8430), (0.2152, 0.7848), (0.1990, 0.8010)),
            "jumped": share(2, (0.0319, 0.6509), (0.0715, 0.5907), (0.0560, 0.5916)),
            "jumped or nonfinite": share(4, (0.1570, 0.8430), (0.2152, 0.7848), (0.1990, 0.8010)),
        },
        "unjudged": None,
        "regular_factor": None,
        "rate": 0.25,
        "low": pytest.approx(0.0319, abs=5e-5),
        "high": pytest.approx(0.6509, abs=5e-5),
        "level": 0.95,
        "method": "Clopper-Pearson",
        "control": "ae",
        "control_faults": {},
        "provisional": False,
        "exploratory": False,
        "control_radius": pytest.approx(16.0),
        "control_scatter": 0.05,
    }
    ae = summary["arms"]["ae"]
    assert (ae["num_runs"], ae["num_missing"], ae["num_diverged"], ae["num_shifted"], ae["rate"]) == (8, 0, 0, 0, 0)


def test_classes_and_onsets_are_the_planted_ones(summary):
    found = {what: summary["runs"][name] for what, name in SEEDS.items()}
    assert {what: run["class"] for what, run in found.items()} == {
        "regular": "regular",
        "shifted": "shifted",
        "diverged": "diverged",
        "collapsed": "collapsed",
        "diverged too": "diverged",
        "came back": "regular",
        "nonfinite in training": "nonfinite",
        "nonfinite latents": "nonfinite",
        "untrained": None,
        "unmeasured": None,
    }
    onsets = {what: (run["onset_step"], run["onset_kind"]) for what, run in found.items() if run["onset_step"]}
    assert onsets == {"diverged": (450, "jump"), "diverged too": (500, "growth"), "came back": (400, "jump")}
    assert found["regular"]["course"] == {
        "first_step": 350,
        "far": False,
        "marks": [{"kind": "excursion", "step": 400, "after": 350, "factor": pytest.approx(50 / 16), "gap": False}],
        "unknown_after": None,
    }
    (growth,) = found["diverged too"]["course"]["marks"]
    assert growth["factor"] == pytest.approx(32.4 / 32)
    assert {what for what, run in found.items() if run["ever_diverged"]} == {"diverged", "diverged too", "came back"}


def test_the_tests_are_those_of_the_planted_counts(summary):
    """2 and 4 of 8 against 0 of 8; the missing runs make it at most 4 and 6 of 10; all eight pairs ended."""
    (contrast,) = summary["contrasts"]
    assert (contrast["arm"], contrast["reference"], contrast["alternative"]) == ("vae-tiny", "ae", "greater")
    # Seeds 8 and 9 are missing in the one arm and not there in the other.
    assert [contrast[name] for name in ("num_pairs", "num_equal", "family", "exploratory")] == [8, 0, 2, []]
    assert contrast["least_p"] == pytest.approx(boschloo(8, 8))
    p = {endpoint: boschloo(count, 8) for endpoint, count in (("diverged", 2), ("diverged or nonfinite", 4))}
    adjusted = {"diverged": p["diverged"], "diverged or nonfinite": 2 * p["diverged or nonfinite"]}
    ranges = {
        endpoint: [boschloo(count + 2, 10), boschloo(count, 10)] for endpoint, count in zip(p, (2, 4), strict=True)
    }
    worst = {"diverged": ranges["diverged"][1], "diverged or nonfinite": 2 * ranges["diverged or nonfinite"][1]}
    for (endpoint, test), count, only, fisher in zip(
        contrast["tests"].items(), (2, 4), (0.25, 0.0625), (28 / 120, 70 / 1820), strict=True
    ):  # C(8, 2) / C(16, 2), C(8, 4) / C(16, 4)
        counts = [test[name] for name in ("count", "num_ended", "reference_count", "reference_ended")]
        assert counts == [count, 8, 0, 8]
        assert test["fisher"] == pytest.approx(fisher)
        assert test["boschloo"] == pytest.approx(p[endpoint])
        assert test["two_sided"] == pytest.approx(2 * p[endpoint])
        assert test["boschloo_if_missing"] == pytest.approx(ranges[endpoint])
        assert test["holm"] == pytest.approx(adjusted[endpoint])
        assert test["holm_if_missing"] == pytest.approx(worst[endpoint])
        assert [test[name] for name in ("only_arm", "only_reference", "mcnemar")] == [count, 0, only]


def boschloo(count: int, num_runs: int) -> float:
    """One-sided, against 0 of 8."""
    return stats.boschloo_exact([[count, 0], [num_runs - count, 8]], alternative="greater").pvalue


def test_events_are_followed_to_the_last_probe(summary):
    """Steps trained, 10, or up to the last probe that is planted; a missing run was seen as far as its probes."""
    followed = {what: summary["runs"][name]["followed_steps"] for what, name in SEEDS.items()}
    assert followed == {
        "regular": 500, "shifted": 10, "diverged": 500, "collapsed": 10, "diverged too": 600, "came back": 600,
        "nonfinite in training": 7, "nonfinite latents": 10, "untrained": 400, "unmeasured": 0,
    }  # fmt: skip
    curves = summary["events"]["vae-tiny"]
    assert [curves[name] for name in ("num_runs", "num_far", "num_missing", "num_unknown")] == [9, 0, 1, 0]
    assert curves["steps"] == [7, 10, 400, 450, 500]
    assert curves["at_risk"] == [9, 8, 5, 3, 2]
    assert curves["censored"] == [0, 2, 1, 0, 1]
    assert {kind: found["count"] for kind, found in curves["events"].items()} == {
        "jump": 2,
        "growth": 1,
        "nonfinite": 2,
    }
    for kind, share in {
        "nonfinite": [1 / 9, 2 / 9, 2 / 9, 2 / 9, 2 / 9],
        "jump": [0, 0, 7 / 9 / 5, 7 / 45 + 28 / 45 / 3, 49 / 135],
        "growth": [0, 0, 0, 0, 56 / 135 / 2],
    }.items():
        assert curves["events"][kind]["share"] == pytest.approx(share)
    assert [curves["if_none_missing"], curves["if_all_missing"]] == pytest.approx([5 / 9, 6 / 9])
    assert (summary["events"]["ae"]["steps"], summary["events"]["ae"]["events"]) == ([10], {})


def test_other_limits_give_other_counts(summary):
    """R of 19.5, 66, 7, 40 beside the control's 16."""
    rows = {
        (row["diverged_factor"], row["shifted_limit"]): [
            row[name] for name in ("num_diverged", "num_collapsed", "num_shifted")
        ]
        for row in summary["sensitivity"]["vae-tiny"]
        if (row["jump_factor"], row["lasting_probes"]) == (1.5, 5)
    }
    assert rows[2.0, 0.14] == [2, 1, 1]
    assert rows[2.0, 0.20] == [2, 1, 0]  # ln (19.5 / 16) = 0.198
    assert rows[3.0, 0.14] == [1, 0, 3]
    jumped = {
        (row["jump_factor"], row["lasting_probes"]): row["num_jumped"] for row in summary["sensitivity"]["vae-tiny"]
    }
    assert jumped == {(1.5, 5): 2, (1.3, 5): 3, (2.0, 5): 2, (1.5, 1): 3}  # 22.5 / 16 = 1.4; the excursion


def test_each_vae_stands_beside_the_ae_of_its_seed(summary):
    found = summary["likeness"]["vae-tiny"]
    finite = [what for what in list(VAE_RADII)[:8] if not what.startswith("nonfinite")]
    shifts = [math.log(VAE_RADII[what] / radius) for what, radius in zip(finite, CONTROL_RADII, strict=False)]
    assert [pair["first"] for pair in found["pairs"]] == [SEEDS[what] for what in finite]
    assert [pair["median_shift"] for pair in found["pairs"]] == pytest.approx(shifts, abs=1e-6)
    assert found["num_regular"] == 2
    assert len(found["null"]) == 8
    assert found["effects"]["median_shift"]["mean"] == pytest.approx(np.mean(shifts), abs=1e-6)
    # Every run's points are the same directions.
    assert found["effects"]["procrustes"]["mean"] == pytest.approx(0, abs=1e-9)
    assert found["effects"]["cka_distance"]["mean"] == pytest.approx(0, abs=1e-9)
    assert found["effects"]["reconstruction_gap"]["mean"] == 0


def test_a_study_that_went_as_planned_has_no_deviations(summary):
    assert summary["deviations"] == []


def test_summary_has_the_keys_that_others_rely_on(summary):
    assert summary["data"]["name"] == "built-in faces"
    assert summary["data"]["synthetic"] is True
    assert (summary["provisional"], summary["control"]) == (False, {"ae": "ae", "vae-tiny": "ae"})
    run = summary["runs"]["vae-tiny-seed001"]
    assert (run["arm"], run["seed"], run["class"]) == ("vae-tiny", 1, "shifted")
    assert run["radius_median"] == pytest.approx(19.5, rel=1e-6)
    assert run["reconstruction_loss"] == 420.25
    assert summary["runs"][SEEDS["nonfinite latents"]]["radius_median"] is None


def test_a_run_that_is_not_finite_has_no_end(planted, summary):
    """All points of the state before the NaN lie at R = 16, as those of a regular run."""
    rows = {row["run"]: row for row in pq.read_table(planted.runs_table).to_pylist()}
    for what, step in (("nonfinite in training", 7), ("nonfinite latents", None)):
        name = SEEDS[what]
        run = summary["runs"][name]
        assert run["nonfinite_step"] == step
        ends = ("radius_median", "radius_mode", "reconstruction_loss", "kl_loss")
        assert {run[end] for end in ends} | set(run["cloud"].values()) == {None}
        told = {name for name, value in rows[name].items() if value is not None}
        assert {quantity.name for quantity in QUANTITIES} & told == {"steps_per_epoch", "num_triggers", "device"} | (
            {"nonfinite_step"} if step else {"num_nonfinite"}
        )
        rows_with = {row["quantity"] for row in summary["comparison"]["rows"] if name in row["measured"]}
        assert rows_with == {"steps per epoch"}
        page = (planted.pages / f"{name}.html").read_text()
        assert f"State of step 10, {'before NaN at step 7' if step else 'with NaN in its latents'}." in page


def test_missing_runs_say_what_they_lack_and_their_last_words(summary):
    untrained, unmeasured = summary["runs"][SEEDS["untrained"]], summary["runs"][SEEDS["unmeasured"]]
    assert (untrained["missing_stage"], unmeasured["missing_stage"]) == ("train", "statistics")
    words = untrained["last_words"].splitlines()
    assert (len(words), words[0], words[-1]) == (15, "line 26", "MemoryError")
    assert unmeasured["last_words"] is None
    assert (untrained["class"], untrained["radius_median"], untrained["ever_diverged"]) == (None, None, None)


def test_summary_can_be_read_back(planted, summary):
    assert json.loads(record_text(planted.summary())) == summary


def test_compares_with_the_article_and_says_what_differs(summary):
    comparison = summary["comparison"]
    (loss,) = [row for row in comparison["rows"] if row["quantity"] == "AE: total loss"]
    assert loss["measured"] == {f"ae-seed{seed:03d}": 420 + seed / 4 for seed in range(8)}
    assert "synthetic images, not CelebA" in comparison["differences"]["ae"]


def test_runs_table_has_one_row_per_run(planted, summary):
    rows = pq.read_table(planted.runs_table).to_pylist()
    assert [row["run"] for row in rows] == list(summary["runs"])
    by_run = {row["run"]: row for row in rows}
    for name, run in planted.summary().runs.items():
        of_summary = {
            "triggers",
            "cloud",
            "course",
            "edge",
            "state_sha256",
            "losses_sha256",
            "limits_acted",
            "num_recorded",
        }
        columns = run.model_dump(by_alias=True, exclude=of_summary) | run.cloud
        assert {column: by_run[name][column] for column in columns} == columns
    diverged = by_run[SEEDS["diverged"]]
    assert diverged["radius_max"] == pytest.approx(66, rel=1e-6)
    assert diverged["offset"] ** 2 + diverged["spread"] ** 2 == pytest.approx(66**2, rel=1e-6)
    assert (diverged["radius_mode"], diverged["log_var_mean"], diverged["device"]) == (math.inf, -14, "CPU")
    assert diverged["num_triggers"] == 2
    assert [mark["step"] for mark in summary["runs"][SEEDS["diverged"]]["triggers"]] == [349, 701]
    without_data_and_checkpoint = {"best_attribute", "best_auc", "head_kernel_ratio"} | {
        f"{head}_{weights}" for head in ("mu", "log_var") for weights in ("kernel_norm", "bias_norm", "bias_mean")
    }
    assert {column for column, value in diverged.items() if value is None} == {
        "missing_stage",
        "last_words",
        "nonfinite_step",
        "verdict",
        "elbow",
        *without_data_and_checkpoint,
    }
    assert by_run["ae-seed000"]["log_var_mean"] is None
    assert by_run[SEEDS["untrained"]]["radius_max"] is None
    assert by_run[SEEDS["nonfinite in training"]]["nonfinite_step"] == 7


@pytest.mark.usefixtures("summary")
def test_every_quantity_reaches_the_table_of_runs_and_what_is_shown_the_report(planted):
    table = pq.read_table(planted.runs_table)
    runs = [aggregate.read_run(planted.run(run.name), run) for run in planted.config().runs()]
    shown = []
    for quantity in QUANTITIES:
        values = [of_quantities(run)[quantity.name] if isinstance(run, MeasuredRun) else None for run in runs]
        assert str(table[quantity.name].to_pylist()) == str(values)  # NaN, too
        assert table.schema.field(quantity.name).metadata[b"words"].decode() == quantity.words
        if quantity.shown and any(value is not None for value in values):
            shown.append(quantity.label)
    assert {"active axes", "intrinsic dimension (TwoNN)"} < set(shown)
    _, _, section = planted.report_text.read_text().partition("## How the latent points lie\n\n")
    lines = section.partition("\n\n")[0].splitlines()[2:]
    assert [line.split(" | ")[0].removeprefix("| ") for line in lines] == shown
    assert all(f">{quantity}</th>" in planted.report.read_text() for quantity in shown)


def test_writes_the_report_and_leaves_no_debris(planted, summary):
    assert "<html" in planted.report.read_text()
    assert {path.name for path in planted.path.iterdir()} == {
        "jobs",
        "study.json",
        "summary.json",
        "runs.parquet",
        "runs.csv",
        "columns.csv",
        "figures",
        "report.html",
        "report.md",
        "pages",
        "ro-crate-metadata.json",
        *summary["runs"],
    }


@pytest.mark.usefixtures("summary")
def test_a_reader_can_recompute_every_number(planted):
    assert [*untrue(planted.path), *unfounded(planted.path), *unexplained(planted.path)] == []


LATER = {400: 66.0}
OTHER_STUDIES: dict[str, Arms] = {
    "every kind of run": {
        "ae": regular(8),
        "vae-tiny": [
            Run(16, LATER),
            Run(16, {400: 66, 600: 16}),
            Run(16, {400: 50, 450: 16}),
            Run(19, {350: 22.5, 400: 27, 450: 32.4, 500: 39}),
            Run(16, {600: 28}, end=40.0),
            Run(16, LATER, nan=555),
            Run(16, LATER, gap=(400, 450)),
            Run(16, LATER, cut=350),
            Run(16, LATER, missing="train"),
            Run(40.0),
            Run(16, end=40.0),
            Run(16, nan=120),
            Run(16, missing="statistics"),
        ],
    },
    "displaced": {"ae": regular(8), "vae-tiny": [*regular(7, 36.0), Run(36, {400: 160})], "vae-eps5": regular(2, 36.0)},
    "unsound control": {"ae": [*regular(6), Run(16, LATER)], "vae-tiny": [*regular(6), Run(16, LATER)]},
    "few controls": {"ae": [Run(16), Run(16.1), Run(16, {400: 50, 600: 16})], "vae-tiny": [Run(16, LATER), Run(16.2)]},
    "no control": {"vae-tiny": [Run(16), Run(16, LATER), Run(16, nan=300)]},
    "growing alike": {
        arm: [Run(10 + seed / 10, {t: 10 + seed / 10 + t / 60 for t in range(50, 601, 50)}) for seed in range(4)]
        for arm in ("ae", "vae-tiny")
    },
    "remedies": {
        "ae": regular(4),
        "ae-clip": regular(4),
        "vae-tiny": [Run(16, LATER, weights="a"), Run(16.2, weights="a"), Run(16.1, nan=110), Run(16.3, nan=110)],
        "vae-eps5": [Run(16, LATER, weights="a"), Run(16.2, weights="a"), Run(16.1, nan=110), Run(16.3, nan=110)],
        "vae-clip": [Run(16), Run(16.3), Run(16, LATER)],
        "vae-from-ae": regular(3),
    },
    "a look": {
        "ae": regular(8),
        "vae-tiny": [*regular(2), *(Run(16, LATER) for _ in range(6))],
        "vae-eps5": regular(3),
    },
}


@pytest.fixture(scope="module")
def others(tmp_path_factory) -> dict[str, StudyDir]:
    """OTHER_STUDIES summed up, without pages and figures. Of some of the remedies' runs the steps are recorded."""
    text, found = planting.quick_text(), {}
    for name, arms in OTHER_STUDIES.items():
        folder = tmp_path_factory.mktemp("other")
        looks = "looks = [4, 8]" if name == "a look" else "looks = []"
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(planting, "quick_text", lambda looks=looks: text.replace("looks = []", looks))
            planting.planted(folder, arms, patch)
            found[name] = StudyDir(folder / "planted")
            if name == "remedies":
                for arm, last in (("vae-tiny", 1499), ("vae-eps5", 1499), ("vae-clip", 1400)):
                    for folder in found[name].path.glob(f"{arm}-seed*"):
                        plant.recorded(RunDir(folder).steps, spiked_record().between(0, last))
                aggregate.run(str(found[name].path))
    return found


@pytest.mark.parametrize("name", OTHER_STUDIES)
def test_a_reader_can_recompute_other_studies(name, others):
    study = others[name].path
    assert [*untrue(study), *unfounded(study), *unexplained(study)] == []


def test_the_other_studies_have_what_is_to_be_recomputed(others):
    told = {name: json.loads(study.summary_path.read_text()) for name, study in others.items()}
    arms = [arm for summary in told.values() for arm in summary["arms"].values()]
    marks = [mark for summary in told.values() for run in summary["runs"].values() for mark in run["course"]["marks"]]
    contrasts = [contrast for summary in told.values() for contrast in summary["contrasts"]]
    assert {arm["unjudged"] for arm in arms} == {None, "displaced", "too few", "unsound control", "unclassed"}
    assert {way for arm in arms for way in arm["diverged_how"]} == {"jumped", "grew", "early", "unconfirmed", "unseen"}
    assert {mark["kind"] for mark in marks} == {"jump", "growth", "excursion", "unconfirmed"}
    assert {mark["gap"] for mark in marks} == {True, False}
    assert any(arm["regular_factor"] for arm in arms)
    assert any(arm["num_nonfinite_after"] for arm in arms)
    assert {len(contrast["tests"]) for contrast in contrasts} == {0, 2}
    assert {contrast["num_equal"] for contrast in contrasts} == {0, 4}
    assert {contrast["alternative"] for contrast in contrasts} == {"greater", "two-sided"}
    assert any(contrast["exploratory"] for contrast in contrasts)
    assert told["a look"]["look"]["stops"]
    assert told["every kind of run"]["events"]["vae-tiny"]["num_unknown"] == 1
    limits = [run["limits_acted"] for run in told["remedies"]["runs"].values()]
    assert any(acted.get("vae.epsilon_limit") for acted in limits)
    assert any(acted.get("train.clipnorm") for acted in limits)


WRONG = {
    "every kind of run": [
        ("runs/vae-tiny-seed000/class", "regular"),
        ("runs/vae-tiny-seed000/course/first_step", 400),
        ("runs/vae-tiny-seed000/course/far", True),
        ("runs/vae-tiny-seed000/course/marks/0/kind", "excursion"),
        ("runs/vae-tiny-seed000/course/marks/0/step", 450),
        ("runs/vae-tiny-seed000/course/marks/0/after", 300),
        ("runs/vae-tiny-seed000/course/marks/0/factor", 4.0),
        ("runs/vae-tiny-seed006/course/marks/0/gap", False),
        ("runs/vae-tiny-seed007/course/unknown_after", None),
        ("runs/vae-tiny-seed000/onset_step", 450),
        ("runs/vae-tiny-seed003/onset_kind", "jump"),
        ("runs/vae-tiny-seed000/ever_diverged", False),
        ("runs/vae-tiny-seed000/state_sha256", "0" * 64),
        ("runs/vae-tiny-seed005/nonfinite_step", None),
        ("runs/vae-tiny-seed008/followed_steps", 550),
        ("arms/vae-tiny/diverged_how/grew", 2),
        ("arms/vae-tiny/returned_how/jumped", 2),
        ("arms/vae-tiny/num_ever_diverged", 3),
        ("arms/vae-tiny/num_nonfinite_after", 0),
        ("arms/vae-tiny/num_jumped", 1),
        ("arms/vae-tiny/num_excursions", 0),
        ("arms/vae-tiny/num_far", 0),
        ("arms/vae-tiny/first_step", 400),
        ("arms/vae-tiny/endpoints/jumped/count", 1),
        ("arms/vae-tiny/endpoints/diverged/interval/low", 0.1),
        ("arms/vae-tiny/endpoints/diverged/other_intervals/1/high", 0.9),
        ("arms/vae-tiny/endpoints/diverged/if_all_missing", 0.5),
        ("contrasts/0/tests/diverged/boschloo", 0.01),
        ("contrasts/0/tests/diverged/two_sided", 0.01),
        ("contrasts/0/tests/diverged/holm", 0.01),
        ("contrasts/0/tests/diverged/holm_if_missing", 0.01),
        ("contrasts/0/tests/diverged/boschloo_if_missing/1", 0.01),
        ("contrasts/0/tests/diverged or nonfinite/only_arm", 1),
        ("contrasts/0/tests/diverged or nonfinite/mcnemar", 0.01),
        ("contrasts/0/num_pairs", 7),
        ("contrasts/0/family", 4),
        ("contrasts/0/power", 0.5),
        ("contrasts/0/least_p", 0.5),
        ("contrasts/0/logrank", 0.5),
        ("contrasts/0/logrank_p", 0.5),
        ("events/vae-tiny/num_runs", 13),
        ("events/vae-tiny/num_far", 0),
        ("events/vae-tiny/num_missing", 0),
        ("events/vae-tiny/num_unknown", 0),
        ("events/vae-tiny/at_risk/0", 13),
        ("events/vae-tiny/censored/0", 5),
        ("events/vae-tiny/events/jump/count", 1),
        ("events/vae-tiny/events/growth/share/3", 0.5),
        ("events/vae-tiny/events/jump/low/3", 0.01),
        ("events/vae-tiny/if_all_missing", 0.5),
        ("sensitivity/vae-tiny/9/num_jumped", 1),
        ("sensitivity/vae-tiny/11/lasting_probes", 5),
        ("sensitivity/vae-tiny/0/num_diverged", 1),
        ("reclassed", ["ae-seed000 (regular, now diverged)"]),
        ("plan_defaults", ["level = 0.95"]),
    ],
    "displaced": [
        ("arms/vae-tiny/unjudged", None),
        ("arms/vae-tiny/regular_factor", 2.0),
        ("arms/vae-tiny/num_displaced", 6),
        ("arms/vae-eps5/unjudged", None),
        ("sensitivity/vae-tiny/0/num_displaced", 6),
    ],
    "unsound control": [("arms/vae-tiny/control_faults", {}), ("arms/vae-tiny/control_scatter", 0.06)],
    "remedies": [
        ("contrasts/5/num_equal", 1),
        ("runs/vae-eps5-seed000/limits_acted/vae.epsilon_limit", 3),
        ("runs/vae-eps5-seed000/num_recorded", 3),
        ("runs/vae-eps5-seed000/losses_sha256", None),
    ],
    "a look": [("look/stops", False), ("look/spent", 0.01), ("look/number", 1), ("look/num_diverged", 7)],
}
"""Values that are not those of the summary, by study."""


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_value_is_found(name, others):
    told = json.loads(others[name].summary_path.read_text())
    own = recompute(others[name].path, told)
    missed = []
    for path, wrong in WRONG[name]:
        *way, last = (int(part) if part.isdigit() else part for part in path.split("/"))
        edited = copy.deepcopy(told)
        place = reduce(lambda part, key: part[key], way, edited)
        assert place[last] != wrong, path
        place[last] = wrong
        found = [f"{of}/" for of, *_ in differences(edited, own)]
        missed += [] if found and all(of.startswith(f"{path}/") for of in found) else [path]
    assert missed == []


@pytest.mark.usefixtures("summary")
def test_a_number_that_does_not_follow_from_the_files_is_found(planted, tmp_path):
    told = tmp_path / "told"
    told.mkdir()
    for path in planted.path.iterdir():
        if path.name not in (planted.report.name, planted.summary_path.name):
            (told / path.name).symlink_to(path)
    page = planted.report.read_text()
    rate = 'vae-tiny</th><td>diverged</td><td class="n">2 of 8</td>\n<td class="n">25\xa0%</td>'
    assert rate in page
    sentence = "65.1\xa0%)"  # of the rate's interval, in the abstract
    assert sentence in page
    (told / "report.html").write_text(page.replace(rate, rate.replace("25", "37")).replace(sentence, "66.1\xa0%)"))
    text = planted.summary_path.read_text()
    (told / "summary.json").write_text(text)
    assert [(row, number) for row, number, _ in unexplained(told)] == [("", "66.1"), ("vae-tiny", "37")]
    changed = json.loads(text)
    changed["runs"][SEEDS["diverged"]]["cloud"]["participation_ratio"] *= 1.001
    changed["runs"][SEEDS["diverged"]]["radius_median"] = 65.0
    changed["likeness"]["vae-tiny"]["pairs"][0]["kolmogorov_smirnov"] = 0.5
    changed["likeness"]["vae-tiny"]["effects"]["median_shift"]["low"] = 0.0
    (losses,) = [row for row in changed["comparison"]["rows"] if row["quantity"] == "AE: total loss"]
    losses["measured"]["ae-seed000"] = 419.0
    (told / "summary.json").write_text(json.dumps(changed))
    assert [path for path, *_ in untrue(told)] == [
        "likeness/vae-tiny/effects/median_shift/low",
        "likeness/vae-tiny/pairs/0/kolmogorov_smirnov",
        f"runs/{SEEDS['diverged']}/cloud/participation_ratio",
        f"runs/{SEEDS['diverged']}/radius_median",
    ]
    assert list(unfounded(told)) == [("AE: total loss", "ae-seed000", 419.0)]


@pytest.mark.usefixtures("summary")
def test_the_abstract_says_what_the_planted_counts_carry(planted):
    abstract, _, _ = planted.report_text.read_text().replace("\xa0", " ").partition("## Runs by class")
    for said in (
        "Study planted asked for 18 runs (8 of ae and 10 of vae-tiny; 8 seeds are in all arms)",
        "16 ended, 2 of them as NaN; 2 are missing and count as neither diverged nor regular.",
        "2 of 8 ended runs diverged (1 jumped, 1 grew); 1 more jumped and came back; 2 became NaN; at the end"
        " 2 regular, 1 collapsed and 1 shifted, of the 4 that neither diverged nor became NaN, those that came back"
        " among them; 1 run had an excursion that did not last; 2 of 10 are missing.",
        "Diverged: a rate of 25 % (exact 95 % Clopper-Pearson interval 3.2 % to 65.1 %).",
        "Diverged or NaN: 4 of 8, a rate of 50 % (exact 95 % Clopper-Pearson interval 15.7 % to 84.3 %).",
        "Had none of the missing diverged, the rate would be 20 % (2 of 10), had every one, 40 % (4 of 10).",
        "No difference was shown between vae-tiny and ae: diverged 2 of 8 against 0 of 8 (p = 0.11,",
        "diverged or NaN 4 of 8 against 0 of 8 (p = 0.0139, Holm-adjusted 0.0279,",
        "That is no proof of equal rates",
    ):
        assert said in abstract
    assert "more often" not in abstract
    assert "never" not in abstract.replace("not 'never'", "")


@pytest.mark.usefixtures("summary")
def test_the_crate_describes_the_files_that_are_there(planted):
    crate = json.loads(planted.crate.read_text())
    assert crate["@context"] == "https://w3id.org/ro/crate/1.1/context"
    entities = {entity["@id"]: entity for entity in crate["@graph"]}
    assert len(entities) == len(crate["@graph"])
    assert entities["ro-crate-metadata.json"]["conformsTo"] == {"@id": "https://w3id.org/ro/crate/1.1"}
    assert entities["ro-crate-metadata.json"]["about"] == {"@id": "./"}
    root = entities["./"]
    assert root["@type"] == "Dataset"
    assert {"name", "description", "datePublished", "license"} <= set(root)
    parts = {part["@id"] for part in root["hasPart"]}
    there = {path.name + "/" * path.is_dir() for path in planted.path.iterdir()}
    assert parts == there - {"ro-crate-metadata.json", "jobs/"}
    for part in parts:
        assert entities[part]["@type"] == ("Dataset" if part.endswith("/") else "File")
    report = entities["report.html"]
    assert int(report["contentSize"]) == planted.report.stat().st_size
    assert "diverged" in entities[f"{SEEDS['diverged']}/"]["description"]


@pytest.mark.usefixtures("summary")
def test_it_has_said_which_part_it_does(planted):
    assert part_of(read_json(planted.heartbeat("aggregate"))) == "report (4 of 4)"


def test_every_run_has_its_page(planted, summary):
    assert {path.stem for path in planted.pages.iterdir()} == set(summary["runs"])
    page = (planted.pages / f"{SEEDS['shifted']}.html").read_text()
    assert "Its class is shifted." in page
    assert page.count("<svg role") == 8  # probe, losses, radius, spectrum, QQ, inertia, t-SNE: but for the probe's


def test_main_statistics_are_those_of_the_runs(planted, summary):
    """Points on a sphere of four dimensions: R has no scatter, the normal with their covariance has."""
    run_dir = planted.run(SEEDS["shifted"])
    cloud, measured = summary["runs"][run_dir.name]["cloud"], run_dir.statistics()
    assert cloud["participation_ratio"] == measured.gaussian.participation_ratio
    assert cloud["radius_sd"] == pytest.approx(0, abs=1e-4)
    assert cloud["radius_sd_expected"] == measured.gaussian.radius_sd_expected > 3
    assert cloud["two_nn"] == measured.dimension.two_nn
    assert (cloud["tsne_kl"], cloud["elbow"]) == (measured.tsne[0].kl_divergence, measured.inertia.elbow)
    assert cloud["best_auc"] is None  # without the data set there are no attributes
    rows = {row["run"]: row for row in pq.read_table(planted.runs_table).to_pylist()}
    assert rows[run_dir.name]["participation_ratio"] == cloud["participation_ratio"]
    assert rows[SEEDS["nonfinite latents"]]["participation_ratio"] is None
    (clusters,) = [row for row in summary["comparison"]["rows"] if row["quantity"] == "number of clusters"]
    assert clusters["nan"] == "no elbow"
    assert set(clusters["measured"]) == {
        name for name, run in summary["runs"].items() if run["cloud"].get("participation_ratio") is not None
    }


@pytest.fixture(scope="module")
def measured(tmp_path_factory) -> StudyDir:
    """Two AE runs at R = 16 and 16.5, and a VAE run at R = 17, all measured; not to be changed."""
    path = tmp_path_factory.mktemp("measured") / "small"
    study = plant.study(path, study_config([AE, VAE], {"ae": 2, "vae-tiny": 1}, quick_plan()))
    for run, radius in zip(study.config().runs(), [16.0, 16.5, 17.0], strict=True):
        measure(study.run(run.name), radius)
    return study


@pytest.fixture
def small(measured, tmp_path) -> StudyDir:
    """A copy of it."""
    return StudyDir(Path(shutil.copytree(measured.path, tmp_path / "small")))


@pytest.fixture
def undrawn(monkeypatch) -> None:
    planting.without_drawings(monkeypatch)


def test_may_run_again_and_replaces_its_files(small):
    aggregate.run(str(small.path))
    assert small.summary().arms["vae-tiny"].num_missing == 0
    assert small.summary().provisional  # for its few controls
    shutil.rmtree(small.run("vae-tiny-seed000").path)
    aggregate.run(str(small.path))
    assert small.summary().arms["vae-tiny"].num_missing == 1
    assert pq.read_table(small.runs_table).column("class").to_pylist() == ["regular", "regular", None]


def test_a_study_of_which_nothing_ended(tmp_path):
    study = plant.study(tmp_path / "new", study_config([AE, VAE], 2))
    aggregate.run(str(study.path))
    arm = study.summary().arms["vae-tiny"]
    assert (arm.num_runs, arm.num_missing, arm.rate, arm.control) == (2, 2, None, "ae")


@pytest.mark.usefixtures("undrawn")
def test_without_latents_the_radii_are_still_compared(small):
    aggregate.run(str(small.path))
    (whole,) = small.summary().likeness["vae-tiny"].pairs
    assert whole.cka == pytest.approx(1)
    shutil.rmtree(small.run("ae-seed000").latents)
    aggregate.run(str(small.path))
    (pair,) = small.summary().likeness["vae-tiny"].pairs
    assert pair == whole.model_copy(update={"procrustes": None, "cka": None})
    (small.run("ae-seed000").statistics_arrays / "radius_mu.npy").unlink()
    aggregate.run(str(small.path))
    assert small.summary().likeness == {}


@pytest.mark.usefixtures("undrawn")
def test_what_was_not_planned_is_told(small):
    config = small.config()
    classes = config.plan.classes.model_copy(update={"diverged_factor": 3.0})
    changed = {"plan": config.plan.model_copy(update={"classes": classes}), "first_seeds": {"ae": (0,)}}
    write_model(small.config_path, config.model_copy(update=changed))
    measured = small.run("ae-seed001")
    write_model(measured.statistics_path, measured.statistics().model_copy(update={"plan_sha256": "0" * 64}))
    other = small.run("vae-tiny-seed000")
    by_other = other.trained().provenance.model_copy(update={"code_version": "2"})
    write_model(other.trained_path, other.trained().model_copy(update={"provenance": by_other}))
    aggregate.run(str(small.path))
    assert small.summary().deviations == (
        "the analysis plan in study.json is not the one that was hashed at the launch",
        "measured under another analysis plan: ae-seed001",
        "seed 0 of vae-tiny by 2, of 1",
        "1 of 2 seeds of ae were added after the first launch",
        "the arm vae-tiny was added after the first launch",
    )
    assert "every test is exploratory" in small.report.read_text()


def test_a_damaged_record_hides_no_other_run(small):
    damaged = small.run("vae-tiny-seed000")
    damaged.statistics_path.write_text('{"run": ')
    aggregate.run(str(small.path))
    runs = small.summary().runs
    assert runs["vae-tiny-seed000"].missing_stage == "statistics"
    assert str(damaged.statistics_path) in (runs["vae-tiny-seed000"].last_words or "")
    assert runs["ae-seed000"].run_class == "regular"


@pytest.fixture
def of_ordinary_user(measured, monkeypatch) -> Iterator[StudyDir]:
    """A copy whose reader is not root, who may look into any folder."""
    planting.without_drawings(monkeypatch)
    before = os.geteuid()
    with tempfile.TemporaryDirectory() as folder:
        study = StudyDir(Path(shutil.copytree(measured.path, Path(folder) / "small")))
        aggregate.run(str(study.path))  # what is imported on the way may lie where only root can read it
        if before == 0:
            for path in (Path(folder), study.path, *study.path.rglob("*")):
                os.chown(path, ORDINARY_USER, ORDINARY_USER)
            os.seteuid(ORDINARY_USER)
        try:
            yield study
        finally:
            os.seteuid(before)


@pytest.mark.parametrize("name", ["", "statistics", "latents", "recorder", "explanation"])
def test_a_folder_that_may_not_be_looked_into_costs_its_run_alone(of_ordinary_user, name, caplog):
    study = of_ordinary_user
    closed = study.run("ae-seed000").path / name
    closed.mkdir(exist_ok=True)
    closed.chmod(0)
    aggregate.run(str(study.path))
    closed.chmod(0o700)
    runs = study.summary().runs
    assert [runs[name].run_class for name in ("ae-seed001", "vae-tiny-seed000")] == ["regular", "regular"]
    assert runs["ae-seed000"].run_class == (None if name == "" else "regular")
    assert "Permission denied" in (runs["ae-seed000"].last_words or "") + caplog.text


def test_a_folder_that_is_no_study_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"no study\.json"):
        aggregate.run(str(tmp_path))


def test_a_probe_that_was_cut_off_is_read_up_to_there(tmp_path):
    path = tmp_path / "recorder" / "probe.arrow"
    plant.probe(path, {50: 16.0, 100: 17.0, 150: 18.0})
    whole = path.read_bytes()
    lengths = set()
    for size in range(len(whole)):
        path.write_bytes(whole[:size])
        curve = read_probe(path)
        lengths.add(len(curve.steps))
        assert curve.steps.tolist() == [50, 100, 150][: len(curve.steps)]
        assert curve.radius_medians.tolist() == [16.0, 17.0, 18.0][: len(curve.steps)]
    assert lengths == {0, 1, 2, 3}


def test_no_probe_is_an_empty_curve(tmp_path):
    assert read_probe(tmp_path / "probe.arrow").steps.tolist() == []
