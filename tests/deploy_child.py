"""A version of a program that is deployed, run by ``test_scaling.py`` with the store and its list of jobs: it works until a SIGTERM."""

from __future__ import annotations

import signal
import sys

import trio

from cronactors import CronConfig, Interval, JobContext, JobSpec, open_scheduler

EVERY = 3_000  # (ms)


def jobs(count: int) -> list[JobSpec]:
    return [JobSpec(f"job {n}", "it", Interval(EVERY)) for n in range(count)]


async def executor(_: JobContext) -> None:
    """Take long enough that the signal often finds a run in flight."""
    await trio.sleep(0.02)


async def work(store: str, count: str) -> None:
    config = CronConfig(jobs=tuple(jobs(int(count))), origin="the program", max_concurrent_runs=4)
    with trio.open_signal_receiver(signal.SIGTERM) as signals:
        async with open_scheduler(store, executor, config=config):
            print("ready", flush=True)  # noqa: T201 - the test listens
            await anext(aiter(signals))


if __name__ == "__main__":
    trio.run(work, *sys.argv[1:])
