"""Makes the values that users see of rows. A damaged value is replaced and reported, so that it never hides the other rows of a page."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from datetime import datetime
from enum import StrEnum
from typing import TypeVar

import attrs

from cronactors import checks
from cronactors.errors import CronError, InvalidJob
from cronactors.instants import EARLIEST, Millis, from_millis
from cronactors.job_data import data_from_column
from cronactors.json_value import JsonText
from cronactors.ledger.job_fields import attributes_of_row, options_from_column
from cronactors.ledger.stored_values import is_time, schedule_of, unreadable
from cronactors.model import Cause, CronJob, CronRun, JobContext, Pause, RunStatus, SessionMode, Trigger
from cronactors.notifications import Notification, NotificationStatus
from cronactors.schedules.schedule import OneShot
from cronactors.storage.notifications import NotificationRow
from cronactors.storage.pauses import PauseRow
from cronactors.storage.protocol import Storage
from cronactors.storage.rows import Claimed, JobRow, RunRow

_T = TypeVar("_T")
_V = TypeVar("_V")
_E = TypeVar("_E", bound=StrEnum)


_make_job: Callable[..., CronJob] = CronJob  # the fields that users set come by name, from the table


class _Reader:
    """Reads stored values one by one: one that cannot be read is replaced, and its error collected in ``faults``."""

    def __init__(self) -> None:
        self.faults: list[CronError] = []

    def read(self, read: Callable[[_V], _T], value: _V, instead: _T) -> _T:
        try:
            return read(value)
        except CronError as error:
            self.faults.append(error)
        return instead

    def member(self, field: str, kind: type[_E], value: str, instead: _E) -> _E:
        try:
            return kind(value)
        except ValueError:  # the check words the error
            return self.read(lambda text: checks.member(field, text, InvalidJob, kind), value, instead)

    def instant(self, field: str, value: Millis) -> datetime:
        if is_time(value):
            return from_millis(value)
        self.faults.append(InvalidJob(f"{field} {value} is out of range"))
        return from_millis(EARLIEST)

    def optional_instant(self, field: str, value: Millis | None) -> datetime | None:
        return None if value is None else self.instant(field, value)


def _read_job(job: JobRow, open_runs: Iterable[RunRow], paused: PauseRow | None = None) -> tuple[CronJob, list[CronError]]:
    """Make the job that users see, and the errors of values that cannot be read."""
    reader = _Reader()
    attempts = [run for run in open_runs if run.job_id == job.id and run.attempt > 1] if open_runs else ()
    retries = [run.ready_at for run in attempts if run.status == RunStatus.PENDING] if attempts else ()
    created_at = reader.instant("created_at", job.created_at)
    schedule = reader.read(schedule_of, job, None) or OneShot(created_at)
    is_done = job.next_run_at is None and not open_runs
    view = _make_job(
        id=job.id,
        schedule=schedule,
        enabled=bool(job.enabled),
        created_at=created_at,
        last_run_at=reader.optional_instant("last_run_at", job.last_run_at),
        next_run_at=reader.optional_instant("next_run_at", job.next_run_at if job.enabled else None),
        retry_count=max((run.failures for run in attempts), default=0) if attempts else 0,
        last_error=job.last_error,
        retry_at=reader.instant("ready_at", min(retries)) if retries else None,
        origin=job.origin,
        pause=None if paused is None or is_done or job.enabled or paused.resumed_at is not None else pause_view(paused, reader),
        **attributes_of_row(job, reader.read),
    )
    if reader.faults:
        view = attrs.evolve(view, last_error=unreadable(reader.faults[0]))
    return view, reader.faults


def pause_view(row: PauseRow, reader: _Reader | None = None) -> Pause:
    """Make the `Pause` of a row."""
    reader = reader or _Reader()
    return Pause(
        since=reader.instant("paused_at", row.paused_at),
        until=reader.optional_instant("until_at", row.until_at),
        ended=reader.optional_instant("resumed_at", row.resumed_at),
        note=row.note,
    )


def job_view(job: JobRow, open_runs: Iterable[RunRow], paused: PauseRow | None = None) -> CronJob:
    """Make the `CronJob` of a job, of its open runs, which show its retries, and of its last pause.

    Its ``last_error`` names a value that cannot be read.
    """
    return _read_job(job, open_runs, paused)[0]


def faults_of_job(job: JobRow) -> list[CronError]:
    """Return the errors of a job's values that cannot be read, also of those that only its runs read."""
    return _read_job(job, ())[1] + _faults_of_json(options_from_column(job.executor_options), data_from_column(job.data))


