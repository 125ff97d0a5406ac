"""A store on the PostgreSQL server of the tests, empty for each test.

A new connection, a schema check and statements that are prepared anew cost a test some 50 ms, a TRUNCATE of all tables as much. So a
storage that a test has closed is given to the next test, and what little is in its tables is deleted.
"""

from __future__ import annotations

import atexit
from collections.abc import Callable
from functools import cache
from itertools import count
from typing import Final

from cronactors.instants import Millis
from cronactors.storage.postgres.storage import PostgresStorage
from tests.postgres_server import new_database, shared_server

LARGE: Final = 1 << 20
"""From what size (bytes) on all tables are truncated: deleted rows stay in tables and indexes until a vacuum, and slow down later tests."""

_TABLES = """SELECT string_agg(format('%I.%I', nspname, relname), ', ') FROM pg_class JOIN pg_namespace ON pg_namespace.oid = relnamespace
 WHERE nspname = $1 AND relkind = 'r' AND relname <> 'version'"""
_SIZE = "SELECT sum(pg_total_relation_size(pg_class.oid))::bigint FROM pg_class WHERE relnamespace = $1::text::regnamespace"

_free: list[TimedPostgres] = []
_made = count(1)


class TimedPostgres(PostgresStorage):
    """A storage on PostgreSQL that shows the time of a test. While it is open it has a schema to itself, which is empty at first."""

    def __init__(self, url: str) -> None:
        self.schema = f"store_{next(_made)}"
        super().__init__(url, schema=self.schema)
        self.test_wall: Callable[[], Millis] = int
        ((tables,),) = self._fetch(_TABLES, [self.schema])
        assert isinstance(tables, str)
        delete = "".join(f"DELETE FROM {table};" for table in tables.split(", "))
        restart = f"SELECT setval(format('%I.%I', schemaname, sequencename), 1, false) FROM pg_sequences WHERE schemaname = '{self.schema}'"
        self._delete = f"{delete} {restart}"
        self._truncate = f"TRUNCATE {tables} RESTART IDENTITY; {restart}"

    def now(self) -> Millis:
        return self.test_wall()

    def empty(self) -> None:
        """Delete all jobs and runs, and forget what this process knows."""
        ((size,),) = self._fetch(_SIZE, [self.schema])
        assert isinstance(size, int)
        self._session.script(self._delete if size < LARGE else self._truncate)
        self._renewed.clear()
        self.notifications.take_woken()

    def close(self) -> None:
        """Leave it to the next test."""
        self.rollback()
        if self not in _free:
            _free.append(self)

    def end(self) -> None:
        """Close the connection."""
        super().close()


@cache
def worker_database() -> str:
    """The URL of the database of this process, in which all its tests follow each other. Skips the test if there is no server."""
    return new_database(shared_server())


def in_postgres(wall: Callable[[], Millis]) -> TimedPostgres:
    if _free:
        storage = _free.pop()
        storage.empty()
    else:
        storage = TimedPostgres(worker_database())
        atexit.register(storage.end)
    storage.test_wall = wall
    return storage
