"""A store on the PostgreSQL server of the tests, empty for each test."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from itertools import count

import psycopg

from cronactors.instants import Millis
from cronactors.storage.postgres.storage import PostgresStorage
from tests.postgres_server import new_database, shared_server

_TABLES = """SELECT string_agg(format('%I.%I', schemaname, tablename), ', ') FROM pg_tables
 WHERE schemaname = $1 AND tablename <> 'version'"""


_free: list[str] = []
_made = count(1)


class TimedPostgres(PostgresStorage):
    """A storage on PostgreSQL that shows the time of a test. While it is open it has a schema to itself, which is empty at first."""

    def __init__(self, url: str, *, wall: Callable[[], Millis]) -> None:
        schema = _free.pop() if _free else f"store_{next(_made)}"
        empty(url, schema)
        super().__init__(url, schema=schema)
        self.schema = schema
        self._test_wall = wall

    def now(self) -> Millis:
        return self._test_wall()

    def close(self) -> None:
        super().close()
        if self.schema not in _free:
            _free.append(self.schema)


@cache
def worker_database() -> str:
    """The URL of the database of this process, in which all its tests follow each other. Skips the test if there is no server."""
    return new_database(shared_server())


def empty(url: str, schema: str) -> None:
    """Delete all jobs and runs of a store; if it does not exist, do nothing."""
    with psycopg.connect(url, autocommit=True) as connection:
        cursor = psycopg.RawCursor(connection)
        row = cursor.execute(_TABLES.encode(), [schema]).fetchone()
        if row is not None and row[0]:
            cursor.execute(f"TRUNCATE {row[0]} RESTART IDENTITY; ALTER SEQUENCE {schema}.run_ids RESTART".encode())


def in_postgres(wall: Callable[[], Millis]) -> TimedPostgres:
    return TimedPostgres(worker_database(), wall=wall)
