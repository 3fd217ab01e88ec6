"""Studies beside each other: what differs between them, what may be compared, rates, courses and costs."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from vaehpc.reporting import answers, courses, tables, words
from vaehpc.reporting.answers import Often
from vaehpc.reporting.courses import Course
from vaehpc.reporting.page import coloured, rendered
from vaehpc.reporting.words import NO_VALUE, counted, enumeration, number
from vaehpc.schema.config import ArmConfig, StudyConfig
from vaehpc.schema.plan import Endpoint
from vaehpc.schema.results import StudySummary, TrainedRecord
from vaehpc.study.study import differing_values

SECONDS_PER_HOUR = 3600


@dataclass(frozen=True)
class Compared:
    """A study as the page needs it."""

    where: str
    """Its folder, relative to the page."""
    folder: str
    """Name of that folder; tells it apart from others of the same name."""
    config: StudyConfig
    summary: StudySummary
    courses: Sequence[Course]
    limits: Mapping[str, float]
    trained: Mapping[str, Sequence[TrainedRecord]]
    """Markers of the finished trainings of each arm."""

    @property
    def title(self) -> str:
        """Its name, and its folder where that is another."""
        return self.config.name if self.folder == self.config.name else f"{self.config.name} ({self.folder})"


@dataclass(frozen=True)
class ArmPair:
    """An arm of the first study and one of the same name in another."""

    arm: str
    other: str
    differing: Mapping[str, tuple[str, str]]
    verdict: str


@dataclass(frozen=True)
class Cost:
    """What the trainings of an arm took."""

    study: str
    arm: str
    num_runs: int
    hours: str
    """Median of a run."""
    total: str
    device: str


def comparison_page(studies: Sequence[Compared]) -> str:
    """The page as text; of its studies' pages it has links, and needs no other file."""
    first, *others = studies
    arms = list(dict.fromkeys(arm for study in studies for arm in study.config.arms))
    endpoint = answers.first_endpoint(
        first.config.plan.contrasts.primary_endpoint,
        [arm for study in studies for arm in study.summary.arms.values()],
    )
    often = {study.title: {line.arm: line for line in rates(study, endpoint)} for study in studies}
    drawn = [[found for course in study.courses if len((found := course.finite()).steps)] for study in studies]
    limits = {f"{study.title}: {name}": radius for study in studies for name, radius in study.limits.items()}
    scale = courses.extent_of([course for of_study in drawn for course in of_study], limits)
    figures = [
        Markup(coloured(courses.figure(of_study, study.limits, f"{study.where}/pages", scale, key=f"study-{at}")))
        for at, (study, of_study) in enumerate(zip(studies, drawn, strict=True))
    ]
    return rendered(
        "comparison.html.j2",
        studies=studies,
        figures=figures,
        kinds=courses.kinds([course for of_study in drawn for course in of_study]),
        arms=arms,
        often=often,
        overall=[sentence for other in others for sentence in what_differs(first, other)],
        pairs=[pair for other in others for pair in arm_pairs(first, other)],
        only={study.title: only_here(study, studies) for study in studies},
        costs=[cost for study in studies for cost in costs(study)],
        answers=answers,
        words=words,
    )


def rates(study: Compared, endpoint: Endpoint) -> list[Often]:
    """A line per arm."""
    return [answers.often(name, study.summary, endpoint) for name in study.summary.arms]


def only_here(study: Compared, studies: Sequence[Compared]) -> list[str]:
    """Arms that no other study has."""
    others = {arm for other in studies if other is not study for arm in other.config.arms}
    return [arm for arm in study.config.arms if arm not in others]


# What may be compared


