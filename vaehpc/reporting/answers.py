"""What a reader asks first of a study, each in a line or two: how often, how sure, which runs, what next."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

from vaehpc.command import UserError
from vaehpc.reporting import findings
from vaehpc.reporting.words import NO_VALUE, counted, enumeration, interval, no_end, number, of_ended, p_value, percent
from vaehpc.schema.config import StudyConfig
from vaehpc.schema.plan import Endpoint
from vaehpc.schema.results import ArmSummary, Contrast, EndpointTest, RunSummary, StudySummary
from vaehpc.stats.planning import MOST_SEEDS, boschloo_greater, seeds_needed
from vaehpc.stats.rates import COUNTS, OF_CLASS, came_back, is_known
from vaehpc.study.files import StudyDir
from vaehpc.study.presets import PRESETS, Preset, configured_arms, named_arms, overridden, preset_plan
from vaehpc.study.study import differing_values
from vaehpc.study.sweep import sweep_of

MOST_NAMED = 6
"""Runs that the first screen names; the table of runs has all."""
MOST_ARMS = 10
"""Arms with a line on the first screen; the tables have all."""
DEMO_FACES = "demo-faces"
"""Folder of the faces that a launch without data draws."""
MOST_SHOWN = 3
"""Tests that it tells each in a line."""
MOST_PAIRS = 8
"""Pairs without a shown difference that it names."""


def question(config: StudyConfig) -> str:
    """What the study asks."""
    has_tiny = any(arm.base == config.plan.contrasts.reference == "vae-tiny" for arm in config.arms.values())
    return f"How often {'does a VAE with a tiny KL loss' if has_tiny else 'do runs'} diverge?"


# How often


@dataclass(frozen=True)
class Often:
    """What the runs of an arm did, in numbers."""

    arm: str
    did: str
    """'diverged or NaN': the endpoint, the same for all arms of a table; '' where nothing is known."""
    counts: str
    kinds: str
    """'1 diverged, 4 NaN; not counted: 2 came back, 1 missing': of what kinds these are, and what the others did."""
    rate: str
    interval: str
    low: float | None
    """None, as the next two: nothing ended."""
    middle: float | None
    high: float | None

    @property
    def label(self) -> str:
        """The interval in words."""
        return f"{self.arm}: {self.counts} ended runs {self.did}, a rate of {self.rate}, interval {self.interval}"


def first_endpoint(declared: Endpoint, arms: Iterable[ArmSummary]) -> Endpoint:
    """Every way to be lost of the kind that the plan declares: no rate of 0 % where all are NaN.

    That of courses in its stead where an arm of which runs ended has no rate of it.
    """
    lost = findings.with_nan(declared)
    has_it = all(lost in arm.endpoints for arm in arms if arm.endpoints)
    return lost if has_it else findings.stand_in(lost)


def endpoint_of(config: StudyConfig, summary: StudySummary) -> Endpoint:
    """What is counted of every arm on the first screen."""
    return first_endpoint(config.plan.contrasts.primary_endpoint, summary.arms.values())


def in_its_stead(config: StudyConfig, summary: StudySummary) -> str:
    """Why courses are counted where the plan declares classes; '' where it is what the plan declares."""
    lost, endpoint = findings.with_nan(config.plan.contrasts.primary_endpoint), endpoint_of(config, summary)
    if endpoint == lost:
        return ""
    without = [name for name, arm in summary.arms.items() if arm.endpoints and lost not in arm.endpoints]
    return (
        f"{findings.NAMES[endpoint]} stands for {findings.NAMES[lost]}, of which"
        f" {enumeration(without) if len(without) <= MOST_SHOWN else f'{len(without)} arms'} can have no rate."
    )


def how_often(config: StudyConfig, summary: StudySummary) -> list[Often]:
    """A line per arm; where there are many, those with most events first."""
    found = [often(name, summary, endpoint_of(config, summary)) for name in summary.arms]
    if len(found) <= MOST_ARMS:
        return found
    return sorted(found, key=lambda line: -(line.middle or 0))[:MOST_ARMS]


def often(name: str, summary: StudySummary, endpoint: Endpoint) -> Often:
    """How many runs of an arm count for an endpoint that includes NaN, how, and what the others did."""
    arm = summary.arms[name]
    runs = [run for run in summary.runs.values() if run.arm == name]
    kinds = "; ".join(part for part in (_inside(runs, endpoint), _outside(runs, endpoint)) if part)
    if endpoint not in arm.endpoints:
        return Often(name, "", findings.nothing_known(arm), kinds, NO_VALUE, NO_VALUE, None, None, None)
    share = arm.endpoints[endpoint]
    ends = share.interval
    return Often(
        name,
        findings.NAMES[endpoint],
        of_ended(share),
        kinds,
        percent(share.rate),
        interval(share),
        ends.low,
        share.rate,
        ends.high,
    )


def _inside(runs: Sequence[RunSummary], endpoint: Endpoint) -> str:
    """'7 jumped (1 of them came back), 9 NaN (5 both)'; '' where there is nothing to tell apart."""
    bare: Endpoint = "diverged" if endpoint in OF_CLASS else "jumped"
    did = [run for run in runs if run.run_class is not None and COUNTS[bare](run)]
    nan = [run for run in runs if run.run_class == "nonfinite"]
    back, both = sum(map(came_back, did)), sum(run in nan for run in did)
    each = (
        _each([(len(did), bare)]) + (f" ({back} of them came back)" if back else ""),
        _each([(len(nan), "NaN")]) + (f" ({both} both)" if both else ""),
    )
    return ", ".join(part for part in each if part)


def _outside(runs: Sequence[RunSummary], endpoint: Endpoint) -> str:
    """'not counted: 2 came back, 1 missing': each such run once."""
    is_of_class = endpoint in OF_CLASS
    without_jump = "" if is_of_class else " without a jump"

    def kind(run: RunSummary) -> str:
        if run.run_class is None:
            return "missing"
        if not is_known(run, endpoint):
            return "course unknown"
        if came_back(run):
            return "came back" if is_of_class else "grew and came back"
        beyond = f"beyond the limit{without_jump}"
        return {"diverged": beyond, "displaced": "displaced", "collapsed": "collapsed"}.get(run.run_class, "")

    kinds = Counter(kind(run) for run in runs if not (is_known(run, endpoint) and COUNTS[endpoint](run)))
    order = ("came back", "grew and came back", f"beyond the limit{without_jump}", "displaced", "collapsed")
    found = [f"{kinds[each]} {each}" for each in (*order, "course unknown", "missing") if kinds[each]]
    return f"not counted: {', '.join(found)}" if found else ""


def _each(counts: Sequence[tuple[int, str]]) -> str:
    return ", ".join(f"{count} {what}" for count, what in counts if count)


# How sure


def how_sure(config: StudyConfig, summary: StudySummary) -> list[str]:
    """What the tests show and what they do not, what none of so many allows, and how many seeds would decide."""
    said = what_is_shown(config, summary)
    if len(findings.untested_pairs(config, summary)) == 1:  # of a sweep they are many: in words, below
        said += findings.untested(config, summary)
    return [*said, *none_is_not_never(config, summary), *what_it_takes(config, summary)]


def what_is_shown(config: StudyConfig, summary: StudySummary) -> list[str]:
    """The confirmatory tests: differences in a line each, the other pairs by name; unsound controls first."""
    alpha, said = 1 - config.plan.level, []
    unsound = list(dict.fromkeys(arm.control for arm in summary.arms.values() if arm.control_faults))
    if unsound:
        controls = enumeration([str(name) for name in unsound])
        said.append(f"The control {controls} is not sound: classes judged by it are exploratory.")
    contrasts = confirmatory(summary)
    if config.plan.contrasts.looks:
        said.append(findings.tested(config, summary)[0])
        if summary.look is None or not summary.look.stops:
            return said
    if not contrasts:
        none = "Nothing was tested that could confirm a difference." if summary.contrasts else "Nothing was tested."
        return [*said, none]
    decided = [each for each in contrasts if findings.is_decided(each, alpha)]
    shown = [difference(each, alpha) for each in decided]
    if len(shown) > MOST_SHOWN:
        shown = [*shown[: MOST_SHOWN - 1], f"{len(shown) - MOST_SHOWN + 1} more differences are shown, below."]
    rest = [each for each in contrasts if each not in decided]
    return [*said, *shown, *not_shown(rest, bool(shown or summary.look), len(summary.contrasts) - len(contrasts))]


def difference(contrast: Contrast, alpha: float) -> str:
    """'vae-tiny diverged more often than ae: 5 of 8 against 0 of 8, Holm-adjusted p = 0.026; diverged or NaN ...'.

    Of the other endpoint where its counts are others.
    """
    tests = {endpoint: test for endpoint, test in contrast.tests.items() if test.holm is not None}
    endpoint, first = next((endpoint, test) for endpoint, test in tests.items() if findings.is_shown(test, alpha))
    said = [
        f"{contrast.arm} {findings.ENDPOINTS[endpoint]} {'more' if is_more(first) else 'less'} often than"
        f" {contrast.reference}: {_adjusted(first)}"
    ]
    for other, test in tests.items():
        if findings.counts(test) != findings.counts(first):
            alone = "" if findings.with_nan(other) == other else " alone"
            too = "shown too" if findings.is_shown(test, alpha) else "not shown"
            said.append(f"{findings.NAMES[other]}{alone}: {_adjusted(test)}, {too}")
    return f"{'; '.join(said)}."


def _adjusted(test: EndpointTest) -> str:
    """'5 of 8 against 0 of 8, Holm-adjusted p = 0.026'."""
    missing = ""
    if findings.range_of_p(test) and test.holm_if_missing is not None:
        missing = f", {p_value(test.holm_if_missing)} at worst by how the missing runs end"
    return f"{findings.counts(test)}, Holm-adjusted {findings.p_words(test.holm)}{missing}"


def not_shown(contrasts: Sequence[Contrast], is_any_shown: bool, num_exploratory: int) -> list[str]:
    """The pairs of which no difference is shown, in one line; those apart that differ as no test asks."""
    said = []
    opposite = [each for each in contrasts if findings.is_all_opposite(each)]
    if open_ := [each for each in contrasts if each not in opposite]:
        tests = [test for each in open_ for test in each.tests.values() if test.holm is not None]
        least = findings.p_words(min(test.holm for test in tests if test.holm is not None))
        of = " of the runs that ended" if any(map(findings.range_of_p, tests)) else ""
        said.append(
            f"No {'other ' if is_any_shown else ''}difference is shown: {pairs(open_)}"
            f" ({counted(len(tests), 'planned test')}, least Holm-adjusted {least}{of}). That is no proof of equal"
            " rates."
        )
    if opposite:
        said.append(f"Not tested in the direction in which they differ: {pairs(opposite)}.")
    if num_exploratory:
        is_ = "pair is" if num_exploratory == 1 else "pairs are"
        said.append(
            f"{num_exploratory} more {is_} exploratory and confirm{'s' if num_exploratory == 1 else ''} nothing."
        )
    return [" ".join(said)] if said else []


def pairs(contrasts: Sequence[Contrast]) -> str:
    """'vae-tiny and vae-eps5 against ae; vae-clip against vae-tiny'; of many those with the least p."""
    named = sorted(contrasts, key=lambda each: min(test.boschloo for test in each.tests.values()))[:MOST_PAIRS]
    of_reference: dict[str, list[str]] = {}
    for each in contrasts:
        if each in named:
            of_reference.setdefault(each.reference, []).append(each.arm)
    said = "; ".join(f"{enumeration(arms)} against {reference}" for reference, arms in of_reference.items())
    more = len(contrasts) - len(named)
    return f"{said}; and {counted(more, 'more pair')}" if more else said


def confirmatory(summary: StudySummary) -> list[Contrast]:
    """Contrasts whose tests are adjusted."""
    return [each for each in summary.contrasts if any(test.holm is not None for test in each.tests.values())]


def is_more(test: EndpointTest) -> bool:
    """Whether the arm's share is the larger."""
    return test.count * test.reference_ended > test.reference_count * test.num_ended


