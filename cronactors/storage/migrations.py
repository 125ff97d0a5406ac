"""The numbered steps from an empty file to the newest schema. To add one: a function here, in the order in which they are to run."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from importlib.resources import files
from typing import Final

from sqlite_utils import Database, Migrations

migrations: Final = Migrations("cronactors")
_SCHEMA_1: Final = files("cronactors.storage").joinpath("schema.sql").read_text(encoding="utf-8")


def _statements(script: str) -> Iterator[str]:
    """Split a script: ``executescript`` would commit the transaction that all migrations share."""
    statement = ""
    for line in script.splitlines(keepends=True):
        statement += line
        if sqlite3.complete_statement(statement):
            yield statement
            statement = ""


@migrations()
def schema_1(db: Database) -> None:
    """Jobs, runs and schedulers."""
    for statement in _statements(_SCHEMA_1):
        db.conn.execute(statement)


def migrate(connection: sqlite3.Connection) -> None:
    """Bring the schema to the newest version, inside the caller's transaction."""
    db = Database(connection)
    migrations.apply(db)
