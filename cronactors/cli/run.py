"""The verb ``run``: a scheduler with the jobs of a file, until a signal or for a number of seconds."""

from __future__ import annotations

import logging
import math
import sys
from contextlib import AsyncExitStack
from pathlib import Path

import attrs
import trio

from cronactors import CronScheduler, CronStore, RunFinished, open_scheduler, open_store
from cronactors.actors.event_stream import MOST_EVENTS, EventStream
from cronactors.cli.amounts import count
from cronactors.cli.find import find_by_id
from cronactors.cli.json_report import JsonReport, left_out_line
from cronactors.cli.log_format import set_up_logging
from cronactors.cli.printer import Printer
from cronactors.cli.reload import Loaded, Reloader, Source, Stamp
from cronactors.cli.report import Report
from cronactors.cli.run_report import RunReport, TypedCommand
from cronactors.cli.signals import watch_signals
from cronactors.errors import CronError, InvalidConfig, one_line
from cronactors.executors import find_executor
from cronactors.model import JobContext, JobExecutor, JobResult
from cronactors.origins import origin_of
from cronactors.storage.postgres.address import is_postgres

logger = logging.getLogger("cronactors.cli")


@attrs.frozen(kw_only=True)
class RunOptions:
    """The options of ``run`` that no file has.

    Attributes:
        seconds: When to stop (s); None: never.
        adopt: An origin whose jobs are taken over first.
        watch: Whether the file is read again when it changes.
        as_json: Whether everything is printed and logged as JSON lines.
    """

    seconds: float | None = None
    adopt: str | None = None
    watch: bool = False
    as_json: bool = False


def run_file(source: Source, options: RunOptions) -> int:
    """Run the jobs of a file until a signal, or for ``options.seconds``.

    Returns:
        The exit status: 0 if it stopped in order, 1 if the reader of standard output went away, 128 + the signal if it stopped at once.
        With ``as_json`` also 1 for an error, which is logged.

    Raises:
        CronError: The file, the executor or the database is refused.
    """
    set_up_logging(as_json=options.as_json)
    try:
        return _run_file(source, options)
    except Exception as problem:
        if not options.as_json:
            raise
        logger.critical("%s", problem, exc_info=not isinstance(problem, CronError | OSError))
        return 1


def _run_file(source: Source, options: RunOptions) -> int:
    stamp = Stamp.of(source.file)
    loaded = source.load()
    # An executor may change the working directory. A file that may be missing at the start must be there to be read again.
    again = attrs.evolve(source, file=Path(loaded.config.file or Path(source.file).absolute()), needed=True)
    executor = _find_executor(loaded.executor, again.file.parent)
    typed = TypedCommand.of(source.file, None if source.db is None else loaded.database)
    reloader = Reloader(again, loaded, stamp, watch=options.watch)
    return trio.run(_Session(loaded, executor, reloader, options, typed).run)


def _find_executor(name: str | None, folder: Path) -> JobExecutor:
    if name is None:
        raise InvalidConfig('executor is not named: write executor = "shell" under [cron], or give --executor')
    # As `python file.py` does: a module may be beside the file, or in the working directory.
    sys.path[:0] = [path for path in (str(Path.cwd()), str(folder)) if path not in sys.path]
    return find_executor(name, folder)


