"""The verb ``run``: a scheduler with the jobs of a file, until a signal."""

from __future__ import annotations

import logging
import math
import os
import shlex
import shutil
import signal
import sys
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple, Protocol, Self

import attrs
import click
import trio

from cronactors import CronScheduler, __version__, open_scheduler, open_store
from cronactors.cli import output
from cronactors.cli.database import DEFAULT_FILE, database_of
from cronactors.cli.printer import Printer
from cronactors.config_file import check_jobs_for_shell, load_config
from cronactors.errors import CronError, InvalidConfig, one_line
from cronactors.executors import find_executor
from cronactors.model import CronJob, CronRun, JobContext, JobExecutor, JobResult, RunStatus
from cronactors.origins import origin_of
from cronactors.spec import CronConfig

_MOST_JOBS = 50
_AT_ONCE = 5.0
_LONGEST_NAME = 30


def run_file(
    file: Path,
    *,
    db: str | None,
    executor_name: str | None,
    seconds: float | None,
    shutdown_grace: float | None = None,
    adopt: str | None = None,
) -> int:
    """Run the jobs of a file until a signal, or for so many seconds.

    Returns:
        The exit status: 0 if it ended in order, 1 if nobody could read what it said, 128 + the signal if it was ended at once.

    Raises:
        CronError: The file, the executor or the database is not what it should be.
    """
    logging.basicConfig(format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    logging.getLogger("cronactors.failures").setLevel(logging.ERROR)  # the lines on standard output name each failed run
    logging.getLogger("cronactors.lists").setLevel(logging.ERROR)  # the header says it all
    config = load_config(file)
    if shutdown_grace is not None:
        config = attrs.evolve(config, shutdown_grace=shutdown_grace)
    database = database_of(config) if db is None else db
    executor_name = executor_name or config.executor
    if executor_name == "shell":
        check_jobs_for_shell(config)
    executor = _executor(executor_name, Path(config.file or file).parent)
    return trio.run(_Session(config, database, executor, typed=_Typed.of(file, db), seconds=seconds, adopt=adopt).run)


def _executor(name: str | None, folder: Path) -> JobExecutor:
    if name is None:
        raise InvalidConfig('executor is not named: write executor = "shell" under [cron], or give --executor')
    # As `python file.py` does: modules may lie beside the file, or where the command was typed.
    sys.path[:0] = [path for path in (str(Path.cwd()), str(folder)) if path not in sys.path]
    return find_executor(name, folder)


class _Typed(NamedTuple):
    """Parts of commands as they can be typed again: the program, the option that names the same database, and this start."""

    program: str
    option: str
    run: str

    @classmethod
    def of(cls, file: Path, db: str | None) -> Self:
        """Take them from what was typed."""
        program = sys.argv[0]
        on_path = shutil.which("cronactors")
        if not program.endswith("cronactors") or (on_path and Path(program).resolve() == Path(on_path).resolve()):
            program = "cronactors"
        program = shlex.quote(program)
        option = f"--db {shlex.quote(db)}" if db is not None else f"--config {shlex.quote(str(file))}"
        given = [*([] if str(file) == DEFAULT_FILE else [shlex.quote(str(file))]), *([option] if db is not None else [])]
        return cls(program, option, " ".join([program, "run", *given]))


class _Ending(Protocol):
    """What a signal can do."""

    def in_order(self, why: str) -> None: ...
    def at_once(self, status: int) -> None: ...


class _Session:
    """One start of the command: what it was told, what it counts, and how it is to end."""

    def __init__(
        self,
        config: CronConfig,
        database: str,
        executor: JobExecutor,
        *,
        typed: _Typed,
        seconds: float | None,
        adopt: str | None,
    ) -> None:
        self._config, self._database, self._executor, self._typed, self._seconds = config, database, executor, typed, seconds
        self._adopt = adopt
        self._printer = Printer(on_lost=self._nobody_reads)
        self._hurry = trio.CancelScope()
        self._waiting = trio.CancelScope()  # in the scheduler's block
        self._begun = False
        self._status = 0
        self._failure: CronError | SystemExit | None = None
        self._open: dict[str, JobContext] = {}
        self._counts: Counter[RunStatus] = Counter()
        self._early: list[str] | None = []
        self._width = max([len(job.name) for job in config.jobs], default=0)

    async def run(self) -> int:
        """Run it to its end; errors of ours leave as they are, not in a group."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._printer.run)
            await nursery.start(_watch_signals, self)
            try:
                with self._hurry:
                    await self._schedule()
            except (CronError, SystemExit) as problem:  # kept out of the nursery, which would make a group of it
                self._failure = problem
            else:
                self._say_summary()
            await self._printer.close()
            nursery.cancel_scope.cancel()
        if self._failure is not None:
            raise self._failure
        return self._status

    async def _schedule(self) -> None:
        if self._adopt is not None:
            await self._take_over(self._adopt)
        async with open_scheduler(self._database, self._announce, on_finish=self._finished, config=self._config) as scheduler:
            self._begun = True
            with self._waiting:
                await self._say_header(scheduler)
                await trio.sleep(math.inf if self._seconds is None else self._seconds)
            # Leaving the block ends everything in order; a second signal cancels it from outside.
            if self._open:
                grace = f"at most {self._config.shutdown_grace:g} s"
                self._printer.say(f"waiting for {len(self._open)} running, {grace}; a second Ctrl-C ends at once")

    async def _take_over(self, origin: str) -> None:
        """Give the jobs of another list to this one; a start that finds none left, as after a restart, goes on."""
        async with open_store(self._database) as store:
            count = await store.adopt_origin(origin, by=origin_of(self._config, self._database) or origin)
        self._printer.say(f"took over {count:,} {'job' if count == 1 else 'jobs'} of {one_line(origin)}")

    def in_order(self, why: str) -> None:
        """Leave the block, as if the time were over. During the start, which may wait for a locked file, no run has begun: cancel it."""
        self._printer.say(f"{why}: {'ending in order' if self._begun else 'ended during the start, before any run began'}")
        self._leave()

    def _leave(self) -> None:
        (self._waiting if self._begun else self._hurry).cancel()

    def at_once(self, status: int) -> None:
        """Cancel everything."""
        self._status = status
        self._hurry.cancel()

    def _nobody_reads(self) -> None:
        self._status = 1
        self._leave()

    async def _announce(self, context: JobContext) -> JobResult | str | None:
        """Say that a run starts, and carry it out."""
        self._open[context.run_id] = context
        self._say_run(context.job_name, context.attempt, "started")
        return await self._executor(context)

    async def _finished(self, job: CronJob, run: CronRun) -> None:
        """Say how a run ended, once that is on disk."""
        self._open.pop(run.id, None)
        self._counts[run.status] += 1
        said = output.outcome(run)
        if job.retry_at is not None and run.status is RunStatus.FAILED:
            replaced = job.next_run_at is not None and job.next_run_at <= job.retry_at
            again = f"again at {output.local(job.retry_at, self._config.timezone)}"
            said += "; the next moment comes before the retry" if replaced else f"; {again}"
        status = run.status if run.cause is None or run.cause == "error" else run.cause
        self._say_run(run.job_name, run.attempt, status, output.seconds(run), said)

    def _say_run(self, name: str, attempt: int, status: str, *rest: str) -> None:
        colour = {"success": "green", "started": "cyan"}.get(status, "red")
        word = f"{status:<9}"
        line = "  ".join(
            [
                output.local(datetime.now(UTC), self._config.timezone),
                f"{one_line(name, _LONGEST_NAME):<{min(self._width, _LONGEST_NAME)}}",
                f"attempt {attempt}",
                click.style(word, fg=colour) if _colours() else word,
                *rest,
            ]
        ).rstrip()
        if self._early is None:
            self._printer.say(line)
        else:
            self._early.append(line)  # it started before the header was complete

    async def _say_header(self, scheduler: CronScheduler) -> None:
        say = self._printer.say
        slots = self._config.max_concurrent_runs
        say(f"cronactors {__version__}")
        say(f"file      {one_line(self._config.file or '')}")
        say(f"database  {one_line(self._database)}")
        say(f"zone      {self._config.timezone}")
        say(f"slots     {slots} {'run' if slots == 1 else 'runs'} at a time")
        for line in scheduler._start_report.lines:
            say(line)
        for lost in scheduler._start_report.lost:
            say(lost.line(adopt=self._typed.run, remove=f"{self._typed.program} remove {self._typed.option}"))
        try:
            await self._say_jobs(scheduler)
        finally:
            self._say_rest_of_header(scheduler)

    def _say_rest_of_header(self, scheduler: CronScheduler) -> None:
        typed, say = self._typed, self._printer.say
        for run in scheduler.recovered:
            moment = output.local(run.scheduled_at, self._config.timezone)
            say(f"interrupted: {one_line(run.job_name, 60)}, attempt {run.attempt} for {moment}; it is run again")
        say("Ctrl-C ends it in order. In another terminal, now or later:")
        say(f"  {typed.program} list {typed.option}")
        if self._config.jobs:
            name = self._config.jobs[0].name
            words = (typed.option, "--", shlex.quote(name)) if name.startswith("-") else (shlex.quote(name), typed.option)
            say(f"  {typed.program} runs {' '.join(words)}")
        say()
        for line in self._early or ():
            say(line)
        self._early = None

    async def _say_jobs(self, scheduler: CronScheduler) -> None:
        jobs = output.by_next_time(await scheduler.store.list_jobs())
        self._width = max([self._width, *(len(job.name) for job in jobs)])
        width = min(self._width, _LONGEST_NAME)
        for job in jobs[:_MOST_JOBS]:
            when = output.when(job, datetime.now(UTC))
            self._printer.say(f"  {one_line(job.name, _LONGEST_NAME):<{width}}  {when}  ({one_line(output.in_words(job), 60)})")
        if len(jobs) > _MOST_JOBS:
            self._printer.say(f"  … and {len(jobs) - _MOST_JOBS:,} more")
        if not jobs:
            self._printer.say("  no jobs yet: add [[cron.jobs]] to the file")

    def _say_summary(self) -> None:
        for context in self._open.values():
            self._say_run(context.job_name, context.attempt, "interrupted", "it is run again at the next start")
        counted = [f"{count:,} {status}" for status in RunStatus if (count := self._counts[status])]
        total = sum(self._counts.values()) + len(self._open)
        parts = ", ".join([*counted, *([f"{len(self._open)} interrupted"] if self._open else [])])
        runs = f"{total:,} {'run' if total == 1 else 'runs'}{f' ({parts})' if parts else ''}"
        self._printer.say(f"ended: {runs}; nothing is lost, start again and it goes on")


def _colours() -> bool:
    return sys.stdout.isatty() and not os.environ.get("NO_COLOR")


async def _watch_signals(ending: _Ending, *, task_status: trio.TaskStatus[None]) -> None:
    """Turn the first signal into an ending in order, the second into one at once, the third into none at all."""
    signals = [signal.SIGINT, signal.SIGTERM]
    if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) is signal.SIG_DFL:  # nohup ignores it
        signals.append(signal.SIGHUP)
    with trio.open_signal_receiver(*signals) as received:
        task_status.started()
        count = 0
        async for number in received:
            count += 1
            if count == 1:
                ending.in_order(signal.Signals(number).name)
                continue
            if count == 2:  # noqa: PLR2004
                ending.at_once(128 + number)
                with trio.move_on_after(_AT_ONCE):
                    await anext(received)
            os._exit(128 + number)
