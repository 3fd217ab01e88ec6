"""The report: one self-contained HTML page and its figures, made from a finished study."""

from __future__ import annotations

import base64
import importlib.resources
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup, escape

from vaehpc.config import ArmConfig, ModelConfig, StudyConfig
from vaehpc.files import StudyDir, write_text
from vaehpc.report import figures, tables, words
from vaehpc.report.figures import ArmRuns, EndedRun
from vaehpc.results import StudySummary

PAGE_COLOURS = {
    figures.INK: "--ink",
    figures.QUIET: "--quiet",
    figures.RULE: "--rule",
    figures.PAPER: "--paper",
    **{colour: f"--{run_class}" for run_class, colour in figures.CLASS_COLOURS.items()},
}
"""Colours of the figures that the page sets itself, so that they follow its dark mode."""

SAMPLE_IMAGES = {
    "reconstructions.png": "training images above, reconstructions below",
    "random_normal.png": "z from N(0, 1)",
    "random_fitted.png": "z from N(m, C): mean and covariance of this run's own latent points",
    "random_uniform_2.png": "z uniform in [−2, 2]",
    "random_uniform_3.png": "z uniform in [−3, 3]",
    "random_uniform_8.png": "z uniform in [−8, 8]",
    "random_uniform_10.png": "z uniform in [−10, 10]",
    "random_uniform_16.png": "z uniform in [−16, 16]",
}
"""What training writes to a run's latents/images, and what it shows."""


@dataclass(frozen=True)
class Drawing:
    """A figure as an SVG document, and what it shows in words."""

    svg: str
    alt: str
    data: str | None = None
    """What is drawn, as CSV."""


@dataclass(frozen=True)
class Picture:
    """A sample image as a data URI."""

    caption: str
    source: str


@dataclass(frozen=True)
class Gallery:
    """Sample images of one run, which stands for its arm and class."""

    run: EndedRun
    pictures: list[Picture]


def write_report(study: StudyDir, summary: StudySummary) -> None:
    """Write figures/*.svg, the data behind the newer ones as *.csv, and last report.html of a study with a summary.

    Raises:
        UserError: a result cannot be read.
    """
    config = study.config()
    runs = ended_runs(study, config, summary)
    drawings = draw(config, summary, runs)
    study.figures.mkdir(exist_ok=True)
    for name, drawing in drawings.items():
        write_text(study.figures / f"{name}.svg", drawing.svg)
        if drawing.data is not None:
            write_text(study.figures / f"{name}.csv", drawing.data)
    write_text(study.report, page(study, config, summary, runs, drawings))


def ended_runs(study: StudyDir, config: StudyConfig, summary: StudySummary) -> dict[str, list[EndedRun]]:
    """Runs with results, by arm in the order of the study."""
    configs = {run.name: run for run in config.runs()}
    runs: dict[str, list[EndedRun]] = {arm: [] for arm in summary.arms}
    for name, found in summary.runs.items():
        if found.run_class is not None:
            directory = study.run(name)
            runs[found.arm].append(
                EndedRun(
                    name=name,
                    run_class=found.run_class,
                    summary=found,
                    statistics=directory.statistics(),
                    history=directory.history(),
                    steps_per_epoch=configs[name].steps_per_epoch,
                )
            )
    return runs


