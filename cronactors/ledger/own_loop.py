"""Loops of users of their own."""

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
from cronactors.policy import Outcome
from cronactors.spec import RetryPolicy
from cronactors.storage.protocol import Storage
from cronactors.storage.rows import CRASH_LOOP, Claimed, DueItem, JobRow, RunRow

_ALL = 2**31 - 1


_MORE = 4


_TOO_LATE = "as it was due longer ago than the misfire window allows"


def finish_own_run(storage: Storage, run_id: str, outcome: Outcome, *, policy: RetryPolicy) -> RunRow:
    """End a run of an own loop, whoever started it; once.

    Raises:
        RunNotFound: There is none of that id.
        RunClosed: It has ended, or has not started.
    """
    run = find_run(storage, run_id)
    ended = finish_open_run(storage, run, outcome, policy) if run.status == RunStatus.RUNNING else None
    if ended is None:
        cause = f" ({run.cause})" if run.cause else ""
        raise RunClosed(f"run {run_id} of job {shorten(run.job_name)} is not running: it is {run.status}{cause}")
    return ended


def due_jobs(storage: Storage, *, retries: bool, limit: int | None) -> list[CronJob]:
    """Jobs whose place in the queue has come: those with a due moment, or those with a pending attempt, each job in one list only."""
    wanted, rows = _places_of(storage, retries=retries, limit=_ALL if limit is None else limit)
    ids = list(wanted)[:limit]
    views = job_views(storage, (rows[job_id] for job_id in ids if job_id in rows))
    if not retries:
        return [attrs.evolve(view, retry_at=None) for view in views]
    return [attrs.evolve(view, retry_at=from_millis(wanted[view.id])) for view in views]


def _places_of(storage: Storage, *, retries: bool, limit: int) -> tuple[dict[str, Millis], dict[str, JobRow]]:
    """When the first place of each job came, if it is of the kind, and the jobs; at least ``limit`` of them, or all that there are.

    Read a few more each time: what is read is in proportion to the limit, not to what is due, unless many of it are not wanted.
    """
    now, size = storage.now(), limit
    while True:
        first: dict[str, DueItem] = {}
        places = storage.due(now=now, limit=size, only_runs=retries)
        jobs = storage.jobs(list({place.job_id for place in places}))
        for place in places:
            job = jobs.get(place.job_id)
            # A moment that is due as well, and was not later than this attempt of an earlier one, comes first.
            if place.run_id is None or (_its_turn(job, place) and not _moment_due(job, place.due_at)):
                first.setdefault(place.job_id, place)
        wanted = {job_id: place.due_at for job_id, place in first.items() if retries is (place.run_id is not None)}
        if len(wanted) >= limit or len(places) < size:
            return wanted, jobs
        size = min(_MORE * size, _ALL)


def _its_turn(job: JobRow | None, place: DueItem) -> bool:
    """Whether no other run of the job must come first; one that was let go may find the job held by an attempt made since."""
    return job is None or job.held_by in (None, place.run_id) or job.overlap == Overlap.ALLOW_ALL


def _moment_due(job: JobRow | None, at: Millis) -> bool:
    """Whether a moment of the job is in the queue, and has come by then."""
    if job is None or not job.enabled or job.held_by is not None or job.next_run_at is None:
        return False
    return job.next_run_at <= at


def _places(storage: Storage, job: JobRow, now: Millis) -> list[DueItem]:
    """The places of one job in the queue."""
    ready = [
        run
        for run in storage.open_runs([job.id])
        if run.status == RunStatus.PENDING and run.waits_for is None and run.ready_at <= now
    ]
    places = [DueItem(run.id, job.id, run.ready_at) for run in ready]
    if job.next_run_at is not None and _moment_due(job, now):
        places.append(DueItem(None, job.id, job.next_run_at))
    return sorted(places, key=lambda place: place.due_at)


def start_own_run(storage: Storage, target: CronJob | str, *, owner: int) -> Claimed | AlreadyClaimed | JobBusy:
    """Claim for a loop of the caller's own: exactly the moment or attempt that the `CronJob` shows, or what is due of the id.

    Returns:
        The run that has begun; or the error to raise once it is durable that the moment does not run: raised here it would undo that,
        and the moment would be due for ever.

    Raises:
        JobNotFound: There is none of that id.
        AlreadyClaimed: That moment has been started by somebody else, or the job was changed.
        JobBusy: The job has an open run and skips what overlaps, or its session is in use, or it has to start without other suspects.
    """
    job_id = target if isinstance(target, str) else target.id
    job = find_job(storage, job_id)
    now = storage.now()
    places = _places(storage, job, now)
    if isinstance(target, CronJob):
        shown = target.retry_at or target.next_run_at
        places = [place for place in places if shown is not None and place.due_at == to_millis(shown)]
        places = [place for place in places if (place.run_id is None) == (target.retry_at is None)]
        if not places:
            raise AlreadyClaimed(f"job {shorten(job.name)} is not due at {shown} any more")
    if job.held_by is not None and job.overlap != Overlap.ALLOW_ALL:
        places = [place for place in places if place.run_id == job.held_by]  # it may be this one's turn
        if not places:
            raise JobBusy(f"job {shorten(job.name)} has run {job.held_by} open, and its overlap is {job.overlap}")
    place = places[0] if places else DueItem(insert_manual_run(storage, job, now).id, job.id, now)
    if place.run_id is None:
        claimed = claim_moment(storage, job_id, owner=owner, now=now)
    else:
        run = storage.runs([place.run_id])[place.run_id]
        if is_outdated_retry(job, run, now):
            cancel_outdated_retry(storage, job, run)
            return AlreadyClaimed(f"job {shorten(job.name)} cannot start: its attempt was cancelled, {_TOO_LATE}")
        claimed = claim_pending(storage, place.run_id, owner=owner, now=now)
    if claimed is None:
        return _why_not(storage, job, now)
    leases.renew(storage, owner)
    return claimed


def _why_not(storage: Storage, before: JobRow, now: Millis) -> AlreadyClaimed | JobBusy:
    """Why a run did not begin, read off what was written instead.

    Raises:
        JobBusy: It has to wait, and is not to: the error undoes that.
    """
    name = shorten(before.name)
    opened = storage.open_runs([before.id])
    sessions = {run.session for run in opened if run.status == RunStatus.PENDING}
    if any(session is not None and storage.session_busy(session) for session in sessions):
        raise JobBusy(f"job {name} cannot start: its main session is in use")
    if any(run.waits_for == CRASH_LOOP for run in opened):
        raise JobBusy(f"job {name} cannot start: its last runs ended with their process, as did those of a job that runs now")
    job = find_job(storage, before.id)
    if job.last_error != before.last_error:
        return JobBusy(f"job {name} cannot start: {job.last_error}")
    if before.next_run_at is not None and is_too_late(before, before.next_run_at, now):
        return AlreadyClaimed(f"job {name} cannot start: its moment was skipped, {_TOO_LATE}")
    return AlreadyClaimed(f"job {name} cannot start: its moment was decided before the clock was set back")
