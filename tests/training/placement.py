"""`placement` of every kind of run, as JSON.

The wheel that is asked is that of the Python which runs it, as a rule the one with GPU kernels.
"""

from __future__ import annotations

import vaehpc  # isort: skip  # noqa: F401  # before TensorFlow, so that oneDNN is on

import json
from itertools import product

import numpy as np

from tests.examples import run_config
from vaehpc.schema.config import SpikeConfig
from vaehpc.training.fit import build_optimizer
from vaehpc.training.models import build_net, layer_seeds
from vaehpc.training.pipeline import device_memory
from vaehpc.training.placement import Found, placement
from vaehpc.training.steps import OneProgram

PRECISIONS = ("float32", "mixed_bfloat16", "mixed_float16")
IMAGES = np.zeros((36, 16, 16, 3), np.uint8)
"""Two batches of 16 and one of 4."""


def looked_at(kind: str, precision: str, spike: str | None, resident: bool) -> Found:
    """All functions that a run's block calls, traced here as on a GPU."""
    run = run_config(kind, num_train=len(IMAGES), train={"precision": precision, "jit_compile": True})
    disturbed = spike and SpikeConfig(kind=spike, strength=10.0, steps_before_end=2)  # type: ignore[arg-type]
    run = run.model_copy(update={"arm": run.arm.model_copy(update={"spike": disturbed})})
    net = build_net(run.arm, 16, layer_seeds(run.key("initialisation")))
    memory = device_memory(IMAGES, len(IMAGES))
    block = OneProgram(run, IMAGES, net, build_optimizer(run.arm.train, net), True, memory if resident else None)
    shapes = [(2, 16, False), (1, 4, False)] + [(1, 16, True)] * (spike is not None)
    return placement(block, shapes, memory)


def main() -> None:
    """Every kind of run."""
    runs = product(("ae", "vae"), PRECISIONS, (None, "gradient", "log_var"), (True, False))
    of_runs = {
        " ".join(map(str, run)): {name: sorted(getattr(found, name)) for name in ("no_kernel", "crossing", "in_loop")}
        for run in runs
        if run[::2] != ("ae", "log_var")
        for found in [looked_at(*run)]
    }
    print(json.dumps(of_runs, indent=1))


if __name__ == "__main__":
    main()
