"""What the measured states of a run say of its events: how near to the edge of stability it stood, and what moved."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from vaehpc.schema.results import EdgeSummary, EventKind, MeasuredEvent, RunCourse, Stability, StateChange


def edge_summary(course: RunCourse, nonfinite_step: int | None, states: Sequence[Stability]) -> EdgeSummary:
    """Each event beside the state before it and the changes across it; and the states that no event is near.

    Args:
        course: its marks are events, each between the probe before and the one that saw it.
        nonfinite_step: of the first loss or gradient that was not finite, an event, too; None: there was none.
        states: in the order of their steps.
    """
    spans: list[tuple[EventKind, int, int]] = [(mark.kind, mark.after, mark.step) for mark in course.marks]
    if nonfinite_step is not None:
        spans.append(("nonfinite", nonfinite_step, nonfinite_step + 1))
    events = [_measured(kind, after, step, states) for kind, after, step in spans]
    steps: list[float] = [0, *(state.step for state in states), float("inf")]
    calm = [
        state
        for state, start, end in zip(states, steps, steps[2:], strict=False)
        if not any(after < end and step > start for _, after, step in spans)
    ]
    ratios = tuple(state.sharpness_ratio for state in calm if state.sharpness_ratio is not None)
    return EdgeSummary(events=tuple(events), calm_ratios=ratios, num_states=len(states))


def _measured(kind: EventKind, after: int, step: int, states: Sequence[Stability]) -> MeasuredEvent:
    before = next((state for state in reversed(states) if state.step <= after), None)
    return MeasuredEvent(
        kind=kind,
        step=after if kind == "nonfinite" else step,
        state_step=before.step if before else None,
        sharpness_ratio=before.sharpness_ratio if before else None,
        changes=tuple(_change(one, other) for one, other in pairwise(states) if one.step < step and other.step > after),
    )


def _change(one: Stability, other: Stability) -> StateChange:
    decoder_radii = None
    if one.decoder_radius is not None and other.decoder_radius is not None:
        decoder_radii = (one.decoder_radius, other.decoder_radius)
    return StateChange(
        steps=(one.step, other.step),
        radii=(one.radius_median, other.radius_median),
        decoder_radii=decoder_radii,
        scale=other.scale,
        scale_share=other.scale_share,
        loss_paid=other.loss_paid,
    )
