"""Hair of the head: behind the shoulders, and around the face."""

import numpy as np

from vaehpc.images.faces.canvas import Canvas, Field, bump, channels, edge
from vaehpc.images.faces.skin import darker
from vaehpc.images.faces.traits import Face, Hair

_SKULL_CENTRE = -8.0
_PART_HEIGHT = 84.0
"""Strands run from the parting, this high above the eyes."""
_NUM_STRANDS = 256
_STEPS = 8  # table entries per strand: without them each strand is a hard stripe


def draw_back_hair(canvas: Canvas, face: Face) -> None:
    """The dark inner side of long hair, behind neck and shoulders."""
    hair = face.hair
    if hair.bald or not _is_long(hair):
        return
    window = canvas.near(0.0, 0.5 * hair.length, _reach(face), 0.5 * hair.length + 4.0)
    fine, _ = _strands(window, hair)
    shape = edge(np.minimum(_outer_distance(window, face), hair.length - window.y), 3.0)
    # It begins gradually: above the eyes the front hair, whose outline is another, hides all of it.
    window.paint(_strand_colour(hair, 0.42 + 0.1 * fine), shape * edge(window.y - 8.0, 20.0))


def draw_front_hair(canvas: Canvas, face: Face) -> None:
    """Hair over skull, forehead and cheeks, with its shadow on the skin."""
    hair = face.hair
    if hair.bald:
        return
    top = face.head.crown + hair.volume + 4.0
    bottom = hair.length + 12.0
    window = canvas.near(0.0, 0.5 * (bottom - top), _reach(face), 0.5 * (bottom + top))
    fine, locks = _strands(window, hair)
    # Short hair thins out at its end; long hair is cut.
    end = (hair.length - window.y) * (1.0 if _is_long(hair) else 0.3) + 3.0 * locks
    outer = np.minimum(_outer_distance(window, face) + locks, end)
    free = _face_opening(window, face) + (1.0 + 1.8 * hair.bangs) * locks
    shadow = edge(outer, 3.0) * edge(4.0 - free, 9.0)
    window.multiply((0.66, 0.56, 0.54), (0.35 + 0.35 * face.light.above) * shadow)
    light = _sheen(window, face) * (1.0 + 0.2 * fine + 0.14 * locks)
    window.paint(_strand_colour(hair, light), edge(outer, 2.0) * edge(-free, 3.0))


def _is_long(hair: Hair) -> bool:
    return hair.length > 20.0


def _spread(hair: Hair) -> float:
    """How much wider, on each side, hair becomes per pixel it falls."""
    return 0.02 + 0.1 * hair.curtain if _is_long(hair) else -0.05


def _reach(face: Face) -> float:
    """Half the width that hair takes, with its waves."""
    fall = max(face.hair.length - _SKULL_CENTRE, 0.0)
    return face.head.half_width + face.hair.volume + _spread(face.hair) * fall + 3.5 * face.hair.wave + 2.0


def _outer_distance(canvas: Canvas, face: Face) -> Field:
    """Distance to the outline of the hair; below the skull it falls, and waves."""
    hair, head = face.hair, face.head
    y = canvas.y - _SKULL_CENTRE
    down = np.maximum(y, 0.0)
    half_width = head.half_width + (hair.volume if _is_long(hair) else 0.35 * hair.volume)
    spread = half_width + _spread(hair) * down
    if _is_long(hair):
        spread += 3.5 * hair.wave * np.sin(0.16 * down + hair.parting)
    up = np.minimum(y, 0.0) / (head.crown + _SKULL_CENTRE + hair.volume)
    return (1.0 - np.sqrt((canvas.x / spread) ** 2 + up**2)) * half_width


def _face_opening(canvas: Canvas, face: Face) -> Field:
    """Distance to the part of the face that hair leaves free."""
    hair, head = face.hair, face.head
    hairline = hair.hairline + hair.bangs * (face.brows.height + 1.0 - hair.hairline)
    level = 4.0 - 6.0 * hair.bangs
    y = canvas.y - level
    down = np.maximum(y, 0.0)
    temple = head.half_width * (0.97 - 0.18 * hair.curtain if _is_long(hair) else 0.92)
    half_width = temple + (0.03 if _is_long(hair) else 0.22) * down
    across = (canvas.x / half_width) ** 2
    bays = 1.0 + 0.42 * hair.recession * np.exp(-(((np.abs(canvas.x) - 24.0) / 11.0) ** 2))
    swept = (1.0 - 0.35 * hair.bangs) * 0.3 * hair.sweep * canvas.x / head.half_width
    up = (np.minimum(y, 0.0) / ((hairline + level) * bays * (1.0 + swept))) ** 2
    corners = 0.35 + 0.5 * hair.bangs
    return (1.0 - np.sqrt(across + up - corners * np.minimum(across * up, 1.0))) * head.half_width


def _strands(canvas: Canvas, hair: Hair) -> tuple[Field, Field]:
    """(single hairs, locks), about -1..1: constant along lines that run from the parting and wave on their way."""
    below = np.maximum(canvas.y + _PART_HEIGHT, 10.0)
    aside = canvas.x - hair.parting
    run = aside / (below + 0.45 * np.abs(aside))
    if hair.wave > 0.0:
        run += 0.045 * hair.wave * np.sin(0.15 * below + 2.0 * run)
    profile = np.random.default_rng(hair.texture).standard_normal(_NUM_STRANDS)
    steps = np.arange(_NUM_STRANDS * _STEPS) / _STEPS
    table = np.clip(np.interp(steps, np.arange(_NUM_STRANDS), profile), -1.6, 1.6).astype(np.float32)
    middle = 0.5 * _NUM_STRANDS * _STEPS
    # Near the parting strands meet: they fade there, or they would be finer than a pixel.
    fine = table.take((run * (60.0 * _STEPS) + middle).astype(np.int32), mode="clip") * np.minimum(below / 70.0, 1.0)
    locks = table.take((run * (19.0 * _STEPS) + 0.13 * _STEPS * below + middle).astype(np.int32), mode="clip")
    return 0.62 * fine, 0.62 * locks


def _sheen(canvas: Canvas, face: Face) -> Field:
    """Light on the curve of the hair: a band around the skull, one side brighter, dark next to the neck."""
    light = face.light
    x, y = canvas.x, canvas.y
    band = bump(x - 26.0 * light.right, y + 56.0, 42.0, 12.0)
    side = 0.2 * light.contrast * light.right * x / 60.0
    return 0.82 + 0.42 * band + side - 0.16 * edge(y - 20.0, 60.0)


def _strand_colour(hair: Hair, light: Field) -> Field:
    """(3, rows, columns): from the dark between the hairs to a gloss that takes the colour of the light."""
    dark, full = channels(darker(hair.colour, 0.35)), channels(hair.colour)
    picture: Field = light * (full - dark)
    picture += dark
    picture += 16.0 * np.maximum(light - 1.0, 0.0)
    return picture
