"""`python -m vaehpc.replay STUDY --run RUN --trigger 1`: fork a run before it jumped, and say what made it jump."""

from __future__ import annotations

import os
import re
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro
from rich.console import Console
from rich.table import Table

from vaehpc.command import UserError, exit_code, say
from vaehpc.local.stages import INTERRUPTED, claim, require_only_launcher, run_stage, run_study_job
from vaehpc.schema.config import MAX_SEEDS, STUDY_NAME, ArmConfig, ForkConfig, ReplayConfig, RunConfig, StudyConfig
from vaehpc.schema.results import DRAWN, NEEDS_VAE, VARIANTS, ReplayResult, TrainedRecord, TriggerRecord, Variant
from vaehpc.slurm.queueing import queue_study, require_package
from vaehpc.study.files import DataDir, RunDir, StudyDir, read_model
from vaehpc.study.provenance import provenance
from vaehpc.study.sites import chosen_site, job_config, resolved
from vaehpc.study.study import create_study, found_run, found_study, in_image, missing_runs, widened

IDENTICAL_REPEATS = 3
"""Forks that change nothing: they show that the jump can be repeated."""
LIMIT = 5.0
"""Of |epsilon|, the article's remedy, and of log_var."""
GRADIENT_FACTOR = 10.0
"""The gradient's norm is limited to this times its median before the jump."""


