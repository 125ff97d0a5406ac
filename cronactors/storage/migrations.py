"""Numbered steps from an empty file to the newest schema. The one place that imports sqlite-utils.

To add a step, add a script and a line in `STEPS`; never change an old step.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from importlib.resources import files

import attrs
from sqlite_utils import Database


@attrs.frozen
class Step:
    """One step.

    Attributes:
        number: The schema that it leads to.
        apply: Takes the step, inside the caller's transaction.
        destructive: It deletes data, so the file is copied before.
    """

    number: int
    apply: Callable[[Database], None]
    destructive: bool = False


def _statements(script: str) -> Iterator[str]:
    """Split a script: ``executescript`` would commit the transaction that all steps share."""
    statement = ""
    for line in script.splitlines(keepends=True):
        statement += line
        if sqlite3.complete_statement(statement):
            yield statement
            statement = ""


def _script(name: str) -> Callable[[Database], None]:
    """Return a step that carries out a script. We read the script now: later the process may have no right to."""
    statements = list(_statements(files("cronactors.storage").joinpath(name).read_text(encoding="utf-8")))

    def apply(db: Database) -> None:
        for statement in statements:
            db.conn.execute(statement)

    return apply


STEPS: tuple[Step, ...] = (
    Step(1, _script("schema.sql")),
    Step(2, _script("schema_2.sql")),
    Step(3, _script("schema_3.sql")),
    Step(4, _script("schema_4.sql")),
)


def destroys(version: int) -> bool:
    """Return whether a step that a file of this schema lacks deletes data."""
    return any(step.destructive for step in STEPS if step.number > version)


def migrate(connection: sqlite3.Connection, version: int) -> None:
    """Take the steps that a file of schema ``version`` lacks, inside the caller's transaction."""
    db = Database(connection)
    for step in STEPS:
        if step.number > version:
            step.apply(db)
