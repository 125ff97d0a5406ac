"""Executors and helpers that the tests of a running scheduler share."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import trio

import cronactors
from cronactors import (
    Cause,
    CronConfig,
    CronRun,
    CronScheduler,
    Interval,
    JobContext,
    JobExecutor,
    JobResult,
    JobSpec,
    OneShot,
    RunStatus,
    Trigger,
    now,
    open_scheduler,
    open_store,
)

START = datetime(2026, 1, 1, tzinfo=UTC)
MINUTE = Interval(60_000)


def after(seconds: float) -> datetime:
    return START + timedelta(seconds=seconds)


class Worker:
    """An executor that takes ``seconds`` and fails the first ``failures`` times; it records its runs, and how many ran at once."""

    def __init__(self, seconds: float = 0, *, failures: int = 0, session: str = "s") -> None:
        self.seconds = seconds
        self.failures = failures
        self.session = session
        self.seen: list[tuple[datetime, JobContext]] = []
        self.in_flight = 0
        self.most = 0

    async def __call__(self, context: JobContext) -> JobResult:
        self.seen.append((cronactors.now(), context))
        self.in_flight += 1
        self.most = max(self.most, self.in_flight)
        try:
            await trio.sleep(self.seconds)
        finally:
            self.in_flight -= 1
        if len(self.seen) <= self.failures:
            raise ValueError(f"failure {len(self.seen)}")
        return JobResult(session_id=self.session, summary=f"did {context.prompt}")

    @property
    def times(self) -> list[float]:
        return [(at - START).total_seconds() for at, _ in self.seen]

    @property
    def names(self) -> list[str]:
        return [context.job_name for _, context in self.seen]


def slots(number: int) -> CronConfig:
    return CronConfig(max_concurrent_runs=number)


def facts(run: CronRun) -> tuple[RunStatus, Cause | None, Trigger, int]:
    return run.status, run.cause, run.trigger, run.attempt


async def history(scheduler: CronScheduler, job_id: str | None = None) -> list[CronRun]:
    return (await scheduler.store.list_runs(job_id, 1000))[::-1]


class Sleeper:
    """An executor that sleeps, and records how its runs ended."""

    def __init__(self, seconds: float = 100) -> None:
        self.seconds = seconds
        self.contexts: list[JobContext] = []
        self.exits: list[tuple[str, object]] = []  # object: compared with approximate times

    async def __call__(self, context: JobContext) -> None:
        self.contexts.append(context)
        try:
            await trio.sleep(self.seconds)
        except trio.Cancelled:
            self.exits.append(("cancelled", trio.current_time()))
            raise
        self.exits.append(("done", trio.current_time()))


async def nothing(context: JobContext) -> None:
    """Do nothing: an executor."""


def raising(error: BaseException) -> Callable[..., object]:
    def function(*args: object, **kwargs: object) -> object:
        raise error

    return function


async def start_jobs(scheduler: CronScheduler, *names: str) -> None:
    shots = [OneShot(now() + timedelta(milliseconds=n)) for n in range(len(names) or 1)]  # in this order
    await scheduler.store.add_jobs([JobSpec(name, "it", shot) for name, shot in zip(names or ("job",), shots, strict=True)])
    await trio.sleep(1)
    assert scheduler.health().runs_in_flight


async def runs_in(file: Path) -> list[CronRun]:
    async with open_store(file, create=False) as store:
        return (await store.list_runs(limit=1000))[::-1]


def once(**options: Any) -> JobSpec:
    """A job that is due now, once."""
    return JobSpec("job", "it", OneShot(now() + timedelta(seconds=1)), **options)


async def run_once(executor: JobExecutor, seconds: float = 1000, **options: Any) -> tuple[CronRun, str]:
    """Run an executor in a scheduler, once, and return its last run and that run's lines."""
    async with open_scheduler(":memory:", executor, jobs=[once(max_retries=0, **options)]) as scheduler:
        await trio.sleep(seconds)
        run = (await history(scheduler))[-1]
        return run, (await scheduler.store.get_run_output(run.id)).text
