"""`python -m vaehpc.report STUDY`: the statistics that trained runs lack, then the study summed up anew; or several
studies beside each other.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro
from rich.console import Console

from vaehpc.command import UserError, asked_by, exit_code, say
from vaehpc.local.stages import INTERRUPTED, claim, end_study, require_only_launcher, run_stage
from vaehpc.monitoring.shown import print_results, show_results
from vaehpc.study.packages import require_installed
from vaehpc.study.study import found_study


@dataclass(frozen=True)
class Arguments:
    """Compute the statistics that trained runs lack, on this machine, and write the report of what there is now.

    May run at any time, also beside trainings in a queue; nothing is trained. With several studies, write one page that
    sets their finished reports beside each other, and nothing else. Exit codes: 0 done, 2 asked wrongly,
    3 runs are missing, 130 interrupted.
    """

    study: Annotated[Path, tyro.conf.Positional]
    """The study's folder, or its name under 'runs'."""
    others: Annotated[tuple[Path, ...], tyro.conf.Positional] = ()
    """Studies that are to be compared with it."""
    executor: Literal["local", "debug"] = "local"
    """local: processes on this machine, as many as processors; debug: in this process, up to the first that raises.
    Python's debugger there, --pdb, is `vaehpc launch`'s alone: the line that launched the study takes it."""
    json: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """What was found as JSON: the arms, the missing runs, the report's path."""


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of the command."""

    def work() -> int:
        asked = asked_by(Arguments, argv, "vaehpc report")
        return report(asked, Console(stderr=asked.json))

    return exit_code(work, INTERRUPTED)


def report(asked: Arguments, console: Console) -> int:
    """Measure what is trained, sum up.

    Returns:
        The exit code.

    Raises:
        UserError: there is no such study, it is a replay, or another process of this machine runs it.
    """
    require_installed("analysis")
    study = found_study(asked.study)
    if asked.others:
        if asked.json:
            raise UserError("--json tells of one study; of several there is a page")
        # Imported here: a report of one study is made by a task of its own.
        from vaehpc.tasks.compare import compare

        say(console, f"Comparison: {compare([study, *map(found_study, asked.others)])}")
        return 0
    config = study.config()
    if config.replay is not None:
        raise UserError(
            f"{study.path} is a replay of {config.replay.source}: its result is {study.replay_page}. The line of"
            " `vaehpc replay` that began it, given again, goes on with it."
        )
    require_only_launcher(study)
    claim(study)
    run_stage("statistics", study, config, asked.executor, console)
    return end_study(study, asked.executor, console, print_results if asked.json else show_results)


if __name__ == "__main__":
    sys.exit(main())
