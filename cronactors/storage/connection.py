"""Opening the file: looked at before it is touched, created private, brought to the newest schema in one transaction."""

from __future__ import annotations

import logging
import os
import secrets
import sqlite3
import urllib.parse  # noqa: F401 - for Path.as_uri, which from Python 3.13 on imports it only when called
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Final

from cronactors.errors import StoreCorrupt, StoreUnavailable, shorten
from cronactors.storage.file_state import MEMORY, locate
from cronactors.storage.rows import SPEC, JobRow, OwnerRow, RunRow

logger = logging.getLogger("cronactors.store")

APPLICATION_ID: Final = 0x43524E41
"""Marks the file as ours ("CRNA"); see SQLite's ``PRAGMA application_id``."""
SCHEMA_VERSION: Final = 2
"""Newest schema that this version writes, kept in ``PRAGMA user_version``."""

LOG_LIMIT: Final = 8 << 20
"""Bytes to which the ``-wal`` is cut when its content has been copied into the file: twice what it reaches without a long reader.

A reader keeps the content from being copied, and without the limit the log kept its greatest size for as long as the file was open
(SQLite, "PRAGMA journal_size_limit").
"""

_OLDEST_SQLITE = (3, 37, 0)
_BUSY_MS = 100
_CORRUPT = frozenset({"SQLITE_CORRUPT", "SQLITE_NOTADB", "SQLITE_CORRUPT_INDEX", "SQLITE_CORRUPT_VTAB"})
_MISSING = ("no such table", "no such column", "has no column named")
_LOCKED = frozenset({sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED})


class FileLocked(StoreUnavailable):
    """Another process holds the lock: worth another try, for which the caller waits where it can be cancelled."""


def locked(error: Exception) -> bool:
    """Whether another process holds the lock; the low byte of an extended code is the primary one (SQLite, "Result Codes")."""
    return (getattr(error, "sqlite_errorcode", 0) & 0xFF) in _LOCKED


def ours(error: sqlite3.Error | UnicodeDecodeError, path: str) -> StoreUnavailable | StoreCorrupt:
    """Turn an error of SQLite into one of ours that names the file."""
    code = getattr(error, "sqlite_errorname", None)
    if code in _CORRUPT:
        return StoreCorrupt(f"{path} is damaged or not a database ({code}: {error})")
    if code == "SQLITE_ERROR" and any(words in str(error) for words in _MISSING):  # of our own statements
        return StoreCorrupt(f"{path} is damaged, or a newer version has upgraded it meanwhile ({error})")
    # Of the sqlite3 module itself, on a value or on SQLite's own words on a broken schema; it shows the text, which may be secret.
    if isinstance(error, UnicodeDecodeError) or (code is None and "UTF-8" in str(error)):
        return StoreCorrupt(f"{path} is damaged or not a database (text in it is not UTF-8)")
    return StoreUnavailable(f"{path} cannot be used now ({code or type(error).__name__}: {error})")


def connect(path: str, *, create: bool) -> sqlite3.Connection:
    """Open the file, creating it with mode 0600 if asked to, ready for use.

    Raises:
        FileLocked: Another process holds the lock.
        StoreUnavailable: Missing, unreachable, not permitted, read-only.
        StoreCorrupt: Damaged, of another application, or of a newer version; it has not been touched.
    """
    if sqlite3.sqlite_version_info < _OLDEST_SQLITE:
        raise StoreUnavailable(f"SQLite {sqlite3.sqlite_version} is too old: 3.37 or newer is needed")
    with _told(path):
        place = path if path == MEMORY else _prepare(path, create=create)
        connection = sqlite3.connect(
            place, timeout=_BUSY_MS / 1000, isolation_level=None, check_same_thread=False, cached_statements=256
        )
        try:
            _set_up(connection, path)
        except BaseException:
            connection.close()
            raise
    return connection


@contextmanager
def _told(path: str) -> Iterator[None]:
    """Errors of SQLite and of the system while the file is opened, as ours."""
    try:
        yield
    except (sqlite3.Error, UnicodeDecodeError) as error:
        told = ours(error, path)
        raise FileLocked(str(told)) if locked(error) else told from error
    except OSError as error:
        raise StoreUnavailable(f"{path} cannot be opened: {error.strerror}") from error


