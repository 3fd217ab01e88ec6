"""A whole study by the command itself: from images to the report, interrupted in every way, always the same results."""

import contextlib
import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pyarrow.parquet as pq
import pytest

import vaehpc.launch
import vaehpc.report
from tests.processes import is_alive, pid_of
from vaehpc.images.synthetic import write_celeba
from vaehpc.reporting.run_page import SAMPLE_IMAGES
from vaehpc.schema.config import DataConfig
from vaehpc.study.attempts import all_attempts
from vaehpc.study.files import DataDir, RunDir, StudyDir, write_model

TIMEOUT = 300
ARMS = ("ae", "vae-tiny")
RUNS = ("ae-seed000", "vae-tiny-seed000")
SMALL = ["--study", "demo", "--arms", *ARMS, "--model.filters", "4", "4", "8", "8", "--model.z-dim", "8"]
SMALL += ["--train.epochs", "30", "--train.batch-size", "16", "--train.learning-rate", "0.002"]


def asked(data: DataConfig, seeds: int = 1) -> list[str]:
    return [*SMALL, "--data", data.path, "--executor", "local", "--seeds", str(seeds)]


def launch_command(data: DataConfig) -> list[str]:
    return [sys.executable, "-m", "vaehpc.launch", *asked(data)]


def launch(folder: Path, data: DataConfig) -> str:
    """What the command says, in a process of its own."""
    command = launch_command(data)
    ended = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=TIMEOUT, check=False)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return ended.stdout


def launch_here(folder: Path, data: DataConfig, seeds: int = 1, expected: int = 0) -> str:
    """The same, whose tasks are forked from what the tests have imported already."""
    said = io.StringIO()
    with contextlib.chdir(folder), contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        code = vaehpc.launch.main(asked(data, seeds))
    assert code == expected, said.getvalue()
    assert "Traceback" not in said.getvalue()
    return said.getvalue()


def study_in(folder: Path) -> StudyDir:
    return StudyDir(folder / "runs" / "demo")


def results(study: StudyDir) -> dict[str, object]:
    """What must not depend on what happened on the way."""
    runs = {name: study.run(name) for name in RUNS}
    trained = {name: (run.trained().state_sha256, run.trained().latents_sha256) for name, run in runs.items()}
    histories = {name: run.history_path.read_bytes() for name, run in runs.items()}
    statistics = {name: run.statistics_path.read_bytes() for name, run in runs.items()}
    # As JSON: what is not a number does not equal itself.
    summary = json.loads(study.summary().model_dump_json(exclude={"study", "provenance", "comparison"}))
    rows = study.summary().comparison.rows
    summary["comparison"] = [row.model_dump_json() for row in rows if row.formula != "wall time"]
    assert len(summary["comparison"]) == len(rows) - 2
    return {"trained": trained, "histories": histories, "statistics": statistics, "summary": summary}


@pytest.fixture(scope="module")
def finished(faces: DataConfig, tmp_path_factory: pytest.TempPathFactory) -> StudyDir:
    """An undisturbed study; not to be changed."""
    folder = tmp_path_factory.mktemp("finished")
    said = launch(folder, faces)
    assert f"Report: {folder / 'runs' / 'demo' / 'report.html'}" in said
    return study_in(folder)


@pytest.fixture
def copied(finished: StudyDir, tmp_path: Path) -> StudyDir:
    """A finished study that a test may change."""
    shutil.copytree(finished.path, tmp_path / "runs" / "demo")
    return study_in(tmp_path)


def relative_files(path: Path) -> set[str]:
    """Files below a directory; numbers of attempts, steps, jobs and points of a t-SNE map as N."""
    found = {str(file.relative_to(path)) for file in path.rglob("*") if file.is_file()}
    return {re.sub(r"\d{4,}|(?<=tsne_)\d+", "N", name) for name in found}


