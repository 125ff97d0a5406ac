"""Jobs and runs on the screen, and as JSON."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import TypeAlias

import attrs
from rich.console import Console
from rich.table import Table
from rich.text import Text

from cronactors import now, open_store
from cronactors.cli.printer import say, shown
from cronactors.errors import InvalidSchedule, JobNotFound, one_line, shorten
from cronactors.model import ALL, CronJob, CronRun, RunStatus
from cronactors.schedules.fire_times import next_run
from cronactors.schedules.schedule import Cron, Interval, OneShot
from cronactors.schedules.schedule_json import schedule_to_dict
from cronactors.schedules.zones import is_zone, load_zone

Json: TypeAlias = str | int | float | bool | dict[str, object] | None

STYLES = {RunStatus.SUCCESS: "green", RunStatus.FAILED: "red", RunStatus.RUNNING: "cyan"}
"""Colours of statuses; others are yellow."""
_OLD_RUNS = 1000
_WIDE = 100_000
_HOUR = 3_600_000


async def read_jobs(database: str) -> list[CronJob]:
    """Read all jobs, the next to run first."""
    async with open_store(database, create=False) as store:
        jobs = await store.list_jobs(user_id=ALL)
    return by_next_time(jobs)


def by_next_time(jobs: Iterable[CronJob]) -> list[CronJob]:
    """Sort jobs, the next to run first, those that have no next time last."""
    return sorted(jobs, key=lambda job: (next_time(job) is None, next_time(job) or job.created_at, job.name))


async def read_runs(database: str, name: str, *, user_id: str | None, limit: int) -> tuple[CronJob | None, list[CronRun]]:
    """Read the last runs of a job; if it was removed, those that are among the last thousand of all jobs.

    Raises:
        JobNotFound: There is no such job, and no run of one.
    """
    async with open_store(database, create=False) as store:
        job = await store.get_job_by_name(name, user_id=user_id)
        if job is not None:
            return job, await store.list_runs(job.id, limit)
        runs = [run for run in await store.list_runs(limit=_OLD_RUNS, user_id=user_id) if run.job_name == name]
    if not runs:
        raise JobNotFound(f"no job has the name {shorten(name)}; cronactors list shows them")
    return None, runs[:limit]


def next_time(job: CronJob) -> datetime | None:
    """Tell when a job starts next, be it a retry or a new moment."""
    return min(filter(None, (job.next_run_at, job.retry_at)), default=None)


def when(job: CronJob, now: datetime) -> str:
    """Say when a job starts next; what was missed is due already."""
    moment = next_time(job)
    if moment is None:
        return f"no next time: {state(job)}"
    return f"{'next' if moment > now else 'due since'} {local(moment, job.timezone)}"


def local(moment: datetime | None, zone: str) -> str:
    """Write a time as the clock of a zone shows it; "-" for none."""
    if moment is None:
        return "-"
    shown = load_zone(zone) if is_zone(zone) else UTC  # what is stored may be no zone: `last_error` says so
    return moment.astimezone(shown).strftime("%Y-%m-%d %H:%M:%S %Z")


def first_line(text: str | None, limit: int = 200) -> str:
    """Answer the first line that is not empty; what a terminal would obey is made harmless."""
    return one_line(next((line for line in (text or "")[:10_000].splitlines() if line.strip()), ""), limit)


def in_words(job: CronJob) -> str:
    """Say when a job runs."""
    match job.schedule:
        case Cron(expr):
            return expr
        case Interval(every_ms):
            return f"every {every_ms / _HOUR:,g} h" if every_ms >= _HOUR else f"every {every_ms / 1000:,g} s"
        case OneShot(at):
            return f"once, {_as_meant(at, job.timezone)}"


def _as_meant(at: str, zone: str) -> str:
    """Show a one-shot's time in the zone of its job; text without an offset is meant in that zone already."""
    try:
        moment = datetime.fromisoformat(at)
    except ValueError:
        return at
    return at if moment.tzinfo is None else local(moment, zone)


def state(job: CronJob) -> str:
    """Say how a job stands in one word."""
    if not job.enabled:
        return "done" if isinstance(job.schedule, OneShot) and (job.last_run_at or _passed(job)) else "paused"
    return "retrying" if job.retry_at else "enabled"


def _passed(job: CronJob) -> bool:
    """Whether the time of a one-shot has passed."""
    try:
        return job.retry_at is None and next_run(job.schedule, after=now(), timezone=job.timezone) is None
    except InvalidSchedule:
        return False


def seconds(run: CronRun) -> str:
    """Say how long a run took; "" while it goes on."""
    if run.started_at is None or run.completed_at is None:
        return ""
    return f"{(run.completed_at - run.started_at).total_seconds():.2f} s"


def outcome(run: CronRun) -> str:
    """Say what came of a run in one line."""
    said = first_line(run.error) or first_line(run.result_summary)
    return f"{said} (stands for {run.coalesced:,} moments)".lstrip() if run.coalesced > 1 else said


def print_jobs(jobs: Sequence[CronJob]) -> None:
    """Print a table of jobs, each in its own zone."""
    users = any(job.user_id is not None for job in jobs)
    table = _table("name", *(["user"] if users else []), "schedule", "zone", "next", "last start", "state", "last error")
    for job in jobs:
        cells = [
            one_line(job.name, 60),
            *([one_line(job.user_id or "-", 30)] if users else []),
            one_line(in_words(job), 60),
            job.timezone,
            local(next_time(job), job.timezone),
            local(job.last_run_at, job.timezone),
            state(job),
            first_line(job.last_error, 80),
        ]
        table.add_row(*map(_cell, cells))
    _print(table, "no jobs" if not jobs else f"{len(jobs):,} jobs" if len(jobs) > 1 else "1 job")


def print_runs(name: str, zone: str, runs: Sequence[CronRun]) -> None:
    """Print a table of runs in the zone of their job."""
    table = _table("started", "for the moment", "attempt", "trigger", "status", "took", "result")
    for run in runs:
        status = Text(run.status if run.cause is None else f"{run.status}/{run.cause}", STYLES.get(run.status, "yellow"))
        cells = local(run.started_at, zone), local(run.scheduled_at, zone), str(run.attempt), run.trigger
        table.add_row(*map(_cell, cells), status, *map(_cell, (seconds(run), outcome(run))))
    _print(table, f"no runs of {one_line(name, 60)} yet" if not runs else "")


def _table(*columns: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column, overflow="fold")
    return table


def _cell(text: str) -> Text:
    return Text(shown(text))


def _print(table: Table, last: str) -> None:
    console = Console()
    if not console.is_terminal:  # what reads a pipe wants each row on one line
        console = Console(width=_WIDE)
    if table.row_count:
        console.print(table)
    if last:
        say(last)


def job_as_json(job: CronJob) -> dict[str, Json]:
    """Turn a job into what JSON knows."""
    left_out = ("schedule", "misfire", "executor_options")  # the last may hold a secret
    fields = {key: _plain(value) for key, value in attrs.asdict(job, recurse=False).items() if key not in left_out}
    return {**fields, "schedule": dict(schedule_to_dict(job.schedule))}


def run_as_json(run: CronRun) -> dict[str, Json]:
    """Turn a run into what JSON knows."""
    return {key: _plain(value) for key, value in attrs.asdict(run, recurse=False).items()}


def _plain(value: object) -> Json:
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    if value is None or isinstance(value, str | int | float):
        return value
    return str(value)
