import base64
import csv
import io
import re

import numpy as np
import pytest
from page import Page, no_requests

from tests import plant
from vaehpc.reporting import figures, words
from vaehpc.reporting.run_page import SAMPLE_IMAGES, draw, run_page
from vaehpc.schema.results import (
    ATTRIBUTES,
    AttributeProbe,
    DimensionStatistics,
    GaussianStatistics,
    InertiaCurve,
    MardiaStatistics,
    RunCourse,
    RunSummary,
    Spread,
    TsneResult,
)
from vaehpc.stats.radius import ratio_histogram
from vaehpc.stats.summary import summarise_run
from vaehpc.study.files import RunDir, StudyDir, write_model
from vaehpc.tasks import pages
from vaehpc.tasks.pages import read_material, write_pages

NUM_POINTS = 300
NOTHING = Spread(min=0, median=0, max=0)
GAUSSIAN = GaussianStatistics(
    num_images=4001,
    sd=NOTHING,
    skewness=NOTHING,
    kurtosis=NOTHING,
    ks=NOTHING,
    correlation_max=0.25,
    rank=3,
    participation_ratio=2.345,
    num_active=3,
    mahalanobis_ks=0.0123,
    mardia=MardiaStatistics(skewness=1, skewness_expected=1, skewness_images=9, kurtosis=15, kurtosis_expected=15),
    radius_mean=16,
    radius_mean_expected=16.1,
    radius_sd=2.111,
    radius_sd_expected=2.222,
)
DIMENSION = DimensionStatistics(num_images=99, num_neighbours=10, two_nn=2.9, two_nn_surrogate=3.1, distance_ratio=0.9)
INERTIA = InertiaCurve(
    method="subsampled", num_clusters=(2, 4, 6), inertia=(9e4, 5e4, 4e4), seeds=(1, 2, 3), elbow=4, elbow_factor=3.5
)
MAPS = [
    TsneResult(
        settings=name,
        num_images=size,
        perplexity=30,
        kl_divergence=1.5,
        neighbour_recall=0.4,
        neighbour_recall_expected=0.01,
        seed=1,
    )
    for size in (NUM_POINTS, 2 * NUM_POINTS)
    for name in ("30-12", "10-16")
]
PROBES = {name: AttributeProbe(share=0.5, auc=0.6, balanced_accuracy=0.55) for name in ATTRIBUTES} | {
    "Smiling": AttributeProbe(share=0.5, auc=0.9, balanced_accuracy=0.8),
    "Bald": AttributeProbe(share=0, auc=float("nan"), balanced_accuracy=float("nan")),
}


@pytest.fixture(scope="module")
def measured(tmp_path_factory) -> tuple[StudyDir, RunSummary]:
    """A study of which vae-tiny-seed000 has everything, ae-seed000 the radii alone, and ae-seed001 nothing."""
    study, summary = plant.classed(
        tmp_path_factory.mktemp("runs") / "m", {"ae": ["regular", None], "vae-tiny": ["diverged"]}
    )
    for name in summary.runs:  # as if the recorders were gone
        study.run(name).probe.unlink(missing_ok=True)
    run_dir = study.run("vae-tiny-seed000")
    cloud = {"gaussian": GAUSSIAN, "dimension": DIMENSION, "inertia": INERTIA, "tsne": tuple(MAPS), "probes": PROBES}
    statistics = run_dir.statistics().model_copy(update=cloud)
    write_model(run_dir.statistics_path, statistics)
    write_arrays(run_dir)
    write_pages(study, study.config(), summary)
    return study, summary.runs[run_dir.name]


def write_arrays(run_dir: RunDir) -> None:
    rng = np.random.default_rng(0)
    run_dir.statistics_arrays.mkdir()
    arrays = {
        "radius_mu": np.linspace(30, 60, 50, dtype=np.float32),
        "principal_variances": np.array([4.0, 1.0, 0.5]),
        "mahalanobis_qq": np.sort(rng.chisquare(3, (2, 50)), axis=1),
        f"tsne_{NUM_POINTS}_images": np.arange(NUM_POINTS),
        **{f"tsne_{NUM_POINTS}_{name}": rng.standard_normal((NUM_POINTS, 2)) for name in ("30-12", "10-16")},
    }
    for name, array in arrays.items():
        np.save(run_dir.statistics_arrays / f"{name}.npy", array)


def page_of(study: StudyDir, name: str) -> Page:
    return Page((study.pages / f"{name}.html").read_text())


