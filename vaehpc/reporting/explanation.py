"""What happened around a run's triggers, as figures and words: recorded steps in, Figures and text out.

One panel per signal, in the order in which a step makes them, on one axis of steps.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator, StrMethodFormatter

from vaehpc.reporting.figures import LOG_RANGE, STYLE, WIDTH
from vaehpc.reporting.palette import CLASS_COLOURS, INK, QUIET
from vaehpc.reporting.words import NBSP, counted, enumeration, number, percent
from vaehpc.schema.config import RunConfig
from vaehpc.schema.plan import RecorderPlan
from vaehpc.schema.results import RunSummary, TriggerRecord
from vaehpc.stats.course import ProbeCurve
from vaehpc.stats.departures import Departure, Event, StepRecord, chance_to_leave, searched_steps

PANELS = {
    "epsilon_max": "max |ε| of the batch",
    "log_var_max": "max log σ² of the batch",
    "reconstruction_loss": "reconstruction loss",
    "image_loss_max": "largest loss of an image",
    "kl_loss": "KL loss, weighted",
    "gradient_norm": "norm of the gradient g",
    "gradient_rms": "RMS of g / √v over all weights",
    "gradient_peak": "max g² / v over all weights",
    "update_norm": "norm of the update",
    "radius_mean": "R = ‖μ‖₂: mean of the batch (line), median of the probe (circles)",
}
"""Signals that are drawn, and their titles; a run draws those that it has."""

SIGNAL = CLASS_COLOURS["regular"]
BAND = "#dbe9f4"
ALARM = CLASS_COLOURS["diverged"]

MAX_POINTS = 700
"""Points that a panel can tell apart; more steps than that are drawn as their range."""

MAX_CIRCLES = 60
"""Probes that are drawn as circles; more become dots."""

LAST = ("log_var_max", "gradient_norm", "radius_mean", "total_loss")
"""Signals whose last values are told of a run that was not finite, and of how many steps."""
NUM_LAST = 7

FEW = 0.02
"""Chance of a band to be left by chance from which on it is told; 0.25 % where the plan's steps are there."""

NUM_NEXT = 4
"""Steps whose departures are told with their values; the table has all."""


@dataclass(frozen=True)
class Explained:
    """Everything that is said of one run."""

    config: RunConfig
    record: StepRecord
    probe: ProbeCurve
    events: Sequence[Event]


# Figures


@mpl.rc_context(STYLE)
def event_figure(event: Event, probe: ProbeCurve) -> Figure:
    """The signals around a trigger with their bands, and where each left its own first."""
    figure, panels = _stack(event.record)
    departures = {departure.signal: departure for departure in event.departures}
    for name, axes in panels.items():
        values, band = event.record.signals[name], event.bands.get(name)
        within = _probe_within(probe, event.record, name)
        edges = [] if band is None else [band.low, band.high]
        _set_scale(axes, np.r_[values, within.radius_medians, edges])
        if band is not None:
            axes.axhspan(band.low, min(band.high, axes.get_ylim()[1]), color=BAND, linewidth=0)
        axes.axvline(event.trigger.step, color=ALARM, linewidth=0.8, linestyle=(0, (3, 2)))
        axes.axvline(event.first_searched - 0.5, color=QUIET, linewidth=0.8, linestyle=(0, (1, 2)))
        axes.plot(event.record.steps, values, color=SIGNAL, linewidth=0.9)
        _draw_probe(axes, within)
        if departure := departures.get(name):
            _mark_departure(axes, departure)
    first, *_ = panels.values()
    _label_above(first, event)
    legend = (
        "Dashed: the trigger. Left of the dotted line: the reference window. Shaded: its range, three times as wide."
    )
    figure.suptitle(legend, x=0.01, ha="left", fontsize=7, color=QUIET)
    return figure


@mpl.rc_context(STYLE)
def overview_figure(explained: Explained) -> Figure:
    """The signals of the whole run: the range of each where the steps are more than a figure shows; triggers marked."""
    figure, panels = _stack(explained.record)
    steps = explained.record.steps
    for name, axes in panels.items():
        values = explained.record.signals[name]
        within = _probe_within(explained.probe, explained.record, name)
        _set_scale(axes, np.r_[values, within.radius_medians])
        for event in explained.events:
            axes.axvline(event.trigger.step, color=ALARM, linewidth=0.8, linestyle=(0, (3, 2)))
        if len(steps) > MAX_POINTS:
            starts, low, high = envelope(steps, values, MAX_POINTS)
            axes.fill_between(starts, low, high, color=SIGNAL, linewidth=0.5, step="post")
        else:
            axes.plot(steps, values, color=SIGNAL, linewidth=0.9)
        _draw_probe(axes, within)
    first, *_ = panels.values()
    for event in explained.events:
        _label_above(first, event)
    return figure


