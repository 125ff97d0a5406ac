"""The notifications that one receiver is yet to be called for, as far as they are in memory.

The store has all of them. A finished run is handed over in memory, since reading it back would cost more than the call. Memory is
bounded: what does not fit is left to the store, and read page by page once there is room. Everything here runs in the event loop.
"""

from __future__ import annotations

import logging
import math
import random
from collections import deque
from collections.abc import Awaitable, Callable, Collection
from contextlib import nullcontext

import attrs
import trio

from cronactors import log_fields
from cronactors.actors.exits import actor
from cronactors.actors.mailbox import RETRY_PAUSES, Mailbox
from cronactors.actors.notification_requests import ReadReady
from cronactors.backoff import backoff
from cronactors.errors import StoreUnavailable
from cronactors.instants import Millis
from cronactors.ledger.notifications import CallResult, Deliverable, ReadyPage
from cronactors.notifications import NotificationStatus, Receiver
from cronactors.policy import MAX_ERROR, retry_delay, truncated

logger = logging.getLogger("cronactors.notifier")

INBOX_CAPACITY = 1_000
"""How many notifications of a receiver are kept in memory."""
READY_PAGE = 100
"""How many are read from the store at a time. A hundred runs whose ``result_data`` are 64 KiB each are read in some 10 ms."""
PAUSE_AFTER = 5
"""After how many failed calls in a row a receiver as a whole pauses."""
PAUSES = (30.0, 600.0)
"""The first and the longest pause (s) of a receiver."""
_TURN = 20  # a checkpoint costs 7 us, so only every so many calls wait at one, that other tasks get a turn


@attrs.frozen
class Failure:
    """Why a call did not return.

    Attributes:
        error: The error in words.
        for_good: Whether no further call can help.
    """

    error: str
    for_good: bool = False


def subject(deliverable: Deliverable) -> str:
    """Name the event of a notification, for the log."""
    row = deliverable.row
    return f"run {row.run_id}" if row.key is None else f"alert {row.key}"


def fields(deliverable: Deliverable) -> log_fields.Fields:
    """Return the fields of a log record about a notification."""
    if deliverable.run is None:
        return {"cron_job": deliverable.row.job_id}
    return log_fields.of_run(deliverable.run)


