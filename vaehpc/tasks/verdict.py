"""Judge a replay: read how its forks ended, write replay.json and, for reading, replay.md.

May run at any time: a fork without a result is missing, and the next verdict replaces the files.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from vaehpc.command import UserError
from vaehpc.schema.config import ArmConfig, ReplayConfig, StudyConfig
from vaehpc.schema.results import (
    DRAWN,
    NEEDS_VAE,
    VARIANTS,
    ForkResult,
    Outcome,
    ReplayResult,
    Variant,
    VariantResult,
    Verdict,
)
from vaehpc.stats.course import ProbeCurve
from vaehpc.stats.intervals import clopper_pearson
from vaehpc.stats.replay import (
    SHARE_OF_JUMP,
    Decision,
    decide,
    factor_limit,
    farthest_radius,
    fork_jumped,
    outcome_of_draws,
    outcome_of_equals,
    repeats_to_decide,
)
from vaehpc.study.files import RunDir, StudyDir, write_model, write_text
from vaehpc.study.provenance import provenance
from vaehpc.tasks.recorded import read_probe

logger = logging.getLogger(__name__)

SAME_RADIUS = 2e-7
"""Relative: the probe of a run that 0.1.0 trained has radii of float32 sums, which are so close to those of a fork."""

MEANING: Mapping[Verdict, str] = {
    "not reproducible": "The same again does not do the same: no variant can tell why the run jumped.",
    "extreme epsilon": "The run jumps neither with other noise nor with the same noise without its extremes.",
    "noise, not its extremes": "The run does not jump with other noise; with the same without its extremes it does.",
    "batch content, image ID": "The run jumps neither with other batches nor with the same without that image.",
    "batch content": "The run does not jump with other batches; with the same without the suspected image it does.",
    "logvar explosion": "The run does not jump where log_var is limited.",
    "gradient spike": "The run does not jump where the norm of its gradient is limited.",
    "optimizer state": "The run does not jump where Adam starts with fresh moments.",
    "the weights themselves": "The run jumps whatever is changed: what makes it jump is in its weights already.",
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
    logger.info("%s: %s", result.study, result.verdict)


def judged(study: StudyDir) -> ReplayResult:
    """The outcome of each variant, and the verdict."""
    config = study.config()
    replay = config.replay
    if replay is None:
        raise UserError(f"{study.path} is no replay: its runs are no forks. Make one with `python -m vaehpc.replay`.")
    variants, repeats_source = [], None
    for variant in applicable_variants(next(iter(config.arms.values()))):
        forks = read_forks(study, config, replay, variant)
        if variant == "identical" and forks:
            repeats_source = are_equal(forks, [study.run(fork.run) for fork in forks], read_probe(source_probe(study)))
        variants.append(variant_result(config, replay, variant, forks, repeats_source))
    decision = decide({result.variant: result.outcome for result in variants})
    return ReplayResult(
        study=config.name,
        replay=replay,
        factor_limit=None if replay.jumped_radius is None else factor_limit(replay.calm_radius, replay.jumped_radius),
        level=config.plan.level,
        variants=tuple(variants),
        repeats_source=repeats_source,
        verdict=decision.verdict,
        explanation=explanation(decision, variants, repeats_source, config.plan.level),
        provenance=provenance(),
    )


def applicable_variants(arm: ArmConfig) -> list[Variant]:
    """What the forks of such an arm can do otherwise."""
    return [variant for variant in VARIANTS if arm.vae is not None or variant not in NEEDS_VAE]


def source_probe(study: StudyDir) -> Path:
    """The probe of the source run, kept beside the state in which the forks start."""
    return study.start / "probe.arrow"


# Forks


def read_forks(study: StudyDir, config: StudyConfig, replay: ReplayConfig, variant: Variant) -> list[ForkResult]:
    """The forks of a variant that have ended, in the order of their seeds; one with a damaged record is missing."""
    runs = [run for run in config.runs() if run.arm.name == variant]
    found = [read_fork(study.run(run.name), replay) for run in runs]
    return [fork for fork in found if fork is not None]


def read_fork(run_dir: RunDir, replay: ReplayConfig) -> ForkResult | None:
    """How a fork ended; None if it has no result."""
    if not run_dir.trained_path.exists():
        return None
    try:
        trained = run_dir.trained()
    except UserError as damage:
        logger.warning("%s counts as missing: %s", run_dir.name, damage)
        return None
    radius = None
    if trained.nonfinite_step is None:
        probe = read_probe(run_dir.probe)
        if replay.until_step not in probe.steps:
            logger.warning("%s counts as missing: its probe has no record of step %d", run_dir.name, replay.until_step)
            return None
        radius = farthest_radius(probe, replay.calm_step, replay.calm_radius, replay.until_step)
    return ForkResult(
        run=run_dir.name,
        radius=radius,
        nonfinite_step=trained.nonfinite_step,
        state_sha256=trained.state_sha256,
        jumped=fork_jumped(radius, replay),
    )


def are_equal(forks: Sequence[ForkResult], run_dirs: Iterable[RunDir], source: ProbeCurve) -> bool:
    """Whether forks ended in the same bits, and the probe saw the source run's radii in each."""
    # A fork that was not finite kept its last checkpoint, and when that was made is a matter of time.
    ends = {fork.state_sha256 if fork.nonfinite_step is None else fork.nonfinite_step for fork in forks}
    return len(ends) == 1 and all(_same_radii(read_probe(run_dir.probe), source) for run_dir in run_dirs)


