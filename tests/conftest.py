"""The tiers of the tests, and data sets of built-in faces that they share."""

import os
import shutil
from pathlib import Path

import pytest

from tests.processes import without_workers
from vaehpc.schema.config import DataConfig
from vaehpc.study.files import DataDir
from vaehpc.study.study import data_config

os.environ.setdefault("XLA_FLAGS", "--xla_backend_optimization_level=0")
"""The same programs of XLA's, but half as long until LLVM has made machine code of them."""

TIERS = {"cluster": "slurm", "containers": "images"}
"""Folders whose tests are all of one tier."""
FIRST = (
    "test_pipeline.py",
    "checks/test_proof.py",
    "tasks/test_train.py",
    "training/test_steps.py",
    "studies/test_older_studies.py",
    "test_replayed_control.py",
    "tasks/test_aggregate.py",
    "reporting/test_planted_truths.py",
    "training/test_fit.py",
    "training/test_signals.py",
)
"""Files that take longest, in this order: what begins last should be short, for one processor waits for the other."""
PROGRAMS = {"slurm": ("slurmctld", "slurmd", "slurmdbd", "munged", "mariadbd")}
PROGRAMS["images"] = (*PROGRAMS["slurm"], "podman", "debootstrap", "apptainer", "ch-run")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Mark the tests of a tier; where it cannot run, one test of it stays, and says why it is skipped."""
    for folder, tier in TIERS.items():
        own = [item for item in items if item.path.is_relative_to(config.rootpath / "tests" / folder)]
        for item in own:
            item.add_marker(tier)
        if own and (reason := lacking(tier)):
            own[0].add_marker(pytest.mark.skip(reason=f"all {len(own)} tests of {tier}: {reason}"))
            items[:] = [item for item in items if item not in own[1:]]
    first = {config.rootpath / "tests" / name: position for position, name in enumerate(FIRST)}
    items.sort(key=lambda item: first.get(item.path, len(FIRST)))


def lacking(tier: str) -> str | None:
    """Why this machine cannot run a tier; None if it can."""
    if os.geteuid() != 0 or os.environ.get("VAEHPC_TESTS_INSTALL") != "1":
        return "need root and VAEHPC_TESTS_INSTALL=1"
    missing = [name for name in PROGRAMS[tier] if shutil.which(name) is None]
    return f"{', '.join(missing)} missing: tests/install.sh {tier}" if missing else None


@pytest.fixture
def inline(monkeypatch: pytest.MonkeyPatch) -> None:
    """Data sets are made without workers."""
    without_workers(monkeypatch)


@pytest.fixture(scope="session")
def faces(tmp_path_factory: pytest.TempPathFactory) -> DataConfig:
    """48 built-in faces of 16 x 16 pixels in two training shards; not to be changed."""
    from vaehpc.tasks.prepare import Request, prepare

    path = tmp_path_factory.mktemp("faces")
    with pytest.MonkeyPatch.context() as patch:
        without_workers(patch)
        prepare(Request(synthetic=48, size=16, num_train=40, images_per_shard=25, workers=1), path)
    return data_config(DataDir(path))


@pytest.fixture
def own_faces(faces: DataConfig, tmp_path: Path) -> DataConfig:
    """A copy of the faces that a test may damage."""
    shutil.copytree(faces.path, tmp_path / "faces")
    return faces.model_copy(update={"path": str(tmp_path / "faces")})
