import csv
import json
import re
import runpy
import sys
from pathlib import Path

import numpy as np
import pytest
from page import Page, figures_of, no_requests

from tests import plant
from tests.examples import stability
from vaehpc.reporting import document, findings, words
from vaehpc.reporting.page import PAGE_COLOURS, rendered
from vaehpc.reporting.run_page import SAMPLE_IMAGES
from vaehpc.schema.config import ModelConfig
from vaehpc.schema.results import ArticleValue, Comparison, ComparisonRow, RunStability
from vaehpc.study.files import write_model
from vaehpc.tasks import aggregate

NO_VALUE = words.NO_VALUE


@pytest.fixture(scope="module")
def page(mixed) -> Page:
    study, _ = mixed
    return Page(study.report.read_text())


def report_of(root: Path, classes, **kinds) -> Page:
    study, summary = plant.classed(root, classes, **kinds)
    plant.reported(study, summary)
    return Page(study.report.read_text())


def rendered_of(study, summary) -> str:
    """The page of another summary of the same study; nothing is written."""
    config = study.config()
    found = plant.found(study)
    runs, courses = document.ended_runs(study, summary, found), document.run_courses(summary, found)
    drawings = document.draw(config, summary, runs, courses)
    said = document.contents(study, config, summary, runs, drawings, document.Known(found))
    return rendered("template.html.j2", **said)


# Numbers


def rows_of(page: Page, *head: str) -> list[list[str]]:
    """Rows of the table whose head begins so; an arm may have several."""
    (found,) = [table for table in page.tables if table[0][: len(head)] == list(head)]
    return found[1:]


def test_rates_and_intervals_are_those_of_the_summary(page):
    none = [NO_VALUE]
    assert rows_of(page, "arm", "endpoint") == [
        ["ae", "diverged", "0 of 8", "0 %", "0 % to 36.9 %", *none, "0", "ae"],
        [
            "vae-tiny",
            "diverged",
            "2 of 7",
            "28.6 %",
            "3.7 % to 71 %",
            "25 % to 37.5 %",
            "2",
            "ae",
        ],
        ["vae-eps5", "diverged", "0 of 2", "0 %", "0 % to 84.2 %", *none, "0", "ae"],
        [
            "vae-eps5",
            "diverged or NaN",
            "1 of 2",
            "50 %",
            "1.3 % to 98.7 %",
            *none,
            *none,
            "ae",
        ],
    ]
    assert "Intervals: exact 95 % Clopper-Pearson." in page.text
    assert rows_of(page, "arm", "interval of")[:2] == [
        ["ae", "diverged", "0 of 8", "0 % to 32.4 %", "0 % to 26.2 %"],
        ["vae-tiny", "diverged", "2 of 7", "8.2 % to 64.1 %", "6.5 % to 64.8 %"],
    ]


def test_counts_of_every_class_are_those_of_the_summary(page):
    classes = ("regular", "shifted", "diverged", "displaced", "collapsed", "NaN", "unclassified", "missing")
    assert page.table("arm", "runs", *classes, "jumped") == {
        "ae": ["8", "8", "0", "0", "0", "0", "0", "0", "0", "0", "final"],
        "vae-tiny": ["8", "3", "1", "2", "0", "1", "0", "0", "1", "2", "final"],
        "vae-eps5": ["2", "1", "0", "0", "0", "0", "1", "0", "0", "0", "final"],
    }


def test_tests_between_arms_are_those_of_the_summary(mixed, page):
    _, summary = mixed
    rows = iter(rows_of(page, "arm, reference", "endpoint"))
    sides = ["one-sided", "one-sided", "two-sided"]
    for contrast, side in zip(summary.contrasts, sides, strict=True):
        for endpoint, test in contrast.tests.items():
            pairs = f"{test.only_arm} : {test.only_reference} of {contrast.num_pairs}"
            assert next(rows) == [
                f"{contrast.arm}, {contrast.reference} {side}",
                {"diverged": "diverged", "diverged or nonfinite": "diverged or NaN"}[endpoint],
                f"{test.count} of {test.num_ended} against {test.reference_count} of {test.reference_ended}",
                words.p_value(test.boschloo),
                words.p_value(test.holm),
                findings.range_of_p(test) or NO_VALUE,
                words.p_value(test.fisher),
                f"{words.p_value(test.mcnemar)} {pairs}",
                words.percent(contrast.power).replace(words.NBSP, " "),
            ]
    assert next(rows, None) is None
    first = rows_of(page, "arm, reference", "endpoint")[0]
    assert first[2] == "2 of 7 against 0 of 8"
    assert first[5] != NO_VALUE  # a run is missing


