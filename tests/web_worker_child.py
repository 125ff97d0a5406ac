"""A web worker, run by ``test_web_workers.py`` with the file and the ledger: it opens the file when its input says so."""

from __future__ import annotations

import sys
from datetime import datetime

import trio

from cronactors import Cron, CronConfig, Interval, JobContext, JobSpec, OneShot, open_scheduler
from tests.chaos.judge import Ledger

SHOTS = 40
SECONDS = 1.5


def of_the_file() -> list[JobSpec]:
    """Jobs of an ``agent.toml``, which have an origin."""
    return [
        *(JobSpec(f"interval {n}", "it", Interval(200)) for n in range(3)),
        JobSpec("cron", "it", Cron("* * * * * *"), timezone="Europe/Rome"),
    ]


def of_the_call(shots_at: datetime) -> list[JobSpec]:
    """Jobs that the program hands in, which have none."""
    return [JobSpec("program", "it", Interval(150)), *(JobSpec(f"once {n}", "it", OneShot(shots_at)) for n in range(SHOTS))]


async def work(db: str, ledger: str) -> None:
    """Say that it is ready, read the time of the one-shots, and be a scheduler for a while."""
    written = Ledger(ledger)

    async def executor(ctx: JobContext) -> None:
        written.write("start", ctx)
        await trio.sleep(0.005)
        written.write("end", ctx)

    print("ready", flush=True)  # noqa: T201 - the test listens
    jobs = of_the_call(datetime.fromisoformat(sys.stdin.readline().strip()))
    config = CronConfig(max_concurrent_runs=5, jobs=tuple(of_the_file()), origin="web")
    async with open_scheduler(db, executor, config=config, jobs=jobs) as scheduler:
        await trio.sleep(SECONDS)
        print(len(await scheduler.store.list_jobs()), flush=True)  # noqa: T201


if __name__ == "__main__":
    trio.run(work, *sys.argv[1:])
