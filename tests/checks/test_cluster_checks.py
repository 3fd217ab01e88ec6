"""What is concluded from the words of Slurm's client: recorded from Slurm 22.05, but for names and sizes."""

from pathlib import Path

import pytest

from vaehpc.checks.cluster import (
    account_findings,
    accounting_is_on,
    array_finding,
    chosen_partitions,
    client_finding,
    client_missing,
    gpus_of,
    partition_finding,
    partitions_of,
    refused_finding,
    resources_finding,
)
from vaehpc.checks.finding import Finding
from vaehpc.schema.site import SlurmConfig
from vaehpc.slurm.client import Association
from vaehpc.slurm.sbatch import Array

SINFO = """\
cpu*|up|1:00:00|c1|idle|4|4000|(null)|(null)
cpu*|up|1:00:00|c2|mixed|4|4000|(null)|(null)
gpu|up|2-00:00:00|g1|idle|32|256000|gpu:a100:4(S:0-1)|a100,ib
gpu|up|2-00:00:00|g2|drained|32|256000|gpu:2|v100,ib
long|up|infinite|c1|idle|4|4000|(null)|(null)
broken|up|1:00:00|b1|down*|4|4000|(null)|(null)
broken|up|1:00:00|b2|idle*|4|4000|(null)|(null)
closed|drain|1:00:00|c1|idle|4|4000|(null)|(null)
empty|up|1:00:00||n/a|0|0|(null)|(null)
"""
PARTITIONS = partitions_of(SINFO)
SETTINGS = {
    "AccountingStorageEnforce": "associations,limits,qos",
    "AccountingStorageType": "accounting_storage/slurmdbd",
    "ClusterName": "vaetest",
    "MaxArraySize": "1001",
}


def array(
    partition: str | None = "cpu", gpus: int = 0, cpus: int = 2, memory_gb: float = 2, minutes: int = 60
) -> Array:
    return Array(
        name="study.stage-0001",
        folder=Path("/nowhere"),
        num_elements=1,
        numbers=(0,),
        entry_point="vaehpc.tasks.train:run",
        arguments="",
        tasks_at_once=1,
        cpus=cpus,
        gpus=gpus,
        memory_gb=memory_gb,
        minutes=minutes,
        partition=partition,
        setup=(),
        teardown=(),
        python="python3",
    )


def resources(asked: Array, constraint: str | None = None, gpu_type: str | None = None) -> Finding:
    found = resources_finding("train", asked, PARTITIONS, SlurmConfig(constraint=constraint, gpu_type=gpu_type))
    assert found is not None
    return found


# Reading


def test_partitions_with_their_nodes() -> None:
    assert list(PARTITIONS) == ["cpu", "gpu", "long", "broken", "closed", "empty"]
    assert [partition.name for partition in PARTITIONS.values() if partition.is_default] == ["cpu"]
    assert [PARTITIONS[name].max_seconds for name in ("cpu", "gpu", "long")] == [3600, 172800, None]
    g1, g2 = PARTITIONS["gpu"].nodes
    assert (g1.name, g1.cpus, g1.memory_gb, g1.gpus, g1.features) == ("g1", 32, 250, {"a100": 4}, {"a100", "ib"})
    assert (g1.num_gpus(None), g1.num_gpus("a100"), g1.num_gpus("v100"), g2.num_gpus(None)) == (4, 4, 0, 2)
    assert PARTITIONS["empty"].nodes == ()


@pytest.mark.parametrize(
    ("gres", "gpus"),
    [
        ("(null)", {}),
        ("gpu:2", {"": 2}),
        ("gpu:a100:4(S:0-1)", {"a100": 4}),
        ("gpu:a100:2(S:0,2),gpu:v100:1(S:1),shard:8", {"a100": 2, "v100": 1}),
        ("craynetwork:4,gpu:tesla:1", {"tesla": 1}),
    ],
)
def test_gpus_of_a_node(gres: str, gpus: dict[str, int]) -> None:
    assert gpus_of(gres) == gpus


# Slurm itself


