"""Worked example: open a finished study, redraw a figure in another way, and test a hypothesis of one's own.

    python analysis/own_question.py runs/demo

The question here: do runs whose radius is large early end far away? It is one that nobody planned, so its p confirms
nothing; a study of other seeds would. A copy of this file is a place to start from.
"""

import argparse
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from scipy.stats import mannwhitneyu

import vaehpc
from vaehpc.study.tables import StudyTables

EARLY = 0.1
"""Of the training: the radius there is compared."""


def early_radii(study: StudyTables) -> dict[str, list[float]]:
    """Radius after EARLY of the training of the runs that diverged or became NaN, and of the others."""
    probe, runs = columns(study.probe), columns(study.runs)
    step = np.quantile(probe["step"], EARLY)
    rows = zip(probe["run"], probe["step"], probe["radius_median"], strict=True)
    early = {run: radius for run, at, radius in rows if at <= step}  # of each run the last one up to there
    found: dict[str, list[float]] = {"left": [], "stayed": []}
    for run, run_class in zip(runs["run"], runs["class"], strict=True):
        if run in early and run_class is not None:
            found["left" if run_class in ("diverged", "nonfinite") else "stayed"].append(early[run])
    return found


def columns(table) -> dict[str, list]:
    """Columns of a pandas or an Arrow table; a missing word is None."""
    return table.to_dict("list") if hasattr(table, "to_dict") else table.to_pydict()


def drawn(found: dict[str, list[float]]) -> Figure:
    """Both groups as dots, on a logarithmic axis."""
    figure = Figure(figsize=(5, 2.5), layout="constrained")
    axes = figure.subplots()
    for height, (group, radii) in enumerate(found.items()):
        axes.plot(radii, [height] * len(radii), "o", alpha=0.6, label=f"{group} ({len(radii)})")
    axes.set(xscale="log", yticks=[], ylim=(-0.5, 1.5), xlabel=f"median radius R after {EARLY:.0%} of the training")
    axes.legend()
    return figure


def main() -> None:
    """Open, draw, test, say."""
    parser = argparse.ArgumentParser(description="Do runs whose radius is large early end far away?")
    parser.add_argument("study", type=Path, help="directory of a finished study, such as runs/demo")
    study = vaehpc.load(parser.parse_args().study)
    found = early_radii(study)
    target = study.study.figures / "early-radii.svg"
    drawn(found).savefig(target)
    print(target)
    if not all(found.values()):
        print("All runs did the same: there is nothing to compare.")
        return
    test = mannwhitneyu(found["left"], found["stayed"], alternative="two-sided")
    medians = ", ".join(f"{np.median(radii):.1f} of {len(radii)} that {group}" for group, radii in found.items())
    print(f"Median early radius: {medians}; Mann-Whitney p = {test.pvalue:.2g}, two-sided, exploratory.")


if __name__ == "__main__":
    main()
