"""One connection to a PostgreSQL server, made anew after it was lost. Runs on the storage thread.

Each connection is set up the same way. Its plans are pinned: without statistics, or with old ones, PostgreSQL reads whole tables where
an index gives the row, and a plan that flips costs minutes. Its waits are bounded: a scheduler that was stopped inside a transaction
keeps its locks, and would stop all others for as long (docs/scaling.md).
"""

from __future__ import annotations

import hashlib
import logging
import os
import platform
import re
import time
from collections.abc import Collection, Iterable
from typing import Final

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg.types.numeric import Int8Dumper
from psycopg.types.string import StrDumper

from cronactors.errors import StoreUnavailable
from cronactors.instants import Millis
from cronactors.storage.errors import Contended
from cronactors.storage.postgres.address import without_password
from cronactors.storage.postgres.errors import ServerErrors, first_line, is_lost
from cronactors.storage.postgres.execution import Parameters, Value
from cronactors.storage.postgres.server_clock import ServerClock

logger = logging.getLogger("cronactors.store")

OLDEST_SERVER: Final = 140_000
CONNECT_TIMEOUT: Final = 5
"""How long (s) a connection may take to be made."""

_SETTINGS = {
    "plan_cache_mode": "force_generic_plan",
    "enable_seqscan": "off",
    "enable_hashjoin": "off",
    "enable_mergejoin": "off",
    "enable_bitmapscan": "off",
    "jit": "off",
    "lock_timeout": "200ms",
    "statement_timeout": "10s",
    "idle_in_transaction_session_timeout": "2s",
    "default_transaction_isolation": "read committed",
}
_VERSION_17 = 170_000
_SINCE_17 = {"transaction_timeout": "10s"}
_NOT_POSTGRES = {"CockroachDB": "CockroachDB", "-YB-": "YugabyteDB", "Redshift": "Redshift", "Materialize": "Materialize"}
_MILLIS = "floor(extract(epoch FROM clock_timestamp()) * 1000)::bigint"
_LOCK_JOBS = "SELECT id FROM @job_state WHERE id = ANY($1) ORDER BY number FOR NO KEY UPDATE"
_HOLD = "SELECT 1 FROM unnest($2::int[]) AS number, pg_advisory_xact_lock($1::int, number)"
_TRY_TO_HOLD = "SELECT pg_try_advisory_xact_lock($1::int, number) FROM unnest($2::int[]) AS number"
_TABLE = re.compile(r"@([a-z_]+)")
_PAUSES = (0.05, 0.2, 0.5, 1.0, 2.0)  # (s) between questions about a commit that was cut off
_SOON = ("refused", "starting up", "No such file")
"""Words of messages about a server that is being started."""


