"""`python -m vaehpc.replay STUDY --run RUN`: fork a run before it jumped or became NaN, and say what made it so."""

from __future__ import annotations

import math
import os
import re
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro
from rich.console import Console
from rich.table import Table

from vaehpc.command import UserError, asked_by, exit_code, require_plain, say
from vaehpc.local.stages import INTERRUPTED, claim, require_only_launcher, run_stage, run_study_job
from vaehpc.schema.config import MAX_SEEDS, STUDY_NAME, ArmConfig, ForkConfig, ReplayConfig, RunConfig, StudyConfig
from vaehpc.schema.results import NEEDS_NOISE, VARIANTS, ReplayResult, TrainedRecord, TriggerRecord, Variant
from vaehpc.slurm.choice import chosen_site
from vaehpc.slurm.queueing import queue_study, require_package, require_served
from vaehpc.study.files import DataDir, RunDir, StudyDir, is_there, read_model, step_of
from vaehpc.study.packages import require_installed
from vaehpc.study.provenance import provenance
from vaehpc.study.sites import job_config, resolved
from vaehpc.study.study import create_study, found_run, found_study, in_image, missing_runs, widened

if TYPE_CHECKING:
    from vaehpc.stats.replay import RunEvent

GRADIENT_FACTOR = 10.0
"""The gradient's norm is limited to this times its median before the jump."""


@dataclass(frozen=True)
class Replay:
    """Fork a run before it jumped or became NaN, with one thing changed at a time, and say what made it so.

    The forks are an ordinary study of their own: its arms are the variants, its seeds the repeats. The same line again
    does only what is missing; more repeats or variants widen it. Exit codes: 0 done, 2 asked wrongly, 3 ended with
    missing forks, 130 interrupted.
    """

    source: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="STUDY")]
    """The study's folder, or its name under 'runs'."""
    run: str
    """The run of it that jumped or became NaN, such as vae-tiny-seed007."""
    epoch: int | None = None
    """Fork from the checkpoint at the end of this epoch; 0: from the run's start. Default: before its first event."""
    trigger: int | None = None
    """Fork from the snapshot before this trigger of the flight recorder, counted from 1. Default: as of --epoch."""
    repeats: int | None = None
    """Forks of each variant but 'identical', each with new noise, of an AE with new batches. Default: the plan's."""
    variants: tuple[Variant, ...] = ()
    """What to change. Default: everything that this run has, one after the other."""
    image: int | None = None
    """Position in the training split of the image to leave out. Default: the one that the trigger recorded."""
    study: str | None = None
    """Name of the study of forks. Default: STUDY-replay-RUN-stepN."""
    out: Path | None = None
    """Folder of the study of forks. Default: beside the source study."""
    executor: Literal["slurm", "local", "debug"] | None = None
    """slurm: arrays in its queue; local: processes on this machine, as many as processors or GPUs; debug: in this
    process, without --pdb, which is `vaehpc launch`'s alone. Default: slurm with --site, else local."""
    site: Path | None = None
    """TOML file that says where jobs run: your copy of jobs/sites/slurm.toml."""
    wait: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """On Slurm, return when the forks have ended and are judged."""
    dry_run: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Say what would be done and write nothing."""


def main(argv: Sequence[str] | None = None) -> int:
    """Exit code 0: judged; 2: asked wrongly; 3: forks are missing; 130: Ctrl-C."""
    return exit_code(lambda: replay(asked_by(Replay, argv, "vaehpc replay"), Console()), INTERRUPTED)


def replay(asked: Replay, console: Console) -> int:
    """Plan the forks, train those that are missing, judge them.

    Returns:
        The exit code.
    """
    chosen, executor, _ = chosen_site(asked.site, asked.executor or ("auto" if asked.site else "local"), "")
    require_plain("--out", asked.out)
    require_installed(*(() if executor == "slurm" else ("train",)), "analysis")
    source = found_study(asked.source)
    run = found_run(source, asked.run)
    start = found_start(run, asked.epoch, asked.trigger)
    config, study = planned_replay(asked, source, run, start)
    _say_plan(config, run, start, console)
    if study.config_path.exists():
        config = widened(study.config(), config)
    if asked.dry_run:
        left = sum(1 for _ in missing_runs(study, config, str(job_config("train").marker)))
        say(console, f"Study {study.path}: {left} of {len(config.runs())} forks are left to train.")
        say(console, "Dry run: nothing was written.")
        return 0
    require_only_launcher(study)
    site = resolved(chosen, Path(config.data.path), study.path)
    if executor == "slurm":
        require_served(site)
        digest = require_package(site)
        config = config if study.config_path.exists() else in_image(config, digest)

    def begin() -> None:
        create_study(study, config)
        keep_start(study, config, run, start)

    if executor == "slurm":
        return queue_study(study, config, site, asked.wait, console, show_verdict, begin)
    begin()
    claim(study)
    run_stage("train", study, config, executor, console)
    return _end(study, executor, console)


# The source


@dataclass(frozen=True)
class Start:
    """The state of the source run that its forks start from."""

    words: str
    """'trigger 1', 'epoch 18' or 'its start'."""
    step: int
    """Steps done."""
    state: Path | None
    """Directory of the checkpoint or snapshot; None: the start, where the weights follow from the run's keys."""
    trigger: TriggerRecord | None = None