def none_is_not_never(config: StudyConfig, summary: StudySummary) -> Iterator[str]:
    """The upper end where no run of an arm counts."""
    zeros: dict[str, list[str]] = {}
    endpoint = endpoint_of(config, summary)
    for name, arm in summary.arms.items():
        if endpoint in arm.endpoints and not (share := arm.endpoints[endpoint]).count:
            said = (
                f"0 of {share.num_ended} {findings.NAMES[endpoint]} would still allow a rate of up to"
                f" {percent(share.interval.high)}"
            )
            zeros.setdefault(said, []).append(name)
    for said, names in zeros.items():
        arms = enumeration(names) if len(names) <= MOST_SHOWN else f"{len(names)} arms"
        yield f"{said} ({arms})."


def undecided(config: StudyConfig, summary: StudySummary) -> list[Contrast]:
    """Planned contrasts that are open, and may be of the rates that the plan asks the power for."""
    return [
        each
        for each in confirmatory(summary)
        if not findings.is_decided(each, 1 - config.plan.level) and findings.may_be_the_case(each, config.plan)
    ]


def what_it_takes(config: StudyConfig, summary: StudySummary) -> list[str]:
    """Power of so many seeds, and the seeds that a decision takes, where a pair is open."""
    contrasts, plan = undecided(config, summary), config.plan.contrasts
    if not contrasts:
        return []
    powers = sorted(each.power for each in contrasts)
    chance = " to ".join(dict.fromkeys([percent(powers[0]), percent(powers[-1])]))
    ended = {(test.num_ended, test.reference_ended) for each in contrasts for test in each.tests.values()}
    threshold = first_threshold(config, contrasts)
    numbers = sorted({number for pair in ended for number in pair})
    who = f"{' to '.join(str(end) for end in dict.fromkeys([numbers[0], numbers[-1]]))} runs per arm"
    family = max(each.family for each in contrasts)
    at = f" at {p_value(threshold)}, Holm's first threshold of {counted(family, 'test')}"
    if len(ended) == 1:
        (num_ended, num_reference), *_ = ended
        region = boschloo_greater(num_ended, num_reference, per_side(threshold, contrasts))
        enough = [count for count in range(num_ended + 1) if region[count, 0]]
        least = f"{enough[0]} of {num_ended} against 0 of {num_reference} would do" if enough else "no counts would do"
        sides = "" if is_two_sided(contrasts) else "one-sided, "
        at += f" ({sides}{least})"
    of = "" if len(contrasts) == len(confirmatory(summary)) else f"Of {pairs(contrasts)}: "
    said = f"{of}{who} find {percent(plan.rate)} against {percent(plan.versus)} with a probability of {chance}{at}"
    needed = seeds_for(config, contrasts, plan.rate, plan.versus)
    return [f"{said}; {percent(plan.power)} takes {seeds_words(needed)}."]


