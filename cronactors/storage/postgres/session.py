"""One connection to a PostgreSQL server, made anew after it was lost. Runs on the storage thread."""

from __future__ import annotations

import logging
import random
import re
import secrets
import time
from collections.abc import Collection, Iterable
from typing import Final

import psycopg
from psycopg.conninfo import make_conninfo
from psycopg.pq import Format, TransactionStatus

from cronactors.backoff import backoff
from cronactors.errors import StoreCorrupt, StoreUnavailable
from cronactors.instants import Millis
from cronactors.storage.errors import Contended
from cronactors.storage.postgres.connecting import (
    MILLIS,
    Patience,
    ServerConnection,
    ServerFacts,
    keys_of_store,
    local_settings,
    new_connection,
    number_of_key,
    read_address,
    set_up,
)
from cronactors.storage.postgres.errors import NOT_PREPARED, ServerErrors, first_line, is_lost
from cronactors.storage.postgres.execution import Parameters
from cronactors.storage.postgres.server_clock import ServerClock
from cronactors.storage.values import Value

logger = logging.getLogger("cronactors.store")

FATE_WITHIN: Final = 8.0
"""How long (s) we ask for the fate of a commit that was cut off."""
RECONNECT_PAUSES: Final = (0.1, 2.0)
"""The first and the longest pause (s) after an attempt to connect that failed. Each is shortened by up to a half at random."""

_LOCK_JOBS = "SELECT id FROM @job_state WHERE id = ANY($1) ORDER BY number FOR NO KEY UPDATE"
_HOLD = "SELECT 1 FROM unnest($2::int[]) AS number, pg_advisory_xact_lock($1::int, number)"
_TRY_TO_HOLD = "SELECT pg_try_advisory_xact_lock($1::int, number) FROM unnest($2::int[]) AS number"
_LIFE = "SELECT life FROM @server_life"
_BEGIN_LIFE = "INSERT INTO @server_life (life) VALUES ($1) ON CONFLICT DO NOTHING"
_FATE = "SELECT pg_xact_status($1::xid8)"
_FATE_PAUSES = (0.05, 1.0)
_IN_THE_FUTURE = "22023"
_TABLE = re.compile(r"@([a-z_]+)")


