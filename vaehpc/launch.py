"""`python -m vaehpc.launch --seeds 16`: plan a study, run what it lacks, report."""

from __future__ import annotations

import argparse
import os
import re
import shutil
import signal
import sys
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro
from rich.console import Console
from rich.table import Table

from vaehpc.config import MAX_SEEDS, STUDY_NAME, ArmConfig, JobConfig, StudyConfig, run_name
from vaehpc.files import DataDir, StudyDir, UserError, tail, write_text
from vaehpc.presets import (
    ARMS,
    DEMO_IMAGE_SIZE,
    DEMO_IMAGES,
    PRESETS,
    Preset,
    PresetName,
    Settings,
    configured_arms,
    nearest,
    overridden,
)
from vaehpc.progress import stage_view
from vaehpc.results import RunSummary, StudySummary
from vaehpc.study import create_study, data_config, missing_runs, planned_study, widened
from vaehpc.submit import (
    Task,
    job_config,
    launcher_record,
    local_slots,
    run_debug,
    run_local,
    running_launcher,
    site_config,
)

FAILED_LOG_LINES = 12


@dataclass(frozen=True)
class Launch:
    """Train many seeds of several arms, measure their latents, and report how often runs diverge.

    The same line again does only what is missing; more seeds or arms widen the study. Without data the demo study runs
    on built-in faces. Exit codes: 0 done, 2 asked wrongly, 3 ended with missing runs, 130 interrupted.
    """

    seeds: int | None = None
    """Seeds 0 to SEEDS - 1 of each arm. Default: the preset's."""
    arms: tuple[str, ...] = ()
    """Arms by name. Default: the preset's."""
    preset: PresetName | None = None
    """Named study. Default: article if data are given, else demo."""
    study: str | None = None
    """Name of the study. Default: the preset's."""
    out: Path = Path("runs")
    """Folder of the studies."""
    data: Path | None = None
    """Prepared data set (also $VAEHPC_DATA)."""
    celeba: Path | None = None
    """CelebA's zip or folder, prepared first; into --data if that is given, else into a folder `data` beside --out."""
    executor: Literal["auto", "slurm", "local", "debug"] = "auto"
    """Where tasks run. local: processes on this machine, as many as it has processors or GPUs. debug: in this process,
    one after the other. auto: slurm where there is sbatch, else local."""
    config: Path | None = None
    """TOML file with any of these: preset, study, seeds, arms, and tables [model], [vae], [train]."""
    dry_run: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Say what would be done and write nothing."""
    wait: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Return when the study has ended; local and debug always do."""
    settings: Annotated[Settings, tyro.conf.arg(name="")] = field(default_factory=Settings)


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of the command."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) != signal.SIG_IGN:  # nohup
            signal.signal(number, _interrupt)
    try:
        return launch(parsed(sys.argv[1:] if argv is None else argv), Console())
    except (UserError, OSError) as error:  # OSError: a folder that may not be written, a file where a folder should be
        print(f"vaehpc: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\nvaehpc: interrupted; everything was stopped. The same line goes on where it left.", file=sys.stderr)
        return 130


def _say(console: Console, text: str) -> None:
    """A line that is never broken: paths in it can be copied."""
    console.print(text, markup=False, highlight=False, soft_wrap=True)


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


# Arguments


