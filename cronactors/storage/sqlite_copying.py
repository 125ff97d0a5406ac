"""A SQLite file whose rows are moved to a server: reading them with new numbers, marking the file, and deleting what was moved.

The columns are those of the tables on the server. Not copied are owners and their stop marks, which are about processes, progress, which
only running runs have, and facts, about which the caller decides.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import Final, NamedTuple

from cronactors.errors import StoreCorrupt
from cronactors.storage import statements as sql
from cronactors.storage.moved import MOVED_FACT, MOVED_ID, RENAMED, Move, Numbers
from cronactors.storage.notifications import EpisodeRow, NotificationRow
from cronactors.storage.pauses import PauseRow
from cronactors.storage.postgres.columns import JOB_COLUMNS, STATE_COLUMNS, quoted
from cronactors.storage.rows import RunRow
from cronactors.storage.schema import APPLICATION_ID
from cronactors.storage.sqlite import SqliteStorage
from cronactors.storage.values import Value, integer
from cronactors.wallclock import system_wall

_JOB_IDS = "(SELECT id FROM jobs WHERE user_id = :user UNION SELECT job_id FROM runs WHERE user_id = :user)"
_RUN_IDS = "(SELECT id FROM runs WHERE user_id = :user)"
_NEW_NUMBERS: Final = {
    "number": "number + :jobs",
    "held_by": "held_by + :runs",
    "run_id": "run_id + :runs",
    "owner": "NULL",
}
# The key of such an alert is the id of a run, so another run of the server may have it. Other keys have the id of their job in them.
_KEY = """CASE WHEN "key" GLOB 'stuck:[0-9]*' THEN 'stuck:' || (CAST(substr("key", 7) AS INTEGER) + :runs) ELSE "key" END"""


class CopiedTable(NamedTuple):
    """A table of the server, and where its rows are in the file.

    Attributes:
        name: The table of the server.
        columns: Its columns.
        values: An expression for each of them.
        source: The table of the file.
        of_user: Which rows belong to a user.
        order: By what the rows are sorted.
    """

    name: str
    columns: tuple[str, ...]
    values: tuple[str, ...]
    source: str
    of_user: str
    order: str

    def rows_query(self, user_id: str | None) -> str:
        """Return the query for all rows, or for those of a user."""
        return f"SELECT {', '.join(self.values)} FROM {self.source}{self._where(user_id)} ORDER BY {self.order}"

    def count_query(self, user_id: str | None) -> str:
        """Return the query for the number of these rows."""
        return f"SELECT count(*) FROM {self.source}{self._where(user_id)}"

    def _where(self, user_id: str | None) -> str:
        return "" if user_id is None else f" WHERE {self.of_user}"


def _table(
    name: str, columns: tuple[str, ...], *, of_user: str, order: str, source: str | None = None, **values: str
) -> CopiedTable:
    expressions = _NEW_NUMBERS | values
    chosen = tuple(expressions.get(column, quoted([column])) for column in columns)
    return CopiedTable(name, columns, chosen, source or name, of_user, order)


_WITH_SPEC = "jobs CROSS JOIN job_specs USING (number)"

ORIGINS: Final = _table(
    "origins", ("name", "file"), of_user="name IN (SELECT origin FROM jobs WHERE user_id = :user)", order="name"
)
TABLES: Final = (
    _table("runs", RunRow._fields, of_user="user_id = :user", order="id", id="id + :runs"),
    _table(
        "run_requests",
        ("job_id", "scheduled_at", "key", "data"),
        of_user=f"job_id IN {_JOB_IDS}",
        order="job_id, scheduled_at",
    ),
    _table(
        "notifications",
        NotificationRow._fields,
        of_user=f"(job_id IN {_JOB_IDS} OR (json_valid(job) AND json_extract(job, '$.user_id') = :user))",
        order="id",
        id="id + :notifications",
        key=_KEY,
        owner="0",
    ),
    _table("alert_episodes", EpisodeRow._fields, of_user=f"job_id IN {_JOB_IDS}", order="job_id, kind"),
    _table("run_output", ("run_id", "start", "size", "at", "text"), of_user=f"run_id IN {_RUN_IDS}", order="id"),
    _table("jobs", ("number", *JOB_COLUMNS), source=_WITH_SPEC, of_user="user_id = :user", order="number"),
    _table("job_state", ("number", *STATE_COLUMNS), source="jobs", of_user="user_id = :user", order="number"),
    _table(
        "pauses",
        PauseRow._fields,
        of_user="job_id IN (SELECT id FROM jobs WHERE user_id = :user)",
        order="job_id",
    ),
    _table(
        "job_tags", ("tag", "number"), of_user="number IN (SELECT number FROM jobs WHERE user_id = :user)", order="tag, number"
    ),
    ORIGINS,
)
"""All tables, in an order in which no row comes before one that it refers to.

