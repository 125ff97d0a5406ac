"""The clock actor: sleeps until the next moment, claims what is due for free slots, and looks around once a tick."""

from __future__ import annotations

import logging
import math
import time
from contextlib import suppress

import attrs
import trio

from cronactors.actors.actor_requests import ClaimDue, FinishRun, RecomputeAfterSetBack, Registered
from cronactors.actors.async_value import Observable
from cronactors.actors.exits import actor
from cronactors.actors.lease_trust import JUMP
from cronactors.actors.mailbox import EARLY
from cronactors.actors.outcomes import INTERRUPTED
from cronactors.actors.runner import RunnerPool
from cronactors.actors.shift import RunnerSettings
from cronactors.actors.store import Committed
from cronactors.actors.store_lifetime import StoreService
from cronactors.errors import StoreUnavailable, shorten
from cronactors.instants import Millis, from_millis
from cronactors.ledger.claim import BlockedBy, Claims

logger = logging.getLogger("cronactors.clock")

PAGE = 500
"""How many jobs one request computes anew after the clock was set back."""
MOST_CLAIMS = 100
"""How many runs one request begins; with more slots there are more requests."""
LOOK_EVERY = 10.0
"""Seconds after which a tick looks inside the file though nobody seems to have written: a slow disk may show late what was."""
_LONGEST_PAUSE = 1.0
_AGAIN = 0.05  # after a claim that only went past moments that were decided before; while the wall clock is held still


