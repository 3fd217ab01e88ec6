"""What Slurm's clients answer, read from recorded outputs (Slurm 22.05; cpus, nodes and times as it prints them)."""

from pathlib import Path

import pytest

from tests.slurm.clients import Clients
from vaehpc.slurm.client import (
    Association,
    QueuedElement,
    SlurmError,
    accounted,
    associations,
    cancel,
    client,
    configuration,
    cpu_seconds,
    gibibytes,
    max_minutes,
    nothing_goes_on,
    of_account,
    partition_qos,
    queued,
    read_accounts,
    release_lines,
    seconds,
    submit_limit,
    takes_jobs,
)

SQUEUE = """\
4711_0|RUNNING|g1|None|3:12|gpu|/home/me/runs/demo/jobs/train-0001
4711_1|COMPLETING|g2|None|0:00|gpu|/home/me/runs/demo/jobs/train-0001
4711_2|PENDING||JobArrayTaskLimit|1-00:00:00|gpu|/home/me/runs/a|b/jobs/train-0001
4712|PENDING||Nodes required for job are DOWN, DRAINED or reserved|UNLIMITED|cpu|(null)
"""
SACCT = """\
4711_0|COMPLETED|0:0|g1|7203|4|01:59:30||
4711_0.batch|COMPLETED|0:0|g1|7203|4|00:02.345|11140K|cpu=00:00:02,energy=0,fs/disk=73928,mem=11140K,pages=0,vmem=1K
4711_0.extern|COMPLETED|0:0|g1|7203|4|00:00:00|0|cpu=00:00:00,energy=0
4711_0.0|COMPLETED|0:0|g1|7200|4|01:59:28|5266672K|cpu=01:59:28,gres/gpumem=4096M,gres/gpuutil=87,mem=5266672K
4711_1|CANCELLED by 1000|0:15|g2|61|4|00:12.016||
4711_1.batch|CANCELLED|0:15|g2|62|4|00:12.016|1.50G|cpu=00:00:12,mem=1.50G
4711_1.extern|CANCELLED|0:15|g2|62|4|00:00:00|12K|cpu=00:00:00
4711_[2-9%4]|PENDING|0:0|None assigned|0|0|00:00:00||
4713|PENDING|0:0|None assigned|0|0|00:00:00||
"""


