"""What a launch does with Slurm: it says what is missing, puts it into the queue, and leaves."""

from __future__ import annotations

import contextlib
import copy
import json
import shlex
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from rich.console import Console

from vaehpc import __version__
from vaehpc.command import UserError, say
from vaehpc.machine.served import unserved_machine
from vaehpc.schema.config import StudyConfig
from vaehpc.schema.data import Request
from vaehpc.schema.site import SiteConfig
from vaehpc.slurm.arrays import (
    Batch,
    Limit,
    Limits,
    Names,
    Queue,
    TooManyError,
    arranged,
    preparation,
    require_accepted,
    require_empty,
    require_only_submission,
    script,
    study_queue,
    submit,
    write_batches,
)
from vaehpc.slurm.client import (
    QueuedElement,
    SlurmError,
    associations,
    configuration,
    nothing_goes_on,
    of_account,
    partition_qos,
    qos_limit,
    queued,
    release_lines,
    submit_limit,
)
from vaehpc.slurm.images import NO_ROCM, STAGES, ImageError, can_look, examined
from vaehpc.study.files import DataDir, Event, StudyDir, write_model, write_text
from vaehpc.study.packages import require_installed
from vaehpc.study.provenance import own_image
from vaehpc.study.sites import Site, resolved
from vaehpc.study.study import create_study

SQUEUE_SECONDS = 60.0
"""Between two questions to Slurm's controller."""
FILE_SECONDS = 2.0
"""Between two looks at files."""
PYTHON_SECONDS = 120.0
"""An image may have to be opened first."""
UNLIMITED = 1_000_000
Show = Callable[[StudyDir, Console], int]
DEFAULT_ARRAY_SIZE = 1001
"""Slurm's own, where it cannot be asked."""


def queue_study(
    study: StudyDir,
    config: StudyConfig,
    site: Site,
    wait: bool,
    console: Console,
    show: Show,
    begin: Callable[[], None],
) -> int:
    """Submit what is missing and not queued.

    Args:
        study: its markers say what is done.
        config: its runs.
        site: where they run.
        wait: until nothing of the study is queued any more.
        console: what is said.
        show: says what a study found that has ended, and returns the exit code.
        begin: writes the study, once Slurm would accept it.

    Returns:
        The exit code: 0, or with `wait` that of the study when it has ended.

    Raises:
        UserError: Slurm refuses, or does not answer.
    """
    study.launcher.unlink(missing_ok=True)  # from here on no process of this machine runs the study
    names = Names(study)
    queue, limits = _asked_of_slurm(study, site)
    require_only_submission(study, queue)
    batches, num_left, said = _accepted(study, config, site, queue, limits, names)
    _say_queued(queue, console)
    for line in said:
        say(console, line)
    files = [study.config_path, *(study.run(run.name).config_path for run in config.runs())]
    with _unwritten_if_refused(study, files):
        _submit(study, batches, site, console, begin)
    if num_left:
        say(
            console,
            f"{num_left} runs do not fit into what Slurm lets you submit at once: give the same line again when some"
            " have ended, or give [slurm] tasks_per_gpu in the site's file",
        )
    elif not batches and not queue.numbers:
        say(console, "nothing left to do")
        return show(study, console)
    result = study.report if config.replay is None else study.replay_page
    say(console, f"Queued. See `{_status_line(study)}`; the result: {result}", is_copied=True)
    return _waited(study, result, console, show) if wait else 0


