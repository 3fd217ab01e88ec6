"""What the counts of a study carry, in sentences: how often runs left, how, and what the tests show of arms."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from vaehpc.reporting.words import (
    NBSP,
    burn_in,
    counted,
    data,
    enumeration,
    no_end,
    number,
    of_ended,
    p_value,
    percent,
    signed,
)
from vaehpc.schema.config import StudyConfig
from vaehpc.schema.plan import Endpoint, PlanConfig
from vaehpc.schema.results import (
    ArmSummary,
    Contrast,
    CourseMark,
    EdgeSummary,
    EndpointTest,
    Event,
    EventCurves,
    EventKind,
    How,
    PlannedLook,
    RunSummary,
    Share,
    StudySummary,
)
from vaehpc.stats.intervals import clopper_pearson
from vaehpc.stats.rates import OF_CLASS, OF_COURSE
from vaehpc.study.sweep import sweep_of

ENDPOINTS: Mapping[Endpoint, str] = {
    "diverged": "diverged",
    "diverged or nonfinite": "diverged or became NaN",
    "jumped": "jumped",
    "jumped or nonfinite": "jumped or became NaN",
}
"""What the runs did that count for an endpoint."""
NAMES: Mapping[Endpoint, str] = {
    "diverged": "diverged",
    "diverged or nonfinite": "diverged or NaN",
    "jumped": "jumped",
    "jumped or nonfinite": "jumped or NaN",
}
LEFT: Sequence[Endpoint] = (OF_CLASS[1], OF_COURSE[1])
"""Endpoints that have every way to be lost; the second where classes are not judged."""
LIMITS = {
    "train.clipnorm": "clip of the gradient",
    "vae.epsilon_limit": "limit of ε",
    "vae.log_var_limit": "clamp of log σ²",
}
EVENT_NAMES = {
    "jump": "jump",
    "growth": "growth",
    "excursion": "excursion",
    "unconfirmed": "unconfirmed jump",
    "nonfinite": "NaN",
}
EDGE_METHOD = (
    "R is no property of the function that a net computes: μ and σ times c, and the decoder's first kernel K by c,"
    " leave it as it is, and R·‖K‖ too. c is what brings μ of the probe's images nearest from one kept state to the"
    " next; 'by c alone' is its share of their squared change, and 'loss for the rest' what the loss, in nats per"
    " image, rose beyond the KL loss of c. Sharpness is the largest eigenvalue of the Hessian as Adam preconditions it;"
    " beyond its limit, 2 (1 + β₁) / ((1 − β₁) lr), which clipping raises as it shortens the step, Adam leaves a"
    " minimum. A state is calm if nothing happened between its neighbours."
)
EVENT = r"(?:NaN|jump seen|growth seen) at step [\d,]*\d"
"""As `seen` says it."""
MOST_SENTENCES = 3
"""Pairs of arms without a difference that have one each; the table of tests has all."""
MOST_NAMED = 8
"""Runs that the abstract names of one kind; the table of runs has all."""


# What was done


def overview(config: StudyConfig, summary: StudySummary) -> str:
    """What was trained on what, how much of it ended, and what is counted."""
    num_runs = sum(arm.num_runs for arm in summary.arms.values())
    num_missing = sum(arm.num_missing for arm in summary.arms.values())
    num_nonfinite = sum(arm.num_nonfinite for arm in summary.arms.values())
    plan = config.plan
    return (
        f"Study {summary.study} asked for {counted(num_runs, 'run')} ({of_each(config, summary)}{shared_seeds(config)})"
        f" on {data(summary.data)}. {ended(num_runs, num_missing, num_nonfinite)} A run is called diverged if the"
        f" median latent radius R = ‖μ‖₂ at its end is more than {plan.classes.diverged_factor:g} times that of"
        f" {controls(config, summary)}, unless it and its arm lay there from the start. It jumped if, after"
        f" {burn_in(plan.probe)}, R rose by more than a factor {plan.course.jump_factor:g} at once, beyond what the"
        f" controls did, and stayed there: a probe every {plan.probe.every_steps:,} steps sees it, and the step that is"
        " given is that of the first which did."
    )


def of_each(config: StudyConfig, summary: StudySummary) -> str:
    """'12 of each of ae and vae-tiny at each of 6 values of train.learning_rate'."""
    numbers = {arm.num_runs for arm in summary.arms.values()}
    if len(numbers) > 1 or len(summary.arms) < 3:
        return enumeration([f"{arm.num_runs} of {name}" for name, arm in summary.arms.items()])
    said = f"{numbers.pop()} of each of {enumeration(of_bases(config, config.arms))}"
    if (sweep := sweep_of(config.arms)) is None or any(arm.swept is None for arm in config.arms.values()):
        return said
    return f"{said} at each of {len(sweep.values)} values of {sweep.setting}"


def of_bases(config: StudyConfig, arms: Iterable[str]) -> list[str]:
    """Arms by name, those that a sweep made of one another as this one."""
    return list(dict.fromkeys(config.arms[arm].base for arm in arms))


def controls(config: StudyConfig, summary: StudySummary) -> str:
    """'the runs of its control ae, an autoencoder with the same net, training and data'.

    A control may differ from the arms that it judges in nothing but the clip of the gradient.
    """
    names = [name for name in dict.fromkeys(arm.control for arm in summary.arms.values()) if name in config.arms]
    alike = "with the same net, training and data"
    if not names:
        return f"control runs, autoencoders {alike}"
    bases = of_bases(config, names)
    said = [f"the runs of its control {enumeration(bases)}, {'an autoencoder' if len(bases) == 1 else 'autoencoders'}"]
    for base in bases:
        clips = {name: config.arms[name].train.clipnorm for name in names if config.arms[name].base == base}
        others = [
            arm
            for arm, found in summary.arms.items()
            if found.control in clips and config.arms[arm].train.clipnorm != clips[found.control]
        ]
        if others:
            norms = " or ".join(f"{clip:g}" for clip in dict.fromkeys(clips.values()) if clip is not None)
            has = f"its gradient clipped to {norms}" if norms else "no clip of the gradient"
            said.append(f"({base} has {has}, unlike {enumeration(of_bases(config, others))})")
    return f"{said[0]} {alike}{''.join(f' {each}' for each in said[1:])}"


def shared_seeds(config: StudyConfig) -> str:
    """Which seeds the arms have in common: they draw the same initial weights and batches."""
    of_arms = [config.seeds[arm] for arm in config.arms]
    if config.cross:
        return f"; streams crossed: {', '.join(f'{count} × {stream}' for stream, count in config.cross.items())}"
    if len(of_arms) < 2:
        return ""
    if len(set(of_arms)) == 1:
        return f"; the same {counted(len(of_arms[0]), 'seed')} in each arm"
    common = set.intersection(*map(set, of_arms))
    verb = "is" if len(common) == 1 else "are"
    return f"; {counted(len(common), 'seed')} {verb} in all arms" if common else "; no seed is in all arms"


def ended(num_runs: int, num_missing: int, num_nonfinite: int = 0) -> str:
    """How many runs have results, and how many of these are NaN."""
    nan = f", {num_nonfinite} of them as NaN" if num_nonfinite else ""
    if not num_missing:
        return f"All of them ended{nan}."
    if num_missing == num_runs:
        return "None of them has ended, so that the study says nothing yet."
    are, count = ("is", "counts") if num_missing == 1 else ("are", "count")
    return (
        f"{num_runs - num_missing} ended{nan}; {num_missing} {are} missing and {count} as neither diverged nor regular."
    )


# An arm


def outcome(arm: ArmSummary) -> str:
    """What the runs of one arm did: counts, then rates with their intervals."""
    num_ended = arm.num_runs - arm.num_missing
    if not num_ended:
        return (
            f"none of {counted(arm.num_runs, 'run')} has ended: {missing(arm)}, and nothing can be said about the rate."
        )
    said = [f"{headline(arm, num_ended)}."]
    if arm.unjudged is not None:
        said.append(why_no_rate(arm, num_ended))
    said += [rate(arm.endpoints[endpoint], endpoint) for endpoint in reversed(told(arm))]
    if arm.num_missing:
        said.append(bounds(arm))
    return " ".join(said)


def headline(arm: ArmSummary, num_ended: int) -> str:
    """'5 of 15 ended runs diverged (3 jumped, 1 grew, 1 before step 350); 1 more jumped and came back; ...'.

    Where classes are not judged, 'of 15 ended runs 3 jumped; ...'.
    """
    if arm.unjudged is None:
        hows = enumerated_hows(arm)
        said = [f"{arm.num_diverged} of {counted(num_ended, 'ended run')} diverged" + (f" ({hows})" if hows else "")]
        more = " more" if arm.num_diverged else ""
        said += [f"{count}{more} {how} and came back" for how, count in arm.returned_how.items()]
    else:
        said = [f"of {counted(num_ended, 'ended run')} {arm.num_jumped or 'none'} jumped"]
        if arm.unjudged == "unsound control" and (beyond := arm.num_diverged + arm.num_displaced):
            said.append(f"{beyond} ended beyond the limit of a control that is not sound")
    if arm.num_nonfinite:
        said.append(f"{arm.num_nonfinite} became NaN{_after_a_jump(arm)}")
    said += others(arm, num_ended)
    if arm.num_excursions:
        said.append(f"{counted(arm.num_excursions, 'run')} had an excursion that did not last")
    if arm.num_missing:
        said.append(missing(arm))
    return "; ".join(said)


def others(arm: ArmSummary, num_ended: int) -> list[str]:
    """'1 collapsed', '2 shifted'; where runs came back, which may be among these, the classes of all others."""
    found = [(arm.num_collapsed, "collapsed"), (arm.num_shifted, "shifted")]
    said = [f"{count} {what}" for count, what in found if count]
    if not said or arm.unjudged is not None or not arm.returned_how:
        return said
    rest = num_ended - arm.num_diverged - arm.num_nonfinite
    regular = rest - arm.num_collapsed - arm.num_shifted
    ends = enumeration([*([f"{regular} regular"] if regular else []), *said])
    of = f"of the {rest} that neither diverged nor became NaN, those that came back among them"
    return [f"at the end {ends}, {of if rest > 1 else 'the one that came back'}"]


def missing(arm: ArmSummary) -> str:
    """'1 of 16 is missing'."""
    return f"{arm.num_missing} of {arm.num_runs} {'is' if arm.num_missing == 1 else 'are'} missing"


def _after_a_jump(arm: ArmSummary) -> str:
    """', 1 of them after a jump or growth'."""
    if not arm.num_nonfinite_after:
        return ""
    if arm.num_nonfinite_after < arm.num_nonfinite:
        return f", {arm.num_nonfinite_after} of them after a jump or growth"
    return ", after a jump or growth" if arm.num_nonfinite == 1 else ", all of them after a jump or growth"


def enumerated_hows(arm: ArmSummary) -> str:
    """'3 jumped, 1 grew, 1 before step 350'."""
    first = f"before step {arm.first_step:,}" if arm.first_step is not None else "before the first probe"
    hows: Mapping[How, str] = {
        "jumped": "jumped",
        "grew": "grew",
        "early": first,
        "unconfirmed": "at the last probe",
        "unseen": "unseen by the probe",
    }
    return ", ".join(f"{arm.diverged_how[how]} {words}" for how, words in hows.items() if how in arm.diverged_how)


def why_no_rate(arm: ArmSummary, num_ended: int) -> str:
    """Why the classes of an arm carry no rate."""
    step = "" if arm.first_step is None else f" (step {arm.first_step:,})"
    if arm.unjudged == "displaced":
        own = ""
        if arm.regular_factor is not None:
            own = f" Its regular radius is {arm.regular_factor:.2g} times the control's."
        return (
            f"{arm.num_displaced} of {num_ended} ended beyond the limit, as their arm, and lay far from the control at"
            f" the first probe after the burn-in{step} already: what happened before is not judged, and there is no"
            f" rate of divergence.{own}"
        )
    if arm.unjudged == "too few":
        finite = num_ended - arm.num_nonfinite
        return (
            f"{arm.diverged_how['early']} of {num_ended} ended beyond the limit and lay far from the control at the"
            f" first probe after the burn-in{step} already: {counted(finite, 'finite run')}"
            f" {'is' if finite == 1 else 'are'} too few to tell whether they diverged or their arm lies there."
        )
    if arm.unjudged == "unsound control":
        return f"The control {arm.control} is not sound: classes are exploratory, and there is no rate of divergence."
    reason = (
        "the study has no control arm for them, and the article's radius holds for its own data, net and training only"
        if arm.control is None
        else f"no run of their control arm {arm.control} ended with finite radii"
    )
    return f"{arm.num_unclassified} of {counted(num_ended, 'ended run')} could not be classed: {reason}."


def told(arm: ArmSummary) -> list[Endpoint]:
    """The two endpoints of an arm that are told: of its classes, else of its courses."""
    first: Sequence[Endpoint] = ("diverged", "diverged or nonfinite")
    found = [endpoint for endpoint in first if endpoint in arm.endpoints]
    if not found:
        found = [endpoint for endpoint in ("jumped", "jumped or nonfinite") if endpoint in arm.endpoints]
    counts = [arm.endpoints[endpoint].count for endpoint in found]
    return found[:1] if len(set(counts)) == 1 else found


def stand_in(endpoint: Endpoint) -> Endpoint:
    """What is counted in its stead where classes are not judged."""
    return OF_COURSE[OF_CLASS.index(endpoint)] if endpoint in OF_CLASS else endpoint


def with_nan(endpoint: Endpoint) -> Endpoint:
    """The endpoint of the same kind that has every way to be lost."""
    return (OF_CLASS if endpoint in OF_CLASS else OF_COURSE)[1]


def nothing_known(arm: ArmSummary) -> str:
    """Why no endpoint of an arm can be told."""
    return "none ended" if arm.num_missing == arm.num_runs else "courses unknown"


@dataclass(frozen=True)
class ToldShare:
    """An endpoint that is told of an arm."""

    arm: str
    endpoint: Endpoint
    share: Share


def shares(summary: StudySummary) -> list[ToldShare]:
    """Every endpoint that is told."""
    return [
        ToldShare(name, endpoint, arm.endpoints[endpoint])
        for name, arm in summary.arms.items()
        for endpoint in told(arm)
    ]


def rate(share: Share, endpoint: Endpoint) -> str:
    """Rate and interval; 0 of n is not 'never'. The headline has the counts of those that diverged."""
    exact = (
        f"exact {percent(share.interval.level)} {share.interval.method} interval {percent(share.interval.low)} to"
        f" {percent(share.interval.high)}"
    )
    name = NAMES[endpoint]
    counts = "" if endpoint == "diverged" else f"{share.count} of {share.num_ended}, "
    rate_of = f"a rate of {percent(share.rate)}"
    if share.count == 0:
        rate_of = f"not 'never', for the data allow a rate of up to {percent(share.interval.high)}"
    return f"{name[0].upper()}{name[1:]}: {counts}{rate_of} ({exact})."


def bounds(arm: ArmSummary) -> str:
    """What the missing runs leave open of the first endpoint that is told."""
    endpoint = told(arm)[0]
    share = arm.endpoints[endpoint]
    return (
        f"Had none of the missing {ENDPOINTS[endpoint]}, the rate would be {percent(share.if_none_missing)}"
        f" ({share.count} of {arm.num_runs}), had every one, {percent(share.if_all_missing)}"
        f" ({share.count + arm.num_missing} of {arm.num_runs})."
    )


# Which runs


@dataclass(frozen=True)
class Named:
    """Runs of an arm that did the same."""

    what: str
    """'diverged'."""
    runs: Sequence[tuple[str, str]]
    """Name, and how or when in words."""
    num_more: int
    """Further ones that are not named."""


def named_runs(arm: str, summary: StudySummary) -> list[Named]:
    """The runs of an arm that the reader will ask for."""
    runs = {name: run for name, run in summary.runs.items() if run.arm == arm}
    is_open = summary.arms[arm].unjudged in ("unsound control", "too few")
    beyond = "beyond the limit" if is_open else "diverged"
    kinds = {
        beyond: [name for name, run in runs.items() if run.run_class == "diverged"],
        "NaN": [name for name, run in runs.items() if run.run_class == "nonfinite"],
        "came back": [
            name
            for name, run in runs.items()
            if run.course.departed and run.run_class in ("collapsed", "shifted", "regular")
        ],
        "collapsed": [name for name, run in runs.items() if run.run_class == "collapsed"],
        "missing": [name for name, run in runs.items() if run.run_class is None],
    }
    if summary.arms[arm].unjudged == "unsound control":
        del kinds["collapsed"]
    return [
        Named(
            what,
            [(name, _how(runs[name])) for name in names[:MOST_NAMED]],
            max(len(names) - MOST_NAMED, 0),
        )
        for what, names in kinds.items()
        if names
    ]


def _how(run: RunSummary) -> str:
    """Beside a kind that says what it did: when it became NaN, and its course."""
    return "; ".join(part for part in (no_end(run).removeprefix("NaN "), course(run)) if part)


def course(run: RunSummary) -> str:
    """'jump seen at step 400 (R × 2.1)', and the evidence of its cause; its NaN is said by its class."""
    said = marks(run)
    return "; ".join(part for part in (said, evidence(run, said, no_end(run))) if part)


def evidence(run: RunSummary, *said: str) -> str:
    """The verdict of its replays, and how near to the edge of stability it stood; '' where neither was asked for.

    Args:
        run: whose evidence.
        said: what stands before it, and need not be said of which event the verdict is.
    """
    known = re.findall(EVENT, " ".join(said))
    verdict = re.sub(rf"\(({EVENT})(?:, |: )", lambda of: "(" if of[1] in known else of[0], run.verdict or "")
    return "; ".join(part for part in (verdict, edge(run.edge) if run.edge else "") if part)


def edge(found: EdgeSummary) -> str:
    """'sharpness 4.2 × its limit after 40 steps, before the jump seen at step 52; 0.1 to 0.5 × in 5 calm states'."""
    ratios = found.calm_ratios
    calm = "no calm state was measured"
    if ratios:
        low, high = number(min(ratios)), number(max(ratios))
        calm = f"{low if low == high else f'{low} to {high}'} × in {counted(len(ratios), 'calm state')}"
    event = next((event for event in found.events if event.kind in ("jump", "growth", "nonfinite")), None)
    if event is None:
        return f"sharpness by its limit: {calm}"
    what = seen(event.kind, event.step)
    if event.state_step is None:
        return f"sharpness by its limit: no state before the {what} was measured; {calm}"
    ratio = "not found" if event.sharpness_ratio is None else f"{number(event.sharpness_ratio)} × its limit"
    return f"sharpness {ratio} after {counted(event.state_step, 'step')}, before the {what}; {calm}"


def seen(kind: EventKind, step: int) -> str:
    """'jump seen at step 400', by the probe; 'NaN at step 519', to the step."""
    return f"{EVENT_NAMES[kind]}{'' if kind == 'nonfinite' else ' seen'} at step {step:,}"


def marks(run: RunSummary) -> str:
    """The same without the evidence."""
    said = [mark(each) for each in run.course.marks]
    if run.course.far:
        said.insert(0, far_from_control(run))
    if run.course.unknown_after is not None:
        said.append(f"course unknown after step {run.course.unknown_after:,}")
    return "; ".join(said)


def far_from_control(run: RunSummary) -> str:
    """'far from the control already at step 350', its first probe after the burn-in."""
    first = "" if run.course.first_step is None else f" at step {run.course.first_step:,}"
    return f"far from the control already{first}"


def mark(found: CourseMark) -> str:
    """'jump seen at step 400 (R × 2.100)'; where probes are lacking, between which steps."""
    said = seen(found.kind, found.step)
    if found.gap:
        said = f"{EVENT_NAMES[found.kind]}, left between steps {found.after:,} and {found.step:,}"
    return f"{said} ({'limit' if found.kind == 'growth' else 'R'} × {number(found.factor)})"


def unmeasured(num_runs: int, study: str, run: str = "RUN") -> str:
    """Why the table of events lacks them, and the line that measures them."""
    return (
        f"Not measured of {counted(num_runs, 'run')} with an event: `vaehpc explain {study} --run {run} --stability`"
        " does it, from the checkpoints and snapshots that are kept and the data, and then `vaehpc report"
        f" {study}` shows it."
    )


def acted(arm: str, summary: StudySummary) -> str:
    """How often the limits of an arm changed anything; '' where it has none."""
    runs = [run for run in summary.runs.values() if run.arm == arm and run.num_recorded]
    recorded, said = sum(run.num_recorded for run in runs), []
    for setting in dict.fromkeys(setting for run in runs for setting in run.limits_acted):
        of_runs = [run.limits_acted.get(setting, 0) for run in runs]
        times = f"never acted in {recorded:,} recorded steps"
        if any(of_runs):
            in_runs = f"in {sum(map(bool, of_runs))} of {counted(len(runs), 'run')}"
            times = f"acted in {sum(of_runs):,} of {recorded:,} recorded steps, {in_runs}"
        said.append(f"The {LIMITS[setting]} {times}.")
    return " ".join(said)


# Tests between arms


def is_shown(test: EndpointTest, alpha: float) -> bool:
    """Whether the difference holds after Holm's adjustment, however the missing runs end."""
    return test.holm_if_missing is not None and test.holm_if_missing <= alpha


