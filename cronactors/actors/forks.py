"""Processes that user code forks inside a running scheduler: we end the child where that code ends.

A fork copies the stack of the task that made it, with our context managers and trio's loop below. If the child unwound that
stack, it would wait for the storage thread, which a fork does not copy; close a connection of SQLite that belongs to its parent
(SQLite, "How To Corrupt An SQLite Database File", 2.6); carry out copies of all other runs; and take events from the epoll
descriptor that it shares with its parent, whose loop would miss them. So the child must never return to the loop. We end it as
`multiprocessing` ends its children: silently if the code exits or returns, with its traceback if it raises.
"""

from __future__ import annotations

import os
import sys
import traceback
from contextlib import suppress
from typing import Final, NoReturn

_FAILED: Final = 1
_INTERRUPTED: Final = 130

_forks = 0


def generation() -> int:
    """Return how many forks lie between the process that imported this module and this one. In a child it is always greater.

    We cannot compare process ids: in a new namespace the child of process 1 is process 1 again.
    """
    return _forks


def _count_fork() -> None:
    global _forks  # noqa: PLW0603 - the count belongs to the process
    _forks += 1


if hasattr(os, "register_at_fork"):  # not on Windows, which has no fork
    os.register_at_fork(after_in_child=_count_fork)


def end_child(error: BaseException | None) -> NoReturn:
    """End this process, a forked child, as Python would after ``error``, but without unwinding the stack or calling ``atexit``.

    Args:
        error: The exception of the user's code in the child; None if it returned.
    """
    status = _FAILED
    try:
        status = _status(error)
        for stream in (sys.stdout, sys.stderr):
            with suppress(Exception):  # closed, or a pipe without a reader
                stream.flush()
    finally:
        os._exit(status)


def _status(error: BaseException | None) -> int:
    match error:
        case None:
            return 0
        case SystemExit(code=None):
            return 0
        case SystemExit(code=int(code)):
            return code & 0xFF
        case SystemExit(code=text):
            with suppress(Exception):
                print(text, file=sys.stderr)  # noqa: T201 - as Python does
            return _FAILED
        case KeyboardInterrupt():
            return _INTERRUPTED
        case _:
            with suppress(Exception):
                traceback.print_exception(error)
            return _FAILED
