"""A real folder keeps the promises; one that breaks them is found out."""

import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests import plant
from tests.examples import AE, study_config
from vaehpc.checks import storage
from vaehpc.checks.storage import (
    checkpoints_finding,
    folder_findings,
    has_hard_links,
    mkdir_is_exclusive,
    mount_of,
    renames_are_atomic,
    scratch_folder,
    shared_finding,
)

MOUNTS = """\
overlay / overlay rw,relatime 0 0
tmpfs /tmp tmpfs rw 0 0
server:/home /home nfs4 rw,vers=4.2 0 0
mds@tcp:/scratch /scratch lustre rw 0 0
/dev/sdb1 /scratch/my\\040disk ext4 rw 0 0
sshfs /mnt/far fuse.sshfs rw 0 0
beegfs_nodev /work beegfs rw 0 0
"""


def test_this_file_system_keeps_the_promises_and_nothing_stays(tmp_path: Path) -> None:
    assert [finding.ok for finding in folder_findings(tmp_path)] == [True] * 4
    assert list(tmp_path.iterdir()) == []


def test_a_replacement_that_is_not_atomic_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def slowly(source: Path, target: Path) -> None:
        target.unlink()
        shutil.copy(source, target)

    monkeypatch.setattr(Path, "replace", slowly)
    monkeypatch.setattr(storage, "RENAMES", 3000)
    assert not renames_are_atomic(tmp_path)


def test_a_folder_that_several_can_make_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mkdir: Callable[..., None] = Path.mkdir
    monkeypatch.setattr(Path, "mkdir", lambda path: mkdir(path, exist_ok=True))
    assert not mkdir_is_exclusive(tmp_path)


def test_missing_hard_links_are_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError("Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    assert not has_hard_links(tmp_path)
    assert list(tmp_path.iterdir()) == []
    wrong = next(finding for finding in folder_findings(tmp_path) if finding.ok is False)
    assert (wrong.name, wrong.found) == ("hard links", "not so: an AE's z.npy is its mu.npy")


def test_little_space_is_wrong(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storage, "LEAST_FREE_BYTES", 1e18)
    assert next(finding for finding in folder_findings(tmp_path) if finding.ok is False).name == "space"


@pytest.mark.parametrize("nested", ["runs", "some/where/runs"])
def test_a_scratch_folder_takes_with_it_what_it_made(tmp_path: Path, nested: str) -> None:
    (tmp_path / "kept").mkdir()
    with scratch_folder(tmp_path / nested) as folder:
        assert folder.parent == tmp_path / nested
        assert folder.name.startswith(".doctor-")
        (folder / "file").touch()
    assert [path.name for path in tmp_path.iterdir()] == ["kept"]


def test_a_folder_of_studies_stays(tmp_path: Path) -> None:
    with scratch_folder(tmp_path):
        pass
    assert tmp_path.exists()


@pytest.mark.parametrize(
    ("folder", "point", "kind"),
    [
        ("/home/me/runs", "/home", "nfs4"),
        ("/homes/me", "/", "overlay"),
        ("/scratch/my disk/runs", "/scratch/my disk", "ext4"),
        ("/tmp", "/tmp", "tmpfs"),
    ],
)
def test_the_mount_of_a_folder(folder: str, point: str, kind: str) -> None:
    assert mount_of(Path(folder), MOUNTS) == (point, kind)


@pytest.mark.parametrize(
    ("folder", "ok"), [("/home/me", True), ("/scratch/x", True), ("/work", True), ("/tmp/x", None), ("/opt", None)]
)
def test_a_file_system_that_machines_share_is_known_by_its_type(folder: str, ok: bool | None) -> None:
    finding = shared_finding(Path(folder), MOUNTS)
    assert finding.ok is ok
    assert bool(finding.remedy) is (ok is None)


def test_checkpoints_that_a_purge_comes_near(tmp_path: Path) -> None:
    study = plant.study(tmp_path / "small", study_config([AE], 4))
    assert checkpoints_finding(tmp_path, 30) is None
    for seed, days in ((0, (90, 2)), (1, (50, 25)), (2, (60,))):
        for step, age in enumerate(days):
            path = study.run(f"ae-seed{seed:03d}").checkpoints / f"step-{step:09d}" / "checkpoint.json"
            path.parent.mkdir(parents=True)
            path.touch()
            os.utime(path, (time.time() - 86400 * age,) * 2)
    plant.marker(study.run("ae-seed002"))
    found = "2 unfinished runs have one; the newest of small/ae-seed001 is 25.0 days old"
    for purge_days, ok, more in (
        (None, True, ""),
        (40, True, ", and purge_days = 40"),
        (30, False, ", and purge_days = 30"),
    ):
        finding = checkpoints_finding(tmp_path, purge_days)
        assert finding is not None
        assert (finding.ok, finding.found) == (ok, found + more)
