"""Making a connection to a PostgreSQL server, checking what the server is, and setting the connection up.

Each connection is set up the same way. Its plans are pinned: without statistics, or with old ones, PostgreSQL reads whole tables where
an index gives the row, and a plan that flips costs minutes. Its waits are bounded: a scheduler that was stopped inside a transaction
keeps its locks, and would stop all others for as long (docs/scaling.md).
"""

from __future__ import annotations

import hashlib
import math
import os
import platform
import time
from collections.abc import Callable
from typing import Final, TypeVar

import attrs
import psycopg
from psycopg.abc import PQGen
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg.pq import TransactionStatus
from psycopg.types.numeric import Int8Dumper
from psycopg.types.string import StrDumper

from cronactors.errors import StoreUnavailable
from cronactors.instants import Millis
from cronactors.storage.errors import Contended
from cronactors.storage.postgres.address import hides_user
from cronactors.storage.postgres.arrays import ArrayDumper
from cronactors.storage.postgres.errors import first_line
from cronactors.storage.values import Value

OLDEST_SERVER: Final = 140_000
CONNECT_TIMEOUT: Final = 5
"""How long (s) a connection to one host may take to be made."""
ANSWER_LIMIT: Final = 15.0
"""How long (s) an answer may take: longer than the server allows a statement."""
LEAST: Final = 0.5
"""How long (s) an answer may take once waiting has ended: a server that works answers sooner."""
MILLIS: Final = "floor(extract(epoch FROM clock_timestamp()) * 1000)::bigint"

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
}
_LEAST_TO_CONNECT = 2  # (s) libpq takes less for this
_VERSION_17 = 170_000
_SINCE_17 = {"transaction_timeout": "10s"}
_NOT_POSTGRES = {"CockroachDB": "CockroachDB", "-YB-": "YugabyteDB", "Redshift": "Redshift", "Materialize": "Materialize"}
_FACTS = f"""SELECT pg_backend_pid(), (SELECT oid::bigint FROM pg_database WHERE datname = current_database()),
 current_setting('synchronous_commit'), {MILLIS}"""
_SOON = ("refused", "No such file", "starting up", "shutting down", "in recovery mode", "not yet accepting connections")
"""Words of messages about a server that is being started."""

_T = TypeVar("_T")


class Patience:
    """How long answers of the server are waited for.

    Attributes:
        longest: How long (s) one answer may take.
        until: Returns when all waiting ends, on the monotonic clock (s). Any thread may set it, also while one is waited for.
    """

    def __init__(self) -> None:
        self.longest = math.inf
        self.until: Callable[[], float] = lambda: math.inf

    @property
    def is_over(self) -> bool:
        """Whether the end of all waiting has come."""
        return time.monotonic() >= self.until()

    def to_connect(self, parameters: dict[str, str]) -> dict[str, str]:
        """Return the parameters of a connection, with as much time to make it as is left."""
        left = self.until() - time.monotonic()
        if left == math.inf:
            return parameters
        return parameters | {"connect_timeout": str(int(max(_LEAST_TO_CONNECT, min(left, CONNECT_TIMEOUT))))}


class ServerConnection(psycopg.Connection[tuple[Value, ...]]):
    """A connection that waits for an answer for `ANSWER_LIMIT` at most, or for less, as its patience says.

    The server ends a statement after 10 s, but not if it is stopped itself; and a commit that waits for a standby takes as long as the
    standby is away. Without a limit of ours the storage thread would wait as long, and with it every request. The answer may come
    later, so the connection is then closed.
    """

    patience = Patience()

    def wait(self, gen: PQGen[_T], interval: float = 0.1, timeout: float | None = None) -> _T:
        """Carry out a step of the protocol."""
        began = time.monotonic()
        limit = min(ANSWER_LIMIT, self.patience.longest) if timeout is None else timeout
        try:
            return super().wait(self._patiently(gen, began), interval, limit)
        except BaseException as error:
            is_answered = getattr(error, "sqlstate", None) is not None
            if self.pgconn.transaction_status == TransactionStatus.ACTIVE and not is_answered:
                self.close()
                if isinstance(error, psycopg.OperationalError):
                    raise psycopg.OperationalError(f"no answer within {time.monotonic() - began:.1f} s") from error
            raise

    def _patiently(self, gen: PQGen[_T], began: float) -> PQGen[_T]:
        """Carry out a step, and look at each interval in which nothing comes whether waiting has ended; an answer has `LEAST` to come."""
        try:
            wanted = next(gen)
            while True:
                ready = yield wanted
                if not ready and self.patience.is_over and time.monotonic() >= began + LEAST:
                    raise psycopg.OperationalError("waiting has ended")
                wanted = gen.send(ready)
        except StopIteration as end:
            result: _T = end.value
            return result


