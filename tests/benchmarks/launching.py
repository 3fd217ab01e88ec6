"""From `vaehpc launch` to Slurm's first acceptance of an array, for 1,000 runs; the starts of launcher and training.

Slurm is a folder of scripts that answer at once: what is measured is the launcher. Wall seconds, because that is what
somebody waits for; CPU seconds of the process beside them.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.benchmarks.measure import Row, finish, median_interval
from vaehpc.tasks.prepare import Request, prepare

CLIENTS = {
    "squeue": "",
    "scontrol": "echo 'MaxArraySize = 1001'",
    "sacctmgr": "",
    "sinfo": "echo 'all*|infinite'",
    "sbatch": 'case "$*" in *--test-only*) ;; *) date +%s.%N >> "$CALLS"; echo "Submitted batch job 1";; esac',
}
SEEDS, ARMS = 250, ("ae", "vae-tiny", "vae-eps5", "vae-eps2")


def launched(folder: Path, number: int) -> tuple[float, float]:
    """Wall seconds until the first acceptance, and CPU seconds of the whole launch."""
    calls = folder / f"calls-{number}"
    environment = os.environ | {"PATH": f"{folder / 'bin'}:{os.environ['PATH']}", "CALLS": str(calls)}
    line = [sys.executable, "-m", "vaehpc.launch", "--executor", "slurm", "--data", str(folder / "data")]
    line += ["--preset", "demo", "--study", f"study-{number}", "--seeds", str(SEEDS), "--arms", *ARMS]
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    begun = time.time()
    subprocess.run(line, cwd=folder, env=environment, check=True, stdout=subprocess.DEVNULL)
    now = resource.getrusage(resource.RUSAGE_CHILDREN)
    first = float(calls.read_text().splitlines()[0])
    return first - begun, now.ru_utime + now.ru_stime - used.ru_utime - used.ru_stime


def wall_seconds(*line: str) -> float:
    """Of a Python, from its start to its end."""
    begun = time.time()
    subprocess.run([sys.executable, *line], check=True)
    return time.time() - begun


def main() -> None:
    """Measure and show."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer launches")
    parser.add_argument("json", nargs="?", help="leave the rows here too")
    quick = parser.parse_args().quick
    repeats = 2 if quick else 9
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        (folder / "bin").mkdir()
        for name, work in CLIENTS.items():
            (folder / "bin" / name).write_text(f"#!/bin/sh\n{work}\n")
            (folder / "bin" / name).chmod(0o755)
        prepare(Request(synthetic=48, size=16, num_train=40, workers=1), folder / "data")
        times = [launched(folder, number) for number in range(repeats)]

    def starts(repeats: int, *line: str) -> list[float]:
        return [wall_seconds(*line) for _ in range(repeats)]

    cpu = median_interval([cpu for _, cpu in times])[0]
    what = f"launch of {SEEDS * len(ARMS):,} runs until the first array is accepted"
    rows = [
        Row("launch", what, *median_interval([wall for wall, _ in times]), "s", "5", "2", f"{cpu:.1f} CPU s in all"),
        Row("launch", "import", *median_interval(starts(repeats, "-c", "import vaehpc.launch")), "s", "1"),
        Row(
            "start of a training",
            "its first step, article",
            *median_interval(starts(1 if quick else repeats, "-m", "tests.benchmarks.first_step")),
            "s",
            beside=f"of which {wall_seconds('-c', 'import tensorflow'):.1f} s import TensorFlow",
        ),
    ]
    finish(rows, "The launcher, and a training's start")


if __name__ == "__main__":
    main()
