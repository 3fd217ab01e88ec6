"""Real images for the tests, built as users do: podman on a Debian of debootstrap, Apptainer as an ordinary user.

They are kept in CACHE, the base and podman's layers too: what is built once is there for the next tests.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from tests.cluster import users
from tests.cluster.users import REPOSITORY
from vaehpc.study.files import write_text

CACHE = Path(os.environ.get("VAEHPC_TESTS_CACHE", "/var/cache"), "vaehpc-tests")
BASE_IMAGE = "localhost/debian:bookworm"
SOURCES = ("containers", "vaehpc", "jobs", "analysis", "pyproject.toml")
CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")
BUILD_SECONDS = 1800.0
ENGINE = """
[containers]
default_ulimits = []
[engine]
runtime = "runc"
cgroup_manager = "cgroupfs"
"""
STORAGE = f"""
[storage]
driver = "overlay"
graphroot = "{CACHE}/podman"
runroot = "/run/vaehpc-tests-podman"
"""


@dataclass(frozen=True)
class Images:
    """Both images in every form, readable by all."""

    folder: Path

    def path(self, target: str, form: str) -> Path:
        """Of 'train' or 'analysis', as 'tar', 'dir' or 'sif'."""
        return self.folder / f"{target}.{form}"


def podman(*arguments: str | Path, check: bool = True) -> subprocess.CompletedProcess[str]:
    """Runs podman on the images of the tests, one at a time."""
    environment = engine()
    with (CACHE / "podman.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        done = subprocess.run(["podman", *arguments], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0 or not check, f"podman {arguments}: {done.returncode}\n{done.stderr}"
    return done


def engine() -> dict[str, str]:
    """Environment in which podman works without systemd, with a store of its own."""
    CACHE.mkdir(parents=True, exist_ok=True)
    settings, storage = CACHE / "containers.conf", CACHE / "storage.conf"
    for path, text in ((settings, ENGINE), (storage, STORAGE)):
        write_text(path, text)  # whole: without its settings podman asks for limits that runc may not set (126)
    own = {"CONTAINERS_CONF": str(settings), "CONTAINERS_STORAGE_CONF": str(storage), "BASE_IMAGE": BASE_IMAGE}
    own |= {"TRAIN_LOCK": "train-cpu.txt", "CA_BUNDLE": str(CERTIFICATES) if CERTIFICATES.exists() else ""}
    return {**os.environ, **own}


def built() -> Images:
    """The images of this repository as it is now; by one test process at a time, for all of them."""
    # udev's mode, which the kernel leaves at 600 where no udev runs: without it only root opens a SIF.
    Path("/dev/fuse").chmod(0o666)
    engine()
    with (CACHE / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        folder = CACHE / f"images-{key()}"
        if not (folder / "whole").exists():
            for older in CACHE.glob("images-*"):
                shutil.rmtree(older)
            _build(folder)
            (folder / "whole").touch()
        return Images(folder)


def key() -> str:
    """Of everything that goes into the images."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z", *SOURCES],
        cwd=REPOSITORY, capture_output=True, text=True, check=True,
    )  # fmt: skip
    total = hashlib.sha256()
    for name in sorted(filter(None, listed.stdout.split("\0"))):
        path = REPOSITORY / name
        if path.is_file() and path.suffix != ".md":
            total.update(name.encode() + path.read_bytes())
    return total.hexdigest()[:16]


def _build(folder: Path) -> None:
    if podman("image", "exists", BASE_IMAGE, check=False).returncode:
        podman("import", _base(), BASE_IMAGE)
    folder.mkdir(parents=True)
    users.make_user()
    shutil.chown(folder, users.USER)
    done = subprocess.run(
        [REPOSITORY / "containers/build.sh", folder], env=engine(), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    tools = users.open_to_user(REPOSITORY / "containers", folder / "tools")
    for target in ("train", "analysis"):
        as_user(f"{tools}/convert.sh {folder}/{target}.tar {folder}/{target}.dir", folder)
        squash = "--mksquashfs-args '-comp zstd -Xcompression-level 3'"
        as_user(f"apptainer --quiet build {squash} {folder}/{target}.sif {folder}/{target}.dir", folder)


def as_user(command: str, folder: Path, **variables: str) -> str:
    """Output of a line of bash that the ordinary user runs.

    Raises:
        AssertionError: it failed.
    """
    own = {"PATH": "/usr/bin:/bin", "USER": users.USER, "HOME": str(folder), "APPTAINER_TMPDIR": str(folder)}
    done = users.finish(users.begin(command, cwd=Path("/"), environment=own | variables), BUILD_SECONDS)
    assert done.returncode == 0, f"{command}\n{done.stdout[-4000:]}\n{done.stderr[-4000:]}"
    return done.stdout + done.stderr


def _base() -> Path:
    """A Debian 12 with Python, as an archive of its files."""
    archive = CACHE / "debian.tar"
    if not archive.exists():
        root = CACHE / "debian"
        shutil.rmtree(root, ignore_errors=True)
        wanted = "--include=python3,python3-venv,ca-certificates"
        subprocess.run(["debootstrap", "--variant=minbase", wanted, "bookworm", root, _mirror()], check=True)
        without = ("./dev/*", "./var/cache/apt/*", "./var/lib/apt/lists/*", "./var/log/*")
        excluded = [f"--exclude={pattern}" for pattern in without]
        aside = archive.with_suffix(".part")
        subprocess.run(["tar", "--create", "--file", aside, "--directory", root, *excluded, "."], check=True)
        shutil.rmtree(root)
        aside.rename(archive)
    return archive


def _mirror() -> str:
    """Where this machine's own Debian comes from."""
    command = ["apt-get", "indextargets", "--format", "$(REPO_URI)", "Created-By: Packages"]
    listed = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    return next(url for url in listed if url.rstrip("/").endswith("/debian"))
