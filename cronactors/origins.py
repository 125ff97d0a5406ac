"""Origins: the names of lists of jobs. Upserts the lists of a scheduler at its start, and reports lists whose file is gone.

A start finds its list by the origin, and removes the jobs that the list no longer names. By default the origin is the path of the file
relative to the folder of the database: both can be moved together, and two files never share an origin. If a file is moved alone, the
jobs of its old origin keep running; so each start logs the lists whose file is gone.
"""

from __future__ import annotations

import logging
import os
import shlex
from collections.abc import Sequence

import attrs

from cronactors.actors.mailbox import Mailbox
from cronactors.actors.user_requests import ListOrigins, UpsertJobs
from cronactors.errors import InvalidConfig, one_line
from cronactors.ids import with_ids
from cronactors.ledger.job_fields import Defaults
from cronactors.ledger.upsert import JobList, Upserted
from cronactors.settings import CronConfig
from cronactors.spec import JobSpec
from cronactors.storage.file_state import MEMORY
from cronactors.storage.postgres.address import is_postgres

logger = logging.getLogger("cronactors.lists")

_MAX_NAMES = 10


@attrs.frozen
class LostOrigin:
    """A list whose file is gone or has another origin now, while its jobs keep running.

    Attributes:
        name: Its origin.
        jobs: How many jobs it has.
        reason: Why no file updates it, as a relative clause.
    """

    name: str
    jobs: int
    reason: str

    def line(self, *, adopt: str = "cronactors run", remove: str = "cronactors remove") -> str:
        """Return a line with the jobs that keep running and the commands that take them over or remove them."""
        name = shlex.quote(one_line(self.name))
        jobs = f"{self.jobs:,} {'job' if self.jobs == 1 else 'jobs'} of {one_line(self.name)}, {self.reason}"
        them = "it" if self.jobs == 1 else "them"
        return f"{jobs}: `{adopt} --adopt {name}` takes {them} over, `{remove} --origin {name}` removes {them}"


@attrs.frozen
class StartReport:
    """A report on the lists of jobs at a start, or when their file was read again.

    Attributes:
        lines: One line for each default that now applies to jobs which were there before, and one for one-shots that have passed.
        lost: Lists whose jobs keep running without a file.
        added: Names of jobs that are new.
        changed: Names of jobs that were there before and are different now.
        removed: Names of jobs that left their list.
        unchanged: How many listed jobs are as they were.
    """

    lines: tuple[str, ...] = ()
    lost: tuple[LostOrigin, ...] = ()
    added: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    unchanged: int = 0


def origin_of(config: CronConfig, database: str) -> str | None:
    """Return the origin of a configuration's list in a database; None if it names neither an origin nor a file."""
    return config.origin or (None if config.file is None else default_origin(database, config.file))


def check_origin(config: CronConfig, database: str) -> None:
    """Check that a file names its origin if the database is on a server.

    Raises:
        InvalidConfig: It does not.
    """
    if is_postgres(database) and config.file is not None and config.origin is None:
        why = "machines that share a server may have the file at different paths"
        raise InvalidConfig(f'{one_line(config.file, 200)}: [cron]: origin must be named, such as origin = "my agent": {why}')


def default_origin(database: str, file: str) -> str:
    """Return the path of a file relative to the folder of a database, with "/" between its parts; without a folder its name alone."""
    folder = _folder_of(database)
    if folder is None:
        return os.path.basename(file)  # noqa: PTH119 - text in, text out
    try:
        path = os.path.relpath(file, folder)
    except ValueError:  # on another drive
        path = os.path.abspath(file)  # noqa: PTH100 - resolve() follows links
    return path.replace(os.sep, "/")


def _folder_of(database: str) -> str | None:
    return None if database == MEMORY or is_postgres(database) else os.path.dirname(os.path.abspath(database))  # noqa: PTH100, PTH120


def _list_of(config: CronConfig, database: str) -> JobList:
    """Return the list of a configuration.

    Its former origins are the default one, which a file had before it named one, and its absolute path, which was the default once.
    """
    check_origin(config, database)
    specs, origin = with_ids(config.jobs), origin_of(config, database)
    if config.file is None:
        return JobList(specs=specs, origin=origin, keeps_passed=True)
    file = default_origin(database, config.file)
    former = (file, os.path.abspath(config.file))  # noqa: PTH100
    return JobList(specs=specs, origin=origin, file=file, former=former, keeps_passed=True)


async def upsert_lists(
    mailbox: Mailbox, config: CronConfig, specs: tuple[JobSpec, ...], *, defaults: Defaults, database: str
) -> StartReport:
    """Upsert the jobs of a configuration and those of a call, all of them or none, and log the report.

    A start calls it, and ``cronactors run`` when it reads its file again.

    Args:
        mailbox: The mailbox of the store.
        config: The configuration; its ``jobs`` are a list, with an origin if it has one.
        specs: The jobs of the call; they have no origin.
        defaults: Values for fields that jobs leave at None.
        database: The path of the store.

    Returns:
        The report.

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
    upserted = await mailbox.call(UpsertJobs(tuple(lists), defaults))
    lines = tuple(line for each in upserted for line in log_upserted(each, defaults))
    # On a server the file of another list may be on another machine, and have the same name as this one.
    lost = () if origin is None or is_postgres(database) else await _lost(mailbox, origin, file, _folder_of(database))
    return StartReport(
        lines,
        lost,
        added=tuple(name for each in upserted for name in each.added),
        changed=tuple(name for each in upserted for name in each.changed),
        removed=tuple(name for each in upserted for name in each.removed),
        unchanged=sum(len(each.ids) - len(each.added) - len(each.changed) for each in upserted),
    )


async def _lost(mailbox: Mailbox, origin: str, file: str | None, folder: str | None) -> tuple[LostOrigin, ...]:
    """Find the lists whose jobs keep running without a file, and log each."""
    lost = []
    for row, gone in await mailbox.call(ListOrigins(folder)):
        if row.file is None or row.name == origin:
            continue
        subject = "which" if row.file == row.name else f"whose file {one_line(row.file)}"
        if gone:
            lost.append(LostOrigin(row.name, row.jobs, f"{subject} is gone"))
        elif row.file == file:
            lost.append(LostOrigin(row.name, row.jobs, f"whose file {one_line(row.file)} has another origin now"))
    for each in lost:
        logger.warning("%s", each.line())
    return tuple(lost)


def log_upserted(upserted: Upserted, defaults: Defaults) -> list[str]:
    """Log which jobs follow other defaults than before and which one-shots have passed.

    Returns:
        The lines that were logged.
    """
    followed = [
        f"{default} now applies to {len(names):,} {'job' if len(names) == 1 else 'jobs'}: {first_of(names)}"
        for default, names in (
            (f"timezone {defaults.timezone}", upserted.zone),
            (f"default_max_retries {defaults.max_retries}", upserted.retries),
            (f"default_timeout_secs {defaults.timeout_secs:g}", upserted.timeout),
        )
        if names
    ]
    for line in followed:
        logger.info("%s", line)
    if not upserted.passed:
        return followed
    have = "one-shot has" if len(upserted.passed) == 1 else "one-shots have"
    line = f"{len(upserted.passed):,} {have} passed, recorded as skipped: {first_of(upserted.passed)}"
    logger.warning("%s", line)
    return [*followed, line]


def first_of(names: Sequence[str]) -> str:
    """List names on one line, the first ten if there are more."""
    listed = ", ".join(one_line(name, 60) for name in names[:_MAX_NAMES])
    return f"{listed} and {len(names) - _MAX_NAMES:,} more" if len(names) > _MAX_NAMES else listed
