"""Processes that user code forks beside a running scheduler: the child ends where that code ends, and touches nothing of its parent's.

A fork copies the stack of the task that made it, with our blocks and trio's loop below. Were the child to unwind them, it would
wait for the storage thread, which a fork does not copy; close a connection of SQLite that belongs to its parent (SQLite, "How To
Corrupt An SQLite Database File", 2.6); carry on copies of all other runs; and take events from the epoll descriptor that it shares
with its parent, whose loop would miss them. So it never comes back to the loop: we end it as `multiprocessing` ends its children,
without a word if the code exits or returns, with its traceback if it raises.
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
    """Count the forks between the process that imported this module and this one: what was noted in another process differs.

    A process id would not do: in a new namespace the child of process 1 is process 1 again.
    """
    return _forks


def _count_fork() -> None:
    global _forks  # noqa: PLW0603 - the count belongs to the process
    _forks += 1


if hasattr(os, "register_at_fork"):  # there is none where there is no fork
    os.register_at_fork(after_in_child=_count_fork)


def end_child(error: BaseException | None) -> NoReturn:
    """End this process, a forked child, as Python would after ``error``, but without unwinding anything or calling ``atexit``.

    Args:
        error: What the user's code in the child raised; None if it returned.
    """
    status = _FAILED
    try:
        status = _status(error)
        for stream in (sys.stdout, sys.stderr):
            with suppress(Exception):  # closed, or nobody reads
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
