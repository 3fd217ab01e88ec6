"""Frozen result types: what one stage hands on to the next, and what a study says in the end."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import ConfigDict, Field, NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from vaehpc.schema.config import Precision, Provenance, ReplayConfig, Stream
from vaehpc.schema.data import Resize, SplitName
from vaehpc.schema.frozen import NonNegative, Proportion, Result
from vaehpc.schema.plan import Alternative, Endpoint

RunClass = Literal["nonfinite", "diverged", "displaced", "collapsed", "shifted", "regular", "unclassified"]
RUN_CLASSES: tuple[RunClass, ...] = (
    "nonfinite", "diverged", "displaced", "collapsed", "shifted", "regular", "unclassified"
)  # fmt: skip


# Prepared data

ATTRIBUTES = (
    "5_o_Clock_Shadow", "Arched_Eyebrows", "Attractive", "Bags_Under_Eyes", "Bald", "Bangs", "Big_Lips", "Big_Nose",
    "Black_Hair", "Blond_Hair", "Blurry", "Brown_Hair", "Bushy_Eyebrows", "Chubby", "Double_Chin", "Eyeglasses",
    "Goatee", "Gray_Hair", "Heavy_Makeup", "High_Cheekbones", "Male", "Mouth_Slightly_Open", "Mustache",
    "Narrow_Eyes", "No_Beard", "Oval_Face", "Pale_Skin", "Pointy_Nose", "Receding_Hairline", "Rosy_Cheeks",
    "Sideburns", "Smiling", "Straight_Hair", "Wavy_Hair", "Wearing_Earrings", "Wearing_Hat", "Wearing_Lipstick",
    "Wearing_Necklace", "Wearing_Necktie", "Young",
)  # fmt: skip
"""CelebA's 40 attributes, in the order of list_attr_celeba.txt; those of every data set made before 0.3.0."""


class Shard(Result):
    """One TFRecord file: the images first_image ... first_image + num_images - 1 of the set."""

    file: str
    split: str
    first_image: NonNegativeInt
    num_images: PositiveInt
    sha256: str


class Split(Result):
    """Images first_image ... first_image + num_images - 1 of the set; `entropy_floor` is the mean H(x) of an image."""

    first_image: NonNegativeInt
    num_images: NonNegativeInt
    entropy_floor: NonNegative


class Preprocessing(Result):
    """How pixels were made; part of the data's identity."""

    version: int
    size: int
    crop: int | None
    """Side of the centre crop before the resize; 0: none; None: each image's shorter side."""
    resize: Resize
    split: SplitName
    num_train: NonNegativeInt
    images_per_shard: int


class Manifest(Result):
    """manifest.json of a data set, written last. `sha256` covers all but `name`, `source`, `attributes`."""

    name: str
    synthetic: bool
    num_images: NonNegativeInt
    preprocessing: Preprocessing
    splits: dict[str, Split]
    shards: tuple[Shard, ...]
    sidecars: dict[str, str]
    """SHA-256 of attributes.npy and image_numbers.npy, and of photographs of image_names.json."""
    sha256: str
    source: str | None = None
    """What `prepare` read: hash of the images' names, sizes and checksums, or which faces were drawn."""
    attributes: tuple[str, ...] = ATTRIBUTES
    """The columns of attributes.npy, by name."""
    photographs: bool = False
    """Whether it is neither CelebA nor built-in faces."""


# One run


class EpochRecord(Result):
    """A line of history.jsonl: losses as float64 means over the epoch's images (nats per image), R = ||mu||_2."""

    epoch: PositiveInt
    step: PositiveInt
    total_loss: float
    reconstruction_loss: float
    kl_loss: float
    """With its weight, as the article prints it; 0 for an AE."""
    excess_loss: float
    """reconstruction_loss - H(x)."""
    radius_median: NonNegative
    radius_mean: NonNegative
    radius_max: NonNegative
    offset: NonNegative
    """|mean mu|."""
    spread: NonNegative
    """sqrt(tr Cov mu): R_rms^2 = offset^2 + spread^2."""
    log_var_min: float | None
    log_var_mean: float | None
    log_var_max: float | None


class ProbeRecord(Result):
    """A row of recorder/probe.arrow: ||mu||_2 of the probe images after `step` steps."""

    step: NonNegativeInt
    radius_median: NonNegative
    radius_max: NonNegative
    offset: NonNegative
    spread: NonNegative


TriggerSignal = Literal["gradient_norm", "gradient_rms", "log_var_max", "probe_radius", "nonfinite"]


class TriggerRecord(Result):
    """trigger.json: what made the flight recorder dump its last steps, beside steps.arrow and snapshot/."""

    step: NonNegativeInt
    """Counted from 0, as in recorder/steps.arrow; for the probe, the last step before it."""
    signal: TriggerSignal
    value: float
    limit: float
    snapshot_step: NonNegativeInt
    """Steps done in the state that snapshot/ holds."""
    images: tuple[NonNegativeInt, ...]
    """The step's batch: positions in the training split."""
    largest_loss_image: NonNegativeInt | None
    """None where no loss of the batch was finite; records of 0.2.0 name an image all the same."""
    largest_log_var_image: NonNegativeInt | None
    """As above; None of an AE."""
    ring_sha256: str | None = None
    """Of ring.arrow; None: written by a release before 0.3.0, as the next."""
    identity: str | None = None
    """Of the run."""


