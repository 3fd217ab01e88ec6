"""CelebA and other images in the shapes that people have: read as the plain one, or refused by a text that helps."""

import io
import os
import shutil
import struct
import sys
import zipfile
import zlib
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import simplejpeg
from PIL import Image

from tests.celeba_files import attribute_list, attribute_values, jpeg, name, write_zip
from vaehpc.command import UserError
from vaehpc.images.places import Folder
from vaehpc.images.preprocess import preprocess
from vaehpc.schema.data import Request
from vaehpc.schema.results import ATTRIBUTES
from vaehpc.tasks.prepare import asked_source

NUMBERS = range(1, 6)
FACES = {number: jpeg(number) for number in NUMBERS}
CODES = {number: number % 3 for number in NUMBERS}
Shape = Callable[[Path], dict[str, Any]]
"""Lays files down in a folder, and says what `prepare` is asked for."""

ATTR_TXT = attribute_list(NUMBERS)
PART_TXT = "".join(f"{name(number)} {code}\n" for number, code in CODES.items())
PART_CSV = "image_id,partition\n" + PART_TXT.replace(" ", ",")
ATTR_CSV = "\n".join(
    ",".join(("image_id", *ATTRIBUTES) if not line else line.split()) for line in ["", *ATTR_TXT.splitlines()[2:]]
)


def entries(folder: str = "img_align_celeba", numbers: Iterable[int] = NUMBERS) -> list[tuple[str, bytes]]:
    return [(f"{folder}/{name(number)}".lstrip("/"), FACES[number]) for number in numbers]


def put(folder: Path, files: Iterable[tuple[str, bytes | str]]) -> Path:
    for member, content in files:
        path = folder / member
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return folder


TXT = (("list_attr_celeba.txt", ATTR_TXT.encode()), ("list_eval_partition.txt", PART_TXT.encode()))
CSV = (("list_attr_celeba.csv", ATTR_CSV.encode()), ("list_eval_partition.csv", PART_CSV.encode()))
KAGGLE = [
    *entries("img_align_celeba/img_align_celeba"),
    *CSV,
    ("list_bbox_celeba.csv", b"image_id,x_1,y_1,width,height\n000001.jpg,95,71,226,313\n"),
    ("list_landmarks_align_celeba.csv", b"image_id,lefteye_x\n000001.jpg,69\n"),
]


def zipped(files: Iterable[tuple[str, bytes]], compression: int = zipfile.ZIP_STORED) -> bytes:
    memory = io.BytesIO()
    with zipfile.ZipFile(memory, "w", compression) as archive:
        for member, content in files:
            info = zipfile.ZipInfo(member)
            info.filename = member  # ZipInfo mends backslashes on systems that have them
            info.compress_type = compression
            archive.writestr(info, content)
    return memory.getvalue()


def with_lists(attributes: bytes | str, partition: bytes | str, suffix: str = "txt") -> Shape:
    """The plain archive beside lists of other forms."""

    def lay(folder: Path) -> dict[str, Any]:
        put(folder, [("img_align_celeba.zip", zipped(entries()))])
        put(folder, [(f"list_attr_celeba.{suffix}", attributes), (f"list_eval_partition.{suffix}", partition)])
        return {"celeba": folder / "img_align_celeba.zip", "split": "official"}

    return lay


def with_archive(files: Iterable[tuple[str, bytes]], file: str = "img_align_celeba.zip", **options: int) -> Shape:
    """An archive beside the plain lists."""

    def lay(folder: Path) -> dict[str, Any]:
        put(folder, [(file, zipped(files, **options)), *TXT])
        return {"celeba": folder / file}

    return lay


def folder_of(files: Iterable[tuple[str, bytes]], asked: str = "", **request: Any) -> Shape:
    """Files in a folder, which is asked for, or what lies in it."""

    def lay(folder: Path) -> dict[str, Any]:
        put(folder, files)
        return {"celeba": folder / asked, **request}

    return lay


