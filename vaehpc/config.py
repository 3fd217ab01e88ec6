"""Frozen, checked configuration: what a study, an arm and a run are. Defaults are the article's, each with its unit."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from itertools import pairwise
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, PositiveFloat, PositiveInt, field_validator, model_validator

ArmKind = Literal["ae", "vae"]
Precision = Literal["float32", "mixed_bfloat16", "mixed_float16"]
Initializer = Literal["glorot", "he", "normal"]

Stream = Literal[
    "initialisation", "shuffling", "noise", "generation", "kmeans", "tsne", "gaussian", "dimension", "probes"
]
STREAMS: tuple[Stream, ...] = (
    "initialisation", "shuffling", "noise", "generation", "kmeans", "tsne", "gaussian", "dimension", "probes"
)  # fmt: skip
"""Independent random streams of a run. The position is part of every key: append only."""


class Frozen(BaseModel):
    """A value: cannot be changed, and refuses keys that it does not know."""

    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="strings")


StudyStream = Literal["logrank", "modes", "images", "bootstrap"]
STUDY_STREAMS: tuple[StudyStream, ...] = ("logrank", "modes", "images", "bootstrap")
"""Independent random streams of a study's aggregate. The position is part of every key: append only."""

RENEWED = 1000
"""Added to a stream's position where a fork draws it anew: such a stream is none of any run's own."""


class ModelConfig(Frozen):
    """The net that an AE and a VAE share."""

    z_dim: PositiveInt = 256
    """Dimension of the latent space."""
    filters: tuple[PositiveInt, PositiveInt, PositiveInt, PositiveInt] = (32, 64, 128, 256)
    """Filters of the four Conv2D layers (assumption: the article does not give them)."""
    batch_norm: bool = True
    """BatchNormalization after each convolution; the article's AE had none."""
    leaky_slope: PositiveFloat = 0.3
    """Negative slope of LeakyReLU (assumption)."""
    initializer: Initializer = "glorot"
    """Initial kernels: Glorot uniform (Keras' default, the article's), He normal, or N(0, 0.02)."""
    mu_scale: PositiveFloat = 1.0
    """Factor on the initial kernel of mu."""


class VaeConfig(Frozen):
    """What only a VAE has."""

    kl_weight: Annotated[float, Field(ge=0)] = 1e-5
    """The article's `fact`: weight of the KL loss in the total loss."""
    epsilon_limit: PositiveFloat | None = None
    """Elementwise limit of |epsilon|; the article's remedy is 5. None: no limit."""
    epsilon_factor: Annotated[float, Field(ge=0)] = 1.0
    """The article's `enc_v_eps_factor`: scales epsilon after the limit."""
    epsilon_limit_on: Literal["component", "tensor"] = "component"
    """What the limit acts on. tensor: one component beyond it turns the whole batch's epsilon into +-limit."""
    log_var_limit: PositiveFloat | None = None
    """Largest log_var; greater ones are clamped. None: no limit."""


class TrainConfig(Frozen):
    """How a run is trained."""

    epochs: PositiveInt = 24
    """Passes over the training images."""
    batch_size: PositiveInt = 128
    """Images per step; the last batch of an epoch may be smaller."""
    learning_rate: PositiveFloat = 5e-4
    """Adam's step size."""
    beta_2: Annotated[float, Field(gt=0, lt=1)] = 0.999
    """Adam's decay of the mean squared gradient."""
    clipnorm: PositiveFloat | None = None
    """Largest global norm of the gradient; a greater one is scaled down. None: no limit."""
    precision: Precision = "float32"
    """Keras dtype policy of the convolutions; losses, sampling and latent heads are float32 in each."""
    jit_compile: bool | None = None
    """Compile the training step with XLA. None: on a GPU, where it is faster, and not on a CPU, where it is slower."""
    threads: PositiveInt = 1
    """TensorFlow threads of a CPU run; only 1 repeats to the bit."""
    eval_images: PositiveInt = 20_000
    """Images (the first of the training split) whose latents are measured at each epoch end."""
    checkpoint_seconds: PositiveFloat = 600.0
    """Longest time without a checkpoint; there is one at each epoch end in any case."""
    keep_every_epochs: PositiveInt = 6
    """Epochs between the checkpoints that stay, to replay from; of the others the newest two stay."""
    tensorboard: bool = False
    """Write scalars, images and latents for TensorBoard beside the record; nothing reads them back."""