class Stability(Result):
    """How near a kept state stood to the edge of stability; vaehpc/training/stability.py has the formulas."""

    state: str
    """'checkpoint', 'snapshot before trigger 2'."""
    step: NonNegativeInt
    """Steps done."""
    sharpness: float | None
    """Largest eigenvalue of the preconditioned Hessian P^-1/2 H P^-1/2; None: not found."""
    sharpness_ratio: float | None
    """By its limit 2 (1 + beta_1) / ((1 - beta_1) lr), with lr as the next step's clipped gradient shortens it."""
    curvature: float
    """Of the loss along P^-1 g."""
    curvature_ratio: float
    """By its limit 2 / lr, as above."""
    gradient_norm: NonNegative
    """Of the next step's batch, before it is clipped."""
    clip: NonNegative
    """Factor by which that gradient is clipped; 1: it is not."""
    squares_by_v: NonNegative
    """Median of g^2 / v_hat over the weights that ever had a gradient, of that gradient as it is clipped."""
    loss: float
    """Of the images on which the Hessian is taken, nats per image."""
    radius_median: NonNegative
    """R of the probe's images."""
    decoder_radius: NonNegative | None
    """R times the Frobenius norm of the decoder's first kernel; None with BatchNormalization, which takes it out."""
    scale: float | None
    """c with the least |mu - c mu'|^2 over the probe's images, mu' of the kept state before; None of the first."""
    scale_share: float | None
    """1 - min_c |mu - c mu'|^2 / |mu - mu'|^2: share of the latents' change that is one of scale alone."""
    loss_paid: float | None = None
    """What `loss` rose since then, less what c alone costs, which is in the KL loss; None of the first, and in files
    written before it was known."""


class RunStability(Result):
    """explanation/stability.json of a run."""

    run: str
    states: tuple[Stability, ...]


DeviceKind = Literal["cpu", "gpu"]


class TrainedRecord(Result):
    """trained.json: the marker of a finished training."""

    run: str
    step: int
    epochs: int
    state_sha256: str
    """Hash of weights, optimizer and counters at the end."""
    latents_sha256: dict[str, str]
    """Of the files in latents/, by their names there."""
    files_sha256: dict[str, str] = {}
    """Of history, recorder and records of triggers, by their names in the run's folder; empty: written by a release
    before 0.3.0."""
    identity: str | None = None
    """Of the run; None: as above."""
    nonfinite_step: int | None
    """First step whose loss or gradient was NaN or infinite (training stopped there), or None."""
    num_attempts: NonNegativeInt
    seconds: float
    """Wall time of the attempt that finished."""
    seconds_per_epoch: float
    """Mean wall time of that attempt's epochs, with their evaluation and checkpoints; NaN if it trained none."""
    device: str
    device_kind: DeviceKind
    device_kind_is_guessed: bool = False
    """From the name alone: of 0.1.0 no more is known."""
    driver: str | None = None
    """Version of the GPU's driver; None: no GPU, or not known, as the next."""
    capability: str | None = None
    """Compute capability of the GPU, '9.0'."""
    precision: Precision | None = None
    """None: trained by a release before 0.3.0."""
    tensor_float_32: bool
    """Whether products of float32 were computed in TF32, which GPUs of compute capability 8.0 and later have."""
    threads: int
    provenance: Provenance


class Made(Result):
    """A start of a run that left something of its result: what it was made with."""

    stage: Literal["train", "statistics"]
    provenance: Provenance
    device: str | None = None
    """None: not known, as the next; or that of statistics."""
    driver: str | None = None
    tensor_float_32: bool | None = None
    """None: not known, or that of statistics."""


class Histogram(Result):
    """Counts in [i w, (i + 1) w), i = 0 ... num_bins - 1, and beyond."""

    bin_width: PositiveFloat
    counts: tuple[NonNegativeInt, ...]
    overflow: NonNegativeInt

    @property
    def centres(self) -> list[float]:
        """Bin centres, as the article plots them."""
        return [self.bin_width * (i + 0.5) for i in range(len(self.counts))]


class Distribution(Result):
    """Of some numbers: `median` and `mean`, where it has them, lie between `min` and `max`, but for rounding."""

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        low, high = (getattr(self, name) for name in ("min", "max"))
        slack = 1e-5 * max(abs(low), abs(high))
        for name in ("median", "mean"):
            value = getattr(self, name, low)
            if low > high or value < low - slack or value > high + slack:
                raise ValueError(f"{name} cannot be {value} between {low} and {high}")
        return self


class RadiusStatistics(Distribution):
    """Distribution of R = ||.||_2 over the images."""

    median: NonNegative
    mean: NonNegative
    min: NonNegative
    max: NonNegative
    mode: NonNegative
    """Centre of the fullest bin; the overflow bin is reported as infinity."""
    histogram: Histogram
    shell_shares: dict[str, Proportion]
    """Share of images with low < R < high, keyed 'low-high'."""


