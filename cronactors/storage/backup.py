"""A copy of a database file while other processes use it. It is complete and checked, or it is not there."""

from __future__ import annotations

import os
import secrets
import sqlite3
from contextlib import closing
from pathlib import Path

import attrs

from cronactors.errors import InvalidConfig, StoreCorrupt, StoreUnavailable, one_line, shorten
from cronactors.storage.creation import _fill_and_sync, _private, _sync_folder
from cronactors.storage.errors import StorageErrors
from cronactors.storage.file_state import MEMORY, locate
from cronactors.storage.schema import check_file

_BUSY_S = 10.0
_PAGES = 5_000
"""How many pages are copied between two looks for Ctrl-C: some 20 MB."""


@attrs.frozen
class Backup:
    """A finished backup.

    Attributes:
        path: Where it is.
        jobs: How many jobs it has.
        runs: How many runs.
        size: Its size (bytes).
    """

    path: str
    jobs: int
    runs: int
    size: int


def back_up(path: str, target: str) -> Backup:
    """Copy a database to a new file, as it is at one moment. Other processes keep reading and writing meanwhile.

    The copy is written under a name that ends in ``.part``, with mode 0600. It gets its own name once it is complete, synced and
    checked: SQLite's integrity check, and ours of the schema. Its schema is that of the file, also an older one.

    Args:
        path: The database.
        target: The new file. Its folder must exist.

    Raises:
        InvalidConfig: The target exists already, or is not the path of a file.
        FileMoved: The jobs of the file were moved to a server.
        StoreUnavailable: The database is missing or cannot be read, or the disk is full.
        StoreCorrupt: The database is damaged, of another application or of a newer version.
    """
    source = _locate_source(path)
    file = _locate_target(target)
    with StorageErrors(path):
        check_file(path, source, busy_timeout=_BUSY_S)
    unfinished = file.with_name(f"{file.name}.{secrets.token_hex(8)}.part")
    found: list[Backup] = []

    def fill(copy: Path) -> None:
        try:
            with StorageErrors(path):
                _copy(source, copy)
        except StoreUnavailable as error:
            if (getattr(error.__cause__, "sqlite_errorcode", 0) & 0xFF) == sqlite3.SQLITE_FULL:
                raise StoreUnavailable(f"{target} cannot be written: its disk is full") from error
            raise
        found.append(_check(path, copy, target))

    with StorageErrors(target), _private(unfinished):
        _fill_and_sync(unfinished, fill)
        _give_name(unfinished, file, target)
        _sync_folder(file.parent)
    return found[0]


def _locate_source(path: str) -> Path:
    if path == MEMORY:
        raise StoreUnavailable(f"{path} does not exist: a store in memory has no file")
    with StorageErrors(path):
        try:
            source = Path(locate(path))
        except ValueError as error:  # a NUL or a lone surrogate in it
            raise StoreUnavailable(f"{shorten(path)} is no path") from error
        if not source.is_file():
            raise StoreUnavailable(f"{path} {'is no file' if source.exists() else 'does not exist'}")
        if source.stat().st_size <= 1:
            raise StoreCorrupt(f"{path} is empty: it is no database")
    return source


def _locate_target(target: str) -> Path:
    if target == MEMORY:
        raise InvalidConfig(f"FILE must be a file, not {target}")
    with StorageErrors(target):
        try:
            file = Path(locate(target))
        except ValueError as error:
            raise InvalidConfig(f"FILE {shorten(target)} is no path") from error
    if os.path.lexists(file):
        raise _exists(target)
    return file


def _exists(target: str) -> InvalidConfig:
    return InvalidConfig(f"{target} exists already, and a backup never overwrites a file: choose another name")


def _copy(source: Path, copy: Path) -> None:
    """Copy the committed content of one moment.

    The read transaction holds that moment: without it, SQLite begins anew whenever another process has written.
    """
    with (
        closing(sqlite3.connect(source, timeout=_BUSY_S, isolation_level=None)) as reading,
        closing(sqlite3.connect(copy, isolation_level=None)) as writing,
    ):
        writing.execute("PRAGMA synchronous = OFF")  # we sync it ourselves, once
        reading.execute("BEGIN")
        reading.execute("SELECT count(*) FROM sqlite_master").fetchone()
        reading.backup(writing, pages=_PAGES, progress=lambda *_: _between_steps())
        reading.execute("COMMIT")


def _between_steps() -> None:
    """Let Ctrl-C be handled: SQLite alone would not return to Python until the end."""


def _check(path: str, copy: Path, target: str) -> Backup:
    """Check the copy, by SQLite and by us."""
    with StorageErrors(path):
        check_file(path, copy, busy_timeout=_BUSY_S)
        with closing(sqlite3.connect(f"{copy.as_uri()}?mode=ro&immutable=1", uri=True)) as connection:
            (verdict,) = connection.execute("PRAGMA integrity_check(1)").fetchone()
            if verdict != "ok":
                raise StoreCorrupt(f"{path} is damaged ({one_line(str(verdict), 200)}), and no backup was written")
            jobs, runs = (connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0] for table in ("jobs", "runs"))
    return Backup(target, jobs, runs, copy.stat().st_size)


def _give_name(unfinished: Path, file: Path, target: str) -> None:
    """Give the finished copy its name, unless another process has taken the name meanwhile."""
    try:
        os.link(unfinished, file)
    except FileExistsError:
        raise _exists(target) from None
    except OSError:  # a file system without links: there we take the name first, and replace our own empty file
        try:
            os.close(os.open(file, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
        except FileExistsError:
            raise _exists(target) from None
        try:
            unfinished.replace(file)
        except BaseException:
            file.unlink()
            raise
