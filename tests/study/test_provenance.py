"""The identity of the code, and what made a run."""

import re
from pathlib import Path

import pytest

from vaehpc import __version__
from vaehpc.__main__ import main
from vaehpc.schema.results import TrainedRecord
from vaehpc.study.attempts import Attempt, made_of, read_json, starts_of
from vaehpc.study.files import RunDir
from vaehpc.study.provenance import code_version, provenance, sources


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    (tmp_path / "ae-seed000").mkdir()
    return RunDir(tmp_path / "ae-seed000")


def test_the_version_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"vaehpc {code_version()}\n"
    assert re.fullmatch(re.escape(__version__) + r"(\+g[0-9a-f]{12}(\.dirty\." + sources()[:8] + ")?)?", code_version())


def test_a_change_that_is_not_committed_is_another_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package, digest = tmp_path / "vaehpc", sources.__wrapped__
    (package / "study").mkdir(parents=True)
    monkeypatch.setattr("vaehpc.study.provenance.__file__", str(package / "study/provenance.py"))
    (package / "losses.py").write_text("kl_weight = 1e-6\n")
    before = digest()
    (package / "losses.py").write_text("kl_weight = 2e-6\n")
    changed = digest()
    (package / "losses.py").rename(package / "study/losses.py")
    assert len({before, changed, digest()}) == 3


def test_every_start_says_what_makes_it(run: RunDir) -> None:
    said = read_json(Attempt.start(run, "train").start_path)
    assert said["schema"] == 1
    assert said["provenance"] == provenance().model_dump()
    assert said["provenance"]["sources"] == sources()


def test_only_starts_that_left_something_made_a_run(run: RunDir) -> None:
    for number, (stage, state) in enumerate(
        [
            ("train", {"step": 3}),  # left no checkpoint
            ("train", {"step": 9, "checkpoint_step": 8, "device": "A100", "driver": "550"}),
            ("statistics", {}),
            ("statistics", {}),
        ]
    ):
        attempt = Attempt.start(run, stage)
        attempt.beat(**state)
        said = attempt.start_path.read_text().replace(provenance().code_version, f"code {number}")
        attempt.start_path.write_text(said)
    found = starts_of(run, None)
    assert [(made.stage, made.provenance.code_version) for made in found] == [
        ("train", "code 1"),
        ("statistics", "code 3"),
    ]
    assert (found[0].device, found[0].driver) == ("A100", "550")


def test_starts_of_0_1_0_and_damaged_ones_say_nothing(run: RunDir) -> None:
    for said in ('{"stage": "train"}', '{"stage": "train", "provenance": {"packages": 3}}', "{"):
        attempt = Attempt.start(run, "train")
        attempt.beat(checkpoint_step=8)
        attempt.start_path.write_text(said)
    assert starts_of(run, None) == []


def test_what_ended_a_training_made_it(run: RunDir) -> None:
    trained = TrainedRecord(
        run=run.name,
        step=8,
        epochs=1,
        state_sha256="0",
        latents_sha256={},
        nonfinite_step=None,
        num_attempts=1,
        seconds=1,
        seconds_per_epoch=1,
        device="H200",
        device_kind="gpu",
        driver="550",
        tensor_float_32=True,
        threads=1,
        provenance=provenance(),
    )
    assert starts_of(run, trained) == [made_of(trained)]
    assert (made_of(trained).device, made_of(trained).driver) == ("H200", "550")
