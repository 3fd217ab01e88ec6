"""Slurm's client commands: what is queued, what is allowed, what has been used. Each answers in bounded time."""

from __future__ import annotations

import getpass
import os
import re
import shutil
import subprocess
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

CLIENT_SECONDS = 10.0
OF_SLURM = re.compile(r"(SLURM|SBATCH|SRUN|SALLOC|SQUEUE|SACCT|SACCTMGR|SINFO|SCANCEL|SCONTROL)_")
KEPT_OF_SLURM = ("SLURM_CONF", "SLURM_CONF_SERVER", "SLURM_JWT")
"""Where the cluster is, and who asks."""


NEVER = ("BadConstraints", "InvalidAccount", "InvalidQOS", "PartitionNodeLimit", "PartitionTimeLimit")
"""Beginnings of Slurm's reasons that a job will not start."""


class SlurmError(Exception):
    """Slurm did not answer, or refused; the message holds its own words."""


@dataclass(frozen=True)
class QueuedElement:
    """An array element, or a plain job, that is pending, running or completing."""

    element: str
    """4711_0, or 4711."""
    state: str
    """PENDING, RUNNING, COMPLETING, ..."""
    node: str
    reason: str
    seconds_left: float | None
    """Of its time limit, None while it has not started."""
    comment: str
    """The batch's folder."""
    partition: str = ""

    @property
    def is_held(self) -> bool:
        """By its user, by the staff, or by Slurm after a node failed to start it: it waits until it is released."""
        return self.state in ("PENDING", "SPECIAL_EXIT", "REQUEUE_HOLD") and "held" in self.reason.lower()

    @property
    def will_not_start(self) -> bool:
        """By itself, whatever becomes free."""
        return self.is_held or (self.state == "PENDING" and self.reason.startswith(NEVER))


@dataclass(frozen=True)
class AccountedElement:
    """What accounting holds of an array element, or a plain job: its last start, with the most that a step used."""

    element: str
    """4711_0, or 4711."""
    state: str
    """COMPLETED, FAILED, TIMEOUT, OUT_OF_MEMORY, NODE_FAIL, CANCELLED, PENDING, RUNNING, ..."""
    exit_code: str
    """'0:9': exit status, signal."""
    node: str
    elapsed_seconds: float | None
    cpus: int | None
    cpu_seconds: float | None
    """Of all its processes, user and system."""
    max_rss_gb: float | None
    gpu_percent: float | None
    """Mean utilisation, where the cluster measures it."""

    @property
    def has_ended(self) -> bool:
        """Whether it is neither in the queue nor on a node."""
        return self.state not in ("PENDING", "RUNNING", "REQUEUED", "SUSPENDED", "RESIZING")


def plain_environment() -> dict[str, str]:
    """This process's environment without what outranks a client's line, or a script's, or fills it up.

    Clusters' modules and users' shells set SBATCH_ and SQUEUE_ variables; a job leaves SLURM_ ones to what it submits.
    """
    return {name: value for name, value in os.environ.items() if name in KEPT_OF_SLURM or not OF_SLURM.match(name)}


def client(
    *command: str,
    seconds: float = CLIENT_SECONDS,
    stdin: str | None = None,
    environment: Mapping[str, str] | None = None,
) -> str:
    """Output of a client command.

    Args:
        command: its words.
        seconds: to wait for the answer.
        stdin: what it reads.
        environment: None: the plain one.

    Raises:
        SlurmError: the command is not there, failed, or did not answer in time.
    """
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            check=False,
            timeout=seconds,
            input=stdin,
            env=plain_environment() if environment is None else environment,
        )
    except OSError as error:  # one of the folders of PATH that may not be read hides that it is in none of them
        why = "is not on this machine" if shutil.which(command[0]) is None else f"does not start: {error.strerror}"
        raise SlurmError(f"{command[0]} {why}") from None
    except subprocess.TimeoutExpired as silent:
        said = (silent.stderr or b"").decode(errors="replace").strip()  # bytes, whatever was asked for
        why = f": {said}" if said else ""
        raise SlurmError(f"{command[0]} did not answer within {seconds:g} s{why}") from None
    if done.returncode:
        raise SlurmError(f"{command[0]}: {(done.stderr or done.stdout).strip()}")
    return done.stdout


