"""A run with a spike put in on purpose: the recorder fires, `explain` says what came first, `replay` finds why."""

import pytest

from vaehpc import explain, launch, replay
from vaehpc.schema.results import ReplayResult, TriggerRecord, Variant
from vaehpc.study.files import RunDir, StudyDir, read_model
from vaehpc.tasks.prepare import Request, prepare

ARMS = """
[control-gradient]
base = "spike-gradient"
[control-gradient.spike]
steps_before_end = 100

[control-logvar]
base = "spike-logvar"
[control-logvar.spike]
steps_before_end = 100
"""
SPIKE_STEP = 24 * 20 - 100
SMALL = ["--model.filters", "8", "8", "16", "16", "--model.z-dim", "16", "--train.batch-size", "16"]
SMALL += ["--train.learning-rate", "0.002"]


@pytest.fixture(scope="module")
def spiked(tmp_path_factory: pytest.TempPathFactory) -> StudyDir:
    """One run of each control, 20 steps an epoch: of a few dozen images the radius jumps by itself."""
    out = tmp_path_factory.mktemp("runs")
    request = Request.model_validate({"synthetic": 380, "size": 32, "num_train": 320, "workers": 1})
    prepare(request, out / "faces")
    (out / "arms.toml").write_text(ARMS)
    return launched(StudyDir(out / "spiked"), "1")


def launched(study: StudyDir, seeds: str) -> StudyDir:
    out = study.path.parent
    asked = ["--data", str(out / "faces"), "--out", str(out), "--study", "spiked", "--seeds", seeds]
    more = ["--train.epochs", "24", "--arms", str(out / "arms.toml"), "--executor", "local"]
    assert launch.main([*asked, *SMALL, *more]) == 0
    return study


def first_trigger(run: RunDir) -> TriggerRecord:
    return read_model(min(run.triggers.glob("*/trigger.json")), TriggerRecord)


def replayed(run: RunDir, repeats: int, *more: str) -> ReplayResult:
    """A replay of the run's first trigger."""
    study = f"replay-{run.name}"
    asked = [str(run.path.parent), "--run", run.name, "--trigger", "1", "--repeats", str(repeats), "--study", study]
    assert replay.main([*asked, *more]) == 0
    return read_model(StudyDir(run.path.parent.parent / study).replay_path, ReplayResult)


def jumps(result: ReplayResult, variant: Variant) -> tuple[int, int]:
    """How many forks of a variant jumped or were not finite, of how many."""
    found = next(of for of in result.variants if of.variant == variant)
    return found.num_events, found.num_compared


@pytest.mark.slow
def test_the_trigger_fires_at_the_spike(spiked: StudyDir) -> None:
    triggers = [first_trigger(spiked.run(f"{arm}-seed000")) for arm in ("control-gradient", "control-logvar")]
    assert [trigger.step for trigger in triggers] == [SPIKE_STEP, SPIKE_STEP]
    assert [trigger.signal for trigger in triggers] == ["gradient_norm", "nonfinite"]
    assert spiked.run("control-logvar-seed000").trained().nonfinite_step == SPIKE_STEP


@pytest.mark.slow
def test_what_left_its_band_first_is_told(spiked: StudyDir, capsys: pytest.CaptureFixture[str]) -> None:
    run = spiked.run("control-gradient-seed000")
    assert explain.main([str(spiked.path), "--run", run.name]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert f"at step {SPIKE_STEP}, the step of the trigger, gradient_norm" in said
    assert "no extreme of the noise warned" in said
    assert (run.explanation / "trigger-1.svg").exists()


@pytest.mark.slow
def test_a_fork_repeats_the_jump_to_the_bit_and_clipping_removes_it(spiked: StudyDir) -> None:
    result = replayed(spiked.run("control-gradient-seed000"), 6, "--variants", "identical", "clipped")
    assert result.repeats_source
    assert jumps(result, "identical") == (3, 3)
    assert jumps(result, "clipped") == (0, 6)
    assert result.verdict == "not decided"
    assert "run noise too" in result.explanation


@pytest.fixture(scope="module")
def three_seeds(spiked: StudyDir) -> StudyDir:
    return launched(spiked, "3")


@pytest.mark.long
@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize(
    ("arm", "verdict"), [("control-gradient", "gradient spike"), ("control-logvar", "logvar explosion")]
)
def test_the_cause_of_a_spike_is_found(three_seeds: StudyDir, arm: str, verdict: str, seed: int) -> None:
    variants = ["--variants", "identical", "noise", "epsilon5", "batches", "log-var-clamp", "clipped"]
    assert replayed(three_seeds.run(f"{arm}-seed{seed:03d}"), 8, *variants).verdict == verdict
