"""How statements are carried out: one by one or for many rows at once. Every statement passes here, so errors are mapped once."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from typing import TypeAlias

from cronactors.storage import statements as sql
from cronactors.storage.connection import ours

Value: TypeAlias = str | int | float | None
Parameters: TypeAlias = Sequence[Value] | dict[str, Value]

_WIDEST = 128


def whole(value: Value) -> int:
    """A value of an INTEGER column."""
    assert isinstance(value, int)
    return value


def parts(statement: str, rows: Sequence[Sequence[Value]]) -> Iterator[tuple[str, tuple[Value, ...]]]:
    """The statement for few parts of the rows, which are of few lengths: SQLite need not read it anew for each number of rows."""
    first = 0
    while first < len(rows):
        count = min(_WIDEST, 1 << (len(rows) - first).bit_length() - 1)
        part = rows[first : first + count]
        values = sql.values_in_order(statement)(part[0]) if count == 1 else tuple(chain.from_iterable(part))
        yield sql.together(statement, len(part[0]), count), values
        first += count


class Execution:
    """A connection and its statements.

    Args:
        db: The connection, used by one thread at a time.
        path: What errors call the file.
    """

    def __init__(self, db: sqlite3.Connection, path: str) -> None:
        self._db = db
        self._path = path

    def _execute(self, statement: str, parameters: Parameters = ()) -> sqlite3.Cursor:
        try:
            return self._db.execute(statement, parameters)
        except (sqlite3.IntegrityError, sqlite3.ProgrammingError):
            raise  # a bug of ours
        except (sqlite3.Error, UnicodeDecodeError) as error:
            raise ours(error, self._path) from error

    def _many(self, statement: str, rows: Iterable[Sequence[Value]]) -> int:
        """Carry a statement out for each of the rows; answer how many rows of the file it has changed in all."""
        try:
            return self._db.executemany(statement, rows).rowcount
        except (sqlite3.IntegrityError, sqlite3.ProgrammingError):
            raise  # a bug of ours
        except (sqlite3.Error, UnicodeDecodeError) as error:
            raise ours(error, self._path) from error

    def _together(self, statement: str, rows: Sequence[Sequence[Value]]) -> int:
        """The same with as few calls of SQLite as can be, each of which costs as much as a row. No two may concern the same row."""
        return sum(self._execute(text, values).rowcount for text, values in parts(statement, rows))

    def _all(self, statement: str, parameters: Parameters = ()) -> list[tuple[Value, ...]]:
        try:
            return self._db.execute(statement, parameters).fetchall()
        except (sqlite3.Error, UnicodeDecodeError) as error:
            raise ours(error, self._path) from error

    def _among(self, statement: str, keys: Sequence[Value]) -> list[tuple[Value, ...]]:
        """All rows that have one of the keys. Few widths, so that SQLite need not read the statement anew for each number of keys."""
        found: list[tuple[Value, ...]] = []
        places = statement.count("(?)")
        for first in range(0, len(keys), _WIDEST):
            part = keys[first : first + _WIDEST]
            width = 1 << (len(part) - 1).bit_length()
            padding = [None] * (width - len(part))
            found += self._all(sql.widened(statement, width), [*part, *padding] * places)
        return found

    def _one(self, statement: str, parameters: Parameters = ()) -> tuple[Value, ...] | None:
        rows = self._all(statement, parameters)
        return rows[0] if rows else None

    def _new_numbers(self, last: str, count: int) -> range:
        """Numbers for so many new rows, behind the last one that was ever given."""
        first = whole(self._all(last)[0][0]) + 1 if count else 1
        return range(first, first + count)
