"""Jobs as they are declared, and sites: where they run, with which resources, in which containers."""

from __future__ import annotations

from collections.abc import Mapping
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
    tasks_at_once: Count = 1
    """Of a job without GPUs: tasks of one element that run side by side, each with these resources."""
    device: Device | None = None
    """cpu: the CPU is meant although GPUs are given. None: GPUs, where the job asks for any."""

    @property
    def needed_gpus(self) -> int:
        """GPUs without which an element fails."""
        return 0 if self.device == "cpu" else self.gpus


JobName = Literal["prepare", "launch", "train", "statistics", "aggregate", "verdict"]
"""Of a study's jobs."""
RESTARTS = "is the suite's own: it finds and restarts its elements by it"
ITS_CLUSTER = "is not possible: squeue and scontrol are asked of the default cluster alone"
OWN_OPTIONS: Mapping[str, str] = {
    **dict.fromkeys(
        ("array", "comment", "dependency", "error", "job-name", "kill-on-invalid-dep", "no-requeue", "open-mode",
         "output", "requeue", "signal", "parsable", "test-only", "wait", "wrap"), RESTARTS
    ),
    **dict.fromkeys(("cluster", "clusters"), ITS_CLUSTER),
    **dict.fromkeys(
        ("mem", "mem-per-cpu", "mem-per-gpu"), "is said by memory_gb in [jobs.{stage}], and memory in [slurm]"
    ),
    "time": "is said by hours in [jobs.{stage}]",
    "partition": "is said by partition in [jobs.{stage}], or gpu_partition and cpu_partition in [slurm]",
    **{
        name: f"is said by {name} in [jobs.{{stage}}] or [slurm]"
        for name in ("account", "qos", "constraint", "reservation", "exclude")
    },
    **dict.fromkeys(
        ("gpus", "gpus-per-node", "gpus-per-task", "gpus-per-socket"),
        "is said by gpus in [jobs.{stage}], and gpu_request and gpu_type in [slurm]",
    ),
    **dict.fromkeys(("cpus-per-task", "cpus-per-gpu"), "is said by cpus in [jobs.{stage}]"),
    **dict.fromkeys(
        ("nodes", "ntasks", "ntasks-per-node", "ntasks-per-gpu"),
        "is not possible: an element is one task of Slurm's on one node; gpus, tasks_per_gpu and tasks_at_once in"
        " [jobs.{stage}] say what runs in it",
    ),
    "mail-user": "is said by mail_user in [slurm]",
    "mail-type": "is said by mail_type in [slurm]",
}  # fmt: skip
"""Options of sbatch that the suite says itself, and where a site says what they say."""
Option = Annotated[str, Field(pattern=r"^--[a-z][a-z-]*(=[^\x00-\x1f\x7f]*)?$")]


class StageConfig(Frozen):
    """How elements of a stage are put into Slurm's queue. What is None is not said to Slurm."""

    account: Word | None = None
    qos: Word | None = None
    constraint: Line | None = None
    reservation: Word | None = None
    exclude: Word | None = None
    """Nodes never to be used, as Slurm writes them: node[3-5]."""
    tasks_per_gpu: Count | None = None
    """Runs of an array element for each of its GPUs: as many at once on each as are measured there to pay. None: 1."""
    options: tuple[Option, ...] | None = None
    """More options of sbatch, such as --nice=100; none of OWN_OPTIONS. --gres=... is added to the GPUs'."""

    @field_validator("options")
    @classmethod
    def _none_of_our_own(cls, options: tuple[str, ...] | None) -> tuple[str, ...] | None:
        for option in options or ():
            name, _, value = option.removeprefix("--").partition("=")
            # sbatch takes an option by its beginning, too: --part=gpu.
            own = next((key for known, key in OWN_OPTIONS.items() if known.startswith(name)), None)
            if name == "gres" and any(each.partition(":")[0] == "gpu" for each in value.split(",")):
                own = OWN_OPTIONS["gpus"]
            if own is not None:
                raise ValueError(f"--{name} {own.format(stage='STAGE')}")
        return options


class ResourcesConfig(StageConfig):
    """What a site gives a job instead of what jobs/*.toml declares, and how it is put into the queue there."""

    cpus: Count | None = None
    gpus: Annotated[int | None, Field(ge=0, le=2**63 - 1)] = None
    memory_gb: Amount | None = None
    hours: Amount | None = None
    device: Device | None = None
    tasks_at_once: Count | None = None
    partition: Word | None = None


class SlurmConfig(StageConfig):
    """How jobs are put into Slurm's queue; a stage may have other words of its own."""

    gpu_partition: Word | None = None
    """Partition of jobs that ask for GPUs."""
    cpu_partition: Word | None = None
    """Partition of all other jobs."""
    mail_user: Word | None = None
    mail_type: Word | None = None
    gpu_request: Literal["gres", "gpus", "none"] = "gres"
    """--gres=gpu:1, --gpus-per-node=1, or nothing: where GPUs come with the partition or the whole node."""
    gpu_type: Word | None = None
    memory: Literal["per-node", "per-cpu", "none"] = "per-node"
    """--mem, --mem-per-cpu, or nothing: where memory comes with the GPUs, the processors or the whole node."""
    at_once: Count = 256
    """Elements of an array that run at the same time."""
    max_queued: Count | None = None
    """Elements of this user that may be in the queue, where that is a rule that Slurm does not tell."""
    warn_seconds: Count = 180
    """Before its time limit an element is asked to write checkpoints and is put back into the queue."""
    max_restarts: Annotated[int, Field(ge=0, le=2**63 - 1)] = 100
    """Times that an element goes back into the queue after its time limit; never twice without progress."""
    max_crashes: Annotated[int, Field(ge=0, le=2**63 - 1)] = 1
    """Times that an element is tried again, on another node where there is one, after its task failed."""
    python: Line | None = None
    """Command that starts Python on a node. None: the launcher's own."""
    setup: tuple[Line, ...] = ()
    """Lines of bash ahead of the tasks, outside of any container: module load apptainer."""
    srun_options: tuple[Option, ...] = ()
    """Options of the srun that starts the tasks: --cpu-bind=none."""


class ContainerConfig(Frozen):
    """The images in which tasks run, and what starts them."""

    runtime: Literal["apptainer", "singularity", "podman", "charliecloud", "pyxis", "none"] = "none"
    """none: tasks run without an image."""
    image: Line | None = None
    """With TensorFlow, for preparations and trainings: a SIF, a sandbox folder, a name as the runtime
    knows it; with pyxis also an environment file, x.toml."""
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
    purge_days: Amount | None = None
    """Age at which the folder of the studies loses its files, for the doctor; None: it keeps them."""
    slurm: SlurmConfig = SlurmConfig()
    container: ContainerConfig = ContainerConfig()
    jobs: dict[JobName, ResourcesConfig] = {}
    """Resources of a job at this site."""

    @model_validator(mode="after")
    def _has_one_python(self) -> SiteConfig:
        if self.container.runtime != "none" and self.slurm.python is not None:
            raise ValueError("[slurm] python and [container] both say which Python tasks run with: leave one out")
        return self