class SpikeConfig(Frozen):
    """A disturbance of one step, put in on purpose: a positive control on which the detector must fire."""

    kind: Literal["gradient", "log_var"]
    """gradient: the step's gradients times `strength`; log_var: `strength` added to one component of one image, the
    one with the largest |epsilon|."""
    strength: PositiveFloat
    steps_before_end: PositiveInt
    """The disturbed step, counted back from the end; 1 is the last."""

    def __str__(self) -> str:
        """'gradient x 1000, 150 steps before the end'."""
        sign = "x" if self.kind == "gradient" else "+"
        return f"{self.kind} {sign} {self.strength:g}, {self.steps_before_end} steps before the end"


class ForkConfig(Frozen):
    """Where a replayed run starts, and the one thing that it does otherwise."""

    source: str
    """The run that is replayed, as STUDY/RUN."""
    seed: Annotated[int, Field(ge=0)]
    """Its seed; a fork's own seed only counts the repeats."""
    checkpoint: str
    """Directory of the checkpoint or snapshot to start from."""
    step: Annotated[int, Field(ge=0)]
    """Steps done there."""
    until_step: PositiveInt
    """Steps at which the fork ends."""
    renewed: Literal["noise", "shuffling"] | None = None
    """The random stream that is drawn anew."""
    left_out: int | None = None
    """Position in the training split of an image that others of its batch replace."""
    fresh_moments: bool = False
    """Start with Adam's moments at zero."""


class ReplayConfig(Frozen):
    """What the forks of a study replay: the source run's radius R, the probe's median, and how it jumped."""

    source: str
    """The run that is replayed, as STUDY/RUN."""
    started_from: str
    """'trigger 1' or 'epoch 18' of the source run."""
    step: Annotated[int, Field(ge=0)]
    """Steps done where the forks start."""
    until_step: PositiveInt
    """Steps at which they end."""
    calm_step: PositiveInt
    """Steps done at the last probe before the jump."""
    calm_radius: PositiveFloat
    """R there."""
    jumped_radius: Annotated[float, Field(ge=0)] | None
    """R of the later probe up to `until_step` whose ln R is farthest; None: the run was not finite by then."""
    deterministic: bool
    """Whether the source run's device repeats to the bit, so that one fork is enough where nothing is drawn anew."""


class ArmConfig(Frozen):
    """One arm of a study: everything that is equal for its runs but the seed."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9]+(-[a-z0-9]+)*$")]
    """Lower-case words joined by '-'; the first part of its runs' names."""
    model: ModelConfig
    """The net."""
    vae: VaeConfig | None
    """None makes it an AE."""
    train: TrainConfig
    """The training."""
    start_from: str | None = None
    """AE arm of the same study whose trained weights, of the same seed, this arm starts from."""
    spike: SpikeConfig | None = None
    fork: ForkConfig | None = None

    @property
    def kind(self) -> ArmKind:
        """Whether this arm is an AE or a VAE."""
        return "ae" if self.vae is None else "vae"

    @property
    def settings(self) -> dict[str, Any]:
        """Everything that makes the arm, as they are named on the command line; an AE has none of 'vae.*'."""
        sections = {"model": self.model, "vae": self.vae, "train": self.train}
        flat = {
            f"{section}.{key}": value
            for section, values in sections.items()
            if values is not None
            for key, value in values
        }
        return {"kind": self.kind, **flat, "spike": self.spike, "start_from": self.start_from}

    def is_control_of(self, arm: ArmConfig) -> bool:
        """Whether this is an AE arm equal to `arm` in everything that an AE has.

        Clipped gradients are a remedy, as a limit of epsilon is: the control does without, or has the same limit.
        """
        if self.vae is not None or self.spike is not None or self.train.clipnorm not in (None, arm.train.clipnorm):
            return False
        return self.model == arm.model and self.train == arm.train.model_copy(update={"clipnorm": self.train.clipnorm})


def control_of(arm: ArmConfig, arms: Mapping[str, ArmConfig]) -> str | None:
    """The first of these arms that is the control of `arm`; None where there is none."""
    return next((name for name, other in arms.items() if other.is_control_of(arm)), None)


class DataConfig(Frozen):
    """A prepared data set as a study refers to it; `sha256` is its identity, `path` only where it lies."""

    path: str
    name: str
    sha256: str
    synthetic: bool
    image_size: PositiveInt
    num_train: PositiveInt
    entropy_floor: float
    """H(x) of the training split in nats per pixel x pixels, the least reconstruction loss possible."""