def first_threshold(config: StudyConfig, contrasts: Sequence[Contrast]) -> float:
    """What the smallest p of the family must not exceed, by Holm."""
    return (1 - config.plan.level) / max(each.family for each in contrasts)


def per_side(threshold: float, contrasts: Sequence[Contrast]) -> float:
    """The threshold of a one-sided test of the same power."""
    return threshold / 2 if is_two_sided(contrasts) else threshold


def is_two_sided(contrasts: Sequence[Contrast]) -> bool:
    """Whether a test of one of them is."""
    return any(each.alternative == "two-sided" for each in contrasts)


def seeds_for(config: StudyConfig, contrasts: Sequence[Contrast], rate: float, versus: float) -> int | None:
    """Seeds per arm that tell these rates at the first of Holm's thresholds; None: more than can be enumerated."""
    threshold = per_side(first_threshold(config, contrasts), contrasts)
    return seeds_needed(rate, versus, config.plan.contrasts.power, threshold)


def seeds_words(needed: int | None) -> str:
    """'38 seeds per arm'."""
    return f"more than {MOST_SEEDS:,} seeds per arm" if needed is None else f"{counted(needed, 'seed')} per arm"


# Which runs


@dataclass(frozen=True)
class Left:
    """A run that left, or is missing."""

    name: str
    did: str
    """'diverged, R = 66.1; jump seen at step 400 (R × 4.1)'."""
    cause: str
    """In a line; '' where nothing is known."""


