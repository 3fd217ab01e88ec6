"""Studies laid down on disk by tests: settings, what tasks left of each run, starts, and arrays of Slurm."""

import functools
import io
import json
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from PIL import Image

from tests.examples import CELEBA, Course, data_config, measured_run, study_config, trained_record, trigger_record
from vaehpc.reporting.document import Known, write_report
from vaehpc.reporting.run_page import SAMPLE_IMAGES
from vaehpc.schema.config import RunConfig, StudyConfig, TrainConfig
from vaehpc.schema.results import BatchRecord, PairDistances, RunClass, StudySummary, TriggerRecord
from vaehpc.stats.departures import NOT_SIGNALS, StepRecord
from vaehpc.stats.pairs import distances, pairs_of
from vaehpc.stats.runs import FoundRun, MeasuredRun
from vaehpc.stats.summary import summarise
from vaehpc.study.files import BatchDir, RunDir, StudyDir, read_model, sha256_of_file, step_of, write_model
from vaehpc.study.presets import Settings, configured_arms, named_arms
from vaehpc.study.states import Checkpoint, Progress, state_hash
from vaehpc.study.streams import IDENTITY, write_rows
from vaehpc.tasks.aggregate import read_reference
from vaehpc.tasks.found import read_run

HOUR = 3600.0
BEAT: dict[str, Any] = {
    "step": 4,
    "num_steps": 10,
    "epoch": 0,
    "steps_per_second": 2.0,
    "reconstruction_loss": 812.4,
    "radius_median": 16.25,
}
ROWS_PER_BLOCK = 50
"""Of the recorder's streams."""


# Settings


def study(path: Path, config: StudyConfig) -> StudyDir:
    """A launched study: nothing but its settings."""
    found = StudyDir(path)
    found.path.mkdir(parents=True)
    write_model(found.config_path, config)
    for of_run in config.runs():
        run(path / of_run.name, of_run)
    return found


def run(path: Path, config: RunConfig) -> RunDir:
    """A run that has not been started."""
    found = RunDir(path)
    found.path.mkdir(parents=True)
    write_model(found.config_path, config)
    return found


# What tasks leave of a run


def trained(
    run: RunDir,
    run_class: RunClass = "regular",
    *,
    mu: np.ndarray | None = None,
    triggers: Sequence[TriggerRecord] = (),
    steps: StepRecord | None = None,
    **given: Any,
) -> MeasuredRun:
    """What a training leaves: history, recorder, triggers and the marker, and latents where mu is given.

    `given` is as in `measured_run`: radius, course, history, fields of the marker. Returns what its results are.
    """
    found = measured_run(run.config(), run_class, triggers=triggers, **given)
    run.history_path.write_text("".join(f"{record.model_dump_json()}\n" for record in found.history))
    probe(run.probe, dict(zip(found.probe.steps.tolist(), found.probe.radius_medians.tolist(), strict=True)))
    if steps is not None:
        recorded(run.steps, steps)
    for of_trigger in triggers:
        trigger(run, of_trigger, steps)
    if mu is not None:
        latents(run, mu)
    write_model(run.trained_path, found.trained)
    return found


def ended(run: RunDir, run_class: RunClass = "regular", **given: Any) -> MeasuredRun:
    """What training and statistics leave of a run, but for the arrays of its statistics."""
    found = trained(run, run_class, **given)
    write_model(run.statistics_path, found.statistics)
    return found


def sealed(run: RunDir) -> None:
    """Marker, statistics and triggers of a run say the hashes of what it has left, as tasks write them."""
    for folder, record in zip(run.trigger_dirs(), run.trigger_records(), strict=True):
        if (ring := folder / "ring.arrow").exists():
            changes = {"ring_sha256": sha256_of_file(ring), "identity": run.config().identity}
            write_model(folder / "trigger.json", record.model_copy(update=changes))
    trained = run.trained()
    hashes = {"files_sha256": run.hashes_of_record(), "identity": run.config().identity}
    latents = {str(path.relative_to(run.latents)): sha256_of_file(path) for path in run.latents.rglob("*.*")}
    write_model(run.trained_path, trained.model_copy(update={**hashes, "latents_sha256": latents}))
    if run.statistics_path.exists():
        measured = run.statistics().model_copy(update={"state_sha256": trained.state_sha256})
        write_model(run.statistics_path, measured)


def at_checkpoint(run: RunDir, variables: Path) -> None:
    """The marker says that the training ended with this state."""
    state = read_model(variables.with_name("checkpoint.json"), Checkpoint).state_sha256
    write_model(run.trained_path, run.trained().model_copy(update={"state_sha256": state}))


def marker(run: RunDir, **changes: Any) -> None:
    """The marker of a training alone."""
    write_model(run.trained_path, trained_record(run.config(), **changes))


