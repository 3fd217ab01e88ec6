"""What a study's summary allows to be said, in words, and numbers as they are printed."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

from vaehpc.schema.config import RunConfig, StudyConfig
from vaehpc.schema.plan import ClassPlan, RadiusPlan
from vaehpc.schema.results import (
    ArmSummary,
    Comparison,
    Contrast,
    DataSummary,
    DipTest,
    InertiaCurve,
    LatentStatistics,
    LikenessToControl,
    OnsetCurve,
    PairedEffect,
    PlannedLook,
    RunSummary,
    StudySummary,
    TrainedRecord,
    TsneResult,
)

NO_VALUE = "–"
NOT_MEASURED = "not measured"
NBSP = "\N{NO-BREAK SPACE}"
SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def percent(share: float) -> str:
    """'20.6 %', '95 %', '0.04 %': one digit below 1 %, so that a small share is not printed as none."""
    digits = f"{100 * share:.1g}" if share < 0.01 else f"{100 * share:.1f}".removesuffix(".0")
    return f"{digits}{NBSP}%"


def number(value: float | None) -> str:
    """Four significant digits, five from 1,000 on; integers in full."""
    if value is None:
        return NO_VALUE
    if not math.isfinite(value):
        return "NaN" if math.isnan(value) else "∞"
    if value and not 1e-3 <= abs(value) < 1e6:
        mantissa, exponent = f"{value:.3e}".split("e")
        return f"{mantissa}{NBSP}×{NBSP}10{str(int(exponent)).translate(SUPERSCRIPTS)}"
    if value == round(value):
        return f"{value:,.0f}"
    return f"{value:,.1f}" if abs(value) >= 1e3 else f"{value:#.4g}".removesuffix(".")


def counted(count: int, noun: str) -> str:
    """'1 run', '2 runs'."""
    return f"{count:,}{NBSP}{noun}" if count == 1 else f"{count:,}{NBSP}{noun}s"


def interval(arm: ArmSummary) -> str:
    """'0.3 % to 52.7 %' of an arm that has a rate."""
    assert arm.low is not None and arm.high is not None
    return f"{percent(arm.low)} to {percent(arm.high)}"


def overview(config: StudyConfig, summary: StudySummary) -> str:
    """What was trained on what, and how much of it ended."""
    num_runs = sum(arm.num_runs for arm in summary.arms.values())
    num_missing = sum(arm.num_missing for arm in summary.arms.values())
    arms = enumeration([f"{arm.num_runs} of {name}" for name, arm in summary.arms.items()])
    return (
        f"Study {summary.study} asked for {counted(num_runs, 'run')} ({arms}), each with its own random seed, on"
        f" {data(summary.data)}. {ended(num_runs, num_missing)} A run is called diverged if the median latent radius"
        f" R = ‖μ‖₂ at its end is more than {config.plan.classes.diverged_factor:g} times that of the control runs:"
        " autoencoders with the same net, training and data."
    )


def data(data: DataSummary) -> str:
    """'170,000 images of 96 × 96 pixels (CelebA)'."""
    size = f"{data.image_size} × {data.image_size} pixels"
    if data.synthetic:
        return f"{data.num_train:,} built-in synthetic faces of {size}"
    return f"{data.num_train:,} images of {size} ({data.name})"


def ended(num_runs: int, num_missing: int) -> str:
    """How many runs have results."""
    if not num_missing:
        return "All of them ended."
    if num_missing == num_runs:
        return "None of them has ended, so that the study says nothing yet."
    are, count = ("is", "counts") if num_missing == 1 else ("are", "count")
    return f"{num_runs - num_missing} ended; {num_missing} {are} missing and {count} as neither diverged nor regular."


def outcome(arm: ArmSummary) -> str:
    """What the runs of one arm say about its rate of divergence."""
    num_ended = arm.num_runs - arm.num_missing
    if not num_ended:
        return f"none of {counted(arm.num_runs, 'run')} has ended; nothing can be said about the rate."
    if arm.rate is None:
        return f"no rate. {unclassed(arm, num_ended)}"
    return " ".join([rate(arm, num_ended), *beside(arm, num_ended)])


def unclassed(arm: ArmSummary, num_ended: int) -> str:
    """Why an arm with ended runs has no rate."""
    reason = (
        "the study has no control arm for them, and the article's radius holds for its own data and net only"
        if arm.control is None
        else f"no run of their control arm {arm.control} ended with finite radii"
    )
    nonfinite = f" {counted(arm.num_nonfinite, 'run')} became NaN or infinite." if arm.num_nonfinite else ""
    return f"{arm.num_unclassified} of {counted(num_ended, 'ended run')} could not be classed: {reason}.{nonfinite}"


def divergences(arm: ArmSummary) -> str:
    """'2 of 7': diverged runs among those that ended; nothing where that is not known."""
    if arm.rate is None:
        return NO_VALUE
    return f"{arm.num_diverged} of {arm.num_runs - arm.num_missing}"


def rate(arm: ArmSummary, num_ended: int) -> str:
    """Count, rate and interval; 0 of n is not 'never'."""
    assert arm.rate is not None and arm.low is not None and arm.high is not None
    counts = f"{arm.num_diverged} of {counted(num_ended, 'ended run')} diverged"
    exact = f"exact {percent(arm.level)} {arm.method} interval {interval(arm)}"
    if arm.num_diverged == 0:
        return f"{counts}. That is not 'never': the data allow a rate of up to {percent(arm.high)} ({exact})."
    return f"{counts}, a rate of {percent(arm.rate)} ({exact})."


def method(summary: StudySummary) -> str:
    """'Intervals: exact, Clopper-Pearson, 95 %.'"""
    kinds = dict.fromkeys((arm.method, arm.level) for arm in summary.arms.values())
    return "Intervals: " + enumeration([f"exact {percent(level)} {method}" for method, level in kinds]) + "."


def num_regular(arm: ArmSummary) -> int:
    """Runs of an arm that ended and are in no other class."""
    others = arm.num_diverged + arm.num_nonfinite + arm.num_shifted + arm.num_collapsed + arm.num_unclassified
    return arm.num_runs - arm.num_missing - others


def beside(arm: ArmSummary, num_ended: int) -> list[str]:
    """What stands beside the headline: missing runs, other definitions of divergence."""
    sentences = []
    if arm.num_missing and arm.rate_if_missing_regular is not None and arm.rate_if_missing_diverged is not None:
        sentences.append(
            f"{counted(arm.num_missing, 'run')} missing: the rate would be"
            f" {percent(arm.rate_if_missing_regular)} had no missing run diverged, and"
            f" {percent(arm.rate_if_missing_diverged)} had every one."
        )
    if arm.num_ever_diverged > arm.num_diverged:
        sentences.append(f"At some time during training {arm.num_ever_diverged} were beyond the limit.")
    if arm.num_nonfinite:
        sentences.append(
            f"{counted(arm.num_nonfinite, 'run')} became NaN or infinite; diverged or non-finite together are"
            f" {arm.num_diverged_or_nonfinite} of {num_ended}."
        )
    return sentences


def caveats(config: StudyConfig, summary: StudySummary) -> list[str]:
    """What the reader must know before using a number of this study."""
    arms = summary.arms
    found = []
    if summary.data.synthetic:
        found.append("Built-in synthetic faces: the study shows the machinery and says nothing about CelebA.")
    if config.preset == "demo":
        found.append("The demo preset shows the machinery, not science: a small net, few and small images, few steps.")
    if provisional := [name for name, arm in arms.items() if arm.provisional and arm.rate is not None]:
        found.append(
            f"The classes of {enumeration(provisional)} are provisional: the plan asks for at least"
            f" {counted(config.plan.classes.min_control_runs, 'control run')}, and there are fewer."
        )
    if exploratory := [name for name, arm in arms.items() if arm.exploratory]:
        found.append(
            f"For {enumeration(exploratory)} 'shifted' and 'regular' are exploratory: the radii of the control runs"
            " scatter more than the plan allows."
        )
    if by_article := [name for name, arm in arms.items() if arm.control == "article"]:
        found.append(
            f"{enumeration(by_article)} has no control arm in this study and is classed by the article's radius of"
            f" {config.plan.classes.article_radius:g}."
        )
    if sum(arm.rate is not None for arm in arms.values()) > 1 and not summary.contrasts:
        found.append("Rates of different arms were not tested against each other: no difference is claimed.")
    if config.plan.contrasts.looks and summary.contrasts:
        found.append("The plan has several looks: the p values in tables are each of a single look.")
    if summary.deviations:
        deviations = "; ".join(summary.deviations)
        found.append(f"Not as planned before the first launch, so that every test is exploratory: {deviations}.")
    return found


# Tests between arms


def p_value(p: float | None) -> str:
    """'0.0341', '< 0.0001'; two significant digits from 0.1 on."""
    if p is None:
        return NO_VALUE
    if p < 1e-4:
        return f"<{NBSP}0.0001"
    return f"{p:.2g}" if p >= 0.1 else f"{p:.3g}" if p >= 1e-3 else f"{p:.1g}"


def is_shown(contrast: Contrast, config: StudyConfig) -> bool:
    """Whether the difference holds at the plan's level after Holm's adjustment."""
    return contrast.holm <= 1 - config.plan.level


def counts(contrast: Contrast) -> str:
    """'5 of 8 against 0 of 8'."""
    return (
        f"{contrast.num_diverged} of {contrast.num_ended} against"
        f" {contrast.reference_diverged} of {contrast.reference_ended}"
    )


def tested(config: StudyConfig, summary: StudySummary) -> list[str]:
    """What the tests between arms found, a sentence each; those that found nothing together.

    Where the plan has looks, they judge their two arms, and nothing else is tested before the last one.
    """
    contrasts, said = summary.contrasts, []
    if looks := config.plan.contrasts.looks:
        if summary.look is None:
            return [
                f"The plan judges the counts after {enumeration([str(n) for n in looks])} seeds of each arm. This is"
                " none of these looks, or runs are missing: nothing is tested."
            ]
        said.append(judged(summary.look))
        if not summary.look.is_last:
            return said
        judged_arms = (summary.look.arm, summary.look.reference)
        contrasts = tuple(each for each in contrasts if (each.arm, each.reference) != judged_arms)
    shown = [contrast for contrast in contrasts if is_shown(contrast, config)]
    others = [contrast for contrast in contrasts if not is_shown(contrast, config)]
    return said + [difference(contrast) for contrast in shown] + ([no_difference(others, config)] if others else [])


def judged(look: PlannedLook) -> str:
    """What a planned look found, and what follows."""
    num_seeds = look.looks[look.number - 1]
    least = "no number would be enough" if look.least_diverged is None else f"{look.least_diverged} are needed"
    found = (
        f"Look {look.number} of {len(look.looks)}, after {counted(num_seeds, 'seed')} per arm: {look.num_diverged} runs"
        f" of {look.arm} diverged and {look.reference_diverged} of {look.reference}, beside which {least} to stop"
        f" (O'Brien-Fleming-like spending; {percent(look.spent)} of a false alarm until now)."
    )
    if look.stops:
        return f"{found} {look.arm} diverged more often than {look.reference}: the plan stops here."
    if look.is_last:
        return f"{found} No difference was shown, which is no proof of equal rates."
    return f"{found} The plan goes on to {look.looks[look.number]} seeds; nothing else is tested before the last look."


def difference(contrast: Contrast) -> str:
    """A difference that was shown."""
    more = contrast.num_diverged * contrast.reference_ended > contrast.reference_diverged * contrast.num_ended
    reference = f"its control {contrast.reference}" if contrast.is_control else contrast.reference
    return (
        f"{contrast.arm} diverged {'more' if more else 'less'} often than {reference}: {counts(contrast)} (Boschloo's"
        f" exact test, {sidedness(contrast)}, p = {p_value(contrast.boschloo)}; after Holm's adjustment"
        f" p = {p_value(contrast.holm)})."
    ).replace("p = <", "p <")


def no_difference(contrasts: list[Contrast], config: StudyConfig) -> str:
    """Differences that were not shown, and how little that says."""
    pairs = enumeration([f"{contrast.arm} and {contrast.reference} ({counts(contrast)})" for contrast in contrasts])
    plan = config.plan.contrasts
    weakest, strongest = (percent(end(each.power for each in contrasts)) for end in (min, max))
    chance = weakest if weakest == strongest else f"{weakest} to {strongest}"
    said = (
        f"No difference was shown between {pairs}. That is no proof of equal rates: with so many runs,"
        f" {percent(plan.rate)} against {percent(plan.versus)} is found with a probability of {chance} before Holm's"
        " adjustment."
    )
    alpha = 1 - config.plan.level
    if hopeless := [f"{each.arm} and {each.reference}" for each in contrasts if each.least_p > alpha]:
        said += f" For {enumeration(hopeless)} there are so few runs that no outcome could have shown one."
    return said


def sidedness(contrast: Contrast) -> str:
    """'one-sided' or 'two-sided'."""
    return "two-sided" if contrast.alternative == "two-sided" else "one-sided"


def range_of_p(contrast: Contrast) -> str:
    """What the missing runs of both arms leave open; nothing where none is missing."""
    low, high = contrast.boschloo_if_missing
    return NO_VALUE if low == high == contrast.boschloo else f"{p_value(low)} to {p_value(high)}"


def discordant(contrast: Contrast) -> str:
    """'5 : 0 of 8': pairs of equal seeds that diverged in the arm alone, in its reference alone, and all."""
    return f"{contrast.only_arm}{NBSP}:{NBSP}{contrast.only_reference} of {contrast.num_pairs}"


# Time to onset


def onsets(arm: str, curve: OnsetCurve) -> str:
    """How many runs of an arm left their radius, and what became of the others."""
    lost = [(curve.num_missing, "missing"), (curve.num_nonfinite, "not finite")]
    said = enumeration([f"{count} {what}" for count, what in lost if count])
    return (
        f"{arm}: {curve.num_onsets} of {counted(curve.num_runs, 'run')} had an onset"
        + (f"; seen to their end but for {said}" if said else "")
        + "."
    )


def sooner(contrast: Contrast) -> str:
    """What the log-rank test says of two arms that have any onset."""
    assert contrast.logrank is not None
    how = f"{contrast.num_permutations:,} permutations" if contrast.num_permutations else "all permutations"
    return (
        f"{contrast.arm} against {contrast.reference}: log-rank z = {signed(contrast.logrank)}, two-sided"
        f" p = {p_value(contrast.logrank_p)} ({how} of the arms; not adjusted)."
    ).replace("p = <", "p <")


# Modes


def modes(arm: str, test: DipTest, level: float) -> str:
    """Whether the runs of an arm may be said to have a second peak."""
    found = f"(Hartigan's dip {test.dip:.3f} over {counted(test.num_runs, 'run')}, p = {p_value(test.p)})"
    if test.p <= 1 - level:
        return f"{arm}: the radii of its runs have more than one peak {found}."
    return f"{arm}: no second peak of its runs' radii is shown {found}."


# AE and VAE


def likeness(arm: str, found: LikenessToControl) -> str:
    """Whether a VAE's radii are those of an AE, and its latent space as far from it as other AEs' are."""
    shift, margin = found.effects["median_shift"], math.expm1(found.radius_margin)
    said = (
        f"{arm}: over {counted(shift.num_pairs, 'pair')} of equal seeds its median radius is"
        f" {math.exp(shift.mean):.3f} times that of {found.control} (geometric mean"
    )
    if shift.low is None or shift.high is None:
        return f"{said}). One pair has no interval: whether they are alike cannot be said."
    said += f"; {percent(found.level)} interval {math.exp(shift.low):.3f} to {math.exp(shift.high):.3f})."
    verdict = {
        "alike": f"Within the margin of {percent(margin)} set in the plan its radii are an AE's.",
        "different": f"Its radii are not an AE's: they differ by more than the margin of {percent(margin)}.",
        "undecided": f"Whether its radii are an AE's, within the margin of {percent(margin)}, is not decided.",
    }
    if irregular := shift.num_pairs - found.num_regular:
        said += f" In {counted(irregular, 'pair')} a run is not regular."
    return f"{said} {verdict[found.radii]}{_nearness(found)}"


def _nearness(found: LikenessToControl) -> str:
    """The latent points' distance against that between AEs."""
    effect = found.effects.get("procrustes")
    if effect is None or effect.excess_low is None or effect.excess_high is None:
        return ""
    if effect.excess_low <= 0 <= effect.excess_high:
        return (
            " Whether its latent points are farther from the AE's than those of another AE is not decided (Procrustes)."
        )
    nearer = "farther from" if effect.excess_low > 0 else "nearer to"
    return f" Its latent points are {nearer} the AE's than those of AEs of other seeds (Procrustes disparity)."