def test_every_run_has_a_page_that_needs_no_other_file(measured):
    study, _ = measured
    assert {path.stem for path in study.pages.iterdir()} == {run.name for run in study.config().runs()}
    for run in study.config().runs():
        page = page_of(study, run.name)
        no_requests(page)
        assert {link["href"] for link in page.of("a") if not (link["href"] or "").startswith("data:")} == {
            "../report.html"
        }
        html = (study.pages / f"{run.name}.html").read_text()
        assert "@import" not in html
        assert all(target.startswith("#") for target in re.findall(r"url\(([^)]*)\)", html))


def test_numbers_stand_beside_those_of_the_normal_distribution(measured):
    study, _ = measured
    table = page_of(study, "vae-tiny-seed000").table("quantity", "μ")
    assert table["standard deviation of R"] == ["2.111", "2.222"]
    explained = {line.partition(" how many")[0].partition(" from the")[0]: cells for line, cells in table.items()}
    assert explained["participation ratio of the spectrum"] == ["2.345", words.NO_VALUE]
    assert explained["intrinsic dimension (TwoNN)"] == ["2.900", "3.100"]


def test_its_words_are_explained(measured):
    """Those that it uses, with the signals that its triggers name; that a trigger is no cause is said twice."""
    study, _ = measured
    page = page_of(study, "vae-tiny-seed000")
    used = words.terms_in("the probe; a jump seen", study.config().plan)
    assert list(used) == ["probe", "jump"]
    (html,) = [path.read_text() for path in study.pages.iterdir() if path.stem == "vae-tiny-seed000"]
    explained = re.findall("<dt>([^<]*)</dt><dd>", html[: html.index("</details>")])
    assert {"R", "probe", "flight recorder, trigger"} <= set(explained)
    assert "fork" not in explained and "displaced" not in explained
    assert "a recording, not a cause" in page.text


def test_attributes_stand_in_the_order_of_their_probes(measured):
    study, _ = measured
    page = page_of(study, "vae-tiny-seed000")
    table = page.table("attribute")
    assert next(iter(table.items())) == ("Smiling", ["0.9000", "0.8000", "50 %"])
    assert list(table.items())[-1] == ("Bald", [words.NO_VALUE, words.NO_VALUE, "0 %"])
    assert "with the attribute Smiling" in page.text


def test_radii_beyond_the_articles_bins_are_drawn_as_a_curve(measured, monkeypatch):
    study, summary = measured
    run_dir, drawn, seen = study.run("vae-tiny-seed000"), figures.radius_curves, []
    monkeypatch.setattr(figures, "radius_curves", lambda arms, of_article: seen.append(arms) or drawn(arms, of_article))
    draw(read_material(run_dir, run_dir.config(), summary, None))
    (arms,) = seen
    assert arms["run"][0].ratio_counts == ratio_histogram(np.linspace(30, 60, 50, dtype=np.float32))


def test_every_figure_has_words_and_its_data(measured):
    study, _ = measured
    page = page_of(study, "vae-tiny-seed000")
    labels = [figure["aria-label"] or "" for figure in page.of("svg")]
    assert len(labels) == 7  # losses, radius, spectrum, QQ, inertia and two maps
    assert all(len(label) > 40 for label in labels)
    assert any("an elbow at 4 clusters" in label for label in labels)
    data = {link["download"]: rows_of(link["href"] or "") for link in page.of("a") if link.get("download")}
    assert [float(row["variance"]) for row in data["vae-tiny-seed000-spectrum.csv"]] == [4, 1, 0.5]
    assert [int(row["clusters"]) for row in data["vae-tiny-seed000-inertia.csv"]] == [2, 4, 6]
    counts = [int(row["images"]) for row in data["vae-tiny-seed000-radius.csv"]]
    assert counts[-1] == study.run("vae-tiny-seed000").statistics().radius_mu.histogram.overflow
    assert sum(counts) == 4001


def rows_of(uri: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(base64.b64decode(uri.partition(",")[2]).decode())))


def test_maps_are_coloured_by_the_best_attribute(measured):
    study, run = measured
    run_dir = study.run("vae-tiny-seed000")
    values = np.zeros((12_800, 40), bool)
    plain = run_page(read_material(run_dir, run_dir.config(), run, None), "")
    attributes = dict(zip(ATTRIBUTES, values.T, strict=True))
    others = dict(zip(ATTRIBUTES, ~values.T, strict=True))
    drawn = [run_page(read_material(run_dir, run_dir.config(), run, has), "") for has in (attributes, others)]
    assert len({plain, *drawn}) == 3
    for name, equals in (("Bald", drawn[0]), ("Smiling", drawn[1])):
        attributes[name][:] = True
        assert run_page(read_material(run_dir, run_dir.config(), run, attributes), "") == equals


