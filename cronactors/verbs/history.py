"""The verbs on the history of runs."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING

from cronactors.actors import history_requests
from cronactors.checks import member, whole
from cronactors.errors import InvalidJob, shorten
from cronactors.ids import row_number
from cronactors.ledger.views import run_view
from cronactors.model import ALL, AllUsers, Cause, CronRun, Explanation, RunStatus, Trigger
from cronactors.own_loop import MAX_LIMIT
from cronactors.spec import check_id, check_instant, check_user_id
from cronactors.storage.history import RunFilter
from cronactors.verbs.base import Verbs

if TYPE_CHECKING:
    from cronactors.run_stats import RunStats
    from cronactors.storage.history import RunFigures, Span

_PAGE = 2_000


class HistoryVerbs(Verbs):
    """Reading the history by filters, and figures about it. Each reads page by page, a transaction each: changes in between may show."""

    async def list_runs(
        self,
        job_id: str | None = None,
        limit: int = 10,
        *,
        status: RunStatus | None = None,
        cause: Cause | None = None,
        trigger: Trigger | None = None,
        tag: str | None = None,
        user_id: str | AllUsers | None = ALL,
        since: datetime | None = None,
        until: datetime | None = None,
        after: str | None = None,
    ) -> list[CronRun]:
        """Read history, newest first, removed jobs included.

        Args:
            job_id: Runs of that job only, in order of moment; None for all jobs, in the order in which they were added.
            limit: How many at most.
            status: Only runs with that status.
            cause: Only runs with that cause.
            trigger: Only runs with that trigger.
            tag: Only runs of jobs that have this tag now.
            user_id: The user; None for the agent itself, ALL for all users.
            since: Only runs that started at this time or later, an aware datetime. A run that never started counts from when that was
                recorded, a pending one from when on it may start.
            until: Only runs that started before this time, likewise.
            after: The id of the last run of the page before: only runs that are listed after it, whether or not it still exists.

        Raises:
            InvalidJob: An argument has a wrong type or value.
        """
        wanted = _wanted(
            job_id=job_id, status=status, cause=cause, trigger=trigger, tag=tag, user_id=user_id, since=since, until=until
        )
        whole("limit", limit, InvalidJob, least=1, most=MAX_LIMIT)
        last = None if after is None else _run_number("after", after)
        found: list[CronRun] = []
        span: Span | None = None
        while len(found) < limit:
            size = min(limit - len(found), _PAGE)
            rows, span = await self._mailbox.call(history_requests.PageOfRuns(wanted, span, size, last))
            found += map(run_view, rows)
            if span is None:
                break
        return found

    async def count_runs(
        self,
        job_id: str | None = None,
        *,
        status: RunStatus | None = None,
        cause: Cause | None = None,
        trigger: Trigger | None = None,
        tag: str | None = None,
        user_id: str | AllUsers | None = ALL,
        since: datetime | None = None,
        until: datetime | None = None,
    ) -> int:
        """Count runs; the arguments are those of `list_runs`.

        Raises:
            InvalidJob: An argument has a wrong type or value.
        """
        wanted = _wanted(
            job_id=job_id, status=status, cause=cause, trigger=trigger, tag=tag, user_id=user_id, since=since, until=until
        )
        total, span = await self._mailbox.call(history_requests.CountRuns(wanted, None))
        while span is not None:
            count, span = await self._mailbox.call(history_requests.CountRuns(wanted, span))
            total += count
        return total

    async def run_stats(
        self,
        job_id: str | None = None,
        *,
        tag: str | None = None,
        user_id: str | AllUsers | None = ALL,
        since: datetime | None = None,
        until: datetime | None = None,
    ) -> RunStats:
        """Return how many runs had which outcome, how long they took and how late they started: the newest 10,000 that match.

        The arguments are those of `list_runs`.

        Raises:
            InvalidJob: An argument has a wrong type or value.
        """
        from cronactors.run_stats import MOST_FIGURES, stats_of  # noqa: PLC0415 - imported when it is used

        wanted = _wanted(job_id=job_id, tag=tag, user_id=user_id, since=since, until=until)
        found: list[RunFigures] = []
        span: Span | None = None
        while len(found) <= MOST_FIGURES:  # one more, to see whether there are more
            size = min(MOST_FIGURES + 1 - len(found), _PAGE)
            figures, span = await self._mailbox.call(history_requests.FiguresOfRuns(wanted, span, size))
            found += figures
            if span is None:
                break
        return stats_of(found[:MOST_FIGURES], complete=len(found) <= MOST_FIGURES)

    async def explain(self, job_id: str, at: datetime) -> Explanation:
        """Explain the moment ``at`` of a job: whether it ran or will run, or why not. Between two moments it shows the nearest.

        Args:
            job_id: The job.
            at: An aware datetime.

        Raises:
            InvalidJob: ``at`` is no aware datetime.
            JobNotFound: There is none of that id.
            InvalidSchedule: The stored schedule cannot be read.
        """
        return await self._mailbox.call(history_requests.Explain(check_id("job_id", job_id), check_instant("at", at)))


def _wanted(
    *,
    job_id: object,
    tag: object,
    user_id: object,
    since: object,
    until: object,
    status: object = None,
    cause: object = None,
    trigger: object = None,
) -> RunFilter:
    """Check the filters of users.

    Raises:
        InvalidJob: One has a wrong type or value.
    """
    wanted = RunFilter(
        job_id=None if job_id is None else check_id("job_id", job_id),
        user_id=None if user_id is ALL else check_user_id(user_id),
        status=None if status is None else member("status", status, InvalidJob, RunStatus).value,
        cause=None if cause is None else member("cause", cause, InvalidJob, Cause).value,
        trigger=None if trigger is None else member("trigger", trigger, InvalidJob, Trigger).value,
        tag=None if tag is None else check_id("tag", tag),
        since=None if since is None else check_instant("since", since),
        until=None if until is None else check_instant("until", until),
    )
    if wanted.since is not None and wanted.until is not None and wanted.until < wanted.since:
        raise InvalidJob(f"until must not be before since, not {shorten(until)}")
    return wanted


def _run_number(field: str, value: object) -> int:
    """Check the id of a run, which need not exist any more.

    Raises:
        InvalidJob: It is no id of a run.
    """
    run_id = check_id(field, value)
    number = row_number(run_id)
    if number is None:
        raise InvalidJob(f"{field} must be the id of a run, not {shorten(run_id)}")
    return number