@dataclass(frozen=True)
class Replay:
    """Fork a run before it jumped, with one thing changed at a time, and say what made it jump.

    The forks are an ordinary study of their own: its arms are the variants, its seeds the repeats. The same line again
    does only what is missing; more repeats or variants widen it. Exit codes: 0 done, 2 asked wrongly, 3 ended with
    missing forks, 130 interrupted.
    """

    source: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="STUDY")]
    """The study's folder, or its name under 'runs'."""
    run: str
    """The run of it that jumped, such as vae-tiny-seed007."""
    epoch: int | None = None
    """Fork from the checkpoint at the end of this epoch."""
    trigger: int | None = None
    """Fork from the snapshot before this trigger of the flight recorder, counted from 1."""
    repeats: int = 20
    """Forks of each variant that draws something anew."""
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
    process. Default: slurm with --site, else local."""
    site: Path | None = None
    """TOML file that says where jobs run: your copy of jobs/sites/slurm.toml."""
    wait: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """On Slurm, return when the forks have ended and are judged."""
    dry_run: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Say what would be done and write nothing."""


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of the command."""
    return exit_code(lambda: replay(tyro.cli(Replay, args=argv, prog="vaehpc replay"), Console()), INTERRUPTED)


def replay(asked: Replay, console: Console) -> int:
    """Plan the forks, train those that are missing, judge them.

    Returns:
        The exit code.
    """
    chosen, executor = chosen_site(asked.site, asked.executor or ("auto" if asked.site else "local"))
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
        digest = require_package(site)
        config = config if study.config_path.exists() else in_image(config, digest)
    create_study(study, config)
    keep_start(study, run, start)
    if executor == "slurm":
        return queue_study(study, config, site, asked.wait, console, show_verdict)
    claim(study)
    run_stage("train", study, config, executor, console)
    return _end(study, executor, console)


# The source


@dataclass(frozen=True)
class Start:
    """The state of the source run that its forks start from."""

    words: str
    """'trigger 1' or 'epoch 18'."""
    step: int
    """Steps done."""
    state: Path
    """Directory of the checkpoint or snapshot."""
    trigger: TriggerRecord | None


def found_start(run: RunDir, epoch: int | None, trigger: int | None) -> Start:
    """The checkpoint at the end of an epoch, or the snapshot before a trigger.

    Raises:
        UserError: neither or both are asked for, or the run does not have it; says which it has.
    """
    if (epoch is None) == (trigger is None):
        raise UserError("say where the forks start: either --trigger N or --epoch N")
    if epoch is not None:
        return _start_at_epoch(run, epoch)
    assert trigger is not None
    paths = run.trigger_dirs()
    if not 1 <= trigger <= len(paths):
        raise UserError(f"--trigger {trigger}: run {run.name} has {_triggers_in_words(run)}. Or take --epoch N.")
    path = paths[trigger - 1]
    record = read_model(path / "trigger.json", TriggerRecord)
    return Start(f"trigger {trigger}", record.snapshot_step, path / "snapshot", record)


def _start_at_epoch(run: RunDir, epoch: int) -> Start:
    steps_per_epoch = run.config().steps_per_epoch
    path = run.checkpoints / f"step-{epoch * steps_per_epoch:09d}"
    if epoch < 0 or not path.exists():
        steps = [int(found.name.removeprefix("step-")) for found in sorted(run.checkpoints.glob("step-*"))]
        kept = [str(step // steps_per_epoch) for step in steps if step % steps_per_epoch == 0]
        raise UserError(
            f"--epoch {epoch}: run {run.name} keeps no checkpoint of its end, but of the epochs"
            f" {', '.join(kept) or '(none)'}. Take one of them, or --trigger N: it has {_triggers_in_words(run)}."
        )
    return Start(f"epoch {epoch}", epoch * steps_per_epoch, path, None)


def _triggers_in_words(run: RunDir) -> str:
    paths = run.trigger_dirs()
    steps = ", ".join(f"{n} at step {int(path.name.removeprefix('step-'))}" for n, path in enumerate(paths, start=1))
    return f"the triggers {steps}" if steps else "no trigger"


# The plan


def planned_replay(asked: Replay, source: StudyDir, run: RunDir, start: Start) -> tuple[StudyConfig, StudyDir]:
    """The study of forks, and where it lies.

    Raises:
        UserError: the run has not ended or did not jump, or the forks cannot be made or could decide nothing.
    """
    of_source, original = source.config(), run.config()
    name = asked.study or f"{of_source.name}-replay-{run.name}-step{start.step}"
    if not re.fullmatch(STUDY_NAME, name):
        raise UserError(f"--study '{name}': a name takes letters, digits, '.', '_' and '-'; --out says where it lies")
    if original.arm.fork is not None:
        raise UserError(f"run {run.name} is itself a fork; replay the run that it replays, {original.arm.fork.source}")
    DataDir(Path(original.data.path)).manifest()
    _require_enough_repeats(asked.repeats, of_source.plan.level)
    trained = _ended(run)
    jump = observed_jump(run, original, start, trained)
    image = _suspect(asked.image, start.trigger, original.data.num_train)
    study = StudyDir((asked.out or source.path.parent) / name)
    fork = ForkConfig(
        source=jump.source,
        seed=original.seed,
        checkpoint=str(study.start),
        step=start.step,
        until_step=jump.until_step,
    )
    variants = chosen_variants(asked.variants, original.arm, image)
    clipnorm = usual_gradient_norm(run, jump.calm_step, original) if "clipped" in variants else None
    arms = {variant: forked_arm(original.arm, variant, fork, clipnorm, image) for variant in variants}
    seeds = {variant: tuple(range(_num_repeats(variant, asked.repeats, jump))) for variant in variants}
    return of_source.model_copy(
        update={"name": name, "arms": arms, "seeds": seeds, "provenance": provenance(), "replay": jump}
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
    if not run.trained_path.exists():
        raise UserError(
            f"run {run.name} is not trained to its end, which its forks are compared with: launch its study"
        )
    return run.trained()


def observed_jump(run: RunDir, config: RunConfig, start: Start, trained: TrainedRecord) -> ReplayConfig:
    """How the run jumped after the start, as vaehpc.stats.replay defines it.

    Raises:
        UserError: its radius was not recorded there, or did not jump.
    """
    # Imported here: the launcher starts without what only an analysis needs.
    from vaehpc.stats.replay import JUMP_FACTOR, farthest_radius, first_jump, is_jump, window
    from vaehpc.tasks.recorded import read_probe

    curve, plan = read_probe(run.probe), config.plan.probe
    cause: int | None
    if start.trigger is not None:
        cause = start.trigger.step
    elif (cause := first_jump(curve, start.step, config.steps_per_epoch, plan)) is None:
        cause = _first_trigger(run, start.step)
    found = window(curve, start.step, cause, config.num_steps, plan)
    if found is None:
        raise UserError(
            f"run {run.name} has no probe both before and after what followed {start.words}: nothing to compare"
        )
    nonfinite = trained.nonfinite_step is not None and trained.nonfinite_step < found.until_step
    if not nonfinite and found.until_step not in curve.steps:
        raise UserError(
            f"{run.probe} has no record of step {found.until_step}: it is damaged, and nothing can be compared"
        )
    jumped = None if nonfinite else farthest_radius(curve, found.calm_step, found.calm_radius, found.until_step)
    if jumped is not None and not is_jump(found.calm_radius, jumped):
        raise UserError(
            f"run {run.name} did not jump after {start.words}: its median R was {found.calm_radius:.2f} at step"
            f" {found.calm_step} and went to {jumped:.2f} at most until step {found.until_step}; from a factor of"
            f" {JUMP_FACTOR} on it is a jump. Take another --trigger N or --epoch N: it has {_triggers_in_words(run)}."
        )
    return ReplayConfig(
        source=f"{config.study}/{run.name}",
        started_from=start.words,
        step=start.step,
        until_step=found.until_step,
        calm_step=found.calm_step,
        calm_radius=found.calm_radius,
        jumped_radius=jumped,
        deterministic=trained.threads == 1 and trained.device_kind == "cpu",
    )


def _first_trigger(run: RunDir, step: int) -> int | None:
    """Step, counted from 0, of the first trigger that is not before `step`."""
    return next((record.step for record in run.trigger_records() if record.step >= step), None)


def _suspect(image: int | None, trigger: TriggerRecord | None, num_train: int) -> int | None:
    """The image to leave out: the one asked for, or that with the trigger's largest log_var or loss."""
    if image is not None and not 0 <= image < num_train:
        raise UserError(f"--image {image}: the positions in the training split are 0 to {num_train - 1:,}")
    if image is not None or trigger is None:
        return image
    return trigger.largest_log_var_image if trigger.signal == "log_var_max" else trigger.largest_loss_image


