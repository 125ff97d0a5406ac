"""Marks beside the database that an owner has been asked to stop: empty files, one for each owner, that need no transaction.

A container is killed some seconds after it was asked to stop. If its process could not record its runs until then, the mark tells the
next start that they were interrupted, and that no job has crashed its process. SQLite cannot keep it: another process may hold the
file locked for all of these seconds.
"""

from __future__ import annotations

import os
from contextlib import suppress

_DIGITS = 18  # of the longest number that is read: more would not fit SQLite's integers


class StopMarks:
    """The marks of one database.

    Args:
        file: The absolute path of the database; None: it is in memory, and so are its marks.
    """

    def __init__(self, file: str | None) -> None:
        self._prefix = None if file is None else f"{file}-stopping-"
        self._in_memory: set[int] = set()
        self._to_forget: list[int] = []

    def note(self, owner: int) -> None:
        """Mark an owner. Called on any thread, whatever the connection does meanwhile; no fsync, as a power cut is a crash anyway.

        Raises:
            OSError: The folder is full, read-only or out of reach.
        """
        if self._prefix is None:
            self._in_memory.add(owner)
            return
        with suppress(FileExistsError):  # O_EXCL: whatever has that name by now is not opened
            os.close(os.open(f"{self._prefix}{owner}", os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))

    def owners(self) -> set[int]:
        """The owners that have a mark; none if the folder cannot be read."""
        if self._prefix is None:
            return set(self._in_memory)
        folder, prefix = os.path.split(self._prefix)
        try:
            names = os.listdir(folder)  # noqa: PTH208 - a folder may hold many other files
        except OSError:
            return set()
        numbers = [name.removeprefix(prefix) for name in names if name.startswith(prefix)]
        return {int(number) for number in numbers if number.isascii() and number.isdigit() and len(number) <= _DIGITS}

    def forget(self, owner: int) -> None:
        """Remove the mark of an owner when the transaction is committed."""
        self._to_forget.append(owner)

    def committed(self) -> None:
        """Remove what is to be forgotten. A process that is killed before leaves marks behind; a later registration removes them."""
        while self._to_forget:
            owner = self._to_forget.pop()
            self._in_memory.discard(owner)
            if self._prefix is not None:
                with suppress(OSError):
                    os.unlink(f"{self._prefix}{owner}")  # noqa: PTH108 - as above

    def rolled_back(self) -> None:
        """Keep what was to be forgotten."""
        self._to_forget.clear()
