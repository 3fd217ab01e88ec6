"""`python -m vaehpc.launch --seeds 16`: plan a study, run what it lacks, report."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import shlex
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from textwrap import shorten
from typing import Annotated, Any, Literal, get_args

import pydantic
import tyro
from rich.console import Console
from rich.table import Table
from rich.text import Text

from vaehpc.command import (
    TaskFailedError,
    UserError,
    asked_by,
    exit_code,
    nearest,
    ranges,
    require_plain,
    say,
    wrong_option,
)
from vaehpc.local.forecast import expectation
from vaehpc.local.pool import local_slots
from vaehpc.local.stages import INTERRUPTED, claim, end_study, require_only_launcher, run_stage
from vaehpc.machine.hardware import computes_bfloat16, cpu_model, gpu_driver, gpu_name, has_slurm
from vaehpc.machine.served import unserved_machine
from vaehpc.monitoring.live import LivePage
from vaehpc.monitoring.shown import show_results
from vaehpc.schema.config import (
    CROSSED,
    STUDY_NAME,
    ArmConfig,
    DataConfig,
    Precision,
    Stream,
    StudyConfig,
    control_of,
    run_name,
)
from vaehpc.schema.data import DataRequest, Request
from vaehpc.schema.plan import PlanConfig
from vaehpc.schema.results import Made
from vaehpc.schema.site import Device, SiteConfig
from vaehpc.slurm.choice import chosen_site
from vaehpc.slurm.queueing import (
    line_path,
    queue_preparation,
    queue_study,
    require_package,
    require_served,
    scripts_folder,
    write_scripts,
)
from vaehpc.stats.making import Facets, facets, otherwise, usual
from vaehpc.stats.planned import family_size, is_of_looks, planned_contrasts, power
from vaehpc.stats.planning import MOST_SEEDS, highest_rate_of_none
from vaehpc.study.attempts import starts_of
from vaehpc.study.crossing import asked_cross, least_p, require_crossable
from vaehpc.study.files import DataDir, StudyDir
from vaehpc.study.packages import require_installed
from vaehpc.study.presets import (
    DEMO_IMAGE_SIZE,
    DEMO_IMAGES,
    PRESETS,
    Arm,
    Preset,
    PresetName,
    Settings,
    analysis_plan,
    asked_seeds,
    configured_arms,
    controlled_by,
    default_precision,
    in_precision,
    named_arms,
    overridden,
    preset_plan,
    read_toml,
)
from vaehpc.study.provenance import own_image, provenance
from vaehpc.study.sites import Executor, Site, gpus_here, job_config, resolved
from vaehpc.study.study import (
    ROOT_SEED,
    create_study,
    data_config,
    differences,
    differing_values,
    in_image,
    planned_study,
    require_sources,
    seeds_of_arms,
    widened,
)
from vaehpc.study.sweep import asked_sweep, sweep_of_table

TITLE = "How the arms differ"
LONGEST = 48
"""Characters of a value of the plan."""
WIDEST = 10_000
"""Characters; a table is measured as if a terminal were so wide."""


@dataclass(frozen=True)
class Launch:
    """Train many seeds of several arms, measure their latents, and report how often runs diverge.

    The same line again does only what is missing; more seeds or arms widen the study. Without data the demo study runs
    on built-in faces. The defaults below are those of preset article, which --data and --celeba take; `--preset demo
    --help` shows the demo's. Exit codes: 0 done, 2 asked wrongly, 3 ended with missing runs, 130 interrupted.
    """

    seeds: tuple[str, ...] = ()
    """Seeds of each arm: one number N means 0 to N - 1; 5 9 20:30 means 5, 9 and 20 to 29. Default: the preset's."""
    root_seed: int | None = None
    """Root of all random streams; another one replicates a study with fresh runs. A study keeps its own."""
    arms: tuple[str, ...] = ()
    """Arms by name, and TOML files of your own arms. Default: the preset's."""
    preset: PresetName | None = None
    """Named study. Default: article if data are given, else demo."""
    study: str | None = None
    """Name of the study. Default: the preset's."""
    out: Path = Path("runs")
    """Folder of the studies."""
    data: Path | None = None
    """Prepared data set (also $VAEHPC_DATA); where images are given, the folder that they are prepared into first, by
    default one in the folder 'data' beside --out."""
    request: Annotated[DataRequest, tyro.conf.arg(name="")] = field(default_factory=DataRequest)
    executor: Literal["auto"] | Executor = "auto"
    """slurm: arrays in its queue; local: processes on this machine, as many as processors or GPUs; debug: in this
    process, up to the first task that raises; auto: what --site says, else slurm where it answers, else local."""
    pdb: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """With --executor debug: start Python's debugger where the first task raises."""
    site: Path | None = None
    """TOML file that says where jobs run: your copy of jobs/sites/slurm.toml."""
    device: Device | None = None
    """cpu: train on processors although GPUs are given. Default: on GPUs, where trainings ask for any."""
    sweep: str | None = None
    """SETTING=V1,V2 ...: each arm once for each value; train.learning_rate=6e-3,1e-2 makes ae-lr6e-3, ae-lr1e-2 ..."""
    cross: tuple[str, ...] = ()
    """STREAM=N ... in place of seeds: every combination of N initialisations, orders of images (shuffling) and noises;
    initialisation=4 shuffling=4 noise=4 are 64 runs of a VAE, 16 of an AE. Says which of them decides whether runs
    leave."""
    config: Path | None = None
    """TOML file with any of these: preset, study, seeds, root_seed, arms, tables [model], [vae], [train], [sweep]."""
    plan: Path | None = None
    """TOML file with what differs from the analysis plan, in analysis/plan.toml's tables, or the folder of a study that
    has the plan. A study keeps its plan."""
    dry_run: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Say what would be done, on Slurm with the exact batch scripts, and write nothing."""
    write: Path | None = None
    """On Slurm: leave batch scripts and a submit.sh that chains them in this folder, and submit nothing."""
    wait: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Return when the study has ended; local and debug always do, on Slurm the launcher leaves otherwise."""
    settings: Annotated[Settings, tyro.conf.arg(name="")] = field(default_factory=Settings)
    is_preset_asked: tyro.conf.Suppress[bool] = False
    """Whether somebody named the preset."""

    @property
    def name(self) -> str:
        """Of the study."""
        assert self.preset is not None
        return self.study or self.preset

    @property
    def given_data(self) -> Path | None:
        """The data set, or what it is made of; None: built-in faces."""
        return self.data or self.request.celeba or self.request.images


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of the command."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    return exit_code(lambda: launch(parsed(arguments), arguments, Console()), INTERRUPTED)


