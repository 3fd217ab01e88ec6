from pathlib import Path

import numpy as np
import pytest
import simplejpeg

from tests.celeba_files import damaged_jpeg, jpeg, name, write_folder, write_zip
from vaehpc.command import UserError
from vaehpc.images.celeba import SYNTHETIC_COMMENT, open_images

JUNK = [
    ("img_align_celeba/", b""),
    ("__MACOSX/img_align_celeba/._000001.jpg", b"Mac OS X"),
    ("img_align_celeba/._000002.jpg", b"Mac OS X"),
    ("img_align_celeba/.DS_Store", b"\0\0\0\1Bud1"),
    ("img_align_celeba/readme.txt", b"hello"),
]


def zip_of(folder: Path, *numbers: int) -> Path:
    return write_zip(folder / "img_align_celeba.zip", [(f"img_align_celeba/{name(n)}", jpeg(n)) for n in numbers])


def test_images_are_ordered_by_name_and_junk_is_ignored(tmp_path: Path) -> None:
    entries = [(f"img_align_celeba/{name(number)}", jpeg(number)) for number in (3, 1, 2)]
    images = open_images(write_zip(tmp_path / "wild.zip", [*JUNK, *entries]))
    assert images.names == ("000001.jpg", "000002.jpg", "000003.jpg")
    assert images.numbers().tolist() == [1, 2, 3]
    for number in (1, 2, 3):
        np.testing.assert_array_equal(images.image(name(number)), simplejpeg.decode_jpeg(jpeg(number)))


def test_folder_gives_what_the_zip_gives(tmp_path: Path) -> None:
    zipped = open_images(zip_of(tmp_path, 1, 2, 3))
    folder = write_folder(tmp_path / "unpacked", [2, 3, 1])
    for junk in ("._000001.jpg", ".DS_Store"):
        (folder / junk).write_bytes(b"junk")
    unpacked = open_images(folder)
    assert unpacked.names == zipped.names
    np.testing.assert_array_equal(unpacked.image("000002.jpg"), zipped.image("000002.jpg"))


@pytest.mark.parametrize(
    "inside", [".", "img_align_celeba", "img_align_celeba/img_align_celeba", "Img/img_align_celeba"]
)
def test_unpacked_folder_is_found_inside_the_path(tmp_path: Path, inside: str) -> None:
    folder = write_folder(tmp_path / "CelebA" / inside, [1])
    assert open_images(tmp_path / "CelebA").path.samefile(folder)


@pytest.mark.parametrize("inside", [".", "Img"])
def test_archive_is_found_inside_the_path(tmp_path: Path, inside: str) -> None:
    (tmp_path / inside).mkdir(exist_ok=True)
    archive = zip_of(tmp_path / inside, 1)
    assert open_images(tmp_path).path.samefile(archive)


def test_identity_depends_on_the_images_alone(tmp_path: Path) -> None:
    def identity(entries: list[tuple[str, bytes]]) -> str:
        return open_images(write_zip(tmp_path / "some.zip", entries)).sha256()

    one, two, other = (name(1), jpeg(1)), (name(2), jpeg(2)), (name(2), jpeg(2)[::-1])
    assert identity([one, two]) == identity([*JUNK, two, one])
    assert identity([one, two]) != identity([one, other])
    assert identity([one, two]) != identity([one])


def test_generator_is_known_by_its_comment(tmp_path: Path) -> None:
    entries = [(name(1), jpeg(1))]
    assert open_images(write_zip(tmp_path / "drawn.zip", entries, SYNTHETIC_COMMENT)).synthetic
    assert not open_images(write_zip(tmp_path / "real.zip", entries)).synthetic


# Bad input


def test_path_that_does_not_exist(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"nowhere\.zip does not exist; expected is img_align_celeba\.zip"):
        open_images(tmp_path / "nowhere.zip")