class LogVarCensus(Distribution):
    """All num_images x z_dim components of log_var."""

    min: float
    max: float
    mean: float
    num_in_interval: NonNegativeInt


class DifferenceCensus(Result):
    """z against mu: components, and radii."""

    max_component: float
    num_in_interval: NonNegativeInt
    max_abs_radius: NonNegative
    mean_abs_radius: NonNegative
    max_rel_radius: NonNegative
    mean_rel_radius: NonNegative
    expected_mean_abs_radius: NonNegative
    """sqrt(2/pi) mean(sqrt(sum mu^2 sigma^2) / R): what Gaussian noise gives; a self-check."""


Head = Literal["mu", "log_var"]


class HeadNorms(Result):
    """Weights of the dense layer of mu or of log_var."""

    kernel_norm: NonNegative
    """Frobenius."""
    bias_norm: NonNegative
    bias_mean: float


class Spread(Distribution):
    """Of a statistic over the latent axes; NaN where no axis has it."""

    min: float
    median: float
    max: float


class MardiaStatistics(Result):
    """Mardia's multivariate skewness and kurtosis, each beside what a normal distribution gives."""

    skewness: float
    skewness_expected: NonNegative
    skewness_images: NonNegativeInt
    """A random sample of the images."""
    kurtosis: NonNegative
    kurtosis_expected: NonNegative


class GaussianStatistics(Result):
    """mu beside the normal distribution with its mean and covariance. Arrays lie in statistics/."""

    num_images: PositiveInt
    """Those that are finite."""
    sd: Spread
    skewness: Spread
    kurtosis: Spread
    """Excess."""
    ks: Spread
    """Kolmogorov-Smirnov distance of an axis from the normal of its mean and sd."""
    correlation_max: Proportion
    """Largest absolute correlation of two axes."""
    rank: NonNegativeInt
    """Principal axes with any variance."""
    participation_ratio: NonNegative
    num_active: NonNegativeInt
    """Axes with a variance above the plan's limit."""
    mahalanobis_ks: Proportion
    """Kolmogorov-Smirnov distance of the squared Mahalanobis distances from chi^2 with `rank` degrees of freedom."""
    mardia: MardiaStatistics
    radius_mean: NonNegative
    radius_mean_expected: NonNegative
    """Of the normal distribution."""
    radius_sd: NonNegative
    radius_sd_expected: NonNegative


class DimensionStatistics(Result):
    """Nearest neighbours of a random sample of mu, and of as many points of the normal with its mean and covariance."""

    num_images: PositiveInt
    num_neighbours: PositiveInt
    two_nn: NonNegative
    two_nn_surrogate: NonNegative
    distance_ratio: NonNegative
    """To that of the surrogate: below 1, the points lie closer together than normal ones."""


class InertiaCurve(Result):
    """Within-cluster sums of squares of mu over numbers of clusters."""

    method: Literal["subsampled", "minibatch"]
    num_clusters: tuple[PositiveInt, ...]
    inertia: tuple[NonNegative, ...]
    seeds: tuple[NonNegativeInt, ...]
    """scikit-learn's random_state for each."""
    elbow: PositiveInt | None
    """None: no elbow."""
    elbow_factor: float
    """Largest ratio of the log-log slopes on the two sides of a number of clusters."""


class TsneResult(Result):
    """One embedding, whose coordinates lie in statistics/."""

    settings: str
    num_images: PositiveInt
    perplexity: NonNegative
    kl_divergence: float
    neighbour_recall: Proportion
    """Share of the nearest neighbours in latent space that are such in the plane."""
    neighbour_recall_expected: Proportion
    """Of points strewn at random."""
    seed: NonNegativeInt
    """openTSNE's random_state."""


class AttributeProbe(Result):
    """A linear probe of one attribute, judged on images that it was not fitted on; NaN where all or none have it."""

    share: Proportion
    """Of the judging images, with the attribute: the base rate."""
    auc: Proportion
    """Area under the ROC curve; 0.5 is useless."""
    balanced_accuracy: Proportion
    """Mean of sensitivity and specificity; 0.5 is useless."""


class LatentStatistics(Result):
    """statistics.json of a run; needs no other run."""

    run: str
    num_images: PositiveInt
    z_dim: PositiveInt
    num_nonfinite: NonNegativeInt
    """Components of mu, log_var and z that are NaN or infinite; radii below are over the finite images."""
    radius_mu: RadiusStatistics
    radius_z: RadiusStatistics
    offset: NonNegative
    spread: NonNegative
    log_var: LogVarCensus | None
    """None of an AE, as the next; None, as all further ones but `gaussian` and `heads`, of a run that is not finite:
    it is compared with none."""
    difference: DifferenceCensus | None
    gaussian: GaussianStatistics | None = None
    """None, as the next two, where fewer than four images are finite or they do not differ."""
    dimension: DimensionStatistics | None = None
    inertia: InertiaCurve | None = None
    tsne: tuple[TsneResult, ...] = ()
    probes: dict[str, AttributeProbe] | None = None
    """By attribute; None where the data set is not there any more."""
    heads: dict[Head, HeadNorms] | None = None
    """None where the run has no checkpoint any more."""
    scalars: dict[str, float] = {}
    """What else is measured of finite latents, by its name in vaehpc/stats/quantities.py."""
    plan_sha256: str
    state_sha256: str | None = None
    """Of the trained state whose latents were measured; None: measured by a release before 0.3.0."""
    arrays_sha256: dict[str, str] = {}
    """Of the arrays in statistics/, by file name; empty: as above."""