def test_slurm_answers_or_not() -> None:
    up = "Slurmctld(primary) at vm is UP\n"
    found = client_finding("slurm-wlm 22.05.8\n", up, SETTINGS)
    assert (found.ok, found.found) == (True, "slurm-wlm 22.05.8, cluster vaetest")
    backup = "Slurmctld(primary) at head1 is DOWN\nSlurmctld(backup) at head2 is UP\n"
    assert client_finding("slurm 23.11.1", backup, SETTINGS).found.endswith(
        "the primary controller is down, a backup answers"
    )
    down = client_missing("scontrol: Slurmctld(primary) at vm is DOWN")
    assert (down.ok, down.found) == (False, "scontrol: Slurmctld(primary) at vm is DOWN")
    assert "controller" in down.remedy
    assert "login node" in client_missing("sinfo is not on this machine").remedy


# Partitions


def test_a_partition_that_takes_jobs() -> None:
    found = partition_finding("cpu_partition", "cpu", PARTITIONS)
    assert (found.ok, found.found) == (True, "cpu is up, 2 of 2 nodes take jobs, 1 h at most")
    assert partition_finding("cpu_partition", "long", PARTITIONS).found.endswith("no limit")
    assert (
        partition_finding("gpu_partition", "gpu", PARTITIONS).found == "gpu is up, 1 of 2 nodes take jobs, 48 h at most"
    )
    assert partition_finding("cpu_partition", None, PARTITIONS).found.startswith(
        "none is named; Slurm's default: cpu is up"
    )
    assert partition_finding("cpu_partition", "broken,cpu", PARTITIONS).ok


@pytest.mark.parametrize(
    ("asked", "found"),
    [
        ("gpuu", "Slurm has no partition 'gpuu' (did you mean 'gpu'?)"),
        ("cpu,gpuu", "Slurm has no partition 'gpuu' (did you mean 'gpu'?)"),
        ("broken", "states of the nodes: down*, idle*"),
        ("empty", "states of the nodes: it has none"),
        ("closed", "closed is drain, 1 of 1 nodes take jobs, 1 h at most; it takes no jobs"),
    ],
)
def test_a_partition_that_takes_none(asked: str, found: str) -> None:
    finding = partition_finding("gpu_partition", asked, PARTITIONS)
    assert finding.ok is False
    assert found in finding.found
    assert "gpu_partition in [slurm]" in finding.remedy
    assert "Partitions: cpu, gpu, long, broken, closed, empty" in finding.remedy


def test_no_default_partition() -> None:
    without = partitions_of(SINFO.replace("*|up", "|up"))
    assert chosen_partitions(None, without) == []
    assert partition_finding("cpu_partition", None, without).found == "none is named, and Slurm has no default"


# Resources


def test_resources_that_a_node_has() -> None:
    assert resources(array()).found == "2 CPUs, 2 GB, 1 h on cpu"
    on_gpu = array("gpu", gpus=4, cpus=32, memory_gb=250, minutes=48 * 60)
    assert resources(on_gpu).ok
    assert resources(on_gpu, constraint="a100", gpu_type="a100").ok
    assert resources(array("long", minutes=10**6)).ok
    assert resources(array("cpu,gpu", gpus=1)).ok
    assert resources(array("gpu", gpus=1), constraint="a100|v100").ok  # an expression is left to sbatch


@pytest.mark.parametrize(
    ("asked", "gpu_type", "found"),
    [
        (array(cpus=8), None, "2 GB, 1 h are on no node of cpu: its nodes have 4 CPUs, 3.91 GB"),
        (array(memory_gb=4), None, "2 CPUs, 4 GB, 1 h are on no node of cpu"),
        (array(gpus=1), None, "1 GPU, 2 CPUs, 2 GB, 1 h are on no node of cpu"),
        (array("gpu", gpus=5), None, "its nodes have 4 a100 GPU, 32 CPUs, 250 GB or 2 GPU, 32 CPUs, 250 GB"),
        (array("gpu", gpus=1), "h100", "1 h100 GPU, 2 CPUs"),
    ],
)
def test_resources_that_no_node_has(asked: Array, gpu_type: str | None, found: str) -> None:
    finding = resources(asked, gpu_type=gpu_type)
    assert finding.ok is False
    assert found in finding.found
    assert "[jobs.train]" in finding.remedy


