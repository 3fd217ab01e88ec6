"""Eyes, brows, nostrils, mouth and beard: what lies upon the skin."""

import numpy as np

from vaehpc.images.faces.canvas import Canvas, Field, bump, edge, ellipse, stroke
from vaehpc.images.faces.head import darker, head_distance, skin_colour
from vaehpc.images.faces.traits import Colour, Face

EYE_X = 19.5
"""Distance of each eye from the midline."""
_CREASE = (0.62, 0.5, 0.48)


def draw_eyes(canvas: Canvas, face: Face) -> None:
    """Both eyes with lids, lashes and shadow."""
    for side in (-1.0, 1.0):
        _draw_eye(canvas.near(side * EYE_X, -2.0, 18.0, 14.0), face, side)


def _draw_eye(eye: Canvas, face: Face, side: float) -> None:
    eyes = face.eyes
    x = side * eye.x - EYE_X  # grows towards the temple on both sides
    y = eye.y + eyes.slant * x - 1.2 * side * face.head.asymmetry
    arch = 1.0 - (x / eyes.half_width) ** 2
    upper = y + 0.6 * eyes.opening * arch * (1.0 - 0.012 * x)
    lower = 0.4 * eyes.opening * arch * (1.0 + 0.012 * x) - y
    within = bump(x, y, 1.25 * eyes.half_width, 14.0)
    crease = upper + 2.6 + 0.25 * eyes.opening * (1.0 - arch)
    lid = edge(crease, 1.5) * edge(-upper, 1.0) * within
    eye.multiply((0.86, 0.79, 0.78), 0.7 * lid)
    eye.paint(eyes.shadow, eyes.shadow_strength * 0.75 * edge(crease + 2.0, 5.0) * edge(-upper, 1.0) * within)
    eye.multiply(_CREASE, 0.55 * stroke(crease, 0.35, 1.6) * within)
    opening = edge(np.minimum(upper, lower), 1.1)
    _draw_eyeball(eye, face, x, y, upper, opening, side)
    lashes = 0.35 + 0.75 * eyes.lashes
    reach = edge(1.12 * eyes.half_width - np.abs(x), 3.0)
    eye.paint((30.0, 20.0, 18.0), 0.92 * stroke(upper + 0.4, lashes, 1.3) * reach)
    eye.paint((70.0, 45.0, 40.0), (0.25 + 0.35 * eyes.lashes) * stroke(lower + 0.3, 0.25, 1.3) * reach)


def _draw_eyeball(eye: Canvas, face: Face, x: Field, y: Field, upper: Field, opening: Field, side: float) -> None:
    """White, iris, pupil and the reflection of the key light, below the shadow of the lid."""
    eyes, light = face.eyes, face.light
    white = 232.0 * (1.0 - 0.3 * (x / eyes.half_width) ** 2) * (1.0 - 0.4 * np.exp(-np.maximum(upper, 0.0) / 1.6))
    eye.paint(white * np.array((1.0, 0.965, 0.95), np.float32)[:, None, None], opening)
    gaze_x, gaze_y = x - side * eyes.gaze_x, y - eyes.gaze_y + 0.7
    iris = edge(ellipse(gaze_x, gaze_y, eyes.iris_radius, eyes.iris_radius), 1.1) * opening
    radius = np.sqrt(gaze_x**2 + gaze_y**2) / eyes.iris_radius
    glow = np.clip(1.25 - 0.75 * radius**3 + 0.22 * gaze_y / eyes.iris_radius, 0.2, 1.5)
    glow *= 1.0 - 0.55 * np.exp(-np.maximum(upper, 0.0) / 1.5)
    eye.paint(glow * np.array(eyes.iris, np.float32)[:, None, None], iris)
    pupil = 0.42 * eyes.iris_radius
    eye.paint((14.0, 10.0, 10.0), edge(ellipse(gaze_x, gaze_y, pupil, pupil), 1.2) * opening)
    spot = bump(gaze_x - side * (0.6 + 0.9 * light.right), gaze_y + 1.4 + 0.4 * light.above, 0.95, 0.95)
    eye.glow((235.0, 235.0, 235.0), spot * opening)