# The study


class Interval(Result):
    """Two-sided confidence interval of a proportion."""

    low: Proportion
    high: Proportion
    level: Proportion
    method: str


class TriggerMark(Result):
    """That the flight recorder fired, at which step, counted from 0, and by which signal."""

    step: int
    signal: TriggerSignal


class CourseMark(Result):
    """When a run's radius left where it was, as vaehpc.stats.course says it."""

    kind: Literal["jump", "growth", "excursion", "unconfirmed"]
    """unconfirmed: a jump that the last probe alone saw."""
    step: int
    """Steps done at the first probe that saw it."""
    after: int
    """Steps done at the probe before."""
    factor: float
    """R over exp(b_t + m_t); of growth, over its limit."""
    gap: bool = False
    """Whether probes are lacking between the two."""


class RunCourse(Result):
    """What a run's radius did after the burn-in."""

    first_step: int | None = None
    """Steps done at the first probe after it; None: there was none."""
    far: bool | None = None
    """Whether it was far from its control's there already; None: not known."""
    marks: tuple[CourseMark, ...] = ()
    unknown_after: int | None = None
    """Steps done at the last probe, where the run went on and its probe is cut or damaged."""

    def first(self, *kinds: str) -> CourseMark | None:
        """The first mark of these kinds."""
        return next((mark for mark in self.marks if mark.kind in kinds), None)

    @property
    def departed(self) -> CourseMark | None:
        """The first jump or growth."""
        return self.first("jump", "growth")


class StateChange(Result):
    """What moved from one measured state of a run to the next, as Stability has it of the second."""

    steps: tuple[int, int]
    """Done."""
    radii: tuple[float, float]
    decoder_radii: tuple[float, float] | None
    scale: float | None
    scale_share: float | None
    loss_paid: float | None


EventKind = Literal["jump", "growth", "excursion", "unconfirmed", "nonfinite"]


class MeasuredEvent(Result):
    """An event of a run whose kept states were measured."""

    kind: EventKind
    step: int
    """As the mark's; of NaN that step."""
    state_step: int | None
    """Steps done at the last measured state before it; None: there is none."""
    sharpness_ratio: float | None
    """Of that state, by its limit; None, too, where it was not found."""
    changes: tuple[StateChange, ...] = ()
    """Between neighbouring states, as far as the event lies between them."""


class EdgeSummary(Result):
    """How near to the edge of stability a run stood, from its explanation/stability.json."""

    events: tuple[MeasuredEvent, ...]
    calm_ratios: tuple[float, ...]
    """Sharpness by its limit of the states between which and their neighbours nothing happened."""
    num_states: NonNegativeInt


class RunSummary(Result):
    """One run in summary.json. A run without results is missing: class and radius are None.

    A run that is not finite has no end state: radii, losses and the values of `cloud` are None.
    """

    model_config = ConfigDict(serialize_by_alias=True, validate_by_name=True, validate_by_alias=True)

    arm: str
    seed: int
    run_class: RunClass | None = Field(alias="class")
    radius_median: float | None
    radius_mode: float | None
    course: RunCourse = RunCourse()
    onset_step: int | None
    """Of the first jump or growth, as the next."""
    onset_kind: Literal["jump", "growth"] | None
    verdict: str | None = None
    """'(jump seen at step 60: gradient spike; forks with new noise, gradient norm limited to 4.1: 0 of 12 jump; with
    new noise: 11 of 12 jump)', of the replays that lie beside the study."""
    edge: EdgeSummary | None = None
    """None: `explain --stability` was not asked of it."""
    ever_diverged: bool | None
    """Whether it jumped, grew, or ended beyond the limit; None: no control, or its arm lies elsewhere."""
    state_sha256: str | None = None
    """Of the weights at the end, or at the last finite state."""
    losses_sha256: str | None = None
    """Of the recorded total losses, float64, step by step; None: nothing is recorded."""
    limits_acted: dict[str, int] = {}
    """Steps in which each limit of its arm changed anything, of those that are recorded."""
    num_recorded: NonNegativeInt = 0
    """Steps that are recorded."""
    reconstruction_loss: float | None
    kl_loss: float | None
    nonfinite_step: int | None = None
    """First step whose loss or gradient was NaN or infinite; None where there was none: of a run of class `nonfinite`
    its latents then hold the NaN or infinity. Summaries of 0.2.0 do not have it."""
    triggers: tuple[TriggerMark, ...] = ()
    """Of the flight recorder, in the order of their steps."""
    missing_stage: Literal["train", "statistics"] | None
    last_words: str | None
    """End of the log of a run that is missing."""
    followed_steps: int = 0
    """Steps up to which its radius was seen: the end, a NaN or infinity, or the last probe of a missing run."""
    cloud: dict[str, float | int | None] = {}
    """How its latent points lie: the quantities that are `shown` in vaehpc/stats/quantities.py; empty if missing."""


