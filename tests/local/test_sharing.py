"""How many runs share a GPU: by what they train together; and the service through which they do."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from tests import plant
from tests.examples import run_config
from vaehpc.local import sharing
from vaehpc.local.sharing import measured_sharing, multi_process_service, runs_at_once
from vaehpc.machine.variables import MPS_PIPES
from vaehpc.schema.results import Timing


def together(rates: dict[int, float], asked: list[int] | None = None) -> Callable[[int], Sequence[Timing]]:
    """So many steps per second of all runs together, by their number; others find no memory."""

    def measured(number: int) -> list[Timing]:
        if asked is not None:
            asked.append(number)
        if number not in rates:
            raise RuntimeError("CUDA_ERROR_OUT_OF_MEMORY")
        return [speed(number / rates[number])] * number

    return measured


def speed(step_seconds: float) -> Timing:
    return Timing(
        run="vae-seed003",
        device="GPU",
        start_seconds=5.0,
        step_seconds=step_seconds,
        image_seconds=1e-4,
        checkpoint_seconds=0.1,
        end_seconds=1.0,
        memory_bytes=10**9,
    )


@pytest.mark.parametrize(
    ("rates", "most", "chosen"),
    [
        ({1: 100, 2: 190, 4: 300, 8: 310}, 8, 4),  # 8 train hardly more than 4
        ({1: 100, 2: 190, 4: 300, 8: 420}, 8, 8),
        ({1: 100, 2: 190, 4: 300, 8: 420}, 4, 4),  # no more are asked for
        ({1: 100, 2: 190, 4: 300, 8: 420}, 6, 4),
        ({1: 100, 2: 105}, 8, 1),
        ({1: 100, 2: 190}, 8, 2),  # no memory for 4
        ({}, 8, 1),  # the training itself will say what is wrong
    ],
)
def test_runs_are_doubled_as_long_as_it_pays(rates: dict[int, float], most: int, chosen: int) -> None:
    found = measured_sharing("H200", most, together(rates))
    assert found.runs_at_once == chosen
    assert found.steps_per_second == pytest.approx({n: rates[n] for n in found.steps_per_second})


def test_a_study_measures_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = plant.run(tmp_path / "study" / "vae-seed003", run_config())
    (tmp_path / "study" / "jobs").mkdir()
    asked: list[int] = []
    measured = together({1: 100, 2: 190, 4: 200}, asked)
    monkeypatch.setattr(sharing, "timed_together", lambda _run, _seconds, gpus, _study: measured(len(gpus)))
    monkeypatch.setattr(sharing, "gpu_name", lambda _: "NVIDIA H200")
    assert [runs_at_once(str(run.path), 4) for _ in range(2)] == [2, 2]
    assert asked == [1, 2, 4]
    assert capsys.readouterr().out.count("at most 4, train fastest together on NVIDIA H200") == 1
    assert runs_at_once(str(run.path), 2) == 2  # another question
    assert asked == [1, 2, 4, 1, 2]
    kept = sorted(path.name for path in (tmp_path / "study" / "jobs").iterdir())
    assert kept == ["sharing-NVIDIA-H200-2.json", "sharing-NVIDIA-H200-4.json"]


def test_what_cannot_be_measured_or_told_apart_is_not_kept_for_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = plant.run(tmp_path / "study" / "vae-seed003", run_config())
    (jobs := tmp_path / "study" / "jobs").mkdir()
    monkeypatch.setattr(sharing, "gpu_name", lambda _: "GPU")
    monkeypatch.setattr(socket, "gethostname", lambda: "g7")
    for rates in ({}, {1: 100}):
        monkeypatch.setattr(sharing, "timed_together", lambda _run, _s, gpus, _study, r=rates: together(r)(len(gpus)))
        assert runs_at_once(str(run.path), 4) == 1
        assert [path.name for path in jobs.iterdir()] == ["sharing-GPU-of-g7-4.json"] * bool(rates)
    assert runs_at_once(str(run.path), 4, "MIG-7a") == 1  # of unlike parts, where nvidia-smi is not there
    assert {path.name for path in jobs.iterdir()} == {"sharing-GPU-of-g7-4.json", "sharing-MIG-7a-of-g7-4.json"}


MPS = """#!/bin/sh
if [ "$1" = -d ]; then echo "$CUDA_VISIBLE_DEVICES" > "$CUDA_MPS_PIPE_DIRECTORY/control"; exit ${MPS_STATUS:-0}; fi
read asked; echo "$asked" > "$MPS_ASKED"
"""


@pytest.fixture
def mps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An MPS that only starts and ends; the file says what it was asked last."""
    (tmp_path / sharing.MPS).write_text(MPS)
    (tmp_path / sharing.MPS).chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    monkeypatch.setenv("MPS_ASKED", str(tmp_path / "asked"))
    monkeypatch.delenv(MPS_PIPES, raising=False)
    return tmp_path / "asked"


def test_the_service_lives_as_long_as_the_runs(mps: Path) -> None:
    with multi_process_service(["GPU-8f", "MIG-7a"]):
        pipes = Path(os.environ[MPS_PIPES])
        assert (pipes / "control").read_text() == "GPU-8f,MIG-7a\n"  # by names that clients have for them, too
        assert not mps.exists()
    assert mps.read_text() == "quit\n"
    assert MPS_PIPES not in os.environ
    assert not pipes.exists()


def test_without_the_service_runs_take_turns(mps: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with multi_process_service(["2"]):
        assert MPS_PIPES not in os.environ  # its daemon would number the GPU anew, and no run would see one
    monkeypatch.setenv("MPS_STATUS", "1")
    with multi_process_service(["GPU-8f"]):
        assert MPS_PIPES not in os.environ  # what does not listen would stop every run
    assert not mps.exists()
    monkeypatch.setenv(MPS_PIPES, "/the/clusters/own")
    with multi_process_service(["2"]):
        assert os.environ[MPS_PIPES] == "/the/clusters/own"
    assert not mps.exists()
