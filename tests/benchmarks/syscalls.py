"""File operations of a command and its children, counted by strace from one mark of `traced` to the next."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from tests.benchmarks.traced import MARKS

KINDS = {
    "open": "open openat creat",
    "stat": "stat lstat newfstatat statx access faccessat faccessat2 readlink chmod fchmodat utimensat statfs",
    "mkdir": "mkdir mkdirat",
    "rename": "rename renameat renameat2",
    "unlink": "unlink unlinkat rmdir",
    "link": "link linkat symlink symlinkat",
    "list": "getdents64",
    "sync": "fsync fdatasync",
}
KIND_OF = {call: kind for kind, calls in KINDS.items() for call in calls.split()}
BEFORE_THE_FIRST_MARK = "import"

_CALL = re.compile(r"(?P<call>\w+)\((?P<arguments>.*)\) += (?P<result>-?\d+)")
_DESCRIPTOR = re.compile(r"(?:AT_FDCWD|\d+)<(?P<path>[^>]*)>")
_NAME = re.compile(r'"(?P<path>[^"]*)"')


class Segment:
    """What was done from one mark to the next, by the root below which the files lie."""

    def __init__(self, phase: str) -> None:
        self.phase = phase
        self.counts = defaultdict[str, Counter[str]](Counter)
        """Operations by kind."""
        self.opened = defaultdict[str, set[str]](set)

    def metadata(self, root: str) -> int:
        """What a server of metadata is asked for: not what is asked of an open file, nor that its bytes be safe."""
        return self.counts[root].total() - self.counts[root]["sync"]


def has_strace() -> bool:
    """Whether anything can be counted here."""
    return shutil.which("strace") is not None


def counted(command: Sequence[str], roots: Mapping[str, Sequence[Path]], trace: Path) -> list[Segment]:
    """Run the command and count what it asks of files.

    Args:
        command: of any number of processes and threads.
        roots: folders by the name under which what lies below them is counted; the first that fits counts.
        trace: file for strace's lines, which is removed.

    Returns:
        What was done up to the first mark, and after each; nothing without strace.
    """
    if not has_strace():
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        return []
    calls = ",".join(f"?{call}" for call in KIND_OF)  # '?': not every processor has every call
    options = ["-f", "-y", "--seccomp-bpf", "-e", f"trace={calls}", "-e", "signal=none", "-o", str(trace)]
    subprocess.run(["strace", *options, *command], check=True, stdout=subprocess.DEVNULL)
    with trace.open(errors="replace") as lines:
        found = segments(lines, roots)
    trace.unlink()
    return found


def segments(lines: Iterable[str], roots: Mapping[str, Sequence[Path]]) -> list[Segment]:
    """What strace's lines tell."""
    prefixes = [(name, f"{folder}/") for name, folders in roots.items() for folder in folders]
    found = [Segment(BEFORE_THE_FIRST_MARK)]
    for kind, path in operations(lines):
        if path.startswith(f"{MARKS}/"):
            found.append(Segment(path.removeprefix(f"{MARKS}/")))
        elif (root := next((name for name, prefix in prefixes if f"{path}/".startswith(prefix)), None)) is not None:
            found[-1].counts[root][kind] += 1
            if kind == "open":
                found[-1].opened[root].add(path)
    return found


def operations(lines: Iterable[str]) -> Iterator[tuple[str, str]]:
    """Kind and path of each file operation in strace's lines."""
    unfinished: dict[str, str] = {}
    for line in lines:
        process, _, text = line.strip().partition(" ")
        text = text.lstrip()
        if text.endswith("<unfinished ...>"):
            unfinished[process] = text.removesuffix("<unfinished ...>").rstrip()
            continue
        if text.startswith("<... "):
            text = unfinished.pop(process, "") + text.partition("resumed>")[2]
        if (call := _CALL.match(text)) is not None and (found := _operation(**call.groupdict())) is not None:
            yield found


def _operation(call: str, arguments: str, result: str) -> tuple[str, str] | None:
    kind = KIND_OF[call]
    folder, name = _DESCRIPTOR.search(arguments), _NAME.search(arguments)
    if kind in ("list", "sync"):
        # The end of a listing was sent with the rest.
        return None if folder is None or (kind == "list" and result == "0") else (kind, folder["path"])
    if name is None or not name["path"]:  # a question about an open file
        return None
    return kind, os.path.normpath(Path(folder["path"] if folder else "/") / name["path"])
