"""Rows as the values that users see."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import datetime
from enum import StrEnum
from typing import TypeVar

import attrs

from cronactors import checks
from cronactors.errors import CronError, InvalidJob
from cronactors.instants import EARLIEST, Millis, from_millis
from cronactors.ledger.stored_values import is_time, options_of, schedule_of, unreadable
from cronactors.model import Cause, CronJob, CronRun, JobContext, Misfire, Overlap, RunStatus, SessionMode, Trigger
from cronactors.policy import misfire_from_text
from cronactors.schedules.schedule import OneShot, Schedule
from cronactors.storage.protocol import Storage
from cronactors.storage.rows import JobRow, RunRow

_T = TypeVar("_T")


_V = TypeVar("_V")


_E = TypeVar("_E", bound=StrEnum)


class _Reader:
    """Reads stored values one by one: one that cannot be read is replaced, and noted. So a row never hides the others of its page."""

    def __init__(self) -> None:
        self.faults: list[CronError] = []

    def read(self, read: Callable[[_V], _T], value: _V, instead: _T) -> _T:
        try:
            return read(value)
        except CronError as error:
            self.faults.append(error)
        return instead

    def member(self, field: str, kind: type[_E], value: str, instead: _E) -> _E:
        return self.read(lambda text: checks.member(field, text, InvalidJob, kind), value, instead)

    def instant(self, field: str, value: Millis) -> datetime:
        if is_time(value):
            return from_millis(value)
        self.faults.append(InvalidJob(f"{field} {value} is out of range"))
        return from_millis(EARLIEST)

    def optional_instant(self, field: str, value: Millis | None) -> datetime | None:
        return None if value is None else self.instant(field, value)


def _read_job(job: JobRow, open_runs: Iterable[RunRow]) -> tuple[CronJob, list[CronError]]:
    """A job as users see it, and what of it cannot be read."""
    reader = _Reader()
    attempts = [run for run in open_runs if run.job_id == job.id and run.attempt > 1]
    retries = [run.ready_at for run in attempts if run.status == RunStatus.PENDING]
    created_at = reader.instant("created_at", job.created_at)
    unknown: Schedule = OneShot(created_at)
    schedule = reader.read(schedule_of, job, unknown)
    view = CronJob(
        id=job.id,
        name=job.name,
        prompt=job.prompt,
        schedule=schedule,
        timezone=job.timezone,
        enabled=bool(job.enabled),
        delete_after_run=bool(job.delete_after_run),
        created_at=created_at,
        last_run_at=reader.optional_instant("last_run_at", job.last_run_at),
        next_run_at=reader.optional_instant("next_run_at", job.next_run_at if job.enabled else None),
        retry_count=max((run.failures for run in attempts), default=0),
        max_retries=job.max_retries,
        last_error=job.last_error,
        retry_at=reader.instant("ready_at", min(retries)) if retries else None,
        timeout_secs=job.timeout_secs,
        session_mode=reader.member("session_mode", SessionMode, job.session_mode, SessionMode.ISOLATED),
        user_id=job.user_id or None,
        overlap=reader.member("overlap", Overlap, job.overlap, Overlap.SKIP),
        misfire=reader.read(misfire_from_text, job.misfire, Misfire()),
        executor_options=options_of(job),
    )
    if reader.faults:
        view = attrs.evolve(view, last_error=unreadable(reader.faults[0]))
    return view, reader.faults


def job_view(job: JobRow, open_runs: Iterable[RunRow]) -> CronJob:
    """A job with what its open runs say of retries. If something of it cannot be read its ``last_error`` says so."""
    return _read_job(job, open_runs)[0]


def faults_of_job(job: JobRow) -> list[CronError]:
    """What of a job cannot be read."""
    return _read_job(job, ())[1]


def job_views(storage: Storage, jobs: Iterable[JobRow]) -> list[CronJob]:
    """Jobs with what their open runs say of retries."""
    rows = list(jobs)
    opened = by_job(storage.open_runs([job.id for job in rows]))
    return [job_view(job, opened.get(job.id, ())) for job in rows]


def by_job(runs: Iterable[RunRow]) -> dict[str, list[RunRow]]:
    """Runs sorted into those of each job."""
    found: dict[str, list[RunRow]] = {}
    for run in runs:
        found.setdefault(run.job_id, []).append(run)
    return found


def _read_run(run: RunRow) -> tuple[CronRun, list[CronError]]:
    """A run as users see it, and what of it cannot be read."""
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
    )
    if reader.faults:
        view = attrs.evolve(view, error=f"its stored record cannot be read: {reader.faults[0]}")
    return view, reader.faults


def run_view(run: RunRow) -> CronRun:
    """A run. If something of it cannot be read its ``error`` says so; an unknown status shows as failed, never as success."""
    return _read_run(run)[0]


def faults_of_run(run: RunRow) -> list[CronError]:
    """What of a run cannot be read."""
    return _read_run(run)[1]


def context_of(run: RunRow, job: JobRow) -> JobContext:
    """What the executor of a run is told."""
    return JobContext(
        prompt=job.prompt,
        session_mode=SessionMode(job.session_mode),  # the claim has checked it
        job_name=job.name,
        job_id=job.id,
        user_id=job.user_id or None,
        run_id=str(run.id),
        scheduled_at=_Reader().instant("scheduled_at", run.scheduled_at),
        attempt=run.attempt,
        executor_options=options_of(job),
    )
