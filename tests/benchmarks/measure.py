"""Measuring on a machine that is never quiet: CPU seconds, what is compared takes turns, medians with intervals."""

from __future__ import annotations

import json
import math
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import accumulate
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

Work = Callable[[], object]


@dataclass(frozen=True)
class Row:
    """One line of the table: a ratio, a share or a time, its median and the median's 95 % interval."""

    part: str
    what: str
    median: float
    low: float
    high: float
    unit: str = "x"
    wanted: str = ""
    aim: str = ""
    beside: str = ""
    """Absolute figures, shares of the machine's limits."""


def cpu_seconds(work: Work) -> float:
    """CPU time of this process, of all its threads, for one call; what works elsewhere says its own."""
    if isinstance(work, Elsewhere):
        return work()
    begun = time.process_time()
    work()
    return time.process_time() - begun


class Elsewhere:
    """Work in a process of its own, which says the CPU seconds of each turn and waits for a line before the next."""

    def __init__(self, line: Sequence[str | Path], environment: Mapping[str, str]) -> None:
        self._process = subprocess.Popen(
            line, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self._is_ready = False

    def __call__(self) -> float:
        """CPU seconds of one turn.

        Raises:
            RuntimeError: the process has ended.
        """
        self.wait_until_ready()
        assert self._process.stdin is not None
        print(file=self._process.stdin, flush=True)
        return self._answer()

    def wait_until_ready(self) -> None:
        """Until its first turn is over, which builds and compiles, and comes unasked."""
        if not self._is_ready:
            self._answer()
            self._is_ready = True

    def _answer(self) -> float:
        assert self._process.stdout is not None
        answer = self._process.stdout.readline()
        if not answer:
            raise RuntimeError(f"{self._process.args!r} ended with exit status {self._process.wait()}")
        return float(answer)

    def end(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.wait()


class Turns:
    """The other side of Elsewhere: counts steps, and after each turn of so many says what they took and waits."""

    def __init__(self, num_steps: int) -> None:
        self._num_steps, self._done = num_steps, 0
        self._answers = os.fdopen(os.dup(1), "w")
        os.dup2(2, 1)  # whatever else is printed
        self._begun = time.process_time()

    def step_done(self, *_: object, **__: object) -> None:
        """Count one step. The process ends where nobody wants another turn."""
        self._done += 1
        if self._done % self._num_steps:
            return
        print(time.process_time() - self._begun, file=self._answers, flush=True)
        # What feeds the steps fills its queue while this waits: each turn then makes as many batches as it uses.
        if not sys.stdin.readline():
            os._exit(0)
        self._begun = time.process_time()


def copy_rate(num_bytes: int = 2**28) -> float:
    """Bytes per CPU second that one thread reads, while it writes as many."""
    source, target = np.ones(num_bytes, np.uint8), np.empty(num_bytes, np.uint8)
    np.copyto(target, source)
    return num_bytes / min(cpu_seconds(lambda: np.copyto(target, source)) for _ in range(5))


def median_interval(values: Sequence[float]) -> tuple[float, float, float]:
    """Median and the limits of its 95 % interval, which are two of the values: the sign test's, whatever their law."""
    ordered = sorted(values)
    # The binomial distribution's 2.5 % point, without SciPy, which takes a second to import.
    below = accumulate(math.comb(len(values), number) for number in range(len(values)))
    rank = max(1, sum(count < 0.025 * 2 ** len(values) for count in below))
    return statistics.median(values), ordered[rank - 1], ordered[-rank]


def in_turns(first: Work, second: Work, num_pairs: int) -> list[tuple[float, float]]:
    """CPU seconds of both, pair by pair; which one begins changes from pair to pair."""
    pairs = []
    for pair in range(num_pairs):
        order = (first, second) if pair % 2 else (second, first)
        took = {work: cpu_seconds(work) for work in order}
        pairs.append((took[first], took[second]))
    return pairs


def ratio_row(part: str, what: str, pairs: Iterable[tuple[float, float]], **words: str) -> Row:
    """How many times as long the first of each pair took."""
    return Row(part, what, *median_interval([first / second for first, second in pairs]), **words)


def table_of(rows: Iterable[Row], title: str) -> Table:
    """All rows by part; what stands beside a figure is below its name, and the interval below the median."""
    table = Table("", "median, 95 % interval", "wanted (aim)", title=title)
    part = None
    for row in rows:
        if row.part != part:
            table.add_section()
            table.add_row(f"[bold]{row.part}[/bold]")
            part = row.part
        beside = f"\n  [dim]{row.beside}[/dim]" if row.beside else ""
        wanted = f"{row.wanted} ({row.aim})" if row.aim else row.wanted
        table.add_row(row.what + beside, in_words(row), wanted)
    return table


def in_words(row: Row) -> str:
    """'2.3 x, 2.1 to 2.5', or '3.1 %, 2.9 to 3.2'."""
    scale, unit = (100, "%") if row.unit == "%" else (1, row.unit)
    values = [scale * value for value in (row.median, row.low, row.high)]
    median, low, high = (f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}" for value in values)
    return f"{median} {unit}".strip() + (f", {low} to {high}" if row.low != row.high else "")


def finish(rows: Iterable[Row], title: str) -> None:
    """Show each row when it is there, and all at the end; leave them in the file that the last argument may name."""
    console, found = Console(), list[Row]()
    for row in rows:
        found.append(row)
        console.print(f"{row.part}: {row.what}: {in_words(row)}{row.beside and f' ({row.beside})'}")
        if sys.argv[-1].endswith(".json"):
            Path(sys.argv[-1]).write_text(json.dumps([asdict(each) for each in found], indent=2))
    console.print(table_of(found, title))