def found_start(run: RunDir, epoch: int | None, trigger: int | None) -> Start:
    """The checkpoint at the end of an epoch, the snapshot before a trigger, or the state before the first event.

    Raises:
        UserError: both are asked for, or the run does not have it; says which it has.
    """
    if epoch is not None and trigger is not None:
        raise UserError("say where the forks start: either --trigger N or --epoch N")
    if epoch is not None:
        return _start_at_epoch(run, epoch)
    return _start_before_first_event(run) if trigger is None else _start_at_trigger(run, trigger)


def _start_at_trigger(run: RunDir, trigger: int) -> Start:
    paths = run.trigger_dirs()
    if not 1 <= trigger <= len(paths):
        raise UserError(f"--trigger {trigger}: run {run.name} has {_triggers_in_words(run)}. Or take --epoch N.")
    path = paths[trigger - 1]
    record = read_model(path / "trigger.json", TriggerRecord)
    return Start(f"trigger {trigger}", record.snapshot_step, path / "snapshot", record)


def _start_at_epoch(run: RunDir, epoch: int) -> Start:
    config = run.config()
    path = run.checkpoints / f"step-{epoch * config.steps_per_epoch:09d}"
    words = f"epoch {epoch}" if epoch else "its start"
    if epoch >= 0 and path.exists():
        return Start(words, epoch * config.steps_per_epoch, path)
    if epoch == 0 and config.arm.start_from is None:
        return Start(words, 0, None)
    kept = [str(step // config.steps_per_epoch) for step in _kept_steps(run) if step % config.steps_per_epoch == 0]
    raise UserError(
        f"--epoch {epoch}: run {run.name} keeps no checkpoint of its end, but of the epochs"
        f" {', '.join(kept) or '(none)'}. Take one of them, or --trigger N: it has {_triggers_in_words(run)}."
    )


def _start_before_first_event(run: RunDir) -> Start:
    """From the first trigger that led to the first event, or else from the last checkpoint before, or the start."""
    events = found_events(run)
    if not events:
        raise UserError(f"run {run.name} neither jumped nor became NaN after its burn-in: there is nothing to replay")
    first, ring_steps = events[0], run.config().plan.recorder.ring_steps
    for number, record in enumerate(run.trigger_records(), start=1):
        if record.snapshot_step < first.step and 0 <= first.step - record.step <= ring_steps:
            return _start_at_trigger(run, number)
    steps_per_epoch = run.config().steps_per_epoch
    before = [step for step in _kept_steps(run) if step <= first.after and step % steps_per_epoch == 0]
    return _start_at_epoch(run, max(before, default=0) // steps_per_epoch)


def _kept_steps(run: RunDir) -> list[int]:
    return [step for found in run.checkpoint_dirs() if (step := step_of(found)) is not None]


def found_events(run: RunDir) -> list[RunEvent]:
    """What the run did, as vaehpc.stats.replay.run_events defines it.

    Raises:
        UserError: it is not trained to its end.
    """
    # Imported here: the launcher starts without what only an analysis needs.
    from vaehpc.stats.replay import run_events
    from vaehpc.tasks.probe import read_curve

    config = run.config()
    lost = _ended(run).nonfinite_step
    return run_events(read_curve(run), lost, config.burn_in, config.plan)


def _events_in_words(events: Sequence[RunEvent]) -> str:
    said = [f"{'a jump' if event.kind == 'jump' else 'NaN'} at step {event.step:,}" for event in events]
    return ", ".join(said) or "no event"


def _triggers_in_words(run: RunDir) -> str:
    paths = run.trigger_dirs()
    steps = ", ".join(f"{n} at step {step_of(path)}" for n, path in enumerate(paths, start=1))
    return f"the triggers {steps}" if steps else "no trigger"


# The plan


def planned_replay(asked: Replay, source: StudyDir, run: RunDir, start: Start) -> tuple[StudyConfig, StudyDir]:
    """The study of forks, and where it lies.

    Raises:
        UserError: the run has not ended or has no event there, or the forks cannot be made or could decide nothing.
    """
    of_source, original = source.config(), run.config()
    name = asked.study or f"{of_source.name}-replay-{run.name}-step{start.step}"
    if not re.fullmatch(STUDY_NAME, name):
        raise UserError(f"--study '{name}': a name takes letters, digits, '.', '_' and '-'; --out says where it lies")
    if original.arm.fork is not None:
        raise UserError(f"run {run.name} is itself a fork; replay the run that it replays, {original.arm.fork.source}")
    DataDir(Path(original.data.path)).manifest()
    plan = of_source.plan
    repeats = plan.replay.repeats if asked.repeats is None else asked.repeats
    _require_enough_repeats(repeats, plan.level)
    event = observed_event(run, original, start, _ended(run))
    image = _suspect(asked.image, start.trigger, original.data.num_train)
    study = StudyDir((asked.out or source.path.parent) / name)
    fork = ForkConfig(
        source=event.source,
        seed=original.seed,
        checkpoint=None if start.state is None else str(study.start),
        step=start.step,
        until_step=event.until_step,
        levels=original.levels,
    )
    variants = chosen_variants(asked.variants, original.arm, image, event)
    # Without a calm probe, the second half of the steps may be those in which the run left.
    before = event.calm_step or (event.event_step or 0) // 2
    usual_norm = usual_gradient_norm(run, before, original) if "clipped" in variants else None
    null = None
    if event.null is not None:
        changes = {"checkpoint": str(study.null_start), "step": event.null.step, "until_step": event.null.until_step}
        null = fork.model_copy(update=changes)
    arms = {variant: forked_arm(original.arm, variant, fork, usual_norm, image, null) for variant in variants}
    repeated = {"identical": plan.replay.identical_repeats}
    seeds = {variant: tuple(range(repeated.get(variant, repeats))) for variant in variants}
    return of_source.model_copy(
        update={"name": name, "arms": arms, "seeds": seeds, "provenance": provenance(), "replay": event, "cross": {}}
    ), study


def _require_enough_repeats(repeats: int, level: float) -> None:
    from vaehpc.stats.replay import least_repeats

    least = least_repeats(level)
    if not least <= repeats <= MAX_SEEDS:
        raise UserError(
            f"--repeats {repeats}: {least} to {MAX_SEEDS:,} are possible. With fewer than {least} forks the {level:.0%}"
            " interval of a frequency always holds 0.5, and nothing could be decided."
        )


def _ended(run: RunDir) -> TrainedRecord:
    if not is_there(run.trained_path):
        raise UserError(
            f"run {run.name} is not trained to its end, which its forks are compared with: launch its study"
        )
    return run.trained()


def observed_event(run: RunDir, config: RunConfig, start: Start, trained: TrainedRecord) -> ReplayConfig:
    """The event that the forks are to repeat: its first after the start; of a trigger, within the ring's steps.

    Raises:
        UserError: there is none, or its radius was not recorded to the end of the forks.
    """
    from vaehpc.stats.replay import farthest_radius, last_probe, null_window, until_step
    from vaehpc.tasks.probe import read_curve

    curve, plan, trigger = read_curve(run), config.plan, start.trigger
    events = found_events(run)
    since, to = start.step, math.inf
    if trigger is not None:
        since, to = max(trigger.step, start.step), trigger.step + plan.recorder.ring_steps
    # A jump is seen after so many steps, NaN is in a step.
    after = [event for event in events if since < event.step + (event.kind == "nonfinite") and event.step <= to]
    if not after:
        within = "" if math.isinf(to) else f" within {plan.recorder.ring_steps} steps"
        raise UserError(
            f"run {run.name} neither jumped nor became NaN{within} after {start.words}; it had"
            f" {_events_in_words(events)}. Take another --trigger N or --epoch N, or neither for its first event:"
            f" it has {_triggers_in_words(run)}."
        )
    event = after[0]
    until = until_step(event, config.num_steps, plan)
    calm = event.after if trigger is None else min(event.after, last_probe(curve, trigger.step))
    goes_on = trained.nonfinite_step is None or trained.nonfinite_step >= until
    if event.kind == "jump" and goes_on and until not in curve.steps:
        raise UserError(f"{run.probe} has no record of step {until}: it is damaged, and nothing can be compared")
    length, before = until - start.step, max(calm, start.step)
    return ReplayConfig(
        source=f"{config.study}/{run.name}",
        started_from=start.words,
        step=start.step,
        until_step=until,
        calm_step=calm or None,
        calm_radius=float(curve.radius_medians[curve.steps == calm][0]) if calm else None,
        jumped_radius=farthest_radius(curve, calm, until) if event.kind == "jump" else None,
        deterministic=trained.threads == 1 and trained.device_kind == "cpu",
        event_step=event.step,
        epsilon_max=largest_epsilon(run, start.step, event.step),
        null=null_window(curve, _kept_steps(run), length, before, plan),
        probe_sha256=trained.files_sha256.get(run.name_of(run.probe)) if len(curve.steps) else None,
    )


def largest_epsilon(run: RunDir, first: int, last: int) -> float | None:
    """Largest |epsilon| of the steps up to the last, or to where the record ends; None if it lacks one before."""
    from vaehpc.tasks.recorded import read_record

    within = read_record(run).between(first, last)
    if "epsilon_max" not in within.signals or len(within.steps) < last - first:
        return None
    return float(within.signals["epsilon_max"].max())


def _suspect(image: int | None, trigger: TriggerRecord | None, num_train: int) -> int | None:
    """The image to leave out: the one asked for, or that with the trigger's largest log_var or loss."""
    if image is not None and not 0 <= image < num_train:
        raise UserError(f"--image {image}: the positions in the training split are 0 to {num_train - 1:,}")
    if image is not None or trigger is None:
        return image
    return trigger.largest_log_var_image if trigger.signal == "log_var_max" else trigger.largest_loss_image


def chosen_variants(asked: Sequence[Variant], arm: ArmConfig, image: int | None, event: ReplayConfig) -> list[Variant]:
    """Variants in the order of the verdict's rules: those asked for, or all that this arm can have.

    Raises:
        UserError: one is asked for that cannot be.
    """
    from vaehpc.tasks.verdict import applicable_variants

    for variant in asked:
        if variant in NEEDS_NOISE and not arm.has_noise:
            raise UserError(f"--variants {variant}: arm {arm.name} has no noise")
        if variant == "log-var-clamp" and arm.vae is None:
            raise UserError(f"--variants {variant}: arm {arm.name} is an AE and has no log_var")
        if variant == "without-image" and image is None:
            raise UserError(
                "--variants without-image: say which with --image N, or take --trigger N, which recorded one"
            )
    possible = applicable_variants(arm, event)
    if "fresh-moments" in asked and "fresh-moments" not in possible:
        raise UserError("--variants fresh-moments: at the run's start Adam's moments are fresh in any case")
    if "null" in asked and "null" not in possible:
        raise UserError(
            f"--variants null: of no checkpoint before step {event.step} on was the run calm for as long as"
            f" {event.until_step - event.step:,} steps"
        )
    return [
        variant
        for variant in possible
        if (variant in asked if asked else variant != "without-image" or image is not None)
    ]


def usual_gradient_norm(run: RunDir, before: int, config: RunConfig) -> float:
    """Median finite norm of the gradient over as many steps before this one as the ring has, or as there are.

    Raises:
        UserError: no such step was recorded.
    """
    import numpy as np

    from vaehpc.tasks.recorded import read_record

    rows = read_record(run).between(before - config.plan.recorder.ring_steps, before - 1)
    norms = rows.signals.get("gradient_norm", np.array([]))
    if not (usable := np.isfinite(norms)).any():
        raise UserError(
            f"{run.steps} holds no steps before step {before}, whose gradients would say where to clip them."
            " Name the variants but 'clipped' after --variants."
        )
    return float(np.median(norms[usable]))


def forked_arm(
    arm: ArmConfig,
    variant: Variant,
    fork: ForkConfig,
    usual_norm: float | None,
    image: int | None,
    null: ForkConfig | None,
) -> ArmConfig:
    """The arm as the forks of a variant train it: with new noise, without any new batches, and one thing changed.

    A limit that the arm has is never widened.

    Args:
        arm: the source run's.
        variant: what to change.
        fork: where the forks start and end.
        usual_norm: of the gradient, for the variant 'clipped'.
        image: position in the training split, for the variant 'without-image'.
        null: where the null forks start and end.
    """
    from vaehpc.stats.replay import LIMIT

    drawn: Mapping[Variant, str | None] = {"identical": None, "batches": "shuffling"}
    renewed = drawn.get(variant, "noise" if arm.has_noise else "shuffling")
    of_variant = null if variant == "null" and null is not None else fork
    renewing = of_variant.model_copy(update={"renewed": renewed})
    forked = arm.model_copy(update={"name": variant, "start_from": None, "fork": renewing})
    if variant == "epsilon5":
        assert arm.vae is not None
        return _changed(forked, "vae", epsilon_limit=_tighter(arm.vae.epsilon_limit, LIMIT))
    if variant == "log-var-clamp":
        assert arm.vae is not None
        return _changed(forked, "vae", log_var_limit=_tighter(arm.vae.log_var_limit, LIMIT))
    if variant == "clipped":
        assert usual_norm is not None
        return _changed(forked, "train", clipnorm=_tighter(arm.train.clipnorm, GRADIENT_FACTOR * usual_norm))
    changes: Mapping[Variant, Mapping[str, Any]] = {
        "without-image": {"left_out": image},
        "fresh-moments": {"fresh_moments": True},
    }
    return _changed(forked, "fork", **changes.get(variant, {}))


def _changed(arm: ArmConfig, part: str, **changes: Any) -> ArmConfig:
    return arm.model_copy(update={part: getattr(arm, part).model_copy(update=changes)})


def _tighter(limit: float | None, other: float) -> float:
    return other if limit is None else min(limit, other)


def keep_start(study: StudyDir, config: StudyConfig, run: RunDir, start: Start) -> None:
    """Copy the states that the forks start from, and the probe that they are compared with, into their study."""
    _keep_state(study.start, start.state, run.probe)
    if config.replay is not None and config.replay.null is not None:
        _keep_state(study.null_start, run.checkpoints / f"step-{config.replay.null.step:09d}", run.probe)


def _keep_state(path: Path, state: Path | None, probe: Path) -> None:
    if path.exists():
        return
    aside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        if state is None:
            aside.mkdir()
        else:
            shutil.copytree(state, aside)
        if probe.exists():
            shutil.copyfile(probe, aside / "probe.arrow")
        aside.rename(path)
    except BaseException:
        shutil.rmtree(aside, ignore_errors=True)
        raise


# The end


def _say_plan(config: StudyConfig, run: RunDir, start: Start, console: Console) -> None:
    from vaehpc.tasks.verdict import change, source_words

    assert config.replay is not None
    what = f" ({start.trigger.signal} at step {start.trigger.step})" if start.trigger else ""
    say(console, f"Replay of {run.name} from step {start.step}, {start.words}{what}. {source_words(config.replay)}")
    for variant in VARIANTS:
        if variant in config.arms:
            say(console, f"  {variant}, {len(config.seeds[variant])} x: {change(variant, config.arms[variant])}")


def _end(study: StudyDir, executor: str, console: Console) -> int:
    """Judge the forks, say what was found, and list the forks that are missing."""
    if not run_study_job("verdict", study, study.replay_path, executor, console):
        return 3
    return show_verdict(study, console)


def show_verdict(study: StudyDir, console: Console) -> int:
    """Say what a replay found, and where it is written; the exit code.

    Raises:
        UserError: the forks are not judged yet.
    """
    result = read_model(study.replay_path, ReplayResult)
    _print_result(result, console)
    say(console, f"Replay: {study.replay_page}")
    return 3 if any(variant.num_missing for variant in result.variants) else 0


def _print_result(result: ReplayResult, console: Console) -> None:
    title = f"Replay of {result.replay.source} from {result.replay.started_from}"
    table = Table("variant", "jump", "NaN", "of", "interval", "p", "missing", "outcome", title=title)
    for of in result.variants:
        interval = f"{of.interval.low:.1%} to {of.interval.high:.1%}" if of.interval else ""
        p = "" if of.p is None else f"{of.p:.2g}"
        numbers = [str(of.num_jumps), str(of.num_nonfinite), str(of.num_compared), interval, p, str(of.num_missing)]
        table.add_row(of.variant, *(numbers if of.num_repeats else [""] * 6), of.outcome)
    console.print(table)
    say(console, f"Verdict: {result.verdict}. {result.explanation}")


if __name__ == "__main__":
    sys.exit(main())
