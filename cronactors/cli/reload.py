"""Reading the file of ``run`` again, on SIGHUP or when it has changed: its jobs are upserted as a start does it."""

from __future__ import annotations

import logging
import os
import tomllib
from collections.abc import Callable
from contextlib import suppress
from enum import Enum, auto
from pathlib import Path
from typing import Final, NamedTuple, Never, Self, TypeVar

import attrs
import trio

from cronactors import CronScheduler
from cronactors.cli.database import database_of
from cronactors.cli.report import Report
from cronactors.config_file import check_jobs_for_shell, load_config
from cronactors.errors import CronError, InvalidConfig, StoreUnavailable, one_line
from cronactors.ledger.job_fields import Defaults
from cronactors.origins import StartReport, check_origin, upsert_lists
from cronactors.settings import CronConfig

logger = logging.getLogger("cronactors.cli")

INSPECT_EVERY = 1.0
"""The interval (s) at which ``--watch`` inspects the file."""
_RETRY_EVERY = 5.0
"""The time (s) until jobs are upserted again after the database could not be used."""
_TIMES_UNTIL_READ = 3
"""How many times in a row a changed file must be the same until it is read: its writer may pause."""
_TIMES_UNTIL_GONE = 5
"""How many times in a row a file must be missing until that is reported: editors remove a file for a moment when they save it."""

_AT_START: Final = {
    "max_concurrent_runs": "max_concurrent_runs",
    "max_concurrent_runs_total": "max_concurrent_runs_total",
    "retry": "retry_delays",
    "history": "history",
    "cancel_grace": "cancel_grace",
    "shutdown_grace": "shutdown_grace",
    "overdue_after": "overdue_after",
}
"""Fields of `CronConfig` that a running scheduler cannot change, with their keys in the file."""

_T = TypeVar("_T")


class Loaded(NamedTuple):
    """The content of a file, with the options of ``run`` that override it.

    Attributes:
        config: Settings and jobs.
        database: The path or the address of the database.
        executor: The name of the executor, if there is one.
    """

    config: CronConfig
    database: str
    executor: str | None


@attrs.frozen(kw_only=True)
class Source:
    """A file, and the options of ``run`` that override its settings. A file that is not ``needed`` may be missing: it lists no jobs."""

    file: Path
    needed: bool = True
    db: str | None = None
    executor: str | None = None
    shutdown_grace: float | None = None

    def load(self) -> Loaded:
        """Read the file.

        Raises:
            CronError: The file is refused.
        """
        config = load_config(self.file) if self.needed or self.file.exists() else CronConfig()
        if self.shutdown_grace is not None:
            config = attrs.evolve(config, shutdown_grace=self.shutdown_grace)
        database = database_of(config, self.db)
        check_origin(config, database)
        executor = self.executor or config.executor
        if executor == "shell":
            check_jobs_for_shell(config)
        return Loaded(config, database, executor)


class Stamp(NamedTuple):
    """The file system's facts of a file that change with its content or its permissions; a file that replaces it has another inode."""

    modified_ns: int
    changed_ns: int
    size: int
    inode: int

    @classmethod
    def of(cls, file: Path) -> Self | None:
        """Return that of a file; None if it is missing or out of reach."""
        try:
            facts = os.stat(file)  # noqa: PTH116 - as the path was made
        except (OSError, ValueError):
            return None
        return cls(facts.st_mtime_ns, facts.st_ctime_ns, facts.st_size, facts.st_ino)


class FileChange(Enum):
    """The difference between a file and the version that was read last."""

    NONE = auto()
    WRITTEN = auto()
    GONE = auto()


class FileWatch:
    """Notices that a file was written, once it has been the same three times in a row. Pure: stamps in.

    Args:
        known: The stamp of the version that was read last; None: it was missing.
    """

    def __init__(self, known: Stamp | None) -> None:
        self.known = known
        self._last = known
        self._times = 0

    def compare(self, stamp: Stamp | None) -> FileChange:
        """Compare the file with the version that is known. That it is missing now is reported once, at the fifth time."""
        self._times = self._times + 1 if stamp == self._last else 1
        self._last = stamp
        if stamp == self.known:
            return FileChange.NONE
        if stamp is None:
            return FileChange.GONE if self._times == _TIMES_UNTIL_GONE else FileChange.NONE
        return FileChange.WRITTEN if self._times >= _TIMES_UNTIL_READ else FileChange.NONE


