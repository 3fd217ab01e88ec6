"""What every command does around its work: interrupts, failures, what this Python and this machine lack."""

import errno
import io
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from rich.console import Console

from tests.processes import is_alive
from vaehpc.__main__ import main
from vaehpc.command import DiskFullError, TaskFailedError, UserError, exit_code, neutral, require_plain, say

ROOT = Path(__file__).parent.parent
HANGING = """
import multiprocessing, os, sys, time
from vaehpc.command import exit_code

def work():
    child = multiprocessing.get_context("fork").Process(target=time.sleep, args=(120,))
    child.start()
    try:
        print(child.pid, flush=True)
        time.sleep(120)
    finally:
        print("ending", flush=True)
        time.sleep(120)

exit_code(work, "interrupted")
"""


@pytest.fixture
def hanging() -> Iterator[subprocess.Popen[str]]:
    """A command whose end hangs, as that of a pool can; SIGINT reaches it wherever the tests run."""
    code = f"import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n{HANGING}"
    process = subprocess.Popen([sys.executable, "-c", code], stdout=-1, stderr=-1, text=True)
    yield process
    process.kill()
    process.communicate()


@pytest.mark.parametrize("first", [signal.SIGINT, signal.SIGTERM])
def test_a_second_interrupt_ends_a_command_at_once_and_quietly(
    hanging: subprocess.Popen[str], first: signal.Signals
) -> None:
    assert hanging.stdout is not None
    child = int(hanging.stdout.readline())
    hanging.send_signal(first)
    assert hanging.stdout.readline() == "ending\n"
    hanging.send_signal(signal.SIGINT)
    assert hanging.wait(timeout=60) == 130
    deadline = time.monotonic() + 60
    while is_alive(child):
        assert time.monotonic() < deadline, "the child still runs"
        time.sleep(0.02)
    assert hanging.communicate() == ("", "\n")


def test_output_that_nobody_reads_any_more_ends_a_command_quietly() -> None:
    work = "lambda: sum(print(number) or 0 for number in range(10**6))"
    code = f"import sys; from vaehpc.command import exit_code; sys.exit(exit_code({work}, 'interrupted'))"
    command = subprocess.Popen([sys.executable, "-c", code], stdout=-1, stderr=-1, text=True)
    assert command.stdout is not None
    assert command.stdout.readline() == "0\n"
    command.stdout.close()
    assert command.stderr is not None
    assert (command.stderr.read(), command.wait(60)) == ("", 141)
    command.stderr.close()


