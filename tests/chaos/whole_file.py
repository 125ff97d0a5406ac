"""An undamaged file, which the tests of damage then damage."""

from __future__ import annotations

import random
import sqlite3
from collections.abc import Callable
from contextlib import closing
from datetime import timedelta
from pathlib import Path

import pytest
import trio

from cronactors import (
    Cron,
    CronConfig,
    Interval,
    JobContext,
    OneShot,
    Overlap,
    SessionMode,
    open_scheduler,
)
from tests.chaos.fault_scenario import START, clock_at

IN_TIME = 5.0
"""The promised time (s) from the start, or from the damage, to the error."""


async def execute(ctx: JobContext) -> str:
    return f"done: {ctx.prompt}"


async def _fill(file: Path) -> None:
    kinds = [
        lambda n: Interval.every(seconds=20 + n),
        lambda n: Cron("* * * * *"),
        lambda n: OneShot(START + timedelta(seconds=n)),
    ]
    async with open_scheduler(file, execute, config=CronConfig(max_concurrent_runs=4)) as scheduler:
        for number in range(150):
            await scheduler.store.add_job(
                f"job {number}",
                "a prompt " * (number % 20 + 1),
                kinds[number % 3](number),
                user_id=(None, "user")[number % 2],
                session_mode=(SessionMode.MAIN, SessionMode.ISOLATED)[number % 4 > 0],
                overlap=(Overlap.SKIP, Overlap.CANCEL_OTHER)[number % 5 == 0],
            )
        await trio.sleep(120)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A file of 150 jobs of all kinds, with history."""
    file = tmp_path_factory.mktemp("whole") / "agent.db"
    trio.run(_fill, file, clock=clock_at(START))
    return file.read_bytes()


JUNK = random.Random(1).randbytes(20_000)


def of_others(*statements: str) -> Callable[[Path], None]:
    def make(file: Path) -> None:
        with closing(sqlite3.connect(file, isolation_level=None)) as connection:
            for statement in statements:
                connection.execute(statement)

    return make
