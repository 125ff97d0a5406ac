"""Carrying out statements on one connection to PostgreSQL.

Tables are written ``@runs`` in a statement. They are qualified with the schema of the store, since a pooler or a role may change the
``search_path``.

Each statement has one plan, made when it is first used, and keeps it until PostgreSQL has analysed its tables again. The planner may
have seen a table empty, and a partial index is empty most of the time: then it costs as much to read the whole index as to look up ten
rows, and a plan for an idle store would be in use when a burst comes. So a statement leaves only one index to choose:

- A partial index that holds a state of rows, such as the runs that are pending, has a condition that is always true (`columns.PENDING`).
  PostgreSQL uses it only for a statement that says the same. Whoever looks up runs by id does not.
- ``(SELECT 1 .. LIMIT 1) IS NULL`` is carried out for each row; NOT EXISTS is a join, in either direction.
- No index is about ``status || ''`` or ``+id``, and ``OFFSET 0`` keeps a condition out of a subquery.
- Rows are compared, ``(user_id, number) > ($1, $2)``, where the index of one column could give the same order.

``tests/postgres/test_query_plans.py`` holds every statement to its plan, on an empty store and on a full one.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Final, Protocol, TypeAlias

from cronactors.storage.values import Row, Value

Parameters: TypeAlias = Sequence[Value | Sequence[Value]]

_NAME = re.compile(r"(?<!:):([a-z_]+)")
_ROWS = "FROM new"


class Named:
    """A statement with parameters ``:name``.

    Attributes:
        text: With ``$1``, ``$2`` and so on in their place.
    """

    def __init__(self, text: str) -> None:
        self._names = tuple(dict.fromkeys(_NAME.findall(text)))
        numbers = {name: f"${number}" for number, name in enumerate(self._names, 1)}
        self.text: Final = _NAME.sub(lambda match: numbers[match[1]], text)

    def parameters(self, values: Mapping[str, Value]) -> list[Value]:
        """Return the values in the order of the parameters."""
        return [values[name] for name in self._names]


class Rows:
    """A statement that is carried out once for many rows of values.

    ``FROM new`` in it is a table of them. There is one text for any number of rows, so PostgreSQL prepares it once.

    Args:
        text: The statement.
        **types: The columns of ``new``, in the order in which a row holds their values, each with its type.
    """

    def __init__(self, text: str, /, **types: str) -> None:
        arrays = ", ".join(f"${number}::{kind}[]" for number, kind in enumerate(types.values(), 1))
        columns = ", ".join(f'"{name}"' for name in types)
        assert text.count(_ROWS) == 1, f"{_ROWS} must be once in {text}"
        self.text: Final = text.replace(_ROWS, f"FROM unnest({arrays}) AS new ({columns})")
        self.columns: Final = tuple(types)

    def arrays(self, rows: Sequence[Row]) -> list[list[Value]]:
        """Return the values of rows as one list for each column."""
        return [list(column) for column in zip(*rows, strict=True)]


class Connection(Protocol):
    """Carries out a text on the connection that is open; `session` has the only one."""

    def fetch(self, text: str, parameters: Parameters = ()) -> list[tuple[Value, ...]]:
        """Return all rows of a query.

        Raises:
            Contended: Another transaction is in the way, or the connection was lost before the commit.
            StoreUnavailable: The server cannot do it now.
            StoreCorrupt: The schema is not ours, or of a newer version.
        """
        ...

    def execute(self, text: str, parameters: Parameters = ()) -> int:
        """Carry out a statement, and return how many rows it has changed. Errors are those of `fetch`."""
        ...

    @property
    def locks_rows(self) -> bool:
        """Whether the transaction writes beside others, so that it has to lock the jobs that it decides about."""
        ...

    def lock_jobs(self, ids: Collection[str]) -> None:
        """Wait for the locks of jobs, if the transaction writes beside others. A job that was removed has one too."""
        ...

    def note_locked(self, ids: Iterable[str]) -> None:
        """Note that the transaction holds the rows of jobs."""
        ...


class Execution:
    """The ways to carry out a statement.

    Args:
        connection: The connection, used by one thread at a time.
    """

    def __init__(self, connection: Connection) -> None:
        self._db = connection

    def _fetch(self, text: str, parameters: Parameters = ()) -> list[tuple[Value, ...]]:
        return self._db.fetch(text, parameters)

    def _fetch_one(self, text: str, parameters: Parameters = ()) -> tuple[Value, ...] | None:
        """Return the first row of a query, or None."""
        rows = self._db.fetch(text, parameters)
        return rows[0] if rows else None

    def _fetch_named(self, statement: Named, values: Mapping[str, Value]) -> list[tuple[Value, ...]]:
        return self._db.fetch(statement.text, statement.parameters(values))

    def _execute(self, text: str, parameters: Parameters = ()) -> int:
        return self._db.execute(text, parameters)

    def _write(self, statement: Rows, rows: Iterable[Row]) -> int:
        """Carry out a statement for rows, and return how many rows of the table it has changed; without rows do nothing."""
        rows = list(rows)
        return self._db.execute(statement.text, statement.arrays(rows)) if rows else 0

    def _read(self, statement: Rows, rows: Iterable[tuple[Value, ...]]) -> list[tuple[Value, ...]]:
        """Return the results of a query for rows; equal rows count once, and without rows there are none."""
        different = list(dict.fromkeys(rows))
        return self._db.fetch(statement.text, statement.arrays(different)) if different else []

    def _rows_of(self, statement: Rows, rows: Sequence[Row]) -> Iterator[tuple[Value, ...]]:
        """Carry out a statement with RETURNING for rows."""
        return iter(self._db.fetch(statement.text, statement.arrays(rows))) if rows else iter(())
