"""Looks into the images of a site, on the machine that launches: are they there, and do they have what stages need?"""

from __future__ import annotations

import json
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

from vaehpc import __version__
from vaehpc.slurm.containers import TRAIN_STAGES, host_path, image_of, mount_points, python_command
from vaehpc.study.packages import ANALYSIS_EXTRAS, TRAIN_EXTRAS, released
from vaehpc.study.provenance import own_image
from vaehpc.study.sites import Site
from vaehpc.tasks.visit import MachineReport

STAGES = ("train", "statistics")
"""One that needs the train image and one that needs the other."""
START_SECONDS = 300.0
"""A SIF on a busy file system may have to be opened first."""
CUDA_LIBRARY = "nvidia-cudnn-cu12"
ROCM_PACKAGE = "tensorflow-rocm"
NO_ROCM = (
    "needs an image that has tensorflow-rocm and can be looked into from here, and there is no lock for one: take"
    ' NVIDIA\'s GPUs, or give device = "cpu" in [jobs.train]'
)
BUILD = "containers/README.md says how it is built"


class ImageError(Exception):
    """An image of the site, or what is bound into it, will not do."""

    def __init__(self, found: str, remedy: str) -> None:
        super().__init__(f"{found}: {remedy}")
        self.found = found
        self.remedy = remedy


def can_look(site: Site) -> bool:
    """Whether images can be opened from here: not from inside of one, and pyxis opens them on nodes alone."""
    return own_image() is None and site.container.runtime not in ("pyxis", "none")


def examined(site: Site, stage: str) -> MachineReport:
    """What the image of a stage has.

    Raises:
        ImageError: it is not there, cannot be opened, has another version or not all that the stage needs; or
            something that is to be bound into it is not there.
    """
    site = replace(site, paths=tuple(path for path in site.paths if path.exists()))  # others are still to be made
    container, gpus = site.container, site.jobs[stage].needed_gpus
    which = "image" if stage in TRAIN_STAGES or container.analysis_image is None else "analysis_image"
    image = image_of(container, stage)
    if image.startswith("/") and not Path(image).exists():
        raise ImageError(
            f"{which} {image} does not exist", f"correct {which} in [container] of the site's file; {BUILD}"
        )
    for bind in site.binds:
        if not Path(host_path(bind)).exists():
            raise ImageError(
                f"{host_path(bind)}, which is to be seen in the image, does not exist here",
                "correct binds in [container] of the site's file, or make it",
            )
    for source, point in mount_points(site, stage).items():
        if source.is_dir():
            try:
                point.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise ImageError(
                    f"{which} {image} has no folder on which {source} can be mounted ({error.strerror})",
                    f"whoever owns the image: mkdir -p {point}",
                ) from None
    # The GPU's libraries are looked at below: a login node has no driver.
    needs_gpu = stage in TRAIN_STAGES and gpus > 0
    if needs_gpu and container.gpu == "rocm":
        return _with_rocm(_report(site, stage, TRAIN_EXTRAS, f"{which} {image}"), f"{which} {image}")
    extras = (TRAIN_EXTRAS[:1] if needs_gpu else TRAIN_EXTRAS) if stage in TRAIN_STAGES else ANALYSIS_EXTRAS
    report = _report(site, stage, extras, f"{which} {image}")
    if needs_gpu and CUDA_LIBRARY not in report.packages:
        built = "tensorflow-cpu" if "tensorflow-cpu" in report.packages else f"no {CUDA_LIBRARY}"
        raise ImageError(
            f"{which} {image} has no GPU libraries ({built}), and a training asks for {gpus} GPU",
            f"build it from the lock train-gpu ({BUILD}), or give gpus = 0 in [jobs.train] of the site's file",
        )
    if report.unmet:
        raise ImageError(f"{which} {image} lacks what {stage} needs: {'; '.join(report.unmet)}", BUILD)
    return report


def _with_rocm(report: MachineReport, image: str) -> MachineReport:
    """The report, if the image has a TensorFlow for AMD's GPUs; there is no lock of one."""
    if ROCM_PACKAGE not in report.packages:
        raise ImageError(f"{image} has no {ROCM_PACKAGE}", f"gpu = 'rocm' in [container] {NO_ROCM}")
    return report


def _report(site: Site, stage: str, extras: tuple[str, ...], image: str) -> MachineReport:
    """What an image says of itself, if it is of this version."""
    command = [*python_command(site, stage, gpus=0), "-m", "vaehpc.doctor", "--here", "--json", "--extras", *extras]
    if shutil.which(command[0]) is None:
        raise ImageError(
            f"{command[0]} is not on this machine", "launch where it is, or correct runtime in [container]"
        )
    try:
        # In a folder that is in every image; the caller's own may not be.
        done = subprocess.run(
            command, cwd="/", capture_output=True, text=True, check=False, timeout=START_SECONDS, errors="replace"
        )
    except subprocess.TimeoutExpired:
        raise ImageError(f"{image} did not start within {START_SECONDS:g} s", "is its file system busy?") from None
    try:
        answer = json.loads(done.stdout.strip().splitlines()[-1])
        version = str(answer["packages"]["vaehpc"])
    except (ValueError, IndexError, KeyError, TypeError):
        said = " ".join((done.stderr or done.stdout).strip().splitlines()[-1:]) or f"exit code {done.returncode}"
        raise ImageError(f"{image} cannot be opened, or has no usable vaehpc ({said})", BUILD) from None
    if released(version) != __version__:
        raise ImageError(
            f"{image} has vaehpc {version}; this is {__version__}",
            "build it from this version, or launch with that one",
        )
    return MachineReport.model_validate(answer)
