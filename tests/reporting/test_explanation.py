import math
import re
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from tests.examples import (
    LAYERS,
    NUM_STEPS,
    SPIKE,
    probe_curve,
    run_summary,
    spiked_course,
    spiked_record,
    spiked_run,
    trigger_record,
)
from vaehpc.reporting.explanation import (
    ALARM,
    MAX_POINTS,
    PANELS,
    Explained,
    coverage,
    departure_words,
    departures_table,
    envelope,
    event_figure,
    event_words,
    first_departure,
    image_words,
    last_words,
    method,
    noise_words,
    overview_figure,
    page,
    radius_words,
    rounded,
    trigger_words,
)
from vaehpc.reporting.figures import INK, svg
from vaehpc.reporting.words import NBSP
from vaehpc.schema.results import RunCourse
from vaehpc.stats.course import ProbeCurve
from vaehpc.stats.departures import StepRecord, event
from vaehpc.study.presets import analysis_plan


def explained_run(kind="vae", num_triggers=1, on_purpose=False) -> Explained:
    """A run with one trigger at SPIKE, or with more of them 100 steps apart, or with none."""
    run, jumps = spiked_run(kind, on_purpose), num_triggers > 0
    record = spiked_record(kind, jumps)
    largest = {} if kind == "vae" else {"largest_log_var_image": None}
    triggers = [trigger_record(step=SPIKE + 100 * number, **largest) for number in range(num_triggers)]
    events = [event(number, trigger, record, run.plan) for number, trigger in enumerate(triggers, start=1)]
    return Explained(run, record, probe_curve(spiked_course(jumps)), events)


def plain(text):
    return text.replace(NBSP, " ")


@pytest.fixture(scope="module")
def jumped() -> Explained:
    return explained_run(on_purpose=True)


def panels(figure):
    return {axes.get_title("left"): axes for axes in figure.axes}


def changed(explained, **signals):
    """The first event of a run whose record has other signals."""
    record = StepRecord(explained.record.steps, {**explained.record.signals, **signals})
    return event(1, explained.events[0].trigger, record, analysis_plan())


# Words


def test_the_words_tell_the_story(jumped):
    trigger, spike, departures, radius, images, noise = map(plain, event_words(jumped.events[0], jumped))
    assert trigger == (
        "Step 1,234 (epoch 50): the trigger was gradient_norm 31,000 (limit 300, 10 times its median over the 200 steps"
        " before)."
    )
    assert spike == "On purpose, this arm multiplied the gradients by 1000 at step 1,234, the step of the trigger."
    assert departures.startswith(
        "First to leave its band of the reference window, steps 985 to 1,184: at step 1,234, the step of the trigger,"
        " gradient_norm 41,600 (band 2.75 to 314), gradient_rms 31.6 "
    )
    assert f"gradient_norm of {len(LAYERS)} layers (farthest out: mu)" in departures
    assert re.findall(r"Next: at step ([\d,]+), (\d) steps? after the trigger, (\w+)", departures) == [
        ("1,235", "1", "update_norm"),
        ("1,236", "2", "radius_mean"),
        ("1,239", "5", "radius_max"),
    ]
    assert "Later: total_loss and reconstruction_loss. " in departures
    assert departures.endswith(
        "Inside their bands up to step 1,334: epsilon_max, log_var_max, image_loss_max and gradient_peak."
    )
    assert radius == (
        "R, the probe's median, was 16.2 after 1,200 steps; of the 4 probes in the 200 steps after the trigger, the"
        " farthest from it is 68 after 1,250; the run's last is 68 after 1,500."
    )
    assert images == (
        "Of the 4 images in that step's batch, image 71 had the largest loss and image 12 the largest log_var (numbers"
        " are positions in the training split)."
    )
    assert noise == (
        "max|epsilon| was 4.11 in the step of the trigger and at most 5.04 in the 50 steps up to it, inside its band of"
        " 2.53 to 7.05: no extreme of the noise warned."
    )


