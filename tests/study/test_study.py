"""A study on disk: widened, refused with the difference, never half made."""

import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import pytest
from rich.console import Console

from tests.examples import arm_config, data_config, run_config
from vaehpc.command import UserError
from vaehpc.local import stages
from vaehpc.local.pool import Task
from vaehpc.local.stages import run_stage
from vaehpc.schema.config import ArmConfig, DataConfig, ForkConfig, SpikeConfig, StudyConfig, control_of
from vaehpc.schema.site import Device
from vaehpc.study.files import StudyDir
from vaehpc.study.study import (
    create_study,
    differences,
    expected_bytes,
    missing_runs,
    planned_study,
    require_sources,
    widened,
)


def study(*arms: str, num_seeds: int = 2, epochs: int = 2, data: DataConfig | None = None) -> StudyConfig:
    configured = {arm: arm_config(arm.split("-")[0], arm, train={"epochs": epochs}) for arm in arms}
    return planned_study("small", "demo", data or data_config(), configured, range(num_seeds))


def test_runs_are_arms_times_seeds_with_names_from_the_settings() -> None:
    assert [run.name for run in study("ae", "vae-tiny").runs()] == [
        "ae-seed000",
        "ae-seed001",
        "vae-tiny-seed000",
        "vae-tiny-seed001",
    ]


def test_arms_and_seeds_grow_and_nothing_is_lost() -> None:
    wider = widened(study("ae", "vae-tiny", num_seeds=3), study("vae-tiny", "vae-eps5", num_seeds=4))
    assert wider.seeds == {"ae": (0, 1, 2), "vae-tiny": (0, 1, 2, 3), "vae-eps5": (0, 1, 2, 3)}
    assert widened(wider, study("ae", num_seeds=1)).seeds == wider.seeds


def test_what_was_launched_first_is_remembered() -> None:
    first = study("ae", num_seeds=3)
    wider = widened(first, study("ae", "vae-tiny", num_seeds=4))
    assert first.first_seeds == wider.first_seeds == {"ae": (0, 1, 2)}


def test_an_arm_with_other_settings_is_refused() -> None:
    with pytest.raises(UserError, match=r"ae\.train\.epochs: it has 2, asked for 3") as refused:
        widened(study("ae"), study("ae", epochs=3))
    assert "--study NAME" in str(refused.value)


def test_other_data_are_refused_but_may_lie_elsewhere() -> None:
    other = data_config().model_copy(update={"sha256": "1" * 64})
    with pytest.raises(UserError, match=r"study\.data\.sha256: it has 000"):
        widened(study("ae"), study("ae", data=other))
    moved = data_config(Path("/elsewhere"))
    assert widened(study("ae"), study("ae", data=moved)).data.path == "/elsewhere"


def test_runs_follow_a_data_set_that_was_moved(tmp_path: Path) -> None:
    folder = StudyDir(tmp_path / "small")
    create_study(folder, study("ae"))
    create_study(folder, widened(folder.config(), study("ae", data=data_config(Path("/elsewhere")))))
    assert folder.run("ae-seed000").config().data.path == "/elsewhere"


def test_a_study_keeps_its_own_plan() -> None:
    config = study("ae")
    of_study = config.plan.model_copy(update={"level": 0.9})
    kept = config.model_copy(update={"plan": of_study, "plan_text": "level = 0.9", "plan_sha256": "0" * 64})
    wider = widened(kept, study("ae", num_seeds=3))
    assert (wider.plan, wider.plan_text, wider.plan_sha256) == (of_study, "level = 0.9", "0" * 64)
    assert wider.seeds == {"ae": (0, 1, 2)}


def test_missing_runs_come_seed_by_seed(tmp_path: Path) -> None:
    config, folder = study("ae", "vae-tiny"), StudyDir(tmp_path / "small")
    create_study(folder, config)
    (folder.path / "ae-seed000" / "trained.json").touch()
    left = [run.name for run in missing_runs(folder, config, "trained.json")]
    assert left == ["vae-tiny-seed000", "ae-seed001", "vae-tiny-seed001"]


def test_a_study_that_the_disk_will_not_hold_is_not_begun(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Usage(NamedTuple):
        free: int = 1_000_000

    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage())
    with pytest.raises(UserError, match=r"needs .* MB in 120 files, 1\.0 MB free"):
        create_study(StudyDir(tmp_path / "small"), study("ae", "vae-tiny"))
    assert list(tmp_path.iterdir()) == []