def _accepted(
    study: StudyDir, config: StudyConfig, site: Site, queue: Queue, limits: Limits, names: Names
) -> tuple[list[Batch], int, list[str]]:
    """The arrays of as many runs as Slurm accepts, how many did not fit, and what it says of the arrays."""
    smallest: dict[str, int] = {}
    while True:
        batches, num_left = arranged(study, config, site, queue, limits, copy.deepcopy(names))
        try:
            return batches, num_left, require_accepted(study, batches, site)
        except TooManyError as error:  # a limit that the clients do not show
            # What trainings that are queued already still need cannot be less.
            if not 1 < error.num_elements < smallest.get(error.stage, UNLIMITED):
                raise
            smallest[error.stage] = error.num_elements
            half = Limit(error.num_elements // 2, frozenset([error.stage]))
            limits = replace(limits, of_stages=(*limits.of_stages, half))


def require_served(site: Site) -> None:
    """UserError if trainings ask for GPUs for which there is no TensorFlow."""
    if not site.jobs["train"].needed_gpus:
        return
    if site.container.runtime == "none" and (problem := unserved_machine()) is not None:
        raise UserError(f"{problem}. Nothing was submitted.")
    if site.container.gpu == "rocm" and not can_look(site):
        raise UserError(f"gpu = 'rocm' in [container] {NO_ROCM}. Nothing was submitted.")


def require_package(site: Site) -> str | None:
    """See that the images of the site, or the Python that it names for the nodes, have this version of vaehpc.

    Returns:
        The digest of the image that trains, None where there is none or it cannot be opened from here.

    Raises:
        UserError: they have not, or lack what is needed.
    """
    inside = own_image()
    if inside is not None and site.container.runtime == "none":
        raise UserError(
            "this launcher runs in an image, and the site's file names none for the tasks: give runtime and image in"
            " its [container]. Nothing was submitted."
        )
    if can_look(site):
        try:
            reports = {stage: examined(site, stage) for stage in STAGES}
        except ImageError as error:
            raise UserError(f"{error}. Nothing was submitted.") from None
        image = reports["train"].image
        return None if image is None else image.digest
    if inside is not None:
        return inside.digest if inside.target == "train" else None
    if site.slurm.python is not None:
        _require_python(site.slurm.python)
    elif site.container.runtime == "none":
        require_installed("train", "analysis")  # the nodes run this Python
    return None


def _require_python(python: str) -> None:
    """UserError if this command starts no Python with this version of vaehpc."""
    code = "import vaehpc.local.pool; print(vaehpc.__version__)"
    command = [*shlex.split(python), "-c", code]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=PYTHON_SECONDS)
        said, found = done.stderr.strip().splitlines()[-1:], done.stdout.strip()
    except (OSError, subprocess.TimeoutExpired) as error:
        said, found = [str(error)], ""
    if found != __version__:
        what = f"has vaehpc {found}" if found else f"has no usable vaehpc ({' '.join(said)})"
        raise UserError(
            f"the Python of the site's file, `{python}`, {what}; this is {__version__}. Install it there, or correct"
            " [slurm] python. Nothing was submitted."
        )


def _asked_of_slurm(study: StudyDir, site: Site) -> tuple[Queue, Limits]:
    try:
        elements, settings = queued(), configuration()
        largest = site.slurm.max_queued or UNLIMITED
        of_stages = (*_of_accounts(site, elements), *_of_partitions(site, elements))
        return study_queue(study, elements), Limits(int(settings["MaxArraySize"]), largest - len(elements), of_stages)
    except SlurmError as error:
        raise UserError(
            f"Slurm does not answer: {error}. Nothing was submitted; give the same line again later, or take"
            " --executor local."
        ) from error


def _of_accounts(site: Site, elements: Sequence[QueuedElement]) -> list[Limit]:
    """Limits of the accounts and QOS that stages ask for; none where accounting does not say."""
    stages: dict[tuple[str | None, str | None], set[str]] = {}
    for stage in site.jobs:
        slurm = site.slurm_of(stage)
        stages.setdefault((slurm.account, slurm.qos), set()).add(stage)
    try:
        known = associations()
        limits = {asked: submit_limit(of_account(known, asked[0]), asked[1]) for asked in stages}
    except SlurmError:
        return []
    return [
        Limit(limit - len(elements), frozenset(stages[asked])) for asked, limit in limits.items() if limit is not None
    ]


def _of_partitions(site: Site, elements: Sequence[QueuedElement]) -> list[Limit]:
    """Limits of the QOS that partitions have themselves, which count what is queued there alone."""
    stages: dict[str, set[str]] = {}
    found = []
    try:
        of_partition = partition_qos()
        for stage in site.jobs:
            if qos := of_partition.get(site.partition(stage) or ""):
                stages.setdefault(qos, set()).add(stage)
        for qos, asked in stages.items():
            if (limit := qos_limit(qos)) is not None:
                queued_there = sum(of_partition.get(element.partition) == qos for element in elements)
                found.append(Limit(limit - queued_there, frozenset(asked)))
    except SlurmError:
        return []
    return found