def envelope(steps: np.ndarray, values: np.ndarray, num_bins: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """First step, least and greatest finite value of groups of consecutive steps, each (num_bins,)."""
    starts = np.arange(num_bins) * len(steps) // num_bins
    finite = np.isfinite(values)
    low = np.minimum.reduceat(np.where(finite, values, np.inf), starts)
    high = np.maximum.reduceat(np.where(finite, values, -np.inf), starts)
    empty = low > high
    return steps[starts], np.where(empty, np.nan, low), np.where(empty, np.nan, high)


def _stack(record: StepRecord) -> tuple[Figure, dict[str, Axes]]:
    """One panel for each signal of PANELS that the record holds."""
    names = [name for name in PANELS if name in record.signals]
    figure = Figure(figsize=(2 * WIDTH, 0.5 + 0.82 * len(names)), layout="constrained")
    panels = dict(zip(names, figure.subplots(len(names), 1, sharex=True, squeeze=False)[:, 0], strict=True))
    for name, axes in panels.items():
        axes.set_title(PANELS[name], loc="left", fontsize=8, color=INK, pad=3)
        axes.set_xlim(record.steps[0], record.steps[-1] + 1)
        axes.xaxis.set_major_locator(MaxNLocator(8, integer=True))
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    axes.set_xlabel("step")
    return figure, panels


def _set_scale(axes: Axes, values: np.ndarray) -> None:
    """Limits that hold all finite values; logarithmic where they span more than a linear axis shows."""
    finite = values[np.isfinite(values)]
    low, high = (finite.min(), finite.max()) if finite.size else (0.0, 1.0)
    if high > LOG_RANGE * low > 0:
        margin = (high / low) ** 0.06
        subs = (1, 2, 5) if high < 10 * low else (1, 3) if high < 100 * low else (1,)
        axes.set(yscale="log", ylim=(low / margin, high * margin))
        axes.yaxis.set_major_locator(LogLocator(subs=subs, numticks=4))
    else:
        margin = 0.06 * (high - low) or 0.1 * abs(high) or 1.0
        axes.set_ylim(low - margin, high + margin)
        axes.yaxis.set_major_locator(MaxNLocator(3))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda tick, _: rounded(tick)))
    axes.yaxis.set_minor_locator(NullLocator())


def _mark_departure(axes: Axes, departure: Departure) -> None:
    """A point at the value, at the edge of the panel where it has no place on the axis, and the step in words."""
    low, high = axes.get_ylim()
    value = float(np.clip(departure.value, low, high)) if not math.isnan(departure.value) else high
    axes.plot(departure.step, value, "o", color=ALARM, markersize=3.5, clip_on=False, zorder=3)
    said = f"left its band at step {departure.step:,} with {rounded(departure.value)}"
    axes.set_title(said, loc="right", fontsize=7, color=ALARM, pad=3)


def _probe_within(probe: ProbeCurve, record: StepRecord, name: str) -> ProbeCurve:
    """The finite probes among the record's steps, for the panel of R; none for another."""
    shown = (probe.steps >= record.steps[0]) & (probe.steps <= record.steps[-1] + 1)
    shown &= np.isfinite(probe.radius_medians) & (name == "radius_mean")
    return ProbeCurve(probe.steps[shown], probe.radius_medians[shown])


def _draw_probe(axes: Axes, within: ProbeCurve) -> None:
    if len(within.steps):
        size = 3.5 if len(within.steps) <= MAX_CIRCLES else 1.2
        # After n steps is between the steps n - 1 and n, which are counted from 0.
        axes.plot(within.steps - 0.5, within.radius_medians, "o", color=INK, markerfacecolor="none", markersize=size)


def _label_above(axes: Axes, event: Event) -> None:
    axes.annotate(
        f"{event.number}",
        (event.trigger.step, 1),
        (0, 13),
        xycoords=axes.get_xaxis_transform(),
        textcoords="offset points",
        ha="center",
        color=ALARM,
        fontsize=7,
        annotation_clip=False,
    )


# Words


def page(explained: Explained) -> str:
    """explanation.md: the words of every trigger, its figure and its departures, then how a band is made."""
    parts = [f"# {explained.config.name}", coverage(explained), "![the whole run](overview.svg)"]
    for event in explained.events:
        parts += [f"## Trigger {event.number}", *event_words(event, explained)]
        parts += [f"![around trigger {event.number}](trigger-{event.number}.svg)", departures_table(event)]
    if explained.events:
        parts += ["## How to read this", method(explained.config)]
    return "\n\n".join(part for part in parts if part).replace(NBSP, " ") + "\n"


