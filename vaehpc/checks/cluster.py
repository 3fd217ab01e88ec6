"""Judges what Slurm's client commands say: controller, partitions, nodes, limits, accounting. Text in, findings out."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from vaehpc.checks.finding import Finding, right, unchecked, wrong
from vaehpc.command import nearest
from vaehpc.schema.site import SlurmConfig
from vaehpc.slurm.client import Association, is_usable, of_account, seconds
from vaehpc.slurm.sbatch import Array

NODES = ("sinfo", "--all", "--Node", "--noheader", "--format=%P|%a|%l|%N|%T|%c|%m|%G|%f")
NO_LIMIT = "no limit"


@dataclass(frozen=True)
class Node:
    """A node as sinfo shows it."""

    name: str
    state: str
    cpus: int
    memory_gb: float
    gpus: Mapping[str, int]
    """How many of each type; '' is the type of those without one."""
    features: frozenset[str]

    @property
    def is_usable(self) -> bool:
        """Whether it takes jobs, now or when it has room."""
        return is_usable(self.state)

    def num_gpus(self, gpu_type: str | None) -> int:
        """GPUs of a type; None: of any."""
        return sum(self.gpus.values()) if gpu_type is None else self.gpus.get(gpu_type, 0)

    @property
    def gpus_in_words(self) -> str:
        """'4 a100 GPU, ', or nothing."""
        return "".join(f"{number} {gpu_type} GPU, ".replace("  ", " ") for gpu_type, number in self.gpus.items())


@dataclass(frozen=True)
class Partition:
    """A partition as sinfo shows it."""

    name: str
    is_default: bool
    availability: str
    """up, down, drain, inact."""
    max_seconds: float | None
    """None: no limit."""
    nodes: tuple[Node, ...]


# Reading


def partitions_of(text: str) -> dict[str, Partition]:
    """Partitions by name, from the output of NODES."""
    found: dict[str, Partition] = {}
    for line in text.splitlines():
        partition, availability, limit, *node = line.split("|")
        name = partition.rstrip("*")
        before = found[name].nodes if name in found else ()
        nodes = (*before, _node(node)) if node[0] else before
        found[name] = Partition(name, partition.endswith("*"), availability, seconds(limit), nodes)
    return found


def _node(fields: Sequence[str]) -> Node:
    name, state, cpus, memory, gres, features = fields
    known = frozenset() if features == "(null)" else frozenset(features.split(","))
    return Node(name, state, int(cpus.rstrip("+")), int(memory.rstrip("+")) / 1024, gpus_of(gres), known)


def gpus_of(gres: str) -> dict[str, int]:
    """{'a100': 4} of 'gpu:a100:4(S:0-1)', {'': 2} of 'gpu:2', {} of '(null)'."""
    gpus: dict[str, int] = {}
    for part in re.sub(r"\([^)]*\)", "", gres).split(","):
        kind, *rest = part.split(":")
        if kind == "gpu":
            gpu_type = rest[0] if len(rest) == 2 else ""
            gpus[gpu_type] = gpus.get(gpu_type, 0) + int(rest[-1])
    return gpus


# Judging


def partition_finding(setting: str, asked: str | None, partitions: Mapping[str, Partition]) -> Finding:
    """Whether the partition of a site's setting is there and takes jobs."""
    chosen = chosen_partitions(asked, partitions)
    names = ", ".join(partitions)
    mend = f"name one as {setting} in [slurm] of the site's file. Partitions: {names}"
    if not chosen:
        if asked is None:
            return wrong(setting, "none is named, and Slurm has no default", mend)
        missing = next(name for name in asked.split(",") if name not in partitions)
        return wrong(setting, f"Slurm has no partition '{missing}'{nearest(missing, partitions)}", mend)
    found = "; ".join(_in_words(partition) for partition in chosen)
    found = found if asked else f"none is named; Slurm's default: {found}"
    up = [partition for partition in chosen if partition.availability == "up"]
    if not up:
        return wrong(setting, f"{found}; it takes no jobs", f"wait until it is up, or {mend}")
    if not any(node.is_usable for partition in up for node in partition.nodes):
        states = ", ".join(sorted({node.state for partition in up for node in partition.nodes})) or "it has none"
        remedy = f"no node takes jobs: wait, or {mend}"
        return wrong(setting, f"{found}; states of the nodes: {states}", remedy)
    return right(setting, found)