@contextlib.contextmanager
def _unwritten_if_refused(study: StudyDir, files: Sequence[Path]) -> Iterator[None]:
    """Take away these files, if they are new, and their folders, where Slurm has accepted nothing of the study."""
    new = [path for path in files if not path.exists()]
    folders = [folder for path in (*new, study.jobs / "x") for folder in path.parents if not folder.exists()]
    try:
        yield
    except UserError:
        if not study.batches():
            for path in new:
                path.unlink(missing_ok=True)
            for folder in sorted(set(folders), reverse=True):  # what is inside comes first
                with contextlib.suppress(OSError):
                    folder.rmdir()
        raise


def _submit(study: StudyDir, batches: Sequence[Batch], site: Site, console: Console, begin: Callable[[], None]) -> None:
    try:
        submit(study, batches, site, lambda batch, job: say(console, f"  {job}  {_in_words(batch)}"), begin)
    except KeyboardInterrupt:
        raise KeyboardInterrupt("interrupted; what Slurm accepted goes on, the same line submits the rest") from None


def _say_queued(queue: Queue, console: Console) -> None:
    for name, numbers in queue.numbers.items():
        say(console, f"  {queue.batches[name].job()}  {name}: {len(numbers)} elements are in the queue already")


def _in_words(batch: Batch) -> str:
    """'train-0001: 16 elements', with what it waits for."""
    num_tasks = sum(map(len, batch.elements))
    what = f"{len(batch.elements)} elements" if len(batch.elements) > 1 else "1 job"
    runs = f" of {num_tasks} runs" if num_tasks > len(batch.elements) else ""
    waits = f", each after its element of {batch.of}" if batch.of else ""
    waits += f", after {', '.join(batch.after)}" if batch.after else ""
    return f"{batch.name}: {what}{runs}{waits}"


def _waited(study: StudyDir, result: Path, console: Console, show: Show) -> int:
    """Wait until the study has ended, then say what it found; 3 if it has no result, or never will by itself.

    Its controller serves others too: squeue is asked once a minute, or when the last job says that it has ended.
    """
    shown, told = Counter[str](), list[str]()
    while True:
        try:
            own = [element for element in queued() if study.batch_at(element.comment)]
        except SlurmError as error:
            say(console, f"Slurm does not answer ({error}); waiting")
        else:
            if not own:
                break
            now = Counter(element.state for element in own)
            if now != shown:
                say(console, ", ".join(f"{number} {state.lower()}" for state, number in sorted(now.items())))
                shown = now
            if (stuck := list(release_lines(own))) != told:
                for line in stuck:
                    say(console, line)
                told = stuck
            if nothing_goes_on(own):
                say(console, "Nothing of the study goes on; the same line waits again.")
                return 3
        try:
            _sleep(study)
        except KeyboardInterrupt:
            raise KeyboardInterrupt("the study goes on in the queue; the same line waits again") from None
    if result.exists():
        return show(study, console)
    say(console, f"The queue is empty, and there is no {result}. Why: `{_status_line(study)} --failures`")
    return 3


def _sleep(study: StudyDir) -> None:
    """Until Slurm may be asked again, or until the study's last job notes that it has ended."""
    before = _last_events(study)
    for _ in range(round(SQUEUE_SECONDS / FILE_SECONDS)):
        time.sleep(FILE_SECONDS)
        after = _last_events(study)
        if after != before and any(event.kind in ("done", "given-up", "left") for event in after[-1:]):
            return


def _last_events(study: StudyDir) -> list[Event]:
    """What the script of the job that comes after all others has noted."""
    last = [batch for batch in study.batches() if batch.name.partition("-")[0] in ("aggregate", "verdict")]
    return max(last, key=lambda batch: batch.name).events(0) if last else []


