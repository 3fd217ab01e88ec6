"""Neck, ears and head: the relief of the face under one light, and the skin upon it."""

import numpy as np

from vaehpc.images.faces.canvas import Canvas, Field, bump, edge, ellipse, stroke
from vaehpc.images.faces.traits import Colour, Face, Head, Light, Skin

_TONES = np.array(
    [(246, 222, 208), (236, 198, 174), (214, 168, 134), (176, 124, 92), (128, 84, 60), (88, 56, 42)], np.float32
)
"""RGB from pale to deep at equal steps of tone."""


def skin_colour(skin: Skin) -> Colour:
    """RGB under full light."""
    steps = np.linspace(0.0, 1.0, len(_TONES))
    red, green, blue = (float(np.interp(skin.tone, steps, _TONES[:, channel])) for channel in range(3))
    return red, green - 5.0 * skin.redness, blue - 6.0 * skin.redness


def darker(colour: Colour, factor: float) -> Colour:
    """The same colour in less light; blue goes first, as in skin and hair."""
    return colour[0] * factor, colour[1] * factor * (0.6 + 0.4 * factor), colour[2] * factor * (0.5 + 0.5 * factor)


def head_distance(canvas: Canvas, head: Head) -> Field:
    """Distance to the outline of the head, in pixels, positive inside."""
    return (1.0 - np.sqrt(_radius_squared(canvas, head))) * head.half_width


def draw_neck(body: Canvas, face: Face) -> None:
    """Neck and what is bare of the shoulders, in the shadow of the chin."""
    x, y = body.x - 6.0 * face.pose.turn, body.y
    flare = np.maximum(y - 74.0, 0.0)
    half_width = face.head.neck + 0.06 * flare**2
    inside = edge((half_width - np.abs(x)) * (y > 15.0), 1.5)
    round_side = x / half_width
    light = 0.86 - 0.22 * round_side**2 + 0.14 * face.light.right * face.light.contrast * round_side
    below_chin = np.exp(-(((y - face.head.chin + 2.0) / 13.0) ** 2))
    light *= 1.0 - (0.2 + 0.25 * face.light.above * face.light.contrast) * below_chin
    light *= 1.0 - 0.12 * bump(x, y - 100.0, 5.0, 9.0)
    colour = skin_colour(face.skin)
    body.paint(_lit(colour, light), inside)


def draw_ears(canvas: Canvas, face: Face) -> None:
    """Both ears, behind the cheeks."""
    colour = skin_colour(face.skin)
    for side in (-1.0, 1.0):
        ear = canvas.near(side * (face.head.half_width + 1.0), 7.0, 12.0, 20.0)
        x, y = side * ear.x - face.head.half_width - 0.5, ear.y - 7.0
        shape = ellipse(x + 0.12 * y, y, 6.0, 14.0)
        light = 0.84 + 0.12 * side * face.light.right * face.light.contrast - 0.25 * bump(x - 0.5, y + 2.0, 2.4, 7.0)
        ear.paint(_lit(colour, light.astype(np.float32)), edge(shape))


def draw_head(canvas: Canvas, face: Face) -> None:
    """Skin over the relief of the face, lit from one side."""
    head = face.head
    reach = 0.5 * (head.crown + head.chin)
    window = canvas.near(0.0, head.chin - reach, head.half_width + 4.0, reach + 4.0)
    inside = edge(head_distance(window, head), 1.3)
    light, gloss = _illuminate(_relief(window, face), face.light)
    window.paint(_lit(skin_colour(face.skin), light), inside)
    window.glow((255.0, 246.0, 232.0), (0.05 + 0.17 * face.skin.shine) * gloss * inside)
    _draw_complexion(window, face, inside)
    _draw_age(window, face)


def _radius_squared(canvas: Canvas, head: Head) -> Field:
    """1 on the outline: an ellipse above the cheeks; below them a jaw that tapers and may have corners."""
    x, y = canvas.x, canvas.y - 4.0
    down = np.where(y > 0.0, y / (head.chin - 4.0), y / (head.crown + 4.0)) ** 2
    below = np.where(y > 0.0, np.minimum(down, 1.0), np.float32(0.0))
    across = (x / (head.half_width * (1.0 - head.taper * below))) ** 2
    squared: Field = np.maximum(across + down - head.squareness * np.minimum(across, 1.0) * below, 1e-6)
    return squared


def _relief(canvas: Canvas, face: Face) -> Field:
    """Height of the face towards the camera, in pixels."""
    head, nose, mouth = face.head, face.nose, face.mouth
    x, y = canvas.x, canvas.y
    nose_x = x - 12.0 * face.pose.turn
    both = np.abs(x)
    wings = np.abs(nose_x)
    inside = np.maximum(1.0 - _radius_squared(canvas, head), 0.0)
    height = 30.0 * np.sqrt(inside) + 12.0 * inside
    height += 2.6 * bump(both - 17.0, y + face.brows.height - 1.0, 15.0, 5.0)
    height -= 4.6 * bump(both - 18.0, y + 1.0, 11.0, 8.5)
    height += (4.0 + 4.5 * head.cheekbones) * bump(both - 27.0, y - 19.0, 14.0, 11.0 - 2.0 * head.cheekbones)
    height += (3.0 + 3.5 * nose.bridge) * bump(nose_x, y - 9.0, 5.2, 16.0)
    tip = 6.5 - 1.5 * nose.pointedness
    height += (6.0 + 3.5 * nose.pointedness) * bump(nose_x, y - nose.tip + 1.5, tip, tip)
    height += 3.4 * bump(wings - 0.72 * nose.half_width, y - nose.tip - 0.5, 3.4, 4.0)
    height += 3.0 * bump(x, y - mouth.depth, 19.0, 11.0)
    height -= 2.4 * bump(x, y - mouth.depth - 11.0, 11.0, 3.6)
    height += 3.6 * bump(x, y - head.chin + 8.0, 12.0, 8.0)
    return height


