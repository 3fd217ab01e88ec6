"""A study on disk: widened, refused with the difference, never half made."""

import shutil
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.examples import arm_config, data_config, run_config
from vaehpc.config import DataConfig, StudyConfig
from vaehpc.files import StudyDir, UserError
from vaehpc.study import create_study, expected_bytes, missing_runs, planned_study, widened


def study(*arms: str, num_seeds: int = 2, epochs: int = 2, data: DataConfig | None = None) -> StudyConfig:
    configured = {arm: arm_config(arm.split("-")[0], arm, train={"epochs": epochs}) for arm in arms}
    return planned_study("small", "demo", data or data_config(), configured, num_seeds)


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


def test_another_plan_is_refused() -> None:
    config = study("ae")
    plan = config.plan.model_copy(update={"level": 0.9})
    with pytest.raises(UserError, match=r"study\.plan\.level: it has 0\.95, asked for 0\.9"):
        widened(config, config.model_copy(update={"plan": plan}))


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
