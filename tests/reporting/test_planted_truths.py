"""What the suite must and must not say of planted studies, whose truth is known run by run."""

import math
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import product
from pathlib import Path
from typing import Any

import pytest
from planted import NAN_RADIUS, Arms, Run, Said, planted, regular
from scipy import stats

Counts = tuple[int, int, int, int]
"""x of n against y of m."""


@dataclass(frozen=True)
class Case:
    """A planted study, and what is true of it."""

    name: str
    arms: Arms
    says: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """Expressions that the abstract's item on an arm matches; of '' the abstract."""
    must: Sequence[str] = ()
    """Expressions that report.md matches."""
    must_not: Sequence[str] = ()
    """Expressions that report.md matches nowhere."""
    classes: Mapping[str, Mapping[str | None, int]] = field(default_factory=dict)
    """Runs of an arm by class; None: missing."""
    ever: Mapping[str, int | None] = field(default_factory=dict)
    """Runs of an arm that ever diverged: jumped, grew or ended beyond; None where that is not judged of any."""
    without_rate: Sequence[str] = ()
    """Arms of whose classes no rate is made."""
    tested: Sequence[Counts] = ()
    """Endpoints whose p of Boschloo's test, one-sided, stands in summary.json."""
    planting: Mapping[str, Any] = field(default_factory=dict)


# Runs. R is 16 beside controls around 16; 350 is the first probe after the burn-in

JUMPED = Run(then={400: 66})
GREW = Run(then={350: 19.2, 400: 23, 450: 27.6, 500: 33.2, 550: 39.8, 600: 47.8})
FAR = Run(40)
BACK = Run(then={400: 40, 550: 16})
NAN_AFTER_JUMP = Run(then={400: 66}, nan=580)
LOST = Run(missing="train", stopped=250)
UNMEASURED = Run(missing="statistics")
DIPPED = Run(then={450: 8, 500: 16})
EXCURSION = Run(then={450: 66, 500: 16})
LAST = Run(then={600: 66})
TWO_PROBES = Run(then={350: 19.2, 400: 23, 450: 27.6, 500: 33.2, 550: 34, 600: 25})
SHARED = Run(then={step: 16 * 1.25**power for power, step in enumerate(range(350, 601, 50), start=1)})
TIED = Run(then={400: 19, 450: 22.5, 500: 26, 550: 29.5, 600: 32})
SCATTERED = [Run(36 * 1.6**power * (1 if power < 4 else 2.5)) for power in range(12)]
"""No two within a factor 1.5, nor any within it of a median that lies between the fourth and the fifth."""


def nan(*steps: int) -> list[Run]:
    return [Run(nan=step) for step in steps]


def same(runs: Sequence[Run]) -> list[Run]:
    """Which end in the state that another arm's runs of the same seeds end in."""
    return [replace(run, weights="shared") for run in runs]


def by_levels(left: Callable[[int, int, int], bool], num_noises: int = 4) -> list[Run]:
    """A run for each initialisation, order and noise, of four each; those that leave, jump."""
    return [
        replace(JUMPED if left(*levels) else Run(), seed=int("".join(map(str, levels))))
        for levels in product(range(4), range(4), range(num_noises))
    ]


CROSSED = {"cross": {"initialisation": 4, "shuffling": 4, "noise": 4}}


UNSOUND = r"\b(unsound|not sound)\b"
IS_UNSOUND = r"\b(is|are) (unsound|not sound)\b"
IS_PROVISIONAL = r"\b(is|are) provisional\b|\| provisional \|"
NOT_SHOWN = r"(not shown|no difference (is|was) shown)"
DIVERGED_SHOWN = r"vae-tiny (has )?diverged (significantly )?more often than"
SHOWN = r"vae-tiny [^\n]{0,160}more often"
NONFINITE = r"(non-?finite|NaN)"
OTHER_WAY = r"not tested in that direction[^\n]*two-sided|two-sided[^\n]*not tested in that direction"
JUMPS = r"(?<!\b0 of )\b[1-9]\d* (more )?jumped"
GROWS = r"\b[1-9]\d* (more )?grew"
NOT_JUDGED = (
    r"ended beyond the limit, as their arm, and lay far from the control at the first probe after the burn-in"
    r" \(step 350\) already: what happened before is not judged"
)


