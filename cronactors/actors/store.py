"""The store actor: the only one that touches the storage. It takes what waits, one transaction for all, then it answers."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence
from functools import partial
from itertools import chain, groupby, repeat
from typing import TypeAlias

import attrs
import trio

from cronactors.actors.exits import actor
from cronactors.actors.mailbox import EARLY, Envelope, Mailbox, Refused, Request
from cronactors.actors.storage_thread import Hop
from cronactors.errors import CronError, SchedulerClosed, SchedulerCrashed, StoreCorrupt, StoreUnavailable
from cronactors.ledger.damage import find_damage
from cronactors.storage.protocol import Storage
from cronactors.storage.rows import NextTimes
from cronactors.wallclock import sleep_until

logger = logging.getLogger("cronactors.store")

BATCH = 100
"""How many requests share a transaction at most."""
LOCK_TIMEOUT = 30.0
"""Seconds that a caller's request waits for a locked file before it is answered with StoreUnavailable."""
TOLD_EVERY = 10.0
"""Seconds between two lines of log on a store that goes on failing."""
_PAUSES = (0.005, 0.02, 0.05, 0.1)


@attrs.frozen
class Committed:
    """What the clock wants to know of a commit.

    Attributes:
        upcoming: When something is to be done next.
        stirred: Runs may have been ended by it, or asked to end.
    """

    next_times: NextTimes
    may_have_ended_runs: bool = False


@attrs.frozen
class Done:
    """A batch was carried out; ``committed`` is None if it only read."""

    answers: list[object]
    committed: Committed | None


@attrs.frozen
class Failed:
    """A batch was rolled back."""

    error: StoreUnavailable | StoreCorrupt


@attrs.frozen
class Locked:
    """A batch did not begin: another process holds the lock."""


Ending: TypeAlias = Done | Failed | Locked

Listener: TypeAlias = Callable[[Committed], None]
"""Told of each commit that changed something."""