def test_a_failed_task_is_shown_and_looked_at(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []
    monkeypatch.setattr("pdb.post_mortem", lambda trace: seen.append(trace.tb_next.tb_frame.f_locals["radius"]))

    def task(radius: float) -> None:
        raise ValueError(f"no run has radius {radius}")

    def work() -> int:
        try:
            task(16.5)
        except ValueError as error:
            failed = TaskFailedError("RUN failed")
            failed.is_looked_at = True
            raise failed from error
        return 0

    assert exit_code(work, "") == 3
    assert seen == [16.5]
    lines = capsys.readouterr().err.splitlines()
    assert lines[-2:] == ["ValueError: no run has radius 16.5", "vaehpc: RUN failed"]
    assert lines[0].startswith("Traceback")


@pytest.mark.parametrize("verb", ["report", "replay"])
def test_whose_the_debugger_is_is_said_where_it_is_looked_for(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main([verb, "--help"])
    said = " ".join(capsys.readouterr().out.replace("│", " ").split())
    assert "--pdb" in said and "`vaehpc launch`'s alone" in said


def test_lines_are_broken_in_a_terminal_alone_and_between_words() -> None:
    path = f"/scratch/{30 * 'x'}/runs-of-mine/report.html"
    said = []
    for is_terminal, is_copied in ((True, False), (True, True), (False, False)):
        console = Console(file=io.StringIO(), force_terminal=is_terminal, width=40, color_system=None)
        say(console, f"  the result will be found in {path} when it is there", is_copied)
        assert isinstance(console.file, io.StringIO)
        said.append(console.file.getvalue())
    assert said[0].splitlines() == ["  the result will be found in", f"    {path}", "    when it is there"]
    assert said[1] == said[2] == f"  the result will be found in {path} when it is there\n"


# How errors are said


def ending(error: Exception) -> int:
    def work() -> int:
        raise error

    return exit_code(work, "interrupted")


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (UserError("asked wrongly"), 2),
        (PermissionError(errno.EACCES, "Permission denied", "/etc/x"), 2),
        (DiskFullError("no space"), 3),
        (OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/tmp/x"), 3),
        (OSError(errno.EDQUOT, os.strerror(errno.EDQUOT)), 3),
    ],
)
def test_a_full_disk_is_not_asked_wrongly(error: Exception, code: int, capsys: pytest.CaptureFixture[str]) -> None:
    assert ending(error) == code
    said = capsys.readouterr().err
    assert len(said.splitlines()) == 1
    assert code == 2 or "no space" in said


def test_a_terminal_is_told_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    """Escapes in names, logs and messages of exceptions are shown, not obeyed."""
    assert ending(UserError("log\x1b]0;title\x07 \u202eback \x9b31m")) == 2
    assert capsys.readouterr().err == "vaehpc: log\\x1b]0;title\\x07 \\u202eback \\x9b31m\n"
    assert neutral("R = 16 σ − ü\tis\nas it was") == "R = 16 σ − ü\tis\nas it was"


@pytest.mark.parametrize("line", [["launch", "--executor", "\x1b[31m"], ["\x1b[31m"]])
def test_what_was_typed_is_repeated_neutrally(line: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        sys.exit(main(line))
    said = capsys.readouterr()
    assert "\\x1b[31m" in said.err
    assert "\x1b" not in said.out + said.err


@pytest.mark.parametrize("name", ["a\nb", "a\tb", "\x1b[31m", os.fsdecode(b"\xff")])
def test_a_path_that_no_script_can_hold_is_refused(name: str) -> None:
    with pytest.raises(UserError, match=r"--out .*characters that are no text"):
        require_plain("--out", Path("runs") / name)
    require_plain("--out", Path("Läufe mit Leerzeichen/σ 'x' \"y\" $HOME"))
    require_plain("--out", None)


# What is not installed

EXTRAS = (
    "tensorflow", "keras", "simplejpeg", "PIL", "pyarrow", "scipy", "sklearn", "threadpoolctl", "matplotlib", "jinja2",
    "openTSNE",
)  # fmt: skip
BARE = f"""
import importlib, sys
sys.modules.update(dict.fromkeys({EXTRAS}))
from vaehpc.study import packages
own = packages.installed_versions
bare = ("numpy", "pydantic", "rich", "submitit", "tyro")
packages.installed_versions = lambda: {{name: version for name, version in own().items() if name in bare}}
for line in sys.stdin.read().splitlines():
    verb, *arguments = line.split()
    try:
        code = importlib.import_module(f"vaehpc.{{verb}}").main(arguments)
    except SystemExit as ended:
        code = ended.code
    print("=>", code, line, flush=True)
"""
LACKING = {
    "launch --seeds 16": "train-cpu,analysis",
    "launch --executor debug": "train-cpu,analysis",
    "prepare --synthetic 9 --out faces": "train-cpu",
    "plan --measure demo --data faces": "train-cpu",
    "report demo": "analysis",
    "explain demo --run ae-seed000": "analysis",
    "replay demo --run ae-seed000": "train-cpu,analysis",
}


def test_every_command_says_what_this_python_lacks_before_it_makes_anything(tmp_path: Path) -> None:
    codes = dict.fromkeys(LACKING, 2) | {"status": 2, "plan": 0, "launch --help": 0}
    environment = os.environ | {"PATH": "", "PYTHONPATH": str(ROOT), "CUDA_VISIBLE_DEVICES": ""}
    ended = subprocess.run(
        [sys.executable, "-c", BARE],
        input="\n".join(codes),
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert "Traceback" not in ended.stderr
    found = [line.removeprefix("=> ").split(" ", 1) for line in ended.stdout.splitlines() if line.startswith("=> ")]
    assert {line: int(code) for code, line in found} == codes
    said = [line for line in ended.stderr.splitlines() if line.startswith("vaehpc: this Python lacks ")]
    assert [line.partition("pip install ")[2] for line in said] == [f'"vaehpc[{e}]"' for e in LACKING.values()]
    assert said[0].startswith("vaehpc: this Python lacks TensorFlow, keras, ")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("target", "said"), [("image", "podman: apt-get install podman"), ("locks", "uv: pip install uv")]
)
def test_a_target_whose_tool_is_missing_says_which_package_brings_it(target: str, said: str, tmp_path: Path) -> None:
    make = shutil.which("make")
    assert make is not None
    ended = subprocess.run(
        [make, "--file", str(ROOT / "Makefile"), target],
        cwd=tmp_path,
        env={"PATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 2
    assert ended.stdout.startswith(f"make {target} needs {said}")
    assert list(tmp_path.iterdir()) == []
