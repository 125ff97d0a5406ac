"""The wall clock was set back."""

from __future__ import annotations

import json

import attrs

from cronactors.instants import LATEST, Millis
from cronactors.ledger import leases
from cronactors.ledger.stored_values import stored_timing
from cronactors.policy import Timing
from cronactors.schedules.schedule import Interval, OneShot
from cronactors.storage.protocol import Storage
from cronactors.storage.rows import JobRow, JobState

_NEWEST = 1_000
"""Among how many of the newest jobs and runs a time is looked for that lies ahead."""


_SET_BACK = "clock_set_back"
"""The fact that says when, and by which owner, waiting attempts were moved earlier last, and the earliest time of which it knew then."""


_MOST_STEPS = 100
"""How many moments that passed before the clock was seen to be set back are held against the history, for each job."""


def latest_added_at(storage: Storage) -> Millis | None:
    """The latest time at which a job was added or begun anew, or a run asked for, by a user whose wall clock may have been ahead.

    It is looked for among the newest: what was entered ahead and lies behind a thousand other jobs or runs, and an old job that was
    edited then, is found only if a scheduler, or a loop of a user's own, gave a sign of life meanwhile (`last_seen`).
    """
    found = storage.latest_added_at(among=_NEWEST)
    return None if found is None else min(found, LATEST)  # a number that is no time must not end the start


def recompute_page(
    storage: Storage, *, after: int, limit: int, owner: int, by: Millis, since: Millis, earliest: Millis
) -> int | None:
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
    page = storage.list_jobs(after=after, limit=limit, user_id=None)
    for _, job in page:
        rebased = _rebased(storage, job, earliest, now)
        if (rebased.anchor_at, rebased.created_at) != (job.anchor_at, job.created_at):
            storage.update_jobs([rebased])
        elif rebased != job:
            storage.update_job_states([JobState.of(rebased)])
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
