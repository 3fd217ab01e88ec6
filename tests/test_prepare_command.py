import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import simplejpeg

from tests.celeba_files import attribute_list, damaged_jpeg, jpeg, name, write_celeba, write_folder, write_zip
from tests.processes import without_workers
from vaehpc.images.preprocess import preprocess
from vaehpc.images.tfrecord import check_shard, memory_mapped_images
from vaehpc.prepare import main
from vaehpc.study.files import DataDir
from vaehpc.study.study import data_config
from vaehpc.tasks import prepare as task

NUM_IMAGES = 12
OPTIONS = ["--size", "16", "--workers", "1", "--images-per-shard", "3"]


def command(celeba: Path, out: Path, *more: str) -> list[str]:
    return ["--celeba", str(celeba), "--out", str(out), *OPTIONS, *more]


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def celeba(tmp_path: Path) -> Path:
    """Folder of the archive and its lists."""
    return write_celeba(tmp_path / "celeba", NUM_IMAGES).parent


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("whole")
    write_celeba(folder / "celeba", NUM_IMAGES)
    with pytest.MonkeyPatch.context() as patch:
        without_workers(patch)
        assert main(command(folder / "celeba", folder / "out")) == 0
    return folder / "out"


# What goes well


def test_summary_says_what_was_made(whole: Path, celeba: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(command(celeba, whole)) == 0
    floor = DataDir(whole).manifest().splits["train"].entropy_floor
    assert capsys.readouterr().out.splitlines() == [
        "12 images of CelebA: 10 train, 2 heldout",
        "  the training share is the article's (170,000 of 202,599); --num-train sets another",
        f"  entropy floor H(x) of train: {floor:.2f} nats per image",
        "  already prepared; every file has its checksum",
        f"data set: {whole}",
    ]


def test_built_in_faces_go_through_the_same_reader(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    # Left by a start that was killed while it drew, in a container where every start has the same process id.
    (out / f".prepare/.faces.{os.getpid()}.tmp").mkdir(parents=True)
    assert main(["--synthetic", "6", "--seed", "3", "--out", str(out), *OPTIONS]) == 0
    shown = capfd.readouterr()
    greetings = [line for line in shown.err.splitlines() if not re.match("[a-z ]+: [0-9] of 6, ", line)]
    assert greetings == []
    assert shown.out.startswith("6 images of built-in faces (synthetic): 5 train, 1 heldout\n")
    assert "6 images prepared" in shown.out
    assert "images prepared: 6 of 6" in shown.err
    manifest = DataDir(out).manifest()
    assert (manifest.synthetic, manifest.source) == (True, "6 built-in faces, seed 3")
    assert np.load(out / "attributes.npy").any()
    assert not (out / ".prepare").exists()


@pytest.mark.usefixtures("inline")
def test_kaggles_archive_is_the_same_data_set(whole: Path, tmp_path: Path) -> None:
    numbers = range(1, NUM_IMAGES + 1)
    attributes = attribute_list(numbers).split("\n", 1)[1]
    entries = [(f"img_align_celeba/img_align_celeba/{name(number)}", jpeg(number)) for number in numbers]
    lists = [("list_attr_celeba.csv", f"image_id {attributes}".replace("  ", " ").replace(" ", ",").encode())]
    archive = write_zip(tmp_path / "archive.zip", [*entries, *lists])
    assert main(command(archive, tmp_path / "out")) == 0
    assert DataDir(tmp_path / "out").manifest().sha256 == DataDir(whole).manifest().sha256


@pytest.mark.usefixtures("inline")
def test_images_without_lists_have_no_attributes(
    celeba: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (celeba / "list_attr_celeba.txt").unlink()
    assert main(command(celeba, tmp_path / "out")) == 0
    said = capsys.readouterr().out
    assert "12 images of CelebA: 10 train" in said
    assert "no attributes: list_attr_celeba.txt or .csv lies neither in nor beside" in said
    assert np.load(tmp_path / "out/attributes.npy").shape == (NUM_IMAGES, 0)


@pytest.mark.usefixtures("inline")
def test_a_folder_of_photographs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for number in range(12):
        folder = tmp_path / "my flowers" / ("roses" if number < 6 else "tulips")
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{number}.jpg").write_bytes(jpeg(number, 30 + number, 99))
    out = DataDir(tmp_path / "out")
    asked = ["--images", str(tmp_path / "my flowers"), "--out", str(out.path), *OPTIONS]
    assert main(asked) == 0
    assert capsys.readouterr().out.startswith("12 images of my flowers: 10 train, 2 heldout\n  entropy floor")
    manifest, config = out.manifest(), data_config(out)
    assert (config.name, config.photographs, config.has_attributes, config.num_train) == ("my flowers", True, False, 10)
    assert (manifest.preprocessing.crop, manifest.preprocessing.split) == (None, "spread")
    names = json.loads(out.image_names.read_text())
    assert names[-2:] == ["roses/5.jpg", "tulips/9.jpg"]  # every sixth by name is held out
    shard = manifest.shards[0]
    images = memory_mapped_images(out.path / shard.file, shard.num_images, 16, 0)
    expected = preprocess(simplejpeg.decode_jpeg(jpeg(0, 30, 99)), 16, "area")
    np.testing.assert_array_equal(images[0], expected)
    assert main(asked) == 0
    assert "already prepared" in capsys.readouterr().out
    assert main([*asked, "--crop", "16"]) == 2
    assert "  crop: None there, 16 asked" in capsys.readouterr().err


def test_help_needs_no_tensorflow() -> None:
    code = "import sys, vaehpc.prepare; assert not {'tensorflow', 'simplejpeg', 'PIL'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


# What is refused before anything is written: changes the input, returns further options


def web_page(celeba: Path) -> None:
    (celeba / "img_align_celeba.zip").write_text("<html><title>Sign in</title>" + " " * 89_000)


def truncated_zip(celeba: Path) -> None:
    archive = celeba / "img_align_celeba.zip"
    archive.write_bytes(archive.read_bytes()[:20_000])


def short_attribute_list(celeba: Path) -> None:
    lines = (celeba / "list_attr_celeba.txt").read_text().splitlines()
    (celeba / "list_attr_celeba.txt").write_text("\n".join(lines[:-3]))


def attribute_list_cut_in_a_line(celeba: Path) -> None:
    text = (celeba / "list_attr_celeba.txt").read_text()
    (celeba / "list_attr_celeba.txt").write_text(text[:-20])


def missing_images(celeba: Path) -> None:
    write_zip(celeba / "img_align_celeba.zip", [(name(number), jpeg(number)) for number in range(1, 8)])


def no_images(celeba: Path) -> None:
    shutil.rmtree(celeba)


def no_training_images(celeba: Path) -> None:
    text = (celeba / "list_eval_partition.txt").read_text()
    (celeba / "list_eval_partition.txt").write_text(text.replace(" 0", " 1"))


def untouched(celeba: Path) -> None:
    assert celeba.exists()


@pytest.mark.parametrize(
    ("spoil", "options", "message"),
    [
        (no_images, [], "celeba does not exist; expected are CelebA's 000001.jpg"),
        (web_page, [], "img_align_celeba.zip: 89 KB, a web page: the server answered with it"),
        (truncated_zip, [], "img_align_celeba.zip: 20 KB, a zip archive that is incomplete"),
        (untouched, ["--attributes", "nowhere.txt"], "--attributes nowhere.txt does not exist"),
        (short_attribute_list, [], "list_attr_celeba.txt, line 1: announces 12 images, 9 follow"),
        (attribute_list_cut_in_a_line, [], "list_attr_celeba.txt, line 14: a file name and 40 values"),
        (missing_images, [], "lists 5 images that are not there; the first is 000008.jpg"),
        (no_training_images, ["--split", "official"], "the partition puts none of the 12 images of"),
        (untouched, ["--size", "100"], "--size 100: a multiple of 16 from 16 to 176 is needed"),
        (untouched, ["--size", "192"], "--size 192: a multiple of 16 from 16 to 176 is needed"),
        (
            untouched,
            ["--num-train", "13"],
            "13 training images are not possible with 12 images: at least 2, at most all",
        ),
        (untouched, ["--num-train", "1"], "1 training images are not possible with 12 images"),
        (untouched, ["--split", "official", "--num-train", "5"], "--num-train goes with the other splits"),
        (untouched, ["--workers", "0"], "--workers 0: Input should be greater than 0"),
        (untouched, ["--attributes", os.fsdecode(b"\xff.csv")], "its bytes are no UTF-8: give the path of a link"),
        (
            untouched,
            ["--crop", "179"],
            "--crop 179: at least 16 are needed, and CelebA's aligned images are 178 pixels wide",
        ),
        (untouched, ["--crop", "8"], "--crop 8: at least 16 are needed"),
        (untouched, ["--size", "112", "--crop", "100"], "--size 112: a multiple of 16 from 16 to 96 is needed"),
        (untouched, ["--synthetic", "5"], "--celeba and --synthetic given: give one of --celeba PATH"),
    ],
)
def test_bad_request_leaves_nothing(
    celeba: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    spoil: Callable[[Path], None],
    options: list[str],
    message: str,
) -> None:
    spoil(celeba)
    assert main(command(celeba, tmp_path / "out", *options)) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def interrupt(*_: object) -> None:
    raise KeyboardInterrupt


def test_a_folder_that_was_there_stays(celeba: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also after a preparation that was killed before its first shard."""
    (tmp_path / "out").mkdir()
    for _ in range(2):
        assert main(command(celeba, tmp_path / "out", "--size", "17")) == 2
        monkeypatch.setattr(task, "make_shards", interrupt)
        with pytest.raises(KeyboardInterrupt):
            task.prepare(task.Request(celeba=celeba, size=16), tmp_path / "out")
        assert list((tmp_path / "out").iterdir()) == []
        (tmp_path / "out" / ".prepare").mkdir()


@pytest.mark.parametrize("name", ["a\nb", "a\x1b[31m", os.fsdecode(b"a\xff")])
def test_a_name_that_is_no_text_is_refused(
    celeba: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    assert main(command(celeba, tmp_path / name)) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "its name has characters that are no text" in line and "\x1b" not in line


def test_folder_with_other_files_is_refused(celeba: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "thesis.tex").touch()
    assert main(command(celeba, tmp_path)) == 2
    assert f"--out {tmp_path} holds other files (celeba, thesis.tex)" in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["celeba", "thesis.tex"]


def test_file_as_folder_is_refused(celeba: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "out").touch()
    assert main(command(celeba, tmp_path / "out")) == 2
    assert "is a file; name a new or empty folder" in capsys.readouterr().err
    assert main(command(celeba, tmp_path / "out/data")) == 2
    assert "cannot be made: Not a directory" in capsys.readouterr().err


def test_other_settings_are_refused(whole: Path, celeba: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = contents(whole)
    assert main(command(celeba, whole, "--size", "32", "--num-train", "9")) == 2
    assert capsys.readouterr().err.splitlines() == [
        f"vaehpc: {whole} was made with other settings:",
        "  size: 16 there, 32 asked",
        "  num_train: 10 there, 9 asked",
        "Ask for the same, choose another folder (--out; of a launch --data), or remove this one.",
    ]
    assert contents(whole) == before


def test_flipped_byte_in_a_shard(whole: Path, celeba: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = Path(shutil.copytree(whole, tmp_path / "out"))
    shard = out / "train-00002-of-00004.tfrecord"
    content = bytearray(shard.read_bytes())
    content[len(content) // 2] ^= 1
    shard.write_bytes(content)
    assert main(command(celeba, out)) == 2
    assert f"{shard}, record 1: damaged" in capsys.readouterr().err


def test_replaced_sidecar(whole: Path, celeba: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = Path(shutil.copytree(whole, tmp_path / "out"))
    np.save(out / "attributes.npy", np.zeros((NUM_IMAGES, 40), np.bool_))
    assert main(command(celeba, out)) == 2
    assert f"{out / 'attributes.npy'} is not the file that was prepared" in capsys.readouterr().err


# What shows only while shards are made


@pytest.mark.usefixtures("inline")
def test_damaged_image_in_the_middle_of_a_zip(celeba: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    numbers = range(1, NUM_IMAGES + 1)
    entries = [(name(number), damaged_jpeg(number) if number == 8 else jpeg(number)) for number in numbers]
    write_zip(celeba / "img_align_celeba.zip", entries)
    assert main(command(celeba, tmp_path / "out")) == 2
    assert f"{celeba / 'img_align_celeba.zip'}, 000008.jpg: damaged JPEG" in capsys.readouterr().err
    num_images = {shard.name: check_shard(shard) for shard in (tmp_path / "out").glob("*.tfrecord")}
    assert num_images == {"train-00000-of-00004.tfrecord": 3, "train-00001-of-00004.tfrecord": 3}
    assert not (tmp_path / "out/manifest.json").exists()
    assert list((tmp_path / "out").rglob("*.tmp")) == []


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (damaged_jpeg(2), "000002.jpg: damaged JPEG"),
        (jpeg(2)[:1000], "000002.jpg: damaged JPEG"),
        (b"", "000002.jpg: no JPEG, but an empty file"),
        (jpeg(2, height=100), "000002.jpg: 178 x 100 pixels found, 178 x 218 expected"),
    ],
)
def test_bad_image_in_a_folder(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], content: bytes, message: str
) -> None:
    folder = write_folder(tmp_path / "faces", [1, 2, 3])
    (folder / "000002.jpg").write_bytes(content)
    (folder / "list_attr_celeba.txt").write_text(attribute_list([1, 2, 3]))
    assert main(command(folder, tmp_path / "out", "--num-train", "3")) == 2
    assert f"{folder}/{message}" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def run_on_own_disk(tmp_path: Path, options: str, *arguments: str) -> tuple[int, str, dict[str, int]]:
    """Exit code, errors, and files left with their sizes, of a command that has `disk` for a file system of its own.

    It lives in a namespace, which needs no rights on most systems and is gone with the command.
    """
    disk = tmp_path / "disk"
    disk.mkdir()
    script = f"""
        mount -t tmpfs -o {options} tmpfs {disk} || exit 99
        {sys.executable} "$@"
        code=$?
        find {disk} -type f -printf 'left %f %s\\n'
        exit $code
    """
    words = ["unshare", "--map-root-user", "--mount", "sh", "-c", script, "sh", *arguments]
    result = subprocess.run(words, capture_output=True, text=True)
    left = [line.split() for line in result.stdout.splitlines() if line.startswith("left ")]
    return result.returncode, result.stderr, {file: int(size) for _, file, size in left}


def test_disk_that_is_too_small(celeba: Path, tmp_path: Path) -> None:
    arguments = command(celeba, tmp_path / "disk/out")
    code, errors, left = run_on_own_disk(tmp_path, "size=8k", "-m", "vaehpc.prepare", *arguments)
    assert code == 3
    assert f"{tmp_path / 'disk/out'} needs 12 KB in 8 files, 8 KB free" in errors
    assert left == {}


def test_disk_that_runs_full(celeba: Path, tmp_path: Path) -> None:
    """As if somebody else filled the disk after its free space was found to be enough."""
    script = tmp_path / "without_looking.py"
    script.write_text(
        "import sys\n"
        "from vaehpc import prepare\n"
        "from vaehpc.tasks import prepare as task\n"
        "task.require_space = lambda *_, **__: None\n"
        "if __name__ == '__main__':\n"
        "    sys.exit(prepare.main(sys.argv[1:]))\n"
    )
    # Six pages: the request, the settings, two shards and their records.
    arguments = command(celeba, tmp_path / "disk/out")
    code, errors, left = run_on_own_disk(tmp_path, "size=24k", str(script), *arguments)
    assert code == 3
    shard = tmp_path / "disk/out/train-00002-of-00004.tfrecord"
    assert f"no space left on the disk while writing {shard}" in errors
    assert "Traceback" not in errors
    shards = {file: size for file, size in left.items() if file.endswith(".tfrecord")}
    assert shards == {"train-00000-of-00004.tfrecord": 2670, "train-00001-of-00004.tfrecord": 2670}
    assert not [file for file in left if file.endswith((".tmp", "manifest.json"))]


def test_disk_that_may_not_be_written(celeba: Path, tmp_path: Path) -> None:
    arguments = command(celeba, tmp_path / "disk/out")
    code, errors, left = run_on_own_disk(tmp_path, "size=1m,ro", "-m", "vaehpc.prepare", *arguments)
    assert code == 2
    assert f"--out {tmp_path / 'disk/out'} cannot be made: Read-only file system" in errors
    assert left == {}
