"""Makes the rows of runs that start, wait or are skipped, and of retries and finishes. Pure: other rooms store them."""

from __future__ import annotations

from cronactors.instants import Millis
from cronactors.model import Cause, RunStatus, Trigger
from cronactors.policy import Moments, Outcome, RetryPlan, Timing
from cronactors.storage.rows import PAUSE, JobRow, RunFinish, RunRow


def waiting_run(job: JobRow, moments: Moments, waits_for: str | None) -> RunRow:
    """Make a pending run of moments."""
    return _moment(job, moments, RunStatus.PENDING, waits_for=waits_for)


def started_run(job: JobRow, moments: Moments, *, owner: int, now: Millis, run_id: int = 0) -> RunRow:
    """Make a running run of moments."""
    return _moment(job, moments, RunStatus.RUNNING, owner=owner, started_at=now, run_id=run_id)


def _moment(
    job: JobRow,
    moments: Moments,
    status: RunStatus,
    *,
    waits_for: str | None = None,
    owner: int | None = None,
    started_at: Millis | None = None,
    run_id: int = 0,
) -> RunRow:
    return RunRow(
        id=run_id,
        job_id=job.id,
        job_name=job.name,
        user_id=job.user_id,
        trigger=Trigger.SCHEDULE.value,
        manual=0,
        scheduled_at=moments.at,
        attempt=1,
        status=status.value,
        ready_at=moments.at,
        coalesced=moments.count,
        range_at=moments.range_at,
        waits_for=waits_for,
        session=job.session,
        owner=owner,
        started_at=started_at,
    )


def skipped_run(job: JobRow, moments: Moments, cause: Cause, now: Millis) -> RunRow:
    """Make the record of moments that are not run: a row that never was open."""
    return waiting_run(job, moments.by_first, None)._replace(
        status=RunStatus.SKIPPED.value, cause=cause.value, session=None, completed_at=now
    )


def without_taken(row: RunRow, timing: Timing) -> RunRow | None:
    """Make the row again for its other moments, when the moment by which it is known has a row already.

    After the clock was set back moments come due a second time.

    Returns:
        None if the row stands for no other moment.
    """
    first, last = row.range_at, row.scheduled_at - 1
    by_last = first is not None and first <= last
    if not by_last and row.range_at is not None:
        first, last = timing.after(row.scheduled_at), row.range_at
    if first is None or first > last:
        return None
    moments = timing.merged(first, last, by_last=by_last)
    ready_at = min(row.ready_at, moments.at)
    return row._replace(scheduled_at=moments.at, ready_at=ready_at, coalesced=moments.count, range_at=moments.range_at)


def retry_run(job: JobRow, run: RunRow, plan: RetryPlan) -> RunRow:
    """Make the retry of a finished run."""
    return RunRow(
        id=0,
        job_id=job.id,
        job_name=job.name,
        user_id=job.user_id,
        trigger=(Trigger.RECOVERY if plan.recovery else Trigger.RETRY).value,
        manual=run.manual,
        scheduled_at=run.scheduled_at,
        attempt=run.attempt + 1,
        status=RunStatus.PENDING.value,
        ready_at=plan.ready_at,
        failures=plan.failures,
        coalesced=run.coalesced,
        range_at=run.range_at,
        waits_for=None if job.enabled or run.manual else PAUSE,
        session=job.session,
    )


def finish_values(run: RunRow, outcome: Outcome, now: Millis) -> RunFinish:
    """Make the values that finish an open run."""
    return RunFinish(
        status=outcome.status.value,
        cause=outcome.cause.value if outcome.cause else None,
        completed_at=now if run.started_at is None else max(now, run.started_at),
        session_id=outcome.session_id,
        result=outcome.result,
        error=outcome.error,
        result_data=outcome.result_data,
        id=run.id,
        expected_status=run.status,
    )
