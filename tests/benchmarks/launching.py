"""From `vaehpc launch` to Slurm's first acceptance of an array, for 1,000 runs; the starts of launcher and training.

Slurm is a folder of scripts that answer at once: what is measured is the launcher. Wall seconds, because that is what
somebody waits for; CPU seconds of the process beside them.
"""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from tests.benchmarks.measure import Row, median_interval
from vaehpc.tasks.prepare import Request, prepare

CLIENTS = {
    "squeue": "",
    "scontrol": "echo 'MaxArraySize = 1001'",
    "sacctmgr": "",
    "sinfo": "echo 'all*|infinite'",
    "sbatch": 'case "$*" in *--test-only*) ;; *) date +%s.%N >> "$CALLS"; echo 1;; esac',
}
SEEDS, ARMS = 250, ("ae", "vae-tiny", "vae-eps5", "vae-eps2")


def slurm_clients(folder: Path) -> dict[str, str]:
    """Slurm's clients in a folder; the environment in which they are found, and leave what was accepted when."""
    folder.mkdir()
    for name, work in CLIENTS.items():
        (folder / name).write_text(f"#!/bin/sh\n{work}\n")
        (folder / name).chmod(0o755)
    return os.environ | {"PATH": f"{folder}:{os.environ['PATH']}", "CALLS": str(folder / "calls")}


def launched(folder: Path, number: int) -> tuple[float, float]:
    """Wall seconds until the first acceptance, and CPU seconds of the whole launch."""
    environment = slurm_clients(folder / f"slurm-{number}")
    line = [sys.executable, "-m", "vaehpc.launch", "--executor", "slurm", "--data", str(folder / "data")]
    line += ["--study", f"study-{number}", "--seeds", str(SEEDS), "--arms", *ARMS]
    line += ["--model.z-dim", "16", "--model.filters", "8", "8", "16", "16"]  # the article's wants 94 GB to be free
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    begun = time.time()
    subprocess.run(line, cwd=folder, env=environment, check=True, stdout=subprocess.DEVNULL)
    now = resource.getrusage(resource.RUSAGE_CHILDREN)
    first = float(Path(environment["CALLS"]).read_text().splitlines()[0])
    return first - begun, now.ru_utime + now.ru_stime - used.ru_utime - used.ru_stime


def wall_seconds(*line: str) -> float:
    """Of a Python, from its start to its end."""
    begun = time.time()
    subprocess.run([sys.executable, *line], check=True)
    return time.time() - begun


def seconds_to_step(study: str) -> float:
    """From the start of a Python to the first step of its training."""
    begun = time.time()
    line = [sys.executable, "-m", "tests.benchmarks.start", study]
    return float(subprocess.run(line, check=True, stdout=subprocess.PIPE, text=True).stdout) - begun


def rows(quick: bool) -> Iterator[Row]:
    """Launch, and the two starts."""
    repeats = 2 if quick else 9
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        prepare(Request(synthetic=48, size=16, num_train=40, workers=1), folder / "data")
        times = [launched(folder, number) for number in range(repeats)]
    waits, cpu = ([each[column] for each in times] for column in (0, 1))
    what = f"launch of {SEEDS * len(ARMS):,} runs until the first array is accepted"
    yield Row("launch", what, *median_interval(waits), "s", "2", "1", f"{median_interval(cpu)[0]:.1f} CPU s in all")
    imports = [wall_seconds("-c", "import vaehpc.launch") for _ in range(repeats)]
    yield Row("launch", "import", *median_interval(imports), "s", "0.6", "0.4")
    with tempfile.TemporaryDirectory() as scratch:
        studies = [f"{scratch}/{number}" for number in range(1 if quick else repeats)]
        first, again = ([seconds_to_step(study) for study in studies] for _ in range(2))
    imported = wall_seconds("-c", "from vaehpc.local.starting import TRAIN, task_module; task_module(TRAIN[0])")
    beside = f"of which {imported:.1f} s imports"
    yield Row("start of a training", "its first step, article", *median_interval(first), "s", "6", "4", beside)
    yield Row("start of a training", "in a study that keeps programs", *median_interval(again), "s", "6", "4")
