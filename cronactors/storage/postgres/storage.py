"""The storage on a PostgreSQL server. It has one connection, which one thread at a time uses.

`protocol` documents each verb; docstrings here only add the details of PostgreSQL.
"""

from __future__ import annotations

import logging
import math
import secrets
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Final, NamedTuple

import psycopg

from cronactors.errors import StoreCorrupt, StoreUnavailable
from cronactors.instants import Millis
from cronactors.model import Trigger
from cronactors.storage.errors import Contended
from cronactors.storage.postgres.columns import quoted
from cronactors.storage.postgres.history import PostgresHistory
from cronactors.storage.postgres.jobs import NEXT_TIMES, next_times_of
from cronactors.storage.postgres.listener import Listener
from cronactors.storage.postgres.notifications import PostgresNotifications
from cronactors.storage.postgres.pauses import PostgresPauses
from cronactors.storage.postgres.pruning import PostgresPruning
from cronactors.storage.postgres.run_output import PostgresOutput
from cronactors.storage.postgres.run_requests import PostgresRunRequests
from cronactors.storage.postgres.runs import PostgresRuns
from cronactors.storage.postgres.schema import open_schema
from cronactors.storage.postgres.session import Session
from cronactors.storage.rows import JobRow, NextTimes, OriginRow, OwnerRow, RunRow
from cronactors.storage.values import Value, integer

logger = logging.getLogger("cronactors.store")

_OWNER = quoted(OwnerRow._fields)

INSERT_OWNER = f"INSERT INTO @owners ({quoted(OwnerRow._fields[1:])}) VALUES ($1, $2, $3, $4, $5, $6) RETURNING id"
INSERT_OWNER_AGAIN = (
    f"""INSERT INTO @owners ({_OWNER}) OVERRIDING SYSTEM VALUE VALUES ($7, $1, $2, $3, $4, $5, $6) RETURNING id"""
)
OWNERS = f"SELECT {_OWNER} FROM @owners ORDER BY id"
OWNER = f"SELECT {_OWNER} FROM @owners WHERE id = $1"
RENEW_LEASE = f"""UPDATE @owners SET heartbeat_at = $1, lease_until = $2
 WHERE id = $3 AND (lease_until < $4 OR heartbeat_at > $1) RETURNING {_OWNER}"""
DELETE_OWNERS = "DELETE FROM @owners WHERE id = ANY($1)"
META = 'SELECT value FROM @meta WHERE "key" = $1'
SET_META = 'INSERT INTO @meta ("key", value) VALUES ($1, $2) ON CONFLICT ("key") DO UPDATE SET value = excluded.value'
DELETE_META = 'DELETE FROM @meta WHERE "key" = $1'
ORIGINS = """SELECT j.origin, o.file, count(*) FROM @jobs AS j LEFT JOIN @origins AS o ON md5(o.name) = md5(j.origin)
 WHERE j.origin IS NOT NULL GROUP BY j.origin, o.file ORDER BY j.origin"""
SET_ORIGIN = "INSERT INTO @origins (name, file) VALUES ($1, $2) ON CONFLICT (md5(name)) DO UPDATE SET file = excluded.file"
DELETE_ORIGIN = "DELETE FROM @origins WHERE md5(name) = md5($1)"
MARK_STOPPING = "INSERT INTO @stop_marks (owner) VALUES ($1) ON CONFLICT DO NOTHING"
STOPPING_OWNERS = "SELECT owner FROM @stop_marks"
UNMARK_STOPPING = "DELETE FROM @stop_marks WHERE owner = ANY($1)"


NOTIFY = "SELECT set_config('synchronous_commit', 'off', true), pg_notify($1, $2)"
"""A transaction of its own, after the commit that it is about: it must undo nobody's changes, and nothing need be durable."""
NOTIFIED_AHEAD: Final[Millis] = 2_000
"""How far ahead a new moment may be that other processes are notified of: of a later one they learn by their tick."""
NOTIFY_EVERY: Final = 0.005
"""How much time (s) is between two notices at least: each holds a lock of the whole server during its commit."""
NOTIFY_AGAIN: Final = 1.0
"""How much time (s) there is after one that failed."""
NOTIFY_LIMIT: Final = 0.5
"""How long (s) a notice may take: callers wait for their answers meanwhile."""


class _Renewed(NamedTuple):
    """An owner as this process has renewed its lease, and when that ends, on the monotonic clock (s)."""

    row: OwnerRow
    ends: float


class _AlwaysChanged:
    def unchanged(self) -> bool:
        return False