def test_an_image_that_is_the_largest_in_both_is_named_once():
    assert "image 71 had the largest loss and the largest log_var (" in images_of({}, largest_log_var_image=71)


def images_of(not_finite: dict[str, float], **trigger: Any) -> str:
    """What is said of the trigger's batch if these signals have these values in its step."""
    record = spiked_record()
    for name, value in not_finite.items():
        record.signals[name][SPIKE] = value
    return plain(image_words(event(1, trigger_record(**trigger), record, spiked_run().plan)))


def test_an_image_stands_out_by_what_is_a_number():
    nan, inf = float("nan"), float("inf")
    assert "image 71 had the largest loss and image 12 the" in images_of({"image_loss_max": inf, "total_loss": nan})
    assert "batch, image 12 had the largest log_var (" in images_of({"image_loss_max": nan})  # as 0.2.0 wrote it
    assert "batch, image 12 had the largest log_var (" in images_of({}, largest_loss_image=None)
    assert "batch, image 71 had the largest loss (" in images_of({"log_var_max": nan})
    assert images_of({"image_loss_max": nan}, largest_log_var_image=None) == ""


def test_an_undisturbed_arm_has_no_spike_in_its_words():
    explained = explained_run()
    assert not any("On purpose" in said for said in event_words(explained.events[0], explained))


def test_an_ae_has_neither_noise_nor_log_var_in_its_words():
    explained = explained_run("ae")
    said = " ".join(event_words(explained.events[0], explained))
    assert "epsilon" not in said
    assert "log_var" not in said.replace("farthest out: log_var", "")


@pytest.mark.parametrize(
    ("signal", "expected"),
    [
        ("gradient_rms", "gradient_rms 31.6 (limit 10)."),
        ("log_var_max", "log_var_max 31.6 (limit 10)."),
        ("probe_radius", "the probe's median R 31.6 (limit 10, 1.3 times its value 50 steps earlier)."),
        ("nonfinite", "a loss or gradient that is not finite."),
    ],
)
def test_words_of_each_trigger(signal, expected):
    trigger = trigger_record(signal=signal, value=math.nan if signal == "nonfinite" else 31.6, limit=10.0)
    assert trigger_words(trigger, spiked_run()) == f"Step 1,234 (epoch 50): the trigger was {expected}"


def test_an_epsilon_beyond_its_band_is_named_as_a_warning(jumped):
    epsilon = jumped.record.signals["epsilon_max"].copy()
    epsilon[SPIKE - 3] = 50
    said = plain(noise_words(changed(jumped, epsilon_max=epsilon)))
    assert said.endswith("; it left its band of 2.53 to 7.05 at step 1,231, 3 steps before the trigger.")
    epsilon[SPIKE - 3], epsilon[SPIKE + 3] = 4, 50
    assert "no extreme of the noise warned" in noise_words(changed(jumped, epsilon_max=epsilon))


def test_a_layer_that_leaves_its_band_alone_is_named(jumped):
    peak = jumped.record.signals["gradient_norm/mu"].copy()
    peak[SPIKE - 3] = 5000
    said = plain(departure_words(changed(jumped, **{"gradient_norm/mu": peak}), jumped.events))
    assert "at step 1,231, 3 steps before the trigger, gradient_norm of layer mu. Next: at step 1,234" in said


def test_values_that_are_not_finite_are_told_once(jumped):
    lost = {name: jumped.record.signals[name].copy() for name in ("total_loss", "kl_loss", "radius_mean")}
    for values in lost.values():
        values[SPIKE] = math.nan
    said = departure_words(changed(jumped, **lost), jumped.events)
    assert "radius_mean, kl_loss and total_loss not finite" in said
    assert "NaN" not in said