def linked(beside_link: bool) -> Shape:
    def lay(folder: Path) -> dict[str, Any]:
        put(folder / "store", [("a1b2", zipped(entries())), *(() if beside_link else TXT)])
        put(folder / "mine", TXT if beside_link else ())
        (folder / "mine").mkdir(exist_ok=True)
        (folder / "mine/faces.zip").symlink_to(folder / "store/a1b2")
        return {"celeba": folder / "mine/faces.zip"}

    return lay


def linked_blobs(folder: Path) -> dict[str, Any]:
    for member, content in [*entries(), *TXT]:
        blob = put(folder, [(f"blobs/{zlib.crc32(content):08x}", content)]) / f"blobs/{zlib.crc32(content):08x}"
        link = folder / "snapshot" / member
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(blob)
    (folder / "snapshot/again").symlink_to(folder / "snapshot")  # leads back
    return {"celeba": folder / "snapshot"}


def named_lists(packed: bool) -> Shape:
    def lay(folder: Path) -> dict[str, Any]:
        put(folder, [("faces/all.zip", zipped(entries()))])
        lists = [("far/away/a.txt", ATTR_TXT.encode()), ("far/away/p.txt", PART_TXT.encode())]
        if packed:
            lists = [(f"{member}.zip", zipped([("list.csv", content)])) for member, content in lists]
        put(folder, lists)
        named = dict(zip(("attributes", "partition"), (folder / member for member, _ in lists), strict=True))
        return {"celeba": folder / "faces", **named}

    return lay


def parquet(folder: Path) -> dict[str, Any]:
    put(folder, TXT)
    for part, numbers in enumerate(((4, 5), (1, 2, 3))):
        images = [{"bytes": FACES[number], "path": name(number)} for number in numbers]
        table = pa.table({"image": images, "celeb_id": list(numbers)})
        pq.write_table(table, folder / f"train-{part}.parquet", row_group_size=2)
    return {"celeba": folder}


def parquet_of_text(folder: Path) -> dict[str, Any]:
    pq.write_table(pa.table({"text": ["a"]}), folder / "a.parquet")
    return {"celeba": folder / "a.parquet"}


def reordered() -> tuple[str, str]:
    count, header, *rows = ATTR_TXT.splitlines()
    rows = [" ".join([first, *reversed(values)]) for first, *values in map(str.split, reversed(rows))]
    return "\n".join([count, " ".join(reversed(header.split())), *rows]), "".join(reversed(PART_TXT.splitlines(True)))


def wild(folder: str) -> list[tuple[str, bytes]]:
    return [(f"{folder}/{name(number)}", jpeg(number, height=100 + number)) for number in NUMBERS]


