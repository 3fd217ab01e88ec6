"""What is behind the person, and what the camera adds."""

import numpy as np
from PIL import Image, ImageFilter

from vaehpc.images.faces.canvas import Canvas, Field
from vaehpc.images.faces.traits import Face, Light, Scene


def draw_background(frame: Canvas, scene: Scene) -> None:
    """A gradient between two colours, with out-of-focus patches, bands and lamps."""
    rng = np.random.default_rng(scene.texture)
    rows, columns = frame.x.shape
    across = np.linspace(-0.5, 0.5, columns, dtype=np.float32)
    down = np.linspace(-0.5, 0.5, rows, dtype=np.float32)[:, None]
    ramp = 0.5 + 0.9 * (np.float32(np.cos(scene.angle)) * across + np.float32(np.sin(scene.angle)) * down)
    if scene.bands > 0.0:
        period = float(rng.uniform(0.12, 0.45))
        ramp = ramp + scene.bands * 0.35 * np.tanh(4.0 * np.sin(2.0 * np.pi * across / period + rng.uniform(0.0, 6.0)))
    ramp = np.clip(ramp, 0.0, 1.0)
    near, far = (np.array(colour, np.float32)[:, None, None] for colour in (scene.near_colour, scene.far_colour))
    frame.pixels[...] = near + ramp * (far - near) + _patches(rng, scene, rows, columns)
    for _ in range(scene.lamps):
        _draw_lamp(frame, rng)


def _patches(rng: np.random.Generator, scene: Scene, rows: int, columns: int) -> Field:
    """(3, rows, columns): smooth random colour differences of up to +-90."""
    coarse = rng.integers(0, 256, (scene.grain + 2, scene.grain + 1, 3), dtype=np.uint8)
    smooth = Image.fromarray(coarse).resize((columns, rows), Image.Resampling.BICUBIC)
    patches = np.asarray(smooth).transpose(2, 0, 1).astype(np.float32)
    return (patches - 127.5) * np.float32(0.7 * scene.unevenness)


def _draw_lamp(frame: Canvas, rng: np.random.Generator) -> None:
    """A disc of light out of focus."""
    rows, columns = frame.x.shape
    radius = int(rng.integers(5, 22))
    row, column = int(rng.integers(0, rows)), int(rng.integers(0, columns))
    window = (slice(max(row - radius, 0), row + radius), slice(max(column - radius, 0), column + radius))
    down = np.arange(rows, dtype=np.float32)[window[0], None] - row
    across = np.arange(columns, dtype=np.float32)[window[1]] - column
    disc = np.clip((radius - np.sqrt(across**2 + down**2)) / 2.5, 0.0, 1.0) * float(rng.uniform(0.15, 0.6))
    light = rng.uniform(130.0, 255.0, 3).astype(np.float32)[:, None, None]
    pixels = frame.pixels[:, window[0], window[1]]
    pixels += disc * (light - pixels)


def photograph(frame: Canvas, face: Face) -> np.ndarray:
    """(rows, columns, 3) uint8: exposure, colour of the light, sensor noise, blur."""
    rng = np.random.default_rng(face.scene.texture + 1)
    frame.pixels[...] *= _balance(face.light)
    frame.pixels[...] += face.scene.noise * rng.standard_normal(frame.x.shape, np.float32)
    picture = np.clip(frame.pixels, 0.0, 255.0).astype(np.uint8).transpose(1, 2, 0)
    if face.scene.blur < 0.3:
        return np.ascontiguousarray(picture)
    return np.asarray(Image.fromarray(np.ascontiguousarray(picture)).filter(ImageFilter.GaussianBlur(face.scene.blur)))


def _balance(light: Light) -> Field:
    """(3, 1, 1) factors on red, green and blue."""
    tint = np.array((1.0 + 0.06 * light.warmth, 1.0, 1.0 - 0.08 * light.warmth), np.float32)
    return (np.float32(light.exposure) * tint)[:, None, None]
