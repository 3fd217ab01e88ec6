"""How a task ended that left no result, and what to do about it."""

from __future__ import annotations

import re
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from vaehpc.command import neutral
from vaehpc.monitoring.records import Element, Start
from vaehpc.slurm.client import AccountedElement
from vaehpc.study.attempts import LOG_BYTES, tail
from vaehpc.study.files import Event, read_words

NEAR_LIMIT = 0.9
"""A task killed with a peak above this share of its memory is taken to have been killed for it."""
HEADROOM = 1.3
"""What to ask for next time: so many times what was used."""
FULL_DISK_BYTES = 4e6
"""A disk with less room is full: not even a log tells why a task crashed there."""

UNSEEN_FOLDER = ("0:53", "53:0")
"""Slurm's exit code where it cannot open a log, and that of the suite's script where it finds no folder."""
MEMORY_WORDS = re.compile(r"oom[-_ ]kill|memory limit|Unable to allocate", re.IGNORECASE)
"""How Slurm's daemon on the node and NumPy put it."""
DISK_WORDS = re.compile(r"Errno 28\b|No space left on", re.IGNORECASE)
"""How Python, Arrow and this project put it."""


LOCK = "install the lock train-gpu on the nodes, or in their image, and let no LD_LIBRARY_PATH or PATH hide it"
DRIVER = "`vaehpc doctor --site FILE --probe` shows a node's driver; ask its staff, or leave the node out with exclude"
GPU_WORDS = [
    (re.compile(words, re.IGNORECASE), what, advice)
    for words, what, advice in (
        (
            "OOM when allocating|RESOURCE_EXHAUSTED|CUDA_ERROR_OUT_OF_MEMORY",
            "out of GPU memory",
            "fewer tasks_per_gpu in the site file, or a smaller batch",
        ),
        (
            r"TensorFlow sees \d+ of \d+ GPU",
            "",
            "leave its node out with exclude in the site file, or mend what it says",
        ),
        ("Driver/library version mismatch|SYSTEM_DRIVER_MISMATCH", "the node's driver was changed under way", DRIVER),
        (
            "CUDA driver version is insufficient|UNSUPPORTED_PTX_VERSION|unsupported toolchain",
            "the node's driver is too old",
            DRIVER,
        ),
        (
            "no kernel image is available|NO_BINARY_FOR_GPU",
            "no code for this kind of GPU",
            "ask for another kind with gpu_type or constraint in the site file",
        ),
        ("libdevice", "XLA finds no libdevice", LOCK),
        ("ptxas|No PTX compilation provider", "XLA finds no usable ptxas", LOCK),
        ("CUDNN_STATUS|DNN library", "cuDNN does not start", LOCK),
        ("uncorrectable ECC|ECC_UNCORRECTABLE|fallen off the bus", "the GPU is damaged", DRIVER),
    )
]
"""Of GPUs, as TensorFlow, XLA and CUDA put it, the surest first: what it means, and what to do."""


@dataclass(frozen=True)
class Failure:
    """Why a run has no result, and what to do."""

    name: str
    """The run; of a job on the whole study, its batch."""
    stage: str
    node: str | None
    how: str
    """'out of memory', 'crashed', ... with what is known beside it."""
    log: Path | None
    advice: str

    def last_words(self, num_lines: int) -> Sequence[str]:
        """The end of its log."""
        return [] if self.log is None else tail(self.log, num_lines)


