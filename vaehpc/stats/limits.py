"""How often the limits of an arm changed anything in a training: one that never acts makes two arms equal."""

from __future__ import annotations

import numpy as np

from vaehpc.schema.config import ArmConfig
from vaehpc.stats.departures import StepRecord

AT_LIMIT = 1 - 1e-6
"""Relative: a value that was limited is recorded in float32."""


def limits_acted(arm: ArmConfig, record: StepRecord) -> dict[str, int]:
    """Recorded steps in which each limit of the arm acted, by the limit's setting.

    Noise and log_var are recorded as they were limited, so that they lie at the limit; the gradient as it came, so that
    its norm lies beyond.
    """
    limits = {"train.clipnorm": ("gradient_norm", arm.train.clipnorm, 1.0)}
    if arm.vae is not None:
        limits["vae.epsilon_limit"] = ("epsilon_max", arm.vae.epsilon_limit, AT_LIMIT)
        limits["vae.log_var_limit"] = ("log_var_max", arm.vae.log_var_limit, AT_LIMIT)
    return {
        setting: int(np.sum(record.signals[signal] >= factor * limit))
        for setting, (signal, limit, factor) in limits.items()
        if limit is not None and signal in record.signals
    }