QUANTITIES = {
    "median_shift": "ln of the quotient of the median radii",
    "reconstruction_gap": "difference of the reconstruction losses, nats",
    "kolmogorov_smirnov": "Kolmogorov-Smirnov distance of the radii",
    "wasserstein": "Wasserstein distance of the radii",
    "procrustes": "Procrustes disparity of μ",
    "cka_distance": "1 − linear CKA of μ",
}
"""Quantities of a pair of runs, VAE less AE where they are signed."""


def span(low: float | None, high: float | None) -> str:
    """'−0.02 to 0.03'; nothing where there is no interval."""
    return NO_VALUE if low is None or high is None else f"{signed(low)} to {signed(high)}"


def signed(value: float | None) -> str:
    """A number with a minus sign that is one."""
    return number(value).replace("-", "−")


def excess(effect: PairedEffect) -> str:
    """'0.04 (0.02 to 0.06)'."""
    if effect.excess is None:
        return NO_VALUE
    return f"{signed(effect.excess)} ({span(effect.excess_low, effect.excess_high)})"


def standing(arm: ArmSummary) -> str:
    """How firm the classes of an arm are."""
    found = [word for word, holds in (("provisional", arm.provisional), ("exploratory", arm.exploratory)) if holds]
    return ", ".join(found) or "final"


