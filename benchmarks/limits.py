"""The limits of this machine: raw SQLite, timers of trio, a bare store actor with group commit. Each scenario returns its figures.

python benchmarks/limits.py NAME [NUMBER]
"""

from __future__ import annotations

import queue
import sqlite3
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import measuring
import outcome
import trio

SCHEMA = """
CREATE TABLE jobs (id TEXT PRIMARY KEY, next_run_at INTEGER, enabled INTEGER, prompt TEXT);
CREATE INDEX due ON jobs (next_run_at) WHERE enabled = 1;
CREATE TABLE runs (id INTEGER PRIMARY KEY, job_id TEXT, scheduled_at INTEGER, status TEXT, started_at INTEGER, ended_at INTEGER,
 summary TEXT, UNIQUE (job_id, scheduled_at));
"""


def connect(folder: str) -> sqlite3.Connection:
    db = sqlite3.connect(Path(folder) / "bare.db", isolation_level=None, check_same_thread=False)
    db.execute("PRAGMA journal_mode = WAL")
    db.execute("PRAGMA synchronous = FULL")
    db.executescript(SCHEMA)
    return db


def fill(db: sqlite3.Connection, count: int) -> None:
    db.execute("BEGIN")
    db.executemany("INSERT INTO jobs VALUES (?, ?, 1, 'do it')", ((f"{number:032x}", number) for number in range(count)))
    db.execute("COMMIT")


def claim(db: sqlite3.Connection, limit: int) -> list[int]:
    now = time.time_ns() // 1_000_000
    rows = db.execute("SELECT id, next_run_at FROM jobs WHERE enabled = 1 AND next_run_at <= ? ORDER BY 2 LIMIT ?", (now, limit))
    begun = []
    for job, at in rows.fetchall():
        run = db.execute("INSERT INTO runs VALUES (NULL, ?, ?, 'running', ?, NULL, NULL)", (job, at, now)).lastrowid
        db.execute("UPDATE jobs SET next_run_at = NULL WHERE id = ?", (job,))
        begun.append(run)
    return begun  # type: ignore[return-value]


def finish(db: sqlite3.Connection, run: int) -> None:
    now = time.time_ns() // 1_000_000
    db.execute("UPDATE runs SET status = 'success', ended_at = ?, summary = 'done' WHERE id = ?", (now, run))
    db.execute("UPDATE jobs SET enabled = 0 WHERE id = (SELECT job_id FROM runs WHERE id = ?)", (run,))


def raw_runs(count: int = 10_000) -> dict[str, float]:
    """Claim and finish 100 runs per commit, in a plain loop."""
    with tempfile.TemporaryDirectory() as folder:
        db = connect(folder)
        fill(db, count)
        began = time.perf_counter()
        while True:
            db.execute("BEGIN IMMEDIATE")
            runs = claim(db, 100)
            for run in runs:
                finish(db, run)
            db.execute("COMMIT")
            if not runs:
                break
        return {"runs_per_s": count / (time.perf_counter() - began)}


def add(db: sqlite3.Connection, number: int) -> None:
    db.execute("INSERT INTO jobs VALUES (?, ?, 1, 'do it')", (f"{number:032x}", number))


def raw_commits(count: int = 3_000) -> dict[str, float]:
    """Add one job per commit, one after the other."""
    with tempfile.TemporaryDirectory() as folder:
        db = connect(folder)
        began = time.perf_counter()
        for number in range(count):
            db.execute("BEGIN IMMEDIATE")
            add(db, number)
            db.execute("COMMIT")
        return {"adds_per_s": count / (time.perf_counter() - began)}


async def _hopped(folder: str, count: int) -> float:
    store = BareStore(connect(folder))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(store.run)
        began = time.perf_counter()
        for number in range(count):
            await store.call(partial(add, number=number))
        took = time.perf_counter() - began
        nursery.cancel_scope.cancel()
    store.close()
    return count / took


def hopped_commits(count: int = 3_000) -> dict[str, float]:
    """The same without blocking the event loop: each commit is a hop to the thread of a bare store actor, and back."""
    with tempfile.TemporaryDirectory() as folder:
        return {"adds_per_s": trio.run(_hopped, folder, count)}