def what_differs(first: Compared, other: Compared) -> list[str]:
    """Data, rules, code and seeds of two studies, and what follows, a sentence each."""
    one, two = first.config, other.config
    of = f"{first.title} and {other.title}"
    said = []
    if one.data.sha256 != two.data.sha256:
        said.append(
            f"{of} have different data ({words.data(first.summary.data)}; {words.data(other.summary.data)}): neither"
            " losses nor radii are comparable, and rates only as two findings, each beside its own control."
        )
    else:
        said.append(f"{of} have the same data.")
    if rules := differing_values(one.plan, two.plan):
        named = "; ".join(f"{key} {has} and {wants}" for key, (has, wants) in list(rules.items())[:8])
        more = f", and {len(rules) - 8} more" if len(rules) > 8 else ""
        alike = "classes and jumps are judged alike, and tests are each study's own"
        follows = "a run may be called diverged in one and not in the other" if judging_rules(one, two) else alike
        said.append(f"Their analysis plans differ ({named}{more}): {follows}.")
    versions = one.provenance.code_version, two.provenance.code_version
    if versions[0] != versions[1]:
        said.append(f"They were launched with different code: vaehpc {versions[0]} and {versions[1]}.")
    common = set(one.seeds) & set(two.seeds)
    shared = {seed for arm in common for seed in set(one.seeds[arm]) & set(two.seeds[arm])}
    if one.cross != two.cross:
        said.append("Their random streams are crossed otherwise: equal seeds need not be equal runs.")
    elif one.root_seed == two.root_seed and shared:
        said.append(
            f"They share {counted(len(shared), 'seed')} ({words.seeds(sorted(shared))}) of one root seed: such runs"
            " begin with the same weights, batches and noise where settings allow, and are not independent."
        )
    if other.summary.arms and any(
        arm.num_missing for arm in (*first.summary.arms.values(), *other.summary.arms.values())
    ):
        said.append("Runs are missing: rates are of those that ended.")
    return said


def judging_rules(one: StudyConfig, two: StudyConfig) -> list[str]:
    """Keys of the plan that differ and by which runs are judged and rates told; not those of tests and measurements."""
    return [
        key for key in differing_values(one.plan, two.plan) if key.startswith(("classes", "course", "probe", "level"))
    ]


def arm_pairs(first: Compared, other: Compared) -> list[ArmPair]:
    """Arms that both have, with what differs and what a difference of their rates would mean."""
    return [
        ArmPair(name, other.title, differing, verdict(first, other, name, differing))
        for name, arm in first.config.arms.items()
        if name in other.config.arms
        for differing in [differences(arm, other.config.arms[name])]
    ]


def differences(arm: ArmConfig, other: ArmConfig) -> dict[str, tuple[str, str]]:
    """Settings in which two arms differ, in words."""
    one, two = tables.settings(arm), tables.settings(other)
    keys = dict.fromkeys([*one, *two])
    values = {key: (one.get(key, NO_VALUE), two.get(key, NO_VALUE)) for key in keys}
    return {key: both for key, both in values.items() if both[0] != both[1]}


def verdict(first: Compared, other: Compared, arm: str, differing: Mapping[str, tuple[str, str]]) -> str:
    """What a difference of the rates of an arm in two studies may be put down to."""
    one, two = first.config, other.config
    otherwise = [
        what
        for what, differs in (
            ("data", one.data.sha256 != two.data.sha256),
            ("analysis plan", bool(judging_rules(one, two))),
            ("the design of its random streams", one.cross != two.cross),
            ("code", one.provenance.code_version != two.provenance.code_version),
        )
        if differs
    ]
    if not differing and not otherwise:
        same = one.root_seed == two.root_seed and set(one.seeds[arm]) & set(two.seeds[arm])
        return (
            "the same runs where seeds are the same: they count once"
            if same
            else "equal in all but the seeds: rates may be compared, and their counts added"
        )
    changed = [*differing, *otherwise]
    if len(changed) == 1:
        return f"differs in {changed[0]} alone: a difference of the rates can be its doing, or chance"
    return f"differs in {enumeration(changed)}: a difference of the rates cannot be put down to one of them"


# What they took


def costs(study: Compared) -> list[Cost]:
    """A line per arm with finished trainings."""
    found = []
    for arm, records in study.trained.items():
        hours = [record.seconds_per_epoch * record.epochs / SECONDS_PER_HOUR for record in records]
        hours = [value for value in hours if value > 0]
        if hours:
            found.append(
                Cost(
                    study=study.title,
                    arm=arm,
                    num_runs=len(records),
                    hours=number(statistics.median(hours)),
                    total=number(sum(hours)),
                    device=", ".join(dict.fromkeys(record.device for record in records)),
                )
            )
    return found
