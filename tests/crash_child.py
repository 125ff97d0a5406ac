"""A program with a scheduler, to be killed: run by ``test_crash.py`` as ``crash_child.py OPTIONS``, a JSON object.

What its executor did stands in a file of its own, one line with one write each, which no kill can tear: the judge of the history.
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
    print(*words, flush=True)  # noqa: T201 - the test listens


def witness(file: str | Path, what: str, ctx: JobContext) -> None:
    """Add a line: what happened, to which attempt of which job, in which process."""
    line = f"{what} {ctx.job_name} {ctx.attempt} {os.getpid()}\n"
    descriptor = os.open(file, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        assert os.write(descriptor, line.encode()) == len(line)
    finally:
        os.close(descriptor)


def make_executor(file: str | Path, tell: Callable[..., None] = lambda *_: None) -> Callable[[JobContext], Any]:
    """An executor of prompts: ``sleep SECONDS``, ``block SECONDS`` or ``die SECONDS``."""

    async def executor(ctx: JobContext) -> None:
        witness(file, "start", ctx)
        tell("started", ctx.job_name)
        verb, _, seconds = ctx.prompt.partition(" ")
        if verb == "block":
            time.sleep(float(seconds))  # the loop is to be blocked
        else:
            await trio.sleep(float(seconds))
        if verb == "die":
            os._exit(9)
        witness(file, "end", ctx)

    return executor


def die_at(point: str) -> None:
    """Die between two steps of a run."""
    call = Mailbox.call

    def die(*_: object) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    async def dying(self: Mailbox, request: Request[Any], heard: Callable[[Any], None] | None = None) -> Any:
        if point == "finishing" and isinstance(request, FinishRun):
            die()
        if point == "claimed" and isinstance(request, ClaimDue):
            heard = die  # before the runs are handed over
        answer = await call(self, request, heard)
        if point == "recorded" and isinstance(request, FinishRun):
            die()
        return answer

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
    """Let leases last so many milliseconds in this process, and beat six times as often: the real ones make long tests."""
    leases.LEASE, leases.KEEP_EVERY, leases.KEEP_IDLE = lease, lease // 6, lease
    leases.CLAIM_KEEPS = lease // 40


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