def class_limits(plan: ClassPlan) -> str:
    """The definition of the classes, as planned."""
    return (
        "With d = ln R − m, R the median radius of a run and m the median of ln R over the control runs, a run is, in"
        " this order: nonfinite (a loss, weight or latent component is NaN or infinite); unclassified (there is no"
        f" control); diverged (d > ln {plan.diverged_factor:g}); collapsed (d < −ln {plan.diverged_factor:g}); shifted"
        f" (|d| > {plan.shifted_limit:g} and > {plan.shifted_scatter:g} times the scatter of ln R over the control"
        " runs); else regular."
    )


def mode(radius_mode: float | None, plan: RadiusPlan) -> str:
    """Centre of the fullest bin; '≥ 35' for the overflow bin."""
    if radius_mode == math.inf:
        return f"≥{NBSP}{plan.bin_width * plan.num_bins:g}"
    return NO_VALUE if radius_mode is None else f"{radius_mode:g}"


def onset(run: RunSummary) -> str:
    """'27,909 abrupt'."""
    return NO_VALUE if run.onset_step is None else f"{run.onset_step:,} {run.onset_kind}"


def triggers(run: RunSummary) -> str:
    """'gradient_norm at 27,874'; how many more there were."""
    if not run.triggers:
        return NO_VALUE
    first = f"{run.triggers[0].signal} at {run.triggers[0].step:,}"
    return first if len(run.triggers) == 1 else f"{first}, {len(run.triggers) - 1} more"


