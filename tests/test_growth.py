"""What has grown once becomes small again: the log of the file, and what the library keeps in memory."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from cronactors.storage.connection import LOG_LIMIT
from tests import storages
from tests.storages import job, opened

path = storages.path


def add_large(storage, first: int, count: int) -> None:
    for number in range(first, first + count):
        assert storage.begin(write=True)
        storage.insert_jobs([job(f"{number:06}", prompt="x" * 200_000)])
        storage.commit()


def test_the_log_is_cut_when_a_long_reader_has_gone(path: str) -> None:
    log = Path(f"{path}-wal")
    with closing(opened(path)) as storage:
        with closing(sqlite3.connect(path, isolation_level=None)) as reader:
            reader.execute("BEGIN")
            reader.execute("SELECT * FROM jobs").fetchall()
            add_large(storage, 0, 100)
            assert log.stat().st_size > 2 * LOG_LIMIT
        add_large(storage, 100, 2)  # the first copies the content, the second begins the log anew
        assert log.stat().st_size <= LOG_LIMIT
        assert storage.check() is None


def test_the_log_of_a_scheduler_without_readers_is_never_cut(path: str) -> None:
    """It is written from its beginning again; to cut it, and let it grow anew, would cost a write of the folder each time."""
    log = Path(f"{path}-wal")
    with closing(opened(path)) as storage:
        sizes = []
        for number in range(0, 60, 2):
            add_large(storage, number, 2)
            sizes.append(log.stat().st_size)
        assert sizes == sorted(sizes)
        assert sizes[-1] <= LOG_LIMIT


@pytest.mark.parametrize("again", [False, True])
def test_the_log_of_a_batch_larger_than_the_limit_is_cut_after_it(path: str, again: bool) -> None:
    log = Path(f"{path}-wal")
    with closing(opened(path)) as storage:
        for batch in range(1 + again):
            assert storage.begin(write=True)
            storage.insert_jobs([job(f"{batch}-{number}", prompt="x" * 200_000) for number in range(100)])
            storage.commit()
            assert log.stat().st_size > 2 * LOG_LIMIT
        add_large(storage, 0, 1)
        assert log.stat().st_size <= LOG_LIMIT