CAME_BACK = 2
"""Place of such runs among those that left."""


def left_runs(summary: StudySummary) -> list[str]:
    """Runs that a reader will ask for: diverged, NaN, those that came back, collapsed, missing."""
    places = {name: place for name, run in summary.runs.items() if (place := _place(run)) is not None}
    return sorted(places, key=lambda name: places[name])


def shown_runs(summary: StudySummary) -> list[str]:
    """Those of them that the first screen names: of each kind and arm one, as far as there is room.

    Each next one is of the kinds and arms not yet seen; of equal ones that with a verdict, and then that with the
    largest radius.
    """
    left, found = left_runs(summary), list[str]()

    def merit(name: str) -> tuple[int, bool, float]:
        run = summary.runs[name]
        of_kind = all(_place(summary.runs[other]) != _place(run) for other in found)
        of_arm = all(summary.runs[other].arm != run.arm for other in found)
        return of_kind + of_arm, run.verdict is not None, run.radius_median or 0.0

    while len(found) < min(MOST_NAMED, len(left)):
        found.append(max((name for name in left if name not in found), key=merit))
    return sorted(found, key=left.index)


KINDS = ("diverged", "NaN", "came back", "collapsed", "missing")
"""Of the runs that left, by place."""


def more_left(summary: StudySummary) -> str:
    """'19 more: 8 diverged, 9 NaN, 2 came back'; '' where all are named."""
    shown = shown_runs(summary)
    rest = [name for name in left_runs(summary) if name not in shown]
    if not rest:
        return ""
    counts = Counter(_place(summary.runs[name]) or 0 for name in rest)
    return f"{len(rest)} more: {_each([(counts[place], kind) for place, kind in enumerate(KINDS)])}"


