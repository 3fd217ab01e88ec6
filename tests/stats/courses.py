"""Courses of runs, and what the rules say of each: plain data, written from the rules alone.

d_t = ln R_t - m_t, with m_t the median of ln R over a sound control's runs at step t, and 0 without one. b_t is the
second largest d of the last five probes before t: of at least three, none older than ten intervals. After the burn-in
a run *jumps* at t if d_t > b_t + ln 1.5 and the median of the five d from t on (of all that are left) is, too. At the
last probe that is 'unconfirmed'; what does not last is an *excursion*. Consecutive marks are one: a jump that lasts
also lies above b at its second probe. *Growth* begins at the first of three probes running (of all that are left)
with R > 2 max(exp(m), exp(m_t)), in a run that is neither far nor has jumped. *Far*: at the first probe after the
burn-in d > ln 2, or d > ln 1.5 within a factor 1.5 of the arm's median there.
"""

from collections.abc import Sequence
from dataclasses import dataclass

EVERY = 50
STEADY = (16.0,) * 12


@dataclass(frozen=True)
class Told:
    """A course and its marks. Steps are those of the probes: 50, 100, ..."""

    name: str
    radii: Sequence[float | None]
    """R of each probe; None: lost."""
    control: Sequence[float] | None = STEADY
    """exp(m_t) of each probe; exp(m) is the last. None: there is no sound control, and no m."""
    arm: float | None = 16.0
    """Median R of the arm's runs at the first probe after the burn-in."""
    burn_in: int = 300
    nonfinite_step: int | None = None
    """At which the training ended; else it ended with the last of the probes, lost ones too."""

    far: bool = False
    jump: int | None = None
    """The first."""
    excursions: tuple[int, ...] = ()
    """The first step of each."""
    growth: int | None = None
    unconfirmed: int | None = None
    unknown_after: int | None = None
    """The last step of a probe that was cut."""
    left_between: tuple[int, int] | None = None
    """The probes beside the gap in which a jump or growth began."""


def levels(first: float | None, *changes: tuple[int, float | None], end: int = 600) -> tuple[float | None, ...]:
    """R that is `first`, and from each of these steps on another."""
    then, radii, radius = dict(changes), [], first
    for step in range(EVERY, end + 1, EVERY):
        radius = then.get(step, radius)
        radii.append(radius)
    return tuple(radii)


