"""Jobs of a minute that look at the nodes: submitted as the product submits, waited for, and read."""

from __future__ import annotations

import os
import shlex
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from vaehpc.checks.finding import Finding, right, unchecked, wrong
from vaehpc.checks.machine import (
    THREADS,
    data_finding,
    environment_finding,
    python_findings,
    tensorflow_findings,
    version_finding,
)
from vaehpc.slurm.arrays import Batch, array
from vaehpc.slurm.client import SlurmError, cancel, client, queued
from vaehpc.slurm.containers import environment_lines
from vaehpc.slurm.sbatch import Array, SlurmArray
from vaehpc.study.attempts import tail
from vaehpc.study.files import StudyDir, read_model, write_model, write_text
from vaehpc.study.packages import ANALYSIS_EXTRAS, TRAIN_EXTRAS
from vaehpc.study.sites import Site, job_config
from vaehpc.tasks.visit import MachineReport, VisitDir, VisitReport, VisitRequest

VISITED = ("train", "statistics")
"""Stages at whose place a visit runs, and whose script is shown to sbatch before."""
ANSWER_SECONDS = 90.0
"""NFS may hide a new file for a minute."""
SQUEUE_SECONDS = 2.0
POLL_SECONDS = 0.25
LEAVE_SECONDS = 20.0
GONE_SECONDS = 10.0
"""A result may become visible so long after its job has left the queue."""
LOG_LINES = 4
PARTITION_CLOSED = ("PartitionDown", "PartitionInactive")
Show = Callable[[str], None]


@dataclass
class Visit:
    """A visit in Slurm's hands."""

    stage: str
    folder: VisitDir
    job: str
    state: str = "PENDING"
    node: str = ""
    reason: str = ""
    gone_at: float | None = None
    """When it was first seen to have left the queue."""
    outcome: VisitReport | Finding | None = None

    @property
    def in_words(self) -> str:
        """'train is PENDING (Resources)'."""
        where = f" on {self.node}" if self.node else f" ({self.reason})" if self.reason else ""
        return f"{self.stage} is {self.state}{where}"


def visit_array(stage: str, folder: Path, site: Site) -> Array:
    """The visit as Slurm is asked for it: placed as the stage is, with its GPUs, but few processors and little time."""
    place = array(StudyDir(folder), Batch(stage, stage, ((folder,),)), site).asked
    job = job_config("visit")
    return replace(
        place,
        name=f"doctor.{stage}",
        folder=folder,
        num_elements=1,
        numbers=(0,),
        entry_point=job.entry_point,
        arguments=shlex.quote(str(folder)),
        cpus=job.cpus,
        memory_gb=min(job.memory_gb, place.memory_gb),
        minutes=min(round(60 * job.hours), place.minutes),
        setup=(*site.slurm.setup, *environment_lines(site)),
        teardown=(),
        opens_its_logs=False,
    )


def submit_visit(stage: str, folder: Path, site: Site, data: Path | None) -> Visit:
    """Put a visit into the queue.

    Raises:
        SlurmError: Slurm refuses.
    """
    visit = VisitDir(folder)
    visit.path.mkdir()
    extras = TRAIN_EXTRAS if stage == "train" else ANALYSIS_EXTRAS
    request = VisitRequest(
        tensorflow=stage == "train",
        extras=extras,
        environment=(*site.environment, THREADS, "CUDA_VISIBLE_DEVICES"),
        data=None if data is None else str(data.absolute()),
        answer_seconds=ANSWER_SECONDS,
    )
    write_model(visit.request_path, request)
    return Visit(stage, visit, SlurmArray(visit_array(stage, folder, site), site.slurm_of(stage)).submitted())


def visit_findings(
    scratch: Path, site: Site, data: Path | None, here: MachineReport, minutes: float, show: Show
) -> list[Finding]:
    """Submit visits, wait for them, and judge what they found.

    Args:
        scratch: an empty folder in the folder of the studies.
        site: where they run.
        data: a data set that the nodes should see.
        here: the launcher's machine.
        minutes: how long to wait at most; what is left is cancelled.
        show: is told the states.

    Raises:
        KeyboardInterrupt: after what was submitted was cancelled.
    """
    findings, visits = list[Finding](), list[Visit]()
    try:
        for stage in VISITED:
            try:
                visits.append(submit_visit(stage, scratch / stage, site, data))
            except SlurmError as error:
                findings.append(wrong(f"visit of {stage}", str(error), "see what is wrong above"))
        wait_for(visits, 60 * minutes, show)
    finally:
        _cancel_rest(visits, scratch)
    _let_leave([visit.job for visit in visits])
    for visit in visits:
        findings += _judged(visit, site, here, minutes)
    return findings


def wait_for(visits: Sequence[Visit], limit: float, show: Show) -> None:
    """Answer the visits and collect what they found, until all have ended or the time is up."""
    deadline, asked_at = time.monotonic() + limit, float("-inf")
    while waiting := [visit for visit in visits if visit.outcome is None]:
        now = time.monotonic()
        if now > deadline:
            return
        for visit in waiting:
            _exchange(visit)
        if now - asked_at > SQUEUE_SECONDS:
            asked_at = now
            with suppress(SlurmError):  # busy for a moment; results come through the folder
                _ask_queue(waiting, now)
        show("; ".join(f"{visit.in_words}, job {visit.job}" for visit in waiting))
        time.sleep(POLL_SECONDS)