def _place(run: RunSummary) -> int | None:
    kinds = ("diverged", "nonfinite", "collapsed", None)
    if run.course.departed and run.run_class not in kinds:
        return CAME_BACK
    return {"diverged": 0, "nonfinite": 1, "collapsed": 3, None: 4}.get(run.run_class)


def which_runs(summary: StudySummary, causes: Mapping[str, str]) -> list[Left]:
    """Some of them, with what each did and why, as far as it is known."""
    did = {name: what_it_did(summary, name) for name in shown_runs(summary)}
    return [
        Left(name, said, findings.evidence(summary.runs[name], said) or causes.get(name, ""))
        for name, said in did.items()
    ]


def what_it_did(summary: StudySummary, name: str) -> str:
    """'diverged, R = 66.1; jump seen at step 400 (R × 4.115)': the first that it did; its page has all."""
    run = summary.runs[name]
    mark = run.course.departed or next(iter(run.course.marks), None)
    marks = findings.mark(mark) if mark else ""
    if run.course.far:  # what follows is not how it left: of an excursion nothing is said
        marks = "; ".join([findings.far_from_control(run), *([marks] if run.course.departed else [])])
    if run.run_class is None:
        kind = f"missing: no result of {run.missing_stage or 'any stage'}"
    elif run.run_class == "nonfinite":
        return "; ".join(part for part in (no_end(run), marks) if part)
    elif run.run_class == "diverged" and summary.arms[run.arm].unjudged in ("unsound control", "too few"):
        kind = "beyond the limit"
    else:
        kind = run.run_class if _place(run) != CAME_BACK else "came back"
    radius = "" if run.radius_median is None else f", R = {number(run.radius_median)}"
    return f"{kind}{radius}; {marks}" if marks else f"{kind}{radius}"


# What next


@dataclass(frozen=True)
class Step:
    """Something to do, and the line that does it."""

    what: str
    line: str
    """Or several, one below the other; '' where it has to be asked of who launched the study."""


def what_next(study: StudyDir, config: StudyConfig, summary: StudySummary) -> list[Step]:
    """Finish what is missing, explain the first run that left, replay one of each kind, plan seeds for a decision."""
    where, steps = named(study), []
    left = [name for name in left_runs(summary) if summary.runs[name].run_class is not None]
    if missing := sum(arm.num_missing for arm in summary.arms.values()):
        what = f"{counted(missing, 'run')} {'is' if missing == 1 else 'are'} missing: why; the launch line again does"
        steps.append(Step(f"{what} only {'it' if missing == 1 else 'these'}", f"vaehpc status {where} --failures"))
    if left:
        steps.append(Step("What happened in a run, step by step", f"vaehpc explain {where} --run {left[0]}"))
    if events := to_replay(summary):
        what = f"Why {'it' if events == left[:1] else enumeration(events)} left, by forks"
        steps.append(Step(what, "\n".join(f"vaehpc replay {where} --run {name}" for name in events)))
    contrasts = undecided(config, summary)
    needed = seeds_for(config, contrasts, config.plan.contrasts.rate, config.plan.contrasts.versus) if contrasts else 0
    present = min(map(len, config.seeds.values()), default=0)
    if needed is None or needed <= present:
        return steps
    if config.plan.contrasts.looks:
        return [*steps, launch_step(f"Seeds up to {needed:,} per arm in all", study, config, needed)]
    fresh = f"A new study of {needed:,} seeds per arm, with tests that are planned"
    more = f"Or {needed:,} per arm in all here, with tests that are exploratory: not planned"
    return [
        *steps,
        launch_step(fresh, study, config, needed, root_seed=config.root_seed + 1),
        launch_step(more, study, config, needed),
    ]


def to_replay(summary: StudySummary) -> list[str]:
    """The first run that diverged and the first that became NaN, if no run of its kind has a verdict; else any."""
    open_ = [name for name in left_runs(summary) if _may_be_replayed(summary.runs[name])]
    known = {_place(run) for run in summary.runs.values() if run.verdict is not None}
    open_ = [name for name in open_ if summary.runs[name].verdict is None]
    first = {_place(summary.runs[name]): name for name in reversed(open_)}
    return [first[place] for place in (0, 1) if place in first.keys() - known] or open_[:1]


