"""How the module of a task is imported."""

import gc
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests import plant
from tests.examples import run_config
from vaehpc.local.starting import UNUSED, task_module
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


@pytest.mark.long
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


@pytest.mark.parametrize("is_enabled", [True, False])
def test_no_garbage_is_looked_for_while_a_module_is_imported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_enabled: bool
) -> None:
    """And afterwards as before: what is made between two calls is no import."""
    name = f"imported_{is_enabled}"
    (tmp_path / f"{name}.py").write_text("import gc\nWAS_ENABLED = gc.isenabled()\n")
    monkeypatch.syspath_prepend(tmp_path)
    try:
        (gc.enable if is_enabled else gc.disable)()
        assert task_module(name).WAS_ENABLED is False
        assert gc.isenabled() is is_enabled
        num_frozen = gc.get_freeze_count()
        assert num_frozen > 0
        assert task_module(name) is sys.modules[name]
        assert gc.get_freeze_count() <= num_frozen
    finally:
        gc.enable()
        gc.unfreeze()
