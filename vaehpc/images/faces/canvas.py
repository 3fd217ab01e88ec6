"""The picture while it is painted, and the soft shapes it is painted with.

Shapes are functions of coordinates that run with the face: pose is applied once, to the coordinates, and no finished
picture is ever resampled. A shape is a distance in pixels, positive inside; `edge` turns it into an opacity.
"""

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vaehpc.images.celeba import IMAGE_SHAPE
from vaehpc.images.faces.traits import Colour, Pose

Field = NDArray[Any]
"""float32; NumPy's annotations lose that where a Python number takes part."""

Span = tuple[float, float]
"""(low, high)."""

EYE_MIDPOINT = (88.5, 111.0)
"""(x, y) in the frame: CelebA aligns the eyes to about (69, 111) and (108, 111)."""
EYE_X = 19.5
"""Distance of each eye from the midline."""
_FACE_DEPTH = 34.0
_FACE_RADIUS = 50.0
_EYE_DEPTH = 5.2  # makes depth 0 at the eyes, so that turning the head leaves them where they are aligned


@dataclass(frozen=True)
class Canvas:
    """A window of the picture with the coordinates to draw in.

    pixels: (channels, rows, columns). x, y: (rows, columns), pixels from the point midway between the eyes, to the
    right and down. pose: what the coordinates follow. left, top: frame position of the window.
    """

    pixels: Field
    x: Field
    y: Field
    pose: Pose
    left: int = 0
    top: int = 0

    def near(self, x: float, y: float, half_width: float, half_height: float) -> "Canvas":
        """Window that holds the box around (x, y): a small shape costs its own area, not the frame's."""
        columns, rows = _frame_box(self.pose, (x - half_width, x + half_width), (y - half_height, y + half_height))
        height, width = self.x.shape
        # A pixel more to each side for the soft edge, and one for what _frame_box leaves out.
        left, right = (_clamp(column - self.left, width) for column in (columns[0] - 2.0, columns[1] + 3.0))
        top, bottom = (_clamp(row - self.top, height) for row in (rows[0] - 2.0, rows[1] + 3.0))
        window = (slice(top, bottom), slice(left, right))
        return Canvas(
            pixels=self.pixels[:, window[0], window[1]],
            x=self.x[window],
            y=self.y[window],
            pose=self.pose,
            left=self.left + left,
            top=self.top + top,
        )

    def paint(self, colour: Colour | Field, opacity: Field) -> None:
        """Cover with a colour, or with a picture of shape (channels, rows, columns)."""
        covered = channels(colour) - self.pixels
        covered *= opacity
        self.pixels[...] += covered

    def multiply(self, factor: float | Colour, opacity: Field) -> None:
        """Darken or tint what is there: by the whole factor where opacity is 1."""
        kept = opacity * (channels(factor) - 1.0)
        kept += 1.0
        self.pixels[...] *= kept

    def glow(self, colour: Colour, strength: Field) -> None:
        """Add light of a colour."""
        self.pixels[...] += strength * channels(colour)


def blank_frame(pose: Pose) -> tuple[Canvas, Canvas]:
    """(body, head): the same unpainted pixels in two systems of coordinates.

    Those of the body follow shift, scale and roll. Those of the head also follow turn and nod, which move what stands
    out towards the camera against what lies back.
    """
    height, width, num_channels = IMAGE_SHAPE
    right = (np.arange(width, dtype=np.float32) - (EYE_MIDPOINT[0] + pose.shift_x)) / pose.scale
    down = (np.arange(height, dtype=np.float32)[:, None] - (EYE_MIDPOINT[1] + pose.shift_y)) / pose.scale
    cos, sin = math.cos(pose.roll), math.sin(pose.roll)
    pixels = np.empty((num_channels, height, width), np.float32)
    body = Canvas(pixels, right * cos + down * sin, down * cos - right * sin, replace(pose, turn=0.0, nod=0.0))
    # Depth without the roll, which would move it by less than a pixel: so it is a sum of a row and a column.
    depth = _depth_across(right) + _depth_down(down)
    return body, Canvas(pixels, body.x - pose.turn * depth, body.y - pose.nod * depth, pose)