def chosen_variants(asked: Sequence[Variant], arm: ArmConfig, image: int | None) -> list[Variant]:
    """Variants in the order of the verdict's rules: those asked for, or all that this arm can have.

    Raises:
        UserError: one is asked for that cannot be.
    """
    for variant in asked:
        if variant in NEEDS_VAE and arm.vae is None:
            raise UserError(f"--variants {variant}: arm {arm.name} is an AE and has neither noise nor log_var")
        if variant == "without-image" and image is None:
            raise UserError(
                "--variants without-image: say which with --image N, or take --trigger N, which recorded one"
            )
    possible = [variant for variant in VARIANTS if arm.vae is not None or variant not in NEEDS_VAE]
    return [
        variant
        for variant in possible
        if (variant in asked if asked else variant != "without-image" or image is not None)
    ]


def usual_gradient_norm(run: RunDir, calm_step: int, config: RunConfig) -> float:
    """Median norm of the gradient over the recorder's ring of steps before the last calm probe.

    Raises:
        UserError: no such step was recorded.
    """
    import numpy as np

    from vaehpc.study.streams import read_stream

    norms = np.array([])
    if (rows := read_stream(run.steps)) is not None:
        steps = rows["step"].to_numpy()
        before = (calm_step - config.plan.recorder.ring_steps <= steps) & (steps < calm_step)
        norms = rows["gradient_norm"].to_numpy()[before]
    if not len(norms):
        raise UserError(
            f"{run.steps} holds no steps before step {calm_step}, whose gradients would say where to clip them."
            " Name the variants but 'clipped' after --variants."
        )
    return float(np.median(norms))


def _num_repeats(variant: Variant, repeats: int, jump: ReplayConfig) -> int:
    if variant == "identical":
        return IDENTICAL_REPEATS
    return repeats if variant in DRAWN or not jump.deterministic else 1


def forked_arm(
    arm: ArmConfig, variant: Variant, fork: ForkConfig, usual_norm: float | None, image: int | None
) -> ArmConfig:
    """The arm as the forks of a variant train it: one thing is changed. A limit that it has is never widened.

    Args:
        arm: the source run's.
        variant: what to change.
        fork: where the forks start and end.
        usual_norm: of the gradient, for the variant 'clipped'.
        image: position in the training split, for the variant 'without-image'.
    """
    forked = arm.model_copy(update={"name": variant, "start_from": None, "fork": fork})
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
        "identical": {},
        "noise": {"renewed": "noise"},
        "batches": {"renewed": "shuffling"},
        "without-image": {"left_out": image},
        "fresh-moments": {"fresh_moments": True},
    }
    return _changed(forked, "fork", **changes[variant])


def _changed(arm: ArmConfig, part: str, **changes: Any) -> ArmConfig:
    return arm.model_copy(update={part: getattr(arm, part).model_copy(update=changes)})


def _tighter(limit: float | None, other: float) -> float:
    return other if limit is None else min(limit, other)


def keep_start(study: StudyDir, run: RunDir, start: Start) -> None:
    """Copy the state that the forks start from, and the probe that they are compared with, into their study."""
    if (study.start).exists():
        return
    aside = study.path / f".start.{os.getpid()}.tmp"
    try:
        shutil.copytree(start.state, aside)
        shutil.copyfile(run.probe, aside / "probe.arrow")
        aside.rename(study.start)
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
    if not run_study_job("verdict", study, study.replay_path, executor):
        return 1
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
    table = Table("variant", "jump", "of ended", "interval", "missing", "outcome", title=title)
    for of in result.variants:
        interval = f"{of.interval.low:.1%} to {of.interval.high:.1%}" if of.interval else ""
        numbers = [str(of.num_jumps), str(of.num_repeats - of.num_missing), interval, str(of.num_missing)]
        table.add_row(of.variant, *(numbers if of.num_repeats else [""] * 4), of.outcome)
    console.print(table)
    say(console, f"Verdict: {result.verdict}. {result.explanation}")


if __name__ == "__main__":
    sys.exit(main())