class Inbox:
    """The queue of one receiver: which notification it is called for next, and when.

    Args:
        name: The name of the receiver.
        receiver: The receiver.
        on_result: Called with the result of each call, which is to be stored.
        on_change: Called when `is_idle` may have changed.

    Attributes:
        calls: How many calls are running.
        in_hand: The ids of the notifications in memory: queued, being delivered, cut off, or delivered and not stored as such yet.
    """

    def __init__(
        self,
        name: str,
        receiver: Receiver[Callable[..., Awaitable[None]]],
        *,
        on_result: Callable[[Inbox, CallResult], None],
        on_change: Callable[[], None],
    ) -> None:
        self.name = name
        self.receiver = receiver
        self.calls = 0
        self.in_hand: set[int] = set()
        self._queue: deque[Deliverable] = deque()
        self._behind = False  # the store may have more that can be delivered now
        self._retry_at = math.inf  # when to read retries that are due, on trio's clock
        self._abandoned = 0  # calls that were cut off; their notifications stay in hand, and are not called again
        self._on_result = on_result
        self._on_change = on_change
        self._failures = 0  # in a row
        self._pauses = backoff(*PAUSES)
        self._paused_until = -math.inf
        self._deliverers = trio.lowlevel.ParkingLot()
        self._feeder = trio.lowlevel.ParkingLot()
        self._turn = 0

    @property
    def is_paused(self) -> bool:
        """Whether the receiver has failed so often that nothing is called for a while."""
        return self._failures >= PAUSE_AFTER and trio.current_time() < self._paused_until

    @property
    def is_idle(self) -> bool:
        """Whether no call is running, and none can be made now."""
        if self.is_paused:
            return not self.calls and len(self.in_hand) == len(self._queue) + self._abandoned
        return len(self.in_hand) == self._abandoned and not self._behind

    # Filled by commits

    def put(self, deliverable: Deliverable) -> None:
        """Take a notification that has just become ready. Called in the order of commits.

        While the store has earlier ones, later ones are left to it, so that they are delivered in order.
        """
        if self._behind or len(self._queue) >= INBOX_CAPACITY:
            self._behind = True
        else:
            self._add(deliverable)

    def _add(self, deliverable: Deliverable) -> None:
        self.in_hand.add(deliverable.row.id)
        self._queue.append(deliverable)
        if self._deliverers:
            self._deliverers.unpark()

    def check_store(self) -> None:
        """Note that the store may have more to deliver, or that times of retries have been moved."""
        self._behind = True
        self._feeder.unpark_all()
        self._on_change()

    def settled(self, result: CallResult) -> None:
        """Note that the result of a call is stored."""
        self.in_hand.discard(result.row.id)
        if result.retry_after is not None:
            self._check_store_at(trio.current_time() + result.retry_after / 1000)

    def _check_store_at(self, at: float) -> None:
        if at < self._retry_at:
            self._retry_at = at
            self._feeder.unpark_all()

    @actor
    async def feed(self, mailbox: Mailbox, owner: int, seconds_until: Callable[[Millis], float]) -> None:
        """Read from the store what is not in memory, as soon as there is room, until cancelled."""

        def read(page: ReadyPage) -> None:  # at the commit: what is committed later is put into the queue
            self._behind = page.is_full
            if not page.is_full:
                self._drop_all_but(page.ready)
            if page.next_retry is not None:
                self._check_store_at(trio.current_time() + seconds_until(page.next_retry))
            for deliverable in page.deliverables:
                if deliverable.row.id not in self.in_hand:
                    self._add(deliverable)
            self._on_change()

        pauses = backoff(*RETRY_PAUSES)
        while True:
            await self._until_behind()
            try:
                await mailbox.call(ReadReady(self.name, owner, READY_PAGE, frozenset(self.in_hand)), read)
                pauses = backoff(*RETRY_PAUSES)
            except StoreUnavailable as error:  # which the store has logged
                logger.debug("notifications of %s will be read later: %s", self.name, error)
                await trio.sleep(next(pauses))

    def _drop_all_but(self, ready: Collection[int]) -> None:
        """Drop what we may not deliver any more: another scheduler took it over, since our process was stopped for long."""
        for deliverable in [each for each in self._queue if each.row.id not in ready]:
            self._queue.remove(deliverable)
            self.in_hand.discard(deliverable.row.id)

    async def _until_behind(self) -> None:
        """Wait until the store may have more, and little is queued: then few rows with large results are in memory."""
        while not self._behind or len(self._queue) > READY_PAGE:
            if trio.current_time() >= self._retry_at:
                self._retry_at = math.inf
                self._behind = True
                self._on_change()
            else:
                with trio.move_on_at(self._retry_at):
                    await self._feeder.park()

    # Emptied by calls

    async def take(self) -> Deliverable:
        """Wait until a call may be made, and return the notification for it."""
        self._turn += 1
        if self._turn % _TURN:
            await trio.lowlevel.checkpoint_if_cancelled()
        else:
            await trio.lowlevel.checkpoint()
        while not self._may_call():
            with trio.move_on_at(self._paused_until) if self.is_paused else nullcontext():
                await self._deliverers.park()
        self.calls += 1
        if self._failures >= PAUSE_AFTER:
            self._on_change()  # the pause has ended
        if self._feeder and len(self._queue) <= READY_PAGE:
            self._feeder.unpark_all()
        return self._queue.popleft()

    def _may_call(self) -> bool:
        """Whether there is something to deliver and the receiver does not pause; after a pause one call at a time tries it."""
        if not self._queue:
            return False
        return self._failures < PAUSE_AFTER or (not self.calls and not self.is_paused)

    def returned(self, deliverable: Deliverable, failure: Failure | None) -> None:
        """Note that a call has returned, or why it has failed; its result is stored."""
        row = deliverable.row
        self.calls -= 1
        if failure is None:
            if self._failures:
                self._recovered()
            self._on_result(self, CallResult(row, NotificationStatus.DELIVERED, row.attempts, None, row.error))
            return
        attempts = row.attempts + 1
        gives_up = failure.for_good or attempts >= self.receiver.attempts
        spread = random.random()  # noqa: S311 - spreads retries, guards nothing
        delay = None if gives_up else retry_delay(self.receiver.retry, failures=attempts, spread=spread)
        if gives_up:
            calls = "1 call" if attempts == 1 else f"{attempts:,} calls"
            logger.warning(
                "%s gave up %s after %s: %s", self.name, subject(deliverable), calls, failure.error, extra=fields(deliverable)
            )
        if not failure.for_good:
            self._failed()
        status = NotificationStatus.GIVEN_UP if gives_up else NotificationStatus.PENDING
        self._on_result(self, CallResult(row, status, attempts, delay, truncated(failure.error, MAX_ERROR)))

    def abandoned(self) -> None:
        """Note that a call was cancelled because the scheduler ends: its notification stays pending."""
        self.calls -= 1
        self._abandoned += 1
        self._on_change()

    def _failed(self) -> None:
        was_paused = self.is_paused  # then the call began before the pause, and says nothing new
        self._failures += 1
        if self._failures >= PAUSE_AFTER and not was_paused:
            pause = next(self._pauses)
            self._paused_until = trio.current_time() + pause
            if self._failures == PAUSE_AFTER:
                logger.warning(
                    "%s has failed %d times in a row: it pauses for %.0f s, and longer if it fails again",
                    self.name,
                    PAUSE_AFTER,
                    pause,
                )

    def _recovered(self) -> None:
        if self._failures >= PAUSE_AFTER:
            logger.warning("%s works again after %d failed calls", self.name, self._failures)
        self._failures, self._pauses = 0, backoff(*PAUSES)
        self._deliverers.unpark_all()
