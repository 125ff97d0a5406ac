"""The watchdog: logs where the event loop is blocked. Runs on the storage thread, which works while the loop doesn't.

A blocked loop starts no run, ends none and enforces no timeout, and nothing that runs inside it can report that. The storage
thread can: each request that it gets shows that the loop responds. Only after 5 s without one does it ping the loop, and after
another 5 s without a response it logs the stack of the loop's thread.
"""

from __future__ import annotations

import logging
import sys
import threading
import time
import traceback
from contextlib import suppress

import trio

logger = logging.getLogger("cronactors.watchdog")

RESPONSE_LIMIT = 5.0
"""How long (s) the loop may be silent until it is pinged, and then silent again until it counts as blocked."""


class Watchdog:
    """Watches the event loop in which it is made.

    It never raises, not even if a handler of the log does: an exception would end the thread or the loop that it watches.
    """

    def __init__(self) -> None:
        self._thread = threading.get_ident()
        self._trio = trio.lowlevel.current_trio_token()
        self._active_at = time.monotonic()
        self._pinged_at: float | None = None
        self._reported = False

    def note_activity(self) -> None:
        """Note that the loop responds. Called on either thread."""
        now = time.monotonic()
        silent, reported = now - self._active_at, self._reported
        self._active_at, self._pinged_at, self._reported = now, None, False
        if reported:
            with suppress(BaseException):
                logger.warning("event loop responsive again after %.0f s", silent)

    @property
    def next_check(self) -> float:
        """When to call `check` next, on the monotonic clock."""
        return (self._active_at if self._pinged_at is None else self._pinged_at) + RESPONSE_LIMIT

    def check(self) -> None:
        """Ping a silent loop; log one that did not respond to a ping, once."""
        now = time.monotonic()
        if now < self.next_check:
            return
        if self._pinged_at is not None and not self._reported:
            self._reported = True
            with suppress(BaseException):
                self._report(now - self._active_at)
        self._pinged_at = now  # ping before any report: a process that was suspended had no chance to respond
        try:
            self._trio.run_sync_soon(self.note_activity, idempotent=True)
        except trio.RunFinishedError:
            self._active_at = now

    def _report(self, silent: float) -> None:
        frame = sys._current_frames().get(self._thread)
        stack = "".join(traceback.format_stack(frame)) if frame is not None else "(its thread has ended)\n"
        logger.error("event loop blocked for %.0f s: no run starts, ends or times out. It is at:\n%s", silent, stack)
