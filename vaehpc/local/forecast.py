"""What a study will take: by its own finished runs, by arms that were timed here, or by the article's speed."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from itertools import pairwise
from pathlib import Path

from vaehpc.command import UserError, duration, gigabytes
from vaehpc.local.pool import local_slots
from vaehpc.local.sharing import timed_together
from vaehpc.schema.config import RunConfig, StudyConfig
from vaehpc.schema.results import Timing, Timings
from vaehpc.study.files import StudyDir, read_model, write_model
from vaehpc.study.sites import built_in_site, job_config
from vaehpc.study.study import expected_bytes, most_bytes_of_triggers, num_weights

ARTICLE_RATE = 1422.0
"""Images a second in training: 1,329 steps of 128 in 118 to 120 s (analysis/reference.toml), on the article's GPU."""
CORE_RATE = 180.0
"""The same of one core of three processors with AVX2 or AVX-512, in float32 (tests/benchmarks/README.md)."""
STEP_SECONDS, START_SECONDS, END_SECONDS = 0.004, 4.0, 10.0
"""Of a step, whatever its size; of a training's start; of its end. Rough, for where nothing was timed."""
BYTES_PER_SECOND = 1e8
"""At which checkpoints are written, roughly."""
STATISTICS_SECONDS, TSNE_SECONDS = 165.0, 65.0
"""CPU seconds for 170,000 latents of 256 components without t-SNE, and of a t-SNE of 20,000 points (benchmarks)."""
LEAST_STATISTICS_SECONDS = 2.0


def timed_arms(
    config: StudyConfig,
    seconds: float,
    shown: Callable[[str], AbstractContextManager[None]] = lambda _: contextlib.nullcontext(),
) -> dict[str, Timing]:
    """Each arm measured in as many processes at once as would train on this machine; the medians.

    Args:
        config: a study whose data are prepared.
        seconds: how long each arm is trained.
        shown: what is shown meanwhile, by the arm's name.

    Raises:
        UserError: the data are damaged.
    """
    gpus = [slot.gpu for slot in local_slots(job_config("train"))]
    environment = built_in_site("local").environment
    first = {arm: next(run for run in config.runs() if run.arm.name == arm) for arm in config.arms}
    found = {}
    for arm, run in first.items():
        with shown(arm):
            found[arm] = _median(timed_together(run, seconds, gpus, environment=environment))
    return found


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
            f" {gigabytes(speed.memory_bytes)} of memory, {disk_in_words([run])}"
        )
    seconds = [run_seconds(run, speeds[run.arm.name]) for run in runs]
    here = max(sum(seconds) / len(slots), *seconds)
    yield f"{len(runs)} runs: {sum(seconds) / 3600:.3g} {unit} hours, {disk_in_words(runs)}; statistics come on top"
    yield f"{duration(here)} on the {len(slots)} of this machine, {duration(max(seconds))} where all run at once"


def disk_in_words(runs: Sequence[RunConfig]) -> str:
    """'2 GB of disk, up to 1 GB more where trainings jump': the recorder keeps the states before."""
    words = f"{gigabytes(sum(map(expected_bytes, runs)))} of disk"
    more = sum(map(most_bytes_of_triggers, runs))
    return f"{words}, up to {gigabytes(more)} more where trainings jump" if more else words


# What is expected before anything of a study is trained


