"""Judge a replay: read how its forks ended, write replay.json and, for reading, replay.md and replay.html.

May run at any time: a fork without a result is missing, and the next verdict replaces the files.
"""

from __future__ import annotations

import logging
import math
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from vaehpc.command import UserError
from vaehpc.reporting.replay_page import replay_page
from vaehpc.schema.config import ArmConfig, ReplayConfig, RunConfig, StudyConfig
from vaehpc.schema.plan import PlanConfig
from vaehpc.schema.results import (
    NEEDS_NOISE,
    VARIANTS,
    Ending,
    ForkResult,
    Outcome,
    ReplayResult,
    Variant,
    VariantResult,
    Verdict,
)
from vaehpc.stats.contrasts import boschloo
from vaehpc.stats.course import ProbeCurve
from vaehpc.stats.intervals import clopper_pearson
from vaehpc.stats.replay import (
    MOST_TIMES,
    NO_FORKS,
    Decision,
    Tally,
    decide,
    event_counts,
    fork_ending,
    outcome_of_equals,
    outcome_of_treated,
    outcome_of_untreated,
    share_outcome,
    times_to_decide,
    untreated_variant,
    verdict_line,
)
from vaehpc.study.files import RunDir, StudyDir, is_there, read_model, write_model, write_text
from vaehpc.study.provenance import provenance
from vaehpc.tasks.found import require_own_settings, require_trained
from vaehpc.tasks.probe import read_curve, read_probe

logger = logging.getLogger(__name__)

UNDRAWN: Collection[Variant] = ("identical", "null")
"""Variants that are no treatments, as the untreated one."""

SAME_RADIUS = 2e-7
"""Relative: the probe of a run that 0.1.0 trained has radii of float32 sums, which are so close to those of a fork."""

MEANING: Mapping[Verdict, str] = {
    "not reproducible": "The same again does not do the same: no variant can tell why.",
    "extreme epsilon": "Limited noise keeps most forks from it.",
    "noise": "Most forks with other noise do not do it: it took the noise that the run had.",
    "noise, not its extremes": "Most forks with other noise do not do it: it took the noise that the run had, which had"
    " no extremes.",
    "batch content, image ID": "Most forks without that image do not do it.",
    "batch content": "Most forks with other batches do not do it: it took the batches that the run had.",
    "logvar explosion": "A limit of log_var keeps most forks from it.",
    "gradient spike": "A limit of the gradient's norm keeps most forks from it.",
    "optimizer state": "Fresh moments of Adam keep most forks from it.",
    "the weights themselves": "The forks do it whatever is changed: its cause is in the weights that they start from.",
    "not decided": "An outcome on the way to a verdict is open.",
}


def run(directory: str) -> None:
    """Judge the replay in this directory by the forks that have ended.

    Raises:
        UserError: this is not a study of forks, or a file of it is missing or damaged.
    """
    study = StudyDir(Path(directory))
    result = judged(study)
    write_model(study.replay_path, result)
    write_text(study.replay_page, page(result))
    source = result.replay.source.rpartition("/")[0]
    probes = {fork.run: read_probe(study.run(fork.run).probe) for of in result.variants for fork in of.forks}
    said = [source_words(result.replay), fork_words(result)]
    beside = f"../{source}" if (study.path.parent / source / "study.json").exists() else None
    write_text(study.replay_html, replay_page(result, said, read_probe(source_probe(study)), probes, beside))
    logger.info("%s: %s", result.study, result.verdict)


def judged(study: StudyDir) -> ReplayResult:
    """The outcome of each variant, and the verdict."""
    config = study.config()
    replay = config.replay
    if replay is None:
        raise UserError(f"{study.path} is no replay: its runs are no forks. Make one with `python -m vaehpc.replay`.")
    applicable = applicable_variants(next(iter(config.arms.values())), replay)
    forks = {variant: read_forks(study, config, replay, variant) for variant in applicable}
    repeats_source = None
    if identical := forks["identical"]:
        run_dirs = [study.run(fork.run) for fork in identical]
        repeats_source = are_equal(identical, run_dirs, read_source(study, replay))
    variants = variant_results(config, replay, forks, repeats_source)
    outcomes: dict[Variant, Outcome] = {of.variant: of.outcome for of in variants if of.variant != "null"}
    decision = decide(outcomes, has_null(variants), replay.epsilon_max)
    return ReplayResult(
        study=config.name,
        replay=replay,
        level=config.plan.level,
        variants=tuple(variants),
        repeats_source=repeats_source,
        verdict=decision.verdict,
        rests_on=decision.asked[-1],
        explanation=explanation(decision, variants, replay, repeats_source, config.plan),
        provenance=provenance(),
    )


