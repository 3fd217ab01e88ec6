import math
from dataclasses import replace

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.colors import to_hex
from matplotlib.figure import Figure

from tests import plant
from tests.examples import ONSET_EPOCH, run_summary
from vaehpc.reporting import figures, tables
from vaehpc.reporting.document import ended_runs
from vaehpc.reporting.figures import ArmRuns
from vaehpc.reporting.palette import CLASS_COLOURS, QUIET
from vaehpc.reporting.sweeps import sweep_figure, sweep_rows
from vaehpc.schema.results import CourseMark, EventCurves, RunCourse, SweepSummary, SweptBase, SweptPoint
from vaehpc.stats import rates
from vaehpc.stats.radius import radius_statistics, ratio_histogram
from vaehpc.stats.survival import event_curves
from vaehpc.study.presets import analysis_plan

PLAN = analysis_plan()
OF = ("diverged or nonfinite", 0.95)


def mark(kind: str, step: int) -> CourseMark:
    return CourseMark.model_validate({"kind": kind, "step": step, "after": step - 50, "factor": 2.5})


@pytest.fixture(scope="module")
def runs(mixed) -> ArmRuns:
    study, summary = mixed
    return ended_runs(study, summary, plant.found(study))


@pytest.fixture(scope="module")
def regular_runs(tmp_path_factory) -> ArmRuns:
    study, summary = plant.classed(tmp_path_factory.mktemp("runs") / "regular", {"ae": ["regular"] * 3})
    return ended_runs(study, summary, plant.found(study))


def test_a_figure_is_drawn_once_as_savefig_draws_it_in_two(runs, monkeypatch):
    drawn, draw = [], Figure.draw
    monkeypatch.setattr(Figure, "draw", lambda figure, renderer: drawn.append(figure) or draw(figure, renderer))
    once = figures.svg(figures.radius_histories(runs)["ae"])
    assert len(drawn) == 1
    monkeypatch.setattr(figures, "_lay_out", lambda _: None)
    assert figures.svg(figures.radius_histories(runs)["ae"]) == once
    assert len(drawn) == 3


def test_radius_curves_are_the_articles_histograms_in_the_colours_of_the_classes(regular_runs):
    (axes,) = figures.radius_curves(regular_runs, {})["ae"].axes
    expected = {
        (CLASS_COLOURS[run.run_class], run.statistics.radius_mu.histogram.counts, 0.25, 34.75)
        for run in regular_runs["ae"]
    }
    lines = {(line.get_color(), tuple(line.get_ydata()), *line.get_xdata()[[0, -1]]) for line in axes.lines}
    assert lines == expected
    assert axes.get_xscale() == "linear"


def test_radius_curves_reach_the_farthest_image(regular_runs):
    """One image at R = 400: nothing of the run is left out, and images per ratio of R keep their sum."""
    (first, second, *_) = regular_runs["ae"]
    radii = np.r_[np.random.default_rng(1).normal(16, 1, 500), 400.0]
    statistics = first.statistics.model_copy(update={"radius_mu": radius_statistics(radii, PLAN.radius)})
    far = replace(first, statistics=statistics, ratio_counts=ratio_histogram(radii))
    near = replace(second, ratio_counts=ratio_histogram(np.full(10, 15.0)))
    (axes,) = figures.radius_curves({"ae": [far, near]}, {})["ae"].axes
    assert axes.get_xscale() == "log"
    assert axes.get_xlim()[1] > 400
    (line,) = [line for line in axes.lines if line.get_xdata()[-1] > 300]
    assert line.get_ydata().sum() == 501
    at = line.get_xdata()[np.flatnonzero(line.get_ydata())]
    assert abs(np.log(at[-1] / 400)) <= np.log(1.03) / 2  # the centre of its bin
    assert 16 < line.get_xdata()[np.argmax(line.get_ydata())] * 1.03 < 18