def test_tests_that_confirm_nothing_are_marked(mixed):
    study, summary = mixed
    first, *rest = summary.contrasts
    tests = {name: test.model_copy(update={"holm": None}) for name, test in first.tests.items()}
    said = summary.model_copy(update={"contrasts": (first.model_copy(update={"tests": tests}), *rest)})
    rows = rows_of(Page(rendered_of(study, said)), "arm, reference", "endpoint")
    assert [row[4] == "exploratory" for row in rows] == [True, True, False, False, False, False]


def test_limits_that_were_not_planned_stand_beside_those_that_were(page):
    """The shifted run's R is 19.75 + 0.3, that of the control 16.35: d = 0.204."""
    lines = [
        row
        for table in page.tables
        for row in table
        if table[0][1].startswith("diverged beyond") and row[0] == "vae-tiny"
    ]
    assert lines == [
        ["vae-tiny", "R × 1.5", "2", "3.7 % to 71 %", "0", "2", "1", "1, 1, 1"],
        ["vae-tiny", "R × 2 (planned)", "2", "3.7 % to 71 %", "0", "2", "1", "1, 1, 1"],
        ["vae-tiny", "R × 3", "2", "3.7 % to 71 %", "0", "2", "0", "2, 2, 2"],
        ["vae-tiny", "jump × 1.3", "2", "3.7 % to 71 %", "0", "2", "1", "1"],
        ["vae-tiny", "jump × 2", "2", "3.7 % to 71 %", "0", "2", "1", "1"],
        ["vae-tiny", "jump need not last", "2", "3.7 % to 71 %", "0", "2", "1", "1"],
    ]


def test_an_arm_whose_classes_are_not_judged_has_no_interval_of_them(mixed):
    study, summary = mixed
    displaced = summary.arms["vae-tiny"].model_copy(update={"unjudged": "displaced"})
    said = summary.model_copy(update={"arms": summary.arms | {"vae-tiny": displaced}})
    (table,) = [found for found in Page(rendered_of(study, said)).tables if found[0][1].startswith("diverged beyond")]
    assert {(row[0], row[3] == NO_VALUE) for row in table[1:]} == {
        ("ae", False), ("vae-tiny", True), ("vae-eps5", False)
    }  # fmt: skip


def test_pairs_are_those_of_the_summary(mixed, page):
    _, summary = mixed
    (table,) = [table for table in page.tables if table[0][0] == "arm, quantity"]
    effects = [effect for found in summary.likeness.values() for effect in found.effects.values()]
    assert [row[1:3] for row in table[1:]] == [[str(effect.num_pairs), words.signed(effect.mean)] for effect in effects]
    assert table[1][0] == "vae-tiny ln of the quotient of the median radii"
    for arm, found in summary.likeness.items():
        assert words.likeness(arm, found).replace(words.NBSP, " ") in page.text


