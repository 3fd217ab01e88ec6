"""`python -m vaehpc.status STUDY`: what every run is doing, which have failed and why, and the end of all.

States are told by vaehpc.states; here they become a table.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from textwrap import wrap
from typing import Annotated

import tyro
from rich.console import Console
from rich.live import Live
from rich.text import Text

from vaehpc.command import UserError, asked_by, duration, exit_code, neutral, say
from vaehpc.machine.processes import running_launcher
from vaehpc.monitoring.causes import Failure
from vaehpc.monitoring.live import LivePage
from vaehpc.monitoring.records import adopted, by_run, read_batches
from vaehpc.monitoring.states import ACTIVE, Kind, Looks, RunState, StudyState, read_study
from vaehpc.monitoring.usage import usage_lines
from vaehpc.slurm.client import SlurmError, cancel, queued
from vaehpc.study.attempts import LAST_LINES, all_attempts
from vaehpc.study.files import RunDir, StudyDir
from vaehpc.study.study import found_run, found_study

WATCH_SECONDS, WATCH_SLURM_SECONDS = 3.0, 10.0
"""Between two looks at files; Slurm's clients are asked once a minute."""
PATIENCE, LONG_PATIENCE, MOST_PATIENCE = 0.8, 10.0, 3600.0
"""Seconds for squeue and sacct together: for a table that comes at once, and where every failure shall be explained."""
HEADER = ("run", "state", "node", "epoch", "steps/s", "loss", "probe R", "restarts", "left")
LEFT_OUT = ("restarts", "node", "probe R", "steps/s")
"""Columns that a narrow terminal does without, in this order."""
BUSIEST: tuple[Kind, ...] = (
    "training",
    "measuring",
    "starting",
    "silent",
    "MISSING",
    "unknown",
    "waiting",
    "trained",
    "done",
)
"""What is shown first where not every run finds room; failures have a list of their own."""
COUNTED: tuple[Kind, ...] = ("training", "measuring", "starting", "silent", "unknown", "waiting", "MISSING")
"""In the line of totals, in this order."""

Flag = Annotated[bool, tyro.conf.FlagCreatePairsOff]


@dataclass(frozen=True)
class Arguments:
    """Say what every run of a study is doing: state, node, epoch, step rate, loss, radius, restarts, time left.

    Known from the runs' files, then squeue, then sacct; a line says which of them did not answer. Exit codes: 0 well,
    2 asked wrongly, 3 ended with missing runs, or nothing of the queue will start by itself, 130 Ctrl-C.
    """

    study: Annotated[Path | None, tyro.conf.Positional] = None
    """The study's folder, or its name under 'runs'. Default: the only one there."""
    watch: Flag = False
    """Look again every few seconds until everything has ended."""
    html: Flag = False
    """Also write the study's page, where the report will be: where runs are, their courses so far. With --watch it is
    renewed, and loads itself again in a browser."""
    failures: Flag = False
    """All failures: run, stage, node, how it ended, the end of its log, what to do."""
    logs: Flag = False
    """The newest log of --run, whole."""
    usage: Flag = False
    """Requested against used time, memory, processors and GPU, and what to ask for next time."""
    cancel: Flag = False
    """End the study's queued and running array elements, and nothing else."""
    run: str | None = None
    """One run of the study, such as vae-tiny-seed007."""
    json: Flag = False
    """What the table and the failures say, as JSON."""
    patience: float | None = None
    """Seconds to wait for squeue and sacct together. Default: 0.8, with --failures and --usage 10."""


def main(argv: Sequence[str] | None = None) -> int:
    """Exit code 0: told; 2: asked wrongly; 3: the study ended with missing runs; 130: Ctrl-C."""
    return exit_code(lambda: _told(asked_by(Arguments, argv, "vaehpc status")), "the study goes on")


def _told(asked: Arguments) -> int:
    try:
        code = status(asked)
        sys.stdout.flush()
    except BrokenPipeError:  # whoever read it, such as `head`, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    return code


