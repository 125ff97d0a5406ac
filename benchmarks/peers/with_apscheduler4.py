"""APScheduler 4 (a pre-release): schedules, jobs and results in SQLite by SQLAlchemyDataStore, an AsyncScheduler on asyncio.

Settings: WAL and synchronous=FULL by a listener of the engine; an asynchronous engine, which its documentation prefers (a
synchronous one in worker threads was tried: within the noise), with one connection, so that writers wait for each other and not
for SQLite's lock (1.2 times the rate of the default pool); 100 jobs at once (the default) and no limit per task; coroutines as
jobs; results kept for an hour, for without a time they are not kept. A one-shot is a schedule with a DateTrigger. Work without a
moment, put into its queue of jobs by ``add_job``, needs no schedule: the scenario ``throughput_unscheduled``.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import figures
import measuring
from apscheduler import AsyncScheduler, TaskDefaults, current_job
from apscheduler.datastores.sqlalchemy import SQLAlchemyDataStore
from apscheduler.triggers.cron import CronTrigger
from apscheduler.triggers.date import DateTrigger
from apscheduler.triggers.interval import IntervalTrigger
from sqlalchemy.ext.asyncio import create_async_engine

logging.disable(logging.CRITICAL)
KEPT_S = 3600

runs: list[tuple[float, float]] = []


async def note() -> str:
    due = current_job.get().scheduled_fire_time
    runs.append((due.timestamp() if due else 0, time.time()))
    return "done"


@asynccontextmanager
async def scheduler_on(file: Path) -> AsyncIterator[AsyncScheduler]:
    engine = create_async_engine(f"sqlite+aiosqlite:///{file}", pool_size=1, max_overflow=0)
    figures.full_and_wal(engine.sync_engine)
    defaults = TaskDefaults(job_executor="async", max_running_jobs=None)
    async with AsyncScheduler(SQLAlchemyDataStore(engine), task_defaults=defaults) as scheduler:
        yield scheduler
    await engine.dispose()


def moment(timestamp: float) -> datetime:
    return datetime.fromtimestamp(timestamp, UTC)


async def _throughput(count: int, scheduled: bool) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        file = figures.database(folder)
        async with scheduler_on(file) as scheduler:
            for _ in range(count):
                if scheduled:
                    await scheduler.add_schedule(note, DateTrigger(datetime.now(UTC)), job_result_expiration_time=KEPT_S)
                else:
                    await scheduler.add_job(note, result_expiration_time=KEPT_S)
            began = time.perf_counter()
            await scheduler.start_in_background()
            await asyncio.to_thread(figures.wait_for, runs, file, count, "SELECT count(*) FROM job_results")
            took = time.perf_counter() - began
    return {"runs_per_s": count / took, "runs": count}


def throughput(count: int = 1_000) -> dict[str, Any]:
    return asyncio.run(_throughput(count, scheduled=True))


def throughput_unscheduled(count: int = 1_000) -> dict[str, Any]:
    return asyncio.run(_throughput(count, scheduled=False))


async def cpu_during(until: float) -> float:
    used = time.process_time()
    await asyncio.sleep(until - time.time())
    return time.process_time() - used


async def _lateness(count: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        async with scheduler_on(figures.database(folder)) as scheduler:
            moments = figures.planned(count, margin=1 + count / 100)
            for due in moments:
                await scheduler.add_schedule(note, DateTrigger(moment(due)), job_result_expiration_time=KEPT_S)
            await scheduler.start_in_background()
            assert time.time() < moments[0]
            cpu_s = await cpu_during(moments[-1] + 0.5)
            return figures.of_lateness(runs, cpu_s)


def lateness(count: int = 200) -> dict[str, Any]:
    return asyncio.run(_lateness(count))


async def _every_second(count: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        async with scheduler_on(figures.database(folder)) as scheduler:
            first = int(time.time() + 3 + count / 100)
            for _ in range(count):
                trigger = IntervalTrigger(seconds=1, start_time=moment(first))
                await scheduler.add_schedule(note, trigger, job_result_expiration_time=KEPT_S)
            await scheduler.start_in_background()
            assert time.time() < first - 1
            await asyncio.sleep(first - 1 - time.time())
            cpu_s = await cpu_during(first + 9.9)
            return figures.of_lateness(figures.ten_seconds(first, runs), cpu_s)


def every_second(count: int = 1_000) -> dict[str, Any]:
    return asyncio.run(_every_second(count))


async def _add_sequential(count: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        async with scheduler_on(figures.database(folder)) as scheduler:
            began = time.perf_counter()
            for number in range(count):
                await scheduler.add_schedule(note, CronTrigger(minute=number % 60, hour=number % 24, timezone=UTC))
            return {"adds_per_s": count / (time.perf_counter() - began)}


def add_sequential(count: int = 1_000) -> dict[str, Any]:
    return asyncio.run(_add_sequential(count))


async def _fill(file: Path) -> None:
    async with scheduler_on(file) as scheduler:
        await scheduler.add_schedule(note, DateTrigger(moment(time.time() + figures.DAYS_1000)))


def fill(file: Path, count: int) -> None:
    asyncio.run(_fill(file))
    figures.multiply(file, "schedules", "id", "next_fire_time", count, per_s=1_000_000)


async def _stored(file: Path, seconds: float) -> dict[str, Any]:
    began = time.perf_counter()
    async with scheduler_on(file) as scheduler:
        await scheduler.start_in_background()
        ready = time.perf_counter() - began
        gc.collect()
        return figures.of_idling(ready, await cpu_during(time.time() + seconds), seconds)


def stored(count: int = 100_000, seconds: int = 10) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        file = figures.database(folder)
        figures.in_child(fill, file, count)
        return asyncio.run(_stored(file, seconds))


def weight() -> dict[str, Any]:
    return {"import_ms": measuring.import_ms("apscheduler, apscheduler.datastores.sqlalchemy, sqlalchemy.ext.asyncio, aiosqlite")}


if __name__ == "__main__":
    measuring.answer(sys.argv[1:], throughput, throughput_unscheduled, lateness, every_second, add_sequential, stored, weight)