SAME: dict[str, Shape] = {
    "plain": with_archive(entries()),
    "kaggle": lambda folder: {"celeba": put(folder, [("archive.zip", zipped(KAGGLE))]) / "archive.zip"},
    "kaggle compressed": lambda folder: {"celeba": put(folder, [("a.zip", zipped(KAGGLE, zipfile.ZIP_DEFLATED))])},
    "kaggle in its folder": folder_of([("archive.zip", zipped(KAGGLE))]),
    "kaggle unpacked": folder_of(KAGGLE),
    "kaggle unpacked, the inner folder": folder_of(KAGGLE, "img_align_celeba/img_align_celeba"),
    "kaggle unpacked beside the archive": folder_of([("archive.zip", zipped(KAGGLE)), *KAGGLE]),
    "images twice": folder_of([*entries(), *KAGGLE]),
    "csv": with_lists(ATTR_CSV, PART_CSV, "csv"),
    "csv with semicolons, quotes, BOM, CRLF": with_lists(
        b"\xef\xbb\xbf" + ATTR_CSV.replace(",", '";"').replace("\n", '"\r\n"').encode(),
        b"\xef\xbb\xbf" + PART_CSV.replace(",", ";").replace("\n", "\r\n").encode(),
        "csv",
    ),
    "csv with 0 and 1": with_lists(ATTR_CSV.replace("-1", "0"), PART_CSV, "csv"),
    "txt without count": with_lists(ATTR_TXT.split("\n", 1)[1], PART_TXT),
    "txt with counts": with_lists(ATTR_TXT, f"5\n{PART_TXT}"),
    "txt with BOM, CRLF, blank lines": with_lists(
        "\ufeff" + ATTR_TXT.replace("\n", "\r\n\r\n"), "\ufeff\n" + PART_TXT.replace("\n", "\r\n") + "\n\n"
    ),
    "txt of an old Mac": with_lists(ATTR_TXT.replace("\n", "\r"), PART_TXT.replace("\n", "\r")),
    "txt in UTF-16": with_lists(ATTR_TXT.encode("utf-16"), PART_TXT.encode("utf-16")),
    "txt in another order": with_lists(*reordered()),
    "names in lists as Windows writes them": with_lists(
        ATTR_TXT.replace("0000", "img_align_celeba\\0000").replace(".jpg", ".JPG"), PART_TXT.replace("0000", "./0000")
    ),
    "names in lists without ending": with_lists(ATTR_TXT.replace(".jpg", ""), PART_TXT.replace(".jpg", ".png")),
    "lists in capitals": folder_of([*entries(), *((member.upper(), content) for member, content in TXT)]),
    "a list downloaded twice": folder_of([*entries(), *TXT, ("list_attr_celeba (1).txt", b"half")]),
    "lists in the archive": with_archive([*entries(), *TXT]),
    "lists zipped one by one": folder_of(
        [
            ("faces.zip", zipped(entries())),
            *((f"{member}.zip", zipped([(member, content)])) for member, content in CSV),
        ],
        "faces.zip",
    ),
    "lists beside the link": linked(beside_link=True),
    "lists beside what the link leads to": linked(beside_link=False),
    "lists named": named_lists(packed=False),
    "lists named, each in a zip": named_lists(packed=True),
    "torchvision": folder_of(
        (f"celeba/{member}", content) for member, content in [("img_align_celeba.zip", zipped(entries())), *TXT]
    ),
    "torchvision unpacked": folder_of(
        [
            (f"celeba/{member}", content)
            for member, content in [("img_align_celeba.zip", zipped(entries())), *entries(), *TXT]
        ]
    ),
    "torchvision's folder": folder_of(
        ((f"celeba/{member}", content) for member, content in [*entries(), *TXT]), "celeba"
    ),
    "CelebA's own drive": folder_of(
        [
            ("Img/img_align_celeba.zip", zipped(entries())),
            ("Anno/list_attr_celeba.txt", ATTR_TXT.encode()),
            ("Eval/list_eval_partition.txt", PART_TXT.encode()),
        ]
    ),
    "CelebA's own drive, its zip": folder_of(
        [
            ("Img/img_align_celeba.zip", zipped(entries())),
            ("Anno/list_attr_celeba.txt", ATTR_TXT.encode()),
            ("Eval/list_eval_partition.txt", PART_TXT.encode()),
        ],
        "Img/img_align_celeba.zip",
    ),
    "a download of that drive, a zip in a zip": with_archive(
        [
            ("CelebA/Img/img_align_celeba.zip", zipped(entries())),
            *((f"CelebA/Anno/{member}", content) for member, content in TXT),
        ],
        "drive-download-001.zip",
    ),
    "archive of any name": with_archive(entries("some/where"), "faces"),
    "archive without folder": with_archive(entries("")),
    "archive with backslashes": folder_of(
        [
            (
                "faces.zip",
                zipped(
                    (f"CelebA/{member}".replace("/", "\\"), content)
                    for member, content in [("__MACOSX/000001.jpg", b"Mac OS X"), *entries(), *TXT]
                ),
            )
        ]
    ),
    "folder with backslashes": folder_of(
        [*((member.replace("/", "\\"), content) for member, content in entries()), *TXT]
    ),
    "archive with ./": with_archive((f"./{member}", content) for member, content in entries()),
    "capital .JPG": folder_of([*((member.replace(".jpg", ".JPG"), content) for member, content in entries()), *TXT]),
    ".jpeg without zeros": folder_of([*((f"{number}.jpeg", FACES[number]) for number in NUMBERS), *TXT]),
    "archive of a Mac": with_archive(
        [
            ("img_align_celeba/", b""),
            ("__MACOSX/img_align_celeba/._000001.jpg", b"Mac OS X"),
            ("img_align_celeba/._000002.jpg", b"Mac"),
            ("img_align_celeba/.DS_Store", b"\0\0\0\1Bud1"),
            *entries(),
        ]
    ),
    "folder of Windows": folder_of(
        [
            *entries(),
            *TXT,
            ("img_align_celeba/Thumbs.db", b"\xd0\xcf"),
            ("$RECYCLE.BIN/000001.jpg", b""),
            ("cover.jpg", FACES[1]),
        ]
    ),
    "images in several folders": folder_of([*entries("a", (2, 5)), *entries("b", (1, 3, 4)), *TXT]),
    "in several archives": folder_of(
        [("1.zip", zipped(entries("a", (2, 5)))), ("2.zip", zipped(entries("b", (1, 3, 4)))), *TXT]
    ),
    "images in the wild beside them": folder_of([*wild("Img/img_celeba"), *entries(), *TXT]),
    "a damaged zip of something else": folder_of([*entries(), *TXT, ("thesis.zip", b"PK\x03\x04 not much")]),
    "links to blobs": linked_blobs,
    "Parquet": parquet,
    "the first of more": folder_of([*entries(), *TXT], first=5),
}