def chosen_partitions(asked: str | None, partitions: Mapping[str, Partition]) -> list[Partition]:
    """The partitions that a setting names, or the default; none where one of them is unknown."""
    if asked is None:
        return [partition for partition in partitions.values() if partition.is_default]
    names = asked.split(",")
    return [partitions[name] for name in names] if set(names) <= set(partitions) else []


def _in_words(partition: Partition) -> str:
    usable = sum(node.is_usable for node in partition.nodes)
    limit = NO_LIMIT if partition.max_seconds is None else f"{partition.max_seconds / 3600:g} h at most"
    return f"{partition.name} is {partition.availability}, {usable} of {len(partition.nodes)} nodes take jobs, {limit}"


def resources_finding(
    stage: str, array: Array, partitions: Mapping[str, Partition], slurm: SlurmConfig
) -> Finding | None:
    """Whether some node could run an element of this stage, and for so long; None where its partition is unknown."""
    chosen = chosen_partitions(array.partition, partitions)
    if not chosen:
        return None
    name, constraint, gpu_type = f"resources of {stage}", slurm.constraint, slurm.gpu_type
    gpus = f"{array.gpus} {gpu_type or ''}".strip() + " GPU, " if array.gpus else ""
    asked = f"{gpus}{array.cpus} CPUs, {array.memory_gb:g} GB, {array.minutes / 60:g} h"
    mend = f"in [jobs.{stage}] of the site's file"
    nodes = [node for partition in chosen for node in partition.nodes]
    # A constraint may be an expression, such as 'a100|h100', which is left to sbatch.
    if constraint is not None and constraint.isidentifier():
        features = sorted({feature for node in nodes for feature in node.features})
        nodes = [node for node in nodes if constraint in node.features]
        if not nodes:
            found = f"no node of {_names(chosen)} has the feature '{constraint}'{nearest(constraint, features)}"
            remedy = f"correct constraint in [slurm] of the site's file. Features: {', '.join(features) or 'none'}"
            return wrong(name, found, remedy)
    if not any(_fits(node, array, slurm) for node in nodes):
        return wrong(name, f"{asked} are on no node of {_names(chosen)}: {_largest(nodes)}", f"ask for less {mend}")
    longest = max(float("inf") if part.max_seconds is None else part.max_seconds for part in chosen)
    if 60 * array.minutes > longest:
        remedy = f"hours = {longest / 3600:g} {mend}"
        if stage == "train":
            remedy += "; a training goes back into the queue at its time limit, and goes on"
        return wrong(
            name, f"{asked}: {_names(chosen)} allows {longest / 3600:g} h, and Slurm would let it wait for ever", remedy
        )
    return right(name, f"{asked} on {_names(chosen)}")


def _fits(node: Node, array: Array, slurm: SlurmConfig) -> bool:
    enough_memory = slurm.memory == "none" or node.memory_gb >= array.memory_gb
    gpus = 0 if slurm.gpu_request == "none" else array.gpus
    return node.cpus >= array.cpus and enough_memory and (not gpus or node.num_gpus(slurm.gpu_type) >= gpus)


def _largest(nodes: Iterable[Node]) -> str:
    kinds = {(node.num_gpus(None), node.cpus, node.memory_gb, node.gpus_in_words) for node in nodes}
    words = [f"{gpus}{cpus} CPUs, {memory:.3g} GB" for _, cpus, memory, gpus in sorted(kinds, reverse=True)]
    return "its nodes have " + " or ".join(words[:3]) if words else "it has no nodes"


def _names(partitions: Iterable[Partition]) -> str:
    return ", ".join(partition.name for partition in partitions)


def array_finding(settings: Mapping[str, str]) -> Finding:
    """How large an array may be."""
    largest = int(settings.get("MaxArraySize", "0"))
    if largest < 2:
        return wrong("arrays", f"MaxArraySize = {largest}: Slurm takes none", "ask the cluster's staff for arrays")
    return right("arrays", f"at most {largest:,} elements; larger stages are several arrays")


def accounting_is_on(settings: Mapping[str, str]) -> bool:
    """Whether the cluster keeps accounts."""
    return not settings.get("AccountingStorageType", "none").endswith(("none", "(null)"))  # (null): so says 24.11


NO_ACCOUNTING = right(
    "accounting",
    "off: states come from squeue and heartbeats; what ended jobs have used is not known; accounts are not checked",
)


def accounting_is_silent(error: str) -> Finding:
    """Accounting is on and does not answer."""
    return wrong(
        "accounting",
        f"on, but does not answer: {error}",
        "launch and status go on without it, with states from squeue and heartbeats; tell the cluster's staff",
    )


