"""A scheduler with receivers that exits at a given SQL statement. As a program it is a server that carries out lives in forks.

It reads a line of JSON for each life, and prints how it ended.
"""

from __future__ import annotations

import json
import os
import sys
from datetime import timedelta
from pathlib import Path

import trio

from cronactors import (
    CronConfig,
    CronJob,
    CronRun,
    JobContext,
    JobSpec,
    OneShot,
    Receiver,
    RetryPolicy,
    current_notification,
    open_scheduler,
)
from tests.chaos.fault_scenario import START, clock_at
from tests.chaos.faults import Faults, watching
from tests.chaos.notified import Calls

CONFIG = CronConfig(max_concurrent_runs=10, retry=RetryPolicy(delays=(1,)), default_max_retries=1)
RETRY = RetryPolicy(delays=(0.5,))
LIFE = timedelta(seconds=10)


async def execute(ctx: JobContext) -> str:
    if ctx.prompt == "fail" and ctx.attempt == 1:
        raise ValueError("as requested")
    return ctx.prompt


async def live(folder: Path, number: int, jobs: int, faults: Faults) -> None:
    """Add one-shots that are due, and let them run; every tenth call of ``on_finish`` fails the first time."""
    calls = Calls(folder / "calls")
    faults.armed = True

    async def on_finish(job: CronJob, run: CronRun) -> None:
        if int(run.id) % 10 == 0 and current_notification().attempts == 0:
            raise ValueError("as requested")
        await calls.on_finish(job, run)

    receivers = Receiver(calls.notifier, retry=RETRY, attempts=100), Receiver(on_finish, retry=RETRY, attempts=100)
    async with open_scheduler(
        folder / "agent.db", execute, config=CONFIG, notifier=receivers[0], on_finish=receivers[1]
    ) as scheduler:
        moment = OneShot(START + LIFE * number)
        specs = [JobSpec(f"{number}.{index}", "fail" if index % 7 == 0 else "work", moment) for index in range(jobs)]
        await scheduler.store.upsert_jobs(specs)
        await trio.sleep(LIFE.total_seconds() - 1)


def serve() -> None:
    for line in sys.stdin:
        case = json.loads(line)
        child = os.fork()
        if not child:
            folder = Path(case["folder"])
            faults = Faults(folder / "agent.db", case["at"], case["how"])
            with watching(faults):
                trio.run(live, folder, case["number"], case["jobs"], faults, clock=clock_at(START + LIFE * case["number"]))
            print(len(faults.seen), flush=True)  # noqa: T201 - the test listens
            os._exit(0)
        _, status = os.waitpid(child, 0)
        if status:
            print(-os.waitstatus_to_exitcode(status), flush=True)  # noqa: T201


if __name__ == "__main__":
    serve()
