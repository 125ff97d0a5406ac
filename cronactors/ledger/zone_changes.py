"""Next moments computed anew once the rules of time zones, or our reading of expressions, are of a newer release.

The file keeps the newest release that a scheduler has used (`meta`), and each job the one by which its next moment was computed. The
first scheduler with a newer release notes when that was; from then on jobs are brought up to date page by page, and a job that comes
due first is brought up to date by its claim. What was due before the change stays due. A scheduler with older rules than the file's
leaves all next moments as they are.
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
        before: The release before; None: there was none.
    """

    rules: str
    since: Millis
    done: bool
    before: str | None


def note_rules(storage: Storage) -> RulesOfFile:
    """Note the rules of this process, unless the file has newer ones, and give those that the file has now."""
    found = _rules_of(storage)
    if found is None or is_older(found.rules):
        found = RulesOfFile(RULES, storage.now(), done=False, before=None if found is None else found.rules)
        _write(storage, found)
    return found


def note_older_rules(storage: Storage) -> None:
    """Note that this process computes next moments: by older rules than the file's, the next start with newer ones does so anew."""
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
    except (TypeError, ValueError):  # damaged, or of a later release that notes more: noted anew
        return None


def _write(storage: Storage, rules: RulesOfFile) -> None:
    storage.set_meta(_FACT, json.dumps(attrs.asdict(rules)))


def recompute_page(storage: Storage, *, after: int, limit: int) -> tuple[int | None, int]:
    """Bring one page of jobs up to date.

    Args:
        storage: Inside a transaction.
        after: 0, or where the page before ended.
        limit: How many jobs a page has.

    Returns:
        Where the next page begins, None after the last one; and how many next moments have moved.
    """
    rules = note_rules(storage)
    page = storage.list_jobs(after=after, limit=limit, user_id=None)
    moved = sum(_recomputed(storage, job, rules).next_run_at != job.next_run_at for _, job in page if is_older(job.rules))
    if len(page) == limit:
        return page[-1][0], moved
    if rules.rules == RULES:
        _write(storage, attrs.evolve(rules, done=True))
    return None, moved


def recomputed(storage: Storage, job: JobRow) -> JobRow:
    """Bring a job of other rules up to date, and give it as it is now. One that cannot be read is left alone.

    A process with older rules than the file's keeps the next moment, and marks the job: what this process computes for it is computed
    anew by the next start with newer rules.
    """
    return _recomputed(storage, job, note_rules(storage))


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
        except (InvalidSchedule, ValueError, OverflowError):  # the schedule, or a number that is no time
            return job
        if new != found:
            job = job._replace(next_run_at=new.at, decided_local=new.decided_local)
            storage.update_job_states([JobState.of(job)])
    storage.set_rules([job.id], rules=RULES)
    return job._replace(rules=RULES)
