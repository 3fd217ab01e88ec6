"""Make a data set: CelebA's JPEGs, or other photographs, in; TFRecord shards, sidecars and a manifest out.

Worker processes make one shard at a time. A shard appears by rename and is finished when its record lies in `.prepare`;
a second start makes only what is missing, so the set is the same to the bit however often it was interrupted.
"""

from __future__ import annotations

import functools
import hashlib
import json
import math
import os
import shutil
import zipfile
from collections.abc import Callable, Sequence
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from vaehpc.command import UserError, WorkerKilledError, explained
from vaehpc.images import preprocess
from vaehpc.images.annotations import read_attributes, read_partition
from vaehpc.images.celeba import ATTRIBUTE_LIST, CROP, PARTITION_LIST, default_num_train, open_celeba
from vaehpc.images.entropy import entropy_floor
from vaehpc.images.photographs import Images, open_photographs, photograph
from vaehpc.images.places import File, Zip, file_at, tally
from vaehpc.images.splits import (
    HELD_OUT_SPLITS,
    OFFICIAL_SPLITS,
    ShardImages,
    first_codes,
    split_shards,
    spread_codes,
)
from vaehpc.machine.processes import processors
from vaehpc.schema.data import LEAST_TRAINED, Request
from vaehpc.schema.results import ATTRIBUTES, Manifest, Preprocessing, Split
from vaehpc.study.files import (
    DataDir,
    read_model,
    require_space,
    sha256_of_file,
    write_array,
    write_model,
    write_text,
)
from vaehpc.tasks.data_folder import Settings, checked_manifest, claim, remove_unfinished, require_own_folder
from vaehpc.tasks.shards import ShardJob, ShardRecord, make_shards

OnProgress = Callable[[str, int, int], None]
"""Called with what is being done, how many images are done, and how many there are."""

MAX_SIZE = 1024
# For the estimate of the space needed.
BYTES_AROUND_IMAGE = 200
BYTES_OF_DRAWN_FACE = 12_000


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
    source = asked_source(request)
    settings = _settings(request, source)
    if data.manifest_path.exists():
        return checked_manifest(data, settings)
    require_own_folder(data, settings)
    _require_space(data, request, source)
    try:
        claim(data, request.model_copy(update=request.paths), settings)
        source = source or _drawn_source(data, request, on_progress)
        layout = _layout(source, settings)
        jobs = _jobs(data, source, layout, settings)
        records = make_shards(jobs, _num_workers(request), functools.partial(on_progress, "images prepared"))
        manifest = _finish(data, source, layout, settings, records)
    finally:
        remove_unfinished(data)
    shutil.rmtree(data.progress)
    return manifest


# What was asked


@dataclass(frozen=True)
class Source:
    """Images and what their lists say of them, in their order."""

    images: Images
    attribute_names: tuple[str, ...]
    attributes: npt.NDArray[np.bool_]
    """(num_images, num_attributes)."""
    partition: npt.NDArray[np.uint8] | None
    """(num_images,), for the official split."""
    synthetic: bool = False

    def sha256(self) -> str:
        """Identity of all that goes into a data set."""
        content = hashlib.sha256(self.images.sha256().encode())
        content.update(self.attributes.tobytes())
        if self.partition is not None:
            content.update(self.partition.tobytes())
        return content.hexdigest()


def asked_source(request: Request) -> Source | None:
    """The images that are asked for; None where they are to be drawn.

    Raises:
        UserError: they or their lists are not there, or damaged, or options contradict each other.
    """
    asked = [name for name in ("celeba", "images", "synthetic") if getattr(request, name) is not None]
    if len(asked) != 1:
        raise UserError(
            f"{' and '.join(f'--{name}' for name in asked) or 'no images'} given: give one of --celeba PATH (CelebA's"
            " zip or folder), --images PATH (any other photographs) and --synthetic N"
        )
    of_celeba = {"--attributes": request.attributes, "--partition": request.partition}
    of_celeba["--only-present"] = Path() if request.only_present else None
    if useless := [option for option, value in of_celeba.items() if value is not None and request.celeba is None]:
        raise UserError(f"{useless[0]} goes with --celeba, whose lists it is about")
    if request.first is not None and request.synthetic is not None:
        raise UserError("--first goes with --celeba or --images: of built-in faces give the number")
    if request.split == "official" and request.images is not None:
        raise UserError("--split official is CelebA's own partition: --images has spread and article")
    if request.celeba is not None:
        return _celeba(request, request.celeba)
    return _photographs(request, request.images) if request.images is not None else None


