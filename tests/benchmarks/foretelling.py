"""What `vaehpc plan --measure` foretells of the demo's runs, against what they then take."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

from rich.console import Console

from tests.benchmarks.measure import Row, ratio_row
from vaehpc.local.forecast import run_seconds, timed_arms
from vaehpc.local.stages import claim, run_stage
from vaehpc.study.files import DataDir, StudyDir
from vaehpc.study.presets import DEMO_IMAGE_SIZE, DEMO_IMAGES, PRESETS, configured_arms, named_arms
from vaehpc.study.study import create_study, data_config, expected_bytes, planned_study
from vaehpc.tasks.prepare import Request, prepare

ARMS = ("vae-clip", "ae-clip")
"""Whose runs all train to the end."""


def rows(quick: bool) -> Iterator[Row]:
    """A ratio of time, and one of disk; of one arm, fewer seeds and half of the images where it has to be quick."""
    asked = (ARMS[:1], DEMO_IMAGES // 2, 2, 5.0) if quick else (ARMS, DEMO_IMAGES, 4, 20.0)
    arms, num_images, num_seeds, seconds = asked
    times, disks = [], []
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        prepare(Request(synthetic=num_images, size=DEMO_IMAGE_SIZE, workers=2), folder / "data")
        configured = configured_arms(named_arms(arms), PRESETS["demo"].settings)
        config = planned_study("demo", "demo", data_config(DataDir(folder / "data")), configured, range(num_seeds))
        speeds = timed_arms(config, seconds)
        study = StudyDir(folder / "runs" / "demo")
        create_study(study, config)
        claim(study)
        run_stage("train", study, config, "local", Console(stderr=True))
        for run in config.runs():
            run_dir = study.run(run.name)
            times.append((run_seconds(run, speeds[run.arm.name]), run_dir.trained().seconds))
            files = (path.stat() for path in run_dir.path.rglob("*") if path.is_file())
            disks.append((expected_bytes(run), sum({found.st_ino: found.st_size for found in files}.values())))
    beside = f"{times[0][0]:.0f} s foretold, {times[0][1]:.0f} s taken by the first"
    yield ratio_row("plan", "time of a run: foretold / taken", times, beside=beside)
    yield ratio_row("plan", "disk of a run: foretold / filled", disks)