def applicable_variants(arm: ArmConfig, replay: ReplayConfig) -> list[Variant]:
    """What the forks of such a run can do otherwise: at its start Adam's moments are fresh in any case."""
    absent: set[Variant] = set() if arm.has_noise else set(NEEDS_NOISE)
    absent |= {"log-var-clamp"} if arm.vae is None else set()
    absent |= {"fresh-moments"} if replay.step == 0 else set()
    absent |= {"null"} if replay.null is None else set()
    return [variant for variant in VARIANTS if variant not in absent]


def has_null(variants: Sequence[VariantResult]) -> bool:
    """Whether there are null forks to compare with."""
    return any(of.variant == "null" and of.num_repeats for of in variants)


def source_probe(study: StudyDir) -> Path:
    """The probe of the source run, kept beside the state in which the forks start."""
    return study.start / "probe.arrow"


def read_source(study: StudyDir, replay: ReplayConfig) -> ProbeCurve:
    """The curve of the source run; UserError if it is not what it was when the replay was planned."""
    path = source_probe(study)
    curve = read_probe(path, replay.probe_sha256)
    if replay.probe_sha256 is not None and not len(curve.steps):
        raise UserError(f"{path} is missing or damaged: take it from {replay.source} again, and give the same line")
    return curve


# Forks


def read_forks(study: StudyDir, config: StudyConfig, replay: ReplayConfig, variant: Variant) -> list[ForkResult]:
    """The forks of a variant that have ended, in the order of their seeds; one with a damaged record is missing."""
    runs = [run for run in config.runs() if run.arm.name == variant]
    found = [read_fork(study.run(run.name), run, replay, variant) for run in runs]
    return [fork for fork in found if fork is not None]


