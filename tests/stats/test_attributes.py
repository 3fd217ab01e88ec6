"""Linear probes: a planted attribute is found, noise is not."""

import math

import numpy as np
import pytest
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.metrics import balanced_accuracy_score, roc_auc_score

from vaehpc.stats.attributes import attribute_probes

NAMES = ("planted", "rare", "noise", "all", "none")


def faces(num_images, seed):
    """Points and attributes: two lie on one side of a plane, one is noise."""
    rng = np.random.default_rng(seed)
    points = (rng.standard_normal((num_images, 16)) * np.arange(1, 17) + 5).astype(np.float32)
    direction = np.cos(np.arange(16)) / np.arange(1, 17)
    score = (points - 5) @ direction
    attributes = [score > 0, score > np.quantile(score, 0.97), rng.random(num_images) < 0.3]
    return points, np.column_stack([*attributes, np.ones(num_images, bool), np.zeros(num_images, bool)])


def probed(penalty=1e-6):
    return attribute_probes(faces(6000, 0), faces(3000, 1), NAMES, penalty)


def test_planted_attributes_are_found_however_rare():
    found = probed()
    assert found["planted"].auc > 0.999
    assert found["planted"].balanced_accuracy > 0.98
    assert found["rare"].share == pytest.approx(0.03, abs=0.003)
    assert found["rare"].auc > 0.99
    assert found["rare"].balanced_accuracy > 0.9


def test_noise_is_not():
    noise = probed()["noise"]
    assert noise.share == pytest.approx(0.3, abs=0.03)
    assert noise.auc == pytest.approx(0.5, abs=0.04)
    assert noise.balanced_accuracy == pytest.approx(0.5, abs=0.04)


def test_an_attribute_of_all_or_none_has_no_probe():
    found = probed()
    assert (found["all"].share, found["none"].share) == (1, 0)
    assert math.isnan(found["all"].auc) and math.isnan(found["none"].balanced_accuracy)


def test_agrees_with_linear_discriminant_analysis():
    (points, labels), (test, truth) = faces(6000, 0), faces(3000, 1)
    found = probed(penalty=1e-9)
    for column in range(3):
        discriminant = LinearDiscriminantAnalysis(priors=[0.5, 0.5]).fit(points, labels[:, column])
        probe = found[NAMES[column]]
        assert probe.auc == pytest.approx(
            roc_auc_score(truth[:, column], discriminant.decision_function(test)), abs=1e-4
        )
        expected = balanced_accuracy_score(truth[:, column], discriminant.predict(test))
        assert probe.balanced_accuracy == pytest.approx(expected, abs=2e-3)


def test_the_penalty_is_relative_to_the_points_own_scale():
    (points, labels), (test, truth) = faces(2000, 0), faces(1000, 1)
    small = attribute_probes((points, labels), (test, truth), NAMES, 0.1)
    large = attribute_probes((1000 * points, labels), (1000 * test, truth), NAMES, 0.1)
    assert small["planted"].auc == pytest.approx(large["planted"].auc, abs=1e-6)


def test_a_single_attribute_is_probed_as_one_of_several():
    (points, attributes), (others, truth) = faces(600, 0), faces(300, 1)
    alone = attribute_probes((points, attributes[:, :1]), (others, truth[:, :1]), NAMES[:1], 1e-6)
    assert alone["planted"] == attribute_probes((points, attributes), (others, truth), NAMES, 1e-6)["planted"]