def pixels(request: dict[str, Any], size: int = 16) -> tuple[Any, np.ndarray]:
    source = asked_source(Request.model_validate({"size": size} | request))
    assert source is not None
    decode = source.images.decode
    return source, np.stack(
        [preprocess(decode(file), size, "area", request.get("crop")) for file in source.images.files]
    )


def assert_is_plain(request: dict[str, Any], numbers: Iterable[int] = NUMBERS) -> None:
    """The pixels, numbers, attributes and partition of which shards, and their hashes, are made."""
    source, images = pixels(request)
    numbers = list(numbers)
    assert source.images.numbers.tolist() == numbers
    expected = [preprocess(simplejpeg.decode_jpeg(FACES[number]), 16, "area", 178) for number in numbers]
    np.testing.assert_array_equal(images, expected)
    np.testing.assert_array_equal(source.attributes, attribute_values(numbers) == 1)
    if source.partition is not None:
        assert source.partition.tolist() == [CODES[number] for number in numbers]


@pytest.mark.parametrize("shape", SAME.values(), ids=SAME)
def test_the_same_images_are_the_same_data(tmp_path: Path, shape: Shape) -> None:
    assert_is_plain({"split": "official"} | shape(tmp_path))


def test_a_link_that_leads_back_is_followed_once(tmp_path: Path) -> None:
    linked_blobs(tmp_path)
    assert len(Folder(tmp_path / "snapshot").files) == len(NUMBERS) + len(TXT)


def test_a_login_node_finds_them_without_a_decoder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for decoder in ("simplejpeg", "PIL"):
        monkeypatch.setitem(sys.modules, decoder, None)
    source = asked_source(Request.model_validate(SAME["images twice"](tmp_path)))
    assert source is not None
    assert source.images.numbers.tolist() == list(NUMBERS)


# A part of the images, or images alone


def only(numbers: Iterable[int], **request: Any) -> Shape:
    return folder_of([*entries(numbers=numbers), *TXT], **request)


@pytest.mark.parametrize(
    ("shape", "numbers"),
    [(only((1, 2, 3), first=2), (1, 2)), (only((1, 2), first=2), (1, 2)), (only((2, 4), only_present=True), (2, 4))],
)
def test_lists_may_cover_more_where_that_is_asked_for(tmp_path: Path, shape: Shape, numbers: tuple[int, ...]) -> None:
    assert_is_plain(shape(tmp_path), numbers)


