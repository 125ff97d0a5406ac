"""Two connections to one store, whose transactions a test plays against each other step by step.

A transaction stops at a `Stop`, a request among those of its batch, and continues when the test says so. That the other one waits is
seen in pg_locks. Nothing here sleeps for a time that has to suffice.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from enum import Enum, auto
from typing import ClassVar, Self
from unittest import mock

import attrs
import psycopg

from cronactors.actors.actor_requests import ClaimDue, FinishRun, FinishSettings
from cronactors.actors.mailbox import BatchRequest, Refused, Request
from cronactors.actors.store import BatchResult, Done, Locked, run_batch
from cronactors.errors import CronError
from cronactors.instants import Millis
from cronactors.policy import Outcome
from cronactors.storage.postgres import errors
from cronactors.storage.postgres.storage import PostgresStorage
from cronactors.storage.protocol import Storage
from cronactors.storage.rows import RunRow
from tests.ledger_world import SUCCESS, World
from tests.postgres_store import TimedPostgres, worker_database

PATIENCE = 60.0
"""How long (s) a step may take before the test fails."""
_IS_WAITING = "SELECT 1 FROM pg_locks WHERE pid = %s AND NOT granted"


class Locks(Enum):
    """Which locks transactions take. The races are played with less than all of them too, to show that the tests would notice.

    ALL: what the design says.
    ROWS: only those of job rows. No transaction is alone, nothing is held, and a unique violation is an error as any other.
    NONE: not even those.
    """

    ALL = auto()
    ROWS = auto()
    NONE = auto()


class RacingPostgres(PostgresStorage):
    """A second connection to the store of a world, by its clock."""

    def __init__(self, world: World, locks: Locks = Locks.ALL) -> None:
        assert isinstance(world.storage, TimedPostgres)
        super().__init__(worker_database(), schema=world.storage.schema, create=False)
        self._world = world
        self._locks = locks
        self._began_at: Millis | None = None
        ((self.backend,),) = self._session.script("SELECT pg_backend_pid()")

    def set(self, **settings: str) -> None:
        """Change settings of the connection."""
        for name, value in settings.items():
            self._session.script(f"SET {name} = '{value}'")

    def now(self) -> Millis:
        return self._world.now if self._began_at is None else self._began_at

    def begin(self, *, write: bool, alone: bool = True) -> bool:
        begun = super().begin(write=write, alone=alone and self._locks is Locks.ALL)
        self._session.locks_rows &= self._locks is not Locks.NONE
        self._began_at = self._world.now
        return begun

    def commit(self) -> None:
        super().commit()
        self._began_at = None

    def rollback(self) -> None:
        super().rollback()
        self._began_at = None

    def hold(self, *keys: str, wait: bool = True) -> bool:
        return self._locks is not Locks.ALL or super().hold(*keys, wait=wait)


@attrs.frozen(eq=False)
class Stop(BatchRequest[None]):
    """Where a batch stops until the test lets it continue."""

    alone: ClassVar[bool] = False
    reached: threading.Event = attrs.field(factory=threading.Event)
    may_continue: threading.Event = attrs.field(factory=threading.Event)

    @classmethod
    def apply_all(cls, storage: Storage, requests: Sequence[Self]) -> list[None]:
        for each in requests:
            each.reached.set()
            assert each.may_continue.wait(PATIENCE), "the test has forgotten a batch"
        return [None for _ in requests]


class Batch:
    """A batch that is being carried out."""

    def __init__(self, requests: Sequence[Request[object]], result: Future[BatchResult]) -> None:
        self.requests = requests
        self._result = result

    @property
    def waits(self) -> bool:
        """Whether it has not ended."""
        return not self._result.done()

    def go_on(self) -> None:
        """Let it continue behind all of its stops."""
        for each in self.requests:
            if isinstance(each, Stop):
                each.may_continue.set()

    def result(self) -> BatchResult:
        """Let it continue, and wait until it has ended."""
        self.go_on()
        return self._result.result(PATIENCE)

    def replies(self) -> list[object]:
        """Let it commit, and return the replies, with the errors of requests that were refused."""
        result = self.result()
        assert isinstance(result, Done), result
        replies = [reply for request, reply in zip(self.requests, result.replies, strict=True) if not isinstance(request, Stop)]
        return [reply.error if isinstance(reply, Refused) else reply for reply in replies]

    def reply(self) -> object:
        """Let it commit, and return its only reply."""
        (reply,) = self.replies()
        return reply

    @property
    def was_locked(self) -> bool:
        """Let it continue; whether it has changed nothing, and has to be tried again."""
        return isinstance(self.result(), Locked)


class Connection:
    """A connection with the thread that uses it."""

    def __init__(self, storage: RacingPostgres, is_waiting: Callable[[], bool]) -> None:
        self.storage = storage
        self._is_waiting = is_waiting
        self._thread = ThreadPoolExecutor(1, "connection")
        self._batches: list[Batch] = []

    def _begin(self, requests: Sequence[Request[object]]) -> Batch:
        batch = Batch(requests, self._thread.submit(run_batch, self.storage, requests))
        self._batches.append(batch)
        return batch

    def hold_open(self, *requests: Request[object]) -> Batch:
        """Carry out a batch up to its commit; return once it has come so far."""
        return self.begin(*requests, Stop())

    def begin(self, *requests: Request[object]) -> Batch:
        """Begin a batch; return once it has come to its first stop."""
        batch = self._begin(requests)
        stop = next(each for each in requests if isinstance(each, Stop))
        _until(lambda: stop.reached.is_set() or not batch.waits)
        assert batch.waits, f"it has ended: {batch.result()}"
        return batch

    def start(self, *requests: Request[object]) -> Batch:
        """Carry out a batch; return once it waits for a lock, or has ended."""
        batch = self._begin(requests)
        self.until_it_waits(batch)
        return batch

    def until_it_waits(self, batch: Batch) -> None:
        """Wait until a batch waits for a lock, or has ended."""
        _until(lambda: not batch.waits or self._is_waiting())

    def carry_out(self, *requests: Request[object]) -> list[object]:
        """Carry out a batch that waits for nothing, and return the replies."""
        return self._begin(requests).replies()

    def close(self) -> None:
        """End all batches, and the connection."""
        for batch in self._batches:
            batch.go_on()
        self._thread.shutdown()
        self.storage.close()


def _until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not holds():
        assert time.monotonic() < deadline, "nothing happens"
        time.sleep(0.001)


@contextmanager
def connections(world: World, locks: Locks = Locks.ALL, *, count: int = 2) -> Iterator[list[Connection]]:
    """Open connections that wait for each other for as long as a test takes."""
    with ExitStack() as stack:
        observer = stack.enter_context(psycopg.connect(worker_database(), autocommit=True))
        if locks is not Locks.ALL:
            stack.enter_context(mock.patch.object(errors, "_UNIQUE_BESIDE_OTHERS", frozenset()))

        def waiting(backend: object) -> Callable[[], bool]:
            return lambda: observer.execute(_IS_WAITING, [backend]).fetchone() is not None

        limits = ["lock_timeout", "statement_timeout", "idle_in_transaction_session_timeout"]
        limits += ["transaction_timeout"] if observer.info.server_version >= 170_000 else []
        opened = []
        for _ in range(count):
            storage = RacingPostgres(world, locks)
            storage.set(**dict.fromkeys(limits, "2min"))
            opened.append(stack.enter_context(closing(Connection(storage, waiting(storage.backend)))))
        yield opened


# Requests of a scheduler


def claim(owner: int, *, limit: int = 10, total: int | None = None) -> ClaimDue:
    """Make the request of a clock."""
    return ClaimDue(owner, limit, total, 0)


def finish(
    world: World,
    run: RunRow,
    outcome: Outcome = SUCCESS,
    *,
    claim_next: bool = False,
    receivers: Sequence[str] = (),
    total: int | None = None,
) -> FinishRun:
    """Make the request of a runner."""
    settings = FinishSettings(owner=run.owner or 0, policy=world.policy, total=total, receivers=tuple(receivers))
    return FinishRun(run.id, outcome, claim_next, settings, world.claimed.get(run.id))


def refused(reply: object) -> type[CronError] | None:
    """Return the kind of error with which a request was refused."""
    return type(reply) if isinstance(reply, CronError) else None
