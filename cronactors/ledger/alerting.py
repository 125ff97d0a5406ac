"""Finds alerts, and writes each of them once. Runs on the storage thread.

An alert is a notification for the receiver ``on_alert``. It is written in the transaction that finds it, so it is lost no more than the
finish or the claim that it is about, and never changes what they decide. Nothing is written while no scheduler has that receiver.
Every function here begins with rows that its caller has read anyway: where there is nothing to report, a run costs nothing more.

FAILING and OVERDUE last for a while, and are found again and again; so the table alert_episodes holds the last alert of each until the
episode is over. All other kinds are events. One transaction decides them, and their key refuses a second one.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import attrs

from cronactors.alerts import AlertKind
from cronactors.instants import Millis
from cronactors.ledger import alert_texts
from cronactors.ledger.alert_texts import FIRST_FAILURES, FoundAlert, failures_alerted, notification_of
from cronactors.ledger.owners import receivers, running_since
from cronactors.ledger.stored_values import is_time, stored_timing
from cronactors.model import Cause, RunStatus
from cronactors.notifications import ON_ALERT
from cronactors.policy import Moments
from cronactors.schedules.schedule import OneShot
from cronactors.storage.notifications import ANY_OWNER, EpisodeRow
from cronactors.storage.protocol import Storage
from cronactors.storage.rows import JobRow, OverdueMoment, RunRow

MOST_OVERDUE = 1_000
"""How many due moments one check reads; the next check continues behind them."""

_MOST_READ = 100
_FAILED = (Cause.ERROR, Cause.TIMEOUT, Cause.GAVE_UP)


def _wanted_by(storage: Storage, owner: int | None) -> set[int]:
    """Return the schedulers with the receiver of alerts; ``owner`` is the one whose transaction it is."""
    return receivers(storage, () if owner is None else (owner,)).get(ON_ALERT, set())


def report(storage: Storage, found: Sequence[FoundAlert], *, owner: int | None = None) -> None:
    """Write alerts, if they are wanted.

    Args:
        storage: Inside the transaction that has found them.
        found: The alerts.
        owner: The scheduler whose transaction it is, which delivers them if it has the receiver; None: that is not known.
    """
    if not found:
        return
    wanted_by = _wanted_by(storage, owner)
    if wanted_by:
        now, deliverer = storage.now(), owner if owner in wanted_by else None
        storage.notifications.insert([notification_of(alert, now=now, owner=deliverer or ANY_OWNER) for alert in found])


def _store_episodes(storage: Storage, found: Sequence[FoundAlert]) -> None:
    """Store the episodes that alerts are about."""
    now = storage.now()
    storage.notifications.store_episodes([EpisodeRow(alert.job_id, alert.kind, alert.since, now, alert.count) for alert in found])


# Failures


@attrs.frozen
class FinishedRun:
    """A run that has just finished.

    Attributes:
        job: The job before that.
        run: The run.
        failures: How many runs of the job have failed in a row by now.
    """

    job: JobRow
    run: RunRow
    failures: int


def report_failures(storage: Storage, finished: Iterable[FinishedRun], *, owner: int | None) -> None:
    """Report jobs that have failed several times in a row, and those that succeed again after that was reported.

    The count grows by one run at a time, but the receiver of alerts may come later: so there is an alert as soon as the highest
    number that was reached is above that of the last alert.
    """
    failed, recovered = [], []
    for each in finished:
        if each.failures > max(each.job.consecutive_failures, FIRST_FAILURES - 1):
            failed.append(each)
        elif each.failures == 0 and each.job.consecutive_failures >= FIRST_FAILURES:
            recovered.append(each)
    if not (failed or recovered):
        return
    now = storage.now()
    episodes = storage.notifications.episodes([each.job.id for each in failed + recovered], AlertKind.FAILING)
    over = [each for each in recovered if each.job.id in episodes]
    storage.notifications.end_episodes([each.job.id for each in over], AlertKind.FAILING)
    found = [alert_texts.recovered(each.job, each.run, failures=each.job.consecutive_failures, now=now) for each in over]
    if failed and _wanted_by(storage, owner):
        failing = [alert for each in failed if (alert := _failing(storage, each, episodes.get(each.job.id))) is not None]
        _store_episodes(storage, failing)
        found += failing
    report(storage, found, owner=owner)


def _failing(storage: Storage, each: FinishedRun, episode: EpisodeRow | None) -> FoundAlert | None:
    if episode is not None and failures_alerted(each.failures) <= episode.alerted_count:
        return None
    since = episode.since if episode is not None and is_time(episode.since) else _first_failure(storage, each)
    return alert_texts.failing(each.job, each.run, failures=each.failures, since=since)


def _first_failure(storage: Storage, each: FinishedRun) -> Millis:
    """Return when the first of the failures in a row had finished, as far as the newest runs of the job show it."""
    since = storage.now()
    for run in storage.list_runs(job_id=each.job.id, before=None, limit=_MOST_READ):
        if run.status == RunStatus.SUCCESS:
            break
        if run.cause in _FAILED and run.completed_at is not None and is_time(run.completed_at):
            since = min(since, run.completed_at)
    return since


# Moments


@attrs.frozen
class DecidedMoments:
    """Moments of a job that have just been decided.

    Attributes:
        job: The job.
        runs: The moments of each run.
        skipped: The moments that are skipped.
    """

    job: JobRow
    runs: Sequence[Moments]
    skipped: Sequence[Moments]

    @classmethod
    def of_rows(cls, job: JobRow, rows: Iterable[RunRow]) -> DecidedMoments:
        """Return the moments for which new rows are inserted; a retry's are none."""
        runs: list[Moments] = []
        skipped: list[Moments] = []
        for row in rows:
            if row.attempt == 1:
                found = skipped if row.status == RunStatus.SKIPPED else runs
                found.append(Moments(row.scheduled_at, row.coalesced, row.range_at))
        return cls(job, runs, skipped)

    @property
    def are_lost(self) -> bool:
        """Whether there are moments without a run of their own."""
        return bool(self.skipped) or any(moments.count > 1 for moments in self.runs)