def is_decided(contrast: Contrast, alpha: float) -> bool:
    """Whether a difference of either endpoint is shown."""
    return any(is_shown(test, alpha) for test in contrast.tests.values())


def may_be_the_case(contrast: Contrast, plan: PlanConfig) -> bool:
    """Whether the arm that should leave less often can have the plan's smaller rate, for which a power is given.

    'Can': the exact interval of an endpoint holds it; 0 % is no rate of an arm of which a run did leave.
    """
    found = []
    for test in contrast.tests.values():
        if contrast.alternative != "greater":
            found.append(clopper_pearson(test.count, test.num_ended, plan.level))
        if contrast.alternative != "less":
            found.append(clopper_pearson(test.reference_count, test.reference_ended, plan.level))
    return any(each.low <= plan.contrasts.versus <= each.high for each in found)


def is_opposite(contrast: Contrast, test: EndpointTest) -> bool:
    """Whether the counts differ in the direction that a one-sided test does not look at."""
    more = test.count * test.reference_ended - test.reference_count * test.num_ended
    return (more < 0 and contrast.alternative == "greater") or (more > 0 and contrast.alternative == "less")


def tested(config: StudyConfig, summary: StudySummary) -> list[str]:
    """What the tests between arms found: differences, then opposite ones, then those that found nothing together.

    Where the plan has looks, they judge their two arms, and nothing else is tested before they found a difference.
    """
    alpha, said = 1 - config.plan.level, []
    contrasts: Sequence[Contrast] = summary.contrasts
    if looks := config.plan.contrasts.looks:
        if summary.look is None:
            return [
                f"The plan judges the counts after {enumeration([str(n) for n in looks])} seeds of each arm. This is"
                " none of these looks, or runs are missing: nothing is tested."
            ]
        said.append(judged(summary.look, config.plan.contrasts.primary_endpoint))
        if not summary.look.stops:
            return said
        contrasts = [without_look(each, summary.look, config.plan.contrasts.primary_endpoint) for each in contrasts]
    said += [equal(each) for each in contrasts if each.num_equal]
    contrasts = [each for each in contrasts if each.tests]
    confirmatory = [each for each in contrasts if any(test.holm is not None for test in each.tests.values())]
    shown = [each for each in confirmatory if is_decided(each, alpha)]
    opposite = [each for each in confirmatory if each not in shown and is_all_opposite(each)]
    undecided = [each for each in confirmatory if each not in shown and each not in opposite]
    said += [difference(each, alpha) for each in shown]
    said += [not_tested(each) for each in opposite]
    said += no_differences(undecided, config)
    if exploratory := [each for each in contrasts if each not in confirmatory]:
        said.append(explored(exploratory))
    return said + untested(config, summary)


