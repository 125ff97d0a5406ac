"""Runs whose owner has died: they finish as interrupted, and their moments are put back. Runs on the storage thread.

A process that is killed leaves its runs running in the file. At the next start, and once a tick, a scheduler finds them, and retries
each of them at once and for free. But a job may be the reason why its process dies: a job that uses up all memory would take the process
down at each start. We cannot see which of the runs it was, so each crash counts for every job that was running. After two crashes in a
row (`policy.FREE_CRASHES`) a job counts as in a crash loop: its runs start one at a time with those of other such jobs, so that from
then on only the guilty job crashes, and from the third crash on each one costs a retry and waits for its delay. A run that ends by
itself sets the count back to 0.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from itertools import zip_longest
from typing import NamedTuple

from cronactors.instants import Millis
from cronactors.ledger import leases
from cronactors.ledger.finish import finish_open_runs
from cronactors.ledger.views import by_job
from cronactors.model import Cause, RunStatus
from cronactors.owner import ProcessIdentity, certainly_dead
from cronactors.policy import FREE_CRASHES, Outcome
from cronactors.settings import RetryPolicy
from cronactors.storage.protocol import Storage
from cronactors.storage.rows import JobRow, JobState, OwnerRow, RunRow

RECOVERED_AT_ONCE = 100
"""How many runs of dead owners one transaction finishes.

On a server it keeps all others out. At 1 ms for a statement, the 1,500 runs of some dead machines took longer than the 10 s after which
the server ends a transaction, again and again, and meanwhile the living could not renew their leases.
"""


def orphans(
    storage: Storage,
    this_process: ProcessIdentity,
    running: Sequence[RunRow],
    *,
    trust_leases: bool,
    mine: Collection[int] = (),
) -> list[RunRow]:
    """Return the running runs whose owner has certainly died, or has sent no heartbeat for as long as its lease.

    Args:
        storage: Inside a transaction.
        this_process: The identity of this process.
        running: All running runs.
        trust_leases: False for a while after the wall clock was set, when the end of a lease says nothing.
        mine: Owners of this process, which are alive.
    """
    if all(run.owner in mine for run in running):
        return []
    alive = living_owners(storage, this_process, trust_leases=trust_leases, mine=mine)
    return [run for run in running if run.owner not in alive]


def living_owners(
    storage: Storage, this_process: ProcessIdentity, *, trust_leases: bool, mine: Collection[int] = (), overdue_for: Millis = 0
) -> set[int]:
    """Return the owners that may be alive: those whose lease ran out less than ``overdue_for`` ago too. Else as `orphans`."""
    now = max(0, storage.now() - overdue_for) if trust_leases else None
    return {row.id for row in storage.owners() if row.id in mine or _may_live(row, this_process, now)}


def _may_live(row: OwnerRow, this_process: ProcessIdentity, now: Millis | None) -> bool:
    """Return whether an owner may be alive; without a time only the end of its process, and that it has closed, count."""
    lasts = row.lease_until > 0 if now is None else row.lease_until > now
    return lasts and not certainly_dead(row.process, this_process)


class Recovered(NamedTuple):
    """Some of the runs of dead owners, finished.

    Attributes:
        runs: The finished runs.
        more: Whether others are left.
    """

    runs: list[RunRow]
    more: bool


def recover(
    storage: Storage,
    this_process: ProcessIdentity,
    *,
    policy: RetryPolicy,
    trust_leases: bool,
    mine: Collection[int] = (),
    limit: int = RECOVERED_AT_ONCE,
) -> Recovered:
    """Finish runs of dead owners as interrupted, and put their moments back.

    A run whose owner had closed, or was killed while it was stopping, does not count as a crash of its job.

    Args:
        storage: Inside a transaction.
        this_process: The identity of this process.
        policy: Delays of retries.
        trust_leases: See `orphans`.
        mine: See `orphans`.
        limit: How many runs to finish, but all of one job together, so that they count as one crash.
    """
    orphaned = orphans(storage, this_process, storage.running(), trust_leases=trust_leases, mine=mine)
    page, left = _whole_jobs(orphaned, limit)
    closed = {row.id for row in storage.owners() if row.lease_until == 0}
    stopping = (storage.stopping_owners() if page else set()) - closed
    _count_crash(storage, {run.job_id for run in page if run.owner not in closed | stopping})
    jobs = storage.jobs(list({run.job_id for run in page}))
    recovered = []
    for together in _of_different_jobs(page):
        outcomes = []
        for run in together:
            crashed = run.owner not in closed | stopping
            error = _error(jobs.get(run.job_id), crashed=crashed, stopping=run.owner in stopping)
            outcomes.append((run, Outcome(status=RunStatus.FAILED, cause=Cause.INTERRUPTED, error=error, crashed=crashed)))
        recovered += [run for run in finish_open_runs(storage, outcomes, policy) if run is not None]
    lost = {run.owner for run in orphaned if run.owner is not None}
    for owner in lost:
        leases.declare_dead(storage, owner)
    for owner in stopping & lost - {run.owner for run in left}:
        storage.unmark_stopping(owner)
    return Recovered(recovered, bool(left))


def _whole_jobs(runs: Sequence[RunRow], limit: int) -> tuple[list[RunRow], list[RunRow]]:
    """Return all runs of as many jobs as make so many runs, one job at least, and the other runs."""
    jobs = by_job(runs)
    page: list[RunRow] = []
    while jobs and (not page or len(page) + len(jobs[next(iter(jobs))]) <= limit):
        page += jobs.pop(next(iter(jobs)))
    return page, [run for others in jobs.values() for run in others]


def _of_different_jobs(runs: Sequence[RunRow]) -> Iterator[list[RunRow]]:
    """Yield the first run of each job, then the second of each that has one, and so on: those are finished together."""
    for together in zip_longest(*by_job(runs).values()):
        yield [run for run in together if run is not None]


def _error(job: JobRow | None, *, crashed: bool, stopping: bool) -> str:
    if stopping:
        return "interrupted: its process was killed while it was stopping"
    if not crashed:
        return "interrupted: it was left open"
    if job is not None and job.crashes > FREE_CRASHES:
        return f"interrupted: its process ended, {job.crashes} times in a row"
    return "interrupted: its process ended"


def _count_crash(storage: Storage, job_ids: Collection[str]) -> None:
    """Count one crash for each job, however many of its runs were interrupted."""
    jobs = storage.jobs(sorted(job_ids))
    storage.update_job_states([JobState.of(job)._replace(crashes=job.crashes + 1) for job in jobs.values()])
