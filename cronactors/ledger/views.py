"""Rows as the values that users see."""

from __future__ import annotations

from collections.abc import Iterable

from cronactors.errors import InvalidSchedule
from cronactors.executor_options import NO_OPTIONS, ExecutorOptions
from cronactors.instants import from_millis
from cronactors.model import Cause, CronJob, CronRun, JobContext, Overlap, RunStatus, SessionMode, Trigger
from cronactors.policy import Timing, misfire_from_text
from cronactors.schedule import OneShot, Schedule, schedule_from_json
from cronactors.storage.protocol import Storage
from cronactors.storage.rows import JobRow, RunRow
from cronactors.zones import check_zone


def schedule_of(job: JobRow) -> Schedule:
    """The job's schedule.

    Raises:
        InvalidSchedule: It, or its zone, cannot be read: another version wrote it, or the zone has left the database.
    """
    check_zone(job.timezone)
    return schedule_from_json(job.schedule)


def options_of(job: JobRow) -> ExecutorOptions:
    """The job's options for its executor. They are read when somebody looks at them, so damaged ones fail their own run only."""
    return NO_OPTIONS if job.executor_options == NO_OPTIONS.text else ExecutorOptions(job.executor_options)


def timing_of(job: JobRow) -> Timing:
    """The job's schedule in its zone.

    Raises:
        InvalidSchedule: It, or its zone, cannot be read.
    """
    return Timing(schedule=schedule_of(job), zone=job.timezone, anchor=job.anchor_at)


def unreadable(error: InvalidSchedule) -> str:
    """What `CronJob.last_error` says of a job whose stored schedule cannot be read."""
    return f"its stored schedule cannot be read: {error}"


def job_view(job: JobRow, open_runs: Iterable[RunRow]) -> CronJob:
    """A job with what its open runs say of retries."""
    attempts = [run for run in open_runs if run.job_id == job.id and run.attempt > 1]
    retries = [run.ready_at for run in attempts if run.status == RunStatus.PENDING]
    schedule: Schedule
    try:
        schedule, last_error = schedule_of(job), job.last_error
    except InvalidSchedule as error:  # one such job must not hide all others
        schedule, last_error = OneShot(from_millis(job.created_at)), unreadable(error)
    return CronJob(
        id=job.id,
        name=job.name,
        prompt=job.prompt,
        schedule=schedule,
        timezone=job.timezone,
        enabled=bool(job.enabled),
        delete_after_run=bool(job.delete_after_run),
        created_at=from_millis(job.created_at),
        last_run_at=None if job.last_run_at is None else from_millis(job.last_run_at),
        next_run_at=None if job.next_run_at is None or not job.enabled else from_millis(job.next_run_at),
        retry_count=max((run.failures for run in attempts), default=0),
        max_retries=job.max_retries,
        last_error=last_error,
        retry_at=from_millis(min(retries)) if retries else None,
        timeout_secs=job.timeout_secs,
        session_mode=SessionMode(job.session_mode),
        user_id=job.user_id or None,
        overlap=Overlap(job.overlap),
        misfire=misfire_from_text(job.misfire),
        executor_options=options_of(job),
    )


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


def run_view(run: RunRow) -> CronRun:
    """A run."""
    return CronRun(
        id=str(run.id),
        job_id=run.job_id,
        job_name=run.job_name,
        user_id=run.user_id or None,
        scheduled_at=from_millis(run.scheduled_at),
        attempt=run.attempt,
        trigger=Trigger(run.trigger),
        started_at=None if run.started_at is None else from_millis(run.started_at),
        completed_at=None if run.completed_at is None else from_millis(run.completed_at),
        status=RunStatus(run.status),
        cause=None if run.cause is None else Cause(run.cause),
        result_summary=run.result,
        error=run.error,
        session_id=run.session_id,
        coalesced=run.coalesced,
    )


def context_of(run: RunRow, job: JobRow) -> JobContext:
    """What the executor of a run is told."""
    return JobContext(
        prompt=job.prompt,
        session_mode=SessionMode(job.session_mode),
        job_name=job.name,
        job_id=job.id,
        user_id=job.user_id or None,
        run_id=str(run.id),
        scheduled_at=from_millis(run.scheduled_at),
        attempt=run.attempt,
        executor_options=options_of(job),
    )