def test_an_earlier_trigger_is_mentioned_where_it_spoils_the_bands():
    far, near = explained_run(num_triggers=2), explained_run(num_triggers=1)
    said = plain(departure_words(far.events[1], far.events))
    assert said == (
        "No signal left its band of the reference window, steps 1,085 to 1,284. Trigger 1, step 1,234, lies in that"
        " window and widens its bands."
    )
    second = event(2, trigger_record(step=SPIKE + 30), near.record, analysis_plan())
    said = plain(departure_words(second, [near.events[0], second]))
    assert said.endswith("Trigger 1 was 30 steps before the trigger.")


def test_a_band_that_is_left_by_chance_names_no_cause(jumped):
    found = jumped.events[0]
    run = run_summary("diverged")
    assert "leave their bands first, at step 1,234" in first_departure(replace(jumped, events=[found]), run)
    far = run_summary("diverged", course=RunCourse(first_step=350, far=True))
    assert first_departure(replace(jumped, events=[found]), far) == ""  # the trigger came after
    short = replace(found, record=found.record.between(found.first_searched - 12, 1499))
    by_chance = replace(jumped, events=[short])
    assert short.departures
    assert first_departure(by_chance, run) == ""  # a trigger alone is no cause: it fires in runs of every class


def test_too_few_steps_before_the_trigger_are_said(jumped):
    short = event(1, trigger_record(), jumped.record.between(1231, 1499), analysis_plan())
    assert plain(departure_words(short, [short])) == (
        "The recorder holds 2 steps of the reference window before step 1,233: too few for bands."
    )
    assert noise_words(short) == ""
    assert departures_table(short) == ""


def test_radius_words_without_a_probe_before_or_after_the_trigger():
    plan = analysis_plan().recorder
    before = probe_curve({1150: 16.0, 1200: 16.5})
    assert radius_words(trigger_record(), before, plan) == (
        "R, the probe's median, was 16.5 after 1,200 steps; no probe followed the trigger."
    )
    after = probe_curve({1250: 68.0})
    assert radius_words(trigger_record(), after, plan) == "No probe was taken before the trigger."


def test_the_table_holds_every_departure_with_its_layer(jumped):
    lines = departures_table(jumped.events[0]).splitlines()
    assert len(lines) == 2 + len(jumped.events[0].departures)
    assert lines[2:4] == [
        "| 1,234 | gradient_norm | 41,600 | 2.75 to 314 | 3.1 |",
        "| 1,234 | gradient_norm/mu | 46,400 | 4.16 to 192 | 4.29 |",
    ]


def test_the_page_shows_each_trigger_with_its_figure():
    text = page(explained_run(num_triggers=2))
    assert re.findall(r"^#+ .*|^!.*", text, re.MULTILINE) == [
        "# vae-seed003",
        "![the whole run](overview.svg)",
        "## Trigger 1",
        "![around trigger 1](trigger-1.svg)",
        "## Trigger 2",
        "![around trigger 2](trigger-2.svg)",
        "## How to read this",
    ]
    assert "once in 406 times" in text


def test_batch_norm_is_named_where_the_net_has_it():
    run = spiked_run()
    without = run.arm.model_copy(update={"model": run.arm.model.model_copy(update={"batch_norm": False})})
    assert "BatchNorm" in method(run)
    assert "BatchNorm" not in method(run.model_copy(update={"arm": without}))


def test_a_run_without_triggers_says_what_was_recorded():
    quiet = explained_run(num_triggers=0)
    expected = (
        "vae-seed003: no trigger in the 1,500 steps from 0 to 1,499 that the recorder holds; the training has 1,500,"
        " and nothing but a loss or gradient that is not finite triggers in the first 300."
    )
    assert plain(coverage(quiet)) == expected
    assert page(quiet) == f"# vae-seed003\n\n{expected}\n\n![the whole run](overview.svg)\n"


