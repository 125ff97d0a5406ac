"""A program with a hundred runs in flight that ends itself or is ended by signals: run by ``test_shutdown_load.py``.

At the end it prints a JSON line: when its end was requested, how long it took, what the block raised, and what is left.
"""

from __future__ import annotations

import gc
import json
import os
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any

import trio

from cronactors import CronConfig, JobContext, JobSpec, OneShot, now, open_scheduler
from tests.chaos.judge import Ledger

SLOTS = 100
QUICK = 300


class Program:
    """The scheduler, with endless executors among quick ones, and the way in which it ends."""

    def __init__(self, options: dict[str, Any]) -> None:
        self.db: str = options["db"]
        self.ending: str = options["ending"]
        self.grace: float = options["grace"]
        self.ledger = Ledger(options["ledger"])
        self.asked_at = 0.0
        self.in_flight = 0

    async def execute(self, ctx: JobContext) -> None:
        self.ledger.write("start", ctx)
        if ctx.prompt == "long":
            await trio.sleep_forever()
        await trio.sleep(0.01)
        self.ledger.write("end", ctx)

    async def run(self) -> None:
        """Run the program; only if it is to be cancelled it has a nursery of its own."""
        if self.ending != "cancelled":
            await self._schedule(None)
            return
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._schedule, nursery)

    async def _schedule(self, nursery: trio.Nursery | None) -> None:
        shot = OneShot(now())
        jobs = [JobSpec(f"quick {n}", "quick", shot) for n in range(QUICK)]
        jobs += [JobSpec(f"long {n}", "long", shot) for n in range(SLOTS)]
        jobs.append(JobSpec("waits for a slot", "quick", OneShot(now())))
        config = CronConfig(max_concurrent_runs=SLOTS)
        async with open_scheduler(self.db, self.execute, jobs=jobs, config=config, shutdown_grace=self.grace) as scheduler:
            while scheduler.health().runs_in_flight < SLOTS or await self._quick_ones_wait(scheduler.store):
                await trio.sleep(0.01)
            self.in_flight = scheduler.health().runs_in_flight
            print("ready", flush=True)  # noqa: T201 - the test listens
            await self._ask(nursery)

    @staticmethod
    async def _quick_ones_wait(store: Any) -> bool:
        return any(job.name.startswith("quick") and job.enabled for job in await store.list_jobs())

    async def _ask(self, nursery: trio.Nursery | None) -> None:
        """Wait for the end, or cause it."""
        if self.ending == "SIGTERM":  # as docs/what-happens.md says it
            with trio.open_signal_receiver(signal.SIGTERM) as signals:
                await anext(aiter(signals))
            self.asked_at = time.monotonic()
            return
        if nursery is not None:
            self.asked_at = time.monotonic()
            nursery.cancel_scope.cancel()
        await trio.sleep_forever()


def left_behind(db: str) -> list[str]:
    """Return the threads and the open files of the database."""
    threads = [thread.name for thread in threading.enumerate() if thread is not threading.main_thread()]
    files = [os.path.realpath(each) for each in Path("/proc/self/fd").iterdir()] if Path("/proc/self/fd").exists() else []
    return threads + [file for file in files if file.startswith(os.path.realpath(db))]


def main(options: dict[str, Any]) -> None:
    program = Program(options)
    left = "nothing"
    try:
        trio.run(program.run)
    except BaseException as error:
        left = type(error).__name__
    took = time.monotonic() - program.asked_at
    gc.collect()
    report = {"left": left, "ended_at": time.monotonic(), "took": took if program.asked_at else None}
    print(json.dumps({**report, "behind": left_behind(program.db), "in_flight": program.in_flight}), flush=True)  # noqa: T201


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
