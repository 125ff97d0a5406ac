"""Jobs and runs in words, for people at a terminal."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from functools import lru_cache

from cronactors import now
from cronactors.errors import InvalidSchedule, one_line
from cronactors.model import CronJob, CronRun, Pause
from cronactors.schedules.fire_times import next_run
from cronactors.schedules.schedule import Cron, Interval, OneShot, Schedule
from cronactors.schedules.zones import is_zone, load_zone

_HOUR = 3_600_000


def next_time(job: CronJob) -> datetime | None:
    """Return when a job starts next: its retry or its next moment, whichever is earlier."""
    if job.retry_at is None:
        return job.next_run_at
    return job.retry_at if job.next_run_at is None else min(job.next_run_at, job.retry_at)


def sort_by_next_time(jobs: Iterable[CronJob]) -> list[CronJob]:
    """Sort jobs, the next to start first, those without a next time last."""

    def place(job: CronJob) -> tuple[bool, datetime, str]:
        moment = next_time(job)
        return moment is None, moment or job.created_at, job.name

    return sorted(jobs, key=place)


def next_start(job: CronJob, present: datetime) -> str:
    """Describe when a job starts next: ``next ...``, or ``due since ...`` for a moment that has passed."""
    moment = next_time(job)
    if moment is None:
        return f"no next time: {state(job)}"
    return f"{'next' if moment > present else 'due since'} {local_time(moment, job.timezone)}"


def local_time(moment: datetime | None, zone: str) -> str:
    """Write a time as the clocks of a zone show it; "-" for None."""
    if moment is None:
        return "-"
    known = load_zone(zone) if is_zone(zone) else UTC  # a damaged file may name no zone; `last_error` says so
    local = moment.astimezone(known)
    return f"{local.isoformat(' ')[:19]} {local.tzname()}"  # strftime takes four times as long


def first_line(text: str | None, limit: int = 200) -> str:
    """Return the first line that is not empty, with control characters escaped."""
    if not text:
        return ""
    return one_line(next((line for line in text[:10_000].splitlines() if line.strip()), ""), limit)


def schedule(job: CronJob) -> str:
    """Describe the schedule of a job."""
    return _schedule_in(job.schedule, job.timezone)


@lru_cache(maxsize=1024)
def _schedule_in(schedule: Schedule, zone: str) -> str:
    match schedule:
        case Cron(expr):
            return expr
        case Interval(every_ms):
            return f"every {every_ms / _HOUR:,g} h" if every_ms >= _HOUR else f"every {every_ms / 1000:,g} s"
        case OneShot(at):
            return f"once, {_one_shot_time(at, zone)}"


def _one_shot_time(at: str, zone: str) -> str:
    """Show the time of a one-shot in the zone of its job; text without an offset is in that zone already."""
    try:
        moment = datetime.fromisoformat(at)
    except ValueError:
        return at
    return at if moment.tzinfo is None else local_time(moment, zone)


def state(job: CronJob) -> str:
    """Return enabled, retrying, paused or done."""
    if not job.enabled:
        return "done" if isinstance(job.schedule, OneShot) and (job.last_run_at or _has_passed(job)) else "paused"
    return "retrying" if job.retry_at else "enabled"


def until(pause: Pause | None, zone: str) -> str:
    """Describe until when a pause lasts, to be written after the state of its job; "" if it has no end, or there is none."""
    return "" if pause is None or pause.until is None else f" until {local_time(pause.until, zone)}"


def note(pause: Pause | None) -> str:
    """Write the note of a pause in brackets; "" if it has none, or there is none."""
    return f" ({first_line(pause.note)})" if pause is not None and pause.note else ""


def pause(job: CronJob) -> str:
    """Describe until when and why a paused job is paused, to be written after its state; "" if there is nothing to say."""
    return until(job.pause, job.timezone) + note(job.pause)


def _has_passed(job: CronJob) -> bool:
    """Whether the time of a one-shot has passed."""
    try:
        return job.retry_at is None and next_run(job.schedule, after=now(), timezone=job.timezone) is None
    except InvalidSchedule:
        return False


def status(run: CronRun) -> str:
    """Return the status of a run, with its cause if it has one, such as failed/timeout."""
    return run.status if run.cause is None else f"{run.status}/{run.cause}"


def duration(run: CronRun) -> str:
    """Describe how long a run took; "" until it has finished."""
    if run.started_at is None or run.completed_at is None:
        return ""
    return f"{(run.completed_at - run.started_at).total_seconds():.2f} s"


def result(run: CronRun) -> str:
    """Return the first line of a run's error or result, and how many moments it stands for if it is several."""
    line = first_line(run.error) or first_line(run.result_summary)
    return f"{line} (stands for {run.coalesced:,} moments)".lstrip() if run.coalesced > 1 else line


def printable_lines(text: str) -> list[str]:
    """Split text into lines, with control characters escaped: a result or an output must not control the terminal."""
    return ["".join(_printable(character) for character in line) for line in text.splitlines()]


def _printable(character: str) -> str:
    if character == "\t":
        return "    "
    return character if character.isprintable() else ascii(character)[1:-1]
