"""When a training step is out of the ordinary: the flight recorder's triggers."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from vaehpc.schema.plan import RecorderPlan
from vaehpc.schema.results import TriggerSignal

FloatArray = npt.NDArray[np.floating[Any]]

MIN_STEPS_OF_MEDIAN = 50
"""Steps before a gradient norm is called large: a median of fewer says little."""


@dataclass(frozen=True)
class Trigger:
    """A signal that crossed its limit."""

    step: int
    signal: TriggerSignal
    value: float
    limit: float


def first_trigger(ring: Mapping[str, FloatArray], num_new: int, plan: RecorderPlan) -> Trigger | None:
    """The first of the newest steps at which a signal crosses its limit: it is beyond, and was not one step before.

    Args:
        ring: columns `step`, `gradient_norm`, `gradient_rms` and, of a VAE, `log_var_max`, each (num_steps,), in the
            order of the steps.
        num_new: how many of the last rows are new.
        plan: the limits.
    """
    num_steps = len(ring["step"])
    found = []
    for signal, limits in _limits(ring, num_new, plan).items():
        values = ring[signal]
        # A comparison with NaN is false: a step that is not finite is another trigger.
        beyond = values > limits
        crossed = beyond & ~np.concatenate([[False], beyond[:-1]])
        crossed[: num_steps - num_new] = False
        if crossed.any():
            at = int(np.argmax(crossed))
            found.append(Trigger(int(ring["step"][at]), signal, float(values[at]), float(limits[at])))
    return min(found, key=lambda trigger: trigger.step, default=None)


def nonfinite_trigger(ring: Mapping[str, FloatArray], num_new: int) -> Trigger | None:
    """The first of the newest steps whose loss or gradient is not finite, as the one before it was.

    Args:
        ring: columns `step`, `total_loss` and `gradient_norm`, each (num_steps,), in the order of the steps.
        num_new: how many of the last rows are new.
    """
    values = np.stack([ring["total_loss"], ring["gradient_norm"]])
    lost = ~np.isfinite(values).all(axis=0)
    crossed = lost & ~np.concatenate([[False], lost[:-1]])
    crossed[: len(lost) - num_new] = False
    if not crossed.any():
        return None
    at = int(np.argmax(crossed))
    return Trigger(int(ring["step"][at]), "nonfinite", float(values[~np.isfinite(values[:, at]), at][0]), math.inf)


def without_overflows(ring: Mapping[str, FloatArray]) -> dict[str, FloatArray]:
    """The ring of a training in float16, whose optimizer leaves out a step with a gradient that is not finite.

    It halves the loss scale then, and nothing has happened: the gradient's signals of such a step are those of the one
    before, so that it triggers nothing.
    """
    changed = dict(ring)
    overflowed = ~np.isfinite(ring["gradient_norm"])
    kept = np.maximum.accumulate(np.where(overflowed, -1, np.arange(len(overflowed))))
    for signal in {"gradient_norm", "gradient_rms"} & ring.keys():
        changed[signal] = np.where(kept < 0, 0.0, ring[signal][np.maximum(kept, 0)])
    return changed


def _limits(ring: Mapping[str, FloatArray], num_new: int, plan: RecorderPlan) -> dict[TriggerSignal, FloatArray]:
    """Limit of each signal at each step of the ring (num_steps,); infinite where there is none."""
    num_steps = len(ring["step"])
    of_gradient = np.full(num_steps, math.inf)
    # One step more than the new ones, because a crossing looks one step back.
    for at in range(max(num_steps - num_new - 1, MIN_STEPS_OF_MEDIAN), num_steps):
        before = ring["gradient_norm"][max(at - plan.ring_steps, 0) : at]
        of_gradient[at] = plan.gradient_factor * np.median(before)
    limits: dict[TriggerSignal, FloatArray] = {
        "gradient_norm": of_gradient,
        "gradient_rms": np.full(num_steps, plan.rms_limit),
    }
    if "log_var_max" in ring:
        limits["log_var_max"] = np.full(num_steps, plan.log_var_limit)
    return limits


def probe_trigger(radius_before: float, radius: float, step: int, plan: RecorderPlan) -> Trigger | None:
    """Whether the probe's median radius grew too much from one probe to the next; `step` is the last one between."""
    limit = plan.probe_factor * radius_before
    return Trigger(step, "probe_radius", radius, limit) if radius > limit else None
