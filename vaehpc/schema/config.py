"""Frozen, checked configuration: what a study, an arm and a run are. Defaults are the article's, each with its unit."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from itertools import product
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import ConfigDict, Field, NonNegativeFloat, PositiveFloat, field_validator

from vaehpc.schema.frozen import Amount, Count, Frozen, Portion, Result, at_least
from vaehpc.schema.plan import PlanConfig

ArmKind = Literal["ae", "vae"]
Precision = Literal["float32", "tf32", "mixed_bfloat16", "mixed_float16"]
Initializer = Literal["glorot", "he", "normal"]

Stream = Literal[
    "initialisation", "shuffling", "noise", "generation", "kmeans", "tsne", "gaussian", "dimension", "probes"
]
STREAMS: tuple[Stream, ...] = (
    "initialisation", "shuffling", "noise", "generation", "kmeans", "tsne", "gaussian", "dimension", "probes"
)  # fmt: skip
"""Independent random streams of a run. The position is part of every key: append only."""


CROSSED: tuple[Stream, ...] = ("initialisation", "shuffling", "noise")
"""Streams that a study can cross, which are those of the training. A run's level of each is a digit of its seed."""
MOST_LEVELS = 10

Levels = dict[Stream, Annotated[int, Field(ge=0, lt=MOST_LEVELS)]]
"""Of each stream of the training the seed that a crossed run draws it with."""


StudyStream = Literal["logrank", "modes", "images", "bootstrap", "crossed"]
STUDY_STREAMS: tuple[StudyStream, ...] = ("logrank", "modes", "images", "bootstrap", "crossed")
"""Independent random streams of a study's aggregate. The position is part of every key: append only."""

RENEWED = 1000
"""Added to a stream's position where a fork draws it anew: such a stream is none of any run's own."""


class ModelConfig(Frozen):
    """The net that an AE and a VAE share."""

    z_dim: Annotated[Count, at_least(2)] = 256
    """Dimension of the latent space; a plane at least, for the maps of the latents."""
    filters: tuple[Count, Count, Count, Count] = (32, 64, 128, 256)
    """Filters of the four Conv2D layers (assumption: the article does not give them)."""
    batch_norm: bool | Literal["inference"] = True
    """BatchNormalization after each convolution; the article's AE had none. inference: it keeps its first statistics, 0
    and 1, while it trains, too, as in a loop that forgets training=True, and so is a scale and a shift."""
    leaky_slope: Amount = 0.3
    """Negative slope of LeakyReLU (assumption)."""
    initializer: Initializer = "glorot"
    """Initial kernels: Glorot uniform (Keras' default, the article's), He normal, or N(0, 0.02)."""
    mu_scale: Amount = 1.0
    """Factor on the initial kernel of mu."""


class VaeConfig(Frozen):
    """What only a VAE has."""

    kl_weight: Portion = 1e-5
    """The article's `fact`: weight of the KL loss in the total loss."""
    epsilon_limit: Amount | None = None
    """Elementwise limit of |epsilon|; the article's remedy is 5. None: no limit."""
    epsilon_factor: Portion = 1.0
    """The article's `enc_v_eps_factor`: scales epsilon after the limit."""
    epsilon_limit_on: Literal["component", "tensor"] = "component"
    """What the limit acts on. tensor: one component beyond it turns the whole batch's epsilon into +-limit."""
    log_var_limit: Amount | None = None
    """Largest log_var; greater ones are clamped. None: no limit."""


