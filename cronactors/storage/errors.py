"""SQLite's errors, mapped in one place. Every call of `sqlite3` in this package is made inside `StorageErrors`."""

from __future__ import annotations

import sqlite3
from types import TracebackType

from cronactors.errors import StoreCorrupt, StoreUnavailable

_CORRUPT = frozenset({"SQLITE_CORRUPT", "SQLITE_NOTADB", "SQLITE_CORRUPT_INDEX", "SQLITE_CORRUPT_VTAB"})
_MISSING = ("no such table", "no such column", "has no column named")
_LOCKED = frozenset({sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED})


class Contended(StoreUnavailable):
    """Another process is in the way: it holds a lock, or has changed the same rows. Nothing has happened, and trying again can help.

    The caller waits before it tries the whole transaction again, where it can be cancelled.
    """


class StorageErrors:
    """A context manager that raises errors of SQLite and of the system as `StoreUnavailable` or `StoreCorrupt`.

    `sqlite3.IntegrityError` and `sqlite3.ProgrammingError` pass unchanged. They come from a wrong row or a wrong call, so they
    are bugs in cronactors and no state of the file: the scheduler ends as `SchedulerCrashed`.

    One object serves all statements of a connection, and costs some 0.15 us each time; a generator with `contextmanager` cost 40
    times as much.

    Args:
        path: The file, as messages name it.
    """

    def __init__(self, path: str) -> None:
        self._path = path

    def __enter__(self) -> None:
        """Do nothing."""

    def __exit__(self, _type: type[BaseException] | None, error: BaseException | None, _traceback: TracebackType | None) -> None:
        """Raise the error that users know instead of this one."""
        if error is None or isinstance(error, sqlite3.IntegrityError | sqlite3.ProgrammingError):
            return
        if isinstance(error, sqlite3.Error | UnicodeDecodeError):
            raise _mapped(error, self._path) from error
        if isinstance(error, OSError):
            raise StoreUnavailable(f"{self._path} cannot be opened: {error.strerror}") from error


def _mapped(error: sqlite3.Error | UnicodeDecodeError, path: str) -> StoreUnavailable | StoreCorrupt:
    """Return the error to raise instead; it names the file."""
    name = getattr(error, "sqlite_errorname", None)
    if name in _CORRUPT:
        return StoreCorrupt(f"{path} is damaged or not a database ({name}: {error})")
    # Our own statements name all tables and columns, so a missing one is no mistake of a user.
    if name == "SQLITE_ERROR" and any(words in str(error) for words in _MISSING):
        return StoreCorrupt(f"{path} is damaged, was moved, or a newer version has upgraded it meanwhile ({error})")
    # The sqlite3 module raises these, for a value or for the message of SQLite about a broken schema. They quote the text, which
    # may be secret.
    if isinstance(error, UnicodeDecodeError) or (name is None and "UTF-8" in str(error)):
        return StoreCorrupt(f"{path} is damaged or not a database (text in it is not UTF-8)")
    # The low byte of an extended code is the primary code (SQLite, "Result Codes").
    locked = (getattr(error, "sqlite_errorcode", 0) & 0xFF) in _LOCKED
    kind = Contended if locked else StoreUnavailable
    return kind(f"{path} cannot be used now ({name or type(error).__name__}: {error})")