@pytest.mark.parametrize(
    ("value", "expected"),
    [(41_616.2, "41,600"), (0.0, "0"), (2.751, "2.75"), (-13.66, "-13.7"), (1e-5, "1e-05"), (1e6, "1,000,000")],
)
def test_three_digits(value, expected):
    assert rounded(value) == expected


def test_three_digits_of_what_is_not_finite():
    assert [rounded(math.nan), rounded(math.inf)] == ["NaN", "∞"]


# Figures


def test_a_panel_per_signal_with_its_band_and_departure(jumped):
    (found,) = jumped.events
    drawn = panels(event_figure(found, jumped.probe))
    assert list(drawn) == list(PANELS.values())
    for name, title in PANELS.items():
        axes, band = drawn[title], found.bands[name]
        trigger, _, signal, *marks = axes.lines
        assert set(trigger.get_xdata()) == {SPIKE}
        assert signal.get_ydata().tolist() == found.record.signals[name].tolist()
        (shaded,) = axes.patches
        assert (shaded.get_y(), shaded.get_y() + shaded.get_height()) == pytest.approx((band.low, band.high))
        departed = [departure for departure in found.departures if departure.signal == name]
        points = [tuple(mark.get_xydata()[0]) for mark in marks if mark.get_color() == ALARM]
        assert points == [(departure.step, departure.value) for departure in departed]
        if departed:
            assert axes.get_title("right").startswith(f"left its band at step {departed[0].step:,} with ")


def test_the_probe_lies_beside_the_batchs_radius(jumped):
    for figure, expected in (
        (event_figure(jumped.events[0], jumped.probe), [1000, 1050, 1100, 1150, 1200, 1250, 1300]),
        (overview_figure(jumped), list(range(50, 1501, 50))),
    ):
        (circles,) = (line for line in panels(figure)[PANELS["radius_mean"]].lines if line.get_color() == INK)
        assert (circles.get_xdata() + 0.5).tolist() == expected
        assert set(circles.get_ydata()) == {16.2, 68.0}


def test_a_probe_far_from_the_batch_is_on_the_axis(jumped):
    far = ProbeCurve(jumped.probe.steps, np.where(jumped.probe.steps > SPIKE, 5000.0, np.nan))
    for figure in (
        event_figure(jumped.events[0], far),
        overview_figure(Explained(jumped.config, jumped.record, far, ())),
    ):
        axes = panels(figure)[PANELS["radius_mean"]]
        assert axes.get_yscale() == "log"
        assert axes.get_ylim()[1] > 5000


def test_an_ae_has_fewer_panels():
    explained = explained_run("ae")
    titles = set(panels(event_figure(explained.events[0], explained.probe)))
    absent = {PANELS[name] for name in ("epsilon_max", "log_var_max", "kl_loss")}
    assert titles == set(PANELS.values()) - absent


def test_what_is_not_finite_is_marked_at_the_edge(jumped):
    radius = jumped.record.signals["radius_mean"].copy()
    radius[SPIKE:] = math.nan
    figure = event_figure(changed(jumped, radius_mean=radius), jumped.probe)
    axes = panels(figure)[PANELS["radius_mean"]]
    assert axes.get_title("right") == "left its band at step 1,234 with NaN"
    mark = axes.lines[-1]
    assert (mark.get_color(), tuple(mark.get_xydata()[0])) == (ALARM, (SPIKE, axes.get_ylim()[1]))
    assert "left its band" in svg(figure)


def test_a_figure_without_bands_is_drawn(jumped):
    short = event(1, trigger_record(), jumped.record.between(1231, 1499), analysis_plan())
    for axes in event_figure(short, jumped.probe).axes:
        assert not axes.patches


def test_signals_with_one_value_are_drawn(jumped):
    values = {"epsilon_max": math.nan, "log_var_max": math.inf, "kl_loss": 0.0, "update_norm": 5.0}
    constant = {name: np.full(NUM_STEPS, value) for name, value in values.items()}
    found = changed(jumped, **constant)
    assert svg(event_figure(found, jumped.probe))
    assert svg(overview_figure(Explained(jumped.config, found.record, jumped.probe, ())))


