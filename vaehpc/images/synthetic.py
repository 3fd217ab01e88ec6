"""Built-in faces in exactly CelebA's format, so that one reader serves both."""

from __future__ import annotations

import io
import multiprocessing
import zipfile
from bisect import bisect_right
from collections import deque
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import closing
from itertools import accumulate, islice
from pathlib import Path

import numpy as np
from PIL import Image

from vaehpc.images.celeba import ARCHIVE, ATTRIBUTE_LIST, FOLDER, PARTITION_LIST, SYNTHETIC_COMMENT
from vaehpc.images.faces.attributes import attributes_of
from vaehpc.images.faces.drawing import draw_face
from vaehpc.images.faces.population import sample_face
from vaehpc.images.workers import end_with_parent, inherited_by_workers
from vaehpc.schema.results import ATTRIBUTES
from vaehpc.study.files import written_aside

MAX_IMAGES = 999_999
"""CelebA's names have six digits."""
JPEG_QUALITY = 92
CHUNK = 64
"""Faces that a worker draws at a time."""
CELEBA_PARTITION = (162_770, 19_867, 19_962)
"""CelebA's own training, validation and test images, in this order by name."""
Picture = tuple[bytes, tuple[bool, ...]]
"""A JPEG and its 40 attributes."""


def write_celeba(
    directory: Path,
    num_images: int,
    seed: int,
    workers: int,
    on_progress: Callable[[int], None] | None = None,
) -> Path:
    """Write img_align_celeba.zip, list_attr_celeba.txt and list_eval_partition.txt; a zip that exists has its lists.

    Face n is drawn from (seed, n) alone: it does not depend on how many are drawn, or by how many workers.

    Args:
        directory: is made if it does not exist.
        num_images: faces, 1 to 999,999.
        seed: another seed, other faces.
        workers: processes.
        on_progress: called with the number of faces drawn so far.

    Returns:
        The path of the zip.

    Raises:
        ValueError: num_images or workers out of range.
        UserError: the disk is full or the directory may not be written.
    """
    if not 1 <= num_images <= MAX_IMAGES:
        raise ValueError(f"num_images is {num_images}, must be 1 to {MAX_IMAGES:,}: CelebA's names have six digits")
    if workers < 1:
        raise ValueError(f"workers is {workers}, must be at least 1")
    directory.mkdir(parents=True, exist_ok=True)
    target = directory / ARCHIVE
    # The names appear from the last to the first: the zip when both lists are there.
    with (
        written_aside(target) as archive,
        written_aside(directory / f"{PARTITION_LIST}.txt") as partition,
        written_aside(directory / f"{ATTRIBUTE_LIST}.txt") as attributes,
    ):
        with closing(_pictures(num_images, seed, workers)) as pictures:
            _write_pictures(pictures, num_images, archive, attributes, on_progress)
        names = range(1, num_images + 1)
        partition.write_text("".join(f"{_name(n)} {partition_of(n, num_images)}\n" for n in names), encoding="ascii")
        target.unlink(missing_ok=True)  # a zip of other faces must not stand beside these lists
    return target


def partition_of(number: int, num_images: int) -> int:
    """0 training, 1 validation, 2 test: CelebA's shares, in the order of the names."""
    *ends, total = accumulate(CELEBA_PARTITION)
    return bisect_right(ends, (number - 1) * total // num_images)


def _name(number: int) -> str:
    return f"{number:06d}.jpg"


def _write_pictures(
    pictures: Iterator[Picture],
    num_images: int,
    archive: Path,
    attributes: Path,
    on_progress: Callable[[int], None] | None,
) -> None:
    """The zip and the attribute list, in one pass: neither is ever held in memory."""
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_STORED) as zipped, attributes.open("w", encoding="ascii") as lines:
        zipped.comment = SYNTHETIC_COMMENT
        lines.write(f"{num_images}\n{' '.join(ATTRIBUTES)} \n")
        for number, (jpeg, present) in enumerate(pictures, start=1):
            # ZipInfo's default date is fixed: the same faces make the same bytes.
            zipped.writestr(zipfile.ZipInfo(f"{FOLDER}/{_name(number)}"), jpeg)
            lines.write(f"{_name(number)} {' '.join(' 1' if value else '-1' for value in present)}\n")
            if on_progress is not None:
                on_progress(number)


def _pictures(num_images: int, seed: int, workers: int) -> Generator[Picture, None, None]:
    """The faces 1 ... num_images, in order."""
    starts = range(1, num_images + 1, CHUNK)
    chunks = iter([(seed, start, min(start + CHUNK, num_images + 1)) for start in starts])
    if workers == 1:
        for chunk in chunks:
            yield from _draw(*chunk)
        return
    # Not forked: a child of a process with threads, such as TensorFlow's, may hang.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(min(workers, len(starts)), mp_context=context, initializer=end_with_parent) as pool:
        # A few chunks ahead and no more: the memory must not grow with the number of images.
        with inherited_by_workers():
            ahead = deque(pool.submit(_draw, *chunk) for chunk in islice(chunks, 2 * workers))
        while ahead:
            drawn = ahead.popleft().result()
            ahead.extend(pool.submit(_draw, *chunk) for chunk in islice(chunks, 1))
            yield from drawn


def _draw(seed: int, start: int, stop: int) -> list[Picture]:
    return [_picture(seed, number) for number in range(start, stop)]


def _picture(seed: int, number: int) -> Picture:
    face = sample_face(np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(number,))))
    encoded = io.BytesIO()
    Image.fromarray(draw_face(face)).save(encoded, "JPEG", quality=JPEG_QUALITY)
    return encoded.getvalue(), tuple(attributes_of(face).values())