def grown(start: float, factor: float, after: int = 300, end: int = 600) -> tuple[float, ...]:
    """R that is `start` up to this step and from there on `factor` times its value one probe earlier."""
    return tuple(start * factor ** max(0, (step - after) // EVERY) for step in range(EVERY, end + 1, EVERY))


SHARED = grown(16, 1.25)
"""A control that grows faster than a jump needs: 1.5625 in two probes."""

COURSES: tuple[Told, ...] = (
    # Nothing
    Told("steady", STEADY),
    Told("rising to its place before the burn-in", (4, 8, 12, 14, 15, *STEADY[5:])),
    Told("the same without a control", (4, 8, 12, 14, 15, *STEADY[5:]), control=None),
    Told("falling to its place before the burn-in", (80, 60, 40, 24, 18, *STEADY[5:])),
    Told("a step of 1.45", levels(16, (450, 16 * 1.45))),
    Told("fallen for good", levels(16, (450, 5))),
    # A dip: b is the second largest of five, so that recovery is no jump while two of them are from before
    Told("a dip of one probe", levels(16, (400, 8), (450, 16))),
    Told("a dip of two probes", levels(16, (400, 8), (500, 16))),
    Told("a dip of three probes", levels(16, (400, 8), (550, 16), end=700), control=(16,) * 14),
    Told("a dip of four probes is a level", levels(16, (400, 8), (600, 16), end=800), control=(16,) * 16, jump=600),
    # Jumps: the step of the first probe above
    Told("a step of 1.55", levels(16, (450, 16 * 1.55)), jump=450),
    Told("a jump", levels(16, (450, 66)), jump=450),
    Told("a jump without a control", levels(16, (450, 66)), control=None, jump=450),
    Told("a jump at the first probe that is judged is far, too", levels(16, (350, 66)), far=True, jump=350),
    Told("a jump at the last probe but one", levels(16, (550, 66)), jump=550),
    Told("a jump that comes back after three probes of five", levels(16, (400, 66), (550, 16)), jump=400),
    Told("two jumps: the first", levels(16, (400, 40), (550, 160)), jump=400),
    Told("a jump from far", levels(40, (450, 200)), arm=40, far=True, jump=450),
    Told("a jump after 'grown' is a jump alone", levels(16, (400, 30), (450, 66)), jump=400),
    Told("a jump to a moderate radius: not beyond twice the control", levels(16, (450, 26)), jump=450),
    Told("a jump, then NaN", levels(16, (350, 66), end=450), jump=350, far=True, nonfinite_step=480),
    Told("calm, then NaN: what is not there is no cut", levels(16, end=450), nonfinite_step=480),
    # What does not last
    Told("an excursion of one probe", levels(16, (400, 66), (450, 16)), excursions=(400,)),
    Told("an excursion of two probes is one", levels(16, (400, 66), (500, 16)), excursions=(400,)),
    Told("two excursions", levels(16, (400, 66), (450, 16), (500, 66), (550, 16)), excursions=(400, 500)),
    Told("an excursion, then a jump", levels(16, (350, 26), (400, 16), (550, 66)), excursions=(350,), jump=550),
    Told("a jump at the last probe", levels(16, (600, 26)), unconfirmed=600),
    # Growth
    Told("growth of 1.2 a probe", grown(16, 1.2), growth=500),
    Told("growth beyond at the last two probes: all that are left", grown(16, 1.18), growth=550),
    Told("growth beyond at two probes only", (*grown(16, 1.2)[:10], 34, 25)),
    Told("growth beyond at three, then back", (*STEADY[:4], 18, 21, 25, 29, 33, 34, 33, 27), growth=450),
    Told("growth without a control is not seen", grown(16, 1.2), control=None),
    Told("growth that began before the burn-in", grown(16, 1.1, after=50), growth=450),
    Told("far runs do not grow", grown(40, 1.1), arm=40, far=True),
    # What the control does, too
    Told("growth that the control shares", SHARED, control=SHARED),
    Told("a step that the control shares", levels(16, (450, 40)), control=levels(16, (450, 40))),
    Told(
        "a jump out of growth that the control shares",
        tuple(radius * (3 if step >= 9 else 1) for step, radius in enumerate(SHARED, start=1)),
        control=SHARED,
        jump=450,
    ),
    Told("an overshoot that the control has later", levels(16, (350, 20), (400, 25), (450, 31)), control=SHARED),
    # Far from the start
    Told("far", levels(40), far=True),
    Told("far by 1.6 as all of its arm", levels(25.6), arm=26, far=True),
    Told("1.6 alone in its arm is not far", levels(25.6), arm=16),
    Told("far, and back at last", levels(40, (500, 16)), far=True),
    Told("no control: far from what?", levels(40), control=None, arm=40),
    # Burn-in
    Told("a jump within the burn-in", levels(16, (200, 66)), far=True),
    Told("within a burn-in of 500, and far after it", levels(16, (400, 66)), burn_in=500, far=True),
    Told("short burn-in: three probes make a b", levels(16, (200, 66)), burn_in=100, jump=200),
    Told("short burn-in: an excursion at 150 has no b", levels(16, (150, 26), (200, 16)), burn_in=100),
    # Probes that are lost
    Told("cut in calm", levels(16, (450, None)), unknown_after=400),
    Told("cut after a jump", levels(16, (350, 66), (550, None)), far=True, jump=350, unknown_after=500),
    Told("cut before the end of the burn-in", levels(16, (250, None)), arm=None, unknown_after=200),
    Told("a gap in calm", levels(16, (400, None), (500, 16))),
    Told("a jump in a gap", levels(16, (400, None), (550, 66)), jump=550, left_between=(350, 550)),
    Told(
        "a gap of ten probes leaves no b",
        levels(16, (450, None), (950, 66), end=1200),
        control=(16,) * 24,
        growth=950,
        left_between=(400, 950),
    ),
    Told(
        "a gap of six probes leaves three for b",
        levels(16, (450, None), (750, 66), end=1000),
        control=(16,) * 20,
        jump=750,
        left_between=(400, 750),
    ),
)