def again(directory: str) -> None:
    """Entry point of the job that follows a preparation on Slurm: the line that asked for it, once more.

    Args:
        directory: of the job's batch; the line was noted beside it.

    Raises:
        RuntimeError: the launch failed; it has said why.
    """
    line = json.loads(line_path(Path(directory)).read_text())
    os.chdir(line["directory"])
    if code := main([*line["arguments"], "--executor", "slurm"]):
        raise RuntimeError(f"vaehpc launch {shlex.join(line['arguments'])} ended with {code}")


# Arguments


def parsed(argv: Sequence[str]) -> Launch:
    """The command line over the TOML file over the preset.

    Raises:
        UserError: the TOML file is not there or says something unknown.
        SystemExit: with 2, after a message, where the command line is wrong.
    """
    first = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    for option in ("preset", "config", "data", "celeba", "images", "study", "out", "site", "executor", "device"):
        first.add_argument(f"--{option}")
    early, _ = first.parse_known_args(argv)
    from_file = _settings_of_file(Path(early.config)) if early.config else {}
    asked = early.preset or from_file.get("preset")
    data_given = early.data or early.celeba or early.images or os.environ.get("VAEHPC_DATA")
    is_help = not {"-h", "--help"}.isdisjoint(argv)  # which shows what data take
    name = asked or ("article" if data_given or is_help else "demo")
    # A wrong name given on the command line is left to the full parser, which lists the right ones.
    preset: PresetName = next((known for known in PRESETS if known == name), "demo")
    study = StudyDir(Path(early.out or "runs") / (early.study or from_file.get("study") or preset))
    where: Literal["auto"] | Executor = early.executor if early.executor in get_args(Executor) else "auto"
    site, executor, _ = chosen_site(
        Path(early.site) if early.site else None, "local" if is_help else where, command_line(argv)
    )
    usual, _ = usual_precision(study, trains_on_gpus(site, executor, early.device))
    tables = {key: value for key, value in from_file.items() if isinstance(value, dict)}
    table_of_sweep = tables.pop("sweep", None)
    defaults = Launch(
        preset=preset,
        is_preset_asked=bool(asked),
        study=from_file.get("study"),
        seeds=from_file.get("seeds", ()),
        root_seed=from_file.get("root_seed"),
        arms=tuple(from_file.get("arms", ())),
        sweep=None if table_of_sweep is None else sweep_of_table(table_of_sweep, f"--config {early.config}"),
        data=Path(os.environ["VAEHPC_DATA"]) if os.environ.get("VAEHPC_DATA") else None,
        settings=overridden(in_precision(PRESETS[preset].settings, usual), tables, early.config or ""),
    )
    try:
        arguments = asked_by(Launch, argv, "vaehpc launch", defaults)
    except pydantic.ValidationError as error:
        raise wrong_option(error) from None
    if arguments.request.source is None and arguments.request != DataRequest():
        raise UserError(
            "--first, --size and all else that makes a data set goes with --celeba, --images or --synthetic"
        )
    return arguments


