"""Photographs of any folder or archive: JPEG, PNG and WebP, of any sizes, in the order of their names."""

from __future__ import annotations

import hashlib
import io
import re
import struct
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from vaehpc.command import UserError
from vaehpc.images.places import File, kind_of, places_at, tally

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp")
MAX_PIXELS = 2**27
"""Of one image: decoded it takes 0.4 GB, as a PNG for a moment 0.9 GB."""

UInt8 = npt.NDArray[np.uint8]
Key = TypeVar("Key", str, int)
Decoder = Callable[[File], UInt8]
"""Pixels (height, width, 3) of a file; UserError, by its header alone, where it has others than are wanted."""


@dataclass(frozen=True)
class Images:
    """Images in their order, and how they are read."""

    path: Path
    """What was asked for."""
    name: str
    """Of the data set."""
    files: Sequence[File]
    numbers: npt.NDArray[np.int32]
    """By which reports name them, (num_images,)."""
    decode: Decoder

    def sha256(self) -> str:
        """Identity of the images without reading them: hash of their names, sizes and (in a zip) checksums."""
        return hashlib.sha256("\n".join(self._fingerprints()).encode("utf-8", "surrogateescape")).hexdigest()

    def _fingerprints(self) -> Iterator[str]:
        for file in self.files:
            yield f"{file.name.rpartition('/')[2]} {file.size} {file.checksum}".rstrip()


def open_photographs(path: Path) -> Images:
    """Every photograph below a folder or in an archive; of archives in a folder only where it has none itself.

    Raises:
        UserError: there is no such thing, or it has no photographs; says what was found instead.
    """
    places, failures = places_at(path)
    files = _photographs(places[0].files) or _photographs(file for place in places[1:] for file in place.files)
    if not files:
        if failures:
            raise failures[0]
        found = tally(file for place in places for file in place.files)
        raise UserError(f"--images {path}: {found}, and no .jpg, .png or .webp file")
    return Images(
        path=path,
        name=re.sub(r"[^\w .()-]", "_", path.absolute().name.removesuffix(".zip")) or "images",
        files=files,
        numbers=np.arange(1, len(files) + 1, dtype=np.int32),
        decode=photograph,
    )


def _photographs(files: Iterable[File]) -> list[File]:
    """Sorted by name; UserError where two have one name, but not one content."""
    return distinct([file for file in files if file.suffix in SUFFIXES], lambda file: file.name)


def distinct(files: Iterable[File], key: Callable[[File], Key]) -> list[File]:
    """One file of each key, in the order of the keys; UserError where two of a key cannot be the same."""
    first: dict[Key, File] = {}
    for file in files:
        other = first.setdefault(key(file), file)
        if other.size != file.size or (other.checksum and file.checksum and other.checksum != file.checksum):
            raise UserError(
                f"{other} ({other.size:,} bytes) and {file} ({file.size:,} bytes) have one name, but differ:"
                " give the path of those that are meant"
            )
    return [first[each] for each in sorted(first)]


def photograph(file: File) -> UInt8:
    """Pixels (height, width, 3) of a JPEG, PNG or WebP, turned as its camera was held; of several frames the first.

    Raises:
        UserError: it is damaged, something else, or too large.
    """
    from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError  # where images are decoded, as all that follows

    Image.MAX_IMAGE_PIXELS = None  # it is limited here, by a text that says the size
    content = file.read()
    try:
        with Image.open(io.BytesIO(content), formats=("JPEG", "PNG", "WEBP")) as opened:
            require_size(file, *opened.size)
            if opened.mode.startswith(("I", "F")):
                raise UserError(f"{file}: {opened.mode} pixels, where 8 bits a channel are expected")
            if opened.get_format_mimetype() == "image/jpeg" and opened.mode in ("L", "RGB"):
                pixels = strict_jpeg(file, content)
            elif opened.mode == "RGB":
                pixels = np.asarray(opened)
            else:
                pixels = np.asarray(opened.convert("RGBA" if "transparency" in opened.info else "RGB").convert("RGB"))
            if opened.getexif().get(ExifTags.Base.Orientation, 1) == 1:
                return pixels
            turned = Image.fromarray(pixels)
            turned.info = opened.info
            return np.asarray(ImageOps.exif_transpose(turned))
    except UnidentifiedImageError:
        raise UserError(f"{file}: no JPEG, PNG or WebP, but {kind_of(content)}") from None
    except (OSError, SyntaxError, ValueError, LookupError, TypeError, EOFError, struct.error) as error:
        raise UserError(f"{file}: damaged ({error}). Restore this file from the original.") from None


def strict_jpeg(file: File, content: bytes) -> UInt8:
    """Pixels (height, width, 3) of a whole JPEG; UserError where Pillow and TensorFlow would fill in grey and go on."""
    import simplejpeg

    try:
        pixels: UInt8 = simplejpeg.decode_jpeg(content, colorspace="RGB", strict=True)
    except ValueError as error:
        raise UserError(f"{file}: damaged JPEG ({error}). Restore this file from the original archive.") from None
    return pixels


def require_size(file: File, width: int, height: int) -> None:
    """UserError where an image, by its header, has too many pixels to be decoded."""
    if width * height > MAX_PIXELS:
        raise UserError(f"{file}: {width:,} x {height:,} pixels, more than the {MAX_PIXELS:,} that are decoded")
