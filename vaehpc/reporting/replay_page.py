"""The page of a replay: its verdict, what the forks of each variant did, and their courses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from vaehpc.reporting import courses, words
from vaehpc.reporting.courses import Course, Scale
from vaehpc.reporting.page import coloured, rendered
from vaehpc.schema.results import Ending, ForkResult, ReplayResult, RunClass, Variant, VariantResult
from vaehpc.stats.course import ProbeCurve
from vaehpc.stats.replay import event_counts

COLOURS: Mapping[Ending, RunClass] = {
    "stayed": "regular",
    "jump": "diverged",
    "nonfinite": "nonfinite",
    "thrown": "shifted",
    "not comparable": "unclassified",
}
"""How a fork ended, in the colours of classes."""
ENDINGS: Mapping[Ending, str] = {
    "stayed": "stayed",
    "jump": "jumped",
    "nonfinite": "became NaN",
    "thrown": "thrown by the treatment",
    "not comparable": "not comparable",
}


@dataclass(frozen=True)
class Panel:
    """The forks of a variant."""

    result: VariantResult
    counts: str
    drawing: Markup | None
    """Their courses; None: none was probed."""


def replay_page(
    result: ReplayResult,
    said: Sequence[str],
    source: ProbeCurve,
    probes: Mapping[str, ProbeCurve],
    report: str | None,
) -> str:
    """The page as text; it needs no other file.

    Args:
        result: the verdict.
        said: what the source run did, and what its forks are, a paragraph each.
        source: the course of the source run.
        probes: the course of each fork, by its name.
        report: folder of the study whose run was replayed, relative to this page; None: it does not lie beside.
    """
    study, _, run = result.replay.source.rpartition("/")
    of_source = Course(run, None, source.steps, source.radius_medians, "the run itself", True, has_page=False)
    forks = {of.variant: [fork_course(fork, probes[fork.run]) for fork in of.forks] for of in result.variants}
    is_nan = result.replay.jumped_radius is None
    return rendered(
        "replay.html.j2",
        result=result,
        run=run,
        study=study,
        report=report,
        said=said,
        words=words,
        endings={
            ending: COLOURS[ending] for ending in ENDINGS if ending in {fork.ending for fork in all_forks(result)}
        },
        ending_words=ENDINGS,
        panels=[panel(of, forks, of_source, is_nan) for of in result.variants if of.num_repeats],
        not_run=[of.variant for of in result.variants if not of.num_repeats],
    )


def all_forks(result: ReplayResult) -> list[ForkResult]:
    """Those that ended, of all variants."""
    return [fork for of in result.variants for fork in of.forks]


def fork_course(fork: ForkResult, probe: ProbeCurve) -> Course:
    """The course of a fork, in the colour of how it ended."""
    return Course(
        fork.run,
        COLOURS[fork.ending],
        probe.steps,
        probe.radius_medians,
        ENDINGS[fork.ending],
        fork.ending in ("jump", "nonfinite"),
        has_page=False,
    )


def panel(of: VariantResult, forks: Mapping[Variant, Sequence[Course]], source: Course, is_nan: bool) -> Panel:
    """A variant; null forks, which start elsewhere, have a scale of steps of their own."""
    own = [course.finite() for course in forks[of.variant]]
    own = [course for course in own if len(course.steps)]
    if not own:
        return Panel(of, event_counts(of, is_nan), None)
    drawn = [name for name in forks if (name == "null") == (of.variant == "null")]
    every = [found for name in drawn for course in forks[name] if len((found := course.finite()).steps)]
    first, last = min(int(course.steps[0]) for course in every), max(int(course.steps[-1]) for course in every)
    within = (source.steps >= first) & (source.steps <= last)
    beside = Course(source.name, None, source.steps[within], source.radii[within], source.said, True, has_page=False)
    scale = courses.extent_of([*every, *([beside.finite()] if within.any() else [])], {})
    scale = Scale(max(last, first + 1), scale.low, scale.high, first)
    return Panel(
        of,
        event_counts(of, is_nan),
        Markup(coloured(courses.figure([beside, *own], {}, "", scale, key=f"fork-{of.variant}"))),
    )
