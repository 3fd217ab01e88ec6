from pathlib import Path

import numpy as np
import pytest

from tests.celeba_files import attribute_list, attribute_values, name, write_celeba, write_folder
from vaehpc.command import UserError
from vaehpc.images.annotations import find_list, read_attributes, read_partition
from vaehpc.images.celeba import open_images
from vaehpc.schema.results import ATTRIBUTES

NUMBERS = (1, 2, 3, 6)
NAMES = [name(number) for number in NUMBERS]


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "list.txt"
    path.write_text(text)
    return path


def test_attributes_are_those_of_the_images(tmp_path: Path) -> None:
    values = read_attributes(written(tmp_path, attribute_list(NUMBERS)), NAMES)
    assert values.dtype == np.bool_
    np.testing.assert_array_equal(values, attribute_values(NUMBERS) == 1)


def test_attributes_may_stand_in_any_order(tmp_path: Path) -> None:
    count, header, *rows = attribute_list(NUMBERS).splitlines()
    header = " ".join(reversed(header.split()))
    rows = [" ".join([first, *reversed(values)]) for first, *values in map(str.split, reversed(rows))]
    values = read_attributes(written(tmp_path, "\r\n".join([count, header, *rows, "", ""])), NAMES)
    np.testing.assert_array_equal(values, attribute_values(NUMBERS) == 1)


def test_partition_is_that_of_the_images(tmp_path: Path) -> None:
    path = written(tmp_path, "000001.jpg 0\n000002.jpg 2\n000003.jpg 1\n000006.jpg 0\n")
    assert read_partition(path, NAMES).tolist() == [0, 2, 1, 0]


def edited(line: int, text: str) -> str:
    lines = attribute_list(NUMBERS).splitlines()
    lines[line - 1] = text
    return "\n".join(lines)


ROW = "000001.jpg " + " ".join(["1"] * 40)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"line 1: the number of images expected, found an empty file"),
        ("<!DOCTYPE html>", r"line 1: the number of images expected, found '<!DOCTYPE html>'"),
        (edited(2, "Bald Young"), r"line 2: CelebA's 40 attribute names expected, found 2"),
        (edited(2, " ".join(ATTRIBUTES[:-1]) + " Old"), r"line 2: .* found 40; they differ in Old"),
        (edited(1, "202599"), r"line 1: announces 202,599 images, 4 follow: the file is incomplete"),
        (edited(4, "000002.jpg 1 -1 1"), r"line 4: a file name and 40 values -1 or 1 expected, found 3"),
        (edited(4, ROW.replace("1.jpg 1", "2.jpg 0")), r"line 4: a file name and 40 values -1 or 1 expected"),
        (edited(4, ""), r"line 4: a file name and 40 values"),
        (edited(4, ROW), r"line 4: 000001\.jpg is there a second time"),
        (edited(4, ROW.replace("000001", "000009")), r"no line for 1 of the 4 images; the first is 000002\.jpg"),
        (attribute_list([1, 2, 3]), r"no line for 1 of the 4 images; the first is 000006\.jpg"),
        (attribute_list([1, 2, 3, 5, 6, 4]), r"lists 2 images that are not there; the first is 000004\.jpg"),
    ],
)
def test_bad_attribute_list(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(UserError, match=rf"list\.txt.*{message}"):
        read_attributes(written(tmp_path, text), NAMES)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("000001.jpg 0\n000002.jpg 3\n", r"line 2: a file name and 1 value 0 or 1 or 2 expected"),
        ("000001.jpg 0\n", r"no line for 3 of the 4 images; the first is 000002\.jpg"),
    ],
)
def test_bad_partition(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(UserError, match=rf"list\.txt.*{message}"):
        read_partition(written(tmp_path, text), NAMES)


def test_list_that_is_not_text(tmp_path: Path) -> None:
    path = tmp_path / "list.txt"
    path.write_bytes(b"\xff\xd8\xff\xe0")
    with pytest.raises(UserError, match=r"list\.txt is not a text file"):
        read_attributes(path, NAMES)


def test_list_that_was_named_and_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"list\.txt cannot be read: No such file"):
        read_attributes(tmp_path / "list.txt", NAMES)


# Where the lists lie


@pytest.mark.parametrize("place", ["CelebA", "CelebA/Anno", "CelebA/Eval", "CelebA/Img", "CelebA/Img/img_align_celeba"])
def test_list_near_an_unpacked_folder(tmp_path: Path, place: str) -> None:
    folder = write_folder(tmp_path / "CelebA/Img/img_align_celeba", [1])
    (tmp_path / place).mkdir(exist_ok=True)
    (tmp_path / place / "some_list.txt").write_text("")
    found = find_list(open_images(folder), "some_list.txt", "--attributes")
    assert found == tmp_path / place / "some_list.txt"


def test_list_beside_an_archive(tmp_path: Path) -> None:
    images = open_images(write_celeba(tmp_path, 1))
    assert find_list(images, "list_attr_celeba.txt", "--attributes") == tmp_path / "list_attr_celeba.txt"


def test_list_that_is_nowhere(tmp_path: Path) -> None:
    images = open_images(write_celeba(tmp_path, 1))
    with pytest.raises(UserError, match=r"some_list\.txt does not lie beside .*name it with --attributes FILE"):
        find_list(images, "some_list.txt", "--attributes")
