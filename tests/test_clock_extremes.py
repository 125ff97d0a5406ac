"""Clocks that are wrong by years, restarts more frequent than an interval, and a one-shot that is moved while it is due."""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TypeAlias

import pytest
import trio

import cronactors
from cronactors import (
    Cause,
    Cron,
    CronConfig,
    CronScheduler,
    Interval,
    JobContext,
    JobSpec,
    OneShot,
    RetryPolicy,
    RunStatus,
    open_scheduler,
    open_store,
)
from cronactors.testing import VirtualClock
from tests.workers import Worker, after, history

BOOT = datetime(1970, 1, 1, tzinfo=UTC)
MINUTE, HOUR = 60, 3600
RHYTHMS = (JobSpec("interval", "it", Interval.every(minutes=1)), JobSpec("cron", "it", Cron("* * * * *")))


async def moments_of(scheduler: CronScheduler, name: str) -> list[datetime]:
    """Return the moments of a job that were run, in order of start; no moment has two rows unless it was retried."""
    job = await scheduler.store.get_job_by_name(name)
    assert job is not None
    rows = await scheduler.store.list_runs(job.id, 100_000)
    keys = Counter((row.scheduled_at, row.attempt) for row in rows)
    assert max(keys.values(), default=1) == 1, keys.most_common(3)
    assert all(row.status is not RunStatus.RUNNING for row in rows)
    return [row.scheduled_at for row in sorted(rows, key=lambda row: int(row.id)) if row.started_at is not None]


# Years back


@pytest.mark.parametrize("wrong", [datetime(2012, 1, 1, 12, tzinfo=UTC), BOOT, BOOT + timedelta(milliseconds=1)], ids=str)
async def test_a_clock_set_years_back_and_right_again_silences_no_job_and_repeats_no_moment(
    virtual_clock: VirtualClock, wrong: datetime
) -> None:
    worker = Worker(1)
    async with open_scheduler(":memory:", worker, config=CronConfig(max_concurrent_runs=5)) as scheduler:
        await scheduler.store.add_jobs([*RHYTHMS, JobSpec("once", "it", OneShot(after(20.5 * MINUTE)))])
        await trio.sleep(5.5 * MINUTE)
        for name in ("interval", "cron"):
            assert await moments_of(scheduler, name) == [after(n * MINUTE) for n in range(1, 6)]

        virtual_clock.set_wall(wrong)
        await trio.sleep(5.2 * MINUTE)
        for name in ("interval", "cron"):
            found = (await moments_of(scheduler, name))[5:]
            assert len(found) == 5, "the job keeps its rhythm under the wrong clock"
            assert all(wrong < moment <= wrong + timedelta(minutes=5) for moment in found)

        virtual_clock.set_wall(after(10.5 * MINUTE))
        await trio.sleep(15 * MINUTE)
        for name in ("interval", "cron"):
            found = (await moments_of(scheduler, name))[10:]
            assert found == [after(n * MINUTE) for n in range(10, 26)], "one merged run, then every moment"
        assert await moments_of(scheduler, "once") == [after(20.5 * MINUTE)]
        late = [run.coalesced for run in await history(scheduler) if run.scheduled_at == after(10 * MINUTE)]
        assert late == [1000, 1000], "what lies between the clocks is one run each; moments are counted to 1,000"


async def test_a_run_its_timeout_and_a_retry_do_not_notice_a_clock_set_to_2012_and_back(virtual_clock: VirtualClock) -> None:
    started: list[tuple[str, float]] = []

    async def executor(ctx: JobContext) -> None:
        started.append((ctx.job_name, trio.current_time()))
        if ctx.job_name == "fails" and ctx.attempt == 1:
            raise OSError("not now")
        await trio.sleep(60 if ctx.job_name == "long" else 0)

    config = CronConfig(max_concurrent_runs=5, retry=RetryPolicy(delays=(30,)))
    async with open_scheduler(":memory:", executor, config=config) as scheduler:
        await scheduler.store.add_jobs(
            [
                JobSpec("long", "it", OneShot(after(10)), timeout_secs=20, max_retries=0),
                JobSpec("fails", "it", OneShot(after(10))),
            ]
        )
        await trio.sleep(15)
        virtual_clock.set_wall("2012-01-01T00:00Z")
        await trio.sleep(5)
        virtual_clock.set_wall(after(20))
        await trio.sleep(60)
        runs = {(run.job_name, run.attempt): (run.status, run.cause) for run in await history(scheduler)}
        assert runs == {
            ("long", 1): (RunStatus.FAILED, Cause.TIMEOUT),
            ("fails", 1): (RunStatus.FAILED, Cause.ERROR),
            ("fails", 2): (RunStatus.SUCCESS, None),
        }
        (again,) = [at for name, at in started[2:] if name == "fails"]
        assert 10 <= again <= 41.1, "neither put off by years nor lost"


