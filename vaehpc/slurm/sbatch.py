"""An array as Slurm is asked for it; the only module that knows submitit."""

from __future__ import annotations

import contextlib
import os
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import submitit

from vaehpc.schema.site import OWN_OPTIONS, SlurmConfig
from vaehpc.slurm.client import SlurmError, client
from vaehpc.study.provenance import own_image

KEPT_VARIABLES = ("HOME", "USER", "LOGNAME", "LANG", "TERM", "SLURM_CONF")
"""Of the environment inside an image, what a job submitted from there gets."""
HOST_PATH = "/usr/local/bin:/usr/bin:/bin:/usr/local/sbin:/usr/sbin:/sbin"


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


class SlurmArray(submitit.SlurmExecutor):  # type: ignore[misc]
    """submitit's executor; its script can be read before anything is submitted, and where there is no Slurm."""

    def __init__(self, array: Array, slurm: SlurmConfig) -> None:
        super().__init__(array.folder, python=array.python)
        self.asked = array
        self.update_parameters(**_parameters(array, slurm))
        if array.num_elements > 1:
            self.parameters["map_count"] = array.num_elements

    @classmethod
    def affinity(cls) -> int:
        """submitit asks for a client of Slurm when the executor is made; scripts are written without."""
        return 2

    def script(self, dependency: str | None = None) -> str:
        """The batch script, to the letter, of an array that waits for these jobs."""
        self.update_parameters(dependency=dependency)
        text: str = self._make_submission_file_text(self._submitit_command_str, "")
        return text

    def submitted(self, dependency: str | None = None) -> str:
        """Submit the array, to wait for these jobs; Slurm's number of it.

        Raises:
            SlurmError: Slurm refused; nothing is queued.
        """
        self.update_parameters(dependency=dependency)
        try:
            with _as_from_a_shell():
                job = self._submit_command(self._submitit_command_str)
        except (submitit.core.utils.FailedJobError, submitit.core.utils.FailedSubmissionError) as error:
            raise SlurmError(str(error)) from error
        number: str = job.job_id
        return number

    def require_accepted(self) -> None:
        """SlurmError if Slurm would refuse the array."""
        with _as_from_a_shell():
            client("sbatch", "--test-only", stdin=self.script())

    @property
    def _submitit_command_str(self) -> str:
        """What the script runs. No pickles: a launcher killed between sbatch and their renaming would leave none."""
        entry_point, at_once = self.asked.entry_point, self.asked.tasks_at_once
        code = f"import sys; from vaehpc.local.pool import run_pack; run_pack({entry_point!r}, {at_once}, sys.argv[1:])"
        return f"{self.python} -u -c {shlex.quote(code)} {self.asked.arguments}"


@contextlib.contextmanager
def _as_from_a_shell() -> Iterator[None]:
    """Without what a job leaves to those that it submits, and what would win over the script's own lines.

    What an image and its runtime set means nothing on a node, where the script runs outside of images. Nobody else may
    write to the script, nor to what its job writes.
    """
    before, umask = dict(os.environ), os.umask(0o022)
    os.umask(umask | 0o022)
    for name in before:
        kind, _, option = name.partition("_")
        if (
            (kind == "SLURM" and name != "SLURM_CONF")
            or (kind == "SBATCH" and option.lower().replace("_", "-") in OWN_OPTIONS)
            or (own_image() is not None and name not in KEPT_VARIABLES)
        ):
            del os.environ[name]
    if own_image() is not None:
        os.environ["PATH"] = HOST_PATH
    try:
        yield
    finally:
        os.umask(umask)
        os.environ.clear()
        os.environ.update(before)


def _parameters(array: Array, slurm: SlurmConfig) -> dict[str, Any]:
    """submitit's parameters of an array. None is not said to Slurm."""
    options = dict(option.removeprefix("--").partition("=")[::2] for option in slurm.options)
    gpus = f"{slurm.gpu_type}:{array.gpus}" if slurm.gpu_type else str(array.gpus)
    if array.gpus and slurm.gpu_request == "gpus":
        options["gpus-per-node"] = gpus
    if len(array.numbers) < array.num_elements:
        options["array"] = f"{','.join(map(str, array.numbers))}%{slurm.at_once}"
    if array.kill_on_invalid_dependency:
        options["kill-on-invalid-dep"] = "yes"
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
        "mem": f"{round(1024 * array.memory_gb)}M",
        "gres": f"gpu:{gpus}" if array.gpus and slurm.gpu_request == "gres" else None,
        "time": array.minutes,
        "array_parallelism": slurm.at_once,
        "setup": list(array.setup),
        "teardown": list(array.teardown),
        "srun_args": list(array.srun_options),
        # To the batch shell alone: what runs in the container is asked by a file.
        "additional_parameters": {"requeue": True, "signal": f"B:USR2@{slurm.warn_seconds}"}
        | {key: value or True for key, value in options.items()},
    }
