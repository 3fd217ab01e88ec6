"""What a study found, in words on a terminal."""

from __future__ import annotations

import json
import shlex
import shutil
import sys
from pathlib import Path

from rich.console import Console
from rich.table import Table

from vaehpc.command import say
from vaehpc.schema.results import RunSummary, StudySummary
from vaehpc.study.attempts import LAST_LINES
from vaehpc.study.files import StudyDir


def show_results(study: StudyDir, console: Console) -> int:
    """Say what a study found, where the report is, and which runs are missing; the exit code.

    Raises:
        UserError: the study has no summary.
    """
    summary = study.summary()
    _print_rates(summary, console)
    missing = [name for name, run in summary.runs.items() if run.missing_stage is not None]
    for name in missing:
        _print_failure(name, summary.runs[name], console)
    say(console, f"Report: {study.report}")
    say(console, f"Next: {next_line(study, summary)}", is_copied=True)
    return 3 if missing else 0


def next_line(study: StudyDir, summary: StudySummary) -> str:
    """What to type after a study has ended: why runs are missing, what one did that left, or what more seeds show."""
    path = study.path.relative_to(Path.cwd()) if study.path.is_relative_to(Path.cwd()) else study.path
    left = [
        name for name, run in summary.runs.items() if run.run_class in ("diverged", "nonfinite") or run.ever_diverged
    ]
    if any(run.missing_stage is not None for run in summary.runs.values()):
        words = ["vaehpc.status", str(path), "--failures"]
    elif left:
        words = ["vaehpc.explain", str(path), "--run", left[0]]
    else:
        words = ["vaehpc.plan", "--study", str(path)]
    return shlex.join([_python(), "-m", *words])


def _python() -> str:
    """This Python as the shell finds it."""
    own = Path(sys.executable)
    if (found := shutil.which("python")) is not None and Path(found).parent == own.parent:
        return "python"
    return str(own.relative_to(Path.cwd()) if own.is_relative_to(Path.cwd()) else own)


def print_results(study: StudyDir, _: Console) -> int:
    """The same as JSON on the standard output; the exit code.

    Raises:
        UserError: the study has no summary.
    """
    summary = study.summary()
    missing = [name for name, run in summary.runs.items() if run.missing_stage is not None]
    arms = {name: arm.model_dump(mode="json") for name, arm in summary.arms.items()}
    found = {"study": str(study.path), "provisional": summary.provisional, "arms": arms, "missing": missing}
    print(json.dumps(found | {"report": str(study.report), "summary": str(study.summary_path)}, indent=2))
    return 3 if missing else 0


def _print_rates(summary: StudySummary, console: Console) -> None:
    columns = ("arm", "diverged", "jumped", "NaN", "of ended", "diverged or NaN", "interval", "missing")
    table = Table(*columns, title=f"Study {summary.study}")
    for name, arm in summary.arms.items():
        ended = arm.num_runs - arm.num_missing
        share = arm.endpoints.get("diverged or nonfinite")
        rate = arm.unjudged or "" if share is None else f"{share.rate:.1%}"
        interval = "" if share is None else f"{share.interval.low:.1%} to {share.interval.high:.1%}"
        counts = map(str, (arm.num_diverged, arm.num_jumped, arm.num_nonfinite, ended))
        table.add_row(name, *counts, rate, interval, str(arm.num_missing))
    console.print(table)
    if summary.provisional:
        console.print("Classes are provisional: an arm has fewer control runs than the plan asks for.")


def _print_failure(name: str, run: RunSummary, console: Console) -> None:
    say(console, f"MISSING {name}: no result of {run.missing_stage}; the end of its log:")
    for line in (run.last_words or "(no log)").splitlines()[-LAST_LINES:]:
        say(console, f"  {line}")
