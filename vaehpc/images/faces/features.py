"""Nostrils, mouth and beard."""

from dataclasses import dataclass

import numpy as np

from vaehpc.images.faces.canvas import Canvas, Field, bump, channels, edge, ellipse, ridge, stroke
from vaehpc.images.faces.head import NOSE_DEPTH, head_distance
from vaehpc.images.faces.skin import CREASE, darker, skin_colour
from vaehpc.images.faces.traits import Colour, Face


def draw_nostrils(canvas: Canvas, face: Face) -> None:
    """Nostrils and the edge of the wings; the relief of the head has drawn the rest of the nose."""
    nose = face.nose
    window = canvas.near(NOSE_DEPTH * face.pose.turn, nose.tip, nose.half_width + 6.0, 10.0)
    x, y = window.x - NOSE_DEPTH * face.pose.turn, window.y - nose.tip
    both = np.abs(x)
    hole = ellipse(both - 0.47 * nose.half_width, y - 3.8 - 0.14 * (both - 4.0), 0.25 * nose.half_width, 1.4)
    window.paint(darker(skin_colour(face.skin), 0.3), 0.85 * edge(hole, 1.8))
    wing = ellipse(both - 0.62 * nose.half_width, y - 0.6, 0.42 * nose.half_width, 4.6)
    window.multiply(CREASE, 0.5 * stroke(wing, 0.3, 2.0) * edge(both - 0.78 * nose.half_width, 2.0))


@dataclass(frozen=True)
class _Lips:
    """Where the lips are.

    x, y: pixels from the middle of the mouth. arch: 1 there, 0 from the corners on. line: y where closed lips meet.
    gap_top, gap_bottom: y of the inner edges of the lips. ends: opacity, 0 beyond the corners.
    """

    x: Field
    y: Field
    arch: Field
    line: Field
    gap_top: Field
    gap_bottom: Field
    ends: Field


def draw_mouth(canvas: Canvas, face: Face) -> None:
    """Lips around what a parted mouth shows."""
    mouth = face.mouth
    window = canvas.near(3.0 * face.pose.turn, mouth.depth, mouth.half_width + 6.0, 18.0)
    lips = _lips(window, face)
    below = lips.y - mouth.gap - mouth.lower - 4.5
    window.multiply((0.75, 0.66, 0.64), 0.5 * bump(lips.x, below, 0.6 * mouth.half_width, 2.2))
    _draw_lips(window, face, lips)
    if mouth.gap > 0.0:
        _draw_gap(window, face, lips)
    else:
        window.multiply((0.42, 0.3, 0.3), 0.9 * stroke(lips.y - lips.line, 0.3, 1.5) * lips.ends)
    corners = bump(np.abs(lips.x) - mouth.half_width, lips.y + 3.25 * mouth.smile, 2.0, 1.8)
    window.multiply((0.6, 0.48, 0.46), (0.35 + 0.3 * max(mouth.smile, 0.0)) * corners)


def _lips(window: Canvas, face: Face) -> _Lips:
    mouth = face.mouth
    x = window.x - 3.0 * face.pose.turn
    along = (x / mouth.half_width) ** 2
    arch = np.maximum(1.0 - along, 0.0)
    # A smile lifts the corners more than it lowers the middle.
    line = -5.0 * mouth.smile * (along - 0.35)
    return _Lips(
        x=x,
        y=window.y - mouth.depth - 0.06 * face.head.asymmetry * x,
        arch=arch,
        line=line,
        gap_top=line - 0.3 * mouth.gap * arch,
        gap_bottom=line + 0.7 * mouth.gap * arch,
        ends=edge(mouth.half_width + 0.5 - np.abs(x), 1.5),
    )


def _lip_colour(face: Face) -> Colour:
    """Skin with more blood in it, under lipstick."""
    skin, strength = skin_colour(face.skin), face.mouth.lipstick_strength
    bare = (0.86 * skin[0] + 8.0, 0.58 * skin[1] + 6.0, 0.6 * skin[2] + 10.0)
    red, green, blue = (low + strength * (high - low) for low, high in zip(bare, face.mouth.lipstick, strict=True))
    return red, green, blue