CASES = (
    # The headline's counts are not nested: each run that ended beyond stands once, with how it left first.
    Case(
        "headline",
        {
            "ae": regular(16),
            "vae-tiny": [*[JUMPED] * 3, GREW, FAR, BACK, Run(nan=19), NAN_AFTER_JUMP, LOST, *regular(7)],
        },
        says={
            "vae-tiny": [
                r"5 of 15 ended runs diverged \(3 jumped, 1 grew, 1 before step 350\); 1 more jumped and came back;"
                r" 2 became NaN, 1 of them after a jump or growth; 1 of 16 is missing"
            ],
            "ae": [r"0 of 16 ended runs diverged"],
        },
        must=[SHOWN, "NaN at step 19", "NaN at step 580"],
        classes={"vae-tiny": {"diverged": 5, "regular": 8, "nonfinite": 2, None: 1}, "ae": {"regular": 16}},
        tested=[(5, 15, 0, 16), (7, 15, 0, 16)],
        ever={"vae-tiny": 7, "ae": 0},
    ),
    # Nothing happened: an interval, not 'never', and no difference.
    Case(
        "all regular",
        {"ae": regular(8), "vae-tiny": regular(8)},
        says={"vae-tiny": [r"0 of 8 ended runs diverged", r"36\.9 %"], "": [NOT_SHOWN]},
        must_not=[DIVERGED_SHOWN, JUMPS, GROWS, IS_UNSOUND, "too few to tell", r"\d [\w -]*pairs differ at all"],
        classes={"vae-tiny": {"regular": 8}, "ae": {"regular": 8}},
        tested=[(0, 8, 0, 8)],
    ),
    # NaN is an endpoint: 3 of 3 against 0 of 3 is p = 0.016 for diverged or non-finite.
    Case(
        "every VAE NaN within 20 steps",
        {"ae": regular(3), "vae-tiny": nan(12, 17, 19)},
        says={
            "vae-tiny": [r"0 of 3 ended runs diverged", r"3 became NaN"],
            "": [r"3 of 3[^\n]*0 of 3[^\n]*0\.0(16|156|31)", rf"diverged or (became )?{NONFINITE}"],
        },
        must=["NaN at step 12", "NaN at step 17", "NaN at step 19", "provisional"],
        classes={"vae-tiny": {"nonfinite": 3}, "ae": {"regular": 3}},
        tested=[(3, 3, 0, 3)],
    ),
    # A run that became NaN has no end state; the step of its NaN stands where its radius would.
    Case(
        "two VAEs NaN",
        {"ae": regular(8), "vae-tiny": [*nan(19, 250), *regular(6)]},
        says={"vae-tiny": [r"0 of 8 ended runs diverged", r"2 became NaN"]},
        must=["NaN at step 19", "NaN at step 250"],
        classes={"vae-tiny": {"nonfinite": 2, "regular": 6}},
        tested=[(2, 8, 0, 8)],
        planting={"latents": True},
    ),
    # Both endpoints in one clause: here NaN makes the difference, classes do not.
    Case(
        "NaN more often, divergence not",
        {"ae": regular(16), "vae-tiny": [JUMPED, *nan(21, 38, 67, 117, 144, 343, 365), *regular(8)]},
        says={
            "vae-tiny": [r"1 of 16 ended runs diverged \(1 jumped\); 7 became NaN"],
            "": [r"more often[^\n]*8 of 16|8 of 16[^\n]*more often", rf"diverged or (became )?{NONFINITE}", "1 of 16"],
        },
        must_not=[rf"{DIVERGED_SHOWN} (its control )?ae: 1 of 16 against 0 of 16 \("],
        classes={"vae-tiny": {"diverged": 1, "nonfinite": 7, "regular": 8}},
        tested=[(1, 16, 0, 16), (8, 16, 0, 16)],
    ),
    # VAEs that lie at 1.7 to 2.2 times the control from the first epoch on have not left anything.
    Case(
        "half of a displaced arm beyond the limit",
        {"ae": regular(8, 8.0), "vae-tiny": [Run(r) for r in (13.7, 14.3, 14.9, 15.5, 16.5, 16.9, 17.4, 17.9)]},
        says={"vae-tiny": [rf"4 of 8 {NOT_JUDGED}"]},
        must_not=[r"4 of 8 ended runs diverged", r"(?<!than )\b50 %", DIVERGED_SHOWN, JUMPS],
        classes={"vae-tiny": {"displaced": 4, "shifted": 4}},
        without_rate=["vae-tiny"],
    ),
    # All of an arm near one radius of its own: it is displaced, and its scatter allows to say by how much.
    Case(
        "displaced",
        {"ae": regular(16), "vae-tiny": regular(16, 34.0)},
        says={"vae-tiny": [rf"16 of 16 {NOT_JUDGED}", r"its regular radius is 2\.1 times the control's"]},
        must_not=[r"16 of 16 ended runs diverged", r"\b100 %", DIVERGED_SHOWN, JUMPS, "had an onset"],
        classes={"vae-tiny": {"displaced": 16}, "ae": {"regular": 16}},
        without_rate=["vae-tiny"],
        ever={"vae-tiny": None},
    ),
    # The same with s > 0.115: there is no one radius to compare.
    Case(
        "displaced with much scatter",
        {"ae": regular(16), "vae-tiny": [Run(34 * (50 / 34) ** (position / 15)) for position in range(16)]},
        says={"vae-tiny": [rf"16 of 16 {NOT_JUDGED}"]},
        must_not=["regular radius is", r"16 of 16 ended runs diverged"],
        classes={"vae-tiny": {"displaced": 16}},
        without_rate=["vae-tiny"],
    ),
    # Jumps and NaN of a displaced arm are counted and tested as ever.
    Case(
        "jumps out of a displaced arm",
        {"ae": regular(16), "vae-tiny": [*[Run(34, then={450: 140})] * 3, Run(nan=19), *regular(12, 34.0)]},
        says={"vae-tiny": [NOT_JUDGED, r"3 jumped", r"1 became NaN"]},
        classes={"vae-tiny": {"displaced": 12, "diverged": 3, "nonfinite": 1}},
        without_rate=["vae-tiny"],
        ever={"vae-tiny": None},
    ),
    # One to three runs cannot tell whether an arm has a radius of its own.
    Case(
        "three runs far from the start",
        {"ae": regular(8), "vae-tiny": regular(3, 34.0)},
        must=["too few to tell"],
        must_not=["regular radius is"],
        classes={"vae-tiny": {"diverged": 3}},
    ),
    Case(
        "one run in each arm",
        {"ae": regular(1), "vae-tiny": [JUMPED]},
        says={"vae-tiny": [r"1 of 1 ended runs? diverged \(1 jumped\)"], "": [NOT_SHOWN]},
        must=["provisional"],
        must_not=[DIVERGED_SHOWN],
        classes={"vae-tiny": {"diverged": 1}},
        tested=[(1, 1, 0, 1)],
    ),
    # Early and far from each other: no radius of the arm's own, so they diverged, before anything was judged.
    Case(
        "twelve early and scattered",
        {"ae": regular(16), "vae-tiny": [*SCATTERED, *regular(4)]},
        says={"vae-tiny": [r"12 of 16 ended runs diverged \(12 before step 350\)"]},
        must=[SHOWN],
        must_not=[NOT_JUDGED, JUMPS],
        classes={"vae-tiny": {"diverged": 12, "regular": 4}},
        tested=[(12, 16, 0, 16)],
        ever={"vae-tiny": 12},
    ),
    Case(
        "all early",
        {"ae": regular(8), "vae-tiny": SCATTERED[:8]},
        says={"vae-tiny": [r"8 of 8 ended runs diverged \((8|all)( of them)? before step 350\)"]},
        must_not=[NOT_JUDGED, JUMPS],
        classes={"vae-tiny": {"diverged": 8}},
        tested=[(8, 8, 0, 8)],
    ),
    # A jump that came back is no divergence at the end, and stands beside it.
    Case(
        "half jump and come back",
        {"ae": regular(16), "vae-tiny": [*[BACK] * 8, *regular(8)]},
        says={"vae-tiny": [r"0 of 16 ended runs diverged", r"8 (more )?jumped and came back"], "": [NOT_SHOWN]},
        must_not=[DIVERGED_SHOWN, r"8 of 16 ended runs diverged"],
        classes={"vae-tiny": {"regular": 16}},
        tested=[(0, 16, 0, 16)],
        ever={"vae-tiny": 8},
    ),
    # NaN after a jump: the run counts as NaN, once, and the jump is said.
    Case(
        "jump, then NaN",
        {"ae": regular(8), "vae-tiny": [*[NAN_AFTER_JUMP] * 4, *regular(4)]},
        says={
            "vae-tiny": [
                r"0 of 8 ended runs diverged",
                r"4 became NaN, (4|all|all 4|each) (of them )?after a jump or growth",
            ]
        },
        must_not=["jumped and came back"],
        classes={"vae-tiny": {"nonfinite": 4, "regular": 4}},
        tested=[(4, 8, 0, 8)],
        ever={"vae-tiny": 4},
    ),
    # Sound controls: at most one in eight not finite, none jumped or grew, none beyond twice or under half of exp(m).
    Case(
        "one control NaN of eight",
        {"ae": [*nan(117), *regular(7)], "vae-tiny": [*[JUMPED] * 6, *regular(2)]},
        says={"vae-tiny": [r"6 of 8 ended runs diverged \(6 jumped\)"], "ae": [r"1 became NaN"]},
        must=[SHOWN],
        must_not=[IS_UNSOUND],
        classes={"ae": {"nonfinite": 1, "regular": 7}, "vae-tiny": {"diverged": 6, "regular": 2}},
        tested=[(6, 8, 0, 8), (6, 8, 1, 8)],
    ),
    Case(
        "two controls NaN of eight",
        {"ae": [*nan(117, 217), *regular(6)], "vae-tiny": [*[JUMPED] * 6, *regular(2)]},
        says={"vae-tiny": [r"6 jumped"], "ae": [r"2 became NaN"]},
        must=[UNSOUND, "exploratory"],
        must_not=[DIVERGED_SHOWN],
        classes={"ae": {"nonfinite": 2, "regular": 6}},
        without_rate=["vae-tiny"],
    ),
    Case(
        "controls in two groups",
        {"ae": [*regular(4, 8.0), *regular(4, 66.0)], "vae-tiny": regular(8, 8.0)},
        says={"vae-tiny": [r"8 [^\n]*collapsed|collapsed[^\n]* 8"]},
        must=[UNSOUND, "exploratory"],
        must_not=[DIVERGED_SHOWN],
        without_rate=["vae-tiny"],
    ),
    Case(
        "controls that jump",
        {"ae": [*[JUMPED] * 3, *regular(5)], "vae-tiny": [*[JUMPED] * 2, *regular(6)]},
        says={"vae-tiny": [r"2 jumped"], "ae": [r"3 jumped"]},
        must=[UNSOUND, "exploratory"],
        must_not=[DIVERGED_SHOWN],
        without_rate=["vae-tiny"],
    ),
    # A control that jumped and came back ends where it should, and yet is not sound.
    Case(
        # One of eight moves no median, two are too many: half of clipped AEs would be unsound, were one too many.
        "two controls that jumped and came back",
        {"ae": [BACK, BACK, *regular(6)], "vae-tiny": [*[JUMPED] * 6, *regular(2)]},
        says={"ae": [r"2 (more )?jumped"]},
        must=[UNSOUND],
        must_not=[DIVERGED_SHOWN],
        without_rate=["vae-tiny"],
    ),
    Case(
        "a control that ends under half",
        {"ae": [Run(6), *regular(7)], "vae-tiny": regular(8)},
        must=[UNSOUND],
        classes={"ae": {"collapsed": 1, "regular": 7}},
        without_rate=["vae-tiny"],
    ),
    # Controls that are sound, and so scattered (s > 0.115) that 'shifted' and 'regular' are exploratory.
    Case(
        "scattered controls",
        {"ae": [Run(r) for r in (12, 13, 14, 16, 16.5, 19, 21, 23)], "vae-tiny": regular(8)},
        says={"vae-tiny": [r"0 of 8 ended runs diverged"]},
        must=["exploratory"],
        must_not=[IS_UNSOUND],
        classes={"vae-tiny": {"regular": 8}, "ae": {"regular": 8}},
    ),
    # A one-sided test says nothing of the other side: 'not tested in that direction', with the two-sided p.
    Case(
        "the control diverges, the VAE does not",
        {"ae": [*[JUMPED] * 7, *regular(9)], "vae-tiny": regular(16)},
        says={"ae": [r"7 jumped"], "": [OTHER_WAY]},
        must=[UNSOUND],
        must_not=[DIVERGED_SHOWN],
        without_rate=["vae-tiny"],
    ),
    Case(
        "the sound control has NaN, the VAE has none",
        {"ae": [*nan(117, 217), *regular(14)], "vae-tiny": regular(16)},
        says={"": [OTHER_WAY]},
        must_not=[IS_UNSOUND, DIVERGED_SHOWN],
        classes={"ae": {"nonfinite": 2, "regular": 14}, "vae-tiny": {"regular": 16}},
    ),
    # 'Shown' is what stands whatever became of the missing runs.
    Case(
        "missing in both arms",
        {"ae": [*regular(10), *[LOST] * 6], "vae-tiny": [*[JUMPED] * 5, *regular(5), *[LOST] * 5, UNMEASURED]},
        says={
            "vae-tiny": [r"5 of 10 ended runs diverged \(5 jumped\)[^\n]*6 of 16 are missing"],
            "ae": [r"6 of 16 are missing"],
            "": [NOT_SHOWN, r"(?m)^(?=.*missing).*\d\.\d+ (to|and) [01]\b"],
        },
        must_not=[DIVERGED_SHOWN],
        classes={"vae-tiny": {"diverged": 5, "regular": 5, None: 6}, "ae": {"regular": 10, None: 6}},
        tested=[(5, 10, 0, 10)],
    ),
    Case(
        "missing in one arm only",
        {"ae": regular(16), "vae-tiny": [*[JUMPED] * 4, *regular(2), *[LOST] * 26]},
        says={"vae-tiny": [r"4 of 6 ended runs diverged \(4 jumped\)[^\n]*26 of 32 are missing"], "": [NOT_SHOWN]},
        must_not=[DIVERGED_SHOWN],
        classes={"vae-tiny": {"diverged": 4, "regular": 2, None: 26}},
        tested=[(4, 6, 0, 16)],
    ),
    Case(
        "missing runs that cannot matter",
        {"ae": [*regular(15), LOST], "vae-tiny": [*[JUMPED] * 12, *regular(3), LOST]},
        says={"vae-tiny": [r"12 of 15 ended runs diverged \(12 jumped\)[^\n]*1 of 16 is missing"]},
        must=[SHOWN],
        must_not=[NOT_SHOWN],
        classes={"vae-tiny": {"diverged": 12, "regular": 3, None: 1}},
        tested=[(12, 15, 0, 15)],
    ),
    # Twice the control's radius is the limit, not beyond it; nor is half.
    Case(
        "exactly at the limits",
        {"ae": [Run(15), Run(16), Run(17)] * 3, "vae-tiny": [TIED, Run(8), *[Run(16)] * 7]},
        says={"vae-tiny": [r"0 of 9 ended runs diverged"]},
        must_not=[GROWS, JUMPS],
        classes={"vae-tiny": {"shifted": 2, "regular": 7}},
    ),
    # A probe that is cut hides the course, not the class; a gap hides when.
    Case(
        "a cut probe",
        {"ae": regular(8), "vae-tiny": [Run(then={500: 66}, cut=400), *regular(7)]},
        says={"vae-tiny": [r"1 of 8 ended runs diverged"]},
        must=[r"unknown after step 400"],
        must_not=[JUMPS, r"\d before step 350"],
        classes={"vae-tiny": {"diverged": 1, "regular": 7}},
        ever={"vae-tiny": 1},
    ),
    Case(
        "a gap in the probe",
        {"ae": regular(8), "vae-tiny": [Run(then={500: 66}, gap=(400, 500)), *regular(7)]},
        says={"vae-tiny": [r"1 of 8 ended runs diverged \(1 jumped\)"]},
        must=[r"left between (steps? )?350 and (step )?550"],
        classes={"vae-tiny": {"diverged": 1, "regular": 7}},
    ),
    # Pairs on which a remedy never acted are equal to the bit: they are named, and make no test.
    Case(
        "five of eight pairs equal",
        {"ae": regular(8), "vae-tiny": same(regular(8)), "vae-eps5": [*same(regular(5)), *regular(8)[5:]]},
        must=[r"3 of 8 ([\w-]+ )?pairs [^\n]{0,80}differ at all"],
    ),
    Case(
        "all pairs equal",
        {"ae": regular(8), "vae-tiny": same(regular(8)), "vae-eps5": same(regular(8))},
        must=[r"(0|none) of (the )?8 ([\w-]+ )?pairs [^\n]{0,80}differs? at all"],
        must_not=[r"no difference was shown between (vae-eps5 and vae-tiny|vae-tiny and vae-eps5)"],
    ),
    # Recovery from a dip is no jump.
    Case(
        "dips",
        {"ae": regular(8), "vae-tiny": [*[DIPPED] * 3, *regular(5)]},
        says={"vae-tiny": [r"0 of 8 ended runs diverged"]},
        must_not=[JUMPS, GROWS, "abrupt", "excursion at"],
        classes={"vae-tiny": {"regular": 8}},
        ever={"vae-tiny": 0},
    ),
    # What does not last is listed, and not counted.
    Case(
        "excursions",
        {"ae": regular(8), "vae-tiny": [*[EXCURSION] * 3, *regular(5)]},
        says={"vae-tiny": [r"0 of 8 ended runs diverged"]},
        must=["excursion"],
        must_not=[JUMPS, GROWS],
        classes={"vae-tiny": {"regular": 8}},
        ever={"vae-tiny": 0},
    ),
    # A jump at the last probe cannot be seen to last.
    Case(
        "a jump at the last probe",
        {"ae": regular(8), "vae-tiny": [LAST, *regular(7)]},
        says={"vae-tiny": [r"1 of 8 ended runs diverged"]},
        must=["unconfirmed"],
        classes={"vae-tiny": {"diverged": 1, "regular": 7}},
    ),
    # Slow growth: beyond twice the control in three probes running, without a jump.
    Case(
        "slow growth",
        {"ae": regular(8), "vae-tiny": [GREW, *regular(7)]},
        says={"vae-tiny": [r"1 of 8 ended runs diverged \(1 grew\)"]},
        must_not=[JUMPS],
        classes={"vae-tiny": {"diverged": 1, "regular": 7}},
        ever={"vae-tiny": 1},
    ),
    Case(
        "growth in two probes only",
        {"ae": regular(8), "vae-tiny": [TWO_PROBES, *regular(7)]},
        says={"vae-tiny": [r"0 of 8 ended runs diverged"]},
        must_not=[JUMPS, GROWS],
        classes={"vae-tiny": {"shifted": 1, "regular": 7}},
    ),
    # Growth that the control shares is none of the run's.
    Case(
        "growth in both arms",
        {"ae": [SHARED] * 8, "vae-tiny": [SHARED] * 8},
        says={"vae-tiny": [r"0 of 8 ended runs diverged"]},
        must_not=[JUMPS, GROWS, IS_UNSOUND],
        classes={"vae-tiny": {"regular": 8}, "ae": {"regular": 8}},
        ever={"vae-tiny": 0, "ae": 0},
    ),
    # Collapsed and shifted runs are in the sentences, not only in the table.
    Case(
        "collapsed runs",
        {"ae": regular(8), "vae-tiny": [*[Run(6)] * 2, *regular(6)]},
        says={"vae-tiny": [r"0 of 8 ended runs diverged", r"\b2 [^\n]*collapsed"]},
        classes={"vae-tiny": {"collapsed": 2, "regular": 6}},
    ),
    Case(
        "shifted runs",
        {"ae": regular(8), "vae-tiny": [*[Run(19.75)] * 3, *regular(5)]},
        says={"vae-tiny": [r"0 of 8 ended runs diverged", r"\b3 [^\n]*shifted"]},
        classes={"vae-tiny": {"shifted": 3, "regular": 5}},
    ),
    # Without a control there are no classes; jumps and NaN need none.
    Case(
        "no control in the study",
        {"vae-tiny": [*[JUMPED] * 3, Run(nan=19), *regular(4)], "vae-eps5": regular(8)},
        says={"vae-tiny": [r"3 jumped", r"1 became NaN"]},
        must=[r"no control|unclassified"],
        must_not=[DIVERGED_SHOWN, r"\d of \d ended runs diverged"],
        classes={"vae-tiny": {"unclassified": 7, "nonfinite": 1}, "vae-eps5": {"unclassified": 8}},
        without_rate=["vae-tiny", "vae-eps5"],
    ),
    Case(
        "a control that is missing altogether",
        {"ae": [LOST] * 8, "vae-tiny": [*[JUMPED] * 3, *regular(5)]},
        says={"vae-tiny": [r"3 jumped"], "ae": [r"8 of 8 are missing|all 8[^\n]*missing"]},
        must_not=[DIVERGED_SHOWN],
        classes={"vae-tiny": {"unclassified": 8}, "ae": {None: 8}},
        without_rate=["vae-tiny", "ae"],
    ),
    # Fewer than eight controls: provisional.
    Case(
        "seven controls",
        {"ae": regular(7), "vae-tiny": [*[JUMPED] * 3, *regular(5)]},
        says={"": ["provisional"], "vae-tiny": [r"3 of 8 ended runs diverged \(3 jumped\)"]},
        classes={"vae-tiny": {"diverged": 3, "regular": 5}},
        tested=[(3, 8, 0, 7)],
    ),
    Case(
        "eight controls",
        {"ae": regular(8), "vae-tiny": [*[JUMPED] * 3, *regular(5)]},
        must_not=[IS_PROVISIONAL],
        tested=[(3, 8, 0, 8)],
    ),
    # A study that ends with its burn-in has nothing to say of onsets.
    Case(
        "a study that ends with its burn-in",
        {"ae": regular(8), "vae-tiny": regular(8)},
        must=["too short"],
        must_not=[r"\b0 of \d+ [^\n]{0,20}had an onset", JUMPS, GROWS],
        classes={"vae-tiny": {"regular": 8}},
        planting={"epochs": 3},
    ),
    Case(
        "a study that ends three steps after its burn-in",
        {"ae": regular(8), "vae-tiny": [*[FAR] * 2, *regular(6)]},
        says={"vae-tiny": [r"2 of 8 ended runs diverged"]},
        must=["too short"],
        must_not=[r"\b0 of \d+ [^\n]{0,20}had an onset", JUMPS, GROWS],
        classes={"vae-tiny": {"diverged": 2, "regular": 6}},
        planting={"epochs": 3, "num_train": 12_928},
    ),
    # Arms share seeds: so it is said, where they do.
    Case(
        "four seeds in three arms",
        {"ae": regular(4), "vae-tiny": regular(4), "vae-eps5": regular(4)},
        says={"": [r"12 runs[^\n]*the same 4 seeds in each arm"]},
    ),
    Case(
        "as many seeds, but others",
        {"ae": regular(4), "vae-tiny": [replace(run, seed=4 + place) for place, run in enumerate(regular(4))]},
        must_not=[r"the same \d+ seeds", "McNemar[^\n]*p = "],
    ),
    Case(
        "fewer seeds in one arm",
        {"ae": regular(8), "vae-tiny": regular(4)},
        must_not=[r"the same \d+ seeds in each arm"],
    ),
    # McNemar's test over shared seeds stands beside.
    Case(
        "shared seeds",
        {"ae": regular(12), "vae-tiny": [*[JUMPED] * 8, *regular(4)]},
        must=["McNemar", SHOWN],
        classes={"vae-tiny": {"diverged": 8, "regular": 4}},
        tested=[(8, 12, 0, 12)],
    ),
    # A sweep: each value has its own control, and half leave between those whose counts say so.
    Case(
        "sweep",
        {
            **{f"ae-lr{rate}": regular(8) for rate in ("1e-3", "2e-3", "4e-3")},
            "vae-tiny-lr1e-3": regular(8),
            "vae-tiny-lr2e-3": [*[JUMPED] * 3, Run(nan=19), *regular(4)],
            "vae-tiny-lr4e-3": [JUMPED] * 8,
        },
        must=[
            r"Of vae-tiny over train.learning_rate, 0 of 8 at 0.001, 4 of 8 at 0.002 and 8 of 8 at 0.004 diverged or"
            r" became NaN\. More leave at larger values \(exact test within seeds, two-sided p = 0.0003,"
            r" exploratory\)\. Half leave between 0.001 and 0.004,"
            r" as the share is fitted to rise or fall alone; the intervals allow no"
            r" value for it but those between 0.001 and 0.004 \(95 %\)\.",
            r"Of ae over train.learning_rate, 0 of 8 at 0.001, 0 of 8 at 0.002 and 0 of 8 at 0.004 diverged or became"
            r" NaN\.\n",
            r"more often than its control ae-lr4e-3",
        ],
        classes={"vae-tiny-lr2e-3": {"diverged": 3, "nonfinite": 1, "regular": 4}},
        tested=[(4, 8, 0, 8), (8, 8, 0, 8)],
        planting={"sweep": "ae vae-tiny train.learning_rate=1e-3,2e-3,4e-3"},
    ),
    # Crossed streams: which of them decides.
    Case(
        "the initial weights decide alone",
        {
            "ae": by_levels(lambda *_: False, num_noises=1),
            "vae-tiny": by_levels(lambda initialisation, *_: initialisation in (0, 2)),
        },
        must=[
            r"streams crossed: 4 × initialisation, 4 × shuffling, 4 × noise",
            r"Streams of vae-tiny crossed, 4 initial weights × 4 orders of images × 4 noises: 32 of 64 diverged"
            r" or became NaN\. Whether a run leaves: shown to matter: initial weights \(p = 0.0139, Holm-adjusted;"
            r" 100 % of the variance\); 0 % of it comes of all 3 together\.",
            r"Streams of ae crossed, 4 initial weights × 4 orders of images: 0 of 16 diverged or became NaN\. All"
            r" runs did the same, so that no stream decides it\.",
            r"are not independent: the intervals and tests of its arms, which take them as such, are exploratory",
        ],
        must_not=["more often than"],
        classes={"vae-tiny": {"diverged": 32, "regular": 32}, "ae": {"regular": 16}},
        planting=CROSSED,
    ),
)


