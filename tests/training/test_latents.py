"""Latents are measured alike on the host and where they are."""

import numpy as np
import pytest
import tensorflow as tf

from tests.examples import run_config
from vaehpc.stats.radius import offset_and_spread
from vaehpc.training.latents import _on_device, measuring
from vaehpc.training.models import build_net, layer_seeds

IMAGES = np.random.default_rng(0).integers(256, size=(40, 16, 16, 3)).astype(np.uint8)


@pytest.mark.parametrize("kind", ["vae", "ae"])
@pytest.mark.parametrize("count", [40, 20])
def test_latents_are_measured_alike_on_host_and_device(kind: str, count: int) -> None:
    run = run_config(kind)
    net = build_net(run.arm, 16, layer_seeds(run.key("initialisation")))
    host, device = (measuring(net, IMAGES, 16, resident)(count) for resident in (None, tf.Variable(IMAGES)))
    np.testing.assert_allclose(device.radius, host.radius, rtol=1e-12)
    assert len(host.radius) == count
    assert (device.offset, device.spread) == pytest.approx((host.offset, host.spread), rel=1e-12)
    assert (host.log_var is None) == (kind == "ae")
    if host.log_var is not None:
        assert device.log_var == pytest.approx(host.log_var, rel=1e-12)


def test_a_point_that_is_not_finite_has_no_part_in_offset_and_spread() -> None:
    mu = np.random.default_rng(0).normal(3, 1, (5, 4)).astype(np.float32)
    mu[1, 2], mu[3, 0] = np.nan, np.inf
    radius, offset, spread, _ = _on_device(tf.constant(mu), None)
    np.testing.assert_array_equal(np.isfinite(radius), [True, False, True, False, True])
    assert (float(offset), float(spread)) == pytest.approx(offset_and_spread(mu), rel=1e-12)
