"""The folder of the studies: may it be written, does it keep the promises that the suite relies on, who sees it?"""

from __future__ import annotations

import os
import shutil
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from vaehpc.checks.finding import Finding, right, unchecked, wrong
from vaehpc.command import gigabytes
from vaehpc.study.files import RunDir, StudyDir, entries

SHARED_TYPES = (
    "nfs",
    "lustre",
    "gpfs",
    "beegfs",
    "ceph",
    "panfs",
    "wekafs",
    "pvfs2",
    "orangefs",
    "afs",
    "9p",
    "virtiofs",
)
"""Beginnings of the names of file systems that several machines mount."""
LEAST_FREE_BYTES = 5e9
"""Less than a single run of the article's size leaves."""
USED_UP = 0.75
"""Of the time after which files are purged: a checkpoint that old shall be replaced by a newer one."""
RENAMES = 200
RACERS = 8


@contextmanager
def scratch_folder(out: Path) -> Iterator[Path]:
    """A new folder OUT/.doctor-XXXX, removed at the end, and OUT too where it was not there before.

    Raises:
        OSError: it cannot be made.
    """
    made = [folder for folder in (out.absolute(), *out.absolute().parents) if not folder.exists()]
    out.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix=".doctor-", dir=out.absolute()))
    folder.chmod(0o755)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        for empty in made:
            with suppress(OSError):
                empty.rmdir()


def folder_findings(folder: Path) -> list[Finding]:
    """Whether a folder that may be written, and is empty, behaves as the suite needs it."""
    return [
        _space(folder),
        _promise("rename", renames_are_atomic(folder), "a file that is replaced is whole at every moment"),
        _promise("mkdir", mkdir_is_exclusive(folder), "of several that make a folder exactly one succeeds"),
        _promise("hard links", has_hard_links(folder), "an AE's z.npy is its mu.npy"),
    ]


def unwritable(out: Path, error: OSError) -> Finding:
    """The folder may not be written."""
    return wrong("folder", f"{out.absolute()}: {error.strerror or error}", "give a folder that you own with --out DIR")


def _space(folder: Path) -> Finding:
    free = shutil.disk_usage(folder).free
    found = f"{gigabytes(free)} free (a quota is not seen here)"
    if free < LEAST_FREE_BYTES:
        needed = gigabytes(int(LEAST_FREE_BYTES))
        return wrong("space", found, f"free some: {needed} is little for a study; or choose another --out")
    return right("space", found)


def checkpoints_finding(out: Path, purge_days: float | None) -> Finding | None:
    """How old the newest checkpoints of unfinished runs are, where scratch is purged by age.

    Args:
        out: folder of the studies.
        purge_days: age at which its files are deleted; None: they are not.

    Returns:
        None where there is no such checkpoint.
    """
    studies = [StudyDir(path) for path in entries(out)]
    runs = [RunDir(path) for study in studies if study.config_path.exists() for path in entries(study.path)]
    written: dict[Path, float] = {}
    for run in runs:
        if not run.trained_path.exists() and (kept := run.checkpoint_dirs()):
            with suppress(OSError):  # replaced meanwhile
                written[run.path] = (kept[-1] / "checkpoint.json").stat().st_mtime
    if not written:
        return None
    oldest = min(written, key=written.__getitem__)
    days = (time.time() - written[oldest]) / 86400
    num = f"{len(written)} unfinished runs have one" if len(written) > 1 else "1 unfinished run has one"
    found = f"{num}; the newest of {oldest.relative_to(out.absolute())} is {days:.1f} days old"
    if purge_days is None:
        return right("checkpoints", found)
    found += f", and purge_days = {purge_days:g}"
    if days < USED_UP * purge_days:
        return right("checkpoints", found)
    return wrong("checkpoints", found, "launch the study again, which goes on from it, or copy its folder elsewhere")


def _promise(name: str, kept: bool, words: str) -> Finding:
    if kept:
        return right(name, words)
    return wrong(name, f"not so: {words}", "choose an --out on another file system, local or NFS, Lustre, GPFS, BeeGFS")


def shared_finding(folder: Path, mounts: str) -> Finding:
    """Whether other machines see this folder, by its file system's type alone.

    Args:
        folder: exists.
        mounts: text of /proc/mounts.
    """
    point, kind = mount_of(folder, mounts)
    found = f"{folder} lies on {kind}, mounted at {point}"
    if kind.removeprefix("fuse.").startswith(SHARED_TYPES):
        return right("file system", found)
    return unchecked("file system", f"{found}: not shared, by its name", "--probe shows whether the nodes see it")


def mount_of(folder: Path, mounts: str) -> tuple[str, str]:
    """Mount point and type of the file system that a folder lies on, from the text of /proc/mounts."""
    fields = [line.split() for line in mounts.splitlines()]
    # Of two mounts at one point the later one is seen. Blanks in a path are written as \040.
    points = {field[1].replace("\\040", " "): field[2] for field in fields}
    resolved = folder.resolve()
    point = max((point for point in points if resolved.is_relative_to(point)), key=len, default="/")
    return point, points.get(point, "an unknown file system")


def renames_are_atomic(folder: Path) -> bool:
    """Whether somebody who reads a file while it is being replaced always finds one of its versions."""
    target, aside, ended = folder / "renamed", folder / "aside", threading.Event()
    target.write_text("whole")
    seen = set[str]()

    def read() -> None:
        while not ended.is_set():
            try:
                seen.add(target.read_text())
            except FileNotFoundError:
                seen.add("absent")

    reader = threading.Thread(target=read)
    reader.start()
    for _ in range(RENAMES):
        aside.write_text("whole")
        aside.replace(target)
    ended.set()
    reader.join()
    target.unlink()
    return seen == {"whole"}


def mkdir_is_exclusive(folder: Path) -> bool:
    """Whether of several threads that make the same folder exactly one succeeds."""
    made, start = list[bool](), threading.Barrier(RACERS)

    def make() -> None:
        start.wait()
        try:
            (folder / "claimed").mkdir()
            made.append(True)
        except FileExistsError:
            made.append(False)

    racers = [threading.Thread(target=make) for _ in range(RACERS)]
    for racer in racers:
        racer.start()
    for racer in racers:
        racer.join()
    (folder / "claimed").rmdir()
    return sorted(made) == [False] * (RACERS - 1) + [True]


def has_hard_links(folder: Path) -> bool:
    """Whether a file can have two names."""
    first, second = folder / "first", folder / "second"
    first.touch()
    try:
        os.link(first, second)
    except OSError:
        return False
    finally:
        first.unlink()
    second.unlink()
    return True
