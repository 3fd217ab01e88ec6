"""What a study will take on this machine: a short training of each arm, scaled up to whole runs."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping

from vaehpc.command import duration, gigabytes
from vaehpc.local.pool import local_slots
from vaehpc.local.sharing import timed_together
from vaehpc.schema.config import RunConfig, StudyConfig
from vaehpc.schema.results import Timing
from vaehpc.study.sites import built_in_site, job_config
from vaehpc.study.study import expected_bytes


def timed_arms(config: StudyConfig, seconds: float) -> dict[str, Timing]:
    """Each arm measured in as many processes at once as would train on this machine; the medians.

    Args:
        config: a study whose data are prepared.
        seconds: how long each arm is trained.

    Raises:
        UserError: the data are damaged.
    """
    gpus = [slot.gpu for slot in local_slots(job_config("train"))]
    environment = built_in_site("local").environment
    first = {arm: next(run for run in config.runs() if run.arm.name == arm) for arm in config.arms}
    return {arm: _median(timed_together(run, seconds, gpus, environment=environment)) for arm, run in first.items()}


def _median(found: list[Timing]) -> Timing:
    numbers = ("start_seconds", "step_seconds", "image_seconds", "checkpoint_seconds", "end_seconds")
    medians = {name: statistics.median(getattr(each, name) for each in found) for name in numbers}
    return found[0].model_copy(update=medians | {"memory_bytes": max(each.memory_bytes for each in found)})


def run_seconds(run: RunConfig, speed: Timing) -> float:
    """Wall seconds from the start of a run's training to the end of its latents."""
    train, num_train = run.arm.train, run.data.num_train
    probed = run.num_steps // run.plan.probe.every_steps * min(run.plan.probe.num_images, num_train)
    evaluated = train.epochs * min(train.eval_images, num_train)
    steps = run.num_steps * speed.step_seconds
    encoded = (probed + evaluated + num_train) * speed.image_seconds
    num_checkpoints = train.epochs + (steps + encoded) / train.checkpoint_seconds
    return speed.start_seconds + steps + encoded + num_checkpoints * speed.checkpoint_seconds + speed.end_seconds


def forecast(config: StudyConfig, speeds: Mapping[str, Timing]) -> Iterator[str]:
    """Time, memory and disk of each arm's runs and of the whole study, in words."""
    runs = list(config.runs())
    slots = local_slots(job_config("train"))
    unit = "GPU" if slots[0].gpu else "processor"
    for arm, speed in speeds.items():
        run = next(run for run in runs if run.arm.name == arm)
        rate = run.arm.train.batch_size / speed.step_seconds
        yield (
            f"{arm}: {duration(run_seconds(run, speed))} per run on {speed.device} ({rate:,.0f} images/s in training),"
            f" {gigabytes(speed.memory_bytes)} of memory, {gigabytes(expected_bytes(run))} of disk"
        )
    seconds = [run_seconds(run, speeds[run.arm.name]) for run in runs]
    disk, here = sum(expected_bytes(run) for run in runs), max(sum(seconds) / len(slots), *seconds)
    yield f"{len(runs)} runs: {sum(seconds) / 3600:.3g} {unit} hours, {gigabytes(disk)} of disk; statistics come on top"
    yield f"{duration(here)} on the {len(slots)} of this machine, {duration(max(seconds))} where all run at once"
