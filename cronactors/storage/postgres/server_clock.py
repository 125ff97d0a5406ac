"""The clock of a PostgreSQL server, estimated between two transactions."""

from __future__ import annotations

import time

from cronactors.instants import Millis


class ServerClock:
    """Shows the time of the server; any thread may call it.

    All schedulers of one store decide by the time of its server, so that it does not matter what their own clocks show. Each
    transaction reads it; in between we add what our monotonic clock has counted. The wall clock of this machine is not used.

    An answer may be late by the time that it was on its way, so an observation counts only if it took at most twice as long as the
    fastest one.
    """

    def __init__(self) -> None:
        self._offset = 0.0  # (s) from the monotonic clock to the server's
        self._fastest = 0.0

    def forget(self) -> None:
        """Count the next observation however long it takes: the connection is a new one, and may lead to another server."""
        self._fastest = 0.0

    def observe(self, shown: Millis, sent: float, received: float) -> None:
        """Note a time that the server has shown.

        Args:
            shown: The time.
            sent: When it was asked, on the monotonic clock (s).
            received: When the answer came.
        """
        took = received - sent
        # The fastest counts for less and less, so that a network that becomes slower is noticed.
        self._fastest = min(took, self._fastest * 1.1) if self._fastest else took
        if took <= 2 * self._fastest:
            self._offset = (shown + 0.5) / 1000 - (sent + received) / 2

    def seconds(self) -> float:
        """Return the time of the server (s since 1970)."""
        return time.monotonic() + self._offset

    def __call__(self) -> Millis:
        """Return the time of the server (ms since 1970)."""
        return int(self.seconds() * 1000)
