"""DBOS: durable workflows, their queues and cron schedules in a SQLite system database.

Settings: WAL and synchronous=FULL by a listener of all engines, for it makes its own; a queue without a limit that is looked at
every 50 ms, so that one transaction claims all that wait; two threads that run workflows (1, 4, 16 and its default, as many as
there are workflows, were tried: 0.95, 0.85, 0.8 and 0.6 times the rate). A workflow that begins later waits as DELAYED, a state
that DBOS looks at once a second; that cannot be set. A cron schedule has a thread of its own and starts up to a tenth of its
interval late, on purpose. ``stored`` holds delayed workflows: 100,000 cron schedules would ask for 100,000 threads. Cron schedules
are added by a DBOSClient, which runs nothing meanwhile.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import figures
import measuring
from dbos import DBOS, DBOSClient, SetEnqueueOptions
from sqlalchemy.engine import Engine

figures.full_and_wal(Engine)
APPLICATION = "bench"
QUEUE = "due"
RECORDED = "SELECT count(*) FROM workflow_status WHERE status = 'SUCCESS'"

runs: list[tuple[float, float]] = []


@DBOS.workflow()
def note(due: float) -> str:
    runs.append((due, time.time()))
    return "done"


@DBOS.workflow()
def note_scheduled(due: datetime, _context: object) -> str:
    runs.append((due.timestamp(), time.time()))
    return "done"


def address(file: Path) -> str:
    return f"sqlite:///{file}"


@contextmanager
def launched(file: Path, *, queue: bool = True) -> Iterator[None]:
    DBOS(
        config={
            "name": APPLICATION,
            "system_database_url": address(file),
            "application_version": "1",
            "executor_id": "bench",
            "log_level": "CRITICAL",
            "max_executor_threads": 2,
        }
    )
    DBOS.launch()
    if queue:
        DBOS.register_queue(QUEUE, polling_interval_sec=0.05)
    yield
    DBOS.destroy()


def throughput(count: int = 2_000) -> dict[str, Any]:
    """From the first start to the last record: it looks for new queues once a second."""
    with tempfile.TemporaryDirectory() as folder:
        file = figures.database(folder)
        with launched(file, queue=False):
            for _ in range(count):
                DBOS.enqueue_workflow(QUEUE, note, time.time())
            DBOS.register_queue(QUEUE, polling_interval_sec=0.05)
            figures.wait_for(runs, file, count, RECORDED)
            took = time.time() - min(began for _, began in runs)
    return {"runs_per_s": count / took, "runs": count}


def lateness(count: int = 200) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder, launched(figures.database(folder)):
        moments = figures.planned(count)
        for due in moments:
            with SetEnqueueOptions(delay_seconds=due - time.time()):
                DBOS.enqueue_workflow(QUEUE, note, due)
        assert time.time() < moments[0]
        cpu_s = figures.cpu_during(moments[-1] + 2)
        return figures.of_lateness(runs, cpu_s)


def prepare(file: Path) -> None:
    """Tables and the queue, by another process."""

    def once() -> None:
        with launched(file):
            pass

    figures.in_child(once)


def add_schedules(file: Path, expressions: Sequence[str]) -> float:
    """Add cron schedules one by one and answer how long it took, in seconds."""
    client = DBOSClient(system_database_url=address(file), application_name=APPLICATION)
    began = time.perf_counter()
    for number, expression in enumerate(expressions):
        client.create_schedule(
            schedule_name=f"job {number}", workflow_name=note_scheduled.__qualname__, schedule=expression, queue_name=QUEUE
        )
    took = time.perf_counter() - began
    client.destroy()
    return took


def every_second(count: int = 1_000) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        file = figures.database(folder)
        prepare(file)
        figures.in_child(add_schedules, file, ["* * * * * *"] * count)
        with launched(file):
            first = int(time.time()) + 4  # its threads have all been started by then
            time.sleep(first - 1 - time.time())
            cpu_s = figures.cpu_during(first + 9.9)
            return figures.of_lateness(figures.ten_seconds(first, runs), cpu_s)


def add_sequential(count: int = 2_000) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        file = figures.database(folder)
        prepare(file)
        expressions = [f"{number % 60} {number % 24} * * *" for number in range(count)]
        return {"adds_per_s": count / add_schedules(file, expressions)}


def fill(file: Path, count: int) -> None:
    with launched(file), SetEnqueueOptions(delay_seconds=figures.DAYS_1000):
        DBOS.enqueue_workflow(QUEUE, note, 0)
    figures.multiply(file, "workflow_status", "workflow_uuid", "delay_until_epoch_ms", count, per_s=1000)


def stored(count: int = 100_000, seconds: int = 10) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        file = figures.database(folder)
        figures.in_child(fill, file, count)
        began = time.perf_counter()
        with launched(file):
            return figures.idle(began, seconds) | {"note": "one-shots: a cron schedule takes a thread"}


def weight() -> dict[str, Any]:
    return {"import_ms": measuring.import_ms("dbos")}


if __name__ == "__main__":
    measuring.answer(sys.argv[1:], throughput, lateness, every_second, add_sequential, stored, weight)