# A board without a battery


@pytest.mark.parametrize("seconds", [0, 5], ids=["at the first instant", "5 s later"])
@pytest.mark.parametrize("known", [False, True], ids=["new file", "file of before"])
async def test_a_start_in_1970_works_and_the_right_time_later_repeats_nothing(
    virtual_clock: VirtualClock, tmp_path: Path, seconds: float, known: bool
) -> None:
    file, worker = tmp_path / "agent.db", Worker(0.5)
    specs = [*RHYTHMS, JobSpec("daily", "it", Cron("0 3 * * *")), JobSpec("once", "it", OneShot(after(3.2 * HOUR)))]
    before = 0
    if known:
        async with open_scheduler(file, worker, jobs=specs) as scheduler:
            await trio.sleep(10.5 * MINUTE)
            before = len(await moments_of(scheduler, "interval"))
            assert before == 10

    virtual_clock.set_wall(BOOT + timedelta(seconds=seconds))
    async with open_scheduler(file, worker, jobs=specs) as scheduler:
        await trio.sleep(3.2 * MINUTE)
        for name in ("interval", "cron"):
            found = (await moments_of(scheduler, name))[before:]
            assert len(found) == 3, "minutes of 1970 are minutes too"
            assert all(moment < BOOT + timedelta(minutes=4) for moment in found)
        virtual_clock.set_wall(after(2.9 * HOUR + 10))  # the network has come up
        await trio.sleep(0.4 * HOUR)
        for name in ("interval", "cron"):
            found = (await moments_of(scheduler, name))[before + 3 :]
            assert len(found) == 25, "one merged run, then one each minute"
            assert found == sorted(found)
        assert (await moments_of(scheduler, "daily"))[-1] == after(3 * HOUR)
        assert await moments_of(scheduler, "once") == [after(3.2 * HOUR)]

    async with open_scheduler(file, worker, jobs=specs) as scheduler:
        count = len(await moments_of(scheduler, "interval"))
        await trio.sleep(5 * MINUTE)
        assert len(await moments_of(scheduler, "interval")) == count + 5
        assert await moments_of(scheduler, "once") == [after(3.2 * HOUR)]


# Restarts


@pytest.mark.parametrize("down", [0, 5], ids=["at once", "after 5 minutes"])
@pytest.mark.parametrize("hours", [1, 6])
async def test_an_interval_longer_than_the_time_between_restarts_still_runs(
    virtual_clock: VirtualClock, tmp_path: Path, hours: int, down: int
) -> None:
    worker = Worker()
    specs = (JobSpec("long", "it", Interval.every(hours=hours)), JobSpec("by call", "it", Interval.every(hours=hours)))
    config = CronConfig(jobs=specs[:1], origin="agent.toml")
    before = trio.current_time()
    while trio.current_time() < before + 3.5 * hours * HOUR:
        async with open_scheduler(tmp_path / "agent.db", worker, config=config, jobs=specs[1:]):
            await trio.sleep(20 * MINUTE)
        await trio.sleep(down * MINUTE)
    assert len({context.run_id for _, context in worker.seen}) == len(worker.seen) == 6
    for name in ("long", "by call"):
        ran = [(at, context.scheduled_at) for at, context in worker.seen if context.job_name == name]
        assert [moment for _, moment in ran] == [after(n * hours * HOUR) for n in (1, 2, 3)], "counted from when it was added"
        assert all(moment <= at <= moment + timedelta(minutes=down) for at, moment in ran)


# One-shots

Move: TypeAlias = Callable[[CronScheduler, str, datetime], Awaitable[object]]


async def _update(scheduler: CronScheduler, job_id: str, at: datetime) -> None:
    await scheduler.store.update_job(job_id, schedule=OneShot(at))


async def _upsert(scheduler: CronScheduler, job_id: str, at: datetime) -> None:
    assert await scheduler.store.upsert_job("once", "it", OneShot(at)) == job_id


