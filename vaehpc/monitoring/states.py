"""What every run of a study is doing, and what the jobs on the whole study do.

Markers, heartbeats and what the batch scripts noted are read first. squeue is asked once, sacct once and only where
something is still unexplained; both answer within the time that they are given or not at all.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from textwrap import shorten
from typing import Any, Literal, TypeVar

from vaehpc.command import duration
from vaehpc.monitoring.causes import Failure, cause, crash_words, left_words
from vaehpc.monitoring.records import (
    MEASURED,
    TRAINED,
    Element,
    RunFiles,
    Sources,
    Start,
    adopted,
    by_run,
    is_alive,
    read_batches,
    read_launcher,
    read_run,
    read_summary,
    resumed_words,
)
from vaehpc.reporting import words
from vaehpc.schema.results import RunSummary
from vaehpc.slurm.client import QueuedElement, SlurmError, accounted, nothing_goes_on, queued, release_lines
from vaehpc.study.attempts import part_of, read_json
from vaehpc.study.files import StudyDir

SAID_LENGTH = 200
"""Characters of what a client of Slurm said when it failed."""
SILENT_SECONDS = 600.0
"""A task without a sign of life for so long is called silent."""
FOR_ACCOUNTING = 0.3
"""Seconds that are kept for sacct while squeue is waited for, and that it gets in any case."""

Found = TypeVar("Found")
Kind = Literal["waiting", "starting", "training", "trained", "measuring", "done", "silent", "unknown", "MISSING"]
ACTIVE: tuple[Kind, ...] = ("waiting", "starting", "training", "trained", "measuring", "silent", "unknown")
"""Not ended, as far as is known."""
WORKING: dict[str, Kind] = {"train": "training", "statistics": "measuring"}


@dataclass(frozen=True)
class RunState:
    """A line of the table. What is not known, or means nothing in this state, is None."""

    run: str
    kind: Kind
    note: str = ""
    """Slurm's reason, class, restarts, how it ended."""
    node: str | None = None
    epoch: int = 0
    """Finished ones."""
    epochs: int = 0
    steps_per_second: float | None = None
    loss: float | None = None
    radius: float | None = None
    restarts: int = 0
    """Starts of its training after the first."""
    seconds_left: float | None = None
    """Of its training."""
    is_trained: bool = False
    failure: Failure | None = None
    unexplained: bool = False
    """Accounting could tell more."""


@dataclass(frozen=True)
class StudyState:
    """What the runs of a study are doing, and where that is known from."""

    study: StudyDir
    runs: tuple[RunState, ...]
    jobs: tuple[str, ...]
    """Jobs on the whole study, in words."""
    sources: str | None
    """Which source did not answer."""
    failures: tuple[Failure, ...]
    on_slurm: bool
    has_job_in_queue: bool
    stuck: tuple[str, ...] = ()
    """Which elements will not start by themselves, and the lines that help."""
    is_stuck: bool = False
    """Whether all others wait for them."""

    def only(self, run: str) -> StudyState:
        """The same for one run of it."""
        runs = tuple(state for state in self.runs if state.run == run)
        return replace(self, runs=runs, failures=tuple(failure for failure in self.failures if failure.name == run))

    def count(self, *kinds: Kind) -> int:
        """Runs in one of these states."""
        return sum(run.kind in kinds for run in self.runs)


# The state of a run