def command_line(argv: Sequence[str]) -> str:
    """This command, to be given again."""
    return shlex.join(["python", "-m", "vaehpc.launch", *argv])


def trains_on_gpus(site: SiteConfig, executor: Executor, device: str | None) -> bool:
    """Whether trainings ask for GPUs: on Slurm as the site says, elsewhere where this machine has any."""
    if device == "cpu":
        return False
    return resolved(site).jobs["train"].needed_gpus > 0 if executor == "slurm" else bool(gpus_here())


def usual_precision(study: StudyDir, on_gpus: bool) -> tuple[Precision, str]:
    """The precision of a study unless a launch says another, and why: resolved at its first launch, and kept."""
    if study.config_path.exists():
        return study.config().precision or "float32", "as at the study's first launch"
    return default_precision(on_gpus), f"for its trainings ask for {'GPUs' if on_gpus else 'no GPU'}"


def _settings_of_file(path: Path) -> dict[str, Any]:
    values = read_toml(path, "--config")
    plain = {"preset": str, "study": str, "seeds": int | list, "root_seed": int, "arms": list}
    tables = [*Settings.model_fields, "sweep"]
    for key, value in values.items():
        if key not in plain and not isinstance(value, dict):
            if key in tables:
                raise UserError(f"--config {path}: {key} = {value!r} is not allowed; it is a table: [{key}]")
            keys = [*plain, *tables]
            raise UserError(f"--config {path}: unknown setting '{key}'{nearest(key, keys)}. Known: {', '.join(keys)}")
        if not isinstance(value, plain.get(key, dict)) or isinstance(value, bool):
            takes = getattr(plain.get(key, dict), "__name__", "number or list")
            raise UserError(f"--config {path}: {key} = {value!r} is not allowed; it takes a {takes}")
    if (seeds := values.get("seeds")) is not None:
        several = seeds if isinstance(seeds, list) else []
        # Of a list a single number is itself.
        words = [f"{seed}:{seed + 1}" if type(seed) is int else str(seed) for seed in several] or [str(seeds)]
        asked_seeds(words, f"--config {path}: seeds")
        values["seeds"] = tuple(words)
    if not all(isinstance(arm, str) for arm in values.get("arms", ())):
        raise UserError(f"--config {path}: arms = {values['arms']!r} is not allowed; it takes names of arms")
    if (preset := values.get("preset", "demo")) not in PRESETS:
        known = ", ".join(PRESETS)
        raise UserError(f"--config {path}: unknown preset '{preset}'{nearest(preset, PRESETS)}. Presets: {known}")
    return values


# The study


def launch(asked: Launch, argv: Sequence[str], console: Console) -> int:
    """Plan, prepare, train, measure, report; on Slurm, put all that into the queue.

    Args:
        asked: what `argv` says.
        argv: is given again, on Slurm, when data had to be prepared first.
        console: what is said.

    Returns:
        The exit code.
    """
    site, executor, why = chosen_site(asked.site, asked.executor, command_line(argv))
    require_possible(asked, executor)
    study, on_gpus = StudyDir(asked.out / asked.name), trains_on_gpus(site, executor, asked.device)
    usual, reason = usual_precision(study, on_gpus)
    say_what_is_launched(asked, executor, why, usual, reason, console)
    if executor == "slurm":
        require_served(resolved(site, device=asked.device))
    elif on_gpus and (problem := unserved_machine()) is not None:
        raise UserError(problem)
    wanted = _wanted(asked, study)
    if asked.dry_run:
        show_changes(asked, usual, wanted, console)
    if executor != "slurm":
        if asked.dry_run:
            _describe(asked, wanted, on_gpus, console)
        require_installed("train", "analysis", is_cpu_meant=asked.device == "cpu")
        if asked.dry_run:
            return 0
    data, request = wanted_data(asked)
    if request is not None and executor == "slurm" and not data.manifest_path.exists():
        if asked.dry_run or asked.write:
            raise UserError(
                f"{data.path} is not prepared yet, and the scripts depend on it: make it with"
                " `python -m vaehpc.prepare`, or launch without --dry-run and --write"
            )
        return queue_preparation(study, data, request, argv, site, asked.wait, console, show_results)
    if request is not None:
        _prepare(data, request, console)
    config = wanted.config(data_config(data))
    if executor == "slurm":
        return _launch_on_slurm(study, config, site, asked, console)
    return _launch_here(study, config, executor, on_gpus, asked, console)


