"""What receivers get: the job as the finish left it, the current notification; and for whom notifications are written."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

import pytest
import trio

from cronactors import (
    CronConfig,
    CronJob,
    CronRun,
    InvalidConfig,
    InvalidJob,
    JobContext,
    Notification,
    NotificationStatus,
    OneShot,
    Receiver,
    RetryPolicy,
    current_notification,
    open_scheduler,
    open_store,
)
from cronactors.testing import VirtualClock
from tests.receivers import Notifier, shots
from tests.workers import after, nothing

# The job as the finish left it


async def test_on_finish_gets_the_job_as_the_finish_left_it_however_late_it_is_called(virtual_clock: VirtualClock) -> None:
    got: list[tuple[CronJob, CronRun]] = []

    async def on_finish(job: CronJob, run: CronRun) -> None:
        got.append((job, run))
        if len(got) == 1:
            raise ValueError("later")

    async def executor(context: JobContext) -> None:
        if context.attempt == 1:
            raise ValueError("first")

    async with open_scheduler(":memory:", executor, on_finish=on_finish, config=CronConfig(retry=RetryPolicy((5,)))) as scheduler:
        job_id = await scheduler.store.add_job("job", "it", OneShot(after(1)), max_retries=1, timeout_secs=50)
        await trio.sleep(8)
        await scheduler.store.update_job(job_id, timeout_secs=60)
        await trio.sleep(10)
    (first, run), (again, run_again), (last, _) = got
    assert (first.retry_at, first.retry_count, first.last_error) == (after(6), 1, "ValueError: first")
    assert run_again == run
    state = ("enabled", "last_error", "last_run_at", "next_run_at", "retry_at", "retry_count")
    assert [getattr(again, name) for name in state] == [getattr(first, name) for name in state]
    assert (first.timeout_secs, again.timeout_secs) == (50, 60), "what no run changes is as it is now"
    assert (last.retry_at, last.last_error, last.enabled) == (None, None, False)


@pytest.mark.parametrize("by_user", [True, False])
async def test_a_job_that_is_removed_before_the_delivery_is_kept_for_it(virtual_clock: VirtualClock, by_user: bool) -> None:
    got: list[CronJob] = []

    async def on_finish(job: CronJob, run: CronRun) -> None:
        got.append(job)
        if len(got) < 3:
            raise ValueError("later")

    async with open_scheduler(":memory:", nothing, on_finish=on_finish) as scheduler:
        job_id = await scheduler.store.add_job("job", "say it", OneShot(after(1)), delete_after_run=not by_user)
        await trio.sleep(2)
        if by_user:
            await scheduler.store.remove_job(job_id)
        await trio.sleep(3600)
        assert await scheduler.store.list_jobs() == []
    assert [(job.id, job.prompt, job.schedule, job.last_run_at) for job in got] == [
        (job_id, "say it", OneShot(after(1)), after(1))
    ] * 3


# The current notification


async def test_the_current_notification_is_known_in_tasks_and_threads(virtual_clock: VirtualClock) -> None:
    seen: list[Notification] = []

    def in_thread() -> None:
        seen.append(current_notification())

    async def in_task() -> None:
        seen.append(current_notification())

    async def on_finish(job: CronJob, run: CronRun) -> None:
        seen.append(current_notification())
        await trio.to_thread.run_sync(in_thread)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(in_task)
        assert seen[-3:] == [seen[-1]] * 3
        assert (seen[-1].key, seen[-1].run_id, seen[-1].job_id) == (f"run:{run.id}", run.id, job.id)
        if seen[-1].attempts == 0:
            raise ValueError("again")

    with pytest.raises(LookupError, match="current_notification must be called in a receiver"):
        current_notification()
    assert current_notification(default=None) is None
    async with open_scheduler(":memory:", nothing, on_finish=on_finish) as scheduler:
        await scheduler.store.add_jobs(shots("a", "b", "c"))
        await trio.sleep(100)
    assert [(each.key, each.attempts) for each in seen[::3]] == [(f"run:{n}", attempts) for attempts in (0, 1) for n in (1, 2, 3)]


async def test_each_call_that_returns_at_once_has_its_own_notification(virtual_clock: VirtualClock) -> None:
    seen: list[tuple[str, str]] = []

    async def notifier(job_name: str, session_id: str, result: str, success: bool) -> None:
        before = current_notification().key
        if len(seen) % 3 == 1:
            await trio.sleep(0)
        seen.append((before, current_notification().key))

    async with open_scheduler(":memory:", nothing, notifier=notifier) as scheduler:
        await scheduler.store.add_jobs(shots(*map(str, range(50))))
        await trio.sleep(2)
        await scheduler.wait_idle()
    assert sorted(seen) == sorted((f"run:{n}", f"run:{n}") for n in range(1, 51))


# What is written, and for whom


async def test_without_a_receiver_nothing_is_written(virtual_clock: VirtualClock, tmp_path: Path) -> None:
    async with open_scheduler(tmp_path / "a.db", nothing) as scheduler:
        await scheduler.store.add_jobs(shots("a"))
        await trio.sleep(2)
        assert await scheduler.store.list_notifications() == []


async def test_only_what_some_scheduler_can_deliver_is_called_and_the_rest_is_counted(
    virtual_clock: VirtualClock, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    hanging, seen = Notifier(seconds=29), list[str]()

    async def on_finish(job: CronJob, run: CronRun) -> None:
        seen.append(job.name)

    async with open_scheduler(tmp_path / "a.db", nothing, notifier=hanging) as scheduler:
        await scheduler.store.add_jobs(shots("a", "b"))
        await trio.sleep(2)
    assert "2 notifications are pending; the next scheduler with their receivers delivers them" in caplog.text
    async with open_scheduler(tmp_path / "a.db", nothing, on_finish=on_finish) as scheduler:
        await scheduler.store.add_jobs(shots("c", at=20))
        await trio.sleep(60)
        assert scheduler.health().notifications_pending == 2
    assert seen == ["c"]
    notifier = Notifier()
    async with open_scheduler(tmp_path / "a.db", nothing, notifier=notifier) as scheduler:
        await trio.sleep(1)
        assert scheduler.health().notifications_pending == 0
    assert sorted(notifier.delivered) == ["a", "b"]
    async with open_store(tmp_path / "a.db") as store:
        found = await store.list_notifications(receiver="notifier", status=NotificationStatus.DELIVERED)
        assert [each.key for each in found] == ["run:2", "run:1"]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Receiver(5), "function must be an async function, not 5"),  # type: ignore[type-var]
        (lambda: Receiver(nothing, retry=5), "retry must be a RetryPolicy, not 5"),  # type: ignore[arg-type, type-var]
        (lambda: Receiver(nothing, attempts=0), "attempts must be 1 to 1,000, not 0"),  # type: ignore[type-var]
        (lambda: Receiver(nothing, timeout=0), "timeout must be 0.001 to 86,400, not 0"),  # type: ignore[type-var]
        (lambda: Receiver(nothing, concurrency=True), "concurrency must be a whole number"),  # type: ignore[type-var]
    ],
)
def test_a_receiver_checks_its_arguments(make: Callable[[], object], message: str) -> None:
    with pytest.raises(InvalidConfig, match=message):
        make()


async def test_bad_arguments_are_refused(virtual_clock: VirtualClock) -> None:
    with pytest.raises(InvalidConfig, match="on_alert must be an async function or a Receiver, not 5"):
        async with open_scheduler(":memory:", nothing, on_alert=5):  # type: ignore[arg-type]
            pass
    async with open_store(":memory:") as store:
        with pytest.raises(InvalidJob, match="status must be one of pending, delivered, given_up, not 'lost'"):
            await store.list_notifications(status="lost")
        with pytest.raises(InvalidJob, match="limit must be 1 to"):
            await store.list_notifications(limit=0)
        with pytest.raises(InvalidJob, match="receiver must be text"):
            await store.list_notifications(receiver=5)  # type: ignore[arg-type]
        with pytest.raises(InvalidJob, match="key must not be empty"):
            await store.retry_notification("")
