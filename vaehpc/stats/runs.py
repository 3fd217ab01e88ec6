"""A run as the study's summary finds it: measured, or missing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from vaehpc.schema.config import RunConfig
from vaehpc.schema.results import EpochRecord, LatentStatistics, Made, TrainedRecord, TriggerMark
from vaehpc.stats.course import ProbeCurve


@dataclass(frozen=True)
class MeasuredRun:
    """A run that is trained and whose latents are measured."""

    config: RunConfig
    trained: TrainedRecord
    statistics: LatentStatistics
    history: Sequence[EpochRecord]
    probe: ProbeCurve
    triggers: Sequence[TriggerMark] = ()
    starts: Sequence[Made] = ()
    limits_acted: Mapping[str, int] = field(default_factory=dict)
    """Recorded steps in which each limit of its arm changed anything, by the limit's setting."""
    num_recorded: int = 0
    """Recorded steps."""
    losses_sha256: str | None = None
    """Of their total losses, float64; None: there are none."""

    @property
    def is_nonfinite(self) -> bool:
        """Whether training met a NaN or infinity, or the latents hold one."""
        return self.trained.nonfinite_step is not None or self.statistics.num_nonfinite > 0


@dataclass(frozen=True)
class MissingRun:
    """A run without results: the stage that it lacks, and the end of its newest log."""

    config: RunConfig
    stage: Literal["train", "statistics"]
    last_words: str | None
    probe: ProbeCurve | None = None
    """As far as it came; None: it never began."""


FoundRun = MeasuredRun | MissingRun