def test_a_full_size_vae_takes_half_a_gigabyte_of_latents() -> None:
    run = run_config(image_size=96, num_train=170_000, model={"z_dim": 256, "filters": (32, 64, 128, 256)})
    latents = 3 * 4 * 170_000 * 256
    assert latents < expected_bytes(run) < 2 * latents


# How arms differ


def changed(arm: ArmConfig, **changes: object) -> ArmConfig:
    return arm.model_copy(update=changes)


def test_differences_are_the_settings_in_which_arms_differ() -> None:
    ae, vae = arm_config("ae"), arm_config("vae")
    limited = arm_config("vae", "limited", train={"epochs": 3})
    limited = changed(limited, vae=limited.vae.model_copy(update={"epsilon_limit": 5.0}))
    assert differences({"ae": ae}) == {}
    assert differences({"ae": ae, "vae": vae}) == {"kind": {"ae": "ae", "vae": "vae"}}
    assert differences({"ae": ae, "vae": vae, "limited": limited}) == {
        "kind": {"ae": "ae", "vae": "vae", "limited": "vae"},
        "train.epochs": {"ae": 2, "vae": 2, "limited": 3},
        "vae.epsilon_limit": {"vae": None, "limited": 5.0},
    }


def test_controls_are_named_or_none() -> None:
    arms = {"ae": arm_config("ae"), "vae": arm_config("vae"), "longer": arm_config("vae", train={"epochs": 3})}
    assert {name: control_of(arm, arms) for name, arm in arms.items()} == {"ae": "ae", "vae": "ae", "longer": None}


def test_a_plan_may_name_a_control_that_clips() -> None:
    clipped = arm_config("ae", "ae-clip", train={"clipnorm": 100.0})
    arms = {"ae": arm_config("ae"), "ae-clip": clipped, "vae": arm_config("vae")}
    assert [control_of(arm, arms) for arm in arms.values()] == ["ae", "ae", "ae"]
    assert [control_of(arm, arms, "ae-clip") for arm in arms.values()] == ["ae-clip"] * 3
    longer = arm_config("vae", train={"epochs": 3})
    assert control_of(longer, {**arms, "longer": longer}, "ae-clip") is None


# What an arm needs


def warm_study(num_seeds: int = 2, **changes: object) -> StudyConfig:
    """An AE, and a VAE that starts from its trained weights."""
    arms = {"warm": changed(arm_config("vae", "warm"), start_from="ae"), "ae": changed(arm_config("ae"), **changes)}
    return planned_study("small", "demo", data_config(), arms, range(num_seeds))


def test_a_source_that_cannot_be_is_refused() -> None:
    require_sources(warm_study().arms)
    with pytest.raises(UserError, match="'ae', which is not in the study: add it to --arms"):
        require_sources({"warm": warm_study().arms["warm"]})
    for wrong in (
        {"vae": arm_config("vae").vae},
        {"start_from": "ae"},
        {"model": run_config(model={"z_dim": 4}).arm.model},
    ):
        with pytest.raises(UserError, match=r"takes an AE with the same \[model\]"):
            require_sources(warm_study(**wrong).arms)


def test_a_source_needs_the_same_seeds(tmp_path: Path) -> None:
    config = warm_study()
    fewer = config.model_copy(update={"seeds": {"warm": (0, 1), "ae": (0,)}})
    with pytest.raises(UserError, match="run warm-seed001 starts from the trained weights of ae-seed001"):
        create_study(StudyDir(tmp_path / "small"), fewer)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("steps_before_end", "possible"), [(6, True), (7, False)])
def test_a_spike_lies_within_the_training(tmp_path: Path, steps_before_end: int, possible: bool) -> None:
    spike = SpikeConfig(kind="gradient", strength=10.0, steps_before_end=steps_before_end)
    arms = {"spiked": changed(arm_config("vae", "spiked"), spike=spike)}  # 2 epochs of 3 steps
    config, folder = planned_study("small", "demo", data_config(), arms, range(1)), StudyDir(tmp_path / "small")
    if possible:
        create_study(folder, config)
    else:
        with pytest.raises(UserError, match="7 steps before the end, but trains only 6"):
            create_study(folder, config)
    assert folder.path.exists() == possible


# Waves