@pytest.fixture(autouse=True)
def clients(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Clients:
    found = Clients(tmp_path / "bin")
    monkeypatch.setenv("PATH", found.path())
    return found


def test_the_queue_element_by_element(clients: Clients) -> None:
    clients.answers("squeue", SQUEUE)
    first, _, third, last = queued()
    assert (first.element, first.state, first.node, first.seconds_left) == ("4711_0", "RUNNING", "g1", 192.0)
    assert (third.reason, third.seconds_left) == ("JobArrayTaskLimit", 86400.0)
    assert third.comment == "/home/me/runs/a|b/jobs/train-0001"
    assert (last.element, last.seconds_left, last.comment) == ("4712", None, "(null)")
    assert last.reason.endswith("DRAINED or reserved")
    assert (first.partition, last.partition) == ("gpu", "cpu")


def test_clients_hear_nothing_of_the_shells_habits(clients: Clients, monkeypatch: pytest.MonkeyPatch) -> None:
    """With SQUEUE_STATES trainings that run are not seen, and would be submitted once more."""
    (clients.folder / "squeue").write_text(f"#!/bin/sh\nenv > {clients.folder}/seen\n")
    habits = (
        "SQUEUE_STATES",
        "SACCT_FORMAT",
        "SINFO_PARTITION",
        "SCANCEL_STATE",
        "SLURM_CLUSTERS",
        "SLURM_TIME_FORMAT",
    )
    for name in (*habits, "SBATCH_ACCOUNT", "SLURM_CONF", "SLURM_JWT", "SLURMISH"):
        monkeypatch.setenv(name, "of the shell")
    assert queued() == []
    seen = {line.partition("=")[0] for line in (clients.folder / "seen").read_text().splitlines()}
    assert {name for name in seen if name.startswith("S") and name != "SHLVL"} >= {
        "SLURM_CONF",
        "SLURM_JWT",
        "SLURMISH",
    }
    assert not seen & {*habits, "SBATCH_ACCOUNT"}


@pytest.mark.parametrize(
    ("state", "reason", "is_held", "will_not_start"),
    [
        ("PENDING", "launch failed requeued held", True, True),
        ("PENDING", "JobHeldUser", True, True),
        ("PENDING", "JobHeldAdmin", True, True),
        ("SPECIAL_EXIT", "job requeued in held state", True, True),
        ("PENDING", "BadConstraints", False, True),
        ("PENDING", "PartitionTimeLimit", False, True),
        ("PENDING", "Dependency", False, False),
        ("PENDING", "PartitionDown", False, False),
        ("RUNNING", "None", False, False),
    ],
)
def test_what_will_not_start_by_itself(state: str, reason: str, is_held: bool, will_not_start: bool) -> None:
    element = QueuedElement("7_0", state, "", reason, None, "")
    assert (element.is_held, element.will_not_start) == (is_held, will_not_start)


def test_lines_that_release() -> None:
    held = [QueuedElement(f"7_{number}", "PENDING", "", "JobHeldUser", None, "") for number in (1, 2)]
    waiting = QueuedElement("9", "PENDING", "", "Dependency", None, "")
    (line,) = release_lines([*held, waiting])
    assert line.startswith("2 elements will not start by themselves (JobHeldUser): `scontrol release 7_1 7_2`")
    assert nothing_goes_on([*held, waiting])
    assert not nothing_goes_on([*held, QueuedElement("8_0", "RUNNING", "g1", "None", None, "")])
    assert not nothing_goes_on([waiting])


def test_a_partition_whose_nodes_are_drained_takes_no_jobs(clients: Clients) -> None:
    clients.answers("sinfo", "gpu|drained\ngpu|idle*\n")
    assert not takes_jobs("gpu")
    clients.answers("sinfo", "gpu|drained\ncpu*|mixed\n")
    assert takes_jobs(None)
    assert clients.lines()[0].endswith("--partition=gpu")


def test_partitions_with_a_qos_of_their_own(clients: Clients) -> None:
    clients.answers(
        "scontrol",
        "PartitionName=cpu AllowQos=ALL Default=YES QoS=N/A\nPartitionName=gpu AllowQos=ALL Default=NO QoS=gpu_part\n",
    )
    assert partition_qos() == {"gpu": "gpu_part"}


def test_accounts_of_elements_and_their_steps(clients: Clients) -> None:
    clients.answers("sacct", SACCT)
    found = accounted(["4711", "4713"])
    assert "--jobs=4711,4713" in clients.lines()[-1]
    assert list(found) == ["4711_0", "4711_1", "4713"]
    first, second, last = found.values()
    assert (first.state, first.exit_code, first.node, first.cpus) == ("COMPLETED", "0:0", "g1", 4)
    assert (first.elapsed_seconds, first.cpu_seconds) == (7203.0, 7170.0)
    assert (first.max_rss_gb, first.gpu_percent) == (pytest.approx(5.0227, abs=1e-4), 87.0)
    assert (second.state, second.max_rss_gb, second.cpu_seconds) == ("CANCELLED", 1.5, 12.016)
    assert second.gpu_percent is None
    assert (last.node, last.max_rss_gb) == ("", None)
    assert [element.has_ended for element in found.values()] == [True, True, False]


def test_elements_that_were_cancelled_before_they_started() -> None:
    found = read_accounts(["4711_[2,4-5%256]|CANCELLED by 1000|0:0|None assigned|0|0|00:00:00||"])
    assert {name: element.state for name, element in found.items()} == dict.fromkeys(
        ("4711_2", "4711_4", "4711_5"), "CANCELLED"
    )


def test_steps_without_their_element_and_lines_cut_off_are_passed_over() -> None:
    assert read_accounts(["4711_0.batch|COMPLETED|0:0|g1|1|4|00:00:01|1K|", "4711_0|COMPL", ""]) == {}


@pytest.mark.parametrize(
    ("text", "value"),
    [("1-02:03:04", 93784.0), ("02:03:04", 7384.0), ("03:04", 184.0), ("UNLIMITED", None), ("NOT_SET", None)],
)
def test_times(text: str, value: float | None) -> None:
    assert seconds(text) == value


def test_sizes_and_cpu_times() -> None:
    assert [gibibytes(text) for text in ("1048576K", "512M", "1.5G", "1073741824", "", "?", "1X")] == [
        1.0,
        0.5,
        1.5,
        1.0,
        None,
        None,
        None,
    ]
    assert [cpu_seconds(text) for text in ("00:01.5", "1-00:00:00", "")] == [1.5, 86400.0, None]


def test_a_client_that_fails_or_hangs_or_is_not_there(clients: Clients) -> None:
    clients.fails("sacct", "Slurm accounting storage is disabled")
    with pytest.raises(SlurmError, match="sacct: Slurm accounting storage is disabled"):
        accounted(["1"])
    clients.hangs("squeue")
    with pytest.raises(SlurmError, match=r"squeue did not answer within 0\.2 s"):
        queued(0.2)
    with pytest.raises(SlurmError, match="no-such-client is not on this machine"):
        client("no-such-client")


def test_a_client_that_may_not_be_started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As where PATH holds a folder that may not be read; Linux says 'permission denied' of a folder, root's too."""
    (tmp_path / "no-such-client").mkdir()
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SlurmError, match=r"^no-such-client is not on this machine$"):
        client("no-such-client")
    (tmp_path / "client").write_text("not a program")
    (tmp_path / "client").chmod(0o755)
    with pytest.raises(SlurmError, match=r"^client does not start: Exec format error$"):
        client("client")


