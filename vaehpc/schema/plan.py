"""The analysis plan: every limit, number and choice of the statistics, fixed before the data are seen."""

from __future__ import annotations

import hashlib
import json
import tomllib
from collections.abc import Iterator
from itertools import pairwise
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationInfo, model_validator

from vaehpc.schema.frozen import STORED, Amount, Count, Frozen, Portion, asked, at_least

ASCENDING = asked(lambda numbers: all(one < next_one for one, next_one in pairwise(numbers)), "its numbers must ascend")
DIFFERENT = asked(lambda settings: len({each.name for each in settings}) == len(settings), "their names must differ")
Interval = Annotated[tuple[float, float], ASCENDING]


class RadiusPlan(Frozen):
    """The article's radius histogram and shells."""

    bin_width: Amount
    num_bins: Count
    shells: tuple[Interval, ...]


class ClassPlan(Frozen):
    """Limits of the run classes on d = ln R_median - m, relative to the control arm."""

    diverged_factor: Amount
    shifted_limit: Amount
    shifted_scatter: Amount
    min_scatter: Amount
    exploratory_scatter: Amount
    min_control_runs: Count
    control: str = ""
    """AE arm that is the control of every arm that it may be; '': the first that is equal but for remedies."""
    most_departed: Annotated[float, Field(ge=0, le=1)] = 0.125
    """Share of a sound control's runs, at most, that are nonfinite or jumped and came back."""
    far_factor: Amount = 1.5
    """Far from the start: beyond `diverged_factor` times the control's radius there, or beyond this times it and
    within `displaced_factor` of the arm's own."""
    displaced_factor: Amount = 1.5
    displaced_share: Annotated[float, Field(ge=0, le=1)] = 0.5
    """Of an arm's finite runs, far from the start, from which on the arm may lie elsewhere."""
    min_arm_runs: Count = 4
    """Finite runs of an arm below which its median tells nothing of any one of them."""
    article_radius: Amount
    article_image_size: Count
    article_num_train: Count


class ProbePlan(Frozen):
    """The probe of the training that says when a run left its radius."""

    num_images: Count
    every_steps: Count
    burn_in_steps: Count
    burn_in_epochs: Portion = 1.0
    abrupt_factor: Amount = 1.5
    """Of releases before 0.3.0: an onset was a radius above this times that of one probe earlier."""


class CoursePlan(Frozen):
    """What a run's radius does after the burn-in, as vaehpc.stats.course says it."""

    jump_factor: Annotated[float, Field(gt=1)] = 1.5
    base_probes: Count = 5
    base_rank: Count = 2
    min_base_probes: Count = 3
    base_intervals: Count = 10
    lasting_probes: Count = 5
    growth_probes: Count = 3

    @model_validator(mode="after")
    def _has_a_base(self, info: ValidationInfo) -> CoursePlan:
        if info.context != STORED and not self.base_rank <= self.min_base_probes <= self.base_probes:
            raise ValueError("base_rank <= min_base_probes <= base_probes does not hold")
        return self


MAX_TRIGGERS = 8
"""Dumps of one run's recorder, but for what is not finite: each holds a snapshot as large as a checkpoint."""


class RecorderPlan(Frozen):
    """When the flight recorder writes down what led to a jump.

    In the probe's burn-in nothing triggers but a loss or gradient that is not finite.
    """

    ring_steps: Count
    snapshot_steps: Count
    gradient_factor: Amount
    rms_limit: Amount
    log_var_limit: float
    probe_factor: Amount


class CensusPlan(Frozen):
    """Intervals in which components of log_var and of z - mu are counted."""

    log_var_interval: Interval
    difference_interval: Interval


class ReplayPlan(Frozen):
    """How often a run is forked and how its forks are judged, as vaehpc.stats.replay says it."""

    repeats: Count = 12
    identical_repeats: Count = 3
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
    num_permutations: Count
    looks: Annotated[tuple[Annotated[int, Field(gt=0, le=200)], ...], ASCENDING] = ()
    """Seeds per arm after which `reference` is judged against its control; none: once, without boundaries."""


class SensitivityPlan(Frozen):
    """Other limits of the classes under which runs are counted again."""

    diverged_factors: tuple[Amount, ...]
    shifted_limits: tuple[Amount, ...]
    jump_factors: tuple[Amount, ...] = (1.3, 2.0)
    lasting_probes: tuple[Count, ...] = (1,)


class ModesPlan(Frozen):
    """When the runs of an arm may be said to have a second mode."""

    min_runs: Annotated[int, Field(ge=4)]
    num_simulations: Count


class PairPlan(Frozen):
    """How a VAE is compared with the AE of the same seed."""

    num_images: Count
    quantiles: tuple[Annotated[float, Field(gt=0, lt=1)], ...]
    radius_margin: Amount
    num_resamples: Count


class GaussianPlan(Frozen):
    """How latents are compared with a normal distribution."""

    active_variance: Amount
    skewness_images: Count


class DimensionPlan(Frozen):
    """Neighbours that say how many dimensions latents fill. Images beyond the run's own are not asked for."""

    num_images: Annotated[Count, at_least(3)]
    num_neighbours: Annotated[int, Field(ge=2)]


class ClusterPlan(Frozen):
    """The inertia curve over numbers of clusters, and what is called its elbow."""

    method: Literal["subsampled", "minibatch"]
    num_clusters: Annotated[tuple[Count, ...], ASCENDING]
    subsample: Count
    num_starts: Count
    subsample_iterations: Count
    breaths: tuple[Count, ...]
    leading_axes: Count
    leading_iterations: Count
    full_iterations: Count
    batch_size: Count
    elbow_factor: Amount
    elbow_window: Count


class TsneSettings(Frozen):
    """One way to draw a t-SNE."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9]+(-[a-z0-9]+)*$")]
    """Part of a file's name."""
    perplexity: Annotated[Amount, at_least(1)]
    exaggeration: Amount
    early_iterations: Count
    iterations: Count
    pca_components: Annotated[Count, at_least(2)] | None = None
    """Of the first principal coordinates only; None: of all latent axes."""


class TsnePlan(Frozen):
    """Embeddings in the plane: of how many images, of which runs, with which settings."""

    sizes: tuple[Annotated[Count, at_least(2)], ...]
    large_sizes: tuple[Annotated[Count, at_least(2)], ...]
    large_seeds: tuple[int, ...]
    recall_neighbours: Count
    recall_images: Count
    settings: Annotated[tuple[TsneSettings, ...], DIFFERENT]


class AttributePlan(Frozen):
    """Linear probes of the attributes."""

    num_images: Annotated[Count, at_least(4)]
    test_share: Annotated[float, Field(gt=0, lt=1)]
    penalty: Portion


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
