"""A study outlives the code: what older releases left is read, widened, replayed and reported."""

import json
import math
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.studies.make import LAUNCH, MOST_BYTES, WHOLE
from tests.studies.unpacked import ARCHIVES, edit, unpacked
from vaehpc import explain, launch, replay, report, status
from vaehpc.command import UserError
from vaehpc.schema import upgrades
from vaehpc.schema.config import DataConfig
from vaehpc.schema.plan import text_sha256
from vaehpc.schema.results import DimensionStatistics, PairedEffect, Spread, StudySummary, TrainedRecord
from vaehpc.schema.upgrades import UPGRADES, guessed_kind, lifted, schema_number
from vaehpc.stats.summary import summarise
from vaehpc.study.files import StudyDir, parsed_record, read_model, record_text, write_model
from vaehpc.study.provenance import code_version
from vaehpc.tasks.aggregate import measure_pairs, read_reference
from vaehpc.tasks.found import read_run

RELEASES = sorted(ARCHIVES)
RUNS = ["ae-seed000", "ae-seed001", "vae-spike-seed000", WHOLE]


@pytest.fixture(params=RELEASES)
def old(request: pytest.FixtureRequest, tmp_path: Path) -> StudyDir:
    return unpacked(request.param, tmp_path)


@pytest.fixture
def first(tmp_path: Path) -> StudyDir:
    """Of 0.1.0."""
    return unpacked("0.1.0", tmp_path)


def summed_up(study: StudyDir) -> StudySummary:
    """As the report sums up, without pages."""
    config = study.config()
    runs = [read_run(study.run(run.name), run) for run in config.runs()]
    return summarise(config, runs, read_reference(), measure_pairs(study, config, runs))


def numbers(summary: StudySummary) -> dict[str, Any]:
    """What a summary of any release says of runs and arms, as JSON: NaN does not equal itself."""
    known = {"arm", "seed", "class", "radius_median", "radius_mode", "reconstruction_loss", "kl_loss", "cloud"}
    runs = json.loads(summary.model_dump_json(include={"runs"}))["runs"]
    for name, run in runs.items():
        runs[name] = {key: run[key] for key in known}
        runs[name]["cloud"] = {key: value for key, value in run["cloud"].items() if value is not None}
    arms = {name: (arm.num_runs, arm.num_missing, arm.num_diverged) for name, arm in summary.arms.items()}
    return {"runs": runs, "arms": arms}


# What is there


@pytest.mark.parametrize("release", RELEASES)
def test_the_archive_is_small_and_names_no_machine(release: str, tmp_path: Path) -> None:
    assert ARCHIVES[release].stat().st_size <= MOST_BYTES
    for path in unpacked(release, tmp_path).path.rglob("*.json"):
        text = path.read_text().replace(str(tmp_path), "")
        assert not re.search(r'"/(tmp|home|root|work)', text), path
        assert not path.match("start.json") or '"node1"' in text


def test_every_record_is_read_and_nothing_was_changed_since_the_launch(old: StudyDir) -> None:
    before = old.summary()
    after = summed_up(old)
    assert after.deviations == ()
    assert "course.jump_factor = 1.5" in after.plan_defaults
    assert before.contrasts == ()  # by other rules
    assert after.reclassed is not None
    assert numbers(after) == numbers(before)
    assert [run.name for run in old.config().runs()] == RUNS
    assert len(old.run(WHOLE).trigger_records()) == 1
    assert len(old.run(WHOLE).history()) == 80


def test_what_0_1_0_did_not_know_is_guessed_once_and_marked(first: StudyDir) -> None:
    trained = first.run(WHOLE).trained()
    assert (trained.device_kind, trained.device_kind_is_guessed) == ("cpu", True)
    assert (trained.driver, trained.capability, trained.provenance.sources) == (None, None, None)
    config = first.config()
    assert text_sha256(config.plan_text) == config.plan_sha256  # the text that 0.1.0 hashed: its values
    assert first.run(WHOLE).config().plan_sha256 == config.plan_sha256
    best = first.summary().runs[WHOLE].model_extra
    assert best is not None and isinstance(best["best_attribute"], str)


@pytest.mark.parametrize(
    ("kind", "capability", "had_it"),
    [("cpu", None, False), ("gpu", "9.0", True), ("gpu", "7.0", False), ("gpu", None, True)],
)
def test_before_0_3_0_float32_was_tf32_where_a_gpu_has_it(kind: str, capability: str | None, had_it: bool) -> None:
    stored = {"schema": 2, "device_kind": kind, "capability": capability}
    assert lifted(TrainedRecord, stored)["tensor_float_32"] is had_it