class _Session:
    """One start of the command, and the ways to stop it.

    To stop in order we leave the scheduler's block, which gives runs their grace: `_block_scope` holds its body. Before the block
    is entered, the start may wait for a locked file and no run has started: then, and to stop at once, we cancel `_database_scope`,
    which holds everything that uses the database.
    """

    def __init__(
        self, loaded: Loaded, executor: JobExecutor, reloader: Reloader, options: RunOptions, typed: TypedCommand
    ) -> None:
        self._config, self._database, self._executor, self._options = loaded.config, loaded.database, executor, options
        self._reloader = reloader
        self._report: Report
        if options.as_json:
            self._printer = Printer(self.stop_without_reader, left_out_line)
            self._report = JsonReport(loaded.config, self._print_line)
        else:
            self._printer = Printer(self.stop_without_reader)
            self._report = RunReport(loaded.config, typed, self._print_line, watches=options.watch)
        self._database_scope = trio.CancelScope()
        self._block_scope = trio.CancelScope()
        self._in_block = False
        self._status = 0
        self._failure: CronError | SystemExit | None = None

    async def run(self) -> int:
        """Run until it is stopped.

        Returns:
            The exit status.

        Raises:
            CronError: The database or a job is refused; never in a group.
            OSError: Standard output cannot be written to.
        """
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._printer.run)
            await nursery.start(watch_signals, self)
            try:
                with self._database_scope:
                    await self._schedule(nursery)
            except (CronError, SystemExit) as problem:  # raised below: the nursery would put it into a group
                self._failure = problem
            else:
                self._report.summary()
            await self._printer.close()
            nursery.cancel_scope.cancel()
        if failure := self._failure or self._printer.failure:
            raise failure
        return self._status

    async def _schedule(self, nursery: trio.Nursery) -> None:
        """Run the scheduler, and print the outcomes of its runs.

        We read them from its events. As a receiver we would take over the notifications of other programs on this file, and print
        them instead of delivering them. The store stays open until the last outcome is printed.
        """
        if self._options.adopt is not None:
            await self._adopt_origin(self._options.adopt)
        printed = trio.Event()
        async with open_store(self._database, config=self._config) as store, AsyncExitStack() as until_printed:
            async with open_scheduler(store, self._execute, config=self._config) as scheduler:
                events = await until_printed.enter_async_context(scheduler.events(capacity=MOST_EVENTS))
                nursery.start_soon(self._print_outcomes, events, store, printed)
                await self._hold_open(scheduler)
            await printed.wait()

    async def _hold_open(self, scheduler: CronScheduler) -> None:
        self._in_block = True
        database = scheduler.store.path if is_postgres(self._database) else self._database  # never a password
        with self._block_scope:
            self._report.header(scheduler._start_report, database)
            try:
                self._report.jobs(await scheduler.store.list_jobs())
            finally:
                self._report.end_of_header(scheduler.recovered)
            with trio.move_on_after(math.inf if self._options.seconds is None else self._options.seconds):
                await self._reloader.run(scheduler, self._report)
        self._report.stopping()

    async def _adopt_origin(self, origin: str) -> None:
        """Give the jobs of another list to the list of this file; none may be left, as after a restart with the same options."""
        async with open_store(self._database) as store:
            adopted = await store.adopt_origin(origin, by=origin_of(self._config, self._database) or origin)
        self._report.note(f"took over {count(adopted, 'job')} of {one_line(origin)}", event="adopted", timed=False)

    async def _execute(self, context: JobContext) -> JobResult | str | None:
        self._report.run_started(context)
        return await self._executor(context)

    async def _print_outcomes(self, events: EventStream, store: CronStore, printed: trio.Event) -> None:
        """Print the runs that finish, until the scheduler has closed."""
        async for event in events:
            if isinstance(event, RunFinished) and event.started_at is not None:
                try:
                    run, job = await store.get_run(event.run_id), await find_by_id(store, event.job_id)
                except CronError as error:
                    logger.debug("the outcome of run %s is not printed: %s", event.run_id, error)
                else:
                    self._report.run_finished(job, run)
        printed.set()

    def _print_line(self, line: str) -> None:
        self._printer.print_line(line)

    def stop_in_order(self, reason: str) -> None:
        """Stop as if the time were over, and print why."""
        what = "stopping in order" if self._in_block else "stopped during the start, before any run started"
        self._report.note(f"{reason}: {what}", event="stop", timed=False)
        self._stop()

    def stop_at_once(self, status: int) -> None:
        """Cancel everything, runs without a grace."""
        self._status = status
        self._database_scope.cancel()

    def read_again(self) -> None:
        """Read the file again, once the start is complete; during the stop it is too late."""
        self._reloader.request()

    def stop_without_reader(self) -> None:
        """Stop in order, with status 1, as the output has no reader any more."""
        self._status = 1
        self._stop()

    def _stop(self) -> None:
        (self._block_scope if self._in_block else self._database_scope).cancel()
