"""The command: this machine examined for real, exit codes, and what stays behind."""

import functools
import io
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import pytest
from rich.console import Console

from vaehpc import doctor
from vaehpc.checks.finding import right, unchecked, wrong
from vaehpc.schema.config import DataConfig, ImageRecord
from vaehpc.study.packages import ANALYSIS_EXTRAS, TRAIN_EXTRAS
from vaehpc.tasks import visit
from vaehpc.tasks.visit import MachineReport, machine_report

ROOT = Path(__file__).parent.parent
SLURM_SITE = ROOT / "jobs/sites/slurm.toml"


def lines_of(output: str) -> dict[str, str]:
    """State and found text by the name of the check."""
    parts = [(line[:11].strip(), *line[13:].split(": ", 1)) for line in output.splitlines()[:-1]]
    return {name: f"{state}: {found}" for state, name, found in parts}


def examine(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, dict[str, str], str]:
    code = doctor.main(list(arguments))
    output = capsys.readouterr().out
    return code, lines_of(output), output.splitlines()[-1]


@pytest.fixture(scope="module")
def tensorflow_once() -> Iterator[None]:
    """TensorFlow is looked at for real, but once: it takes seconds."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(visit, "tensorflow_report", functools.cache(visit.tensorflow_report))
        yield


@pytest.mark.usefixtures("tensorflow_once")
def test_this_machine_with_data(tmp_path: Path, faces: DataConfig, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "runs"
    site = str(ROOT / "jobs/sites/local.toml")
    code, found, last = examine(capsys, "--site", site, "--data", faces.path, "--out", str(out))
    if found["GPU here"].startswith("WRONG"):  # a machine with GPUs, but with TensorFlow for processors
        assert code == 3
    else:
        assert code == 0, found
        assert last == f"Nothing wrong, 0 not checked, of {len(found)}."
    assert {"site", "Python here", "packages here", "analysis here", "TensorFlow here", "GPU here"} <= set(found)
    assert found["data here"].startswith("ok: built-in faces (synthetic): 40 of 48 images train, 16 x 16")
    assert not out.exists()


def test_a_typing_error_in_the_sites_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    site = tmp_path / "site.toml"
    site.write_text('executor = "slurm"\n[slurm]\ngpu_partitoin = "gpu"\n')
    code, found, last = examine(capsys, "--site", str(site), "--out", str(tmp_path / "runs"))
    assert code == 3
    assert "unknown setting 'slurm.gpu_partitoin' (did you mean 'gpu_partition'?)" in found["site"]
    assert last.startswith("1 wrong (site), ")
    assert list(tmp_path.iterdir()) == [site]


def test_a_sites_file_to_be_filled_in(capsys: pytest.CaptureFixture[str]) -> None:
    assert doctor.main(["--template"]) == 0
    assert capsys.readouterr().out == SLURM_SITE.read_text()


def test_findings_for_a_program(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    site = tmp_path / "site.toml"
    site.write_text("executor = 'nowhere'")  # so that TensorFlow is not imported
    assert doctor.main(["--site", str(site), "--out", str(tmp_path / "runs"), "--json"]) == 3
    found = {finding["name"]: finding for finding in json.loads(capsys.readouterr().out)}
    assert (found["site"]["ok"], found["data"]["ok"], found["rename"]["ok"]) == (False, None, True)
    assert "executor = 'nowhere' is not allowed" in found["site"]["found"]


def test_a_damaged_data_set(tmp_path: Path, own_faces: DataConfig, capsys: pytest.CaptureFixture[str]) -> None:
    next(Path(own_faces.path).glob("*.tfrecord")).unlink()
    site = tmp_path / "site.toml"
    site.write_text("executor = 'nowhere'")  # so that TensorFlow is not imported
    code, found, _ = examine(capsys, "--site", str(site), "--data", own_faces.path, "--out", str(tmp_path))
    assert code == 3
    assert found["data here"].startswith("WRONG: 1 of the ")


def test_without_slurms_client_a_slurm_site_is_wrong(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    code, found, _ = examine(capsys, "--site", str(SLURM_SITE), "--out", str(tmp_path / "runs"), "--probe")
    assert code == 3
    assert found["Slurm"] == (
        "WRONG: sinfo is not on this machine -> run this on a login node, or load Slurm's module there"
    )
    assert found["sbatch"] == "not checked: Slurm does not answer"
    assert found["visit"] == "not checked: nothing can be submitted"


def test_a_folder_that_cannot_be_made_is_wrong(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").touch()
    site = tmp_path / "site.toml"
    site.write_text("executor = 'nowhere'")
    code, found, _ = examine(capsys, "--site", str(site), "--out", str(tmp_path / "file/runs"))
    assert code == 3
    assert found["folder"].startswith(f"WRONG: {tmp_path}/file/runs: Not a directory")


FINDINGS = [
    right("Slurm", "slurm-wlm 22.05.8, cluster vaetest"),
    wrong("gpu_partition", "Slurm has no partition 'gpuu'", "name one in [slurm]. Partitions: gpu"),
    unchecked("data", "none are given", "--data DIR"),
]


def test_a_table_in_a_terminal_and_lines_in_a_pipe() -> None:
    terminal, pipe = io.StringIO(), io.StringIO()
    doctor.show(FINDINGS, Console(file=terminal, force_terminal=True, width=80, color_system=None))
    doctor.show(FINDINGS, Console(file=pipe, width=80))
    assert all(len(line) <= 80 for line in terminal.getvalue().splitlines())
    assert "-> name one in [slurm]. Partitions: gpu" in terminal.getvalue()
    assert pipe.getvalue().splitlines() == [
        "ok           Slurm: slurm-wlm 22.05.8, cluster vaetest",
        "WRONG        gpu_partition: Slurm has no partition 'gpuu' -> name one in [slurm]. Partitions: gpu",
        "not checked  data: none are given -> --data DIR",
        "1 wrong (gpu_partition), 1 not checked, of 3.",
    ]


def test_asked_wrongly(capsys: pytest.CaptureFixture[str]) -> None:
    assert doctor.main(["--minutes", "0"]) == 2
    assert "--minutes 0" in capsys.readouterr().err
    with pytest.raises(SystemExit) as stopped:
        doctor.main(["--sit", "x"])
    assert stopped.value.code == 2


# This Python, or this image, alone


@pytest.mark.usefixtures("tensorflow_once")
def test_here_needs_neither_site_nor_study(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("VAEHPC_DATA", "/nowhere")  # which is for launches
    code, found, last = examine(capsys, "--here")
    assert list(found) == ["Python here", "packages here", "TensorFlow here", "GPU here"]
    assert found["TensorFlow here"].endswith("and a convolution is right")
    if not found["GPU here"].startswith("WRONG"):  # a machine with GPUs, but with TensorFlow for processors
        assert (code, last) == (0, "Nothing wrong, 0 not checked, of 4.")
    assert doctor.main(["--here", "--json"]) == 0
    report = MachineReport.model_validate_json(capsys.readouterr().out)
    assert (report.executable, report.tensorflow) == (sys.executable, None)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("target", "arguments", "extras", "tensorflow", "lock"),
    [
        (None, (), TRAIN_EXTRAS, True, "train-cpu"),
        ("train", (), TRAIN_EXTRAS, True, "train-cpu"),
        ("train", ("--json",), TRAIN_EXTRAS, False, None),
        ("analysis", (), ANALYSIS_EXTRAS, False, "analysis"),
        ("analysis", ("--json", "--extras", "one", "other"), ("one", "other"), False, None),
    ],
)
def test_an_image_is_asked_for_what_it_is_for(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    target: Literal["train", "analysis"] | None,
    arguments: tuple[str, ...],
    extras: tuple[str, ...],
    tensorflow: bool,
    lock: str | None,
) -> None:
    image = None if target is None else ImageRecord(target=target, revision="1a2b3c4", digest="sha256:12")
    asked: list[object] = []
    here = machine_report((), (), tensorflow=False)
    report = here.model_copy(update={"image": image, "unmet": ("scipy is not installed",), "nvidia_smi": None})

    def recorded(*what: object, **also: object) -> MachineReport:
        asked.append((*what, also))
        return report

    monkeypatch.setattr(doctor, "own_image", lambda: image)
    monkeypatch.setattr(doctor, "machine_report", recorded)
    code = doctor.main(["--here", *arguments])
    output = capsys.readouterr().out
    assert asked == [(extras, ("CUDA_VISIBLE_DEVICES",), {"tensorflow": tensorflow})]
    if lock is None:
        assert (code, MachineReport.model_validate_json(output)) == (0, report)
        return
    assert code == 3
    assert "WRONG        packages here: scipy is not installed -> " in output
    assert f"containers/locks/{lock}.txt" in output
    assert (f"in the {target} image sha256:12" in output) == (target is not None)
    assert ("GPU here" in output) == (target != "analysis")


@pytest.mark.parametrize(
    "arguments",
    [
        "--here --site site.toml",
        "--here --data faces",
        "--here --out elsewhere --json",
        "--here --probe",
        "--here --minutes 1",
        "--extras analysis",
    ],
)
def test_what_does_not_go_with_here_is_refused(capsys: pytest.CaptureFixture[str], arguments: str) -> None:
    assert doctor.main(arguments.split()) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert "--json and --extras" in said.err or "--extras goes with --here" in said.err
    assert ("leave it out to have a site, Slurm, a folder or data checked" in said.err) == ("--here" in arguments)


@pytest.mark.parametrize("target", ["train", "analysis"])
def test_an_image_that_is_run_without_a_verb_says_what_it_has(tmp_path: Path, target: str) -> None:
    """The script that Apptainer starts; its arguments arrive as they were given."""
    definition = (ROOT / f"containers/{target}.def").read_text()
    script = definition.partition("%runscript\n")[2].partition("%test")[0]
    (tmp_path / "vaehpc").write_text("#!/bin/sh\nprintf '%s\\n' \"$@\"\n")
    (tmp_path / "vaehpc").chmod(0o755)

    def run(*arguments: str) -> list[str]:
        command = ["/bin/sh", "-e", "-c", script, "runscript", *arguments]
        done = subprocess.run(command, env={"PATH": str(tmp_path)}, capture_output=True, text=True, check=True)
        return done.stdout.splitlines()

    assert run() == ["doctor", "--here"]
    assert run("launch", "--out", "my studies", "*", "") == ["launch", "--out", "my studies", "*", ""]
    assert "-m vaehpc.doctor --here\n" in definition.partition("%test\n")[2]
    assert 'CMD ["python3", "-m", "vaehpc.doctor", "--here"]\n' in (ROOT / "containers/Dockerfile").read_text()


def test_the_doctor_imports_no_tensorflow() -> None:
    code = "import sys, vaehpc.doctor; sys.exit('tensorflow' in sys.modules or 'scipy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], env=os.environ | {"PYTHONPATH": str(ROOT)}).returncode == 0