def require_possible(asked: Launch, executor: Executor) -> None:
    """UserError where something that is asked for cannot be had together, or has a name that no script can hold."""
    for option in ("out", "data", "site", "write"):
        require_plain(f"--{option}", getattr(asked, option))
    for option, path in asked.request.paths.items():
        require_plain(f"--{option}", path)
    if executor == "slurm" and not asked.given_data and not asked.is_preset_asked:
        raise UserError(
            "on Slurm a study needs data: give --celeba PATH, --images PATH or --data DIR, or take built-in faces with"
            " --preset demo"
        )
    if asked.pdb and executor != "debug":
        raise UserError(f"--pdb goes with --executor debug, and this is {executor}")
    if asked.preset != "demo" and not asked.given_data:
        raise UserError(
            f"preset '{asked.preset}' needs data: give --celeba PATH, --images PATH or --data DIR, or take"
            " --preset demo"
        )
    if not re.fullmatch(STUDY_NAME, asked.name):
        raise UserError(
            f"--study '{asked.name}': a name takes letters, digits, '.', '_' and '-'; --out says where it lies"
        )
    if asked.cross and asked.seeds:
        raise UserError("--seeds and --cross given: levels of the crossed streams stand in place of the seeds")
    if asked.root_seed is not None and not 0 <= asked.root_seed < 2**63:
        raise UserError(f"--root-seed {asked.root_seed}: it is a number from 0 to 2**63 - 1")


def say_what_is_launched(
    asked: Launch, executor: Executor, why: str, usual: Precision, reason: str, console: Console
) -> None:
    """The first line: which preset on which data, where and in which precision."""
    without = "" if asked.request.synthetic else ", because no data are given"
    source = f"data of {asked.given_data}" if asked.given_data else f"built-in faces{without}"
    where = f"executor {executor}{f': {why}' if why else ''}"
    precision = asked.settings.train.precision
    said = f"{precision}, {reason if precision == usual else 'as asked'}"
    say(console, f"Preset {asked.preset} on {source}, {where}; precision {said}.")


@dataclass(frozen=True)
class Wanted:
    """What a launch asks of a study, as far as that is known without its data."""

    name: str
    preset: PresetName
    named: Mapping[str, Arm]
    """The arms that are asked for."""
    arms: Mapping[str, ArmConfig]
    """The same, as they are trained."""
    every: Mapping[str, ArmConfig]
    """The same, and those that the study has already."""
    seeds: tuple[int, ...]
    fewer_seeds: Mapping[str, int]
    cross: Mapping[Stream, int]
    root_seed: int
    precision: Precision
    plan: PlanConfig

    def config(self, data: DataConfig) -> StudyConfig:
        """The study on these data."""
        return planned_study(
            self.name,
            self.preset,
            data,
            self.arms,
            self.seeds,
            self.plan,
            self.root_seed,
            self.precision,
            self.fewer_seeds,
            self.cross,
        )


def _wanted(asked: Launch, study: StudyDir) -> Wanted:
    """What is asked of the study, whose own root seed and plan stay.

    Raises:
        UserError: there is no such arm, seed, stream or plan, or they do not fit each other.
    """
    assert asked.preset is not None
    preset, precision = PRESETS[asked.preset], asked.settings.train.precision
    cross = asked_cross(asked.cross)
    seeds = asked_seeds(asked.seeds or [str(preset.num_seeds)], "--seeds")
    fewer_seeds = {} if asked.arms else preset.in_float32
    named = asked_arms(asked, precision)
    fewer_seeds = {
        name: fewer_seeds[base] for name, arm in named.items() if (base := base_of(name, arm)) in fewer_seeds
    }
    arms = configured_arms(named, asked.settings)
    kept = study.config() if study.config_path.exists() else None
    every = {**(kept.arms if kept else {}), **arms}
    root_seed = asked.root_seed if asked.root_seed is not None else kept.root_seed if kept else ROOT_SEED
    require_sources(every)
    require_crossable(cross, every)
    plan = _asked_plan(asked, study, preset, every)
    return Wanted(asked.name, asked.preset, named, arms, every, seeds, fewer_seeds, cross, root_seed, precision, plan)


