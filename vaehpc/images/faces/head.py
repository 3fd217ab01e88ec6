"""Neck, ears and head: the relief of the face under one light, and the skin upon it."""

import math
from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from vaehpc.images.faces.canvas import Canvas, Field, bump, channels, edge, ellipse, ridge, stroke
from vaehpc.images.faces.skin import CREASE, lit, skin_colour
from vaehpc.images.faces.traits import Face, Head, Light

Hill = tuple[float, float, float, float, float]
"""x, y, half width, half height and height of a Gaussian hill, in pixels."""

NOSE_DEPTH = 12.0
"""How far the nose stands out, and so how far it moves when the head turns."""


def head_distance(canvas: Canvas, head: Head) -> Field:
    """Distance to the outline of the head, in pixels, positive inside."""
    return (1.0 - np.sqrt(_radius_squared(canvas, head))) * head.half_width


def neck_half_width(y: Field, head: Head) -> Field:
    """Half width of the neck, which widens into the shoulders."""
    return head.neck + 0.06 * np.maximum(y - 74.0, 0.0) ** 2


def draw_neck(body: Canvas, face: Face) -> None:
    """Neck and what is bare of the shoulders, in the shadow of the chin."""
    window = body.near(0.0, 68.0, 64.0, 50.0)
    x, y = window.x - 6.0 * face.pose.turn, window.y
    half_width = neck_half_width(y, face.head)
    round_side = x / half_width
    light = 0.86 - 0.22 * round_side**2 + 0.14 * face.light.right * face.light.contrast * round_side
    below_chin = ridge(((y - face.head.chin + 2.0) / 13.0) ** 2)
    light *= 1.0 - (0.2 + 0.25 * face.light.above * face.light.contrast) * below_chin
    light *= 1.0 - 0.12 * bump(x, y - 100.0, 5.0, 9.0)
    window.paint(lit(skin_colour(face.skin), light), edge(half_width - np.abs(x), 1.5))


def draw_double_chin(canvas: Canvas, face: Face) -> None:
    """A second chin, which hangs below the outline of the first."""
    head = face.head
    if head.double_chin == 0.0:
        return
    window = canvas.near(0.0, head.chin, 0.66 * head.half_width + 8.0, 24.0)
    hanging = ellipse(window.x, window.y - head.chin + 8.0, 0.66 * head.half_width, 17.0 + 6.0 * head.double_chin)
    window.multiply(CREASE, head.double_chin * edge(hanging + 3.0, 9.0))
    light = 0.86 - 0.5 * edge(head_distance(window, head) + 3.0, 10.0)
    window.paint(lit(skin_colour(face.skin), light), edge(hanging, 4.0))


def draw_ears(canvas: Canvas, face: Face) -> None:
    """Both ears, behind the cheeks."""
    for side in (-1.0, 1.0):
        ear = canvas.near(side * (face.head.half_width + 1.0), 7.0, 9.0, 16.0)
        x, y = side * ear.x - face.head.half_width - 0.5, ear.y - 7.0
        light = 0.74 + 0.12 * side * face.light.right * face.light.contrast - 0.25 * bump(x - 0.5, y + 2.0, 2.4, 7.0)
        ear.paint(lit(skin_colour(face.skin), light), edge(ellipse(x + 0.12 * y, y, 6.0, 14.0)))


def draw_head(canvas: Canvas, face: Face) -> None:
    """Skin over the relief of the face, lit from one side."""
    head = face.head
    reach = 0.5 * (head.crown + head.chin)
    window = canvas.near(0.0, head.chin - reach, head.half_width + 2.0, reach + 2.0)
    radius_squared = _radius_squared(window, head)
    light, gloss = _illuminate(_relief(window, face, radius_squared), face.light)
    skin = lit(skin_colour(face.skin), light)
    skin += (0.02 + 0.12 * face.skin.shine) * gloss * channels((255.0, 246.0, 232.0))
    window.paint(skin, edge((1.0 - np.sqrt(radius_squared)) * head.half_width, 1.3))
    _draw_blood(window, face)
    _draw_nose_shadow(window, face)
    _draw_bags(window, face)
    _draw_folds(window, face)
    _draw_wrinkles(window, face)


