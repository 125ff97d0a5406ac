"""Origins, the names by which lists of jobs are known: how a file gets one, what a start upserts, and what is said of it.

A list is found again by its origin, so that jobs which are taken out of it are removed. By default that is the path of the file relative
to the folder of the database: both may be moved together, and two files never share a name. A file that is moved alone leaves jobs
behind, which keep running; so each start names the lists whose file is gone.
"""

from __future__ import annotations

import logging
import os
import shlex
from collections.abc import Sequence

import attrs

from cronactors.actors.mailbox import Mailbox
from cronactors.actors.user_requests import ListOrigins, UpsertJobs
from cronactors.errors import one_line
from cronactors.ids import with_ids
from cronactors.ledger.job_fields import Defaults
from cronactors.ledger.upsert import JobList, Upserted
from cronactors.spec import CronConfig, JobSpec
from cronactors.storage.file_state import MEMORY

logger = logging.getLogger("cronactors.lists")

_MOST_NAMES = 10


@attrs.frozen
class LostOrigin:
    """A list that no file keeps any more, and whose jobs keep running.

    Attributes:
        name: Its origin.
        jobs: How many jobs it has.
        why: What has become of its file.
    """

    name: str
    jobs: int
    why: str

    def line(self, *, adopt: str = "cronactors run", remove: str = "cronactors remove") -> str:
        """Say which jobs keep running, and the commands that take them over or remove them."""
        name = shlex.quote(one_line(self.name))
        jobs = f"{self.jobs:,} {'job' if self.jobs == 1 else 'jobs'} of {one_line(self.name)}, {self.why}"
        them = "it" if self.jobs == 1 else "them"
        return f"{jobs}: `{adopt} --adopt {name}` takes {them} over, `{remove} --origin {name}` removes {them}"


@attrs.frozen
class StartReport:
    """What a start has found in its lists.

    Attributes:
        lines: What has changed in jobs that were there before, a line each.
        lost: Lists that no file keeps any more.
    """

    lines: tuple[str, ...] = ()
    lost: tuple[LostOrigin, ...] = ()


def origin_of(config: CronConfig, database: str) -> str | None:
    """The name of a configuration's list in a database; None if it has none."""
    return config.origin or (None if config.file is None else default_origin(database, config.file))


def default_origin(database: str, file: str) -> str:
    """The path of a file relative to the folder of a database, with "/" between its parts; its name alone if the database has no folder."""
    folder = _folder_of(database)
    if folder is None:
        return os.path.basename(file)  # noqa: PTH119 - text in, text out
    try:
        path = os.path.relpath(file, folder)
    except ValueError:  # on another drive
        path = os.path.abspath(file)  # noqa: PTH100 - resolve() follows links
    return path.replace(os.sep, "/")


def _folder_of(database: str) -> str | None:
    return None if database == MEMORY else os.path.dirname(os.path.abspath(database))  # noqa: PTH100, PTH120


def _list_of(config: CronConfig, database: str) -> JobList:
    """The list of a configuration. A file had its absolute path for an origin once, and may have had its default one before it named one."""
    specs, origin = with_ids(config.jobs), origin_of(config, database)
    if config.file is None:
        return JobList(specs=specs, origin=origin, keeps_passed=True)
    file = default_origin(database, config.file)
    former = (file, os.path.abspath(config.file))  # noqa: PTH100
    return JobList(specs=specs, origin=origin, file=file, former=former, keeps_passed=True)


async def upsert_at_start(
    mailbox: Mailbox, config: CronConfig, specs: tuple[JobSpec, ...], *, defaults: Defaults, database: str
) -> StartReport:
    """Upsert the jobs of a configuration and those of a call, all of them or none, and report and log what is worth knowing.

    Args:
        mailbox: The store's.
        config: Its ``jobs`` are a list with an origin, if it has one.
        specs: The jobs of the call; they have no origin.
        defaults: What entries leave open.
        database: The path of the store.

    Raises:
        CronError: A job was refused, and nothing has changed; or the store failed.
    """
    configured = _list_of(config, database)
    origin, file = configured.origin, configured.file
    lists = [configured] if config.jobs or origin is not None else []
    if specs:
        lists.append(JobList(specs=with_ids(specs), keeps_passed=True))
    if not lists:
        return StartReport()
    done = await mailbox.call(UpsertJobs(tuple(lists), defaults))
    lines = tuple(line for each in done for line in log_upserted(each, defaults))
    lost = () if origin is None else await _lost(mailbox, origin, file, _folder_of(database))
    return StartReport(lines, lost)


async def _lost(mailbox: Mailbox, origin: str, file: str | None, folder: str | None) -> tuple[LostOrigin, ...]:
    """Find the lists that no file keeps any more, and log each."""
    lost = []
    for row, gone in await mailbox.call(ListOrigins(folder)):
        if row.file is None or row.name == origin:
            continue
        shown = "which" if row.file == row.name else f"whose file {one_line(row.file)}"
        if gone:
            lost.append(LostOrigin(row.name, row.jobs, f"{shown} is gone"))
        elif row.file == file:
            lost.append(LostOrigin(row.name, row.jobs, f"whose file {one_line(row.file)} has another origin now"))
    for each in lost:
        logger.warning("%s", each.line())
    return tuple(lost)


def log_upserted(done: Upserted, defaults: Defaults) -> list[str]:
    """Log which jobs follow other defaults than before and which one-shots have passed, and give the lines."""
    followed = [
        f"{what} now applies to {len(names):,} {'job' if len(names) == 1 else 'jobs'}: {_first_of(names)}"
        for what, names in (
            (f"timezone {defaults.timezone}", done.zone),
            (f"default_max_retries {defaults.max_retries}", done.retries),
            (f"default_timeout_secs {defaults.timeout_secs:g}", done.timeout),
        )
        if names
    ]
    for line in followed:
        logger.info("%s", line)
    if not done.passed:
        return followed
    have = "one-shot has" if len(done.passed) == 1 else "one-shots have"
    line = f"{len(done.passed):,} {have} passed, recorded as skipped: {_first_of(done.passed)}"
    logger.warning("%s", line)
    return [*followed, line]


def _first_of(names: Sequence[str]) -> str:
    listed = ", ".join(one_line(name, 60) for name in names[:_MOST_NAMES])
    return f"{listed} and {len(names) - _MOST_NAMES:,} more" if len(names) > _MOST_NAMES else listed
