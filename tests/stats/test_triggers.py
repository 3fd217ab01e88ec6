"""The flight recorder's triggers: which step crosses which limit, and that ordinary steps cross none."""

import numpy as np
import pytest

from vaehpc.schema.plan import RecorderPlan
from vaehpc.stats.triggers import (
    MIN_STEPS_OF_MEDIAN,
    Trigger,
    first_trigger,
    nonfinite_trigger,
    probe_trigger,
    without_overflows,
)
from vaehpc.study.presets import analysis_plan

PLAN: RecorderPlan = analysis_plan().recorder
NUM_STEPS = 250
FIRST_STEP = 1000


def ring(**changed: dict[int, float]) -> dict[str, np.ndarray]:
    """Steps 1000 ... 1249 of a calm training, with some values changed: {signal: {row: value}}."""
    rng = np.random.default_rng(3)
    columns = {
        "step": np.arange(FIRST_STEP, FIRST_STEP + NUM_STEPS),
        "total_loss": rng.normal(800.0, 20.0, NUM_STEPS),
        "gradient_norm": rng.lognormal(3.0, 0.3, NUM_STEPS),
        "gradient_rms": rng.lognormal(-0.3, 0.1, NUM_STEPS),
        "log_var_max": rng.normal(-2.0, 0.5, NUM_STEPS),
    }
    for signal, values in changed.items():
        for row, value in values.items():
            columns[signal][row] = value
    return columns


def test_a_calm_training_triggers_nothing() -> None:
    assert first_trigger(ring(), NUM_STEPS, PLAN) is None


def test_a_gradient_is_compared_with_the_median_of_the_steps_before_it() -> None:
    columns = ring(gradient_norm={230: 1e4})
    median = np.median(columns["gradient_norm"][30:230])
    found = first_trigger(columns, 50, PLAN)
    assert found == Trigger(1230, "gradient_norm", 1e4, pytest.approx(10 * median))


@pytest.mark.parametrize(("signal", "limit"), [("gradient_rms", PLAN.rms_limit), ("log_var_max", PLAN.log_var_limit)])
def test_a_limit_is_crossed_above_it_and_not_at_it(signal: str, limit: float) -> None:
    assert first_trigger(ring(**{signal: {240: limit}}), 50, PLAN) is None
    found = first_trigger(ring(**{signal: {240: limit * 1.001}}), 50, PLAN)
    assert found == Trigger(1240, signal, pytest.approx(limit * 1.001), limit)


def test_the_first_step_wins_whatever_its_signal() -> None:
    found = first_trigger(ring(gradient_norm={241: 1e9}, log_var_max={240: 30.0}), 50, PLAN)
    assert found is not None
    assert (found.step, found.signal) == (1240, "log_var_max")


def test_a_signal_that_stays_beyond_its_limit_triggers_once() -> None:
    high = dict.fromkeys(range(190, 250), 30.0)
    assert first_trigger(ring(log_var_max=high), 50, PLAN) is None  # it crossed at row 190, which is not new
    assert first_trigger(ring(log_var_max=high), 60, PLAN) is not None


def test_old_steps_trigger_nothing() -> None:
    assert first_trigger(ring(gradient_norm={199: 1e9}), 50, PLAN) is None


def test_a_gradient_is_not_called_large_after_a_few_steps() -> None:
    def first_rows(row: int) -> dict[str, np.ndarray]:
        return {name: values[: row + 1] for name, values in ring(gradient_norm={row: 1e9}).items()}

    few = MIN_STEPS_OF_MEDIAN - 1
    assert first_trigger(first_rows(few), few + 1, PLAN) is None
    assert first_trigger(first_rows(few + 1), few + 2, PLAN) is not None


def test_an_ae_has_no_log_var() -> None:
    columns = ring(gradient_rms={240: 100.0})
    del columns["log_var_max"]
    found = first_trigger(columns, 50, PLAN)
    assert found is not None
    assert found.signal == "gradient_rms"


def test_nan_crosses_nothing() -> None:
    spoilt = {249: float("nan")}
    assert first_trigger(ring(gradient_norm=spoilt, log_var_max=spoilt), 50, PLAN) is None


def test_the_probe_triggers_where_the_radius_grows_by_three_tenths() -> None:
    assert probe_trigger(20.0, 25.9, 1249, PLAN) is None
    assert probe_trigger(20.0, 26.1, 1249, PLAN) == Trigger(1249, "probe_radius", 26.1, 26.0)


@pytest.mark.parametrize(("signal", "value"), [("total_loss", np.nan), ("gradient_norm", np.inf)])
def test_a_loss_or_gradient_that_is_not_finite_triggers_at_its_first_step(signal: str, value: float) -> None:
    assert nonfinite_trigger(ring(), NUM_STEPS) is None
    found = nonfinite_trigger(ring(**{signal: {5: value, 6: value}}), NUM_STEPS)
    assert found is not None
    assert (found.step, found.signal, found.limit) == (1005, "nonfinite", np.inf)
    np.testing.assert_equal(found.value, value)


def test_the_gradient_may_be_infinite_before_the_loss_and_old_steps_are_past() -> None:
    columns = ring(gradient_norm=dict.fromkeys((240, 241, 242), np.inf), total_loss={242: np.nan})
    found = nonfinite_trigger(columns, 50)
    assert found is not None
    assert found.step == 1240
    assert nonfinite_trigger(columns, 9) is None


def test_overflows_of_a_loss_scale_trigger_nothing() -> None:
    spoilt = dict.fromkeys((0, 1, 230), np.inf)
    columns = ring(gradient_norm=spoilt, gradient_rms=spoilt)
    assert nonfinite_trigger(without_overflows(columns), NUM_STEPS) is None
    assert first_trigger(without_overflows(columns), NUM_STEPS, PLAN) is None
    assert first_trigger(columns, NUM_STEPS, PLAN) is not None
    assert nonfinite_trigger(without_overflows(ring(total_loss={230: np.nan})), NUM_STEPS) is not None