def account_findings(
    slurm: SlurmConfig, associations: Sequence[Association], limit: int | None, settings: Mapping[str, str]
) -> list[Finding]:
    """Whether account and QOS of a site are the user's, and how many jobs may be submitted.

    Args:
        slurm: the site's names.
        associations: the user's.
        limit: jobs that may be in the queue; None where that is not limited.
        settings: Slurm's own.
    """
    enforced = settings.get("AccountingStorageEnforce", "none")
    if not associations:
        found = "this user has no account"
        if "associations" in enforced:
            return [wrong("account", f"{found}, and Slurm asks for one", "ask the cluster's staff for an account")]
        return [right("account", f"{found}; Slurm asks for none")]
    accounts = sorted({association.account for association in associations})
    own = of_account(associations, slurm.account)
    if not own:
        missing = slurm.account
        found = f"'{missing}' is none of this user's{nearest(missing, accounts)}" if missing else "no default account"
        return [
            wrong(
                "account", found, f"name one as account in [slurm] of the site's file. Accounts: {', '.join(accounts)}"
            )
        ]
    account, origin = own[0].account, "" if slurm.account else ", the default"
    findings = [right("account", f"{account}{origin}; this user's: {', '.join(accounts)}")]
    findings.append(_qos_finding(slurm.qos, account, list(dict.fromkeys(qos for one in own for qos in one.qos))))
    if limit is None:
        return [*findings, right("submit limit", NO_LIMIT)]
    words = f"{limit:,} jobs may be in the queue, each element of an array being one"
    return [*findings, right("submit limit", f"{words}; the launch line, given again, submits the rest")]


def _qos_finding(asked: str | None, account: str, allowed: Sequence[str]) -> Finding:
    of_account = f"QOS of account {account}: {', '.join(allowed) or 'none'}"
    if asked is None:
        return right("QOS", f"none is named; {of_account}")
    if asked not in allowed:
        return wrong(
            "QOS", f"'{asked}' is not allowed{nearest(asked, allowed)}", f"correct qos in [slurm]. {of_account}"
        )
    return right("QOS", f"{asked}; {of_account}")


REMEDIES = (
    (r"[Ii]nvalid partition", "correct gpu_partition and cpu_partition in [slurm]"),
    (r"Invalid account", "account in [slurm]: is it yours, and may it use this partition?"),
    (r"Invalid qos", "correct qos in [slurm]"),
    (r"time limit", "ask for fewer hours in [jobs.{stage}]"),
    (
        r"node configuration is not available|[Mm]emory specification",
        "ask for less in [jobs.{stage}]; look at gpu_type and exclude in [slurm]",
    ),
    (r"generic resource|gres", "correct gpu_request and gpu_type in [slurm]"),
    (r"[Ii]nvalid feature", "correct constraint in [slurm]"),
    (r"Invalid node name", "correct exclude in [slurm]"),
    (r"unrecognized option|unrecognized arguments", "correct options in [slurm]"),
    (
        r"accounting/QOS policy|[Ll]imit",
        "what is queued already counts: wait, or take another account or qos in [slurm]",
    ),
)
"""What Slurm says when it refuses a job, and the site's settings behind it."""


def refused_finding(stage: str, said: str) -> Finding:
    """Slurm would not take a job of this stage; `said` holds its own words."""
    remedy = next((remedy for pattern, remedy in REMEDIES if re.search(pattern, said)), "ask the cluster's staff")
    words = said.removeprefix("sbatch: ").replace("sbatch: error: ", "")
    return wrong(f"sbatch of {stage}", f"refused: {words}", remedy.format(stage=stage))


def client_missing(error: str) -> Finding:
    """Slurm's client is not there, or its controller does not answer."""
    if "is not on this machine" in error:
        return wrong("Slurm", error, "run this on a login node, or load Slurm's module there")
    return wrong("Slurm", error, "is the controller down? `scontrol ping` says so; wait, or ask the cluster's staff")


def client_finding(version: str, ping: str, settings: Mapping[str, str]) -> Finding:
    """Slurm's client is there and its controller answers."""
    cluster = settings.get("ClusterName", "?")
    words = f"{version.strip()}, cluster {cluster}"
    if " is UP" not in ping:
        return client_missing(" ".join(ping.split()))
    if re.search(r"\(primary\).* is DOWN", ping):
        return right("Slurm", f"{words}; the primary controller is down, a backup answers")
    return right("Slurm", words)


def skipped(why: str) -> list[Finding]:
    """Nothing of this can be known without Slurm."""
    return [unchecked(name, why) for name in ("partitions", "resources", "account", "sbatch")]
