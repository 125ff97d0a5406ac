"""The judge of every chaos test: compares a ledger that executors write with the store, which is read without the library.

An executor writes ``start``, and as the last thing that it does ``end`` if it is about to succeed, or ``raise`` if it is not.
"""

from __future__ import annotations

import json
import os
import sqlite3
import time
from collections import Counter, defaultdict
from collections.abc import Collection, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import attrs
import psycopg

from cronactors import JobContext
from cronactors.instants import Millis, to_millis
from cronactors.model import MAX_COALESCED
from cronactors.storage.postgres.address import DEFAULT_SCHEMA, is_postgres, split_schema

OPEN = ("pending", "running")


@attrs.frozen
class Entry:
    """A line of the ledger: a start or an end of an executor."""

    what: str
    job: str
    run: int
    at: Millis
    attempt: int
    pid: int
    wall: float


def append_line(file: Path, fields: Sequence[str | int | float]) -> None:
    """Append fields to a file as a line of JSON: one O_APPEND write, which a kill cannot cut."""
    line = json.dumps(fields).encode() + b"\n"
    descriptor = os.open(file, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        assert os.write(descriptor, line) == len(line)
    finally:
        os.close(descriptor)


class Ledger:
    """A file of one line for each start and end of an executor."""

    def __init__(self, file: str | Path) -> None:
        self.file = Path(file)

    def write(self, what: str, ctx: JobContext) -> None:
        entry = Entry(what, ctx.job_id, int(ctx.run_id), to_millis(ctx.scheduled_at), ctx.attempt, os.getpid(), time.time())
        append_line(self.file, attrs.astuple(entry))

    def read(self) -> list[Entry]:
        if not self.file.exists():
            return []
        return [Entry(*json.loads(line)) for line in self.file.read_text().splitlines()]


@attrs.frozen
class Row:
    """A run as the file holds it."""

    id: int
    job: str
    at: Millis
    manual: int
    attempt: int
    status: str
    cause: str | None
    coalesced: int
    error: str | None

    @property
    def left_open(self) -> bool:
        """Whether its process died, or lost it, before its outcome was stored; if it was to be replaced, it is not retried."""
        return self.cause == "interrupted" or (self.cause == "replaced" and (self.error or "").startswith("interrupted: "))


@attrs.frozen
class Job:
    """A job as the file holds it."""

    id: str
    enabled: int
    next_run_at: Millis | None
    anchor_at: Millis
    schedule: str
    overlap: str

    @property
    def every(self) -> Millis | None:
        """The length of an interval."""
        length = json.loads(self.schedule).get("every_ms")
        return None if length is None else int(length)


_SQLITE_JOBS = "SELECT id, enabled, next_run_at, anchor_at, schedule, overlap FROM jobs JOIN job_specs USING (number)"
_POSTGRES_JOBS = "SELECT id, enabled, next_run_at, anchor_at, schedule, overlap FROM jobs JOIN job_state USING (id)"
_RUNS = "SELECT id, job_id, scheduled_at, manual, attempt, status, cause, coalesced, error FROM runs ORDER BY id"


def read_rows(db: str | Path, *statements: str) -> list[list[tuple[Any, ...]]]:
    """Return the rows of statements, which see the store as it was at one moment."""
    if is_postgres(str(db)):
        url, schema = split_schema(str(db), DEFAULT_SCHEMA)
        with psycopg.connect(url) as server:
            server.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
            server.execute("SELECT set_config('search_path', %s, true)", [schema])
            return [server.execute(statement.encode()).fetchall() for statement in statements]
    with closing(sqlite3.connect(f"{Path(db).absolute().as_uri()}?mode=ro", uri=True)) as file:
        assert file.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        file.execute("BEGIN")
        return [file.execute(statement).fetchall() for statement in statements]


def read_database(db: str | Path) -> tuple[list[Job], list[Row]]:
    """Return jobs and runs; assert that SQLite finds no damage in the file."""
    jobs, rows = read_rows(db, _POSTGRES_JOBS if is_postgres(str(db)) else _SQLITE_JOBS, _RUNS)
    return [Job(*job) for job in jobs], [Row(*row) for row in rows]


def judge(
    db: str | Path,
    ledger: Ledger,
    *,
    acknowledged: Collection[str] = (),
    gone: Collection[str] = (),
    idle: bool = True,
    stopped: bool = False,
) -> str:
    """Compare the store with the ledger, and return the figures in words. Raises AssertionError if they disagree.

    Args:
        db: The file, or the address of the server.
        ledger: The lines that the executors wrote.
        acknowledged: Ids of jobs whose adding was acknowledged.
        gone: Ids of jobs that may have been removed since.
        idle: No scheduler runs any more: nothing may be RUNNING.
        stopped: Processes were stopped for longer than their leases: an executor may have run on although its run was taken over.
    """
    jobs, rows = read_database(db)
    entries = ledger.read()
    missing = set(acknowledged) - {job.id for job in jobs} - set(gone)
    assert not missing, f"{len(missing)} acknowledged jobs are missing"
    opened = {row.job for row in rows if row.status in OPEN}
    silent = [job for job in jobs if job.enabled and job.next_run_at is None and job.id not in opened]
    assert not silent, f"silent jobs: {silent[:3]}"
    if idle:
        assert not [row for row in rows if row.status == "running"], "still running"
    _judge_runs(rows, entries)
    _judge_ends(rows, entries)
    _judge_moments(jobs, rows)
    _judge_overlaps(jobs, entries, taken_over={row.id for row in rows if row.left_open} if stopped else set())
    interrupted = sum(row.cause == "interrupted" for row in rows)
    ended = Counter(row.status for row in rows)
    statuses = ", ".join(f"{count} {status}" for status, count in sorted(ended.items()))
    return f"{len(jobs)} jobs, {len(rows)} runs ({statuses}; {interrupted} interrupted), {len(entries)} ledger lines"


def _judge_runs(rows: list[Row], entries: list[Entry]) -> None:
    by_id = {row.id: row for row in rows}
    starts = Counter(entry.run for entry in entries if entry.what == "start")
    ends = {entry.run for entry in entries if entry.what == "end"}
    for entry in entries:
        row = by_id.get(entry.run)
        assert row is not None, f"an executor was started for a run that is not in the file: {entry}"
        assert (row.job, row.at, row.attempt) == (entry.job, entry.at, entry.attempt), (row, entry)
    assert max(starts.values(), default=1) == 1, "a run was started twice"
    claimed_well = [row for row in rows if row.status == "success" and row.id not in ends]
    assert not claimed_well, f"success without an end: {claimed_well[:3]}"
    moments: dict[tuple[str, Millis, int], list[Row]] = defaultdict(list)
    for row in rows:
        moments[row.job, row.at, row.manual].append(row)
    for moment, attempts in moments.items():
        attempts.sort(key=lambda row: row.attempt)
        assert sum(row.status == "success" for row in attempts) <= 1, f"two successes: {attempts}"
        for earlier in attempts[:-1]:
            again = ("error", "timeout", "interrupted")
            assert earlier.status == "failed", f"run again after {earlier}: {moment}"
            assert earlier.cause in again, f"run again after {earlier}: {moment}"


def _judge_ends(rows: list[Row], entries: list[Entry]) -> None:
    """Check that file and ledger have the same outcome, unless the process ended, or lost the run, before it was stored."""
    by_id = {row.id: row for row in rows}
    for entry in entries:
        row = by_id[entry.run]
        if entry.what == "start" or row.status == "running" or row.left_open:
            continue
        assert (row.status == "success") == (entry.what == "end"), f"{entry.what} became {row}"


def _judge_moments(jobs: list[Job], rows: list[Row]) -> None:
    """Check that each decided moment of an interval is in one row, by itself or merged."""
    decided: Counter[str] = Counter()
    uncounted: set[str] = set()
    for row in rows:
        if row.attempt == 1 and not row.manual:
            decided[row.job] += row.coalesced
            if row.coalesced >= MAX_COALESCED:
                uncounted.add(row.job)
    for job in jobs:
        if job.every is not None and job.enabled and job.next_run_at is not None and job.id not in uncounted:
            moments = (job.next_run_at - job.anchor_at) // job.every - 1
            assert decided[job.id] == moments, f"{decided[job.id]} of {moments} moments are in the history of {job}"


def _judge_overlaps(jobs: list[Job], entries: list[Entry], taken_over: Collection[int]) -> None:
    """Check that a job which skips overlapping moments is in one executor at a time; the ledger is in order of time."""
    skipping = {job.id for job in jobs if job.overlap == "skip"}
    ended = {entry.run: place for place, entry in enumerate(entries) if entry.what != "start"}
    latest: dict[str, Entry] = {}
    for place, entry in enumerate(entries):
        if entry.what == "start" and entry.job in skipping:
            before = latest.get(entry.job)
            if before is not None and before.run not in taken_over:
                assert ended.get(before.run, 0) < place, f"{entry} began beside {before}"
            latest[entry.job] = entry


def judge_interrupted(db: str | Path, *, but: Collection[str] = ()) -> int:
    """Check that each interrupted run was followed by a retry, and return how many there were.

    Args:
        db: The file.
        but: Ids of jobs that were stopped or removed.
    """
    _, rows = read_database(db)
    attempts = {(row.job, row.at, row.manual, row.attempt) for row in rows}
    interrupted = [row for row in rows if row.cause == "interrupted" and row.status == "failed" and row.job not in but]
    lost = [row for row in interrupted if (row.job, row.at, row.manual, row.attempt + 1) not in attempts]
    assert not lost, f"{len(lost)} interrupted runs were not retried: {lost[:3]}"
    return len(interrupted)


def most_at_once(entries: Collection[Entry]) -> tuple[int, dict[int, int]]:
    """Return how many executors were active at a time: over all processes, and in each.

    Args:
        entries: A ledger in which each start has its end.
    """
    running: Counter[int] = Counter()
    most: Counter[int] = Counter()
    overall = 0
    for entry in sorted(entries, key=lambda entry: (entry.wall, entry.what == "start")):
        running[entry.pid] += 1 if entry.what == "start" else -1
        most[entry.pid] = max(most[entry.pid], running[entry.pid])
        overall = max(overall, running.total())
    assert not running.total(), "a start without an end"
    return overall, dict(most)
