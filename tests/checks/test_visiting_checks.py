"""Visits but for Slurm's part: what is asked for, and what is concluded from what a visit left behind."""

from pathlib import Path

import pytest

from vaehpc.checks.visiting import Visit, failed_finding, report_findings, visit_array
from vaehpc.schema.site import SiteConfig
from vaehpc.slurm.sbatch import SlurmArray
from vaehpc.study.sites import job_config, resolved
from vaehpc.tasks.visit import VisitDir, VisitReport, machine_report

CONFIG = SiteConfig.model_validate(
    {
        "executor": "slurm",
        "environment": {"OMP_NUM_THREADS": "1 or 2"},
        "slurm": {"gpu_partition": "gpu", "cpu_partition": "cpu", "account": "faces", "tasks_per_gpu": 4},
        "jobs": {"statistics": {"memory_gb": 1, "hours": 0.1}},
    }
)
SITE = resolved(CONFIG)


def test_a_visit_stands_where_its_stage_does_and_asks_for_little(tmp_path: Path) -> None:
    train, statistics = (visit_array(stage, tmp_path / stage, SITE) for stage in ("train", "statistics"))
    declared = job_config("visit")
    assert (train.partition, train.gpus, train.cpus, train.memory_gb) == ("gpu", 1, 1, declared.memory_gb)
    assert (statistics.partition, statistics.gpus, statistics.memory_gb, statistics.minutes) == ("cpu", 0, 1, 6)
    assert train.minutes == 60 * declared.hours
    assert (train.entry_point, train.arguments) == ("vaehpc.tasks.visit:run", str(tmp_path / "train"))


def test_its_script_has_the_sites_environment_and_account(tmp_path: Path) -> None:
    script = SlurmArray(visit_array("train", tmp_path, SITE), SITE.slurm).script().splitlines()
    assert "export OMP_NUM_THREADS='1 or 2'" in script
    assert "#SBATCH --account=faces" in script
    assert "#SBATCH --gres=gpu:1" in script
    assert f"#SBATCH --comment={tmp_path}" in script


@pytest.mark.parametrize(
    ("log", "found", "remedy"),
    [
        (None, "job 4711 ended without a result (FAILED), and without a log", "does the node see"),
        (
            "slurmstepd-g1: error: execve(): /nowhere/python: No such file or directory\n"
            "srun: error: g1: task 0: Exited with exit code 2\n",
            "its log ends: slurmstepd-g1: error: execve(): /nowhere/python: No such file or directory | srun: error",
            "'python' in [slurm]",
        ),
        ("ModuleNotFoundError: No module named 'vaehpc'\n", "No module named 'vaehpc'", "'python' in [slurm]"),
        ("Illegal instruction\n", "Illegal instruction", "mend what its log says"),
    ],
)
def test_a_visit_without_result(tmp_path: Path, log: str | None, found: str, remedy: str) -> None:
    if log is not None:
        (tmp_path / "4711_0_log.err").write_text(log)
    finding = failed_finding("train", "4711", tmp_path, "FAILED")
    assert finding.ok is False
    assert found in finding.found
    assert remedy in finding.remedy


def test_what_a_visit_found_is_judged(tmp_path: Path) -> None:
    here = machine_report((), ("OMP_NUM_THREADS",), tensorflow=False)
    there = here.model_copy(update={"host": "c1", "environment": {"OMP_NUM_THREADS": "1 or 2"}})
    report = VisitReport(machine=there, answer_seconds=0.42, data=None)
    found = {finding.name: finding for finding in report_findings("statistics", report, SITE, here, tmp_path)}
    assert list(found) == [
        "shared folder on c1",
        "Python on c1",
        "packages on c1",
        "versions on c1",
        "environment on c1",
    ]
    assert all(finding.ok for finding in found.values())
    assert found["shared folder on c1"].found == "seen both ways; a file and its answer took 0.4 s"
    silent = report.model_copy(update={"answer_seconds": None})
    assert report_findings("statistics", silent, SITE, here, tmp_path)[0].ok is False


def test_the_state_of_a_visit_in_words(tmp_path: Path) -> None:
    visit = Visit("train", VisitDir(tmp_path), "4711", reason="Resources")
    assert visit.in_words == "train is PENDING (Resources)"
    visit.state, visit.node = "RUNNING", "g1"
    assert visit.in_words == "train is RUNNING on g1"