@pytest.fixture(scope="module", params=CASES, ids=lambda case: case.name)
def case(request: pytest.FixtureRequest) -> Case:
    found: Case = request.param
    return found


@pytest.fixture(scope="module")
def said(case: Case, tmp_path_factory: pytest.TempPathFactory) -> Said:
    with pytest.MonkeyPatch.context() as monkeypatch:
        return planted(tmp_path_factory.mktemp("planted"), case.arms, monkeypatch, **case.planting)


def test_the_report_says_what_is_true_and_nothing_else(case: Case, said: Said) -> None:
    texts = {arm: said.of_arm(arm) if arm else said.abstract for arm in case.says}
    wanted = [(f"of {arm or 'all'}", text, pattern) for arm, text in texts.items() for pattern in case.says[arm]]
    wanted += [("in report.md", said.report, pattern) for pattern in case.must]
    faults = [f"not said {where}: {pattern}" for where, text, pattern in wanted if not re.search(pattern, text, re.I)]
    for pattern in case.must_not:
        faults += [f"said, and not true: {match[0]!r}" for match in re.finditer(pattern, said.report, re.I)]
    assert not faults, shown(faults, said)


def test_classes_rates_and_tests_are_those_of_the_planted_runs(case: Case, said: Said) -> None:
    faults = [
        f"classes of {arm}: {dict(said.classes(arm))}, planted {dict(classes)}"
        for arm, classes in case.classes.items()
        if said.classes(arm) != Counter(classes)
    ]
    for arm, count in case.ever.items():
        found = Counter(run["ever_diverged"] for run in said.summary["runs"].values() if run["arm"] == arm)
        is_right = found[True] == count if count is not None else set(found) == {None}
        faults += [] if is_right else [f"{arm}: ever diverged {dict(found)}, planted {count}"]
    faults += [f"{arm} has a rate" for arm in case.without_rate if said.summary["arms"][arm]["rate"] is not None]
    faults += [
        f"p = {p:.6g} of {x} of {n} against {y} of {m} is not in summary.json"
        for x, n, y, m in case.tested
        if not contains(said.numbers, p := boschloo(x, n, y, m))
    ]
    assert not faults, shown(faults, said)


