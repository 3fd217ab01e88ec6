"""The page of a study that runs: states and courses in, HTML out. It needs neither matplotlib nor a server."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from vaehpc.monitoring.states import Kind, RunState, StudyState
from vaehpc.reporting import courses, findings, words
from vaehpc.reporting.courses import Course
from vaehpc.reporting.page import coloured, rendered
from vaehpc.schema.config import StudyConfig
from vaehpc.schema.results import RunClass
from vaehpc.stats.judging import Judgement
from vaehpc.stats.runs import FoundRun, MeasuredRun

MOST_ROWS = 200
"""Runs that the table shows, those that need somebody first."""
FIRST: tuple[Kind, ...] = (
    "MISSING",
    "silent",
    "unknown",
    "training",
    "measuring",
    "starting",
    "trained",
    "waiting",
    "done",
)
"""States in the order of the table."""


@dataclass(frozen=True)
class ArmCounts:
    """Where the runs of an arm are."""

    num_runs: int
    trained: int
    done: int
    missing: int
    nonfinite: int
    jumped: int | None
    """That jumped or grew so far, of all that were probed; None: not searched for."""
    beyond: int | None
    """Of those that are done, beyond the limit; None: no control has ended."""


def live_page(
    config: StudyConfig, state: StudyState, runs: Sequence[FoundRun], judged: Judgement | None, pause: float | None
) -> str:
    """The page as text.

    Args:
        config: the study.
        state: where its runs are.
        runs: what they have left so far, in the order of the study.
        judged: their courses and classes so far; None: too many to follow while they run.
        pause: seconds after which the page loads itself again; None: nobody renews it any more.
    """
    of_runs = [course(run, judged) for run in runs]
    states = {of.run: of for of in state.runs}
    limits = {}
    if judged is not None:
        controls = {control.name: control.scale for control in judged.controls.values()}
        limits = {
            name: config.plan.classes.diverged_factor * scale.centre
            for name, scale in controls.items()
            if name is not None and scale is not None
        }
    shown = sorted(state.runs, key=lambda of: FIRST.index(of.kind))
    return rendered(
        "live.html.j2",
        config=config,
        state=state,
        totals=Counter(of.kind for of in state.runs),
        kinds=FIRST,
        arms={arm: arm_counts(arm, runs, states, judged) for arm in config.arms},
        rows=shown[:MOST_ROWS],
        num_rows=len(shown),
        courses=Markup(coloured(courses.figure(of_runs, limits, "pages"))) if any(map(_is_seen, of_runs)) else None,
        course_kinds=courses.kinds([found for found in of_runs if _is_seen(found)]),
        words=words,
        pause=pause,
        now=time.strftime("%Y-%m-%d %H:%M:%S"),
    )


def _is_seen(found: Course) -> bool:
    return len(found.finite().steps) > 0


def course(run: FoundRun, judged: Judgement | None) -> Course:
    """R over the steps of a run so far, with what it did so far; its page is not there yet."""
    name, found = run.config.name, judged.courses[run.config.name] if judged else None
    run_class: RunClass | None = judged.classes[name] if judged else None
    marks = "; ".join(map(findings.mark, found.marks)) if found else ""
    departed = found.departed if found else None
    assert run.probe is not None
    return Course(
        name=name,
        run_class=run_class,
        steps=run.probe.steps,
        radii=run.probe.radius_medians,
        said="; ".join(part for part in (words.class_name(run_class) if run_class else "no result yet", marks) if part),
        has_left=run_class in ("diverged", "nonfinite") or departed is not None,
        onset_step=None if departed is None else departed.step,
        has_page=False,
    )


def arm_counts(
    arm: str, runs: Sequence[FoundRun], states: Mapping[str, RunState], judged: Judgement | None
) -> ArmCounts:
    """Counts over the runs of an arm."""
    of_arm = [run for run in runs if run.config.arm.name == arm]
    names = [run.config.name for run in of_arm]
    kinds = Counter(states[name].kind for name in names)
    measured = [run for run in of_arm if isinstance(run, MeasuredRun)]
    jumped = beyond = None
    if judged is not None:
        jumped = sum(judged.courses[name].departed is not None for name in names)
        if judged.controls[arm].scale is not None:
            beyond = sum(judged.classes[name] in ("diverged", "displaced") for name in names)
    return ArmCounts(
        num_runs=len(of_arm),
        trained=sum(states[name].is_trained for name in names),
        done=len(measured),
        missing=kinds["MISSING"],
        nonfinite=sum(run.is_nonfinite for run in measured),
        jumped=jumped,
        beyond=beyond,
    )
