"""The clock of a PostgreSQL server, estimated between two transactions."""

from __future__ import annotations

import time

from cronactors.instants import Millis

_RESOLUTION = 0.001  # (s) of the times that the server shows


class ServerClock:
    """Shows the time of the server; any thread may call it.

    All schedulers of one store decide by the time of its server, so that it does not matter what their own clocks show. Each
    transaction reads it; in between we add what our monotonic clock has counted. The wall clock of this machine is not used.

    An answer may be late by the time that it was on its way, so an observation counts only if it took at most twice as long as the
    fastest one; or if the clock must have been set, or be that of another server, since what we show is outside of that time. So a
    server that is slow for a while, as after a crash, does not look like one whose clock was set.
    """

    def __init__(self) -> None:
        self._offset = 0.0  # (s) from the monotonic clock to the server's
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
        offset = (shown + 0.5) / 1000 - (sent + received) / 2
        if took <= 2 * self._fastest or abs(offset - self._offset) > took / 2 + _RESOLUTION:
            self._offset = offset

    def seconds(self) -> float:
        """Return the time of the server (s since 1970)."""
        return time.monotonic() + self._offset

    def __call__(self) -> Millis:
        """Return the time of the server (ms since 1970)."""
        return int(self.seconds() * 1000)