def test_images_of_runs_whose_radii_are_gone_are_a_point_at_their_median(runs):
    drawn = figures.radius_curves(runs, {})
    (axes,) = drawn["vae-tiny"].axes
    beyond = [run for run in runs["vae-tiny"] if run.statistics.radius_mu.histogram.overflow]
    assert [run.run_class for run in beyond] == ["diverged", "diverged"]
    assert [to_hex(points.get_facecolor()[0]) for points in axes.collections] == [CLASS_COLOURS["diverged"]] * 2
    found = sorted(float(points.get_offsets()[0][0]) for points in axes.collections)
    assert found == pytest.approx(sorted(run.statistics.radius_mu.median for run in beyond))
    assert all(points.get_offsets()[0][1] < axes.get_ylim()[1] for points in axes.collections)
    assert not drawn["ae"].axes[0].collections


def test_radius_axes_end_where_the_images_do(regular_runs):
    (axes,) = figures.radius_curves(regular_runs, {})["ae"].axes
    largest = max(run.statistics.radius_mu.max for run in regular_runs["ae"])
    assert largest < axes.get_xlim()[1] <= largest + 5


def test_the_articles_peak_is_marked_only_where_asked(runs):
    drawn = figures.radius_curves(runs, {"ae": 16.75})
    assert len(drawn["ae"].axes[0].lines) == 1 + len(runs["ae"])
    assert set(drawn["ae"].axes[0].lines[-1].get_xdata()) == {16.75}
    assert len(drawn["vae-tiny"].axes[0].lines) == len(runs["vae-tiny"])


def test_radius_histories_are_the_medians_over_epochs(runs):
    for arm, figure in figures.radius_histories(runs).items():
        (axes,) = figure.axes
        assert len(axes.lines) == len(runs[arm])
        drawn = sorted(str(line.get_ydata().tolist()) for line in axes.lines)
        assert drawn == sorted(str([record.radius_median for record in run.history]) for run in runs[arm])
        assert all(line.get_xdata().tolist() == list(range(1, 7)) for line in axes.lines)


def test_onsets_are_marked_on_their_run(runs):
    drawn = figures.radius_histories(runs)
    marks = [tuple(points.get_offsets()[0]) for points in drawn["vae-tiny"].axes[0].collections]
    diverged = [run for run in runs["vae-tiny"] if run.run_class == "diverged"]
    assert marks == [(ONSET_EPOCH, pytest.approx(run.history[ONSET_EPOCH - 1].radius_median)) for run in diverged]
    assert not drawn["ae"].axes[0].collections


def test_arms_share_their_axes(runs):
    for drawn in (figures.radius_curves(runs, {}), figures.radius_histories(runs), figures.loss_histories(runs)):
        limits = {tuple((axes.get_xlim(), axes.get_ylim()) for axes in figure.axes) for figure in drawn.values()}
        assert len({tuple(y for _, y in of_arm) for of_arm in limits}) == 1


def test_radius_axis_is_logarithmic_only_for_a_wide_range(runs, regular_runs):
    assert figures.radius_histories(runs)["ae"].axes[0].get_yscale() == "log"
    assert figures.radius_histories(regular_runs)["ae"].axes[0].get_yscale() == "linear"


def test_losses_are_drawn_raw_and_above_the_entropy(runs):
    for arm, figure in figures.loss_histories(runs).items():
        raw, excess = figure.axes
        assert len(raw.lines) == len(excess.lines) == len(runs[arm])
        for above, below in zip(raw.lines, excess.lines, strict=True):
            assert np.allclose(above.get_ydata() - below.get_ydata(), 4400)
        assert excess.get_yscale() == "log"