class TrainConfig(Frozen):
    """How a run is trained."""

    epochs: Count = 24
    """Passes over the training images."""
    batch_size: Count = 128
    """Images per step; the last batch of an epoch may be smaller."""
    learning_rate: Amount = 5e-4
    """Adam's step size."""
    beta_1: Annotated[float, Field(ge=0, lt=1)] = 0.9
    """Adam's decay of the mean gradient; 0: no momentum."""
    beta_2: Annotated[float, Field(gt=0, lt=1)] = 0.999
    """Adam's decay of the mean squared gradient."""
    adam_epsilon: Amount = 1e-7
    """What Adam adds to the root of the mean squared gradient."""
    weight_decay: Amount | None = None
    """Part of each kernel that a step takes away, per learning rate, beside Adam's step (AdamW); biases, gamma and beta
    have none. None: no decay."""
    clipnorm: Amount | None = None
    """Largest global norm of the gradient; a greater one is scaled down. None: no limit."""
    precision: Precision = "float32"
    """Of the convolutions; losses, sampling and latent heads are true float32, but in tf32, in which a GPU computes all
    products of float32 with 10 bits of mantissa. Default of a study: mixed_bfloat16 where its trainings ask for GPUs,
    else float32."""
    jit_compile: bool | None = None
    """Have XLA compile blocks of steps. None: on a GPU, where it is faster, and not on a CPU, where it is slower."""
    threads: Count = 1
    """TensorFlow threads of a CPU run; only 1 repeats to the bit."""
    eval_images: Count = 20_000
    """Images (the first of the training split) whose latents are measured at each epoch end."""
    checkpoint_seconds: Amount = 600.0
    """Longest time without a checkpoint; an epoch's end has one, too, if that takes little of the time since then."""
    keep_every_epochs: Count = 6
    """Epochs between the checkpoints that are always made and stay, to replay from; of the others the newest two."""
    tensorboard: bool = False
    """Write scalars, images and latents for TensorBoard beside the record; nothing reads them back."""

    @property
    def policy(self) -> str:
        """Keras' name of the precision."""
        return "float32" if self.precision == "tf32" else self.precision


class SpikeConfig(Frozen):
    """A disturbance of one step, put in on purpose: a positive control on which the detector must fire."""

    kind: Literal["gradient", "log_var"]
    """gradient: the step's gradients times `strength`; log_var: `strength` added to one component of one image, the
    one with the largest |epsilon|."""
    strength: Amount
    steps_before_end: Count
    """The disturbed step, counted back from the end; 1 is the last."""

    def __str__(self) -> str:
        """'gradient x 1000, 150 steps before the end'."""
        sign = "x" if self.kind == "gradient" else "+"
        return f"{self.kind} {sign} {self.strength:g}, {self.steps_before_end} steps before the end"


class ForkConfig(Frozen):
    """Where a replayed run starts, and the one thing that it does otherwise."""

    source: str
    """The run that is replayed, as STUDY/RUN."""
    seed: Annotated[int, Field(ge=0, le=2**63 - 1)]
    """Its seed; a fork's own seed only counts the repeats."""
    checkpoint: str | None
    """Directory of the checkpoint or snapshot to start from; None: the start, as the keys make it."""
    step: Annotated[int, Field(ge=0, le=2**63 - 1)]
    """Steps done there."""
    until_step: Count
    """Steps at which the fork ends."""
    renewed: Literal["noise", "shuffling"] | None = None
    """The random stream that is drawn anew."""
    left_out: int | None = None
    """Position in the training split of an image that others of its batch replace."""
    fresh_moments: bool = False
    """Start with Adam's moments at zero."""
    levels: Levels = {}
    """Of the run that is replayed, where its study crosses streams."""


class NullWindow(Frozen):
    """Where the null forks of a replay start and end: as long as the others, while nothing happened to the run."""

    step: Count
    """Steps done at the checkpoint that they start from."""
    until_step: Count
    """Steps at which they end."""
    moved: PositiveFloat
    """Largest R of the run there over its smallest."""


class ReplayConfig(Frozen):
    """What the forks of a study replay: what became of the source run, and of R, the probe's median radius, before."""

    model_config = ConfigDict(allow_inf_nan=True)  # R is what it was
    source: str
    """The run that is replayed, as STUDY/RUN."""
    started_from: str
    """'trigger 1', 'epoch 18' or 'its start', of the source run."""
    step: Annotated[int, Field(ge=0, le=2**63 - 1)]
    """Steps done where the forks start."""
    until_step: Count
    """Steps at which they end."""
    calm_step: Count | None
    """Steps done at the last probe before the event and its trigger; None: there was none."""
    calm_radius: PositiveFloat | None
    """R there."""
    jumped_radius: NonNegativeFloat | None
    """R of the later probe up to `until_step` whose ln R is farthest; None: the run was not finite by then."""
    deterministic: bool
    """Whether the source run's device repeats to the bit, so that identical forks must."""
    event_step: int | None = None
    """Steps done at the first probe that saw the jump, or the first step, counted from 0, that was not finite; None:
    planned by a release before 0.3.0."""
    epsilon_max: float | None = None
    """Largest |epsilon| from the start of the forks to the event; None: not recorded, or an AE."""
    null: NullWindow | None = None
    """None: the run was calm nowhere before for so long."""
    probe_sha256: str | None = None
    """Of the source run's probe; None: not known, or it holds no probe."""


