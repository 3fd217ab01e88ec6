"""How Python is started in an image: one command line for each runtime. A site in, words out; nothing is run here."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from vaehpc.machine.variables import READ_ON_NODES
from vaehpc.schema.site import ContainerConfig
from vaehpc.study.sites import Site

PYTHON = "/opt/vaehpc/bin/python"
"""In an image of containers/Dockerfile."""
TRAIN_STAGES = ("prepare", "train")
"""What needs the image with TensorFlow, or with what reads and writes images; all else needs the other."""
PREFIXES = {"apptainer": "APPTAINERENV", "singularity": "SINGULARITYENV"}
"""A variable NAME reaches a clean environment as PREFIX_NAME."""
GPU_OPTIONS: Mapping[str, Mapping[str, tuple[str, ...]]] = {
    "apptainer": {"nv": ("--nv",), "rocm": ("--rocm",)},
    "singularity": {"nv": ("--nv",), "rocm": ("--rocm",)},
    "podman": {"nv": ("--device=nvidia.com/gpu=all",), "rocm": ("--device=/dev/kfd", "--device=/dev/dri")},
    "charliecloud": {"nv": (), "rocm": ()},  # ch-fromhost puts the driver's libraries into the image
    "pyxis": {"nv": (), "rocm": ()},  # Enroot's hooks look at the job
}
TEMPORARY = "/tmp"


def image_of(container: ContainerConfig, stage: str) -> str:
    """The image in which a stage runs."""
    assert container.image is not None
    return container.image if stage in TRAIN_STAGES else container.analysis_image or container.image


def host_path(bind: str) -> str:
    """What of a bind is on the host: '/scratch' of '/scratch:/data:ro'."""
    return bind.partition(":")[0]


def python_command(site: Site, stage: str, gpus: int) -> list[str]:
    """What starts Python in the image of a stage; with pyxis the rest of it are srun_options.

    Args:
        site: with a runtime.
        stage: of the study.
        gpus: that its job uses.
    """
    container = site.container
    runtime, image = container.runtime, image_of(container, stage)
    gpu = GPU_OPTIONS[runtime][container.gpu] if gpus else ()
    if runtime in PREFIXES:
        # Neither HOME nor the working folder: Python, TensorFlow and shells read settings there.
        clean = ("--cleanenv", "--no-home", "--no-mount=cwd", "--pwd=/")
        return [runtime, "--quiet", "exec", *clean, *gpu, *_binds("--bind=", site), image, PYTHON]
    if runtime == "podman":
        like_host = ("--network=host", "--userns=keep-id", "--security-opt=label=disable")
        passed = [f"--env={name}" for name in _variables(site)]
        binds = [f"--volume={TEMPORARY}:{TEMPORARY}", *_binds("--volume=", site, both=True)]
        return [
            "podman",
            "run",
            "--rm",
            "--read-only",
            "--pull=never",
            *like_host,
            *gpu,
            *passed,
            *binds,
            image,
            PYTHON,
        ]
    if runtime == "charliecloud":
        # All variables of the host are seen: Python's own are taken away, then those of the image are set.
        environment = ("--unset-env=PYTHON*", "--unset-env=LD_*", "--set-env")
        return ["ch-run", *environment, *gpu, *_binds("--bind=", site, both=True), image, "--", PYTHON]
    assert runtime == "pyxis"
    return ["env", "--unset=PYTHONPATH", "--unset=PYTHONHOME", "--unset=LD_LIBRARY_PATH", PYTHON]


def srun_options(site: Site, stage: str) -> list[str]:
    """What pyxis, or CSCS's Container Engine, adds to srun; nothing with another runtime."""
    if site.container.runtime != "pyxis":
        return []
    image = image_of(site.container, stage)
    if image.endswith(".toml"):  # the Engine's; it says what is mounted itself
        return [f"--environment={image}"]
    mounts = ",".join([f"{TEMPORARY}:{TEMPORARY}", *_binds("", site, both=True)])
    return [
        f"--container-image={image}",
        "--no-container-mount-home",
        "--container-readonly",
        "--container-workdir=/",
        f"--container-mounts={mounts}",
    ]


def _binds(option: str, site: Site, both: bool = False) -> list[str]:
    """An option for each bind; `both` where a runtime wants to be told twice what has the same name inside."""
    twice = (bind if ":" in bind or not both else f"{bind}:{bind}" for bind in site.binds)
    return [f"{option}{bind}" for bind in twice]


def mount_points(site: Site, stage: str) -> dict[Path, Path]:
    """What Charliecloud mounts, and on which folders of a sandbox: in one that is closed it makes none itself."""
    container = site.container
    if container.runtime != "charliecloud":
        return {}
    image = Path(image_of(container, stage))
    return {Path(host_path(bind)): image / Path(_path_inside(bind)).relative_to("/") for bind in site.binds}


def _path_inside(bind: str) -> str:
    source, *more = bind.split(":")
    return more[0] if more else source


def _variables(site: Site) -> Iterable[str]:
    return dict.fromkeys((*site.environment, *READ_ON_NODES))


def environment_lines(site: Site) -> Iterator[str]:
    """Lines of a batch script, ahead of its tasks: the site's environment, on its way into containers too."""
    for name, value in site.environment.items():
        yield f"export {name}={shlex.quote(value)}"
    if (prefix := PREFIXES.get(site.container.runtime)) is not None:
        names = " ".join(_variables(site))
        yield f'for name in {names}; do [ -z "${{!name+set}}" ] || export "{prefix}_$name=${{!name}}"; done'
    for stage in ("train", "statistics"):
        for source, point in mount_points(site, stage).items():
            yield f"[ ! -d {shlex.quote(str(source))} ] || mkdir -p {shlex.quote(str(point))}"