def _radius_squared(canvas: Canvas, head: Head) -> Field:
    """1 on the outline: an ellipse above the cheeks; below them a jaw that tapers and may have corners."""
    x, y = canvas.x, canvas.y - 4.0
    jaw = np.maximum(y, 0.0) * (1.0 / (head.chin - 4.0))
    jaw *= jaw
    skull = np.minimum(y, 0.0) * (1.0 / (head.crown + 4.0))
    skull *= skull
    below = np.minimum(jaw, 1.0)
    across = x / (head.half_width * (1.0 - head.taper * below))
    across *= across
    return across + jaw + skull - head.squareness * np.minimum(across, 1.0) * below


def _relief(canvas: Canvas, face: Face, radius_squared: Field) -> Field:
    """Height of the face towards the camera, in pixels."""
    inside = np.maximum(1.0 - radius_squared, 0.0)
    surface = 30.0 * np.sqrt(inside) + 12.0 * inside
    relief = replace(canvas, pixels=surface[None])
    for x, y, half_width, half_height, height in _hills(face):
        # Beyond twice its width a hill is lower than a tenth of a pixel.
        hill = relief.near(x, y, 2.0 * half_width, 2.0 * half_height)
        hill.pixels[0] += height * bump(hill.x - x, hill.y - y, half_width, half_height)
    return surface


def _hills(face: Face) -> Iterator[Hill]:
    """What the features add to the round of the head."""
    head, nose, mouth = face.head, face.nose, face.mouth
    nose_x = NOSE_DEPTH * face.pose.turn
    for side in (-1.0, 1.0):
        yield 17.0 * side, 1.0 - face.brows.height, 15.0, 5.0, 2.6
        yield 18.0 * side, -1.0, 11.0, 8.5, -4.6
        yield 0.6 * head.half_width * side, 19.0, 14.0, 11.0 - 2.0 * head.cheekbones, 4.0 + 4.5 * head.cheekbones
        yield nose_x + 0.7 * nose.half_width * side, nose.tip, 3.8, 4.4, 2.4
    tip = 8.0 - 2.2 * nose.pointedness
    yield nose_x, 9.0, 6.0, 17.0, 2.4 + 3.0 * nose.bridge
    yield nose_x, nose.tip - 2.0, tip, tip + 1.0, 3.4 + 2.4 * nose.pointedness
    yield 0.0, mouth.depth, 19.0, 11.0, 3.0
    yield 0.0, mouth.depth + 11.0, 11.0, 3.6, -2.4
    yield 0.0, head.chin - 8.0, 12.0, 8.0, 3.6


def _illuminate(height: Field, light: Light) -> tuple[Field, Field]:
    """(diffuse, specular) light of a relief in pixels; a surface that faces the camera has diffuse near 1."""
    slope_x, slope_y = np.zeros_like(height), np.zeros_like(height)
    np.subtract(height[:, 2:], height[:, :-2], out=slope_x[:, 1:-1])
    np.subtract(height[2:], height[:-2], out=slope_y[1:-1])
    right, down = 0.8 * light.right, -0.7 * light.above
    front = 1.0 / math.sqrt(1.0 + right**2 + down**2)
    # The slopes are twice the derivative: differences reach over two pixels.
    facing = np.maximum(1.0 - (0.5 * right) * slope_x - (0.5 * down) * slope_y, 0.0)
    slope_x *= slope_x
    slope_x += slope_y * slope_y
    facing /= np.sqrt(1.0 + 0.25 * slope_x)
    key = 0.25 + 0.45 * light.contrast
    gloss = (front * facing) ** 2
    gloss *= gloss
    gloss *= gloss
    return 1.02 - key + key * facing, gloss