class Reloader:
    """Reads the file again when that is requested, and with ``watch`` when it has changed.

    A file that is refused changes nothing. Nor does one with another database or executor: its jobs are meant for these. Nor does one
    that no longer lists any job, unless it has ``jobs = []``: it may be one that is being written, of which the beginning is valid too.

    Args:
        source: The file, which must be there when it is read; its path is absolute.
        running: The content with which the scheduler started.
        stamp: Its stamp before it was read.
        watch: Whether to read the file when it has changed.
    """

    def __init__(self, source: Source, running: Loaded, stamp: Stamp | None, *, watch: bool) -> None:
        self._source, self._running, self._read = source, running, running
        self._files = FileWatch(stamp)
        self._watches = watch
        # A channel of size 1 is a latch: a request during the start, or while the file is read, is not forgotten.
        self._send, self._requests = trio.open_memory_channel[None](1)
        self._problem: str | None = None  # with the database, because of which the jobs are upserted again

    def request(self) -> None:
        """Request that the file is read again."""
        with suppress(trio.WouldBlock):  # it is requested already
            self._send.send_nowait(None)

    async def run(self, scheduler: CronScheduler, report: Report) -> Never:
        """Wait for requests and changes until it is cancelled, which leaves a list upserted as a whole or not at all."""
        while True:
            requested = await self._wait()
            if requested or self._problem is not None or await self._has_changed(report):
                await self._read_again(scheduler, report, requested=requested)

    async def _wait(self) -> bool:
        """Wait for a request, or until it is time to inspect the file or to try again; return whether there was a request."""
        timeout = _RETRY_EVERY if self._problem is not None else INSPECT_EVERY if self._watches else float("inf")
        with trio.move_on_after(timeout):
            await self._requests.receive()
            return True
        return False

    async def _has_changed(self, report: Report) -> bool:
        change = self._files.compare(await _in_thread(lambda: Stamp.of(self._source.file)))
        if change is FileChange.GONE:
            report.file_gone()
        return change is FileChange.WRITTEN

    async def _read_again(self, scheduler: CronScheduler, report: Report, *, requested: bool) -> None:
        try:
            stamp, loaded, is_stable = await _in_thread(self._load)
            if not requested and not is_stable:
                return  # it is being written: it has another stamp the next time
            self._files.known = stamp
            if isinstance(loaded, CronError):
                raise loaded
            if loaded == self._read and not requested and self._problem is None:
                return  # saved again as it was
            self._refuse_other_target(loaded)
            done = await self._upsert(scheduler, loaded.config)
        except StoreUnavailable as problem:
            if str(problem) != self._problem:
                report.file_waits(problem)
            self._problem = str(problem)
            return
        except CronError as problem:
            report.file_refused(problem)
        else:
            self._read = loaded
            report.file_read(self._applied(loaded.config), done, self._at_start(loaded.config))
        self._problem = None

    def _load(self) -> tuple[Stamp | None, Loaded | CronError, bool]:
        """Read the file; return its stamp, its content or its mistake, and whether it was there and the same all the time."""
        stamp = Stamp.of(self._source.file)
        loaded: Loaded | CronError
        try:
            loaded = self._source.load()
            self._refuse_incomplete(loaded)
        except CronError as problem:
            loaded = problem
        return stamp, loaded, stamp is not None and stamp == Stamp.of(self._source.file)

    def _refuse_incomplete(self, loaded: Loaded) -> None:
        """Refuse a file that lists no jobs any more, and does not say that it is to have none.

        Raises:
            InvalidConfig: It is one.
        """
        before = len(self._read.config.jobs)
        if before and not loaded.config.jobs and not _has_jobs_key(self._source.file):
            them = "that job" if before == 1 else f"all {before:,} jobs"
            why = f"it lists no job any more, as if it were not complete; to remove {them}, write jobs = [] under [cron]"
            raise InvalidConfig(f"{one_line(str(self._source.file), 200)}: {why}")

    def _refuse_other_target(self, loaded: Loaded) -> None:
        """Refuse a file whose jobs are meant for another database or executor.

        Raises:
            InvalidConfig: They are.
        """
        for setting in ("database", "executor"):
            if getattr(loaded, setting) != getattr(self._running, setting):
                raise InvalidConfig(f"{self._source.file}: the {setting} is another one now, which needs a new start")

    async def _upsert(self, scheduler: CronScheduler, config: CronConfig) -> StartReport:
        service = scheduler._actors.service
        return await upsert_lists(service.mailbox, config, (), defaults=Defaults.of(config), database=service.path)

    def _applied(self, config: CronConfig) -> CronConfig:
        """Return the settings that are in force now."""
        return attrs.evolve(config, **{field: getattr(self._running.config, field) for field in _AT_START})

    def _at_start(self, config: CronConfig) -> list[str]:
        """Return the keys of changed settings that are not in force before the next start."""
        running = self._running.config
        return [key for field, key in _AT_START.items() if getattr(config, field) != getattr(running, field)]


def _has_jobs_key(file: Path) -> bool:
    """Return whether a file that was accepted has the key ``jobs`` under ``[cron]``."""
    try:
        cron: object = tomllib.loads(file.read_bytes().decode("utf-8-sig")).get("cron")
    except (OSError, ValueError):  # it was replaced meanwhile
        return False
    return isinstance(cron, dict) and "jobs" in cron


async def _in_thread(work: Callable[[], _T]) -> _T:
    """Run work that may wait for a slow file system in a thread of its own; a cancellation abandons it."""
    return await trio.to_thread.run_sync(work, abandon_on_cancel=True, limiter=trio.CapacityLimiter(1))