def asked_arms(asked: Launch, precision: Precision) -> dict[str, Arm]:
    """The arms that are asked for, else the preset's in this precision, multiplied by the values of a sweep.

    Raises:
        UserError: there is no such arm, or it cannot be swept so.
    """
    assert asked.preset is not None
    named = named_arms(asked.arms or PRESETS[asked.preset].arms_in(precision))
    return named if asked.sweep is None else asked_sweep(asked.sweep, "--sweep").arms(named)


def base_of(name: str, arm: Arm) -> str:
    """The arm that a sweep made this one of; else itself."""
    return name if arm.swept is None else arm.swept.base


def _asked_plan(asked: Launch, study: StudyDir, preset: Preset, arms: Mapping[str, ArmConfig]) -> PlanConfig:
    """The study's own plan, or that of a new study with these arms.

    Raises:
        UserError: the file of --plan says what the study's plan does not, or what no plan or not this study can have.
    """
    changes: dict[str, Any] = {}
    if asked.plan:
        is_study = asked.plan.is_dir()
        changes = StudyDir(asked.plan).config().plan.model_dump() if is_study else read_toml(asked.plan, "--plan")
    origin = f"--plan {asked.plan}" if asked.plan else "analysis/plan.toml"
    plan = overridden(preset_plan(preset, arms), changes, origin)
    if not study.config_path.exists():
        require_fitting(plan, arms, origin)
        return plan
    own = study.config().plan
    asked_for = overridden(own, changes, origin) if changes else own
    if lines := [
        f"\n  {key}: it has {has!r}, the file says {said!r}"
        for key, (has, said) in differing_values(own, asked_for).items()
    ]:
        raise UserError(
            f"{origin}: study '{study.path.name}' keeps the analysis plan of its first launch:{''.join(lines)}\n"
            "Leave --plan out, or start another study with --study NAME."
        )
    return own


def require_fitting(plan: PlanConfig, arms: Mapping[str, ArmConfig], origin: str) -> None:
    """UserError if the plan names a control, a reference or a contrast that a study with these arms has not."""
    control, aes = plan.classes.control, list(dict.fromkeys(arm.base for arm in arms.values() if arm.vae is None))
    if control and control not in aes:
        raise UserError(
            f"{origin}: classes.control = '{control}' is no AE arm of the study{nearest(control, aes)}."
            f" AE arms: {', '.join(aes) or 'none'}"
        )
    if control and not controlled_by(control, arms):
        raise UserError(
            f"{origin}: classes.control = '{control}' can be the control of no other arm of the study: none is equal to"
            " it but for clipped gradients and what only a VAE has"
        )
    reference, names = plan.contrasts.reference, list(dict.fromkeys(arm.base for arm in arms.values()))
    if reference not in ("", analysis_plan().contrasts.reference, *names):
        raise UserError(
            f"{origin}: contrasts.reference = '{reference}' is no arm of the study{nearest(reference, names)}."
            f" Arms: {', '.join(names)}"
        )
    contrasts = [each.name for each in planned_contrasts(arms, plan)]
    for name in plan.contrasts.primary:
        if name not in contrasts:
            raise UserError(
                f"{origin}: contrasts.primary names '{name}', which are not two arms of the study, or turned round"
                f"{nearest(name, contrasts)}. Contrasts: {'; '.join(contrasts) or 'none'}; or two other arms"
            )


def _launch_here(
    study: StudyDir, config: StudyConfig, executor: Executor, on_gpus: bool, asked: Launch, console: Console
) -> int:
    """Train, measure and report on this machine.

    Returns:
        The exit code.
    """
    say_code(study, facets([made_here(on_gpus)]), console)
    config = _allowed(study, config)
    _begin(study, config, console)
    if not on_gpus:
        say_what_is_emulated(config, console)
    say_expectation(study, config, console, on_gpus)
    claim(study)
    try:
        with LivePage(study, config) as page:
            for stage in ("train", "statistics"):
                run_stage(stage, study, config, executor, console, page.renew, asked.device)
        return end_study(study, executor, console, show_results)
    except TaskFailedError as failed:
        failed.is_looked_at = asked.pdb
        raise


