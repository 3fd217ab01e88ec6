"""Data sets of built-in faces that tests share."""

import shutil
from pathlib import Path

import pytest

from vaehpc.schema.config import DataConfig
from vaehpc.study.files import DataDir
from vaehpc.study.study import data_config


@pytest.fixture(scope="session")
def faces(tmp_path_factory: pytest.TempPathFactory) -> DataConfig:
    """48 built-in faces of 16 x 16 pixels in two training shards; not to be changed."""
    from vaehpc.tasks.prepare import Request, prepare

    path = tmp_path_factory.mktemp("faces")
    prepare(Request(synthetic=48, size=16, num_train=40, images_per_shard=25, workers=1), path)
    return data_config(DataDir(path))


@pytest.fixture
def own_faces(faces: DataConfig, tmp_path: Path) -> DataConfig:
    """A copy of the faces that a test may damage."""
    shutil.copytree(faces.path, tmp_path / "faces")
    return faces.model_copy(update={"path": str(tmp_path / "faces")})
