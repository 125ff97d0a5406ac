"""The scheduler that users hold: `open_scheduler` (in `cronactors.supervision`) makes a `CronScheduler`."""

from __future__ import annotations

import logging
from datetime import datetime
from typing import TYPE_CHECKING, Never, final

import attrs
import trio

from cronactors.actors.async_value import AsyncValue, compose
from cronactors.actors.clock import Clock, Queue
from cronactors.actors.patrol import Patrol
from cronactors.actors.pool import RunnerPool
from cronactors.actors.pruner import Pruner
from cronactors.actors.receivers import Receivers
from cronactors.actors.store_lifetime import StoreService
from cronactors.actors.user_code import inside_user_code
from cronactors.checks import flag, whole
from cronactors.errors import InvalidJob, SchedulerClosed, WouldDeadlock, shorten
from cronactors.health import Health
from cronactors.instants import from_millis
from cronactors.job_data import FROM_JOB, FromJob
from cronactors.json_value import JsonInput
from cronactors.ledger.zone_changes import RulesOfStore
from cronactors.model import CronRun, Explanation
from cronactors.origins import StartReport
from cronactors.store import CronStore

if TYPE_CHECKING:
    from cronactors.actors.event_stream import EventStream

logger = logging.getLogger("cronactors.scheduler")

_CHECK_EVERY = 1.0  # (s) how a task that waits for a run learns that another process has finished it


@attrs.frozen(kw_only=True)
class Actors:
    """The actors of a scheduler, and what they share."""

    service: StoreService
    receivers: Receivers
    pool: RunnerPool
    clock: Clock
    patrol: Patrol
    pruner: Pruner
    rules: RulesOfStore


