"""`python -m vaehpc.prepare`: make a data set of CelebA's images, of other photographs, or of built-in faces."""

from __future__ import annotations

import contextlib
import resource
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import pydantic
import tyro
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from vaehpc.command import asked_by, exit_code, require_plain, wrong_option
from vaehpc.schema.data import Request
from vaehpc.schema.results import Manifest
from vaehpc.study.packages import require_installed
from vaehpc.tasks.prepare import OnProgress, prepare

SECONDS_BETWEEN_LINES = 10.0


@dataclass(frozen=True)
class Arguments:
    """Make a data set: shards of uint8 pixels, attributes and a manifest.

    It may be interrupted at any time; the same command continues with the shards that are missing.
    """

    request: Annotated[Request, tyro.conf.arg(name="")]
    out: Path
    """New or empty folder for the data set (5.7 GB for CelebA at 96 x 96)."""


def main(argv: Sequence[str] | None = None) -> int:
    """Exit code 0: the data set is whole; 2: asked wrongly; 3: a worker was killed, or a full disk; 130: Ctrl-C."""
    return exit_code(
        lambda: make_data(parsed(argv)), "interrupted; finished shards stay, and the same command makes the rest"
    )


def parsed(argv: Sequence[str] | None) -> Arguments:
    """The command line.

    Raises:
        UserError: a value is out of its range.
    """
    try:
        return asked_by(Arguments, argv, "vaehpc prepare")
    except pydantic.ValidationError as error:
        raise wrong_option(error) from None


def make_data(asked: Arguments) -> int:
    """Prepare, show how far it is, sum up.

    Returns:
        The exit code.
    """
    require_installed("train")
    for option, path in (*asked.request.paths.items(), ("out", asked.out)):
        require_plain(f"--{option}", Path(path))
    pace = Pace()
    with shown_progress() as show:

        def on_progress(what: str, done: int, total: int) -> None:
            pace.update(what, done)
            show(what, done, total)

        manifest = prepare(asked.request, asked.out, on_progress)
    print(_summary(manifest, asked, pace))
    return 0


class Pace:
    """How fast images are done since this start."""

    def __init__(self) -> None:
        self._started = time.monotonic()
        self._before = 0
        self._done = 0
        self._what = ""

    def update(self, what: str, done: int) -> None:
        """Take note that `done` images are done; those of the first note were there before."""
        if what != self._what:
            self._what, self._started, self._before = what, time.monotonic(), done
        self._done = done

    @property
    def num_images(self) -> int:
        """Images done since this start."""
        return self._done - self._before

    @property
    def images_per_second(self) -> float:
        """Mean over this start."""
        return self.num_images / max(time.monotonic() - self._started, 1e-9)


@contextlib.contextmanager
def shown_progress() -> Iterator[OnProgress]:
    """A bar in a terminal, a line now and then in a log."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield _printed_lines()
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), Rate(), TimeRemainingColumn())
    with Progress(*columns, console=console) as progress:
        tasks: dict[str, TaskID] = {}

        def show(what: str, done: int, total: int) -> None:
            if what not in tasks:
                tasks[what] = progress.add_task(what, total=total, completed=done)
            progress.update(tasks[what], completed=done)

        yield show


class Rate(ProgressColumn):
    """Images per second."""

    def render(self, task: Task) -> Text:
        """The speed that rich has estimated."""
        return Text(f"{task.speed:,.0f} images/s" if task.speed else "")


def _printed_lines() -> OnProgress:
    pace = Pace()
    printed = 0.0

    def show(what: str, done: int, total: int) -> None:
        nonlocal printed
        pace.update(what, done)
        if done == total or time.monotonic() - printed > SECONDS_BETWEEN_LINES:
            printed = time.monotonic()
            rate = pace.images_per_second
            left = f", {(total - done) / rate:.0f} s left" if rate else ""
            print(f"{what}: {done:,} of {total:,}, {rate:,.0f} images/s{left}", file=sys.stderr, flush=True)

    return show


def _summary(manifest: Manifest, arguments: Arguments, pace: Pace) -> str:
    splits = ", ".join(f"{split.num_images:,} {name}" for name, split in manifest.splits.items())
    lines = [f"{manifest.num_images:,} images of {manifest.name}: {splits}"]
    if manifest.preprocessing.split == "article" and arguments.request.num_train is None:
        lines.append("  the training share is the article's (170,000 of 202,599); --num-train sets another")
    lines += [f"  {line}" for line in notes(manifest)]
    lines.append(f"  entropy floor H(x) of train: {manifest.splits['train'].entropy_floor:.2f} nats per image")
    if pace.num_images:
        speed = f"{pace.images_per_second:,.0f} images/s"
        lines.append(f"  {pace.num_images:,} images prepared, {speed}, {_cpu_seconds():.0f} CPU s")
    else:
        lines.append("  already prepared; every file has its checksum")
    return "\n".join([*lines, f"data set: {arguments.out.absolute()}"])


def notes(manifest: Manifest) -> list[str]:
    """What the data set lacks, and what follows from it."""
    if manifest.attributes or manifest.photographs:
        return []
    return [
        "no attributes: list_attr_celeba.txt or .csv lies neither in nor beside the images, so that attribute probes"
        " are left out; --attributes FILE names it"
    ]


def _cpu_seconds() -> float:
    """CPU time of this process and of its workers."""
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


if __name__ == "__main__":
    sys.exit(main())