def test_images_without_lists_have_no_attributes(tmp_path: Path) -> None:
    source, images = pixels(folder_of(entries())(tmp_path))
    assert (source.attribute_names, source.attributes.shape, len(images)) == ((), (5, 0), 5)


# Other photographs


def encoded(kind: str, mode: str = "RGB", size: tuple[int, int] = (40, 30), **options: Any) -> bytes:
    """Red on the left, blue on the right; as lossless as the kind allows."""
    image = Image.new("RGB", size, (200, 30, 30))
    image.paste((30, 30, 200), (size[0] // 2, 0, *size))
    memory = io.BytesIO()
    image.convert(mode).save(memory, kind, **options)
    return memory.getvalue()


def turned() -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was held upright
    return encoded("JPEG", quality=100, exif=exif)


PHOTOGRAPHS = [
    ("roses/red.JPG", encoded("JPEG", quality=100)),
    ("roses/wide.png", encoded("PNG", size=(90, 30))),
    ("tulips/b.webp", encoded("WEBP", size=(32, 64), lossless=True)),
    ("tulips/a.jpeg", encoded("JPEG", quality=100, size=(50, 50))),
    ("notes.txt", b"on flowers"),
    (".thumbs/red.jpg", b"hidden"),
    ("__MACOSX/roses/._red.JPG", b"Mac OS X"),
]


@pytest.mark.parametrize("packed", ["", "flowers.zip", "parts"])
def test_photographs_of_any_size_and_kind(tmp_path: Path, packed: str) -> None:
    put(tmp_path / "flowers", () if packed == "parts" else PHOTOGRAPHS)
    (tmp_path / "flowers").mkdir(exist_ok=True)
    write_zip(tmp_path / "flowers.zip", PHOTOGRAPHS)
    if packed == "parts":  # archives count where the folder has no photographs itself
        shutil.move(tmp_path / "flowers.zip", tmp_path / "flowers/part.zip")
    source, images = pixels({"images": tmp_path / (packed if packed.endswith(".zip") else "flowers")})
    assert source.images.name == "flowers"
    assert [file.name for file in source.images.files] == [
        "roses/red.JPG",
        "roses/wide.png",
        "tulips/a.jpeg",
        "tulips/b.webp",
    ]
    assert source.images.numbers.tolist() == [1, 2, 3, 4]
    np.testing.assert_allclose(images[:, 8, 2], [[200, 30, 30]] * 4, atol=3)
    np.testing.assert_allclose(images[:, 8, -2], [[30, 30, 200]] * 4, atol=3)


def test_celebas_images_as_photographs_are_the_same_pixels(tmp_path: Path) -> None:
    _, as_celeba = pixels(folder_of(entries())(tmp_path))
    _, as_photographs = pixels({"images": tmp_path})
    np.testing.assert_array_equal(as_photographs, as_celeba)


@pytest.mark.parametrize(
    ("content", "left", "right"),
    [
        (encoded("PNG", "L"), (83, 83, 83), (49, 49, 49)),
        (encoded("PNG", "LA"), (83, 83, 83), (49, 49, 49)),
        (encoded("PNG", "P"), (200, 30, 30), (30, 30, 200)),
        (encoded("PNG", "RGBA"), (200, 30, 30), (30, 30, 200)),
        (encoded("PNG", "P", transparency=b"\0\0"), (200, 30, 30), (30, 30, 200)),
        (encoded("JPEG", "L", quality=100), (83, 83, 83), (49, 49, 49)),
        (encoded("JPEG", "CMYK", quality=100), (200, 30, 30), (30, 30, 200)),
        (encoded("JPEG", progressive=True, quality=100), (200, 30, 30), (30, 30, 200)),
    ],
    ids=["grey", "grey and alpha", "palette", "alpha", "transparent palette", "grey JPEG", "CMYK", "progressive"],
)
def test_colours_of_any_kind(tmp_path: Path, content: bytes, left: tuple[int, ...], right: tuple[int, ...]) -> None:
    put(tmp_path, [("a.png", content)])  # a wrong ending does not matter
    _, images = pixels({"images": tmp_path})
    np.testing.assert_allclose(images[0, 8, [2, -2]], [left, right], atol=5)


def test_photographs_are_turned_as_the_camera_was_held(tmp_path: Path) -> None:
    put(tmp_path, [("a.jpg", turned())])
    _, images = pixels({"images": tmp_path})
    np.testing.assert_allclose(images[0, [2, -2], 8], [[200, 30, 30], [30, 30, 200]], atol=3)


def test_crop_is_the_square_in_the_centre(tmp_path: Path) -> None:
    put(tmp_path, [("a.png", encoded("PNG", size=(200, 100)))])
    _, images = pixels({"images": tmp_path, "crop": 16})
    np.testing.assert_array_equal(
        images[0, :, [0, 7, 8, 15]],
        np.array([[[200, 30, 30]], [[200, 30, 30]], [[30, 30, 200]], [[30, 30, 200]]]).repeat(16, 1),
    )


# Refused


def of_header(width: int, height: int) -> bytes:
    """A JPEG whose header says so."""
    content = FACES[1]
    start = content.index(b"\xff\xc0") + 5
    return content[:start] + struct.pack(">HH", height, width) + content[start + 4 :]


def png_of_header(width: int, height: int) -> bytes:
    header = b"IHDR" + struct.pack(">2I5B", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + header + struct.pack(">I", zlib.crc32(header)) + b"\0\0\0\4IDAT"
    )


def patched_zip(flags: int = 0, method: int | None = None, size: int | None = None) -> bytes:
    """The plain archive whose directory says something else of its first image."""
    content = bytearray(zipped(entries()))
    entry = content.index(b"PK\x01\x02")
    for at, value in ((8, flags), (10, method)):
        if value is not None:
            struct.pack_into("<H", content, entry + at, value)
    if size is not None:
        struct.pack_into("<I", content, entry + 24, size)
    if flags:
        struct.pack_into("<H", content, 6, flags)
    return bytes(content)


def fifo(folder: Path) -> dict[str, Any]:
    os.mkfifo(folder / "faces.zip")
    return {"celeba": folder / "faces.zip"}


def fifo_for_a_list(folder: Path) -> dict[str, Any]:
    put(folder, entries())
    os.mkfifo(folder / "list.txt")
    return {"celeba": folder, "attributes": folder / "list.txt"}


def photographs(*files: tuple[str, bytes], **request: Any) -> Shape:
    return lambda folder: {"images": put(folder, files), **request}


def archive(content: bytes) -> Shape:
    return lambda folder: {"celeba": put(folder, [("celeba.zip", content)]) / "celeba.zip"}


PNGS = [(f"img_align_celeba_png/{number:06d}.png", b"\x89PNG") for number in range(24)]
REFUSED: dict[str, tuple[Shape, str]] = {
    "nothing": (
        lambda folder: {"celeba": folder / "none.zip"},
        r"none\.zip does not exist; expected are CelebA's 000001",
    ),
    "an empty folder": (folder_of([]), r": no file, no \.jpg; expected are CelebA's 000001\.jpg"),
    "a prepared data set": (folder_of([("manifest.json", b"{}")]), r"was prepared: launch with --data"),
    "a FIFO": (fifo, r"faces\.zip is neither a file nor a folder"),
    "PNGs": (
        folder_of(PNGS),
        r"24 \.png files in img_align_celeba_png, no \.jpg; .*--images PATH takes any photographs",
    ),
    "lists alone": (folder_of(CSV), r"2 \.csv files, no \.jpg; expected are"),
    "a list": (folder_of(CSV, "list_attr_celeba.csv"), r"list_attr_celeba\.csv: 1 KB, a text file; expected are"),
    "a web page": (
        archive(b"<!DOCTYPE html><html>" + bytes(89_000)),
        r"celeba\.zip: 89 KB, a web page: .*img_align_celeba",
    ),
    "half an archive": (
        archive(zipped(entries())[:-400]),
        r"KB, a zip archive that is incomplete .* Download it again",
    ),
    "half an archive in a folder": (
        folder_of([("faces.zip", zipped(entries())[:-400]), *TXT]),
        r"faces\.zip: \d+ KB, a zip archive that is incomplete",
    ),
    "7z": (archive(b"7z\xbc\xaf\x27\x1c" + bytes(99)), r"a 7z archive: unpack it, and give the folder"),
    "tar.gz": (archive(b"\x1f\x8b\x08" + bytes(99)), r"a gzip archive: unpack it with `tar xzf`"),
    "tar": (archive(bytes(257) + b"ustar" + bytes(99)), r"a tar archive: unpack it with `tar xf`"),
    "a pointer of Git LFS": (archive(b"version https://git-lfs.github.com/spec/v1\n"), r"fetch it with `git lfs pull`"),
    "an encrypted archive": (
        archive(patched_zip(flags=1)),
        r"000001\.jpg is encrypted\. Unpack the archive with its pass",
    ),
    "Deflate64": (
        archive(patched_zip(method=9)),
        r"000001\.jpg: That compression .*Unpack the archive, and give the fold",
    ),
    "a compressed zip in a zip": (
        archive(zipped([("CelebA/faces.zip", zipped(entries()))], zipfile.ZIP_DEFLATED)),
        r"celeba\.zip, CelebA/faces\.zip is a compressed zip in a zip.*: unpack the outer one",
    ),
    "images in the wild": (
        folder_of(wild("img_celeba")),
        r"178 x 101 pixels found, 178 x 218 expected\. .*not img_celeba",
    ),
    "other names": (
        archive(zipped([("beach.jpg", FACES[1])])),
        r"1 \.jpg file, but beach\.jpg is not named like .*--images",
    ),
    "two that differ": (
        folder_of([*entries("a"), ("b/000002.jpg", FACES[1])]),
        r"/a/000002\.jpg \([\d,]+ bytes\) and .*/b/000002\.jpg .*differ",
    ),
    "an entry of 3 GB": (archive(patched_zip(size=3_000_000_000)), r"000001\.jpg has 3\.0 GB, more than the 0\.1 GB"),
    "an entry that is longer than it says": (
        archive(patched_zip(size=1000)),
        r"000001\.jpg: cannot be unpacked \(Bad CRC",
    ),
    "65,500 x 65,500": (
        folder_of([("000001.jpg", of_header(65_500, 65_500))]),
        r"65,500 x 65,500 pixels, more than the",
    ),
    "a PNG named .jpg": (
        folder_of([("000001.jpg", png_of_header(9, 9))]),
        r"000001\.jpg: no JPEG, but a single PNG image",
    ),
    "fewer than --first": (only((1, 2), first=3), r"--first 3: .* holds 2 images"),
    "one missing among --first": (
        only((1, 2, 4), first=3),
        r"lists 1 images that are not there; the first is 000003\.jpg",
    ),
    "images missing": (
        only((1, 2)),
        r"lists 3 images that are not there; .* Take those that are there with --only-present",
    ),
    "lines missing": (
        with_lists(attribute_list([1, 2, 3]), PART_TXT),
        r"no line for 2 of the 5 images; .* 000004\.jpg",
    ),
    "lines cut off": (
        with_lists(ATTR_TXT[:-300], PART_TXT),
        r"line 5: a file name and 40 values .* expected, found \d+ in",
    ),
    "fewer lines than announced": (
        with_lists("202599" + ATTR_TXT[1:], PART_TXT),
        r"line 1: announces 202,599 images, 5 follow: the file is incomplete",
    ),
    "no names of attributes": (
        with_lists(ATTR_TXT.split("\n", 2)[2], PART_TXT),
        r"line 1: CelebA's 40 attribute names expected, found '000001\.jpg",
    ),
    "0 beside -1": (with_lists(ATTR_TXT.replace(" 1 ", " 0 "), PART_TXT), r"40 values -1 or 1, or 0 or 1 expected"),
    "a partition of 3": (
        with_lists(ATTR_TXT, PART_TXT.replace(" 2", " 3")),
        r"line 2: a file name and 1 value 0 or 1 or 2",
    ),
    "an image twice in a list": (
        with_lists(ATTR_TXT, PART_TXT + "1.jpg 0\n"),
        r"line 6: 1\.jpg is there a second time",
    ),
    "names of others in a list": (
        with_lists(ATTR_TXT, "a b\nc.jpg 0\n"),
        r"line 2: 'c\.jpg' is not named like CelebA's",
    ),
    "a web page for a list": (
        with_lists("<html>Sign in", PART_TXT),
        r"list_attr_celeba\.txt: a web page: the server answered",
    ),
    "an empty list": (with_lists("\n \n", PART_TXT), r"list_attr_celeba\.txt: an empty file"),
    "a list that is no text": (
        with_lists(FACES[1], PART_TXT),
        r"list_attr_celeba\.txt is not a text file, but a single JPEG",
    ),
    "no partition": (
        folder_of(entries(), split="official"),
        r"list_eval_partition\.txt or \.csv, which --split official takes.* --partition FILE",
    ),
    "a list that is not there": (
        only((1,), attributes=Path("none.csv")),
        r"--attributes none\.csv does not exist",
    ),
    "a FIFO for a list": (fifo_for_a_list, r"--attributes .*/list\.txt is no file"),
    "Parquet without images": (parquet_of_text, r"a\.parquet has no column of images, .* found: text"),
    "both": (only((1,), images=Path()), r"--celeba and --images given: give one of --celeba PATH"),
    "lists of photographs": (photographs(("a.png", b""), attributes=Path("a")), r"--attributes goes with --celeba"),
    "no photographs": (
        photographs(("a.gif", b"GIF89a"), ("b.heic", b"")),
        r"1 \.gif file, 1 \.heic file, and no \.jpg, \.png",
    ),
    "photographs that are nowhere": (lambda folder: {"images": folder / "none"}, r"none does not exist"),
    "a GIF named .png": (photographs(("a.png", b"GIF89a")), r"a\.png: no JPEG, PNG or WebP, but a GIF image"),
    "a small photograph": (
        photographs(("a.png", encoded("PNG", size=(9, 99)))),
        r"9 x 99 pixels found, at least 16 x 16 expec",
    ),
    "half a PNG": (
        photographs(("a.png", encoded("PNG", size=(999, 99))[:-300])),
        r"a\.png: damaged \(.*Restore this file",
    ),
    "half a JPEG": (
        photographs(("a.jpg", encoded("JPEG", size=(999, 99))[:-300])),
        r"a\.jpg: damaged JPEG \(.*Restore this",
    ),
    "half a WebP": (
        photographs(("a.webp", encoded("WEBP", size=(999, 99))[:-30])),
        r"a\.webp: (damaged|no JPEG, PNG or WebP)",
    ),
    "16 bits a pixel": (
        photographs(("a.png", encoded("PNG", "I;16"))),
        r"a\.png: I;16 pixels, where 8 bits a channel are",
    ),
    "a PNG of 65,500 x 65,500": (
        photographs(("a.png", png_of_header(65_500, 65_500))),
        r"65,500 x 65,500 pixels, more than",
    ),
    "a partition of photographs": (photographs(("a.png", b""), split="official"), r"--split official is CelebA's own"),
}


@pytest.mark.parametrize(("shape", "message"), REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_read_is_said(tmp_path: Path, shape: Shape, message: str) -> None:
    request = shape(tmp_path)
    with pytest.raises((UserError, ValueError), match=message):
        pixels(request)
