"""The scheduler: opens the store, starts the actors in order, and ends them in the opposite order."""

from __future__ import annotations

import logging
import math
from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Iterator
from contextlib import asynccontextmanager, contextmanager
from datetime import datetime

import attrs
import trio

from cronactors.actors.clock import Clock
from cronactors.actors.exits import BlockExit, actor, guarded_contextmanager
from cronactors.actors.notifier import Notifier
from cronactors.actors.recompute import recompute_moments
from cronactors.actors.runner import RunnerPool
from cronactors.actors.shift import RunnerSettings
from cronactors.actors.store_lifetime import StoreService, StrPath, check_path, store_service
from cronactors.actors.user_code import inside_callback
from cronactors.actors.user_requests import Explain
from cronactors.checks import flag, number
from cronactors.errors import InvalidConfig, InvalidJob, SchedulerClosed, WouldDeadlock, shorten
from cronactors.instants import from_millis
from cronactors.model import CronRun, Explanation, JobExecutor, NotificationSender, RunObserver
from cronactors.origins import StartReport, upsert_at_start
from cronactors.spec import MAX_TIMEOUT, CronConfig, JobSpec, check_id, check_instant, check_settings, check_specs
from cronactors.store import CronStore

logger = logging.getLogger("cronactors.scheduler")

_LOOK_AGAIN = 1.0  # seconds; how a waiter learns of a run that another process ended


@attrs.frozen(kw_only=True)
class Health:
    """How a scheduler is doing.

    Attributes:
        last_tick: When the clock last looked around, or saw that nobody had written, UTC.
        next_wake: When it means to wake next, UTC; None: nothing is planned.
        clock_lag: Seconds by which it woke later than it meant to, the last time: the loop was busy or blocked.
        runs_in_flight: How many runs go on in this scheduler.
        free_slots: How many more could.
        store_queue: How many requests wait for the store.
        store_latency: Seconds that the store took for its last transaction, commit and the wait for a moment included; None before the
            first.
        last_store_error: What the store failed with last; None once it works again.
        notifier_queue: How many ended runs somebody is still to be told of.
    """

    last_tick: datetime | None
    next_wake: datetime | None
    clock_lag: float
    runs_in_flight: int
    free_slots: int
    store_queue: int
    store_latency: float | None
    last_store_error: str | None
    notifier_queue: int


class CronScheduler:
    """A running scheduler. Made by `open_scheduler`.

    Attributes:
        store: Jobs and history; usable until the block ends.
        recovered: The runs that had been interrupted by a crash and were found when this scheduler started.
    """

    def __init__(
        self,
        store: CronStore,
        recovered: tuple[CronRun, ...],
        start_report: StartReport,
        *,
        service: StoreService,
        pool: RunnerPool,
        clock: Clock,
        notifier: Notifier,
    ) -> None:
        self.store = store
        self.recovered = recovered
        self._start_report = start_report
        self._service = service
        self._pool = pool
        self._clock = clock
        self._notifier = notifier
        self._closed = False

    async def run_now(self, job_id: str, *, wait: bool = True) -> CronRun:
        """Run a job now, paused or not, and answer its run. The job's next moment stays.

        Args:
            job_id: The job.
            wait: Whether to wait for the end of this attempt. Cancelling the waiter leaves the run alone.

        Raises:
            JobNotFound: There is none of that id.
            JobBusy: The job has an open run and skips what overlaps.
            WouldDeadlock: Called with ``wait=True`` inside a run or a notifier, which would hold the slot that the run may need.
            SchedulerClosed: The scheduler's block has ended.
        """
        self._check_open()
        if flag("wait", wait, InvalidJob):
            _refuse_inside(f"run_now of job {shorten(job_id)}", "must be asked for with wait=False")
        run_id = await self.store.request_run(job_id)
        return await self._ended(run_id) if wait else await self.store.get_run(run_id)

    async def cancel_run(self, run_id: str) -> CronRun:
        """Cancel a run, of this scheduler or of another on the same file, and wait for its end.

        Raises:
            RunNotFound: There is none of that id.
            RunClosed: It has ended.
            SchedulerClosed: The scheduler's block has ended.
        """
        self._check_open()
        run = await self.store.request_cancel(run_id)
        return run if run.status.ended else await self._ended(run_id)

    async def _ended(self, run_id: str) -> CronRun:
        wait = _LOOK_AGAIN
        while True:
            with self._pool.in_flight.waiting_for(int(run_id)) as may_have_ended:
                run = await self.store.get_run(run_id)
                if run.status.ended:
                    return run
                self._check_open()
                with trio.move_on_after(wait):
                    await may_have_ended.wait()
                if self._service.virtual is not None:
                    wait *= 2  # a long time passes in few steps

    async def explain(self, job_id: str, at: datetime) -> Explanation:
        """Tell what became of the moment ``at`` of a job, or what will; of an instant between moments, which are the nearest.

        Args:
            job_id: The job.
            at: An aware datetime.

        Raises:
            InvalidJob: ``at`` is no aware datetime.
            JobNotFound: There is none of that id.
            InvalidSchedule: The stored schedule cannot be read.
        """
        self._check_open()
        return await self._service.mailbox.call(Explain(check_id("job_id", job_id), check_instant("at", at)))

    async def wait_idle(self) -> None:
        """Wait until nothing is due, no run goes on in this scheduler, and everybody has been notified.

        Raises:
            WouldDeadlock: Called inside a run or a notifier, which would wait for itself.
            SchedulerClosed: The scheduler's block has ended.
        """
        _refuse_inside("wait_idle", "would wait for itself")
        while True:
            self._check_open()
            with trio.move_on_after(_LOOK_AGAIN):
                await self._notifier.under_way.wait_for(lambda count: count == 0)
                await self._pool.busy.wait_for(lambda busy: busy == 0)
                due = self._clock.next_due
                if (due is None or due > self._service.wall()) and not self._notifier.under_way.value:
                    return
                await self._clock.turns.wait_change()

    def health(self) -> Health:
        """How the scheduler is doing; never waits."""
        return Health(
            last_tick=None if self._clock.last_tick is None else from_millis(self._clock.last_tick),
            next_wake=None if self._clock.next_wake is None else from_millis(self._clock.next_wake),
            clock_lag=self._clock.lag,
            runs_in_flight=len(self._pool.in_flight),
            free_slots=self._pool.free,
            store_queue=self._service.mailbox.waiting + self._service.actor.postponed,
            store_latency=self._service.actor.latency,
            last_store_error=self._service.actor.last_error,
            notifier_queue=self._notifier.under_way.value,
        )

    def _check_open(self) -> None:
        if self._closed:
            raise SchedulerClosed("the scheduler's block has ended")

    def _close(self) -> None:
        self._closed = True
        self._pool.in_flight.wake_waiters()


