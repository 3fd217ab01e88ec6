"""What people wear: clothes, tie, necklace, glasses, hat, earrings."""

import numpy as np

from vaehpc.images.faces.canvas import Canvas, Field, bump, edge, ellipse, stroke
from vaehpc.images.faces.features import EYE_X
from vaehpc.images.faces.head import darker
from vaehpc.images.faces.traits import Face, Hat, Necktie

_SHOULDERS = 80.0
"""Where they leave the neck, below the eyes."""


def draw_clothes(body: Canvas, face: Face) -> None:
    """Shoulders under cloth, open at the neck; with a tie, shirt and jacket."""
    x, y = body.x, body.y
    both = np.abs(x)
    clothes = face.clothes
    shoulder = y - _SHOULDERS - 0.3 * np.maximum(both - face.head.neck, 0.0) + 3.0
    neckline = ellipse(x, y - _SHOULDERS, clothes.collar_x, clothes.collar_y + 4.0)
    cloth = edge(np.minimum(shoulder, -neckline), 1.4) if face.necktie is None else edge(shoulder, 1.4)
    folds = 1.0 + 0.07 * np.sin(0.21 * x + 0.1 * y) + 0.12 * face.light.right * x / 60.0 - 0.1 * edge(y - 95.0, 40.0)
    weave = 1.0 + 0.3 * clothes.pattern * np.sign(np.sin(0.5 * (x + clothes.collar_x * y / 30.0)))
    body.paint((folds * weave) * np.array(clothes.colour, np.float32)[:, None, None], cloth)
    if face.necktie is not None:
        _draw_tie(body, face.necktie)
    else:
        body.multiply(0.7, 0.7 * cloth * stroke(neckline, 0.8, 2.5))


def _draw_tie(body: Canvas, tie: Necktie) -> None:
    """White shirt between the lapels, the knot below the chin."""
    below = body.near(0.0, 92.0, 34.0, 28.0)
    x, y = below.x, below.y - 72.0
    both = np.abs(x)
    shirt = edge(np.minimum(30.0 - both - 0.35 * y, y + 0.2 * both - 4.0), 1.4)
    below.paint((236.0, 236.0, 238.0), shirt)
    below.multiply(0.72, 0.7 * shirt * stroke(both - 3.0 - 0.9 * np.maximum(12.0 - y, 0.0), 0.5, 1.6))
    half_width = np.where(y < 17.0, 6.8 - 0.14 * (y - 6.0), 3.6 + 0.18 * (y - 17.0))
    silk = edge(np.minimum(half_width - both, y - 6.0), 1.2)
    below.paint(tie.colour, silk)
    below.paint(tie.stripe, tie.stripes * silk * edge(np.sin(0.9 * (x + y)) - 0.55, 0.5))
    below.multiply(0.72, 0.6 * silk * stroke(y - 17.0, 0.5, 2.0))


def draw_necklace(body: Canvas, face: Face) -> None:
    """A chain or beads around the neck, lowest in the middle."""
    necklace = face.necklace
    if necklace is None:
        return
    window = body.near(0.0, necklace.depth - 6.0, face.head.neck + 12.0, 20.0)
    x, y = window.x - 6.0 * face.pose.turn, window.y
    hang = y - necklace.depth + 0.018 * x**2
    beads = 1.0 - necklace.beads * (0.5 - 0.5 * np.cos(2.6 * x))
    string = stroke(hang, necklace.thickness * beads, 1.2) * edge(face.head.neck + 6.0 - np.abs(x), 3.0)
    window.multiply(0.72, 0.7 * stroke(hang - 1.6, necklace.thickness, 2.0))
    window.paint(necklace.colour, string)
    window.glow((90.0, 90.0, 80.0), string * edge(-hang, 1.0) * (0.5 + 0.5 * np.cos(1.3 * x)))


def draw_glasses(canvas: Canvas, face: Face) -> None:
    """Lenses, rims, bridge and the beginning of the temples."""
    glasses = face.glasses
    if glasses is None:
        return
    window = canvas.near(0.0, 1.0, face.head.half_width + 6.0, glasses.half_height + 6.0)
    both, y = np.abs(window.x), window.y - 1.5
    rim = ellipse(both - EYE_X - 0.5, y, glasses.half_width, glasses.half_height, glasses.squareness)
    window.multiply(0.78, 0.4 * stroke(rim + 0.0 * y - 0.5, glasses.thickness + 1.5, 3.0))
    window.paint(darker(glasses.colour, 0.7), glasses.tint * edge(rim, 1.2))
    glare = edge(rim, 2.0) * bump(both - EYE_X + 0.9 * y - 6.0 * face.light.right, 0.0 * y, 4.0, 1.0)
    window.glow((70.0, 74.0, 80.0), (0.25 + 0.5 * glasses.tint) * glare)
    window.paint(glasses.colour, stroke(rim, 0.8 * glasses.thickness))
    inner = EYE_X + 0.5 - glasses.half_width
    bridge = stroke(y + 3.5 - 0.15 * both, 0.7 * glasses.thickness) * edge(inner + 0.5 - both)
    temples = (
        stroke(y + 3.0, 0.8 * glasses.thickness)
        * edge(both - EYE_X - glasses.half_width)
        * edge(face.head.half_width + 2.0 - both)
    )
    window.paint(glasses.colour, np.maximum(bridge, temples))


