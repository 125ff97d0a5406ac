"""The log of the file and the memory of the library become small again after they have grown."""

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


def test_the_log_is_truncated_when_a_long_reader_has_finished(path: str) -> None:
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


def test_the_log_of_a_scheduler_without_readers_is_never_truncated(path: str) -> None:
    """SQLite writes it from its beginning again. To truncate it each time would cost a write of the folder."""
    log = Path(f"{path}-wal")
    with closing(opened(path)) as storage:
        sizes = []
        for number in range(0, 60, 2):
            add_large(storage, number, 2)
            sizes.append(log.stat().st_size)
        assert sizes == sorted(sizes)
        assert sizes[-1] <= LOG_LIMIT


@pytest.mark.parametrize("again", [False, True])
def test_the_log_is_truncated_after_a_batch_larger_than_the_limit(path: str, again: bool) -> None:
    log = Path(f"{path}-wal")
    with closing(opened(path)) as storage:
        for batch in range(1 + again):
            assert storage.begin(write=True)
            storage.insert_jobs([job(f"{batch}-{number}", prompt="x" * 200_000) for number in range(100)])
            storage.commit()
            assert log.stat().st_size > 2 * LOG_LIMIT
        add_large(storage, 0, 1)
        assert log.stat().st_size <= LOG_LIMIT