def run_state(run: RunFiles, sources: Sources) -> RunState:
    """What a run is doing."""
    config = run.config
    newest = max(run.starts.values(), key=lambda start: start.attempt.number, default=None)
    beat = run.progress
    known = RunState(
        run.name,
        "unknown",
        node=None if newest is None else newest.began.get("node") or newest.began.get("host"),
        epoch=int(beat.get("epoch") or 0),
        epochs=-(-config.num_steps // config.steps_per_epoch),
        loss=beat.get("reconstruction_loss"),
        radius=beat.get("radius_median"),
        restarts=max(0, run.num_trainings - 1),
        is_trained=TRAINED in run.markers,
    )
    if not known.is_trained:
        return stage_state(run, "train", known, sources)
    known = replace(known, epoch=known.epochs)
    is_fork = config.arm.fork is not None  # a fork's end is told by its probe: it has no statistics
    if is_fork or MEASURED in run.markers:
        return ended_state(known, sources.summary.runs.get(run.name) if sources.summary else None, beat)
    state = stage_state(run, "statistics", known, sources)
    if state.kind in ("waiting", "starting"):
        return replace(state, kind="trained", note=f"statistics: {state.kind}{_in_brackets(state.note)}")
    return state


def ended_state(known: RunState, found: RunSummary | None, beat: Mapping[str, Any]) -> RunState:
    """The state of a run with all its results, which the study's summary may know."""
    known = replace(known, kind="done", note=words.class_of(found) if found and found.run_class else "")
    if found is None or found.run_class != "nonfinite":
        return known
    known = replace(known, loss=None, radius=None)  # of a checkpoint before its NaN
    return known if found.nonfinite_step is None else replace(known, epoch=int(beat.get("epoch") or 0))


def _in_brackets(text: str) -> str:
    return f" ({text})" if text else ""


def stage_state(run: RunFiles, stage: str, known: RunState, sources: Sources) -> RunState:
    """State of a run that lacks the result of this stage."""
    element, start = sources.elements.get((stage, run.name)), run.starts.get(stage)
    if element is None:
        return _local_state(run, stage, start, known, sources)
    in_queue = (sources.queue or {}).get(element.id or "")
    later = start is not None and start.time > element.record.created
    if in_queue is None and start is not None and later and start.began.get("job") not in sources.job_ids:
        return _local_state(run, stage, start, known, sources)  # launched again on one machine
    own = start if later or (start is not None and start.began.get("job") == element.id) else None
    if in_queue is not None:
        return _queued_state(run, stage, own, element, in_queue, known, sources)
    if sources.queue is None and element.job is not None:
        return _guessed_state(run, stage, own, element, known, sources)
    return _ended_state(run, stage, own, element, known, sources)


def working(run: RunFiles, stage: str, start: Start, known: RunState, sources: Sources) -> RunState:
    """State of a run whose task is alive."""
    state = replace(known, kind=WORKING.get(stage, "training"))
    if stage == "train" and (rate := start.beat.get("steps_per_second")):
        left = (run.config.num_steps - int(start.beat.get("step", 0))) / rate
        state = replace(state, steps_per_second=rate, seconds_left=left)
        if left <= 0:
            state = replace(state, note=_joined(state.note, "writing its latents"))
    if stage == "statistics" and (part := part_of(start.beat)):
        state = replace(state, note=_joined(state.note, part))
    if (silent := sources.now - start.last_seen) > SILENT_SECONDS and stage == "train":
        state = replace(state, kind="silent", note=_joined(state.note, f"no sign of life for {duration(silent)}"))
    return state


def _queued_state(
    run: RunFiles,
    stage: str,
    own: Start | None,
    element: Element,
    entry: QueuedElement,
    known: RunState,
    sources: Sources,
) -> RunState:
    if entry.state == "PENDING":
        words = [_times("requeued", element.num_requeued(entry.state)), _crashes(element), entry.reason]
        return replace(known, kind="waiting", node=None, note=_joined(*words))
    known = replace(known, node=entry.node or known.node)
    words = [_times("requeued", element.num_requeued(entry.state)), _crashes(element)]
    if stage == "train" and any(words):
        words.append(resumed_words(run))
    if entry.state not in ("RUNNING", "CONFIGURING", "COMPLETING"):
        words.append(entry.state.lower().replace("_", " "))
    began = element.last("start")
    if own is None or (began is not None and own.time < began.time - 1):  # of an earlier start of the element
        return replace(known, kind="starting", note=_joined(*words))
    if own.outcome is not None:
        words.append(f"its task has ended ({own.outcome}), its element has not")
        return replace(known, kind=WORKING.get(stage, "training"), note=_joined(*words))
    state = working(run, stage, own, known, sources)
    limit = entry.seconds_left
    if limit is not None and state.seconds_left is not None and limit < state.seconds_left:
        words.append(f"its time limit is in {duration(limit)}")
    return replace(state, note=_joined(state.note, *words))


def _guessed_state(
    run: RunFiles, stage: str, own: Start | None, element: Element, known: RunState, sources: Sources
) -> RunState:
    """Without squeue: fresh heartbeats, how the task says that it ended, and accounting."""
    if own is not None and own.outcome is None and sources.now - own.last_seen < SILENT_SECONDS:
        return working(run, stage, own, known, sources)
    account = (sources.accounts or {}).get(element.id or "")
    ended = own is not None and own.outcome == "failed"
    if ended or (account is not None and account.has_ended):
        return _ended_state(run, stage, own, element, known, sources)
    if account is not None:
        kind: Kind = "waiting" if account.state in ("PENDING", "REQUEUED") else "starting"
        return replace(known, kind=kind, note="says the accounting")
    note = f"no sign of life for {duration(sources.now - own.last_seen)}" if own else "waiting, running or ended"
    return replace(known, kind="unknown", note=note, unexplained=True)


# Runs on one machine


def _local_state(run: RunFiles, stage: str, start: Start | None, known: RunState, sources: Sources) -> RunState:
    if start is not None and start.outcome is None:
        alive = is_alive(start)
        if alive or (alive is None and sources.now - start.last_seen < SILENT_SECONDS):
            words = resumed_words(run) if stage == "train" else ""
            return working(run, stage, start, replace(known, note=words), sources)
        if alive is None and sources.launcher_elsewhere:
            silent = duration(sources.now - start.last_seen)
            note = f"no sign of life for {silent}; look on {sources.launcher_elsewhere}"
            return replace(known, kind="silent", note=note)
    newer_launcher = sources.launcher is not None and (start is None or sources.launcher_since > start.time)
    if newer_launcher:
        return replace(known, kind="waiting", node=None)
    if start is None and sources.launcher_elsewhere:
        return replace(
            known, kind="unknown", note=f"waiting, if its launcher on {sources.launcher_elsewhere} still runs"
        )
    if start is None:
        how = "not submitted" if sources.elements else "not started"
        return _missing(run, stage, None, known, how, "the same launch line goes on with it")
    if start.outcome == "failed":
        return _missing(run, stage, start, known, *crash_words(start, None))
    if start.outcome is not None:
        return _missing(run, stage, start, known, left_words(start), "the same launch line goes on where it left")
    how = "killed" if sources.launcher else "interrupted"
    return _missing(run, stage, start, known, how, "the same launch line goes on from its last checkpoint")


# Ended without a result


def _ended_state(
    run: RunFiles, stage: str, own: Start | None, element: Element, known: RunState, sources: Sources
) -> RunState:
    if element.job is None:
        advice = f"{element.batch.name} was not accepted by Slurm; the same launch line submits it"
        return _missing(run, stage, None, known, "not submitted", advice)
    account = (sources.accounts or {}).get(element.id or "")
    event = element.last("crash", "ended", "left", "given-up")
    node = (account.node if account else None) or (event.node if event else None) or known.node
    known = replace(known, node=node)
    how, advice, certain = cause(stage, own, element, account)
    state = _missing(run, stage, own, known, how, advice, element.log)
    return replace(state, unexplained=not certain and account is None)


def _missing(
    run: RunFiles,
    stage: str,
    start: Start | None,
    known: RunState,
    how: str,
    advice: str,
    batch_log: Path | None = None,
) -> RunState:
    log = start.attempt.log if start is not None and os.access(start.attempt.log, os.R_OK) else batch_log
    failure = Failure(run.name, stage, known.node, how, log, advice)
    note = how if stage == "train" else f"{stage}: {how}"
    return replace(known, kind="MISSING", note=note, failure=failure)


# Jobs on the whole study


def study_jobs(study: StudyDir, elements: Sequence[Element], sources: Sources) -> list[tuple[str, Failure | None]]:
    """The newest job of each stage that is no run's, in words, and as a failure where it failed."""
    newest = {element.record.stage: element for element in elements if element.record.stage not in WORKING}
    return [_study_job(study, element, sources) for element in newest.values()]


def _study_job(study: StudyDir, element: Element, sources: Sources) -> tuple[str, Failure | None]:
    stage, entry = element.record.stage, (sources.queue or {}).get(element.id or "")
    if entry is not None:
        words = "waiting" if entry.state == "PENDING" else entry.state.lower()
        part = part_of(read_json(study.heartbeat(stage))) if entry.state == "RUNNING" else None
        where = _in_brackets(entry.reason if entry.state == "PENDING" else entry.node)
        return f"{stage}: {words}{where}{f', {part}' if part else ''}", None
    result = {"aggregate": study.report_text, "verdict": study.replay_page}.get(stage)
    newer = result is not None and result.exists() and result.stat().st_mtime >= element.record.created
    if element.last("done") is not None or newer:
        return f"{stage}: done", None
    if element.job is None:
        return f"{stage}: not submitted", None
    if sources.queue is None:
        return f"{stage}: unknown, squeue does not answer", None
    how, advice, _ = cause(stage, None, element, (sources.accounts or {}).get(element.id or ""))
    event = element.last("crash", "ended", "start")
    failure = Failure(element.batch.name, stage, event.node if event else None, how, element.log, advice)
    return f"{stage}: {how}", failure


# The study


CLIENT_PAUSE = 60.0
"""Seconds between two questions to a client of Slurm, whose controller serves others too."""


class Looks:
    """What looks at a study that are repeated keep: runs whose files will not change, and Slurm's newest answers."""

    def __init__(self) -> None:
        self.finished: dict[str, RunFiles] = {}
        self._asked_at: dict[str, float] = {}
        self._answers: dict[str, Any] = {}

    def answer(self, client: str, ask: Callable[[], Found]) -> Found:
        """What a client answers; that of the last minute, if it was asked in it.

        Raises:
            SlurmError: it does not answer, or did not in the last minute.
        """
        if time.monotonic() - self._asked_at.get(client, float("-inf")) >= CLIENT_PAUSE:
            self._asked_at[client] = time.monotonic()
            try:
                self._answers[client] = ask()
            except SlurmError as error:
                self._answers[client] = error
        found = self._answers[client]
        if isinstance(found, SlurmError):
            raise found
        answer: Found = found
        return answer


def read_study(study: StudyDir, seconds: float, looks: Looks | None = None) -> StudyState:
    """What every run is doing.

    Args:
        study: its directory.
        seconds: to wait for squeue and sacct together. Files are read meanwhile.
        looks: where the study is looked at again and again, what earlier looks have kept.

    Raises:
        UserError: it is not a study, or its settings are damaged. One whose data are still prepared has no runs yet.
    """
    begun = time.monotonic()
    elements = read_batches(study)
    being_prepared = bool(elements) and not study.config_path.exists()
    configs = [] if being_prepared else study.config().runs()
    looks = looks or Looks()
    known, limit = looks.finished, max(0.1, seconds - FOR_ACCOUNTING)
    with ThreadPoolExecutor(1) as beside:
        asked = beside.submit(looks.answer, "squeue", lambda: queued(limit)) if elements else None
        runs = [known.get(run.name) or read_run(study.path / run.name, run) for run in configs]
        known |= {run.name: run for run in runs if run.is_finished}
        launcher = read_launcher(study)
        summary = read_summary(study)
        try:
            entries, queue_error = asked.result() if asked else [], None
        except SlurmError as error:
            entries, queue_error = [], str(error)
    elements = adopted(study, elements, entries)
    sources = Sources(
        elements=by_run(elements),
        job_ids=frozenset(
            id_ for element in elements if element.job for id_ in (f"{element.job}_{element.number}", element.job)
        ),
        queue=None if queue_error else {entry.element: entry for entry in entries},
        summary=summary,
        now=time.time(),
        **launcher,
    )
    states = [run_state(run, sources) for run in runs]
    account_error = None
    if any(state.unexplained for state in states):
        left = round(max(FOR_ACCOUNTING, seconds - (time.monotonic() - begun)), 1)
        try:
            jobs_asked = _jobs_of(states, sources)
            sources = replace(sources, accounts=looks.answer("sacct", lambda: accounted(jobs_asked, left)))
        except SlurmError as error:
            account_error = str(error)
    states = [_looked_at_again(state, run, sources) for state, run in zip(states, runs, strict=True)]
    jobs = study_jobs(study, elements, sources)
    failures = [state.failure for state in states if state.failure] + [failure for _, failure in jobs if failure]
    ids = {element.id for element in elements}
    own = [entry for entry in entries if entry.element in ids]
    return StudyState(
        study,
        tuple(states),
        tuple(words for words, _ in jobs),
        _source_words(queue_error, account_error),
        tuple(failures),
        bool(elements),
        bool(own),
        tuple(release_lines(own)),
        nothing_goes_on(own),
    )


def _jobs_of(states: Iterable[RunState], sources: Sources) -> list[str]:
    """Slurm's numbers of the arrays with unexplained elements."""
    keys = [("statistics" if state.is_trained else "train", state.run) for state in states if state.unexplained]
    jobs = {sources.elements[key].job for key in keys if key in sources.elements}
    return sorted(job for job in jobs if job)


def _looked_at_again(state: RunState, run: RunFiles, sources: Sources) -> RunState:
    """A run that seems to be missing may have ended well between the look at its files and that at the queue."""
    if state.kind != "MISSING" and not (state.unexplained and sources.accounts):
        return state
    return run_state(read_run(run.path, run.config), sources)


def _source_words(queue_error: str | None, account_error: str | None) -> str | None:
    said = "; ".join(error for error in (queue_error, account_error) if error)
    words = "squeue and accounting down: states from heartbeats"
    if not said:
        return None
    if not account_error:
        words = "squeue down: states from heartbeats"
    elif not queue_error:
        words = "accounting down: states from squeue and heartbeats"
    patience = "; --patience 10 waits longer" if "did not answer" in said else ""
    return f"{words} ({shorten(said, SAID_LENGTH, placeholder=' ...')}{patience})"


# Words


def _times(what: str, count: int) -> str:
    return f"{what} x{count}" if count else ""


def _crashes(element: Element) -> str:
    return _times("crashed", sum(event.kind == "crash" for event in element.events))


def _joined(*words: str) -> str:
    return ", ".join(word for word in words if word)
