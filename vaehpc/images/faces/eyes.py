"""Eyes and brows. Both sides are drawn at once, in coordinates that mirror at the midline."""

from dataclasses import dataclass

import numpy as np

from vaehpc.images.faces.canvas import EYE_X, Canvas, Field, bump, channels, edge, ellipse, ridge, stroke
from vaehpc.images.faces.skin import CREASE, darker
from vaehpc.images.faces.traits import Face


@dataclass(frozen=True)
class _Lids:
    """Where the lids are.

    side: -1 left, 1 right. x: pixels from the middle of the eye towards the temple. y: pixels down, along the slant.
    upper, lower: distance to the edge of each lid, positive inside the eye.
    """

    side: Field
    x: Field
    y: Field
    upper: Field
    lower: Field


def draw_eyes(canvas: Canvas, face: Face) -> None:
    """Both eyes with lids, lashes and shadow."""
    eyes = face.eyes
    window = canvas.near(0.0, -2.0, EYE_X + eyes.half_width + 6.0, 12.0)
    lids = _lids(window, face)
    _draw_lids(window, face, lids)
    opening = edge(np.minimum(lids.upper, lids.lower), 1.1)
    below_lid = ridge(np.maximum(lids.upper, 0.0) / 1.6)
    _draw_white(window, face, lids, opening, below_lid)
    _draw_iris(window, face, lids, opening, below_lid)
    _draw_lashes(window, face, lids)


def _lids(window: Canvas, face: Face) -> _Lids:
    eyes = face.eyes
    side = np.sign(window.x)
    x = np.abs(window.x) - EYE_X
    y = window.y + eyes.slant * x - (1.2 * face.head.asymmetry) * side
    opening = eyes.opening * (1.0 - (x / eyes.half_width) ** 2)
    # Eyes are widest towards the nose above, towards the temple below.
    skew = 0.012 * x
    return _Lids(side, x, y, y + 0.6 * opening * (1.0 - skew), 0.4 * opening * (1.0 + skew) - y)


def _draw_lids(window: Canvas, face: Face, lids: _Lids) -> None:
    """The upper lid up to its crease, and the shadow put on it."""
    eyes = face.eyes
    within = bump(lids.x, lids.y, 1.25 * eyes.half_width, 14.0)
    crease = lids.upper + 2.6 + 0.25 * eyes.opening * (lids.x / eyes.half_width) ** 2
    above_eye = edge(-lids.upper) * within
    window.multiply((0.86, 0.79, 0.78), 0.7 * edge(crease, 1.5) * above_eye)
    if eyes.shadow_strength > 0.0:
        window.paint(eyes.shadow, 0.75 * eyes.shadow_strength * edge(crease + 2.0, 5.0) * above_eye)
    window.multiply(CREASE, 0.55 * stroke(crease, 0.35, 1.6) * within)


def _draw_white(window: Canvas, face: Face, lids: _Lids, opening: Field, below_lid: Field) -> None:
    light = (1.0 - 0.3 * (lids.x / face.eyes.half_width) ** 2) * (1.0 - 0.4 * below_lid)
    window.paint(channels((232.0, 224.0, 220.0)) * light, opening)


def _draw_iris(window: Canvas, face: Face, lids: _Lids, opening: Field, below_lid: Field) -> None:
    """Iris, pupil and the reflection of the key light."""
    eyes, light = face.eyes, face.light
    x, y = lids.x - eyes.gaze_x * lids.side, lids.y - eyes.gaze_y + 0.7
    distance = ellipse(x, y, eyes.iris_radius, eyes.iris_radius)
    radius = 1.0 - distance / eyes.iris_radius
    shine = np.clip(1.25 - 0.75 * radius**3 + (0.22 / eyes.iris_radius) * y, 0.2, 1.5) * (1.0 - 0.55 * below_lid)
    window.paint(channels(eyes.iris) * shine, edge(distance, 1.1) * opening)
    window.paint((14.0, 10.0, 10.0), edge(distance - 0.58 * eyes.iris_radius, 1.2) * opening)
    spot = bump(x - (0.6 + 0.9 * light.right) * lids.side, y + 1.4 + 0.4 * light.above, 0.95, 0.95)
    window.glow((235.0, 235.0, 235.0), spot * opening)


def _draw_lashes(window: Canvas, face: Face, lids: _Lids) -> None:
    lashes = face.eyes.lashes
    reach = edge(1.12 * face.eyes.half_width - np.abs(lids.x), 3.0)
    window.paint((30.0, 20.0, 18.0), 0.92 * stroke(lids.upper + 0.4, 0.35 + 0.75 * lashes, 1.3) * reach)
    window.paint((70.0, 45.0, 40.0), (0.25 + 0.35 * lashes) * stroke(lids.lower + 0.3, 0.25, 1.3) * reach)


def draw_brows(canvas: Canvas, face: Face) -> None:
    """Both brows, thin towards the temples, hair by hair."""
    brows = face.brows
    window = canvas.near(0.0, -brows.height, EYE_X + brows.half_width + 3.0, 9.0)
    x = np.abs(window.x) - EYE_X - 1.0
    y = window.y + brows.height + brows.slant * x - (1.6 * face.head.asymmetry) * np.sign(window.x)
    along = x / brows.half_width
    level = y + brows.arch * (3.0 - 6.0 * (along - 0.25) ** 2)
    ends = np.clip(2.5 - 2.5 * np.abs(along), 0.0, 1.0)
    thickness = brows.thickness * (1.0 - 0.5 * np.maximum(along, 0.0)) * ends
    hairs = 0.92 + 0.08 * np.sin(2.3 * x + 1.7 * y)
    colour = darker(face.hair.colour, 0.75 if face.hair.shade == "gray" else 0.62)
    window.paint(colour, brows.density * hairs * edge(thickness - np.abs(level), 2.0) * (ends > 0.0))