def draw_brows(canvas: Canvas, face: Face) -> None:
    """Both brows, thin towards the temples, hair by hair."""
    brows = face.brows
    colour = darker(face.hair.colour, 0.62) if face.hair.shade != "gray" else darker(face.hair.colour, 0.75)
    for side in (-1.0, 1.0):
        brow = canvas.near(side * EYE_X, -brows.height, brows.half_width + 4.0, 12.0)
        x = side * brow.x - EYE_X - 1.0
        y = brow.y + brows.height + brows.slant * x - 1.6 * side * face.head.asymmetry
        along = x / brows.half_width
        level = y + 6.0 * brows.arch * (1.0 - (along - 0.25) ** 2) - 3.0 * brows.arch
        thickness = (
            brows.thickness * (1.0 - 0.5 * np.maximum(along, 0.0)) * np.clip(4.0 * (1.0 - np.abs(along)), 0.0, 1.0)
        )
        hairs = 0.86 + 0.14 * np.sin(3.1 * x + 1.7 * y)
        brow.paint(colour, brows.density * hairs * edge(thickness - np.abs(level), 2.0) * (np.abs(along) < 1.0))


def draw_nostrils(canvas: Canvas, face: Face) -> None:
    """Nostrils and the edge of the wings; the relief of the head has drawn the rest of the nose."""
    nose = face.nose
    window = canvas.near(12.0 * face.pose.turn, nose.tip, nose.half_width + 6.0, 10.0)
    x, y = window.x - 12.0 * face.pose.turn, window.y - nose.tip
    both = np.abs(x)
    hole = ellipse(both - 0.47 * nose.half_width, y - 3.8 - 0.14 * (both - 4.0), 0.3 * nose.half_width, 1.5)
    window.paint(darker(skin_colour(face.skin), 0.3), 0.85 * edge(hole, 1.8))
    wing = ellipse(both - 0.62 * nose.half_width, y - 0.6, 0.42 * nose.half_width, 4.6)
    window.multiply(_CREASE, 0.5 * stroke(wing, 0.3, 2.0) * edge(both - 0.78 * nose.half_width, 2.0))


def draw_mouth(canvas: Canvas, face: Face) -> None:
    """Lips around what a parted mouth shows."""
    mouth = face.mouth
    centre = 3.0 * face.pose.turn
    window = canvas.near(centre, mouth.depth, mouth.half_width + 6.0, 18.0)
    x = window.x - centre
    y = window.y - mouth.depth - 0.06 * face.head.asymmetry * x
    along = x / mouth.half_width
    arch = np.maximum(1.0 - along**2, 0.0)
    line = -5.0 * mouth.smile * (along**2 - 0.35)
    gap_top, gap_bottom = line - 0.3 * mouth.gap * arch, line + 0.7 * mouth.gap * arch
    bow = 1.0 - 0.32 * np.exp(-((along / 0.2) ** 2)) - 0.15 * np.abs(along)
    lip_top = gap_top - mouth.upper * np.sqrt(arch) * bow
    lip_bottom = gap_bottom + mouth.lower * arch**0.75
    ends = edge(mouth.half_width + 0.5 - np.abs(x), 1.5)
    lips = edge(np.minimum(y - lip_top, lip_bottom - y), 1.6) * ends
    window.multiply(
        (0.75, 0.66, 0.64), 0.5 * bump(x, y - 2.0 - mouth.gap - mouth.lower - 2.5, 0.6 * mouth.half_width, 2.2)
    )
    _draw_lips(window, face, y, gap_top, gap_bottom, lips, arch)
    if mouth.gap > 0.0:
        _draw_gap(window, face, x, y, gap_top, gap_bottom, ends)
    else:
        window.multiply((0.42, 0.3, 0.3), 0.9 * stroke(y - line, 0.3, 1.5) * ends)
    corners = bump(np.abs(x) - mouth.half_width, y + 5.0 * 0.65 * mouth.smile, 2.0, 1.8)
    window.multiply((0.6, 0.48, 0.46), (0.35 + 0.3 * max(mouth.smile, 0.0)) * corners)


