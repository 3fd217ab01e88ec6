"""Jobs as they are declared, and sites: where they run, with which resources, in which containers."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from vaehpc.schema.frozen import Amount, Count, Frozen

Line = Annotated[str, Field(pattern=r"^[^\x00-\x1f\x7f]*$")]
"""One line of text: what stands in a batch script must not begin another one."""
Word = Annotated[str, Field(pattern=r"^[^\x00-\x20\x7f\"'`$\\]+$")]
"""Text that no shell and no batch script reads otherwise: names of partitions, accounts and nodes."""
Variable = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")]

Device = Literal["cpu"]


class JobConfig(Frozen):
    """A batch job as jobs/*.toml declares it; resources are those of one array element with one task."""

    entry_point: Annotated[str, Field(pattern=r"^[a-z_.]+:[a-z_]+$")]
    """module:function, called with one directory."""
    directory: Literal["data", "run", "study", "batch"]
    marker: str | None = None
    """File that says that there is nothing left to do."""
    needs: str | None = None
    """File without which a directory is passed over on Slurm: of a pack's trainings some may have failed."""
    checkpoints: bool = False
    """Whether its task leaves a checkpoint and ends where a file `stop` appears in its directory."""
    cpus: Count
    gpus: Annotated[int, Field(ge=0, le=2**63 - 1)]
    memory_gb: Amount
    hours: Amount
    device: Device | None = None
    """cpu: the CPU is meant although GPUs are given. None: GPUs, where the job asks for any."""

    @property
    def needed_gpus(self) -> int:
        """GPUs without which an element fails."""
        return 0 if self.device == "cpu" else self.gpus


class ResourcesConfig(Frozen):
    """What a site gives a job instead of what jobs/*.toml declares."""

    cpus: Count | None = None
    gpus: Annotated[int | None, Field(ge=0, le=10**9)] = None
    memory_gb: Amount | None = None
    hours: Amount | None = None
    device: Device | None = None


JobName = Literal["prepare", "launch", "train", "statistics", "aggregate", "verdict"]
"""Of a study's jobs."""
OWN_OPTIONS = (
    "array", "comment", "dependency", "error", "job-name", "kill-on-invalid-dep", "no-requeue", "open-mode",
    "output", "requeue", "signal",
)  # fmt: skip
"""Options of sbatch that a site may not set."""


class SlurmConfig(Frozen):
    """How jobs are put into Slurm's queue. What is None is not said to Slurm."""

    gpu_partition: Word | None = None
    """Partition of jobs that ask for GPUs."""
    cpu_partition: Word | None = None
    """Partition of all other jobs."""
    account: Word | None = None
    qos: Word | None = None
    constraint: Line | None = None
    exclude: Word | None = None
    """Nodes never to be used, as Slurm writes them: node[3-5]."""
    mail_user: Word | None = None
    mail_type: Word | None = None
    gpu_request: Literal["gres", "gpus"] = "gres"
    """--gres=gpu:1, or --gpus-per-node=1."""
    gpu_type: Word | None = None
    tasks_per_gpu: Count = 1
    """Runs of one array element, which share its GPU: as many of them at once as are measured there to pay."""
    at_once: Count = 256
    """Elements of an array that run at the same time."""
    warn_seconds: Count = 180
    """Before its time limit an element is asked to write checkpoints and is put back into the queue."""
    max_restarts: Annotated[int, Field(ge=0, le=2**63 - 1)] = 100
    """Times that an element goes back into the queue after its time limit; never twice without progress."""
    max_crashes: Annotated[int, Field(ge=0, le=2**63 - 1)] = 1
    """Times that an element is tried again, on another node where there is one, after its task failed."""
    python: Line | None = None
    """Command that starts Python on a node. None: the launcher's own."""
    options: tuple[Annotated[str, Field(pattern=r"^--[a-z][a-z-]*(=[^\x00-\x1f\x7f]*)?$")], ...] = ()
    """More options of sbatch, such as --nice=100; none of OWN_OPTIONS."""

    @field_validator("options")
    @classmethod
    def _none_of_our_own(cls, options: tuple[str, ...]) -> tuple[str, ...]:
        for option in options:
            if (name := option.removeprefix("--").partition("=")[0]) in OWN_OPTIONS:
                raise ValueError(f"--{name} is the suite's own: it finds and restarts its elements by it")
        return options


class ContainerConfig(Frozen):
    """The images in which tasks run, and what starts them."""

    runtime: Literal["apptainer", "singularity", "podman", "charliecloud", "pyxis", "none"] = "none"
    """none: tasks run without an image."""
    image: Line | None = None
    """With TensorFlow, for preparations and trainings: a SIF, a sandbox folder, or a name as the runtime knows it."""
    analysis_image: Line | None = None
    """For everything else. None: the same."""
    binds: tuple[Annotated[str, Field(pattern=r"^/[^,:\x00-\x1f\x7f]*(:/[^,:\x00-\x1f\x7f]*(:ro)?)?$")], ...] = ()
    """Folders and files of the host that tasks need besides the study and its data: /scratch, /here:/there:ro."""
    gpu: Literal["nv", "rocm"] = "nv"
    """Whose driver a job with GPUs is given."""

    @model_validator(mode="after")
    def _has_images(self) -> ContainerConfig:
        if self.runtime != "none" and self.image is None:
            raise ValueError(f"runtime '{self.runtime}' needs an image")
        if self.runtime in ("apptainer", "singularity", "charliecloud"):
            for image in filter(None, (self.image, self.analysis_image)):
                if not image.startswith("/") and "://" not in image:
                    raise ValueError(f"'{image}' depends on the folder that somebody is in: give the whole path")
        return self


class SiteConfig(Frozen):
    """Where jobs run (jobs/sites/*.toml)."""

    executor: Literal["local", "slurm"]
    environment: dict[Variable, Line] = {}
    """Environment variables of every task."""
    slurm: SlurmConfig = SlurmConfig()
    container: ContainerConfig = ContainerConfig()
    jobs: dict[JobName, ResourcesConfig] = {}
    """Resources of a job at this site."""

    @model_validator(mode="after")
    def _has_one_python(self) -> SiteConfig:
        if self.container.runtime != "none" and self.slurm.python is not None:
            raise ValueError("[slurm] python and [container] both say which Python tasks run with: leave one out")
        return self
