import math

import numpy as np
import pytest

from tests.examples import trigger_record
from vaehpc.stats.departures import STEPS_AFTER, Band, StepRecord, band, departures, event, signal_bands

NUM_REFERENCE = 200
"""The plan's ring."""
NUM_SEARCHED = 50
"""One interval of the plan's probe: where a first departure before the trigger can lie."""


def record(first_step=0, **signals):
    values = {name: np.asarray(of_signal, np.float64) for name, of_signal in signals.items()}
    return StepRecord(first_step + np.arange(len(next(iter(values.values())))), values)


def trigger(step, signal="gradient_norm"):
    return trigger_record(step=step, signal=signal, largest_log_var_image=None)


def test_band_of_a_positive_signal_is_its_range_widened_by_its_ratio():
    assert band("gradient_norm", np.array([2.0, 4.0, 3.0])) == Band(1.0, 8.0, math.log(2), True)


@pytest.mark.parametrize(("name", "values"), [("kl", [-1.0, 1.0, 0.5]), ("update_norm", [0.0, 2.0])])
def test_band_of_another_signal_is_its_range_widened_by_its_width(name, values):
    assert band(name, np.array(values)) == Band(min(values) - 2, max(values) + 2, 2.0, False)


def test_a_log_var_is_a_logarithm_already():
    assert band("log_var_max", np.array([0.25, 1.25])) == Band(-0.75, 2.25, 1.0, False)


def test_a_loss_scale_may_grow_but_not_fall():
    of_scale = band("loss_scale", np.full(5, 32768.0))
    assert of_scale is not None
    assert [of_scale.widths_beyond(scale) for scale in (32768, 65536, 16384)] == [0, 0, math.inf]


def test_a_constant_signal_leaves_its_band_with_any_change():
    constant = band("update_norm", np.full(5, 3.0))
    assert constant == Band(3.0, 3.0, 0.0, True)
    assert [constant.widths_beyond(value) for value in (3.0, 3.01, 2.99)] == [0, math.inf, math.inf]


def test_values_that_are_not_finite_make_no_band_but_leave_one():
    assert band("gradient_norm", np.array([np.nan, np.inf])) is None
    with_overflow = band("gradient_norm", np.array([1.0, np.inf, 2.0]))
    assert with_overflow == band("gradient_norm", np.array([1.0, 2.0]))
    assert with_overflow is not None
    assert [with_overflow.widths_beyond(value) for value in (math.nan, math.inf, 0.0)] == [math.inf] * 3


def test_distance_is_measured_in_widths_of_the_range():
    positive, linear = Band(1.0, 8.0, math.log(2), True), Band(-1.0, 2.0, 1.0, False)
    assert [positive.widths_beyond(value) for value in (1, 8)] == [0, 0]
    assert [positive.widths_beyond(value) for value in (0.25, 64)] == pytest.approx([2, 3])
    assert [linear.widths_beyond(value) for value in (-1.5, 2, 5)] == pytest.approx([0.5, 0, 3])


def planted(plan, spike=1234):
    """Spike of the gradient, the update one step later, the radius three steps later."""
    numbers = np.random.default_rng(1)
    gradient, update, radius, epsilon = np.exp(0.1 * numbers.standard_normal((4, 1500)))
    gradient[spike] *= 1000
    update[spike + 1 : spike + 30] *= 40
    radius[spike + 3 :] *= 4
    epsilon[spike + 1] = np.nan
    signals = {"radius_mean": radius, "update_norm": update, "epsilon_max": epsilon, "gradient_norm/mu": gradient}
    return event(2, trigger(spike), record(**signals, gradient_norm=10 * gradient), plan)


def test_planted_departures_are_found_in_their_order(plan):
    found = planted(plan)
    assert [(departure.signal, departure.step) for departure in found.departures] == [
        ("gradient_norm", 1234),
        ("gradient_norm/mu", 1234),
        ("epsilon_max", 1235),
        ("update_norm", 1235),
        ("radius_mean", 1237),
    ]


def test_departures_say_value_band_and_distance(plan):
    found = planted(plan)
    spike = next(departure for departure in found.departures if departure.signal == "gradient_norm")
    assert spike.band == found.bands["gradient_norm"]
    assert spike.value > 5000 > spike.band.high > 10 > spike.band.low
    assert spike.widths == spike.band.widths_beyond(spike.value) > 5


def test_of_one_step_what_is_computed_first_comes_first_and_of_layers_the_farthest():
    last = {"update_norm": 99, "gradient_norm/mu": 9, "gradient_norm/log_var": 11, "gradient_norm": 5, "kl_loss": 5}
    bands = {name: Band(1.0, 2.0, 1.0, False) for name in last}
    found = departures(record(**{name: [1, value] for name, value in last.items()}), bands)
    assert [departure.signal for departure in found] == [
        "kl_loss",
        "gradient_norm",
        "gradient_norm/log_var",
        "gradient_norm/mu",
        "update_norm",
    ]


def test_the_search_begins_one_probe_before_the_trigger(plan):
    values = np.ones(500)
    values[401 - 50] = 7  # the first step after the probe at 351 steps done, whose next is taken at 401
    found = event(1, trigger(400, "probe_radius"), record(update_norm=values), plan)
    assert found.first_searched == 351
    assert found.num_reference_steps == plan.recorder.ring_steps
    assert [departure.step for departure in found.departures] == [351]
    assert found.record.steps[[0, -1]].tolist() == [151, 499]


