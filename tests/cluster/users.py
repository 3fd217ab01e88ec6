"""The ordinary user who submits: root's commands run as that user, and a Python that the user can reach."""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import signal
import subprocess
import sys
import sysconfig
from collections.abc import Mapping
from pathlib import Path

USER = "vaetest"
REPOSITORY = Path(__file__).parents[2]


def make_user() -> None:
    """Adds USER to this machine if missing."""
    try:
        pwd.getpwnam(USER)
    except KeyError:
        # Another worker may be a moment ahead; useradd says 9 then.
        done = subprocess.run(["useradd", "--no-create-home", "--shell=/bin/bash", USER], check=False)
        assert done.returncode in (0, 9), f"useradd {USER} failed with {done.returncode}"


def begin(command: str, *, cwd: Path, environment: Mapping[str, str]) -> subprocess.Popen[str]:
    """Starts a line of bash as USER, in a process group of its own."""
    return subprocess.Popen(
        ["bash", "-c", command],
        cwd=cwd,
        env=environment,
        user=USER,
        group=USER,
        extra_groups=[],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def finish(process: subprocess.Popen[str], seconds: float) -> subprocess.CompletedProcess[str]:
    """Waits for what was begun and gives its output; after the time limit its process group is killed.

    Raises:
        AssertionError: it did not end in time; says what it has printed.
    """
    try:
        out, err = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        kill_group(process)
        out, err = process.communicate()
        raise AssertionError(f"not ended after {seconds:g} s: {process.args!r}\n{out}\n{err}") from None
    except BaseException:
        kill_group(process)
        raise
    return subprocess.CompletedProcess(process.args, process.returncode, out, err)


def kill_group(process: subprocess.Popen[str]) -> None:
    """Kills what was begun, with its children."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


def can(command: str) -> bool:
    """Whether it succeeds as USER."""
    environment = {"PATH": "/usr/bin:/bin"}
    return finish(begin(command, cwd=Path("/"), environment=environment), 60).returncode == 0


def make_python(folder: Path) -> None:
    """Writes folder/python/bin/python with the packages of this process and this repository, for USER.

    A virtual environment like this one will not do: its interpreter may lie in root's home, closed to others. Debian's
    Python of the same version runs the same compiled packages. Closed folders are linked, file by file: in a second,
    where copying the packages would take a minute.
    """
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    own = Path(sys.base_prefix, "bin", f"python{version}")
    candidates = [str(own), f"/usr/bin/python{version}"]
    usable = [path for path in candidates if can(f"{path} -c 'import venv'")]
    assert usable, (
        f"{USER} can run none of {candidates}: install Debian's python{version}, or run the tests with its version"
    )
    subprocess.run([usable[0], "-m", "venv", "--without-pip", folder / "python"], check=True)
    packages = open_to_user(Path(sysconfig.get_path("purelib")), folder / "packages")
    code = open_to_user(REPOSITORY, folder / "code", "vaehpc", "jobs", "analysis")
    # Who may not write there would compile all of it in each process.
    subprocess.run([sys.executable, "-m", "compileall", "-q", code / "vaehpc"], check=True)
    paths = folder / "python/lib" / f"python{version}" / "site-packages" / "tests.pth"
    paths.write_text(f"{code}\n{packages}\n")


def open_to_user(source: Path, copy: Path, *parts: str) -> Path:
    """The folder itself if USER can enter it, otherwise a copy, of these parts or all of it, that shares its files."""
    if can(f"ls '{source}/'"):
        return source
    for part in parts or (".",):
        shutil.copytree(source / part, copy / part, symlinks=True, copy_function=link_or_copy, dirs_exist_ok=True)
    return copy


def link_or_copy(source: str, copy: str) -> None:
    """One file, linked if both are on one file system."""
    try:
        os.link(source, copy)
    except OSError:
        shutil.copy2(source, copy)