def test_images_lie_in_the_page(measured):
    study, _ = measured
    folder = study.run("ae-seed000").images
    page = page_of(study, "ae-seed000")
    shown = [base64.b64decode((image["src"] or "").split(",")[1]) for image in page.of("img")]
    assert shown == [(folder / name).read_bytes() for name in SAMPLE_IMAGES if (folder / name).exists()]
    assert all(image["alt"] for image in page.of("img"))
    assert "Not measured: each row: a good z" in page.text  # as an older version left it


def test_what_is_gone_is_called_not_measured(measured):
    study, _ = measured
    page = page_of(study, "ae-seed000")
    assert len(page.of("svg")) == 2  # losses and radius: there is no file of the probe, nor a cloud
    assert page.text.count("ot measured") == 9
    missing = page_of(study, "ae-seed001")
    assert "It is missing: there is no result of train." in missing.text
    assert "MemoryError: <could not allocate 3 GB>" in missing.text
    assert not missing.of("svg")


def test_says_how_to_run_it_again(measured):
    study, _ = measured
    text = page_of(study, "vae-tiny-seed000").text
    assert study.run("vae-tiny-seed000").trained().state_sha256 in text
    assert "train.run('again/vae-tiny-seed000')" in text
    assert "again/" not in page_of(study, "ae-seed001").text


def test_pages_drawn_by_processes_are_those_drawn_here(tmp_path, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    study, summary = plant.classed(tmp_path / "many", {"ae": ["regular", "shifted", None]})
    write_pages(study, study.config(), summary)
    here = {path.name: path.read_bytes() for path in study.pages.iterdir()}
    for path in study.pages.iterdir():
        path.unlink()
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    monkeypatch.setattr(pages, "PAGES_PER_PROCESS", 1)
    monkeypatch.setattr(pages, "read_material", None)  # nothing can be drawn in this process
    write_pages(study, study.config(), summary)
    assert {path.name: path.read_bytes() for path in study.pages.iterdir()} == here


@pytest.mark.parametrize("step", [700, None])
def test_a_nan_heads_what_is_shown_of_the_state_before_it(tmp_path, step):
    """As an older release has left it, which measured all of that state."""
    study, _ = plant.classed(tmp_path / "nan", {"vae-tiny": ["regular"]})
    run_dir = study.run("vae-tiny-seed000")
    cloud = {"gaussian": GAUSSIAN, "tsne": tuple(MAPS), "probes": PROBES, "num_nonfinite": 3}
    run = plant.ended(run_dir, radius=16.5, statistics=cloud, nonfinite_step=step)
    write_arrays(run_dir)
    found = summarise_run(run, "nonfinite", RunCourse(), is_judged=False)
    page = Page(run_page(read_material(run_dir, run_dir.config(), found, None), ""))
    state = f"State of step 600, {'with NaN in its latents' if step is None else 'before NaN at step 700'}"
    assert page.text.count(f"{state}. It is shown on this page alone, and compared with no other run.") == 3
    abstract = " ".join(page.abstract)
    assert ("at step 700 and stopped there." if step else "Its latents hold a NaN or infinity.") in abstract
    assert "at the end" not in page.text + abstract and "standard deviation" not in abstract
    labels = [figure["aria-label"] or "" for figure in page.of("svg")]
    assert [label for label in labels if label.startswith(f"{state}: number of images over latent radius: median 16.5")]
    assert not [label for label in labels if "at the end" in label]
    assert ("Expected: NaN at step 700." in page.text) == (step is not None)


def test_a_page_is_written_again_only_if_its_run_has_changed(tmp_path):
    study, summary = plant.classed(tmp_path / "again", {"ae": ["regular", "regular"]})
    write_pages(study, study.config(), summary)
    before = {path.name: path.stat().st_mtime_ns for path in study.pages.iterdir()}
    write_pages(study, study.config(), summary)
    assert {path.name: path.stat().st_mtime_ns for path in study.pages.iterdir()} == before
    shifted = summary.runs["ae-seed001"].model_copy(update={"run_class": "shifted"})
    write_pages(study, study.config(), summary.model_copy(update={"runs": summary.runs | {"ae-seed001": shifted}}))
    (study.run("ae-seed000").images / "random_normal.png").unlink()
    after = {path.name: path.stat().st_mtime_ns for path in study.pages.iterdir()}
    assert after["ae-seed000.html"] == before["ae-seed000.html"]
    assert "Its class is shifted." in page_of(study, "ae-seed001").text
    write_pages(study, study.config(), summary)
    assert len(page_of(study, "ae-seed000").of("img")) == 7
