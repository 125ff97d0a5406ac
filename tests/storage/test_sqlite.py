"""The storage in SQLite when the file is locked, full or damaged. Tests with several processes are in ``chaos``."""

from __future__ import annotations

import random
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from cronactors.errors import StoreCorrupt, StoreUnavailable
from tests import storages
from tests.storages import add, filled, job, job_ids, opened, pragma

path = storages.path


# Errors of SQLite in transactions and verbs


def test_a_lock_of_another_connection_is_no_error(path: str) -> None:
    with closing(opened(path)) as one, closing(opened(path)) as other:
        assert one.begin(write=True)
        one.insert_jobs([job("a")])
        assert not other.begin(write=True)
        assert job_ids(other) == [], "a reader does not wait"
        assert not other.begin(write=True)
        one.commit()
        add(other, "b")
        assert job_ids(one) == ["a", "b"]


def test_an_old_snapshot_cannot_write(path: str) -> None:
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
        assert other.list_jobs(after=0, limit=9, user_id=None) == []
        other.rollback()
        assert job_ids(other) == ["a"]


def test_an_error_of_sqlite_in_a_verb_names_the_file(path: str) -> None:
    with closing(opened(path)) as storage:
        assert storage.begin(write=True)
        storage._db.execute("DROP TABLE runs")
        for verb in (lambda: storage.mark_runs([1]), storage.count_running, lambda: storage.runs([1])):
            with pytest.raises(StoreCorrupt, match=r"jobs\.db .*no such table: runs"):
                verb()
        storage.rollback()
        assert storage.begin(write=True)
        assert storage.count_running() == 0


def test_damage_that_is_found_later_is_reported_as_damage(path: str) -> None:
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


def test_closing_undoes_an_open_transaction(path: str) -> None:
    storage = opened(path)
    assert storage.begin(write=True)
    storage.insert_jobs([job("a")])
    storage.close()
    storage.close()
    with closing(opened(path)) as again:
        assert job_ids(again) == []
