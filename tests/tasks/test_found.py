"""Whatever the folder of a run holds: it hides no other run, and damage never becomes a number."""

import copy
import functools
import json
import logging
import operator
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from tests import plant
from tests.examples import (
    AE,
    VAE,
    epoch_record,
    quick_plan,
    spiked_record,
    study_config,
    trigger_record,
)
from vaehpc.schema.config import RunConfig
from vaehpc.schema.frozen import STORED
from vaehpc.schema.results import Head, HeadNorms, LatentStatistics
from vaehpc.stats.runs import MeasuredRun, MissingRun
from vaehpc.study.files import RunDir, StudyDir
from vaehpc.tasks.found import read_run
from vaehpc.tasks.recorded import read_recorded
from vaehpc.tasks.statistics import latent_statistics

RUN = "vae-tiny-seed001"
SETTLED = dict.fromkeys(range(50, 601, 50), 16.0)
OF_THE_RUN = ("run.json", "trained.json", "statistics.json", "history.jsonl", "triggers/step-000000349/trigger.json")
OF_THE_RECORDER = ("recorder/probe.arrow", "recorder/steps.arrow")
OTHERS = ("attempts/0001/start.json", "attempts/0001/heartbeat.json", "attempts/0001/exit.json", "attempts/0001/log")


def planted(path: Path, root_seed: int, radius: float) -> StudyDir:
    study = plant.study(path, study_config([AE, VAE], 2, quick_plan(), root_seed=root_seed))
    for run in study.config().runs():
        run_dir = study.run(run.name)
        given = {
            "course": {step: radius + step / 100 for step in SETTLED},
            "history": [epoch_record(run, epoch, radius) for epoch in (1, 2)],
            "steps": spiked_record("ae" if run.arm.vae is None else "vae", jumps=root_seed == 7),
            "state_sha256": f"{root_seed:064d}",
        }
        plant.ended(run_dir, radius=radius, triggers=[trigger_record(step=349)], **given)
        plant.probe(run_dir.probe, given["course"], run.identity)
        plant.start(run_dir, beat=plant.BEAT, outcome="done", log="well\n")
        plant.sealed(run_dir)
    return study


@pytest.fixture(scope="module")
def studies(tmp_path_factory: pytest.TempPathFactory) -> tuple[StudyDir, StudyDir]:
    """Two with the same names of runs, and all else otherwise."""
    folder = tmp_path_factory.mktemp("studies")
    return planted(folder / "one", 7, 16.0), planted(folder / "two", 8, 19.0)


