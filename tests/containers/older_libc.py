"""Makes a Debian package of sid installable on Debian 12, whose C library is 2.36.

usage: older_libc.py SID.deb OUT.deb

Programs built against glibc 2.38 call __isoc23_strtol and __isoc23_strtoul where they once called strtol and strtoul:
the same functions, but for binary literals. Nothing else of Apptainer's programs asks for a newer library. So these
imports get the old names (the ends of the strings that are there), lose their version, and what the program demands of
2.38 becomes a demand of a version that every glibc has. Any other new symbol is refused.
"""

from __future__ import annotations

import re
import struct
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

OLDEST = "GLIBC_2.2.5"
NEWEST = (2, 36)
RENAMED = "__isoc23_"
GLOBAL_VERSION = 1
"""Of a symbol that is bound to no version of a library."""


@dataclass(frozen=True)
class Section:
    """Of an ELF file: where its bytes are."""

    offset: int
    size: int
    entries: int


@dataclass(frozen=True)
class Need:
    """One version of a library that a program demands."""

    offset: int
    index: int
    """Symbols name it by this number."""
    name: str


class Program:
    """A 64-bit little-endian ELF file that is being changed."""

    def __init__(self, data: bytes) -> None:
        self.data = bytearray(data)
        self.sections = self._sections()

    def _sections(self) -> dict[str, Section]:
        (table,) = struct.unpack_from("<Q", self.data, 0x28)
        size, number, names_at = struct.unpack_from("<HHH", self.data, 0x3A)
        headers = [struct.unpack_from("<IIQQQQIIQQ", self.data, table + i * size) for i in range(number)]
        names = headers[names_at][4]
        return {self._text(names + header[0]): Section(header[4], header[5], header[7]) for header in headers}

    def _text(self, offset: int) -> str:
        return self.data[offset : self.data.index(0, offset)].decode()

    def _string(self, offset: int) -> str:
        return self._text(self.sections[".dynstr"].offset + offset)

    def needs(self) -> Iterator[list[Need]]:
        """The versions that are demanded, library by library."""
        section = self.sections[".gnu.version_r"]
        library = section.offset
        for _ in range(section.entries):
            _, number, _, first, following = struct.unpack_from("<HHIII", self.data, library)
            found, at = [], library + first
            for _ in range(number):
                _, _, index, name, step = struct.unpack_from("<IHHII", self.data, at)
                found.append(Need(at, index, self._string(name)))
                at += step
            yield found
            library += following

    def lower(self) -> list[str]:
        """Take the demands of newer libraries away; the symbols that were renamed.

        Raises:
            SystemExit: another symbol is new.
        """
        newer = set[int]()
        for library in self.needs():
            too_new = [need for need in library if is_newer(need.name)]
            oldest = next((need for need in library if need.name == OLDEST), None)
            for need in too_new:
                assert oldest is not None, f"{need.name} of a library without {OLDEST}"
                hashed, _, _, name = struct.unpack_from("<IHHI", self.data, oldest.offset)
                struct.pack_into("<I", self.data, need.offset, hashed)
                struct.pack_into("<I", self.data, need.offset + 8, name)
                newer.add(need.index)
        return [self._rename(number) for number in self._bound_to(newer)]

    def _bound_to(self, versions: set[int]) -> list[int]:
        """Numbers of the symbols of these versions."""
        section = self.sections[".gnu.version"]
        indices = struct.unpack_from(f"<{section.size // 2}H", self.data, section.offset)
        return [number for number, index in enumerate(indices) if index & 0x7FFF in versions]

    def _rename(self, number: int) -> str:
        symbol = self.sections[".dynsym"].offset + 24 * number
        at, _, _, defined_in = struct.unpack_from("<IBBH", self.data, symbol)
        name = self._string(at)
        if defined_in or not name.startswith(RENAMED):
            sys.exit(f"{name} is only in a newer C library than {OLDEST} to {'.'.join(map(str, NEWEST))}")
        struct.pack_into("<I", self.data, symbol, at + len(RENAMED))
        struct.pack_into("<H", self.data, self.sections[".gnu.version"].offset + 2 * number, GLOBAL_VERSION)
        return name


def is_newer(version: str) -> bool:
    """Whether 'GLIBC_2.38' is newer than what is there."""
    numbers = re.fullmatch(r"GLIBC_(\d+)\.(\d+)", version)
    return numbers is not None and (int(numbers[1]), int(numbers[2])) > NEWEST


def changed_control(text: str) -> str:
    """The package's description, with an older C library and a version of its own."""
    text = re.sub(r"libc6 \(>= 2\.(3[7-9]|[4-9]\d)\)", "libc6 (>= 2.36)", text)
    text = re.sub(r"^(Version: .*)$", r"\1~older1", text, flags=re.MULTILINE)
    return re.sub(r"^(Static-)?Built-Using: .*\n( .*\n)*", "", text, flags=re.MULTILINE)


def main() -> None:
    """Unpack, change, pack."""
    source, target = sys.argv[1:3]
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary, "package")
        subprocess.run(["dpkg-deb", "--raw-extract", source, folder], check=True)
        for path in sorted(folder.rglob("*")):
            if path.is_symlink() or not path.is_file() or path.read_bytes()[:6] != b"\x7fELF\x02\x01":
                continue
            program = Program(path.read_bytes())
            if ".gnu.version_r" in program.sections:
                renamed = program.lower()
                path.write_bytes(program.data)
                print(f"{path.relative_to(folder)}: {', '.join(renamed) or 'as it was'}")
        control = folder / "DEBIAN/control"
        control.write_text(changed_control(control.read_text()))
        (folder / "DEBIAN/md5sums").unlink(missing_ok=True)  # of the files as they were
        subprocess.run(["dpkg-deb", "--root-owner-group", "-Zgzip", "-z1", "--build", folder, target], check=True)


if __name__ == "__main__":
    main()
