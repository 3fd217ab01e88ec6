"""The lists beside CelebA's images: 40 attributes of each, and the official partition."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from vaehpc.command import UserError
from vaehpc.images.celeba import FaceImages
from vaehpc.schema.results import ATTRIBUTES

ATTRIBUTE_LIST = "list_attr_celeba.txt"
PARTITION_LIST = "list_eval_partition.txt"

UInt8 = npt.NDArray[np.uint8]
Bool = npt.NDArray[np.bool_]


def find_list(images: FaceImages, name: str, option: str) -> Path:
    """A list beside the images, up to two folders above them, or in CelebA's own Anno/ or Eval/ folder there.

    Raises:
        UserError: it is not there; names the option that can name it.
    """
    here = images.path.absolute()
    for folder in (here, *here.parents[:2]):
        for candidate in (folder / name, folder / "Anno" / name, folder / "Eval" / name):
            if candidate.is_file():
                return candidate
    raise UserError(f"{name} does not lie beside {images.path} or in the folder above; name it with {option} FILE")


def read_attributes(path: Path, names: Sequence[str]) -> Bool:
    """Attributes (num_images, 40) of these images, in the order of ATTRIBUTES.

    The list has a line with the number of images, a line with the 40 names in any order, and a line per image: its
    file name and 40 values -1 or 1.

    Raises:
        UserError: the list is missing, incomplete, of another form, or is not one of exactly these images.
    """
    lines = _read_lines(path)
    if len(lines) < 2 or not lines[0].strip().isdecimal():
        found = _excerpt(lines[0]) if lines else "an empty file"
        raise UserError(f"{path}, line 1: the number of images expected, found {found}")
    header = lines[1].split()
    if sorted(header) != sorted(ATTRIBUTES):
        odd = sorted(set(header) ^ set(ATTRIBUTES)) or ["a name twice"]
        raise UserError(
            f"{path}, line 2: CelebA's 40 attribute names expected, found {len(header)}; they differ in {odd[0]}"
        )
    if int(lines[0]) != len(lines) - 2:
        raise UserError(
            f"{path}, line 1: announces {int(lines[0]):,} images, {len(lines) - 2:,} follow: the file is incomplete."
            " Download it again."
        )
    rows = _rows(path, lines[2:], first_line=3, num_values=len(ATTRIBUTES), codes={"-1": 0, "1": 1})
    values = _matched(path, rows, names)
    return values[:, [header.index(attribute) for attribute in ATTRIBUTES]].astype(np.bool_)


def read_partition(path: Path, names: Sequence[str]) -> UInt8:
    """CelebA's own split of these images, (num_images,): 0 training, 1 validation, 2 test.

    Raises:
        UserError: the list is missing, of another form, or is not one of exactly these images.
    """
    rows = _rows(path, _read_lines(path), first_line=1, num_values=1, codes={"0": 0, "1": 1, "2": 2})
    return _matched(path, rows, names)[:, 0]


def _read_lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8").rstrip().splitlines()
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise UserError(f"{path} is not a text file") from None


def _rows(
    path: Path, lines: Sequence[str], first_line: int, num_values: int, codes: Mapping[str, int]
) -> dict[str, bytes]:
    """Values of each file name, one byte per value."""
    rows: dict[str, bytes] = {}
    for number, line in enumerate(lines, first_line):
        name, *values = line.split() or [""]
        if len(values) != num_values or not codes.keys() >= set(values):
            expected = f"a file name and {num_values} value{'s' * (num_values > 1)} {' or '.join(codes)}"
            raise UserError(f"{path}, line {number}: {expected} expected, found {len(values)} in {_excerpt(line)}")
        if name in rows:
            raise UserError(f"{path}, line {number}: {name} is there a second time")
        rows[name] = bytes(codes[value] for value in values)
    return rows


def _matched(path: Path, rows: Mapping[str, bytes], names: Sequence[str]) -> UInt8:
    """Values (num_images, num_values) of the images in their order; UserError unless rows and images are the same."""
    if without_row := [name for name in names if name not in rows]:
        raise UserError(
            f"{path} has no line for {len(without_row):,} of the {len(names):,} images; the first is {without_row[0]}"
        )
    if without_image := sorted(rows.keys() - set(names)):
        raise UserError(
            f"{path} lists {len(without_image):,} images that are not there; the first is {without_image[0]}."
            " The images are incomplete, or the list is another set's."
        )
    return np.frombuffer(b"".join(rows[name] for name in names), np.uint8).reshape(len(names), -1)


def _excerpt(line: str) -> str:
    return repr(line if len(line) <= 40 else line[:40] + "...")
