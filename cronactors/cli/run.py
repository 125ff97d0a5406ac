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
from cronactors.cli.database import database_of
from cronactors.cli.printer import Printer
from cronactors.cli.run_report import RunReport, TypedCommand
from cronactors.cli.signals import watch_signals
from cronactors.config_file import check_jobs_for_shell, load_config
from cronactors.errors import CronError, InvalidConfig, JobNotFound, one_line
from cronactors.executors import find_executor
from cronactors.model import CronJob, JobContext, JobExecutor, JobResult
from cronactors.origins import check_origin, origin_of
from cronactors.settings import CronConfig
from cronactors.storage.postgres.address import is_postgres

logger = logging.getLogger("cronactors.cli")


def run_file(
    file: Path,
    *,
    db: str | None,
    executor_name: str | None,
    seconds: float | None,
    shutdown_grace: float | None = None,
    adopt: str | None = None,
) -> int:
    """Run the jobs of a file until a signal, or for ``seconds``.

    Args:
        file: An agent.toml.
        db: The path or the address of the database; None: the one that the file names.
        executor_name: ``"shell"`` or ``"package.module:function"``; None: the one that the file names.
        seconds: When to stop (s); None: never.
        shutdown_grace: How long runs may take after a signal (s); None: as the file says.
        adopt: An origin whose jobs are taken over first.

    Returns:
        The exit status: 0 if it stopped in order, 1 if the reader of standard output went away, 128 + the signal if it stopped at once.

    Raises:
        CronError: The file, the executor or the database is refused.
    """
    logging.basicConfig(format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    logging.getLogger("cronactors.failures").setLevel(logging.ERROR)  # standard output has a line for each failed run
    logging.getLogger("cronactors.lists").setLevel(logging.ERROR)  # the header has the same lines
    config = load_config(file)
    if shutdown_grace is not None:
        config = attrs.evolve(config, shutdown_grace=shutdown_grace)
    database = database_of(config, db)
    check_origin(config, database)
    executor_name = executor_name or config.executor
    if executor_name == "shell":
        check_jobs_for_shell(config)
    executor = _find_executor(executor_name, Path(config.file or file).parent)
    typed = TypedCommand.of(file, None if db is None else database)
    session = _Session(config, database, executor, typed=typed, seconds=seconds, adopt=adopt)
    return trio.run(session.run)


def _find_executor(name: str | None, folder: Path) -> JobExecutor:
    if name is None:
        raise InvalidConfig('executor is not named: write executor = "shell" under [cron], or give --executor')
    # As `python file.py` does: a module may be beside the file, or in the working directory.
    sys.path[:0] = [path for path in (str(Path.cwd()), str(folder)) if path not in sys.path]
    return find_executor(name, folder)


class _Session:
    """One start of the command, and the ways to stop it.

    To stop in order we leave the scheduler's block, which gives runs their grace: `_block_scope` holds the sleep in it. Before the block
    is entered, the start may wait for a locked file and no run has started: then, and to stop at once, we cancel `_database_scope`,
    which holds everything that uses the database.
    """

    def __init__(
        self,
        config: CronConfig,
        database: str,
        executor: JobExecutor,
        *,
        typed: TypedCommand,
        seconds: float | None,
        adopt: str | None,
    ) -> None:
        self._config, self._database, self._executor, self._seconds, self._adopt = config, database, executor, seconds, adopt
        self._printer = Printer(on_reader_gone=self.stop_without_reader)
        self._report = RunReport(config, typed, self._print_line)
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
        if self._failure is not None:
            raise self._failure
        return self._status

    async def _schedule(self, nursery: trio.Nursery) -> None:
        """Run the scheduler, and print the outcomes of its runs.

        We read them from its events. As a receiver we would take over the notifications of other programs on this file, and print
        them instead of delivering them. The store stays open until the last outcome is printed.
        """
        if self._adopt is not None:
            await self._adopt_origin(self._adopt)
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
            await trio.sleep(math.inf if self._seconds is None else self._seconds)
        self._report.stopping()

    async def _adopt_origin(self, origin: str) -> None:
        """Give the jobs of another list to the list of this file; none may be left, as after a restart with the same options."""
        async with open_store(self._database) as store:
            count = await store.adopt_origin(origin, by=origin_of(self._config, self._database) or origin)
        self._print_line(f"took over {count:,} {'job' if count == 1 else 'jobs'} of {one_line(origin)}")

    async def _execute(self, context: JobContext) -> JobResult | str | None:
        self._report.run_started(context)
        return await self._executor(context)

    async def _print_outcomes(self, events: EventStream, store: CronStore, printed: trio.Event) -> None:
        """Print the runs that finish, until the scheduler has closed."""
        async for event in events:
            if isinstance(event, RunFinished) and event.started_at is not None:
                try:
                    run, job = await store.get_run(event.run_id), await _find(store, event.job_id)
                except CronError as error:
                    logger.debug("the outcome of run %s is not printed: %s", event.run_id, error)
                else:
                    self._report.run_finished(job, run)
        printed.set()

    def _print_line(self, line: str) -> None:
        self._printer.print_line(line)

    def stop_in_order(self, reason: str) -> None:
        """Stop as if the time were over, and print why."""
        self._print_line(
            f"{reason}: {'stopping in order' if self._in_block else 'stopped during the start, before any run started'}"
        )
        self._stop()

    def stop_at_once(self, status: int) -> None:
        """Cancel everything, runs without a grace."""
        self._status = status
        self._database_scope.cancel()

    def stop_without_reader(self) -> None:
        """Stop in order, with status 1, as the output has no reader any more."""
        self._status = 1
        self._stop()

    def _stop(self) -> None:
        (self._block_scope if self._in_block else self._database_scope).cancel()


async def _find(store: CronStore, job_id: str) -> CronJob | None:
    try:
        return await store.get_job(job_id)
    except JobNotFound:
        return None
