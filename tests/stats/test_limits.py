import numpy as np
import pytest

from tests.examples import ARTICLE
from vaehpc.stats.departures import StepRecord
from vaehpc.stats.limits import limits_acted

VAE = ARTICLE["vae-tiny"]


def record(**signals):
    return StepRecord(np.arange(3), {name: np.float32(values).astype(np.float64) for name, values in signals.items()})


@pytest.mark.parametrize(("limit", "expected"), [(5.1, 1), (2.7, 2), (6.0, 0)])
def test_noise_lies_at_its_limit_where_that_acts(limit, expected):
    """As it is recorded, in float32, after the limit."""
    arm = VAE.model_copy(update={"vae": VAE.vae.model_copy(update={"epsilon_limit": limit})})
    noise = record(epsilon_max=np.minimum([2.5, 3.0, 5.5], limit))
    assert limits_acted(arm, noise) == {"vae.epsilon_limit": expected}


def test_log_var_lies_at_its_clamp_and_the_gradient_beyond_its_clip():
    arm = VAE.model_copy(
        update={
            "vae": VAE.vae.model_copy(update={"log_var_limit": 5.0}),
            "train": VAE.train.model_copy(update={"clipnorm": 100.0}),
        }
    )
    found = limits_acted(arm, record(log_var_max=[-5.0, 5.0, np.nan], gradient_norm=[99.0, 101.0, np.inf]))
    assert found == {"train.clipnorm": 2, "vae.log_var_limit": 1}


def test_what_is_not_recorded_is_not_counted():
    assert limits_acted(VAE, record()) == {}
    clipped = VAE.model_copy(update={"vae": None, "train": VAE.train.model_copy(update={"clipnorm": 100.0})})
    assert limits_acted(clipped, record(log_var_max=[1, 2, 3])) == {}
