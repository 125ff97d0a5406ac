"""Notifications outlive their scheduler: crashes, cancellations, several schedulers on one file, a failing store, clocks set back."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path

import attrs
import pytest
import trio

from cronactors import (
    Alert,
    AlertKind,
    CronConfig,
    CronJob,
    CronRun,
    Interval,
    JobContext,
    JobSpec,
    NotificationStatus,
    OneShot,
    Receiver,
    RetryPolicy,
    StoreUnavailable,
    current_notification,
    now,
    open_scheduler,
    open_store,
)
from cronactors.actors import inbox, store_lifetime
from cronactors.actors.mailbox import Request
from cronactors.ledger.notification_columns import alert_to_column
from cronactors.storage.notifications import NotificationRow, Settlement
from cronactors.storage.protocol import Storage
from cronactors.storage.sqlite import SqliteStorage
from cronactors.storage.sqlite_notifications import SqliteNotifications
from cronactors.testing import VirtualClock
from tests.receivers import Notifier, shots
from tests.workers import START, nothing


async def test_a_call_that_the_end_of_its_scheduler_cuts_off_is_made_by_the_next(
    virtual_clock: VirtualClock, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    hanging, notifier = Notifier(seconds=29), Notifier()
    with trio.move_on_after(2):
        async with open_scheduler(tmp_path / "a.db", nothing, notifier=hanging) as scheduler:
            await scheduler.store.add_jobs(shots("a", "b"))
            await trio.sleep_forever()
    assert (len(hanging.calls), hanging.delivered) == (1, [])
    assert "notifier was cancelled before it returned for run 1; it is called again by the next scheduler" in caplog.text
    async with open_scheduler(tmp_path / "a.db", nothing, notifier=notifier) as scheduler:
        await scheduler.wait_idle()
        assert sorted(notifier.delivered) == ["a", "b"]
        found = await scheduler.store.list_notifications()
        assert {(each.status, each.attempts) for each in found} == {(NotificationStatus.DELIVERED, 0)}


@pytest.mark.parametrize(("kind", "attempts"), [(KeyboardInterrupt, 0), (SystemExit, 1)])
async def test_ctrl_c_in_a_call_costs_no_attempt_and_an_exit_does(
    virtual_clock: VirtualClock, tmp_path: Path, kind: type[BaseException], attempts: int
) -> None:
    async def notifier(job_name: str, session_id: str, result: str, success: bool) -> None:
        raise kind

    with pytest.raises(kind):
        async with open_scheduler(tmp_path / "a.db", nothing, notifier=notifier) as scheduler:
            await scheduler.store.add_jobs(shots("a"))
            await trio.sleep(100)
    assert trio.current_time() < 1.1, "the stop does not wait for the notification of that call"
    async with open_store(tmp_path / "a.db") as store:
        (found,) = await store.list_notifications()
    assert (found.status, found.attempts) == (NotificationStatus.PENDING, attempts)


async def test_what_waits_for_its_retry_is_tried_by_the_next_scheduler_when_it_is_due(
    virtual_clock: VirtualClock, tmp_path: Path
) -> None:
    notifier = Notifier(lambda name, call: call == 1)
    async with open_scheduler(tmp_path / "a.db", nothing, notifier=notifier) as scheduler:
        await scheduler.store.add_jobs(shots("a"))
        await trio.sleep(5)
        await scheduler.wait_idle()
    async with open_scheduler(tmp_path / "a.db", nothing, notifier=notifier):
        await trio.sleep(10)
    assert notifier.times() == pytest.approx([1, 11], abs=0.01)
    assert notifier.delivered == ["a"]


async def test_two_schedulers_with_different_receivers_share_a_file(virtual_clock: VirtualClock, tmp_path: Path) -> None:
    notifier, observed = Notifier(seconds=1), list[str]()

    async def on_finish(job: CronJob, run: CronRun) -> None:
        await trio.sleep(1)
        observed.append(run.id)

    async def executor(context: JobContext) -> None:
        await trio.sleep(1)

    async with open_store(tmp_path / "a.db") as store:
        await store.add_jobs(shots(*map(str, range(20))))
        async with (
            open_scheduler(store, executor, notifier=notifier) as one,
            open_scheduler(store, executor, on_finish=on_finish) as other,
        ):
            await trio.sleep(60)
            await one.wait_idle()
            await other.wait_idle()
            found = await store.list_notifications()
    assert Counter(each.receiver for each in found) == {"notifier": len(notifier.delivered), "on_finish": len(observed)}
    assert {each.status for each in found} == {NotificationStatus.DELIVERED}
    assert len({each.key for each in found}) == 20
    assert notifier.delivered
    assert observed


async def test_another_scheduler_takes_over_when_one_has_signed_off(virtual_clock: VirtualClock, tmp_path: Path) -> None:
    hanging, notifier = Notifier(seconds=29), Notifier()
    async with open_store(tmp_path / "a.db") as store:
        async with open_scheduler(store, nothing, notifier=hanging):
            await store.add_jobs(shots("a", "b", "c"))
            await trio.sleep(2)
            async with open_scheduler(store, nothing, notifier=notifier):
                await trio.sleep(2)
                assert notifier.calls == [], "the owner lives"
        async with open_scheduler(store, nothing, notifier=notifier):
            await trio.sleep(1)
    assert sorted(notifier.delivered) == ["a", "b", "c"]


async def test_of_two_open_schedulers_one_takes_over_what_the_other_leaves(virtual_clock: VirtualClock, tmp_path: Path) -> None:
    hanging, notifier = Notifier(seconds=29), Notifier()
    async with open_store(tmp_path / "a.db") as store, trio.open_nursery() as nursery:
        leave = trio.Event()

        async def first() -> None:
            async with open_scheduler(store, nothing, notifier=hanging):
                await leave.wait()

        nursery.start_soon(first)
        await trio.sleep(0.5)
        await store.add_jobs(shots("a", "b", "c"))
        await trio.sleep(2)
        async with open_scheduler(store, nothing, notifier=notifier):
            await trio.sleep(1)
            leave.set()
            await trio.sleep(10)  # it has 8 s to deliver them itself
            assert sorted(notifier.delivered) == ["a", "b", "c"]


async def test_runs_of_one_job_in_two_schedulers_are_notified_in_order(virtual_clock: VirtualClock, tmp_path: Path) -> None:
    order: list[int] = []

    async def slow(job: CronJob, run: CronRun) -> None:
        await trio.sleep(2.5)
        order.append(int(run.id))

    async with (
        open_store(tmp_path / "a.db") as store,
        open_scheduler(store, nothing, on_finish=slow),
        open_scheduler(store, nothing, on_finish=slow) as other,
    ):
        job_id = await store.add_job("job", "it", Interval(1000))
        await trio.sleep(30.5)
        await store.pause_job(job_id)
        await trio.sleep(100)
        await other.wait_idle()
    assert order == sorted(order)
    assert len(order) == 30


async def test_a_store_that_fails_while_results_are_stored_causes_no_second_call(
    virtual_clock: VirtualClock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    notifier, failures = Notifier(), 5
    settle = SqliteNotifications.settle

    def failing(self: SqliteNotifications, settlements: Sequence[Settlement], *, owner: int) -> list[NotificationRow]:
        nonlocal failures
        found = settle(self, settlements, owner=owner)
        if failures > 0:
            failures -= 1
            raise StoreUnavailable("made up")
        return found

    monkeypatch.setattr(SqliteNotifications, "settle", failing)
    async with open_scheduler(tmp_path / "a.db", nothing, notifier=notifier) as scheduler:
        await scheduler.store.add_jobs(shots(*"abcdef"))
        await trio.sleep(60)
        await scheduler.wait_idle()
        assert failures == 0
        assert sorted(notifier.delivered) == list("abcdef")
        assert {each.status for each in await scheduler.store.list_notifications()} == {NotificationStatus.DELIVERED}


@pytest.mark.parametrize("lost", ["finish", "settle"])
async def test_a_commit_whose_answer_is_lost_holds_up_no_notification(
    virtual_clock: VirtualClock, monkeypatch: pytest.MonkeyPatch, lost: str
) -> None:
    commit, left = SqliteStorage.commit, [lost]

    def lose_one(storage: SqliteStorage) -> None:
        status = "pending" if lost == "finish" else "delivered"
        hit = left and storage.notifications.page(before=None, status=status, receiver=None, limit=1)[0]
        commit(storage)
        if hit:
            left.clear()
            raise StoreUnavailable("made up: it was committed")

    monkeypatch.setattr(SqliteStorage, "commit", lose_one)
    notifier = Notifier(seconds=25)  # so that the second of its line waits
    async with open_scheduler(":memory:", nothing, notifier=notifier) as scheduler:
        job_id = await scheduler.store.add_job("a", "it", Interval(20_000))
        await trio.sleep(130)
        await scheduler.store.pause_job(job_id)
        await trio.sleep(100)
        assert not left
        assert notifier.delivered == ["a"] * 6
        assert scheduler.health().notifications_pending == 0


async def test_retries_move_with_a_clock_that_is_set_back(virtual_clock: VirtualClock) -> None:
    notifier = Notifier(lambda name, call: call == 1)
    receiver = Receiver(notifier, retry=RetryPolicy(delays=(600,)))
    async with open_scheduler(":memory:", nothing, notifier=receiver) as scheduler:
        await scheduler.store.add_jobs(shots("a"))
        await trio.sleep(10)
        virtual_clock.set_wall(START - timedelta(days=3))
        await trio.sleep(700)
        assert notifier.times() == pytest.approx([1, 601], abs=0.1)


async def test_retries_that_were_read_back_move_with_a_clock_that_is_set_back(
    virtual_clock: VirtualClock, tmp_path: Path
) -> None:
    notifier = Notifier(lambda name, call: call == 1)
    receiver = Receiver(notifier, retry=RetryPolicy(delays=(600,)))
    async with open_scheduler(tmp_path / "a.db", nothing, notifier=receiver) as scheduler:
        await scheduler.store.add_jobs(shots("a"))
        await trio.sleep(10)
    async with open_scheduler(tmp_path / "a.db", nothing, notifier=receiver):
        await trio.sleep(10)
        virtual_clock.set_wall(START - timedelta(days=3))
        await trio.sleep(700)
    assert notifier.times() == pytest.approx([1, 601], abs=0.1)


async def test_however_many_a_dead_owner_has_left_all_are_taken_over(
    virtual_clock: VirtualClock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module, name, value in ((store_lifetime, "TAKEN_OVER", 7), (inbox, "INBOX_CAPACITY", 20), (inbox, "READY_PAGE", 10)):
        monkeypatch.setattr(module, name, value)
    names = [f"{n:03}" for n in range(100)]
    async with open_scheduler(tmp_path / "a.db", nothing, notifier=Notifier(seconds=29)) as scheduler:
        await scheduler.store.add_jobs(shots(*names))
        await trio.sleep(2)
    notifier = Notifier()
    async with open_scheduler(tmp_path / "a.db", nothing, notifier=notifier) as scheduler:
        await trio.sleep(1)
        await scheduler.wait_idle()
    assert sorted(notifier.delivered) == names


@attrs.frozen
class WriteAlert(Request[None]):
    """Write an alert about a job, as the ledger does in the transaction that finds it."""

    job_id: str
    owner: int
    alert: Alert

    def apply(self, storage: Storage) -> None:
        column = alert_to_column(self.alert)
        key = f"failing:{self.job_id}"
        storage.notifications.insert(
            [NotificationRow(0, key, None, "on_alert", self.job_id, storage.now(), owner=self.owner, alert=column)]
        )


async def test_an_alert_that_any_transaction_writes_is_delivered(virtual_clock: VirtualClock) -> None:
    seen: list[tuple[str, str, Alert]] = []
    alert = Alert(kind=AlertKind.FAILING, since=START, count=3, text="It has failed three times.")

    async def on_alert(job: CronJob, alert: Alert) -> None:
        seen.append((job.name, current_notification().key, alert))

    async with open_scheduler(":memory:", nothing, on_alert=on_alert) as scheduler:
        job_id = await scheduler.store.add_job("job", "it", Interval(60_000))
        actors = scheduler._actors
        await actors.service.mailbox.call(WriteAlert(job_id, actors.pool.settings.owner, alert))
        await trio.sleep(0.1)
        await scheduler.wait_idle()
        assert seen == [("job", f"failing:{job_id}", alert)]
        (stored,) = await scheduler.store.list_notifications()
        assert (stored.run_id, stored.status) == (None, NotificationStatus.DELIVERED)


@attrs.frozen
class Lose(Request[int]):
    """Let another owner take over all notifications of one, as it does when the process of this one was stopped for long."""

    owner: int

    def apply(self, storage: Storage) -> int:
        return storage.notifications.take_over("notifier", owner=self.owner, by=99, limit=99)


async def test_what_another_scheduler_took_over_is_not_delivered_once_that_is_seen(virtual_clock: VirtualClock) -> None:
    notifier = Notifier(seconds=5)
    async with open_scheduler(":memory:", nothing, notifier=notifier) as scheduler:
        await scheduler.store.add_jobs(shots(*"abc"))
        await trio.sleep(2)
        actors = scheduler._actors
        assert await actors.service.mailbox.call(Lose(actors.pool.settings.owner)) == 3
        actors.receivers.taken_over(["notifier"])
        await trio.sleep(20)
    assert len(notifier.delivered) == 1


async def test_another_process_can_have_one_tried_again(tmp_path: Path) -> None:
    works: list[bool] = []
    notifier = Notifier(lambda name, call: not works)
    receiver = Receiver(notifier, attempts=1)
    async with open_scheduler(tmp_path / "a.db", nothing, notifier=receiver, tick_interval=0.02) as scheduler:
        await scheduler.store.add_job("a", "it", OneShot(now()))
        await scheduler.wait_idle()
        works.append(True)
        async with open_store(tmp_path / "a.db") as other:
            await other.retry_notification("run:1")
        with trio.fail_after(20):
            while not notifier.delivered:
                await trio.sleep(0.01)
    assert len(notifier.calls) == 2


# Cancelled at every step


class Steps(trio.abc.Instrument):
    """Cancels a scope before the n-th step of any task."""

    def __init__(self, at: int, scope: trio.CancelScope) -> None:
        self.left, self.scope = at, scope

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        self.left -= 1
        if self.left == 0:
            self.scope.cancel()


@pytest.mark.parametrize("first", range(0, 900, 60))
async def test_cancelled_at_any_step_no_notification_is_lost_and_order_is_kept(
    virtual_clock: VirtualClock, tmp_path: Path, first: int
) -> None:
    for at in range(first + 1, first + 61, 10):
        await cancel_at(tmp_path / f"{at}.db", at)


async def cancel_at(file: Path, at: int) -> None:
    calls: list[tuple[str, int]] = []
    finished: list[str] = []

    async def on_finish(job: CronJob, run: CronRun) -> None:
        calls.append((job.name, int(run.id)))
        await trio.sleep(0.3)
        if len(calls) % 4 == 0:
            raise ValueError("again")
        finished.append(current_notification().key)

    config = CronConfig(max_concurrent_runs=2)
    receiver = Receiver(on_finish, retry=RetryPolicy(delays=(0.5,)), attempts=9)
    with trio.CancelScope() as scope:
        async with open_store(file) as store:
            moments = [JobSpec(f"{n}", "it", OneShot(now() + timedelta(seconds=n / 5))) for n in range(4)]
            await store.add_jobs(moments)
            await store.add_job("often", "it", Interval(500))
        steps = Steps(at, scope)
        trio.lowlevel.add_instrument(steps)
        try:
            async with open_scheduler(file, nothing, on_finish=receiver, config=config):
                await trio.sleep(3)
                scope.cancel()
        finally:
            trio.lowlevel.remove_instrument(steps)
    async with open_scheduler(file, nothing, on_finish=receiver, config=config) as scheduler:
        await trio.sleep(1)
        often = await scheduler.store.get_job_by_name("often")
        assert often is not None
        await scheduler.store.pause_job(often.id)
        await trio.sleep(60)
        runs = await scheduler.store.list_runs(limit=100)
        assert {f"run:{run.id}" for run in runs if run.status == "success"} == set(finished)
        assert {each.status for each in await scheduler.store.list_notifications()} == {NotificationStatus.DELIVERED}
    for name in {name for name, _ in calls}:
        of_job = list(dict.fromkeys(run_id for job_name, run_id in calls if job_name == name))
        assert of_job == sorted(of_job)
