"""`python -m vaehpc.doctor --site FILE --probe`: is all there that a study needs, and if not, what would mend it?"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated

import tyro
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from vaehpc.checks import cluster, machine, proof, storage, visiting
from vaehpc.checks.finding import Finding, right, unchecked, wrong
from vaehpc.checks.image import image_findings
from vaehpc.checks.node import Node
from vaehpc.command import UserError, asked_by, exit_code, say
from vaehpc.schema.results import DeviceKind
from vaehpc.schema.site import JobConfig, SiteConfig
from vaehpc.slurm.arrays import Batch, array
from vaehpc.slurm.choice import slurm_or_local
from vaehpc.slurm.client import SlurmError, associations, client, configuration, of_account, submit_limit
from vaehpc.slurm.sbatch import SlurmArray
from vaehpc.study.files import StudyDir, declaration, write_text
from vaehpc.study.packages import ANALYSIS_EXTRAS, TRAIN_EXTRAS
from vaehpc.study.provenance import own_image
from vaehpc.study.sites import Site, built_in_site, job_config, read_site, resolved
from vaehpc.tasks.visit import MachineReport, data_report, machine_report

INTERRUPTED = "interrupted; what was submitted was cancelled, and nothing stays behind"
STAGES = ("prepare", "train", "statistics", "aggregate")
WORDS = {True: "ok", False: "WRONG", None: "not checked"}
STYLES = {True: "", False: "bold red", None: "yellow"}


@dataclass(frozen=True)
class Doctor:
    """Check what a study needs: the site, Slurm, the folder of the studies, Python, TensorFlow, GPUs, the data.

    Nothing stays behind. Exit codes: 0 nothing is wrong, 2 asked wrongly, 3 something is wrong, 130 interrupted.
    """

    site: Path | None = None
    """The site's file, such as jobs/sites/slurm.toml. Default: Slurm where it is set up, else this machine."""
    data: Path | None = field(default_factory=lambda: _data_of_environment())
    """Prepared data set (also $VAEHPC_DATA)."""
    out: Path = Path("runs")
    """Folder of the studies."""
    probe: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """With Slurm: submit two jobs of a minute that look around, where runs are trained and where they are measured."""
    minutes: float = 10.0
    """How long to wait for them."""
    here: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Look at this Python, or this image, alone: packages, TensorFlow and the CUDA it was built for, GPUs."""
    json: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """The findings as JSON; with --here, for a launcher, what there is in one line, without starting TensorFlow."""
    template: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Print a site's file to be filled in, jobs/sites/slurm.toml, and look at nothing."""
    extras: tuple[str, ...] = ()
    """With --here: optional parts of the package of which one must be there. Default: those of the image."""
    gpu: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """On a GPU node: prove that trainings on it are right and fast. Has options of its own: doctor --gpu --help."""


@dataclass(frozen=True)
class GpuDoctor:
    """Prove on a GPU node, in 13 points and some ten minutes, that trainings on it are right and fast.

    Nothing stays behind. Exit codes: 0 nothing is wrong, 2 asked wrongly, 3 something is wrong, 130 interrupted.
    """

    gpu: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """What this is."""
    json: Path | None = None
    """File that is to hold all numbers."""
    only: str | None = None
    """Numbers of points, with commas between them: 4,8."""
    device: DeviceKind = "gpu"
    """'cpu': the same by the processor with a small net; what takes a GPU is left out. To try it."""