def untested(config: StudyConfig, summary: StudySummary) -> list[str]:
    """The counts of the plan's reference arm beside an AE that is the same but for the VAE, where they are not tested.

    That is the study's question; where another AE is the control, no test answers it.
    """
    pairs = untested_pairs(config, summary)
    return [f"Alike but for the VAE, and not among the planned tests: {enumeration(pairs)}."] if pairs else []


def untested_pairs(config: StudyConfig, summary: StudySummary) -> list[str]:
    """'vae-tiny against ae (diverged or NaN 5 of 8 against 4 of 8)'; of a sweep for each value."""
    planned, arms, said = {(each.arm, each.reference) for each in summary.contrasts}, config.arms, []
    pairs = [
        (name, other)
        for name, arm in arms.items()
        for other, ae in arms.items()
        if arm.base == config.plan.contrasts.reference and arm.vae is not None and ae.vae is None
        if (arm.model, arm.train, arm.spike, arm.fork) == (ae.model, ae.train, ae.spike, ae.fork)
    ]
    for name, other in pairs if planned else []:
        of_arm, of_ae = summary.arms[name].endpoints, summary.arms[other].endpoints
        endpoint = next((endpoint for endpoint in LEFT if endpoint in of_arm and endpoint in of_ae), None)
        if (name, other) not in planned and endpoint is not None:
            counts_of = f"{of_ended(of_arm[endpoint])} against {of_ended(of_ae[endpoint])}"
            said.append(f"{name} against {other} ({NAMES[endpoint]} {counts_of})")
    return said


