"""What users do with runs."""

from __future__ import annotations

from cronactors.errors import JobBusy, RunClosed, RunNotFound, shorten
from cronactors.instants import Millis
from cronactors.ledger.finish import finish_open_run
from cronactors.ledger.jobs import find_job
from cronactors.model import Cause, Overlap, RunStatus, Trigger
from cronactors.policy import Outcome
from cronactors.spec import RetryPolicy
from cronactors.storage.protocol import Storage
from cronactors.storage.rows import JobRow, RunRow

_DIGITS = 18
"""Longest id of a run that is looked up: more would not fit SQLite's integers."""


def find_run(storage: Storage, run_id: str) -> RunRow:
    """The run of that id.

    Raises:
        RunNotFound: There is none.
    """
    number = int(run_id) if run_id.isascii() and run_id.isdigit() and len(run_id) <= _DIGITS else 0
    run = storage.runs([number]).get(number)
    if run is None:
        raise RunNotFound(f"no run has the id {shorten(run_id)}")
    return run


def request_run(storage: Storage, job_id: str) -> RunRow:
    """Put a run of a job into the queue, to start now; the job's next moment stays.

    Raises:
        JobNotFound: There is none of that id.
        JobBusy: The job has an open run and skips what overlaps.
    """
    job = find_job(storage, job_id)
    opened = storage.open_runs([job_id])
    if job.overlap == Overlap.SKIP:
        asked = [run for run in opened if run.manual and run.attempt == 1]
        if job.held_by is not None or asked:
            raise JobBusy(f"job {shorten(job.name)} has run {job.held_by or asked[0].id} open, and its overlap is skip")
    # As a new moment takes the place of a retry that waits for its time, so does a new request.
    retries = [run for run in opened if run.manual and run.status == RunStatus.PENDING and run.trigger == Trigger.RETRY]
    for run in retries:
        if run.waits_for is None:  # one of them may hold the job: it was to start next
            finish_open_run(storage, run, Outcome(status=RunStatus.CANCELLED, cause=Cause.REPLACED), RetryPolicy())
    return insert_manual_run(storage, job, storage.now())


def insert_manual_run(storage: Storage, job: JobRow, now: Millis) -> RunRow:
    """Add a pending run that a user requested."""
    moment = now
    while True:
        run = RunRow(
            id=0,
            job_id=job.id,
            job_name=job.name,
            user_id=job.user_id,
            trigger=Trigger.MANUAL.value,
            manual=1,
            scheduled_at=moment,
            attempt=1,
            status=RunStatus.PENDING.value,
            ready_at=now,
            session=job.session,
        )
        run_id = storage.insert_runs([run])[0]
        if run_id is not None:
            return run.with_id(run_id)
        moment += 1  # another one was asked for in this millisecond


def request_cancel(storage: Storage, run_id: str, *, policy: RetryPolicy) -> RunRow:
    """Cancel a run: one that waits ends at once, one that runs is ended by its owner.

    Raises:
        RunNotFound: There is none of that id.
        RunClosed: It has ended.
    """
    run = find_run(storage, run_id)
    if run.status == RunStatus.RUNNING:
        storage.mark_runs([run.id], cancel_requested=True)
        return run._replace(cancel_requested=1)
    if run.status == RunStatus.PENDING:
        ended = finish_open_run(storage, run, Outcome(status=RunStatus.CANCELLED, cause=Cause.CANCELLED), policy)
        assert ended is not None
        return ended
    raise RunClosed(f"run {run_id} of job {shorten(run.job_name)} has ended: {run.status}")
