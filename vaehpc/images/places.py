"""Files as people have them: in folders, in zips, in zips that lie unpacked in a zip, in Parquet tables.

Nothing is unpacked to disk, nothing is read to know what is there, and no file is read beyond a limit.
"""

from __future__ import annotations

import functools
import io
import os
import posixpath
import struct
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from vaehpc.command import UserError, gigabytes

MAX_BYTES = 2**27
"""Of one file: far more than any photograph has."""
ARCHIVES = (".zip", ".parquet")
SYSTEMS = ("__MACOSX", "lost+found", "@eaDir", "$RECYCLE.BIN", "System Volume Information")
"""Folders that hold nothing of a user's, but copies, thumbnails and what may not be read."""
KINDS = {
    b"PK\x03\x04": "a zip archive that is incomplete or damaged",
    b"PK\x05\x06": "an empty zip archive",
    b"7z\xbc\xaf": "a 7z archive: unpack it, and give the folder",
    b"Rar!": "a RAR archive: unpack it, and give the folder",
    b"\x1f\x8b": "a gzip archive: unpack it with `tar xzf`, and give the folder",
    b"BZh": "a bzip2 archive: unpack it with `tar xjf`, and give the folder",
    b"\xfd7zXZ": "an xz archive: unpack it with `tar xJf`, and give the folder",
    b"\x28\xb5\x2f\xfd": "a zstd archive: unpack it, and give the folder",
    b"\xff\xd8\xff": "a single JPEG image: give the folder that it lies in",
    b"\x89PNG": "a single PNG image: give the folder that it lies in",
    b"GIF8": "a GIF image",
    b"%PDF": "a PDF document",
    b"version https://git-lfs": "a pointer of Git LFS, not the file: fetch it with `git lfs pull`",
}
"""What a file is by its first bytes."""


class Place(Protocol):
    """A folder or an archive that holds files."""

    path: Path

    @property
    def files(self) -> list[File]:
        """Every file in it that is not hidden and no system's own, such as __MACOSX and .DS_Store."""

    def read(self, member: str, limit: int) -> bytes:
        """A file's content; UserError where it is damaged or has more bytes than `limit`."""


@dataclass(frozen=True)
class File:
    """A file in a folder or an archive. Its text names both."""

    place: Place
    member: str
    """Its path there, as it is written there."""
    size: int
    """Bytes; 0 where that is not known."""
    checksum: str = ""
    """CRC-32 where the archive says it."""

    @property
    def name(self) -> str:
        """Its path there with '/', whatever system wrote it, and without './'."""
        return posixpath.normpath(self.member.replace("\\", "/")).lstrip("/")

    @property
    def suffix(self) -> str:
        """'.jpg', '.png'..., in lower case."""
        return posixpath.splitext(self.name)[1].lower()

    def read(self, limit: int = MAX_BYTES) -> bytes:
        """Its content; UserError where it is damaged or has more bytes than `limit`."""
        if self.size > limit:
            raise UserError(f"{self} has {gigabytes(self.size)}, more than the {gigabytes(limit)} that are read of one")
        return self.place.read(self.member, limit)

    def __str__(self) -> str:
        return str(self.place.path / self.member) if isinstance(self.place, Folder) else f"{self.place}, {self.member}"


class Folder:
    """A folder with all that lies below it, also where links lead."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @functools.cached_property
    def files(self) -> list[File]:
        """Regular files in the order of their names, those of a folder before those of its subfolders."""
        found, seen = list[File](), set[tuple[int, int]]()
        try:
            for folder, subfolders, names in os.walk(self.path, followlinks=True, onerror=_raised):
                subfolders[:] = [name for name in sorted(subfolders) if not _is_systems(name)]
                here = os.stat(folder)  # noqa: PTH116
                if (here.st_dev, here.st_ino) in seen:  # a link that leads back
                    subfolders.clear()
                    continue
                seen.add((here.st_dev, here.st_ino))
                inside = os.path.relpath(folder, self.path)
                for name in sorted(name for name in names if not _is_systems(name)):
                    path = Path(folder, name)
                    if path.is_file():
                        found.append(File(self, posixpath.normpath(posixpath.join(inside, name)), path.stat().st_size))
        except OSError as error:
            raise UserError(f"{error.filename or self.path} cannot be read: {error.strerror}") from None
        return found

    def read(self, member: str, limit: int) -> bytes:
        """A file's content."""
        try:
            with (self.path / member).open("rb") as file:
                content = file.read(limit + 1)
        except OSError as error:
            raise UserError(f"{self.path / member} cannot be read: {error.strerror}") from None
        if len(content) > limit:
            raise UserError(f"{self.path / member} has more than {gigabytes(limit)}")
        return content

    def __str__(self) -> str:
        return str(self.path)