def latents(run: RunDir, mu: np.ndarray) -> None:
    """mu, log_var and z; an AE has one array."""
    run.latents.mkdir(exist_ok=True)
    np.save(run.mu, mu)
    if run.config().arm.vae is None:
        os.link(run.mu, run.z)
    else:
        np.save(run.log_var, np.full_like(mu, -14))
        np.save(run.z, mu + np.float32(0.001))


def sphere(radius: float, num_points: int = 40, z_dim: int = 4) -> np.ndarray:
    """Float32 (num_points, z_dim), each at this distance from the origin, always in the same directions."""
    points = np.random.default_rng(5).standard_normal((num_points, z_dim))
    return (radius * points / np.linalg.norm(points, axis=1, keepdims=True)).astype(np.float32)


def images(run: RunDir, names: Sequence[str]) -> None:
    """Sample images in noise of 16 x 8 pixels."""
    run.images.mkdir(parents=True)
    seed = run.config().seed
    for position, name in enumerate(names):
        (run.images / name).write_bytes(_noise(seed, position))


@functools.cache
def _noise(seed: int, position: int) -> bytes:
    pixels = np.random.default_rng([seed, position]).integers(0, 256, (8, 16, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(png := io.BytesIO(), "PNG")
    return png.getvalue()


def probe(path: Path, course: Course, identity: str = "") -> None:
    """recorder/probe.arrow, one batch per record, as a recorder that writes while training goes on."""
    columns = ("radius_median", "radius_max", "offset", "spread")
    metadata = {IDENTITY: identity} if identity else None
    schema = pa.schema([("step", pa.int64()), *((name, pa.float64()) for name in columns)], metadata)
    rows = [{"step": step} | dict.fromkeys(columns, radius) for step, radius in course.items()]
    stream(path, pa.Table.from_pylist(rows, schema=schema), 1)


def recorded(path: Path, record: StepRecord) -> None:
    """recorder/steps.arrow, or the ring of a trigger: signals in float32, and the columns that are none."""
    others = {name: np.arange(len(record.steps)) for name in NOT_SIGNALS if name != "step"}
    signals = {name: values.astype(np.float32) for name, values in record.signals.items()}
    stream(path, pa.table({"step": record.steps, **others, **signals}), ROWS_PER_BLOCK)


def stream(path: Path, table: pa.Table, rows_per_block: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_stream(file, table.schema) as found:
        write_rows(found, pa.Table.from_batches(table.to_batches(max_chunksize=rows_per_block), table.schema))


def trigger(run: RunDir, record: TriggerRecord, steps: StepRecord | None = None) -> Path:
    """A trigger with its snapshot, and with the last of these steps; returns its folder."""
    folder = run.triggers / f"step-{record.step:09d}"
    variables(folder / "snapshot", made=np.array(f"snapshot of {record.snapshot_step}"))
    if steps is not None:
        recorded(folder / "ring.arrow", steps.between(record.step - 180, record.step + 19))
    write_model(folder / "trigger.json", record)
    return folder


def checkpoint(run: RunDir, step: int, **weights: np.ndarray) -> Path:
    """A checkpoint that holds these; returns its arrays' file."""
    return variables(run.checkpoints / f"step-{step:09d}", made=np.array(f"checkpoint of {step}"), **weights)


def variables(folder: Path, **arrays: np.ndarray) -> Path:
    """A state that is whole; after as many steps as its folder's name says."""
    folder.mkdir(parents=True)
    np.savez(folder / "variables.npz", **arrays)
    step = step_of(folder) or 0
    checkpoint = Checkpoint(progress=Progress(step=step), state_sha256=state_hash(arrays, step))
    write_model(folder / "checkpoint.json", checkpoint)
    return folder / "variables.npz"


# A whole study by the classes of its runs

Classes = Mapping[str, Sequence[RunClass | None]]
"""Class of each run of arms known by name, seed by seed; None: missing."""


def classed(
    path: Path, classes: Classes, synthetic: bool = True, preset: str = "demo", epochs: int = 6
) -> tuple[StudyDir, StudySummary]:
    """Arms with epochs of 100 steps where the data are synthetic; but for figures and report."""
    found = study(path, classed_config(path.name, classes, synthetic, preset, epochs))
    config = found.config()
    for of_run in config.runs():
        folder, run_class = found.run(of_run.name), classes[of_run.arm.name][of_run.seed]
        if run_class is None:
            start(folder, outcome="failed", log="MemoryError: <could not allocate 3 GB>\n")
            continue
        triggers = [trigger_record(step=396, largest_log_var_image=None)] if run_class == "diverged" else []
        ended(folder, run_class, triggers=triggers, num_attempts=3 if of_run.seed == 1 else 1)
        images(folder, list(SAMPLE_IMAGES)[:8])
    runs = [read_run(found.run(of_run.name), of_run) for of_run in config.runs()]
    summary = summarise(config, runs, read_reference(), pair_distances(config, runs))
    write_model(found.summary_path, summary)
    return found, summary


def reported(study: StudyDir, summary: StudySummary) -> None:
    """The report of a planted study."""
    write_report(study, summary, Known(found(study)))


def found(study: StudyDir) -> list[FoundRun]:
    """Every run of a study, as the aggregate reads it."""
    return [read_run(study.run(run.name), run) for run in study.config().runs()]


def classed_config(
    name: str, classes: Classes, synthetic: bool = True, preset: str = "demo", epochs: int = 6
) -> StudyConfig:
    data = data_config(num_train=12_800, image_size=48, entropy_floor=CELEBA.entropy_floor) if synthetic else CELEBA
    arms = configured_arms(named_arms(tuple(classes)), Settings(train=TrainConfig(epochs=epochs)))
    seeds = {arm: len(of_arm) for arm, of_arm in classes.items()}
    return study_config(tuple(arms.values()), seeds, name=name, data=data, preset=preset)


def pair_distances(config: StudyConfig, runs: Sequence[FoundRun]) -> list[PairDistances]:
    """Of radii around the runs' medians, and of points that a VAE has rotated and nearly shares with its AE."""
    found = []
    for pair in pairs_of(config, [run for run in runs if isinstance(run, MeasuredRun)]):
        (radii, points), (of_control, points_of_control) = map(cloud, pair)
        found.append(distances(*pair, (radii, of_control), (points, points_of_control), config.plan.pairs))
    return found


def cloud(run: MeasuredRun) -> tuple[np.ndarray, np.ndarray]:
    """Radii (300,) and points (60, 4)."""
    numbers = np.random.default_rng(run.config.seed)
    radius = run.statistics.radius_mu.median * numbers.normal(1, 0.1, 300)
    points = numbers.standard_normal((60, 4))
    is_vae = run.config.arm.vae is not None
    return radius, points[:, ::-1] + 0.1 * numbers.standard_normal((60, 4)) if is_vae else points


# Starts of tasks, and arrays of Slurm


def start(
    run: RunDir,
    stage: str = "train",
    host: str = "node1",
    job: str | None = "4711_0",
    ago: float = 60.0,
    beat: Mapping[str, Any] | None = None,
    seen_ago: float = 5.0,
    outcome: str | None = None,
    error: str | None = None,
    pid: int = 1,
    log: str = "",
    **ended: Any,
) -> Path:
    """A start of a task: `ago` seconds ago, with its last sign of life `seen_ago` seconds ago."""
    number = len(list(run.attempts.glob("*"))) + 1
    folder = run.attempts / f"{number:04d}"
    folder.mkdir(parents=True)
    now = time.time()
    began = {"time": now - ago, "stage": stage, "host": host, "pid": pid, "job": job}
    (folder / "start.json").write_text(json.dumps(began))
    if beat is not None:
        (folder / "heartbeat.json").write_text(json.dumps({"time": now - seen_ago, **beat}))
    if outcome is not None:
        record = {"time": now - seen_ago, "outcome": outcome, "error": error, **ended}
        (folder / "exit.json").write_text(json.dumps(record))
    (folder / "log").write_text(log)
    return folder


def batch(
    study: StudyDir,
    name: str,
    elements: Sequence[Sequence[str]],
    job: str | None = "4711",
    ago: float = 120.0,
    memory_gb: float = 16.0,
    minutes: int = 1440,
    gpus: int = 1,
    launcher: str = "login 1 1",
) -> BatchDir:
    """An array of a stage; its elements are names of runs, or '' for the study."""
    folder = BatchDir(study.jobs / name)
    folder.path.mkdir(parents=True)
    record = BatchRecord(
        stage=name.rpartition("-")[0],
        elements=tuple(tuple(str(study.path / run) for run in element) for element in elements),
        after=(),
        created=time.time() - ago,
        launcher=launcher,
        cpus=4,
        gpus=gpus,
        memory_gb=memory_gb,
        minutes=minutes,
        partition=None,
    )
    write_model(folder.record_path, record)
    if job is not None:
        folder.job_path.write_text(f"{job}\n")
    return folder


def note(of: BatchDir, number: int, *events: tuple[str, str], ago: float = 100.0, node: str = "node1") -> None:
    """What the batch script of an element notes: kinds with their details, a second apart, the last `ago` s ago."""
    last = int(time.time() - ago)
    with (of.path / f"{number}.events").open("a") as file:
        for position, (kind, detail) in enumerate(events, start=1):
            file.write(f"{last - len(events) + position}\t{node}\t{kind}\t{detail}\n")