def without_look(contrast: Contrast, look: PlannedLook, endpoint: Endpoint) -> Contrast:
    """A contrast without the test that a look has decided."""
    if (contrast.arm, contrast.reference) != (look.arm, look.reference):
        return contrast
    return contrast.model_copy(
        update={"tests": {name: test for name, test in contrast.tests.items() if name != endpoint}}
    )


def is_all_opposite(contrast: Contrast) -> bool:
    """Whether an endpoint differs in the direction that is not tested, and none in the other."""
    tests = contrast.tests.values()
    alike = [test.count * test.reference_ended == test.reference_count * test.num_ended for test in tests]
    opposite = [is_opposite(contrast, test) for test in tests]
    return any(opposite) and all(left or right for left, right in zip(alike, opposite, strict=True))


def counts(test: EndpointTest) -> str:
    """'5 of 8 against 0 of 8'."""
    return f"{test.count} of {test.num_ended} against {test.reference_count} of {test.reference_ended}"


def clause(contrast: Contrast, endpoint: Endpoint, bare: bool = False) -> str:
    """'diverged 5 of 8 against 0 of 8 (p = 0.0128, Holm-adjusted 0.0256)'."""
    test = contrast.tests[endpoint]
    said = counts(test) if bare else f"{NAMES[endpoint]} {counts(test)}"
    if is_opposite(contrast, test):
        return f"{said} (not tested in that direction; two-sided {p_words(test.two_sided)})"
    p = p_words(test.boschloo)
    if test.holm is not None and p_value(test.holm) != p_value(test.boschloo):
        p += f", Holm-adjusted {p_value(test.holm)}"
    if range_of_p(test):
        p += f", {range_of_p(test)} by how the missing runs end"
    return f"{said} ({p})"


