"""The verbs ``list`` and ``runs``: read jobs or runs, and print them as a table or as JSON."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Sequence
from operator import attrgetter
from typing import TYPE_CHECKING, TypeAlias

import attrs
import trio

from cronactors import open_store
from cronactors.cli import describe
from cronactors.cli.amounts import count
from cronactors.cli.stdout import JsonValue, json_value, print_json, print_line, printable
from cronactors.cli.tables import Cell, print_table, text_width
from cronactors.errors import one_line
from cronactors.model import ALL, CronJob, CronRun, Overlap, RunStatus, SessionMode
from cronactors.schedules.schedule_json import schedule_to_dict

if TYPE_CHECKING:
    from cronactors.cli.run_query import RunQuery

Column: TypeAlias = tuple[str, list[Cell]]
"""The heading of a column, and its cells."""

_COLOURS = {RunStatus.SUCCESS: "green", RunStatus.FAILED: "red", RunStatus.RUNNING: "cyan"}
"""Other statuses are yellow."""
_FULL_WIDTH = 120
"""On a terminal with fewer columns the table of runs is the narrow one."""
_LEAST_RESULT = 10
"""How many columns the narrow table leaves for the result, at least, if it can."""
_NARROW_NAME = 16
"""How many columns a name takes in the narrow table, at most."""
_FIELDS_OF_JOB = [
    field.name
    for field in attrs.fields(CronJob)
    if field.name not in ("schedule", "misfire", "executor_options", "_data", "tags")
]
"""The fields of a job that are the same in JSON. The options and the data may hold a secret."""
_VALUES_OF_JOB = attrgetter(*_FIELDS_OF_JOB)
_PLAIN = frozenset({str, int, float, bool, type(None), SessionMode, Overlap})
"""Types of values that `json_value` returns as they are: most fields of most jobs."""


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


def list_history(database: str, query: RunQuery, *, as_json: bool) -> None:
    """Print runs, newest first: of one job, in its zone; or of all jobs, in UTC.

    Of a job that was removed it prints the runs that are left, and when it was removed; see `find_job_or_removed`. So it does if the job
    was added again and has no run to print.

    Raises:
        JobNotFound: There is no such job, and no run of one; or several users have or had one.
        CronError: The database cannot be read.
    """
    from cronactors.cli.removed import find_predecessor
    from cronactors.cli.run_query import Subject, find_subject, read_runs

    async def read() -> tuple[Subject, list[CronRun]]:
        async with open_store(database, create=False) as store:
            subject = await find_subject(store, query)
            runs = await read_runs(store, query, subject)
            if not runs and subject.job is not None and (earlier := await find_predecessor(store, subject.job)) is not None:
                subject = Subject(None, earlier.job_ids, earlier)
                runs = await read_runs(store, query, subject)
            return subject, runs

    subject, runs = trio.run(read)
    if as_json:
        print_json([run_as_json(run) for run in runs])
    elif runs:
        print_run_table(subject.zone, runs, jobs=query.name is None)
    else:
        of_job = "" if query.name is None else f" of {one_line(query.name, 60)}"
        print_line(f"no runs{of_job} match" if query.filtered else f"no runs{of_job} yet")
    if subject.removed is not None and not as_json:
        print_line(subject.removed.sentences())


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
            describe.state(job) + describe.until(job.pause, job.timezone),
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
    print_table(columns, rows)
    print_line(count(len(jobs), "job") if jobs else "no jobs")


def print_runs(name: str, zone: str, runs: Sequence[CronRun]) -> None:
    """Print a table of runs of one job, in its zone."""
    print_run_table(zone, runs, jobs=False)
    if not runs:
        print_line(f"no runs of {one_line(name, 60)} yet")


def print_run_table(zone: str, runs: Sequence[CronRun], *, jobs: bool) -> None:
    """Print a table of runs.

    Args:
        zone: The zone of its times.
        runs: The runs.
        jobs: Whether it has a column of jobs, and one of users if any run has one.
    """
    width = terminal_width()
    names = _name_columns(runs) if jobs else []
    if width is not None and width < _FULL_WIDTH:
        _print_narrow(zone, runs, names, width)
        return
    _print_columns(
        [
            ("run", [Cell(run.id) for run in runs]),
            *names,
            ("started", [Cell(describe.local_time(run.started_at, zone)) for run in runs]),
            ("for the moment", [Cell(describe.local_time(run.scheduled_at, zone)) for run in runs]),
            ("attempt", [Cell(str(run.attempt)) for run in runs]),
            ("trigger", [Cell(run.trigger) for run in runs]),
            ("status", [status_cell(run) for run in runs]),
            ("took", [Cell(describe.duration(run)) for run in runs]),
            ("result", [Cell(describe.result(run)) for run in runs]),
        ]
    )


def _print_narrow(zone: str, runs: Sequence[CronRun], names: Sequence[Column], width: int) -> None:
    """Print the columns that matter most: times without their zone, names and results cut. Each run is one line."""
    attempts = [f" #{run.attempt}" if run.attempt > 1 else "" for run in runs]
    columns: list[Column] = [
        ("run", [Cell(run.id) for run in runs]),
        *((heading, [Cell(cut_to(cell.text, _NARROW_NAME)) for cell in cells]) for heading, cells in names),
        (
            f"in {zone.rsplit('/', 1)[-1]}",
            [Cell(describe.local_time(run.started_at or run.scheduled_at, zone)[:19]) for run in runs],
        ),
        ("status", [Cell(f"{describe.status(run)}{attempt}", _colour(run)) for run, attempt in zip(runs, attempts, strict=True)]),
        ("took", [Cell(describe.duration(run)) for run in runs]),
    ]
    for dispensable in ("user", "took"):
        if width - _used(columns) < _LEAST_RESULT:
            columns = [column for column in columns if column[0] != dispensable]
    print_columns_and_text(columns, "result", [describe.result(run) for run in runs])


def print_columns_and_text(columns: Sequence[Column], heading: str, texts: Sequence[str]) -> None:
    """Print a table whose last column is text, which is cut to the width of a terminal; without that column if its heading is ""."""
    width = terminal_width()
    room = None if width is None else max(width - _used(columns), len(heading))
    cells = [Cell(text if room is None else cut_to(text, room)) for text in texts]
    _print_columns([*columns, *([(heading, cells)] if heading else [])])


def _used(columns: Sequence[Column]) -> int:
    """Return how many columns of a terminal these take, with the space behind them."""
    return sum(
        max([text_width(heading), *(text_width(printable(cell.text)) for cell in cells)]) + 2 for heading, cells in columns
    )


def _name_columns(runs: Sequence[CronRun]) -> list[Column]:
    """Return the column of jobs, and one of users if any run has one."""
    columns: list[Column] = [("job", [Cell(one_line(run.job_name, 60)) for run in runs])]
    if any(run.user_id is not None for run in runs):
        columns.append(("user", [Cell(one_line(run.user_id or "-", 30)) for run in runs]))
    return columns


def _print_columns(columns: Sequence[Column]) -> None:
    print_table([heading for heading, _ in columns], list(zip(*(cells for _, cells in columns), strict=True)))


def status_cell(run: CronRun) -> Cell:
    """Return the status of a run, with its cause if it has one."""
    return Cell(describe.status(run), _colour(run))


def _colour(run: CronRun) -> str:
    return _COLOURS.get(run.status, "yellow")


def terminal_width() -> int | None:
    """Return how many columns the terminal has; None: standard output is none."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else None


def cut_to(text: str, width: int) -> str:
    """Cut text to a number of columns of a terminal, as standard output shows it."""
    shown = printable(text)
    if text_width(shown) <= width:
        return shown
    mark = "…" if printable("…") == "…" else "."
    while shown and text_width(shown) + 1 > width:
        shown = shown[:-1]
    return f"{shown}{mark}"


def job_as_json(job: CronJob) -> dict[str, object]:
    """Convert a job to values of JSON, without its executor options and its data, which may hold a secret."""
    shown: dict[str, object] = dict(zip(_FIELDS_OF_JOB, _VALUES_OF_JOB(job), strict=True))
    for name, value in shown.items():
        if type(value) not in _PLAIN:
            shown[name] = json_value(value)
    shown["tags"] = list(job.tags)
    shown["schedule"] = schedule_to_dict(job.schedule)
    return shown


def run_as_json(run: CronRun) -> dict[str, JsonValue]:
    """Convert a run to values of JSON, without the data of its result, which may hold a secret."""
    return {key: json_value(value) for key, value in attrs.asdict(run, recurse=False).items() if key != "_result_data"}
