"""A store actor under test: storages that count, requests of each kind, and a hop that a test can hold up."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import ClassVar, Self

import attrs
import trio
import trio.testing

from cronactors.actors.mailbox import BatchRequest, Mailbox, ReadRequest, Request
from cronactors.actors.storage_thread import Hop, T, in_place
from cronactors.actors.store import StoreActor
from cronactors.errors import CronError, InvalidJob, SchedulerClosed
from cronactors.instants import Millis
from cronactors.storage.protocol import Storage
from cronactors.storage.rows import OwnerRow
from cronactors.storage.sqlite import SqliteStorage
from tests.fake_storage import FakeStorage


class _Counts:
    """Logs transactions: ``log`` has one word for each that started, and one for each that ended."""

    log: list[str]

    def begin(self, *, write: bool, alone: bool = True) -> bool:
        started = super().begin(write=write, alone=alone)  # type: ignore[misc]  # the storage mixed in
        self.log.append(("write" if write else "read") if started else "locked")
        return started

    def commit(self) -> None:
        length = len(self.log)
        super().commit()  # type: ignore[misc]  # the storage mixed in
        self.log[length:] = ["commit"]  # the fake commits by way of its rollback

    def rollback(self) -> None:
        super().rollback()  # type: ignore[misc]  # the storage mixed in
        self.log.append("rollback")


class CountedFake(_Counts, FakeStorage):
    def __init__(self) -> None:
        FakeStorage.__init__(self)
        self.log = []


class CountedSqlite(_Counts, SqliteStorage):
    def __init__(self, path: str = ":memory:", *, wall: Callable[[], Millis] = lambda: 0, create: bool = True) -> None:
        SqliteStorage.__init__(self, path, wall=wall, create=create)
        self.log = []
        self.reads = 0
        opened.append(self)

    def _fetch(self, statement: str, parameters: object = ()) -> list[tuple[object, ...]]:
        self.reads += 1
        return super()._fetch(statement, parameters)  # type: ignore[arg-type, return-value]  # as it is given


opened: list[CountedSqlite] = []


# Requests: they store names as owners, the simplest rows


def store_name(storage: Storage, name: str) -> None:
    storage.insert_owner(OwnerRow(0, name, 1, "", heartbeat_at=0, lease_until=0))


@attrs.frozen
class Put(Request[str]):
    name: str

    def apply(self, storage: Storage) -> str:
        store_name(storage, self.name)
        return self.name.upper()


@attrs.frozen
class Refused(Put):
    def apply(self, storage: Storage) -> str:
        super().apply(storage)
        raise InvalidJob(self.name)


@attrs.frozen
class Fails(Put):
    error: CronError

    def apply(self, storage: Storage) -> str:
        super().apply(storage)
        raise self.error


@attrs.frozen
class Bug(Put):
    waits_forever: ClassVar[bool] = True

    def apply(self, storage: Storage) -> str:
        super().apply(storage)
        raise ZeroDivisionError(self.name)


@attrs.frozen
class WaitsForever(Put):
    waits_forever: ClassVar[bool] = True


@attrs.frozen
class MayEndRuns(Put):
    may_finish_runs: ClassVar[bool] = True


@attrs.frozen
class RefusedInBatch(BatchRequest[str]):
    name: str

    @classmethod
    def apply_all(cls, storage: Storage, requests: Sequence[Self]) -> list[str]:
        for request in requests:
            store_name(storage, request.name)
        raise InvalidJob(requests[0].name)


@attrs.frozen
class Names(ReadRequest[list[str]]):
    def apply(self, storage: Storage) -> list[str]:
        return sorted(row.machine for row in storage.owners())


class GatedHop:
    """A hop in place that waits before the transaction, or between its end and the reply, until a test opens it."""

    def __init__(self) -> None:
        self.count = 0
        self.before = trio.Event()
        self.after = trio.Event()
        self.open()

    def open(self) -> None:
        self.before.set()
        self.after.set()

    async def __call__(self, function: Callable[[], T], /) -> T:
        self.count += 1
        await self.before.wait()
        result = function()
        await self.after.wait()
        return result


@asynccontextmanager
async def serving(storage: Storage, hop: Hop = in_place) -> AsyncIterator[tuple[Mailbox, StoreActor]]:
    mailbox = Mailbox()
    actor = StoreActor(mailbox, storage, hop)
    with trio.fail_after(600):  # virtual seconds, mostly: a caller that hangs fails the test
        async with trio.open_nursery() as nursery:
            nursery.start_soon(actor.run)
            try:
                yield mailbox, actor
            finally:
                if isinstance(hop, GatedHop):
                    hop.open()
                mailbox.close(SchedulerClosed("closed"))


class Callers:
    """Makes calls, each in a task of its own, and collects the replies in the order in which they arrive."""

    def __init__(self, nursery: trio.Nursery, mailbox: Mailbox) -> None:
        self.scopes: dict[str, trio.CancelScope] = {}
        self.replies: dict[str, object] = {}
        self._nursery = nursery
        self._mailbox = mailbox

    async def call(self, *requests: Put | Names) -> None:
        """Send the requests, one after the other."""
        for request in requests:
            name = request.name if isinstance(request, Put) else "names"
            self.scopes[name] = trio.CancelScope()
            self._nursery.start_soon(self._call, name, request)
            await trio.testing.wait_all_tasks_blocked()

    async def _call(self, name: str, request: Request[object]) -> None:
        with self.scopes[name]:
            try:
                self.replies[name] = await self._mailbox.call(request)
            except Exception as error:
                self.replies[name] = error


@asynccontextmanager
async def calling(storage: Storage, hop: Hop = in_place) -> AsyncIterator[Callers]:
    async with serving(storage, hop) as (mailbox, _), trio.open_nursery() as nursery:
        try:
            yield Callers(nursery, mailbox)
        finally:
            if isinstance(hop, GatedHop):
                hop.open()