def _lip_colour(face: Face) -> Colour:
    """Skin with more blood in it, under lipstick."""
    skin, strength = skin_colour(face.skin), face.mouth.lipstick_strength
    bare = (0.86 * skin[0] + 8.0, 0.58 * skin[1] + 6.0, 0.6 * skin[2] + 10.0)
    red, green, blue = (low + strength * (high - low) for low, high in zip(bare, face.mouth.lipstick, strict=True))
    return red, green, blue


def _draw_lips(
    window: Canvas, face: Face, y: Field, gap_top: Field, gap_bottom: Field, lips: Field, arch: Field
) -> None:
    """The upper lip looks down and is darker; the lower one catches the light."""
    mouth = face.mouth
    light = np.where(y < 0.5 * (gap_top + gap_bottom), np.float32(0.8), np.float32(0.98))
    middle = (y - gap_bottom) / mouth.lower - 0.5
    light += (0.12 + 0.12 * mouth.lipstick_strength) * np.exp(-((middle / 0.3) ** 2)) * arch
    opacity = 0.72 + 0.25 * mouth.lipstick_strength
    window.paint(light * np.array(_lip_colour(face), np.float32)[:, None, None], opacity * lips)


def _draw_gap(window: Canvas, face: Face, x: Field, y: Field, gap_top: Field, gap_bottom: Field, ends: Field) -> None:
    """Dark mouth, upper teeth, and a hint of tongue."""
    gap = edge(np.minimum(y - gap_top, gap_bottom - y), 1.1) * ends
    window.paint((62.0, 18.0, 20.0), gap)
    window.paint((150.0, 70.0, 70.0), 0.6 * gap * bump(x, y - gap_bottom, 0.5 * face.mouth.half_width, 2.2))
    hang = min(0.72 * face.mouth.gap, 4.2)
    teeth = gap * edge(gap_top + hang - y, 1.2) * edge(0.82 * face.mouth.half_width - np.abs(x), 5.0)
    light = 236.0 * (1.0 - 0.35 * (x / face.mouth.half_width) ** 2) * (0.95 + 0.05 * np.cos(1.35 * x))
    window.paint(light * np.array((1.0, 0.97, 0.92), np.float32)[:, None, None], 0.95 * teeth)


def draw_beard(canvas: Canvas, face: Face) -> None:
    """Facial hair by region; the lips are painted over it later."""
    beard, head, mouth = face.beard, face.head, face.mouth
    if not any((beard.stubble, beard.full, beard.goatee, beard.mustache, beard.sideburns)):
        return
    window = canvas.near(0.0, 0.5 * head.chin + 10.0, head.half_width + 4.0, 0.5 * head.chin + 16.0)
    x, y = window.x, window.y
    both = np.abs(x)
    inside = edge(head_distance(window, head) + 2.0, 4.0)
    cheek_line = y - 45.0 + 0.028 * np.maximum(both - 10.0, 0.0) ** 2
    jaw = edge(cheek_line, 9.0)
    above_lip = edge(ellipse(x, y - mouth.depth + 7.5, mouth.half_width + 3.0, 5.2, 0.4), 3.0)
    chin = edge(ellipse(x, y - mouth.depth - 16.0, 13.0, 13.0, 0.4), 5.0)
    sides = edge(both - 0.83 * head.half_width, 4.0) * edge(y + 16.0, 4.0) * edge(30.0 - y, 8.0)
    opacity = np.maximum.reduce(
        (
            0.5 * beard.stubble * np.maximum(jaw, above_lip),
            beard.full * jaw,
            beard.goatee * chin,
            beard.mustache * above_lip,
            beard.sideburns * sides,
        )
    )
    grain = np.random.default_rng(face.hair.texture).standard_normal(x.shape, np.float32)
    opacity = opacity * inside * np.clip(0.9 + 0.16 * grain, 0.0, 1.0)
    colour = np.array(darker(face.hair.colour, 0.72), np.float32)[:, None, None] * (1.0 + 0.12 * grain)
    window.paint(colour, opacity)
