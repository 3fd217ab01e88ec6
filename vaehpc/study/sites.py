"""Jobs as jobs/*.toml declare them, and sites: where they run, and with which resources there."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import pydantic

from vaehpc.command import UserError, nearest
from vaehpc.machine.hardware import visible_gpus
from vaehpc.schema.frozen import Frozen
from vaehpc.schema.site import (
    ContainerConfig,
    Device,
    JobConfig,
    JobName,
    ResourcesConfig,
    SiteConfig,
    SlurmConfig,
    StageConfig,
)
from vaehpc.study.files import declaration
from vaehpc.study.presets import read_toml
from vaehpc.study.provenance import provenance

Executor = Literal["slurm", "local", "debug"]


@dataclass(frozen=True)
class Site:
    """A site as one launch uses it: made once, and handed on."""

    environment: Mapping[str, str]
    slurm: SlurmConfig
    container: ContainerConfig
    jobs: Mapping[str, JobConfig]
    """The jobs of a study by name, with the site's resources."""
    own: Mapping[str, ResourcesConfig]
    """What the site's file says of a job."""
    paths: tuple[Path, ...]
    """Folders and files of this launch that its tasks need."""

    @property
    def binds(self) -> tuple[str, ...]:
        """What is seen in images: what the site's file names, and the paths, each under its own name."""
        return tuple(dict.fromkeys((*self.container.binds, *(str(path.absolute()) for path in self.paths))))

    def slurm_of(self, stage: str) -> SlurmConfig:
        """How a stage is put into the queue: its own words, and where it has none those of [slurm]."""
        own = self.own[stage]
        words = {name: value for name in StageConfig.model_fields if (value := getattr(own, name)) is not None}
        if own.partition is not None:
            words |= {"gpu_partition": own.partition, "cpu_partition": own.partition}
        return self.slurm.model_copy(update=words)

    def partition(self, stage: str) -> str | None:
        """Where a stage runs; None: in Slurm's default partition."""
        slurm = self.slurm_of(stage)
        return slurm.gpu_partition if self.jobs[stage].gpus else slurm.cpu_partition

    def tasks_at_once(self, stage: str) -> int:
        """Tasks of one element that run side by side; of a stage with GPUs, on its GPUs at most."""
        job = self.jobs[stage]
        return job.gpus * (self.slurm_of(stage).tasks_per_gpu or 1) if job.gpus else job.tasks_at_once


def resolved(site: SiteConfig, *paths: Path | None, device: Device | None = None) -> Site:
    """The site for a launch whose tasks need these folders and files.

    Args:
        site: as its file says.
        paths: what tasks need.
        device: on which they run, whatever the file says.
    """
    own = {name: site.jobs.get(name, ResourcesConfig()) for name in get_args(JobName)}
    asked = {} if device is None else {"device": device}
    jobs = {}
    for name, given in own.items():
        resources = given.model_dump(include=set(JobConfig.model_fields), exclude_none=True)
        jobs[name] = job_config(name).model_copy(update=resources | asked)
    return Site(site.environment, site.slurm, site.container, jobs, own, tuple(filter(None, paths)))


def job_config(name: str, device: Device | None = None) -> JobConfig:
    """A job as it is declared, jobs/NAME.toml; on this device, where one is given."""
    return JobConfig.model_validate({**tomllib.loads(declaration(f"jobs/{name}.toml")), "device": device})


def gpus_here() -> list[str]:
    """GPUs on which trainings of this machine run: those it sees, where its TensorFlow can use any."""
    return visible_gpus() if tensorflow_uses_gpus() else []


def tensorflow_uses_gpus() -> bool:
    """Whether the installed TensorFlow is not the one for processors alone, that of the demo and of the tests."""
    packages = provenance().packages
    return "tensorflow" in packages or "tensorflow-cpu" not in packages


def built_in_site(executor: str) -> SiteConfig:
    """jobs/sites/local.toml or jobs/sites/slurm.toml as they are shipped."""
    return SiteConfig.model_validate(tomllib.loads(declaration(f"jobs/sites/{executor}.toml")))


def read_site(path: Path) -> SiteConfig:
    """A site's file.

    Raises:
        UserError: it cannot be read, has an unknown key, or a value that is not allowed.
    """
    values = read_toml(path, "--site")
    try:
        return SiteConfig.model_validate(values)
    except pydantic.ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        if first["type"] == "value_error" and isinstance(first["input"], dict):  # settings that contradict each other
            raise UserError(f"--site {path}: {first['msg'].removeprefix('Value error, ')}") from None
        if first["type"] == "string_pattern_mismatch":
            raise UserError(
                f"--site {path}: {where} = {first['input']!r} is not allowed: it must be one line of plain text, as"
                f" jobs/sites/slurm.toml shows ({first['ctx']['pattern']})"
            ) from None
        if first["type"] != "extra_forbidden":
            raise UserError(f"--site {path}: {where} = {first['input']!r} is not allowed: {first['msg']}") from None
        known = _known(first["loc"][:-1])
        key = str(first["loc"][-1])
        raise UserError(
            f"--site {path}: unknown setting '{where}'{nearest(key, known)}. Known: {', '.join(known)}"
        ) from None


def _known(table: tuple[int | str, ...]) -> list[str]:
    """The keys of a table of a site's file."""
    tables: dict[tuple[int | str, ...], type[Frozen]] = {
        (): SiteConfig,
        ("slurm",): SlurmConfig,
        ("container",): ContainerConfig,
    }
    return list(tables.get(table, ResourcesConfig).model_fields)
