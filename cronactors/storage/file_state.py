"""The files of a database as the system shows them: which ones stand there, and whether anybody has written."""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Final, TypeAlias

MEMORY: Final = ":memory:"
"""The path of a database that has no files."""
LOG_SETTLED: Final = 3.0
"""Seconds after which a write shows another time than the last one: FAT keeps it in steps of two seconds, Linux of milliseconds."""

Standing: TypeAlias = list[tuple[int, int]]


_MOST_LINKS = 40
"""How many symbolic links a path may lead through (path_resolution(7))."""


def absolute(path: str) -> str:
    """Join a path to the working directory of now, so that a later ``chdir`` does no harm; `MEMORY` is no path.

    Nothing else in it changes: what ``..`` means behind a symbolic link is for the system to say.
    """
    if path == MEMORY or os.path.isabs(path):  # noqa: PTH117 - Path drops a trailing slash
        return path
    return os.path.join(os.getcwd(), path)  # noqa: PTH109, PTH118


def locate(path: str) -> str:
    """Find the one place that a path names, so that SQLite, the system and we cannot read it in different ways.

    The place is absolute and leads through no link: SQLite takes a name that begins with ``file:`` for a URI ("Uniform Resource
    Identifiers", 3.1), other libraries drop a trailing slash or collapse ``..`` as text.

    Raises:
        IsADirectoryError: It names a folder, as does whatever ends with a slash.
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


def files_of(path: str) -> tuple[str, ...]:
    """The file, its log and the log's index, as SQLite names them, wherever the working directory is by now."""
    place = os.path.realpath(path)
    return () if path == MEMORY else (place, f"{place}-wal", f"{place}-shm")


def standing(files: Iterable[str]) -> Standing:
    """Which files stand at those paths now; none if one is missing. Asked for each transaction, and so without `pathlib`."""
    try:
        return _ids(map(os.stat, files))
    except OSError:
        return []


def _ids(found: Iterable[os.stat_result]) -> Standing:
    return [(each.st_dev, each.st_ino) for each in found]


class LogWatch:
    """Tells for a few microseconds whether anybody has written to a database in WAL mode, where a look inside wakes a thread.

    It is no proof: what somebody has written becomes visible only once the disk has it, which may take longer than `LOG_SETTLED`.

    Args:
        files: Those of the database.
        opened: Which ones they were when it was opened.
    """

    def __init__(self, files: tuple[str, ...], opened: Standing) -> None:
        self._files = files
        self._opened = opened
        self._seen: tuple[int, int] | None = None

    def unchanged(self) -> bool:
        """Whether nothing was written, and no file replaced, since this was asked before."""
        before, self._seen = self._seen, self._look()
        return self._seen is not None and before == self._seen

    def _look(self) -> tuple[int, int] | None:
        """Size and last write of the log; None where a further write need not show, or where another file stands in its place."""
        if not self._files or os.name == "nt":  # Windows notes the time of a write when the file is closed
            return None
        try:
            file, log, index = map(os.stat, self._files)
        except OSError:
            return None
        if _ids((file, log, index)) != self._opened or abs(time.time() - log.st_mtime) < LOG_SETTLED:
            return None
        return log.st_size, log.st_mtime_ns