def coverage(explained: Explained) -> str:
    """Which steps the recorder holds, and how often it triggered in them."""
    run, steps = explained.config, explained.record.steps
    triggers = counted(len(explained.events), "trigger") if explained.events else "no trigger"
    return (
        f"{run.name}: {triggers} in the {counted(len(steps), 'step')} from {steps[0]:,} to {steps[-1]:,} that the"
        f" recorder holds; the training has {run.num_steps:,}, and nothing but a loss or gradient that is not finite"
        f" triggers in the first {run.burn_in:,}.{overflow_words(explained)}"
    )


def overflow_words(explained: Explained) -> str:
    """How often float16's loss scale overflowed; nothing of another precision, or if it never did."""
    signals = explained.record.signals
    if explained.config.arm.train.precision != "mixed_float16" or "gradient_norm" not in signals:
        return ""
    is_overflow = ~np.isfinite(signals["gradient_norm"])
    if "total_loss" in signals:  # the step with which a training ends is none
        is_overflow &= np.isfinite(signals["total_loss"])
    if not (num_overflows := int(is_overflow.sum())):
        return ""
    return (
        f" In {counted(num_overflows, 'step')} the loss scale of float16 overflowed: they changed no weight and trigger"
        " nothing."
    )


def event_words(event: Event, explained: Explained) -> list[str]:
    """What happened around a trigger, as paragraphs: the trigger, the departures in their order, R, images, noise."""
    run = explained.config
    said = [
        trigger_words(event.trigger, run),
        spike_words(event.trigger, run),
        last_words(event),
        departure_words(event, explained.events),
        radius_words(event.trigger, explained.probe, run.plan.recorder),
        image_words(event),
        noise_words(event),
    ]
    return [paragraph for paragraph in said if paragraph]


def trigger_words(trigger: TriggerRecord, run: RunConfig) -> str:
    """'Step 1,234 (epoch 2): the trigger was gradient_norm 31,000, limit 4,100: 10 times its median.'"""
    plan = run.plan.recorder
    limits = {
        "gradient_norm": f"{plan.gradient_factor:g} times its median over the {plan.ring_steps} steps before",
        "probe_radius": f"{plan.probe_factor:g} times its value {run.plan.probe.every_steps} steps earlier",
    }
    where = f"Step {trigger.step:,} (epoch {trigger.step // run.steps_per_epoch + 1})"
    if trigger.signal == "nonfinite":
        return f"{where}: the trigger was a loss or gradient that is not finite."
    signal = "the probe's median R" if trigger.signal == "probe_radius" else trigger.signal
    limit = f"limit {rounded(trigger.limit)}"
    if trigger.signal in limits:
        limit += f", {limits[trigger.signal]}"
    return f"{where}: the trigger was {signal} {rounded(trigger.value)} ({limit})."


def spike_words(trigger: TriggerRecord, run: RunConfig) -> str:
    """The disturbance that the arm puts in, if it has one."""
    if (spike := run.arm.spike) is None or (step := run.spike_step) is None:
        return ""
    does = "multiplied the gradients by" if spike.kind == "gradient" else "raised one log_var of one image by"
    return f"On purpose, this arm {does} {spike.strength:g} at step {step:,}, {relation(step, trigger.step)}."


def last_words(event: Event) -> str:
    """The values of the last steps before a loss or gradient that was not finite, step by step; else nothing."""
    steps = event.record.steps
    if event.trigger.signal != "nonfinite" or event.trigger.step not in steps:
        return ""
    # The gradient may be infinite steps before the loss, with which the record ends.
    last = min(int(steps[-1]), event.trigger.step + NUM_LAST - 1)
    rows = event.record.between(last + 1 - NUM_LAST, last)
    said = [f"{name} {', '.join(map(rounded, rows.signals[name]))}" for name in LAST if name in rows.signals]
    return f"Steps {rows.steps[0]:,} to {rows.steps[-1]:,}: {'; '.join(said)}."


