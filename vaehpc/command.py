"""What every command does around its work: signals that end it, errors in one line, exit codes, words."""

from __future__ import annotations

import difflib
import errno
import io
import re
import shutil
import signal
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

import pydantic
from rich.console import Console


class UserError(Exception):
    """Asked wrongly: the message says what was asked, found, allowed and what to do. Commands exit with 2."""


class DiskFullError(UserError):
    """No space is left for what was to be written; what is finished stays. Commands exit with 3."""


class HopelessError(UserError):
    """Asked of a node what no other try would give: its task ends with HOPELESS, and is not tried again."""


HOPELESS = 78
"""Exit status of such a task; jobs/slurm/after.sh knows it. (sysexits.h: configuration error.)"""


class WorkerKilledError(Exception):
    """The system killed a worker; what was finished stays, and the same command continues. Commands exit with 3."""


def exit_code(work: Callable[[], int], interrupted: str) -> int:
    """Do a command's work, with SIGTERM and SIGHUP ending it as Ctrl-C does.

    Args:
        work: returns the exit code.
        interrupted: what to say if the work was interrupted and does not say so itself.

    Returns:
        What `work` returns; 2 if it was asked wrongly, 3 if the system killed a worker or the disk is full, 130 if it
        was interrupted.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # in the locale of the terminal not every word can be written
            stream.reconfigure(errors="backslashreplace")
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) != signal.SIG_IGN:  # nohup
            signal.signal(number, _interrupt)
    try:
        return work()
    except (UserError, OSError) as error:  # OSError: a folder that may not be written, a file where a folder should be
        known = explained(error, Path(error.filename or "")) if isinstance(error, OSError) else error
        print(f"vaehpc: {neutral(str(known))}", file=sys.stderr)
        return 3 if isinstance(known, DiskFullError) else 2
    except WorkerKilledError as error:
        print(f"vaehpc: {error}", file=sys.stderr)
        return 3
    except KeyboardInterrupt as interrupt:
        print(f"\nvaehpc: {interrupt.args[0] if interrupt.args else interrupted}", file=sys.stderr)
        return 130


def wrong_option(error: pydantic.ValidationError) -> UserError:
    """The first option whose value is not allowed."""
    first = error.errors()[0]
    return UserError(f"--{first['loc'][0]} {first['input']}: {first['msg']}".replace("_", "-"))


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


def explained(error: OSError, path: Path) -> Exception:
    """A full disk or a missing permission as a UserError; any other OSError as it is."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        place = next((parent for parent in (path, *path.parents) if parent.is_dir()), Path())
        return DiskFullError(
            f"no space left on the disk while writing {path}: {gigabytes(shutil.disk_usage(place).free)} free there, or"
            " a quota is used up; free some, then give the same command again: it goes on where this ended"
        )
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return UserError(f"may not write {path}: {error.strerror}; choose a folder that you own")
    if error.errno == errno.ENOENT:
        return UserError(f"{path} was not written: its folder or temporary file was removed, perhaps by a second start")
    return error


def say(console: Console, text: str) -> None:
    """A line that is never broken: paths in it can be copied."""
    console.print(neutral(text), markup=False, highlight=False, soft_wrap=True)


NOT_SHOWN = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
"""Characters that a terminal obeys, or that no text holds; not the tab and the end of a line."""


def neutral(text: str) -> str:
    """Text of files, logs and other programs as a terminal shows it: '\\x1b' in place of what it would obey."""
    return NOT_SHOWN.sub(lambda found: found.group().encode("unicode_escape", "surrogatepass").decode(), text)


def require_plain(option: str, path: Path | None) -> None:
    """UserError if a path has characters that no record and no batch script can hold."""
    if path is not None and (NOT_SHOWN.search(str(path)) or "\n" in str(path) or "\t" in str(path)):
        raise UserError(
            f"{option} {str(path)!r}: its name has characters that are no text (control characters, or bytes that are"
            " not UTF-8). Choose or make another name, such as a link."
        )


def gigabytes(num_bytes: int) -> str:
    """'38 GB', '0.4 GB', '12 MB', '89 KB'."""
    if num_bytes < 1e6:
        return f"{num_bytes / 1e3:.0f} KB"
    if num_bytes < 100e6:
        return f"{num_bytes / 1e6:.1f} MB"
    return f"{num_bytes / 1e9:.1f} GB"


def duration(seconds: float) -> str:
    """'45 s', '12 min', '2.2 h', '3.1 d'."""
    for size, unit in ((86400, "d"), (3600, "h")):
        if seconds >= 1.5 * size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds / 60:.0f} min" if seconds >= 90 else f"{max(0, seconds):.0f} s"


def ranges(numbers: Iterable[int]) -> list[str]:
    """Ascending whole numbers in words: ['5', '9', '20 to 29']; two neighbours stay two."""
    groups: list[list[int]] = []
    for number in numbers:
        if groups and number == groups[-1][-1] + 1:
            groups[-1].append(number)
        else:
            groups.append([number])
    each = [[f"{group[0]} to {group[-1]}"] if len(group) > 2 else list(map(str, group)) for group in groups]
    return [words for of_group in each for words in of_group]


def nearest(asked: str, known: Iterable[str]) -> str:
    """' (did you mean ...?)' where something known is spelled nearly so, else nothing."""
    found = difflib.get_close_matches(asked, list(known), n=1)
    return f" (did you mean '{found[0]}'?)" if found else ""
