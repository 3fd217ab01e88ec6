"""`python -m vaehpc.health`: what is in this image, or this Python: packages, TensorFlow, CUDA's libraries, GPUs."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import tyro
from rich.console import Console

from vaehpc.checks import machine
from vaehpc.command import exit_code
from vaehpc.doctor import show
from vaehpc.study.provenance import own_image
from vaehpc.tasks.probe import ANALYSIS_EXTRAS, TRAIN_EXTRAS, machine_report


@dataclass(frozen=True)
class Health:
    """Say what this Python has: packages, TensorFlow and the CUDA it was built for, GPUs; in an image also which it is.

    Exit codes: 0 nothing is wrong, 3 something is wrong.
    """

    json: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """For a launcher: as one line of JSON, without starting TensorFlow."""
    extras: tuple[str, ...] = ()
    """Optional parts of the package of which one must be there. Default: those of the image."""


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of the command."""

    def work() -> int:
        asked = tyro.cli(Health, args=argv, prog="vaehpc health")
        image = own_image()
        target = "train" if image is None else image.target
        extras = asked.extras or (TRAIN_EXTRAS if target == "train" else ANALYSIS_EXTRAS)
        report = machine_report(extras, (), tensorflow=target == "train" and not asked.json)
        if asked.json:
            print(report.model_dump_json())
            return 0
        lock = "train-gpu" if report.nvidia_smi else "train-cpu"
        findings = machine.python_findings(report, lock if target == "train" else "analysis", "here")
        if target == "train":
            findings += [*machine.tensorflow_findings(report, 0, "here"), machine.local_gpu_finding(report)]
        show(findings, Console())
        return 3 if any(finding.ok is False for finding in findings) else 0

    return exit_code(work, "interrupted")


if __name__ == "__main__":
    sys.exit(main())