@attrs.frozen(kw_only=True)
class ServerFacts:
    """What is known of the server of a connection.

    Attributes:
        database: The number of the database.
        is_durable: Whether the server promises that a commit is durable.
        is_pooled: Whether a pooler is in between. It may give each transaction another connection to the server.
        now: The time of the server (ms).
        asked_at: When it was asked for its time, on the monotonic clock (s).
        answered_at: When the answer came.
    """

    database: int
    is_durable: bool
    is_pooled: bool
    now: Millis
    asked_at: float
    answered_at: float


def read_address(url: str) -> dict[str, str]:
    """Return the parameters of a connection: those of the address, and ours where it names none.

    Raises:
        StoreUnavailable: libpq cannot read it. The message shows nothing of it: what is wrong may be the password.
    """
    try:
        given = {name: str(value) for name, value in conninfo_to_dict(url).items() if value is not None}
    except psycopg.ProgrammingError:
        given = {}
    if not given or hides_user(url) or given.get("port", "").strip(",0123456789"):
        hint = "in a user or a password write %40 for @, %2F for /, %3A for :, %25 for %"
        raise StoreUnavailable(f"the address of the store is not one of a PostgreSQL server that libpq can read ({hint})")
    ours = {
        "application_name": f"cronactors/{platform.node()}/{os.getpid()}"[:63],
        "connect_timeout": str(CONNECT_TIMEOUT),
        "tcp_user_timeout": "5000",
        "keepalives_idle": "5",
        "keepalives_interval": "2",
        "keepalives_count": "3",
        "target_session_attrs": "read-write",
    }
    return ours | given | {"client_encoding": "UTF8"}


def new_connection(parameters: dict[str, str], name: str) -> ServerConnection:
    """Make a connection.

    Args:
        parameters: From `read_address`.
        name: The store, as messages name it.

    Raises:
        Contended: The server is being started, or is not there yet.
        StoreUnavailable: It is out of reach, or refuses the user.
    """
    try:
        return ServerConnection.connect(make_conninfo(**parameters), autocommit=True, prepare_threshold=0)
    except psycopg.Error as error:
        kind = Contended if any(words in str(error) for words in _SOON) else StoreUnavailable
        # The frames of psycopg hold a connection that was not answered in time, and the error holds them.
        raise kind(f"{name} cannot be reached: {first_line(error)}") from error.with_traceback(None)


def set_up(connection: ServerConnection, name: str) -> ServerFacts:
    """Check that we can use the server, and set up the connection.

    Raises:
        StoreUnavailable: It is not PostgreSQL, too old, or the database cannot store all text.
        psycopg.Error: It failed.
    """
    (version,) = _row(connection, "SELECT version()")
    for mark, product in _NOT_POSTGRES.items():
        if mark in str(version):
            raise StoreUnavailable(f"{name} is {product}, not PostgreSQL")
    if connection.info.server_version < OLDEST_SERVER:
        raise StoreUnavailable(f"{name} is PostgreSQL {connection.info.server_version // 10_000}: 14 or newer is needed")
    encoding = connection.info.parameter_status("server_encoding")
    if encoding != "UTF8":
        raise StoreUnavailable(f"{name} has the encoding {encoding}, which cannot store all text: UTF8 is needed")
    sent = time.monotonic()
    process, database, durable, now = _row(connection, _FACTS)
    answered = time.monotonic()
    assert isinstance(database, int)
    assert isinstance(now, int)
    is_pooled = process != connection.info.backend_pid  # a pooler invents the number that it gives to us
    if is_pooled:
        connection.prepare_threshold = None
    else:
        text = "; ".join(f"SET {key} = '{value}'" for key, value in _settings(connection).items())
        connection.execute(text.encode(), prepare=False)
    connection.adapters.register_dumper(int, Int8Dumper)
    connection.adapters.register_dumper(str, StrDumper)
    connection.adapters.register_dumper(list, ArrayDumper)
    connection.prepared_max = 500
    return ServerFacts(
        database=database, is_durable=durable != "off", is_pooled=is_pooled, now=now, asked_at=sent, answered_at=answered
    )


def keys_of_store(database: int, schema: str) -> tuple[int, int]:
    """Return the number of the advisory lock of a store, and the first number of the locks of its keys."""
    digest = hashlib.sha256(f"{database}/{schema}".encode()).digest()
    return int.from_bytes(digest[:8], signed=True), int.from_bytes(digest[8:12], signed=True)


def number_of_key(key: str) -> int:
    """Return the second number of the advisory lock of a key."""
    return int.from_bytes(hashlib.sha256(key.encode()).digest()[:4], signed=True)


def local_settings(connection: ServerConnection) -> str:
    """Return the statements that make our settings for one transaction, as is right behind a pooler."""
    return "".join(f"SET LOCAL {name} = '{value}'; " for name, value in _settings(connection).items())


def _settings(connection: ServerConnection) -> dict[str, str]:
    return _SETTINGS | (_SINCE_17 if connection.info.server_version >= _VERSION_17 else {})


def _row(connection: ServerConnection, text: str) -> tuple[Value, ...]:
    row = connection.execute(text.encode(), prepare=False).fetchone()
    assert row is not None
    return row