def _prepare(path: str, *, create: bool) -> str:
    """Look at an existing file without changing it; make a missing one. Answer where it is, see `locate`."""
    try:
        place = locate(path)
    except ValueError as error:  # a NUL or a lone surrogate in it
        raise StoreUnavailable(f"{shorten(path)} is no path") from error
    file = Path(place)
    if not file.exists():
        if not create:
            raise StoreUnavailable(f"{path} does not exist")
        _create(path, file)
    if not file.is_file():
        raise StoreUnavailable(f"{path} is {'a directory' if file.is_dir() else 'a device'}, not a file")
    # SQLite would open it all the same, and leave a log beside it that cannot be written later.
    if not os.access(file, os.R_OK | os.W_OK, effective_ids=os.access in os.supports_effective_ids):
        raise StoreUnavailable(f"{path} cannot be read and written: permission denied or read-only")
    if file.stat().st_size <= 1:  # what SQLite takes for a new one; ours is never seen like that
        raise StoreCorrupt(f"{path} is empty: it was cut off, or another program made it; to begin anew remove it")
    _look(path, file)
    return place


def _create(path: str, file: Path) -> None:
    """Make the file, whole or not at all: it gets its name when all of it is on disk, so that an empty one tells of damage."""
    try:
        _create_unnamed(path, file)
    except FileExistsError:
        return  # another process was first
    except (AttributeError, OSError):  # not Linux, or a file system that has no unnamed files
        _create_named(path, file)
    _sync(file.parent)


def _create_unnamed(path: str, file: Path) -> None:
    """Make it without a name, so that nothing is left of it if the process is killed (open(2) on O_TMPFILE has this way to link)."""
    unnamed = os.open(file.parent, os.O_TMPFILE | os.O_RDWR, 0o600)
    try:
        with closing(sqlite3.connect(MEMORY, isolation_level=None)) as connection:
            _set_up(connection, path)
            content = bytearray(connection.serialize())
        content[18:20] = b"\2\2"  # in WAL mode, which a database in memory has not (SQLite, "Database File Format", 1.3.3)
        with open(unnamed, "wb", closefd=False) as made:
            made.write(content)
        os.fsync(unnamed)
        os.link(f"/proc/self/fd/{unnamed}", file, src_dir_fd=unnamed, follow_symlinks=True)
    finally:
        os.close(unnamed)