class Session:
    """A connection, and the transaction on it.

    Args:
        url: A ``postgresql://`` address, as libpq reads it.
        schema: The schema of the store.

    Attributes:
        name: The store, as messages name it: without a password.
        clock: The server's clock, estimated from the transactions.
        now: The time of the server when the transaction began (ms).
        sent_at: When it was begun, on the monotonic clock of this process (s).
        locks_rows: Whether the transaction writes beside others.
        locked: The jobs whose locks the transaction holds.
        patience: How long answers are waited for.

    Raises:
        StoreUnavailable: libpq cannot read the address.
    """

    def __init__(self, url: str, schema: str) -> None:
        self._parameters = read_address(url)
        self.schema = schema
        self._set_name()
        self.clock = ServerClock()
        self.now: Millis = 0
        self.sent_at = 0.0
        self.locks_rows = False
        self.locked: set[str] = set()
        self.patience = Patience()
        self._texts: dict[str, bytes] = {}
        self._connection: ServerConnection | None = None
        self._cursor: psycopg.RawCursor[tuple[Value, ...]] | None = None
        self._script_cursor: psycopg.RawCursor[tuple[Value, ...]] | None = None
        self._local_settings = ""
        self._xid = ""
        self._life: str | None = None
        self._store_key = self._key_space = 0
        self._is_opening = True
        self._is_pooled = self._warned = False
        self._pauses = backoff(*RECONNECT_PAUSES)
        self._next_attempt, self._refusal = 0.0, ""

    # The connection

    @property
    def connected(self) -> bool:
        """Whether there is a connection that is not known to be lost."""
        return self._connection is not None and not self._connection.closed

    def connect(self) -> None:
        """Make the connection and set it up, if there is none. Once the store is open, soon after a failure it fails without trying.

        Raises:
            Contended: While the store is being opened: the server is not there yet.
            StoreUnavailable: It is out of reach, not PostgreSQL, too old, or refuses the user.
        """
        if self.connected:
            return
        if time.monotonic() < self._next_attempt:
            raise StoreUnavailable(self._refusal)
        try:
            self._connect()
        except StoreUnavailable as error:
            if self._is_opening:
                raise
            self._refusal = str(error)
            spread = random.uniform(0.5, 1)  # noqa: S311 - schedulers must not come back together
            self._next_attempt = time.monotonic() + next(self._pauses) * spread
            raise StoreUnavailable(self._refusal) from error
        self._pauses = backoff(*RECONNECT_PAUSES)

    def opened(self) -> None:
        """Note that the schema has been checked: from now on a server that is not there is not waited for."""
        self._is_opening = False
        self._note_life()

    def _connect(self) -> None:
        connection = new_connection(self.patience.to_connect(self._parameters), self.name)
        connection.patience = self.patience
        self._set_name(connection.info.host, connection.info.dbname)
        try:
            with self.errors:
                self._use(connection, set_up(connection, self.name))
                if not self._is_opening:
                    self._note_life()
        except BaseException as error:
            connection.close()
            if isinstance(error, psycopg.Error):  # none of them is about a row
                raise StoreUnavailable(f"{self.name} cannot be used now ({error.sqlstate}: {first_line(error)})") from error
            raise

    def _use(self, connection: ServerConnection, facts: ServerFacts) -> None:
        self.clock.observe(facts.now, facts.asked_at, facts.answered_at)
        self._store_key, self._key_space = keys_of_store(facts.database, self.schema)
        if not facts.is_durable and not self._warned:
            self._warned = True
            logger.warning("%s has synchronous_commit = off: a crash of the server can lose what it has acknowledged", self.name)
        if self._is_pooled:  # found out by an error, since the pooler has shown us the number of the server's process
            connection.prepare_threshold = None
        if facts.is_pooled and not self._is_pooled:
            logger.info("%s is behind a pooler, so statements are not prepared", self.name)
        self._is_pooled |= facts.is_pooled
        self._local_settings = local_settings(connection) if self._is_pooled else ""
        self._connection = connection
        self._cursor = psycopg.RawCursor(connection)
        self._cursor.format = Format.BINARY
        self._script_cursor = psycopg.RawCursor(connection)

    def _note_life(self) -> None:
        """Note in which life of the server the connection was made, see `_find_out`. On a standby, or without the right to, we don't."""
        try:
            rows = self._carry_out(_LIFE, ()).fetchall()
            if not rows:
                self._carry_out(_BEGIN_LIFE, [secrets.token_hex(16)])
                rows = self._carry_out(_LIFE, ()).fetchall()
            self._life = str(rows[0][0])
        except psycopg.Error as error:
            if is_lost(error):
                with self.errors:
                    raise
            self._life = None

    def _set_name(self, host: str = "localhost", database: str = "") -> None:
        """Set the name, with what libpq has found elsewhere, as in a service file, where the address names no host or database."""
        given = self._parameters
        host = given.get("host") or given.get("hostaddr") or host
        self.name = f"postgresql://{host}/{given.get('dbname') or database or given.get('user') or ''}/{self.schema}"
        self.errors = ServerErrors(self.name, self.close)

    def close(self) -> None:
        """Close the connection; a second time does nothing."""
        if self._connection is not None:
            self._connection.close()

    # Statements

    def qualified(self, text: str) -> bytes:
        """Return a statement with the schema before its tables."""
        known = self._texts.get(text)
        if known is None:
            known = self._texts[text] = _TABLE.sub(rf'"{self.schema}".\1', text).encode()
        return known

    def fetch(self, text: str, parameters: Parameters = ()) -> list[tuple[Value, ...]]:
        """Return all rows of a query."""
        with self.errors:
            return self._carry_out(text, parameters).fetchall()

    def execute(self, text: str, parameters: Parameters = ()) -> int:
        """Carry out a statement, and return how many rows it has changed."""
        with self.errors:
            return self._carry_out(text, parameters).rowcount

    def _carry_out(self, text: str, parameters: Parameters) -> psycopg.RawCursor[tuple[Value, ...]]:
        assert self._cursor is not None, "there is no transaction"
        try:
            return self._cursor.execute(self.qualified(text), parameters, prepare=True)
        except psycopg.Error as error:
            if error.sqlstate in NOT_PREPARED:
                self._is_pooled = True
            raise

    def script(self, text: str) -> list[tuple[Value, ...]]:
        """Carry out statements without parameters in one round trip; return the row of each that is a query."""
        with self.errors:
            assert self._script_cursor is not None, "there is no connection"
            cursor, rows = self._script_cursor.execute(self.qualified(text), prepare=False), []
            while True:
                if cursor.description is not None:
                    rows += cursor.fetchall()
                if not cursor.nextset():
                    return rows

    # Transactions

    def begin(self, *, write: bool, alone: bool) -> None:
        """Begin a transaction, and note the time of the server.

        A write takes the lock of the store, shared with others or alone, before it reads the clock: who waited for it must not decide
        by the time before the wait. Reads see one snapshot.
        """
        was_connected = self.connected
        try:
            self._begin(write=write, alone=alone)
        except Contended:
            if not was_connected or self.connected:
                raise
            self._begin(write=write, alone=alone)  # the connection was lost while it was idle

    def _begin(self, *, write: bool, alone: bool) -> None:
        self.connect()
        self.sent_at = sent = time.monotonic()
        if write:
            lock = f"SELECT pg_advisory_xact_lock{'' if alone else '_shared'}({self._store_key})"
            begin = f"BEGIN ISOLATION LEVEL READ COMMITTED; {self._local_settings}{lock}"
            # Behind a pooler we keep our connection when the server crashes.
            life = f", ({_LIFE})" if self._is_pooled else ""
            *_, (now, xid, *lives) = self.script(f"{begin}; SELECT {MILLIS}, pg_current_xact_id()::text{life}")
            self._xid = str(xid)
            for found in lives:
                self._life = None if found is None else str(found)
        else:
            begin = f"BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; {self._local_settings}"
            *_, (now,) = self.script(f"{begin}SELECT {MILLIS}")
            self._xid = ""
        assert isinstance(now, int)
        self.now = now
        self.clock.observe(now, sent, time.monotonic())
        self.locks_rows = write and not alone
        self.locked.clear()

    def commit(self, last: str = "") -> list[tuple[Value, ...]]:
        """Make the transaction durable. If the connection is lost meanwhile, ask the server whether it is.

        Args:
            last: A query without parameters, which is carried out before it in the same round trip.

        Returns:
            The rows of the query; nothing if the connection was lost.

        Raises:
            Contended: It is not.
            StoreUnavailable: That cannot be found out. It may have been carried out.
        """
        assert self._script_cursor is not None
        self.locks_rows, self.now = False, 0
        try:
            self._script_cursor.execute(self.qualified(f"{last}; COMMIT") if last else b"COMMIT", prepare=False)
            rows = self._script_cursor.fetchall() if last else []
            if last:
                self._script_cursor.nextset()
        except psycopg.Error as error:
            if not is_lost(error):
                with self.errors:
                    raise
            self.close()
            self._find_out(error)
            return []
        if self._script_cursor.statusmessage != "COMMIT":
            raise StoreUnavailable(f"{self.name}: the transaction was rolled back")
        return rows

    def _find_out(self, error: psycopg.Error) -> None:
        """Find out whether the transaction was committed whose COMMIT was cut off, and return if it was.

        PostgreSQL knows the fate of each transaction by its number. But the numbers that were given last before a crash, and were not
        on the disk yet, are given again after it; likewise after a failover to another server. Both begin a new life of the server, in
        which the table `server_life` is empty, as it is not logged. Then the number may be that of another transaction, so "committed"
        says nothing; any other answer says that ours was not.
        """
        xid, life = self._xid, self._life
        until = time.monotonic() + (FATE_WITHIN if xid else 0)
        pauses = backoff(*_FATE_PAUSES)
        while True:
            fate = self._fate(xid, life) if xid else "aborted"
            if fate == "committed":
                return
            if fate == "aborted":
                raise Contended(f"{self.name}: the connection was lost before the commit") from error
            pause = next(pauses)
            if fate == "unknown" or time.monotonic() + pause > min(until, self.patience.until()):
                break
            time.sleep(pause)  # the old process of the server still works on it, or the server cannot be reached
        reason = "the connection was lost during a commit, which may have been carried out"
        raise StoreUnavailable(f"{self.name}: {reason}") from error

    def _fate(self, xid: str, life: str | None) -> str:
        """Return "committed", "aborted", "unknown" if nobody will ever know, or "in progress", also while that cannot be asked."""
        try:
            if self.patience.is_over:
                return "in progress"
            if not self.connected:
                self._connect()
            is_same_life = life is not None and self._life == life
            with self.errors:
                ((fate,),) = self._carry_out(_FATE, [xid]).fetchall()
        except psycopg.Error as error:
            if error.sqlstate != _IN_THE_FUTURE:
                return "in progress"
            fate, is_same_life = "aborted", False
        except (StoreUnavailable, StoreCorrupt):
            return "in progress"
        if fate == "in progress" and not is_same_life and life is not None and self._life is not None:
            return "aborted"  # nothing of the life before is still in progress
        if fate is None or (fate == "committed" and not is_same_life):
            return "unknown"
        return str(fate)

    def rollback(self) -> None:
        """End the transaction, if there is one. A connection that cannot do that is closed, and the server ends it."""
        self.locks_rows, self.now = False, 0
        connection, cursor = self._connection, self._script_cursor
        if connection is None or cursor is None or connection.closed:
            return
        if connection.info.transaction_status in (TransactionStatus.INTRANS, TransactionStatus.INERROR):
            try:
                cursor.execute(b"ROLLBACK", prepare=False)
            except psycopg.Error:
                connection.close()
        if connection.info.transaction_status != TransactionStatus.IDLE:
            connection.close()

    # Locks beside others

    def lock_jobs(self, ids: Collection[str]) -> None:
        """Wait for the rows of jobs in job_state, and for a key in place of the row of a job that was removed."""
        if not self.locks_rows or self.locked.issuperset(ids):
            return
        self.locked.update(str(job_id) for (job_id,) in self.fetch(_LOCK_JOBS, [list(ids)]))
        removed = set(ids) - self.locked
        if removed:
            self.hold({f"removed:{job_id}" for job_id in removed}, wait=True)
            self.locked |= removed

    def note_locked(self, ids: Iterable[str]) -> None:
        """Note that the transaction holds the rows of jobs."""
        self.locked.update(ids)

    def hold(self, keys: Collection[str], *, wait: bool) -> bool:
        """Take the locks of keys until the transaction ends; see `Storage.hold`."""
        numbers = sorted(map(number_of_key, keys))
        if wait:
            self.fetch(_HOLD, [self._key_space, numbers])
            return True
        return all(held for (held,) in self.fetch(_TRY_TO_HOLD, [self._key_space, numbers]))

    def connect_apart(self) -> psycopg.Connection[tuple[object, ...]]:
        """Make another connection, on any thread. The caller closes it.

        Raises:
            psycopg.Error: It cannot be made.
        """
        return psycopg.Connection.connect(make_conninfo(**self._parameters), autocommit=True)

    def execute_apart(self, text: str, parameters: Parameters) -> None:
        """Carry out a statement on a connection of its own, on any thread.

        Raises:
            psycopg.Error: It failed.
        """
        with self.connect_apart() as connection, connection.transaction():
            connection.execute("SET LOCAL statement_timeout = '2s'")
            psycopg.RawCursor(connection).execute(self.qualified(text), parameters)