def p_words(p: float | None) -> str:
    """'p = 0.0128', 'p < 0.0001'."""
    return f"p = {p_value(p)}".replace("p = <", "p <")


def clauses(contrast: Contrast) -> str:
    """Both endpoints of a contrast."""
    return ", ".join(clause(contrast, endpoint) for endpoint in contrast.tests)


def of_reference(contrast: Contrast) -> str:
    """'its control ae'."""
    return f"its control {contrast.reference}" if contrast.is_control else contrast.reference


def difference(contrast: Contrast, alpha: float) -> str:
    """A difference that was shown, with both endpoints."""
    shown = [endpoint for endpoint, test in contrast.tests.items() if is_shown(test, alpha)]
    rest = [endpoint for endpoint in contrast.tests if endpoint not in shown]
    first = contrast.tests[shown[0]]
    more = first.count * first.reference_ended > first.reference_count * first.num_ended
    said = (
        f"{contrast.arm} {ENDPOINTS[shown[0]]} {'more' if more else 'less'} often than {of_reference(contrast)}:"
        f" {clause(contrast, shown[0], bare=True)}"
    )
    said += "".join(f"; {clause(contrast, endpoint)}, shown too" for endpoint in shown[1:])
    said += "".join(f"; {clause(contrast, endpoint)}, not shown" for endpoint in rest)
    return f"{said}. Boschloo's exact test, {sidedness(contrast)}; {_seed_pairs(contrast, shown[0])}."


