"""Made-up steps to newer schemas. As a program it is a server that takes them in processes of its own.

It reads a line of JSON and prints a line of text. With ``at`` the file is opened in a fork that exits there, without it in the
server.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import trio
from sqlite_utils import Database

from cronactors import open_store
from cronactors.storage import connection, migrations, schema
from cronactors.storage.migrations import Step
from tests.chaos.faults import Faults, watching

NEWEST = migrations.STEPS[-1].number + 2


def add_title(db: Database) -> None:
    db.conn.execute("ALTER TABLE jobs ADD COLUMN title TEXT")
    db.conn.execute("UPDATE jobs SET title = upper(name)")
    db.conn.execute("CREATE INDEX jobs_titled ON jobs (title)")


def drop_alerted_at(db: Database) -> None:
    db.conn.execute("ALTER TABLE alert_episodes DROP COLUMN alerted_at")
    db.conn.execute("UPDATE jobs SET title = title || '!'")


@contextmanager
def made_up_schemas() -> Iterator[None]:
    """Give the library two more schemas; the second step drops a column."""
    steps = migrations.STEPS
    migrations.STEPS = (*steps, Step(NEWEST - 1, add_title), Step(NEWEST, drop_alerted_at, destructive=True))
    schema.SCHEMA_VERSION = NEWEST  # type: ignore[misc]
    try:
        yield
    finally:
        migrations.STEPS = steps
        schema.SCHEMA_VERSION = NEWEST - 2  # type: ignore[misc]


def open_file(faults: Faults) -> None:
    """Open the file as the library does."""
    with made_up_schemas(), watching(faults):
        faults.armed = True
        connection.connect(str(faults.db), create=True).close()
        faults.armed = False


async def _open(db: str) -> str:
    async with open_store(db) as store:
        return f"opened with {len(await store.list_jobs())} jobs"


def serve() -> None:
    print("ready", flush=True)  # noqa: T201 - the test listens
    for line in sys.stdin:
        case = json.loads(line)
        if "at" not in case:
            try:
                with made_up_schemas():
                    answer = trio.run(_open, case["db"])
            except Exception as error:
                answer = repr(error)
        elif child := os.fork():
            answer = str(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
        else:
            open_file(Faults(Path(case["db"]), case["at"], case["how"]))
            os._exit(0)
        print(answer, flush=True)  # noqa: T201


if __name__ == "__main__":
    serve()