class RadiusPlan(Frozen):
    """The article's radius histogram and shells."""

    bin_width: PositiveFloat
    num_bins: PositiveInt
    shells: tuple[tuple[float, float], ...]


class ClassPlan(Frozen):
    """Limits of the run classes on d = ln R_median - m, relative to the control arm."""

    diverged_factor: PositiveFloat
    shifted_limit: PositiveFloat
    shifted_scatter: PositiveFloat
    min_scatter: PositiveFloat
    exploratory_scatter: PositiveFloat
    min_control_runs: PositiveInt
    article_radius: PositiveFloat
    article_image_size: PositiveInt
    article_num_train: PositiveInt


class ProbePlan(Frozen):
    """The probe of the training that says when a run left its radius."""

    num_images: PositiveInt
    every_steps: PositiveInt
    burn_in_steps: PositiveInt
    abrupt_factor: PositiveFloat


class RecorderPlan(Frozen):
    """When the flight recorder writes down what led to a jump. Nothing triggers before the probe's burn-in."""

    ring_steps: PositiveInt
    snapshot_steps: PositiveInt
    gradient_factor: PositiveFloat
    rms_limit: PositiveFloat
    log_var_limit: float
    probe_factor: PositiveFloat


class CensusPlan(Frozen):
    """Intervals in which components of log_var and of z - mu are counted."""

    log_var_interval: tuple[float, float]
    difference_interval: tuple[float, float]


Alternative = Literal["greater", "less", "two-sided"]


class ContrastPlan(Frozen):
    """Which arms are tested against each other, and what a study should be able to find."""

    against_control: Alternative
    reference: str
    against_reference: Alternative
    rate: Annotated[float, Field(gt=0, le=1)]
    versus: Annotated[float, Field(ge=0, lt=1)]
    power: Annotated[float, Field(gt=0, lt=1)]
    num_permutations: PositiveInt
    looks: tuple[Annotated[int, Field(gt=0, le=200)], ...] = ()
    """Seeds per arm after which `reference` is judged against its control; none: once, without boundaries."""

    @field_validator("looks")
    @classmethod
    def _ascend(cls, looks: tuple[int, ...]) -> tuple[int, ...]:
        if any(later <= earlier for earlier, later in pairwise(looks)):
            raise ValueError("numbers of seeds must ascend")
        return looks


class SensitivityPlan(Frozen):
    """Other limits of the classes under which runs are counted again."""

    diverged_factors: tuple[PositiveFloat, ...]
    shifted_limits: tuple[PositiveFloat, ...]


class ModesPlan(Frozen):
    """When the runs of an arm may be said to have a second mode."""

    min_runs: Annotated[int, Field(ge=4)]
    num_simulations: PositiveInt


class PairPlan(Frozen):
    """How a VAE is compared with the AE of the same seed."""

    num_images: PositiveInt
    quantiles: tuple[Annotated[float, Field(gt=0, lt=1)], ...]
    radius_margin: PositiveFloat
    num_resamples: PositiveInt


class GaussianPlan(Frozen):
    """How latents are compared with a normal distribution."""

    active_variance: PositiveFloat
    skewness_images: PositiveInt


class DimensionPlan(Frozen):
    """Neighbours that say how many dimensions latents fill. Images beyond the run's own are not asked for."""

    num_images: PositiveInt
    num_neighbours: Annotated[int, Field(ge=2)]


class ClusterPlan(Frozen):
    """The inertia curve over numbers of clusters, and what is called its elbow."""

    method: Literal["subsampled", "minibatch"]
    num_clusters: tuple[PositiveInt, ...]
    """Ascending."""
    subsample: PositiveInt
    num_starts: PositiveInt
    subsample_iterations: PositiveInt
    breaths: tuple[PositiveInt, ...]
    leading_axes: PositiveInt
    leading_iterations: PositiveInt
    full_iterations: PositiveInt
    batch_size: PositiveInt
    elbow_factor: PositiveFloat
    elbow_window: PositiveInt


class TsneSettings(Frozen):
    """One way to draw a t-SNE."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9]+(-[a-z0-9]+)*$")]
    """Part of a file's name."""
    perplexity: PositiveFloat
    exaggeration: PositiveFloat
    early_iterations: PositiveInt
    iterations: PositiveInt
    pca_components: PositiveInt | None = None
    """Of the first principal coordinates only; None: of all latent axes."""


