"""What every command does around its work."""

import errno
import os
from pathlib import Path

import pytest

from vaehpc.command import DiskFullError, UserError, exit_code, neutral, require_plain


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


@pytest.mark.parametrize("name", ["a\nb", "a\tb", "\x1b[31m", os.fsdecode(b"\xff")])
def test_a_path_that_no_script_can_hold_is_refused(name: str) -> None:
    with pytest.raises(UserError, match=r"--out .*characters that are no text"):
        require_plain("--out", Path("runs") / name)
    require_plain("--out", Path("Läufe mit Leerzeichen/σ 'x' \"y\" $HOME"))
    require_plain("--out", None)
