"""Scenarios of cronactors. Each returns a dict of figures.

python benchmarks/ours.py NAME [NUMBER ...]
"""

from __future__ import annotations

import gc
import os
import resource
import sqlite3
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import closing
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import measuring
import trio

from cronactors import Cron, CronConfig, CronJob, CronRun, Interval, JobContext, JobSpec, OneShot, open_scheduler, open_store

TOGETHER = 10_000  # jobs in one call


async def nothing(_: JobContext) -> str:
    return "done"


def database(folder: str) -> Path:
    return Path(folder) / "bench.db"


async def fill(file: Path, specs: Sequence[JobSpec]) -> float:
    """Add jobs, and return how long (s) it took."""
    async with open_store(file) as store:
        began = time.perf_counter()
        for first in range(0, len(specs), TOGETHER):
            await store.add_jobs(specs[first : first + TOGETHER])
        return time.perf_counter() - began


def due_now(count: int, name: str = "job") -> list[JobSpec]:
    at = datetime.now(UTC)
    return [JobSpec(f"{name} {number}", "do it", OneShot(at)) for number in range(count)]


def far_away(count: int) -> list[JobSpec]:
    at = datetime.now(UTC) + timedelta(days=1000)
    return [JobSpec(f"far {number}", "do it", OneShot(at + timedelta(seconds=number))) for number in range(count)]


async def notified(name: str, session_id: str, text: str, success: bool) -> None:
    """Do nothing, as a notifier."""


async def observed(job: CronJob, run: CronRun) -> None:
    """Do nothing, as an on_finish."""


async def _throughput(slots: int, count: int, stored: int = 0, *, heartbeat: bool = False, **calls: Any) -> dict[str, float]:
    late: list[float] = []

    async def beat() -> None:
        at = trio.current_time()
        while True:
            at = max(at + 0.01, trio.current_time())
            await trio.sleep_until(at)
            late.append((trio.current_time() - at) * 1000)

    with tempfile.TemporaryDirectory() as folder:
        file = database(folder)
        await fill(file, far_away(stored))
        await fill(file, due_now(count))
        began = time.perf_counter()
        async with trio.open_nursery() as nursery:
            if heartbeat:
                nursery.start_soon(beat)
            async with open_scheduler(file, nothing, config=CronConfig(max_concurrent_runs=slots), **calls) as scheduler:
                ready = time.perf_counter()
                await scheduler.wait_idle()
                took = time.perf_counter() - ready
            nursery.cancel_scope.cancel()
        with closing(sqlite3.connect(file)) as db, db:
            (done,) = db.execute("SELECT count(*) FROM runs WHERE status = 'success'").fetchone()
        assert done == count
    figures = {"runs_per_s": count / took, "ready_ms": (ready - began) * 1000}
    if heartbeat:
        figures |= {"heartbeat_p99_ms": measuring.quantile(late, 0.99), "heartbeat_max_ms": max(late)}
    return figures


def throughput(slots: int = 100, count: int = 10_000, stored: int = 0) -> dict[str, float]:
    """Run due one-shots, with ``stored`` other jobs that are not due."""
    return trio.run(_throughput, slots, count if slots > 1 else count // 5, stored)


def throughput_with_notifier(slots: int = 100, count: int = 10_000) -> dict[str, float]:
    """The same with a notifier that does nothing."""
    return trio.run(partial(_throughput, slots, count, notifier=notified))


def throughput_with_on_finish(slots: int = 100, count: int = 10_000) -> dict[str, float]:
    """The same with an on_finish that does nothing."""
    return trio.run(partial(_throughput, slots, count, on_finish=observed))


def heartbeat(slots: int = 100, count: int = 10_000) -> dict[str, float]:
    """The same while a task of the embedding program wakes every 10 ms."""
    return trio.run(partial(_throughput, slots, count, heartbeat=True))


async def _lateness(specs: Sequence[JobSpec], seconds: float, slots: int) -> dict[str, float]:
    late: list[float] = []

    async def note(context: JobContext) -> None:
        late.append((datetime.now(UTC) - context.scheduled_at).total_seconds() * 1000)

    with tempfile.TemporaryDirectory() as folder:
        file = database(folder)
        async with open_scheduler(file, note, config=CronConfig(max_concurrent_runs=slots)) as scheduler:
            await scheduler.store.add_jobs(specs)
            used = time.process_time()
            await trio.sleep(seconds)
            used = time.process_time() - used
    return {
        "runs": len(late),
        "p50_ms": measuring.quantile(late, 0.5),
        "p99_ms": measuring.quantile(late, 0.99),
        "cpu_s": used,
    }


def lateness(count: int = 200) -> dict[str, float]:
    """Measure how late one-shots start, 50 a second."""
    start = datetime.now(UTC).replace(microsecond=0) + timedelta(seconds=2)
    specs = [JobSpec(f"job {number}", "do it", OneShot(start + timedelta(milliseconds=20 * number))) for number in range(count)]
    return trio.run(_lateness, specs, 2.5 + count / 50, 4)


def every_second(count: int = 1_000, slots: int = 100) -> dict[str, float]:
    """Run interval jobs that are all due each second, for 10 s."""
    specs = [JobSpec(f"job {number}", "do it", Interval(1_000)) for number in range(count)]
    return trio.run(_lateness, specs, 10.9, slots)


async def _adding(count: int, together: int) -> float:
    with tempfile.TemporaryDirectory() as folder:
        async with open_store(database(folder)) as store:
            names = iter(range(count))

            async def caller() -> None:
                for number in names:
                    await store.add_job(f"job {number}", "do it", Cron(f"{number % 60} {number % 24} * * *"))

            began = time.perf_counter()
            async with trio.open_nursery() as nursery:
                for _ in range(together):
                    nursery.start_soon(caller)
            return count / (time.perf_counter() - began)


def add_sequential(count: int = 2_000) -> dict[str, float]:
    """Add one cron job per call, one call after the other."""
    return {"adds_per_s": trio.run(_adding, count, 1)}


def add_concurrent(count: int = 10_000) -> dict[str, float]:
    """Add one cron job per call, 100 callers at once."""
    return {"adds_per_s": trio.run(_adding, count, 100)}


def add_bulk(count: int = 10_000) -> dict[str, float]:
    """Add cron jobs in one call."""
    specs = [JobSpec(f"job {number}", "do it", Cron(f"{number % 60} {number % 24} * * *")) for number in range(count)]
    with tempfile.TemporaryDirectory() as folder:
        return {"adds_per_s": count / trio.run(fill, database(folder), specs)}


async def _burst(count: int) -> dict[str, float]:
    """Set the next moments back in the file, rather than wait for nine o'clock."""
    specs = [JobSpec(f"job {number}", "do it", Cron("0 9 * * *"), timezone="Europe/Rome") for number in range(count)]
    with tempfile.TemporaryDirectory() as folder:
        file = database(folder)
        await fill(file, specs)
        with closing(sqlite3.connect(file)) as db, db:
            db.execute("UPDATE jobs SET next_run_at = next_run_at - 86400000")
        async with open_scheduler(file, nothing, config=CronConfig(max_concurrent_runs=100)) as scheduler:
            began = time.perf_counter()
            await scheduler.wait_idle()
            return {"runs_per_s": count / (time.perf_counter() - began)}


def burst(count: int = 10_000) -> dict[str, float]:
    """Run cron jobs with one expression in one zone, all due at the same moment."""
    return trio.run(_burst, count)


async def _stored(file: Path, seconds: float) -> dict[str, float]:
    began = time.perf_counter()
    async with open_scheduler(file, nothing):
        ready = time.perf_counter() - began
        gc.collect()
        before = time.process_time()
        await trio.sleep(seconds)
        used = time.process_time() - before
        rss = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"ready_ms": ready * 1000, "idle_cpu_percent": 100 * used / seconds, "rss_mb": rss}


def stored(count: int = 1_000, seconds: int = 20) -> dict[str, float]:
    """Measure when an idle scheduler is ready, its CPU and its memory. Another process fills the file."""
    with tempfile.TemporaryDirectory() as folder:
        file = database(folder)
        child = os.fork()
        if child == 0:
            trio.run(fill, file, far_away(count))
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0
        return trio.run(_stored, file, seconds)


def past_runs(file: Path, count: int) -> None:
    """Write a history straight into the file."""
    with closing(sqlite3.connect(file)) as db, db:
        db.execute("PRAGMA synchronous = OFF")
        columns = [row[1] for row in db.execute("PRAGMA table_info(runs)") if row[1] != "id"]
        values = {
            "job_id": "printf('%032x', n % 1000)", "job_name": "'old'", "user_id": "''", "trigger": "'schedule'",
            "scheduled_at": "n * 1000", "status": "'success'", "ready_at": "n", "session_id": "''", "started_at": "n * 1000",
            "completed_at": "n * 1000 + 5", "result": "'done'", "attempt": "1",
            "owner": "1", "coalesced": "1", "manual": "0", "failures": "0", "cancel_requested": "0",
        }  # fmt: skip
        chosen = [column for column in columns if column in values]
        db.execute(
            f"WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c WHERE n < {count}) "
            f"INSERT INTO runs ({', '.join(chr(34) + column + chr(34) for column in chosen)}) "
            f"SELECT {', '.join(values[column] for column in chosen)} FROM c"
        )


async def _drained(file: Path, count: int, name: str) -> float:
    await fill(file, due_now(count, name))
    async with open_scheduler(file, nothing, config=CronConfig(max_concurrent_runs=100)) as scheduler:
        began = time.perf_counter()
        await scheduler.wait_idle()
        return count / (time.perf_counter() - began)


def history(count: int = 1_000_000, rounds: int = 3) -> dict[str, float]:
    """Measure the throughput with a long history and with none, in turns: medians."""
    with tempfile.TemporaryDirectory() as folder:
        long, none = Path(folder) / "long.db", Path(folder) / "none.db"
        for file in (long, none):
            trio.run(fill, file, [])
        past_runs(long, count)
        os.sync()  # or the system would write it to disk while we measure: 1.6 GB with 10,000,000 runs
        rates: dict[Path, list[float]] = {long: [], none: []}
        for number in range(rounds):
            for file, measured in rates.items():
                measured.append(trio.run(_drained, file, 10_000, f"round {number}"))
        return {"runs_per_s": statistics.median(rates[long]), "without_runs_per_s": statistics.median(rates[none])}


IDLE = """
import sys, tempfile, trio, cronactors
async def nothing(context): return None
async def main():
    with tempfile.TemporaryDirectory() as folder:
        async with cronactors.open_scheduler(folder + "/bench.db", nothing):
            await trio.sleep(0.5)
trio.run(main)
"""


def weight() -> dict[str, float]:
    """Measure the import, and the memory of an idle scheduler."""
    return {"import_ms": measuring.import_ms("cronactors"), "rss_mb": measuring.rss_of(IDLE)}


if __name__ == "__main__":
    measuring.answer(
        sys.argv[1:],
        throughput,
        throughput_with_notifier,
        throughput_with_on_finish,
        heartbeat,
        lateness,
        every_second,
        add_sequential,
        add_concurrent,
        add_bulk,
        burst,
        stored,
        history,
        weight,
    )
