"""SQLite's errors: what users get instead, and what passes as a bug."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from cronactors.errors import StoreCorrupt, StoreUnavailable
from cronactors.storage.errors import Contended, StorageErrors


def error_of(statement: str, *, setup: str = "") -> sqlite3.Error:
    db = sqlite3.connect(":memory:")
    db.executescript(f"CREATE TABLE t (a TEXT UNIQUE) STRICT; {setup}")
    with pytest.raises(sqlite3.Error) as caught:
        db.execute(statement).fetchall()
    db.close()
    return caught.value


def sqlite_error(name: str) -> sqlite3.OperationalError:
    error = sqlite3.OperationalError("made up")
    error.sqlite_errorname, error.sqlite_errorcode = name, getattr(sqlite3, name)
    return error


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (sqlite_error("SQLITE_CORRUPT"), StoreCorrupt("f.db is damaged or not a database (SQLITE_CORRUPT: made up)")),
        (sqlite_error("SQLITE_NOTADB"), StoreCorrupt("f.db is damaged or not a database (SQLITE_NOTADB: made up)")),
        (sqlite_error("SQLITE_BUSY"), Contended("f.db cannot be used now (SQLITE_BUSY: made up)")),
        (sqlite_error("SQLITE_BUSY_SNAPSHOT"), Contended("f.db cannot be used now (SQLITE_BUSY_SNAPSHOT: made up)")),
        (sqlite_error("SQLITE_LOCKED"), Contended("f.db cannot be used now (SQLITE_LOCKED: made up)")),
        (sqlite_error("SQLITE_FULL"), StoreUnavailable("f.db cannot be used now (SQLITE_FULL: made up)")),
        (
            error_of("SELECT * FROM missing"),
            StoreCorrupt("f.db is damaged, was moved, or a newer version has upgraded it meanwhile (no such table: missing)"),
        ),
        (
            error_of("SELECT a FROM t", setup="INSERT INTO t VALUES (CAST(X'ff' AS TEXT))"),
            StoreCorrupt("f.db is damaged or not a database (text in it is not UTF-8)"),
        ),
        (
            UnicodeDecodeError("utf-8", b"secret", 0, 1, "no"),
            StoreCorrupt("f.db is damaged or not a database (text in it is not UTF-8)"),
        ),
        (PermissionError(13, "Permission denied"), StoreUnavailable("f.db cannot be opened: Permission denied")),
    ],
    ids=str,
)
def test_an_error_of_sqlite_or_the_system_names_the_file(error: Exception, expected: Exception) -> None:
    with pytest.raises(type(expected)) as caught, StorageErrors("f.db"):
        raise error
    assert (type(caught.value), str(caught.value)) == (type(expected), str(expected))
    assert caught.value.__cause__ is error


@pytest.mark.parametrize(
    "error",
    [
        error_of("INSERT INTO t VALUES ('a')", setup="INSERT INTO t VALUES ('a')"),
        error_of("SELECT ?"),
        ValueError("a bug"),
        KeyboardInterrupt(),
    ],
    ids=lambda error: type(error).__name__,
)
def test_a_bug_passes_unchanged(error: BaseException) -> None:
    with pytest.raises(type(error)) as caught, StorageErrors("f.db"):
        raise error
    assert caught.value is error


def test_without_an_error_nothing_happens(tmp_path: Path) -> None:
    with StorageErrors(str(tmp_path)):
        pass