def test_what_is_true_of_every_study(case: Case, said: Said) -> None:
    faults = [*of_sentences(case, said), *of_summary(case, said)]
    for arm, runs in case.arms.items():
        faults += of_headline(arm, runs, said)
    assert not faults, shown(faults, said)


def shown(faults: Sequence[str], said: Said) -> str:
    return "\n".join(["", *faults, "", said.abstract])


def of_sentences(case: Case, said: Said) -> list[str]:
    """Faults of wording."""
    faults = ["'each with its own random seed'"] if "each with its own random seed" in said.report + said.page else []
    arms = "|".join(case.arms)
    faults += [f"grammar: {found[0]!r}" for found in re.finditer(rf"\b({arms}) and ({arms}) has\b", said.report)]
    for line in said.abstract.splitlines():
        percents = set(re.findall(r"\d[\d.]* %", line)) - {"95 %"}
        percents -= set(re.findall(r"margin of (\d+ %)", line))
        is_of_power = re.search(r"power|would find|can show", line)
        if percents and not is_of_power and not re.search(r"\b\d+ of \d+\b", line):
            faults.append(f"{sorted(percents)} without counts: {line}")
        judged = re.search(r"no difference was shown between|more often than", line, re.I)
        if judged and not re.search(NONFINITE, line, re.I):
            faults.append(f"one endpoint without the other: {line}")
        named = re.search(
            r"no difference was shown between (?:its control )?([\w-]+) and (?:its control )?([\w-]+)", line, re.I
        )
        if named and is_opposite(said, *named.groups()) and "not tested in that direction" not in line:
            faults.append(f"the observed difference is the opposite of what was tested: {line}")
    return faults


