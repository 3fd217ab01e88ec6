"""`python -m vaehpc.plan --rate 0.25 --versus 0 --power 0.8`: how many seeds it takes, and what they cannot show."""

from __future__ import annotations

import argparse
import contextlib
import json
import statistics
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro
from rich.console import Console
from rich.table import Table

from vaehpc.command import UserError, asked_by, exit_code, say
from vaehpc.local.forecast import forecast, keep_timings, timed_arms
from vaehpc.local.progress import expected
from vaehpc.schema.plan import ContrastPlan
from vaehpc.stats.planned import NUM_ENDPOINTS
from vaehpc.stats.planning import (
    MOST_SEEDS,
    Look,
    boundaries,
    detectable_rate,
    fisher_power,
    highest_rate_of_none,
    power,
    runs_for_one_event,
    seeds_needed,
    stopping,
)
from vaehpc.study.files import DataDir, StudyDir
from vaehpc.study.packages import require_installed
from vaehpc.study.presets import (
    PRESETS,
    PresetName,
    Settings,
    analysis_plan,
    configured_arms,
    default_precision,
    in_precision,
    named_arms,
    preset_plan,
)
from vaehpc.study.sites import gpus_here
from vaehpc.study.study import data_config, found_study, planned_study

SHOWN_COUNTS = 6
"""Diverged runs of the reference for which boundaries are printed."""
MOST_SECONDS, MOST_ARMS = 86_400.0, 10_000
MOST_SEEDS_OF_LOOKS = 200
"""All paths of the counts are enumerated, which takes the fourth power of this."""
SECONDS_AROUND = 20.0
"""About what a measurement takes beside the training itself: its start, latents, pictures."""
WITH_ALL_BUT_CERTAINTY = 0.95
"""Probability to see at least one event."""


@dataclass(frozen=True)
class Arguments:
    """Say how many seeds per arm find a difference of two rates, what they cost, and what they cannot show.

    The test is Boschloo's exact one, one-sided: does an arm diverge more often than its control?
    """

    rate: float | None = None
    """Rate of divergence that the study should find. Default: the analysis plan's."""
    versus: float | None = None
    """Rate of the control. Default: the analysis plan's."""
    power: float | None = None
    """Probability with which it should find it. Default: the analysis plan's."""
    seeds: int | None = None
    """Seeds per arm that you want to judge, instead of the number that has the power."""
    looks: int = 1
    """How often to look at the counts, evenly spaced: more than once with boundaries at which to stop."""
    arms: int = 2
    """Number of arms, for the cost and the number of tests."""
    study: Path | None = None
    """Study with finished runs, by folder or name: its speed is what a run will cost."""
    measure: PresetName | None = None
    """Train the arms of this preset here, on --data, for --measure-seconds each, and say what its runs will take."""
    data: Path | None = None
    """Prepared data set, for --measure."""
    measure_seconds: float = 30.0
    """How long --measure trains each arm."""
    out: Path = Path("runs")
    """Folder of the studies; what --measure finds is kept there, for launches."""
    json: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """The numbers as JSON, without --looks and --measure."""
    settings: Annotated[Settings, tyro.conf.arg(name="")] = field(default_factory=Settings)


def main(argv: Sequence[str] | None = None) -> int:
    """Exit code 0: said; 2: asked wrongly; 130: Ctrl-C."""
    return exit_code(lambda: plan(parsed(argv), Console()), "interrupted")


def parsed(argv: Sequence[str] | None) -> Arguments:
    """The command line over the settings of the preset that is to be measured."""
    first = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    first.add_argument("--measure")
    early, _ = first.parse_known_args(argv)
    # A wrong name is left to the full parser, which lists the right ones.
    settings = Settings()
    if early.measure in PRESETS:
        settings = in_precision(PRESETS[early.measure].settings, default_precision(bool(gpus_here())))
    return asked_by(Arguments, argv, "vaehpc plan", Arguments(settings=settings))