def draw_earrings(canvas: Canvas, face: Face) -> None:
    """A stud at each lobe, and what hangs from it."""
    earrings = face.earrings
    if earrings is None:
        return
    for side in (-1.0, 1.0):
        lobe = canvas.near(
            side * (face.head.half_width + 1.0), 24.0 + 0.5 * earrings.drop, 8.0, 0.5 * earrings.drop + 8.0
        )
        x, y = side * lobe.x - face.head.half_width - 0.5, lobe.y - 22.0
        wire = stroke(x, 0.5) * edge(np.minimum(y, earrings.drop - y))
        stone = edge(ellipse(x, y - earrings.drop, earrings.size, earrings.size))
        lobe.multiply(
            0.6, 0.6 * edge(ellipse(x - 1.0, y - earrings.drop - 1.2, earrings.size + 1.0, earrings.size + 1.0), 2.0)
        )
        lobe.paint(earrings.colour, np.maximum(wire, stone))
        lobe.glow(
            (110.0, 110.0, 105.0), bump(x + 0.3 * earrings.size, y - earrings.drop + 0.4 * earrings.size, 1.2, 1.2)
        )


def draw_hat(canvas: Canvas, face: Face) -> None:
    """A crown over the skull and what its kind has as a brim."""
    hat = face.hat
    if hat is None:
        return
    _draw_crown(canvas, face, hat)
    if hat.kind == "beanie":
        _draw_fold(canvas, face, hat)
    else:
        _draw_brim(canvas, face, hat)


def _draw_crown(canvas: Canvas, face: Face, hat: Hat) -> None:
    half_width = face.head.half_width + 5.0
    top = canvas.near(0.0, -hat.brim - 0.5 * hat.height, half_width + 4.0, 0.5 * hat.height + 10.0)
    x, y = top.x, top.y + hat.brim - 0.0035 * top.x**2
    shape = ellipse(x, np.minimum(y, 0.0), half_width, hat.height, 0.5 if hat.kind == "brimmed" else 0.15)
    light = _cloth_light(x, y, face, half_width)
    if hat.kind == "beanie":
        light = light * (0.93 + 0.07 * np.sin(0.75 * x))
    top.paint(light * np.array(hat.colour, np.float32)[:, None, None], edge(np.minimum(shape, 2.0 - y), 1.4))


def _draw_fold(canvas: Canvas, face: Face, hat: Hat) -> None:
    """The folded lower edge of a knitted hat."""
    half_width = face.head.half_width + 6.0
    band = canvas.near(0.0, -hat.brim, half_width + 2.0, 18.0)
    x, y = band.x, band.y + hat.brim - 0.0035 * band.x**2
    shape = np.minimum(6.5 - np.abs(y), half_width - np.abs(x))
    light = _cloth_light(x, y, face, half_width) * (0.86 + 0.1 * np.sin(0.95 * x))
    band.multiply(0.6, 0.6 * edge(np.minimum(12.0 - y, half_width - 6.0 - np.abs(x)), 8.0) * (y > 0.0))
    band.paint(light * np.array(hat.colour, np.float32)[:, None, None], edge(shape, 1.5))


def _draw_brim(canvas: Canvas, face: Face, hat: Hat) -> None:
    """The visor of a cap, or the brim all around with a ribbon above it; both shade the forehead."""
    wide = hat.kind == "brimmed"
    half_width = face.head.half_width + 26.0 if wide else 0.86 * face.head.half_width
    brim = canvas.near(0.0, -hat.brim + 4.0, half_width + 4.0, 26.0)
    x, y = brim.x - 6.0 * face.pose.turn, brim.y + hat.brim - 2.0
    shape = ellipse(x, y, half_width, 8.0 if wide else 9.0)
    brim.multiply((0.5, 0.46, 0.46), 0.75 * edge(ellipse(x, y - 9.0, 0.75 * half_width, 12.0), 8.0))
    light = (0.9 if wide else 0.74) * _cloth_light(x, y, face, half_width) + 0.1 * np.exp(-(((y + 4.0) / 3.0) ** 2))
    if wide:
        ribbon = edge(np.minimum(6.0 - np.abs(y + 12.0), face.head.half_width + 4.0 - np.abs(x)), 1.4)
        brim.paint(darker(hat.colour, 0.45), ribbon)
    brim.paint(light * np.array(hat.colour, np.float32)[:, None, None], edge(shape, 1.4))


def _cloth_light(x: Field, y: Field, face: Face, half_width: float) -> Field:
    across = x / half_width
    return 0.98 - 0.3 * across**2 + 0.25 * face.light.contrast * face.light.right * across - 0.0025 * (y + 20.0)
