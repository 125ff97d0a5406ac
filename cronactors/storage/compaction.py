"""Giving the free pages of a file back to the file system.

SQLite uses the pages of deleted rows again, and never makes the file smaller by itself. VACUUM writes the file anew. It may not do so
while another process has the file open, and a process that holds no lock at the moment may take one any time. So we first take the
exclusive lock that SQLite grants only where no other connection to the file is open.
"""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

from cronactors.errors import StoreCorrupt, StoreUnavailable
from cronactors.storage.errors import StorageErrors
from cronactors.storage.file_state import MEMORY, locate
from cronactors.storage.schema import check_file

_BUSY_S = 1.0


def compact(path: str) -> tuple[int, int]:
    """Write a file anew without its free pages; return its size (bytes) before and after.

    Interrupted or failed, it leaves the file as it was. On the way it needs as much space again as the content takes, twice.

    Raises:
        StoreUnavailable: The file is missing, another process has it open, or the disk is full.
        StoreCorrupt: It is damaged, of another application or of a newer version. It has not been changed.
    """
    with StorageErrors(path):
        try:
            file = Path(locate(path))
        except ValueError as error:
            raise StoreUnavailable(f"{path} is no path") from error
        if path == MEMORY or not file.is_file():
            raise StoreUnavailable(f"{path} does not exist" if path == MEMORY or not file.exists() else f"{path} is no file")
        if not file.stat().st_size:
            raise StoreCorrupt(f"{path} is empty: it is no database")
        check_file(path, file, busy_timeout=_BUSY_S)
        before = file.stat().st_size
        try:
            _vacuum(file)
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
                raise StoreUnavailable(f"{path} is open in another process: stop it, then compact the file") from error
            raise
        return before, file.stat().st_size


def _vacuum(file: Path) -> None:
    with closing(sqlite3.connect(file, timeout=_BUSY_S, isolation_level=None)) as connection:
        # Before the first access: then no -shm is used, and no other process may read.
        connection.execute("PRAGMA locking_mode = EXCLUSIVE")
        connection.execute("BEGIN EXCLUSIVE")
        connection.execute("COMMIT")
        connection.execute("VACUUM")
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
