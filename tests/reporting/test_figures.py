import math

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.colors import to_hex
from matplotlib.figure import Figure

from tests import plant
from tests.examples import ONSET_EPOCH
from vaehpc.reporting import figures
from vaehpc.reporting.document import ended_runs
from vaehpc.reporting.figures import CLASS_COLOURS, ArmRuns


@pytest.fixture(scope="module")
def runs(mixed) -> ArmRuns:
    study, summary = mixed
    return ended_runs(study, study.config(), summary)


@pytest.fixture(scope="module")
def regular_runs(tmp_path_factory) -> ArmRuns:
    study, summary = plant.classed(tmp_path_factory.mktemp("runs") / "regular", {"ae": ["regular"] * 3})
    return ended_runs(study, study.config(), summary)


def test_radius_curves_are_the_histograms_in_the_colours_of_the_classes(runs):
    drawn = figures.radius_curves(runs, {})
    assert set(drawn) == {"ae", "vae-tiny", "vae-eps5"}
    for arm, figure in drawn.items():
        (axes,) = figure.axes
        assert isinstance(figure, Figure)
        assert len(axes.lines) == len(runs[arm])
        expected = {
            (CLASS_COLOURS[run.run_class], run.statistics.radius_mu.histogram.counts, 0.25, 34.75) for run in runs[arm]
        }
        lines = {(line.get_color(), tuple(line.get_ydata()), *line.get_xdata()[[0, -1]]) for line in axes.lines}
        assert lines == expected


def test_images_beyond_the_histogram_are_points_at_the_edge_below_the_top(runs):
    drawn = figures.radius_curves(runs, {})
    (axes,) = drawn["vae-tiny"].axes
    overflowing = [run for run in runs["vae-tiny"] if run.statistics.radius_mu.histogram.overflow]
    assert [run.run_class for run in overflowing] == ["diverged", "diverged"]
    assert [to_hex(points.get_facecolor()[0]) for points in axes.collections] == [CLASS_COLOURS["diverged"]] * 2
    for points in axes.collections:
        ((x, y),) = points.get_offsets()
        assert 35 < x < axes.get_xlim()[1]
        assert 0.9 * axes.get_ylim()[1] < y < axes.get_ylim()[1]
    assert axes.get_xticklabels()[-1].get_text() == "≥ 35"
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
        assert "nonfinite (1)" in figures.svg(drawn["ae"])


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
    assert [tuple(line.get_xydata()[0]) for line in axes.lines] == [
        (arm.rate, y) for y, arm in enumerate(arms.values())
    ]
    spans = [tuple(segment[:, 0]) for lines in axes.collections for segment in lines.get_segments()]
    tiny = arms["vae-tiny"]
    assert spans == [
        (arms["ae"].low, arms["ae"].high),
        (tiny.rate_if_missing_regular, tiny.rate_if_missing_diverged),
        (tiny.low, tiny.high),
        (arms["vae-eps5"].low, arms["vae-eps5"].high),
    ]


def test_an_arm_without_a_rate_has_neither_point_nor_interval(mixed):
    _, summary = mixed
    unknown = summary.arms["ae"].model_copy(update={"rate": None, "low": None, "high": None})
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


def test_onset_curves_are_the_shares_of_the_summary(mixed):
    _, summary = mixed
    drawn = figures.onset_curves(summary.onsets, summary.control)
    assert set(drawn) == set(summary.onsets)
    curve = summary.onsets["vae-tiny"]
    control, own, censored = drawn["vae-tiny"].axes[0].lines
    assert own.get_xdata().tolist() == [0, *curve.steps, 600]
    assert own.get_ydata().tolist() == [1, *curve.share, curve.share[-1]]
    assert (control.get_linestyle(), control.get_ydata().tolist()) == ("--", [1, 1, 1])
    assert not len(censored.get_xdata())
    assert len(drawn["ae"].axes[0].lines) == 2  # it is its own control


def test_runs_that_were_lost_are_ticks_on_the_curve(mixed):
    _, summary = mixed
    (axes,) = figures.onset_curves(summary.onsets, summary.control)["vae-eps5"].axes
    assert axes.lines[-1].get_xydata().tolist() == [[100, 1]]  # not finite from step 100


def test_the_band_is_the_interval_and_begins_with_the_first_onset(mixed):
    _, summary = mixed
    curve = summary.onsets["vae-tiny"]
    (axes,) = figures.onset_curves(summary.onsets, summary.control)["vae-tiny"].axes
    ((low, high),) = {(low, high) for low, high in zip(curve.low, curve.high, strict=True) if low is not None}
    vertices = np.concatenate([path.vertices for path in axes.collections[0].get_paths()])
    assert (vertices[:, 0].min(), vertices[:, 1].min(), vertices[:, 1].max()) == (ONSET_EPOCH * 100, low, high)


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
