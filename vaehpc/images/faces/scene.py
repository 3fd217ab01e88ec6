"""What is behind the person, and what the camera adds."""

import math

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from vaehpc.images.faces.canvas import Canvas, Field, channels
from vaehpc.images.faces.traits import Face, Light, Scene


def draw_background(frame: Canvas, scene: Scene) -> None:
    """A gradient between two colours, with out-of-focus patches, bands and lamps."""
    rng = np.random.default_rng(scene.texture)
    rows, columns = frame.x.shape
    coarse = _coarse_background(rng, scene)
    np.matmul(
        _interpolation(rows, coarse.shape[1]) @ coarse, _interpolation(columns, coarse.shape[2]).T, out=frame.pixels
    )
    if scene.bands > 0.0:
        _draw_bands(frame, rng, scene)
    for _ in range(scene.lamps):
        _draw_lamp(frame, rng)


def _coarse_background(rng: np.random.Generator, scene: Scene) -> Field:
    """(3, rows, columns) of a few points: the gradient, and differences more of brightness than of colour."""
    rows, columns = scene.grain + 2, scene.grain + 1
    down, across = np.linspace(-0.5, 0.5, rows)[:, None], np.linspace(-0.5, 0.5, columns)
    ramp = np.clip(0.5 + 0.9 * (math.cos(scene.angle) * across + math.sin(scene.angle) * down), 0.0, 1.0)
    near, far = channels(scene.near_colour), channels(scene.far_colour)
    patches = rng.uniform(-90.0, 90.0, (1, rows, columns)) + rng.uniform(-36.0, 36.0, (3, rows, columns))
    coarse: Field = (near + ramp * (far - near) + scene.unevenness * patches).astype(np.float32)
    return coarse


def _interpolation(length: int, num_points: int) -> Field:
    """(length, num_points) weights that join values at equal distances by a smooth curve."""
    position = np.linspace(0.0, num_points - 1.0, length, dtype=np.float32)[:, None]
    weights: Field = np.exp(-1.5 * (position - np.arange(num_points, dtype=np.float32)) ** 2)
    weights /= weights.sum(axis=1, keepdims=True)
    return weights


def _draw_bands(frame: Canvas, rng: np.random.Generator, scene: Scene) -> None:
    """Soft vertical stripes, as of a curtain or a wall of boards."""
    across = np.linspace(0.0, 1.0, frame.x.shape[1], dtype=np.float32)
    period, phase = rng.uniform(0.12, 0.45), rng.uniform(0.0, 6.0)
    stripes = 45.0 * scene.bands * np.tanh(4.0 * np.sin((2.0 * np.pi / period) * across + phase))
    frame.pixels[...] += stripes


def _draw_lamp(frame: Canvas, rng: np.random.Generator) -> None:
    """A disc of light out of focus."""
    rows, columns = frame.x.shape
    radius = int(rng.integers(5, 22))
    row, column = int(rng.integers(0, rows)), int(rng.integers(0, columns))
    window = (slice(max(row - radius, 0), row + radius), slice(max(column - radius, 0), column + radius))
    down = np.arange(rows, dtype=np.float32)[window[0], None] - row
    across = np.arange(columns, dtype=np.float32)[window[1]] - column
    disc = np.clip((radius - np.sqrt(across**2 + down**2)) / 2.5, 0.0, 1.0) * rng.uniform(0.15, 0.6)
    light = channels(rng.uniform(130.0, 255.0, 3))
    pixels = frame.pixels[:, window[0], window[1]]
    pixels += disc * (light - pixels)


def photograph(frame: Canvas, face: Face) -> NDArray[np.uint8]:
    """(rows, columns, 3) uint8: exposure and colour of the light, noise of the sensor, blur of the lens."""
    rng = np.random.default_rng(face.scene.texture + 1)
    pixels = frame.pixels
    pixels *= _balance(face.light)
    # Equally distributed noise: ten times as fast as normal, and no eye tells them apart.
    grain = np.frombuffer(rng.bytes(frame.x.size), np.uint8).reshape(frame.x.shape).astype(np.float32)
    pixels += (grain - 127.5) * (face.scene.noise * math.sqrt(12.0) / 256.0)
    np.clip(pixels, 0.0, 255.0, out=pixels)
    picture = np.empty((*frame.x.shape, len(pixels)), np.uint8)
    for channel, values in enumerate(pixels.astype(np.uint8)):  # several times as fast as a transposed copy
        picture[..., channel] = values
    if face.scene.blur == 0.0:
        return picture
    return np.asarray(Image.fromarray(picture).filter(ImageFilter.GaussianBlur(face.scene.blur)))


def _balance(light: Light) -> Field:
    """(3, 1, 1) factors on red, green and blue."""
    exposure, warmth = light.exposure, light.warmth
    return channels((exposure * (1.0 + 0.06 * warmth), exposure, exposure * (1.0 - 0.08 * warmth)))
