"""Runs that users request, find or cancel. Runs on the storage thread."""

from __future__ import annotations

from cronactors.errors import JobBusy, RunClosed, RunNotFound, shorten
from cronactors.ids import row_number
from cronactors.instants import Millis
from cronactors.ledger.finish import finish_open_run
from cronactors.ledger.jobs import find_job
from cronactors.ledger.run_requests import find_requested, requested_data, store_request
from cronactors.model import Cause, Overlap, RunStatus, Trigger
from cronactors.policy import Outcome
from cronactors.settings import RetryPolicy
from cronactors.storage.protocol import Storage
from cronactors.storage.rows import JobRow, RunRow

_PAGE = 20
"""How many rows are read at a time to find the run that finished last; nearly always it is among the first."""


def find_run(storage: Storage, run_id: str) -> RunRow:
    """Return the run of an id.

    Raises:
        RunNotFound: There is none.
    """
    number = row_number(run_id)
    run = None if number is None else storage.runs([number]).get(number)
    if run is None:
        raise RunNotFound(f"no run has the id {shorten(run_id)}")
    return run


def last_finished_run(storage: Storage, job_id: str, *, besides: int) -> RunRow | None:
    """Return the run of a job that started and finished last, without the run ``besides``; None if there is none."""
    before: RunRow | None = None
    while True:
        page = storage.list_runs(job_id=job_id, before=before, limit=_PAGE)
        finished = [
            (run.completed_at, run.id, run)
            for run in page
            if run.started_at is not None and run.completed_at is not None and run.id != besides
        ]
        if finished:
            return max(finished)[2]
        if len(page) < _PAGE:
            return None
        before = page[-1]


def request_run(storage: Storage, job_id: str, *, key: str | None = None, data: str | None = None) -> RunRow:
    """Add a pending run of a job that is due now; the job's next moment is not changed.

    Args:
        storage: Inside a transaction.
        job_id: The job.
        key: Of two requests with one key the first counts: the second returns the last attempt of its run. None: it always counts.
        data: The data of the run: JSON. None: that of the job.

    Raises:
        JobNotFound: There is none of that id.
        JobBusy: The job has an open run and skips moments that overlap.
        InvalidJob: The key was used with other data.
    """
    if key is not None:
        storage.hold(f"request:{job_id}:{key}")  # another process may be storing a request with this key now
        earlier = find_requested(storage, job_id, key=key, data=data)
        if earlier is not None:
            return earlier
    job = find_job(storage, job_id)
    open_runs = storage.open_runs([job_id])
    if job.overlap == Overlap.SKIP:
        requested = [run for run in open_runs if run.manual and run.attempt == 1]
        if job.held_by is not None or requested:
            raise JobBusy(f"job {shorten(job.name)} has run {job.held_by or requested[0].id} open, and its overlap is skip")
    # A new request replaces a retry that waits for its delay, as a new moment does.
    retries = [run for run in open_runs if run.manual and run.status == RunStatus.PENDING and run.trigger == Trigger.RETRY]
    for run in retries:
        if run.waits_for is None:  # it may hold the job, so that cancelling it releases another run
            finish_open_run(storage, run, Outcome(status=RunStatus.CANCELLED, cause=Cause.REPLACED), RetryPolicy())
    run = insert_manual_run(storage, job, storage.now())
    store_request(storage, run, key=key, data=data)
    return run


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
        moment += 1  # another run of the job was requested in this millisecond


def data_of_run(storage: Storage, run_id: str) -> str | None:
    """Return the data of a run: JSON; None if it has none.

    Raises:
        RunNotFound: There is none of that id.
        JobNotFound: It has the data of its job, which was removed.
    """
    run = find_run(storage, run_id)
    requested = requested_data(storage, run)
    return find_job(storage, run.job_id).data if requested is None else requested


def request_cancel(storage: Storage, run_id: str, *, policy: RetryPolicy) -> RunRow:
    """Cancel a run: a pending one finishes at once, a running one is cancelled by its owner.

    Raises:
        RunNotFound: There is none of that id.
        RunClosed: It has finished.
    """
    run = find_run(storage, run_id)
    if run.status == RunStatus.RUNNING:
        storage.mark_runs([run.id], cancel_requested=True)
        return run._replace(cancel_requested=1)
    if run.status == RunStatus.PENDING:
        finished = finish_open_run(storage, run, Outcome(status=RunStatus.CANCELLED, cause=Cause.CANCELLED), policy)
        assert finished is not None
        return finished
    raise RunClosed(f"run {run_id} of job {shorten(run.job_name)} has ended: {run.status}")