def _same_radii(probe: ProbeCurve, source: ProbeCurve) -> bool:
    of_source = dict(zip(source.steps, source.radius_medians, strict=True))
    pairs = zip(probe.steps, probe.radius_medians, strict=True)
    return all(
        math.isclose(radius, of_source[step], rel_tol=SAME_RADIUS) for step, radius in pairs if step in of_source
    )


def variant_result(
    config: StudyConfig,
    replay: ReplayConfig,
    variant: Variant,
    forks: Sequence[ForkResult],
    repeats_source: bool | None,
) -> VariantResult:
    """Counts and outcome of a variant; `repeats_source` tells whether the identical forks are the source run again."""
    num_repeats = len(config.seeds.get(variant, ()))
    num_missing = num_repeats - len(forks)
    num_jumps = sum(fork.jumped for fork in forks)
    drawn = variant in DRAWN or (variant != "identical" and not replay.deterministic)
    interval = clopper_pearson(num_jumps, len(forks), config.plan.level) if drawn and forks else None
    outcome: Outcome
    if not num_repeats:
        outcome = "not run"
    elif drawn:
        outcome = outcome_of_draws(num_jumps, num_repeats, num_missing, config.plan.level)
    elif variant == "identical" and replay.deterministic and repeats_source is False:
        outcome = "gone"
    else:
        outcome = outcome_of_equals(num_jumps, num_repeats, num_missing)
    return VariantResult(
        variant=variant,
        changed=change(variant, config.arms[variant]) if num_repeats else "",
        num_repeats=num_repeats,
        num_missing=num_missing,
        num_jumps=num_jumps,
        interval=interval,
        outcome=outcome,
        forks=tuple(forks),
    )


# Words


def change(variant: Variant, arm: ArmConfig) -> str:
    """What a fork of this arm does otherwise."""
    assert arm.fork is not None
    changes: Mapping[Variant, str] = {
        "identical": "nothing",
        "noise": "new noise",
        "batches": "new batches",
        "epsilon5": f"abs(epsilon) limited to {arm.vae and arm.vae.epsilon_limit}",
        "log-var-clamp": f"log_var limited to {arm.vae and arm.vae.log_var_limit}",
        "clipped": f"gradient norm limited to {arm.train.clipnorm and round(arm.train.clipnorm, 1)}",
        "without-image": f"image {arm.fork.left_out} left out",
        "fresh-moments": "Adam's moments at zero",
    }
    return changes[variant]


