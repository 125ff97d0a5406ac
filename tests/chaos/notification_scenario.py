"""Jobs whose finishes are notified, for tests of faults: on virtual time, so that they are the same each time.

As a program it is a server that carries out lives in forks, which may exit half-way: it reads a line of JSON for each, and prints
how it ended.
"""

from __future__ import annotations

from collections import defaultdict
from datetime import timedelta
from pathlib import Path
from typing import Any

import trio

from cronactors import (
    CronConfig,
    CronJob,
    CronRun,
    Interval,
    JobContext,
    JobSpec,
    Notification,
    OneShot,
    Receiver,
    RetryPolicy,
    current_notification,
    now,
    open_scheduler,
)
from tests.chaos.fault_scenario import START, clock_at, repeatable, serve, ticking
from tests.chaos.faults import Faults, watching

CONFIG = CronConfig(retry=RetryPolicy(delays=(5,)), default_max_retries=1, max_concurrent_runs=2)
RETRY = RetryPolicy(delays=(3,))


class Life:
    """A folder with a database, and a file to which receivers write each call as it begins, and as it returns."""

    def __init__(self, folder: Path) -> None:
        self.db = folder / "agent.db"
        self.file = folder / "calls"

    def _write(self, step: str, key: str, receiver: str) -> None:
        with self.file.open("a") as calls:
            calls.write(f"{step} {key} {receiver}\n")

    def calls(self) -> dict[str, dict[str, list[str]]]:
        """Return the keys of calls, by receiver and by step ("called" or "accepted")."""
        found: dict[str, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
        for line in self.file.read_text().splitlines() if self.file.exists() else ():
            step, key, receiver = line.split()
            found[receiver][step].append(key)
        return found

    async def execute(self, ctx: JobContext) -> None:
        await trio.sleep(1)
        if ctx.prompt == "fails":
            raise ValueError("as requested")

    async def notifier(self, job_name: str, session_id: str, result: str, success: bool) -> None:
        await self._receive(current_notification(), fails=False)

    async def on_finish(self, job: CronJob, run: CronRun) -> None:
        assert job.id == run.job_id
        notification = current_notification()
        await self._receive(notification, fails=int(run.id) % 3 == 0 and not notification.attempts)

    async def _receive(self, notification: Notification, *, fails: bool) -> None:
        self._write("called", notification.key, notification.receiver)
        await trio.sleep(0.5)
        if fails:
            raise ValueError("later")
        self._write("accepted", notification.key, notification.receiver)

    async def _live(self, seconds: float, faults: Faults | None) -> list[CronRun]:
        async with open_scheduler(
            self.db,
            self.execute,
            config=CONFIG,
            jobs=[JobSpec("often", "works", Interval(7000)), JobSpec("fails", "fails", Interval(11_000))],
            notifier=Receiver(self.notifier, retry=RETRY),
            on_finish=Receiver(self.on_finish, retry=RETRY),
        ) as scheduler:
            if faults is not None:
                await scheduler.store.add_job("once", "works", OneShot(now() + timedelta(seconds=3)), delete_after_run=True)
                faults.armed = True
                await trio.sleep(seconds)
                faults.armed = False
                seconds = 100
            for job in await scheduler.store.list_jobs():
                await scheduler.store.pause_job(job.id)
            await trio.sleep(seconds)
            assert scheduler.health().notifications_pending == 0
            return await scheduler.store.list_runs(limit=1000)

    def live(self, faults: Faults) -> list[CronRun]:
        """Live for 30 s, with a fault, and deliver what is left; return the history."""
        with watching(faults), ticking(), repeatable():
            return trio.run(self._live, 30, faults, clock=clock_at(START))

    def live_on(self) -> list[CronRun]:
        """Start once more, some time later, and deliver what is left; return the history."""
        with ticking():
            return trio.run(self._live, 100, None, clock=clock_at(START + timedelta(seconds=400)))


def _live(case: Any) -> None:
    life = Life(Path(case["folder"]))
    life.live(Faults(life.db, case["at"], case["how"]))


if __name__ == "__main__":
    serve(_live)