def test_folder_without_images(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"holds neither \.jpg files nor img_align_celeba\.zip"):
        open_images(tmp_path)


def test_web_page_saved_as_zip(tmp_path: Path) -> None:
    page = tmp_path / "img_align_celeba.zip"
    page.write_text("<!DOCTYPE html><html><head><title>Google Drive - Quota exceeded" + 89_000 * " ")
    with pytest.raises(UserError, match=r"img_align_celeba\.zip: 89 KB web page, not the 1\.34 GiB archive"):
        open_images(page)


def test_truncated_zip(tmp_path: Path) -> None:
    archive = zip_of(tmp_path, 1, 2, 3)
    archive.write_bytes(archive.read_bytes()[:9_000])
    with pytest.raises(UserError, match=r"img_align_celeba\.zip: 9 KB of a zip archive that is incomplete"):
        open_images(archive)


def test_file_that_is_no_zip(tmp_path: Path) -> None:
    (tmp_path / "faces.tar").write_bytes(b"ustar" + bytes(5_000))
    with pytest.raises(UserError, match=r"faces\.tar: 5 KB that are not a zip archive"):
        open_images(tmp_path / "faces.tar")


def test_zip_without_images(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"labels\.zip holds no \.jpg file"):
        open_images(write_zip(tmp_path / "labels.zip", JUNK))


def test_image_that_is_there_twice(tmp_path: Path) -> None:
    entries = [("a/000001.jpg", jpeg(1)), ("a/000002.jpg", jpeg(2)), ("b/000002.jpg", jpeg(2))]
    with pytest.raises(UserError, match=r"holds 000002\.jpg 2 times"):
        open_images(write_zip(tmp_path / "twice.zip", entries))


def test_image_that_is_not_numbered(tmp_path: Path) -> None:
    images = open_images(write_zip(tmp_path / "holiday.zip", [("beach.jpg", jpeg(1))]))
    with pytest.raises(UserError, match=r"holiday\.zip, beach\.jpg: not named like CelebA's images"):
        images.numbers()


def test_damaged_jpeg_that_tolerant_decoders_accept(tmp_path: Path) -> None:
    assert simplejpeg.decode_jpeg(damaged_jpeg(2), strict=False).shape == (218, 178, 3)
    archive = write_zip(tmp_path / "some.zip", [(name(1), jpeg(1)), (name(2), damaged_jpeg(2))])
    with pytest.raises(UserError, match=r"some\.zip, 000002\.jpg: damaged JPEG"):
        open_images(archive).image(name(2))


def test_truncated_jpeg_in_a_folder(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "faces", [1, 2])
    (folder / name(2)).write_bytes(jpeg(2)[:2_000])
    with pytest.raises(UserError, match=r"faces, 000002\.jpg: damaged JPEG"):
        open_images(folder).image(name(2))


def test_image_that_vanished_from_a_folder(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "faces", [1, 2])
    images = open_images(folder)
    (folder / name(2)).unlink()
    with pytest.raises(UserError, match=r"000002\.jpg cannot be read: No such file"):
        images.image(name(2))


def test_flipped_byte_in_the_zip(tmp_path: Path) -> None:
    archive = zip_of(tmp_path, 1, 2)
    content = bytearray(archive.read_bytes())
    content[content.index(jpeg(2)) + 1_000] ^= 1
    archive.write_bytes(content)
    images = open_images(archive)
    images.image(name(1))
    with pytest.raises(UserError, match=r"img_align_celeba\.zip, 000002\.jpg: cannot be unpacked .*CRC"):
        images.image(name(2))


def test_image_of_another_size(tmp_path: Path) -> None:
    archive = write_zip(tmp_path / "some.zip", [(name(1), jpeg(1, height=178, width=100))])
    with pytest.raises(UserError, match=r"some\.zip, 000001\.jpg: 100 x 178 pixels found, 178 x 218 expected"):
        open_images(archive).image(name(1))