class SweptConfig(Frozen):
    """Where an arm of a sweep comes from: it is its base but for the value of one setting."""

    base: str
    """Name of the arm that was multiplied."""
    setting: str
    """As on the command line, 'train.learning_rate'."""


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
    swept: SweptConfig | None = None
    """None: not an arm of a sweep."""

    @property
    def base(self) -> str:
        """The arm's name, without what a sweep adds to it."""
        return self.name if self.swept is None else self.swept.base

    @property
    def place(self) -> tuple[str, Any] | None:
        """Setting and value at which a sweep has this arm."""
        return None if self.swept is None else (self.swept.setting, self.settings[self.swept.setting])

    @property
    def kind(self) -> ArmKind:
        """Whether this arm is an AE or a VAE."""
        return "ae" if self.vae is None else "vae"

    @property
    def has_noise(self) -> bool:
        """Whether what is drawn for z changes anything."""
        return self.vae is not None and self.vae.epsilon_factor > 0

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
        """Whether this is an AE arm equal to `arm` in all that an AE has, but for clipped gradients, a remedy."""
        if self.vae is not None or self.spike is not None:
            return False
        return self.model == arm.model and self.train == arm.train.model_copy(update={"clipnorm": self.train.clipnorm})


def control_of(arm: ArmConfig, arms: Mapping[str, ArmConfig], named: str = "") -> str | None:
    """The control of `arm` among these; None where there is none.

    Args:
        arm: an AE is, without a named one, its own.
        arms: of the study, by name.
        named: the arm that the plan says, or in a sweep that arm of equal value, wherever it is possible. Else the
            first with the arm's own clipped gradients or, as a remedy is what is tested, without any.
    """
    possible = {name: other for name, other in arms.items() if other.is_control_of(arm)}
    limits = (None, arm.train.clipnorm)
    as_named = (name for name, other in possible.items() if named in (name, other.base))
    return next(as_named, next((name for name, other in possible.items() if other.train.clipnorm in limits), None))


class DataConfig(Frozen):
    """A prepared data set as a study refers to it; `sha256` is its identity, `path` only where it lies."""

    path: str
    name: str
    sha256: str
    synthetic: bool
    image_size: Count
    num_train: Count
    entropy_floor: float
    """H(x) of the training split in nats per pixel x pixels, the least reconstruction loss possible."""
    has_attributes: bool = True
    """Without them there are no attribute probes."""
    photographs: bool = False
    """Whether it is neither CelebA nor built-in faces."""


class ImageRecord(Result):
    """What an image of containers/Dockerfile says of itself."""

    target: Literal["train", "analysis"]
    revision: str
    """Commit of the code in it; empty: not known."""
    digest: str
    """'sha256:...' of its files: the same for an archive, a sandbox and a SIF made of one image."""


class Provenance(Result):
    """What code, image and packages something was made with."""

    code_version: str
    """'0.2.0+g1a2b3c4d5e6f': release and commit; of a changed checkout with '.dirty' and the start of `sources`."""
    sources: str | None = None
    """SHA-256 of the package's Python files, which no commit and no git is needed for; None: made by 0.1.0."""
    image_digest: str | None
    packages: dict[str, str]


MAX_SEEDS = 1_000_000


