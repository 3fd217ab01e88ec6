"""An array as Slurm is asked for it; the only module that knows submitit, whose maker of batch scripts it uses."""

from __future__ import annotations

import math
import os
import shlex
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from submitit.slurm.slurm import _make_sbatch_string

from vaehpc.schema.site import SlurmConfig
from vaehpc.slurm.client import SlurmError, client, plain_environment
from vaehpc.study.files import write_text
from vaehpc.study.provenance import own_image

KEPT_VARIABLES = ("HOME", "USER", "LOGNAME", "LANG", "TERM", "SLURM_CONF")
"""Of the environment inside an image, what a job submitted from there gets."""
HOST_PATH = "/usr/local/bin:/usr/bin:/bin:/usr/local/sbin:/usr/sbin:/sbin"
SUBMIT_SECONDS = 50.0
"""A busy controller is asked again by sbatch itself; within arrays.SUBMITTING_SECONDS."""
OF_SHELLS = ("BASH_ENV", "ENV")
"""What they name would be run at the start of the batch script, ahead of its first line."""


@dataclass(frozen=True)
class Array:
    """An array as Slurm is asked for it. One with a single element becomes a plain job."""

    name: str
    folder: Path
    """For the script and its logs."""
    num_elements: int
    numbers: tuple[int, ...]
    """Of its elements, those that are submitted."""
    entry_point: str
    arguments: str
    """The directories of an element's tasks, as the batch script's shell finds them."""
    tasks_at_once: int
    """Of one element."""
    cpus: int
    gpus: int
    memory_gb: float
    minutes: int
    partition: str | None
    setup: tuple[str, ...]
    teardown: tuple[str, ...]
    """Lines of the batch script before and after its tasks; they run outside of any container."""
    python: str
    """What starts Python on a node, as the batch script's shell reads it."""
    srun_options: tuple[str, ...] = ()
    kill_on_invalid_dependency: bool = False
    opens_its_logs: bool = True
    """Whether its setup does. Slurm ends an element where it cannot, as 0:53 and without a word."""


@dataclass(frozen=True)
class SlurmArray:
    """An array whose script can be read before anything is submitted, and where there is no Slurm."""

    asked: Array
    slurm: SlurmConfig
    """As it is for the stage."""

    def script(self, dependency: str | None = None) -> str:
        """The batch script, to the letter, of an array that waits for these jobs.

        Raises:
            SlurmError: submitit made one that would not run the suite's tasks.
        """
        parameters = _parameters(self.asked, self.slurm) | {"dependency": dependency}
        text: str = _make_sbatch_string(self._command, self.asked.folder, **parameters)
        if not any(line.startswith("srun ") and line.endswith(self._command) for line in text.splitlines()):
            raise SlurmError(f"submitit {version('submitit')} makes a script without the suite's own command")
        return text

    def submitted(self, dependency: str | None = None) -> str:
        """Submit the array, to wait for these jobs; Slurm's number of it.

        Raises:
            SlurmError: Slurm refused; nothing is queued.
        """
        path, environment = self.asked.folder / "script.sh", submission_environment()
        before = os.umask(0o022)
        os.umask(before | 0o022)  # nobody else may write to the script, nor to what its job writes
        try:
            write_text(path, self.script(dependency))
            said = client("sbatch", "--parsable", str(path), seconds=SUBMIT_SECONDS, environment=environment).strip()
        finally:
            os.umask(before)
        job = said.rpartition("\n")[2].partition(";")[0]  # a site's plugin may greet first; 'job;cluster'
        if not job.isdigit():
            raise SlurmError(f"sbatch gave no number: {said}")
        return job

    def require_accepted(self) -> None:
        """SlurmError if Slurm would refuse the array."""
        client("sbatch", "--test-only", stdin=self.script(), environment=submission_environment())

    @property
    def _command(self) -> str:
        """What the script runs. No pickles: a launcher killed between sbatch and their renaming would leave none."""
        asked = self.asked
        how = f"{asked.entry_point!r}, {asked.tasks_at_once}, sys.argv[1:], {asked.gpus}"
        code = f"import sys; from vaehpc.local.pool import run_pack; run_pack({how})"
        return f"{self.asked.python} -u -c {shlex.quote(code)} {self.asked.arguments}"


def submission_environment() -> dict[str, str]:
    """What sbatch is given, and hands on to the job.

    What an image and its runtime set means nothing on a node, where the script runs outside of images.
    """
    environment = {name: value for name, value in plain_environment().items() if name not in OF_SHELLS}
    if own_image() is None:
        return environment
    return {name: value for name, value in environment.items() if name in KEPT_VARIABLES} | {"PATH": HOST_PATH}


def _parameters(array: Array, slurm: SlurmConfig) -> dict[str, Any]:
    """submitit's parameters of an array. None is not said to Slurm."""
    options = dict(option.removeprefix("--").partition("=")[::2] for option in slurm.options or ())
    gpus = f"{slurm.gpu_type}:{array.gpus}" if slurm.gpu_type else str(array.gpus)
    gres = [f"gpu:{gpus}"] if array.gpus and slurm.gpu_request == "gres" else []
    if "gres" in options:
        gres.append(options.pop("gres"))
    if array.gpus and slurm.gpu_request == "gpus":
        options["gpus-per-node"] = gpus
    if len(array.numbers) < array.num_elements:
        options["array"] = f"{','.join(map(str, array.numbers))}%{slurm.at_once}"
    if array.kill_on_invalid_dependency:
        options["kill-on-invalid-dep"] = "yes"
    if array.opens_its_logs:
        options |= {"output": "/dev/null", "error": "/dev/null"}
    if slurm.reservation is not None:
        options["reservation"] = slurm.reservation
    mebibytes = 1024 * array.memory_gb
    return {
        "job_name": array.name,
        "partition": array.partition,
        "account": slurm.account,
        "qos": slurm.qos,
        "constraint": slurm.constraint,
        "exclude": slurm.exclude,
        "mail_user": slurm.mail_user,
        "mail_type": slurm.mail_type,
        "comment": str(array.folder),
        "wckey": None,
        "ntasks_per_node": 1,
        "cpus_per_task": array.cpus,
        "mem": f"{round(mebibytes)}M" if slurm.memory == "per-node" else None,
        "mem_per_cpu": f"{math.ceil(mebibytes / array.cpus)}M" if slurm.memory == "per-cpu" else None,
        "gres": ",".join(gres) or None,
        "time": array.minutes,
        "array_parallelism": slurm.at_once,
        "map_count": array.num_elements if array.num_elements > 1 else None,
        "setup": list(array.setup),
        "teardown": list(array.teardown),
        "srun_args": [*array.srun_options, *slurm.srun_options],
        # To the batch shell alone: what runs in the container is asked by a file.
        "additional_parameters": {"requeue": True, "signal": f"B:USR2@{slurm.warn_seconds}"}
        | {key: value or True for key, value in options.items()},
    }