class Share(Result):
    """Of the runs of an arm that ended, those that count for an endpoint."""

    count: NonNegativeInt
    num_ended: NonNegativeInt
    """Of jumps without the runs whose course is unknown."""
    interval: Interval
    other_intervals: tuple[Interval, ...]
    """By other methods."""
    if_none_missing: Proportion
    """The rate had no missing run counted, and next had every one."""
    if_all_missing: Proportion

    @property
    def rate(self) -> float:
        """count / num_ended."""
        return self.count / self.num_ended


How = Literal["jumped", "grew", "early", "unconfirmed", "unseen"]
"""How a diverged run left: early: it was far from its control at the first probe after the burn-in; unconfirmed: the
last probe alone saw a jump; unseen: the probe shows none of these."""


class ArmSummary(Result):
    """Counts over the runs of an arm, and the rates among those that ended."""

    num_runs: NonNegativeInt
    num_missing: NonNegativeInt
    num_diverged: NonNegativeInt
    num_ever_diverged: NonNegativeInt
    num_diverged_or_nonfinite: NonNegativeInt
    num_nonfinite: NonNegativeInt
    num_shifted: NonNegativeInt
    num_collapsed: NonNegativeInt
    num_displaced: NonNegativeInt = 0
    num_unclassified: NonNegativeInt
    diverged_how: dict[How, int] = {}
    returned_how: dict[How, int] = {}
    """Ended runs that jumped or grew and are neither diverged nor nonfinite in the end."""
    num_nonfinite_after: NonNegativeInt = 0
    """Nonfinite runs that had jumped or grown before."""
    num_jumped: NonNegativeInt = 0
    """Ended runs that jumped at any time."""
    num_excursions: NonNegativeInt = 0
    """Ended runs with excursions."""
    num_far: NonNegativeInt = 0
    """Ended runs that were far from their control at the first probe after the burn-in."""
    first_step: int | None = None
    """Steps done at that probe; None: no run has one."""
    endpoints: dict[Endpoint, Share] = {}
    """'diverged' and 'diverged or nonfinite' only where `unjudged` is None; the others where anything ended."""
    unjudged: Literal["displaced", "too few", "unsound control", "unclassed"] | None = None
    """Why the arm has no rate by class: it has displaced runs; a run far from the start in an arm of so few that
    nobody can tell; its control is not sound; there is no control."""
    regular_factor: float | None = None
    """Of a displaced arm whose runs scatter little: its median radius over its control's."""
    rate: Proportion | None
    """Of diverged runs, as in `endpoints`, as the next; None where nothing ended or the classes are not judged."""
    low: Proportion | None
    high: Proportion | None
    level: Proportion
    method: str
    control: str | None
    """The AE arm whose radii this arm's classes are relative to, 'article', or None."""
    control_faults: dict[str, str] = {}
    """Runs of the control for which it is not sound, and what each did; empty: it is sound, or there is none."""
    provisional: bool
    exploratory: bool
    control_radius: float | None = None
    """exp(m), m the median of ln R over the control's finite runs."""
    control_scatter: float | None = None
    """s of ln R over these."""


class EndpointTest(Result):
    """x of n ended runs of an arm against y of m of its reference, tested."""

    count: NonNegativeInt
    num_ended: NonNegativeInt
    reference_count: NonNegativeInt
    reference_ended: NonNegativeInt
    boschloo: Proportion
    """p of Boschloo's exact test, in the direction of the plan."""
    two_sided: Proportion
    """p of the same in both directions."""
    holm: Proportion | None
    """Adjusted over both endpoints of all confirmatory contrasts; None: exploratory, as the next."""
    holm_if_missing: Proportion | None
    """The largest that `holm` can be, however the missing runs end."""
    boschloo_if_missing: tuple[Proportion, Proportion]
    """Least and largest p of Boschloo's test over the ways in which the missing runs of both arms can end."""
    fisher: Proportion
    only_arm: NonNegativeInt
    """Pairs of equal seeds of which the arm's run alone counts."""
    only_reference: NonNegativeInt
    mcnemar: Proportion | None
    """p of McNemar's exact test over the pairs; None where no pair is discordant."""


class Contrast(Result):
    """Two arms whose rates are tested."""

    arm: str
    reference: str
    is_control: bool
    """Whether the reference is the arm's control."""
    alternative: Alternative
    tests: dict[Endpoint, EndpointTest]
    """Two of them; none where every pair of runs is equal to the bit."""
    exploratory: tuple[str, ...] = ()
    """Why it is not confirmatory, in words."""
    num_pairs: NonNegativeInt
    """Seeds that ended in both arms."""
    num_equal: NonNegativeInt = 0
    """Of these, pairs that are equal to the bit."""
    family: NonNegativeInt
    """Tests over which Holm's adjustment goes."""
    power: Proportion
    """Probability with which so many runs find the plan's rate against its `versus` at the family's first threshold."""
    least_p: Proportion
    """What Boschloo's p would be if every run of the one arm counted and none of the other."""
    logrank: float | None
    """Log-rank statistic of the first event, positive where the arm has more than expected; None without any."""
    logrank_p: Proportion | None
    """Two-sided, by permutation of the arms."""
    num_permutations: NonNegativeInt
    """That were drawn; 0: all were enumerated, or there was no event."""


