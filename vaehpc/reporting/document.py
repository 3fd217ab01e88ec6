"""The report: one self-contained HTML page and its figures, made from a finished study."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from vaehpc.reporting import figures, findings, tables, words
from vaehpc.reporting.figures import ArmRuns, EndedRun
from vaehpc.reporting.page import Drawing, inline, rendered
from vaehpc.schema.config import ArmConfig, ModelConfig, StudyConfig
from vaehpc.schema.results import StudySummary
from vaehpc.study.files import StudyDir, write_text


def write_report(study: StudyDir, summary: StudySummary) -> None:
    """Write figures/*.svg, the data behind each as *.csv, report.md, and last report.html of a study with a summary.

    Raises:
        UserError: a result cannot be read.
    """
    config = study.config()
    runs = ended_runs(study, config, summary)
    drawings = draw(config, summary, runs)
    study.figures.mkdir(exist_ok=True)
    for name, drawing in drawings.items():
        write_text(study.figures / f"{name}.svg", drawing.svg)
        if drawing.data:
            write_text(study.figures / f"{name}.csv", drawing.data)
    said = contents(study, config, summary, runs, drawings)
    write_text(study.report_text, rendered("report.md.j2", **said))
    write_text(study.report, rendered("template.html.j2", **said))


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
    if any(arm.endpoints for arm in summary.arms.values()):
        outcomes = " ".join(f"{arm}: {findings.outcome(found)}" for arm, found in summary.arms.items())
        drawn["divergence-rates"] = Drawing(
            figures.svg(figures.divergence_rates(summary.arms)), outcomes, tables.csv(tables.rate_rows(summary))
        )
    if summary.events:
        for arm, figure in figures.event_curves(summary.events, summary.control).items():
            of_arm = summary.events[arm]
            drawn[f"events-{arm}"] = Drawing(
                figures.svg(figure),
                f"Aalen-Johansen curves over training steps. {findings.events(arm, of_arm)}",
                tables.csv(tables.event_rows(of_arm)),
            )
    for arm, found in summary.likeness.items():
        drawn[f"likeness-{arm}"] = Drawing(
            figures.svg(figures.likeness_strips(found)),
            words.likeness(arm, found),
            tables.csv(tables.pair_rows(found, config.plan.pairs)),
        )
    ended: ArmRuns = {arm: of_arm for arm, of_arm in runs.items() if of_arm}
    if not ended:
        return drawn
    comparable = {arm: config.plan.classes.article_radius for arm in ended if is_comparable(config, config.arms[arm])}
    finite: ArmRuns = {arm: lines for arm, of_arm in ended.items() if (lines := with_end(of_arm))}
    curves = figures.radius_curves(finite, comparable) if finite else {}
    histories, losses = figures.radius_histories(ended), figures.loss_histories(ended)
    kinds = {
        "radius-curves": ("number of images over latent radius", curves, finite, tables.radius_rows),
        "radius-history": ("median latent radius over epochs", histories, ended, tables.history_rows),
        "losses": ("reconstruction loss, and its excess over H(x), over epochs", losses, ended, tables.history_rows),
    }
    for kind, (shown, of_arms, drawn_runs, rows) in kinds.items():
        for arm, figure in of_arms.items():
            which = "finite run" if drawn_runs is finite else "ended run"
            count = words.counted(len(drawn_runs[arm]), "line")
            alt = f"{arm}: {shown}, {count}, one per {which}. {final_radii(drawn_runs[arm])}"
            drawn[f"{kind}-{arm}"] = Drawing(figures.svg(figure), alt, tables.csv(rows(drawn_runs[arm])))
    return drawn


def with_end(runs: Sequence[EndedRun]) -> list[EndedRun]:
    """Those that are finite: what another has left is of a state before its NaN."""
    return [run for run in runs if run.run_class != "nonfinite"]


def final_radii(runs: Sequence[EndedRun]) -> str:
    """Range of the median radii at the end, for those who cannot see the curves."""
    radii = [run.summary.radius_median for run in runs if run.summary.radius_median is not None]
    if not radii:
        return "No run ended with finite radii."
    return f"Median radii at the end: {words.number(min(radii))} to {words.number(max(radii))}."


def is_comparable(config: StudyConfig, arm: ArmConfig) -> bool:
    """Whether the article's radii mean anything for this arm: real images of its size, and its latent dimension."""
    data, z_dim = config.data, ModelConfig().z_dim
    is_celeba = not (data.synthetic or data.photographs)
    return is_celeba and data.image_size == config.plan.classes.article_image_size and arm.model.z_dim == z_dim


def contents(
    study: StudyDir, config: StudyConfig, summary: StudySummary, runs: ArmRuns, drawings: Mapping[str, Drawing]
) -> dict[str, object]:
    """What the report says, for its page and for report.md."""
    return {
        "config": config,
        "summary": summary,
        "words": words,
        "findings": findings,
        "runs": runs,
        "run_rows": tables.run_rows(study, summary, figures.courses(runs)),
        "course_size": figures.COURSE_SIZE,
        "drawings": {name: inline(drawing, name) for name, drawing in drawings.items()},
        "data": {name: f"{study.figures.name}/{name}.csv" for name, drawing in drawings.items() if drawing.data},
        "pages": study.pages.name,
        "differing": tables.differing_settings(config.arms),
        "shared": tables.shared_settings(config.arms),
        "machines": tables.machines(study, runs),
        "comparison_lines": tables.comparison_lines(study, summary),
        "sensitivity_lines": tables.sensitivity_lines(summary, config.plan),
        "cloud_lines": tables.cloud_lines(summary),
    }
