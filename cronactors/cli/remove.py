"""The verb ``remove``, which takes the jobs of a whole list out of a database."""

from __future__ import annotations

import sys
from pathlib import Path

import click
import trio

from cronactors import open_store
from cronactors.actors.user_requests import ListOrigins
from cronactors.errors import JobNotFound, one_line
from cronactors.storage.rows import OriginRow


def remove_list(database: str, origin: str, *, yes: bool) -> None:
    """Remove the jobs of a list, after asking on the terminal unless ``yes``.

    Raises:
        click.UsageError: There is no terminal to ask on.
        click.Abort: The answer was no.
        CronError: No job is in that list, or the database cannot be used.
    """
    if not yes and not sys.stdin.isatty():
        raise click.UsageError("there is no terminal to ask on: give --yes")
    found = trio.run(_origins, database)
    if origin not in found:
        known = ", ".join(f"{one_line(name, 60)} ({list_.jobs:,})" for name, list_ in sorted(found.items()))
        raise JobNotFound(f"no job has the origin {one_line(origin, 100)}; {f'there are {known}' if known else 'no job has any'}")
    there = found[origin].file
    if there is not None:
        click.echo(f"{one_line(there)} exists: as long as it lists jobs, its next start adds them as new ones, one-shots too")
    if not yes:
        click.confirm(f"Remove {_jobs(found[origin].jobs)} of {one_line(origin)}?", abort=True)
    click.echo(f"removed {_jobs(trio.run(_remove, database, origin))} of {one_line(origin)}")


def _jobs(count: int) -> str:
    return f"{count:,} {'job' if count == 1 else 'jobs'}"


async def _origins(database: str) -> dict[str, OriginRow]:
    """The lists in a database; with a file only where that is still there."""
    async with open_store(database, create=False) as store:
        rows = await store._service.mailbox.call(ListOrigins(str(Path(store.path).parent)))
        return {row.name: row._replace(file=None) if gone else row for row, gone in rows}


async def _remove(database: str, origin: str) -> int:
    async with open_store(database, create=False) as store:
        return await store.remove_origin(origin)
