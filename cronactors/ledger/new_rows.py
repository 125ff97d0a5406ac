"""The rows that the ledger enters: runs that begin, wait or are skipped, and ends. They are made here, and stored by others."""

from __future__ import annotations

from cronactors.errors import InvalidJob, InvalidSchedule
from cronactors.instants import Millis
from cronactors.ledger.views import timing_of
from cronactors.model import Cause, RunStatus, Trigger
from cronactors.policy import FREE_CRASHES, Moments, Outcome, RetryPlan, Timing, is_outside_window, misfire_from_text
from cronactors.schedules.schedule import Schedule
from cronactors.storage.rows import PAUSE, JobRow, RunFinish, RunRow


def stored_schedule(job: JobRow) -> Schedule | None:
    """The job's schedule; None if what is stored cannot be read, which must not stop a run from being ended."""
    timing = stored_timing(job)
    return None if timing is None else timing.schedule


def stored_timing(job: JobRow) -> Timing | None:
    """The job's schedule in its zone; None if what is stored cannot be read."""
    try:
        return timing_of(job)
    except InvalidSchedule:
        return None


def waiting_run(job: JobRow, moments: Moments, waits_for: str | None) -> RunRow:
    """A moment that has been decided to run, and has to wait."""
    return _moment(job, moments, RunStatus.PENDING, waits_for=waits_for)


def started_run(job: JobRow, moments: Moments, *, owner: int, now: Millis, run_id: int = 0) -> RunRow:
    """A moment whose run begins."""
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
    """Moments that have been decided not to run: a row that never was open."""
    return waiting_run(job, moments.by_first, None)._replace(
        status=RunStatus.SKIPPED.value, cause=cause.value, session=None, completed_at=now
    )


def without_taken(row: RunRow, timing: Timing) -> RunRow | None:
    """The row for the other moments, where the one that the row bears has a row of its own already.

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


def retry_run(job: JobRow, run: RunRow, again: RetryPlan) -> RunRow:
    """A further attempt at the moment of a run that has ended."""
    return RunRow(
        id=0,
        job_id=job.id,
        job_name=job.name,
        user_id=job.user_id,
        trigger=(Trigger.RECOVERY if again.recovery else Trigger.RETRY).value,
        manual=run.manual,
        scheduled_at=run.scheduled_at,
        attempt=run.attempt + 1,
        status=RunStatus.PENDING.value,
        ready_at=again.ready_at,
        failures=again.failures,
        coalesced=run.coalesced,
        range_at=run.range_at,
        waits_for=None if job.enabled or run.manual else PAUSE,
        session=job.session,
    )


def finish_values(run: RunRow, outcome: Outcome, now: Millis) -> RunFinish:
    """The end of an open run."""
    return RunFinish(
        status=outcome.status.value,
        cause=outcome.cause.value if outcome.cause else None,
        completed_at=now if run.started_at is None else max(now, run.started_at),
        session_id=outcome.session_id,
        result=outcome.result,
        error=outcome.error,
        id=run.id,
        was=run.status,
    )


def is_first_start(run: RunRow) -> bool:
    """Whether a pending run is a moment that has not been started at all."""
    return run.status == RunStatus.PENDING and run.attempt == 1 and not run.manual


def is_outdated_retry(job: JobRow, run: RunRow, now: Millis) -> bool:
    """Whether a pending run is a further attempt at a moment that is older by now than the job's window.

    A first attempt was decided within the window, and waits for its own job or session alone; one that was asked for has no moment.
    """
    later = run.status == RunStatus.PENDING and run.attempt > 1 and not run.manual
    return later and is_too_late(job, run.scheduled_at, now)


def is_too_late(job: JobRow, moment: Millis, now: Millis) -> bool:
    """Whether a moment is older by now than the job's window; a policy that cannot be read has none, and the claim pauses the job."""
    try:
        return is_outside_window(misfire_from_text(job.misfire), moment, now)
    except InvalidJob:
        return False


def waits_after_crashes(job: JobRow, run: RunRow) -> bool:
    """Whether a run waits because its job ended its process again and again: no new moment must let the job go on."""
    return run.id == job.held_by and run.status == RunStatus.PENDING and job.crashes > FREE_CRASHES