def parsed(argv: Sequence[str]) -> Launch:
    """The command line over the TOML file over the preset.

    Raises:
        UserError: the TOML file is not there or says something unknown.
        SystemExit: with 2, after a message, where the command line is wrong.
    """
    first = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    for option in ("--preset", "--config", "--data", "--celeba"):
        first.add_argument(option)
    early, _ = first.parse_known_args(argv)
    from_file = _read_toml(Path(early.config)) if early.config else {}
    data_given = early.data or early.celeba or os.environ.get("VAEHPC_DATA")
    name = early.preset or from_file.get("preset") or ("article" if data_given else "demo")
    # A wrong name given on the command line is left to the full parser, which lists the right ones.
    preset: PresetName = "article" if name == "article" else "demo"
    tables = {key: value for key, value in from_file.items() if isinstance(value, dict)}
    defaults = Launch(
        preset=preset,
        study=from_file.get("study"),
        seeds=from_file.get("seeds"),
        arms=tuple(from_file.get("arms", ())),
        data=Path(os.environ["VAEHPC_DATA"]) if os.environ.get("VAEHPC_DATA") else None,
        settings=overridden(PRESETS[preset].settings, tables, early.config or ""),
    )
    return tyro.cli(Launch, args=argv, default=defaults, prog="vaehpc launch")


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        values = tomllib.loads(path.read_text())
    except OSError as error:
        raise UserError(f"--config {path}: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"--config {path} is not TOML: {error}") from None
    plain = {"preset": str, "study": str, "seeds": int, "arms": list}
    for key, value in values.items():
        if key not in plain and not isinstance(value, dict):
            raise UserError(f"--config {path}: unknown setting '{key}'{nearest(key, plain)}. Known: {', '.join(plain)}")
        if not isinstance(value, plain.get(key, dict)):
            raise UserError(f"--config {path}: {key} = {value!r} is not allowed; it takes a {plain[key].__name__}")
    if (preset := values.get("preset", "demo")) not in PRESETS:
        known = ", ".join(PRESETS)
        raise UserError(f"--config {path}: unknown preset '{preset}'{nearest(preset, PRESETS)}. Presets: {known}")
    return values


# The study


def launch(asked: Launch, console: Console) -> int:
    """Plan, prepare, train, measure, report.

    Returns:
        The exit code.
    """
    assert asked.preset is not None
    preset = PRESETS[asked.preset]
    executor = _chosen_executor(asked.executor)
    data_given = asked.data or asked.celeba
    if asked.preset == "article" and not data_given:
        raise UserError("preset 'article' needs data: give --celeba PATH or --data DIR, or take --preset demo")
    source = f"data of {data_given}" if data_given else "built-in faces, because no data are given"
    _say(console, f"Preset {asked.preset} on {source}, executor {executor}.")
    name = asked.study or asked.preset
    if not re.fullmatch(STUDY_NAME, name):
        raise UserError(f"--study '{name}': a name takes letters, digits, '.', '_' and '-'; --out says where it lies")
    study = StudyDir(asked.out / name)
    num_seeds = _num_seeds(asked, preset)
    arms = configured_arms(asked.arms or preset.arms, asked.settings)
    if asked.dry_run:
        return _describe(study, arms, num_seeds, asked.settings, console)
    data = _prepared_data(asked, console)
    config = planned_study(name, asked.preset, data_config(data), arms, num_seeds)
    if study.config_path.exists():
        config = widened(study.config(), config)
    _require_only_launcher(study)
    create_study(study, config)
    _say_what_it_can_show(config, console)
    _claim(study)
    for stage in ("train", "statistics"):
        _run_stage(stage, study, config, executor, console)
    return _report(study, executor, console)


def _chosen_executor(asked: str) -> Literal["local", "debug"]:
    has_slurm = shutil.which("sbatch") is not None
    if asked == "slurm" or (asked == "auto" and has_slurm):
        raise UserError(
            "--executor slurm is not in this version of vaehpc: it runs on one machine."
            " Take --executor local here or inside an allocation (salloc, srun --pty)."
        )
    return "debug" if asked == "debug" else "local"


def _num_seeds(asked: Launch, preset: Preset) -> int:
    num_seeds = preset.num_seeds if asked.seeds is None else asked.seeds
    if not 1 <= num_seeds <= MAX_SEEDS:
        raise UserError(f"--seeds {num_seeds}: 1 to {MAX_SEEDS:,} seeds are possible; 16 means the seeds 0 to 15")
    return num_seeds


def _describe(
    study: StudyDir, arms: Mapping[str, ArmConfig], num_seeds: int, settings: Settings, console: Console
) -> int:
    """What a launch would do, from the arguments and the study's directory alone."""
    runs = [run_name(arm, seed) for seed in range(num_seeds) for arm in arms]
    _say(console, f"Study {study.path}: {len(arms)} arms x {num_seeds} seeds = {len(runs)} runs.")
    _say(console, f"Settings: {settings.model_dump()}")
    for name in arms:
        _say(console, f"  {name}: {ARMS[name].question}")
    for stage in ("train", "statistics"):
        job = job_config(stage)
        left = [name for name in runs if not (study.path / name / str(job.marker)).exists()]
        slots = len(local_slots(job))
        _say(console, f"{stage}: {len(left)} of {len(runs)} runs, {slots} at once, {job.entry_point}")
    _say(console, f"aggregate: {study.report}\nDry run: nothing was written.")
    return 0


def _prepared_data(asked: Launch, console: Console) -> DataDir:
    """The data set of this launch, made first where it is not there yet."""
    beside = asked.out.absolute().parent / "data"
    if asked.celeba:
        out = asked.data or beside / "celeba-96"
        request: dict[str, object] = {"celeba": asked.celeba}
    elif asked.data:
        return DataDir(asked.data)
    else:
        out = beside / "demo-faces"
        request = {"synthetic": DEMO_IMAGES, "size": DEMO_IMAGE_SIZE}
    # Imported here: the launcher starts without what only the preparation needs.
    from vaehpc.prepare import shown_progress
    from vaehpc.tasks.prepare import Request, prepare

    with shown_progress() as on_progress:
        prepare(Request.model_validate(request), out, on_progress)
    _say(console, f"Data: {out}")
    return DataDir(out)


def _say_what_it_can_show(config: StudyConfig, console: Console) -> None:
    """What no divergence at all in so many seeds would still allow."""
    for arm, seeds in config.seeds.items():
        upper = highest_rate_of_none(len(seeds), config.plan.level)
        _say(
            console,
            f"  {arm}: {len(seeds)} seeds; 0 diverged of {len(seeds)} would still allow a rate up to {upper:.1%}",
        )


def highest_rate_of_none(num_runs: int, level: float) -> float:
    """Upper Clopper-Pearson limit of 0 events in num_runs: 1 - (alpha / 2)^(1 / n)."""
    return float(1.0 - ((1.0 - level) / 2.0) ** (1.0 / num_runs))


def _require_only_launcher(study: StudyDir) -> None:
    if (other := running_launcher(study.launcher)) is not None:
        raise UserError(f"study {study.path} is being run by {other}. Wait for it, or stop it with Ctrl-C there.")


def _claim(study: StudyDir) -> None:
    study.jobs.mkdir(exist_ok=True)
    write_text(study.launcher, launcher_record())


# Stages


def _run_stage(stage: str, study: StudyDir, config: StudyConfig, executor: str, console: Console) -> None:
    """Run a stage's task on every run that lacks its result and has that of the stage before."""
    job = job_config(stage)
    assert job.marker is not None
    runs = list(missing_runs(study, config, job.marker))
    if stage == "statistics":
        runs = [run for run in runs if run.trained_path.exists()]
    if not runs:
        _say(console, f"{stage}: nothing left to do")
        return
    for run in runs:
        run.stop.unlink(missing_ok=True)
    by_directory = {str(run.path): run for run in runs}
    with stage_view(stage, len(runs), console) as view:

        def show(running: Sequence[Task]) -> None:
            view.update([by_directory[task.directory] for task in running])

        _run_tasks([Task(job.entry_point, directory) for directory in by_directory], job, study, executor, show)


def _run_tasks(
    tasks: Sequence[Task], job: JobConfig, study: StudyDir, executor: str, show: Callable[[Sequence[Task]], None]
) -> None:
    if executor == "debug":
        run_debug(tasks, show)
    else:
        run_local(tasks, job, site_config("local"), study.jobs, show)


def _report(study: StudyDir, executor: str, console: Console) -> int:
    """Aggregate, say what was found and where the report is, and list the runs that are missing."""
    before = study.report.stat().st_mtime_ns if study.report.exists() else None
    job = job_config("aggregate")
    _run_tasks([Task(job.entry_point, str(study.path))], job, study, executor, lambda _: None)
    if not study.report.exists() or study.report.stat().st_mtime_ns == before:
        newest_log = max(study.jobs.glob("*.err"), key=lambda path: path.stat().st_mtime, default=None)
        ended = "\n  ".join(tail(newest_log, FAILED_LOG_LINES)) if newest_log else "it left no log"
        print(f"vaehpc: the aggregate failed; the end of its log:\n  {ended}", file=sys.stderr)
        return 1
    summary = study.summary()
    _print_rates(summary, console)
    missing = [name for name, run in summary.runs.items() if run.missing_stage is not None]
    for name in missing:
        _print_failure(name, summary.runs[name], console)
    _say(console, f"Report: {study.report}")
    return 3 if missing else 0


def _print_rates(summary: StudySummary, console: Console) -> None:
    table = Table("arm", "diverged", "of ended", "rate", "interval", "missing", title=f"Study {summary.study}")
    for name, arm in summary.arms.items():
        ended = arm.num_runs - arm.num_missing
        rate = "unclassified" if arm.rate is None else f"{arm.rate:.1%}"
        interval = "" if arm.low is None else f"{arm.low:.1%} to {arm.high:.1%}"
        table.add_row(name, str(arm.num_diverged), str(ended), rate, interval, str(arm.num_missing))
    console.print(table)
    if summary.provisional:
        console.print("Classes are provisional: an arm has fewer control runs than the plan asks for.")


def _print_failure(name: str, run: RunSummary, console: Console) -> None:
    _say(console, f"MISSING {name}: no result of {run.missing_stage}; the end of its log:")
    for line in (run.last_words or "(no log)").splitlines()[-FAILED_LOG_LINES:]:
        _say(console, f"  {line}")


if __name__ == "__main__":
    sys.exit(main())