@final
class CronScheduler:
    """A running scheduler. Made by `open_scheduler`.

    Attributes:
        store: Jobs and history; usable until the block ends.
        recovered: The runs that a crash had interrupted and that were put back when this scheduler started.
    """

    store: CronStore
    recovered: tuple[CronRun, ...]
    _start_report: StartReport
    _actors: Actors
    _closed: AsyncValue[bool]
    _streams: set[EventStream]

    def __init__(self, *_args: Never, **_kwargs: Never) -> None:
        raise TypeError("CronScheduler has no public constructor: use open_scheduler")

    @classmethod
    def _create(
        cls, store: CronStore, recovered: tuple[CronRun, ...], start_report: StartReport, actors: Actors
    ) -> CronScheduler:
        self = object.__new__(cls)
        self.store = store
        self.recovered = recovered
        self._start_report = start_report
        self._actors = actors
        self._closed = AsyncValue(value=False)
        self._streams = set()
        return self

    async def run_now(
        self, job_id: str, *, data: JsonInput | FromJob = FROM_JOB, key: str | None = None, wait: bool = True
    ) -> CronRun:
        """Run a job now, paused or not, and return its run. The job's next moment is unchanged.

        Args:
            job_id: The job.
            data: See `CronStore.request_run`.
            key: See `CronStore.request_run`. If a run was requested with this key before, the last attempt of that run is returned.
            wait: Whether to wait until this attempt has ended. Cancelling the waiting task leaves the run alone.

        Raises:
            JobNotFound: There is none of that id.
            JobBusy: The job has an open run and skips moments that overlap.
            InvalidJob: An argument has a wrong type or value, or the key was used with other data.
            WouldDeadlock: Called with ``wait=True`` inside a run or a receiver, which would hold the slot that the run may need.
            SchedulerClosed: The scheduler's block has ended.
        """
        self._check_open()
        if flag("wait", wait, InvalidJob):
            _refuse_inside(f"run_now of job {shorten(job_id)}", "needs wait=False")
        run_id = await self.store.request_run(job_id, data=data, key=key)
        return await self._wait_for(run_id) if wait else await self.store.get_run(run_id)

    async def cancel_run(self, run_id: str) -> CronRun:
        """Cancel a run, of this scheduler or of another on the same file, and wait until it has ended.

        Raises:
            RunNotFound: There is none of that id.
            RunClosed: It has ended.
            SchedulerClosed: The scheduler's block has ended.
        """
        self._check_open()
        run = await self.store.request_cancel(run_id)
        return run if run.status.ended else await self._wait_for(run_id)

    async def _wait_for(self, run_id: str) -> CronRun:
        """Wait until a run has ended, and return it."""
        timeout = _CHECK_EVERY
        while True:
            with self._actors.pool.in_flight.waiting_for(int(run_id)) as may_have_ended:
                run = await self.store.get_run(run_id)
                if run.status.ended:
                    return run
                self._check_open()
                with trio.move_on_after(timeout):
                    await may_have_ended.wait()
                if self._actors.service.virtual is not None:
                    timeout *= 2  # a long time passes in few steps

    async def explain(self, job_id: str, at: datetime) -> Explanation:
        """Explain the moment ``at`` of a job; see `CronStore.explain`.

        Raises:
            InvalidJob: ``at`` is no aware datetime.
            JobNotFound: There is none of that id.
            InvalidSchedule: The stored schedule cannot be read.
            SchedulerClosed: The scheduler's block has ended.
        """
        self._check_open()
        return await self.store.explain(job_id, at)

    def events(self, *, capacity: int = 1_000) -> EventStream:
        """Return a stream of the commits of this scheduler's store from now on: jobs, runs, skipped moments and failures.

        Use it as ``async with scheduler.events() as stream``, then ``async for event in stream``. Commits of other processes are not
        in it. It ends when the scheduler closes.

        Args:
            capacity: How many events it holds until they are read, 1 to 1,000,000. When it is full the oldest are dropped, and the
                reader gets an `EventsLost` in their place.

        Raises:
            InvalidJob: ``capacity`` has a wrong type or value.
            SchedulerClosed: The scheduler's block has ended.
        """
        from cronactors.actors.event_stream import MOST_EVENTS, EventStream  # noqa: PLC0415 - imported when it is used

        self._check_open()
        whole("capacity", capacity, InvalidJob, least=1, most=MOST_EVENTS)
        return EventStream(self._actors.service.actor, self._streams, self._check_open, capacity=capacity)

    async def wait_idle(self) -> None:
        """Wait until nothing is due, no run is running in this scheduler, and no receiver can be called now.

        Notifications that wait for a retry are not waited for.

        Raises:
            WouldDeadlock: Called inside a run or a receiver, which would wait for itself.
            SchedulerClosed: The scheduler's block has ended.
        """
        _refuse_inside("wait_idle", "would wait for itself")
        actors = self._actors

        def is_idle(state: tuple[bool, int, Queue, bool]) -> bool:
            notified, free, queue, closed = state
            is_due = queue.due is not None and queue.due <= actors.service.wall()
            return closed or (notified and free == actors.pool.slots.count and not is_due)

        with compose(actors.receivers.is_idle, actors.pool.slots.free, actors.clock.queue, self._closed) as state:
            await state.wait_value(is_idle)
        self._check_open()

    def health(self) -> Health:
        """Return how the scheduler is doing; never waits."""
        actors = self._actors
        return Health(
            last_tick=None if actors.patrol.last_tick is None else from_millis(actors.patrol.last_tick),
            next_wake=None if actors.clock.next_wake is None else from_millis(actors.clock.next_wake),
            clock_lag=actors.clock.lag,
            runs_in_flight=len(actors.pool.in_flight),
            free_slots=actors.pool.slots.free.value,
            store_queue=actors.service.mailbox.waiting + actors.service.actor.postponed,
            store_latency=actors.service.actor.latency,
            last_store_error=actors.service.actor.last_error,
            notifications_pending=actors.receivers.pending,
        )

    def _check_open(self) -> None:
        if self._closed.value:
            raise SchedulerClosed("the scheduler's block has ended")

    def _close(self) -> None:
        self._closed.value = True
        self._actors.pool.in_flight.wake_waiters()
        for stream in self._streams.copy():
            stream.close()


def _refuse_inside(method: str, reason: str) -> None:
    inside = inside_user_code.get()
    if inside is not None:
        raise WouldDeadlock(f"{method} inside {inside} {reason}")
