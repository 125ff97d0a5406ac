"""The supervision tree: `open_scheduler` starts the actors in order and ends them in the opposite order."""

from __future__ import annotations

import logging
import math
from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress

import trio

from cronactors.actors.clock import Clock
from cronactors.actors.exits import BlockExit, actor, guarded_contextmanager
from cronactors.actors.failure_log import FailureLog
from cronactors.actors.lease_guard import LeaseGuard
from cronactors.actors.output import SHARE_WITHIN, OutputWriter
from cronactors.actors.overdue import OverdueWatch
from cronactors.actors.patrol import Patrol
from cronactors.actors.pool import RunnerPool, RunnerSettings
from cronactors.actors.pruner import Pruner, announce_deletion
from cronactors.actors.receivers import Receivers
from cronactors.actors.recompute import recompute_moments
from cronactors.actors.runner import Runner
from cronactors.actors.store_lifetime import StoreService, StrPath, check_path, store_service
from cronactors.actors.wall_clock_watch import WallClockWatch
from cronactors.checks import number
from cronactors.errors import InvalidConfig, shorten
from cronactors.model import JobExecutor, NotificationSender, RunObserver
from cronactors.notifications import AlertObserver, Receiver, as_receiver
from cronactors.origins import upsert_lists
from cronactors.retention import EVERYTHING, limits_of_store
from cronactors.scheduler import Actors, CronScheduler
from cronactors.settings import CronConfig, check_settings
from cronactors.spec import MAX_TIMEOUT, JobSpec, check_specs
from cronactors.storage.file_state import MEMORY
from cronactors.store import CronStore

logger = logging.getLogger("cronactors.scheduler")


@guarded_contextmanager
async def open_scheduler(
    store: StrPath | CronStore,
    executor: JobExecutor,
    *,
    timezone: str | None = None,
    notifier: NotificationSender | Receiver[NotificationSender] | None = None,
    on_finish: RunObserver | Receiver[RunObserver] | None = None,
    on_alert: AlertObserver | Receiver[AlertObserver] | None = None,
    jobs: Iterable[JobSpec] = (),
    config: CronConfig | None = None,
    tick_interval: float = 1.0,
    shutdown_grace: float | None = None,
) -> AsyncGenerator[CronScheduler]:
    """Run a scheduler for the length of the block.

    Runs that a crash interrupted are put back before the first new one starts. When the block ends, normally or by an exception of its
    own, no more runs start, and those that are running get ``shutdown_grace`` to end; then they are cancelled, recorded as interrupted
    and put back, which costs no retry. If the block is cancelled from outside, or Ctrl-C is pressed a second time, there is no grace.
    An exception of the block leaves as itself.

    Args:
        store: The file, created if it is missing; or the address of a PostgreSQL database, see `open_store`; or an open `CronStore`, which
            stays open.
        executor: The async function that executes each run.
        timezone: The IANA name of the zone of jobs that name none; None: the zone of ``config``.
        notifier: Called with name, session id, text and success of each finished run, once it is durable; again after a failure or a
            crash. An async function, or a `Receiver` that says how often it is tried.
        on_finish: Called with the job and the run, likewise.
        on_alert: Called with the job and the alert, likewise.
        jobs: Added first, or updated if they exist. A one-shot whose time has passed is stored as done, with a warning in the log.
        config: Settings. Its own ``jobs`` are added or updated too, under its ``origin``: both lists change together or not at all.
        tick_interval: How often (s) changes by other processes are looked for, 0.01 to 3,600. It also bounds how late the scheduler
            reacts after the machine was suspended or its clock was set, since timers do not count the time asleep.
        shutdown_grace: How long (s) runs may take to end by themselves when the block ends; None: as ``config`` says.

    Raises:
        InvalidConfig: An argument is wrong.
        InvalidJob: A job of a list is wrong.
        InvalidSchedule: The schedule of a job never fires, or names a local time that does not exist.
        DuplicateJob: Two jobs of the lists have one name.
        SchedulerClosed: The `CronStore` has been closed.
        CronError: There is no trio, or a clock drives it that skips time by itself; or psycopg is missing for a store on a server.
        StoreUnavailable: The store cannot be opened.
        StoreCorrupt: The store is damaged, of another application or of a newer version; it has not been touched.
        SchedulerCrashed: An actor ended by a bug, which is the ``__cause__``.
    """
    tick, given_grace = _check_arguments(executor, tick_interval, shutdown_grace)
    functions = as_receiver("notifier", notifier), as_receiver("on_finish", on_finish), as_receiver("on_alert", on_alert)
    specs = check_specs("jobs", jobs)
    block_exit = BlockExit()
    with block_exit:
        async with _opened(store, config, timezone) as (service, handle, settings):
            grace = settings.shutdown_grace if given_grace is None else given_grace
            receivers = Receivers(*functions, escape=block_exit.escape)
            scheduler = await _prepare(service, handle, settings, specs=specs, executor=executor, receivers=receivers, tick=tick)
            actors, failures = scheduler._actors, FailureLog()
            with _listening(actors):
                async with trio.open_nursery() as workers:
                    workers.start_soon(actors.receivers.run, service, actors.pool.settings.owner)
                    workers.start_soon(actors.pool.output.run)
                    if service.storage.writes_side_by_side:
                        workers.start_soon(LeaseGuard(service.storage, actors.pool).run)
                    for _ in range(settings.max_concurrent_runs):
                        workers.start_soon(Runner(actors.pool, failures, block_exit.escape).run)
                    try:
                        async with trio.open_nursery() as clockwork:
                            clockwork.start_soon(actors.clock.run)
                            clockwork.start_soon(actors.patrol.run)
                            if on_alert is not None and settings.overdue_after is not None:
                                owner, limit = actors.pool.settings.owner, settings.overdue_after
                                watch = OverdueWatch(service, actors.clock, owner=owner, overdue_after=limit)
                                clockwork.start_soon(watch.run)
                            clockwork.start_soon(actors.pruner.run)
                            clockwork.start_soon(recompute_moments, service.mailbox, actors.rules)
                            with block_exit.body:
                                yield scheduler
                            service.limit(actors.pool.stop(0 if block_exit.body.cancelled else grace))
                            clockwork.cancel_scope.cancel()
                            await service.mark_stopping(_stopping(actors, own_store=not isinstance(store, CronStore)))
                    finally:
                        await _shut_down(scheduler, grace, hurried=block_exit.body.cancelled)
    block_exit.raise_errors()


