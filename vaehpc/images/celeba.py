"""CelebA's aligned images as people have them: in a zip or in an unpacked folder.

They are read straight from where they lie; nothing is unpacked to disk. Every UserError names the file and the record.
"""

from __future__ import annotations

import abc
import hashlib
import re
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from vaehpc.command import UserError
from vaehpc.study.files import gigabytes

IMAGE_SHAPE = (218, 178, 3)
"""(height, width, channels) of an aligned CelebA JPEG."""

ARCHIVE = "img_align_celeba.zip"
FOLDER = "img_align_celeba"

SYNTHETIC_COMMENT = b"vaehpc built-in faces"
"""Zip comment of an archive that the built-in generator wrote."""

UInt8 = npt.NDArray[np.uint8]


class FaceImages(abc.ABC):
    """Aligned faces by file name."""

    path: Path
    """The zip or the folder."""
    names: tuple[str, ...]
    """000001.jpg, 000002.jpg ... in the order of the names."""
    synthetic: bool
    """Whether the built-in generator drew them."""

    @abc.abstractmethod
    def jpeg(self, name: str) -> bytes:
        """The JPEG as it is stored; UserError where it cannot be read."""

    @abc.abstractmethod
    def fingerprints(self) -> Iterator[str]:
        """One line per image that changes with the image and is quick to get."""

    def image(self, name: str) -> UInt8:
        """Pixels (218, 178, 3) of one image.

        Raises:
            UserError: the file is damaged (Pillow and TensorFlow would fill in grey and go on) or of another size.
        """
        import simplejpeg  # where images are decoded; a login node plans and submits without it

        try:
            pixels: UInt8 = simplejpeg.decode_jpeg(self.jpeg(name), colorspace="RGB", strict=True)
        except ValueError as error:
            raise UserError(
                f"{self.path}, {name}: damaged JPEG ({error}). Restore this file from the original archive."
            ) from None
        if pixels.shape != IMAGE_SHAPE:
            raise UserError(
                f"{self.path}, {name}: {pixels.shape[1]} x {pixels.shape[0]} pixels found, 178 x 218 expected."
                " These are not the aligned images: take img_align_celeba, not img_celeba."
            )
        return pixels

    def numbers(self) -> npt.NDArray[np.int32]:
        """N of each file name N.jpg, (num_images,)."""
        stems = [name.rpartition(".")[0] for name in self.names]
        for name, stem in zip(self.names, stems, strict=True):
            if not re.fullmatch("[0-9]{1,9}", stem):
                raise UserError(f"{self.path}, {name}: not named like CelebA's images, 000001.jpg ...")
        return np.array([int(stem) for stem in stems], np.int32)

    def sha256(self) -> str:
        """Identity of the images without reading them: hash of the names, sizes and (in a zip) checksums."""
        return hashlib.sha256("\n".join(self.fingerprints()).encode()).hexdigest()


class ZippedImages(FaceImages):
    """The images of img_align_celeba.zip, wherever they lie in it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._archive = _opened_zip(path)
        members = [(member.filename.rpartition("/")[2], member) for member in self._archive.infolist()]
        images = [(name, member) for name, member in members if _is_image(name)]
        _require_distinct(path, [name for name, _ in images])
        self._members = dict(images)
        self.names = tuple(sorted(self._members))
        self.synthetic = self._archive.comment == SYNTHETIC_COMMENT

    def jpeg(self, name: str) -> bytes:
        """The JPEG as it is stored."""
        try:
            return self._archive.read(self._members[name])
        # RuntimeError: encrypted, or packed by a method that Python does not know.
        except (zipfile.BadZipFile, zlib.error, EOFError, OSError, RuntimeError) as error:
            raise UserError(
                f"{self.path}, {name}: cannot be unpacked ({error}). The archive is damaged: download it again."
            ) from None

    def fingerprints(self) -> Iterator[str]:
        """Name, size and CRC-32 of each image."""
        for name in self.names:
            yield f"{name} {self._members[name].file_size} {self._members[name].CRC:08x}"


class UnpackedImages(FaceImages):
    """The images of an unpacked folder."""

    synthetic = False

    def __init__(self, path: Path) -> None:
        self.path = path
        self.names = tuple(sorted(entry.name for entry in path.iterdir() if _is_image(entry.name)))

    def jpeg(self, name: str) -> bytes:
        """The JPEG as it is stored."""
        try:
            return (self.path / name).read_bytes()
        except OSError as error:
            raise UserError(f"{self.path / name} cannot be read: {error.strerror}") from None

    def fingerprints(self) -> Iterator[str]:
        """Name and size of each image."""
        for name in self.names:
            yield f"{name} {(self.path / name).stat().st_size}"


def open_images(path: Path) -> FaceImages:
    """The images of a zip, of an unpacked folder, or of a folder that holds either.

    Raises:
        UserError: there is no such thing, it is not a zip, or it has no images; says what was found instead.
    """
    found = _find_images(path)
    try:
        images = UnpackedImages(found) if found.is_dir() else ZippedImages(found)
    except OSError as error:
        raise UserError(f"{found} cannot be read: {error.strerror}") from None
    if not images.names:
        raise UserError(f"{found} holds no .jpg file; expected are CelebA's 000001.jpg ... as in {ARCHIVE}")
    return images


def _find_images(path: Path) -> Path:
    if not path.exists():
        raise UserError(f"{path} does not exist; expected is {ARCHIVE}, its unpacked folder, or the folder around them")
    if path.is_file():
        return path
    # As unpacked by hand, by Kaggle's tools (a folder twice), and as CelebA's own drive is laid out.
    for folder in (path, path / FOLDER, path / FOLDER / FOLDER, path / "Img" / FOLDER):
        if folder.is_dir() and any(_is_image(entry.name) for entry in folder.iterdir()):
            return folder
    for archive in (path / ARCHIVE, path / "Img" / ARCHIVE):
        if archive.is_file():
            return archive
    raise UserError(f"{path} holds neither .jpg files nor {ARCHIVE}, also not in {FOLDER}/ or Img/")


def _is_image(name: str) -> bool:
    """Whether a file is a JPEG, and none of the ._000001.jpg that macOS puts into __MACOSX or beside the images."""
    return name.lower().endswith((".jpg", ".jpeg")) and not name.startswith("._")


def _require_distinct(path: Path, names: Sequence[str]) -> None:
    name, times = max(Counter(names).items(), key=lambda counted: counted[1], default=("", 0))
    if times > 1:
        raise UserError(f"{path} holds {name} {times} times; expected is each image once, as in CelebA's {ARCHIVE}")


def _opened_zip(path: Path) -> zipfile.ZipFile:
    try:
        return zipfile.ZipFile(path)
    # The latter two: a flipped bit in the version or the encoding of an entry.
    except (zipfile.BadZipFile, NotImplementedError, UnicodeDecodeError) as error:
        size = gigabytes(path.stat().st_size)
        with path.open("rb") as file:
            beginning = file.read(1024).lower()
        if b"<html" in beginning or b"<!doctype" in beginning:
            found = f"{size} web page, not the 1.34 GiB archive: the server answered with a page instead"
        elif beginning.startswith(b"pk\x03\x04"):
            found = f"{size} of a zip archive that is incomplete or damaged ({error}); the whole one has 1.34 GiB"
        else:
            found = f"{size} that are not a zip archive; the 1.34 GiB {ARCHIVE} or its unpacked folder is expected"
        raise UserError(f"{path}: {found}. Download it again.") from None
