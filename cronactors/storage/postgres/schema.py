"""Which schema a store on PostgreSQL has: recognising ours, refusing others untouched, and creating or upgrading it."""

from __future__ import annotations

from typing import Final

from cronactors.errors import StoreCorrupt, StoreUnavailable
from cronactors.storage.pauses import PauseRow
from cronactors.storage.postgres import migrations
from cronactors.storage.postgres.columns import JOB_COLUMNS, STATE_COLUMNS
from cronactors.storage.postgres.session import Session
from cronactors.storage.rows import OwnerRow, RunRow

_VERSION_COLUMNS: Final = {"version", "min_reader"}
_COLUMNS = {
    "jobs": ("number", *JOB_COLUMNS),
    "job_state": ("number", *STATE_COLUMNS),
    "runs": RunRow._fields,
    "owners": OwnerRow._fields,
    "meta": ("key", "value"),
    "origins": ("name", "file"),
    "job_tags": ("tag", "number"),
    "pauses": PauseRow._fields,
    "server_life": ("life",),
}
_EXISTING = """SELECT relname::text, attname::text FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = relnamespace
 LEFT JOIN pg_attribute ON attrelid = c.oid AND attnum > 0 AND NOT attisdropped WHERE nspname = $1 AND relkind NOT IN ('i', 'I')"""


def open_schema(session: Session, *, create: bool) -> None:
    """Check the schema of a store; create a missing one, and upgrade an older one. An up-to-date one costs two queries, and no lock.

    Args:
        session: The connection.
        create: Whether to create and to upgrade it.

    Raises:
        Contended: Another process creates or upgrades it now, or uses a table that is to be changed.
        StoreUnavailable: It is missing or older and not to be changed, or the user has no right to.
        StoreCorrupt: It is damaged, of another application or of a newer version. It has not been changed.
    """
    found = _recognise(session)
    if found < migrations.newest():
        if not create:
            if found:
                raise migrations.older(session, found, "it is only to be read")
            raise StoreUnavailable(f"{session.name} does not exist")
        migrations.migrate(session)
        _recognise(session)
    session.opened()


def _recognise(session: Session) -> int:
    """Return the number of a schema that is ours, 0 if it is missing; refuse one that is not."""
    existing: dict[str, set[str]] = {}
    for relation, column in session.fetch(_EXISTING, [session.schema]):
        existing.setdefault(str(relation), set()).add(str(column))
    if not existing.get("version", set()) >= _VERSION_COLUMNS:
        if taken := sorted(existing.keys() & {"version", *_COLUMNS}):
            raise StoreCorrupt(f"{session.name} is of another application, not of cronactors (it has a table {taken[0]})")
        return 0
    rows = session.fetch("SELECT version::bigint, min_reader::bigint FROM @version")
    if len(rows) != 1:
        raise StoreCorrupt(f"{session.name} is damaged (the number of its schema is missing)")
    ((version, min_reader),) = rows
    assert isinstance(version, int)
    assert isinstance(min_reader, int)
    if min_reader > migrations.newest():
        known = f"schema {version}, this version knows {migrations.newest()}"
        raise StoreCorrupt(f"{session.name} was written by a newer version ({known})")
    if version >= migrations.newest():
        for table, columns in _COLUMNS.items():
            if missing := [name for name in columns if name not in existing.get(table, ())]:
                raise StoreCorrupt(f"{session.name} is damaged (the table {table} lacks {missing[0]})")
    return version