class PlannedLook(Result):
    """The counts of the plan's reference arm and of its control, judged after as many seeds as the plan says."""

    arm: str
    reference: str
    looks: tuple[int, ...]
    """Seeds per arm at each look that is planned."""
    number: NonNegativeInt
    """Of this look, from 1."""
    spent: float
    """Probability, at most, to have found a difference by now that is not there."""
    num_diverged: NonNegativeInt
    reference_diverged: int
    least_diverged: int | None
    """Runs of the arm that must have diverged to stop, beside so many of the reference; None: no number is enough."""
    stops: bool
    """Whether they have."""

    @property
    def is_last(self) -> bool:
        """Whether no look comes after it."""
        return self.number == len(self.looks)


Event = Literal["jump", "growth", "nonfinite"]
"""What ends a run's stay at its radius."""


class Incidence(Result):
    """Aalen-Johansen estimate for one kind of event: the share of runs for which it was the first, by each step."""

    count: NonNegativeInt
    share: tuple[float, ...]
    """(num_steps,)."""
    low: tuple[float | None, ...]
    """Pointwise interval; None where it is not defined: before the first event of the kind."""
    high: tuple[float | None, ...]


class EventCurves(Result):
    """When runs of an arm jumped, grew or became NaN or infinite for the first time."""

    num_runs: NonNegativeInt
    """Runs that were followed: those that were seen at all, and were not far from the start."""
    num_far: NonNegativeInt
    """Runs that were far from their control at the first probe after the burn-in, and are left out."""
    num_missing: NonNegativeInt
    """Of the followed: missing, censored at their last probe."""
    num_unknown: NonNegativeInt
    """Of the followed: ended, but censored where the probe is cut."""
    steps: tuple[int, ...]
    """At which a run was last seen, or had its first event."""
    at_risk: tuple[int, ...]
    """Runs without an event that were still seen before each step."""
    censored: tuple[int, ...]
    events: dict[Event, Incidence]
    """Of each kind that occurred."""
    if_none_missing: float
    """Share with any event at the end had no missing run had one, and next had every one."""
    if_all_missing: float
    level: float
    method: str


class SensitivityRow(Result):
    """Counts of an arm with other limits; non-finite and missing runs are what they are."""

    diverged_factor: float
    shifted_limit: float
    jump_factor: float = 1.5
    lasting_probes: int = 5
    is_planned: bool
    num_diverged: NonNegativeInt
    num_collapsed: NonNegativeInt
    num_displaced: NonNegativeInt = 0
    num_shifted: NonNegativeInt
    num_regular: NonNegativeInt
    num_jumped: NonNegativeInt = 0
    """Runs that jumped at any time."""
    interval: Interval
    """Of the share of diverged runs."""


class SweptPoint(Result):
    """One value of a sweep, of one arm that it multiplied."""

    arm: str
    value: bool | int | float | str | None
    share: Share | None
    """Of the sweep's endpoint; None: no run has ended."""
    num_missing: NonNegativeInt
    """Runs that are in no share."""


class SweptBase(Result):
    """What became of one arm's runs over the values of a sweep."""

    base: str
    points: tuple[SweptPoint, ...]
    """Numbers ascend; other values stand in the order of the study."""
    trend_p: float | None
    """Exact, two-sided; None: the values are no numbers, or all runs of each seed did the same."""
    rises: bool | None
    """Whether more runs leave at larger values; None: neither more nor fewer, or as before."""
    half_between: tuple[float | None, float | None] | None = None
    """Neighbouring values between which the fitted monotone share crosses a half; None for an end: it lies beyond
    the values, or at the first or last. None: there is no direction."""
    half_within: tuple[float | None, float | None] | None = None
    """Confidence bounds of the value at which half leave, if the share is monotone; None for an end: there is none."""


class SweepSummary(Result):
    """Shares of runs that left over the values of one setting."""

    setting: str
    endpoint: Endpoint
    """That can be counted in all of its arms."""
    level: float
    bases: tuple[SweptBase, ...]


class CrossedPart(Result):
    """What some of the streams have to do with how a run ends."""

    streams: tuple[Stream, ...]
    share: float
    """Of the variance: the random-effects component of just these streams together."""
    common: float
    """Of the variance, what runs have in common that share these streams and no other: the sum of the components of
    these and of some of these."""
    p: float | None
    """Permutation test that runs which share these agree no more than others; None of all streams together, which give
    equal runs."""
    holm: float | None
    """Adjusted over the sets of as many streams."""
    num_permutations: NonNegativeInt = 0
    """That were drawn; 0: all were enumerated."""


class CrossedOutcome(Result):
    """How a run ends, as a number, and which streams decide it."""

    parts: tuple[CrossedPart, ...]
    """Single streams first, all together last; none where all runs end alike."""


