import pytest

from tests.examples import ARTICLE, CELEBA, epoch_record, measured_run, run_config, study_config
from vaehpc.schema.config import ArmConfig, StudyConfig
from vaehpc.stats.comparison import Reference
from vaehpc.stats.divergence import Control, ControlScale
from vaehpc.stats.judging import judge
from vaehpc.stats.runs import MeasuredRun, MissingRun
from vaehpc.stats.summary import summarise

VAE = ARTICLE["vae-tiny"]
AE = VAE.model_copy(update={"name": "ae", "vae": None})
SLOWER_VAE = VAE.model_copy(update={"name": "vae-slow", "train": VAE.train.model_copy(update={"learning_rate": 1e-4})})
NO_REFERENCE = Reference(trained={"any": {}, "ae": {}, "vae": {}}, quantities=(), footnotes=())


def study(plan, *arms: ArmConfig, num_seeds=4, **data) -> StudyConfig:
    return study_config(arms, num_seeds, plan, data=CELEBA.model_copy(update=data))


def measured(arm, seed, plan, radius_median=16.1, total_loss=4555.6604, epochs=1, **given) -> MeasuredRun:
    """A run on the article's data; before the last epoch its losses were far larger."""
    run = run_config(arm=arm, seed=seed, data=CELEBA, plan=plan)
    history = []
    for epoch in range(1, epochs + 1):
        loss, kl_loss = total_loss if epoch == epochs else 9999.0, 0.0178 if arm.vae else 0.0
        losses = {"total_loss": loss, "reconstruction_loss": loss - kl_loss}
        history.append(epoch_record(run, epoch, radius_median, **losses))
    return measured_run(run, radius=radius_median, course={}, history=history, **given)


def controls(config, runs):
    return judge(config, runs, config.plan).controls


def test_the_control_is_the_ae_that_is_equal_otherwise(plan):
    config = study(plan, SLOWER_VAE, AE, VAE, synthetic=True)
    runs = [measured(AE, seed, plan, radius_median=radius) for seed, radius in enumerate([19, 20, 21])]
    runs += [measured(VAE, 0, plan, radius_median=66), measured(SLOWER_VAE, 0, plan, radius_median=66)]
    found = controls(config, runs)
    for arm in ("vae-tiny", "ae"):
        assert (found[arm].name, found[arm].num_runs) == ("ae", 3)
        expected = ControlScale(centre=pytest.approx(20), scatter=pytest.approx(0.0723, abs=5e-4))
        assert found[arm].scale == expected
    assert found["vae-slow"] == Control(None, None, num_runs=0)


def test_controls_that_are_not_finite_are_left_out(plan):
    runs = [measured(AE, 0, plan, radius_median=16), measured(AE, 1, plan, radius_median=40, nonfinite_step=5)]
    control = controls(study(plan, AE, VAE), runs)["vae-tiny"]
    assert control.num_runs == 1
    assert control.scale is not None
    assert control.scale.centre == pytest.approx(16)


def test_a_state_before_a_nan_is_no_end(plan):
    """Of the VAE a state at R = 66 was kept, beyond the limit of its control."""
    runs = [measured(AE, 0, plan), measured(VAE, 0, plan, radius_median=66, nonfinite_step=19)]
    found = summarise(study(plan, AE, VAE, num_seeds=1), runs, NO_REFERENCE).runs["vae-tiny-seed000"]
    assert (found.run_class, found.nonfinite_step, found.ever_diverged) == ("nonfinite", 19, False)
    assert (found.radius_median, found.radius_mode, found.reconstruction_loss, found.kl_loss) == (None,) * 4


def test_a_control_without_a_finite_run_gives_no_scale(plan):
    """Nor does the article's radius stand in: classes must not change their meaning when the control ends."""
    config = study(plan, AE, VAE)
    control = controls(config, [])["vae-tiny"]
    assert (control.name, control.scale, control.num_runs, control.is_sound) == ("ae", None, 0, False)
    summary = summarise(config, [measured(VAE, 0, plan)], NO_REFERENCE)
    assert summary.runs["vae-tiny-seed000"].run_class == "unclassified"
    assert summary.arms["vae-tiny"].rate is None