def test_run_directory_is_the_one_of_the_readme(finished: StudyDir) -> None:
    run = {
        "run.json",
        "attempts/N/start.json",
        "attempts/N/heartbeat.json",
        "attempts/N/log",
        "attempts/N/exit.json",
        "checkpoints/step-N/variables.npz",
        "checkpoints/step-N/checkpoint.json",
        "history.jsonl",
        "recorder/probe.arrow",
        "recorder/steps.arrow",
        "latents/mu.npy",
        "latents/z.npy",
        "trained.json",
        "statistics.json",
    }
    arrays = {"radius_mu", "radius_z", "mahalanobis_qq", "principal_components", "principal_variances"}
    arrays |= {f"axis_{of}" for of in ("ks", "kurtosis", "mean", "sd", "skewness")}
    arrays |= {f"tsne_N_{of}" for of in ("images", "30-12", "10-16", "30-12-pca")}
    run |= {f"statistics/{name}.npy" for name in arrays}
    images = {"reconstructions", "random_normal", "random_fitted", "perturbations", "paths"}
    images |= {f"random_uniform_{b}" for b in (2, 3, 8, 10, 16)}
    run |= {f"latents/images/{name}.png" for name in images}
    assert {f"{name}.png" for name in images} == set(SAMPLE_IMAGES)
    assert relative_files(finished.path / "ae-seed000") == run
    assert relative_files(finished.path / "vae-tiny-seed000") == run | {"latents/log_var.npy"}
    ae = finished.run("ae-seed000")
    assert ae.z.samefile(ae.mu)
    of_study = {name for name in relative_files(finished.path) if "/" not in name}
    assert of_study == {
        "study.json",
        "summary.json",
        "runs.parquet",
        "runs.csv",
        "columns.csv",
        "report.html",
        "report.md",
        "ro-crate-metadata.json",
    }
    assert any(name.endswith(".svg") for name in relative_files(finished.figures))
    readme = (Path(__file__).parent.parent / "vaehpc/README.md").read_text()
    described = {"trained.json", "statistics.json", "run.json", "history.jsonl", "recorder/", "latents/", "attempts/"}
    assert [name for name in described | of_study if name not in readme] == []


def test_summary_keeps_the_contract(finished: StudyDir) -> None:
    summary = json.loads(finished.summary_path.read_text())
    assert summary["data"]["name"] == "built-in faces (synthetic)"
    counts = {"num_runs", "num_missing", "num_diverged", "num_ever_diverged", "num_diverged_or_nonfinite"}
    counts |= {"num_nonfinite", "num_shifted", "num_collapsed", "rate", "low", "high", "level", "method"}
    assert set(summary["arms"]) == set(ARMS)
    for arm in summary["arms"].values():
        assert counts <= arm.keys()
        assert (arm["num_runs"], arm["num_missing"], arm["method"]) == (1, 0, "Clopper-Pearson")
    for run in summary["runs"].values():
        assert {"arm", "seed", "class", "radius_median", "onset_step"} <= run.keys()
    assert summary["provisional"] is True
    assert pq.read_table(finished.runs_table)["run"].to_pylist() == list(RUNS)


def test_report_is_self_contained_and_names_the_data(finished: StudyDir) -> None:
    page = finished.report.read_text()
    assert "synthetic" in page
    assert "provisional" in page.lower()
    assert re.findall(r"(?:src|href)=[\"']?(?:https?:)?//", page) == []


def test_same_line_again_computes_nothing_again(copied: StudyDir, faces: DataConfig) -> None:
    before = {path: path.stat().st_mtime_ns for path in copied.path.glob("*seed*/**/*")}
    found = results(copied)
    copied.summary_path.unlink()
    said = launch(copied.path.parent.parent, faces)
    assert "train: nothing left to do" in said
    assert "statistics: nothing left to do" in said
    assert {path: path.stat().st_mtime_ns for path in copied.path.glob("*seed*/**/*")} == before
    assert results(copied) == found


def report(folder: Path, expected: int) -> str:
    command = [sys.executable, "-m", "vaehpc.report", "demo"]
    ended = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=TIMEOUT, check=False)
    assert ended.returncode == expected, ended.stdout + ended.stderr
    return ended.stdout + ended.stderr


