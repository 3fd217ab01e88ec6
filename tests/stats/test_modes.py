import numpy as np
import pytest

from vaehpc.schema.plan import ModesPlan
from vaehpc.stats.modes import dip, dip_tests

PLAN = ModesPlan(min_runs=8, num_simulations=999)


def key(size):
    return np.random.SeedSequence(4, spawn_key=(size,))


def test_two_far_points_are_as_far_from_one_mode_as_possible():
    """Half of the values at each of two places: 1/4."""
    assert dip(np.array([0.0] * 50 + [1.0] * 50)) == 0.25


@pytest.mark.parametrize("values", [[3.0], [3.0] * 9, [1.0, 2.0, 3.0, 4.0, 5.0]])
def test_no_sample_is_nearer_than_half_a_step(values):
    assert dip(np.array(values)) == 1 / (2 * len(values))


def test_p_tells_two_modes_from_one():
    numbers = np.random.default_rng(6)
    one, two = numbers.normal(2.8, 0.03, 24), np.r_[numbers.normal(2.8, 0.03, 12), numbers.normal(3.0, 0.03, 12)]
    tests = dip_tests({"one": one, "two": two, "few": one[:7]}, PLAN, key)
    assert tests.keys() == {"one", "two"}
    assert tests["two"].p < 0.01 < 0.2 < tests["one"].p


def test_p_repeats_with_its_key():
    values = {"arm": np.random.default_rng(1).random(12)}
    assert dip_tests(values, PLAN, key) == dip_tests(values, PLAN, key)
    assert dip_tests(values, PLAN, key) != dip_tests(values, PLAN, lambda _: np.random.SeedSequence(9))


def test_p_of_uniform_samples_is_uniform():
    numbers = np.random.default_rng(8)
    tests = dip_tests({str(i): numbers.random(10) for i in range(300)}, PLAN, key)
    assert np.mean([test.p <= 0.2 for test in tests.values()]) == pytest.approx(0.2, abs=0.08)
