"""The files of a database: where a path leads, which files are there, and whether anything was written to them."""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Final, TypeAlias

MEMORY: Final = ":memory:"
"""The path of a database that has no files."""
LOG_AGE: Final = 3.0
"""How old (s) the last write must be, so that the next one has another time: FAT stores times in steps of 2 s."""

FileIds: TypeAlias = list[tuple[int, int]]
"""Device and inode of each file."""

_MOST_LINKS = 40
"""How many symbolic links a path may lead through (path_resolution(7))."""


def absolute(path: str) -> str:
    """Join a path to the current working directory, so that a later ``chdir`` does no harm; `MEMORY` is no path.

    Nothing else in it changes: the system decides where ``..`` leads behind a symbolic link.
    """
    if path == MEMORY or os.path.isabs(path):  # noqa: PTH117 - Path drops a trailing slash
        return path
    return os.path.join(os.getcwd(), path)  # noqa: PTH109, PTH118


def locate(path: str) -> str:
    """Find the one place that a path names, so that SQLite, the system and we cannot read it in different ways.

    The place is absolute and leads through no link: SQLite takes a name that begins with ``file:`` for a URI ("Uniform Resource
    Identifiers", 3.1), other libraries drop a trailing slash or collapse ``..`` as text.

    Raises:
        IsADirectoryError: It names a folder, as every path does that ends with a slash.
        OSError: Its folder does not exist or is out of reach.
    """
    place = absolute(path)
    for _ in range(_MOST_LINKS):
        folder, name = os.path.split(place)
        if name in ("", os.curdir, os.pardir):
            raise IsADirectoryError(errno.EISDIR, "it names a folder, not a file")
        if not Path(folder).is_dir():
            raise FileNotFoundError(errno.ENOENT, f"the folder {folder} does not exist")
        folder = os.path.realpath(folder, strict=True)
        place = os.path.join(folder, name)  # noqa: PTH118
        try:
            place = os.path.join(folder, os.readlink(place))  # noqa: PTH115, PTH118 - Path drops a trailing slash
        except OSError:  # missing, or no link
            return place
    raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))


def database_files(path: str) -> tuple[str, ...]:
    """Return the file, its ``-wal`` and its ``-shm``; none for `MEMORY`. A later ``chdir`` does no harm."""
    place = os.path.realpath(path)
    return () if path == MEMORY else (place, f"{place}-wal", f"{place}-shm")


def file_ids(files: Iterable[str]) -> FileIds:
    """Return which files have these paths now; none if one is missing. Called for each transaction, so without `pathlib`."""
    try:
        return _ids(map(os.stat, files))
    except OSError:
        return []


def _ids(found: Iterable[os.stat_result]) -> FileIds:
    return [(file.st_dev, file.st_ino) for file in found]


class LogWatch:
    """Notices from outside whether a database was written to.

    An idle scheduler checks every tick whether another process has changed something. A transaction wakes the storage thread for
    that; the size and time of the ``-wal`` cost two or three system calls, and took idle CPU from 0.11 to 0.08 %
    (docs/performance.md).

    A watch is only a hint. Another process writes to the ``-wal`` first, and its commit counts once the disk has it, which may
    take longer than `LOG_AGE`. So the patrol also reads the file every ten seconds.

    Args:
        files: The files of the database.
        opened: Which files they were when the database was opened.
    """

    def __init__(self, files: tuple[str, ...], opened: FileIds) -> None:
        self._files = files
        self._opened = opened
        self._last: tuple[int, int] | None = None

    def unchanged(self) -> bool:
        """Return whether nothing was written, and no file replaced, since the call before; False on the first call."""
        before, self._last = self._last, self._size_and_time()
        return self._last is not None and before == self._last

    def _size_and_time(self) -> tuple[int, int] | None:
        """Return size and last write of the ``-wal``; None where they need not change with a write, or if a file was replaced."""
        if not self._files or os.name == "nt":  # Windows stores the time of a write when the file is closed
            return None
        try:
            file, log, index = map(os.stat, self._files)
        except OSError:
            return None
        if _ids((file, log, index)) != self._opened or abs(time.time() - log.st_mtime) < LOG_AGE:
            return None
        return log.st_size, log.st_mtime_ns
