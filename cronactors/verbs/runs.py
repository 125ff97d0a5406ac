"""The verbs on runs and their history."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cronactors.actors import user_requests
from cronactors.checks import member, whole
from cronactors.errors import InvalidJob
from cronactors.ledger.views import run_view
from cronactors.model import ALL, AllUsers, CronRun, RunStatus
from cronactors.own_loop import MAX_LIMIT
from cronactors.spec import check_id, check_user_id
from cronactors.verbs.base import Verbs

if TYPE_CHECKING:
    from cronactors.storage.rows import RunRow

_PAGE = 2_000


class RunVerbs(Verbs):
    """Requesting, cancelling and reading runs."""

    async def request_run(self, job_id: str) -> str:
        """Request a run of a job, paused or not, and return its id. A scheduler of the file starts it now.

        Raises:
            JobNotFound: There is no job with that id.
            JobBusy: The job has an open run and skips moments that overlap.
        """
        return (await self._mailbox.call(user_requests.RequestRun(check_id("job_id", job_id)))).id

    async def request_cancel(self, run_id: str) -> CronRun:
        """Cancel a run, and return it: a pending run ends at once, a running one is cancelled by its scheduler within a tick.

        Raises:
            RunNotFound: There is no run with that id.
            RunClosed: It has ended.
        """
        return await self._mailbox.call(user_requests.RequestCancel(check_id("run_id", run_id), self._config.retry))

    async def get_run(self, run_id: str) -> CronRun:
        """Read a run.

        Raises:
            RunNotFound: There is no run with that id.
        """
        return await self._mailbox.call(user_requests.GetRun(check_id("run_id", run_id)))

    async def list_runs(
        self,
        job_id: str | None = None,
        limit: int = 10,
        *,
        status: RunStatus | None = None,
        user_id: str | AllUsers | None = ALL,
    ) -> list[CronRun]:
        """Read history, newest first, removed jobs included.

        Args:
            job_id: Runs of that job only, in order of moment; None for all jobs, in order of start.
            limit: How many at most.
            status: Only runs with that status.
            user_id: The user; None for the agent itself, ALL for all users.
        """
        if job_id is not None:
            check_id("job_id", job_id)
        whole("limit", limit, InvalidJob, least=1, most=MAX_LIMIT)
        wanted_status = None if status is None else member("status", status, InvalidJob, RunStatus)
        wanted_user = None if user_id is ALL else check_user_id(user_id)
        filtered = wanted_status is not None or wanted_user is not None
        found: list[CronRun] = []
        before: RunRow | None = None
        while len(found) < limit:
            size = _PAGE if filtered else min(limit - len(found), _PAGE)
            page = await self._mailbox.call(user_requests.PageOfRuns(job_id, before, size))
            wanted = (run for run in page if wanted_status in (None, run.status) and wanted_user in (None, run.user_id))
            found += map(run_view, wanted)
            if len(page) < size:
                break
            before = page[-1]
        return found[:limit]
