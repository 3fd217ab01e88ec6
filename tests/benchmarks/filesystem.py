"""What a run asks of a shared file system, counted; and what 10,000 of them on 500 nodes would, simulated.

A small net is trained and measured in a study that was launched; Slurm is a folder of scripts that answer at once.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from tests.benchmarks.article import article_run
from tests.benchmarks.fleet import (
    NUM_NODES,
    NUM_RUNS,
    Costs,
    Fleet,
    checkpoint_bytes,
    peak,
    simulated,
    written_bytes,
)
from tests.benchmarks.launching import CLIENTS
from tests.benchmarks.measure import Row, finish
from tests.benchmarks.syscalls import Segment, counted, has_strace
from vaehpc.study.files import RunDir, StudyDir
from vaehpc.study.study import expected_bytes
from vaehpc.tasks.prepare import Request, prepare

PART = "file system"
ARMS, RUN = ("ae", "vae-tiny"), "vae-tiny-seed000"
FEW_SEEDS, MORE_SEEDS = 2, 18
"""Of two studies: how their launches and looks differ is what a run adds."""
SETTINGS = "--train.epochs 8 --train.keep-every-epochs 2 --train.batch-size 8 --model.z-dim 8 --model.filters 4 4 8 8"
"""As many checkpoints stay as of the article's 24 epochs. Each epoch is a block up to the probe after 50 steps, and one
up to its end after 60."""
SLURM_FILES = 6
"""Of a run in jobs/: its element's events and two logs, for training and for statistics."""
FLEETS = (
    Fleet("no image"),
    Fleet("image", in_image=True),
    Fleet("image, staged", in_image=True, staged=True),
    Fleet("image, staged, packs of 4", in_image=True, staged=True, runs_at_once=4),
    Fleet("image, staged, 5,000 images/s", in_image=True, staged=True, images_per_second=5_000.0),
)


class Bench:
    """A data set and studies on it in a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.data = folder / "data"
        (folder / "bin").mkdir()
        for name, work in CLIENTS.items():
            self.client(name, work)
        os.environ |= {"PATH": f"{folder / 'bin'}:{os.environ['PATH']}", "CALLS": str(folder / "calls")}
        prepare(Request(synthetic=560, size=16, num_train=480, workers=2), self.data)
        self.shared = [folder / "runs", self.data]
        self.environment = [Path(sys.prefix), Path(sys.base_prefix), Path(__file__).parents[2]]

    def client(self, name: str, work: str) -> None:
        """What a client of Slurm does."""
        path = self.folder / "bin" / name
        path.write_text(f"#!/bin/sh\n{work}\n")
        path.chmod(0o755)

    def launched(self, name: str, seeds: int) -> tuple[StudyDir, list[Segment]]:
        """A study, and what its launch did."""
        line = ["-m", "vaehpc.launch", "--executor", "slurm", "--preset", "demo", *SETTINGS.split()]
        line += ["--data", str(self.data), "--out", str(self.folder / "runs"), "--study", name]
        found = self.segments([*line, "--seeds", str(seeds), "--arms", *ARMS])
        return StudyDir(self.folder / "runs" / name), found

    def task(self, function: str, run: RunDir) -> list[Segment]:
        """What a task on a run does, in a process as on a node."""
        code = f"from vaehpc.submit import Task; Task('tests.benchmarks.traced:{function}', '{run.path}')()"
        return self.segments(["-c", code])

    def segments(self, line: list[str]) -> list[Segment]:
        """What Python does with this line."""
        roots = {"shared": self.shared, "environment": self.environment}
        return counted([sys.executable, *line], roots, self.folder / "trace")


def metadata(segments: list[Segment], root: str) -> int:
    """Metadata operations in all of these."""
    return sum(segment.metadata(root) for segment in segments)


def costs_of(training: list[Segment], statistics: list[Segment]) -> Costs:
    """What a run needs; of its epochs' ends the dearest, of its other blocks one without a heartbeat."""

    def dearest(phase: str) -> int:
        return max(segment.metadata("shared") for segment in training if segment.phase == phase)

    opened = set().union(*(segment.opened["environment"] for segment in training))
    return Costs(
        environment=metadata(training, "environment"),
        environment_of_statistics=metadata(statistics, "environment"),
        start=dearest("start"),
        block=min(segment.metadata("shared") for segment in training if segment.phase == "block"),
        epoch_end=dearest("epoch end"),
        heartbeat=dearest("heartbeat"),
        end=dearest("end"),
        statistics=metadata(statistics, "shared"),
        environment_bytes=sum(path.stat().st_size for path in map(Path, opened) if path.is_file()),
    )