async def _pause_and_resume(scheduler: CronScheduler, job_id: str, at: datetime) -> None:
    await scheduler.store.pause_job(job_id)
    await scheduler.store.update_job(job_id, schedule=OneShot(at))
    await scheduler.store.resume_job(job_id)


moves = pytest.mark.parametrize("move", [_update, _upsert, _pause_and_resume], ids=["update", "upsert", "paused meanwhile"])


@moves
@pytest.mark.parametrize("delete", [False, True], ids=["kept", "delete_after_run"])
async def test_a_one_shot_that_is_moved_while_it_is_due_runs_once_at_its_new_time(
    virtual_clock: VirtualClock, move: Move, delete: bool
) -> None:
    worker = Worker(60)
    async with open_scheduler(":memory:", worker) as scheduler:
        await scheduler.store.add_job("holds the slot", "it", OneShot(after(10)))
        options = {"delete_after_run": True} if delete and move is not _upsert else {}
        job_id = await scheduler.store.add_job("once", "it", OneShot(after(20)), **options)
        await trio.sleep(30)
        assert worker.names == ["holds the slot"]
        await move(scheduler, job_id, after(200))
        await trio.sleep(300)
        assert worker.times == [10, 200]
        rows = [(run.scheduled_at, run.status) for run in await history(scheduler, job_id)]
        assert rows == [(after(20), RunStatus.SKIPPED), (after(200), RunStatus.SUCCESS)]


@moves
async def test_a_one_shot_that_is_moved_while_it_runs_runs_again_at_its_new_time(virtual_clock: VirtualClock, move: Move) -> None:
    worker = Worker(60)
    async with open_scheduler(":memory:", worker) as scheduler:
        job_id = await scheduler.store.add_job("once", "it", OneShot(after(10)))
        await trio.sleep(30)
        await move(scheduler, job_id, after(200))
        await trio.sleep(300)
        assert worker.times == [10, 200]
        rows = [(run.scheduled_at, run.status) for run in await history(scheduler, job_id)]
        assert rows == [(after(10), RunStatus.SUCCESS), (after(200), RunStatus.SUCCESS)]
        assert not (await scheduler.store.get_job(job_id)).enabled


async def test_a_one_shot_that_is_moved_around_its_own_moment_runs_at_its_last_time(
    virtual_clock: VirtualClock,
) -> None:
    """Moved 200 times, a millisecond before, at, or a millisecond after it comes due: it runs once or twice, never thrice or not."""
    worker = Worker()
    async with open_scheduler(":memory:", worker) as scheduler:
        for number in range(200):
            before = len(worker.seen)
            due = cronactors.now() + timedelta(seconds=1)
            job_id = await scheduler.store.add_job(f"once {number}", "it", OneShot(due))
            await trio.sleep(1 + (number % 3 - 1) / 1000)
            moved = due + timedelta(seconds=5)
            await scheduler.store.update_job(job_id, schedule=OneShot(moved))
            await trio.sleep(10)
            moments = [context.scheduled_at for _, context in worker.seen[before:]]
            assert moments in ([moved], [due, moved])
            rows = {run.scheduled_at: run.status for run in await history(scheduler, job_id)}
            assert rows[moved] is RunStatus.SUCCESS
            assert rows.get(due, RunStatus.SKIPPED) is (RunStatus.SUCCESS if due in moments else RunStatus.SKIPPED)


async def test_a_one_shot_that_is_moved_while_its_retry_waits_replaces_the_retry(
    virtual_clock: VirtualClock, tmp_path: Path
) -> None:
    worker = Worker(failures=1)
    async with open_scheduler(tmp_path / "a.db", worker) as scheduler:
        job_id = await scheduler.store.add_job("once", "it", OneShot(after(10)))
        await trio.sleep(15)
        await scheduler.store.update_job(job_id, schedule=OneShot(after(100)))
        await trio.sleep(200)
        assert worker.times == [10, 100]
    async with open_store(tmp_path / "a.db") as store:
        ends = [(run.status, run.cause) for run in reversed(await store.list_runs(job_id))]
        assert ends == [
            (RunStatus.FAILED, Cause.ERROR),
            (RunStatus.CANCELLED, Cause.REPLACED),
            (RunStatus.SUCCESS, None),
        ]
