"""Moving a file to a server: every row arrives, nothing runs twice, and whatever goes wrong leaves a state that the same command ends."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest
import trio

from cronactors import Cron, Interval, JobSpec, RunStatus, open_store
from cronactors.actors.store import Done, run_batch
from cronactors.actors.user_requests import AddJobs, UpsertJobs
from cronactors.copying import Moved, move_to_server, unmark
from cronactors.errors import CronError, JobNotFound, StoreCorrupt, StoreUnavailable
from cronactors.ids import new_ids
from cronactors.ledger import leases
from cronactors.ledger.job_fields import Defaults
from cronactors.ledger.new_rows import waiting_run
from cronactors.ledger.recovery import recover
from cronactors.ledger.run_requests import RunRequestRow
from cronactors.ledger.upsert import JobList
from cronactors.owner import identify_this_process
from cronactors.policy import Moments
from cronactors.settings import RetryPolicy
from cronactors.storage.compaction import compact
from cronactors.storage.moved import MOVED_FACT, FileMoved, Move
from cronactors.storage.notifications import EpisodeRow, NotificationRow, Settlement
from cronactors.storage.pauses import PauseRow
from cronactors.storage.postgres import connecting, copying
from cronactors.storage.postgres.address import split_schema
from cronactors.storage.postgres.copying import PostgresTarget
from cronactors.storage.postgres.storage import PostgresStorage
from cronactors.storage.protocol import Storage
from cronactors.storage.rows import CRASH_LOOP, JobState, OwnerRow, RunRow, job_key, session_key
from cronactors.storage.run_output import PieceRow, ProgressRow
from cronactors.storage.schema import APPLICATION_ID
from cronactors.storage.sqlite import SqliteStorage
from cronactors.storage.sqlite_copying import TABLES, SourceFile
from cronactors.wallclock import system_wall
from tests.cli_stores import server, with_ctrl_c
from tests.postgres_server import OwnServer
from tests.storages import add_run, contents, job, owner, path, run

__all__ = ["path", "server", "with_ctrl_c"]

Rows = list[tuple[Any, ...]]
USER, OTHER = "ann", "bob"
HISTORY = json.dumps({"announced_at": 1, "time": 5, "wall": 5, "cursors": {}})
RULES = json.dumps({"rules": "2025a/1", "since": 7, "done": True, "before": None})
DEAD = OwnerRow(0, "another machine/boot/namespaces", 77, "1", heartbeat_at=1, lease_until=2)
NOT_COPIED = {"version", "meta", "owners", "stop_marks", "server_life", "run_progress"}
"""About the server itself, about processes, and about running runs."""


def fill(path: str, *, text: str = "done") -> None:
    """Write a file that has a row for everything that a row can be about. A run of a dead owner is still running."""
    with closing(SqliteStorage(path, wall=lambda: 10_000)) as storage:
        assert storage.begin(write=True)
        killed = storage.insert_owner(DEAD)
        storage.insert_jobs(
            [
                job("own", origin="list.toml", tags='["red", "blue"]', description="d", data='{"a": 1}', history='{"days": 3}'),
                job("a1", user_id=USER, session_mode="main", tags='["red"]', decided_local=5, executor_options='{"x": 1}'),
                job("a2", user_id=USER, enabled=0, last_error="it broke", consecutive_failures=3, pruned_until=1500),
                job("b1", user_id=OTHER, delay_ms=7, crashes=2, prompt="p" * 5000),
                job("gone", user_id=USER),
                job("pruned", user_id=USER),
            ]
        )
        storage.set_origin("list.toml", "conf/list.toml")
        storage.set_meta("history", HISTORY)
        storage.set_meta("rules", RULES)
        storage.set_meta("running_since", "3")
        add_run(storage, job_id="own", job_name="own", status="success", result=text, result_data="[1]", completed_at=9)
        pending = add_run(storage, job_id="a1", job_name="a1", user_id=USER, session=session_key(USER), scheduled_at=3000)
        add_run(
            storage,
            job_id="a1",
            job_name="a1",
            user_id=USER,
            scheduled_at=3100,
            session=session_key(USER),
            waits_for=job_key("a1"),
        )
        failed = add_run(
            storage,
            job_id="gone",
            job_name="gone",
            user_id=USER,
            manual=1,
            trigger="manual",
            status="failed",
            cause="error",
            error="e",
        )
        running = add_run(storage, job_id="b1", job_name="b1", user_id=OTHER)
        storage.start_pending_runs([running], owner=killed, now=4000)
        waiting = add_run(storage, job_id="a2", job_name="a2", user_id=USER, scheduled_at=4000, waits_for=CRASH_LOOP)
        storage.update_job_states(
            [
                JobState.of(found)._replace(held_by=run_id)
                for name, run_id in (("a1", pending), ("b1", running), ("a2", waiting))
                for found in storage.jobs([name]).values()
            ]
        )
        storage.pauses.put([PauseRow("a2", 3, 4_000, None, "moving"), PauseRow("own", 1, None, 2, "")])
        storage.run_requests.insert(RunRequestRow("gone", 2000, "once", '{"b": 2}'))
        rows = [
            NotificationRow(0, None, failed, receiver, job_id, 100, owner=killed, job_state='{"enabled": true}')
            for receiver, job_id in (("mail", "gone"), ("mail", "gone"), ("chat", "gone"))
        ]
        rows.append(NotificationRow(0, f"stuck:{running}", None, "on_alert", "b1", 100, alert='{"kind": "stuck"}'))
        rows.append(NotificationRow(0, f"stuck:{pending}", None, "on_alert", "a1", 100, alert='{"kind": "stuck"}'))
        rows.append(NotificationRow(0, "ended:pruned:1", None, "on_alert", "pruned", 100, alert='{"kind": "ended"}'))
        first, *_ = storage.notifications.insert(rows)
        storage.notifications.settle([Settlement(first.id, "given_up", 4, None, "no mail", "mail", "gone")], owner=killed)
        storage.notifications.store_episodes([EpisodeRow("a2", "failing", 1, 2, 3), EpisodeRow("b1", "overdue", 4, 5, 6)])
        storage.output.insert_pieces([PieceRow(0, failed, 0, 3, 50, "abc"), PieceRow(0, failed, 3, 2, 60, "de")])
        storage.output.insert_pieces([PieceRow(0, running, 0, 3, 50, "xyz")])
        storage.output.set_progress([ProgressRow(running, 50, 0.5, "half")])
        for name in ("gone", "pruned"):
            storage.notifications.keep_jobs({name: json.dumps(job(name, user_id=USER)._asdict())}, without="")
        storage.delete_jobs(["gone", "pruned"])
        storage.commit()


def without_now(row: RunRow) -> RunRow:
    """Return a run without its owner, and without times that a recovery has written."""
    return row._replace(owner=None, completed_at=row.completed_at and 0, ready_at=row.ready_at if row.attempt == 1 else 0)


def read(storage: Storage, *, user_id: str | None = None) -> dict[str, Any]:
    """Return everything that a storage has, but for times of now. Of a user only jobs and runs."""
    assert storage.begin(write=False)
    try:
        jobs = storage.list_jobs(after=0, limit=1000, user_id=user_id)
        runs = [each for each in storage.list_runs(job_id=None, before=None, limit=1000) if user_id in (None, each.user_id)]
        notifications, _ = storage.notifications.page(before=None, status=None, receiver=None, limit=1000)
        ids = {each.job_id for each in runs} | {row.id for _, row in jobs} | ({"pruned"} if user_id in (None, USER) else set())
        return {
            "jobs": jobs,
            "runs": [without_now(each) for each in runs],
            "tagged": [[row.id for _, row in storage.jobs_tagged(tag, after=0, limit=9)] for tag in ("red", "blue")],
            "pauses": storage.pauses.of([row.id for _, row in jobs]),
            "requests": [storage.run_requests.of_moment(each.job_id, at=each.scheduled_at) for each in runs],
            "notifications": [each._replace(owner=0) for each in notifications if each.job_id in ids],
            "episodes": [storage.notifications.episodes(sorted(ids), kind) for kind in ("failing", "overdue")],
            "output": [[piece[1:] for piece in storage.output.pieces(each.id, since=0)] for each in runs],
            "progress": [storage.output.progress(each.id) for each in runs],
            "origins": storage.origins(),
            "facts": [storage.meta(key) for key in ("history", "rules")],
            "times": storage.next_times(),
        }
    finally:
        storage.rollback()


def as_the_next_start_would_find_it(path: str, folder: Path) -> dict[str, Any]:
    """Return what is in the file, after the runs of dead owners were finished in a copy of it."""
    with closing(sqlite3.connect(path)) as source, closing(sqlite3.connect(folder / "copy.db")) as copy:
        source.backup(copy)
    with closing(SqliteStorage(str(folder / "copy.db"), wall=system_wall)) as storage:
        assert storage.begin(write=True)
        assert len(recover(storage, identify_this_process(), policy=RetryPolicy(), trust_leases=True).runs) == 1
        storage.commit()
        return read(storage)


def dump(path: str) -> list[str]:
    """Return the content of a file as SQL. SQLite puts quotes around a table that was renamed and renamed again."""
    with closing(sqlite3.connect(path)) as db:
        return sorted(line.replace('"', "") for line in db.iterdump())


@contextmanager
def on_server(url: str) -> Iterator[PostgresStorage]:
    address, schema = split_schema(url, "cronactors")
    with closing(PostgresStorage(address, schema=schema, create=False)) as storage:
        yield storage


def rows_on_server(url: str, statement: str) -> Rows:
    address, schema = split_schema(url, "cronactors")
    with psycopg.connect(address, autocommit=True) as connection:
        cursor = connection.execute(statement.replace("@", f"{schema}.").encode())
        return cursor.fetchall() if cursor.description else []


def move(path: str, url: str, user_id: str | None = None, report: Callable[[str, int, int], None] = lambda *_: None) -> Moved:
    return move_to_server(path, url, schema="cronactors", user_id=user_id, report=report)


def refuse_opening(path: str) -> str:
    with pytest.raises(FileMoved) as refused:
        SqliteStorage(path, wall=system_wall)
    return str(refused.value)


# All of it


def test_every_row_arrives_as_the_next_start_on_the_file_would_find_it(path: str, server: str, tmp_path: Path) -> None:
    fill(path)
    expected = as_the_next_start_would_find_it(path, tmp_path)
    moved = move(path, server)
    with on_server(server) as storage:
        found = read(storage)
    assert found == expected
    assert moved.counts is not None
    assert (moved.counts["jobs"], moved.counts["runs"]) == (4, 7)
    assert [each.status for each in found["runs"] if each.job_id == "b1"] == ["pending", "failed"]
    assert rows_on_server(server, "SELECT count(*) FROM @notifications WHERE owner <> 0") == [(0,)]
    assert rows_on_server(server, "SELECT count(*) FROM @runs WHERE owner IS NOT NULL") == [(0,)]
    assert rows_on_server(server, "SELECT count(*) FROM @owners") == [(0,)]
    assert rows_on_server(server, "SELECT key FROM @meta WHERE key = 'running_since'") == []


def test_no_column_of_the_server_is_forgotten(path: str, server: str) -> None:
    """A new table or column has to be copied, or to be named in `NOT_COPIED`."""
    fill(path)
    move(path, server)
    schema = split_schema(server, "")[1]
    columns = rows_on_server(
        server, f"SELECT table_name, column_name FROM information_schema.columns WHERE table_schema = '{schema}'"
    )
    copied = {(table.name, column) for table in TABLES for column in table.columns} | {("run_output", "id")}
    assert {each for each in columns if each[0] not in NOT_COPIED} == copied


def test_new_rows_get_ids_above_those_that_were_copied(path: str, server: str) -> None:
    fill(path)
    with closing(SqliteStorage(path, wall=system_wall)) as file:  # ids that were given and are free again count too
        assert file.begin(write=True)
        file.insert_jobs([job("removed")])
        file.delete_jobs(["removed"])
        file.commit()
        (highest_job, highest_run, highest_notification) = SourceFile.highest(file)  # type: ignore[arg-type]
    move(path, server)
    with on_server(server) as storage:
        assert storage.begin(write=True)
        storage.insert_jobs([job("new")])
        (number,) = [number for number, row in storage.list_jobs(after=0, limit=99, user_id=None) if row.id == "new"]
        run_id = add_run(storage, job_id="new", job_name="new")
        (notification,) = storage.notifications.insert([NotificationRow(0, None, run_id, "mail", "new", 1)])
        storage.output.insert_pieces([PieceRow(0, run_id, 0, 1, 1, "x")])
        storage.commit()
    assert number > highest_job == 7
    assert run_id > highest_run
    assert notification.id > highest_notification


def test_jobs_go_on_where_they_were(path: str, server: str) -> None:
    """A run that was interrupted runs again, one that has finished does not, and whoever waited for it goes on."""

    async def scenario() -> None:
        async with open_store(path) as store:
            done = await store.add_job("done", "p", Interval.every(hours=1))
            await store.record_run_complete(await store.record_run_start(done), RunStatus.SUCCESS, "fine")
            open_job = await store.add_job("open", "p", Interval.every(hours=1))
            await store.record_run_start(open_job)
            before = {run.id: run.status for run in await store.list_runs(done)}
        move(path, server)
        async with open_store(server) as store:
            assert {run.id: run.status for run in await store.list_runs(done)} == before
            runs = await store.list_runs(open_job)
            assert [(run.attempt, run.status) for run in runs] == [(2, RunStatus.PENDING), (1, RunStatus.FAILED)]
            claimed = await store.record_run_start(open_job)
            assert int(claimed) == max(int(run.id) for run in runs)
            await store.record_run_complete(claimed, RunStatus.SUCCESS, "at last")
            assert [run.status for run in await store.list_runs(open_job)] == [RunStatus.SUCCESS, RunStatus.FAILED]

    trio.run(scenario)


def test_an_empty_file_is_moved_too(path: str, server: str) -> None:
    SqliteStorage(path, wall=system_wall).close()
    assert set((move(path, server).counts or {"x": 1}).values()) == {0}
    refuse_opening(path)


def test_more_rows_than_one_copy_takes(path: str, server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(copying, "AT_ONCE", 3)
    with closing(SqliteStorage(path, wall=system_wall)) as file:
        assert file.begin(write=True)
        file.insert_jobs([job("a")])
        file.insert_runs([run(scheduled_at=at, status="success") for at in range(10)])
        file.commit()
    reports: list[tuple[str, int, int]] = []
    move(path, server, report=lambda *each: reports.append(each))
    assert [each for each in reports if each[0] == "runs"] == [("runs", 10, done) for done in (3, 6, 9, 10)]
    assert rows_on_server(server, "SELECT count(*) FROM @runs") == [(10,)]


# The mark


def test_whoever_opens_the_file_learns_where_its_jobs_are(path: str, server: str, tmp_path: Path) -> None:
    fill(path)
    move(path, server)
    name = re.escape(f"{split_schema(server, '')[1]}")
    text = rf"{re.escape(path)} was moved to postgresql://.*/{name} on \d{{4}}-\d\d-\d\d: open that instead; "
    assert re.fullmatch(rf"{text}`cronactors copy --unmark {re.escape(path)}` undoes the mark", refuse_opening(path))
    before = contents(tmp_path)
    with pytest.raises(FileMoved):
        compact(path)
    with pytest.raises(FileMoved):
        SourceFile(path)

    async def use() -> None:
        async with open_store(path):
            pass

    with pytest.raises(StoreUnavailable, match="was moved to"):
        trio.run(use)
    assert contents(tmp_path) == before
    with closing(sqlite3.connect(path)) as db:
        assert db.execute("PRAGMA application_id").fetchone() != (APPLICATION_ID,), "so older releases refuse it too"


def test_without_the_mark_the_file_is_exactly_as_it_was(path: str, server: str) -> None:
    fill(path)
    before = dump(path)
    moved = move(path, server)
    assert unmark(path) == moved.to
    assert dump(path) == before
    with closing(SqliteStorage(path, wall=system_wall)) as file:
        assert file.check() is None
        assert file.begin(write=True)
        file.insert_jobs([job("after", tags='["red"]')])
        file.delete_jobs(["own"])
        file.commit()
        assert [row.id for _, row in read(file)["jobs"]] == ["a1", "a2", "b1", "after"]
    with pytest.raises(StoreUnavailable, match=r"jobs\.db is not marked as moved"):
        unmark(path)
    with pytest.raises(StoreUnavailable, match=f"^{re.escape(moved.to)} has jobs or a history of its own: move them into"):
        move(path, server)


def test_a_stop_mark_decides_about_its_run_and_stays_with_the_file(path: str, server: str) -> None:
    fill(path)
    with closing(SqliteStorage(path, wall=system_wall)) as file:
        file.mark_stopping(1)
    move(path, server)
    with on_server(server) as storage:
        (interrupted,) = [each for each in read(storage)["runs"] if each.cause == "interrupted"]
    assert interrupted.error == "interrupted: its process was killed while it was stopping"
    assert Path(f"{path}-stopping-1").exists()


def test_a_process_that_had_the_file_open_cannot_use_it_any_more(path: str, server: str) -> None:
    """Such as a web worker, or a scheduler that was stopped for so long that it counts as dead."""
    fill(path)

    async def scenario() -> None:
        async with open_store(path) as store:
            job_id = (await store.list_jobs())[0].id
            await trio.to_thread.run_sync(move, path, server)
            for attempt in (
                lambda: store.add_job("late", "p", Interval.every(hours=1)),
                lambda: store.request_run(job_id),
                lambda: store.record_run_start(job_id),
                store.list_jobs,
                store.list_runs,
            ):
                with pytest.raises(StoreCorrupt, match=r"jobs\.db is damaged, was moved, or .* \(no such table: "):
                    await attempt()

    trio.run(scenario)
    unmark(path)
    with closing(SqliteStorage(path, wall=system_wall)) as file:
        assert len(read(file)["jobs"]) == 4


def test_the_mark_counts_while_only_the_log_has_it(path: str, server: str) -> None:
    """A reader keeps SQLite from copying the log into the file."""
    fill(path)
    with closing(sqlite3.connect(path, isolation_level=None)) as reader:
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM jobs").fetchone()
        move(path, server)
        assert id_in_file(path) == APPLICATION_ID
        refuse_opening(path)
    with closing(sqlite3.connect(path, isolation_level=None)) as writer:
        writer.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        assert id_in_file(path) != APPLICATION_ID
        writer.execute("BEGIN")
        writer.execute("SELECT count(*) FROM moved_jobs").fetchone()
        unmark(path)
        assert id_in_file(path) != APPLICATION_ID
        SqliteStorage(path, wall=system_wall).close()


def id_in_file(path: str) -> int:
    """Return the application id in the file itself (https://www.sqlite.org/fileformat2.html, 1.3), without the log."""
    return int.from_bytes(Path(path).read_bytes()[68:72], "big")


def test_a_mark_that_cannot_be_read_can_be_undone(path: str, server: str) -> None:
    fill(path)
    move(path, server)
    with closing(sqlite3.connect(path)) as db:
        db.execute("UPDATE meta SET value = '{\"to\": 5}' WHERE key = ?", (MOVED_FACT,))
        db.commit()
    assert refuse_opening(path) == f"{path} was moved to a server; `cronactors copy --unmark {path}` lets it be used again"
    with pytest.raises(FileMoved):
        move(path, server)
    assert unmark(path) is None
    SqliteStorage(path, wall=system_wall).close()


def test_a_file_that_was_moved_is_not_moved_to_another_place(path: str, server: str) -> None:
    fill(path)
    moved = move(path, server)
    assert move(path, server) == Moved(to=moved.to, counts=None), "the same command again has nothing to do"
    elsewhere = server.replace("schema=", "schema=other_")
    try:
        with pytest.raises(FileMoved):
            move(path, elsewhere)
        with pytest.raises(FileMoved):
            move(path, server, user_id=USER)
    finally:
        rows_on_server(elsewhere, f"DROP SCHEMA {split_schema(elsewhere, '')[1]} CASCADE")


def test_another_server_of_the_same_name_does_not_get_old_jobs(path: str, server: str) -> None:
    """Such as an empty one behind a tunnel: the first one may have run the jobs for months."""
    fill(path)
    move(path, server)
    rows_on_server(server, f"DROP SCHEMA {split_schema(server, '')[1]} CASCADE")
    with pytest.raises(FileMoved):
        move(path, server)
    assert rows_on_server(server, "SELECT count(*) FROM @jobs") == [(0,)]


# Refused, and nothing has changed


@contextmanager
def nothing_changes(path: str, url: str, *, rows: int = 0) -> Iterator[None]:
    """File and server are the same after the block, but that an empty schema may have been created."""
    before = dump(path)
    yield
    assert dump(path) == before
    SqliteStorage(path, wall=system_wall).close()
    exists = rows_on_server(url, f"SELECT 1 FROM pg_namespace WHERE nspname = '{split_schema(url, '')[1]}'")
    for table in TABLES if exists else ():
        assert rows_on_server(url, f"SELECT count(*) FROM @{table.name}")[0][0] <= rows, table.name


@pytest.mark.parametrize("idle_for", [0, leases.LEASE + leases.HEARTBEAT_WHEN_IDLE - 10_000])
def test_a_scheduler_that_may_be_running_keeps_the_file(path: str, server: str, idle_for: int) -> None:
    fill(path)
    heartbeat_at = system_wall() - idle_for
    alive = owner(machine="another/boot/namespaces", pid=4321, heartbeat_at=heartbeat_at, lease_until=heartbeat_at + leases.LEASE)
    with closing(SqliteStorage(path, wall=system_wall)) as file:
        assert file.begin(write=True)
        number = file.insert_owner(alive)
        file.commit()
        with nothing_changes(path, server):
            with pytest.raises(
                StoreUnavailable, match=r"jobs\.db is in use by a scheduler \(process 4321\): stop it first; .* 90 s"
            ):
                move(path, server)
            with pytest.raises(StoreUnavailable, match="is in use"):
                move(path, server, user_id=USER)
        assert file.begin(write=True)
        leases.end_lease(file, number)
        file.commit()
    move(path, server)


def test_a_server_that_has_jobs_or_history_is_refused(path: str, server: str) -> None:
    fill(path)
    address, schema = split_schema(server, "")
    with closing(PostgresStorage(address, schema=schema)) as storage:
        assert storage.begin(write=True)
        add_run(storage)
        storage.commit()
    with nothing_changes(path, server, rows=1), pytest.raises(StoreUnavailable, match="has jobs or a history of its own"):
        move(path, server)


def test_a_locked_file_is_refused(path: str, server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cronactors.copying._OPEN_TIMEOUT", 0.1)
    fill(path)
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreUnavailable, match="is locked by another process"):
            move(path, server)


def test_nobody_writes_to_the_file_while_it_is_copied(path: str, server: str) -> None:
    fill(path)
    locked: list[bool] = []

    def report(*_: object) -> None:
        with closing(sqlite3.connect(path, isolation_level=None, timeout=0)) as other:
            try:
                other.execute("BEGIN IMMEDIATE")
            except sqlite3.OperationalError:
                locked.append(True)

    move(path, server, report=report)
    assert len(locked) > 5


@pytest.mark.parametrize("damage", ["DELETE FROM job_specs WHERE number = 2", "UPDATE runs SET result = 'a\0b' WHERE id = 1"])
def test_what_the_server_cannot_store_stops_the_move(path: str, server: str, damage: str) -> None:
    fill(path)
    with closing(sqlite3.connect(path)) as db:
        statement, _, text = damage.partition("'")
        db.execute(f"{statement}? WHERE id = 1" if text else statement, ("a\0b",) if text else ())
        db.commit()
    message = "cannot store what is in the table runs: .*NUL" if "runs" in damage else "is damaged .half of job 2 is missing"
    with nothing_changes(path, server), pytest.raises(CronError, match=message):
        move(path, server)


@pytest.mark.slow
def test_the_limits_of_time_of_a_request_do_not_count(path: str, server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for limits in (connecting._SETTINGS, connecting._SINCE_17):
        for name in limits:
            if name.endswith("_timeout"):
                monkeypatch.setitem(limits, name, "2s")
    fill(path)
    assert move(path, server, report=lambda table, *_: time.sleep(3) if table == "runs" else None).counts is not None


@pytest.mark.parametrize("table", ["jobs", "runs", "run_output"])
def test_an_interruption_in_the_middle_leaves_both_as_they_were(path: str, server: str, table: str) -> None:
    fill(path)

    def report(name: str, _total: int, _done: int) -> None:
        if name == table:
            raise KeyboardInterrupt

    with nothing_changes(path, server), pytest.raises(KeyboardInterrupt):
        move(path, server, report=report)
    assert move(path, server).counts is not None


def test_a_lost_connection_leaves_both_as_they_were(path: str, server: str) -> None:
    fill(path)

    def report(name: str, *_: object) -> None:
        if name == "runs":
            copying_here = "datname = current_database() AND query LIKE 'COPY%'"
            assert rows_on_server(server, f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE {copying_here}")

    with nothing_changes(path, server), pytest.raises(StoreUnavailable, match="the connection was lost"):
        move(path, server, report=report)


# The moment of the commits

CHILD = """
import os, sys
from cronactors import copying
from cronactors.storage.postgres.copying import PostgresTarget
path, url, user, where = sys.argv[1:]
if where == "before the server":
    PostgresTarget.commit = lambda self: os.kill(os.getpid(), 9) if self.meta_written else commit(self)
    commit, prepare = PostgresTarget.__mro__[1].commit, PostgresTarget.prepare
    PostgresTarget.meta_written = False
    def note(self, move):
        prepare(self, move)
        self.meta_written = True
    PostgresTarget.prepare = note
else:
    copying._finish = lambda *_: os.kill(os.getpid(), 9)
copying.move_to_server(path, url, schema="cronactors", user_id=user or None, report=lambda *_: None)
"""


@pytest.mark.slow
@pytest.mark.parametrize("user_id", [None, USER])
@pytest.mark.parametrize("where", ["before the server", "after the server"])
def test_a_kill_between_the_commits_is_put_right_by_the_same_command(
    path: str, server: str, tmp_path: Path, where: str, user_id: str | None
) -> None:
    fill(path)
    expected = as_the_next_start_would_find_it(path, tmp_path)
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    done = subprocess.run([sys.executable, "-c", CHILD, path, server, user_id or "", where], env=environment, check=False)
    assert done.returncode == -signal.SIGKILL
    assert re.fullmatch(
        rf"{re.escape(path)}: the move to postgresql://.* was interrupted: repeat it, or `cronactors copy --unmark {re.escape(path)}`",
        refuse_opening(path),
    )
    here = rows_on_server(server, "SELECT count(*) FROM @jobs")[0][0]
    assert bool(here) == (where == "after the server")
    with pytest.raises(FileMoved):
        move(path, server, user_id=None if user_id else USER)
    moved = move(path, server, user_id=user_id)
    assert (moved.counts is None) == (where == "after the server")
    with on_server(server) as storage:
        found = read(storage)
    if user_id is None:
        assert found == expected
        assert "was moved to" in refuse_opening(path)
    else:
        assert [row.id for _, row in found["jobs"]] == ["a1", "a2"]
        with closing(SqliteStorage(path, wall=system_wall)) as file:
            assert [row.id for _, row in read(file)["jobs"]] == ["own", "b1"]


@pytest.mark.parametrize("user_id", [None, USER])
def test_a_commit_that_fails_leaves_both_as_they_were(
    path: str, server: str, monkeypatch: pytest.MonkeyPatch, user_id: str | None
) -> None:
    fill(path)
    prepare = PostgresTarget.prepare

    def lose_connection(self: PostgresTarget, move: Move) -> None:
        prepare(self, move)
        backend = self._fetch("SELECT pg_backend_pid()")[0][0]
        rows_on_server(server, f"SELECT pg_terminate_backend({backend}, 5000)")

    monkeypatch.setattr(PostgresTarget, "prepare", lose_connection)
    with nothing_changes(path, server), pytest.raises(StoreUnavailable, match="connection was lost before the commit"):
        move(path, server, user_id=user_id)
    monkeypatch.undo()
    move(path, server, user_id=user_id)


def test_ctrl_c_between_the_commits_comes_too_late(
    path: str, server: str, with_ctrl_c: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(path)
    mark = SourceFile.mark

    def mark_and_press(self: SourceFile, move: Move) -> None:
        mark(self, move)
        signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(SourceFile, "mark", mark_and_press)
    assert threading.current_thread() is threading.main_thread()
    assert move(path, server).counts is not None
    assert "was moved to" in refuse_opening(path)
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)


def test_another_process_that_carries_out_the_move_is_not_disturbed(path: str, server: str) -> None:
    """The first process has marked the file, and the server has not answered its commit yet."""
    fill(path)
    expected = dump(path)
    with closing(SourceFile(path)) as file:
        address, schema = split_schema(server, "")
        with closing(PostgresTarget(address, schema=schema)) as target:
            pending = Move(id="1", to=target.name, at=1, user_id=None)
            assert target.begin_move(pending)
            assert file.begin(write=True)
            file.mark(pending)
            file.commit()
            with pytest.raises(StoreUnavailable, match="another process is moving"):
                move(path, server)
            target.rollback()
    moved = move(path, server)
    assert moved.counts is not None, "that process was killed, so its rows are not there"
    unmark(path)
    assert dump(path) == expected


@pytest.mark.slow
def test_a_server_that_dies_during_the_commit_is_asked_when_it_is_back(
    path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(path)
    monkeypatch.setattr("cronactors.copying._OPEN_TIMEOUT", 0.2)
    monkeypatch.setattr("cronactors.storage.postgres.session.FATE_WITHIN", 0.2)
    with OwnServer() as server:
        url = f"{server.url()}&schema=x"
        prepare = PostgresTarget.prepare

        def kill_server(self: PostgresTarget, move: Move) -> None:
            prepare(self, move)
            server.kill()

        monkeypatch.setattr(PostgresTarget, "prepare", kill_server)
        with pytest.raises(
            StoreUnavailable, match=r"jobs\.db is marked as moved: repeat the command when the server can be reached"
        ):
            move(path, url)
        assert "was interrupted" in refuse_opening(path)
        monkeypatch.undo()
        server.start()
        assert move(path, url).counts is not None
        with on_server(url) as storage:
            assert len(read(storage)["jobs"]) == 4


# One user


def test_one_user_is_moved_beside_others_with_new_ids(path: str, server: str, tmp_path: Path) -> None:
    fill(path)
    address, schema = split_schema(server, "")
    with closing(PostgresStorage(address, schema=schema)) as storage:
        assert storage.begin(write=True)
        storage.insert_jobs([job("there", user_id="carl", next_run_at=99_999)])
        for at in range(10):
            add_run(storage, job_id="there", job_name="there", user_id="carl", scheduled_at=at, status="success")
        storage.notifications.insert([NotificationRow(0, "stuck:2", None, "on_alert", "there", 1)])
        storage.set_meta("rules", RULES)
        storage.commit()
        before = read(storage)
    with closing(SqliteStorage(path, wall=system_wall)) as file:
        was = read(file, user_id=USER)
        others = read(file)
    move(path, server, user_id=USER)
    with on_server(server) as storage:
        found, every = read(storage, user_id=USER), read(storage)
    shift = found["runs"][-1].id - was["runs"][-1].id
    assert shift >= 10
    assert [each.id - shift for each in found["runs"]] == [each.id for each in was["runs"]]
    assert [each._replace(id=0, waits_for=None) for each in found["runs"]] == [
        each._replace(id=0, waits_for=None) for each in was["runs"]
    ]
    assert [each.waits_for for each in found["runs"]] == [None, None, job_key("a1"), None], (
        "it may wait for a run that stays behind"
    )
    assert [row.held_by and row.held_by - shift for _, row in found["jobs"]] == [row.held_by for _, row in was["jobs"]]
    assert [row._replace(held_by=None) for _, row in found["jobs"]] == [row._replace(held_by=None) for _, row in was["jobs"]]
    assert found["jobs"][0][0] > before["jobs"][0][0]
    assert found["output"] == [[(run_id + shift, *rest) for run_id, *rest in pieces] for pieces in was["output"]]
    assert any(found["output"])
    assert [each for each in found["requests"] if each] == [RunRequestRow("gone", 2000, "once", '{"b": 2}')]
    assert found["episodes"] == was["episodes"]
    new, old = found["notifications"], was["notifications"]
    assert [each[2:] for each in new] == [(each.run_id and each.run_id + shift, *each[3:]) for each in old]
    assert {each.key for each in new if each.key} == {f"stuck:{shift + 2}", "ended:pruned:1"}
    assert every["tagged"] == [["a1"], []]
    assert [row.id for _, row in every["jobs"]] == ["there", "a1", "a2"]
    assert [row for row in every["runs"] if row.user_id == "carl"] == before["runs"]
    assert every["facts"] == [None, json.dumps({**json.loads(RULES), "done": False})]
    with closing(SqliteStorage(path, wall=system_wall)) as file:
        left = read(file)
        assert file.check() is None
        assert read(file, user_id=USER)["jobs"] == read(file, user_id=USER)["runs"] == []
    assert left["jobs"] == [each for each in others["jobs"] if each[1].user_id != USER]
    assert left["runs"] == [each for each in others["runs"] if each.user_id != USER]
    assert left["notifications"] == [each for each in others["notifications"] if each.job_id == "b1"]
    assert left["facts"] == [HISTORY, RULES]
    assert left["origins"] == others["origins"]
    assert left["progress"] == [ProgressRow(5, 50, 0.5, "half"), None], "the next start finds the run that was left running"
    with closing(sqlite3.connect(path)) as db:
        for table in ("job_tags", "job_specs", "run_requests", "run_output", "alert_episodes"):
            rows = db.execute(f"SELECT * FROM {table}").fetchall()
            assert not any("gone" in row or "a2" in row or 4 in row[1:2] for row in rows), table


def test_the_jobs_of_the_agent_itself_are_those_without_a_user(path: str, server: str) -> None:
    fill(path)
    moved = move(path, server, user_id="")
    assert moved.counts is not None
    assert (moved.counts["jobs"], moved.counts["runs"], moved.counts["origins"]) == (1, 1, 1)
    with closing(SqliteStorage(path, wall=system_wall)) as file:
        assert [row.id for _, row in read(file)["jobs"]] == ["a1", "a2", "b1"]
    with on_server(server) as storage:
        assert read(storage)["origins"] == [("list.toml", "conf/list.toml", 1)]


def test_users_can_be_moved_one_after_the_other(path: str, server: str) -> None:
    fill(path)
    for user_id in (USER, OTHER, ""):
        move(path, server, user_id=user_id)
    with on_server(server) as storage:
        found = read(storage)
    assert sorted(row.id for _, row in found["jobs"]) == ["a1", "a2", "b1", "own"]
    assert len(found["runs"]) == len({each.id for each in found["runs"]}) == 7
    with closing(SqliteStorage(path, wall=system_wall)) as file:
        assert (read(file)["jobs"], read(file)["runs"]) == ([], [])


def test_a_user_without_anything_or_with_jobs_there_is_refused(path: str, server: str) -> None:
    fill(path)
    with nothing_changes(path, server), pytest.raises(JobNotFound, match="has no job and no run of the user 'nobody'"):
        move(path, server, user_id="nobody")
    copy = f"{path}.copy"
    shutil.copy(path, copy)
    move(path, server, user_id=USER)
    with pytest.raises(StoreUnavailable, match="has jobs of the user 'ann' already"):
        move(copy, server, user_id=USER)
    rows_on_server(server, "DELETE FROM @jobs")
    with pytest.raises(StoreUnavailable, match=r"has rows of the same jobs in runs already \(runs_of_job\)"):
        move(copy, server, user_id=USER)
    SqliteStorage(copy, wall=system_wall).close()


@pytest.mark.parametrize("waits_for", [(None, CRASH_LOOP), (CRASH_LOOP, None)])
def test_no_run_waits_for_a_crash_loop_on_the_other_side(path: str, server: str, waits_for: tuple[str | None, ...]) -> None:
    with closing(SqliteStorage(path, wall=system_wall)) as file:
        assert file.begin(write=True)
        for name, user_id, key in zip("ab", (USER, OTHER), waits_for, strict=True):
            file.insert_jobs([job(name, user_id=user_id, crashes=2)])
            file.insert_runs([waiting_run(file.jobs([name])[name], Moments(1000), key)])
        file.commit()
    move(path, server, user_id=USER)
    with closing(SqliteStorage(path, wall=system_wall)) as file, on_server(server) as storage:
        assert [each.waits_for for part in (file, storage) for each in read(part)["runs"]] == [None, None]


def test_others_use_the_server_while_rows_are_copied(path: str, server: str) -> None:
    """Their ids are above those that are reserved; a request that has to be alone does not wait either."""
    fill(path)
    address, schema = split_schema(server, "")
    added: list[int] = []
    with closing(PostgresStorage(address, schema=schema)) as other:

        def report(name: str, *_: object) -> None:
            for alone in (True, False):
                assert other.begin(write=True, alone=alone)
                other.insert_jobs([job(f"{name} {alone}", user_id="carl")])
                added.append(add_run(other, job_id=f"{name} {alone}", job_name="x", user_id="carl"))
                other.commit()

        move(path, server, user_id=USER, report=report)
        assert len(added) > 10
        found = read(other)
    moved = {each.id for each in found["runs"]} - set(added)
    assert len(moved) == 4
    assert len({number for number, _ in found["jobs"]}) == len(found["jobs"]) == len(added) + 2


def test_a_list_of_the_same_origin_is_upserted_while_rows_are_copied(path: str, server: str) -> None:
    """Nobody waits for the row of an origin, or of a name, while the history is copied."""
    fill(path)
    done = _upsert_meanwhile(path, server, user_id="", name="new")
    assert done == [Done, Done]
    with on_server(server) as storage:
        assert read(storage)["origins"] == [("list.toml", "theirs.toml", 2)]


def test_a_name_that_is_added_while_rows_are_copied_stops_the_move(path: str, server: str) -> None:
    fill(path)
    message = r"has rows of the same jobs in jobs already \(jobs_user_id_name_key\)"
    with nothing_changes(path, server, rows=2), pytest.raises(StoreUnavailable, match=message):
        _upsert_meanwhile(path, server, user_id="", name="own")
    assert rows_on_server(server, "SELECT name FROM @jobs ORDER BY name") == [("beside",), ("own",)]


def _upsert_meanwhile(path: str, url: str, *, user_id: str, name: str) -> list[type]:
    """Move a user; while runs are copied upsert a list with a job, and add another job beside others. Return what became of both."""
    defaults = Defaults(timezone="UTC", max_retries=3, timeout_secs=60)
    results: list[type] = []

    def report(table: str, *_: object) -> None:
        if table == "runs":
            specs = [
                (job_id, JobSpec(each, "p", Cron("0 9 * * *"))) for job_id, each in zip(new_ids(2), (name, "beside"), strict=True)
            ]
            upsert = UpsertJobs((JobList(specs=specs[:1], origin="list.toml", file="theirs.toml"),), defaults)
            for request in (upsert, AddJobs(tuple(specs[1:]), defaults)):
                results.append(type(run_batch(other, [request])))

    address, schema = split_schema(url, "")
    with closing(PostgresStorage(address, schema=schema)) as other:
        move(path, url, user_id=user_id, report=report)
    return results
