"""Durable notifications: retries, order for each job, pauses of a receiver, what is given up, and that no receiver holds up a run."""

from __future__ import annotations

from collections import Counter
from datetime import timedelta

import pytest
import trio

from cronactors import (
    CronConfig,
    CronJob,
    CronRun,
    Interval,
    JobContext,
    JobSpec,
    NotificationNotFound,
    NotificationStatus,
    OneShot,
    Receiver,
    RetryPolicy,
    RunStatus,
    current_notification,
    open_scheduler,
)
from cronactors.actors import inbox
from cronactors.testing import VirtualClock
from tests.receivers import Notifier, shots
from tests.workers import START, after, nothing

# Retries


async def test_a_call_that_fails_is_made_again_until_it_returns(virtual_clock: VirtualClock) -> None:
    notifier = Notifier(lambda name, call: call < 4)
    async with open_scheduler(":memory:", nothing, notifier=notifier) as scheduler:
        await scheduler.store.add_jobs(shots("a"))
        await trio.sleep(60)
        (waiting,) = await scheduler.store.list_notifications()
        assert (waiting.status, waiting.attempts, waiting.error) == (NotificationStatus.PENDING, 2, "ValueError: a failed")
        assert waiting.retry_at == START + timedelta(seconds=1 + 10 + 60)
        assert scheduler.health().notifications_pending == 1
        await trio.sleep(3600)
        assert notifier.times() == pytest.approx([1, 11, 71, 371], abs=0.01)
        (delivered,) = await scheduler.store.list_notifications()
        assert (delivered.status, delivered.attempts, delivered.retry_at) == (NotificationStatus.DELIVERED, 3, None)
        assert scheduler.health().notifications_pending == 0


async def test_a_call_that_hangs_holds_a_short_timeout_only(virtual_clock: VirtualClock) -> None:
    called: list[tuple[str, float]] = []

    async def hang(name: str, _session: str, _text: str, _success: bool) -> None:
        called.append((name, trio.current_time()))
        if name != "c":
            await trio.sleep_forever()

    receiver = Receiver(hang, timeout=0.5, retry=RetryPolicy(delays=(60,)))
    async with open_scheduler(":memory:", nothing, notifier=receiver) as scheduler:
        await scheduler.store.add_jobs(shots("a", "b", "c"))
        await trio.sleep(10)
    assert [name for name, _ in called] == ["a", "b", "c"]
    assert [at for _, at in called] == pytest.approx([1, 1.5, 2], abs=0.01)


async def test_by_default_five_calls_within_an_hour_then_it_is_given_up(
    virtual_clock: VirtualClock, caplog: pytest.LogCaptureFixture
) -> None:
    notifier = Notifier(lambda name, call: True)
    async with open_scheduler(":memory:", nothing, notifier=notifier) as scheduler:
        await scheduler.store.add_jobs(shots("a"))
        await trio.sleep(3600)
        assert len(notifier.times()) == 5
        (given_up,) = await scheduler.store.list_notifications(status="given_up")
        assert (given_up.key, given_up.receiver, given_up.attempts) == ("run:1", "notifier", 5)
        assert given_up.error == "ValueError: a failed"
        assert scheduler.health().notifications_pending == 0
        assert [run.status for run in await scheduler.store.list_runs()] == [RunStatus.SUCCESS]
        await trio.sleep(36_000)
        assert len(notifier.times()) == 5
    assert caplog.text.count("notifier gave up run 1 after 5 calls: ValueError: a failed") == 1


async def test_a_receiver_has_its_own_policy_and_timeout(virtual_clock: VirtualClock) -> None:
    slow = Notifier(seconds=9)
    receiver = Receiver(slow, retry=RetryPolicy(delays=(2,)), attempts=3, timeout=5)
    async with open_scheduler(":memory:", nothing, notifier=receiver) as scheduler:
        await scheduler.store.add_jobs(shots("a"))
        await trio.sleep(100)
        assert slow.times() == pytest.approx([1, 8, 15], abs=0.01)
        (given_up,) = await scheduler.store.list_notifications()
        assert (given_up.status, given_up.error) == (NotificationStatus.GIVEN_UP, "timed out after 5 s")


