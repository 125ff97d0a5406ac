"""SIGHUP while ``run`` imports its modules: noted, since a service that is reloaded just after its start must not be killed by it.

Imports nothing heavy: `main` calls it first.
"""

from __future__ import annotations

import os
import signal
from types import FrameType

HANG_UP: int | None = getattr(signal, "SIGHUP", None)
"""The number of SIGHUP; None where there is none."""

_noted = False
_had_terminal: bool | None = None


def note_hang_ups() -> None:
    """Note SIGHUP from now on, unless it is ignored, as nohup has it; and note whether there is a terminal."""
    global _had_terminal  # noqa: PLW0603 - a handler of signals knows nothing else
    if HANG_UP is not None and signal.getsignal(HANG_UP) is signal.SIG_DFL:
        signal.signal(HANG_UP, _note)
    _had_terminal = has_terminal()


def is_ignored() -> bool:
    """Return whether SIGHUP is ignored, or there is none."""
    return HANG_UP is None or signal.getsignal(HANG_UP) not in (signal.SIG_DFL, _note)


def take_noted() -> tuple[bool, bool]:
    """Return whether SIGHUP was received, and whether there was a terminal when it was first noted, or is one now; forget both."""
    global _noted, _had_terminal
    noted, had_terminal = _noted, has_terminal() if _had_terminal is None else _had_terminal
    _noted, _had_terminal = False, None
    return noted, had_terminal


def has_terminal() -> bool:
    """Return whether this process has a controlling terminal, which services and the processes of ``setsid`` lack."""
    try:
        descriptor = os.open("/dev/tty", os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_NOCTTY", 0))
    except OSError:
        return False
    os.close(descriptor)
    return True


def _note(_number: int, _frame: FrameType | None) -> None:
    global _noted  # noqa: PLW0603 - as above
    _noted = True
