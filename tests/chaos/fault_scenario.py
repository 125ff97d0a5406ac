"""A job's life for tests of faults: added, claimed, executed, finished, retried.

It uses virtual time, so that it is the same each time. As a program it is a server that carries out lives in forks, which may
exit half-way: it reads a line of JSON for each, and prints how it ended.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import trio
from trio._core import _run as trio_run

from cronactors import (
    Cron,
    CronConfig,
    DuplicateJob,
    Interval,
    JobContext,
    OneShot,
    RetryPolicy,
    StoreUnavailable,
    open_scheduler,
    supervision,
)
from cronactors.actors.clock import Clock
from cronactors.actors.patrol import Patrol
from cronactors.testing import VirtualClock
from tests.chaos.faults import Faults, watching
from tests.chaos.judge import Ledger

START = datetime(2026, 3, 1, tzinfo=UTC)
MOMENT = START + timedelta(seconds=60)
SCHEDULES = {"one-shot": OneShot(MOMENT), "interval": Interval.every(seconds=60), "cron": Cron("* * * * *")}
ENDINGS = ("success", "error", "timeout")
TICK = 20.0  # virtual seconds, so that inspections are few
CONFIG = CronConfig(retry=RetryPolicy(delays=(5,)), default_max_retries=1, default_timeout_secs=5)


class Life:
    """A folder with a database, a ledger and the acknowledged jobs."""

    def __init__(self, folder: Path) -> None:
        self.db = folder / "agent.db"
        self.ledger = Ledger(folder / "ledger")
        self.added = folder / "added"

    @property
    def acknowledged(self) -> list[str]:
        return [self.added.read_text()] if self.added.exists() else []

    async def execute(self, ctx: JobContext) -> None:
        self.ledger.write("start", ctx)
        if ctx.prompt == "timeout":
            await trio.sleep_forever()
        self.ledger.write("raise" if ctx.prompt == "error" else "end", ctx)
        if ctx.prompt == "error":
            raise ValueError("as requested")

    async def _live(self, kind: str, ending: str, faults: Faults) -> None:
        async with open_scheduler(self.db, self.execute, config=CONFIG) as scheduler:
            faults.armed = True
            try:
                job_id = await scheduler.store.add_job("job", ending, SCHEDULES[kind])
            except StoreUnavailable:  # it may have been added nevertheless
                job = await scheduler.store.get_job_by_name("job")
                job_id = job.id if job else await scheduler.store.add_job("job", ending, SCHEDULES[kind])
            self.added.write_text(job_id)
            try:
                await scheduler.store.add_job("job", ending, SCHEDULES[kind])  # refused, so that a savepoint is undone
            except DuplicateJob:
                pass
            except StoreUnavailable:
                assert len(await scheduler.store.list_jobs()) == 1
            await trio.sleep(235)
            faults.armed = False

    def live(self, kind: str, ending: str, faults: Faults) -> None:
        with watching(faults), ticking(), repeatable():
            trio.run(self._live, kind, ending, faults, clock=clock_at(START))

    async def _live_on(self) -> None:
        async with open_scheduler(self.db, self.execute, config=CONFIG):
            await trio.sleep(100)

    def live_on(self) -> None:
        """Start once more, some time later."""
        with ticking():
            trio.run(self._live_on, clock=clock_at(START + timedelta(seconds=400)))


def clock_at(moment: datetime) -> VirtualClock:
    clock = VirtualClock()
    clock.set_wall(moment)
    return clock


@contextmanager
def ticking() -> Iterator[None]:
    """Give clock and patrol ticks on virtual time too, where they have none otherwise."""

    def clock(*args: Any, tick: float, **options: Any) -> Clock:
        return Clock(*args, tick=TICK, **options)

    def patrol(*args: Any, tick: float, **options: Any) -> Patrol:
        return Patrol(*args, tick=TICK, **options)

    supervision.Clock, supervision.Patrol = clock, patrol  # type: ignore[assignment, misc]
    try:
        yield
    finally:
        supervision.Clock, supervision.Patrol = Clock, Patrol  # type: ignore[misc]


@contextmanager
def repeatable() -> Iterator[None]:
    """Let trio resume tasks in the same order each time, as its own tests and Hypothesis do."""
    trio_run._ALLOW_DETERMINISTIC_SCHEDULING = True
    trio_run._r.seed(0)
    try:
        yield
    finally:
        trio_run._ALLOW_DETERMINISTIC_SCHEDULING = False


def serve(live: Callable[[Any], object]) -> None:
    """Carry out each life of stdin in a fork."""
    for line in sys.stdin:
        case = json.loads(line)
        child = os.fork()
        if not child:
            live(case)
            os._exit(0)
        _, status = os.waitpid(child, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)  # noqa: T201 - the test listens


def _live(case: Any) -> None:
    life = Life(Path(case["folder"]))
    life.live(case["kind"], case["ending"], Faults(life.db, case["at"], case["how"]))


if __name__ == "__main__":
    serve(_live)