class RunConfig(Frozen):
    """run.json: everything that the tasks of one run need."""

    study: str
    arm: ArmConfig
    seed: Annotated[int, Field(ge=0, lt=MAX_SEEDS)]
    root_seed: Annotated[int, Field(ge=0, le=2**63 - 1)]
    data: DataConfig
    plan: PlanConfig
    plan_sha256: str
    """Of the text that the study keeps."""
    provenance: Provenance
    levels: Levels = {}
    """Empty: the seed is that of every stream; else of those that are not here."""

    @property
    def name(self) -> str:
        """ARM-seedNNN."""
        return run_name(self.arm.name, self.seed)

    @property
    def identity(self) -> str:
        """SHA-256 of what makes the run, so that nothing of another one is taken for its own.

        Without what has its default: a setting that a later release adds changes nothing.
        """
        arm = self.arm.model_dump_json(exclude_defaults=True, exclude={"fork": {"checkpoint"}, "swept": True})
        crossed = f" {self.levels}" if self.levels else ""
        return hashlib.sha256(f"{self.root_seed} {self.seed} {self.data.sha256} {arm}{crossed}".encode()).hexdigest()

    @property
    def steps_per_epoch(self) -> int:
        """ceil(num_train / batch_size): the last, smaller batch is kept."""
        return -(-self.data.num_train // self.arm.train.batch_size)

    @property
    def burn_in(self) -> int:
        """Steps in which a radius is still finding its place: the plan's, or its epochs if they are longer."""
        plan = self.plan.probe
        return max(plan.burn_in_steps, math.ceil(plan.burn_in_epochs * self.steps_per_epoch))

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

        A fork has the keys of the run that it replays, but for the stream that it draws anew. A run of a crossed study
        draws each stream of the training as the run does whose seed is its level.
        """
        index, fork = STREAMS.index(stream), self.arm.fork
        levels, seed = (self.levels, self.seed) if fork is None else (fork.levels, fork.seed)
        spawn_key: tuple[int, ...] = (levels.get(stream, seed), index)
        if fork is not None and fork.renewed == stream:
            spawn_key = (fork.seed, RENEWED + index, self.seed)
        return np.random.SeedSequence(self.root_seed, spawn_key=(*spawn_key, *counters))


STUDY_NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]*$"
"""A study's name is a folder's: no spaces, no slashes."""


class StudyConfig(Frozen):
    """study.json: arms x seeds on one data set under one plan."""

    name: Annotated[str, Field(pattern=STUDY_NAME)]
    preset: str
    root_seed: Annotated[int, Field(ge=0, le=2**63 - 1)]
    data: DataConfig
    plan: PlanConfig
    plan_text: str
    """As it was when the study was first launched: TOML, or the JSON that 0.1.0 hashed. A study keeps its own."""
    plan_sha256: str
    """Of that text."""
    arms: dict[str, ArmConfig]
    seeds: dict[str, tuple[int, ...]]
    """Seeds of each arm, sorted."""
    provenance: Provenance
    precision: Precision | None = None
    """Of arms that say no other, resolved at the first launch; None: that was by a release before 0.3.0, in which it
    was float32 unless the line said otherwise."""
    replay: ReplayConfig | None = None
    """Set where the runs are forks of one run."""
    cross: dict[Stream, Annotated[int, Field(ge=2, le=MOST_LEVELS)]] = {}
    """How many levels each crossed stream of the training has; its others have one. Empty: each seed is that of every
    stream of its run."""
    first_seeds: dict[str, tuple[int, ...]] | None = None
    """Seeds of each arm at the first launch; arms and seeds beyond these came later. None: not known."""

    @field_validator("seeds")
    @classmethod
    def _sorted_and_distinct(cls, seeds: dict[str, tuple[int, ...]]) -> dict[str, tuple[int, ...]]:
        return {arm: tuple(sorted(set(of_arm))) for arm, of_arm in seeds.items()}

    def key(self, stream: StudyStream, *counters: int) -> np.random.SeedSequence:
        """Key of one random stream of the aggregate; no run has it, for the seeds of runs are smaller."""
        return np.random.SeedSequence(self.root_seed, spawn_key=(MAX_SEEDS, STUDY_STREAMS.index(stream), *counters))

    def control_of(self, arm: str) -> str | None:
        """The arm that is the control of this one; None where there is none."""
        return control_of(self.arms[arm], self.arms, self.plan.classes.control)

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
                plan_sha256=self.plan_sha256,
                provenance=self.provenance,
                levels=levels_of(seed) if self.cross else {},
            )
            for arm in self.arms.values()
            for seed in self.seeds[arm.name]
        ]


def cells(cross: Mapping[Stream, int], arm: ArmConfig) -> tuple[int, ...]:
    """Seeds of an arm in a study that crosses streams, in full: 213 has level 2 of the first of CROSSED, 3 of the last.

    An arm that draws no noise has one level of it.
    """
    counts = [1 if stream == "noise" and not arm.has_noise else cross.get(stream, 1) for stream in CROSSED]
    return tuple(int("".join(map(str, digits))) for digits in product(*map(range, counts)))


def levels_of(seed: int) -> Levels:
    """The level of each stream of the training that these digits are."""
    return {stream: int(digit) for stream, digit in zip(CROSSED, f"{seed:03d}", strict=True)}


def run_name(arm: str, seed: int) -> str:
    """`vae-tiny-seed003`: made from the settings, never from a position in a list."""
    return f"{arm}-seed{seed:03d}"