def recorded(summary: StudySummary) -> str:
    """In how many of the ended runs of which arms the flight recorder fired."""
    ended_runs = [run for run in summary.runs.values() if run.run_class is not None]
    fired = Counter(run.arm for run in ended_runs if run.triggers)
    if not fired:
        return f"The flight recorder fired in none of {counted(len(ended_runs), 'ended run')}."
    arms = enumeration([f"{count} of {arm}" for arm, count in fired.items()])
    return (
        f"The flight recorder fired in {fired.total()} of {counted(len(ended_runs), 'ended run')}: {arms}."
        " vaehpc explain shows which signal left its band first, vaehpc replay looks for the cause."
    )


# One run


def run_overview(config: RunConfig, run: RunSummary, trained: TrainedRecord | None) -> str:
    """What was trained, how far it came, and its class."""
    kind = "An autoencoder" if config.arm.vae is None else "A VAE"
    images = f"{config.data.num_train:,} images ({config.data.name})"
    said = f"{kind} of the arm {config.arm.name} with seed {config.seed}, on {images}."
    if trained is not None and trained.nonfinite_step is not None:
        said += f" Training met a NaN or infinity at step {trained.nonfinite_step:,} and stopped there."
    elif trained is not None:
        said += f" It trained for {counted(trained.epochs, 'epoch')}, {counted(trained.step, 'step')}."
    if run.run_class is None:
        return f"{said} It is missing: there is no result of {run.missing_stage or 'any stage'}."
    if run.run_class == "unclassified":
        return f"{said} It could not be classed, for want of a control."
    return f"{said} Its class is {run.run_class}."


