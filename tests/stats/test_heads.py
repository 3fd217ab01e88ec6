import numpy as np

from vaehpc.stats.heads import head_norms


def test_norms_of_known_weights():
    norms = head_norms(np.array([[3, 0], [0, 4]], np.float32), np.array([-6, -8], np.float32))
    assert (norms.kernel_norm, norms.bias_norm, norms.bias_mean) == (5, 10, -7)
