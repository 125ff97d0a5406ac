"""The claims of a loop of the caller's own: due jobs, the start of a run, its end. Runs in the caller's task.

Such a loop is an owner in the file, as a scheduler is: it has a lease, and if its process dies the next owner recovers its runs.
"""

from __future__ import annotations

from cronactors.actors import user_requests
from cronactors.actors.recompute import NoteRules, recompute_moments
from cronactors.actors.store_lifetime import StoreService
from cronactors.checks import member, text, whole
from cronactors.errors import CronError, InvalidJob, shorten
from cronactors.job_data import MAX_RESULT_DATA, check_data, data_to_column
from cronactors.model import Cause, CronJob, CronRun, RunStatus
from cronactors.policy import MAX_ERROR, MAX_SUMMARY, Outcome, truncated
from cronactors.settings import RetryPolicy
from cronactors.spec import MAX_NAME, check_id, check_instant

MAX_LIMIT = 1_000_000
"""How many jobs or runs one call of the store returns at most."""


class OwnLoop:
    """The loop of one `CronStore`.

    Args:
        service: The open store.
        policy: Delays of retries.
    """

    def __init__(self, service: StoreService, policy: RetryPolicy) -> None:
        self._service = service
        self._policy = policy
        self._owner: int | None = None
        self._recomputed = False

    async def due_jobs(self, limit: int | None, *, retries: bool) -> list[CronJob]:
        """Recover the runs of dead owners, then read the jobs with a due moment, or with ``retries`` those with a pending run."""
        if limit is not None:
            whole("limit", limit, InvalidJob, least=1, most=MAX_LIMIT)
        if not self._recomputed:  # a scheduler has a background task for it
            await recompute_moments(self._service.mailbox, await self._service.mailbox.call(NoteRules()))
            self._recomputed = True
        snapshot = await self._service.inspect(self._owner or 0)
        if snapshot.orphaned:
            await self._service.recover(self._policy)
        if snapshot.pauses_over:
            while await self._service.mailbox.call(user_requests.EndPauses()):
                pass
        return await self._service.mailbox.call(user_requests.DueJobs(retries, limit))

    async def start(self, job: object) -> str:
        """Claim a run for a job or for the id of one, and return its id."""
        target = check_target(job)
        started = await self._service.mailbox.call(
            user_requests.StartOwnRun(target, await self._registered(), self._service.process)
        )
        if isinstance(started, CronError):
            raise started
        return str(started.run.id)

    async def finish(self, run_id: str, outcome: Outcome) -> CronRun:
        """Finish a run, also one that another loop has started."""
        return await self._service.mailbox.call(user_requests.FinishOwnRun(check_id("run_id", run_id), outcome, self._policy))

    async def _registered(self) -> int:
        if self._owner is None:
            self._owner = (await self._service.register()).owner
        return self._owner


def check_target(job: object) -> CronJob | str:
    """Check what is to be started: a job as the store returned it, or an id."""
    if not isinstance(job, CronJob):
        return check_id("job", job)
    check_id("job.id", job.id)
    moments: dict[str, object] = {"next_run_at": job.next_run_at, "retry_at": job.retry_at}
    for field, moment in moments.items():
        if moment is not None:
            check_instant(f"job.{field}", moment)
    return job


def outcome_from(status: object, result: object, *, session_id: object, error: object, data: object) -> Outcome:
    """Make an outcome of the arguments of ``record_run_complete``.

    Raises:
        InvalidJob: One of them has a wrong type or value.
    """
    checked = member("status", status, InvalidJob, RunStatus)
    if checked not in (RunStatus.SUCCESS, RunStatus.FAILED, RunStatus.CANCELLED):
        raise InvalidJob(f"status must be success, failed or cancelled, not {checked}")
    if checked is RunStatus.FAILED and error is None:
        result, error = None, result
    return Outcome(
        status=checked,
        cause={RunStatus.FAILED: Cause.ERROR, RunStatus.CANCELLED: Cause.CANCELLED}.get(checked),
        result=None if result is None else truncated(_any_text("result", result), MAX_SUMMARY),
        error=None if error is None else truncated(_any_text("error", error), MAX_ERROR),
        session_id=text("session_id", session_id, InvalidJob, limit=MAX_NAME, empty=True),
        result_data=data_to_column(check_data("data", data, limit=MAX_RESULT_DATA)),
    )


def _any_text(field: str, value: object) -> str:
    if not isinstance(value, str):
        raise InvalidJob(f"{field} must be text, not {shorten(value)}")
    return value
