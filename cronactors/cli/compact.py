"""The verb ``compact``: give the free space of a database back."""

from __future__ import annotations

import click

from cronactors.errors import InvalidConfig, one_line
from cronactors.storage.compaction import compact
from cronactors.storage.postgres.address import is_postgres

_UNITS = ("bytes", "kB", "MB", "GB", "TB")
_STEP = 1_000


def compact_file(database: str) -> None:
    """Compact a database, and print how much space came back.

    Raises:
        CronError: The database cannot be used, is on a server, or another process has it open.
    """
    if is_postgres(database):
        raise InvalidConfig("compact is for a file: a PostgreSQL server uses the space of deleted rows again by itself (VACUUM)")
    before, after = compact(database)
    click.echo(
        f"compacted {one_line(database)}: {_size(before)} before, {_size(after)} now, {_size(max(0, before - after))} given back"
    )


def _size(count: float) -> str:
    """Return a size in words, with three digits."""
    for unit in _UNITS[:-1]:
        if count < _STEP:
            return f"{count:.3g} {unit}"
        count /= _STEP
    return f"{count:.3g} {_UNITS[-1]}"
