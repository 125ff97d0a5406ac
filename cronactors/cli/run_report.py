"""The lines that ``run`` prints: a header, starts and finishes of runs, a summary."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from collections import Counter
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple, Self

import click

from cronactors import __version__
from cronactors.cli import describe
from cronactors.cli.database import DEFAULT_FILE
from cronactors.errors import one_line
from cronactors.model import CronJob, CronRun, JobContext, RunStatus
from cronactors.origins import StartReport
from cronactors.settings import CronConfig

_MAX_JOBS = 50
_MAX_NAME = 30


class TypedCommand(NamedTuple):
    """The words of this command, for commands that the header proposes.

    Attributes:
        program: The program, as it can be typed.
        database_option: The option by which other verbs find the same database.
        run: This command, without the options that do not name the file or the database.
    """

    program: str
    database_option: str
    run: str

    @classmethod
    def of(cls, file: Path, db: str | None) -> Self:
        """Take them from `sys.argv` and the arguments of ``run``."""
        program = sys.argv[0]
        on_path = shutil.which("cronactors")
        if not program.endswith("cronactors") or (on_path and Path(program).resolve() == Path(on_path).resolve()):
            program = "cronactors"
        program = shlex.quote(program)
        option = f"--db {shlex.quote(db)}" if db is not None else f"--config {shlex.quote(str(file))}"
        given = [*([] if str(file) == DEFAULT_FILE else [shlex.quote(str(file))]), *([option] if db is not None else [])]
        return cls(program, option, " ".join([program, "run", *given]))


class RunReport:
    """Print what ``run`` does.

    Runs can start before the header is complete, as the scheduler is open by then: their lines are held back until it is.

    Args:
        config: The file.
        typed: Words for the commands that the header proposes.
        print_line: Prints a line.
    """

    def __init__(self, config: CronConfig, typed: TypedCommand, print_line: Callable[[str], None]) -> None:
        self._config, self._typed, self._print = config, typed, print_line
        self._running: dict[str, JobContext] = {}
        self._counts: Counter[RunStatus] = Counter()
        self._held_back: list[str] | None = []
        self._width = max([len(job.name) for job in config.jobs], default=0)

    def header(self, start: StartReport, database: str) -> None:
        """Print the version, the database and the settings, and what the start has changed in lists of jobs."""
        slots = self._config.max_concurrent_runs
        self._print(f"cronactors {__version__}")
        self._print(f"file      {one_line(self._config.file or '')}")
        self._print(f"database  {one_line(database)}")
        self._print(f"zone      {self._config.timezone}")
        self._print(f"slots     {slots} {'run' if slots == 1 else 'runs'} at a time")
        for line in start.lines:
            self._print(line)
        for lost in start.lost:
            self._print(lost.line(adopt=self._typed.run, remove=f"{self._typed.program} remove {self._typed.database_option}"))

    def jobs(self, jobs: Iterable[CronJob]) -> None:
        """Print the first 50 jobs, the next to start first."""
        listed = describe.sort_by_next_time(jobs)
        self._width = max([self._width, *(len(job.name) for job in listed)])
        width = min(self._width, _MAX_NAME)
        for job in listed[:_MAX_JOBS]:
            when = describe.next_start(job, datetime.now(UTC))
            self._print(f"  {one_line(job.name, _MAX_NAME):<{width}}  {when}  ({one_line(describe.schedule(job), 60)})")
        if len(listed) > _MAX_JOBS:
            self._print(f"  … and {len(listed) - _MAX_JOBS:,} more")
        if not listed:
            self._print("  no jobs yet: add [[cron.jobs]] to the file")

    def end_of_header(self, recovered: Iterable[CronRun]) -> None:
        """Print runs that a crash interrupted, commands to try, and the lines that were held back."""
        typed = self._typed
        for run in recovered:
            moment = describe.local_time(run.scheduled_at, self._config.timezone)
            self._print(f"interrupted: {one_line(run.job_name, 60)}, attempt {run.attempt} for {moment}; it runs again")
        self._print("Press Ctrl-C to stop. In another terminal, now or later:")
        self._print(f"  {typed.program} list {typed.database_option}")
        if self._config.jobs:
            name = self._config.jobs[0].name
            option = typed.database_option
            words = (option, "--", shlex.quote(name)) if name.startswith("-") else (shlex.quote(name), option)
            self._print(f"  {typed.program} runs {' '.join(words)}")
        self._print("")
        for line in self._held_back or ():
            self._print(line)
        self._held_back = None

    def run_started(self, context: JobContext) -> None:
        """Print that a run starts."""
        self._running[context.run_id] = context
        self._print_run(context.job_name, context.attempt, "started")

    def run_finished(self, job: CronJob | None, run: CronRun) -> None:
        """Print the outcome of a run that is on disk, and when it is retried; the job is None if it was removed."""
        self._running.pop(run.id, None)
        self._counts[run.status] += 1
        result = describe.result(run)
        if job is not None and job.retry_at is not None and run.status is RunStatus.FAILED:
            replaced = job.next_run_at is not None and job.next_run_at <= job.retry_at
            retry = f"retry at {describe.local_time(job.retry_at, self._config.timezone)}"
            result += "; the next moment comes before the retry" if replaced else f"; {retry}"
        status = run.status if run.cause is None or run.cause == "error" else run.cause
        self._print_run(run.job_name, run.attempt, status, describe.duration(run), result)

    def stopping(self) -> None:
        """Print how many runs are still running, and for how long they are waited for."""
        if self._running:
            runs = f"{len(self._running)} {'run' if len(self._running) == 1 else 'runs'}"
            grace = f"{self._config.shutdown_grace:g} s"
            self._print(f"waiting at most {grace} for {runs}; Ctrl-C twice stops at once")

    def summary(self) -> None:
        """Print the runs that were interrupted, and count all of them."""
        for context in self._running.values():
            self._print_run(context.job_name, context.attempt, "interrupted", "it runs again at the next start")
        counted = [f"{count:,} {status}" for status in RunStatus if (count := self._counts[status])]
        total = sum(self._counts.values()) + len(self._running)
        parts = ", ".join([*counted, *([f"{len(self._running)} interrupted"] if self._running else [])])
        runs = f"{total:,} {'run' if total == 1 else 'runs'}{f' ({parts})' if parts else ''}"
        self._print(f"ended: {runs}. Nothing is lost: start it again to continue.")

    def _print_run(self, name: str, attempt: int, status: str, *rest: str) -> None:
        colour = {"success": "green", "started": "cyan"}.get(status, "red")
        word = f"{status:<9}"
        line = "  ".join(
            [
                describe.local_time(datetime.now(UTC), self._config.timezone),
                f"{one_line(name, _MAX_NAME):<{min(self._width, _MAX_NAME)}}",
                f"attempt {attempt}",
                click.style(word, fg=colour) if _coloured() else word,
                *rest,
            ]
        ).rstrip()
        if self._held_back is None:
            self._print(line)
        else:
            self._held_back.append(line)


def _coloured() -> bool:
    return sys.stdout.isatty() and not os.environ.get("NO_COLOR")
