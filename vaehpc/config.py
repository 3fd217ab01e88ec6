"""Frozen, checked configuration: what a study, an arm and a run are. Defaults are the article's, each with its unit."""

from __future__ import annotations

import hashlib
from typing import Annotated, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, PositiveFloat, PositiveInt, field_validator

ArmKind = Literal["ae", "vae"]
Precision = Literal["float32", "mixed_bfloat16", "mixed_float16"]
Feeding = Literal["auto", "memory", "stream"]

Stream = Literal["initialisation", "shuffling", "noise", "generation", "kmeans", "tsne"]
STREAMS: tuple[Stream, ...] = ("initialisation", "shuffling", "noise", "generation", "kmeans", "tsne")
"""Independent random streams of a run. The position is part of every key: append only."""


class Frozen(BaseModel):
    """A value: cannot be changed, and refuses keys that it does not know."""

    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="strings")


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


class VaeConfig(Frozen):
    """What only a VAE has."""

    kl_weight: Annotated[float, Field(ge=0)] = 1e-5
    """The article's `fact`: weight of the KL loss in the total loss."""
    epsilon_limit: PositiveFloat | None = None
    """Elementwise limit of |epsilon|; the article's remedy is 5. None: no limit."""
    epsilon_factor: Annotated[float, Field(ge=0)] = 1.0
    """The article's `enc_v_eps_factor`: scales epsilon after the limit."""


class TrainConfig(Frozen):
    """How a run is trained."""

    epochs: PositiveInt = 24
    """Passes over the training images."""
    batch_size: PositiveInt = 128
    """Images per step; the last batch of an epoch may be smaller."""
    learning_rate: PositiveFloat = 5e-4
    """Adam's step size."""
    precision: Precision = "float32"
    """Keras dtype policy of the convolutions; losses, sampling and latent heads are float32 in each."""
    jit_compile: bool = False
    """Compile the training step with XLA: faster on a GPU, slower on a CPU."""
    threads: PositiveInt = 1
    """TensorFlow threads of a CPU run; only 1 repeats to the bit."""
    feeding: Feeding = "auto"
    """Keep the images in memory, read them from the shards' page cache, or whichever fits; the order is the same."""
    eval_images: PositiveInt = 20_000
    """Images (the first of the training split) whose latents are measured at each epoch end."""
    checkpoint_minutes: PositiveFloat = 10.0
    """Longest time without a checkpoint; there is one at each epoch end in any case."""


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

    @property
    def kind(self) -> ArmKind:
        """Whether this arm is an AE or a VAE."""
        return "ae" if self.vae is None else "vae"

    def is_control_of(self, arm: ArmConfig) -> bool:
        """Whether this is an AE arm equal to `arm` in everything that an AE has."""
        return self.vae is None and self.model == arm.model and self.train == arm.train


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


class CensusPlan(Frozen):
    """Intervals in which components of log_var and of z - mu are counted."""

    log_var_interval: tuple[float, float]
    difference_interval: tuple[float, float]


class PlanConfig(Frozen):
    """The analysis plan, fixed before the data are seen (analysis/plan.toml)."""

    level: Annotated[float, Field(gt=0, lt=1)]
    radius: RadiusPlan
    classes: ClassPlan
    probe: ProbePlan
    census: CensusPlan

    @property
    def sha256(self) -> str:
        """Hash of the plan's values."""
        return hashlib.sha256(self.model_dump_json().encode()).hexdigest()


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

    def key(self, stream: Stream, *counters: int) -> np.random.SeedSequence:
        """Key of one random stream of this run: depends on (root seed, seed, stream, counters), never on the arm."""
        return np.random.SeedSequence(self.root_seed, spawn_key=(self.seed, STREAMS.index(stream), *counters))


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

    @field_validator("seeds")
    @classmethod
    def _sorted_and_distinct(cls, seeds: dict[str, tuple[int, ...]]) -> dict[str, tuple[int, ...]]:
        return {arm: tuple(sorted(set(of_arm))) for arm, of_arm in seeds.items()}

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
    """A batch job as jobs/*.toml declares it; resources are those of one array element."""

    entry_point: Annotated[str, Field(pattern=r"^[a-z_.]+:[a-z_]+$")]
    """module:function, called with one directory."""
    directory: Literal["data", "run", "study"]
    marker: str | None = None
    """File that says that there is nothing left to do."""
    cpus: PositiveInt
    gpus: Annotated[int, Field(ge=0)]
    memory_gb: PositiveInt
    hours: PositiveInt


class SiteConfig(Frozen):
    """Where jobs run (jobs/sites/*.toml)."""

    executor: Literal["local"]
    environment: dict[str, str] = {}
    """Environment variables of every task."""
