"""A real Slurm of four nodes on this machine: munge, MariaDB, slurmdbd, slurmctld and four slurmd, all in one folder.

Needs root and what `tests/install.sh slurm` installs. Touches nothing under /etc and /var; several run side by side.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeVar

from tests.cluster import configuration, processes, users
from tests.cluster.configuration import NODES, Ports

ACCOUNT = "faces"
"""The user's own."""
SMALL_ACCOUNT = "small"
"""Another one of the user's, in which SMALL_LIMIT jobs may be queued or running."""
SMALL_LIMIT = 3
SMALL_QOS = "few"
"""A QOS that lets a user have SMALL_QOS_LIMIT jobs queued or running."""
SMALL_QOS_LIMIT = 5

Found = TypeVar("Found")


class Cluster:
    """A cluster from start() to stop(), or inside `with`.

    Nodes g1 and g2 (four GPUs each, which are none) are in the partitions gpu and gpu-high, whose jobs preempt those in
    gpu after a grace time; c1 and c2 are in cpu. What belongs to the user is under `home`.
    """

    def __init__(self, *, accounting: bool = True, max_array_size: int = 4) -> None:
        self.accounting = accounting
        self.max_array_size = max_array_size
        self.daemons: dict[str, subprocess.Popen[bytes]] = {}

    def __enter__(self) -> Cluster:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        """Brings all daemons up; returns when the four nodes are idle."""
        # Not in pytest's folder, which is closed to other users. Short: a socket's path has at most 107 characters.
        self.folder = Path(tempfile.mkdtemp(prefix="vaehpc-cluster-"))
        self.home = self.folder / "home"
        self.database = Path(tempfile.mkdtemp(prefix="vaehpc-database-", dir=memory_folder()))
        self.guard = subprocess.Popen(
            [sys.executable, processes.__file__, self.folder, self.database],
            stdin=subprocess.PIPE,
            start_new_session=True,
        )
        try:
            self._make_folders()
            ports = Ports.free()
            configuration.write(self.folder, ports, accounting=self.accounting, max_array_size=self.max_array_size)
            self._start_munge()
            if self.accounting:
                self._start_mariadb(ports.database)
                self.start_database()
                self._make_accounts()
            self.start_controller()
            for name in NODES:
                self._start_slurmd(name)
            users.make_python(self.folder)
            self._wait_until_idle()
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Kills every process of the cluster: daemons, steps, tasks. Removes its folders."""
        assert self.guard.stdin
        self.guard.stdin.close()
        assert self.guard.wait() == 0, f"{self.folder} was not cleared away"
        for daemon in self.daemons.values():
            daemon.wait(10)

    def mend(self) -> None:
        """Makes it as it was after start(), for the next test: no jobs, all daemons, four idle nodes."""
        if self.accounting and not self._is_running("slurmdbd"):
            self.start_database()
        if not self._is_running("slurmctld"):
            self.start_controller()
        if (self.folder / "etc/changed.conf").read_text() != configuration.NOTHING_CHANGED:
            self.change("")
        if jobs := self.root("squeue --noheader --format=%A").split():
            self.root(f"scancel {' '.join(jobs)}")
        for pid in processes.belonging_to(self.folder):
            with contextlib.suppress(OSError):
                if Path(f"/proc/{pid}").stat().st_uid == pwd.getpwnam(users.USER).pw_uid:
                    os.kill(pid, signal.SIGKILL)
        for name in NODES:
            if not self._is_running(name):
                self._start_slurmd(name)
        self._wait_until_idle()

    # What may happen to a cluster

    def kill_node(self, name: str) -> None:
        """Kills a node's slurmd. Its steps go on, orphaned; some 25 s later it is DOWN and its jobs are requeued."""
        self._end(name, signal.SIGKILL)

    def lose_node(self, name: str) -> None:
        """The same without the delay: the controller is told that the node is DOWN."""
        self.kill_node(name)
        self.root(f"scontrol update NodeName={name} State=DOWN Reason=lost")

    def start_node(self, name: str) -> None:
        """Starts a killed node again."""
        self._start_slurmd(name)
        self.wait(lambda: name in self.nodes("idle,mixed,alloc"), f"node {name} up")

    def start_blind_node(self, name: str, unseen: Path) -> None:
        """Starts a node anew, which does not see what is in this folder."""
        self.kill_node(name)
        work = f"mount -t tmpfs vaehpc {unseen} && exec slurmd -D -N {name}"
        self._start(name, "unshare", "--mount", "--propagation=private", "sh", "-c", work)
        self.wait(lambda: name in self.nodes("idle"), f"node {name} up")

    def resume_nodes(self) -> None:
        """Has drained nodes take jobs again."""

        def none_is_drained() -> bool:
            # Not at once after the controller's start, or while a job leaves: it refuses until the node has answered.
            for name in self.nodes("drain"):
                self._succeeds(f"scontrol update NodeName={name} State=RESUME")
            return not self.nodes("drain")

        self.wait(none_is_drained, "no drained node")

    def stop_controller(self) -> None:
        """Ends slurmctld, which saves its state. Clients try for 10 to 20 s, then fail."""
        self._end("slurmctld", signal.SIGTERM)

    def start_controller(self) -> None:
        """Starts slurmctld, with the state it has saved."""
        self._start("slurmctld", "slurmctld", "-D")
        self.wait(lambda: self._succeeds("scontrol ping"), "slurmctld")

    def stop_database(self) -> None:
        """Ends slurmdbd: sacct and sacctmgr fail, all else goes on."""
        self._end("slurmdbd", signal.SIGTERM)

    def start_database(self) -> None:
        """Starts slurmdbd."""
        self._start("slurmdbd", "slurmdbd", "-D")
        self.wait(lambda: self._succeeds("sacctmgr --noheader show cluster"), "slurmdbd")

    def change(self, settings: str) -> None:
        """Adds lines to slurm.conf, or takes them away again, and has them read."""
        (self.folder / "etc/changed.conf").write_text(f"{settings}\n" if settings else configuration.NOTHING_CHANGED)
        self.root("scontrol reconfigure")

    # Commands and questions

    def environment(self) -> dict[str, str]:
        """Of Slurm's daemons and of root's commands."""
        return {
            "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
            "LANG": "C.UTF-8",
            "SLURM_CONF": f"{self.folder}/etc/slurm.conf",
        }

    def root(self, command: str) -> str:
        """Output of a command of root.

        Raises:
            AssertionError: it failed.
        """
        done = subprocess.run(
            command.split(), env=self.environment(), capture_output=True, text=True, check=False, timeout=60
        )
        assert done.returncode == 0, f"{command}: {done.stderr}"
        return done.stdout

    def begin(
        self, command: str, *, cwd: Path | None = None, variables: Mapping[str, str] | None = None
    ) -> subprocess.Popen[str]:
        """Starts a line of bash as the ordinary user; wait for it with users.finish, also after users.kill_group."""
        own = {"PATH": f"{self.folder}/python/bin:/usr/bin:/bin", "HOME": str(self.home), "USER": users.USER}
        environment = {**self.environment(), **own, **(variables or {})}
        return users.begin(command, cwd=cwd or self.home, environment=environment)

    def user(
        self,
        command: str,
        *,
        cwd: Path | None = None,
        variables: Mapping[str, str] | None = None,
        seconds: float = 60,
        check: bool = True,
    ) -> subprocess.CompletedProcess[str]:
        """Runs a line of bash as the ordinary user, whose `python` has this repository's packages.

        Raises:
            AssertionError: it did not end in time, or, unless check is false, failed.
        """
        done = users.finish(self.begin(command, cwd=cwd, variables=variables), seconds)
        assert done.returncode == 0 or not check, (
            f"{command}: exit code {done.returncode}\n{done.stdout}\n{done.stderr}\n{self.report()}"
        )
        return done

    def submit(self, script: str, options: str = "") -> str:
        """The id of the job, or array, of these lines of bash that the user submits."""
        path = self.new_folder() / "script.sh"
        path.write_text(f"#!/bin/bash\n{script}\n")
        return self.user(f"sbatch --parsable {options} {path}", cwd=path.parent).stdout.strip()

    def new_folder(self) -> Path:
        """An empty folder of the user's."""
        path = Path(tempfile.mkdtemp(dir=self.home))
        shutil.chown(path, users.USER, users.USER)
        return path

    def nodes(self, states: str) -> set[str]:
        """Nodes in one of sinfo's states: 'idle', 'mixed,alloc', 'down'."""
        return set(self.root(f"sinfo --noheader --Node --states={states} --format=%N").split())

    def wait(self, condition: Callable[[], Found], what: str, seconds: float = 60, every: float = 0.1) -> Found:
        """The condition's first true value; asked so often, in seconds.

        Raises:
            AssertionError: none within the time limit; says what the cluster does instead.
        """
        deadline = time.monotonic() + seconds
        while not (found := condition()):
            assert time.monotonic() < deadline, f"not within {seconds:g} s: {what}\n{self.report()}"
            time.sleep(every)
        return found

    def state(self, job: str) -> str:
        """squeue's state of a job or element; empty if it is no longer queued."""
        return self.root(f"squeue --noheader --array --jobs={job} --format=%T").strip()

    def report(self) -> str:
        """Queue, nodes, and the ends of the daemons' logs and of the user's newest files."""
        commands = ["squeue --array --all", "sinfo --Node --long --all"]
        parts = [f"$ {command}\n{self._output(command)}" for command in commands]
        daemons = sorted((self.folder / "log").glob("slurm*.log"))
        written = (path for path in self.home.rglob("*") if path.suffix in {".out", ".err", ".log", ".events"})
        newest = sorted(written, key=lambda path: path.stat().st_mtime)[-6:]
        parts += [f"{path}:\n{tail(path)}" for path in [*daemons, *newest] if path.stat().st_size]
        return "\n".join(parts)

    # Its parts

    def _make_folders(self) -> None:
        self.folder.chmod(0o755)
        for name in ("etc", "run", "log", "state", "home", *(f"spool/{node}" for node in NODES)):
            (self.folder / name).mkdir(parents=True)
        users.make_user()
        shutil.chown(self.home, users.USER, users.USER)
        for name in ("gpu0", "gpu1", "gpu2", "gpu3"):
            os.mknod(self.folder / name, 0o666 | stat.S_IFCHR, os.makedev(1, 3))

    def _start_munge(self) -> None:
        key = self.folder / "etc/munge.key"
        key.write_bytes(os.urandom(1024))
        key.chmod(0o600)
        # --force: the folder for temporary files, above this one, is open to all.
        self._start(
            "munged",
            *("munged", "--foreground", "--force", "--num-threads=2", f"--key-file={key}"),
            f"--socket={self.folder}/run/munge.socket",
            f"--pid-file={self.folder}/run/munged.pid",
            f"--log-file={self.folder}/log/munged.log",
            f"--seed-file={self.folder}/run/munge.seed",
        )
        self.wait(lambda: self._succeeds(f"munge --no-input --socket={self.folder}/run/munge.socket"), "munged")

    def _start_mariadb(self, port: int) -> None:
        shutil.chown(self.database, "mysql")
        # With a folder of its own for temporary tables: a MariaDB that starts clears away what it finds in /tmp.
        where = f"--no-defaults --datadir={self.database} --tmpdir={self.database} --user=mysql"
        where += " --innodb-log-file-size=16M"
        self.root(f"mariadb-install-db {where} --auth-root-authentication-method=normal --skip-test-db")
        first_lines = self.folder / "etc/first_lines.sql"
        first_lines.write_text(
            "CREATE DATABASE slurm_acct_db;\n"
            "CREATE USER slurm@'127.0.0.1' IDENTIFIED BY 'slurm';\n"
            "GRANT ALL ON slurm_acct_db.* TO slurm@'127.0.0.1';\n"
        )
        listen = f"--port={port} --bind-address=127.0.0.1 --socket={self.database}/socket --skip-name-resolve"
        files = f"--pid-file={self.database}/pid --init-file={first_lines}"
        size = "--innodb-buffer-pool-size=64M --innodb-lock-wait-timeout=900 --innodb-flush-log-at-trx-commit=0"
        self._start("mariadbd", *f"mariadbd {where} {listen} {files} {size}".split())
        # slurmdbd sleeps for 5 s if it does not find the database.
        self.wait(
            lambda: self._succeeds(f"mariadb-admin --no-defaults --socket={self.database}/socket ping"), "mariadbd"
        )

    def _make_accounts(self) -> None:
        for what in (
            "cluster vaetest",
            f"account {ACCOUNT} Description=faces Organization=tests",
            f"qos {SMALL_QOS} MaxSubmitJobsPerUser={SMALL_QOS_LIMIT}",
            f"account {SMALL_ACCOUNT} Description=small Organization=tests MaxSubmitJobs={SMALL_LIMIT}",
            f"user {users.USER} Account={ACCOUNT},{SMALL_ACCOUNT} DefaultAccount={ACCOUNT} QOS=normal,{SMALL_QOS}",
        ):
            self.root(f"sacctmgr --immediate add {what}")

    def _start_slurmd(self, name: str) -> None:
        self._start(name, "slurmd", "-D", "-N", name)

    def _start(self, name: str, *command: str) -> None:
        # In the foreground, as our child: no pid files, and its end is seen. In its own session: Ctrl-C is for pytest.
        # Into a file: steps would keep a pipe open for as long as they live.
        with (self.folder / f"log/{name}.out").open("ab") as out:
            self.daemons[name] = subprocess.Popen(
                command,
                env=self.environment(),
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                start_new_session=True,
            )

    def _end(self, name: str, number: signal.Signals) -> None:
        def ends() -> bool:
            self.daemons[name].send_signal(number)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.daemons[name].wait(10)
            return not self._is_running(name)

        # Again, where it is not heard: a controller of Slurm 24 that reads its configuration anew is deaf meanwhile.
        self.wait(ends, f"the end of {name}")

    def _is_running(self, name: str) -> bool:
        return self.daemons[name].poll() is None

    def _wait_until_idle(self) -> None:
        self.resume_nodes()

        def idle() -> bool:
            return self.nodes("idle") == set(NODES) and not self.root("squeue --noheader")

        self.wait(idle, "four idle nodes and an empty queue")

    def _succeeds(self, command: str) -> bool:
        return self._run(command).returncode == 0

    def _output(self, command: str) -> str:
        done = self._run(command)
        return done.stdout + done.stderr

    def _run(self, command: str) -> subprocess.CompletedProcess[str]:
        try:
            return subprocess.run(
                command.split(), env=self.environment(), capture_output=True, text=True, check=False, timeout=20
            )
        except subprocess.TimeoutExpired as error:
            return subprocess.CompletedProcess(error.cmd, 124, "", f"no answer in {error.timeout:g} s")


def memory_folder() -> str | None:
    """A file system in memory with room for MariaDB, which waits seconds for disks; None if there is none."""
    folder = "/dev/shm"
    return folder if Path(folder).is_dir() and shutil.disk_usage(folder).free > 1 << 30 else None


def tail(path: Path, lines: int = 12) -> str:
    """A log's last lines, without slurmd's complaints of an MPI that nobody asked for."""
    text = [line for line in path.read_text(errors="replace").splitlines() if "mpi/pmix" not in line]
    return "\n".join(text[-lines:])
