"""Which schema a file has: recognising a file of ours, refusing others untouched, and upgrading older ones."""

from __future__ import annotations

import logging
import sqlite3
from contextlib import closing, suppress
from pathlib import Path
from typing import Final

from cronactors.errors import StoreCorrupt
from cronactors.storage.creation import replace_file
from cronactors.storage.file_state import MEMORY, locate
from cronactors.storage.moved import MOVED_FACT, MOVED_ID, FileMoved, Move
from cronactors.storage.pauses import PauseRow
from cronactors.storage.rows import SPEC, JobRow, OwnerRow, RunRow

logger = logging.getLogger("cronactors.store")

APPLICATION_ID: Final = 0x43524E41
"""Marks a file of cronactors ("CRNA"), in SQLite's ``PRAGMA application_id``."""
SCHEMA_VERSION: Final = 4
"""The newest schema, which this version writes; a file has its own in ``PRAGMA user_version``."""

_COLUMNS = {
    "jobs": JobRow._fields[:SPEC],
    "job_specs": JobRow._fields[SPEC:],
    "runs": RunRow._fields,
    "owners": OwnerRow._fields,
    "meta": ("key", "value"),
    "origins": ("name", "file"),
    "job_tags": ("tag", "number"),
    "pauses": PauseRow._fields,
}


def check_file(path: str, file: Path, *, busy_timeout: float, marked: bool = False) -> None:
    """Refuse a file that is not ours, and leave nothing beside it.

    In WAL mode even a reader creates a ``-wal`` and a ``-shm``, and a connection that only reads cannot delete them again. A
    connection with "immutable" creates neither. It reads no ``-wal`` either, which is right where there is none, as then no
    process has the file open (SQLite, "Write-Ahead Logging", "Read-Only Databases").

    Where there is a ``-wal`` we still read the numbers without it first: the file itself has had an application id of ours since it
    was created, and its schema version only grows. Whether it is marked as moved only the ``-wal`` may know. While another process copies the ``-wal`` into the file, or if one was killed
    while it did, the file alone may look damaged to SQLite; so only a number that could be read counts, and the second reading
    decides.

    Args:
        path: The file, as messages name it.
        file: Where it is.
        busy_timeout: How long to wait for another process that holds the lock (s).
        marked: Whether it may be marked as moved.

    Raises:
        FileMoved: It is marked, and must not be.
        StoreCorrupt: It is damaged, of another application or of a newer version.
        sqlite3.Error: It cannot be read.
    """
    uri = f"{file.as_uri()}?mode=ro"
    has_log = Path(f"{file}-wal").exists()
    with closing(sqlite3.connect(f"{uri}&immutable=1", uri=True)) as connection:
        if not has_log:
            _recognise(connection, path, marked=marked)
            return
        with suppress(sqlite3.DatabaseError):
            _read_version(connection, path)
    with closing(sqlite3.connect(uri, uri=True, timeout=busy_timeout)) as connection:
        _recognise(connection, path, marked=marked)


def bring_up_to_date(connection: sqlite3.Connection, path: str) -> None:
    """Take the file to the newest schema in one transaction; a new file has none yet.

    Raises:
        StoreCorrupt: It is damaged, of another application or of a newer version. Nothing has changed.
        sqlite3.Error: It failed. Nothing has changed.
    """
    if _user_version(connection) == SCHEMA_VERSION:
        return
    connection.execute("BEGIN IMMEDIATE")
    try:
        _recognise(connection, path)  # another process may have written since `check_file`
        version = _user_version(connection)
        if version != SCHEMA_VERSION:
            _upgrade(connection, path, version)
        connection.execute("COMMIT")
    finally:
        if connection.in_transaction:
            connection.execute("ROLLBACK")


def _recognise(connection: sqlite3.Connection, path: str, *, marked: bool = False) -> None:
    """Raise StoreCorrupt unless the file has our numbers, and our tables if it has any; FileMoved if it is marked and must not be."""
    (tables,) = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    version = _read_version(connection, path, new=not tables)
    if _application_id(connection) == MOVED_ID:
        if marked:
            return
        row = connection.execute("SELECT value FROM meta WHERE key = ?", (MOVED_FACT,)).fetchone()
        raise FileMoved(path, None if row is None else Move.from_json(row[0]))
    if tables and version < 1:
        raise StoreCorrupt(f"{path} is damaged (there are tables, but the number of their schema is {version})")
    if version == SCHEMA_VERSION:
        _check_columns(connection, path)


def _read_version(connection: sqlite3.Connection, path: str, *, new: bool = False) -> int:
    """Return the schema version of a file that is ours; a ``new`` file need not have numbers yet."""
    application = _application_id(connection)
    version = _user_version(connection)
    if application not in (APPLICATION_ID, MOVED_ID) and not (new and application == version == 0):
        raise StoreCorrupt(f"{path} is a database of another application, not of cronactors")
    if version > SCHEMA_VERSION:
        raise StoreCorrupt(f"{path} was written by a newer version (schema {version}, this version knows {SCHEMA_VERSION})")
    return version


def _application_id(connection: sqlite3.Connection) -> int:
    (application,) = connection.execute("PRAGMA application_id").fetchone()
    assert isinstance(application, int)
    return application


def _user_version(connection: sqlite3.Connection) -> int:
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    assert isinstance(version, int)
    return version


def _check_columns(connection: sqlite3.Connection, path: str) -> None:
    """Raise StoreCorrupt if a table lacks a column; additional ones are allowed."""
    for table, columns in _COLUMNS.items():
        existing = {name for (name,) in connection.execute("SELECT name FROM pragma_table_info(?)", (table,))}
        if missing := [name for name in columns if name not in existing]:
            raise StoreCorrupt(f"{path} is damaged (the table {table} lacks {missing[0]})")


def _upgrade(connection: sqlite3.Connection, path: str, version: int) -> None:
    """Take the steps that the file lacks, inside the caller's transaction; before one that deletes data the file is copied."""
    from cronactors.storage import migrations  # noqa: PLC0415 - sqlite-utils costs 40 ms, and most openings need none

    if version and path != MEMORY:
        logger.info("%s is brought from schema %d to %d", path, version, SCHEMA_VERSION)
        if migrations.destroys(version):
            copy_before_upgrade(path, version)
    migrations.migrate(connection, version)
    connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
    connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")


def copy_before_upgrade(path: str, version: int) -> None:
    """Copy the committed content to ``FILE.schema-N.bak``. The caller's lock keeps other processes from writing meanwhile."""

    def fill(unfinished: Path) -> None:
        with closing(sqlite3.connect(place)) as source, closing(sqlite3.connect(unfinished)) as copy:
            source.backup(copy)

    place = locate(path)
    copy_path = Path(f"{place}.schema-{version}.bak")
    replace_file(copy_path, fill)
    logger.info("a copy is kept in %s", copy_path)
