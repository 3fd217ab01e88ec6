"""CelebA's aligned images as people have them: known by their names, numbers, and their 178 x 218 pixels.

In folders or archives, once or several times, with the lists of annotations in them, beside them or nowhere.
"""

from __future__ import annotations

import posixpath
import re
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from vaehpc.command import UserError
from vaehpc.images.photographs import Images, UInt8, distinct, require_size, strict_jpeg
from vaehpc.images.places import File, Place, Zip, file_at, kind_of, places_at, tally

IMAGE_SHAPE = (218, 178, 3)
"""(height, width, channels) of an aligned CelebA JPEG."""
CROP = 178
"""Side of the centre crop: the whole width of an aligned image, rows 20 to 197."""
NUM_IMAGES = 202_599
ARTICLE_NUM_TRAIN = 170_000

ARCHIVE = "img_align_celeba.zip"
FOLDER = "img_align_celeba"
ATTRIBUTE_LIST = "list_attr_celeba"
PARTITION_LIST = "list_eval_partition"

SYNTHETIC_COMMENT = b"vaehpc built-in faces"
"""Zip comment of an archive that the built-in generator wrote."""

START_OF_FRAME = bytes(marker for marker in range(0xC0, 0xD0) if marker not in (0xC4, 0xC8, 0xCC))
"""Markers of a JPEG's segment that holds height and width (ITU-T T.81, table B.1)."""

EXPECTED = (
    f"expected are CelebA's 000001.jpg ... as in the 1.34 GiB of {ARCHIVE}, its unpacked folder, or the folder around"
    " them"
)
ANY_IMAGES = "; --images PATH takes any photographs, without attributes"


@dataclass(frozen=True)
class CelebA:
    """The images, and where their lists are looked for."""

    images: Images
    synthetic: bool
    """Whether the built-in generator drew them."""
    places: Sequence[Place]

    def find_list(self, name: str) -> File | None:
        """A list, NAME.txt or NAME.csv: among the images, beside them, up to two folders above, or in a zip beside.

        Beside a link is also beside what it leads to; CelebA's own Anno/ and Eval/ count as the folder around them.
        """
        inside = (file for place in self.places for file in place.files)
        beside = (file for folder in self._folders() for file in _files_in(folder))
        zipped = (file for place in self._zips_beside() for file in place.files)
        for files in (inside, beside, zipped):
            if found := [file for file in files if _is_list(file, name)]:
                return min(found, key=lambda file: len(file.name))  # not 'list_attr_celeba (1).txt'
        return None

    def _folders(self) -> list[Path]:
        path = self.images.path
        above = [folder for here in (path.absolute(), path.resolve()) for folder in here.parents[:2]]
        return [Path(folder, sub) for folder in dict.fromkeys(above) for sub in ("", "Anno", "Eval")]

    def _zips_beside(self) -> list[Place]:
        found = list[Place]()
        for file in _files_in(self.images.path.absolute().parent):
            if file.suffix == ".zip":
                try:
                    found.append(Zip(file.place.path / file.member))
                except UserError:  # of no concern
                    continue
        return found


def open_celeba(path: Path) -> CelebA:
    """CelebA's images in a folder or an archive of any name, also in archives in it.

    Raises:
        UserError: there is no such thing, or it does not hold them; says what was found instead.
    """
    try:
        places, failures = places_at(path)
    except UserError as error:
        raise _with_expected(error) from None
    faces = [file for place in places for file in place.files if _number(file) is not None]
    if not faces:
        raise _nothing_found(path, places, failures)
    files = distinct(_aligned(faces), _known_number)
    used = {file.place for file in files}
    synthetic = any(isinstance(place, Zip) and place.comment == SYNTHETIC_COMMENT for place in used)
    images = Images(
        path=path,
        name="built-in faces (synthetic)" if synthetic else "CelebA",
        files=files,
        numbers=np.array([_known_number(file) for file in files], np.int32),
        decode=face,
    )
    return CelebA(images, synthetic, places)


