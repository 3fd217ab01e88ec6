"""What is concluded from what an image says of itself; the runtime is a script that gives its answer."""

import json
import shlex
from pathlib import Path
from typing import Any

import pytest

from vaehpc import __version__
from vaehpc.checks.image import image_findings
from vaehpc.command import UserError
from vaehpc.schema.config import ImageRecord
from vaehpc.schema.site import SiteConfig
from vaehpc.slurm.images import ImageError, examined
from vaehpc.slurm.queueing import require_package
from vaehpc.study.sites import Site, resolved
from vaehpc.tasks.visit import machine_report

TRAIN = ImageRecord(target="train", revision="1a2b3c4", digest="sha256:12")
GPU_PACKAGES = {"vaehpc": f"{__version__}+g1a2b3c4", "tensorflow": "2.21.0", "nvidia-cudnn-cu12": "9.1"}
CPU_PACKAGES = {"vaehpc": __version__, "tensorflow-cpu": "2.21.0"}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """With images, a runtime that says what the file `answer` holds, and notes how it was called."""
    for name in ("train.sif", "analysis.sif"):
        (tmp_path / name).touch()
    runtime = tmp_path / "bin/apptainer"
    runtime.parent.mkdir()
    quoted = shlex.quote(str(tmp_path))
    runtime.write_text(
        f'#!/bin/sh\nset -e\necho "$*" >> {quoted}/called\necho a warning >&2\n/bin/cat {quoted}/answer\n'
    )
    runtime.chmod(0o755)
    monkeypatch.setenv("PATH", str(runtime.parent))
    return tmp_path


def answer(folder: Path, packages: dict[str, str], unmet: tuple[str, ...] = ()) -> None:
    report = machine_report((), (), tensorflow=False)
    said = report.model_copy(update={"packages": packages, "unmet": unmet, "image": TRAIN})
    (folder / "answer").write_text(f"INFO: opened\n{said.model_dump_json()}\n")


def site(folder: Path, *paths: Path, gpus: int = 1, **container: Any) -> Site:
    images = {"image": f"{folder}/train.sif", "analysis_image": f"{folder}/analysis.sif"}
    settings = {"runtime": "apptainer", **images, **container}
    chosen = {"executor": "slurm", "container": settings, "jobs": {"train": {"gpus": gpus}}}
    return resolved(SiteConfig.model_validate(chosen), *paths)


def called(folder: Path) -> list[str]:
    return (folder / "called").read_text().splitlines()


def test_good_images(folder: Path) -> None:
    answer(folder, GPU_PACKAGES)
    assert require_package(site(folder)) == "sha256:12"
    train, analysis = called(folder)
    assert train.endswith(
        f"{folder}/train.sif /opt/vaehpc/bin/python -m vaehpc.doctor --here --json --extras train-gpu"
    )
    assert analysis.endswith(
        f"{folder}/analysis.sif /opt/vaehpc/bin/python -m vaehpc.doctor --here --json --extras analysis"
    )
    assert "--nv" not in train  # a login node has no driver
    assert [finding.ok for finding in image_findings(site(folder))] == [True, True]


def test_amds_gpus_take_an_image_that_has_a_tensorflow_for_them(folder: Path) -> None:
    answer(folder, GPU_PACKAGES)
    with pytest.raises(UserError, match=r"train\.sif has no tensorflow-rocm: gpu = 'rocm' in \[container\] needs"):
        require_package(site(folder, gpu="rocm"))
    answer(folder, {"vaehpc": __version__, "tensorflow-rocm": "2.21.0"})
    assert require_package(site(folder, gpu="rocm")) == "sha256:12"


def test_a_site_without_images_is_not_asked(folder: Path) -> None:
    assert image_findings(site(folder, runtime="none")) == []
    assert require_package(site(folder, runtime="none")) is None
    assert not (folder / "called").exists()


def test_only_a_node_can_open_an_image_of_pyxis(folder: Path) -> None:
    assert [finding.ok for finding in image_findings(site(folder, runtime="pyxis"))] == [None, None]
    assert require_package(site(folder, runtime="pyxis")) is None


