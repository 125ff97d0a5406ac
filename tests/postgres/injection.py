"""Errors of PostgreSQL that a test raises at a chosen statement of a session."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import psycopg

from cronactors.storage.postgres.storage import PostgresStorage

BEGIN, STATEMENT, SAVEPOINT, COMMIT, ROLLBACK = "BEGIN", "INSERT", "SAVEPOINT", "COMMIT", "ROLLBACK"
"""How the statements begin at which an error can be raised; a COMMIT may also follow a query in the same round trip."""


def made_up(sqlstate: str | None, constraint: str | None = None, *, severity: str = "ERROR") -> psycopg.Error:
    """An error as psycopg raises it; without a SQLSTATE it is one of its own, about a connection that was lost."""
    if sqlstate is None:
        return psycopg.OperationalError("made up")
    kind = psycopg.errors.lookup(sqlstate)
    diag = SimpleNamespace(message_primary="made up", constraint_name=constraint, severity_nonlocalized=severity)
    error: psycopg.Error = type(kind.__name__, (kind,), {"diag": diag, "sqlstate": sqlstate})("made up")
    return error


class _Cursor:
    def __init__(self, cursor: Any, at: str, action: Callable[[], None], *, carry_out: bool) -> None:
        self._cursor, self._at, self._action, self._carry_out = cursor, at, action, carry_out

    def execute(self, text: bytes, *args: object, **options: object) -> object:
        if text.lstrip().startswith(self._at.encode()) or (self._at == COMMIT and text.endswith(b"; COMMIT")):
            self._at = "never again"
            if self._carry_out:
                self._cursor.execute(text, *args, **options)
            self._action()
        return self._cursor.execute(text, *args, **options)

    def __getattr__(self, name: str) -> object:
        return getattr(self._cursor, name)


def at_statement(storage: PostgresStorage, at: str, action: Callable[[], None], *, carry_out: bool = False) -> None:
    """Call a function once at the next statement that begins with a text, before it or after it has been carried out.

    A new connection has new cursors, so there it is not called.
    """
    session: Any = storage._session
    session.connect()
    for name in ("_cursor", "_script_cursor"):
        setattr(session, name, _Cursor(getattr(session, name), at, action, carry_out=carry_out))


def raise_at(storage: PostgresStorage, at: str, error: psycopg.Error, *, carry_out: bool = False) -> None:
    """Raise an error once at the next statement that begins with a text, in place of it or after it has been carried out."""

    def action() -> None:
        raise error

    at_statement(storage, at, action, carry_out=carry_out)