def test_settings(clients: Clients) -> None:
    clients.answers("scontrol", "Configuration data as of 2024-03-05\nMaxArraySize            = 1001\nA = b=c\n")
    assert configuration() == {"MaxArraySize": "1001", "A": "b=c"}


def test_the_longest_time_of_several_partitions(clients: Clients) -> None:
    clients.answers("sinfo", "cpu*|1:00:00\ngpu|2-00:00:00\nlong|infinite\n")
    assert [max_minutes(name) for name in ("gpu", "cpu,gpu", "cpu", None)] == [2880.0, 2880.0, 60.0, 60.0]
    assert max_minutes("gpu,long") is None
    assert max_minutes("long") is None


def test_how_many_jobs_may_be_queued(clients: Clients) -> None:
    """The lowest of the account's limits and those of the QOS: asked for, the account's default, or 'normal'."""
    clients.answers_to(
        "sacctmgr", "user", "faces|small|normal||3|\nfaces|faces|normal,long|long||\nfaces|group|||100|7\n"
    )
    clients.answers_to("sacctmgr", "normal", "||\n")
    clients.answers_to("sacctmgr", "long", "20||10\n")
    found = associations()
    assert found[1] == Association("faces", True, ("normal", "long"), "long", None)
    assert of_account(found, None) == [found[1]]
    assert submit_limit(of_account(found, "small"), None) == 3
    assert submit_limit(of_account(found, "group"), None) == 7
    assert submit_limit(of_account(found, None), None) == 10
    assert submit_limit(of_account(found, None), "normal") is None
    assert submit_limit(of_account(found, "small"), "long") == 3


def test_cancel_names_the_arrays(clients: Clients) -> None:
    cancel(["4711", "4712"])
    assert clients.lines() == ["scancel 4711 4712"]
    cancel([])
    assert len(clients.lines()) == 1
