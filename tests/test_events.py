"""`CronScheduler.events`: what a scheduler commits, in order, over a bounded stream."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing

from cronactors import (
    Cause,
    CronConfig,
    CronError,
    CronScheduler,
    DuplicateJob,
    Interval,
    InvalidJob,
    JobContext,
    JobSpec,
    Misfire,
    OneShot,
    Overlap,
    RetryPolicy,
    RunStatus,
    SchedulerClosed,
    SessionMode,
    StoreUnavailable,
    Trigger,
    events,
    open_scheduler,
)
from cronactors.actors import event_stream, observed_storage, store as store_module
from cronactors.actors.event_stream import EventStream
from cronactors.events import (
    ClockJumped,
    Event,
    EventsLost,
    JobAdded,
    JobChanged,
    JobEvent,
    JobRemoved,
    MomentSkipped,
    RetryScheduled,
    RunEvent,
    RunFinished,
    RunInterrupted,
    RunRequested,
    RunStarted,
    RunWaiting,
    StoreFailed,
    StoreWorking,
)
from cronactors.testing import VirtualClock
from tests.workers import after

SETTINGS = CronConfig(retry=RetryPolicy(delays=[30]), max_concurrent_runs=3)
SECRET = "SECRET"


async def executor(context: JobContext) -> str:
    await trio.sleep(100 if context.job_name == "slow" else 1)
    if context.job_name == "bad" and context.attempt == 1:
        raise ValueError(SECRET)
    return SECRET


def names(found: list[Event]) -> list[str]:
    return [type(event).__name__ for event in found]


async def take(stream: EventStream) -> list[Event]:
    """Return the events that are there."""
    found: list[Event] = []
    while stream._lost or stream._receive.statistics().current_buffer_used:
        found.append(await stream.__anext__())
    return found


@asynccontextmanager
async def observing(**options: Any) -> AsyncIterator[tuple[CronScheduler, EventStream]]:
    async with open_scheduler(":memory:", executor, config=SETTINGS, **options) as scheduler, scheduler.events() as stream:
        yield scheduler, stream


# What is said


async def test_the_life_of_a_job_and_its_runs(virtual_clock: VirtualClock) -> None:
    async with observing() as (scheduler, stream):
        job_id = await scheduler.store.add_job("bad", SECRET, OneShot(after(60)), user_id="u", max_retries=1)
        (added,) = await take(stream)
        assert added == JobAdded(job_id=job_id, job_name="bad", user_id="u")
        await trio.sleep(200)
        first, failed, retry, second, succeeded, done = await take(stream)
        assert isinstance(first, RunStarted)
        assert (first.run_id, first.job_id, first.job_name, first.user_id) == ("1", job_id, "bad", "u")
        assert (first.scheduled_at, first.started_at, first.status) == (after(60), after(60), RunStatus.RUNNING)
        assert isinstance(failed, RunFinished)
        assert (failed.status, failed.cause, failed.completed_at) == (RunStatus.FAILED, Cause.ERROR, after(61))
        assert isinstance(retry, RetryScheduled)
        assert (retry.run_id, retry.attempt, retry.trigger, retry.retry_at) == ("2", 2, Trigger.RETRY, after(91))
        assert isinstance(second, RunStarted)
        assert (second.run_id, second.started_at) == ("2", after(91))
        assert isinstance(succeeded, RunFinished)
        assert (succeeded.status, succeeded.cause) == (RunStatus.SUCCESS, None)
        assert done == JobChanged(job_id=job_id, job_name="bad", user_id="u", enabled=False)
        await scheduler.store.remove_job(job_id)
        assert await take(stream) == [JobRemoved(job_id=job_id, job_name="bad", user_id="u")]


async def test_a_job_is_changed_by_edits_pauses_and_resumes_and_by_nothing_else(virtual_clock: VirtualClock) -> None:
    async with observing() as (scheduler, stream):
        store = scheduler.store
        job_id = await store.add_job("job", SECRET, Interval(60_000))
        await trio.sleep(65)
        assert names(await take(stream)) == ["JobAdded", "RunStarted", "RunFinished"]
        await store.update_job(job_id, prompt="other")
        await store.update_job(job_id, prompt="other")
        await store.upsert_job("job", "other", Interval(60_000))
        await store.pause_job(job_id)
        await store.pause_job(job_id)
        await store.resume_job(job_id)
        found = await take(stream)
        assert names(found) == ["JobChanged"] * 3
        assert [event.enabled for event in found if isinstance(event, JobChanged)] == [True, False, True]


async def test_a_plain_success_that_was_the_last_moment_says_that_the_job_is_done(virtual_clock: VirtualClock) -> None:
    async with observing() as (scheduler, stream):
        await scheduler.store.add_job("once", "it", OneShot(after(1)))
        await scheduler.store.add_job("gone", "it", OneShot(after(5)), delete_after_run=True)
        await trio.sleep(10)
        found = await take(stream)
        assert names(found) == [
            *("JobAdded", "JobAdded"),
            *("RunStarted", "RunFinished", "JobChanged"),
            *("RunStarted", "RunFinished", "JobRemoved"),
        ]


async def test_runs_that_are_requested_wait_or_are_cancelled_and_moments_that_are_skipped(virtual_clock: VirtualClock) -> None:
    async with observing() as (scheduler, stream):
        slow = await scheduler.store.add_job("slow", "it", Interval(60_000), overlap=Overlap.SKIP)
        await trio.sleep(170)
        found = await take(stream)
        assert names(found) == ["JobAdded", "RunStarted", "RunFinished", "MomentSkipped"]
        skipped = found[-1]
        assert isinstance(skipped, MomentSkipped)
        assert (skipped.cause, skipped.scheduled_at, skipped.coalesced) == (Cause.OVERLAP, after(120), 1)
        await scheduler.store.pause_job(slow)
        run = await scheduler.run_now(slow, wait=False)
        await trio.sleep(1)
        await scheduler.cancel_run(run.id)
        assert names(await take(stream)) == ["JobChanged", "RunRequested", "RunStarted", "RunFinished"]


async def test_a_run_that_waits_for_its_session(virtual_clock: VirtualClock) -> None:
    async with observing() as (scheduler, stream):
        for name in ("a", "b"):
            await scheduler.store.add_job(name, "it", OneShot(after(10)), session_mode=SessionMode.MAIN, user_id="u")
        await trio.sleep(20)
        found = [event for event in await take(stream) if isinstance(event, RunEvent)]
        assert [(type(event), event.job_name) for event in found] == [
            (RunStarted, "a"),
            (RunWaiting, "b"),
            (RunFinished, "a"),
            (RunStarted, "b"),
            (RunFinished, "b"),
        ]


async def test_missed_moments(virtual_clock: VirtualClock) -> None:
    async with observing() as (scheduler, stream):
        await scheduler.store.add_job("job", "it", Interval(60_000), misfire=Misfire(window=timedelta(seconds=90)))
        await trio.sleep(30)
        virtual_clock.set_wall(after(605))
        await trio.sleep(10)
        found = await take(stream)
        jumps = [event for event in found if isinstance(event, ClockJumped)]
        assert jumps == [ClockJumped(seconds=575.0, now=after(605))]
        (skipped,) = [event for event in found if isinstance(event, MomentSkipped)]
        assert (skipped.cause, skipped.coalesced) == (Cause.MISFIRE, 8)
        (started,) = [event for event in found if isinstance(event, RunStarted)]
        assert (started.scheduled_at, started.coalesced) == (after(600), 2)


async def test_a_refused_request_says_nothing(virtual_clock: VirtualClock) -> None:
    async with observing() as (scheduler, stream):
        await scheduler.store.add_job("a", "it", Interval(60_000))
        with pytest.raises(DuplicateJob):
            await scheduler.store.add_jobs([JobSpec("b", "it", Interval(60_000)), JobSpec("a", "it", Interval(60_000))])
        assert names(await take(stream)) == ["JobAdded"]


async def test_events_hold_no_prompt_result_or_error(virtual_clock: VirtualClock) -> None:
    async with observing() as (scheduler, stream):
        await scheduler.store.add_job("bad", SECRET, OneShot(after(1)), executor_options={"token": SECRET})
        await trio.sleep(60)
        found = await take(stream)
        assert len(found) > 5
        assert SECRET not in repr(found)


async def test_the_events_of_a_store_that_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, virtual_clock: VirtualClock
) -> None:
    monkeypatch.setattr(store_module, "LOCK_TIMEOUT", 1)
    file = tmp_path / "jobs.db"
    async with open_scheduler(file, executor, config=SETTINGS) as scheduler, scheduler.events() as stream:
        with closing(sqlite3.connect(file, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            for name in ("a", "b"):
                with pytest.raises(StoreUnavailable, match="locked"):
                    await scheduler.store.add_job(name, "it", Interval(60_000))
            found = await take(stream)
            other.execute("ROLLBACK")
        await scheduler.store.add_job("c", "it", Interval(60_000))
        assert found == [StoreFailed(reason=f"{file} was locked by other processes for 1 s")]
        found = await take(stream)
        assert sorted(names(found)) == ["JobAdded", "StoreWorking"]
        assert StoreWorking() in found


async def test_the_events_of_each_commit_agree_with_the_history(virtual_clock: VirtualClock) -> None:
    async with observing() as (scheduler, stream):
        store = scheduler.store
        await store.add_job("bad", "it", Interval(20_000), max_retries=1)
        await store.add_job("slow", "it", Interval(45_000), overlap=Overlap.CANCEL_OTHER)
        await store.add_job("good", "it", Interval(7_000), overlap=Overlap.BUFFER_ALL)
        await store.add_job("main", "it", Interval(7_000), session_mode=SessionMode.MAIN)
        await trio.sleep(1_000)
        last = {event.run_id: event.status for event in await take(stream) if isinstance(event, RunEvent)}
        assert last == {run.id: run.status for run in await store.list_runs(limit=10_000)}
        assert len(last) > 300


# The stream


async def test_events_come_from_the_thread_of_the_storage_before_the_call_returns(tmp_path: Path) -> None:
    async def quick(context: JobContext) -> str:
        return "done"

    async with open_scheduler(tmp_path / "jobs.db", quick) as scheduler, scheduler.events() as stream:
        job_id = await scheduler.store.add_job("a", "it", Interval(3_600_000))
        assert names(await take(stream)) == ["JobAdded"]
        for _ in range(20):
            run = await scheduler.run_now(job_id)
            found = await take(stream)
            assert names(found) == ["RunRequested", "RunStarted", "RunFinished"]
            assert {event.run_id for event in found if isinstance(event, RunEvent)} == {run.id}


async def test_a_slow_reader_loses_the_oldest_and_learns_how_many(virtual_clock: VirtualClock) -> None:
    async with open_scheduler(":memory:", executor) as scheduler, scheduler.events(capacity=2) as stream:
        for name in "abcde":
            await scheduler.store.add_job(name, "it", Interval(60_000))
        found = await take(stream)
        assert found[0] == EventsLost(count=3)
        assert [event.job_name for event in found[1:] if isinstance(event, JobEvent)] == ["d", "e"]
        await scheduler.store.add_job("f", "it", Interval(60_000))
        assert names(await take(stream)) == ["JobAdded"]


async def test_each_stream_has_all_events_from_its_beginning_on(virtual_clock: VirtualClock) -> None:
    async with observing() as (scheduler, first):
        await scheduler.store.add_job("a", "it", Interval(60_000))
        async with scheduler.events() as second:
            await scheduler.store.add_job("b", "it", Interval(60_000))
            assert [len(await take(stream)) for stream in (first, second)] == [2, 1]
        await scheduler.store.add_job("c", "it", Interval(60_000))
        assert [event async for event in second] == []
        assert len(await take(first)) == 1


async def test_a_cancelled_reader_loses_nothing(virtual_clock: VirtualClock) -> None:
    async with observing() as (scheduler, stream):
        for _ in range(3):
            with trio.move_on_after(1):
                await stream.__anext__()
        await scheduler.store.add_job("a", "it", Interval(60_000))
        assert names(await take(stream)) == ["JobAdded"]


async def test_the_stream_ends_with_the_scheduler_after_what_its_stop_has_committed(virtual_clock: VirtualClock) -> None:
    found: list[Event] = []

    async def read(scheduler: CronScheduler, *, task_status: trio.TaskStatus[None]) -> None:
        async with scheduler.events() as stream:
            task_status.started()
            async for event in stream:
                found.append(event)

    async with trio.open_nursery() as nursery:
        async with open_scheduler(":memory:", executor, config=SETTINGS, shutdown_grace=1) as scheduler:
            not_entered = scheduler.events()
            await nursery.start(read, scheduler)
            await scheduler.store.add_job("slow", "it", OneShot(after(1)))
            await trio.sleep(5)
        await trio.testing.wait_all_tasks_blocked()
        assert not nursery.child_tasks
    assert names(found) == ["JobAdded", "RunStarted", "RunInterrupted", "RetryScheduled"]
    assert isinstance(found[2], RunInterrupted)
    assert isinstance(found[3], RetryScheduled)
    assert found[3].trigger is Trigger.RECOVERY
    with pytest.raises(SchedulerClosed):
        scheduler.events()
    with pytest.raises(SchedulerClosed):
        await not_entered.__aenter__()


async def test_without_a_stream_no_events_are_looked_for(virtual_clock: VirtualClock, monkeypatch: pytest.MonkeyPatch) -> None:
    made = []

    class Counted(observed_storage.ObservedStorage):
        def __init__(self, *args: Any) -> None:
            super().__init__(*args)
            made.append(self)

    monkeypatch.setattr(event_stream, "ObservedStorage", Counted)
    async with open_scheduler(":memory:", executor) as scheduler:
        await scheduler.store.add_job("a", "it", Interval(60_000))
        async with scheduler.events():
            await trio.sleep(65)
            while_open = len(made)
        await trio.sleep(600)
        assert scheduler._actors.service.actor.observer is None
    assert while_open == len(made) > 0


async def test_a_stream_is_entered_once_and_has_a_capacity(virtual_clock: VirtualClock) -> None:
    async with open_scheduler(":memory:", executor) as scheduler:
        stream = scheduler.events()
        with pytest.raises(CronError, match="must be entered"):
            await stream.__anext__()
        async with stream:
            with pytest.raises(CronError, match="entered once"):
                async with stream:
                    pass
        for capacity in (0, -1, True, 1.5, "10", None, 1_000_001):
            with pytest.raises(InvalidJob, match="capacity must be"):
                scheduler.events(capacity=capacity)  # type: ignore[arg-type]


def test_every_event_is_in_the_union() -> None:
    classes = {value for value in vars(events).values() if isinstance(value, type) and value.__module__ == events.__name__}
    assert classes - {JobEvent, RunEvent} == set(Event.__args__)  # type: ignore[attr-defined]
    assert RunRequested in classes