def test_the_envelope_loses_no_peak():
    values = spiked_record().signals["gradient_norm"]
    starts, low, high = envelope(np.arange(NUM_STEPS), values, MAX_POINTS)
    assert len(starts) == len(low) == len(high) == MAX_POINTS
    assert high.max() == values[SPIKE]
    assert low.min() == values.min()
    ends = [*starts[1:], NUM_STEPS]
    for start, end, least, greatest in zip(starts, ends, low, high, strict=True):
        assert (values[start:end].min(), values[start:end].max()) == (least, greatest)


def test_the_envelope_leaves_gaps_where_nothing_is_finite():
    _, low, high = envelope(np.arange(6), np.array([1, math.nan, math.inf, math.nan, 3, 2]), 3)
    assert low.tolist() == pytest.approx([1, math.nan, 2], nan_ok=True)
    assert high.tolist() == pytest.approx([1, math.nan, 3], nan_ok=True)


def test_the_overview_draws_all_steps_and_marks_the_triggers():
    explained = explained_run(num_triggers=2)
    for title, axes in panels(overview_figure(explained)).items():
        assert [set(line.get_xdata()) for line in axes.lines[:2]] == [{SPIKE}, {SPIKE + 100}]
        assert len(axes.collections) == 1, title
        assert axes.get_xlim() == (0, NUM_STEPS)
    short = Explained(explained.config, spiked_record().between(0, MAX_POINTS - 1), explained.probe, ())
    for name, axes in zip(PANELS, overview_figure(short).axes, strict=True):
        assert axes.lines[0].get_ydata().tolist() == short.record.signals[name].tolist()


# Runs that became NaN early


def test_a_few_steps_make_bands_and_their_chance_is_said(jumped):
    few = event(1, trigger_record(), jumped.record.between(1225, 1499), analysis_plan())
    said = plain(departure_words(few, [few]))
    assert said.startswith("First to leave its band of the reference window, steps 1,225 to 1,229: at step ")
    assert "These are only 5 steps: each signal leaves such a band with a chance of up to 23.8 %" in said
    assert "These are only" not in departure_words(jumped.events[0], jumped.events)


def test_the_last_steps_before_nan_are_told_with_their_values():
    steps = np.arange(21)
    log_var = np.r_[np.linspace(-1, 1, 14), 18, 28, 17, 26, 41, 82, np.nan]
    record = StepRecord(
        steps, {"log_var_max": log_var, "gradient_norm": np.r_[np.full(18, 20.0), np.inf, np.inf, np.nan]}
    )
    lost = event(1, trigger_record(step=18, signal="nonfinite"), record, analysis_plan())
    assert last_words(lost) == (
        "Steps 14 to 20: log_var_max 18, 28, 17, 26, 41, 82, NaN; gradient_norm 20, 20, 20, 20, ∞, ∞, NaN."
    )
    assert last_words(event(1, trigger_record(step=18), record, analysis_plan())) == ""


def test_overflows_of_float16_are_counted():
    explained = explained_run(num_triggers=0)
    norms = explained.record.signals["gradient_norm"].copy()
    norms[[0, 3]] = math.inf
    record = StepRecord(explained.record.steps, {**explained.record.signals, "gradient_norm": norms})
    assert "overflowed" not in coverage(replace(explained, record=record))
    train = explained.config.arm.train.model_copy(update={"precision": "mixed_float16"})
    half = explained.config.model_copy(update={"arm": explained.config.arm.model_copy(update={"train": train})})
    said = plain(coverage(replace(explained, record=record, config=half)))
    assert said.endswith("In 2 steps the loss scale of float16 overflowed: they changed no weight and trigger nothing.")
    assert "overflowed" not in coverage(replace(explained, config=half))
