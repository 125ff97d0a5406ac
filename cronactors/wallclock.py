"""The wall clock of the current trio run: the system's, or the one that a virtual clock brings along."""

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
"""Tells the time of day; safe to call from any thread."""


class VirtualTime(trio.abc.Clock):
    """A clock of trio that brings a wall clock along, and knows when a thread is at work; see `cronactors.testing`.

    Attributes:
        set_listeners: Called after the wall clock was set.
    """

    set_listeners: list[Callable[[], None]]

    @abstractmethod
    def wall(self) -> Millis:
        """The virtual wall clock."""

    @abstractmethod
    def hold(self) -> AbstractContextManager[None]:
        """Let no time pass while the block runs."""


_driving: ContextVar[VirtualTime | None] = ContextVar("virtual_time", default=None)
"""What drives the trio run in which a scheduler was opened; threads that tasks start inherit it."""


def system_wall() -> Millis:
    """The system's clock."""
    return time.time_ns() // 1_000_000


def sleep_until(instant: Millis, *, longest: Millis) -> None:
    """Block the thread until the system's clock shows an instant, for ``longest`` at most.

    It is some 0.1 ms late, where a sleep of trio's is one or two: the timeouts of epoll are whole milliseconds.
    """
    wait = instant / 1000 - time.time()
    if wait > 0:
        time.sleep(min(wait, longest / 1000))


def virtual_time() -> VirtualTime | None:
    """The virtual clock that drives the current trio run, if one does.

    Raises:
        CronError: Nothing runs under trio; or another autojumping clock drives it, which knows nothing of threads: hours would
            pass while one commit is made.
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
    """The virtual clock of the current trio run, or of the one that started this thread."""
    try:
        clock = trio.lowlevel.current_clock()
    except RuntimeError:
        return _driving.get()
    return clock if isinstance(clock, VirtualTime) else None


def now() -> datetime:
    """The wall clock of the current trio run, also in the threads of executors, UTC, in whole milliseconds; else the system's."""
    clock = _here()
    return from_millis(system_wall() if clock is None else clock.wall())


def hold() -> AbstractContextManager[None]:
    """Let no virtual time pass while the block runs: for subprocesses and sockets, which a clock cannot see at work.

    In real time it does nothing.
    """
    clock = _here()
    return nullcontext() if clock is None else clock.hold()
