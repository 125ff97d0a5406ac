"""The verb ``remove``: remove the jobs of a whole list from a database."""

from __future__ import annotations

import sys
from pathlib import Path

import click
import trio

from cronactors import open_store
from cronactors.actors.user_requests import ListOrigins
from cronactors.cli.amounts import count
from cronactors.errors import JobNotFound, one_line
from cronactors.storage.postgres.address import is_postgres
from cronactors.storage.rows import OriginRow


def remove_list(database: str, origin: str, *, yes: bool) -> None:
    """Remove the jobs of a list, after a confirmation on the terminal unless ``yes``.

    Raises:
        click.UsageError: There is no terminal to confirm on.
        click.Abort: The user did not confirm.
        CronError: No job is in that list, or the database cannot be used.
    """
    if not yes and not sys.stdin.isatty():
        raise click.UsageError("there is no terminal to confirm on: give --yes")
    found = trio.run(_read_origins, database)
    if origin not in found:
        known = ", ".join(f"{one_line(name, 60)} ({row.jobs:,})" for name, row in sorted(found.items()))
        raise JobNotFound(f"no job has the origin {one_line(origin, 100)}; {f'there are {known}' if known else 'no job has any'}")
    file = found[origin].file
    if file is not None:
        may_exist = "" if is_postgres(database) else f"{one_line(file)} exists: "
        it = one_line(file) if is_postgres(database) else "it"
        click.echo(f"{may_exist}as long as {it} lists jobs, its next start adds them as new ones, one-shots too")
    if not yes:
        click.confirm(f"Remove {count(found[origin].jobs, 'job')} of {one_line(origin)}?", abort=True)
    click.echo(f"removed {count(trio.run(_remove, database, origin), 'job')} of {one_line(origin)}")


async def _read_origins(database: str) -> dict[str, OriginRow]:
    """Read the lists of a database; ``file`` is None where that file is gone. On a server it may exist on any machine."""
    async with open_store(database, create=False) as store:
        folder = None if is_postgres(database) else str(Path(store.path).parent)
        rows = await store._service.mailbox.call(ListOrigins(folder))
        return {row.name: row._replace(file=None) if gone else row for row, gone in rows}


async def _remove(database: str, origin: str) -> int:
    async with open_store(database, create=False) as store:
        return await store.remove_origin(origin)
