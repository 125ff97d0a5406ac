"""The verbs ``list`` and ``runs``: read jobs or runs, and print them as a table or as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TypeAlias

import attrs
import trio

from cronactors import open_store
from cronactors.cli import describe
from cronactors.cli.stdout import print_json, print_line
from cronactors.cli.tables import Cell, print_table
from cronactors.errors import JobNotFound, one_line, shorten
from cronactors.model import ALL, CronJob, CronRun, RunStatus
from cronactors.schedules.schedule_json import schedule_to_dict

_JsonValue: TypeAlias = str | int | float | bool | list[str] | dict[str, object] | None

_COLOURS = {RunStatus.SUCCESS: "green", RunStatus.FAILED: "red", RunStatus.RUNNING: "cyan"}
"""Other statuses are yellow."""
_OLD_RUNS = 1000


def list_jobs(database: str, *, as_json: bool) -> None:
    """Print all jobs, the next to start first.

    Raises:
        CronError: The database cannot be read.
    """
    jobs = trio.run(_read_jobs, database)
    if as_json:
        print_json([job_as_json(job) for job in jobs])
    else:
        print_jobs(jobs)


async def _read_jobs(database: str) -> list[CronJob]:
    async with open_store(database, create=False) as store:
        return describe.sort_by_next_time(await store.list_jobs(user_id=ALL))


def list_runs(database: str, name: str, *, user_id: str | None, limit: int, as_json: bool) -> None:
    """Print the last runs of a job, newest first; of a job that was removed, those among the last thousand of all jobs.

    Args:
        database: The path of the database.
        name: The name of the job.
        user_id: Whose job it is; None for the agent's own.
        limit: How many runs.
        as_json: Whether to print JSON.

    Raises:
        JobNotFound: There is no such job, and no run of one.
        CronError: The database cannot be read.
    """
    job, runs = trio.run(_read_runs, database, name, user_id, limit)
    if as_json:
        print_json([run_as_json(run) for run in runs])
    else:
        print_runs(name, job.timezone if job else "UTC", runs)


async def _read_runs(database: str, name: str, user_id: str | None, limit: int) -> tuple[CronJob | None, list[CronRun]]:
    async with open_store(database, create=False) as store:
        job = await store.get_job_by_name(name, user_id=user_id)
        if job is not None:
            return job, await store.list_runs(job.id, limit)
        runs = [run for run in await store.list_runs(limit=_OLD_RUNS, user_id=user_id) if run.job_name == name]
    if not runs:
        raise JobNotFound(f"no job has the name {shorten(name)}; cronactors list shows them")
    return None, runs[:limit]


def print_jobs(jobs: Sequence[CronJob]) -> None:
    """Print a table of jobs, each in its own zone; a column of users, and one of tags, if any job has one."""
    users = any(job.user_id is not None for job in jobs)
    tags = any(job.tags for job in jobs)
    rows = [
        [
            one_line(job.name, 60),
            *([one_line(job.user_id or "-", 30)] if users else []),
            one_line(describe.schedule(job), 60),
            job.timezone,
            describe.local_time(describe.next_time(job), job.timezone),
            describe.local_time(job.last_run_at, job.timezone),
            describe.state(job),
            describe.first_line(job.last_error, 80),
            *([one_line(", ".join(job.tags), 60)] if tags else []),
        ]
        for job in jobs
    ]
    columns = [
        "name",
        *(["user"] if users else []),
        "schedule",
        "zone",
        "next",
        "last start",
        "state",
        "last error",
        *(["tags"] if tags else []),
    ]
    print_table(columns, [list(map(Cell, row)) for row in rows])
    print_line("no jobs" if not jobs else f"{len(jobs):,} jobs" if len(jobs) > 1 else "1 job")


def print_runs(name: str, zone: str, runs: Sequence[CronRun]) -> None:
    """Print a table of runs in the zone of their job."""
    columns = ["started", "for the moment", "attempt", "trigger", "status", "took", "result"]
    rows = [
        [
            Cell(describe.local_time(run.started_at, zone)),
            Cell(describe.local_time(run.scheduled_at, zone)),
            Cell(str(run.attempt)),
            Cell(run.trigger),
            Cell(run.status if run.cause is None else f"{run.status}/{run.cause}", _COLOURS.get(run.status, "yellow")),
            Cell(describe.duration(run)),
            Cell(describe.result(run)),
        ]
        for run in runs
    ]
    print_table(columns, rows)
    if not runs:
        print_line(f"no runs of {one_line(name, 60)} yet")


def job_as_json(job: CronJob) -> dict[str, _JsonValue]:
    """Convert a job to values of JSON, without its executor options and its data, which may hold a secret."""
    left_out = ("schedule", "misfire", "executor_options", "_data", "tags", "history")
    fields = {key: _json_value(value) for key, value in attrs.asdict(job, recurse=False).items() if key not in left_out}
    history = None if job.history is None else attrs.asdict(job.history)
    return {**fields, "history": history, "tags": list(job.tags), "schedule": dict(schedule_to_dict(job.schedule))}


def run_as_json(run: CronRun) -> dict[str, _JsonValue]:
    """Convert a run to values of JSON, without the data of its result, which may hold a secret."""
    return {key: _json_value(value) for key, value in attrs.asdict(run, recurse=False).items() if key != "_result_data"}


def _json_value(value: object) -> _JsonValue:
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    if value is None or isinstance(value, str | int | float):
        return value
    return str(value)