def truncated(path: Path, _: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def emptied(path: Path, _: Path) -> None:
    path.write_bytes(b"")


def flipped(path: Path, _: Path) -> None:
    """A digit in its middle, which leaves text well-formed; in other files a bit."""
    content = bytearray(path.read_bytes())
    digits = [place for place in range(len(content) // 2, len(content)) if content[place] in b"12345678"]
    content[digits[0] if digits and path.suffix != ".arrow" else len(content) // 2] ^= 1
    path.write_bytes(content)


def replaced(path: Path, twin: Path) -> None:
    path.write_bytes(twin.read_bytes())


def made_a_folder(path: Path, _: Path) -> None:
    path.unlink()
    path.mkdir()


def made_a_pipe(path: Path, _: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def made_unreadable(path: Path, _: Path) -> None:
    """As root may read everything: a link to itself."""
    path.unlink()
    path.symlink_to(path.name)


def of_wrong_kind(path: Path, _: Path) -> None:
    rewritten(path, "text")


def out_of_range(path: Path, _: Path) -> None:
    rewritten(path, 10**30)


def rewritten(path: Path, value: object) -> None:
    """Its first number, without its checksum, as an older release wrote it; what is no JSON is no record any more."""
    try:
        *before, last = path.read_text().splitlines() if path.suffix == ".jsonl" else [path.read_text()]
        record = json.loads(last)
    except ValueError:
        path.write_text(str(value))
        return
    record.pop("crc32", None)
    key = next(key for key, of in record.items() if isinstance(of, int | float) and key != "schema")
    path.write_text("\n".join([*before, json.dumps({**record, key: value})]))


DAMAGES = (
    truncated,
    emptied,
    flipped,
    replaced,
    made_a_folder,
    made_a_pipe,
    made_unreadable,
    of_wrong_kind,
    out_of_range,
)


def restored(path: Path, content: bytes) -> None:
    if path.is_dir() and not path.is_symlink():
        path.rmdir()
    else:
        path.unlink()
    path.write_bytes(content)


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("name", [*OF_THE_RUN, *OF_THE_RECORDER, *OTHERS])
def test_damage_is_said_and_is_no_number(
    studies: tuple[StudyDir, StudyDir],
    name: str,
    damage: Callable[[Path, Path], None],
    caplog: pytest.LogCaptureFixture,
) -> None:
    study, other = studies
    (config,) = (run for run in study.config().runs() if run.name == RUN)
    path, twin = study.run(RUN).path / name, other.run(RUN).path / name
    whole, content = read_run(study.run(RUN), config), path.read_bytes()
    assert isinstance(whole, MeasuredRun)
    try:
        damage(path, twin)
        with caplog.at_level(logging.WARNING):
            found = read_run(study.run(RUN), config)
    finally:
        restored(path, content)
    if name in OF_THE_RUN:
        assert isinstance(found, MissingRun)
        assert str(path) in (found.last_words or "")
        return
    assert isinstance(found, MeasuredRun)
    assert (found.trained, found.statistics, found.history) == (whole.trained, whole.statistics, whole.history)
    if name == "recorder/probe.arrow":
        assert len(found.probe.steps) == 0
    elif name == "recorder/steps.arrow":
        assert (found.num_recorded, found.losses_sha256) == (0, None)
    assert name in OTHERS or str(path) in caplog.text


def test_the_probe_of_another_run_is_not_believed_of_one_that_has_not_ended(
    studies: tuple[StudyDir, StudyDir], caplog: pytest.LogCaptureFixture
) -> None:
    """Its file has no hash, for it is to grow; and what it says of a jump is counted."""
    study, other = studies
    run = study.run(RUN)
    marker, content = run.trained_path.read_bytes(), run.probe.read_bytes()
    run.trained_path.unlink()
    try:
        whole = read_run(run, run.config()).probe
        replaced(run.probe, other.run(RUN).probe)
        found = read_run(run, run.config()).probe
    finally:
        run.trained_path.write_bytes(marker)
        run.probe.write_bytes(content)
    assert whole is not None
    assert found is not None
    assert (len(whole.steps), len(found.steps)) == (len(SETTLED), 0)
    assert str(run.probe) in caplog.text


@pytest.mark.parametrize("put", [os.mkfifo, lambda path: path.symlink_to("nowhere"), lambda _: None])
def test_lost_triggers_are_said(
    studies: tuple[StudyDir, StudyDir], put: Callable[[Path], None], caplog: pytest.LogCaptureFixture
) -> None:
    """A pipe or a link to nothing is damage, and so the run is missing; of a folder that is gone a word is said."""
    run_dir = studies[0].run(RUN)
    aside = run_dir.triggers.rename(run_dir.path / "aside")
    try:
        put(run_dir.triggers)
        found = read_run(run_dir, run_dir.config())
    finally:
        run_dir.triggers.unlink(missing_ok=True)
        aside.rename(run_dir.triggers)
    said = found.last_words or "" if isinstance(found, MissingRun) else caplog.text
    assert f"{run_dir.triggers}" in said


@pytest.mark.parametrize("damage", [truncated, flipped, replaced, made_a_pipe])
def test_a_damaged_ring_is_not_believed(studies: tuple[StudyDir, StudyDir], damage: Callable[..., None]) -> None:
    """The steps that steps.arrow has lost are read from it alone."""
    study, other = studies
    steps = study.run(RUN).steps
    ring = study.run(RUN).triggers / "step-000000349" / "ring.arrow"
    twin = other.run("ae-seed000").triggers / "step-000000349" / "ring.arrow"
    of_steps, content = steps.read_bytes(), ring.read_bytes()
    steps.write_bytes(b"")
    assert len(recorded(study.run(RUN))) == 200
    try:
        damage(ring, twin)
        assert len(recorded(study.run(RUN))) == 0
    finally:
        restored(ring, content)
        steps.write_bytes(of_steps)


def recorded(run: RunDir) -> list[int]:
    explained = read_recorded(run)
    return [] if explained is None else explained.record.steps.tolist()


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"step": 5}, "step cannot be 5"),
        ({"nonfinite_step": -1}, "nonfinite_step cannot be -1"),
        ({"epochs": 1}, "history.jsonl has 2 epochs, and trained.json says 1"),
        ({"run": "vae-tiny-seed000"}, "is of another run: vae-tiny-seed000"),
        ({"identity": "0" * 64}, "is of another run"),
        ({"state_sha256": "0" * 64}, "is not of this training"),
        ({"seconds": float("nan")}, "seconds cannot be nan"),
        ({"seconds_per_epoch": -7.0}, "seconds_per_epoch cannot be -7.0"),
        ({"seconds_per_epoch": 1e300}, "seconds_per_epoch cannot be 1e+300"),
    ],
)
def test_a_marker_that_cannot_be_is_refused(
    studies: tuple[StudyDir, StudyDir], changes: dict[str, object], what: str
) -> None:
    """Well-formed, and what no training can have left."""
    run_dir = studies[0].run(RUN)
    content = run_dir.trained_path.read_bytes()
    plant.write_model(run_dir.trained_path, run_dir.trained().model_copy(update=changes))
    found = read_run(run_dir, run_dir.config())
    run_dir.trained_path.write_bytes(content)
    assert isinstance(found, MissingRun)
    assert what in (found.last_words or "")


def numbers(value: object, *keys: str | int) -> Iterator[tuple[str | int, ...]]:
    """The way to each number of a JSON value."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        yield keys
    for key, part in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ():
        yield from numbers(part, *keys, key)


NEGATIVE = {
    *(("log_var", name) for name in ("max", "mean")),
    ("difference", "max_component"),
    *(("gaussian", name, "min") for name in ("sd", "skewness", "kurtosis", "ks")),
    ("gaussian", "mardia", "skewness"),
    ("inertia", "elbow_factor"),
    *(("tsne", number, "kl_divergence") for number in range(3)),
    ("heads", "mu", "bias_mean"),
    *(("scalars", name) for name in ("scale_slope", "signal_to_noise")),
}
"""Numbers of this record that may be -7."""
BEYOND = {("scalars", name) for name in ("scale_slope", "signal_to_noise")}
"""Numbers that may be 1e300: a log_var stands in their exponents."""


def measured(run: RunConfig, log_var: float = -7.0, shift: float = 0.0) -> LatentStatistics:
    """All statistics of some latents; z is mu, shifted in each component."""
    mu = np.random.default_rng(1).normal(size=(run.data.num_train, run.arm.model.z_dim)).astype(np.float32)
    log_vars = np.full_like(mu, log_var) + np.float32(0.1) * mu
    young = np.arange(len(mu)) % 3 == 0
    heads: dict[Head, HeadNorms] = {"mu": HeadNorms(kernel_norm=4.0, bias_norm=16.0, bias_mean=-1.0)}
    return latent_statistics(run, mu, log_vars, mu + np.float32(shift), {"Young": young}, heads)[0]


@pytest.mark.parametrize(("number", "taken"), [(-7, NEGATIVE), (1e300, BEYOND)])
def test_no_number_of_the_statistics_is_beyond_what_it_can_be(
    studies: tuple[StudyDir, StudyDir], number: float, taken: set[tuple[str | int, ...]]
) -> None:
    """Edited, and without its checksum, as who edits one takes it out."""
    run_dir = studies[0].run(RUN)
    content = run_dir.statistics_path.read_bytes()
    state = {"state_sha256": run_dir.trained().state_sha256}
    record = json.loads(measured(run_dir.config()).model_copy(update=state).model_dump_json())
    found = set()
    for *way, last in (ways := list(numbers(record))):
        changed = copy.deepcopy(record)
        functools.reduce(operator.getitem, way, changed)[last] = number
        run_dir.statistics_path.write_text(json.dumps(changed))
        if isinstance(read_run(run_dir, run_dir.config()), MeasuredRun):
            found.add((*way, last))
    run_dir.statistics_path.write_bytes(content)
    assert len(ways) > 100
    assert found == taken


@pytest.mark.parametrize("log_var", [-800.0, -600.0, -60.0, 60.0, 600.0, 800.0])
def test_extreme_statistics_are_no_damage(log_var: float, studies: tuple[StudyDir, StudyDir]) -> None:
    """Of a VAE whose noise vanished or exploded, and whose z lies below mu everywhere."""
    found = measured(studies[0].run(RUN).config(), log_var, shift=-0.1)
    assert found.difference is not None
    assert found.difference.max_component < 0
    assert LatentStatistics.model_validate_json(found.model_dump_json(), context=STORED) is not None
