"""Judges what a machine reports: Python and packages, threads, encoding, TensorFlow and its GPUs, the data set."""

from __future__ import annotations

from collections.abc import Mapping

from vaehpc.checks.finding import Finding, right, unchecked, wrong
from vaehpc.command import gigabytes
from vaehpc.machine.served import unusable
from vaehpc.schema.data import LEAST_TRAINED
from vaehpc.schema.site import JobConfig
from vaehpc.study.packages import (
    ANALYSIS_EXTRAS,
    install_line,
    installed_versions,
    released,
    requirements,
    unmet_requirements,
)
from vaehpc.tasks.visit import DataReport, MachineReport, TensorflowReport, why_no_gpu

THREADS = "OMP_NUM_THREADS"


def python_findings(machine: MachineReport, lock: str, where: str) -> list[Finding]:
    """Python, its packages and its encoding.

    Args:
        machine: what was found.
        lock: the requirements that mend it, such as 'launcher'.
        where: 'here', or the node.
    """
    found = f"Python {machine.python}, vaehpc {machine.packages['vaehpc']}: {machine.executable}"
    if machine.image is not None:
        found += f", in the {machine.image.target} image {machine.image.digest}"
    findings = [right(f"Python {where}", found)]
    if machine.unmet:
        remedy = install_line(machine.executable, lock)
        findings.append(wrong(f"packages {where}", "; ".join(machine.unmet), remedy))
    else:
        findings.append(right(f"packages {where}", "all that vaehpc asks for"))
    if machine.encoding != "UTF-8":
        remedy = 'PYTHONUTF8 = "1" in [environment] of the site\'s file, or LC_ALL=C.UTF-8 here'
        findings.append(wrong(f"encoding {where}", machine.encoding, remedy))
    return findings


def analysis_findings(machine: MachineReport) -> list[Finding]:
    """What statistics and report need, where everything runs on one machine."""
    unmet = unmet_requirements(requirements(), installed_versions(), ANALYSIS_EXTRAS)
    if unmet:
        return [wrong("analysis here", "; ".join(unmet), install_line(machine.executable, "analysis"))]
    return [right("analysis here", "all that statistics and report ask for")]


def version_finding(here: MachineReport, there: MachineReport, in_image: bool = False) -> Finding:
    """Whether the launcher and the node run the same code, on the same minor version of Python.

    An image needs only the same version: nothing but files and command lines goes from one to the other.
    """
    name = f"versions on {there.host}"
    pairs = [
        ("vaehpc", here.packages["vaehpc"], there.packages["vaehpc"]),
        ("submitit", here.packages.get("submitit"), there.packages.get("submitit")),
        ("Python", _minor(here.python), _minor(there.python)),
    ]
    if in_image:
        pairs = [("vaehpc", released(here.packages["vaehpc"]), released(there.packages["vaehpc"]))]
    differing = [f"{what} {ours} here, {theirs} there" for what, ours, theirs in pairs if ours != theirs]
    if differing:
        remedy = "install the same version on both sides, or name the nodes' Python as 'python' in [slurm]"
        return wrong(name, "; ".join(differing), remedy)
    return right(name, f"{', '.join(what for what, _, _ in pairs)} as here")


def _minor(version: str) -> str:
    return ".".join(version.split(".")[:2])


def environment_finding(machine: MachineReport, wanted: Mapping[str, str], where: str) -> Finding:
    """Whether the site's environment variables reached a task."""
    name = f"environment {where}"
    lost = [
        f"{key} = {machine.environment.get(key, 'nothing')}"
        for key in wanted
        if machine.environment.get(key) != wanted[key]
    ]
    if lost:
        remedy = "what resets it there (a module, a container, a login script)? The site's [environment] says otherwise"
        return wrong(name, ", ".join(lost), remedy)
    return right(
        name, f"{len(wanted)} variables of the site, {THREADS} = {machine.environment.get(THREADS, 'not set')}"
    )


