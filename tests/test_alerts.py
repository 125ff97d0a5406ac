"""Alerts as a program gets them: on_alert of open_scheduler, on virtual time."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import attrs
import pytest
import trio

from cronactors import (
    Alert,
    AlertKind,
    CronConfig,
    CronJob,
    Interval,
    JobContext,
    JobSpec,
    NotificationStatus,
    OneShot,
    current_notification,
    now,
    open_scheduler,
    open_store,
)
from cronactors.actors import overdue
from cronactors.instants import to_millis
from cronactors.testing import VirtualClock
from tests.workers import nothing

MINUTE, HOUR = 60, 3600


@attrs.define
class Watcher:
    """Notes its alerts: name of the job, kind and count."""

    seen: list[tuple[str, str, int]] = attrs.field(factory=list)
    alerts: list[Alert] = attrs.field(factory=list)
    keys: list[str] = attrs.field(factory=list)
    times: list[str] = attrs.field(factory=list)
    fails: int = 0

    async def on_alert(self, job: CronJob, alert: Alert) -> None:
        if self.fails:
            self.fails -= 1
            raise RuntimeError("the pager is off")
        self.seen.append((job.name, alert.kind.value, alert.count))
        self.alerts.append(alert)
        self.keys.append(current_notification().key)
        self.times.append(now().strftime("%H:%M:%S"))


def minutely(name: str = "job", **options: object) -> JobSpec:
    return JobSpec(name, "it", Interval.every(minutes=1), max_retries=0, **options)  # type: ignore[arg-type]


async def fails(ctx: JobContext) -> None:
    raise ConnectionError("no route to host")


def fails_until(minute: int) -> Callable[[JobContext], object]:
    async def executor(ctx: JobContext) -> None:
        if now().minute < minute:
            raise ConnectionError("no route to host")

    return executor


async def test_failures_in_a_row_are_an_alert_and_so_is_the_success_after_them(virtual_clock: VirtualClock) -> None:
    watcher = Watcher()
    async with open_scheduler(":memory:", fails_until(12), on_alert=watcher.on_alert, jobs=[minutely()]) as scheduler:
        await trio.sleep(20.5 * MINUTE)
        listed = await scheduler.store.list_notifications(receiver="on_alert")
    assert watcher.seen == [("job", "failing", 3), ("job", "failing", 10), ("job", "recovered", 11)]
    assert watcher.times == ["00:03:00", "00:10:00", "00:12:00"]
    assert [alert.since.strftime("%H:%M:%S") for alert in watcher.alerts] == ["00:01:00", "00:01:00", "00:12:00"]
    assert [each.key for each in reversed(listed)] == watcher.keys
    assert {each.status for each in listed} == {NotificationStatus.DELIVERED}
    assert all(
        key.split(":")[:2] == [alert.kind.value, listed[0].job_id]
        for key, alert in zip(watcher.keys, watcher.alerts, strict=True)
    )


async def test_without_on_alert_nothing_is_written(virtual_clock: VirtualClock) -> None:
    async def on_finish(job: CronJob, run: object) -> None: ...

    async with open_scheduler(":memory:", fails, on_finish=on_finish, jobs=[minutely()]) as scheduler:
        await trio.sleep(20 * MINUTE)
        assert await scheduler.store.list_notifications(receiver="on_alert") == []


async def test_an_alert_is_delivered_again_until_it_is_accepted(virtual_clock: VirtualClock) -> None:
    watcher = Watcher(fails=2)
    async with open_scheduler(":memory:", fails, on_alert=watcher.on_alert, jobs=[minutely()]):
        await trio.sleep(9.5 * MINUTE)
    assert watcher.seen == [("job", "failing", 3)]
    assert watcher.times == ["00:04:10"]  # retried after 10 s and a minute


async def test_an_alert_of_the_last_run_before_the_end_of_the_block_is_delivered(virtual_clock: VirtualClock) -> None:
    async def fails_later(ctx: JobContext) -> None:
        await trio.sleep(2)
        raise ConnectionError("no route to host")

    watcher = Watcher()
    async with open_scheduler(":memory:", fails_later, on_alert=watcher.on_alert, jobs=[minutely()]) as scheduler:
        await trio.sleep(3 * MINUTE + 1)
        await scheduler.wait_idle()
        assert watcher.seen == [("job", "failing", 3)]
        await trio.sleep(7 * MINUTE - 1)  # run 10 ends in the grace of the shutdown
    assert watcher.seen == [("job", "failing", 3), ("job", "failing", 10)]


async def test_an_alert_that_was_not_delivered_is_delivered_by_the_next_start(
    virtual_clock: VirtualClock, tmp_path: Path
) -> None:
    first, second = Watcher(fails=100), Watcher()
    path = tmp_path / "agent.db"
    async with open_scheduler(path, fails, on_alert=first.on_alert, jobs=[minutely()]):
        await trio.sleep(3.5 * MINUTE)
    async with open_scheduler(path, fails, on_alert=second.on_alert):
        await trio.sleep(MINUTE)  # its next retry is due
    assert (first.seen, second.seen) == ([], [("job", "failing", 3)])


async def test_of_two_schedulers_on_one_file_one_delivers_each_alert(virtual_clock: VirtualClock, tmp_path: Path) -> None:
    one, two = Watcher(), Watcher()
    async with (
        open_store(tmp_path / "agent.db") as store,
        open_scheduler(store, fails, on_alert=one.on_alert, jobs=[minutely()]),
        open_scheduler(store, fails, on_alert=two.on_alert),
    ):
        await trio.sleep(10.5 * MINUTE)
    assert sorted(one.seen + two.seen) == [("job", "failing", 3), ("job", "failing", 10)]


async def test_a_scheduler_without_the_receiver_leaves_the_alert_to_one_that_has_it(
    virtual_clock: VirtualClock, tmp_path: Path
) -> None:
    watcher = Watcher()
    async with (
        open_store(tmp_path / "agent.db") as store,
        open_scheduler(store, fails, on_alert=watcher.on_alert, config=CronConfig(max_concurrent_runs=1)),
        open_scheduler(store, fails, jobs=[minutely()]),
    ):
        await trio.sleep(3.5 * MINUTE)
    assert watcher.seen == [("job", "failing", 3)]


async def test_a_moment_that_finds_no_slot_is_overdue_once(virtual_clock: VirtualClock) -> None:
    async def hangs(ctx: JobContext) -> None:
        await trio.sleep(1.9 * HOUR if ctx.job_name == "long" else 0)

    watcher = Watcher()
    jobs = [
        JobSpec("long", "it", OneShot("2026-01-01T00:00:30Z")),
        minutely("waits"),
        JobSpec("hourly", "it", Interval.every(hours=1)),
    ]
    async with open_scheduler(":memory:", hangs, on_alert=watcher.on_alert, jobs=jobs):
        await trio.sleep(2 * HOUR)
        assert [seen[:2] for seen in watcher.seen] == [("waits", "overdue"), ("hourly", "overdue")]
        assert watcher.times[0] == "00:06:30"  # due at 00:01:00, for 5 min, and then half a minute
        assert "01:05:00" <= watcher.times[1] <= "01:06:00"
        assert [to_millis(alert.since) % (HOUR * 1000) for alert in watcher.alerts] == [MINUTE * 1000, 0]
        await trio.sleep(1 * HOUR)
    assert len(watcher.seen) == 2


async def test_overdue_after_may_be_shorter_or_none(virtual_clock: VirtualClock) -> None:
    async def hangs(ctx: JobContext) -> None:
        await trio.sleep(HOUR)

    jobs = [minutely("a"), minutely("b")]
    for limit, seen in ((10.0, ["00:01:11"]), (None, [])):
        virtual_clock.set_wall("2026-01-01T00:00:00Z")
        watcher = Watcher()
        config = CronConfig(overdue_after=limit)
        async with open_scheduler(":memory:", hangs, on_alert=watcher.on_alert, jobs=jobs, config=config, shutdown_grace=0):
            await trio.sleep(0.5 * HOUR)
        assert watcher.times == seen


async def test_a_scheduler_that_keeps_up_never_looks_for_overdue_moments(
    virtual_clock: VirtualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked = []
    check = overdue.OverdueWatch._check

    async def counted(watch: overdue.OverdueWatch) -> None:
        looked.append(now())
        await check(watch)

    monkeypatch.setattr(overdue.OverdueWatch, "_check", counted)
    async with open_scheduler(":memory:", nothing, on_alert=Watcher().on_alert, jobs=[minutely()]):
        await trio.sleep(24 * HOUR)
    assert looked == []


async def test_a_clock_set_ahead_is_no_overdue_moment(virtual_clock: VirtualClock) -> None:
    watcher = Watcher()
    async with open_scheduler(":memory:", nothing, on_alert=watcher.on_alert, jobs=[minutely()]):
        await trio.sleep(90)
        virtual_clock.set_wall("2026-01-01T08:00:00Z")
        await trio.sleep(HOUR)
    assert watcher.seen == []


async def test_many_overdue_jobs_are_reported_in_pieces(virtual_clock: VirtualClock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cronactors.ledger.alerting.MOST_OVERDUE", 7)
    monkeypatch.setattr(overdue, "MOST_AT_ONCE", 3)

    async def hangs(ctx: JobContext) -> None:
        await trio.sleep(HOUR)

    watcher = Watcher()
    jobs = [JobSpec(f"job {n}", "it", OneShot("2026-01-01T00:01:00Z")) for n in range(31)]
    async with open_scheduler(":memory:", hangs, on_alert=watcher.on_alert, jobs=jobs, shutdown_grace=0):
        await trio.sleep(0.5 * HOUR)
    assert len(set(watcher.seen)) == len(watcher.seen) == 30


async def test_a_run_that_ignores_its_timeout_is_stuck_once(virtual_clock: VirtualClock) -> None:
    async def stubborn(ctx: JobContext) -> None:
        with trio.CancelScope(shield=True):
            await trio.sleep(HOUR)

    watcher = Watcher()
    jobs = [JobSpec("stubborn", "it", OneShot("2026-01-01T00:01:00Z"), timeout_secs=60)]
    async with open_scheduler(":memory:", stubborn, on_alert=watcher.on_alert, jobs=jobs):
        await trio.sleep(HOUR / 2)
    assert watcher.seen == [("stubborn", "stuck", 1)]
    assert watcher.alerts[0].text.endswith("is still running, 5 s after it was cancelled (timeout)")
    assert watcher.alerts[0].since.strftime("%H:%M:%S") == "00:02:00"
    assert watcher.keys == ["stuck:1"]


async def test_moments_that_were_missed_while_nothing_was_running_are_an_alert_at_the_next_start(
    virtual_clock: VirtualClock, tmp_path: Path
) -> None:
    watcher = Watcher()
    for _ in range(2):
        async with open_scheduler(tmp_path / "agent.db", nothing, on_alert=watcher.on_alert, jobs=[minutely()]):
            await trio.sleep(90)
        await trio.sleep(HOUR - 90)
    assert watcher.seen == [("job", "missed", 58)]  # from 00:02 to 00:59
    assert watcher.alerts[0].kind is AlertKind.MISSED


async def test_the_job_of_an_alert_may_be_gone_when_it_is_delivered(virtual_clock: VirtualClock) -> None:
    watcher = Watcher(fails=1)
    async with open_scheduler(":memory:", fails, on_alert=watcher.on_alert, jobs=[minutely()]) as scheduler:
        await trio.sleep(3 * MINUTE + 5)
        await scheduler.store.remove_job_by_name("job")
        await trio.sleep(MINUTE)
    assert watcher.seen == [("job", "failing", 3)]
