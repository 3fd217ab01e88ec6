"""What every command does around its work: signals that end it, errors in one line, exit codes."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable
from pathlib import Path

from vaehpc.files import UserError, WorkerKilledError, explained


def exit_code(work: Callable[[], int], interrupted: str) -> int:
    """Do a command's work, with SIGTERM and SIGHUP ending it as Ctrl-C does.

    Args:
        work: returns the exit code.
        interrupted: what to say if the work was interrupted and does not say so itself.

    Returns:
        What `work` returns; 2 if it was asked wrongly, 3 if the system killed a worker, 130 if it was interrupted.
    """
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) != signal.SIG_IGN:  # nohup
            signal.signal(number, _interrupt)
    try:
        return work()
    except (UserError, OSError) as error:  # OSError: a folder that may not be written, a file where a folder should be
        known = explained(error, Path(error.filename)) if isinstance(error, OSError) and error.filename else error
        print(f"vaehpc: {known}", file=sys.stderr)
        return 2
    except WorkerKilledError as error:
        print(f"vaehpc: {error}", file=sys.stderr)
        return 3
    except KeyboardInterrupt as interrupt:
        print(f"\nvaehpc: {interrupt.args[0] if interrupt.args else interrupted}", file=sys.stderr)
        return 130


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt
