"""Procrastinate: a queue of tasks in PostgreSQL, and asynchronous workers.

It keeps each job with its status, and when it was deferred, started and ended; not its result. Settings: no LISTEN, since all jobs are
there when a worker starts; a pool of as many connections as jobs may run at once, 20 at most (with 100 jobs 4, 10 and 50 connections
made no difference that shows, one halved the rate). The server is that of ``postgres.py``.
"""

from __future__ import annotations

import asyncio
import logging
import os
import sys
from typing import Any

import measuring
import psycopg
from procrastinate import App, PsycopgConnector

logging.disable(logging.CRITICAL)

ADDRESS = os.environ["CRONACTORS_BENCH_POSTGRES"]
TOOK = """SELECT count(*) FILTER (WHERE type = 'succeeded'), extract(epoch FROM max(at) FILTER (WHERE type = 'succeeded')
 - min(at) FILTER (WHERE type = 'started'))::float8 FROM procrastinate_events"""


def app(connections: int) -> App:
    return App(connector=PsycopgConnector(conninfo=ADDRESS, min_size=1, max_size=connections))


async def nothing() -> str:
    return "done"


async def _defer(count: int) -> None:
    made = app(1)
    task = made.task(name="nothing")(nothing)
    async with made.open_async():
        await made.schema_manager.apply_schema_async()
        for first in range(0, count, 1_000):
            await task.batch_defer_async(*({} for _ in range(min(1_000, count - first))))


def worker(slots: int) -> dict[str, Any]:
    """Run what is there."""
    made = app(min(slots + 1, 20))
    made.task(name="nothing")(nothing)

    async def work() -> None:
        async with made.open_async():
            await made.run_worker_async(concurrency=slots, wait=False, listen_notify=False)

    measuring.wait_for_start()
    asyncio.run(work())
    return {}


def throughput(slots: int = 100, count: int = 4_000, workers: int = 1) -> dict[str, Any]:
    asyncio.run(_defer(count))
    measuring.released(measuring.ready([[sys.executable, __file__, "worker", str(slots)]] * workers))
    with psycopg.connect(ADDRESS) as connection:
        done, took = connection.execute(TOOK).fetchone() or (0, 0)
    assert done == count, done
    return {"runs_per_s": count / took}


if __name__ == "__main__":
    measuring.answer(sys.argv[1:], worker, throughput)