class TsnePlan(Frozen):
    """Embeddings in the plane: of how many images, of which runs, with which settings."""

    sizes: tuple[PositiveInt, ...]
    large_sizes: tuple[PositiveInt, ...]
    large_seeds: tuple[int, ...]
    recall_neighbours: PositiveInt
    recall_images: PositiveInt
    settings: tuple[TsneSettings, ...]


class AttributePlan(Frozen):
    """Linear probes of the attributes."""

    num_images: PositiveInt
    test_share: Annotated[float, Field(gt=0, lt=1)]
    penalty: Annotated[float, Field(ge=0)]


class PlanConfig(Frozen):
    """The analysis plan, fixed before the data are seen (analysis/plan.toml)."""

    level: Annotated[float, Field(gt=0, lt=1)]
    radius: RadiusPlan
    classes: ClassPlan
    probe: ProbePlan
    recorder: RecorderPlan
    census: CensusPlan
    contrasts: ContrastPlan
    sensitivity: SensitivityPlan
    modes: ModesPlan
    pairs: PairPlan
    gaussian: GaussianPlan
    dimension: DimensionPlan
    clusters: ClusterPlan
    tsne: TsnePlan
    attributes: AttributePlan

    @property
    def sha256(self) -> str:
        """Hash of the plan's values."""
        return hashlib.sha256(self.model_dump_json().encode()).hexdigest()


class ImageRecord(Frozen):
    """What an image of containers/Dockerfile says of itself."""

    target: Literal["train", "analysis"]
    revision: str
    """Commit of the code in it; empty: not known."""
    digest: str
    """'sha256:...' of its files: the same for an archive, a sandbox and a SIF made of one image."""


class Provenance(Frozen):
    """What code, image and packages something was made with."""

    code_version: str
    image_digest: str | None
    packages: dict[str, str]


MAX_SEEDS = 1_000_000


class RunConfig(Frozen):
    """run.json: everything that the tasks of one run need."""

    study: str
    arm: ArmConfig
    seed: Annotated[int, Field(ge=0, lt=MAX_SEEDS)]
    root_seed: Annotated[int, Field(ge=0)]
    data: DataConfig
    plan: PlanConfig
    provenance: Provenance

    @property
    def name(self) -> str:
        """ARM-seedNNN."""
        return run_name(self.arm.name, self.seed)

    @property
    def steps_per_epoch(self) -> int:
        """ceil(num_train / batch_size): the last, smaller batch is kept."""
        return -(-self.data.num_train // self.arm.train.batch_size)

    @property
    def num_steps(self) -> int:
        """Steps of the whole training; where a fork ends."""
        if self.arm.fork is not None:
            return self.arm.fork.until_step
        return self.arm.train.epochs * self.steps_per_epoch

    @property
    def spike_step(self) -> int | None:
        """The step, counted from 0, that the arm's spike disturbs; the same in a fork."""
        if self.arm.spike is None:
            return None
        return self.arm.train.epochs * self.steps_per_epoch - self.arm.spike.steps_before_end

    def key(self, stream: Stream, *counters: int) -> np.random.SeedSequence:
        """Key of one random stream of this run: depends on (root seed, seed, stream, counters), never on the arm.

        A fork has the keys of the run that it replays, but for the stream that it draws anew.
        """
        index, fork = STREAMS.index(stream), self.arm.fork
        if fork is None:
            spawn_key: tuple[int, ...] = (self.seed, index)
        elif fork.renewed == stream:
            spawn_key = (fork.seed, RENEWED + index, self.seed)
        else:
            spawn_key = (fork.seed, index)
        return np.random.SeedSequence(self.root_seed, spawn_key=(*spawn_key, *counters))


STUDY_NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]*$"
"""A study's name is a folder's: no spaces, no slashes."""