def _check_arguments(executor: object, tick_interval: object, shutdown_grace: object) -> tuple[float, float | None]:
    if not callable(executor):
        raise InvalidConfig(f"executor must be an async function, not {shorten(executor)}")
    return (
        number("tick_interval", tick_interval, InvalidConfig, least=0.01, most=3600),
        None if shutdown_grace is None else number("shutdown_grace", shutdown_grace, InvalidConfig, least=0, most=MAX_TIMEOUT),
    )


def _stopping(actors: Actors, *, own_store: bool) -> set[int]:
    """Return who is marked as stopping: this scheduler if runs are in flight, and the user's own loops on a store that ends with it."""
    owner = actors.pool.settings.owner
    owners = actors.service.owners - {owner} if own_store else set()
    return owners | {owner} if actors.pool.slots.taken else owners


@contextmanager
def _listening(actors: Actors) -> Iterator[None]:
    """Let the actors know of commits, and the clock of a virtual wall clock that is set."""
    listeners = [actors.clock.committed, actors.patrol.committed, actors.receivers.committed, actors.pruner.committed]
    actors.service.actor.listeners += listeners
    failure_listeners = [actors.receivers.commit_failed, actors.patrol.request]
    actors.service.actor.failure_listeners += failure_listeners
    if actors.service.virtual is not None:
        actors.service.virtual.set_listeners.append(actors.clock.virtual_clock_was_set)
    token = trio.lowlevel.current_trio_token()

    def heard() -> None:
        with suppress(trio.RunFinishedError):
            token.run_sync_soon(actors.patrol.request, idempotent=True)

    def deaf(is_deaf: bool) -> None:
        with suppress(trio.RunFinishedError):
            token.run_sync_soon(actors.patrol.note_deafness, is_deaf)

    try:
        with actors.service.storage.listen(heard, deaf):
            yield
    finally:
        for listener in listeners:
            actors.service.actor.listeners.remove(listener)
        for failure_listener in failure_listeners:
            actors.service.actor.failure_listeners.remove(failure_listener)
        if actors.service.virtual is not None:
            actors.service.virtual.set_listeners.remove(actors.clock.virtual_clock_was_set)


