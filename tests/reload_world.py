"""A scheduler whose file is read again, as `run` does it, with the lines that are printed of it."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import attrs
import trio
import trio.testing

from cronactors import CronJob, CronScheduler, JobContext, open_scheduler
from cronactors.cli.reload import Reloader, Source, Stamp
from cronactors.cli.run_report import RunReport, TypedCommand
from cronactors.model import JobExecutor

HEAD = """
timezone = "Europe/Rome"
[cron]
database = "jobs.db"
executor = "shell"
"""
DAILY = '[[cron.jobs]]\nname = "daily"\nprompt = "echo day"\ncron = "0 9 * * *"\n'
HOURLY = '[[cron.jobs]]\nname = "hourly"\nprompt = "echo hour"\ncron = "0 * * * *"\n'
WEEKLY = '[[cron.jobs]]\nname = "weekly"\nprompt = "echo week"\ncron = "0 9 * * mon"\n'
FILE = HEAD + DAILY + HOURLY
NOT_APPLIED = "agent.toml is not applied, and nothing has changed: "


class World:
    """A scheduler whose file is read again, and the lines that are printed of it."""

    def __init__(self, file: Path, scheduler: CronScheduler, reloader: Reloader) -> None:
        self.file, self.scheduler, self.reloader = file, scheduler, reloader
        self.lines: list[str] = []
        self.all_lines: list[str] = []
        self._printed = trio.Event()
        typed = TypedCommand("cronactors", "--config agent.toml", "cronactors run")
        self.report = RunReport(reloader._running.config, typed, self.print_line)

    def print_line(self, line: str) -> None:
        self.lines.append(line)
        self.all_lines.append(line)
        self._printed.set()

    async def wait_for(self, pattern: str) -> str:
        """Wait for a line, and forget it and those before it."""
        with trio.fail_after(20):
            while True:
                for index, line in enumerate(self.lines):
                    if re.search(pattern, line):
                        del self.lines[: index + 1]
                        return line
                self._printed = trio.Event()
                await self._printed.wait()

    async def read(self, text: str | None = None) -> str:
        """Read the file again, and return the line that says so."""
        if text is not None:
            self.file.write_text(text)
        self.lines.clear()
        self.reloader.request()
        return await self.wait_for("again: |not applied")

    async def jobs(self) -> dict[str, CronJob]:
        return {job.name: job for job in await self.scheduler.store.list_jobs()}


async def nothing(_context: JobContext) -> str:
    return "done"


@asynccontextmanager
async def world(
    folder: Path, text: str | None = FILE, *, watch: bool = False, execute: JobExecutor = nothing, **options: object
) -> AsyncIterator[World]:
    """Start it; there is no file if ``text`` is None."""
    file = folder / "agent.toml"
    if text is not None:
        file.write_text(text)
    stamp = Stamp.of(file)
    given = Source(file=file, **options)  # type: ignore[arg-type]
    loaded = (given if text is not None else attrs.evolve(given, needed=False)).load()
    async with open_scheduler(loaded.database, execute, config=loaded.config) as scheduler, trio.open_nursery() as nursery:
        world = World(file, scheduler, Reloader(given, loaded, stamp, watch=watch))
        nursery.start_soon(world.reloader.run, scheduler, world.report)
        yield world
        nursery.cancel_scope.cancel()
