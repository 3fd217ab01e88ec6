"""What every command does around its work: signals that end it, errors in one line, exit codes, words."""

from __future__ import annotations

import contextlib
import difflib
import errno
import io
import multiprocessing
import os
import pdb
import re
import shutil
import signal
import sys
import textwrap
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import NoReturn, TypeVar

import pydantic
from rich.console import Console

Asked = TypeVar("Asked")


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


class TaskFailedError(Exception):
    """A task that ran in this process raised its cause, which is shown with its traceback. Commands exit with 3."""

    is_looked_at = False
    """Whether Python's debugger starts where it was raised."""


def exit_code(work: Callable[[], int], interrupted: str) -> int:
    """Do a command's work, with SIGTERM and SIGHUP ending it as Ctrl-C does; a second one ends it at once.

    Args:
        work: returns the exit code.
        interrupted: what to say if the work was interrupted and does not say so itself.

    Returns:
        What `work` returns; 2 if it was asked wrongly, 3 if the system killed a worker, a task failed in this process
        or the disk is full, 130 if it was interrupted.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # in the locale of the terminal not every word can be written
            stream.reconfigure(errors="backslashreplace")
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    listened_to = [number for number, handler in before.items() if handler != signal.SIG_IGN]  # nohup
    is_interrupted = False

    def interrupt(*_: object) -> None:
        nonlocal is_interrupted
        if is_interrupted:
            _end_at_once()
        is_interrupted = True
        raise KeyboardInterrupt

    for number in listened_to:
        signal.signal(number, interrupt)
    try:
        return work()
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] == "vaehpc":
            raise
        print(f'vaehpc: this Python lacks {error.name}: pip install "vaehpc[train-cpu,analysis]"', file=sys.stderr)
        return 2
    except BrokenPipeError:  # who reads the output, as `| head` does, has enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or Python would say so at its end
        return 128 + signal.SIGPIPE
    except (UserError, OSError) as error:  # OSError: a folder that may not be written, a file where a folder should be
        known = explained(error, Path(error.filename or "")) if isinstance(error, OSError) else error
        print(f"vaehpc: {neutral(str(known))}", file=sys.stderr)
        return 3 if isinstance(known, DiskFullError) else 2
    except WorkerKilledError as error:
        print(f"vaehpc: {error}", file=sys.stderr)
        return 3
    except TaskFailedError as error:
        _show_failure(error)
        return 3
    except KeyboardInterrupt as stop:
        print(f"\nvaehpc: {stop.args[0] if stop.args else interrupted}", file=sys.stderr)
        return 130
    finally:
        for number in listened_to:
            # What ends after an interrupt, such as a pool's threads at the interpreter's end, may be interrupted too.
            if number != signal.SIGINT or not is_interrupted:
                signal.signal(number, before[number] or signal.SIG_DFL)


def asked_by(kind: type[Asked], argv: Sequence[str] | None, prog: str, default: Asked | None = None) -> Asked:
    """A command line as these arguments.

    Args:
        kind: a dataclass, whose fields are the options.
        argv: the words after the command; None: this process's.
        prog: the command.
        default: values of what is not given; None: those of the dataclass.

    Raises:
        SystemExit: with 2, after a message, where the line is wrong.
    """
    # Imported here: tasks, which need errors alone, run where it is not installed.
    import tyro

    typed = list(sys.argv[1:] if argv is None else argv)
    options = {"prog": prog} if default is None else {"prog": prog, "default": default}
    if (shown := [neutral(word) for word in typed]) != typed:
        tyro.cli(kind, args=shown, **options)  # its messages repeat what was typed
    asked: Asked = tyro.cli(kind, args=typed, **options)
    return asked


def wrong_option(error: pydantic.ValidationError) -> UserError:
    """The first option whose value is not allowed."""
    first = error.errors()[0]
    return UserError(f"--{first['loc'][0]} {first['input']}: {first['msg']}".replace("_", "-"))


def _show_failure(failed: TaskFailedError) -> None:
    cause = failed.__cause__
    assert cause is not None
    traceback.print_exception(cause)
    print(f"vaehpc: {failed}", file=sys.stderr)
    if failed.is_looked_at:
        pdb.post_mortem(cause.__traceback__)
    traceback.clear_frames(cause.__traceback__)


def _end_at_once() -> NoReturn:
    """Without the words and tracebacks of whatever was just ending."""
    for child in multiprocessing.active_children():
        child.kill()
    with contextlib.suppress(OSError):
        os.write(2, b"\x1b[?25h\n" if os.isatty(2) else b"\n")  # progress bars hide the cursor
    os._exit(130)


@contextlib.contextmanager
def silenced() -> Iterator[None]:
    """What libraries say of themselves meanwhile, TensorFlow's C++ part included, goes nowhere."""
    sys.stdout.flush()
    sys.stderr.flush()
    saved, nowhere = (os.dup(1), os.dup(2)), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        for target, descriptor in zip((1, 2), saved, strict=True):
            os.dup2(descriptor, target)
            os.close(descriptor)
        os.close(nowhere)


def explained(error: OSError, path: Path) -> Exception:
    """A full disk, a missing permission, or what stands in the way as a UserError; any other OSError as it is."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        place = next((parent for parent in (path, *path.parents) if parent.is_dir()), Path())
        return DiskFullError(
            f"no space left on the disk while writing {path}: {gigabytes(shutil.disk_usage(place).free)} free there, or"
            " a quota is used up; free some, then give the same command again: it goes on where this ended"
        )
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return UserError(f"no access to {path}: {error.strerror}; choose a folder that you own, or ask its owner")
    if error.errno == errno.ENOENT:
        return UserError(f"{path} was not written: its folder or temporary file was removed, perhaps by a second start")
    if error.errno in (errno.EISDIR, errno.ENOTDIR, errno.EEXIST, errno.ELOOP):
        stands = next((each for each in (path, *path.parents) if each.is_symlink() or each.exists()), path)
        return UserError(f"{path} cannot be written: {error.strerror}; move away {stands}")
    return error


def say(console: Console, text: str, is_copied: bool = False) -> None:
    """Lines that are broken in a terminal alone, and only between words: paths in them can be copied.

    Args:
        console: where it is said.
        text: one line or several.
        is_copied: it holds a command to be copied, and is not broken at all.
    """
    lines = neutral(text).splitlines()
    if console.is_terminal and not is_copied:
        lines = [part for line in lines for part in wrapped(line, console.width)]
    console.print("\n".join(lines), markup=False, highlight=False, soft_wrap=True)


def wrapped(line: str, width: int) -> list[str]:
    """A line broken between words; what follows is indented a little more than the line is."""
    indent = line[: len(line) - len(line.lstrip())] + ("  " if line.startswith(" ") else "")
    parts = textwrap.wrap(line, width, break_long_words=False, break_on_hyphens=False, subsequent_indent=indent)
    return parts or [line]


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
