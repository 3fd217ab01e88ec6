"""The flight recorder fed with planted signals: what it writes, when it dumps, and how a resumed attempt goes on."""

from pathlib import Path

import keras
import numpy as np
import pyarrow as pa
import pytest

from tests.examples import run_config
from vaehpc.schema.config import ForkConfig, RunConfig
from vaehpc.schema.plan import MAX_TRIGGERS
from vaehpc.schema.results import ProbeRecord, TriggerRecord
from vaehpc.study.attempts import Attempt, SupersededError
from vaehpc.study.files import RunDir, read_model
from vaehpc.training import recorder as recorder_module
from vaehpc.training.checkpoint import NonFiniteError, Progress, read_checkpoint
from vaehpc.training.fit import TrainedBlock
from vaehpc.training.pipeline import batch_of_step
from vaehpc.training.recorder import FlightRecorder, read_steps, steps_schema
from vaehpc.training.signals import NO_ROW

NAMES = ("total_loss", "image_loss_row", "log_var_max", "log_var_row", "gradient_norm", "gradient_rms")
EVERY = 50
NUM_TRAIN = 1600  # 100 steps of 16 images an epoch, so that the burn-in of the plan's 300 steps counts


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunDir:
    """A run whose snapshots are taken by steps alone: planted blocks take no time."""
    monkeypatch.setattr(recorder_module, "COPIES_PER_TIME", 0)
    folder = RunDir(tmp_path / "vae-seed003")
    folder.path.mkdir()
    return folder


def config(fork: ForkConfig | None = None, precision: str = "float32") -> RunConfig:
    found = run_config("vae", num_train=NUM_TRAIN, train={"epochs": 50, "precision": precision})
    return found.model_copy(update={"arm": found.arm.model_copy(update={"fork": fork})})


class Planted:
    """A training that only counts, with chosen signals in chosen steps."""

    def __init__(self, run: RunDir, start: int = 0, fork: ForkConfig | None = None, precision: str = "float32") -> None:
        self.config = config(fork, precision)
        self.attempt = Attempt.start(run, "train")
        self.weight = keras.Variable(np.full(3, start, np.float32), name="kernel")
        self.start = start
        self.recorder = FlightRecorder(self.attempt, self.config, [self.weight], NAMES, Progress(step=start))

    def train(self, until: int, radii: dict[int, float] | None = None, **spikes: dict[int, float]) -> None:
        probes: tuple[ProbeRecord, ...] = ()
        with self.recorder:
            for first in range(self.start, until, EVERY):
                signals = planted_signals(np.arange(first, first + EVERY), spikes)
                self.weight.assign(np.full(3, first + EVERY, np.float32))
                radius = (radii or {}).get(first + EVERY, 20.0)
                probes = (*probes, probe(first + EVERY, radius))
                progress = Progress(step=first + EVERY, probe=probes)
                order = np.concatenate([batch_of_step(self.config, step) for step in range(first, first + EVERY)])
                self.recorder.record(TrainedBlock(progress, signals, order))


def planted_signals(steps: np.ndarray, spikes: dict[str, dict[int, float]]) -> dict[str, np.ndarray]:
    calm = dict(zip(NAMES, (100.0, 3.0, -1.0, 5.0, 20.0, 1.0), strict=True))
    signals = {name: np.full(len(steps), value, np.float32) for name, value in calm.items()}
    for name, values in spikes.items():
        for step, value in values.items():
            signals[name][steps == step] = value
    return signals


def probe(step: int, radius: float) -> ProbeRecord:
    return ProbeRecord(step=step, radius_median=radius, radius_max=radius, offset=0.0, spread=radius)


def steps_of(run: RunDir, fork: ForkConfig | None = None) -> list[int]:
    rows = read_steps(run.steps, steps_schema(config(fork), NAMES))
    return [int(step) for step in rows["step"].to_pylist()]


def triggers_of(run: RunDir) -> list[TriggerRecord]:
    return [read_model(path, TriggerRecord) for path in sorted(run.triggers.glob("*/trigger.json"))]


def test_every_step_is_a_row_with_its_images(run: RunDir) -> None:
    planted = Planted(run)
    planted.train(200, log_var_max={70: -0.5})
    rows = read_steps(run.steps, steps_schema(config(), NAMES)).to_pylist()
    assert [row["step"] for row in rows] == list(range(200))
    assert rows[70]["log_var_max"] == -0.5
    assert rows[130]["image_loss_image"] == batch_of_step(planted.config, 130)[3]
    assert rows[130]["log_var_image"] == batch_of_step(planted.config, 130)[5]
    assert len({row["batch_hash"] for row in rows}) == 200
    with run.steps.open("rb") as file:
        assert pa.ipc.open_stream(file).schema.metadata[b"run"] == b"vae-seed003"
    assert not run.triggers.exists()