class CrossedArm(Result):
    """The runs of an arm, one for each combination of the levels of its streams."""

    levels: dict[Stream, int]
    """Of each crossed stream that the arm has; those with one level are left out."""
    endpoint: Endpoint
    num_left: NonNegativeInt
    num_ended: NonNegativeInt
    num_missing: NonNegativeInt
    left: CrossedOutcome | None = None
    """Whether a run left; None while runs are missing, or where fewer than two streams are crossed."""
    log_radius: CrossedOutcome | None = None
    """ln of the median R; None as before, or where a run has none."""


class DipTest(Result):
    """Hartigan's dip of ln R over the finite runs of an arm: 0 for one mode; p is that of a uniform distribution."""

    num_runs: NonNegativeInt
    dip: float
    p: float


class PairDistances(Result):
    """Two runs: how far their latent radii and latent points are apart. Signed values are first minus second."""

    first: str
    second: str
    seed: int
    """Of the first."""
    log_radius_shifts: tuple[float, ...]
    """ln of the quotient of the radii's quantiles, for each of the plan's quantiles."""
    median_shift: float
    """ln of the quotient of the median radii."""
    kolmogorov_smirnov: float
    """Largest difference of the distribution functions of R."""
    wasserstein: float
    """Area between them: mean difference of R between equal ranks."""
    reconstruction_gap: float | None
    """Reconstruction loss of the last epoch, nats per image."""
    procrustes: float | None
    """1 - the explained share of the squares after the best rotation and scaling of mu; None without latents."""
    cka: float | None
    """Linear centred kernel alignment of mu: 1 for equal up to rotation and scaling."""

    @property
    def cka_distance(self) -> float | None:
        """1 - cka."""
        return None if self.cka is None else 1 - self.cka


class PairedEffect(Result):
    """Mean over the seeds of a quantity of PairDistances, with intervals of that mean."""

    num_pairs: NonNegativeInt
    mean: float
    low: float | None
    """Student's t; None with fewer than 2 pairs."""
    high: float | None
    bootstrap_low: float | None
    """BCa bootstrap; None with fewer than 3 pairs or no scatter."""
    bootstrap_high: float | None
    null_mean: float | None
    """Of AEs of different seeds; None for a signed quantity and without two AEs."""
    excess: float | None
    """Mean over the seeds of the distance to the same seed's AE, less that AE's mean distance to AEs of other seeds."""
    excess_low: float | None
    excess_high: float | None


class LikenessToControl(Result):
    """A VAE arm beside its AE, seed by seed."""

    control: str
    num_images: NonNegativeInt
    """Of which mu was compared, at most."""
    num_regular: NonNegativeInt
    """Pairs in which both runs are regular."""
    level: float
    radius_margin: float
    radii: Literal["alike", "different", "undecided"]
    """Whether the t interval of `median_shift` lies within the margin, beyond it, or neither."""
    effects: dict[str, PairedEffect]
    pairs: tuple[PairDistances, ...]
    null: tuple[PairDistances, ...]
    """AEs of different seeds."""


class DataSummary(Result):
    """What the study was trained on."""

    name: str
    sha256: str
    synthetic: bool
    image_size: int
    num_train: NonNegativeInt


class ArticleValue(Result):
    """A number as the article prints it, and under which of its headings."""

    text: str
    where: str


class ComparisonRow(Result):
    """One line of the table 'article / measured'."""

    quantity: str
    formula: str
    of: Literal["ae", "vae", "any"]
    """Kind of the runs that are comparable; no other is in `measured`."""
    article: tuple[ArticleValue, ...]
    measured: dict[str, float]
    """By name of the run; by name of the arm if it is a share of runs."""
    nan: str = ""
    """What it means that a run measured NaN, such as 'no elbow'; else such a run is left out."""
    images: tuple[str, ...] = ()
    """Files under RUN/latents/images that show it, where it is no number."""


class Comparison(Result):
    """The table 'article / measured', and how far it compares like with like."""

    rows: tuple[ComparisonRow, ...]
    differences: dict[str, tuple[str, ...]]
    """By arm: what was trained otherwise than in the article. Where this is not empty the numbers need not agree."""
    footnotes: tuple[str, ...]


class StudySummary(Result):
    """summary.json."""

    study: str
    data: DataSummary
    arms: dict[str, ArmSummary]
    runs: dict[str, RunSummary]
    provisional: bool
    """Whether any arm's classes are provisional (fewer control runs than the plan asks for)."""
    control: dict[str, str | None]
    plan_sha256: str
    provenance: Provenance
    comparison: Comparison | None = None
    """With the article; None where it was not made."""
    contrasts: tuple[Contrast, ...]
    look: PlannedLook | None = None
    """None where the plan has no looks, this is none of them, or runs are missing."""
    events: dict[str, EventCurves] = {}
    """By arm; none where no run was followed."""
    sensitivity: dict[str, tuple[SensitivityRow, ...]]
    modes: dict[str, DipTest]
    """By arm; none with fewer runs than the plan asks for."""
    likeness: dict[str, LikenessToControl]
    """By VAE arm."""
    sweeps: tuple[SweepSummary, ...] = ()
    crossed: dict[str, CrossedArm] = {}
    """By arm, where the study crosses streams."""
    deviations: tuple[str, ...]
    """What was not as planned before the launch: tests are exploratory if there is any."""
    reclassed: tuple[str, ...] | None = None
    """Runs that releases before 0.3.0 judged otherwise, in words; None: planned by today's rules."""
    plan_defaults: tuple[str, ...] = ()
    """Limits that the study's own plan does not name, with what this release takes."""