def counts(result: VariantResult) -> str:
    """'3 of 16 jump (4.0% to 45.6%), 2 missing'."""
    ended = result.num_repeats - result.num_missing
    interval = f" ({result.interval.low:.1%} to {result.interval.high:.1%})" if result.interval else ""
    missing = f", {result.num_missing} missing" if result.num_missing else ""
    return f"{result.num_jumps} of {ended} jump{interval}{missing}"


def explanation(
    decision: Decision, variants: Sequence[VariantResult], repeats_source: bool | None, level: float
) -> str:
    """The outcomes that the verdict rests on, what it means, and what would decide an open one."""
    by_name = {result.variant: result for result in variants}
    asked = [by_name[variant] for variant in decision.asked]
    sentences = [sentence(result) for result in asked]
    if decision.verdict == "not reproducible" and repeats_source is False:
        sentences.append("The identical forks are not bitwise the run: another machine, other threads or other code?")
    sentences.append(MEANING[decision.verdict])
    if decision.verdict == "not decided":
        sentences.append(what_would_decide(asked[-1], level))
    return " ".join(sentences)


def sentence(result: VariantResult) -> str:
    """'noise (new noise): 0 of 16 jump (0.0% to 20.6%), gone.'."""
    if not result.num_repeats:
        return f"{result.variant}: not run."
    return f"{result.variant} ({result.changed}): {counts(result)}, {result.outcome}."


def what_would_decide(result: VariantResult, level: float) -> str:
    """How an open outcome can be closed."""
    if result.outcome == "not run":
        return f"To decide, run the variant {result.variant} too."
    if result.num_missing:
        return f"To decide, give the same line again; missing of {result.variant}: {result.num_missing}."
    least = repeats_to_decide(result.num_jumps, result.num_repeats, level)
    return (
        f"To decide, give the same line with --repeats {least} or more: so many are enough if every further fork of"
        f" {result.variant} does as most did."
    )


def page(result: ReplayResult) -> str:
    """replay.md."""
    replay = result.replay
    rows = [
        f"| {of.variant} | {of.changed} | {of.num_repeats} | {counts(of) if of.num_repeats else ''} | {of.outcome} |"
        for of in result.variants
    ]
    return f"""# Replay of {replay.source} from {replay.started_from}

**Verdict: {result.verdict}.** {result.explanation}

{source_words(replay)} {fork_words(result)}

| variant | changed | forks | jumps | outcome |
|---|---|---|---|---|
{chr(10).join(rows)}

Intervals are Clopper and Pearson's at {result.level:.0%}. A jump persists if the interval of its frequency lies above
0.5, and is gone if it lies below. A variant whose forks repeat to the bit is told by one of them, without an interval.
"""


def source_words(replay: ReplayConfig) -> str:
    """What the source run did between the steps that are compared."""
    calm = f"The run's median radius R of the probe was {replay.calm_radius:.2f} at step {replay.calm_step}"
    if replay.jumped_radius is None:
        return f"{calm}; by step {replay.until_step} the run was not finite."
    return f"{calm} and went to {replay.jumped_radius:.2f} by step {replay.until_step}."


def fork_words(result: ReplayResult) -> str:
    """What its forks are, and what counts as a jump."""
    replay = result.replay
    limit = "if it is not finite either"
    if result.factor_limit is not None:
        way = f"by a factor of {result.factor_limit:.2f}, {SHARE_OF_JUMP:.0%} of the run's in ln R"
        limit = f"if its R grows or shrinks {way}, or it is not finite"
    same = {True: "are bitwise the run again", False: "are not bitwise the run again", None: "have not ended"}
    return (
        f"Its forks start at step {replay.step} and end at step {replay.until_step}; one jumps {limit}."
        f" The identical forks {same[result.repeats_source]}."
    )
