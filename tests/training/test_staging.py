"""Shards on the node's own disk: copied once, checked, and never a reason to fail."""

import logging
import os
import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from vaehpc.command import UserError
from vaehpc.machine.variables import SCRATCH
from vaehpc.schema.config import DataConfig
from vaehpc.schema.results import Shard
from vaehpc.study.files import DataDir
from vaehpc.training import staging


@pytest.fixture
def scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv("SLURM_TMPDIR", raising=False)
    monkeypatch.setenv("VAEHPC_SCRATCH", str(tmp_path / "scratch"))
    (tmp_path / "scratch").mkdir()
    return tmp_path / "scratch"


def shards_of(data: DataDir) -> list[Shard]:
    return [shard for shard in data.manifest().shards if shard.split == "train"]


def stage(faces: DataConfig) -> Path:
    data = DataDir(Path(faces.path))
    return staging.staged(data, faces.sha256, shards_of(data))


def test_without_a_scratch_folder_the_data_are_read_where_they_are(
    faces: DataConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in SCRATCH:
        monkeypatch.delenv(name, raising=False)
    assert stage(faces) == Path(faces.path)


def test_training_shards_are_copied_and_nothing_else_stays(scratch: Path, faces: DataConfig) -> None:
    folder = stage(faces)
    assert folder.parent == scratch
    names = {shard.file for shard in shards_of(DataDir(Path(faces.path)))}
    assert {path.name for path in folder.iterdir()} == names
    assert all((folder / name).read_bytes() == (Path(faces.path) / name).read_bytes() for name in names)


def test_slurms_own_variable_counts_too(scratch: Path, faces: DataConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("VAEHPC_SCRATCH")
    monkeypatch.setenv("SLURM_TMPDIR", str(scratch))
    assert stage(faces).parent == scratch


@pytest.mark.usefixtures("scratch")
def test_what_is_there_is_not_copied_again(faces: DataConfig) -> None:
    before = {path: path.stat().st_ino for path in stage(faces).iterdir()}
    assert {path: path.stat().st_ino for path in stage(faces).iterdir()} == before


def test_tasks_that_come_at_once_copy_once(scratch: Path, faces: DataConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    copied: list[str] = []
    copy = staging._copy

    def slow_copy(source: Path, target: Path, sha256: str, claim: Path) -> None:
        copied.append(target.name)
        time.sleep(0.3)
        copy(source, target, sha256, claim)

    monkeypatch.setattr(staging, "_copy", slow_copy)
    monkeypatch.setattr(staging, "POLL_SECONDS", 0.01)
    found: list[Path] = []
    tasks = [threading.Thread(target=lambda: found.append(stage(faces))) for _ in range(4)]
    for task in tasks:
        task.start()
    for task in tasks:
        task.join()
    assert len(set(found)) == 1
    assert found[0].parent == scratch
    assert sorted(copied) == sorted(shard.file for shard in shards_of(DataDir(Path(faces.path))))


def test_the_claim_of_a_killed_task_is_taken_over(
    scratch: Path, faces: DataConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = scratch / f"vaehpc-{os.getuid()}-{faces.sha256[:16]}"
    folder.mkdir(mode=0o700)
    claim = folder / f".{shards_of(DataDir(Path(faces.path)))[0].file}.claim"
    claim.touch()
    monkeypatch.setattr(staging, "STALE_SECONDS", 0.01)
    monkeypatch.setattr(staging, "POLL_SECONDS", 0.02)
    assert stage(faces) == folder
    assert not claim.exists()


def test_a_damaged_shard_is_not_staged(scratch: Path, own_faces: DataConfig, caplog: pytest.LogCaptureFixture) -> None:
    shard = Path(own_faces.path) / shards_of(DataDir(Path(own_faces.path)))[0].file
    content = bytearray(shard.read_bytes())
    content[100] ^= 1
    shard.write_bytes(content)
    with caplog.at_level(logging.WARNING):
        assert stage(own_faces) == Path(own_faces.path)
    assert f"{shard} has not the hash of the manifest" in caplog.text
    assert [path for path in scratch.rglob("*") if path.is_file()] == []


def test_a_folder_that_another_user_may_have_made_is_not_used(scratch: Path, faces: DataConfig, tmp_path: Path) -> None:
    folder = scratch / f"vaehpc-{os.getuid()}-{faces.sha256[:16]}"
    (tmp_path / "elsewhere").mkdir()
    folder.symlink_to(tmp_path / "elsewhere")
    assert stage(faces) == Path(faces.path)
    assert list((tmp_path / "elsewhere").iterdir()) == []
    folder.unlink()
    folder.mkdir()
    folder.chmod(0o777)
    assert stage(faces) == Path(faces.path)


# Shards that are compared with the manifest


@pytest.fixture
def compared(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the shards that are read to be compared."""
    names: list[str] = []
    compare = staging._compare

    def noted(path: Path, sha256: str, still_alive: Callable[[], None]) -> None:
        names.append(path.name)
        compare(path, sha256, still_alive)

    monkeypatch.setattr(staging, "_compare", noted)
    return names


def test_shards_are_compared_once_on_a_node_and_again_when_they_are_touched(
    own_faces: DataConfig, tmp_path: Path, compared: list[str]
) -> None:
    folder, shards = Path(own_faces.path), shards_of(DataDir(Path(own_faces.path)))
    names, stamp = [shard.file for shard in shards], tmp_path / "jobs" / "checked-node1.json"
    for _ in range(2):
        staging.require_whole(folder, shards, stamp)
    assert compared == names
    staging.require_whole(folder, shards, stamp.with_name("checked-node2.json"))
    os.utime(folder / names[0])
    staging.require_whole(folder, shards, stamp)
    assert compared == [*names, *names, names[0]]
    stamp.write_text("{}")  # a damaged one is worth nothing
    staging.require_whole(folder, shards, stamp)
    assert compared[-2:] == names
    assert not list(stamp.parent.glob(".*"))


def test_a_shard_that_was_exchanged_is_found(own_faces: DataConfig, tmp_path: Path) -> None:
    """Well-formed records with checksums of their own, of the same length, and as old as the right ones."""
    folder, shards = Path(own_faces.path), shards_of(DataDir(Path(own_faces.path)))
    stamp = tmp_path / "jobs" / "checked-node1.json"
    staging.require_whole(folder, shards, stamp)
    path = folder / shards[0].file
    content, before = path.read_bytes(), path.stat()
    record = len(content) // shards[0].num_images
    path.write_bytes(content[record : 2 * record] + content[record:])
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    with pytest.raises(UserError, match="is not the file that was prepared"):
        staging.require_whole(folder, shards, stamp)


def test_a_pipe_in_place_of_a_shard_hangs_nobody(own_faces: DataConfig) -> None:
    folder, shards = Path(own_faces.path), shards_of(DataDir(Path(own_faces.path)))
    (folder / shards[0].file).unlink()
    os.mkfifo(folder / shards[0].file)
    with pytest.raises(UserError, match="it is a pipe or device"):
        staging.require_whole(folder, shards, None)


def test_tasks_that_come_at_once_compare_once(own_faces: DataConfig, tmp_path: Path, compared: list[str]) -> None:
    folder, shards = Path(own_faces.path), shards_of(DataDir(Path(own_faces.path)))
    stamp = tmp_path / "jobs" / "checked-node1.json"
    tasks = [threading.Thread(target=staging.require_whole, args=(folder, shards, stamp)) for _ in range(4)]
    for task in tasks:
        task.start()
    for task in tasks:
        task.join()
    assert sorted(compared) == sorted(shard.file for shard in shards)


def test_without_room_or_without_the_folder_the_data_are_read_where_they_are(
    scratch: Path, faces: DataConfig, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=0))
    with caplog.at_level(logging.WARNING):
        assert stage(faces) == Path(faces.path)
    assert "has 0 KB free, they need 36 KB" in caplog.text
    monkeypatch.undo()
    monkeypatch.setenv("VAEHPC_SCRATCH", str(scratch / "none"))
    assert stage(faces) == Path(faces.path)
