"""A store on PostgreSQL into which the rows of a file are moved, in one transaction.

The transaction may take minutes. With the lock of the store it would keep all schedulers from it for as long, until their leases run out.
So it takes that lock, shared as others do that add jobs, only for the commit, and has no limits of time before. Its rows are new ones,
which no other transaction sees. But whoever adds a row with the name of a job, or the origin, of one of them waits for the commit, an
upsert even with the lock of the store: so these rows come last. Their ids cannot collide with those of others, since a short transaction
alone reserves them first.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import chain, islice
from typing import Final

import psycopg

from cronactors.errors import CronError, StoreUnavailable, shorten
from cronactors.storage.errors import Contended
from cronactors.storage.moved import Move, Numbers
from cronactors.storage.postgres.columns import quoted
from cronactors.storage.postgres.errors import first_line
from cronactors.storage.postgres.execution import Rows
from cronactors.storage.postgres.storage import PostgresStorage
from cronactors.storage.values import Row, integer

AT_ONCE: Final = 10_000
"""How many rows one COPY adds: at its end the server checks what they refer to, and each answer has a limit of time."""

_SEQUENCES: Final = Numbers(jobs="@jobs_number_seq", runs="@run_ids", notifications="@notifications_id_seq")  # type: ignore[arg-type]
_LAST = ", ".join(f"coalesce(pg_sequence_last_value('{name}'::regclass), 0)" for name in _SEQUENCES)
LAST_NUMBERS = f"SELECT {_LAST}"
SET_LAST = tuple(f"SELECT setval('{name}', $1::bigint)" for name in _SEQUENCES)
HAS_ROWS = "SELECT 1 FROM @jobs UNION ALL SELECT 1 FROM @runs UNION ALL SELECT 1 FROM @notifications LIMIT 1"
HAS_USER = "SELECT 1 FROM @jobs WHERE user_id = $1 LIMIT 1"
INSERT_ORIGINS = Rows(
    "INSERT INTO @origins (name, file) SELECT name, file FROM new ON CONFLICT DO NOTHING", name="text", file="text"
)
_NO_LIMITS = """SELECT set_config(name, CASE name WHEN 'lock_timeout' THEN '10s' ELSE '0' END, true) FROM pg_settings
 WHERE name IN ('statement_timeout', 'transaction_timeout', 'idle_in_transaction_session_timeout', 'lock_timeout')"""


class PostgresTarget(PostgresStorage):
    """The store that rows are moved to. A missing schema is created."""

    def reserve(self, highest: Numbers, *, user_id: str | None) -> Numbers:
        """Reserve the numbers of the rows that are to come, inside a transaction that is alone.

        Args:
            highest: The highest numbers that the file has given.
            user_id: The only user whose rows are to come; None: all come.

        Returns:
            What is to be added to the numbers of the file: nothing if all rows come, as then the store has none.

        Raises:
            StoreUnavailable: There are rows already: of that user, or any.
        """
        if user_id is None and self._fetch_one(HAS_ROWS) is not None:
            elsewhere = "move them into a schema without any, such as ?schema=NAME"
            raise StoreUnavailable(f"{self.name} has jobs or a history of its own: {elsewhere}")
        if user_id is not None and self._fetch_one(HAS_USER, [user_id]) is not None:
            raise StoreUnavailable(f"{self.name} has jobs of the user {shorten(user_id)} already")
        given = Numbers._make(map(integer, self._fetch(LAST_NUMBERS)[0]))
        shift = Numbers(0, 0, 0) if user_id is None else given
        for statement, last, added, top in zip(SET_LAST, given, shift, highest, strict=True):
            if added + top > last:
                self._fetch(statement, [added + top])
        return shift

    def begin_move(self, move: Move) -> bool:
        """Begin the transaction of a move; return False if another process is carrying out this move."""
        session = self._session
        self.rollback()
        session.connect()
        *_, (xid,) = session.script(
            f"BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE; {_NO_LIMITS}; SELECT pg_current_xact_id()::text"
        )
        session._xid = str(xid)
        return session.hold({move.server_fact}, wait=False)

    def has(self, move: Move) -> bool:
        """Return, inside a transaction, whether the rows of a move are here."""
        return self.meta(move.server_fact) is not None

    def lock(self) -> None:
        """Take the lock of the store. The commit is to follow soon: others may wait for that lock."""
        lock = f"SELECT pg_advisory_xact_lock_shared({self._session._store_key})"
        self._session.script(f"SET LOCAL idle_in_transaction_session_timeout = '5s'; {lock}")

    def insert_origins(self, rows: Iterable[Row]) -> None:
        """Add where lists come from; what is known of one already stays. With the lock of the store, so that no upsert waits for it."""
        with self._storing("origins"):
            self._write(INSERT_ORIGINS, rows)

    def copy(self, table: str, columns: Sequence[str], rows: Iterable[Row], *, report: Callable[[int], None]) -> None:
        """Add rows to a table.

        Args:
            table: Its name.
            columns: Its columns, in the order of the values.
            rows: The rows.
            report: Called now and then with how many rows were added so far.

        Raises:
            CronError: PostgreSQL cannot store one of them.
        """
        count, rest = 0, iter(rows)
        for first in rest:
            count += self._copy_some(table, columns, chain([first], islice(rest, AT_ONCE - 1)))
            report(count)

    def _copy_some(self, table: str, columns: Sequence[str], rows: Iterable[Row]) -> int:
        session, count = self._session, 0
        assert session._script_cursor is not None, "there is no transaction"
        text = session.qualified(f"COPY @{table} ({quoted(columns)}) FROM STDIN")
        with self._storing(table), session.errors, session._script_cursor.copy(text) as copy:
            for row in rows:
                copy.write_row(row)
                count += 1
        return count

    @contextmanager
    def _storing(self, table: str) -> Iterator[None]:
        """Raise errors about the rows, which `ServerErrors` takes for bugs, as `CronError`: here they come from the file."""
        try:
            yield
        except (psycopg.errors.UniqueViolation, Contended) as error:
            violation = error.__cause__ if isinstance(error, Contended) else error
            if not isinstance(violation, psycopg.errors.UniqueViolation):
                raise
            constraint = violation.diag.constraint_name
            raise StoreUnavailable(f"{self.name} has rows of the same jobs in {table} already ({constraint})") from error
        except psycopg.Error as error:
            raise CronError(f"{self.name} cannot store what is in the table {table}: {first_line(error)}") from error

    def prepare(self, move: Move) -> None:
        """Do the last that can fail before the commit, which is to follow at once."""
        self.set_meta(move.server_fact, move.to_json())