def _celeba(request: Request, path: Path) -> Source:
    found = open_celeba(path)
    images = _first(found.images, request.first)
    numbers = images.numbers.tolist()
    # Of the first N, none may be missing in between.
    complete_to = 0 if request.only_present else math.inf if request.first is None else numbers[-1]
    attributes, names = np.zeros((len(numbers), 0), np.bool_), tuple[str, ...]()
    if (file := _list(request.attributes, "--attributes") or found.find_list(ATTRIBUTE_LIST)) is not None:
        attributes, names = read_attributes(file, numbers, complete_to), ATTRIBUTES
    partition = None
    if request.split == "official":
        if (file := _list(request.partition, "--partition") or found.find_list(PARTITION_LIST)) is None:
            raise UserError(
                f"{PARTITION_LIST}.txt or .csv, which --split official takes, lies neither in {path} nor beside it or"
                " in the folder above; name it with --partition FILE"
            )
        partition = read_partition(file, numbers, complete_to)
    return Source(images, names, attributes, partition, found.synthetic)


def _photographs(request: Request, path: Path) -> Source:
    images = _first(open_photographs(path), request.first)
    return Source(images, (), np.zeros((len(images.files), 0), np.bool_), partition=None)


def _first(images: Images, num_images: int | None) -> Images:
    """The first images; UserError where there are fewer."""
    if num_images is None:
        return images
    if num_images > len(images.files):
        raise UserError(f"--first {num_images}: {images.path} holds {len(images.files):,} images")
    return replace(images, files=images.files[:num_images], numbers=images.numbers[:num_images])


def _list(path: Path | None, option: str) -> File | None:
    """A list that was named: a text file, or the only text file of a zip."""
    if path is None:
        return None
    if not path.is_file():
        raise UserError(f"{option} {path} {'is no file' if path.exists() else 'does not exist'}")
    if not zipfile.is_zipfile(path):
        return file_at(path)
    files = [file for file in Zip(path).files if file.suffix in (".txt", ".csv")]
    if len(files) != 1:
        raise UserError(f"{option} {path}: {tally(files)}, where one list is expected; unpack it, and name the list")
    return files[0]


def _drawn_source(data: DataDir, request: Request, on_progress: OnProgress) -> Source:
    """Built-in faces in CelebA's format, kept in `.prepare` until the manifest is written."""
    folder = data.progress / "faces"
    if not folder.exists():
        aside = data.progress / f".faces.{os.getpid()}.tmp"
        aside.mkdir()
        _draw_faces(aside, request, on_progress)
        aside.rename(folder)
    return _celeba(request, folder)


def _num_workers(request: Request) -> int:
    """Of a container's quota the settings know nothing."""
    return min(request.workers, processors())


def _draw_faces(folder: Path, request: Request, on_progress: OnProgress) -> None:
    from vaehpc.images.synthetic import write_celeba  # what it draws with is not on a login node

    num_images = _num_images(request, None)

    def on_drawn(num_drawn: int) -> None:
        on_progress("faces drawn", num_drawn, num_images)

    try:
        write_celeba(folder, num_images, request.seed, _num_workers(request), on_drawn)
    except OSError as error:
        raise explained(error, folder) from error
    except BrokenProcessPool:
        raise WorkerKilledError("a worker that drew faces was killed, often because memory ran out") from None


def _settings(request: Request, source: Source | None) -> Settings:
    """What the request comes to with these images; UserError where it is not possible."""
    crop = request.crop or (None if request.images is not None else CROP)
    if request.crop is not None and not 16 <= request.crop <= (CROP if request.images is None else request.crop):
        raise UserError(f"--crop {crop}: at least 16 are needed, and CelebA's aligned images are {CROP} pixels wide")
    largest = min(MAX_SIZE, crop - crop % 16 if crop and request.resize == "area" else MAX_SIZE)
    if request.size % 16 or not 16 <= request.size <= largest:
        raise UserError(f"--size {request.size}: a multiple of 16 from 16 to {largest} is needed")
    return Settings(
        version=preprocess.VERSION,
        size=request.size,
        resize=request.resize,
        split=request.split or ("spread" if request.images is not None else "article"),
        num_train=_num_train(request, _num_images(request, source)),
        crop=crop if request.resize == "area" else 0,
        images_per_shard=request.images_per_shard,
        source=source.sha256() if source else f"{request.synthetic} built-in faces, seed {request.seed}",
    )


