import math
import tomllib
from dataclasses import replace

import pytest
from test_summary import measured as measured_on_celeba

from tests.examples import ARTICLE, CELEBA
from vaehpc.schema.config import ModelConfig, TrainConfig, VaeConfig
from vaehpc.schema.results import (
    DifferenceCensus,
    HeadNorms,
    Histogram,
    InertiaCurve,
    RadiusStatistics,
    RunCourse,
    TsneResult,
)
from vaehpc.stats.comparison import Reference, compare, differences, measurements
from vaehpc.stats.summary import summarise_run
from vaehpc.study.files import declaration

AE, VAE = ARTICLE.values()
NO_BIAS = "no bias before BatchNormalization, which takes it away; Keras' default has one"
EPOCH_MEANS = "epoch means of losses weigh images alike; Keras' weigh the last batch, of 16, as any other"
DIFFERENCE = DifferenceCensus(
    max_component=0.26,
    num_in_interval=5,
    max_abs_radius=0.018045425,
    mean_abs_radius=0.00094899256,
    max_rel_radius=0.00072147313,
    mean_rel_radius=6.1240215e-05,
    expected_mean_abs_radius=0.00095,
)
INERTIA = InertiaCurve(
    method="subsampled", num_clusters=(2, 4), inertia=(2.0, 1.0), seeds=(1, 2), elbow=None, elbow_factor=1.2
)
TSNE = TsneResult(
    settings="30-12",
    num_images=20_000,
    perplexity=30.0,
    kl_divergence=3.0,
    neighbour_recall=0.2,
    neighbour_recall_expected=0.0005,
    seed=1,
)
HEAD = HeadNorms(kernel_norm=4.0, bias_norm=16.0, bias_mean=-1.0)


@pytest.fixture(scope="module")
def reference() -> Reference:
    return Reference.model_validate(tomllib.loads(declaration("analysis/reference.toml")))


def measured(arm, seed, plan, radius_median=16.1, **given):
    """A run with the article's numbers, where nothing else is asked for."""
    radius = RadiusStatistics(
        median=radius_median,
        mean=16.283972,
        min=min(6.4961233, radius_median),
        max=max(33.10274, radius_median),
        mode=16.25,
        histogram=Histogram(bin_width=0.5, counts=(0,) * 70, overflow=0),
        shell_shares={"12-24": 0.98, "14-19": 0.7},
    )
    statistics = {
        "radius_mu": radius,
        "radius_z": radius.model_copy(update={"mean": 16.283989}),
        "difference": arm.vae and DIFFERENCE,
        "inertia": INERTIA,
        "tsne": tuple(TSNE.model_copy(update={"settings": name}) for name in ("30-12", "10-16", "30-12-pca")),
        "heads": {"mu": HEAD, "log_var": HEAD} if arm.vae else {"mu": HEAD},
    }
    seconds = {"seconds_per_epoch": 119.0, "device": "gpu"}
    return measured_on_celeba(arm, seed, plan, radius_median, statistics=statistics, **seconds, **given)


def summarised(run):
    """Without a control."""
    return summarise_run(run, "nonfinite" if run.is_nonfinite else "unclassified", RunCourse(), is_judged=False)


def compared(reference, runs, rates=None, **summary):
    """The comparison of runs of which the study says this; regular ones, where nothing is said."""
    summaries = {run.config.name: summarised(run).model_copy(update=summary) for run in runs}
    return compare(reference, CELEBA, ARTICLE, runs, summaries, rates or {})


def measured_of(run):
    return measurements(run, summarised(run))


def row(comparison, quantity):
    (found,) = [row for row in comparison.rows if row.quantity == quantity]
    return found


def test_every_measure_of_the_reference_exists(reference, plan):
    of_some = {"diverged_share", "elsewhere_radius", "onset_kl_loss", "working_kl_total_loss"}
    measures = {quantity.measure for quantity in reference.quantities} - {None}
    assert of_some < measures
    assert measures - of_some < measured_of(measured(VAE, 0, plan)).keys()


