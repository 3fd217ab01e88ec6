"""What a study's summary allows to be said, in words, and numbers as they are printed."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence

from vaehpc.command import ranges
from vaehpc.schema.config import RunConfig
from vaehpc.schema.plan import PlanConfig, ProbePlan, RadiusPlan
from vaehpc.schema.results import (
    ArmSummary,
    Comparison,
    DataSummary,
    DipTest,
    InertiaCurve,
    LatentStatistics,
    LikenessToControl,
    PairedEffect,
    RunSummary,
    Share,
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


def data(data: DataSummary) -> str:
    """'170,000 images of 96 × 96 pixels (CelebA)'."""
    size = f"{data.image_size} × {data.image_size} pixels"
    if data.synthetic:
        return f"{data.num_train:,} built-in synthetic faces of {size}"
    return f"{data.num_train:,} images of {size} ({data.name})"


def precision(asked: str, has_tf32: bool) -> str:
    """Of a training; that float32 was TF32 is said where it was not asked for."""
    return f"{asked}, float32 in TF32" if has_tf32 and asked != "tf32" else asked


def of_ended(share: Share | None) -> str:
    """'2 of 7': runs that count among those that ended; nothing where that is not known."""
    return NO_VALUE if share is None else f"{share.count} of {share.num_ended}"


def interval(share: Share) -> str:
    """'0.3 % to 52.7 %'."""
    return f"{percent(share.interval.low)} to {percent(share.interval.high)}"


def method(summary: StudySummary) -> str:
    """'Intervals: exact, Clopper-Pearson, 95 %.'"""
    kinds = dict.fromkeys((arm.method, arm.level) for arm in summary.arms.values())
    return "Intervals: " + enumeration([f"exact {percent(level)} {method}" for method, level in kinds]) + "."


def num_regular(arm: ArmSummary) -> int:
    """Runs of an arm that ended and are in no other class."""
    others = arm.num_diverged + arm.num_displaced + arm.num_nonfinite + arm.num_shifted + arm.num_collapsed
    return arm.num_runs - arm.num_missing - others - arm.num_unclassified


def p_value(p: float | None) -> str:
    """'0.0341', '< 0.0001'; two significant digits from 0.1 on."""
    if p is None:
        return NO_VALUE
    if p < 1e-4:
        return f"<{NBSP}0.0001"
    return f"{p:.2g}" if p >= 0.1 else f"{p:.3g}" if p >= 1e-3 else f"{p:.1g}"


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
        f"{arm}: over {counted(shift.num_pairs, 'pair')} of equal seeds, both finite, its median radius is"
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
    is_exploratory = arm.exploratory or arm.unjudged == "unsound control"
    standings = {
        "provisional": arm.provisional,
        "exploratory": is_exploratory,
        "too few to tell": arm.unjudged == "too few",
    }
    found = [word for word, holds in standings.items() if holds]
    return ", ".join(found) or "final"


def class_limits(plan: PlanConfig) -> str:
    """The definition of the classes and of a jump, as planned."""
    limits, course = plan.classes, plan.course
    return (
        "With d = ln R − m, R the median radius of a run and m the median of ln R over the control runs, a run is, in"
        " this order: NaN (a loss, weight or latent component is NaN or infinite; nonfinite in the data); unclassified"
        f" (there is no control); beyond d > ln {limits.diverged_factor:g} displaced, if it was far from its control at"
        " the first probe after the burn-in already, neither jumped nor grew, and lies within a factor"
        f" {limits.displaced_factor:g} of the median of its arm's finite runs, which are at least"
        f" {limits.min_arm_runs} and of which at least the share {limits.displaced_share:g} were far there too, else"
        f" diverged; collapsed (d < −ln {limits.diverged_factor:g});"
        f" shifted (|d| > {limits.shifted_limit:g} and > {limits.shifted_scatter:g} times the scatter of ln R over"
        " the control runs); else regular. A run jumps at a probe if ln R, less the median of ln R over the control's"
        f" runs at that step, exceeds the {ordinal(course.base_rank)} largest of the {course.base_probes} probes before"
        f" by ln {course.jump_factor:g}, and so does the median of {course.lasting_probes} from there on; what does not"
        f" last is an excursion. It grows if it lies beyond the limit in {course.growth_probes} probes running without"
        " a jump, and was not far at first."
    )


def terms(plan: PlanConfig) -> dict[str, str]:
    """The words of a report in a line each; `class_limits` has the rules of the classes in full."""
    limits, course, recorder, every = (
        plan.classes,
        plan.course,
        plan.recorder,
        f"every {plan.probe.every_steps:,} steps",
    )
    return {
        "R": "latent radius, ‖μ‖₂ of an image; of a run the median over the images",
        "probe": f"R of {plan.probe.num_images:,} images, {every}: what happens in between is seen by the next one",
        "burn-in": f"{burn_in(plan.probe)}, in which no jump and no growth is looked for",
        "limit": f"{limits.diverged_factor:g} times the R of the control's runs",
        "jump": (
            f"R rises at once by more than a factor {course.jump_factor:g}, beyond what the control does, and stays"
            f" there for most of {course.lasting_probes} probes; R × 3: to 3 times what it was"
        ),
        "excursion, unconfirmed": "a jump that does not last; one that the last probe alone saw",
        "growth": (
            f"without a jump, R is beyond the limit, and as far beyond the control's at that step, in"
            f" {course.growth_probes} probes running; × 1.1 in the first"
        ),
        "came back": "jumped or grew, and neither diverged nor became NaN in the end",
        "far from the control": (
            f"at the first probe after the burn-in R was beyond {limits.diverged_factor:g} times the control's there,"
            f" or {limits.far_factor:g} times and near its arm's: what came before is not judged, and it cannot grow"
        ),
        "diverged, collapsed": "in the end R is beyond the limit; as far below the control",
        "displaced": "in the end beyond the limit as its arm, far from the control at first, without jump or growth",
        "shifted": "within the limit, and farther from the control's runs than these lie from each other",
        "fork": (
            "a run trained on from one of its kept states, with new noise or batches, and one thing changed; it and the"
            " run jump in a verdict by their own R alone, without the control"
        ),
        "flight recorder, trigger": (
            "it keeps signals of every step, and fires where the gradient's norm exceeds"
            f" {recorder.gradient_factor:g} times its median over {recorder.ring_steps:,} steps, the RMS of g / √v"
            f" {recorder.rms_limit:g}, a log σ² {recorder.log_var_limit:g} or the probe's R {recorder.probe_factor:g}"
            " times its value one probe earlier, or where a loss or gradient is not finite: a recording, not a cause"
        ),
        "sharpness": (
            "largest eigenvalue of the loss's second derivatives, as Adam scales them; beyond its limit, which the"
            " learning rate sets, Adam leaves a minimum"
        ),
        "band": "three times the range of a signal of the recorder in the steps before the search for what left first",
    }


def terms_in(text: str, plan: PlanConfig) -> dict[str, str]:
    """Those of them that a text uses."""
    return {
        term: meaning
        for term, meaning in terms(plan).items()
        if any(re.search(rf"\b{re.escape(word)}", text) for word in term.split(", "))
    }


def ordinal(number: int) -> str:
    """'second'; '6th' from the sixth on."""
    words = ("first", "second", "third", "fourth", "fifth")
    return words[number - 1] if number <= len(words) else f"{number}th"


def mode(radius_mode: float | None, plan: RadiusPlan) -> str:
    """Centre of the fullest bin; '≥ 35' for the overflow bin."""
    if radius_mode == math.inf:
        return f"≥{NBSP}{plan.bin_width * plan.num_bins:g}"
    return NO_VALUE if radius_mode is None else f"{radius_mode:g}"


def triggers(run: RunSummary) -> str:
    """'gradient_norm at 27,874'; how many more there were."""
    if not run.triggers:
        return NO_VALUE
    first = f"{run.triggers[0].signal} at {run.triggers[0].step:,}"
    return first if len(run.triggers) == 1 else f"{first}, {len(run.triggers) - 1} more"


def no_end(run: RunSummary) -> str:
    """'NaN at step 19', 'NaN in its latents': what stands in place of an end; nothing of a run that is finite."""
    if run.run_class != "nonfinite":
        return ""
    return "NaN in its latents" if run.nonfinite_step is None else f"NaN at step {run.nonfinite_step:,}"


def class_name(run_class: str | None) -> str:
    """'regular', 'NaN', 'missing': what pages and figures call a class; the data call NaN 'nonfinite'."""
    return "NaN" if run_class == "nonfinite" else run_class or "missing"


def class_of(run: RunSummary) -> str:
    """'regular', 'NaN at step 19', 'missing'."""
    return no_end(run) or class_name(run.run_class)


def median_radius(run: RunSummary) -> str:
    """At the end, or why there is none."""
    return no_end(run) or number(run.radius_median)


def without_end(summary: StudySummary) -> str:
    """Which of the ended runs are in no number of the end; nothing where all are finite."""
    lost = sum(run.run_class == "nonfinite" for run in summary.runs.values())
    if not lost:
        return ""
    has, is_ = ("has", "is") if lost == 1 else ("have", "are")
    return (
        f"{counted(lost, 'run')} became NaN or infinite: {'it' if lost == 1 else 'they'} {has} no end, and {is_} in no"
        " histogram, median or range."
    )


def recorded(summary: StudySummary) -> str:
    """In how many of the ended runs of which arms the flight recorder fired."""
    ended_runs = [run for run in summary.runs.values() if run.run_class is not None]
    fired = Counter(run.arm for run in ended_runs if run.triggers)
    if not fired:
        return f"The flight recorder fired in none of {counted(len(ended_runs), 'ended run')}."
    arms = enumeration([f"{count} of {arm}" for arm, count in fired.items()])
    stayed = [run for run in ended_runs if run.run_class in ("regular", "shifted") and run.course.departed is None]
    in_stayed = f" ({sum(bool(run.triggers) for run in stayed)} of the {len(stayed)} that stayed)" if stayed else ""
    return (
        f"The flight recorder fired in {fired.total()} of {counted(len(ended_runs), 'ended run')}{in_stayed}: {arms}."
        " That is a recording, not a cause: vaehpc explain shows which signal left its band first, vaehpc replay looks"
        " for the cause."
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
    if run.run_class == "nonfinite" and run.nonfinite_step is None:
        said += " Its latents hold a NaN or infinity."
    return f"{said} Its class is {class_name(run.run_class)}."


def state_shown(run: RunSummary, trained: TrainedRecord | None) -> str:
    """'State of step 0, before NaN at step 19': of which state the latents are; nothing of a run that is finite."""
    if trained is None or not (why := no_end(run)):
        return ""
    return f"State of step {trained.step:,}, {'with' if run.nonfinite_step is None else 'before'} {why}"


def run_findings(run: RunSummary, statistics: LatentStatistics | None) -> list[str]:
    """Radius, onset, and how near its latent points are to a normal distribution, a sentence each."""
    found = []
    if run.radius_median is not None:
        found.append(f"The median of R = ‖μ‖₂ over the images is {number(run.radius_median)} at the end.")
    if run.triggers:
        fired = f"The flight recorder fired {times(len(run.triggers))}: {triggers(run)}"
        found.append(f"{fired}. That is a recording, not a cause.")
    if statistics is not None and (gaussian := statistics.gaussian) is not None and not no_end(run):
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


def epochs(count: float) -> str:
    """'epoch', '2 epochs'."""
    return "epoch" if count == 1 else f"{count:g}{NBSP}epochs"


def burn_in(plan: ProbePlan) -> str:
    """'the first 50 steps', 'the first 300 steps and the first epoch': in which no jump is looked for."""
    of_epochs = f" and the first {epochs(plan.burn_in_epochs)}" if plan.burn_in_epochs else ""
    return f"the first {plan.burn_in_steps:,}{NBSP}steps{of_epochs}"


def times(count: int) -> str:
    """'never', 'once', '3 times'."""
    return ("never", "once")[count] if count < 2 else f"{count:,} times"


def seeds(found: Sequence[int]) -> str:
    """'0 to 15', '5, 9 and 20 to 29', 'none'."""
    return enumeration(ranges(found)) if found else "none"


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
