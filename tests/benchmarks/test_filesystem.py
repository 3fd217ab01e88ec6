"""The counting behind the benchmark of the file system."""

from pathlib import Path

from tests.benchmarks.syscalls import operations, segments

TRACE = """\
7  openat(AT_FDCWD</here>, "/env/lib.py", O_RDONLY) = 3</env/lib.py>
7  newfstatat(3</env/lib.py>, "", {st_size=1}, AT_EMPTY_PATH) = 0
7  newfstatat(AT_FDCWD</here>, "/benchmark-phase/start", 0x7, AT_SYMLINK_NOFOLLOW) = -1 ENOENT (No such file)
7  mkdir("/runs/a", 0777) = -1 EEXIST (File exists)
8  openat(AT_FDCWD</here>, "/runs/a/x", O_RDONLY <unfinished ...>
7  unlinkat(4</runs/a>, "y", 0) = 0
8  <... openat resumed>) = 5</runs/a/x>
8  getdents64(6</runs/a>, 0x55 /* 3 entries */, 32768) = 72
8  getdents64(6</runs/a>, 0x55 /* 0 entries */, 32768) = 0
8  rename("/runs/a/x", "/runs/a/z") = 0
8  openat(AT_FDCWD</runs>, "../elsewhere", O_RDONLY) = 7</elsewhere>
8  +++ exited with 0 +++
"""


def test_operations_are_counted_below_their_root_and_in_their_phase() -> None:
    first, second = segments(TRACE.splitlines(), {"runs": [Path("/runs")], "env": [Path("/env")]})
    assert first == ("import", {"env": 1})
    assert second == ("start", {"runs": 5})


def test_paths_are_those_that_were_asked_for() -> None:
    asked = "/env/lib.py /benchmark-phase/start /runs/a /runs/a/y /runs/a/x /runs/a /runs/a/x /elsewhere"
    assert list(operations(TRACE.splitlines())) == asked.split()
