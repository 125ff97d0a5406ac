"""Carrying out statements on one connection."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from typing import TypeAlias

from cronactors.storage.errors import StorageErrors
from cronactors.storage.row_statement import MANY, RowStatement
from cronactors.storage.values import Row, Value, integer

Parameters: TypeAlias = Row | dict[str, Value]


class Execution:
    """A connection and the ways to carry out a statement on it.

    Args:
        db: The connection, used by one thread at a time.
        path: The file, as messages name it.
    """

    def __init__(self, db: sqlite3.Connection, path: str) -> None:
        self._db = db
        self._path = path
        self._errors = StorageErrors(path)

    def _execute(self, statement: str, parameters: Parameters = ()) -> sqlite3.Cursor:
        """Carry out a statement that returns no rows."""
        with self._errors:
            return self._db.execute(statement, parameters)

    def _fetch(self, statement: str, parameters: Parameters = ()) -> list[tuple[Value, ...]]:
        """Return all rows of a query."""
        with self._errors:
            return self._db.execute(statement, parameters).fetchall()

    def _fetch_one(self, statement: str, parameters: Parameters = ()) -> tuple[Value, ...] | None:
        """Return the first row of a query, or None."""
        rows = self._fetch(statement, parameters)
        return rows[0] if rows else None

    def _write(self, statement: RowStatement, rows: Iterable[Row]) -> int:
        """Carry out a statement for each of the rows. If it takes many rows at once, no two may concern the same row of the file.

        Returns:
            How many rows of the file it has changed.
        """
        rows = list(rows)
        with self._errors:
            if statement.takes_many and len(rows) >= MANY:
                return sum(self._db.execute(text, values).rowcount for text, values in statement.calls(rows))
            return self._db.executemany(statement.for_one, rows).rowcount if rows else 0

    def _read(self, statement: RowStatement, rows: Iterable[tuple[Value, ...]]) -> list[tuple[Value, ...]]:
        """Return the results of a query for the rows; equal rows count once."""
        different = list(dict.fromkeys(rows))
        if len(different) == 1:
            return self._fetch(statement.for_one, different[0])
        return [found for text, values in statement.calls(different) for found in self._fetch(text, values)]

    def _new_numbers(self, last: str, count: int) -> range:
        """Return numbers for new rows, greater than any that was given before."""
        first = integer(self._fetch(last)[0][0]) + 1 if count else 1
        return range(first, first + count)
