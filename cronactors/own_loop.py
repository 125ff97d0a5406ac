"""Loops of the caller's own: what a handle needs to claim runs and to finish them."""

from __future__ import annotations

from cronactors.checks import member, text
from cronactors.errors import InvalidJob, shorten
from cronactors.model import Cause, CronJob, RunStatus
from cronactors.policy import MAX_ERROR, MAX_SUMMARY, Outcome, truncated
from cronactors.spec import MAX_NAME, check_id, check_instant


def check_target(job: object) -> CronJob | str:
    """Check what is to be started: a job as the store gave it, or an id."""
    if not isinstance(job, CronJob):
        return check_id("job", job)
    check_id("job.id", job.id)
    moments: dict[str, object] = {"next_run_at": job.next_run_at, "retry_at": job.retry_at}
    for field, moment in moments.items():
        if moment is not None:
            check_instant(f"job.{field}", moment)
    return job


def outcome_from(status: object, result: object, *, session_id: object, error: object) -> Outcome:
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
    )


def _any_text(field: str, value: object) -> str:
    if not isinstance(value, str):
        raise InvalidJob(f"{field} must be text, not {shorten(value)}")
    return value
