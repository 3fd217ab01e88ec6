"""Hair of the head: behind the shoulders, and around the face."""

import numpy as np

from vaehpc.images.faces.canvas import Canvas, Field, bump, edge
from vaehpc.images.faces.head import darker
from vaehpc.images.faces.traits import Face, Hair

_SKULL_CENTRE = -8.0
_NUM_STRANDS = 512


def draw_back_hair(canvas: Canvas, face: Face) -> None:
    """The dark inner side of long hair, behind neck and shoulders."""
    hair = face.hair
    if hair.bald or hair.length < 20.0:
        return
    distance = np.minimum(_outer_distance(canvas, face), hair.length - canvas.y)
    strands = _strands(canvas, hair)
    canvas.paint(_strand_colour(hair, 0.42 + 0.1 * strands), edge(distance, 3.0))


def draw_front_hair(canvas: Canvas, face: Face) -> None:
    """Hair over skull, forehead and cheeks, with its shadow on the skin."""
    hair = face.hair
    if hair.bald:
        return
    strands = _strands(canvas, hair)
    ragged = strands * (1.0 + 1.2 * hair.bangs)
    end = hair.length - canvas.y + 3.0 * strands
    outer = np.minimum(_outer_distance(canvas, face) + 0.6 * strands, end)
    free = _face_opening(canvas, face) + ragged
    shadow = edge(outer, 3.0) * edge(4.0 - free, 9.0)
    canvas.multiply((0.66, 0.56, 0.54), (0.35 + 0.35 * face.light.above) * shadow)
    shape = edge(outer, 2.0) * edge(-free, 2.4)
    light = _sheen(canvas, face) * (1.0 + 0.24 * strands)
    canvas.paint(_strand_colour(hair, light), shape)


def _outer_distance(canvas: Canvas, face: Face) -> Field:
    """Distance to the outline of the hair; below the skull it falls, and waves."""
    hair, head = face.hair, face.head
    y = canvas.y - _SKULL_CENTRE
    down = np.maximum(y, 0.0)
    long = hair.length > 20.0
    half_width = head.half_width + (hair.volume if long else 0.35 * hair.volume)
    spread = half_width + (0.02 + 0.10 * hair.curtain if long else -0.05) * down
    spread = spread + (3.5 * hair.wave * np.sin(0.16 * down + hair.parting) if long else 0.0)
    up = np.minimum(y, 0.0) / (head.crown + _SKULL_CENTRE + hair.volume)
    return (1.0 - np.sqrt((canvas.x / spread) ** 2 + up**2)) * half_width


def _face_opening(canvas: Canvas, face: Face) -> Field:
    """Distance to the part of the face that hair leaves free."""
    hair, head = face.hair, face.head
    hairline = hair.hairline + hair.bangs * (face.brows.height + 1.0 - hair.hairline)
    level = 4.0 - 6.0 * hair.bangs
    y = canvas.y - level
    down = np.maximum(y, 0.0)
    long = hair.length > 20.0
    temple = head.half_width * (0.97 - (0.18 * hair.curtain if long else 0.0))
    half_width = temple + (0.03 if long else 0.22) * down
    across = (canvas.x / half_width) ** 2
    bays = 1.0 + 0.42 * hair.recession * np.exp(-(((np.abs(canvas.x) - 24.0) / 11.0) ** 2))
    swept = (1.0 - 0.35 * hair.bangs) * 0.22 * hair.sweep * canvas.x / head.half_width
    up = (np.minimum(y, 0.0) / ((hairline + level) * bays * (1.0 + swept))) ** 2
    corners = 0.35 + 0.5 * hair.bangs
    return (1.0 - np.sqrt(np.maximum(across + up - corners * np.minimum(across * up, 1.0), 0.0))) * head.half_width


def _strands(canvas: Canvas, hair: Hair) -> Field:
    """About -1..1, constant along strands that run from the parting and wave on their way."""
    below = np.maximum(canvas.y + 78.0, 10.0)
    aside = canvas.x - hair.parting
    run = aside / (below + 0.45 * np.abs(aside))
    if hair.wave > 0.0:
        run = run + 0.045 * hair.wave * np.sin(0.15 * below + 2.0 * run)
    profile = np.random.default_rng(hair.texture).standard_normal(_NUM_STRANDS, np.float32)
    coarse = np.convolve(profile, np.full(7, 0.3, np.float32), "same")
    table = np.clip(0.5 * profile + coarse, -1.6, 1.6).astype(np.float32) * np.float32(0.62)
    row = (run * np.float32(110.0) + np.float32(_NUM_STRANDS // 2)).astype(np.intp)
    strands: Field = table[np.clip(row, 0, _NUM_STRANDS - 1)]
    return strands


def _sheen(canvas: Canvas, face: Face) -> Field:
    """Light on the curve of the hair: a band around the skull, one side brighter, dark next to the neck."""
    light = face.light
    x, y = canvas.x, canvas.y
    band = bump(x - 26.0 * light.right, y + 50.0, 42.0, 11.0)
    side = 0.2 * light.contrast * light.right * x / 60.0
    return 0.82 + 0.42 * band + side - 0.16 * edge(y - 20.0, 60.0)


def _strand_colour(hair: Hair, light: Field) -> Field:
    """(3, rows, columns)."""
    dark = np.array(darker(hair.colour, 0.35), np.float32)[:, None, None]
    full = np.array(hair.colour, np.float32)[:, None, None]
    shaded: Field = dark + light * (full - dark) + 16.0 * np.maximum(light - 1.0, 0.0)
    return shaded
