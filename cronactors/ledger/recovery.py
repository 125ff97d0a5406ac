"""Owners of runs: their registration, and what becomes of the runs of those that have died; the clock set back."""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence

import attrs

from cronactors.instants import LATEST, Millis
from cronactors.ledger import leases
from cronactors.ledger.close import finish_open_run
from cronactors.ledger.new_rows import stored_timing
from cronactors.model import Cause, RunStatus
from cronactors.owner import Owner, certainly_dead
from cronactors.policy import FREE_CRASHES, Outcome, Timing
from cronactors.schedules.schedule import Interval, OneShot
from cronactors.spec import RetryPolicy
from cronactors.storage.protocol import Storage
from cronactors.storage.rows import JobRow, JobState, OwnerRow, RunRow

_NEWEST = 1_000
"""Among how many of the newest jobs and runs a time is looked for that lies ahead."""
_SET_BACK = "clock_set_back"
"""The fact that says when, and by which owner, waiting attempts were moved earlier last, and the earliest time of which it knew then."""
_DAY: Millis = 86_400_000
_MOST_STEPS = 100
"""How many moments that passed before the clock was seen to be set back are held against the history, for each job."""


def register(storage: Storage, me: Owner) -> int:
    """Enter an owner, with a lease from now; owners that have closed or died and own nothing are forgotten.

    Not if their last sign of life lies ahead: it tells that the clock was set back, until a scheduler heeds that by `rebase`.
    """
    now = storage.now()
    busy = {run.owner for run in storage.running()}
    idle = [row for row in storage.owners() if row.id not in busy and row.heartbeat_at <= now]
    gone = [row.id for row in idle if row.lease_until == 0 or certainly_dead(Owner(row.machine, row.pid, row.process_start), me)]
    storage.delete_owners(gone)
    lease_until = now + leases.LEASE
    number = storage.insert_owner(OwnerRow(0, me.machine, me.pid, me.process_start, heartbeat_at=now, lease_until=lease_until))
    _forget_stale_marks(storage, number, busy)
    return number


def _forget_stale_marks(storage: Storage, registered: int, busy: Collection[int | None]) -> None:
    """Remove marks that stand for nobody: of an earlier file of this name, or of a process that was killed before it removed them.

    Whether a process of another container has died nobody can tell; a mark is of no use once its owner has no runs and its lease ended
    a day ago.
    """
    marked = storage.stopping_owners()
    if not marked:
        return
    recent = storage.now() - _DAY
    known = {row.id for row in storage.owners() if row.id in busy or row.lease_until > recent} - {registered}
    for owner in marked - known:
        storage.forget_stopping(owner)


def last_seen(storage: Storage) -> Millis | None:
    """The latest sign of life of any owner."""
    return max((row.heartbeat_at for row in storage.owners()), default=None)


def latest_entry(storage: Storage) -> Millis | None:
    """The latest time at which a job was added or begun anew, or a run asked for, by a user whose wall clock may have been ahead.

    It is looked for among the newest: what was entered ahead and lies behind a thousand other jobs or runs, and an old job that was
    edited then, is found only if a scheduler, or a loop of a user's own, gave a sign of life meanwhile (`last_seen`).
    """
    found = storage.latest_entry(among=_NEWEST)
    return None if found is None else min(found, LATEST)  # a number that is no time must not end the start


def sign_off(storage: Storage, owner: int) -> None:
    """Note that an owner has closed: what it still runs, if anything, is run by nobody."""
    leases.end_lease(storage, owner)
    storage.forget_stopping(owner)


def orphans(
    storage: Storage, me: Owner, running: Sequence[RunRow], *, trust_leases: bool, mine: Collection[int] = ()
) -> list[RunRow]:
    """Runs whose owner has certainly died, or has given no sign of life for as long as its lease.

    Args:
        storage: Inside a transaction.
        me: Who asks.
        running: All runs that go on.
        trust_leases: False for a while after the wall clock was set, when the end of a lease says nothing.
        mine: Owners that the asker itself keeps alive.
    """
    if all(run.owner in mine for run in running):
        return []
    now = storage.now()
    alive = {row.id for row in storage.owners() if row.id in mine or _may_live(row, me, now if trust_leases else None)}
    return [run for run in running if run.owner not in alive]


def _may_live(row: OwnerRow, me: Owner, now: Millis | None) -> bool:
    """Whether an owner may be alive; without a time to compare with, only the end of its process and its signing off count."""
    lasts = row.lease_until > 0 if now is None else row.lease_until > now
    return lasts and not certainly_dead(Owner(row.machine, row.pid, row.process_start), me)


