"""Make a data set: CelebA's JPEGs in; TFRecord shards, sidecars and a manifest out.

Worker processes make one shard at a time. A shard appears by rename and is finished when its record lies in `.prepare`;
a second start makes only what is missing, so the set is the same to the bit however often it was interrupted.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Sequence
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field, NonNegativeInt, PositiveInt

from vaehpc.command import UserError, WorkerKilledError, explained
from vaehpc.images import preprocess
from vaehpc.images.annotations import ATTRIBUTE_LIST, PARTITION_LIST, find_list, read_attributes, read_partition
from vaehpc.images.celeba import FaceImages, open_images
from vaehpc.images.entropy import entropy_floor
from vaehpc.images.splits import (
    ARTICLE_SPLITS,
    OFFICIAL_SPLITS,
    ShardImages,
    article_codes,
    default_num_train,
    split_shards,
)
from vaehpc.schema.frozen import Frozen
from vaehpc.schema.results import Manifest, Preprocessing, Split
from vaehpc.study.files import DataDir, read_model, require_space, sha256_of_file, write_array, write_model
from vaehpc.tasks.data_folder import Settings, checked_manifest, claim, remove_unfinished, require_own_folder
from vaehpc.tasks.shards import ShardJob, ShardRecord, make_shards

OnProgress = Callable[[str, int, int], None]
"""Called with what is being done, how many images are done, and how many there are."""

MAX_SIZE = preprocess.CROP - preprocess.CROP % 16

# For the estimate of the space needed.
BYTES_AROUND_IMAGE = 200
BYTES_OF_DRAWN_FACE = 12_000


class Request(Frozen):
    """A data set as it is asked for: give either --celeba or --synthetic."""

    celeba: Path | None = None
    """img_align_celeba.zip, its unpacked folder, or the folder around them; nothing is unpacked to disk."""
    synthetic: Annotated[int, Field(gt=0, le=999_999)] | None = None
    """Draw this many built-in faces instead, 999,999 at most."""
    size: int = 96
    """Side of the square images in pixels: a multiple of 16 (the net halves it four times), 176 at most."""
    split: Literal["article", "official"] = "article"
    """'article': the first images by name are trained on, the rest held out. 'official': CelebA's own partition."""
    num_train: PositiveInt | None = None
    """Training images of the article's split; default: 170,000, or of a smaller set the same share as of 202,599."""
    resize: Literal["area", "distort"] = "area"
    """'area': centre crop of 178 x 178, then the mean over areas. 'distort': the whole 178 x 218 image made square."""
    attributes: Path | None = None
    """list_attr_celeba.txt, if it does not lie beside the images."""
    partition: Path | None = None
    """list_eval_partition.txt, if it does not lie beside the images; only the official split needs it."""
    images_per_shard: PositiveInt = 2048
    """Images of each TFRecord file."""
    workers: PositiveInt = Field(default_factory=lambda: len(os.sched_getaffinity(0)))
    """Processes that work at once, about 0.7 GB of memory each; the result does not depend on it."""
    seed: NonNegativeInt = 0
    """Seed of the built-in faces."""


def run(directory: str) -> None:
    """Make the data set that request.json in this directory asks for, unless it is whole."""
    data = DataDir(Path(directory))
    if not data.manifest_path.exists():
        prepare(read_model(data.request_path, Request), data.path)


def prepare(request: Request, out: Path, on_progress: OnProgress = lambda *_: None) -> Manifest:
    """Make a data set, or what is missing of it. One that is whole is only checked.

    Raises:
        UserError: the request, the images, their lists, the folder or the disk do not allow it.
        WorkerKilledError: the system killed a worker.
    """
    data = DataDir(out)
    source = _asked_source(request)
    settings = _settings(request, source)
    if data.manifest_path.exists():
        return checked_manifest(data, settings)
    require_own_folder(data, settings)
    _require_space(data, request, source)
    try:
        claim(data, _with_absolute_paths(request), settings)
        source = source or _drawn_source(data, request, on_progress)
        layout = _layout(source, settings)
        jobs = _jobs(data, source, layout, settings)
        records = make_shards(jobs, request.workers, functools.partial(on_progress, "images prepared"))
        manifest = _finish(data, source, layout, settings, records)
    finally:
        remove_unfinished(data)
    shutil.rmtree(data.progress)
    return manifest


