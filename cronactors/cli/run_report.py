"""The lines that ``run`` prints for people: a header, starts and finishes of runs, a summary."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple, Self

import click

from cronactors import __version__
from cronactors.cli import describe
from cronactors.cli.amounts import count
from cronactors.cli.database import DEFAULT_FILE
from cronactors.cli.report import NO_FIELDS, Report, changes_in_words
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


class RunReport(Report):
    """Prints the report of ``run`` for people.

    Runs can start before the header is complete, as the scheduler is open by then: their lines are held back until it is.

    Args:
        config: The file.
        typed: Words for the commands that the header proposes.
        print_line: Prints a line.
        watches: Whether the file is read again when it changes.
    """

    def __init__(
        self, config: CronConfig, typed: TypedCommand, print_line: Callable[[str], None], *, watches: bool = False
    ) -> None:
        super().__init__(config)
        self._typed, self._print, self._watches = typed, print_line, watches
        self._held_back: list[str] | None = []
        self._width = max([len(job.name) for job in config.jobs], default=0)

    def header(self, start: StartReport, database: str) -> None:
        """Print the facts, one on a line."""
        slots = self.config.max_concurrent_runs
        self._print(f"cronactors {__version__}")
        again = "; read again when it changes" if self._watches else ""
        if self.config.file is not None:
            self._print(f"file      {one_line(self.config.file)}{again}")
        self._print(f"database  {one_line(database)}")
        self._print(f"zone      {self.config.timezone}")
        self._print(f"slots     {count(slots, 'run')} at a time")
        if start.changed or start.removed:
            self._print(f"jobs      {changes_in_words(start)}")
        for line in start.lines:
            self._print(line)
        self.lost(start)

    def lost(self, start: StartReport) -> None:
        """Print a line for each list, with the commands that take its jobs over or remove them."""
        for lost in start.lost:
            self._print(lost.line(adopt=self._typed.run, remove=f"{self._typed.program} remove {self._typed.database_option}"))

    def jobs(self, jobs: Iterable[CronJob]) -> None:
        """Print the first 50, the next to start first."""
        listed = describe.sort_by_next_time(jobs)
        self._width = max([self._width, *(len(job.name) for job in listed)])
        width = min(self._width, _MAX_NAME)
        for job in listed[:_MAX_JOBS]:
            when = describe.next_start(job, datetime.now(UTC))
            self._print(f"  {one_line(job.name, _MAX_NAME):<{width}}  {when}  ({one_line(describe.schedule(job), 60)})")
        if len(listed) > _MAX_JOBS:
            self._print(f"  … and {len(listed) - _MAX_JOBS:,} more")
        if not listed:
            self._print("  no jobs yet: add [[cron.jobs]] to the file" if self.config.file else "  no jobs yet: `cronactors add`")

    def end_of_header(self, recovered: Iterable[CronRun]) -> None:
        """Print the runs, commands to try, and the lines that were held back."""
        typed = self._typed
        for run in recovered:
            moment = describe.local_time(run.scheduled_at, self.config.timezone)
            self._print(f"interrupted: {one_line(run.job_name, 60)}, attempt {run.attempt} for {moment}; it runs again")
        self._print("Press Ctrl-C to stop. In another terminal, now or later:")
        self._print(f"  {typed.program} list {typed.database_option}")
        if self.config.jobs:
            name = self.config.jobs[0].name
            option = typed.database_option
            words = (option, "--", shlex.quote(name)) if name.startswith("-") else (shlex.quote(name), option)
            self._print(f"  {typed.program} runs {' '.join(words)}")
        self._print("")
        for line in self._held_back or ():
            self._print(line)
        self._held_back = None

    def _started(self, context: JobContext) -> None:
        self._print_run(context.job_name, context.attempt, "started")

    def _finished(self, context: JobContext | None, job: CronJob | None, run: CronRun) -> None:  # noqa: ARG002 - for programs
        """Print a line with the outcome and the next retry."""
        result = describe.result(run)
        if job is not None and job.retry_at is not None and run.status is RunStatus.FAILED:
            replaced = job.next_run_at is not None and job.next_run_at <= job.retry_at
            retry = f"retry at {describe.local_time(job.retry_at, self.config.timezone)}"
            result += "; the next moment comes before the retry" if replaced else f"; {retry}"
        status = run.status if run.cause is None or run.cause == "error" else run.cause
        self._print_run(run.job_name, run.attempt, status, describe.duration(run), result)

    def file_read(self, applied: CronConfig, report: StartReport, at_start: list[str]) -> None:
        """Print the lines of a start, and one with the changes."""
        self._width = max([self._width, *(len(job.name) for job in applied.jobs)])
        super().file_read(applied, report, at_start)

    def note(
        self,
        text: str,
        *,
        event: str,  # noqa: ARG002 - for programs
        timed: bool = True,
        is_problem: bool = False,
        fields: Mapping[str, object] = NO_FIELDS,  # noqa: ARG002 - for programs
    ) -> None:
        """Print a line, with its time if people need it."""
        time = f"{describe.local_time(datetime.now(UTC), self.config.timezone)}  " if timed else ""
        self._print(f"{time}{click.style(text, fg='red') if is_problem and _coloured() else text}")

    def stopping(self) -> None:
        """Print a line if a run is running."""
        if self.running:
            grace = f"{self.config.shutdown_grace:g} s"
            self._print(f"waiting at most {grace} for {count(len(self.running), 'run')}; Ctrl-C twice stops at once")

    def summary(self) -> None:
        """Print a line for each interrupted run, and the numbers."""
        for context in self.running.values():
            self._print_run(context.job_name, context.attempt, "interrupted", "it runs again at the next start")
        counted = self.counts()
        parts = ", ".join(f"{number:,} {status}" for status, number in counted)
        runs = f"{count(sum(number for _, number in counted), 'run')}{f' ({parts})' if parts else ''}"
        self._print(f"ended: {runs}. Nothing is lost: start it again to continue.")

    def _print_run(self, name: str, attempt: int, status: str, *rest: str) -> None:
        colour = {"success": "green", "started": "cyan"}.get(status, "red")
        word = f"{status:<9}"
        line = "  ".join(
            [
                describe.local_time(datetime.now(UTC), self.config.timezone),
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
