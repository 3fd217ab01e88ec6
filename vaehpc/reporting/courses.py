"""The radius of many runs over training steps as one SVG, whose lines lead to the pages of their runs.

It needs no matplotlib: a page that is renewed while a study runs is drawn by the launcher.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from markupsafe import escape

from vaehpc.reporting.palette import CLASS_COLOURS, CLASS_LINES, INK, QUIET, RULE
from vaehpc.reporting.words import NBSP, class_name, counted, number
from vaehpc.schema.results import RUN_CLASSES, RunClass

WIDTH, HEIGHT = 640, 400
LEFT, RIGHT, TOP, BOTTOM = 80, 30, 34, 48
"""Margins, in the SVG's units: wide enough for the larger words of narrow screens, and above them the limits."""
NUM_OTHERS = 50
"""Runs that did not leave and have a line of their own; the rest are a band."""
MOST_POINTS, FEWEST_POINTS, ALL_POINTS = 240, 40, 20_000
"""Of a line, and of all lines together."""
BAND_POINTS = 160
DASHES = {"solid": "", "dashed": "6 3", "dashdot": "6 3 1.5 3", "dotted": "1.5 2.5"}
LOG_TICKS: tuple[tuple[float, ...], ...] = (
    (1,),
    (1, 3),
    (1, 2, 5),
    (1, 1.5, 2, 3, 5, 7),
    tuple(tenths / 10 for tenths in range(10, 100, 2)),
    tuple(hundredths / 100 for hundredths in range(100, 1000, 5)),
)
"""Multiples of powers of ten, ever denser; the densest that makes no more than MOST_TICKS is taken."""
MOST_TICKS = 7

SPARK_SIZE = (64, 16)
"""Width and height of a course in small, px."""
SPARK_POINTS = 40
MOST_SPARKS = 200

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Course:
    """The radius of a run over its steps."""

    name: str
    run_class: RunClass | None
    """None: it has no result."""
    steps: npt.NDArray[np.int64]
    """(num_probes,), ascending."""
    radii: FloatArray
    """(num_probes,)."""
    said: str
    """What became of it, in words."""
    has_left: bool
    onset_step: int | None = None
    """Of its first jump or growth."""
    has_page: bool = True

    @property
    def kind(self) -> str:
        """Its class, or that it has none yet."""
        return self.run_class or "no result"

    @property
    def colour(self) -> str:
        """Of its class."""
        return CLASS_COLOURS[self.run_class] if self.run_class else QUIET

    def finite(self) -> Course:
        """Without what has no logarithm."""
        known = np.isfinite(self.radii) & (self.radii > 0)
        return Course(
            self.name,
            self.run_class,
            self.steps[known],
            self.radii[known],
            self.said,
            self.has_left,
            self.onset_step,
            self.has_page,
        )


@dataclass(frozen=True)
class Scale:
    """Where steps and radii lie on the drawing; radii on a logarithmic axis."""

    last_step: int
    low: float
    high: float
    first_step: int = 0

    def x(self, steps: npt.ArrayLike) -> FloatArray:
        """Of training steps."""
        share = (np.asarray(steps, np.float64) - self.first_step) / (self.last_step - self.first_step)
        found: FloatArray = LEFT + (WIDTH - LEFT - RIGHT) * share
        return found

    def y(self, radii: npt.ArrayLike) -> FloatArray:
        """Of radii, which are positive."""
        share = np.log(np.asarray(radii, np.float64) / self.low) / math.log(self.high / self.low)
        found: FloatArray = HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * share
        return found


def chosen(courses: Sequence[Course]) -> tuple[list[Course], list[Course]]:
    """Runs that are drawn as lines, those that left last and so on top; and the rest."""
    left = [course for course in courses if course.has_left]
    others = [course for course in courses if not course.has_left]
    every = max(1, math.ceil(len(others) / NUM_OTHERS))
    lines = others[::every]
    rest = [course for position, course in enumerate(others) if position % every]
    return [*lines, *left], rest


