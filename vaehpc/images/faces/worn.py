"""What people wear: clothes, tie, necklace, glasses, hat, earrings."""

import numpy as np

from vaehpc.images.faces.canvas import EYE_X, Canvas, Field, bump, channels, edge, ellipse, ridge, stroke
from vaehpc.images.faces.head import neck_half_width
from vaehpc.images.faces.skin import darker
from vaehpc.images.faces.traits import Earrings, Face, Hat, Necktie

_SHOULDERS = 80.0
"""Where they leave the neck, below the eyes."""


def draw_clothes(body: Canvas, face: Face) -> None:
    """Shoulders under cloth, open at the neck; with a tie, shirt and jacket."""
    clothes = face.clothes
    window = body.near(0.0, 92.0, 110.0, 26.0)
    x, y = window.x, window.y
    shoulder = y - _SHOULDERS - 0.3 * np.maximum(np.abs(x) - face.head.neck, 0.0) + 3.0
    folds = 1.0 + 0.07 * np.sin(0.21 * x + 0.1 * y) + 0.12 * face.light.right * x / 60.0 - 0.1 * edge(y - 95.0, 40.0)
    if clothes.pattern > 0.0:
        folds *= 1.0 + 0.28 * clothes.pattern * np.tanh(2.0 * np.sin(0.4 * (x + clothes.collar_x * y / 30.0)))
    cloth = folds * channels(clothes.colour)
    if face.necktie is not None:
        window.paint(cloth, edge(shoulder, 1.4))
        _draw_tie(body, face.necktie)
        return
    neckline = ellipse(x, y - _SHOULDERS, clothes.collar_x, clothes.collar_y + 4.0)
    covered = edge(np.minimum(shoulder, -neckline), 1.4)
    window.paint(cloth, covered)
    window.multiply(0.7, 0.7 * covered * stroke(neckline, 0.8, 2.5))


def _draw_tie(body: Canvas, tie: Necktie) -> None:
    """White shirt between the lapels, the knot below the chin."""
    below = body.near(0.0, 92.0, 34.0, 28.0)
    x, y = below.x, below.y - 72.0
    both = np.abs(x)
    shirt = edge(np.minimum(30.0 - both - 0.35 * y, y + 0.2 * both - 4.0), 1.4)
    below.paint((236.0, 236.0, 238.0), shirt)
    below.multiply(0.72, 0.7 * shirt * stroke(both - 3.0 - 0.9 * np.maximum(12.0 - y, 0.0), 0.5, 1.6))
    half_width = np.where(y < 17.0, 7.6 - 0.14 * y, 0.5 + 0.18 * y)  # the knot narrows, what hangs from it widens
    silk = edge(np.minimum(half_width - both, y - 6.0), 1.2)
    below.paint(tie.colour, silk)
    below.paint(tie.stripe, tie.stripes * silk * edge(np.sin(0.9 * (x + y)) - 0.55, 0.5))
    below.multiply(0.72, 0.6 * silk * stroke(y - 17.0, 0.5, 2.0))


def draw_necklace(body: Canvas, face: Face) -> None:
    """A chain or beads around the neck, lowest in the middle."""
    necklace = face.necklace
    if necklace is None:
        return
    window = body.near(0.0, necklace.depth - 6.0, face.head.neck + 20.0, 20.0)
    x, y = window.x - 6.0 * face.pose.turn, window.y
    hang = y - necklace.depth + 0.018 * x**2
    on_skin = edge(neck_half_width(y, face.head) - np.abs(x), 2.0)
    beads = 1.0 - necklace.beads * (0.5 - 0.5 * np.cos(2.6 * x))
    string = stroke(hang, necklace.thickness * beads, 1.2) * on_skin
    window.multiply(0.72, 0.7 * stroke(hang - 1.6, necklace.thickness, 2.0) * on_skin)
    window.paint(necklace.colour, string)
    window.glow((90.0, 90.0, 80.0), string * edge(-hang) * (0.5 + 0.5 * np.cos(1.3 * x)))


def draw_glasses(canvas: Canvas, face: Face) -> None:
    """Lenses, rims, bridge and the beginning of the temples."""
    glasses = face.glasses
    if glasses is None:
        return
    window = canvas.near(0.0, 1.0, face.head.half_width + 6.0, glasses.half_height + 6.0)
    both, y = np.abs(window.x), window.y - 1.5
    rim = ellipse(both - EYE_X - 0.5, y, glasses.half_width, glasses.half_height, glasses.squareness)
    window.multiply(0.78, 0.4 * stroke(rim - 0.5, glasses.thickness + 1.5, 3.0))
    window.paint(darker(glasses.colour, 0.7), glasses.tint * edge(rim, 1.2))
    glare = edge(rim, 2.0) * ridge(((both - EYE_X + 0.9 * y - 6.0 * face.light.right) / 4.0) ** 2)
    window.glow((70.0, 74.0, 80.0), (0.25 + 0.5 * glasses.tint) * glare)
    rims = stroke(rim, 0.8 * glasses.thickness)
    bridge = stroke(y + 3.5 - 0.15 * both, 0.7 * glasses.thickness) * edge(EYE_X + 1.0 - glasses.half_width - both)
    beside = edge(np.minimum(both - EYE_X - glasses.half_width, face.head.half_width + 2.0 - both))
    temples = stroke(y + 3.0, 0.8 * glasses.thickness) * beside
    window.paint(glasses.colour, np.maximum(np.maximum(rims, bridge), temples))