def test_an_image_for_processors_where_trainings_ask_for_gpus(folder: Path) -> None:
    answer(folder, CPU_PACKAGES, unmet=("tensorflow[and-cuda]==2.21.* is not installed",))
    with pytest.raises(ImageError, match=r"no GPU libraries \(tensorflow-cpu\), and a training asks for 1 GPU"):
        examined(site(folder), "train")
    answer(folder, CPU_PACKAGES)
    assert examined(site(folder, gpus=0), "train").image == TRAIN
    assert called(folder)[-1].endswith("--extras train-gpu train-cpu")


def test_tensorflow_without_its_cuda_packages(folder: Path) -> None:
    answer(folder, GPU_PACKAGES | {"nvidia-cudnn-cu12": "9"})
    examined(site(folder), "train")
    answer(folder, {name: version for name, version in GPU_PACKAGES.items() if "nvidia" not in name})
    with pytest.raises(ImageError, match=r"no GPU libraries \(no nvidia-cudnn-cu12\)"):
        examined(site(folder), "train")


def test_an_image_that_lacks_packages(folder: Path) -> None:
    answer(folder, CPU_PACKAGES, unmet=("scipy>=1.15 is not installed",))
    with pytest.raises(
        ImageError, match=r"analysis_image .* lacks what statistics needs: scipy>=1.15 is not installed"
    ):
        examined(site(folder), "statistics")


def test_another_version_whatever_else_it_says(folder: Path) -> None:
    (folder / "answer").write_text(json.dumps({"packages": {"vaehpc": "9.9.9+gabc"}, "new": 1}))
    with pytest.raises(UserError, match=r"has vaehpc 9\.9\.9\+gabc; this is .*Nothing was submitted"):
        require_package(site(folder))


def test_an_image_that_cannot_be_opened(folder: Path) -> None:
    with pytest.raises(ImageError, match=r"cannot be opened, or has no usable vaehpc .*answer: No such file"):
        examined(site(folder), "train")
    (folder / "answer").write_text("Singularity> \n")
    with pytest.raises(ImageError, match=r"no usable vaehpc \(a warning\)"):
        examined(site(folder), "train")


def test_what_is_not_there(folder: Path) -> None:
    with pytest.raises(ImageError, match=r"analysis_image /nowhere/a\.sif does not exist"):
        examined(site(folder, analysis_image="/nowhere/a.sif"), "statistics")
    with pytest.raises(ImageError, match="/scratch-of-nobody, which is to be seen in the image, does not exist here"):
        examined(site(folder, binds=["/scratch-of-nobody:/scratch:ro"]), "train")
    with pytest.raises(ImageError, match="singularity is not on this machine"):
        examined(site(folder, runtime="singularity"), "train")
    assert not (folder / "called").exists()


def test_of_a_launchs_paths_only_those_that_are_there_are_looked_at(folder: Path) -> None:
    """Its study and its data may be still to be made; tasks see them all."""
    answer(folder, GPU_PACKAGES)
    (folder / "celeba").mkdir()
    where = site(folder, folder / "runs/new", folder / "celeba")
    assert where.binds == (f"{folder}/runs/new", f"{folder}/celeba")
    examined(where, "train")
    assert [word for word in called(folder)[0].split() if "bind" in word] == [f"--bind={folder}/celeba"]


def test_mount_points_of_charliecloud(folder: Path) -> None:
    (folder / "train.dir").mkdir()
    (folder / "bin/apptainer").rename(folder / "bin/ch-run")
    answer(folder, CPU_PACKAGES)
    where = site(folder, gpus=0, runtime="charliecloud", image=f"{folder}/train.dir", binds=[str(folder)])
    examined(where, "train")
    assert (folder / "train.dir" / str(folder)[1:]).is_dir()
    (folder / "train.dir/here").touch()  # in the way
    with pytest.raises(ImageError, match=r"has no folder on which .* can be mounted"):
        examined(
            site(folder, gpus=0, runtime="charliecloud", image=f"{folder}/train.dir", binds=[f"{folder}:/here"]),
            "train",
        )