def departure_words(event: Event, events: Iterable[Event]) -> str:
    """Which signals left their bands, step by step; where another trigger makes the bands wide, or there are none."""
    first, trigger_step = event.first_searched - event.num_reference_steps, event.trigger.step
    if not event.bands:
        return (
            f"The recorder holds {counted(event.num_reference_steps, 'step')} of the reference window before step"
            f" {event.first_searched:,}: too few for bands."
        )
    window = f"the reference window, steps {first:,} to {event.first_searched - 1:,}"
    few = ""
    if event.chance >= FEW:
        few = (
            f" These are only {counted(event.num_reference_steps, 'step')}: each signal leaves such a band with a"
            f" chance of up to {percent(event.chance)} where nothing happens, so that only values far outside tell."
        )
    said = [f"No signal left its band of {window}."]
    if event.departures:
        groups = [list(group) for _, group in groupby(event.departures, lambda departure: departure.step)]
        said = [f"First to leave its band of {window}: {group_words(groups[0], trigger_step)}."]
        said += [f"Next: {group_words(group, trigger_step)}." for group in groups[1:NUM_NEXT]]
        later = [departure.signal for group in groups[NUM_NEXT:] for departure in group]
        if of_net := [signal for signal in later if "/" not in signal]:
            said.append(f"Later: {enumeration(of_net)}.")
        departed = {departure.signal for departure in event.departures}
        if inside := [name for name in PANELS if name in event.bands and name not in departed]:
            said.append(f"Inside their bands up to step {event.record.steps[-1]:,}: {enumeration(inside)}.")
    said[0] += few
    for other in events:
        if first <= other.trigger.step < event.first_searched:
            said.append(
                f"Trigger {other.number}, step {other.trigger.step:,}, lies in that window and widens its bands."
            )
        elif event.first_searched <= other.trigger.step < trigger_step:
            said.append(f"Trigger {other.number} was {relation(other.trigger.step, trigger_step)}.")
    return " ".join(said)


def first_departure(explained: Explained, run: RunSummary) -> str:
    """'the recorder saw log_var_max leave its band first, at step 109', before the run left, or was seen far away.

    Of the last trigger before. Nothing where no signal left its band, or its window is so short that signals do by
    chance: that the recorder fired, as it does in runs that stay, tells of no cause.
    """
    left = run.nonfinite_step if run.course.departed is None else run.course.departed.step
    if run.course.far:
        left = run.course.first_step
    events = [event for event in explained.events if left is None or event.trigger.step <= left]
    if not events or not (found := events[-1]).departures or found.chance >= FEW:
        return ""
    first = [departure for departure in found.departures if departure.step == found.departures[0].step]
    names = [departure.signal for departure in first if "/" not in departure.signal] or [first[0].signal]
    bands = "its band" if len(names) == 1 else "their bands"
    return f"the recorder saw {enumeration(names[:2])} leave {bands} first, at step {first[0].step:,}"


def group_words(group: Sequence[Departure], trigger_step: int) -> str:
    """What left its band in one step: each signal of the whole net with value and band, those of layers counted."""
    of_net = [departure for departure in group if "/" not in departure.signal]
    named = [f"{departure.signal} {in_band(departure)}" for departure in of_net if math.isfinite(departure.value)]
    if lost := [departure.signal for departure in of_net if not math.isfinite(departure.value)]:
        named.append(f"{enumeration(lost)} not finite")
    layers: dict[str, list[str]] = {}
    for departure in group:
        signal, _, layer = departure.signal.partition("/")
        if layer:
            layers.setdefault(signal, []).append(layer)
    for signal, of_signal in layers.items():
        if len(of_signal) == 1:
            named.append(f"{signal} of layer {of_signal[0]}")
        else:
            named.append(f"{signal} of {counted(len(of_signal), 'layer')} (farthest out: {of_signal[0]})")
    return f"at step {group[0].step:,}, {relation(group[0].step, trigger_step)}, {enumeration(named)}"


def in_band(departure: Departure) -> str:
    """'31,000 (band 2.75 to 314)'."""
    return f"{rounded(departure.value)} (band {rounded(departure.band.low)} to {rounded(departure.band.high)})"


def relation(step: int, trigger_step: int) -> str:
    """'the step of the trigger', '3 steps before the trigger', '1 step after the trigger'."""
    if step == trigger_step:
        return "the step of the trigger"
    side = "before" if step < trigger_step else "after"
    return f"{counted(abs(step - trigger_step), 'step')} {side} the trigger"


