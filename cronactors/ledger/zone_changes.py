"""Next moments are computed again when the rules of time zones, or our reading of expressions, come from a newer release.

A stored next moment was computed by the rules of some release. If a newer one moves the clock of a zone, the stored moment is an hour
off. We cannot compute all of 1,000,000 stored jobs before a start, which has 50 ms. So the store keeps the newest release that a
scheduler has used, and each job the release by which its next moment was computed. The first scheduler with a newer release stores
when that was; from then on jobs are brought up to date page by page behind the start, and a job that comes due first is brought up
to date by its claim. Moments that were due before the change stay due. A scheduler with older rules than the store's leaves all next
moments as they are.

Most pages of most walks hold nothing to do, and on a server several schedulers may walk at once. So a page is read without a lock,
and only jobs with older rules are locked, beside other transactions. Runs on the storage thread.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

import attrs

from cronactors.errors import InvalidSchedule
from cronactors.instants import Millis
from cronactors.ledger.stored_values import schedule_of
from cronactors.schedules.zone_rules import RULES, NextMoment, is_older, recompute_moment
from cronactors.storage.protocol import Storage
from cronactors.storage.rows import JobRow, JobState

RULES_FACT = "rules"
"""The name of the fact in the store, and of the key that is held to write the first one."""


@attrs.frozen
class RulesOfStore:
    """The rules by which the next moments in a store are computed.

    Attributes:
        rules: Their release.
        since: When a scheduler with these rules first opened the store.
        done: Whether all jobs have been brought up to date.
        before: The previous release; None: there was none.
    """

    rules: str
    since: Millis
    done: bool
    before: str | None


def note_rules(storage: Storage) -> RulesOfStore:
    """Store the rules of this process, unless the store has newer ones; return the rules of the store."""
    found = rules_of(storage)
    if found is None or is_older(found.rules):
        storage.hold(RULES_FACT)
        before = rules_of(storage)
        if before is not None and not is_older(before.rules):
            return before
        nothing_to_do = before is None and not storage.list_jobs(after=0, limit=1, user_id=None)
        found = RulesOfStore(RULES, storage.now(), done=nothing_to_do, before=None if before is None else before.rules)
        _write(storage, found)
    return found


def note_rules_of_new_moments(storage: Storage) -> None:
    """Before this process computes next moments: store its rules if the store has none.

    If they are older than those of the store, store that jobs must be computed again.
    """
    found = rules_of(storage)
    if found is None:
        note_rules(storage)
    elif is_older(RULES, found.rules):
        note_older(storage, found)


def note_older(storage: Storage, rules: RulesOfStore) -> None:
    """Store that jobs have next moments of older rules than the store's."""
    if rules.done:
        _write(storage, attrs.evolve(rules, done=False))


def rules_of(storage: Storage) -> RulesOfStore | None:
    """Return the rules of the store; None if no process has stored any."""
    text = storage.meta(RULES_FACT)
    try:
        return None if text is None else RulesOfStore(**json.loads(text))
    except (TypeError, ValueError):  # damaged, or of a later release with more fields: it is written again
        return None


def _write(storage: Storage, rules: RulesOfStore) -> None:
    storage.set_meta(RULES_FACT, json.dumps(attrs.asdict(rules)))


def find_older(storage: Storage, *, after: int, limit: int) -> tuple[int | None, list[str]]:
    """Find the jobs of one page whose next moments older rules have computed. Reads only.

    Args:
        storage: Inside a transaction.
        after: 0, or the first value that the previous page returned.
        limit: How many jobs a page has.

    Returns:
        ``after`` of the next page, None after the last one or if another process has done the rest; and the ids of the jobs.
    """
    rules = rules_of(storage)
    if rules is None or rules.done:
        return None, []
    page = storage.list_jobs(after=after, limit=limit, user_id=None)
    return page[-1][0] if len(page) == limit else None, [job.id for _, job in page if is_older(job.rules)]


def recompute(storage: Storage, ids: Sequence[str]) -> int:
    """Bring jobs up to date that still have older rules; return how many next moments have moved."""
    before = [job for job in storage.jobs(ids).values() if is_older(job.rules)]
    after = _recomputed(storage, before)
    return sum(new.next_run_at != old.next_run_at for old, new in zip(before, after, strict=True))


def mark_recomputed(storage: Storage) -> None:
    """Store that all jobs have been brought up to date."""
    rules = rules_of(storage)
    if rules is not None and rules.rules == RULES and not rules.done:
        _write(storage, attrs.evolve(rules, done=True))


def with_current_rules(storage: Storage, job: JobRow) -> JobRow:
    """Return a job whose next moment comes from the rules of this process; a job that cannot be read is returned as it is.

    A process with older rules than the store's keeps the next moment, and marks the job with its rules: it will compute the moments
    after that one, and the next start with newer rules has to compute them again.

    A claim calls this and must wait for nobody. It does not wait for `RULES_FACT`: when a scheduler registered, it stored its rules
    unless the store had newer ones.
    """
    return job if job.rules == RULES else _recomputed(storage, [job])[0]


def _recomputed(storage: Storage, jobs: Sequence[JobRow]) -> list[JobRow]:
    rules = note_rules(storage)
    if is_older(RULES, rules.rules):
        note_older(storage, rules)
        after = [job._replace(rules=RULES) for job in jobs]
    else:
        now = storage.now()
        after = [_recomputed_job(job, rules, now) for job in jobs]
    moved = [JobState.of(new) for old, new in zip(jobs, after, strict=True) if _moment(new) != _moment(old)]
    if moved:
        storage.update_job_states(moved)
    current = [job.id for job in after if job.rules == RULES]
    if current:
        storage.set_rules(current, rules=RULES)
    return after


def _moment(job: JobRow) -> tuple[Millis | None, int | None]:
    return job.next_run_at, job.decided_local


def _recomputed_job(job: JobRow, rules: RulesOfStore, now: Millis) -> JobRow:
    """Return a job as the rules of this process have it; as it is if its schedule cannot be read."""
    if job.next_run_at is not None:
        found = NextMoment(job.next_run_at, job.decided_local)
        try:
            new = recompute_moment(schedule_of(job), found, zone=job.timezone, due=job.next_run_at <= rules.since, now=now)
        except (InvalidSchedule, ValueError, OverflowError):  # a schedule that cannot be read, or a number that is no time
            return job
        job = job._replace(next_run_at=new.at, decided_local=new.decided_local)
    return job._replace(rules=RULES)
