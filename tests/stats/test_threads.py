"""Work side by side: in order, on the task's threads and no others, the same on any number of them."""

import threading

import numpy as np
import pytest
from threadpoolctl import threadpool_info, threadpool_limits

from vaehpc.stats.blocks import ROWS_PER_BLOCK
from vaehpc.stats.clustering import inertia_curve
from vaehpc.stats.gaussian import fitted_normal, mean_and_covariance
from vaehpc.stats.threads import num_threads, side_by_side


def threads_of_libraries():
    return {library["num_threads"] for library in threadpool_info()}


def test_several_at_once_and_what_is_found_first_does_not_come_first(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    found = [threading.Event() for _ in range(3)]

    def after_the_next(number):
        assert number == 2 or found[number + 1].wait(60)
        found[number].set()
        return number

    assert list(side_by_side(after_the_next, range(3))) == [0, 1, 2]


def test_libraries_keep_to_one_thread_meanwhile(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    with threadpool_limits(2):
        assert list(side_by_side(lambda _: threads_of_libraries(), range(3))) == [{1}] * 3
        assert [threads_of_libraries() for _ in side_by_side(abs, range(2))] == [{1}] * 2
        assert threads_of_libraries() == {2}


def test_as_many_threads_as_the_task_has(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    assert num_threads() == 7
    monkeypatch.delenv("OMP_NUM_THREADS")
    assert num_threads() >= 1


def test_the_number_of_threads_changes_no_bit(monkeypatch, plan):
    points = np.random.default_rng(0).standard_normal((3 * ROWS_PER_BLOCK + 5, 40), np.float32)
    clusters = plan.clusters.model_copy(update={"num_clusters": (4, 8, 12), "leading_axes": 20})
    found = []
    for threads in ("1", "3"):
        monkeypatch.setenv("OMP_NUM_THREADS", threads)
        with threadpool_limits(int(threads)):
            mean, covariance = mean_and_covariance(points)
            normal = fitted_normal(mean, covariance)
            found.append((mean.tolist(), covariance.tolist()))
            found.append(inertia_curve(points, normal, np.arange(1000), clusters, [1, 2, 3]).inertia)
    assert found[:2] == found[2:]


def test_an_error_in_a_thread_is_raised():
    with pytest.raises(ZeroDivisionError):
        list(side_by_side(lambda number: 1 / number, [1, 0]))