def status(asked: Arguments) -> int:
    """Do the one thing that is asked for.

    Returns:
        The exit code.
    """
    wanted = [name for name in ("watch", "failures", "logs", "usage", "cancel", "json") if getattr(asked, name)]
    if len(wanted) > 1:
        raise UserError(f"--{' and --'.join(wanted)} were asked for: one at a time")
    if asked.patience is not None and not 0 < asked.patience <= MOST_PATIENCE:
        raise UserError(f"--patience {asked.patience:g}: seconds up to {MOST_PATIENCE:g} are needed, such as 10")
    if asked.run is not None and asked.cancel:
        raise UserError("--cancel ends a whole study, not --run; `scancel` takes a single element")
    study = _study_or_preparation(asked.study)
    run = None if asked.run is None else found_run(study, asked.run)
    console = Console(highlight=False)
    if asked.cancel:
        return cancel_study(study, console)
    if asked.logs:
        return show_log(study, run, console)
    if asked.usage:
        print("\n".join(usage_lines(study, asked.patience or LONG_PATIENCE)))
        return 0
    if asked.html and asked.run is not None:
        raise UserError("--html shows a whole study, not --run; each run gets a page of its own with the report")
    page = LivePage(study, study.config()) if asked.html else None
    if asked.watch:
        with page or nullcontext():
            return watch(study, asked, console, page)
    state = _look(study, asked)
    if page is not None and (_goes_on(state) or not study.report.exists()):
        page.write(state)
        say(console, f"Page: {study.report}")
    if asked.json:
        print(as_json(state))
    else:
        print(neutral("\n".join(failure_lines(state) if asked.failures else status_lines(state, _width(console)))))
    return _code(state)


def as_json(state: StudyState) -> str:
    """The state of the study, of its runs and of its jobs; times in seconds."""
    counts = Counter(run.kind for run in state.runs)
    runs = [asdict(run, dict_factory=_plain) for run in state.runs]
    failures = [asdict(failure, dict_factory=_plain) for failure in state.failures]
    value = {"study": str(state.study.path), "counts": counts, "jobs": state.jobs, "sources": state.sources}
    return json.dumps(value | {"runs": runs, "failures": failures}, indent=2, default=str)


def _plain(fields: list[tuple[str, object]]) -> dict[str, object]:
    return {name: value for name, value in fields if name not in ("failure", "unexplained")}


def _study_or_preparation(asked: Path | None) -> StudyDir:
    """The study; also one whose data are still being prepared, which has jobs but no settings yet."""
    for path in () if asked is None else (asked, Path("runs") / asked):
        if not (study := StudyDir(path)).config_path.exists() and study.batches():
            return study
    return found_study(asked)


def _look(study: StudyDir, asked: Arguments, looks: Looks | None = None) -> StudyState:
    state = read_study(study, asked.patience or (LONG_PATIENCE if asked.failures else PATIENCE), looks)
    return state if asked.run is None else state.only(asked.run)


def _code(state: StudyState) -> int:
    return 3 if state.is_stuck or (state.failures and not state.count(*ACTIVE)) else 0


def _width(console: Console) -> int | None:
    """Columns of the terminal; None elsewhere, where nothing needs to fit."""
    return console.width if console.is_terminal else None


# The table


def status_lines(state: StudyState, width: int | None = None, height: int | None = None) -> list[str]:
    """Totals, table, and what comes next.

    Args:
        state: of the study.
        width: columns that there are; None for any number.
        height: lines that there are; where the runs do not fit, the busiest are shown.
    """
    above = [totals(state), *state.jobs, *([state.sources] if state.sources else [])]
    head = [part for line in above for part in _wrapped(line, width)]
    foot = [part for line in next_steps(state) for part in _wrapped(line, width)]
    runs = state.runs
    room = None if height is None else max(1, height - len(head) - len(foot) - 3)
    if room is not None and len(runs) > room:
        runs = tuple(sorted(runs, key=lambda run: BUSIEST.index(run.kind))[:room])
    table = table_lines(runs, width)
    if len(runs) < len(state.runs):
        table = table[: room or None]  # notes may have lines of their own
        table.append(f"... {len(state.runs)} runs in all; the rest: `vaehpc status {state.study.path}`")
    return [*head, *([""] if table else []), *table, *foot]


