"""The wall clock of the current trio run: the system's, or that of a virtual clock."""

from __future__ import annotations

import math
import time
from abc import abstractmethod
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from contextvars import ContextVar
from datetime import datetime
from typing import TypeAlias

import trio

from cronactors.errors import CronError
from cronactors.instants import Millis, from_millis

Wall: TypeAlias = Callable[[], Millis]
"""Returns the time of day. Any thread may call it."""


class VirtualTime(trio.abc.Clock):
    """A trio clock with a wall clock of its own, which stands still while a thread works; see `cronactors.testing`.

    Attributes:
        set_listeners: Called after the wall clock has been set.
    """

    set_listeners: list[Callable[[], None]]

    @abstractmethod
    def wall(self) -> Millis:
        """Return the time of the virtual wall clock."""

    @abstractmethod
    def hold(self) -> AbstractContextManager[None]:
        """Return a context manager that stops virtual time."""


_driving: ContextVar[VirtualTime | None] = ContextVar("virtual_time", default=None)
"""The clock of the trio run in which a scheduler was opened; threads that tasks start inherit it."""


def system_wall() -> Millis:
    """Return the time of the system's clock."""
    return time.time_ns() // 1_000_000


def sleep_until(instant: Millis, *, longest: Millis) -> None:
    """Block the thread until the system's clock shows an instant, at most for ``longest``.

    It wakes some 0.1 ms late; a sleep of trio's wakes one or two late, because the timeouts of epoll are whole milliseconds.
    """
    wait = instant / 1000 - time.time()
    if wait > 0:
        time.sleep(min(wait, longest / 1000))


def virtual_time() -> VirtualTime | None:
    """Return the virtual clock of the current trio run, or None in real time.

    Raises:
        CronError: trio is not running; or it has another autojumping clock, which does not see threads at work: hours would pass
            during one commit.
    """
    try:
        clock = trio.lowlevel.current_clock()
    except RuntimeError:
        raise CronError("there is no trio here: run the program with trio.run, not with asyncio") from None
    if isinstance(clock, VirtualTime):
        _driving.set(clock)
        return clock
    if getattr(clock, "autojump_threshold", math.inf) != math.inf:
        raise CronError(
            f"{type(clock).__name__} jumps while the storage thread works: "
            "use the fixture virtual_clock of cronactors.testing instead of an autojumping clock"
        )
    return None


def _here() -> VirtualTime | None:
    """Return the virtual clock of the current trio run, or of the one that started this thread."""
    try:
        clock = trio.lowlevel.current_clock()
    except RuntimeError:
        return _driving.get()
    return clock if isinstance(clock, VirtualTime) else None


def now() -> datetime:
    """Return the time of the current trio run's wall clock, in UTC and whole milliseconds; without one, the system's.

    It works in the threads of executors too.
    """
    clock = _here()
    return from_millis(system_wall() if clock is None else clock.wall())


def hold() -> AbstractContextManager[None]:
    """Return a context manager that stops virtual time: for subprocesses and sockets, which a clock cannot see at work.

    In real time it does nothing.
    """
    clock = _here()
    return nullcontext() if clock is None else clock.hold()
