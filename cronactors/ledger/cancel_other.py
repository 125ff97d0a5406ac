"""Due moments of jobs whose overlap policy is CANCEL_OTHER: the open run is cancelled, and the new one waits for it."""

from __future__ import annotations

from cronactors.instants import Millis
from cronactors.ledger import alerting
from cronactors.ledger.due_moments import decide_due_moments
from cronactors.ledger.finish import finish_open_run
from cronactors.ledger.new_rows import skipped_run, waiting_run
from cronactors.ledger.open_runs import is_first_start, waits_after_crashes
from cronactors.ledger.waiting import cancel_pending, insert_moments
from cronactors.ledger.zone_changes import with_current_rules
from cronactors.model import Cause, RunStatus
from cronactors.policy import Outcome
from cronactors.settings import RetryPolicy
from cronactors.storage.protocol import Storage
from cronactors.storage.rows import JobRow, JobState, job_key

MOST_CANCELLED = 200
"""How many jobs one claim decides whose next moment cancels their open run; the next claim decides the others."""


def cancel_overlapped(storage: Storage) -> bool:
    """Decide the due moments that replace an open run of their job: the new run waits until the open one has finished.

    Returns:
        Whether there were any.
    """
    now = storage.now()
    ids = storage.jobs_to_cancel(now=now, limit=MOST_CANCELLED)
    due = [job for job in storage.jobs(ids).values() if job.next_run_at is not None and job.next_run_at <= now]
    for job in due:
        _replace_open_run(storage, job, now)
    return bool(due)


def _replace_open_run(storage: Storage, job: JobRow, now: Millis) -> None:
    """Decide the due moments of a job, and cancel its open run for the newest of them; the older ones are skipped as replaced."""
    job = with_current_rules(storage, job)
    decision = decide_due_moments(storage, job, now)
    if decision is None:
        return
    alerting.report_missed(storage, [alerting.DecidedMoments(job, decision.runs, decision.skipped)])
    jobs = {job.id: job}
    insert_moments(storage, jobs, [skipped_run(job, moments, Cause.MISFIRE, now) for moments in decision.skipped])
    storage.update_job_states([JobState.of(job)._replace(next_run_at=decision.following, decided_local=decision.decided_local)])
    if not decision.runs:
        return
    open_runs = storage.open_runs([job.id])
    holding = next((run for run in open_runs if run.id == job.held_by), None)
    if holding is not None and waits_after_crashes(job, holding):
        insert_moments(storage, jobs, [skipped_run(job, moments, Cause.OVERLAP, now) for moments in decision.runs])
        return
    *older, newest = decision.runs
    insert_moments(storage, jobs, [skipped_run(job, moments, Cause.REPLACED, now) for moments in older])
    ready_at = newest.at
    if holding is not None and holding.status == RunStatus.PENDING:
        ready_at = min(ready_at, holding.ready_at)  # it inherits the order: a later one would come last for its session each time
    waiter = insert_moments(storage, jobs, [waiting_run(job, newest, job_key(job.id))._replace(ready_at=ready_at)])[0]
    if waiter is None:
        return  # decided before the clock was set back: it may be the moment of the very run that is open
    cancel_pending(storage, [run for run in open_runs if is_first_start(run) and run.id != job.held_by], Cause.REPLACED)
    if holding is None:
        return
    if holding.status == RunStatus.RUNNING:
        running = [run.id for run in open_runs if run.status == RunStatus.RUNNING]  # several if the job allowed all until now
        storage.mark_runs(running, cause=Cause.REPLACED.value, cancel_requested=True)
    else:  # it waits for its session
        finish_open_run(storage, holding, Outcome(status=RunStatus.CANCELLED, cause=Cause.REPLACED), RetryPolicy())
