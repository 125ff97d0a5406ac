"""Opening a scheduler: jobs that are upserted, zones, and a clock that wakes for added jobs."""

from __future__ import annotations

import asyncio
import zoneinfo
from pathlib import Path

import attrs
import pytest
import trio

import cronactors
from cronactors import (
    Cron,
    CronConfig,
    CronError,
    Interval,
    InvalidJob,
    JobSpec,
    OneShot,
    RunStatus,
    SessionMode,
    open_scheduler,
    open_store,
)
from cronactors.testing import VirtualClock
from tests.workers import MINUTE, Worker, after, history

SKIPPED = JobSpec("skipped", "it", OneShot("2026-03-29 02:30"), timezone="Europe/Rome")
"""Its time does not exist."""


async def test_jobs_of_the_call_and_of_the_configuration_are_upserted_at_start(
    virtual_clock: VirtualClock, tmp_path: Path
) -> None:
    def config(*names: str) -> CronConfig:
        return CronConfig(jobs=tuple(JobSpec(name, "it", MINUTE) for name in names), origin="/etc/agent.toml")

    file = tmp_path / "a.db"
    async with open_scheduler(file, Worker(), jobs=[JobSpec("mine", "it", MINUTE)], config=config("a", "b")) as scheduler:
        ids = {job.name: job.id for job in await scheduler.store.list_jobs()}
        assert set(ids) == {"mine", "a", "b"}
        await trio.sleep(90)
    async with open_scheduler(file, Worker(), config=config("b", "c")) as scheduler:
        jobs = {job.name: job for job in await scheduler.store.list_jobs()}
        assert set(jobs) == {"mine", "b", "c"}
        assert (jobs["b"].id, jobs["b"].next_run_at) == (ids["b"], after(120))
        assert jobs["c"].next_run_at == after(150)


async def test_an_invalid_job_at_start_changes_nothing(virtual_clock: VirtualClock, tmp_path: Path) -> None:
    file = tmp_path / "a.db"
    good = CronConfig(jobs=(JobSpec("good", "it", MINUTE),), origin="list")
    async with open_scheduler(file, Worker(), config=good):
        pass
    other = attrs.evolve(good, jobs=(JobSpec("other", "it", MINUTE),))
    with pytest.raises(cronactors.InvalidSchedule, match="^job 'skipped': at .* does not exist"):
        async with open_scheduler(file, Worker(), jobs=[SKIPPED], config=other):
            pytest.fail("the block must not begin")
    with pytest.raises(InvalidJob, match=r"jobs\[1\]"):
        async with open_scheduler(file, Worker(), jobs=[SKIPPED, "job"], config=other):  # type: ignore[list-item]
            pytest.fail("the block must not begin")
    async with open_store(file) as store:
        assert [job.name for job in await store.list_jobs()] == ["good"]


async def test_the_zone_is_that_of_the_call_then_the_keyword_then_the_configuration(virtual_clock: VirtualClock) -> None:
    config = CronConfig(timezone="Asia/Tokyo")
    async with open_scheduler(":memory:", Worker(), timezone="Europe/Rome", config=config) as scheduler:
        rome = await scheduler.store.get_job(await scheduler.store.add_job("rome", "it", Cron("0 9 * * *")))
        assert (rome.timezone, rome.next_run_at) == ("Europe/Rome", after(8 * 3600))
        own = await scheduler.store.add_job("own", "it", Cron("0 9 * * *"), timezone="America/New_York")
        assert (await scheduler.store.get_job(own)).next_run_at == after(14 * 3600)
    async with open_scheduler(":memory:", Worker(), config=config) as scheduler:
        tokyo = await scheduler.store.get_job(await scheduler.store.add_job("tokyo", "it", Cron("0 9 * * *")))
        assert (tokyo.timezone, tokyo.next_run_at) == ("Asia/Tokyo", after(86_400))


async def test_an_earlier_job_wakes_the_clock(virtual_clock: VirtualClock) -> None:
    worker = Worker()
    async with open_scheduler(":memory:", worker) as scheduler:
        await scheduler.store.add_job("late", "it", OneShot(after(1000)))
        await trio.sleep(1)
        await scheduler.store.add_job("soon", "it", OneShot(after(5)))
        await trio.sleep(1)
        await scheduler.store.add_job("sooner", "it", OneShot(after(3)))
        await trio.sleep(2000)
        assert (worker.names, worker.times) == (["sooner", "soon", "late"], [3.0, 5.0, 1000.0])


