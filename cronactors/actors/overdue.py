"""The actor that reports overdue moments. It runs in the event loop, and only in schedulers that have the receiver of alerts.

The clock knows the first due moment of the queue. So we sleep until that one would be overdue, and read nothing before: in a scheduler
that keeps up with its moments that never happens.
"""

from __future__ import annotations

import logging
import math

import trio

from cronactors.actors.alert_requests import FindOverdue, ReportOverdue
from cronactors.actors.clock import Clock, Queue
from cronactors.actors.exits import actor
from cronactors.actors.store_lifetime import StoreService
from cronactors.errors import StoreUnavailable
from cronactors.instants import Millis
from cronactors.storage.rows import OverdueMoment

logger = logging.getLogger("cronactors.clock")

CHECK_EVERY = 30.0
"""How long (s) after one check the next one reads the queue, while something is overdue."""
MOST_AT_ONCE = 100
"""How many alerts one transaction writes (some 3 ms), so that no claim waits for longer."""

_PAGE_EVERY = 1.0  # (s) between two pages of one check
_LONGEST_SLEEP = 60.0  # (s) in real time, since timers do not count the time while the machine was asleep or its clock was set


class OverdueWatch:
    """Reports moments that have been due for some time and have not started.

    A moment that has just become overdue is reported after one more pause. The machine may have been asleep: then the clock claims
    first.

    Args:
        service: The store.
        clock: Has the first due moment.
        owner: The scheduler's number in the store.
        overdue_after: How long (s) a moment may be due.
    """

    def __init__(self, service: StoreService, clock: Clock, *, owner: int, overdue_after: float) -> None:
        self._service = service
        self._owner = owner
        self._clock = clock
        self._overdue_after: Millis = round(overdue_after * 1000)
        self._pause = min(CHECK_EVERY, max(1.0, overdue_after / 10))

    @actor
    async def run(self) -> None:
        """Check until cancelled."""
        while True:
            await self._sleep_until_overdue()
            await trio.sleep(self._pause)
            if self._until_overdue(self._clock.queue.value) <= 0:
                try:
                    await self._check()
                except StoreUnavailable as error:  # which the store has logged
                    logger.debug("checking for overdue moments again in %.1f s: %s", self._pause, error)

    async def _sleep_until_overdue(self) -> None:
        """Sleep until the first moment of the queue is overdue."""
        longest = _LONGEST_SLEEP if self._service.virtual is None else math.inf
        while (wait := self._until_overdue(self._clock.queue.value)) > 0:
            until = trio.current_time() + min(wait, longest)

            def comes_earlier(queue: Queue, until: float = until) -> bool:
                return trio.current_time() + self._until_overdue(queue) < until - self._pause / 2

            with trio.move_on_at(until):
                await self._clock.queue.wait_value(comes_earlier)

    def _until_overdue(self, queue: Queue) -> float:
        """How long (s) until the first moment of the queue is overdue; infinite if there is none."""
        return math.inf if queue.due is None else self._service.seconds_until(queue.due + self._overdue_after)

    async def _check(self) -> None:
        """Report overdue jobs, a page at a time."""
        after: OverdueMoment | None = None
        while True:
            found = await self._service.mailbox.call(FindOverdue(self._overdue_after, after))
            for start in range(0, len(found.ids), MOST_AT_ONCE):
                ids = found.ids[start : start + MOST_AT_ONCE]
                await self._service.mailbox.call(ReportOverdue(ids, self._overdue_after, self._owner))
            after = found.after
            if after is None:
                return
            await trio.sleep(_PAGE_EVERY)