def test_a_run_like_the_articles_agrees_with_it(reference, plan):
    """Where the article prints one number for its first VAE, a run that found it shows the same number."""
    comparison = compared(reference, [measured(VAE, 0, plan)], {"vae-tiny": None})
    printed = {
        "VAE: KL loss": 0.0178,
        "steps per epoch": 1329,
        "VAE: largest R from z": 33.10274,
        "VAE: smallest R from z": 6.4961233,
        "VAE: mean R from z": 16.283989,
        "VAE: mean R from mu": 16.283972,
        "VAE: largest difference of R": 0.018045425,
        "VAE: mean difference of R": 0.00094899256,
        "VAE: largest relative difference of R": 0.00072147313,
        "VAE: mean relative difference of R": 6.1240215e-05,
        "VAE: largest log_var": -2.0205276,
        "VAE: smallest log_var": -24.660698,
        "VAE: mean log_var": -13.682616,
        "VAE: components with log_var in [-3, 5]": 2,
        "VAE: largest z - mu": 0.26,
        "VAE: components with 0.05 < |z - mu| < 2": 5,
    }
    for quantity, value in printed.items():
        found = row(comparison, quantity)
        assert found.measured == {"vae-tiny-seed000": value}, quantity
        assert float(found.article[0].text) == value, quantity
        assert found.article[0].where
    assert row(comparison, "VAE: reconstruction loss").measured["vae-tiny-seed000"] == pytest.approx(4555.6426)
    assert row(comparison, "VAE: KL loss / reconstruction loss").measured["vae-tiny-seed000"] < 4e-6
    assert 89 <= row(comparison, "VAE: milliseconds per step").measured["vae-tiny-seed000"] <= 90


def test_kinds_are_kept_apart(reference, plan):
    runs = [measured(AE, 0, plan, total_loss=4515.84), measured(VAE, 0, plan), measured(VAE, 1, plan)]
    comparison = compared(reference, runs)
    assert row(comparison, "AE: total loss").measured == {"ae-nobn-seed000": 4515.84}
    assert row(comparison, "AE: loss per pixel").measured == {"ae-nobn-seed000": pytest.approx(0.49)}
    assert row(comparison, "VAE: total loss").measured.keys() == {"vae-tiny-seed000", "vae-tiny-seed001"}
    assert len(row(comparison, "steps per epoch").measured) == 3


def test_what_no_run_measured_has_no_row(reference, plan):
    comparison = compared(reference, [measured(AE, 0, plan)], {"ae-nobn": 0.0})
    assert {row.of for row in comparison.rows} == {"ae", "any"}


def test_losses_are_those_of_the_last_epoch(plan):
    assert measured_of(measured(VAE, 0, plan, total_loss=4554.0, epochs=3))["total_loss"] == 4554.0


def test_a_run_without_an_epoch_still_has_radii(plan):
    found = measured_of(measured(VAE, 0, plan, epochs=0))
    assert "total_loss" not in found
    assert found["radius_z_mean"] == 16.283989


def test_no_elbow_is_nan_and_an_elbow_its_number(plan):
    run = measured(VAE, 0, plan)
    assert math.isnan(measured_of(run)["elbow"])
    inertia = run.statistics.inertia.model_copy(update={"elbow": 40})
    statistics = run.statistics.model_copy(update={"inertia": inertia})
    assert measured_of(replace(run, statistics=statistics))["elbow"] == 40


def test_a_run_that_is_not_finite_is_compared_in_nothing_of_its_end(plan):
    """Even if an older release has measured the whole state before its NaN."""
    working = VAE.model_copy(update={"vae": VaeConfig(kl_weight=5.0)})
    run = measured(working, 0, plan, radius_median=66.0, nonfinite_step=19)
    assert run.statistics.inertia is not None and run.history
    assert measured_of(run) == {"steps_per_epoch": 1329, "num_triggers": 0, "nonfinite_step": 19}


def test_heads_are_compared_where_there_are_two(plan):
    run = measured(VAE, 0, plan)
    heads = {
        "mu": run.statistics.heads["mu"],
        "log_var": run.statistics.heads["mu"].model_copy(update={"kernel_norm": 1}),
    }
    found = measured_of(replace(run, statistics=run.statistics.model_copy(update={"heads": heads})))
    assert (found["head_kernel_ratio"], found["log_var_bias_mean"]) == (0.25, -1)
    assert "head_kernel_ratio" not in measured_of(measured(AE, 0, plan))