def queued(limit: float = CLIENT_SECONDS) -> list[QueuedElement]:
    """The user's elements in the queue, each on its own.

    Args:
        limit: seconds to wait for the answer.

    Raises:
        SlurmError: Slurm does not answer.
    """
    command = ("squeue", "--me", "--array", "--noheader", "--format=%i|%T|%N|%r|%L|%P|%k")
    lines = client(*command, seconds=limit).splitlines()
    parts = [line.split("|", 6) for line in lines]
    return [
        QueuedElement(element, state, node, reason, seconds(left), comment, partition)
        for element, state, node, reason, left, partition, comment in parts
    ]


def release_lines(elements: Iterable[QueuedElement]) -> Iterator[str]:
    """Which elements will not start by themselves, and the line that helps."""
    stuck: dict[tuple[str, bool], list[str]] = {}
    for element in elements:
        if element.will_not_start:
            stuck.setdefault((element.reason, element.is_held), []).append(element.element)
    for (reason, is_held), names in stuck.items():
        num = f"{len(names)} elements" if len(names) > 1 else "1 element"
        line = f"scontrol release {' '.join(names)}" if is_held else f"scancel {' '.join(names)}"
        helps = "once its cause is mended" if is_held else "and, once the site's file is mended, the same launch line"
        yield f"{num} will not start by {'themselves' if len(names) > 1 else 'itself'} ({reason}): `{line}`, {helps}"


def nothing_goes_on(elements: Sequence[QueuedElement]) -> bool:
    """Whether of these elements some will not start by themselves, and all others wait for them."""

    def waits(element: QueuedElement) -> bool:
        return element.state == "PENDING" and element.reason == "Dependency"

    stuck = [element for element in elements if element.will_not_start]
    return bool(stuck) and all(element.will_not_start or waits(element) for element in elements)


def valid_values(refusal: str) -> str:
    """What would be valid where Slurm refused a partition, an account or a QOS; else nothing."""
    asked: tuple[str, ...] = ()
    if "partition name" in refusal or "partition specified" in refusal:
        what, asked = "partitions", ("sinfo", "--noheader", "--format=%R")
    elif "account" in refusal or "qos" in refusal:
        what = "accounts and QOS"
        own = f"user={getpass.getuser()}"
        asked = ("sacctmgr", "--noheader", "--parsable2", "show", "assoc", own, "format=account,qos")
    if not asked:
        return ""
    try:
        lines = sorted(set(client(*asked).splitlines()))
    except SlurmError as error:
        return f"\nThe valid {what} are not known: {error}"
    of_shell = [name for name in ("SBATCH_ACCOUNT", "SBATCH_QOS", "SBATCH_PARTITION") if name in os.environ]
    note = (
        f"\n{', '.join(of_shell)} of this shell is not read: the site's file alone says such things" if of_shell else ""
    )
    return f"\nValid {what}: {', '.join(lines) or 'none'}{note}"


def max_minutes(partitions: str | None) -> float | None:
    """Time limit of the partition, of several ('a,b') the longest, or of the default one; None where it has none.

    Raises:
        SlurmError: Slurm does not answer.
    """
    names = () if partitions is None else partitions.split(",")
    longest: float | None = None
    for line in client("sinfo", "--noheader", "--format=%P|%l").splitlines():
        name, _, limit = line.partition("|")
        if name.rstrip("*") in names or (partitions is None and name.endswith("*")):
            allowed = seconds(limit)
            if allowed is None:
                return None
            longest = max(allowed / 60, longest or 0.0)
    return longest


def configuration() -> dict[str, str]:
    """Slurm's own settings, by name.

    Raises:
        SlurmError: Slurm does not answer.
    """
    pairs = [line.split("=", 1) for line in client("scontrol", "show", "config").splitlines() if "=" in line]
    return {name.strip(): value.strip() for name, value in pairs}


@dataclass(frozen=True)
class Association:
    """What accounting allows this user under one account."""

    account: str
    is_default: bool
    """Whether it is the user's default account."""
    qos: tuple[str, ...]
    default_qos: str
    """Empty: the cluster's, 'normal'."""
    max_submit: int | None
    """Jobs in the queue at most, each element of an array being one."""