def face(file: File) -> UInt8:
    """Pixels (218, 178, 3) of one image; UserError where it is damaged or, by its header, of another size."""
    content = file.read()
    width, height = _pixels(file, content)
    if (height, width) != IMAGE_SHAPE[:2]:
        require_size(file, width, height)
        raise UserError(
            f"{file}: {width} x {height} pixels found, 178 x 218 expected. These are not the aligned images: take"
            f" {FOLDER}, not img_celeba{ANY_IMAGES}."
        )
    return strict_jpeg(file, content)


def default_num_train(num_images: int) -> int:
    """The article's 170,000 where there are more images than that, else the same share of CelebA's 202,599."""
    if num_images > ARTICLE_NUM_TRAIN:
        return ARTICLE_NUM_TRAIN
    return num_images * ARTICLE_NUM_TRAIN // NUM_IMAGES


def number_of(name: str) -> int | None:
    """N of N.jpg or N, however many zeros it begins with; None of any other name."""
    found = re.fullmatch(r"0*([0-9]{1,9})(\.\w+)?", posixpath.basename(name.replace("\\", "/")))
    return int(found[1]) if found else None


def _number(file: File) -> int | None:
    return number_of(file.name) if file.suffix in (".jpg", ".jpeg") else None


def _known_number(file: File) -> int:
    number = number_of(file.name)
    assert number is not None
    return number


def _aligned(faces: Sequence[File]) -> list[File]:
    """Of several folders those that hold aligned images, known by their first one; of one folder, all."""
    folders = dict[tuple[Place, str], list[File]]()
    for file in faces:
        folders.setdefault((file.place, posixpath.dirname(file.name)), []).append(file)
    if len(folders) == 1:
        return list(faces)
    sizes = {where: _pixels(files[0], files[0].read()) for where, files in folders.items()}
    aligned = [file for where, files in folders.items() if sizes[where] == IMAGE_SHAPE[1::-1] for file in files]
    if not aligned:
        found = ", ".join(f"{width} x {height} of {folders[where][0]}" for where, (width, height) in sizes.items())
        raise UserError(f"no images of 178 x 218 pixels: {found}{ANY_IMAGES}")
    return aligned


def _pixels(file: File, content: bytes) -> tuple[int, int]:
    """(width, height) by the header; read here, because a login node plans and submits without a decoder."""
    position = 2 if content.startswith(b"\xff\xd8") else len(content)
    while content[position : position + 1] == b"\xff":
        marker, length = content[position + 1 : position + 2], int.from_bytes(content[position + 2 : position + 4])
        if marker and marker in START_OF_FRAME:
            height, width = struct.unpack_from(">HH", content.ljust(position + 9, b"\0"), position + 5)
            return width, height
        position += 1 if marker == b"\xff" else 2 + length  # 0xff may be repeated before a marker
    what = "damaged JPEG (no header)" if content.startswith(b"\xff\xd8") else f"no JPEG, but {kind_of(content)}"
    raise UserError(f"{file}: {what}. Restore this file from the original archive.")


def _nothing_found(path: Path, places: Sequence[Place], failures: Sequence[UserError]) -> UserError:
    """Why there are no images, as far as can be seen."""
    files = [file for place in places for file in place.files if file.suffix not in (".zip", ".txt", ".csv")]
    pictures = [file for file in files if file.suffix in (".jpg", ".jpeg")]
    if any(file.name == "manifest.json" for file in files):
        return UserError(f"{path} is a data set that was prepared: launch with --data {path}")
    if failures and not files:
        return _with_expected(failures[0])
    if pictures:
        odd = f"{pictures[0].member} is not named like CelebA's images, 000001.jpg ..."
        return UserError(f"{path}: {tally(pictures)}, but {odd}{ANY_IMAGES}")
    found = tally(files or (file for place in places for file in place.files))
    return UserError(f"{path}: {found}, no .jpg; {EXPECTED}{ANY_IMAGES * bool(files)}")


def _with_expected(error: UserError) -> UserError:
    return UserError(f"{str(error).rstrip('.')}; {EXPECTED}")


def _is_list(file: File, name: str) -> bool:
    return file.suffix in (".txt", ".csv") and posixpath.basename(file.name).lower().startswith(name)


def _files_in(folder: Path) -> list[File]:
    """The files of a folder itself; none of one that is not there or may not be read."""
    try:
        return [file_at(path) for path in sorted(folder.iterdir()) if path.is_file()]
    except OSError:
        return []