def draw(config: StudyConfig, summary: StudySummary, runs: ArmRuns) -> dict[str, Drawing]:
    """Every figure for which there are results, by the name of its file."""
    drawn = {}
    if any(arm.rate is not None for arm in summary.arms.values()):
        outcomes = " ".join(f"{arm}: {words.outcome(found)}" for arm, found in summary.arms.items())
        drawn["divergence-rates"] = Drawing(figures.svg(figures.divergence_rates(summary.arms)), outcomes)
    if summary.onsets:
        for arm, figure in figures.onset_curves(summary.onsets, summary.control).items():
            curve = summary.onsets[arm]
            drawn[f"onsets-{arm}"] = Drawing(
                figures.svg(figure),
                f"Kaplan-Meier curve over training steps. {words.onsets(arm, curve)}",
                tables.csv(tables.onset_rows(curve)),
            )
    for arm, found in summary.likeness.items():
        drawn[f"likeness-{arm}"] = Drawing(
            figures.svg(figures.likeness_strips(found)),
            words.likeness(arm, found),
            tables.csv(tables.pair_rows(found, config.plan.pairs)),
        )
    ended = {arm: of_arm for arm, of_arm in runs.items() if of_arm}
    if not ended:
        return drawn
    comparable = {arm: config.plan.classes.article_radius for arm in ended if is_comparable(config, config.arms[arm])}
    kinds = {
        "radius-curves": ("number of images over latent radius", figures.radius_curves(ended, comparable)),
        "radius-history": ("median latent radius over epochs", figures.radius_histories(ended)),
        "losses": ("reconstruction loss, and its excess over H(x), over epochs", figures.loss_histories(ended)),
    }
    for kind, (shown, of_arms) in kinds.items():
        for arm, figure in of_arms.items():
            alt = (
                f"{arm}: {shown}, {words.counted(len(runs[arm]), 'line')}, one per ended run. {final_radii(runs[arm])}"
            )
            drawn[f"{kind}-{arm}"] = Drawing(figures.svg(figure), alt)
    return drawn


def final_radii(runs: Sequence[EndedRun]) -> str:
    """Range of the median radii at the end, for those who cannot see the curves."""
    radii = [run.summary.radius_median for run in runs if run.summary.radius_median is not None]
    if not radii:
        return "No run ended with finite radii."
    return f"Median radii at the end: {words.number(min(radii))} to {words.number(max(radii))}."


def is_comparable(config: StudyConfig, arm: ArmConfig) -> bool:
    """Whether the article's radii mean anything for this arm: real images of its size, and its latent dimension."""
    data, z_dim = config.data, ModelConfig().z_dim
    return not data.synthetic and data.image_size == config.plan.classes.article_image_size and arm.model.z_dim == z_dim


def page(
    study: StudyDir, config: StudyConfig, summary: StudySummary, runs: ArmRuns, drawings: Mapping[str, Drawing]
) -> str:
    """report.html as text."""
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    template = importlib.resources.files("vaehpc.report").joinpath("template.html.j2").read_text(encoding="utf-8")
    return environment.from_string(template).render(
        config=config,
        summary=summary,
        words=words,
        class_colours=figures.CLASS_COLOURS,
        runs=runs,
        run_rows=tables.run_rows(study, summary),
        drawings={name: inline(drawing, name) for name, drawing in drawings.items()},
        galleries=galleries(study, runs),
        differing=tables.differing_settings(config.arms),
        shared=tables.shared_settings(config.arms),
        machines=tables.machines(study, runs),
        comparison_lines=tables.comparison_lines(summary),
        sensitivity_lines=tables.sensitivity_lines(summary),
    )


def inline(drawing: Drawing, name: str) -> Markup:
    """A figure as an element of the page, with ids of its own and the page's colours."""
    element = drawing.svg[drawing.svg.index("<svg") :]
    element = re.sub(r'\bid="', f'id="{name}-', element)
    element = re.sub(r'(href="#|url\(#)', rf"\g<1>{name}-", element)
    for colour, variable in PAGE_COLOURS.items():
        element = element.replace(colour, f"var({variable})")
    return Markup(element.replace("<svg", f'<svg role="img" aria-label="{escape(drawing.alt)}"', 1))


def galleries(study: StudyDir, runs: ArmRuns) -> list[Gallery]:
    """Sample images of the first seed of each arm and class."""
    first: dict[tuple[str, str], EndedRun] = {}
    for arm, of_arm in runs.items():
        for run in of_arm:
            first.setdefault((arm, run.run_class), run)
    found = [Gallery(run, pictures(study.run(run.name).images)) for run in first.values()]
    return [gallery for gallery in found if gallery.pictures]


def pictures(folder: Path) -> list[Picture]:
    """The sample images that a run has."""
    return [
        Picture(caption, data_uri(folder / file)) for file, caption in SAMPLE_IMAGES.items() if (folder / file).exists()
    ]


def data_uri(png: Path) -> str:
    """A PNG file as text, so that the page needs no other file."""
    return f"data:image/png;base64,{base64.b64encode(png.read_bytes()).decode()}"