def associations() -> list[Association]:
    """This user's accounts.

    Raises:
        SlurmError: accounting is off or does not answer.
    """
    columns = "format=DefaultAccount,Account,QOS,DefaultQOS,MaxSubmitJobs,GrpSubmitJobs"
    asked = ("show", "user", getpass.getuser(), "withassoc", columns)
    found = []
    for line in client("sacctmgr", "--noheader", "--parsable2", *asked).splitlines():
        default, account, qos, default_qos, *limits = line.split("|")
        allowed = tuple(filter(None, qos.split(",")))
        found.append(Association(account, account == default, allowed, default_qos, _lowest(limits)))
    return found


def of_account(found: Iterable[Association], account: str | None) -> list[Association]:
    """Those under this account; None: under the user's default account."""
    return [one for one in found if (one.is_default if account is None else one.account == account)]


def submit_limit(own: Sequence[Association], qos: str | None) -> int | None:
    """Elements that may be in the queue, None where that is not limited.

    Args:
        own: the user's associations under the account that they are put on.
        qos: that they ask for; None: the association's default.

    Raises:
        SlurmError: accounting does not answer.
    """
    name = qos or next((one.default_qos for one in own if one.default_qos), "normal")
    limits = [qos_limit(name), *(one.max_submit for one in own)]
    return min((limit for limit in limits if limit is not None), default=None)


def qos_limit(name: str) -> int | None:
    """Elements that a QOS, asked for or a partition's, lets a user have in the queue; None where it does not say.

    Raises:
        SlurmError: accounting does not answer.
    """
    columns = "format=MaxSubmitJobsPerUser,MaxSubmitJobsPerAccount,GrpSubmitJobs"
    shown = client("sacctmgr", "--noheader", "--parsable2", "show", "qos", name, columns)
    return _lowest(shown.strip().split("|"))


def partition_qos() -> dict[str, str]:
    """The QOS of each partition that has one; '' is the default partition.

    Raises:
        SlurmError: Slurm does not answer.
    """
    found = {}
    for line in client("scontrol", "show", "partition", "--oneliner").splitlines():
        fields = dict(field.partition("=")[::2] for field in line.split())
        if (qos := fields.get("QoS", "N/A")) not in ("N/A", "(null)", ""):
            found[fields["PartitionName"]] = qos
            if fields.get("Default") == "YES":
                found[""] = qos
    return found


def takes_jobs(partitions: str | None) -> bool:
    """Whether a node of these partitions, 'a,b', or of the default one, takes jobs now or when it has room.

    Raises:
        SlurmError: Slurm does not answer.
    """
    asked = ("sinfo", "--noheader", "--format=%P|%T", *([f"--partition={partitions}"] if partitions else []))
    shown = [line.split("|") for line in client(*asked).splitlines()]
    return any(is_usable(state) for name, state in shown if partitions or name.endswith("*"))


USABLE = ("idle", "mixed", "allocated", "completing", "planned", "reserved", "powered", "powering")
"""Beginnings of the states of nodes that take jobs, or will."""


def is_usable(state: str) -> bool:
    """Whether a node in this state takes jobs, now or when it has room. A '*' says that it does not respond."""
    return state.startswith(USABLE) and not state.endswith("*")


def _lowest(limits: Iterable[str]) -> int | None:
    return min((int(limit) for limit in limits if limit.isdigit()), default=None)


def seconds(text: str) -> float | None:
    """'1-02:03:04', '02:03:04', '03:04' in seconds; None for 'UNLIMITED', 'NOT_SET', 'INVALID'."""
    days, _, clock = text.rpartition("-")
    try:
        total = 0
        for part in clock.split(":"):
            total = 60 * total + int(part)
        return float(total + 86400 * int(days or 0))
    except ValueError:
        return None


# Accounting

ACCOUNTED_FIELDS = (
    "JobID",
    "State",
    "ExitCode",
    "NodeList",
    "ElapsedRaw",
    "AllocCPUS",
    "TotalCPU",
    "MaxRSS",
    "TRESUsageInAve",
)
UNITS = {"": 1.0, "K": 2.0**10, "M": 2.0**20, "G": 2.0**30, "T": 2.0**40}


