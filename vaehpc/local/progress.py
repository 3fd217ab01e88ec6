"""What a launcher shows while tasks run: bars in a terminal, plain lines elsewhere."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from vaehpc.study.attempts import all_attempts, read_json
from vaehpc.study.files import RunDir


class StageView:
    """One bar for the stage, and one for each run that is being worked on."""

    def __init__(self, stage: str, total: int, bars: Progress, console: Console) -> None:
        self._stage = stage
        self._total = total
        self._bars = bars
        self._console = console
        self._of_stage = bars.add_task(stage, total=total, state="")
        self._of_run: dict[str, TaskID] = {}
        self._running: dict[str, RunDir] = {}

    def update(self, running: Sequence[RunDir]) -> None:
        """Show these runs and how far they are; runs that were shown and are gone have ended."""
        now = {run.name: run for run in running}
        for name in [name for name in self._running if name not in now]:
            self._bars.remove_task(self._of_run.pop(name))
            self._bars.advance(self._of_stage)
            if not self._console.is_terminal:
                done = self._bars.tasks[0].completed
                self._console.print(f"{self._stage} {done:.0f}/{self._total}: {name} ended", highlight=False)
        for name, run in now.items():
            if name not in self._of_run:
                self._of_run[name] = self._bars.add_task(f"  {name}", total=None, state="starting")
            if beat := heartbeat(run):
                self._bars.update(
                    self._of_run[name], total=beat.get("num_steps"), completed=beat.get("step"), state=_words(beat)
                )
        self._running = now

    def end(self) -> None:
        """Every task of the stage has ended."""
        self.update([])


@contextmanager
def stage_view(stage: str, total: int, console: Console) -> Iterator[StageView]:
    """A StageView for as long as the stage runs."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[state]}"),
    )
    with Progress(*columns, console=console, disable=not console.is_terminal) as bars:
        view = StageView(stage, total, bars, console)
        yield view
        view.end()


def heartbeat(run: RunDir) -> dict[str, Any]:
    """The newest attempt's last sign of life during training; empty if there is none yet."""
    attempts = all_attempts(run)
    return read_json(attempts[-1].heartbeat_path) if attempts else {}


def _words(beat: Mapping[str, Any]) -> str:
    words = [f"epoch {beat.get('epoch', 0)}", f"{beat.get('steps_per_second', 0):.1f} steps/s"]
    if (loss := beat.get("reconstruction_loss")) is not None:
        words.append(f"loss {loss:.1f}")
    if (radius := beat.get("radius_median")) is not None:
        words.append(f"R {radius:.2f}")
    return " · ".join(words)