async def test_a_week_misses_nothing_and_runs_nothing_twice(virtual_clock: VirtualClock) -> None:
    virtual_clock.set_wall("2026-03-26T00:00:00+01:00")  # the clock goes forward on the 29th
    worker = Worker(failures=2)
    async with open_scheduler(":memory:", worker, timezone="Europe/Rome") as scheduler:
        await scheduler.store.add_job("daily", "it", Cron("30 2 * * *"))
        await scheduler.store.add_job("hourly", "it", Interval.every(hours=1))
        await trio.sleep(7 * 86_400 + 1)
        runs = await history(scheduler)
        good = [(run.job_name, run.scheduled_at) for run in runs if run.status is RunStatus.SUCCESS]
        assert len(good) == len(set(good)) == 7 + 7 * 24
        assert len(runs) == len(good) + 2
        rome = zoneinfo.ZoneInfo("Europe/Rome")
        daily = [at.astimezone(rome).strftime("%d %H:%M") for name, at in good if name == "daily"]
        assert daily == ["26 02:30", "27 02:30", "28 02:30", "29 03:00", "30 02:30", "31 02:30", "01 02:30"]


async def test_a_store_that_is_handed_in_keeps_its_zone_and_defaults(virtual_clock: VirtualClock) -> None:
    config = CronConfig(default_max_retries=7, default_timeout_secs=9)
    async with (
        open_store(":memory:", timezone="Europe/Rome", config=config) as store,
        open_scheduler(store, Worker()) as scheduler,
    ):
        job = await scheduler.store.get_job(await scheduler.store.add_job("job", "it", Cron("@daily")))
        assert (job.timezone, job.max_retries, job.timeout_secs) == ("Europe/Rome", 7, 9)


def test_without_trio_the_message_says_so(tmp_path: Path) -> None:
    async def main() -> None:
        async with open_scheduler(tmp_path / "a.db", Worker()):
            pytest.fail("the block must not begin")

    with pytest.raises(CronError, match=r"trio\.run"):
        asyncio.run(main())
    assert list(tmp_path.iterdir()) == []


async def test_a_store_belongs_to_its_run_of_trio(virtual_clock: VirtualClock) -> None:
    async with open_store(":memory:") as store:
        with pytest.raises(CronError, match="another trio.run"):
            await trio.to_thread.run_sync(lambda: trio.run(store.list_jobs))
        assert await store.list_jobs() == []


async def test_a_job_that_cannot_be_added_is_named(virtual_clock: VirtualClock) -> None:
    jobs = [JobSpec("good", "it", Interval(1000)), SKIPPED]
    with pytest.raises(cronactors.InvalidSchedule, match=r"^job 'skipped': at "):
        async with open_scheduler(":memory:", Worker(), jobs=jobs):
            pytest.fail("the block must not begin")


async def test_a_store_that_is_handed_in_keeps_its_settings_when_only_the_zone_is_given(virtual_clock: VirtualClock) -> None:
    config = CronConfig(default_max_retries=7, max_concurrent_runs=3)
    async with (
        open_store(":memory:", config=config) as store,
        open_scheduler(store, Worker(), timezone="Asia/Tokyo") as scheduler,
    ):
        job = await scheduler.store.get_job(await scheduler.store.add_job("a", "it", MINUTE))
        assert (job.max_retries, job.timezone) == (7, "Asia/Tokyo")
        assert scheduler._actors.pool.slots.count == 3


async def test_an_opening_that_fails_leaves_no_owner_behind(virtual_clock: VirtualClock) -> None:
    async with open_store(":memory:") as store:
        for _ in range(2):
            with pytest.raises(cronactors.InvalidSchedule):
                async with open_scheduler(store, Worker(), jobs=[SKIPPED]):
                    pytest.fail("the block must not begin")
        assert store._service.owners == set()


async def test_a_limit_over_all_schedulers_does_not_hide_due_jobs_behind_waiting_runs(virtual_clock: VirtualClock) -> None:
    worker = Worker(60)
    config = CronConfig(max_concurrent_runs=10, max_concurrent_runs_total=10)
    main = [JobSpec(f"main {number}", "it", OneShot(after(60)), session_mode=SessionMode.MAIN) for number in range(500)]
    async with open_scheduler(":memory:", worker, config=config, jobs=[*main, JobSpec("other", "it", OneShot(after(61)))]):
        await trio.sleep(70)
        assert "other" in worker.names
