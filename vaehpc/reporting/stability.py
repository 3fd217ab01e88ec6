"""The stability of a run's kept states in words, as a table and as a figure."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import StrMethodFormatter

from vaehpc.reporting.explanation import rounded
from vaehpc.reporting.figures import STYLE, WIDTH
from vaehpc.reporting.palette import CLASS_COLOURS, QUIET
from vaehpc.reporting.words import NBSP, counted, enumeration
from vaehpc.schema.results import Stability
from vaehpc.stats.departures import Event

METHOD = (
    "Sharpness is the largest eigenvalue of the Hessian of the loss, on the first images of the training split,"
    " preconditioned as Adam does; by its limit, 2 (1 + β₁) / ((1 - β₁) lr), beyond which Adam leaves the minimum of a"
    " quadratic loss. Curvature is that along Adam's step without momentum, by 2 / lr: beyond 1 such a step alone would"
    " raise the loss. Both limits are those of the learning rate as clipping of the next step's gradient shortens it."
    " g² / v, the median over the weights, is small where Adam's memory holds much larger gradients than the present."
    " R is no property of the function that a net computes: μ and σ times c and the decoder's first kernel K by c leave"
    " the loss as it is. R·‖K‖ stays then. c is the factor that brings μ of the probe's images nearest to that of the"
    " state above, and 'by c alone' the share of the squared change that it explains. Loss for the rest is what the"
    " loss rose since then beyond the KL loss of c."
)


@mpl.rc_context(STYLE)
def stability_figure(states: Sequence[Stability], events: Sequence[Event]) -> Figure:
    """Sharpness and curvature by their limits over steps, on a logarithmic axis, and the steps of the triggers."""
    figure = Figure(figsize=(WIDTH, 2.2), layout="constrained")
    axes = figure.subplots()
    steps = [state.step for state in states]
    for values, label, colour in (
        ([state.sharpness_ratio for state in states], "sharpness", CLASS_COLOURS["regular"]),
        ([state.curvature_ratio for state in states], "curvature along the step", QUIET),
    ):
        drawn = np.array(values, np.float64)
        axes.plot(
            steps, np.where(drawn > 0, drawn, np.nan), "o-", color=colour, markersize=3, linewidth=0.9, label=label
        )
    axes.axhline(1, color=CLASS_COLOURS["diverged"], linewidth=0.8)
    for event in events:
        axes.axvline(event.trigger.step, color=CLASS_COLOURS["diverged"], linewidth=0.8, linestyle=(0, (3, 2)))
    axes.set(yscale="log", xlabel="step", ylabel="by its limit")
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    axes.legend(frameon=False, fontsize=7)
    return figure


def stability_words(states: Sequence[Stability], events: Sequence[Event]) -> str:
    """How many kept states lay beyond the limit, and where the run stood before each trigger."""
    beyond = [state.step for state in states if state.sharpness_ratio is not None and state.sharpness_ratio > 1]
    said = f"Of {counted(len(states), 'kept state')} {len(beyond)} had a sharpness beyond its limit"
    said += f", after {enumeration([f'{step:,}' for step in beyond])} steps." if beyond else "."
    for event in events:
        before = [state for state in states if state.step <= event.trigger.step]
        if before:
            said += (
                f" Before trigger {event.number}, at step {event.trigger.step:,}, the last is that after"
                f" {before[-1].step:,} steps: {ratio(before[-1].sharpness_ratio)} of the limit."
            )
    return said


def stability_section(states: Sequence[Stability], events: Sequence[Event]) -> str:
    """Its part of explanation.md, which links to stability.svg."""
    figure = "![sharpness and curvature by their limits](stability.svg)"
    parts = ["## Stability", stability_words(states, events), figure, stability_table(states), METHOD]
    return "\n\n".join(parts).replace(NBSP, " ") + "\n"


def stability_table(states: Sequence[Stability]) -> str:
    """All numbers, as a table in Markdown."""
    rows = [
        "| steps | state | sharpness | by its limit | curvature | by its limit | ‖g‖ | clipped to | g² / v | loss | R"
        " | R·‖K‖ | c | by c alone | loss for the rest |",
        f"|--:|:--|{13 * '--:|'}",
    ]
    for state in states:
        cells = (
            f"{state.step:,}",
            state.state,
            ratio(state.sharpness),
            ratio(state.sharpness_ratio),
            ratio(state.curvature),
            ratio(state.curvature_ratio),
            ratio(state.gradient_norm),
            "" if state.clip == 1 else ratio(state.clip * state.gradient_norm),
            ratio(state.squares_by_v),
            ratio(state.loss),
            ratio(state.radius_median),
            "" if state.decoder_radius is None else ratio(state.decoder_radius),
            "" if state.scale is None else ratio(state.scale),
            "" if state.scale_share is None else f"{100 * state.scale_share:.0f} %",
            "" if state.loss_paid is None else ratio(state.loss_paid),
        )
        rows.append(f"| {' | '.join(cells)} |")
    return "\n".join(rows)


def ratio(value: float | None) -> str:
    """Three significant digits, or that it was not found."""
    return "not found" if value is None else rounded(value)
