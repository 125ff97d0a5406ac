"""The clock actor: sleeps until the next moment is due and a slot is free, and claims due runs."""

from __future__ import annotations

import logging
import math
import time

import attrs
import trio

from cronactors.actors.actor_requests import ClaimDue, DecideAndClaim
from cronactors.actors.async_value import AsyncValue, compose
from cronactors.actors.exits import actor
from cronactors.actors.mailbox import EARLY, RETRY_PAUSES
from cronactors.actors.pool import RunnerPool
from cronactors.actors.store import Committed
from cronactors.actors.store_lifetime import StoreService
from cronactors.actors.wall_clock_watch import WallClockWatch
from cronactors.backoff import backoff
from cronactors.errors import StoreUnavailable
from cronactors.instants import Millis
from cronactors.ledger.claim import BlockedBy, Claims
from cronactors.storage.rows import NextTimes

logger = logging.getLogger("cronactors.clock")

MOST_CLAIMS = 100
"""How many runs one request claims at most; with more free slots there are more requests."""
_NOTHING = Claims([])
_AGAIN = 0.05  # (s) after a claim without progress, and while the wall clock is held still


@attrs.frozen(eq=False)
class Queue:
    """The queue as the last commit, or the last snapshot, showed it. A new object each time, so that every commit can wake the clock.

    Attributes:
        due: When the next run is due; None: none is.
        slotless: When the next decision is to be made that needs no free slot, see `NextTimes`; None: none is.
    """

    due: Millis | None
    slotless: Millis | None


