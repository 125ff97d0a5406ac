"""Runs of owners that have died."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from cronactors.instants import Millis
from cronactors.ledger.finish import finish_open_run
from cronactors.model import Cause, RunStatus
from cronactors.owner import ProcessIdentity, certainly_dead
from cronactors.policy import FREE_CRASHES, Outcome
from cronactors.spec import RetryPolicy
from cronactors.storage.protocol import Storage
from cronactors.storage.rows import JobState, OwnerRow, RunRow


def orphans(
    storage: Storage,
    this_process: ProcessIdentity,
    running: Sequence[RunRow],
    *,
    trust_leases: bool,
    mine: Collection[int] = (),
) -> list[RunRow]:
    """Runs whose owner has certainly died, or has given no sign of life for as long as its lease.

    Args:
        storage: Inside a transaction.
        this_process: The process that inspects.
        running: All runs that go on.
        trust_leases: False for a while after the wall clock was set, when the end of a lease says nothing.
        mine: Owners that the asker itself keeps alive.
    """
    if all(run.owner in mine for run in running):
        return []
    now = storage.now()
    alive = {row.id for row in storage.owners() if row.id in mine or _may_live(row, this_process, now if trust_leases else None)}
    return [run for run in running if run.owner not in alive]


def _may_live(row: OwnerRow, this_process: ProcessIdentity, now: Millis | None) -> bool:
    """Whether an owner may be alive; without a time to compare with, only the end of its process and its signing off count."""
    lasts = row.lease_until > 0 if now is None else row.lease_until > now
    return lasts and not certainly_dead(ProcessIdentity(row.machine, row.pid, row.process_start), this_process)


def recover(
    storage: Storage,
    this_process: ProcessIdentity,
    *,
    policy: RetryPolicy,
    trust_leases: bool,
    mine: Collection[int] = (),
) -> list[RunRow]:
    """End the orphans as interrupted and put their moments back; from the third crash in a row of a job it costs a retry and waits.

    It is no crash if the owner had closed, or had been asked to stop and was killed before it could record the end.
    """
    recovered = []
    left = orphans(storage, this_process, storage.running(), trust_leases=trust_leases, mine=mine)
    closed = {row.id for row in storage.owners() if row.lease_until == 0}
    stopping = (storage.stopping_owners() if left else set()) - closed
    _count_crash(storage, {run.job_id for run in left if run.owner not in closed | stopping})
    for run in left:
        crashed = run.owner not in closed | stopping
        error = "interrupted: its process ended" if crashed else "interrupted: it was left open"
        if run.owner in stopping:
            error = "interrupted: its process was killed while it was stopping"
        job = storage.jobs([run.job_id]).get(run.job_id)
        if crashed and job is not None and job.crashes > FREE_CRASHES:
            error = f"interrupted: its process ended, {job.crashes} times in a row"
        outcome = Outcome(status=RunStatus.FAILED, cause=Cause.INTERRUPTED, error=error, crashed=crashed)
        ended = finish_open_run(storage, run, outcome, policy)
        if ended is not None:
            recovered.append(ended)
    for owner in stopping & {run.owner for run in left if run.owner is not None}:
        storage.unmark_stopping(owner)
    return recovered


def _count_crash(storage: Storage, job_ids: Collection[str]) -> None:
    """Count a crash once for each job, however many of its runs it ended."""
    jobs = storage.jobs(sorted(job_ids))
    storage.update_job_states([JobState.of(job)._replace(crashes=job.crashes + 1) for job in jobs.values()])
