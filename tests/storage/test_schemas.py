"""Upgrades of files that older versions wrote: nothing in them is lost. `schema_files` has a fixture of each schema.

`chaos/test_migrations.py` has the upgrades that fail or are killed half-way.
"""

from __future__ import annotations

import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from cronactors import RunStatus, open_store
from cronactors.storage.connection import connect
from cronactors.storage.rows import CRASH_LOOP
from cronactors.storage.schema import SCHEMA_VERSION

FIXTURES = Path(__file__).parents[1] / "schema_files"
OLD = range(1, SCHEMA_VERSION)


@pytest.fixture(params=OLD)
def old(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A file as the version with that schema wrote it."""
    file = tmp_path / "agent.db"
    shutil.copyfile(FIXTURES / f"schema-{request.param}.sqlite", file)
    return file


def rows(file: Path, query: str) -> list[tuple[object, ...]]:
    with closing(sqlite3.connect(file)) as db:
        return db.execute(query).fetchall()


def test_every_schema_before_the_newest_has_a_fixture() -> None:
    assert [file.name for file in sorted(FIXTURES.iterdir())] == [f"schema-{number}.sqlite" for number in OLD]


def test_an_upgraded_file_has_the_schema_of_a_new_one(old: Path, tmp_path: Path) -> None:
    shape = 'SELECT m.type, m.tbl_name, m.name, x.name, x.type, x."notnull", x.pk FROM sqlite_master m LEFT JOIN pragma_table_info(m.name) x ORDER BY 1, 2, 3, x.cid'
    connect(str(old), create=False).close()
    connect(str(tmp_path / "new.db"), create=True).close()
    assert rows(old, shape) == rows(tmp_path / "new.db", shape)
    assert rows(old, "PRAGMA user_version") == [(SCHEMA_VERSION,)]
    assert rows(old, "PRAGMA integrity_check") == [("ok",)]


def test_jobs_and_runs_of_schema_1_are_there_after_the_upgrade(tmp_path: Path) -> None:
    file = tmp_path / "agent.db"
    shutil.copyfile(FIXTURES / "schema-1.sqlite", file)
    before_jobs = rows(file, "SELECT id, name, origin, enabled, crashes, next_run_at, held_by, last_error FROM jobs ORDER BY id")
    before_specs = rows(file, "SELECT number, schedule, timezone, anchor_at, prompt FROM job_specs ORDER BY number")
    before_runs = rows(
        file, "SELECT id, job_id, scheduled_at, attempt, status, cause, ready_at, owner, cancel_asked FROM runs ORDER BY id"
    )
    waiting = rows(file, "SELECT waits_for, count(*) FROM runs WHERE waits_for IS NOT NULL GROUP BY 1 ORDER BY 1")
    before_owners = rows(file, "SELECT * FROM schedulers WHERE machine LIKE 'm@host%'")
    assert len(before_owners) == 1
    connect(str(file), create=False).close()
    assert (
        rows(file, "SELECT id, name, origin, enabled, crashes, next_run_at, held_by, last_error FROM jobs ORDER BY id")
        == before_jobs
    )
    assert rows(file, "SELECT number, schedule, timezone, anchor_at, prompt FROM job_specs ORDER BY number") == before_specs
    after_runs = rows(
        file, "SELECT id, job_id, scheduled_at, attempt, status, cause, ready_at, owner, cancel_requested FROM runs ORDER BY id"
    )
    assert after_runs == before_runs
    renamed = sorted((CRASH_LOOP if key == "suspects" else key, count) for key, count in waiting)
    assert (CRASH_LOOP, 1) in renamed
    assert rows(file, "SELECT waits_for, count(*) FROM runs WHERE waits_for IS NOT NULL GROUP BY 1 ORDER BY 1") == renamed
    assert rows(file, "SELECT * FROM owners") == [(*row, "[]") for row in before_owners]
    assert rows(file, "SELECT key, value FROM meta") == [("clock_set_back", '{"at":1767601860000,"owner":2}')]
    assert rows(file, "SELECT * FROM origins") == [("/srv/agent/agent.toml", "/srv/agent/agent.toml")]
    assert rows(file, "SELECT DISTINCT rules, executor_options, decided_local FROM jobs JOIN job_specs USING (number)") == [
        ("", "{}", None)
    ]


def test_schema_3_changes_no_value_of_schema_2(tmp_path: Path) -> None:
    file = tmp_path / "agent.db"
    shutil.copyfile(FIXTURES / "schema-2.sqlite", file)
    columns = {
        table: ", ".join(
            f'"{name}"' for (name,) in rows(file, f"SELECT name FROM pragma_table_info('{table}')") if name != "progress"
        )
        for table in ("jobs", "job_specs", "runs", "owners", "meta", "origins")
    }

    def values() -> dict[str, list[tuple[object, ...]]]:
        return {table: rows(file, f"SELECT {names} FROM {table}") for table, names in columns.items()}

    before = values()
    assert all(before.values())
    connect(str(file), create=False).close()
    assert values() == before
    assert rows(file, "SELECT DISTINCT result_data FROM runs") == [(None,)]
    assert rows(file, "SELECT DISTINCT consecutive_failures, pruned_until FROM jobs") == [(0, None)]
    assert rows(file, "SELECT DISTINCT description, tags, history, data FROM job_specs") == [("", "[]", "{}", None)]


def test_schema_4_changes_no_value_of_schema_3(tmp_path: Path) -> None:
    file = tmp_path / "agent.db"
    shutil.copyfile(FIXTURES / "schema-3.sqlite", file)
    tables = [name for (name,) in rows(file, "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite%'")]
    columns = {
        table: ", ".join(
            f'"{name}"'
            for (name,) in rows(file, f"SELECT name FROM pragma_table_info('{table}')")
            if name not in ("paused_until", "pause_note")
        )
        for table in tables
    }

    def values() -> dict[str, list[tuple[object, ...]]]:
        return {table: rows(file, f"SELECT {names} FROM {table}") for table, names in columns.items()}

    before = values()
    assert {table for table in tables if before[table]} >= {"jobs", "job_specs", "job_tags", "runs", "run_requests", "origins"}
    connect(str(file), create=False).close()
    assert values() == before
    assert rows(file, "SELECT DISTINCT listed_enabled FROM job_specs") == [(None,)]
    assert rows(file, "SELECT * FROM pauses") == []


async def test_an_upgraded_file_works_as_any_other(old: Path) -> None:
    async with open_store(old) as store:
        jobs = {job.name: job for job in await store.list_jobs()}
        assert {"morning", "beat", "later", "listed-2"} <= jobs.keys()
        assert jobs["once"].enabled is False
        runs = await store.list_runs(limit=100)
        assert {run.status for run in runs} >= {RunStatus.SUCCESS, RunStatus.PENDING, RunStatus.SKIPPED}
        run_id = await store.request_run(jobs["paused"].id)
        assert (await store.get_run(run_id)).status is RunStatus.PENDING
