"""Cancel other."""

from __future__ import annotations

from cronactors.instants import Millis
from cronactors.ledger.due_moments import decide_due_moments
from cronactors.ledger.finish import finish_open_run
from cronactors.ledger.new_rows import skipped_run, waiting_run
from cronactors.ledger.open_runs import is_first_start, waits_after_crashes
from cronactors.ledger.waiting import cancel_pending, insert_moments
from cronactors.ledger.zone_changes import recomputed
from cronactors.model import Cause, RunStatus
from cronactors.policy import Outcome
from cronactors.schedules.zone_rules import RULES
from cronactors.spec import RetryPolicy
from cronactors.storage.protocol import Storage
from cronactors.storage.rows import JobRow, JobState, job_key

MOST_CANCELLED = 200
"""How many jobs one claim decides whose next moment cancels their open run; the next claim decides the others."""


def cancel_overlapped(storage: Storage) -> bool:
    """Where the new run of a job is to take the place of its open one: let the open one be ended, and the new one wait for that.

    Returns:
        Whether anything was changed.
    """
    now = storage.now()
    ids = storage.jobs_to_cancel(now=now, limit=MOST_CANCELLED)
    due = [job for job in storage.jobs(ids).values() if job.next_run_at is not None and job.next_run_at <= now]
    for job in due:
        _decide_cancelling(storage, job, now)
    return bool(due)


def _decide_cancelling(storage: Storage, job: JobRow, now: Millis) -> None:
    if job.rules != RULES:
        job = recomputed(storage, job)
    decision = decide_due_moments(storage, job, now)
    if decision is None:
        return
    jobs = {job.id: job}
    insert_moments(storage, jobs, [skipped_run(job, moments, Cause.MISFIRE, now) for moments in decision.skipped])
    storage.update_job_states([JobState.of(job)._replace(next_run_at=decision.following, decided_local=decision.decided_local)])
    if not decision.runs:
        return
    opened = storage.open_runs([job.id])
    held = next((run for run in opened if run.id == job.held_by), None)
    if held is not None and waits_after_crashes(job, held):
        insert_moments(storage, jobs, [skipped_run(job, moments, Cause.OVERLAP, now) for moments in decision.runs])
        return
    *older, newest = decision.runs
    insert_moments(storage, jobs, [skipped_run(job, moments, Cause.REPLACED, now) for moments in older])
    place = newest.at  # in the line of the session too, where it would come last each time
    if held is not None and held.status == RunStatus.PENDING:
        place = min(place, held.ready_at)
    waiter = insert_moments(storage, jobs, [waiting_run(job, newest, job_key(job.id))._replace(ready_at=place)])[0]
    if waiter is None:  # decided before the clock went back: it may be the moment of the very run that is open
        return
    cancel_pending(storage, [run for run in opened if is_first_start(run) and run.id != job.held_by], Cause.REPLACED)
    if held is None:
        return
    if held.status == RunStatus.RUNNING:
        going_on = [run.id for run in opened if run.status == RunStatus.RUNNING]  # several if the job allowed all until now
        storage.mark_runs(going_on, cause=Cause.REPLACED.value, cancel_requested=True)
    else:  # it waits for its session
        finish_open_run(storage, held, Outcome(status=RunStatus.CANCELLED, cause=Cause.REPLACED), RetryPolicy())