# What was asked


@dataclass(frozen=True)
class Source:
    """Images and what their lists say of them, in the order of the names."""

    images: FaceImages
    attributes: npt.NDArray[np.bool_]
    """(num_images, 40)."""
    partition: npt.NDArray[np.uint8] | None
    """(num_images,), for the official split."""

    def sha256(self) -> str:
        """Identity of all that goes into a data set."""
        content = hashlib.sha256(self.images.sha256().encode())
        content.update(self.attributes.tobytes())
        if self.partition is not None:
            content.update(self.partition.tobytes())
        return content.hexdigest()


def _asked_source(request: Request) -> Source | None:
    """The images of --celeba; None where they are to be drawn."""
    if (request.celeba is None) == (request.synthetic is None):
        raise UserError("give either --celeba PATH (img_align_celeba.zip or its folder) or --synthetic N")
    return _read_source(request, request.celeba) if request.celeba else None


def _read_source(request: Request, path: Path) -> Source:
    images = open_images(path)
    attributes = read_attributes(request.attributes or find_list(images, ATTRIBUTE_LIST, "--attributes"), images.names)
    if request.split == "article":
        return Source(images, attributes, partition=None)
    partition = read_partition(request.partition or find_list(images, PARTITION_LIST, "--partition"), images.names)
    return Source(images, attributes, partition)


def _drawn_source(data: DataDir, request: Request, on_progress: OnProgress) -> Source:
    """Built-in faces in CelebA's format, kept in `.prepare` until the manifest is written."""
    folder = data.progress / "faces"
    if not folder.exists():
        aside = data.progress / f".faces.{os.getpid()}.tmp"
        aside.mkdir()
        _draw_faces(aside, request, on_progress)
        aside.rename(folder)
    return _read_source(request, folder)


def _draw_faces(folder: Path, request: Request, on_progress: OnProgress) -> None:
    from vaehpc.images.synthetic import write_celeba  # what it draws with is not on a login node

    num_images = _num_images(request, None)

    def on_drawn(num_drawn: int) -> None:
        on_progress("faces drawn", num_drawn, num_images)

    try:
        write_celeba(folder, num_images, request.seed, request.workers, on_drawn)
    except OSError as error:
        raise explained(error, folder) from error
    except BrokenProcessPool:
        raise WorkerKilledError("a worker that drew faces was killed, often because memory ran out") from None


def _settings(request: Request, source: Source | None) -> Settings:
    """What the request comes to with these images; UserError where it is not possible."""
    if request.size % 16 or not 16 <= request.size <= MAX_SIZE:
        raise UserError(f"--size {request.size}: a multiple of 16 from 16 to {MAX_SIZE} is needed")
    return Settings(
        version=preprocess.VERSION,
        size=request.size,
        resize=request.resize,
        split=request.split,
        num_train=_num_train(request, _num_images(request, source)),
        images_per_shard=request.images_per_shard,
        source=source.sha256() if source else f"{request.synthetic} built-in faces, seed {request.seed}",
    )


def _num_train(request: Request, num_images: int) -> int | None:
    if request.split == "official":
        if request.num_train is not None:
            raise UserError("--num-train goes with --split article; the official partition brings its own numbers")
        return None
    num_train = default_num_train(num_images) if request.num_train is None else request.num_train
    if not 1 <= num_train <= num_images:
        raise UserError(f"{num_train:,} training images are not possible with {num_images:,} images; see --num-train")
    return num_train


def _num_images(request: Request, source: Source | None) -> int:
    return len(source.images.names) if source else request.synthetic or 0


