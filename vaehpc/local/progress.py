"""What a launcher shows while tasks run: bars in a terminal, plain lines elsewhere."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from time import monotonic as now
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from vaehpc.command import duration
from vaehpc.study.attempts import all_attempts, part_of, read_json
from vaehpc.study.files import RunDir

PER_SECOND = 2
BAR = 16
"""Columns of a bar."""
LINES_AROUND = 4
"""Of a terminal's lines, those that are not for runs."""
LEAST_SHARE = 0.02
"""Of a run: before, the start tells more of its speed than its steps do."""
BARE = ("loss", "steps/s", "probe R")
"""What a narrow terminal does without, in this order."""


@dataclass(frozen=True)
class Beat:
    """How far a task is."""

    share: float
    """Of its work, done."""
    began: float
    """Share that was done when it started, before a restart."""
    seconds_left: float | None
    words: Mapping[str, str]
    """What is said of it, by name, in the order in which it is shown."""


class StageView:
    """One line for the stage, and one for each run that is being worked on."""

    def __init__(self, stage: str, total: int, console: Console, seconds_after: float = 0.0) -> None:
        self._stage = stage
        self._total = total
        self.console = console
        self._after = seconds_after
        self._since = now()
        self._running: dict[str, RunDir] = {}
        self._seen: dict[str, Beat] = {}
        self._done = 0
        self._worked = 0.0
        """Runs' worth of work that was done here by runs that have ended."""

    def update(self, running: Sequence[RunDir]) -> None:
        """These runs are worked on now; those that were and are gone have ended."""
        now = {run.name: run for run in running}
        for name in [name for name in self._running if name not in now]:
            self._done += 1
            seen = self._seen.pop(name, None)
            self._worked += 1 - (seen.began if seen else 0.0)
            if not self.console.is_terminal:
                left = self.seconds_left() if self._done < self._total else None
                words = "" if left is None else f", about {duration(left)} left"
                self.console.print(f"{self._stage} {self._done}/{self._total}: {name} ended{words}", highlight=False)
        self._running = now

    def look(self) -> None:
        """Read how far the runs are."""
        for name, run in dict(self._running).items():
            if found := beat_of(run):
                self._seen[name] = found

    def seconds_left(self) -> float | None:
        """Of the stage: what is left at the speed since its beginning, and no less than the slowest run needs."""
        of_running = [self._seen[name] for name in self._running if name in self._seen]
        worked = self._worked + sum(beat.share - beat.began for beat in of_running)
        if worked < LEAST_SHARE:
            return None
        left = self._total - self._done - sum(beat.share for beat in of_running)
        slowest = max((beat.seconds_left or 0.0 for beat in of_running), default=0.0)
        return max(left * (now() - self._since) / worked, slowest)

    def render(self) -> RenderableType:
        """The stage and as many runs as there is room for, none of them wider than the terminal."""
        self.look()
        share = (self._done + sum(self._seen[name].share for name in self._running if name in self._seen)) / self._total
        words = [f"{self._done} of {self._total}", duration(now() - self._since)]
        if (left := self.seconds_left()) is not None:
            words.append(f"{duration(left)} left")
            if self._after:
                words.append(f"study {duration(left + self._after)}")
        head = _line(self._stage, share, ", ".join(words), len(self._stage))
        room = max(1, self.console.height - LINES_AROUND)
        names = list(self._running)
        widest = max(map(len, names), default=0)
        width = self.console.width - widest - BAR - 4
        lines = [
            _line(name, self._seen[name].share, fitted(self._seen[name].words, width), widest)
            if name in self._seen
            else _line(name, None, "starting", widest)
            for name in names[:room]
        ]
        more = [Text(f"and {len(names) - room} more at once")] if len(names) > room else []
        return Group(head, *lines, *more)


def fitted(words: Mapping[str, str], width: int) -> str:
    """As many of the words as there are columns for."""
    kept = dict(words)
    for name in BARE:
        if len("  ".join(kept.values())) <= width:
            break
        kept.pop(name, None)
    return "  ".join(kept.values())


def _line(name: str, share: float | None, words: str, width: int) -> RenderableType:
    grid = Table.grid(padding=(0, 2, 0, 0))
    grid.add_column(width=width, no_wrap=True)
    grid.add_column(width=BAR)
    grid.add_column(no_wrap=True, overflow="ellipsis")
    grid.add_row(name, ProgressBar(total=1.0, completed=share or 0.0, width=BAR), words)
    return grid


@contextmanager
def stage_view(
    stage: str, total: int, console: Console, seconds_after: float = 0.0, in_process: bool = False
) -> Iterator[StageView]:
    """A StageView for as long as the stage runs.

    Args:
        stage: its name.
        total: runs that it works on.
        console: where it is shown.
        seconds_after: that the study's later stages are expected to take.
        in_process: the tasks run in this process and send what it writes elsewhere.
    """
    with contextlib.ExitStack() as stack:
        if in_process and console.is_terminal:
            terminal = stack.enter_context(os.fdopen(os.dup(1), "w"))
            console = Console(file=terminal, force_terminal=True, width=console.width, height=console.height)
        view, since = StageView(stage, total, console, seconds_after), now()
        if console.is_terminal:
            stack.enter_context(_live(view.render, console))
        yield view
        view.update([])
        if console.is_terminal:
            console.print(f"{stage}: {total} run{'s' * (total > 1)} in {duration(now() - since)}", highlight=False)


@contextmanager
def expected(what: str, seconds: float, console: Console, heartbeat: Path | None = None) -> Iterator[None]:
    """A bar for something of which is known about how long it takes; a line where there is no terminal.

    Args:
        what: its name.
        seconds: that it is expected to take.
        console: where it is shown.
        heartbeat: where it says which part of it is being done.
    """
    since = now()

    def render() -> RenderableType:
        past = now() - since
        of = f" of about {duration(seconds)}" if past < seconds else ""
        part = part_of(read_json(heartbeat)) if heartbeat else None
        return _line(what, min(past / seconds, 1.0), f"{duration(past)}{of}{f'  {part}' if part else ''}", len(what))

    if not console.is_terminal:
        console.print(f"{what}: about {duration(seconds)}", highlight=False, markup=False, soft_wrap=True)
        yield
        return
    with _live(render, console):
        yield


def _live(render: Any, console: Console) -> Live:
    return Live(get_renderable=render, console=console, refresh_per_second=PER_SECOND, transient=True)


def beat_of(run: RunDir) -> Beat | None:
    """The newest attempt's last sign of life; None before the first."""
    attempts = all_attempts(run)
    beat = read_json(attempts[-1].heartbeat_path) if attempts else {}
    if (part := part_of(beat)) and (parts := beat.get("num_parts")):
        return Beat((beat.get("part_number", 1) - 1) / parts, 0.0, None, {"part": part})
    if not beat.get("num_steps"):
        return None
    steps, step, rate = beat["num_steps"], beat.get("step", 0), beat.get("steps_per_second", 0.0)
    begun = beat.get("start_step") or 0
    is_known = rate and step - begun >= LEAST_SHARE * steps
    left = (steps - step) / rate if is_known else None
    words = {"epoch": f"epoch {beat.get('epoch', 0)}", "steps/s": f"{rate:.1f} steps/s"}
    if (loss := beat.get("reconstruction_loss")) is not None:
        words["loss"] = f"loss {loss:.1f}"
    if (radius := beat.get("radius_median")) is not None:
        words["probe R"] = f"probe R {radius:.2f}"
    if left is not None:
        words["left"] = f"{duration(left)} left" if left else "writing its latents"
    return Beat(step / steps, begun / steps, left, words)
