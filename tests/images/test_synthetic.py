"""Built-in faces: reproducible, in exactly CelebA's format, with attributes that mean what they say."""

import dataclasses
import io
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vaehpc.images.celeba import ATTRIBUTES, IMAGE_SHAPE
from vaehpc.images.faces.attributes import attributes_of
from vaehpc.images.faces.drawing import draw_face
from vaehpc.images.faces.population import sample_face
from vaehpc.images.faces.traits import Face, Glasses, Hat
from vaehpc.images.synthetic import partition_of, write_celeba

LISTS = ("list_attr_celeba.txt", "list_eval_partition.txt")


def face_of(number: int) -> Face:
    return sample_face(np.random.default_rng(number))


def entries(archive: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(archive) as opened:
        return {name: opened.read(name) for name in opened.namelist()}


def test_format_is_celebas(tmp_path: Path) -> None:
    archive = write_celeba(tmp_path, 12, seed=1, workers=1)
    assert {path.name for path in tmp_path.iterdir()} == {archive.name, *LISTS}
    names = [f"{number:06d}.jpg" for number in range(1, 13)]
    assert list(entries(archive)) == [f"img_align_celeba/{name}" for name in names]
    with Image.open(io.BytesIO(entries(archive)["img_align_celeba/000001.jpg"])) as image:
        assert (image.format, image.mode, image.size) == ("JPEG", "RGB", (178, 218))
    count, header, *rows = (tmp_path / LISTS[0]).read_text().splitlines()
    assert (count, tuple(header.split())) == ("12", ATTRIBUTES)
    assert [row.split()[0] for row in rows] == names
    assert {value for row in rows for value in row.split()[1:]} == {"-1", "1"}
    assert {len(row.split()) for row in rows} == {41}
    assert [row.split()[0] for row in (tmp_path / LISTS[1]).read_text().splitlines()] == names


def test_face_depends_on_seed_and_number_only(tmp_path: Path) -> None:
    many = entries(write_celeba(tmp_path / "many", 130, seed=1, workers=2))
    few = entries(write_celeba(tmp_path / "few", 3, seed=1, workers=1))
    other = entries(write_celeba(tmp_path / "other", 3, seed=2, workers=1))
    assert few == {name: many[name] for name in few}
    assert len(set(many.values()) | set(other.values())) == 133
    again = write_celeba(tmp_path / "again", 3, seed=1, workers=1)
    assert again.read_bytes() == (tmp_path / "few" / again.name).read_bytes()


def test_partition_has_celebas_shares_in_order() -> None:
    codes = [partition_of(number, 202_599) for number in range(1, 202_600)]
    assert [codes.count(code) for code in (0, 1, 2)] == [162_770, 19_867, 19_962]
    assert codes == sorted(codes)


def test_every_attribute_is_sometimes_there_and_sometimes_not() -> None:
    shares = np.mean([list(attributes_of(face_of(number)).values()) for number in range(800)], axis=0)
    assert [name for name, share in zip(ATTRIBUTES, shares, strict=True) if not 0.005 < share < 0.95] == []


def pixels(face: Face) -> np.ndarray:
    return draw_face(face).astype(np.float64)


def plain(**changes: object) -> Face:
    """A face with nothing worn, in a sharp picture without noise."""
    face = face_of(11)
    scene = dataclasses.replace(face.scene, blur=0.0, noise=0.0)
    nothing = {"glasses": None, "hat": None, "earrings": None, "necklace": None, "necktie": None, "scene": scene}
    return dataclasses.replace(face, **nothing | changes)


def changed_rows(before: Face, after: Face) -> tuple[int, int]:
    """First and last row in which the pictures differ clearly."""
    rows = np.flatnonzero(np.abs(pixels(before) - pixels(after)).max(axis=(1, 2)) > 16)
    return int(rows[0]), int(rows[-1])


def test_glasses_are_around_the_eyes_and_are_an_attribute() -> None:
    glasses = Glasses(half_width=15, half_height=10, squareness=0.3, thickness=2, colour=(20, 20, 20), tint=0.9)
    worn = plain(glasses=glasses)
    first, last = changed_rows(plain(), worn)
    assert 85 < first < 111 < last < 135
    assert (attributes_of(plain())["Eyeglasses"], attributes_of(worn)["Eyeglasses"]) == (False, True)


def test_a_hat_covers_the_crown_and_is_an_attribute() -> None:
    worn = plain(hat=Hat(kind="beanie", colour=(200, 30, 30), brim=30, height=45))
    first, last = changed_rows(plain(), worn)
    assert first < 60
    assert last < 105
    assert (attributes_of(plain())["Wearing_Hat"], attributes_of(worn)["Wearing_Hat"]) == (False, True)


def test_an_open_mouth_changes_the_mouth_only() -> None:
    face = plain()
    closed, opened = (dataclasses.replace(face, mouth=dataclasses.replace(face.mouth, gap=gap)) for gap in (0.0, 6.0))
    first, last = changed_rows(closed, opened)
    assert 135 < first < last < 180
    assert (attributes_of(closed)["Mouth_Slightly_Open"], attributes_of(opened)["Mouth_Slightly_Open"]) == (False, True)


def test_pale_skin_is_brighter() -> None:
    face = plain()
    pale, deep = (dataclasses.replace(face, skin=dataclasses.replace(face.skin, tone=tone)) for tone in (0.0, 0.9))
    cheeks = (slice(118, 135), slice(60, 118))
    assert pixels(pale)[cheeks].mean() > pixels(deep)[cheeks].mean() + 40
    assert (attributes_of(pale)["Pale_Skin"], attributes_of(deep)["Pale_Skin"]) == (True, False)


def test_a_blurry_picture_has_weaker_edges() -> None:
    sharp = plain()
    blurry = dataclasses.replace(sharp, scene=dataclasses.replace(sharp.scene, blur=2.0))
    steps = [np.abs(np.diff(pixels(face), axis=1)).mean() for face in (sharp, blurry)]
    assert steps[1] < 0.8 * steps[0]
    assert (attributes_of(sharp)["Blurry"], attributes_of(blurry)["Blurry"]) == (False, True)


def test_faces_differ_and_fill_the_frame() -> None:
    drawn = np.array([pixels(face_of(number)) for number in range(12)])
    assert drawn.shape[1:] == IMAGE_SHAPE
    distances = np.abs(drawn[:, None] - drawn[None]).mean(axis=(2, 3, 4))
    assert distances[~np.eye(12, dtype=bool)].min() > 10


@pytest.mark.parametrize(("num_images", "workers"), [(0, 1), (1_000_000, 1), (5, 0)])
def test_impossible_requests_say_what_is_allowed(tmp_path: Path, num_images: int, workers: int) -> None:
    with pytest.raises(ValueError, match="must be"):
        write_celeba(tmp_path, num_images, seed=0, workers=workers)


def test_an_aborted_write_leaves_no_file_under_its_name(tmp_path: Path) -> None:
    def give_up(number: int) -> None:
        if number == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_celeba(tmp_path, 9, seed=0, workers=1, on_progress=give_up)
    assert [path.name for path in tmp_path.iterdir() if not path.name.endswith(".tmp")] == []