@pytest.mark.parametrize(
    ("device", "kind"),
    [
        ("AMD Ryzen 7 7840U w/ Radeon 780M Graphics", "cpu"),
        ("AMD Ryzen 7 5700G with Radeon Graphics", "cpu"),
        ("Intel(R) Xeon(R) Gold 6130 CPU @ 2.10GHz", "cpu"),
        ("AMD EPYC 7763 64-Core Processor", "cpu"),
        ("aarch64", "cpu"),
        ("NVIDIA H200", "gpu"),
        ("Tesla V100-SXM2-32GB", "gpu"),
        ("AMD Radeon RX 7900 XTX", "gpu"),
        ("AMD Instinct MI250X", "gpu"),
    ],
)
def test_a_device_is_guessed_by_its_name(device: str, kind: str) -> None:
    assert guessed_kind(device) == kind


def test_status_explain_and_replay_read_it(old: StudyDir, capsys: pytest.CaptureFixture[str]) -> None:
    assert status.main([str(old.path)]) == 0
    said = capsys.readouterr().out
    assert "old: 4 of 4 trained, 4 done" in said
    assert re.search(rf"{WHOLE} +done .* diverged$", said, re.MULTILINE)  # the class is in summary.json
    assert explain.main([str(old.path), "--run", WHOLE]) == 0
    assert "this arm raised one log_var of one image by 30 at step 340" in capsys.readouterr().out
    assert replay.main([str(old.path), "--run", WHOLE, "--trigger", "1", "--dry-run"]) == 2  # by this release's rules
    said = capsys.readouterr().err
    assert f"run {WHOLE} neither jumped nor became NaN within 200 steps after trigger 1; it had no event" in said


def again(study: StudyDir, *arguments: str) -> list[str]:
    """The line that made the study, with these changes."""
    (study.path.parents[1] / "arms.toml").write_text(
        '[vae-spike]\nbase = "vae-tiny"\n[vae-spike.spike]\nkind = "log_var"\nstrength = 30.0\nsteps_before_end = 60\n'
    )
    return [*LAUNCH.split(), *arguments]