def _create_named(path: str, file: Path) -> None:
    """Make it under another name; a process that is killed meanwhile leaves it there, with SQLite's log beside it."""
    unfinished = file.with_name(f"{file.name}.{secrets.token_hex(8)}.part")
    os.close(os.open(unfinished, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
    try:
        with closing(sqlite3.connect(unfinished, isolation_level=None)) as connection:
            _set_up(connection, path)
        try:
            os.link(unfinished, file)
        except FileExistsError:
            return  # another process was first
        except OSError:  # a file system without links
            if not file.exists():
                unfinished.replace(file)
    finally:
        unfinished.unlink(missing_ok=True)


def _sync(folder: Path) -> None:
    """Make a new name in a folder durable (fsync(2))."""
    if os.name == "posix":
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _look(path: str, file: Path) -> None:
    """Refuse a file that is not ours, leaving nothing beside it.

    In WAL mode a reader makes a log and an index and, reading only, cannot take them away; "immutable" makes none, and is right
    where there is no log, as then nobody has the file open (SQLite, "Write-Ahead Logging", "Read-Only Databases"). It does not read
    a log; but whose a file is stands in the file itself, since `_create` made it, and a schema's number only grows. Only while the
    log is copied into it, by another process or by one that was killed, SQLite may find that without the log it is no whole file.
    """
    uri = f"{file.as_uri()}?mode=ro"
    log = Path(f"{file}-wal").exists()
    with closing(sqlite3.connect(f"{uri}&immutable=1", uri=True)) as connection:
        if not log:
            _recognise(connection, path)
            return
        with suppress(sqlite3.DatabaseError):
            _recognise_numbers(connection, path)
    with closing(sqlite3.connect(uri, uri=True, timeout=_BUSY_MS / 1000)) as connection:
        _recognise(connection, path)


@contextmanager
def beside(file: Path) -> Iterator[None]:
    """Keep the file open, reading only, so that a connection which is closed in the block is not the last one and leaves the log.

    The last one copies what its own index knows of the log, and deletes it, though others that made a new index may have gone on.
    """
    with closing(sqlite3.connect(f"{file.as_uri()}?mode=ro", uri=True)) as reader:
        with suppress(sqlite3.Error):
            reader.execute("SELECT 1 FROM sqlite_master").fetchall()  # from now on it holds its lock
        yield


def _recognise(connection: sqlite3.Connection, path: str) -> None:
    (tables,) = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    version = _recognise_numbers(connection, path, new=not tables)
    if tables and version < 1:
        raise StoreCorrupt(f"{path} is damaged (there are tables, but the number of their schema is {version})")
    if version == SCHEMA_VERSION:
        _compare(connection, path)


def _recognise_numbers(connection: sqlite3.Connection, path: str, *, new: bool = False) -> int:
    """Answer the schema of a file that is ours; a ``new`` one need not have a number yet."""
    (application,) = connection.execute("PRAGMA application_id").fetchone()
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if application != APPLICATION_ID and not (new and application == version == 0):
        raise StoreCorrupt(f"{path} is a database of another application, not of cronactors")
    if version > SCHEMA_VERSION:
        raise StoreCorrupt(f"{path} was written by a newer version (schema {version}, this version knows {SCHEMA_VERSION})")
    assert isinstance(version, int)
    return version


def _compare(connection: sqlite3.Connection, path: str) -> None:
    """Hold that each table has its columns; more do no harm."""
    tables = {
        "jobs": JobRow._fields[:SPEC],
        "job_specs": JobRow._fields[SPEC:],
        "runs": RunRow._fields,
        "owners": OwnerRow._fields,
        "meta": ("key", "value"),
        "origins": ("name", "file"),
    }
    for table, columns in tables.items():
        there = {name for (name,) in connection.execute("SELECT name FROM pragma_table_info(?)", (table,))}
        if lacking := [name for name in columns if name not in there]:
            raise StoreCorrupt(f"{path} is damaged (the table {table} lacks {lacking[0]})")


def _set_up(connection: sqlite3.Connection, path: str) -> None:
    """Set what each connection needs. WAL with FULL: a commit survives a power cut (SQLite, "PRAGMA synchronous")."""
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("PRAGMA foreign_keys = ON")
    connection.execute(f"PRAGMA journal_size_limit = {LOG_LIMIT}")
    if connection.execute("PRAGMA user_version").fetchone() == (SCHEMA_VERSION,):
        return
    connection.execute("BEGIN IMMEDIATE")
    try:
        _recognise(connection, path)  # again: another process may have been at work since the first look
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        if version != SCHEMA_VERSION:
            _upgrade(connection, path, version)
        connection.execute("COMMIT")
    finally:
        if connection.in_transaction:
            connection.execute("ROLLBACK")


def _upgrade(connection: sqlite3.Connection, path: str, version: int) -> None:
    """Take the steps that the file lacks, inside the caller's transaction; a copy is written before one that takes data away."""
    from cronactors.storage import migrations  # noqa: PLC0415 - sqlite-utils costs 40 ms, and most openings need none

    if version and path != MEMORY:
        logger.info("%s is brought from schema %d to %d", path, version, SCHEMA_VERSION)
        if migrations.destroys(version):
            _keep_copy(path, version)
    migrations.migrate(connection, version)
    connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
    connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")


def _keep_copy(path: str, version: int) -> None:
    """Copy what is committed to ``FILE.schema-N.bak``, whole or not at all. The caller's lock keeps others from writing meanwhile."""
    place = locate(path)
    kept = Path(f"{place}.schema-{version}.bak")
    unfinished = Path(f"{kept}.part")
    unfinished.unlink(missing_ok=True)  # of a process that was killed
    os.close(os.open(unfinished, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
    try:
        with closing(sqlite3.connect(place)) as source, closing(sqlite3.connect(unfinished)) as copy:
            source.backup(copy)
        unfinished.replace(kept)
        _sync(kept.parent)
    finally:
        unfinished.unlink(missing_ok=True)
    logger.info("a copy is kept in %s", kept)
