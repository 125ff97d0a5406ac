"""Next moments are computed again when the rules of time zones, or our reading of expressions, come from a newer release.

A stored next moment was computed by the rules of some release. If a newer one moves the clock of a zone, the stored moment is an hour
off. We cannot compute all of 1,000,000 stored jobs before a start, which has 50 ms. So the file keeps the newest release that a scheduler has used, and each job the release by which its next moment was computed. The first scheduler with a
newer release stores when that was; from then on jobs are brought up to date page by page behind the start, and a job that comes due
first is brought up to date by its claim. Moments that were due before the change stay due. A scheduler with older rules than the
file's leaves all next moments as they are. Runs on the storage thread.
"""

from __future__ import annotations

import json

import attrs

from cronactors.errors import InvalidSchedule
from cronactors.instants import Millis
from cronactors.ledger.stored_values import schedule_of
from cronactors.schedules.zone_rules import RULES, NextMoment, is_older, recompute_moment
from cronactors.storage.protocol import Storage
from cronactors.storage.rows import JobRow, JobState

_FACT = "rules"


@attrs.frozen
class RulesOfFile:
    """The rules by which the next moments in a file are computed.

    Attributes:
        rules: Their release.
        since: When a scheduler with these rules first opened the file.
        done: Whether all jobs have been brought up to date.
        before: The previous release; None: there was none.
    """

    rules: str
    since: Millis
    done: bool
    before: str | None


def note_rules(storage: Storage) -> RulesOfFile:
    """Store the rules of this process, unless the file has newer ones; return the rules of the file."""
    found = _rules_of(storage)
    if found is None or is_older(found.rules):
        found = RulesOfFile(RULES, storage.now(), done=False, before=None if found is None else found.rules)
        _write(storage, found)
    return found


def note_older_rules(storage: Storage) -> None:
    """Before this process computes next moments: if its rules are older than the file's, store that jobs must be computed again."""
    found = _rules_of(storage)
    if found is not None and is_older(RULES, found.rules):
        _note_older(storage, found)


def _note_older(storage: Storage, rules: RulesOfFile) -> None:
    if rules.done:
        _write(storage, attrs.evolve(rules, done=False))


def _rules_of(storage: Storage) -> RulesOfFile | None:
    text = storage.meta(_FACT)
    try:
        return None if text is None else RulesOfFile(**json.loads(text))
    except (TypeError, ValueError):  # damaged, or of a later release with more fields: it is written again
        return None


def _write(storage: Storage, rules: RulesOfFile) -> None:
    storage.set_meta(_FACT, json.dumps(attrs.asdict(rules)))


def recompute_page(storage: Storage, *, after: int, limit: int) -> tuple[int | None, int]:
    """Bring one page of jobs up to date.

    Args:
        storage: Inside a transaction.
        after: 0, or the first value that the previous page returned.
        limit: How many jobs a page has.

    Returns:
        ``after`` of the next page, None after the last one; and how many next moments have moved.
    """
    rules = note_rules(storage)
    page = storage.list_jobs(after=after, limit=limit, user_id=None)
    moved = sum(_recomputed(storage, job, rules).next_run_at != job.next_run_at for _, job in page if is_older(job.rules))
    if len(page) == limit:
        return page[-1][0], moved
    if rules.rules == RULES:
        _write(storage, attrs.evolve(rules, done=True))
    return None, moved


def with_current_rules(storage: Storage, job: JobRow) -> JobRow:
    """Return a job whose next moment comes from the rules of this process; a job that cannot be read is returned as it is.

    A process with older rules than the file's keeps the next moment, and marks the job with its rules: it will compute the moments
    after that one, and the next start with newer rules has to compute them again.
    """
    return job if job.rules == RULES else _recomputed(storage, job, note_rules(storage))


def _recomputed(storage: Storage, job: JobRow, rules: RulesOfFile) -> JobRow:
    if is_older(RULES, rules.rules):
        storage.set_rules([job.id], rules=RULES)
        _note_older(storage, rules)
        return job._replace(rules=RULES)
    if job.next_run_at is not None:
        found = NextMoment(job.next_run_at, job.decided_local)
        due = job.next_run_at <= rules.since
        try:
            new = recompute_moment(schedule_of(job), found, zone=job.timezone, due=due, now=storage.now())
        except (InvalidSchedule, ValueError, OverflowError):  # a schedule that cannot be read, or a number that is no time
            return job
        if new != found:
            job = job._replace(next_run_at=new.at, decided_local=new.decided_local)
            storage.update_job_states([JobState.of(job)])
    storage.set_rules([job.id], rules=RULES)
    return job._replace(rules=RULES)