def test_launch_says_that_the_code_is_another(
    first: StudyDir, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(first.path.parents[1])
    assert launch.main(again(first, "--seeds", "3", "--dry-run")) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert f"Code: vaehpc {code_version()}." in said
    assert f"What is trained from now on is made by {code_version()}" in said
    assert "the runs that are there by 0.1.0+g90a7103343c4" in said
    assert "keeps the analysis plan" not in said
    edit(first.config_path, lambda value: value["plan"].update(level=0.9))
    assert launch.main(again(first, "--dry-run")) == 0
    assert "The study keeps the analysis plan of its first launch" in " ".join(capsys.readouterr().out.split())


# Trials: what the next releases may change


def later(monkeypatch: pytest.MonkeyPatch, model: str, step: upgrades.Step) -> None:
    """A release after this one, which lifts the records of a model that this one writes."""
    monkeypatch.setitem(UPGRADES, model, (*UPGRADES.get(model, ()), step))


def stamped(study: StudyDir) -> None:
    """Let every result say the schema that this release writes."""
    for run in map(study.run, RUNS):
        write_model(run.statistics_path, run.statistics())
        write_model(run.trained_path, run.trained())


def test_a_renamed_field_is_lifted(first: StudyDir, monkeypatch: pytest.MonkeyPatch) -> None:
    before = summed_up(first)
    stamped(first)

    def rename(value: dict[str, Any]) -> dict[str, Any]:
        return {"offset" if key == "distance_of_the_mean" else key: of for key, of in value.items()}

    for run in map(first.run, RUNS):
        edit(run.statistics_path, lambda value: value.update(distance_of_the_mean=value.pop("offset")))
    with pytest.raises(UserError, match="offset: Field required"):
        first.run(WHOLE).statistics()
    later(monkeypatch, "LatentStatistics", rename)
    assert numbers(summed_up(first)) == numbers(before)


def test_a_changed_value_is_lifted_once(first: StudyDir, monkeypatch: pytest.MonkeyPatch) -> None:
    before = summed_up(first)
    stamped(first)
    seconds = [first.run(run).trained().seconds_per_epoch for run in RUNS]
    for run in map(first.run, RUNS):
        edit(run.trained_path, lambda value: value.update(seconds_per_epoch=1000 * value["seconds_per_epoch"]))
    later(monkeypatch, "TrainedRecord", lambda value: {**value, "seconds_per_epoch": value["seconds_per_epoch"] / 1000})
    assert [first.run(run).trained().seconds_per_epoch for run in RUNS] == pytest.approx(seconds)
    stamped(first)  # written by that release, and read by it again
    assert [first.run(run).trained().seconds_per_epoch for run in RUNS] == pytest.approx(seconds)
    assert numbers(summed_up(first)) == numbers(before)


def test_a_field_that_went_is_read_and_kept(first: StudyDir) -> None:
    run = first.run(WHOLE)
    stored = json.loads(run.statistics_path.read_text())
    assert {"kurtosis_z", "correlation_rms"} <= {*stored["gaussian"], *stored["gaussian"]["mardia"]}
    assert "distance" in stored["dimension"] and "kernel_rms" in stored["heads"]["mu"]
    assert "distance" not in DimensionStatistics.model_fields
    write_model(run.statistics_path, run.statistics())
    found = json.loads(run.statistics_path.read_text())
    assert found["schema"] == schema_number(type(run.statistics()))
    assert {key: found[key] for key in stored if key != "schema"} == {k: v for k, v in stored.items() if k != "schema"}
    effect = dict.fromkeys(PairedEffect.model_fields, 1) | {"null_pairs": 3}  # no pair of this study was compared
    found = json.loads(record_text(parsed_record(json.dumps(effect), PairedEffect)))
    assert found == {"schema": 1, "crc32": found["crc32"], **effect}


def test_a_limit_that_an_older_plan_lacks_takes_the_default_and_is_told(first: StudyDir) -> None:
    before = summed_up(first)
    for path in (first.config_path, *(first.run(run).config_path for run in RUNS)):
        edit(path, lambda value: value["plan"]["contrasts"].pop("looks"))
    text = json.dumps(json.loads(first.config_path.read_text())["plan"], separators=(",", ":"))
    older = text_sha256(text)
    edit(first.config_path, lambda value: value.update(plan_sha256=older))
    for run in map(first.run, RUNS):
        edit(run.statistics_path, lambda value: value.update(plan_sha256=older))
    after = summed_up(first)
    assert after.deviations == ()
    assert {*after.plan_defaults} == {*before.plan_defaults, "contrasts.looks = ()"}
    assert numbers(after) == numbers(before)
    write_model(first.config_path, first.config())  # as a launch does that widens it
    assert (summed_up(first).deviations, summed_up(first).plan_defaults) == ((), after.plan_defaults)


def test_a_plan_that_was_edited_is_told(first: StudyDir) -> None:
    edit(first.config_path, lambda value: value["plan"].update(level=0.9))
    (said,) = summed_up(first).deviations
    assert said == "the analysis plan in study.json is not the one that was hashed at the launch"


# Records


def test_settings_are_strict_and_a_later_schema_is_refused(first: StudyDir) -> None:
    edit(first.config_path, lambda value: value["arms"]["ae"]["train"].update(momentum=0.9))
    with pytest.raises(UserError, match=r"has no setting arms\.ae\.train\.momentum"):
        first.config()
    run = first.run(WHOLE)
    edit(run.trained_path, lambda value: value.update(schema=99))
    with pytest.raises(UserError, match=r"written by a later release .* has schema 99 of TrainedRecord, .* knows 1 to"):
        run.trained()


def test_a_result_that_is_made_here_may_have_no_unknown_field() -> None:
    with pytest.raises(TypeError, match="Spread has no mean"):
        Spread(min=0, median=1, max=2, mean=1)  # type: ignore[call-arg]
    kept = parsed_record('{"min":0,"median":"NaN","max":2,"mean":1}', Spread)
    assert math.isnan(kept.median)
    assert record_text(kept) == '{"schema":1,"crc32":"ac0dbc2a","min":0.0,"median":"NaN","max":2.0,"mean":1}'


def test_a_record_that_was_lifted_is_written_with_its_number(first: StudyDir) -> None:
    run = first.run(WHOLE)
    write_model(run.trained_path, run.trained())
    assert json.loads(run.trained_path.read_text())["schema"] == schema_number(TrainedRecord) == 3
    assert read_model(run.trained_path, TrainedRecord).device_kind_is_guessed


def test_the_table_has_every_schema() -> None:
    table = Path(upgrades.__file__).with_name("README.md").read_text()
    rows = re.findall(r"^\| `(\w+)` \| [^|]+ \| (\d+) \|", table, re.MULTILINE)
    package = Path(upgrades.__file__).parents[1]
    source = "\n".join(path.read_text() for path in package.rglob("*.py"))
    read = set(re.findall(r"(?:read_model|parsed_record)\(.*, ([A-Z]\w+)\)", source))
    numbers = {name: 1 + len(UPGRADES.get(name, ())) for name in read}
    assert {name: int(number) for name, number in rows} == numbers | {"Attempt": upgrades.ATTEMPT_SCHEMA}
    assert numbers.keys() >= UPGRADES.keys()


# Whole commands, which train


def ran(folder: Path, *line: str, path: Path) -> str:
    """What a command of the code in this folder says."""
    environment = {"PATH": "/usr/bin:/bin", "CUDA_VISIBLE_DEVICES": "", "COLUMNS": "500", "HOME": str(folder)}
    environment["PYTHONPATH"] = str(path)
    command = [sys.executable, "-m", *line]
    ended = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return ended.stdout


@pytest.mark.slow
def test_it_is_reported_widened_and_replayed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    study = unpacked("0.1.0", tmp_path, here=True)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "500")
    before = study.summary()
    assert report.main(["runs/old"]) == 0
    assert study.summary().deviations == ()
    assert numbers(study.summary()) == numbers(before)
    assert "all as planned before the first launch" in study.report.read_text()

    capsys.readouterr()
    assert launch.main(again(study, "--seeds", "3")) == 0
    said = capsys.readouterr().out
    assert f"is made by {code_version()}; the runs that are there by 0.1.0+g90a7103343c4" in said
    assert study.summary().deviations == (
        f"seed 2 of ae by {code_version()}, of 3",
        f"seed 2 of vae-spike by {code_version()}, of 3",
        "1 of 3 seeds of ae were added after the first launch",
        "1 of 3 seeds of vae-spike were added after the first launch",
    )
    widened = study.summary().runs
    assert {name: widened[name].radius_median for name in RUNS} == {
        name: run.radius_median for name, run in before.runs.items()
    }
    assert (study.config().plan_sha256, study.config().provenance) == (before.plan_sha256, before.provenance)

    assert explain.main(["runs/old", "--run", WHOLE, "--stability"]) == 0
    said = capsys.readouterr().out
    assert re.search(r"Of \d+ kept states? \d+ had a sharpness beyond its limit", said), said  # each of them is read


