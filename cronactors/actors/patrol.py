"""The patrol actor: once a tick, compares this scheduler with the store, and deals with runs that were cancelled, are stuck or orphaned."""

from __future__ import annotations

import logging
import math

import trio

from cronactors import log_fields
from cronactors.actors.actor_requests import FinishRun, Revive
from cronactors.actors.async_value import AsyncValue, compose
from cronactors.actors.clock import Clock
from cronactors.actors.exits import actor
from cronactors.actors.mailbox import RETRY_PAUSES
from cronactors.actors.outcomes import INTERRUPTED
from cronactors.actors.pool import RunnerPool
from cronactors.actors.receivers import Receivers
from cronactors.actors.store import Committed
from cronactors.actors.store_lifetime import StoreService
from cronactors.backoff import backoff
from cronactors.errors import StoreUnavailable, shorten
from cronactors.instants import Millis

logger = logging.getLogger("cronactors.clock")

DEAF_TICK = 0.25
"""How often (s) the store is inspected at least where no notices of other processes can be heard."""
INSPECT_EVERY = 10.0
"""How long (s) a tick may trust an unchanged log file: a slow disk may show a write late."""


class Patrol:
    """Finds what no commit of this process shows: other processes' changes, requests to cancel, dead owners, stuck runs.

    Where nothing was running at the last inspection, and the log file was not written to since, a tick costs three calls of
    `os.stat` and no request: an idle process uses less than 0.1 % of a CPU.

    Args:
        service: The store.
        pool: Whose runs are compared with the store.
        clock: Is shown what is due next.
        receivers: Deliver the notifications of dead owners.
        tick: How often (s) it wakes; infinite on virtual time, where nothing happens outside of this process.

    Attributes:
        last_tick: When it last inspected the store, or found it unchanged.
    """

    def __init__(self, service: StoreService, pool: RunnerPool, clock: Clock, receivers: Receivers, *, tick: float) -> None:
        self._service = service
        self._pool = pool
        self._clock = clock
        self._receivers = receivers
        self._usual_tick = self._tick_interval = tick
        self._log = service.watch()
        self._nothing_ran = False
        self._inspect_by = 0.0
        self._without_runner: set[int] = set()
        self._requests = AsyncValue(1)  # how often an inspection was requested
        self._served = 0  # how many of these requests the last inspection served
        self.last_tick: Millis | None = None

    # Called by others, in the loop

    def committed(self, commit: Committed) -> None:
        """Inspect after a commit that may have finished runs, or requested their cancellation."""
        shared = self._service.virtual is not None and len(self._service.owners) > 1
        if commit.may_have_finished_runs or shared:  # on virtual time, no tick shows a run that another scheduler finished
            self._pool.in_flight.wake_waiters()
        if commit.may_have_finished_runs or commit.woken:
            self.request()

    def request(self) -> None:
        """Inspect at once."""
        self._requests.value += 1

    def note_deafness(self, is_deaf: bool) -> None:
        """Inspect several times a second while nothing else shows what other processes do."""
        self._tick_interval = min(self._usual_tick, DEAF_TICK) if is_deaf else self._usual_tick
        self.request()

    # The actor

    @actor
    async def run(self) -> None:
        """Patrol until cancelled."""
        pauses = backoff(*RETRY_PAUSES)
        with compose(self._requests, self._pool.in_flight.first_report) as changes:
            while True:
                try:
                    await self._tick()
                    pauses = backoff(*RETRY_PAUSES)
                except StoreUnavailable as error:  # which the store has logged
                    pause = next(pauses)
                    logger.debug("inspecting again in %.1f s: %s", pause, error)
                    await trio.sleep(pause)
                    continue
                await self._sleep(changes, trio.current_time() + self._tick_interval)

    async def _sleep(self, changes: AsyncValue[tuple[int, float]], next_tick: float) -> None:
        """Sleep until the next tick, until a run may be stuck, or until an inspection is requested."""
        until = math.inf

        def is_early(state: tuple[int, float]) -> bool:
            requests, first_report = state
            return requests != self._served or first_report < until

        while self._requests.value == self._served and trio.current_time() < until:
            until = min(next_tick, self._pool.in_flight.first_report.value)
            with trio.move_on_at(until):
                await changes.wait_value(is_early)

    async def _tick(self) -> None:
        """Inspect the store, unless nothing can have changed."""
        unchanged = (
            self._log.unchanged() and self._nothing_ran and self._requests.value == self._served and not self._pool.in_flight
        )
        if unchanged and trio.current_time() < self._inspect_by:
            self._service.lease_trust.trusted()  # compares the clocks, as each inspection does
            self.last_tick = self._service.wall()
            return
        requests, queue = self._requests.value, self._clock.queue.value
        self._nothing_ran = False  # should the inspection fail
        snapshot = await self._service.inspect(self._pool.settings.owner)
        self._receivers.pending = snapshot.pending
        self._served = requests
        self._nothing_ran = snapshot.idle
        self._inspect_by = trio.current_time() + INSPECT_EVERY
        self.last_tick = self._service.wall()
        if self._clock.queue.value is queue:  # else a later commit has shown the queue better
            self._clock.update_queue(snapshot.next_times)
        if snapshot.declared_dead:
            await self._revive()
        await self._put_back(self._pool.in_flight.reconcile(snapshot.running))
        await self._pool.in_flight.report_stuck()
        if snapshot.orphaned:
            for run in await self._service.recover(self._pool.settings.policy):
                name = shorten(run.job_name)
                logger.warning("run %s of job %s was interrupted: its process ended", run.id, name, extra=log_fields.of_run(run))
        if not snapshot.orphaned_receivers.isdisjoint(self._receivers.names):
            await self._take_over()

    async def _revive(self) -> None:
        """Cancel all runs, since another scheduler has taken them over, and only then let this one start runs again."""
        logger.warning(
            "this scheduler gave no heartbeat for as long as its lease: its runs were taken over, and are cancelled here"
        )
        self._pool.in_flight.cancel_all()
        await self._service.mailbox.call(Revive(self._pool.settings.owner, self._service.process, self._receivers.names))

    async def _take_over(self) -> None:
        """Take over notifications that no living owner delivers, in pieces."""
        while taken := await self._service.take_over(self._pool.settings.owner, self._receivers.names):
            self._receivers.taken_over(taken)

    async def _put_back(self, without_runner: list[int]) -> None:
        """Put back runs of this scheduler that no runner has, since the reply to their claim was lost. Only if two inspections show them so."""
        for run_id in self._without_runner.intersection(without_runner):
            finish = FinishRun(run_id, INTERRUPTED, claim_next=False, settings=self._pool.finisher.settings)
            finished = await self._service.mailbox.call(finish)
            if finished.run is not None:  # else it started after one inspection and finished before the next
                logger.warning(
                    "run %s was claimed and never started: it was put back", run_id, extra=log_fields.of_run_id(run_id)
                )
        self._without_runner = set(without_runner)
