"""How the module of a task is imported."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests import plant
from tests.examples import run_config
from vaehpc.local.starting import UNUSED
from vaehpc.schema.config import DataConfig

TASK = """
import sys
from vaehpc.local.pool import Task
Task("vaehpc.tasks.train:run", sys.argv[1])()
print([name for name in {unused} if name in sys.modules])
import matplotlib.pyplot, sklearn.cluster
"""
PLAIN = (
    "import sys, vaehpc.tasks.train\nvaehpc.tasks.train.run(sys.argv[1])\nprint(sorted({unused} & sys.modules.keys()))"
)


@pytest.mark.slow
def test_a_training_has_the_same_bits_without_what_keras_would_import_beside_it(
    faces: DataConfig, tmp_path: Path
) -> None:
    """And what was hidden from Keras can be imported after it."""
    states, imported = list[str](), list[str]()
    for name, code in (("task", TASK.format(unused=UNUSED)), ("plain", PLAIN.format(unused=set(UNUSED)))):
        run = plant.run(tmp_path / name / "vae-seed003", run_config(data=faces, train={"epochs": 1}))
        done = subprocess.run(
            [sys.executable, "-c", code, str(run.path)], env=os.environ, capture_output=True, text=True, check=True
        )
        states.append(run.trained().state_sha256)
        imported.append(done.stdout.splitlines()[-1])
    assert imported == ["[]", str(sorted(UNUSED))]
    assert states[0] == states[1]