class StoreActor:
    """Answers the requests of a mailbox.

    Args:
        mailbox: Where they come from.
        storage: What they are applied to.
        hop: How the storage is reached: on a thread of its own, or in place.
    """

    def __init__(self, mailbox: Mailbox, storage: Storage, hop: Hop) -> None:
        self._mailbox = mailbox
        self.storage = storage
        self._hop = hop
        self.listeners: list[Listener] = []
        self.last_error: str | None = None
        self._told_at = -math.inf
        self._works_untold = False
        self.latency: float | None = None
        self.postponed = 0  # requests that wait for a locked file

    @actor
    async def run(self) -> None:
        """Serve until the mailbox is closed and empty. Shielded: callers who wait for an answer get one, whatever happens."""
        postponed: list[Envelope] = []
        crash: BaseException | None = None
        try:
            with trio.CancelScope(shield=True):
                while True:
                    postponed = [await self._mailbox.receive(), *self._mailbox.receive_waiting(BATCH - 1)]
                    for pause in chain(_PAUSES, repeat(_PAUSES[-1])):
                        postponed = await self._serve(postponed)
                        self.postponed = len(postponed)
                        if not postponed:
                            break
                        await trio.sleep(pause)
                        postponed += self._mailbox.receive_waiting(self._mailbox.waiting)
        except trio.EndOfChannel:
            pass
        except BaseException as error:
            crash = error
            raise
        finally:
            self._settle_rest(postponed, crash)

    def _settle_rest(self, batch: list[Envelope], crash: BaseException | None) -> None:
        reason = SchedulerClosed("the store is closed") if crash is None else SchedulerCrashed("the store actor ended by a bug")
        reason.__cause__ = crash
        self._mailbox.close(reason)
        while batch:
            for envelope in batch:
                envelope.refuse(reason)
            batch = self._mailbox.receive_waiting(BATCH)

    async def _serve(self, postponed: Sequence[Envelope]) -> list[Envelope]:
        """Carry requests out, batch by batch. While another process holds the lock the reads are answered; the rest comes back.

        All that wait are held then, however many, so that no read and nobody's patience waits behind them. A caller that is cancelled
        between two attempts withdraws its request.
        """
        while postponed:
            taken = [envelope for envelope in postponed[:BATCH] if envelope.take()]
            if taken and not await self._commit(taken):
                break
            postponed = postponed[BATCH:]
        reads = [envelope for envelope in postponed if envelope.request.reads and envelope.take()]
        for first in range(0, len(reads), BATCH):
            await self._commit(reads[first : first + BATCH])
        return [envelope for envelope in postponed if envelope.take() and self._put_back(envelope)]

    async def _commit(self, taken: list[Envelope]) -> bool:
        """Apply requests in one transaction and answer them; False if the file is locked."""
        requests = [envelope.request for envelope in taken]
        began = trio.current_time()
        ending = await self._hop(partial(run_batch, self.storage, requests))
        self.latency = trio.current_time() - began
        match ending:
            case Done(answers, committed):
                for envelope, answer in zip(taken, answers, strict=True):
                    envelope.settle(answer)
                if committed is not None:
                    self._works()
                    for listener in self.listeners:
                        listener(committed)
            case Failed(error):
                self._fails(str(error))
                for envelope in taken:
                    envelope.refuse(error)
            case Locked():
                return False
        return True

    def _put_back(self, envelope: Envelope) -> bool:
        """Let a request wait for the next attempt, as long as its caller has patience."""
        if not envelope.put_back():
            return False
        if envelope.held_at is None:
            envelope.held_at = trio.current_time()
        if envelope.request.waits_forever or trio.current_time() - envelope.held_at <= LOCK_TIMEOUT:
            return True
        reason = f"the file was locked by another process for {LOCK_TIMEOUT:.0f} s"
        self._fails(reason)
        envelope.refuse(StoreUnavailable(reason))
        return False

    def _fails(self, reason: str) -> None:
        """Note a failure. It is told here, once in a while: a hundred runners that try again would tell it a hundred times."""
        self.last_error = reason
        if trio.current_time() >= self._told_at + TOLD_EVERY:
            self._told_at = trio.current_time()
            self._works_untold = True
            logger.warning("the store fails: %s", reason)

    def _works(self) -> None:
        self.last_error = None
        if self._works_untold:
            self._works_untold = False
            logger.warning("the store works again")


def run_batch(storage: Storage, requests: Sequence[Request[object]]) -> Ending:
    """Apply requests in one transaction: a refused one leaves no trace, an error of the storage undoes them all.

    What should never be raised may come of a damaged file, in which SQLite does not see everything.
    """
    writes = not all(request.reads for request in requests)
    sleep_until(max(request.not_before for request in requests), longest=EARLY)
    try:
        if not storage.begin(write=writes):
            return Locked()
        answers = [answer for kind, group in groupby(requests, key=type) for answer in _apply(storage, kind, list(group))]
        committed = _seen(storage, requests) if writes else None
        storage.commit()
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
    return Done(answers, committed)


def _seen(storage: Storage, requests: Sequence[Request[object]]) -> Committed:
    return Committed(storage.next_times(), any(request.may_end_runs for request in requests))


def _apply(storage: Storage, kind: type[Request[object]], requests: Sequence[Request[object]]) -> Sequence[object]:
    """Apply requests of one kind that stand one behind the other."""
    if not kind.certain:
        return [_ask(storage, request) for request in requests]
    try:
        return kind.apply_all(storage, requests)
    except (StoreUnavailable, StoreCorrupt):
        raise
    except CronError as refusal:
        raise AssertionError(f"{kind.__name__} must not refuse") from refusal


def _ask(storage: Storage, request: Request[object]) -> object:
    """Apply a request that may be refused."""
    if not request.reads:
        storage.savepoint()
    try:
        answer = request.apply(storage)
    except (StoreUnavailable, StoreCorrupt):
        raise
    except CronError as refusal:
        if not request.reads:
            storage.undo()
        return Refused(refusal)
    if not request.reads:
        storage.release()
    return answer


def _roll_back(storage: Storage) -> None:
    try:
        storage.rollback()
    except (StoreUnavailable, StoreCorrupt):
        logger.debug("rollback failed", exc_info=True)