def _num_train(request: Request, num_images: int) -> int | None:
    if request.split == "official":
        if request.num_train is not None:
            raise UserError("--num-train goes with the other splits; the official partition brings its own numbers")
        return None
    usual = num_images * 5 // 6 if request.images is not None else default_num_train(num_images)
    num_train = usual if request.num_train is None else request.num_train
    if not LEAST_TRAINED <= num_train <= num_images:
        raise UserError(
            f"{num_train:,} training images are not possible with {num_images:,} images: at least {LEAST_TRAINED}, at"
            " most all; see --num-train"
        )
    return num_train


def _num_images(request: Request, source: Source | None) -> int:
    return len(source.images.files) if source else request.synthetic or 0


def _require_space(data: DataDir, request: Request, source: Source | None) -> None:
    num_images = _num_images(request, source)
    num_bytes = num_images * (3 * request.size**2 + BYTES_AROUND_IMAGE)
    if source is None:
        num_bytes += num_images * BYTES_OF_DRAWN_FACE
    present = sum(shard.stat().st_size for shard in data.path.glob("*.tfrecord"))
    require_space(data.path, num_bytes - present, num_files=num_images // request.images_per_shard + 4)


# What becomes of it


@dataclass(frozen=True)
class Layout:
    """The images in the order of the set: split by split, by name within."""

    files: Sequence[File]
    numbers: npt.NDArray[np.int32]
    attributes: npt.NDArray[np.bool_]
    num_images: dict[str, int]
    """Images of each split that has any."""
    shards: tuple[ShardImages, ...]


def _layout(source: Source, settings: Settings) -> Layout:
    files = source.images.files
    if settings.num_train is not None:
        splits: tuple[str, ...] = HELD_OUT_SPLITS
        codes = (spread_codes if settings.split == "spread" else first_codes)(len(files), settings.num_train)
    else:
        assert source.partition is not None
        splits = OFFICIAL_SPLITS
        codes = source.partition
    counts = {split: int((codes == code).sum()) for code, split in enumerate(splits)}
    if not counts["train"]:
        raise UserError(
            f"the partition puts none of the {len(files):,} images of {source.images.path} into its training split"
        )
    order = np.argsort(codes, kind="stable")
    num_images = {split: count for split, count in counts.items() if count}
    return Layout(
        files=[files[i] for i in order],
        numbers=source.images.numbers[order],
        attributes=source.attributes[order],
        num_images=num_images,
        shards=split_shards(num_images, settings.images_per_shard),
    )


def _jobs(data: DataDir, source: Source, layout: Layout, settings: Settings) -> list[ShardJob]:
    jobs = []
    for shard in layout.shards:
        of_shard = slice(shard.first_image, shard.first_image + shard.num_images)
        job = ShardJob(
            files=layout.files[of_shard],
            decode=source.images.decode,
            path=data.path / shard.file,
            record_path=data.progress / f"{shard.file}.json",
            shard=shard,
            numbers=layout.numbers[of_shard],
            attributes=layout.attributes[of_shard],
            size=settings.size,
            resize=settings.resize,
            crop=settings.crop,
        )
        jobs.append(job)
    return jobs


def _finish(
    data: DataDir, source: Source, layout: Layout, settings: Settings, records: Sequence[ShardRecord]
) -> Manifest:
    """Write the sidecars and, last, the manifest."""
    write_array(data.attributes, layout.attributes)
    write_array(data.image_numbers, layout.numbers)
    sidecars = [data.attributes, data.image_numbers]
    photographs = source.images.decode is photograph
    if photographs:
        write_text(data.image_names, json.dumps([file.name for file in layout.files], indent=0) + "\n")
        sidecars.append(data.image_names)
    preprocessing = Preprocessing(
        version=settings.version,
        size=settings.size,
        crop=settings.crop,
        resize=settings.resize,
        split=settings.split,
        num_train=layout.num_images["train"],
        images_per_shard=settings.images_per_shard,
    )
    manifest = Manifest(
        name=source.images.name,
        synthetic=source.synthetic,
        num_images=len(layout.files),
        preprocessing=preprocessing,
        splits=_splits(layout, records),
        shards=tuple(record.shard for record in records),
        sidecars={path.name: sha256_of_file(path) for path in sidecars},
        sha256="",
        source=settings.source,
        attributes=source.attribute_names,
        photographs=photographs,
    )
    manifest = manifest.model_copy(update={"sha256": identity(manifest)})
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


def identity(manifest: Manifest) -> str:
    """SHA-256 of the manifest but for what does not change the data: names, and where the images came from."""
    content = manifest.model_dump(mode="json", exclude={"name", "source", "sha256", "attributes"})
    if not manifest.photographs:
        del content["photographs"]  # as releases before 0.3.0 hashed it
    return hashlib.sha256(json.dumps(content, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
