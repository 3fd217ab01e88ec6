"""The replay command: which forks it plans, what it refuses, and its end, where trainings are stood in for."""

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests import plant
from tests.examples import SHA256, arm_config, study_config, trigger_record
from vaehpc import replay
from vaehpc.schema.config import DataConfig, ForkConfig, NullWindow, StudyConfig, VaeConfig
from vaehpc.schema.plan import text_sha256
from vaehpc.schema.results import ReplayResult
from vaehpc.stats.departures import StepRecord
from vaehpc.study.files import StudyDir, read_model, write_model

AE, VAE = (
    arm_config(kind, name, train={"epochs": 400, "batch_size": 8}) for kind, name in (("ae", "ae"), ("vae", "vae-tiny"))
)
"""400 epochs of 5 steps."""
TRAIN = VAE.train
JUMP = 1010
"""The step in which the source runs jump, counted from 0."""
PROBE = {step: 16.0 if step <= JUMP else 64.0 for step in range(50, 2001, 50)}
JUMPED = {step: PROBE[step] for step in range(50, 1251, 50)}
CALM = dict.fromkeys(JUMPED, 16.0)
TRIGGER = trigger_record(
    step=JUMP, limit=1000.0, snapshot_step=900, images=(3, 5, 8), largest_loss_image=5, largest_log_var_image=8
)
STEPS = StepRecord(np.arange(2000), {"gradient_norm": np.repeat([3.0, 100.0], [800, 1200])})