def test_what_is_drawn_can_be_read_back(mixed):
    study, summary = mixed
    curves = summary.events["vae-tiny"]
    with (study.figures / "events-vae-tiny.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["event"] for row in rows] == ["jump"] * len(curves.steps)
    assert [int(row["step"]) for row in rows] == list(curves.steps)
    assert [float(row["share"]) for row in rows] == list(curves.events["jump"].share)
    assert [int(row["at_risk"]) for row in rows] == list(curves.at_risk)
    assert [int(row["censored"]) for row in rows] == list(curves.censored)
    assert [float(row["low"]) if row["low"] else None for row in rows] == list(curves.events["jump"].low)
    assert [float(row["high"]) if row["high"] else None for row in rows] == list(curves.events["jump"].high)
    with (study.figures / "events-ae.csv").open() as file:
        assert [(row["event"], row["share"], row["at_risk"]) for row in csv.DictReader(file)] == [("none", "0.0", "8")]
    with (study.figures / "radius-curves-vae-tiny.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["run"] == "vae-tiny-seed001"]
    histogram = study.run("vae-tiny-seed001").statistics().radius_mu.histogram
    assert [int(row["images"]) for row in rows] == [*histogram.counts, histogram.overflow]
    with (study.figures / "losses-ae.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["run"] == "ae-seed003"]
    history = study.run("ae-seed003").history()
    assert [float(row["excess_loss"]) for row in rows] == [record.excess_loss for record in history]
    with (study.figures / "divergence-rates.csv").open() as file:
        counts = {(row["arm"], row["endpoint"]): row["count"] for row in csv.DictReader(file)}
    assert [counts[arm, "diverged"] for arm in summary.arms] == ["0", "2", "0"]
    assert [counts[arm, "diverged or nonfinite"] for arm in summary.arms] == ["0", "2", "1"]
    assert [counts[arm, "jumped"] for arm in summary.arms] == ["0", "2", "0"]
    with (study.figures / "likeness-vae-tiny.csv").open() as file:
        rows = list(csv.DictReader(file))
    found = summary.likeness["vae-tiny"]
    assert [float(row["wasserstein"]) for row in rows] == [pair.wasserstein for pair in (*found.pairs, *found.null)]
    assert [float(row["log_radius_shift_0.5"]) for row in rows[:7]] == [pair.median_shift for pair in found.pairs]


def test_every_run_is_in_the_run_table(mixed, page):
    _, summary = mixed
    table = page.table("run", "class")
    assert list(table) == list(summary.runs)
    assert table["ae-seed001"] == ["regular", "", "16.10", "16.25", NO_VALUE, NO_VALUE, "4,586.9", "0", "3"]
    fired = "gradient_norm at 396"
    assert table["vae-tiny-seed001"] == [
        "diverged",
        "",
        "66.10",
        "≥ 35",
        "jump, left between steps 300 and 400 (R × 4.115)",
        fired,
        "4,586.9",
        "0.01780",
        "3",
    ]
    assert table["vae-tiny-seed002"] == ["missing", *[NO_VALUE] * 7, "1"]
    assert table["vae-eps5-seed001"] == [
        "NaN",
        "",
        "NaN at step 100",
        *[NO_VALUE] * 5,
        "3",
    ]
    assert "| NaN | NaN at step 100 | – | – | – |" in mixed[0].report_text.read_text()
    assert words.recorded(summary).replace(words.NBSP, " ") in page.text.replace(words.NBSP, " ")


def test_runs_are_sorted_by_numbers_and_not_by_what_is_printed(page):
    keys = [attributes["data-value"] for attributes in page.of("td") if "data-value" in attributes]
    assert "Infinity" in keys
    assert {key for key in keys if key and not re.fullmatch(r"Infinity|\d+(\.\d+)?(e-?\d+)?", key)} == set()
    assert float(keys[6]) == 1


def test_the_abstract_is_made_of_the_summary(mixed, page):
    study, summary = mixed
    abstract = " ".join(" ".join(page.abstract).split())
    for sentence in (
        findings.overview(study.config(), summary),
        *map(findings.outcome, summary.arms.values()),
        *findings.tested(study.config(), summary),
        *findings.caveats(study.config(), summary),
    ):
        assert sentence.replace(words.NBSP, " ") in abstract


def test_missing_runs_show_the_end_of_their_log_as_text(page):
    assert "vae-tiny-seed002 is missing: no result of train" in page.text
    assert "MemoryError: <could not allocate 3 GB>" in page.text


def test_article_stands_beside_the_median_and_range_of_the_runs_of_an_arm(tmp_path):
    study, summary = plant.classed(tmp_path / "compared", {"ae": ["regular"] * 3, "vae-tiny": ["diverged", "regular"]})
    reference = {"formula": "as it is", "article": (ArticleValue(text="17", where="Some heading"),)}
    radii = {"ae-seed000": 15.0, "ae-seed001": 16.5, "ae-seed002": 19.0, "vae-tiny-seed000": float("nan")}
    rows = (
        ComparisonRow(quantity="radius", of="any", measured=radii, **reference),
        ComparisonRow(quantity="share", of="vae", measured={"vae-tiny": 0.5}, **reference),
    )
    comparison = Comparison(rows=rows, differences={"ae": ("epochs 6",)}, footnotes=("A slip of the article.",))
    plant.reported(study, summary.model_copy(update={"comparison": comparison}))
    page = Page(study.report.read_text())
    assert page.table("quantity", "article") == {
        "radius as it is": ["17 Some heading", "16.50 15 to 19", NO_VALUE],
        "share as it is": ["17 Some heading", NO_VALUE, "1 of 2 1.3 % to 98.7 %"],
    }
    assert "ae: epochs 6." in page.text
    assert "A slip of the article." in page.text


def test_settings_that_differ_are_told_apart_from_those_that_do_not(page):
    differing = page.table("setting")
    assert differing["kind"] == ["ae", "vae", "vae"]
    assert differing["vae.epsilon_limit"] == [NO_VALUE, "none", "5.0"]
    assert "train.epochs" not in differing
    assert "train.epochs 6" in page.text
    assert page.text.count("vae.epsilon_limit ") == 1


def test_provenance(mixed, page):
    _, summary = mixed
    for told in (
        "0.1.0+abc1234",
        "numpy 2.4.1",
        summary.data.sha256,
        summary.plan_sha256,
        "17 runs on CPU, float32, 1 thread",
    ):
        assert told in page.text


# What the data are and what they allow


def test_synthetic_data_are_named(page, tmp_path):
    warning = "Built-in synthetic faces: the study shows the machinery and says nothing about CelebA."
    assert warning in page.text
    assert warning not in report_of(tmp_path / "real", {"ae": ["regular"]}, synthetic=False).text


def test_few_controls_are_provisional_in_the_table_too(tmp_path):
    page = report_of(tmp_path / "few", {"ae": ["regular"] * 7, "vae-tiny": ["diverged"]})
    assert [row[-1] for row in page.table("arm", "runs").values()] == ["provisional"] * 2
    assert "The classes of ae and vae-tiny are provisional" in page.text


def test_the_articles_radius_is_drawn_for_its_own_images_only(mixed, tmp_path):
    study, _ = mixed
    assert "article 16.75" not in (study.figures / "radius-curves-ae.svg").read_text()
    report_of(tmp_path / "real", {"ae": ["regular"]}, synthetic=False)
    assert "article 16.75" in (tmp_path / "real" / "figures" / "radius-curves-ae.svg").read_text()


@pytest.mark.parametrize(
    ("synthetic", "image_size", "z_dim", "comparable"),
    [(False, 96, 256, True), (True, 96, 256, False), (False, 48, 256, False), (False, 96, 64, False)],
)
def test_the_articles_radius_is_comparable(synthetic, image_size, z_dim, comparable):
    config = plant.classed_config("real", {"ae": ["regular"]}, synthetic, "article")
    config = config.model_copy(update={"data": config.data.model_copy(update={"image_size": image_size})})
    arm = config.arms["ae"].model_copy(update={"model": ModelConfig(z_dim=z_dim)})
    assert document.is_comparable(config, arm) is comparable
    of_others = config.data.model_copy(update={"photographs": True})
    assert not document.is_comparable(config.model_copy(update={"data": of_others}), arm)


def test_a_study_of_which_nothing_ended_claims_nothing(tmp_path):
    page = report_of(tmp_path / "none", {"ae": [None] * 3, "vae-tiny": [None]})
    assert "none of 3 runs has ended: 3 of 3 are missing, and nothing can be said about the rate." in page.text
    assert page.table("arm", "endpoint")["ae"][:4] == ["none ended", *[NO_VALUE] * 3]
    assert not page.of("svg")
    assert not page.of("img")
    assert "Latent radii" not in page.text


def test_an_arm_of_which_nothing_ended_is_named_beside_the_others(tmp_path):
    page = report_of(tmp_path / "one", {"ae": ["regular"], "vae-tiny": [None]})
    assert "No run of vae-tiny has ended." in page.text
    assert len(figures_of(page)) == 7


def test_unclassified_runs_give_no_rate(tmp_path):
    page = report_of(tmp_path / "alone", {"vae-tiny": ["unclassified"] * 3})
    assert "3 of 3 ended runs could not be classed: the study has no control arm" in page.text
    (row,) = rows_of(page, "arm", "endpoint")
    assert (row[:3], row[-2:]) == (["vae-tiny", "jumped", "0 of 3"], [NO_VALUE, "none"])
    assert "of 3 ended runs none jumped. 3 of 3" in page.text and "Jumped: 0 of 3, not 'never'" in page.text
    assert "Diverged: a rate" not in page.text and "Diverged: not" not in page.text


def test_all_runs_nonfinite(tmp_path):
    page = report_of(tmp_path / "lost", {"ae": ["nonfinite"] * 2})
    assert "of 2 ended runs none jumped; 2 became NaN." in page.text
    assert "2 of 2 ended runs could not be classed" not in page.text
    assert page.table("arm", "runs")["ae"][:7] == ["2", "0", "0", "0", "0", "0", "2"]


def test_what_was_measured_around_events_stands_wherever_their_run_does(tmp_path, caplog):
    """Of two runs that jumped between steps 300 and 400 one was measured, and one has a damaged file."""
    study = plant.study(tmp_path / "edge", plant.classed_config("edge", {"vae-tiny": ["diverged"] * 3}))
    first, second, third = (study.run(f"vae-tiny-seed00{seed}") for seed in range(3))
    for run in (first, second, third):
        plant.ended(run, "diverged")
        run.explanation.mkdir()
    states = (
        stability(100),
        stability(300, 4.5, radius_median=16.0),
        stability(500, 0.5, radius_median=66.0, decoder_radius=88.0, scale=4.0, scale_share=0.97, loss_paid=-2.5),
        stability(600, 0.125),
    )
    write_model(first.stability_path, RunStability(run=first.name, states=states))
    write_model(second.stability_path, RunStability(run=second.name, states=states[:1]))
    second.stability_path.write_text(second.stability_path.read_text().replace("0.25", "0.75"))
    aggregate.run(str(study.path))
    assert "the stability of vae-tiny-seed001 is left out" in caplog.text
    page, text = Page(study.report.read_text()), study.report_text.read_text().replace(words.NBSP, " ")
    row = ["jump seen at step 400", "4.500 (after 300)", "300 → 500", "16 → 66", "80 → 88", "4", "97 %", "−2.500"]
    said = (
        "sharpness 4.500 × its limit after 300 steps, before the jump seen at step 400;"
        " 0.1250 to 0.2500 × in 2 calm states"
    )
    assert page.table("run", "event") == {first.name: row}
    assert f"| {first.name} | {' | '.join(row)} |" in text
    assert said in page.table("run", "class")[first.name][4] and said in text
    assert "sharpness" not in page.table("run", "class")[second.name][4]
    unmeasured = "Not measured of 2 runs with an event: `vaehpc explain"
    assert unmeasured in page.text and unmeasured in text
    own, other = (Page(study.page(run.name).read_text()) for run in (first, third))
    assert own.table("run", "event") == {first.name: row} and said in " ".join(own.abstract)
    assert "--run vae-tiny-seed002 --stability" in other.text and "--stability" not in own.text


@pytest.mark.parametrize("history", [None, []])
def test_a_nan_has_no_end_in_figures_tables_and_data(tmp_path, history):
    """Of seed 1 a state at R = 9 was kept, of seed 2 the latents hold a NaN; seed 0 is regular, no run of ae is."""
    study = plant.study(
        tmp_path / "nan", plant.classed_config("nan", {"ae": ["nonfinite"], "vae-tiny": ["regular"] * 3})
    )
    given = {"ae-seed000": {}, "vae-tiny-seed001": {"radius": 9.0}, "vae-tiny-seed002": {"nonfinite_step": None}}
    plant.ended(study.run("vae-tiny-seed000"))
    for name, of_run in given.items():
        plant.ended(study.run(name), "nonfinite", history=history, **of_run)
        plant.images(study.run(name), list(SAMPLE_IMAGES))
    aggregate.run(str(study.path))
    page, text = Page(study.report.read_text()), study.report_text.read_text().replace(words.NBSP, " ")
    table = page.table("run", "class")
    assert [cells[2] for cells in table.values()] == ["NaN at step 100", "16", "NaN at step 100", "NaN in its latents"]
    assert [cells[3:4] + cells[5:8] for name, cells in table.items() if name in given] == [[NO_VALUE] * 4] * 3
    said = "3 runs became NaN or infinite: they have no end, and are in no histogram, median or range."
    assert said in page.text and said in text
    assert "No run of ae has ended with finite values." in page.text
    assert not (study.figures / "radius-curves-ae.svg").exists()
    with (study.figures / "radius-curves-vae-tiny.csv").open() as file:
        assert {row["run"] for row in csv.DictReader(file)} == {"vae-tiny-seed000"}
    alts = [figure["aria-label"] or "" for figure in figures_of(page)]
    lines = (
        "vae-tiny: number of images over latent radius, 1 line, one per finite run. Median radii at the end: 16 to 16."
    )
    assert lines in [alt.replace(words.NBSP, " ") for alt in alts]
    curves = [svg["aria-label"] or "" for svg in page.of("svg") if svg.get("class") == "course"]
    assert [curve for curve in curves if "at the end" in curve] == [
        "vae-tiny-seed000: median R over the steps, 16 at the end"
    ]
    assert "ae-seed000: median R over the steps, NaN at step 100" in curves
    compared = page.table("quantity", "article")
    loss = [cells for quantity, cells in compared.items() if quantity.startswith("VAE: reconstruction loss")]
    assert [cells[2] for cells in loss] == [
        words.number(study.run("vae-tiny-seed000").history()[-1].reconstruction_loss)
    ]
    cells = {cell for of_row in compared.values() for cell in of_row[1:]}
    assert words.NOT_MEASURED in cells  # images of decoded points: the regular run has none
    assert not [cell for cell in cells if cell.startswith("images")]
    entities = {entity["@id"]: entity for entity in json.loads(study.crate.read_text())["@graph"]}
    assert entities["vae-tiny-seed001/"]["description"].endswith("seed 1: NaN at step 100")


def test_records_of_a_missing_run_may_be_damaged(tmp_path):
    study, summary = plant.classed(tmp_path / "damaged", {"ae": ["regular", None]})
    study.run("ae-seed001").trained_path.write_text("{")
    name = "faces\x1b[31m<script>alert(1)</script><img src=x onerror=alert(1)> 1 < 2"
    data = summary.data.model_copy(update={"name": name, "synthetic": False})
    plant.reported(study, summary.model_copy(update={"data": data}))
    html, text = study.report.read_text(), study.report_text.read_text()
    assert Page(html).table("run")["ae-seed001"][0] == "missing"
    for said in (html, text):
        assert "faces\\x1b[31m" in said and "\x1b" not in said
        assert "<script>alert" not in said and "<img src=x" not in said
    assert "&lt;script>alert(1)&lt;/script>" in text and "1 < 2" in text


# The page


def test_the_page_needs_no_other_file(mixed):
    study, summary = mixed
    html = study.report.read_text()
    page = Page(html)
    no_requests(page)
    linked = {attributes["href"] for attributes in page.of("a") if not (attributes["href"] or "").startswith("#")}
    pages, data = ({link for link in linked if link.startswith(folder)} for folder in ("pages/", "figures/"))
    assert linked == pages | data
    assert {link.removeprefix("pages/").partition("#")[0] for link in pages} == {f"{run}.html" for run in summary.runs}
    assert all((study.path / link).exists() for link in data)
    assert not page.of("link")
    assert not page.of("iframe")
    assert "@import" not in html
    assert all(target.startswith("#") for target in re.findall(r"url\(([^)]*)\)", html))


def test_ids_are_unique_and_every_reference_finds_its_own(mixed, page):
    study, _ = mixed
    ids = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    contents = [attributes["href"] for attributes in page.of("a") if (attributes["href"] or "").startswith("#")]
    assert {"#answer", "#runs", "#rates"} < set(contents)
    assert len(ids) == len(set(ids)) > 0
    references = re.findall(r"(?:href=\"|url\()#([^\")]+)", study.report.read_text())
    assert references
    assert set(references) <= set(ids)


def test_figures_and_images_have_words_for_those_who_cannot_see_them(page):
    assert len(figures_of(page)) == 3 + 4 * 3 + 2  # and the two VAE arms beside their AE
    for figure in page.of("svg"):
        assert figure["role"] == ("group" if figure.get("class") == "courses" else "img")  # a group may hold links
        assert len(figure["aria-label"] or "") > 40
    assert any("vae-tiny: 2 of 7" in (figure["aria-label"] or "").replace(words.NBSP, " ") for figure in page.of("svg"))
    assert not page.of("img")  # of 256 runs they would be a page of hundreds of megabytes


def test_table_heads_say_what_they_head(page):
    assert {head.get("scope") for head in page.of("th")} == {"row", "col"}


def test_figures_take_the_colours_of_the_page(mixed):
    study, _ = mixed
    drawn = study.report.read_text().split("<body ")[1]
    assert "var(--ink)" in drawn
    assert not any(colour in drawn for colour in PAGE_COLOURS)
    assert "var(" not in (study.figures / "losses-ae.svg").read_text()


def test_names_are_shown_as_text(tmp_path):
    study, summary = plant.classed(tmp_path / "odd", {"ae": ["regular"]})
    data = summary.data.model_copy(update={"name": "<b>faces & more</b>"})
    plant.reported(study, summary.model_copy(update={"data": data}))
    page = Page(study.report.read_text())
    assert "<b>faces & more</b>" in page.text
    assert not page.of("b")


def test_writes_its_files_and_the_same_ones_again(mixed):
    study, summary = mixed
    kinds = ("radius-curves", "radius-history", "losses", "events")
    expected = {f"{kind}-{arm}.svg" for kind in kinds for arm in summary.arms} | {"divergence-rates.svg"}
    expected |= {f"likeness-{arm}.svg" for arm in summary.arms if arm != "ae"}
    expected |= {"courses.svg", "radius-all.svg"}
    expected |= {name.replace("svg", "csv") for name in expected}
    before = {path.name: path.read_bytes() for path in (*study.figures.iterdir(), study.report, study.report_text)}
    assert set(before) == expected | {"report.html", "report.md"}
    plant.reported(study, summary)
    again = {path.name: path.read_bytes() for path in (*study.figures.iterdir(), study.report, study.report_text)}
    assert again == before


@pytest.mark.slow
def test_the_page_of_a_large_study_stays_small(tmp_path):
    """64 seeds of 4 arms. What a browser lays out is what takes its time: elements, and characters of paths."""
    classes = {name: ["regular"] * 60 + ["diverged"] * 4 for name in ("ae", "vae-tiny", "vae-eps5", "vae-eps0")}
    study, summary = plant.classed(tmp_path / "large", classes)
    plant.reported(study, summary)
    html = study.report.read_text()
    page = Page(html)
    assert len(page.table("run", "class")) == 256
    assert len([svg for svg in page.of("svg") if svg.get("class") == "course"]) == 200
    assert len(html) < 2_500_000
    assert len(page.elements) < 20_000


# The worked example


def test_redraw_figures_draws_one_line_per_ended_run(tmp_path, monkeypatch, capsys):
    study, _ = plant.classed(tmp_path / "small", {"ae": ["regular", "nonfinite", None, "regular"]})
    study.figures.mkdir()
    for run in study.config().runs():
        if run.seed != 2:
            radius = np.full(100, 16 + 0.1 * run.seed, np.float32)  # of the nonfinite one: of a state before its NaN
            study.run(run.name).statistics_arrays.mkdir()
            np.save(study.run(run.name).statistics_arrays / "radius_mu.npy", radius)
    example = Path(__file__).parents[2] / "analysis" / "redraw_figures.py"
    monkeypatch.setattr(sys, "argv", [str(example), str(study.path), "ae", "--bin-width", "0.25"])
    runpy.run_path(str(example), run_name="__main__")
    target = study.figures / "radius-curves-ae-0.25.svg"
    assert capsys.readouterr().out == f"{target}\n"
    (axes,) = runpy.run_path(str(example))["radius_curves"](study, "ae", 0.25).axes
    assert [line.get_label() for line in axes.lines] == ["ae-seed000, regular", "ae-seed003, regular"]
    assert [line.get_xdata()[np.argmax(line.get_ydata())] for line in axes.lines] == pytest.approx([16.125, 16.375])
    assert [max(line.get_ydata()) for line in axes.lines] == pytest.approx([4, 4])


def test_redraw_figures_names_the_arms_that_there_are(mixed, monkeypatch, capsys):
    study, _ = mixed
    example = Path(__file__).parents[2] / "analysis" / "redraw_figures.py"
    monkeypatch.setattr(sys, "argv", [str(example), str(study.path), "vae"])
    with pytest.raises(SystemExit) as exit_:
        runpy.run_path(str(example), run_name="__main__")
    assert exit_.value.code == 2
    assert "its arms: ae, vae-tiny, vae-eps5" in capsys.readouterr().err
