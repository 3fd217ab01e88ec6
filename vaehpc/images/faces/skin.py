"""Colours of skin, in light and in shadow."""

import numpy as np

from vaehpc.images.faces.canvas import Field, channels
from vaehpc.images.faces.traits import Colour, Skin

CREASE: Colour = (0.68, 0.56, 0.53)
"""What a fold leaves of the light."""
_TONES = (
    (243.0, 230.0, 208.0, 172.0, 126.0, 90.0),
    (216.0, 190.0, 161.0, 122.0, 84.0, 58.0),
    (202.0, 165.0, 128.0, 90.0, 60.0, 44.0),
)
"""Red, green and blue, from pale to deep at equal steps of tone."""


def skin_colour(skin: Skin) -> Colour:
    """RGB under full light."""
    steps = np.linspace(0.0, 1.0, len(_TONES[0]))
    red, green, blue = (float(np.interp(skin.tone, steps, values)) for values in _TONES)
    return red, green - 5.0 * skin.redness, blue - 6.0 * skin.redness


def darker(colour: Colour, factor: float) -> Colour:
    """The same colour in less light; blue goes first, as in skin and hair."""
    return colour[0] * factor, colour[1] * factor * (0.6 + 0.4 * factor), colour[2] * factor * (0.5 + 0.5 * factor)


def lit(colour: Colour, light: Field) -> Field:
    """(3, rows, columns): a colour in light from about 0.3 to 1; shadows keep more red than blue."""
    red, green, blue = colour
    picture = channels((red, 1.12 * green, 1.18 * blue)) * light
    picture -= channels((0.0, 0.12 * green, 0.18 * blue))
    return picture
