"""The verb ``remove``, which takes the jobs of a whole list out of a database."""

from __future__ import annotations

import sys

import click
import trio

from cronactors import open_store
from cronactors.actors.messages import ListOrigins
from cronactors.errors import JobNotFound, one_line


def remove_list(database: str, origin: str, *, yes: bool) -> None:
    """Remove the jobs of a list, after asking on the terminal unless ``yes``.

    Raises:
        click.UsageError: There is no terminal to ask on.
        click.Abort: The answer was no.
        CronError: No job is in that list, or the database cannot be used.
    """
    if not yes and not sys.stdin.isatty():
        raise click.UsageError("there is no terminal to ask on: give --yes")
    found = trio.run(_count, database)
    if origin not in found:
        known = ", ".join(f"{one_line(name, 60)} ({count:,})" for name, count in sorted(found.items()))
        raise JobNotFound(f"no job has the origin {one_line(origin, 100)}; {f'there are {known}' if known else 'no job has any'}")
    if not yes:
        click.confirm(f"Remove {_jobs(found[origin])} of {one_line(origin)}?", abort=True)
    click.echo(f"removed {_jobs(trio.run(_remove, database, origin))} of {one_line(origin)}")


def _jobs(count: int) -> str:
    return f"{count:,} {'job' if count == 1 else 'jobs'}"


async def _count(database: str) -> dict[str, int]:
    async with open_store(database, create=False) as store:
        return {row.name: row.jobs for row, _ in await store._service.mailbox.ask(ListOrigins(None))}


async def _remove(database: str, origin: str) -> int:
    async with open_store(database, create=False) as store:
        return await store.remove_origin(origin)
