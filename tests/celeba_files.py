"""Small CelebA-format files."""

import zipfile
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import simplejpeg

from vaehpc.schema.results import ATTRIBUTES


def name(number: int) -> str:
    return f"{number:06d}.jpg"


def jpeg(number: int, height: int = 218, width: int = 178) -> bytes:
    """Coloured tiles that only this number has."""
    tiles = np.random.default_rng(number).integers(0, 256, (14, 12, 3), dtype=np.uint8)
    pixels = tiles.repeat(16, axis=0).repeat(16, axis=1)[:height, :width]
    return simplejpeg.encode_jpeg(np.ascontiguousarray(pixels), quality=90)


def damaged_jpeg(number: int) -> bytes:
    """Zeros in the entropy-coded part, which tolerant decoders turn into grey tiles."""
    whole = jpeg(number)
    middle = len(whole) // 2
    return whole[:middle] + bytes(60) + whole[middle + 60 :]


def attribute_values(numbers: Sequence[int]) -> npt.NDArray[np.int64]:
    """-1 or 1, (num_images, 40): the binary digits of the image number, the last one first."""
    return np.array([[1 if number >> bit & 1 else -1 for bit in range(40)] for number in numbers])


def attribute_list(numbers: Sequence[int]) -> str:
    rows = [
        f"{name(number)}  {' '.join(f'{value:2d}' for value in values)}"
        for number, values in zip(numbers, attribute_values(numbers), strict=True)
    ]
    return "\n".join([str(len(numbers)), " ".join(ATTRIBUTES) + " ", *rows]) + "\n"


def write_zip(path: Path, entries: Iterable[tuple[str, bytes]], comment: bytes = b"") -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        archive.comment = comment
        for entry, content in entries:
            archive.writestr(entry, content)
    return path


def write_celeba(folder: Path, num_images: int) -> Path:
    """An archive with all its lists: every third image is CelebA's test split, every tenth its validation split."""
    folder.mkdir(exist_ok=True)
    numbers = range(1, num_images + 1)
    (folder / "list_attr_celeba.txt").write_text(attribute_list(numbers))
    codes = {number: 2 if number % 3 == 0 else 1 if number % 10 == 0 else 0 for number in numbers}
    partition = "".join(f"{name(number)} {code}\n" for number, code in codes.items())
    (folder / "list_eval_partition.txt").write_text(partition)
    entries = ((f"img_align_celeba/{name(number)}", jpeg(number)) for number in numbers)
    return write_zip(folder / "img_align_celeba.zip", entries)


def write_folder(folder: Path, numbers: Iterable[int]) -> Path:
    folder.mkdir(parents=True)
    for number in numbers:
        (folder / name(number)).write_bytes(jpeg(number))
    return folder