def recover(storage: Storage, me: Owner, *, policy: RetryPolicy, trust_leases: bool, mine: Collection[int] = ()) -> list[RunRow]:
    """End the orphans as interrupted and put their moments back; from the third crash in a row of a job it costs a retry and waits.

    It is no crash if the owner had closed, or had been asked to stop and was killed before it could record the end.
    """
    recovered = []
    left = orphans(storage, me, storage.running(), trust_leases=trust_leases, mine=mine)
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
        storage.forget_stopping(owner)
    return recovered


def _count_crash(storage: Storage, job_ids: Collection[str]) -> None:
    """Count a crash once for each job, however many of its runs it ended."""
    jobs = storage.jobs(sorted(job_ids))
    storage.advance_jobs([JobState.of(job)._replace(crashes=job.crashes + 1) for job in jobs.values()])


def rebase(storage: Storage, *, after: int, limit: int, owner: int, by: Millis, since: Millis, earliest: Millis) -> int | None:
    """After the clock was set back: compute the next moments of one page of jobs anew, as the old time is a long way off.

    The moments that have passed since the clock was set come due too, though that may have been seen only now. What was claimed is
    not run again: its moment has a row. With the first page pending runs and leases are set back too. No time ahead of now is left
    anywhere, so that no later start finds it again.

    Args:
        storage: Inside a transaction.
        after: 0, or where the page before ended.
        limit: How many jobs a page has.
        owner: Who asks.
        by: How far the clock was set back since attempts that wait were told to.
        since: When the asker last found the clock right, in the time that it shows now.
        earliest: The earliest time to which the clock can have been set, in the time that it shows now.

    Returns:
        Where the next page begins; None after the last one.
    """
    now = storage.now()
    known = _heeded_by_another(storage, owner, since=since, now=now)
    earliest = min(now, earliest if known is None else max(earliest, known))
    if after == 0:
        storage.advance_pending(now=now, by=0 if known is not None else by)
        if by > 0 and known is None:
            storage.set_meta(_SET_BACK, json.dumps({"at": now, "owner": owner, "earliest": earliest}))
        for row in storage.owners():
            if row.heartbeat_at > now:
                leases.shorten(storage, row)
    page = storage.page_of_jobs(after=after, limit=limit, user_id=None)
    for _, job in page:
        rebased = _rebased(storage, job, earliest, now)
        if (rebased.anchor_at, rebased.created_at) != (job.anchor_at, job.created_at):
            storage.edit_jobs([rebased])
        elif rebased != job:
            storage.advance_jobs([JobState.of(rebased)])
    return page[-1][0] if len(page) == limit else None


def _heeded_by_another(storage: Storage, owner: int, *, since: Millis, now: Millis) -> Millis | None:
    """Whether another scheduler has seen the same since the asker's last look, and moved attempts that wait: they are not moved twice.

    Returns:
        The earliest time of which that one knew.
    """
    try:
        last = json.loads(storage.meta(_SET_BACK) or "null")
        if last is None or last["owner"] == owner or not since <= last["at"] <= now:
            return None
        return int(last.get("earliest", last["at"]))
    except (TypeError, ValueError, KeyError, AttributeError, OverflowError):  # damaged: as if nothing had been noted
        return None


def _rebased(storage: Storage, job: JobRow, earliest: Millis, now: Millis) -> JobRow:
    timing = stored_timing(job)
    schedule = None if timing is None else timing.schedule
    after = earliest if job.anchor_at > now else max(earliest, job.anchor_at)  # one of the future began before the clock was set
    if isinstance(schedule, Interval) and job.anchor_at > now:  # begun in what is the future again: the phase stays
        back = -(-(job.anchor_at - earliest) // schedule.every_ms)
        job = job._replace(anchor_at=job.anchor_at - back * schedule.every_ms)
    job = job._replace(anchor_at=min(job.anchor_at, now), created_at=min(job.created_at, now))
    if job.next_run_at is None or job.next_run_at <= now or not job.enabled or timing is None or isinstance(schedule, OneShot):
        return job
    timing = attrs.evolve(timing, anchor=job.anchor_at)
    following = _undecided(storage, job, timing, after, now)
    if following is None or following >= job.next_run_at:
        return job
    return job._replace(next_run_at=following, decided_local=timing.local_until(min(now, following - 1)))


def _undecided(storage: Storage, job: JobRow, timing: Timing, after: Millis, now: Millis) -> Millis | None:
    """The first moment later than ``after``, without those up to now that rows stand for.

    A row that reaches beyond now was decided while the clock was ahead: a job must not fall silent for as long as that.
    """
    moment = timing.after(after)
    for _ in range(_MOST_STEPS):
        if moment is None or moment > now:
            break
        until, later = storage.runs_around(job.id, at=moment)
        spans = [run.span for run in (until, later) if run is not None]
        decided = max((last for first, last in spans if first <= moment <= last <= now), default=None)
        if decided is None:
            break
        moment = timing.after(decided)
    return moment