def test_a_run_that_went_elsewhere_says_where_and_with_which_kl_loss(reference, plan):
    run = measured(VAE, 0, plan, radius_median=66.0, epochs=24)
    history = [epoch.model_copy(update={"kl_loss": 0.001 * epoch.epoch}) for epoch in run.history]
    found = compared(reference, [replace(run, history=history)], run_class="diverged", onset_step=21 * 1329 + 1)
    assert row(found, "VAE: radii of runs that went elsewhere").measured == {"vae-tiny-seed000": 66.0}
    assert row(found, "VAE: KL loss at the jump to R = 66").measured == {"vae-tiny-seed000": pytest.approx(0.022)}


def test_a_regular_run_went_nowhere(reference, plan):
    quantities = {row.quantity for row in compared(reference, [measured(VAE, 0, plan)], run_class="regular").rows}
    assert "VAE: radii of runs that went elsewhere" not in quantities
    assert "VAE: KL loss at the jump to R = 66" not in quantities


def test_only_a_working_kl_loss_is_compared_with_the_articles(reference, plan):
    working = measured(VAE.model_copy(update={"vae": VaeConfig(kl_weight=5.0)}), 1, plan, total_loss=4900.0)
    found = compared(reference, [measured(VAE, 0, plan), working])
    quantity = "VAE with a working KL loss (fact = 5): total loss"
    assert row(found, quantity).measured == {"vae-tiny-seed001": 4900.0}


def test_share_of_diverged_runs_is_per_arm(reference):
    comparison = compared(reference, [], {"ae-nobn": 0.0, "vae-tiny": 0.25})
    assert row(comparison, "VAE: share of diverged runs").measured == {"vae-tiny": 0.25}


def test_the_articles_own_study_deviates_in_what_is_declared(reference):
    assert compared(reference, []).differences == {"ae-nobn": (EPOCH_MEANS,), "vae-tiny": (NO_BIAS, EPOCH_MEANS)}


def test_the_articles_remedy_is_the_articles(reference):
    limited = VAE.model_copy(update={"vae": VaeConfig(epsilon_limit=5.0)})
    assert differences(reference, limited, CELEBA) == (NO_BIAS, EPOCH_MEANS)


def test_a_deviation_is_declared_where_it_is_one(reference):
    whole = CELEBA.model_copy(update={"num_train": 1280})
    inference = VAE.model_copy(update={"model": ModelConfig(batch_norm="inference")})
    assert differences(reference, inference, whole) == ("num_train 1280, in the article 170000",)


def test_smaller_synthetic_data_are_named(reference):
    data = CELEBA.model_copy(update={"synthetic": True, "image_size": 48, "num_train": 2048})
    assert differences(reference, VAE, data) == (
        "synthetic images, not CelebA",
        "image_size 48, in the article 96",
        "num_train 2048, in the article 170000",
        NO_BIAS,
    )


def test_other_settings_of_an_arm_are_named(reference):
    ae = AE.model_copy(update={"model": ModelConfig(batch_norm=True)})
    assert differences(reference, ae, CELEBA) == ("batch_norm True, in the article False", NO_BIAS, EPOCH_MEANS)
    vae = VAE.model_copy(update={"vae": VaeConfig(kl_weight=5, epsilon_limit=2.0)})
    assert differences(reference, vae, CELEBA) == (
        "kl_weight 5.0, in the article 1e-05",
        f"epsilon_limit 2.0, in the article {math.inf} or 5.0",
        NO_BIAS,
        EPOCH_MEANS,
    )
    adam = VAE.model_copy(update={"train": TrainConfig(beta_1=0.5, adam_epsilon=1e-3, weight_decay=0.01)})
    assert differences(reference, adam, CELEBA)[:3] == (
        "beta_1 0.5, in the article 0.9",
        "adam_epsilon 0.001, in the article 1e-07",
        "weight_decay 0.01, in the article 0.0",
    )


def test_footnotes_are_carried(reference):
    assert any("45.52" in note for note in compared(reference, []).footnotes)
