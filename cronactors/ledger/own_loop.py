"""Loops of a user's own: which jobs are due, claiming one of them, and finishing its run. Runs on the storage thread."""

from __future__ import annotations

import attrs

from cronactors.errors import AlreadyClaimed, JobBusy, RunClosed, shorten
from cronactors.instants import Millis, from_millis, to_millis
from cronactors.ledger import leases
from cronactors.ledger.claim import cancel_outdated_retry, claim_moment, claim_pending
from cronactors.ledger.finish import finish_open_run
from cronactors.ledger.jobs import find_job
from cronactors.ledger.open_runs import is_outdated_retry, is_too_late
from cronactors.ledger.runs import find_run, insert_manual_run
from cronactors.ledger.views import job_views
from cronactors.model import CronJob, Overlap, RunStatus
from cronactors.owner import ProcessIdentity
from cronactors.policy import Outcome
from cronactors.settings import RetryPolicy
from cronactors.storage.protocol import Storage
from cronactors.storage.rows import CRASH_LOOP, Claimed, DueItem, JobRow, RunRow

_NO_LIMIT = 2**31 - 1
_GROWTH = 4
"""By how much a query of the queue grows when the one before found too few jobs."""
_TOO_LATE = "as it was due longer ago than the misfire window allows"


def due_jobs(storage: Storage, *, retries: bool, limit: int | None) -> list[CronJob]:
    """Return the jobs whose moment is due, or those whose pending run is due; each job is in one of the two lists only.

    Args:
        storage: Inside a transaction.
        retries: Whether jobs with a due pending run are wanted.
        limit: How many jobs at most; None: all.
    """
    due_at, rows = _first_due(storage, retries=retries, limit=_NO_LIMIT if limit is None else limit)
    ids = list(due_at)[:limit]
    views = job_views(storage, (rows[job_id] for job_id in ids if job_id in rows))
    if not retries:
        return [attrs.evolve(view, retry_at=None) for view in views]
    return [attrs.evolve(view, retry_at=from_millis(due_at[view.id])) for view in views]


def _first_due(storage: Storage, *, retries: bool, limit: int) -> tuple[dict[str, Millis], dict[str, JobRow]]:
    """Read the queue until ``limit`` jobs of the wanted kind are found, or it has no more.

    Each query reads four times as many rows as the one before, so that we read in proportion to the limit and not to all that is due.

    Returns:
        When each job of that kind came due first, in order of time; and the rows of the jobs.
    """
    now, size = storage.now(), limit
    while True:
        first: dict[str, DueItem] = {}
        due = storage.due(now=now, limit=size, only_runs=retries)
        jobs = storage.jobs(list({each.job_id for each in due}))
        for each in due:
            job = jobs.get(each.job_id)
            # A moment that is also due, and not later than this retry, comes first.
            if each.run_id is None or (_may_start(job, each) and not _moment_is_due(job, each.due_at)):
                first.setdefault(each.job_id, each)
        found = {job_id: each.due_at for job_id, each in first.items() if retries is (each.run_id is not None)}
        if len(found) >= limit or len(due) < size:
            return found, jobs
        size = min(_GROWTH * size, _NO_LIMIT)


def _may_start(job: JobRow | None, due: DueItem) -> bool:
    """Return whether no other run of the job has to finish first: since this one was released a retry may hold the job."""
    return job is None or job.held_by in (None, due.run_id) or job.overlap == Overlap.ALLOW_ALL


def _moment_is_due(job: JobRow | None, at: Millis) -> bool:
    """Return whether a moment of the job is in the queue, and due by a time."""
    if job is None or not job.enabled or job.held_by is not None or job.next_run_at is None:
        return False
    return job.next_run_at <= at


def _due_of_job(storage: Storage, job: JobRow, now: Millis) -> list[DueItem]:
    """Return what the queue holds of one job, in order of time."""
    ready = [
        run
        for run in storage.open_runs([job.id])
        if run.status == RunStatus.PENDING and run.waits_for is None and run.ready_at <= now
    ]
    due = [DueItem(run.id, job.id, run.ready_at) for run in ready]
    if job.next_run_at is not None and _moment_is_due(job, now):
        due.append(DueItem(None, job.id, job.next_run_at))
    return sorted(due, key=lambda each: each.due_at)