def raw_bulk(count: int = 10_000) -> dict[str, float]:
    """Add all jobs in one commit."""
    with tempfile.TemporaryDirectory() as folder:
        db = connect(folder)
        began = time.perf_counter()
        fill(db, count)
        return {"adds_per_s": count / (time.perf_counter() - began)}


class BareStore:
    """A store actor: one transaction, on its own thread, for all requests that are waiting; replies after the commit."""

    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db
        self._send, self._receive = trio.open_memory_channel[tuple[Callable[[Any], Any], trio.lowlevel.Task]](1_000)
        self._work: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    async def call(self, function: Callable[[sqlite3.Connection], Any]) -> Any:
        await self._send.send((function, trio.lowlevel.current_task()))
        return await trio.lowlevel.wait_task_rescheduled(lambda _: trio.lowlevel.Abort.FAILED)

    async def run(self) -> None:
        task, token = trio.lowlevel.current_task(), trio.lowlevel.current_trio_token()
        while True:
            batch = [await self._receive.receive()]
            while len(batch) < 100:
                try:
                    batch.append(self._receive.receive_nowait())
                except trio.WouldBlock:
                    break
            self._work.put((batch, task, token))
            replies = await trio.lowlevel.wait_task_rescheduled(lambda _: trio.lowlevel.Abort.FAILED)
            for (_, caller), reply in zip(batch, replies, strict=True):
                trio.lowlevel.reschedule(caller, outcome.Value(reply))

    def _serve(self) -> None:
        while (work := self._work.get()) is not None:
            batch, task, token = work
            self._db.execute("BEGIN IMMEDIATE")
            replies = [function(self._db) for function, _ in batch]
            self._db.execute("COMMIT")
            token.run_sync_soon(trio.lowlevel.reschedule, task, outcome.Value(replies))

    def close(self) -> None:
        self._work.put(None)
        self._thread.join()


async def _bare(folder: str, count: int, slots: int) -> float:
    db = connect(folder)
    fill(db, count)
    store = BareStore(db)
    free = slots
    done = 0
    freed = trio.Event()
    send, receive = trio.open_memory_channel[int](slots)

    async def runner() -> None:
        nonlocal free, done, freed
        async for run in receive:
            await trio.lowlevel.checkpoint()  # the job
            await store.call(partial(finish, run=run))
            free += 1
            done += 1
            freed.set()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(store.run)
        for _ in range(slots):
            nursery.start_soon(runner)
        began = time.perf_counter()
        while done < count:
            freed = trio.Event()
            if free:
                runs = await store.call(partial(claim, limit=free))
                free -= len(runs)
                for run in runs:
                    send.send_nowait(run)
                if runs:
                    continue
            await freed.wait()
        took = time.perf_counter() - began
        nursery.cancel_scope.cancel()
    store.close()
    return count / took


def bare_actor(slots: int = 100, count: int = 10_000) -> dict[str, float]:
    """Run due one-shots with a store actor that has no models, retries, scopes or timeouts; claim and finish are separate transactions."""
    with tempfile.TemporaryDirectory() as folder:
        return {"runs_per_s": trio.run(_bare, folder, count if slots > 1 else count // 5, slots)}


async def _timers(count: int, per_s: float) -> list[float]:
    late = []

    async def one(at: float) -> None:
        await trio.sleep_until(at)
        late.append((trio.current_time() - at) * 1000)

    async with trio.open_nursery() as nursery:
        start = trio.current_time() + 0.5
        for number in range(count):
            nursery.start_soon(one, start + number / per_s)
    return late


def timers(count: int = 200) -> dict[str, float]:
    """Measure how late (ms) trio itself wakes a task, 50 times a second."""
    late = trio.run(_timers, count, 50.0)
    return {"p50_ms": measuring.quantile(late, 0.5), "p99_ms": measuring.quantile(late, 0.99)}


def trio_alone() -> dict[str, float]:
    """Measure import and memory of a program that only uses trio."""
    return {"import_ms": measuring.import_ms("trio"), "rss_mb": measuring.rss_of("import trio; trio.run(trio.sleep, 0.5)")}


if __name__ == "__main__":
    measuring.answer(sys.argv[1:], raw_runs, raw_commits, hopped_commits, raw_bulk, bare_actor, timers, trio_alone)