def tensorflow_findings(machine: MachineReport, gpus: int, where: str) -> list[Finding]:
    """Whether TensorFlow can be used, and sees the GPUs that a job asks for."""
    report = machine.tensorflow
    if report is None:
        return []
    if report.version is None:
        said = report.error or "it said nothing"
        lock = "train-gpu" if gpus else "train-cpu"
        remedy = install_line(machine.executable, lock)
        return [wrong(f"TensorFlow {where}", f"cannot be used: {said}", remedy)]
    name = f"TensorFlow {where}"
    if report.error is not None:
        remedy = "nothing can be trained there: look for the first line of this message in TensorFlow's issues"
        return [wrong(name, f"{report.version} cannot compute: {report.error}", remedy)]
    built_for = f" built for {report.built_for}" if report.built_for else ""
    findings = [right(name, f"{report.version}{built_for}, and a convolution is right")]
    if gpus:
        findings.append(gpu_finding(machine, report, gpus, f"GPU {where}"))
    return findings


def gpu_finding(machine: MachineReport, report: TensorflowReport, gpus: int, name: str) -> Finding:
    """Whether TensorFlow uses so many GPUs, of a kind and with a driver that the lock serves."""
    visible = machine.environment.get("CUDA_VISIBLE_DEVICES")
    given = f"CUDA_VISIBLE_DEVICES = {visible}" if visible is not None else "CUDA_VISIBLE_DEVICES is not set"
    driver = machine.nvidia_smi
    shown = "no nvidia-smi" if driver is None else f"nvidia-smi shows {'; '.join(driver) or 'no GPU'}"
    if machine.unserved is not None:
        found, _, remedy = machine.unserved.partition(": ")
        return wrong(name, found, remedy)
    if len(report.gpus) < gpus:
        found = f"TensorFlow sees {len(report.gpus)} of {gpus}; {given}; {shown}"
        cause, remedy = why_no_gpu(report, machine.packages, machine.executable, visible)
        return wrong(name, f"{found}; {cause}", remedy)
    for gpu, capability in zip(report.gpus, report.capabilities, strict=False):
        if (problem := unusable(gpu, capability, machine.driver)) is not None:
            found, _, remedy = problem.partition(": ")
            return wrong(name, f"{found}; {given}; {shown}", remedy)
    return right(name, f"{', '.join(report.gpus)}; {given}; {shown}")


def capacity_finding(machine: MachineReport, job: JobConfig) -> Finding:
    """Whether this machine, without a scheduler, has room for a training."""
    name, memory = "processors, memory", int(job.memory_gb * 2**30)
    found = f"{machine.processors} processors, {gigabytes(machine.memory_bytes)} of memory may be used"
    if machine.memory_bytes < memory / 4:
        remedy = "close what else runs, or train on another machine"
        return wrong(name, f"{found}; a training is declared with {job.memory_gb:g} GB", remedy)
    return right(name, found)


def local_gpu_finding(machine: MachineReport) -> Finding:
    """GPUs that TensorFlow uses here against those that this process is given; it may have none."""
    report = machine.tensorflow
    if report is None or report.version is None:
        return unchecked("GPU here", "TensorFlow cannot be asked", "mend TensorFlow first")
    if not machine.given_gpus and not report.gpus:
        return right("GPU here", "none: runs are trained on processors")
    return gpu_finding(machine, report, len(machine.given_gpus), "GPU here")


def data_finding(report: DataReport, job: JobConfig, where: str) -> Finding:
    """Whether a data set can be read, and how it is fed to a training with this memory."""
    name = f"data {where}"
    manifest = report.manifest
    if report.problem is not None or manifest is None:
        # A message about the manifest says itself what to do.
        remedy = "" if manifest is None else "delete the folder, and prepare the data again with the same settings"
        return wrong(name, report.problem or "", remedy)
    train = manifest.splits.get("train")
    if train is None or train.num_images < LEAST_TRAINED:
        return wrong(name, f"fewer than {LEAST_TRAINED} training images", "prepare it again with a larger --num-train")
    size = manifest.preprocessing.size
    num_bytes = train.num_images * size**2 * 3
    fits = num_bytes <= job.memory_gb * 2**30 / 2
    feeding = "stay in the page cache" if fits else "are read again in each epoch, being more than half"
    found = (
        f"{manifest.name}: {train.num_images:,} of {manifest.num_images:,} images train, {size} x {size},"
        f" {len(manifest.shards)} shards, the hash of {manifest.shards[0].file} is right;"
        f" {gigabytes(num_bytes)} of pixels {feeding} of a training's {job.memory_gb:g} GB"
    )
    return right(name, found)


def not_visited(where: str) -> list[Finding]:
    """What only a job can tell."""
    asked = "--probe submits a job of a minute that looks"
    return [unchecked(what, f"on {where}", asked) for what in ("Python, TensorFlow, GPU", "shared folder, data")]
