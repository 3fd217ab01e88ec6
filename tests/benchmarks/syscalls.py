"""Metadata operations of a command and its children, counted by strace from one mark to the next.

The phases are marked by asking for paths that nobody has. Imported by what is counted: nothing here imports much.
"""

from __future__ import annotations

import os
import re
import subprocess
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from vaehpc.study.attempts import all_attempts
from vaehpc.study.files import RunDir

MARKS = Path("/benchmark-phase")
LISTING = "getdents64"
CALLS = (
    "open openat creat stat lstat newfstatat statx access faccessat faccessat2 readlink chmod fchmodat utimensat statfs"
    f" mkdir mkdirat rename renameat renameat2 unlink unlinkat rmdir link linkat symlink symlinkat {LISTING}"
).split()
"""What a server of metadata is asked for: not what is asked of an open file, nor that its bytes be safe."""

_CALL = re.compile(r"(?P<call>\w+)\((?P<arguments>.*)\) += (?P<result>-?\d+)")
_DESCRIPTOR = re.compile(r"(?:AT_FDCWD|\d+)<(?P<path>[^>]*)>")
_NAME = re.compile(r'"(?P<path>[^"]*)"')


class Segment(NamedTuple):
    """What was done from one mark to the next."""

    phase: str
    counts: Counter[str]
    """Operations by the root below which the files lie."""


def mark(phase: str) -> None:
    """What follows, up to the next mark, belongs to this phase."""
    os.path.lexists(MARKS / phase)


def trained(directory: str) -> None:
    """Train a run, then give one more sign of life."""
    from vaehpc.tasks import train

    unmarked = train.train_blocks

    def marked(run: Any, *others: Any) -> Iterator[Any]:
        for block in unmarked(run, *others):
            # The caller writes what the block added, then comes back for the next one.
            mark("block" if block.progress.step % run.steps_per_epoch else "epoch's end")
            yield block
        mark("end")

    train.train_blocks = marked  # type: ignore[assignment]
    mark("start")
    train.run(directory)
    mark("between")
    attempt = all_attempts(RunDir(Path(directory)))[-1]
    mark("heartbeat")
    attempt.beat(step=1)
    mark("between")


def measured(directory: str) -> None:
    """Measure the latents of a run."""
    from vaehpc.tasks import statistics

    mark("statistics")
    statistics.run(directory)


def counted(command: Sequence[str], roots: Mapping[str, Sequence[Path]], trace: Path) -> list[Segment]:
    """Run the command, of any number of processes, and count what it asks for below the roots, the first that fits.

    strace leaves its lines in the file `trace`, which is removed.
    """
    calls = ",".join(f"?{call}" for call in CALLS)  # '?': not every processor has every call
    options = ["-f", "-y", "--seccomp-bpf", "-e", f"trace={calls}", "-e", "signal=none", "-o", str(trace)]
    subprocess.run(["strace", *options, *command], check=True, stdout=subprocess.DEVNULL)
    with trace.open(errors="replace") as lines:
        found = segments(lines, roots)
    trace.unlink()
    return found


def segments(lines: Iterable[str], roots: Mapping[str, Sequence[Path]]) -> list[Segment]:
    """What strace's lines tell."""
    prefixes = [(name, f"{folder}/") for name, folders in roots.items() for folder in folders]
    found = [Segment("import", Counter())]
    for path in operations(lines):
        if path.startswith(f"{MARKS}/"):
            found.append(Segment(path.removeprefix(f"{MARKS}/"), Counter()))
        elif (root := next((name for name, prefix in prefixes if f"{path}/".startswith(prefix)), None)) is not None:
            found[-1].counts[root] += 1
    return found


def operations(lines: Iterable[str]) -> Iterator[str]:
    """Path of each operation in strace's lines."""
    unfinished: dict[str, str] = {}
    for line in lines:
        process, _, text = line.strip().partition(" ")
        text = text.lstrip()
        if text.endswith("<unfinished ...>"):
            unfinished[process] = text.removesuffix("<unfinished ...>").rstrip()
            continue
        if text.startswith("<... "):
            text = unfinished.pop(process, "") + text.partition("resumed>")[2]
        if (call := _CALL.match(text)) is not None and (path := _path(**call.groupdict())) is not None:
            yield path


def _path(call: str, arguments: str, result: str) -> str | None:
    """None where a question is about an open file, or is the end of a listing, which was sent with the rest."""
    folder, name = _DESCRIPTOR.search(arguments), _NAME.search(arguments)
    if call == LISTING:
        return None if folder is None or result == "0" else folder["path"]
    if name is None or not name["path"]:
        return None
    return os.path.normpath(Path(folder["path"] if folder else "/") / name["path"])