def run_findings(run: RunSummary, statistics: LatentStatistics | None) -> list[str]:
    """Radius, onset, and how near its latent points are to a normal distribution, a sentence each."""
    found = []
    if run.radius_median is not None:
        found.append(f"The median of R = ‖μ‖₂ over the images is {number(run.radius_median)} at the end.")
    if run.onset_step is not None:
        found.append(f"The probe shows an onset ({run.onset_kind}) at step {run.onset_step:,}.")
    if run.triggers:
        found.append(f"The flight recorder fired {times(len(run.triggers))}: {triggers(run)}.")
    if statistics is not None and (gaussian := statistics.gaussian) is not None:
        found.append(
            f"R has a standard deviation of {number(gaussian.radius_sd)}; a normal distribution with the mean and"
            f" covariance of μ would have {number(gaussian.radius_sd_expected)}."
        )
    return found


def known(value: float) -> str:
    """A number; nothing for NaN."""
    return NO_VALUE if math.isnan(value) else number(value)


# How the latent points of a run lie


def elbow(curve: InertiaCurve) -> str:
    """'an elbow at 12 clusters', 'no elbow'."""
    return "no elbow" if curve.elbow is None else f"an elbow at {curve.elbow} clusters"


def embedding(result: TsneResult, attribute: str | None) -> str:
    """What a t-SNE map shows, and how well."""
    coloured = f" Coloured by {attribute_name(attribute)}." if attribute else ""
    return (
        f"t-SNE map of {result.num_images:,} images, settings {result.settings}: KL divergence"
        f" {number(result.kl_divergence)}; {percent(result.neighbour_recall)} of the near neighbours are kept"
        f" ({percent(result.neighbour_recall_expected)} by chance).{coloured}"
    )