@asynccontextmanager
async def _opened(
    store: StrPath | CronStore, config: CronConfig | None, timezone: str | None
) -> AsyncIterator[tuple[StoreService, CronStore, CronConfig]]:
    """Open a file, or use an open store. An open store keeps its own settings, unless others are given.

    Yields:
        Its service, a `CronStore` with the settings of this scheduler, and the settings.
    """
    if isinstance(store, CronStore):
        settings = check_settings(store._config if config is None else config, timezone)
        own = config is None and timezone is None
        handle = store if own else CronStore._create(store._service, config=settings, timezone=timezone)
        try:
            yield store._service, handle, settings
        finally:
            store._service.unlimit()
    else:
        settings = check_settings(config, timezone)
        async with store_service(check_path(store), schema=settings.schema, create=True) as service:
            yield service, CronStore._create(service, config=settings, timezone=timezone), settings


@actor
async def _prepare(
    service: StoreService,
    handle: CronStore,
    config: CronConfig,
    *,
    specs: tuple[JobSpec, ...],
    executor: JobExecutor,
    receivers: Receivers,
    tick: float,
) -> CronScheduler:
    """Put back what a crash interrupted, upsert the jobs, register this owner, and make the actors; none runs yet."""
    recovered = await service.recover(config.retry)
    start_report = await upsert_lists(service.mailbox, config, specs, defaults=handle._defaults, database=service.path)
    limits = limits_of_store(config.history, in_memory=service.path == MEMORY) or EVERYTHING
    registered = await service.register(receivers.names, limits, config.max_concurrent_runs_total)
    if registered.deletes_from is not None:
        announce_deletion(limits, registered.deletes_from)
    receivers.pending = registered.pending
    if receivers.names:
        receivers.taken_over(await service.take_over(registered.owner, receivers.names))
    settings = RunnerSettings(
        owner=registered.owner,
        executor=executor,
        policy=config.retry,
        slots=config.max_concurrent_runs,
        total=config.max_concurrent_runs_total,
        cancel_grace=config.cancel_grace,
    )
    if service.virtual is not None:
        tick = math.inf
    output = OutputWriter(service.mailbox, share_within=SHARE_WITHIN if service.virtual is None else 0)
    pool = RunnerPool(service.mailbox, receivers, settings, output)
    watch = WallClockWatch(service.mailbox, service.wall, registered, service.actor)
    clock = Clock(service, pool, watch, tick=tick)
    patrol = Patrol(service, pool, clock, receivers, tick=tick)
    pruner = Pruner(service, pool, clock, limits, announced=registered.deletes_from)
    actors = Actors(
        service=service, receivers=receivers, pool=pool, clock=clock, patrol=patrol, pruner=pruner, rules=registered.rules
    )
    return CronScheduler._create(handle, tuple(recovered), start_report, actors)


@actor
async def _shut_down(scheduler: CronScheduler, grace: float, *, hurried: bool) -> None:
    """Give runs ``grace`` seconds to end, cancel the rest, finish and notify all of them, and sign off; `StopDeadline` has the limits.

    Cancelled, or by a KeyboardInterrupt, the grace and the notifying end; finishing and signing off are shielded. Hurried, there is
    neither grace nor notifying. Notifications that are not delivered stay pending in the store.
    """
    pool, receivers, service = scheduler._actors.pool, scheduler._actors.receivers, scheduler._actors.service
    service.limit(deadline := pool.stop(grace))
    try:
        try:
            if not hurried:
                if pool.slots.taken:
                    logger.info("closing; runs in flight: %d, with %.0f s to end by themselves", pool.slots.taken, grace)
                with trio.move_on_at(deadline.grace_ends):
                    await pool.slots.wait_all_free()
        finally:
            with trio.CancelScope(shield=True):
                pool.interrupt()
                await pool.end()
        if not hurried:
            await receivers.drain(deadline.at)
    finally:
        pool.close()
        receivers.close()
        scheduler._close()
        with trio.CancelScope(shield=True):
            await receivers.finish(service.mailbox, pool.settings.owner, deadline.sign_off_ends)
            await service.sign_off(pool.settings.owner, deadline.sign_off_ends)