def _seed_pairs(contrast: Contrast, endpoint: Endpoint) -> str:
    """McNemar's test beside."""
    test = contrast.tests[endpoint]
    if test.mcnemar is None:
        return f"no pair of equal seeds differs of {contrast.num_pairs}"
    return (
        f"of {counted(contrast.num_pairs, 'pair')} of equal seeds the arm's run alone did in {test.only_arm}, the"
        f" other's in {test.only_reference} (McNemar {p_words(test.mcnemar)})"
    )


def not_tested(contrast: Contrast) -> str:
    """Counts that differ in the other direction."""
    return (
        f"{contrast.arm} against {of_reference(contrast)}: {clauses(contrast)}. The plan asks only if it is"
        f" {'more' if contrast.alternative == 'greater' else 'less'} often."
    )


def no_differences(contrasts: Sequence[Contrast], config: StudyConfig) -> list[str]:
    """Differences that were not shown, a sentence each, and how little that says; nothing without any."""
    if not contrasts:
        return []
    said = []
    for each in contrasts:
        what = "" if any("diverged" in endpoint for endpoint in each.tests) else " in jumps or NaN"
        said.append(f"No difference{what} was shown between {each.arm} and {each.reference}: {clauses(each)}.")
    if len(said) > MOST_SENTENCES:
        pairs = "; ".join(f"{each.arm} and {each.reference}" for each in contrasts)
        tests = [test for each in contrasts for test in each.tests.values()]
        least = p_value(min(test.holm for test in tests if test.holm is not None))
        of = " of the runs that ended" if any(map(range_of_p, tests)) else ""
        said = [
            f"No difference was shown in {len(contrasts)} pairs of arms ({pairs}): the least Holm-adjusted p{of} is"
            f" {least}; the table of tests has their counts."
        ]
    plan = config.plan.contrasts
    power = "That is no proof of equal rates."
    if of_the_case := [each for each in contrasts if may_be_the_case(each, config.plan)]:
        weakest, strongest = (percent(end(each.power for each in of_the_case)) for end in (min, max))
        chance = weakest if weakest == strongest else f"{weakest} to {strongest}"
        of = f" of {enumeration([f'{each.arm} and {each.reference}' for each in of_the_case])}"
        power = (
            f"That is no proof of equal rates: with so many runs{of if len(of_the_case) < len(contrasts) else ''},"
            f" {percent(plan.rate)} against {percent(plan.versus)} is found with a probability of {chance} at the first"
            " of Holm's thresholds."
        )
    if hopeless := [f"{each.arm} and {each.reference}" for each in contrasts if is_hopeless(each, config.plan.level)]:
        power += f" For {enumeration(hopeless)} there are so few runs that no outcome could have shown one."
    return [*said[:-1], f"{said[-1]} {power}"]