def is_opposite(said: Said, arm: str, reference: str) -> bool:
    """Whether fewer runs diverged, or became NaN, in an arm than in its control: the other side is tested."""
    if said.summary["control"].get(arm) != reference or said.summary["arms"][arm]["rate"] is None:
        return False

    def share(of: str, *classes: str) -> float:
        counts = said.classes(of)
        ended = counts.total() - counts[None]
        return sum(counts[name] for name in classes) / ended if ended else math.nan

    endpoints = (("diverged",), ("diverged", "nonfinite"))
    return any(share(arm, *classes) < share(reference, *classes) for classes in endpoints)


def of_headline(arm: str, runs: Sequence[Run], said: Said) -> list[str]:
    """Faults of the counts in the abstract's item on an arm."""
    item, classes = said.of_arm(arm), said.classes(arm)
    missing, nonfinite = (sum(getattr(run, what) is not None for run in runs) for what in ("missing", "nan"))
    faults = []
    if (classes[None], classes["nonfinite"], classes.total()) != (missing, nonfinite, len(runs)):
        faults.append(f"{arm}: planted {missing} missing and {nonfinite} NaN of {len(runs)}, found {dict(classes)}")
    if found := re.search(r"(\d+) of (\d+) ended runs? diverged(?: \(([^)]*)\))?", item):
        diverged, ended = int(found[1]), int(found[2])
        if ended != len(runs) - missing or diverged != classes["diverged"]:
            faults.append(f"{arm}: {found[0]!r}, but {classes['diverged']} of {len(runs) - missing} are so classed")
        if found[0] not in " ".join(said.page.split()):
            faults.append(f"{arm}: {found[0]!r} stands in report.md, not in report.html")
        ways = [int(count) for count in re.findall(r"(?<![\w.])(\d+) (?:jumped|grew|before step)", found[3] or "")]
        if ways and sum(ways) != diverged:
            faults.append(f"{arm}: {found[3]} make {sum(ways)}, not {diverged}")
    for pattern, count in ((r"(\d+) became NaN", nonfinite), (rf"(\d+) of {len(runs)} (?:is|are) missing", missing)):
        faults += [
            f"{arm}: {found[0]!r}, planted {count}" for found in re.finditer(pattern, item) if int(found[1]) != count
        ]
    return faults


