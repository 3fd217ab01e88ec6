"""The picture while it is painted, and the soft shapes it is painted with.

Shapes are functions of coordinates that run with the face: pose is applied once, to the coordinates, and no finished
picture is ever resampled. A shape is a distance in pixels, positive inside; `edge` turns it into an opacity.
"""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vaehpc.images.celeba import IMAGE_SHAPE
from vaehpc.images.faces.traits import Colour, Pose

Field = NDArray[Any]

EYE_MIDPOINT = (88.5, 111.0)
"""(x, y) in the frame: CelebA aligns the eyes to about (69, 111) and (108, 111)."""
_FACE_DEPTH = 34.0
_FACE_RADIUS = 50.0
_EYE_DEPTH = 5.2  # makes depth 0 at the eyes, so that turning the head leaves them where they are aligned


@dataclass(frozen=True)
class Canvas:
    """A window of the picture with the coordinates to draw in.

    pixels: (3, rows, columns), 0..255. x, y: (rows, columns), pixels from the point midway between the eyes, to the
    right and down. pose: what the coordinates follow. left, top: frame position of the window.
    """

    pixels: Field
    x: Field
    y: Field
    pose: Pose
    left: int = 0
    top: int = 0

    def turned(self) -> "Canvas":
        """The same pixels in the coordinates of the head: turning moves what stands out against what lies back."""
        depth = _depth(self.x, self.y)
        return replace(self, x=self.x - self.pose.turn * depth, y=self.y - self.pose.nod * depth)

    def near(self, x: float, y: float, half_width: float, half_height: float) -> "Canvas":
        """Window that holds the box around (x, y): a small shape costs its own area, not the frame's."""
        column, row = _frame_position(self.pose, x, y)
        tilt = abs(self.pose.roll)
        reach_x = self.pose.scale * (half_width + tilt * half_height) + 3.0
        reach_y = self.pose.scale * (half_height + tilt * half_width) + 3.0
        rows, columns = self.x.shape
        left, right = (min(max(int(side) - self.left, 0), columns) for side in (column - reach_x, column + reach_x))
        top, bottom = (min(max(int(side) - self.top, 0), rows) for side in (row - reach_y, row + reach_y))
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
        """Cover with a colour, or with a picture of shape (3, rows, columns)."""
        self.pixels[...] += opacity * (_channels(colour) - self.pixels)

    def multiply(self, factor: float | Colour, opacity: Field) -> None:
        """Darken or tint what is there: by the whole factor where opacity is 1."""
        self.pixels[...] *= 1.0 - opacity * (1.0 - _channels(factor))

    def glow(self, colour: Colour, strength: Field) -> None:
        """Add light of a colour."""
        self.pixels[...] += strength * _channels(colour)


def blank_frame(pose: Pose) -> Canvas:
    """An unpainted frame in coordinates that follow shift, scale and roll: right for neck and clothes."""
    height, width, channels = IMAGE_SHAPE
    cos, sin = (np.float32(f(pose.roll) / pose.scale) for f in (np.cos, np.sin))
    right = np.arange(width, dtype=np.float32) - np.float32(EYE_MIDPOINT[0] + pose.shift_x)
    down = np.arange(height, dtype=np.float32)[:, None] - np.float32(EYE_MIDPOINT[1] + pose.shift_y)
    pixels = np.zeros((channels, height, width), np.float32)
    return Canvas(pixels, right * cos + down * sin, down * cos - right * sin, pose)


def edge(distance: Field, softness: float = 1.0) -> Field:
    """Opacity of a shape: 0 outside, 1 inside, a ramp `softness` pixels wide between."""
    return np.clip(distance / softness + 0.5, 0.0, 1.0)


def stroke(distance: Field, half_width: float | Field, softness: float = 1.0) -> Field:
    """Opacity of a line along distance 0."""
    return edge(half_width - np.abs(distance), softness)


def ellipse(x: Field, y: Field, half_width: float | Field, half_height: float, squareness: float = 0.0) -> Field:
    """Distance to an ellipse around (0, 0); squareness 1 makes it a rectangle, below 0 a diamond."""
    across, down = (x / half_width) ** 2, (y / half_height) ** 2
    radius = np.sqrt(np.maximum(across + down - squareness * np.minimum(across, 1.0) * np.minimum(down, 1.0), 0.0))
    return (1.0 - radius) * np.minimum(half_width, half_height)


def bump(x: Field, y: Field, half_width: float, half_height: float) -> Field:
    """A Gaussian hill of height 1 around (0, 0)."""
    return np.exp(-((x / half_width) ** 2) - (y / half_height) ** 2)


def _channels(colour: float | Colour | Field) -> Field:
    channels = np.asarray(colour, np.float32)
    return channels[:, None, None] if channels.ndim == 1 else channels


def _depth(x: Any, y: Any) -> Any:
    """How far the head stands out towards the camera, 0 at the eyes; the skull recedes above them."""
    sideways = _FACE_DEPTH * np.minimum((x / _FACE_RADIUS) ** 2, 1.2)
    upwards = 20.0 * (np.minimum(y, 0.0) / 60.0) ** 2
    return _EYE_DEPTH - sideways - upwards


def _frame_position(pose: Pose, x: float, y: float) -> tuple[float, float]:
    """(column, row) of a point given in head coordinates; turned by less than a pixel from the exact inverse."""
    depth = float(_depth(np.float32(x), np.float32(y)))
    x, y = x + pose.turn * depth, y + pose.nod * depth
    column = EYE_MIDPOINT[0] + pose.shift_x + pose.scale * (x * np.cos(pose.roll) - y * np.sin(pose.roll))
    row = EYE_MIDPOINT[1] + pose.shift_y + pose.scale * (x * np.sin(pose.roll) + y * np.cos(pose.roll))
    return float(column), float(row)