def _refuse_inside(what: str, why: str) -> None:
    inside = inside_callback.get()
    if inside is not None:
        raise WouldDeadlock(f"{what} inside {inside} {why}")


def _checked(
    executor: object, notifier: object, on_finish: object, tick_interval: object, shutdown_grace: object
) -> tuple[float, float | None]:
    for field, function in (("executor", executor), ("notifier", notifier), ("on_finish", on_finish)):
        if not callable(function) and not (function is None and field != "executor"):
            raise InvalidConfig(f"{field} must be an async function, not {shorten(function)}")
    return (
        number("tick_interval", tick_interval, InvalidConfig, least=0.01, most=3600),
        None if shutdown_grace is None else number("shutdown_grace", shutdown_grace, InvalidConfig, least=0, most=MAX_TIMEOUT),
    )


@guarded_contextmanager
async def open_scheduler(
    store: StrPath | CronStore,
    executor: JobExecutor,
    *,
    timezone: str | None = None,
    notifier: NotificationSender | None = None,
    on_finish: RunObserver | None = None,
    jobs: Iterable[JobSpec] = (),
    config: CronConfig | None = None,
    tick_interval: float = 1.0,
    shutdown_grace: float | None = None,
) -> AsyncGenerator[CronScheduler]:
    """Run a scheduler beside the block.

    Runs that a crash interrupted are taken back before the first new one starts. When the block ends, normally or by an exception of
    its own, no more runs begin and those that go on get ``shutdown_grace``; then they are cancelled, recorded as interrupted and put
    back, at no cost of a retry. Cancelled from outside, or by a second Ctrl-C, there is no grace. An exception of the block leaves as
    itself.

    Args:
        store: The file, created if it is missing; or a `CronStore`, which stays open.
        executor: Carries out each run.
        timezone: IANA name of the zone of jobs that name none; None: that of ``config``.
        notifier: Told of each finished run, after its record is durable.
        on_finish: Told the records of each finished run.
        jobs: Upserted first. A one-shot whose time has passed is entered as done, with a warning in the log.
        config: Settings; its own ``jobs`` are upserted too, under its ``origin``. Jobs of both lists change together or not at all.
        tick_interval: Seconds between two looks for what other processes changed, 0.01 to 3,600. It also bounds how late the
            scheduler reacts after the machine was suspended or its clock was set: timers do not count the time asleep.
        shutdown_grace: Seconds that runs have to end by themselves when the block ends; None: those of ``config``.

    Raises:
        InvalidConfig: An argument is wrong.
        InvalidJob: A job to be upserted is wrong.
        InvalidSchedule: The schedule of a job to be upserted never fires, or names a local time that does not exist.
        DuplicateJob: Two jobs to be upserted have one name.
        SchedulerClosed: The `CronStore` has been closed.
        CronError: There is no trio, or an autojumping clock drives it.
        StoreUnavailable: The file cannot be opened.
        StoreCorrupt: The file is damaged, of another application or of a newer version; it has not been touched.
        SchedulerCrashed: An actor ended by a bug, which is the ``__cause__``.
    """
    tick, given_grace = _checked(executor, notifier, on_finish, tick_interval, shutdown_grace)
    specs = check_specs("jobs", jobs)
    block_exit = BlockExit()
    with block_exit:
        async with _opened(store, config, timezone) as (service, handle, settings):
            grace = settings.shutdown_grace if given_grace is None else given_grace
            teller = Notifier(notifier, on_finish, block_exit.escape)
            scheduler = await _prepare(
                service, handle, settings, specs=specs, executor=executor, notifier=teller, block_exit=block_exit, tick=tick
            )
            with _heard(service, scheduler._clock):
                async with trio.open_nursery() as workers:
                    workers.start_soon(scheduler._notifier.run)
                    scheduler._pool.start(workers)
                    try:
                        async with trio.open_nursery() as clockwork:
                            clockwork.start_soon(scheduler._clock.run)
                            clockwork.start_soon(recompute_moments, service.mailbox, scheduler._clock.rules)
                            with block_exit.body:
                                yield scheduler
                            scheduler._pool.stop(0 if block_exit.body.cancelled else grace)
                            clockwork.cancel_scope.cancel()
                            await service.mark_stopping(_stopping(scheduler, own_store=not isinstance(store, CronStore)))
                    finally:
                        await _shut_down(scheduler, grace, hurried=block_exit.body.cancelled)
    block_exit.raise_errors()


