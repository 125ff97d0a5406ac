"""Opening a database file: checked before it is touched, created if it is missing, and set up the same way each time."""

from __future__ import annotations

import os
import sqlite3
import urllib.parse  # noqa: F401 - for Path.as_uri, which from Python 3.13 on imports it only when called
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Final

from cronactors.errors import StoreCorrupt, StoreUnavailable, shorten
from cronactors.storage.creation import create_database
from cronactors.storage.errors import StorageErrors
from cronactors.storage.file_state import MEMORY, locate
from cronactors.storage.schema import bring_up_to_date, check_file

LOG_LIMIT: Final = 8 << 20
"""Size (bytes) to which the ``-wal`` is cut after a checkpoint: twice the size that it reaches without a long reader.

A reader delays the checkpoint, and without a limit the ``-wal`` would keep its largest size for as long as the file is open
(SQLite, "PRAGMA journal_size_limit").
"""

_OLDEST_SQLITE = (3, 37, 0)
_BUSY_MS = 100


def connect(path: str, *, create: bool, marked: bool = False) -> sqlite3.Connection:
    """Open a file, ready for use. Waits at most 0.1 s for a lock.

    Args:
        path: The file, or ``":memory:"``.
        create: Whether to create a missing file, with mode 0600.
        marked: Whether it may be marked as moved. Then it keeps its schema.

    Raises:
        FileMoved: It is marked, and must not be.
        Contended: Another process holds the lock.
        StoreUnavailable: It is missing, out of reach, not permitted or read-only.
        StoreCorrupt: It is damaged, of another application or of a newer version. It has not been changed.
    """
    if sqlite3.sqlite_version_info < _OLDEST_SQLITE:
        raise StoreUnavailable(f"SQLite {sqlite3.sqlite_version} is too old: 3.37 or newer is needed")
    with StorageErrors(path):
        place = path if path == MEMORY else _check_or_create(path, create=create, marked=marked)
        connection = sqlite3.connect(
            place, timeout=_BUSY_MS / 1000, isolation_level=None, check_same_thread=False, cached_statements=256
        )
        try:
            _set_up(connection)
            if not marked:
                bring_up_to_date(connection, path)
        except BaseException:
            connection.close()
            raise
    return connection


def _check_or_create(path: str, *, create: bool, marked: bool) -> str:
    """Check an existing file without changing it, or create a missing one. Return where it is, see `locate`."""
    try:
        place = locate(path)
    except ValueError as error:  # a NUL or a lone surrogate in it
        raise StoreUnavailable(f"{shorten(path)} is no path") from error
    file = Path(place)
    if not file.exists():
        if not create:
            raise StoreUnavailable(f"{path} does not exist")
        create_database(file, lambda unfinished: _fill(unfinished, path))
    if not file.is_file():
        raise StoreUnavailable(f"{path} is {'a directory' if file.is_dir() else 'a device'}, not a file")
    # SQLite would open it nevertheless, and leave a -wal beside it that cannot be written later.
    if not os.access(file, os.R_OK | os.W_OK, effective_ids=os.access in os.supports_effective_ids):
        raise StoreUnavailable(f"{path} cannot be read and written: permission denied or read-only")
    if file.stat().st_size <= 1:  # SQLite takes it for a new database, but ours are never empty (see `creation`)
        raise StoreCorrupt(f"{path} is empty: it was cut off, or another program made it; to begin anew remove it")
    check_file(path, file, busy_timeout=_BUSY_MS / 1000, marked=marked)
    return place


def _fill(unfinished: Path, path: str) -> None:
    """Write an empty database in WAL mode; `create_database` syncs it.

    Closing the connection would copy the ``-wal`` into the file too, but it reports no error, as of a full disk: the file would
    get its name without its content.
    """
    with closing(sqlite3.connect(unfinished, isolation_level=None)) as connection:
        connection.execute("PRAGMA synchronous = OFF")
        connection.execute("PRAGMA journal_mode = WAL")
        bring_up_to_date(connection, path)
        busy, *_ = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
    if busy:
        raise StoreUnavailable(f"{path} cannot be created: another program reads {unfinished.name}")


def _set_up(connection: sqlite3.Connection) -> None:
    """Set the pragmas of every connection.

    We use WAL, so that readers never wait for the writer. We use FULL, because with NORMAL, the usual companion of WAL, a power
    cut loses commits that were already acknowledged (SQLite, "PRAGMA synchronous"). FULL costs one sync per commit, some 250 us
    (docs/performance.md); group commit shares it among up to 100 requests.
    """
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("PRAGMA foreign_keys = ON")
    connection.execute(f"PRAGMA journal_size_limit = {LOG_LIMIT}")


@contextmanager
def keeping_log(file: Path) -> Iterator[None]:
    """Let a connection that is closed inside the block leave the ``-wal`` alone.

    The last connection to close copies the part of the ``-wal`` that its own ``-shm`` lists, and deletes it. If the ``-shm``
    was deleted, other processes may have made a new one and written more. While a second, reading connection is open, ours is not
    the last.
    """
    with closing(sqlite3.connect(f"{file.as_uri()}?mode=ro", uri=True)) as reader:
        with suppress(sqlite3.Error):
            reader.execute("SELECT 1 FROM sqlite_master").fetchall()  # from now on it holds its lock
        yield
