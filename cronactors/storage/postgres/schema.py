"""Which schema a store on PostgreSQL has: recognising ours, refusing others untouched, and creating a missing one."""

from __future__ import annotations

from importlib.resources import files
from typing import Final

import psycopg

from cronactors.errors import StoreCorrupt, StoreUnavailable
from cronactors.storage.postgres.columns import JOB_COLUMNS, STATE_COLUMNS
from cronactors.storage.postgres.session import Session
from cronactors.storage.rows import OwnerRow, RunRow

SCHEMA_VERSION: Final = 1
"""The newest schema, which this version writes."""

_COLUMNS = {
    "jobs": ("number", *JOB_COLUMNS),
    "job_state": ("number", *STATE_COLUMNS),
    "runs": RunRow._fields,
    "owners": OwnerRow._fields,
    "meta": ("key", "value"),
    "origins": ("name", "file"),
    "job_tags": ("tag", "number"),
}
_EXISTING = """SELECT relname::text, attname::text FROM pg_attribute JOIN pg_class ON pg_class.oid = attrelid
 JOIN pg_namespace ON pg_namespace.oid = relnamespace WHERE nspname = $1 AND attnum > 0 AND NOT attisdropped AND relkind IN ('r', 'p')"""
_HAS_SCHEMA = "SELECT 1 FROM pg_namespace WHERE nspname = $1"


def open_schema(session: Session, *, create: bool) -> None:
    """Check the schema of a store, or create a missing one. An up-to-date one costs two queries, and no lock.

    Raises:
        Contended: Another process creates it now.
        StoreUnavailable: It is missing and not to be created, or the user has no right to.
        StoreCorrupt: It is damaged, of another application or of a newer version. It has not been changed.
    """
    if not _recognise(session):
        if not create:
            raise StoreUnavailable(f"{session.name} does not exist")
        _create(session)


def _recognise(session: Session) -> bool:
    """Return whether there is a schema of ours; refuse one that is not."""
    existing: dict[str, set[str]] = {}
    for table, column in session.fetch(_EXISTING, [session.schema]):
        existing.setdefault(str(table), set()).add(str(column))
    if "version" not in existing:
        if taken := sorted(existing.keys() & _COLUMNS):
            raise StoreCorrupt(f"{session.name} is of another application, not of cronactors (it has a table {taken[0]})")
        return False
    rows = session.fetch("SELECT version::bigint, min_reader::bigint FROM @version")
    if len(rows) != 1:
        raise StoreCorrupt(f"{session.name} is damaged (the number of its schema is missing)")
    (version, min_reader) = rows[0]
    assert isinstance(version, int)
    assert isinstance(min_reader, int)
    if min_reader > SCHEMA_VERSION:
        known = f"schema {version}, this version knows {SCHEMA_VERSION}"
        raise StoreCorrupt(f"{session.name} was written by a newer version ({known})")
    for table, columns in _COLUMNS.items():
        if missing := [name for name in columns if name not in existing.get(table, ())]:
            raise StoreCorrupt(f"{session.name} is damaged (the table {table} lacks {missing[0]})")
    return True


def _create(session: Session) -> None:
    """Create the schema in one transaction, which other processes see complete or not at all."""
    script = files("cronactors.storage.postgres").joinpath("schema_1.sql").read_text(encoding="utf-8")
    session.begin(write=True, alone=True)  # the lock of the store: two processes that create it follow each other
    try:
        if not _recognise(session):
            if not session.fetch(_HAS_SCHEMA, [session.schema]):
                session.script(f'CREATE SCHEMA "{session.schema}"')
            session.script(script)
        session.commit()
    except psycopg.errors.UniqueViolation as error:  # a process with another user's rights was first
        raise StoreUnavailable(f"{session.name} cannot be created: {error.diag.message_primary}") from error
    finally:
        session.rollback()
