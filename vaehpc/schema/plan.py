"""The analysis plan: every limit, number and choice of the statistics, fixed before the data are seen."""

from __future__ import annotations

import hashlib
import json
import tomllib
from collections.abc import Iterator
from itertools import pairwise
from typing import Annotated, Any, Literal

from pydantic import Field, PositiveFloat, PositiveInt, field_validator

from vaehpc.schema.frozen import Frozen


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
    control: str = ""
    """AE arm that is the control of every arm that it may be; '': the first that is equal but for remedies."""
    most_departed: Annotated[float, Field(ge=0, le=1)] = 0.125
    """Share of a sound control's runs, at most, that are nonfinite or jumped and came back."""
    far_factor: PositiveFloat = 1.5
    """Far from the start: beyond `diverged_factor` times the control's radius there, or beyond this times it and
    within `displaced_factor` of the arm's own."""
    displaced_factor: PositiveFloat = 1.5
    displaced_share: Annotated[float, Field(ge=0, le=1)] = 0.5
    """Of an arm's finite runs, far from the start, from which on the arm may lie elsewhere."""
    min_arm_runs: PositiveInt = 4
    """Finite runs of an arm below which its median tells nothing of any one of them."""
    article_radius: PositiveFloat
    article_image_size: PositiveInt
    article_num_train: PositiveInt


class ProbePlan(Frozen):
    """The probe of the training that says when a run left its radius."""

    num_images: PositiveInt
    every_steps: PositiveInt
    burn_in_steps: PositiveInt
    burn_in_epochs: Annotated[float, Field(ge=0)] = 1.0
    abrupt_factor: PositiveFloat = 1.5
    """Of releases before 0.3.0: an onset was a radius above this times that of one probe earlier."""


class CoursePlan(Frozen):
    """What a run's radius does after the burn-in, as vaehpc.stats.course says it."""

    jump_factor: Annotated[float, Field(gt=1)] = 1.5
    base_probes: PositiveInt = 5
    base_rank: PositiveInt = 2
    min_base_probes: PositiveInt = 3
    base_intervals: PositiveInt = 10
    lasting_probes: PositiveInt = 5
    growth_probes: PositiveInt = 3


class RecorderPlan(Frozen):
    """When the flight recorder writes down what led to a jump.

    In the probe's burn-in nothing triggers but a loss or gradient that is not finite.
    """

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


class ReplayPlan(Frozen):
    """How often a run is forked and how its forks are judged, as vaehpc.stats.replay says it."""

    repeats: PositiveInt = 12
    identical_repeats: PositiveInt = 3
    alpha: Annotated[float, Field(gt=0, lt=1)] = 0.05
    calm_factor: Annotated[float, Field(gt=1)] = 1.14


Alternative = Literal["greater", "less", "two-sided"]

Endpoint = Literal["diverged", "diverged or nonfinite", "jumped", "jumped or nonfinite"]
"""What is counted of an arm's runs. The last two need no control, and stand in for the first where it is not sound."""


class ContrastPlan(Frozen):
    """Which arms are tested against each other, and what a study should be able to find."""

    against_control: Alternative
    reference: str
    against_reference: Alternative
    primary: tuple[str, ...] = ()
    """Contrasts that are confirmatory, as 'ARM, REFERENCE'; none: all of them."""
    primary_endpoint: Endpoint = "diverged"
    """Of the two that are tested, the one whose power is given and that a planned look judges."""
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
    jump_factors: tuple[PositiveFloat, ...] = (1.3, 2.0)
    lasting_probes: tuple[PositiveInt, ...] = (1,)


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
    course: CoursePlan = CoursePlan()
    recorder: RecorderPlan
    replay: ReplayPlan = ReplayPlan()
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
    def text(self) -> str:
        """The values as JSON, for a plan that was not read from a file."""
        return self.model_dump_json()


def text_sha256(text: str) -> str:
    """Hash of a plan's text, which is the plan's identity."""
    return hashlib.sha256(text.encode()).hexdigest()


def values_of(text: str) -> dict[str, Any]:
    """What a plan's text says: TOML, or JSON."""
    values: dict[str, Any] = json.loads(text) if text.startswith("{") else tomllib.loads(text)
    return values


def agrees(said: Any, taken: Any) -> bool:
    """Whether what a plan's text says is in the plan's values as JSON has them; either may have keys of its own."""
    if isinstance(said, dict) and isinstance(taken, dict):
        return all(agrees(said[key], taken[key]) for key in said.keys() & taken.keys())
    if isinstance(said, list) and isinstance(taken, list):
        return len(said) == len(taken) and all(map(agrees, said, taken))
    return bool(said == taken)


def defaults_of(said: dict[str, Any], plan: Frozen, prefix: str = "") -> Iterator[str]:
    """'contrasts.looks = ()' for each limit that a text does not name, as a study's does not where the limit is newer.

    None is no limit, which TOML cannot write, and '' no name.
    """
    for name, value in plan:
        if isinstance(value, Frozen):
            yield from defaults_of(said.get(name, {}), value, f"{prefix}{name}.")
        elif name not in said and value not in (None, ""):
            yield f"{prefix}{name} = {value}"