def _may_be_replayed(run: RunSummary) -> bool:
    return run.nonfinite_step is not None or run.course.departed is not None or bool(run.triggers)


def named(study: StudyDir) -> str:
    """The study as a command takes it, from the folder that holds the folder of studies."""
    folder = study.path.parent.name
    return shlex.quote(study.path.name if folder == "runs" else f"{folder}/{study.path.name}")


def launch_step(what: str, study: StudyDir, config: StudyConfig, num_seeds: int, root_seed: int | None = None) -> Step:
    """The line that widens the study to so many seeds; its settings are left out where they are a preset's.

    With a root seed, that of a study beside it which asks the same of fresh runs. Where options cannot say what the
    study trains, as its arms are from a file, no line: what the line of its first launch is to have besides.
    """
    preset, names, asked = preset_of(config), bases(config), settings_asked(config)
    words = []
    if asked is not None:
        words.append(f"vaehpc launch --preset {config.preset}")
        if preset is None or names != tuple(preset.arms):
            words.append(f"--arms {' '.join(names)}")
        if (sweep := sweep_of(config.arms)) is not None:
            words.append(f"--sweep {shlex.quote(str(sweep))}")
    if root_seed is not None:
        words.append(f"--study {config.name}-{root_seed} --root-seed {root_seed}")
    elif config.name != config.preset:
        words.append(f"--study {config.name}")
    folder = study.path.parent.name
    if folder != "runs":
        words.append(f"--out {shlex.quote(folder)}")
    if PurePath(config.data.path).name != DEMO_FACES:  # what a launch without --data makes
        words.append(f"--data {shlex.quote(config.data.path)}")
    words += asked or []
    if root_seed is not None and (preset is None or preset_plan(preset, config.arms) != config.plan):
        words.append(f"--plan {shlex.quote(f'{folder}/{study.path.name}')}")
    words.append(f"--seeds {num_seeds if root_seed is not None else seeds_to_ask(config, num_seeds)}")
    line = " ".join(words)
    return Step(what, line) if asked is not None else Step(f"{what}, by the line of its first launch with {line}", "")


def bases(config: StudyConfig) -> tuple[str, ...]:
    """The arms as a launch names them, of which a sweep makes the study's."""
    return tuple(dict.fromkeys(arm.base for arm in config.arms.values()))


def seeds_to_ask(config: StudyConfig, num_seeds: int) -> str:
    """What gives each arm so many seeds: their number, or where a study chose its own, those after the last."""
    of_arms = config.seeds.values()
    if all(seeds == tuple(range(len(seeds))) for seeds in of_arms):
        return str(num_seeds)
    first = 1 + max(max(seeds) for seeds in of_arms if seeds)
    return f"{first}:{first + num_seeds - min(map(len, of_arms))}"


def preset_of(config: StudyConfig) -> Preset | None:
    """The preset that the study was launched with; None where this release has none of that name."""
    return next((preset for name, preset in PRESETS.items() if name == config.preset), None)


def settings_asked(config: StudyConfig) -> list[str] | None:
    """The options by which its settings differ from its preset's: '--train.learning-rate 0.01'.

    Of each setting the value of the arms that do not say it themselves. None: these do not make the study's arms, of
    which some may come from a file.
    """
    if (preset := preset_of(config)) is None:
        return None
    sweep = sweep_of(config.arms)
    try:
        named = named_arms(bases(config))
        named = named if sweep is None else sweep.arms(named)
        changes = {}
        for section, values in preset.settings:
            of_arms = [(getattr(named[name], section), getattr(arm, section)) for name, arm in config.arms.items()]
            changes[section] = {
                key: found[0]
                for key in type(values).model_fields
                if (found := [getattr(of, key) for own, of in of_arms if of is not None and key not in own])
            }
        settings = overridden(preset.settings, changes, "study")
        if configured_arms(named, settings) != config.arms:
            return None
    except (UserError, KeyError):  # an arm from a file
        return None
    differing = differing_values(settings, preset.settings)
    return [f"--{key.replace('_', '-')} {option(value)}" for key, (value, _) in differing.items()]


def option(value: Any) -> str:
    """A setting as the command line takes it."""
    return " ".join(map(str, value)) if isinstance(value, tuple) else str(value)