def read_fork(run_dir: RunDir, run: RunConfig, replay: ReplayConfig, variant: Variant) -> ForkResult | None:
    """How a fork ended; None if it has no result."""
    try:
        if not is_there(run_dir.trained_path):
            return None
        trained = run_dir.trained()
        require_trained(trained, run, run_dir.trained_path)
        require_own_settings(run_dir, run)
    except (UserError, OSError) as damage:
        logger.warning("%s counts as missing: %s", run_dir.name, damage)
        return None
    probe, every = read_curve(run_dir), run.plan.probe.every_steps
    if trained.nonfinite_step is None and (last := run.num_steps // every * every) > 0 and last not in probe.steps:
        logger.warning("%s counts as missing: its probe has no record of step %d", run_dir.name, last)
        return None
    lost = trained.nonfinite_step is not None or not len(probe.steps)
    return ForkResult(
        run=run_dir.name,
        radius=None if lost else float(probe.radius_medians[-1]),
        nonfinite_step=trained.nonfinite_step,
        state_sha256=trained.state_sha256,
        ending=fork_ending(probe, trained.nonfinite_step, replay, variant, run.burn_in, run.plan),
    )


def are_equal(forks: Sequence[ForkResult], run_dirs: Iterable[RunDir], source: ProbeCurve) -> bool:
    """Whether forks ended in the same bits, and the probe saw the source run's radii in each."""
    # A fork that was not finite kept its last checkpoint, and when that was made is a matter of time.
    ends = {fork.state_sha256 if fork.nonfinite_step is None else fork.nonfinite_step for fork in forks}
    return len(ends) == 1 and all(_same_radii(read_curve(run_dir), source) for run_dir in run_dirs)


def _same_radii(probe: ProbeCurve, source: ProbeCurve) -> bool:
    of_source = dict(zip(source.steps, source.radius_medians, strict=True))
    pairs = zip(probe.steps, probe.radius_medians, strict=True)
    return all(
        math.isclose(radius, of_source[step], rel_tol=SAME_RADIUS) for step, radius in pairs if step in of_source
    )


def variant_results(
    config: StudyConfig,
    replay: ReplayConfig,
    forks: Mapping[Variant, Sequence[ForkResult]],
    repeats_source: bool | None,
) -> list[VariantResult]:
    """Counts and outcome of each variant; `repeats_source`: whether the identical forks are the source run again."""
    kind: Ending = "nonfinite" if replay.jumped_radius is None else "jump"
    tallies = {variant: tally_of(of, len(config.seeds.get(variant, ())), kind) for variant, of in forks.items()}
    untreated = untreated_variant(forks)
    num_treatments = len(forks.keys() & config.seeds.keys() - {*UNDRAWN, untreated})
    found = []
    for variant, of in forks.items():
        num_repeats, tally = len(config.seeds.get(variant, ())), tallies[variant]
        against = tallies.get("null", NO_FORKS) if variant == untreated else tallies[untreated]
        is_share = variant != "identical" and tally.compared > 0
        is_tested = is_share and against.compared > 0 and variant != "null"
        kinds = Counter(fork.ending for fork in of)
        outcome: Outcome = "not run"
        if num_repeats and variant == "identical":
            is_other = replay.deterministic and repeats_source is False
            outcome = "gone" if is_other else outcome_of_equals(tally.events, num_repeats, tally.missing)
        elif num_repeats and variant == "null":
            outcome = share_outcome(tally, config.plan.level)
        elif num_repeats and variant == untreated:
            outcome = outcome_of_untreated(tally, against, config.plan.level, config.plan.replay)
        elif num_repeats:
            outcome = outcome_of_treated(tally, against, num_treatments, config.plan.level, config.plan.replay)
        found.append(
            VariantResult(
                variant=variant,
                changed=change(variant, config.arms[variant]) if num_repeats else "",
                num_repeats=num_repeats,
                num_missing=tally.missing,
                num_jumps=kinds["jump"],
                num_nonfinite=kinds["nonfinite"],
                num_thrown=kinds["thrown"],
                num_incomparable=kinds["not comparable"],
                interval=clopper_pearson(tally.events, tally.compared, config.plan.level) if is_share else None,
                p=boschloo(*tally[:2], *against[:2], "greater" if variant == untreated else "less")
                if is_tested
                else None,
                outcome=outcome,
                forks=tuple(of),
            )
        )
    return found


def tally_of(forks: Sequence[ForkResult], num_repeats: int, own_kind: Ending) -> Tally:
    """Events among the forks that can be compared; `own_kind`: the source run's."""
    compared = [fork.ending for fork in forks if fork.ending not in ("thrown", "not comparable")]
    events = len(compared) - compared.count("stayed")
    return Tally(events, len(compared), num_repeats - len(forks), compared.count(own_kind))


# Verdicts of a study's runs


@dataclass(frozen=True)
class Replayed:
    """A replay that lies beside a study."""

    result: ReplayResult
    page: str
    """Relative to the folder of the studies."""


def replays_of(study: StudyDir, name: str) -> dict[str, list[Replayed]]:
    """The replays beside a study, by its runs' names; of several of one run in the order of steps.

    One that is damaged or has missing forks is passed over.

    Args:
        study: whose runs were replayed.
        name: of the study.
    """
    found: list[Replayed] = []
    for path in study.path.parent.glob("*/replay.json"):
        try:
            result = read_model(path, ReplayResult)
        except UserError as damage:
            logger.warning("%s is passed over: %s", path, damage)
            continue
        if result.replay.source.rpartition("/")[0] != name:
            continue
        if any(of.num_missing for of in result.variants):
            logger.warning("%s is passed over: forks are missing", path)
            continue
        of_forks = StudyDir(path.parent)
        page = of_forks.replay_html if of_forks.replay_html.exists() else of_forks.replay_page
        found.append(Replayed(result, f"{path.parent.name}/{page.name}"))
    runs: dict[str, list[Replayed]] = {}
    for replayed in sorted(found, key=lambda replayed: (replayed.result.replay.step, replayed.result.study)):
        runs.setdefault(replayed.result.replay.source.rpartition("/")[2], []).append(replayed)
    return runs


def lines(replays: Sequence[Replayed]) -> str:
    """The verdicts of the replays of one run."""
    return " ".join(verdict_line(replayed.result, len(replays) > 1) for replayed in replays)


def links(replays: Sequence[Replayed]) -> dict[str, str]:
    """Pages of the replays of one run, relative to the study's directory, by names of which no two are equal."""
    found = {}
    for replayed in replays:
        replay = replayed.result.replay
        name = f"replay from step {replay.step:,}" if len(replays) > 1 else "replay"
        found[f"{name}, {replayed.result.study}" if name in found else name] = f"../{replayed.page}"
    return found


# Words


def change(variant: Variant, arm: ArmConfig) -> str:
    """What a fork of this arm does otherwise."""
    assert arm.fork is not None
    drawn = {"noise": "new noise", "shuffling": "new batches", None: "nothing"}[arm.fork.renewed]
    changes: Mapping[Variant, str] = {
        "epsilon5": f"abs(epsilon) limited to {arm.vae and arm.vae.epsilon_limit}",
        "log-var-clamp": f"log_var limited to {arm.vae and arm.vae.log_var_limit}",
        "clipped": f"gradient norm limited to {arm.train.clipnorm and round(arm.train.clipnorm, 1)}",
        "without-image": f"image {arm.fork.left_out} left out",
        "fresh-moments": "Adam's moments at zero",
        "null": f"steps {arm.fork.step:,} to {arm.fork.until_step:,}",
    }
    if variant not in changes:
        return drawn
    return changes[variant] if arm.fork.renewed is None else f"{drawn}, {changes[variant]}"


def counts(of: VariantResult, replay: ReplayConfig) -> str:
    """'3 of 12 jump, 1 become NaN (9.9% to 65.1%), p = 0.2, 1 thrown by the treatment, 2 missing'."""
    said = event_counts(of, replay.jumped_radius is None)
    said += f" ({of.interval.low:.1%} to {of.interval.high:.1%})" if of.interval else ""
    others = [(of.num_thrown, "thrown by the treatment"), (of.num_incomparable, "not comparable")]
    others.append((of.num_missing, "missing"))
    more = [f"p = {of.p:.2g}"] if of.p is not None else []
    return ", ".join([said, *more, *(f"{count} {what}" for count, what in others if count)])


def explanation(
    decision: Decision,
    variants: Sequence[VariantResult],
    replay: ReplayConfig,
    repeats_source: bool | None,
    plan: PlanConfig,
) -> str:
    """The outcomes that the verdict rests on, what it means, and what would decide an open one."""
    by_name = {result.variant: result for result in variants}
    asked = [by_name[variant] for variant in decision.asked]
    untreated = by_name[untreated_variant(by_name)]
    sentences = [sentence(of, replay) + own_kind(of, untreated, replay) for of in asked]
    if untreated in asked and untreated.outcome != "gone":
        sentences.insert(asked.index(untreated) + 1, null_words(by_name.get("null"), replay))
    if decision.verdict == "not reproducible" and repeats_source is False:
        sentences.append("The identical forks are not bitwise the run: another machine, other threads or other code?")
    sentences.append(MEANING[decision.verdict])
    if decision.verdict == "not decided":
        sentences.append(what_would_decide(asked, variants, replay, plan))
    elif unasked := [of.variant for of in asked if not of.num_repeats]:
        sentences.append(f"The first cause in a step may come before it: {', '.join(unasked)} were not run.")
    return " ".join(sentences)


def own_kind(treated: VariantResult, untreated: VariantResult, replay: ReplayConfig) -> str:
    """Of a treatment whose forks leave in the other way alone less often: so."""
    if treated.outcome != "other kind":
        return ""
    if replay.jumped_radius is None:
        what, treated_count, untreated_count = "become NaN", treated.num_nonfinite, untreated.num_nonfinite
    else:
        what, treated_count, untreated_count = "jump", treated.num_jumps, untreated.num_jumps
    shares = f"{treated_count} of {treated.num_compared} against {untreated_count} of {untreated.num_compared}"
    return f" Only the other kind becomes rarer: {what}, as the run did, {shares}."


def sentence(of: VariantResult, replay: ReplayConfig) -> str:
    """'noise (new noise): 0 of 16 jump (0.0% to 20.6%), gone.'."""
    if not of.num_repeats:
        return f"{of.variant}: not run."
    return f"{of.variant} ({of.changed}): {counts(of, replay)}, {of.outcome}."


def null_words(null: VariantResult | None, replay: ReplayConfig) -> str:
    """What the untreated forks are compared with."""
    if null is not None and null.num_repeats and replay.null is not None:
        return (
            f"Null forks, over {null.changed}, where R moved by a factor of {replay.null.moved:.2f}:"
            f" {counts(null, replay)}."
        )
    why = "were not run" if null is not None else "have no checkpoint from which the run was as calm for as long"
    return f"Without a null: null forks {why}."


def what_would_decide(
    asked: Sequence[VariantResult], variants: Sequence[VariantResult], replay: ReplayConfig, plan: PlanConfig
) -> str:
    """How an open outcome can be closed, or why more forks would not."""
    if asked[-1].num_missing:
        return f"To decide, give the same line again; missing of {asked[-1].variant}: {asked[-1].num_missing}."
    ways = []
    if unasked := [of.variant for of in variants if of in asked and not of.num_repeats]:
        ways.append(f"run {', '.join(unasked)} too")
    is_nan = replay.jumped_radius is None
    tallies = {
        of.variant: Tally(of.num_events, of.num_compared, own=of.num_nonfinite if is_nan else of.num_jumps)
        for of in variants
        if of.num_repeats
    }
    untreated = untreated_variant([of.variant for of in variants])
    num_treatments = len(tallies.keys() - {*UNDRAWN, untreated})
    enough: list[tuple[int, Variant]] = []
    futile = []
    for of in asked:
        if of.outcome == "other kind":
            futile.append(f"of {of.variant}: the run's own kind is no rarer")
        if of.outcome != "undecided":
            continue
        if of.variant == untreated:
            outcome = partial(outcome_of_untreated, level=plan.level, plan=plan.replay)
            against = tallies.get("null", NO_FORKS)
            why = "null forks do it, too" if against.compared else "about as many do it as not, by what is drawn"
        else:
            outcome = partial(outcome_of_treated, num_treatments=num_treatments, level=plan.level, plan=plan.replay)
            against = tallies[untreated]
            why = "it makes the event rarer at most" if of.num_compared else "none can be compared"
        if times := times_to_decide(outcome, tallies[of.variant], against):
            enough.append((times * of.num_repeats, of.variant))
        else:
            futile.append(f"of {of.variant}: {why}")
    if enough:
        repeats, variant = min(enough, key=lambda found: found[0])
        ways.append(f"give the same line with --repeats {repeats}: enough of {variant} if the shares stay")
    said = f"To decide, {', or '.join(ways)}." if ways else ""
    if futile and not enough:
        said += f" If the shares stay, even {MOST_TIMES} times as many forks decide nothing, {'; '.join(futile)}."
        said += " Start them later, with another --trigger or --epoch."
    return said.strip()


def page(result: ReplayResult) -> str:
    """replay.md."""
    replay = result.replay
    rows = "\n".join(row(of) for of in result.variants)
    untreated = untreated_variant([of.variant for of in result.variants])
    return f"""# Replay of {replay.source} from {replay.started_from}

**Verdict: {result.verdict}.** {result.explanation}

{source_words(replay)} {fork_words(result)}

| variant | changed | forks | compared | jump | become NaN | share | p | outcome |
|---|---|---:|---:|---:|---:|---|---:|---|
{rows}

Intervals are Clopper and Pearson's at {result.level:.0%}. p is Boschloo's, one-sided: of {untreated}, that it has no
more events than null; of the others, that they have no fewer than {untreated}. An event is gone from {untreated} if the
interval lies under a half; from the others if p lies under the plan's alpha over the number of treatments, and fewer
than half have it. It persists if the interval lies above a half; of {untreated}, where there are null forks, if it has
more events than they (p under alpha), of which fewer than half have one.
"""


def row(of: VariantResult) -> str:
    """One variant in the table."""
    if not of.num_repeats:
        return f"| {of.variant} | | | | | | | | {of.outcome} |"
    share = f"{of.interval.low:.1%} to {of.interval.high:.1%}" if of.interval else ""
    p = "" if of.p is None else f"{of.p:.2g}"
    counted = f"{of.num_repeats} | {of.num_compared} | {of.num_jumps} | {of.num_nonfinite} | {share} | {p}"
    others = [f"{of.num_thrown} thrown"] if of.num_thrown else []
    others += [f"{of.num_incomparable} not comparable"] if of.num_incomparable else []
    others += [f"{of.num_missing} missing"] if of.num_missing else []
    return f"| {of.variant} | {of.changed} | {counted} | {', '.join([of.outcome, *others])} |"


def source_words(replay: ReplayConfig) -> str:
    """What the source run did between the steps that are compared."""
    calm = ""
    if replay.calm_step is not None:
        calm = f"The run's median radius R of the probe was {replay.calm_radius:.2f} at step {replay.calm_step}"
    if replay.jumped_radius is not None:
        return f"{calm} and went to {replay.jumped_radius:.2f} by step {replay.until_step}."
    lost = f"by step {replay.until_step} the run was not finite"
    if replay.event_step is not None:
        lost = f"in step {replay.event_step} the run was not finite"
    return f"{calm}; {lost}." if calm else f"{lost[0].upper()}{lost[1:]}; no probe was taken before."


def fork_words(result: ReplayResult) -> str:
    """What its forks are, and what counts as an event."""
    replay = result.replay
    same = {True: "are bitwise the run again", False: "are not bitwise the run again", None: "have not ended"}
    thrown = ""
    if replay.calm_step is not None and replay.calm_step > replay.step:
        thrown = f" One that a treatment had thrown by step {replay.calm_step} is not compared."
    return (
        f"Its forks start at step {replay.step} and end at step {replay.until_step}. One has the event if its R"
        " jumps by the course's rule, against its own base, or if its loss is not finite; the two kinds are counted"
        f" apart.{thrown} The identical forks {same[result.repeats_source]}."
    )
