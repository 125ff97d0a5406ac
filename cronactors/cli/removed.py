"""Finds a job that was removed, by the runs that are left of it. `ReadRemoved.apply` runs on the storage thread."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import attrs

from cronactors.actors.mailbox import ReadRequest
from cronactors.cli import describe
from cronactors.cli.find import find_by_id, find_job, list_users
from cronactors.errors import JobNotFound, one_line, shorten
from cronactors.instants import Millis, from_millis, iso_utc, to_millis
from cronactors.model import Cause, CronJob
from cronactors.storage.history import RunFilter, Span
from cronactors.storage.protocol import Storage
from cronactors.storage.rows import RunRow
from cronactors.store import CronStore

OLD_RUNS: Final = 10_000
"""The number of runs, the newest, among which a removed job is found: no index has the names."""
_PAGE: Final = 2_000


@attrs.frozen
class RemovedJob:
    """A job that was removed, as its runs show it.

    Attributes:
        name: Its name.
        user_id: Its user; None: the agent itself.
        job_ids: Its id, and those of earlier jobs of the same name and user, the newest first.
        last: The newest run of it.
        removed_at: When it was removed; None: nothing of it was due or waiting then, so that no row says so.
        added_again_at: When the job was added that has its name now; None: no job has it.
    """

    name: str
    user_id: str | None
    job_ids: tuple[str, ...]
    last: RunRow
    removed_at: Millis | None
    added_again_at: Millis | None = None

    @property
    def id(self) -> str:
        """Its id."""
        return self.job_ids[0]

    def sentences(self) -> str:
        """Say that it was removed, and when; and when a job of this name was added again."""
        whose = "" if self.user_id is None else f" (user {one_line(self.user_id, 30)})"
        again = "" if self.added_again_at is None else f", and added again at {_utc(self.added_again_at)}"
        return f"{one_line(self.name, 60)}{whose} {self._when()}{again}. Its history stays; times are in UTC."

    def as_json(self) -> dict[str, str | None]:
        """Convert it to values of JSON."""
        at, again = (None if each is None else iso_utc(each) for each in (self.removed_at, self.added_again_at))
        return {"id": self.id, "name": self.name, "user_id": self.user_id, "at": at, "added_again_at": again}

    def _when(self) -> str:
        """Say when it was removed."""
        if self.removed_at is not None:
            return f"was removed at {_utc(self.removed_at)}"
        last = self.last
        if last.started_at is not None:
            return f"was removed after {_utc(last.started_at)}, when run {last.id}, its last, started"
        return f"was removed after {_utc(last.scheduled_at)}, the time of its last row, run {last.id}"


def _utc(at: Millis) -> str:
    return describe.local_time(from_millis(at), "UTC")


@attrs.frozen
class ReadRemoved(ReadRequest[tuple[Sequence[RunRow], Span | None]]):
    """Read the runs with a name among the first of a span of the history, and return the rest of the span; None: there is none.

    Attributes:
        name: The name.
        user_id: The user; "" is the agent itself. None: any.
        span: The span; None: the whole history.
    """

    name: str
    user_id: str | None
    span: Span | None

    def apply(self, storage: Storage) -> tuple[Sequence[RunRow], Span | None]:
        """Read a page of them."""
        span = self.span
        if span is None:
            ids = storage.pruning.run_ids()
            if ids is None:
                return (), None
            span = Span(0, ids[1] + 1)
        page = storage.history.page(RunFilter(user_id=self.user_id), span, limit=_PAGE, read=_PAGE)
        return [run for run in page.rows if run.job_name == self.name], page.rest


async def find_job_or_removed(store: CronStore, name: str, user: str | None) -> CronJob | RemovedJob:
    """Find a job by its name; or, if there is none, one that had it, and has a run among the newest ones.

    Args:
        store: The store.
        name: The name.
        user: The value of ``--user``, as `find_job` takes it.

    Raises:
        JobNotFound: There is neither, or several users have or had one.
    """
    try:
        return await find_job(store, name, user, propose=False)
    except JobNotFound:
        if user is None and any(each == name for _, each in await store.job_names()):
            raise  # several users have one
        runs, is_all = await _find_runs(store, name, user)
        if runs:
            renamed = await find_by_id(store, runs[0].job_id)
            return renamed or _removed_job(name, runs)
    try:
        return await find_job(store, name, user)
    except JobNotFound as problem:
        if is_all:
            raise
        raise JobNotFound(f"{problem}; among the newest {OLD_RUNS:,} runs no removed job has it") from None


async def find_predecessor(store: CronStore, job: CronJob) -> RemovedJob | None:
    """Find a job that was removed before this one was added with its name, if it has a run among the newest ones."""
    runs, _ = await _find_runs(store, job.name, job.user_id or "")
    other_id = job.id
    while runs := [run for run in runs if run.job_id != other_id]:
        other_id = runs[0].job_id
        if await find_by_id(store, other_id) is None:  # else it has another name now
            return attrs.evolve(_removed_job(job.name, runs), added_again_at=to_millis(job.created_at))
    return None


async def _find_runs(store: CronStore, name: str, user: str | None) -> tuple[list[RunRow], bool]:
    """Return the runs with the name among the newest ones, and whether these are all."""
    found: list[RunRow] = []
    span: Span | None = None
    for _ in range(OLD_RUNS // _PAGE):
        rows, span = await store._service.mailbox.call(ReadRemoved(name, user, span))
        found += rows
        if span is None:
            return found, True
    return found, False


def _removed_job(name: str, runs: Sequence[RunRow]) -> RemovedJob:
    """Make the job of its runs, newest first.

    Raises:
        JobNotFound: Several users had one.
    """
    users = list(dict.fromkeys(run.user_id or None for run in runs))
    if len(users) > 1:
        raise JobNotFound(f"{len(users):,} users had a job named {shorten(name)}: give --user with one of {list_users(users)}")
    job_ids = tuple(dict.fromkeys(run.job_id for run in runs))
    own = [run for run in runs if run.job_id == job_ids[0]]
    removed = [run.completed_at for run in own if run.cause == Cause.REMOVED and run.completed_at is not None]
    return RemovedJob(name, users[0], job_ids, own[0], max(removed, default=None))