def test_a_run_that_was_never_finite_is_drawn_without_complaint(regular_runs):
    (run, *_) = regular_runs["ae"]
    lost = {"radius_median": math.nan, "reconstruction_loss": math.nan, "excess_loss": math.nan}
    history = [record.model_copy(update=lost) for record in run.history]
    nowhere = {"ae": [figures.EndedRun(run.name, "nonfinite", run.summary, run.statistics, history, 32)]}
    for drawn in (figures.radius_histories(nowhere), figures.loss_histories(nowhere)):
        assert "NaN (1)" in figures.svg(drawn["ae"])


@pytest.mark.parametrize("value", [0.0, 16.0])
def test_equal_values_have_an_axis_around_them(regular_runs, value):
    (run, *_) = regular_runs["ae"]
    same = {"radius_median": value, "reconstruction_loss": value, "excess_loss": value}
    history = [record.model_copy(update=same) for record in run.history]
    level = {"ae": [figures.EndedRun(run.name, "regular", run.summary, run.statistics, history, 32)]}
    for drawn in (figures.radius_histories(level), figures.loss_histories(level)):
        for axes in drawn["ae"].axes:
            low, high = axes.get_ylim()
            assert low < value < high


def test_a_run_without_history_is_drawn_without_complaint(regular_runs):
    (run, *_) = regular_runs["ae"]
    unwritten = {"ae": [figures.EndedRun(run.name, "nonfinite", run.summary, run.statistics, [], 32)]}
    for drawn in (figures.radius_histories(unwritten), figures.loss_histories(unwritten)):
        assert len(drawn["ae"].axes[0].lines) == 1


def test_rates_are_points_with_intervals(mixed):
    _, summary = mixed
    arms = summary.arms
    axes = figures.divergence_rates(arms).axes[0]
    diverged, either = ([arm.endpoints[of] for arm in arms.values()] for of in ("diverged", "diverged or nonfinite"))
    points = [tuple(line.get_xydata()[0]) for line in axes.lines]
    assert points == [
        (diverged[0].rate, 0),
        (diverged[1].rate, 1),
        (diverged[2].rate, pytest.approx(1.84)),
        (either[2].rate, pytest.approx(2.16)),
    ]
    assert [line.get_color() for line in axes.lines] == [CLASS_COLOURS["diverged"]] * 3 + [CLASS_COLOURS["nonfinite"]]
    spans = [tuple(segment[:, 0]) for lines in axes.collections for segment in lines.get_segments()]
    assert spans == [
        (diverged[0].interval.low, diverged[0].interval.high),
        (diverged[1].if_none_missing, diverged[1].if_all_missing),
        (diverged[1].interval.low, diverged[1].interval.high),
        (diverged[2].interval.low, diverged[2].interval.high),
        (either[2].interval.low, either[2].interval.high),
    ]
    counts = [label.get_text() for label in axes.child_axes[0].get_yticklabels()]
    assert counts == ["0 of 8", "2 of 7, 1 missing", "0 of 2, 1 with NaN"]


def test_an_arm_without_a_rate_of_divergence_shows_its_jumps(mixed):
    _, summary = mixed
    tiny = summary.arms["vae-tiny"]
    jumped = {"jumped": tiny.endpoints["jumped"]}
    changes = {"unjudged": "displaced", "rate": None, "endpoints": jumped, "num_missing": 0}
    figure = figures.divergence_rates({"vae-tiny": tiny.model_copy(update=changes)})
    (line,) = figure.axes[0].lines
    assert (line.get_color(), line.get_xdata().tolist()) == (QUIET, [jumped["jumped"].rate])
    assert "2 of 7 jumped" in figures.svg(figure)


def test_an_arm_of_which_nothing_ended_has_neither_point_nor_interval(mixed):
    _, summary = mixed
    unknown = summary.arms["ae"].model_copy(update={"rate": None, "low": None, "high": None, "endpoints": {}})
    figure = figures.divergence_rates({"ae": unknown})
    assert not figure.axes[0].lines
    assert not figure.axes[0].collections
    assert "no rate" in figures.svg(figure)


