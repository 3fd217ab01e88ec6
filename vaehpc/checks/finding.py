"""The outcome of one check."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Finding:
    """One line of the doctor's table."""

    name: str
    ok: bool | None
    """None: not checked."""
    found: str
    remedy: str = ""
    """How to mend it, or how to have it checked."""


def in_line(text: str) -> str:
    """A text of several lines as one."""
    return "; ".join(line.strip() for line in text.splitlines() if line.strip())


def right(name: str, found: str) -> Finding:
    """Nothing is wrong here."""
    return Finding(name, True, in_line(found))


def wrong(name: str, found: str, remedy: str) -> Finding:
    """Something is wrong here."""
    return Finding(name, False, in_line(found), in_line(remedy))


def unchecked(name: str, found: str, remedy: str = "") -> Finding:
    """This could not be checked, or was not asked for."""
    return Finding(name, None, in_line(found), in_line(remedy))
