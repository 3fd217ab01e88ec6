"""The page of one run: what it was asked to be, how its training went, how its latent points lie, what it decodes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from vaehpc.reporting import figures, findings, run_figures, tables, words
from vaehpc.reporting.explanation import PANELS, Explained, event_words, overview_figure
from vaehpc.reporting.figures import EndedRun
from vaehpc.reporting.page import Drawing, data_uri, inline, rendered
from vaehpc.schema.config import RunConfig
from vaehpc.schema.results import AttributeProbe, EpochRecord, LatentStatistics, RunSummary, TrainedRecord
from vaehpc.stats.course import ProbeCurve
from vaehpc.stats.quantities import best_probe
from vaehpc.stats.radius import ratio_histogram

SAMPLE_IMAGES = {
    "reconstructions.png": "training images above, reconstructions below",
    "random_normal.png": "z from N(0, 1)",
    "random_fitted.png": "z from N(m, C): mean and covariance of this run's own latent points",
    "random_uniform_2.png": "z uniform in [−2, 2]",
    "random_uniform_3.png": "z uniform in [−3, 3]",
    "random_uniform_8.png": "z uniform in [−8, 8]",
    "random_uniform_10.png": "z uniform in [−10, 10]",
    "random_uniform_16.png": "z uniform in [−16, 16]",
    "perturbations.png": (
        "each row: a good z, then z moved in one random direction by 1/64, 1/32, 1/16, 1/8, 1/4, 1/2, 1, 2, 4 times its"
        " length"
    ),
    "paths.png": "each row: on the straight line from one good z to another",
}
"""What training writes to a run's latents/images, and what it shows."""


@dataclass(frozen=True)
class RunMaterial:
    """Everything that a run has left so far; what is None or absent is gone, or was never made."""

    config: RunConfig
    summary: RunSummary
    trained: TrainedRecord | None
    statistics: LatentStatistics | None
    history: Sequence[EpochRecord]
    probe: ProbeCurve
    recorded: Explained | None
    """None: no step of the flight recorder is there."""
    arrays: Mapping[str, npt.NDArray[Any]]
    """Of statistics/, by name without '.npy'."""
    attributes: Mapping[str, npt.NDArray[np.bool_]] | None
    """Of the training images, (num_train,), by name."""
    images: Mapping[str, bytes] = field(default_factory=dict)
    """PNG files by name, in the order of SAMPLE_IMAGES."""
    replays: Mapping[str, str] = field(default_factory=dict)
    """Pages of its replays by their names, relative to its own."""


def run_page(run: RunMaterial, made_of: str) -> str:
    """The page as text. It needs no other file; its links lead back to the study's report.

    Args:
        run: what it shows.
        made_of: a hash that changes with it; stands in the page's head.
    """
    drawings = draw(run)
    events = [event_words(event, run.recorded) for event in run.recorded.events] if run.recorded else []
    return rendered(
        "run.html.j2",
        run=run,
        made_of=made_of,
        state=words.state_shown(run.summary, run.trained),
        name=run.config.name,
        words=words,
        findings=findings,
        drawings={name: inline(drawing, name) for name, drawing in drawings.items()},
        data={name: data_uri(drawing.data.encode(), "text/csv") for name, drawing in drawings.items() if drawing.data},
        pictures={SAMPLE_IMAGES[name]: data_uri(content, "image/png") for name, content in run.images.items()},
        not_pictured=[caption for name, caption in SAMPLE_IMAGES.items() if name not in run.images],
        events=events,
        terms=words_used(run, events),
        jump_rows=tables.jump_rows({run.config.name: run.summary}),
        num_unmeasured=tables.num_unmeasured({run.config.name: run.summary}),
        settings=tables.settings(run.config.arm),
        probes=ranked(run.statistics),
        best_attribute=best_attribute(run.statistics),
    )


def words_used(run: RunMaterial, events: Sequence[Sequence[str]]) -> dict[str, str]:
    """The terms that its page uses, and the signals that its triggers name, in a line each."""
    said = [
        "R of the probe, flight recorder",
        words.run_overview(run.config, run.summary, run.trained),
        findings.course(run.summary),
        *words.run_findings(run.summary, run.statistics),
        *(paragraph for paragraphs in events for paragraph in paragraphs),
    ]
    text = "\n".join(said)
    signals = {name: meaning for name, meaning in PANELS.items() if name in text}
    return words.terms_in(text, run.config.plan) | signals


def ranked(statistics: LatentStatistics | None) -> list[tuple[str, AttributeProbe]]:
    """Attributes with their probes, the best first; those that could not be judged last."""
    found = (statistics.probes or {}).items() if statistics else ()
    return sorted(found, key=lambda item: (math.isnan(item[1].auc), -item[1].auc))


def best_attribute(statistics: LatentStatistics | None) -> str | None:
    """That which a linear probe reads best; it colours the maps."""
    best = best_probe(statistics) if statistics else None
    return best[0] if best else None


