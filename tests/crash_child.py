"""A program with a scheduler for ``test_crash.py`` to kill, started as ``crash_child.py OPTIONS``, a JSON object.

Its executor writes each step to a file, one line with one write, which no kill can tear. The test compares the history with that file.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import trio

from cronactors import CronConfig, JobContext, RetryPolicy, open_scheduler, open_store
from cronactors.actors.actor_requests import ClaimDue, FinishRun
from cronactors.actors.mailbox import Mailbox, Request
from cronactors.ledger import leases

RETRY = RetryPolicy(delays=(0.3,))


def say(*words: object) -> None:
    print(*words, flush=True)  # noqa: T201 - the test reads it


def write_step(file: str | Path, step: str, ctx: JobContext) -> None:
    """Append a line with the step, the job, the attempt and the process id."""
    line = f"{step} {ctx.job_name} {ctx.attempt} {os.getpid()}\n"
    descriptor = os.open(file, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        assert os.write(descriptor, line.encode()) == len(line)
    finally:
        os.close(descriptor)


def make_executor(file: str | Path, say: Callable[..., None] = lambda *_: None) -> Callable[[JobContext], Any]:
    """Make an executor of prompts: ``sleep SECONDS``, ``block SECONDS`` or ``die SECONDS``."""

    async def executor(ctx: JobContext) -> None:
        write_step(file, "start", ctx)
        say("started", ctx.job_name)
        verb, _, seconds = ctx.prompt.partition(" ")
        if verb == "block":
            time.sleep(float(seconds))  # blocks the loop, as the test wants
        else:
            await trio.sleep(float(seconds))
        if verb == "die":
            os._exit(9)
        write_step(file, "end", ctx)

    return executor


def die_at(point: str) -> None:
    """Let this process kill itself between two steps of a run: once "claimed", when "finishing", or once "finished"."""
    call = Mailbox.call

    def die(*_: object) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    async def dying(self: Mailbox, request: Request[Any], on_commit: Callable[[Any], None] | None = None) -> Any:
        if point == "finishing" and isinstance(request, FinishRun):
            die()
        if point == "claimed" and isinstance(request, ClaimDue):
            on_commit = die  # before the runs are handed over
        result = await call(self, request, on_commit)
        if point == "finished" and isinstance(request, FinishRun):
            die()
        return result

    Mailbox.call = dying  # type: ignore[method-assign, assignment]


async def own_loop(db: str) -> None:
    async with open_store(db) as store:
        for job in await store.get_due_jobs():
            say("started", await store.record_run_start(job))
        await trio.sleep_forever()


async def schedule(db: str, file: str, slots: int, until: str | None) -> None:
    config = CronConfig(max_concurrent_runs=slots, retry=RETRY)
    async with open_scheduler(db, make_executor(file, say), config=config, tick_interval=0.05) as scheduler:
        say("ready", len(scheduler.recovered))
        while until is None or (await scheduler.store.get_job(until)).enabled:
            await trio.sleep(0.02)
        await scheduler.wait_idle()


def shorten_leases(lease: int) -> None:
    """Shorten leases in this process to ``lease`` (ms), with six heartbeats each, since real leases make long tests."""
    leases.LEASE, leases.HEARTBEAT_EVERY, leases.HEARTBEAT_WHEN_IDLE = lease, lease // 6, lease
    leases.HEARTBEAT_WITH_CLAIM = lease // 40


def main(options: dict[str, Any]) -> None:
    if "die_at" in options:
        die_at(options["die_at"])
    if "lease" in options:
        shorten_leases(options["lease"])
    if options.get("own_loop"):
        trio.run(own_loop, options["db"])
    else:
        trio.run(schedule, options["db"], options["file"], options.get("slots", 1), options.get("until"))


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
