"""Runs that wait: inserting them, releasing the next one, and taking runs and whole jobs out of the queue. Runs on the storage thread.

A pending run with a `RunRow.waits_for` is not in the queue. Each key has at most one run that is about to start or is running, and
many that wait; when that one finishes, or is cancelled before it started, the run that has waited longest is released. So every
function that cancels pending runs also releases the next ones; otherwise they would wait for ever.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from cronactors.instants import Millis
from cronactors.ledger.new_rows import finish_values, skipped_run, without_taken
from cronactors.ledger.notification_columns import job_to_column
from cronactors.ledger.stored_values import is_time, stored_timing
from cronactors.model import Cause, RunStatus
from cronactors.notifications import NOTIFIER
from cronactors.policy import Outcome
from cronactors.storage.protocol import Storage
from cronactors.storage.rows import CRASH_LOOP, PAUSE, JobRow, JobState, RunRow, job_key

AT_ONCE = 1_000
"""How many jobs are added, changed or deleted together.

A server ends a transaction from which it hears nothing for 2 s: that is less than ten thousand rows may take on a busy machine.
"""


def insert_moments(storage: Storage, jobs: Mapping[str, JobRow], rows: Sequence[RunRow]) -> list[RunRow | None]:
    """Insert rows that stand for moments of these jobs.

    Once the clock was set back a moment may have a row already. Then its row is inserted for the other moments that it stands for.

    Returns:
        The rows as they are stored; None for one all of whose moments have rows already.
    """
    ids = storage.insert_runs(rows)
    return [
        _insert_rest(storage, jobs[row.job_id], row) if run_id is None else row.with_id(run_id)
        for row, run_id in zip(rows, ids, strict=True)
    ]


def _insert_rest(storage: Storage, job: JobRow, row: RunRow) -> RunRow | None:
    """Insert a row for those of its moments that have no rows, now that the moment by which it is known has one."""
    timing = stored_timing(job)
    if timing is None or row.attempt > 1:
        return None
    rest = without_taken(row, timing)
    while rest is not None:
        run_id = storage.insert_runs([rest])[0]
        if run_id is not None:
            return rest.with_id(run_id)
        rest = without_taken(rest, timing)
    return None


def release_waiting(storage: Storage, run: RunRow, *, held: bool) -> None:
    """Release the next run for each key that this run kept others waiting for, or for which it was the next to start.

    Args:
        storage: Inside a transaction.
        run: The run, as it was before it finished or was cancelled.
        held: Whether it held its job.
    """
    keys = []
    if run.session is not None and run.waits_for is None:
        storage.hold(run.session)
        keys.append(run.session)
    if held or (run.status == RunStatus.PENDING and run.waits_for is None):
        keys.append(job_key(run.job_id))
    for key in keys:
        release_first(storage, key)


def release_first(storage: Storage, key: str) -> None:
    """Release the run that has waited longest for ``key``. One that is cancelled meanwhile, by who decides about its job, is passed over.

    The caller holds the session, or decides about the job; so nobody lets another run wait for it meanwhile.
    """
    while (waiter := storage.first_waiting_run(key)) is not None and not storage.set_waits_for([(waiter, None)]):
        pass


def release_crash_loops(storage: Storage) -> None:
    """Release all runs that wait for a crash loop: their jobs may be in none any more, and the claim makes the others wait again."""
    storage.hold(CRASH_LOOP)
    while (waiter := storage.first_waiting_run(CRASH_LOOP)) is not None:
        storage.set_waits_for([(waiter, None)])


def cancel_pending(storage: Storage, runs: Iterable[RunRow], cause: Cause) -> None:
    """Cancel pending runs, and release the runs that waited for them; the state of their jobs is not changed."""
    now = storage.now()
    outcome = Outcome(status=RunStatus.CANCELLED, cause=cause)
    pending = list(runs)
    took_effect = storage.store_finishes([finish_values(run, outcome, now) for run in pending])
    for run, cancelled in zip(pending, took_effect, strict=True):  # after all of them, so that none of them is released
        if cancelled:
            release_waiting(storage, run, held=False)


def skip_due(storage: Storage, job: JobRow, cause: Cause) -> Millis | None:
    """Record the due moments of an enabled job as one skipped row, and return the first moment after them."""
    now = storage.now()
    first, timing = job.next_run_at, stored_timing(job)
    if first is None or first > now or not job.enabled or timing is None or not is_time(first):
        return first
    insert_moments(storage, {job.id: job}, [skipped_run(job, timing.merged(first, now), cause, now)])
    return timing.after(now)


def disable_job(storage: Storage, job: JobRow, cause: Cause) -> JobRow:
    """Disable a job: its due moments are skipped, its pending runs wait until it is resumed; requested runs still start."""
    skip_due(storage, job, cause)
    waiting = {run.id: run for run in _pending_runs(storage, [job]) if not run.manual}
    disabled = job._replace(enabled=0, held_by=None if job.held_by in waiting else job.held_by)
    storage.update_job_states([JobState.of(disabled)])
    storage.set_waits_for([(run_id, PAUSE) for run_id in waiting])
    for run in waiting.values():
        release_waiting(storage, run, held=run.id == job.held_by)
    return disabled


def delete_jobs(storage: Storage, jobs: Sequence[JobRow]) -> None:
    """Delete jobs: their due moments are skipped and their pending runs cancelled, as removed; running ones continue."""
    for first in range(0, len(jobs), AT_ONCE):
        _delete_some(storage, jobs[first : first + AT_ONCE])


def _delete_some(storage: Storage, jobs: Sequence[JobRow]) -> None:
    ids = [job.id for job in jobs]
    for job in jobs:
        skip_due(storage, job, Cause.REMOVED)
    # A notifier gets only the name of the job, which its run has.
    storage.notifications.keep_jobs({job.id: job_to_column(job) for job in jobs}, without=NOTIFIER)
    storage.delete_jobs(ids)
    storage.notifications.end_episodes(ids)
    cancel_pending(storage, _pending_runs(storage, jobs), Cause.REMOVED)


def _pending_runs(storage: Storage, jobs: Sequence[JobRow]) -> list[RunRow]:
    """Return the pending runs of jobs, and hold their sessions, so that none of the runs is released any more.

    A run may use a session that its job, which has been edited since, does not use. Another transaction may release the run before we
    hold that session, and then whoever cancels it has to release the next one. So we read the runs again.
    """
    ids = [job.id for job in jobs]
    pending = [run for run in storage.open_runs(ids) if run.status == RunStatus.PENDING]
    sessions = {run.session for run in pending if run.session is not None}
    if not sessions or not storage.writes_side_by_side:
        return pending
    storage.hold(*sessions)
    return [run for run in storage.open_runs(ids) if run.status == RunStatus.PENDING]
