"""Storages and rows for tests. Rows have plain values, and each test changes those that it needs."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import psycopg
import pytest

from cronactors.storage.errors import Contended
from cronactors.storage.protocol import Storage
from cronactors.storage.rows import JobRow, OwnerRow, RunFinish, RunRow
from cronactors.storage.sqlite import SqliteStorage
from tests.fake_storage import FakeStorage, NotUnique
from tests.postgres_store import in_postgres

NOW = 1_767_225_600_123
NOT_UNIQUE = (NotUnique, sqlite3.IntegrityError, psycopg.IntegrityError, Contended)

_JOB = JobRow(
    id="a",
    user_id="",
    name="a",
    schedule='{"kind": "interval", "every_ms": 1000}',
    timezone="UTC",
    anchor_at=1000,
    enabled=1,
    delete_after_run=0,
    max_retries=3,
    timeout_secs=7200.0,
    session_mode="isolated",
    overlap="skip",
    misfire="{}",
    origin=None,
    delay_ms=None,
    created_at=1000,
    rules="",
    executor_options="{}",
    consecutive_failures=0,
    pruned_until=None,
    description="",
    tags="[]",
    history="{}",
    listed_enabled=None,
    data=None,
    last_run_at=None,
    last_error=None,
    crashes=0,
    next_run_at=2000,
    decided_local=None,
    held_by=None,
    prompt="say it",
)
_RUN = RunRow(
    id=0,
    job_id="a",
    job_name="a",
    user_id="",
    trigger="schedule",
    manual=0,
    scheduled_at=2000,
    attempt=1,
    status="pending",
    ready_at=2000,
)
_FINISH = RunFinish(
    status="success", cause=None, completed_at=1, session_id="", result=None, error=None, id=0, expected_status="running"
)
_OWNER = OwnerRow(id=0, machine="m", pid=1, process_start="1", heartbeat_at=0, lease_until=0)


def job(job_id: str = "a", **fields: object) -> JobRow:
    """Return a job; its default name is its id."""
    return _JOB._replace(**{"id": job_id, "name": job_id, **fields})  # type: ignore[arg-type]  # the tests name the fields


def run(**fields: object) -> RunRow:
    """Return a pending run of the job "a"."""
    return _RUN._replace(**fields)  # type: ignore[arg-type]


def run_finish(run_id: int, expected_status: str, **fields: object) -> RunFinish:
    """Return the finish of a run, by default with success."""
    return _FINISH._replace(id=run_id, expected_status=expected_status, **fields)  # type: ignore[arg-type]


def owner(**fields: object) -> OwnerRow:
    """Return an owner whose lease has ended."""
    return _OWNER._replace(**fields)  # type: ignore[arg-type]


def add_run(store: Storage, **fields: object) -> int:
    """Add a run that does not exist yet, and return its id."""
    (run_id,) = store.insert_runs([run(**fields)])
    assert run_id is not None
    return run_id


@pytest.fixture(params=["sqlite", "memory", "fake", "postgres"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Storage]:
    """A new storage without a transaction."""
    if request.param == "fake":
        yield FakeStorage(wall=lambda: NOW)
        return
    if request.param == "postgres":
        with closing(in_postgres(lambda: NOW)) as opened_there:
            yield opened_there
        return
    made = SqliteStorage(":memory:" if request.param == "memory" else str(tmp_path / "jobs.db"), wall=lambda: NOW)
    yield made
    made.close()


@pytest.fixture
def store(storage: Storage) -> Storage:
    """A new storage inside a write transaction."""
    assert storage.begin(write=True)
    return storage


# The storage in a file


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "jobs.db")


def opened(path: str) -> SqliteStorage:
    return SqliteStorage(path, wall=lambda: 0)


def add(storage: SqliteStorage, *job_ids: str) -> None:
    assert storage.begin(write=True)
    storage.insert_jobs([job(job_id) for job_id in job_ids])
    storage.commit()


def job_ids(storage: SqliteStorage) -> list[str]:
    assert storage.begin(write=False)
    ids = [row.id for _, row in storage.list_jobs(after=0, limit=1000, user_id=None)]
    storage.rollback()
    return ids


def filled(path: str, count: int = 3) -> None:
    with closing(opened(path)) as storage:
        add(storage, *(f"{n:03}" for n in range(count)))


def contents(folder: Path) -> dict[str, bytes]:
    """Return the content of every file below a folder."""
    return {str(file.relative_to(folder)): file.read_bytes() for file in sorted(folder.rglob("*")) if file.is_file()}


def pragma(db: sqlite3.Connection, name: str) -> object:
    (value,) = db.execute(f"PRAGMA {name}").fetchone()
    return value