def test_a_record_that_ends_with_the_trigger_is_enough(plan):
    values = np.r_[np.linspace(1, 2, 400), np.nan]
    found = event(1, trigger(400, "nonfinite"), record(total_loss=values), plan)
    assert [(departure.signal, departure.step) for departure in found.departures] == [("total_loss", 400)]


def test_nothing_is_looked_for_long_after_the_trigger(plan):
    values = np.ones(1000)
    values[400 + STEPS_AFTER + 1] = 7
    assert event(1, trigger(400), record(update_norm=values), plan).departures == ()


def test_a_short_reference_gives_no_bands(plan):
    steps = np.linspace(1, 2, 300)
    assert signal_bands(record(total_loss=steps[:2])) == {}
    assert set(signal_bands(record(total_loss=steps[:3]))) == {"total_loss"}
    found = event(1, trigger(300), record(first_step=300, total_loss=steps), plan)
    assert (found.num_reference_steps, found.bands, found.departures) == (0, {}, ())


def test_the_ring_fills_what_the_record_lacks():
    steps = record(first_step=0, loss=[0, 1, 2])
    ring = record(first_step=1, loss=[10, 20, 30, 40])
    assert steps.joined(ring).steps.tolist() == [0, 1, 2, 3, 4]
    assert steps.joined(ring).signals["loss"].tolist() == [0, 1, 2, 30, 40]
    assert record(first_step=3, loss=[3, 4]).joined(ring).signals["loss"].tolist() == [10, 20, 3, 4]
    nothing = StepRecord(np.array([], np.int64), {})
    assert nothing.joined(ring).signals["loss"].tolist() == [10, 20, 30, 40]
    assert steps.joined(nothing).signals["loss"].tolist() == [0, 1, 2]


# False alarms: stationary series that never left anything


def pareto(numbers, shape):
    """Infinite variance: P(x > t) = 1 / t."""
    return numbers.pareto(1.0, shape) + 1.0


def log_normal(numbers, shape):
    return np.exp(2.0 * numbers.standard_normal(shape))


def normal(numbers, shape):
    return numbers.standard_normal(shape)


def largest_epsilon(numbers, shape):
    """max|epsilon| of 32,768 components, by the inverse of its distribution's tail."""
    return np.sqrt(2.0 * (np.log(32768) + numbers.gumbel(size=shape)))


def share_of_peaks(numbers, shape):
    """Like max g^2 / v: rare peaks up to its bound."""
    return np.minimum(1.0 + numbers.pareto(0.7, shape), 1000.0)


def slowly_varying(numbers, shape):
    """Correlated over 20 steps."""
    values = numbers.standard_normal(shape)
    for step in range(1, shape[1]):
        values[:, step] = 0.95 * values[:, step - 1] + math.sqrt(1 - 0.95**2) * values[:, step]
    return np.exp(values)


@pytest.mark.parametrize(
    ("draw", "largest_rate"),
    [
        (pareto, 0.0035),  # 2 m / (n + 1)(n + 2) = 0.0025
        (log_normal, 0.0005),
        (normal, 0.0002),
        (largest_epsilon, 0.0005),
        (share_of_peaks, 0.0035),
        (slowly_varying, 0.004),
    ],
)
def test_stationary_signals_stay_in_their_bands(draw, largest_rate):
    series = draw(np.random.default_rng(5), (20_000, NUM_REFERENCE + NUM_SEARCHED))
    signals = dict(zip(map(str, range(len(series))), series, strict=True))
    whole = record(**signals)
    false_firsts = departures(
        whole.between(NUM_REFERENCE, NUM_REFERENCE + NUM_SEARCHED), signal_bands(whole.between(0, NUM_REFERENCE - 1))
    )
    assert len(false_firsts) / len(series) <= largest_rate


@pytest.mark.parametrize(
    ("step", "num_reference"), [(4, 2), (5, 3), (19, 10), (46, 23), (98, 49), (99, 50), (300, 200)]
)
def test_bands_are_made_of_half_of_the_steps_where_there_are_few(plan, step, num_reference):
    found = event(1, trigger(step, "nonfinite"), record(update_norm=np.linspace(1, 2, step + 1)), plan)
    assert found.num_reference_steps == num_reference
    assert (found.bands == {}) is (num_reference < 3)


def test_nan_after_a_few_steps_is_told_by_its_departures(plan):
    log_var = np.r_[np.linspace(-1, 1, 14), 18, 28, 17, 26, 41, 82, np.nan]
    gradient = np.r_[np.linspace(2, 3, 18), np.inf, np.inf, np.nan]
    found = event(1, trigger(20, "nonfinite"), record(log_var_max=log_var, gradient_norm=gradient), plan)
    assert [(departure.signal, departure.step) for departure in found.departures] == [
        ("log_var_max", 14),
        ("gradient_norm", 18),
    ]


def test_the_chance_to_leave_a_band_by_chance(plan):
    values = np.random.default_rng(0).random(1000)
    whole = event(1, trigger(400), record(update_norm=values), plan)
    few = event(1, trigger(9), record(update_norm=values), plan)
    assert whole.chance == pytest.approx(2 * 50 / (201 * 202))
    assert few.chance == pytest.approx(2 * 5 / (6 * 7))
    assert event(1, trigger(4), record(update_norm=values), plan).chance == pytest.approx(0.5)


def test_a_search_is_never_shorter_than_a_natural_divergence_takes(plan):
    dense = plan.model_copy(update={"probe": plan.probe.model_copy(update={"every_steps": 10})})
    assert event(1, trigger(400), record(update_norm=np.ones(500)), dense).first_searched == 351