async def test_what_was_given_up_can_be_tried_again(virtual_clock: VirtualClock) -> None:
    works: list[bool] = []
    notifier = Notifier(lambda name, call: not works)
    async with open_scheduler(":memory:", nothing, notifier=Receiver(notifier, attempts=1)) as scheduler:
        await scheduler.store.add_jobs(shots("a", "b"))
        await trio.sleep(5)
        with pytest.raises(NotificationNotFound, match="no notification with the key 'run:3' was given up"):
            await scheduler.store.retry_notification("run:3")
        with pytest.raises(NotificationNotFound, match="no notification of 'on_finish' with the key 'run:1' was given up"):
            await scheduler.store.retry_notification("run:1", "on_finish")
        works.append(True)
        (again,) = await scheduler.store.retry_notification("run:1")
        assert (again.status, again.attempts) == (NotificationStatus.PENDING, 0)
        await trio.sleep(1)
        statuses = {each.key: each.status for each in await scheduler.store.list_notifications()}
        assert statuses == {"run:1": NotificationStatus.DELIVERED, "run:2": NotificationStatus.GIVEN_UP}
        with pytest.raises(NotificationNotFound):
            await scheduler.store.retry_notification("run:1")


async def test_what_was_given_up_can_be_tried_again_once_its_job_is_removed(virtual_clock: VirtualClock) -> None:
    seen: list[str] = []

    async def on_finish(job: CronJob, run: CronRun) -> None:
        seen.append(job.name)
        if len(seen) == 1:
            raise ValueError("not yet")

    async with open_scheduler(":memory:", nothing, on_finish=Receiver(on_finish, attempts=1)) as scheduler:
        job_id = await scheduler.store.add_job("a", "it", OneShot(after(1)))
        await trio.sleep(5)
        await scheduler.store.remove_job(job_id)
        await scheduler.store.retry_notification("run:1")
        await trio.sleep(5)
        (found,) = await scheduler.store.list_notifications()
    assert (found.status, seen) == (NotificationStatus.DELIVERED, ["a", "a"])


# Order


async def test_one_that_waits_for_its_retry_holds_back_only_later_ones_of_its_job(virtual_clock: VirtualClock) -> None:
    keys: list[tuple[str, int]] = []

    async def on_finish(job: CronJob, run: CronRun) -> None:
        if job.name == "a" and not current_notification().attempts and len(keys) < 2:
            raise ValueError("the first of a")
        keys.append((job.name, int(run.id)))

    async with open_scheduler(":memory:", nothing, on_finish=on_finish, config=CronConfig(max_concurrent_runs=9)) as scheduler:
        await scheduler.store.add_job("a", "it", Interval(2000))
        await scheduler.store.add_job("b", "it", Interval(2000))
        await trio.sleep(11.5)
        assert [name for name, _ in keys] == ["b"] * 5
        await trio.sleep(1)
        assert sorted(name for name, _ in keys[5:]) == ["a"] * 6 + ["b"], "from 2 to 12, and b at 12"
        for name in "ab":
            of_job = [run_id for job_name, run_id in keys if job_name == name]
            assert of_job == sorted(of_job)


async def test_receivers_never_wait_for_one_another(virtual_clock: VirtualClock) -> None:
    seen: list[float] = []

    async def on_finish(job: CronJob, run: CronRun) -> None:
        seen.append(trio.current_time())

    async with open_scheduler(":memory:", nothing, notifier=Notifier(seconds=29), on_finish=on_finish) as scheduler:
        await scheduler.store.add_jobs([*shots("a"), *shots("b", at=2), *shots("c", at=3)])
        await trio.sleep(4)
        assert seen == pytest.approx([1, 2, 3])


async def test_a_receiver_that_allows_it_is_called_several_times_at_once(virtual_clock: VirtualClock) -> None:
    running: Counter[str] = Counter()
    most = 0

    async def on_finish(job: CronJob, run: CronRun) -> None:
        nonlocal most
        running[job.id] += 1
        assert running[job.id] == 1, "two calls of one job never overlap"
        most = max(most, running.total())
        await trio.sleep(10)
        running[job.id] -= 1

    async with open_scheduler(":memory:", nothing, on_finish=Receiver(on_finish, concurrency=3)) as scheduler:
        await scheduler.store.add_jobs(shots(*"abcdef"))
        await scheduler.store.add_job("often", "it", Interval(1000))
        await trio.sleep(60)
        assert most == 3


# A receiver that fails all the time