def of_summary(case: Case, said: Said) -> list[str]:
    """Faults of summary.json, and of a NaN run's last good state wherever it stands."""
    faults = []
    for name, run in said.summary["runs"].items():
        if run["class"] == "nonfinite":
            left = {key: run[key] for key in ("radius_median", "radius_mode", "reconstruction_loss", "kl_loss")}
            left |= run["cloud"]
            faults += [f"{name} is NaN and has {key} {value}" for key, value in left.items() if value is not None]
    for arm, found in said.summary["arms"].items():
        classes = said.classes(arm)
        ended = classes.total() - classes[None]
        told = {"num_runs": classes.total(), "num_missing": classes[None]}
        told |= {
            f"num_{name}": classes[name] for name in ("diverged", "nonfinite", "shifted", "collapsed", "unclassified")
        }
        told["num_diverged_or_nonfinite"] = classes["diverged"] + classes["nonfinite"]
        faults += [f"{arm}: {key} {found[key]}, counted {count}" for key, count in told.items() if found[key] != count]
        if found["rate"] is not None:
            exact = stats.binomtest(classes["diverged"], ended).proportion_ci(0.95, "exact")
            told_rate, true_rate = (found["rate"], found["low"], found["high"]), (classes["diverged"] / ended, *exact)
            if told_rate != pytest.approx(true_rate, rel=1e-6, abs=1e-9):
                faults.append(f"{arm}: rate and interval {told_rate}, of the counts {true_rate}")
    if case.planting.get("latents") and not said.summary["likeness"]:
        faults.append("runs with latents were not compared")
    for arm, likeness in said.summary["likeness"].items():
        of_nan = {name for name, run in said.summary["runs"].items() if run["class"] == "nonfinite"}
        for pair in [*likeness["pairs"], *likeness["null"]]:
            faults += [
                f"{arm}: {name} is NaN and in a pair" for name in of_nan if name in (pair["first"], pair["second"])
            ]
    rows = re.findall(r"^\|[^|\n]*(?:R from|peak of the radius)[^|\n]*\|[^|\n]*\|(.*)\|$", said.report, re.M)
    values = [float(number) for row in rows for number in re.findall(r"\d+(?:\.\d+)?", row)]
    if (
        any(run.nan is not None for runs in case.arms.values() for run in runs)
        and min(values, default=9) < 2 * NAN_RADIUS
    ):
        faults.append(f"the last good state of a NaN run, R = {NAN_RADIUS}, stands in 'article and measured'")
    return faults


