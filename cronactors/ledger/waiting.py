"""Who waits for whom: letting the next of a line start, and taking runs and whole jobs out of the queue."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from cronactors.instants import Millis
from cronactors.ledger.new_rows import finish_values, skipped_run, without_taken
from cronactors.ledger.stored_values import is_time, stored_timing
from cronactors.model import Cause, RunStatus
from cronactors.policy import Outcome
from cronactors.storage.protocol import Storage
from cronactors.storage.rows import CRASH_LOOP, PAUSE, JobRow, JobState, RunRow, job_key


def insert_moments(storage: Storage, jobs: Mapping[str, JobRow], rows: Sequence[RunRow]) -> list[RunRow | None]:
    """Add rows that stand for moments of these jobs. No moment that another row bears is lost with those beside it.

    Returns:
        The rows as they are stored; None for one all of whose moments have rows already.
    """
    ids = storage.insert_runs(rows)
    return [
        _insert_rest(storage, jobs[row.job_id], row) if run_id is None else row.with_id(run_id)
        for row, run_id in zip(rows, ids, strict=True)
    ]


def _insert_rest(storage: Storage, job: JobRow, row: RunRow) -> RunRow | None:
    """Add a row without the moments that have rows of their own, where the one that it bears is such a moment."""
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
    """Let the next of each line start that this run kept waiting, or that it was to be the next of."""
    keys = []
    if run.session is not None and run.waits_for is None:
        keys.append(run.session)
    if held or (run.status == RunStatus.PENDING and run.waits_for is None):
        keys.append(job_key(run.job_id))
    for key in keys:
        release_first(storage, key)


def release_first(storage: Storage, key: str) -> None:
    """Let the run start that has waited longest for ``key``."""
    waiter = storage.first_waiting_run(key)
    if waiter is not None:
        storage.set_waits_for([(waiter, None)])


def release_crash_loops(storage: Storage) -> None:
    """Let all look again that wait because a suspect was running: they may be none any more, and nobody has to pass on a turn."""
    while (waiter := storage.first_waiting_run(CRASH_LOOP)) is not None:
        storage.set_waits_for([(waiter, None)])


def cancel_pending(storage: Storage, runs: Iterable[RunRow], cause: Cause) -> None:
    """End pending runs of a job whose own state needs no change, and let those start that stood behind them."""
    now = storage.now()
    outcome = Outcome(status=RunStatus.CANCELLED, cause=cause)
    leaving = list(runs)
    left = storage.store_finishes([finish_values(run, outcome, now) for run in leaving])
    for run, done in zip(leaving, left, strict=True):  # only now, so that none of them is given a turn
        if done:
            release_waiting(storage, run, held=False)


def skip_due(storage: Storage, job: JobRow, cause: Cause) -> Millis | None:
    """Record the moments of an enabled job that have come due and will not run as one skipped row; answer the first after them."""
    now = storage.now()
    first, timing = job.next_run_at, stored_timing(job)
    if first is None or first > now or not job.enabled or timing is None or not is_time(first):
        return first
    insert_moments(storage, {job.id: job}, [skipped_run(job, timing.merged(first, now), cause, now)])
    return timing.after(now)


def disable_job(storage: Storage, job: JobRow, cause: Cause) -> JobRow:
    """Disable a job: what is due is skipped, attempts that wait stay waiting until it is resumed; runs asked for still start."""
    skip_due(storage, job, cause)
    waiting = {run.id: run for run in storage.open_runs([job.id]) if run.status == RunStatus.PENDING and not run.manual}
    stopped = job._replace(enabled=0, held_by=None if job.held_by in waiting else job.held_by)
    storage.update_job_states([JobState.of(stopped)])
    storage.set_waits_for([(run_id, PAUSE) for run_id in waiting])
    for run in waiting.values():
        release_waiting(storage, run, held=run.id == job.held_by)  # its turn, if it had one, passes to the next
    return stopped


def delete_job(storage: Storage, job: JobRow) -> None:
    """Take a job away: what waits ends as removed, what runs goes on to its end."""
    skip_due(storage, job, Cause.REMOVED)
    storage.delete_jobs([job.id])
    cancel_pending(storage, (run for run in storage.open_runs([job.id]) if run.status == RunStatus.PENDING), Cause.REMOVED)