def _launch_on_slurm(study: StudyDir, config: StudyConfig, chosen: SiteConfig, asked: Launch, console: Console) -> int:
    """Put the study into the queue, or leave the scripts that do so.

    Returns:
        The exit code.
    """
    data, folder = Path(config.data.path), asked.write
    site = resolved(chosen, study.path, data, device=asked.device)
    if folder is None and own_image() is not None and not has_slurm():
        say(console, "Slurm's client is not in this image: the scripts are written for the host.")
        folder = scripts_folder(study)
    if asked.dry_run or folder is not None:
        say_code(study, made_on_nodes(config, site), console)
        is_kept = study.config_path.exists()
        config = _allowed(study, config)
        say_plan(config.plan, is_kept, console)
        say_expectation(study, config, console, site.jobs["train"].needed_gpus > 0, is_here=False)
        return write_scripts(study, config, site, None if asked.dry_run else folder, console)
    config = in_image(config, require_package(site))
    say_code(study, made_on_nodes(config, site), console)
    allowed = _allowed(study, config)

    def begin() -> None:
        _begin(study, allowed, console)
        say_expectation(study, allowed, console, site.jobs["train"].needed_gpus > 0, is_here=False)

    return queue_study(study, allowed, site, asked.wait, console, show_results, begin)


def _begin(study: StudyDir, config: StudyConfig, console: Console) -> None:
    """Write the study; say how its arms differ and what it can show."""
    is_kept = study.config_path.exists()
    create_study(study, config)
    show_arms(config.arms, {arm: config.control_of(arm) for arm in config.arms}, console)
    say_plan(config.plan, is_kept, console)
    say_what_it_can_show(config, console)


def show_changes(asked: Launch, usual: Precision, wanted: Wanted, console: Console) -> None:
    """What a launch asks for in place of what its preset says; its arms, their questions and controls."""
    preset = PRESETS[wanted.preset]
    of_arms = preset.arms_in(usual)
    arms = asked.arms or preset.arms_in(wanted.precision)
    of_preset = ", ".join(ranges(range(preset.num_seeds)))
    rows = {
        "seeds": (", ".join(ranges(wanted.seeds)), of_preset),
        "arms": (" ".join(arms), " ".join(of_arms)),
        "sweep": (asked.sweep or "none", "none"),
        "cross": (" ".join(asked.cross) or "none", "none"),
    }
    if asked.cross:
        del rows["seeds"]
    changed = {key: pair for key, pair in rows.items() if pair[0] != pair[1]}
    changed |= differing_values(asked.settings, in_precision(preset.settings, usual))
    usual_plan = preset_plan(preset, wanted.arms)
    changed |= {f"plan: {key}": pair for key, pair in differing_values(wanted.plan, usual_plan).items()}
    say(console, f"The preset {asked.preset}: {preset.expectation}.")
    if changed:
        table = Table("setting", "here", "preset", title=f"What differs from preset {asked.preset}")
        for key, values in changed.items():
            table.add_row(key, *(Text(_in_words(value)) for value in values))
        console.print(table)
    else:
        say(console, "Nothing differs from it.")
    for name, arm in wanted.named.items():
        say(console, f"  {name}: {arm.question}")
    every, control = wanted.every, wanted.plan.classes.control
    show_arms(every, {name: control_of(arm, every, control) for name, arm in every.items()}, console)


def say_expectation(
    study: StudyDir, config: StudyConfig, console: Console, on_gpus: bool, is_here: bool = True
) -> None:
    """How long it will take, how much disk, and how that is known; on this machine, or on a site's nodes."""
    if is_here:
        device = gpu_name() if on_gpus else cpu_model()
        slots = len(local_slots(job_config("train", None if on_gpus else "cpu")))
        lines = expectation(study, config, device, on_gpus, slots)
    else:
        lines = expectation(study, config, "of the nodes", on_gpus, None)
    for line in lines:
        say(console, line)


def say_plan(plan: PlanConfig, is_kept: bool, console: Console) -> None:
    """Say in what the study's plan, which it may keep from an earlier launch, is not analysis/plan.toml."""
    if changed := differing_values(plan, analysis_plan()):
        whose = "The study keeps the analysis plan of its first launch" if is_kept else "Analysis plan"
        say(console, f"{whose}: analysis/plan.toml, but for")
        for key, (value, usual) in changed.items():
            say(console, f"  {key} = {shorten(repr(value), LONGEST)} instead of {shorten(repr(usual), LONGEST)}")


def made_here(on_gpus: bool) -> Made:
    """What trains on this machine."""
    device, driver = (gpu_name(), gpu_driver()) if on_gpus else (cpu_model(), None)
    return Made(stage="train", provenance=provenance(), device=device, driver=driver)