def accounted(jobs: Sequence[str], limit: float = CLIENT_SECONDS) -> dict[str, AccountedElement]:
    """What accounting holds of the elements of these arrays, by element.

    Args:
        jobs: numbers of arrays, or of plain jobs.
        limit: seconds to wait for the answer.

    Raises:
        SlurmError: accounting is off or does not answer.
    """
    asked = (f"--jobs={','.join(jobs)}", f"--format={','.join(ACCOUNTED_FIELDS)}")
    return read_accounts(client("sacct", "--noheader", "--parsable2", *asked, seconds=limit).splitlines())


def read_accounts(lines: Iterable[str]) -> dict[str, AccountedElement]:
    """Elements from sacct's lines: one of the element, then one of each of its steps, which hold what was used."""
    found: dict[str, AccountedElement] = {}
    for line in lines:
        values = line.split("|")
        if len(values) != len(ACCOUNTED_FIELDS):
            continue
        parts = dict(zip(ACCOUNTED_FIELDS, values, strict=True))
        name, _, step = parts["JobID"].partition(".")
        if "[" in name:  # elements that have not started, in one line
            if parts["State"] != "PENDING":  # and never will: cancelled
                found |= {each: _element(each, parts) for each in elements_of(name)}
        elif not step:
            found[name] = _element(name, parts)
        elif name in found:
            found[name] = _with_step(found[name], parts)
    return found


def elements_of(name: str) -> list[str]:
    """['4711_2', '4711_4', '4711_5'] of '4711_[2,4-5%256]'."""
    job, _, numbers = name.partition("_")
    ranges = [part.partition("-") for part in numbers.strip("[]").partition("%")[0].split(",")]
    found = [range(int(first), int(last or first) + 1) for first, _, last in ranges if first.isdigit()]
    return [f"{job}_{number}" for numbers in found for number in numbers]


def _element(name: str, parts: dict[str, str]) -> AccountedElement:
    return AccountedElement(
        element=name,
        state=(parts["State"].split() or [""])[0],  # 'CANCELLED by 1000'
        exit_code=parts["ExitCode"],
        node="" if parts["NodeList"] == "None assigned" else parts["NodeList"],
        elapsed_seconds=float(parts["ElapsedRaw"]) if parts["ElapsedRaw"].isdigit() else None,
        cpus=int(parts["AllocCPUS"]) if parts["AllocCPUS"].isdigit() else None,
        cpu_seconds=cpu_seconds(parts["TotalCPU"]),
        max_rss_gb=None,
        gpu_percent=None,
    )


def _with_step(element: AccountedElement, parts: dict[str, str]) -> AccountedElement:
    used = dict(pair.split("=", 1) for pair in parts["TRESUsageInAve"].split(",") if "=" in pair)
    gpu = used.get("gres/gpuutil", "")
    most = [
        max((value for value in pair if value is not None), default=None)
        for pair in (
            (element.max_rss_gb, gibibytes(parts["MaxRSS"])),
            (element.gpu_percent, float(gpu) if gpu.replace(".", "", 1).isdigit() else None),
        )
    ]
    return replace(element, max_rss_gb=most[0], gpu_percent=most[1])


def gibibytes(text: str) -> float | None:
    """'5266672K', '1.5G', '1048576' in GiB; None for ''."""
    number, unit = (text[:-1], text[-1].upper()) if text[-1:].isalpha() else (text, "")
    try:
        return float(number) * UNITS[unit] / UNITS["G"]
    except (ValueError, KeyError):
        return None


def cpu_seconds(text: str) -> float | None:
    """'1-02:03:04', '03:04.567' in seconds; None where nothing was measured."""
    clock, _, fraction = text.partition(".")
    whole = seconds(clock)
    return None if whole is None else whole + float(f"0.{fraction or 0}")


# Ending jobs


def cancel(jobs: Sequence[str], limit: float = CLIENT_SECONDS) -> None:
    """End these arrays, queued and running elements alike; none: nothing is asked of Slurm.

    Raises:
        SlurmError: Slurm refuses or does not answer.
    """
    if jobs:
        client("scancel", *jobs, seconds=limit)