def _require_space(data: DataDir, request: Request, source: Source | None) -> None:
    num_images = _num_images(request, source)
    num_bytes = num_images * (3 * request.size**2 + BYTES_AROUND_IMAGE)
    if source is None:
        num_bytes += num_images * BYTES_OF_DRAWN_FACE
    present = sum(shard.stat().st_size for shard in data.path.glob("*.tfrecord"))
    require_space(data.path, num_bytes - present, num_files=num_images // request.images_per_shard + 4)


def _with_absolute_paths(request: Request) -> Request:
    paths = {name: getattr(request, name) for name in ("celeba", "attributes", "partition")}
    return request.model_copy(update={name: path.absolute() for name, path in paths.items() if path})


# What becomes of it


@dataclass(frozen=True)
class Layout:
    """The images in the order of the set: split by split, by name within."""

    names: tuple[str, ...]
    numbers: npt.NDArray[np.int32]
    attributes: npt.NDArray[np.bool_]
    num_images: dict[str, int]
    """Images of each split that has any."""
    shards: tuple[ShardImages, ...]


def _layout(source: Source, settings: Settings) -> Layout:
    names = source.images.names
    if settings.num_train is not None:
        splits: tuple[str, ...] = ARTICLE_SPLITS
        codes = article_codes(len(names), settings.num_train)
    else:
        assert source.partition is not None
        splits = OFFICIAL_SPLITS
        codes = source.partition
    counts = {split: int((codes == code).sum()) for code, split in enumerate(splits)}
    if not counts["train"]:
        raise UserError(
            f"the partition puts none of the {len(names):,} images of {source.images.path} into its training split"
        )
    order = np.argsort(codes, kind="stable")
    num_images = {split: count for split, count in counts.items() if count}
    return Layout(
        names=tuple(names[i] for i in order),
        numbers=source.images.numbers()[order],
        attributes=source.attributes[order],
        num_images=num_images,
        shards=split_shards(num_images, settings.images_per_shard),
    )


def _jobs(data: DataDir, source: Source, layout: Layout, settings: Settings) -> list[ShardJob]:
    jobs = []
    for shard in layout.shards:
        of_shard = slice(shard.first_image, shard.first_image + shard.num_images)
        job = ShardJob(
            images_path=source.images.path.absolute(),
            path=data.path / shard.file,
            record_path=data.progress / f"{shard.file}.json",
            shard=shard,
            names=layout.names[of_shard],
            numbers=layout.numbers[of_shard],
            attributes=layout.attributes[of_shard],
            size=settings.size,
            resize=settings.resize,
        )
        jobs.append(job)
    return jobs


def _finish(
    data: DataDir, source: Source, layout: Layout, settings: Settings, records: Sequence[ShardRecord]
) -> Manifest:
    """Write the sidecars and, last, the manifest."""
    write_array(data.attributes, layout.attributes)
    write_array(data.image_numbers, layout.numbers)
    preprocessing = Preprocessing(
        version=settings.version,
        size=settings.size,
        crop=preprocess.CROP if settings.resize == "area" else 0,
        resize=settings.resize,
        split=settings.split,
        num_train=layout.num_images["train"],
        images_per_shard=settings.images_per_shard,
    )
    manifest = Manifest(
        name="built-in faces (synthetic)" if source.images.synthetic else "CelebA",
        synthetic=source.images.synthetic,
        num_images=len(layout.names),
        preprocessing=preprocessing,
        splits=_splits(layout, records),
        shards=tuple(record.shard for record in records),
        sidecars={path.name: sha256_of_file(path) for path in (data.attributes, data.image_numbers)},
        sha256="",
        source=settings.source,
    )
    manifest = manifest.model_copy(update={"sha256": _identity(manifest)})
    write_model(data.manifest_path, manifest)
    return manifest


def _splits(layout: Layout, records: Sequence[ShardRecord]) -> dict[str, Split]:
    splits = {}
    first_image = 0
    for name, num_images in layout.num_images.items():
        counts = np.sum([record.pixel_counts for record in records if record.shard.split == name], axis=0)
        floor = entropy_floor(counts.tolist(), num_images)
        splits[name] = Split(first_image=first_image, num_images=num_images, entropy_floor=floor)
        first_image += num_images
    return splits


def _identity(manifest: Manifest) -> str:
    """SHA-256 of the manifest but for what does not change the data: its name, and where the images came from."""
    content = manifest.model_dump(mode="json", exclude={"name", "source", "sha256"})
    return hashlib.sha256(json.dumps(content, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
