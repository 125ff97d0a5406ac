"""The verbs for loops of the caller's own."""

from __future__ import annotations

from cronactors.json_value import JsonInput
from cronactors.model import CronJob, CronRun, RunStatus
from cronactors.own_loop import outcome_from
from cronactors.verbs.base import Verbs


class LoopVerbs(Verbs):
    """Which jobs are due, and the start and the end of their runs."""

    async def get_due_jobs(self, *, limit: int | None = None) -> list[CronJob]:
        """Recover the runs of dead processes, then read the jobs with a due moment, the earliest first.

        Args:
            limit: How many at most; None for all.
        """
        return await self._own_loop.due_jobs(limit, retries=False)

    async def get_retry_jobs(self, *, limit: int | None = None) -> list[CronJob]:
        """Read the jobs with a run that may start now: a retry, an interrupted run, or a requested one.

        Runs of dead processes are recovered first. ``retry_at`` of each job is the time at which its run became ready.

        Args:
            limit: How many at most; None for all.
        """
        return await self._own_loop.due_jobs(limit, retries=True)

    async def record_run_start(self, job: CronJob | str) -> str:
        """Claim a run for a loop of the caller's own, and return its id. If this process dies, the run is recovered.

        Args:
            job: A job from `get_due_jobs` or `get_retry_jobs`: claims exactly the moment or run that it shows. Or an id: claims a
                moment or run of that job that is due; if none is, an extra manual run starts and the next moment stays.

        Raises:
            JobNotFound: There is no job with that id.
            AlreadyClaimed: The moment has been started elsewhere, or the job was changed; or the moment was older than the job's
                misfire window, and has been skipped or cancelled.
            JobBusy: The job has an open run and skips moments that overlap, or its session is in use.
        """
        return await self._own_loop.start(job)

    async def record_run_complete(
        self,
        run_id: str,
        status: RunStatus,
        result: str | None = None,
        *,
        session_id: str = "",
        error: str | None = None,
        data: JsonInput = None,
    ) -> CronRun:
        """Finish a run, once, through any store of the file. A failed run is retried as its job says.

        Args:
            run_id: From `record_run_start`.
            status: SUCCESS or FAILED or CANCELLED.
            result: The result; for a failed run without ``error``, the reason of the failure.
            session_id: The session used.
            error: The reason of the failure.
            data: A JSON value for programs, kept as `CronRun.result_data`: at most 65,536 bytes as JSON.

        Raises:
            InvalidJob: An argument has a wrong type or value.
            RunNotFound: There is no run with that id.
            RunClosed: It has ended, or was taken over.
        """
        outcome = outcome_from(status, result, session_id=session_id, error=error, data=data)
        return await self._own_loop.finish(run_id, outcome)