class Session:
    """A connection, and the transaction on it.

    Args:
        url: A ``postgresql://`` address, as libpq reads it.
        schema: The schema of the store.

    Attributes:
        name: The store, as messages name it: without a password.
        clock: The server's clock, estimated from the transactions.
        now: The time of the server when the transaction began (ms).
        locks_rows: Whether the transaction writes beside others.
        locked: The jobs whose locks the transaction holds.

    Raises:
        StoreUnavailable: libpq cannot read the address.
    """

    def __init__(self, url: str, schema: str) -> None:
        self._parameters = _read_url(url)
        host = self._parameters.get("host") or self._parameters.get("hostaddr") or "localhost"
        self.schema = schema
        self.name = f"postgresql://{host}/{self._parameters.get('dbname') or self._parameters.get('user') or ''}/{schema}"
        self.errors = ServerErrors(self.name)
        self.clock = ServerClock()
        self.now: Millis = 0
        self.locks_rows = False
        self.locked: set[str] = set()
        self._texts: dict[str, bytes] = {}
        self._connection: psycopg.Connection[tuple[Value, ...]] | None = None
        self._cursor: psycopg.RawCursor[tuple[Value, ...]] | None = None
        self._script_cursor: psycopg.RawCursor[tuple[Value, ...]] | None = None
        self._xid = ""
        self._timeline: Value = None
        self._store_key = self._key_space = 0
        self._warned = False

    # The connection

    @property
    def connected(self) -> bool:
        """Whether there is a connection that is not known to be lost."""
        return self._connection is not None and not self._connection.closed

    def connect(self) -> None:
        """Make the connection and set it up, if there is none.

        Raises:
            Contended: The server is starting up or refuses connections now.
            StoreUnavailable: It is out of reach, not PostgreSQL, too old, or refuses the user.
        """
        if self.connected:
            return
        connection = self._new_connection()
        try:
            with self.errors:
                self._set_up(connection)
        except BaseException:
            connection.close()
            raise
        self._connection = connection
        self._cursor = psycopg.RawCursor(connection)
        self._cursor.format = psycopg.pq.Format.BINARY
        self._script_cursor = psycopg.RawCursor(connection)

    def _new_connection(self) -> psycopg.Connection[tuple[Value, ...]]:
        try:
            return psycopg.Connection.connect(make_conninfo(**self._parameters), autocommit=True, prepare_threshold=0)
        except psycopg.Error as error:
            kind = Contended if any(words in str(error) for words in _SOON) else StoreUnavailable
            raise kind(f"{self.name} cannot be reached: {first_line(error)}") from error

    def _set_up(self, connection: psycopg.Connection[tuple[Value, ...]]) -> None:
        version = connection.execute("SELECT version()").fetchone()
        for mark, product in _NOT_POSTGRES.items():
            if version is not None and mark in str(version[0]):
                raise StoreUnavailable(f"{self.name} is {product}, not PostgreSQL")
        if connection.info.server_version < OLDEST_SERVER:
            raise StoreUnavailable(f"{self.name} is PostgreSQL {connection.info.server_version // 10_000}: 14 or newer is needed")
        settings = _SETTINGS | (_SINCE_17 if connection.info.server_version >= _VERSION_17 else {})
        connection.execute("; ".join(f"SET {name} = '{value}'" for name, value in settings.items()).encode(), prepare=False)
        facts = connection.execute(
            "SELECT (SELECT oid::bigint FROM pg_database WHERE datname = current_database()),"
            " (SELECT timeline_id FROM pg_control_checkpoint()), current_setting('synchronous_commit')"
        ).fetchone()
        assert facts is not None
        database, self._timeline, durable = facts
        digest = hashlib.sha256(f"{database}/{self.schema}".encode()).digest()
        self._store_key = int.from_bytes(digest[:8], signed=True)
        self._key_space = int.from_bytes(digest[8:12], signed=True)
        if durable == "off" and not self._warned:
            self._warned = True
            logger.warning("%s has synchronous_commit = off: a crash of the server can lose what it has acknowledged", self.name)
        connection.adapters.register_dumper(int, Int8Dumper)
        connection.adapters.register_dumper(str, StrDumper)
        connection.prepared_max = 500

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
        return self._cursor.execute(self.qualified(text), parameters, prepare=True)

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
        self.connect()
        sent = time.monotonic()
        if write:
            lock = "pg_advisory_xact_lock" if alone else "pg_advisory_xact_lock_shared"
            begin = f"BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE; SELECT {lock}({self._store_key})"
            *_, (now, xid) = self.script(f"{begin}; SELECT {_MILLIS}, pg_current_xact_id()::text")
            self._xid = str(xid)
        else:
            *_, (now,) = self.script(f"BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; SELECT {_MILLIS}")
            self._xid = ""
        assert isinstance(now, int)
        self.now = now
        self.clock.observe(now, sent, time.monotonic())
        self.locks_rows = write and not alone
        self.locked.clear()

    def commit(self) -> None:
        """Make the transaction durable. If the connection is lost meanwhile, ask the server whether it is.

        Raises:
            Contended: It is not.
            StoreUnavailable: That cannot be found out. It may have been carried out.
        """
        assert self._script_cursor is not None
        self.locks_rows, self.now = False, 0
        try:
            self._script_cursor.execute(b"COMMIT", prepare=False)
        except psycopg.Error as error:
            if not is_lost(error):
                with self.errors:
                    raise
            self._find_out(error)
            return
        if self._script_cursor.statusmessage != "COMMIT":
            raise StoreUnavailable(f"{self.name}: the transaction was rolled back")

    def _find_out(self, error: psycopg.Error) -> None:
        """Find out whether the transaction was committed whose COMMIT was cut off, and return if it was.

        Its number tells: PostgreSQL keeps the fate of each for long (`pg_xact_status`). After a failover to another server, which has
        another timeline, the number may be that of another transaction.
        """
        xid, timeline = self._xid, self._timeline
        for pause in _PAUSES if xid else ():
            self.close()
            try:
                self.connect()
                if self._timeline != timeline:
                    break
                ((fate,),) = self.fetch("SELECT pg_xact_status($1::xid8)", [xid])
            except (StoreUnavailable, psycopg.Error):
                fate = "in progress"
            if fate == "committed":
                return
            if fate == "aborted":
                raise Contended(f"{self.name}: the connection was lost before the commit") from error
            if fate is None:
                break
            time.sleep(pause)  # the old backend still works on it, or the server cannot be reached
        raise StoreUnavailable(
            f"{self.name}: the connection was lost during a commit, which may have been carried out"
        ) from error

    def rollback(self) -> None:
        """End the transaction, if there is one. A connection that cannot do that is closed, and the server ends it."""
        self.locks_rows, self.now = False, 0
        connection, cursor = self._connection, self._script_cursor
        if connection is None or cursor is None or connection.closed:
            return
        if connection.info.transaction_status is not psycopg.pq.TransactionStatus.IDLE:
            try:
                cursor.execute(b"ROLLBACK", prepare=False)
            except psycopg.Error:
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
        numbers = sorted(int.from_bytes(hashlib.sha256(key.encode()).digest()[:4], signed=True) for key in keys)
        if wait:
            self.fetch(_HOLD, [self._key_space, numbers])
            return True
        return all(held for (held,) in self.fetch(_TRY_TO_HOLD, [self._key_space, numbers]))

    def execute_apart(self, text: str, parameters: Parameters) -> None:
        """Carry out a statement on a connection of its own, on any thread.

        Raises:
            psycopg.Error: It failed.
        """
        with psycopg.Connection.connect(make_conninfo(**self._parameters), autocommit=True) as connection:
            connection.execute("SET statement_timeout = '2s'")
            psycopg.RawCursor(connection).execute(self.qualified(text), parameters)


def _read_url(url: str) -> dict[str, str]:
    """Return the parameters of a connection: those of the address, and ours where it names none."""
    try:
        given = {name: str(value) for name, value in conninfo_to_dict(url).items() if value is not None}
    except psycopg.ProgrammingError:  # its message quotes the address, and so the password
        raise StoreUnavailable(f"{without_password(url)} is no address of a PostgreSQL server that libpq can read") from None
    ours = {
        "application_name": f"cronactors/{platform.node()}/{os.getpid()}"[:63],
        "connect_timeout": str(CONNECT_TIMEOUT),
        "tcp_user_timeout": "5000",
        "keepalives_idle": "5",
        "keepalives_interval": "2",
        "keepalives_count": "3",
        "target_session_attrs": "read-write",
    }
    return ours | given