def plan(asked: Arguments, console: Console) -> int:
    """Say it.

    Raises:
        UserError: a number is out of its range, or the study is not there or has no finished run.
    """
    planned = analysis_plan()
    rate = planned.contrasts.rate if asked.rate is None else asked.rate
    versus = planned.contrasts.versus if asked.versus is None else asked.versus
    wanted = planned.contrasts.power if asked.power is None else asked.power
    _require_sensible(asked, rate, versus, wanted)
    if asked.measure is not None:
        require_installed("train")
    level, tests = 1 - planned.level, num_tests(planned.contrasts, asked)
    alpha = level / tests
    speed = measured_speed(found_study(asked.study)) if asked.study else None
    num_seeds = asked.seeds or seeds_needed(rate, versus, wanted, alpha)
    if num_seeds is None:
        raise UserError(
            f"even {MOST_SEEDS:,} seeds per arm do not find {rate:.2%} against {versus:.2%} with a power of"
            f" {wanted:.0%}: ask for a larger difference, or say --seeds to see what a number can show"
        )
    if asked.json:
        found = numbers(num_seeds, rate, versus, wanted, alpha, planned.level)
        hours = None if speed is None else asked.arms * num_seeds * speed.hours
        print(json.dumps(found | {"arms": asked.arms, "hours": hours}, indent=2))
        return 0
    say(console, f"{num_seeds} seeds per arm: {rate:.4g} against {versus:.4g}, alpha {alpha:.2g}")
    if tests > 1:
        say(console, f"  alpha: the first of Holm's thresholds for {tests} tests at {level:.2g}")
    for line in what_it_finds(num_seeds, rate, versus, wanted, alpha):
        say(console, f"  {line}")
    if asked.measure is None:
        for line in cost(num_seeds, asked.arms, speed):
            say(console, f"  {line}")
    say(console, "What that number cannot show:")
    for line in what_it_cannot_show(num_seeds, versus, wanted, alpha, planned.level):
        say(console, f"  {line}")
    if asked.measure is not None:
        for line in measured(asked, asked.measure, num_seeds, console):
            say(console, f"  {line}")
    if asked.looks > 1:
        _say_looks(looks_at(num_seeds, asked.looks), rate, versus, alpha, console)
    return 0


def _require_sensible(asked: Arguments, rate: float, versus: float, wanted: float) -> None:
    if not 0 <= versus < rate <= 1:
        raise UserError(f"--rate {rate:g} --versus {versus:g}: the rates must be 0 <= VERSUS < RATE <= 1")
    if not 0 < wanted < 1:
        raise UserError(f"--power {wanted:g}: a probability between 0 and 1 is needed, such as 0.8")
    if asked.seeds is not None and not 1 <= asked.seeds <= MOST_SEEDS:
        raise UserError(f"--seeds {asked.seeds}: 1 to {MOST_SEEDS:,} seeds per arm can be judged")
    if asked.measure is not None and asked.data is None:
        raise UserError(f"--measure {asked.measure}: it trains for a short time, on the data of --data DIR; give one")
    if not 0 < asked.measure_seconds <= MOST_SECONDS:
        raise UserError(f"--measure-seconds {asked.measure_seconds:g}: more than 0, {MOST_SECONDS:g} at most")
    if not 1 <= asked.arms <= MOST_ARMS:
        raise UserError(f"--arms {asked.arms}: a study has 1 to {MOST_ARMS:,} arms")
    if asked.json and (asked.looks > 1 or asked.measure is not None):
        raise UserError("--json gives what so many seeds can show: leave out --looks and --measure")
    if asked.looks < 1 or (asked.seeds is not None and asked.looks > asked.seeds):
        raise UserError(f"--looks {asked.looks}: 1 look at the end, or more, each after at least one more seed")


# What it can show


def num_tests(plan: ContrastPlan, asked: Arguments) -> int:
    """Tests of the first family: what the plan names, else an AE, the reference and other VAEs against both of them.

    Planned looks decide one test at the whole alpha.
    """
    if asked.looks > 1:
        return 1
    others = max(asked.arms - 2, 0)
    return NUM_ENDPOINTS * (len(plan.primary) or 1 + 2 * others)