async def test_after_five_failures_in_a_row_a_receiver_pauses_and_one_success_ends_that(
    virtual_clock: VirtualClock, caplog: pytest.LogCaptureFixture
) -> None:
    broken = [True]
    notifier = Notifier(lambda name, call: bool(broken))
    receiver = Receiver(notifier, retry=RetryPolicy(delays=(3600,)))
    async with open_scheduler(":memory:", nothing, notifier=receiver) as scheduler:
        await scheduler.store.add_jobs(shots(*"abcdefghijklmnop"))
        await trio.sleep(2)
        assert len(notifier.calls) == 5
        await scheduler.wait_idle()
        await trio.sleep(1000)
        times = [at for _, at in notifier.calls[5:]]
        assert times == pytest.approx([31, 91, 211, 451, 931], abs=0.1), "30 s, then twice as long each time"
        broken.clear()
        await trio.sleep(540)
        assert len(notifier.delivered) == 6, "the pause was 600 s at most; then all the others at once"
    assert caplog.text.count("notifier has failed 5 times in a row: it pauses for 30 s") == 1
    assert "notifier works again after 10 failed calls" in caplog.text


async def test_calls_at_the_same_time_that_fail_make_the_pause_no_longer(virtual_clock: VirtualClock) -> None:
    notifier = Notifier(lambda name, call: call == 1, seconds=1)
    receiver = Receiver(notifier, concurrency=16, retry=RetryPolicy(delays=(1,)))
    async with open_scheduler(":memory:", nothing, notifier=receiver) as scheduler:
        await scheduler.store.add_jobs(shots(*"abcdefghijklmnop"))
        await trio.sleep(40)
    assert sorted(at for _, at in notifier.calls) == pytest.approx([1] * 16 + [32] + [33] * 15, abs=0.1)


# No receiver holds up a run


@pytest.mark.parametrize("slots", [1, 100])
async def test_a_receiver_that_hangs_for_an_hour_delays_no_run(
    virtual_clock: VirtualClock, monkeypatch: pytest.MonkeyPatch, slots: int
) -> None:
    monkeypatch.setattr(inbox, "INBOX_CAPACITY", 20)
    monkeypatch.setattr(inbox, "READY_PAGE", 10)
    late: list[float] = []

    async def executor(context: JobContext) -> None:
        late.append((virtual_clock.now() - context.scheduled_at).total_seconds())

    hanging = Receiver(Notifier(seconds=3600), timeout=7200)
    config = CronConfig(max_concurrent_runs=slots)
    async with open_scheduler(":memory:", executor, notifier=hanging, config=config) as scheduler:
        await scheduler.store.add_jobs([JobSpec(f"job {n}", "it", Interval(60_000)) for n in range(slots)])
        await trio.sleep(3600.5)
        assert len(late) == 60 * slots
        assert max(late) < 0.01
        runs = await scheduler.store.list_runs(limit=1)
        assert runs[0].status is RunStatus.SUCCESS
        assert scheduler.health().notifications_pending == len(late)


async def test_more_than_memory_holds_is_delivered_in_order_and_nothing_twice(
    virtual_clock: VirtualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inbox, "INBOX_CAPACITY", 6)
    monkeypatch.setattr(inbox, "READY_PAGE", 3)
    notifier = Notifier(seconds=1)
    names = [f"job {n:03}" for n in range(200)]
    async with open_scheduler(":memory:", nothing, notifier=notifier) as scheduler:
        for n, name in enumerate(names):
            await scheduler.store.add_job(name, "it", OneShot(after(1 + n / 4)))
        await trio.sleep(60)
        assert len(await scheduler.store.list_runs(limit=999)) == 200
        assert scheduler.health().notifications_pending in (140, 141, 142)
        await scheduler.wait_idle()
        assert notifier.delivered == names
        assert scheduler.health().notifications_pending == 0
        assert {each.status for each in await scheduler.store.list_notifications(limit=999)} == {NotificationStatus.DELIVERED}


async def test_all_runs_of_one_job_are_delivered_in_order_however_far_the_receiver_is_behind(
    virtual_clock: VirtualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inbox, "INBOX_CAPACITY", 6)
    monkeypatch.setattr(inbox, "READY_PAGE", 3)
    runs: list[int] = []

    async def on_finish(job: CronJob, run: CronRun) -> None:
        await trio.sleep(3)
        runs.append(int(run.id))

    async with open_scheduler(":memory:", nothing, on_finish=on_finish) as scheduler:
        job_id = await scheduler.store.add_job("job", "it", Interval(1000))
        await trio.sleep(50.5)
        await scheduler.store.pause_job(job_id)
        await scheduler.wait_idle()
        assert runs == sorted(runs)
        assert len(runs) == 50
        assert trio.current_time() == pytest.approx(151, abs=1)