def test_what_was_damaged_meanwhile_is_not_carried_on(run: RunDir) -> None:
    Planted(run).train(200)
    content = bytearray(run.steps.read_bytes())
    content[len(content) * 5 // 8] ^= 1
    run.steps.write_bytes(content)
    Planted(run, start=200).train(250)
    assert steps_of(run) == [*range(100), *range(200, 250)]


def test_where_no_image_stands_out_there_is_none(run: RunDir) -> None:
    planted = Planted(run)
    planted.train(600, gradient_norm={463: 900.0}, image_loss_row={463: NO_ROW}, log_var_row={463: NO_ROW})
    row = read_steps(run.steps, steps_schema(config(), NAMES)).to_pylist()[463]
    assert (row["image_loss_image"], row["log_var_image"]) == (None, None)
    (found,) = triggers_of(run)
    assert (found.largest_loss_image, found.largest_log_var_image) == (None, None)


def test_a_trigger_keeps_its_ring_its_images_and_the_older_snapshot(run: RunDir) -> None:
    planted = Planted(run)
    planted.train(600, gradient_norm={463: 900.0})
    (found,) = triggers_of(run)
    assert (found.step, found.signal, found.value, found.limit) == (463, "gradient_norm", 900.0, 200.0)
    assert found.snapshot_step == 300  # at 450 the snapshots were of 300 and 400 steps
    assert found.images == tuple(batch_of_step(planted.config, 463))
    assert found.largest_loss_image == found.images[3]
    assert found.largest_log_var_image == found.images[5]
    folder = run.triggers / "step-000000463"
    checkpoint, arrays = read_checkpoint(folder / "snapshot")
    assert checkpoint.progress.step == 300
    np.testing.assert_array_equal(arrays["kernel"], 300.0)
    ring = read_steps(folder / "ring.arrow", steps_schema(config(), NAMES))["step"].to_pylist()
    assert ring == list(range(300, 500))


def test_nothing_triggers_before_the_burn_in(run: RunDir) -> None:
    Planted(run).train(600, gradient_norm={299: 1e9}, log_var_max={250: 30.0})
    assert triggers_of(run) == []


@pytest.mark.parametrize(("radius", "expected"), [(25.9, []), (26.1, [449])])
def test_the_probe_triggers_at_the_step_before_it(run: RunDir, radius: float, expected: list[int]) -> None:
    Planted(run).train(600, radii={450: radius})
    assert [found.step for found in triggers_of(run)] == expected


def test_what_follows_a_trigger_is_in_its_ring_and_no_other_trigger(run: RunDir) -> None:
    Planted(run).train(900, gradient_norm={420: 900.0, 440: 900.0, 619: 900.0, 621: 900.0})
    assert [found.step for found in triggers_of(run)] == [420, 621]


def test_a_run_dumps_no_more_than_it_may(run: RunDir) -> None:
    steps = range(400, 400 + 250 * (MAX_TRIGGERS + 2), 250)
    Planted(run).train(3200, log_var_max=dict.fromkeys(steps, 30.0))
    assert [found.step for found in triggers_of(run)] == list(steps)[:MAX_TRIGGERS]


def test_a_fork_records_and_dumps_nothing(run: RunDir) -> None:
    fork = ForkConfig(source="s/r", seed=3, checkpoint="", step=0, until_step=600)
    Planted(run, fork=fork).train(600, gradient_norm={463: 900.0})
    assert steps_of(run, fork) == list(range(600))
    assert triggers_of(run) == []


def test_a_resumed_attempt_goes_on_behind_its_checkpoint(run: RunDir) -> None:
    Planted(run).train(450, gradient_norm={420: 900.0})
    Planted(run, start=300).train(600, gradient_norm={420: 900.0})
    assert steps_of(run) == list(range(600))
    assert [found.step for found in triggers_of(run)] == [420]


def test_a_resumed_attempt_knows_what_was_dumped(run: RunDir) -> None:
    Planted(run).train(450, gradient_norm={420: 900.0})
    Planted(run, start=450).train(600, gradient_norm={500: 900.0})  # in the ring that 420 began
    assert [found.step for found in triggers_of(run)] == [420]


def test_a_resumed_attempt_remembers_the_gradients_before_its_checkpoint(run: RunDir) -> None:
    Planted(run).train(400)
    Planted(run, start=400).train(450, gradient_norm={401: 900.0})
    assert [found.step for found in triggers_of(run)] == [401]


def test_a_cut_off_file_is_read_up_to_its_last_whole_batch(run: RunDir) -> None:
    Planted(run).train(200)
    content = run.steps.read_bytes()
    run.steps.write_bytes(content[: int(0.9 * len(content))])
    assert steps_of(run) == list(range(150))
    Planted(run, start=100).train(200)
    assert steps_of(run) == list(range(200))


def test_steps_are_on_disk_while_the_training_goes_on(run: RunDir) -> None:
    planted = Planted(run)
    with planted.recorder:
        signals = planted_signals(np.arange(50), {})
        planted.recorder.record(TrainedBlock(Progress(step=50), signals, np.arange(800)))
        assert steps_of(run) == list(range(50))


def test_an_attempt_that_was_replaced_writes_to_a_file_that_nobody_sees(run: RunDir) -> None:
    orphan = Planted(run)
    with orphan.recorder:
        Planted(run).train(100)
        signals = planted_signals(np.arange(50), {"gradient_norm": {20: 7.0}})
        orphan.recorder.record(TrainedBlock(Progress(step=50), signals, np.arange(800)))
        assert 7.0 not in read_steps(run.steps, steps_schema(config(), NAMES))["gradient_norm"].to_pylist()
    assert steps_of(run) == list(range(100))
    with pytest.raises(SupersededError), orphan.recorder:
        pass


def test_a_step_that_is_not_finite_is_the_last_row_and_a_trigger(run: RunDir) -> None:
    planted = Planted(run)
    planted.train(400)
    resumed = Planted(run, start=400)
    signals = planted_signals(np.arange(400, 413), {"total_loss": {412: np.nan}})
    with pytest.raises(NonFiniteError), resumed.recorder:
        raise NonFiniteError(412, signals, np.arange(NUM_TRAIN)[: 50 * 16])
    assert steps_of(run) == list(range(413))
    (found,) = triggers_of(run)
    assert (found.step, found.signal, found.snapshot_step) == (412, "nonfinite", 400)


def test_a_gradient_that_is_not_finite_triggers_within_the_burn_in(run: RunDir) -> None:
    Planted(run).train(600, gradient_norm={19: np.inf, 20: np.inf})
    (found,) = triggers_of(run)
    assert (found.step, found.signal, found.value, found.snapshot_step) == (19, "nonfinite", np.inf, 0)


def test_a_gradient_that_was_infinite_steps_before_the_loss_is_the_trigger(run: RunDir) -> None:
    planted = Planted(run)
    signals = planted_signals(np.arange(42), {"gradient_norm": {39: np.inf}, "total_loss": {41: np.nan}})
    with pytest.raises(NonFiniteError), planted.recorder:
        raise NonFiniteError(41, signals, np.arange(NUM_TRAIN)[: 50 * 16])
    assert [found.step for found in triggers_of(run)] == [39]


def test_a_loss_in_the_ring_of_such_a_gradient_is_no_other_trigger(run: RunDir) -> None:
    planted = Planted(run)
    planted.train(50, gradient_norm={48: np.inf, 49: np.inf})
    resumed = Planted(run, start=50)
    signals = planted_signals(np.arange(50, 52), {"total_loss": {51: np.nan}})
    with pytest.raises(NonFiniteError), resumed.recorder:
        raise NonFiniteError(51, signals, np.arange(NUM_TRAIN)[: 50 * 16])
    assert [found.step for found in triggers_of(run)] == [48]


def test_what_is_not_finite_is_no_trigger_that_counts(run: RunDir) -> None:
    steps = range(400, 400 + 250 * MAX_TRIGGERS, 250)
    Planted(run).train(2600, log_var_max=dict.fromkeys(steps, 30.0), gradient_norm={30: np.inf, 2510: np.inf})
    assert [found.step for found in triggers_of(run)] == [30, *steps, 2510]


def test_an_overflow_of_the_loss_scale_of_float16_triggers_nothing(run: RunDir) -> None:
    overflows = dict.fromkeys((0, 1, 463), np.inf)
    Planted(run, precision="mixed_float16").train(600, gradient_norm=overflows, gradient_rms=overflows)
    assert triggers_of(run) == []