def radius_words(trigger: TriggerRecord, probe: ProbeCurve, plan: RecorderPlan) -> str:
    """How far the probe's median R went from its last value before the trigger, and where it was in the end."""
    before = np.flatnonzero(probe.steps <= trigger.step)
    after = np.flatnonzero((probe.steps > trigger.step) & (probe.steps <= trigger.step + plan.ring_steps))
    radius = probe.radius_medians
    if not len(before):
        return "No probe was taken before the trigger."
    said = f"R, the probe's median, was {rounded(radius[before[-1]])} after {probe.steps[before[-1]]:,} steps"
    if not len(after):
        return f"{said}; no probe followed the trigger."
    farthest = after[np.argmax(np.abs(radius[after] - radius[before[-1]]))]
    return (
        f"{said}; of the {counted(len(after), 'probe')} in the {plan.ring_steps} steps after the trigger, the farthest"
        f" from it is {rounded(radius[farthest])} after {probe.steps[farthest]:,}; the run's last is"
        f" {rounded(radius[-1])} after {probe.steps[-1]:,}."
    )


def image_words(event: Event) -> str:
    """Which images of the step's batch stand out, by their positions in the training split; nothing where none does.

    A maximum that is NaN is nobody's, although records of 0.2.0 name an image with it.
    """
    trigger = event.trigger
    of_step = event.record.between(trigger.step, trigger.step).signals
    largest: dict[int, list[str]] = {}
    for what, image, signal in (
        ("loss", trigger.largest_loss_image, "image_loss_max"),
        ("log_var", trigger.largest_log_var_image, "log_var_max"),
    ):
        if image is not None and not np.isnan(of_step.get(signal, np.empty(0))).any():
            largest.setdefault(image, []).append(f"the largest {what}")
    if not largest:
        return ""
    (first, *more) = [(image, enumeration(found)) for image, found in largest.items()]
    said = enumeration([f"image {first[0]} had {first[1]}", *(f"image {image} {found}" for image, found in more)])
    batch = counted(len(trigger.images), "image")
    return f"Of the {batch} in that step's batch, {said} (numbers are positions in the training split)."


def noise_words(event: Event) -> str:
    """Whether max|epsilon| left its band before the trigger; nothing for an AE."""
    band = event.bands.get("epsilon_max")
    if band is None or event.trigger.step not in event.record.steps:
        return ""
    epsilon = event.record.between(event.first_searched, event.trigger.step).signals["epsilon_max"]
    said = (
        f"max|epsilon| was {rounded(epsilon[-1])} in the step of the trigger and at most {rounded(np.max(epsilon))} in"
        f" the {counted(len(epsilon), 'step')} up to it"
    )
    bounds = f"its band of {rounded(band.low)} to {rounded(band.high)}"
    for departure in event.departures:
        if departure.signal == "epsilon_max" and departure.step <= event.trigger.step:
            return (
                f"{said}; it left {bounds} at step {departure.step:,}, {relation(departure.step, event.trigger.step)}."
            )
    return f"{said}, inside {bounds}: no extreme of the noise warned."


def departures_table(event: Event) -> str:
    """Every departure in the order of the steps, layers included, as Markdown."""
    if not event.departures:
        return ""
    rows = [
        f"| {departure.step:,} | {departure.signal} | {rounded(departure.value)} | {rounded(departure.band.low)} to"
        f" {rounded(departure.band.high)} | {rounded(departure.widths)} |"
        for departure in event.departures
    ]
    return "\n".join(["| step | signal | value | band | widths outside |", "|---:|---|---:|---|---:|", *rows])


def method(run: RunConfig) -> str:
    """How a band is made, how often it is left by chance, and why two radii differ."""
    plan = run.plan
    num_searched, num_reference = searched_steps(plan), plan.recorder.ring_steps
    moments = (
        " A batch is encoded with its own BatchNorm moments, the probe with their running means: their R differ."
        if run.arm.model.batch_norm is True
        else ""
    )
    chance = chance_to_leave(num_reference, num_searched)
    return (
        f"A band is the range of the signal over the {num_reference} steps of the reference window, or those that there"
        " are, widened on both"
        " sides by its own width, in logarithms for positive signals; 'widths outside' counts how many such widths lie"
        " between the band and the value, and is infinite for a signal that was constant or a value that is not finite."
        " Signals that leave their bands in the same step are listed in the order in which a step computes them."
        f" The search begins {num_searched} steps before the trigger, or at half of the steps"
        " that there are. Even a stationary"
        " signal with the tail of a power law leaves its band in these steps by chance once in"
        f" {1 / chance:,.0f} times; but signals are many, and one that is first out by a small part of a width, long"
        " before the others, may be such a chance. Signals are named as in recorder/steps.arrow; NAME/LAYER is that of"
        f" one layer.{moments}"
    )


def rounded(value: float) -> str:
    """Three significant digits: '41,600', '2.75', '0.024', '1e-05'."""
    if not math.isfinite(value):
        return number(value)
    return f"{float(f'{value:.3g}'):,.0f}" if 1e3 <= abs(value) < 1e7 else f"{value:.3g}"
