"""The figures of a store on PostgreSQL: which schema it has, and how much room its tables take. They are only read."""

from __future__ import annotations

import re
from typing import Final

import attrs

from cronactors.storage.postgres.migrations import STEPS
from cronactors.storage.postgres.session import Session
from cronactors.storage.values import integer

TABLES: Final = [name for step in STEPS for name in re.findall(r"^CREATE TABLE @(\w+)", step.script, re.MULTILINE)]
"""Our tables. The schema may have others, too."""
_SCHEMA = "SELECT version::bigint, current_setting('server_version') FROM @version"
_SIZES = """SELECT relname::text, pg_total_relation_size(c.oid) FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = relnamespace
 WHERE nspname = $1 AND relname = ANY($2)"""


@attrs.frozen
class ServerFigures:
    """The figures of a store on a server.

    Attributes:
        schema: The version of its schema.
        server: The version of PostgreSQL.
        size: How many bytes its tables take, with their indexes.
        tables: How many each of them takes.
    """

    schema: int
    server: str
    size: int
    tables: dict[str, int]


def read_figures(session: Session) -> ServerFigures:
    """Read the figures of a store, inside a transaction."""
    ((schema, server),) = session.fetch(_SCHEMA)
    tables = {str(name): integer(size) for name, size in session.fetch(_SIZES, [session.schema, TABLES])}
    return ServerFigures(integer(schema), str(server), sum(tables.values()), tables)
