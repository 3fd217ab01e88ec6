"""The folder of a data set that is being made: whether it is fit for it, and what of it may stay."""

from __future__ import annotations

import contextlib
import re
import shutil
from pathlib import Path

from vaehpc.command import UserError
from vaehpc.images.celeba import CROP
from vaehpc.schema.data import Resize, SplitName
from vaehpc.schema.frozen import Frozen
from vaehpc.schema.results import Manifest
from vaehpc.study.files import DataDir, read_model, sha256_of_file, write_model

OWN_TEMPORARY = r"\.(faces|.+\.(tfrecord|json|npy))\.[0-9]+\.tmp"


class Settings(Frozen):
    """.prepare/settings.json: what must be equal for two starts to work on the same data set."""

    version: int
    size: int
    resize: Resize
    split: SplitName
    num_train: int | None
    """None: as the official partition has it."""
    crop: int | None = CROP
    """As in the manifest; of a release before 0.3.0, CelebA's."""
    images_per_shard: int
    source: str
    """Identity of the images and their lists, or which faces are drawn."""


def require_own_folder(data: DataDir, settings: Settings) -> None:
    """UserError where the folder holds anything but an unfinished data set of these settings."""
    if data.settings_path.exists():
        _require_equal(data, read_model(data.settings_path, Settings), settings)
        return
    if data.path.exists() and not data.path.is_dir():
        raise UserError(f"--out {data.path} is a file; name a new or empty folder")
    foreign = sorted(entry.name for entry in data.path.glob("*") if entry != data.progress)
    if foreign:
        raise UserError(
            f"--out {data.path} holds other files ({', '.join(foreign[:3])}{' ...' * (len(foreign) > 3)});"
            " name a new or empty folder"
        )


def claim(data: DataDir, request: Frozen, settings: Settings) -> None:
    """Leave in the folder what another start needs to continue from the folder alone.

    Raises:
        UserError: it cannot be made or written.
    """
    try:
        data.make_progress()
    except OSError as error:
        raise UserError(f"--out {data.path} cannot be made: {error.strerror}") from None
    _remove_temporary(data)
    write_model(data.request_path, request)
    write_model(data.settings_path, settings)


def remove_unfinished(data: DataDir) -> None:
    """Leave whole shards only; where there are none, leave nothing but a folder that was there before."""
    _remove_temporary(data)
    if not any(data.path.glob("*.tfrecord")):
        is_own = data.own_folder.exists()
        shutil.rmtree(data.progress, ignore_errors=True)
        if is_own:
            with contextlib.suppress(OSError):
                data.path.rmdir()


def checked_manifest(data: DataDir, settings: Settings) -> Manifest:
    """The manifest of a data set that is whole.

    Raises:
        UserError: it was made with other settings, or a file was damaged since; names the record.
    """
    manifest = data.manifest()
    _require_equal(data, _settings_of(manifest), settings)
    shutil.rmtree(data.progress, ignore_errors=True)  # left by a start that was killed after writing the manifest
    sha256 = {shard.file: shard.sha256 for shard in manifest.shards} | manifest.sidecars
    for name, expected in sha256.items():
        path = data.path / name
        if not path.exists() or sha256_of_file(path) != expected:
            _explain_damage(path)
    return manifest


def _settings_of(manifest: Manifest) -> Settings:
    made = manifest.preprocessing
    return Settings(
        version=made.version,
        size=made.size,
        resize=made.resize,
        split=made.split,
        num_train=None if made.split == "official" else made.num_train,
        crop=made.crop,
        images_per_shard=made.images_per_shard,
        source=manifest.source or "unknown images",
    )


def _require_equal(data: DataDir, found: Settings, asked: Settings) -> None:
    asked_values = asked.model_dump()
    differences = [
        f"  {name}: {value} there, {asked_values[name]} asked"
        for name, value in found.model_dump().items()
        if value != asked_values[name]
    ]
    if differences:
        remedy = "Ask for the same, choose another folder (--out; of a launch --data), or remove this one."
        raise UserError("\n".join([f"{data.path} was made with other settings:", *differences, remedy]))


def _remove_temporary(data: DataDir) -> None:
    for folder in (data.path, data.progress):
        for left in folder.glob(".*.*.tmp"):
            if not re.fullmatch(OWN_TEMPORARY, left.name):
                continue
            if left.is_dir() and not left.is_symlink():
                shutil.rmtree(left)
            else:
                left.unlink()


def _explain_damage(path: Path) -> None:
    from vaehpc.images.tfrecord import check_shard  # TensorFlow takes seconds, and is needed only here

    if path.suffix == ".tfrecord":
        check_shard(path)  # names the record
    raise UserError(f"{path} is not the file that was prepared; restore it, or delete the folder and prepare again")