def report_missed(storage: Storage, decided: Iterable[DecidedMoments], *, owner: int | None = None) -> None:
    """Report moments that came due before a scheduler was running again, and do not have a run of their own; see `report`."""
    lost = [each for each in decided if each.are_lost]
    since = running_since(storage) if lost else None
    if since is None or since > storage.now():  # the clock was set back since
        return
    report(storage, [alert for each in lost if (alert := _missed(each, since)) is not None], owner=owner)


def _missed(decided: DecidedMoments, since: Millis) -> FoundAlert | None:
    """Make the alert of the moments that are before ``since``; None if there are none."""
    timing = stored_timing(decided.job)
    merged = [moments.by_first for moments in decided.runs if moments.count > 1]
    skipped = [moments.by_first for moments in decided.skipped]
    before = [moments for moments in merged + skipped if moments.at < since]
    if timing is None or not before:
        return None
    first = min(moments.at for moments in before)
    last = max(min(moments.range_at or moments.at, timing.until(since - 1) or first) for moments in before)
    counts = [timing.count(moments.at, min(moments.range_at or moments.at, since - 1)) for moments in before]
    skipped_count = sum(count for moments, count in zip(before, counts, strict=True) if moments in skipped)
    return alert_texts.missed(decided.job, first=first, last=last, moments=sum(counts), skipped=skipped_count)


def report_ended(storage: Storage, job: JobRow, *, owner: int | None) -> None:
    """Report that a job has no more moments, unless its schedule is one moment; see `report`."""
    timing = stored_timing(job)
    if timing is not None and not isinstance(timing.schedule, OneShot):
        report(storage, [alert_texts.ended(job, now=storage.now())], owner=owner)


@attrs.frozen
class OverdueJobs:
    """Jobs that a check has found overdue, and of which there was no alert yet.

    Attributes:
        ids: The jobs.
        after: Where the next check continues; None: at the first due moment.
    """

    ids: tuple[str, ...]
    after: OverdueMoment | None


def find_overdue(storage: Storage, *, overdue_after: Millis, after: OverdueMoment | None) -> OverdueJobs:
    """Return jobs with a moment that has been due for ``overdue_after`` (ms), unless an open run of the job holds it or there was an alert.

    The time before a scheduler was running does not count.

    Args:
        storage: Inside a transaction.
        overdue_after: How long (ms) a moment is due.
        after: `OverdueJobs.after` of the check before.
    """
    until = storage.now() - overdue_after
    since = running_since(storage)
    if since is not None and until < since <= storage.now():
        return OverdueJobs((), None)
    moments = storage.overdue(until=until, after=after, limit=MOST_OVERDUE)
    episodes = storage.notifications.episodes([moment.job_id for moment in moments], AlertKind.OVERDUE)
    ids = [moment.job_id for moment in moments if not _was_alerted(episodes, moment.job_id, moment.at)]
    return OverdueJobs(tuple(ids), moments[-1] if len(moments) == MOST_OVERDUE else None)


def _was_alerted(episodes: Mapping[str, EpisodeRow], job_id: str, moment: Millis) -> bool:
    return job_id in episodes and episodes[job_id].since == moment


def report_overdue(storage: Storage, ids: Sequence[str], *, overdue_after: Millis, owner: int | None = None) -> None:
    """Report jobs that a check has found, if they are still overdue and there was no alert meanwhile; see `report`."""
    if not _wanted_by(storage, owner):
        return
    now = storage.now()
    episodes = storage.notifications.episodes(ids, AlertKind.OVERDUE)
    found = []
    for job in storage.jobs(ids).values():
        moment = job.next_run_at
        if moment is None or moment > now - overdue_after or not is_time(moment) or not job.enabled or job.held_by is not None:
            continue
        if not _was_alerted(episodes, job.id, moment):
            timing = stored_timing(job)
            moments = 1 if timing is None else max(1, timing.count(moment, now))
            found.append(alert_texts.overdue(job, moment=moment, moments=moments, now=now))
    _store_episodes(storage, found)
    report(storage, found, owner=owner)


# Runs


@attrs.frozen
class StuckRun:
    """A run that is still running although it was cancelled.

    Attributes:
        run_id: The run.
        cause: Why it was cancelled.
        cancelled_for: How long ago (ms).
    """

    run_id: int
    cause: Cause
    cancelled_for: Millis


def report_stuck(storage: Storage, stuck: Sequence[StuckRun]) -> None:
    """Report runs that are still running although they were cancelled."""
    now = storage.now()
    runs = storage.runs([each.run_id for each in stuck])
    jobs = storage.jobs([run.job_id for run in runs.values()])
    found = []
    for each in stuck:
        run = runs.get(each.run_id)
        job = None if run is None else jobs.get(run.job_id)
        if run is not None and job is not None and run.status == RunStatus.RUNNING:
            found.append(alert_texts.stuck(job, run, cause=each.cause, since=now - each.cancelled_for, now=now))
    report(storage, found, owner=next((run.owner for run in runs.values()), None))