def made_on_nodes(config: StudyConfig, site: Site) -> Facets:
    """What is known here of what trains there: the image's digest, or else this code, which the nodes see too."""
    names = ("image",) if site.container.runtime != "none" else ("code",)
    found = facets([Made(stage="train", provenance=config.provenance)])
    return {name: found[name] for name in names if (name, config.provenance.image_digest) != ("image", None)}


def say_code(study: StudyDir, now: Facets, console: Console) -> None:
    """Which code this is; and, before anything is trained, in what it differs from what made the study's first runs."""
    say(console, f"Code: vaehpc {provenance().code_version}.")
    if not study.config_path.exists():
        return
    config = study.config()
    first = usual(facets(starts) for arm in config.arms if (starts := _first_starts(study, config, arm)))
    if other := otherwise(now, first):
        say(
            console,
            f"What is trained from now on is made {', '.join(other)}; the runs that are there"
            f" {', '.join(otherwise(first, now))}. The report will name it as a deviation, and its tests exploratory.",
        )


def _first_starts(study: StudyDir, config: StudyConfig, arm: str) -> list[Made]:
    """Of the first run of an arm that says what made it; of thousands, one is read."""
    runs = (study.run(run_name(arm, seed)) for seed in config.seeds[arm])
    for run in runs:
        with contextlib.suppress(UserError):  # a damaged marker; the report names it
            if starts := starts_of(run, run.trained() if run.trained_path.exists() else None):
                return starts
    return []


def say_what_is_emulated(config: StudyConfig, console: Console) -> None:
    """Warn of arms in bfloat16 on a processor without units for it, where it trains."""
    arms = [name for name, arm in config.arms.items() if arm.train.precision == "mixed_bfloat16"]
    if arms and not computes_bfloat16():
        say(
            console,
            f"This processor ({cpu_model()}) has no units for bfloat16: {', '.join(arms)} will train about ten times"
            " slower than in float32. Train them on a GPU or a newer processor, or with --train.precision float32.",
        )


def _allowed(study: StudyDir, config: StudyConfig) -> StudyConfig:
    """The study with what it has already.

    Raises:
        UserError: it has other settings, or another process of this machine runs it.
    """
    if study.config_path.exists():
        config = widened(study.config(), config)
    require_only_launcher(study)
    return config


def _describe(asked: Launch, wanted: Wanted, on_gpus: bool, console: Console) -> None:
    """What a launch would do on this machine, from the arguments and what is there already."""
    study = StudyDir(asked.out / asked.name)
    say_plan(wanted.plan, study.config_path.exists(), console)
    say_code(study, facets([made_here(on_gpus)]), console)
    data = wanted_data(asked)[0]
    if data.manifest_path.exists():
        config = wanted.config(data_config(data))
        config = widened(study.config(), config) if study.config_path.exists() else config
        say_expectation(study, config, console, on_gpus)
    seeds = seeds_of_arms(wanted.arms, wanted.seeds, wanted.fewer_seeds, wanted.cross)
    runs = [run_name(arm, seed) for arm, of_arm in seeds.items() for seed in of_arm]
    counts = Counter(map(len, seeds.values()))
    of_arms = " + ".join(f"{num_arms} arms x {number} seeds" for number, num_arms in counts.items())
    say(console, f"Study {study.path}: {of_arms} = {len(runs)} runs.")
    every = sorted({seed for of_arm in seeds.values() for seed in of_arm})
    say(console, f"Seeds {', '.join(ranges(every))} of root seed {wanted.root_seed}.")
    for stage in ("train", "statistics"):
        job = job_config(stage, asked.device)
        left = [name for name in runs if not (study.path / name / str(job.marker)).exists()]
        slots = len(local_slots(job))
        say(console, f"{stage}: {len(left)} of {len(runs)} runs, {slots} at once, {job.entry_point}")
    say(console, f"aggregate: {study.report}\nDry run: nothing was written.")


def wanted_data(asked: Launch) -> tuple[DataDir, Request | None]:
    """The data set of this launch, and what its preparation has to be asked for where this launch may make it."""
    beside = asked.out.absolute().parent / "data"
    request, source = asked.request, asked.request.source
    if source is None and asked.data:
        return DataDir(asked.data), None
    if source is None:
        return DataDir(beside / "demo-faces"), Request(synthetic=DEMO_IMAGES, size=DEMO_IMAGE_SIZE)
    name = source if request.images is None else re.sub(r"[^\w.-]", "_", request.images.absolute().stem)
    return DataDir(asked.data or beside / f"{name}-{request.size}"), Request(**request.model_dump() | request.paths)


