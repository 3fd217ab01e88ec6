"""Worked example: open a finished study and draw the radius curves of one arm in bins of another width.

    python analysis/redraw_figures.py runs/demo vae-tiny --bin-width 0.25

A copy of this file is a place to start from: every number of a report is in the study's directory.
"""

import argparse
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from vaehpc.reporting.palette import CLASS_COLOURS
from vaehpc.stats.radius import radius_histogram
from vaehpc.study.files import StudyDir


def radius_curves(study: StudyDir, arm: str, bin_width: float) -> Figure:
    """Share of images per unit of R = ||mu||_2, one line per run with an end, in the colour of its class."""
    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.subplots()
    for name, run in study.summary().runs.items():
        if run.arm != arm or run.run_class in (None, "nonfinite"):  # None: the run is missing; NaN: it has no end
            continue
        radius = np.load(study.run(name).statistics_arrays / "radius_mu.npy")
        radius = radius[np.isfinite(radius)]
        if not len(radius):
            continue
        histogram = radius_histogram(radius, bin_width, num_bins=1 + int(radius.max() / bin_width))
        density = np.array(histogram.counts) / (len(radius) * bin_width)
        axes.plot(histogram.centres, density, color=CLASS_COLOURS[run.run_class], label=f"{name}, {run.run_class}")
    axes.set(xlabel="latent radius R = ‖μ‖₂", ylabel="share of images per unit of R", title=f"{study.path.name}: {arm}")
    if axes.lines:
        axes.legend(fontsize="x-small")
    return figure


def main() -> None:
    """Draw, save, say where."""
    parser = argparse.ArgumentParser(description="Radius curves of one arm in bins of another width.")
    parser.add_argument("study", type=Path, help="directory of a finished study, such as runs/demo")
    parser.add_argument("arm", help="such as vae-tiny")
    parser.add_argument("--bin-width", type=float, default=0.25)
    arguments = parser.parse_args()
    study = StudyDir(arguments.study)
    if arguments.arm not in (arms := study.summary().arms):
        parser.error(f"{arguments.study} has no arm '{arguments.arm}'; its arms: {', '.join(arms)}")
    target = study.figures / f"radius-curves-{arguments.arm}-{arguments.bin_width:g}.svg"
    radius_curves(study, arguments.arm, arguments.bin_width).savefig(target)
    print(target)


if __name__ == "__main__":
    main()