def test_report_measures_what_is_trained_trains_nothing_and_sums_up(copied: StudyDir) -> None:
    measured, untrained = copied.run("ae-seed000"), copied.run("vae-tiny-seed000")
    before, attempts = measured.statistics_path.read_bytes(), len(all_attempts(untrained))
    measured.statistics_path.unlink()
    untrained.trained_path.unlink()
    copied.report.unlink()
    said = report(copied.path.parent.parent, expected=3)
    assert "statistics 1/1" in said
    assert "MISSING vae-tiny-seed000: no result of train" in said
    assert f"Report: {copied.report}" in said
    assert copied.report.exists()
    assert measured.statistics_path.read_bytes() == before
    assert len(all_attempts(untrained)) == attempts
    summary = copied.summary()
    assert {name: arm.num_missing for name, arm in summary.arms.items()} == {"ae": 0, "vae-tiny": 1}
    assert summary.runs["ae-seed000"].radius_median is not None


def refused(
    command: Callable[[Sequence[str]], int], arguments: Sequence[str], capsys: pytest.CaptureFixture[str]
) -> str:
    assert command(arguments) == 2
    return capsys.readouterr().err


def test_report_of_an_unknown_study_names_those_there_are(
    copied: StudyDir, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(copied.path.parent.parent)
    said = refused(vaehpc.report.main, ["dema"], capsys)
    assert "'dema' is neither a study's folder nor a name under runs (did you mean 'demo'?)" in said


def test_other_settings_are_refused_and_the_difference_is_shown(
    copied: StudyDir, faces: DataConfig, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(copied.path.parent.parent)
    before = relative_files(copied.path)
    message = refused(vaehpc.launch.main, [*asked(faces), "--train.learning-rate", "0.1"], capsys)
    assert "ae.train.learning_rate: it has 0.002, asked for 0.1" in message
    assert relative_files(copied.path) == before


def test_a_run_directory_with_other_settings_is_refused(
    copied: StudyDir, faces: DataConfig, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(copied.path.parent.parent)
    run = copied.run("ae-seed000")
    config = run.config()
    train = config.arm.train.model_copy(update={"epochs": 31})
    write_model(run.config_path, config.model_copy(update={"arm": config.arm.model_copy(update={"train": train})}))
    message = refused(vaehpc.launch.main, asked(faces), capsys)
    assert f"{run.path} was made with other settings" in message
    assert "arm.train.epochs: it has 31, asked for 30" in message


@pytest.mark.slow
def test_seeds_can_grow(copied: StudyDir, faces: DataConfig) -> None:
    before = results(copied)["trained"]
    said = launch_here(copied.path.parent.parent, faces, seeds=2)
    assert "train 2/2" in said
    assert results(copied)["trained"] == before
    summary = copied.summary()
    assert {name: arm.num_runs for name, arm in summary.arms.items()} == {"ae": 2, "vae-tiny": 2}
    states = {run.trained().state_sha256 for run in (copied.run(name) for name in summary.runs)}
    assert len(states) == 4


@pytest.mark.slow
def test_a_run_that_crashes_is_listed_and_stops_no_other(finished: StudyDir, faces: DataConfig, tmp_path: Path) -> None:
    study = study_in(tmp_path)
    study.path.mkdir(parents=True)
    for name in ("study.json", *(f"{run}/run.json" for run in RUNS)):
        (study.path / name).parent.mkdir(exist_ok=True)
        shutil.copy(finished.path / name, study.path / name)
    broken = study.run("ae-seed000")
    broken.checkpoints.write_text("a file where a folder should be")
    said = launch_here(tmp_path, faces, expected=3)
    assert "MISSING ae-seed000: no result of train; the end of its log:" in said
    assert f"move away {broken.checkpoints}" in said
    summary = study.summary()
    assert summary.runs["ae-seed000"].run_class is None
    assert summary.runs["vae-tiny-seed000"].radius_median is not None
    assert (summary.arms["ae"].num_missing, summary.arms["vae-tiny"].num_missing) == (1, 0)
    broken.checkpoints.unlink()
    launch_here(tmp_path, faces)
    assert results(study) == results(finished)


@pytest.mark.slow
def test_from_celebas_zip_in_this_process(tmp_path: Path) -> None:
    archive = write_celeba(tmp_path / "celeba", 24, seed=5, workers=1)
    small = ["--model.filters", "4", "4", "8", "8", "--model.z-dim", "8", "--train.epochs", "1", "--seeds", "1"]
    command = [sys.executable, "-m", "vaehpc.launch", "--celeba", str(archive), "--executor", "debug", *small]
    command += ["--arms", "vae-tiny", "--train.batch-size", "8", "--out", "studies"]
    ended = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=TIMEOUT, check=False)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert ended.stdout.startswith(f"Preset article on data of {archive}, executor debug; precision float32, for its")
    assert DataDir(tmp_path / "data" / "celeba-96").manifest().splits["train"].num_images == 20
    run = StudyDir(tmp_path / "studies" / "article").summary().runs["vae-tiny-seed000"]
    assert run.run_class == "unclassified"  # no control in the study, and neither the article's data nor its net


# Interruptions


def started_launcher(folder: Path, data: DataConfig) -> subprocess.Popen[bytes]:
    folder.mkdir(exist_ok=True)
    with (folder / "launcher.log").open("ab") as log:
        # As from a terminal: a shell's background processes, the tests' own among them, may ignore Ctrl-C.
        return subprocess.Popen(
            launch_command(data),
            cwd=folder,
            stdout=log,
            stderr=log,
            start_new_session=True,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )


def wait_for(found: Callable[[], object], process: subprocess.Popen[bytes] | None = None) -> None:
    """Until it is found; the process must not have ended before."""
    give_up = time.monotonic() + TIMEOUT
    while not found():
        assert process is None or process.poll() is None
        assert time.monotonic() < give_up
        time.sleep(0.02)


def held_task(run: RunDir, attempt: int, process: subprocess.Popen[bytes]) -> int:
    """The process of this attempt, which stands still after its first block."""
    folder = run.attempts / f"{attempt:04d}"
    wait_for((folder / "heartbeat.json").exists, process)
    os.kill(pid := pid_of(folder / "start.json"), signal.SIGSTOP)
    assert not run.trained_path.exists(), "too late to disturb it"
    return pid


def tasks_of(study: StudyDir) -> list[int]:
    """Processes of this machine that work on the study."""
    started = [pid_of(record) for record in study.path.glob("*/attempts/*/start.json")]
    return [pid for pid in started if is_alive(pid)]


@pytest.fixture
def disturbed(tmp_path: Path) -> Iterator[StudyDir]:
    study = study_in(tmp_path)
    yield study
    for pid in tasks_of(study):  # a failed test leaves none that stands still
        os.kill(pid, signal.SIGKILL)


@pytest.mark.slow
def test_whatever_is_killed_the_same_line_goes_on(
    finished: StudyDir, disturbed: StudyDir, faces: DataConfig, tmp_path: Path
) -> None:
    """The first launcher by kill -9, the second by Ctrl-C, of the third a task; and no two work on it at once."""
    study, run = disturbed, disturbed.run("vae-tiny-seed000")
    process = started_launcher(tmp_path, faces)
    orphan = held_task(run, 1, process)
    assert f"is being run by process {process.pid}" in launch_here(tmp_path, faces, expected=2)
    process.kill()
    process.wait()
    wait_for(lambda: tasks_of(study) == [orphan])  # tasks end with their launcher, unless they hang

    process = started_launcher(tmp_path, faces)
    held_task(run, 2, process)
    os.kill(orphan, signal.SIGCONT)
    wait_for(lambda: not is_alive(orphan), process)
    os.killpg(process.pid, signal.SIGINT)
    assert process.wait(timeout=60) == 130
    assert tasks_of(study) == []
    assert "Traceback" not in (tmp_path / "launcher.log").read_text()

    process = started_launcher(tmp_path, faces)
    os.kill(held_task(run, 3, process), signal.SIGKILL)
    assert process.wait(timeout=TIMEOUT) == 3
    assert "MISSING vae-tiny-seed000" in (tmp_path / "launcher.log").read_text()
    launch_here(tmp_path, faces)
    assert results(study) == results(finished)
