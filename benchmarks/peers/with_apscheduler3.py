"""APScheduler 3: jobs in SQLite by SQLAlchemyJobStore, a BackgroundScheduler, its thread pool of 10.

It keeps no record of runs: a one-shot is deleted when it is handed to the pool, before it runs, and nothing tells how it went.
Settings: WAL and synchronous=FULL by a listener of the engine, pickles of the highest protocol (the default), misfires never
dropped and merged into one (``misfire_grace_time=None``, ``coalesce=True``), as ours does. AsyncIOScheduler was tried: no faster.
"""

from __future__ import annotations

import logging
import sys
import tempfile
import threading
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import figures
import measuring
from apscheduler.events import EVENT_JOB_EXECUTED
from apscheduler.jobstores.sqlalchemy import SQLAlchemyJobStore
from apscheduler.schedulers.background import BackgroundScheduler
from apscheduler.triggers.cron import CronTrigger
from sqlalchemy import create_engine

logging.disable(logging.CRITICAL)
NOTE = {"note": "keeps no record of runs"}


def began_at() -> float:
    return time.time()


def scheduler_on(file: Path) -> BackgroundScheduler:
    engine = create_engine(f"sqlite:///{file}")
    figures.full_and_wal(engine)
    return BackgroundScheduler(
        jobstores={"default": SQLAlchemyJobStore(engine=engine)},
        job_defaults={"misfire_grace_time": None, "coalesce": True},
        timezone=UTC,
    )


def moment(timestamp: float) -> datetime:
    return datetime.fromtimestamp(timestamp, UTC)


def noting(scheduler: BackgroundScheduler, count: int = 0) -> tuple[list[tuple[float, float]], threading.Event]:
    """Every run as (due, began), and an event for the last of ``count``. A job is not told when it was due; a listener is."""
    runs: list[tuple[float, float]] = []
    all_done = threading.Event()

    def note(event: Any) -> None:
        runs.append((event.scheduled_run_time.timestamp(), event.retval))
        if len(runs) == count:
            all_done.set()

    scheduler.add_listener(note, EVENT_JOB_EXECUTED)
    return runs, all_done


def throughput(count: int = 10_000) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        scheduler = scheduler_on(figures.database(folder))
        _, all_done = noting(scheduler, count)
        scheduler.start(paused=True)
        due = moment(time.time())
        for _ in range(count):
            scheduler.add_job(began_at, "date", run_date=due)
        began = time.perf_counter()
        scheduler.resume()
        all_done.wait()
        took = time.perf_counter() - began
        scheduler.shutdown()
    return {"runs_per_s": count / took, "runs": count} | NOTE


def lateness(count: int = 200) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        scheduler = scheduler_on(figures.database(folder))
        runs, _ = noting(scheduler)
        scheduler.start()
        moments = figures.planned(count)
        for due in moments:
            scheduler.add_job(began_at, "date", run_date=moment(due))
        assert time.time() < moments[0]
        cpu_s = figures.cpu_during(moments[-1] + 0.5)
        scheduler.shutdown()
    return figures.of_lateness(runs, cpu_s) | NOTE


def every_second(count: int = 1_000) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        scheduler = scheduler_on(figures.database(folder))
        runs, _ = noting(scheduler)
        scheduler.start()
        first = int(time.time()) + 7
        for _ in range(count):
            scheduler.add_job(began_at, "interval", seconds=1, start_date=moment(first))
        assert time.time() < first - 1
        time.sleep(first - 1 - time.time())
        cpu_s = figures.cpu_during(first + 9.9)
        scheduler.shutdown(wait=False)
    return figures.of_lateness(figures.ten_seconds(first, runs), cpu_s) | NOTE


def add_sequential(count: int = 2_000) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        scheduler = scheduler_on(figures.database(folder))
        scheduler.start(paused=True)
        began = time.perf_counter()
        for number in range(count):
            scheduler.add_job(began_at, CronTrigger(minute=number % 60, hour=number % 24, timezone=UTC))
        took = time.perf_counter() - began
        scheduler.shutdown()
    return {"adds_per_s": count / took}


def fill(file: Path, count: int) -> None:
    scheduler = scheduler_on(file)
    scheduler.start(paused=True)
    scheduler.add_job(began_at, "date", run_date=moment(time.time() + figures.DAYS_1000))
    scheduler.shutdown()
    figures.multiply(file, "apscheduler_jobs", "id", "next_run_time", count)


def stored(count: int = 100_000, seconds: int = 10) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        file = figures.database(folder)
        figures.in_child(fill, file, count)
        began = time.perf_counter()
        scheduler = scheduler_on(file)
        scheduler.start()
        told = figures.idle(began, seconds)
        scheduler.shutdown()
    return told


def weight() -> dict[str, Any]:
    return {"import_ms": measuring.import_ms("apscheduler.schedulers.background, apscheduler.jobstores.sqlalchemy")}


if __name__ == "__main__":
    measuring.answer(sys.argv[1:], throughput, lateness, every_second, add_sequential, stored, weight)