# Before the launch


class Timing(Result):
    """What a short training of an arm showed."""

    run: str
    device: str
    start_seconds: float
    """From the start of the process's work to the end of the first step, which compiles."""
    step_seconds: float
    """Of a training step, with the recorder's signals."""
    image_seconds: float
    """To encode one image, as probe, evaluation and the latents do."""
    checkpoint_seconds: float
    end_seconds: float
    """After the last epoch, without encoding: pictures, and what is compiled for them."""
    memory_bytes: int
    """Held by the process for itself; of a GPU's memory it tells nothing."""


class Timings(Result):
    """Arms that were timed for the studies of a folder, the newest of each kind."""

    timings: dict[str, Timing]
    """By what a step's time depends on: `vaehpc.local.forecast.kind_of`."""


class Sharing(Result):
    """What was measured of several runs on one GPU."""

    gpu: str
    steps_per_second: dict[int, float]
    """Training steps of all runs together, by their number."""
    runs_at_once: PositiveInt


# Replay


Variant = Literal[
    "identical", "noise", "batches", "epsilon5", "log-var-clamp", "clipped", "without-image", "fresh-moments", "null"
]
VARIANTS: tuple[Variant, ...] = (
    "identical",
    "noise",
    "batches",
    "epsilon5",
    "log-var-clamp",
    "clipped",
    "without-image",
    "fresh-moments",
    "null",
)
"""What the forks of a replay do otherwise; each is an arm of the replay's study. null: nothing, over a calm window."""
NEEDS_NOISE: tuple[Variant, ...] = ("noise", "epsilon5")
"""An AE has none, nor a VAE whose epsilon is multiplied by 0."""

Outcome = Literal["persists", "gone", "other kind", "undecided", "missing", "not run"]
"""Whether a variant's forks show the event; other kind: fewer of a treatment's forks leave, but no fewer in the run's
own way; missing: those that have not ended could change it."""

Verdict = Literal[
    "not reproducible",
    "extreme epsilon",
    "noise",
    "noise, not its extremes",
    "batch content, image ID",
    "batch content",
    "logvar explosion",
    "gradient spike",
    "optimizer state",
    "the weights themselves",
    "not decided",
]


Ending = Literal["stayed", "jump", "nonfinite", "thrown", "not comparable"]
"""What became of a fork. thrown: it left by its treatment, before the run was calm for the last time; not comparable:
it has no probe there."""


class ForkResult(Result):
    """How a fork ended."""

    run: str
    radius: float | None
    """R of its last probe; None if it was not finite."""
    nonfinite_step: int | None
    state_sha256: str
    ending: Ending


class VariantResult(Result):
    """The forks of one variant."""

    variant: Variant
    changed: str
    num_repeats: NonNegativeInt
    num_missing: NonNegativeInt
    num_jumps: NonNegativeInt
    num_nonfinite: NonNegativeInt = 0
    num_thrown: NonNegativeInt = 0
    num_incomparable: NonNegativeInt = 0
    interval: Interval | None
    """Of the share of events among those compared; None of identical forks, and where there are none."""
    p: float | None = None
    """Boschloo's, one-sided: that a treatment makes no fewer events than the untreated forks have, and that these have
    no more than the null forks; None where either is missing."""
    outcome: Outcome
    forks: tuple[ForkResult, ...]
    """Those that ended, in the order of their seeds."""

    @property
    def num_events(self) -> int:
        """Forks that jumped or were not finite."""
        return self.num_jumps + self.num_nonfinite

    @property
    def num_compared(self) -> int:
        """Forks that ended and can be compared."""
        return self.num_repeats - self.num_missing - self.num_thrown - self.num_incomparable


class ReplayResult(Result):
    """replay.json."""

    study: str
    replay: ReplayConfig
    level: float
    variants: tuple[VariantResult, ...]
    repeats_source: bool | None
    """Whether the identical forks are bitwise equal, and their probe saw the source's radii; None: none has ended."""
    verdict: Verdict
    rests_on: Variant | None = None
    """The variant whose outcome gave the verdict; None: judged by a release before 0.3.0."""
    explanation: str
    provenance: Provenance


class BatchRecord(Result):
    """An array of one stage, written before it is submitted."""

    stage: str
    elements: tuple[tuple[str, ...], ...]
    """Directories of the tasks of each element."""
    after: tuple[str, ...]
    """Names of the batches that it waits for."""
    created: float
    """Unix time, s."""
    launcher: str
    """Host, process and its start: who submits it."""
    cpus: PositiveInt
    gpus: NonNegativeInt
    memory_gb: PositiveFloat
    minutes: PositiveInt
    """Resources of one element."""
    partition: str | None
    tasks_at_once: int | None = None
    """Of one element. None, in records of 0.2.0 and before: all where there are GPUs, else one."""
