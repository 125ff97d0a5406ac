"""The pruner of a running scheduler: what it deletes, when it looks, and that it disturbs nothing."""

from __future__ import annotations

import logging
import sqlite3
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from datetime import timedelta
from pathlib import Path

import pytest
import trio

import cronactors
from cronactors import (
    Cron,
    CronConfig,
    CronJob,
    CronRun,
    CronScheduler,
    Fate,
    History,
    Interval,
    JobContext,
    JobSpec,
    OneShot,
    StoreUnavailable,
    open_scheduler,
    open_store,
)
from cronactors.actors import pruner
from cronactors.actors.pruner import PrunePiece
from cronactors.storage.protocol import Storage
from cronactors.storage.sqlite import SqliteStorage
from cronactors.testing import VirtualClock, simulate
from tests.workers import START, after, history, nothing

DAY = 86_400
ONE = History(days=None, per_job=1, keep_last=0)


def keeping(history: History | None) -> CronConfig:
    return CronConfig(max_concurrent_runs=4, history=history)


def read(scheduler: CronScheduler, statement: str) -> int:
    """Read a number from a file in memory: on a disk a simulated year would take minutes."""
    storage = scheduler._actors.service.actor.storage
    assert isinstance(storage, SqliteStorage)
    (number,) = storage._db.execute(statement).fetchone()
    return int(number)


def count_runs(scheduler: CronScheduler) -> int:
    return read(scheduler, "SELECT count(*) FROM runs")


def count_pages(scheduler: CronScheduler) -> int:
    return read(scheduler, "PRAGMA page_count")


# The file stays flat


async def test_the_file_of_a_simulated_year_is_flat_once_the_limit_is_reached(virtual_clock: VirtualClock) -> None:
    """A job that runs every six hours, of which ninety days are kept."""
    sizes = []
    async with open_scheduler(":memory:", nothing, config=keeping(History(per_job=None))) as scheduler:
        await scheduler.store.add_job("job", "it" * 100, Interval(6 * 3_600_000))
        for _ in range(12):
            await trio.sleep(DAY * 365 / 12)
            sizes.append(count_pages(scheduler))
        assert 90 * 4 <= count_runs(scheduler) <= 90 * 4 + 1
    assert sizes[0] < sizes[1] < sizes[2]
    assert sizes[-1] <= sizes[4], sizes


async def test_the_file_of_a_job_a_minute_is_flat(virtual_clock: VirtualClock) -> None:
    sizes = []
    limits = History(days=0.25, keep_last=10)
    async with open_scheduler(":memory:", nothing, config=keeping(limits)) as scheduler:
        await scheduler.store.add_job("job", "it", Interval(60_000))
        for _ in range(8):
            await trio.sleep(DAY / 8)
            sizes.append(count_pages(scheduler))
        assert 360 <= count_runs(scheduler) <= 360 + 10
    assert sizes[-1] <= sizes[3], sizes


async def test_the_file_of_a_job_a_second_is_flat(virtual_clock: VirtualClock) -> None:
    sizes = []
    limits = History(days=None, per_job=300, keep_last=10)
    async with open_scheduler(":memory:", nothing, config=keeping(limits)) as scheduler:
        await scheduler.store.add_job("job", "it", Interval(1_000))
        for _ in range(5):
            await trio.sleep(630)
            sizes.append(count_pages(scheduler))
            assert count_runs(scheduler) <= 300 + 602
    assert sizes[-1] <= sizes[2], sizes


# When it deletes


async def test_a_store_in_memory_keeps_everything_unless_limits_are_given(virtual_clock: VirtualClock) -> None:
    async with open_scheduler(":memory:", nothing) as scheduler:
        await scheduler.store.add_job("job", "it", Interval(DAY * 1_000))
        await trio.sleep(200 * DAY + 1)
        assert count_runs(scheduler) == 200


