"""The wall clock was set back: what lies ahead of it in the file is moved back. Runs on the storage thread.

Everything that was stored while the clock was ahead names times that are now a long way off: a job whose next moment is three days
ahead would be silent for three days. So the next moments of all jobs are computed again, from the earliest time to which the clock can
have been set. A scheduler notices the jump only when it next compares its clocks, and moments may pass until then: they come due too,
unless a row stands for them, since no moment runs twice. Afterwards no time ahead of now is left in the file, so that no later start
finds the same jump again.
"""

from __future__ import annotations

import json

import attrs

from cronactors.instants import LATEST, Millis
from cronactors.ledger import leases, pausing
from cronactors.ledger.pruning_clock import decided_until
from cronactors.ledger.stored_values import stored_timing
from cronactors.policy import Timing
from cronactors.schedules.schedule import Interval, OneShot
from cronactors.storage.protocol import Storage
from cronactors.storage.rows import JobRow, JobState

_NEWEST = 1_000
"""How many of the newest jobs, and of the newest runs, `latest_added_at` reads."""
_FACT = "clock_set_back"
"""The fact (`Storage.meta`) in which a scheduler stores that it has moved pending runs: when, and the earliest time that it knew of."""
_MOST_STEPS = 100
"""How many moments of a job are compared with its history."""


def latest_added_at(storage: Storage) -> Millis | None:
    """Return the latest time at which a job was added or rescheduled, or a run requested, by a user whose clock may have been ahead.

    Only the newest 1,000 jobs and runs are read. Other rows from ahead, such as an old job that was edited then, are found only if a
    scheduler or a loop of a user's own sent a heartbeat meanwhile (`owners.last_seen`).
    """
    found = storage.latest_added_at(among=_NEWEST)
    return None if found is None else min(found, LATEST)  # a damaged number must not fail the start


def recompute_page(
    storage: Storage, *, after: int, limit: int, owner: int, by: Millis, since: Millis, earliest: Millis
) -> int | None:
    """Compute the next moments of one page of jobs again, after the clock was set back.

    With the first page pending runs and leases are moved back too.

    Args:
        storage: Inside a transaction.
        after: 0, or the number that the previous page returned.
        limit: How many jobs a page has.
        owner: The owner whose scheduler has noticed the jump.
        by: How far the clock was set back (ms).
        since: When that scheduler last found the clock right, in the time that the clock shows now.
        earliest: The earliest time to which the clock can have been set, in the time that it shows now.

    Returns:
        ``after`` of the next page; None after the last one.
    """
    now = storage.now()
    known = _noticed_by_another(storage, owner, since=since, now=now)
    earliest = min(now, earliest if known is None else max(earliest, known))
    if after == 0:
        storage.advance_pending(now=now, by=0 if known is not None else by)
        storage.notifications.advance_retries(now=now, by=0 if known is not None else by)
        if by > 0 and known is None:
            storage.set_meta(_FACT, json.dumps({"at": now, "owner": owner, "earliest": earliest}))
        for row in storage.owners():
            if row.heartbeat_at > now:
                leases.shorten(storage, row)
    page = storage.list_jobs(after=after, limit=limit, user_id=None)
    for job in pausing.pause_again(storage, [job for _, job in page], now):
        new = _recomputed(storage, job, earliest, now)
        if (new.anchor_at, new.created_at) != (job.anchor_at, job.created_at):
            storage.update_jobs([new])
        elif new != job:
            storage.update_job_states([JobState.of(new)])
    return page[-1][0] if len(page) == limit else None


def _noticed_by_another(storage: Storage, owner: int, *, since: Millis, now: Millis) -> Millis | None:
    """Return the earliest time that another scheduler knew of, which has moved pending runs for the same jump: they move only once.

    Returns:
        None if no other scheduler has, since this one last found the clock right.
    """
    try:
        last = json.loads(storage.meta(_FACT) or "null")
        if last is None or last["owner"] == owner or not since <= last["at"] <= now:
            return None
        return int(last.get("earliest", last["at"]))
    except (TypeError, ValueError, KeyError, AttributeError, OverflowError):  # damaged: as if there were none
        return None


def _recomputed(storage: Storage, job: JobRow, earliest: Millis, now: Millis) -> JobRow:
    """Return a job without times ahead of now, and with the first moment that is not decided in the time that the clock shows now."""
    timing = stored_timing(job)
    schedule = None if timing is None else timing.schedule
    # A job that was added or rescheduled ahead did so before the clock was set: all moments since then are its moments.
    after = earliest if job.anchor_at > now else max(earliest, job.anchor_at)
    if isinstance(schedule, Interval) and job.anchor_at > now:  # whole intervals back, so that its moments stay in phase
        back = -(-(job.anchor_at - earliest) // schedule.every_ms)
        job = job._replace(anchor_at=job.anchor_at - back * schedule.every_ms)
    job = job._replace(anchor_at=min(job.anchor_at, now), created_at=min(job.created_at, now))
    if job.next_run_at is None or not job.enabled or timing is None or isinstance(schedule, OneShot):
        return job
    timing = attrs.evolve(timing, anchor=job.anchor_at)
    following = _first_undecided(storage, job, timing, after, now)
    # Also if the next moment has come due before the jump was noticed: it was computed ahead, and moments before it may have no row.
    if following is None or following >= job.next_run_at:
        return job
    return job._replace(next_run_at=following, decided_local=timing.local_until(min(now, following - 1)))


def _first_undecided(storage: Storage, job: JobRow, timing: Timing, after: Millis, now: Millis) -> Millis | None:
    """Return the first moment later than ``after`` that no row stands for and no pruned row stood for, or that is later than now.

    A row that reaches beyond now was decided while the clock was ahead. It does not count: the job must not stay silent until its end.
    """
    pruned = decided_until(storage, job, now)
    moment = timing.after(after if pruned is None else max(after, pruned))
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
