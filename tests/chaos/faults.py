"""Faults at the n-th SQL statement: a connection that all statements of the library pass, and the committed state before each."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

import attrs

T = TypeVar("T")
State: TypeAlias = tuple[object, ...]

FAILS = ("fails", "works, then fails", "is rolled back")
EXITS = ("exits before", "exits after")
EXIT_CODE = 9

ROOT = Path(__file__).parents[2]
_connect = sqlite3.connect


@contextmanager
def in_memory() -> Iterator[Path]:
    """A folder in memory if there is one, since the tests make thousands of commits."""
    with tempfile.TemporaryDirectory(dir="/dev/shm" if Path("/dev/shm").is_dir() else None) as folder:
        yield Path(folder)


def sqlite_error(name: str) -> sqlite3.OperationalError:
    """Return an error like those of SQLite."""
    error = sqlite3.OperationalError(f"made up: {name}")
    error.sqlite_errorcode, error.sqlite_errorname = getattr(sqlite3, name), name
    return error


def committed(db: str | Path) -> State:
    """Return the committed state: schema, numbers and every row; random ids are replaced by their order."""
    if not Path(db).exists() or not Path(db).stat().st_size:
        return ()
    with closing(_connect(db, isolation_level=None)) as connection:
        connection.execute("BEGIN")
        tables = connection.execute("SELECT name, sql FROM sqlite_master WHERE name NOT LIKE 'sqlite_%' ORDER BY name").fetchall()
        numbers = [connection.execute(f"PRAGMA {name}").fetchone() for name in ("application_id", "user_version")]
        rows = {name: connection.execute(f"SELECT * FROM {name}").fetchall() for name, sql in tables if "CREATE TABLE" in sql}
        ids = {row[0]: row[1] for row in connection.execute("SELECT id, number FROM jobs")} if "jobs" in rows else {}
        connection.execute("ROLLBACK")
    owners = [
        (row[0], *row[4:]) for row in (rows.pop("owners", None) or rows.pop("schedulers", []))
    ]  # without process and machine
    named = {table: [tuple(ids.get(value, value) for value in row) for row in found] for table, found in rows.items()}
    return tables, numbers, owners, named


@attrs.define
class Faults:
    """The fault to cause, and the statements that were seen.

    Attributes:
        db: The file.
        at: Which statement, counted from 0; None: none, but the committed state before each is stored.
        how: One of FAILS and EXITS.
        armed: Statements are counted.
        seen: The statements.
        states: The committed state before each of them.
        afterwards: The committed state when the transaction that met the fault was over.
    """

    db: Path
    at: int | None = None
    how: str = FAILS[0]
    armed: bool = False
    seen: list[str] = attrs.field(factory=list)
    states: list[State] = attrs.field(factory=list)
    afterwards: State | None = None

    def carry_out(self, connection: sqlite3.Connection, statement: str, execute: Callable[[], T]) -> T:
        """Carry out a statement, or cause the fault."""
        if not self.armed:
            return execute()
        number = len(self.seen)
        self.seen.append(statement)
        if self.at is None:
            self.states.append(committed(self.db))
        elif number == self.at:
            return self._fault(connection, execute)
        elif number > self.at and self.afterwards is None and statement.startswith("BEGIN"):
            self.afterwards = committed(self.db)
        return execute()

    def _fault(self, connection: sqlite3.Connection, execute: Callable[[], T]) -> T:
        if self.how == "exits before":
            os._exit(EXIT_CODE)
        if self.how in ("exits after", "works, then fails"):
            execute()
        if self.how == "exits after":
            os._exit(EXIT_CODE)
        if self.how == "is rolled back":  # as SQLite does by itself when the disk is full
            if connection.in_transaction:
                sqlite3.Connection.execute(connection, "ROLLBACK")
            raise sqlite_error("SQLITE_FULL")
        raise sqlite_error("SQLITE_IOERR")


class _Watched(sqlite3.Connection):
    faults: Faults

    def execute(self, sql: str, parameters: Sequence[Any] | dict[str, Any] = (), /) -> sqlite3.Cursor:
        return self.faults.carry_out(self, sql, lambda: super(_Watched, self).execute(sql, parameters))

    def executemany(self, sql: str, parameters: Iterable[Any], /) -> sqlite3.Cursor:
        return self.faults.carry_out(self, sql, lambda: super(_Watched, self).executemany(sql, parameters))

    def backup(self, target: sqlite3.Connection, **options: Any) -> None:
        self.faults.carry_out(self, "backup", lambda: super(_Watched, self).backup(target, **options))


@contextmanager
def watching(faults: Faults) -> Iterator[Faults]:
    """Let every connection that is opened inside the block pass its statements to ``faults``."""
    watched = type("Watched", (_Watched,), {"faults": faults})
    sqlite3.connect = partial(_connect, factory=watched)  # type: ignore[assignment]
    try:
        yield faults
    finally:
        sqlite3.connect = _connect


@contextmanager
def talking(program: str, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """Run another program for the length of a block, connected by pipes."""
    with subprocess.Popen(
        [sys.executable, program, *arguments],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        text=True,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    ) as process:
        try:
            yield process
        finally:
            process.kill()