def test_without_a_control_the_articles_study_has_the_articles_limits(plan):
    radii = [16.0, 17.37, 19.75, 66.0]
    runs = [measured(VAE, seed, plan, radius_median=radius) for seed, radius in enumerate(radii)]
    summary = summarise(study(plan, VAE), runs, NO_REFERENCE)
    assert [run.run_class for run in summary.runs.values()] == ["regular", "regular", "shifted", "diverged"]
    assert summary.control == {"vae-tiny": "article"}
    assert summary.arms["vae-tiny"].rate == 0.25
    assert summary.provisional


def test_without_a_control_other_data_are_unclassified(plan):
    summary = summarise(study(plan, VAE, synthetic=True), [measured(VAE, 0, plan)], NO_REFERENCE)
    assert summary.runs["vae-tiny-seed000"].run_class == "unclassified"
    assert summary.runs["vae-tiny-seed000"].radius_median == 16.1
    assert summary.control == {"vae-tiny": None}


def test_photographs_are_not_compared_with_the_article(plan):
    compared = [
        summarise(study(plan, VAE, **data), [measured(VAE, 0, plan)], NO_REFERENCE).comparison is not None
        for data in ({}, {"synthetic": True}, {"photographs": True})
    ]
    assert compared == [True, True, False]


def test_a_missing_run_is_never_regular(plan):
    config = study(plan, AE, VAE, num_seeds=1)
    _, vae = config.runs()
    runs = [measured(AE, 0, plan), MissingRun(vae, "train", "MemoryError")]
    summary = summarise(config, runs, NO_REFERENCE)
    missing = summary.runs["vae-tiny-seed000"]
    assert (missing.run_class, missing.missing_stage, missing.last_words) == (None, "train", "MemoryError")
    assert (summary.arms["ae"].num_missing, summary.arms["vae-tiny"].num_missing) == (0, 1)


def test_seeds_that_a_planned_look_adds_are_as_planned(plan):
    looks = plan.contrasts.model_copy(update={"looks": (2, 4)})
    planned = plan.model_copy(update={"contrasts": looks})
    for first, expected in ((2, ()), (1, ("3 of 4 seeds of ae were added after the first launch",))):
        config = study(planned, AE).model_copy(update={"first_seeds": {"ae": tuple(range(first))}})
        assert summarise(config, [measured(AE, 0, planned)], NO_REFERENCE).deviations == expected


def test_a_study_of_an_older_plan_names_the_runs_that_are_judged_otherwise(plan):
    """Displaced runs had diverged, and a dip of one probe ended in an 'abrupt' onset."""
    radii = [38.0, 40.0, 41.0, 43.0]
    old_text = "level = 0.95\n[probe]\nabrupt_factor = 1.5\n"
    data = CELEBA.model_copy(update={"num_train": 12_800})  # 100 steps an epoch
    arms = [arm.model_copy(update={"train": arm.train.model_copy(update={"epochs": 8})}) for arm in (AE, VAE)]
    config = study_config(arms, 8, plan, data=data)

    def run(arm, seed, radius, changes=()):
        of_run = run_config(arm=arm, seed=seed, data=data, plan=plan)
        course = dict.fromkeys(range(50, 801, 50), radius) | dict(changes)
        return measured_run(of_run, radius=radius, course=course)

    runs = [run(arms[0], seed, 16.0) for seed in range(8)]
    runs += [run(arms[1], seed, radius) for seed, radius in enumerate(radii)]
    runs += [run(arms[1], 4, 40.0, {400: 20.0})]
    assert summarise(config, runs, NO_REFERENCE).reclassed is None
    older = config.model_copy(update={"plan_text": old_text})
    assert summarise(older, runs, NO_REFERENCE).reclassed == (
        *(f"vae-tiny-seed00{seed} (diverged, now displaced; onset at step 350, now no onset)" for seed in range(5)),
    )
    dipped = [*runs[:8], run(arms[1], 0, 17.0, {400: 8.0})]
    assert summarise(older, dipped, NO_REFERENCE).reclassed == ("vae-tiny-seed000 (onset at step 450, now no onset)",)


def test_limits_and_hashes_reach_the_summary(plan):
    run = measured(VAE, 0, plan, state_sha256="d" * 64)
    run = type(run)(**vars(run) | {"limits_acted": {"vae.epsilon_limit": 3}, "num_recorded": 900})
    found = summarise(study(plan, VAE), [run], NO_REFERENCE).runs["vae-tiny-seed000"]
    assert (found.limits_acted, found.num_recorded, found.state_sha256) == ({"vae.epsilon_limit": 3}, 900, "d" * 64)