def cause(stage: str, own: Start | None, element: Element, account: AccountedElement | None) -> tuple[str, str, bool]:
    """How an element ended, what to do, and whether files alone prove it."""
    crash, state = element.last("crash"), account.state if account else ""
    status = crash.detail.strip() if crash else ""
    node = (account.node if account else "") or (crash.node if crash else "") or "NODE"
    if own is not None and own.outcome == "failed":
        return (*crash_words(own, element), True)
    if (memory := _memory_words(own, element, account)) is not None:
        return (*memory, state == "")
    if state in ("NODE_FAIL", "BOOT_FAIL"):
        return f"node lost ({node})", f'leave it out with exclude = "{node}" in the site file, and launch again', True
    if state in ("TIMEOUT", "DEADLINE"):
        return "timed out", f"give more hours in [jobs.{stage}] of the site file, or more warn_seconds", True
    if state == "CANCELLED":
        return "cancelled", "the same launch line submits it again", True
    if element.last("left") is not None:
        return "stopped by the file 'stop'", "the same launch line goes on where it left", True
    if (gave_up := element.last("given-up")) is not None and crash is None:
        return (
            f"given up: {gave_up.detail}",
            f"give more hours in [jobs.{stage}] of the site file, and launch again",
            True,
        )
    # Before what looks killed: where the disk is full a task cannot write how it ended either.
    is_full = shutil.disk_usage(element.batch.path).free < FULL_DISK_BYTES
    if crash is not None and status != "137" and (is_full or _log_says(DISK_WORDS, own, element)):
        return "crashed: no space left on the disk", "free some, then the same launch line goes on where it left", True
    if _was_killed(own, crash):
        return "killed (SIGKILL)", "the node's memory may have run out: see the log, then launch again", False
    if crash is not None:
        return f"crashed (exit status {status})", "read its log, then the same launch line tries it again", True
    if own is not None and own.outcome is not None:
        return left_words(own), "the same launch line goes on where it left", False
    if (ended := element.last("ended")) is not None and ended.detail:
        return "timed out", f"give more hours in [jobs.{stage}] of the site file, or more warn_seconds", True
    if ended is not None:
        return "ended by Slurm: cancelled or preempted", "the same launch line submits it again", False
    if account is not None and account.exit_code in UNSEEN_FOLDER:
        how = f"its node ({node}) does not see {element.batch.path}, where its log lies"
        return how, f'leave it out with exclude = "{node}" in [slurm] of the site file, and launch again', True
    if state == "FAILED":
        return f"crashed (exit code {account.exit_code if account else '?'})", "read its log, then launch again", True
    started = own is not None or element.last("start") is not None
    how = "killed: its node was lost, or it was ended at once" if started else "ended before it could note anything"
    return how, "the same launch line submits it again", False


def crash_words(start: Start, element: Element | None) -> tuple[str, str]:
    """What an exception says that ended a task, and what to do."""
    error = neutral(str((start.exit or {}).get("error") or "")).strip() or "no message"
    first = error.splitlines()[0]
    for words, what, advice in GPU_WORDS:
        if words.search(error):
            return f"crashed: {what}: {first}" if what else f"crashed: {first}", advice
    if MEMORY_WORDS.search(error):
        limit = "" if element is None else f" of {element.record.memory_gb:g} GB"
        return f"out of memory{limit}: {first}", "give more memory_gb in the site file, and launch again"
    return f"crashed: {first}", "read its log, mend the cause; the same launch line tries it again"


def _memory_words(own: Start | None, element: Element, account: AccountedElement | None) -> tuple[str, str] | None:
    """'out of memory' and what to change, where accounting, the log or the peak of a killed task tell it."""
    tasks, crash = element.tasks_at_once, element.last("crash")
    limit = element.record.memory_gb / tasks
    peak = max(own.peak_memory_gb if own else 0.0, ((account.max_rss_gb if account else None) or 0.0) / tasks)
    said = account is not None and account.state == "OUT_OF_MEMORY"
    if not said and not (
        _was_killed(own, crash) and (peak >= NEAR_LIMIT * limit or _log_says(MEMORY_WORDS, own, element))
    ):
        return None
    found = f"peak {peak:.1f} GB" if peak else "peak not known"
    wanted = rounded_up(HEADROOM * max(peak, limit))
    advice = f"memory_gb = {wanted:g} in [jobs.{element.record.stage}] of the site file, then the same launch line"
    if tasks == 1:
        return f"out of memory ({found}, limit {limit:g} GB)", advice
    return f"out of memory ({found}, limit {limit:g} GB for each of {tasks})", f"{advice}; or fewer tasks_per_gpu"


def _was_killed(own: Start | None, crash: Event | None) -> bool:
    """By SIGKILL. Of several tasks in one element each has its own end, and the element's status is 1."""
    if crash is None:
        return False
    return crash.detail.strip() == "137" or (crash.detail.strip() == "1" and own is not None and own.outcome is None)


def _log_says(words: re.Pattern[str], own: Start | None, element: Element) -> bool:
    logs = [element.log, own.attempt.log if own else None]
    return any(words.search(read_words(log, LOG_BYTES)) for log in logs if log is not None)


def left_words(start: Start) -> str:
    """How a task left that says itself that it has ended, without a result."""
    step = start.beat.get("step")
    where = f" at step {step:,}" if step is not None else ""
    return f"stopped{where}" if start.outcome == "stopped" else f"ended without a result ({start.outcome})"


def rounded_up(value: float) -> float:
    """To the next quarter below 4, else to the next whole number."""
    grain = 0.25 if value < 4 else 1.0
    return -(-value // grain) * grain