The history, which may take minutes, refers to none. Names and origins come last, since others may wait for their rows on the server.
"""

_DELETED: Final = ("run_output", "run_progress", "alert_episodes", "notifications", "run_requests", "runs", "jobs")
_CONDITIONS: Final = {table.source: table.of_user for table in TABLES} | {"run_progress": f"run_id IN {_RUN_IDS}"}
_LAST_NOTIFICATION = sql.last_number("notifications", "id")


class SourceFile(SqliteStorage):
    """A file that exists.

    Args:
        path: The file.
        marked: Whether it may be marked as moved. A marked file must be unmarked before its rows are read.

    Raises:
        FileMoved: It is marked, and must not be.
        Contended: Another process holds the lock.
        StoreUnavailable: It is missing, not permitted or out of reach.
        StoreCorrupt: It is damaged, of another application or of a newer version.
    """

    def __init__(self, path: str, *, marked: bool = False) -> None:
        super().__init__(path, wall=system_wall, create=False, marked=marked)

    def refuse_damage(self) -> None:
        """Raise StoreCorrupt if half of a job is missing, which a copy would leave out."""
        incomplete = self._fetch_one(sql.INCOMPLETE_JOB)
        if incomplete is not None:
            raise StoreCorrupt(f"{self._path} is damaged (half of job {incomplete[0]} is missing)")

    def highest(self) -> Numbers:
        """Return the highest number of each kind that was ever given."""
        return Numbers(*(integer(self._fetch(query)[0][0]) for query in (sql.LAST_JOB, sql.LAST_RUN, _LAST_NOTIFICATION)))

    def count(self, table: CopiedTable, *, user_id: str | None) -> int:
        """Return how many rows of a table are to be copied."""
        return integer(self._fetch(table.count_query(user_id), {"user": user_id})[0][0])

    def rows(self, table: CopiedTable, *, user_id: str | None, shift: Numbers) -> Generator[tuple[Value, ...], None, None]:
        """Yield the rows of a table, those of a user or all, with ``shift`` added to all numbers, one at a time."""
        with self._errors:
            yield from self._db.execute(table.rows_query(user_id), {"user": user_id, **shift._asdict()})

    def undo_reading(self) -> None:
        """Undo all changes since `savepoint`; stop marks that were to be removed stay."""
        self.undo()
        self._marks.rolled_back()

    def delete_user(self, user_id: str) -> None:
        """Delete all jobs of a user, with their history."""
        for table in _DELETED:
            self._execute(f"DELETE FROM {table} WHERE {_CONDITIONS[table]}", {"user": user_id})

    # The mark

    def move(self) -> Move | None:
        """Return the move that the mark names; None if there is no mark, or it is damaged."""
        return Move.from_json(self.meta(MOVED_FACT))

    @property
    def is_marked(self) -> bool:
        """Whether the file is marked."""
        return self._fetch("PRAGMA application_id")[0][0] == MOVED_ID

    def mark(self, move: Move) -> None:
        """Mark the file, inside a transaction."""
        self.set_meta(MOVED_FACT, move.to_json())
        self._execute(f"PRAGMA application_id = {MOVED_ID}")
        for table in RENAMED:
            self._execute(f"ALTER TABLE {table} RENAME TO moved_{table}")

    def set_done(self, move: Move) -> None:
        """Store, inside a transaction, that the server has committed the move by which the file is marked."""
        self.set_meta(MOVED_FACT, move.to_json())

    def unmark(self) -> None:
        """Undo the mark, inside a transaction."""
        self.set_meta(MOVED_FACT, None)
        self._execute(f"PRAGMA application_id = {APPLICATION_ID}")
        for table in RENAMED:
            self._execute(f"ALTER TABLE moved_{table} RENAME TO {table}")
