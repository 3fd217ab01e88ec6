"""The counting and the simulation behind the benchmark of the file system."""

from pathlib import Path

import pytest

from tests.benchmarks.article import article_run
from tests.benchmarks.fleet import IMAGE_OPERATIONS, NUM_RUNS, Costs, Fleet, simulated, written_bytes
from tests.benchmarks.syscalls import segments

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
8  fsync(5</runs/a/x>) = 0
8  rename("/runs/a/x", "/runs/a/z") = 0
8  openat(AT_FDCWD</runs>, "../elsewhere", O_RDONLY) = 7</elsewhere>
8  +++ exited with 0 +++
"""
COSTS = Costs(
    environment=1000,
    environment_of_statistics=100,
    start=10,
    block=1,
    epoch_end=5,
    heartbeat=0,
    end=7,
    statistics=3,
    environment_bytes=1e9,
)


def test_operations_are_counted_below_their_root_and_in_their_phase() -> None:
    first, second = segments(TRACE.splitlines(), {"runs": [Path("/runs")], "env": [Path("/env")]})
    assert (first.phase, first.counts["env"], first.opened["env"]) == ("import", {"open": 1}, {"/env/lib.py"})
    assert second.phase == "start"
    assert second.counts["runs"] == {"mkdir": 1, "open": 1, "unlink": 1, "list": 1, "sync": 1, "rename": 1}
    assert second.metadata("runs") == 5


@pytest.mark.parametrize("runs_at_once", [1, 4])
def test_the_fleet_asks_for_what_its_runs_do(runs_at_once: int) -> None:
    run = article_run()
    load = simulated(Fleet("in an image", runs_at_once=runs_at_once, in_image=True), COSTS, run)
    assert load.operations.sum() == pytest.approx(NUM_RUNS * (2 * IMAGE_OPERATIONS + COSTS.per_run(run)))
    assert load.written.sum() == pytest.approx(NUM_RUNS * written_bytes(run))


def test_an_image_saves_the_imports() -> None:
    without, inside = (simulated(Fleet("", in_image=inside), COSTS, article_run()) for inside in (False, True))
    assert without.operations.sum() - inside.operations.sum() == pytest.approx(
        NUM_RUNS * (1000 + 100 - 2 * IMAGE_OPERATIONS)
    )


def test_staged_shards_are_read_once_by_each_node() -> None:
    anew, staged = (simulated(Fleet("", staged=staged), COSTS, article_run()) for staged in (False, True))
    num_pixels = 162_770 * 96 * 96 * 3
    assert anew.read.sum() - staged.read.sum() == pytest.approx((NUM_RUNS - 500) * num_pixels)