def draw_earrings(canvas: Canvas, face: Face) -> None:
    """A pair below the ears."""
    if face.earrings is None:
        return
    ear_x = face.head.half_width + 0.5
    middle = 22.0 + 0.5 * face.earrings.drop
    for side in (-1.0, 1.0):
        lobe = canvas.near(side * ear_x, middle, 8.0, 0.5 * face.earrings.drop + 8.0)
        _draw_earring(lobe, side * lobe.x - ear_x, lobe.y - 22.0, face.earrings)


def _draw_earring(lobe: Canvas, x: Field, y: Field, earrings: Earrings) -> None:
    """A stone on a wire that begins at (0, 0), and its shadow."""
    size = earrings.size
    hanging = y - earrings.drop
    wire = stroke(x, 0.5) * edge(np.minimum(y, -hanging))
    lobe.multiply(0.6, 0.6 * edge(ellipse(x - 1.0, hanging - 1.2, size + 1.0, size + 1.0), 2.0))
    lobe.paint(earrings.colour, np.maximum(wire, edge(ellipse(x, hanging, size, size))))
    lobe.glow((110.0, 110.0, 105.0), bump(x + 0.3 * size, hanging + 0.4 * size, 1.2, 1.2))


def draw_hat(canvas: Canvas, face: Face) -> None:
    """A crown over the skull and what its kind has as a brim."""
    hat = face.hat
    if hat is None:
        return
    _draw_crown(canvas, face, hat)
    if hat.kind == "beanie":
        _draw_fold(canvas, face, hat)
    elif hat.kind == "cap":
        _draw_brim(canvas, face, hat, half_width=0.86 * face.head.half_width, gloss=0.74)
    else:
        _draw_ribbon(canvas, face, hat)
        _draw_brim(canvas, face, hat, half_width=face.head.half_width + 26.0, gloss=0.9)


def _draw_crown(canvas: Canvas, face: Face, hat: Hat) -> None:
    half_width, height = face.head.half_width + 6.0, face.head.crown + hat.height - hat.brim
    window = canvas.near(0.0, -hat.brim - 0.5 * height, half_width + 4.0, 0.5 * height + 10.0)
    x, y = window.x, _below_brim(window, hat)
    shape = ellipse(x, np.minimum(y, 0.0), half_width, height, 0.5 if hat.kind == "brimmed" else 0.15)
    light = _cloth_light(x, y, face, half_width)
    if hat.kind == "beanie":
        light *= 0.93 + 0.07 * np.sin(0.75 * x)
    window.paint(light * channels(hat.colour), edge(np.minimum(shape, 2.0 - y), 1.4))


def _draw_fold(canvas: Canvas, face: Face, hat: Hat) -> None:
    """The folded lower edge of a knitted hat."""
    half_width = face.head.half_width + 7.0
    window = canvas.near(0.0, -hat.brim, half_width + 2.0, 18.0)
    x, y = window.x, _below_brim(window, hat)
    light = _cloth_light(x, y, face, half_width) * (0.86 + 0.1 * np.sin(0.95 * x))
    shadow = edge(np.minimum(12.0 - y, face.head.half_width - np.abs(x)), 8.0) * (y > 0.0)
    window.multiply(0.6, 0.6 * shadow)
    window.paint(light * channels(hat.colour), edge(np.minimum(6.5 - np.abs(y), half_width - np.abs(x)), 1.5))


def _draw_ribbon(canvas: Canvas, face: Face, hat: Hat) -> None:
    half_width = face.head.half_width + 5.0
    window = canvas.near(0.0, -hat.brim - 10.0, half_width + 2.0, 10.0)
    ribbon = np.minimum(6.0 - np.abs(_below_brim(window, hat) + 10.0), half_width - np.abs(window.x))
    window.paint(darker(hat.colour, 0.45), edge(ribbon, 1.4))


def _draw_brim(canvas: Canvas, face: Face, hat: Hat, half_width: float, gloss: float) -> None:
    """The visor of a cap, or a brim all around; both shade the forehead."""
    window = canvas.near(6.0 * face.pose.turn, -hat.brim + 4.0, half_width + 2.0, 24.0)
    x, y = window.x - 6.0 * face.pose.turn, window.y + hat.brim - 2.0
    window.multiply((0.5, 0.46, 0.46), 0.75 * edge(ellipse(x, y - 9.0, 0.75 * half_width, 12.0), 8.0))
    light = gloss * _cloth_light(x, y, face, half_width) + 0.1 * ridge(((y + 4.0) / 3.0) ** 2)
    window.paint(light * channels(hat.colour), edge(ellipse(x, y, half_width, 8.5), 1.4))


def _below_brim(window: Canvas, hat: Hat) -> Field:
    """y from the lower edge of a hat, which sinks at the sides as it runs around the head."""
    return window.y + hat.brim - 0.0035 * window.x**2


def _cloth_light(x: Field, y: Field, face: Face, half_width: float) -> Field:
    across = x / half_width
    return 0.98 - 0.3 * across**2 + 0.25 * face.light.contrast * face.light.right * across - 0.0025 * (y + 20.0)