def test_equal_results_give_equal_bytes_with_real_text(runs):
    first, second = (figures.svg(figures.radius_curves(runs, {})["vae-tiny"]) for _ in range(2))
    assert first == second
    assert "latent radius" in first
    assert "<metadata" not in first


def test_matplotlibs_settings_are_left_as_they_were(runs):
    before = dict(mpl.rcParams)
    figures.svg(figures.radius_curves(runs, {})["ae"])
    assert dict(mpl.rcParams) == before


FOLLOWED = [
    run_summary("diverged", course=RunCourse(first_step=350, marks=(mark("jump", 400),)), followed_steps=600),
    run_summary("diverged", course=RunCourse(first_step=350, marks=(mark("growth", 500),)), followed_steps=600),
    run_summary("nonfinite", nonfinite_step=119, followed_steps=119),
    run_summary(None, followed_steps=250),
    *[run_summary("regular", followed_steps=600)] * 4,
]


@pytest.fixture(scope="module")
def left() -> dict[str, EventCurves]:
    """All kinds of events in one arm, one in its control, none in a third."""
    arms = {"vae-tiny": FOLLOWED, "ae": FOLLOWED[2:], "vae-eps5": FOLLOWED[4:]}
    return {arm: curves for arm, runs in arms.items() if (curves := event_curves(runs, 0.95)) is not None}


CONTROLS = {"vae-tiny": "ae", "ae": "ae", "vae-eps5": "ae"}


def test_event_curves_are_the_shares_of_the_summary(left):
    drawn = figures.event_curves(left, CONTROLS)
    assert set(drawn) == set(left)
    curves = left["vae-tiny"]
    control, *own, ticks = drawn["vae-tiny"].axes[0].lines
    kinds = dict(zip(("jump", "growth", "nonfinite"), own, strict=True))
    assert set(kinds) == set(curves.events)
    for event, line in kinds.items():
        assert line.get_xdata().tolist() == [0, *curves.steps, 600]
        assert line.get_ydata().tolist() == [0, *curves.events[event].share, curves.events[event].share[-1]]
        assert line.get_color() == figures.EVENT_COLOURS[event]
        assert line.get_drawstyle() == "steps-post"
    assert kinds["jump"].get_ydata()[-1] == pytest.approx(7 / 8 * 1 / 6)  # a run is lost before: 1 of 6 at risk
    assert control.get_linestyle() == "--"
    assert control.get_ydata().tolist() == [0, *left["ae"].events["nonfinite"].share, 1 / 6]
    assert ticks.get_marker() == "|"
    legend = [text.get_text() for text in drawn["vae-tiny"].legends[0].get_texts()]
    assert legend == ["any event of ae", "jumped", "grew", "became NaN"]


def test_a_control_is_not_drawn_over_itself(left):
    own, ticks = figures.event_curves(left, CONTROLS)["ae"].axes[0].lines
    assert own.get_label() == "became NaN"
    assert ticks.get_marker() == "|"


def test_runs_that_were_lost_are_ticks_and_those_seen_to_the_end_are_not(left):
    drawn = figures.event_curves(left, CONTROLS)
    assert drawn["vae-tiny"].axes[0].lines[-1].get_xydata().tolist() == [[250, 0]]
    assert not len(drawn["vae-eps5"].axes[0].lines[-1].get_xdata())


def test_the_band_is_the_interval_and_begins_with_the_first_event(left):
    axes = figures.event_curves(left, CONTROLS)["vae-tiny"].axes[0]
    found = left["vae-tiny"].events["jump"]
    ((low, high),) = {(low, high) for low, high in zip(found.low, found.high, strict=True) if low is not None}
    vertices = np.concatenate([path.vertices for path in axes.collections[0].get_paths()])
    assert (vertices[:, 0].min(), vertices[:, 1].min(), vertices[:, 1].max()) == (400, low, high)
    assert len(axes.collections) == 3
    assert {to_hex(band.get_facecolor()[0]) for band in axes.collections} == set(figures.EVENT_COLOURS.values())