def figure(
    courses: Sequence[Course],
    limits: Mapping[str, float],
    pages: str,
    extent: Scale | None = None,
    legend: bool = False,
    key: str = "course",
) -> str:
    """The drawing as an SVG element.

    Args:
        courses: of the study's runs, in its order.
        limits: radius beyond which a run has diverged, by the control that it comes from.
        pages: folder of the runs' pages, seen from where the drawing lies.
        extent: of the axes, where several drawings share them; None: of these courses.
        legend: with the classes below, where no page around it says them.
        key: what the ids of its elements begin with.
    """
    courses = [found for course in courses if len((found := course.finite()).steps)]
    scale = extent or extent_of(courses, limits)
    lines, rest = chosen(courses)
    most = min(MOST_POINTS, max(FEWEST_POINTS, ALL_POINTS // max(len(lines), 1)))
    height = HEIGHT + (18 * math.ceil(len(kinds(courses)) / 4) if legend else 0)
    said = escape(alt(courses, lines, rest, limits))
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" class="courses" viewBox="0 0 {WIDTH} {height}" role="group"'
        f' font-family="sans-serif" font-size="12" aria-label="{said}">',
        *axes(scale),
        *band(rest, scale),
        *(line(course, scale, most, pages, f"{key}-{at}") for at, course in enumerate(lines)),
        *(limit_line(radius, scale) for radius in limits.values()),
        limits_said(limits),
        *(legend_items(courses) if legend else []),
        "</svg>",
    ]
    return "\n".join(parts)


def alt(courses: Sequence[Course], lines: Sequence[Course], rest: Sequence[Course], limits: Mapping[str, float]) -> str:
    """The drawing in words."""
    said = f"Median radius R over training steps, on a logarithmic axis: {counted(len(lines), 'run')} as lines"
    said += f", {counted(len(rest), 'other run')} as a band" if rest else ""
    ends = [float(course.radii[-1]) for course in courses]
    said += f". Last radii: {number(min(ends))} to {number(max(ends))}" if ends else ""
    left = sum(course.has_left for course in courses)
    of_limits = ", ".join(f"{number(radius)} by {name}" for name, radius in limits.items())
    return f"{said}. {left or 'None'} left.{f' Limit: {of_limits}.' if limits else ''}"


def kinds(courses: Sequence[Course]) -> dict[str, tuple[str, int]]:
    """Colour and number of the runs of each class that occurs."""
    counts = Counter(course.kind for course in courses)
    colours = {course.kind: course.colour for course in courses}
    order = [*RUN_CLASSES, "no result"]
    return {kind: (colours[kind], counts[kind]) for kind in order if counts[kind]}


# Axes


def extent_of(courses: Sequence[Course], limits: Mapping[str, float]) -> Scale:
    """Axes that hold all courses and limits."""
    radii = [float(end) for course in courses for end in (course.radii.min(), course.radii.max())]
    radii += [radius for radius in limits.values() if radius > 0]
    low, high = (min(radii), max(radii)) if radii else (1.0, 10.0)
    margin = max((high / low) ** 0.04, 1.05)
    return Scale(max((int(course.steps[-1]) for course in courses), default=1) or 1, low / margin, high * margin)


def axes(scale: Scale) -> list[str]:
    """Grid, ticks and what stands on the axes."""
    left, right, bottom = LEFT, WIDTH - RIGHT, HEIGHT - BOTTOM
    parts = [f'<g stroke="{RULE}" stroke-width="1">']
    radii = log_ticks(scale.low, scale.high)
    parts += [f'<path d="M{left} {y:.1f}H{right}"/>' for y in scale.y(radii)]
    parts.append(f'</g><g fill="{QUIET}" text-anchor="end">')
    parts += [
        f'<text x="{left - 7}" y="{y + 4:.1f}">{number_of_tick(radius)}</text>'
        for radius, y in zip(radii, scale.y(radii), strict=True)
    ]
    parts.append(f'</g><g fill="{QUIET}" text-anchor="middle">')
    steps = step_ticks(scale.first_step, scale.last_step)
    parts += [
        f'<text x="{x:.1f}" y="{bottom + 17}">{step:,}</text>' for step, x in zip(steps, scale.x(steps), strict=True)
    ]
    parts.append(
        f'</g><g fill="{INK}"><text x="{(left + right) / 2:.0f}" y="{bottom + 37}" text-anchor="middle">training step'
        f'</text><text x="4" y="{TOP - 14}">median radius R</text></g><path d="M{left} {bottom}H{right}"'
        f' stroke="{QUIET}"/>'
    )
    return parts


def number_of_tick(radius: float) -> str:
    """'0.5', '20', '1,000', '1e+07'."""
    return f"{radius:,.0f}" if 10 <= radius < 1e6 else f"{radius:.3g}"


def log_ticks(low: float, high: float) -> list[float]:
    """Round radii between these."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    found: list[float] = []
    for subs in LOG_TICKS:
        ticks = [sub * 10.0**power for power in powers for sub in subs if low <= sub * 10.0**power <= high]
        if not found or len(ticks) <= MOST_TICKS:
            found = ticks
    return found[:: math.ceil(len(found) / MOST_TICKS)] if found else []


def step_ticks(first: int, last: int) -> list[int]:
    """Round steps between these, about five."""
    rough = (last - first) / 5
    power = 10 ** math.floor(math.log10(rough)) if rough >= 1 else 1
    every = next(int(factor * power) for factor in (1, 2, 2.5, 5, 10) if int(factor * power) >= rough)
    return list(range(-(-first // every) * every, last + 1, every))


def limits_said(limits: Mapping[str, float]) -> str:
    """What the dashed lines are, above the plot, where no line of a run passes: each limit, or of many their range."""
    if not limits:
        return ""
    each = [f"{f'of {name} ' if len(limits) > 1 else ''}{number(radius)}" for name, radius in limits.items()]
    said = f"limit {', '.join(each)}"
    if len(limits) > 2:
        said = f"limits of {len(limits)} controls, {number(min(limits.values()))} to {number(max(limits.values()))}"
    return f'<text x="{WIDTH - 4}" y="{TOP - 14}" fill="{INK}" text-anchor="end">dashed: {escape(said)}</text>'


def limit_line(radius: float, scale: Scale) -> str:
    """Dashed."""
    y = float(scale.y(radius))
    return f'<path d="M{LEFT} {y:.1f}H{WIDTH - RIGHT}" stroke="{INK}" stroke-dasharray="5 4" pointer-events="none"/>'


# Runs


def line(course: Course, scale: Scale, most: int, pages: str, key: str) -> str:
    """A run's course, which leads to its page: a mark where it left, a dot where it was seen last, a cross for NaN."""
    at = reduced(np.log(course.radii), most)
    x, y = scale.x(course.steps[at]), scale.y(course.radii[at])
    is_bold = course.has_left
    dash = DASHES[CLASS_LINES[course.run_class]] if course.run_class else "2 2"
    style = f'stroke="{course.colour}" stroke-width="{1.8 if is_bold else 0.9}"'
    style += f' stroke-dasharray="{dash}"' if dash else ""
    style += "" if is_bold else ' stroke-opacity="0.75"'
    end_x, end_y = float(x[-1]), float(y[-1])
    marks = f'<circle cx="{end_x:.1f}" cy="{end_y:.1f}" r="{2.2 if is_bold else 1.4}" fill="{course.colour}"/>'
    if course.run_class == "nonfinite":
        marks = f'<path d="M{end_x - 4:.1f} {end_y - 4:.1f}l8 8m-8 0l8 -8" stroke-dasharray="none"/>'
    if course.onset_step is not None:
        radius = np.exp(np.interp(course.onset_step, course.steps, np.log(course.radii)))
        mark_x, mark_y = float(scale.x(course.onset_step)), float(scale.y(radius))
        marks += f'<path d="M{mark_x:.1f} {mark_y:.1f}l-4.5 -8h9z" fill="{course.colour}" stroke="none"/>'
    said = escape(f"{course.name}: {course.said}")
    page = f"{pages}/{escape(course.name)}.html"
    drawn = (
        f'<title>{said}</title><path id="{key}" d="{path(x, y)}"/>{marks}'
        f'<use href="#{key}" stroke-width="9" stroke-opacity="0"/>'
    )
    if not course.has_page:
        return f'<g fill="none" {style}>{drawn}</g>'
    # The table of runs has the same links: nobody needs to step through fifty lines with the keyboard.
    return f'<a href="{page}" tabindex="-1" aria-label="{said}" fill="none" {style}>{drawn}</a>'


def reduced(values: FloatArray, most: int) -> npt.NDArray[np.int64]:
    """Places of at most so many values that keep every peak: of each group the least and the largest, and the last."""
    if len(values) <= most:
        return np.arange(len(values))
    places = {0, len(values) - 1}
    for group in np.array_split(np.arange(len(values)), most // 2):
        places |= {int(group[np.argmin(values[group])]), int(group[np.argmax(values[group])])}
    return np.array(sorted(places))


def path(x: FloatArray, y: FloatArray) -> str:
    """A path through these points; a single one is a dot."""
    points = [f"{a:.1f} {b:.1f}" for a, b in zip(x, y, strict=True)]
    return f"M{'L'.join(points if len(points) > 1 else points * 2)}"


def band(rest: Sequence[Course], scale: Scale) -> list[str]:
    """From the smallest to the largest radius of the runs without lines, and their median."""
    if not rest:
        return []
    grid = np.linspace(0, scale.last_step, BAND_POINTS)
    radii = np.array(
        [np.interp(grid, course.steps, np.log(course.radii), left=np.nan, right=np.nan) for course in rest]
    )
    known = np.isfinite(radii).any(axis=0)
    if not known.any():
        return []
    low, high = np.exp(np.fmin.reduce(radii[:, known])), np.exp(np.fmax.reduce(radii[:, known]))
    middle = np.exp(np.nanmedian(radii[:, known], axis=0))
    x = scale.x(grid[known])
    outline = path(np.r_[x, x[::-1]], np.r_[scale.y(low), scale.y(high)[::-1]])
    (colour, _), *_ = sorted(kinds(rest).values(), key=lambda kind: -kind[1])
    title = f"<title>{counted(len(rest), 'run')} without a line of their own: from the smallest to the largest</title>"
    return [
        f'<g fill="{colour}" fill-opacity="0.18">{title}<path d="{outline}Z"/></g>',
        f'<path d="{path(x, scale.y(middle))}" fill="none" stroke="{colour}" stroke-width="2" stroke-opacity="0.5"/>',
    ]


def legend_items(courses: Sequence[Course]) -> list[str]:
    """Four to a row, below."""
    parts = []
    for at, (kind, (colour, count)) in enumerate(kinds(courses).items()):
        x, y = LEFT + 140 * (at % 4), HEIGHT + 8 + 18 * (at // 4)
        parts.append(
            f'<circle cx="{x}" cy="{y - 4}" r="4" fill="{colour}"/>'
            f'<text x="{x + 9}" y="{y}" fill="{INK}">{class_name(kind)} ({count}){NBSP}</text>'
        )
    return parts


# In small


def sparklines(courses: Sequence[Course]) -> dict[str, str]:
    """The courses of at most MOST_SPARKS runs, those that left first, as SVG paths in SPARK_SIZE; on one scale."""
    known = [found for course in courses if len((found := course.finite()).steps)]
    if not known:
        return {}
    scale = extent_of(known, {})
    width, height = SPARK_SIZE
    drawn = {}
    for course in sorted(known, key=lambda course: not course.has_left)[:MOST_SPARKS]:
        at = reduced(np.log(course.radii), SPARK_POINTS)
        x = width * course.steps[at] / scale.last_step
        y = height - 1 - (height - 2) * np.log(course.radii[at] / scale.low) / math.log(scale.high / scale.low)
        drawn[course.name] = path(x, y)
    return drawn
