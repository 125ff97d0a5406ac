"""Opens a SQLite file only to read it: nothing is created, upgraded, or left beside it."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import TypeVar

import attrs

from cronactors.errors import CronError, StoreCorrupt, StoreUnavailable, shorten
from cronactors.storage.errors import StorageErrors
from cronactors.storage.file_state import MEMORY, database_files, file_ids, locate
from cronactors.storage.schema import SCHEMA_VERSION, check_file
from cronactors.storage.sqlite import SqliteStorage
from cronactors.storage.sqlite_history import SqliteHistory
from cronactors.storage.sqlite_jobs import SqliteJobs
from cronactors.storage.sqlite_notifications import SqliteNotifications
from cronactors.storage.sqlite_pauses import SqlitePauses
from cronactors.storage.sqlite_pruning import SqlitePruning
from cronactors.storage.sqlite_run_output import SqliteOutput
from cronactors.storage.sqlite_run_requests import SqliteRunRequests
from cronactors.storage.stop_marks import StopMarks
from cronactors.storage.values import integer
from cronactors.wallclock import system_wall

_BUSY_S = 5.0
_MOST_ATTEMPTS = 5

_T = TypeVar("_T")


@attrs.frozen
class FileFigures:
    """The figures of a file.

    Attributes:
        schema: The version of its schema.
        size: How many bytes it has, without its ``-wal``.
        free: How many of them are in free pages.
        log: How many bytes its ``-wal`` has.
    """

    schema: int
    size: int
    free: int
    log: int


class ReadOnlyStorage(SqliteStorage):
    """The storage in a file that is opened only to read it."""

    def __init__(self, connection: sqlite3.Connection, path: str) -> None:
        SqliteJobs.__init__(self, connection, path)
        self.wall = system_wall
        self._files = database_files(path)
        self._opened = file_ids(self._files)
        self.history = SqliteHistory(connection, path)
        self.pruning = SqlitePruning(connection, path)
        self.output = SqliteOutput(connection, path)
        self.run_requests = SqliteRunRequests(connection, path)
        self.pauses = SqlitePauses(connection, path)
        self.notifications = SqliteNotifications(connection, path)
        self._marks = StopMarks(self._files[0])

    def figures(self) -> FileFigures:
        """Read the figures of the file."""
        names = ("user_version", "page_size", "page_count", "freelist_count")
        schema, page, pages, free = (integer(self._fetch(f"PRAGMA {name}")[0][0]) for name in names)
        log = Path(self._files[1])
        return FileFigures(schema, page * pages, page * free, log.stat().st_size if log.exists() else 0)

    @property
    def is_current(self) -> bool:
        """Whether the file has the schema of this version, which its verbs need."""
        return self.figures().schema == SCHEMA_VERSION


def read_file(path: str, read: Callable[[ReadOnlyStorage], _T]) -> _T:
    """Open a file, and return what ``read`` returns for it; it is called again if another process opens the file meanwhile.

    A connection that only reads cannot delete the ``-wal`` and ``-shm`` that it creates. So where there is no ``-wal``, and no process
    has the file open, we open it as "immutable", which creates neither. Should a process begin to write meanwhile, there is a ``-wal``
    afterwards, and what was read does not count.

    Raises:
        FileMoved: It is marked as moved.
        StoreUnavailable: It is missing, out of reach or not permitted.
        StoreCorrupt: It is damaged, of another application or of a newer version.
    """
    with StorageErrors(path):
        file = _file(path)
        log = Path(f"{file}-wal")
        for attempt in range(_MOST_ATTEMPTS):
            had_log = log.exists()
            try:
                check_file(path, file, busy_timeout=_BUSY_S)
                with closing(_connect(file, immutable=not had_log)) as connection:
                    found = read(ReadOnlyStorage(connection, path))
            except (CronError, sqlite3.Error):
                if log.exists() == had_log or attempt == _MOST_ATTEMPTS - 1:
                    raise
            else:
                if log.exists() == had_log:
                    return found
    raise StoreUnavailable(f"{path} is opened and closed by another process again and again: try once more")


def _file(path: str) -> Path:
    try:
        file = Path(locate(path))
    except ValueError as error:  # a NUL or a lone surrogate in it
        raise StoreUnavailable(f"{shorten(path)} is no path") from error
    if path == MEMORY or not file.exists():
        raise StoreUnavailable(f"{path} does not exist")
    if not file.is_file():
        raise StoreUnavailable(f"{path} is {'a directory' if file.is_dir() else 'a device'}, not a file")
    if file.stat().st_size <= 1:
        raise StoreCorrupt(f"{path} is empty: it was cut off, or another program made it")
    return file


def _connect(file: Path, *, immutable: bool) -> sqlite3.Connection:
    uri = f"{file.as_uri()}?mode=ro{'&immutable=1' if immutable else ''}"
    connection = sqlite3.connect(uri, uri=True, timeout=_BUSY_S, isolation_level=None)
    connection.execute("PRAGMA query_only = ON")
    return connection
