"""Built-in faces in exactly CelebA's format, so that one reader serves both."""

from __future__ import annotations

import io
import multiprocessing
import zipfile
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import TextIO

import numpy as np
from PIL import Image

from vaehpc.images.celeba import ATTRIBUTES, SYNTHETIC_COMMENT
from vaehpc.images.faces.attributes import attributes_of
from vaehpc.images.faces.drawing import draw_face
from vaehpc.images.faces.population import sample_face
from vaehpc.images.workers import end_with_parent, inherited_by_workers

MAX_IMAGES = 999_999
"""CelebA's names have six digits."""
JPEG_QUALITY = 92
CHUNK = 64
"""Faces that a worker draws at a time."""
CELEBA_PARTITION = (162_770, 19_867, 19_962)
"""CelebA's own training, validation and test images, in this order by name."""
Picture = tuple[bytes, list[bool]]


def write_celeba(
    directory: Path,
    num_images: int,
    seed: int,
    workers: int,
    on_progress: Callable[[int], None] | None = None,
) -> Path:
    """Write img_align_celeba.zip, list_attr_celeba.txt and list_eval_partition.txt; a zip that exists is whole.

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
    """
    if not 1 <= num_images <= MAX_IMAGES:
        raise ValueError(f"num_images is {num_images}, must be 1 to {MAX_IMAGES:,}: CelebA's names have six digits")
    if workers < 1:
        raise ValueError(f"workers is {workers}, must be at least 1")
    directory.mkdir(parents=True, exist_ok=True)
    target = directory / "img_align_celeba.zip"
    aside = target.with_suffix(".zip.tmp")
    with (
        _written_aside(directory / "list_attr_celeba.txt") as attributes,
        _written_aside(directory / "list_eval_partition.txt") as partition,
        zipfile.ZipFile(aside, "w", zipfile.ZIP_STORED) as archive,
    ):
        archive.comment = SYNTHETIC_COMMENT
        attributes.write(f"{num_images}\n{' '.join(ATTRIBUTES)} \n")
        for number, (jpeg, present) in enumerate(_pictures(num_images, seed, workers), start=1):
            name = f"{number:06d}.jpg"
            # ZipInfo's default date is fixed: the same faces make the same bytes.
            archive.writestr(zipfile.ZipInfo(f"img_align_celeba/{name}"), jpeg)
            attributes.write(f"{name} {' '.join(' 1' if value else '-1' for value in present)}\n")
            partition.write(f"{name} {partition_of(number, num_images)}\n")
            if on_progress is not None:
                on_progress(number)
    aside.replace(target)
    return target


def partition_of(number: int, num_images: int) -> int:
    """0 training, 1 validation, 2 test: CelebA's shares, in the order of the names."""
    position = (number - 1) * sum(CELEBA_PARTITION) // num_images
    return int(np.searchsorted(np.cumsum(CELEBA_PARTITION), position, side="right"))


@contextmanager
def _written_aside(path: Path) -> Iterator[TextIO]:
    """A text file that appears under its name when the block ends well, and leaves nothing otherwise."""
    aside = path.with_suffix(path.suffix + ".tmp")
    try:
        with aside.open("w", encoding="ascii") as file:
            yield file
        aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)


def _pictures(num_images: int, seed: int, workers: int) -> Iterator[Picture]:
    """JPEG and attributes of the faces 1 ... num_images, in order."""
    starts = iter(range(1, num_images + 1, CHUNK))
    chunks = ((seed, start, min(start + CHUNK, num_images + 1)) for start in starts)
    if workers == 1:
        for chunk in chunks:
            yield from _draw(*chunk)
        return
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=context, initializer=end_with_parent) as pool:
        # A few chunks ahead and no more: the memory must not grow with the number of images.
        with inherited_by_workers():
            ahead: list[Future[list[Picture]]] = [pool.submit(_draw, *chunk) for chunk in islice(chunks, 2 * workers)]
        while ahead:
            pictures = ahead.pop(0).result()
            ahead.extend(pool.submit(_draw, *chunk) for chunk in islice(chunks, 1))
            yield from pictures


def _draw(seed: int, start: int, stop: int) -> list[Picture]:
    pictures = []
    for number in range(start, stop):
        face = sample_face(np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(number,))))
        encoded = io.BytesIO()
        Image.fromarray(draw_face(face)).save(encoded, "JPEG", quality=JPEG_QUALITY)
        pictures.append((encoded.getvalue(), list(attributes_of(face).values())))
    return pictures