def test_a_time_limit_that_slurm_would_accept_and_never_start() -> None:
    finding = resources(array(minutes=24 * 60))
    assert finding.ok is False
    assert "cpu allows 1 h" in finding.found
    assert finding.remedy.startswith("hours = 1 in [jobs.train]")


def test_a_feature_that_no_node_has() -> None:
    finding = resources(array("gpu", gpus=1), constraint="a10")
    assert finding.ok is False
    assert finding.found == "no node of gpu has the feature 'a10' (did you mean 'a100'?)"
    assert "Features: a100, ib, v100" in finding.remedy


def test_resources_on_an_unknown_partition_are_not_judged() -> None:
    assert resources_finding("train", array("gpuu"), PARTITIONS, SlurmConfig()) is None


def test_arrays() -> None:
    assert array_finding(SETTINGS).found == "at most 1,001 elements; larger stages are several arrays"
    assert array_finding({"MaxArraySize": "1"}).ok is False


# Accounting


def test_accounting_on_and_off() -> None:
    assert accounting_is_on(SETTINGS)
    assert not accounting_is_on({"AccountingStorageType": "(null)"})  # Slurm 24.11
    assert not accounting_is_on({"AccountingStorageType": "accounting_storage/none"})
    assert not accounting_is_on({"AccountingStorageType": "(null)none"})


OF_USER = [
    Association("small", is_default=False, qos=("normal",), default_qos="", max_submit=3),
    Association("faces", is_default=True, qos=("normal", "long"), default_qos="", max_submit=None),
]


def test_account_and_qos_that_are_allowed() -> None:
    found = account_findings(SlurmConfig(account="small", qos="normal"), OF_USER, 3, SETTINGS)
    assert [finding.ok for finding in found] == [True, True, True]
    assert found[0].found == "small; this user's: faces, small"
    assert found[2].found.startswith("3 jobs may be in the queue")
    by_default = account_findings(SlurmConfig(), OF_USER, None, SETTINGS)
    assert [finding.found for finding in by_default] == [
        "faces, the default; this user's: faces, small",
        "none is named; QOS of account faces: normal, long",
        "no limit",
    ]


def test_a_wrong_account_and_a_wrong_qos() -> None:
    (account,) = account_findings(SlurmConfig(account="face"), OF_USER, None, SETTINGS)
    assert (account.ok, account.found) == (False, "'face' is none of this user's (did you mean 'faces'?)")
    assert "Accounts: faces, small" in account.remedy
    _, qos, _ = account_findings(SlurmConfig(qos="lonng"), OF_USER, None, SETTINGS)
    assert (qos.ok, qos.found) == (False, "'lonng' is not allowed (did you mean 'long'?)")
    assert "QOS of account faces: normal, long" in qos.remedy


def test_a_user_without_account() -> None:
    (needed,) = account_findings(SlurmConfig(), [], None, SETTINGS)
    assert needed.ok is False
    (not_needed,) = account_findings(SlurmConfig(), [], None, {"AccountingStorageEnforce": "none"})
    assert not_needed.ok


# sbatch


@pytest.mark.parametrize(
    ("said", "remedy"),
    [
        (
            "sbatch: error: invalid partition specified: nope\nallocation failure: Invalid partition name specified",
            "gpu_partition",
        ),
        ("allocation failure: Invalid account or account/partition combination specified", "account in"),
        ("allocation failure: Invalid qos specification", "qos in"),
        ("allocation failure: Requested node configuration is not available", "[jobs.train]"),
        (
            "allocation failure: Requested time limit is invalid (missing or exceeds some limit)",
            "hours in [jobs.train]",
        ),
        ("allocation failure: Invalid feature specification", "constraint"),
        ("allocation failure: Invalid node name specified", "exclude"),
        ("sbatch: unrecognized option '--nicee=3'\nTry \"sbatch --help\" for more information", "options"),
        ("allocation failure: Job violates accounting/QOS policy (job submit limit, user's size)", "what is queued"),
        ("allocation failure: something new", "staff"),
    ],
)
def test_a_refusal_names_the_setting_behind_it(said: str, remedy: str) -> None:
    finding = refused_finding("train", f"sbatch: {said}")
    assert finding.ok is False
    assert remedy in finding.remedy
    assert said.splitlines()[-1] in finding.found
    assert "\n" not in finding.found
