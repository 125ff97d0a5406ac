"""The verbs on single runs."""

from __future__ import annotations

from cronactors.actors import user_requests
from cronactors.checks import text
from cronactors.errors import InvalidJob
from cronactors.job_data import FROM_JOB, FromJob, check_data
from cronactors.json_value import Json, JsonInput
from cronactors.model import CronRun
from cronactors.spec import MAX_NAME, check_id
from cronactors.verbs.base import Verbs


class RunVerbs(Verbs):
    """Requesting, cancelling and reading a run."""

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
            InvalidJob: The stored data is damaged.
        """
        return (await self._mailbox.call(user_requests.GetRunData(check_id("run_id", run_id)))).read()
