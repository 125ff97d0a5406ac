"""The verbs on runs and their history."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cronactors.actors import user_requests
from cronactors.checks import member, text, whole
from cronactors.errors import InvalidJob
from cronactors.job_data import FROM_JOB, FromJob, check_data
from cronactors.json_value import Json, JsonInput
from cronactors.ledger.views import run_view
from cronactors.model import ALL, AllUsers, CronRun, RunStatus
from cronactors.own_loop import MAX_LIMIT
from cronactors.spec import MAX_NAME, check_id, check_user_id
from cronactors.verbs.base import Verbs

if TYPE_CHECKING:
    from cronactors.storage.rows import RunRow

_PAGE = 2_000


class RunVerbs(Verbs):
    """Requesting, cancelling and reading runs."""

    async def request_run(self, job_id: str, *, data: JsonInput | FromJob = FROM_JOB, key: str | None = None) -> str:
        """Request a run of a job, paused or not, and return its id. A scheduler of the file starts it now.

        Args:
            job_id: The job.
            data: A JSON value for this run and its retries, instead of the job's: at most 1,000,000 bytes as JSON. It is copied. None: the
                run has no data. If it is left out, the run has the data of the job.
            key: A name for the request, 1 to 200 characters. While a run that was requested with this key for the job is in the history,
                nothing is added, even if the job is busy: the id of the last attempt of that run is returned. None: each call adds a run.

        Raises:
            JobNotFound: There is no job with that id.
            JobBusy: The job has an open run and skips moments that overlap.
            InvalidJob: An argument has a wrong type or value, or the key was used with other data.
        """
        check_id("job_id", job_id)
        checked_key = None if key is None else text("key", key, InvalidJob, limit=MAX_NAME)
        checked_data = None if data is FROM_JOB else check_data("data", data).text
        return (await self._mailbox.call(user_requests.RequestRun(job_id, checked_key, checked_data))).id

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

    async def get_run_data(self, run_id: str) -> Json:
        """Read the data of a run, for a loop of your own: what it was requested with, or else the data that its job has now.

        Raises:
            RunNotFound: There is no run with that id.
            JobNotFound: The run has the data of its job, which was removed.
            InvalidJob: What is stored is damaged.
        """
        return (await self._mailbox.call(user_requests.GetRunData(check_id("run_id", run_id)))).read()

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