def row(what: str, value: float, unit: str, beside: str = "") -> Row:
    """One that has no interval: a count, or a simulation's result."""
    return Row(PART, what, value, value, value, unit, beside=beside)


def rows_of_disk(run: RunDir) -> Iterator[Row]:
    """Files of a run of a VAE, and bytes of one of the article's size."""
    found = list(run.path.rglob("*"))
    num_files = sum(path.is_file() for path in found) + SLURM_FILES
    num_folders = sum(path.is_dir() for path in found) + 1
    article = article_run()
    yield row("files of a run", num_files, "", f"{num_folders} folders; {SLURM_FILES} of the files are Slurm's")
    beside = f"{article.arm.train.epochs + 1} checkpoints of {checkpoint_bytes(article) / 1e6:.0f} MB"
    yield row("written by a run", written_bytes(article) / 1e9, "GB", beside)
    yield row("kept of a run", expected_bytes(article) / 1e9, "GB")
    yield row("files of all runs", NUM_RUNS * num_files / 1e6, "million")
    yield row("kept of all runs", NUM_RUNS * expected_bytes(article) / 1e12, "TB")


def rows_of_costs(costs: Costs) -> Iterator[Row]:
    """Metadata operations of one run."""
    yield row("operations: imports of a training", costs.environment, "", "opens, stats, listings of Python's packages")
    yield row("operations: imports of its statistics", costs.environment_of_statistics, "")
    for phase in ("start", "block", "heartbeat", "end", "statistics"):
        yield row(f"operations: {phase}", getattr(costs, phase), "")
    yield row("operations: epoch's end", costs.epoch_end, "", "with checkpoint, history, probe and heartbeat")
    yield row("operations: a run without imports", costs.per_run(article_run()), "", "the article's epochs and blocks")


def row_per_run(what: str, few: list[Segment], more: list[Segment], beside: str = "") -> Row:
    """Metadata operations that each run adds to what is done on a whole study."""
    added = metadata(more, "shared") - metadata(few, "shared")
    return row(what, added / (len(ARMS) * (MORE_SEEDS - FEW_SEEDS)), "", beside)


def finish_all(study: StudyDir, run: RunDir) -> None:
    """Give all other runs of a study the results of this one."""
    without = shutil.ignore_patterns("checkpoints", "latents", "run.json")
    for other in study.config().runs():
        if (path := study.run(other.name).path) != run.path:
            shutil.copytree(run.path, path, ignore=without, dirs_exist_ok=True)


def rows_of_fleets(costs: Costs, fleets: Sequence[Fleet]) -> Iterator[Row]:
    """What all runs together ask for."""
    for fleet in fleets:
        load = simulated(fleet, costs, article_run())
        name = f"{NUM_RUNS:,} runs, {NUM_NODES} nodes, {fleet.name}"
        longer = f"10 s {peak(load.operations, 10):,.0f}, mean {load.operations.mean():,.0f}"
        yield row(f"{name}: operations", peak(load.operations, 1), "/s", f"busiest second; {longer}")
        for what, bytes_ in (("read", load.read), ("written", load.written)):
            beside = f"busiest 10 s; mean {bytes_.mean() / 1e9:.1f} over {len(bytes_) / 3600:.1f} h"
            yield row(f"{name}: {what}", peak(bytes_, 10) / 1e9, "GB/s", beside)


def measured(quick: bool) -> Iterator[Row]:
    """All rows. The counts are exact; the quick ones leave out what a launch and a look of `status` ask for."""
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(Path(folder))
        few, launch_of_few = bench.launched("few", FEW_SEEDS)
        run = few.run(RUN)
        training, statistics = bench.task("trained", run), bench.task("measured", run)
        yield from rows_of_disk(run)
        if not has_strace():
            print("There is no strace here, which is a package of every distribution: operations are not counted.")
            return
        costs = costs_of(training, statistics)
        yield from rows_of_costs(costs)
        yield from rows_of_fleets(costs, FLEETS[:2] if quick else FLEETS)
        if quick:
            return
        more, launch_of_more = bench.launched("more", MORE_SEEDS)
        yield row_per_run("operations: launch, of each run", launch_of_few, launch_of_more)
        bench.client("squeue", "exit 1")  # else the runs, which wait in no queue, are missing
        for study in (few, more):
            finish_all(study, run)
        looks = [bench.segments(["-m", "vaehpc.status", str(study.path)]) for study in (few, more)]
        yield row_per_run("operations: status, of each run", *looks, "that is done; --watch reads it once")


def main() -> None:
    """Measure and show."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="without launch and status, and fewer fleets")
    parser.add_argument("json", nargs="?", help="leave the rows here too")
    finish(measured(parser.parse_args().quick), "What the file system is asked for")


if __name__ == "__main__":
    main()
