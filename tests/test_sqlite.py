"""The SQLite storage among other processes and in trouble: opened by many at once, locked, killed, full, damaged."""

from __future__ import annotations

import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import pytest

import cronactors
from cronactors.errors import StoreCorrupt, StoreUnavailable
from cronactors.storage import connection
from cronactors.storage.connection import connect
from tests import storages
from tests.storages import add, filled, job, job_ids, opened, pragma

path = storages.path
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(Path(cronactors.__file__).parent.parent)}


# Several at once

OPENS = """
import sys
from contextlib import closing
from cronactors.storage.sqlite import SqliteStorage
print("ready", flush=True)
for line in sys.stdin:
    try:
        with closing(SqliteStorage(line.strip(), wall=lambda: 0)) as storage:
            assert storage.owners() == []
        print("opened", flush=True)
    except Exception as error:
        print(repr(error), flush=True)
"""


def test_processes_that_open_a_new_file_at_once_all_succeed(tmp_path: Path) -> None:
    children = [
        subprocess.Popen([sys.executable, "-c", OPENS], env=ENVIRONMENT, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        for _ in range(6)
    ]
    try:
        pipes = [(child.stdin, child.stdout) for child in children if child.stdin and child.stdout]
        assert [answers.readline() for _, answers in pipes] == ["ready\n"] * 6
        for round_ in range(6):
            path = tmp_path / f"{round_}.db"
            for questions, _ in pipes:
                print(path, file=questions, flush=True)
            assert [answers.readline() for _, answers in pipes] == ["opened\n"] * 6
            with closing(sqlite3.connect(path)) as db:
                assert db.execute("SELECT count(*) FROM _sqlite_migrations").fetchone() == (1,)
    finally:
        for child in children:
            with child:
                child.kill()


@pytest.mark.parametrize("new", [True, False])
def test_opening_waits_for_a_lock(path: str, monkeypatch: pytest.MonkeyPatch, new: bool) -> None:
    if not new:
        filled(path)
    with closing(sqlite3.connect(path, isolation_level=None)) as holder:
        holder.execute("BEGIN EXCLUSIVE")
        waits = []

        def sleep(seconds: float) -> None:
            waits.append(seconds)
            holder.execute("ROLLBACK")

        monkeypatch.setattr(time, "sleep", sleep)
        connect(path, create=True).close()
        assert len(waits) == (1 if new else 0), "a file that needs no writing needs no waiting"


def test_opening_gives_up_at_last(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "_OPEN_PATIENCE", -1)
    with closing(sqlite3.connect(path, isolation_level=None)) as holder:
        holder.execute("BEGIN EXCLUSIVE")
        with pytest.raises(StoreUnavailable, match=r"jobs\.db .*SQLITE_BUSY"):
            connect(path, create=True)
    filled(path)


# Errors of SQLite in transactions and verbs


def test_a_lock_of_another_is_an_answer_and_no_error(path: str) -> None:
    with closing(opened(path)) as one, closing(opened(path)) as other:
        assert one.begin(write=True)
        one.insert_jobs([job("a")])
        assert not other.begin(write=True)
        assert job_ids(other) == [], "who reads does not wait"
        assert not other.begin(write=True)
        one.commit()
        add(other, "b")
        assert job_ids(one) == ["a", "b"]


def test_an_old_view_cannot_write(path: str) -> None:
    with closing(opened(path)) as one, closing(opened(path)) as other:
        assert other.begin(write=False)
        add(one, "a")
        with pytest.raises(StoreUnavailable, match=r"jobs\.db .*SQLITE_BUSY_SNAPSHOT"):
            other.insert_jobs([job("b")])
        other.rollback()
        add(other, "b")


def test_a_transaction_that_reads_sees_one_state_from_its_beginning(path: str) -> None:
    with closing(opened(path)) as one, closing(opened(path)) as other:
        assert other.begin(write=False)
        add(one, "a")
        assert other.page_of_jobs(after=0, limit=9, user_id=None) == []
        other.rollback()
        assert job_ids(other) == ["a"]


def test_an_error_of_sqlite_in_a_verb_names_the_file(path: str) -> None:
    with closing(opened(path)) as storage:
        assert storage.begin(write=True)
        storage._db.execute("DROP TABLE runs")
        for verb in (lambda: storage.mark_runs([1]), storage.count_running, lambda: storage.runs([1])):
            with pytest.raises(StoreUnavailable, match=r"jobs\.db .*no such table: runs"):
                verb()
        storage.rollback()
        assert storage.begin(write=True)
        assert storage.count_running() == 0


def test_damage_found_later_is_told_as_such(path: str) -> None:
    filled(path, count=500)
    data = bytearray(Path(path).read_bytes())
    assert len(data) > 20 * 4096
    with closing(sqlite3.connect(path)) as db:
        (page,) = db.execute("SELECT rootpage FROM sqlite_master WHERE name = 'jobs'").fetchone()
    data[(page - 1) * 4096 : page * 4096] = random.Random(1).randbytes(4096)
    Path(path).write_bytes(data)
    with closing(opened(path)) as storage, pytest.raises(StoreCorrupt, match=r"jobs\.db is damaged .*SQLITE_CORRUPT"):
        job_ids(storage)


def test_a_full_disk_leaves_nothing_half_done(path: str) -> None:
    with closing(opened(path)) as storage:
        add(storage, "before")
        pages = pragma(storage._db, "page_count")
        assert isinstance(pages, int)
        storage._db.execute(f"PRAGMA max_page_count = {pages + 2}")
        assert storage.begin(write=True)
        storage.savepoint()
        storage.insert_jobs([job("rest")])
        with pytest.raises(StoreUnavailable, match=r"jobs\.db .*SQLITE_FULL"):
            storage.insert_jobs([job("large", prompt="x" * 100_000)])
        for verb in (storage.release, storage.undo, storage.savepoint, storage.commit):
            with pytest.raises(StoreUnavailable):
                verb()
        storage.rollback()
        assert job_ids(storage) == ["before"]
        storage._db.execute("PRAGMA max_page_count = 100000")
        add(storage, "after")
        assert job_ids(storage) == ["before", "after"]


def test_what_was_not_committed_is_gone_after_closing(path: str) -> None:
    storage = opened(path)
    assert storage.begin(write=True)
    storage.insert_jobs([job("a")])
    storage.close()
    storage.close()
    with closing(opened(path)) as again:
        assert job_ids(again) == []


# Killed

KILLED = """
import os, signal, sys
from cronactors.storage import connection, migrations
migrate = migrations.migrate
def dies(db):
    migrate(db)
    db.execute("PRAGMA user_version = 1")
    os.kill(os.getpid(), signal.SIGKILL)
migrations.migrate = dies
connection.connect(sys.argv[1], create=True)
"""


def test_a_process_killed_in_a_migration_leaves_a_file_that_opens(path: str) -> None:
    done = subprocess.run([sys.executable, "-c", KILLED, path], env=ENVIRONMENT, check=False)
    assert done.returncode == -signal.SIGKILL
    filled(path)
    with closing(opened(path)) as storage:
        assert job_ids(storage) == ["000", "001", "002"]