class StudyConfig(Frozen):
    """study.json: arms x seeds on one data set under one plan."""

    name: Annotated[str, Field(pattern=STUDY_NAME)]
    preset: str
    root_seed: Annotated[int, Field(ge=0)]
    data: DataConfig
    plan: PlanConfig
    plan_sha256: str
    arms: dict[str, ArmConfig]
    seeds: dict[str, tuple[int, ...]]
    """Seeds of each arm, sorted."""
    provenance: Provenance
    replay: ReplayConfig | None = None
    """Set where the runs are forks of one run."""
    first_seeds: dict[str, tuple[int, ...]] | None = None
    """Seeds of each arm at the first launch; arms and seeds beyond these came later. None: not known."""

    @field_validator("seeds")
    @classmethod
    def _sorted_and_distinct(cls, seeds: dict[str, tuple[int, ...]]) -> dict[str, tuple[int, ...]]:
        return {arm: tuple(sorted(set(of_arm))) for arm, of_arm in seeds.items()}

    def key(self, stream: StudyStream, *counters: int) -> np.random.SeedSequence:
        """Key of one random stream of the aggregate; no run has it, for the seeds of runs are smaller."""
        return np.random.SeedSequence(self.root_seed, spawn_key=(MAX_SEEDS, STUDY_STREAMS.index(stream), *counters))

    def runs(self) -> list[RunConfig]:
        """Every run of the study, arm by arm, in the order of the seeds."""
        return [
            RunConfig(
                study=self.name,
                arm=arm,
                seed=seed,
                root_seed=self.root_seed,
                data=self.data,
                plan=self.plan,
                provenance=self.provenance,
            )
            for arm in self.arms.values()
            for seed in self.seeds[arm.name]
        ]


def run_name(arm: str, seed: int) -> str:
    """`vae-tiny-seed003`: made from the settings, never from a position in a list."""
    return f"{arm}-seed{seed:03d}"


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
    cpus: PositiveInt
    gpus: Annotated[int, Field(ge=0)]
    memory_gb: PositiveFloat
    hours: PositiveFloat


class ResourcesConfig(Frozen):
    """What a site gives a job instead of what jobs/*.toml declares."""

    cpus: PositiveInt | None = None
    gpus: Annotated[int | None, Field(ge=0)] = None
    memory_gb: PositiveFloat | None = None
    hours: PositiveFloat | None = None


OWN_OPTIONS = (
    "array", "comment", "dependency", "error", "job-name", "kill-on-invalid-dep", "no-requeue", "open-mode",
    "output", "requeue", "signal",
)  # fmt: skip
"""Options of sbatch that a site may not set."""


class SlurmConfig(Frozen):
    """How jobs are put into Slurm's queue. What is None is not said to Slurm."""

    gpu_partition: str | None = None
    """Partition of jobs that ask for GPUs."""
    cpu_partition: str | None = None
    """Partition of all other jobs."""
    account: str | None = None
    qos: str | None = None
    constraint: str | None = None
    exclude: str | None = None
    """Nodes never to be used, as Slurm writes them: node[3-5]."""
    mail_user: str | None = None
    mail_type: str | None = None
    gpu_request: Literal["gres", "gpus"] = "gres"
    """--gres=gpu:1, or --gpus-per-node=1."""
    gpu_type: str | None = None
    tasks_per_gpu: PositiveInt = 1
    """Runs of one array element, which share its GPU: as many of them at once as are measured there to pay."""
    at_once: PositiveInt = 256
    """Elements of an array that run at the same time."""
    warn_seconds: PositiveInt = 180
    """Before its time limit an element is asked to write checkpoints and is put back into the queue."""
    max_restarts: Annotated[int, Field(ge=0)] = 100
    """Times that an element goes back into the queue after its time limit; never twice without progress."""
    max_crashes: Annotated[int, Field(ge=0)] = 1
    """Times that an element is tried again, on another node where there is one, after its task failed."""
    python: str | None = None
    """Command that starts Python on a node. None: the launcher's own."""
    options: tuple[Annotated[str, Field(pattern=r"^--[a-z][a-z-]*(=.*)?$")], ...] = ()
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
    image: str | None = None
    """With TensorFlow, for preparations and trainings: a SIF, a sandbox folder, or a name as the runtime knows it."""
    analysis_image: str | None = None
    """For everything else. None: the same."""
    binds: tuple[Annotated[str, Field(pattern=r"^/[^,:]*(:/[^,:]*(:ro)?)?$")], ...] = ()
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
    environment: dict[str, str] = {}
    """Environment variables of every task."""
    slurm: SlurmConfig = SlurmConfig()
    container: ContainerConfig = ContainerConfig()
    jobs: dict[Literal["prepare", "launch", "train", "statistics", "aggregate", "verdict"], ResourcesConfig] = {}
    """Resources of a job at this site."""

    @model_validator(mode="after")
    def _has_one_python(self) -> SiteConfig:
        if self.container.runtime != "none" and self.slurm.python is not None:
            raise ValueError("[slurm] python and [container] both say which Python tasks run with: leave one out")
        return self
