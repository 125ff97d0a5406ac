"""The verb ``backup``: copy a database to a new file while schedulers use it."""

from __future__ import annotations

import attrs

from cronactors.cli.amounts import count
from cronactors.cli.stdout import print_json, print_line
from cronactors.errors import InvalidConfig, one_line
from cronactors.storage.backup import back_up
from cronactors.storage.postgres.address import is_postgres

_MEGABYTE = 1_000_000


def back_up_file(database: str, target: str, *, as_json: bool) -> None:
    """Back up a database, and print how many jobs and runs the backup has.

    Raises:
        CronError: The database is on a server or cannot be used, or the target exists already.
    """
    if is_postgres(database):
        raise InvalidConfig(
            "backup is for a file: back up a PostgreSQL database with pg_dump (pg_dump --schema=NAME --file=FILE URL)"
        )
    if is_postgres(target):
        raise InvalidConfig("FILE must be a file; to move jobs to a server use cronactors copy")
    done = back_up(database, target)
    if as_json:
        print_json({"database": database, **attrs.asdict(done)})
        return
    counted = f"{count(done.jobs, 'job')} and {count(done.runs, 'run')}"
    print_line(f"backed up {one_line(database)} to {one_line(target)}: {counted}, {done.size / _MEGABYTE:,.1f} MB")
