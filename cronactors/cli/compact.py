"""The verb ``compact``: give the free space of a database back."""

from __future__ import annotations

import click

from cronactors.cli.amounts import size
from cronactors.errors import InvalidConfig, one_line
from cronactors.storage.compaction import compact
from cronactors.storage.postgres.address import is_postgres


def compact_file(database: str) -> None:
    """Compact a database, and print how much space came back.

    Raises:
        CronError: The database cannot be used, is on a server, or another process has it open.
    """
    if is_postgres(database):
        raise InvalidConfig("compact is for a file: a PostgreSQL server uses the space of deleted rows again by itself (VACUUM)")
    before, after = compact(database)
    click.echo(
        f"compacted {one_line(database)}: {size(before)} before, {size(after)} now, {size(max(0, before - after))} given back"
    )