def kind_of(run: RunConfig, device: str) -> str:
    """What the time of a run's parts depends on: net, loss, way of training, size of the images, device."""
    arm = run.arm.model_dump(include={"model", "vae", "train"}, exclude={"train": {"epochs", "checkpoint_seconds"}})
    text = json.dumps([arm, run.data.image_size, device], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def timings_path(out: Path) -> Path:
    """Where the timings for the studies of a folder lie."""
    return out / "timings.json"


def keep_timings(out: Path, config: StudyConfig, speeds: Mapping[str, Timing]) -> None:
    """Keep what was measured of these arms, for later launches."""
    runs = {run.arm.name: run for run in config.runs()}
    found = {kind_of(runs[arm], speed.device): speed for arm, speed in speeds.items()}
    out.mkdir(parents=True, exist_ok=True)
    write_model(timings_path(out), Timings(timings=kept_timings(out) | found))


def kept_timings(out: Path) -> dict[str, Timing]:
    """By kind; none where none were measured, or where their file is damaged: they can be measured again."""
    try:
        return read_model(timings_path(out), Timings).timings
    except UserError:
        return {}


def guessed_timing(run: RunConfig, is_gpu: bool) -> Timing:
    """By the article's speed on a GPU, on a processor by what one core reaches, scaled by the net's arithmetic."""
    rate, train = ARTICLE_RATE if is_gpu else CORE_RATE, run.arm.train
    image = products_per_image(run) / ARTICLE_PRODUCTS / rate
    return Timing(
        run=run.name,
        device="GPU" if is_gpu else "CPU",
        start_seconds=START_SECONDS,
        step_seconds=STEP_SECONDS + train.batch_size * image,
        image_seconds=image / 3,
        checkpoint_seconds=12 * num_weights(run) / BYTES_PER_SECOND,
        end_seconds=END_SECONDS * min(1.0, image * rate),
        memory_bytes=0,
    )


def products_per_image(run: RunConfig) -> float:
    """Multiplications of one image's way through the net: four halvings of the image, dense layers, and back."""
    size, filters, z_dim = run.data.image_size, run.arm.model.filters, run.arm.model.z_dim
    sizes = [size // 2**level for level in range(1, 5)]
    kernels = [9 * before * after * of**2 for (before, after), of in zip(pairwise((3, *filters)), sizes, strict=True)]
    flat = sizes[-1] ** 2 * filters[-1]
    heads = 1 if run.arm.vae is None else 2
    return float(2 * sum(kernels) + (heads + 1) * flat * z_dim)


ARTICLE_PRODUCTS = 2.0 * (9 * 48**2 * 3 * 32 + 3 * 9 * 24**2 * 32 * 64) + 3 * 6**2 * 256 * 256
"""`products_per_image` of the article's VAE at 96 x 96."""


def statistics_seconds(run: RunConfig) -> float:
    """CPU seconds of a run's statistics, roughly."""
    if run.arm.fork is not None:
        return 0.0
    num_images, plan = run.data.num_train, run.plan.tsne
    sizes = [size for size in plan.sizes if size <= num_images]
    if run.seed in plan.large_seeds:
        sizes += [min(size, num_images) for size in plan.large_sizes]
    of_tsne = TSNE_SECONDS * len(plan.settings) * sum(sizes) / 20_000
    cloud = STATISTICS_SECONDS * num_images * run.arm.model.z_dim / (170_000 * 256)
    return LEAST_STATISTICS_SECONDS + cloud + of_tsne


def later_seconds(study: StudyDir, config: StudyConfig) -> float:
    """About what the statistics that a study lacks will take on this machine."""
    left = [run for run in config.runs() if not study.run(run.name).statistics_path.exists()]
    return sum(map(statistics_seconds, left)) / len(os.sched_getaffinity(0))


def expectation(study: StudyDir, config: StudyConfig, device: str, is_gpu: bool, num_slots: int | None) -> list[str]:
    """What the runs that a study lacks will take, and how that is known, in words.

    Args:
        study: its finished runs are the best measure.
        config: its runs.
        device: that trains, by name.
        is_gpu: whether it is a GPU.
        num_slots: how many run at once; None where a queue decides that.
    """
    every = config.runs()
    left = [run for run in every if not study.run(run.name).trained_path.exists()]
    if not left:
        return []
    kept, seconds, origins = kept_timings(study.path.parent), dict[str, float](), dict[str, list[str]]()
    for arm in dict.fromkeys(run.arm.name for run in left):
        run = next(run for run in left if run.arm.name == arm)
        finished = _finished_seconds(study, [run for run in every if run.arm.name == arm])
        if finished:
            seconds[arm], origin = statistics.median(finished), "finished runs of this study"
        elif (timing := kept.get(kind_of(run, device))) is not None:
            seconds[arm], origin = run_seconds(run, timing), f"`vaehpc plan --measure` on {device}"
        else:
            seconds[arm], origin = run_seconds(run, guessed_timing(run, is_gpu)), _guess_in_words(config, is_gpu)
        origins.setdefault(origin, []).append(arm)
    of_runs = [seconds[run.arm.name] for run in left]
    hours = f"{duration(sum(of_runs))} of {'GPU' if is_gpu else 'processor'} time, {disk_in_words(left)}"
    statistics_time = sum(map(statistics_seconds, left))
    if num_slots is None:
        whole = f"{duration(max(of_runs))} where all run at once"
    else:
        ways = max(sum(of_runs) / num_slots, max(of_runs)) + statistics_time / len(os.sched_getaffinity(0))
        whole = f"about {duration(ways)} here, {num_slots} at once"
    what, analysis = f"{len(left)} run{'s' * (len(left) > 1)}", f"statistics {duration(statistics_time)} of CPU time"
    words = [f"To be trained: {what}, {whole}; {hours}; {analysis}."]
    for origin, arms in origins.items():
        which = f" ({', '.join(arms)})" if len(origins) > 1 else ""
        words.append(f"  Known from {origin}{which}.")
    return words


def _finished_seconds(study: StudyDir, runs: Sequence[RunConfig]) -> list[float]:
    records = []
    for run in [study.run(run.name) for run in runs if study.run(run.name).trained_path.exists()][:8]:
        with contextlib.suppress(UserError):  # a damaged marker; the report names it
            records.append(run.trained())
    return [found.seconds_per_epoch * found.epochs for found in records if found.seconds_per_epoch > 0]


def _guess_in_words(config: StudyConfig, is_gpu: bool) -> str:
    core = "" if is_gpu else ", of which a processor's core reaches an eighth"
    return (
        f"the article's {ARTICLE_RATE:,.0f} images/s on its GPU{core}, scaled to this net; nothing was measured here:"
        f" `vaehpc plan --measure {config.preset} --data {config.data.path}` does"
    )
