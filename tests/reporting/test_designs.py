"""What is said of sweeps and crossed streams, by planted outcomes."""

import numpy as np
import pytest

from tests.examples import run_summary
from vaehpc.reporting import crossed, sweeps
from vaehpc.reporting.crossed import crossed_figure, decides
from vaehpc.schema.config import Stream
from vaehpc.schema.results import CrossedArm, Share, SweepSummary, SweptBase, SweptPoint
from vaehpc.stats.crossed import outcome
from vaehpc.stats.intervals import clopper_pearson

STREAMS: tuple[Stream, ...] = ("initialisation", "shuffling", "noise")
FIRST, SECOND, THIRD = np.ix_(*[np.arange(4)] * 3)


def said(left: np.ndarray) -> str:
    """Of 64 runs by the levels of their streams."""
    planted = (left & np.ones((4, 4, 4), bool)).astype(float)
    return decides(outcome(planted, STREAMS, 499, np.random.SeedSequence(1)), 0.05).replace("\u00a0", " ")


def test_which_stream_decides_is_said() -> None:
    assert said(FIRST % 2 == 0).startswith("shown to matter: initial weights (p = 0.0139, Holm-adjusted; 100 % of")
    together = said((FIRST + THIRD) % 2 == 0)
    assert together.startswith("shown to matter: initial weights and noise together (p ")
    assert together.endswith("100 % of the variance); 0 % of it comes of all 3 together")
    none = said((FIRST + SECOND + THIRD) % 2 == 0)
    assert none.startswith("no stream alone, nor two together, is shown to decide it")
    assert none.endswith("(least p = 1, Holm-adjusted); 100 % of the variance comes of all 3 together")
    two = said((FIRST % 2 == 0) & (SECOND < 3) | (THIRD == 9))
    assert two.startswith("shown to matter: initial weights and order of images together (p ")
    assert "noise" not in two


def test_random_outcomes_rarely_show_a_stream() -> None:
    numbers = np.random.default_rng(2)
    shown = [said(numbers.random((4, 4, 4)) < 0.4).startswith("shown") for _ in range(30)]
    assert sum(shown) <= 7  # six tests in two families, each at 5 %


@pytest.mark.parametrize(("count", "is_enough"), [(2, False), (4, True)])
def test_too_few_levels_are_said_to_be_too_few(count: int, is_enough: bool) -> None:
    planted = np.broadcast_to(np.arange(count) % 2.0, (count, count)).copy()
    arm = CrossedArm(
        levels={"initialisation": count, "noise": count},
        endpoint="diverged or nonfinite",
        num_left=int(planted.sum()),
        num_ended=planted.size,
        num_missing=0,
        left=outcome(planted, ("initialisation", "noise"), 99, np.random.SeedSequence(1)),
    )
    found = crossed._sentence("vae", arm, 0.05)
    assert ("So few levels can show no stream alone: p is at least 1." in found) is not is_enough
    assert ("shown to matter: noise" in found) is is_enough


def test_classes_are_drawn_at_the_levels_of_their_runs() -> None:
    arm = CrossedArm(
        levels={"initialisation": 2, "noise": 3},
        endpoint="diverged or nonfinite",
        num_left=1,
        num_ended=5,
        num_missing=1,
    )
    classes = {0: "regular", 1: "regular", 2: "diverged", 100: "regular", 101: None, 102: "regular"}
    runs = {seed: run_summary(run_class).model_copy(update={"seed": seed}) for seed, run_class in classes.items()}
    (axes,) = crossed_figure(arm, runs).axes
    drawn = {(line.get_xdata()[0], line.get_ydata()[0]): (line.get_marker(), line.get_color()) for line in axes.lines}
    assert len(drawn) == 6
    assert drawn[2, 0] == ("s", crossed.CLASS_COLOURS["diverged"])
    assert drawn[1, 1][0] == "x"


def point(value: float | str, count: int, num_missing: int = 0) -> SweptPoint:
    interval = clopper_pearson(count, 12, 0.95)
    share = Share(
        count=count, num_ended=12, interval=interval, other_intervals=(), if_none_missing=0.0, if_all_missing=1.0
    )
    return SweptPoint(arm=f"ae-{value}", value=value, share=share, num_missing=num_missing)


def of_sweep(trend_p: float | None, rises: bool | None, **found: tuple[float | None, float | None]) -> str:
    points = (point(0.01, 1), point(0.02, 9, num_missing=1))
    base = SweptBase(base="ae", points=points, trend_p=trend_p, rises=rises, **found)
    sweep = SweepSummary(setting="train.learning_rate", endpoint="jumped or nonfinite", level=0.95, bases=(base,))
    return sweeps.sentences([sweep])[0].replace("\u00a0", " ")


def test_where_half_leave_is_said_as_far_as_the_counts_carry_it() -> None:
    counts = (
        "Of ae over train.learning_rate, 1 of 12 at 0.01 and 9 of 12 at 0.02 jumped or became NaN. 1 run is missing."
    )
    assert of_sweep(None, None) == counts
    assert "No trend is shown" in (none := of_sweep(0.2, True, half_between=(0.01, 0.02), half_within=(None, None)))
    assert "alf" not in none
    rising = of_sweep(0.01, True, half_between=(0.01, 0.02), half_within=(0.01, None))
    assert "More leave at larger values" in rising
    assert "Half leave between 0.01 and 0.02" in rising
    assert "the intervals say only that it is above 0.01 (95 %)" in rising
    falling = of_sweep(0.01, False, half_between=(0.02, 0.01), half_within=(0.02, None))
    assert "Fewer leave at larger values" in falling
    assert "Half leave between 0.01 and 0.02" in falling
    assert "it is below 0.02" in falling
    few = of_sweep(0.01, True, half_between=(0.02, None), half_within=(None, None))
    assert (
        "At every value that was tried, half of the runs or less leave; the intervals bound it on neither side" in few
    )
    many = of_sweep(0.01, True, half_between=(None, 0.01), half_within=(None, 0.01))
    assert "half of the runs or more leave; the intervals say only that it is below 0.01" in many