def _draw_lips(window: Canvas, face: Face, lips: _Lips) -> None:
    """The upper lip looks down and is darker; the lower one catches the light."""
    mouth = face.mouth
    roundness = lips.arch**0.75
    bow = 1.0 - 0.32 * ridge((lips.x / (0.2 * mouth.half_width)) ** 2) - 0.15 * np.abs(lips.x) / mouth.half_width
    top = lips.gap_top - 1.15 * mouth.upper * roundness * bow
    bottom = lips.gap_bottom + mouth.lower * roundness
    shape = edge(np.minimum(lips.y - top, bottom - lips.y), 1.6) * lips.ends
    light = 0.8 + 0.18 * (lips.y > lips.line).astype(np.float32)
    middle = (lips.y - lips.gap_bottom) / mouth.lower - 0.5
    light += (0.12 + 0.12 * mouth.lipstick_strength) * ridge((middle / 0.3) ** 2) * lips.arch
    window.paint(light * channels(_lip_colour(face)), (0.72 + 0.25 * mouth.lipstick_strength) * shape)


def _draw_gap(window: Canvas, face: Face, lips: _Lips) -> None:
    """Dark mouth, upper teeth, and a hint of tongue."""
    mouth = face.mouth
    gap = edge(np.minimum(lips.y - lips.gap_top, lips.gap_bottom - lips.y), 1.1) * lips.ends
    window.paint((62.0, 18.0, 20.0), gap)
    window.paint((150.0, 70.0, 70.0), 0.6 * gap * bump(lips.x, lips.y - lips.gap_bottom, 0.5 * mouth.half_width, 2.2))
    hang = min(0.72 * mouth.gap, 4.2)
    teeth = gap * edge(lips.gap_top + hang - lips.y, 1.2) * edge(0.82 * mouth.half_width - np.abs(lips.x), 5.0)
    light = (1.0 - 0.35 * (lips.x / mouth.half_width) ** 2) * (0.95 + 0.05 * np.cos(1.35 * lips.x))
    window.paint(light * channels((236.0, 229.0, 217.0)), 0.95 * teeth)


def draw_beard(canvas: Canvas, face: Face) -> None:
    """Facial hair by region; the lips are painted over it later."""
    beard, head = face.beard, face.head
    if not any((beard.stubble, beard.full, beard.goatee, beard.mustache, beard.sideburns)):
        return
    window = canvas.near(0.0, 0.5 * head.chin + 10.0, head.half_width + 4.0, 0.5 * head.chin + 16.0)
    grain = np.random.default_rng(face.hair.texture).standard_normal(window.x.shape, np.float32)
    opacity = _beard_density(window, face) * np.clip(0.9 + 0.16 * grain, 0.0, 1.0)
    window.paint(channels(darker(face.hair.colour, 0.72)) * (1.0 + 0.12 * grain), opacity)


def _beard_density(window: Canvas, face: Face) -> Field:
    """Opacity of the densest of the regions at each pixel."""
    beard, head, mouth = face.beard, face.head, face.mouth
    x, y = window.x, window.y
    both = np.abs(x)
    jaw = edge(y - 45.0 + 0.028 * np.maximum(both - 10.0, 0.0) ** 2, 9.0)
    above_lip = edge(ellipse(x, y - mouth.depth + 7.5, mouth.half_width + 3.0, 5.2, 0.4), 3.0)
    chin = edge(ellipse(x, y - mouth.depth - 16.0, 13.0, 13.0, 0.4), 5.0)
    sides = edge(both - 0.83 * head.half_width, 4.0) * edge(y + 16.0, 4.0) * edge(30.0 - y, 8.0)
    regions = (
        0.5 * beard.stubble * np.maximum(jaw, above_lip),
        beard.full * jaw,
        beard.goatee * chin,
        beard.mustache * above_lip,
        beard.sideburns * sides,
    )
    densest: Field = np.maximum.reduce(regions)
    return densest * edge(head_distance(window, head) + 2.0, 4.0)