@pytest.mark.slow
def test_another_code_between_two_launches_is_said_and_named(faces: DataConfig, tmp_path: Path) -> None:
    checkout = tmp_path / "checkout"
    root = Path(upgrades.__file__).parents[2]
    for name in ("vaehpc", "analysis", "jobs"):
        shutil.copytree(root / name, checkout / name, ignore=shutil.ignore_patterns("__pycache__"))
    git = ["git", "-C", str(checkout), "-c", "user.name=a", "-c", "user.email=a@b"]
    for step in (["init", "-q"], ["add", "."], ["commit", "-q", "-m", "first"]):
        subprocess.run([*git, *step], check=True)
    settings = "--model.filters 4 4 8 8 --model.z-dim 8 --train.epochs 2 --train.batch-size 16 --executor local"
    line = ["vaehpc.launch", "--study", "s", "--data", faces.path, *settings.split(), "--arms", "ae", "--seeds"]
    (first,) = re.findall(r"Code: vaehpc (\S+)\.\n", ran(tmp_path, *line, "1", path=checkout))
    losses = checkout / "vaehpc" / "training" / "losses.py"
    whole = "    cross_entropy = tf.nn.softplus(logits) - images * logits\n"
    assert whole in losses.read_text()
    losses.write_text(losses.read_text().replace(whole, whole.replace("= ", "= 0.5 * (").replace("\n", ")\n")))
    said = ran(tmp_path, *line, "2", path=checkout)
    (second,) = re.findall(r"Code: vaehpc (\S+)\.\n", said)
    assert re.fullmatch(re.escape(first) + r"\.dirty\.[0-9a-f]{8}", second)
    assert f"is made by {second}; the runs that are there by {first}." in said
    study = StudyDir(tmp_path / "runs" / "s")
    assert f"seed 1 of ae by {second}, of 2" in study.summary().deviations
    assert f"seed 1 of ae by {second}, of 2" in study.report.read_text()
    assert study.run("ae-seed001").history()[0].reconstruction_loss == pytest.approx(
        study.run("ae-seed000").history()[0].reconstruction_loss / 2, rel=0.1
    )