class Clock:
    """Claims due runs and hands them to the pool. It never waits for a run.

    Before it sleeps it has claimed all that it could, so one sleep ends when time passes (a moment is due, or the tick comes, at
    which the wall clock is compared with trio's) or when something changes: a commit brings an earlier moment, or a slot is
    released. Changes are values, not events, so one that comes before the sleep is not missed.

    Args:
        service: The store.
        pool: Executes the runs.
        watch: Notices that the wall clock was set.
        tick: How often (s) the wall clock is compared at least; infinite on virtual time, where setting it wakes us.

    Attributes:
        queue: What is due next.
        next_wake: When it means to wake, None while nothing is planned.
        lag: How much later (s) than planned it woke the last time.
        wakes: How often it has checked for due runs.
    """

    def __init__(self, service: StoreService, pool: RunnerPool, watch: WallClockWatch, *, tick: float) -> None:
        self._service = service
        self._pool = pool
        self._watch = watch
        self._tick_interval = tick
        self._wall = service.wall
        self._early = EARLY if service.virtual is None else 0
        self._blocked_by: BlockedBy | None = None  # the reply to the last claim
        self._slept_at = 0  # (ns) on the system's wall clock: if it does not change, the clock is held still
        self.queue = AsyncValue(Queue(due=0, slotless=None))  # due now, until the first commit or snapshot shows more
        self.next_wake: Millis | None = None
        self.lag = 0.0
        self.wakes = 0

    # Called by others, in the loop

    def committed(self, commit: Committed) -> None:
        """Note the queue after a commit. A commit of claims alone frees nothing, and must not make two clocks wake each other."""
        if commit.only_claims:
            self.update_queue(commit.next_times)
        else:
            self.queue.value = Queue(*commit.next_times)

    def update_queue(self, next_times: NextTimes) -> None:
        """Note the next times. Without a difference they wake nothing."""
        if next_times != (self.queue.value.due, self.queue.value.slotless):
            self.queue.value = Queue(*next_times)

    def virtual_clock_was_set(self) -> None:
        """Compare the clocks at once."""
        self._watch.virtual_clock_was_set()
        self.queue.value = attrs.evolve(self.queue.value)

    # The actor

    @actor
    async def run(self) -> None:
        """Claim until cancelled. Runs that were claimed are always handed over."""
        pauses = backoff(*RETRY_PAUSES)
        next_tick = trio.current_time()
        with compose(self.queue, self._pool.slots.free) as changes:
            while True:
                self.wakes += 1
                try:
                    is_tick = trio.current_time() >= next_tick
                    await self._watch.compare(tick=is_tick)
                    if is_tick:
                        next_tick = trio.current_time() + self._tick_interval
                    free = self._pool.slots.free.value
                    claims = await self._claim()
                    pauses = backoff(*RETRY_PAUSES)
                except StoreUnavailable as error:  # which the store has logged
                    pause = next(pauses)
                    logger.debug("claiming again in %.1f s: %s", pause, error)
                    await trio.sleep(pause)
                    continue
                self._blocked_by = claims.blocked_by
                if self._blocked_by is not None or not (claims.runs or claims.decided_slotless):
                    await self._sleep(changes, next_tick, free=free - len(claims.runs))

    async def _claim(self) -> Claims:
        """Claim for the free slots if something is due. Also decide what needs no slot, if something is due of that."""
        queue, now = self.queue.value, self._wall()
        may_claim = queue.due is not None and queue.due <= now + self._early and self._pool.may_claim()
        must_decide = queue.slotless is not None and queue.slotless <= now
        slots = self._pool.slots.take(MOST_CLAIMS) if may_claim else 0
        if not slots and not must_decide:
            return _NOTHING
        settings = self._pool.settings
        not_before = queue.due if self._early and slots and queue.due is not None else 0
        kind = DecideAndClaim if must_decide else ClaimDue
        try:
            claims = await self._service.mailbox.call(kind(settings.owner, slots, settings.total, not_before))
            for claimed in claims.runs:  # no checkpoint since the reply, so that a cancellation leaves none out
                self._pool.hand_over(claimed)
            slots -= len(claims.runs)
        finally:
            self._pool.slots.release(slots)
        return claims

    async def _sleep(self, changes: AsyncValue[tuple[Queue, int]], next_tick: float, *, free: int) -> None:
        """Sleep until the next moment or tick, or until something changes that lets us claim earlier.

        A moment that is due, but that the last claim could not start, does not end the sleep: only a change can help.

        Args:
            changes: Queue and free slots.
            next_tick: When to wake at the latest, on trio's clock.
            free: How many slots are free if none has been released since the claim began.
        """
        queue_before = self.queue.value
        wait = min(next_tick - trio.current_time(), self._until_due())
        shown = time.time_ns()
        if shown == self._slept_at and self._service.virtual is None:  # it would spin
            wait = max(wait, _AGAIN)
        self._slept_at = shown
        self.next_wake = planned = None if math.isinf(wait) else self._wall() + max(0, math.ceil(wait * 1000))

        def can_claim_earlier(state: tuple[Queue, int]) -> bool:
            queue, free_now = state
            if self._watch.must_compare:
                return True
            if queue is queue_before and free_now <= free:
                return False
            if self._blocked_by is not None:
                return True
            return (free_now > 0 and _is_earlier(queue.due, planned)) or _is_earlier(queue.slotless, planned)

        with trio.move_on_after(max(0.0, wait)) as sleep:  # the tick may have passed during the claim
            await changes.wait_value(can_claim_earlier)
        self.lag = max(0.0, trio.current_time() - sleep.deadline)

    def _until_due(self) -> float:
        """How long (s) until there is something to claim or to decide."""
        if self._blocked_by is BlockedBy.NO_PROGRESS:
            return _AGAIN
        queue, wait = self.queue.value, math.inf
        # Due runs that exceed the total wait for a finish, here or elsewhere, or for the tick; later ones do not.
        is_due = queue.due is not None and queue.due <= self._wall() + self._early
        exceeds_total = self._blocked_by is BlockedBy.TOTAL_LIMIT and is_due
        if queue.due is not None and not exceeds_total and self._pool.slots.free.value and self._pool.may_claim():
            wait = self._service.seconds_until(queue.due - self._early)
        if queue.slotless is not None:
            wait = min(wait, self._service.seconds_until(queue.slotless))
        return wait


def _is_earlier(due: Millis | None, planned: Millis | None) -> bool:
    return due is not None and (planned is None or due < planned)