async def test_a_new_file_needs_no_announcement(
    virtual_clock: VirtualClock, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with open_scheduler(":memory:", nothing, config=keeping(ONE)) as scheduler:
        await scheduler.store.add_job("job", "it", Interval(60_000))
        await trio.sleep(3_630)
        assert len(await history(scheduler)) < 12
    assert "will be deleted" not in caplog.text


async def test_a_file_that_had_no_limits_is_announced_a_day_before(
    virtual_clock: VirtualClock, caplog: pytest.LogCaptureFixture
) -> None:
    async with open_store(":memory:") as store:
        async with open_scheduler(store, nothing, config=keeping(None)) as scheduler:
            await scheduler.store.add_job("job", "it", Interval(3_600_000))
            await trio.sleep(100 * DAY + 1)
            assert count_runs(scheduler) == 2_400
        assert caplog.text == ""
        for _ in range(2):
            async with open_scheduler(store, nothing, config=keeping(History())) as scheduler:
                await trio.sleep(0.4 * DAY)
                assert count_runs(scheduler) > 2_400
        warnings = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
        assert len(warnings) == 2, "each start announces it"
        assert (
            warnings[0]
            == warnings[1]
            == (
                "from 2026-04-12T00:00:01Z on history will be deleted: runs older than 90 days or beyond the newest 100,000 of their "
                "job, but not the newest 100 of each job (CronConfig.history; None keeps all of it)"
            )
        )
        async with open_scheduler(store, nothing, config=keeping(History())) as scheduler:
            await trio.sleep(0.3 * DAY)
            assert 90 * 24 <= count_runs(scheduler) <= 90 * 24 + 24


async def test_jobs_with_limits_of_their_own_are_pruned_though_the_settings_keep_everything(
    virtual_clock: VirtualClock, caplog: pytest.LogCaptureFixture
) -> None:
    async with open_scheduler(":memory:", nothing, config=keeping(None)) as scheduler:
        kept = await scheduler.store.add_job("kept", "it", Interval(60_000))
        short = await scheduler.store.add_job("short", "it", Interval(60_000), history=ONE)
        await trio.sleep(3_630)
        assert "history will be deleted: runs of jobs with a History of their own" in caplog.text
        assert len(await history(scheduler, short)) == 60
        await trio.sleep(DAY)
        assert len(await scheduler.store.list_runs(kept, limit=9_999)) == 60 + DAY // 60
        assert len(await history(scheduler, short)) < 20
        assert (await scheduler.store.update_job(short, history=None)).history is None
        before = len(await history(scheduler, short))
        await trio.sleep(3_600)
        assert len(await history(scheduler, short)) == before + 60
    assert caplog.text.count("will be deleted") == 1


async def test_a_store_without_a_scheduler_prunes_nothing(virtual_clock: VirtualClock, tmp_path: Path) -> None:
    async with open_store(tmp_path / "a.db", config=keeping(ONE)) as store:
        job = await store.add_job("job", "it", Interval(1_000))
        for _ in range(20):
            await trio.sleep(1_000)
            await store.record_run_complete(await store.record_run_start(job), "success")
        assert len(await store.list_runs(job, limit=100)) == 20


def test_a_simulation_reports_every_run() -> None:
    report = simulate(
        [JobSpec("job", "it", Interval(60_000))], nothing, start="2026-01-01T00:00Z", end="2026-01-02T00:00Z", config=keeping(ONE)
    )
    assert len(report.runs) == 1_439


# It disturbs nothing


async def test_notifications_are_delivered_before_their_runs_go(virtual_clock: VirtualClock, tmp_path: Path) -> None:
    """A receiver that fails for hours: its runs stay until it has accepted them or given them up."""
    seen: list[str] = []

    async def on_finish(job: CronJob, run: CronRun) -> None:
        seen.append(run.id)

    async with open_scheduler(":memory:", nothing, config=keeping(ONE), on_finish=on_finish) as scheduler:
        await scheduler.store.add_job("job", "it", Interval(10_000))
        await trio.sleep(7_205)
        await scheduler.wait_idle()
        assert len(seen) == len(set(seen)) == 720
        assert len(await history(scheduler)) < 70


@pytest.mark.parametrize("back", [5, 45, 3_600, 20_000])
async def test_a_jump_back_with_pruned_history_runs_no_moment_twice_and_silences_no_job(
    virtual_clock: VirtualClock, monkeypatch: pytest.MonkeyPatch, back: float
) -> None:
    monkeypatch.setattr(pruner, "LOOK_EVERY", 0.0)
    moments: Counter[tuple[str, object]] = Counter()

    async def executor(context: JobContext) -> None:
        moments[context.job_name, context.scheduled_at] += 1

    async with open_scheduler(":memory:", executor, config=keeping(ONE)) as scheduler:
        await scheduler.store.add_job("interval", "it", Interval(60_000))
        cron = await scheduler.store.add_job("cron", "it", Cron("* * * * *"))
        await scheduler.store.add_job("once", "it", OneShot(after(7_230)))
        await trio.sleep(7_250)
        assert sum(moments.values()) == 2 * 120 + 1
        assert len(await history(scheduler)) < 6
        assert (await scheduler.explain(cron, after(600))).outcome is Fate.PRUNED
        virtual_clock.set_wall(after(7_250 - back))
        await trio.sleep(back + 130)
        assert set(moments.values()) == {1}
        assert {name: moments[name, after(7_320)] for name in ("interval", "cron")} == {"interval": 1, "cron": 1}
        for job in await scheduler.store.list_jobs():
            assert job.name == "once" or (
                job.next_run_at is not None and job.next_run_at <= cronactors.now() + timedelta(minutes=1)
            )


async def test_a_clock_that_is_ahead_for_an_hour_costs_no_history(virtual_clock: VirtualClock, tmp_path: Path) -> None:
    async with open_scheduler(":memory:", nothing, config=keeping(History(days=1, keep_last=0))) as scheduler:
        await scheduler.store.add_job("job", "it", Interval(600_000))
        await trio.sleep(DAY)
        virtual_clock.set_wall(after(1_000 * DAY))
        await trio.sleep(3_600)
        virtual_clock.set_wall(after(DAY + 3_600))
        await trio.sleep(1_300)
        moments = [run.scheduled_at for run in await history(scheduler) if run.scheduled_at < START + timedelta(days=1)]
        assert len(moments) > 130


async def test_time_passes_no_faster_where_a_test_waits_for_something_else(virtual_clock: VirtualClock) -> None:
    async with open_scheduler(":memory:", nothing) as scheduler:
        await scheduler.store.add_job("job", "it", OneShot(after(10)))
        await trio.sleep(20)
        with trio.move_on_after(3_600):
            await trio.sleep_forever()
        assert scheduler._actors.pruner.deleted == 0


# In real time


@pytest.fixture
def eager(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("FIRST_LOOK", "LOOK_EVERY"):
        monkeypatch.setattr(pruner, name, 0.01)


def fill(path: Path, count: int) -> None:
    """Write runs that finished long ago, of a job that was removed."""
    with closing(sqlite3.connect(path)) as db, db:
        db.execute(
            """WITH RECURSIVE series (value) AS (SELECT 1 UNION ALL SELECT value + 1 FROM series WHERE value < ?)
             INSERT INTO runs (job_id, job_name, user_id, "trigger", manual, scheduled_at, attempt, failures, coalesced, status, ready_at,
             cancel_requested, started_at, completed_at, session_id)
             SELECT 'old', 'old', '', 'schedule', 0, value, 1, 0, 1, 'success', value, 0, value, value, '' FROM series""",
            (count,),
        )


async def left_in(path: Path) -> int:
    async with open_store(path) as store:
        return len(await store.list_runs(limit=10_000))


async def until(condition: Callable[[], bool]) -> None:
    with trio.fail_after(30):
        while not condition():
            await trio.sleep(0.01)


async def open_once(path: Path) -> None:
    async with open_scheduler(path, nothing):
        pass


async def test_a_large_history_goes_in_pieces_while_runs_go_on(
    tmp_path: Path, eager: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.db"
    pieces: list[float] = []
    original = PrunePiece.apply

    def apply(self: PrunePiece, storage: Storage) -> object:
        piece = original(self, storage)
        pieces.append(piece.seconds)
        return piece

    monkeypatch.setattr(PrunePiece, "apply", apply)
    await open_once(path)
    fill(path, 5_000)
    async with open_scheduler(path, nothing) as scheduler:
        job = await scheduler.store.add_job("job", "it", Interval(50))
        await until(lambda: scheduler._actors.pruner.deleted > 0)
        runs = await scheduler.store.list_runs(job, limit=1_000)
        assert len({run.scheduled_at for run in runs}) == len(runs) > 0
    assert len(pieces) > 3
    assert await left_in(path) < 1_000


async def test_a_store_that_fails_is_pruned_later(tmp_path: Path, eager: None, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.db"
    failures = [StoreUnavailable("no luck"), StoreUnavailable("again")]
    original = PrunePiece.apply

    def apply(self: PrunePiece, storage: Storage) -> object:
        piece = original(self, storage)
        if failures:
            raise failures.pop()
        return piece

    monkeypatch.setattr(PrunePiece, "apply", apply)
    await open_once(path)
    fill(path, 500)
    async with open_scheduler(path, nothing) as scheduler:
        await until(lambda: scheduler._actors.pruner.deleted > 0)
    assert not failures
    assert await left_in(path) == 100


async def test_no_piece_is_sent_just_before_a_moment(tmp_path: Path, eager: None) -> None:
    async with open_scheduler(tmp_path / "a.db", nothing) as scheduler:
        await scheduler.store.add_job("job", "it", OneShot(cronactors.now() + timedelta(milliseconds=15)))
        await scheduler._actors.pruner._until_clear()
        assert (await _first_run(scheduler)).started_at is not None


async def _first_run(scheduler: CronScheduler) -> CronRun:
    await scheduler.wait_idle()
    return (await history(scheduler))[0]