class PostgresStorage(PostgresRuns):
    """A `Storage` in a schema of a PostgreSQL database.

    Args:
        url: The address of the database.
        schema: The name of the schema.
        create: Whether to create a missing schema.

    Raises:
        Contended: The server is being started, or another process creates the schema.
        StoreUnavailable: The server is out of reach, or refuses the user; or the schema is missing.
        StoreCorrupt: The schema is damaged, of another application or of a newer version.
    """

    writes_side_by_side: Final = True

    def __init__(self, url: str, *, schema: str, create: bool = True) -> None:
        self._session = session = Session(url, schema)
        super().__init__(session)
        self._locked_before: set[str] = set()
        self._to_unmark: list[int] = []
        self._channel = f"cronactors_{schema}"[:63]
        self._sender = secrets.token_hex(8)
        self._must_notify = self._writes = False
        self._next_notice = 0.0
        self._notices_fail = False
        self._renewing: dict[int, _Renewed] = {}
        self._renewed: dict[int, _Renewed] = {}
        self.history = PostgresHistory(session)
        self.pruning = PostgresPruning(session)
        self.output = PostgresOutput(session)
        self.run_requests = PostgresRunRequests(session)
        self.pauses = PostgresPauses(session)
        self.notifications = PostgresNotifications(session)
        self.wall = session.clock
        try:
            session.connect()
            open_schema(session, create=create)
        except BaseException:
            session.close()
            raise

    def close(self) -> None:
        """Close the connection; a second time does nothing."""
        self._session.close()

    @contextmanager
    def listen(self, heard: Callable[[], None], deaf: Callable[[bool], None]) -> Iterator[None]:
        """Listen for notices that other processes send with their commits."""
        listener = Listener(self._session.connect_apart, self._channel, own=self._sender, name=self.name, heard=heard, deaf=deaf)
        listener.start()
        try:
            yield
        finally:
            listener.stop()

    def give_up_at(self, until: Callable[[], float]) -> None:
        """Limit how long answers of the server are waited for."""
        self._session.patience.until = until

    def watch(self) -> _AlwaysChanged:
        """Return a watch that takes every moment for a change: a server has no file to look at."""
        return _AlwaysChanged()

    @property
    def name(self) -> str:
        """Host, database and schema."""
        return self._session.name

    def check(self) -> str | None:
        """Return None: damage of its files is the server's to find, and its constraints leave no half of a job."""
        return None

    # Transactions

    def now(self) -> Millis:
        """Return the time of the server when the transaction began, or its estimated time outside of one."""
        return self._session.now or self._session.clock()

    def begin(self, *, write: bool, alone: bool = True) -> bool:
        """Begin a transaction, if need be on a new connection."""
        self._drawn_ids = ()
        self._must_notify, self._writes = False, write
        try:
            self._session.begin(write=write, alone=alone)
        except Contended:
            self.rollback()
            return False
        except BaseException:
            self.rollback()
            raise
        return True

    def commit(self) -> None:
        """Make the transaction durable; the stop marks that are no longer needed leave with it."""
        self._commit()

    def commit_writes(self) -> NextTimes:
        """Commit, and read the next times in the same round trip.

        If the connection is lost meanwhile they are unknown. Then something may be due: whoever looks reads them again.
        """
        now = self.now()
        rows = self._commit(NEXT_TIMES)
        return next_times_of(rows[0]) if rows else NextTimes(now, None)

    def _commit(self, last: str = "") -> list[tuple[Value, ...]]:
        if self._to_unmark:
            self._execute(UNMARK_STOPPING, [self._to_unmark])
            self._to_unmark = []
        rows = self._session.commit(last)
        self._renewed |= self._renewing
        self._renewing.clear()
        if self._must_notify and self._writes and self._session.connected and time.monotonic() >= self._next_notice:
            self._notify()
        return rows

    def _notify(self) -> None:
        """Notify other processes. That may fail, since all of it has been committed, and their ticks find it."""
        reason, self._session.patience.longest = "", NOTIFY_LIMIT
        try:
            self._fetch(NOTIFY, [self._channel, self._sender])
        except (StoreUnavailable, StoreCorrupt, psycopg.Error) as error:
            reason = str(error)
        finally:
            self._session.patience.longest = math.inf
        self._next_notice = time.monotonic() + (NOTIFY_AGAIN if reason else NOTIFY_EVERY)
        if bool(reason) != self._notices_fail:
            self._notices_fail = bool(reason)
            logger.debug(
                "%s: others are not notified now (%s)" if reason else "%s: others are notified again%s", self.name, reason
            )

    def rollback(self) -> None:
        """Undo the transaction, if there is one. On a connection that was lost the server undoes it."""
        self._to_unmark = []
        self._renewing.clear()
        self._session.rollback()

    def savepoint(self) -> None:
        """Set a savepoint."""
        self._locked_before = set(self._session.locked)
        self._session.script("SAVEPOINT request")

    def release(self) -> None:
        """Keep all changes since `savepoint`."""
        self._session.script("RELEASE request")

    def undo(self) -> None:
        """Undo all changes since `savepoint`, and give back the rows that were locked since then."""
        self._session.locked = self._locked_before
        self._renewing.clear()
        self._session.script("ROLLBACK TO request; RELEASE request")

    def hold(self, *keys: str, wait: bool = True) -> bool:
        """Take advisory locks, unless the transaction is alone anyway."""
        return not keys or not self._session.locks_rows or self._session.hold(set(keys), wait=wait)

    def wait_until(self, instant: Millis, *, longest: Millis) -> None:
        """Sleep by the estimated time of the server."""
        wait = instant / 1000 - self.seconds()
        if wait > 0:
            time.sleep(min(wait, longest / 1000))

    # What other processes are notified of: moments that users have added and that would come too soon for a tick, and cancellations

    def insert_jobs(self, rows: Sequence[JobRow]) -> None:
        """Add jobs, some of which may be due at once."""
        super().insert_jobs(rows)
        self._note_due(row.next_run_at for row in rows)

    def update_jobs(self, rows: Sequence[JobRow]) -> None:
        """Change jobs, some of which may be due at once now."""
        super().update_jobs(rows)
        self._note_due(row.next_run_at for row in rows)

    def insert_runs(self, rows: Sequence[RunRow]) -> list[int | None]:
        """Add runs. Those that a claim or a finish adds are started by this process itself, or by the next tick."""
        self._note_due(row.ready_at for row in rows if row.trigger == Trigger.MANUAL)
        return super().insert_runs(rows)

    def _note_due(self, moments: Iterable[Millis | None]) -> None:
        soon = self.now() + NOTIFIED_AHEAD
        self._must_notify |= any(moment is not None and moment <= soon for moment in moments)

    def mark_runs(self, ids: Sequence[int], *, cause: str | None = None, cancel_requested: bool = False) -> None:
        """Mark running runs, which another process may have to cancel."""
        super().mark_runs(ids, cause=cause, cancel_requested=cancel_requested)
        self._must_notify |= cancel_requested

    # Owners

    def insert_owner(self, row: OwnerRow) -> int:
        """Add an owner."""
        again = [row.id] if row.id else []
        number = integer(self._fetch(INSERT_OWNER_AGAIN if again else INSERT_OWNER, [*row[1:], *again])[0][0])
        lasts = (row.lease_until - row.heartbeat_at) / 1000
        self._renewing[number] = _Renewed(row._replace(id=number), self._session.sent_at + lasts)
        return number

    def owners(self) -> list[OwnerRow]:
        """Return all owners."""
        return list(map(OwnerRow._make, self._fetch(OWNERS)))

    def owner(self, number: int) -> OwnerRow | None:
        """Return an owner. While its lease lasts nobody else changes it, so that of this process need not be read again."""
        renewed = self._renewing.get(number) or self._renewed.get(number)
        if renewed is not None and renewed.row.lease_until > self.now():
            return renewed.row
        row = self._fetch_one(OWNER, [number])
        return None if row is None else OwnerRow._make(row)

    def renew_lease(self, owner: int, *, now: Millis, until: Millis, unless_later_than: Millis) -> None:
        """Renew a lease, and remember it."""
        for row in map(OwnerRow._make, self._fetch(RENEW_LEASE, [now, until, owner, unless_later_than])):
            self._renewing[owner] = _Renewed(row, self._session.sent_at + (until - now) / 1000)

    def seconds(self) -> float:
        """Return the estimated time of the server."""
        return self._session.clock.seconds()

    def lease_ends(self, owner: int) -> float | None:
        """Return when the lease ends that the last commit has renewed."""
        renewed = self._renewed.get(owner)
        return None if renewed is None else renewed.ends

    def delete_owners(self, ids: Sequence[int]) -> None:
        """Delete owners."""
        self._execute(DELETE_OWNERS, [list(ids)])

    # Facts about the store, and where lists of jobs come from

    def meta(self, key: str) -> str | None:
        """Return a fact."""
        row = self._fetch_one(META, [key])
        return None if row is None else str(row[0])

    def set_meta(self, key: str, value: str | None) -> None:
        """Write or delete a fact."""
        if value is None:
            self._execute(DELETE_META, [key])
        else:
            self._execute(SET_META, [key, value])

    def origins(self) -> list[OriginRow]:
        """Return the origins of jobs."""
        return [
            OriginRow(str(name), None if file is None else str(file), integer(jobs)) for name, file, jobs in self._fetch(ORIGINS)
        ]

    def set_origin(self, name: str, file: str | None) -> None:
        """Write or delete the file of an origin."""
        if file is None:
            self._execute(DELETE_ORIGIN, [name])
        else:
            self._execute(SET_ORIGIN, [name, file])

    # Stop marks

    def mark_stopping(self, owner: int) -> None:
        """Store the mark of an owner on a connection of its own, since the other one may be inside a transaction."""
        try:
            self._session.execute_apart(MARK_STOPPING, [owner])
        except psycopg.Error as error:
            raise OSError(f"{self.name}: the mark cannot be stored") from error

    def stopping_owners(self) -> set[int]:
        """Return the owners with a mark."""
        return {integer(owner) for (owner,) in self._fetch(STOPPING_OWNERS)}

    def unmark_stopping(self, owner: int) -> None:
        """Delete the mark of an owner with the commit."""
        self._to_unmark.append(owner)
