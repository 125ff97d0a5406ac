"""The wall clock of the current trio run: the system's, or the one that `cronactors.testing` has put in its place."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import datetime
from typing import TypeAlias

import trio

from cronactors.errors import CronError
from cronactors.instants import Millis, from_millis

Wall: TypeAlias = Callable[[], Millis]
"""Tells the time of day; safe to call from any thread."""

virtual_wall: trio.lowlevel.RunVar[Wall | None] = trio.lowlevel.RunVar("cronactors.virtual_wall", None)
"""Set by a virtual clock in the run that it drives."""


def system_wall() -> Millis:
    """The system's clock."""
    return time.time_ns() // 1_000_000


def wall_of_run() -> tuple[Wall, bool]:
    """The wall clock of the current trio run, and whether it is virtual.

    Raises:
        CronError: The run is driven by an autojumping clock that does not know of threads and would let hours pass in a commit.
    """
    wall = virtual_wall.get()
    if wall is not None:
        return wall, True
    clock = trio.lowlevel.current_clock()
    if getattr(clock, "autojump_threshold", float("inf")) != float("inf"):
        raise CronError(
            f"{type(clock).__name__} jumps while the storage thread works: "
            "use the fixture virtual_clock of cronactors.testing instead of an autojumping clock"
        )
    return system_wall, False


def now() -> datetime:
    """The wall clock of the current trio run, UTC, in whole milliseconds; the system's outside of one."""
    try:
        wall = virtual_wall.get()
    except RuntimeError:  # not inside trio
        wall = None
    return from_millis((wall or system_wall)())
