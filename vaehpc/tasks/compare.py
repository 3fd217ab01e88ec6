"""Read several finished studies, and write the page that sets them beside each other."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from vaehpc.command import UserError
from vaehpc.reporting.comparison_page import Compared, comparison_page
from vaehpc.reporting.document import limits_of, run_course
from vaehpc.study.files import StudyDir, is_there, write_text
from vaehpc.tasks.probe import read_curve

PAGE = "comparison.html"


def compare(studies: Sequence[StudyDir]) -> Path:
    """Write the page into the first study's directory; returns its path.

    Raises:
        UserError: a study has no report yet, is a replay, or is given twice.
    """
    folder = studies[0].path
    for at, study in enumerate(studies):
        if not is_there(study.summary_path):
            raise UserError(f"{study.path} has no report yet: `vaehpc report {study.path}` makes it")
        if any(study.path.samefile(other.path) for other in studies[:at]):
            raise UserError(f"{study.path} is given twice: give different studies")
    write_text(folder / PAGE, comparison_page([read(study, folder) for study in studies]))
    return folder / PAGE


def read(study: StudyDir, folder: Path) -> Compared:
    """What the page needs of a study."""
    config, summary = study.config(), study.summary()
    if config.replay is not None:
        raise UserError(f"{study.path} is a replay of {config.replay.source}: its page is {study.replay_html}")
    runs = [run for run in config.runs() if run.name in summary.runs]
    return Compared(
        where=os.path.relpath(study.path, folder),
        folder=study.path.name,
        config=config,
        summary=summary,
        courses=[run_course(run.name, summary.runs[run.name], read_curve(study.run(run.name))) for run in runs],
        limits=limits_of(config, summary),
        trained={
            arm: [
                study.run(run.name).trained()
                for run in runs
                if run.arm.name == arm and summary.runs[run.name].run_class is not None
            ]
            for arm in config.arms
        },
    )
