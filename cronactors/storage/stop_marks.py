"""Stop marks: empty files beside the database, one for each owner that is stopping.

Platforms kill a container some seconds after they asked it to stop. If its process could not store the outcome of its runs until
then, the mark lets the next start see that they were interrupted by a stop, and that no job has crashed its process. We cannot
store that in SQLite: another process may hold the lock for all of these seconds. Creating a file needs no lock and no
transaction.
"""

from __future__ import annotations

import os
from contextlib import suppress

from cronactors.ids import row_number


class StopMarks:
    """The marks of one database.

    Args:
        file: The absolute path of the database. None: it is in memory, and so are its marks.
    """

    def __init__(self, file: str | None) -> None:
        self._prefix = None if file is None else f"{file}-stopping-"
        self._in_memory: set[int] = set()
        self._to_remove: list[int] = []

    def note(self, owner: int) -> None:
        """Mark an owner, on any thread and during any transaction. We need no fsync: a power cut is a crash anyway.

        Raises:
            OSError: The folder is full, read-only or out of reach.
        """
        if self._prefix is None:
            self._in_memory.add(owner)
            return
        with suppress(FileExistsError):  # O_EXCL: a file that has this name already is not opened
            os.close(os.open(f"{self._prefix}{owner}", os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))

    def owners(self) -> set[int]:
        """Return the owners that have a mark; none if the folder cannot be read."""
        if self._prefix is None:
            return set(self._in_memory)
        folder, prefix = os.path.split(self._prefix)
        try:
            names = os.listdir(folder)  # noqa: PTH208 - a folder may hold many other files
        except OSError:
            return set()
        numbers = [name.removeprefix(prefix) for name in names if name.startswith(prefix)]
        return {owner for owner in map(row_number, numbers) if owner is not None}

    def forget(self, owner: int) -> None:
        """Remove the mark of an owner when the transaction is committed."""
        self._to_remove.append(owner)

    def committed(self) -> None:
        """Remove the marks. A process that is killed before leaves them behind; a later registration removes them."""
        while self._to_remove:
            owner = self._to_remove.pop()
            self._in_memory.discard(owner)
            if self._prefix is not None:
                with suppress(OSError):
                    os.unlink(f"{self._prefix}{owner}")  # noqa: PTH108 - as above

    def rolled_back(self) -> None:
        """Keep the marks that were to be removed."""
        self._to_remove.clear()
