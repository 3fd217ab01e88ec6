"""The report's page while a study runs: where its runs are, their courses so far, what is missing and why.

It is written where the report will be, which takes its place when the study has ended. Counts and courses only: nothing
is tested before.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType

from vaehpc.command import UserError
from vaehpc.monitoring.states import Looks, StudyState, read_study
from vaehpc.schema.config import RunConfig, StudyConfig
from vaehpc.stats.course import ProbeCurve
from vaehpc.stats.judging import Judgement, judge
from vaehpc.stats.runs import FoundRun, MeasuredRun, MissingRun
from vaehpc.study.files import RunDir, StudyDir, is_there, read_words, write_text

logger = logging.getLogger(__name__)

PAUSE = 10.0
"""Seconds between two pages at least."""
LARGEST_SHARE = 0.05
"""Of the time, for pages: they are made by a process that has other things to do."""
PATIENCE = 0.8
MOST_JUDGED = 50_000
"""Probes that are searched for jumps; beyond, that takes longer than a page that is renewed may."""
LENGTH_OF_HEAD = 400
"""Characters of a page in which it says that it is renewed."""


class LivePage:
    """Renews the page as often as it may; leaves it, when the study is stopped, saying so."""

    def __init__(self, study: StudyDir, config: StudyConfig) -> None:
        self._study, self._config = study, config
        self._looks = Looks()
        self._known: dict[str, FoundRun] = {}
        self._first = _identity(study.report)
        self._next = 0.0
        self._has_written = False

    def renew(self, state: StudyState | None = None) -> None:
        """Write the page, if it is time. What fails is told once: a study does not end for want of a page."""
        begun = time.monotonic()
        if begun < self._next or self._is_final():
            return
        try:
            self.write(state, goes_on=True)
        except Exception as error:
            logger.warning("%s is not renewed: %s", self._study.report, error)
            self._next = float("inf")
            return
        ended = time.monotonic()
        self._next = ended + max(PAUSE, (ended - begun) / LARGEST_SHARE)

    def write(self, state: StudyState | None = None, goes_on: bool = False) -> None:
        """The page of this moment; `goes_on`: it will be renewed, and reloads itself."""
        # Imported here: what a page is made with may not be there, and a launcher does not wait for it.
        try:
            from vaehpc.monitoring.live_page import live_page
            from vaehpc.tasks.probe import read_curve
        except ImportError as error:
            raise UserError(f'this Python lacks {error.name}: pip install "vaehpc[analysis]"') from error

        state = state or read_study(self._study, PATIENCE, self._looks)
        runs = [self._found(run, read_curve) for run in self._config.runs()]
        pause = max(PAUSE, 1.0) if goes_on else None
        write_text(self._study.report, live_page(self._config, state, runs, self._judged(runs), pause))
        self._has_written = True

    def __enter__(self) -> LivePage:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._has_written and not self._is_final():
            self._next = float("inf")
            try:
                self.write()
            except Exception as failure:
                logger.warning("%s is not renewed: %s", self._study.report, failure)

    def _is_final(self) -> bool:
        """Whether a report was written since, by whatever clock."""
        page = self._study.report
        return _identity(page) not in (None, self._first) and not is_live(read_words(page))

    def _judged(self, runs: Sequence[FoundRun]) -> Judgement | None:
        num_probes = sum(len(run.probe.steps) for run in runs if run.probe is not None)
        return judge(self._config, runs, self._config.plan) if num_probes <= MOST_JUDGED else None

    def _found(self, run: RunConfig, read_curve: Callable[[RunDir], ProbeCurve]) -> FoundRun:
        if run.name in self._known:
            return self._known[run.name]
        directory = self._study.run(run.name)
        probe = read_curve(directory)
        if not is_there(directory.trained_path):
            return MissingRun(run, "train", None, probe)
        if not is_there(directory.statistics_path):
            return MissingRun(run, "statistics", None, probe)
        try:
            found = MeasuredRun(run, directory.trained(), directory.statistics(), [], probe)
        except UserError as damage:
            return MissingRun(run, "statistics", str(damage), probe)
        self._known[run.name] = found
        return found


def _identity(page: Path) -> tuple[int, int] | None:
    """Of a file that is there: another one whenever it is written."""
    return (found.st_ino, found.st_mtime_ns) if page.exists() and (found := page.stat()) else None


def is_live(page: str) -> bool:
    """Whether a page is one of these, and no report."""
    return 'name="live"' in page[:LENGTH_OF_HEAD]
