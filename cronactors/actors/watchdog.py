"""The watchdog: from the storage thread it sees that the loop is blocked, and shows where."""

from __future__ import annotations

import logging
import sys
import threading
import time
import traceback
from contextlib import suppress

import trio

logger = logging.getLogger("cronactors.watchdog")

SILENCE = 5.0
"""Seconds after which a loop that was not heard of is asked, and as many to answer, until it counts as blocked."""


class Watchdog:
    """Watches the loop that made it. A scheduler looks around once a tick, so that an idle one need not be asked.

    It never raises: that would end the thread, or the loop, that it looks after. Where the log fails there is nothing left to tell it to.
    """

    def __init__(self) -> None:
        self._loop = threading.get_ident()
        self._trio = trio.lowlevel.current_trio_token()
        self._heard_at = time.monotonic()
        self._asked_at: float | None = None
        self._reported = False

    def heard(self) -> None:
        """Note that the loop lives."""
        now = time.monotonic()
        silent, reported = now - self._heard_at, self._reported
        self._heard_at, self._asked_at, self._reported = now, None, False
        if reported:
            with suppress(BaseException):
                logger.warning("the loop goes on after some %.0f s", silent)

    @property
    def next_look(self) -> float:
        """When to `look` next, on the monotonic clock."""
        return (self._heard_at if self._asked_at is None else self._asked_at) + SILENCE

    def look(self) -> None:
        """Ask a loop that was silent; report one that did not answer, once, with its stack."""
        now = time.monotonic()
        if now < self.next_look:
            return
        if self._asked_at is not None and not self._reported:
            self._reported = True
            with suppress(BaseException):
                self._report(now - self._heard_at)
        self._asked_at = now  # a process that was stopped finds itself asked long ago: the answer is on its way
        try:
            self._trio.run_sync_soon(self.heard, idempotent=True)
        except trio.RunFinishedError:
            self._heard_at = now

    def _report(self, silent: float) -> None:
        frame = sys._current_frames().get(self._loop)
        stack = "".join(traceback.format_stack(frame)) if frame is not None else "(its thread has ended)\n"
        logger.error("the loop has been blocked for %.0f s: no job starts, ends or times out. It is at:\n%s", silent, stack)