def totals(state: StudyState) -> str:
    """'40 of 48 trained, 38 done; 3 training, 4 waiting, 1 MISSING'."""
    counts = Counter(run.kind for run in state.runs)
    trained = sum(run.is_trained for run in state.runs)
    others = [f"{counts[kind]} {kind}" for kind in COUNTED if counts[kind]]
    words = f"{state.study.path.name}: {trained} of {len(state.runs)} trained, {counts['done']} done"
    return "; ".join([words, ", ".join(others)]) if others else words


def next_steps(state: StudyState) -> Iterator[str]:
    """What to do, or to wait for."""
    yield from state.stuck
    missing, active = state.count("MISSING"), state.count(*ACTIVE)
    if missing:
        yield f"The same launch line {_verb(state)} the {missing} missing. Why they are missing: --failures"
    elif not state.runs:
        yield "The data are being prepared."
    elif not active and state.study.summary_path.exists():
        yield f"Report: {state.study.report}"
    elif not active and not state.failures:
        yield "All runs are done; the same launch line makes the report, where no job for it is queued."


def _verb(state: StudyState) -> str:
    return "submits" if state.on_slurm else "does"


def table_lines(runs: Sequence[RunState], width: int | None) -> list[str]:
    """A header and one line per run. In a narrow terminal notes have lines of their own and columns are left out."""
    if not runs:
        return []
    rows = [HEADER, *(cells(run) for run in runs)]
    shown = [index for index in range(len(HEADER)) if any(row[index] for row in rows[1:])]
    widths = [max(len(row[index]) for row in rows) for index in range(len(HEADER))]
    left_out = []
    for name in LEFT_OUT:
        if width is None or sum(widths[index] + 2 for index in shown) - 2 <= width:
            break
        if (index := HEADER.index(name)) in shown:
            shown.remove(index)
            left_out.append(name)
    lines = []
    for row, run in zip(rows, (None, *runs), strict=True):
        line = "  ".join(
            row[index].ljust(widths[index]) if index < 3 else row[index].rjust(widths[index]) for index in shown
        )
        lines += _with_note(line, run.note if run else "", width)
    if left_out:
        lines.append(f"(no room for: {', '.join(left_out)})")
    return lines


def _with_note(line: str, note: str, width: int | None) -> list[str]:
    if not note:
        return [line.rstrip()]
    if width is None or len(line) + 2 + len(note) <= width:
        return [f"{line}  {note}"]
    if len(line.rstrip()) + 2 + len(note) <= width:
        return [f"{line.rstrip()}  {note}"]
    return [line.rstrip(), *_wrapped(note, width, indent="    ")]


def _wrapped(line: str, width: int | None, indent: str = "") -> list[str]:
    """Broken between words, so that paths can be copied."""
    if width is None:
        return [indent + line]
    return wrap(
        line, width, break_long_words=False, break_on_hyphens=False, initial_indent=indent, subsequent_indent=indent
    )


def cells(run: RunState) -> tuple[str, ...]:
    """What stands in the columns of HEADER."""
    return (
        run.run,
        run.kind,
        (run.node or "").partition(".")[0],
        f"{run.epoch}/{run.epochs}",
        "" if (rate := run.steps_per_second) is None else f"{rate:.{1 if rate >= 10 else 2}f}",
        "" if run.loss is None else f"{run.loss:.1f}",
        "" if run.radius is None else f"{run.radius:.2f}",
        str(run.restarts) if run.restarts else "",
        "" if run.seconds_left is None else duration(run.seconds_left),
    )


def watch(study: StudyDir, asked: Arguments, console: Console, page: LivePage | None = None) -> int:
    """Show the table anew until nothing is queued or running: in place in a terminal, elsewhere what has changed.

    Returns:
        The exit code.
    """
    looks = Looks()

    def look() -> StudyState:
        state = _look(study, asked, looks)
        if page is not None and _goes_on(state):
            page.renew(state)
        return state

    state = look()
    pause = WATCH_SLURM_SECONDS if state.on_slurm else WATCH_SECONDS
    if not console.is_terminal:
        return _watch_plainly(look, state, pause, console)
    with Live(console=console, auto_refresh=False, vertical_overflow="crop") as live:
        while True:
            lines = [*status_lines(state, console.width, console.height - 1), time.strftime("%H:%M:%S")]
            live.update(Text("\n".join(lines), no_wrap=True, overflow="crop"), refresh=True)
            if not _goes_on(state):
                return _code(state)
            time.sleep(pause)
            state = look()