def is_hopeless(contrast: Contrast, level: float) -> bool:
    """Whether no outcome could be shown, even if every other test of the family had been."""
    return contrast.least_p * sum(test.holm is not None for test in contrast.tests.values()) > 1 - level


def explored(contrasts: Sequence[Contrast]) -> str:
    """Tests that confirm nothing, and why."""
    pairs = []
    for each in contrasts:
        reasons = f" ({'; '.join(each.exploratory)})" if each.exploratory else ""
        pairs.append(f"{each.arm} against {each.reference}{reasons}: {clauses(each)}")
    return f"Exploratory, with p values that are not adjusted and confirm nothing: {'; '.join(pairs)}."


def equal(contrast: Contrast) -> str:
    """Pairs of runs that are equal to the bit."""
    differing = contrast.num_pairs - contrast.num_equal
    said = (
        f"{differing} of {counted(contrast.num_pairs, 'pair')} of {contrast.arm} and {contrast.reference}"
        f" {'differs' if differing == 1 else 'differ'} at all;"
    )
    if not differing:
        return f"{said} all are equal to the bit{'' if contrast.tests else ', and there is nothing to test'}."
    return f"{said} the other{' is' if contrast.num_equal == 1 else 's are'} equal to the bit."


def judged(look: PlannedLook, endpoint: Endpoint) -> str:
    """What a planned look found, and what follows."""
    num_seeds, did = look.looks[look.number - 1], ENDPOINTS[endpoint]
    least = "no number would be enough" if look.least_diverged is None else f"{look.least_diverged} are needed"
    found = (
        f"Look {look.number} of {len(look.looks)}, after {counted(num_seeds, 'seed')} per arm: {look.num_diverged} runs"
        f" of {look.arm} {did} and {look.reference_diverged} of {look.reference}, beside which {least} to stop"
        f" (O'Brien-Fleming-like spending; {percent(look.spent)} of a false alarm until now)."
    )
    if look.stops:
        return f"{found} {look.arm} {did} more often than {look.reference}: the plan stops here."
    if look.is_last:
        return (
            f"{found} No difference was shown, which is no proof of equal rates; as the plan's first question is open,"
            " nothing else is tested."
        )
    return f"{found} The plan goes on to {look.looks[look.number]} seeds; nothing else is tested before."


def sidedness(contrast: Contrast) -> str:
    """'one-sided' or 'two-sided'."""
    return "two-sided" if contrast.alternative == "two-sided" else "one-sided"


def discordant(contrast: Contrast, test: EndpointTest) -> str:
    """'5 : 0 of 8': pairs of equal seeds of which the arm's run alone counts, its reference's alone, and all."""
    return f"{test.only_arm}{NBSP}:{NBSP}{test.only_reference} of {contrast.num_pairs}"


def range_of_p(test: EndpointTest) -> str:
    """'0.0004 to 0.94': what the missing runs of both arms leave open; '' where none is missing."""
    low, high = test.boschloo_if_missing
    return "" if low == high == test.boschloo else f"{p_value(low)} to {p_value(high)}"


# When


EVENTS: Mapping[Event, str] = {"jump": "jumped", "growth": "grew", "nonfinite": "became NaN"}


def events(arm: str, curves: EventCurves) -> str:
    """What the followed runs of an arm did first, and which were lost."""
    did = [f"{of.count} {EVENTS[event]}" for event, of in curves.events.items()]
    said = f"{arm}: of {counted(curves.num_runs, 'followed run')} {enumeration(did) if did else 'none left'}"
    lost = [(curves.num_missing, "missing"), (curves.num_unknown, "with a cut probe")]
    if censored := enumeration([f"{count} {what}" for count, what in lost if count]):
        said += f"; censored: {censored}"
    if curves.num_missing:
        said += (
            f"; however the missing ended, {percent(curves.if_none_missing)} to {percent(curves.if_all_missing)} left"
        )
    if curves.num_far:
        said += f"; left out: {curves.num_far} far from the control before, whatever they did later"
    return f"{said}."


def not_followed(summary: StudySummary) -> list[str]:
    """Arms without curves, for all of their runs were far from the control before."""
    return [
        f"{name}: no run is followed; left out: {arm.num_far} far from the control before."
        for name, arm in summary.arms.items()
        if name not in summary.events and arm.num_far
    ]