class Zip:
    """A zip, or a zip that lies unpacked in another one."""

    def __init__(self, path: Path, inner: str = "") -> None:
        self.path = path
        self.inner = inner
        self._archive = _opened_zip(path, inner)
        self.comment = self._archive.comment
        self._members: dict[str, zipfile.ZipInfo] = {}
        for member in self._archive.infolist():
            self._members.setdefault(member.filename, member)

    def __reduce__(self) -> tuple[Any, ...]:
        return _reopened, (Zip, self.path, self.inner)

    @functools.cached_property
    def files(self) -> list[File]:
        """Those of its directory; their sizes are unpacked ones. Of two that have one name, both."""
        members = [member for member in self._archive.infolist() if not member.is_dir()]
        files = [File(self, member.filename, member.file_size, f"{member.CRC:08x}") for member in members]
        return [file for file in files if not any(map(_is_systems, file.name.split("/")))]

    def read(self, member: str, limit: int) -> bytes:
        """A file's content, compared with its CRC-32; no more is unpacked than the directory says."""
        try:
            with self._archive.open(self._members[member]) as stream:
                return stream.read(limit + 1)
        except (zipfile.BadZipFile, zlib.error, EOFError, OSError) as error:
            raise UserError(
                f"{self}, {member}: cannot be unpacked ({error}). The archive is damaged: download it again."
            ) from None
        except NotImplementedError as error:
            raise UserError(f"{self}, {member}: {error}. Unpack the archive, and give the folder.") from None
        except RuntimeError:
            raise UserError(
                f"{self}, {member} is encrypted. Unpack the archive with its password, and give the folder."
            ) from None

    def __str__(self) -> str:
        return f"{self.path}, {self.inner}" if self.inner else str(self.path)


class Parquet:
    """A Parquet table whose column of structs {bytes, path} holds images, as mirrors of data sets have them."""

    def __init__(self, path: Path) -> None:
        import pyarrow as pa  # where images are read; a login node plans without it
        import pyarrow.parquet as pq

        self.path = path
        try:
            self._table = pq.ParquetFile(path)
            schema = self._table.schema_arrow
            columns = [field.name for field in schema if pa.types.is_struct(field.type) and "bytes" in _fields(field)]
            if not columns:
                raise UserError(
                    f"{path} has no column of images, structs with 'bytes'; found: {', '.join(schema.names)}"
                )
            self._column = columns[0]
            rows, self._where = 0, dict[str, tuple[int, int]]()
            for group in range(self._table.num_row_groups):
                names = [None] * self._table.metadata.row_group(group).num_rows
                if "path" in _fields(schema.field(self._column)):
                    table = self._table.read_row_group(group, columns=[f"{self._column}.path"])
                    names = [(image or {}).get("path") for image in table.column(0).to_pylist()]
                for row, name in enumerate(names):
                    self._where[name or f"{path.stem}-{rows + row:08d}.jpg"] = (group, row)
                rows += len(names)
        except (OSError, pa.ArrowException) as error:
            raise UserError(f"{path} is a Parquet file that is incomplete or damaged ({error})") from None
        if len(self._where) < rows:
            raise UserError(f"{path} holds {rows:,} images with only {len(self._where):,} names")
        self._group: tuple[int, Any] = (-1, None)

    def __reduce__(self) -> tuple[Any, ...]:
        return _reopened, (Parquet, self.path)

    @functools.cached_property
    def files(self) -> list[File]:
        """One for each row, in their order."""
        return [File(self, name, 0) for name in self._where]

    def read(self, member: str, limit: int) -> bytes:
        """An image's bytes; the rows that are stored with it stay in memory until others are asked for."""
        import pyarrow as pa

        group, row = self._where[member]
        if group != self._group[0]:
            if (size := self._table.metadata.row_group(group).total_byte_size) > 8 * MAX_BYTES:
                raise UserError(f"{self.path}: group {group} of its rows takes {gigabytes(size)}; write smaller ones")
            try:
                self._group = group, self._table.read_row_group(group, columns=[f"{self._column}.bytes"]).column(0)
            except (OSError, pa.ArrowException) as error:
                raise UserError(f"{self.path}: group {group} of its rows is damaged ({error})") from None
        content: bytes = (self._group[1][row].as_py() or {}).get("bytes") or b""
        return content[: limit + 1]

    def __str__(self) -> str:
        return str(self.path)