def _draw_blood(canvas: Canvas, face: Face) -> None:
    """Red of cheeks and nose, by nature or by blusher."""
    skin = face.skin
    reach = 0.27 * face.head.half_width
    for side in (-1.0, 1.0):
        middle = 0.58 * face.head.half_width * side
        cheek = canvas.near(middle, 21.0, 1.8 * reach, 20.0)
        red = bump(cheek.x - middle, cheek.y - 21.0, reach, 11.0)
        cheek.multiply((1.03, 0.8, 0.8), (0.15 * skin.redness + 0.75 * skin.blush) * red)
    nose_x = NOSE_DEPTH * face.pose.turn
    nose = canvas.near(nose_x, face.nose.tip, 14.0, 11.0)
    red = bump(nose.x - nose_x, nose.y - face.nose.tip, 8.0, 6.0)
    nose.multiply((1.02, 0.86, 0.84), (0.3 + 0.4 * skin.redness) * red)


def _draw_nose_shadow(canvas: Canvas, face: Face) -> None:
    """The shadow that the nose throws to the side and upon the lip."""
    light = face.light
    nose_x = NOSE_DEPTH * face.pose.turn
    window = canvas.near(nose_x, face.nose.tip + 3.0, 22.0, 18.0)
    x, y = window.x - nose_x, window.y - face.nose.tip
    aside = bump(x + 10.0 * light.right, y - 6.0 * light.above + 4.0, 7.0, 7.0)
    window.multiply((0.72, 0.62, 0.58), 0.75 * light.contrast * abs(light.right) * aside)
    window.multiply((0.8, 0.7, 0.68), (0.2 + 0.4 * light.above) * bump(x, y - 7.0, 9.0, 3.6))


def _draw_bags(canvas: Canvas, face: Face) -> None:
    """Swollen lids below the eyes."""
    window = canvas.near(0.0, 10.0, 36.0, 12.0)
    aside = np.abs(window.x) - 19.0
    arc = window.y - 9.5 + 0.035 * aside**2
    within = face.skin.bags * bump(aside, window.y - 8.0, 11.0, 8.0)
    window.multiply((0.8, 0.7, 0.72), 0.6 * within * edge(-arc - 0.5, 5.0))
    window.multiply(CREASE, 0.75 * within * stroke(arc, 0.4, 1.8))


def _draw_folds(canvas: Canvas, face: Face) -> None:
    """From the wings of the nose to the corners of the mouth: by smiling and by age."""
    depth = min(0.6 * max(face.mouth.smile, 0.0) + 0.8 * face.skin.wrinkles, 1.0)
    window = canvas.near(0.0, face.nose.tip + 8.0, 28.0, 16.0)
    fold = np.abs(window.x) - 13.0 - 0.45 * (window.y - face.nose.tip)
    along = ridge(((window.y - face.nose.tip - 8.0) / 9.0) ** 2)
    window.multiply(CREASE, 0.7 * depth * stroke(fold, 0.4, 3.4) * along)


def _draw_wrinkles(canvas: Canvas, face: Face) -> None:
    """Three lines across the forehead, and crow's feet."""
    wrinkles = face.skin.wrinkles
    if wrinkles < 0.05:
        return
    forehead = canvas.near(0.0, -31.0, 40.0, 20.0)
    level = (forehead.y + 31.0 - 0.003 * forehead.x**2) / 5.5
    lines = edge(np.cos(2.0 * np.pi * level) - 0.8, 0.5)
    forehead.multiply(CREASE, 0.7 * wrinkles * lines * bump(forehead.x, forehead.y + 31.0, 26.0, 9.0))
    temples = canvas.near(0.0, 1.0, 46.0, 14.0)
    aside = np.abs(temples.x) - 35.0
    feet = np.sin(1.6 * temples.y + 0.05 * aside * temples.y)
    temples.multiply(CREASE, 0.5 * wrinkles * edge(feet - 0.5, 0.6) * bump(aside, temples.y - 1.0, 5.0, 7.0))
