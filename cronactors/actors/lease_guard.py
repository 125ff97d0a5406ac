"""The lease guard: cancels all runs before another machine may start them. Only for a store that other machines share."""

from __future__ import annotations

import logging
import time
from typing import Final

import trio

from cronactors.actors.exits import actor
from cronactors.actors.pool import RunnerPool
from cronactors.storage.opened import OpenedStorage

logger = logging.getLogger("cronactors.runner")

BEFORE_THE_END: Final = 5.0
"""How long (s) before the end of a lease that could not be renewed the runs are cancelled, so that they have time to end."""
_LOOK_EVERY = 1.0


class LeaseGuard:
    """Compares the time with the end of this scheduler's lease, as far as it knows it.

    A process that cannot reach the server cannot renew its lease, and once that has run out other machines take over its runs. They have
    the server's clock; we count on ours from when the last renewal was sent, which is earlier than when it took effect. On a file there
    is no such case: whoever is kept from it keeps the others from it too, or has died.

    Args:
        storage: Knows when the lease ends.
        pool: Its runs are cancelled as interrupted. It goes on when the lease can be renewed again.
    """

    def __init__(self, storage: OpenedStorage, pool: RunnerPool) -> None:
        self._storage = storage
        self._pool = pool

    @actor
    async def run(self) -> None:
        """Guard until the pool is closed, or until cancelled."""
        cancelled_for: float | None = None
        while not self._pool.closed.is_set():
            with trio.move_on_after(_LOOK_EVERY):
                await self._pool.closed.wait()
            ends = self._storage.lease_ends(self._pool.settings.owner)
            if not self._pool.in_flight or ends is None or time.monotonic() < ends - BEFORE_THE_END:
                continue
            if cancelled_for != ends:
                logger.warning("the store is out of reach, and the lease ends: %d runs are cancelled", len(self._pool.in_flight))
                cancelled_for = ends
            self._pool.in_flight.cancel_all()