def edge(distance: Field, softness: float = 1.0) -> Field:
    """Opacity of a shape: 0 outside, 1 inside, a ramp `softness` pixels wide between."""
    opacity = distance * (1.0 / softness)
    opacity += 0.5
    return np.clip(opacity, 0.0, 1.0, out=opacity)


def stroke(distance: Field, half_width: float | Field, softness: float = 1.0) -> Field:
    """Opacity of a line along distance 0."""
    return edge(half_width - np.abs(distance), softness)


def ellipse(x: Field, y: Field, half_width: float, half_height: float, squareness: float = 0.0) -> Field:
    """Distance to an ellipse around (0, 0); squareness 1 makes it a rectangle, below 0 a diamond."""
    across, down = _squared(x, half_width), _squared(y, half_height)
    # Along this direction the outline is about this far from the middle; the small numbers are for the middle itself.
    reach = np.sqrt((across + down + 1e-6) / (across / half_width**2 + down / half_height**2 + 1e-6 / half_height**2))
    if squareness:
        down += across - squareness * np.minimum(across, 1.0) * np.minimum(down, 1.0)
    else:
        down += across
    return (1.0 - np.sqrt(down)) * reach


def bump(x: Field, y: Field, half_width: float, half_height: float) -> Field:
    """A Gaussian hill of height 1 around (0, 0)."""
    exponent = _squared(x, half_width)
    exponent += _squared(y, half_height)
    return ridge(exponent)


def ridge(exponent: Field) -> Field:
    """exp(-exponent), in place of its argument."""
    np.negative(exponent, out=exponent)
    return np.exp(exponent, out=exponent)


def channels(colour: float | Colour | Field) -> Field:
    """A colour as (3, 1, 1); a gray or a picture as it is."""
    values: Field = np.asarray(colour, np.float32)
    return values[:, None, None] if values.ndim == 1 else values


def _squared(x: Field, unit: float) -> Field:
    scaled = x * (1.0 / unit)
    scaled *= scaled
    return scaled


def _clamp(position: float, length: int) -> int:
    return min(max(int(position), 0), length)


def _depth_across(x: Any) -> Any:
    """How far the head stands out towards the camera at eye level, 0 at the eyes."""
    return _EYE_DEPTH - _FACE_DEPTH * np.minimum((x / _FACE_RADIUS) ** 2, 1.2)


def _depth_down(y: Any) -> Any:
    """How far the skull lies back above the eyes."""
    return -20.0 * (np.minimum(y, 0.0) / 60.0) ** 2


def _frame_box(pose: Pose, x: Span, y: Span) -> tuple[Span, Span]:
    """(columns, rows) in the frame that hold a box in coordinates of the head, to within about a pixel."""
    nearest = _depth_at(min(max(x[0], 0.0), x[1]), y[1])
    farthest = _depth_at(max(-x[0], x[1]), y[0])
    x = _sum(x, _span(pose.turn * nearest, pose.turn * farthest))
    y = _sum(y, _span(pose.nod * nearest, pose.nod * farthest))
    cos, sin = pose.scale * math.cos(pose.roll), pose.scale * math.sin(pose.roll)
    right = _sum((x[0] * cos, x[1] * cos), _span(-y[0] * sin, -y[1] * sin))
    down = _sum((y[0] * cos, y[1] * cos), _span(x[0] * sin, x[1] * sin))
    column, row = EYE_MIDPOINT[0] + pose.shift_x, EYE_MIDPOINT[1] + pose.shift_y
    return (column + right[0], column + right[1]), (row + down[0], row + down[1])


def _depth_at(x: float, y: float) -> float:
    return _EYE_DEPTH - _FACE_DEPTH * min((x / _FACE_RADIUS) ** 2, 1.2) - 20.0 * (min(y, 0.0) / 60.0) ** 2


def _span(one: float, other: float) -> Span:
    return (one, other) if one < other else (other, one)


def _sum(one: Span, other: Span) -> Span:
    return one[0] + other[0], one[1] + other[1]
