"""CelebA's lists: 40 attributes of each image, and the official partition; as .txt or .csv, whoever wrote them."""

from __future__ import annotations

import codecs
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np
import numpy.typing as npt

from vaehpc.command import UserError
from vaehpc.images.celeba import number_of
from vaehpc.images.places import File, kind_of
from vaehpc.schema.results import ATTRIBUTES

MAX_BYTES = 2**28
"""Of a list; CelebA's longest has 26 MB."""

UInt8 = npt.NDArray[np.uint8]
Bool = npt.NDArray[np.bool_]
Line = tuple[int, list[str]]
"""Its number and its cells."""


def read_attributes(file: File, numbers: Sequence[int], complete_to: float = math.inf) -> Bool:
    """Attributes (num_images, 40) of the images with these numbers, in the order of ATTRIBUTES.

    The list has a line with the 40 names in any order, and a line per image: its name and 40 values -1 or 1, or 0 or 1.
    Before the names there may be a line with the number of images.

    Args:
        file: the list.
        numbers: of the images, N of N.jpg.
        complete_to: of images with greater numbers the list may have lines although they are not there.

    Raises:
        UserError: the list is incomplete, of another form, or is not one of these images.
    """
    lines, announced = _announced(_lines(file))
    first, header = next(lines, (1, []))
    names = header[-len(ATTRIBUTES) :]
    if sorted(names) != sorted(ATTRIBUTES) or len(header) > len(ATTRIBUTES) + 1:
        odd = sorted(set(names) ^ set(ATTRIBUTES)) or ["a name twice"]
        raise UserError(
            f"{file}, line {first}: CelebA's 40 attribute names expected, found {_excerpt(header)}; they differ in"
            f" {odd[0]}"
        )
    rows = _rows(file, lines, len(ATTRIBUTES), ({"-1": 0, "1": 1}, {"0": 0, "1": 1}), announced)
    values = _matched(file, rows, numbers, complete_to)
    return values[:, [names.index(attribute) for attribute in ATTRIBUTES]].astype(np.bool_)


def read_partition(file: File, numbers: Sequence[int], complete_to: float = math.inf) -> UInt8:
    """CelebA's own split of these images, (num_images,): 0 training, 1 validation, 2 test.

    Args and errors: as `read_attributes`. A first line without a number of an image is a header.
    """
    lines, announced = _announced(_lines(file))
    every = (line for i, line in enumerate(lines) if i or number_of(line[1][0]) is not None)
    rows = _rows(file, every, 1, ({"0": 0, "1": 1, "2": 2},), announced)
    return _matched(file, rows, numbers, complete_to)[:, 0]


def _lines(file: File) -> Iterator[Line]:
    """The lines that are not blank."""
    content = file.read(MAX_BYTES)
    if not content.strip() or b"<html" in content[:1024].lower():
        raise UserError(f"{file}: {kind_of(content.strip())}.")
    is_utf16 = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    try:
        text = content.decode("utf-16" if is_utf16 else "utf-8-sig")
    except UnicodeDecodeError:
        raise UserError(f"{file} is not a text file, but {kind_of(content)}.") from None
    for number, line in enumerate(text.splitlines(), 1):
        if cells := line.replace('"', " ").replace(",", " ").replace(";", " ").split():
            yield number, cells


def _announced(lines: Iterator[Line]) -> tuple[Iterator[Line], int | None]:
    """The lines without a first one that is a number of images, and that number."""
    first = next(lines, (1, [""]))
    if len(first[1]) == 1 and first[1][0].isdecimal():
        return lines, int(first[1][0])
    return _chained(first, lines), None


def _chained(first: Line, others: Iterable[Line]) -> Iterator[Line]:
    yield first
    yield from others


def _rows(
    file: File, lines: Iterable[Line], num_values: int, codings: Sequence[Mapping[str, int]], announced: int | None
) -> dict[int, bytes]:
    """Values of each image's number, one byte per value; all lines are in one of the codings."""
    rows: dict[int, bytes] = {}
    possible = list(codings)
    for line, (name, *values) in lines:
        possible = [codes for codes in possible if codes.keys() >= set(values)]
        if len(values) != num_values or not possible:
            wanted = ", or ".join(" or ".join(codes) for codes in codings)
            expected = f"a file name and {num_values} value{'s' * (num_values > 1)} {wanted}"
            raise UserError(
                f"{file}, line {line}: {expected} expected, found {len(values)} in {_excerpt([name, *values])}"
            )
        if (number := number_of(name)) is None:
            raise UserError(f"{file}, line {line}: {_excerpt([name])} is not named like CelebA's images, 000001.jpg")
        if number in rows:
            raise UserError(f"{file}, line {line}: {name} is there a second time")
        rows[number] = bytes(possible[0][value] for value in values)
    if announced not in (None, len(rows)):
        raise UserError(
            f"{file}, line 1: announces {announced:,} images, {len(rows):,} follow: the file is incomplete."
            " Download it again."
        )
    return rows


def _matched(file: File, rows: Mapping[int, bytes], numbers: Sequence[int], complete_to: float) -> UInt8:
    """Values (num_images, num_values) of the images in their order; UserError unless rows and images are the same."""
    if without_row := [number for number in numbers if number not in rows]:
        raise UserError(
            f"{file} has no line for {len(without_row):,} of the {len(numbers):,} images; the first is"
            f" {without_row[0]:06d}.jpg"
        )
    if without_image := sorted(number for number in rows.keys() - set(numbers) if number <= complete_to):
        raise UserError(
            f"{file} lists {len(without_image):,} images that are not there; the first is {without_image[0]:06d}.jpg."
            " The images are incomplete, or the list is another set's. Take those that are there with --only-present,"
            " or the first with --first N."
        )
    return np.frombuffer(b"".join(rows[number] for number in numbers), np.uint8).reshape(len(numbers), -1)


def _excerpt(cells: Sequence[str]) -> str:
    line = " ".join(cells[:8])
    return repr(line if len(line) <= 40 and len(cells) <= 8 else line[:40] + "...")
