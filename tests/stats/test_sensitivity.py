import pytest
from test_judging import controls, from_start, run
from test_summary import AE, VAE, study

from vaehpc.stats.judging import judge
from vaehpc.stats.runs import MissingRun
from vaehpc.stats.sensitivity import sensitivity


def rows(plan, runs, num_seeds=16):
    return sensitivity(study(plan, AE, VAE, num_seeds=num_seeds), runs)


def test_counts_move_with_the_limits(plan):
    """R / 16 of 1.1, 1.17, 1.7, 2.2, 3.5 and 0.6, and a missing run; all jumped but the first two and the last."""
    radii = [17.6, 18.7, 27.2, 35.2, 56.0, 9.6]
    config = study(plan, AE, VAE, num_seeds=16)
    lost = MissingRun(next(each for each in config.runs() if each.name == "vae-tiny-seed006"), "train", None)
    runs = [*controls(plan), *(run(VAE, seed, plan, radius) for seed, radius in enumerate(radii)), lost]
    found = sensitivity(config, runs)["vae-tiny"]
    counted = {
        (row.diverged_factor, row.shifted_limit): (
            row.num_diverged, row.num_collapsed, row.num_shifted, row.num_regular
        )
        for row in found[:9]
    }  # fmt: skip
    # The limit of 0.10 is never below 3 s = 0.15.
    assert counted == {
        (1.5, 0.10): (3, 1, 1, 1), (1.5, 0.14): (3, 1, 1, 1), (1.5, 0.20): (3, 1, 0, 2),
        (2.0, 0.10): (2, 0, 3, 1), (2.0, 0.14): (2, 0, 3, 1), (2.0, 0.20): (2, 0, 2, 2),
        (3.0, 0.10): (1, 0, 4, 1), (3.0, 0.14): (1, 0, 4, 1), (3.0, 0.20): (1, 0, 3, 2),
    }  # fmt: skip
    assert [(row.diverged_factor, row.shifted_limit) for row in found if row.is_planned] == [(2.0, 0.14)]
    assert {row.jump_factor: row.num_jumped for row in found[8:-1]} == {1.5: 3, 1.3: 3, 2.0: 2}


def test_a_jump_that_need_not_last_is_counted_too(plan):
    excursion = run(VAE, 0, plan, course={1500: 30.0})
    *_, planned, _, _, momentary = rows(plan, [*controls(plan), excursion])["vae-tiny"]
    assert (planned.lasting_probes, planned.num_jumped) == (5, 0)
    assert (momentary.lasting_probes, momentary.num_jumped) == (1, 1)


def test_classes_are_made_anew_with_the_course(plan):
    """Beyond three times the control none of these lies, so that none is displaced or diverged."""
    runs = [*controls(plan), *(run(VAE, seed, plan, 40.0, from_start(40.0)) for seed in range(4))]
    found = {row.diverged_factor: (row.num_displaced, row.num_shifted) for row in rows(plan, runs)["vae-tiny"][:9]}
    assert found == {1.5: (4, 0), 2.0: (4, 0), 3.0: (0, 4)}


def test_the_planned_row_is_the_headline(plan):
    runs = [*controls(plan), run(VAE, 0, plan, 66.0), run(VAE, 1, plan, nonfinite_step=1600), run(VAE, 2, plan)]
    (row,) = [row for row in rows(plan, runs)["vae-tiny"] if row.is_planned]
    classes = judge(study(plan, AE, VAE, num_seeds=16), runs, plan).classes
    assert row.num_diverged == [*classes.values()].count("diverged") == 1
    assert (row.num_collapsed, row.num_regular, row.interval.high) == (0, 1, pytest.approx(0.9057, abs=5e-5))


def test_nothing_is_counted_without_a_scale_or_a_run(plan):
    assert rows(plan, []) == {}
    assert rows(plan, [run(VAE, 0, plan)]) == {}
    assert [*rows(plan, controls(plan))] == ["ae"]