def draw(run: RunMaterial) -> dict[str, Drawing]:
    """Every figure for which there are results."""
    drawn = {}
    radii = run.probe.radius_medians
    if len(radii):
        figure = run_figures.probe_curve(run.probe, run.summary.onset_step, run.summary.triggers)
        rows = [{"step": step, "radius_median": radius} for step, radius in zip(run.probe.steps, radii, strict=True)]
        alt = (
            f"Median radius of the probe over {len(radii):,} probes: {words.number(float(radii[0]))} at the first,"
            f" {words.number(float(radii[-1]))} at the last."
        )
        drawn["probe"] = Drawing(figures.svg(figure), alt, tables.csv(rows))
    if run.recorded is not None:
        drawn["recorder"] = Drawing(
            figures.svg(overview_figure(run.recorded)),
            f"Signals of {len(run.recorded.record.steps):,} recorded steps; the flight recorder fired"
            f" {words.times(len(run.recorded.events))}.",
        )
    if run.statistics is not None and run.summary.run_class is not None:
        drawn |= _of_the_study(run, run.statistics)
        drawn |= _of_the_cloud(run, run.statistics)
    return drawn


def _of_the_study(run: RunMaterial, statistics: LatentStatistics) -> dict[str, Drawing]:
    """Figures that the study's report has of every run, of this one alone."""
    assert run.summary.run_class is not None
    alone = EndedRun(
        name=run.config.name,
        run_class=run.summary.run_class,
        summary=run.summary,
        statistics=statistics,
        history=run.history,
        steps_per_epoch=run.config.steps_per_epoch,
        ratio_counts=ratio_histogram(run.arrays["radius_mu"]) if "radius_mu" in run.arrays else None,
    )
    arms = {"run": [alone]}
    radius, state = statistics.radius_mu, words.state_shown(run.summary, run.trained)
    drawn = {
        "radius": Drawing(
            figures.svg(figures.radius_curves(arms, {})["run"]),
            f"{state}{': n' if state else 'N'}umber of images over latent radius: median {words.number(radius.median)},"
            f" smallest {words.number(radius.min)}, largest {words.number(radius.max)}.",
            tables.csv(tables.radius_rows([alone])),
        )
    }
    if run.history:
        last = run.history[-1]
        drawn["losses"] = Drawing(
            figures.svg(figures.loss_histories(arms)["run"]),
            f"Reconstruction loss and its excess over H(x) over {words.counted(len(run.history), 'epoch')}: in the last"
            f" one {words.number(last.reconstruction_loss)} and {words.number(last.excess_loss)}.",
            tables.csv(tables.history_rows([alone])),
        )
    return drawn


def _of_the_cloud(run: RunMaterial, statistics: LatentStatistics) -> dict[str, Drawing]:
    """Figures of how the latent points lie."""
    drawn = {}
    if statistics.gaussian is not None and (variances := run.arrays.get("principal_variances")) is not None:
        drawn["spectrum"] = Drawing(
            figures.svg(run_figures.spectrum(variances)),
            f"Variances along {len(variances):,} principal axes: {words.number(float(variances[0]))} to"
            f" {words.number(float(variances[-1]))};"
            f" participation ratio {words.number(statistics.gaussian.participation_ratio)}.",
            tables.csv([{"axis": axis, "variance": value} for axis, value in enumerate(variances, start=1)]),
        )
    if statistics.gaussian is not None and (quantiles := run.arrays.get("mahalanobis_qq")) is not None:
        drawn["qq"] = Drawing(
            figures.svg(run_figures.qq_of_chi2(quantiles)),
            "Quantiles of the squared Mahalanobis distances over those of χ² with"
            f" {statistics.gaussian.rank} degrees of freedom; largest distance of the distribution functions"
            f" {words.number(statistics.gaussian.mahalanobis_ks)}.",
            tables.csv([{"chi2": chi2, "mahalanobis_squared": found} for chi2, found in quantiles.T]),
        )
    if (curve := statistics.inertia) is not None and len(curve.num_clusters) > 1:
        rows = [
            {"clusters": count, "inertia": value, "random_state": seed}
            for count, value, seed in zip(curve.num_clusters, curve.inertia, curve.seeds, strict=True)
        ]
        alt = f"Inertia over {curve.num_clusters[0]} to {curve.num_clusters[-1]} clusters: {words.elbow(curve)}."
        drawn["inertia"] = Drawing(figures.svg(run_figures.inertia(curve)), alt, tables.csv(rows))
    if statistics.tsne:
        size = statistics.tsne[0].num_images
        positions = run.arrays.get(f"tsne_{size}_images")
        best = best_attribute(statistics)
        has_best = None
        if run.attributes is not None and best is not None and positions is not None:
            has_best = run.attributes[best][positions]
        for result in statistics.tsne:
            coordinates = run.arrays.get(f"tsne_{size}_{result.settings}")
            if result.num_images == size and coordinates is not None:
                figure = run_figures.embedding(coordinates, has_best)
                drawn[f"tsne-{result.settings}"] = Drawing(figures.svg(figure), words.embedding(result, best))
    return drawn
