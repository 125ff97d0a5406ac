"""The files of a database as the system shows them: which ones stand there, and whether anybody has written."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable
from typing import Final, TypeAlias

MEMORY: Final = ":memory:"
"""The path of a database that has no files."""
LOG_SETTLED: Final = 3.0
"""Seconds after which a write shows another time than the last one: FAT keeps it in steps of two seconds, Linux of milliseconds."""

Standing: TypeAlias = list[tuple[int, int]]


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

    def quiet(self) -> bool:
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
