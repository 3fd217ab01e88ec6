"""Built-in faces: reproducible, in exactly CelebA's format, with attributes that mean what they say."""

import dataclasses
import io
import os
import re
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from vaehpc.images.celeba import ARCHIVE, IMAGE_SHAPE
from vaehpc.images.faces.attributes import attributes_of
from vaehpc.images.faces.canvas import Canvas
from vaehpc.images.faces.drawing import draw_face
from vaehpc.images.faces.population import HAIR_COLOURS, sample_face
from vaehpc.images.faces.traits import Beard, Earrings, Face, Glasses, HairShade, Hat, Necklace, Necktie
from vaehpc.images.synthetic import CHUNK, partition_of, write_celeba
from vaehpc.schema.results import ATTRIBUTES

ATTRIBUTE_LIST, PARTITION_LIST = "list_attr_celeba.txt", "list_eval_partition.txt"
ALL_THREE = {ARCHIVE, ATTRIBUTE_LIST, PARTITION_LIST}


def face_of(number: int) -> Face:
    return sample_face(np.random.default_rng(number))


def entries(archive: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(archive) as opened:
        return {name: opened.read(name) for name in opened.namelist()}


def names_in(directory: Path) -> set[str]:
    return {path.name for path in directory.iterdir()}


# The files


def test_format_is_celebas(tmp_path: Path) -> None:
    archive = write_celeba(tmp_path, 12, seed=1, workers=1)
    assert names_in(tmp_path) == ALL_THREE
    names = [f"{number:06d}.jpg" for number in range(1, 13)]
    assert list(entries(archive)) == [f"img_align_celeba/{name}" for name in names]
    with zipfile.ZipFile(archive) as opened:
        assert {entry.compress_type for entry in opened.infolist()} == {zipfile.ZIP_STORED}
    with Image.open(io.BytesIO(entries(archive)["img_align_celeba/000001.jpg"])) as image:
        assert (image.format, image.mode, image.size) == ("JPEG", "RGB", (178, 218))
    count, header, *rows = (tmp_path / ATTRIBUTE_LIST).read_text().removesuffix("\n").split("\n")
    assert (count, header) == ("12", " ".join(ATTRIBUTES) + " ")
    assert [row[:10] for row in rows] == names
    assert all(re.fullmatch(r"\d{6}\.jpg( -1|  1){40}", row) for row in rows)
    partition = (tmp_path / PARTITION_LIST).read_text()
    assert partition == "".join(f"{name} {code}\n" for name, code in zip(names, "000000000012", strict=True))


def test_the_listed_attributes_are_those_of_the_picture(tmp_path: Path) -> None:
    archive = write_celeba(tmp_path, 3, seed=5, workers=1)
    rows = (tmp_path / ATTRIBUTE_LIST).read_text().splitlines()[2:]
    for number, row in enumerate(rows, start=1):
        face = sample_face(np.random.default_rng(np.random.SeedSequence(5, spawn_key=(number,))))
        assert [value == "1" for value in row.split()[1:]] == list(attributes_of(face).values())
        with Image.open(io.BytesIO(entries(archive)[f"img_align_celeba/{number:06d}.jpg"])) as image:
            difference = np.asarray(image).astype(int) - draw_face(face)
        assert np.abs(difference).mean() < 4


def test_face_depends_on_seed_and_number_only(tmp_path: Path) -> None:
    counts: list[int] = []
    many = entries(write_celeba(tmp_path / "many", 2 * CHUNK + 2, seed=1, workers=2, on_progress=counts.append))
    few = entries(write_celeba(tmp_path / "few", 3, seed=1, workers=1))
    other = entries(write_celeba(tmp_path / "other", 3, seed=2, workers=1))
    assert counts == list(range(1, 2 * CHUNK + 3))
    assert few == {name: many[name] for name in few}
    assert len(set(many.values()) | set(other.values())) == 2 * CHUNK + 5
    again = write_celeba(tmp_path / "again", 3, seed=1, workers=1)
    assert again.read_bytes() == (tmp_path / "few" / ARCHIVE).read_bytes()


def test_partition_has_celebas_shares_in_order() -> None:
    codes = [partition_of(number, 202_599) for number in range(1, 202_600)]
    assert [codes.count(code) for code in (0, 1, 2)] == [162_770, 19_867, 19_962]
    assert codes == sorted(codes)


@pytest.mark.parametrize(
    ("num_images", "workers", "message"),
    [
        (0, 1, "num_images is 0, must be 1 to 999,999"),
        (1_000_000, 1, "num_images is 1000000, must be 1 to 999,999"),
        (5, 0, "workers is 0, must be at least 1"),
    ],
)
def test_impossible_requests_say_what_is_allowed(tmp_path: Path, num_images: int, workers: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        write_celeba(tmp_path, num_images, seed=0, workers=workers)
    assert names_in(tmp_path) == set()


def give_up(number: int) -> None:
    if number == 2:
        raise KeyboardInterrupt


@pytest.mark.parametrize("workers", [1, 2])
def test_an_aborted_write_leaves_nothing(tmp_path: Path, workers: int) -> None:
    with pytest.raises(KeyboardInterrupt):
        write_celeba(tmp_path, 9, seed=0, workers=workers, on_progress=give_up)
    assert names_in(tmp_path) == set()


def test_an_aborted_rewrite_leaves_what_was_there(tmp_path: Path) -> None:
    write_celeba(tmp_path, 3, seed=0, workers=1)
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(KeyboardInterrupt):
        write_celeba(tmp_path, 4, seed=1, workers=1, on_progress=give_up)
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_zip_never_stands_beside_the_lists_of_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_celeba(tmp_path, 3, seed=0, workers=1)
    rename = Path.replace

    def stop_at_the_zip(self: Path, target: Path) -> Path:
        if target.name == ARCHIVE:
            raise KeyboardInterrupt
        return rename(self, target)

    monkeypatch.setattr(Path, "replace", stop_at_the_zip)
    with pytest.raises(KeyboardInterrupt):
        write_celeba(tmp_path, 4, seed=1, workers=1)
    assert names_in(tmp_path) == {ATTRIBUTE_LIST, PARTITION_LIST}
    assert (tmp_path / ATTRIBUTE_LIST).read_text().startswith("4\n")


def test_a_killed_write_leaves_no_zip_and_no_workers(tmp_path: Path) -> None:
    code = f"""if __name__ == "__main__":
    import pathlib, vaehpc.images.synthetic as s
    s.write_celeba(pathlib.Path({str(tmp_path)!r}), 100_000, 0, 2, lambda n: print(n, flush=True))"""
    script = tmp_path / "write.py"
    script.write_text(code)
    with subprocess.Popen([sys.executable, script], stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout is not None
        assert writer.stdout.readline() == "1\n"
        children = Path(f"/proc/{writer.pid}/task/{writer.pid}/children").read_text().split()
        writer.kill()
    assert writer.returncode == -signal.SIGKILL
    assert len(children) >= 2
    assert not names_in(tmp_path) & ALL_THREE
    deadline = time.monotonic() + 30
    while any(is_running(int(pid)) for pid in children):
        assert time.monotonic() < deadline, "workers outlive the process that started them"
        time.sleep(0.01)


def is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (ProcessLookupError, FileNotFoundError):
        return False


# The faces

COLOURS = [(250.0, 30.0, 30.0), (20.0, 20.0, 250.0)]


def pixels(face: Face) -> npt.NDArray[np.float64]:
    return draw_face(face).astype(np.float64)


def plain(**changes: Any) -> Face:
    """A face that looks straight ahead, with short hair and nothing worn, in a sharp picture without noise."""
    face = face_of(11)
    bare = dataclasses.replace(
        face,
        pose=dataclasses.replace(face.pose, roll=0.0, shift_x=0.0, shift_y=0.0, scale=1.0, turn=0.0, nod=0.0),
        head=dataclasses.replace(face.head, asymmetry=0.0, double_chin=0.0),
        hair=dataclasses.replace(face.hair, bald=False, length=5.0, bangs=0.0, shade="brown", colour=(98, 64, 42)),
        beard=Beard(0.0, 0.0, 0.0, 0.0, 0.0),
        light=dataclasses.replace(face.light, right=0.0),
        scene=dataclasses.replace(face.scene, blur=0.0, noise=0.0),
        glasses=None,
        hat=None,
        earrings=None,
        necklace=None,
        necktie=None,
    )
    return dataclasses.replace(bare, **changes)


def changed_rows(before: Face, after: Face) -> tuple[int, int]:
    """First and last row in which the pictures differ clearly."""
    rows = np.flatnonzero(np.abs(pixels(before) - pixels(after)).max(axis=(1, 2)) > 16)
    return int(rows[0]), int(rows[-1])


def test_every_attribute_is_sometimes_there_and_sometimes_not() -> None:
    shares = np.mean([list(attributes_of(face_of(number)).values()) for number in range(800)], axis=0)
    assert [name for name, share in zip(ATTRIBUTES, shares, strict=True) if not 0.005 < share < 0.95] == []


@pytest.mark.parametrize("turn", [-0.3, 0.0, 0.3])
def test_eyes_are_where_celeba_aligns_them(turn: float) -> None:
    face = plain()
    turned = dataclasses.replace(face, pose=dataclasses.replace(face.pose, turn=turn))
    red, blue = (
        dataclasses.replace(turned, eyes=dataclasses.replace(face.eyes, iris=colour, gaze_x=0.0, gaze_y=0.0))
        for colour in COLOURS
    )
    rows, columns = np.nonzero(np.abs(pixels(red) - pixels(blue)).max(axis=2) > 60)
    left = columns < 88
    centres = [(columns[side].mean(), rows[side].mean()) for side in (left, ~left)]
    np.testing.assert_allclose(centres, [(69, 111), (108, 111)], atol=1.5)


def test_glasses_are_around_the_eyes_and_are_an_attribute() -> None:
    glasses = Glasses(half_width=15, half_height=10, squareness=0.3, thickness=2, colour=(20, 20, 20), tint=0.9)
    worn = plain(glasses=glasses)
    first, last = changed_rows(plain(), worn)
    assert 85 < first < 111 < last < 135
    assert (attributes_of(plain())["Eyeglasses"], attributes_of(worn)["Eyeglasses"]) == (False, True)


def test_a_hat_covers_the_crown_and_is_an_attribute() -> None:
    worn = plain(hat=Hat(kind="beanie", colour=(200, 30, 30), brim=30, height=10))
    first, last = changed_rows(plain(), worn)
    assert first < 60
    assert last < 105
    assert (attributes_of(plain())["Wearing_Hat"], attributes_of(worn)["Wearing_Hat"]) == (False, True)


@pytest.mark.parametrize(
    ("name", "worn", "above", "below"),
    [
        ("Wearing_Earrings", {"earrings": Earrings(colour=(230, 200, 90), size=4, drop=10)}, 125, 155),
        ("Wearing_Necklace", {"necklace": Necklace(colour=(240, 30, 30), depth=90, thickness=2, beads=0)}, 160, 210),
        ("Wearing_Necktie", {"necktie": Necktie(colour=(220, 20, 20), stripe=(9, 9, 9), stripes=0)}, 180, 217),
    ],
)
def test_what_is_worn_is_drawn_in_its_place_and_is_an_attribute(
    name: str, worn: dict[str, Any], above: int, below: int
) -> None:
    first, last = changed_rows(plain(), plain(**worn))
    assert above - 30 < first < last <= below
    assert last > above
    assert (attributes_of(plain())[name], attributes_of(plain(**worn))[name]) == (False, True)


def test_a_necktie_has_its_colour_below_the_chin() -> None:
    red, blue = (plain(necktie=Necktie(colour=colour, stripe=colour, stripes=0)) for colour in COLOURS)
    assert 185 < changed_rows(red, blue)[0] < 195
    rows, columns = np.nonzero(np.abs(pixels(red) - pixels(blue)).max(axis=2) > 60)
    assert len(rows) > 100
    assert abs(columns.mean() - 88.5) < 2


def test_an_open_mouth_changes_the_mouth_only() -> None:
    face = plain()
    closed, opened = (dataclasses.replace(face, mouth=dataclasses.replace(face.mouth, gap=gap)) for gap in (0.0, 6.0))
    first, last = changed_rows(closed, opened)
    assert 135 < first < last < 180
    lips = (slice(145, 165), slice(80, 97))
    whitest = [pixels(face)[lips].min(axis=2).max() for face in (closed, opened)]
    assert whitest[1] > whitest[0] + 30, "no teeth are seen"
    assert (attributes_of(closed)["Mouth_Slightly_Open"], attributes_of(opened)["Mouth_Slightly_Open"]) == (False, True)


def test_pale_skin_is_brighter() -> None:
    face = plain()
    pale, deep = (dataclasses.replace(face, skin=dataclasses.replace(face.skin, tone=tone)) for tone in (0.0, 0.9))
    cheeks = (slice(118, 135), slice(60, 118))
    assert pixels(pale)[cheeks].mean() > pixels(deep)[cheeks].mean() + 40
    assert (attributes_of(pale)["Pale_Skin"], attributes_of(deep)["Pale_Skin"]) == (True, False)


def test_hair_has_the_colour_of_its_attribute() -> None:
    crown = (slice(45, 60), slice(75, 102))
    names: dict[HairShade, str] = {
        "black": "Black_Hair",
        "brown": "Brown_Hair",
        "gray": "Gray_Hair",
        "blond": "Blond_Hair",
    }
    seen = []
    for shade, name in names.items():
        face = plain(hair=dataclasses.replace(plain().hair, shade=shade, colour=HAIR_COLOURS[shade]))
        assert [other for other in names.values() if attributes_of(face)[other]] == [name]
        seen.append(pixels(face)[crown].mean(axis=(0, 1)))
    black, brown, gray, blond = seen
    assert black.mean() < brown.mean() < min(gray.mean(), blond.mean())
    assert np.ptp(gray) < 0.5 * np.ptp(blond)


def test_a_bald_head_shows_skin_and_has_no_hair_colour() -> None:
    bald = plain(hair=dataclasses.replace(plain().hair, bald=True))
    found = attributes_of(bald)
    assert found["Bald"]
    assert not any(found[name] for name in ATTRIBUTES if name.endswith("_Hair"))
    crown = (slice(50, 60), slice(75, 102))
    assert pixels(bald)[crown].mean() > pixels(plain())[crown].mean() + 20


def test_bangs_cover_the_forehead() -> None:
    covered = plain(hair=dataclasses.replace(plain().hair, bangs=1.0))
    forehead = (slice(80, 90), slice(75, 102))
    assert pixels(covered)[forehead].mean() < pixels(plain())[forehead].mean() - 20
    assert (attributes_of(plain())["Bangs"], attributes_of(covered)["Bangs"]) == (False, True)


def test_a_beard_is_below_the_nose() -> None:
    bearded = plain(beard=Beard(stubble=0.0, full=0.9, goatee=0.0, mustache=0.9, sideburns=0.0))
    first, last = changed_rows(plain(), bearded)
    assert 120 < first < 160 < last
    found = attributes_of(bearded)
    assert (found["No_Beard"], found["Mustache"], attributes_of(plain())["No_Beard"]) == (False, True, True)


def test_light_comes_from_its_side() -> None:
    face = plain()
    left, right = (
        pixels(dataclasses.replace(face, light=dataclasses.replace(face.light, right=side, contrast=1.0)))
        for side in (-0.8, 0.8)
    )
    left_cheek, right_cheek = (slice(115, 150), slice(52, 70)), (slice(115, 150), slice(107, 125))
    assert left[left_cheek].mean() > left[right_cheek].mean() + 20
    assert right[right_cheek].mean() > right[left_cheek].mean() + 20


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


def test_windows_hold_what_is_drawn_in_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each part is drawn in a window of its own size, posed with the head: larger ones must not show more."""
    extremes = [(turn, nod) for turn in (-0.3, 0.0, 0.3) for nod in (-0.2, 0.2)]
    faces = []
    for number in range(48):
        face, (turn, nod) = face_of(number), extremes[number % 6]
        # No beard: its grain is drawn at random for each pixel of its window.
        pose = dataclasses.replace(face.pose, turn=turn, nod=nod)
        faces.append(dataclasses.replace(face, pose=pose, beard=plain().beard))
    drawn = [pixels(face) for face in faces]
    near = Canvas.near
    monkeypatch.setattr(Canvas, "near", lambda self, x, y, width, height: near(self, x, y, width + 6, height + 6))
    for number, (face, before) in enumerate(zip(faces, drawn, strict=True)):
        assert np.abs(pixels(face) - before).max() < 25, f"face {number}"


def test_the_same_face_is_the_same_picture() -> None:
    assert all((draw_face(face_of(number)) == draw_face(face_of(number))).all() for number in range(5))
