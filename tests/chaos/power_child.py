"""A program with a scheduler under load whose power is to be cut.

``test_power_cut.py`` runs it as ``power_child.py DB LEDGER MARKS SEED``. Before it writes down an acknowledgement it writes a
mark: how much of the log the acknowledgement depends on.
"""

from __future__ import annotations

import os
import random
import struct
import sys
from datetime import UTC, datetime, timedelta
from functools import cache

import attrs
import trio

from cronactors import CronConfig, CronJob, CronRun, Interval, JobContext, OneShot, RetryPolicy, open_scheduler
from cronactors.actors.mailbox import ReadRequest
from cronactors.storage.protocol import Storage
from cronactors.storage.sqlite import SqliteStorage
from tests.chaos.judge import Ledger

DB, LEDGER, MARKS, SEED = sys.argv[1:]
chance = random.Random(int(SEED))
ledger = Ledger(LEDGER)


def write(file: str, line: str) -> None:
    descriptor = os.open(file, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        os.write(descriptor, line.encode())
    finally:
        os.close(descriptor)


def mark(what: str) -> None:
    """Write how far the log is committed: frames and salt, from the index (SQLite, "WAL-mode File Format", 2.1)."""
    header, copy = b"", b"?"
    while header != copy:  # it is written twice, so that a reader sees whether it came in between
        both = os.pread(index(), 96, 0)
        header, copy = both[:48], both[48:]
    (frames,) = struct.unpack_from("=I", header, 16)
    write(MARKS, f"{frames} {header[32:40].hex()} {what}\n")


@cache
def index() -> int:
    """The file of the index, never closed: closing would drop the locks that SQLite holds on it in this process (POSIX)."""
    return os.open(f"{DB}-shm", os.O_RDONLY)


@attrs.frozen
class ReadSynchronous(ReadRequest[int]):
    def apply(self, storage: Storage) -> int:
        assert isinstance(storage, SqliteStorage)
        (value,) = storage._db.execute("PRAGMA synchronous").fetchone()
        return int(value)


async def executor(ctx: JobContext) -> None:
    mark("started")
    ledger.write("start", ctx)
    await trio.sleep(chance.uniform(0, 0.01))  # real time, so that the load is uneven
    ledger.write("raise" if ctx.prompt.startswith("fail") else "end", ctx)
    if ctx.prompt.startswith("fail"):
        raise ValueError("as requested")


async def on_finish(job: CronJob, run: CronRun) -> None:
    mark(f"recorded {run.id} {run.status}")


async def main() -> None:
    config = CronConfig(max_concurrent_runs=8, retry=RetryPolicy(delays=(0.2,)))
    async with open_scheduler(DB, executor, on_finish=on_finish, config=config) as scheduler:
        mark("begun")
        print(await scheduler.store._service.mailbox.call(ReadSynchronous()), flush=True)  # noqa: T201 - the test listens
        for number in range(5):
            await scheduler.store.add_job(f"interval {number}", "pad " * 50, Interval.every(ms=500 + 100 * number))

        async def adds(name: str) -> None:
            for number in range(10**9):
                at = datetime.now(UTC) + timedelta(seconds=chance.uniform(0, 2))
                prompt = chance.choice(["succeed ", "fail "]) * chance.randrange(1, 300)
                job_id = await scheduler.store.add_job(f"{name} {number}", prompt, OneShot(at), max_retries=1)
                mark(f"added {job_id}")
                await trio.sleep(chance.uniform(0, 0.05))  # real time: that the file stays small

        async with trio.open_nursery() as nursery:
            for name in "abc":
                nursery.start_soon(adds, name)


if __name__ == "__main__":
    trio.run(main)
