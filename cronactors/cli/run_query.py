"""Which runs a verb is about: from the options of the command line to the filters of a store."""

from __future__ import annotations

from datetime import datetime

import attrs

from cronactors.cli.removed import RemovedJob, find_job_or_removed
from cronactors.cli.times import parse_time
from cronactors.model import ALL, AllUsers, Cause, CronJob, CronRun, RunStatus, Trigger
from cronactors.schedules.zones import is_zone
from cronactors.store import CronStore
from cronactors.wallclock import now


@attrs.frozen(kw_only=True)
class RunQuery:
    """The arguments of a verb on the history.

    Attributes:
        name: The name of the job; None: all jobs.
        user: A user, "" for the agent itself. None: the one user who has the job; without a name all users.
        status: Only runs with that status; None: any. So are the other filters.
        cause: With that cause.
        trigger: With that trigger.
        tag: Of jobs that have that tag now.
        since: That started at this time or later: text for `parse_time`.
        until: That started before this time.
        limit: How many runs.
    """

    name: str | None = None
    user: str | None = None
    status: RunStatus | None = None
    cause: Cause | None = None
    trigger: Trigger | None = None
    tag: str | None = None
    since: str | None = None
    until: str | None = None
    limit: int = 10

    @property
    def user_id(self) -> str | AllUsers | None:
        """The user as methods of `CronStore` take it."""
        return ALL if self.user is None else self.user or None

    @property
    def filtered(self) -> bool:
        """Whether a filter may leave out runs; without a name the user is one."""
        whose = self.user if self.name is None else None
        filters = (whose, self.status, self.cause, self.trigger, self.tag, self.since, self.until)
        return any(each is not None for each in filters)

    def times(self, zone: str) -> tuple[datetime | None, datetime | None]:
        """Return the times of ``since`` and ``until``, UTC.

        Raises:
            ValueError: One is no time.
        """
        present, known = now(), zone if is_zone(zone) else "UTC"
        since, until = (None if text is None else parse_time(text, zone=known, now=present) for text in (self.since, self.until))
        return since, until


@attrs.frozen
class Subject:
    """Whose runs a verb is about.

    Attributes:
        job: The job; None: all jobs, or one that was removed.
        job_ids: The job; or those that had its name, if it was removed. None: all jobs.
        removed: The job, if it was removed.
    """

    job: CronJob | None = None
    job_ids: tuple[str, ...] | None = None
    removed: RemovedJob | None = None

    @property
    def zone(self) -> str:
        """The zone of its times: that of the job, else UTC."""
        return "UTC" if self.job is None else self.job.timezone


async def find_subject(store: CronStore, query: RunQuery) -> Subject:
    """Find the job of a query, also one that was removed and has a run among the newest ones.

    Raises:
        JobNotFound: There is no such job, and no run of one; or several users have or had one.
    """
    if query.name is None:
        return Subject()
    found = await find_job_or_removed(store, query.name, query.user)
    if isinstance(found, RemovedJob):
        return Subject(None, found.job_ids, found)
    return Subject(found, (found.id,))


async def read_runs(store: CronStore, query: RunQuery, subject: Subject) -> list[CronRun]:
    """Read the runs that a query asks for, newest first: those of one job in order of moment, else in the order in which they were added."""
    since, until = query.times(subject.zone)
    found: list[CronRun] = []
    for job_id in (None,) if subject.job_ids is None else subject.job_ids:
        found += await store.list_runs(
            job_id,
            query.limit,
            status=query.status,
            cause=query.cause,
            trigger=query.trigger,
            tag=query.tag,
            user_id=query.user_id if job_id is None else ALL,
            since=since,
            until=until,
        )
    if subject.job_ids is not None and len(subject.job_ids) > 1:
        found.sort(key=lambda run: int(run.id), reverse=True)
    return found[: query.limit]
