"""Which signal of a training left its band first: the flight recorder's rows before and after a trigger.

The band of a signal is the range of its values over a reference window before the trigger, widened on both sides by its
own width: in logarithms for positive signals, so that neither units nor powers matter. No distribution is assumed. A
stationary positive series with the tail of any power law leaves its band within m steps after n with the chance
2 m / (n + 1)(n + 2): 0.25 % for the 50 steps after 200. One whose logarithm is normal practically never does.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from vaehpc.schema.plan import PlanConfig
from vaehpc.schema.results import TriggerRecord

Float64Array = npt.NDArray[np.float64]

NOT_SIGNALS = ("step", "log_var_image", "image_loss_image", "batch_hash")
"""Columns of steps.arrow that are names and not sizes."""

ORDER = (
    "epsilon_max",
    "radius_mean",
    "radius_max",
    "mu_square_sum",
    "log_var_max",
    "log_var_mean",
    "log_var_min",
    "log_var_sum",
    "noise_max",
    "variance_sum",
    "kl_loss",
    "image_loss_max",
    "reconstruction_loss",
    "total_loss",
    "loss_scale",
    "gradient_norm",
    "gradient_rms",
    "gradient_peak",
    "update_norm",
    "weight_norm",
)
"""Signals as a step computes them: of those that leave their bands together, none depends on one listed after it."""

STEPS_AFTER = 100
"""Steps after a trigger that are looked at: provoked jumps of R peaked 10 to 15 steps after their cause."""

MIN_SEARCHED_STEPS = 50
"""Steps up to the trigger that are searched at least: a natural divergence builds up over some twenty."""

MIN_REFERENCE_STEPS = 3
"""Fewer have no range to speak of. Of a few the band is left by chance often: `chance`."""


@dataclass(frozen=True)
class StepRecord:
    """Rows of steps.arrow."""

    steps: npt.NDArray[np.int64]
    """(num_rows,), ascending."""
    signals: Mapping[str, Float64Array]
    """(num_rows,) each; a signal of one layer is called `gradient_norm/mu`."""

    def between(self, first: int, last: int) -> StepRecord:
        """The rows with first <= step <= last."""
        rows = slice(*np.searchsorted(self.steps, [first, last + 1]))
        return StepRecord(self.steps[rows], {name: values[rows] for name, values in self.signals.items()})

    def joined(self, other: StepRecord) -> StepRecord:
        """These rows, and those of `other` for the steps that are not among them."""
        new = ~np.isin(other.steps, self.steps)
        if not new.any():
            return self
        steps = np.concatenate([self.steps, other.steps[new]])
        order = np.argsort(steps)
        nothing = np.full(len(self.steps), np.nan)
        signals = {
            name: np.concatenate([self.signals.get(name, nothing), values[new]])[order]
            for name, values in other.signals.items()
        }
        return StepRecord(steps[order], signals)


@dataclass(frozen=True)
class Band:
    """Where a signal stays while nothing happens."""

    low: float
    high: float
    width: float
    """Of the range over the reference window; in natural logarithms if `logarithmic`."""
    logarithmic: bool

    def widths_beyond(self, value: float) -> float:
        """How far outside of the band a value lies, in widths of the range; infinity where it is not finite."""
        if self.low <= value <= self.high:
            return 0.0
        if not math.isfinite(value) or self.width == 0 or (self.logarithmic and value <= 0):
            return math.inf
        edge = self.low if value < self.low else self.high
        distance = math.log(value / edge) if self.logarithmic else value - edge
        return abs(distance) / self.width


@dataclass(frozen=True)
class Departure:
    """The first step at which a signal lay outside of its band."""

    signal: str
    step: int
    value: float
    band: Band
    widths: float
    """How far outside, in widths of the range over the reference window."""


@dataclass(frozen=True)
class Event:
    """What the recorder holds around one trigger."""

    number: int
    """From 1, in the order of the steps."""
    trigger: TriggerRecord
    record: StepRecord
    """The reference window and the rows after it."""
    first_searched: int
    """The reference window lies before this step."""
    bands: Mapping[str, Band]
    """Empty if the reference window is too short."""
    departures: tuple[Departure, ...]
    """In the order of the steps, within a step in that of its computation."""

    @property
    def num_reference_steps(self) -> int:
        """Rows of the reference window."""
        return int(np.searchsorted(self.record.steps, self.first_searched))

    @property
    def chance(self) -> float:
        """Chance that a stationary signal with the tail of any power law leaves its band up to the trigger."""
        num_searched = self.trigger.step + 1 - self.first_searched
        return chance_to_leave(self.num_reference_steps, num_searched)


def searched_steps(plan: PlanConfig) -> int:
    """Steps up to the trigger that are searched: an interval of the probe, or MIN_SEARCHED_STEPS if that is more."""
    return max(plan.probe.every_steps, MIN_SEARCHED_STEPS)


def chance_to_leave(num_reference: int, num_searched: int) -> float:
    """2 m / (n + 1)(n + 2), the chance to leave the band of n steps within the m steps after, or 1 if it is less."""
    return min(1.0, 2 * num_searched / ((num_reference + 1) * (num_reference + 2)))


def event(number: int, trigger: TriggerRecord, record: StepRecord, plan: PlanConfig) -> Event:
    """What happened around a trigger.

    The search begins one interval of the probe before the trigger, because a jump that only the probe saw may be that
    old, and MIN_SEARCHED_STEPS before it at the latest; where fewer steps lie before that than in it, at half of those
    that there are. The reference window is at most as long as the recorder's ring.
    """
    first_searched = trigger.step + 1 - searched_steps(plan)
    before = record.between(first_searched - plan.recorder.ring_steps, trigger.step).steps
    if len(before):
        first_searched = max(first_searched, (int(before[0]) + trigger.step + 1) // 2)
    around = record.between(first_searched - plan.recorder.ring_steps, trigger.step + STEPS_AFTER)
    bands = signal_bands(around.between(0, first_searched - 1))
    return Event(
        number=number,
        trigger=trigger,
        record=around,
        first_searched=first_searched,
        bands=bands,
        departures=departures(around.between(first_searched, trigger.step + STEPS_AFTER), bands),
    )


def signal_bands(reference: StepRecord) -> dict[str, Band]:
    """The band of every signal; none if there are too few rows."""
    if len(reference.steps) < MIN_REFERENCE_STEPS:
        return {}
    bands = {name: band(name, values) for name, values in reference.signals.items()}
    return {name: found for name, found in bands.items() if found is not None}


def band(name: str, reference: npt.NDArray[np.floating[Any]]) -> Band | None:
    """The range of the finite values, widened by its width on both sides; None if there is none.

    Args:
        name: of the signal. A log_var is a logarithm already, and a loss scale grows by itself: only its fall counts.
        reference: (num_steps,) values while nothing happened.
    """
    finite = reference[np.isfinite(reference)].astype(np.float64)
    if not len(finite):
        return None
    low, high = float(finite.min()), float(finite.max())
    logarithmic = low > 0 and not name.startswith("log_var")
    width = math.log(high / low) if logarithmic else high - low
    if name == "loss_scale":
        return Band(low, math.inf, width, logarithmic)
    if logarithmic:
        return Band(low * (low / high), high * (high / low), width, logarithmic)
    return Band(low - width, high + width, width, logarithmic)


def departures(record: StepRecord, bands: Mapping[str, Band]) -> tuple[Departure, ...]:
    """The first departure of every signal that leaves its band, by step, then as in ORDER, the whole net before layers.

    Layers, and signals that ORDER does not know, are sorted by how far outside of their bands they were.
    """
    found = []
    for name, of_signal in bands.items():
        values = record.signals[name]
        outside = np.flatnonzero(~((of_signal.low <= values) & (values <= of_signal.high)))  # NaN is outside, too
        if len(outside):
            step, value = int(record.steps[outside[0]]), float(values[outside[0]])
            found.append(Departure(name, step, value, of_signal, of_signal.widths_beyond(value)))
    return tuple(sorted(found, key=_time_of))


def _time_of(departure: Departure) -> tuple[int, int, bool, float]:
    signal, _, layer = departure.signal.partition("/")
    within_step = ORDER.index(signal) if signal in ORDER else len(ORDER)
    return departure.step, within_step, bool(layer), -departure.widths
