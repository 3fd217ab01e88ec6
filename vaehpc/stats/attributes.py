"""Linear probes: how well a hyperplane in latent space tells the images with an attribute from those without."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.linear_model import Ridge
from sklearn.metrics import roc_auc_score

from vaehpc.schema.results import AttributeProbe

FloatArray = npt.NDArray[np.floating[Any]]
BoolArray = npt.NDArray[np.bool_]


def attribute_probes(
    train: tuple[FloatArray, BoolArray], test: tuple[FloatArray, BoolArray], names: Sequence[str], penalty: float
) -> dict[str, AttributeProbe]:
    """A probe of each attribute: fitted on some images, judged on others.

    Ridge regression of the attribute, 0 or 1, on the latents: with two classes its direction is that of Fisher's linear
    discriminant but for the penalty, and one solution of the normal equations serves all attributes.

    Args:
        train: points (num_train, z_dim) and attributes (num_train, num_attributes).
        test: points (num_test, z_dim) and attributes (num_test, num_attributes) of other images.
        names: of the attributes.
        penalty: on the squared length of the direction, per image and relative to the mean variance of an axis.
    """
    points, labels = train
    strength = penalty * len(points) * float(np.mean(np.var(points, axis=0, dtype=np.float64)))
    model = Ridge(alpha=strength).fit(points.astype(np.float64), labels.astype(np.float64))
    fitted, judged = (model.predict(each).reshape(len(each), -1) for each in (points, test[0]))  # flat of a single one
    return {
        name: _judged(fitted[:, column], labels[:, column], judged[:, column], test[1][:, column])
        for column, name in enumerate(names)
    }


def _judged(fitted: FloatArray, labels: BoolArray, scores: FloatArray, truth: BoolArray) -> AttributeProbe:
    """Of one attribute, by its scores on the images that it was fitted on and on those that judge it."""
    share = float(truth.mean())
    if labels.all() or not labels.any() or truth.all() or not truth.any():
        return AttributeProbe(share=share, auc=math.nan, balanced_accuracy=math.nan)
    threshold = (fitted[labels].mean() + fitted[~labels].mean()) / 2
    found = scores > threshold
    balanced = (found[truth].mean() + 1 - found[~truth].mean()) / 2
    return AttributeProbe(share=share, auc=float(roc_auc_score(truth, scores)), balanced_accuracy=float(balanced))