def _data_of_environment() -> Path | None:
    return Path(os.environ["VAEHPC_DATA"]) if os.environ.get("VAEHPC_DATA") else None


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of the command."""

    def work() -> int:
        if "--gpu" in (sys.argv[1:] if argv is None else argv):
            return prove(asked_by(GpuDoctor, argv, "vaehpc doctor"))
        asked = asked_by(Doctor, argv, "vaehpc doctor")
        if asked.template:
            print(declaration("jobs/sites/slurm.toml"), end="")
            return 0
        if not 0 < asked.minutes <= 1440:
            raise UserError(f"--minutes {asked.minutes:g}: how long to wait for the visits; up to 1440")
        if asked.here and asked != Doctor(here=True, json=asked.json, extras=asked.extras):
            raise UserError(
                "--here looks at this Python, or this image, alone, and takes only --json and --extras: leave it out to"
                " have a site, Slurm, a folder or data checked"
            )
        if not asked.here and asked.extras:
            raise UserError("--extras goes with --here: what this Python, or this image, has")
        if asked.json and asked.here:
            print(_report(asked).model_dump_json())
            return 0
        console = Console(stderr=asked.json)
        findings = _of_here(asked, console)[1] if asked.here else examine(asked, console)
        if asked.json:
            print(json.dumps([asdict(finding) for finding in findings], indent=2))
        else:
            show(findings, console)
        return 3 if any(finding.ok is False for finding in findings) else 0

    return exit_code(work, INTERRUPTED)


def prove(asked: GpuDoctor) -> int:
    """Each point in a line as soon as it is known; exit code 3 if one of them is wrong."""
    numbers, console, begun = proof.asked_points(asked.only), Console(), time.monotonic()
    points = list[proof.Point]()
    with tempfile.TemporaryDirectory(prefix="vaehpc-proof-") as folder:
        for point in proof.proven(Node(asked.device, Path(folder)), numbers):
            points.append(point)
            word = {**WORDS, None: "left out"}[point.ok]
            say(console, f"{word:8}  {point.number:2} {point.name}: {point.said} ({point.seconds:.0f} s)")
    if asked.json is not None:
        write_text(asked.json, proof.as_json(asked.device, points))
    wrong = [f"{point.number} {point.name}" for point in points if point.ok is False]
    left_out = sum(point.ok is None for point in points)
    what = f"{len(wrong)} wrong ({', '.join(wrong)})" if wrong else "Nothing wrong"
    took = time.monotonic() - begun
    say(console, f"{what}, {left_out} left out, in whole or in part, of {len(points)}, after {took:.0f} s.")
    return 3 if wrong else 0


def examine(asked: Doctor, console: Console) -> list[Finding]:
    """All checks, in the order in which they are shown."""
    chosen, of_site = _site(asked.site)
    site = None if chosen is None else resolved(chosen, asked.out, asked.data)
    train = job_config("train") if site is None else site.jobs["train"]
    findings = [of_site]
    if chosen is not None and chosen.executor == "local":
        cluster_site = None
        here, of_here = _of_here(asked, console)
        analysis = [] if here.image else machine.analysis_findings(here)  # each image has its own part of the package
        findings += [*of_here, *analysis, machine.capacity_finding(here, train)]
    else:
        cluster_site = site
        with _shown("Python", console):
            here = machine_report((), (), tensorflow=False)
        findings += machine.python_findings(here, "launcher", "here")
    if cluster_site is not None:
        with _shown("Images", console):
            findings += image_findings(cluster_site)
        with _shown("Slurm", console):
            findings += _slurm(cluster_site, asked.out)
    findings.append(_data(asked.data, train))
    of_checkpoints = storage.checkpoints_finding(asked.out, None if chosen is None else chosen.purge_days)
    findings += [of_checkpoints] if of_checkpoints else []
    try:
        with storage.scratch_folder(asked.out) as scratch:
            findings += storage.folder_findings(scratch)
            if cluster_site is not None and asked.probe:
                findings += _visited(scratch, cluster_site, asked, here, findings, console)
            elif cluster_site is not None:
                findings.append(storage.shared_finding(scratch.parent, Path("/proc/mounts").read_text()))
                findings += machine.not_visited("the nodes")
    except OSError as error:
        findings.append(storage.unwritable(asked.out, error))
    return findings


def _site(path: Path | None) -> tuple[SiteConfig | None, Finding]:
    if path is None:
        try:
            name, why = slurm_or_local()
        except SlurmError:  # of which the checks of Slurm tell more
            name, why = "slurm", "sbatch is on this machine"
        return built_in_site(name), right("site", f"none is given; jobs/sites/{name}.toml, for {why}")
    try:
        site = read_site(path)
    except UserError as error:
        return None, wrong("site", str(error), "mend the file; Slurm and TensorFlow were left out")
    return site, right("site", f"{path}: {site.executor}; it sets {', '.join(sorted(site.model_fields_set))}")


def _trains() -> bool:
    """Whether this Python is one that trains: outside of images it is."""
    image = own_image()
    return image is None or image.target == "train"


def _report(asked: Doctor) -> MachineReport:
    extras = asked.extras or (TRAIN_EXTRAS if _trains() else ANALYSIS_EXTRAS)
    is_asked = _trains() and not (asked.here and asked.json)
    return machine_report(extras, ("CUDA_VISIBLE_DEVICES",), tensorflow=is_asked)


def _of_here(asked: Doctor, console: Console) -> tuple[MachineReport, list[Finding]]:
    """What this Python, or this image, has, and what is found of it."""
    with _shown("Python and TensorFlow" if _trains() else "Python", console):
        here = _report(asked)
    if not _trains():
        return here, machine.python_findings(here, "analysis", "here")
    lock = "train-gpu" if here.given_gpus else "train-cpu"
    of_tensorflow = [*machine.tensorflow_findings(here, 0, "here"), machine.local_gpu_finding(here)]
    return here, [*machine.python_findings(here, lock, "here"), *of_tensorflow]


def _data(data: Path | None, train: JobConfig) -> Finding:
    if data is None:
        return unchecked("data", "none are given", "--data DIR, or $VAEHPC_DATA; a demo draws its own faces")
    return machine.data_finding(data_report(data), train, "here")


# Slurm


def _slurm(site: Site, out: Path) -> list[Finding]:
    """What Slurm's client says without a job."""
    try:
        version, ping = client("sinfo", "--version"), client("scontrol", "ping")
        settings = configuration()
        partitions = cluster.partitions_of(client(*cluster.NODES))
    except SlurmError as error:
        return [cluster.client_missing(str(error)), *cluster.skipped("Slurm does not answer")]
    findings = [cluster.client_finding(version, ping, settings)]
    asked = {"gpu_partition": site.slurm.gpu_partition, "cpu_partition": site.slurm.cpu_partition}
    asked |= {f"partition of {stage}": own.partition for stage, own in site.own.items() if own.partition}
    findings += [cluster.partition_finding(setting, name, partitions) for setting, name in asked.items()]
    study = StudyDir(out / "doctor")  # which does not exist: what is asked of Slurm only carries its name
    arrays = {stage: array(study, _batch(stage, study, site), site) for stage in STAGES}
    for stage, made in arrays.items():
        found = cluster.resources_finding(stage, made.asked, partitions, made.slurm)
        findings += [found] if found else []
    findings.append(cluster.array_finding(settings))
    findings += _accounting(site, settings)
    return findings + [_tested(stage, arrays[stage]) for stage in visiting.VISITED]