def waves(monkeypatch: pytest.MonkeyPatch, folder: StudyDir, config: StudyConfig, failing: str = "") -> list[list[str]]:
    """The runs that are trained, wave by wave, by a task that only leaves the marker, or fails for one run."""
    started: list[list[str]] = []

    def train(tasks: Sequence[Task], _: object) -> None:
        started.append([Path(task.directory).name for task in tasks])
        for task in tasks:
            if Path(task.directory).name != failing:
                (Path(task.directory) / "trained.json").touch()

    monkeypatch.setattr(stages, "run_debug", train)
    run_stage("train", folder, config, "debug", Console())
    return started


def test_runs_that_start_from_others_wait_for_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config, folder = warm_study(), StudyDir(tmp_path / "small")
    create_study(folder, config)
    assert waves(monkeypatch, folder, config) == [["ae-seed000", "ae-seed001"], ["warm-seed000", "warm-seed001"]]
    (folder.run("warm-seed001").trained_path).unlink()
    assert waves(monkeypatch, folder, config) == [["warm-seed001"]]
    assert waves(monkeypatch, folder, config) == []


@pytest.mark.parametrize(
    ("gpus", "stage", "device", "num_seeds", "slots"),
    [
        ("0,1", "train", None, 6, ["0", "1"] * 3),
        ("0,1", "train", None, 3, ["0", "1"]),
        ("0,1", "train", "cpu", 6, [""] * 4),
        ("", "train", None, 6, [""] * 4),
        ("0,1", "statistics", None, 6, [""] * 4),
    ],
)
def test_runs_share_a_gpu_of_this_machine_as_was_measured(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    gpus: str,
    stage: str,
    device: Device | None,
    num_seeds: int,
    slots: list[str],
) -> None:
    config = planned_study("small", "demo", data_config(), {"ae": arm_config("ae")}, range(num_seeds))
    folder = StudyDir(tmp_path / "small")
    create_study(folder, config)
    for run in config.runs():
        if stage == "statistics":
            folder.run(run.name).trained_path.touch()
    given: list[list[str | None]] = []
    monkeypatch.setattr("vaehpc.local.pool.processors", lambda: 4)
    monkeypatch.setattr("vaehpc.local.pool.available_memory", lambda: 64 * 2**30)
    monkeypatch.setattr("vaehpc.study.sites.tensorflow_uses_gpus", lambda: True)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", gpus)
    monkeypatch.setattr(stages, "runs_at_once", lambda _, most, gpu: {(3, "0"): 3}[most, gpu])
    monkeypatch.setattr(stages, "run_pool", lambda _, slots, *__: given.append([slot.gpu for slot in slots]))
    run_stage(stage, folder, config, "local", Console(), device=device)
    assert given == [slots]


@pytest.mark.parametrize(
    ("stage", "preloaded"), [("train", None), ("statistics", "vaehpc.tasks.statistics vaehpc.tasks.aggregate")]
)
def test_where_nothing_is_trained_no_tensorflow_is_imported_beforehand(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stage: str, preloaded: str | None
) -> None:
    config = planned_study("small", "demo", data_config(), {"ae": arm_config("ae")}, range(1))
    folder, given = StudyDir(tmp_path / "small"), list[str | None]()
    create_study(folder, config)
    if stage == "statistics":
        folder.run("ae-seed000").trained_path.touch()
    monkeypatch.setattr(stages, "run_pool", lambda *_: given.append(os.environ.get("VAEHPC_PRELOADED")))
    run_stage(stage, folder, config, "local", Console())
    assert given == [preloaded]


def test_a_run_whose_source_failed_is_said_and_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    config, folder = warm_study(), StudyDir(tmp_path / "small")
    create_study(folder, config)
    assert waves(monkeypatch, folder, config, failing="ae-seed001") == [["ae-seed000", "ae-seed001"], ["warm-seed000"]]
    assert (
        "warm-seed001 is left out, for ae-seed001, whose weights it starts from, is missing" in capsys.readouterr().out
    )


def test_a_fork_starts_from_a_checkpoint_whatever_its_arm_started_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fork = ForkConfig(source="small/warm-seed000", seed=0, checkpoint="/nowhere", step=1, until_step=3)
    arms = {"fork": changed(arm_config("vae", "fork"), start_from="ae", fork=fork)}
    config, folder = planned_study("small", "demo", data_config(), arms, range(1)), StudyDir(tmp_path / "small")
    create_study(folder, config)
    assert waves(monkeypatch, folder, config) == [["fork-seed000"]]