# Numbers that no sentence prescribes


def boschloo(x: int, n: int, y: int, m: int) -> float:
    """p of Boschloo's exact test, one-sided: is x of n more than y of m?"""
    return float(stats.boschloo_exact([[x, y], [n - x, m - y]], alternative="greater", n=64).pvalue)


def contains(numbers: Sequence[float], value: float) -> bool:
    return any(math.isclose(number, value, rel_tol=2e-3) for number in numbers)


def of_case(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Said:
    found = next(case for case in CASES if case.name == name)
    return planted(tmp_path, found.arms, monkeypatch, **found.planting)


def test_holm_is_over_both_endpoints(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said = of_case("NaN more often, divergence not", tmp_path, monkeypatch)
    least, largest = boschloo(8, 16, 0, 16), boschloo(1, 16, 0, 16)
    assert contains(said.numbers, 2 * least), shown([f"no Holm p of {2 * least:.4g}"], said)
    assert contains(said.numbers, max(2 * least, largest)), shown([f"no Holm p of {largest:.4g}"], said)


def test_missing_runs_may_end_in_any_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said = of_case("missing in both arms", tmp_path, monkeypatch)
    ways = [boschloo(5 + of_arm, 16, of_control, 16) for of_arm, of_control in product(range(7), range(7))]
    for p in (min(ways), max(ways)):
        assert contains(said.numbers, p) or contains(said.numbers, min(1.0, 2 * p)), shown([f"no p of {p:.4g}"], said)


def test_mcnemar_is_over_the_pairs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said = of_case("shared seeds", tmp_path, monkeypatch)
    sides = [stats.binomtest(8, 8, alternative=side).pvalue for side in ("greater", "two-sided")]
    assert any(contains(said.numbers, p) for p in sides), shown([f"no McNemar p of {sides}"], said)


@pytest.mark.slow  # pages are drawn in processes of their own
def test_pages_and_figures_of_a_study_with_nan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    arms = {"ae": regular(2), "vae-tiny": [Run(nan=250), JUMPED]}
    said = planted(tmp_path, arms, monkeypatch, draws=True)
    assert "the same 2 seeds in each arm" in said.page, said.page[:2000]
    assert re.search(r"1 of 2 ended runs diverged \(1 jumped\); 1 became NaN", said.page), said.page[:2000]
    head = said.pages["vae-tiny-seed000"]
    assert re.search(r"State of step 200, before NaN at step 250", head), head[:2000]
