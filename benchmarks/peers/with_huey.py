"""Huey: a queue of tasks in SQLite (SqliteHuey), its consumer with worker threads.

It keeps the result of a task, not when it began and ended. A task is taken from the queue before it runs: a crash loses it.
Settings: WAL and ``fsync=True``, which is synchronous=FULL; two worker threads (1 and 4 threads, and processes, were tried: no
faster, they share one write lock); workers look for tasks every 10 ms, when idle every 100 ms; what is scheduled is looked for
every second, the least it takes. Tasks due now go straight into the queue, its fastest way.
"""

from __future__ import annotations

import logging
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import figures
import measuring
from huey import SqliteHuey
from huey.api import TaskWrapper

logging.disable(logging.CRITICAL)

runs: list[tuple[float, float]] = []


def note(due: float) -> str:
    runs.append((due, time.time()))
    return "done"


def task_in(file: Path) -> TaskWrapper:
    huey = SqliteHuey("bench", filename=str(file), fsync=True, journal_mode="wal", timeout=30)
    return huey.task()(note)


@contextmanager
def consumer_of(task: TaskWrapper) -> Iterator[None]:
    consumer = task.huey.create_consumer(workers=2, initial_delay=0.01, max_delay=0.1, scheduler_interval=1)
    consumer.start()
    yield
    consumer.stop(graceful=True)


def local(timestamp: float) -> datetime:
    return datetime.fromtimestamp(timestamp, UTC)


def throughput(count: int = 10_000) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        file = figures.database(folder)
        task = task_in(file)
        for _ in range(count):
            task(time.time())
        began = time.perf_counter()
        with consumer_of(task):
            figures.wait_for(runs, file, count, "SELECT count(*) FROM kv")
            took = time.perf_counter() - began
    return {"runs_per_s": count / took, "runs": count, "note": "keeps results, not when a run began and ended"}


def lateness(count: int = 200) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        task = task_in(figures.database(folder))
        with consumer_of(task):
            moments = figures.planned(count)
            for due in moments:
                task.schedule((due,), eta=local(due))
            assert time.time() < moments[0]
            cpu_s = figures.cpu_during(moments[-1] + 2)
    return figures.of_lateness(runs, cpu_s)


def every_second() -> dict[str, Any]:
    return {"error": "its periodic tasks have a resolution of one minute"}


def add_sequential(count: int = 2_000) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        task = task_in(figures.database(folder))
        at = time.time() + figures.DAYS_1000
        began = time.perf_counter()
        for number in range(count):
            task.schedule((0,), eta=local(at + number))
        took = time.perf_counter() - began
    return {"adds_per_s": count / took, "note": "one-shots: cron jobs are declared in code, not stored"}


def fill(file: Path, count: int) -> None:
    task = task_in(file)
    task.huey.add_schedule(task.s(0, eta=local(time.time() + figures.DAYS_1000)))  # as a worker does with what is not due
    figures.multiply(file, "schedule", "id", "timestamp", count)


def stored(count: int = 100_000, seconds: int = 10) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        file = figures.database(folder)
        figures.in_child(fill, file, count)
        began = time.perf_counter()
        with consumer_of(task_in(file)):
            return figures.idle(began, seconds)


def weight() -> dict[str, Any]:
    return {"import_ms": measuring.import_ms("huey")}


if __name__ == "__main__":
    measuring.answer(sys.argv[1:], throughput, lateness, every_second, add_sequential, stored, weight)
