import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import simplejpeg

from tests.celeba_files import attribute_values, jpeg, write_celeba, write_folder
from tests.processes import without_workers
from tests.shard_reader import read_shard
from vaehpc.command import UserError
from vaehpc.images.preprocess import preprocess
from vaehpc.images.tfrecord import check_shard, memory_mapped_images
from vaehpc.schema.results import Manifest, Preprocessing, Shard, Split
from vaehpc.study.files import DataDir, sha256_of_file
from vaehpc.tasks.prepare import Request, identity, prepare, run

NUM_IMAGES = 300
NUM_TRAIN = 251
NUMBERS = range(1, NUM_IMAGES + 1)
SIZE = 16


@pytest.fixture(scope="module")
def celeba(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_celeba(tmp_path_factory.mktemp("celeba"), NUM_IMAGES)


def request_of(source: Path, **changes: object) -> Request:
    return Request.model_validate({"celeba": source, "size": SIZE, "images_per_shard": 2, "workers": 1} | changes)


@pytest.fixture(scope="module")
def undisturbed(celeba: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set made in one go."""
    out = tmp_path_factory.mktemp("undisturbed")
    with pytest.MonkeyPatch.context() as patch:
        without_workers(patch)
        prepare(request_of(celeba), out)
    return out


def contents(folder: Path) -> dict[str, str]:
    return {path.name: sha256_of_file(path) if path.is_file() else "folder" for path in folder.iterdir()}


def finished_shards(out: Path) -> list[str]:
    return [record.name.removesuffix(".json") for record in out.glob(".prepare/*.tfrecord.json")]


def assert_nothing_half_written(out: Path) -> None:
    assert not (out / "manifest.json").exists()
    assert list(out.rglob("*.tmp")) == []
    assert all(check_shard(shard) in (1, 2) for shard in out.glob("*.tfrecord"))


def expected_images(numbers: range) -> np.ndarray:
    return np.stack([preprocess(simplejpeg.decode_jpeg(jpeg(number)), SIZE, "area") for number in numbers])


# The data set


def test_shards_hold_every_image_in_order(undisturbed: Path) -> None:
    manifest = DataDir(undisturbed).manifest()
    shards = [undisturbed / shard.file for shard in manifest.shards]
    assert [shard.name for shard in shards[125:127]] == [
        "train-00125-of-00126.tfrecord",
        "heldout-00000-of-00025.tfrecord",
    ]
    assert [shard.first_image for shard in manifest.shards[124:128]] == [248, 250, 251, 253]
    images, numbers, attributes = (
        np.concatenate(parts) for parts in zip(*(read_shard(shard) for shard in shards), strict=True)
    )
    np.testing.assert_array_equal(images, expected_images(NUMBERS))
    np.testing.assert_array_equal(numbers, NUMBERS)
    np.testing.assert_array_equal(attributes, attribute_values(NUMBERS) == 1)
    mapped = [memory_mapped_images(shards[i], manifest.shards[i].num_images, SIZE, 40) for i in range(len(shards))]
    np.testing.assert_array_equal(np.concatenate(mapped), images)


def test_sidecars_say_what_the_shards_say(undisturbed: Path) -> None:
    attributes = np.load(undisturbed / "attributes.npy")
    numbers = np.load(undisturbed / "image_numbers.npy")
    assert (attributes.dtype, numbers.dtype) == (np.bool_, np.int32)
    np.testing.assert_array_equal(attributes, attribute_values(NUMBERS) == 1)
    np.testing.assert_array_equal(numbers, NUMBERS)


def test_manifest_lists_every_file(undisturbed: Path) -> None:
    manifest = DataDir(undisturbed).manifest()
    assert (manifest.name, manifest.synthetic, manifest.num_images) == ("CelebA", False, NUM_IMAGES)
    assert manifest.preprocessing.model_dump() == {
        "version": 1,
        "size": SIZE,
        "crop": 178,
        "resize": "area",
        "split": "article",
        "num_train": NUM_TRAIN,
        "images_per_shard": 2,
    }
    listed = {shard.file: shard.sha256 for shard in manifest.shards} | manifest.sidecars
    found = contents(undisturbed)
    del found["manifest.json"]
    assert found == listed


def test_identity_is_that_of_earlier_releases() -> None:
    """Else CelebA, prepared anew, would be other data than the studies of 0.2.0 were trained on."""
    manifest = Manifest(
        name="CelebA",
        synthetic=False,
        num_images=3,
        preprocessing=Preprocessing(
            version=1, size=16, crop=178, resize="area", split="article", num_train=2, images_per_shard=2048
        ),
        splits={"train": Split(first_image=0, num_images=2, entropy_floor=1.5)},
        shards=(Shard(file="train-00000-of-00001.tfrecord", split="train", first_image=0, num_images=2, sha256="ab"),),
        sidecars={"attributes.npy": "cd"},
        sha256="",
    )
    assert identity(manifest) == "727a343499cb812f29c6e5709f57a909b72cdc539b722b73b689b87954da8b64"
    assert identity(manifest.model_copy(update={"attributes": ("Bald",)})) == identity(manifest)
    assert identity(manifest.model_copy(update={"photographs": True})) != identity(manifest)


def test_entropy_floor_is_that_of_each_split(undisturbed: Path) -> None:
    x = expected_images(NUMBERS).astype(np.float64) / 255
    with np.errstate(divide="ignore", invalid="ignore"):
        entropy = np.nan_to_num(-(x * np.log(x) + (1 - x) * np.log(1 - x))).mean(axis=3).sum(axis=(1, 2))
    splits = DataDir(undisturbed).manifest().splits
    assert [(split.first_image, split.num_images) for split in splits.values()] == [(0, 251), (251, 49)]
    assert splits["train"].entropy_floor == pytest.approx(entropy[:NUM_TRAIN].mean(), rel=1e-12)
    assert splits["heldout"].entropy_floor == pytest.approx(entropy[NUM_TRAIN:].mean(), rel=1e-12)


@pytest.mark.usefixtures("inline")
def test_official_split_of_distorted_images(celeba: Path, tmp_path: Path) -> None:
    request = request_of(celeba, split="official", resize="distort", images_per_shard=90)
    manifest = prepare(request, tmp_path / "out")
    validation = [number for number in NUMBERS if number % 10 == 0 and number % 3]
    test = [number for number in NUMBERS if number % 3 == 0]
    train = [number for number in NUMBERS if number % 10 and number % 3]
    assert {name: split.num_images for name, split in manifest.splits.items()} == {
        "train": len(train),
        "validation": len(validation),
        "test": len(test),
    }
    assert (manifest.preprocessing.num_train, manifest.preprocessing.crop) == (len(train), 0)
    assert np.load(tmp_path / "out/image_numbers.npy").tolist() == [*train, *validation, *test]
    images, numbers, _ = read_shard(tmp_path / "out" / manifest.shards[-1].file)
    assert numbers.tolist() == test[90:]
    np.testing.assert_array_equal(images[0], preprocess(simplejpeg.decode_jpeg(jpeg(273)), SIZE, "distort"))


@pytest.mark.usefixtures("inline")
def test_folder_makes_the_data_set_of_the_zip(undisturbed: Path, celeba: Path, tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "img_align_celeba", NUMBERS)
    request = request_of(folder, attributes=celeba.with_name("list_attr_celeba.txt"))
    manifest = prepare(request, tmp_path / "out")
    assert manifest.sha256 == DataDir(undisturbed).manifest().sha256
    assert manifest.source != DataDir(undisturbed).manifest().source


# A second start


def test_whole_data_set_is_left_as_it_is(celeba: Path, undisturbed: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in undisturbed.iterdir()}
    shown: list[object] = []
    manifest = prepare(request_of(celeba, workers=2), undisturbed, lambda *progress: shown.append(progress))
    assert manifest == DataDir(undisturbed).manifest()
    assert shown == []
    assert {path: path.stat().st_mtime_ns for path in undisturbed.iterdir()} == before


@pytest.mark.parametrize(
    ("changes", "difference"),
    [
        ({"size": 32}, "  size: 16 there, 32 asked"),
        ({"resize": "distort"}, "  resize: area there, distort asked"),
        ({"num_train": 90}, "  num_train: 251 there, 90 asked"),
        ({"split": "official"}, "  split: article there, official asked"),
        ({"images_per_shard": 64}, "  images_per_shard: 2 there, 64 asked"),
        ({"celeba": None, "synthetic": 5}, " there, 5 built-in faces, seed 0 asked"),
    ],
)
def test_other_settings_are_refused(
    celeba: Path, undisturbed: Path, changes: dict[str, object], difference: str
) -> None:
    before = contents(undisturbed)
    with pytest.raises(UserError, match=r"was made with other settings:\n") as refused:
        prepare(request_of(celeba, **changes), undisturbed)
    assert difference in str(refused.value)
    assert contents(undisturbed) == before


def test_other_attributes_are_refused(celeba: Path, undisturbed: Path, tmp_path: Path) -> None:
    text = celeba.with_name("list_attr_celeba.txt").read_text()
    (tmp_path / "list.txt").write_text(text.replace("000001.jpg   1", "000001.jpg  -1"))
    with pytest.raises(UserError, match=r"other settings:\n  source: [0-9a-f]{64} there, [0-9a-f]{64} asked"):
        prepare(request_of(celeba, attributes=tmp_path / "list.txt"), undisturbed)


def test_leftovers_of_a_killed_clean_up_are_removed(celeba: Path, undisturbed: Path) -> None:
    (undisturbed / ".prepare").mkdir()
    (undisturbed / ".prepare/settings.json").write_text("{}")
    prepare(request_of(celeba), undisturbed)
    assert not (undisturbed / ".prepare").exists()


# Interrupted and continued


def start(celeba: Path, out: Path, num_workers: int, num_finished: int) -> subprocess.Popen[str]:
    """The command, given beside the archive and in a process of its own; returns when so many shards are finished."""
    options = {"--celeba": celeba.name, "--out": out, "--size": SIZE, "--images-per-shard": 2, "--workers": num_workers}
    words = [str(word) for option in options.items() for word in option]
    process = subprocess.Popen(
        [sys.executable, "-m", "vaehpc.prepare", *words], cwd=celeba.parent, stderr=subprocess.PIPE, text=True
    )
    while len(finished_shards(out)) < num_finished:
        assert process.poll() is None, process.communicate()
        time.sleep(0.001)
    return process


class Interrupted(NamedTuple):
    out: Path
    exit_code: int
    errors: str


@pytest.fixture(scope="module")
def interrupted(celeba: Path, tmp_path_factory: pytest.TempPathFactory) -> Interrupted:
    """A data set whose preparation was ended by Ctrl-C."""
    out = tmp_path_factory.mktemp("interrupted") / "out"
    process = start(celeba, out, num_workers=1, num_finished=5)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate()
    return Interrupted(out, process.returncode, errors)


def test_interrupt_leaves_whole_shards(interrupted: Interrupted) -> None:
    assert interrupted.exit_code == 130
    assert "interrupted; finished shards stay" in interrupted.errors
    assert "Traceback" not in interrupted.errors
    assert len(finished_shards(interrupted.out)) >= 5
    assert_nothing_half_written(interrupted.out)


def test_unfinished_set_is_not_continued_with_other_settings(celeba: Path, interrupted: Interrupted) -> None:
    before = contents(interrupted.out)
    with pytest.raises(UserError, match=r"size: 16 there, 32 asked"):
        prepare(request_of(celeba, size=32), interrupted.out)
    assert contents(interrupted.out) == before


@pytest.mark.usefixtures("inline")
def test_finished_shards_are_not_made_again(undisturbed: Path, interrupted: Interrupted, tmp_path: Path) -> None:
    out = Path(shutil.copytree(interrupted.out, tmp_path / "out"))
    finished = {file: (out / file).stat() for file in finished_shards(out)}
    damaged = out / "train-00001-of-00126.tfrecord"
    damaged.write_bytes(damaged.read_bytes()[:-1])
    del finished[damaged.name]
    (out / ".train-00125-of-00126.tfrecord.1.tmp").write_bytes(b"left by a killed worker")
    run(str(out))
    for file, before in finished.items():
        after = (out / file).stat()
        assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    assert contents(out) == contents(undisturbed)


def workers_of(parent: int) -> list[int]:
    """Children by their command line: another child of the parent keeps track of its resources."""
    workers = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            is_child = int((process / "stat").read_text().rpartition(")")[2].split()[1]) == parent
            if is_child and b"spawn_main" in (process / "cmdline").read_bytes():
                workers.append(int(process.name))
        except (FileNotFoundError, ProcessLookupError):
            continue  # it ended meanwhile
    return workers


@pytest.mark.slow
def test_killed_at_random_moments(celeba: Path, undisturbed: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    process = start(celeba, out, num_workers=2, num_finished=random.randint(1, 40))
    os.kill(random.choice(workers_of(process.pid)), signal.SIGKILL)
    _, errors = process.communicate()
    assert process.returncode == 3
    num_finished = len(finished_shards(out))
    said = re.search(r"(\d+) of 151 shards are finished; the same command makes the rest", errors)
    assert said is not None
    assert int(said[1]) <= num_finished <= int(said[1]) + 1  # the other worker may have finished one more meanwhile
    assert_nothing_half_written(out)

    process = start(celeba, out, num_workers=1, num_finished=num_finished + random.randint(1, 40))
    process.kill()
    process.communicate()
    assert not (out / "manifest.json").exists()

    prepare(request_of(celeba), out)
    assert contents(out) == contents(undisturbed)
