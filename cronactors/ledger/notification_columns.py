"""The JSON columns of a notification: the job as the finish left it, a job that was removed, an alert."""

from __future__ import annotations

import json
from typing import cast

import attrs

from cronactors.alerts import Alert, AlertKind
from cronactors.errors import InvalidJob
from cronactors.instants import from_millis, to_millis
from cronactors.json_value import Json
from cronactors.model import CronJob
from cronactors.storage.rows import JobRow

_UNREADABLE = (ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError)
_TIMES = ("last_run_at", "next_run_at", "retry_at")
_STATE = ("enabled", "last_error", "retry_count")


def state_to_column(job: CronJob) -> str:
    """Write the part of a job that its runs change: by the time of the delivery other runs may have changed it."""
    times = {name: getattr(job, name) for name in _TIMES}
    state = {name: getattr(job, name) for name in _STATE}
    return json.dumps(state | {name: None if at is None else to_millis(at) for name, at in times.items()})


def with_state(job: CronJob, column: str) -> CronJob:
    """Return a job in the state that a column holds.

    Raises:
        InvalidJob: It cannot be read.
    """
    try:
        stored: dict[str, Json] = json.loads(column)
        times = {name: None if stored[name] is None else from_millis(cast("int", stored[name])) for name in _TIMES}
        job = attrs.evolve(job, **{name: stored[name] for name in _STATE}, **times)  # type: ignore[arg-type]
        return attrs.evolve(job, pause=None) if job.enabled else job
    except _UNREADABLE:
        raise InvalidJob("job_state of a notification cannot be read") from None


def job_to_column(job: JobRow) -> str:
    """Write a job that is removed before its notifications are delivered, without its data.

    A release that knows no ``listed_enabled`` may read it, and knows all other fields.
    """
    columns = job._replace(data=None)._asdict()
    del columns["listed_enabled"]
    return json.dumps(columns)


def job_from_column(column: str) -> JobRow:
    """Read a job that was removed.

    Raises:
        InvalidJob: It cannot be read.
    """
    try:
        return JobRow(**{"listed_enabled": None, **json.loads(column)})
    except _UNREADABLE:
        raise InvalidJob("job of a notification cannot be read") from None


def alert_to_column(alert: Alert) -> str:
    """Write an alert."""
    return json.dumps({"kind": alert.kind, "since": to_millis(alert.since), "count": alert.count, "text": alert.text})


def alert_from_column(column: str) -> Alert:
    """Read an alert.

    Raises:
        InvalidJob: It cannot be read.
    """
    try:
        stored = json.loads(column)
        return Alert(
            kind=AlertKind(stored["kind"]),
            since=from_millis(stored["since"]),
            count=int(stored["count"]),
            text=str(stored["text"]),
        )
    except _UNREADABLE:
        raise InvalidJob("alert of a notification cannot be read") from None