def _illuminate(height: Field, light: Light) -> tuple[Field, Field]:
    """(diffuse, specular) light of a relief in pixels; a surface that faces the camera has diffuse near 1."""
    slope_x, slope_y = np.zeros_like(height), np.zeros_like(height)
    slope_x[:, 1:-1] = 0.5 * (height[:, 2:] - height[:, :-2])
    slope_y[1:-1] = 0.5 * (height[2:] - height[:-2])
    towards = np.array((0.8 * light.right, -0.7 * light.above, 1.0)) / np.sqrt(
        1.0 + (0.8 * light.right) ** 2 + (0.7 * light.above) ** 2
    )
    right, down, front = (float(component) for component in towards)
    flatness = 1.0 / np.sqrt(1.0 + slope_x**2 + slope_y**2)
    facing = np.maximum(front - right * slope_x - down * slope_y, 0.0) * flatness
    key = 0.25 + 0.45 * light.contrast
    diffuse = 1.02 - key + key * facing / front
    return diffuse, facing**2**4


def _lit(colour: Colour, light: Field) -> Field:
    """(3, rows, columns): a colour in light 0..1; shadows keep more red than blue, as in light through skin."""
    gains = np.array(((1.0, 0.0), (1.12, -0.12), (1.18, -0.18)), np.float32)
    return np.stack(
        [np.float32(c) * np.maximum(gain * light + rest, 0.0) for c, (gain, rest) in zip(colour, gains, strict=True)]
    )


def _draw_complexion(canvas: Canvas, face: Face, inside: Field) -> None:
    """Blood under cheeks and nose, blush upon them, and the shadow the nose throws."""
    x, y = canvas.x, canvas.y
    skin, light = face.skin, face.light
    cheeks = bump(np.abs(x) - 27.0, y - 21.0, 13.0, 11.0) * inside
    canvas.multiply((1.03, 0.8, 0.8), (0.2 * skin.redness + 0.95 * skin.blush) * cheeks)
    nose_x = x - 12.0 * face.pose.turn
    canvas.multiply((1.02, 0.86, 0.84), (0.3 + 0.4 * skin.redness) * bump(nose_x, y - face.nose.tip, 8.0, 6.0))
    thrown = bump(nose_x + 10.0 * light.right, y - face.nose.tip - 6.0 * light.above + 4.0, 7.0, 7.0)
    canvas.multiply((0.72, 0.62, 0.58), 0.75 * light.contrast * abs(light.right) * thrown)
    canvas.multiply((0.8, 0.7, 0.68), (0.3 + 0.5 * light.above) * bump(nose_x, y - face.nose.tip - 6.5, 9.0, 3.2))


def _draw_age(canvas: Canvas, face: Face) -> None:
    """Bags under the eyes, folds of a smile and of age, wrinkles of the forehead, a second chin."""
    x, y = canvas.x, canvas.y
    both = np.abs(x)
    crease = (0.72, 0.6, 0.56)
    bags, wrinkles = face.skin.bags, face.skin.wrinkles
    arc = y - 9.5 + 0.035 * (both - 19.0) ** 2
    within = bump(both - 19.0, y - 8.0, 11.0, 8.0)
    canvas.multiply((0.8, 0.7, 0.72), bags * within * edge(-arc - 0.5, 5.0) * 0.6)
    canvas.multiply(crease, (0.75 * bags) * stroke(arc, 0.4, 1.8) * within)
    fold = both - 13.0 - 0.45 * (y - face.nose.tip)
    along = np.exp(-(((y - face.nose.tip - 8.0) / 9.0) ** 2))
    canvas.multiply(
        crease, min(0.6 * max(face.mouth.smile, 0.0) + 0.8 * wrinkles, 1.0) * 0.7 * stroke(fold, 0.4, 3.4) * along
    )
    if wrinkles > 0.05:
        for line in range(3):
            level = y + 25.0 + 5.5 * line - 0.003 * x**2
            canvas.multiply(crease, 0.7 * wrinkles * stroke(level, 0.3, 2.0) * bump(x, y + 30.0, 26.0, 16.0))
        feet = np.sin(1.6 * (y + 0.3 * (both - 30.0) * (y > 0.0)))
        canvas.multiply(crease, wrinkles * 0.5 * edge(feet - 0.5, 0.6) * bump(both - 35.0, y - 1.0, 5.0, 7.0))
    if face.head.double_chin > 0.0:
        roll = y - face.head.chin + 9.0 - 0.012 * x**2
        canvas.multiply(
            crease, face.head.double_chin * stroke(roll, 0.8, 4.0) * bump(x, y - face.head.chin + 9.0, 17.0, 9.0)
        )
