"""Measuring on a machine that is never quiet: CPU seconds, what is compared takes turns, medians with intervals."""

from __future__ import annotations

import importlib
import math
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, groupby
from pathlib import Path

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
    """Work in a process of its own, which says the CPU seconds of each turn and waits for a line before the next.

    It ends when this process does.
    """

    def __init__(self, line: Sequence[str | Path], environment: Mapping[str, str]) -> None:
        self._process = subprocess.Popen(
            line, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self._answer()  # of its first turn, which builds and compiles, and comes unasked

    def __call__(self) -> float:
        """CPU seconds of one turn.

        Raises:
            RuntimeError: the process has ended.
        """
        assert self._process.stdin is not None
        print(file=self._process.stdin, flush=True)
        return self._answer()

    def _answer(self) -> float:
        assert self._process.stdout is not None
        answer = self._process.stdout.readline()
        if not answer:
            raise RuntimeError(f"{self._process.args!r} ended with exit status {self._process.wait()}")
        return float(answer)


class Turns:
    """The other side of Elsewhere: after each step says what it took, and waits."""

    def __init__(self) -> None:
        self._answers = os.fdopen(os.dup(1), "w")
        os.dup2(2, 1)  # whatever else is printed
        self._begun = time.process_time()

    def step_done(self, *_: object, **__: object) -> None:
        """End a turn. The process ends where nobody wants another."""
        print(time.process_time() - self._begun, file=self._answers, flush=True)
        # What feeds the steps fills its queue while this waits: each turn then makes as many batches as it uses.
        if not sys.stdin.readline():
            os._exit(0)
        self._begun = time.process_time()


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


def rows_of(part: str, quick: bool, said: str) -> list[Row]:
    """Measure what a module of this package does; each row is shown when it is there.

    What else is said, by TensorFlow above all, goes to a file: it is of interest only where a part fails.
    """
    os.dup2(os.open(said, os.O_WRONLY | os.O_APPEND), 2)
    found = []
    for row in importlib.import_module(f"tests.benchmarks.{part}").rows(quick):
        print(f"{row.part}: {row.what}: {in_words(row)}{row.beside and f' ({row.beside})'}", flush=True)
        found.append(row)
    return found


def table_of(rows: Iterable[Row]) -> Table:
    """All rows by part; what stands beside a figure is below its name, and the interval below the median."""
    table = Table("", "median, 95 % interval", "wanted (aim)")
    for part, of_part in groupby(rows, lambda row: row.part):
        table.add_section()
        table.add_row(f"[bold]{part}[/bold]")
        for row in of_part:
            beside = f"\n  [dim]{row.beside}[/dim]" if row.beside else ""
            table.add_row(row.what + beside, in_words(row), f"{row.wanted} ({row.aim})" if row.aim else row.wanted)
    return table


def in_words(row: Row) -> str:
    """'2.3 x, 2.1 to 2.5', or '3.1 %, 2.9 to 3.2'."""
    scale, unit = (100, "%") if row.unit == "%" else (1, row.unit)
    values = [scale * value for value in (row.median, row.low, row.high)]
    median, low, high = (f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}" for value in values)
    return f"{median} {unit}".strip() + (f", {low} to {high}" if row.low != row.high else "")
