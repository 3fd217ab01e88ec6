import pytest

from tests.examples import ARTICLE, CELEBA, epoch_record, measured_run, run_config, study_config
from vaehpc.schema.config import ArmConfig, StudyConfig
from vaehpc.stats.comparison import Reference
from vaehpc.stats.divergence import Control, ControlScale
from vaehpc.stats.runs import MeasuredRun, MissingRun
from vaehpc.stats.summary import find_control, summarise

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


def test_the_control_is_the_ae_that_is_equal_otherwise(plan):
    config = study(plan, SLOWER_VAE, AE, VAE, synthetic=True)
    controls = [measured(AE, seed, plan, radius_median=radius) for seed, radius in enumerate([19, 20, 21])]
    vaes = [measured(VAE, 0, plan, radius_median=66), measured(SLOWER_VAE, 0, plan, radius_median=66)]
    expected = Control(
        "ae", ControlScale(centre=pytest.approx(20), scatter=pytest.approx(0.0723, abs=5e-4)), num_runs=3
    )
    assert find_control(VAE, config, controls + vaes) == expected
    assert find_control(AE, config, controls + vaes) == expected
    assert find_control(SLOWER_VAE, config, controls + vaes) == Control(None, None, num_runs=0)


def test_controls_that_are_not_finite_are_left_out(plan):
    runs = [measured(AE, 0, plan, radius_median=16), measured(AE, 1, plan, radius_median=40, nonfinite_step=5)]
    control = find_control(VAE, study(plan, AE, VAE), runs)
    assert control.num_runs == 1
    assert control.scale is not None
    assert control.scale.centre == pytest.approx(16)


def test_a_control_without_a_finite_run_gives_no_scale(plan):
    """Nor does the article's radius stand in: classes must not change their meaning when the control ends."""
    config = study(plan, AE, VAE)
    assert find_control(VAE, config, []) == Control("ae", None, num_runs=0)
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
