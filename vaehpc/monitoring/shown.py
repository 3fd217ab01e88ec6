"""What a study found, in words on a terminal."""

from __future__ import annotations

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
    return 3 if missing else 0


def _print_rates(summary: StudySummary, console: Console) -> None:
    columns = ("arm", "diverged", "jumped", "NaN", "of ended", "rate diverged", "interval", "missing")
    table = Table(*columns, title=f"Study {summary.study}")
    for name, arm in summary.arms.items():
        ended = arm.num_runs - arm.num_missing
        rate = arm.unjudged or "" if arm.rate is None else f"{arm.rate:.1%}"
        interval = "" if arm.low is None else f"{arm.low:.1%} to {arm.high:.1%}"
        counts = map(str, (arm.num_diverged, arm.num_jumped, arm.num_nonfinite, ended))
        table.add_row(name, *counts, rate, interval, str(arm.num_missing))
    console.print(table)
    if summary.provisional:
        console.print("Classes are provisional: an arm has fewer control runs than the plan asks for.")


def _print_failure(name: str, run: RunSummary, console: Console) -> None:
    say(console, f"MISSING {name}: no result of {run.missing_stage}; the end of its log:")
    for line in (run.last_words or "(no log)").splitlines()[-LAST_LINES:]:
        say(console, f"  {line}")