def attribute_name(attribute: str) -> str:
    """'Wearing Hat'."""
    return attribute.replace("_", " ")


def in_cell(text: str) -> str:
    """Text for a table in Markdown, where a bar ends a cell."""
    return text.replace("|", "\\|")


def times(count: int) -> str:
    """'never', 'once', '3 times'."""
    return ("never", "once")[count] if count < 2 else f"{count:,} times"


def seeds(found: Sequence[int]) -> str:
    """'0 to 15', '0, 3 and 7', 'none'."""
    if len(found) > 2 and list(found) == list(range(found[0], found[-1] + 1)):
        return f"{found[0]} to {found[-1]}"
    return enumeration([str(seed) for seed in found]) if found else "none"


def plan_defaults(summary: StudySummary) -> str:
    """Limits that the study's plan does not name."""
    return f"The study's plan does not name these, so that this release's hold: {'; '.join(summary.plan_defaults)}."


def rerun(name: str) -> list[str]:
    """Commands that train one run again, beside the study's directory, and show the hash of its final state."""
    return [
        f"mkdir -p again/{name} && cp {name}/run.json again/{name}/",
        f"python -c \"from vaehpc.tasks import train; train.run('again/{name}')\"",
        f"grep state_sha256 {name}/trained.json again/{name}/trained.json",
    ]


def sort_value(value: float | None) -> str:
    """A number as a script reads it; nothing where there is none to sort by."""
    if value is None or math.isnan(value):
        return ""
    return "Infinity" if value == math.inf else str(value)


def differences(comparison: Comparison) -> list[str]:
    """What was trained otherwise than in the article, said once for the arms that have it in common."""
    arms: dict[tuple[str, ...], list[str]] = {}
    for arm, found in comparison.differences.items():
        if found:
            arms.setdefault(found, []).append(arm)
    return [f"{enumeration(of_arms)}: {'; '.join(found)}." for found, of_arms in arms.items()]


def enumeration(words: list[str]) -> str:
    """'a', 'a and b', 'a, b and c'."""
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)
