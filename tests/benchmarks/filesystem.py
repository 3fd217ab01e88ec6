"""What a run asks of a shared file system, counted.

A small net is trained and measured in a study that was launched; Slurm is a folder of scripts that answer at once.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from tests.benchmarks.article import article_run
from tests.benchmarks.launching import slurm_clients
from tests.benchmarks.measure import Row
from tests.benchmarks.syscalls import Segment, counted
from vaehpc.study.files import RunDir, StudyDir
from vaehpc.study.study import expected_bytes, num_weights
from vaehpc.tasks.prepare import Request, prepare

ARMS, RUN = ("ae", "vae-tiny"), "vae-tiny-seed000"
FEW_SEEDS, MORE_SEEDS = 2, 18
"""Of two studies: how their launches and looks differ is what a run adds."""
SETTINGS = "--train.epochs 8 --train.keep-every-epochs 2 --train.batch-size 8 --model.z-dim 8 --model.filters 4 4 8 8"
"""As many checkpoints stay as of the article's 24 epochs. Each epoch is a block up to the probe after 50 steps, and one
up to its end after 60."""
SLURM_FILES = 6
"""Of a run in jobs/: its element's events and two logs, for training and for statistics."""


def row(what: str, value: float, unit: str = "", beside: str = "") -> Row:
    """A count: it has no interval."""
    return Row("file system", what, value, value, value, unit, beside=beside)


def counted_python(folder: Path, *line: str) -> list[Segment]:
    """What Python asks for with this line, of the study and its data and of the packages."""
    environment = [Path(sys.prefix), Path(sys.base_prefix), Path(__file__).parents[2]]
    roots = {"shared": [folder / "runs", folder / "data"], "environment": environment}
    return counted([sys.executable, *line], roots, folder / "trace")


def counted_task(folder: Path, function: str, run: RunDir) -> list[Segment]:
    """What a task on a run does, in a process as on a node."""
    code = f"from vaehpc.local.pool import Task; Task('tests.benchmarks.syscalls:{function}', '{run.path}')()"
    return counted_python(folder, "-c", code)


def launched(folder: Path, name: str, seeds: int) -> tuple[StudyDir, list[Segment]]:
    """A study, and what its launch did."""
    line = ["-m", "vaehpc.launch", "--executor", "slurm", *SETTINGS.split()]
    line += ["--data", str(folder / "data"), "--out", str(folder / "runs"), "--study", name]
    found = counted_python(folder, *line, "--seeds", str(seeds), "--arms", *ARMS)
    return StudyDir(folder / "runs" / name), found


def operations(segments: list[Segment], root: str) -> int:
    """In all of these."""
    return sum(segment.counts[root] for segment in segments)


def row_per_run(what: str, few: list[Segment], more: list[Segment], beside: str = "") -> Row:
    """What each run adds to what is done on a whole study."""
    added = operations(more, "shared") - operations(few, "shared")
    return row(f"operations: {what}, of each run", added / (len(ARMS) * (MORE_SEEDS - FEW_SEEDS)), beside=beside)


def rows_of_disk(run: RunDir) -> Iterator[Row]:
    """Files of a run of a VAE, and bytes of one of the article's size."""
    found = list(run.path.rglob("*"))
    num_folders = sum(path.is_dir() for path in found) + 1
    num_files = sum(path.is_file() for path in found) + SLURM_FILES
    yield row("files of a run", num_files, beside=f"{num_folders} folders; {SLURM_FILES} of the files are Slurm's")
    article = article_run()
    num_checkpoints, checkpoint = article.arm.train.epochs + 1, 3 * 4 * num_weights(article)  # with Adam's two moments
    latents = 3 * 4 * article.data.num_train * article.arm.model.z_dim
    beside = f"{num_checkpoints} checkpoints of {checkpoint / 1e6:.0f} MB"
    yield row("written by a run", (num_checkpoints * checkpoint + latents) / 1e9, "GB", beside)
    yield row("kept of a run", expected_bytes(article) / 1e9, "GB")


def rows_of_run(training: list[Segment], statistics: list[Segment]) -> Iterator[Row]:
    """Metadata operations of one run: opens, stats, mkdirs, renames, unlinks, links, listings.

    Of its epochs' ends the dearest, of its other blocks one without a heartbeat.
    """
    yield row("operations: imports of a training", operations(training, "environment"))
    yield row("operations: imports of its statistics", operations(statistics, "environment"))
    by_phase: dict[str, list[int]] = {}
    for segment in training:
        by_phase.setdefault(segment.phase, []).append(segment.counts["shared"])
    costs = {phase: max(by_phase[phase]) for phase in ("start", "heartbeat", "end", "epoch's end")}
    costs |= {"block": min(by_phase["block"]), "statistics": operations(statistics, "shared")}
    yield from (row(f"operations: {phase}", cost) for phase, cost in costs.items())
    run = article_run()
    blocks = -(-run.steps_per_epoch // run.plan.probe.every_steps) - 1  # that do not end the epoch
    whole = costs["start"] + costs["end"] + costs["statistics"]
    whole += run.arm.train.epochs * (blocks * costs["block"] + costs["epoch's end"])
    yield row("operations: a run without imports", whole, beside="the article's epochs and blocks")


def finish_all(study: StudyDir, run: RunDir) -> None:
    """Give all other runs of a study the results of this one."""
    without = shutil.ignore_patterns("checkpoints", "latents", "run.json")
    for other in study.config().runs():
        if (path := study.run(other.name).path) != run.path:
            shutil.copytree(run.path, path, ignore=without, dirs_exist_ok=True)


def rows(quick: bool) -> Iterator[Row]:
    """The counts are exact; the quick ones leave out what a launch and a look of `status` ask for."""
    if shutil.which("strace") is None:
        print("There is no strace here, which is a package of every distribution: the file system is left out.")
        return
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        os.environ |= slurm_clients(folder / "slurm")
        prepare(Request(synthetic=560, size=16, num_train=480, workers=2), folder / "data")
        few, launch_of_few = launched(folder, "few", FEW_SEEDS)
        run = few.run(RUN)
        training = counted_task(folder, "trained", run)
        statistics = counted_task(folder, "measured", run)
        yield from rows_of_disk(run)
        yield from rows_of_run(training, statistics)
        if quick:
            return
        more, launch_of_more = launched(folder, "more", MORE_SEEDS)
        yield row_per_run("launch", launch_of_few, launch_of_more)
        (folder / "slurm" / "squeue").write_text("#!/bin/sh\nexit 1\n")  # else the runs, in no queue, are missing
        for study in (few, more):
            finish_all(study, run)
        looks = [counted_python(folder, "-m", "vaehpc.status", str(study.path)) for study in (few, more)]
        yield row_per_run("status", *looks, beside="that is done; --watch reads it once")