class Clock:
    """Claims and hands out. It never waits for a job.

    Args:
        service: The store.
        pool: Where runs are carried out.
        terms: Owner, slots and limits.
        tick: Seconds between two looks around; infinite on virtual time, where nothing happens unseen.
        registered: The latest sign of life in the file; if it lies ahead the wall clock was set back meanwhile. So it was if the latest
            entry does, but that tells nothing of how long an attempt that waits has to.
    """

    def __init__(
        self, service: StoreService, pool: RunnerPool, terms: RunnerSettings, *, tick: float, registered: Registered
    ) -> None:
        self._service = service
        self._mailbox = service.mailbox
        self._pool = pool
        self._terms = terms
        self._wall = service.wall
        self._tick_interval = tick
        self._early = EARLY if service.virtual is None else 0
        # A latch: what is set while nobody waits is not forgotten. Emptied BEFORE the claim.
        self._set_latch, self._latch = trio.open_memory_channel[None](1)
        self._look_now = False
        self._log = service.watch()
        self._idle = False
        self._look_by = 0.0
        self._commits = 0
        self._waits_for_slot = False
        self._limited = False
        self._cancels_nothing = False
        self._slept_at = 0  # on the system's wall clock (ns)
        self._leaked: set[int] = set()
        self._seen = max(service.wall(), registered.last_seen or 0), trio.current_time()
        self._looked_at = trio.current_time()  # last compared the clocks; `_seen` is of the last tick, so that small steps add up
        self._set_to: Millis | None = None
        self._rebase: RecomputeAfterSetBack | None = None
        if registered.latest_added_at is not None and registered.latest_added_at > service.wall() + JUMP:
            entered_at = from_millis(registered.latest_added_at).isoformat()
            logger.warning("the wall clock was ahead when jobs or runs were entered, at %s", entered_at)
            if self._seen[0] <= service.wall() + JUMP:  # else the first comparison of the clocks finds the same, and how far
                self._rebase = RecomputeAfterSetBack(0, PAGE, terms.owner, by=0, since=service.wall(), earliest=service.wall())
        self.rules = registered.rules
        self.turns = Observable(0)
        self.next_due: Millis | None = 0
        self.next_cancelling: Millis | None = None
        self.last_tick: Millis | None = None
        self.next_wake: Millis | None = None
        self.lag = 0.0

    # Told by others, in the loop

    def committed(self, commit: Committed) -> None:
        """Hear of a commit."""
        self.next_due, self.next_cancelling = commit.next_times
        self._commits += 1
        shared = self._service.virtual is not None and len(self._service.actor.listeners) > 1
        if (
            commit.may_have_ended_runs or shared
        ):  # without ticks, the end of a run in the pool of another scheduler is heard of here alone
            self._pool.in_flight.wake_waiters()
        self._look_now |= commit.may_have_ended_runs
        if (
            commit.may_have_ended_runs
            or self._earlier(self.next_cancelling)
            or (self._pool.free and self._earlier(self.next_due))
        ):
            self.wake()

    def _earlier(self, due: Millis | None) -> bool:
        return due is not None and (self.next_wake is None or due < self.next_wake)

    def wall_set(self) -> None:
        """Hear that a virtual wall clock was set, where no tick would find out."""
        self._set_to = self._wall() if self._set_to is None else min(self._set_to, self._wall())
        self._look_now = True
        self.wake()

    def wake(self) -> None:
        """Look at the queue again: a slot has become free."""
        with suppress(trio.WouldBlock):
            self._set_latch.send_nowait(None)

    # The actor

    @actor
    async def run(self) -> None:
        """Go on until cancelled. A claim that was answered is always handed over."""
        pause = 0.0
        next_tick = trio.current_time()
        while True:
            self._empty_latch()
            try:
                if trio.current_time() >= min(next_tick, self._pool.in_flight.next_report()) or self._look_now:
                    await self._heed_jump(tick=True)
                    await self._tick()
                    next_tick = trio.current_time() + self._tick_interval
                await self._heed_jump()
                more = await self._cancel_overlapped() or await self._claim()
                pause = 0.0
            except StoreUnavailable as error:
                next_tick = -math.inf  # the look is still owed
                pause = min(2 * pause + 0.1, _LONGEST_PAUSE)
                logger.debug("the clock goes on in %.1f s: %s", pause, error)  # the store has told it
                with trio.move_on_after(pause):
                    await self._latch.receive()
                continue
            self.turns.value += 1
            if not more:
                await self._sleep(next_tick)

    def _empty_latch(self) -> None:
        with suppress(trio.WouldBlock):
            self._latch.receive_nowait()

    async def _cancel_overlapped(self) -> bool:
        """Where a moment is to take the place of the job's open run, let that be ended; a look finds it. Needs no free slot."""
        self._cancels_nothing = False
        if self.next_cancelling is None or self.next_cancelling > self._wall():
            return False
        request = ClaimDue(self._terms.owner, 0, None, 0, cancel_overlapped=True)
        claims = await self._mailbox.call(request, self._hand_over)
        self._cancels_nothing = claims.blocked_by is BlockedBy.NO_PROGRESS
        if claims.cancelled_overlapped:
            self._pool.in_flight.wake_waiters()
            self._look_now = True
        return claims.cancelled_overlapped

    async def _claim(self) -> bool:
        """Claim for the free slots; answer whether to try again at once."""
        self._waits_for_slot = False
        due = self.next_due
        if not self._pool.free or due is None or due > self._wall() + self._early:
            return False
        unused = self._pool.reserve()
        try:
            limit = min(unused, MOST_CLAIMS)
            request = ClaimDue(self._terms.owner, limit, self._terms.total, due if self._early else 0)
            claims = await self._mailbox.call(request, self._hand_over)
            unused -= len(claims.runs)
        finally:
            self._pool.give_back(unused)
        # Due and yet not claimed: it must not spin. If the limit over all schedulers is reached, a finish or a tick goes on.
        self._waits_for_slot = not claims.runs and self._overdue()
        self._limited = claims.blocked_by is BlockedBy.TOTAL_LIMIT
        return bool(claims.runs)

    def _overdue(self) -> bool:
        return self.next_due is not None and self.next_due <= self._wall()

    def _hand_over(self, claims: Claims) -> None:
        """Give runs that have begun to runners; by the store itself, so that none waits for a turn of this actor."""
        for each in claims.runs:
            self._pool.hand_over(each)

    async def _sleep(self, next_tick: float) -> None:
        wait = min(next_tick, self._pool.in_flight.next_report()) - trio.current_time()
        if self.next_due is not None and self._pool.free and not self._waits_for_slot:
            wait = min(wait, self._service.seconds_until(self.next_due - self._early))
        elif self._waits_for_slot and not self._limited:
            wait = min(wait, _AGAIN)
        if self._cancels_nothing:
            wait = min(wait, _AGAIN)
            self._empty_latch()  # of its own commit; of another's it hears soon enough
        elif self.next_cancelling is not None:
            wait = min(wait, self._service.seconds_until(self.next_cancelling))
        shown = time.time_ns()
        if shown == self._slept_at and self._service.virtual is None:  # the wall clock is held still: it would spin
            wait = max(wait, _AGAIN)
        self._slept_at = shown
        self.next_wake = None if math.isinf(wait) else self._wall() + max(0, math.ceil(wait * 1000))
        with trio.move_on_after(max(0.0, wait)) as sleep:  # the tick may have passed while a claim was made
            await self._latch.receive()
        self.lag = max(0.0, trio.current_time() - sleep.deadline)

    # The tick

    async def _tick(self) -> None:
        """Look around: what others have changed, runs asked to cancel, runs that do not end, owners that have died.

        Where nothing ran at the last look, and nobody has written since, there is nothing to see.
        """
        unchanged = self._log.unchanged() and self._idle and not self._look_now and not len(self._pool.in_flight)
        if unchanged and trio.current_time() < self._look_by:
            self._service.lease_trust.trusted()  # compares the clocks, as each look does
            self.last_tick = self._wall()
            return
        self._look_now = self._idle = False  # not idle, should the look fail
        heard = self._commits
        sight = await self._service.inspect(self._terms.owner)
        self._idle = sight.idle
        self._look_by = trio.current_time() + LOOK_EVERY
        self.last_tick = self._wall()
        if heard == self._commits:  # else a commit after the look has told better
            self.next_due, self.next_cancelling = sight.next_times
        await self._put_back(self._pool.in_flight.reconcile(sight.running))
        await self._pool.in_flight.report_stuck()
        if sight.orphaned:
            for run in await self._service.recover(self._terms.policy):
                logger.warning("run %s of job %s was interrupted: its process ended", run.id, shorten(run.job_name))

    async def _put_back(self, unheld: list[int]) -> None:
        """Put back runs of ours that no runner holds: the answer to their claim was lost. Seen twice, since it may be on its way."""
        for run_id in self._leaked.intersection(unheld):
            finished = await self._mailbox.call(
                FinishRun(run_id, INTERRUPTED, claim_next=False, terms=self._pool.finish_settings)
            )
            if finished.run is not None:  # else it began after one look and ended during the next
                logger.warning("run %s was claimed and never started: it was put back", run_id)
        self._leaked = set(unheld)

    async def _heed_jump(self, *, tick: bool = False) -> None:
        """Compare wall clock and trio's clock since the last tick; after a jump back next moments are computed anew.

        They are computed from the earliest time to which the clock can have been set, just after the clocks were last compared:
        a moment that has passed since then is in no row yet. What the store claims in between, for a runner that ends a run, takes
        the time of its own transaction, and leaves no moment out.
        """
        now_wall, now_mono = self._wall(), trio.current_time()
        wall, mono = self._seen
        since = now_wall - round((now_mono - mono) * 1000)  # the last tick, in the time that the clock shows now
        earliest = now_wall - round((now_mono - self._looked_at) * 1000) if self._set_to is None else self._set_to
        drift = since - wall
        self._looked_at, self._set_to = now_mono, None
        if tick or abs(drift) > JUMP:
            self._seen = now_wall, now_mono
        if abs(drift) > JUMP:
            logger.warning("the wall clock was set by %+.1f s, to %s", drift / 1000, from_millis(now_wall).isoformat())
        if drift < -JUMP:
            self._rebase = self._rebase_from(
                RecomputeAfterSetBack(0, PAGE, self._terms.owner, by=-drift, since=since - JUMP, earliest=earliest)
            )
        while self._rebase is not None:  # page by page, so that the store serves others in between
            page = await self._mailbox.call(self._rebase)
            self._rebase = None if page is None else attrs.evolve(self._rebase, after=page)

    def _rebase_from(self, new: RecomputeAfterSetBack) -> RecomputeAfterSetBack:
        """Carry over what was not done of the last one, as the store had failed: its times are shown earlier by the new jump."""
        old = self._rebase
        if old is None:
            return new
        by = new.by + (old.by if old.after == 0 else 0)
        return attrs.evolve(
            new, by=by, since=min(new.since, old.since - new.by), earliest=min(new.earliest, old.earliest - new.by)
        )
