"""Stored values that a decision needs, read from the rows of jobs: schedule, zone, policies, options."""

from __future__ import annotations

from cronactors.errors import CronError, InvalidJob, InvalidSchedule, shorten
from cronactors.executor_options import NO_OPTIONS, ExecutorOptions
from cronactors.instants import EARLIEST, LATEST, Millis
from cronactors.model import Overlap, SessionMode
from cronactors.policy import Timing, misfire_from_text
from cronactors.schedules.schedule import Schedule
from cronactors.schedules.schedule_json import schedule_from_json
from cronactors.schedules.zones import check_zone
from cronactors.storage.rows import JobRow

# A local time of the year 1970 may be an instant of 1969; a retry comes up to a year after its moment.
_FIRST, _LAST = EARLIEST - 86_400_000, LATEST + 366 * 86_400_000


_OVERLAPS = frozenset(Overlap)


_MODES = frozenset(SessionMode)


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


def is_time(instant: Millis) -> bool:
    """Whether a number that is stored can be a moment, or when something happened."""
    return _FIRST <= instant <= _LAST


def check_policies(job: JobRow) -> None:
    """Check that what is stored of a job beside its schedule can be carried out.

    Raises:
        InvalidJob: Its overlap, session mode or misfire policy cannot be read, or its next moment is no time.
    """
    if job.overlap not in _OVERLAPS:
        raise InvalidJob(f"overlap {shorten(job.overlap)} is not known")
    if job.session_mode not in _MODES:
        raise InvalidJob(f"session_mode {shorten(job.session_mode)} is not known")
    if job.next_run_at is not None and not is_time(job.next_run_at):
        raise InvalidJob(f"next_run_at {job.next_run_at} is out of range")
    misfire_from_text(job.misfire)


def has_policies(job: JobRow) -> bool:
    """Whether what is stored of a job beside its schedule can be carried out."""
    try:
        check_policies(job)
    except InvalidJob:
        return False
    return True


def unreadable(error: CronError) -> str:
    """What `CronJob.last_error` says of a job that is stored in a way that cannot be read."""
    return f"its stored {'schedule' if isinstance(error, InvalidSchedule) else 'settings'} cannot be read: {error}"


def stored_schedule(job: JobRow) -> Schedule | None:
    """The job's schedule; None if what is stored cannot be read, which must not stop a run from being ended."""
    timing = stored_timing(job)
    return None if timing is None else timing.schedule


def stored_timing(job: JobRow) -> Timing | None:
    """The job's schedule in its zone; None if what is stored cannot be read."""
    try:
        return timing_of(job)
    except InvalidSchedule:
        return None