def _exchange(visit: Visit) -> None:
    """Answer a visit that has started, read the result of one that has ended."""
    folder = visit.folder
    os.listdir(folder.path)  # so that NFS looks again  # noqa: PTH208
    if folder.started.exists() and not folder.answer.exists():
        write_text(folder.answer, "seen\n")
    if folder.result_path.exists():
        visit.outcome = read_model(folder.result_path, VisitReport)


def _ask_queue(visits: Sequence[Visit], now: float) -> None:
    elements = {element.element: element for element in queued()}
    for visit in visits:
        element = elements.get(visit.job)
        if element is not None:
            visit.state, visit.node, visit.reason = element.state, element.node, element.reason
            if element.will_not_start or element.reason.startswith(PARTITION_CLOSED):
                remedy = "see the partition and the resources above"
                visit.outcome = wrong(
                    f"visit of {visit.stage}", f"job {visit.job} will not start: {element.reason}", remedy
                )
                with suppress(SlurmError):
                    cancel([visit.job])
        elif visit.gone_at is None:
            visit.gone_at = now
        elif now - visit.gone_at > GONE_SECONDS and visit.outcome is None:
            visit.outcome = failed_finding(visit.stage, visit.job, visit.folder.path, _last_state(visit.job))


def _last_state(job: str) -> str:
    """'FAILED, exit code 1:0, on g1', or nothing where Slurm has forgotten it."""
    try:
        shown = client("scontrol", "show", "job", job, "--oneliner")
    except SlurmError:
        return ""
    fields = dict(field.partition("=")[::2] for field in shown.split())
    return f"{fields.get('JobState', '?')}, exit code {fields.get('ExitCode', '?')}, on {fields.get('NodeList', '?')}"


def failed_finding(stage: str, job: str, folder: Path, state: str) -> Finding:
    """A visit that left the queue without a result, by what it left in its folder."""
    name = f"visit of {stage}"
    found = f"job {job} ended without a result" + (f" ({state})" if state else "")
    logs = [log for pattern in ("*.err", "*.out") for log in sorted(folder.glob(pattern))]
    said = " | ".join(line.strip() for log in logs for line in tail(log, LOG_LINES))
    if not logs:
        remedy = f"does the node see {folder.parent}? Give --out on a file system that the nodes share"
        return wrong(name, f"{found}, and without a log in {folder.parent}", remedy)
    if "No module named" in said or "No such file or directory" in said:
        remedy = "name a Python that the nodes have, with vaehpc in it, as 'python' in [slurm] of the site's file"
    else:
        remedy = "mend what its log says before anything is launched: every task would end so"
    return wrong(name, f"{found}; its log ends: {said or 'with nothing'}", remedy)


def _cancel_rest(visits: Sequence[Visit], scratch: Path) -> None:
    """Cancel what has no outcome, and what Slurm accepted just when this was interrupted."""
    ended = {visit.job for visit in visits if visit.outcome is not None}
    jobs = {visit.job for visit in visits}
    with suppress(SlurmError):
        jobs |= {element.element for element in queued() if Path(element.comment).parent == scratch}
    with suppress(SlurmError):
        cancel(sorted(jobs - ended))


def _let_leave(jobs: Sequence[str]) -> None:
    """Wait until jobs that are done have left their folder, which is then removed."""
    deadline = time.monotonic() + LEAVE_SECONDS
    with suppress(SlurmError):
        while time.monotonic() < deadline and {element.element for element in queued()} & set(jobs):
            time.sleep(POLL_SECONDS)


def _judged(visit: Visit, site: Site, here: MachineReport, minutes: float) -> list[Finding]:
    if visit.outcome is None:
        found = f"job {visit.job} did not end within {minutes:g} min: {visit.in_words}. It was cancelled"
        return [unchecked(f"visit of {visit.stage}", found, "again later, or with a larger --minutes")]
    if isinstance(visit.outcome, Finding):
        return [visit.outcome]
    return report_findings(visit.stage, visit.outcome, site, here, visit.folder.path.parent)


def report_findings(stage: str, report: VisitReport, site: Site, here: MachineReport, folder: Path) -> list[Finding]:
    """Judge what a visit found at the place of a stage."""
    machine, job = report.machine, site.jobs[stage]
    where = f"on {machine.host}"
    lock = ("train-gpu" if job.needed_gpus else "train-cpu") if stage == "train" else "analysis"
    findings = [
        _shared(report, folder, where),
        *python_findings(machine, lock, where),
        version_finding(here, machine, in_image=site.container.runtime != "none"),
        environment_finding(machine, site.environment, where),
        *tensorflow_findings(machine, job.needed_gpus if stage == "train" else 0, where),
    ]
    if report.data is not None:
        findings.append(data_finding(report.data, site.jobs["train"], where))
    return findings


def _shared(report: VisitReport, folder: Path, where: str) -> Finding:
    name = f"shared folder {where}"
    if report.answer_seconds is None:
        remedy = "stop and status would not work: take an --out on a file system without such delays"
        return wrong(name, f"a file written here was not seen there within {ANSWER_SECONDS:g} s in {folder}", remedy)
    return right(name, f"seen both ways; a file and its answer took {report.answer_seconds:.1f} s")