def _stopping(scheduler: CronScheduler, *, own_store: bool) -> set[int]:
    """Who is to be marked as stopping: the scheduler if runs are in flight, and loops of the user's own on a store that ends with it."""
    mine = scheduler._pool.owner
    owners = scheduler._service.owners - {mine} if own_store else set()
    return owners | {mine} if scheduler._pool.busy.value else owners


@contextmanager
def _heard(service: StoreService, clock: Clock) -> Iterator[None]:
    """Let the clock actor hear of commits, and of a virtual wall clock being set."""
    listeners = service.actor.listeners
    listeners.append(clock.committed)
    if service.virtual is not None:
        service.virtual.set_listeners.append(clock.wall_set)
    try:
        yield
    finally:
        listeners.remove(clock.committed)
        if service.virtual is not None:
            service.virtual.set_listeners.remove(clock.wall_set)


@asynccontextmanager
async def _opened(
    store: StrPath | CronStore, config: CronConfig | None, timezone: str | None
) -> AsyncIterator[tuple[StoreService, CronStore, CronConfig]]:
    """The service of a file or of an open store, a handle of it, and the settings; an open store keeps its own, unless others are given."""
    if isinstance(store, CronStore):
        settings = check_settings(store._config if config is None else config, timezone)
        own = config is None and timezone is None
        yield store._service, store if own else CronStore(store._service, config=settings, timezone=timezone), settings
    else:
        settings = check_settings(config, timezone)
        async with store_service(check_path(store), create=True) as service:
            yield service, CronStore(service, config=settings, timezone=timezone), settings


@actor
async def _prepare(
    service: StoreService,
    handle: CronStore,
    config: CronConfig,
    *,
    specs: tuple[JobSpec, ...],
    executor: JobExecutor,
    notifier: Notifier,
    block_exit: BlockExit,
    tick: float,
) -> CronScheduler:
    """Register, take back what was interrupted, upsert the jobs, and put the actors together; none runs yet."""
    recovered = await service.recover(config.retry)
    start_report = await upsert_at_start(service.mailbox, config, specs, defaults=handle._defaults, database=service.path)
    registered = await service.register()
    terms = RunnerSettings(
        owner=registered.owner,
        executor=executor,
        policy=config.retry,
        slots=config.max_concurrent_runs,
        total=config.max_concurrent_runs_total,
        cancel_grace=config.cancel_grace,
    )
    pool = RunnerPool(service.mailbox, notifier, terms, freed=lambda: clock.wake(), escape=block_exit.escape)
    clock = Clock(service, pool, terms, tick=tick if service.virtual is None else math.inf, registered=registered)
    return CronScheduler(handle, tuple(recovered), start_report, service=service, pool=pool, clock=clock, notifier=notifier)


@actor
async def _shut_down(scheduler: CronScheduler, grace: float, *, hurried: bool) -> None:
    """Let runs end by themselves for ``grace`` seconds, then cancel them; record every end, notify, and close: see `StopDeadline`.

    Cancelled, or by a KeyboardInterrupt, the grace ends, and so does the notifying; only the ends of runs are shielded. Hurried, there
    is neither.
    """
    pool, notifier = scheduler._pool, scheduler._notifier
    deadline = pool.stop(grace)
    try:
        try:
            if not hurried:
                if pool.busy.value:
                    logger.info("closing; runs in flight: %d, with %.0f s to end by themselves", pool.busy.value, grace)
                with trio.move_on_at(deadline.grace_ends):
                    await pool.settled()
        finally:
            with trio.CancelScope(shield=True):
                pool.interrupt()
                await pool.end()
        if not hurried:
            await notifier.drain(deadline.at)
    finally:
        pool.close()
        notifier.close()
        scheduler._close()
        with trio.CancelScope(shield=True):
            await scheduler._service.sign_off(pool.owner, deadline.sign_off_ends)