def test_an_arm_without_any_event_says_so(left):
    control, own, _ = figures.event_curves(left, CONTROLS)["vae-eps5"].axes[0].lines
    assert control.get_label() == "any event of ae"
    assert (own.get_label(), list(own.get_ydata())) == ("no event", [0, 0])


def test_the_control_of_an_arm_of_events_may_have_none(left):
    only = {"ae": left["vae-eps5"], "vae-tiny": left["vae-tiny"]}
    control = figures.event_curves(only, CONTROLS)["vae-tiny"].axes[0].lines[0]
    assert (control.get_label(), set(control.get_ydata())) == ("any event of ae", {0})


def test_rows_of_event_curves_are_a_row_per_kind_and_step(left):
    curves = left["vae-tiny"]
    rows = tables.event_rows(curves)
    assert [(row["event"], row["step"]) for row in rows] == [
        (kind, at) for kind in curves.events for at in curves.steps
    ]
    assert [row["censored"] for row in rows[: len(curves.steps)]] == list(curves.censored)
    assert [row["share"] for row in rows] == [share for of in curves.events.values() for share in of.share]
    assert (rows[0]["low"], rows[0]["high"]) == (None, None)  # before the first jump there is no interval


def test_every_pair_is_a_dot_and_the_mean_has_its_interval(mixed):
    _, summary = mixed
    found = summary.likeness["vae-tiny"]
    panels = figures.likeness_strips(found).axes
    assert len(panels) == len(found.effects)
    for axes, (quantity, effect) in zip(panels, found.effects.items(), strict=True):
        rows = [line.get_xdata().tolist() for line in axes.lines]
        expected = [[getattr(pair, quantity) for pair in found.pairs]]
        if effect.null_mean is not None:
            expected.append([getattr(pair, quantity) for pair in found.null])
        assert rows == [*expected, [effect.mean]]
        spans = [tuple(segment[:, 0]) for lines in axes.collections for segment in lines.get_segments()]
        assert spans == [(effect.low, effect.high)]


def test_a_sweep_is_drawn_over_its_values_with_exact_intervals():
    share = rates.share(
        [run_summary(run_class) for run_class in ("diverged", "regular", "nonfinite", "regular")], 5, *OF
    )
    values = (("vae", (6e-3, 0.02, 0.04)), ("ae", (6e-3, 0.02, 0.04)))
    bases = [
        SweptBase(
            base=base,
            points=tuple(SweptPoint(arm=f"{base}-{at}", value=at, share=share, num_missing=1) for at in of_base),
            trend_p=None,
            rises=None,
        )
        for base, of_base in values
    ]
    sweep = SweepSummary(setting="train.learning_rate", endpoint=OF[0], level=0.95, bases=tuple(bases))
    (axes,) = sweep_figure(sweep).axes
    assert axes.get_xscale() == "log"
    assert [label.get_text() for label in axes.get_xticklabels()] == ["0.006", "0.02", "0.04"]
    lines = [line for line in axes.lines if line.get_label() in ("vae", "ae")]
    assert [line.get_ydata().tolist() for line in lines] == [[0.5] * 3] * 2
    assert lines[0].get_xdata() == pytest.approx(lines[1].get_xdata(), rel=0.05)
    spans = [segment[:, 1].tolist() for drawn in axes.collections for segment in drawn.get_segments()]
    assert spans == [[0.4, 0.6], [share.interval.low, share.interval.high]] * 6
    words = sweep.model_copy(update={"bases": (bases[0].model_copy(update={"points": bases[0].points[:1]}),)})
    assert sweep_figure(words).axes[0].get_xscale() == "linear"
    (first, *_) = sweep_rows(sweep)
    assert (first["value"], first["count"], first["num_ended"], first["num_missing"]) == ("0.006", 2, 4, 1)