def _prepare(data: DataDir, request: Request, console: Console) -> None:
    """Make the data set, or check that it is what is asked for."""
    # Imported here: the launcher starts without what only the preparation needs.
    from vaehpc.prepare import notes, shown_progress
    from vaehpc.tasks.prepare import prepare

    with shown_progress() as on_progress:
        manifest = prepare(request, data.path, on_progress)
    say(console, f"Data: {data.path}")
    for note in notes(manifest):
        say(console, f"  {note}")


def show_arms(arms: Mapping[str, ArmConfig], controls: Mapping[str, str | None], console: Console) -> None:
    """One table of how the arms of a study differ and which is whose control."""
    rows = differences(arms)
    shown = {setting: {arm: _in_words(value) for arm, value in row.items()} for setting, row in rows.items()}
    control = {arm: "itself" if other == arm else other or "none" for arm, other in controls.items()}
    table = _table_of_settings(control, shown)
    if console.measure(table, options=console.options.update(max_width=WIDEST)).maximum > console.width:
        table = _table_of_exceptions(control, shown)
    console.print(table)
    if without := [arm for arm in arms if control[arm] == "none"]:
        say(
            console,
            f"Without control: {', '.join(without)}. Their runs are classed only on the article's data and net;"
            " add an AE arm that has the same [model] and [train].",
        )


def _table_of_settings(control: Mapping[str, str], shown: Mapping[str, Mapping[str, str]]) -> Table:
    """A line per arm, a column per setting; empty where an AE has no such setting."""
    table = Table("arm", "control", *shown, title=TITLE)
    for arm in control:
        table.add_row(arm, control[arm], *(row.get(arm, "") for row in shown.values()))
    return table


def _table_of_exceptions(control: Mapping[str, str], shown: Mapping[str, Mapping[str, str]]) -> Table:
    """A line per arm with the settings in which it is not as most arms are: for more settings than columns fit."""
    usual = {setting: Counter(row.values()).most_common(1)[0][0] for setting, row in shown.items()}
    table = Table("arm", "control", "what is special", title=TITLE)
    table.add_row(
        "most arms", "", ", ".join(f"{setting} {value}" for setting, value in usual.items()), end_section=True
    )
    for arm in control:
        own = {setting: row[arm] for setting, row in shown.items() if row.get(arm, usual[setting]) != usual[setting]}
        table.add_row(arm, control[arm], ", ".join(f"{setting} {value}" for setting, value in own.items()))
    return table


def _in_words(value: object) -> str:
    """A setting as a table shows it."""
    if isinstance(value, float):
        return f"{value:g}"
    return "none" if value is None else str(value)


def say_what_it_can_show(config: StudyConfig, console: Console) -> None:
    """What no divergence at all in so many seeds would still allow, and what would be found against the control."""
    plan, alpha = config.plan.contrasts, 1 - config.plan.level
    size = family_size(config.arms, config.plan)
    planned = planned_contrasts(config.arms, config.plan)
    tested = {each.arm: each for each in reversed(planned) if not each.exploratory}
    if config.cross:
        streams = ", ".join(f"{count} x {stream}" for stream, count in config.cross.items())
        say(console, f"  streams are crossed, {streams}: a run's seed has its level of {', '.join(CROSSED)} as digits")
        if (least := least_p(config.cross)) > alpha:
            say(console, f"  so few levels can show no stream alone: p would be at least {least:.2g}; 4 x 4 can")
        return
    for arm, seeds in config.seeds.items():
        upper = highest_rate_of_none(len(seeds), config.plan.level)
        said = f"  {arm}: {len(seeds)} seeds; 0 diverged of {len(seeds)} would still allow a rate up to {upper:.1%}"
        contrast = tested.get(arm)
        if contrast is not None and len(seeds) <= MOST_SEEDS:
            threshold = alpha if is_of_looks(contrast, plan) else alpha / size
            of_reference = len(config.seeds[contrast.reference])
            found = power(len(seeds), of_reference, contrast.alternative, plan, threshold)
            rates = (plan.versus, plan.rate) if contrast.alternative == "less" else (plan.rate, plan.versus)
            said += (
                f"; {rates[0]:.0%} against {rates[1]:.0%} of {contrast.reference} would be found with probability"
                f" {found:.0%}"
            )
        say(console, said)
    if size > 1:
        say(console, f"  found: at {alpha / size:.2g}, the first of Holm's thresholds for {size} tests at {alpha:.2g}")
    if plan.looks:
        looks = ", ".join(map(str, plan.looks))
        say(console, f"  planned looks at {plan.reference} and its control: after {looks} seeds per arm")


if __name__ == "__main__":
    sys.exit(main())