def start_own_run(
    storage: Storage, target: CronJob | str, *, owner: int, this_process: ProcessIdentity
) -> Claimed | AlreadyClaimed | JobBusy:
    """Claim a run for a loop of the caller's own.

    Args:
        storage: Inside a transaction.
        target: A `CronJob`: exactly the moment or the retry that it shows is claimed. An id: whatever of the job is due, and if nothing
            is due a run that is requested now.
        owner: The owner of the loop.
        this_process: The identity of this process.

    Returns:
        The started run. Or an error for the caller to raise after the commit: the moment was skipped or cancelled instead, and raising
        here would undo that, so that the moment would stay due for ever.

    Raises:
        JobNotFound: There is none of that id.
        AlreadyClaimed: That moment has been started by another process, or the job was changed.
        JobBusy: The job has an open run and does not allow overlaps, its session is in use, or it has to wait for a crash loop.
    """
    job_id = target if isinstance(target, str) else target.id
    job = find_job(storage, job_id)
    now = storage.now()
    due = _due_of_job(storage, job, now)
    if isinstance(target, CronJob):
        shown = target.retry_at or target.next_run_at
        due = [each for each in due if shown is not None and each.due_at == to_millis(shown)]
        due = [each for each in due if (each.run_id is None) == (target.retry_at is None)]
        if not due:
            raise AlreadyClaimed(f"job {shorten(job.name)} is not due at {shown} any more")
    if job.held_by is not None and job.overlap != Overlap.ALLOW_ALL:
        due = [each for each in due if each.run_id == job.held_by]
        if not due:
            raise JobBusy(f"job {shorten(job.name)} has run {job.held_by} open, and its overlap is {job.overlap}")
    first = due[0] if due else DueItem(insert_manual_run(storage, job, now).id, job.id, now)
    if first.run_id is None:
        claimed = claim_moment(storage, job_id, owner=owner, now=now)
    else:
        run = storage.runs([first.run_id])[first.run_id]
        if is_outdated_retry(job, run, now):
            cancel_outdated_retry(storage, job, run)
            return AlreadyClaimed(f"job {shorten(job.name)} cannot start: its attempt was cancelled, {_TOO_LATE}")
        claimed = claim_pending(storage, first.run_id, owner=owner, now=now)
    if claimed is None:
        return _why_not_started(storage, job, now)
    if not leases.renew(storage, owner):  # we cannot cancel the loop's own code; its earlier runs were taken over
        leases.revive(storage, owner, this_process)
    return claimed


def _why_not_started(storage: Storage, before: JobRow, now: Millis) -> AlreadyClaimed | JobBusy:
    """Return the error that says why a claim started no run, from what it has stored instead.

    Raises:
        JobBusy: The run would wait. The loop does not want that, and raising undoes what was stored.
    """
    name = shorten(before.name)
    open_runs = storage.open_runs([before.id])
    sessions = {run.session for run in open_runs if run.status == RunStatus.PENDING}
    if storage.busy_sessions([session for session in sessions if session is not None]):
        raise JobBusy(f"job {name} cannot start: its main session is in use")
    if any(run.waits_for == CRASH_LOOP for run in open_runs):
        raise JobBusy(f"job {name} cannot start: its last runs ended with their process, as did those of a job that runs now")
    job = find_job(storage, before.id)
    if job.last_error != before.last_error:
        return JobBusy(f"job {name} cannot start: {job.last_error}")
    if before.next_run_at is not None and is_too_late(before, before.next_run_at, now):
        return AlreadyClaimed(f"job {name} cannot start: its moment was skipped, {_TOO_LATE}")
    return AlreadyClaimed(f"job {name} cannot start: its moment was decided before the clock was set back")


def finish_own_run(storage: Storage, run_id: str, outcome: Outcome, *, policy: RetryPolicy) -> RunRow:
    """Finish a running run, once; any owner may have started it.

    Raises:
        RunNotFound: There is none of that id.
        RunClosed: It has finished, or has not started.
    """
    run = find_run(storage, run_id)
    finished = finish_open_run(storage, run, outcome, policy) if run.status == RunStatus.RUNNING else None
    if finished is None:
        cause = f" ({run.cause})" if run.cause else ""
        raise RunClosed(f"run {run_id} of job {shorten(run.job_name)} is not running: it is {run.status}{cause}")
    return finished
