"""Alerts as they are stored: the condition of each kind, its stable key and its text. Pure.

`cronactors.ledger.alerting` finds them in the storage.
"""

from __future__ import annotations

from typing import Final

import attrs

from cronactors.alerts import Alert, AlertKind
from cronactors.errors import shorten
from cronactors.instants import Millis, from_millis, iso_utc
from cronactors.ledger.notification_columns import alert_to_column
from cronactors.model import MAX_COALESCED, Cause
from cronactors.notifications import ON_ALERT
from cronactors.storage.notifications import NotificationRow
from cronactors.storage.rows import JobRow, RunRow

FIRST_FAILURES: Final = 3
"""How many failures in a row are an alert; the next ones are at 10, 30, 100 and so on."""


@attrs.frozen
class FoundAlert:
    """An alert that was found, and the parts of its key.

    Attributes:
        job_id: The job.
        kind: What it is about.
        about: The run or the instant by which it differs from other alerts of its kind and job.
        since: Since when that is so.
        count: How many runs or moments it is about.
        text: A sentence for people.
    """

    job_id: str
    kind: AlertKind
    about: int
    since: Millis
    count: int
    text: str

    @property
    def key(self) -> str:
        """The stable key: the same alert, found a second time, has the same one."""
        return f"{self.kind}:{self.about}" if self.kind is AlertKind.STUCK else f"{self.kind}:{self.job_id}:{self.about}"


def notification_of(alert: FoundAlert, *, now: Millis, owner: int) -> NotificationRow:
    """Make the row that delivers an alert; 0: by any scheduler that has the receiver."""
    return NotificationRow(
        id=0,
        key=alert.key,
        run_id=None,
        receiver=ON_ALERT,
        job_id=alert.job_id,
        created_at=now,
        owner=owner,
        alert=alert_to_column(Alert(kind=alert.kind, since=from_millis(alert.since), count=alert.count, text=alert.text)),
    )


def failures_alerted(failures: int) -> int:
    """Return the highest number of failures in a row, not above this one, at which there is an alert: 3, 10, 30, 100, ...; or 0."""
    if failures < FIRST_FAILURES:
        return 0
    power: int = 10 ** (len(str(failures)) - 1)
    return FIRST_FAILURES * power if failures >= FIRST_FAILURES * power else power


# One function for each kind


def failing(job: JobRow, run: RunRow, *, failures: int, since: Millis) -> FoundAlert:
    """Make the alert of a job whose runs have failed several times in a row.

    Args:
        job: The job.
        run: The run that failed last.
        failures: How many have failed in a row.
        since: When the first of them had failed.
    """
    text = f"{_job(job)} has failed {_times(failures)} in a row, since {_utc(since)}"
    return FoundAlert(job.id, AlertKind.FAILING, run.id, since, failures, text)


def recovered(job: JobRow, run: RunRow, *, failures: int, now: Millis) -> FoundAlert:
    """Make the alert of a job that has succeeded after so many failures in a row."""
    text = f"{_job(job)} has succeeded again, after it had failed {_times(failures)} in a row"
    return FoundAlert(job.id, AlertKind.RECOVERED, run.id, now, failures, text)


def overdue(job: JobRow, *, moment: Millis, moments: int, now: Millis) -> FoundAlert:
    """Make the alert of a job whose moment is due and does not start.

    Args:
        job: The job.
        moment: Its first moment that is due.
        moments: How many are.
        now: The time.
    """
    more = "" if moments == 1 else f"; {_many(moments)} moments are due by now"
    text = f"{_job(job)} was due at {_utc(moment)}, {_duration(now - moment)} ago, and has not started{more}"
    return FoundAlert(job.id, AlertKind.OVERDUE, moment, moment, moments, text)


def stuck(job: JobRow, run: RunRow, *, cause: Cause, since: Millis, now: Millis) -> FoundAlert:
    """Make the alert of a run that is still running although it was cancelled."""
    text = f"run {run.id} of {_job(job)} is still running, {_duration(now - since)} after it was cancelled ({cause})"
    return FoundAlert(job.id, AlertKind.STUCK, run.id, since, 1, text)


def missed(job: JobRow, *, first: Millis, last: Millis, moments: int, skipped: int) -> FoundAlert:
    """Make the alert of moments that came due while no scheduler was running, and were merged or skipped.

    Args:
        job: The job.
        first: The first of them.
        last: The last of them.
        moments: How many there are.
        skipped: How many of them were skipped.
    """
    fate = {0: "merged into later runs", moments: "skipped"}.get(skipped, f"merged into later runs or skipped ({skipped:,})")
    span = f"at {_utc(first)}" if first == last else f"from {_utc(first)} to {_utc(last)}"
    were = "moment was" if moments == 1 else "moments were"
    text = f"{_job(job)}: no scheduler was running {span}, and {_many(moments)} {were} {fate}"
    return FoundAlert(job.id, AlertKind.MISSED, first, first, moments, text)


def paused_by_crashes(job: JobRow, *, now: Millis) -> FoundAlert:
    """Make the alert of a job that was paused because its process ended during each of its last runs."""
    text = f"{_job(job)} was paused: its process ended during its last {job.crashes:,} runs"
    return FoundAlert(job.id, AlertKind.PAUSED, now, now, job.crashes, text)


def paused_as_unreadable(job: JobRow, *, why: str, now: Millis) -> FoundAlert:
    """Make the alert of a job that was paused because its schedule or its policies cannot be read."""
    return FoundAlert(job.id, AlertKind.PAUSED, now, now, 1, f"{_job(job)} was paused: {why}")


def ended(job: JobRow, *, now: Millis) -> FoundAlert:
    """Make the alert of a job whose schedule has no more moments."""
    return FoundAlert(job.id, AlertKind.ENDED, job.anchor_at, now, 0, f"the schedule of {_job(job)} has no more moments")


def _job(job: JobRow) -> str:
    return f"job {shorten(job.name)}"


def _times(count: int) -> str:
    return "once" if count == 1 else f"{count:,} times"


def _many(count: int) -> str:
    return f"{count:,} or more" if count >= MAX_COALESCED else f"{count:,}"


def _utc(instant: Millis) -> str:
    """Write an instant without milliseconds."""
    return iso_utc(instant - instant % 1000, short=True)


def _duration(length: Millis) -> str:
    """Write a length of time in whole units, the largest that has at least two."""
    seconds = max(0, round(length / 1000))
    for name, size in (("days", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds // size:,} {name}"
    return f"{seconds} s"
