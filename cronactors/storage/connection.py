"""Opening the file: looked at before it is touched, created private, brought to the newest schema in one transaction."""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Final

from cronactors.errors import StoreCorrupt, StoreUnavailable, shorten

MEMORY: Final = ":memory:"
APPLICATION_ID: Final = 0x43524E41
"""Marks the file as ours ("CRNA"); see SQLite's ``PRAGMA application_id``."""
SCHEMA_VERSION: Final = 1
"""Newest schema that this version writes, kept in ``PRAGMA user_version``."""

_OLDEST_SQLITE = (3, 37, 0)
_BUSY_MS = 100
_OPEN_PATIENCE = 10.0
_CORRUPT = frozenset({"SQLITE_CORRUPT", "SQLITE_NOTADB", "SQLITE_CORRUPT_INDEX", "SQLITE_CORRUPT_VTAB"})
_LOCKED = frozenset({sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED})


def locked(error: sqlite3.Error) -> bool:
    """Whether another process holds the lock; the low byte of an extended code is the primary one (SQLite, "Result Codes")."""
    return (getattr(error, "sqlite_errorcode", 0) & 0xFF) in _LOCKED


def ours(error: sqlite3.Error, path: str) -> StoreUnavailable | StoreCorrupt:
    """Turn an error of SQLite into one of ours that names the file."""
    name = getattr(error, "sqlite_errorname", type(error).__name__)
    if name in _CORRUPT:
        return StoreCorrupt(f"{path} is damaged or not a database ({name}: {error})")
    return StoreUnavailable(f"{path} cannot be used now ({name}: {error})")


def connect(path: str, *, create: bool) -> sqlite3.Connection:
    """Open the file, creating it with mode 0600 if asked to, ready for use.

    Raises:
        StoreUnavailable: Missing, unreachable, not permitted, read-only, locked for ten seconds.
        StoreCorrupt: Damaged, of another application, or of a newer version; it has not been touched.
    """
    if sqlite3.sqlite_version_info < _OLDEST_SQLITE:
        raise StoreUnavailable(f"SQLite {sqlite3.sqlite_version} is too old: 3.37 or newer is needed")
    try:
        if path != MEMORY:
            _prepare(path, create=create)
        connection = sqlite3.connect(
            path, timeout=_BUSY_MS / 1000, isolation_level=None, check_same_thread=False, cached_statements=256
        )
    except sqlite3.Error as error:
        raise ours(error, path) from error
    except OSError as error:
        raise StoreUnavailable(f"{path} cannot be opened: {error.strerror}") from error
    except ValueError as error:  # a NUL or a lone surrogate in it
        raise StoreUnavailable(f"{shorten(path)} is no path") from error
    try:
        _patiently(lambda: _set_up(connection, path))
    except BaseException as error:
        connection.close()
        if isinstance(error, sqlite3.Error):
            raise ours(error, path) from error
        raise
    return connection


def _prepare(path: str, *, create: bool) -> None:
    """Look at an existing file without changing it; make a missing one."""
    file = Path(path)
    if not file.exists():
        if not create:
            raise StoreUnavailable(f"{path} does not exist")
        if not file.parent.is_dir():
            raise StoreUnavailable(f"{path} cannot be created: the folder {file.parent} does not exist")
        try:  # realpath, because O_EXCL follows no link, and SQLite would make the target readable to all
            os.close(os.open(os.path.realpath(path), os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
        except FileExistsError:  # another process was first
            return
    if not file.is_file():
        raise StoreUnavailable(f"{path} is {'a directory' if file.is_dir() else 'a device'}, not a file")
    # SQLite would open it all the same, and leave a log beside it that cannot be written later.
    if not os.access(path, os.R_OK | os.W_OK, effective_ids=os.access in os.supports_effective_ids):
        raise StoreUnavailable(f"{path} cannot be read and written: permission denied or read-only")
    if file.stat().st_size:
        _patiently(lambda: _look(path))


def _look(path: str) -> None:
    """Refuse a file that is not ours, leaving nothing beside it.

    In WAL mode a reader makes a log and an index and, reading only, cannot take them away; "immutable" makes none, and is right
    where there is no log, as then nobody has the file open (SQLite, "Write-Ahead Logging", "Read-Only Databases").
    """
    mode = "mode=ro" if Path(f"{os.path.realpath(path)}-wal").exists() else "mode=ro&immutable=1"
    uri = f"{Path(path).absolute().as_uri()}?{mode}"
    with closing(sqlite3.connect(uri, uri=True, timeout=_BUSY_MS / 1000)) as connection:
        _recognise(connection, path)


def _recognise(connection: sqlite3.Connection, path: str) -> None:
    (application,) = connection.execute("PRAGMA application_id").fetchone()
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    (tables,) = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    if application != APPLICATION_ID and (application or version or tables):
        raise StoreCorrupt(f"{path} is a database of another application, not of cronactors")
    if version > SCHEMA_VERSION:
        raise StoreCorrupt(f"{path} was written by a newer version (schema {version}, this version knows {SCHEMA_VERSION})")


def _set_up(connection: sqlite3.Connection, path: str) -> None:
    """Set what each connection needs. WAL with FULL: a commit survives a power cut (SQLite, "PRAGMA synchronous")."""
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("PRAGMA foreign_keys = ON")
    if connection.execute("PRAGMA user_version").fetchone() == (SCHEMA_VERSION,):
        return
    connection.execute("BEGIN IMMEDIATE")
    try:
        _recognise(connection, path)  # again: another process may have been at work since the first look
        if connection.execute("PRAGMA user_version").fetchone() != (SCHEMA_VERSION,):
            from cronactors.storage.migrations import migrate  # noqa: PLC0415 - sqlite-utils costs 40 ms, and most openings need none

            migrate(connection)
            connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
            connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
        connection.execute("COMMIT")
    finally:
        if connection.in_transaction:
            connection.execute("ROLLBACK")


def _patiently(step: Callable[[], None]) -> None:
    """Try a step again while another process holds the lock: the switch to WAL does not wait by itself."""
    until = time.monotonic() + _OPEN_PATIENCE
    while True:
        try:
            step()
        except sqlite3.OperationalError as error:
            if not locked(error) or time.monotonic() > until:
                raise
            time.sleep(0.02)
        else:
            return