def sooner(contrast: Contrast, summary: StudySummary) -> str:
    """What the log-rank test says of two arms with any event."""
    assert contrast.logrank is not None
    how = f"{contrast.num_permutations:,} permutations" if contrast.num_permutations else "all permutations"
    lost = [summary.arms[arm].num_missing / summary.arms[arm].num_runs for arm in (contrast.arm, contrast.reference)]
    caveat = "; exploratory, as more runs are missing in one arm" if lost[0] != lost[1] else ""
    return (
        f"{contrast.arm} against {contrast.reference}: log-rank z = {signed(contrast.logrank)} of any first event,"
        f" two-sided {p_words(contrast.logrank_p)} ({how} of the arms; not adjusted{caveat})."
    )


# What the reader must know


def caveats(config: StudyConfig, summary: StudySummary) -> list[str]:
    """What the reader must know before using a number of this study."""
    arms = summary.arms
    found = []
    if summary.data.synthetic:
        found.append("Built-in synthetic faces: the study shows the machinery and says nothing about CelebA.")
    if config.data.photographs:
        found.append("These images are not CelebA's: nothing is compared with what the article says of those.")
    if not config.data.has_attributes:
        found.append("The data set has no attributes: their linear probes are left out.")
    if config.preset == "demo":
        found.append("The demo preset shows the machinery, not science: a small net, few and small images, few steps.")
    found += too_short(config)
    for control, faults in {arm.control: arm.control_faults for arm in arms.values() if arm.control_faults}.items():
        found.append(
            f"The control {control} is not sound ({_faults(faults)}): classes of arms that are judged by it are"
            " exploratory; jumps, excursions and NaN need no control and are counted and tested."
        )
    classed = [name for name, arm in arms.items() if arm.endpoints and arm.unjudged != "unclassed"]
    if provisional := [name for name in classed if arms[name].provisional]:
        found.append(
            f"The classes of {enumeration(provisional)} are provisional: the plan asks for at least"
            f" {counted(config.plan.classes.min_control_runs, 'control run')}, and there are fewer."
        )
    if exploratory := [name for name, arm in arms.items() if arm.exploratory]:
        found.append(
            f"For {enumeration(exploratory)} 'shifted' and 'regular' are exploratory: the radii of the control runs"
            " scatter more than the plan allows."
        )
    if by_article := [name for name, arm in arms.items() if arm.control == "article"]:
        has, is_classed = ("has", "is") if len(by_article) == 1 else ("have", "are")
        found.append(
            f"{enumeration(by_article)} {has} no control arm in this study and {is_classed} classed by the article's"
            f" radius of {config.plan.classes.article_radius:g}."
        )
    found += of_precisions(config)
    if sum(arm.rate is not None for arm in arms.values()) > 1 and not summary.contrasts:
        found.append("Rates of different arms were not tested against each other: no difference is claimed.")
    if config.plan.contrasts.looks and summary.contrasts:
        found.append("The plan has several looks: the p values in tables are each of a single look.")
    if summary.deviations:
        deviations = "; ".join(summary.deviations)
        found.append(f"Not as planned before the first launch, so that every test is exploratory: {deviations}.")
    if summary.reclassed is not None:
        runs = f" Otherwise than by those: {'; '.join(summary.reclassed)}." if summary.reclassed else " No run differs."
        found.append(f"Planned by the rules of a release before 0.3.0; classes and onsets are by today's.{runs}")
    return found


def of_precisions(config: StudyConfig) -> list[str]:
    """Which arms are trained in which precision, where they differ in it."""
    arms_in: dict[str, list[str]] = {}
    for name, arm in config.arms.items():
        arms_in.setdefault(arm.train.precision, []).append(name)
    named = "; ".join(f"{enumeration(names)} in {precision}" for precision, names in arms_in.items())
    return [f"Arms differ in precision: {named}."] if len(arms_in) > 1 else []


def _faults(faults: Mapping[str, str]) -> str:
    named = [f"{name} {'became NaN' if what == 'nonfinite' else what}" for name, what in faults.items()][:MOST_NAMED]
    return enumeration(named + ([f"{len(faults) - MOST_NAMED} more"] if len(faults) > MOST_NAMED else []))


def too_short(config: StudyConfig) -> list[str]:
    """That arms end before a jump could be seen, or could be confirmed."""
    ends = {run.arm.name: (run.burn_in, run.num_steps) for run in config.runs()}
    every = config.plan.probe.every_steps
    num_probes = {arm: num_steps // every - burn_in // every for arm, (burn_in, num_steps) in ends.items()}
    said = []
    for end in dict.fromkeys(ends[arm] for arm, count in num_probes.items() if count <= 0):
        short = [arm for arm in ends if ends[arm] == end]
        said.append(
            f"Too short for jumps: {enumeration(short)} {'ends' if len(short) == 1 else 'end'} at step {end[1]:,}"
            f" without a probe after the burn-in of {end[0]:,} steps, so that none could be seen."
        )
    if last := [arm for arm, count in num_probes.items() if count == 1]:
        said.append(f"Only the last probe of {enumeration(last)} lies after the burn-in: no jump could be confirmed.")
    return said