def _batch(stage: str, study: StudyDir, site: Site) -> Batch:
    """An array of two elements as a launch would submit it."""
    size = site.tasks_at_once(stage)
    runs = [study.path / f"run-{number}" for number in range(2 * size)]
    return Batch(f"{stage}-0001", stage, (tuple(runs[:size]), tuple(runs[size:])))


def _accounting(site: Site, settings: Mapping[str, str]) -> list[Finding]:
    if not cluster.accounting_is_on(settings):
        return [cluster.NO_ACCOUNTING]
    findings = [right("accounting", "on, and answers")]
    try:
        found = associations()
        for slurm in {(slurm.account, slurm.qos): slurm for slurm in map(site.slurm_of, STAGES)}.values():
            limit = submit_limit(of_account(found, slurm.account), slurm.qos)
            findings += cluster.account_findings(slurm, found, limit, settings)
    except SlurmError as error:
        return [cluster.accounting_is_silent(str(error))]
    return list(dict.fromkeys(findings))


def _tested(stage: str, made: SlurmArray) -> Finding:
    """Whether Slurm would take a real array of this stage."""
    try:
        made.require_accepted()
    except SlurmError as error:
        return cluster.refused_finding(stage, str(error))
    return right(f"sbatch of {stage}", "sbatch --test-only takes its script")


def _visited(
    scratch: Path, site: Site, asked: Doctor, here: MachineReport, before: Sequence[Finding], console: Console
) -> list[Finding]:
    if any(finding.name == "Slurm" and finding.ok is False for finding in before):
        return [unchecked("visit", "nothing can be submitted")]
    with _shown("Visits", console) as say_state:
        return visiting.visit_findings(scratch, site, asked.data, here, asked.minutes, say_state)


# Showing


@contextmanager
def _shown(what: str, console: Console) -> Iterator[Callable[[str], None]]:
    """Say what is going on: one line that changes in a terminal, elsewhere a line for each change."""
    said = ""
    started = time.monotonic()

    def plain(state: str) -> None:
        nonlocal said
        if state != said:
            say(console, f"{what}: {state}")
            said = state

    if not console.is_terminal:
        yield plain
        return
    with console.status(f"{what} ...") as status:
        yield lambda state: status.update(f"{what}: {escape(state)}, {time.monotonic() - started:.0f} s")


def show(findings: Sequence[Finding], console: Console) -> None:
    """A table in a terminal, a line for each finding elsewhere, and how many are wrong."""
    if console.is_terminal:
        table = Table("", "check", "found", box=None, padding=(0, 1), pad_edge=False)
        for finding in findings:
            found = finding.found + (f"\n-> {finding.remedy}" if finding.remedy else "")
            # As Text: '[slurm]' is no markup.
            cells = [Text(cell) for cell in (WORDS[finding.ok], finding.name, found)]
            table.add_row(*cells, style=STYLES[finding.ok])
        console.print(table)
    else:
        for finding in findings:
            remedy = f" -> {finding.remedy}" if finding.remedy else ""
            say(console, f"{WORDS[finding.ok]:11}  {finding.name}: {finding.found}{remedy}")
    names = [finding.name for finding in findings if finding.ok is False]
    num_unchecked = sum(finding.ok is None for finding in findings)
    what = f"{len(names)} wrong ({', '.join(names)})" if names else "Nothing wrong"
    say(console, f"{what}, {num_unchecked} not checked, of {len(findings)}.")


if __name__ == "__main__":
    sys.exit(main())
