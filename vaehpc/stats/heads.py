"""The two dense layers that give mu and log_var: how large their weights are."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from vaehpc.schema.results import HeadNorms

FloatArray = npt.NDArray[np.floating[Any]]


def head_norms(kernel: FloatArray, bias: FloatArray) -> HeadNorms:
    """Norms of a kernel (num_inputs, z_dim) and a bias (z_dim,)."""
    wide_kernel, wide_bias = kernel.astype(np.float64), bias.astype(np.float64)
    return HeadNorms(
        kernel_norm=float(np.linalg.norm(wide_kernel)),
        bias_norm=float(np.linalg.norm(wide_bias)),
        bias_mean=float(wide_bias.mean()),
    )