def numbers(num_seeds: int, rate: float, versus: float, wanted: float, alpha: float, level: float) -> dict[str, object]:
    """What the sentences below say, for programs."""
    return {
        "seeds": num_seeds,
        "rate": rate,
        "versus": versus,
        "alpha": alpha,
        "wanted_power": wanted,
        "power_boschloo": power(num_seeds, num_seeds, rate, versus, alpha),
        "power_fisher": fisher_power(num_seeds, num_seeds, rate, versus, alpha),
        "seeds_for_one_event": runs_for_one_event(rate, WITH_ALL_BUT_CERTAINTY),
        "highest_rate_of_none": highest_rate_of_none(num_seeds, level),
        "rate_that_may_hide": 1 - (1 - WITH_ALL_BUT_CERTAINTY) ** (1 / num_seeds),
        "detectable_rate": detectable_rate(num_seeds, versus, wanted, alpha),
    }


def what_it_finds(num_seeds: int, rate: float, versus: float, wanted: float, alpha: float) -> Iterator[str]:
    """Power of the test, and of the one that stands beside it."""
    found = power(num_seeds, num_seeds, rate, versus, alpha)
    by_fisher = fisher_power(num_seeds, num_seeds, rate, versus, alpha)
    yield f"found with probability {found:.1%} by Boschloo's one-sided test (wanted: {wanted:.0%})"
    yield f"found with probability {by_fisher:.1%} by Fisher's two-sided test"
    one = runs_for_one_event(rate, WITH_ALL_BUT_CERTAINTY)
    yield f"at least one diverged run with probability {1 - (1 - rate) ** num_seeds:.1%}; 95 % takes {one} seeds"


def what_it_cannot_show(num_seeds: int, versus: float, wanted: float, alpha: float, level: float) -> Iterator[str]:
    """Rates that stay hidden in so many seeds."""
    yield f"0 diverged of {num_seeds} would still allow a rate up to {highest_rate_of_none(num_seeds, level):.1%}"
    hidden = 1 - (1 - WITH_ALL_BUT_CERTAINTY) ** (1 / num_seeds)
    yield f"a rate below {hidden:.1%} may show no diverged run at all (with a probability of more than 5 %)"
    least = detectable_rate(num_seeds, versus, wanted, alpha)
    if least is None:
        yield f"no rate at all is told from {versus:.4g} with a power of {wanted:.0%}"
    else:
        yield f"a rate below {least:.1%} is told from {versus:.4g} with a power of less than {wanted:.0%}"
    yield "missing runs need more: a difference is shown only if it is however they end"


# What it costs


@dataclass(frozen=True)
class Speed:
    """What a run of a study took."""

    study: str
    hours: float
    """Median over the finished runs: wall time of all epochs, with evaluation and checkpoints."""
    num_runs: int
    device: str


def measured_speed(study: StudyDir) -> Speed:
    """Of the study's finished trainings.

    Raises:
        UserError: none has finished.
    """
    trained = []
    for run in study.config().runs():
        with contextlib.suppress(UserError):  # not trained, or damaged, which its report says
            trained.append(study.run(run.name).trained())
    hours = [record.seconds_per_epoch * record.epochs / 3600 for record in trained if record.seconds_per_epoch > 0]
    if not hours:
        raise UserError(f"--study {study.path}: no training has finished there, so that its speed is not known")
    devices = dict.fromkeys(record.device for record in trained)
    return Speed(study.path.name, statistics.median(hours), len(hours), ", ".join(devices))