def _watch_plainly(look: Callable[[], StudyState], state: StudyState, pause: float, console: Console) -> int:
    before: set[str] = set()
    while True:
        lines = status_lines(state)
        for line in lines:
            if line not in before or line == lines[0]:
                say(console, f"{time.strftime('%H:%M:%S')} {line}" if line == lines[0] else line)
        before = set(lines)
        if not _goes_on(state):
            return _code(state)
        time.sleep(pause)
        state = look()


def _goes_on(state: StudyState) -> bool:
    return not state.is_stuck and (bool(state.count(*ACTIVE)) or state.has_job_in_queue)


# Failures and logs


def failure_lines(state: StudyState) -> Iterator[str]:
    """All failures, one after the other."""
    if state.sources:
        yield state.sources
    if not state.failures:
        yield f"{state.study.path.name}: no failures. Diverged runs are results."
    for failure in state.failures:
        yield from _failure_lines(failure)
    if state.failures:
        yield f"{len(state.failures)} in all. The same launch line {_verb(state)} what is missing."


def _failure_lines(failure: Failure) -> Iterator[str]:
    where = f" on {failure.node}" if failure.node else ""
    yield f"{failure.name}: {failure.stage}{where}: {failure.how}"
    yield f"  What to do: {failure.advice}."
    if failure.log is not None and (words := failure.last_words(LAST_LINES)):
        yield f"  {failure.log}"
        yield from (f"  | {line}" for line in words)
    yield ""


def show_log(study: StudyDir, run: RunDir | None, console: Console) -> int:
    """The path of a run's newest log, then the log.

    Returns:
        The exit code.

    Raises:
        UserError: no run was named, or it has no log.
    """
    if run is None:
        raise UserError("--logs shows one run's log: name it with --run RUN")
    attempts = all_attempts(run)
    logs = [attempt.log for attempt in reversed(attempts) if attempt.log.is_file()]
    of_run = [element for (_, name), element in by_run(read_batches(study)).items() if name == run.name]
    logs += [element.log for element in of_run if element.log is not None and element.log.is_file()]
    if not logs:
        raise UserError(f"run {run.name} has no log yet: it was not started")
    say(console, str(logs[0]))
    sys.stdout.flush()
    with logs[0].open(errors="replace") as log:
        for line in log:
            sys.stdout.write(neutral(line))
    return 0


# Ending it


def cancel_study(study: StudyDir, console: Console) -> int:
    """scancel of the study's arrays that have anything queued or running.

    Returns:
        The exit code.

    Raises:
        UserError: it runs on this machine, without Slurm; or Slurm does not answer.
    """
    elements = read_batches(study)
    names = {element.job: element.batch.name for element in elements}
    try:
        queue = queued() if elements else []
        names = {element.job: element.batch.name for element in adopted(study, elements, queue)}
        there = [element for element in queue if element.element.partition("_")[0] in names]
        of_job = Counter((element.element.partition("_")[0], element.state) for element in there)
        jobs = sorted({job for job, _ in of_job}, key=int)
        if jobs:
            cancel(jobs)
    except SlurmError as error:
        by_hand = " ".join(sorted(job for job in names if job))
        raise UserError(f"{error}. Nothing is known to be cancelled; by hand: scancel {by_hand}") from error
    for job in jobs:
        counts = ", ".join(f"{count} {state.lower()}" for (of, state), count in sorted(of_job.items()) if of == job)
        say(console, f"cancelled {job} ({names[job]}): {counts}")
    if jobs:
        say(console, "Running elements get a warning and then end. The same launch line submits what is missing.")
        return 0
    if (process := running_launcher(study.launcher)) is not None:
        raise UserError(f"study {study.path} is run by {process}, not by Slurm: stop it with Ctrl-C there")
    say(console, f"Nothing to cancel: no element of {study.path.name} is queued or running.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