def places_at(path: Path) -> tuple[list[Place], list[UserError]]:
    """The folder, zip or Parquet file at this path, and the archives in it; and why some of those cannot be read.

    Raises:
        UserError: nothing is there, or it is something else; says what.
    """
    try:
        if path.is_dir():
            outer: Place = Folder(path)
        elif path.is_file():
            outer = Parquet(path) if _beginning(path).startswith(b"PAR1") else Zip(path)
        else:
            raise UserError(f"{path} is neither a file nor a folder" if path.exists() else f"{path} does not exist")
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from None
    places, failures = [outer], list[UserError]()
    for file in outer.files:
        if file.suffix not in ARCHIVES or isinstance(outer, Parquet):
            continue
        try:
            if isinstance(outer, Zip):
                places.append(Zip(path, file.member))
            else:
                places.append((Zip if file.suffix == ".zip" else Parquet)(path / file.member))
        except UserError as error:
            failures.append(error)
    return places, failures


def file_at(path: Path) -> File:
    """The file at this path, as one of its folder; OSError where it is not there."""
    return File(Folder(path.parent), path.name, path.stat().st_size)


def tally(files: Iterable[File]) -> str:
    """'24 .png files, 2 .txt files in img_align_celeba_png', the most frequent first; 'no file'."""
    counts = Counter((file.suffix or "nameless", posixpath.dirname(file.name)) for file in files)
    found = [
        f"{count:,} {suffix} file{'s' * (count > 1)}{f' in {folder}' * bool(folder)}"
        for (suffix, folder), count in counts.most_common(3)
    ]
    return ", ".join(found) + " ..." * (len(counts) > 3) if found else "no file"


def kind_of(content: bytes) -> str:
    """What a file is by its first bytes, in words."""
    if not content:
        return "an empty file"
    if any(mark in content[:1024].lower() for mark in (b"<html", b"<!doctype")):
        return "a web page: the server answered with it instead of the file. Download it again"
    if content[257:262] == b"ustar":
        return "a tar archive: unpack it with `tar xf`, and give the folder"
    text = (
        "a text file" if content[:1024].isascii() and b"\0" not in content[:1024] else "no kind of file that is known"
    )
    return next((kind for magic, kind in KINDS.items() if content.startswith(magic)), text)


def _raised(error: OSError) -> None:
    raise error


def _is_systems(name: str) -> bool:
    return name.startswith(".") or name in SYSTEMS


def _fields(field: Any) -> list[str]:
    """Names of the parts of a column of structs."""
    return [field.type.field(i).name for i in range(field.type.num_fields)]


def _beginning(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(1024)


@functools.cache
def _reopened(kind: Any, *where: Any) -> Any:
    """Once per worker: the directory of CelebA's zip takes a second to read."""
    return kind(*where)


def _opened_zip(path: Path, inner: str) -> zipfile.ZipFile:
    where = f"{path}, {inner}" if inner else str(path)
    try:
        if not inner:
            return zipfile.ZipFile(path)
        member = zipfile.ZipFile(path).getinfo(inner)
        if member.compress_type != zipfile.ZIP_STORED or member.flag_bits & 1:
            raise UserError(
                f"{where} is a compressed zip in a zip, which could only be read from its beginning each time: unpack"
                " the outer one, and give the folder"
            )
        return zipfile.ZipFile(_Window(path, member.header_offset, member.file_size))
    except OSError as error:
        raise UserError(f"{where} cannot be read: {error.strerror or error}") from None
    # The latter three: a flipped bit in the version, the encoding or the sizes of an entry.
    except (zipfile.BadZipFile, NotImplementedError, UnicodeDecodeError, ValueError, struct.error) as error:
        beginning = b"PK\x03\x04" if inner else _beginning(path)
        size, kind = gigabytes(path.stat().st_size), kind_of(beginning)
        damage = f" ({error}). Download it again" if beginning.startswith(b"PK\x03\x04") else ""
        raise UserError(f"{where}: {size}, {kind}{damage}.") from None


class _Window(io.RawIOBase):
    """The bytes of a zip's member that is not compressed."""

    def __init__(self, path: Path, header_offset: int, size: int) -> None:
        self._file = path.open("rb")
        self._file.seek(header_offset)
        name, extra = struct.unpack("<26x2H", self._file.read(30))
        self._start, self._size, self._position = header_offset + 30 + name + extra, size, 0

    def seekable(self) -> bool:
        return True

    def readable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        self._position = max(0, offset + (0, self._position, self._size)[whence])
        return self._position

    def tell(self) -> int:
        return self._position

    def readinto(self, buffer: Any) -> int:
        self._file.seek(self._start + self._position)
        content = self._file.read(max(0, min(len(buffer), self._size - self._position)))
        buffer[: len(content)] = content
        self._position += len(content)
        return len(content)

    def close(self) -> None:
        self._file.close()
        super().close()