def _faults_of_json(*values: JsonText) -> list[CronError]:
    reader = _Reader()
    for value in values:
        reader.read(lambda json: json.read(), value, None)
    return reader.faults


def job_views(storage: Storage, jobs: Iterable[JobRow], *, idle: Collection[str] = ()) -> list[CronJob]:
    """Read the open runs of jobs, but of those that have none, and make their `CronJob`."""
    rows = list(jobs)
    busy = [job.id for job in rows if job.id not in idle]
    open_runs = by_job(storage.open_runs(busy)) if busy else {}
    pauses = storage.pauses.of([job.id for job in rows if not job.enabled])
    return [job_view(job, open_runs.get(job.id, ()), pauses.get(job.id)) for job in rows]


def read_job_view(storage: Storage, job: JobRow) -> CronJob:
    """Read the open runs of a job, and make its `CronJob`."""
    return job_views(storage, [job])[0]


def by_job(runs: Iterable[RunRow]) -> dict[str, list[RunRow]]:
    """Group runs by job."""
    found: dict[str, list[RunRow]] = {}
    for run in runs:
        found.setdefault(run.job_id, []).append(run)
    return found


def _read_run(run: RunRow) -> tuple[CronRun, list[CronError]]:
    """Make the run that users see, and the errors of values that cannot be read."""
    reader = _Reader()
    view = CronRun(
        id=str(run.id),
        job_id=run.job_id,
        job_name=run.job_name,
        user_id=run.user_id or None,
        scheduled_at=reader.instant("scheduled_at", run.scheduled_at),
        attempt=run.attempt,
        trigger=reader.member("trigger", Trigger, run.trigger, Trigger.SCHEDULE),
        started_at=reader.optional_instant("started_at", run.started_at),
        completed_at=reader.optional_instant("completed_at", run.completed_at),
        status=reader.member("status", RunStatus, run.status, RunStatus.FAILED),
        cause=None if run.cause is None else reader.member("cause", Cause, run.cause, Cause.ERROR),
        result_summary=run.result,
        error=run.error,
        session_id=run.session_id,
        coalesced=run.coalesced,
        result_data=data_from_column(run.result_data, "result_data"),
    )
    if reader.faults:
        view = attrs.evolve(view, error=f"its stored record cannot be read: {reader.faults[0]}")
    return view, reader.faults


def run_view(run: RunRow) -> CronRun:
    """Make the `CronRun` of a run. Its ``error`` names a value that cannot be read; an unknown status is shown as failed, never success."""
    return _read_run(run)[0]


def faults_of_run(run: RunRow) -> list[CronError]:
    """Return the errors of a run's values that cannot be read."""
    return _read_run(run)[1] + _faults_of_json(data_from_column(run.result_data, "result_data"))


def notification_view(row: NotificationRow) -> Notification:
    """Make the `Notification` of a row; an unknown status is shown as given up."""
    reader = _Reader()
    waits = row.status == NotificationStatus.PENDING and row.attempts > 0
    view = Notification(
        key=row.event_key,
        receiver=row.receiver,
        job_id=row.job_id,
        run_id=None if row.run_id is None else str(row.run_id),
        created_at=reader.instant("created_at", row.created_at),
        status=reader.member("status", NotificationStatus, row.status, NotificationStatus.GIVEN_UP),
        attempts=row.attempts,
        retry_at=reader.optional_instant("ready_at", row.ready_at if waits else None),
        error=row.error,
    )
    if reader.faults:
        view = attrs.evolve(view, error=f"its stored row cannot be read: {reader.faults[0]}")
    return view


def context_of(claimed: Claimed) -> JobContext:
    """Make the context that the executor of a run is called with."""
    run, job = claimed.run, claimed.job
    return JobContext(
        prompt=job.prompt,
        session_mode=SessionMode(job.session_mode),  # the claim has checked it
        job_name=job.name,
        job_id=job.id,
        user_id=job.user_id or None,
        run_id=str(run.id),
        scheduled_at=_Reader().instant("scheduled_at", run.scheduled_at),
        attempt=run.attempt,
        executor_options=options_from_column(job.executor_options),
        data=data_from_column(job.data if claimed.request_data is None else claimed.request_data),
    )
