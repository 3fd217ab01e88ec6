"""How Python is started in an image: what each runtime is told, word for word."""

import shlex
import subprocess
from pathlib import Path
from typing import Any

import pytest

from vaehpc.schema.site import SiteConfig
from vaehpc.slurm.arrays import Batch, script
from vaehpc.slurm.containers import (
    PYTHON,
    environment_lines,
    image_of,
    mount_points,
    python_command,
    srun_options,
)
from vaehpc.study.files import StudyDir
from vaehpc.study.sites import Site, resolved

IMAGES = {"image": "/images/train.sif", "analysis_image": "/images/analysis.sif"}


def site(runtime: str = "apptainer", *paths: Path | None, **more: Any) -> Site:
    chosen = SiteConfig.model_validate(
        {
            "executor": "slurm",
            "environment": {"OMP_NUM_THREADS": "1"},
            "container": {"runtime": runtime, **IMAGES, **more},
        }
    )
    return resolved(chosen, *paths)


@pytest.mark.parametrize(
    ("stage", "image"),
    [("prepare", "train"), ("train", "train")]
    + [(stage, "analysis") for stage in ("statistics", "aggregate", "verdict", "launch")],
)
def test_each_stage_has_its_image(stage: str, image: str) -> None:
    assert image_of(site().container, stage) == f"/images/{image}.sif"
    assert image_of(site(analysis_image=None).container, stage) == "/images/train.sif"


@pytest.mark.parametrize("runtime", ["apptainer", "singularity"])
def test_apptainer(runtime: str) -> None:
    found = python_command(site(runtime, binds=["/scratch", "/here:/there:ro"]), "train", gpus=1)
    assert shlex.join(found) == (
        f"{runtime} --quiet exec --cleanenv --no-home --no-mount=cwd --pwd=/ --nv --bind=/scratch"
        f" --bind=/here:/there:ro /images/train.sif {PYTHON}"
    )


@pytest.mark.parametrize(("gpu", "gpus", "option"), [("nv", 1, "--nv"), ("rocm", 2, "--rocm"), ("nv", 0, None)])
def test_only_jobs_with_gpus_are_given_their_driver(gpu: str, gpus: int, option: str | None) -> None:
    found = python_command(site(gpu=gpu), "train", gpus)
    assert [word for word in found if word in ("--nv", "--rocm")] == ([option] if option else [])


def test_podman_is_given_variables_by_name_and_binds_twice() -> None:
    found = python_command(site("podman", binds=["/scratch"]), "statistics", gpus=0)
    assert found[:2] == ["podman", "run"]
    assert found[-2:] == ["/images/analysis.sif", PYTHON]
    assert {"--read-only", "--env=OMP_NUM_THREADS", "--env=CUDA_VISIBLE_DEVICES", "--env=SLURM_ARRAY_TASK_ID"} < set(
        found
    )
    assert [word for word in found if word.startswith("--volume")] == [
        "--volume=/tmp:/tmp",
        "--volume=/scratch:/scratch",
    ]
    assert "--device=nvidia.com/gpu=all" not in found
    assert "--device=nvidia.com/gpu=all" in python_command(site("podman"), "train", gpus=1)


def test_charliecloud_loses_the_hosts_python_before_it_gets_the_images() -> None:
    found = python_command(site("charliecloud", binds=["/scratch", "/a:/b"]), "train", gpus=0)
    assert shlex.join(found) == (
        "ch-run '--unset-env=PYTHON*' '--unset-env=LD_*' --set-env --bind=/scratch:/scratch --bind=/a:/b"
        f" /images/train.sif -- {PYTHON}"
    )


def test_charliecloud_mounts_on_folders_of_the_sandbox(tmp_path: Path) -> None:
    where = site("charliecloud", image=str(tmp_path / "my image"), binds=[str(tmp_path), "/etc/passwd", "/a:/b:ro"])
    assert mount_points(where, "train") == {
        tmp_path: tmp_path / "my image" / str(tmp_path)[1:],
        Path("/etc/passwd"): tmp_path / "my image/etc/passwd",
        Path("/a"): tmp_path / "my image/b",
    }
    assert mount_points(site("apptainer", binds=["/a"]), "train") == {}
    lines = [line for line in environment_lines(where) if "my image" in line]
    subprocess.run(["/bin/sh", "-e", "-c", "\n".join(lines)], check=True)
    assert (tmp_path / "my image" / str(tmp_path)[1:]).is_dir()
    assert not (tmp_path / "my image/etc").exists()  # of files there are none to be made


def test_pyxis_is_told_through_srun() -> None:
    assert srun_options(site("pyxis", binds=["/scratch"]), "train") == [
        "--container-image=/images/train.sif",
        "--no-container-mount-home",
        "--container-readonly",
        "--container-workdir=/",
        "--container-mounts=/tmp:/tmp,/scratch:/scratch",
    ]
    assert python_command(site("pyxis"), "train", gpus=1)[-1] == PYTHON
    assert srun_options(site("apptainer"), "train") == []
    edf = site("pyxis", analysis_image="/images/analysis.toml", binds=["/scratch"])
    assert srun_options(edf, "statistics") == ["--environment=/images/analysis.toml"]


def test_study_and_data_are_bound_once_each(tmp_path: Path) -> None:
    data = tmp_path / "data"
    found = site("apptainer", tmp_path, None, data, data, binds=["/scratch", str(tmp_path)])
    assert found.binds == ("/scratch", str(tmp_path), f"{tmp_path}/data")


def after(lines: str, variables: dict[str, str], names: str) -> list[str]:
    """What these variables are after these lines of bash."""
    code = f'{lines}\nfor name in {names}; do echo "${{!name-unset}}"; done'
    done = subprocess.run(["/bin/bash", "-c", code], env=variables, capture_output=True, text=True, check=True)
    return done.stdout.splitlines()


def test_variables_reach_a_clean_environment() -> None:
    """GPUs by their commas, too; what is not set stays so, for '' says that there is none."""
    lines = "\n".join(environment_lines(site("singularity")))
    names = "OMP_NUM_THREADS SINGULARITYENV_OMP_NUM_THREADS SINGULARITYENV_CUDA_VISIBLE_DEVICES"
    assert after(lines, {"CUDA_VISIBLE_DEVICES": "0,1"}, names) == ["1", "1", "0,1"]
    assert after(lines, {"CUDA_VISIBLE_DEVICES": ""}, names) == ["1", "1", ""]
    assert after(lines, {}, names) == ["1", "1", "unset"]
    assert list(environment_lines(site("podman"))) == ["export OMP_NUM_THREADS=1"]


def test_the_batch_script_starts_the_image_of_its_stage(tmp_path: Path) -> None:
    study = StudyDir(tmp_path / "my study")
    where = site("apptainer", study.path)
    elements = ((study.path / "run-0",), (study.path / "run-1",))
    train = script(study, Batch("train-0001", "train", elements), where)
    assert f"apptainer --quiet exec --cleanenv --no-home --no-mount=cwd --pwd=/ --nv '--bind={study.path}'" in train
    assert f"/images/train.sif {PYTHON} -u -c" in train
    statistics = script(study, Batch("statistics-0001", "statistics", elements), where)
    assert f"/images/analysis.sif {PYTHON} -u -c" in statistics
    assert "--nv" not in statistics
    again = script(study, Batch("launch-0001", "launch", ((study.path,),)), where)
    assert "apptainer --quiet" not in again  # no client of Slurm is in an image
    assert "--container-image=/images/train.sif" in script(
        study, Batch("train-0001", "train", elements), site("pyxis", study.path)
    )