def _status_line(study: StudyDir) -> str:
    return f"python -m vaehpc.status {shlex.quote(str(study.path))}"


# Data that are not there yet


def queue_preparation(
    study: StudyDir,
    data: DataDir,
    request: Request,
    argv: Sequence[str],
    chosen: SiteConfig,
    wait: bool,
    console: Console,
    show: Show,
) -> int:
    """Submit the preparation of the data, and after it a job that gives this launch's line again.

    Args:
        study: need not exist.
        data: what is to be made.
        request: how, for the preparation's task.
        argv: this launch's line.
        chosen: where it runs.
        wait: until the study has ended too.
        console: what is said.
        show: says what the study found, and returns the exit code.

    Returns:
        The exit code.

    Raises:
        UserError: Slurm refuses, or does not answer.
    """
    for option, path in request.paths.items():
        if not path.exists():
            raise UserError(f"--{option} {path} does not exist. Nothing was submitted.")
    # With what lies beside a file, or beside what a link leads to.
    read = {path if path.is_dir() else path.parent for of in request.paths.values() for path in (of, of.resolve())}
    site = resolved(chosen, *sorted(read), study.path, data.path, Path.cwd())
    require_package(site)
    queue, _ = _asked_of_slurm(study, site)
    if queue.of_stage("prepare") or queue.of_stage("launch"):
        _say_queued(queue, console)
        say(console, "The data are being prepared; the arrays are submitted after it.")
        return _waited(study, study.report, console, show) if wait else 0
    batches = preparation(study, data)
    for said in require_accepted(study, batches, site):
        say(console, said)
    again = [argument for argument in argv if argument != "--wait"]
    line = {"directory": str(Path.cwd()), "arguments": again}
    noted = line_path(batches[-1].elements[0][0])

    def begin() -> None:
        data.make_progress()
        write_model(data.request_path, request.model_copy(update={"workers": site.jobs["prepare"].cpus}))
        study.make_jobs()
        write_text(noted, json.dumps(line) + "\n")

    with _unwritten_if_refused(study, [data.request_path, data.own_folder, noted]):
        _submit(study, batches, site, console, begin)
    say(console, "The data are prepared first; then the arrays are submitted. The same line shows how far it is.")
    return _waited(study, study.report, console, show) if wait else 0


def line_path(batch: Path) -> Path:
    """Where the line is noted that the job of this batch gives again."""
    return batch.with_suffix(".json")


# Scripts that are not submitted


def scripts_folder(study: StudyDir) -> Path:
    """A new folder in the study for scripts that somebody else has to submit."""
    number = 1 + len(list(study.jobs.glob("scripts-*")))
    return study.jobs / f"scripts-{number:04d}"


def write_scripts(study: StudyDir, config: StudyConfig, site: Site, folder: Path | None, console: Console) -> int:
    """Show a batch script of each stage, to the letter; or leave all of them in a folder, with what submits them.

    Returns:
        The exit code.

    Raises:
        UserError: the folder has files already.
    """
    try:
        queue, limits = _asked_of_slurm(study, site)
    except UserError as error:
        say(console, f"{error} Scripts are made as if nothing of the study were queued.")
        queue, limits = Queue({}, {}), Limits(DEFAULT_ARRAY_SIZE, UNLIMITED)
    batches, _ = arranged(study, config, site, queue, limits, Names(study))
    if folder is not None:
        require_empty(folder)
    else:
        for stage in dict.fromkeys(batch.stage for batch in batches):
            first, *others = [batch for batch in batches if batch.stage == stage]
            say(console, f"\n# {_in_words(first)}\n{script(study, first, site)}", is_copied=True)
            for other in others:
                say(console, f"# {_in_words(other)}: a script like it")
        say(console, "Dry run: nothing was written; --write FOLDER leaves all scripts there.")
        return 0
    create_study(study, config)
    write_batches(study, batches, site, folder)
    where = "" if own_image() is None else " on the host"
    line = f"sh {shlex.quote(str(folder.absolute() / 'submit.sh'))}"
    say(console, f"{len(batches)} batch scripts. Submit them{where} with: {line}", is_copied=True)
    return 0
