"""The store actor: the only task that uses the storage. It takes the waiting requests, commits them together, then replies.

We commit in groups because the cost of a commit hardly depends on its size. A request alone pays some 100 us for the hop to the
storage thread and back, and some 250 us for the commit; a run in a batch of a hundred pays 2 and 6.5. The batch needs no timer:
while one commit is made the mailbox fills, so batches grow with the load, up to 100 requests, and an idle store replies at once
(docs/performance.md).
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence
from functools import partial
from itertools import groupby
from typing import Protocol, TypeAlias, cast

import attrs
import trio

from cronactors.actors.exits import actor
from cronactors.actors.mailbox import EARLY, BatchRequest, Envelope, Mailbox, ReadRequest, Refused, Request
from cronactors.actors.storage_thread import Hop
from cronactors.backoff import backoff
from cronactors.errors import CronError, SchedulerClosed, SchedulerCrashed, StoreCorrupt, StoreUnavailable
from cronactors.instants import Millis
from cronactors.ledger.damage import find_damage
from cronactors.storage.errors import Contended
from cronactors.storage.protocol import Storage
from cronactors.storage.rows import NextTimes

logger = logging.getLogger("cronactors.store")

BATCH = 100
"""How many requests share a transaction at most."""
LOCK_TIMEOUT = 30.0
"""How long (s) a request waits for a locked file before it is refused with `StoreUnavailable`, or reported if it waits for ever."""
MOST_LOCKED = 2
"""How many batches of requests that were found locked before are tried one after the other: on a server each try takes 200 ms."""
LOG_EVERY = 10.0
"""How long (s) until it is logged again that the store fails, after it has worked in between."""
_LOCK_PAUSES = (0.005, 0.1)  # seconds between attempts at a locked file, the first and the longest


@attrs.frozen
class Committed:
    """The changes of a commit that concern the clock, the patrol, the receivers and the pruner.

    Attributes:
        next_times: When something is due next, and when something is to be decided next that needs no free slot.
        may_have_finished_runs: Some of its requests can finish runs, or request their cancellation.
        only_claims: All of its requests start runs and do nothing else.
        woken: The receivers that have something to deliver which no reply has shown.
    """

    next_times: NextTimes
    may_have_finished_runs: bool = False
    only_claims: bool = False
    woken: frozenset[str] = frozenset()


@attrs.frozen
class Done:
    """The batch was committed. ``committed`` is None if it only read."""

    replies: list[object]
    committed: Committed | None


@attrs.frozen
class Failed:
    """The batch was rolled back."""

    error: StoreUnavailable | StoreCorrupt


@attrs.frozen
class Locked:
    """The batch has changed nothing, since another process is in the way."""


BatchResult: TypeAlias = Done | Failed | Locked

Listener: TypeAlias = Callable[[Committed], None]
"""Called after each commit that changed something."""


class Observer(Protocol):
    """Observes commits and failures; it neither waits nor raises. `event_stream` has the only one."""

    def observed(self, storage: Storage) -> Storage:
        """Return the storage for one transaction, wrapped if its writes are to be observed."""

    def committed(self, storage: Storage) -> None:
        """Notice that this transaction was committed."""

    def store_failed(self, reason: str) -> None:
        """Notice that the store has failed, after it has worked."""

    def store_working(self) -> None:
        """Notice that the store works again."""

    def clock_jumped(self, by: Millis, now: Millis) -> None:
        """Notice that the wall clock was set."""


class StoreActor:
    """Carries out the requests of a mailbox.

    Args:
        mailbox: Where the requests come from.
        storage: The storage that they are applied to.
        hop: Calls a function where the storage may be used: on its own thread, or in place.

    Attributes:
        listeners: Called after each commit that changed something.
        failure_listeners: Called after each batch of writes that failed; it may have been committed all the same.
        observer: Observes commits while a stream of events is open; else None.
        last_error: Why the last batch failed, or a request waits for longer than `LOCK_TIMEOUT`; None once a commit has succeeded, and
            none waits so long.
        latency: How long (s) the last transaction took, with the hop and the wait for its moment; None before the first.
        postponed: How many requests wait for a locked file.
    """

    def __init__(self, mailbox: Mailbox, storage: Storage, hop: Hop) -> None:
        self._mailbox = mailbox
        self.storage = storage
        self._hop = hop
        self.listeners: list[Listener] = []
        self.failure_listeners: list[Callable[[], None]] = []
        self.observer: Observer | None = None
        self.last_error: str | None = None
        self._logged_at = -math.inf
        self._failure_logged = False
        self._overdue: set[Envelope] = set()  # those that wait for longer than LOCK_TIMEOUT
        self._shares: dict[Envelope, int] = {}  # with how many others each of those that were found locked may be tried
        self.latency: float | None = None
        self.postponed = 0

    @actor
    async def run(self) -> None:
        """Serve until the mailbox is closed and empty. Shielded: every request in the mailbox gets a reply, also after a bug."""
        requests: list[Envelope] = []
        crash: BaseException | None = None
        try:
            with trio.CancelScope(shield=True):
                while True:
                    requests = [await self._mailbox.receive(), *self._mailbox.receive_waiting(BATCH - 1)]
                    if not all(isinstance(envelope.request, ReadRequest) for envelope in requests):
                        requests = self._mailbox.receive_sharing() + requests
                    # Those that share the commit are beyond the limit: else they would cost one of their own.
                    size = len(requests)
                    for pause in backoff(*_LOCK_PAUSES):
                        requests = await self._serve(requests, size)
                        size = BATCH
                        self.postponed = len(requests)
                        if not requests:
                            break
                        await trio.sleep(pause)
                        requests += self._mailbox.receive_waiting(self._mailbox.waiting)
        except trio.EndOfChannel:
            pass
        except BaseException as error:
            crash = error
            raise
        finally:
            self._refuse_the_rest(requests, crash)

    def _refuse_the_rest(self, batch: list[Envelope], crash: BaseException | None) -> None:
        reason = SchedulerClosed("the store is closed") if crash is None else SchedulerCrashed("a bug ended the store actor")
        reason.__cause__ = crash
        self._mailbox.close(reason)
        while batch:
            for envelope in batch:
                envelope.refuse(reason)
            batch = self._mailbox.receive_waiting(BATCH)

    async def _serve(self, waiting: Sequence[Envelope], size: int) -> list[Envelope]:
        """Carry out requests in batches of a size; if the file is locked, carry out the reads and return the rest.

        While the file is locked we take every request out of the mailbox, not only one batch: else a read would wait behind a
        hundred writes, and a request behind them would not notice that its 30 s are over.

        On a server it is mostly one row that is locked, so one request keeps the others of its batch waiting. A batch that was found locked
        twice is tried in halves, and these in halves again, behind all other requests.
        """
        side_by_side = self.storage.writes_side_by_side
        if side_by_side:
            waiting = sorted(waiting, key=lambda envelope: -self._share(envelope))
        locked: list[Envelope] = []
        times_locked = 0
        while waiting:
            share = self._share(waiting[0])
            count = self._side_by_side(waiting[: size if share == BATCH else share]) if side_by_side else size
            batch = [envelope for envelope in waiting[:count] if envelope.start()]
            if batch and not await self._commit(batch):
                times_locked += 1
                if side_by_side:
                    was_locked = any(envelope in self._shares for envelope in batch)
                    self._shares |= dict.fromkeys(batch, max(1, min(len(batch), BATCH) // 2) if was_locked else BATCH)
                if share == BATCH or times_locked == MOST_LOCKED:
                    break
                locked += batch
            waiting = waiting[count:]
        waiting = [*waiting, *locked]
        reads = [envelope for envelope in waiting if isinstance(envelope.request, ReadRequest) and envelope.start()]
        for first in range(0, len(reads), BATCH):
            await self._commit(reads[first : first + BATCH])
        left = [envelope for envelope in waiting if envelope.start() and self._postpone(envelope)]
        self._overdue.intersection_update(left)
        self._shares = {envelope: self._shares[envelope] for envelope in left if envelope in self._shares}
        return left

    def _share(self, envelope: Envelope) -> int:
        return self._shares.get(envelope, BATCH)

    def _side_by_side(self, waiting: Sequence[Envelope]) -> int:
        """Return how many requests, from the first on, share a transaction.

        A hundred finishes must not keep others out for one pause, and a read must not lock what it reads.
        """
        kinds = [(isinstance(each.request, ReadRequest), each.request.alone, self._share(each)) for each in waiting]
        return next((count for count, kind in enumerate(kinds) if kind != kinds[0]), len(kinds))

    async def _commit(self, batch: list[Envelope]) -> bool:
        """Apply requests in one transaction and reply to them; return False if the file is locked."""
        requests = [envelope.request for envelope in batch]
        observer = self.observer
        storage = self.storage if observer is None else observer.observed(self.storage)
        started = trio.current_time()
        result = await self._hop(partial(run_batch, storage, requests))
        self.latency = trio.current_time() - started
        match result:
            case Done(replies, committed):
                for envelope, reply in zip(batch, replies, strict=True):
                    envelope.reply(reply)
                if observer is not None:
                    observer.committed(storage)
                self._overdue.difference_update(batch)
                if committed is not None:
                    self._report_success()
                    for listener in self.listeners:
                        listener(committed)
            case Failed(error):
                self._refuse(batch, error)
            case Locked():
                return False
        return True

    def _refuse(self, batch: list[Envelope], error: CronError) -> None:
        self._report_failure(str(error))
        for envelope in batch:
            envelope.refuse(error)
        if not all(isinstance(envelope.request, ReadRequest) for envelope in batch):
            for listener in self.failure_listeners:
                listener()

    def _postpone(self, envelope: Envelope) -> bool:
        """Keep a request for the next attempt; return False if its caller was cancelled or its time is over."""
        if not envelope.postpone():
            return False
        if envelope.postponed_at is None:
            envelope.postponed_at = trio.current_time()
        if trio.current_time() - envelope.postponed_at <= LOCK_TIMEOUT:
            return True
        reason = f"{self.storage.name} was locked by other processes for {LOCK_TIMEOUT:.0f} s"
        self._report_failure(reason)
        if envelope.request.waits_forever:
            self._overdue.add(envelope)
            return True
        envelope.refuse(StoreUnavailable(reason))
        return False

    def _report_failure(self, reason: str) -> None:
        """Log that the store has begun to fail, at most once every 10 s: a hundred runners may be retrying."""
        if self.observer is not None and self.last_error is None:
            self.observer.store_failed(reason)
        self.last_error = reason
        if not self._failure_logged and trio.current_time() >= self._logged_at + LOG_EVERY:
            self._logged_at = trio.current_time()
            self._failure_logged = True
            logger.warning("the store is failing: %s", reason)

    def _report_success(self) -> None:
        """Log that the store works again, once it has carried out what waited for too long."""
        if self._overdue:
            return
        if self.observer is not None and self.last_error is not None:
            self.observer.store_working()
        self.last_error = None
        if self._failure_logged:
            self._failure_logged = False
            logger.warning("the store is working again")


def run_batch(storage: Storage, requests: Sequence[Request[object]]) -> BatchResult:
    """Apply requests in one transaction. Runs on the storage thread.

    A request that is refused is undone alone; an error of the storage undoes the whole batch. An exception that should be
    impossible may come from a damaged file, since SQLite does not notice every damage: so we check the file before we call it a
    bug.
    """
    writes = [request for request in requests if not isinstance(request, ReadRequest)]
    storage.wait_until(max(request.not_before for request in requests), longest=EARLY)
    try:
        if not storage.begin(write=bool(writes), alone=any(request.alone for request in writes)):
            return Locked()
        replies = [reply for kind, group in groupby(requests, key=type) for reply in _apply_group(storage, kind, list(group))]
        committed = None
        if writes:
            committed = _commit(storage, requests)
        else:
            storage.commit()
    except Contended as error:
        logger.debug("the batch is carried out again: %s", error)
        _roll_back(storage)
        return Locked()
    except (StoreUnavailable, StoreCorrupt) as error:
        _roll_back(storage)
        return Failed(error)
    except Exception as bug:
        _roll_back(storage)
        damage = find_damage(storage)
        if damage is None:
            raise
        damage.__cause__ = bug
        return Failed(damage)
    except BaseException:
        _roll_back(storage)
        raise
    return Done(replies, committed)


def _commit(storage: Storage, requests: Sequence[Request[object]]) -> Committed:
    woken = storage.notifications.take_woken()
    return Committed(
        storage.commit_writes(),
        may_have_finished_runs=any(request.may_finish_runs for request in requests),
        only_claims=all(request.only_claims for request in requests),
        woken=woken,
    )


def _apply_group(storage: Storage, kind: type[Request[object]], requests: Sequence[Request[object]]) -> Sequence[object]:
    """Apply requests of one kind that follow each other in a batch."""
    if not issubclass(kind, BatchRequest):
        return [_apply(storage, request) for request in requests]
    try:
        return kind.apply_all(storage, cast("Sequence[BatchRequest[object]]", requests))
    except (StoreUnavailable, StoreCorrupt):
        raise
    except CronError as refusal:
        raise AssertionError(f"{kind.__name__} must not refuse") from refusal


def _apply(storage: Storage, request: Request[object]) -> object:
    """Apply a request that may be refused, inside a savepoint if it writes."""
    writes = not isinstance(request, ReadRequest)
    if writes:
        storage.savepoint()
    try:
        reply = request.apply(storage)
    except (StoreUnavailable, StoreCorrupt):
        raise
    except CronError as refusal:
        if writes:
            storage.undo()
        return Refused(refusal)
    if writes:
        storage.release()
    return reply


def _roll_back(storage: Storage) -> None:
    try:
        storage.rollback()
    except (StoreUnavailable, StoreCorrupt):
        logger.debug("rollback failed", exc_info=True)