@pytest.fixture(autouse=True)
def source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, faces: DataConfig) -> StudyDir:
    """A study of two arms in ./runs whose runs jumped in step 1010."""
    monkeypatch.chdir(tmp_path)
    Path("runs").mkdir()
    study = plant.study(tmp_path / "runs" / "planted", study_config([AE, VAE], {"ae": 1, "vae-tiny": 2}, data=faces))
    for of_run in study.config().runs():
        run = study.run(of_run.name)
        trigger = TRIGGER if of_run.arm.vae else TRIGGER.model_copy(update={"largest_log_var_image": None})
        plant.trained(run, course=PROBE, triggers=[trigger], steps=STEPS, device="AMD EPYC 7B12")
        run.steps.write_bytes(run.steps.read_bytes()[:-100])  # as after a kill
        for step in (600, 900, 1000, 1200, 2000):
            plant.checkpoint(run, step)
    return study


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Stands in for trainings: all forks but 'clipped' and 'null' jump, 'fresh-moments' crashes. Holds the runs."""
    done: list[str] = []

    def run_stage(_: str, study: StudyDir, config: StudyConfig, *__: object) -> None:
        for run in config.runs():
            if not study.run(run.name).trained_path.exists() and run.arm.name != "fresh-moments":
                plant.trained(
                    study.run(run.name),
                    course=CALM if run.arm.name in ("clipped", "null") else JUMPED,
                    history=[],
                    state_sha256=SHA256,
                )
                done.append(run.name)

    monkeypatch.setattr(replay, "run_stage", run_stage)
    return done


COMMAND = ("planted", "--run", "vae-tiny-seed000")


def plan(*arguments: str, command: tuple[str, ...] = COMMAND) -> StudyConfig:
    """The study of forks that such a command makes, without running them."""
    asked = replay.tyro.cli(replay.Replay, args=[*command, *arguments])
    source = replay.found_study(asked.source)
    run = replay.found_run(source, asked.run)
    return replay.planned_replay(asked, source, run, replay.found_start(run, asked.epoch, asked.trigger))[0]


def refused(capsys: pytest.CaptureFixture[str], *arguments: str, command: tuple[str, ...] = COMMAND) -> str:
    """The message of a replay that exits with 2 and writes nothing."""
    try:
        code = replay.main([*command, *arguments])
    except SystemExit as exit_:  # the argument parser's own
        code = exit_.code
    message = capsys.readouterr().err
    assert code == 2
    assert "Traceback" not in message
    assert [path.name for path in Path("runs").iterdir()] == ["planted"]
    return " ".join(message.replace("│", " ").split())


# The plan


def test_forks_from_a_trigger_have_new_noise_and_change_one_thing_each() -> None:
    config = plan("--trigger", "1", "--repeats", "16")
    assert config.seeds == dict.fromkeys(config.arms, tuple(range(16))) | {"identical": (0, 1, 2)}
    study = Path("runs").absolute() / "planted-replay-vae-tiny-seed000-step900"
    fork = ForkConfig(
        source="planted/vae-tiny-seed000", seed=0, checkpoint=str(study / "start"), step=900, until_step=1250
    )
    assert config.arms["identical"] == VAE.model_copy(update={"name": "identical", "fork": fork})
    new_noise = fork.model_copy(update={"renewed": "noise"})
    null = {"checkpoint": str(study / "start-null"), "step": 600, "until_step": 950}
    changes = {
        "noise": {},
        "batches": {"fork": fork.model_copy(update={"renewed": "shuffling"})},
        "epsilon5": {"vae": VaeConfig(epsilon_limit=5.0)},
        "log-var-clamp": {"vae": VaeConfig(log_var_limit=5.0)},
        "clipped": {"train": TRAIN.model_copy(update={"clipnorm": 1000.0})},
        "without-image": {"fork": new_noise.model_copy(update={"left_out": 5})},
        "fresh-moments": {"fork": new_noise.model_copy(update={"fresh_moments": True})},
        "null": {"fork": new_noise.model_copy(update=null)},
    }
    for name, change in changes.items():
        assert config.arms[name] == VAE.model_copy(update={"name": name, "fork": new_noise} | change)
    assert (config.root_seed, config.preset, config.plan_sha256) == (7, "demo", text_sha256(config.plan_text))


def test_the_plan_says_how_often_a_run_is_forked() -> None:
    assert {len(seeds) for name, seeds in plan("--trigger", "1").seeds.items() if name != "identical"} == {12}


def test_the_jump_is_taken_from_the_source_run() -> None:
    found = plan("--trigger", "1").replay
    assert found is not None
    assert (found.source, found.started_from, found.step) == ("planted/vae-tiny-seed000", "trigger 1", 900)
    assert (found.calm_step, found.calm_radius, found.until_step, found.jumped_radius) == (1000, 16.0, 1250, 64.0)
    assert (found.event_step, found.null) == (1050, NullWindow(step=600, until_step=950, moved=1.0))
    assert found.deterministic


def test_an_epoch_is_followed_to_the_first_event() -> None:
    config = plan("--epoch", "120")
    assert config.replay is not None
    assert (config.replay.started_from, config.replay.step) == ("epoch 120", 600)
    assert (config.replay.calm_step, config.replay.until_step) == (1000, 1250)
    assert config.name == "planted-replay-vae-tiny-seed000-step600"
    assert "without-image" not in config.arms  # nothing says which
    assert "null" not in config.arms  # nothing is kept before


def test_without_trigger_and_epoch_the_first_event_is_taken(source: StudyDir) -> None:
    found = plan().replay
    assert found is not None
    assert (found.started_from, found.step, found.event_step) == ("trigger 1", 900, 1050)
    shutil.rmtree(source.run("vae-tiny-seed000").triggers)
    found = plan().replay
    assert found is not None
    assert (found.started_from, found.step, found.event_step) == ("epoch 200", 1000, 1050)


def test_a_run_can_be_forked_from_its_start_without_a_checkpoint(source: StudyDir) -> None:
    run = source.run("vae-tiny-seed000")
    shutil.rmtree(run.triggers)
    shutil.rmtree(run.checkpoints)
    for arguments in (("--epoch", "0"), ()):
        config = plan(*arguments)
        fork = config.arms["noise"].fork
        assert config.replay is not None
        assert fork is not None
        assert (config.replay.started_from, fork.step, fork.checkpoint) == ("its start", 0, None)
        assert "fresh-moments" not in config.arms
    plant.checkpoint(run, 0)
    assert replay.found_start(run, 0, None).state == run.checkpoints / "step-000000000"


def test_an_arm_that_starts_from_another_is_not_forked_from_its_keys(
    capsys: pytest.CaptureFixture[str], source: StudyDir
) -> None:
    run = source.run("vae-tiny-seed000")
    write_model(run.config_path, run.config().model_copy(update={"arm": VAE.model_copy(update={"start_from": "ae"})}))
    assert "keeps no checkpoint of its end" in refused(capsys, "--epoch", "0")


def lost(source: StudyDir, step: int, course: dict[int, float]) -> None:
    """The run was not finite in this step, and its recorder triggered there."""
    run = source.run("vae-tiny-seed000")
    shutil.rmtree(run.triggers)
    shutil.rmtree(run.checkpoints)
    rows = StepRecord(np.arange(step + 1), {name: np.full(step + 1, 3.0) for name in ("gradient_norm", "epsilon_max")})
    plant.trained(
        run,
        course=course,
        nonfinite_step=step,
        steps=rows,
        history=[],
        triggers=[TRIGGER.model_copy(update={"step": step, "signal": "nonfinite", "snapshot_step": 0})],
    )


@pytest.mark.parametrize("step", [5, 19, 41])
def test_nan_before_the_first_probe_can_be_replayed(source: StudyDir, step: int) -> None:
    lost(source, step, {})
    config = plan()
    found = config.replay
    assert found is not None
    assert (found.started_from, found.step, found.event_step, found.until_step) == ("trigger 1", 0, step, 250)
    assert (found.calm_step, found.calm_radius, found.jumped_radius, found.null) == (None, None, None, None)
    assert found.epsilon_max == 3.0
    assert config.arms["clipped"].train.clipnorm == 30.0
    assert list(config.arms) == [
        "identical", "noise", "batches", "epsilon5", "log-var-clamp", "clipped", "without-image",
    ]  # fmt: skip


def test_the_last_probe_well_before_nan_is_calm(source: StudyDir) -> None:
    lost(source, 343, dict.fromkeys(range(50, 301, 50), 16.0) | {300: 90.0})
    found = plan().replay
    assert found is not None
    assert (found.calm_step, found.calm_radius, found.until_step) == (250, 16.0, 550)


def test_what_came_first_is_the_event(source: StudyDir) -> None:
    run = source.run("vae-tiny-seed000")
    plant.marker(run, nonfinite_step=1012)
    found = plan("--trigger", "1").replay
    assert found is not None
    assert (found.event_step, found.jumped_radius) == (1012, None)
    plant.marker(run, nonfinite_step=1150)
    found = plan("--trigger", "1").replay
    assert found is not None
    assert (found.event_step, found.jumped_radius) == (1050, 64.0)


def test_the_rings_of_triggers_say_where_to_clip_if_the_steps_are_lost(source: StudyDir) -> None:
    source.run("vae-tiny-seed000").steps.unlink()
    assert plan("--trigger", "1").arms["clipped"].train.clipnorm == 1000.0


@pytest.mark.parametrize(("kind", "threads"), [("gpu", 1), ("cpu", 4)])
def test_where_nothing_repeats_to_the_bit_identical_forks_need_not(source: StudyDir, kind: str, threads: int) -> None:
    plant.marker(source.run("vae-tiny-seed000"), device_kind=kind, threads=threads)
    config = plan("--trigger", "1")
    assert config.replay is not None
    assert not config.replay.deterministic


def test_a_trigger_on_log_var_suspects_the_image_with_the_largest(source: StudyDir) -> None:
    run = source.run("vae-tiny-seed000")
    write_model(run.triggers / "step-000001010" / "trigger.json", TRIGGER.model_copy(update={"signal": "log_var_max"}))
    of_arm = plan("--trigger", "1").arms["without-image"].fork
    assert of_arm is not None
    assert of_arm.left_out == 8


def test_an_image_can_be_named() -> None:
    for arguments in (("--trigger", "1"), ("--epoch", "120")):
        fork = plan(*arguments, "--image", "17").arms["without-image"].fork
        assert fork is not None
        assert fork.left_out == 17


def test_an_ae_has_no_variants_of_noise() -> None:
    config = plan("--trigger", "1", command=("planted", "--run", "ae-seed000"))
    assert list(config.arms) == ["identical", "batches", "clipped", "without-image", "fresh-moments", "null"]
    renewed = {arm.fork.renewed for name, arm in config.arms.items() if arm.fork and name != "identical"}
    assert renewed == {"shuffling"}


def test_a_vae_whose_epsilon_is_0_is_forked_with_other_batches(
    capsys: pytest.CaptureFixture[str], source: StudyDir
) -> None:
    run = source.run("vae-tiny-seed000")
    silent = VAE.model_copy(update={"vae": VaeConfig(epsilon_factor=0.0)})
    write_model(run.config_path, run.config().model_copy(update={"arm": silent}))
    arms = plan("--trigger", "1").arms
    assert list(arms) == [
        "identical", "batches", "log-var-clamp", "clipped", "without-image", "fresh-moments", "null",
    ]  # fmt: skip
    assert {arm.fork.renewed for name, arm in arms.items() if arm.fork and name != "identical"} == {"shuffling"}
    assert "arm vae-tiny has no noise" in refused(capsys, "--trigger", "1", "--variants", "noise")


def test_a_limit_of_the_arm_is_never_widened(source: StudyDir) -> None:
    run = source.run("vae-tiny-seed000")
    vae = VaeConfig(epsilon_limit=2.0, log_var_limit=3.0)
    arm = VAE.model_copy(update={"vae": vae, "train": TRAIN.model_copy(update={"clipnorm": 50.0}), "start_from": "ae"})
    write_model(run.config_path, run.config().model_copy(update={"arm": arm}))
    arms = plan("--trigger", "1").arms
    assert (arms["epsilon5"].vae, arms["log-var-clamp"].vae, arms["clipped"].train.clipnorm) == (vae, vae, 50.0)
    assert arms["identical"].start_from is None  # the forks' state is the source run's own


def test_repeats_have_the_source_runs_keys_but_for_what_is_drawn_anew(source: StudyDir) -> None:
    config = plan("--trigger", "1", command=("planted", "--run", "vae-tiny-seed001"))
    original = source.run("vae-tiny-seed001").config()
    forks = {run.name: run for run in config.runs()}

    def keys(run: str) -> list[bool]:
        return [forks[run].key(stream).spawn_key == original.key(stream).spawn_key for stream in ("noise", "shuffling")]

    assert keys("identical-seed002") == [True, True]
    assert keys("noise-seed001") == [False, True]
    assert keys("batches-seed001") == [True, False]
    assert forks["noise-seed000"].key("noise").spawn_key != forks["noise-seed001"].key("noise").spawn_key


# What is refused


def test_wrong_arguments_name_what_is_right(capsys: pytest.CaptureFixture[str]) -> None:
    assert "did you mean 'planted'" in refused(capsys, "--trigger", "1", command=("plantd", "--run", "ae-seed000"))
    found = refused(capsys, "--trigger", "1", command=("planted", "--run", "vae-tiny-seed01"))
    assert "did you mean 'vae-tiny-seed001'" in found
    assert "either --trigger N or --epoch N" in refused(capsys, "--trigger", "1", "--epoch", "120")
    assert "has the triggers 1 at step 1010. Or take --epoch" in refused(capsys, "--trigger", "2")
    assert "has the triggers 1 at step 1010. Or take --epoch" in refused(capsys, "--trigger", "0")
    assert "but of the epochs 120, 180, 200, 240, 400" in refused(capsys, "--epoch", "121")
    assert "With fewer than 6 forks the 95% interval" in refused(capsys, "--trigger", "1", "--repeats", "5")
    assert "positions in the training split are 0 to 39" in refused(capsys, "--trigger", "1", "--image", "40")
    assert "a name takes letters" in refused(capsys, "--trigger", "1", "--study", "a/b")
    assert "fresh-moments" in refused(capsys, "--trigger", "1", "--variants", "fresh")
    assert "was the run calm for as long as 650 steps" in refused(capsys, "--epoch", "120", "--variants", "null")
    assert "say which with --image" in refused(capsys, "--epoch", "120", "--variants", "without-image")
    of_ae = ("planted", "--run", "ae-seed000")
    assert "arm ae has no noise" in refused(capsys, "--trigger", "1", "--variants", "noise", command=of_ae)
    assert "is an AE" in refused(capsys, "--trigger", "1", "--variants", "log-var-clamp", command=of_ae)


def test_where_nothing_happened_nothing_is_replayed(capsys: pytest.CaptureFixture[str], source: StudyDir) -> None:
    found = refused(capsys, "--epoch", "240")
    assert "neither jumped nor became NaN after epoch 240; it had a jump at step 1,050" in found
    assert "the triggers 1 at step 1010" in found
    run = source.run("vae-tiny-seed000")
    for later in (16.0, 12.0, 23.0):
        plant.probe(run.probe, {step: 16.0 if step <= JUMP else later for step in PROBE})
        assert "within 200 steps after trigger 1; it had no event" in refused(capsys, "--trigger", "1")
    assert "neither jumped nor became NaN after its burn-in" in refused(capsys)


def test_a_run_without_an_end_a_record_or_data_is_refused(capsys: pytest.CaptureFixture[str], source: StudyDir) -> None:
    run = source.run("vae-tiny-seed000")
    run.steps.unlink()
    (run.triggers / "step-000001010" / "ring.arrow").unlink()
    assert "Name the variants but 'clipped'" in refused(capsys, "--trigger", "1")
    plant.probe(run.probe, {step: radius for step, radius in PROBE.items() if step != 1250})
    assert "no record of step 1250" in refused(capsys, "--trigger", "1")
    run.trained_path.unlink()
    assert "not trained to its end" in refused(capsys, "--trigger", "1")
    moved = run.config().data.model_copy(update={"path": "/nowhere"})
    write_model(run.config_path, run.config().model_copy(update={"data": moved}))
    assert "/nowhere holds no data set" in refused(capsys, "--trigger", "1")


def test_a_jump_that_ended_in_nan_is_replayed(source: StudyDir) -> None:
    run = source.run("vae-tiny-seed000")
    plant.marker(run, nonfinite_step=1120)
    plant.probe(run.probe, {step: radius for step, radius in PROBE.items() if step <= 1100})
    replayed = plan("--trigger", "1").replay
    assert replayed is not None
    assert (replayed.event_step, replayed.jumped_radius, replayed.until_step) == (1050, 64.0, 1250)


def test_a_fork_is_not_forked_again(capsys: pytest.CaptureFixture[str], source: StudyDir) -> None:
    run = source.run("vae-tiny-seed000")
    arm = plan("--trigger", "1").arms["noise"]
    write_model(run.config_path, run.config().model_copy(update={"arm": arm}))
    assert "is itself a fork" in refused(capsys, "--trigger", "1")


# From the command to the verdict

FORKS = "planted-replay-vae-tiny-seed000-step900"
LINE = (*COMMAND, "--trigger", "1", "--repeats", "8", "--executor", "debug")
WITHOUT_CRASH = ("identical", "noise", "epsilon5", "batches", "log-var-clamp", "clipped")


def verdict_of(folder: str = FORKS) -> ReplayResult:
    return read_model(Path("runs") / folder / "replay.json", ReplayResult)


def test_forks_are_trained_and_judged(trained: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert replay.main([*LINE, "--variants", *WITHOUT_CRASH]) == 0
    assert len(trained) == 3 + 5 * 8
    assert verdict_of().verdict == "gradient spike"
    said = capsys.readouterr().out
    assert "from step 900, trigger 1 (gradient_norm at step 1010)" in said
    assert "clipped, 8 x: new noise, gradient norm limited to 1000.0" in said
    assert "Verdict: gradient spike. identical (nothing): 3 of 3 jump, persists." in said
    assert str(Path("runs").absolute() / FORKS / "replay.md") in said
    start = Path("runs") / FORKS / "start"
    assert str(np.load(start / "variables.npz")["made"]) == "snapshot of 900"
    assert {path.name for path in start.iterdir()} == {"variables.npz", "checkpoint.json", "probe.arrow"}


@pytest.mark.usefixtures("trained")
def test_missing_forks_are_said_and_exit_with_3(capsys: pytest.CaptureFixture[str]) -> None:
    assert replay.main(LINE) == 3
    assert verdict_of().verdict == "gradient spike"  # decided before the fork that crashed is asked
    missing = {of.variant: of.num_missing for of in verdict_of().variants if of.num_missing}
    assert missing == {"fresh-moments": 8}
    assert "missing" in capsys.readouterr().out
    null = Path("runs") / FORKS / "start-null"
    assert str(np.load(null / "variables.npz")["made"]) == "checkpoint of 600"


def test_the_same_line_again_trains_what_is_missing(trained: list[str]) -> None:
    line = [*LINE, "--variants", *WITHOUT_CRASH]
    assert replay.main(line) == 0
    before = verdict_of()
    shutil.rmtree(Path("runs") / FORKS / "noise-seed003")
    trained.clear()
    assert replay.main(line) == 0
    assert trained == ["noise-seed003"]
    assert verdict_of() == before


def test_more_repeats_and_variants_widen_the_replay(trained: list[str]) -> None:
    assert replay.main([*LINE, "--variants", "identical", "noise", "batches"]) == 0
    assert (verdict_of().verdict, len(trained)) == ("not decided", 3 + 8 + 8)
    trained.clear()
    assert replay.main([*COMMAND, "--trigger", "1", "--repeats", "10", "--executor", "debug"]) == 3
    new = ("epsilon5", "log-var-clamp", "clipped", "without-image", "null")
    assert set(trained) == {f"{variant}-seed{seed:03d}" for variant in new for seed in range(10)} | {
        f"{variant}-seed{seed:03d}" for variant in ("noise", "batches") for seed in (8, 9)
    }
    assert verdict_of().verdict == "gradient spike"


@pytest.mark.usefixtures("trained")
def test_another_jump_is_not_mixed_into_a_replay(capsys: pytest.CaptureFixture[str]) -> None:
    assert replay.main([*LINE, "--variants", *WITHOUT_CRASH]) == 0
    assert replay.main([*COMMAND, "--epoch", "120", "--executor", "debug", "--study", FORKS]) == 2
    assert "study.replay.started_from: it has trigger 1, asked for epoch 120" in capsys.readouterr().err


@pytest.mark.usefixtures("trained")
def test_study_and_out_say_where_the_forks_lie() -> None:
    assert replay.main([*LINE, "--variants", *WITHOUT_CRASH, "--study", "why", "--out", "elsewhere"]) == 0
    assert Path("elsewhere/why/replay.json").exists()
    assert replay.main(["runs/planted", *LINE[1:], "--variants", *WITHOUT_CRASH]) == 0
    assert verdict_of().verdict == "gradient spike"


def test_dry_run_tells_the_plan_and_writes_nothing(trained: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert replay.main([*LINE, "--dry-run"]) == 0
    said = capsys.readouterr().out
    assert "R of the probe was 16.00 at step 1000 and went to 64.00 by step 1250" in said
    assert "noise, 8 x: new noise" in said
    assert "67 of 67 forks are left to train" in said
    assert [path.name for path in Path("runs").iterdir()] == ["planted"]
    assert trained == []


@pytest.mark.usefixtures("trained")
def test_a_verdict_that_fails_is_said(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    assert replay.main([*LINE, "--variants", *WITHOUT_CRASH]) == 0
    monkeypatch.setattr("vaehpc.tasks.verdict.judged", None)
    assert replay.main([*LINE, "--variants", *WITHOUT_CRASH]) == 3
    assert "TypeError: 'NoneType' object is not callable\n" in capsys.readouterr().err
    monkeypatch.setattr("vaehpc.local.stages.run_debug", lambda *_: None)  # as where it runs in a process of its own
    assert replay.main([*LINE, "--variants", *WITHOUT_CRASH]) == 3
    assert "the verdict failed" in capsys.readouterr().err


def test_the_command_imports_no_tensorflow_and_no_scipy() -> None:
    code = "import sys, vaehpc.replay; print([m for m in ('tensorflow', 'scipy', 'pyarrow') if m in sys.modules])"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
