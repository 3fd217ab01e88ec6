"""What a data set's identity hangs on, and damage to single images; tests/images/test_shapes.py has where they lie."""

from pathlib import Path

import numpy as np
import pytest
import simplejpeg

from tests.celeba_files import damaged_jpeg, jpeg, name, write_folder, write_zip
from vaehpc.command import UserError
from vaehpc.images.celeba import SYNTHETIC_COMMENT, open_celeba
from vaehpc.images.photographs import Images

JUNK = [("img_align_celeba/.DS_Store", b"\0\0\0\1Bud1"), ("img_align_celeba/readme.txt", b"hello")]


def opened(path: Path) -> Images:
    return open_celeba(path).images


def decoded(path: Path, number: int) -> np.ndarray:
    images = opened(path)
    return images.decode(images.files[images.numbers.tolist().index(number)])


def test_identity_depends_on_the_images_alone(tmp_path: Path) -> None:
    def identity(entries: list[tuple[str, bytes]]) -> str:
        return opened(write_zip(tmp_path / "some.zip", entries)).sha256()

    one, two, other = (name(1), jpeg(1)), (name(2), jpeg(2)), (name(2), jpeg(2)[::-1])
    assert identity([one, two]) == identity([*JUNK, two, one])
    assert identity([one, two]) != identity([one, other])
    assert identity([one, two]) != identity([one])


def test_identity_is_that_of_earlier_releases(tmp_path: Path) -> None:
    """Else a data set that 0.2.0 prepared would be refused as one of other images."""
    archive = write_zip(tmp_path / "some.zip", [(f"img_align_celeba/{name(n)}", bytes([n])) for n in (2, 1)])
    assert opened(archive).sha256() == "c528d9a7b1989f164c6cece2ead34424d8e5d0b134203cec7aba2b15778cbefb"
    folder = tmp_path / "folder"
    folder.mkdir()
    for number in (1, 2):
        (folder / name(number)).write_bytes(bytes([number]))
    assert opened(folder).sha256() == "8774fb6d0a3e712e8b94549de494e7b0bf637ed85a93f47dc774da66cb0b8ebd"


def test_generator_is_known_by_its_comment(tmp_path: Path) -> None:
    entries = [(name(1), jpeg(1))]
    assert open_celeba(write_zip(tmp_path / "drawn.zip", entries, SYNTHETIC_COMMENT)).synthetic
    assert not open_celeba(write_zip(tmp_path / "real.zip", entries)).synthetic


def test_damaged_jpeg_that_tolerant_decoders_accept(tmp_path: Path) -> None:
    assert simplejpeg.decode_jpeg(damaged_jpeg(2), strict=False).shape == (218, 178, 3)
    archive = write_zip(tmp_path / "some.zip", [(name(1), jpeg(1)), (name(2), damaged_jpeg(2))])
    with pytest.raises(UserError, match=r"some\.zip, 000002\.jpg: damaged JPEG"):
        decoded(archive, 2)


def test_truncated_jpeg_in_a_folder(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "faces", [1, 2])
    (folder / name(2)).write_bytes(jpeg(2)[:2_000])
    with pytest.raises(UserError, match=r"faces/000002\.jpg: damaged JPEG"):
        decoded(folder, 2)


def test_image_that_vanished_from_a_folder(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "faces", [1, 2])
    images = opened(folder)
    (folder / name(2)).unlink()
    with pytest.raises(UserError, match=r"000002\.jpg cannot be read: No such file"):
        images.decode(images.files[1])


def test_flipped_byte_in_the_zip(tmp_path: Path) -> None:
    archive = write_zip(tmp_path / "img_align_celeba.zip", [(name(n), jpeg(n)) for n in (1, 2)])
    content = bytearray(archive.read_bytes())
    content[content.index(jpeg(2)) + 1_000] ^= 1
    archive.write_bytes(content)
    decoded(archive, 1)
    with pytest.raises(UserError, match=r"img_align_celeba\.zip, 000002\.jpg: cannot be unpacked .*CRC"):
        decoded(archive, 2)