def cost(num_seeds: int, num_arms: int, speed: Speed | None) -> Iterator[str]:
    """Hours of training; unknown without a measured speed."""
    runs = f"{num_arms} arms x {num_seeds} seeds = {num_arms * num_seeds} runs"
    if speed is None:
        yield (
            f"{runs}; hours: unknown, give --study of a study with finished runs like these, or --measure PRESET"
            " --data DIR"
        )
        return
    total = num_arms * num_seeds * speed.hours
    yield (
        f"{runs}; {total:.3g} hours on {speed.device}: {speed.hours:.3g} h per run, median of {speed.num_runs} of"
        f" {speed.study}"
    )


def measured(asked: Arguments, preset: PresetName, num_seeds: int, console: Console) -> Iterator[str]:
    """What so many seeds of a preset's arms take on this machine, by a short training of each.

    Raises:
        UserError: the data are missing or damaged.
    """
    assert asked.data is not None
    precision = asked.settings.train.precision
    arms = configured_arms(named_arms(PRESETS[preset].arms_in(precision)), asked.settings)
    data = data_config(DataDir(asked.data))
    preset_of, plan = PRESETS[preset], preset_plan(PRESETS[preset], arms)
    config = planned_study(
        preset, preset, data, arms, range(num_seeds), plan, precision=precision, fewer_seeds=preset_of.in_float32
    )
    whole, title = asked.measure_seconds + SECONDS_AROUND, f"Training {{}} in {precision}"
    speeds = timed_arms(config, asked.measure_seconds, lambda arm: expected(title.format(arm), whole, console))
    keep_timings(asked.out, config, speeds)
    yield from forecast(config, speeds)


# Looking before the end


def looks_at(num_seeds: int, num_looks: int) -> list[int]:
    """Seeds per arm at each look, evenly spaced.

    Raises:
        UserError: there are too many seeds to enumerate, or fewer than looks.
    """
    if not num_looks <= num_seeds <= MOST_SEEDS_OF_LOOKS:
        raise UserError(
            f"--looks {num_looks} with {num_seeds} seeds per arm: boundaries are worked out for {num_looks} to"
            f" {MOST_SEEDS_OF_LOOKS} seeds"
        )
    return [round(num_seeds * look / num_looks) for look in range(1, num_looks + 1)]


def _say_looks(num_seeds: Sequence[int], rate: float, versus: float, alpha: float, console: Console) -> None:
    looks = boundaries(num_seeds, alpha)
    stops, stops_falsely = stopping(looks, rate, versus), stopping(looks, versus, versus)
    say(
        console,
        f"Looking {len(looks)} times, with O'Brien-Fleming-like spending of alpha (Lan and DeMets), enumerated:",
    )
    counts = range(min(SHOWN_COUNTS, num_seeds[-1]))
    title = f"Stop if so many of the arm diverged, where of the control {counts[0]} to {counts[-1]} did"
    table = Table("seeds", "alpha spent", *(f"of {y}" for y in counts), f"stops at {rate:.4g}", title=title)
    for look, stop in zip(looks, stops, strict=True):
        table.add_row(
            str(look.num_seeds), f"{look.spent:.5f}", *(least_diverged(look, y) for y in counts), f"{stop:.1%}"
        )
    console.print(table)
    reached = [1 - sum(stops[:i]) for i in range(len(looks))]
    batches = [now - before for before, now in zip((0, *num_seeds[:-1]), num_seeds, strict=True)]
    expected = sum(batch * going for batch, going in zip(batches, reached, strict=True))
    say(
        console,
        f"  found with probability {sum(stops):.1%}, after {expected:.1f} seeds per arm on average; if the arm diverges"
        f" at {versus:.4g}, too, found with {sum(stops_falsely):.2%}",
    )
    say(
        console,
        f"  Write them into analysis/plan.toml before the launch, under [contrasts]: looks = {list(num_seeds)}. The"
        " report then judges by them; a look that was not planned spends alpha twice.",
    )


def least_diverged(look: Look, diverged_of_control: int) -> str:
    """'5'; '-' where no number is enough, or so many seeds are not there."""
    least = look.least_diverged(diverged_of_control) if diverged_of_control <= look.num_seeds else None
    return "-" if least is None else str(least)


if __name__ == "__main__":
    sys.exit(main())
